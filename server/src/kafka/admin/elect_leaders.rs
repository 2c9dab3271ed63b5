//! `ElectLeaders`: there is one node, which leads everything already.

use super::super::codec::{Malformed, Reader};
use super::super::topics::Topics;
use super::super::{Context, Done, ErrorCode, find_partition};
use super::Admin;

/// The first version that says what sort of election is wanted, and has room for an error of the whole request.
const TYPE_FROM: i16 = 1;

/// A request for elections.
#[derive(Debug)]
pub struct ElectLeaders {
    /// None means all partitions that are not led by whom they should be.
    topics: Topics<i32>,
}

impl ElectLeaders {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<ElectLeaders, Malformed> {
        if version >= TYPE_FROM {
            let _election_type = reader.i8()?;
        }
        let mut topics = Topics::new();
        for _ in 0..reader.nullable_count(2)?.unwrap_or(0) {
            topics.push_topic(reader.string()?)?;
            for _ in 0..reader.count(4)? {
                topics.push_partition(reader.i32()?)?;
            }
            reader.tags()?;
        }
        let _timeout_ms = reader.i32()?;
        reader.tags()?;
        Ok(ElectLeaders { topics })
    }
}

impl Admin for ElectLeaders {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let metadata = context.engine.metadata();
        let mut writer = context.response(self.topics.names_len() + 64 * self.topics.partitions().len());
        writer.i32(0);
        if context.header.version >= TYPE_FROM {
            writer.error(ErrorCode::None);
        }
        writer.count(self.topics.iter().count());
        for (topic, partitions) in self.topics.iter() {
            writer.string(topic);
            writer.count(partitions.len());
            for index in partitions {
                let (error, message) = match find_partition(&metadata, topic, *index) {
                    Ok(_) => (ErrorCode::ElectionNotNeeded, "the only node leads it"),
                    Err(error) => (error, "there is no such partition"),
                };
                writer.i32(*index);
                writer.error(error);
                writer.nullable_string(Some(message));
                writer.tags();
            }
            writer.tags();
        }
        writer.tags();
        Some(Done::answer(writer))
    }
}
