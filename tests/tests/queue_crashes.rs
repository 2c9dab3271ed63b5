//! A story of queues, crashed at many points: what was confirmed is there, what was settled for good stays away, in order, and
//! what may have been delivered says so. `MILLSTREAM_CRASH_POINTS=all` takes every point.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::config::QueueSettings;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{Crash, Disk, Survivors, World};
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::shard::change::{Edit, MetadataChange, NewQueue};
use millstream_engine::shard::message::{
    Consume, ConsumerId, Credit, DeadLetter, Delivery, Message, Move, Publish, Settlement, Verdict,
};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{QueueId, Seq, ShardId};
use millstream_tests::queues::{PLENTY, consume, dead_letters, delivered, message};
use millstream_tests::solo::{Solo, config};

const SEED: u64 = 5;
const BODY_BYTES: usize = 25_000;

/// What is known of one message in one queue.
#[derive(Clone, Copy, Default, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Known {
    confirmed: bool,
    delivered: bool,
    /// It was asked to be settled, or to go elsewhere.
    ending: bool,
    ended: bool,
}

#[derive(Clone, Default)]
struct Model {
    queues: Vec<QueueId>,
    /// By queue, as it comes in the list, and by message.
    messages: BTreeMap<(usize, u32), Known>,
    /// Messages that two queues get at once.
    shared: BTreeSet<u32>,
}

fn body(number: u32) -> Message {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(BODY_BYTES, number as u8);
    message(&body, true)
}

fn number(delivery: &Delivery) -> u32 {
    let bytes: [u8; 4] = delivery.body[..4].try_into().expect("it begins with its number");
    let whole = delivery.body.len() == BODY_BYTES && delivery.body[4..].iter().all(|byte| *byte == bytes[0]);
    assert!(whole, "these are not the bytes that were published");
    u32::from_le_bytes(bytes)
}

/// Asks, unless the machine stands still.
fn ask(node: &mut Solo, request: Request) -> Option<Reply> {
    node.try_ask(request)
}

fn settle(node: &mut Solo, queue: QueueId, seq: Seq, verdict: Verdict, durable: bool) -> Option<()> {
    let settlement = Settlement { queue, consumer: ConsumerId(1), first: seq, last: seq, verdict };
    ask(node, Request::Settle { settlements: vec![settlement], durable }).map(drop)
}

/// Goes on until the machine stands still, or to the story's end.
fn story(node: &mut Solo, model: &mut Model) -> Option<()> {
    let dead_letter = QueueSettings { dead_letter: true, ..QueueSettings::default() };
    for (name, settings) in
        [("work", dead_letter), ("copy", QueueSettings::default()), ("dead", QueueSettings::default())]
    {
        let edits = vec![Edit::CreateQueue(NewQueue { name: name.into(), durable: true, settings })];
        match ask(node, Request::ChangeMetadata(MetadataChange { guards: Vec::new(), edits }))? {
            Reply::Changed(ids) => model.queues.extend(ids),
            other => panic!("{other:?}"),
        }
    }
    let queues = model.queues.clone();
    ask(
        node,
        Request::Consume(Consume {
            queue: queues[0],
            consumer: ConsumerId(1),
            no_ack: false,
            exclusive: false,
            priority: 0,
            timeout_ms: None,
            credit: Credit { messages: 0, bytes: u32::MAX },
        }),
    )?;
    for round in 0..14_u32 {
        let numbers: Vec<u32> = (round * 10..round * 10 + 10).collect();
        let shared = round % 3 == 0;
        let to: &[usize] = if shared { &[0, 1] } else { &[0] };
        for number in &numbers {
            for queue in to {
                model.messages.entry((*queue, *number)).or_default();
            }
            if shared {
                model.shared.insert(*number);
            }
        }
        let queues_to: Vec<QueueId> = to.iter().map(|queue| queues[*queue]).collect();
        let publish = |number: &u32| Publish { queues: queues_to.clone().into(), message: body(*number) };
        ask(node, Request::Publish(numbers.iter().map(publish).collect()))?;
        for number in &numbers {
            for queue in to {
                model.messages.entry((*queue, *number)).or_default().confirmed = true;
            }
        }
        let more = Credit { messages: 6, bytes: 0 };
        ask(node, Request::Grant(vec![(ConsumerId(1), more)]))?;
        node.pass(Nanos::from_millis(12));
        for (turn, delivery) in delivered(node).into_iter().enumerate() {
            let known = model.messages.entry((0, number(&delivery))).or_default();
            known.delivered = true;
            let (verdict, durable) = match turn {
                0..4 => (Verdict::Ack, round % 2 == 0),
                4 => (Verdict::Requeue { failed: true }, false),
                _ => (Verdict::Reject, false),
            };
            let gone = !matches!(verdict, Verdict::Requeue { .. });
            known.ending |= gone;
            settle(node, queues[0], delivery.seq, verdict, durable)?;
            let known = model.messages.entry((0, number(&delivery))).or_default();
            known.ended |= durable && gone;
        }
        let mut letters = Vec::new();
        node.pass(Nanos::from_millis(8));
        node.events(|event| match event {
            AppEvent::DeadLettered(letter) => {
                letters.push(letter);
                None
            }
            other => Some(other),
        });
        for letter in letters {
            let number = u32::from_le_bytes(letter.body[..4].try_into().expect("it begins with its number"));
            model.messages.entry((2, number)).or_default();
            let moved = Move {
                queue: letter.queue,
                seq: letter.seq,
                targets: vec![(ShardId(0), queues[2])],
                message: body(number),
            };
            ask(node, Request::Move(Box::new(moved)))?;
        }
    }
    Some(())
}

