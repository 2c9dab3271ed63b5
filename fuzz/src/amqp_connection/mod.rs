//! Connections of RabbitMQ's clients, from bytes to bytes, with a whole node of one shard behind them, on a simulated disk, network
//! and clock. The bytes are the operations.

mod answers;
mod channel;
mod client;
mod content;
mod messages;
mod say;

use std::net::SocketAddr;
use std::sync::Arc;

use millstream::amqp::codec::{BasicGet, QueueDeclare, Short};
use millstream::amqp::kept::Kept;
use millstream::broker::Broker;
use millstream::config::{AmqpConfig, ServerConfig};
use millstream_engine::config::Config;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;
use millstream_tests::amqp::client::{Came, Client as Reader};
use millstream_tests::broker::{ANSWERED_IN, Node};
use millstream_tests::sim::canary::{Cage, Canary};
use millstream_tests::solo;

use client::{CHANNELS, Client, SLOTS};
use messages::Messages;
use say::Say;

const SHARD: ShardId = ShardId(0);
/// Clients at a time.
const CLIENTS: usize = 3;
/// More operations than these show nothing new.
const OPERATIONS_MAX: usize = 250;
/// What the node does before all that was begun comes to its end.
const TURNS_MAX: usize = 4_000;
/// What all clients may write, so that a run is short.
const WRITTEN_BYTES_MAX: usize = 1 << 20;
/// What is kept for clients beside what they have written: what their answers and deliveries are told with.
const KEPT_BYTES_MORE: usize = 1 << 20;

/// What may happen.
#[derive(Clone, Copy, Debug)]
enum Operation {
    /// A client comes, in the place of one that has gone.
    Connect(usize),
    /// One writes something for a channel.
    Say(usize, u16, Say),
    /// Bytes of what it has written go out.
    Send(usize, usize),
    /// It does not read any more, or does again.
    Read(usize, bool),
    /// It goes: its connection is closed, or broken.
    Leave(usize, bool),
    /// The node takes turns.
    Turns(usize),
    /// Time passes, in ms.
    Time(u64),
}

/// Takes the next operation off the bytes.
fn operation(bytes: &mut impl Iterator<Item = u8>) -> Option<Operation> {
    let (what, who) = (bytes.next()?, usize::from(bytes.next()?));
    let (place, channel) = (who % CLIENTS, 1 + (who / CLIENTS) as u16 % CHANNELS);
    let more = usize::from(bytes.next().unwrap_or(0));
    Some(match what % 48 {
        0 => Operation::Connect(place),
        1 | 2 => Operation::Read(place, what % 48 == 1),
        3 => Operation::Leave(place, more.is_multiple_of(2)),
        4..=7 => Operation::Send(place, 1 + more * [1, 20, 1_000, 100_000][usize::from(what % 48) - 4]),
        8 | 9 => Operation::Turns(more),
        10 => Operation::Time(more as u64 * 4),
        other => Operation::Say(place, channel, Say::of(other - 11, more)?),
    })
}

/// A broker, its world, and its clients.
struct Stage {
    world: World,
    config: Arc<ServerConfig>,
    node: Node,
    address: SocketAddr,
    clients: [Option<Client>; CLIENTS],
    connections: u64,
    messages: Messages,
    written: usize,
    turns: usize,
}

/// Each method is answered once, in its channel's order, and whatever is wrong with the code and the scope that it has in RabbitMQ;
/// each message is delivered in order, to who may have it, as what it was published, and says so when it comes again; a confirm comes
/// once, and what was confirmed is there after a crash; what clients have kept for them is bounded, and nothing of it is left when they
/// have gone.
pub fn run(bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    let (seed, end) = (bytes.next().unwrap_or(0), bytes.next().unwrap_or(0));
    let mut stage = Stage::new(u64::from(seed));
    for place in 0..CLIENTS {
        stage.connect(place);
    }
    for _ in 0..OPERATIONS_MAX {
        let Some(operation) = operation(&mut bytes) else { break };
        stage.perform(operation);
    }
    if !end.is_multiple_of(4) {
        stage.come_to_rest();
        stage.all_leave();
    }
    let crash = match end / 4 % 4 {
        0 => Crash::Kill,
        1 => Crash::Power(Survivors::All),
        2 => Crash::Power(Survivors::Some),
        _ => Crash::Power(Survivors::None),
    };
    stage.crash(crash);
}

fn config() -> ServerConfig {
    ServerConfig {
        engine: Config { shards: 1, ..solo::config() },
        amqp: AmqpConfig { guest_is_local: false, ..AmqpConfig::default() },
        ..ServerConfig::default()
    }
}

fn start(world: &World, config: &Arc<ServerConfig>, seed: u64) -> (Node, SocketAddr) {
    let app = |_| Broker::new(Arc::clone(config));
    let mut node: Node = Node::start_with(world, &config.engine, &Cage::new(Canary::None), seed, app)
        .unwrap_or_else(|fatal| panic!("it does not start: {fatal}"));
    let [_, address] = node.listen_twice();
    (node, address)
}

