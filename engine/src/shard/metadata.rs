//! What every shard knows of the whole node: an immutable snapshot per epoch, swapped as one.
//!
//! An epoch's maps share with the last one's what has not changed, and it says which topic has: so that a change costs what
//! it changes, however many topics there are.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync as SharedMap;

use crate::config::TopicConfig;
use crate::format::settings::configured;
use crate::types::{LeaderEpoch, MetadataEpoch, PartitionId, ShardId, Slot, TopicId};

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
    /// The topic that this epoch has made, changed or taken away; nothing else differs from the epoch before, but for ids of
    /// producers.
    pub changed: Option<TopicId>,
    /// Ids for producers below this one may have been given to somebody.
    pub producer_ids_below: u64,
    /// Owners that are no more, and whose bytes a journal may still hold.
    pub deleted: std::collections::BTreeSet<TopicId>,
}

impl Metadata {
    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// Puts a topic in, in the place of the one with its id.
    pub fn put(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        self.topics.insert_mut(topic.name.clone(), Arc::clone(&topic));
        self.changed = Some(topic.id);
        self.by_id.insert_mut(topic.id, topic);
    }

    /// Takes a topic away.
    pub fn remove(&mut self, id: TopicId) {
        if let Some(topic) = self.by_id.get(&id).cloned() {
            self.topics.remove_mut(&topic.name);
            self.by_id.remove_mut(&id);
        }
        self.changed = Some(id);
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
