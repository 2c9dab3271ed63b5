//! Queues on two shards, whose dead letters go round in a circle, through lives that end in crashes: nothing confirmed is lost
//! or doubled, what was settled for good stays settled, order holds, and what may have been delivered says so.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use millstream_engine::config::{Config, QueueSettings};
use millstream_engine::io::fault::Faults;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::reactor::app::{App, AppEvent, AppToken, Outbox};
use millstream_engine::shard::change::{Edit, MetadataChange, NewQueue};
use millstream_engine::shard::message::{
    Consume, ConsumerId, Credit, Delivery, Move, Publish, QueueStats, Settlement, Verdict,
};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{QueueId, ShardId};
use millstream_tests::queues::message;
use millstream_tests::sim::canary::{Cage, Canary};
use millstream_tests::sim::node::SimNode;

const QUEUES: usize = 4;
const LOOK: Nanos = Nanos::from_micros(300);
/// A settlement that is older than this is durable: what it may wait, a slow commit, and a shard that is held up.
const SETTLED_FOR_GOOD: Nanos = Nanos::from_millis(300);

/// When nothing has been delivered for so long, nothing is left.
const QUIET: Nanos = Nanos::from_millis(4_000);

/// What is known of one message, wherever it is.
#[derive(Clone, Default, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Known {
    confirmed: bool,
    acked_at: Option<Nanos>,
    /// Acknowledged, and not seen again since.
    may_be_gone: bool,
    ended: bool,
    moved: bool,
    /// The queues that have delivered it in earlier lives.
    delivered: Vec<usize>,
}

#[derive(Default)]
struct Model {
    queues: Vec<QueueId>,
    messages: Vec<Known>,
    /// In this life: the last message that was delivered for the first time, by queue and publisher.
    last: BTreeMap<(usize, ShardId), u32>,
    publishers: Vec<ShardId>,
    violations: Vec<String>,
    /// Only what is there is taken, and all of it acknowledged.
    draining: bool,
    deliveries: u64,
    letters: u64,
    /// How queues stood when somebody last asked.
    stats: BTreeMap<QueueId, QueueStats>,
}

enum Asked {
    Queues,
    Publish(Vec<u32>),
    Settled(u32),
    Stats,
    Else,
}

struct Host {
    shard: ShardId,
    model: Rc<RefCell<Model>>,
    random: Random,
    asked: BTreeMap<u64, Asked>,
    last: u64,
    consuming: bool,
}

impl Host {
    fn ask(&mut self, out: &mut Outbox, shard: ShardId, request: Request, asked: Asked) {
        self.last += 1;
        self.asked.insert(self.last, asked);
        out.engine(AppToken(self.last), shard, request, None);
    }

    fn queue(&self, index: usize) -> Option<QueueId> {
        self.model.borrow().queues.get(index).copied()
    }

    fn create(&mut self, out: &mut Outbox) {
        let edits = (0..QUEUES).map(|index| {
            let settings =
                QueueSettings { dead_letter: true, delivery_limit: Some(3), ..QueueSettings::default() };
            Edit::CreateQueue(NewQueue { name: format!("q{index}").into(), durable: true, settings })
        });
        let change = MetadataChange { guards: Vec::new(), edits: edits.collect() };
        self.ask(out, ShardId(0), Request::ChangeMetadata(change), Asked::Queues);
    }

    /// Each queue is consumed from the shard that it is not on.
    fn consume(&mut self, out: &mut Outbox) {
        self.consuming = true;
        for index in 0..QUEUES {
            let queue = self.queue(index).expect("they were created");
            let owner = out.metadata().shard_of_queue(queue).expect("it is known");
            if owner == self.shard {
                continue;
            }
            let consume = Consume {
                queue,
                consumer: ConsumerId(index as u64),
                no_ack: false,
                exclusive: false,
                priority: 0,
                timeout_ms: None,
                credit: Credit { messages: 16, bytes: 200_000 },
            };
            self.ask(out, owner, Request::Consume(consume), Asked::Else);
        }
    }

    fn look(&mut self, out: &mut Outbox) {
        out.set_timer(AppToken(0), out.now() + LOOK);
        if self.model.borrow().queues.is_empty() {
            if self.shard == ShardId(0) && self.asked.is_empty() {
                self.create(out);
            }
            return;
        }
        let last = self.queue(QUEUES - 1).expect("they were created");
        if out.metadata().queue(last).is_none() {
            return;
        }
        if !self.consuming {
            self.consume(out);
        }
        if self.random.chance(0.01) {
            let queues = self.model.borrow().queues.clone();
            self.ask(out, self.shard, Request::QueueStats { queues, touch: false }, Asked::Stats);
        }
        let under_way = self.asked.values().filter(|asked| matches!(asked, Asked::Publish(_))).count();
        if !self.model.borrow().draining && under_way < 4 && self.random.chance(0.5) {
            self.publish(out);
        }
    }

