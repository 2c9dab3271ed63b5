//! One segment: how much of it was appended, is durable, and is in its file.

use super::index::SparseIndex;
use crate::format::sum::SumBuilder;
use crate::limits::BLOCK_BYTES;
use crate::time::WallMs;
use crate::types::Offset;

/// A stretch of a log with a file of its own, named by its first offset.
///
/// Bytes are appended to it (`size`), become durable in the journal (`durable`), are written to its file (`drained`)
/// and flushed there (`flushed`); `size >= durable >= drained >= flushed`. While the segment is open only whole blocks
/// are drained, so that every block of the file is written once; when it is sealed the last block follows, and when
/// its indexes are complete as well it is `stored`, and the journal is needed for nothing of it.
#[derive(Debug)]
pub struct Segment {
    /// Its first offset.
    pub base: Offset,
    /// Bytes appended.
    pub size: u32,
    /// Bytes that the journal or the file holds durably.
    pub durable: u32,
    /// Bytes written to the file, completed.
    pub drained: u32,
    /// Bytes of the file that are durable.
    pub flushed: u32,
    /// Whether nothing is appended any more.
    pub sealed: bool,
    /// Whether the file is complete.
    pub stored: bool,
    /// Whether this process has made the file's name durable. What an earlier one did cannot be known.
    pub named: bool,
    /// When it was started.
    pub created: WallMs,
    /// Its indexes.
    pub index: SparseIndex,
    /// The sums of what was drained, if this process drained all of it.
    pub sums: Option<Box<SumBuilder>>,
}

impl Segment {
    /// An empty segment.
    pub fn new(base: Offset, created: WallMs) -> Segment {
        Segment {
            base,
            size: 0,
            durable: 0,
            drained: 0,
            flushed: 0,
            sealed: false,
            stored: false,
            named: false,
            created,
            index: SparseIndex::new(),
            sums: None,
        }
    }

    /// The bytes that can be drained: up to the last whole durable block, or all of them once it is sealed.
    pub fn drainable(&self) -> u32 {
        if self.sealed && self.durable == self.size {
            return self.size;
        }
        self.durable - self.durable % BLOCK_BYTES as u32
    }

    /// Whether all that is not in its file is less than a block, which has to wait for more.
    pub fn is_open_rest(&self) -> bool {
        !self.sealed && self.size - self.flushed < BLOCK_BYTES as u32
    }

    /// Whether there is anything to be done for its file.
    pub fn wants_drain(&self) -> bool {
        !self.stored && (self.drainable() > self.flushed || self.sealed && self.durable == self.size)
    }
}
