//! A node without sockets: one shard's real [`Broker`], a stand-in for the engine, and clients made of bytes.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use millstream::broker::Broker;
use millstream::config::ServerConfig;
use millstream_engine::buffer::Slice;
use millstream_engine::io::random::Random;
use millstream_engine::io::{CloseReason, ConnId};
use millstream_engine::reactor::app::{App, AppEvent, AppToken, Outbox, Output};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::{Nanos, WallMs};
use millstream_engine::types::ShardId;

use crate::engine::Engine;

pub const SHARDS: u16 = 2;

/// A connection as the kernel would see it.
#[derive(Default)]
pub struct Socket {
    /// Everything sent.
    pub sent: Vec<u8>,
    /// The most slices that one send gathered, and how many sends there were.
    pub sends: usize,
    pub sending: bool,
    pub read_off: bool,
    pub closed: bool,
}

pub struct Node {
    pub broker: Broker,
    pub engine: Engine,
    pub sockets: BTreeMap<ConnId, Socket>,
    pub now: Nanos,
    pub timers: Vec<(Nanos, AppToken)>,
    /// Requests to the engine that are kept back, while `hold` is on.
    pub held: VecDeque<(AppToken, ShardId, Request)>,
    pub hold: bool,
    /// Whether sends complete at once.
    pub hold_sends: bool,
    /// How often the broker has taken memory.
    pub allocations: u64,
    out: Outbox,
    /// What the broker wants done, in order.
    wanted: VecDeque<Output>,
    carries_out: bool,
    jobs: usize,
    steps: u64,
}

impl Node {
    pub fn new() -> Node {
        Node::with(ServerConfig::default())
    }

    pub fn with(config: ServerConfig) -> Node {
        Node::on(config, SHARDS)
    }

    /// A node that has all there is on its one shard, groups too.
    pub fn of_one_shard(config: ServerConfig) -> Node {
        Node::on(config, 1)
    }

    fn on(config: ServerConfig, shards: u16) -> Node {
        let engine = Engine::new(shards);
        let out = Outbox::new(ShardId(0), Arc::clone(&engine.metadata));
        Node {
            broker: Broker::new(Arc::new(config)),
            engine,
            sockets: BTreeMap::new(),
            now: Nanos(1),
            timers: Vec::new(),
            held: VecDeque::new(),
            hold: false,
            hold_sends: false,
            allocations: 0,
            out,
            wanted: VecDeque::new(),
            carries_out: false,
            jobs: 0,
            steps: 0,
        }
    }

    pub fn connect(&mut self) -> ConnId {
        let conn = ConnId(self.sockets.len() as u64 + 1);
        self.sockets.insert(conn, Socket::default());
        let peer = SocketAddr::from(([10, 0, 0, 2], 4000));
        let local = SocketAddr::from(([10, 0, 0, 1], 9092));
        self.step(AppEvent::Accepted { conn, peer, local, listener: 0 });
        conn
    }

