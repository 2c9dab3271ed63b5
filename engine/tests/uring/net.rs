//! Connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use millstream_engine::buffer::{Pool, Slice};
use millstream_engine::error::IoError;
use millstream_engine::io::uring::Peers;
use millstream_engine::io::{CloseReason, ConnId, Event, Io, Token, Wait};
use millstream_engine::time::Nanos;

use crate::rig::{Dir, Rig, TOKEN, pattern};

#[test]
fn bytes_are_echoed_in_large_gathered_sends() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let address = rig.listen();
    let (conn, mut peer) = rig.connect(address);
    let total = 24 << 20;
    let client = thread::spawn(move || {
        let mut writer = peer.try_clone().unwrap();
        let bytes = pattern(total);
        let sent = bytes.clone();
        let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut back = vec![0; total];
        peer.read_exact(&mut back).unwrap();
        writing.join().unwrap();
        assert!(back == bytes, "the echo differs");
        peer
    });
    // Gathers what comes in while a send is under way: many slices at once, pieces of them, and empty ones.
    let (mut queue, mut queued, mut sending, mut echoed) = (Vec::new(), 0, 0, 0);
    while echoed < total {
        match rig.next() {
            Event::Received(_, slice) => {
                let middle = slice.len() / 3;
                queued += slice.len();
                queue.push(slice.slice(0..middle));
                queue.push(slice.slice(middle..middle));
                queue.push(slice.slice(middle..slice.len()));
                rig.io.receive(conn, queued < 4 << 20);
            }
            Event::Sent(_) => {
                echoed += sending;
                sending = 0;
            }
            other => panic!("not expected while echoing: {other:?}"),
        }
        if sending == 0 && queued > 0 {
            rig.io.send(conn, std::mem::take(&mut queue));
            sending = std::mem::take(&mut queued);
            rig.io.receive(conn, true);
        }
    }
    client.join().unwrap();
}

/// Has every `len` bytes that come in received as a whole, as a host does that knows how long they are: `first` bytes of them
/// come where they may, the rest into a room.
struct Whole {
    rooms: Pool,
    len: usize,
    first: usize,
    /// What has come of the next ones.
    arrived: Vec<Slice>,
    asked: bool,
    /// How many came in two pieces: what came first, and the rest.
    in_two: usize,
    got: Vec<u8>,
}

impl Whole {
    fn received(&mut self, slice: Slice) {
        match self.arrived.last_mut() {
            Some(last) if last.precedes(&slice) => *last = last.joined(&slice),
            _ => self.arrived.push(slice),
        }
        while self.arrived.iter().map(|piece| piece.len()).sum::<usize>() >= self.len {
            let mut left = self.len;
            self.in_two += usize::from(self.asked && self.arrived.len() <= 2);
            self.asked = false;
            while left > 0 {
                let piece = self.arrived.remove(0);
                let taken = piece.len().min(left);
                self.got.extend_from_slice(&piece[..taken]);
                left -= taken;
                if taken < piece.len() {
                    self.arrived.insert(0, piece.slice(taken..piece.len()));
                }
            }
        }
    }

    /// When nothing is on its way: asks for the rest to come into a room.
    fn look(&mut self, rig: &mut Rig, conn: ConnId) {
        let have: usize = self.arrived.iter().map(|piece| piece.len()).sum();
        if have >= self.first && !self.asked {
            self.asked = true;
            let room = self.rooms.block(self.len - have).unwrap();
            rig.io.receive_into(conn, room.cut(self.len - have));
        }
    }
}

