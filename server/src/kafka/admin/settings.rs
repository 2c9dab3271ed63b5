//! What has settings: topics, and the node. Those of the node stand in its configuration file.

use std::sync::Arc;

use millstream_engine::format::settings::Values;
use millstream_engine::shard::metadata::{Metadata, Topic};

use super::super::{ErrorCode, Failure};
use super::describe_configs::unsupported;
use super::topic_settings::{Source, TOPIC_SETTINGS, Value, values_of};
use crate::config::{KEYS, ServerConfig};

/// `ConfigResource.Type` on the wire.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// A thing with settings.
pub enum Resource {
    /// A topic.
    Topic(Arc<Topic>),
    /// This node.
    Node,
    /// All nodes, where a cluster's defaults would be kept.
    EveryNode,
}

/// Finds what a client means.
pub fn find(kind: i8, name: &str, metadata: &Metadata) -> Result<Resource, Failure> {
    match kind {
        TOPIC => match metadata.topic(name) {
            Some(topic) => Ok(Resource::Topic(Arc::clone(topic))),
            None => Err(Failure::new(ErrorCode::UnknownTopicOrPartition, "there is no such topic")),
        },
        BROKER if name.is_empty() => Ok(Resource::EveryNode),
        BROKER if name == metadata.node_id.to_string() => Ok(Resource::Node),
        BROKER => {
            let message = format!("there is no node {name:?} here, only {}", metadata.node_id);
            Err(Failure::new(ErrorCode::InvalidRequest, message))
        }
        kind => Err(unsupported(kind)),
    }
}

/// `ConfigType` on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum Kind {
    /// `true` or `false`.
    Boolean = 1,
    /// A text.
    String = 2,
    /// A number of 32 bits.
    Int = 3,
    /// A number of 64 bits.
    Long = 5,
    /// A number with a fraction.
    Double = 6,
    /// Words with commas between them.
    List = 7,
}

impl From<Values> for Kind {
    fn from(values: Values) -> Kind {
        match values {
            Values::Whole(_, max) if max <= i64::from(i32::MAX) => Kind::Int,
            Values::Whole(..) => Kind::Long,
            Values::Ratio => Kind::Double,
            Values::OneOf(words) if words.iter().all(|word| ["true", "false"].contains(word)) => {
                Kind::Boolean
            }
            Values::OneOf(_) => Kind::String,
            Values::SomeOf(_) | Values::Words => Kind::List,
        }
    }
}

/// A setting as it is described.
#[derive(Debug)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// The value that holds first, then those that it covers.
    pub values: Vec<Value>,
    /// Whether no request can change it.
    pub read_only: bool,
    /// What kind of value it has.
    pub kind: Kind,
    /// What it does.
    pub about: &'static str,
}

/// Every setting of a resource.
pub fn rows(resource: &Resource, config: &ServerConfig, metadata: &Metadata) -> Vec<Row> {
    match resource {
        Resource::Topic(topic) => topic_rows(topic, config),
        Resource::Node | Resource::EveryNode => node_rows(config, metadata),
    }
}

fn topic_rows(topic: &Topic, config: &ServerConfig) -> Vec<Row> {
    let row = |setting: &'static super::topic_settings::TopicSetting| Row {
        name: setting.name,
        values: values_of(setting, &topic.settings, config),
        read_only: false,
        kind: setting.values().into(),
        about: setting.about,
    };
    TOPIC_SETTINGS.iter().map(row).collect()
}

/// What Kafka's tools look for in a node's settings, and what holds here.
const FACTS: [(&str, Kind, &str, &str); 6] = [
    ("compression.type", Kind::String, "producer", "Batches stay as their producers compressed them."),
    ("default.replication.factor", Kind::Int, "1", "There is one node."),
    ("delete.topic.enable", Kind::Boolean, "true", "Topics can be deleted."),
    ("log.cleanup.policy", Kind::List, "delete", "What holds for topics without `cleanup.policy`."),
    ("min.insync.replicas", Kind::Int, "1", "There is one copy."),
    ("unclean.leader.election.enable", Kind::Boolean, "false", "There is one copy, which leads."),
];

fn node_rows(config: &ServerConfig, metadata: &Metadata) -> Vec<Row> {
    let defaults = ServerConfig::default();
    let fact = |name, kind, text: String, about| Row {
        name,
        values: vec![Value { name, text, source: Source::Default }],
        read_only: true,
        kind,
        about,
    };
    let mut rows: Vec<Row> =
        FACTS.iter().map(|(name, kind, text, about)| fact(name, *kind, (*text).to_owned(), about)).collect();
    for name in ["broker.id", "node.id"] {
        rows.push(fact(name, Kind::Int, metadata.node_id.to_string(), "This node's number."));
    }
    for key in KEYS {
        let (text, default) = (key.text(config), key.text(&defaults));
        let kind = if text.parse::<i64>().is_ok() {
            Kind::Long
        } else if text.parse::<bool>().is_ok() {
            Kind::Boolean
        } else {
            Kind::String
        };
        let set = (text != default).then_some(Value { name: key.name, text, source: Source::Node });
        let default = Value { name: key.name, text: default, source: Source::Default };
        let values = set.into_iter().chain([default]).collect();
        rows.push(Row { name: key.name, values, read_only: true, kind, about: key.about });
    }
    rows
}
