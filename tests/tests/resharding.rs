//! A start with another number of shards that is cut off anywhere, and the one after it.

use std::cell::RefCell;

use millstream_engine::config::{Config, QueueSettings, TopicConfig};
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::shard::change::{Edit, MetadataChange, NewQueue};
use millstream_engine::shard::message::{ConsumerId, Message, Publish};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::{Durability, Offset, PartitionId, QueueId, ShardId, TopicId};
use millstream_tests::queues::message;
use millstream_tests::sim::audit::ask;
use millstream_tests::sim::canary::{Cage, Canary};
use millstream_tests::sim::node::SimNode;
use millstream_tests::{crash::at_every_nth_crash_point, solo};

use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::format::settings::to_pairs;

const PARTITIONS: u32 = 3;
const APPENDS: u64 = 4;
const QUEUES: usize = 5;
/// The message that does not fit one record, in every queue the last.
const LARGE_BYTES: usize = 1_200_000;
/// Of the points, every so many-th.
const STRIDE: usize = 13;

fn config(shards: u16) -> Config {
    Config { shards, scrub_interval_ms: 0, ..solo::config() }
}

fn start(world: &World, shards: u16) -> Option<SimNode> {
    match SimNode::start(world, &config(shards), &Cage::new(Canary::None), 3) {
        Ok(node) => Some(node),
        Err(_) if world.halted() => None,
        Err(fatal) => panic!("it does not start with {shards} shards: {fatal}"),
    }
}

fn asked(node: &mut SimNode, topic: Option<PartitionId>, request: Request) -> Reply {
    let to = topic.and_then(|partition| node.metadata(ShardId(0)).shard_of(partition)).unwrap_or(ShardId(0));
    ask(node, ShardId(0), to, request).unwrap_or_else(|_| panic!("no answer came"))
}

fn topic(node: &SimNode) -> TopicId {
    node.metadata(ShardId(0)).topic("t").expect("it is there").id
}

/// Two shards with batches in journals, in open and in sealed segments.
fn killed() -> World {
    let world = World::new(9, Faults::default());
    let mut node = start(&world, 2).expect("nobody stops the machine");
    let settings = to_pairs(&TopicConfig { segment_bytes: 6_000, ..TopicConfig::default() });
    let create = Request::CreateTopic { name: "t".to_owned(), partitions: Some(PARTITIONS), settings };
    assert!(matches!(asked(&mut node, None, create), Reply::TopicCreated(_)));
    append(&mut node, 0);
    let queue = |index| {
        let name = format!("q{index}").into();
        Edit::CreateQueue(NewQueue { name, durable: true, settings: QueueSettings::default() })
    };
    let change = MetadataChange { guards: Vec::new(), edits: (0..QUEUES).map(queue).collect() };
    let Reply::Changed(queues) = asked(&mut node, None, Request::ChangeMetadata(change)) else {
        panic!("they are new")
    };
    for first in (0..100).step_by(25) {
        publish(
            &mut node,
            &queues,
            (first..first + 25).map(|number| message(&[number; 700], true)).collect(),
        );
    }
    // Some of them go, and some are not kept.
    for queue in &queues {
        for expected in 0..10 {
            assert_eq!(get(&mut node, *queue, true).expect("it is ready")[0], expected);
        }
    }
    publish(&mut node, &queues, vec![message(&[200; 700], false)]);
    publish(&mut node, &queues, vec![message(&vec![100; LARGE_BYTES], true)]);
    drop(node);
    world.crash(Crash::Kill);
    world
}

fn queues(node: &SimNode) -> Vec<QueueId> {
    let metadata = node.metadata(ShardId(0));
    let mut queues: Vec<_> = metadata.queues.iter().map(|(id, queue)| (queue.name.clone(), *id)).collect();
    queues.sort();
    queues.into_iter().map(|(_, id)| id).collect()
}

fn publish(node: &mut SimNode, queues: &[QueueId], messages: Vec<Message>) {
    for shard in (0..node.shards()).map(ShardId) {
        let metadata = node.metadata(ShardId(0));
        let here = |id: &&QueueId| metadata.shard_of_queue(**id) == Some(shard);
        let queues: Vec<_> = queues.iter().filter(here).copied().collect();
        if queues.is_empty() {
            continue;
        }
        let publish = |message: &Message| Publish { queues: queues.clone().into(), message: message.clone() };
        let request = Request::Publish(messages.iter().map(publish).collect());
        let Ok(Reply::Published(outcomes)) = ask(node, ShardId(0), shard, request) else {
            panic!("no answer came")
        };
        assert!(outcomes.iter().all(|outcome| outcome.refused.is_empty()), "{outcomes:?}");
    }
}

