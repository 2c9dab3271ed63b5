//! A topic's settings as clients know them: Kafka's names, one row each, and whether it does anything here.
//! Source: Kafka's documentation, "Topic Configs".

use std::fmt::Write;

use millstream_engine::config::TopicConfig;
use millstream_engine::format::settings::{Setting, Values};

use super::super::{ErrorCode, Failure};
use crate::config::{KEYS, ServerConfig};

/// A setting that a topic may have.
#[derive(Debug)]
pub struct TopicSetting {
    /// Kafka's name for it.
    pub name: &'static str,
    /// The key of the node's configuration that holds where a topic says nothing.
    pub node_key: Option<&'static str>,
    /// What it does, in a sentence.
    pub about: &'static str,
    effect: Effect,
}

/// What heeds a setting.
#[derive(Debug)]
enum Effect {
    /// The engine, which has its values and its default.
    Engine,
    /// Nothing: it is stored and told, because stock software sets it.
    Stored { values: Values, default: &'static str },
}

const FLAG: Values = Values::OneOf(&["true", "false"]);
const MS: Values = Values::Whole(0, i64::MAX);
const NEVER: &str = "9223372036854775807";

/// Every setting that a topic may have; any other name is refused.
pub static TOPIC_SETTINGS: &[TopicSetting] = &[
    TopicSetting {
        name: "cleanup.policy",
        node_key: Some("log.cleanup.policy"),
        about: "`delete` removes what is past the retention. A topic with `compact` alone is kept whole: there is no compaction yet.",
        effect: Effect::Engine,
    },
    stored(
        "compression.type",
        Values::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        "Without effect: batches stay as their producers compressed them.",
    ),
    stored(
        "compression.gzip.level",
        Values::Whole(-1, 9),
        "-1",
        "Without effect: nothing is compressed here.",
    ),
    stored("compression.lz4.level", Values::Whole(1, 17), "9", "Without effect: nothing is compressed here."),
    stored(
        "compression.zstd.level",
        Values::Whole(-131_072, 22),
        "3",
        "Without effect: nothing is compressed here.",
    ),
    stored("delete.retention.ms", MS, "86400000", "Without effect until there is compaction."),
    stored(
        "file.delete.delay.ms",
        MS,
        "60000",
        "Without effect: the node's `log.segment.delete.delay.ms` holds.",
    ),
    stored(
        "flush.messages",
        Values::Whole(1, i64::MAX),
        NEVER,
        "Without effect: when records are flushed depends on `acks` and `millstream.durability.min`.",
    ),
    stored(
        "flush.ms",
        MS,
        NEVER,
        "Without effect: when records are flushed depends on `acks` and `millstream.durability.min`.",
    ),
    stored(
        "follower.replication.throttled.replicas",
        Values::Words,
        "",
        "Without effect: there is one copy.",
    ),
    TopicSetting {
        name: "index.interval.bytes",
        node_key: Some("log.index.interval.bytes"),
        about: "Bytes of log between two index entries.",
        effect: Effect::Engine,
    },
    stored("leader.replication.throttled.replicas", Values::Words, "", "Without effect: there is one copy."),
    stored(
        "local.retention.bytes",
        Values::Whole(-2, i64::MAX),
        "-2",
        "Without effect: there is no tiering.",
    ),
    stored("local.retention.ms", Values::Whole(-2, i64::MAX), "-2", "Without effect: there is no tiering."),
    stored(
        "max.compaction.lag.ms",
        Values::Whole(1, i64::MAX),
        NEVER,
        "Without effect until there is compaction.",
    ),
    TopicSetting {
        name: "max.message.bytes",
        node_key: Some("message.max.bytes"),
        about: "The largest record batch that is taken.",
        effect: Effect::Engine,
    },
    TopicSetting {
        name: "message.timestamp.after.max.ms",
        node_key: None,
        about: "How far ahead of the broker's clock a client's timestamps may be.",
        effect: Effect::Engine,
    },
    TopicSetting {
        name: "message.timestamp.before.max.ms",
        node_key: None,
        about: "How far behind the broker's clock a client's timestamps may be; the first one of a batch is looked at.",
        effect: Effect::Engine,
    },
    TopicSetting {
        name: "message.timestamp.type",
        node_key: Some("log.message.timestamp.type"),
        about: "Who stamps records: `CreateTime` (the client) or `LogAppendTime` (the broker).",
        effect: Effect::Engine,
    },
    TopicSetting {
        name: "millstream.durability.min",
        node_key: None,
        about: "Producers are answered no earlier, whatever `acks` they ask for: `memory`, `written` (survives a killed process) or `durable` (survives power loss).",
        effect: Effect::Engine,
    },
    stored("min.cleanable.dirty.ratio", Values::Ratio, "0.5", "Without effect until there is compaction."),
    stored("min.compaction.lag.ms", MS, "0", "Without effect until there is compaction."),
    stored(
        "min.insync.replicas",
        Values::Whole(1, i32::MAX as i64),
        "1",
        "Without effect: there is one copy, which is always in sync.",
    ),
    stored("preallocate", FLAG, "false", "Without effect: segments grow."),
    stored(
        "remote.log.copy.disable",
        Values::OneOf(&["false"]),
        "false",
        "There is no tiering: nothing else can be set.",
    ),
    stored(
        "remote.log.delete.on.disable",
        Values::OneOf(&["false"]),
        "false",
        "There is no tiering: nothing else can be set.",
    ),
    stored(
        "remote.storage.enable",
        Values::OneOf(&["false"]),
        "false",
        "There is no tiering: nothing else can be set.",
    ),
    TopicSetting {
        name: "retention.bytes",
        node_key: Some("log.retention.bytes"),
        about: "The oldest sealed segments are deleted while a partition is larger; -1 keeps them.",
        effect: Effect::Engine,
    },
    TopicSetting {
        name: "retention.ms",
        node_key: Some("log.retention.ms"),
        about: "Sealed segments whose newest record is older are deleted; -1 keeps them.",
        effect: Effect::Engine,
    },
    TopicSetting {
        name: "segment.bytes",
        node_key: Some("log.segment.bytes"),
        about: "A segment is sealed before it grows past this.",
        effect: Effect::Engine,
    },
    stored(
        "segment.index.bytes",
        Values::Whole(4, i32::MAX as i64),
        "10485760",
        "Without effect: indexes grow.",
    ),
    stored("segment.jitter.ms", MS, "0", "Without effect: segments are sealed when they are due."),
    TopicSetting {
        name: "segment.ms",
        node_key: Some("log.roll.ms"),
        about: "A segment is sealed when its first record is older than this.",
        effect: Effect::Engine,
    },
    stored(
        "unclean.leader.election.enable",
        FLAG,
        "false",
        "Without effect: there is one copy, which leads.",
    ),
];

const fn stored(
    name: &'static str,
    values: Values,
    default: &'static str,
    about: &'static str,
) -> TopicSetting {
    TopicSetting { name, node_key: None, about, effect: Effect::Stored { values, default } }
}

impl TopicSetting {
    /// The setting of that name.
    pub fn find(name: &str) -> Option<&'static TopicSetting> {
        TOPIC_SETTINGS.iter().find(|setting| setting.name == name)
    }

