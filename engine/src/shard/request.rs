//! What a shard can be asked, and what it answers: closed enums, the whole contract between engine and host.

use super::change::MetadataChange;
use super::message::{Consume, ConsumerId, Credit, Delivery, Move, Outcome, Publish, QueueStats, Settlement};
use crate::buffer::Slice;
use crate::error::Refusal;
use crate::io::Space;
pub use crate::log::plan::{Chunk, Range};
use crate::time::WallMs;
use crate::types::{Durability, LeaderEpoch, Offset, PartitionId, QueueId, TopicId};

/// Chosen by the host, returned with the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AppToken(pub u64);

/// A request to one shard. Each is answered by exactly one [`Reply`].
#[derive(Debug)]
pub enum Request {
    /// Store one record batch (v2, as on the wire). Answered [`Reply::Appended`] when it is as durable as asked, or as
    /// the topic demands if that is more. Batches of one sender to one partition are stored in the order sent.
    Append {
        /// Where to.
        partition: PartitionId,
        /// The batch, whole. Base offset and leader epoch are overwritten in the stored copy.
        batch: Slice,
        /// When to answer.
        durability: Durability,
    },
    /// Read whole batches, starting with the one that holds `offset`: [`Reply::Read`].
    Read {
        /// Where from.
        partition: PartitionId,
        /// The first offset wanted.
        offset: Offset,
        /// Bytes wanted at most; the first batch is returned even if it is larger.
        max_bytes: u32,
    },
    /// Load the next chunk of a read plan: [`Reply::Loaded`].
    Load(Range),
    /// Tell when at least `min_bytes` have become readable behind the given offsets, or one of the partitions has been
    /// deleted: [`Reply::Woken`]. At once if that is so already.
    Watch {
        /// Names the watch, for [`Request::Unwatch`]; unique per sender.
        watch: WatchId,
        /// Partitions of this shard, and the offset up to which the sender has read.
        interests: Vec<(PartitionId, Offset)>,
        /// Bytes to wait for, over all of them.
        min_bytes: u32,
    },
    /// End a watch early. It is answered [`Reply::Woken`] if it was not yet; this request itself by [`Reply::Done`].
    Unwatch(WatchId),
    /// Find an offset: [`Reply::Found`].
    Find {
        /// Where.
        partition: PartitionId,
        /// Which.
        target: Target,
    },
    /// Tell where a leader epoch ends: [`Reply::EpochEnd`].
    EpochEnd {
        /// Where.
        partition: PartitionId,
        /// Which.
        epoch: LeaderEpoch,
    },
    /// Tell how large these logs are, at most [`crate::limits::EXTENTS_PER_REQUEST_MAX`] of them: [`Reply::Extents`], of
    /// those that are here.
    Extents(Vec<PartitionId>),
    /// Tell how much space the disk has: [`Reply::DiskSpace`].
    DiskSpace,
    /// Move the log's start up, deleting what is before it: [`Reply::Trimmed`] when that is durable.
    TrimLog {
        /// Where.
        partition: PartitionId,
        /// The first offset to keep; `None` means the high watermark.
        before: Option<Offset>,
    },
    /// Create a topic: [`Reply::TopicCreated`] when it is durable and every shard has applied it. To shard 0 only.
    CreateTopic {
        /// Its name.
        name: String,
        /// How many partitions; `None` means the node's default.
        partitions: Option<u32>,
        /// Its settings by name, over the node's. See [`crate::format::settings`].
        settings: Vec<(String, String)>,
    },
    /// Delete a topic: [`Reply::Done`] when it is durable and every shard has applied it. To shard 0 only.
    DeleteTopic(TopicId),
    /// Give a topic more partitions: [`Reply::Done`] when it is durable and every shard has applied it. To shard 0 only.
    AddPartitions {
        /// Which topic.
        topic: TopicId,
        /// How many there are to be, with those that there are.
        count: u32,
    },
    /// Change a topic's settings: [`Reply::Done`] when it is durable and every shard has applied it. To shard 0 only.
    ConfigureTopic {
        /// Which topic.
        topic: TopicId,
        /// What to set, or to unset, in this order.
        changes: Vec<(String, Option<String>)>,
        /// Whether everything that is not set here is unset.
        replace: bool,
    },
    /// An id for an idempotent producer: [`Reply::ProducerId`]. No id is given twice, also not after a crash. To shard 0
    /// only.
    NewProducerId,
    /// Change queues and the host's entries: [`Reply::Changed`] when it is durable, as far as it is to be kept, and every
    /// shard has applied it. All of it or nothing. To shard 0 only.
    ChangeMetadata(MetadataChange),
    /// Put messages into queues of this shard: [`Reply::Published`], an outcome for each, when those that durable queues
    /// keep over a restart are durable and the others are taken. Messages of one sender to one queue are queued in the
    /// order sent. A message's deliveries may come before this answer.
    Publish(Vec<Publish>),
    /// Give a consumer messages: [`Reply::Consuming`], then [`crate::reactor::app::AppEvent::Delivered`]. What a shard
    /// tells of its consumers (deliveries, their end, and the answers to this and to [`Request::CancelConsumer`]) arrives
    /// in the order in which it happened there.
    Consume(Consume),
    /// Grant consumers of this sender more credit: [`Reply::Done`]. Those that have ended are skipped.
    Grant(Vec<(ConsumerId, Credit)>),
    /// End a consumer: [`Reply::Cancelled`], after which nothing is delivered to it.
    CancelConsumer {
        /// Which, of this sender's.
        consumer: ConsumerId,
        /// Whether what it keeps goes back to its place, not counting as failed. Otherwise it stays out until it is settled
        /// under this consumer's name.
        release: bool,
    },
    /// Settle deliveries of this sender's consumers: [`Reply::Done`], at once, or when that is durable. What is not, a
    /// crash may bring back, as redelivered.
    Settle {
        /// Which, and how.
        settlements: Vec<Settlement>,
        /// Whether to answer only when it is durable.
        durable: bool,
    },
    /// Get one message: [`Reply::Got`].
    Get {
        /// From which queue.
        queue: QueueId,
        /// Who keeps it until it is settled; needs to be no consumer.
        consumer: ConsumerId,
        /// It is settled at once.
        no_ack: bool,
    },
    /// Drop all ready messages: [`Reply::Purged`], when none of them comes back after a crash.
    Purge(QueueId),
    /// Tell how queues stand, as many of them as are here: [`Reply::QueueStats`].
    QueueStats {
        /// Which, at most [`crate::limits::QUEUES_PER_REQUEST_MAX`].
        queues: Vec<QueueId>,
        /// Whether that counts as use of them, for [`crate::config::QueueSettings::expires_ms`].
        touch: bool,
    },
    /// Close a queue that is about to be deleted: [`Reply::Closed`]. From now on it takes, delivers and drops nothing.
    CloseQueue {
        /// Which.
        queue: QueueId,
        /// Refused with [`Refusal::QueueInUse`] if there are consumers.
        if_unused: bool,
        /// Refused with [`Refusal::QueueNotEmpty`] if there are ready messages.
        if_empty: bool,
    },
    /// Open a queue that was closed and not deleted: [`Reply::Done`].
    OpenQueue(QueueId),
    /// Say where a leaving message of this shard goes: [`Reply::Done`] when it has left its queue, or when a shard that is to
    /// get it stores nothing now, and the host is asked again later; [`Refusal::UnknownQueue`] if queue or message are
    /// gone. Queues that are gone or full get nothing.
    Move(Box<Move>),
}

