//! What a queue does when it is given time: deliver, expire, make room, end who keeps messages for too long.

use super::chunk::{ChunkNo, NEVER, Places, State};
use super::index::Spot;
use super::state::{Queue, after};
use super::{Cause, Keeper, LeaveReason, Output, Verdict};
use crate::config::{Overflow, QueueSettings};
use crate::time::WallMs;
use crate::types::Seq;

/// How many messages may still be looked at.
pub(super) struct Budget(pub usize);

impl Budget {
    /// As many as there are.
    pub fn unlimited() -> Budget {
        Budget(usize::MAX)
    }

    /// Takes one, if there is one left.
    pub fn take(&mut self) -> bool {
        let left = self.0 > 0;
        self.0 -= usize::from(left);
        left
    }
}

impl Queue {
    /// Does what is to be done now, for about so many messages at most. `true`: there may be more, so call again soon.
    pub fn run(&mut self, now: WallMs, most: usize, out: &mut Vec<Output>) -> bool {
        let mut budget = Budget(most);
        self.time_out(now, out);
        // What could still be delivered is not to expire, though it has to wait for a page.
        if self.dispatch(now, &mut budget, out) {
            self.expire(now, &mut budget, out);
            self.make_room(&mut budget, out);
        }
        self.settle_purged(&mut budget, out);
        self.expire_itself(now, out);
        self.ask_for_pages(out);
        budget.0 == 0
    }

    /// When [`Queue::run`] has something to do if nothing else happens. While a page is awaited, not what may be in it.
    pub fn next_deadline(&self) -> Option<WallMs> {
        let expiry = self.index.deadline().filter(|_| !self.index.pages.are_awaited());
        let timeout = Some(self.timeout_at).filter(|at| *at != NEVER);
        [expiry, timeout, self.unused_until()].into_iter().flatten().min()
    }

    /// Other settings hold from now on. What they change for messages that are here is done by [`Queue::run`]; but a message
    /// expires when it was to expire when it came.
    pub fn configure(&mut self, settings: QueueSettings, now: WallMs, out: &mut Vec<Output>) {
        let active = self.keepers.active();
        self.keepers.set_single_active(settings.single_active_consumer);
        self.settings = settings;
        self.tell_if_activated(active, out);
        // Looking at what is kept finds out by when to look again.
        self.timeout_at = now;
    }

    /// Makes ready messages leave that expire by now.
    pub(super) fn expire(&mut self, now: WallMs, budget: &mut Budget, out: &mut Vec<Output>) {
        while let Some(slot) = self.index.due(now) {
            let chunk = self.index.chunk(slot);
            let due = Places(chunk.mask(State::Ready)).filter(|place| chunk.expiry(*place) <= now);
            let due = due.fold(0_u64, |due, place| due | 1 << place);
            // The deadline first: there may be no chunk any more when the last message has left.
            let all = due.count_ones() as usize <= budget.0;
            if all {
                self.index.renew_deadline(slot, due);
            }
            for place in Places(due) {
                if !budget.take() {
                    return;
                }
                self.leave(Spot { slot, place }, State::Ready, LeaveReason::Expired, out);
            }
        }
    }

    /// Makes the first messages leave while there are too many.
    fn make_room(&mut self, budget: &mut Budget, out: &mut Vec<Output>) {
        if self.settings.overflow != Overflow::DropHead {
            return;
        }
        while self.is_too_long()
            && let Some(spot) = self.index.first(State::Ready)
            && budget.take()
        {
            self.leave(spot, State::Ready, LeaveReason::MaxLength, out);
        }
    }

    fn is_too_long(&self) -> bool {
        let ready = self.index.amount(State::Ready);
        self.settings.max_messages.is_some_and(|most| ready.messages > most)
            || self.settings.max_bytes.is_some_and(|most| ready.bytes > most)
    }

    fn settle_purged(&mut self, budget: &mut Budget, out: &mut Vec<Output>) {
        while budget.0 > 0
            && let Some(slot) = self.index.chunk_from(State::Purged, ChunkNo(0))
        {
            let bits = self.index.chunk(slot).mask(State::Purged);
            budget.0 = budget.0.saturating_sub(bits.count_ones() as usize);
            self.settle_in(slot, bits, State::Purged, Cause::Purged, out);
        }
    }

    /// Takes everything back from those who keep a message for too long, and cancels them.
    fn time_out(&mut self, now: WallMs, out: &mut Vec<Output>) {
        if self.timeout_at > now {
            return;
        }
        let mut overdue = Vec::new();
        self.timeout_at = NEVER;
        let mut from = ChunkNo(0);
        while let Some(slot) = self.index.chunk_from(State::Kept, from) {
            let chunk = self.index.chunk(slot);
            from = chunk.no.next();
            for place in Places(chunk.mask(State::Kept)) {
                let kept = chunk.kept(place);
                let keeper = Keeper(kept.keeper);
                let Some(timeout_ms) = self.timeout_of(keeper) else { continue };
                match timeout_ms.saturating_sub(kept.age_ms(now)) {
                    0 if overdue.contains(&keeper) => {}
                    0 => overdue.push(keeper),
                    left => self.timeout_at = self.timeout_at.min(after(now, left)),
                }
            }
        }
        for keeper in overdue {
            let token = self.keepers.get(keeper).expect("who keeps a message is there").token;
            out.push(Output::TimedOut(token));
            self.cancel(keeper, now, out);
            self.settle(keeper, Seq(0), Seq(u64::MAX), Verdict::Requeue { failed: true }, out);
        }
    }

    fn timeout_of(&self, keeper: Keeper) -> Option<u64> {
        self.keepers.get(keeper)?.timeout_ms.or(self.settings.consumer_timeout_ms)
    }

    fn unused_until(&self) -> Option<WallMs> {
        let expires_ms =
            self.settings.expires_ms.filter(|_| self.keepers.consumers() == 0 && !self.expired)?;
        Some(after(self.used_at, expires_ms))
    }

    fn expire_itself(&mut self, now: WallMs, out: &mut Vec<Output>) {
        if self.unused_until().is_some_and(|at| at <= now) {
            self.expired = true;
            out.push(Output::Expired);
        }
    }
}
