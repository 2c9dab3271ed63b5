//! The hosts of the story's shards: each publishes, consumes queues of other shards, and answers for the dead letters of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use millstream_engine::config::QueueSettings;
use millstream_engine::error::Refusal;
use millstream_engine::io::random::Random;
use millstream_engine::reactor::app::{App, AppEvent, AppToken, Outbox};
use millstream_engine::shard::change::{Edit, MetadataChange, NewQueue};
use millstream_engine::shard::message::{
    Consume, ConsumerId, Credit, DeadLetter, Delivery, Message, Move, Outcome, Publish, Settlement, Verdict,
};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{QueueId, ShardId};

use super::Bug;
use super::model::{CIRCLE, Copy, Known, LOOSE, Model, QUEUES};

const LOOK: Nanos = Nanos::from_micros(300);
/// What a message's header says of where it was published to, before it is moved for the first time.
const UNMOVED: u8 = u8::MAX;

enum Asked {
    /// The first making of all queues.
    Queues,
    /// A queue is deleted, or made anew.
    Deleted(usize),
    Made(usize),
    /// Messages by number: what a shard says of each of these copies.
    Publish(Vec<Vec<Copy>>),
    Settled(Copy),
    Purged(usize, Vec<Copy>),
    Consumed(u64),
    Else(&'static str),
}

impl Asked {
    fn name(&self) -> &'static str {
        match self {
            Asked::Queues | Asked::Deleted(_) | Asked::Made(_) => "a change",
            Asked::Publish(_) => "a publish",
            Asked::Settled(_) => "a durable settlement",
            Asked::Purged(..) => "a purge",
            Asked::Consumed(_) => "a consumer",
            Asked::Else(name) => name,
        }
    }
}

/// See the module.
pub struct Host {
    shard: ShardId,
    model: Rc<RefCell<Model>>,
    random: Random,
    asked: BTreeMap<u64, Asked>,
    last: u64,
    consumers: BTreeMap<u64, QueueId>,
    next_consumer: u64,
    /// Requests under way at most.
    room: usize,
    /// Copies whose shards have not all answered: how many are missing, and whether one has refused.
    confirms: BTreeMap<u32, (usize, bool)>,
}

impl Host {
    pub fn new(shard: ShardId, model: Rc<RefCell<Model>>, seed: u64, slots: usize) -> Host {
        Host {
            shard,
            model,
            random: Random::stream(seed ^ u64::from(shard.0) << 48, "queue host"),
            asked: BTreeMap::new(),
            last: 0,
            consumers: BTreeMap::new(),
            next_consumer: 0,
            room: 4.max(slots.min(8)),
            confirms: BTreeMap::new(),
        }
    }

    /// What was asked and is not answered.
    pub fn waiting(&self) -> Vec<String> {
        self.asked.values().map(|asked| format!("{:?}: {}", self.shard, asked.name())).collect()
    }

    fn ask(&mut self, out: &mut Outbox, shard: ShardId, request: Request, asked: Asked) {
        self.last += 1;
        self.asked.insert(self.last, asked);
        out.engine(AppToken(self.last), shard, request, None);
    }

    fn change(&mut self, out: &mut Outbox, edits: Vec<Edit>, asked: Asked) {
        let change = MetadataChange { guards: Vec::new(), edits };
        self.ask(out, ShardId(0), Request::ChangeMetadata(change), asked);
    }

    fn create(index: usize) -> Edit {
        let settings = QueueSettings {
            dead_letter: index < CIRCLE,
            delivery_limit: (index < CIRCLE).then_some(3),
            ..QueueSettings::default()
        };
        Edit::CreateQueue(NewQueue { name: format!("q{index}").into(), durable: true, settings })
    }

    /// Each queue is consumed from the shard behind the one that it is on.
    fn consume(&mut self, out: &mut Outbox) {
        let queues = self.model.borrow().queues.clone();
        for (index, queue) in queues.into_iter().enumerate() {
            let Some(owner) = out.metadata().shard_of_queue(queue) else { continue };
            let consumer = (owner.0 + 1) % out.metadata().shards;
            let has = self.consumers.values().any(|known| *known == queue);
            if consumer != self.shard.0 || has || self.model.borrow().changing[index] {
                continue;
            }
            // Something is to be there when it is purged.
            if index >= CIRCLE && !self.model.borrow().draining && !self.random.chance(0.002) {
                continue;
            }
            self.next_consumer += 1;
            let name = self.next_consumer;
            self.consumers.insert(name, queue);
            let consume = Consume {
                queue,
                consumer: ConsumerId(name),
                no_ack: false,
                exclusive: false,
                priority: 0,
                timeout_ms: None,
                credit: Credit { messages: 16, bytes: 200_000 },
            };
            self.ask(out, owner, Request::Consume(consume), Asked::Consumed(name));
        }
    }

