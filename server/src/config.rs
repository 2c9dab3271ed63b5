//! The settings of a node: one table of keys, from which the file is read and the page `docs/configuration.md` is made.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::str::FromStr;

use millstream_engine::config::Config;
use millstream_engine::limits::{BATCH_BYTES_MAX, PARTITIONS_PER_TOPIC_MAX, SEGMENT_BYTES_MAX, SHARDS_MAX};
use toml::Value;

use crate::limits::{MEMBERS_PER_GROUP_MAX, REQUEST_BYTES_MAX};

/// A node's settings.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where everything is stored.
    pub data_dir: String,
    /// Shards to run; `None` means one per core that this process may use.
    pub shards: Option<u16>,
    /// Where Kafka clients are listened for. Port 0 picks a free one.
    pub kafka_listen: SocketAddr,
    /// Where RabbitMQ clients are listened for. Port 0 picks a free one.
    pub amqp_listen: SocketAddr,
    /// Where health and metrics are answered over HTTP. Port 0 picks a free one.
    pub http_listen: SocketAddr,
    /// What clients are told to connect to; `None` means the address at which they reached us.
    pub kafka_advertise: Option<Advertise>,
    /// Whether asking for a topic creates it.
    pub auto_create_topics: bool,
    /// Whether a topic that is to have more copies than there are nodes gets as many as there are.
    pub clamp_replication: bool,
    /// The largest request, in bytes.
    pub request_bytes_max: usize,
    /// Bytes of requests that have arrived in part, over all connections of a shard.
    pub partial_bytes_max: usize,
    /// Bytes of answers that Kafka's clients have not taken, over all connections of a shard.
    pub answer_bytes_max: usize,
    /// How long a connection may be silent, in ms, before it is closed.
    pub idle_ms_max: u64,
    /// Consumer groups.
    pub groups: GroupConfig,
    /// RabbitMQ's clients.
    pub amqp: AmqpConfig,
    /// A file with definitions to load at each start; empty: none.
    pub load_definitions: String,
    /// What is in it.
    pub definitions: Option<String>,
    /// What is logged: a level, or a filter as `tracing` has them.
    pub log_level: String,
    /// The engine's part. Its `shards` is set when the node starts.
    pub engine: Config,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            data_dir: "./millstream-data".to_owned(),
            shards: None,
            kafka_listen: SocketAddr::from(([127, 0, 0, 1], 9092)),
            amqp_listen: SocketAddr::from(([127, 0, 0, 1], 5672)),
            http_listen: SocketAddr::from(([127, 0, 0, 1], 15672)),
            kafka_advertise: None,
            auto_create_topics: true,
            clamp_replication: false,
            request_bytes_max: 100 << 20,
            partial_bytes_max: 512 << 20,
            answer_bytes_max: 256 << 20,
            idle_ms_max: 600_000,
            groups: GroupConfig::default(),
            amqp: AmqpConfig::default(),
            load_definitions: String::new(),
            definitions: None,
            log_level: "info".to_owned(),
            engine: Config { journal_bytes: 0, ..Config::default() },
        }
    }
}

/// The settings of consumer groups.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// How long the first generation of a group waits for more members, in ms.
    pub initial_delay_ms: u64,
    /// The shortest session timeout that a member may ask for, in ms.
    pub session_min_ms: i32,
    /// The longest.
    pub session_max_ms: i32,
    /// Members of a group.
    pub members_max: usize,
    /// Partitions of the topic that groups are kept in, when it is made.
    pub offsets_partitions: u32,
    /// How long offsets outlive their group's last member, in minutes.
    pub offsets_retention_minutes: i64,
    /// How often that is looked at, in ms.
    pub offsets_retention_check_ms: u64,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            initial_delay_ms: 3_000,
            session_min_ms: 6_000,
            session_max_ms: 1_800_000,
            members_max: MEMBERS_PER_GROUP_MAX,
            offsets_partitions: 50,
            offsets_retention_minutes: 7 * 24 * 60,
            offsets_retention_check_ms: 600_000,
        }
    }
}

/// What RabbitMQ's clients are told.
#[derive(Clone, Debug)]
pub struct AmqpConfig {
    /// How long either side may be silent, in seconds, if the client has no wish of its own.
    pub heartbeat_s: u16,
    /// What the broker calls itself; some clients do this or that for some names.
    pub product: String,
    /// Which version it says that it is.
    pub version: String,
    /// Whether the user `guest` may come from this machine only.
    pub guest_is_local: bool,
    /// Whether a fresh node gets the user `guest`.
    pub founds_user: bool,
}

