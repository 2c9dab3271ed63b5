//! RabbitMQ's clients of a broker's story: publishers with confirms, workers that settle, reject or give back, and hostile ones.
//! One message at a time is followed through all of it, by its number.
//!
//! What is promised, and checked here on what clients see:
//! - A confirmed persistent message is in each of its queues until it is settled, whatever crashes.
//! - A message is in the queues of its way only, and comes as it was published.
//! - A message that was settled does not come back; if it was settled shortly before a crash it may, as redelivered.
//! - A message that was rejected is a dead letter, or where it was: one of the two.
//! - What comes a second time says so. What comes for the first time comes in the order of publishing.
//! - A transient message is gone after a crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use millstream::amqp::codec::{
    BasicAck, BasicConsume, BasicGet, BasicNack, BasicQos, ConfirmSelect, QueueBind, QueueDeclare, Short,
    Table, TableWriter, Value,
};
use millstream_engine::io::random::Random;
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use super::client::{Came, Client};
use super::hostile::{Hostile, OWN};
use crate::broker::{ANSWERED_IN, End, Side, Stage};

/// The last is for the dead letters of the one before it.
const QUEUES: [&str; 4] = ["one", "two", "three", "dead"];
const REJECTING: usize = 2;
const DEAD: usize = 3;
/// What is published to this exchange goes to the first two queues.
const FANOUT: &str = "amq.fanout";
/// Messages that a publisher has under way, at most.
const UNDER_WAY: usize = 20;
const PREFETCH: u16 = 10;
/// A settlement that is older than this when the machine crashes is not forgotten.
const SETTLED_FOR_GOOD: Nanos = Nanos::from_millis(1_000);
/// Dead letters that are on their way when a life begins arrive in that time.
const LETTERS_ARRIVE_IN: Nanos = Nanos::from_millis(5_000);
/// Bytes of what is arriving beyond what is configured: what those may have arrive at once that have just been read from.
const UNFINISHED_MORE: usize = 1 << 20;
/// Bytes on their way to queues: what a few connections may have there.
const PUBLISHING_BYTES: usize = 16 << 20;
/// Bytes that wait for those who do not read.
const SENDING_BYTES: usize = 64 << 20;

/// Who is there, and what they do.
#[expect(clippy::struct_excessive_bools, reason = "each is a feature that a seed switches off by itself")]
#[derive(Clone, Debug)]
pub struct Cast {
    /// Publishers.
    pub publishers: usize,
    /// Workers.
    pub workers: usize,
    /// Clients that do what no client should.
    pub hostile: usize,
    /// Whether some messages are transient.
    pub transient: bool,
    /// Whether some messages go to several queues.
    pub fanout: bool,
    /// Whether some bodies are of several frames.
    pub large: bool,
    /// Whether workers give back, go away, and reject.
    pub gives_back: bool,
    /// See `gives_back`.
    pub goes: bool,
    /// See `gives_back`.
    pub rejects: bool,
}

impl Cast {
    /// Everything at once.
    pub fn whole(random: &mut Random) -> Cast {
        Cast {
            publishers: random.between(1, 3) as usize,
            workers: random.between(0, 4) as usize,
            hostile: random.between(0, 6) as usize,
            transient: true,
            fanout: true,
            large: true,
            gives_back: true,
            goes: true,
            rejects: true,
        }
    }

    /// Some of it.
    pub fn swarm(random: &mut Random) -> Cast {
        let whole = Cast::whole(random);
        let mut some = || random.chance(0.5);
        Cast {
            hostile: if some() { whole.hostile } else { 0 },
            transient: some(),
            fanout: some(),
            large: some(),
            gives_back: some(),
            goes: some(),
            rejects: some(),
            ..whole
        }
    }
}

/// What is known of a message in one of its queues.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Copy {
    delivered: bool,
    /// A worker has it now.
    held: bool,
    settled_at: Option<Nanos>,
    /// It was settled, and nobody knows whether that has arrived and stays.
    maybe_settled: bool,
    /// It was rejected at some time: then it may be among the dead letters.
    rejected: bool,
    /// It was acknowledged at some time.
    acked: bool,
}

