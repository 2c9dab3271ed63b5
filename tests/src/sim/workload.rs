//! What is asked of a node, at random from a seed, and what becomes of the answers.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::buffer::Slice;
use millstream_engine::config::TopicConfig;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::format::settings::to_pairs;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::Crash;
use millstream_engine::reactor::app::AppToken;
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::{Request, Target, WatchId};
use millstream_engine::time::WallMs;
use millstream_engine::types::{Durability, Offset, PartitionId, ShardId, TopicId};

use super::changes::{Change, Changes};
use super::model::{Model, Outcome, Sent, Topic};
use super::node::SimNode;

/// What the node may answer besides doing what it is asked, and how much it is asked.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says whether one thing may happen")]
pub struct Demand {
    /// Requests under way per shard.
    pub under_way: usize,
    /// Topic settings to choose from.
    pub topics: Vec<TopicConfig>,
    /// How many topics there may be at a time.
    pub topics_max: usize,
    /// Percent of batches that fill a group.
    pub medium_percent: u64,
    /// Percent of batches that are larger than a group.
    pub large_percent: u64,
    /// Whether the disk may be full.
    pub full_disk: bool,
    /// Whether flushes may fail.
    pub poison: bool,
    /// Whether reads may fail.
    pub bad_reads: bool,
    /// Whether topics are deleted.
    pub deletes: bool,
    /// Whether log starts are moved.
    pub trims: bool,
    /// Whether topics grow and are configured, and ids for producers are asked for.
    pub changes: bool,
}

#[derive(Clone)]
pub(super) enum Op {
    Append(u64, Durability),
    Read { partition: PartitionId, offset: u64, bytes: Vec<u8>, high_watermark: u64 },
    Find,
    Watch { partition: PartitionId, offset: u64 },
    Unwatch,
    Trim { partition: PartitionId },
    Create(String),
    Delete(TopicId),
    Change(Change),
}

/// An idempotent producer, which sends again what was not answered.
#[derive(Clone)]
pub(super) struct Producer {
    id: i64,
    pub(super) partition: PartitionId,
    shard: ShardId,
    sequence: i32,
    /// Batches that are not acknowledged, in order.
    pub(super) unacked: Vec<u64>,
    pub(super) under_way: usize,
    /// A batch was refused, or a crash came: everything is to be sent again when nothing is under way.
    pub(super) stalled: bool,
}

/// The requests, and the model of what they lead to.
#[derive(Clone)]
pub struct Workload {
    /// What was promised.
    pub model: Model,
    /// Answers that appends got.
    pub acked: u64,
    /// Refusals by what they say.
    pub refused: BTreeMap<String, u64>,
    pub(super) demand: Demand,
    random: Random,
    pub(super) pending: BTreeMap<(ShardId, u64), Op>,
    pub(super) producers: Vec<Producer>,
    pub(super) names: BTreeMap<String, Option<TopicId>>,
    pub(super) configs: BTreeMap<String, TopicConfig>,
    /// Who was told by which shard that it stores nothing any more. What others were answered before may still be on its way.
    pub(super) poisoned: BTreeSet<(ShardId, ShardId)>,
    /// The high watermark that each shard's host was told last.
    pub(super) told: BTreeMap<(ShardId, PartitionId), u64>,
    pub(super) changes: Changes,
    next: u64,
    life: u64,
    wall: WallMs,
}

impl Workload {
    /// A workload that has asked for nothing yet.
    pub fn new(seed: u64, demand: Demand) -> Workload {
        Workload {
            model: Model::default(),
            acked: 0,
            refused: BTreeMap::new(),
            demand,
            random: Random::stream(seed, "workload"),
            pending: BTreeMap::new(),
            producers: Vec::new(),
            names: BTreeMap::new(),
            configs: BTreeMap::new(),
            poisoned: BTreeSet::new(),
            told: BTreeMap::new(),
            changes: Changes::new(seed),
            next: 1,
            life: 0,
            wall: WallMs(1_700_000_000_000),
        }
    }

    /// Requests without an answer, except for watches, which may wait for ever.
    pub fn under_way(&self) -> usize {
        self.pending.values().filter(|op| !matches!(op, Op::Watch { .. })).count()
    }

