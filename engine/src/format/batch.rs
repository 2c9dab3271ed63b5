//! Kafka's record batch, version 2: the form in which records arrive, are stored and are sent.
//!
//! All integers are big-endian. The header:
//!
//! | offset | bytes | field | under the CRC |
//! |---|---|---|---|
//! | 0 | 8 | base offset: the first record's | no |
//! | 8 | 4 | bytes after this field | no |
//! | 12 | 4 | leader epoch of the partition; -1 in what clients send | no |
//! | 16 | 1 | magic: 2 | no |
//! | 17 | 4 | CRC32C of bytes 21 to the end | no |
//! | 21 | 2 | attributes: bits 0-2 codec, 3 log-append time, 4 transactional, 5 control, 6 delete horizon | yes |
//! | 23 | 4 | last offset delta: the last record's offset less the base offset | yes |
//! | 27 | 8 | base timestamp in ms; the delete horizon if attribute bit 6 is set | yes |
//! | 35 | 8 | largest timestamp in ms | yes |
//! | 43 | 8 | producer id; -1 is none | yes |
//! | 51 | 2 | producer epoch | yes |
//! | 53 | 4 | base sequence: the first record's | yes |
//! | 57 | 4 | records | yes |
//! | 61 | | the records, as one compressed block if there is a codec: [`super::record`] | yes |
//!
//! The broker may therefore set the offset and the leader epoch without touching the checksum, because the records
//! hold deltas. Source: Kafka's documentation, "Record Batch".

use std::fmt;
use std::mem::{offset_of, size_of};

use zerocopy::byteorder::big_endian::{I16, I32, I64, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::producer::sequence_plus;
use super::record::write_record;
pub use super::record::{RecordView, Records, records_in};
use crate::checksum::crc32c;
use crate::limits::BATCH_BYTES_MAX;
use crate::time::WallMs;
use crate::types::{LeaderEpoch, Offset};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes of the base offset and of the length field, which the length does not count.
const LENGTH_PREFIX_BYTES: usize = 12;
/// The first byte that the CRC covers.
const CRC_FROM: usize = 21;
const MAGIC: u8 = 2;
const CODEC_MAX: u8 = 4;

/// The header as it lies in memory.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    base_offset: I64,
    length: I32,
    leader_epoch: U32,
    magic: u8,
    crc: U32,
    attributes: U16,
    last_offset_delta: I32,
    base_timestamp: I64,
    max_timestamp: I64,
    producer_id: I64,
    producer_epoch: I16,
    base_sequence: I32,
    records: I32,
}

const _: () = assert!(size_of::<Raw>() == HEADER_BYTES);
const _: () = assert!(offset_of!(Raw, leader_epoch) == LENGTH_PREFIX_BYTES);
const _: () = assert!(offset_of!(Raw, attributes) == CRC_FROM);
const _: () = assert!(BATCH_BYTES_MAX <= i32::MAX as usize, "a batch's length field is 32 bits");

/// What the header of a batch says. The fields whose ranges are given have been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// The offset of the first record.
    pub base_offset: Offset,
    /// The whole batch, header included, in bytes: from [`HEADER_BYTES`] to [`BATCH_BYTES_MAX`].
    pub size: usize,
    /// The partition's leader epoch when the batch was stored; `u32::MAX` in what clients send.
    pub leader_epoch: LeaderEpoch,
    /// The CRC32C of everything from byte 21, as recorded.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// The last record's offset less the first's. At most `i32::MAX`.
    pub last_offset_delta: u32,
    /// Records hold their timestamps as a difference to this, in ms.
    pub base_timestamp: i64,
    /// The largest timestamp, in ms; -1 if there is none.
    pub max_timestamp: i64,
    /// The idempotent producer that sent it; -1 if there is none.
    pub producer_id: i64,
    /// That producer's epoch; -1 if there is none.
    pub producer_epoch: i16,
    /// The sequence of the first record; -1 if there is none.
    pub base_sequence: i32,
    /// How many records there are: fewer than the offsets it spans after compaction, and then possibly none.
    pub records: u32,
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attributes(pub u16);

impl Attributes {
    /// Timestamps were given by the broker.
    pub const LOG_APPEND_TIME: u16 = 1 << 3;
    /// The batch belongs to a transaction.
    pub const TRANSACTIONAL: u16 = 1 << 4;
    /// The batch is a marker, no data.
    pub const CONTROL: u16 = 1 << 5;
    const CODEC: u16 = 0b111;

