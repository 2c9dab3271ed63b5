//! Changes of topics and ids for producers: what was answered holds, on every shard and after a crash.

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::error::{Fatal, Refusal};
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::format::metadata::{MetadataRecord, encode_frame};
use millstream_engine::io::Io;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::limits::{PARTITIONS_PER_NODE_MAX, PARTITIONS_PER_TOPIC_MAX, PRODUCER_IDS_PER_RECORD};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Durability, MetadataEpoch, PartitionId, TopicId};
use millstream_tests::solo::{Solo, config};

fn world() -> World {
    World::new(7, Faults::default())
}

/// The power fails, and keeps nothing that was not flushed.
fn crash(world: &World, node: Solo) -> Solo {
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    Solo::start(world, config()).expect("the directory is sound")
}

fn refusal(reply: Reply) -> Refusal {
    match reply {
        Reply::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn configure(node: &mut Solo, topic: TopicId, changes: &[(&str, Option<&str>)], replace: bool) -> Reply {
    let changes =
        changes.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect();
    node.ask(Request::ConfigureTopic { topic, changes, replace })
}

fn topic_config(node: &Solo, name: &str) -> TopicConfig {
    node.shard().metadata().topic(name).expect("it is there").config.clone()
}

fn producer_id(node: &mut Solo) -> u64 {
    match node.ask(Request::NewProducerId) {
        Reply::ProducerId(id) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn partitions_that_were_added_take_records_and_are_there_after_a_crash() {
    let world = world();
    let mut node = Solo::start(&world, config()).expect("a fresh node");
    let topic = node.create("t", 1, TopicConfig::default());
    node.append(PartitionId { topic, index: 0 }, b"before");
    assert!(matches!(node.ask(Request::AddPartitions { topic, count: 3 }), Reply::Done));
    node.append(PartitionId { topic, index: 2 }, b"after");
    for _ in 0..2 {
        let at = |index| PartitionId { topic, index };
        assert_eq!(node.read_all(at(0)).expect("it is there"), [b"before"]);
        assert_eq!(node.read_all(at(1)).expect("it is there").len(), 0);
        assert_eq!(node.read_all(at(2)).expect("it is there"), [b"after"]);
        node = crash(&world, node);
    }
}

#[test]
fn a_topic_only_grows_and_only_to_the_limit() {
    let mut node = Solo::start(&world(), config()).expect("a fresh node");
    let topic = node.create("t", 2, TopicConfig::default());
    for count in [0, 1, 2, PARTITIONS_PER_TOPIC_MAX + 1] {
        let refused = refusal(node.ask(Request::AddPartitions { topic, count }));
        assert_eq!(refused, Refusal::InvalidPartitions, "{count}");
    }
    let unknown = TopicId([9; 16]);
    let refused = refusal(node.ask(Request::AddPartitions { topic: unknown, count: 3 }));
    assert_eq!(refused, Refusal::UnknownTopic(unknown));
    assert_eq!(node.shard().metadata().topic("t").expect("it is there").slots.len(), 2);
}

#[test]
fn settings_hold_at_once_and_after_a_crash() {
    let world = world();
    let mut node = Solo::start(&world, config()).expect("a fresh node");
    let topic = node.create("t", 1, TopicConfig::default());
    let partition = PartitionId { topic, index: 0 };
    let changes = [("max.message.bytes", Some("200")), ("of.the.host", Some("kept")), ("segment.ms", None)];
    assert!(matches!(configure(&mut node, topic, &changes, false), Reply::Done));
    for _ in 0..2 {
        let batch = BatchBuilder::new(1).push(None, Some(&[0; 300])).build();
        let append = Request::Append { partition, batch: batch.into(), durability: Durability::Durable };
        assert_eq!(refusal(node.ask(append)), Refusal::BatchTooLarge { limit: 200 });
        let metadata = node.shard().metadata();
        assert_eq!(metadata.topic("t").and_then(|topic| topic.setting("of.the.host")), Some("kept"));
        node = crash(&world, node);
    }
    assert!(matches!(configure(&mut node, topic, &[("segment.ms", Some("5"))], true), Reply::Done));
    let held = topic_config(&node, "t");
    assert_eq!(held, TopicConfig { segment_ms: 5, ..TopicConfig::default() }, "everything else is unset");
}

#[test]
fn a_setting_out_of_its_range_changes_nothing() {
    let mut node = Solo::start(&world(), config()).expect("a fresh node");
    let topic = node.create("t", 1, TopicConfig::default());
    let changes = [("segment.ms", Some("5")), ("retention.ms", Some("soon"))];
    let refused = refusal(configure(&mut node, topic, &changes, false));
    assert_eq!(refused, Refusal::InvalidConfig("retention.ms".to_owned()));
    assert_eq!(topic_config(&node, "t"), TopicConfig::default());
    let settings = vec![("cleanup.policy".to_owned(), "burn".to_owned())];
    let create = Request::CreateTopic { name: "u".to_owned(), partitions: None, settings };
    assert_eq!(refusal(node.ask(create)), Refusal::InvalidConfig("cleanup.policy".to_owned()));
}

#[test]
fn the_nodes_settings_hold_where_a_topic_says_nothing() {
    let world = world();
    let mut node = Solo::start(&world, config()).expect("a fresh node");
    let create = Request::CreateTopic {
        name: "t".to_owned(),
        partitions: None,
        settings: vec![("segment.ms".to_owned(), "5".to_owned())],
    };
    assert!(matches!(node.ask(create), Reply::TopicCreated(_)));
    node.stop().expect("it stops");
    let topic = TopicConfig { segment_ms: 7, retention_ms: 8, ..TopicConfig::default() };
    let node = Solo::start(&world, Config { topic, ..config() }).expect("the directory is sound");
    let held = topic_config(&node, "t");
    assert_eq!((held.segment_ms, held.retention_ms), (5, 8));
}

#[test]
fn a_topic_that_is_to_be_compacted_keeps_everything() {
    let mut node = Solo::start(&world(), Config { retention_check_ms: 100, ..config() }).expect("fresh");
    let small = TopicConfig { segment_bytes: 1_000, retention_bytes: 1_000, ..TopicConfig::default() };
    let kept = node.create("kept", 1, TopicConfig { compacts: true, deletes: false, ..small.clone() });
    let both = node.create("both", 1, TopicConfig { compacts: true, ..small });
    for topic in [kept, both] {
        for _ in 0..20 {
            node.append(PartitionId { topic, index: 0 }, &[0; 400]);
        }
    }
    node.pass(Nanos::from_millis(10_000));
    assert_eq!(node.read_all(PartitionId { topic: kept, index: 0 }).expect("whole").len(), 20);
    let refused = refusal(node.read_all(PartitionId { topic: both, index: 0 }).expect_err("trimmed"));
    assert!(matches!(refused, Refusal::OffsetOutOfRange { .. }), "{refused}");
}

#[test]
fn timestamps_too_far_from_the_clock_are_refused_unless_the_broker_stamps() {
    let world = world();
    let mut node = Solo::start(&world, config()).expect("a fresh node");
    let now = world.io(millstream_engine::types::ShardId(0)).wall_ms().0;
    let near = TopicConfig {
        timestamp_before_max_ms: 100_000,
        timestamp_after_max_ms: 200_000,
        ..TopicConfig::default()
    };
    let stamped = node.create("stamped", 1, TopicConfig { log_append_time: true, ..near.clone() });
    let judged = node.create("judged", 1, near);
    let mut append = |topic, timestamp| {
        let batch = BatchBuilder::new(timestamp).push(None, Some(b"a")).build();
        let partition = PartitionId { topic, index: 0 };
        let append = Request::Append { partition, batch: batch.into(), durability: Durability::Durable };
        match node.ask(append) {
            Reply::Appended(_) => None,
            other => Some(refusal(other)),
        }
    };
    for (distance, refused) in [(-90_000, false), (-110_000, true), (190_000, false), (210_000, true)] {
        let expected = refused.then_some(Refusal::InvalidTimestamp);
        assert_eq!(append(judged, now + distance), expected, "{distance}");
        assert_eq!(append(stamped, now + distance), None, "{distance}");
    }
}

#[test]
fn a_node_has_only_so_many_partitions() {
    let mut node = Solo::start(&world(), config()).expect("a fresh node");
    let topics = PARTITIONS_PER_NODE_MAX / PARTITIONS_PER_TOPIC_MAX;
    for number in 0..topics {
        node.create(&format!("t{number}"), PARTITIONS_PER_TOPIC_MAX - 1, TopicConfig::default());
    }
    let topic = node.create("last", topics, TopicConfig::default());
    let refused = refusal(node.ask(Request::AddPartitions { topic, count: topics + 1 }));
    assert_eq!(refused, Refusal::TooManyPartitions);
    let create = Request::CreateTopic { name: "more".to_owned(), partitions: Some(1), settings: Vec::new() };
    assert_eq!(refusal(node.ask(create)), Refusal::TooManyPartitions);
}

#[test]
fn no_id_of_a_producer_is_given_twice() {
    let world = world();
    let mut node = Solo::start(&world, config()).expect("a fresh node");
    let mut last = None;
    for round in 0..4 {
        for _ in 0..PRODUCER_IDS_PER_RECORD / 2 + 7 * round {
            let id = producer_id(&mut node);
            assert!(last.is_none_or(|last| id > last), "{id} after {last:?}");
            last = Some(id);
        }
        node = crash(&world, node);
    }
}

#[test]
fn a_record_of_a_newer_version_is_refused_by_its_kind() {
    let world = world();
    let node = Solo::start(&world, config()).expect("a fresh node");
    node.stop().expect("it stops");
    let record = MetadataRecord::ProducerIdsGiven { below: 1 };
    let (mut frame, _) = encode_frame(MetadataEpoch(1), 0, &[record]);
    frame[24] = 99;
    let crc = millstream_engine::checksum::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    world.write_file("metadata/log", &frame);
    match Solo::start(&world, config()) {
        Err(Fatal::Newer(what)) => assert_eq!(what, "metadata/log holds a record of kind 99"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    }
}
