//! Every byte written twice, as a log with a journal has to: what the disk gives such a log at best, without an engine.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::disk::{noise, prewritten};
use crate::measure::{Case, Outcome, Problem, mb_per_second};
use crate::raw::{self, Ring};

/// Bytes of each write, and of each durable append.
const STEP_BYTES: usize = 1 << 20;
/// Bytes of a file that grows, written and then flushed.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Files that grow at a time: with more of them none of the disks tried got faster.
const WRITERS: usize = 8;

/// One thread appends durably to a pre-written file that is recycled; others write as many bytes to files that grow.
pub struct Twice {
    /// Past the page cache.
    pub direct: bool,
    /// Bytes of the pre-written file, and of the memory that is written from: how far the second writing may fall behind.
    pub journal_bytes: u64,
    /// Bytes that are written twice per turn.
    pub bytes: u64,
    /// Where.
    pub dir: PathBuf,
}

/// How far the two writings are, and whether one has failed.
#[derive(Default)]
struct Progress {
    journalled: AtomicU64,
    claimed: AtomicU64,
    stored: AtomicU64,
    failed: AtomicBool,
}

impl Twice {
    fn journal(&self, progress: &Progress, file: &File, memory: &[u8]) -> Result<(), Problem> {
        let mut ring = Ring::new(8)?;
        let mut pieces = memory.chunks_exact(STEP_BYTES).zip((0..).step_by(STEP_BYTES)).cycle();
        let mut done = 0;
        while done < self.bytes && !progress.failed.load(Ordering::Relaxed) {
            if done > progress.stored.load(Ordering::Relaxed) + self.journal_bytes {
                thread::sleep(Duration::from_micros(100));
                continue;
            }
            let (bytes, at) = pieces.next().ok_or("the memory holds one append at least")?;
            ring.append_linked(file, bytes, at)?;
            done += STEP_BYTES as u64;
            progress.journalled.store(done, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes segments of what is journalled; gives the files, so that they are removed outside of what is timed.
    fn segments(&self, progress: &Progress) -> Result<Vec<File>, Problem> {
        let memory = noise(STEP_BYTES)?;
        let mut files = Vec::new();
        loop {
            let from = progress.claimed.fetch_add(SEGMENT_BYTES, Ordering::Relaxed);
            if from >= self.bytes {
                return Ok(files);
            }
            let end = (from + SEGMENT_BYTES).min(self.bytes);
            while progress.journalled.load(Ordering::Relaxed) < end {
                if progress.failed.load(Ordering::Relaxed) {
                    return Ok(files);
                }
                thread::sleep(Duration::from_micros(100));
            }
            let file = raw::scratch_file(&self.dir, self.direct)?;
            for at in (0..end - from).step_by(STEP_BYTES) {
                file.write_all_at(&memory, at)?;
            }
            file.sync_data()?;
            files.push(file);
            progress.stored.fetch_add(end - from, Ordering::Relaxed);
        }
    }
}

impl Case for Twice {
    fn name(&self) -> String {
        format!("bare: durable appends of {}, and the same bytes to files that grow", super::size(STEP_BYTES))
    }

    fn run(&mut self, _: Duration) -> Result<Outcome, Problem> {
        let file = prewritten(&self.dir, self.direct, self.journal_bytes)?;
        let memory = noise(self.journal_bytes as usize)?;
        let progress = Progress::default();
        let started = Instant::now();
        let watched = |result: Result<Vec<File>, Problem>| {
            progress.failed.fetch_or(result.is_err(), Ordering::Relaxed);
            (result, started.elapsed())
        };
        let (files, took) = thread::scope(|scope| {
            let journal = || watched(self.journal(&progress, &file, &memory).map(|()| Vec::new()));
            let segments = || watched(self.segments(&progress));
            let mut threads = vec![scope.spawn(journal)];
            threads.extend((0..WRITERS).map(|_| scope.spawn(segments)));
            let mut all = (Vec::new(), Duration::ZERO);
            for thread in threads {
                let (files, took) = thread.join().map_err(|_| "a writing thread panicked")?;
                all.0.push(files?);
                all.1 = all.1.max(took);
            }
            Ok::<_, Problem>(all)
        })?;
        drop(files);
        Ok(Outcome::default().with("MB/s", mb_per_second(self.bytes, took)))
    }
}
