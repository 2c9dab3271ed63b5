//! The journal's layout: groups of records, each group one write and one flush.
//!
//! # Group
//! A multiple of 4096 bytes, at a multiple of 4096 in its file. Little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `MSJ1` |
//! | 4 | 4 | length of the group, padding included |
//! | 8 | 4 | bytes used: this header and the records |
//! | 12 | 4 | CRC32C, see below |
//! | 16 | 4 | CRC of the group before this one: the chain. 0 for the first ever |
//! | 20 | 4 | number of records |
//! | 24 | 8 | epoch of the file, so that what a recycled file held before is told apart |
//! | 32 | 8 | LSN of the first record; the others count on from it |
//! | 40 | 8 | the durable LSN as known when this group was submitted |
//! | 48 | 8 | the journal's key, see [`super::manifest`]: a client's bytes never pass for a group |
//! | 56 | 8 | zero |
//!
//! # Record
//! Starts at a multiple of 8 within the group.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | kind, see [`RecordKind`] |
//! | 1 | 3 | zero |
//! | 4 | 4 | payload bytes, without the padding to a multiple of 8 behind them |
//! | 8 | 16 | the owner's topic id |
//! | 24 | 4 | the owner's partition |
//! | 28 | 4 | position in the segment |
//! | 32 | 8 | base offset of the segment |
//! | 40 | 8 | what else the kind needs |
//!
//! # What the CRC covers
//! Bytes 0-11 and 16-63 of the group's header, every record's header and, of the payloads, everything except what a
//! record batch's own CRC covers (its bytes from 21 on), which [`check`] verifies by that. So each byte that a client
//! sent is checksummed once on its way in, and yet no bit of a group can change unseen. Padding is not covered.

use std::ops::Range;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::batch;
use crate::checksum::{crc32c, crc32c_append};
use crate::limits::{BLOCK_BYTES, GROUP_BYTES_MAX};
use crate::types::{FileEpoch, Lsn, Offset, PartitionId, TopicId};

/// Bytes of a group's header.
pub const GROUP_HEADER_BYTES: usize = size_of::<RawGroup>();
/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = size_of::<RawRecord>();
/// Bytes of payload that one record can carry in a group of its own.
pub const PAYLOAD_BYTES_MAX: usize = GROUP_BYTES_MAX - GROUP_HEADER_BYTES - RECORD_HEADER_BYTES;
/// The bytes of a batch that its own CRC leaves out: base offset, length, leader epoch, magic, and that CRC itself.
const BATCH_UNCOVERED_BYTES: usize = 21;

const MAGIC: [u8; 4] = *b"MSJ1";

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawGroup {
    magic: [u8; 4],
    length: U32,
    used: U32,
    crc: U32,
    previous_crc: U32,
    records: U32,
    file_epoch: U64,
    first_lsn: U64,
    durable_lsn: U64,
    key: U64,
    zero: [u8; 8],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawRecord {
    kind: u8,
    zero: [u8; 3],
    len: U32,
    topic: [u8; 16],
    partition: U32,
    position: U32,
    segment: U64,
    aux: U64,
}

const _: () = assert!(GROUP_HEADER_BYTES == 64 && RECORD_HEADER_BYTES == 48);

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// A whole record batch, placed at `position` of `segment`.
    Batch = 1,
    /// A piece of a batch too large for one group. `aux` is the batch's length in its upper and the piece's place in
    /// its lower 32 bits; pieces follow each other, other owners' records may lie between, and the last commits.
    Part = 2,
    /// Raw bytes of a segment from `position` on: the tail's last, unaligned block, carried forward so that the file
    /// which held its batches can be recycled.
    Carry = 3,
    /// The log's start has moved up to `aux`.
    LogStart = 4,
    /// A message of queues. Of this and the others below, see [`super::message`].
    Message = 5,
    /// Messages are settled.
    Settled = 6,
    /// Messages have come back failed.
    Failed = 7,
    /// Messages have to leave.
    Leaving = 8,
    /// Messages up to here may have been delivered.
    Mark = 9,
    /// Messages that came from another shard's queue have left that.
    Forgotten = 10,
    /// A piece of a message that is too large for one record.
    Piece = 11,
}

impl RecordKind {
    /// Whether its owner is a queue.
    pub fn is_of_queues(self) -> bool {
        matches!(
            self,
            RecordKind::Message
                | RecordKind::Settled
                | RecordKind::Failed
                | RecordKind::Leaving
                | RecordKind::Mark
                | RecordKind::Forgotten
                | RecordKind::Piece
        )
    }
}