    /// What waits for an answer, for whoever looks for the reason.
    pub fn waiting(&self) -> String {
        let waiting = self.pending.values().map(|op| match op {
            Op::Append(id, durability) => {
                let sent = &self.model.sent[id];
                format!("append {id} of {} bytes to {} ({durability:?})", sent.bytes.len(), sent.partition)
            }
            Op::Read { partition, offset, .. } => format!("read {partition} at {offset}"),
            Op::Trim { partition } => format!("trim {partition}"),
            Op::Create(name) => format!("create {name}"),
            Op::Delete(id) => format!("delete {id}"),
            Op::Find | Op::Watch { .. } | Op::Unwatch | Op::Change(_) => "something small".to_owned(),
        });
        waiting.collect::<Vec<_>>().join(", ")
    }

    /// Says which watches still wait although there is something to be read.
    pub fn miss_wakeups(&mut self) {
        let missed: Vec<(PartitionId, u64)> = self
            .pending
            .values()
            .filter_map(|op| match op {
                Op::Watch { partition, offset } => {
                    let known = self.model.partitions.get(partition);
                    known.is_none_or(|known| known.high_watermark > *offset).then_some((*partition, *offset))
                }
                _ => None,
            })
            .collect();
        for (partition, offset) in missed {
            self.model.violated(format!("{partition}: nobody told the watch at {offset}"));
        }
    }

