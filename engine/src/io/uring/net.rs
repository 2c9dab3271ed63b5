//! Connections: a receive each, at most one send, and an orderly end.
//!
//! What a connection receives goes to lent memory, by a multishot receive. The rest of something large goes straight to the
//! room that the host gave for it, by receives of their own; and behind that only a little is received before the host has
//! had a look, since the next thing may be as large, and the host may give room for that.
//!
//! A connection's place is given up, and its descriptor closed, only when no operation on it is in flight; so what a
//! completion names by its place is always the connection that it was submitted for.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use super::errors::{self, is_retry};
use super::lent::{GROUP, Lent};
use super::ring::{Completion, Owner, Ring};
use super::slab::Slab;
use crate::buffer::{Block, Slice, loosen};
use crate::io::{CloseReason, ConnId, Event, Socket};
use crate::limits::{RECEIVE_HEAD_BYTES, SEND_SLICES_MAX};
use crate::types::ShardId;

/// A connection's id: its shard, how often its place was given up before, and its place.
const PLACE_BITS: u32 = 24;
const GENERATION_BITS: u32 = 32;

/// Where a connection's receive stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receiving {
    /// Not in flight.
    Idle,
    /// In flight, multishot.
    Armed,
    /// In flight, and asked to end.
    Ending,
    /// In flight, into the room.
    Filling,
    /// In flight, for a little.
    Looking,
    /// Not in flight: there was no memory to receive into.
    Starved,
}

/// What is being sent. On the heap, since the kernel points into it.
struct Sending {
    slices: Vec<Slice>,
    /// The first slice that is not taken whole, and how many of its bytes are.
    slice: usize,
    taken: usize,
    /// Describes the rest to the kernel.
    vectors: Vec<libc::iovec>,
    header: libc::msghdr,
    in_flight: bool,
    /// What is left is to be copied here as soon as the kernel has let go of it.
    room: Option<Block>,
}

struct Conn {
    id: ConnId,
    stream: TcpStream,
    /// The host wants to read.
    wanted: bool,
    receiving: Receiving,
    /// Where what comes in next is put.
    room: Option<Block>,
    /// A room has been filled, and nothing was received since.
    large: bool,
    sending: Box<Sending>,
    /// Its end was announced.
    closed: bool,
}

/// The connections of one shard.
pub(super) struct Net {
    shard: ShardId,
    conns: Slab<Conn>,
    lent: Lent,
    /// Connections in state [`Receiving::Starved`], and perhaps some that were.
    starved: VecDeque<u32>,
    /// Connections that received a little, to be armed again when the host has seen it; and perhaps some that were.
    looked: Vec<u32>,
}

impl Net {
    pub(super) fn new(shard: ShardId, lent: Lent) -> Net {
        Net { shard, conns: Slab::new(), lent, starved: VecDeque::new(), looked: Vec::new() }
    }

    /// An open connection's place.
    fn find(&self, id: ConnId) -> Option<u32> {
        let index = (id.0 & ((1 << PLACE_BITS) - 1)) as u32;
        self.conns.get(index).is_some_and(|conn| conn.id == id && !conn.closed).then_some(index)
    }

    fn conn(&mut self, index: u32) -> &mut Conn {
        self.conns.get_mut(index).expect("a connection stays until its last completion")
    }

    pub(super) fn adopt(&mut self, ring: &mut Ring, socket: &Socket) -> ConnId {
        let fd =
            RawFd::try_from(socket.handle).expect("a socket's handle is the descriptor that was accepted");
        // SAFETY: `Socket` hands the descriptor over; whoever adopts it is its only owner.
        let stream = unsafe { TcpStream::from_raw_fd(fd) };
        // Fails only on a connection that is over, which its first receive will tell.
        let _ = stream.set_nodelay(true);
        let shard = u64::from(self.shard.0);
        let index = self.conns.insert(|index, generation| {
            assert!(index < 1 << PLACE_BITS, "more connections than a process has descriptors");
            let generation = u64::from(generation) << PLACE_BITS;
            Conn {
                id: ConnId(shard << (GENERATION_BITS + PLACE_BITS) | generation | u64::from(index)),
                stream,
                wanted: true,
                receiving: Receiving::Idle,
                room: None,
                large: false,
                sending: Box::new(Sending::new()),
                closed: false,
            }
        });
        self.arm(ring, index);
        self.conn(index).id
    }