/// A record's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// What it is.
    pub kind: RecordKind,
    /// Whose it is.
    pub partition: PartitionId,
    /// Base offset of the segment it is placed in.
    pub segment: Offset,
    /// Its position in that segment.
    pub position: u32,
    /// What else the kind needs.
    pub aux: u64,
    /// Bytes of payload.
    pub len: usize,
}

impl RecordHeader {
    fn encode(&self) -> RawRecord {
        RawRecord {
            kind: self.kind as u8,
            zero: [0; 3],
            len: U32::new(self.len as u32),
            topic: self.partition.topic.0,
            partition: U32::new(self.partition.index),
            position: U32::new(self.position),
            segment: U64::new(self.segment.0),
            aux: U64::new(self.aux),
        }
    }

    fn decode(raw: &RawRecord) -> Option<RecordHeader> {
        let kind = match raw.kind {
            1 => RecordKind::Batch,
            2 => RecordKind::Part,
            3 => RecordKind::Carry,
            4 => RecordKind::LogStart,
            5 => RecordKind::Message,
            6 => RecordKind::Settled,
            7 => RecordKind::Failed,
            8 => RecordKind::Leaving,
            9 => RecordKind::Mark,
            10 => RecordKind::Forgotten,
            11 => RecordKind::Piece,
            _ => return None,
        };
        Some(RecordHeader {
            kind,
            partition: PartitionId { topic: TopicId(raw.topic), index: raw.partition.get() },
            segment: Offset(raw.segment.get()),
            position: raw.position.get(),
            aux: raw.aux.get(),
            len: raw.len.get() as usize,
        })
    }
}

/// A group's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHeader {
    /// Bytes of the whole group, padding included.
    pub length: usize,
    /// Bytes of header and records.
    pub used: usize,
    /// The group's checksum.
    pub crc: u32,
    /// The checksum of the group before.
    pub previous_crc: u32,
    /// How many records there are.
    pub records: u32,
    /// The epoch of the file it was written to.
    pub file_epoch: FileEpoch,
    /// The first record's number.
    pub first_lsn: Lsn,
    /// What was durable when it was submitted.
    pub durable_lsn: Lsn,
    /// The key of the journal it belongs to.
    pub key: u64,
}

impl GroupHeader {
    /// The number of the group's last record.
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.records) - 1)
    }
}

/// What follows from the group's place in the journal, and is known only when it is closed.
#[derive(Clone, Copy, Debug)]
pub struct GroupPlace {
    /// The checksum of the group before.
    pub previous_crc: u32,
    /// The epoch of the file it goes to.
    pub file_epoch: FileEpoch,
    /// The first record's number.
    pub first_lsn: Lsn,
    /// What is durable now.
    pub durable_lsn: Lsn,
    /// The journal's key.
    pub key: u64,
}

/// Why bytes are not a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupError {
    /// There is no header of a group here.
    Absent,
    /// There is a header, but what it heads is not whole; the position, relative to the group, and what is wrong.
    Broken(usize, &'static str),
}

/// Bytes that a record with this payload takes in a group.
pub fn record_bytes(payload: usize) -> usize {
    RECORD_HEADER_BYTES + payload.next_multiple_of(8)
}

/// The header's bytes of a record, to be followed by its payload and zeros up to a multiple of 8.
pub fn encode_record(header: &RecordHeader) -> [u8; RECORD_HEADER_BYTES] {
    zerocopy::transmute!(header.encode())
}

/// Completes a group whose records lie behind [`GROUP_HEADER_BYTES`] of room, padded with anything to a multiple of
/// the block size: writes the header and gives the checksum, which the next group chains to.
pub fn seal(group: &mut [u8], used: usize, records: u32, place: &GroupPlace) -> u32 {
    assert!(records > 0, "a group without records has no LSN");
    assert!(group.len().is_multiple_of(BLOCK_BYTES) && used <= group.len() && group.len() <= GROUP_BYTES_MAX);
    let mut header = RawGroup {
        magic: MAGIC,
        length: U32::new(group.len() as u32),
        used: U32::new(used as u32),
        crc: U32::new(0),
        previous_crc: U32::new(place.previous_crc),
        records: U32::new(records),
        file_epoch: U64::new(place.file_epoch.0),
        first_lsn: U64::new(place.first_lsn.0),
        durable_lsn: U64::new(place.durable_lsn.0),
        key: U64::new(place.key),
        zero: [0; 8],
    };
    let (room, _) = group.split_at_mut(GROUP_HEADER_BYTES);
    room.copy_from_slice(header.as_bytes());
    let crc =
        checksum(group, used, |_| Ok(())).expect("the records of a group that we built are well-formed");
    header.crc = U32::new(crc);
    group[..GROUP_HEADER_BYTES].copy_from_slice(header.as_bytes());
    crc
}

