//! What the node has promised so far, and whether it keeps it. Knows nothing of how the engine works; of its code it uses
//! only what parses a batch.

use std::collections::BTreeMap;

use millstream_engine::buffer::Slice;
use millstream_engine::io::sim::Crash;
use millstream_engine::types::{Durability, PartitionId, TopicId};

use super::partition::{Partition, Rotten, Stored, parse, unstamped};

/// What became of a batch that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// No answer yet.
    Pending,
    /// Stored at this offset, at that durability.
    Acked(u64, Durability),
    /// Refused, for good: nothing of it may be there.
    Refused,
    /// A crash came before the answer, or took back what it may: it may be there or not.
    Unknown,
    /// It was looked for after a crash and is not there; it may not come back.
    Lost,
}

/// A batch that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// To where.
    pub partition: PartitionId,
    /// By whom: batches of one sender keep their order. `None` for what is sent again until it is stored.
    pub sender: Option<u64>,
    /// Its bytes.
    pub bytes: Slice,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether an attempt to store it had no answer, so that a later refusal does not say that it is not there.
    pub maybe: bool,
}

/// What is known of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic {
    /// Its creation was answered.
    Live,
    /// Its deletion was asked for.
    Deleting,
    /// Its deletion was answered.
    Deleted,
}

/// Everything that was promised.
#[derive(Clone, Default)]
pub struct Model {
    /// Batches by number.
    pub sent: BTreeMap<u64, Sent>,
    /// Partitions of topics that are or may be there.
    pub partitions: BTreeMap<PartitionId, Partition>,
    /// Topics that ever were.
    pub topics: BTreeMap<TopicId, Topic>,
    /// Promises that were broken.
    pub violations: Vec<String>,
}

