//! What is left of a deleted topic: its deletion is remembered as long as a journal, a checkpoint or a directory has anything of
//! it, and not longer; and a full disk does not stand in its way. The metadata log, in which all of this is, stays short.

use std::cell::RefCell;

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::error::Refusal;
use millstream_engine::format::metadata::{MetadataRecord, scan};
use millstream_engine::io::fault::Faults;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{PartitionId, TopicId};
use millstream_tests::crash::{at_every_crash_point, at_every_nth_crash_point};
use millstream_tests::solo::{self, Solo};

/// Bytes of the metadata log: eight small changes, of which two are for deletions.
const LOG_BYTES: u64 = 32 << 10;
/// In which a deletion is forgotten although nothing else happens.
const LONG: Nanos = Nanos::from_millis(16_000);
/// Of the points of the longest story, every so many-th.
const STRIDE: usize = 4;

fn config() -> Config {
    Config { metadata_log_bytes: LOG_BYTES, retention_check_ms: 100, delete_delay_ms: 100, ..solo::config() }
}

fn start(world: &World) -> Solo {
    Solo::start(world, config()).unwrap_or_else(|fatal| panic!("it does not start: {fatal}"))
}

fn delete(node: &mut Solo, topic: TopicId) {
    let reply = node.ask(Request::DeleteTopic(topic));
    assert!(matches!(reply, Reply::Done), "{reply:?}");
}

fn remembered(node: &Solo) -> usize {
    node.shard().metadata().deleted.len()
}

/// Another world on what a crash leaves of this one.
fn crashed(world: &World, crash: Crash, seed: u64) -> World {
    let mut disk = world.snapshot_disk();
    disk.crash(crash, &mut Random::stream(seed, "crash"));
    World::from_disk(seed, disk, Faults::default())
}

/// What the snapshot and the log say, one behind the other.
fn metadata_on_disk(world: &World) -> Vec<MetadataRecord> {
    let read = |path| world.read_file(path).unwrap_or_default();
    let frames = [scan(&read("metadata/snapshot"), 0), scan(&read("metadata/log"), 0)];
    frames.into_iter().flat_map(|scan| scan.frames).flat_map(|(_, records)| records).collect()
}

#[test]
fn a_deletion_is_forgotten_when_nothing_is_left_of_the_topic_and_not_before() {
    let world = World::new(7, Faults::default());
    let mut node = start(&world);
    let kept = node.create("kept", 1, TopicConfig::default());
    let gone = node.create("gone", 1, TopicConfig::default());
    node.append(PartitionId { topic: kept, index: 0 }, b"kept");
    node.append(PartitionId { topic: gone, index: 0 }, b"gone");
    delete(&mut node, gone);
    node.pass(Nanos::from_millis(300));
    assert_eq!(remembered(&node), 1, "the journal still has its record");
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    let mut node = start(&world);
    assert_eq!(remembered(&node), 1, "the journal still has its record");
    node.pass(LONG);
    assert_eq!(remembered(&node), 0);
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    let mut node = start(&world);
    assert_eq!(remembered(&node), 0);
    assert_eq!(metadata_on_disk(&world).len(), 1, "{:?}", metadata_on_disk(&world));
    assert_eq!(node.read_all(PartitionId { topic: kept, index: 0 }).expect("it is there"), [b"kept"]);
}