    pub(super) fn receive(&mut self, ring: &mut Ring, id: ConnId, on: bool) {
        let Some(index) = self.find(id) else { return };
        let conn = self.conn(index);
        conn.wanted = on;
        match (on, conn.receiving) {
            (true, Receiving::Idle) => self.arm(ring, index),
            (false, Receiving::Armed | Receiving::Filling | Receiving::Looking) => {
                conn.receiving = Receiving::Ending;
                ring.push_quiet(opcode::AsyncCancel::new(Owner::Receive(index).pack()).build());
            }
            // One that is ending is armed again when it has ended; a starved one when there is memory.
            _ => {}
        }
    }

    pub(super) fn receive_into(&mut self, ring: &mut Ring, id: ConnId, room: Block) {
        let Some(index) = self.find(id) else { return };
        assert!(room.spare() > 0, "there is room in a room");
        let conn = self.conn(index);
        assert!(conn.room.is_none(), "one room at a time");
        conn.room = Some(room);
        match conn.receiving {
            Receiving::Armed | Receiving::Looking => {
                conn.receiving = Receiving::Ending;
                ring.push_quiet(opcode::AsyncCancel::new(Owner::Receive(index).pack()).build());
            }
            Receiving::Idle | Receiving::Starved if conn.wanted => self.arm(ring, index),
            // One that is ending is armed again when it has ended.
            _ => {}
        }
    }

    fn arm(&mut self, ring: &mut Ring, index: u32) {
        let conn = self.conn(index);
        let fd = types::Fd(conn.stream.as_raw_fd());
        let (receiving, receive) = if let Some(room) = &mut conn.room {
            let spare = room.spare_mut();
            (Receiving::Filling, opcode::Recv::new(fd, spare.as_mut_ptr(), spare.len() as u32).build())
        } else if conn.large {
            let little = opcode::Recv::new(fd, std::ptr::null_mut(), RECEIVE_HEAD_BYTES as u32);
            (Receiving::Looking, little.buf_group(GROUP).build().flags(Flags::BUFFER_SELECT))
        } else {
            (Receiving::Armed, opcode::RecvMulti::new(fd, GROUP).build())
        };
        conn.receiving = receiving;
        // SAFETY: it points to the room, which is the connection's until it is full or the connection is given up, both of
        // which come after the last completion; or to no memory but what the buffer ring lends, which `Lent` keeps.
        unsafe { ring.push(Owner::Receive(index), receive) }
    }

    pub(super) fn received(
        &mut self,
        ring: &mut Ring,
        index: u32,
        completion: Completion,
        events: &mut Vec<Event>,
    ) {
        let result = completion.result;
        let slice = completion.buffer().and_then(|number| {
            if result > 0 {
                return Some(self.lent.filled(number, result as usize));
            }
            self.lent.unfilled(number);
            None
        });
        let conn = self.conn(index);
        let looked = conn.receiving == Receiving::Looking;
        if !completion.more() {
            conn.receiving = Receiving::Idle;
        }
        if conn.closed {
            return self.release(index);
        }
        match result {
            1.. => {
                conn.take(slice, result as usize, events);
                if looked && conn.room.is_none() {
                    self.looked.push(index);
                    return;
                }
            }
            0 => return self.end(index, CloseReason::PeerClosed, events),
            _ if result == -libc::ENOBUFS => {
                conn.receiving = Receiving::Starved;
                self.starved.push_back(index);
                return;
            }
            _ if is_retry(result) || result == -libc::ECANCELED => {}
            _ => return self.end(index, CloseReason::Broken(errors::of(result)), events),
        }
        if conn.receiving == Receiving::Idle && conn.wanted {
            self.arm(ring, index);
        }
    }

