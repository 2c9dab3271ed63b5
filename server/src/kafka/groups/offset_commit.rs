//! `OffsetCommit`: how far a group has read; answered when that is durable.

use std::sync::Arc;

use super::{Exchange, GroupApi, GroupWork, code, code_of, instance_id, only, unexpected};
use crate::coordinator::question::{Commit, Member, Position, TopicCommit};
use crate::coordinator::{Answer, Outcome, Question};
use crate::kafka::codec::{Malformed, Reader};
use crate::kafka::topics::Topics;
use crate::kafka::{Context, Done, ErrorCode, Work, find_partition};

/// A request to commit offsets.
#[derive(Debug)]
pub struct OffsetCommit {
    group: Arc<str>,
    member: Member,
    topics: Topics<Part>,
}

/// One partition's offset, then what became of it.
#[derive(Debug)]
struct Part {
    index: i32,
    position: Option<Position>,
    error: ErrorCode,
}

impl OffsetCommit {
    /// Reads a request. How long offsets are kept is the broker's to say: what versions 2 to 4 ask for is not heeded.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<Work, Malformed> {
        let group = reader.string()?.into();
        let mut member = Member { id: Arc::default(), instance_id: None, generation: -1 };
        if version >= 1 {
            member.generation = reader.i32()?;
            member.id = reader.string()?.into();
        }
        member.instance_id = instance_id(&mut reader, version >= 7)?;
        if (2..=4).contains(&version) {
            let _retention_ms = reader.i64()?;
        }
        let mut topics = Topics::new();
        for _ in 0..reader.count(2)? {
            topics.push_topic(reader.string()?)?;
            for _ in 0..reader.count(13)? {
                let index = reader.i32()?;
                let offset = reader.i64()?;
                let leader_epoch = if version >= 6 { reader.i32()? } else { -1 };
                if version == 1 {
                    let _timestamp = reader.i64()?;
                }
                let metadata = reader.nullable_string()?.unwrap_or_default().into();
                reader.tags()?;
                let position = Some(Position { offset, leader_epoch, metadata });
                topics.push_partition(Part { index, position, error: ErrorCode::None })?;
            }
            reader.tags()?;
        }
        reader.tags()?;
        Ok(GroupWork::work(OffsetCommit { group, member, topics }))
    }
}

impl GroupApi for OffsetCommit {
    fn ask(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) {
        let metadata = context.engine.metadata();
        let served = crate::kafka::api::is_served(context);
        let mut topics: Vec<TopicCommit> = Vec::new();
        self.topics.for_each_mut(|topic, _, part| {
            let known = find_partition(&metadata, topic, part.index);
            match known {
                _ if !served => part.error = ErrorCode::UnsupportedVersion,
                Err(error) => part.error = error,
                Ok(partition) => {
                    let committed = part.position.take().map(|position| (part.index, position));
                    if topics.last().is_none_or(|last| &*last.name != topic) {
                        let partitions = Vec::new();
                        topics.push(TopicCommit { name: topic.into(), id: partition.topic, partitions });
                    }
                    if let Some(last) = topics.last_mut() {
                        last.partitions.extend(committed);
                    }
                    // Until it is known better.
                    part.error = ErrorCode::CoordinatorNotAvailable;
                }
            }
        });
        // The coordinator is asked even about nothing: a commit of nothing is a way to ask whether one is a member.
        let asked = !topics.is_empty() || self.topics.partitions().is_empty();
        if asked && served {
            let commit = Commit { group: Arc::clone(&self.group), member: self.member.clone(), topics };
            exchange.ask(Question::Commit(commit), context);
        }
    }

    fn answer(&mut self, answers: Vec<Answer>, context: &Context<'_>) -> Done {
        let pending = ErrorCode::CoordinatorNotAvailable;
        let asked = self.topics.partitions_mut().iter_mut().filter(|part| part.error == pending);
        if !answers.is_empty() {
            match only(answers) {
                Ok(Outcome::Committed(committed)) => {
                    for (part, committed) in asked.zip(committed) {
                        part.error = code_of(&committed);
                    }
                }
                Ok(other) => unexpected(&other),
                Err(error) => asked.for_each(|part| part.error = code(&error)),
            }
        }
        let room = self.topics.names_len() + 16 * self.topics.partitions().len();
        let mut writer = context.response(room);
        if context.header.version >= 3 {
            writer.i32(0);
        }
        self.topics.write(&mut writer, |writer, part| {
            writer.i32(part.index);
            writer.error(part.error);
        });
        writer.tags();
        Done::answer(writer)
    }
}
