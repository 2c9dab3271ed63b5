//! Connections of Kafka's clients, from bytes to bytes, over an engine that answers when it is told to. The bytes are the operations.

mod client;
mod engine;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use millstream::broker::Broker;
use millstream::config::ServerConfig;
use millstream_engine::config::TopicConfig;
use millstream_engine::io::{CloseReason, ConnId};
use millstream_engine::reactor::app::{App, AppEvent, AppToken, Outbox, Output};
use millstream_engine::shard::metadata::{Metadata, Topic};
use millstream_engine::shard::request::Request as Asked;
use millstream_engine::time::{Nanos, WallMs};
use millstream_engine::types::{ShardId, Slot, TopicId};

use client::{Client, PARTITIONS, Request, TOPIC};
use engine::Engine;

/// Clients at a time.
const CLIENTS: usize = 3;
/// More operations than these show nothing new.
const OPERATIONS_MAX: usize = 600;
/// What all clients may write, so that a run is short.
const WRITTEN_BYTES_MAX: usize = 6 << 20;
/// The largest request.
const REQUEST_BYTES_MAX: usize = 3 << 20;
/// Bytes of requests that may be arriving: three of two megabytes are too many, and half of it is for rooms.
const PARTIAL_BYTES_MAX: usize = 4 << 20;
/// Rounds in which all that is under way comes to an end.
const ROUNDS_MAX: usize = 10_000;

/// What may happen.
#[derive(Debug)]
enum Operation {
    /// A client comes, in the place of one that has gone.
    Connect(usize),
    /// One writes a request.
    Write(usize, Request),
    /// The broker gets bytes of what it has written.
    Receive(usize, usize),
    /// It is told that it has seen everything.
    CatchUp(usize),
    /// What comes next does not come into the room that was given for it.
    DropRoom(usize),
    /// A send is over.
    Sent(usize),
    /// A send takes long.
    Slow(usize),
    /// A send takes so long that others need the memory.
    Stuck(usize),
    /// Others need the memory of what waits to be sent.
    LetGo,
    /// The engine answers.
    Answer(usize, usize),
    /// Something has come that somebody waits for.
    Wake,
    /// A client goes.
    Leave(usize),
    /// Time passes, in ms.
    Time(u64),
}

/// Takes the next operation off the bytes.
fn operation(bytes: &mut impl Iterator<Item = u8>) -> Option<Operation> {
    let (what, who) = (bytes.next()?, usize::from(bytes.next()?));
    let client = who % CLIENTS;
    let mut more = || usize::from(bytes.next().unwrap_or(0));
    Some(match what % 16 {
        0 => Operation::Connect(client),
        1 => Operation::Write(client, Request::Versions),
        2 => Operation::Write(client, Request::Metadata),
        3 | 4 => Operation::Write(client, Request::Produce { size: more(), acks: (who / 8 % 3) as i16 - 1 }),
        5 => Operation::Write(client, Request::Fetch { wait_ms: more() as i32 }),
        6 => match who / 8 {
            0 => Operation::Write(client, Request::Negative),
            1 => Operation::Write(client, Request::TooLarge),
            2 => Operation::Write(client, Request::Unknown),
            3 => Operation::Stuck(client),
            4 => Operation::Leave(client),
            5 => Operation::LetGo,
            _ => Operation::DropRoom(client),
        },
        7 | 8 => {
            let size = more();
            Operation::Receive(client, 1 + size * [1, 50, 1_000, 20_000][who / 8 % 4])
        }
        9 => Operation::CatchUp(client),
        10 => Operation::Sent(client),
        11 => Operation::Slow(client),
        12 | 13 => Operation::Answer(who, more()),
        14 => Operation::Wake,
        _ => Operation::Time(who as u64),
    })
}

/// A broker and its world.
struct World {
    broker: Broker,
    metadata: Arc<Metadata>,
    engine: Engine,
    clients: BTreeMap<ConnId, Client>,
    places: [ConnId; CLIENTS],
    connections: u64,
    timers: Vec<(Nanos, AppToken)>,
    now: Nanos,
    written: usize,
}

/// Answers come in order, whole, and each once; batches reach the engine as they were sent; nobody is hung up on without a reason;
/// and of those who have gone nothing is left.
pub fn run(bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    let mut world = World::new();
    for place in 0..CLIENTS {
        world.connect(place);
    }
    for _ in 0..OPERATIONS_MAX {
        let Some(operation) = operation(&mut bytes) else { break };
        world.perform(&operation);
    }
    world.come_to_rest();
    world.all_leave();
}

