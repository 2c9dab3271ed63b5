//! How much of what was appended last stays in memory, and what leaves it.
//!
//! Everything stays until its segment has it. What stays longer is a cache for readers that follow, and memory that nobody
//! reads is dear: it is touched once, is out of the processor's caches when it is used again, and a machine that is lent its
//! memory pays for each page. So the tail begins small. A reader that comes too late by little makes it as large as would have
//! served it, up to the limit, and it shrinks again while nobody does.

use std::collections::VecDeque;

use super::Shard;
use super::append;
use super::queues::GroupKey;
use crate::io::Io;
use crate::limits::{SEGMENT_WRITE_BYTES, SEGMENT_WRITES_IN_FLIGHT, TAIL_SHARE_AT_LEAST, TAIL_SHRINKS_EVERY};
use crate::log::Log;
use crate::log::plan::Range;
use crate::log::segment::Segment;
use crate::log::table::LogIndex;
use crate::time::Nanos;
use crate::types::Lsn;

/// A submitted group in the tail, for its eviction in order.
pub(super) struct TailGroup {
    pub bytes: usize,
    /// Whose batches it holds, in order; each is that log's oldest when its turn comes.
    pub logs: VecDeque<LogIndex>,
    /// Its last record.
    pub lsn: Lsn,
    /// If it holds messages of queues, how they call it.
    pub queues: Option<GroupKey>,
}

impl TailGroup {
    /// What is left of logs, in memory of its own: durable.
    pub fn of_rests(bytes: usize, logs: VecDeque<LogIndex>) -> TailGroup {
        TailGroup { bytes, logs, lsn: Lsn::ZERO, queues: None }
    }
}

/// How many bytes the tail may have.
pub(super) struct TailBudget {
    most: usize,
    now: usize,
    shrinks_at: Nanos,
}

impl TailBudget {
    /// A budget that may grow to `most`.
    pub fn new(most: usize) -> TailBudget {
        TailBudget { most, now: most / TAIL_SHARE_AT_LEAST, shrinks_at: Nanos::ZERO }
    }

    /// What it is for a shard with so many logs. Each of them is to have enough in memory for some whole writes to its
    /// segment: they share the flushes otherwise made for a few blocks.
    pub fn bytes(&self, logs: usize) -> usize {
        let for_writes = logs.saturating_mul(SEGMENT_WRITE_BYTES * SEGMENT_WRITES_IN_FLIGHT);
        self.now.max(for_writes).min(self.most)
    }

    /// A reader wanted what a tail of `bytes` would have had. It comes late by the same again, more or less.
    pub fn missed(&mut self, bytes: usize) {
        if bytes <= self.most {
            self.now = self.now.max(bytes.saturating_add(bytes / 4)).min(self.most);
        }
    }

    /// A little less now and then: were it needed, somebody will say so.
    pub fn shrink(&mut self, now: Nanos) {
        if now >= self.shrinks_at {
            self.shrinks_at = now + TAIL_SHRINKS_EVERY;
            self.now = (self.now - self.now / 16).max(self.most / TAIL_SHARE_AT_LEAST);
        }
    }
}

impl<I: Io> Shard<I> {
    /// Whether the tail has to give memory back: it holds more bytes than it may, or a batch waits for room in the pool.
    pub(super) fn is_tail_pressed(&self) -> bool {
        let usage = self.pools.tail.usage();
        let waiting = self.backlog.front().map_or(0, |waiting| append::memory_for(waiting.batch_bytes()));
        self.tail_bytes > self.tail_budget.bytes(self.logs.len())
            || waiting > 0 && usage.in_use + waiting > usage.limit
    }