/// Names a watch among those of one sender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub u64);

/// An offset described by what it stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The first offset that the log holds.
    Earliest,
    /// One past the last readable offset.
    Latest,
    /// The first record whose timestamp is at least this.
    Timestamp(WallMs),
    /// The record with the largest timestamp.
    MaxTimestamp,
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub enum Reply {
    /// The batch is stored, at the durability asked for.
    Appended(Appended),
    /// What was read.
    Read(ReadReply),
    /// The range, with its first bytes: at most [`crate::limits::READ_CHUNK_BYTES`] of them.
    Loaded(Chunk),
    /// The watch's condition holds, or it was ended.
    Woken(WatchId),
    /// What was looked for.
    Found(Found),
    /// The last epoch up to the one asked for, and the first offset behind it; `None` if it is newer than the node's own.
    EpochEnd(Option<(LeaderEpoch, Offset)>),
    /// How large the logs are.
    Extents(Vec<Extent>),
    /// The space of the disk, as it was about a second ago; `None` if it is not known yet.
    DiskSpace(Option<Space>),
    /// The log's start is this now.
    Trimmed(Offset),
    /// The topic is there on every shard.
    TopicCreated(TopicId),
    /// An id that nobody else has.
    ProducerId(u64),
    /// The metadata is changed on every shard; the ids of the queues that were created, in order.
    Changed(Vec<QueueId>),
    /// What became of each message.
    Published(Vec<Outcome>),
    /// The consumer is there. So many messages were ready, and so many consumers are there now.
    Consuming {
        /// Messages that waited.
        ready: u64,
        /// Consumers, with this one.
        consumers: u32,
    },
    /// The consumer is gone.
    Cancelled {
        /// Consumers that are left.
        consumers: u32,
    },
    /// A message, if one was ready; and how many are left.
    Got(Option<Delivery>, u64),
    /// So many messages were dropped.
    Purged(u64),
    /// How queues stand.
    QueueStats(Vec<(QueueId, QueueStats)>),
    /// The queue is closed; what is in it.
    Closed(Box<QueueStats>),
    /// Done.
    Done,
    /// Not done, and nothing of it stored.
    Refused(Refusal),
}

/// Where a batch went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The offset of its first record. For a duplicate, the original's.
    pub base_offset: Offset,
    /// The broker's timestamp, if the topic is stamped by the broker.
    pub append_time: Option<WallMs>,
    /// The first offset that the log holds.
    pub log_start: Offset,
}

/// What was read, and where the log stands.
#[derive(Debug, Default)]
pub struct ReadReply {
    /// What was found: whole batches. More than a chunk of them is planned, to be fetched by [`Request::Load`]; so may be what
    /// is here, if it was let go. Empty at the log's end.
    pub chunk: Chunk,
    /// One past the last readable offset: everything before it is durable.
    pub high_watermark: Offset,
    /// The first offset that the log holds.
    pub log_start: Offset,
}

/// How large a log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Which log.
    pub partition: PartitionId,
    /// Bytes of its batches.
    pub bytes: u64,
    /// The first offset that the log holds.
    pub log_start: Offset,
    /// One past the last readable offset.
    pub high_watermark: Offset,
}

/// An offset that was looked for.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The offset; `None` if no record qualifies. For a timestamp, that of the batch which holds the record.
    pub offset: Option<Offset>,
    /// The batch that holds the record, for a search by time: its records are the host's to look into.
    pub batch: Option<Slice>,
    /// The leader epoch of that offset.
    pub leader_epoch: LeaderEpoch,
}
