//! Which shard a connection goes to.

use std::sync::Arc;

use millstream::broker::Broker;
use millstream::config::ServerConfig;
use millstream_engine::config::Config;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::World;
use millstream_engine::types::ShardId;
use millstream_tests::broker::Node;
use millstream_tests::sim::canary::{Cage, Canary};
use millstream_tests::solo;

const SHARDS: u16 = 3;
/// Steps after which whatever was on its way has come.
const STEPS: usize = 2_000;

/// How many connections each shard has, once nothing is on its way.
fn spread(node: &mut Node) -> Vec<usize> {
    for _ in 0..STEPS {
        node.step();
    }
    (0..SHARDS).map(|shard| node.app(ShardId(shard)).connections()).collect()
}

#[test]
fn connections_that_come_together_are_spread_over_the_shards_and_so_are_those_that_follow() {
    let world = World::new(3, Faults::default());
    let config = Arc::new(ServerConfig {
        engine: Config { shards: SHARDS, ..solo::config() },
        ..ServerConfig::default()
    });
    let app = |_| Broker::new(Arc::clone(&config));
    let mut node: Node = Node::start_with(&world, &config.engine, &Cage::new(Canary::None), 3, app)
        .expect("the directory is new");
    let address = node.listen();
    let mut peers: Vec<_> = (0..9).map(|_| world.connect(address)).collect();
    assert_eq!(spread(&mut node), [3; 3], "all at once");
    // Which three those are nobody knows: but there is room where they were.
    for peer in peers.drain(..3) {
        peer.close();
    }
    let left = spread(&mut node);
    assert_eq!(left.iter().sum::<usize>(), 6);
    peers.extend((0..6).map(|_| world.connect(address)));
    assert_eq!(spread(&mut node), [4; 3], "{left:?} had been left");
}
