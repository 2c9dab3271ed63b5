//! The production broker in a simulated world, flooded with transient messages by publishers that do not wait: what its
//! consumers are behind with stays in memory, and little of that; and nobody waits for ever.

use std::net::SocketAddr;
use std::sync::Arc;

use millstream::amqp::codec::{BasicAck, BasicConsume, BasicQos, QueueDeclare, Short, Table};
use millstream::broker::Broker;
use millstream::config::{AmqpConfig, ServerConfig};
use millstream::metrics::BrokerMetrics;
use millstream_engine::config::Config;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::World;
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;
use millstream_tests::amqp::client::{Came, Client};
use millstream_tests::broker::{ANSWERED_IN, Node};
use millstream_tests::seeds::{self, Verdict};
use millstream_tests::sim::canary::{Cage, Canary};

const SHARDS: u16 = 2;
const SEEDS: u64 = 6;
/// Messages of each publisher: far more than may wait.
const MESSAGES: u64 = 6_000;
const BODY_BYTES: usize = 2_000;
/// Messages that are sent at once.
const BURST: u64 = 100;
/// What may wait in memory on each shard: what is too much for a queue, and what a publisher has on its way when it is told; both
/// queues may be on the same one.
const WAITING_BYTES_MAX: usize = 9 << 20;

struct Publisher {
    client: Client,
    queue: &'static str,
    sent: u64,
}

struct Consumer {
    client: Client,
    /// Whether it settles what it gets, on a connection on which it publishes, too.
    acks: bool,
    came: u64,
    next: u64,
}

fn config() -> ServerConfig {
    ServerConfig {
        engine: Config {
            shards: SHARDS,
            journal_bytes: u64::from(SHARDS) * (4 << 20),
            journal_file_bytes: 1 << 20,
            disk_free_min_bytes: 0,
            pinned_bytes: 2 << 20,
            ..Config::default()
        },
        amqp: AmqpConfig { guest_is_local: false, ..AmqpConfig::default() },
        ..ServerConfig::default()
    }
}

fn body(number: u64) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(BODY_BYTES, number as u8);
    body
}

/// Declares a queue, and perhaps consumes from it.
fn say_hello(world: &World, address: SocketAddr, queue: &str, consumes: Option<bool>) -> Client {
    let mut client = Client::connect(world, address);
    let queue = Short(queue.as_bytes());
    client.say(QueueDeclare { queue, durable: true, ..QueueDeclare::default() });
    if let Some(acks) = consumes {
        client.say(BasicQos { prefetch_count: if acks { 200 } else { 0 }, ..BasicQos::default() });
        client.say(BasicConsume { queue, no_ack: !acks, arguments: Table::EMPTY, ..BasicConsume::default() });
    }
    client
}

impl Publisher {
    fn publish(&mut self) {
        // What the broker has not taken lies with the client.
        for _ in 0..BURST.min(MESSAGES - self.sent) {
            self.client.publish("", self.queue, false, &body(self.sent));
            self.sent += 1;
        }
    }
}

impl Consumer {
    fn take(&mut self) -> Result<(), String> {
        let mut last = None;
        for came in self.client.came()? {
            match came {
                Came::Delivered { tag, body: came, .. } => {
                    if came != body(self.next) {
                        return Err(format!("message {} is not what was published, or not next", self.next));
                    }
                    self.next += 1;
                    self.came += 1;
                    last = Some(tag);
                }
                Came::Opened | Came::Done(..) => {}
                other => return Err(format!("a consumer was told {other:?}")),
            }
        }
        if let Some(tag) = last.filter(|_| self.acks) {
            self.client.say(BasicAck { delivery_tag: tag, multiple: true });
        }
        Ok(())
    }
}

/// Publishers and consumers of two queues, or of one connection that does both.
fn flood(seed: u64, one_connection: bool, times_held: &mut u64) -> Verdict {
    let world = World::new(seed, Faults { window_bytes: 64 << 10, ..Faults::rough() });
    let config = Arc::new(config());
    let app = |_| Broker::new(Arc::clone(&config));
    let cage = Cage::new(Canary::None);
    let mut node: Node =
        Node::start_with(&world, &config.engine, &cage, seed, app).expect("the directory is new");
    let [_, address] = node.listen_twice();
    let mut random = Random::stream(seed, "flood");
    let (mut publishers, mut consumers) = (Vec::new(), Vec::new());
    for queue in ["one", "two"] {
        let client = say_hello(&world, address, queue, Some(one_connection));
        consumers.push(Consumer { client, acks: one_connection, came: 0, next: 0 });
        if !one_connection {
            let client = say_hello(&world, address, queue, None);
            publishers.push(Publisher { client, queue, sent: 0 });
        }
    }
    let mut violations = Vec::new();
    let mut sent = [0; 2];
    let (mut waiting, mut quiet_since) = (0, world.now());
    while violations.is_empty() && consumers.iter().any(|consumer| consumer.came < MESSAGES) {
        for publisher in &mut publishers {
            publisher.publish();
        }
        for (place, consumer) in consumers.iter_mut().enumerate() {
            if one_connection && sent[place] < MESSAGES {
                let queue = ["one", "two"][place];
                (0..BURST).for_each(|_| {
                    consumer.client.publish("", queue, false, &body(sent[place]));
                    sent[place] += 1;
                });
            }
            // They are a little slower than the publishers.
            let before = consumer.came;
            if random.chance(0.3) {
                violations.extend(consumer.take().err());
            }
            if consumer.came > before {
                quiet_since = world.now();
            }
        }
        node.step();
        for shard in 0..SHARDS {
            waiting = waiting.max(node.shard(ShardId(shard)).memory()["passing"]);
        }
        if world.now().since(quiet_since) > ANSWERED_IN {
            violations.push("nothing comes any more".to_owned());
        }
    }
    if waiting > WAITING_BYTES_MAX && !one_connection {
        violations.push(format!("{waiting} bytes wait on a shard"));
    }
    let held: u64 = (0..SHARDS)
        .map(|shard| node.app(ShardId(shard)).metrics().get(|of: &BrokerMetrics| of.amqp_held.get()))
        .sum();
    *times_held += held;
    let took = Nanos(world.now().0);
    Verdict {
        told: format!("{waiting} bytes at most, held {held} times, {took:?}"),
        violations,
        trace: world.trace(),
    }
}

#[test]
fn publishers_faster_than_consumers_wait_for_them() {
    let mut times_held = 0;
    seeds::check("amqp_flow", "publishers_faster", SEEDS, |seed| flood(seed, false, &mut times_held));
    assert!(times_held > 0 || !seeds::are_usual(), "nothing was shown");
}

#[test]
fn who_publishes_and_settles_on_one_connection_goes_on() {
    let mut times_held = 0;
    seeds::check("amqp_flow", "who_publishes_and_settles", SEEDS, |seed| flood(seed, true, &mut times_held));
    assert!(times_held > 0 || !seeds::are_usual(), "nothing was shown");
}
