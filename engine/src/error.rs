//! The three kinds of error. Bugs of our own are asserted. What can be expected is a [`Refusal`]: typed, and
//! mapped exhaustively to each protocol's code. What ends a shard or a start is a [`Fatal`].

use std::fmt;

use crate::limits::{PARTITIONS_PER_NODE_MAX, QUEUES_PER_NODE_MAX};
use crate::types::{Offset, QueueId, TopicId};

/// Why a request was not carried out. Nothing of it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such topic or partition, or it has been deleted.
    UnknownPartition,
    /// No topic of that incarnation.
    UnknownTopic(TopicId),
    /// The topic's name is taken.
    TopicExists(TopicId),
    /// The topic's name is empty, too long, or has characters other than `[a-zA-Z0-9._-]`.
    InvalidTopicName,
    /// A count of partitions below one or above the limit.
    InvalidPartitions,
    /// The node would have more partitions than it may.
    TooManyPartitions,
    /// The value of a topic's setting is out of its range; names the setting.
    InvalidConfig(String),
    /// The bytes are not one valid record batch; says what is wrong.
    CorruptBatch(&'static str),
    /// The batch is larger than the topic allows.
    BatchTooLarge {
        /// The topic's limit in bytes.
        limit: u32,
    },
    /// A sound batch that a client may not send, such as a control batch; says what is wrong.
    InvalidRecord(&'static str),
    /// A client's timestamp is further from the broker's clock than the topic allows.
    InvalidTimestamp,
    /// The producer's epoch is older than the one known.
    InvalidProducerEpoch,
    /// The producer's sequence does not follow the last one.
    OutOfOrderSequence,
    /// The producer's sequence was taken before, longer ago than is remembered.
    DuplicateSequence,
    /// The offset lies outside the log.
    OffsetOutOfRange {
        /// The first offset that the log still holds.
        start: Offset,
        /// One past the last offset that can be read.
        end: Offset,
    },
    /// No queue of that incarnation here, or it has been deleted.
    UnknownQueue,
    /// The queue's name is taken.
    QueueExists(QueueId),
    /// A queue's name or settings are out of range; says which.
    InvalidQueue(&'static str),
    /// The node would have more queues than it may.
    TooManyQueues,
    /// The queue is full, and refuses what comes rather than to drop what it has.
    QueueFull,
    /// The queue has consumers, or one that wants to be alone.
    QueueInUse,
    /// The queue is not empty.
    QueueNotEmpty,
    /// No consumer of that name, or it has ended.
    UnknownConsumer,
    /// The sender has a consumer of that name already.
    ConsumerExists,
    /// The message is larger than any may be.
    MessageTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Metadata that the change relies on is not as expected any more: look again, and decide anew.
    Conflict,
    /// This version does not do that yet.
    Unsupported,
    /// The disk is full, or the journal's reserve is touched. Heals by itself when space is freed.
    DiskFull,
    /// The shard has failed to flush and stores nothing any more.
    Poisoned,
    /// The bytes asked for are on disk but fail their checksum.
    CorruptData,
    /// A file could not be read.
    ReadFailed,
    /// Too much is under way: a limit of `limits.rs` is reached.
    Busy,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::UnknownPartition => f.write_str("unknown topic or partition"),
            Refusal::UnknownTopic(id) => write!(f, "unknown topic {id}"),
            Refusal::TopicExists(id) => write!(f, "the topic exists already, as {id}"),
            Refusal::InvalidTopicName => {
                f.write_str("a topic's name is 1 to 249 characters of [a-zA-Z0-9._-], and neither . nor ..")
            }
            Refusal::InvalidPartitions => f.write_str("the number of partitions is out of range"),
            Refusal::TooManyPartitions => {
                write!(f, "a node has at most {PARTITIONS_PER_NODE_MAX} partitions, over all topics")
            }
            Refusal::InvalidConfig(what) => write!(f, "invalid configuration: {what}"),
            Refusal::CorruptBatch(what) => write!(f, "corrupt record batch: {what}"),
            Refusal::BatchTooLarge { limit } => {
                write!(f, "the record batch is larger than the topic's {limit} bytes")
            }
            Refusal::InvalidRecord(what) => write!(f, "invalid record: {what}"),
            Refusal::InvalidTimestamp => {
                f.write_str("a timestamp is further from the broker's clock than the topic allows")
            }
            Refusal::InvalidProducerEpoch => f.write_str("the producer's epoch is outdated"),
            Refusal::OutOfOrderSequence => f.write_str("the producer's sequence is out of order"),
            Refusal::DuplicateSequence => f.write_str("the producer's sequence was stored before"),
            Refusal::OffsetOutOfRange { start, end } => write!(f, "the offset is outside {start}..{end}"),
            Refusal::UnknownQueue => f.write_str("unknown queue"),
            Refusal::QueueExists(id) => write!(f, "the queue exists already, as {id}"),
            Refusal::InvalidQueue(what) => write!(f, "invalid queue: {what}"),
            Refusal::TooManyQueues => write!(f, "a node has at most {QUEUES_PER_NODE_MAX} queues"),
            Refusal::QueueFull => f.write_str("the queue is full"),
            Refusal::QueueInUse => f.write_str("the queue is in use"),
            Refusal::QueueNotEmpty => f.write_str("the queue is not empty"),
            Refusal::UnknownConsumer => f.write_str("unknown consumer"),
            Refusal::ConsumerExists => f.write_str("there is a consumer of that name already"),
            Refusal::MessageTooLarge { limit } => write!(f, "the message is larger than {limit} bytes"),
            Refusal::Conflict => f.write_str("the metadata has changed meanwhile"),
            Refusal::Unsupported => f.write_str("this version does not do that yet"),
            Refusal::DiskFull => f.write_str("the disk is full"),
            Refusal::Poisoned => {
                f.write_str("this shard failed to flush its journal and stores nothing any more")
            }
            Refusal::CorruptData => f.write_str("stored bytes fail their checksum"),
            Refusal::ReadFailed => f.write_str("a file could not be read"),
            Refusal::Busy => f.write_str("too many requests are under way"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Why an I/O operation failed, as far as the engine tells failures apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    /// No such file or directory.
    NotFound,
    /// It exists already.
    Exists,
    /// No space is left on the device, or a quota is used up.
    NoSpace,
    /// The operation did not run because one that it was linked to fell short.
    Cancelled,
    /// The device or the kernel refused: the errno.
    Os(i32),
    /// The simulated machine has lost power; nothing more will happen in this life of it.
    Halted,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IoError::NotFound => f.write_str("no such file or directory"),
            IoError::Exists => f.write_str("the file exists already"),
            IoError::NoSpace => f.write_str("no space left on device"),
            IoError::Cancelled => f.write_str("cancelled"),
            IoError::Os(errno) => fmt::Display::fmt(&std::io::Error::from_raw_os_error(*errno), f),
            IoError::Halted => f.write_str("the machine has lost power"),
        }
    }
}

impl std::error::Error for IoError {}

/// Why a node cannot start, or a shard cannot go on. Says what was found, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// An operation on a file failed.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file, relative to the data directory.
        file: String,
        /// How it failed.
        error: IoError,
    },
    /// A file holds something that no crash leaves behind.
    Corrupt {
        /// The file, relative to the data directory.
        file: String,
        /// The first bad byte's position in it.
        position: u64,
        /// What is wrong there.
        what: String,
    },
    /// Parts of a data directory that was served before are not there.
    Missing {
        /// Which, relative to the data directory.
        what: Vec<String>,
        /// What tells that it was.
        beside: String,
    },
    /// The data directory was written by a newer version, or by one with a feature that this one lacks.
    Newer(String),
    /// Another process serves this data directory.
    Locked(String),
    /// The kernel, or what stands before it, does not let us work: what was refused, and what to do.
    Refused(String),
    /// The configuration cannot be carried out.
    Config(String),
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Io { doing, file, error } => write!(f, "{doing} {file}: {error}"),
            Fatal::Corrupt { file, position, what } => write!(
                f,
                "{file} is damaged at byte {position}: {what}. `millstream log verify` shows more, `millstream log salvage` saves what is sound"
            ),
            Fatal::Missing { what, beside } => write!(
                f,
                "missing from the data directory, although there is {beside}: {}. What was stored there would be lost, so nothing is started and nothing was changed. Put it back, or all of the directory from a copy; `millstream log verify` and `millstream log salvage` look at what is left. To start with nothing, give an empty directory",
                what.join(", ")
            ),
            Fatal::Newer(what) => write!(f, "this data directory needs a newer version: {what}"),
            Fatal::Locked(who) => write!(f, "another process serves this data directory: {who}"),
            Fatal::Refused(what) | Fatal::Config(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Fatal {}
