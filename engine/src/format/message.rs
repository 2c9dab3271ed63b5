//! What the journal, and the files that survivors of it go to, hold of queues: records of kinds 5 to 10.
//!
//! In all of them the record's owner ([`super::journal`]) is a queue: its id stands where a topic's does. Little-endian.
//!
//! | kind | partition field | position field | segment field | aux field | payload |
//! |---|---|---|---|---|---|
//! | message | bits 0-7 priority, bit 8 persistent, bit 9 moved, bit 10 in pieces, bits 16-31 how many more targets | bytes of the header | sequence in the owner | when it expires there, in ms; [`NEVER`] if it does not | if moved, where it comes from; more targets; header; body, or if it is in pieces, their name (8) and the bytes of header and body (8). Each place: queue (16), sequence (8), when it expires there (8) |
//! | piece | 0 | 0 | number of the piece | name: the LSN of its first piece when that was first journalled | header and body, [`PIECE_BYTES`] of them, of the last piece the rest |
//! | settled | 0 | 0 | 0 | 0 | ranges of sequences: first (8), last (8) |
//! | failed | 0 | 0 | 0 | 0 | sequence (8), how often it has come back failed (8) |
//! | leaving | 0 | 0 | 0 | 0 | sequence (8), why (8): 1 rejected, 2 expired, 3 no room, 4 delivery limit |
//! | mark | 0 | 0 | 0 | a sequence: lower ones of its rank may have been delivered | none |
//! | forgotten | 0 | 0 | 0 | 0 | ranges of sequences in the owner, a queue of another shard: messages from there have left it |
//!
//! A transient queue (whose id says so, [`QueueId::is_transient`]) may be among a message's targets beside durable ones; there it is
//! not brought back. A message that is not persistent is in no journal and in no file that is kept.

use std::ops::Range;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::journal::{RecordHeader, RecordKind};
use super::take::take;
use crate::limits::{GROUP_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::time::WallMs;
use crate::types::{Offset, PartitionId, QueueId, Seq, TopicId};

/// The expiry of a message that has none.
pub const NEVER: u64 = u64::MAX;
/// Bytes of header and body in each piece of a message that is too large for one record.
pub const PIECE_BYTES: usize = GROUP_BYTES_MAX / 2;
/// Bytes of a target in a message's payload.
pub const TARGET_BYTES: usize = size_of::<RawTarget>();

const PERSISTENT: u32 = 1 << 8;
const MOVED: u32 = 1 << 9;
const IN_PIECES: u32 = 1 << 10;
const MORE_SHIFT: u32 = 16;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawTarget {
    queue: [u8; 16],
    seq: U64,
    expires_at: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawPair {
    first: U64,
    second: U64,
}

const _: () = assert!(size_of::<RawTarget>() == 32 && size_of::<RawPair>() == 16);

/// A message's place in one queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// The queue.
    pub queue: QueueId,
    /// Its number there.
    pub seq: Seq,
    /// When it expires there.
    pub expires_at: Option<WallMs>,
}

/// What a message's record says beside its header and body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageRecord {
    /// The queues that have it, at least one.
    pub targets: Vec<Target>,
    /// The message that it takes the place of: that one is settled by this record.
    pub source: Option<Target>,
    /// Whether durable queues keep it over a restart.
    pub persistent: bool,
    /// Its priority.
    pub priority: u8,
    /// Bytes of its header.
    pub header_bytes: usize,
    /// If header and body are in pieces, where.
    pub pieces: Option<Pieces>,
}

/// Header and body of a message that is too large for one record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pieces {
    /// Names them.
    pub name: u64,
    /// Bytes of header and body.
    pub bytes: u64,
}

impl Pieces {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.bytes.div_ceil(PIECE_BYTES as u64)
    }
}

impl MessageRecord {
    /// The record's header, for a message with a body of this size.
    pub fn header(&self, body_bytes: usize) -> RecordHeader {
        let (owner, more) = self.targets.split_first().expect("a message has a queue");
        let flag = |set: bool, flag| if set { flag } else { 0 };
        let flags = flag(self.persistent, PERSISTENT)
            | flag(self.source.is_some(), MOVED)
            | flag(self.pieces.is_some(), IN_PIECES);
        RecordHeader {
            kind: RecordKind::Message,
            partition: PartitionId {
                topic: TopicId(owner.queue.0),
                index: u32::from(self.priority) | flags | (more.len() as u32) << MORE_SHIFT,
            },
            segment: Offset(owner.seq.0),
            position: self.header_bytes as u32,
            aux: encode_expiry(owner.expires_at),
            len: match self.pieces {
                Some(_) => self.prefix_bytes() + size_of::<RawPair>(),
                None => self.prefix_bytes() + self.header_bytes + body_bytes,
            },
        }
    }

