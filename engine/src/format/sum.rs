//! `<base>.sum`: the checksums of a sealed segment, in blocks of 64 KiB.
//!
//! Kafka's batch CRC leaves the first bytes of a batch uncovered, and its indexes have no checksum at all. Every block's
//! CRC is seeded with where the block belongs, so that bytes which are sound but somebody else's do not pass.
//! Little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic: `MSSM` |
//! | 4 | 4 | CRC32C of the whole file from byte 8 |
//! | 8 | 16 | topic id |
//! | 24 | 4 | partition |
//! | 28 | 4 | length of `.log` in bytes |
//! | 32 | 8 | base offset |
//! | 40 | 4 | length of `.index` |
//! | 44 | 4 | length of `.timeindex` |
//! | 48 | | a CRC of 4 bytes for each block: those of the log, then the index, then the time index |
//!
//! A block's CRC32C is taken over the seed and then the block. The seed: topic id, 16 bytes; base offset, 8; partition,
//! 4; block number, 4; file, 1 (0 log, 1 index, 2 time index). The last block of a file is as long as what is left.

use std::mem::size_of;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::damage::Damage;
use crate::checksum::{crc32c, crc32c_append};
use crate::limits::SUM_BLOCK_BYTES;
use crate::types::{Offset, PartitionId, TopicId};

const MAGIC: [u8; 4] = *b"MSSM";
const CRC_FROM: usize = 8;

/// A file that is summed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Summed {
    /// `.log`
    Log = 0,
    /// `.index`
    Index = 1,
    /// `.timeindex`
    TimeIndex = 2,
}

/// Every file that is summed, in the order of their blocks.
pub const SUMMED: [Summed; 3] = [Summed::Log, Summed::Index, Summed::TimeIndex];

