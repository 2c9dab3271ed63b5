//! Messages of queues and what becomes of them, through crashes and through more than the journal holds.

use std::collections::BTreeMap;

use millstream_engine::config::{Config, QueueSettings};
use millstream_engine::error::Refusal;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::shard::change::{Edit, MetadataChange, NewQueue};
use millstream_engine::shard::message::{
    ConsumerId, Credit, Delivery, LeaveReason, Message, Move, Publish, QueueStats, Verdict,
};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{QueueId, Seq, ShardId};
use millstream_tests::queues::{
    PLENTY, consume, create, dead_letters, delete, delivered, message, publish, settle, stats, try_publish,
};
use millstream_tests::solo::{Solo, config};

/// Longer than settlements wait.
const A_WHILE: Nanos = Nanos::from_millis(60);

fn world() -> World {
    World::new(21, Faults::default())
}

fn start(world: &World) -> Solo {
    Solo::start(world, config()).expect("the directory is sound")
}

/// The power fails, and keeps nothing that was not flushed.
fn crash(world: &World, node: Solo) -> Solo {
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    start(world)
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| String::from_utf8_lossy(&delivery.body).into_owned()).collect()
}

fn plain(node: &mut Solo, name: &str) -> QueueId {
    create(node, name, true, QueueSettings::default())
}

fn texts(range: std::ops::Range<usize>, persistent: bool) -> Vec<Message> {
    range.map(|number| message(format!("m{number}").as_bytes(), persistent)).collect()
}

#[test]
fn what_was_acknowledged_is_gone_and_what_was_not_comes_back_as_redelivered() {
    let world = world();
    let mut node = start(&world);
    let queue = plain(&mut node, "q");
    publish(&mut node, &[queue], texts(0..4, true));
    let credit = Credit { messages: 2, bytes: 1_000 };
    consume(&mut node, queue, 1, credit);
    node.pass(A_WHILE);
    let first = delivered(&mut node);
    assert_eq!(bodies(&first), ["m0", "m1"]);
    assert!(first.iter().all(|delivery| !delivery.redelivered && delivery.header[..] == b"head"[..]));
    settle(&mut node, queue, 1, first[0].seq, Verdict::Ack, false);
    node.pass(A_WHILE);
    for _ in 0..2 {
        node = crash(&world, node);
        let stats = stats(&mut node, queue);
        assert_eq!((stats.ready, stats.persistent, stats.unacked), (3, 3, 0));
    }
    consume(&mut node, queue, 1, PLENTY);
    node.pass(A_WHILE);
    let again = delivered(&mut node);
    assert_eq!(bodies(&again), ["m1", "m2", "m3"]);
    assert!(again[0].redelivered, "it was delivered before the crash");
    for delivery in &again {
        settle(&mut node, queue, 1, delivery.seq, Verdict::Ack, true);
    }
    node = crash(&world, node);
    assert_eq!(stats(&mut node, queue).persistent, 0);
    publish(&mut node, &[queue], texts(9..10, true));
    consume(&mut node, queue, 1, PLENTY);
    node.pass(A_WHILE);
    assert!(delivered(&mut node)[0].seq >= Seq(4), "no number is given twice");
}

#[test]
fn what_nobody_was_given_comes_back_as_new_and_in_order() {
    let world = world();
    let mut node = start(&world);
    let queue = plain(&mut node, "q");
    publish(&mut node, &[queue], texts(0..100, true));
    node = crash(&world, node);
    consume(&mut node, queue, 1, PLENTY);
    node.pass(A_WHILE);
    let deliveries = delivered(&mut node);
    let expected: Vec<String> = (0..100).map(|number| format!("m{number}")).collect();
    assert_eq!(bodies(&deliveries), expected);
    assert!(deliveries.iter().all(|delivery| !delivery.redelivered));
}

#[test]
fn transient_messages_and_transient_queues_are_gone_after_a_restart() {
    let world = world();
    let mut node = start(&world);
    let kept = plain(&mut node, "kept");
    let passing = create(&mut node, "passing", false, QueueSettings::default());
    publish(&mut node, &[kept, passing], texts(0..1, true));
    publish(&mut node, &[kept, passing], texts(1..2, false));
    assert_eq!((stats(&mut node, kept).ready, stats(&mut node, passing).ready), (2, 2));
    node = crash(&world, node);
    assert!(node.shard().metadata().queue(passing).is_none());
    consume(&mut node, kept, 1, PLENTY);
    node.pass(A_WHILE);
    assert_eq!(bodies(&delivered(&mut node)), ["m0"]);
}

