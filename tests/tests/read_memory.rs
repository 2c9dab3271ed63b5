//! The production broker in a simulated world, with less memory for reads than its clients would take: nobody waits for memory that
//! others keep while they wait themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{FetchRequest, FetchResponse, ResponseHeader, TopicName, fetch_request};
use kafka_protocol::protocol::{Decodable, HeaderVersion, StrBytes};
use millstream::broker::Broker;
use millstream::config::ServerConfig;
use millstream_engine::config::Config;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{SimPeer, World};
use millstream_engine::limits::READ_CHUNK_BYTES;
use millstream_engine::time::Nanos;
use millstream_engine::types::{Offset, PartitionId, ShardId};
use millstream_tests::broker::Node;
use millstream_tests::kafka::client::{Answer, Ask, Client, frame};
use millstream_tests::sim::canary::{Cage, Canary};
use millstream_tests::solo::take_values;

/// Partitions that are read, all by everybody; one more has nothing in it.
const PARTITIONS: i32 = 16;
const TOPIC: &str = "history";
/// A batch of each; there are four, so that most of an answer is to be loaded behind its first chunks.
const VALUE_BYTES: usize = 250_000;
const BATCHES: u64 = 4;
/// What one fetch may have of each partition: Kafka's default.
const PARTITION_BYTES_MAX: i32 = 1 << 20;
/// In which a client that takes everything has its answer. Real ones give up after 30 s.
const ANSWERED_IN: Nanos = Nanos::from_millis(10_000);
const VERSION: i16 = 11;

/// A connection that fetches.
struct Reader {
    peer: SimPeer,
    inbox: Vec<u8>,
}

impl Reader {
    fn connect(world: &World, address: SocketAddr) -> Reader {
        Reader { peer: world.connect(address), inbox: Vec::new() }
    }

