//! Which blocks of a stored segment have been checked against its sums since it was opened: each is checked before it
//! is first served.

use crate::format::partition::SegmentFile;
use crate::format::sum::{Sum, Summed};
use crate::limits::SUM_BLOCK_BYTES;

const BLOCK: u32 = SUM_BLOCK_BYTES as u32;

/// A stored segment's sums, and what has been checked by them.
#[derive(Debug)]
pub struct Verified {
    sum: Sum,
    checked: Vec<bool>,
    unchecked: usize,
}

impl Verified {
    /// Nothing is checked yet.
    pub fn new(sum: Sum) -> Verified {
        let blocks = sum.len(Summed::Log).div_ceil(BLOCK) as usize;
        Verified { sum, checked: vec![false; blocks], unchecked: blocks }
    }

    /// Whether all blocks have been checked.
    pub fn is_complete(&self) -> bool {
        self.unchecked == 0
    }

    /// Whether `bytes` are the whole of an index file, as it was sealed.
    pub fn holds(&self, index: SegmentFile, bytes: &[u8]) -> bool {
        let file = if index == SegmentFile::TimeIndex { Summed::TimeIndex } else { Summed::Index };
        let mut blocks = bytes.chunks(SUM_BLOCK_BYTES).zip(0..);
        bytes.len() == self.sum.len(file) as usize
            && blocks.all(|(block, number)| self.sum.verify_block(file, number, block))
    }

    /// What must be read so that `len` bytes at `position` can be trusted: themselves, or the whole blocks around them
    /// if one of those is not checked yet.
    pub fn to_read(&self, position: u32, len: u32) -> (u32, u32) {
        let end = position + len;
        let blocks = (position / BLOCK) as usize..end.div_ceil(BLOCK) as usize;
        if self.checked.get(blocks).is_some_and(|blocks| blocks.iter().all(|checked| *checked)) {
            return (position, len);
        }
        self.blocks_around(position, len)
    }

    /// The whole blocks that hold `len` bytes at `position`.
    pub fn blocks_around(&self, position: u32, len: u32) -> (u32, u32) {
        let (start, end) = (position - position % BLOCK, position + len);
        let end = (u64::from(end).next_multiple_of(u64::from(BLOCK)) as u32)
            .min(self.sum.len(Summed::Log))
            .max(end);
        (start, end - start)
    }

    /// Checks whole blocks at `position`, whatever is known of them. Gives the position of the first damaged block.
    pub fn check_again(&self, position: u32, bytes: &[u8]) -> Result<(), u32> {
        let mut blocks = bytes.chunks(SUM_BLOCK_BYTES).zip(position / BLOCK..);
        let damaged = blocks.find(|(block, number)| !self.sum.verify_block(Summed::Log, *number, block));
        damaged.map_or(Ok(()), |(_, number)| Err(number * BLOCK))
    }

    /// Checks what was read at `position`, if that is whole blocks not checked before. Gives the position of the first
    /// damaged block.
    pub fn check(&mut self, position: u32, bytes: &[u8]) -> Result<(), u32> {
        if !position.is_multiple_of(BLOCK) {
            return Ok(()); // Only blocks that were checked are read in part.
        }
        for (index, block) in bytes.chunks(SUM_BLOCK_BYTES).enumerate() {
            let number = position / BLOCK + index as u32;
            let whole = block.len() == SUM_BLOCK_BYTES
                || number * BLOCK + block.len() as u32 == self.sum.len(Summed::Log);
            let Some(checked) = self.checked.get_mut(number as usize) else { return Err(number * BLOCK) };
            if *checked || !whole {
                continue;
            }
            if !self.sum.verify_block(Summed::Log, number, block) {
                return Err(number * BLOCK);
            }
            *checked = true;
            self.unchecked -= 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::sum::SumBuilder;
    use crate::types::{Offset, PartitionId, TopicId};

    fn sample() -> (Vec<u8>, Verified) {
        let bytes: Vec<u8> = (0..150_000_u32).map(|at| (at % 251) as u8).collect();
        let mut builder = SumBuilder::new(PartitionId { topic: TopicId([1; 16]), index: 0 }, Offset(0));
        builder.feed(Summed::Log, &bytes);
        (bytes, Verified::new(builder.finish()))
    }

    #[test]
    fn what_is_not_checked_is_read_in_whole_blocks_and_once_only() {
        let (bytes, mut verified) = sample();
        assert_eq!(verified.to_read(70_000, 10), (65_536, 65_536));
        assert_eq!(verified.check(65_536, &bytes[65_536..131_072]), Ok(()));
        assert_eq!(verified.to_read(70_000, 10), (70_000, 10));
        assert_eq!(verified.to_read(131_000, 200), (65_536, 150_000 - 65_536));
    }

    #[test]
    fn an_index_holds_whole_and_unchanged_only() {
        let index: Vec<u8> = (0..100_000_u32).map(|at| (at % 13) as u8).collect();
        let mut builder = SumBuilder::new(PartitionId { topic: TopicId([1; 16]), index: 0 }, Offset(0));
        builder.feed(Summed::Index, &index);
        let verified = Verified::new(builder.finish());
        assert!(verified.holds(SegmentFile::Index, &index) && verified.holds(SegmentFile::TimeIndex, &[]));
        assert!(!verified.holds(SegmentFile::Index, &index[..65_536]));
        let mut rotten = index.clone();
        rotten[99_999] ^= 1;
        assert!(!verified.holds(SegmentFile::Index, &rotten));
    }

    #[test]
    fn a_damaged_block_is_named_and_stays_unchecked() {
        let (mut bytes, mut verified) = sample();
        bytes[140_000] ^= 1;
        assert_eq!(verified.check(65_536, &bytes[65_536..]), Err(131_072));
        assert_eq!(verified.to_read(140_000, 1), (131_072, 150_000 - 131_072));
    }

    #[test]
    fn a_block_that_was_sound_once_is_checked_again() {
        let (mut bytes, mut verified) = sample();
        assert_eq!(verified.check(0, &bytes), Ok(()));
        assert_eq!(verified.check_again(65_536, &bytes[65_536..131_072]), Ok(()));
        bytes[140_000] ^= 1;
        assert_eq!(verified.check_again(65_536, &bytes[65_536..]), Err(131_072));
        assert_eq!(verified.blocks_around(130_000, 2_000), (65_536, 150_000 - 65_536));
    }
}