    /// The compression: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd; 5 to 7 are not assigned.
    pub fn codec(self) -> u8 {
        (self.0 & Attributes::CODEC) as u8
    }

    /// Whether timestamps were given by the broker.
    pub fn log_append_time(self) -> bool {
        self.0 & Attributes::LOG_APPEND_TIME != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn transactional(self) -> bool {
        self.0 & Attributes::TRANSACTIONAL != 0
    }

    /// Whether the batch is a transaction's marker.
    pub fn control(self) -> bool {
        self.0 & Attributes::CONTROL != 0
    }
}

/// What is wrong with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchError {
    /// The bytes end before the batch does.
    Truncated {
        /// Bytes, from the batch's first, that are needed to look further.
        needed: usize,
    },
    /// It is no record batch; says why.
    CorruptStructure(&'static str),
    /// The checksum does not match the bytes.
    BadCrc,
    /// A sound batch, of a kind that is not allowed here; says why.
    InvalidRecord(&'static str),
}

impl BatchError {
    /// What is wrong, for a log line or a client.
    pub fn what(&self) -> &'static str {
        match self {
            BatchError::Truncated { .. } => "the batch is cut short",
            BatchError::CorruptStructure(what) | BatchError::InvalidRecord(what) => what,
            BatchError::BadCrc => "the checksum does not match",
        }
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what())
    }
}

impl std::error::Error for BatchError {}

impl BatchHeader {
    /// Reads the header from a batch's first [`HEADER_BYTES`]; what follows them is not looked at. Checks structure:
    /// magic, the length's range, and that offsets and counts are neither negative nor contradictory.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let (raw, _) =
            Raw::ref_from_prefix(bytes).map_err(|_| BatchError::Truncated { needed: HEADER_BYTES })?;
        let corrupt = BatchError::CorruptStructure;
        if raw.magic != MAGIC {
            return Err(corrupt("the magic byte is not 2"));
        }
        let length = usize::try_from(raw.length.get()).map_err(|_| corrupt("the length is negative"))?;
        let size = length + LENGTH_PREFIX_BYTES;
        if size < HEADER_BYTES {
            return Err(corrupt("the length is less than a header's"));
        }
        if size > BATCH_BYTES_MAX {
            return Err(corrupt("the length is past every limit"));
        }
        let base = u64::try_from(raw.base_offset.get()).map_err(|_| corrupt("the offset is negative"))?;
        let last_offset_delta = u32::try_from(raw.last_offset_delta.get())
            .map_err(|_| corrupt("the last offset delta is negative"))?;
        // One past the last offset must be an offset too: it is the next batch's.
        if base + u64::from(last_offset_delta) >= i64::MAX as u64 {
            return Err(corrupt("the offset is past every limit"));
        }
        let records =
            u32::try_from(raw.records.get()).map_err(|_| corrupt("the record count is negative"))?;
        if u64::from(records) > u64::from(last_offset_delta) + 1 {
            return Err(corrupt("there are more records than offsets"));
        }
        Ok(BatchHeader {
            base_offset: Offset(base),
            size,
            leader_epoch: LeaderEpoch(raw.leader_epoch.get()),
            crc: raw.crc.get(),
            attributes: Attributes(raw.attributes.get()),
            last_offset_delta,
            base_timestamp: raw.base_timestamp.get(),
            max_timestamp: raw.max_timestamp.get(),
            producer_id: raw.producer_id.get(),
            producer_epoch: raw.producer_epoch.get(),
            base_sequence: raw.base_sequence.get(),
            records,
        })
    }

    /// The offset of the last record, or of the last one that was there before compaction.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.last_offset_delta))
    }

    /// The offset that follows the batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// The sequence of the last record, which wraps from `i32::MAX` to 0. Means something only if there is a producer.
    pub fn last_sequence(&self) -> i32 {
        sequence_plus(self.base_sequence, self.last_offset_delta)
    }
}

/// The magic byte of a batch, which stands in the same place in every version of the format; `None` if it is cut off before.
pub fn magic(bytes: &[u8]) -> Option<u8> {
    bytes.get(std::mem::offset_of!(Raw, magic)).copied()
}

/// Checks a stored batch: the header parses, `bytes` is exactly the batch, and the CRC matches.
pub fn check(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    if bytes.len() < header.size {
        return Err(BatchError::Truncated { needed: header.size });
    }
    if bytes.len() > header.size {
        return Err(BatchError::CorruptStructure("bytes follow the batch"));
    }
    let covered = bytes.get(CRC_FROM..).expect("a parsed header lies before this");
    if crc32c(covered) != header.crc {
        return Err(BatchError::BadCrc);
    }
    Ok(header)
}

