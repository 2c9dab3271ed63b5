//! Record batches: as they come, with their length and checksum repaired, and built from the bytes.

use millstream_engine::checksum::crc32c;
use millstream_engine::format::batch::{
    self, BatchBuilder, BatchError, BatchHeader, HEADER_BYTES, check, check_produced, records, records_in,
    stamp, stamp_append_time,
};
use millstream_engine::time::WallMs;
use millstream_engine::types::{LeaderEpoch, Offset};

use crate::overwrite;

/// No bytes make a check panic; what passes a check survives being stamped; what is built is read back.
pub fn run(bytes: &[u8]) {
    inspect(bytes);
    let mut repaired = bytes.to_vec();
    overwrite(&mut repaired, 8, &(bytes.len().saturating_sub(12) as u32).to_be_bytes());
    overwrite(&mut repaired, 16, &[2]);
    let crc = crc32c(repaired.get(21..).unwrap_or_default());
    overwrite(&mut repaired, 17, &crc.to_be_bytes());
    inspect(&repaired);
    for record in records_in(bytes, u32::MAX).flatten() {
        assert!(record.offset_delta >= 0 && record.headers as usize <= bytes.len());
    }
    build(bytes);
}

fn inspect(bytes: &[u8]) {
    let parsed = BatchHeader::parse(bytes);
    let checked = check(bytes);
    let produced = check_produced(bytes);
    if let Err(BatchError::Truncated { needed }) = checked {
        assert!(needed > bytes.len(), "truncated, and nothing is missing");
    }
    if let Ok(header) = produced {
        assert_eq!(checked, Ok(header), "a client's batch that is not sound");
        assert_eq!(header.next_offset(), header.base_offset.plus(u64::from(header.records)));
    }
    let Ok(header) = checked else { return };
    assert_eq!(parsed, Ok(header));
    assert_eq!(header.size, bytes.len());
    assert!(header.size >= HEADER_BYTES);
    if let Ok(records) = records(bytes) {
        assert!(records.count() <= header.records as usize + 1, "records, and one error at most");
    }

    let mut stamped = bytes.to_vec();
    stamp(&mut stamped, Offset(12_345), LeaderEpoch(6));
    let place = |header: BatchHeader| (header.base_offset, header.leader_epoch, header.crc);
    assert_eq!(check(&stamped).map(place), Ok((Offset(12_345), LeaderEpoch(6), header.crc)));
    stamp_append_time(&mut stamped, WallMs(99));
    let time = |header: BatchHeader| (header.attributes.log_append_time(), header.max_timestamp);
    assert_eq!(check(&stamped).map(time), Ok((true, 99)));
}

/// Takes the bytes as records: the first of each says how long key and value are and whether they are there.
fn build(mut bytes: &[u8]) {
    let mut builder = BatchBuilder::new(1_000);
    let mut pushed = Vec::new();
    while let Some(shape) = bytes.split_off_first() {
        let key_len = usize::from(shape >> 4 & 7).min(bytes.len());
        let key = bytes.split_off(..key_len).filter(|_| shape & 0x80 == 0);
        let value_len = usize::from(shape & 7).min(bytes.len());
        let value = bytes.split_off(..value_len).filter(|_| shape & 8 == 0);
        let timestamp = i64::from(*shape) << (shape & 31);
        builder.push_at(timestamp, key, value);
        pushed.push((timestamp, key, value));
    }
    let batch = builder.build();
    let produced = check_produced(&batch);
    assert_eq!(produced.is_ok(), !pushed.is_empty());
    let read: Vec<_> = records(&batch)
        .expect("a built batch is not compressed")
        .map(|record| record.expect("a built record is sound"))
        .map(|batch::RecordView { timestamp_delta, key, value, .. }| (1_000 + timestamp_delta, key, value))
        .collect();
    assert_eq!(read, pushed);
}