    fn in_engine(&self) -> &'static Setting {
        Setting::find(self.name).expect("a test holds the tables together")
    }

    /// What it may be.
    pub fn values(&self) -> Values {
        match self.effect {
            Effect::Engine => self.in_engine().values,
            Effect::Stored { values, .. } => values,
        }
    }

    /// What it is where neither the topic nor the node's configuration says anything.
    fn default(&self) -> String {
        match self.effect {
            Effect::Engine => (self.in_engine().get)(&TopicConfig::default()),
            Effect::Stored { default, .. } => default.to_owned(),
        }
    }

    /// What the node's configuration says, if that is something else.
    fn of_node(&self, config: &ServerConfig) -> Option<String> {
        let value = match self.effect {
            Effect::Engine => (self.in_engine().get)(&config.engine.topic),
            Effect::Stored { .. } => return None,
        };
        (value != self.default()).then_some(value)
    }
}

/// Where a value comes from: `ConfigSource` on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum Source {
    /// It was set for the topic.
    Topic = 1,
    /// It stands in the node's configuration.
    Node = 4,
    /// Nobody set it.
    Default = 5,
}

/// A value, and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// Under which name it was set there.
    pub name: &'static str,
    /// What it is.
    pub text: String,
    /// Where it comes from.
    pub source: Source,
}

