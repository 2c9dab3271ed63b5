//! Publishers that are asked to wait for consumers: the engine's word for it.

use millstream_engine::config::QueueSettings;
use millstream_engine::io::fault::{Faults, Injection, OpKind, Outcome};
use millstream_engine::io::sim::World;
use millstream_engine::limits::{FLOW_BYTES_MAX, FLOW_LOOK, FLOW_SPARED};
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::shard::message::{ConsumerId, Credit, Flow, Message, Publish};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::QueueId;
use millstream_tests::queues::{consume, create, delete, message, publish};
use millstream_tests::solo::{Solo, config};

const NONE: Credit = Credit { messages: 0, bytes: 0 };
const SOON: Nanos = Nanos::from_millis(5);
/// So many messages are too many.
const MANY: usize = FLOW_BYTES_MAX as usize / 2_000;

fn start(seed: u64) -> (Solo, QueueId) {
    let mut node = Solo::start(&World::new(seed, Faults::default()), config()).expect("the directory is new");
    let queue = create(&mut node, "q", true, QueueSettings::default());
    (node, queue)
}

fn fill(node: &mut Solo, queue: QueueId) {
    let one = || -> Message { message(&[7; 2_000], false) };
    publish(node, &[queue], (0..MANY).map(|_| one()).collect());
    node.pass(SOON);
}

/// What hosts were told of publishers since the last time.
fn told(node: &mut Solo) -> Vec<bool> {
    let mut told = Vec::new();
    node.events(|event| match event {
        AppEvent::Flow(flows) => {
            told.extend(flows.iter().map(|flow: &Flow| flow.is_held));
            None
        }
        AppEvent::Delivered(_) => None,
        other => Some(other),
    });
    told
}

fn grant(node: &mut Solo, messages: usize) {
    let credit = Credit { messages: messages as u32, bytes: u32::MAX / 2 };
    let reply = node.ask(Request::Grant(vec![(ConsumerId(1), credit)]));
    assert!(matches!(reply, Reply::Done), "{reply:?}");
    node.pass(SOON);
}

#[test]
fn publishers_wait_until_consumers_have_taken_enough() {
    let (mut node, queue) = start(1);
    fill(&mut node, queue);
    assert_eq!(told(&mut node), [false; 0], "there is nobody to wait for");
    consume(&mut node, queue, 1, NONE);
    node.pass(SOON);
    assert_eq!(told(&mut node), [true]);
    grant(&mut node, MANY / 4);
    assert_eq!(told(&mut node), [false; 0]);
    grant(&mut node, MANY / 2);
    assert_eq!(told(&mut node), [false]);
    fill(&mut node, queue);
    assert_eq!(told(&mut node), [true]);
}

#[test]
fn nobody_waits_for_consumers_that_take_nothing() {
    let (mut node, queue) = start(2);
    consume(&mut node, queue, 1, NONE);
    fill(&mut node, queue);
    assert_eq!(told(&mut node), [true]);
    node.pass(FLOW_LOOK);
    assert_eq!(told(&mut node), [false]);
    for _ in 0..8 {
        fill(&mut node, queue);
        assert_eq!(told(&mut node), [false; 0]);
    }
    // Later it is tried again.
    node.pass(FLOW_SPARED);
    fill(&mut node, queue);
    assert_eq!(told(&mut node), [true]);
    node.pass(FLOW_LOOK);
    assert_eq!(told(&mut node), [false]);
}

#[test]
fn nobody_waits_for_a_queue_that_gives_nothing_any_more() {
    type End = fn(&mut Solo, QueueId);
    let closed: End = |node, queue| {
        drop(node.ask(Request::CloseQueue { queue, if_unused: false, if_empty: false }));
    };
    let cancelled: End = |node, _| {
        drop(node.ask(Request::CancelConsumer { consumer: ConsumerId(1), release: true }));
    };
    for (seed, end) in [(3, closed), (4, cancelled), (5, delete as End)] {
        let (mut node, queue) = start(seed);
        consume(&mut node, queue, 1, NONE);
        fill(&mut node, queue);
        assert_eq!(told(&mut node), [true]);
        end(&mut node, queue);
        node.pass(SOON);
        assert_eq!(told(&mut node), [false], "{seed}");
    }
}

#[test]
fn a_shard_that_stores_nothing_any_more_keeps_nobody_waiting() {
    let world = World::new(6, Faults::default());
    let mut node = Solo::start(&world, config()).expect("the directory is new");
    let queue = create(&mut node, "q", true, QueueSettings::default());
    consume(&mut node, queue, 1, NONE);
    fill(&mut node, queue);
    assert_eq!(told(&mut node), [true]);
    let path = "journal".to_owned();
    world.inject(Injection { op: OpKind::Append, path, skip: 0, outcome: Outcome::FlushFails });
    let publish = Publish { queues: vec![queue].into(), message: message(b"x", true) };
    drop(node.ask(Request::Publish(vec![publish])));
    assert!(node.shard().is_poisoned());
    node.pass(SOON);
    assert_eq!(told(&mut node), [false]);
}
