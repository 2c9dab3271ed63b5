//! Stored segments that are read again and again, from maps.

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::error::IoError;
use millstream_engine::io::fault::{Faults, Injection, OpKind, Outcome};
use millstream_engine::io::sim::World;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Offset, PartitionId};
use millstream_tests::solo::{Solo, config};

const VALUE_BYTES: u64 = 300_000;
const VALUES: u64 = 40;

fn value(offset: u64) -> Vec<u8> {
    (0..VALUE_BYTES).map(|at| (at / 251 + at + offset) as u8).collect()
}

/// A node with a partition whose history lies in sealed segments, most of it no longer in the tail.
fn with_history(world: &World, map_segments: bool) -> (Solo, PartitionId) {
    let mut node = Solo::start(world, Config { map_segments, ..config() }).expect("the disk is empty");
    let topic = node.create("t", 1, TopicConfig { segment_bytes: 4 << 20, ..TopicConfig::default() });
    let partition = PartitionId { topic, index: 0 };
    for offset in 0..VALUES {
        node.append(partition, &value(offset));
    }
    node.pass(Nanos::from_millis(1_000));
    (node, partition)
}

fn check_all(node: &mut Solo, partition: PartitionId) {
    let values = node.read_all(partition).expect("all of it can be read");
    assert!(values.iter().zip(0..).all(|(got, offset)| *got == value(offset)), "a value differs");
    assert_eq!(values.len() as u64, VALUES);
}

#[test]
fn segments_read_again_come_from_maps_unchanged() {
    for (map_segments, seed) in [(true, 1), (true, 2), (false, 3)] {
        let world = World::new(seed, Faults::default());
        let (mut node, partition) = with_history(&world, map_segments);
        check_all(&mut node, partition);
        let first = node.shard().chunks_from_maps();
        // One segment is mapped at a time, while readers go on.
        for _ in 0..8 {
            check_all(&mut node, partition);
            node.pass(Nanos::from_millis(1_000));
        }
        let served = node.shard().chunks_from_maps() - first;
        assert_eq!(served > 10, map_segments, "{served} chunks came from maps");
    }
}

#[test]
fn a_segment_that_cannot_be_mapped_is_read() {
    let world = World::new(4, Faults::default());
    let (mut node, partition) = with_history(&world, true);
    for path in world.list_all().into_iter().filter(|path| path.ends_with(".log")) {
        let outcome = Outcome::Fails(IoError::Os(5));
        world.inject(Injection { op: OpKind::Map, path, skip: 0, outcome });
    }
    for _ in 0..2 {
        check_all(&mut node, partition);
    }
    assert_eq!(node.shard().chunks_from_maps(), 0);
}

#[test]
fn maps_of_segments_that_are_gone_are_given_up() {
    let world = World::new(5, Faults::default());
    let (mut node, partition) = with_history(&world, true);
    for _ in 0..8 {
        check_all(&mut node, partition);
        node.pass(Nanos::from_millis(1_000));
    }
    let mapped = node.shard().mapped_bytes();
    assert!(mapped > (VALUES * VALUE_BYTES) as usize / 2, "{mapped} bytes are mapped");
    let before = Some(Offset(VALUES / 2));
    assert!(matches!(node.ask(Request::TrimLog { partition, before }), Reply::Trimmed(_)));
    node.pass(Nanos::from_millis(200_000));
    let read = node.ask(Request::Read { partition, offset: Offset(0), max_bytes: 1 << 20 });
    assert!(matches!(read, Reply::Refused(_)), "{read:?}");
    assert!(node.shard().mapped_bytes() < mapped);
    let deleted = node.ask(Request::DeleteTopic(partition.topic));
    assert!(!matches!(deleted, Reply::Refused(_)), "{deleted:?}");
    node.pass(Nanos::from_millis(1_000));
    assert_eq!(node.shard().mapped_bytes(), 0);
}
