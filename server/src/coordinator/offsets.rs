//! How far one group has read: the offsets that are durable.

use std::collections::BTreeMap;
use std::sync::Arc;

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
}

/// A group's committed offsets.
#[derive(Debug, Default)]
pub struct GroupOffsets {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, Committed>>,
    count: usize,
}

impl GroupOffsets {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
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
                let topic = self.topics.entry(Arc::clone(topic)).or_default();
                self.count += usize::from(topic.insert(partition, committed).is_none());
            }
            None => {
                let Some(partitions) = self.topics.get_mut(topic) else { return };
                self.count -= usize::from(partitions.remove(&partition).is_some());
                if partitions.is_empty() {
                    self.topics.remove(topic);
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
        let committed =
            |offset| Some(Committed { offset, leader_epoch: -1, metadata: "".into(), committed_ms: 0 });
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut offsets = GroupOffsets::default();
        offsets.set(&a, 0, committed(1));
        offsets.set(&a, 0, committed(2));
        offsets.set(&b, 7, committed(3));
        offsets.set(&b, 8, None);
        assert_eq!(offsets.len(), 2);
        assert_eq!(offsets.get("a", 0).unwrap().offset, 2);
        offsets.set(&a, 0, None);
        offsets.set(&b, 7, None);
        assert!(offsets.is_empty());
        assert_eq!(offsets.topics().count(), 0);
    }
}
