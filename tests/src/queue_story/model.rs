//! What is known of each message, and what must hold of it.

use std::collections::BTreeMap;

use millstream_engine::shard::message::Delivery;
use millstream_engine::time::Nanos;
use millstream_engine::types::{QueueId, ShardId};

use super::Bug;

/// Queues whose dead letters go round in a circle.
pub const CIRCLE: usize = 4;
/// Queues that are purged, deleted and made anew, and have no dead letters.
pub const LOOSE: usize = 2;
/// All queues.
pub const QUEUES: usize = CIRCLE + LOOSE;

/// A settlement that is older than this is durable: what it may wait, a slow commit, and a shard that is held up.
const SETTLED_FOR_GOOD: Nanos = Nanos::from_millis(300);

/// A message in one of the queues that it was published to; wherever it has gone since.
pub type Copy = (u32, usize);

/// What is known of it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Known {
    pub publisher: ShardId,
    /// The queue that it was published to.
    pub id: QueueId,
    pub confirmed: bool,
    pub acked_at: Option<Nanos>,
    /// Acknowledged, and not seen again since.
    pub may_be_gone: bool,
    /// It went to a queue that was being deleted or purged: nobody knows.
    pub doubtful: bool,
    pub ended: bool,
    /// The life in which it was purged, for good.
    pub purged: Option<u64>,
    pub moved: bool,
    /// The queues that have delivered it.
    pub delivered: Vec<usize>,
    /// In this life.
    pub delivered_now: bool,
}

impl Known {
    /// It was published by this shard to this queue; `doubtful` if that is about to change.
    pub fn new(publisher: ShardId, id: QueueId, doubtful: bool) -> Known {
        Known {
            publisher,
            id,
            confirmed: false,
            acked_at: None,
            may_be_gone: false,
            doubtful,
            ended: false,
            purged: None,
            moved: false,
            delivered: Vec::new(),
            delivered_now: false,
        }
    }
}

/// See the module.
pub struct Model {
    pub bug: Bug,
    pub life: u64,
    /// The queues, by number: those that a change has made last, and whether another is under way.
    pub queues: Vec<QueueId>,
    /// Whether they are known in this life.
    pub is_known: bool,
    pub before: Vec<QueueId>,
    pub changing: Vec<bool>,
    /// How many purges are under way, by queue.
    pub purging: Vec<u32>,
    pub copies: BTreeMap<Copy, Known>,
    pub numbers: u32,
    /// In this life: the last message that was delivered for the first time, by queue and publisher.
    last: BTreeMap<(usize, ShardId), u32>,
    pub violations: Vec<String>,
    /// Only what is there is taken, and all of it acknowledged.
    pub draining: bool,
    /// Nothing more is asked.
    pub resting: bool,
    /// When a shard was poisoned in this life: what it had been told shortly before may be lost, however long ago that was.
    pub poisoned_at: Option<Nanos>,
    pub deliveries: u64,
    pub letters: u64,
    pub confirmed: u64,
}

impl Model {
    pub fn new(bug: Bug) -> Model {
        Model {
            bug,
            life: 0,
            queues: Vec::new(),
            is_known: false,
            before: Vec::new(),
            changing: vec![false; QUEUES],
            purging: vec![0; QUEUES],
            copies: BTreeMap::new(),
            numbers: 0,
            last: BTreeMap::new(),
            violations: Vec::new(),
            draining: false,
            resting: false,
            poisoned_at: None,
            deliveries: 0,
            letters: 0,
            confirmed: 0,
        }
    }

    pub fn begin(&mut self, life: u64) {
        self.life = life;
        self.is_known = false;
        self.resting = false;
        self.changing = vec![false; QUEUES];
        self.purging = vec![0; QUEUES];
    }

    /// A queue by its number, by what was answered of changes.
    pub fn index_of(&self, queue: QueueId) -> Option<usize> {
        self.queues.iter().position(|known| *known == queue)
    }

    /// The copies that went to a queue.
    pub fn copies_of(&mut self, queue: QueueId) -> impl Iterator<Item = &mut Known> {
        self.copies.values_mut().filter(move |known| known.id == queue)
    }

    /// A message is delivered by a queue.
    pub fn took(&mut self, index: usize, copy: Copy, delivery: &Delivery) {
        self.deliveries += 1;
        let Some(known) = self.copies.get_mut(&copy) else {
            return self
                .violations
                .push(format!("{copy:?} was never published, and is delivered by {index}"));
        };
        let mut wrong = Vec::new();
        if known.ended {
            wrong.push("was settled for good".to_owned());
        }
        if known.purged.is_some_and(|life| life != self.life) {
            wrong.push("was purged in another life".to_owned());
        }
        if known.delivered.contains(&index) && !delivery.redelivered && !known.moved {
            wrong.push("was delivered in another life, and does not say so".to_owned());
        }
        if !delivery.redelivered && !known.moved {
            let last = self.last.insert((index, known.publisher), copy.0);
            if last.is_some_and(|last| last > copy.0) {
                wrong.push(format!("comes behind {last:?}"));
            }
        }
        // It may have been on its way when it was purged.
        known.purged = None;
        known.may_be_gone = false;
        known.delivered_now = true;
        if !known.delivered.contains(&index) {
            known.delivered.push(index);
        }
        for what in wrong {
            self.violations
                .push(format!("{copy:?} {what}, and is delivered by {index}: {:?}", self.copies[&copy]));
        }
    }

    pub fn crashed(&mut self, now: Nanos) {
        self.last.clear();
        let end = self.poisoned_at.take().unwrap_or(now);
        for known in self.copies.values_mut() {
            known.ended |= known.acked_at.take().is_some_and(|at| at + SETTLED_FOR_GOOD < end);
            known.delivered_now = false;
        }
    }

    /// What was confirmed, and was not seen when everything was taken out.
    pub fn missing(&self) -> Vec<(Copy, Known)> {
        let missing = |(_, known): &(&Copy, &Known)| {
            let gone = known.ended || known.may_be_gone || known.doubtful || known.purged.is_some();
            known.confirmed && !gone && !known.delivered_now
        };
        self.copies.iter().filter(missing).map(|(copy, known)| (*copy, known.clone())).collect()
    }
}