impl Default for AmqpConfig {
    fn default() -> AmqpConfig {
        AmqpConfig {
            heartbeat_s: 60,
            product: "Millstream".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            guest_is_local: true,
            founds_user: true,
        }
    }
}

/// What clients are told to connect to: `HOST` or `HOST:PORT`, an IPv6 address in brackets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertise {
    /// A name or address that clients can resolve.
    pub host: String,
    /// `None` means the port that the client reached us at.
    pub port: Option<u16>,
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Advertise, String> {
        let wrong = || format!("`{text}` is not HOST or HOST:PORT (an IPv6 address goes in brackets)");
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(wrong)?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?),
            None if port.is_empty() => None,
            None => return Err(wrong()),
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(wrong());
        }
        Ok(Advertise { host: host.to_owned(), port })
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl ServerConfig {
    /// Reads a configuration file's text. An error names the key and what is wrong with it.
    pub fn parse(text: &str) -> Result<ServerConfig, String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let mut config = ServerConfig::default();
        config.apply("", &table)?;
        Ok(config)
    }

    /// Sets what a table holds; tables within tables make dotted keys.
    fn apply(&mut self, prefix: &str, table: &toml::Table) -> Result<(), String> {
        for (name, value) in table {
            let name = format!("{prefix}{name}");
            match (KEYS.iter().find(|key| key.name == name), value) {
                (Some(key), value) => {
                    (key.set)(self, value).map_err(|wrong| format!("`{name}` must be {wrong}"))?;
                }
                (None, Value::Table(table)) => self.apply(&format!("{name}."), table)?,
                (None, _) => return Err(format!("unknown key `{name}`")),
            }
        }
        Ok(())
    }

    /// The host and port that a client is told to connect to, who reached us at `local`.
    pub fn advertised(&self, local: SocketAddr) -> (Cow<'_, str>, u16) {
        match &self.kafka_advertise {
            Some(advertise) => (Cow::Borrowed(&advertise.host), advertise.port.unwrap_or(local.port())),
            None => (Cow::Owned(local.ip().to_canonical().to_string()), local.port()),
        }
    }
}

/// A key of the configuration file.
pub struct Key {
    /// Its dotted name.
    pub name: &'static str,
    /// What it sets, in a sentence.
    pub about: &'static str,
    /// Its value in a configuration, as the file would have it.
    get: fn(&ServerConfig) -> String,
    /// Sets it; an error completes "must be".
    set: fn(&mut ServerConfig, &Value) -> Result<(), String>,
}

impl Key {
    /// Its value in a configuration, as a text without quotes.
    pub fn text(&self, config: &ServerConfig) -> String {
        let written = (self.get)(config);
        let table = format!("value = {written}").parse::<toml::Table>().ok();
        let text = table.and_then(|table| Some(table.get("value")?.as_str()?.to_owned()));
        text.unwrap_or(written)
    }
}

