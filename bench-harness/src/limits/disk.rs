//! The disk: durable appends by size and by the state of the file, and sequential writes and reads.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::pinned;
use crate::measure::{Case, Outcome, Problem, cpu_ms_per_gb, histogram, mb_per_second};
use crate::raw::{self, Clock, CpuTimer, Memory, Op, Ring};

/// What the file system must still do for a write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// Find blocks and lengthen the file.
    Growing,
    /// Mark allocated blocks as written.
    Fallocated,
    /// Nothing: all its blocks were written before.
    Prewritten,
}

impl fmt::Display for FileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileState::Growing => "growing",
            FileState::Fallocated => "fallocated",
            FileState::Prewritten => "pre-written",
        })
    }
}

/// How write and flush are submitted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Submission {
    /// Together, the flush linked to the write.
    Linked,
    /// The flush after the write has completed.
    Separate,
}

/// A file that is appended to and started anew when it is full, in the state asked for.
struct Target {
    file: File,
    state: FileState,
    at: u64,
    len: u64,
}

impl Target {
    /// Pre-written files are recycled, so they can be small. The others are renewed outside of what is timed; the
    /// larger they are, the less often.
    fn open(dir: &Path, direct: bool, state: FileState, recycled: u64) -> Result<Target, Problem> {
        let len = if state == FileState::Prewritten { recycled } else { 512 << 20 };
        let file = raw::scratch_file(dir, direct)?;
        if state == FileState::Prewritten {
            fill(&file, len)?;
        }
        let mut target = Target { file, state, at: 0, len };
        target.renew()?;
        Ok(target)
    }

    fn renew(&mut self) -> Result<(), Problem> {
        self.at = 0;
        if self.state != FileState::Prewritten {
            self.file.set_len(0)?;
        }
        if self.state == FileState::Fallocated {
            raw::fallocate(&self.file, self.len)?;
        }
        self.file.sync_all()?;
        Ok(())
    }

    /// Where the next `len` bytes go; `None` if the file is full.
    fn next(&mut self, len: u64) -> Option<u64> {
        let at = self.at;
        self.at += len;
        (self.at <= self.len).then_some(at)
    }
}

