//! `OffsetDelete`: how far a group has read some partitions is forgotten, unless its members read them (KIP-496).

use std::sync::Arc;

use super::{Exchange, GroupApi, GroupWork, code_of, only, unexpected};
use crate::coordinator::question::{ByTopic, DeleteOffsets};
use crate::coordinator::{Answer, Outcome, Question};
use crate::kafka::codec::{Malformed, Reader};
use crate::kafka::topics::Topics;
use crate::kafka::{Context, Done, ErrorCode, Work, find_partition};

/// A request to forget offsets.
#[derive(Debug)]
pub struct OffsetDelete {
    group: Arc<str>,
    topics: Topics<Part>,
}

#[derive(Debug)]
struct Part {
    index: i32,
    /// `None` as long as the coordinator is to say.
    error: Option<ErrorCode>,
}

impl OffsetDelete {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>) -> Result<Work, Malformed> {
        let group = reader.string()?.into();
        let mut topics = Topics::new();
        for _ in 0..reader.count(2)? {
            topics.push_topic(reader.string()?)?;
            for _ in 0..reader.count(4)? {
                topics.push_partition(Part { index: reader.i32()?, error: None })?;
            }
        }
        Ok(GroupWork::work(OffsetDelete { group, topics }))
    }
}

impl GroupApi for OffsetDelete {
    fn ask(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) {
        let metadata = context.engine.metadata();
        let mut topics: ByTopic<i32> = Vec::new();
        self.topics.for_each_mut(|topic, _, part| {
            part.error = find_partition(&metadata, topic, part.index).err();
            if part.error.is_none() {
                match topics.last_mut() {
                    Some((last, known)) if &**last == topic => known.push(part.index),
                    _ => topics.push((topic.into(), vec![part.index])),
                }
            }
        });
        let delete = DeleteOffsets { group: Arc::clone(&self.group), topics };
        exchange.ask(Question::DeleteOffsets(delete), context);
    }

    fn answer(&mut self, answers: Vec<Answer>, context: &Context<'_>) -> Done {
        let answer = only(answers);
        let error = code_of(&answer);
        let forgotten = match answer {
            Ok(Outcome::Committed(forgotten)) => forgotten,
            Ok(other) => unexpected(&other),
            Err(_) => Vec::new(),
        };
        let asked = self.topics.partitions_mut().iter_mut().filter(|part| part.error.is_none());
        for (part, forgotten) in asked.zip(forgotten) {
            part.error = Some(code_of(&forgotten));
        }
        let mut writer = context.response(64 + self.topics.names_len());
        writer.error(error);
        writer.i32(0);
        if error == ErrorCode::None {
            self.topics.write(&mut writer, |writer, part| {
                writer.i32(part.index);
                writer.error(part.error.unwrap_or_default());
            });
        } else {
            writer.count(0);
        }
        Done::answer(writer)
    }
}
