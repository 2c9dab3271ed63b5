//! Messages that leave queues of one shard for those of another: no shard that takes nothing holds up the others, and what is
//! remembered of them is bounded.

use std::collections::BTreeMap;

use millstream_engine::config::QueueSettings;
use millstream_engine::io::fault::{Faults, Injection, OpKind, Outcome};
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::shard::change::{Edit, MetadataChange, NewQueue};
use millstream_engine::shard::message::{
    Consume, ConsumerId, DeadLetter, Message, Move, Publish, Settlement, Verdict,
};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{QueueId, Seq, ShardId};
use millstream_tests::queues::{PLENTY, message};
use millstream_tests::several::Several;

const HERE: ShardId = ShardId(0);
const THERE: ShardId = ShardId(1);
const A_SECOND: Nanos = Nanos::from_millis(1_000);

fn start(world: &World, shards: u16) -> Several {
    Several::start(world, shards, 9).expect("the directory is sound")
}

fn crash(world: &World, node: Several, shards: u16) -> Several {
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    start(world, shards)
}

fn dead_letters() -> QueueSettings {
    QueueSettings { dead_letter: true, ..QueueSettings::default() }
}

fn numbered(range: std::ops::Range<u32>, persistent: bool) -> Vec<Message> {
    range.map(|number| message(&number.to_le_bytes(), persistent)).collect()
}

fn number(body: &[u8]) -> u32 {
    u32::from_le_bytes(body[..4].try_into().expect("it begins with its number"))
}

/// Has everything in a queue rejected.
fn reject_all(node: &mut Several, queue: QueueId, messages: u64) {
    let shard = node.shard_of(queue);
    let consumer = ConsumerId(77);
    let consume = Consume {
        queue,
        consumer,
        no_ack: false,
        exclusive: false,
        priority: 0,
        timeout_ms: None,
        credit: PLENTY,
    };
    node.ask(shard, Request::Consume(consume));
    while node.stats(queue).unacked < messages {
        node.pass(Nanos::from_millis(5));
    }
    let (first, last) = (Seq(0), Seq(u64::MAX));
    let settlement = Settlement { queue, consumer, first, last, verdict: Verdict::Reject };
    node.ask(shard, Request::Settle { settlements: vec![settlement], durable: true });
    node.ask(shard, Request::CancelConsumer { consumer, release: true });
}

/// Answers the host's questions of a shard for so long; `to` says where a message goes. Gives how often each was asked about.
fn answer(
    node: &mut Several,
    shard: ShardId,
    span: Nanos,
    to: impl Fn(&DeadLetter) -> Vec<(ShardId, QueueId)>,
) -> BTreeMap<u32, u32> {
    let mut asked = BTreeMap::new();
    for _ in 0..span.0 / 1_000_000 / 2 {
        node.pass(Nanos::from_millis(2));
        for letter in node.dead_letters(shard) {
            *asked.entry(number(&letter.body)).or_default() += 1;
            let moved = Move {
                queue: letter.queue,
                seq: letter.seq,
                targets: to(&letter),
                message: message(&letter.body, letter.persistent),
            };
            node.send(shard, shard, Request::Move(Box::new(moved)));
        }
    }
    asked
}

fn poison(world: &World, node: &mut Several, shard: ShardId, queue: QueueId) {
    let path = format!("-{}/journal", shard.0);
    world.inject(Injection { op: OpKind::Append, path, skip: 0, outcome: Outcome::FlushFails });
    let publish = Publish { queues: vec![queue].into(), message: message(b"x", true) };
    node.ask(shard, Request::Publish(vec![publish]));
    assert!(node.node.shard(shard).is_poisoned());
}

