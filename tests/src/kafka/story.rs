//! A seed's story of the broker: sound clients and hostile ones at work, crashes, and a reading back of everything that the
//! sound ones were promised. What was promised is remembered by the same model as in the engine's own simulation.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use millstream::broker::Broker;
use millstream::config::ServerConfig;
use millstream::limits::{
    FETCH_BYTES_HELD_MAX, REQUEST_BYTES_IN_FLIGHT_MAX, RESPONSE_BYTES_WAITING_MAX, SEND_BYTES,
};
use millstream_engine::buffer::Slice;
use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Durability, PartitionId, ShardId, TopicId};

use super::client::{Answer, Ask, Client};
use super::hostile::Hostile;
use crate::sim::canary::{Cage, Canary};
use crate::sim::model::{Model, Outcome, Sent};
use crate::sim::node::SimNode;
use crate::sim::partition::{Partition, Stored};

const TOPICS: [&str; 2] = ["orders", "events"];
const PARTITIONS: u32 = 2;
/// Requests that a sound client has under way, at most.
const UNDER_WAY: usize = 6;
const REQUEST_BYTES: usize = 4 << 20;
const PARTIAL_BYTES: usize = 6 << 20;
const IDLE_MS: u64 = 20_000;
/// What one connection may hold: its requests, one of which may be larger than all the others; its answers, with one
/// more that was begun when there still was room; and what is being sent.
const CONNECTION_BYTES: usize = REQUEST_BYTES_IN_FLIGHT_MAX
    + REQUEST_BYTES
    + RESPONSE_BYTES_WAITING_MAX
    + FETCH_BYTES_HELD_MAX
    + SEND_BYTES
    + REQUEST_BYTES;
/// Steps after which an answer is given up.
const PATIENCE: u32 = 200_000;
/// Everything is answered in that time, when nobody asks for more.
const ANSWERED_IN: Nanos = Nanos::from_millis(30_000);

type Node = SimNode<Broker>;

/// A story to be run.
#[derive(Clone, Debug)]
pub struct Story {
    /// All chance comes from here.
    pub seed: u64,
    /// How often the broker starts.
    pub lives: u32,
    /// Turns of each life.
    pub steps: u64,
    /// Sound clients.
    pub sound: usize,
    /// Hostile clients at a time.
    pub hostile: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcomes {
    /// Broken promises; none if all is well.
    pub violations: Vec<String>,
    /// What happened last, for whoever looks for the reason.
    pub trace: String,
    /// Batches that were acknowledged, and fetches that gave some.
    pub acked: u64,
    /// See `acked`.
    pub fetched: u64,
    /// Hostile clients that came and went.
    pub guests: u64,
    /// The most bytes that one connection held, and all of one shard.
    pub held: (usize, usize),
    /// A digest of all that happened.
    pub digest: u32,
}

impl Story {
    /// The story of a seed.
    pub fn of(seed: u64) -> Story {
        let mut random = Random::stream(seed, "kafka story");
        let mut between = |least, most| random.between(least, most);
        Story {
            seed,
            lives: between(1, 3) as u32,
            steps: between(300, 1500),
            sound: between(1, 4) as usize,
            hostile: between(0, 8) as usize,
        }
    }

    /// Runs it.
    pub fn run(&self) -> Outcomes {
        let mut run = Run::new(self);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.lives())).err();
        let Run { mut model, world, acked, fetched, guests, held, .. } = run;
        if let Some(panic) = panicked {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            model.violated(format!("a panic: {}", text.unwrap_or_default()));
        }
        let (trace, digest) = (world.trace(), world.digest());
        Outcomes { violations: model.violations, trace, acked, fetched, guests, held, digest }
    }
}

/// A sound client, what it is called, and what its batches of this connection are.
struct Sound {
    client: Client,
    sender: u64,
    /// The batches under way, in order, and the one that each answered fetch goes on from.
    batches: BTreeMap<Vec<u8>, u64>,
    next: BTreeMap<PartitionId, u64>,
}

struct Run<'a> {
    story: &'a Story,
    random: Random,
    world: World,
    faults: Faults,
    config: Arc<ServerConfig>,
    model: Model,
    topics: BTreeMap<String, TopicId>,
    sound: Vec<Sound>,
    hostile: Vec<Hostile>,
    numbers: u64,
    acked: u64,
    fetched: u64,
    guests: u64,
    held: (usize, usize),
}

