//! What a partition remembers of an idempotent producer, and the two forms in which it is stored: ours, within the
//! checkpoint, with every remembered batch; and Kafka's `.snapshot` file, with the last batch only.
//!
//! Ours, little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | producer id |
//! | 8 | 8 | timestamp of the last batch, in ms |
//! | 16 | 2 | producer epoch |
//! | 18 | 1 | batches that follow: 0 to 5, oldest first |
//! | 19 | | for each batch: base offset, 8 bytes; timestamp, 8; first sequence, 4; last offset less base offset, 4 |
//!
//! Kafka's, big-endian, version 1: version, 2 bytes; CRC32C of everything from byte 6, 4 bytes; number of entries, 4
//! bytes; and for each entry:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | producer id |
//! | 8 | 2 | producer epoch |
//! | 10 | 4 | last sequence; -1 if no batch is known |
//! | 14 | 8 | last offset; -1 if no batch is known |
//! | 22 | 4 | last sequence less first sequence, of the last batch |
//! | 26 | 8 | timestamp, in ms |
//! | 34 | 4 | epoch of the coordinator that ended the last transaction; -1 for none |
//! | 38 | 8 | first offset of the open transaction; -1 for none |

use std::mem::size_of;

use zerocopy::byteorder::{big_endian as be, little_endian as le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::damage::Damage;
use super::take::take;
use crate::checksum::{crc32c, crc32c_append};
use crate::limits::PRODUCER_BATCHES;
use crate::types::Offset;

/// A batch that a producer sent and that was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerBatch {
    /// The sequence of its first record.
    pub first_sequence: i32,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset of its last record, less that of the first. At most `i32::MAX`.
    pub last_offset_delta: u32,
    /// Its largest timestamp, in ms: what a duplicate is answered with if the broker stamps.
    pub timestamp: i64,
}

impl ProducerBatch {
    /// The sequence of its last record. Sequences wrap from `i32::MAX` to 0, within a batch too.
    pub fn last_sequence(&self) -> i32 {
        sequence_plus(self.first_sequence, self.last_offset_delta)
    }

    /// The offset of its last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.last_offset_delta))
    }

    /// Whether its numbers are such as a sound batch has.
    fn is_valid(&self) -> bool {
        self.first_sequence >= 0
            && self.last_offset_delta <= i32::MAX.cast_unsigned()
            && self.base_offset.0 < i64::MAX.cast_unsigned() - u64::from(self.last_offset_delta)
    }
}

/// The sequence `records` further on: sequences wrap from `i32::MAX` to 0.
pub fn sequence_plus(sequence: i32, records: u32) -> i32 {
    (sequence.cast_unsigned().wrapping_add(records) & i32::MAX.cast_unsigned()).cast_signed()
}