#[test]
fn a_poisoned_shard_keeps_no_dead_letter_from_going_to_another() {
    let world = World::new(3, Faults::default());
    let mut node = start(&world, 3);
    let source = node.create_on(HERE, "source", &dead_letters());
    let sick = node.create_on(THERE, "sick", &QueueSettings::default());
    let healthy = node.create_on(ShardId(2), "healthy", &QueueSettings::default());
    node.publish(source, numbered(0..700, true));
    poison(&world, &mut node, THERE, sick);
    reject_all(&mut node, source, 700);
    let to = |letter: &DeadLetter| match number(&letter.body) {
        0..600 => vec![(THERE, sick)],
        _ => vec![(ShardId(2), healthy)],
    };
    let asked = answer(&mut node, HERE, Nanos::from_millis(2_000), to);
    assert_eq!(node.stats(healthy).ready, 100, "all that could go have gone");
    assert_eq!(node.stats(source).leaving, 600);
    assert!(
        asked.values().sum::<u32>() < 700 + 2 * 1_024 + 600,
        "those that stay are asked about in moderation"
    );
    let held = node.node.shard(HERE).queues_held();
    assert!(held["told"] <= 256 && held["waits"] == 0, "{held:?}");
    // When the shard is well again all of them go, each once.
    let mut node = crash(&world, node, 3);
    answer(&mut node, HERE, Nanos::from_millis(4_000), to);
    assert_eq!(
        (node.stats(source).leaving, node.stats(sick).ready, node.stats(healthy).ready),
        (0, 600, 100)
    );
}

#[test]
fn a_queue_with_many_dead_letters_keeps_no_other_waiting() {
    let world = World::new(4, Faults::default());
    let mut node = start(&world, 1);
    let (_, many) = node.create("many", dead_letters());
    let (_, few) = node.create("few", dead_letters());
    node.publish(many, numbered(0..2_000, true));
    node.publish(few, numbered(5_000..5_010, true));
    reject_all(&mut node, many, 2_000);
    reject_all(&mut node, few, 10);
    node.pass(A_SECOND);
    // Nobody answers: as many are asked about as may be.
    let asked: Vec<u32> = node.dead_letters(HERE).iter().map(|letter| number(&letter.body)).collect();
    assert_eq!(asked.len(), 256);
    // The first answers make room for those of the other queue.
    for seq in 0..32 {
        let moved = Move { queue: many, seq: Seq(seq), targets: Vec::new(), message: message(b"", true) };
        assert!(matches!(node.ask(HERE, Request::Move(Box::new(moved))), Reply::Done));
    }
    node.pass(A_SECOND);
    let few = node.dead_letters(HERE).iter().filter(|letter| letter.queue == few).count();
    assert_eq!(few, 10);
}

#[test]
fn a_message_is_moved_once_however_often_that_is_asked() {
    let world = World::new(5, Faults::default());
    let mut node = start(&world, 2);
    let source = node.create_on(HERE, "source", &dead_letters());
    let target = node.create_on(THERE, "target", &QueueSettings::default());
    node.publish(source, numbered(0..1, true));
    reject_all(&mut node, source, 1);
    node.pass(A_SECOND);
    let letter = node.dead_letters(HERE).pop().expect("it leaves");
    let moved = || {
        let (queue, seq, targets) = (letter.queue, letter.seq, vec![(THERE, target)]);
        Request::Move(Box::new(Move { queue, seq, targets, message: message(&letter.body, true) }))
    };
    let tokens = [0; 3].map(|_| node.send(HERE, HERE, moved()));
    node.pass(A_SECOND);
    let replies = tokens.map(|token| matches!(node.answer(token), Some(Reply::Done)));
    assert_eq!(replies, [true, false, false]);
    assert_eq!((node.stats(source).leaving, node.stats(target).ready), (0, 1));
}

#[test]
fn a_move_to_a_closed_queue_is_put_off_until_it_is_open_again_or_gone() {
    let world = World::new(6, Faults::default());
    let mut node = start(&world, 2);
    for there in [HERE, THERE] {
        let source = node.create_on(HERE, &format!("source{}-", there.0), &dead_letters());
        let target = node.create_on(there, &format!("target{}-", there.0), &QueueSettings::default());
        node.publish(source, numbered(0..3, true));
        let close = Request::CloseQueue { queue: target, if_unused: false, if_empty: false };
        assert!(matches!(node.ask(there, close), Reply::Closed(_)));
        reject_all(&mut node, source, 3);
        let to = |_: &DeadLetter| vec![(there, target)];
        let asked = answer(&mut node, HERE, Nanos::from_millis(3_500), to);
        assert!(asked.values().all(|times| (2..6).contains(times)), "{asked:?}");
        assert_eq!(node.stats(source).leaving, 3);
        assert!(matches!(node.ask(there, Request::OpenQueue(target)), Reply::Done));
        answer(&mut node, HERE, Nanos::from_millis(2_000), to);
        assert_eq!((node.stats(source).leaving, node.stats(target).ready), (0, 3), "{there:?}");
    }
}

