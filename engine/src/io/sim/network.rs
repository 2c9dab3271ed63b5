//! Listeners and connections, as the shards see them and as they go wrong.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use super::clock::Due;
use super::port::PortRef;
use super::state::{State, draw};
use crate::buffer::{Block, Slice, loosen};
use crate::error::IoError;
use crate::io::random::Random;
use crate::io::{CloseReason, ConnId, Event, Socket, Token};
use crate::time::Nanos;

/// The most that is handed over as received at once.
const RECEIVE_BYTES_MAX: usize = 64 << 10;
/// Ports that are picked when none is asked for start here.
const FIRST_PICKED_PORT: u16 = 40_000;

/// The network's state. It draws its chance apart from the disk's.
pub(super) struct Network {
    listeners: BTreeMap<SocketAddr, (PortRef, Token)>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    next_port: u16,
    random: Random,
}

/// How a peer ended a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PeerEnd {
    Closed,
    Reset,
}

/// A connection. "We" are the shards, "the peer" is the test's side.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and most combinations occur")]
struct Connection {
    listener: SocketAddr,
    peer: SocketAddr,
    /// Who adopted it.
    port: Option<PortRef>,

    /// Sent by the peer, not handed over yet.
    inbound: VecDeque<u8>,
    peer_end: Option<PeerEnd>,
    receiving: bool,
    delivery_is_due: bool,
    /// Where what is handed over next is put.
    room: Option<Block>,

    /// Handed to `send`, not taken by the kernel yet; `Some` until `Sent` is announced.
    sending: Option<VecDeque<Slice>>,
    taking_is_due: bool,
    /// Taken by the kernel, not read by the peer yet.
    window: VecDeque<u8>,
    /// Read by the peer.
    arrived: Vec<u8>,
    peer_reads: bool,
    /// The peer has vanished without a word: nothing reaches it, nothing comes from it.
    vanished: bool,

    /// `Closed` has been announced, or there is nobody left to announce it to.
    over: bool,
}

impl Network {
    pub(super) fn new(seed: u64) -> Network {
        Network {
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            next_port: FIRST_PICKED_PORT,
            random: Random::stream(seed, "network"),
        }
    }
}

/// What the shards do.
impl State {
    pub(super) fn listen(&mut self, port: &PortRef, token: Token, mut address: SocketAddr) {
        let outcome = if port.borrow().dead {
            Err(IoError::Halted)
        } else {
            if address.port() == 0 {
                address.set_port(self.network.next_port);
                self.network.next_port += 1;
            }
            match self.network.listeners.entry(address) {
                Entry::Occupied(_) => Err(IoError::Os(libc::EADDRINUSE)),
                Entry::Vacant(free) => {
                    free.insert((port.clone(), token));
                    Ok(address)
                }
            }
        };
        port.borrow_mut().ready.push_back(Event::Listening(token, outcome));
    }

    pub(super) fn unlisten(&mut self, port: &PortRef, token: Token) {
        self.network.listeners.retain(|_, (owner, of)| !(Rc::ptr_eq(owner, port) && *of == token));
    }

    pub(super) fn adopt(&mut self, port: &PortRef, socket: &Socket) -> ConnId {
        let connection = self.network.connections.get_mut(&socket.handle).expect("an accepted socket exists");
        assert!(connection.port.is_none(), "a connection is adopted once");
        connection.port = Some(port.clone());
        if connection.over {
            let closed = Event::Closed(ConnId(socket.handle), CloseReason::Broken(IoError::Halted));
            port.borrow_mut().ready.push_back(closed);
        }
        self.expect_delivery(socket.handle);
        ConnId(socket.handle)
    }

    pub(super) fn receive(&mut self, conn: ConnId, on: bool) {
        if let Some(connection) = self.network.connections.get_mut(&conn.0) {
            connection.receiving = on;
        }
        self.expect_delivery(conn.0);
    }

    pub(super) fn receive_into(&mut self, conn: ConnId, room: Block) {
        assert!(room.spare() > 0, "there is room in a room");
        let connection = self.network.connections.get_mut(&conn.0).expect("who receives has a connection");
        assert!(connection.room.is_none(), "{conn:?} has one room at a time");
        let under_way = |port: &PortRef| {
            let port = port.borrow();
            port.ready.iter().any(|event| matches!(event, Event::Received(of, _) if *of == conn))
        };
        let all_seen = !connection.port.as_ref().is_some_and(under_way);
        connection.room = (!connection.over && all_seen).then_some(room);
    }

    pub(super) fn send(&mut self, conn: ConnId, slices: Vec<Slice>) {
        let connection = self.network.connections.get_mut(&conn.0).expect("a send has a connection");
        if connection.over {
            return;
        }
        assert!(connection.sending.is_none(), "{conn:?} has one send at a time");
        connection.sending = Some(slices.into_iter().filter(|slice| !slice.is_empty()).collect());
        self.expect_taking(conn.0);
    }

