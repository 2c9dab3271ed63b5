//! `OffsetFetch`: how far groups have read, from version 8 on several groups at once (KIP-709). Without transactions,
//! every committed offset is stable.

use std::sync::Arc;

use super::{Exchange, GroupApi, GroupWork, Names, code_of, only, topic_count, unexpected};
use crate::coordinator::offsets::Committed;
use crate::coordinator::question::{ByTopic, Offsets};
use crate::coordinator::{Answer, Outcome, Question};
use crate::kafka::codec::{Malformed, Reader, Writer};
use crate::kafka::{Context, Done, ErrorCode, Work};
use crate::limits::PARTITIONS_PER_REQUEST_MAX;

/// The first version that asks for several groups.
const SEVERAL_FROM: i16 = 8;

/// A request for committed offsets.
#[derive(Debug)]
pub struct OffsetFetch(Vec<Offsets>);

type Found = ByTopic<(i32, Option<Committed>)>;

impl OffsetFetch {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<Work, Malformed> {
        let mut room = PARTITIONS_PER_REQUEST_MAX;
        let mut groups = Vec::new();
        if version < SEVERAL_FROM {
            let group = reader.string()?.into();
            let topics = read_topics(&mut reader, version, &mut room)?;
            groups.push(Offsets { group, topics });
        } else {
            let mut names = Names::default();
            for _ in 0..reader.count(2)? {
                let group = names.add(reader.string()?)?;
                let group = group.ok_or(Malformed("the request names a group twice"))?;
                let topics = read_topics(&mut reader, version, &mut room)?;
                reader.tags()?;
                groups.push(Offsets { group, topics });
            }
        }
        if version >= 7 {
            let _require_stable = reader.bool()?;
        }
        reader.tags()?;
        Ok(GroupWork::work(OffsetFetch(groups)))
    }
}

fn read_topics(
    reader: &mut Reader<'_>,
    version: i16,
    room: &mut usize,
) -> Result<Option<ByTopic<i32>>, Malformed> {
    // The first versions could not say null.
    let count = if version < 2 { Some(reader.count(2)?) } else { reader.nullable_count(2)? };
    let Some(count) = count else { return Ok(None) };
    let mut topics = Vec::new();
    for _ in 0..topic_count(count)? {
        let topic = reader.string()?.into();
        let count = reader.count(4)?;
        *room = room.checked_sub(count).ok_or(Malformed("the request names too many partitions"))?;
        let partitions = (0..count).map(|_| reader.i32()).collect::<Result<_, _>>()?;
        reader.tags()?;
        topics.push((topic, partitions));
    }
    Ok(Some(topics))
}

impl GroupApi for OffsetFetch {
    fn ask(&mut self, exchange: &mut Exchange, context: &mut Context<'_>) {
        for offsets in &self.0 {
            exchange.ask(Question::Offsets(offsets.clone()), context);
        }
    }

    fn answer(&mut self, answers: Vec<Answer>, context: &Context<'_>) -> Done {
        let version = context.header.version;
        let mut writer = context.response(256);
        if version >= 3 {
            writer.i32(0);
        }
        if version < SEVERAL_FROM {
            let answer = only(answers);
            let error = error_of(&answer);
            write_topics(&mut writer, version, &found(answer, self.0.first()), error);
            if version >= 2 {
                writer.error(error);
            }
        } else {
            writer.count(self.0.len());
            for (asked, answer) in self.0.iter().zip(answers) {
                let error = error_of(&answer);
                writer.string(&asked.group);
                write_topics(&mut writer, version, &found(answer, None), ErrorCode::None);
                writer.error(error);
                writer.tags();
            }
        }
        writer.tags();
        Done::answer(writer)
    }
}

/// The code of an answer. Consumers older than Kafka's 3.9 do not expect "not available" here and give up; "another
/// coordinator" has them look for it once more, as with Kafka.
fn error_of(answer: &Answer) -> ErrorCode {
    match code_of(answer) {
        ErrorCode::CoordinatorNotAvailable => ErrorCode::NotCoordinator,
        code => code,
    }
}

/// What was found; after an error, nothing for each partition that was asked for, since the first versions have no other
/// place for the error.
fn found(answer: Answer, asked: Option<&Offsets>) -> Found {
    match answer {
        Ok(Outcome::Offsets(offsets)) => offsets,
        Ok(other) => unexpected(&other),
        Err(_) => asked
            .and_then(|asked| asked.topics.as_ref())
            .into_iter()
            .flatten()
            .map(|(topic, partitions)| {
                (Arc::clone(topic), partitions.iter().map(|partition| (*partition, None)).collect())
            })
            .collect(),
    }
}

fn write_topics(writer: &mut Writer, version: i16, topics: &Found, error: ErrorCode) {
    writer.count(topics.len());
    for (topic, partitions) in topics {
        writer.string(topic);
        writer.count(partitions.len());
        for (partition, committed) in partitions {
            writer.i32(*partition);
            writer.i64(committed.as_ref().map_or(-1, |committed| committed.offset));
            if version >= 5 {
                writer.i32(committed.as_ref().map_or(-1, |committed| committed.leader_epoch));
            }
            writer.nullable_string(Some(committed.as_ref().map_or("", |committed| &committed.metadata)));
            writer.error(error);
            writer.tags();
        }
        writer.tags();
    }
}