    /// Bytes of payload before the header.
    pub fn prefix_bytes(&self) -> usize {
        (self.targets.len() - 1 + usize::from(self.source.is_some())) * TARGET_BYTES
    }

    /// What stands in the payload before the header.
    pub fn prefix(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.prefix_bytes());
        for target in self.source.iter().chain(&self.targets[1..]) {
            let raw = RawTarget {
                queue: target.queue.0,
                seq: U64::new(target.seq.0),
                expires_at: U64::new(encode_expiry(target.expires_at)),
            };
            bytes.extend_from_slice(raw.as_bytes());
        }
        bytes
    }

    /// Reads a message's record; `None` if it contradicts itself.
    pub fn decode(record: &RecordHeader, payload: &[u8]) -> Option<MessageRecord> {
        let index = record.partition.index;
        let more = (index >> MORE_SHIFT) as usize;
        let mut rest = payload;
        let source = if index & MOVED != 0 { Some(take_target(&mut rest)?) } else { None };
        if more.checked_mul(TARGET_BYTES)? > rest.len() {
            return None;
        }
        let expires_at = decode_expiry(record.aux);
        let mut targets = vec![Target { queue: queue_of(record), seq: Seq(record.segment.0), expires_at }];
        for _ in 0..more {
            targets.push(take_target(&mut rest)?);
        }
        let header_bytes = record.position as usize;
        let pieces = if index & IN_PIECES != 0 {
            let raw = RawPair::read_from_bytes(rest).ok()?;
            let pieces = Pieces { name: raw.first.get(), bytes: raw.second.get() };
            if pieces.bytes > MESSAGE_BYTES_MAX as u64 || header_bytes as u64 > pieces.bytes {
                return None;
            }
            Some(pieces)
        } else if header_bytes <= rest.len() {
            None
        } else {
            return None;
        };
        Some(MessageRecord {
            targets,
            source,
            persistent: index & PERSISTENT != 0,
            priority: index as u8,
            header_bytes,
            pieces,
        })
    }

    /// Bytes of header and body, by the record.
    pub fn bytes(&self, record: &RecordHeader) -> u32 {
        match self.pieces {
            Some(pieces) => pieces.bytes as u32,
            None => (record.len - self.prefix_bytes()) as u32,
        }
    }

    /// What stands behind the prefix of a message in pieces.
    pub fn pieces_bytes(&self) -> Vec<u8> {
        let pair = self.pieces.map(|pieces| (pieces.name, pieces.bytes));
        encode_pairs(pair.as_slice())
    }
}

/// The queue that a record is of.
pub fn queue_of(record: &RecordHeader) -> QueueId {
    QueueId(record.partition.topic.0)
}

fn take_target(bytes: &mut &[u8]) -> Option<Target> {
    let raw: RawTarget = take(bytes)?;
    let expires_at = decode_expiry(raw.expires_at.get());
    Some(Target { queue: QueueId(raw.queue), seq: Seq(raw.seq.get()), expires_at })
}

fn encode_expiry(expires_at: Option<WallMs>) -> u64 {
    expires_at.map_or(NEVER, |at| at.0.cast_unsigned())
}

fn decode_expiry(raw: u64) -> Option<WallMs> {
    (raw != NEVER).then_some(WallMs(raw.cast_signed()))
}

/// The record of a message without where it came from, and the range of the payload that stays.
pub fn without_source(record: &RecordHeader, payload: Range<usize>) -> (RecordHeader, Range<usize>) {
    if record.kind != RecordKind::Message
        || record.partition.index & MOVED == 0
        || payload.len() < TARGET_BYTES
    {
        return (*record, payload);
    }
    let partition = PartitionId { index: record.partition.index & !MOVED, ..record.partition };
    let record = RecordHeader { partition, len: record.len - TARGET_BYTES, ..*record };
    (record, payload.start + TARGET_BYTES..payload.end)
}

/// The header of a piece's record.
pub fn piece(name: u64, number: u64, len: usize) -> RecordHeader {
    let partition = PartitionId { topic: TopicId::default(), index: 0 };
    RecordHeader { kind: RecordKind::Piece, partition, segment: Offset(number), position: 0, aux: name, len }
}

/// Where header and body lie in a message's payload; `None` if the record contradicts itself, or if they are elsewhere.
pub fn split(record: &RecordHeader, payload_bytes: usize) -> Option<(usize, usize)> {
    let index = record.partition.index;
    let prefix = ((index >> MORE_SHIFT) as usize + usize::from(index & MOVED != 0)) * TARGET_BYTES;
    let body = prefix + record.position as usize;
    (body <= payload_bytes && index & IN_PIECES == 0).then_some((prefix, body))
}

