//! Read plans: what will be read, owned, holding nothing; and reading as much of one as is in memory.

use super::Log;
use crate::buffer::Slice;
use crate::limits::READ_CHUNK_BYTES;
use crate::types::{Offset, PartitionId};

/// A stretch of a partition's bytes, whole batches from end to end: what is left of a read plan. It holds no buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Whose bytes.
    pub partition: PartitionId,
    /// The base offset of the segment that they lie in.
    pub segment: Offset,
    /// Their position in the segment.
    pub position: u32,
    /// How many.
    pub len: u32,
}

impl Range {
    /// What is left behind the first `done` bytes; `None` if that is nothing.
    #[must_use]
    pub fn after(self, done: u32) -> Option<Range> {
        assert!(done <= self.len, "more was read than planned");
        let rest = Range { position: self.position + done, len: self.len - done, ..self };
        (rest.len > 0).then_some(rest)
    }
}

/// A stretch of which the first bytes are here, and the others planned.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// The first bytes.
    pub bytes: Vec<Slice>,
    /// Where all of it lies, these bytes included; `None` if it is empty.
    pub range: Option<Range>,
}

impl Chunk {
    /// The plan for what follows the bytes that are here.
    pub fn rest(&self) -> Option<Range> {
        let here: usize = self.bytes.iter().map(|slice| slice.len()).sum();
        self.range?.after(here as u32)
    }
}

/// Plans a read of whole batches from the one that holds `offset` on, at most `max_bytes` but one batch at least, and
/// gives its first chunk, if all of it is in the tail. Stays below the high watermark and within one segment.
pub fn from_tail(log: &Log, offset: Offset, max_bytes: u32) -> Option<Chunk> {
    let mut range: Option<Range> = None;
    for batch in log.tail.from_offset(offset)? {
        let len = batch.bytes.len() as u32;
        let range = range.get_or_insert(Range {
            partition: log.id,
            segment: batch.segment,
            position: batch.position,
            len: 0,
        });
        let fits = range.len == 0 || range.len + len <= max_bytes;
        if batch.next > log.high_watermark || batch.segment != range.segment || !fits {
            break;
        }
        range.len += len;
    }
    match range.filter(|range| range.len > 0) {
        Some(range) => load_from_tail(log, range),
        None => Some(Chunk::default()),
    }
}

/// The first chunk of a range, if the tail has its start.
pub fn load_from_tail(log: &Log, range: Range) -> Option<Chunk> {
    let want = range.len.min(READ_CHUNK_BYTES as u32);
    let mut slices = Vec::new();
    let mut done = 0;
    for batch in log.tail.from_position(range.segment, range.position)? {
        let start = (range.position + done - batch.position) as usize;
        let stop = batch.bytes.len().min(start + (want - done) as usize);
        slices.push(batch.bytes.slice(start..stop));
        done += (stop - start) as u32;
        if done == want {
            return Some(Chunk { bytes: slices, range: Some(range) });
        }
    }
    None
}
