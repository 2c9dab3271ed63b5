//! How structures read in a dump.

use std::fmt::Write as _;

use super::report::Report;
use crate::format::batch::{BatchHeader, HEADER_BYTES, records_in};
use crate::format::journal::{GroupHeader, RecordHeader, RecordKind};
use crate::format::message::queue_of;

/// Of a key or a value this many bytes are shown.
const SHOWN_BYTES: usize = 64;

/// A batch, where it starts in its file.
pub(super) fn batch(position: u64, header: &BatchHeader) -> String {
    let attributes = header.attributes;
    let codec = match attributes.codec() {
        0 => "",
        1 => ", gzip",
        2 => ", snappy",
        3 => ", lz4",
        4 => ", zstd",
        _ => ", unknown compression",
    };
    let mut line = format!(
        "@{position}: batch, offsets {}..={}, {} records, {} bytes, crc {:08x}, epoch {}, timestamps {}..={}{codec}",
        header.base_offset,
        header.last_offset(),
        header.records,
        header.size,
        header.crc,
        header.leader_epoch.0.cast_signed(),
        header.base_timestamp,
        header.max_timestamp,
    );
    if header.producer_id >= 0 {
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        let _ = write!(line, ", producer {id}/{epoch} from sequence {sequence}");
    }
    for (set, name) in [
        (attributes.log_append_time(), ", log-append time"),
        (attributes.transactional(), ", transactional"),
        (attributes.control(), ", control"),
    ] {
        line.push_str(if set { name } else { "" });
    }
    line
}

/// The records of a sound batch, a line each, if they are wanted and not compressed.
pub(super) fn records(report: &mut Report<'_>, header: &BatchHeader, batch: &[u8]) {
    if !report.wants_records() || header.attributes.codec() != 0 {
        return;
    }
    for record in records_in(batch.get(HEADER_BYTES..).unwrap_or_default(), header.records) {
        report.entry(|| match record {
            Err(error) => format!("    a record that cannot be read: {error}"),
            Ok(record) => format!(
                "    record {}, timestamp {}, key {}, value {}, {} headers",
                header.base_offset.0.saturating_add(u64::from(record.offset_delta.cast_unsigned())),
                header.base_timestamp.wrapping_add(record.timestamp_delta),
                bytes(record.key),
                bytes(record.value),
                record.headers,
            ),
        });
    }
}

fn bytes(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "none".to_owned() };
    match bytes.split_at_checked(SHOWN_BYTES) {
        Some((shown, rest)) if !rest.is_empty() => {
            format!("\"{}\"... ({} bytes)", shown.escape_ascii(), bytes.len())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// A journal group, where it starts in its file.
pub(super) fn group(position: u64, header: &GroupHeader) -> String {
    format!(
        "@{position}: group, records {}..={}, {} bytes ({} used), crc {:08x} after {:08x}, file epoch {}, durable {}",
        header.first_lsn.0,
        header.last_lsn().0,
        header.length,
        header.used,
        header.crc,
        header.previous_crc,
        header.file_epoch.0,
        header.durable_lsn.0,
    )
}

/// A journal record, where its payload starts in its file.
pub(super) fn record(position: u64, lsn: u64, header: &RecordHeader, owner: &str, payload: &[u8]) -> String {
    let RecordHeader { segment, position: at, aux, len, .. } = header;
    match header.kind {
        RecordKind::Batch => {
            let offsets = match BatchHeader::parse(payload) {
                Ok(batch) => format!("offsets {}..={}", batch.base_offset, batch.last_offset()),
                Err(error) => error.to_string(),
            };
            format!(
                "  @{position}: record {lsn}, batch of {owner}, {offsets}, {len} bytes for segment {segment} at {at}"
            )
        }
        RecordKind::Part => format!(
            "  @{position}: record {lsn}, part of a batch of {owner}, {len} bytes from {} of {}, for segment {segment} at {at}",
            aux & u64::from(u32::MAX),
            aux >> 32,
        ),
        RecordKind::Carry => format!(
            "  @{position}: record {lsn}, carried for {owner}, {len} bytes of segment {segment} at {at}, in a batch that starts at {aux}"
        ),
        RecordKind::LogStart => format!("  @{position}: record {lsn}, log start of {owner} moves to {aux}"),
        RecordKind::Message => {
            format!(
                "  @{position}: record {lsn}, message {segment} of queue {}, {len} bytes",
                queue_of(header)
            )
        }
        RecordKind::Piece => {
            format!(
                "  @{position}: record {lsn}, piece {segment} of the message that starts at record {aux}, {len} bytes"
            )
        }
        RecordKind::Settled
        | RecordKind::Failed
        | RecordKind::Leaving
        | RecordKind::Mark
        | RecordKind::Forgotten => {
            format!(
                "  @{position}: record {lsn}, {:?} of queue {}, {len} bytes",
                header.kind,
                queue_of(header)
            )
        }
    }
}
