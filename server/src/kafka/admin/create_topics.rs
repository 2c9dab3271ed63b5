//! `CreateTopics`: the checks are here, the creation is the engine's.

use std::collections::BTreeMap;

use millstream_engine::error::Refusal;
use millstream_engine::format::partition::is_topic_name;
use millstream_engine::limits::PARTITIONS_PER_TOPIC_MAX;
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::Reply;
use millstream_engine::types::TopicId;

use super::super::codec::{Malformed, Reader, Writer};
use super::super::{Context, Done, ErrorCode, Failure, is_internal};
use super::placement::{check_nodes, check_replication, read_nodes};
use super::topic_settings::{self, TOPIC_SETTINGS, values_of};
use super::{Admin, Room, unanswered, write_outcome};
use crate::limits::{PARTITIONS_PER_REQUEST_MAX, TOPICS_PER_REQUEST_MAX};

/// The first version that tells of what was created (KIP-525).
const DETAILS_FROM: i16 = 5;
/// The first version that tells the topic's id.
const ID_FROM: i16 = 7;
/// "The broker's default", in the place of a count.
const DEFAULT: i32 = -1;

/// A request to create topics.
#[derive(Debug)]
pub struct CreateTopics {
    topics: Vec<New>,
    validate_only: bool,
    /// Creations that are not answered.
    waiting: usize,
}

/// A topic that is wanted, and what became of it.
#[derive(Debug)]
struct New {
    name: String,
    partitions: i32,
    replication: i16,
    /// Partitions and their nodes, if the client wants to say.
    assignments: Vec<(i32, Vec<i32>)>,
    settings: Vec<(String, Option<String>)>,
    outcome: Result<Created, Failure>,
}

#[derive(Clone, Debug)]
struct Created {
    id: TopicId,
    partitions: u32,
    settings: Vec<(String, String)>,
}

/// What the engine is to be asked.
struct Plan {
    /// `None` leaves it to the node.
    partitions: Option<u32>,
    settings: Vec<(String, String)>,
}

impl CreateTopics {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, _version: i16) -> Result<CreateTopics, Malformed> {
        let count = reader.count(10)?;
        if count > TOPICS_PER_REQUEST_MAX {
            return Err(Malformed("the request names too many topics"));
        }
        let mut topics = Vec::with_capacity(count);
        let mut assigned = 0;
        let mut room = Room::new();
        for _ in 0..count {
            let topic = New::read(&mut reader, &mut room)?;
            assigned += topic.assignments.len();
            if assigned > PARTITIONS_PER_REQUEST_MAX {
                return Err(Malformed("the request names too many partitions"));
            }
            topics.push(topic);
        }
        let _timeout_ms = reader.i32()?;
        let validate_only = reader.bool()?;
        reader.tags()?;
        Ok(CreateTopics { topics, validate_only, waiting: 0 })
    }

    /// Names that stand in the request more than once are answered once each, and nothing is done for them.
    fn refuse_repeated(&mut self) {
        let mut named: BTreeMap<String, usize> = BTreeMap::new();
        for topic in &self.topics {
            *named.entry(topic.name.clone()).or_default() += 1;
        }
        self.topics.retain_mut(|topic| match named.get_mut(&topic.name) {
            None | Some(1) => true,
            Some(times) => {
                let first = *times > 1;
                *times = 0;
                let message = "the request names the topic more than once";
                topic.outcome = Err(Failure::new(ErrorCode::InvalidRequest, message));
                first
            }
        });
    }

    fn finish(&self, context: &Context<'_>) -> Option<Done> {
        if self.waiting > 0 {
            return None;
        }
        let mut writer = context.response(64 * self.topics.len());
        writer.i32(0);
        writer.count(self.topics.len());
        for topic in &self.topics {
            topic.write(&mut writer, context);
        }
        writer.tags();
        Some(Done::answer(writer))
    }
}

impl New {
    fn read(reader: &mut Reader<'_>, room: &mut Room) -> Result<New, Malformed> {
        let name = reader.string()?.to_owned();
        let partitions = reader.i32()?;
        let replication = reader.i16()?;
        let mut assignments = Vec::new();
        for _ in 0..reader.count(6)? {
            let index = reader.i32()?;
            assignments.push((index, read_nodes(reader)?));
            reader.tags()?;
        }
        let mut settings = Vec::new();
        for _ in 0..room.take(reader.count(3)?)? {
            settings.push((reader.string()?.to_owned(), reader.nullable_string()?.map(str::to_owned)));
            reader.tags()?;
        }
        reader.tags()?;
        Ok(New { name, partitions, replication, assignments, settings, outcome: unanswered() })
    }

    fn plan(&self, metadata: &Metadata, clamps: bool) -> Result<Plan, Failure> {
        if !is_topic_name(&self.name) {
            return Err(Refusal::InvalidTopicName.into());
        }
        if is_internal(&self.name) {
            return Err(Failure::new(ErrorCode::InvalidTopic, "the broker makes its internal topics itself"));
        }
        if metadata.topic(&self.name).is_some() {
            return Err(exists(&self.name));
        }
        if let Some(other) = collides(&self.name, metadata) {
            let message =
                format!("topic {} collides with {other}: metrics take . and _ for the same", self.name);
            return Err(Failure::new(ErrorCode::InvalidTopic, message));
        }
        let partitions = if self.assignments.is_empty() {
            check_replication(self.replication, clamps)?;
            self.check_partitions()?
        } else {
            Some(self.check_assignments(metadata)?)
        };
        let mut settings: Vec<(String, String)> = Vec::with_capacity(self.settings.len());
        for (name, value) in &self.settings {
            let Some(value) = value else {
                let message = format!("Null value not supported for topic configs: {name}");
                return Err(Failure::new(ErrorCode::InvalidConfig, message));
            };
            topic_settings::check(name, value)?;
            settings.retain(|(set, _)| set != name);
            settings.push((name.clone(), value.clone()));
        }
        Ok(Plan { partitions, settings })
    }

