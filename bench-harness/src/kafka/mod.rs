//! `millbench kafka`: the broker through its socket beside the embedded engine, in the same run: what the protocol costs.

mod case;
pub mod client;
mod join;
mod rows;
pub mod server;
pub mod wire;

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::engine::Bench;
use crate::machine::Others;
use crate::measure::Problem;
use crate::results::Run;
use crate::{limits, raw, report, scratch};
use rows::BENCHMARKS;

/// What `millbench kafka` is told.
#[derive(Args)]
pub struct Kafka {
    /// Where the data directories go: the disk to measure
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
    /// Print what would be measured, and how
    #[arg(long)]
    list: bool,
}

impl Kafka {
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
        let direct = limits::probe(&self.dir, limits::SPACE_BYTES, &mut notes)?;
        raw::raise_descriptors()?;
        let bench = Bench {
            dir: self.dir.clone(),
            direct,
            span: Duration::try_from_secs_f64(self.seconds)?,
            turns: self.reps.into(),
            history_bytes: 0,
            nodes: Cell::new(0),
        };
        let others = Others::start();
        let rows = chosen().flat_map(|benchmark| bench.run(benchmark)).collect();
        Ok(Some(Run::ended(&self.dir, &others, "durable, acks=all", notes, rows)))
    }
}
