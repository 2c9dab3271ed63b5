//! Readers that do not read: what they keep of the shard's memory, and what they get in the end.

use std::rc::Rc;

use millstream_engine::buffer::Slice;
use millstream_engine::config::{Config, QueueSettings, TopicConfig};
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::World;
use millstream_engine::limits::{JOURNAL_SLAB_BYTES, READ_CHUNK_BYTES};
use millstream_engine::reactor::app::AppToken;
use millstream_engine::shard::controller::CONTROLLER;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Durability, Offset, PartitionId, ShardId};
use millstream_tests::queues;
use millstream_tests::sim::canary::{Cage, Canary};
use millstream_tests::sim::node::SimNode;
use millstream_tests::solo::{Solo, config};

const VALUE_BYTES: usize = 900_000;
/// Slow readers, each of the newest batch at its time; together they would keep more slabs than there are.
const READERS: u64 = 8;
const APPENDS_PER_READER: u64 = 5;

fn value(offset: u64) -> Vec<u8> {
    (0..VALUE_BYTES as u64).map(|at| (at / 251 + at + offset) as u8).collect()
}

#[test]
fn slow_readers_keep_no_slab_while_appends_go_on() {
    let world = World::new(5, Faults { window_bytes: 1_000, ..Faults::default() });
    let config = Config { pinned_bytes: 8 << 20, ..config() };
    let room = config.pinned_bytes as usize;
    let mut node = Solo::start(&world, config).expect("the disk is empty");
    let topic = node.create("t", 1, TopicConfig::default());
    let partition = PartitionId { topic, index: 0 };
    let mut readers = Vec::new();
    for reader in 0..READERS {
        for step in 0..APPENDS_PER_READER {
            node.append(partition, &value(reader * APPENDS_PER_READER + step));
        }
        let (conn, peer) = node.connect();
        peer.pause_reading(true);
        let offset = Offset((reader + 1) * APPENDS_PER_READER - 1);
        let Reply::Read(read) = node.ask(Request::Read { partition, offset, max_bytes: 1 }) else {
            panic!("what was appended can be read")
        };
        let sent: Vec<u8> = read.chunk.bytes.iter().flat_map(|slice| slice.to_vec()).collect();
        node.send(conn, read.chunk.bytes);
        readers.push((peer, sent));
    }
    let memory = node.shard().memory();
    assert!(memory["tail"] > 3 * JOURNAL_SLAB_BYTES, "the readers keep slabs at first: {memory:?}");
    node.pass(Nanos::from_millis(300));
    let memory = node.shard().memory();
    assert!(memory["slow"] > 0 && memory["slow"] <= room, "{memory:?}");
    for offset in 0..READERS * APPENDS_PER_READER {
        node.append(partition, &value(offset));
    }
    let memory = node.shard().memory();
    assert!(memory["tail"] <= 3 * JOURNAL_SLAB_BYTES, "slow readers keep slabs: {memory:?}");
    for (peer, sent) in readers {
        peer.pause_reading(false);
        node.pass(Nanos::from_millis(3_000));
        assert!(peer.received() == sent, "bytes were lost or mixed up");
    }
    assert_eq!(node.shard().memory()["slow"], 0);
}

#[test]
fn a_read_that_waits_for_memory_gets_it_from_those_who_take_nothing_and_opens_no_files_meanwhile() {
    let world = World::new(6, Faults { window_bytes: 1_000, ..Faults::default() });
    let mut node = Solo::start(&world, config()).expect("the disk is empty");
    let settings = || TopicConfig { segment_bytes: 2 << 20, ..TopicConfig::default() };
    let [read, unread] = ["read", "unread"].map(|name| node.create(name, 1, settings()));
    let [read, unread] = [read, unread].map(|topic| PartitionId { topic, index: 0 });
    for offset in 0..90 {
        // Small enough that nothing is read ahead.
        for partition in [unread, read] {
            node.append(partition, &value(offset)[..200_000]);
        }
    }
    node.pass(Nanos::from_millis(1_000));
    // The beginning of one log over and over, for somebody who takes nothing, until there is no memory left to read into.
    let (conn, peer) = node.connect();
    peer.pause_reading(true);
    let mut slices = Vec::new();
    let limit = 64 * READ_CHUNK_BYTES;
    while node.shard().memory()["read"] < limit {
        let request = Request::Read { partition: read, offset: Offset(0), max_bytes: 1 };
        let Reply::Read(reply) = node.ask(request) else { panic!("there is memory: {slices:?}") };
        slices.extend(reply.chunk.bytes);
    }
    node.send(conn, slices);
    // Nothing of the other log's files is known yet.
    let opened = || world.trace().matches(" Open logs/unread").count();
    let before = opened();
    node.begin(Request::Read { partition: unread, offset: Offset(0), max_bytes: 1 });
    node.pass(Nanos::from_millis(1_000));
    assert!(node.shard().is_starved(), "nobody is told that memory is short");
    let opened = opened() - before;
    assert!(opened < 10, "{opened} times a file is opened while it waits");
    let Some(Reply::Read(reply)) = node.answer() else { panic!("it is read in the end") };
    assert!(!reply.chunk.bytes.is_empty());
}