impl World {
    fn new() -> World {
        let config = ServerConfig {
            request_bytes_max: REQUEST_BYTES_MAX,
            partial_bytes_max: PARTIAL_BYTES_MAX,
            ..ServerConfig::default()
        };
        let mut metadata = Metadata { shards: 1, ..Metadata::default() };
        let slots = vec![Slot(0); PARTITIONS as usize];
        let topic =
            Topic::new(TopicId([1; 16]), TOPIC.to_owned(), Vec::new(), slots, &TopicConfig::default());
        metadata.put(topic);
        World {
            broker: Broker::new(Arc::new(config)),
            metadata: Arc::new(metadata),
            engine: Engine::default(),
            clients: BTreeMap::new(),
            places: [ConnId(0); CLIENTS],
            connections: 0,
            timers: Vec::new(),
            now: Nanos(1),
            written: 0,
        }
    }

    fn connect(&mut self, place: usize) {
        if self.clients.contains_key(&self.places[place]) {
            return;
        }
        self.connections += 1;
        let conn = ConnId(self.connections);
        self.places[place] = conn;
        self.clients.insert(conn, Client::new(conn));
        let address = SocketAddr::from(([127, 0, 0, 1], 9092));
        self.step(AppEvent::Accepted { conn, peer: address, local: address, listener: 0 });
    }

    fn perform(&mut self, operation: &Operation) {
        match *operation {
            Operation::Connect(place) => {
                self.end_closed(self.places[place]);
                self.connect(place);
            }
            Operation::Write(place, request) => {
                let Some(client) = self.client(place).filter(|client| !client.is_hopeless) else { return };
                let before = client.unreceived();
                client.write(request);
                let written = client.unreceived() - before;
                self.written += written;
            }
            Operation::Receive(place, bytes) => self.receive(self.places[place], bytes),
            Operation::CatchUp(place) => self.catch_up(self.places[place]),
            Operation::DropRoom(place) => drop(self.client(place).and_then(|client| client.room.take())),
            Operation::Sent(place) => self.sent(self.places[place]),
            Operation::Slow(place) => {
                if let Some(client) = self.client(place).filter(|client| client.sending.is_some()) {
                    let conn = client.conn;
                    self.step(AppEvent::Slow(conn));
                }
            }
            Operation::Stuck(place) => {
                if let Some(client) = self.client(place).filter(|client| client.sending.is_some()) {
                    client.may_be_cut = true;
                    let conn = client.conn;
                    self.step(AppEvent::Stuck(conn));
                }
            }
            Operation::LetGo => self.step(AppEvent::LetGo),
            Operation::Answer(place, how) => self.answer(place % self.engine.asked.len().max(1), how),
            Operation::Wake => {
                if let Some((token, reply)) = self.engine.wake() {
                    self.step(AppEvent::Reply(token, reply));
                }
            }
            Operation::Leave(place) => self.leave(self.places[place]),
            Operation::Time(ms) => self.pass(Nanos::from_millis(ms)),
        }
    }

    fn client(&mut self, place: usize) -> Option<&mut Client> {
        let full = self.written > WRITTEN_BYTES_MAX;
        self.clients.get_mut(&self.places[place]).filter(|client| !client.closing && !full)
    }

    fn receive(&mut self, conn: ConnId, bytes: usize) {
        let Some(client) = self.clients.get_mut(&conn).filter(|client| !client.closing && client.reads)
        else {
            return;
        };
        if let Some(slice) = client.next_bytes(bytes) {
            let most: usize = self.clients.values_mut().map(Client::partial_bytes_max).sum();
            if most > PARTIAL_BYTES_MAX
                && let Some(client) = self.clients.get_mut(&conn)
            {
                client.may_be_cut = true;
            }
            self.step(AppEvent::Received(conn, slice));
        }
    }

    fn catch_up(&mut self, conn: ConnId) {
        let waits = self.clients.get_mut(&conn).is_some_and(|client| std::mem::take(&mut client.catches_up));
        if waits {
            self.step(AppEvent::CaughtUp(conn));
        }
    }

