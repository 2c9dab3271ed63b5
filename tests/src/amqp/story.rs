//! A seed's story of queues: publishers with confirms, workers that settle or give back, connections that are reset, crashes, and a
//! getting back of everything that was promised. One message at a time is followed through all of it, by its number.
//!
//! What is promised, and checked here on what clients see:
//! - A confirmed persistent message is in each of its queues until it is settled, whatever crashes.
//! - A message is in the queues of its way only, and comes as it was published.
//! - A message that was settled does not come back; if it was settled shortly before a crash it may, as redelivered.
//! - What comes a second time says so. What comes for the first time comes in the order of publishing.
//! - A transient message is gone after a crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use millstream::amqp::codec::{
    BasicAck, BasicConsume, BasicGet, BasicNack, BasicQos, ConfirmSelect, QueueBind, QueueDeclare, Short,
    Table,
};
use millstream::amqp::kept::Kept;
use millstream::broker::Broker;
use millstream::config::{AmqpConfig, ServerConfig};
use millstream_engine::config::Config;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use super::client::{Came, Client};
use super::hostile::{Hostile, OWN};
use crate::sim::canary::{Cage, Canary};
use crate::sim::node::SimNode;

const QUEUES: [&str; 3] = ["one", "two", "three"];
/// What is published to this exchange goes to the first two queues.
const FANOUT: &str = "amq.fanout";
/// Messages that a publisher has under way, at most.
const UNDER_WAY: usize = 20;
const PREFETCH: u16 = 10;
/// A settlement that is older than this when the machine crashes is not forgotten.
const SETTLED_FOR_GOOD: Nanos = Nanos::from_millis(1_000);
/// Bytes of what is arriving, over all connections of a shard: what is configured,
const UNFINISHED_BYTES: usize = 1 << 20;
/// and what those may have arrive at once that have just been read from.
const UNFINISHED_MORE: usize = 1 << 20;
/// Bytes on their way to queues: what a few connections may have there.
const PUBLISHING_BYTES: usize = 16 << 20;
/// Bytes that wait for those who do not read.
const SENDING_BYTES: usize = 64 << 20;
/// Those that have vanished are found out by their silence in that time.
const SILENCE_NOTICED_IN: Nanos = Nanos::from_millis(60_000);
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
    /// Publishers.
    pub publishers: usize,
    /// Workers.
    pub workers: usize,
    /// Clients that do what no client should.
    pub hostile: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Broken promises; none if all is well.
    pub violations: Vec<String>,
    /// What happened last, for whoever looks for the reason.
    pub trace: String,
    /// Messages that were confirmed, delivered, and settled.
    pub confirmed: u64,
    /// See `confirmed`.
    pub delivered: u64,
    /// See `confirmed`.
    pub settled: u64,
    /// A digest of all that happened.
    pub digest: u32,
}

/// What is known of a message in one of its queues.
#[derive(Clone, Copy, Debug, Default)]
struct Copy {
    delivered: bool,
    /// A worker has it now.
    held: bool,
    settled_at: Option<Nanos>,
    /// It was settled, and nobody knows whether that has arrived and stays.
    maybe_settled: bool,
}

impl Copy {
    /// Nobody knows any more whether it is settled.
    fn doubt(&mut self) {
        self.maybe_settled |= self.settled_at.take().is_some();
    }
}

#[derive(Debug)]
struct Message {
    publisher: u64,
    persistent: bool,
    confirmed: bool,
    /// It was refused, or nobody knows whether it was taken.
    maybe: bool,
    body: Vec<u8>,
    copies: BTreeMap<usize, Copy>,
}

struct Publisher {
    client: Client,
    number: u64,
    /// By delivery tag, from the first that is not confirmed.
    under_way: BTreeMap<u64, u64>,
    next_tag: u64,
    is_open: bool,
}

struct Worker {
    client: Client,
    queue: usize,
    /// The last message of each publisher that came for the first time.
    last: BTreeMap<u64, u64>,
    held: BTreeMap<u64, u64>,
    /// What it has settled last: as much of it as may not have arrived.
    settled: VecDeque<u64>,
    is_open: bool,
}

impl Story {
    /// The story of a seed.
    pub fn of(seed: u64) -> Story {
        let mut random = Random::stream(seed, "amqp story");
        let mut between = |least, most| random.between(least, most);
        Story {
            seed,
            lives: between(1, 3) as u32,
            steps: between(300, 1200),
            publishers: between(1, 3) as usize,
            workers: between(0, 4) as usize,
            hostile: between(0, 6) as usize,
        }
    }