#[test]
fn what_is_received_into_rooms_is_in_place_and_loses_no_byte() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let address = rig.listen();
    for (len, first) in [(100_000, 1), (100_000, 4096), (1_000_000, 1), (5_000, 1)] {
        let (conn, mut peer) = rig.connect(address);
        let bytes = pattern(len * (12_000_000 / len));
        let sent = bytes.clone();
        let writer = thread::spawn(move || {
            // In pieces that have nothing to do with what they are a part of; with a pause now and then.
            for (number, piece) in sent.chunks(77_777).enumerate() {
                peer.write_all(piece).unwrap();
                if number.is_multiple_of(16) {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            peer
        });
        let rooms = Pool::new(64 << 20);
        let (arrived, got) = (Vec::new(), Vec::new());
        let mut whole = Whole { rooms: rooms.clone(), len, first, arrived, asked: false, in_two: 0, got };
        let mut turns = 0_u32;
        while whole.got.len() < bytes.len() {
            for event in rig.some() {
                let Event::Received(_, slice) = event else { panic!("not expected: {event:?}") };
                whole.received(slice);
            }
            turns += 1;
            // Reading is turned off and on, too, whatever is under way.
            if turns.is_multiple_of(7) {
                rig.io.receive(conn, false);
                if turns.is_multiple_of(14) {
                    rig.poll(Wait::No);
                }
                rig.io.receive(conn, true);
            } else {
                whole.look(&mut rig, conn);
            }
        }
        assert!(whole.got == bytes, "bytes were lost or mixed up");
        assert!(whole.in_two > 0, "nothing of {len} bytes ever came into a room");
        drop((writer.join().unwrap(), whole));
        while !matches!(rig.next(), Event::Closed(closed, _) if closed == conn) {}
        assert_eq!(rooms.usage().in_use, 0, "a room is given back");
    }
}

#[test]
fn more_slices_than_one_call_takes_arrive_in_order() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let address = rig.listen();
    let (conn, mut peer) = rig.connect(address);
    let bytes = pattern(3000 * 3);
    rig.io.send(conn, bytes.chunks(3).map(|chunk| Slice::from(chunk.to_vec())).collect());
    assert!(matches!(rig.next(), Event::Sent(sent) if sent == conn));
    let mut got = vec![0; bytes.len()];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
    rig.io.send(conn, Vec::new());
    assert!(matches!(rig.next(), Event::Sent(_)), "nothing is sent at once");
}

#[test]
fn a_slow_reader_gets_everything_before_the_send_is_over() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let address = rig.listen();
    let (conn, mut peer) = rig.connect(address);
    let bytes = pattern(32 << 20);
    let (head, tail) = bytes.split_at(5_000_001);
    rig.io.send(conn, vec![Slice::from(head.to_vec()), Slice::from(tail.to_vec())]);
    assert!(rig.is_quiet(), "more was taken than any socket buffer holds");
    let reader = thread::spawn(move || {
        let mut got = vec![0; bytes.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got == bytes, "bytes were lost or mixed up");
        peer
    });
    assert!(matches!(rig.next(), Event::Sent(_)));
    reader.join().unwrap();
}

/// Slices of `bytes`, each in a slab that it fills to a quarter.
fn in_slabs(pool: &Pool, bytes: &[u8]) -> Vec<Slice> {
    let slice = |bytes: &[u8]| {
        let mut slab = pool.block(4 << 20).unwrap();
        slab.push(bytes);
        slab.freeze()
    };
    bytes.chunks(1 << 20).map(slice).collect()
}

