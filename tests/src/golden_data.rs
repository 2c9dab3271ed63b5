//! The golden data directories: how they are made, and what is in them.

use millstream_engine::config::{QueueSettings, TopicConfig};
use millstream_engine::format::checkpoint::Checkpoint;
use millstream_engine::format::manifest::Manifest;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::shard::message::Verdict;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{PartitionId, QueueId};

use crate::image;
use crate::queues::{PLENTY, consume, create, delivered, message, publish, settle};
use crate::solo::{Solo, config};

/// Every golden directory.
pub const NAMES: [&str; 14] = [
    "sound",
    "stopped",
    "trimmed",
    "torn-tail",
    "rotten-group",
    "rotten-segment",
    "rotten-carry",
    "missing-file",
    "rotten-checkpoint",
    "rotten-metadata",
    "newer",
    "queues",
    "rotten-messages",
    "missing-messages",
];

/// The journal file that the records lie in.
pub const JOURNAL: &str = "shards/1-0/journal/0000.journal";
/// The shard's checkpoint.
pub const CHECKPOINT: &str = "shards/1-0/checkpoint";
/// The file of a sealed segment of partition 0.
pub const SEGMENT: &str = "logs/orders-0/00000000000000000000.log";
/// Records in each partition of `orders`, in all directories but the torn one.
pub const RECORDS: usize = 24;

/// The value of a partition's record.
pub fn value(partition: u32, number: usize) -> Vec<u8> {
    let mut value = format!("order {number} of partition {partition}, ").into_bytes();
    value.resize(400 + number, b'.');
    value
}

/// The open segment of the topic `large`, which is longer than the journal: it is in directories that were trimmed.
pub const LARGE: &str = "logs/large-0/00000000000000000000.log";
/// Records in it.
pub const LARGE_RECORDS: usize = 60;

/// The value of one of its records: mostly zeros, which take no room in an image.
pub fn large_value(number: usize) -> Vec<u8> {
    let mut value = format!("large {number}, ").into_bytes();
    value.resize(100_000 + number, 0);
    value.extend_from_slice(b" end");
    value
}

/// Whether the journal was trimmed, and the topic `large` is there.
fn is_trimmed(name: &str) -> bool {
    ["trimmed", "rotten-carry"].contains(&name)
}

/// The directory of messages that have outlived their place in the journal.
pub const MESSAGES: &str = "shards/1-0/messages";
/// Messages of the queue `work`.
pub const WORK: usize = 24;

/// Whether there is a queue, most of whose messages are in such a file.
fn has_queue(name: &str) -> bool {
    ["queues", "rotten-messages", "missing-messages"].contains(&name)
}

/// Whether a message of the queue was settled.
pub fn is_settled(number: usize) -> bool {
    number.is_multiple_of(3)
}

/// A message's body: mostly zeros. One is too large for one record.
pub fn body(number: usize) -> Vec<u8> {
    let mut body = format!("work {number}, ").into_bytes();
    body.resize(if number == 4 { 700_000 } else { 50_000 + number }, 0);
    body
}

/// Publishes messages, and settles some. The last ones come `late`.
fn work(node: &mut Solo, queue: QueueId, late: bool) {
    let numbers = if late { WORK - 4..WORK } else { 0..WORK - 4 };
    for number in numbers.clone() {
        publish(node, &[queue], vec![message(&body(number), true)]);
    }
    node.pass(Nanos::from_millis(100));
    for (number, delivery) in numbers.zip(delivered(node)) {
        assert!(delivery.body[..] == body(number), "they come in order");
        if is_settled(number) {
            settle(node, queue, 1, delivery.seq, Verdict::Ack, true);
        }
    }
}

/// The file of messages.
pub fn messages_file(world: &World) -> String {
    let files = world.list_all().into_iter();
    files.filter(|path| path.ends_with(".messages")).min().expect("messages have outlived their place")
}

/// What the last, torn record held.
pub fn last_value() -> Vec<u8> {
    vec![b'!'; 10_000]
}