fn get(node: &mut SimNode, queue: QueueId, no_ack: bool) -> Option<Vec<u8>> {
    let shard = node.metadata(ShardId(0)).shard_of_queue(queue).expect("it is known");
    let request = Request::Get { queue, consumer: ConsumerId(1), no_ack };
    match ask(node, ShardId(0), shard, request) {
        Ok(Reply::Got(delivery, _)) => delivery.map(|delivery| delivery.body.to_vec()),
        _ => panic!("no answer came"),
    }
}

/// The messages of every queue, by their first bytes. They stay in their queues: the next life has them again.
fn messages(node: &mut SimNode) -> Vec<Vec<u8>> {
    let of_queue = |node: &mut SimNode, queue| {
        let bodies = std::iter::from_fn(|| get(node, queue, false));
        bodies
            .map(|body| {
                let whole = body.iter().all(|byte| *byte == body[0]);
                assert!(whole && body.len() == if body[0] == 100 { LARGE_BYTES } else { 700 });
                body[0]
            })
            .collect()
    };
    queues(node).into_iter().map(|queue| of_queue(node, queue)).collect()
}

/// Some to each partition, each two kilobytes long.
fn append(node: &mut SimNode, from: u64) {
    for number in from..from + APPENDS {
        for index in 0..PARTITIONS {
            let partition = PartitionId { topic: topic(node), index };
            let value = [number as u8; 2_000];
            let batch = BatchBuilder::new(1_700_000_000_000).push(None, Some(&value)).build().into();
            let request = Request::Append { partition, batch, durability: Durability::Durable };
            let reply = asked(node, Some(partition), request);
            assert!(matches!(reply, Reply::Appended(_)), "{reply:?}");
        }
    }
}

/// How many batches can be read of each partition, from its start on without a gap.
fn readable(node: &mut SimNode) -> Vec<u64> {
    let count = |node: &mut SimNode, index| {
        let partition = PartitionId { topic: topic(node), index };
        let mut values = Vec::new();
        let mut offset = Offset(0);
        loop {
            let read = Request::Read { partition, offset, max_bytes: 1 };
            let Reply::Read(read) = asked(node, Some(partition), read) else { panic!("it cannot be read") };
            let bytes: Vec<u8> = read.chunk.bytes.iter().flat_map(|slice| slice.to_vec()).collect();
            if bytes.is_empty() {
                return offset.0;
            }
            offset = solo::take_values(&bytes, offset, &mut values);
            let last = values.last().expect("there is one");
            assert_eq!((values.len() as u64, last[0]), (offset.0, offset.0 as u8 - 1), "partition {index}");
        }
    };
    (0..PARTITIONS).map(|index| count(node, index)).collect()
}

#[test]
fn a_move_to_other_shards_that_is_cut_off_anywhere_loses_nothing() {
    let moved = RefCell::new(0);
    let run = |world: &World| {
        if let Some(node) = start(world, 3) {
            *moved.borrow_mut() += 1;
            drop(node);
        }
    };
    let disk = killed().snapshot_disk();
    let set_up = || World::from_disk(9, disk.clone(), Faults::default());
    let points = at_every_nth_crash_point(STRIDE, set_up, run, |world, point| {
        let (crash, shards) = [
            (Crash::Power(Survivors::None), 3),
            (Crash::Kill, 3),
            (Crash::Power(Survivors::Some), 1),
            (Crash::Power(Survivors::None), 2),
        ][(point % 4) as usize];
        world.crash(crash);
        let mut node = start(world, shards).expect("nobody stops the machine");
        let place = format!("point {point}, {crash:?}, then {shards} shards");
        assert_eq!(readable(&mut node), vec![APPENDS; PARTITIONS as usize], "{place}");
        let mut expected: Vec<u8> = (10..=100).collect();
        assert_eq!(messages(&mut node), vec![expected.clone(); QUEUES], "{place}");
        append(&mut node, APPENDS);
        let queues = queues(&node);
        publish(&mut node, &queues, vec![message(&[101; 700], true)]);
        expected.push(101);
        drop(node);
        world.crash(Crash::Power(Survivors::None));
        let mut node = start(world, shards).expect("nobody stops the machine");
        assert_eq!(readable(&mut node), vec![2 * APPENDS; PARTITIONS as usize], "{place}");
        assert_eq!(messages(&mut node), vec![expected; QUEUES], "{place}");
    });
    assert!(moved.into_inner() > 0 && points.count() > 50, "the run moves to other shards");
}
