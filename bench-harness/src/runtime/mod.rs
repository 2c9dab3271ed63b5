//! `millbench runtime`: the engine's reactor, glommio and plain epoll under the same echo and append loads.

mod append;
mod client;
pub mod echo;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use millstream_engine::config::TopicConfig;

use crate::engine::case::{Batch, LoadCase};
use crate::engine::host::Host;
use crate::engine::load::{Pace, Until};
use crate::engine::node::Spec;
use crate::limits;
use crate::limits::disk::Append;
use crate::load::Span;
use crate::load::crew;
use crate::load::footprint::Processes;
use crate::load::turn::{self, Turn};
use crate::machine::Others;
use crate::measure::{self, Case, Problem};
use crate::peers::child::Child;
use crate::results::{Row, Run, rows};
use crate::{raw, scratch};
use append::{GlommioAppend, PlainAppend};
use client::Client;
use echo::Runtime;

/// What `millbench runtime` is told.
#[derive(Args)]
pub struct Runtimes {
    /// Where files go: the disk to measure
    #[arg(long, default_value = "results/scratch")]
    dir: PathBuf,
    /// Seconds that each turn lasts
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    reps: u16,
}

/// Echo loads: connections, and messages under way on each.
const ECHOES: [(&str, usize, usize); 2] =
    [("echo, 1 x 1 of 128 B", 1, 1), ("echo, 64 connections x 16 of 128 B", 64, 16)];
/// Bytes of an append.
const APPEND_BYTES: usize = 4096;

impl Runtimes {
    /// Measures, and gives the run to print and to keep.
    pub fn run(&self) -> Result<Run, Problem> {
        raw::note_interrupts();
        scratch::prepare(&self.dir)?;
        let mut notes = vec!["servers on the first processor, the client on the last".to_owned()];
        let direct = limits::probe(&self.dir, limits::SPACE_BYTES, &mut notes)?;
        let span = Duration::try_from_secs_f64(self.seconds)?;
        let others = Others::start();
        let mut all = self.echoes(span)?;
        all.extend(self.appends(span, direct)?);
        Ok(Run::ended(&self.dir, &others, "durable", notes, all))
    }

    fn echoes(&self, span: Duration) -> Result<Vec<Row>, Problem> {
        let cpu = *raw::cpus().last().ok_or("no processor is allowed")?;
        let span = Span { warm_up: span / 4, measure: Some(span) };
        let mut servers = Vec::new();
        for runtime in Runtime::ALL {
            let dir = self.dir.join(format!("echo-{}-{}", std::process::id(), runtime.name()));
            std::fs::create_dir_all(&dir)?;
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["echo", "--on", runtime.name(), "--dir"]).arg(dir.join("data"));
            let mut child = Child::start(&mut command, &dir)?;
            let address = child.until(|child| {
                child.told().lines().find_map(|line| line.strip_prefix("ready ")?.parse().ok())
            })?;
            servers.push((runtime, address, child));
        }
        let mut all = Vec::new();
        for (name, connections, depth) in ECHOES {
            let mut turns: Vec<Vec<Turn>> = servers.iter().map(|_| Vec::new()).collect();
            for number in 1..=self.reps {
                for ((runtime, address, child), turns) in servers.iter().zip(&mut turns) {
                    eprintln!("  turn {number} of {}: {name}, {}", self.reps, runtime.name());
                    let clients = (0..connections).map(|_| Client { server: *address, depth }).collect();
                    turns.push(crew::drive(clients, &[cpu], span, &Processes::of(child.id()))?);
                }
            }
            for ((runtime, ..), turns) in servers.iter().zip(&turns) {
                all.extend(turn::rows(&format!("{name}, {}", runtime.name()), turns));
            }
        }
        Ok(all)
    }

    fn appends(&self, span: Duration, direct: bool) -> Result<Vec<Row>, Problem> {
        let dir = self.dir.join(format!("append-{}", std::process::id()));
        let host = Host::start(Spec::default(), &dir)?;
        host.create("t", 1, TopicConfig::default())?;
        let batch = Batch::of(1, APPEND_BYTES);
        let mut cases: Vec<Box<dyn Case>> = vec![
            Box::new(LoadCase::one("durable append 4 KiB, engine", &host, |span| {
                batch.append("t", 1, Pace::Closed(1), Until::Span(span))
            })),
            Box::new(GlommioAppend { dir: self.dir.clone(), bytes: APPEND_BYTES }),
            Box::new(PlainAppend { dir: self.dir.clone(), bytes: APPEND_BYTES, direct }),
            Box::new(Append::of(APPEND_BYTES, &self.dir, direct)),
        ];
        Ok(rows(&measure::interleave(&mut cases, self.reps.into(), span)))
    }
}
