//! Messages that are not kept over a restart: never in the journal, in memory as far as that goes, and gone after a restart.

use millstream_engine::config::{Config, QueueSettings};
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::shard::message::{ConsumerId, Credit, Delivery, Message, Verdict};
use millstream_engine::shard::request::Request;
use millstream_engine::time::Nanos;
use millstream_engine::types::QueueId;
use millstream_tests::queues::{PLENTY, consume, create, delivered, message, publish, settle, stats};
use millstream_tests::solo::{Solo, config};

const A_WHILE: Nanos = Nanos::from_millis(100);
/// The least that such messages can have.
const PASSING_BYTES: usize = 4 << 20;

fn start(world: &World) -> Solo {
    let config = Config { queue_passing_bytes: PASSING_BYTES as u64, ..config() };
    Solo::start(world, config).expect("the directory is sound")
}

fn numbered(number: u32, persistent: bool) -> Message {
    let mut body = vec![number as u8; 2_000];
    body[..4].copy_from_slice(&number.to_le_bytes());
    message(&body, persistent)
}

fn number(delivery: &Delivery) -> u32 {
    let bytes: [u8; 4] = delivery.body[..4].try_into().expect("it begins with its number");
    assert!(delivery.body.len() == 2_000 && delivery.body[4..].iter().all(|byte| *byte == bytes[0]));
    u32::from_le_bytes(bytes)
}

/// The names of files that hold such messages.
fn files(world: &World) -> usize {
    world.list_all().iter().filter(|name| name.contains("/passing-")).count()
}

/// Takes and acknowledges messages until so many have come.
fn drain(node: &mut Solo, queue: QueueId, messages: usize) -> Vec<u32> {
    let credit = Credit { messages: 500, bytes: u32::MAX };
    consume(node, queue, 1, credit);
    let mut all = Vec::new();
    while all.len() < messages {
        node.pass(Nanos::from_millis(1));
        let deliveries = delivered(node);
        for delivery in &deliveries {
            all.push(number(delivery));
            settle(node, queue, 1, delivery.seq, Verdict::Ack, false);
        }
        let more = Credit { messages: deliveries.len() as u32, bytes: 0 };
        node.ask(Request::Grant(vec![(ConsumerId(1), more)]));
    }
    node.ask(Request::CancelConsumer { consumer: ConsumerId(1), release: true });
    all
}

#[test]
fn what_no_queue_keeps_leaves_the_journal_alone() {
    let world = World::new(31, Faults::default());
    let mut node = start(&world);
    let durable = create(&mut node, "durable", true, QueueSettings::default());
    let transient = create(&mut node, "transient", false, QueueSettings::default());
    node.pass(A_WHILE);
    let before = node.shard().journal().last_lsn();
    for (queue, persistent) in [(durable, false), (transient, true), (transient, false)] {
        publish(&mut node, &[queue], (0..1_000).map(|number| numbered(number, persistent)).collect());
        assert_eq!(drain(&mut node, queue, 1_000), (0..1_000).collect::<Vec<_>>());
    }
    node.pass(A_WHILE);
    assert_eq!(node.shard().journal().last_lsn(), before);
    publish(&mut node, &[durable], vec![numbered(0, true)]);
    assert!(node.shard().journal().last_lsn() > before);
}

#[test]
fn more_of_them_than_memory_takes_are_there_in_order_among_others_until_a_restart() {
    const MESSAGES: u32 = 10_000;
    let world = World::new(32, Faults::default());
    let mut node = start(&world);
    let queue = create(&mut node, "q", true, QueueSettings::default());
    let is_kept = |number: &u32| number.is_multiple_of(10);
    let fill = |node: &mut Solo| {
        for first in (0..MESSAGES).step_by(100) {
            let messages = (first..first + 100).map(|number| numbered(number, is_kept(&number)));
            publish(node, &[queue], messages.collect());
            assert!(node.shard().memory()["passing"] <= PASSING_BYTES);
        }
    };
    fill(&mut node);
    assert!(files(&world) > 0, "they are 20 MB, in 4 MiB of memory");
    assert_eq!(drain(&mut node, queue, MESSAGES as usize), (0..MESSAGES).collect::<Vec<_>>());
    node.pass(Nanos::from_millis(2_000));
    assert_eq!((files(&world), stats(&mut node, queue).ready), (0, 0));

    fill(&mut node);
    assert!(files(&world) > 0);
    drop(node);
    world.crash(Crash::Power(Survivors::All));
    let mut node = start(&world);
    assert_eq!(files(&world), 0, "a start removes them");
    let kept: Vec<u32> = (0..MESSAGES).filter(is_kept).collect();
    assert_eq!(drain(&mut node, queue, kept.len()), kept);
    assert_eq!(stats(&mut node, queue).ready, 0);
}

#[test]
fn a_large_one_and_those_that_share_it_are_given_out_whole() {
    let world = World::new(33, Faults::default());
    let mut node = start(&world);
    let queues = ["a", "b"].map(|name| create(&mut node, name, true, QueueSettings::default()));
    let body: Vec<u8> = (0..2_500_000_u32).map(|at| (at % 251) as u8).collect();
    let large = || Message { body: vec![body.clone().into()].into(), ..message(b"", false) };
    let before = node.shard().journal().last_lsn();
    publish(&mut node, &queues, vec![large(), numbered(1, false)]);
    for (queue, consumer) in queues.into_iter().zip([1, 2]) {
        consume(&mut node, queue, consumer, PLENTY);
        node.pass(A_WHILE);
        let deliveries = delivered(&mut node);
        assert_eq!(deliveries.len(), 2);
        assert!(deliveries[0].body[..] == body[..] && number(&deliveries[1]) == 1);
        for delivery in &deliveries {
            settle(&mut node, queue, consumer, delivery.seq, Verdict::Ack, true);
        }
    }
    node.pass(A_WHILE);
    assert_eq!(node.shard().journal().last_lsn(), before);
    // Again and again: memory comes back.
    for _ in 0..5 {
        publish(&mut node, &queues, vec![large()]);
        node.pass(A_WHILE);
        let deliveries = delivered(&mut node);
        assert_eq!(deliveries.len(), 2);
        for delivery in deliveries {
            settle(&mut node, delivery.queue, delivery.consumer.0, delivery.seq, Verdict::Ack, true);
        }
    }
}