impl Copy {
    /// Nobody knows any more whether it is settled.
    fn doubt(&mut self) {
        self.maybe_settled |= self.settled_at.take().is_some();
    }
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug)]
struct Message {
    publisher: u64,
    persistent: bool,
    confirmed: bool,
    /// It was refused, or nobody knows whether it was taken.
    maybe: bool,
    body: Vec<u8>,
    copies: BTreeMap<usize, Copy>,
    /// Whether it has come out of the dead letters in this life.
    died: bool,
}

struct Publisher {
    client: Client,
    number: u64,
    /// By delivery tag, from the first that is not confirmed.
    under_way: BTreeMap<u64, u64>,
    next_tag: u64,
    is_open: bool,
}

struct Worker {
    client: Client,
    queue: usize,
    /// The last message of each publisher that came for the first time.
    last: BTreeMap<u64, u64>,
    held: BTreeMap<u64, u64>,
    /// What it has settled last: as much of it as may not have arrived.
    settled: VecDeque<u64>,
    is_open: bool,
}

/// RabbitMQ's clients.
pub struct Amqp {
    cast: Cast,
    random: Random,
    messages: BTreeMap<u64, Message>,
    publishers: Vec<Publisher>,
    workers: Vec<Worker>,
    hostile: Vec<Hostile>,
    numbers: u64,
    has_crashed: bool,
    violations: Vec<String>,
    done: BTreeMap<&'static str, u64>,
}

impl Side for Amqp {
    fn begin(&mut self, stage: &mut Stage<'_>, last: bool) {
        self.set_up(stage);
        if last && self.violations.is_empty() {
            self.audit(stage);
        }
    }

    fn turn(&mut self, stage: &mut Stage<'_>, asks: bool) {
        self.publish(stage, asks);
        self.work(stage, asks);
        if asks {
            self.disturb(stage);
        }
    }

    /// What is kept for all of them.
    fn check_bounds(&mut self, stage: &Stage<'_>) {
        for shard in 0..stage.node.shards() {
            let kept = stage.node.app(ShardId(shard)).amqp_kept();
            if kept.unfinished > stage.config.partial_bytes_max + UNFINISHED_MORE
                || kept.publishing > PUBLISHING_BYTES
                || kept.sending > SENDING_BYTES
            {
                self.violated(format!("shard {shard} keeps {kept:?}"));
            }
        }
    }

    fn waits(&self) -> Option<Box<dyn fmt::Debug + '_>> {
        let under_way =
            |publisher: &Publisher| publisher.under_way.iter().next().map(|(tag, id)| (*tag, *id));
        self.publishers
            .iter()
            .find_map(under_way)
            .map(|(tag, id)| Box::new(format!("a confirm of message {id}, tag {tag}")) as _)
    }

    fn leave(&mut self) {
        for guest in std::mem::take(&mut self.hostile) {
            guest.leave(&mut self.random);
        }
        for publisher in &self.publishers {
            publisher.client.peer.close();
        }
        for worker in &self.workers {
            worker.client.peer.close();
        }
    }

    fn gone(&mut self, stage: &mut Stage<'_>) {
        // Nothing can be deleted then.
        if stage.trouble {
            return;
        }
        for name in OWN {
            let mut client = Client::connect(stage.world, stage.addresses[1]);
            let queue = Short(name.as_bytes());
            client.say(QueueDeclare { queue, passive: true, ..QueueDeclare::default() });
            match self.wait(stage, &mut client) {
                Some(Came::Refused(404, _)) | None => client.peer.close(),
                other => self.violated(format!("{name} has lost its connection, and is there: {other:?}")),
            }
        }
    }

    fn ended(&mut self, end: End, trouble_at: Option<Nanos>, now: Nanos) {
        self.has_crashed = true;
        self.hostile.clear();
        self.lose_publishers();
        self.lose_workers();
        for message in self.messages.values_mut() {
            message.maybe |= !message.confirmed;
            // Dead letters are delivered before they are durable: after a crash they may be where they were, and die anew.
            if std::mem::take(&mut message.died)
                && let Some(letter) = message.copies.get_mut(&DEAD)
            {
                letter.delivered = false;
            }
            for copy in message.copies.values_mut() {
                // It may have been forgotten; then it comes again, and says so. A shard that cannot flush remembers none.
                let in_trouble =
                    |at: Nanos| trouble_at.is_some_and(|trouble| at + SETTLED_FOR_GOOD >= trouble);
                let is_fresh =
                    copy.settled_at.is_some_and(|at| in_trouble(at) || now.since(at) <= SETTLED_FOR_GOOD);
                if is_fresh && end != End::Stopped {
                    copy.doubt();
                }
            }
        }
        self.messages.retain(|_, message| message.persistent);
    }

    fn violations(&self) -> &[String] {
        &self.violations
    }

    fn done(&self) -> BTreeMap<&'static str, u64> {
        self.done.clone()
    }
}

