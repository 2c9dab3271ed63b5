//! What an operator may set, in the engine's terms. The server reads it from its file and its flags.

use crate::limits;
use crate::types::Durability;

/// A node's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Shards to run, one thread each; a node that is started with 0 gives itself one per core that it may use.
    pub shards: u16,
    /// Bytes that the journals of all shards may grow to; a node that is started with 0 gives itself 1/16 of the machine's
    /// memory, at most 1 GiB. The tail in memory may become as large.
    pub journal_bytes: u64,
    /// The size of a journal file: whole MiB, and the same for the life of a data directory.
    pub journal_file_bytes: u64,
    /// Bytes that the metadata log is written in advance with, whole blocks: a change needs no space of the disk, and at the
    /// end of them the log is folded into its snapshot.
    pub metadata_log_bytes: u64,
    /// Appends are refused while the disk has less than this free.
    pub disk_free_min_bytes: u64,
    /// Bytes of buffers that slow readers may pin per shard before their bytes are copied.
    pub pinned_bytes: u64,
    /// Bytes of memory that the indexes of a shard's queues may take; what is more of them is paged out, as far as the messages
    /// do not lie in the journal.
    pub queue_index_bytes: u64,
    /// Bytes of memory that messages may take, per shard, which queues do not keep over a restart. While more than half of it is
    /// taken they are written to files.
    pub queue_passing_bytes: u64,
    /// Whether stored segments that are read again and again are mapped, and so kept in the page cache.
    pub map_segments: bool,
    /// How long a shard spins for work before it sleeps.
    pub spin_us: u64,
    /// How often retention is checked.
    pub retention_check_ms: u64,
    /// How often every stored segment is read and checked; 0 is never.
    pub scrub_interval_ms: u64,
    /// How long a deleted file stays readable before it is unlinked.
    pub delete_delay_ms: u64,
    /// What a new topic gets where its creator does not say.
    pub topic: TopicConfig,
    /// Partitions of a topic that is created without a count.
    pub partitions_default: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            shards: 1,
            journal_bytes: 256 << 20,
            journal_file_bytes: limits::JOURNAL_FILE_BYTES,
            metadata_log_bytes: limits::METADATA_LOG_BYTES,
            disk_free_min_bytes: 256 << 20,
            pinned_bytes: 64 << 20,
            queue_index_bytes: 64 << 20,
            queue_passing_bytes: 64 << 20,
            map_segments: true,
            spin_us: 0,
            retention_check_ms: 300_000,
            scrub_interval_ms: 7 * 24 * 3_600_000,
            delete_delay_ms: 60_000,
            topic: TopicConfig::default(),
            partitions_default: 1,
        }
    }
}

/// A topic's settings; the names on the wire are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// `segment.bytes`: a segment is sealed before it grows past this.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is sealed when its first record is older than this.
    pub segment_ms: i64,
    /// `retention.ms`: sealed segments whose newest record is older are deleted; -1 keeps them.
    pub retention_ms: i64,
    /// `retention.bytes`: the oldest sealed segments are deleted while the partition is larger; -1 keeps them.
    pub retention_bytes: i64,
    /// `max.message.bytes`: the largest batch accepted.
    pub max_message_bytes: u32,
    /// `index.interval.bytes`: bytes of log between two index entries.
    pub index_interval_bytes: u32,
    /// `message.timestamp.type=LogAppendTime`: batches are stamped by the broker.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`: how far behind the broker's clock a client's timestamp may be.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far ahead of it.
    pub timestamp_after_max_ms: i64,
    /// `cleanup.policy` holds `delete`: what is past `retention.ms` and `retention.bytes` goes.
    pub deletes: bool,
    /// `cleanup.policy` holds `compact`. Kept for what will compact: until then nothing goes for its sake.
    pub compacts: bool,
    /// `millstream.durability.min`: senders are answered no earlier than this allows, whatever they ask for.
    pub durability_min: Durability,
}

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            max_message_bytes: 1_048_588,
            index_interval_bytes: 4096,
            log_append_time: false,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
            deletes: true,
            compacts: false,
            durability_min: Durability::Memory,
        }
    }
}

/// What holds for a queue: what its creator asked for, and the host's policies over it. Everything that only the host
/// understands (arguments, exchanges for dead letters) is in entries of the host's own.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct QueueSettings {
    /// Ready messages at most.
    pub max_messages: Option<u64>,
    /// Bytes of ready messages at most, headers and bodies.
    pub max_bytes: Option<u64>,
    /// What happens to a message that would pass one of the two.
    pub overflow: Overflow,
    /// A message lives so long at most, from when it was published; its own expiry may end it sooner.
    pub message_ttl_ms: Option<u64>,
    /// The host is told to delete the queue when nobody has consumed from it, got from it or asked for it so long.
    pub expires_ms: Option<u64>,
    /// Priorities 0 to this are told apart, higher ones are taken for it; `None`: all messages are alike.
    pub max_priority: Option<u8>,
    /// One consumer at a time is given messages; when it leaves, the next one is.
    pub single_active_consumer: bool,
    /// A message is given up when it has come back failed more often than this.
    pub delivery_limit: Option<u32>,
    /// The host is asked where a message goes that expires, is rejected, overflows or is given up; else it is dropped.
    pub dead_letter: bool,
    /// A consumer that keeps a delivery for longer is cancelled, and what it keeps goes back.
    pub consumer_timeout_ms: Option<u64>,
}

/// What happens to a message for which its queue has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The oldest ready messages make room.
    #[default]
    DropHead,
    /// It is refused.
    RejectPublish,
    /// It is refused, and is a dead letter.
    RejectPublishDeadLetter,
}

const _: () = assert!(limits::SEGMENT_BYTES_MAX > 1 << 30, "the default segment fits 32-bit positions");
