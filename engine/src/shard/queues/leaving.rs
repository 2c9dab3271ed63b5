//! Asking the host where leaving messages go: a bounded number of them at a time, of all queues in turn, and again after a while
//! those that could not go.
//!
//! A shard that stores nothing now takes nothing either. Messages that would go there stay at once, without being sent, and
//! give their place to others; now and then one is sent to see how things stand. What stays is remembered by a bit in its
//! queue's index, not here, however many they are.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};

use super::{Desk, Index, Queues};
use crate::limits::{LEAVING_AGAIN_MAX, LEAVING_TOLD_MAX, LEAVING_TOLD_PER_QUEUE_MAX};
use crate::time::Nanos;
use crate::types::{QueueId, Seq, ShardId};

/// How long messages that could not go where they should stay before the host is asked about some of them again.
const STAY: Nanos = Nanos::from_millis(1_000);
/// A shard that takes nothing is tried again after this, then after twice as long each time, up to the second.
const SHUT_LEAST: Nanos = Nanos::from_millis(500);
const SHUT_MOST: Nanos = Nanos::from_millis(16_000);

/// What the host knows of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// It is being asked.
    Asked,
    /// It has answered, and the message is on its way.
    Moving,
}

/// A shard that takes nothing.
struct Shut {
    until: Nanos,
    pause: Nanos,
}

/// See the module.
#[derive(Default)]
pub struct Letters {
    /// Messages that the host knows of.
    told: BTreeMap<(QueueId, Seq), Told>,
    /// Queues with leaving messages that it was not told of.
    waiting: BTreeSet<Index>,
    /// Whose turn it is among them.
    turn: u32,
    /// Queues with messages that stay, and whether any has come to stay since the last look at that queue began.
    staying: BTreeMap<QueueId, bool>,
    /// When some of them are told again, and from which on.
    again_at: Option<Nanos>,
    again_from: (QueueId, Seq),
    /// A shard takes messages again: all are told.
    eager: bool,
    shut: BTreeMap<ShardId, Shut>,
}

impl Letters {
    /// There may be leaving messages of a queue that the host was not told of.
    pub fn add(&mut self, index: Index) {
        self.waiting.insert(index);
    }

    /// A queue is gone.
    pub fn forget_queue(&mut self, index: Index, queue: QueueId) {
        self.waiting.remove(&index);
        self.staying.remove(&queue);
        let gone: Vec<_> =
            self.told.range((queue, Seq(0))..=(queue, Seq(u64::MAX))).map(|(name, _)| *name).collect();
        for name in gone {
            self.told.remove(&name);
        }
    }

    /// The host has said where a message goes; `false` if it was not asked, or has said so before.
    pub fn moves(&mut self, queue: QueueId, seq: Seq) -> bool {
        self.told.insert((queue, seq), Told::Moving) == Some(Told::Asked)
    }

    /// A message has left, or is no more.
    pub fn left(&mut self, queue: QueueId, seq: Seq) {
        self.told.remove(&(queue, seq));
    }

    /// A message stays for now.
    pub fn stay(&mut self, queue: QueueId, seq: Seq, now: Nanos) {
        self.told.remove(&(queue, seq));
        self.staying.insert(queue, true);
        self.again_at.get_or_insert(now + STAY);
    }

    /// Whether a shard takes nothing, as far as is known. Once in a while it is tried all the same.
    pub fn is_shut(&mut self, shard: ShardId, now: Nanos) -> bool {
        let Some(shut) = self.shut.get_mut(&shard) else { return false };
        let rests = now < shut.until;
        if !rests {
            shut.until = now + shut.pause;
        }
        rests
    }

    /// A shard has taken nothing of what was sent, and will not for a while.
    pub fn shuts(&mut self, shard: ShardId, now: Nanos) {
        let pause = match self.shut.entry(shard) {
            Place::Vacant(place) => place.insert(Shut { until: now, pause: SHUT_LEAST }).pause,
            Place::Occupied(mut known) => {
                let shut = known.get_mut();
                shut.pause = Nanos(shut.pause.0 * 2).min(SHUT_MOST);
                shut.pause
            }
        };
        if let Some(shut) = self.shut.get_mut(&shard) {
            shut.until = now + pause;
        }
    }

