//! The names of things: newtypes, so that an offset is never passed where a position was meant.

use std::fmt;

/// A shard: one pinned thread, one journal, and everything placed on it. Numbered from zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// Where a partition or queue is placed. Slots are recorded in the metadata log and never change;
/// which shard serves a slot is `slot mod shards`, so the number of shards may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u32);

impl Slot {
    /// The shard that serves this slot when there are `shards` of them.
    pub fn shard(self, shards: u16) -> ShardId {
        assert!(shards > 0, "a node has at least one shard");
        ShardId((self.0 % u32::from(shards)) as u16)
    }
}

/// A topic's incarnation: a random UUID given at creation and never reused, so that a topic deleted and
/// created again under the same name is another owner of other bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// One partition of one incarnation of a topic: the owner of a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionId {
    /// The topic's incarnation.
    pub topic: TopicId,
    /// The partition's number within the topic, from zero.
    pub index: u32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

/// A queue's incarnation: random, given at creation and never reused, so that a queue deleted and created again under the
/// same name is another owner of other messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct QueueId(pub [u8; 16]);

impl QueueId {
    /// An id for a new queue out of random bits. Whether the queue is durable stands in its version's bits (RFC 9562): 4 if
    /// it is, else 8. So a journal's records tell by themselves.
    #[must_use]
    pub fn new(random: [u8; 16], durable: bool) -> QueueId {
        let mut id = random;
        id[6] = id[6] & 0x0f | if durable { 0x40 } else { 0x80 };
        id[8] = id[8] & 0x3f | 0x80;
        QueueId(id)
    }

    /// Whether the queue of this id is not kept over a restart.
    pub fn is_transient(self) -> bool {
        self.0[6] >> 4 == 8
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&TopicId(self.0), f)
    }
}

/// A message's number within its queue, in the order of delivery: of publishing, and in a queue with priorities the higher
/// ones first. Never reused within an incarnation; a message that goes back keeps it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// A record's number within its partition, from zero. At most `i64::MAX`, as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset `records` further on.
    #[must_use]
    pub fn plus(self, records: u64) -> Offset {
        Offset(self.0 + records)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A journal record's number within its shard's journal. Starts at 1; [`Lsn::ZERO`] is before every record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first record.
    pub const ZERO: Lsn = Lsn(0);

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

/// How often a journal file has been started, counted over the whole journal: a recycled file is told from
/// what it held before by this number. Starts at 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FileEpoch(pub u64);

/// The leader epoch that batches are stamped with: the node's boot epoch, raised after every unclean start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LeaderEpoch(pub u32);

/// A version of the metadata; rises by one with every change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MetadataEpoch(pub u64);

/// What must have happened to a record before its sender is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Durability {
    /// The owning shard has taken it. Survives nothing.
    Memory,
    /// The journal group that holds it has been written, whole. Survives a killed process.
    Written,
    /// The flush after that write has completed. Survives power loss.
    #[default]
    Durable,
}