#[test]
fn queues_that_share_a_message_settle_it_each_for_itself() {
    let world = world();
    let mut node = start(&world);
    let queues = ["a", "b", "c"].map(|name| plain(&mut node, name));
    publish(&mut node, &queues, texts(0..2, true));
    consume(&mut node, queues[0], 1, PLENTY);
    consume(&mut node, queues[1], 2, PLENTY);
    node.pass(A_WHILE);
    for delivery in delivered(&mut node) {
        settle(&mut node, delivery.queue, delivery.consumer.0, delivery.seq, Verdict::Ack, true);
    }
    delete(&mut node, queues[1]);
    node = crash(&world, node);
    assert_eq!(stats(&mut node, queues[0]).ready, 0);
    consume(&mut node, queues[2], 3, PLENTY);
    node.pass(A_WHILE);
    assert_eq!(bodies(&delivered(&mut node)), ["m0", "m1"]);
}

#[test]
fn failures_are_counted_over_a_crash() {
    let world = world();
    let mut node = start(&world);
    let settings = QueueSettings { delivery_limit: Some(2), ..QueueSettings::default() };
    let queue = create(&mut node, "q", true, settings);
    publish(&mut node, &[queue], texts(0..1, true));
    for failures in 0..3 {
        consume(&mut node, queue, 1, PLENTY);
        node.pass(A_WHILE);
        let deliveries = delivered(&mut node);
        assert_eq!(deliveries[0].delivery_count, failures);
        let credit = deliveries.len();
        assert_eq!(credit, 1);
        // Cancelled first, so that it is not delivered at once.
        let cancel = Request::CancelConsumer { consumer: ConsumerId(1), release: false };
        node.ask(cancel);
        let verdict = Verdict::Requeue { failed: true };
        settle(&mut node, queue, 1, deliveries[0].seq, verdict, false);
        node.pass(A_WHILE);
        node = crash(&world, node);
    }
    assert_eq!(stats(&mut node, queue), QueueStats::default(), "it has failed too often");
}

/// A message of some kilobytes that says which one it is.
fn large(number: u32) -> Message {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(4_000, number as u8);
    message(&body, true)
}

fn number(delivery: &Delivery) -> u32 {
    let bytes: [u8; 4] = delivery.body[..4].try_into().expect("it begins with its number");
    assert!(delivery.body[4..].iter().all(|byte| *byte == bytes[0]) && delivery.body.len() == 4_000);
    u32::from_le_bytes(bytes)
}

#[test]
fn a_backlog_larger_than_the_journal_and_memory_is_there_in_order_after_a_crash() {
    const MESSAGES: u32 = 5_000;
    let world = world();
    let mut node = start(&world);
    let queue = plain(&mut node, "q");
    for first in (0..MESSAGES).step_by(50) {
        publish(&mut node, &[queue], (first..first + 50).map(large).collect());
    }
    node = crash(&world, node);
    let stats_before = stats(&mut node, queue);
    assert_eq!(stats_before.ready, u64::from(MESSAGES));
    let credit = Credit { messages: 300, bytes: u32::MAX };
    consume(&mut node, queue, 1, credit);
    let mut expected = 0;
    while expected < MESSAGES {
        node.pass(Nanos::from_millis(5));
        for delivery in delivered(&mut node) {
            assert_eq!(number(&delivery), expected);
            expected += 1;
            settle(&mut node, queue, 1, delivery.seq, Verdict::Ack, false);
            let more = Credit { messages: 1, bytes: 0 };
            let consumer = ConsumerId(1);
            node.ask(Request::Grant(vec![(consumer, more)]));
        }
    }
    node.pass(A_WHILE);
    node = crash(&world, node);
    assert_eq!(stats(&mut node, queue).persistent, 0);
}

