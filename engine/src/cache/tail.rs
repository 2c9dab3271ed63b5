//! The tail: a log's newest batches, in the journal slabs they were written from.

use std::collections::VecDeque;

use crate::buffer::Slice;
use crate::types::{Lsn, Offset};

/// A batch in memory.
#[derive(Clone, Debug)]
pub struct TailBatch {
    /// Its first offset.
    pub base: Offset,
    /// One past its last.
    pub next: Offset,
    /// The base offset of the segment it belongs to.
    pub segment: Offset,
    /// Its position in that segment.
    pub position: u32,
    /// The first journal record that holds bytes of it.
    pub lsn: Lsn,
    /// The largest timestamp of its records.
    pub max_timestamp: i64,
    /// The batch, as stored.
    pub bytes: Slice,
}

impl TailBatch {
    /// The position right behind it.
    pub fn end(&self) -> u32 {
        self.position + self.bytes.len() as u32
    }
}

/// A log's newest batches, oldest first, without a gap.
#[derive(Default)]
pub struct Tail {
    batches: VecDeque<TailBatch>,
}

impl Tail {
    /// Whether nothing of the log is in memory.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The oldest batch in memory.
    pub fn front(&self) -> Option<&TailBatch> {
        self.batches.front()
    }

    /// The newest.
    pub fn back(&self) -> Option<&TailBatch> {
        self.batches.back()
    }

    /// Every batch, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &TailBatch> {
        self.batches.iter()
    }

    /// Adds the log's next batch.
    pub fn push(&mut self, batch: TailBatch) {
        if let Some(last) = self.batches.back() {
            assert_eq!(last.next, batch.base, "the tail has no gap");
        }
        self.batches.push_back(batch);
    }

    /// Copies every batch to memory of its own, if they keep much more memory taken than they need. Gives their bytes.
    pub fn rehome(&mut self) -> usize {
        let len = self.batches.iter().map(|batch| batch.bytes.len()).sum();
        let pinned = self.batches.iter().map(|batch| batch.bytes.pinned()).max().unwrap_or(0);
        if pinned > 2 * len {
            let mut bytes = Vec::with_capacity(len);
            self.batches.iter().for_each(|batch| bytes.extend_from_slice(&batch.bytes));
            let bytes = Slice::from(bytes);
            let mut at = 0;
            for batch in &mut self.batches {
                let end = at + batch.bytes.len();
                batch.bytes = bytes.slice(at..end);
                at = end;
            }
        }
        len
    }

    /// Lets the oldest batch go.
    pub fn pop_front(&mut self) -> Option<TailBatch> {
        let batch = self.batches.pop_front();
        if self.batches.is_empty() {
            // An idle log keeps no memory for a tail that it does not have.
            self.batches = VecDeque::new();
        }
        batch
    }

    /// Forgets everything, as when the log is deleted.
    pub fn clear(&mut self) {
        self.batches = VecDeque::new();
    }

    /// The newest batch whose first bytes lie in record `lsn` or before.
    pub fn newest_by(&self, lsn: Lsn) -> Option<&TailBatch> {
        let after = self.batches.partition_point(|batch| batch.lsn <= lsn);
        self.batches.get(after.checked_sub(1)?)
    }

    /// The batches from the one that holds `offset` on; `None` if that is older than the tail.
    pub fn from_offset(&self, offset: Offset) -> Option<impl Iterator<Item = &TailBatch>> {
        self.batches.front().filter(|front| front.base <= offset)?;
        let index = self.batches.partition_point(|batch| batch.next <= offset);
        Some(self.batches.range(index..))
    }

    /// The batches from the one that holds `position` of `segment` on; `None` if that is older than the tail.
    pub fn from_position(&self, segment: Offset, position: u32) -> Option<impl Iterator<Item = &TailBatch>> {
        self.batches.front().filter(|front| (front.segment, front.position) <= (segment, position))?;
        let index = self.batches.partition_point(|batch| (batch.segment, batch.end()) <= (segment, position));
        Some(self.batches.range(index..))
    }
}