impl Stage {
    fn new(seed: u64) -> Stage {
        let world = World::new(seed, Faults { window_bytes: 4 << 10, ..Faults::rough() });
        let config = Arc::new(config());
        let (node, address) = start(&world, &config, seed);
        Stage {
            world,
            config,
            node,
            address,
            clients: [const { None }; CLIENTS],
            connections: 0,
            messages: Messages::default(),
            written: 0,
            turns: 0,
        }
    }

    fn connect(&mut self, place: usize) {
        if self.clients[place].as_ref().is_none_or(Client::is_over) {
            self.connections += 1;
            self.clients[place] = Some(Client::connect(&self.world, self.address, self.connections));
        }
    }

    fn perform(&mut self, operation: Operation) {
        let messages = &mut self.messages;
        match operation {
            Operation::Connect(place) => self.connect(place),
            Operation::Say(place, channel, say) => {
                if let Some(client) =
                    self.clients[place].as_mut().filter(|_| self.written < WRITTEN_BYTES_MAX)
                {
                    self.written += client.say(channel, say, messages);
                }
            }
            Operation::Send(place, bytes) => {
                if let Some(client) = &mut self.clients[place] {
                    client.send(bytes);
                }
            }
            Operation::Read(place, reads) => {
                if let Some(client) = &mut self.clients[place] {
                    client.read(reads);
                }
            }
            Operation::Leave(place, orderly) => {
                if let Some(client) = self.clients[place].take() {
                    if orderly { client.peer.close() } else { client.peer.reset() }
                }
            }
            Operation::Turns(turns) => {
                let last = TURNS_MAX.min(self.turns + turns);
                while self.turns < last {
                    self.turn();
                }
            }
            Operation::Time(ms) => {
                let until = self.world.now() + Nanos::from_millis(ms);
                while self.world.now() < until && self.turns < TURNS_MAX {
                    self.turn();
                }
            }
        }
    }

    /// The node takes a turn, and clients take what has come.
    fn turn(&mut self) {
        assert!(self.node.step(), "the machine runs");
        self.turns += 1;
        for client in self.clients.iter_mut().flatten() {
            client.take(&mut self.messages);
        }
        let Kept { unfinished, publishing, sending, .. } = self.node.app(SHARD).amqp_kept();
        let kept = unfinished + publishing + sending;
        assert!(
            kept <= 4 * self.written + KEPT_BYTES_MORE,
            "{kept} bytes are kept of {} written",
            self.written
        );
    }

    /// What was begun is ended, everything is sent, and all that was promised comes.
    fn come_to_rest(&mut self) {
        for client in self.clients.iter_mut().flatten() {
            client.peer.pause_reading(false);
            client.end_contents(&mut self.messages);
        }
        let since = self.world.now();
        loop {
            self.clients.iter_mut().flatten().for_each(|client| client.send(usize::MAX));
            if self.clients.iter().flatten().all(Client::is_content) {
                break;
            }
            self.turn();
            assert!(self.world.now().since(since) < ANSWERED_IN, "{:?} wait for good", self.clients);
        }
    }

    /// Nothing is left of anybody.
    fn all_leave(&mut self) {
        for client in self.clients.iter_mut().filter_map(Option::take) {
            client.peer.close();
        }
        let since = self.world.now();
        while self.node.app(SHARD).connections() > 0 || self.node.app(SHARD).amqp_kept() != Kept::default() {
            self.turn();
            let app = self.node.app(SHARD);
            let left = (app.connections(), app.amqp_kept());
            assert!(self.world.now().since(since) < ANSWERED_IN, "{left:?} is left of those who have gone");
        }
    }

    /// What was confirmed is in its queues, and nothing that nobody has put there.
    fn crash(self, crash: Crash) {
        let Stage { world, config, node, clients, mut messages, .. } = self;
        drop((clients, node));
        world.crash(crash);
        let (mut node, address) = start(&world, &config, 1);
        for queue in messages.queues() {
            let mut reader = Reader::connect(&world, address);
            let mut ask = |reader: &mut Reader| {
                let since = world.now();
                loop {
                    let came = reader.came().expect("the broker makes sense");
                    if let Some(came) = came.into_iter().find(|came| *came != Came::Opened) {
                        return came;
                    }
                    assert!(world.now().since(since) < ANSWERED_IN && node.step(), "{queue} is not told of");
                }
            };
            let name = queue.to_string();
            let declare =
                QueueDeclare { queue: Short(name.as_bytes()), passive: true, ..QueueDeclare::default() };
            reader.say(declare);
            match ask(&mut reader) {
                Came::Refused(404, _) => messages.is_gone(queue),
                Came::Done(50, 11) => {
                    messages.is_there(queue);
                    loop {
                        let get =
                            BasicGet { queue: Short(name.as_bytes()), no_ack: true, ..BasicGet::default() };
                        reader.say(get);
                        match ask(&mut reader) {
                            Came::Delivered { body, redelivered, .. } => {
                                messages.found(queue, &body, redelivered);
                            }
                            Came::Empty => break messages.is_empty(queue),
                            other => panic!("{queue}: {other:?}"),
                        }
                    }
                }
                other => panic!("{queue}: {other:?}"),
            }
            reader.peer.close();
        }
    }
}

const _: () = assert!(SLOTS <= 4, "two bits name a queue");
