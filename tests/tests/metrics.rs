//! What a shard tells of itself, where only a simulated world brings it about.

use millstream_engine::buffer::Slice;
use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::error::Refusal;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::fault::{Faults, Injection, OpKind, Outcome};
use millstream_engine::io::sim::World;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Durability, PartitionId};
use millstream_tests::solo::{Solo, config};

/// Longer than a shard takes to look around.
const LOOK: Nanos = Nanos::from_millis(2_000);

fn batch() -> Slice {
    Slice::from(BatchBuilder::new(1_700_000_000_000).push(None, Some(b"value")).build())
}

#[test]
fn a_failed_flush_shows_and_what_it_refused_is_not_counted_as_stored() {
    let world = World::new(3, Faults::default());
    let mut node = Solo::start(&world, config()).unwrap();
    let topic = node.create("t", 1, TopicConfig::default());
    let partition = PartitionId { topic, index: 0 };
    node.append(partition, b"first");
    let metrics = node.metrics();
    node.pass(LOOK);
    assert_eq!(metrics.get(|shard| shard.poisoned.get()), 0);
    world.inject(Injection {
        op: OpKind::Append,
        path: "journal".to_owned(),
        skip: 0,
        outcome: Outcome::FlushFails,
    });
    let reply = node.ask(Request::Append { partition, batch: batch(), durability: Durability::Durable });
    assert!(matches!(reply, Reply::Refused(Refusal::Poisoned)), "{reply:?}");
    node.pass(LOOK);
    assert_eq!(metrics.get(|shard| shard.poisoned.get()), 1);
    assert_eq!(metrics.get(|shard| shard.append_records.get()), 1);
    assert_eq!(metrics.get(|shard| shard.refusals.get()), 1);
    let turns = metrics.get(|shard| shard.turns.get());
    node.pass(LOOK);
    assert!(metrics.get(|shard| shard.turns.get()) > turns, "it still turns");
}

#[test]
fn a_full_disk_shows_until_it_has_space_again() {
    let world = World::new(4, Faults::default());
    let config = Config { disk_free_min_bytes: 1 << 20, ..config() };
    let mut node = Solo::start(&world, config).unwrap();
    let metrics = node.metrics();
    node.pass(LOOK);
    assert_eq!(metrics.get(|shard| shard.disk_full.get()), 0);
    world.set_faults(Faults { disk_bytes: 0, ..Faults::default() });
    node.pass(LOOK);
    assert_eq!(metrics.get(|shard| shard.disk_full.get()), 1);
    world.set_faults(Faults::default());
    node.pass(LOOK);
    assert_eq!(metrics.get(|shard| shard.disk_full.get()), 0);
}

#[test]
fn a_journal_that_is_moved_to_segments_shows_its_lag_and_its_rounds() {
    let world = World::new(5, Faults::default());
    let mut node = Solo::start(&world, config()).unwrap();
    let topic = node.create("t", 1, TopicConfig::default());
    let metrics = node.metrics();
    for _ in 0..12 {
        node.append(PartitionId { topic, index: 0 }, &vec![7; 500_000]);
    }
    node.pass(LOOK);
    let files = node.shard().journal().files();
    let held = files.used().len() as u64 * files.file_bytes();
    assert_eq!(metrics.get(|shard| shard.trim_lag.get()), held);
    assert_eq!(metrics.get(|shard| shard.journal_files.at(1).get()), files.free() as u64);
    assert!(metrics.get(|shard| shard.trim_rounds.at(0).get()) > 0);
    assert_eq!(metrics.get(|shard| shard.trim_rounds.at(1).get()), 0);
    assert!(metrics.get(|shard| shard.memory.at(0).get()) > 0);
}
