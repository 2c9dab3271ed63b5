//! A partition's log: segments, indexes, producers, and the plans that read them.

pub mod cold;
pub mod drain;
pub mod epochs;
pub mod index;
pub mod maps;
pub mod paths;
pub mod plan;
pub mod producers;
pub mod readers;
pub mod recovery;
pub mod scanner;
pub mod scrub;
pub mod segment;
pub mod summing;
pub mod table;
pub mod verified;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::cache::tail::{Tail, TailBatch};
use crate::config::TopicConfig;
use crate::error::Refusal;
use crate::format::batch::BatchHeader;
use crate::format::checkpoint::{PartitionState, SegmentState};
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES_MAX};
use crate::time::WallMs;
use crate::types::{LeaderEpoch, Lsn, Offset, PartitionId};
use epochs::Epochs;
use producers::Producers;
use segment::Segment;

/// Where a batch goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Its first offset.
    pub base: Offset,
    /// The segment, by its first offset.
    pub segment: Offset,
    /// The position there.
    pub position: u32,
}

/// The open segment's last, unaligned bytes as they were put into the journal anew.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// The segment.
    pub segment: Offset,
    /// Where the carried bytes start: at the segment's flushed end.
    pub from: u32,
    /// Where they end.
    pub to: u32,
    /// The record that carries them.
    pub lsn: Lsn,
}

/// One partition's log.
///
/// A log is always `segment files ++ journal`: bytes below a segment's flushed position are read from its file, the rest
/// from the tail, which the journal can rebuild. `log_start <= high_watermark <= next_offset`. Readers see offsets below
/// the high watermark only: each of them is durable.
pub struct Log {
    /// Which partition.
    pub id: PartitionId,
    /// Its directory.
    pub directory: String,
    /// Its settings.
    pub config: Arc<TopicConfig>,
    /// Its segments, oldest first; the last is open.
    pub segments: VecDeque<Segment>,
    /// The newest batches.
    pub tail: Tail,
    /// Idempotent producers.
    pub producers: Producers,
    /// Where each leader epoch starts.
    pub epochs: Epochs,
    /// What of them the text in its directory tells.
    pub epochs_told: Vec<(LeaderEpoch, Offset)>,
    /// The first offset.
    pub log_start: Offset,
    /// One past the last offset appended.
    pub next_offset: Offset,
    /// One past the last durable offset.
    pub high_watermark: Offset,
    /// What was carried forward last, if it still is the open segment's rest.
    pub carried: Option<Carried>,
    /// Whether the directory is known to exist, durably, with its metadata file.
    pub has_directory: bool,
}

impl Log {
    /// An empty log.
    pub fn new(id: PartitionId, directory: String, config: Arc<TopicConfig>) -> Log {
        Log {
            id,
            directory,
            config,
            segments: VecDeque::new(),
            tail: Tail::default(),
            producers: Producers::default(),
            epochs: Epochs::default(),
            epochs_told: Vec::new(),
            log_start: Offset(0),
            next_offset: Offset(0),
            high_watermark: Offset(0),
            carried: None,
            has_directory: false,
        }
    }

    /// Whether a sound batch may be stored here at all. Of timestamps, the batch's first and its largest are looked at,
    /// which its header has.
    pub fn admit(&self, batch: &BatchHeader, now: WallMs) -> Result<(), Refusal> {
        let config = &self.config;
        let limit = config.max_message_bytes;
        if batch.size > limit as usize {
            return Err(Refusal::BatchTooLarge { limit });
        }
        let behind = now.0.saturating_sub(batch.base_timestamp.min(batch.max_timestamp));
        let ahead = batch.max_timestamp.saturating_sub(now.0);
        let allowed = behind <= config.timestamp_before_max_ms && ahead <= config.timestamp_after_max_ms;
        if !allowed && !config.log_append_time {
            return Err(Refusal::InvalidTimestamp);
        }
        Ok(())
    }

    /// Where a batch will go; starts a new segment for it if it must. `batch.base_offset` is still the client's.
    pub fn place(&mut self, batch: &BatchHeader, now: WallMs) -> Placement {
        if self.must_roll(batch, now) {
            self.roll(now);
        }
        let open = self.segments.back().expect("a segment is open");
        Placement { base: self.next_offset, segment: open.base, position: open.size }
    }