/// Makes one with the real engine, and damages it.
pub fn make(name: &str) -> World {
    let world = World::new(7, Faults::default());
    let mut node = Solo::start(&world, config()).expect("an empty disk is a fresh node");
    let topic = TopicConfig { segment_bytes: 3_000, ..TopicConfig::default() };
    let orders = node.create("orders", 2, topic.clone());
    let gone = node.create("gone", 1, topic);
    node.append(PartitionId { topic: gone, index: 0 }, b"of a topic that is deleted");
    for number in 0..RECORDS {
        if number == RECORDS / 2 {
            // Sealed segments go to their files, and a checkpoint is taken.
            node.pass(Nanos::from_millis(5_000));
            let deleted = node.ask(Request::DeleteTopic(gone));
            assert!(matches!(deleted, Reply::Done), "{deleted:?}");
        }
        for index in 0..2 {
            node.append(PartitionId { topic: orders, index }, &value(index, number));
        }
    }
    let queue = has_queue(name).then(|| create(&mut node, "work", true, QueueSettings::default()));
    if let Some(queue) = queue {
        consume(&mut node, queue, 1, PLENTY);
        work(&mut node, queue, false);
    }
    if is_trimmed(name) {
        let large = PartitionId { topic: node.create("large", 1, TopicConfig::default()), index: 0 };
        for number in 0..LARGE_RECORDS {
            node.append(large, &large_value(number));
        }
    }
    if let Some(queue) = queue {
        // More than the journal holds, so that what is left of the queue moves to a file of its own.
        let large = PartitionId { topic: node.create("large", 1, TopicConfig::default()), index: 0 };
        for number in 0..8 {
            node.append(large, &[vec![number], vec![0; 900_000]].concat());
        }
        node.pass(Nanos::from_millis(5_000));
        work(&mut node, queue, true);
    }
    if name == "stopped" {
        node.stop().expect("it stops in good order");
        return world;
    }
    if name == "torn-tail" {
        node.append(PartitionId { topic: orders, index: 1 }, &last_value());
    }
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    damage(&world, name);
    world
}

/// Does what the directory is named after.
fn damage(world: &World, name: &str) {
    match name {
        "sound" | "trimmed" | "queues" => {}
        "rotten-messages" => world.rot(&messages_file(world), 2 * 4096 + 77, 3),
        "missing-messages" => lose(world, &messages_file(world)),
        // The last block that the checkpoint vouches for holds the start of a batch whose rest was carried in the journal.
        "rotten-carry" => {
            let checkpoint = world.read_file(CHECKPOINT).expect("one was taken");
            let checkpoint = Checkpoint::decode(&checkpoint).expect("it is sound");
            let mut segments = checkpoint.partitions.iter().flat_map(|state| &state.segments);
            let large = segments.find(|segment| segment.size > 1 << 20).expect("it was drained");
            world.rot(LARGE, u64::from(large.flushed) - 1, 2);
        }
        // The last group's second block never made it to the disk.
        "torn-tail" => {
            let mut bytes = world.read_file(JOURNAL).expect("it is there");
            let last = bytes.iter().rposition(|byte| *byte != 0).expect("it was written");
            let block = last / 4096;
            bytes[(block - 1) * 4096..block * 4096].fill(0);
            world.write_file(JOURNAL, &bytes);
        }
        "rotten-group" => world.rot(JOURNAL, 30 * 4096 + 200, 3),
        "rotten-segment" => world.rot(SEGMENT, 700, 0),
        "missing-file" => lose(world, SEGMENT),
        "rotten-checkpoint" => world.rot(CHECKPOINT, 100, 5),
        "rotten-metadata" => world.rot("metadata/log", 30, 1),
        "newer" => {
            let manifest = world.read_file("manifest").expect("it is there");
            let manifest = Manifest::decode(&manifest).expect("it is sound");
            let newer = Manifest { format_version: 99, ..manifest };
            world.write_file("manifest", &newer.encode());
        }
        other => panic!("nobody knows how to make {other}"),
    }
}

/// Loses a file, by way of a world of its own: a disk has no way to lose one behind the engine's back.
fn lose(world: &World, file: &str) {
    let other = World::new(8, Faults::default());
    for path in world.list_all().into_iter().filter(|path| path != file) {
        other.write_file(&path, &world.read_file(&path).expect("it was listed"));
    }
    world.restore_disk(other.snapshot_disk());
}

/// The world of a stored image.
pub fn open(image: &[u8]) -> World {
    let world = World::new(9, Faults::default());
    image::load(&world, image).expect("it is an image");
    world
}
