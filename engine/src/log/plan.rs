//! Read plans: what will be read, owned, holding nothing.

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