    fn look(&mut self, out: &mut Outbox) {
        out.set_timer(AppToken(0), out.now() + LOOK);
        if !self.model.borrow().is_known {
            if self.shard == ShardId(0) && self.asked.is_empty() {
                self.look_for_queues(out);
            }
            return;
        }
        if self.model.borrow().resting {
            return;
        }
        if self.random.chance(0.1) || self.consumers.is_empty() {
            self.consume(out);
        }
        if self.random.chance(0.01) {
            let queues = self.model.borrow().queues.clone();
            self.ask(out, self.shard, Request::QueueStats { queues, touch: false }, Asked::Else("stats"));
        }
        if self.model.borrow().draining || self.asked.len() >= self.room {
            return;
        }
        match self.random.below(100) {
            0..50 => self.publish(out),
            50 if self.shard == ShardId(0) => self.make_anew(out),
            51..56 => self.purge(out),
            _ => {}
        }
    }

    /// A crash may have come in the middle of a change.
    fn look_for_queues(&mut self, out: &mut Outbox) {
        let named =
            |index: usize| out.metadata().queue_named(format!("q{index}").as_bytes()).map(|queue| queue.id);
        let known: Vec<Option<QueueId>> = (0..QUEUES).map(named).collect();
        if known.iter().all(Option::is_none) {
            return self.change(out, (0..QUEUES).map(Host::create).collect(), Asked::Queues);
        }
        let mut model = self.model.borrow_mut();
        model.queues.resize(QUEUES, QueueId::default());
        let mut missing = Vec::new();
        for (index, id) in known.into_iter().enumerate() {
            match id {
                Some(id) => model.queues[index] = id,
                None => {
                    model.changing[index] = true;
                    missing.push(index);
                }
            }
        }
        if model.before.is_empty() {
            let queues = model.queues.clone();
            model.before = queues;
        }
        model.is_known = true;
        drop(model);
        for index in missing {
            self.change(out, vec![Host::create(index)], Asked::Made(index));
        }
    }

    /// A loose queue goes, and comes back under the same name.
    fn make_anew(&mut self, out: &mut Outbox) {
        let index = CIRCLE + self.random.below(LOOSE as u64) as usize;
        let queue = {
            let mut model = self.model.borrow_mut();
            if std::mem::replace(&mut model.changing[index], true) {
                return;
            }
            let queue = model.queues[index];
            model.copies_of(queue).for_each(|known| known.doubtful = true);
            queue
        };
        self.change(out, vec![Edit::DeleteQueue(queue)], Asked::Deleted(index));
    }

    fn purge(&mut self, out: &mut Outbox) {
        let index = CIRCLE + self.random.below(LOOSE as u64) as usize;
        let mut model = self.model.borrow_mut();
        let (queue, life) = (model.queues[index], model.life);
        let Some(owner) = out.metadata().shard_of_queue(queue).filter(|_| !model.changing[index]) else {
            return;
        };
        model.purging[index] += 1;
        let early = model.bug == Bug::PurgeBeforeAnswer;
        let mut purged = Vec::new();
        for (copy, known) in model.copies.iter_mut().filter(|(_, known)| known.id == queue) {
            known.doubtful = true;
            if known.confirmed && !known.delivered_now && !known.ended {
                purged.push(*copy);
                known.purged = known.purged.or(early.then_some(life));
            }
        }
        drop(model);
        self.ask(out, owner, Request::Purge(queue), Asked::Purged(index, purged));
    }

