//! A kill, and then a power loss in the next life: what the dead process had done and not flushed is believed by its
//! successor, and must be made durable before anything is built on it.

use std::cell::RefCell;

use millstream_engine::config::TopicConfig;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, Unflushed, UnflushedChange, World};
use millstream_engine::shard::request::Request;
use millstream_engine::time::Nanos;
use millstream_engine::types::PartitionId;
use millstream_tests::crash::at_every_crash_point;
use millstream_tests::solo::{Solo, config};

/// Each is a segment of its own, which is sealed by the next one, and then written.
const APPENDS: u64 = 4;
const VALUE_BYTES: usize = 5_000;
/// In which a shard looks around, and writes what is sealed.
const A_WHILE: Nanos = Nanos::from_millis(2_500);
/// Of the points of a recovery, every so many-th.
const STRIDE: usize = 2;

fn value(number: u64) -> Vec<u8> {
    (0..VALUE_BYTES as u64).map(|at| (at / 251 + at + number) as u8).collect()
}

fn start(world: &World) -> Solo {
    Solo::start(world, config()).unwrap_or_else(|fatal| panic!("it does not start: {fatal}"))
}

/// A stopped node with a topic, empty or not.
fn stopped(appends: u64) -> World {
    let world = World::new(5, Faults::default());
    let mut node = start(&world);
    let segments = TopicConfig { segment_bytes: VALUE_BYTES as u32, ..TopicConfig::default() };
    let topic = node.create("t", 1, segments);
    for number in 0..appends {
        node.append(PartitionId { topic, index: 0 }, &value(number));
    }
    node.pass(A_WHILE);
    node.stop().expect("it ends in good order");
    world.crash(Crash::Power(Survivors::None));
    world
}

/// What a power loss may take, that is told by these words.
fn is_pending(world: &World, names: &str) -> bool {
    world.unflushed().iter().any(|item| item.path.contains(names))
}

#[test]
fn a_directory_made_just_before_a_kill_is_there_after_a_power_loss() {
    let sent = RefCell::new(0);
    let run = |world: &World| {
        *sent.borrow_mut() = 0;
        let Ok(mut node) = Solo::start(world, config()) else { return };
        let partition = PartitionId { topic: node.topic("t"), index: 0 };
        for number in 0..APPENDS {
            if node.try_append(partition, &value(number)).is_none() {
                return;
            }
            *sent.borrow_mut() += 1;
        }
        node.pass(A_WHILE);
    };
    let tried = RefCell::new(0);
    at_every_crash_point(
        || stopped(0),
        run,
        |world, point| {
            if !is_pending(world, "logs/t-0") {
                return;
            }
            world.crash(Crash::Kill);
            let mut node = start(world);
            let partition = PartitionId { topic: node.topic("t"), index: 0 };
            let first = node.read_all(partition).expect("what is there can be read").len() as u64;
            assert!(first >= *sent.borrow(), "point {point}: {first} are there of {}", sent.borrow());
            for number in first..first + APPENDS {
                node.append(partition, &value(number));
            }
            node.pass(A_WHILE);
            world.crash(Crash::Power(Survivors::None));
            drop(node);
            let values = start(world).read_all(partition).expect("what is there can be read");
            assert_eq!(values.len() as u64, first + APPENDS, "point {point}");
            assert!(values.iter().zip(0..).all(|(read, number)| *read == value(number)), "point {point}");
            *tried.borrow_mut() += 1;
        },
    );
    assert!(tried.into_inner() > 0, "no point leaves the directory pending");
}

#[test]
fn a_deletion_written_just_before_a_kill_is_done_or_not_done_after_a_power_loss() {
    let run = |world: &World| {
        let Ok(mut node) = Solo::start(world, config()) else { return };
        let topic = node.topic("t");
        node.try_ask(Request::DeleteTopic(topic));
    };
    let tried = RefCell::new(0);
    let kinds = [(false, false), (true, false), (false, true), (true, true)];
    at_every_crash_point(
        || stopped(APPENDS),
        run,
        |world, point| {
            let pending = |item: &Unflushed| item.path == "metadata/log" || item.path.contains("-delete");
            if !world.unflushed().iter().any(pending) {
                return;
            }
            world.crash(Crash::Kill);
            let disk = world.snapshot_disk();
            let recovered = World::from_disk(6, disk.clone(), Faults::default());
            drop(start(&recovered));
            for inner in (1..=recovered.disk_ops()).step_by(STRIDE) {
                let recovering = World::from_disk(6, disk.clone(), Faults::default());
                recovering.halt_after(inner);
                drop(Solo::start(&recovering, config()));
                for (names, content) in kinds {
                    let mut left = recovering.snapshot_disk();
                    left.crash_keeping(|item| match item.change {
                        UnflushedChange::Name => names,
                        UnflushedChange::Block(_) | UnflushedChange::Length(_) => content,
                    });
                    let world = World::from_disk(7, left, Faults::default());
                    let mut node = start(&world);
                    let there = node.shard().metadata().topic("t").map(|topic| topic.id);
                    if let Some(topic) = there {
                        let read = node.read_all(PartitionId { topic, index: 0 });
                        let count = read.map(|values| values.len() as u64);
                        assert_eq!(
                            count.ok(),
                            Some(APPENDS),
                            "point {point}, then {inner}: it lives, without its records"
                        );
                    }
                    *tried.borrow_mut() += 1;
                }
            }
        },
    );
    assert!(tried.into_inner() > 0, "no point leaves the deletion pending");
}