impl<'a> Run<'a> {
    fn new(story: &'a Story) -> Run<'a> {
        let mut random = Random::stream(story.seed, "kafka run");
        let window_bytes = [4 << 10, 64 << 10, 256 << 10][random.below(3) as usize];
        let faults = Faults { window_bytes, ..Faults::rough() };
        let shards = random.between(1, 3);
        let segment_bytes = [14_000, 200_000, 1 << 20][random.below(3) as usize];
        let engine = Config {
            shards: shards as u16,
            journal_bytes: shards * (4 << 20),
            journal_file_bytes: 1 << 20,
            disk_free_min_bytes: 0,
            pinned_bytes: 2 << 20,
            partitions_default: PARTITIONS,
            topic: TopicConfig { segment_bytes, retention_ms: -1, ..TopicConfig::default() },
            ..Config::default()
        };
        let config = ServerConfig {
            engine,
            request_bytes_max: REQUEST_BYTES,
            partial_bytes_max: PARTIAL_BYTES,
            idle_ms_max: IDLE_MS,
            ..ServerConfig::default()
        };
        Run {
            story,
            world: World::new(story.seed, faults.clone()),
            faults,
            config: Arc::new(config),
            random,
            model: Model::default(),
            topics: BTreeMap::new(),
            sound: Vec::new(),
            hostile: Vec::new(),
            numbers: 0,
            acked: 0,
            fetched: 0,
            guests: 0,
            held: (0, 0),
        }
    }

    fn is_broken(&self) -> bool {
        !self.model.violations.is_empty()
    }

    fn lives(&mut self) {
        for life in 0..=self.story.lives {
            self.world.set_faults(self.faults.clone());
            let seed = self.random.next();
            let cage = Cage::new(Canary::None);
            let config = Arc::clone(&self.config);
            let app = |_| Broker::new(Arc::clone(&config));
            let mut node = match Node::start_with(&self.world, &self.config.engine, &cage, seed, app) {
                Ok(node) => node,
                Err(fatal) => return self.model.violated(format!("the broker does not start: {fatal}")),
            };
            let address = node.listen();
            self.audit(&mut node, address);
            if self.is_broken() || life == self.story.lives {
                return;
            }
            self.live(&mut node, address);
            if self.is_broken() {
                return;
            }
            let crash = match self.random.below(3) {
                0 => Crash::Kill,
                1 => Crash::Power(Survivors::None),
                _ => Crash::Power(Survivors::Some),
            };
            self.world.crash(crash);
            self.model.crashed(crash);
            self.sound.clear();
            self.hostile.clear();
        }
    }

    fn live(&mut self, node: &mut Node, address: SocketAddr) {
        let cut_off = self.random.chance(0.5);
        self.world.set_faults(Faults { reset: 0.002, ..self.faults.clone() });
        for step in 0..self.story.steps {
            self.sound_clients(node, address, true);
            self.hostile_clients(address);
            node.step();
            if step % 16 == 0 {
                self.check_bounds(node);
            }
            if self.is_broken() {
                return;
            }
        }
        if !cut_off {
            self.rest(node, address);
        }
    }

    /// Nothing more is asked: everybody sound is answered, and what the others held is given back.
    fn rest(&mut self, node: &mut Node, address: SocketAddr) {
        self.world.set_faults(self.faults.clone());
        let end = self.world.now() + ANSWERED_IN;
        while self.world.now() < end && self.sound.iter().any(|one| one.client.waiting().next().is_some()) {
            self.sound_clients(node, address, false);
            node.step();
        }
        for one in &self.sound {
            if !one.client.peer.is_closed()
                && let Some(ask) = one.client.waiting().next()
            {
                self.model.violated(format!("not answered after half a minute: {ask:?}"));
            }
        }
        for guest in &self.hostile {
            guest.leave(&mut self.random);
        }
        for one in &self.sound {
            one.client.peer.close();
        }
        // Those that have vanished are found out by their silence.
        let end = self.world.now() + Nanos::from_millis(3 * IDLE_MS + 60_000);
        while self.world.now() < end {
            node.step();
        }
        for shard in 0..node.shards() {
            let broker = node.app(ShardId(shard));
            let (connections, pending) = (broker.connections(), broker.pending());
            // The look for idle connections goes on.
            if connections > 0 || pending > 1 || broker.partial_bytes() > 0 {
                self.model.violated(format!(
                    "nobody is there, and shard {shard} has {connections} connections, {pending} requests and {} bytes",
                    broker.partial_bytes()
                ));
            }
        }
        self.hostile.clear();
        self.sound.clear();
    }

    fn check_bounds(&mut self, node: &Node) {
        for shard in 0..node.shards() {
            let broker = node.app(ShardId(shard));
            let most = broker.held_bytes().max().unwrap_or(0);
            let all: usize = broker.held_bytes().sum();
            self.held = (self.held.0.max(most), self.held.1.max(all));
            if most > CONNECTION_BYTES {
                self.model.violated(format!("a connection holds {most} bytes"));
            }
            if broker.partial_bytes() > PARTIAL_BYTES {
                let bytes = broker.partial_bytes();
                self.model
                    .violated(format!("shard {shard} holds {bytes} bytes of requests that are arriving"));
            }
            let memory = node.shard(ShardId(shard)).memory();
            if memory["slow"] > self.config.engine.pinned_bytes as usize {
                self.model.violated(format!("slow readers hold {memory:?}"));
            }
        }
    }

    fn hostile_clients(&mut self, address: SocketAddr) {
        while self.hostile.len() < self.story.hostile {
            self.guests += 1;
            self.hostile.push(Hostile::connect(&self.world, address, &mut self.random));
        }
        for guest in &mut self.hostile {
            if self.random.chance(0.3) {
                let topic = TOPICS[self.random.below(2) as usize];
                guest.act(topic, &mut self.random);
            }
        }
        let random = &mut self.random;
        self.hostile.retain(|guest| {
            let goes = guest.is_over() || random.chance(0.002);
            if goes {
                guest.leave(random);
            }
            !goes
        });
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn sound_clients(&mut self, node: &Node, address: SocketAddr, asks: bool) {
        while self.sound.len() < self.story.sound && asks {
            let client = Client::connect(&self.world, address);
            let sender = self.number();
            self.sound.push(Sound { client, sender, batches: BTreeMap::new(), next: BTreeMap::new() });
        }
        for mut one in std::mem::take(&mut self.sound) {
            match one.client.answers() {
                Ok(answers) => {
                    for (ask, answer) in answers {
                        self.answered(node, &mut one, &ask, answer);
                    }
                }
                Err(what) => self.model.violated(what),
            }
            if one.client.peer.is_closed() {
                // A reset: of what was under way nobody knows whether it is stored.
                for id in one.batches.into_values() {
                    self.unanswered(id);
                }
                continue;
            }
            if asks && one.client.waiting().count() < UNDER_WAY && self.random.chance(0.3) {
                self.ask(&mut one);
            }
            self.sound.push(one);
        }
    }

    fn unanswered(&mut self, id: u64) {
        if let Some(sent) = self.model.sent.get_mut(&id).filter(|sent| sent.outcome == Outcome::Pending) {
            (sent.outcome, sent.maybe) = (Outcome::Unknown, true);
        }
    }

    fn ask(&mut self, one: &mut Sound) {
        let name = TOPICS[self.random.below(2) as usize].to_owned();
        let pick = self.random.next();
        let Some(topic) = self.topics.get(&name).copied() else {
            return one.client.ask(Ask::Topic(name), pick);
        };
        let index = self.random.below(u64::from(PARTITIONS)) as u32;
        let of = PartitionId { topic, index };
        let known = self.model.partitions.get(&of).map_or(0, |known| known.high_watermark);
        let (topic, index) = (name, index as i32);
        let ask = match self.random.below(20) {
            0 => Ask::Versions,
            1 => Ask::Topic(topic),
            2 | 3 => Ask::List { topic, index, timestamp: -1 - self.random.below(2) as i64 },
            4..=9 => {
                let offset = match self.random.below(3) {
                    0 => known,
                    1 => self.random.below(known + 1),
                    _ => one.next.get(&of).copied().unwrap_or(0),
                };
                let max_bytes = [1, 5_000, 1 << 20][self.random.below(3) as usize];
                let max_wait_ms = self.random.below(50) as i32;
                Ask::Fetch { topic, index, offset, max_bytes, max_wait_ms }
            }
            _ => {
                let id = self.number();
                let batch = self.batch(id);
                let acks = [0, 1, -1, -1][self.random.below(4) as usize];
                let bytes = Slice::from(batch.clone());
                let sender = Some(one.sender);
                self.model.sent.insert(
                    id,
                    Sent { partition: of, sender, bytes, outcome: Outcome::Pending, maybe: false },
                );
                one.batches.insert(batch.clone(), id);
                Ask::Produce { topic, index, acks, batch }
            }
        };
        one.client.ask(ask, pick);
    }

    fn batch(&mut self, id: u64) -> Vec<u8> {
        let size = match self.random.below(20) {
            0 => self.random.between(100_000, 700_000),
            1..=8 => self.random.between(1_000, 20_000),
            _ => self.random.between(1, 600),
        } as usize;
        let mut value = vec![0; size];
        for (chunk, place) in value.chunks_mut(8).zip(0_u64..) {
            let bytes = (id << 24 ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        let mut builder = BatchBuilder::new(1_700_000_000_000 + id as i64);
        builder.push(Some(&id.to_be_bytes()), Some(&value));
        for _ in 0..self.random.below(3) {
            builder.push(None, Some(b"more"));
        }
        builder.build()
    }

    fn answered(&mut self, node: &Node, one: &mut Sound, ask: &Ask, answer: Answer) {
        let of = |topic: &String, index: &i32| {
            self.topics.get(topic).map(|topic| PartitionId { topic: *topic, index: *index as u32 })
        };
        match (ask, answer) {
            (Ask::Versions, Answer::Versions(apis)) if !apis.is_empty() => {}
            // "No leader yet": it is being made.
            (Ask::Topic(name), Answer::Topic(error @ (0 | 5), partitions)) => {
                if error == 0 && partitions != PARTITIONS as usize {
                    self.model.violated(format!("{name} has {partitions} partitions"));
                }
                if error == 0 {
                    self.learn(node, name);
                }
            }
            (Ask::Produce { acks, batch, .. }, Answer::Produced(0, base)) => {
                let durability = if *acks == 1 { Durability::Written } else { Durability::Durable };
                let id = one.batches.remove(batch).expect("it was sent on this connection");
                self.model.acked(id, base as u64, durability);
                self.acked += 1;
            }
            (
                Ask::Fetch { topic, index, offset, .. },
                Answer::Fetched { error: 0, high_watermark, bytes },
            ) => {
                let Some(of) = of(topic, index) else { return };
                let stored = self.model.read(of, *offset, &bytes, high_watermark as u64, false);
                if let Some(last) = stored.last() {
                    self.fetched += 1;
                    one.next.insert(of, last.next);
                }
            }
            (Ask::List { topic, index, timestamp }, Answer::Listed(0, offset)) => {
                let Some(of) = of(topic, index) else { return };
                let Some(known) = self.model.partitions.get_mut(&of) else { return };
                if *timestamp == -1 {
                    known.high_watermark = known.high_watermark.max(offset as u64);
                } else if offset != 0 {
                    self.model.violated(format!("{of} starts at {offset}, and nobody has moved its start"));
                }
            }
            (ask, answer) => self.model.violated(format!("{ask:?} was answered {answer:?}")),
        }
    }

    /// A topic is there: from now on it stays.
    fn learn(&mut self, node: &Node, name: &str) {
        let found = node.metadata(ShardId(0)).topic(name).map(|topic| topic.id);
        match (self.topics.get(name), found) {
            (Some(known), Some(found)) if *known == found => {}
            (None, Some(found)) => {
                self.topics.insert(name.to_owned(), found);
                for index in 0..PARTITIONS {
                    self.model.partitions.insert(PartitionId { topic: found, index }, Partition::default());
                }
            }
            (known, found) => {
                self.model.violated(format!("topic {name} was {known:?}, and is {found:?}"));
            }
        }
    }

    /// Reads everything back over the wire.
    fn audit(&mut self, node: &mut Node, address: SocketAddr) {
        let names: Vec<String> = self.topics.keys().cloned().collect();
        let mut client = Client::connect(&self.world, address);
        for name in names {
            self.learn(node, &name);
            for index in 0..PARTITIONS {
                let Some(topic) = self.topics.get(&name).copied() else { continue };
                let of = PartitionId { topic, index };
                let mut content: Vec<Stored> = Vec::new();
                let mut offset = 0;
                let high_watermark = loop {
                    let ask = Ask::Fetch {
                        topic: name.clone(),
                        index: index as i32,
                        offset,
                        max_bytes: 1 << 20,
                        max_wait_ms: 0,
                    };
                    let Some(answer) = self.wait(node, &mut client, ask) else { return };
                    let Answer::Fetched { error: 0, high_watermark, bytes } = answer else {
                        return self
                            .model
                            .violated(format!("{of}: a fetch at {offset} was answered {answer:?}"));
                    };
                    let stored = self.model.read(of, offset, &bytes, high_watermark as u64, false);
                    let Some(last) = stored.last() else { break high_watermark as u64 };
                    offset = last.next;
                    content.extend(stored);
                };
                self.model.audited(of, (0, high_watermark), &content, false);
            }
        }
        client.peer.close();
    }

    fn wait(&mut self, node: &mut Node, client: &mut Client, ask: Ask) -> Option<Answer> {
        let pick = self.random.next();
        client.ask(ask.clone(), pick);
        for _ in 0..PATIENCE {
            match client.answers() {
                Ok(mut answers) => {
                    if let Some((_, answer)) = answers.pop() {
                        return Some(answer);
                    }
                }
                Err(what) => {
                    self.model.violated(what);
                    return None;
                }
            }
            node.step();
        }
        self.model.violated(format!("{ask:?} is not answered"));
        None
    }
}