    fn sent(&mut self, conn: ConnId) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        if let Some(slices) = client.sending.take() {
            client.takes(&slices, &mut self.engine);
            if !client.closing {
                self.step(AppEvent::SendDone(conn));
            }
        }
    }

    fn answer(&mut self, place: usize, how: usize) {
        let (replies, refused) = self.engine.answer(place, how);
        if let Some(client) = refused.and_then(|conn| self.clients.get_mut(&conn)) {
            client.may_be_cut = true;
        }
        for (token, reply) in replies {
            self.step(AppEvent::Reply(token, reply));
        }
    }

    fn leave(&mut self, conn: ConnId) {
        self.end_closed(conn);
        if self.clients.remove(&conn).is_some() {
            self.step(AppEvent::Closed(conn, CloseReason::PeerClosed));
        }
    }

    /// Tells the broker that what it has closed is closed.
    fn end_closed(&mut self, conn: ConnId) {
        if self.clients.get(&conn).is_some_and(|client| client.closing) {
            self.clients.remove(&conn);
            self.step(AppEvent::Closed(conn, CloseReason::Ours));
        }
    }

    fn pass(&mut self, span: Nanos) {
        self.now = self.now + span;
        let (due, later): (Vec<_>, Vec<_>) = self.timers.iter().partition(|(at, _)| *at <= self.now);
        self.timers = later;
        for (_, token) in due {
            self.step(AppEvent::Timer(token));
        }
    }

    fn step(&mut self, event: AppEvent) {
        let mut out = Outbox::new(ShardId(0), Arc::clone(&self.metadata));
        out.set_clocks(self.now, WallMs(0));
        self.broker.step(event, &mut out);
        for output in out.take() {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let open = "the connection is there, and open";
        match output {
            Output::Send(conn, slices) => {
                let client = self.clients.get_mut(&conn).filter(|client| !client.closing).expect(open);
                assert!(client.sending.replace(slices).is_none(), "one send at a time");
            }
            Output::Read(conn, on) => {
                let client = self.clients.get_mut(&conn).filter(|client| !client.closing).expect(open);
                assert_ne!(std::mem::replace(&mut client.reads, on), on, "reading is switched");
            }
            Output::CatchUp(conn) => {
                let client = self.clients.get_mut(&conn).filter(|client| !client.closing).expect(open);
                assert!(!std::mem::replace(&mut client.catches_up, true), "it is asked for once");
            }
            Output::ReceiveInto(conn, room) => {
                let client = self.clients.get_mut(&conn).filter(|client| !client.closing).expect(open);
                assert!(room.spare() > 0 && client.room.replace(room).is_none(), "one room at a time");
            }
            Output::Close(conn) => {
                let client = self.clients.get_mut(&conn).filter(|client| !client.closing).expect(open);
                assert!(client.is_hopeless || client.may_be_cut, "{client:?} was hung up on");
                assert!(client.may_be_cut || client.is_content(), "what came before garbage is answered");
                (client.closing, client.room) = (true, None);
            }
            Output::SetTimer(token, at) => self.timers.push((at, token)),
            Output::Engine { token, request, source, .. } => {
                if let (Asked::Append { batch, .. }, Some(client)) =
                    (&request, source.and_then(|conn| self.clients.get_mut(&conn)))
                {
                    client.stored(batch);
                }
                self.engine.asked.push_back((token, source, request));
            }
            Output::Tell { .. } | Output::Offload(..) => panic!("nothing here goes anywhere else"),
        }
    }

    /// Everything is received, answered and taken.
    fn come_to_rest(&mut self) {
        let conns: Vec<ConnId> = self.clients.keys().copied().collect();
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "it comes to no rest: {:?}, {:?}", self.engine, self.clients);
            for conn in &conns {
                self.end_closed(*conn);
                self.receive(*conn, usize::MAX);
                self.catch_up(*conn);
                self.sent(*conn);
            }
            if !self.engine.asked.is_empty() {
                self.answer(0, 3);
            } else if self.engine.watches() > 0 {
                self.pass(Nanos::from_millis(1_000));
            } else if self.clients.values().all(Client::is_at_rest) {
                break;
            }
        }
        for conn in conns {
            self.end_closed(conn);
        }
        for client in self.clients.values() {
            assert!(!client.is_hopeless, "{client:?} was not hung up on");
            assert!(client.is_content(), "{client:?} waits for good");
            assert!(client.reads && client.unreceived() == 0, "{client:?} is not read from");
        }
    }

    /// Nothing is left of anybody.
    fn all_leave(&mut self) {
        for conn in self.clients.keys().copied().collect::<Vec<_>>() {
            self.leave(conn);
        }
        let broker = &self.broker;
        assert_eq!((broker.connections(), broker.partial_bytes(), broker.answer_bytes()), (0, 0, 0));
        assert_eq!(broker.pending(), self.timers.len(), "nothing is waited for but timers");
    }
}