    fn check_partitions(&self) -> Result<Option<u32>, Failure> {
        match u32::try_from(self.partitions) {
            Err(_) if self.partitions == DEFAULT => Ok(None),
            Ok(count @ 1..=PARTITIONS_PER_TOPIC_MAX) => Ok(Some(count)),
            _ => {
                let message = format!(
                    "a topic has 1 to {PARTITIONS_PER_TOPIC_MAX} partitions, or -1 for the broker's default"
                );
                Err(Failure::new(ErrorCode::InvalidPartitions, message))
            }
        }
    }

    fn check_assignments(&self, metadata: &Metadata) -> Result<u32, Failure> {
        if self.partitions != DEFAULT || i32::from(self.replication) != DEFAULT {
            let message = "with places given for partitions, their count and their replication factor are -1";
            return Err(Failure::new(ErrorCode::InvalidRequest, message));
        }
        let mut indexes: Vec<i32> = self.assignments.iter().map(|(index, _)| *index).collect();
        indexes.sort_unstable();
        if !indexes.iter().copied().eq(0..indexes.len() as i32) {
            let message = "partitions that are given places are numbered from 0, without gaps";
            return Err(Failure::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        self.assignments.iter().try_for_each(|(_, nodes)| check_nodes(nodes, metadata.node_id))?;
        if indexes.len() > PARTITIONS_PER_TOPIC_MAX as usize {
            let message = format!("a topic has at most {PARTITIONS_PER_TOPIC_MAX} partitions");
            return Err(Failure::new(ErrorCode::InvalidPartitions, message));
        }
        Ok(indexes.len() as u32)
    }

    fn write(&self, writer: &mut Writer, context: &Context<'_>) {
        let version = context.header.version;
        writer.string(&self.name);
        if version >= ID_FROM {
            writer.uuid(self.outcome.as_ref().map_or(TopicId::default(), |created| created.id));
        }
        write_outcome(writer, &self.outcome);
        if version >= DETAILS_FROM {
            let created = self.outcome.as_ref().ok();
            writer.i32(created.map_or(-1, |created| created.partitions as i32));
            writer.i16(created.map_or(-1, |_| 1));
            writer.count(if created.is_some() { TOPIC_SETTINGS.len() } else { 0 });
            for setting in created.map_or(&[][..], |_| TOPIC_SETTINGS) {
                let settings = created.map_or(&[][..], |created| &created.settings);
                let values = values_of(setting, settings, context.config);
                let value = values.first().expect("there always is a default");
                writer.string(setting.name);
                writer.nullable_string(Some(&value.text));
                writer.bool(false);
                writer.i8(value.source as i8);
                writer.bool(false);
                writer.tags();
            }
        }
        writer.tags();
    }
}

fn exists(name: &str) -> Failure {
    Failure::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists."))
}

/// The topic, if any, whose name differs in nothing but dots and underscores. Kafka refuses the second of them.
pub fn collides<'a>(name: &str, metadata: &'a Metadata) -> Option<&'a str> {
    if !name.contains(['.', '_']) {
        return None;
    }
    let plain = |name: &str| name.replace('.', "_");
    let wanted = plain(name);
    metadata.topics.keys().map(String::as_str).find(|other| *other != name && plain(other) == wanted)
}

impl Admin for CreateTopics {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let metadata = context.engine.metadata();
        self.refuse_repeated();
        let clamps = context.config.clamp_replication;
        for (place, topic) in self.topics.iter_mut().enumerate() {
            if matches!(&topic.outcome, Err(failure) if failure.error == ErrorCode::InvalidRequest) {
                continue;
            }
            let plan = match topic.plan(&metadata, clamps) {
                Ok(plan) => plan,
                Err(failure) => {
                    topic.outcome = Err(failure);
                    continue;
                }
            };
            if self.validate_only {
                let partitions = plan.partitions.unwrap_or(context.config.engine.partitions_default);
                topic.outcome = Ok(Created { id: TopicId::default(), partitions, settings: plan.settings });
            } else {
                context.engine.create_topic(place as u32, &topic.name, plan.partitions, plan.settings);
                self.waiting += 1;
            }
        }
        self.finish(context)
    }

    fn on_reply(&mut self, place: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        let topic = self.topics.get_mut(place as usize).expect("its own place was asked for");
        topic.outcome = match reply {
            Reply::TopicCreated(id) => {
                // Every shard has applied it; that it is gone again may be somebody else's doing.
                let metadata = context.engine.metadata();
                let (partitions, settings) = metadata.by_id.get(&id).map_or_else(
                    || (0, Vec::new()),
                    |topic| (topic.slots.len() as u32, topic.settings.clone()),
                );
                Ok(Created { id, partitions, settings })
            }
            Reply::Refused(Refusal::TopicExists(_)) => Err(exists(&topic.name)),
            Reply::Refused(refusal) => Err(refusal.into()),
            other => panic!("a creation was answered {other:?}"),
        };
        self.waiting -= 1;
        self.finish(context)
    }
}
