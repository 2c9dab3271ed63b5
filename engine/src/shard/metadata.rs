//! What every shard knows of the whole node: an immutable snapshot per epoch, swapped as one.
//!
//! An epoch's maps share with the last one's what has not changed, and it says what has: so that a change costs what it
//! changes, however much there is.

use std::collections::VecDeque;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync as SharedMap;

use super::change::EntryKey;
use crate::config::{QueueSettings, TopicConfig};
use crate::format::settings::configured;
use crate::limits::METADATA_CHANGES_REMEMBERED;
use crate::types::{LeaderEpoch, MetadataEpoch, PartitionId, QueueId, ShardId, Slot, TopicId};

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its incarnation.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// What was set for it by name; names that the engine does not heed are the host's.
    pub settings: Vec<(String, String)>,
    /// What holds for it: the node's settings, and those of its own over them.
    pub config: TopicConfig,
    /// Where each partition is placed; the index is the partition's number.
    pub slots: Vec<Slot>,
}

impl Topic {
    /// A topic with these settings over the node's `defaults`.
    pub fn new(
        id: TopicId,
        name: String,
        settings: Vec<(String, String)>,
        slots: Vec<Slot>,
        defaults: &TopicConfig,
    ) -> Topic {
        let config = configured(defaults, &settings).unwrap_or_else(|setting| {
            tracing::warn!(name, setting, "a topic's setting is out of range: the node's settings hold");
            defaults.clone()
        });
        Topic { id, name, settings, config, slots }
    }

    /// What was set for it under this name.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(set, _)| set == name).map(|(_, value)| &**value)
    }
}

/// A queue, as far as the whole node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its incarnation.
    pub id: QueueId,
    /// Its name, which the host has chosen.
    pub name: Vec<u8>,
    /// Whether it is kept over a restart.
    pub durable: bool,
    /// Where it is placed.
    pub slot: Slot,
    /// What holds for it.
    pub settings: QueueSettings,
}

/// One of the host's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the host has put there.
    pub value: Arc<[u8]>,
    /// The epoch that it was put there in.
    pub version: MetadataEpoch,
    /// Whether it is gone after a restart.
    pub transient: bool,
}

/// Something that an epoch has changed: look it up to see what it is now, if anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// A topic.
    Topic(TopicId),
    /// A queue, and its name, also if it is no more.
    Queue(QueueId, Vec<u8>),
    /// An entry.
    Entry(EntryKey),
}

/// The node's metadata at one epoch.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Which version this is.
    pub epoch: MetadataEpoch,
    /// The node's cluster: a random id, made when the data directory was.
    pub cluster_id: TopicId,
    /// This node's number in the cluster.
    pub node_id: u32,
    /// Shards that serve.
    pub shards: u16,
    /// The epoch of this boot, which is every partition's leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// Every topic, by name.
    pub topics: SharedMap<String, Arc<Topic>>,
    /// The same topics, by id.
    pub by_id: SharedMap<TopicId, Arc<Topic>>,
    /// Partitions of all of them.
    pub partitions: usize,
    /// Ids for producers below this one may have been given to somebody.
    pub producer_ids_below: u64,
    /// Owners that are no more, and whose bytes a journal may still hold.
    pub deleted: std::collections::BTreeSet<TopicId>,
    /// Durable queues that are no more, and of which a journal may still hold something.
    pub deleted_queues: std::collections::BTreeSet<QueueId>,
    /// Every queue, by id.
    pub queues: SharedMap<QueueId, Arc<Queue>>,
    /// Their ids, by name.
    pub queue_names: SharedMap<Vec<u8>, QueueId>,
    /// What the host keeps here.
    pub entries: SharedMap<EntryKey, Entry>,
    /// What each of the last epochs has changed, oldest first.
    pub recent: VecDeque<(MetadataEpoch, Arc<[Changed]>)>,
}

impl Metadata {
    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// Puts a topic in, in the place of the one with its id.
    pub fn put(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        let before = self.by_id.get(&topic.id).map_or(0, |topic| topic.slots.len());
        self.partitions = self.partitions - before + topic.slots.len();
        self.topics.insert_mut(topic.name.clone(), Arc::clone(&topic));
        self.by_id.insert_mut(topic.id, topic);
    }

    /// Takes a topic away.
    pub fn remove(&mut self, id: TopicId) {
        if let Some(topic) = self.by_id.get(&id).cloned() {
            self.partitions -= topic.slots.len();
            self.topics.remove_mut(&topic.name);
            self.by_id.remove_mut(&id);
        }
    }

    /// The queue of that incarnation.
    pub fn queue(&self, id: QueueId) -> Option<&Arc<Queue>> {
        self.queues.get(&id)
    }

    /// The queue of that name.
    pub fn queue_named(&self, name: &[u8]) -> Option<&Arc<Queue>> {
        self.queues.get(self.queue_names.get(&name.to_vec())?)
    }

    /// The shard that serves a queue.
    pub fn shard_of_queue(&self, id: QueueId) -> Option<ShardId> {
        Some(self.queues.get(&id)?.slot.shard(self.shards))
    }

