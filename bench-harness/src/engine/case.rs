//! Loads on an embedded node, as cases that take turns with the machine's limits.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use millstream_engine::buffer::Slice;
use millstream_engine::time::Nanos;
use millstream_engine::types::{Durability, ShardId};

use super::host::Host;
use super::load::{self, Append, Load, Pace, Stored, Until};
use crate::limits::pinned;
use crate::measure::{Case, Outcome, Problem, cpu_ms_per_gb, mb_per_second};
use crate::raw::{self, Clock, CpuTimer};

/// Which shards do what for a span.
type Plan<'a> = Box<dyn Fn(Nanos) -> Vec<(ShardId, Vec<Load>)> + 'a>;

/// Loads on a node. Each shard's first load is measured; the others keep it company, and a heartbeat among them adds
/// how late it came at worst.
pub struct LoadCase<'a> {
    name: String,
    host: &'a Host,
    plan: Plan<'a>,
    cold: bool,
}

/// The unit of the heartbeat's figure.
pub const LONGEST_TURN: &str = "ms longest turn";
/// The unit of processor time per operation, kernel workers and all threads of the process included.
pub const CPU_PER_OPERATION: &str = "CPU us";
/// The unit of processor time per byte, likewise.
pub const CPU_PER_GB: &str = "CPU ms/GB";
/// The unit of operations per second.
pub const RATE: &str = "ops/s";

impl<'a> LoadCase<'a> {
    /// Runs what `plan` says on `host`.
    pub fn new(
        name: impl Into<String>,
        host: &'a Host,
        plan: impl Fn(Nanos) -> Vec<(ShardId, Vec<Load>)> + 'a,
    ) -> LoadCase<'a> {
        LoadCase { name: name.into(), host, plan: Box::new(plan), cold: false }
    }

    /// One load, on shard 0.
    pub fn one(name: impl Into<String>, host: &'a Host, load: impl Fn(Nanos) -> Load + 'a) -> LoadCase<'a> {
        LoadCase::new(name, host, move |span| vec![(ShardId(0), vec![load(span)])])
    }

    /// Drops the node's files from the page cache before each turn.
    #[must_use]
    pub fn cold(self) -> LoadCase<'a> {
        LoadCase { cold: true, ..self }
    }
}

impl Case for LoadCase<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        if self.cold {
            drop_caches(self.host.dir())?;
        }
        let plan = (self.plan)(Nanos(span.as_nanos() as u64));
        // Whether each load is its shard's first, and whether it is a heartbeat.
        let roles: Vec<(bool, bool)> = plan
            .iter()
            .flat_map(|(_, loads)| loads.iter().enumerate())
            .map(|(number, load)| (number == 0, matches!(load, Load::Heartbeat { .. })))
            .collect();
        let cpu = CpuTimer::start(Clock::Process);
        let reports = self.host.run(plan)?;
        let cpu = cpu.elapsed();
        let mut latency = crate::measure::histogram();
        let (mut mb_s, mut rate, mut operations) = (0.0, 0.0, 0);
        let mut longest_turn = None;
        for (report, &(first, heartbeat)) in reports.iter().zip(&roles) {
            if heartbeat {
                longest_turn = Some(report.latency.max() as f64 / 1e6);
            } else if first {
                let took = Duration::from_nanos(report.took.0.max(1));
                latency += &report.latency;
                mb_s += mb_per_second(report.bytes, took);
                rate += report.operations as f64 / took.as_secs_f64();
                operations += report.operations;
            }
        }
        let cpu = cpu.as_secs_f64() * 1e6 / operations.max(1) as f64;
        let outcome = Outcome::default()
            .with_latency(latency)
            .with("MB/s", mb_s)
            .with(RATE, rate)
            .with(CPU_PER_OPERATION, cpu);
        Ok(longest_turn.into_iter().fold(outcome, |outcome, late| outcome.with(LONGEST_TURN, late)))
    }
}

/// Drops every file below `dir` from the page cache.
fn drop_caches(dir: &Path) -> Result<(), Problem> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            drop_caches(&entry.path())?;
        } else {
            raw::drop_cache(&File::open(entry.path())?)?;
        }
    }
    Ok(())
}

/// A client that reads what the node serves as fast as it comes.
pub struct SinkCase<'a> {
    /// The case's name.
    pub name: &'static str,
    /// The node, which listens and has been told what to serve.
    pub host: &'a Host,
}

impl Case for SinkCase<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let address = self.host.address()?;
        let client = move || -> Result<Outcome, Problem> {
            pinned(1)?;
            let mut stream = TcpStream::connect(address)?;
            let mut bytes = vec![0; millstream_engine::limits::READ_CHUNK_BYTES];
            let (all, own) = (CpuTimer::start(Clock::Process), CpuTimer::start(Clock::Thread));
            let started = Instant::now();
            let mut came = 0;
            while started.elapsed() < span {
                match stream.read(&mut bytes)? {
                    0 => return Err("the node closed the connection".into()),
                    n => came += n as u64,
                }
            }
            let (took, cpu) = (started.elapsed(), all.elapsed().saturating_sub(own.elapsed()));
            Ok(Outcome::default()
                .with("MB/s", mb_per_second(came, took))
                .with(CPU_PER_GB, cpu_ms_per_gb(cpu, came)))
        };
        std::thread::scope(|scope| scope.spawn(client).join()).map_err(|_| "the client panicked")?
    }
}

/// A batch, ready to be appended over and over.
#[derive(Clone)]
pub struct Batch {
    bytes: Slice,
    records: usize,
}

impl Batch {
    /// `records` records in at most `bytes` bytes.
    pub fn of(records: usize, bytes: usize) -> Batch {
        Batch { bytes: Slice::from(load::batch(records, bytes)), records }
    }

    /// The batch itself.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What a topic holds that was filled with it.
    pub fn stored(&self) -> Stored {
        Stored { batch_bytes: self.bytes.len() as u64, batch_records: self.records as u64 }
    }

    /// Durable appends to so many partitions of a topic.
    pub fn append(&self, topic: &str, partitions: usize, pace: Pace, until: Until) -> Load {
        Load::Append(Append {
            topic: topic.to_owned(),
            partitions,
            batch: self.bytes.clone(),
            durability: Durability::Durable,
            pace,
            until,
        })
    }
}
