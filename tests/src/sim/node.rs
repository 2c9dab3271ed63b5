//! A whole node over a simulated machine: the production boot, recovery, reactors and mailboxes, in one thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use millstream_engine::buffer::{Pool, Slice};
use millstream_engine::config::Config;
use millstream_engine::error::Fatal;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::World;
use millstream_engine::io::{Blocking, ConnId};
use millstream_engine::log::Log;
use millstream_engine::metrics::{Reader, ShardMetrics};
use millstream_engine::reactor::app::{App, AppEvent, AppToken, Outbox};
use millstream_engine::reactor::boot::{Boot, boot, finish};
use millstream_engine::reactor::reshard::reshard;
use millstream_engine::reactor::{Reactor, Shared, Turn};
use millstream_engine::shard::Shard;
use millstream_engine::shard::controller::{CONTROLLER, Controller};
use millstream_engine::shard::mailbox::{mesh, slots};
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use super::canary::{Cage, CanaryIo};

/// How often a host looks for something to ask, while there is something going on, and while there is not.
const LOOK: Nanos = Nanos::from_micros(200);
const LOOK_IDLE: Nanos = Nanos::from_millis(100);

/// How long an end in good order may take.
const STOP_BOUND: Nanos = Nanos::from_millis(10_000);

/// What a test and one shard's host tell each other.
#[derive(Default)]
pub struct Wire {
    /// Requests to be made.
    pub requests: VecDeque<(AppToken, ShardId, Request)>,
    /// Answers that came.
    pub replies: VecDeque<(AppToken, Reply)>,
    /// What else it was told of queues.
    pub events: VecDeque<AppEvent>,
    /// Connections that were accepted.
    pub connections: Vec<ConnId>,
    /// What is to be sent on them.
    pub sends: VecDeque<(ConnId, Vec<Slice>)>,
    /// Whether nothing is to be asked for a while.
    pub idle: bool,
}

/// A host that asks what it is told to, and passes the answers on. Connections that take nothing are closed when that is asked.
pub struct Host {
    wire: Rc<RefCell<Wire>>,
}

impl App for Host {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        let mut wire = self.wire.borrow_mut();
        match event {
            AppEvent::Reply(token, reply) => wire.replies.push_back((token, reply)),
            AppEvent::Accepted { conn, .. } => wire.connections.push(conn),
            AppEvent::Stuck(conn) => out.close(conn),
            AppEvent::Started | AppEvent::Timer(_) => {
                let look = if wire.idle { LOOK_IDLE } else { LOOK };
                out.set_timer(AppToken(0), out.now() + look);
            }
            AppEvent::Delivered(_)
            | AppEvent::ConsumerCancelled { .. }
            | AppEvent::Flow(_)
            | AppEvent::DeadLettered(_)
            | AppEvent::QueueExpired(_) => wire.events.push_back(event),
            _ => {}
        }
        for (token, shard, request) in wire.requests.drain(..) {
            out.engine(token, shard, request, None);
        }
        for (conn, slices) in wire.sends.drain(..) {
            out.send(conn, slices);
        }
    }
}

/// A node that serves. Dropping it is what a crash does to the process; the world is crashed by the test.
pub struct SimNode<A: App = Host> {
    world: World,
    reactors: Vec<Reactor<CanaryIo, A>>,
    /// One per shard, if they are [`Host`]s.
    pub wires: Vec<Rc<RefCell<Wire>>>,
    busy: Rc<Cell<bool>>,
    random: Random,
    shared: Arc<Shared>,
    boot: Boot,
}

impl SimNode {
    /// Boots a node on what the world's disk holds, as a real one starts. `Err` if it refuses to, or if the machine dies
    /// meanwhile.
    pub fn start(world: &World, config: &Config, cage: &Cage, seed: u64) -> Result<SimNode, Fatal> {
        let mut wires = Vec::new();
        let mut node = SimNode::start_with(world, config, cage, seed, |_| {
            let wire = Rc::new(RefCell::new(Wire::default()));
            wires.push(Rc::clone(&wire));
            Host { wire }
        })?;
        node.wires = wires;
        Ok(node)
    }
}

impl<A: App> SimNode<A> {
    /// The same with hosts of any kind: `make_app` makes one for each shard.
    pub fn start_with(
        world: &World,
        config: &Config,
        cage: &Cage,
        seed: u64,
        mut make_app: impl FnMut(ShardId) -> A,
    ) -> Result<SimNode<A>, Fatal> {
        let config = Arc::new(config.clone());
        let pool = Pool::new(64 << 20);
        world.hold_time(false);
        let busy = Rc::new(Cell::new(false));
        let io = |shard| CanaryIo::new(world.io(shard), cage.clone(), Rc::clone(&busy));
        let mut boot_io = io(CONTROLLER);
        let found = boot(&mut Blocking::new(&mut boot_io, pool.clone()), &config)?;
        let boot = reshard(&mut boot_io, found, &config, &pool)?;
        let shared = Arc::new(Shared::new(config.shards));
        let mut reactors = Vec::new();
        let places = cage.slots.unwrap_or_else(|| slots(config.shards));
        for (id, post) in mesh(config.shards, places).into_iter().enumerate() {
            let id = ShardId(id as u16);
            let mut io = io(id);
            let metadata = Arc::clone(&boot.metadata);
            let (shard, _) =
                Shard::recover(&mut io, id, &boot.manifest, Arc::clone(&config), Arc::clone(&metadata))?;
            let controller = if id == CONTROLLER {
                let mut disk = Blocking::new(&mut io, pool.clone());
                Some(Controller::start(&mut disk, metadata, &config, pool.clone())?)
            } else {
                None
            };
            reactors.push(Reactor::new(io, shard, controller, make_app(id), post, Arc::clone(&shared)));
        }
        world.hold_time(true);
        let random = Random::stream(seed, "turns");
        Ok(SimNode { world: world.clone(), reactors, wires: Vec::new(), busy, random, shared, boot })
    }