impl Amqp {
    /// The clients of a seed's story.
    pub fn new(seed: u64, cast: Cast) -> Amqp {
        Amqp {
            cast,
            random: Random::stream(seed, "amqp side"),
            messages: BTreeMap::new(),
            publishers: Vec::new(),
            workers: Vec::new(),
            hostile: Vec::new(),
            numbers: 0,
            has_crashed: false,
            violations: Vec::new(),
            done: ["confirmed", "delivered", "settled", "rejected", "dead letters"]
                .map(|name| (name, 0))
                .into(),
        }
    }

    fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    fn count(&mut self, name: &'static str) {
        *self.done.entry(name).or_default() += 1;
    }

    fn lose_publishers(&mut self) {
        for publisher in std::mem::take(&mut self.publishers) {
            for id in publisher.under_way.into_values() {
                if let Some(message) = self.messages.get_mut(&id) {
                    message.maybe = true;
                }
            }
        }
    }

    fn lose_workers(&mut self) {
        for worker in std::mem::take(&mut self.workers) {
            self.lost(&worker);
        }
    }

    /// A worker's connection is over: what it held goes back.
    fn lost(&mut self, worker: &Worker) {
        for id in worker.held.values().chain(&worker.settled) {
            if let Some(copy) =
                self.messages.get_mut(id).and_then(|message| message.copies.get_mut(&worker.queue))
            {
                copy.held = false;
                copy.doubt();
            }
        }
    }

    /// Declares everything, which may be there.
    fn set_up(&mut self, stage: &mut Stage<'_>) {
        let mut client = Client::connect(stage.world, stage.addresses[1]);
        let letters = TableWriter::default()
            .with("x-dead-letter-exchange", Value::String(b""))
            .with("x-dead-letter-routing-key", Value::String(QUEUES[DEAD].as_bytes()));
        for (queue, name) in QUEUES.into_iter().enumerate() {
            let queue = if queue == REJECTING { letters.table() } else { Table::EMPTY };
            let declare =
                QueueDeclare { queue: Short(name.as_bytes()), durable: true, ..QueueDeclare::default() };
            client.say(QueueDeclare { arguments: queue, ..declare });
        }
        for queue in &QUEUES[..2] {
            client.say(QueueBind {
                queue: Short(queue.as_bytes()),
                exchange: Short(FANOUT.as_bytes()),
                ..QueueBind::default()
            });
        }
        let end = stage.world.now() + ANSWERED_IN;
        let mut left = QUEUES.len() + 2;
        while left > 0 && self.violations.is_empty() {
            stage.node.step();
            match client.came() {
                Ok(came) => left -= came.iter().filter(|came| matches!(came, Came::Done(50, _))).count(),
                Err(what) => self.violated(what),
            }
            if client.peer.is_closed() || stage.world.now() > end {
                self.violated(format!("{left} declarations are not answered"));
            }
        }
        client.peer.close();
    }