    /// The last record of what has to be in its segment for the tail to have half of what it may, and half of what it has.
    pub(super) fn half_of_tail(&self) -> Lsn {
        let most = self.tail_budget.bytes(self.logs.len()).min(self.tail_bytes);
        let (mut left, mut upto) = (self.tail_bytes, Lsn::ZERO);
        for group in &self.tail_groups {
            if left <= most / 2 {
                break;
            }
            left = left.saturating_sub(group.bytes);
            // What is left of logs lies between the groups, and is in no need.
            upto = upto.max(group.lsn);
        }
        let durable = self.journal.durable_lsn();
        // What was recovered goes by no record either, and all of it is in the way.
        if upto == Lsn::ZERO { durable } else { upto.min(durable) }
    }

    /// This was read from a file: the tail notes it if it could have had that.
    pub(super) fn note_cold(&mut self, index: LogIndex, range: Range) {
        if let Some(behind) = self.logs.get(index).and_then(|log| bytes_before_tail(log, range)) {
            self.tail_budget.missed(self.tail_bytes.saturating_add(behind as usize));
        }
    }

    /// Messages were read back from record `lsn` of the journal on: the same. Records are taken to be of one size.
    pub(super) fn note_read_back(&mut self, lsn: Lsn) {
        let newest = self.journal.last_lsn().0;
        if let Some(oldest) = self.tail_groups.iter().map(|group| group.lsn).find(|lsn| *lsn > Lsn::ZERO) {
            let (held, wanted) = (newest.saturating_sub(oldest.0).max(1), newest.saturating_sub(lsn.0));
            self.tail_budget.missed(((self.tail_bytes as u64).saturating_mul(wanted) / held) as usize);
        }
    }

    /// Lets the oldest groups of the tail go while memory is pressed, as far as their segments have them. What is left of
    /// a log when all its whole blocks are flushed stays, in memory of its own: a few bytes of a log to which nothing
    /// comes any more would keep a whole slab.
    pub(super) fn evict(&mut self) {
        for _ in 0..self.tail_groups.len() {
            if !self.is_tail_pressed() {
                return;
            }
            let durable = self.journal.durable_lsn();
            let Some(group) = self.tail_groups.front_mut().filter(|group| group.lsn <= durable) else {
                return;
            };
            let mut rests = VecDeque::new();
            let mut rest_bytes = 0;
            while let Some(&index) = group.logs.front() {
                if let Some(log) = self.logs.get_mut(index)
                    && let Some(front) = log.tail.front()
                {
                    let segment = log.segment(front.segment);
                    let flushed = segment.map_or(u32::MAX, |segment| segment.flushed);
                    if front.end() <= flushed {
                        log.tail.pop_front();
                    } else if segment.is_some_and(Segment::is_open_rest) {
                        rest_bytes += if rests.contains(&index) { 0 } else { log.tail.rehome() };
                        rests.push_back(index);
                    } else {
                        break;
                    }
                }
                group.logs.pop_front();
            }
            if !group.logs.is_empty() {
                // It waits for its segments. What was taken out of it goes on behind it, as if it were new.
                if !rests.is_empty() {
                    self.tail_bytes += rest_bytes;
                    self.tail_groups.push_back(TailGroup::of_rests(rest_bytes, rests));
                }
                return;
            }
            self.tail_bytes -= group.bytes;
            if let Some(key) = group.queues {
                self.queues.evict(key);
            }
            self.tail_groups.pop_front();
            if !rests.is_empty() {
                self.tail_bytes += rest_bytes;
                self.tail_groups.push_back(TailGroup::of_rests(rest_bytes, rests));
            }
        }
    }
}

/// Bytes of a log between the start of a stretch and the oldest batch in memory; `None` if none is in memory.
fn bytes_before_tail(log: &Log, range: Range) -> Option<u64> {
    let front = log.tail.front()?;
    let before = log.segments.iter().rev().skip_while(|held| held.base >= front.segment);
    let between: u64 =
        before.take_while(|held| held.base >= range.segment).map(|held| u64::from(held.size)).sum();
    (between + u64::from(front.position)).checked_sub(range.position.into())
}
