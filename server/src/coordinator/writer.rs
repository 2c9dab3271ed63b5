//! What is to be stored in one partition, in order, a batch at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use millstream_engine::buffer::Slice;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::types::Offset;

use super::question::{Asker, GroupError};
use super::records::Record;
use crate::limits::{OFFSETS_BATCH_BYTES, OFFSETS_SNAPSHOT_BYTES_MIN, OFFSETS_SNAPSHOT_RATIO};

/// What follows when something is durable, or could not be stored.
#[derive(Debug)]
pub enum Then {
    /// A commit is answered.
    Commit(Arc<str>, Asker, Vec<Result<(), GroupError>>),
    /// A group learns of its state.
    Stored(Arc<str>, u64),
    /// A group is forgotten, and whoever wanted that is answered.
    Deleted(Arc<str>, Option<Asker>),
    /// Whoever wanted offsets to be forgotten is answered, partition by partition.
    Forgotten(Asker, Vec<Result<(), GroupError>>),
    /// Nothing.
    Nothing,
}

/// Changes that are stored together or not at all.
#[derive(Debug)]
pub struct Unit {
    /// The changes.
    pub records: Vec<Record>,
    /// What follows.
    pub then: Then,
}

impl Unit {
    /// Bytes that it takes in a batch.
    pub fn bytes(&self) -> usize {
        self.records.iter().map(Record::bytes).sum()
    }
}

/// What has been sent to the engine and not been answered.
#[derive(Debug)]
enum Flight {
    None,
    Units(Vec<Unit>),
    /// A batch of a snapshot.
    Snapshot(Snapshot),
}

/// A snapshot being stored.
#[derive(Debug, Default)]
struct Snapshot {
    /// What is left to be stored.
    batches: VecDeque<Slice>,
    /// Where its first batch went.
    first: Option<Offset>,
    /// Whether a batch is under way.
    flying: bool,
}

/// How a batch ended.
#[derive(Debug)]
pub enum Landed {
    /// These were in it.
    Units(Vec<Unit>),
    /// A snapshot goes on, or could not be finished.
    Snapshot,
    /// A snapshot is whole: what lies before this offset is not needed any more.
    SnapshotDone(Offset),
}

/// The way of changes into a partition's log.
///
/// One batch is under way at a time, and what comes meanwhile shares the next one: so a slow disk makes larger batches,
/// and the state in memory, which follows what is durable, is exactly what the log holds whenever nothing is under way.
///
/// **Snapshots.** A log of changes only grows, so when it has grown by a multiple of what it says, it is said once more:
/// the last value of every key, as ordinary records, then the log is trimmed to where they begin. Nothing else is
/// written between them. A crash at any point is harmless. Before the first of them is durable, nothing has changed.
/// While some are, they repeat what the records before them say, which are still there. Once all are, what lies before
/// them says nothing that they do not, with it or without: what they leave out is what was forgotten, and the
/// records that say so lie before them, too, at the end of what is trimmed as a whole. A snapshot that cannot be finished is left as it
/// is, and nothing is trimmed.
#[derive(Debug)]
pub struct Writer {
    queue: VecDeque<Unit>,
    queued_bytes: usize,
    flight: Flight,
    /// Bytes stored since the last snapshot began.
    grown: u64,
    /// What the last snapshot took, or would have taken when the log was read.
    snapshot_bytes: u64,
}

impl Writer {
    /// For a log that takes `log_bytes`, of which `live_bytes` say something that still holds.
    pub fn new(log_bytes: u64, live_bytes: u64) -> Writer {
        Writer {
            queue: VecDeque::new(),
            queued_bytes: 0,
            flight: Flight::None,
            grown: log_bytes.saturating_sub(live_bytes),
            snapshot_bytes: live_bytes,
        }
    }

    /// Bytes that wait.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether nothing is under way.
    pub fn is_free(&self) -> bool {
        matches!(self.flight, Flight::None)
    }