/// Reads a group's header, believing nothing but its form.
pub fn peek(bytes: &[u8]) -> Result<GroupHeader, GroupError> {
    let (raw, _) = RawGroup::ref_from_prefix(bytes).map_err(|_| GroupError::Absent)?;
    if raw.magic != MAGIC {
        return Err(GroupError::Absent);
    }
    let header = GroupHeader {
        length: raw.length.get() as usize,
        used: raw.used.get() as usize,
        crc: raw.crc.get(),
        previous_crc: raw.previous_crc.get(),
        records: raw.records.get(),
        file_epoch: FileEpoch(raw.file_epoch.get()),
        first_lsn: Lsn(raw.first_lsn.get()),
        durable_lsn: Lsn(raw.durable_lsn.get()),
        key: raw.key.get(),
    };
    let sound = header.length.is_multiple_of(BLOCK_BYTES)
        && header.length <= GROUP_BYTES_MAX
        && header.used <= header.length
        && header.used > GROUP_HEADER_BYTES
        && header.records > 0
        && header.first_lsn > header.durable_lsn
        && header.first_lsn.0 < u64::MAX / 2
        && raw.zero == [0; 8];
    if sound { Ok(header) } else { Err(GroupError::Broken(0, "the group's header contradicts itself")) }
}

/// Reads and verifies the group that `bytes` start with; `bytes` may go on behind it. Every bit that matters is
/// covered: afterwards [`records`] may be believed.
pub fn check(bytes: &[u8]) -> Result<GroupHeader, GroupError> {
    let header = peek(bytes)?;
    let group = bytes.get(..header.length).ok_or(GroupError::Broken(bytes.len(), "the group is cut off"))?;
    let mut count = 0;
    let crc = checksum(group, header.used, |_| {
        count += 1;
        Ok(())
    })?;
    if crc != header.crc {
        return Err(GroupError::Broken(0, "the group's checksum does not match"));
    }
    if count != header.records {
        return Err(GroupError::Broken(0, "the group holds another number of records than it says"));
    }
    for (record, range) in records(group) {
        if record.kind == RecordKind::Batch && batch::check(&group[range.clone()]).is_err() {
            return Err(GroupError::Broken(range.start, "a record batch's checksum does not match"));
        }
    }
    Ok(header)
}

/// The record at this position of a group that [`check`] has passed: its header, and where its payload lies.
pub fn record_at(group: &[u8], at: usize) -> Option<(RecordHeader, Range<usize>)> {
    // One that was never to be written has no header, and is filled to its end.
    let used = peek(group).map_or(group.len(), |header| header.used);
    Walk { group, at, used }.next()?.ok()
}

/// The records of a group that [`check`] has passed: each with where its payload lies in the group.
pub fn records(group: &[u8]) -> impl Iterator<Item = (RecordHeader, Range<usize>)> {
    let used = peek(group).map_or(0, |header| header.used);
    let mut walk = Walk { group, at: GROUP_HEADER_BYTES, used };
    std::iter::from_fn(move || walk.next().and_then(Result::ok))
}

/// Steps through records that may not be well-formed.
struct Walk<'a> {
    group: &'a [u8],
    at: usize,
    used: usize,
}

impl Walk<'_> {
    fn next(&mut self) -> Option<Result<(RecordHeader, Range<usize>), GroupError>> {
        if self.at >= self.used {
            return None;
        }
        let at = self.at;
        let broken = |what| Some(Err(GroupError::Broken(at, what)));
        let Some(rest) = self.group.get(at..self.used) else {
            return broken("a record lies outside its group");
        };
        let Ok((raw, _)) = RawRecord::ref_from_prefix(rest) else {
            return broken("a record's header is cut off");
        };
        let Some(header) = RecordHeader::decode(raw) else { return broken("a record of an unknown kind") };
        if record_bytes(header.len) > rest.len() {
            return broken("a record is longer than its group");
        }
        let start = at + RECORD_HEADER_BYTES;
        self.at = at + record_bytes(header.len);
        Some(Ok((header, start..start + header.len)))
    }
}