/// Writes `len` bytes of zeros and flushes them.
fn fill(file: &File, len: u64) -> Result<(), Problem> {
    let zeros = Memory::zeroed(1 << 20)?;
    for at in (0..len).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Bytes that are no zeros, for disks that compress.
pub fn noise(len: usize) -> Result<Memory, Problem> {
    let mut memory = Memory::zeroed(len)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in memory.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    Ok(memory)
}

/// Durable appends, one in flight per thread, each thread on its own processor with its own file.
pub struct Append {
    /// Bytes per append, a multiple of 4 KiB.
    pub bytes: usize,
    /// The file.
    pub state: FileState,
    /// The submission.
    pub submission: Submission,
    /// Past the page cache.
    pub direct: bool,
    /// Threads.
    pub threads: usize,
    /// Bytes of the pre-written file that is recycled.
    pub file_bytes: u64,
    /// Memory that takes turns to be written from; at least `bytes`.
    pub memory_bytes: usize,
    /// Whether the bytes of each append are copied into place while the one before is under way.
    pub copied: bool,
    /// Where.
    pub dir: PathBuf,
}

/// A piece of what is copied into an append.
const COPIED_BYTES: usize = 64 << 10;
/// A pre-written file that is recycled, if nobody asks for another size.
const RECYCLED_BYTES: u64 = 64 << 20;

impl Append {
    /// The append that every other is compared with: linked, on a pre-written file, from one thread.
    pub fn of(bytes: usize, dir: &Path, direct: bool) -> Append {
        Append {
            bytes,
            state: FileState::Prewritten,
            submission: Submission::Linked,
            direct,
            threads: 1,
            file_bytes: RECYCLED_BYTES,
            memory_bytes: bytes,
            copied: false,
            dir: dir.to_owned(),
        }
    }

    /// The same, going round a file and memory of so many bytes, as a journal and its tail do: neither the processor's
    /// caches nor those of whatever is below the disk hold as much.
    pub fn over(self, bytes: u64) -> Append {
        Append { file_bytes: bytes, memory_bytes: bytes as usize, ..self }
    }

    /// The same, its bytes copied from elsewhere, as any journal has to that is given batches to be stored together.
    pub fn copied(self) -> Append {
        Append { copied: true, ..self }
    }

    fn thread(&self, start: &Barrier, span: Duration) -> Result<Outcome, Problem> {
        let prepared = (|| {
            let target = Target::open(&self.dir, self.direct, self.state, self.file_bytes)?;
            let pieces = (0..self.memory_bytes / self.bytes).map(|_| noise(self.bytes));
            let pieces = pieces.collect::<Result<VecDeque<_>, _>>()?;
            Ok::<_, Problem>((target, pieces, noise(COPIED_BYTES)?, Ring::new(8)?))
        })();
        start.wait();
        let (mut target, mut pieces, source, mut ring) = prepared?;
        let mut latency = histogram();
        let cpu = CpuTimer::start(Clock::Process);
        let mut renewing = Duration::ZERO;
        let started = Instant::now();
        let mut before = started;
        while before - started < span {
            let Some(at) = target.next(self.bytes as u64) else {
                target.renew()?;
                renewing += before.elapsed();
                before = Instant::now();
                continue;
            };
            let bytes = pieces.pop_front().ok_or("the memory holds one append at least")?;
            let next = pieces.front_mut().filter(|_| self.copied);
            let copy = || {
                next.into_iter()
                    .flat_map(|next| next.chunks_mut(COPIED_BYTES))
                    .for_each(|to| to.copy_from_slice(&source[..to.len()]));
            };
            match self.submission {
                Submission::Linked => ring.append_beside(&target.file, &bytes, at, copy)?,
                Submission::Separate => ring.append_unlinked(&target.file, &bytes, at)?,
            }
            pieces.push_back(bytes);
            let after = Instant::now();
            latency.saturating_record((after - before).as_nanos() as u64);
            before = after;
        }
        let appended = latency.len() * self.bytes as u64;
        // The kernel's workers count, so it is the whole process's time: each thread answers for its share of it.
        let cpu = cpu.elapsed() / self.threads as u32;
        Ok(Outcome::default()
            .with("MB/s", mb_per_second(appended, before.duration_since(started).saturating_sub(renewing)))
            .with("CPU us", cpu.as_secs_f64() * 1e6 / latency.len().max(1) as f64)
            .with_latency(latency))
    }
}

impl Case for Append {
    fn name(&self) -> String {
        let size = super::size(self.bytes);
        let submission = match self.submission {
            Submission::Linked => "linked",
            Submission::Separate => "write, then flush",
        };
        let threads = if self.threads == 1 { String::new() } else { format!(", {} cores", self.threads) };
        let over = match self.memory_bytes {
            bytes if bytes > self.bytes => format!(", over {}", super::size(bytes)),
            _ => String::new(),
        };
        let copied = if self.copied { ", copied" } else { "" };
        format!("durable append {size}, {}, {submission}{threads}{over}{copied}", self.state)
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let start = Barrier::new(self.threads);
        let outcomes: Vec<Result<Outcome, Problem>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|number| {
                    let (append, start) = (&*self, &start);
                    scope.spawn(move || {
                        let pin = pinned(number);
                        append.thread(start, span).and_then(|outcome| pin.map(|()| outcome))
                    })
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<_>| {
                thread.join().unwrap_or_else(|_| Err("an appending thread panicked".into()))
            };
            threads.into_iter().map(join).collect()
        });
        let mut total: Option<Outcome> = None;
        for outcome in outcomes {
            let outcome = outcome?;
            total = Some(match total {
                None => outcome,
                Some(total) => together(&total, &outcome, self.threads as f64),
            });
        }
        total.ok_or_else(|| "no thread was asked for".into())
    }
}