#[test]
fn a_loosened_send_keeps_no_slab_and_loses_no_byte() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let address = rig.listen();
    let (conn, mut peer) = rig.connect(address);
    let pool = Pool::new(64 << 20);
    let room = || Pool::new(16 << 20).block(16 << 20).unwrap();
    let bytes = pattern(15 << 20);
    rig.io.send(conn, in_slabs(&pool, &bytes));
    assert!(rig.is_quiet(), "more was taken than any socket buffer holds");
    assert!(pool.usage().in_use >= 60 << 20);
    rig.io.loosen(conn, room());
    rig.io.loosen(conn, room());
    assert!(rig.is_quiet(), "the send is not over");
    assert_eq!(pool.usage().in_use, 0);
    let expected = bytes.clone();
    let reader = thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got == expected, "bytes were lost or mixed up");
        peer
    });
    assert!(matches!(rig.next(), Event::Sent(_)));
    let mut peer = reader.join().unwrap();
    rig.io.loosen(conn, room());
    rig.io.send(conn, vec![Slice::from(b"next".to_vec())]);
    assert!(matches!(rig.next(), Event::Sent(_)), "what was loosened too late does not hurt the next send");
    peer.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn sends_loosened_while_they_go_on_lose_no_byte() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let address = rig.listen();
    let (conn, mut peer) = rig.connect(address);
    let pool = Pool::new(64 << 20);
    let bytes = pattern(15 << 20);
    let expected = bytes.clone();
    let reader = thread::spawn(move || {
        for _ in 0..3 {
            let mut got = vec![0; expected.len()];
            for piece in got.chunks_mut(100_000) {
                peer.read_exact(piece).unwrap();
                thread::sleep(Duration::from_micros(300));
            }
            assert!(got == expected, "bytes were lost or mixed up");
        }
    });
    for _ in 0..3 {
        rig.io.send(conn, in_slabs(&pool, &bytes));
        loop {
            rig.io.loosen(conn, Pool::new(2 << 20).block(2 << 20).unwrap());
            rig.poll(Wait::Until(rig.io.now() + Nanos::from_micros(500)));
            match rig.events.pop_front() {
                None => {}
                Some(Event::Sent(_)) => break,
                Some(other) => panic!("not expected while sending: {other:?}"),
            }
        }
        assert_eq!(pool.usage().in_use, 0);
    }
    reader.join().unwrap();
}

#[test]
fn the_peer_closes_and_we_close_each_with_one_event() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let address = rig.listen();
    let (theirs, peer) = rig.connect(address);
    let (ours, mut other) = rig.connect(address);
    assert_ne!(theirs, ours);
    drop(peer);
    assert!(matches!(rig.next(), Event::Closed(conn, CloseReason::PeerClosed) if conn == theirs));
    rig.io.shutdown(ours);
    rig.io.shutdown(ours);
    assert!(matches!(rig.next(), Event::Closed(conn, CloseReason::Ours) if conn == ours));
    assert_eq!(other.read(&mut [0; 8]).unwrap(), 0, "the peer sees the end");
    rig.io.shutdown(theirs);
    rig.io.send(theirs, vec![Slice::from(vec![1])]);
    rig.io.receive(theirs, true);
    assert!(rig.is_quiet(), "nothing follows the end");
    let (third, _peer) = rig.connect(address);
    assert!(third != theirs && third != ours, "an id is never reused");
}

#[test]
fn closing_in_the_middle_of_a_send_ends_it() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let address = rig.listen();
    let (conn, peer) = rig.connect(address);
    let pool = Pool::new(64 << 20);
    let mut block = pool.block(32 << 20).unwrap();
    block.push_zeros(32 << 20);
    rig.io.send(conn, vec![block.freeze()]);
    assert!(rig.is_quiet());
    rig.io.shutdown(conn);
    assert!(matches!(rig.next(), Event::Closed(_, CloseReason::Ours)));
    assert!(rig.is_quiet());
    assert_eq!(pool.usage().in_use, 0, "the send's memory has gone home");
    drop(peer);
}

#[test]
fn a_reset_breaks_the_connection() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let address = rig.listen();
    let (conn, peer) = rig.connect(address);
    rig.io.send(conn, vec![Slice::from(vec![1; 100])]);
    assert!(matches!(rig.next(), Event::Sent(_)));
    // The peer waits until the bytes are there, and goes without reading them: that resets the connection.
    peer.peek(&mut [0; 1]).unwrap();
    drop(peer);
    assert!(matches!(rig.next(), Event::Closed(_, CloseReason::Broken(IoError::Os(_)))));
}

