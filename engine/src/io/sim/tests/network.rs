//! Connections, and how they go wrong.

use std::net::SocketAddr;

use super::{pool, world};
use crate::buffer::{Pool, Slice};
use crate::error::IoError;
use crate::io::fault::Faults;
use crate::io::sim::{Crash, SimIo, SimPeer, World};
use crate::io::{CloseReason, ConnId, Event, Io, Token, Wait};
use crate::time::Nanos;
use crate::types::ShardId;

pub(super) fn listen(io: &mut SimIo) -> SocketAddr {
    io.listen(Token(0), "127.0.0.1:0".parse().unwrap());
    let mut events = Vec::new();
    io.poll(Wait::Forever, &mut events);
    match events.as_slice() {
        [Event::Listening(Token(0), Ok(address))] => *address,
        other => panic!("{other:?}"),
    }
}

pub(super) fn accept(io: &mut SimIo) -> ConnId {
    let mut events = Vec::new();
    io.poll(Wait::Forever, &mut events);
    match events.pop() {
        Some(Event::Accepted(Token(0), socket)) => io.adopt(socket),
        other => panic!("{other:?}"),
    }
}

fn connected(world: &World) -> (SimIo, ConnId, SimPeer) {
    let mut io = world.io(ShardId(0));
    let address = listen(&mut io);
    let peer = world.connect(address);
    let conn = accept(&mut io);
    (io, conn, peer)
}

/// Everything that happens in the next second.
fn events(world: &World, io: &mut SimIo) -> Vec<Event> {
    let until = world.now() + Nanos::from_millis(1_000);
    let mut events = Vec::new();
    while world.now() < until {
        io.poll(Wait::Until(until), &mut events);
    }
    events
}

fn received(events: &[Event]) -> Vec<usize> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Received(_, bytes) => Some(bytes.len()),
            _ => None,
        })
        .collect()
}

#[test]
fn what_a_peer_sends_arrives_in_order_merged_and_split() {
    for (faults, pieces) in [(Faults::default(), 1..2), (Faults::rough(), 2..100)] {
        let world = World::new(3, faults);
        let (mut io, _, peer) = connected(&world);
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        peer.send(&bytes[..4_000]);
        peer.send(&bytes[4_000..]);
        let events = events(&world, &mut io);
        let mut all = Vec::new();
        for event in &events {
            let Event::Received(_, slice) = event else { panic!("{event:?}") };
            all.extend_from_slice(slice);
        }
        assert!(all == bytes && pieces.contains(&events.len()), "{} pieces", events.len());
    }
}

#[test]
fn a_send_is_taken_in_parts_and_waits_for_a_peer_that_does_not_read() {
    let world = World::new(3, Faults { window_bytes: 1_000, ..Faults::rough() });
    let (mut io, conn, peer) = connected(&world);
    peer.pause_reading(true);
    let bytes: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let whole = Slice::from(bytes.clone());
    io.send(conn, vec![whole.slice(0..10), whole.slice(10..5_000)]);
    assert!(events(&world, &mut io).is_empty());
    assert_eq!(peer.received(), []);
    peer.pause_reading(false);
    let events = events(&world, &mut io);
    assert!(matches!(events.as_slice(), [Event::Sent(of)] if *of == conn), "{events:?}");
    assert_eq!(peer.received(), bytes);
}

#[test]
fn a_loosened_send_keeps_no_slab_and_loses_no_byte() {
    let world = World::new(3, Faults { window_bytes: 1_000, ..Faults::rough() });
    let (mut io, conn, peer) = connected(&world);
    peer.pause_reading(true);
    let bytes: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let slabs = Pool::new(8 << 20);
    let mut slab = slabs.block(4 << 20).unwrap();
    slab.push(&bytes);
    let slab = slab.freeze();
    io.send(conn, vec![slab.slice(0..10), slab.slice(10..5_000)]);
    drop(slab);
    assert!(events(&world, &mut io).is_empty());
    assert_eq!(slabs.usage().in_use, 4 << 20);
    io.loosen(conn, pool().block(5_000).unwrap());
    assert!(events(&world, &mut io).is_empty());
    assert_eq!(slabs.usage().in_use, 0);
    peer.pause_reading(false);
    let events = events(&world, &mut io);
    assert!(matches!(events.as_slice(), [Event::Sent(of)] if *of == conn), "{events:?}");
    assert_eq!(peer.received(), bytes);
}