/// Every key there is.
pub static KEYS: &[Key] = &[
    Key {
        name: "data.dir",
        about: "The directory that holds everything. `--data` comes first.",
        get: |config| quoted(&config.data_dir),
        set: |config, value| text(value).map(|dir| dir.clone_into(&mut config.data_dir)),
    },
    Key {
        name: "shards",
        about: "Shards to run, one thread each; 0 means one per core that the process may use. `--shards` comes first.",
        get: |config| config.shards.unwrap_or(0).to_string(),
        set: |config, value| {
            integer(value, 0, i64::from(SHARDS_MAX))
                .map(|shards| config.shards = Some(shards as u16).filter(|shards| *shards > 0))
        },
    },
    Key {
        name: "kafka.listen",
        about: "Where Kafka clients are listened for; port 0 picks a free one. `--kafka` comes first.",
        get: |config| quoted(&config.kafka_listen.to_string()),
        set: |config, value| address(value, "127.0.0.1:9092").map(|listen| config.kafka_listen = listen),
    },
    Key {
        name: "amqp.listen",
        about: "Where RabbitMQ clients are listened for; port 0 picks a free one. `--amqp` comes first.",
        get: |config| quoted(&config.amqp_listen.to_string()),
        set: |config, value| address(value, "127.0.0.1:5672").map(|listen| config.amqp_listen = listen),
    },
    Key {
        name: "http.listen",
        about: "Where health, metrics (docs/metrics.md) and RabbitMQ's management (docs/management.md) are answered over HTTP; port 0 picks a free one. `--http` comes first.",
        get: |config| quoted(&config.http_listen.to_string()),
        set: |config, value| address(value, "127.0.0.1:15672").map(|listen| config.http_listen = listen),
    },
    Key {
        name: "kafka.advertise",
        about: "What clients are told to connect to, `HOST` or `HOST:PORT`; empty means the address at which they reached us. `--advertise` comes first.",
        get: |config| quoted(&config.kafka_advertise.as_ref().map(Advertise::to_string).unwrap_or_default()),
        set: |config, value| {
            let advertise = text(value)?;
            config.kafka_advertise = if advertise.is_empty() {
                None
            } else {
                Some(advertise.parse().map_err(|_| "HOST or HOST:PORT")?)
            };
            Ok(())
        },
    },
    Key {
        name: "auto.create.topics.enable",
        about: "Whether asking for the metadata of a topic that does not exist creates it.",
        get: |config| config.auto_create_topics.to_string(),
        set: |config, value| boolean(value).map(|enable| config.auto_create_topics = enable),
    },
    Key {
        name: "millstream.replication.clamp",
        about: "Whether a topic that is to be created with more copies than there are nodes gets as many as there are, instead of an error.",
        get: |config| config.clamp_replication.to_string(),
        set: |config, value| boolean(value).map(|clamp| config.clamp_replication = clamp),
    },
    Key {
        name: "num.partitions",
        about: "Partitions of a topic that is created without a count.",
        get: |config| config.engine.partitions_default.to_string(),
        set: |config, value| {
            integer(value, 1, i64::from(PARTITIONS_PER_TOPIC_MAX))
                .map(|count| config.engine.partitions_default = count as u32)
        },
    },
    Key {
        name: "socket.request.max.bytes",
        about: "The largest request; a larger one closes its connection.",
        get: |config| config.request_bytes_max.to_string(),
        set: |config, value| {
            integer(value, 1024, REQUEST_BYTES_MAX as i64)
                .map(|bytes| config.request_bytes_max = bytes as usize)
        },
    },
    Key {
        name: "queued.max.request.bytes",
        about: "Bytes of large requests that may be arriving at a time, per shard; the connection that would pass this is closed.",
        get: |config| config.partial_bytes_max.to_string(),
        set: |config, value| {
            integer(value, 1 << 20, i64::MAX).map(|bytes| config.partial_bytes_max = bytes as usize)
        },
    },
    Key {
        name: "queued.max.response.bytes",
        about: "Bytes of answers, without the batches in them, that Kafka's clients have not taken yet, per shard. From half of that on, connections that take nothing are closed; at that many, no more requests are begun.",
        get: |config| config.answer_bytes_max.to_string(),
        set: |config, value| {
            integer(value, 1 << 20, i64::MAX).map(|bytes| config.answer_bytes_max = bytes as usize)
        },
    },
    Key {
        name: "connections.max.idle.ms",
        about: "A connection is closed when its client has neither sent nor taken anything for so long.",
        get: |config| config.idle_ms_max.to_string(),
        set: |config, value| integer(value, 1000, 1 << 40).map(|ms| config.idle_ms_max = ms as u64),
    },
    Key {
        name: "message.max.bytes",
        about: "The largest record batch of a topic that does not say otherwise (`max.message.bytes`).",
        get: |config| config.engine.topic.max_message_bytes.to_string(),
        set: |config, value| {
            integer(value, 1, BATCH_BYTES_MAX as i64)
                .map(|bytes| config.engine.topic.max_message_bytes = bytes as u32)
        },
    },
    Key {
        name: "log.segment.bytes",
        about: "A segment is sealed before it grows past this, unless its topic says otherwise.",
        get: |config| config.engine.topic.segment_bytes.to_string(),
        set: |config, value| {
            integer(value, 1 << 20, SEGMENT_BYTES_MAX as i64)
                .map(|bytes| config.engine.topic.segment_bytes = bytes as u32)
        },
    },
    Key {
        name: "log.roll.ms",
        about: "A segment is sealed when its first record is older than this, unless its topic says otherwise.",
        get: |config| config.engine.topic.segment_ms.to_string(),
        set: |config, value| integer(value, 1, i64::MAX).map(|ms| config.engine.topic.segment_ms = ms),
    },
    Key {
        name: "log.retention.ms",
        about: "Sealed segments whose newest record is older are deleted, unless their topic says otherwise; -1 keeps them.",
        get: |config| config.engine.topic.retention_ms.to_string(),
        set: |config, value| integer(value, -1, i64::MAX).map(|ms| config.engine.topic.retention_ms = ms),
    },
    Key {
        name: "log.retention.bytes",
        about: "The oldest sealed segments are deleted while a partition is larger, unless its topic says otherwise; -1 keeps them.",
        get: |config| config.engine.topic.retention_bytes.to_string(),
        set: |config, value| {
            integer(value, -1, i64::MAX).map(|bytes| config.engine.topic.retention_bytes = bytes)
        },
    },
    Key {
        name: "log.retention.check.interval.ms",
        about: "How often retention is checked.",
        get: |config| config.engine.retention_check_ms.to_string(),
        set: |config, value| {
            integer(value, 1, i64::MAX).map(|ms| config.engine.retention_check_ms = ms as u64)
        },
    },
    Key {
        name: "log.segment.delete.delay.ms",
        about: "How long a deleted file stays before it is removed, so that reads under way can end.",
        get: |config| config.engine.delete_delay_ms.to_string(),
        set: |config, value| integer(value, 0, i64::MAX).map(|ms| config.engine.delete_delay_ms = ms as u64),
    },
    Key {
        name: "disk.scrub.interval.ms",
        about: "How often each sealed segment is read and checked in the background, slowly; 0 means never. What is found is logged and counted.",
        get: |config| config.engine.scrub_interval_ms.to_string(),
        set: |config, value| {
            integer(value, 0, i64::MAX / 1_000_000).map(|ms| config.engine.scrub_interval_ms = ms as u64)
        },
    },
    Key {
        name: "log.index.interval.bytes",
        about: "Bytes of log between two index entries, unless the topic says otherwise.",
        get: |config| config.engine.topic.index_interval_bytes.to_string(),
        set: |config, value| {
            integer(value, 1, i64::from(i32::MAX))
                .map(|bytes| config.engine.topic.index_interval_bytes = bytes as u32)
        },
    },
    Key {
        name: "log.message.timestamp.type",
        about: "Who stamps records, unless their topic says otherwise: `CreateTime` (the client) or `LogAppendTime` (the broker).",
        get: |config| {
            quoted(if config.engine.topic.log_append_time { "LogAppendTime" } else { "CreateTime" })
        },
        set: |config, value| {
            config.engine.topic.log_append_time = match text(value)? {
                "CreateTime" => false,
                "LogAppendTime" => true,
                _ => return Err("\"CreateTime\" or \"LogAppendTime\"".to_owned()),
            };
            Ok(())
        },
    },
    Key {
        name: "group.initial.rebalance.delay.ms",
        about: "How long the first generation of a consumer group waits for more members.",
        get: |config| config.groups.initial_delay_ms.to_string(),
        set: |config, value| {
            integer(value, 0, i64::from(i32::MAX)).map(|ms| config.groups.initial_delay_ms = ms as u64)
        },
    },
    Key {
        name: "group.min.session.timeout.ms",
        about: "The shortest session timeout that a member of a group may ask for.",
        get: |config| config.groups.session_min_ms.to_string(),
        set: |config, value| {
            integer(value, 1, i64::from(i32::MAX)).map(|ms| config.groups.session_min_ms = ms as i32)
        },
    },
    Key {
        name: "group.max.session.timeout.ms",
        about: "The longest session timeout that a member of a group may ask for.",
        get: |config| config.groups.session_max_ms.to_string(),
        set: |config, value| {
            integer(value, 1, i64::from(i32::MAX)).map(|ms| config.groups.session_max_ms = ms as i32)
        },
    },
    Key {
        name: "group.max.size",
        about: "Members that a group may have.",
        get: |config| config.groups.members_max.to_string(),
        set: |config, value| {
            integer(value, 1, MEMBERS_PER_GROUP_MAX as i64)
                .map(|members| config.groups.members_max = members as usize)
        },
    },
    Key {
        name: "offsets.topic.num.partitions",
        about: "Partitions of the topic that groups are kept in. It counts when that topic is made, at the first need.",
        get: |config| config.groups.offsets_partitions.to_string(),
        set: |config, value| {
            integer(value, 1, i64::from(PARTITIONS_PER_TOPIC_MAX))
                .map(|partitions| config.groups.offsets_partitions = partitions as u32)
        },
    },
    Key {
        name: "offsets.retention.minutes",
        about: "How long committed offsets are kept when their group has no members any more, or none that reads their topic.",
        get: |config| config.groups.offsets_retention_minutes.to_string(),
        set: |config, value| {
            integer(value, 1, i64::from(i32::MAX))
                .map(|minutes| config.groups.offsets_retention_minutes = minutes)
        },
    },
    Key {
        name: "offsets.retention.check.interval.ms",
        about: "How often the age of committed offsets is looked at.",
        get: |config| config.groups.offsets_retention_check_ms.to_string(),
        set: |config, value| {
            integer(value, 1, i64::MAX).map(|ms| config.groups.offsets_retention_check_ms = ms as u64)
        },
    },
    Key {
        name: "amqp.heartbeat",
        about: "How long either side of an AMQP connection may be silent, in seconds, if its client has no wish of its own; 0: for ever.",
        get: |config| config.amqp.heartbeat_s.to_string(),
        set: |config, value| {
            integer(value, 0, i64::from(u16::MAX)).map(|seconds| config.amqp.heartbeat_s = seconds as u16)
        },
    },
    Key {
        name: "amqp.product",
        about: "What AMQP clients are told that the broker is called. Some of them do this or that if it is `RabbitMQ`.",
        get: |config| quoted(&config.amqp.product),
        set: |config, value| text(value).map(|product| product.clone_into(&mut config.amqp.product)),
    },
    Key {
        name: "amqp.version",
        about: "Which version of that.",
        get: |config| quoted(&config.amqp.version),
        set: |config, value| text(value).map(|version| version.clone_into(&mut config.amqp.version)),
    },
    Key {
        name: "amqp.guest.local",
        about: "Whether the user `guest` may log in from this machine only.",
        get: |config| config.amqp.guest_is_local.to_string(),
        set: |config, value| boolean(value).map(|local| config.amqp.guest_is_local = local),
    },
    Key {
        name: "load_definitions",
        about: "A file with RabbitMQ's definitions (docs/management.md) to load at each start; empty means none. `--load-definitions` comes first.",
        get: |config| quoted(&config.load_definitions),
        set: |config, value| text(value).map(|path| path.clone_into(&mut config.load_definitions)),
    },
    Key {
        name: "journal.bytes",
        about: "Bytes that the journals of all shards may grow to; 0 means 1/16 of the machine's memory, at most 1 GiB. The newest bytes that are kept in memory are as many at most, and an eighth while no reader comes late.",
        get: |config| config.engine.journal_bytes.to_string(),
        set: |config, value| {
            integer(value, 0, i64::MAX).map(|bytes| config.engine.journal_bytes = bytes as u64)
        },
    },
    Key {
        name: "disk.free_min",
        about: "Bytes: records are refused while the disk has less than this free.",
        get: |config| config.engine.disk_free_min_bytes.to_string(),
        set: |config, value| {
            integer(value, 0, i64::MAX).map(|bytes| config.engine.disk_free_min_bytes = bytes as u64)
        },
    },
    Key {
        name: "reader.pinned_bytes",
        about: "Bytes of buffers that slow readers may pin per shard before their bytes are copied.",
        get: |config| config.engine.pinned_bytes.to_string(),
        set: |config, value| {
            integer(value, 1 << 20, i64::MAX).map(|bytes| config.engine.pinned_bytes = bytes as u64)
        },
    },
    Key {
        name: "queue.index.bytes",
        about: "Bytes of memory that the indexes of queues may take, per shard; what is more of them goes to a file, as far as the messages are not in the journal any more.",
        get: |config| config.engine.queue_index_bytes.to_string(),
        set: |config, value| {
            integer(value, 1 << 20, i64::MAX).map(|bytes| config.engine.queue_index_bytes = bytes as u64)
        },
    },
    Key {
        name: "queue.transient.bytes",
        about: "Bytes of memory that transient messages, and those of transient queues, may take per shard. While more than half of it is taken they are written to files; when all of it is, publishers wait.",
        get: |config| config.engine.queue_passing_bytes.to_string(),
        set: |config, value| {
            integer(value, 4 << 20, i64::MAX).map(|bytes| config.engine.queue_passing_bytes = bytes as u64)
        },
    },
    Key {
        name: "reactor.spin_us",
        about: "Microseconds that a shard looks for work before it sleeps.",
        get: |config| config.engine.spin_us.to_string(),
        set: |config, value| integer(value, 0, 1_000_000).map(|us| config.engine.spin_us = us as u64),
    },
    Key {
        name: "log.level",
        about: "What is written to stderr: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,millstream=debug`. The environment's `MILLSTREAM_LOG` comes first.",
        get: |config| quoted(&config.log_level),
        set: |config, value| text(value).map(|level| level.clone_into(&mut config.log_level)),
    },
];

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| "a string".to_owned())
}