    fn publish(&mut self, out: &mut Outbox) {
        let queues = {
            let model = self.model.borrow();
            let stale = model.bug == Bug::StaleRoute && self.random.chance(0.5);
            if stale { model.before.clone() } else { model.queues.clone() }
        };
        let mut by_shard: BTreeMap<ShardId, (Vec<Publish>, Vec<Vec<Copy>>)> = BTreeMap::new();
        for _ in 0..self.random.between(1, 6) {
            let mut indices = vec![self.random.below(QUEUES as u64) as usize];
            if self.random.chance(0.3) {
                let other = self.random.below(QUEUES as u64) as usize;
                indices.extend((other != indices[0]).then_some(other));
            }
            let number = self.note_message(&indices);
            let size = self.random.between(8, 30_000) as usize;
            let message = message(number, UNMOVED, size);
            let mut targets: BTreeMap<ShardId, (Vec<QueueId>, Vec<Copy>)> = BTreeMap::new();
            let mut nowhere = 0;
            for index in indices {
                let queue = queues[index];
                match out.metadata().shard_of_queue(queue) {
                    Some(owner) => {
                        let target = targets.entry(owner).or_default();
                        target.0.push(queue);
                        target.1.push((number, index));
                    }
                    // As the server has it: a queue that has gone refuses nothing.
                    None => nowhere += 1,
                }
            }
            let waits = if self.model.borrow().bug == Bug::FirstOwnerConfirms { 1 } else { targets.len() };
            if targets.is_empty() {
                if nowhere > 0 {
                    self.model.borrow_mut().confirm(number);
                }
                continue;
            }
            self.confirms.insert(number, (waits, false));
            for (owner, (queues, copies)) in targets {
                let batch = by_shard.entry(owner).or_default();
                batch.0.push(Publish { queues: queues.into(), message: message.clone() });
                batch.1.push(copies);
            }
        }
        for (owner, (messages, copies)) in by_shard {
            self.ask(out, owner, Request::Publish(messages), Asked::Publish(copies));
        }
    }

    fn model_bug(&self) -> Bug {
        self.model.borrow().bug
    }

    fn note_message(&mut self, indices: &[usize]) -> u32 {
        let mut model = self.model.borrow_mut();
        model.numbers += 1;
        let number = model.numbers;
        for &index in indices {
            let doubtful = model.changing[index] || model.purging[index] > 0;
            let known = Known::new(self.shard, model.queues[index], doubtful);
            model.copies.insert((number, index), known);
        }
        number
    }

    fn published(&mut self, copies: Vec<Vec<Copy>>, outcomes: Vec<Outcome>) {
        assert_eq!(copies.len(), outcomes.len(), "an outcome for each message");
        for (copies, outcome) in copies.iter().zip(outcomes) {
            let Some((number, _)) = copies.first() else { continue };
            let gone = |why: &Refusal| matches!(why, Refusal::UnknownQueue);
            let refused = outcome.refused.iter().any(|(_, why)| !gone(why));
            let Some((missing, failed)) = self.confirms.get_mut(number) else { continue };
            *missing -= 1;
            *failed |= refused;
            if *missing == 0 {
                let failed = *failed;
                self.confirms.remove(number);
                if !failed {
                    self.model.borrow_mut().confirm(*number);
                }
            }
        }
    }

    fn delivered(&mut self, out: &mut Outbox, delivery: &Delivery) {
        let (Some(index), Some(owner)) =
            (self.model.borrow().index_of(delivery.queue), out.metadata().shard_of_queue(delivery.queue))
        else {
            return;
        };
        let copy = copy_of(&delivery.header, &delivery.body, index);
        let (draining, now) = (self.model.borrow().draining, out.now());
        self.model.borrow_mut().took(index, copy, delivery);
        let (verdict, durable) = match self.random.below(100) {
            _ if draining => (Verdict::Ack, true),
            0..50 => (Verdict::Ack, false),
            50..60 => (Verdict::Ack, true),
            60..80 => (Verdict::Requeue { failed: self.random.chance(0.5) }, false),
            // Without dead letters this settles, too.
            _ if index >= CIRCLE => (Verdict::Ack, false),
            _ => (Verdict::Reject, false),
        };
        let (queue, consumer, seq) = (delivery.queue, delivery.consumer, delivery.seq);
        let settlement = Settlement { queue, consumer, first: seq, last: seq, verdict };
        if verdict == Verdict::Ack
            && let Some(known) = self.model.borrow_mut().copies.get_mut(&copy)
        {
            (known.acked_at, known.may_be_gone) = (Some(now), true);
        }
        let asked = if durable { Asked::Settled(copy) } else { Asked::Else("a settlement") };
        self.ask(out, owner, Request::Settle { settlements: vec![settlement], durable }, asked);
        let more = Credit { messages: 1, bytes: (delivery.header.len() + delivery.body.len()) as u32 };
        self.ask(out, owner, Request::Grant(vec![(consumer, more)]), Asked::Else("a grant"));
    }