/// What one partition remembers of one producer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerState {
    /// Its id. Never negative.
    pub producer_id: i64,
    /// Its epoch. Never negative.
    pub epoch: i16,
    /// Its last batches of this epoch, oldest first: at most [`PRODUCER_BATCHES`].
    pub batches: Vec<ProducerBatch>,
    /// When it was last heard of, in ms of its batches' time.
    pub last_timestamp: i64,
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawState {
    producer_id: le::I64,
    last_timestamp: le::I64,
    epoch: le::I16,
    batches: u8,
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawBatch {
    base_offset: le::U64,
    timestamp: le::I64,
    first_sequence: le::I32,
    last_offset_delta: le::U32,
}

const _: () = assert!(size_of::<RawState>() == 19 && size_of::<RawBatch>() == 24);
const _: () = assert!(PRODUCER_BATCHES <= u8::MAX as usize);

impl ProducerState {
    /// Remembers the newest batch, and forgets the oldest if there are too many.
    pub fn remember(&mut self, batch: ProducerBatch) {
        if self.batches.len() == PRODUCER_BATCHES {
            self.batches.remove(0);
        }
        self.batches.push(batch);
        self.last_timestamp = batch.timestamp;
    }
}

/// Appends a producer in our form.
pub fn encode_producer(out: &mut Vec<u8>, state: &ProducerState) {
    assert!(state.batches.len() <= PRODUCER_BATCHES, "a producer is remembered by its last batches");
    let raw = RawState {
        producer_id: state.producer_id.into(),
        last_timestamp: state.last_timestamp.into(),
        epoch: state.epoch.into(),
        batches: state.batches.len() as u8,
    };
    out.extend_from_slice(raw.as_bytes());
    for batch in &state.batches {
        let raw = RawBatch {
            base_offset: batch.base_offset.0.into(),
            timestamp: batch.timestamp.into(),
            first_sequence: batch.first_sequence.into(),
            last_offset_delta: batch.last_offset_delta.into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }
}

/// Takes a producer in our form off the front of `bytes`. `None` if there is none, and then `bytes` means nothing.
pub fn decode_producer(bytes: &mut &[u8]) -> Option<ProducerState> {
    let raw: RawState = take(bytes)?;
    let (producer_id, epoch) = (raw.producer_id.get(), raw.epoch.get());
    if usize::from(raw.batches) > PRODUCER_BATCHES || producer_id < 0 || epoch < 0 {
        return None;
    }
    let mut batches = Vec::with_capacity(usize::from(raw.batches));
    for _ in 0..raw.batches {
        let raw: RawBatch = take(bytes)?;
        let batch = ProducerBatch {
            first_sequence: raw.first_sequence.get(),
            base_offset: Offset(raw.base_offset.get()),
            last_offset_delta: raw.last_offset_delta.get(),
            timestamp: raw.timestamp.get(),
        };
        if !batch.is_valid() {
            return None;
        }
        batches.push(batch);
    }
    Some(ProducerState { producer_id, epoch, batches, last_timestamp: raw.last_timestamp.get() })
}

/// An entry of Kafka's `.snapshot` file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotEntry {
    /// The producer. Of its batches the last one is stored at most.
    pub producer: ProducerState,
    /// The epoch of the coordinator that ended its last transaction; -1 for none.
    pub coordinator_epoch: i32,
    /// Where its open transaction starts, if it has one.
    pub transaction_first_offset: Option<Offset>,
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawSnapshot {
    version: be::I16,
    crc: be::U32,
    entries: be::U32,
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned, KnownLayout)]
#[repr(C)]
struct RawEntry {
    producer_id: be::I64,
    epoch: be::I16,
    last_sequence: be::I32,
    last_offset: be::I64,
    offset_delta: be::I32,
    timestamp: be::I64,
    coordinator_epoch: be::I32,
    transaction_first_offset: be::I64,
}

const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_CRC_FROM: usize = 6;
const _: () = assert!(size_of::<RawSnapshot>() == 10 && size_of::<RawEntry>() == 46);

/// The bytes of a `.snapshot` file.
pub fn encode_snapshot(entries: &[SnapshotEntry]) -> Vec<u8> {
    let mut raw = RawSnapshot {
        version: SNAPSHOT_VERSION.into(),
        crc: 0.into(),
        entries: u32::try_from(entries.len()).expect("a shard remembers far fewer producers").into(),
    };
    let mut out = raw.as_bytes().to_vec();
    for entry in entries {
        let last = entry.producer.batches.last();
        let none = Offset(u64::MAX);
        let raw = RawEntry {
            producer_id: entry.producer.producer_id.into(),
            epoch: entry.producer.epoch.into(),
            last_sequence: last.map_or(-1, ProducerBatch::last_sequence).into(),
            last_offset: last.map_or(none, ProducerBatch::last_offset).0.cast_signed().into(),
            offset_delta: last.map_or(0, |batch| batch.last_offset_delta.cast_signed()).into(),
            timestamp: entry.producer.last_timestamp.into(),
            coordinator_epoch: entry.coordinator_epoch.into(),
            transaction_first_offset: entry.transaction_first_offset.unwrap_or(none).0.cast_signed().into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }
    let (head, entries) = out.split_at_mut(size_of::<RawSnapshot>());
    let count = raw.as_bytes().get(SNAPSHOT_CRC_FROM..).expect("the header is longer");
    raw.crc.set(crc32c_append(crc32c(count), entries));
    head.copy_from_slice(raw.as_bytes());
    out
}

/// Reads a `.snapshot` file, whole.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Vec<SnapshotEntry>, Damage> {
    let error = |position: usize, what| Damage { position: position as u64, what };
    let cut = error(bytes.len(), "the snapshot is cut short");
    let (raw, entries) = RawSnapshot::read_from_prefix(bytes).map_err(|_| cut)?;
    if raw.version.get() != SNAPSHOT_VERSION {
        return Err(error(0, "the snapshot's version is not 1"));
    }
    if bytes.get(SNAPSHOT_CRC_FROM..).map(crc32c) != Some(raw.crc.get()) {
        return Err(error(2, "the checksum does not match"));
    }
    let entries = <[RawEntry]>::ref_from_bytes(entries).map_err(|_| cut)?;
    if entries.len() != raw.entries.get() as usize {
        return Err(error(6, "the number of entries is not what the file holds"));
    }
    let read = |(number, raw)| {
        let position = size_of::<RawSnapshot>() + number * size_of::<RawEntry>();
        decode_entry(raw).ok_or(error(position, "the entry's numbers contradict each other"))
    };
    entries.iter().enumerate().map(read).collect()
}

fn decode_entry(raw: &RawEntry) -> Option<SnapshotEntry> {
    let offset = |raw: be::I64| u64::try_from(raw.get()).ok().map(Offset);
    let timestamp = raw.timestamp.get();
    let last = match raw.last_sequence.get() {
        -1 => None,
        last_sequence => {
            let last_offset_delta = u32::try_from(raw.offset_delta.get()).ok()?;
            let last_sequence = u32::try_from(last_sequence).ok()?;
            let first = last_sequence.wrapping_sub(last_offset_delta) & i32::MAX.cast_unsigned();
            let base = offset(raw.last_offset)?.0.checked_sub(u64::from(last_offset_delta))?;
            let batch = ProducerBatch {
                first_sequence: first.cast_signed(),
                base_offset: Offset(base),
                last_offset_delta,
                timestamp,
            };
            Some(batch).filter(ProducerBatch::is_valid).map(Some)?
        }
    };
    let (producer_id, epoch) = (raw.producer_id.get(), raw.epoch.get());
    if producer_id < 0 || epoch < 0 {
        return None;
    }
    Some(SnapshotEntry {
        producer: ProducerState {
            producer_id,
            epoch,
            batches: last.into_iter().collect(),
            last_timestamp: timestamp,
        },
        coordinator_epoch: raw.coordinator_epoch.get(),
        transaction_first_offset: offset(raw.transaction_first_offset),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first_sequence: i32, base: u64, last_offset_delta: u32) -> ProducerBatch {
        ProducerBatch { first_sequence, base_offset: Offset(base), last_offset_delta, timestamp: 1_000 }
    }

    fn state(batches: &[ProducerBatch]) -> ProducerState {
        ProducerState { producer_id: 77, epoch: 2, batches: batches.to_vec(), last_timestamp: 1_000 }
    }

    #[test]
    fn sequences_wrap_within_a_batch() {
        assert_eq!(batch(i32::MAX, 0, 0).last_sequence(), i32::MAX);
        assert_eq!(batch(i32::MAX, 0, 1).last_sequence(), 0);
        assert_eq!(batch(i32::MAX - 1, 0, 4).last_sequence(), 2);
    }

    #[test]
    fn only_the_last_batches_are_remembered() {
        let mut producer = state(&[]);
        for number in 0..7 {
            producer.remember(batch(number, 0, 0));
        }
        let first: Vec<_> = producer.batches.iter().map(|batch| batch.first_sequence).collect();
        assert_eq!(first, [2, 3, 4, 5, 6]);
    }

    #[test]
    fn producers_round_trip_one_after_the_other() {
        let states = [state(&[]), state(&[batch(0, 9, 3); 5]), state(&[batch(i32::MAX, 1 << 40, 7)])];
        let mut bytes = Vec::new();
        for state in &states {
            encode_producer(&mut bytes, state);
        }
        let mut rest = &bytes[..];
        for state in &states {
            assert_eq!(decode_producer(&mut rest).as_ref(), Some(state));
        }
        assert_eq!((rest.len(), decode_producer(&mut rest)), (0, None));
    }

    #[test]
    fn cut_and_impossible_producers_are_refused() {
        let mut bytes = Vec::new();
        encode_producer(&mut bytes, &state(&[batch(0, 9, 3)]));
        for len in 0..bytes.len() {
            assert_eq!(decode_producer(&mut &bytes[..len]), None, "{len} bytes");
        }
        for (at, value) in [(7, 0x80), (17, 0x80), (18, 6), (26, 0x80), (38, 0x80), (42, 0x80)] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert_eq!(decode_producer(&mut &damaged[..]), None, "byte {at}");
        }
    }

    fn sample_snapshot() -> Vec<SnapshotEntry> {
        vec![
            SnapshotEntry {
                producer: state(&[batch(10, 100, 4)]),
                coordinator_epoch: -1,
                transaction_first_offset: None,
            },
            SnapshotEntry {
                producer: state(&[batch(i32::MAX, 0, 2)]),
                coordinator_epoch: 3,
                transaction_first_offset: Some(Offset(0)),
            },
            SnapshotEntry { producer: state(&[]), coordinator_epoch: 0, transaction_first_offset: None },
        ]
    }

    #[test]
    fn kafkas_snapshot_round_trips() {
        let bytes = encode_snapshot(&sample_snapshot());
        assert_eq!(bytes[..2], [0, 1]);
        assert_eq!(bytes[6..10], [0, 0, 0, 3]);
        // The first entry's last sequence, last offset and delta, as Kafka's documentation of the fields has them.
        assert_eq!(bytes[20..36], [0, 0, 0, 14, 0, 0, 0, 0, 0, 0, 0, 104, 0, 0, 0, 4]);
        assert_eq!(decode_snapshot(&bytes), Ok(sample_snapshot()));
        assert_eq!(decode_snapshot(&encode_snapshot(&[])), Ok(vec![]));
    }

    #[test]
    fn a_snapshot_keeps_the_last_of_several_batches() {
        let mut entry = sample_snapshot().remove(0);
        entry.producer.batches.insert(0, batch(5, 95, 4));
        assert_eq!(decode_snapshot(&encode_snapshot(&[entry])).unwrap(), sample_snapshot()[..1]);
    }

    #[test]
    fn every_flipped_bit_of_a_snapshot_is_noticed() {
        let bytes = encode_snapshot(&sample_snapshot());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = decode_snapshot(&damaged).unwrap_err();
            assert_eq!(error.position, if bit < 16 { 0 } else { 2 }, "bit {bit}");
        }
    }

    #[test]
    fn cut_snapshots_and_impossible_entries_are_refused() {
        let resealed = |mut bytes: Vec<u8>| {
            let crc = crc32c(&bytes[6..]);
            bytes[2..6].copy_from_slice(&crc.to_be_bytes());
            decode_snapshot(&bytes).map_err(|error| (error.position, error.what))
        };
        let bytes = encode_snapshot(&sample_snapshot());
        assert_eq!(decode_snapshot(&bytes[..9]).unwrap_err().what, "the snapshot is cut short");
        let cut = bytes.len() - 1;
        assert_eq!(resealed(bytes[..cut].to_vec()), Err((cut as u64, "the snapshot is cut short")));
        let fewer = bytes.len() - 46;
        assert_eq!(
            resealed(bytes[..fewer].to_vec()),
            Err((6, "the number of entries is not what the file holds"))
        );
        // Of the second entry, at 56: producer id, epoch, last sequence, last offset, delta.
        for at in [56, 64, 66, 70, 78] {
            let mut damaged = bytes.clone();
            damaged[at] = 0x80;
            assert_eq!(
                resealed(damaged),
                Err((56, "the entry's numbers contradict each other")),
                "byte {at}"
            );
        }
    }
}