    pub fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.step(AppEvent::Received(conn, Slice::from(bytes.to_vec())));
    }

    /// Takes the next whole response of a connection, without its length; `None` if there is none.
    pub fn response(&mut self, conn: ConnId) -> Option<Vec<u8>> {
        let sent = &mut self.sockets.get_mut(&conn).unwrap().sent;
        let len = i32::from_be_bytes(*sent.first_chunk()?) as usize;
        (sent.len() >= 4 + len).then(|| sent.drain(..4 + len).skip(4).collect())
    }

    pub fn socket(&self, conn: ConnId) -> &Socket {
        &self.sockets[&conn]
    }

    /// Jobs that were offloaded.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// Ends a connection from the other side.
    pub fn disconnect(&mut self, conn: ConnId) {
        self.sockets.get_mut(&conn).unwrap().closed = true;
        self.step(AppEvent::Closed(conn, CloseReason::PeerClosed));
    }

    /// The same, unless it has ended already.
    pub fn disconnect_if_open(&mut self, conn: ConnId) {
        if !self.socket(conn).closed {
            self.disconnect(conn);
        }
    }

    /// Lets time pass, and timers run out.
    pub fn advance(&mut self, span: Nanos) {
        self.now = self.now + span;
        let (due, later) = self.timers.iter().partition(|(at, _)| *at <= self.now);
        self.timers = later;
        let due: Vec<(Nanos, AppToken)> = due;
        for (_, token) in due {
            self.step(AppEvent::Timer(token));
        }
    }

    /// Answers the request that was kept back `place`th.
    pub fn release(&mut self, place: usize) {
        let (token, _, request) = self.held.remove(place).unwrap();
        self.answer(token, request);
    }

    /// Answers everything that was kept back, and nothing is any more.
    pub fn release_all(&mut self) {
        self.hold = false;
        while !self.held.is_empty() {
            self.release(0);
        }
    }

    /// Completes the send under way.
    pub fn send_done(&mut self, conn: ConnId) {
        let socket = self.sockets.get_mut(&conn).unwrap();
        assert!(socket.sending, "there is no send under way");
        socket.sending = false;
        self.step(AppEvent::SendDone(conn));
    }

    fn answer(&mut self, token: AppToken, request: Request) {
        let epoch = self.engine.metadata.epoch;
        let replies: Vec<(u64, Reply)> = self.engine.handle(token.0, request);
        if self.engine.metadata.epoch != epoch {
            self.step(AppEvent::MetadataChanged);
        }
        for (token, reply) in replies {
            self.step(AppEvent::Reply(AppToken(token), reply));
        }
    }

    pub fn step(&mut self, event: AppEvent) {
        self.out = Outbox::new(ShardId(0), Arc::clone(&self.engine.metadata));
        self.out.set_clocks(self.now, WallMs(1_700_000_000_000));
        self.steps += 1;
        self.out.set_random(Random::new(self.steps));
        let (broker, out) = (&mut self.broker, &mut self.out);
        let counted = allocation_counter::measure(|| broker.step(event, out)).count_total;
        let outputs = self.out.take();
        self.allocations += counted - growths(outputs.capacity());
        self.wanted.extend(outputs);
        if !std::mem::replace(&mut self.carries_out, true) {
            while let Some(output) = self.wanted.pop_front() {
                self.carry_out(output);
            }
            self.carries_out = false;
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send(conn, slices) => {
                let socket = self.sockets.get_mut(&conn).unwrap();
                assert!(!socket.sending, "one send at a time");
                assert!(!socket.closed, "nothing is sent after a close");
                socket.sending = true;
                socket.sends += 1;
                for slice in &slices {
                    socket.sent.extend_from_slice(slice);
                }
                if !self.hold_sends {
                    self.send_done(conn);
                }
            }
            Output::Read(conn, on) => {
                let socket = self.sockets.get_mut(&conn).unwrap();
                assert_eq!(socket.read_off, on, "reading is switched, not set again");
                socket.read_off = !on;
            }
            Output::CatchUp(conn) => self.step(AppEvent::CaughtUp(conn)),
            // It is not promised: here, what comes next comes in pieces.
            Output::ReceiveInto(..) => {}
            Output::Close(conn) => {
                let socket = self.sockets.get_mut(&conn).unwrap();
                assert!(!std::mem::replace(&mut socket.closed, true), "a connection is closed once");
                self.step(AppEvent::Closed(conn, CloseReason::Ours));
            }
            Output::SetTimer(token, at) => self.timers.push((at, token)),
            Output::Engine { token, shard, request, .. } => {
                if self.hold {
                    self.held.push_back((token, shard, request));
                } else {
                    self.answer(token, request);
                }
            }
            Output::Tell { message, .. } => self.step(AppEvent::Told { from: ShardId(0), message }),
            Output::Offload(token, job) => {
                self.jobs += 1;
                let result = job();
                self.step(AppEvent::Offloaded(token, result));
            }
        }
    }
}

/// How often a vector of outputs took memory on the way to a capacity. The reactor keeps its outbox, which does not grow for
/// long; here every step has a new one.
fn growths(capacity: usize) -> u64 {
    if capacity == 0 { 0 } else { u64::from((capacity / 4).ilog2()) + 1 }
}