    fn dead_lettered(&mut self, out: &mut Outbox, letter: DeadLetter) {
        let Some(index) = self.model.borrow().index_of(letter.queue) else { return };
        let copy = copy_of(&letter.header, &letter.body, index);
        let next = {
            let mut model = self.model.borrow_mut();
            model.letters += 1;
            if let Some(known) = model.copies.get_mut(&copy) {
                known.moved = true;
            }
            model.queues[(index + 1) % CIRCLE]
        };
        let owner = out.metadata().shard_of_queue(next).expect("the circle stays");
        let moved = message(copy.0, copy.1 as u8, letter.body.len());
        let (queue, seq) = (letter.queue, letter.seq);
        let mut targets = vec![(owner, next)];
        if self.model_bug() == Bug::MoveInTwo {
            let publish = Publish { queues: vec![next].into(), message: moved.clone() };
            self.ask(out, owner, Request::Publish(vec![publish]), Asked::Publish(vec![Vec::new()]));
            targets.clear();
        }
        let moved = Move { queue, seq, targets, message: moved };
        self.ask(out, self.shard, Request::Move(Box::new(moved)), Asked::Else("a move"));
    }

    fn replied(&mut self, out: &mut Outbox, token: AppToken, reply: Reply) {
        let asked = self.asked.remove(&token.0).expect("it was asked");
        match (asked, reply) {
            (Asked::Queues, Reply::Changed(ids)) => {
                let mut model = self.model.borrow_mut();
                model.before.clone_from(&ids);
                model.queues = ids;
                model.is_known = true;
            }
            (Asked::Deleted(index), Reply::Changed(_)) => {
                self.change(out, vec![Host::create(index)], Asked::Made(index));
            }
            (Asked::Made(index), Reply::Changed(ids)) => {
                let mut model = self.model.borrow_mut();
                model.before[index] = model.queues[index];
                model.queues[index] = ids[0];
                model.changing[index] = false;
            }
            (Asked::Publish(copies), Reply::Published(outcomes)) => self.published(copies, outcomes),
            (Asked::Settled(copy), Reply::Done) => {
                if let Some(known) = self.model.borrow_mut().copies.get_mut(&copy) {
                    // It may have come again since, from who had lost it.
                    known.ended |= known.may_be_gone;
                }
            }
            (Asked::Purged(index, copies), reply @ (Reply::Purged(_) | Reply::Refused(_))) => {
                let mut model = self.model.borrow_mut();
                model.purging[index] -= 1;
                let life = model.life;
                if matches!(reply, Reply::Refused(_)) {
                    return;
                }
                for copy in copies {
                    if let Some(known) = model.copies.get_mut(&copy).filter(|known| !known.delivered_now) {
                        known.purged = Some(life);
                    }
                }
            }
            (Asked::Consumed(name), Reply::Refused(_)) => drop(self.consumers.remove(&name)),
            (Asked::Consumed(_), Reply::Consuming { .. })
            | (Asked::Else(_), Reply::Done | Reply::QueueStats(_) | Reply::Refused(_))
            | (_, Reply::Refused(Refusal::Poisoned | Refusal::UnknownQueue)) => {}
            (asked, reply) => {
                let what = format!("{} was answered {reply:?}", asked.name());
                self.model.borrow_mut().violations.push(what);
            }
        }
    }
}

impl App for Host {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        match event {
            AppEvent::Started | AppEvent::Timer(_) => self.look(out),
            AppEvent::Reply(token, reply) => self.replied(out, token, reply),
            AppEvent::Delivered(deliveries) => {
                for delivery in &deliveries {
                    self.delivered(out, delivery);
                }
            }
            AppEvent::ConsumerCancelled { consumer, .. } => drop(self.consumers.remove(&consumer.0)),
            AppEvent::DeadLettered(letter) => self.dead_lettered(out, letter),
            _ => {}
        }
    }
}

impl Model {
    fn confirm(&mut self, number: u32) {
        for (_, known) in self.copies.range_mut((number, 0)..=(number, usize::MAX)) {
            known.confirmed = true;
            self.confirmed += 1;
        }
    }
}

/// A message that says which it is; `origin` is the number of the queue that it was published to.
fn message(number: u32, origin: u8, size: usize) -> Message {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(size.max(4), number as u8);
    Message {
        header: vec![origin].into(),
        body: body.chunks(1_000).map(|piece| piece.to_vec().into()).collect(),
        persistent: true,
        priority: 0,
        expires_at: None,
    }
}

fn copy_of(header: &[u8], body: &[u8], queue: usize) -> Copy {
    let bytes: [u8; 4] = body[..4].try_into().expect("it begins with its number");
    assert!(body[4..].iter().all(|byte| *byte == bytes[0]), "these are not the bytes that were published");
    let origin = if header[0] == UNMOVED { queue } else { usize::from(header[0]) };
    (u32::from_le_bytes(bytes), origin)
}
