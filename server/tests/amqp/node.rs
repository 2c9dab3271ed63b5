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
use millstream_engine::shard::request::Request;
use millstream_engine::time::{Nanos, WallMs};
use millstream_engine::types::ShardId;

use crate::engine::Engine;

/// A connection as the kernel would see it.
#[derive(Default)]
pub struct Socket {
    /// Everything sent and not looked at.
    pub sent: Vec<u8>,
    pub sending: bool,
    /// What the kernel still reads of the send under way.
    pub under_way: Vec<Slice>,
    pub read_off: bool,
    pub closed: bool,
}

pub struct Node {
    pub broker: Broker,
    pub engine: Engine,
    pub sockets: BTreeMap<ConnId, Socket>,
    pub now: Nanos,
    pub timers: Vec<(Nanos, AppToken)>,
    /// Requests that are kept back, while `hold` is on.
    pub held: VecDeque<(AppToken, Request)>,
    pub hold: bool,
    /// Whether sends complete only when the test says so.
    pub hold_sends: bool,
    /// How often the broker has taken memory.
    pub allocations: u64,
    /// What is still to be carried out, in order.
    outputs: VecDeque<Output>,
    busy: bool,
    steps: u64,
}

impl Node {
    pub fn new() -> Node {
        Node::with(ServerConfig::default())
    }

    pub fn with(config: ServerConfig) -> Node {
        let mut node = Node {
            broker: Broker::new(Arc::new(config)),
            engine: Engine::new(2),
            sockets: BTreeMap::new(),
            now: Nanos(1),
            timers: Vec::new(),
            held: VecDeque::new(),
            hold: false,
            hold_sends: false,
            allocations: 0,
            outputs: VecDeque::new(),
            busy: false,
            steps: 0,
        };
        node.step(AppEvent::Started);
        node
    }

    pub fn connect_from(&mut self, peer: SocketAddr) -> ConnId {
        let conn = ConnId(self.sockets.len() as u64 + 1);
        self.sockets.insert(conn, Socket::default());
        let local = SocketAddr::from(([10, 0, 0, 1], 5672));
        self.step(AppEvent::Accepted { conn, peer, local, listener: 1 });
        conn
    }

    pub fn connect(&mut self) -> ConnId {
        self.connect_from(SocketAddr::from(([127, 0, 0, 1], 4000)))
    }

    pub fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        assert!(!self.socket(conn).closed, "the connection is over");
        self.step(AppEvent::Received(conn, Slice::from(bytes.to_vec())));
    }

    pub fn socket(&self, conn: ConnId) -> &Socket {
        &self.sockets[&conn]
    }

    /// Ends a connection from the other side.
    pub fn disconnect(&mut self, conn: ConnId) {
        self.sockets.get_mut(&conn).unwrap().closed = true;
        self.step(AppEvent::Closed(conn, CloseReason::PeerClosed));
    }

    /// Lets time pass, and timers run out one after the other.
    pub fn advance(&mut self, span: Nanos) {
        let end = self.now + span;
        while let Some(place) =
            (0..self.timers.len()).filter(|i| self.timers[*i].0 <= end).min_by_key(|i| self.timers[*i].0)
        {
            let (at, token) = self.timers.remove(place);
            self.pass_to(at.max(self.now));
            self.step(AppEvent::Timer(token));
        }
        self.pass_to(end);
        self.engine.run();
        self.tell();
    }

    fn pass_to(&mut self, at: Nanos) {
        self.engine.now = WallMs(self.engine.now.0 + ((at.0 - self.now.0) / 1_000_000) as i64);
        self.now = at;
    }

    /// Answers everything that was kept back, and nothing is any more.
    pub fn release_all(&mut self) {
        self.hold = false;
        while let Some((token, request)) = self.held.pop_front() {
            self.answer(token, request);
        }
    }

    /// Answers so many of the requests that were kept back. Others still are.
    pub fn release(&mut self, count: usize) {
        for _ in 0..count {
            let Some((token, request)) = self.held.pop_front() else { return };
            self.answer(token, request);
        }
    }

    /// Completes the send under way.
    pub fn send_done(&mut self, conn: ConnId) {
        let socket = self.sockets.get_mut(&conn).unwrap();
        assert!(socket.sending, "there is no send under way");
        socket.sending = false;
        socket.under_way.clear();
        self.step(AppEvent::SendDone(conn));
    }

    fn answer(&mut self, token: AppToken, request: Request) {
        let epoch = self.engine.metadata.epoch;
        let reply = self.engine.handle(request);
        if self.engine.metadata.epoch != epoch {
            self.step(AppEvent::MetadataChanged);
        }
        self.step(AppEvent::Reply(token, reply));
        self.tell();
    }

    fn tell(&mut self) {
        while let Some(event) = self.engine.events.pop_front() {
            self.step(event);
        }
    }

    pub fn step(&mut self, event: AppEvent) {
        let mut out = Outbox::new(ShardId(0), Arc::clone(&self.engine.metadata));
        out.set_clocks(self.now, self.engine.now);
        self.steps += 1;
        out.set_random(Random::new(self.steps));
        let broker = &mut self.broker;
        self.allocations += allocation_counter::measure(|| broker.step(event, &mut out)).count_total;
        self.outputs.extend(out.take());
        if std::mem::replace(&mut self.busy, true) {
            return;
        }
        while let Some(output) = self.outputs.pop_front() {
            self.carry_out(output);
        }
        self.busy = false;
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send(conn, slices) => {
                let socket = self.sockets.get_mut(&conn).unwrap();
                assert!(!socket.sending, "one send at a time");
                assert!(!socket.closed, "nothing is sent after a close");
                socket.sending = true;
                for slice in &slices {
                    socket.sent.extend_from_slice(slice);
                }
                socket.under_way = slices;
                if !self.hold_sends {
                    self.send_done(conn);
                }
            }
            Output::Read(conn, on) => {
                let socket = self.sockets.get_mut(&conn).unwrap();
                assert_eq!(socket.read_off, on, "reading is switched, not set again");
                socket.read_off = !on;
            }
            Output::CatchUp(_) | Output::ReceiveInto(..) => {
                unreachable!("it is for large requests of Kafka's clients")
            }
            Output::Close(conn) => {
                let socket = self.sockets.get_mut(&conn).unwrap();
                assert!(!std::mem::replace(&mut socket.closed, true), "a connection is closed once");
                self.step(AppEvent::Closed(conn, CloseReason::Ours));
            }
            Output::SetTimer(token, at) => self.timers.push((at, token)),
            Output::Engine { token, request, .. } => {
                if self.hold {
                    self.held.push_back((token, request));
                } else {
                    self.answer(token, request);
                }
            }
            Output::Tell { message, .. } => self.step(AppEvent::Told { from: ShardId(0), message }),
            Output::Offload(token, job) => {
                let result = job();
                self.step(AppEvent::Offloaded(token, result));
            }
        }
    }
}