    pub(super) fn loosen(&mut self, conn: ConnId, room: Block) {
        let connection = self.network.connections.get_mut(&conn.0);
        loosen(connection.and_then(|connection| connection.sending.as_mut()).into_iter().flatten(), room);
    }

    pub(super) fn shut_down(&mut self, conn: ConnId) {
        let span = self.network_delay();
        self.later(span, Due::Close(conn.0, CloseReason::Ours));
    }
}

/// What happens by itself.
impl State {
    fn network_delay(&mut self) -> Nanos {
        let span = draw(self.faults.network_time, &mut self.network.random);
        if self.network.random.chance(self.faults.slow) {
            Nanos(span.0 * self.faults.slow_factor)
        } else {
            span
        }
    }

    /// Sees to it that what has come for us is delivered.
    fn expect_delivery(&mut self, id: u64) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        let something = !connection.inbound.is_empty() || connection.peer_end.is_some();
        let wanted = connection.receiving && connection.port.is_some() && !connection.over;
        if something && wanted && !connection.delivery_is_due {
            connection.delivery_is_due = true;
            let span = self.network_delay();
            self.later(span, Due::Deliver(id));
        }
    }

    fn expect_taking(&mut self, id: u64) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        if connection.sending.is_some() && !connection.taking_is_due && !connection.over {
            connection.taking_is_due = true;
            let span = self.network_delay();
            self.later(span, Due::Take(id));
        }
    }

    fn expect_arrival(&mut self, id: u64) {
        let span = self.network_delay();
        self.later(span, Due::Arrive(id));
    }

    pub(super) fn accept(&mut self, id: u64) {
        let Some(connection) = self.network.connections.get_mut(&id).filter(|connection| !connection.over)
        else {
            return;
        };
        let Some((port, token)) = self.network.listeners.get(&connection.listener) else {
            connection.over = true;
            return;
        };
        let socket = Socket { handle: id, peer: connection.peer, local: connection.listener };
        port.borrow_mut().ready.push_back(Event::Accepted(*token, socket));
    }

    pub(super) fn deliver(&mut self, id: u64) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        connection.delivery_is_due = false;
        let random = &mut self.network.random;
        // Turned off while it was under way, it may still arrive.
        if connection.over || connection.vanished || (!connection.receiving && random.chance(0.5)) {
            return;
        }
        if random.chance(self.faults.reset) {
            connection.peer_end = Some(PeerEnd::Reset);
        }
        if connection.peer_end == Some(PeerEnd::Reset) {
            self.close_connection(id, CloseReason::Broken(IoError::Os(libc::ECONNRESET)));
        } else if connection.inbound.is_empty() {
            self.close_connection(id, CloseReason::PeerClosed);
        } else {
            let most = connection.room.as_ref().map_or(RECEIVE_BYTES_MAX, Block::spare);
            let available = connection.inbound.len().min(most);
            let split = random.chance(self.faults.split_receive);
            let len = if split { random.between(1, available as u64) as usize } else { available };
            let bytes = take_front(&mut connection.inbound, len);
            let bytes = match &mut connection.room {
                None => Slice::from(bytes),
                Some(room) => {
                    room.push(&bytes);
                    room.split_frozen()
                }
            };
            connection.room.take_if(|room| room.spare() == 0);
            if let Some(port) = &connection.port {
                port.borrow_mut().ready.push_back(Event::Received(ConnId(id), bytes));
            }
            self.trace.note(self.clock.now(), format_args!("connection {id} received {len} bytes"));
            self.expect_delivery(id);
        }
    }

    pub(super) fn take_from_send(&mut self, id: u64) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        connection.taking_is_due = false;
        if connection.over {
            return;
        }
        if connection.peer_end.is_some() && !connection.vanished {
            self.close_connection(id, CloseReason::Broken(IoError::Os(libc::EPIPE)));
            return;
        }
        let Some(sending) = &mut connection.sending else { return };
        let room = self.faults.window_bytes.saturating_sub(connection.window.len());
        let left: usize = sending.iter().map(|slice| slice.len()).sum();
        let mut len = room.min(left);
        if len > 0 && self.network.random.chance(self.faults.partial_send) {
            len = self.network.random.between(1, len as u64) as usize;
        }
        let mut wanted = len;
        while wanted > 0
            && let Some(slice) = sending.pop_front()
        {
            let step = wanted.min(slice.len());
            connection.window.extend(&slice[..step]);
            wanted -= step;
            if step < slice.len() {
                sending.push_front(slice.slice(step..slice.len()));
            }
        }
        if len == left {
            connection.sending = None;
            if let Some(port) = &connection.port {
                port.borrow_mut().ready.push_back(Event::Sent(ConnId(id)));
            }
        }
        let goes_on = len < left && len < room;
        self.trace.note(self.clock.now(), format_args!("connection {id} took {len} of {left} bytes"));
        self.expect_arrival(id);
        if goes_on {
            self.expect_taking(id);
        }
    }

    pub(super) fn arrive(&mut self, id: u64) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        if connection.peer_reads && !connection.vanished {
            let len = connection.window.len();
            connection.arrived.extend(take_front(&mut connection.window, len));
            self.expect_taking(id);
        }
    }

    pub(super) fn close_connection(&mut self, id: u64, reason: CloseReason) {
        let Some(connection) = self.network.connections.get_mut(&id).filter(|connection| !connection.over)
        else {
            return;
        };
        connection.over = true;
        connection.sending = None;
        connection.room = None;
        connection.inbound.clear();
        if let Some(port) = &connection.port {
            port.borrow_mut().ready.push_back(Event::Closed(ConnId(id), reason));
        }
        self.note(format_args!("connection {id} closed: {reason:?}"));
    }

    /// The machine dies: of what was on its way to the peers, some still arrives.
    pub(super) fn end_network(&mut self) {
        self.network.listeners.clear();
        let ids: Vec<u64> = self.network.connections.keys().copied().collect();
        for id in ids {
            let Some(connection) = self.network.connections.get_mut(&id) else { continue };
            if !connection.over && !connection.window.is_empty() {
                let arrives = self.network.random.between(0, connection.window.len() as u64) as usize;
                connection.window.truncate(arrives);
            }
            self.close_connection(id, CloseReason::Broken(IoError::Halted));
        }
    }
}

