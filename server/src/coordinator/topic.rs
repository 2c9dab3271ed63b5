//! The topic that groups are kept in.

use millstream_engine::limits::BATCH_BYTES_MAX;
use millstream_engine::shard::metadata::{Metadata, Topic};
use millstream_engine::types::{PartitionId, ShardId};

/// Its name, which is Kafka's.
pub const NAME: &str = "__consumer_offsets";

/// Segments are small: what a snapshot has replaced is given back to the disk a segment at a time.
const SEGMENT_BYTES: u32 = 4 << 20;

/// Its settings: what is not Kafka's default for it. Nothing in it is too old to be kept, and nothing counts before it is
/// durable. A snapshot does what compaction would: see [`super::writer`].
pub fn settings() -> Vec<(String, String)> {
    let settings = [
        ("cleanup.policy", "compact".to_owned()),
        ("segment.bytes", SEGMENT_BYTES.to_string()),
        ("retention.ms", "-1".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("max.message.bytes", BATCH_BYTES_MAX.to_string()),
        ("message.timestamp.type", "CreateTime".to_owned()),
        ("millstream.durability.min", "durable".to_owned()),
    ];
    settings.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Which of `partitions` a group belongs to. It is Kafka's own choice, Java's hash of the name, so that a directory which
/// comes from Kafka is understood; it may never change, or groups would be looked for in the wrong place.
pub fn partition_of(group: &str, partitions: u32) -> u32 {
    let hash =
        group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // As Java's absolute value, which leaves the least number as it is: that becomes zero.
    hash.checked_abs().unwrap_or(0) as u32 % partitions.max(1)
}

/// The topic, if it has been made.
pub fn find(metadata: &Metadata) -> Option<&Topic> {
    metadata.topic(NAME).map(|topic| &**topic)
}

/// Where a group lives: the partition, and the shard that serves it.
pub fn home(metadata: &Metadata, group: &str) -> Option<(PartitionId, ShardId)> {
    let topic = find(metadata)?;
    let partition = PartitionId { topic: topic.id, index: partition_of(group, topic.slots.len() as u32) };
    Some((partition, metadata.shard_of(partition)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_belongs_where_kafka_puts_it() {
        // `Math.abs("...".hashCode()) % 50`.
        for (group, partition) in [("", 0), ("a", 47), ("ab", 5), ("console-consumer", 40), ("grüße", 23)] {
            assert_eq!(partition_of(group, 50), partition, "{group}");
        }
        // The hash of this is the least of all numbers.
        assert_eq!(partition_of("polygenelubricants", 50), 0);
    }
}
