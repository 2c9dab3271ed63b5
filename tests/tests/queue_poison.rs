//! Queues on a shard whose journal has failed to flush: everybody is answered, nobody is given anything, nothing grows.

use millstream_engine::config::QueueSettings;
use millstream_engine::error::Refusal;
use millstream_engine::io::fault::{Faults, Injection, OpKind, Outcome};
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::shard::message::{
    CancelReason, Consume, ConsumerId, Credit, Move, Publish, Settlement, Verdict,
};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{QueueId, Seq, ShardId};
use millstream_tests::queues::{PLENTY, consume, create, dead_letters, delivered, message, publish, stats};
use millstream_tests::solo::{Solo, config};

const A_WHILE: Nanos = Nanos::from_millis(60);

fn world() -> World {
    World::new(31, Faults::default())
}

fn start(world: &World) -> Solo {
    Solo::start(world, config()).expect("the directory is sound")
}

fn fail_next_commit(world: &World) {
    let path = "journal".to_owned();
    world.inject(Injection { op: OpKind::Append, path, skip: 0, outcome: Outcome::FlushFails });
}

fn ack(queue: QueueId, consumer: u64, seq: Seq) -> Vec<Settlement> {
    let (consumer, verdict) = (ConsumerId(consumer), Verdict::Ack);
    vec![Settlement { queue, consumer, first: seq, last: seq, verdict }]
}

fn is_poisoned(reply: &Reply) -> bool {
    matches!(reply, Reply::Refused(Refusal::Poisoned))
}

/// Every request there is about a queue, but for those that only look.
fn requests(queue: QueueId) -> Vec<Request> {
    let consumer = ConsumerId(1);
    let moved = Move { queue, seq: Seq(0), targets: vec![(ShardId(0), queue)], message: message(b"x", true) };
    vec![
        Request::Settle { settlements: ack(queue, 1, Seq(0)), durable: true },
        Request::Settle { settlements: ack(queue, 1, Seq(0)), durable: false },
        Request::Grant(vec![(consumer, PLENTY)]),
        Request::Get { queue, consumer: ConsumerId(2), no_ack: false },
        Request::Purge(queue),
        Request::CloseQueue { queue, if_unused: false, if_empty: false },
        Request::OpenQueue(queue),
        Request::Move(Box::new(moved)),
        Request::Consume(Consume {
            queue,
            consumer: ConsumerId(3),
            no_ack: true,
            exclusive: false,
            priority: 0,
            timeout_ms: None,
            credit: PLENTY,
        }),
    ]
}

#[test]
fn a_durable_settlement_that_the_poison_overtakes_is_refused_like_everything_after_it() {
    let world = world();
    let mut node = start(&world);
    let queue = create(&mut node, "q", true, QueueSettings::default());
    publish(&mut node, &[queue], (0..10_u8).map(|number| message(&[number], true)).collect());
    consume(&mut node, queue, 1, Credit { messages: 4, bytes: 1_000 });
    node.pass(A_WHILE);
    let first = delivered(&mut node);
    assert_eq!(first.len(), 4);
    fail_next_commit(&world);
    let settle = Request::Settle { settlements: ack(queue, 1, first[0].seq), durable: true };
    assert!(is_poisoned(&node.ask(settle)));
    assert!(node.shard().is_poisoned());
    let mut ended = Vec::new();
    node.events(|event| {
        if let AppEvent::ConsumerCancelled { consumer, queue, reason } = event {
            ended.push((consumer, queue, reason));
        }
        None
    });
    assert_eq!(ended, [(ConsumerId(1), queue, CancelReason::Poisoned)]);
    for round in 0..20 {
        for request in requests(queue) {
            let text = format!("{request:?}");
            let reply = node.ask(request);
            assert!(is_poisoned(&reply), "round {round}: {text} was answered {reply:?}");
        }
        let cancel = Request::CancelConsumer { consumer: ConsumerId(1), release: true };
        assert!(matches!(node.ask(cancel), Reply::Refused(Refusal::UnknownConsumer)));
        let publish = Publish { queues: vec![queue].into(), message: message(b"late", true) };
        let Reply::Published(outcomes) = node.ask(Request::Publish(vec![publish])) else {
            panic!("an outcome")
        };
        assert_eq!(outcomes[0].refused, [(queue, Refusal::Poisoned)]);
    }
    node.pass(Nanos::from_millis(2_000));
    node.events(|event| panic!("nobody is told anything any more: {event:?}"));
    let stats = stats(&mut node, queue);
    assert_eq!(stats.consumers, 0);
    let held = node.shard().queues_held();
    assert!(held.values().all(|count| *count == 0), "{held:?}");
    // What was not settled durably is there at the next start.
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    let mut node = start(&world);
    // Of a flush that has failed nobody knows what it has done.
    assert!((9..=10).contains(&self::stats(&mut node, queue).ready));
}

#[test]
fn who_waits_for_a_message_when_the_poison_comes_is_answered() {
    let world = world();
    let mut node = start(&world);
    let queue = create(&mut node, "q", true, QueueSettings::default());
    publish(&mut node, &[queue], vec![message(b"one", true)]);
    // Nothing goes out before the mark above it is durable.
    fail_next_commit(&world);
    let get = Request::Get { queue, consumer: ConsumerId(2), no_ack: false };
    assert!(is_poisoned(&node.ask(get)));
    assert!(delivered(&mut node).is_empty());
}

#[test]
fn a_purge_that_the_poison_overtakes_is_refused() {
    let world = world();
    let mut node = start(&world);
    let queue = create(&mut node, "q", true, QueueSettings::default());
    publish(&mut node, &[queue], (0..10_u8).map(|number| message(&[number], true)).collect());
    fail_next_commit(&world);
    assert!(is_poisoned(&node.ask(Request::Purge(queue))));
}

#[test]
fn a_poisoned_shard_asks_nobody_about_dead_letters() {
    let world = world();
    let mut node = start(&world);
    let settings = QueueSettings { dead_letter: true, max_messages: Some(1), ..QueueSettings::default() };
    let queue = create(&mut node, "q", true, settings);
    publish(&mut node, &[queue], vec![message(b"one", true)]);
    fail_next_commit(&world);
    let late = Publish { queues: vec![queue].into(), message: message(b"two", true) };
    assert!(is_poisoned(&node.ask(Request::Publish(vec![late]))));
    node.pass(Nanos::from_millis(3_000));
    assert!(dead_letters(&mut node).is_empty());
    assert_eq!(node.shard().queues_held()["told"], 0);
}
