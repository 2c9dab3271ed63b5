//! Time, order and wake-ups.

use super::network::{accept, listen};
use super::{blocks, durable_file, fills, io, lose_power, open, outcome, pool, world};
use crate::buffer::Slice;
use crate::io::fault::Faults;
use crate::io::sim::World;
use crate::io::{Blocking, DiskDone, Event, Io, Token, Wait};
use crate::limits::BLOCK_BYTES;
use crate::time::{Nanos, WallMs};
use crate::types::ShardId;

#[test]
fn an_append_is_announced_as_written_and_then_durable() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[]);
    io.append_durable(Token(7), file, 0, blocks(&[3, 4]));
    let mut events = Vec::new();
    while events.is_empty() {
        io.poll(Wait::Forever, &mut events);
    }
    assert!(matches!(events.as_slice(), [Event::Written(Token(7))]), "{events:?}");
    assert_eq!(world.unflushed().len(), 3, "two blocks and the length");
    outcome(&mut io, Token(7)).unwrap();
    assert_eq!(world.unflushed(), []);
    lose_power(&world);
    assert_eq!(fills(&world, "f").unwrap(), [3, 4]);
}

#[test]
fn operations_complete_out_of_order() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[0; 16]);
    for i in 0..16 {
        io.write(Token(i), file, i * BLOCK_BYTES as u64, blocks(&[1]));
    }
    let mut events = Vec::new();
    while events.len() < 16 {
        io.poll(Wait::Forever, &mut events);
    }
    let order: Vec<u64> = events
        .iter()
        .map(|event| match event {
            Event::Disk(token, Ok(DiskDone::Done)) => token.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(!order.is_sorted(), "{order:?}");
}

#[test]
fn one_seed_gives_one_history() {
    let run = |seed| {
        let world = World::new(seed, Faults::rough());
        let mut io = io(&world);
        let listening = listen(&mut io);
        let peer = world.connect(listening);
        peer.send(&[7; 1000]);
        let conn = accept(&mut io);
        let file = open(&mut io, "f");
        for i in 0..20 {
            io.append_durable(Token(i), file, i * BLOCK_BYTES as u64, blocks(&[i as u8]));
            outcome(&mut io, Token(i)).unwrap();
        }
        io.send(conn, vec![Slice::from(vec![1; 5000])]);
        world.advance_to(world.now() + Nanos::from_millis(500));
        (world.digest(), world.trace(), world.now(), io.random())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).0, run(6).0);
}

#[test]
fn a_waiting_poll_lets_time_pass_up_to_its_deadline() {
    let world = world();
    let mut io = io(&world);
    let start = io.now();
    let deadline = start + Nanos::from_millis(5);
    io.poll(Wait::Until(deadline), &mut Vec::new());
    assert_eq!(world.now(), deadline);
    assert_eq!(io.wall_ms(), WallMs(1_700_000_000_006));
    world.set_wall_ms(WallMs(5));
    assert_eq!(io.wall_ms(), WallMs(5));
}

#[test]
fn held_time_is_let_pass_by_the_driver_only() {
    let world = world();
    let mut io = io(&world);
    world.hold_time(true);
    let deadline = world.now() + Nanos::from_millis(5);
    let mut events = Vec::new();
    io.poll(Wait::Until(deadline), &mut events);
    assert!(world.now() < deadline && !world.has_ready(ShardId(0)));
    assert_eq!(world.next_event_at(), Some(deadline));
    io.space(Token(1));
    let due = world.next_event_at().unwrap();
    assert!(due < deadline);
    world.advance_to(due);
    assert!(world.has_ready(ShardId(0)));
    io.poll(Wait::Until(deadline), &mut events);
    assert_eq!(events.len(), 1);
    assert!(world.has_ready(ShardId(0)), "whoever got something may have work left");
    io.poll(Wait::Forever, &mut events);
    assert!(!world.has_ready(ShardId(0)) && world.next_event_at().is_none());
    io.poll(Wait::No, &mut events);
    assert!(world.has_ready(ShardId(0)), "whoever does not want to wait has work left");
}

#[test]
fn waking_makes_a_peer_ready_once() {
    let world = world();
    let (mut first, mut second) = (world.io(ShardId(0)), world.io(ShardId(1)));
    world.hold_time(true);
    second.poll(Wait::Forever, &mut Vec::new());
    assert!(!world.has_ready(ShardId(1)));
    first.wake(ShardId(1));
    assert!(world.has_ready(ShardId(1)));
    second.poll(Wait::Forever, &mut Vec::new());
    second.poll(Wait::Forever, &mut Vec::new());
    assert!(!world.has_ready(ShardId(1)));
    second.bell().ring();
    assert!(world.has_ready(ShardId(1)));
}

#[test]
fn an_offloaded_job_is_delivered_later() {
    let world = world();
    let mut io = io(&world);
    io.offload(Token(3), Box::new(|| Box::new(42_u32)));
    let mut events = Vec::new();
    io.poll(Wait::Forever, &mut events);
    let Some(Event::Offloaded(Token(3), result)) = events.pop() else { panic!("no result") };
    assert_eq!(result.downcast_ref(), Some(&42_u32));
}

#[test]
fn blocking_work_gets_done_even_while_time_is_held() {
    let world = world();
    let mut io = io(&world);
    world.hold_time(true);
    Blocking::new(&mut io, pool()).replace("f", b"content").unwrap();
    assert_eq!(world.read_file("f").unwrap(), b"content");
}
