//! A shard's checkpoint: where its logs stood at one LSN, so that the journal before it can be recycled.
//!
//! # Layout
//! Little-endian. Header:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `MSC1` |
//! | 4 | 4 | CRC32C of everything behind this field |
//! | 8 | 8 | bytes of the whole file |
//! | 16 | 8 | LSN: the state below is as of this record, and this record is durable |
//! | 24 | 8 | replay LSN: the first record whose bytes are in no segment yet; above the LSN if there is none |
//! | 32 | 8 | generation of the shard directories |
//! | 40 | 2 | shard |
//! | 42 | 2 | zero |
//! | 44 | 4 | number of partitions |
//!
//! then each partition: topic id (16), index (4), number of segments (4), number of producers (4), number of leader epochs
//! (4), log start (8), next offset (8); its segments, oldest first, 48 bytes each, see [`SegmentState`]; its producers, see
//! [`super::producer`]; its leader epochs, 16 bytes each: epoch (4), zero (4), first offset (8).
//!
//! Behind the partitions stands what there is to tell of queues, see [`super::queue_state`].
//!
//! The file is replaced as a whole (write aside, flush, rename, flush the directory), so a checksum that fails is damage
//! and never a torn write.

use std::mem::offset_of;

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::batch::HEADER_BYTES;
use super::producer::{ProducerState, decode_producer, encode_producer};
pub use super::queue_state::{MovedState, QueueState, QueuesState, StoreState};
use crate::checksum::crc32c;
use crate::limits::SEGMENT_BYTES_MAX;
use crate::types::{LeaderEpoch, Lsn, Offset, PartitionId, ShardId, TopicId};

const MAGIC: [u8; 4] = *b"MSC1";

/// Where a shard stood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The state is as of this record.
    pub lsn: Lsn,
    /// The first record that recovery must find in the journal; above `lsn` if it needs none up to there.
    pub replay_lsn: Lsn,
    /// The generation of shard directories that this belongs to.
    pub generation: u64,
    /// Whose it is.
    pub shard: ShardId,
    /// Every log of the shard.
    pub partitions: Vec<PartitionState>,
    /// Its queues.
    pub queues: QueuesState,
}

/// Where a log stood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionState {
    /// Which log.
    pub id: PartitionId,
    /// Its first offset.
    pub log_start: Offset,
    /// One past its last.
    pub next_offset: Offset,
    /// Its segments, oldest first; the last is open.
    pub segments: Vec<SegmentState>,
    /// Its idempotent producers.
    pub producers: Vec<ProducerState>,
    /// Where each leader epoch with batches starts; both rise.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
}