#[test]
fn one_message_that_nobody_takes_pins_no_journal_file() {
    let world = world();
    let mut node = start(&world);
    let stuck = plain(&mut node, "stuck");
    let busy = plain(&mut node, "busy");
    publish(&mut node, &[stuck], vec![large(77)]);
    consume(&mut node, busy, 1, PLENTY);
    for first in (0..4_000).step_by(50) {
        publish(&mut node, &[busy], (first..first + 50).map(large).collect());
        node.pass(Nanos::from_millis(1));
        for delivery in delivered(&mut node) {
            settle(&mut node, busy, 1, delivery.seq, Verdict::Ack, false);
        }
    }
    node = crash(&world, node);
    consume(&mut node, stuck, 1, PLENTY);
    node.pass(A_WHILE);
    let deliveries: BTreeMap<QueueId, u32> =
        delivered(&mut node).iter().map(|delivery| (delivery.queue, number(delivery))).collect();
    assert_eq!(deliveries, BTreeMap::from([(stuck, 77)]));
}

#[test]
fn a_dead_letter_moves_with_its_settlement_in_one_step() {
    let world = world();
    let mut node = start(&world);
    let settings = QueueSettings { dead_letter: true, max_messages: Some(1), ..QueueSettings::default() };
    let source = create(&mut node, "source", true, settings);
    let target = plain(&mut node, "target");
    publish(&mut node, &[source], texts(0..2, true));
    node.pass(A_WHILE);
    let asked = dead_letters(&mut node);
    assert_eq!((asked.len(), asked[0].reason, &asked[0].body[..]), (1, LeaveReason::MaxLength, &b"m0"[..]));
    // Nobody has answered: it is asked again.
    node = crash(&world, node);
    node.pass(A_WHILE);
    let asked = dead_letters(&mut node);
    assert_eq!(asked.len(), 1);
    let moved = |seq| {
        let targets = vec![(ShardId(0), target)];
        Request::Move(Box::new(Move { queue: source, seq, targets, message: message(b"dead", true) }))
    };
    assert!(matches!(node.ask(moved(Seq(1))), Reply::Refused(_)), "that one does not leave");
    assert!(matches!(node.ask(moved(asked[0].seq)), Reply::Done));
    assert!(matches!(node.ask(moved(asked[0].seq)), Reply::Refused(_)), "it has left");
    node.pass(A_WHILE);
    for _ in 0..2 {
        node = crash(&world, node);
        node.pass(A_WHILE);
        assert!(dead_letters(&mut node).is_empty());
        let (left, arrived) = (stats(&mut node, source), stats(&mut node, target));
        assert_eq!((left.ready, left.leaving, arrived.ready), (1, 0, 1));
    }
}

#[test]
fn who_gets_one_by_one_keeps_what_it_got_until_it_is_released() {
    let world = world();
    let mut node = start(&world);
    let queue = plain(&mut node, "q");
    publish(&mut node, &[queue], texts(0..3, true));
    let get = |no_ack| Request::Get { queue, consumer: ConsumerId(9), no_ack };
    let Reply::Got(Some(first), 2) = node.ask(get(false)) else { panic!("one was ready") };
    let Reply::Got(Some(second), 1) = node.ask(get(true)) else { panic!("one was ready") };
    assert_eq!(bodies(&[first, second]), ["m0", "m1"]);
    assert_eq!(stats(&mut node, queue).unacked, 1);
    let cancel = Request::CancelConsumer { consumer: ConsumerId(9), release: true };
    assert!(matches!(node.ask(cancel), Reply::Cancelled { consumers: 0 }));
    let Reply::Got(Some(again), 1) = node.ask(get(false)) else { panic!("it has gone back") };
    assert!(again.redelivered && again.body[..] == b"m0"[..]);
    node.pass(A_WHILE);
    node = crash(&world, node);
    assert_eq!(stats(&mut node, queue).ready, 2, "what was got without acknowledgement is gone");
}