    fn must_roll(&self, batch: &BatchHeader, now: WallMs) -> bool {
        let Some(open) = self.segments.back().filter(|last| !last.sealed) else { return true };
        let limit = u64::from(self.config.segment_bytes).min(SEGMENT_BYTES_MAX);
        let last = self.next_offset.0 + u64::from(batch.last_offset_delta);
        let old = now.0.saturating_sub(open.created.0) >= self.config.segment_ms;
        open.size > 0
            && (u64::from(open.size) + batch.size as u64 > limit
                || old
                || last - open.base.0 > i32::MAX as u64)
    }

    /// Seals the open segment, if there is one, and opens another.
    pub fn roll(&mut self, now: WallMs) {
        if let Some(open) = self.segments.back_mut().filter(|last| !last.sealed) {
            open.sealed = true;
            open.index.seal();
        }
        self.segments.push_back(Segment::new(self.next_offset, now));
    }

    /// A batch was placed and journalled by record `lsn`: it counts from now on. `batch` carries its stored offset and
    /// leader epoch.
    pub fn appended(&mut self, placement: Placement, batch: &BatchHeader, lsn: Lsn) {
        assert_eq!(placement.base, self.next_offset, "batches are appended one behind the other");
        let interval_bytes = self.config.index_interval_bytes;
        let open = self.segments.back_mut().expect("a segment is open");
        assert_eq!((open.base, open.size), (placement.segment, placement.position));
        open.index.add(open.base, placement.position, batch, interval_bytes);
        open.size += batch.size as u32;
        self.producers.store(batch, placement.base, lsn);
        self.epochs.note(batch.leader_epoch, placement.base);
        self.next_offset = placement.base.plus(u64::from(batch.last_offset_delta) + 1);
    }

    /// Everything up to the end of this batch is durable.
    pub fn durable(&mut self, segment: Offset, end: u32, next: Offset) {
        self.high_watermark = next;
        if let Some(segment) = self.segments.iter_mut().rev().find(|candidate| candidate.base == segment) {
            segment.durable = end;
        }
    }

    /// Whether a segment has to be written further before the journal up to `upto` can be recycled, or retention can work
    /// on it. What came later than `upto` may wait: under load there is always more of it.
    pub fn wants_drain(&self, upto: Lsn) -> bool {
        self.segments.iter().any(|segment| {
            let end = if segment.sealed { segment.drainable() } else { self.end_in(segment, upto) };
            segment.wants_drain() && (segment.sealed || end - end % BLOCK_BYTES as u32 > segment.flushed)
        })
    }

    /// Whether the open segment's last bytes must be carried forward before the journal up to `upto` can be recycled.
    pub fn wants_carry(&self, upto: Lsn) -> bool {
        self.first_needed_lsn().is_some_and(|needed| needed <= upto)
    }

    /// The end, in a segment, of the durable batches that the journal up to `upto` holds bytes of.
    pub fn end_in(&self, segment: &Segment, upto: Lsn) -> u32 {
        match self.tail.newest_by(upto) {
            Some(newest) if newest.segment == segment.base => newest.end().min(segment.durable),
            Some(newest) if newest.segment > segment.base => segment.durable,
            _ => segment.flushed,
        }
    }

    /// The index of the segment that holds `offset`.
    pub fn segment_index_of(&self, offset: Offset) -> Option<usize> {
        self.segments.partition_point(|segment| segment.base <= offset).checked_sub(1)
    }

    /// The segment with this base.
    pub fn segment(&self, base: Offset) -> Option<&Segment> {
        let index = self.segments.binary_search_by_key(&base, |segment| segment.base).ok()?;
        self.segments.get(index)
    }

    /// The segment with this base, to be changed.
    pub fn segment_mut(&mut self, base: Offset) -> Option<&mut Segment> {
        let index = self.segments.binary_search_by_key(&base, |segment| segment.base).ok()?;
        self.segments.get_mut(index)
    }

    /// The first journal record that this log still needs, of those that have been submitted: it holds bytes that are
    /// neither flushed in a segment nor carried by a later record.
    pub fn first_needed_lsn(&self) -> Option<Lsn> {
        let segment = self.segments.iter().find(|segment| segment.flushed < segment.size)?;
        let carried = self.carried.filter(|c| c.segment == segment.base && c.from == segment.flushed);
        let safe = carried.map_or(segment.flushed, |carried| carried.to);
        let first = self.tail.from_position(segment.base, safe)?.next().map(|batch| batch.lsn);
        first.into_iter().chain(carried.map(|carried| carried.lsn)).min()
    }

