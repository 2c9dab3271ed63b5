//! `Metadata`: the node, and the topics with their partitions. Topics that are asked for and do not exist are created,
//! where the client and the configuration allow it.

use std::collections::BTreeSet;

use millstream_engine::error::Refusal;
use millstream_engine::format::partition::is_topic_name;
use millstream_engine::shard::metadata::{Metadata, Topic};
use millstream_engine::shard::request::Reply;
use millstream_engine::types::TopicId;

use super::admin::create_topics::collides;
use super::codec::{Malformed, Reader, Writer};
use super::{Context, Done, ErrorCode, code, is_internal};
use crate::limits::{CREATIONS_PER_REQUEST_MAX, TOPICS_PER_REQUEST_MAX};

/// The first version in which topics may be asked for by id.
const BY_ID_FROM: i16 = 12;
/// "Nobody asked" in the fields that tell what the client is allowed to do.
pub(super) const NOT_ASKED: i32 = i32::MIN;
/// Everything that can be done with a topic: there are no access rules yet. Bits by `AclOperation`.
const ALL_TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Everything that can be done with a cluster.
pub(super) const ALL_CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;

/// A request for metadata.
#[derive(Debug)]
pub struct MetadataRequest {
    /// `None` means all topics.
    topics: Option<Vec<Wanted>>,
    may_create: bool,
    wants_cluster_operations: bool,
    wants_topic_operations: bool,
    /// Creations that are not answered.
    waiting: usize,
}

/// A topic asked for.
#[derive(Debug)]
struct Wanted {
    id: TopicId,
    name: Option<Box<str>>,
    /// What to answer if it is still not there.
    missing: ErrorCode,
}

impl MetadataRequest {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<MetadataRequest, Malformed> {
        let count = reader.nullable_count(1)?;
        // The first version could not say null.
        let count = if version == 0 { count.filter(|count| *count > 0) } else { count };
        let topics = match count {
            None => None,
            Some(count) if count > TOPICS_PER_REQUEST_MAX => {
                return Err(Malformed("the request names too many topics"));
            }
            Some(count) => {
                let mut topics = Vec::with_capacity(count);
                // Each is told of once, as in Kafka, however often it is named: the answer may be large.
                let mut named = BTreeSet::new();
                for _ in 0..count {
                    let id = if version >= 10 { reader.uuid()? } else { TopicId::default() };
                    let name = if version >= 10 { reader.nullable_string()? } else { Some(reader.string()?) };
                    reader.tags()?;
                    if named.insert((id, name)) {
                        topics.push(Wanted::new(id, name, version));
                    }
                }
                Some(topics)
            }
        };
        let may_create = version < 4 || reader.bool()?;
        let wants_cluster_operations = (8..=10).contains(&version) && reader.bool()?;
        let wants_topic_operations = version >= 8 && reader.bool()?;
        reader.tags()?;
        Ok(MetadataRequest {
            topics,
            may_create,
            wants_cluster_operations,
            wants_topic_operations,
            waiting: 0,
        })
    }

    /// Creates what is missing, where that is allowed.
    pub fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        if self.may_create && context.config.auto_create_topics {
            let metadata = context.engine.metadata();
            let mut creating = BTreeSet::new();
            for (place, wanted) in self.topics.iter_mut().flatten().enumerate() {
                if !wanted.can_be_created(&metadata) {
                    continue;
                }
                let name = wanted.name.as_deref().unwrap_or_default();
                if is_internal(name) {
                    continue; // Whoever it belongs to creates it.
                }
                if collides(name, &metadata).is_some() {
                    wanted.missing = ErrorCode::InvalidTopic;
                    continue;
                }
                wanted.missing = ErrorCode::LeaderNotAvailable;
                if creating.len() < CREATIONS_PER_REQUEST_MAX && creating.insert(name) {
                    context.engine.create_topic(place as u32, name, None, Vec::new());
                }
            }
            self.waiting = creating.len();
        }
        self.finish(context)
    }

    /// Takes the answer to a creation.
    pub fn on_reply(&mut self, place: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        let refusal = match reply {
            // Until this shard has applied it, too, there is no leader to name.
            Reply::TopicCreated(_) | Reply::Refused(Refusal::TopicExists(_)) => None,
            Reply::Refused(refusal) => Some(refusal),
            other => panic!("a creation was answered {other:?}"),
        };
        let wanted = self.topics.as_mut().and_then(|topics| topics.get_mut(place as usize));
        if let (Some(wanted), Some(refusal)) = (wanted, refusal) {
            wanted.missing = code(&refusal);
        }
        self.waiting -= 1;
        self.finish(context)
    }

    fn finish(&self, context: &Context<'_>) -> Option<Done> {
        (self.waiting == 0).then(|| self.answer(context))
    }

    fn answer(&self, context: &Context<'_>) -> Done {
        let version = context.header.version;
        let metadata = context.engine.metadata();
        let mut writer = context.response(256);
        write_node(&mut writer, version, context, &metadata);
        let operations = if self.wants_topic_operations { ALL_TOPIC_OPERATIONS } else { NOT_ASKED };
        match &self.topics {
            None => {
                writer.count(metadata.topics.size());
                for topic in metadata.topics.values() {
                    write_topic(&mut writer, version, &metadata, topic, operations);
                }
            }
            Some(topics) => {
                writer.count(topics.len());
                for wanted in topics {
                    match wanted.find(&metadata) {
                        Some(topic) => write_topic(&mut writer, version, &metadata, topic, operations),
                        None => wanted.write_missing(&mut writer, version),
                    }
                }
            }
        }
        if (8..=10).contains(&version) {
            writer.i32(if self.wants_cluster_operations { ALL_CLUSTER_OPERATIONS } else { NOT_ASKED });
        }
        writer.tags();
        Done::answer(writer)
    }
}