#[test]
fn a_crash_at_any_point_of_forgetting_leaves_a_directory_that_opens() {
    let set_up = || {
        let world = World::new(7, Faults::default());
        let mut node = start(&world);
        // The topic's segments are in files, in the checkpoint, and in the journal.
        let small = TopicConfig { segment_bytes: 3_000, ..TopicConfig::default() };
        for name in ["kept", "gone"] {
            let topic = node.create(name, 1, small.clone());
            for number in 0..12 {
                node.append(PartitionId { topic, index: 0 }, &[number; 1_000]);
            }
        }
        node.pass(Nanos::from_millis(2_500));
        for name in ["gone", "kept"] {
            let topic = node.topic(name);
            node.append(PartitionId { topic, index: 0 }, b"behind the checkpoint");
        }
        node.stop().expect("it ends in good order");
        world.crash(Crash::Power(Survivors::None));
        world
    };
    let forgotten = RefCell::new(0);
    let run = |world: &World| {
        let Ok(mut node) = Solo::start(world, config()) else { return };
        let topic = node.topic("gone");
        node.try_ask(Request::DeleteTopic(topic));
        node.pass(LONG);
        if !world.halted() {
            *forgotten.borrow_mut() += usize::from(remembered(&node) == 0);
        }
    };
    let disk = set_up().snapshot_disk();
    let set_up = || World::from_disk(7, disk.clone(), Faults::default());
    let points = at_every_nth_crash_point(STRIDE, set_up, run, |world, point| {
        for crash in [Crash::Kill, Crash::Power(Survivors::None), Crash::Power(Survivors::Some)] {
            let world = crashed(world, crash, point);
            let mut node = start(&world);
            let kept = PartitionId { topic: node.topic("kept"), index: 0 };
            assert_eq!(node.read_all(kept).expect("it is there").len(), 13, "point {point}, {crash:?}");
            // Whatever was forgotten, nobody takes what is left for another topic's.
            if node.shard().metadata().topic("gone").is_none() {
                let again = node.create("gone", 1, TopicConfig::default());
                let read = node.read_all(PartitionId { topic: again, index: 0 });
                assert_eq!(read.expect("it is there").len(), 0, "point {point}, {crash:?}");
                node.append(PartitionId { topic: again, index: 0 }, b"new");
            }
            node.pass(Nanos::from_millis(2_500));
            world.crash(Crash::Power(Survivors::None));
            drop(node);
            assert_eq!(start(&world).read_all(kept).expect("it is there").len(), 13, "point {point}");
            let foreign = world.list_all().into_iter().filter(|path| path.contains("-delete")).count();
            assert_eq!(foreign, 0, "point {point}, {crash:?}: {:?}", world.list_all());
        }
    });
    assert!(forgotten.into_inner() > 0 && points.count() > 50, "the run forgets it");
}

/// Stops all but what has its space already.
fn fill(world: &World) {
    let used =
        |path: &String| (world.read_file(path).unwrap_or_default().len() as u64).next_multiple_of(4096);
    let disk_bytes = world.list_all().iter().map(used).sum();
    world.set_faults(Faults { disk_bytes, ..Faults::default() });
}

#[test]
fn a_topic_can_be_deleted_on_a_full_disk_which_makes_room() {
    let world = World::new(7, Faults::default());
    let mut node = start(&world);
    let large = node.create("large", 1, TopicConfig { segment_bytes: 100_000, ..TopicConfig::default() });
    for _ in 0..20 {
        node.append(PartitionId { topic: large, index: 0 }, &vec![7; 60_000]);
    }
    node.pass(LONG);
    fill(&world);
    // Whatever else is wanted takes what is not kept back.
    let create = |node: &mut Solo, name: String| {
        node.ask(Request::CreateTopic { name, partitions: Some(1), settings: Vec::new() })
    };
    let mut made = 0;
    let refused = loop {
        match create(&mut node, format!("small-{made}")) {
            Reply::TopicCreated(_) => made += 1,
            other => break other,
        }
        assert!(made < 100, "the disk is not full");
    };
    assert!(matches!(refused, Reply::Refused(Refusal::DiskFull)), "{refused:?}");
    delete(&mut node, large);
    node.pass(LONG);
    let retried = create(&mut node, format!("small-{made}"));
    assert!(matches!(retried, Reply::TopicCreated(_)), "{retried:?}");
    let names: Vec<String> = node.shard().metadata().topics.keys().cloned().collect();
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    world.set_faults(Faults::default());
    let node = start(&world);
    assert!(node.shard().metadata().topics.keys().eq(names.iter()), "{names:?}");
    assert_eq!(names.len(), made + 1);
}

fn configure(node: &mut Solo, topic: TopicId, number: u64) -> Option<Reply> {
    let changes = vec![("segment.ms".to_owned(), Some(format!("{}", 1_000_000 + number)))];
    node.try_ask(Request::ConfigureTopic { topic, changes, replace: false })
}

