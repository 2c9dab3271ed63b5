//! How far one group has read: the offsets that are durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_engine::shard::metadata::Metadata;
use millstream_engine::types::TopicId;

/// What an offset is reckoned to take in memory beside its text, and a topic of a group beside its name.
const ENTRY_BYTES: usize = 128;

/// A committed offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record read; -1 if not known.
    pub leader_epoch: i32,
    /// Whatever the client wanted to find again.
    pub metadata: Arc<str>,
    /// When it was committed, in ms since 1970.
    pub committed_ms: i64,
    /// The incarnation of the topic that was read; `None` if whoever stored it did not say.
    pub topic: Option<TopicId>,
}

impl Committed {
    /// Whether it is about the topic that has this name now, and not about one that is gone: a topic that is made anew
    /// inherits nothing.
    pub fn is_about(&self, name: &str, metadata: &Metadata) -> bool {
        let now = metadata.topic(name);
        now.is_some_and(|now| self.topic.is_none_or(|topic| topic == now.id))
    }

    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.metadata.len()
    }
}

/// A group's committed offsets.
#[derive(Debug, Default)]
pub struct GroupOffsets {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, Committed>>,
    count: usize,
    bytes: usize,
}

impl GroupOffsets {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Bytes of memory that they are reckoned to take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The one of a partition.
    pub fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.topics.get(topic)?.get(&partition)
    }

    /// Sets or forgets one.
    pub fn set(&mut self, topic: &Arc<str>, partition: i32, committed: Option<Committed>) {
        match committed {
            Some(committed) => {
                let name = topic;
                let topic = self.topics.entry(Arc::clone(name)).or_default();
                self.bytes += committed.bytes() + if topic.is_empty() { ENTRY_BYTES + name.len() } else { 0 };
                let before = topic.insert(partition, committed);
                self.count += usize::from(before.is_none());
                self.bytes -= before.map_or(0, |before| before.bytes());
            }
            None => {
                let Some(partitions) = self.topics.get_mut(topic) else { return };
                let Some(before) = partitions.remove(&partition) else { return };
                self.count -= 1;
                self.bytes -= before.bytes();
                if partitions.is_empty() {
                    self.topics.remove(topic);
                    self.bytes -= ENTRY_BYTES + topic.len();
                }
            }
        }
    }

    /// All of them, by topic.
    pub fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<i32, Committed>)> {
        self.topics.iter()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, i32, &Committed)> {
        self.topics
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().map(move |(index, each)| (topic, *index, each)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_counted_as_they_come_and_go() {
        let committed = |offset| {
            let metadata = "text".into();
            Some(Committed { offset, leader_epoch: -1, metadata, committed_ms: 0, topic: None })
        };
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut offsets = GroupOffsets::default();
        offsets.set(&a, 0, committed(1));
        offsets.set(&a, 0, committed(2));
        offsets.set(&b, 7, committed(3));
        offsets.set(&b, 8, None);
        assert_eq!(offsets.len(), 2);
        assert_eq!(offsets.bytes(), 2 * (ENTRY_BYTES + 1) + 2 * (ENTRY_BYTES + 4));
        assert_eq!(offsets.get("a", 0).unwrap().offset, 2);
        offsets.set(&a, 0, None);
        offsets.set(&b, 7, None);
        assert!(offsets.is_empty());
        assert_eq!(offsets.bytes(), 0);
        assert_eq!(offsets.topics().count(), 0);
    }
}