fn address(value: &Value, example: &str) -> Result<SocketAddr, String> {
    text(value)?.parse().map_err(|_| format!("an address and a port, such as \"{example}\""))
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "true or false".to_owned())
}

fn integer(value: &Value, min: i64, max: i64) -> Result<i64, String> {
    value.as_integer().filter(|number| (min..=max).contains(number)).ok_or_else(|| match max {
        i64::MAX => format!("a number from {min}"),
        _ => format!("a number from {min} to {max}"),
    })
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The page that describes every key.
pub fn documentation() -> String {
    let mut page = "# Configuration\n\n\
        `millstream serve --config FILE` reads a TOML file. Every key is optional; a key that is not listed here is an \
        error that\nnames it. A dotted name may be written as it is (`kafka.listen = ...`) or as a table (`[kafka]`, \
        then `listen = ...`).\n\n\
        This page is made from the table in `server/src/config.rs`; `cargo test` fails when it is out of date and says \
        how to renew it.\n\n\
        | key | default | meaning |\n|---|---|---|\n"
        .to_owned();
    let defaults = ServerConfig::default();
    for key in KEYS {
        writeln!(page, "| `{}` | `{}` | {} |", key.name, (key.get)(&defaults), key.about)
            .expect("writing to a string does not fail");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        assert_eq!(ServerConfig::parse("kafka.lisen = \"\"").unwrap_err(), "unknown key `kafka.lisen`");
        assert_eq!(ServerConfig::parse("[a.b]\nc = 1").unwrap_err(), "unknown key `a.b.c`");
    }

    #[test]
    fn a_wrong_value_is_an_error_that_says_what_would_be_right() {
        let error = |text| ServerConfig::parse(text).unwrap_err();
        assert_eq!(error("shards = 257"), "`shards` must be a number from 0 to 256");
        assert_eq!(error("shards = \"2\""), "`shards` must be a number from 0 to 256");
        assert_eq!(
            error("auto.create.topics.enable = 1"),
            "`auto.create.topics.enable` must be true or false"
        );
        assert_eq!(error("kafka = 1"), "unknown key `kafka`");
        assert!(error("kafka.listen = \"localhost\"").contains("an address and a port"));
    }

    #[test]
    fn every_key_reads_back_what_it_shows() {
        let defaults = ServerConfig::default();
        let lines: Vec<String> =
            KEYS.iter().map(|key| format!("{} = {}", key.name, (key.get)(&defaults))).collect();
        let config = ServerConfig::parse(&lines.join("\n")).unwrap();
        for key in KEYS {
            assert_eq!((key.get)(&config), (key.get)(&defaults), "{}", key.name);
        }
    }

    #[test]
    fn dotted_keys_and_tables_are_the_same() {
        let config =
            ServerConfig::parse("[kafka]\nlisten = \"0.0.0.0:1\"\n[auto.create.topics]\nenable = false");
        let config = config.unwrap();
        assert_eq!(config.kafka_listen.to_string(), "0.0.0.0:1");
        assert!(!config.auto_create_topics);
    }

    #[test]
    fn the_advertised_address_is_the_one_set_or_the_one_dialled() {
        let local: SocketAddr = "[::ffff:10.0.0.1]:9092".parse().unwrap();
        let mut config = ServerConfig::default();
        assert_eq!(config.advertised(local), (Cow::Borrowed("10.0.0.1"), 9092));
        config.kafka_advertise = Some("broker.example".parse().unwrap());
        assert_eq!(config.advertised(local), (Cow::Borrowed("broker.example"), 9092));
        config.kafka_advertise = Some("[::1]:9".parse().unwrap());
        assert_eq!(config.advertised(local), (Cow::Borrowed("::1"), 9));
        for wrong in ["", ":1", "host:", "host:0", "host:x", "[::1", "::1", "a b"] {
            assert!(wrong.parse::<Advertise>().is_err(), "{wrong}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test keeps a page of the repository fresh")]
    fn the_page_of_keys_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        if std::env::var_os("MILLSTREAM_RENEW_DOCS").is_some() {
            std::fs::write(path, documentation()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == documentation(),
            "renew it: MILLSTREAM_RENEW_DOCS=1 cargo test -p millstream page_of_keys"
        );
    }
}