#[test]
fn a_queue_whose_messages_wait_for_memory_to_be_read_back_into_gets_it_from_those_who_take_nothing() {
    let world = World::new(8, Faults { window_bytes: 1_000, ..Faults::default() });
    let mut node = Solo::start(&world, config()).expect("the disk is empty");
    let settings = || TopicConfig { segment_bytes: 2 << 20, ..TopicConfig::default() };
    let partition = PartitionId { topic: node.create("read", 1, settings()), index: 0 };
    let queue = queues::create(&mut node, "q", true, QueueSettings::default());
    for offset in 0..60 {
        queues::publish(&mut node, &[queue], vec![queues::message(&value(offset)[..200_000], true)]);
        node.append(partition, &value(offset)[..200_000]);
    }
    node.pass(Nanos::from_millis(1_000));
    let (conn, peer) = node.connect();
    peer.pause_reading(true);
    let mut slices = Vec::new();
    while node.shard().memory()["read"] < 64 * READ_CHUNK_BYTES {
        let request = Request::Read { partition, offset: Offset(0), max_bytes: 1 };
        let Reply::Read(reply) = node.ask(request) else { panic!("there is memory") };
        slices.extend(reply.chunk.bytes);
    }
    node.send(conn, slices);
    queues::consume(&mut node, queue, 1, queues::PLENTY);
    node.pass(Nanos::from_millis(1_000));
    assert!(node.shard().is_starved(), "nobody is told that memory is short");
    let before = queues::delivered(&mut node).len();
    node.pass(Nanos::from_millis(5_000));
    assert!(before + queues::delivered(&mut node).len() == 60, "what is read back is delivered in the end");
}

/// Asks a shard one thing, in the name of another.
fn ask(node: &mut SimNode, from: ShardId, to: ShardId, request: Request) -> Option<Reply> {
    let wire = Rc::clone(&node.wires[usize::from(from.0)]);
    wire.borrow_mut().requests.push_back((AppToken(1), to, request));
    for _ in 0..100_000 {
        if let Some((_, reply)) = wire.borrow_mut().replies.pop_front() {
            return Some(reply);
        }
        node.step();
    }
    None
}

#[test]
fn a_read_that_waits_for_memory_gets_it_from_those_who_take_nothing_on_another_shard() {
    let world = World::new(7, Faults { window_bytes: 1_000, ..Faults::default() });
    let config = Config { shards: 2, journal_bytes: 8 << 20, ..config() };
    let mut node = SimNode::start(&world, &config, &Cage::new(Canary::None), 7).expect("the disk is empty");
    let address = node.listen();
    let create = Request::CreateTopic { name: "t".to_owned(), partitions: Some(1), settings: Vec::new() };
    let Some(Reply::TopicCreated(topic)) = ask(&mut node, CONTROLLER, CONTROLLER, create) else {
        panic!("there is no such topic")
    };
    let partition = PartitionId { topic, index: 0 };
    let owner = node.metadata(CONTROLLER).shard_of(partition).expect("it is there");
    let other = ShardId(1 - owner.0);
    for offset in 0..180 {
        let batch = BatchBuilder::new(1).push(None, Some(&value(offset)[..200_000])).build();
        let append =
            Request::Append { partition, batch: Slice::from(batch), durability: Durability::Durable };
        assert!(matches!(ask(&mut node, other, owner, append), Some(Reply::Appended(_))));
    }
    let mut peers = Vec::new();
    while node.wires[usize::from(other.0)].borrow().connections.is_empty() {
        let peer = world.connect(address);
        peer.pause_reading(true);
        peers.push(peer);
        let until = world.now() + Nanos::from_millis(100);
        while world.now() < until {
            node.step();
        }
    }
    let first = || Request::Read { partition, offset: Offset(0), max_bytes: 1 };
    let mut slices = Vec::new();
    while node.shard(owner).memory()["read"] < 64 * READ_CHUNK_BYTES {
        let Some(Reply::Read(read)) = ask(&mut node, other, owner, first()) else {
            panic!("there is memory")
        };
        slices.extend(read.chunk.bytes);
    }
    let wire = Rc::clone(&node.wires[usize::from(other.0)]);
    let conn = wire.borrow().connections[0];
    wire.borrow_mut().sends.push_back((conn, slices));
    assert!(matches!(ask(&mut node, owner, owner, first()), Some(Reply::Read(_))), "it waits for good");
}