/// Checks a batch that a client sends: as [`check`], and what a Kafka broker demands of a header before it appends:
/// one batch at offset 0, as many records as offsets and at least one, flags that are a client's to set, and a producer
/// with its epoch and sequence or without any. The records are not looked into.
pub fn check_produced(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let invalid = BatchError::InvalidRecord;
    if BatchHeader::parse(bytes)?.size < bytes.len() {
        return Err(invalid("more than one batch for one partition"));
    }
    let header = check(bytes)?;
    if header.records == 0 {
        return Err(invalid("the batch is empty"));
    }
    if header.records - 1 != header.last_offset_delta {
        return Err(invalid("the record count does not fit the offsets"));
    }
    if header.base_offset != Offset(0) {
        return Err(invalid("a client's batch starts at offset 0"));
    }
    let attributes = header.attributes;
    if attributes.codec() > CODEC_MAX {
        return Err(invalid("the compression is unknown"));
    }
    if attributes.control() {
        return Err(invalid("clients may not write control batches"));
    }
    if attributes.log_append_time() {
        return Err(invalid("clients may not claim the broker's timestamp"));
    }
    if header.producer_id >= 0 {
        if header.base_sequence < 0 {
            return Err(invalid("a producer's batch has no sequence"));
        }
        if header.producer_epoch < 0 {
            return Err(invalid("a producer's batch has no epoch"));
        }
    } else if attributes.transactional() {
        return Err(invalid("a transactional batch has no producer"));
    }
    Ok(header)
}

/// Gives a checked batch its place. Both fields lie before what the CRC covers.
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    let raw = raw_mut(batch);
    raw.base_offset.set(base_offset.0.cast_signed());
    raw.leader_epoch.set(leader_epoch.0);
}

/// Marks a checked, whole batch as stamped by the broker at `now`, and computes its CRC anew. Every record then has that
/// timestamp for its readers, whatever its own delta says.
pub fn stamp_append_time(batch: &mut [u8], now: WallMs) {
    let raw = raw_mut(batch);
    raw.attributes.set(raw.attributes.get() | Attributes::LOG_APPEND_TIME);
    raw.max_timestamp.set(now.0);
    reseal(batch);
}

/// Iterates over the records of an *uncompressed* batch; a compressed one is [`BatchError::InvalidRecord`]. The CRC is not
/// checked. For a compressed batch, decompress what follows the header and use [`records_in`].
pub fn records(batch: &[u8]) -> Result<Records<'_>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.attributes.codec() != 0 {
        return Err(BatchError::InvalidRecord("the batch is compressed"));
    }
    let bytes = batch.get(HEADER_BYTES..header.size).ok_or(BatchError::Truncated { needed: header.size })?;
    Ok(records_in(bytes, header.records))
}

fn raw_mut(batch: &mut [u8]) -> &mut Raw {
    Raw::mut_from_prefix(batch).expect("a checked batch has a header").0
}

/// Sets the CRC to that of the bytes.
fn reseal(batch: &mut [u8]) {
    let crc = crc32c(batch.get(CRC_FROM..).expect("a checked batch has a header"));
    raw_mut(batch).crc.set(crc);
}

/// Builds an uncompressed batch as a client would: offset 0, no leader epoch.
///
/// ```
/// use millstream_engine::format::batch::{BatchBuilder, check_produced};
/// let batch = BatchBuilder::new(1_000).push(None, Some(b"a")).push(Some(b"key"), Some(b"b")).build();
/// assert_eq!(check_produced(&batch).map(|header| header.records), Ok(2));
/// ```
pub struct BatchBuilder {
    base_timestamp: i64,
    max_timestamp: i64,
    attributes: u16,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    count: u32,
    records: Vec<u8>,
}

impl BatchBuilder {
    /// A batch without records; they get `base_timestamp`, in ms, unless they bring their own.
    pub fn new(base_timestamp: i64) -> BatchBuilder {
        BatchBuilder {
            base_timestamp,
            max_timestamp: base_timestamp,
            attributes: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: 0,
            records: Vec::new(),
        }
    }

    /// Names the idempotent producer, and the first record's sequence.
    pub fn producer(&mut self, id: i64, epoch: i16, base_sequence: i32) -> &mut BatchBuilder {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Sets attribute bits. They are not acted on: a codec does not compress.
    pub fn attributes(&mut self, bits: u16) -> &mut BatchBuilder {
        self.attributes |= bits;
        self
    }

    /// Adds a record at the base timestamp.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> &mut BatchBuilder {
        self.push_at(self.base_timestamp, key, value)
    }