/// What the peers do.
impl State {
    pub(super) fn connect(&mut self, address: SocketAddr) -> u64 {
        let id = self.network.next_connection;
        self.network.next_connection += 1;
        let listener = self.network.listeners.keys().copied().find(|listening| {
            listening.port() == address.port()
                && (listening.ip() == address.ip() || listening.ip().is_unspecified())
        });
        let [.., a, b, c, d] = (0x0a00_0000 + (id >> 14)).to_be_bytes();
        let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), 32_768 + (id % (1 << 14)) as u16);
        let connection = Connection {
            listener: listener.unwrap_or(address),
            peer,
            port: None,
            inbound: VecDeque::new(),
            peer_end: None,
            receiving: true,
            delivery_is_due: false,
            room: None,
            sending: None,
            taking_is_due: false,
            window: VecDeque::new(),
            arrived: Vec::new(),
            peer_reads: true,
            vanished: false,
            over: listener.is_none(),
        };
        self.network.connections.insert(id, connection);
        let span = self.network_delay();
        self.later(span, Due::Accept(id));
        id
    }

    pub(super) fn peer_sends(&mut self, id: u64, bytes: &[u8]) {
        let connection = self.connection(id);
        if !connection.over && connection.peer_end.is_none() {
            connection.inbound.extend(bytes);
        }
        self.expect_delivery(id);
    }

    pub(super) fn peer_received(&mut self, id: u64) -> Vec<u8> {
        std::mem::take(&mut self.connection(id).arrived)
    }

    pub(super) fn peer_unread(&mut self, id: u64) -> usize {
        self.connection(id).inbound.len()
    }

    pub(super) fn peer_closes(&mut self, id: u64) {
        self.connection(id).peer_end.get_or_insert(PeerEnd::Closed);
        self.expect_delivery(id);
    }

    pub(super) fn peer_resets(&mut self, id: u64) {
        self.connection(id).peer_end = Some(PeerEnd::Reset);
        self.expect_delivery(id);
    }

    pub(super) fn peer_vanishes(&mut self, id: u64) {
        self.connection(id).vanished = true;
    }

    pub(super) fn peer_reads(&mut self, id: u64, on: bool) {
        self.connection(id).peer_reads = on;
        self.expect_arrival(id);
    }

    pub(super) fn peer_is_closed(&mut self, id: u64) -> bool {
        let connection = self.connection(id);
        connection.peer_end.is_some()
            || (connection.over && connection.window.is_empty() && !connection.vanished)
    }

    fn connection(&mut self, id: u64) -> &mut Connection {
        self.network.connections.get_mut(&id).expect("a peer has a connection")
    }
}

/// Takes the first `len` bytes out of a stream, run by run: byte by byte it was an eighth of the simulation's time.
fn take_front(stream: &mut VecDeque<u8>, len: usize) -> Vec<u8> {
    let (first, second) = stream.as_slices();
    let of_first = len.min(first.len());
    let bytes = [&first[..of_first], &second[..len - of_first]].concat();
    stream.drain(..len);
    bytes
}