    /// Ends in good order, as a real node does. `Err` if it cannot, or if the machine dies meanwhile.
    pub fn stop(&mut self) -> Result<(), Fatal> {
        self.shared.stop();
        let since = self.world.now();
        let mut going: Vec<bool> = vec![true; self.reactors.len()];
        while going.contains(&true) {
            self.busy.set(false);
            for (reactor, going) in self.reactors.iter_mut().zip(&mut going).filter(|(_, going)| **going) {
                *going = reactor.turn(true) == Turn::Going;
                if self.world.halted() {
                    return Err(Fatal::Refused("the machine has died".to_owned()));
                }
            }
            if self.world.now().since(since) > STOP_BOUND {
                return Err(Fatal::Refused("it does not end".to_owned()));
            }
            if !self.busy.get()
                && let Some(next) = self.world.next_event_at()
            {
                self.world.advance_to(next);
            }
        }
        if self.reactors.iter().any(|reactor| reactor.shard().is_poisoned()) {
            return Err(Fatal::Refused("a shard had failed to flush its journal".to_owned()));
        }
        self.world.hold_time(false);
        let mut io = self.world.io(CONTROLLER);
        finish(&mut Blocking::new(&mut io, Pool::new(64 << 20)), &self.boot.manifest)
    }

    /// How many shards serve.
    pub fn shards(&self) -> u16 {
        self.reactors.len() as u16
    }

    /// Has shard 0 listen, and gives the address.
    pub fn listen(&mut self) -> SocketAddr {
        let controller = &mut self.reactors[usize::from(CONTROLLER.0)];
        controller.listen(SocketAddr::from(([127, 0, 0, 1], 9092)));
        loop {
            self.step();
            if let Some(address) = self.reactors[usize::from(CONTROLLER.0)].listening(0) {
                return *address.as_ref().expect("every port is free");
            }
        }
    }

    /// Has shard 0 listen at two addresses.
    pub fn listen_twice(&mut self) -> [SocketAddr; 2] {
        let first = self.listen();
        let controller = &mut self.reactors[usize::from(CONTROLLER.0)];
        controller.listen(SocketAddr::from(([127, 0, 0, 1], 5672)));
        loop {
            self.step();
            if let Some(address) = self.reactors[usize::from(CONTROLLER.0)].listening(1) {
                return [first, *address.as_ref().expect("every port is free")];
            }
        }
    }

    /// A shard's host.
    pub fn app(&self, id: ShardId) -> &A {
        self.reactors[usize::from(id.0)].app()
    }

    /// What a shard tells of itself.
    pub fn metrics(&mut self, id: ShardId) -> Reader<ShardMetrics> {
        self.reactors[usize::from(id.0)].metrics()
    }

    /// A shard, for checkers.
    pub fn shard(&self, id: ShardId) -> &Shard<CanaryIo> {
        self.reactors[usize::from(id.0)].shard()
    }

    /// What a shard knows of the node.
    pub fn metadata(&self, id: ShardId) -> &Arc<Metadata> {
        self.shard(id).metadata()
    }

    /// Whether the machine stands still.
    pub fn is_halted(&self) -> bool {
        self.world.halted()
    }

    /// Where every log stands, as text: equal for equal states.
    pub fn state(&self) -> String {
        let logs = self.reactors.iter().flat_map(|reactor| reactor.shard().logs().iter());
        let state = |log: &Log| {
            let segments: Vec<_> =
                log.segments.iter().map(|segment| (segment.base.0, segment.size)).collect();
            let producers = log.producers.states();
            format!("{} {}..{} {segments:?} {producers:?}", log.id, log.log_start, log.next_offset)
        };
        let mut lines: Vec<String> = logs.map(|(_, log)| state(log)).collect();
        lines.sort();
        lines.join("\n")
    }

    /// Lets shards take turns, in random order, each at its own pace. When none has anything to do, time passes until
    /// one has. `false` if the machine stands still.
    pub fn step(&mut self) -> bool {
        let count = self.reactors.len();
        self.busy.set(false);
        let first = self.random.below(count as u64) as usize;
        let up = self.random.chance(0.5);
        for place in 0..count {
            let shard = if up { first + place } else { first + count - place } % count;
            // Now and then a shard is held up while the others go on.
            if self.random.chance(0.1) {
                self.busy.set(true);
                continue;
            }
            self.reactors[shard].turn(true);
            if self.world.halted() {
                return false;
            }
        }
        if !self.busy.get()
            && let Some(next) = self.world.next_event_at()
        {
            self.world.advance_to(next);
        }
        !self.world.halted()
    }
}
