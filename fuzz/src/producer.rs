//! What is stored of producers.

use millstream_engine::checksum::crc32c;
use millstream_engine::format::producer::{
    decode_producer, decode_snapshot, encode_producer, encode_snapshot,
};

use crate::overwrite;

/// Our form decodes to what encodes to the same bytes; Kafka's to what encodes and decodes to the same.
pub fn run(bytes: &[u8]) {
    let mut rest = bytes;
    if let Some(state) = decode_producer(&mut rest) {
        let mut encoded = Vec::new();
        encode_producer(&mut encoded, &state);
        assert_eq!([&encoded[..], rest].concat(), bytes);
        for batch in &state.batches {
            assert!(batch.last_sequence() >= 0);
            assert!(batch.last_offset().0 < i64::MAX as u64);
        }
    }
    inspect_snapshot(bytes);
    let mut repaired = bytes.to_vec();
    overwrite(&mut repaired, 0, &[0, 1]);
    overwrite(&mut repaired, 6, &((bytes.len().saturating_sub(10) / 46) as u32).to_be_bytes());
    let crc = crc32c(repaired.get(6..).unwrap_or_default());
    overwrite(&mut repaired, 2, &crc.to_be_bytes());
    inspect_snapshot(&repaired);
}

fn inspect_snapshot(bytes: &[u8]) {
    match decode_snapshot(bytes) {
        Ok(entries) => assert_eq!(decode_snapshot(&encode_snapshot(&entries)), Ok(entries)),
        Err(damage) => assert!(damage.position <= bytes.len() as u64),
    }
}
