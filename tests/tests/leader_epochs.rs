//! Kafka's text about leader epochs in a partition's directory: it tells of every epoch that the segments have bytes of.

use millstream_engine::config::TopicConfig;
use millstream_engine::format::partition::decode_leader_epochs;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::time::Nanos;
use millstream_engine::types::PartitionId;
use millstream_tests::solo::{Solo, config};

const TEXT: &str = "logs/t-0/leader-epoch-checkpoint";

fn told(world: &World) -> Option<Vec<(u32, u64)>> {
    let epochs = decode_leader_epochs(&world.read_file(TEXT)?).expect("the text is whole");
    Some(epochs.into_iter().map(|(epoch, start)| (epoch.0, start.0)).collect())
}

/// Fills a segment, and lets it go to its file.
fn fill(node: &mut Solo, partition: PartitionId) {
    for _ in 0..6 {
        node.append(partition, &[7; 5_000]);
    }
    node.pass(Nanos::from_millis(3_000));
}

#[test]
fn the_text_follows_the_segments_through_power_losses() {
    let world = World::new(7, Faults::default());
    let mut node = Solo::start(&world, config()).expect("the disk is empty");
    let segments = TopicConfig { segment_bytes: 16_000, retention_ms: -1, ..TopicConfig::default() };
    let partition = PartitionId { topic: node.create("t", 1, segments), index: 0 };
    let mut expected = Vec::new();
    for life in 0..3 {
        let before = told(&world).unwrap_or_default();
        assert_eq!(before, expected, "what the last life told is durable");
        node.append(partition, b"the first of this life");
        expected.push((life, u64::from(life) * 7));
        fill(&mut node, partition);
        assert_eq!(told(&world), Some(expected.clone()));
        drop(node);
        world.crash(Crash::Power(Survivors::None));
        node = Solo::start(&world, config()).expect("the directory is sound");
    }
    assert_eq!(node.read_all(partition).map(|values| values.len()).ok(), Some(21));
}

#[test]
fn a_text_that_is_damaged_or_gone_is_written_again() {
    let world = World::new(7, Faults::default());
    let mut node = Solo::start(&world, config()).expect("the disk is empty");
    let segments = TopicConfig { segment_bytes: 16_000, retention_ms: -1, ..TopicConfig::default() };
    let partition = PartitionId { topic: node.create("t", 1, segments), index: 0 };
    fill(&mut node, partition);
    node.stop().expect("it stops");
    world.write_file(TEXT, b"0\n1\nnine 5\n");
    let mut node = Solo::start(&world, config()).expect("nobody needs it here");
    fill(&mut node, partition);
    assert_eq!(told(&world), Some(vec![(0, 0)]));
}