    /// A shard has taken something.
    pub fn opens(&mut self, shard: ShardId, now: Nanos) {
        if self.shut.remove(&shard).is_some() && !self.staying.is_empty() {
            self.eager = true;
            self.again_at = Some(now);
        }
    }

    /// Whether the host is being asked about all that it can be.
    pub fn are_asked_about(&self) -> bool {
        self.waiting.is_empty() || self.told.len() >= LEAVING_TOLD_MAX
    }

    /// When there is something to do.
    pub fn due(&self) -> Option<Nanos> {
        self.again_at
    }

    /// Messages that the host knows of.
    pub fn told(&self) -> usize {
        self.told.len()
    }
}

impl Queues {
    /// Asks the host about leaving messages, about so many at a time, of one queue after the other.
    pub(super) fn tell_leaving(&mut self, desk: &mut Desk<'_>) {
        self.tell_again(desk.now);
        for _ in 0..self.letters.waiting.len() {
            let room = LEAVING_TOLD_MAX.saturating_sub(self.letters.told.len());
            let letters = &self.letters;
            let next = letters.waiting.range(Index(letters.turn)..).chain(&letters.waiting).next().copied();
            let Some(index) = next.filter(|_| room > 0) else { return };
            self.letters.turn = index.0 + 1;
            let most = room.min(LEAVING_TOLD_PER_QUEUE_MAX);
            let mut wants = std::mem::take(&mut self.wants);
            let entry = self.entry(index);
            entry.machine.tell_leaving(most, &mut wants);
            let id = entry.id;
            if wants.len() < most {
                self.letters.waiting.remove(&index);
            }
            for want in &wants {
                if let crate::queue::Output::Leave { seq, .. } = want {
                    self.letters.told.insert((id, *seq), Told::Asked);
                }
            }
            self.carry_out(desk, index, &mut wants);
            self.wants = wants;
        }
    }

    /// Has the host asked again about some of the messages that stay.
    fn tell_again(&mut self, now: Nanos) {
        if self.letters.again_at.is_none_or(|at| at > now) {
            return;
        }
        let mut budget = if self.letters.eager { usize::MAX } else { LEAVING_AGAIN_MAX };
        // Each queue once, and the first one's beginning at the end, if it was begun in its middle.
        for _ in 0..=self.letters.staying.len() {
            let (from, _) = self.letters.again_from;
            let staying = &self.letters.staying;
            let Some((&queue, _)) = staying.range(from..).chain(staying).next().filter(|_| budget > 0) else {
                break;
            };
            let seq = if queue == from { self.letters.again_from.1 } else { Seq(0) };
            let Some(index) = self.find(queue) else {
                self.letters.staying.remove(&queue);
                continue;
            };
            if seq == Seq(0) {
                self.letters.staying.insert(queue, false);
            }
            let told = std::mem::take(&mut self.letters.told);
            let machine = &mut self.entry(index).machine;
            let next = machine.tell_again(seq, budget, |seq| told.contains_key(&(queue, seq)));
            self.letters.told = told;
            self.letters.waiting.insert(index);
            match next {
                Some(seq) => {
                    self.letters.again_from = (queue, seq);
                    budget = 0;
                }
                None => {
                    if self.letters.staying.get(&queue) == Some(&false) {
                        self.letters.staying.remove(&queue);
                    }
                    self.letters.again_from = (after(queue), Seq(0));
                }
            }
        }
        self.letters.eager = false;
        self.letters.again_at = (!self.letters.staying.is_empty()).then(|| now + STAY);
    }
}

/// The next id in order.
fn after(queue: QueueId) -> QueueId {
    QueueId(u128::from_be_bytes(queue.0).wrapping_add(1).to_be_bytes())
}
