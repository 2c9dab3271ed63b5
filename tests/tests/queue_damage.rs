//! Messages that cannot be read any more: nobody waits for them for good, nothing loops, and what is lost is counted.

use millstream_engine::config::QueueSettings;
use millstream_engine::error::{IoError, Refusal};
use millstream_engine::io::fault::{Faults, Injection, OpKind, Outcome};
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::shard::message::{ConsumerId, Credit, Message, Verdict};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::QueueId;
use millstream_tests::queues::{
    PLENTY, consume, create, dead_letters, delivered, message, publish, settle, stats,
};
use millstream_tests::solo::{Solo, config};

/// Longer than a group is tried to be read.
const ATTEMPTS: Nanos = Nanos::from_millis(4_000);

fn world() -> World {
    World::new(77, Faults::default())
}

fn start(world: &World) -> Solo {
    Solo::start(world, config()).expect("the directory is sound")
}

fn crash(world: &World, node: Solo) -> Solo {
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    start(world)
}

fn plain(node: &mut Solo, name: &str) -> QueueId {
    create(node, name, true, QueueSettings::default())
}

/// A message of some kilobytes that says which one it is.
fn large(number: u32) -> Message {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(4_000, number as u8);
    message(&body, true)
}

/// What is delivered to consumer 1 of a queue until nothing has come for a while, all of it acknowledged.
fn take_all(node: &mut Solo, queue: QueueId) -> Vec<u32> {
    consume(node, queue, 1, Credit { messages: 100, bytes: u32::MAX });
    let (mut taken, mut quiet) = (Vec::new(), 0);
    while quiet < 100 {
        node.pass(Nanos::from_millis(50));
        quiet += 1;
        for delivery in delivered(node) {
            quiet = 0;
            assert!(
                delivery.body[4..].iter().all(|byte| *byte == delivery.body[0]),
                "damaged bytes are no message"
            );
            taken.push(u32::from_le_bytes(delivery.body[..4].try_into().expect("a number")));
            settle(node, queue, 1, delivery.seq, Verdict::Ack, false);
            node.ask(Request::Grant(vec![(ConsumerId(1), Credit { messages: 1, bytes: 0 })]));
        }
    }
    taken
}

fn lost(node: &mut Solo) -> u64 {
    node.metrics().get(|shard| shard.messages_lost.get())
}

/// So many messages, more than the journal holds.
fn fill(node: &mut Solo, queue: QueueId, messages: u32) {
    for first in (0..messages).step_by(50) {
        publish(node, &[queue], (first..first + 50).map(large).collect());
    }
}

/// Flips a bit of a message, in the only file whose path contains this and that has it.
fn rot(world: &World, path: &str, number: u32) {
    let message = large(number);
    let needle: Vec<u8> = message.body.iter().flat_map(|piece| piece.to_vec()).take(64).collect();
    let mut places = Vec::new();
    for file in world.list_all().into_iter().filter(|file| file.contains(path)) {
        let bytes = world.read_file(&file).expect("it is listed");
        let found = bytes.windows(64).position(|bytes| bytes == needle);
        places.extend(found.map(|at| (file, at as u64)));
    }
    assert_eq!(places.len(), 1, "message {number} is in {places:?}");
    world.rot(&places[0].0, places[0].1 + 10, 3);
}

fn next_read(world: &World, path: &str, skip: u64, outcome: Outcome) {
    world.inject(Injection { op: OpKind::Read, path: path.to_owned(), skip, outcome });
}

#[test]
fn a_group_that_rots_in_a_file_is_set_aside_and_the_rest_is_delivered() {
    let world = world();
    let mut node = start(&world);
    let (queue, other) = (plain(&mut node, "q"), plain(&mut node, "other"));
    fill(&mut node, queue, 2_000);
    publish(&mut node, &[other], vec![large(7)]);
    rot(&world, ".messages", 200);
    let taken = take_all(&mut node, queue);
    let lost = lost(&mut node);
    assert!(lost > 0 && taken.len() as u64 + lost == 2_000, "{} taken, {lost} lost", taken.len());
    assert!(taken.is_sorted() && !taken.contains(&200), "the others come in order");
    assert_eq!(stats(&mut node, queue).persistent, 0);
    assert_eq!(take_all_as(&mut node, other, 2), [7]);
    // None of it comes back, and the next start has nothing to say.
    node.pass(Nanos::from_millis(60));
    node = crash(&world, node);
    assert_eq!(stats(&mut node, queue).persistent, 0);
    let again = node.shard().queues_held();
    assert_eq!((again["pending"], again["names"]), (0, 0));
}

