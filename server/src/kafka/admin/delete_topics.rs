//! `DeleteTopics`: by name, and from version 6 on by id.

use std::collections::BTreeSet;

use millstream_engine::error::Refusal;
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::TopicId;

use super::super::codec::{Malformed, Reader};
use super::super::{Context, Done, ErrorCode, Failure, is_internal};
use super::{Admin, unanswered, write_error, write_outcome};
use crate::limits::TOPICS_PER_REQUEST_MAX;

/// The first version in which topics may be named by id.
const BY_ID_FROM: i16 = 6;
/// The first version that has room for words.
const MESSAGES_FROM: i16 = 5;
const NO_ID: TopicId = TopicId([0; 16]);

/// A request to delete topics.
#[derive(Debug)]
pub struct DeleteTopics {
    topics: Vec<Doomed>,
    /// Deletions that are not answered.
    waiting: usize,
}

#[derive(Debug)]
struct Doomed {
    name: Option<String>,
    id: TopicId,
    outcome: Result<(), Failure>,
}

impl DeleteTopics {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<DeleteTopics, Malformed> {
        let count = reader.count(1)?;
        if count > TOPICS_PER_REQUEST_MAX {
            return Err(Malformed("the request names too many topics"));
        }
        let mut topics = Vec::with_capacity(count);
        for _ in 0..count {
            let (name, id) = if version >= BY_ID_FROM {
                let named = (reader.nullable_string()?.map(str::to_owned), reader.uuid()?);
                reader.tags()?;
                named
            } else {
                (Some(reader.string()?.to_owned()), NO_ID)
            };
            topics.push(Doomed { name, id, outcome: unanswered() });
        }
        let _timeout_ms = reader.i32()?;
        reader.tags()?;
        Ok(DeleteTopics { topics, waiting: 0 })
    }

    fn finish(&self, context: &Context<'_>) -> Option<Done> {
        if self.waiting > 0 {
            return None;
        }
        let version = context.header.version;
        let mut writer = context.response(64 * self.topics.len());
        writer.i32(0);
        writer.count(self.topics.len());
        for topic in &self.topics {
            if version >= BY_ID_FROM {
                writer.nullable_string(topic.name.as_deref());
                writer.uuid(topic.id);
            } else {
                writer.string(topic.name.as_deref().unwrap_or_default());
            }
            if version >= MESSAGES_FROM {
                write_outcome(&mut writer, &topic.outcome);
            } else {
                write_error(&mut writer, &topic.outcome);
            }
            writer.tags();
        }
        writer.tags();
        Some(Done::answer(writer))
    }
}

impl Doomed {
    /// Finds the topic, and what it is called either way.
    fn find(&mut self, metadata: &Metadata) -> Result<TopicId, Failure> {
        let topic = match &self.name {
            Some(_) if self.id != NO_ID => {
                let message = "a topic is named by its name or by its id, not by both";
                return Err(Failure::new(ErrorCode::InvalidRequest, message));
            }
            None if self.id == NO_ID => {
                let message = "a topic is named by neither its name nor its id";
                return Err(Failure::new(ErrorCode::InvalidRequest, message));
            }
            Some(name) => metadata.topic(name).ok_or_else(|| self.unknown())?,
            None => metadata.by_id.get(&self.id).ok_or_else(|| self.unknown())?,
        };
        if is_internal(&topic.name) {
            return Err(Failure::new(ErrorCode::InvalidTopic, "an internal topic is not deleted"));
        }
        self.name = Some(topic.name.clone());
        self.id = topic.id;
        Ok(topic.id)
    }

    fn unknown(&self) -> Failure {
        match &self.name {
            Some(_) => Failure::new(ErrorCode::UnknownTopicOrPartition, "there is no such topic"),
            None => Failure::new(ErrorCode::UnknownTopicId, "there is no topic with this id"),
        }
    }
}

impl Admin for DeleteTopics {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let metadata = context.engine.metadata();
        let mut doomed = BTreeSet::new();
        for (place, topic) in self.topics.iter_mut().enumerate() {
            match topic.find(&metadata) {
                Ok(id) if doomed.insert(id) => {
                    context.engine.change_metadata(place as u32, Request::DeleteTopic(id));
                }
                Ok(_) => {
                    let message = "the request names the topic more than once";
                    topic.outcome = Err(Failure::new(ErrorCode::InvalidRequest, message));
                }
                Err(failure) => topic.outcome = Err(failure),
            }
        }
        self.waiting = doomed.len();
        self.finish(context)
    }

    fn on_reply(&mut self, place: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        let topic = self.topics.get_mut(place as usize).expect("its own place was asked for");
        topic.outcome = match reply {
            Reply::Done => Ok(()),
            // Somebody else was faster.
            Reply::Refused(Refusal::UnknownTopic(_)) => Err(topic.unknown()),
            Reply::Refused(refusal) => Err(refusal.into()),
            other => panic!("a deletion was answered {other:?}"),
        };
        self.waiting -= 1;
        self.finish(context)
    }
}