/// How many names a shard remembers.
fn names(node: &Several, shard: ShardId) -> usize {
    node.node.shard(shard).queues_held()["names"]
}

#[test]
fn no_name_is_remembered_of_a_message_that_has_left() {
    // Cut off at many moments, so that each word between the two shards is lost in some of them.
    for cut in 0..14 {
        let world = World::new(40 + cut, Faults::default());
        let mut node = start(&world, 2);
        let source = node.create_on(HERE, "source", &dead_letters());
        let target = node.create_on(THERE, "target", &QueueSettings::default());
        node.publish(source, numbered(0..20, true));
        reject_all(&mut node, source, 20);
        let to = |_: &DeadLetter| vec![(THERE, target)];
        answer(&mut node, HERE, Nanos::from_millis(2 * (cut + 1)), to);
        let mut node = crash(&world, node, 2);
        answer(&mut node, HERE, Nanos::from_millis(1_500), to);
        assert_eq!((node.stats(source).leaving, node.stats(target).ready), (0, 20), "cut {cut}");
        assert_eq!(names(&node, THERE), 0, "cut {cut}");
    }
}

#[test]
fn transient_messages_leave_no_name() {
    let world = World::new(60, Faults::default());
    let mut node = start(&world, 2);
    let source = node.create_on(HERE, "source", &dead_letters());
    let target = node.create_on(THERE, "target", &QueueSettings::default());
    node.publish(source, numbered(0..20, false));
    reject_all(&mut node, source, 20);
    answer(&mut node, HERE, A_SECOND, |_| vec![(THERE, target)]);
    assert_eq!((node.stats(target).ready, names(&node, THERE)), (20, 0));
    // Their records are in the journal all the same.
    node.publish(target, numbered(50..51, true));
    drop(node);
    world.crash(Crash::Kill);
    let node = start(&world, 2);
    assert_eq!(names(&node, THERE), 0);
}

#[test]
fn names_go_with_the_queue_that_they_are_of() {
    let world = World::new(61, Faults::default());
    let mut node = start(&world, 2);
    let source = node.create_on(HERE, "source", &dead_letters());
    let target = node.create_on(THERE, "target", &QueueSettings::default());
    let closed = node.create_on(HERE, "closed", &QueueSettings::default());
    let close = Request::CloseQueue { queue: closed, if_unused: false, if_empty: false };
    node.ask(HERE, close);
    node.publish(source, numbered(0..5, true));
    reject_all(&mut node, source, 5);
    // They arrive there, and do not leave, for the other queue does not take them.
    answer(&mut node, HERE, Nanos::from_millis(500), |_| vec![(THERE, target), (HERE, closed)]);
    assert_eq!((node.stats(source).leaving, node.stats(target).ready, names(&node, THERE)), (5, 5, 5));
    let change = MetadataChange { guards: Vec::new(), edits: vec![Edit::DeleteQueue(source)] };
    assert!(matches!(node.ask(HERE, Request::ChangeMetadata(change)), Reply::Changed(_)));
    node.pass(Nanos::from_millis(100));
    assert_eq!(names(&node, THERE), 0);
    let node = crash(&world, node, 2);
    assert_eq!(names(&node, THERE), 0);
}

/// So many queues, and the shard of each.
fn targets(node: &mut Several, count: usize) -> Vec<(ShardId, QueueId)> {
    let edits = (0..count).map(|number| {
        let (name, settings) = (format!("target{number}").into(), QueueSettings::default());
        Edit::CreateQueue(NewQueue { name, durable: true, settings })
    });
    let change = MetadataChange { guards: Vec::new(), edits: edits.collect() };
    let Reply::Changed(made) = node.ask(HERE, Request::ChangeMetadata(change)) else { panic!("made") };
    made.iter().map(|queue| (node.shard_of(*queue), *queue)).collect()
}

