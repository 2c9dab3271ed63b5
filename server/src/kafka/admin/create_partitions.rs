//! `CreatePartitions`: topics only ever get more of them.

use std::collections::BTreeMap;

use millstream_engine::error::Refusal;
use millstream_engine::limits::PARTITIONS_PER_TOPIC_MAX;
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::{Reply, Request};

use super::super::codec::{Malformed, Reader};
use super::super::{Context, Done, ErrorCode, Failure, is_internal};
use super::placement::{check_nodes, read_nodes};
use super::{Admin, unanswered, write_outcome};
use crate::limits::{PARTITIONS_PER_REQUEST_MAX, TOPICS_PER_REQUEST_MAX};

/// A request for more partitions.
#[derive(Debug)]
pub struct CreatePartitions {
    topics: Vec<Growing>,
    validate_only: bool,
    /// Changes that are not answered.
    waiting: usize,
}

#[derive(Debug)]
struct Growing {
    name: String,
    count: i32,
    /// Nodes per new partition, if the client wants to say.
    assignments: Option<Vec<Vec<i32>>>,
    outcome: Result<(), Failure>,
}

impl CreatePartitions {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, _version: i16) -> Result<CreatePartitions, Malformed> {
        let count = reader.count(6)?;
        if count > TOPICS_PER_REQUEST_MAX {
            return Err(Malformed("the request names too many topics"));
        }
        let mut topics = Vec::with_capacity(count);
        let mut partitions = 0;
        for _ in 0..count {
            let name = reader.string()?.to_owned();
            let count = reader.i32()?;
            let assignments = match reader.nullable_count(1)? {
                None => None,
                Some(assigned) => {
                    partitions += assigned;
                    if partitions > PARTITIONS_PER_REQUEST_MAX {
                        return Err(Malformed("the request names too many partitions"));
                    }
                    let mut assignments = Vec::with_capacity(assigned);
                    for _ in 0..assigned {
                        assignments.push(read_nodes(&mut reader)?);
                        reader.tags()?;
                    }
                    Some(assignments)
                }
            };
            reader.tags()?;
            topics.push(Growing { name, count, assignments, outcome: unanswered() });
        }
        let _timeout_ms = reader.i32()?;
        let validate_only = reader.bool()?;
        reader.tags()?;
        Ok(CreatePartitions { topics, validate_only, waiting: 0 })
    }

    fn finish(&self, context: &Context<'_>) -> Option<Done> {
        if self.waiting > 0 {
            return None;
        }
        let mut writer = context.response(64 * self.topics.len());
        writer.i32(0);
        writer.count(self.topics.len());
        for topic in &self.topics {
            writer.string(&topic.name);
            write_outcome(&mut writer, &topic.outcome);
            writer.tags();
        }
        writer.tags();
        Some(Done::answer(writer))
    }
}

impl Growing {
    /// What the engine is to be asked, if it may be asked.
    fn check(&self, metadata: &Metadata) -> Result<Request, Failure> {
        let topic = metadata.topic(&self.name).ok_or_else(unknown)?;
        if is_internal(&self.name) {
            return Err(Failure::new(ErrorCode::InvalidTopic, "an internal topic is not changed"));
        }
        let now = topic.slots.len() as u32;
        let invalid = |message| Err(Failure::new(ErrorCode::InvalidPartitions, message));
        let count = match u32::try_from(self.count) {
            Ok(count) if count > now => count,
            Ok(count) if count == now => return invalid(format!("the topic has {now} partitions already")),
            _ => {
                return invalid(format!(
                    "the topic has {now} partitions, which is more than the {} asked for",
                    self.count
                ));
            }
        };
        if count > PARTITIONS_PER_TOPIC_MAX {
            return invalid(format!("a topic has at most {PARTITIONS_PER_TOPIC_MAX} partitions"));
        }
        if let Some(assignments) = &self.assignments {
            if assignments.len() != (count - now) as usize {
                let message =
                    format!("{} partitions are new, but {} are given places", count - now, assignments.len());
                return Err(Failure::new(ErrorCode::InvalidReplicaAssignment, message));
            }
            assignments.iter().try_for_each(|nodes| check_nodes(nodes, metadata.node_id))?;
        }
        Ok(Request::AddPartitions { topic: topic.id, count })
    }
}

fn unknown() -> Failure {
    Failure::new(ErrorCode::UnknownTopicOrPartition, "there is no such topic")
}

impl Admin for CreatePartitions {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let metadata = context.engine.metadata();
        let mut named: BTreeMap<String, usize> = BTreeMap::new();
        for topic in &self.topics {
            *named.entry(topic.name.clone()).or_default() += 1;
        }
        for (place, topic) in self.topics.iter_mut().enumerate() {
            let request = if named.get(&topic.name).is_some_and(|times| *times > 1) {
                let message = "the request names the topic more than once";
                Err(Failure::new(ErrorCode::InvalidRequest, message))
            } else {
                topic.check(&metadata)
            };
            match request {
                Ok(_) if self.validate_only => topic.outcome = Ok(()),
                Ok(request) => {
                    context.engine.change_metadata(place as u32, request);
                    self.waiting += 1;
                }
                Err(failure) => topic.outcome = Err(failure),
            }
        }
        self.finish(context)
    }

    fn on_reply(&mut self, place: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        let topic = self.topics.get_mut(place as usize).expect("its own place was asked for");
        topic.outcome = match reply {
            Reply::Done => Ok(()),
            Reply::Refused(Refusal::UnknownTopic(_)) => Err(unknown()),
            Reply::Refused(refusal) => Err(refusal.into()),
            other => panic!("more partitions were answered {other:?}"),
        };
        self.waiting -= 1;
        self.finish(context)
    }
}
