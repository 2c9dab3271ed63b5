//! Partitions that Apache Kafka 4.3 wrote, kept in `tests/golden/kafka/`, become partitions of a data directory: the same batches
//! at the same offsets, whatever crash comes in between.
#![allow(clippy::disallowed_methods, reason = "a test reads the files of its own repository")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream_engine::buffer::Pool;
use millstream_engine::config::TopicConfig;
use millstream_engine::error::Fatal;
use millstream_engine::format::batch::{BatchHeader, check as check_batch, stamp};
use millstream_engine::inspect::{Detail, check, salvage};
use millstream_engine::io::Blocking;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::World;
use millstream_engine::reactor::import::{Imported, Source, import};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::{LeaderEpoch, Offset, PartitionId, ShardId};
use millstream_tests::crash::{at_every_crash_point, for_every_subset};
use millstream_tests::solo::{Solo, config};

/// The directories, and how many batches each holds.
const SOUND: (&str, usize) = ("sound-0", 7);
const COMPACTED: &str = "compacted-0";

fn golden() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/kafka"))
}

/// The golden directories' files, by path.
fn files(directory: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(golden().join(directory)).expect("the golden directory is there");
    entries
        .map(|entry| {
            let entry = entry.expect("it can be listed");
            let name = entry.file_name().into_string().expect("names are text");
            (format!("{directory}/{name}"), std::fs::read(entry.path()).expect("it can be read"))
        })
        .collect()
}

/// A disk with what was copied from a broker.
fn copied(directory: &str) -> World {
    let kafka = World::new(5, Faults::default());
    for (path, bytes) in files(directory) {
        kafka.write_file(&path, &bytes);
    }
    kafka
}

fn empty() -> World {
    World::new(6, Faults::default())
}

/// Imports a directory as partition 0 of the topic `moved`.
fn run(kafka: &World, directory: &str, world: &World) -> Result<Vec<Imported>, Fatal> {
    let (mut io, mut from) = (world.io(ShardId(0)), kafka.io(ShardId(0)));
    let mut disk = Blocking::new(&mut from, Pool::new(64 << 20));
    let mut sources =
        [Source { index: 0, name: directory.to_owned(), label: directory.to_owned(), disk: &mut disk }];
    import(&mut io, &config(), &Pool::new(64 << 20), "moved", &mut sources)
}

/// The batches of a golden directory as they must be here: in order, and of this cluster's first leader epoch.
fn batches(directory: &str) -> Vec<Vec<u8>> {
    let logs = files(directory).into_iter().filter(|(path, _)| path.ends_with(".log"));
    logs.flat_map(|(_, bytes)| split(&bytes)).collect()
}

fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut batches = Vec::new();
    while let Ok(header) = BatchHeader::parse(bytes) {
        let mut batch = bytes.split_off(..header.size).expect("it is whole").to_vec();
        check_batch(&batch).expect("it is sound");
        stamp(&mut batch, header.base_offset, LeaderEpoch(0));
        batches.push(batch);
    }
    batches
}

/// Every batch that a consumer gets who starts at `offset`, by reads that hold one batch each.
fn consumed(node: &mut Solo, mut offset: Offset) -> Vec<Vec<u8>> {
    let partition = PartitionId { topic: node.topic("moved"), index: 0 };
    let mut batches = Vec::new();
    loop {
        let read = match node.ask(Request::Read { partition, offset, max_bytes: 1 }) {
            Reply::Read(read) => read,
            other => panic!("{other:?}"),
        };
        let bytes: Vec<u8> = read.chunk.bytes.iter().flat_map(|slice| slice.to_vec()).collect();
        let found = split(&bytes);
        let Some(last) = found.last() else { return batches };
        offset = BatchHeader::parse(last).expect("it was parsed before").next_offset();
        batches.extend(found);
    }
}

fn damaged(world: &World) -> u64 {
    let mut io = world.io(ShardId(0));
    let mut disk = Blocking::new(&mut io, Pool::new(256 << 20));
    check(&mut disk, "", Detail::Files, &mut |_| {}).expect("it can be looked at").damaged
}

#[test]
fn every_batch_is_there_at_its_offset_and_the_log_goes_on_behind_it() {
    let (kafka, world) = (copied(SOUND.0), empty());
    let imported = run(&kafka, SOUND.0, &world).expect("it is sound");
    assert_eq!(imported[0].copied.batches, SOUND.1 as u64);
    assert_eq!(damaged(&world), 0);

    let mut node = Solo::start(&world, config()).expect("it starts");
    let batches = batches(SOUND.0);
    assert_eq!(batches.len(), SOUND.1);
    assert_eq!(consumed(&mut node, Offset(0)), batches);
    // A committed transaction's marker has the last offset.
    let partition = PartitionId { topic: node.topic("moved"), index: 0 };
    assert_eq!(node.append(partition, b"new"), Offset(17));
    assert_eq!(consumed(&mut node, Offset(0)).len(), batches.len() + 1);
}