    /// Whether a shard has said that it stores nothing any more.
    pub fn any_poisoned(&self) -> bool {
        !self.poisoned.is_empty()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Asks for more, on behalf of shards with little under way.
    pub fn ask(&mut self, node: &SimNode, wall: WallMs) {
        self.wall = wall;
        for shard in 0..node.shards() {
            let shard = ShardId(shard);
            let mine = self.pending.keys().filter(|(of, _)| *of == shard).count();
            if mine < self.demand.under_way && self.random.chance(0.3) {
                self.ask_something(node, shard);
            }
        }
        self.ask_for_change(node);
    }

    fn ask_something(&mut self, node: &SimNode, shard: ShardId) {
        let metadata = node.metadata(shard);
        let partitions: Vec<PartitionId> = metadata
            .by_id
            .values()
            .flat_map(|topic| {
                (0..topic.slots.len() as u32).map(|index| PartitionId { topic: topic.id, index })
            })
            .collect();
        let pick = self.random.below(100);
        if partitions.is_empty() || pick == 0 && self.names.len() < self.demand.topics_max {
            return self.create(node, shard);
        }
        let partition = partitions[self.random.below(partitions.len() as u64) as usize];
        match pick {
            0..=59 => self.append(node, shard, partition),
            60..=64 => self.resend(node, shard),
            65..=84 => self.read(node, shard, partition),
            85..=88 => self.find(node, shard, partition),
            89..=92 => self.watch(node, shard, partition),
            93..=95 if self.demand.trims => self.trim(node, shard, partition),
            96 if self.demand.deletes => self.delete(node, shard, partition.topic),
            _ => self.produce(node, shard, partition),
        }
    }

    pub(super) fn send(&mut self, node: &SimNode, from: ShardId, to: ShardId, request: Request, op: Op) {
        let token = self.number();
        self.pending.insert((from, token), op);
        node.wires[usize::from(from.0)].borrow_mut().requests.push_back((AppToken(token), to, request));
    }

    fn owner(metadata: &Metadata, partition: PartitionId) -> ShardId {
        metadata.shard_of(partition).expect("the partition was just taken from there")
    }

    fn batch(&mut self, id: u64, producer: Option<(i64, i32)>) -> Slice {
        let size = match self.random.below(100) {
            large if large < self.demand.large_percent => self.random.between(1_040_000, 2_000_000),
            medium if medium < self.demand.medium_percent => self.random.between(20_000, 300_000),
            ..40 => self.random.between(1_000, 9_000),
            _ => self.random.between(1, 600),
        } as usize;
        let mut builder = BatchBuilder::new(self.wall.0 - self.random.below(5_000) as i64);
        if let Some((id, sequence)) = producer {
            builder.producer(id, 0, sequence);
        }
        let mut value = vec![0; size];
        for (chunk, place) in value.chunks_mut(8).zip(0_u64..) {
            let bytes = (id << 24 ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        builder.push(Some(&id.to_be_bytes()), Some(&value));
        for _ in 0..self.random.below(4) {
            builder.push_at(self.wall.0 - self.random.below(60_000) as i64, None, Some(b"more"));
        }
        Slice::from(builder.build())
    }

    fn append(&mut self, node: &SimNode, shard: ShardId, partition: PartitionId) {
        let id = self.number();
        let bytes = self.batch(id, None);
        let sender = Some(self.life << 16 | u64::from(shard.0));
        self.model.sent.insert(
            id,
            Sent { partition, sender, bytes: bytes.clone(), outcome: Outcome::Pending, maybe: false },
        );
        let durability = match self.random.below(10) {
            0 => Durability::Memory,
            1..=3 => Durability::Written,
            _ => Durability::Durable,
        };
        let to = Workload::owner(node.metadata(shard), partition);
        let request = Request::Append { partition, batch: bytes, durability };
        self.send(node, shard, to, request, Op::Append(id, durability));
    }

    fn produce(&mut self, node: &SimNode, shard: ShardId, partition: PartitionId) {
        let found = self
            .producers
            .iter()
            .position(|producer| producer.partition == partition && producer.shard == shard);
        let place = found.unwrap_or_else(|| {
            let id = self.number() as i64;
            let (unacked, under_way, stalled) = (Vec::new(), 0, false);
            self.producers.push(Producer { id, partition, shard, sequence: 0, unacked, under_way, stalled });
            self.producers.len() - 1
        });
        let producer = &self.producers[place];
        if producer.stalled || producer.unacked.len() >= 5 {
            return;
        }
        let (producer_id, sequence) = (producer.id, producer.sequence);
        let id = self.number();
        let bytes = self.batch(id, Some((producer_id, sequence)));
        let records = i32::from_be_bytes(bytes[57..61].try_into().expect("a count has four bytes"));
        let producer = &mut self.producers[place];
        producer.sequence += records;
        producer.unacked.push(id);
        producer.under_way += 1;
        self.model.sent.insert(
            id,
            Sent { partition, sender: None, bytes: bytes.clone(), outcome: Outcome::Pending, maybe: false },
        );
        let to = Workload::owner(node.metadata(shard), partition);
        let request = Request::Append { partition, batch: bytes, durability: Durability::Durable };
        self.send(node, shard, to, request, Op::Append(id, Durability::Durable));
    }

    /// A producer that waits for nothing sends again what was refused or lost.
    fn resend(&mut self, node: &SimNode, shard: ShardId) {
        let metadata = node.metadata(shard);
        self.producers.retain(|producer| {
            metadata.by_id.contains_key(&producer.partition.topic) || producer.under_way > 0
        });
        let ready = |producer: &Producer| {
            producer.stalled && producer.under_way == 0 && producer.shard.0 % node.shards() == shard.0
        };
        let Some(place) = self.producers.iter().position(ready) else { return };
        let producer = &mut self.producers[place];
        producer.stalled = false;
        producer.shard = shard;
        producer.under_way = producer.unacked.len();
        let (partition, unacked) = (producer.partition, producer.unacked.clone());
        let Some(to) = metadata.shard_of(partition) else { return };
        for id in unacked {
            let sent = self.model.sent.get_mut(&id).expect("it was sent before");
            sent.outcome = Outcome::Pending;
            let request =
                Request::Append { partition, batch: sent.bytes.clone(), durability: Durability::Durable };
            self.send(node, shard, to, request, Op::Append(id, Durability::Durable));
        }
    }

    fn read(&mut self, node: &SimNode, shard: ShardId, partition: PartitionId) {
        let Some(known) = self.model.partitions.get(&partition) else { return };
        let (least, most) = (known.start.min(known.high_watermark), known.high_watermark);
        let offset = match self.random.below(4) {
            0 => most,
            1 => least,
            _ => self.random.between(least, most),
        };
        let max_bytes = [1, 5_000, 100_000, 1 << 20][self.random.below(4) as usize];
        let to = Workload::owner(node.metadata(shard), partition);
        let request = Request::Read { partition, offset: Offset(offset), max_bytes };
        self.send(
            node,
            shard,
            to,
            request,
            Op::Read { partition, offset, bytes: Vec::new(), high_watermark: 0 },
        );
    }

    fn find(&mut self, node: &SimNode, shard: ShardId, partition: PartitionId) {
        let to = Workload::owner(node.metadata(shard), partition);
        let target = match self.random.below(3) {
            0 => Target::MaxTimestamp,
            1 => Target::Latest,
            _ => Target::Timestamp(WallMs(self.wall.0 - self.random.below(100_000) as i64)),
        };
        self.send(node, shard, to, Request::Find { partition, target }, Op::Find);
    }

    fn watch(&mut self, node: &SimNode, shard: ShardId, partition: PartitionId) {
        let Some(known) = self.model.partitions.get(&partition) else { return };
        let offset = known.high_watermark;
        let interests = vec![(partition, Offset(offset))];
        let to = Workload::owner(node.metadata(shard), partition);
        let watch = WatchId(self.number());
        self.send(
            node,
            shard,
            to,
            Request::Watch { watch, interests, min_bytes: 1 },
            Op::Watch { partition, offset },
        );
        if self.random.chance(0.5) {
            self.send(node, shard, to, Request::Unwatch(watch), Op::Unwatch);
        }
    }

    fn trim(&mut self, node: &SimNode, shard: ShardId, partition: PartitionId) {
        let Some(known) = self.model.partitions.get_mut(&partition) else { return };
        let before = self.random.between(known.start.min(known.high_watermark), known.high_watermark);
        known.start_asked = known.start_asked.max(before);
        let to = Workload::owner(node.metadata(shard), partition);
        let request = Request::TrimLog { partition, before: Some(Offset(before)) };
        self.send(node, shard, to, request, Op::Trim { partition });
    }

    fn create(&mut self, node: &SimNode, shard: ShardId) {
        if self.pending.values().any(|op| matches!(op, Op::Create(_))) {
            return;
        }
        let name = format!("topic-{}", self.random.below(self.demand.topics_max as u64));
        if self.names.contains_key(&name) {
            return;
        }
        let config = self.demand.topics[self.random.below(self.demand.topics.len() as u64) as usize].clone();
        self.names.insert(name.clone(), None);
        self.configs.insert(name.clone(), config.clone());
        let partitions = Some(self.random.between(1, 3) as u32);
        let settings = to_pairs(&config);
        let request = Request::CreateTopic { name: name.clone(), partitions, settings };
        self.send(node, shard, ShardId(0), request, Op::Create(name));
    }

    fn delete(&mut self, node: &SimNode, shard: ShardId, topic: TopicId) {
        if self.model.is_going(topic) || !self.model.topics.contains_key(&topic) {
            return;
        }
        self.model.topics.insert(topic, Topic::Deleting);
        self.send(node, shard, ShardId(0), Request::DeleteTopic(topic), Op::Delete(topic));
    }

    /// The node died: what was under way has no answer.
    pub fn crashed(&mut self, crash: Crash) {
        self.gone();
        self.model.crashed(crash);
    }

    fn gone(&mut self) {
        self.life += 1;
        self.pending.clear();
        self.poisoned.clear();
        for producer in &mut self.producers {
            producer.stalled = true;
            producer.under_way = 0;
        }
    }

    /// The node has stopped in good order: what it was asked last may have had no answer.
    pub fn stopped(&mut self) {
        self.gone();
        self.model.stopped();
    }

    /// The node is back: its topics are those that were promised, and perhaps the last ones asked for.
    pub fn restarted(&mut self, node: &SimNode) {
        let metadata = node.metadata(ShardId(0));
        let known: Vec<(TopicId, Topic)> =
            self.model.topics.iter().map(|(id, topic)| (*id, *topic)).collect();
        for (id, topic) in known {
            let is_there = metadata.by_id.contains_key(&id);
            match topic {
                Topic::Live if !is_there => self.model.violated(format!("topic {id} is gone")),
                Topic::Deleted if is_there => self.model.violated(format!("deleted topic {id} is back")),
                Topic::Deleting if is_there => {
                    self.model.topics.insert(id, Topic::Live);
                }
                Topic::Deleting => {
                    self.model.topics.insert(id, Topic::Deleted);
                    self.model.partitions.retain(|partition, _| partition.topic != id);
                    self.names.retain(|_, named| *named != Some(id));
                }
                Topic::Live | Topic::Deleted => {}
            }
        }
        let found: Vec<(String, TopicId)> =
            metadata.topics.iter().map(|(name, topic)| (name.clone(), topic.id)).collect();
        for (name, id) in found {
            match self.names.get(&name) {
                Some(Some(known)) if *known == id => {}
                Some(None) => self.adopt(metadata, &name, id),
                other => self.model.violated(format!("topic {name} is {id}, but was known as {other:?}")),
            }
        }
        self.names.retain(|_, id| id.is_some());
        self.changes_restarted(metadata);
    }
}