#[test]
fn reading_can_be_turned_off_and_on() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let address = rig.listen();
    let (conn, mut peer) = rig.connect(address);
    peer.write_all(b"first").unwrap();
    assert_eq!(rig.received(conn, 5), b"first");
    rig.io.receive(conn, false);
    assert!(rig.is_quiet());
    peer.write_all(b"second").unwrap();
    assert!(rig.is_quiet(), "nothing is read while reading is off");
    rig.io.receive(conn, true);
    assert_eq!(rig.received(conn, 6), b"second");
    // Off and on again at once: the receive that ends is followed by another.
    rig.io.receive(conn, false);
    rig.io.receive(conn, true);
    peer.write_all(b"third").unwrap();
    assert_eq!(rig.received(conn, 5), b"third");
}

#[test]
fn small_messages_share_a_block() {
    let dir = Dir::new();
    let pool = Pool::new(16 << 20);
    let mut rig = Rig::of(&dir.0, 0, &Arc::new(Peers::new(1)), pool.clone());
    let address = rig.listen();
    let (_conn, mut peer) = rig.connect(address);
    let before = pool.usage().in_use;
    let mut held = Vec::new();
    for i in 0..500u32 {
        peer.write_all(&i.to_be_bytes()).unwrap();
        match rig.next() {
            Event::Received(_, slice) => held.push(slice),
            other => panic!("bytes were expected, not {other:?}"),
        }
    }
    assert!((0..500u32).zip(&held).all(|(i, slice)| slice[..] == i.to_be_bytes()));
    assert_eq!(pool.usage().in_use, before, "500 messages of 4 bytes took another block");
}

#[test]
fn receiving_goes_on_when_memory_comes_home() {
    let dir = Dir::new();
    let pool = Pool::new(4 * 65536);
    let mut rig = Rig::of(&dir.0, 0, &Arc::new(Peers::new(1)), pool.clone());
    let address = rig.listen();
    let (_, mut peer) = rig.connect(address);
    let total = 4 << 20;
    let sent = pattern(total);
    let expected = sent.clone();
    let writer = thread::spawn(move || {
        peer.write_all(&sent).unwrap();
        peer
    });
    let (mut held, mut bytes, mut famines): (Vec<Slice>, _, _) = (Vec::new(), Vec::new(), 0);
    let mut hands = Vec::new();
    while bytes.len() < total {
        if !held.is_empty() && rig.is_quiet() {
            // Memory goes home on another thread, silently, while the shard sleeps.
            let slices = std::mem::take(&mut held);
            hands.push(thread::spawn(move || {
                thread::sleep(Duration::from_millis(10));
                drop(slices);
            }));
            famines += 1;
            continue;
        }
        match rig.next() {
            Event::Received(_, slice) => {
                bytes.extend_from_slice(&slice);
                held.push(slice);
                assert!(pool.usage().in_use <= pool.usage().limit);
            }
            other => panic!("bytes were expected, not {other:?}"),
        }
    }
    assert!(bytes == expected, "bytes were lost or mixed up");
    assert!(famines >= total / pool.usage().limit - 1, "more was received than there was memory for");
    for hand in hands {
        hand.join().unwrap();
    }
    writer.join().unwrap();
    drop((held, rig));
    assert_eq!(pool.usage().in_use, 0, "all memory has gone home");
}

#[test]
fn a_listener_that_was_closed_accepts_no_more() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let address = rig.listen();
    rig.io.unlisten(TOKEN);
    assert!(rig.is_quiet());
    assert!(TcpStream::connect(address).is_err());
    rig.io.listen(TOKEN, address);
    assert!(matches!(rig.next(), Event::Listening(TOKEN, Ok(again)) if again == address));
    rig.io.listen(Token(8), address);
    assert!(matches!(rig.next(), Event::Listening(Token(8), Err(IoError::Os(_)))), "the port is taken");
}
