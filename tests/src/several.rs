//! A node of several shards in a simulated world, asked one thing at a time.

use std::collections::BTreeMap;

use millstream_engine::config::{Config, QueueSettings};
use millstream_engine::error::Fatal;
use millstream_engine::io::sim::World;
use millstream_engine::reactor::app::{AppEvent, AppToken};
use millstream_engine::shard::change::{Edit, MetadataChange, NewQueue};
use millstream_engine::shard::message::{DeadLetter, Delivery, Message, Publish, QueueStats};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{QueueId, ShardId};

use crate::sim::canary::{Cage, Canary};
use crate::sim::node::SimNode;

/// Steps after which an answer is given up.
const PATIENCE: u32 = 200_000;

/// The node. Requests come from shard 0 unless it is said otherwise.
pub struct Several {
    /// Its shards.
    pub node: SimNode,
    world: World,
    tokens: u64,
    replies: BTreeMap<u64, Reply>,
}

/// The settings of a small node of so many shards.
pub fn config(shards: u16) -> Config {
    Config {
        shards,
        journal_bytes: u64::from(shards) * (4 << 20),
        journal_file_bytes: 1 << 20,
        disk_free_min_bytes: 0,
        pinned_bytes: 1 << 20,
        ..Config::default()
    }
}

impl Several {
    /// Starts it on the world's disk.
    pub fn start(world: &World, shards: u16, seed: u64) -> Result<Several, Fatal> {
        let node = SimNode::start(world, &config(shards), &Cage::new(Canary::None), seed)?;
        Ok(Several { node, world: world.clone(), tokens: 0, replies: BTreeMap::new() })
    }

    /// Asks a shard something, on behalf of another; gives what [`Several::answer`] wants.
    pub fn send(&mut self, from: ShardId, to: ShardId, request: Request) -> u64 {
        self.tokens += 1;
        let wire = &self.node.wires[usize::from(from.0)];
        wire.borrow_mut().requests.push_back((AppToken(self.tokens), to, request));
        self.tokens
    }

    fn take_replies(&mut self) {
        for wire in &self.node.wires {
            let replies = std::mem::take(&mut wire.borrow_mut().replies);
            self.replies.extend(replies.into_iter().map(|(token, reply)| (token.0, reply)));
        }
    }

    /// The answer, if it has come.
    pub fn answer(&mut self, token: u64) -> Option<Reply> {
        self.take_replies();
        self.replies.remove(&token)
    }

    /// Asks a shard something, and waits for the answer.
    pub fn ask(&mut self, to: ShardId, request: Request) -> Reply {
        self.ask_from(ShardId(0), to, request)
    }

    /// The same on behalf of another shard.
    pub fn ask_from(&mut self, from: ShardId, to: ShardId, request: Request) -> Reply {
        let token = self.send(from, to, request);
        for _ in 0..PATIENCE {
            if let Some(reply) = self.answer(token) {
                return reply;
            }
            assert!(self.node.step(), "the machine runs");
        }
        panic!("no answer came");
    }

    /// Lets time pass.
    pub fn pass(&mut self, span: Nanos) {
        let until = self.world.now() + span;
        while self.world.now() < until && self.node.step() {}
    }

    /// Makes a durable queue, and says which shard it is on.
    pub fn create(&mut self, name: &str, settings: QueueSettings) -> (ShardId, QueueId) {
        let edits = vec![Edit::CreateQueue(NewQueue { name: name.into(), durable: true, settings })];
        let change = MetadataChange { guards: Vec::new(), edits };
        let Reply::Changed(ids) = self.ask(ShardId(0), Request::ChangeMetadata(change)) else {
            panic!("it can be made")
        };
        (self.shard_of(ids[0]), ids[0])
    }

    /// Makes queues until one is on this shard.
    pub fn create_on(&mut self, shard: ShardId, name: &str, settings: &QueueSettings) -> QueueId {
        for number in 0..100 {
            let (on, queue) = self.create(&format!("{name}{number}"), settings.clone());
            if on == shard {
                return queue;
            }
        }
        panic!("every shard gets its share");
    }

    /// The shard of a queue.
    pub fn shard_of(&self, queue: QueueId) -> ShardId {
        self.node.metadata(ShardId(0)).shard_of_queue(queue).expect("it is known")
    }

    /// Publishes a message, and waits until it is confirmed by all queues.
    pub fn publish(&mut self, queue: QueueId, messages: Vec<Message>) {
        let publish = |message| Publish { queues: vec![queue].into(), message };
        let reply =
            self.ask(self.shard_of(queue), Request::Publish(messages.into_iter().map(publish).collect()));
        let taken =
            matches!(&reply, Reply::Published(outcomes) if outcomes.iter().all(|one| one.refused.is_empty()));
        assert!(taken, "{reply:?}");
    }

    /// How a queue stands.
    pub fn stats(&mut self, queue: QueueId) -> QueueStats {
        match self.ask(self.shard_of(queue), Request::QueueStats { queues: vec![queue], touch: false }) {
            Reply::QueueStats(stats) => stats[0].1,
            other => panic!("{other:?}"),
        }
    }

    /// What a shard's host was told since the last time.
    pub fn events(&mut self, shard: ShardId) -> Vec<AppEvent> {
        std::mem::take(&mut self.node.wires[usize::from(shard.0)].borrow_mut().events).into()
    }

    /// The dead letters of a shard since the last time; other events are dropped.
    pub fn dead_letters(&mut self, shard: ShardId) -> Vec<DeadLetter> {
        let letter = |event| if let AppEvent::DeadLettered(letter) = event { Some(letter) } else { None };
        self.events(shard).into_iter().filter_map(letter).collect()
    }

    /// The same of deliveries.
    pub fn delivered(&mut self, shard: ShardId) -> Vec<Delivery> {
        let delivered = |event| if let AppEvent::Delivered(all) = event { all } else { Vec::new() };
        self.events(shard).into_iter().flat_map(delivered).collect()
    }
}