    /// Adds a record with a timestamp of its own, in ms.
    pub fn push_at(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> &mut BatchBuilder {
        self.push_with_headers(timestamp, key, value, &[])
    }

    /// Adds a record with headers.
    pub fn push_with_headers(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> &mut BatchBuilder {
        let offset_delta = i32::try_from(self.count).expect("a batch has at most i32::MAX records");
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        write_record(&mut self.records, offset_delta, timestamp_delta, key, value, headers);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        self
    }

    /// Bytes that the batch has so far.
    pub fn size(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The batch. May be called again after more has been pushed.
    pub fn build(&self) -> Vec<u8> {
        let size = self.size();
        assert!(size <= BATCH_BYTES_MAX, "a batch has a largest size");
        let raw = Raw {
            base_offset: I64::new(0),
            length: I32::new((size - LENGTH_PREFIX_BYTES) as i32),
            leader_epoch: U32::new(u32::MAX),
            magic: MAGIC,
            crc: U32::new(0),
            attributes: U16::new(self.attributes),
            last_offset_delta: I32::new(self.count.saturating_sub(1) as i32),
            base_timestamp: I64::new(self.base_timestamp),
            max_timestamp: I64::new(self.max_timestamp),
            producer_id: I64::new(self.producer_id),
            producer_epoch: I16::new(self.producer_epoch),
            base_sequence: I32::new(self.base_sequence),
            records: I32::new(self.count as i32),
        };
        let mut batch = Vec::with_capacity(size);
        batch.extend_from_slice(raw.as_bytes());
        batch.extend_from_slice(&self.records);
        reseal(&mut batch);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        BatchBuilder::new(1_000)
            .producer(7, 3, i32::MAX - 1)
            .push(Some(b"k"), Some(b"first"))
            .push_at(1_500, None, Some(b"second"))
            .push_at(900, None, None)
            .build()
    }

    /// The sample with one change made to it, and the CRC made to match again.
    fn changed(change: impl Fn(&mut Raw)) -> Vec<u8> {
        let mut batch = sample();
        change(raw_mut(&mut batch));
        reseal(&mut batch);
        batch
    }

    #[test]
    fn a_built_batch_passes_and_says_what_was_put_in() {
        let batch = sample();
        let header = check_produced(&batch).unwrap();
        assert_eq!(
            header,
            BatchHeader {
                base_offset: Offset(0),
                size: batch.len(),
                leader_epoch: LeaderEpoch(u32::MAX),
                crc: header.crc,
                attributes: Attributes(0),
                last_offset_delta: 2,
                base_timestamp: 1_000,
                max_timestamp: 1_500,
                producer_id: 7,
                producer_epoch: 3,
                base_sequence: i32::MAX - 1,
                records: 3,
            }
        );
        assert_eq!(header.next_offset(), Offset(3));
        assert_eq!(header.last_sequence(), 0, "MAX - 1, MAX, 0");
    }

    #[test]
    fn stamping_a_place_leaves_the_crc_valid() {
        let mut batch = sample();
        stamp(&mut batch, Offset(41), LeaderEpoch(5));
        let header = check(&batch).unwrap();
        assert_eq!((header.base_offset, header.leader_epoch), (Offset(41), LeaderEpoch(5)));
        assert_eq!(header.next_offset(), Offset(44));
    }

    #[test]
    fn stamping_the_append_time_makes_a_new_valid_crc() {
        let mut batch = sample();
        let before = check(&batch).unwrap();
        stamp_append_time(&mut batch, WallMs(9_999));
        let header = check(&batch).unwrap();
        assert!(header.attributes.log_append_time());
        assert_eq!((header.max_timestamp, header.base_timestamp), (9_999, 1_000));
        assert_ne!(header.crc, before.crc);
    }

    #[test]
    fn a_batch_cut_anywhere_says_how_much_is_needed() {
        let batch = sample();
        for len in 0..batch.len() {
            let needed = if len < HEADER_BYTES { HEADER_BYTES } else { batch.len() };
            assert_eq!(check(&batch[..len]), Err(BatchError::Truncated { needed }), "{len} bytes");
            assert_eq!(check_produced(&batch[..len]), Err(BatchError::Truncated { needed }), "{len} bytes");
        }
    }

    #[test]
    fn every_flipped_bit_under_the_crc_is_noticed() {
        let batch = sample();
        for bit in 0..batch.len() * 8 {
            let mut damaged = batch.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let expected_sound = bit / 8 < 8 || (12..16).contains(&(bit / 8));
            // The offset and the leader epoch are nobody's but the broker's, and a negative offset is never right.
            let sound = check(&damaged).is_ok();
            assert_eq!(sound, expected_sound && bit != 7, "bit {bit}");
        }
    }

    #[test]
    fn headers_that_no_batch_has_are_corrupt() {
        let corrupt = |change: &dyn Fn(&mut Raw)| match check(&changed(change)) {
            Err(BatchError::CorruptStructure(what)) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(corrupt(&|raw| raw.magic = 1), "the magic byte is not 2");
        assert_eq!(corrupt(&|raw| raw.length.set(-1)), "the length is negative");
        assert_eq!(corrupt(&|raw| raw.length.set(48)), "the length is less than a header's");
        assert_eq!(corrupt(&|raw| raw.length.set(i32::MAX)), "the length is past every limit");
        assert_eq!(corrupt(&|raw| raw.length.set(60)), "bytes follow the batch");
        assert_eq!(corrupt(&|raw| raw.base_offset.set(-1)), "the offset is negative");
        assert_eq!(corrupt(&|raw| raw.base_offset.set(i64::MAX - 2)), "the offset is past every limit");
        assert_eq!(corrupt(&|raw| raw.last_offset_delta.set(-1)), "the last offset delta is negative");
        assert_eq!(corrupt(&|raw| raw.records.set(-1)), "the record count is negative");
        assert_eq!(corrupt(&|raw| raw.records.set(4)), "there are more records than offsets");
    }

    #[test]
    fn compaction_may_leave_gaps_that_a_client_may_not() {
        let gap = changed(|raw| raw.last_offset_delta.set(9));
        assert_eq!(check(&gap).map(|header| header.next_offset()), Ok(Offset(10)));
        let empty = BatchBuilder::new(0).build();
        assert_eq!(check(&empty).map(|header| header.records), Ok(0));

        let invalid = |batch: &[u8]| match check_produced(batch) {
            Err(BatchError::InvalidRecord(what)) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(invalid(&gap), "the record count does not fit the offsets");
        assert_eq!(invalid(&empty), "the batch is empty");
    }

    #[test]
    fn sound_batches_that_are_not_a_clients_to_send_are_refused() {
        let invalid = |change: &dyn Fn(&mut Raw)| {
            let batch = changed(change);
            assert!(check(&batch).is_ok(), "sound at rest");
            match check_produced(&batch) {
                Err(BatchError::InvalidRecord(what)) => what,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(invalid(&|raw| raw.base_offset.set(1)), "a client's batch starts at offset 0");
        assert_eq!(invalid(&|raw| raw.attributes.set(5)), "the compression is unknown");
        assert_eq!(
            invalid(&|raw| raw.attributes.set(Attributes::CONTROL)),
            "clients may not write control batches"
        );
        assert_eq!(
            invalid(&|raw| raw.attributes.set(Attributes::LOG_APPEND_TIME)),
            "clients may not claim the broker's timestamp"
        );
        assert_eq!(invalid(&|raw| raw.base_sequence.set(-1)), "a producer's batch has no sequence");
        assert_eq!(invalid(&|raw| raw.producer_epoch.set(-1)), "a producer's batch has no epoch");
        let nobodys = |raw: &mut Raw| {
            raw.producer_id.set(-1);
            raw.attributes.set(Attributes::TRANSACTIONAL);
        };
        assert_eq!(invalid(&nobodys), "a transactional batch has no producer");

        let two = [sample(), sample()].concat();
        assert_eq!(
            check_produced(&two),
            Err(BatchError::InvalidRecord("more than one batch for one partition"))
        );
    }

    #[test]
    fn records_are_read_back_from_a_batch() {
        let batch = sample();
        let values: Vec<_> = records(&batch).unwrap().map(|record| record.unwrap().value).collect();
        assert_eq!(values, [Some(&b"first"[..]), Some(b"second"), None]);
        let compressed = changed(|raw| raw.attributes.set(4));
        assert_eq!(records(&compressed).err(), Some(BatchError::InvalidRecord("the batch is compressed")));
        let cut = &batch[..batch.len() - 1];
        assert_eq!(records(cut).err(), Some(BatchError::Truncated { needed: batch.len() }));
    }
}