/// The checksums of a sealed segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sum {
    partition: PartitionId,
    base_offset: Offset,
    files: [FileSum; 3],
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct FileSum {
    len: u32,
    blocks: Vec<u32>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    crc: U32,
    topic: [u8; 16],
    partition: U32,
    log_len: U32,
    base_offset: U64,
    index_len: U32,
    time_index_len: U32,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Seed {
    topic: [u8; 16],
    base_offset: U64,
    partition: U32,
    block: U32,
    file: u8,
}

const _: () = assert!(size_of::<Raw>() == 48 && size_of::<Seed>() == 33);
const _: () = assert!(SUM_BLOCK_BYTES == 64 << 10, "the size of a block is part of the format");

impl Sum {
    /// The length that a file had when it was sealed.
    pub fn len(&self, file: Summed) -> u32 {
        self.file(file).len
    }

    /// Whether all three files are empty.
    pub fn is_empty(&self) -> bool {
        self.files.iter().all(|file| file.len == 0)
    }

    /// Whether `bytes` are those of that block, whole, as they were sealed.
    #[must_use]
    pub fn verify_block(&self, file: Summed, block: u32, bytes: &[u8]) -> bool {
        let Some(recorded) = self.file(file).blocks.get(block as usize) else { return false };
        crc32c_append(seed(self.partition, self.base_offset, file, block), bytes) == *recorded
    }

    /// The bytes of the checksum file.
    pub fn encode(&self) -> Vec<u8> {
        let mut raw = Raw {
            magic: MAGIC,
            crc: 0.into(),
            topic: self.partition.topic.0,
            partition: self.partition.index.into(),
            log_len: self.len(Summed::Log).into(),
            base_offset: self.base_offset.0.into(),
            index_len: self.len(Summed::Index).into(),
            time_index_len: self.len(Summed::TimeIndex).into(),
        };
        let mut out = raw.as_bytes().to_vec();
        for block in self.files.iter().flat_map(|file| &file.blocks) {
            out.extend_from_slice(&block.to_le_bytes());
        }
        let (head, blocks) = out.split_at_mut(size_of::<Raw>());
        let covered = raw.as_bytes().get(CRC_FROM..).expect("the header is longer");
        raw.crc.set(crc32c_append(crc32c(covered), blocks));
        head.copy_from_slice(raw.as_bytes());
        out
    }

    /// Reads the checksum file of the segment named.
    pub fn decode(bytes: &[u8], partition: PartitionId, base_offset: Offset) -> Result<Sum, Damage> {
        let error = |position: usize, what| Damage { position: position as u64, what };
        let (raw, mut blocks) =
            Raw::ref_from_prefix(bytes).map_err(|_| error(bytes.len(), "the checksum file is cut short"))?;
        if raw.magic != MAGIC {
            return Err(error(0, "this is no checksum file"));
        }
        if bytes.get(CRC_FROM..).map(crc32c) != Some(raw.crc.get()) {
            return Err(error(4, "the checksum does not match"));
        }
        let owner = PartitionId { topic: TopicId(raw.topic), index: raw.partition.get() };
        if owner != partition || raw.base_offset.get() != base_offset.0 {
            return Err(error(8, "the checksum file belongs to another segment"));
        }
        let mut files: [FileSum; 3] = Default::default();
        for (file, len) in files.iter_mut().zip([raw.log_len, raw.index_len, raw.time_index_len]) {
            let count = (len.get() as usize).div_ceil(SUM_BLOCK_BYTES);
            let crcs = blocks
                .split_off(..count * size_of::<u32>())
                .and_then(|bytes| <[U32]>::ref_from_bytes(bytes).ok())
                .ok_or(error(bytes.len(), "the checksum file is shorter than its lengths say"))?;
            *file = FileSum { len: len.get(), blocks: crcs.iter().map(|crc| crc.get()).collect() };
        }
        if !blocks.is_empty() {
            let end = bytes.len() - blocks.len();
            return Err(error(end, "the checksum file is longer than its lengths say"));
        }
        Ok(Sum { partition, base_offset, files })
    }

    fn file(&self, file: Summed) -> &FileSum {
        let [log, index, time_index] = &self.files;
        match file {
            Summed::Log => log,
            Summed::Index => index,
            Summed::TimeIndex => time_index,
        }
    }
}

/// Sums a segment while it is written or read: each file's bytes in their order, the files in any.
#[derive(Clone, Debug)]
pub struct SumBuilder {
    sum: Sum,
    /// Per file, the CRC of the block that is not full yet.
    open: [u32; 3],
}

impl SumBuilder {
    /// Of an empty segment.
    pub fn new(partition: PartitionId, base_offset: Offset) -> SumBuilder {
        SumBuilder { sum: Sum { partition, base_offset, files: Default::default() }, open: [0; 3] }
    }

    /// Takes the next bytes of a file.
    pub fn feed(&mut self, file: Summed, mut bytes: &[u8]) {
        let Sum { partition, base_offset, .. } = self.sum;
        let slot = file as usize;
        let (Some(FileSum { len, blocks }), Some(open)) =
            (self.sum.files.get_mut(slot), self.open.get_mut(slot))
        else {
            unreachable!("there is a place for every file")
        };
        while !bytes.is_empty() {
            let filled = *len as usize % SUM_BLOCK_BYTES;
            if filled == 0 {
                *open = seed(partition, base_offset, file, blocks.len() as u32);
            }
            let (part, rest) = bytes.split_at(bytes.len().min(SUM_BLOCK_BYTES - filled));
            *open = crc32c_append(*open, part);
            *len = len.checked_add(part.len() as u32).expect("a segment's positions have 32 bits");
            if filled + part.len() == SUM_BLOCK_BYTES {
                blocks.push(*open);
            }
            bytes = rest;
        }
    }

    /// Seals the segment at what was fed.
    pub fn finish(mut self) -> Sum {
        for (file, open) in self.sum.files.iter_mut().zip(self.open) {
            if !(file.len as usize).is_multiple_of(SUM_BLOCK_BYTES) {
                file.blocks.push(open);
            }
        }
        self.sum
    }
}

/// The CRC32C of a block's seed, to be continued over its bytes.
fn seed(partition: PartitionId, base_offset: Offset, file: Summed, block: u32) -> u32 {
    let seed = Seed {
        topic: partition.topic.0,
        base_offset: base_offset.0.into(),
        partition: partition.index.into(),
        block: block.into(),
        file: file as u8,
    };
    crc32c(seed.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: PartitionId = PartitionId { topic: TopicId([7; 16]), index: 3 };
    const BASE: Offset = Offset(500);

    /// Two whole blocks and a bit.
    fn log() -> Vec<u8> {
        (0..2 * SUM_BLOCK_BYTES + 100).map(|at| (at / 7) as u8).collect()
    }

    fn sample() -> Sum {
        let mut builder = SumBuilder::new(PARTITION, BASE);
        builder.feed(Summed::Log, &log());
        builder.feed(Summed::Index, &[1; 16]);
        builder.finish()
    }

    fn error(bytes: &[u8]) -> (u64, &'static str) {
        let error = Sum::decode(bytes, PARTITION, BASE).unwrap_err();
        (error.position, error.what)
    }

    #[test]
    fn a_sum_round_trips() {
        let sum = sample();
        let bytes = sum.encode();
        assert_eq!(bytes.len(), 48 + 4 * 4);
        assert_eq!(Sum::decode(&bytes, PARTITION, BASE), Ok(sum.clone()));
        assert_eq!(SUMMED.map(|file| sum.len(file)), [2 * SUM_BLOCK_BYTES as u32 + 100, 16, 0]);
        let empty = SumBuilder::new(PARTITION, BASE).finish();
        assert!(empty.is_empty());
        assert_eq!(Sum::decode(&empty.encode(), PARTITION, BASE), Ok(empty));
    }

    #[test]
    fn how_the_bytes_were_fed_makes_no_difference() {
        for piece in [1, 4096, SUM_BLOCK_BYTES - 1, SUM_BLOCK_BYTES, SUM_BLOCK_BYTES + 1] {
            let mut builder = SumBuilder::new(PARTITION, BASE);
            builder.feed(Summed::Index, &[1; 7]);
            for bytes in log().chunks(piece) {
                builder.feed(Summed::Log, bytes);
            }
            builder.feed(Summed::Index, &[1; 9]);
            assert_eq!(builder.finish(), sample(), "pieces of {piece}");
        }
    }

    #[test]
    fn a_block_passes_in_its_own_place_only() {
        let (sum, log) = (sample(), log());
        let blocks: Vec<_> = log.chunks(SUM_BLOCK_BYTES).collect();
        for (number, block) in blocks.iter().enumerate() {
            assert!(sum.verify_block(Summed::Log, number as u32, block));
            assert!(!sum.verify_block(Summed::Log, number as u32, &block[1..]), "a byte less");
            assert!(!sum.verify_block(Summed::Log, number as u32 + 1, block));
            let mut damaged = block.to_vec();
            damaged[50] ^= 1;
            assert!(!sum.verify_block(Summed::Log, number as u32, &damaged));
        }
        assert!(sum.verify_block(Summed::Index, 0, &[1; 16]));
        assert!(!sum.verify_block(Summed::TimeIndex, 0, &[]), "a file without bytes has no block");
        assert!(!sum.verify_block(Summed::Log, u32::MAX, &[]));
    }

    #[test]
    fn equal_bytes_of_another_owner_or_file_have_another_sum() {
        let block_of = |partition, base, file| {
            let mut builder = SumBuilder::new(partition, base);
            builder.feed(file, &vec![5; 2 * SUM_BLOCK_BYTES]);
            builder.finish().file(file).blocks.clone()
        };
        let blocks = block_of(PARTITION, BASE, Summed::Log);
        assert_ne!(blocks[0], blocks[1]);
        let others = [
            block_of(PartitionId { index: 4, ..PARTITION }, BASE, Summed::Log),
            block_of(PartitionId { topic: TopicId([8; 16]), ..PARTITION }, BASE, Summed::Log),
            block_of(PARTITION, Offset(501), Summed::Log),
            block_of(PARTITION, BASE, Summed::Index),
        ];
        for other in others {
            assert_ne!(blocks[0], other[0]);
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(error(&damaged).0, if bit < 32 { 0 } else { 4 }, "bit {bit}");
        }
    }

    #[test]
    fn foreign_cut_and_padded_files_are_refused() {
        let bytes = sample().encode();
        let other = PartitionId { index: 4, ..PARTITION };
        assert_eq!(
            Sum::decode(&bytes, other, BASE).unwrap_err().what,
            "the checksum file belongs to another segment"
        );
        assert!(Sum::decode(&bytes, PARTITION, Offset(0)).is_err());
        assert_eq!(error(&bytes[..47]), (47, "the checksum file is cut short"));
        let resealed = |mut bytes: Vec<u8>| {
            let crc = crc32c(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            error(&bytes)
        };
        let shorter = "the checksum file is shorter than its lengths say";
        assert_eq!(resealed(bytes[..63].to_vec()), (63, shorter));
        let mut lying = bytes.clone();
        lying[28..32].fill(0xff);
        assert_eq!(resealed(lying), (64, shorter));
        let longer = "the checksum file is longer than its lengths say";
        assert_eq!(resealed([&bytes[..], &[0]].concat()), (64, longer));
    }
}
