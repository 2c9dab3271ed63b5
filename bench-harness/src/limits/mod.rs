//! `millbench limits`: what this machine can do, without an engine in between. Every later ratio refers to it.

pub mod crc;
pub mod disk;
pub mod net;
pub mod twice;
pub mod wake;
pub mod watch;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::machine::Others;
use crate::measure::{self, Case, Problem};
use crate::raw::{self, Op};
use crate::results::{Run, rows};
use crate::scratch;
use crc::Crc;
use disk::{Append, ColdRead, FileState, Sequential, Submission};
use wake::{Wake, Way};

/// Bytes that the scratch files of the limits take, and some to spare.
pub const SPACE_BYTES: u64 = 4 << 30;

/// What `millbench limits` is told.
#[derive(Args)]
pub struct Limits {
    /// Where the scratch files go: the disk to measure
    #[arg(long, default_value = "results/scratch")]
    dir: PathBuf,
    /// Seconds of measuring, over all cases and repetitions [default: 75]
    #[arg(long, conflicts_with = "quick")]
    seconds: Option<f64>,
    /// How often each case is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    reps: u16,
    /// Measure for 12 seconds only
    #[arg(long)]
    quick: bool,
}

impl Limits {
    /// Measures, and gives the run to print and to keep.
    pub fn run(&self) -> Result<Run, Problem> {
        raw::note_interrupts();
        let dir = &self.dir;
        scratch::prepare(dir)?;
        let mut notes = Vec::new();
        let direct = probe(dir, SPACE_BYTES, &mut notes)?;
        eprintln!("preparing files in {}", dir.display());
        let mut cases = cases(dir, direct)?;
        let seconds = self.seconds.unwrap_or(if self.quick { 12.0 } else { 75.0 });
        let span = Duration::try_from_secs_f64(seconds / (cases.len() * usize::from(self.reps)) as f64)?;
        let others = Others::start();
        let measured = measure::interleave(&mut cases, self.reps.into(), span);
        Ok(Run::ended(dir, &others, "durable", notes, rows(&measured)))
    }
}

/// Whether the directory's file system has `O_DIRECT`; an error if it has less than `space` bytes free. What is unusual
/// goes into `notes`.
pub fn probe(dir: &Path, space: u64, notes: &mut Vec<String>) -> Result<bool, Problem> {
    if raw::cpus().len() < 2 {
        notes.push("one processor only: both sides of every pair share it".to_owned());
    }
    let (file, direct) = match raw::scratch_file(dir, true) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            notes.push("the file system refuses O_DIRECT: everything goes through the page cache".to_owned());
            (raw::scratch_file(dir, false)?, false)
        }
        file => (file?, true),
    };
    let free = raw::free_bytes(&file)?;
    if free < space {
        return Err(format!(
            "{} has {} MiB free; {} MiB are needed: choose another with --dir",
            dir.display(),
            free >> 20,
            space >> 20
        )
        .into());
    }
    Ok(direct)
}

fn cases(dir: &Path, direct: bool) -> Result<Vec<Box<dyn Case>>, Problem> {
    let mut cases: Vec<Box<dyn Case>> = Vec::new();
    for bytes in [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20] {
        let append = || Append::of(bytes, dir, direct);
        cases.push(Box::new(append()));
        cases.push(Box::new(Append { submission: Submission::Separate, ..append() }));
        if matches!(bytes, 0x1000 | 0x1_0000 | 0x10_0000) {
            cases.push(Box::new(Append { state: FileState::Growing, ..append() }));
            cases.push(Box::new(Append { state: FileState::Fallocated, ..append() }));
        }
    }
    cases.push(Box::new(Append { threads: raw::cpus().len().min(2), ..Append::of(4 << 10, dir, direct) }));
    cases.push(Box::new(Sequential::new(Op::Write, disk::large_file(dir, direct)?)));
    let file = disk::large_file(dir, direct)?;
    cases.push(Box::new(Sequential::new(Op::Read, file)));
    cases.push(Box::new(ColdRead::new(disk::large_file(dir, false)?)));
    cases.push(Box::new(net::RoundTrip));
    cases.push(Box::new(net::from_memory()?));
    cases.push(Box::new(net::from_mapped_file(dir)?));
    cases.extend(
        [Way::MessageRing, Way::Futex, Way::EventFd, Way::Spinning]
            .map(|way| Box::new(Wake(way)) as Box<dyn Case>),
    );
    cases.extend([1 << 10, 64 << 10].map(|bytes| Box::new(Crc(bytes)) as Box<dyn Case>));
    Ok(cases)
}

/// Pins the calling thread to the processor that stands at `number` in the list of those allowed, counted around.
pub fn pinned(number: usize) -> Result<(), Problem> {
    let cpus = raw::cpus();
    let cpu = cpus.get(number % cpus.len().max(1)).ok_or("no processor is allowed")?;
    Ok(raw::pin(*cpu)?)
}

/// A size as people write it.
pub fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        bytes if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}
