//! The servers that are compared: got, started and ended by the harness, each with ports, directories and names of its own.
//! While one is measured the others stand still. All of them are killed when the harness ends, however it ends.

pub mod child;
mod debian;
mod kafka;
mod millstream;
mod nats;
mod null;
mod rabbitmq;
mod redis;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::load::footprint::Processes;
use crate::measure::Problem;
use crate::streams::Dialect;
use child::Child;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Millstream.
    Millstream,
    /// Apache Kafka with its defaults, which flush nothing before they acknowledge.
    Kafka,
    /// Apache Kafka with a flush before each acknowledgement.
    KafkaFlush,
    /// The endpoint that stores nothing.
    Null,
    /// RabbitMQ with classic queues.
    #[value(name = "rabbitmq")]
    #[serde(rename = "rabbitmq")]
    RabbitMq,
    /// RabbitMQ with quorum queues, which flush before they confirm.
    #[value(name = "rabbitmq-quorum")]
    #[serde(rename = "rabbitmq-quorum")]
    RabbitMqQuorum,
    /// NATS JetStream with its defaults, which flush every two minutes.
    Nats,
    /// NATS JetStream with a flush before each acknowledgement.
    NatsFlush,
    /// Redis Streams with an append-only file that is flushed once a second.
    Redis,
    /// Redis Streams with a flush before each answer.
    RedisFlush,
}

/// What a load speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Kafka's.
    Kafka,
    /// AMQP 0-9-1.
    Amqp,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Kind; 10] = [
        Kind::Millstream,
        Kind::Kafka,
        Kind::KafkaFlush,
        Kind::RabbitMq,
        Kind::RabbitMqQuorum,
        Kind::Nats,
        Kind::NatsFlush,
        Kind::Redis,
        Kind::RedisFlush,
        Kind::Null,
    ];
    /// Those of the quick comparison.
    pub const QUICK: [Kind; 6] =
        [Kind::Millstream, Kind::Kafka, Kind::KafkaFlush, Kind::RabbitMq, Kind::RabbitMqQuorum, Kind::Null];

    /// How it is called in tables.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Millstream => "Millstream",
            Kind::Kafka => "Kafka",
            Kind::KafkaFlush => "Kafka, flush.messages=1",
            Kind::Null => "null (the client's limit)",
            Kind::RabbitMq => "RabbitMQ, classic queues",
            Kind::RabbitMqQuorum => "RabbitMQ, quorum queues",
            Kind::Nats => "NATS JetStream",
            Kind::NatsFlush => "NATS JetStream, sync_interval: always",
            Kind::Redis => "Redis Streams",
            Kind::RedisFlush => "Redis Streams, appendfsync always",
        }
    }

    /// Whether it understands a load.
    pub fn speaks(self, protocol: Protocol) -> bool {
        match self {
            Kind::Kafka | Kind::KafkaFlush => protocol == Protocol::Kafka,
            Kind::RabbitMq | Kind::RabbitMqQuorum => protocol == Protocol::Amqp,
            Kind::Millstream | Kind::Null => true,
            Kind::Nats | Kind::NatsFlush | Kind::Redis | Kind::RedisFlush => false,
        }
    }

    /// What it speaks if that is neither protocol.
    pub fn dialect(self) -> Option<Dialect> {
        match self {
            Kind::Nats | Kind::NatsFlush => Some(Dialect::Nats),
            Kind::Redis | Kind::RedisFlush => Some(Dialect::Redis),
            _ => None,
        }
    }

    /// What an acknowledgement with acks=all, or a confirm of a persistent message, means.
    pub fn durability(self) -> &'static str {
        match self {
            Kind::Millstream | Kind::RabbitMqQuorum => "flushed to the disk",
            Kind::Kafka => "in the page cache (survives a killed process, not a power cut)",
            Kind::KafkaFlush => "flushed to the disk, batch by batch",
            Kind::Null => "nothing is stored",
            Kind::RabbitMq => "handed to the kernel; flushed later",
            Kind::Nats => "in the page cache; flushed every two minutes",
            Kind::NatsFlush => "flushed to the disk, message by message",
            Kind::Redis => "in the page cache or about to be; flushed every second",
            Kind::RedisFlush => "flushed to the disk, as many as came together",
        }
    }
}

/// What peers are started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where their data goes; each makes a directory of its own.
    pub scratch: PathBuf,
    /// Where what is got from elsewhere is kept.
    pub cache: PathBuf,
    /// The binary of Millstream; the one beside this binary if it is not given.
    pub millstream: Option<PathBuf>,
    /// The heap of Java peers.
    pub heap: String,
}

/// A peer that serves.
pub struct Peer {
    /// Its version.
    pub version: String,
    /// What it was told, for the report.
    pub settings: String,
    /// Where it serves Kafka's protocol, or whatever it speaks.
    pub address: SocketAddr,
    /// Where it serves AMQP, if that is elsewhere.
    amqp: Option<SocketAddr>,
    /// What it speaks, if that is neither protocol.
    pub dialect: Option<Dialect>,
    child: Child,
    /// What must run beside it, and end after it.
    _helper: Option<Child>,
}

impl Peer {
    /// Starts it, and waits until it serves.
    pub fn start(kind: Kind, setup: &Setup) -> Result<Peer, Problem> {
        let started = match kind {
            Kind::Millstream => millstream::start(setup),
            Kind::Kafka => kafka::start(setup, false),
            Kind::KafkaFlush => kafka::start(setup, true),
            Kind::Null => null::start(setup),
            Kind::RabbitMq | Kind::RabbitMqQuorum => rabbitmq::start(setup, kind),
            Kind::Nats => nats::start(setup, false),
            Kind::NatsFlush => nats::start(setup, true),
            Kind::Redis => redis::start(setup, false),
            Kind::RedisFlush => redis::start(setup, true),
        };
        started.map_err(|problem| format!("{} did not start: {problem}", kind.title()).into())
    }

    /// Starts a build of Millstream under a name of its own, and waits until it serves.
    pub fn millstream(setup: &Setup, name: &str, binary: &Path) -> Result<Peer, Problem> {
        millstream::start_binary(setup, name, binary)
            .map_err(|problem| format!("{name} did not start: {problem}").into())
    }

    /// Where it serves AMQP.
    pub fn amqp(&self) -> SocketAddr {
        self.amqp.unwrap_or(self.address)
    }

    /// Its processes.
    pub fn processes(&self) -> Processes {
        Processes::of(self.child.id())
    }

    /// Has it stand still.
    pub fn pause(&self) {
        self.child.pause();
    }

    /// Has it go on.
    pub fn resume(&self) {
        self.child.resume();
    }

    /// Asks it to end, without waiting for that.
    pub fn ask_to_end(&mut self) {
        self.child.ask_to_end();
    }

    /// Why it is over, if it is.
    pub fn ended(&mut self) -> Option<String> {
        self.child.ended()
    }
}

/// Its own directory, empty.
fn directory(setup: &Setup, name: &str) -> Result<PathBuf, Problem> {
    let dir = setup.scratch.join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

/// A directory's name, for those who take text.
fn text(path: &Path) -> Result<&str, Problem> {
    path.to_str().ok_or_else(|| format!("{} has no name in UTF-8", path.display()).into())
}