impl Model {
    /// Takes note of a broken promise.
    pub fn violated(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// A bit of a stored segment has flipped.
    pub fn rotted(&mut self, of: PartitionId, rotten: Rotten) {
        if let Some(partition) = self.partitions.get_mut(&of) {
            partition.rotten.push(rotten);
        }
    }

    /// The damaged segment that a read at this offset may be refused for.
    pub fn rotten_at(&self, of: PartitionId, offset: u64) -> Option<Rotten> {
        self.partitions.get(&of)?.rotten_at(offset)
    }

    /// Whether a topic's deletion was asked for.
    pub fn is_going(&self, topic: TopicId) -> bool {
        self.topics.get(&topic).is_some_and(|topic| *topic != Topic::Live)
    }

    /// A batch was stored, says the node.
    pub fn acked(&mut self, id: u64, base: u64, durability: Durability) {
        let sent = self.sent.get_mut(&id).expect("only what was sent is answered");
        sent.outcome = Outcome::Acked(base, durability);
        let id_of_partition = sent.partition;
        let Some(partition) = self.partitions.get_mut(&id_of_partition) else { return };
        let placed = partition.place(id, base);
        let other = partition.seen.get(&base).filter(|stored| stored.id != id).map(|stored| stored.id);
        if let Err(what) = placed {
            self.violated(what);
        }
        if let Some(other) = other {
            self.violated(format!("batch {id} is said to be at {base}, where batch {other} was read"));
        }
    }

    /// A reader was given `bytes` from `offset` on. `partial`: the end of what was planned could not be had.
    pub fn read(
        &mut self,
        of: PartitionId,
        offset: u64,
        bytes: &[u8],
        high_watermark: u64,
        partial: bool,
    ) -> Vec<Stored> {
        let batches = match parse(bytes, partial) {
            Ok(batches) => batches,
            Err(what) => {
                self.violated(format!("{of} at {offset}: {what}"));
                return Vec::new();
            }
        };
        let Some(partition) = self.partitions.get_mut(&of) else { return Vec::new() };
        let stored: Vec<Stored> = batches.iter().map(|(stored, _)| stored.clone()).collect();
        let given = partition.given(offset, &stored, high_watermark);
        let stamped = partition.stamped;
        if let Err(what) = given {
            self.violated(format!("{of}: {what}"));
        }
        if batches.is_empty() && offset < high_watermark && !partial {
            self.violated(format!("{of}: a read at {offset} gave nothing, below {high_watermark}"));
        }
        for (stored, bytes) in batches {
            self.judge(of, &stored, bytes, stamped);
        }
        stored
    }

    /// Whether a batch may be where a reader found it.
    fn judge(&mut self, of: PartitionId, stored: &Stored, bytes: &[u8], stamped: bool) {
        let id = stored.id;
        let Some(sent) = self.sent.get(&id) else {
            return self.violated(format!("{of}: batch {id} at {} was never sent", stored.base));
        };
        let wrong = match sent.outcome {
            _ if sent.partition != of => Some("was sent to another partition"),
            Outcome::Refused => Some("was refused"),
            Outcome::Lost => Some("was lost in a crash, and is back"),
            Outcome::Acked(base, _) if base != stored.base => Some("was said to be elsewhere"),
            _ if unstamped(bytes, stamped) != unstamped(&sent.bytes, stamped) => {
                Some("has other bytes than were sent")
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.violated(format!("{of}: batch {id} at {} {wrong}: {:?}", stored.base, sent.outcome));
        }
    }

    /// The machine or the process died: what was not promised to survive that is open.
    pub fn crashed(&mut self, crash: Crash) {
        for sent in self.sent.values_mut() {
            sent.outcome = match sent.outcome {
                Outcome::Pending | Outcome::Acked(_, Durability::Memory) => Outcome::Unknown,
                Outcome::Acked(_, Durability::Written) if crash != Crash::Kill => Outcome::Unknown,
                other => other,
            };
            // Where a batch that may be gone lies, if it lies anywhere, is open too, unless somebody read it.
            sent.maybe |= sent.outcome == Outcome::Unknown;
            if sent.outcome == Outcome::Unknown
                && let Some(partition) = self.partitions.get_mut(&sent.partition)
            {
                let id = self_id(&sent.bytes);
                let read = |base: &u64| partition.seen.get(base).is_some_and(|stored| Some(stored.id) == id);
                if let Some(id) = id
                    && !partition.places.get(&id).is_some_and(read)
                {
                    partition.places.remove(&id);
                }
            }
        }
    }

    /// The node stopped in good order: what was acknowledged at any level is durable, what was not answered is open.
    pub fn stopped(&mut self) {
        for sent in self.sent.values_mut() {
            sent.outcome = match sent.outcome {
                Outcome::Pending => Outcome::Unknown,
                Outcome::Acked(base, _) => Outcome::Acked(base, Durability::Durable),
                other => other,
            };
            sent.maybe |= sent.outcome == Outcome::Unknown;
        }
    }

    /// A partition was read from its start to its end when nothing else went on: `content` is all of it. A `poisoned` shard
    /// gives readers nothing that is not durable.
    pub fn audited(
        &mut self,
        of: PartitionId,
        (start, high_watermark): (u64, u64),
        content: &[Stored],
        poisoned: bool,
    ) {
        let Some(partition) = self.partitions.get(&of) else { return };
        let mut wrong = Vec::new();
        if start < partition.start {
            wrong.push(format!("the log starts at {start}, and was said to start at {}", partition.start));
        }
        if start > partition.start_asked && !partition.retention {
            wrong.push(format!("the log starts at {start}; at most {} was asked for", partition.start_asked));
        }
        if high_watermark < partition.high_watermark {
            wrong.push(format!(
                "the high watermark fell from {} to {high_watermark}",
                partition.high_watermark
            ));
        }
        let read = content.last().map_or(start, |last| last.next);
        let end = partition.unreadable().map(|rotten| rotten.to.min(high_watermark)).fold(read, u64::max);
        if end != high_watermark {
            wrong.push(format!("the log can be read up to {end}, not {high_watermark}"));
        }
        let found: BTreeMap<u64, &Stored> = content.iter().map(|stored| (stored.base, stored)).collect();
        for (base, seen) in partition.seen.range(start..) {
            if found.get(base) != Some(&seen) && partition.rotten_at(*base).is_none() {
                wrong.push(format!("{seen:?} was given to a reader, and is {:?} now", found.get(base)));
            }
        }
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for stored in content {
            let sender = self.sent.get(&stored.id).and_then(|sent| sent.sender);
            if let Some(before) = sender.and_then(|sender| last.insert(sender, stored.id))
                && before > stored.id
            {
                wrong.push(format!("batch {} stands behind {before}, which was sent after it", stored.id));
            }
        }
        let present: BTreeMap<u64, u64> = content.iter().map(|stored| (stored.id, stored.base)).collect();
        for (id, sent) in self.sent.iter_mut().filter(|(_, sent)| sent.partition == of) {
            match sent.outcome {
                Outcome::Acked(base, durability)
                    if base >= start
                        && partition.rotten_at(base).is_none()
                        && present.get(id) != Some(&base)
                        && (durability == Durability::Durable || !poisoned) =>
                {
                    wrong.push(format!("batch {id}, acknowledged {durability:?} at {base}, is not there"));
                }
                Outcome::Unknown
                    if start == 0
                        && !poisoned
                        && partition.unreadable().next().is_none()
                        && !present.contains_key(id) =>
                {
                    sent.outcome = Outcome::Lost;
                }
                _ => {}
            }
        }
        for what in wrong {
            self.violated(format!("{of}: {what}"));
        }
    }
}

fn self_id(bytes: &[u8]) -> Option<u64> {
    parse(bytes, false).ok()?.first().map(|(stored, _)| stored.id)
}