    fn publish(&mut self, out: &mut Outbox) {
        let index = self.random.below(QUEUES as u64) as usize;
        let queue = self.queue(index).expect("they were created");
        let owner = out.metadata().shard_of_queue(queue).expect("it is known");
        let mut numbers = Vec::new();
        let mut messages = Vec::new();
        for _ in 0..self.random.between(1, 6) {
            let number = {
                let mut model = self.model.borrow_mut();
                model.messages.push(Known::default());
                model.publishers.push(self.shard);
                model.messages.len() as u32 - 1
            };
            numbers.push(number);
            let size = self.random.between(4, 30_000) as usize;
            messages.push(Publish { queues: vec![queue], message: message(&body(number, size), true) });
        }
        self.ask(out, owner, Request::Publish(messages), Asked::Publish(numbers));
    }

    fn delivered(&mut self, out: &mut Outbox, delivery: &Delivery) {
        let number = number(&delivery.body);
        let index = delivery.consumer.0 as usize;
        let (draining, now) = (self.model.borrow().draining, out.now());
        let owner = out.metadata().shard_of_queue(delivery.queue).expect("it is known");
        self.model.borrow_mut().took(index, number, delivery);
        let (verdict, durable) = match self.random.below(100) {
            _ if draining => (Verdict::Ack, true),
            0..50 => (Verdict::Ack, false),
            50..60 => (Verdict::Ack, true),
            60..80 => (Verdict::Requeue { failed: self.random.chance(0.5) }, false),
            _ => (Verdict::Reject, false),
        };
        let settlement = Settlement {
            queue: delivery.queue,
            consumer: delivery.consumer,
            first: delivery.seq,
            last: delivery.seq,
            verdict,
        };
        if verdict == Verdict::Ack {
            let known = &mut self.model.borrow_mut().messages[number as usize];
            (known.acked_at, known.may_be_gone) = (Some(now), true);
        }
        let asked = if durable { Asked::Settled(number) } else { Asked::Else };
        self.ask(out, owner, Request::Settle { settlements: vec![settlement], durable }, asked);
        let more = Credit { messages: 1, bytes: (delivery.header.len() + delivery.body.len()) as u32 };
        self.ask(out, owner, Request::Grant(vec![(delivery.consumer, more)]), Asked::Else);
    }
}

impl App for Host {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        match event {
            AppEvent::Started | AppEvent::Timer(_) => self.look(out),
            AppEvent::Reply(token, reply) => {
                let asked = self.asked.remove(&token.0).expect("it was asked");
                let mut model = self.model.borrow_mut();
                match (asked, reply) {
                    (Asked::Queues, Reply::Changed(ids)) => model.queues = ids,
                    (Asked::Publish(numbers), Reply::Published(outcomes)) => {
                        for (number, outcome) in numbers.into_iter().zip(outcomes) {
                            model.messages[number as usize].confirmed = outcome.refused.is_empty();
                        }
                    }
                    (Asked::Stats, Reply::QueueStats(stats)) => model.stats.extend(stats),
                    (Asked::Settled(number), Reply::Done) => model.messages[number as usize].ended = true,
                    (Asked::Else, Reply::Done | Reply::Consuming { .. } | Reply::Refused(_)) => {}
                    (_, reply) => model.violations.push(format!("a strange answer: {reply:?}")),
                }
            }
            AppEvent::Delivered(deliveries) => {
                for delivery in &deliveries {
                    self.delivered(out, delivery);
                }
            }
            AppEvent::DeadLettered(letter) => {
                let (index, next) = {
                    let mut model = self.model.borrow_mut();
                    model.letters += 1;
                    let number = number(&letter.body);
                    model.messages[number as usize].moved = true;
                    let index = model.queues.iter().position(|queue| *queue == letter.queue);
                    let index = index.expect("a known queue");
                    (index, model.queues[(index + 1) % QUEUES])
                };
                assert!(index < QUEUES);
                let target = (out.metadata().shard_of_queue(next).expect("it is known"), next);
                let moved = Move {
                    queue: letter.queue,
                    seq: letter.seq,
                    targets: vec![target],
                    message: message(&letter.body, true),
                };
                self.ask(out, self.shard, Request::Move(moved), Asked::Else);
            }
            _ => {}
        }
    }
}

