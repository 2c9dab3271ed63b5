//! `DeleteRecords`: moves the starts of logs up.

use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::Reply;
use millstream_engine::types::{Offset, PartitionId};

use super::super::codec::{Malformed, Reader};
use super::super::topics::Topics;
use super::super::{Context, Done, ErrorCode, code, find_partition, is_internal, wire_offset};
use super::Admin;

/// "Everything that can be read", in the place of an offset.
const HIGH_WATERMARK: i64 = -1;
/// What a missing offset is on the wire.
const NONE: i64 = -1;

/// A request to delete records.
#[derive(Debug)]
pub struct DeleteRecords {
    topics: Topics<Part>,
    /// Partitions that are not answered.
    waiting: usize,
}

#[derive(Debug)]
struct Part {
    index: i32,
    offset: i64,
    outcome: Result<Offset, ErrorCode>,
}

impl DeleteRecords {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, _version: i16) -> Result<DeleteRecords, Malformed> {
        let mut topics = Topics::new();
        for _ in 0..reader.count(2)? {
            topics.push_topic(reader.string()?)?;
            for _ in 0..reader.count(12)? {
                let (index, offset) = (reader.i32()?, reader.i64()?);
                reader.tags()?;
                let outcome = Err(ErrorCode::RequestTimedOut);
                topics.push_partition(Part { index, offset, outcome })?;
            }
            reader.tags()?;
        }
        let _timeout_ms = reader.i32()?;
        reader.tags()?;
        Ok(DeleteRecords { topics, waiting: 0 })
    }

    fn finish(&self, context: &Context<'_>) -> Option<Done> {
        if self.waiting > 0 {
            return None;
        }
        let mut writer = context.response(self.topics.names_len() + 24 * self.topics.partitions().len());
        writer.i32(0);
        self.topics.write(&mut writer, |writer, part| {
            writer.i32(part.index);
            writer.i64(part.outcome.map_or(NONE, wire_offset));
            writer.error(part.outcome.err().unwrap_or(ErrorCode::None));
        });
        writer.tags();
        Some(Done::answer(writer))
    }
}

/// The partition, and the first offset that it is to keep.
fn check(metadata: &Metadata, topic: &str, part: &Part) -> Result<(PartitionId, Option<Offset>), ErrorCode> {
    let partition = find_partition(metadata, topic, part.index)?;
    if is_internal(topic) {
        return Err(ErrorCode::InvalidTopic);
    }
    // As with Kafka: of a topic that is only compacted the newest value of each key stays.
    if metadata.topic(topic).is_some_and(|topic| !topic.config.deletes) {
        return Err(ErrorCode::PolicyViolation);
    }
    if part.offset == HIGH_WATERMARK {
        return Ok((partition, None));
    }
    let before = u64::try_from(part.offset).map_err(|_| ErrorCode::OffsetOutOfRange)?;
    Ok((partition, Some(Offset(before))))
}

impl Admin for DeleteRecords {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let metadata = context.engine.metadata();
        let mut waiting = 0;
        self.topics.for_each_mut(|topic, place, part| {
            let asked = check(&metadata, topic, part).and_then(|(partition, before)| {
                context.engine.trim_log(place, partition, before).map_err(|refusal| code(&refusal))
            });
            match asked {
                Ok(()) => waiting += 1,
                Err(error) => part.outcome = Err(error),
            }
        });
        self.waiting = waiting;
        self.finish(context)
    }

    fn on_reply(&mut self, place: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        self.topics.partition_mut(place).outcome = match reply {
            Reply::Trimmed(start) => Ok(start),
            Reply::Refused(refusal) => Err(code(&refusal)),
            other => panic!("a deletion of records was answered {other:?}"),
        };
        self.waiting -= 1;
        self.finish(context)
    }
}