/// Where a segment stood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentState {
    /// The offset that names it.
    pub base: Offset,
    /// Bytes appended to it.
    pub size: u32,
    /// Bytes that are in its file, flushed: whole blocks while it is open, all of them once it is stored.
    pub flushed: u32,
    /// Entries of its offset index that are in the index file. A hint: that file is not flushed with it.
    pub index_entries: u32,
    /// Entries of its time index, likewise.
    pub time_entries: u32,
    /// The largest timestamp of its records; -1 if it has none.
    pub max_timestamp: i64,
    /// When it was started, by the wall clock.
    pub created_ms: i64,
    /// Whether it is sealed, complete in its file, with its indexes and sums.
    pub stored: bool,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    crc: U32,
    length: U64,
    lsn: U64,
    replay_lsn: U64,
    generation: U64,
    shard: U16,
    zero: U16,
    partitions: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPartition {
    topic: [u8; 16],
    index: U32,
    segments: U32,
    producers: U32,
    epochs: U32,
    log_start: U64,
    next_offset: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSegment {
    base: U64,
    size: U32,
    flushed: U32,
    index_entries: U32,
    time_entries: U32,
    max_timestamp: I64,
    created_ms: I64,
    stored: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEpoch {
    epoch: U32,
    zero: U32,
    start: U64,
}

const _: () = assert!(size_of::<RawEpoch>() == 16);
const _: () =
    assert!(size_of::<RawHeader>() == 48 && size_of::<RawPartition>() == 48 && size_of::<RawSegment>() == 48);

impl Checkpoint {
    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.partitions.len() * 128);
        let mut header = RawHeader {
            magic: MAGIC,
            crc: U32::new(0),
            length: U64::new(0),
            lsn: U64::new(self.lsn.0),
            replay_lsn: U64::new(self.replay_lsn.0),
            generation: U64::new(self.generation),
            shard: U16::new(self.shard.0),
            zero: U16::new(0),
            partitions: U32::new(self.partitions.len() as u32),
        };
        bytes.extend_from_slice(header.as_bytes());
        for partition in &self.partitions {
            partition.encode(&mut bytes);
        }
        self.queues.encode(&mut bytes);
        header.length = U64::new(bytes.len() as u64);
        bytes[..size_of::<RawHeader>()].copy_from_slice(header.as_bytes());
        header.crc = U32::new(crc32c(&bytes[8..]));
        bytes[..size_of::<RawHeader>()].copy_from_slice(header.as_bytes());
        bytes
    }

    /// Reads a checkpoint; says what is wrong with one that is damaged, and where.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, (u64, &'static str)> {
        let cut_off = (bytes.len() as u64, "the checkpoint is cut off");
        let (header, mut rest) = RawHeader::ref_from_prefix(bytes).map_err(|_| cut_off)?;
        if header.magic != MAGIC {
            return Err((0, "this is no checkpoint"));
        }
        if header.length.get() != bytes.len() as u64 {
            return Err((8, "the checkpoint's length is not the file's"));
        }
        if bytes.get(8..).map(crc32c) != Some(header.crc.get()) {
            return Err((4, "the checkpoint's checksum does not match"));
        }
        if header.replay_lsn.get() == 0 {
            return Err((
                offset_of!(RawHeader, replay_lsn) as u64,
                "the checkpoint needs a record that cannot be",
            ));
        }
        let mut partitions = Vec::new();
        for _ in 0..header.partitions.get() {
            let at = (bytes.len() - rest.len()) as u64;
            let partition =
                PartitionState::decode(&mut rest).ok_or((at, "a partition's state is malformed"))?;
            partitions.push(partition);
        }
        let at = (bytes.len() - rest.len()) as u64;
        let queues = QueuesState::decode(rest).ok_or((at, "what follows the partitions is malformed"))?;
        Ok(Checkpoint {
            lsn: Lsn(header.lsn.get()),
            replay_lsn: Lsn(header.replay_lsn.get()),
            generation: header.generation.get(),
            shard: ShardId(header.shard.get()),
            partitions,
            queues,
        })
    }
}

