//! Queues longer than memory: their indexes are paged out and in, and nothing shows of it but less memory.

use millstream_engine::config::{Config, QueueSettings};
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::shard::message::{ConsumerId, Credit, Delivery, Message, Verdict};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::QueueId;
use millstream_tests::queues::{consume, create, delete, delivered, message, publish, settle, stats};
use millstream_tests::solo::{Solo, config};

/// What indexes may take.
const INDEX_BYTES: usize = 64 << 10;
/// What they may take beyond that: of what is in the journal nothing can be paged out, and two pages are being used.
const SLACK_BYTES: usize = 640 << 10;
const MESSAGES: u32 = 80_000;
const A_WHILE: Nanos = Nanos::from_millis(300);

fn start(world: &World) -> Solo {
    let config = Config { queue_index_bytes: INDEX_BYTES as u64, ..config() };
    Solo::start(world, config).expect("the directory is sound")
}

fn crash(world: &World, node: Solo) -> Solo {
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    start(world)
}

fn numbered(number: u32) -> Message {
    let mut body = vec![0; 150];
    body[..4].copy_from_slice(&number.to_le_bytes());
    message(&body, true)
}

fn number(delivery: &Delivery) -> u32 {
    u32::from_le_bytes(delivery.body[..4].try_into().expect("it begins with its number"))
}

fn fill(node: &mut Solo, queue: QueueId, messages: std::ops::Range<u32>) {
    for first in messages.clone().step_by(500) {
        let last = (first + 500).min(messages.end);
        publish(node, &[queue], (first..last).map(numbered).collect());
        let index = node.shard().memory()["queue index"];
        assert!(index < INDEX_BYTES + SLACK_BYTES, "{index} bytes of index behind message {first}");
    }
    node.pass(A_WHILE);
}

/// Takes so many messages, which have to come in order from this number on.
fn drain(node: &mut Solo, queue: QueueId, consumer: u64, messages: std::ops::Range<u32>) {
    let credit = Credit { messages: 1_000, bytes: u32::MAX };
    consume(node, queue, consumer, credit);
    let mut expected = messages.start;
    while expected < messages.end {
        node.pass(Nanos::from_millis(2));
        let deliveries = delivered(node);
        let Some(last) = deliveries.last() else { continue };
        settle(node, queue, consumer, last.seq, Verdict::Ack, false);
        for delivery in &deliveries {
            assert_eq!(number(delivery), expected);
            expected += 1;
            settle(node, queue, consumer, delivery.seq, Verdict::Ack, false);
        }
        let more = Credit { messages: deliveries.len() as u32, bytes: 0 };
        node.ask(Request::Grant(vec![(ConsumerId(consumer), more)]));
        let index = node.shard().memory()["queue index"];
        assert!(index < INDEX_BYTES + SLACK_BYTES, "{index} bytes of index at message {expected}");
    }
    let cancel = Request::CancelConsumer { consumer: ConsumerId(consumer), release: true };
    node.ask(cancel);
    delivered(node);
}

#[test]
fn a_queue_whose_index_is_larger_than_it_may_be_is_there_in_order_before_and_after_a_crash() {
    let world = World::new(5, Faults::default());
    let mut node = start(&world);
    let queue = create(&mut node, "q", true, QueueSettings::default());
    fill(&mut node, queue, 0..MESSAGES);
    assert!(node.shard().memory()["queue pages"] > 50, "{:?}", node.shard().memory());
    drain(&mut node, queue, 1, 0..10_000);
    fill(&mut node, queue, MESSAGES..MESSAGES + 5_000);
    node = crash(&world, node);
    let memory = node.shard().memory();
    assert!(memory["queue index"] < INDEX_BYTES + SLACK_BYTES && memory["queue pages"] > 20, "{memory:?}");
    let ready = stats(&mut node, queue).ready;
    assert!((MESSAGES - 5_000..=MESSAGES).contains(&(ready as u32)), "{ready} are ready");
    let next = MESSAGES + 5_000 - ready as u32;
    drain(&mut node, queue, 2, next..MESSAGES + 5_000);
    node.pass(A_WHILE);
    assert_eq!(node.shard().memory()["queue pages"], 0);
    node = crash(&world, node);
    assert_eq!(stats(&mut node, queue).persistent, 0);
}

#[test]
fn who_gets_a_message_that_is_paged_out_waits_for_it() {
    let world = World::new(6, Faults::default());
    let mut node = start(&world);
    let queue = create(&mut node, "q", true, QueueSettings::default());
    fill(&mut node, queue, 0..MESSAGES);
    node = crash(&world, node);
    for expected in 0..20_000 {
        let get = Request::Get { queue, consumer: ConsumerId(1), no_ack: true };
        let Reply::Got(Some(delivery), left) = node.ask(get) else { panic!("{expected} is ready") };
        assert_eq!((number(&delivery), left), (expected, u64::from(MESSAGES - 1 - expected)));
    }
}

#[test]
fn what_is_purged_or_deleted_while_it_is_paged_out_leaves_nothing_behind() {
    let world = World::new(7, Faults::default());
    let mut node = start(&world);
    let purged = create(&mut node, "purged", true, QueueSettings::default());
    let deleted = create(&mut node, "deleted", true, QueueSettings::default());
    let stays = create(&mut node, "stays", true, QueueSettings::default());
    for first in (0..MESSAGES / 2).step_by(500) {
        let messages: Vec<_> = (first..first + 500).map(numbered).collect();
        publish(&mut node, &[purged, deleted], messages.clone());
        publish(&mut node, &[stays], messages[..20].to_vec());
    }
    node.pass(A_WHILE);
    assert!(node.shard().memory()["queue pages"] > 50);
    assert!(matches!(node.ask(Request::Purge(purged)), Reply::Purged(n) if n == u64::from(MESSAGES / 2)));
    delete(&mut node, deleted);
    node.pass(Nanos::from_millis(3_000));
    let stay = stats(&mut node, stays).ready;
    assert!(node.shard().memory()["queue pages"] < 10, "{:?}", node.shard().memory());
    // The files that held them go when the journal has been round once more.
    let busy = create(&mut node, "busy", true, QueueSettings::default());
    let credit = Credit { messages: u32::MAX, bytes: u32::MAX };
    consume(&mut node, busy, 9, credit);
    for first in (0..40_000).step_by(500) {
        publish(&mut node, &[busy], (first..first + 500).map(numbered).collect());
        for delivery in delivered(&mut node) {
            settle(&mut node, busy, 9, delivery.seq, Verdict::Ack, false);
        }
    }
    node.pass(Nanos::from_millis(3_000));
    node = crash(&world, node);
    assert_eq!((stats(&mut node, purged).persistent, stats(&mut node, stays).ready), (0, stay));
    let expected: Vec<u32> = (0..MESSAGES / 2).filter(|number| number % 500 < 20).collect();
    consume(&mut node, stays, 1, credit);
    node.pass(A_WHILE);
    assert_eq!(delivered(&mut node).iter().map(number).collect::<Vec<_>>(), expected);
}