#[test]
fn a_compacted_log_keeps_its_gaps_and_a_consumer_passes_over_them() {
    // The last batch of the first segment goes too, so that there is a gap before the next one.
    let (kafka, world) = (copied(COMPACTED), empty());
    let first = format!("{COMPACTED}/00000000000000000000.log");
    let bytes = kafka.read_file(&first).expect("it is there");
    let kept = split(&bytes);
    let end: usize = kept[..kept.len() - 1].iter().map(Vec::len).sum();
    kafka.write_file(&first, &bytes[..end]);
    run(&kafka, COMPACTED, &world).expect("it is sound");
    assert_eq!(damaged(&world), 0);

    let mut expected = batches(COMPACTED);
    expected.remove(kept.len() - 1);
    let mut node = Solo::start(&world, config()).expect("it starts");
    let partition = PartitionId { topic: node.topic("moved"), index: 0 };
    // The tail holds something, so that a reader at the gap could be sent there.
    node.append(partition, b"new");
    let found = consumed(&mut node, Offset(0));
    assert_eq!(found[..expected.len()], expected);
    assert_eq!(found.len(), expected.len() + 1);
    let at_gap = consumed(&mut node, Offset(49));
    assert_eq!(at_gap, found[kept.len() - 1..]);
}

#[test]
fn a_salvage_knows_gaps_of_compaction_from_what_is_lost() {
    let (kafka, world) = (copied(COMPACTED), empty());
    let first = format!("{COMPACTED}/00000000000000000000.log");
    let bytes = kafka.read_file(&first).expect("it is there");
    let kept = split(&bytes);
    let end: usize = kept[..kept.len() - 1].iter().map(Vec::len).sum();
    kafka.write_file(&first, &bytes[..end]);
    run(&kafka, COMPACTED, &world).expect("it is sound");
    let saved = |world: &World| {
        let mut said = String::new();
        let to = empty();
        let (mut from, mut into) = (world.io(ShardId(0)), to.io(ShardId(0)));
        let mut from = Blocking::new(&mut from, Pool::new(64 << 20));
        let mut into = Blocking::new(&mut into, Pool::new(64 << 20));
        let saved = salvage(&mut from, "", &mut into, "saved", &mut |line| said = format!("{said}{line}\n"));
        (saved.expect("it works"), said)
    };
    let (sound, said) = saved(&world);
    let held: u64 = batches(COMPACTED).iter().map(|batch| held_offsets(batch)).sum::<u64>()
        - held_offsets(&kept[kept.len() - 1]);
    let next = {
        let last = batches(COMPACTED).pop().expect("there are some");
        BatchHeader::parse(&last).expect("it was parsed before").next_offset().0
    };
    assert_eq!((sound.lost, sound.empty), (0, next - held), "{said}");
    assert!(said.contains("hold nothing"), "{said}");
    // A batch that is damaged is lost, and what is between its neighbours cannot be told.
    let second = split(&bytes)[0].len() as u64;
    world.rot("logs/moved-0/00000000000000000000.log", second + 70, 3);
    let (damaged, said) = saved(&world);
    assert!(damaged.lost > 0 && damaged.empty < sound.empty, "{said}");
    assert_eq!(damaged.lost + damaged.empty, sound.empty + held_offsets(&kept[1]), "{said}");
    // So is a segment that is gone.
    let mut io = world.io(ShardId(0));
    let gone = Blocking::new(&mut io, Pool::new(64 << 20)).unlink("logs/moved-0/00000000000000000050.log");
    gone.expect("it was there");
    let (gone, said) = saved(&world);
    assert!(gone.lost > damaged.lost, "{said}");
}

/// How many offsets a batch has.
fn held_offsets(batch: &[u8]) -> u64 {
    u64::from(BatchHeader::parse(batch).expect("it was parsed before").last_offset_delta) + 1
}

#[test]
fn a_consumer_who_has_read_everything_before_a_gap_at_the_end_waits() {
    let (kafka, world) = (copied(SOUND.0), empty());
    kafka.write_file(&format!("{}/00000000000000000020.log", SOUND.0), &[]);
    let imported = run(&kafka, SOUND.0, &world).expect("it is sound");
    assert_eq!(imported[0].copied.next_offset, Offset(20));
    let mut node = Solo::start(&world, config()).expect("it starts");
    assert_eq!(consumed(&mut node, Offset(17)), Vec::<Vec<u8>>::new());
    let partition = PartitionId { topic: node.topic("moved"), index: 0 };
    assert_eq!(node.append(partition, b"new"), Offset(20));
    assert_eq!(consumed(&mut node, Offset(17)).len(), 1);
}