/// The group's CRC, as the module's head defines it; `each` sees every record on the way.
fn checksum(
    group: &[u8],
    used: usize,
    mut each: impl FnMut(&RecordHeader) -> Result<(), GroupError>,
) -> Result<u32, GroupError> {
    let header = group.get(..GROUP_HEADER_BYTES).ok_or(GroupError::Absent)?;
    let mut crc = crc32c_append(crc32c(&header[..12]), &header[16..]);
    let mut walk = Walk { group, at: GROUP_HEADER_BYTES, used };
    loop {
        let at = walk.at;
        let Some(next) = walk.next() else { return Ok(crc) };
        let (record, payload) = next?;
        each(&record)?;
        let covered = match record.kind {
            RecordKind::Batch => payload.len().min(BATCH_UNCOVERED_BYTES),
            RecordKind::Part
            | RecordKind::Carry
            | RecordKind::LogStart
            | RecordKind::Message
            | RecordKind::Settled
            | RecordKind::Failed
            | RecordKind::Leaving
            | RecordKind::Mark
            | RecordKind::Forgotten
            | RecordKind::Piece => payload.len(),
        };
        crc = crc32c_append(crc, &group[at..payload.start + covered]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(first_lsn: u64) -> GroupPlace {
        GroupPlace {
            previous_crc: 7,
            file_epoch: FileEpoch(3),
            first_lsn: Lsn(first_lsn),
            durable_lsn: Lsn(first_lsn - 1),
            key: 99,
        }
    }

    fn group(payloads: &[(RecordKind, Vec<u8>)]) -> (Vec<u8>, u32) {
        let mut bytes = vec![0; GROUP_HEADER_BYTES];
        for (kind, payload) in payloads {
            let header = RecordHeader {
                kind: *kind,
                partition: PartitionId { topic: TopicId([9; 16]), index: 4 },
                segment: Offset(100),
                position: 8192,
                aux: 5,
                len: payload.len(),
            };
            bytes.extend_from_slice(&encode_record(&header));
            bytes.extend_from_slice(payload);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let used = bytes.len();
        bytes.resize(used.next_multiple_of(BLOCK_BYTES), 0);
        let crc = seal(&mut bytes, used, payloads.len() as u32, &place(11));
        (bytes, crc)
    }

    fn sample() -> Vec<u8> {
        let mut builder = batch::BatchBuilder::new(1_000);
        builder.push(Some(b"key"), Some(b"value"));
        group(&[
            (RecordKind::Batch, builder.build()),
            (RecordKind::Carry, vec![1, 2, 3]),
            (RecordKind::LogStart, Vec::new()),
        ])
        .0
    }

    #[test]
    fn a_group_gives_back_what_was_put_in() {
        let bytes = sample();
        let header = check(&bytes).unwrap();
        assert_eq!((header.records, header.first_lsn, header.last_lsn()), (3, Lsn(11), Lsn(13)));
        let kinds: Vec<_> = records(&bytes).map(|(record, range)| (record.kind, range.len())).collect();
        assert_eq!(kinds[1..], [(RecordKind::Carry, 3), (RecordKind::LogStart, 0)]);
    }

    #[test]
    fn no_bit_of_the_used_part_can_flip_unseen() {
        let sound = sample();
        let used = check(&sound).unwrap().used;
        // The zeros between records are nobody's bytes.
        let padding: Vec<usize> =
            records(&sound).flat_map(|(_, r)| r.end..r.end.next_multiple_of(8)).collect();
        for bit in (0..used * 8).filter(|bit| !padding.contains(&(bit / 8))) {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bytes).is_err(), "bit {bit} flipped unseen");
        }
    }

    #[test]
    fn a_group_cut_anywhere_is_not_a_group() {
        let sound = sample();
        for len in 0..sound.len() {
            assert!(check(&sound[..len]).is_err(), "{len} bytes passed for the whole");
        }
    }

    #[test]
    fn the_largest_payload_fits_the_largest_group() {
        let (bytes, _) = group(&[(RecordKind::Carry, vec![5; PAYLOAD_BYTES_MAX])]);
        assert_eq!(bytes.len(), GROUP_BYTES_MAX);
        assert!(check(&bytes).is_ok());
    }
}
