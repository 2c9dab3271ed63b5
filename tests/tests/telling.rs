//! Hosts that tell each other something: everything arrives, once and in order, however full the mailboxes are.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use millstream_engine::buffer::Pool;
use millstream_engine::config::Config;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{SimIo, World};
use millstream_engine::io::{Blocking, ConnId};
use millstream_engine::reactor::app::{App, AppEvent, Outbox};
use millstream_engine::reactor::boot::boot;
use millstream_engine::reactor::{Reactor, Shared};
use millstream_engine::shard::Shard;
use millstream_engine::shard::controller::{CONTROLLER, Controller};
use millstream_engine::shard::mailbox::mesh;
use millstream_engine::types::ShardId;
use millstream_tests::solo::config;

const SHARDS: u16 = 2;
/// Room in each mailbox: little.
const SLOTS: usize = 4;
/// Messages that one event has to tell.
const BURST: u64 = 100;
/// Turns after which time passes, and how often that may be: far more than it takes.
const TURNS_PER_ROUND: usize = 20;
const ROUNDS_MAX: usize = 10_000;

/// Counts upwards, and whether it is an answer.
type Message = (u64, bool);

#[derive(Default)]
struct Seen {
    /// What each shard was told, by whom: questions and answers.
    questions: Vec<(ShardId, u64)>,
    answers: Vec<(ShardId, u64)>,
    /// For everything that came in on a connection: how many questions all shards together had been told by then.
    received: Vec<usize>,
}

/// Tells every shard a burst when it starts, and another for every byte it receives; answers what it is told.
struct Host {
    seen: Rc<RefCell<Seen>>,
    /// Questions that all shards together have been told.
    questions: Rc<Cell<usize>>,
    told: u64,
}

impl Host {
    fn burst(&mut self, source: Option<ConnId>, out: &mut Outbox) {
        for number in self.told..self.told + BURST {
            for shard in 0..SHARDS {
                let message: Message = (number, false);
                out.tell(ShardId(shard), Box::new(message), source);
            }
        }
        self.told += BURST;
    }
}

impl App for Host {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        match event {
            AppEvent::Started => self.burst(None, out),
            AppEvent::Received(conn, _) => {
                self.seen.borrow_mut().received.push(self.questions.get());
                self.burst(Some(conn), out);
            }
            AppEvent::Told { from, message } => {
                let (number, is_answer) = *message.downcast::<Message>().expect("nothing else is told");
                let mut seen = self.seen.borrow_mut();
                if is_answer {
                    seen.answers.push((from, number));
                } else {
                    seen.questions.push((from, number));
                    self.questions.set(self.questions.get() + 1);
                    let answer: Message = (number, true);
                    out.tell(from, Box::new(answer), None);
                }
            }
            _ => {}
        }
    }
}

/// A node's shards, which take turns in an order that chance decides.
struct Node {
    world: World,
    reactors: Vec<Reactor<SimIo, Host>>,
    seen: Vec<Rc<RefCell<Seen>>>,
    random: Random,
}

impl Node {
    /// Lets the shards take turns, and time pass once each has had several, until a condition holds.
    fn run_until(&mut self, condition: impl Fn(&mut Node) -> bool) {
        for _ in 0..ROUNDS_MAX {
            for _ in 0..TURNS_PER_ROUND {
                let next = self.random.below(self.reactors.len() as u64) as usize;
                self.reactors[next].turn(true);
                if condition(self) {
                    return;
                }
            }
            if let Some(next) = self.world.next_event_at() {
                self.world.advance_to(next);
            }
        }
        panic!("it does not come about");
    }

    /// Questions that all shards together have been told.
    fn told(&self) -> usize {
        self.seen.iter().map(|seen| seen.borrow().questions.len()).sum()
    }

    /// What was received, over all shards.
    fn received(&self) -> Vec<usize> {
        self.seen.iter().flat_map(|seen| seen.borrow().received.clone()).collect()
    }
}

/// A node of two shards on an empty disk.
fn node(world: &World, seed: u64) -> Node {
    let config = Arc::new(Config { shards: SHARDS, ..config() });
    let pool = Pool::new(256 << 20);
    let found = boot(&mut Blocking::new(&mut world.io(CONTROLLER), pool.clone()), &config)
        .expect("the disk is empty");
    let shared = Arc::new(Shared::new(SHARDS));
    let questions = Rc::new(Cell::new(0));
    let mut all = Vec::new();
    let mut reactors = Vec::new();
    for (id, post) in mesh(SHARDS, SLOTS).into_iter().enumerate() {
        let id = ShardId(id as u16);
        let mut io = world.io(id);
        let metadata = Arc::clone(&found.metadata);
        let (shard, _) =
            Shard::recover(&mut io, id, &found.manifest, Arc::clone(&config), Arc::clone(&metadata))
                .expect("there is nothing to recover");
        let controller = (id == CONTROLLER).then(|| {
            let mut disk = Blocking::new(&mut io, pool.clone());
            Controller::start(&mut disk, metadata, &config, pool.clone()).expect("the disk is sound")
        });
        let seen = Rc::new(RefCell::new(Seen::default()));
        let host = Host { seen: Rc::clone(&seen), questions: Rc::clone(&questions), told: 0 };
        let reactor = Reactor::new(io, shard, controller, host, post, Arc::clone(&shared));
        all.push(seen);
        reactors.push(reactor);
    }
    world.hold_time(true);
    Node { world: world.clone(), reactors, seen: all, random: Random::stream(seed, "turns") }
}

fn expected(bursts: u64) -> Vec<u64> {
    (0..bursts * BURST).collect()
}

fn from(messages: &[(ShardId, u64)], shard: u16) -> Vec<u64> {
    messages.iter().filter(|(from, _)| from.0 == shard).map(|(_, number)| *number).collect()
}

#[test]
fn what_is_told_arrives_in_order_at_oneself_as_at_the_other_shard() {
    for seed in 0..20 {
        let world = World::new(seed, Faults::default());
        let mut node = node(&world, seed);
        let all = BURST as usize * usize::from(SHARDS);
        node.run_until(|node| node.seen.iter().all(|seen| seen.borrow().answers.len() == all));
        for seen in &node.seen {
            let seen = seen.borrow();
            for shard in 0..SHARDS {
                assert_eq!(from(&seen.questions, shard), expected(1), "seed {seed}");
                assert_eq!(from(&seen.answers, shard), expected(1), "seed {seed}");
            }
        }
    }
}

#[test]
fn a_connection_whose_messages_wait_for_room_is_not_read_meanwhile() {
    let world = World::new(3, Faults::default());
    let mut node = node(&world, 3);
    let at_first = usize::from(SHARDS * SHARDS) * BURST as usize;
    node.run_until(|node| node.told() == at_first);
    node.reactors[0].listen(SocketAddr::from(([127, 0, 0, 1], 0)));
    node.run_until(|node| node.reactors[0].listening(0).is_some());
    let address = *node.reactors[0].listening(0).expect("it listens").as_ref().expect("every port is free");
    let peer = world.connect(address);
    peer.send(b"a");
    node.run_until(|node| node.received().len() == 1);
    peer.send(b"b");
    node.run_until(|node| node.received().len() == 2);
    let told = node.received()[1] - at_first;
    let asked = usize::from(SHARDS) * BURST as usize;
    let room = usize::from(SHARDS) * SLOTS;
    assert!(told + room >= asked, "the second byte came when only {told} of {asked} messages had been told");
}
