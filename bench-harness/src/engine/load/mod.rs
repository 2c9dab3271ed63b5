//! The load generators: small state machines that an [`app::LoadApp`] runs inside a shard, so that what is measured is
//! the engine and no socket. They see time only as the engine tells it, and can be stepped by hand.

pub mod app;
mod append;
mod heartbeat;
mod read;
mod serve;
#[cfg(test)]
mod tests;

pub use serve::Serve;

use hdrhistogram::Histogram;
use millstream_engine::buffer::Slice;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::reactor::app::{AppToken, Outbox};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Durability, PartitionId, ShardId};

use crate::measure::histogram;

/// Something to do on one shard.
#[derive(Clone, Debug)]
pub enum Load {
    /// Append batches.
    Append(Append),
    /// Read what is there.
    Read(Read),
    /// Set a timer every so often, and record how late it comes: about as late as the longest turn of the reactor.
    Heartbeat {
        /// From one timer to the next.
        every: Nanos,
        /// For how long.
        span: Nanos,
    },
}

/// Appends.
#[derive(Clone, Debug)]
pub struct Append {
    /// The topic whose partitions on this shard take turns.
    pub topic: String,
    /// How many of them.
    pub partitions: usize,
    /// What is appended, over and over.
    pub batch: Slice,
    /// When an append is over.
    pub durability: Durability,
    /// When the next one starts.
    pub pace: Pace,
    /// When the last one starts.
    pub until: Until,
}

/// When operations start.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many are in flight: one starts when one ends.
    Closed(usize),
    /// So many start at once, and the next so many when the last of them has ended. A round is one operation.
    Rounds(usize),
    /// So many per second, on a fixed schedule. Latency counts from the moment that an operation was due, so that a
    /// pause is felt by every operation that it delays, not by the one that happened to be under way.
    Open(f64),
}

/// When a load ends. What is under way is waited for.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this much time.
    Span(Nanos),
    /// After this many bytes.
    Bytes(u64),
}

/// Reads of a topic that was filled with one batch over and over.
#[derive(Clone, Debug)]
pub struct Read {
    /// The topic, whose partitions on this shard are read.
    pub topic: String,
    /// Readers, each of which reads on from its own place; they start evenly spread.
    pub readers: usize,
    /// Bytes that a read asks for.
    pub max_bytes: u32,
    /// The batch that the topic holds.
    pub stored: Stored,
    /// At most for how long.
    pub span: Nanos,
    /// Stop at the log's end instead of starting over.
    pub once: bool,
}

/// The batch that a partition holds, over and over.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Its size.
    pub batch_bytes: u64,
    /// Its records.
    pub batch_records: u64,
}

/// What a load came to.
#[derive(Debug)]
pub struct Report {
    /// One value per operation, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Bytes appended or read.
    pub bytes: u64,
    /// Batches appended, or reads answered.
    pub operations: u64,
    /// From the first operation's start to the last one's end.
    pub took: Nanos,
    /// Why it ended early, if it did.
    pub failure: Option<String>,
}

/// One record batch of `records` records, incompressible, of at most `bytes` bytes and as near to it as records of one
/// size allow.
pub fn batch(records: usize, bytes: usize) -> Vec<u8> {
    let build = |value: usize| {
        let mut builder = BatchBuilder::new(0);
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..records {
            let next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            };
            let value: Vec<u8> = std::iter::repeat_with(next).take(value).collect();
            builder.push(None, Some(&value));
        }
        builder.build()
    };
    // A record's overhead is a few bytes that depend on its size: a guess that is too large comes down byte by byte.
    let mut value = bytes / records;
    loop {
        let batch = build(value);
        if batch.len() <= bytes {
            return batch;
        }
        assert!(value > 0, "a batch of {records} records does not fit into {bytes} bytes");
        value = value.saturating_sub((batch.len() - bytes).div_ceil(records));
    }
}

/// A load's state while it runs.
trait Work {
    /// Starts it.
    fn start(&mut self, desk: &mut Desk);
    /// Takes the answer to what was asked under `slot`.
    fn reply(&mut self, slot: u32, reply: Reply, desk: &mut Desk);
    /// Takes a timer.
    fn timer(&mut self, desk: &mut Desk);
    /// Whether it is over and nothing of it is under way.
    fn over(&self) -> bool;
    /// What it came to, once it is over.
    fn report(&mut self) -> Report;
}

/// What a load may use in one step.
struct Desk<'a> {
    out: &'a mut Outbox,
    /// The token of this load's slot 0.
    base: u64,
}

impl Desk<'_> {
    fn now(&self) -> Nanos {
        self.out.now()
    }

    /// Asks this shard, which owns the partitions of all its loads.
    fn ask(&mut self, slot: u32, request: Request) {
        let shard = self.out.shard();
        self.out.engine(AppToken(self.base | u64::from(slot)), shard, request, None);
    }

    fn timer(&mut self, at: Nanos) {
        self.out.set_timer(AppToken(self.base), at);
    }
}

/// The partitions of a topic on one shard, in order.
fn partitions(out: &Outbox, topic: &str, shard: ShardId) -> Vec<PartitionId> {
    let partitions = out.metadata().partitions_of(shard);
    partitions.filter(|(_, of)| of.name == topic).map(|(partition, _)| partition).collect()
}

/// What every load counts.
struct Tally {
    latency: Histogram<u64>,
    bytes: u64,
    operations: u64,
    started: Nanos,
    ended: Nanos,
    failure: Option<String>,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            latency: histogram(),
            bytes: 0,
            operations: 0,
            started: Nanos::ZERO,
            ended: Nanos::ZERO,
            failure: None,
        }
    }

    fn fail(&mut self, why: impl Into<String>) {
        self.failure.get_or_insert_with(|| why.into());
    }

    fn take(&mut self) -> Report {
        let tally = std::mem::replace(self, Tally::new());
        Report {
            latency: tally.latency,
            bytes: tally.bytes,
            operations: tally.operations,
            took: tally.ended.since(tally.started),
            failure: tally.failure,
        }
    }
}