/// Two threads' outcomes as one: rates add up, costs per operation are averaged over the `threads`.
fn together(one: &Outcome, other: &Outcome, threads: f64) -> Outcome {
    let mut latency = histogram();
    for part in [one, other] {
        if let Some(part) = &part.latency {
            latency += part;
        }
    }
    let sum = |unit| {
        let value = |outcome: &Outcome| outcome.get(crate::measure::Of::Figure(unit)).unwrap_or_default();
        value(one) + value(other)
    };
    Outcome::default().with("MB/s", sum("MB/s")).with("CPU us", sum("CPU us") / threads).with_latency(latency)
}

/// A large file, written or read from front to back past the page cache, with 32 operations of 1 MiB in flight.
pub struct Sequential {
    op: Op,
    file: File,
}

/// The size of the file that is read or written sequentially.
pub const SEQUENTIAL_BYTES: u64 = 1 << 30;
const STEP_BYTES: usize = 1 << 20;
const DEPTH: usize = 32;

/// A pre-written file of [`SEQUENTIAL_BYTES`].
pub fn large_file(dir: &Path, direct: bool) -> Result<File, Problem> {
    prewritten(dir, direct, SEQUENTIAL_BYTES)
}

/// A pre-written file.
pub fn prewritten(dir: &Path, direct: bool, len: u64) -> Result<File, Problem> {
    let file = raw::scratch_file(dir, direct)?;
    fill(&file, len)?;
    Ok(file)
}

impl Sequential {
    /// Goes through `file`, made by [`large_file`].
    pub fn new(op: Op, file: File) -> Sequential {
        Sequential { op, file }
    }
}

impl Case for Sequential {
    fn name(&self) -> String {
        let op = match self.op {
            Op::Write => "write",
            Op::Read => "read",
        };
        format!("sequential {op}, 1 MiB x {DEPTH}")
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let mut buffer = noise(DEPTH * STEP_BYTES)?;
        let mut ring = Ring::new(2 * DEPTH as u32)?;
        let cpu = CpuTimer::start(Clock::Process);
        let started = Instant::now();
        let bytes = ring.stream(&self.file, self.op, &mut buffer, STEP_BYTES, SEQUENTIAL_BYTES, span)?;
        if matches!(self.op, Op::Write) {
            ring.flush(&self.file)?;
        }
        let took = started.elapsed();
        let cpu = cpu.elapsed();
        Ok(Outcome::default()
            .with("MB/s", mb_per_second(bytes, took))
            .with("CPU ms/GB", cpu_ms_per_gb(cpu, bytes)))
    }
}

/// A large file, read from front to back by `read` through a page cache that does not have it.
pub struct ColdRead {
    file: File,
}

impl ColdRead {
    /// Reads `file`, made by [`large_file`] and opened without `O_DIRECT`.
    pub fn new(file: File) -> ColdRead {
        ColdRead { file }
    }
}

impl Case for ColdRead {
    fn name(&self) -> String {
        "sequential read, buffered, cold".to_owned()
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let mut buffer = Memory::zeroed(STEP_BYTES)?;
        let cpu = CpuTimer::start(Clock::Thread);
        let (mut bytes, mut took) = (0, Duration::ZERO);
        while took < span {
            raw::drop_cache(&self.file)?;
            let started = Instant::now();
            for at in (0..SEQUENTIAL_BYTES).step_by(STEP_BYTES) {
                self.file.read_exact_at(&mut buffer, at)?;
                bytes += STEP_BYTES as u64;
                if took + started.elapsed() >= span {
                    break;
                }
            }
            took += started.elapsed();
        }
        let cpu = cpu.elapsed();
        Ok(Outcome::default()
            .with("MB/s", mb_per_second(bytes, took))
            .with("CPU ms/GB", cpu_ms_per_gb(cpu, bytes)))
    }
}