    /// Lends what memory there is, and receives again where it was missing. True if some connection still starves.
    pub(super) fn resume(&mut self, ring: &mut Ring) -> bool {
        self.lent.replenish();
        for index in std::mem::take(&mut self.looked) {
            if self.conns.get(index).is_some_and(Conn::is_to_be_armed) {
                self.arm(ring, index);
            }
        }
        if self.lent.is_exhausted() {
            return !self.starved.is_empty();
        }
        while let Some(index) = self.starved.pop_front() {
            let Some(conn) = self.conns.get_mut(index) else { continue };
            if conn.receiving != Receiving::Starved {
                continue;
            }
            conn.receiving = Receiving::Idle;
            if conn.is_to_be_armed() {
                self.arm(ring, index);
            }
        }
        false
    }

    /// Sends; true if there was nothing to send.
    pub(super) fn send(&mut self, ring: &mut Ring, id: ConnId, slices: Vec<Slice>) -> bool {
        let Some(index) = self.find(id) else { return false };
        let conn = self.conn(index);
        assert!(!conn.sending.in_flight, "one send at a time");
        conn.sending.begin(slices);
        if conn.sending.is_over() {
            return true;
        }
        self.submit_send(ring, index);
        false
    }

    fn submit_send(&mut self, ring: &mut Ring, index: u32) {
        let conn = self.conn(index);
        let fd = types::Fd(conn.stream.as_raw_fd());
        let header = conn.sending.describe();
        conn.sending.in_flight = true;
        // WAITALL: the kernel itself goes on when the peer has made room, and asks us only when something is wrong.
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let send = opcode::SendMsg::new(fd, header).flags(flags).build();
        // SAFETY: header, vectors and slices are owned by the connection's `Sending`, on the heap, and not touched
        // while it is in flight; the connection stays until then.
        unsafe { ring.push(Owner::Send(index), send) }
    }

    /// Takes the send back from the kernel, to copy what is left of it.
    pub(super) fn loosen(&mut self, ring: &mut Ring, id: ConnId, room: Block) {
        let Some(index) = self.find(id) else { return };
        let sending = &mut self.conn(index).sending;
        if sending.in_flight && sending.room.is_none() {
            sending.room = Some(room);
            ring.push_quiet(opcode::AsyncCancel::new(Owner::Send(index).pack()).build());
        }
    }

    pub(super) fn sent(
        &mut self,
        ring: &mut Ring,
        index: u32,
        completion: Completion,
        events: &mut Vec<Event>,
    ) {
        let result = completion.result;
        let conn = self.conn(index);
        conn.sending.in_flight = false;
        let room = conn.sending.room.take();
        if conn.closed {
            return self.release(index);
        }
        // One that was taken back says how much of it was sent before, if anything was.
        if result < 0 && !is_retry(result) && result != -libc::ECANCELED {
            return self.end(index, CloseReason::Broken(errors::of(result)), events);
        }
        conn.sending.took(result.max(0) as usize);
        if conn.sending.is_over() {
            conn.sending.clear();
            events.push(Event::Sent(conn.id));
        } else {
            if let Some(room) = room {
                conn.sending.loosen(room);
            }
            self.submit_send(ring, index);
        }
    }

    pub(super) fn shutdown(&mut self, id: ConnId, events: &mut Vec<Event>) {
        if let Some(index) = self.find(id) {
            self.end(index, CloseReason::Ours, events);
        }
    }

    /// Announces the end. What is in flight completes soon, since nothing goes in or out any more.
    fn end(&mut self, index: u32, reason: CloseReason, events: &mut Vec<Event>) {
        let conn = self.conn(index);
        conn.closed = true;
        events.push(Event::Closed(conn.id, reason));
        // Fails only if the peer has ended it already.
        let _ = conn.stream.shutdown(Shutdown::Both);
        self.release(index);
    }

