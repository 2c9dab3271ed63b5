//! `DescribeLogDirs`: how large the partitions are, and the disk that they are on. There is one directory, which is the data
//! directory.

use std::collections::BTreeMap;

use millstream_engine::io::Space;
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::Reply;
use millstream_engine::types::{PartitionId, TopicId};

use super::super::codec::{Malformed, Reader};
use super::super::topics::Topics;
use super::super::{Context, Done, ErrorCode, code, find_partition};
use super::Admin;

/// The first version with an error of the whole request.
const ERROR_FROM: i16 = 3;
/// The first version that tells of the space of the disk (KIP-827).
const SPACE_FROM: i16 = 4;
/// It has not been asked for yet.
const UNKNOWN: i64 = -1;

/// A request for sizes.
#[derive(Debug)]
pub struct DescribeLogDirs {
    /// `None` means all partitions.
    wanted: Option<Topics<i32>>,
    /// Bytes per partition, as far as they are known.
    bytes: BTreeMap<TopicId, BTreeMap<u32, u64>>,
    space: Option<Space>,
    error: ErrorCode,
    /// Shards that have not answered, each as often as it was asked.
    waiting: usize,
}

impl DescribeLogDirs {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, _version: i16) -> Result<DescribeLogDirs, Malformed> {
        let wanted = match reader.nullable_count(2)? {
            None => None,
            Some(count) => {
                let mut topics = Topics::new();
                for _ in 0..count {
                    topics.push_topic(reader.string()?)?;
                    for _ in 0..reader.count(4)? {
                        topics.push_partition(reader.i32()?)?;
                    }
                    reader.tags()?;
                }
                Some(topics)
            }
        };
        reader.tags()?;
        let (bytes, error) = (BTreeMap::new(), ErrorCode::None);
        Ok(DescribeLogDirs { wanted, bytes, space: None, error, waiting: 0 })
    }

    /// The partitions asked for that are there.
    fn partitions(&self, metadata: &Metadata) -> Vec<PartitionId> {
        let Some(wanted) = &self.wanted else {
            let all = metadata.by_id.values().flat_map(|topic| {
                (0..topic.slots.len() as u32).map(|index| PartitionId { topic: topic.id, index })
            });
            return all.collect();
        };
        let named = wanted.iter().flat_map(|(topic, indexes)| {
            indexes.iter().filter_map(move |index| find_partition(metadata, topic, *index).ok())
        });
        named.collect()
    }

    fn finish(&self, context: &Context<'_>) -> Option<Done> {
        if self.waiting > 0 {
            return None;
        }
        let version = context.header.version;
        let metadata = context.engine.metadata();
        let mut writer = context.response(128 + 32 * self.bytes.len());
        writer.i32(0);
        if version >= ERROR_FROM {
            writer.error(ErrorCode::None);
        }
        writer.count(1);
        writer.error(self.error);
        writer.string(&context.config.data_dir);
        // A topic that was deleted meanwhile has no name any more.
        let topics =
            || self.bytes.iter().filter_map(|(id, partitions)| Some((metadata.by_id.get(id)?, partitions)));
        writer.count(topics().count());
        for (topic, partitions) in topics() {
            writer.string(&topic.name);
            writer.count(partitions.len());
            for (index, bytes) in partitions {
                writer.i32(*index as i32);
                writer.i64(bytes.cast_signed());
                // Nothing lags behind, and nothing is on its way to another directory.
                writer.i64(0);
                writer.bool(false);
                writer.tags();
            }
            writer.tags();
        }
        if version >= SPACE_FROM {
            let bytes = |of: fn(Space) -> u64| self.space.map_or(UNKNOWN, |space| of(space).cast_signed());
            writer.i64(bytes(|space| space.total_bytes));
            writer.i64(bytes(|space| space.free_bytes));
        }
        writer.tags();
        writer.tags();
        Some(Done::answer(writer))
    }
}

impl Admin for DescribeLogDirs {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let partitions = self.partitions(&context.engine.metadata());
        self.waiting = context.engine.extents(0, &partitions) + 1;
        context.engine.disk_space(0);
        self.finish(context)
    }

    fn on_reply(&mut self, _: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        match reply {
            Reply::Extents(extents) => {
                for extent in extents {
                    let topic = self.bytes.entry(extent.partition.topic).or_default();
                    topic.insert(extent.partition.index, extent.bytes);
                }
            }
            Reply::DiskSpace(space) => self.space = space,
            Reply::Refused(refusal) => self.error = code(&refusal),
            other => panic!("extents were answered {other:?}"),
        }
        self.waiting -= 1;
        self.finish(context)
    }
}
