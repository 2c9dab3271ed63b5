//! A shard's checkpoint.

use millstream_engine::checksum::crc32c;
use millstream_engine::format::checkpoint::Checkpoint;

use crate::overwrite;

/// What is decoded encodes and decodes to the same, and every log in it is one that recovery can rely on.
pub fn run(bytes: &[u8]) {
    inspect(bytes);
    let mut repaired = bytes.to_vec();
    overwrite(&mut repaired, 0, b"MSC1");
    overwrite(&mut repaired, 8, &(bytes.len() as u64).to_le_bytes());
    let crc = crc32c(repaired.get(8..).unwrap_or_default());
    overwrite(&mut repaired, 4, &crc.to_le_bytes());
    inspect(&repaired);
}

fn inspect(bytes: &[u8]) {
    let checkpoint = match Checkpoint::decode(bytes) {
        Ok(checkpoint) => checkpoint,
        Err((position, _)) => return assert!(position <= bytes.len() as u64),
    };
    for log in &checkpoint.partitions {
        assert!(log.log_start <= log.next_offset);
        assert!(log.segments.is_sorted_by(|a, b| a.base < b.base));
        assert!(log.epochs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
        for segment in &log.segments {
            assert!(segment.flushed <= segment.size && (!segment.stored || segment.flushed == segment.size));
        }
    }
    assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
}
