//! Finds a record by its time within a batch, decompressing it if need be.

use std::borrow::Cow;
use std::io::{self, Read};

use millstream_engine::buffer::Slice;
use millstream_engine::format::batch::{BatchHeader, HEADER_BYTES, records_in};

use crate::limits::DECOMPRESSED_BYTES_MAX;

/// Java's framing of snappy: a magic, two versions, then blocks behind their lengths.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
/// Snappy's densest element makes 64 bytes of three, so a block that claims to hold more than this many times its own
/// size lies, and no memory is taken for it.
const SNAPPY_RATIO_MAX: usize = 32;

/// A record's place in its partition and in time, as the wire has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in ms.
    pub timestamp: i64,
}

/// A search within one batch.
#[derive(Debug)]
pub struct Search {
    /// The batch, whole.
    pub batch: Slice,
    /// The first record at least this late; `None` means the latest, the first of them if there are several.
    pub at_least: Option<i64>,
}

impl Search {
    /// Whether it takes a decompression.
    pub fn is_compressed(&self) -> bool {
        BatchHeader::parse(&self.batch).is_ok_and(|header| header.attributes.codec() != 0)
    }

    /// Searches. Where no record answers (the batch's header promised one, but its records are the client's own, and
    /// nobody has looked into them), it is the batch's first offset: who reads from there misses nothing.
    pub fn run(&self) -> Hit {
        let Ok(header) = BatchHeader::parse(&self.batch) else {
            return Hit { offset: -1, timestamp: -1 };
        };
        let first = Hit { offset: header.base_offset.0 as i64, timestamp: header.max_timestamp };
        if header.attributes.log_append_time() {
            return first;
        }
        let wanted = self.at_least.unwrap_or(header.max_timestamp);
        let stored = self.batch.get(HEADER_BYTES..).unwrap_or_default();
        match decompress(header.attributes.codec(), stored) {
            Ok(records) => find(&header, &records, wanted).unwrap_or(first),
            Err(error) => {
                tracing::debug!(offset = first.offset, "a batch could not be searched by time: {error}");
                first
            }
        }
    }
}

fn find(header: &BatchHeader, records: &[u8], wanted: i64) -> Option<Hit> {
    records_in(records, header.records).map_while(Result::ok).find_map(|record| {
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        let offset = header.base_offset.0 as i64 + i64::from(record.offset_delta);
        (timestamp >= wanted).then_some(Hit { offset, timestamp })
    })
}

/// A batch's records, decompressed; bounded, whatever the client has packed.
fn decompress(codec: u8, stored: &[u8]) -> io::Result<Cow<'_, [u8]>> {
    let records = match codec {
        0 => return Ok(Cow::Borrowed(stored)),
        1 => read_bounded(flate2::read::MultiGzDecoder::new(stored)),
        2 => unsnap(stored),
        3 => read_bounded(lz4_flex::frame::FrameDecoder::new(stored)),
        4 => read_bounded(zstd::stream::read::Decoder::new(stored)?),
        _ => Err(io::Error::other("the codec is unknown")),
    };
    records.map(Cow::Owned)
}

fn read_bounded(decoder: impl Read) -> io::Result<Vec<u8>> {
    let mut records = Vec::new();
    decoder.take(DECOMPRESSED_BYTES_MAX as u64 + 1).read_to_end(&mut records)?;
    if records.len() > DECOMPRESSED_BYTES_MAX { Err(too_large()) } else { Ok(records) }
}

/// Snappy, in one raw block or in Java's framing.
fn unsnap(stored: &[u8]) -> io::Result<Vec<u8>> {
    let mut records = Vec::new();
    if !stored.starts_with(XERIAL_MAGIC) {
        unsnap_block(stored, &mut records)?;
        return Ok(records);
    }
    let mut blocks = stored.get(XERIAL_HEADER_BYTES..).unwrap_or_default();
    while let Some((length, rest)) = blocks.split_first_chunk() {
        let block =
            usize::try_from(i32::from_be_bytes(*length)).ok().and_then(|len| rest.split_at_checked(len));
        let (block, rest) = block.ok_or(io::Error::other("a block's length is wrong"))?;
        unsnap_block(block, &mut records)?;
        blocks = rest;
    }
    Ok(records)
}

/// Appends a raw snappy block's content.
fn unsnap_block(block: &[u8], records: &mut Vec<u8>) -> io::Result<()> {
    let start = records.len();
    let len = snap::raw::decompress_len(block)?;
    let end = start + len;
    if end > DECOMPRESSED_BYTES_MAX || len > block.len() * SNAPPY_RATIO_MAX {
        return Err(too_large());
    }
    records.resize(end, 0);
    let into = records.get_mut(start..).expect("it has just been made that long");
    snap::raw::Decoder::new().decompress(block, into)?;
    Ok(())
}

fn too_large() -> io::Error {
    io::Error::other("the records are too large to be searched")
}
