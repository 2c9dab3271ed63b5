//! `millbench engine`: the embedded engine beside the machine's limits, in the same run.

mod alone;
pub mod case;
pub mod hold;
pub mod host;
pub mod load;
pub mod node;
mod rows;

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use millstream_engine::config::Config;

use crate::limits;
use crate::machine::Others;
use crate::measure::Problem;
use crate::raw::{self, Memory};
use crate::results::Run;
use crate::{machine, report, scratch};
use rows::BENCHMARKS;

pub use rows::{Bench, Benchmark, fill};

/// What `millbench engine` is told.
#[derive(Args)]
pub struct Engine {
    /// Where nodes and scratch files go: the disk to measure
    #[arg(long, default_value = "results/scratch")]
    dir: PathBuf,
    /// Seconds that each turn of a case lasts
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How often each case is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    reps: u16,
    /// Run these benchmarks only
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(BENCHMARKS.iter().map(|b| b.name)))]
    only: Vec<String>,
    /// Print what would be measured, the bars, and how
    #[arg(long)]
    list: bool,
    /// The history of the benchmarks that have one, in GiB; 20 for the record, which takes minutes more
    #[arg(long, default_value_t = 1)]
    history_gib: u64,
    /// Take the machine's memory until only this many MiB are available, to measure under pressure
    #[arg(long)]
    leave_mib: Option<u64>,
}

impl Engine {
    /// Measures, and gives the run to print and to keep; none if it was only asked for the list.
    pub fn run(&self) -> Result<Option<Run>, Problem> {
        let chosen = || {
            BENCHMARKS.iter().filter(|b| self.only.is_empty() || self.only.iter().any(|only| only == b.name))
        };
        if self.list {
            print!("{}", report::list(chosen()));
            return Ok(None);
        }
        raw::note_interrupts();
        scratch::prepare(&self.dir)?;
        let mut notes = Vec::new();
        let history_bytes = self.history_gib << 30;
        // The largest log beside the history: `sustained` goes ten times around the journal in each turn.
        let sustained_bytes = u64::from(self.reps) * 10 * Config::default().journal_bytes;
        let space = limits::SPACE_BYTES + history_bytes + sustained_bytes;
        let direct = limits::probe(&self.dir, space, &mut notes)?;
        let taken = self.leave_mib.map(take_memory).transpose()?;
        if let Some(memory) = &taken {
            notes.push(format!("{} MiB of memory were taken to measure under pressure", memory.len() >> 20));
        }
        let bench = Bench {
            dir: self.dir.clone(),
            direct,
            span: Duration::try_from_secs_f64(self.seconds)?,
            turns: self.reps.into(),
            history_bytes,
            nodes: Cell::new(0),
        };
        let others = Others::start();
        let rows = chosen().flat_map(|benchmark| bench.run(benchmark)).collect();
        Ok(Some(Run::ended(&self.dir, &others, "durable", notes, rows)))
    }
}

/// Takes memory until only so much is available to others.
fn take_memory(leave_mib: u64) -> Result<Memory, Problem> {
    let available =
        machine::memory_kib("MemAvailable").ok_or("the kernel does not say how much memory is available")?;
    let take = (available << 10).saturating_sub(leave_mib << 20);
    let mut memory = Memory::zeroed((take as usize).max(1))?;
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    Ok(memory)
}
