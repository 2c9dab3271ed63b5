//! The golden data directories: how they are made, and what is in them.

use millstream_engine::config::TopicConfig;
use millstream_engine::format::checkpoint::Checkpoint;
use millstream_engine::format::manifest::Manifest;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::PartitionId;

use crate::image;
use crate::solo::{Solo, config};

/// Every golden directory.
pub const NAMES: [&str; 11] = [
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
    if is_trimmed(name) {
        let large = PartitionId { topic: node.create("large", 1, TopicConfig::default()), index: 0 };
        for number in 0..LARGE_RECORDS {
            node.append(large, &large_value(number));
        }
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
        "sound" | "trimmed" => {}
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
        "missing-file" => {
            // Into a world of its own: a disk has no way to lose a file behind the engine's back.
            let other = World::new(8, Faults::default());
            for path in world.list_all().into_iter().filter(|path| path != SEGMENT) {
                other.write_file(&path, &world.read_file(&path).expect("it was listed"));
            }
            world.restore_disk(other.snapshot_disk());
        }
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

/// The world of a stored image.
pub fn open(image: &[u8]) -> World {
    let world = World::new(9, Faults::default());
    image::load(&world, image).expect("it is an image");
    world
}