#[test]
fn a_message_larger_than_a_group_is_one_message_like_any_other() {
    let world = world();
    let mut node = start(&world);
    let queues = ["a", "b"].map(|name| plain(&mut node, name));
    let large = |byte: u8| -> Vec<u8> { (0..3_000_000_u32).map(|at| (at % 251) as u8 ^ byte).collect() };
    let message = |byte| Message { body: vec![large(byte).into()].into(), ..message(b"", true) };
    publish(&mut node, &queues, vec![message(1), message(2)]);
    publish(&mut node, &queues[..1], texts(0..1, true));
    consume(&mut node, queues[0], 1, PLENTY);
    node.pass(A_WHILE);
    let deliveries = delivered(&mut node);
    let sizes: Vec<usize> = deliveries.iter().map(|delivery| delivery.body.len()).collect();
    assert_eq!(sizes, [3_000_000, 3_000_000, 2]);
    for delivery in &deliveries {
        settle(&mut node, queues[0], 1, delivery.seq, Verdict::Ack, true);
    }
    // More than the journal holds comes behind it.
    for first in (0..2_000).step_by(50) {
        publish(&mut node, &queues[..1], (first..first + 50).map(self::large).collect());
        node.pass(Nanos::from_millis(1));
        for delivery in delivered(&mut node) {
            settle(&mut node, queues[0], 1, delivery.seq, Verdict::Ack, false);
        }
    }
    node.pass(A_WHILE);
    for life in 0..2 {
        node = crash(&world, node);
        assert_eq!(stats(&mut node, queues[0]).persistent, 0, "life {life}");
        assert_eq!(stats(&mut node, queues[1]).ready_bytes, 6_000_008);
    }
    consume(&mut node, queues[1], 1, PLENTY);
    node.pass(A_WHILE);
    let deliveries = delivered(&mut node);
    let whole = deliveries.iter().zip(1..).all(|(delivery, byte)| delivery.body[..] == large(byte)[..]);
    assert!(deliveries.len() == 2 && whole);
}

#[test]
fn a_deleted_queue_is_forgotten_when_no_journal_tells_of_it() {
    let world = world();
    let mut node = start(&world);
    let (gone, busy) = (plain(&mut node, "gone"), plain(&mut node, "busy"));
    publish(&mut node, &[gone, busy], texts(0..2, true));
    delete(&mut node, gone);
    node = crash(&world, node);
    assert!(node.shard().metadata().deleted_queues.contains(&gone));
    consume(&mut node, busy, 1, PLENTY);
    for first in (0..3_000).step_by(50) {
        publish(&mut node, &[busy], (first..first + 50).map(large).collect());
        node.pass(Nanos::from_millis(1));
        for delivery in delivered(&mut node).into_iter().skip(1) {
            settle(&mut node, busy, 1, delivery.seq, Verdict::Ack, false);
        }
    }
    node.pass(Nanos::from_millis(3_000));
    assert!(node.shard().metadata().deleted_queues.is_empty(), "nothing is left of it");
    for _ in 0..2 {
        node = crash(&world, node);
        assert!(stats(&mut node, busy).ready >= 30, "some of each batch was left, and is there");
    }
}

#[test]
fn queues_that_nothing_happens_to_cost_a_turn_nothing() {
    let world = world();
    let mut node = start(&world);
    let busy = plain(&mut node, "busy");
    for number in 0..200 {
        let settings = QueueSettings { message_ttl_ms: Some(60_000), ..QueueSettings::default() };
        let idle = create(&mut node, &format!("idle {number}"), true, settings);
        publish(&mut node, &[idle], texts(0..1, true));
    }
    consume(&mut node, busy, 1, PLENTY);
    publish(&mut node, &[busy], texts(0..1, true));
    node.pass(A_WHILE);
    let seq = delivered(&mut node)[0].seq;
    settle(&mut node, busy, 1, seq, Verdict::Ack, true);
    // Whatever there was to be done has been done: from now on turns are others'.
    node.pass(A_WHILE);
    let turns = |node: &mut Solo| {
        let metrics = node.metrics();
        (metrics.get(|shard| shard.turns.get()), metrics.get(|shard| shard.queue_turns.get()))
    };
    let before = turns(&mut node);
    node.pass(Nanos::from_millis(500));
    let after = turns(&mut node);
    assert!(after.0 > before.0 + 100, "the host looks around every millisecond");
    assert_eq!(after.1, before.1);
    // What they wait for is not forgotten.
    node.pass(Nanos::from_millis(61_000));
    let last = create(&mut node, "last", true, QueueSettings::default());
    assert_eq!(stats(&mut node, last), QueueStats::default());
    for queue in node.shard().metadata().queues.keys().copied().collect::<Vec<_>>() {
        assert_eq!(stats(&mut node, queue).ready, 0, "it has expired");
    }
}