#[test]
fn what_was_deleted_by_request_stays_deleted() {
    let (kafka, world) = (copied(SOUND.0), empty());
    kafka.write_file("log-start-offset-checkpoint", b"0\n2\nother-thing 0 9\nsound 0 8\n");
    let imported = run(&kafka, SOUND.0, &world).expect("it is sound");
    assert_eq!(imported[0].copied.log_start, Offset(8));
    let mut node = Solo::start(&world, config()).expect("it starts");
    assert_eq!(consumed(&mut node, Offset(8)), batches(SOUND.0)[2..]);
}

#[test]
fn a_damaged_batch_is_refused_by_its_file_and_byte_and_leaves_nothing() {
    let (kafka, world) = (copied(SOUND.0), empty());
    let path = format!("{}/00000000000000000006.log", SOUND.0);
    let second = split(&kafka.read_file(&path).expect("it is there"))[0].len() as u64;
    kafka.rot(&path, second + 70, 3);
    match run(&kafka, SOUND.0, &world) {
        Err(Fatal::Corrupt { file, position, .. }) => {
            assert_eq!((&*file, position), ("sound-0/00000000000000000006.log", second));
        }
        other => panic!("{other:?}"),
    }
    assert!(!world.list_all().iter().any(|path| path.starts_with("logs/")));
    let node = Solo::start(&world, config()).expect("it starts");
    assert!(node.shard().metadata().topic("moved").is_none());
}

#[test]
fn a_batch_that_is_cut_off_is_refused() {
    let (kafka, world) = (copied(SOUND.0), empty());
    let path = format!("{}/00000000000000000012.log", SOUND.0);
    let bytes = kafka.read_file(&path).expect("it is there");
    kafka.write_file(&path, &bytes[..bytes.len() - 1]);
    assert!(matches!(run(&kafka, SOUND.0, &world), Err(Fatal::Corrupt { .. })));
}

#[test]
fn a_transaction_that_is_not_over_is_refused() {
    match run(&copied("unfinished-0"), "unfinished-0", &empty()) {
        Err(Fatal::Refused(what)) => {
            assert!(what.contains("not over") && what.contains(".log, byte 0"), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_aborted_is_left_out_and_all_else_keeps_its_offset() {
    let (kafka, world) = (copied("aborted-0"), empty());
    let imported = run(&kafka, "aborted-0", &world).expect("every transaction is over");
    let all = batches("aborted-0");
    let kept = [all[1].clone()];
    let marker = BatchHeader::parse(&kept[0]).expect("it was parsed before");
    assert!(marker.attributes.control() && marker.base_offset == Offset(1) && all.len() == 2);
    let copied = &imported[0].copied;
    assert_eq!((copied.batches, copied.aborted, copied.log_start), (1, 1, Offset(0)));
    assert_eq!(damaged(&world), 0);
    let mut node = Solo::start(&world, config()).expect("it starts");
    assert_eq!(consumed(&mut node, Offset(0)), kept);
}

#[test]
fn a_topic_that_is_there_takes_a_partition_only_if_nothing_was_written_to_it() {
    let (kafka, world) = (copied(SOUND.0), empty());
    let mut node = Solo::start(&world, config()).expect("it starts");
    let topic = node.create("moved", 2, TopicConfig::default());
    node.append(PartitionId { topic, index: 1 }, b"a neighbour");
    node.stop().expect("it stops");
    run(&kafka, SOUND.0, &world).expect("nothing was written to partition 0");
    assert!(matches!(run(&kafka, SOUND.0, &world), Err(Fatal::Refused(_))));

    let mut node = Solo::start(&world, config()).expect("it starts");
    assert_eq!(consumed(&mut node, Offset(0)), batches(SOUND.0));
    assert_eq!(
        node.read_all(PartitionId { topic, index: 1 }).expect("it can be read"),
        [b"a neighbour".to_vec()]
    );
}

#[test]
fn a_crash_leaves_all_of_a_partition_or_nothing_and_the_import_can_be_run_again() {
    let expected = batches(SOUND.0);
    let (mut none, mut all) = (0, 0);
    let seen = std::cell::RefCell::new((&mut none, &mut all));
    let kafka = copied(SOUND.0);
    let run_once = |world: &World| {
        assert_eq!(run(&kafka, SOUND.0, world).is_err(), world.halted());
    };
    at_every_crash_point(empty, run_once, |world, point| {
        for_every_subset(&world.snapshot_disk(), 2, point, |world| {
            let mut node = Solo::start(world, config()).expect("it starts");
            let is_there = node.shard().metadata().topic("moved").is_some();
            let found = if is_there { consumed(&mut node, Offset(0)) } else { Vec::new() };
            node.stop().expect("it stops");
            let mut seen = seen.borrow_mut();
            if found.is_empty() {
                *seen.0 += 1;
                run(&kafka, SOUND.0, world).expect("it can be run again");
                let mut node = Solo::start(world, config()).expect("it starts");
                assert_eq!(consumed(&mut node, Offset(0)), expected);
            } else {
                *seen.1 += 1;
                assert_eq!(found, expected);
            }
        });
    });
    assert!(none > 0 && all > 0, "{none} times nothing, {all} times everything");
}
