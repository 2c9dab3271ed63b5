//! The checksum file of a sealed segment.

use millstream_engine::checksum::crc32c;
use millstream_engine::format::sum::{SUMMED, Sum, SumBuilder, Summed};
use millstream_engine::limits::SUM_BLOCK_BYTES;
use millstream_engine::types::{Offset, PartitionId, TopicId};

use crate::overwrite;

const PARTITION: PartitionId = PartitionId { topic: TopicId([7; 16]), index: 3 };
const BASE: Offset = Offset(500);

/// What is decoded encodes to the same bytes. What was summed verifies, however it was fed, and not with a bit changed.
pub fn run(bytes: &[u8]) {
    inspect(bytes);
    let mut repaired = bytes.to_vec();
    overwrite(&mut repaired, 0, b"MSSM");
    overwrite(&mut repaired, 8, &PARTITION.topic.0);
    overwrite(&mut repaired, 24, &PARTITION.index.to_le_bytes());
    overwrite(&mut repaired, 32, &BASE.0.to_le_bytes());
    let crc = crc32c(repaired.get(8..).unwrap_or_default());
    overwrite(&mut repaired, 4, &crc.to_le_bytes());
    inspect(&repaired);
    build(bytes);
}

fn inspect(bytes: &[u8]) {
    match Sum::decode(bytes, PARTITION, BASE) {
        Ok(sum) => {
            assert_eq!(sum.encode(), bytes);
            for file in SUMMED {
                let blocks = (sum.len(file) as usize).div_ceil(SUM_BLOCK_BYTES) as u32;
                assert!(!sum.verify_block(file, blocks, &[]), "there is no such block");
            }
        }
        Err(damage) => assert!(damage.position <= bytes.len() as u64),
    }
}

/// Takes two bytes for where to split what is fed, and the rest, repeated past a block's end, as the file.
fn build(bytes: &[u8]) {
    let Some((split, content)) = bytes.split_first_chunk().filter(|(_, content)| !content.is_empty()) else {
        return;
    };
    let mut log = content.repeat(SUM_BLOCK_BYTES / content.len() + 1);
    let split = usize::from(u16::from_le_bytes(*split)) % log.len();
    let mut builder = SumBuilder::new(PARTITION, BASE);
    builder.feed(Summed::Log, &log[..split]);
    builder.feed(Summed::Log, &log[split..]);
    let sum = builder.finish();
    assert_eq!(Sum::decode(&sum.encode(), PARTITION, BASE).as_ref(), Ok(&sum));
    let sound = |log: &[u8]| {
        let mut blocks = log.chunks(SUM_BLOCK_BYTES).zip(0..);
        blocks.all(|(block, number)| sum.verify_block(Summed::Log, number, block))
    };
    assert!(sound(&log));
    log[split] ^= 1;
    assert!(!sound(&log));
}