    /// Bytes of its segments, whether they are in their files yet or not.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.size)).sum()
    }

    /// What the checkpoint keeps of this log.
    pub fn state(&self) -> PartitionState {
        let segment = |segment: &Segment| SegmentState {
            base: segment.base,
            size: segment.size,
            flushed: segment.flushed,
            index_entries: segment.index.stored,
            time_entries: segment.index.stored_times,
            max_timestamp: segment.index.max_timestamp(),
            created_ms: segment.created.0,
            stored: segment.stored,
        };
        PartitionState {
            id: self.id,
            log_start: self.log_start,
            next_offset: self.next_offset,
            segments: self.segments.iter().map(segment).collect(),
            producers: self.producers.states(),
            epochs: self.epochs.starts(),
        }
    }

    /// The largest timestamp that a readable record of this log has; -1 if there is none. Of a segment that the log starts
    /// in the middle of, and that is not in memory, records before the start count too; of the segment that is being
    /// appended to, those in memory only.
    pub fn max_timestamp(&self) -> i64 {
        let live = |segment: &Segment| {
            let trimmed = segment.base < self.log_start && self.tail.from_offset(self.log_start).is_some();
            if !trimmed && segment.durable == segment.size {
                return segment.index.max_timestamp();
            }
            let readable = |batch: &&TailBatch| {
                batch.segment == segment.base
                    && batch.next > self.log_start
                    && batch.next <= self.high_watermark
            };
            self.tail.iter().filter(readable).map(|batch| batch.max_timestamp).max().unwrap_or(-1)
        };
        self.segments.iter().map(live).max().unwrap_or(-1)
    }

    /// Moves the log's start up to `start`. Gives the segments that hold nothing any more, for their files to be
    /// removed once the move is durable.
    pub fn move_start(&mut self, start: Offset) -> Vec<Offset> {
        assert!(
            start >= self.log_start && start <= self.high_watermark,
            "a log's start moves up, to what is durable"
        );
        self.log_start = start;
        self.epochs.trim(start);
        let mut gone = Vec::new();
        while self.segments.len() > 1 && self.segments[1].base <= start && self.segments[0].stored {
            let segment = self.segments.pop_front().expect("there are at least two");
            gone.push(segment.base);
        }
        gone
    }

    /// Forgets every segment that lies before the log's start, whatever became of it: its files may be gone already. For
    /// recovery. Gives the first segment that is left, or that comes next.
    pub fn drop_before_start(&mut self) -> Offset {
        self.epochs.trim(self.log_start);
        while self.segments.get(1).is_some_and(|second| second.base <= self.log_start) {
            self.segments.pop_front();
        }
        if self.log_start == self.next_offset {
            // The open segment that took the last one's place was empty, so that no record tells of it.
            self.segments.clear();
        }
        let first = self.segments.front().map_or(self.next_offset, |segment| segment.base);
        while self.tail.front().is_some_and(|front| front.segment < first) {
            self.tail.pop_front();
        }
        first
    }

    /// Where retention by time and size would have the log start; `None` if it may stay as it is.
    pub fn retention_start(&self, now: WallMs) -> Option<Offset> {
        let config = &self.config;
        if !config.deletes {
            return None;
        }
        let mut bytes = self.bytes();
        let mut start = None;
        for (segment, next) in self.segments.iter().zip(self.segments.iter().skip(1)) {
            let newest = segment.index.max_timestamp();
            let newest = if newest < 0 { segment.created.0 } else { newest };
            let expired = config.retention_ms >= 0 && now.0.saturating_sub(newest) > config.retention_ms;
            // A segment goes by size only if what stays still has as many bytes as are to be kept.
            let surplus = config.retention_bytes >= 0
                && bytes - u64::from(segment.size) >= config.retention_bytes as u64;
            if !segment.stored || !(expired || surplus) {
                break;
            }
            bytes -= u64::from(segment.size);
            start = Some(next.base);
        }
        start.filter(|start| *start > self.log_start)
    }

    /// Whether the open segment is old enough to be sealed although nothing comes.
    pub fn is_roll_due(&self, now: WallMs) -> bool {
        let expires = self.config.deletes && self.config.retention_ms >= 0;
        let due = self.config.segment_ms.min(if expires { self.config.retention_ms } else { i64::MAX });
        self.segments
            .back()
            .is_some_and(|open| open.size > 0 && !open.sealed && now.0.saturating_sub(open.created.0) > due)
    }
}