impl Wanted {
    fn new(id: TopicId, name: Option<&str>, version: i16) -> Wanted {
        let by_id = id != TopicId::default();
        let missing = if version < BY_ID_FROM && (by_id || name.is_none()) {
            ErrorCode::InvalidRequest
        } else if by_id {
            ErrorCode::UnknownTopicId
        } else if name.is_some_and(is_topic_name) {
            ErrorCode::UnknownTopicOrPartition
        } else {
            ErrorCode::InvalidTopic
        };
        Wanted { id, name: name.map(Box::from), missing }
    }

    /// The topic, if it is there.
    fn find<'a>(&self, metadata: &'a Metadata) -> Option<&'a Topic> {
        match self.missing {
            ErrorCode::InvalidRequest => None,
            ErrorCode::UnknownTopicId => metadata.by_id.get(&self.id).map(|topic| &**topic),
            _ => metadata.topic(self.name.as_deref()?).map(|topic| &**topic),
        }
    }

    /// Whether the topic is asked for by a name that it could have, and is not there.
    fn can_be_created(&self, metadata: &Metadata) -> bool {
        self.missing == ErrorCode::UnknownTopicOrPartition && self.find(metadata).is_none()
    }

    fn write_missing(&self, writer: &mut Writer, version: i16) {
        writer.error(self.missing);
        if version >= BY_ID_FROM {
            writer.nullable_string(self.name.as_deref());
        } else {
            writer.string(self.name.as_deref().unwrap_or_default());
        }
        if version >= 10 {
            writer.uuid(self.id);
        }
        if version >= 1 {
            writer.bool(false);
        }
        writer.count(0);
        if version >= 8 {
            writer.i32(NOT_ASKED);
        }
        writer.tags();
    }
}

/// Everything before the topics: this node is the only broker, and the controller.
fn write_node(writer: &mut Writer, version: i16, context: &Context<'_>, metadata: &Metadata) {
    let node_id = metadata.node_id as i32;
    let (host, port) = context.config.advertised(context.local);
    if version >= 3 {
        writer.i32(0);
    }
    writer.count(1);
    writer.i32(node_id);
    writer.string(&host);
    writer.i32(i32::from(port));
    if version >= 1 {
        writer.nullable_string(None);
    }
    writer.tags();
    if version >= 2 {
        writer.nullable_string(Some(&metadata.cluster_id.to_string()));
    }
    if version >= 1 {
        writer.i32(node_id);
    }
}

fn write_topic(writer: &mut Writer, version: i16, metadata: &Metadata, topic: &Topic, operations: i32) {
    let node_id = metadata.node_id as i32;
    writer.error(ErrorCode::None);
    writer.string(&topic.name);
    if version >= 10 {
        writer.uuid(topic.id);
    }
    if version >= 1 {
        writer.bool(is_internal(&topic.name));
    }
    writer.count(topic.slots.len());
    for index in 0..topic.slots.len() {
        writer.error(ErrorCode::None);
        writer.i32(index as i32);
        writer.i32(node_id);
        if version >= 7 {
            writer.i32(metadata.leader_epoch.0 as i32);
        }
        // Replicas, and those in sync.
        for _ in 0..2 {
            writer.count(1);
            writer.i32(node_id);
        }
        if version >= 5 {
            writer.count(0);
        }
        writer.tags();
    }
    if version >= 8 {
        writer.i32(operations);
    }
    writer.tags();
}

/// The answer to a version that is not known yet. From version 13 on there is a place for an error.
pub fn answer_too_new(context: &Context<'_>) -> Done {
    let mut writer = context.response(64);
    let version = context.header.version;
    write_node(&mut writer, version, context, &context.engine.metadata());
    writer.count(0);
    writer.error(ErrorCode::UnsupportedVersion);
    writer.tags();
    Done::answer(writer)
}