/// What is in each queue after a restart, by consuming all of it; and what has to leave the first.
fn found(node: &mut Solo, model: &Model) -> (Vec<Vec<(u32, bool)>>, BTreeSet<u32>) {
    let mut found = vec![Vec::new(); model.queues.len()];
    for (index, queue) in model.queues.iter().enumerate() {
        if node.shard().metadata().queue(*queue).is_some() {
            consume(node, *queue, 10 + index as u64, PLENTY);
        }
    }
    node.pass(Nanos::from_millis(200));
    for delivery in delivered(node) {
        let index = model.queues.iter().position(|queue| *queue == delivery.queue).expect("a known queue");
        found[index].push((number(&delivery), delivery.redelivered));
    }
    let letter = |letter: &DeadLetter| u32::from_le_bytes(letter.body[..4].try_into().expect("a number"));
    let leaving = dead_letters(node).iter().map(letter).collect();
    (found, leaving)
}

fn check(model: &Model, found: &[Vec<(u32, bool)>], leaving: &BTreeSet<u32>) -> Result<(), String> {
    for (index, messages) in found.iter().enumerate() {
        // What has moved comes in the order in which it moved.
        if index < 2 && !messages.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(format!("queue {index} is out of order: {messages:?}"));
        }
        for (number, redelivered) in messages {
            let known = model.messages.get(&(index, *number));
            match known {
                None => return Err(format!("queue {index} has {number}, which it was never given")),
                Some(known) if known.ended => {
                    return Err(format!("{number} was settled for good, and is in {index}"));
                }
                Some(known) if known.delivered && !redelivered => {
                    return Err(format!("{number} was delivered before, and does not say so"));
                }
                Some(_) => {}
            }
        }
    }
    let has = |queue: usize, number: u32| {
        found[queue].iter().any(|(found, _)| *found == number) || queue == 0 && leaving.contains(&number)
    };
    for ((queue, number), known) in &model.messages {
        // What left the first queue by a move is in the last.
        let there = has(*queue, *number) || *queue == 0 && has(2, *number);
        let rejected = model.messages.contains_key(&(2, *number));
        if known.confirmed && !known.ending && !there {
            return Err(format!("{number} was confirmed to queue {queue}, and is gone"));
        }
        if *queue == 0 && rejected && !there {
            return Err(format!("{number} got lost on its way to the dead letters"));
        }
        if *queue == 0 && has(0, *number) && has(2, *number) {
            return Err(format!("{number} is at its old place and at its new one"));
        }
    }
    for number in &model.shared {
        let ending = model.messages.get(&(0, *number)).is_some_and(|known| known.ending);
        let there = (has(0, *number) || has(2, *number), has(1, *number));
        if !ending && there.0 != there.1 {
            return Err(format!("{number} is in one queue of two: {there:?}"));
        }
    }
    Ok(())
}

/// The disk as it is when the machine stands still after so many operations, what was promised until then, and how many
/// operations there were.
fn run_to(point: Option<u64>) -> (Disk, Model, u64) {
    let world = World::new(SEED, Faults::default());
    if let Some(point) = point {
        world.halt_after(point);
    }
    let mut model = Model::default();
    match Solo::start(&world, config()) {
        Ok(mut node) => drop(story(&mut node, &mut model)),
        Err(fatal) => assert!(world.halted(), "{fatal}"),
    }
    (world.snapshot_disk(), model, world.disk_ops())
}

fn recovers(disk: Disk, model: &Model) -> Result<(), String> {
    let world = World::from_disk(SEED, disk, Faults::default());
    let node = Solo::start(&world, config()).map_err(|fatal| fatal.to_string())?;
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    let mut node = Solo::start(&world, config()).map_err(|fatal| format!("the second time: {fatal}"))?;
    let (found, leaving) = found(&mut node, model);
    check(model, &found, &leaving)
}

#[test]
fn queues_keep_their_promises_wherever_the_machine_stops() {
    let (_, _, points) = run_to(None);
    assert!(points > 200, "the story has only {points} points");
    let all = std::env::var("MILLSTREAM_CRASH_POINTS").is_ok_and(|which| which == "all");
    let stride = if all { 1 } else { (points as usize / 60).max(1) };
    for point in (1..=points).step_by(stride).chain([points]) {
        let (stopped, model, _) = run_to(Some(point));
        let mut random = Random::stream(SEED ^ point, "crash");
        let ways = [
            Crash::Kill,
            Crash::Power(Survivors::None),
            Crash::Power(Survivors::Some),
            Crash::Power(Survivors::All),
        ];
        for way in ways {
            let mut disk = stopped.clone();
            disk.crash(way, &mut random);
            if let Err(what) = recovers(disk, &model) {
                panic!("point {point} of {points}, {way:?}: {what}");
            }
        }
    }
}

#[test]
fn the_story_itself_ends_as_it_should() {
    let (mut disk, model, _) = run_to(None);
    disk.crash(Crash::Kill, &mut Random::stream(SEED, "crash"));
    let letters = model.messages.keys().filter(|(queue, _)| *queue == 2).count();
    let acked = model.messages.values().filter(|known| known.ended).count();
    assert!(letters > 5 && acked > 20, "{letters} dead letters, {acked} settled for good");
    assert_eq!(recovers(disk, &model), Ok(()));
}