    /// One of the host's entries.
    pub fn entry(&self, key: &EntryKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// What has changed since `epoch`, oldest first, some of it perhaps more than once; `None` if that is longer ago than
    /// is remembered ([`METADATA_CHANGES_REMEMBERED`] epochs), and everything has to be looked at.
    pub fn changed_since(&self, epoch: MetadataEpoch) -> Option<impl Iterator<Item = &Changed>> {
        let first = self.recent.partition_point(|(changed, _)| *changed <= epoch);
        let known = first > 0 || self.recent.front().is_some_and(|(oldest, _)| oldest.0 == epoch.0 + 1);
        (known || epoch == self.epoch)
            .then(|| self.recent.range(first..).flat_map(|(_, changed)| changed.iter()))
    }

    /// The topics that this epoch has made, changed or taken away.
    pub fn changed_topics(&self) -> impl Iterator<Item = TopicId> {
        let last = self.recent.back().filter(|(epoch, _)| *epoch == self.epoch);
        last.into_iter().flat_map(|(_, changed)| changed.iter()).filter_map(|changed| match changed {
            Changed::Topic(id) => Some(*id),
            Changed::Queue(..) | Changed::Entry(_) => None,
        })
    }

    /// The queues that this epoch has made, changed or taken away.
    pub fn changed_queues(&self) -> impl Iterator<Item = QueueId> {
        let last = self.recent.back().filter(|(epoch, _)| *epoch == self.epoch);
        last.into_iter().flat_map(|(_, changed)| changed.iter()).filter_map(|changed| match changed {
            Changed::Queue(id, _) => Some(*id),
            Changed::Topic(_) | Changed::Entry(_) => None,
        })
    }

    /// Puts a queue in, in the place of the one with its id.
    pub fn put_queue(&mut self, queue: Queue) {
        self.queue_names.insert_mut(queue.name.clone(), queue.id);
        self.queues.insert_mut(queue.id, Arc::new(queue));
    }

    /// Takes a queue out.
    pub fn remove_queue(&mut self, id: QueueId) -> Option<Arc<Queue>> {
        let queue = Arc::clone(self.queues.get(&id)?);
        self.queues.remove_mut(&id);
        self.queue_names.remove_mut(&queue.name);
        Some(queue)
    }

    /// Gives one of the host's entries a value, or removes it.
    pub fn put_entry(&mut self, key: EntryKey, entry: Option<Entry>) {
        match entry {
            Some(entry) => self.entries.insert_mut(key, entry),
            None => drop(self.entries.remove_mut(&key)),
        }
    }

    /// Goes to another epoch, which has changed this.
    pub fn advance(&mut self, epoch: MetadataEpoch, changed: Vec<Changed>) {
        self.epoch = epoch;
        self.recent.push_back((epoch, changed.into()));
        if self.recent.len() > METADATA_CHANGES_REMEMBERED {
            self.recent.pop_front();
        }
    }

    /// The shard that serves a partition.
    pub fn shard_of(&self, partition: PartitionId) -> Option<ShardId> {
        let slot = self.by_id.get(&partition.topic)?.slots.get(partition.index as usize)?;
        Some(slot.shard(self.shards))
    }

    /// The partitions that a shard serves.
    pub fn partitions_of(&self, shard: ShardId) -> impl Iterator<Item = (PartitionId, &Arc<Topic>)> {
        self.by_id.values().flat_map(move |topic| self.of_topic(topic, shard))
    }

    /// The partitions of one topic that a shard serves; none if there is no such topic.
    pub fn partitions_in(
        &self,
        topic: TopicId,
        shard: ShardId,
    ) -> impl Iterator<Item = (PartitionId, &Arc<Topic>)> {
        self.by_id.get(&topic).into_iter().flat_map(move |topic| self.of_topic(topic, shard))
    }

    fn of_topic<'a>(
        &self,
        topic: &'a Arc<Topic>,
        shard: ShardId,
    ) -> impl Iterator<Item = (PartitionId, &'a Arc<Topic>)> + use<'a> {
        let shards = self.shards;
        let slots = topic.slots.iter().enumerate().filter(move |(_, slot)| slot.shard(shards) == shard);
        slots.map(move |(index, _)| (PartitionId { topic: topic.id, index: index as u32 }, topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u16) -> Changed {
        Changed::Entry(EntryKey { kind: number, key: Vec::new() })
    }

    fn since(metadata: &Metadata, epoch: u64) -> Option<Vec<Changed>> {
        Some(metadata.changed_since(MetadataEpoch(epoch))?.cloned().collect())
    }

    #[test]
    fn what_is_new_is_told_as_far_back_as_it_is_remembered() {
        let mut metadata = Metadata { epoch: MetadataEpoch(7), ..Metadata::default() };
        assert_eq!(since(&metadata, 7), Some(Vec::new()));
        assert_eq!(since(&metadata, 6), None);
        metadata.advance(MetadataEpoch(8), vec![entry(1)]);
        metadata.advance(MetadataEpoch(9), vec![entry(2), entry(1)]);
        assert_eq!(since(&metadata, 9), Some(Vec::new()));
        assert_eq!(since(&metadata, 8), Some(vec![entry(2), entry(1)]));
        assert_eq!(since(&metadata, 7), Some(vec![entry(1), entry(2), entry(1)]));
        assert_eq!(since(&metadata, 6), None);
        for epoch in 10..10 + METADATA_CHANGES_REMEMBERED as u64 {
            metadata.advance(MetadataEpoch(epoch), vec![entry(3)]);
        }
        assert_eq!(since(&metadata, 9).map(|changed| changed.len()), Some(METADATA_CHANGES_REMEMBERED));
        assert_eq!(since(&metadata, 8), None);
    }
}