    /// Gives up: who waits for what was to be stored. A group's own states wait for nobody here.
    pub fn abandon(&mut self) -> Vec<Asker> {
        let flying = match std::mem::replace(&mut self.flight, Flight::None) {
            Flight::Units(units) => units,
            Flight::None | Flight::Snapshot(_) => Vec::new(),
        };
        self.queued_bytes = 0;
        let asker = |unit: Unit| match unit.then {
            Then::Commit(_, asker, _) | Then::Forgotten(asker, _) => Some(asker),
            Then::Deleted(_, asker) => asker,
            Then::Stored(..) | Then::Nothing => None,
        };
        flying.into_iter().chain(self.queue.drain(..)).filter_map(asker).collect()
    }

    /// Adds a unit to what is to be stored.
    pub fn push(&mut self, unit: Unit) {
        self.queued_bytes += unit.bytes();
        self.queue.push_back(unit);
    }

    /// Whether what is stored should be said once more.
    pub fn wants_snapshot(&self) -> bool {
        self.grown > OFFSETS_SNAPSHOT_BYTES_MIN.max(self.snapshot_bytes * OFFSETS_SNAPSHOT_RATIO)
    }

    /// Has a snapshot of these records stored next.
    pub fn start_snapshot(&mut self, records: impl Iterator<Item = Record>, wall_ms: i64) {
        assert!(self.is_free(), "a snapshot is taken of what is durable");
        let mut batches = VecDeque::new();
        let mut chunk = Vec::new();
        let mut bytes = 0;
        for record in records {
            bytes += record.bytes();
            chunk.push(record);
            if bytes >= OFFSETS_BATCH_BYTES {
                batches.push_back(batch(chunk.iter(), wall_ms));
                chunk.clear();
                bytes = 0;
            }
        }
        if !chunk.is_empty() {
            batches.push_back(batch(chunk.iter(), wall_ms));
        }
        self.grown = 0;
        self.snapshot_bytes = batches.iter().map(|batch| batch.len() as u64).sum();
        if !batches.is_empty() {
            self.flight = Flight::Snapshot(Snapshot { batches, ..Snapshot::default() });
        }
    }

    /// The next batch to store, if there is something to store and nothing under way.
    pub fn next_batch(&mut self, wall_ms: i64) -> Option<Slice> {
        match &mut self.flight {
            Flight::Units(_) | Flight::Snapshot(Snapshot { flying: true, .. }) => None,
            Flight::Snapshot(snapshot) => {
                snapshot.flying = true;
                snapshot.batches.pop_front()
            }
            Flight::None => {
                let mut units = Vec::new();
                let mut bytes = 0;
                while let Some(unit) = self.queue.front()
                    && (units.is_empty() || bytes + unit.bytes() <= OFFSETS_BATCH_BYTES)
                {
                    bytes += unit.bytes();
                    units.extend(self.queue.pop_front());
                }
                if units.is_empty() {
                    return None;
                }
                self.queued_bytes -= bytes;
                let batch = batch(units.iter().flat_map(|unit| &unit.records), wall_ms);
                self.grown += batch.len() as u64;
                self.flight = Flight::Units(units);
                Some(batch)
            }
        }
    }

    /// The batch under way is durable from this offset on, or could not be stored.
    pub fn landed(&mut self, base: Option<Offset>) -> Landed {
        match std::mem::replace(&mut self.flight, Flight::None) {
            Flight::None => panic!("no batch is under way"),
            Flight::Units(units) => Landed::Units(units),
            Flight::Snapshot(Snapshot { batches, first, .. }) => {
                let Some(first) = base.and(first.or(base)) else { return Landed::Snapshot };
                if batches.is_empty() {
                    return Landed::SnapshotDone(first);
                }
                self.flight = Flight::Snapshot(Snapshot { batches, first: Some(first), flying: false });
                Landed::Snapshot
            }
        }
    }
}

fn batch<'a>(records: impl Iterator<Item = &'a Record>, wall_ms: i64) -> Slice {
    let mut builder = BatchBuilder::new(wall_ms);
    for record in records {
        let (key, value) = record.encode();
        builder.push(Some(&key), value.as_deref());
    }
    Slice::from(builder.build())
}