fn configured(node: &Solo) -> i64 {
    node.shard().metadata().topic("t").expect("it is there").config.segment_ms
}

#[test]
fn the_metadata_log_stays_short_however_many_changes_there_are() {
    let world = World::new(7, Faults::default());
    let mut node = start(&world);
    let topic = node.create("t", 1, TopicConfig::default());
    for number in 0..100 {
        assert!(matches!(configure(&mut node, topic, number), Some(Reply::Done)));
        let len = world.read_file("metadata/log").expect("it is there").len() as u64;
        assert!(len <= LOG_BYTES, "{len} bytes after {number} changes");
    }
    // One that is larger than all of it, and another behind it.
    let settings: Vec<_> =
        (0..40).map(|number| (format!("of.the.host.{number}"), "x".repeat(2_000))).collect();
    let large = Request::CreateTopic { name: "large".to_owned(), partitions: Some(1), settings };
    assert!(matches!(node.ask(large), Reply::TopicCreated(_)));
    assert!(matches!(configure(&mut node, topic, 100), Some(Reply::Done)));
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    let node = start(&world);
    assert_eq!(configured(&node), 1_000_100);
    assert_eq!(node.shard().metadata().topic("large").expect("it is there").settings.len(), 40);
}

#[test]
fn a_crash_at_any_point_of_folding_the_metadata_log_loses_no_change() {
    let set_up = || {
        let world = World::new(7, Faults::default());
        let mut node = start(&world);
        node.create("t", 1, TopicConfig::default());
        node.stop().expect("it ends in good order");
        world
    };
    let answered = RefCell::new(0);
    let run = |world: &World| {
        *answered.borrow_mut() = 0;
        let Ok(mut node) = Solo::start(world, config()) else { return };
        let topic = node.topic("t");
        for number in 0..10 {
            let Some(reply) = configure(&mut node, topic, number) else { return };
            assert!(matches!(reply, Reply::Done), "{reply:?}");
            *answered.borrow_mut() = number;
        }
    };
    at_every_crash_point(set_up, run, |world, point| {
        for crash in [Crash::Kill, Crash::Power(Survivors::None), Crash::Power(Survivors::All)]
            .into_iter()
            .chain([Crash::Power(Survivors::Some); 5])
        {
            let world = crashed(world, crash, point);
            let mut node = start(&world);
            let answered = *answered.borrow();
            let found = configured(&node);
            assert!(
                answered == 0 || found >= 1_000_000 + answered as i64,
                "point {point}: {found}, not {answered}"
            );
            let topic = node.topic("t");
            for number in 20..30 {
                assert!(matches!(configure(&mut node, topic, number), Some(Reply::Done)));
            }
            world.crash(Crash::Power(Survivors::None));
            drop(node);
            assert_eq!(configured(&start(&world)), 1_000_029, "point {point}");
        }
    });
}

#[test]
fn a_fold_that_fails_leaves_the_log_as_it_was() {
    use millstream_engine::error::IoError;
    use millstream_engine::io::fault::{Injection, OpKind, Outcome};
    let fails = |op, path: &str, outcome| {
        let world = World::new(7, Faults::default());
        let mut node = start(&world);
        let topic = node.create("t", 1, TopicConfig::default());
        world.inject(Injection { op, path: path.to_owned(), skip: 0, outcome });
        let mut done = 0;
        for number in 0..20 {
            if let Some(Reply::Done) = configure(&mut node, topic, number) {
                done = number;
            }
        }
        drop(node);
        world.crash(Crash::Power(Survivors::None));
        assert_eq!(configured(&start(&world)), 1_000_000 + done as i64, "{op:?} of {path}");
        done
    };
    assert_eq!(fails(OpKind::Flush, "metadata/snapshot.new", Outcome::FlushFails), 19);
    assert_eq!(fails(OpKind::Rename, "metadata/snapshot.new", Outcome::Fails(IoError::Os(5))), 19);
    assert_eq!(fails(OpKind::SyncDir, "metadata", Outcome::Fails(IoError::Os(5))), 19);
    // Once it is not known what the log holds, nothing is changed any more.
    assert_eq!(fails(OpKind::Flush, "metadata/log", Outcome::FlushFails), 4);
}