#[test]
fn what_was_purged_stays_away_once_that_was_said() {
    for persistent_only in [true, false] {
        let world = world();
        let mut node = start(&world);
        let queue = plain(&mut node, "q");
        publish(&mut node, &[queue], texts(0..3_000, true));
        if !persistent_only {
            publish(&mut node, &[queue], texts(0..1_500, false));
        }
        let messages = if persistent_only { 3_000 } else { 4_500 };
        assert!(matches!(node.ask(Request::Purge(queue)), Reply::Purged(purged) if purged == messages));
        node = crash(&world, node);
        assert_eq!(stats(&mut node, queue).persistent, 0);
    }
}

#[test]
fn a_purge_takes_what_was_there_and_is_answered_though_the_queue_is_deleted() {
    let world = world();
    let mut node = start(&world);
    let queue = plain(&mut node, "q");
    publish(&mut node, &[queue], texts(0..10, true));
    consume(&mut node, queue, 1, Credit { messages: 3, bytes: 1_000 });
    node.pass(A_WHILE);
    assert_eq!(delivered(&mut node).len(), 3);
    assert!(matches!(node.ask(Request::Purge(queue)), Reply::Purged(7)), "what somebody keeps stays");
    assert!(matches!(node.ask(Request::Purge(queue)), Reply::Purged(0)));
    delete(&mut node, queue);
    assert!(matches!(node.ask(Request::Purge(queue)), Reply::Refused(Refusal::UnknownQueue)));
    node = crash(&world, node);
    assert!(node.shard().metadata().queue(queue).is_none(), "a queue that was deleted stays away, too");
}

#[test]
fn a_message_for_more_queues_than_one_record_names_is_in_all_of_them() {
    const QUEUES: usize = 1_030;
    let world = world();
    let mut node = start(&world);
    let edits = (0..QUEUES).map(|number| {
        let (name, settings) = (format!("q{number}").into(), QueueSettings::default());
        Edit::CreateQueue(NewQueue { name, durable: true, settings })
    });
    let change = MetadataChange { guards: Vec::new(), edits: edits.collect() };
    let Reply::Changed(mut queues) = node.ask(Request::ChangeMetadata(change)) else { panic!("made") };
    delete(&mut node, queues[1_025]);
    let message = message(b"to all", true);
    let publish = vec![Publish { queues: queues.clone().into(), message }];
    let Reply::Published(outcomes) = node.ask(Request::Publish(publish)) else { panic!("published") };
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].refused, [(queues.remove(1_025), Refusal::UnknownQueue)]);
    for _ in 0..2 {
        for some in queues.chunks(1_000) {
            let look = Request::QueueStats { queues: some.to_vec(), touch: false };
            let Reply::QueueStats(all) = node.ask(look) else { panic!("they are there") };
            assert!(all.len() == some.len() && all.iter().all(|(_, stats)| stats.ready == 1));
        }
        node = crash(&world, node);
    }
}

/// More than the journal holds goes through a queue, and is acknowledged.
fn turn_the_journal_over(node: &mut Solo, busy: QueueId) {
    for first in (0..2_500).step_by(50) {
        publish(node, &[busy], (first..first + 50).map(large).collect());
        node.pass(Nanos::from_millis(1));
        for delivery in delivered(node).iter().filter(|delivery| delivery.queue == busy) {
            settle(node, busy, 1, delivery.seq, Verdict::Ack, false);
        }
    }
    node.pass(Nanos::from_millis(3_000));
}

#[test]
fn a_message_of_which_all_queues_were_deleted_hinders_no_start() {
    let world = world();
    let mut node = start(&world);
    let (first, second) = (plain(&mut node, "first"), plain(&mut node, "second"));
    let busy = plain(&mut node, "busy");
    consume(&mut node, busy, 1, PLENTY);
    publish(&mut node, &[first, second], texts(0..3, true));
    delete(&mut node, first);
    turn_the_journal_over(&mut node, busy);
    // The message has been carried for the second, and still names the first, whose deletion is forgotten.
    assert!(node.shard().metadata().deleted_queues.is_empty(), "nothing is left of it");
    assert_eq!(stats(&mut node, second).ready, 3);
    delete(&mut node, second);
    for _ in 0..2 {
        node = crash(&world, node);
        assert!(node.shard().metadata().queue(second).is_none());
    }
}