impl Model {
    fn took(&mut self, index: usize, number: u32, delivery: &Delivery) {
        self.deliveries += 1;
        let publisher = self.publishers[number as usize];
        let known = &self.messages[number as usize];
        if known.ended {
            self.violations.push(format!("{number} was settled for good, and is delivered"));
        }
        if known.delivered.contains(&index) && !delivery.redelivered && !known.moved {
            self.violations
                .push(format!("{number} was delivered by {index} in another life, and does not say so"));
        }
        if !delivery.redelivered && !known.moved {
            let last = self.last.insert((index, publisher), number);
            if last.is_some_and(|last| last > number) {
                self.violations.push(format!("{number} is delivered by {index} behind {last:?}"));
            }
        }
        let known = &mut self.messages[number as usize];
        known.may_be_gone = false;
        if !known.delivered.contains(&index) {
            known.delivered.push(index);
        }
    }

    fn crashed(&mut self, now: Nanos) {
        self.last.clear();
        for known in &mut self.messages {
            known.ended |= known.acked_at.take().is_some_and(|at| at + SETTLED_FOR_GOOD < now);
        }
    }
}

fn body(number: u32, size: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(size.max(4), number as u8);
    body
}

fn number(body: &[u8]) -> u32 {
    let bytes: [u8; 4] = body[..4].try_into().expect("it begins with its number");
    assert!(body[4..].iter().all(|byte| *byte == bytes[0]), "these are not the bytes that were published");
    u32::from_le_bytes(bytes)
}

fn config() -> Config {
    Config {
        shards: 2,
        journal_bytes: 8 << 20,
        journal_file_bytes: 1 << 20,
        disk_free_min_bytes: 0,
        pinned_bytes: 1 << 20,
        ..Config::default()
    }
}

fn start(world: &World, model: &Rc<RefCell<Model>>, seed: u64, life: u64) -> SimNode<Host> {
    let host = |shard: ShardId| Host {
        shard,
        model: Rc::clone(model),
        random: Random::stream(seed ^ life << 8 ^ u64::from(shard.0), "host"),
        asked: BTreeMap::new(),
        last: 0,
        consuming: false,
    };
    let started = SimNode::start_with(world, &config(), &Cage::new(Canary::None), seed ^ life, host);
    started.unwrap_or_else(|fatal| panic!("seed {seed}, life {life}: {fatal}"))
}

fn check(model: &Rc<RefCell<Model>>, seed: u64, life: u64) {
    let model = model.borrow();
    assert!(model.violations.is_empty(), "seed {seed}, life {life}: {:#?}", model.violations);
}

fn run(seed: u64) -> (u64, u64) {
    let world = World::new(seed, Faults::default());
    let model = Rc::new(RefCell::new(Model::default()));
    let mut random = Random::stream(seed, "lives");
    for life in 0..4 {
        let mut node = start(&world, &model, seed, life);
        for _ in 0..random.between(400, 2_500) {
            node.step();
        }
        check(&model, seed, life);
        model.borrow_mut().crashed(world.now());
        drop(node);
        world.crash(match random.below(4) {
            0 => Crash::Kill,
            1 => Crash::Power(Survivors::None),
            2 => Crash::Power(Survivors::All),
            _ => Crash::Power(Survivors::Some),
        });
    }
    // What is left is taken out, all of it.
    model.borrow_mut().draining = true;
    let before = model.borrow().messages.clone();
    let mut node = start(&world, &model, seed, 99);
    let mut last = (0, world.now());
    while last.1 + QUIET > world.now() {
        node.step();
        let deliveries = model.borrow().deliveries;
        if deliveries != last.0 {
            last = (deliveries, world.now());
        }
    }
    check(&model, seed, 99);
    let model = model.borrow();
    for (number, (before, after)) in before.iter().zip(&model.messages).enumerate() {
        let may_be_gone = before.ended || before.may_be_gone || !before.confirmed;
        let stats = &model.stats;
        assert!(
            may_be_gone || after.ended,
            "seed {seed}: {number} was confirmed, and is gone: {before:?}, {after:?}, {stats:?}"
        );
    }
    (model.deliveries, model.letters)
}

#[test]
fn two_shards_keep_their_promises_through_crashes() {
    let (mut deliveries, mut letters) = (0, 0);
    for seed in 0..8 {
        let (delivered, moved) = run(seed);
        deliveries += delivered;
        letters += moved;
    }
    assert!(deliveries > 1_000 && letters > 100, "{deliveries} deliveries, {letters} dead letters");
}