/// The header of a record that is about a queue and no message's.
pub fn note(kind: RecordKind, queue: QueueId, aux: u64, len: usize) -> RecordHeader {
    let partition = PartitionId { topic: TopicId(queue.0), index: 0 };
    RecordHeader { kind, partition, segment: Offset(0), position: 0, aux, len }
}

/// The payload of a note: pairs of numbers.
pub fn encode_pairs(pairs: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(pairs.len() * size_of::<RawPair>());
    for (first, second) in pairs {
        let raw = RawPair { first: U64::new(*first), second: U64::new(*second) };
        bytes.extend_from_slice(raw.as_bytes());
    }
    bytes
}

/// The pairs of a note; `None` if the payload is none.
pub fn decode_pairs(payload: &[u8]) -> Option<impl Iterator<Item = (u64, u64)>> {
    let pairs = <[RawPair]>::ref_from_bytes(payload).ok()?;
    Some(pairs.iter().map(|pair| (pair.first.get(), pair.second.get())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> QueueId {
        QueueId([byte; 16])
    }

    fn target(byte: u8, seq: u64, expires_at: Option<i64>) -> Target {
        Target { queue: id(byte), seq: Seq(seq), expires_at: expires_at.map(WallMs) }
    }

    fn samples() -> Vec<MessageRecord> {
        let one = MessageRecord {
            targets: vec![target(1, 7, Some(5))],
            source: None,
            persistent: true,
            priority: 255,
            header_bytes: 3,
            pieces: None,
        };
        let many = MessageRecord {
            targets: vec![target(1, 7, None), target(2, 1 << 60, Some(0)), target(3, 0, None)],
            source: Some(target(9, 4, None)),
            persistent: false,
            priority: 0,
            header_bytes: 0,
            pieces: None,
        };
        vec![one, many]
    }

    #[test]
    fn a_message_gives_back_what_was_put_in() {
        for record in samples() {
            let header = record.header(4);
            let mut payload = record.prefix();
            payload.extend_from_slice(&vec![b'h'; record.header_bytes]);
            payload.extend_from_slice(b"body");
            assert_eq!(header.len, payload.len());
            assert_eq!(MessageRecord::decode(&header, &payload).as_ref(), Some(&record));
            let (from, body) = split(&header, payload.len()).expect("it is sound");
            assert_eq!((body - from, &payload[body..]), (record.header_bytes, &b"body"[..]));
        }
    }

    #[test]
    fn a_message_in_pieces_says_where_they_are() {
        let pieces = Some(Pieces { name: 77, bytes: 3 * PIECE_BYTES as u64 + 1 });
        for record in samples().into_iter().map(|record| MessageRecord { pieces, ..record }) {
            let header = record.header(12345);
            let payload = [record.prefix(), record.pieces_bytes()].concat();
            assert_eq!(header.len, payload.len());
            assert_eq!(MessageRecord::decode(&header, &payload), Some(record.clone()));
            assert_eq!(split(&header, payload.len()), None);
            assert_eq!(record.pieces.map(|pieces| pieces.count()), Some(4));
            for len in 0..payload.len() {
                assert_eq!(MessageRecord::decode(&header, &payload[..len]), None, "{len}");
            }
        }
    }

    #[test]
    fn a_message_forgets_where_it_came_from() {
        for record in samples() {
            let header = record.header(4);
            let payload = [record.prefix(), vec![b'h'; record.header_bytes], b"body".to_vec()].concat();
            let (stays, range) = without_source(&header, 0..payload.len());
            let forgot = MessageRecord { source: None, ..record };
            assert_eq!((stays.len, stays), (range.len(), forgot.header(4)));
            assert_eq!(MessageRecord::decode(&stays, &payload[range]), Some(forgot));
        }
    }

    #[test]
    fn counts_and_lengths_are_not_believed() {
        for record in samples() {
            let header = record.header(0);
            let payload = vec![0; record.prefix_bytes() + record.header_bytes];
            assert!(MessageRecord::decode(&header, &payload).is_some());
            for len in 0..payload.len() {
                assert_eq!(MessageRecord::decode(&header, &payload[..len]), None, "{len}");
                assert_eq!(split(&header, len), None, "{len}");
            }
        }
    }

    #[test]
    fn notes_are_whole_pairs() {
        let pairs = [(1, 2), (u64::MAX, 0)];
        let bytes = encode_pairs(&pairs);
        assert_eq!(decode_pairs(&bytes).map(Iterator::collect::<Vec<_>>), Some(pairs.to_vec()));
        assert!(decode_pairs(&bytes[1..]).is_none());
    }
}