#[test]
fn what_was_in_a_lost_group_is_looked_for_a_bounded_number_of_messages_in_a_turn() {
    let world = world();
    let mut node = start(&world);
    let (queue, other) = (plain(&mut node, "q"), plain(&mut node, "other"));
    fill(&mut node, queue, 5_000);
    publish(&mut node, &[other], (0..10).map(large).collect());
    rot(&world, ".messages", 200);
    consume(&mut node, queue, 1, Credit { messages: 300, bytes: u32::MAX });
    let (mut looking, until) = (0, world.now() + ATTEMPTS);
    while world.now() < until {
        node.turn();
        looking += usize::from(node.shard().queues_held()["losses"] > 0);
    }
    // What is left of 5,000 messages, 1,024 in each turn.
    assert!(looking >= 4, "{looking} turns");
    let lost = lost(&mut node);
    assert!(lost > 0);
    assert_eq!(stats(&mut node, queue).ready + 300, 5_000 - lost);
    assert_eq!(stats(&mut node, other).ready, 10);
}

#[test]
fn a_file_with_a_group_that_was_set_aside_is_read_at_the_next_start() {
    let world = world();
    let mut node = start(&world);
    let queue = plain(&mut node, "q");
    fill(&mut node, queue, 2_000);
    rot(&world, ".messages", 200);
    consume(&mut node, queue, 1, Credit { messages: 300, bytes: u32::MAX });
    node.pass(ATTEMPTS);
    let (got, lost) = (delivered(&mut node).len() as u64, lost(&mut node));
    assert!(lost > 0 && got == 300);
    node.pass(Nanos::from_millis(60));
    node = crash(&world, node);
    assert_eq!(stats(&mut node, queue).ready, 2_000 - lost);
    let all = take_all(&mut node, queue);
    assert_eq!(all.len() as u64, 2_000 - lost);
}

#[test]
fn a_file_with_damage_that_nobody_has_met_is_named_at_the_next_start() {
    let world = world();
    let mut node = start(&world);
    let queue = plain(&mut node, "q");
    fill(&mut node, queue, 2_000);
    rot(&world, ".messages", 200);
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    let refused = Solo::start(&world, config()).err().map(|fatal| fatal.to_string()).unwrap_or_default();
    assert!(refused.contains(".messages") && refused.contains("is nowhere"), "{refused}");
}

fn take_all_as(node: &mut Solo, queue: QueueId, consumer: u64) -> Vec<u32> {
    consume(node, queue, consumer, PLENTY);
    node.pass(Nanos::from_millis(60));
    delivered(node)
        .iter()
        .map(|one| u32::from_le_bytes(one.body[..4].try_into().expect("a number")))
        .collect()
}

#[test]
fn a_read_that_fails_for_a_while_loses_nothing() {
    let world = world();
    let mut node = start(&world);
    let queue = plain(&mut node, "q");
    fill(&mut node, queue, 2_000);
    for skip in [0, 2, 2, 5] {
        next_read(&world, ".messages", skip, Outcome::Fails(IoError::Os(5)));
    }
    let taken = take_all(&mut node, queue);
    assert_eq!((taken.len(), lost(&mut node)), (2_000, 0));
    assert!(taken.is_sorted());
}