/// What a setting of a topic is: the value that holds first, then those that it covers.
pub fn values_of(
    setting: &'static TopicSetting,
    topic: &[(String, String)],
    config: &ServerConfig,
) -> Vec<Value> {
    let node_name = setting.node_key.unwrap_or(setting.name);
    let set = topic.iter().find(|(name, _)| name == setting.name);
    let set = set.map(|(_, text)| Value { name: setting.name, text: text.clone(), source: Source::Topic });
    let node = setting.of_node(config).map(|text| Value { name: node_name, text, source: Source::Node });
    let default = Value { name: node_name, text: setting.default(), source: Source::Default };
    set.into_iter().chain(node).chain([default]).collect()
}

/// Checks that a topic may have this setting.
pub fn check(name: &str, value: &str) -> Result<(), Failure> {
    let invalid = |message| Err(Failure::new(ErrorCode::InvalidConfig, message));
    let Some(setting) = TopicSetting::find(name) else {
        return invalid(format!("Unknown topic config name: {name}"));
    };
    if setting.values().admit(value) {
        return Ok(());
    }
    invalid(format!("Invalid value {value} for configuration {name}: it must be {}", setting.values()))
}

/// The page that describes every setting of a topic.
pub fn documentation() -> String {
    let mut page = "# Topic settings\n\n\
        What a topic may be set to when it is created, and later by `AlterConfigs` and `IncrementalAlterConfigs`. The names are \
        Kafka's, those that\nbegin with `millstream.` ours. A setting that is changed holds at once, for what is stored from \
        then on. Where a topic says nothing, the\nnode's [configuration](configuration.md) holds, if it has such a key. Any other name \
        is refused with `INVALID_CONFIG`.\n\n\
        This page is made from the table in `server/src/kafka/admin/topic_settings.rs`; `cargo test` fails when it is out of \
        date and says how to\nrenew it.\n\n\
        | setting | is | default | key of the node | meaning |\n|---|---|---|---|---|\n"
        .to_owned();
    for setting in TOPIC_SETTINGS {
        let TopicSetting { name, node_key, about, .. } = setting;
        let key = node_key.filter(|key| KEYS.iter().any(|known| known.name == *key));
        let key = key.map_or_else(String::new, |key| format!("`{key}`"));
        let (values, default) = (setting.values(), setting.default());
        let default = if default.is_empty() { default } else { format!("`{default}`") };
        writeln!(page, "| `{name}` | {values} | {default} | {key} | {about} |")
            .expect("writing to a string does not fail");
    }
    page
}

#[cfg(test)]
mod tests {
    use millstream_engine::format::settings::SETTINGS;

    use super::*;

    #[test]
    fn what_the_engine_heeds_is_in_the_table_and_nothing_else_says_so() {
        for setting in &SETTINGS {
            let found = TopicSetting::find(setting.name).expect(setting.name);
            assert!(matches!(found.effect, Effect::Engine), "{}", setting.name);
        }
        let heeded = TOPIC_SETTINGS.iter().filter(|setting| matches!(setting.effect, Effect::Engine));
        assert_eq!(heeded.count(), SETTINGS.len());
    }

    #[test]
    fn names_are_in_order_and_defaults_are_values() {
        assert!(
            TOPIC_SETTINGS
                .is_sorted_by_key(|setting| setting.name.replace("compression.type", "compression."))
        );
        for setting in TOPIC_SETTINGS {
            check(setting.name, &setting.default()).expect(setting.name);
        }
    }

    #[test]
    fn unknown_names_and_values_out_of_range_are_refused_in_words() {
        let refused = |name, value| check(name, value).expect_err(name).message.into_owned();
        assert_eq!(refused("retention", "1"), "Unknown topic config name: retention");
        assert_eq!(
            refused("retention.ms", "-2"),
            "Invalid value -2 for configuration retention.ms: it must be a whole number of at least -1"
        );
        assert!(refused("cleanup.policy", "archive").contains("one or more of compact, delete"));
        assert!(refused("remote.storage.enable", "true").contains("one of false"));
    }
}
