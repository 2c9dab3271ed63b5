//! A queue, what it tells of itself, and messages coming in.

use super::chunk::{ChunkNo, Entry, NEVER, State};
use super::index::{Arrival, Index};
use super::keepers::Keepers;
use super::work::Budget;
use super::{Admission, Incoming, LeaveReason, Output, QueueCounts, QueueStats, Token};
use crate::config::{Overflow, QueueSettings};
use crate::time::WallMs;
use crate::types::Seq;

/// See the module.
pub struct Queue {
    pub(super) settings: QueueSettings,
    pub(super) index: Index,
    pub(super) keepers: Keepers,
    /// Since when nobody has used it.
    pub(super) used_at: WallMs,
    /// Whether the host knows that it has been unused for too long.
    pub(super) expired: bool,
    /// Not later than the first message has been kept for too long.
    pub(super) timeout_at: WallMs,
    /// Before this one there is no leaving message that was not told.
    pub(super) untold_from: ChunkNo,
    pub(super) counts: QueueCounts,
}

impl Queue {
    /// An empty queue.
    pub fn new(settings: QueueSettings, now: WallMs) -> Queue {
        Queue {
            keepers: Keepers::new(settings.single_active_consumer),
            settings,
            index: Index::new(),
            used_at: now,
            expired: false,
            timeout_at: NEVER,
            untold_from: ChunkNo(0),
            counts: QueueCounts::default(),
        }
    }

    // What it tells.

    /// What holds for it.
    pub fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// How it stands.
    pub fn stats(&self) -> QueueStats {
        let (ready, kept) = (self.index.amount(State::Ready), self.index.amount(State::Kept));
        QueueStats {
            ready: ready.messages,
            ready_bytes: ready.bytes,
            unacked: kept.messages,
            unacked_bytes: kept.bytes,
            leaving: self.index.amount(State::Leaving).messages,
            persistent: self.index.persistent(),
            consumers: self.keepers.consumers(),
            counts: self.counts,
        }
    }

    /// The names of its consumers, the oldest first.
    pub fn consumers(&self) -> Vec<Token> {
        self.keepers.tokens()
    }

    /// The number that the next message of a priority gets. In a queue without priorities they count from 0.
    pub fn next_seq(&self, priority: u8) -> Seq {
        self.index.next(self.rank(priority))
    }

    /// When a message expires that is published now: by itself, or because it has been here for as long as any may.
    pub fn expiry(&self, own: Option<WallMs>, now: WallMs) -> Option<WallMs> {
        let of_queue = self.settings.message_ttl_ms.map(|ttl| after(now, ttl));
        own.into_iter().chain(of_queue).min()
    }

    /// A message's rank: 0 for the highest priority.
    fn rank(&self, priority: u8) -> u8 {
        let highest = self.settings.max_priority.unwrap_or(0);
        highest - priority.min(highest)
    }

    // Messages in.

    /// Whether a message of this size is taken now. If there is no room, what can be delivered is, and what has
    /// expired goes, to make some: both would have happened by now, had [`Queue::run`] been called for each message.
    pub fn admit(&mut self, size: u32, now: WallMs, out: &mut Vec<Output>) -> Admission {
        if self.admits(size) {
            return Admission::Take;
        }
        self.dispatch(now, &mut Budget::unlimited(), out);
        self.expire(now, &mut Budget::unlimited(), out);
        if self.has_room(size) {
            Admission::Take
        } else if self.settings.overflow == Overflow::RejectPublishDeadLetter && self.settings.dead_letter {
            Admission::RefuseAndLeave
        } else {
            Admission::Refuse
        }
    }

    /// Whether a message of this size is taken now, whatever else would be done to make room.
    pub fn admits(&self, size: u32) -> bool {
        self.settings.overflow == Overflow::DropHead || self.has_room(size)
    }

    fn has_room(&self, size: u32) -> bool {
        let ready = self.index.amount(State::Ready);
        self.settings.max_messages.is_none_or(|most| ready.messages < most)
            && self.settings.max_bytes.is_none_or(|most| ready.bytes + u64::from(size) <= most)
    }

    /// Takes a message that was admitted. It is delivered by [`Queue::run`] at the earliest.
    pub fn publish(&mut self, message: Incoming, now: WallMs) -> Seq {
        self.push(message, now, State::Ready, None)
    }

    /// Takes a message that there was no room for, to be a dead letter. The host has to be told: [`Output::Leaving`].
    pub fn publish_refused(&mut self, message: Incoming, now: WallMs, out: &mut Vec<Output>) -> Seq {
        let reason = LeaveReason::MaxLength;
        let seq = self.push(message, now, State::Leaving, Some(reason));
        self.untold_from = self.untold_from.min(ChunkNo::of(seq));
        out.push(Output::Leaving { seq, reason, persistent: message.persistent });
        seq
    }

    fn push(&mut self, message: Incoming, now: WallMs, state: State, reason: Option<LeaveReason>) -> Seq {
        let arrival = Arrival {
            entry: Entry { locator: message.locator, size: message.size, failures: 0, reason },
            persistent: message.persistent,
            delivered: false,
            expires_at: self.expiry(message.expires_at, now).unwrap_or(NEVER),
        };
        let rank = self.rank(message.priority);
        self.counts.published += 1;
        self.index.push(rank, state, arrival)
    }
}

/// A moment later.
pub(super) fn after(now: WallMs, ms: u64) -> WallMs {
    WallMs(now.0.saturating_add_unsigned(ms)).min(WallMs(NEVER.0 - 1))
}