    /// Closes the descriptor of a connection that is over and has nothing in flight.
    fn release(&mut self, index: u32) {
        let conn = self.conn(index);
        let receiving = !matches!(conn.receiving, Receiving::Idle | Receiving::Starved);
        if !receiving && !conn.sending.in_flight {
            self.conns.remove(index);
        }
    }

    /// Ends everything, without a word.
    pub(super) fn shutdown_all(&mut self) {
        for index in self.conns.indexes() {
            let conn = self.conns.get(index);
            // Fails only if the peer has ended it already.
            let _ = conn.map(|conn| conn.stream.shutdown(Shutdown::Both));
        }
    }

    /// Takes the lent memory from the kernel, after the last completion.
    pub(super) fn take_back(self, ring: &Ring) {
        self.lent.take_back(ring);
    }
}

impl Conn {
    fn is_to_be_armed(&self) -> bool {
        self.receiving == Receiving::Idle && self.wanted && !self.closed
    }

    /// Takes `n` bytes that came into lent memory, or else into the room. What came into lent memory although there is a room
    /// by now is moved there.
    fn take(&mut self, lent: Option<Slice>, n: usize, events: &mut Vec<Event>) {
        self.large = false;
        let Some(room) = &mut self.room else {
            return events.extend(lent.map(|slice| Event::Received(self.id, slice)));
        };
        let mut behind = None;
        if let Some(slice) = lent {
            let (moved, rest) = slice.split_at(slice.len().min(room.spare()));
            room.push(moved);
            behind = (!rest.is_empty()).then(|| slice.slice(moved.len()..slice.len()));
        } else {
            room.advance(n);
        }
        events.push(Event::Received(self.id, room.split_frozen()));
        events.extend(behind.map(|slice| Event::Received(self.id, slice)));
        self.large = self.room.take_if(|room| room.spare() == 0).is_some();
    }
}

impl Sending {
    fn new() -> Sending {
        // SAFETY: a msghdr is made of integers and pointers, for which zero is a value.
        let header = unsafe { std::mem::zeroed() };
        Sending {
            slices: Vec::new(),
            slice: 0,
            taken: 0,
            vectors: Vec::new(),
            header,
            in_flight: false,
            room: None,
        }
    }

    fn begin(&mut self, slices: Vec<Slice>) {
        self.slices = slices;
        self.slice = 0;
        self.taken = 0;
        self.skip_empty();
    }

    fn clear(&mut self) {
        self.slices.clear();
        self.slice = 0;
    }

    /// Drops what was sent, and copies what is left.
    fn loosen(&mut self, room: Block) {
        self.slices.drain(..self.slice);
        self.slice = 0;
        if let Some(first) = self.slices.first_mut() {
            *first = first.slice(self.taken..first.len());
            self.taken = 0;
        }
        loosen(&mut self.slices, room);
    }

    fn is_over(&self) -> bool {
        self.slice == self.slices.len()
    }

    fn skip_empty(&mut self) {
        while self.slices.get(self.slice).is_some_and(|slice| slice.is_empty()) {
            self.slice += 1;
        }
    }

    /// Points the header to what is left, as far as one call takes it.
    fn describe(&mut self) -> *const libc::msghdr {
        self.vectors.clear();
        let mut skip = self.taken;
        for slice in self.slices.iter().skip(self.slice).take(SEND_SLICES_MAX) {
            let bytes = slice.get(skip..).expect("no more of a slice is taken than there is");
            skip = 0;
            let iov_base = bytes.as_ptr().cast_mut().cast();
            self.vectors.push(libc::iovec { iov_base, iov_len: bytes.len() });
        }
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
        &raw const self.header
    }

    /// The kernel has taken `n` more bytes.
    fn took(&mut self, n: usize) {
        self.taken += n;
        while let Some(slice) = self.slices.get(self.slice)
            && self.taken >= slice.len()
        {
            self.taken -= slice.len();
            self.slice += 1;
        }
        assert!(!self.is_over() || self.taken == 0, "the kernel sent more than there was");
    }
}