    /// Runs it.
    pub fn run(&self) -> Outcomes {
        let mut run = Run::new(self);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.lives())).err();
        if let Some(panic) = panicked {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            run.outcomes.violations.push(format!("a panic: {}", text.unwrap_or_default()));
        }
        run.outcomes.trace = run.world.trace();
        run.outcomes.digest = run.world.digest();
        run.outcomes
    }
}

struct Run<'a> {
    story: &'a Story,
    random: Random,
    world: World,
    faults: Faults,
    config: Arc<ServerConfig>,
    messages: BTreeMap<u64, Message>,
    publishers: Vec<Publisher>,
    workers: Vec<Worker>,
    hostile: Vec<Hostile>,
    numbers: u64,
    has_crashed: bool,
    outcomes: Outcomes,
}

impl<'a> Run<'a> {
    fn new(story: &'a Story) -> Run<'a> {
        let mut random = Random::stream(story.seed, "amqp run");
        let faults =
            Faults { window_bytes: [4 << 10, 64 << 10][random.below(2) as usize], ..Faults::rough() };
        let shards = random.between(1, 3);
        let engine = Config {
            shards: shards as u16,
            journal_bytes: shards * (4 << 20),
            journal_file_bytes: 1 << 20,
            disk_free_min_bytes: 0,
            ..Config::default()
        };
        // Simulated clients come from all over the world.
        let amqp = AmqpConfig { guest_is_local: false, ..AmqpConfig::default() };
        Run {
            story,
            world: World::new(story.seed, faults.clone()),
            faults,
            config: Arc::new(ServerConfig {
                engine,
                amqp,
                partial_bytes_max: UNFINISHED_BYTES,
                ..ServerConfig::default()
            }),
            random,
            messages: BTreeMap::new(),
            publishers: Vec::new(),
            workers: Vec::new(),
            hostile: Vec::new(),
            numbers: 0,
            has_crashed: false,
            outcomes: Outcomes::default(),
        }
    }

    fn violated(&mut self, what: String) {
        self.outcomes.violations.push(what);
    }

    fn is_broken(&self) -> bool {
        !self.outcomes.violations.is_empty()
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
                Err(fatal) => return self.violated(format!("the broker does not start: {fatal}")),
            };
            let address = node.listen_twice();
            self.set_up(&mut node, address);
            if life == self.story.lives && !self.is_broken() {
                self.audit(&mut node, address);
            }
            if self.is_broken() || life == self.story.lives {
                return;
            }
            self.live(&mut node, address);
            if self.is_broken() {
                return;
            }
            self.crash();
        }
    }

    fn crash(&mut self) {
        let crash = match self.random.below(3) {
            0 => Crash::Kill,
            1 => Crash::Power(Survivors::None),
            _ => Crash::Power(Survivors::Some),
        };
        self.world.crash(crash);
        self.has_crashed = true;
        self.hostile.clear();
        self.lose_publishers();
        self.lose_workers();
        let now = self.world.now();
        for message in self.messages.values_mut() {
            message.maybe |= !message.confirmed;
            for copy in message.copies.values_mut() {
                // It may have been forgotten; then it comes again, and says so.
                if copy.settled_at.is_some_and(|at| now.since(at) <= SETTLED_FOR_GOOD) {
                    copy.doubt();
                }
            }
        }
        self.messages.retain(|_, message| message.persistent);
    }

    fn lose_publishers(&mut self) {
        for publisher in std::mem::take(&mut self.publishers) {
            for id in publisher.under_way.into_values() {
                if let Some(message) = self.messages.get_mut(&id) {
                    message.maybe = true;
                }
            }
        }
    }

    fn lose_workers(&mut self) {
        for worker in std::mem::take(&mut self.workers) {
            self.lost(&worker);
        }
    }

    /// A worker's connection is over: what it held goes back.
    fn lost(&mut self, worker: &Worker) {
        for id in worker.held.values().chain(&worker.settled) {
            if let Some(copy) =
                self.messages.get_mut(id).and_then(|message| message.copies.get_mut(&worker.queue))
            {
                copy.held = false;
                copy.doubt();
            }
        }
    }

    /// Declares everything, which may be there.
    fn set_up(&mut self, node: &mut Node, address: SocketAddr) {
        let mut client = Client::connect(&self.world, address);
        for queue in QUEUES {
            let declare =
                QueueDeclare { queue: Short(queue.as_bytes()), durable: true, ..QueueDeclare::default() };
            client.say(declare);
        }
        for queue in &QUEUES[..2] {
            client.say(QueueBind {
                queue: Short(queue.as_bytes()),
                exchange: Short(FANOUT.as_bytes()),
                ..QueueBind::default()
            });
        }
        let end = self.world.now() + ANSWERED_IN;
        let mut left = QUEUES.len() + 2;
        while left > 0 && !self.is_broken() {
            node.step();
            match client.came() {
                Ok(came) => left -= came.iter().filter(|came| matches!(came, Came::Done(50, _))).count(),
                Err(what) => self.violated(what),
            }
            if client.peer.is_closed() || self.world.now() > end {
                self.violated(format!("{left} declarations are not answered"));
            }
        }
        client.peer.close();
    }

    fn live(&mut self, node: &mut Node, address: SocketAddr) {
        let cut_off = self.random.chance(0.5);
        self.world.set_faults(Faults { reset: 0.0005, ..self.faults.clone() });
        for _ in 0..self.story.steps {
            self.publish(address, true);
            self.work(address, true);
            self.disturb(address);
            node.step();
            self.check_bounds(node);
            if self.is_broken() {
                return;
            }
        }
        if !cut_off {
            self.rest(node, address);
        }
    }

    /// Nothing more is published: all that was is confirmed.
    fn rest(&mut self, node: &mut Node, address: SocketAddr) {
        self.world.set_faults(self.faults.clone());
        let end = self.world.now() + ANSWERED_IN;
        while self.publishers.iter().any(|publisher| !publisher.under_way.is_empty()) {
            self.publish(address, false);
            self.work(address, false);
            node.step();
            if self.world.now() > end {
                self.violated("not confirmed after half a minute".to_owned());
            }
            if self.is_broken() {
                return;
            }
        }
        self.leave(node, address);
    }

    /// Those who disturb do something.
    fn disturb(&mut self, address: SocketAddr) {
        while self.hostile.len() < self.story.hostile {
            self.hostile.push(Hostile::connect(&self.world, address, &mut self.random));
        }
        for guest in &mut self.hostile {
            if self.random.chance(0.3) {
                let queue = QUEUES[self.random.below(QUEUES.len() as u64) as usize];
                guest.act(queue, &mut self.random);
            }
        }
        let random = &mut self.random;
        self.hostile.retain(|guest| {
            let over = guest.is_over();
            if over {
                guest.leave(random);
            }
            !over
        });
    }

    /// What is kept for all of them is bounded at any time.
    fn check_bounds(&mut self, node: &Node) {
        for shard in 0..node.shards() {
            let kept = node.app(ShardId(shard)).amqp_kept();
            if kept.unfinished > UNFINISHED_BYTES + UNFINISHED_MORE
                || kept.publishing > PUBLISHING_BYTES
                || kept.sending > SENDING_BYTES
            {
                self.violated(format!("shard {shard} keeps {kept:?}"));
            }
        }
    }

    /// Everybody goes, in whatever way, and nothing of them is left.
    fn leave(&mut self, node: &mut Node, address: SocketAddr) {
        for guest in std::mem::take(&mut self.hostile) {
            guest.leave(&mut self.random);
        }
        for publisher in &self.publishers {
            publisher.client.peer.close();
        }
        for worker in &self.workers {
            worker.client.peer.close();
        }
        let end = self.world.now() + SILENCE_NOTICED_IN;
        while self.world.now() < end {
            self.publish(address, false);
            self.work(address, false);
            node.step();
        }
        for shard in 0..node.shards() {
            let broker = node.app(ShardId(shard));
            let (connections, pending, kept) = (broker.connections(), broker.pending(), broker.amqp_kept());
            if connections > 0 || pending > 1 || kept != Kept::default() {
                self.violated(format!(
                    "nobody is there, and shard {shard} has {connections} connections, {pending} requests, and keeps {kept:?}"
                ));
            }
        }
        for name in OWN {
            let mut client = Client::connect(&self.world, address);
            let queue = Short(name.as_bytes());
            client.say(QueueDeclare { queue, passive: true, ..QueueDeclare::default() });
            match self.wait(node, &mut client) {
                Some(Came::Refused(404, _)) | None => client.peer.close(),
                other => self.violated(format!("{name} has lost its connection, and is there: {other:?}")),
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn publish(&mut self, address: SocketAddr, asks: bool) {
        while asks && self.publishers.len() < self.story.publishers {
            let mut client = Client::connect(&self.world, address);
            client.say(ConfirmSelect::default());
            let number = self.number();
            let under_way = BTreeMap::new();
            self.publishers.push(Publisher { client, number, under_way, next_tag: 1, is_open: false });
        }
        for mut publisher in std::mem::take(&mut self.publishers) {
            match publisher.client.came() {
                Ok(came) => {
                    for came in came {
                        self.confirmed(&mut publisher, came);
                    }
                }
                Err(what) => self.violated(what),
            }
            if publisher.client.peer.is_closed() {
                for id in publisher.under_way.into_values() {
                    self.messages.entry(id).and_modify(|message| message.maybe = true);
                }
                continue;
            }
            if asks && publisher.is_open && publisher.under_way.len() < UNDER_WAY && self.random.chance(0.4) {
                self.send(&mut publisher);
            }
            self.publishers.push(publisher);
        }
    }

    fn confirmed(&mut self, publisher: &mut Publisher, came: Came) {
        match came {
            Came::Opened => {}
            Came::Done(85, 11) => publisher.is_open = true,
            Came::Confirmed { tag, multiple, refused } => {
                let first = if multiple { 0 } else { tag };
                let tags: Vec<u64> = publisher.under_way.range(first..=tag).map(|(tag, _)| *tag).collect();
                if tags.last() != Some(&tag) {
                    return self.violated(format!("message {tag} is confirmed twice"));
                }
                for tag in tags {
                    let id = publisher.under_way.remove(&tag).unwrap_or_default();
                    let Some(message) = self.messages.get_mut(&id) else { continue };
                    message.confirmed = !refused;
                    message.maybe |= refused;
                    self.outcomes.confirmed += u64::from(!refused);
                }
            }
            other => self.violated(format!("a publisher was told {other:?}")),
        }
    }

    fn send(&mut self, publisher: &mut Publisher) {
        let id = self.number();
        let size = match self.random.below(10) {
            0 => self.random.between(4_000, 60_000),
            _ => self.random.between(0, 500),
        };
        let mut body = id.to_be_bytes().to_vec();
        body.extend((0..size).map(|place| (id ^ place) as u8));
        let persistent = self.random.chance(0.7);
        let queues = match self.random.below(4) {
            0 => vec![0, 1],
            queue => vec![queue as usize - 1],
        };
        match queues[..] {
            [queue] => publisher.client.publish("", QUEUES[queue], persistent, &body),
            _ => publisher.client.publish(FANOUT, "", persistent, &body),
        }
        let copies = queues.into_iter().map(|queue| (queue, Copy::default())).collect();
        let message =
            Message { publisher: publisher.number, persistent, confirmed: false, maybe: false, body, copies };
        self.messages.insert(id, message);
        publisher.under_way.insert(publisher.next_tag, id);
        publisher.next_tag += 1;
    }

    fn work(&mut self, address: SocketAddr, asks: bool) {
        while asks && self.workers.len() < self.story.workers {
            let mut client = Client::connect(&self.world, address);
            let queue = self.random.below(QUEUES.len() as u64) as usize;
            client.say(BasicQos { prefetch_count: PREFETCH, ..BasicQos::default() });
            client.say(BasicConsume {
                queue: Short(QUEUES[queue].as_bytes()),
                arguments: Table::EMPTY,
                ..BasicConsume::default()
            });
            let (last, held, settled) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
            self.workers.push(Worker { client, queue, last, held, settled, is_open: false });
        }
        for mut worker in std::mem::take(&mut self.workers) {
            match worker.client.came() {
                Ok(came) => {
                    for came in came {
                        self.worked(&mut worker, came);
                    }
                }
                Err(what) => self.violated(what),
            }
            if worker.client.peer.is_closed() {
                self.lost(&worker);
                continue;
            }
            if self.random.chance(0.3) {
                for _ in 0..self.random.below(4) {
                    self.settle(&mut worker);
                }
            }
            if asks && self.random.chance(0.002) {
                worker.client.peer.close();
                self.lost(&worker);
                continue;
            }
            self.workers.push(worker);
        }
    }

    fn worked(&mut self, worker: &mut Worker, came: Came) {
        match came {
            Came::Opened | Came::Done(60, 11) => {}
            Came::Done(60, 21) => worker.is_open = true,
            Came::Delivered { tag, redelivered, body, .. } => {
                let Some(id) = self.seen(worker.queue, redelivered, &body) else { return };
                worker.held.insert(tag, id);
                if worker.held.len() > usize::from(PREFETCH) {
                    self.violated(format!("a worker keeps {} messages", worker.held.len()));
                }
                let Some(message) = self.messages.get(&id) else { return };
                let last = worker.last.insert(message.publisher, id);
                if !redelivered && last.is_some_and(|last| last > id) {
                    self.violated(format!("message {id} comes behind {last:?} of the same publisher"));
                }
            }
            other => self.violated(format!("a worker was told {other:?}")),
        }
    }

    /// A message has come out of a queue.
    fn seen(&mut self, queue: usize, redelivered: bool, body: &[u8]) -> Option<u64> {
        self.outcomes.delivered += 1;
        let id = body.first_chunk().copied().map(u64::from_be_bytes).unwrap_or_default();
        let Some(message) = self.messages.get_mut(&id) else {
            let text = if self.has_crashed { ", or it was to be gone after a crash" } else { "" };
            self.violated(format!("message {id} was never published{text}"));
            return None;
        };
        if message.body != body {
            self.violated(format!("message {id} is not what was published"));
            return None;
        }
        let wrong = match message.copies.get_mut(&queue) {
            None => Some("is in a queue that it was not sent to"),
            Some(copy) => {
                let wrong = if copy.settled_at.is_some() {
                    Some("was settled, and is back")
                } else if copy.held {
                    Some("is with two workers")
                } else if copy.delivered && !redelivered {
                    Some("does not say that it has come before")
                } else {
                    None
                };
                copy.delivered = true;
                copy.held = true;
                wrong
            }
        };
        if let Some(wrong) = wrong {
            self.violated(format!("message {id} {wrong} ({})", QUEUES[queue]));
        }
        Some(id)
    }

    fn settle(&mut self, worker: &mut Worker) {
        let count = worker.held.len() as u64;
        if count == 0 {
            return;
        }
        // Mostly in order, as workers do.
        let place = if self.random.chance(0.5) { 0 } else { self.random.below(count) };
        let Some((tag, id)) = worker.held.iter().nth(place as usize).map(|(tag, id)| (*tag, *id)) else {
            return;
        };
        let gives_back = self.random.chance(0.1);
        let now = self.world.now();
        let Some(copy) = self.messages.get_mut(&id).and_then(|message| message.copies.get_mut(&worker.queue))
        else {
            return;
        };
        worker.held.remove(&tag);
        copy.held = false;
        if gives_back {
            worker.client.say(BasicNack { delivery_tag: tag, multiple: false, requeue: true });
        } else {
            copy.settled_at = Some(now);
            self.outcomes.settled += 1;
            worker.settled.push_back(id);
            if worker.settled.len() > usize::from(PREFETCH) {
                worker.settled.pop_front();
            }
            worker.client.say(BasicAck { delivery_tag: tag, multiple: false });
        }
    }

    /// Gets everything out of every queue: what was confirmed and not settled is there.
    fn audit(&mut self, node: &mut Node, address: SocketAddr) {
        self.lose_publishers();
        self.lose_workers();
        let mut client = Client::connect(&self.world, address);
        let mut found: BTreeSet<(u64, usize)> = BTreeSet::new();
        for (queue, name) in QUEUES.iter().enumerate() {
            loop {
                client.say(BasicGet { queue: Short(name.as_bytes()), no_ack: true, ..BasicGet::default() });
                match self.wait(node, &mut client) {
                    Some(Came::Delivered { redelivered, body, .. }) => {
                        found.extend(self.seen(queue, redelivered, &body).map(|id| (id, queue)));
                    }
                    Some(Came::Empty) => break,
                    Some(other) => return self.violated(format!("an audit was told {other:?}")),
                    None => return,
                }
                if self.is_broken() {
                    return;
                }
            }
        }
        let missing: Vec<String> = self
            .messages
            .iter()
            .filter(|(_, message)| message.confirmed && !message.maybe)
            .flat_map(|(id, message)| message.copies.iter().map(move |(queue, copy)| (id, queue, copy)))
            .filter(|(id, queue, copy)| {
                !found.contains(&(**id, **queue)) && copy.settled_at.is_none() && !copy.maybe_settled
            })
            .map(|(id, queue, copy)| {
                format!("message {id} was confirmed and is not in {}: {copy:?}", QUEUES[*queue])
            })
            .collect();
        for what in missing {
            self.violated(what);
        }
    }

    fn wait(&mut self, node: &mut Node, client: &mut Client) -> Option<Came> {
        let end = self.world.now() + ANSWERED_IN;
        while self.world.now() < end {
            node.step();
            match client.came() {
                Ok(came) => {
                    if let Some(came) = came.into_iter().find(|came| *came != Came::Opened) {
                        return Some(came);
                    }
                }
                Err(what) => {
                    self.violated(what);
                    return None;
                }
            }
        }
        self.violated("an audit is not answered".to_owned());
        None
    }
}