#[test]
fn what_is_received_into_a_room_is_one_piece_and_what_is_behind_it_is_not() {
    for seed in 0..20 {
        let world = World::new(seed, Faults { reset: 0.0, ..Faults::rough() });
        let (mut io, conn, peer) = connected(&world);
        let bytes: Vec<u8> = (0..=255).cycle().take(9_000).collect();
        let room = pool().block(8_192).unwrap().cut(7_000);
        io.receive_into(conn, room);
        peer.send(&bytes);
        let mut pieces: Vec<Slice> = Vec::new();
        while pieces.iter().map(|piece| piece.len()).sum::<usize>() < bytes.len() {
            for event in events(&world, &mut io) {
                let Event::Received(_, slice) = event else { panic!("{event:?}") };
                match pieces.last_mut() {
                    Some(last) if last.precedes(&slice) => *last = last.joined(&slice),
                    _ => pieces.push(slice),
                }
            }
        }
        assert_eq!(pieces[0][..], bytes[..7_000], "seed {seed}");
        let behind: Vec<u8> = pieces[1..].iter().flat_map(|piece| piece.to_vec()).collect();
        assert_eq!(behind, bytes[7_000..], "seed {seed}");
    }
}

#[test]
fn the_window_bounds_what_is_taken_for_a_peer_that_does_not_read() {
    for seed in 0..10 {
        let world = World::new(seed, Faults { window_bytes: 1_000, ..Faults::rough() });
        let (mut io, conn, peer) = connected(&world);
        peer.pause_reading(true);
        io.send(conn, vec![Slice::from(vec![1; 1_001])]);
        assert!(events(&world, &mut io).is_empty());
    }
}

#[test]
fn reading_turned_off_leaves_bytes_with_the_sender() {
    let world = world();
    let (mut io, conn, peer) = connected(&world);
    io.receive(conn, false);
    peer.send(b"hello");
    peer.close();
    assert!(events(&world, &mut io).is_empty());
    assert_eq!(peer.unread(), 5);
    io.receive(conn, true);
    let events = events(&world, &mut io);
    assert!(matches!(events.last(), Some(Event::Closed(_, CloseReason::PeerClosed))), "{events:?}");
    assert_eq!(received(&events), [5]);
}

#[test]
fn a_reset_loses_what_was_not_received_and_nothing_follows_it() {
    let world = world();
    let (mut io, conn, peer) = connected(&world);
    peer.send(b"hello");
    peer.reset();
    let broken = CloseReason::Broken(IoError::Os(libc::ECONNRESET));
    let first = events(&world, &mut io);
    assert!(matches!(first.as_slice(), [Event::Closed(_, reason)] if *reason == broken), "{first:?}");
    io.send(conn, vec![Slice::from(b"late".to_vec())]);
    io.shutdown(conn);
    peer.send(b"more");
    assert!(events(&world, &mut io).is_empty());
}

#[test]
fn a_vanished_peer_says_nothing_and_takes_a_window_full() {
    let world = World::new(1, Faults { window_bytes: 10, ..Faults::default() });
    let (mut io, conn, peer) = connected(&world);
    peer.send(b"hello");
    peer.vanish();
    peer.close();
    io.send(conn, vec![Slice::from(vec![1; 20])]);
    assert!(events(&world, &mut io).is_empty());
    io.shutdown(conn);
    let events = events(&world, &mut io);
    assert!(matches!(events.as_slice(), [Event::Closed(_, CloseReason::Ours)]), "{events:?}");
    assert_eq!(peer.received(), []);
}

#[test]
fn shutting_down_closes_both_sides() {
    let world = world();
    let (mut io, conn, peer) = connected(&world);
    io.send(conn, vec![Slice::from(b"bye".to_vec())]);
    events(&world, &mut io);
    assert!(!peer.is_closed());
    io.shutdown(conn);
    let events = events(&world, &mut io);
    assert!(matches!(events.as_slice(), [Event::Closed(_, CloseReason::Ours)]), "{events:?}");
    assert_eq!((peer.is_closed(), peer.received()), (true, b"bye".to_vec()));
}

#[test]
fn nobody_listening_refuses_and_one_address_has_one_listener() {
    let world = world();
    let (mut first, mut second) = (world.io(ShardId(0)), world.io(ShardId(1)));
    let address = listen(&mut first);
    second.listen(Token(1), address);
    let mut events = Vec::new();
    second.poll(Wait::Forever, &mut events);
    assert!(matches!(events.as_slice(), [Event::Listening(_, Err(IoError::Os(libc::EADDRINUSE)))]));
    assert!(!world.connect(address).is_closed());
    first.unlisten(Token(0));
    assert!(world.connect(address).is_closed());
}

#[test]
fn a_crash_closes_every_connection() {
    let world = world();
    let (mut io, conn, peer) = connected(&world);
    world.crash(Crash::Kill);
    let mut events = Vec::new();
    io.poll(Wait::Forever, &mut events);
    let closed = CloseReason::Broken(IoError::Halted);
    assert!(matches!(events.as_slice(), [Event::Closed(of, reason)] if *of == conn && *reason == closed));
    assert!(peer.is_closed() && world.connect("127.0.0.1:40000".parse().unwrap()).is_closed());
}
