//! Batches that need more of the journal than there is yet.

use millstream_engine::buffer::Slice;
use millstream_engine::config::TopicConfig;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::World;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::{Durability, PartitionId};
use millstream_tests::solo::{Solo, config};

#[test]
fn one_that_comes_before_the_disk_was_asked_for_its_space_waits_for_the_answer() {
    let world = World::new(3, Faults::default());
    let mut node = Solo::start(&world, config()).expect("a fresh node");
    let large = TopicConfig { max_message_bytes: 8 << 20, ..TopicConfig::default() };
    let topic = node.create("t", 1, large);
    node.stop().expect("it ends in good order");
    let mut node = Solo::start(&world, config()).expect("it is sound");
    let value = vec![7; 3_500_000];
    let batch = Slice::from(BatchBuilder::new(1_700_000_000_000).push(None, Some(&value)).build());
    let partition = PartitionId { topic, index: 0 };
    let reply = node.ask(Request::Append { partition, batch, durability: Durability::Durable });
    assert!(matches!(reply, Reply::Appended(_)), "{reply:?}");
    assert_eq!(node.read_all(partition).expect("it is there"), [value]);
}
