//! Changes of topics and ids for producers: asked for at random, and what must have come of them.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::error::Refusal;
use millstream_engine::io::random::Random;
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::{PartitionId, ShardId, TopicId};

use super::model::Topic;
use super::node::SimNode;
use super::partition::Partition;
use super::workload::{Op, Workload};

/// The setting that is changed: it changes what is written next, and nothing that is promised.
const SETTING: &str = "index.interval.bytes";
const VALUES: [&str; 3] = ["0", "4096", "100000"];
const PARTITIONS_MAX: u32 = 6;

/// A change that was asked for.
#[derive(Clone)]
pub(super) enum Change {
    Grow(TopicId, u32),
    Configure(TopicId, String),
    ProducerId,
}

/// What was promised of a topic, and what may hold instead because it was asked for.
#[derive(Clone)]
struct Known {
    partitions: u32,
    partitions_asked: Option<u32>,
    value: Option<String>,
    value_asked: Option<String>,
}

/// The changes of one workload.
#[derive(Clone)]
pub(super) struct Changes {
    random: Random,
    topics: BTreeMap<TopicId, Known>,
    producer_ids: BTreeSet<u64>,
}

impl Changes {
    pub(super) fn new(seed: u64) -> Changes {
        Changes {
            random: Random::stream(seed, "changes"),
            topics: BTreeMap::new(),
            producer_ids: BTreeSet::new(),
        }
    }
}

impl Workload {
    /// Asks for a change now and then.
    pub(super) fn ask_for_change(&mut self, node: &SimNode) {
        if !self.demand.changes || !self.changes.random.chance(0.02) {
            return;
        }
        let shard = ShardId(self.changes.random.below(u64::from(node.shards())) as u16);
        let metadata = node.metadata(shard);
        let live: Vec<TopicId> = metadata
            .by_id
            .keys()
            .copied()
            .filter(|id| self.model.topics.get(id) == Some(&Topic::Live))
            .collect();
        let pick = self.changes.random.below(3);
        if live.is_empty() || pick == 0 {
            return self.send(
                node,
                shard,
                ShardId(0),
                Request::NewProducerId,
                Op::Change(Change::ProducerId),
            );
        }
        let topic = live[self.changes.random.below(live.len() as u64) as usize];
        let value = VALUES[self.changes.random.below(VALUES.len() as u64) as usize].to_owned();
        let known = self.changes.topics.entry(topic).or_insert_with(|| known(metadata, topic));
        if pick == 1 && known.partitions < PARTITIONS_MAX && known.partitions_asked.is_none() {
            let count = known.partitions + 1;
            known.partitions_asked = Some(count);
            let request = Request::AddPartitions { topic, count };
            self.send(node, shard, ShardId(0), request, Op::Change(Change::Grow(topic, count)));
        } else if pick == 2 && known.value_asked.is_none() {
            known.value_asked = Some(value.clone());
            let changes = vec![(SETTING.to_owned(), Some(value.clone()))];
            let request = Request::ConfigureTopic { topic, changes, replace: false };
            self.send(node, shard, ShardId(0), request, Op::Change(Change::Configure(topic, value)));
        }
    }

    pub(super) fn changed(&mut self, node: &SimNode, change: Change, reply: Reply) {
        match (change, reply) {
            (Change::ProducerId, Reply::ProducerId(id)) => {
                if !self.changes.producer_ids.insert(id) {
                    self.model.violated(format!("producer id {id} was given twice"));
                }
            }
            (Change::Grow(topic, count), Reply::Done) => {
                if let Some(known) = self.changes.topics.get_mut(&topic) {
                    (known.partitions, known.partitions_asked) = (count, None);
                }
                self.check_shards(node, topic);
                self.note_partitions(node.metadata(ShardId(0)), topic);
            }
            (Change::Configure(topic, value), Reply::Done) => {
                if let Some(known) = self.changes.topics.get_mut(&topic) {
                    (known.value, known.value_asked) = (Some(value), None);
                }
                self.check_shards(node, topic);
            }
            // It may hold after the next start.
            (_, Reply::Refused(Refusal::Poisoned | Refusal::DiskFull)) => {}
            (
                Change::Grow(topic, _) | Change::Configure(topic, _),
                Reply::Refused(Refusal::UnknownTopic(_)),
            ) if self.model.is_going(topic) => {}
            (_, reply) => self.model.violated(format!("a change was answered {reply:?}")),
        }
    }

    /// Every shard has what was promised of a topic, if the topic is there.
    fn check_shards(&mut self, node: &SimNode, topic: TopicId) {
        for shard in 0..node.shards() {
            self.check_topic(node.metadata(ShardId(shard)), topic);
        }
    }

    fn check_topic(&mut self, metadata: &Metadata, id: TopicId) {
        let (Some(held), Some(promised)) = (metadata.by_id.get(&id), self.changes.topics.get(&id)) else {
            return;
        };
        let partitions = held.slots.len() as u32;
        if partitions != promised.partitions && Some(partitions) != promised.partitions_asked {
            self.model.violated(format!("topic {id} has {partitions} partitions"));
        }
        let value = held.setting(SETTING);
        if value != promised.value.as_deref() && value != promised.value_asked.as_deref() {
            self.model.violated(format!("topic {id} has {SETTING}={value:?}"));
        }
    }

    /// The node is back: each topic is as was promised, or as was asked for last.
    pub(super) fn changes_restarted(&mut self, metadata: &Metadata) {
        let topics: Vec<TopicId> = self.changes.topics.keys().copied().collect();
        for id in topics {
            self.check_topic(metadata, id);
            if metadata.by_id.contains_key(&id) {
                self.changes.topics.insert(id, known(metadata, id));
                self.note_partitions(metadata, id);
            } else {
                self.changes.topics.remove(&id);
            }
        }
    }

    /// Partitions that are new are remembered from now on.
    fn note_partitions(&mut self, metadata: &Metadata, id: TopicId) {
        let Some(topic) = metadata.by_id.get(&id) else { return };
        if self.model.is_going(id) {
            return;
        }
        for index in 0..topic.slots.len() as u32 {
            let partition = PartitionId { topic: id, index };
            self.model.partitions.entry(partition).or_insert_with(|| Partition::of(&topic.config));
        }
    }
}

fn known(metadata: &Metadata, id: TopicId) -> Known {
    let topic = metadata.by_id.get(&id).expect("the caller found it there");
    Known {
        partitions: topic.slots.len() as u32,
        partitions_asked: None,
        value: topic.setting(SETTING).map(str::to_owned),
        value_asked: None,
    }
}