#[test]
fn a_group_that_rots_in_the_journal_does_not_stop_the_trim() {
    let world = world();
    let mut node = start(&world);
    let (stuck, busy) = (plain(&mut node, "stuck"), plain(&mut node, "busy"));
    publish(&mut node, &[stuck], (0..20).map(large).collect());
    publish(&mut node, &[stuck], (20..40).map(large).collect());
    node = crash(&world, node);
    // Nobody consumes it; it is read when its file is to be recycled.
    rot(&world, "journal", 5);
    consume(&mut node, busy, 1, PLENTY);
    for first in (0..4_000).step_by(50) {
        publish(&mut node, &[busy], (first..first + 50).map(large).collect());
        node.pass(Nanos::from_millis(1));
        for delivery in delivered(&mut node) {
            settle(&mut node, busy, 1, delivery.seq, Verdict::Ack, false);
        }
    }
    node.pass(ATTEMPTS);
    let lost = lost(&mut node);
    assert_eq!(lost, 20, "one group of two");
    node = crash(&world, node);
    assert_eq!(stats(&mut node, stuck).ready, 20);
    assert_eq!(take_all_as(&mut node, stuck, 3), (20..40).collect::<Vec<_>>());
}

#[test]
fn who_gets_one_by_one_gets_the_next_that_can_be_read() {
    let world = world();
    let mut node = start(&world);
    let queue = plain(&mut node, "q");
    publish(&mut node, &[queue], vec![large(1)]);
    publish(&mut node, &[queue], vec![large(2)]);
    node = crash(&world, node);
    rot(&world, "journal", 1);
    let get = Request::Get { queue, consumer: ConsumerId(9), no_ack: false };
    let Reply::Got(Some(delivery), 0) = node.ask(get) else { panic!("one can be read") };
    assert_eq!((delivery.body[0], lost(&mut node)), (2, 1));
}

#[test]
fn a_message_in_pieces_of_which_one_is_gone_is_set_aside_as_a_whole() {
    let world = world();
    let mut node = start(&world);
    let queue = plain(&mut node, "q");
    let pieces = |number: u32| {
        let mut body = number.to_le_bytes().to_vec();
        body.resize(3_000_000, number as u8);
        message(&body, true)
    };
    publish(&mut node, &[queue], vec![pieces(1)]);
    publish(&mut node, &[queue], vec![pieces(2)]);
    node = crash(&world, node);
    rot(&world, "", 1);
    consume(&mut node, queue, 1, PLENTY);
    node.pass(ATTEMPTS);
    let bodies: Vec<u8> = delivered(&mut node).iter().map(|delivery| delivery.body[0]).collect();
    assert_eq!((bodies, lost(&mut node)), (vec![2], 1));
}

#[test]
fn a_leaving_message_that_cannot_be_read_holds_no_place() {
    let world = world();
    let mut node = start(&world);
    let settings = QueueSettings { dead_letter: true, max_messages: Some(1), ..QueueSettings::default() };
    let queue = create(&mut node, "q", true, settings);
    publish(&mut node, &[queue], vec![large(0), large(1)]);
    publish(&mut node, &[queue], vec![large(2)]);
    node.pass(Nanos::from_millis(60));
    drop(dead_letters(&mut node));
    node = crash(&world, node);
    rot(&world, "journal", 1);
    node.pass(ATTEMPTS);
    // The first two are in one group, of which nothing can be read.
    assert_eq!((dead_letters(&mut node).len(), lost(&mut node)), (0, 2));
    assert_eq!(node.shard().queues_held()["told"], 0);
}

#[test]
fn a_disk_that_reads_nothing_any_more_poisons_the_shard_before_everything_is_given_up() {
    let world = world();
    let mut node = start(&world);
    let queue = plain(&mut node, "q");
    fill(&mut node, queue, 3_000);
    world.set_faults(Faults { read_error: 1.0, ..Faults::default() });
    consume(&mut node, queue, 1, PLENTY);
    for _ in 0..60 {
        node.pass(ATTEMPTS);
        if node.shard().is_poisoned() {
            break;
        }
    }
    assert!(node.shard().is_poisoned());
    let get = Request::Get { queue, consumer: ConsumerId(9), no_ack: true };
    assert!(matches!(node.ask(get), Reply::Refused(Refusal::Poisoned)));
    let given_up = lost(&mut node);
    assert!((1..2_500).contains(&given_up), "{given_up} given up");
    // What was not given up is there when the disk can be read again.
    world.set_faults(Faults::default());
    drop(delivered(&mut node));
    node = crash(&world, node);
    let left = stats(&mut node, queue).persistent;
    assert!(left + given_up >= 3_000, "{left} are left, {given_up} were given up");
}
