//! Loads through the socket, as cases that take turns with the embedded engine. One thread drives each from the second
//! processor, and says what it used itself, so that nobody takes the client for the broker.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::client::Client;
use super::server::Server;
use super::wire;
use crate::engine::case::{Batch, CPU_PER_OPERATION, RATE};
use crate::limits::pinned;
use crate::measure::{Case, Outcome, Problem, histogram, mb_per_second};
use crate::raw::{Clock, CpuTimer, Readable};

/// The unit of the processor time that the client itself used per operation.
pub const CLIENT_CPU: &str = "CPU us, client";
/// The unit of the broker's processor time per record.
pub const CPU_PER_RECORD: &str = "CPU us/record";
/// Bytes that a fetch asks for.
const FETCH_BYTES: i32 = 1 << 20;
/// How long one look for answers waits at most.
const LOOK_MS: i32 = 100;

/// What a client counts while it runs.
struct Tally {
    latency: Histogram<u64>,
    started: Instant,
    operations: u64,
    records: u64,
    bytes: u64,
}

impl Tally {
    fn start() -> Tally {
        Tally { latency: histogram(), started: Instant::now(), operations: 0, records: 0, bytes: 0 }
    }

    /// Counts an answer to what was sent at `since`, and says when it came.
    fn count(&mut self, since: Instant) -> Instant {
        let now = Instant::now();
        self.latency.saturating_record(now.saturating_duration_since(since).as_nanos() as u64);
        self.operations += 1;
        now
    }

    /// Counts so many batches that were produced or fetched.
    fn count_batches(&mut self, batches: u64, batch: &Batch) {
        self.records += batches * batch.stored().batch_records;
        self.bytes += batches * batch.stored().batch_bytes;
    }
}

/// Drives a server with one thread, and measures both.
fn driven(
    server: &Server,
    drive: impl FnOnce() -> Result<Tally, Problem> + Send,
) -> Result<Outcome, Problem> {
    let client = || -> Result<_, Problem> {
        pinned(1)?;
        let (cpu, own) = (server.cpu()?, CpuTimer::start(Clock::Thread));
        let tally = drive()?;
        let took = tally.started.elapsed();
        Ok((tally, took, server.cpu()?.saturating_sub(cpu), own.elapsed()))
    };
    let (tally, took, cpu, own) =
        thread::scope(|scope| scope.spawn(client).join()).map_err(|_| "the client panicked")??;
    let per = |cpu: Duration, count: u64| cpu.as_secs_f64() * 1e6 / count.max(1) as f64;
    let outcome = Outcome::default()
        .with_latency(tally.latency)
        .with(RATE, tally.operations as f64 / took.as_secs_f64())
        .with(CPU_PER_OPERATION, per(cpu, tally.operations))
        .with(CLIENT_CPU, per(own, tally.operations));
    if tally.records == 0 {
        return Ok(outcome);
    }
    Ok(outcome.with("MB/s", mb_per_second(tally.bytes, took)).with(CPU_PER_RECORD, per(cpu, tally.records)))
}

/// One connection that produces the same batch over and over to one partition, acks=all.
pub struct ProduceCase<'a> {
    /// The case's name.
    pub name: &'static str,
    /// The broker.
    pub server: &'a Server,
    /// What is produced.
    pub batch: &'a Batch,
    /// Requests under way.
    pub depth: usize,
}

/// Produces until `enough` bytes are durable and `span` is over.
fn produce(case: &ProduceCase<'_>, span: Duration, enough: u64) -> Result<Tally, Problem> {
    let mut client = Client::connect(case.server.address)?;
    let request = wire::produce("t", case.batch.bytes());
    let mut tally = Tally::start();
    // When each request under way was sent; they are answered in order.
    let mut sent = VecDeque::new();
    for _ in 0..case.depth {
        sent.push_back(Instant::now());
        client.send(&request)?;
    }
    while let Some(since) = sent.pop_front() {
        wire::check(wire::produced(&mut client.receive()?)?)?;
        let now = tally.count(since);
        tally.count_batches(1, case.batch);
        if tally.bytes < enough || now - tally.started < span {
            sent.push_back(now);
            client.send(&request)?;
        }
    }
    Ok(tally)
}

impl ProduceCase<'_> {
    /// Produces so many bytes.
    pub fn fill(&self, bytes: u64) -> Result<(), Problem> {
        produce(self, Duration::ZERO, bytes).map(drop)
    }
}

impl Case for ProduceCase<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        driven(self.server, || produce(self, span, 0))
    }
}

/// One connection that fetches what was produced, from the front and around again, one request under way.
pub struct FetchCase<'a> {
    /// The case's name.
    pub name: &'static str,
    /// The broker.
    pub server: &'a Server,
    /// What the topic holds, over and over.
    pub batch: &'a Batch,
    /// How often.
    pub batches: u64,
}

impl Case for FetchCase<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let stored = self.batch.stored();
        driven(self.server, || {
            let mut client = Client::connect(self.server.address)?;
            let mut tally = Tally::start();
            let (mut before, mut offset) = (tally.started, 0);
            while before - tally.started < span {
                client.send(&wire::fetch("t", offset as i64, FETCH_BYTES))?;
                let len = wire::fetched(&mut client.receive()?)?;
                if len == 0 || !(len as u64).is_multiple_of(stored.batch_bytes) {
                    return Err(format!("a fetch was answered with {len} bytes").into());
                }
                let batches = len as u64 / stored.batch_bytes;
                offset = (offset + batches * stored.batch_records) % (self.batches * stored.batch_records);
                before = tally.count(before);
                tally.count_batches(batches, self.batch);
            }
            Ok(tally)
        })
    }
}

/// Many connections, each with a group of its own and one commit under way.
pub struct CommitCase<'a> {
    /// The case's name.
    pub name: &'static str,
    /// The broker.
    pub server: &'a Server,
    /// How many.
    pub connections: usize,
}

impl Case for CommitCase<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let mut readable = Readable::new()?;
        let mut clients = Vec::new();
        for number in 0..self.connections {
            let mut client = Client::connect(self.server.address)?;
            let group = format!("group-{number}");
            client.ask(&wire::find_coordinator(&group), wire::throttled_error)?;
            let commit = wire::commit(&group, "t", 0);
            client.ask(&commit, wire::committed)?;
            readable.add(client.stream(), number)?;
            clients.push((client, commit, Instant::now()));
        }
        driven(self.server, || {
            let mut tally = Tally::start();
            for (client, commit, since) in &mut clients {
                *since = Instant::now();
                client.send(commit)?;
            }
            let mut under_way = clients.len();
            while under_way > 0 {
                for number in readable.wait(LOOK_MS)? {
                    let (client, commit, since) = clients.get_mut(number).ok_or("no such connection")?;
                    wire::check(wire::committed(&mut client.receive()?)?)?;
                    *since = tally.count(*since);
                    if *since - tally.started < span {
                        client.send(commit)?;
                    } else {
                        under_way -= 1;
                    }
                }
            }
            Ok(tally)
        })
    }
}