    /// Asks for what there is of partitions from the start on, and for up to so long for what there is not.
    fn fetch(&self, partitions: impl Iterator<Item = i32>, max_wait_ms: i32) {
        let wanted = |index| {
            fetch_request::FetchPartition::default()
                .with_partition(index)
                .with_fetch_offset(0)
                .with_partition_max_bytes(PARTITION_BYTES_MAX)
        };
        let topic = fetch_request::FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions(partitions.map(wanted).collect());
        let request = FetchRequest::default()
            .with_max_wait_ms(max_wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(50 << 20)
            .with_topics(vec![topic]);
        self.peer.send(&frame(VERSION, 1, &request));
    }

    /// The values of the next answer, by partition, if it has come.
    fn answer(&mut self) -> Option<BTreeMap<i32, Vec<Vec<u8>>>> {
        self.inbox.extend(self.peer.received());
        let (length, rest) = self.inbox.split_first_chunk::<4>()?;
        let mut message = Bytes::copy_from_slice(rest.get(..u32::from_be_bytes(*length) as usize)?);
        self.inbox.drain(..4 + message.len());
        ResponseHeader::decode(&mut message, FetchResponse::header_version(VERSION)).expect("it is sound");
        let response = FetchResponse::decode(&mut message, VERSION).expect("it is sound");
        let parts = response.responses.into_iter().flat_map(|topic| topic.partitions);
        let values = parts.map(|part| {
            assert_eq!(part.error_code, 0, "partition {}", part.partition_index);
            let mut values = Vec::new();
            take_values(&part.records.unwrap_or_default(), Offset(0), &mut values);
            (part.partition_index, values)
        });
        Some(values.collect())
    }
}

fn value(partition: i32, number: u64) -> Vec<u8> {
    (0..VALUE_BYTES as u64).map(|at| (at / 251 + at + number + 7 * partition as u64) as u8).collect()
}

/// A node whose history is in files only, and where it listens.
fn with_history(world: &World, shards: u16) -> (Node, SocketAddr) {
    let config = Arc::new(ServerConfig {
        engine: Config {
            shards,
            journal_bytes: u64::from(shards) * (4 << 20),
            journal_file_bytes: 1 << 20,
            disk_free_min_bytes: 0,
            // As little as there may be: 64 chunks.
            pinned_bytes: 1 << 20,
            partitions_default: PARTITIONS as u32 + 1,
            // What is sent from a map takes no memory.
            map_segments: false,
            ..Config::default()
        },
        ..ServerConfig::default()
    });
    let app = |_| Broker::new(Arc::clone(&config));
    let mut node: Node = Node::start_with(world, &config.engine, &Cage::new(Canary::None), 1, app)
        .expect("the directory is new");
    let address = node.listen();
    let mut client = Client::connect(world, address);
    let mut ask = |node: &mut Node, ask: Ask| {
        client.ask(ask, 0);
        loop {
            if let Some((_, answer)) = client.answers().expect("they are sound").pop() {
                return answer;
            }
            assert!(node.step());
        }
    };
    for topic in [TOPIC, "others"] {
        // It is there when it is asked for the second time.
        while !matches!(ask(&mut node, Ask::Topic(topic.to_owned())), Answer::Topic(0, _)) {}
        for number in 0..BATCHES {
            for index in 0..PARTITIONS {
                let batch = BatchBuilder::new(1).push(None, Some(&value(index, number))).build();
                let produce = Ask::Produce { topic: topic.to_owned(), index, acks: -1, batch };
                assert!(matches!(ask(&mut node, produce), Answer::Produced(0, _)));
            }
        }
    }
    (node, address)
}

/// Steps until everybody has an answer, and checks it.
fn all_are_answered(world: &World, node: &mut Node, readers: &mut [Reader]) {
    let since = world.now();
    let mut answers: Vec<_> = readers.iter().map(|_| None).collect();
    while answers.iter().any(Option::is_none) {
        node.step();
        for (reader, answer) in readers.iter_mut().zip(&mut answers) {
            if answer.is_none() {
                *answer = reader.answer();
            }
        }
        let waiting = answers.iter().filter(|answer| answer.is_none()).count();
        let memory = || (0..node.shards()).map(|id| node.shard(ShardId(id)).memory()["read"]);
        assert!(
            world.now().since(since) < ANSWERED_IN,
            "{waiting} wait for good, and {:?} bytes are kept",
            memory().collect::<Vec<_>>()
        );
    }
    for answer in answers.into_iter().flatten() {
        // Each is sent as far as the whole answer goes.
        assert!(answer.values().any(|values| !values.is_empty()), "an answer has nothing");
        for (index, values) in answer {
            for (number, came) in values.iter().enumerate() {
                assert!(*came == value(index, number as u64), "{index}: value {number} is another");
            }
        }
    }
}

/// Clients that do nothing wrong: each takes its answer as fast as it comes.
fn sound_clients_all_get_their_answers(shards: u16) {
    let world = World::new(11, Faults::default());
    let (mut node, address) = with_history(&world, shards);
    let count = 12 * usize::from(shards);
    let mut readers: Vec<_> = (0..count).map(|_| Reader::connect(&world, address)).collect();
    for reader in &readers {
        reader.fetch(0..PARTITIONS, 0);
    }
    all_are_answered(&world, &mut node, &mut readers);
}

#[test]
fn clients_whose_answers_are_more_together_than_there_is_memory_all_get_them() {
    sound_clients_all_get_their_answers(1);
}

#[test]
fn so_do_those_of_several_shards() {
    sound_clients_all_get_their_answers(2);
}

/// Fetches what waits for the answer to a fetch of nothing, which is long in coming, until they keep all the memory of a shard.
fn keep_all(world: &World, node: &mut Node, of: ShardId, waiting: &[Reader], partitions: &[i32]) {
    for reader in waiting {
        reader.fetch([PARTITIONS].into_iter(), i32::MAX);
        for _ in 0..4 {
            reader.fetch(partitions.iter().copied(), 0);
        }
    }
    let until = world.now() + Nanos::from_millis(1_000);
    let mut most = 0;
    while world.now() < until {
        node.step();
        most = most.max(node.shard(of).memory()["read"]);
    }
    assert!(most > 62 * READ_CHUNK_BYTES, "they want all there is: {most}");
}

#[test]
fn answers_that_wait_behind_one_that_is_long_in_coming_leave_memory_to_others() {
    let world = World::new(12, Faults::default());
    let (mut node, address) = with_history(&world, 1);
    let waiting: Vec<_> = (0..10).map(|_| Reader::connect(&world, address)).collect();
    let all: Vec<i32> = (0..PARTITIONS).collect();
    keep_all(&world, &mut node, ShardId(0), &waiting, &all);
    let mut reader = [Reader::connect(&world, address)];
    reader[0].fetch(0..PARTITIONS, 0);
    all_are_answered(&world, &mut node, &mut reader);
}

#[test]
fn so_do_those_of_connections_that_another_shard_serves() {
    let world = World::new(13, Faults::default());
    let (mut node, address) = with_history(&world, 2);
    let (owner, host) = (ShardId(0), ShardId(1));
    let metadata = Arc::clone(node.metadata(owner));
    let topic = metadata.topic(TOPIC).expect("it is there").id;
    let is_here = |index: &i32| metadata.shard_of(PartitionId { topic, index: *index as u32 }) == Some(owner);
    let here: Vec<i32> = (0..PARTITIONS).filter(is_here).collect();
    // Those that the other shard serves; the rest stay, and ask for nothing.
    let (mut waiting, mut others) = (Vec::new(), Vec::new());
    while waiting.len() < 12 {
        let before = node.app(host).connections();
        let reader = Reader::connect(&world, address);
        let until = world.now() + Nanos::from_millis(100);
        while world.now() < until {
            node.step();
        }
        if node.app(host).connections() > before { waiting.push(reader) } else { others.push(reader) }
    }
    let mut reader = [waiting.pop().expect("there are some")];
    keep_all(&world, &mut node, owner, &waiting, &here);
    reader[0].fetch(here.iter().copied(), 0);
    all_are_answered(&world, &mut node, &mut reader);
}