#[test]
fn a_dead_letter_goes_to_more_queues_than_one_record_names() {
    const QUEUES: usize = 1_100;
    let world = World::new(62, Faults::default());
    let mut node = start(&world, 2);
    let source = node.create_on(HERE, "source", &dead_letters());
    let to = targets(&mut node, 2 * QUEUES);
    node.publish(source, numbered(0..1, true));
    reject_all(&mut node, source, 1);
    assert!(to.iter().filter(|(shard, _)| *shard == THERE).count() > 1_024);
    answer(&mut node, HERE, Nanos::from_millis(1_000), |_| to.clone());
    assert_eq!(node.stats(source).leaving, 0);
    let mut node = crash(&world, node, 2);
    for shard in [HERE, THERE] {
        let queues: Vec<QueueId> =
            to.iter().filter(|(on, _)| *on == shard).map(|(_, queue)| *queue).collect();
        for queues in queues.chunks(1_000) {
            let look = Request::QueueStats { queues: queues.to_vec(), touch: false };
            let Reply::QueueStats(stats) = node.ask(shard, look) else { panic!("they are there") };
            assert!(stats.len() == queues.len() && stats.iter().all(|(_, stats)| stats.ready == 1));
        }
    }
    assert_eq!(names(&node, THERE), 0);
}

#[test]
fn a_dead_letter_on_its_way_arrives_once_whatever_the_number_of_shards_becomes() {
    for (then, last, cut) in [(1, 3, 0), (1, 2, 1), (2, 1, 2), (2, 4, 3), (4, 2, 4), (4, 1, 0)] {
        let world = World::new(80 + cut, Faults::default());
        let mut node = start(&world, 3);
        let source = node.create_on(HERE, "source", &dead_letters());
        let near = node.create_on(HERE, "near", &QueueSettings::default());
        let far = [1, 2]
            .map(|shard| node.create_on(ShardId(shard), &format!("far{shard}-"), &QueueSettings::default()));
        let go_on = |node: &mut Several, span| {
            let to = [far[0], near, far[1]].map(|queue| (node.shard_of(queue), queue));
            let shard = node.shard_of(source);
            answer(node, shard, Nanos::from_millis(span), |_| to.to_vec());
        };
        node.publish(source, numbered(0..20, true));
        // They come to the other shards, and do not leave, for the near queue does not take them.
        let close = Request::CloseQueue { queue: near, if_unused: false, if_empty: false };
        assert!(matches!(node.ask(HERE, close), Reply::Closed(_)));
        reject_all(&mut node, source, 20);
        go_on(&mut node, 500);
        assert_eq!((node.stats(source).leaving, far.map(|queue| node.stats(queue).ready)), (20, [20; 2]));
        // With other numbers of shards the old place and the new ones come to be on one, or apart, or with queues of others.
        let mut node = crash(&world, node, then);
        go_on(&mut node, 2 * cut);
        let mut node = crash(&world, node, last);
        go_on(&mut node, 1_500);
        let ready = [far[0], near, far[1]].map(|queue| node.stats(queue).ready);
        assert_eq!((node.stats(source).leaving, ready), (0, [20; 3]), "{then} shards, then {last}");
        let remembered: Vec<usize> = (0..last).map(|shard| names(&node, ShardId(shard))).collect();
        assert!(remembered.iter().all(|names| *names == 0), "{then} shards, then {last}: {remembered:?}");
    }
}

#[test]
fn a_dead_letter_for_more_queues_than_one_record_names_comes_to_each_once_though_cut_off() {
    const QUEUES: usize = 1_100;
    for cut in 0..8 {
        let world = World::new(90 + cut, Faults::default());
        let mut node = start(&world, 2);
        let source = node.create_on(HERE, "source", &dead_letters());
        let mut to = targets(&mut node, 2 * QUEUES);
        to.retain(|(shard, _)| *shard == THERE);
        assert!(to.len() > 1_024);
        node.publish(source, numbered(0..1, true));
        reject_all(&mut node, source, 1);
        answer(&mut node, HERE, Nanos::from_millis(2 * (cut + 1)), |_| to.clone());
        let mut node = crash(&world, node, 2);
        answer(&mut node, HERE, Nanos::from_millis(1_500), |_| to.clone());
        assert_eq!(node.stats(source).leaving, 0);
        for queues in to.chunks(1_000) {
            let queues: Vec<QueueId> = queues.iter().map(|(_, queue)| *queue).collect();
            let look = Request::QueueStats { queues: queues.clone(), touch: false };
            let Reply::QueueStats(stats) = node.ask(THERE, look) else { panic!("they are there") };
            assert!(stats.iter().all(|(_, stats)| stats.ready == 1), "cut {cut}");
        }
        assert_eq!(names(&node, THERE), 0, "cut {cut}");
    }
}