#[test]
fn a_queue_that_is_being_deleted_refuses_what_comes_as_one_that_may_stay() {
    let world = world();
    let mut node = start(&world);
    let (closed, open) = (plain(&mut node, "closed"), plain(&mut node, "open"));
    let close = Request::CloseQueue { queue: closed, if_unused: true, if_empty: true };
    assert!(matches!(node.ask(close), Reply::Closed(_)));
    let outcomes = try_publish(&mut node, &[closed, open], texts(0..1, true)).expect("the machine runs");
    assert_eq!(
        outcomes[0].refused,
        [(closed, Refusal::Busy)],
        "nobody confirms it, and nobody says that it has gone"
    );
    assert!(matches!(node.ask(Request::OpenQueue(closed)), Reply::Done));
    publish(&mut node, &[closed, open], texts(1..2, true));
    assert_eq!((stats(&mut node, closed).ready, stats(&mut node, open).ready), (1, 2));
}

/// A node whose journal keeps messages of some megabytes in memory.
fn roomy(world: &World) -> Solo {
    let config = Config { journal_bytes: 64 << 20, journal_file_bytes: 8 << 20, ..config() };
    Solo::start(world, config).expect("the directory is sound")
}

/// Queues with messages, and consumers of the same numbers that are let go at the same moment.
fn race(node: &mut Solo, queues: &[(QueueId, Vec<Message>)]) -> Vec<(u64, usize)> {
    let mut grants = Vec::new();
    for ((queue, messages), consumer) in queues.iter().zip(1..) {
        publish(node, &[*queue], messages.clone());
        consume(node, *queue, consumer, Credit::default());
        grants.push((ConsumerId(consumer), PLENTY));
    }
    node.ask(Request::Grant(grants));
    node.pass(A_WHILE);
    delivered(node).iter().map(|delivery| (delivery.consumer.0, delivery.body.len())).collect()
}

const LARGE_BYTES: usize = 1_500_000;

fn in_pieces() -> Message {
    Message { body: vec![vec![7; LARGE_BYTES].into()].into(), ..message(b"", true) }
}

#[test]
fn a_message_in_pieces_does_not_hold_up_what_others_are_given() {
    let world = world();
    let mut node = roomy(&world);
    let queues = ["a", "b"].map(|name| plain(&mut node, name));
    let given = race(&mut node, &[(queues[0], vec![in_pieces()]), (queues[1], texts(0..1, true))]);
    assert_eq!(given, [(2, 2), (1, LARGE_BYTES)]);
}

#[test]
fn consumers_of_messages_in_pieces_take_turns_and_nobody_waits_for_who_has_gone() {
    let world = world();
    let mut node = roomy(&world);
    let queues = ["a", "b", "c"].map(|name| plain(&mut node, name));
    let two = || vec![in_pieces(), in_pieces()];
    let given = race(&mut node, &[(queues[0], two()), (queues[1], two())]);
    assert_eq!(given.iter().map(|(consumer, _)| *consumer).collect::<Vec<_>>(), [1, 2, 1, 2]);
    // One is cancelled while its message is being put together.
    publish(&mut node, &[queues[2]], vec![in_pieces()]);
    consume(&mut node, queues[2], 3, PLENTY);
    node.ask(Request::CancelConsumer { consumer: ConsumerId(3), release: true });
    publish(&mut node, &[queues[0]], vec![in_pieces()]);
    node.pass(A_WHILE);
    let consumers: Vec<u64> = delivered(&mut node).iter().map(|delivery| delivery.consumer.0).collect();
    assert!(consumers.ends_with(&[1]), "{consumers:?}");
}

#[test]
fn a_message_larger_than_what_readers_have_is_given_out() {
    const BYTES: usize = 20_000_000;
    let world = world();
    let mut node = roomy(&world);
    let queue = plain(&mut node, "q");
    publish(
        &mut node,
        &[queue],
        vec![Message { body: vec![vec![9; BYTES].into()].into(), ..message(b"", true) }],
    );
    consume(&mut node, queue, 1, PLENTY);
    node.pass(Nanos::from_millis(500));
    let deliveries = delivered(&mut node);
    assert!(deliveries.len() == 1 && deliveries[0].body.len() == BYTES);
}