impl PartitionState {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let raw = RawPartition {
            topic: self.id.topic.0,
            index: U32::new(self.id.index),
            segments: U32::new(self.segments.len() as u32),
            producers: U32::new(self.producers.len() as u32),
            epochs: U32::new(self.epochs.len() as u32),
            log_start: U64::new(self.log_start.0),
            next_offset: U64::new(self.next_offset.0),
        };
        bytes.extend_from_slice(raw.as_bytes());
        for segment in &self.segments {
            let raw = RawSegment {
                base: U64::new(segment.base.0),
                size: U32::new(segment.size),
                flushed: U32::new(segment.flushed),
                index_entries: U32::new(segment.index_entries),
                time_entries: U32::new(segment.time_entries),
                max_timestamp: I64::new(segment.max_timestamp),
                created_ms: I64::new(segment.created_ms),
                stored: U64::new(u64::from(segment.stored)),
            };
            bytes.extend_from_slice(raw.as_bytes());
        }
        for producer in &self.producers {
            encode_producer(bytes, producer);
        }
        for (epoch, start) in &self.epochs {
            let raw = RawEpoch { epoch: U32::new(epoch.0), zero: U32::new(0), start: U64::new(start.0) };
            bytes.extend_from_slice(raw.as_bytes());
        }
    }

    fn decode(rest: &mut &[u8]) -> Option<PartitionState> {
        let (raw, after) = RawPartition::ref_from_prefix(rest).ok()?;
        *rest = after;
        let mut segments = Vec::new();
        for _ in 0..raw.segments.get() {
            let (segment, after) = RawSegment::ref_from_prefix(rest).ok()?;
            *rest = after;
            segments.push(SegmentState {
                base: Offset(segment.base.get()),
                size: segment.size.get(),
                flushed: segment.flushed.get(),
                index_entries: segment.index_entries.get(),
                time_entries: segment.time_entries.get(),
                max_timestamp: segment.max_timestamp.get(),
                created_ms: segment.created_ms.get(),
                stored: segment.stored.get() != 0,
            });
        }
        let mut producers = Vec::new();
        for _ in 0..raw.producers.get() {
            producers.push(decode_producer(rest)?);
        }
        let mut epochs = Vec::new();
        for _ in 0..raw.epochs.get() {
            let (epoch, after) = RawEpoch::ref_from_prefix(rest).ok()?;
            *rest = after;
            epochs.push((LeaderEpoch(epoch.epoch.get()), Offset(epoch.start.get())));
        }
        let state = PartitionState {
            id: PartitionId { topic: TopicId(raw.topic), index: raw.index.get() },
            log_start: Offset(raw.log_start.get()),
            next_offset: Offset(raw.next_offset.get()),
            segments,
            producers,
            epochs,
        };
        state.is_sound().then_some(state)
    }

    /// What every state written by us satisfies, and recovery relies on.
    fn is_sound(&self) -> bool {
        let ordered = self.segments.windows(2).all(|pair| pair[0].base < pair[1].base);
        // Every entry of an index points to a batch of its own.
        let indexed = |s: &SegmentState| s.index_entries.max(s.time_entries) <= s.size / HEADER_BYTES as u32;
        let within = self.segments.iter().all(|s| {
            s.flushed <= s.size
                && (!s.stored || s.flushed == s.size)
                && u64::from(s.size) <= SEGMENT_BYTES_MAX
                && indexed(s)
        });
        let last = self.segments.last().map_or(self.log_start, |last| last.base.max(self.log_start));
        let rising = self.epochs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let known = self.epochs.iter().all(|(_, start)| *start <= self.next_offset);
        ordered
            && within
            && rising
            && known
            && last <= self.next_offset
            && self.next_offset.0 <= i64::MAX.cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Checkpoint {
        let segment = |base, size, flushed, stored| SegmentState {
            base: Offset(base),
            size,
            flushed,
            index_entries: 3,
            time_entries: 2,
            max_timestamp: 1_700_000_000_000,
            created_ms: 1_600_000_000_000,
            stored,
        };
        Checkpoint {
            lsn: Lsn(900),
            replay_lsn: Lsn(800),
            generation: 2,
            shard: ShardId(1),
            partitions: vec![PartitionState {
                id: PartitionId { topic: TopicId([3; 16]), index: 7 },
                log_start: Offset(5),
                next_offset: Offset(60),
                segments: vec![segment(0, 12345, 12345, true), segment(40, 9000, 8192, false)],
                producers: Vec::new(),
                epochs: vec![(LeaderEpoch(1), Offset(5)), (LeaderEpoch(4), Offset(50))],
            }],
            queues: QueuesState::default(),
        }
    }

    #[test]
    fn a_checkpoint_gives_back_what_was_put_in() {
        assert_eq!(Checkpoint::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn no_bit_can_flip_unseen_and_no_byte_be_missing() {
        let sound = sample().encode();
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Checkpoint::decode(&bytes).is_err(), "bit {bit} flipped unseen");
        }
        for len in 0..sound.len() {
            assert!(Checkpoint::decode(&sound[..len]).is_err());
        }
    }

    #[test]
    fn records_are_counted_from_one() {
        let checkpoint = Checkpoint { replay_lsn: Lsn(0), ..sample() };
        assert_eq!(Checkpoint::decode(&checkpoint.encode()).unwrap_err().0, 24);
    }

    #[test]
    fn counts_are_not_believed() {
        let mut bytes = sample().encode();
        bytes[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
        let crc = crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        assert!(Checkpoint::decode(&bytes).is_err());
    }
}