    /// Those who disturb do something.
    fn disturb(&mut self, stage: &Stage<'_>) {
        while self.hostile.len() < self.cast.hostile {
            self.hostile.push(Hostile::connect(stage.world, stage.addresses[1], &mut self.random));
        }
        for guest in &mut self.hostile {
            if self.random.chance(0.3) {
                let queue = QUEUES[self.random.below(QUEUES.len() as u64) as usize];
                guest.act(queue, &mut self.random);
            }
        }
        let random = &mut self.random;
        self.hostile.retain(|guest| {
            let over = guest.is_over();
            if over {
                guest.leave(random);
            }
            !over
        });
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn publish(&mut self, stage: &Stage<'_>, asks: bool) {
        while asks && self.publishers.len() < self.cast.publishers {
            let mut client = Client::connect(stage.world, stage.addresses[1]);
            client.say(ConfirmSelect::default());
            let number = self.number();
            let under_way = BTreeMap::new();
            self.publishers.push(Publisher { client, number, under_way, next_tag: 1, is_open: false });
        }
        for mut publisher in std::mem::take(&mut self.publishers) {
            match publisher.client.came() {
                Ok(came) => {
                    for came in came {
                        self.confirmed(stage, &mut publisher, came);
                    }
                }
                Err(what) => self.violated(what),
            }
            if publisher.client.peer.is_closed() {
                for id in publisher.under_way.into_values() {
                    self.messages.entry(id).and_modify(|message| message.maybe = true);
                }
                continue;
            }
            if asks && publisher.is_open && publisher.under_way.len() < UNDER_WAY && self.random.chance(0.4) {
                self.send(&mut publisher);
            }
            self.publishers.push(publisher);
        }
    }

    fn confirmed(&mut self, stage: &Stage<'_>, publisher: &mut Publisher, came: Came) {
        match came {
            Came::Opened => {}
            Came::Done(85, 11) => publisher.is_open = true,
            Came::Confirmed { tag, multiple, refused } => {
                let first = if multiple { 0 } else { tag };
                let tags: Vec<u64> = publisher.under_way.range(first..=tag).map(|(tag, _)| *tag).collect();
                if tags.last() != Some(&tag) {
                    return self.violated(format!("message {tag} is confirmed twice"));
                }
                for tag in tags {
                    let id = publisher.under_way.remove(&tag).unwrap_or_default();
                    let Some(message) = self.messages.get_mut(&id) else { continue };
                    message.confirmed = !refused;
                    message.maybe |= refused;
                    *self.done.entry("confirmed").or_default() += u64::from(!refused);
                }
            }
            Came::Refused(..) if stage.trouble => publisher.client.peer.close(),
            other => self.violated(format!("a publisher was told {other:?}")),
        }
    }

    fn send(&mut self, publisher: &mut Publisher) {
        let id = self.number();
        let size = match self.random.below(10) {
            0 if self.cast.large => self.random.between(4_000, 60_000),
            _ => self.random.between(0, 500),
        };
        let mut body = id.to_be_bytes().to_vec();
        body.extend((0..size).map(|place| (id ^ place) as u8));
        let persistent = !self.cast.transient || self.random.chance(0.7);
        let queues = match self.random.below(4) {
            0 if self.cast.fanout => vec![0, 1],
            queue => vec![queue.max(1) as usize - 1],
        };
        match queues[..] {
            [queue] => publisher.client.publish("", QUEUES[queue], persistent, &body),
            _ => publisher.client.publish(FANOUT, "", persistent, &body),
        }
        let copies = queues.into_iter().map(|queue| (queue, Copy::default())).collect();
        let message = Message {
            publisher: publisher.number,
            persistent,
            confirmed: false,
            maybe: false,
            body,
            copies,
            died: false,
        };
        self.messages.insert(id, message);
        publisher.under_way.insert(publisher.next_tag, id);
        publisher.next_tag += 1;
    }

    fn work(&mut self, stage: &Stage<'_>, asks: bool) {
        while asks && self.workers.len() < self.cast.workers {
            let mut client = Client::connect(stage.world, stage.addresses[1]);
            let queue = self.random.below(QUEUES.len() as u64) as usize;
            client.say(BasicQos { prefetch_count: PREFETCH, ..BasicQos::default() });
            client.say(BasicConsume {
                queue: Short(QUEUES[queue].as_bytes()),
                arguments: Table::EMPTY,
                ..BasicConsume::default()
            });
            let (last, held, settled) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
            self.workers.push(Worker { client, queue, last, held, settled, is_open: false });
        }
        for mut worker in std::mem::take(&mut self.workers) {
            match worker.client.came() {
                Ok(came) => {
                    for came in came {
                        self.worked(stage, &mut worker, came);
                    }
                }
                Err(what) => self.violated(what),
            }
            if worker.client.peer.is_closed() {
                self.lost(&worker);
                continue;
            }
            if self.random.chance(0.3) {
                for _ in 0..self.random.below(4) {
                    self.settle(stage.world.now(), &mut worker);
                }
            }
            if asks && self.cast.goes && self.random.chance(0.002) {
                worker.client.peer.close();
                self.lost(&worker);
                continue;
            }
            self.workers.push(worker);
        }
    }

    fn worked(&mut self, stage: &Stage<'_>, worker: &mut Worker, came: Came) {
        match came {
            Came::Opened | Came::Done(60, 11) => {}
            Came::Done(60, 21) => worker.is_open = true,
            Came::Delivered { tag, redelivered, body, .. } => {
                let Some(id) = self.seen(worker.queue, redelivered, &body) else { return };
                worker.held.insert(tag, id);
                if worker.held.len() > usize::from(PREFETCH) {
                    self.violated(format!("a worker keeps {} messages", worker.held.len()));
                }
                let Some(message) = self.messages.get(&id) else { return };
                let last = worker.last.insert(message.publisher, id);
                // Dead letters come in the order of their deaths.
                if worker.queue != DEAD && !redelivered && last.is_some_and(|last| last > id) {
                    self.violated(format!("message {id} comes behind {last:?} of the same publisher"));
                }
            }
            Came::Refused(..) if stage.trouble => worker.client.peer.close(),
            other => self.violated(format!("a worker was told {other:?}")),
        }
    }

    /// A message has come out of a queue.
    fn seen(&mut self, queue: usize, redelivered: bool, body: &[u8]) -> Option<u64> {
        self.count("delivered");
        let id = body.first_chunk().copied().map(u64::from_be_bytes).unwrap_or_default();
        let Some(message) = self.messages.get_mut(&id) else {
            let text = if self.has_crashed { ", or it was to be gone after a crash" } else { "" };
            self.violated(format!("message {id} was never published{text}"));
            return None;
        };
        if message.body != body {
            self.violated(format!("message {id} is not what was published"));
            return None;
        }
        if queue == DEAD {
            if message.copies.get(&REJECTING).is_some_and(|copy| copy.rejected) {
                message.copies.entry(DEAD).or_default();
            }
            message.died = true;
        }
        let has_died = message.died;
        let wrong = match message.copies.get_mut(&queue) {
            None => Some("is in a queue that it was not sent to"),
            Some(copy) => {
                let wrong = if queue == REJECTING && has_died {
                    Some("has come out of the dead letters, and is back")
                } else if copy.settled_at.is_some() {
                    Some("was settled, and is back")
                } else if copy.held {
                    Some("is with two workers")
                } else if copy.delivered && !redelivered {
                    Some("does not say that it has come before")
                } else {
                    None
                };
                copy.delivered = true;
                copy.held = true;
                wrong
            }
        };
        if queue == DEAD {
            self.count("dead letters");
        }
        if let Some(wrong) = wrong {
            self.violated(format!("message {id} {wrong} ({})", QUEUES[queue]));
        }
        Some(id)
    }

    fn settle(&mut self, now: Nanos, worker: &mut Worker) {
        let count = worker.held.len() as u64;
        if count == 0 {
            return;
        }
        // Mostly in order, as workers do.
        let place = if self.random.chance(0.5) { 0 } else { self.random.below(count) };
        let Some((tag, id)) = worker.held.iter().nth(place as usize).map(|(tag, id)| (*tag, *id)) else {
            return;
        };
        let gives_back = self.cast.gives_back && self.random.chance(0.1);
        let rejects = self.cast.rejects && worker.queue == REJECTING && self.random.chance(0.4);
        let Some(copy) = self.messages.get_mut(&id).and_then(|message| message.copies.get_mut(&worker.queue))
        else {
            return;
        };
        worker.held.remove(&tag);
        copy.held = false;
        if gives_back {
            worker.client.say(BasicNack { delivery_tag: tag, multiple: false, requeue: true });
        } else {
            copy.settled_at = Some(now);
            copy.rejected |= rejects;
            copy.acked |= !rejects;
            worker.settled.push_back(id);
            if worker.settled.len() > usize::from(PREFETCH) {
                worker.settled.pop_front();
            }
            if rejects {
                worker.client.say(BasicNack { delivery_tag: tag, multiple: false, requeue: false });
            } else {
                worker.client.say(BasicAck { delivery_tag: tag, multiple: false });
            }
            self.count(if rejects { "rejected" } else { "settled" });
        }
    }

    /// Gets everything out of every queue: what was confirmed and not settled is there.
    fn audit(&mut self, stage: &mut Stage<'_>) {
        self.lose_publishers();
        self.lose_workers();
        let mut client = Client::connect(stage.world, stage.addresses[1]);
        let mut found: BTreeSet<(u64, usize)> = BTreeSet::new();
        for (queue, name) in QUEUES.iter().enumerate() {
            if queue == DEAD {
                // What is on its way there is in no queue until it has arrived, which is tried again after a while.
                let end = stage.world.now() + LETTERS_ARRIVE_IN;
                while stage.world.now() < end {
                    stage.node.step();
                }
            }
            loop {
                client.say(BasicGet { queue: Short(name.as_bytes()), no_ack: true, ..BasicGet::default() });
                match self.wait(stage, &mut client) {
                    Some(Came::Delivered { redelivered, body, .. }) => {
                        found.extend(self.seen(queue, redelivered, &body).map(|id| (id, queue)));
                    }
                    Some(Came::Empty) => break,
                    Some(other) => return self.violated(format!("an audit was told {other:?}")),
                    None => return,
                }
                if !self.violations.is_empty() {
                    return;
                }
            }
        }
        client.peer.close();
        let mut wrong = Vec::new();
        for (id, message) in &self.messages {
            if found.contains(&(*id, REJECTING)) && found.contains(&(*id, DEAD)) {
                wrong.push(format!("message {id} is a dead letter, and where it was"));
            }
            if !message.confirmed || message.maybe {
                continue;
            }
            for (queue, copy) in message.copies.iter().filter(|(queue, _)| **queue != DEAD) {
                let may_be_gone = |copy: &Copy| copy.settled_at.is_some() || copy.maybe_settled;
                let accounted = if copy.rejected {
                    // It has to be a dead letter, or to have been settled as one, unless that is open.
                    let letter = message.copies.get(&DEAD);
                    found.contains(&(*id, DEAD))
                        || found.contains(&(*id, *queue))
                        || letter.is_some_and(may_be_gone)
                        || copy.acked
                } else {
                    found.contains(&(*id, *queue)) || may_be_gone(copy)
                };
                if !accounted {
                    let name = QUEUES[*queue];
                    wrong.push(format!(
                        "message {id} was confirmed and is not in {name}: {:?}",
                        message.copies
                    ));
                }
            }
        }
        self.violations.extend(wrong);
    }

    fn wait(&mut self, stage: &mut Stage<'_>, client: &mut Client) -> Option<Came> {
        let end = stage.world.now() + ANSWERED_IN;
        while stage.world.now() < end {
            stage.node.step();
            match client.came() {
                Ok(came) => {
                    if let Some(came) = came.into_iter().find(|came| *came != Came::Opened) {
                        return Some(came);
                    }
                }
                Err(what) => {
                    self.violated(what);
                    return None;
                }
            }
        }
        self.violated("an audit is not answered".to_owned());
        None
    }
}
