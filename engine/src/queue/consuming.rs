//! Who consumes, and messages going out.

use super::chunk::{Kept, State};
use super::index::Spot;
use super::state::{Queue, after};
use super::work::Budget;
use super::{Cause, Consume, ConsumeError, Credit, Delivery, Keeper, LeaveReason, Output, Token};
use crate::time::WallMs;

impl Queue {
    /// Adds a consumer.
    pub fn consume(
        &mut self,
        consume: Consume,
        now: WallMs,
        out: &mut Vec<Output>,
    ) -> Result<Keeper, ConsumeError> {
        if self.keepers.is_exclusive() || (consume.exclusive && self.keepers.consumers() > 0) {
            return Err(ConsumeError::InUse);
        }
        self.touch(now);
        let active = self.keepers.active();
        let keeper = self.keepers.add_consumer(&consume);
        self.tell_if_activated(active, out);
        Ok(keeper)
    }

    /// Adds somebody who gets messages one by one. Such a keeper is forgotten when it has settled everything.
    pub fn add_keeper(&mut self, token: Token) -> Keeper {
        self.keepers.add(token)
    }

    /// Lets a consumer have more.
    pub fn credit(&mut self, keeper: Keeper, more: Credit) {
        self.keepers.credit(keeper, more);
    }

    /// Ends a consumer. What it keeps it may still settle.
    pub fn cancel(&mut self, keeper: Keeper, now: WallMs, out: &mut Vec<Output>) {
        let active = self.keepers.active();
        if !self.keepers.cancel(keeper) {
            return;
        }
        self.tell_if_activated(active, out);
        if self.keepers.consumers() == 0 {
            self.touch(now);
            out.push(Output::Unused);
        }
        self.release(keeper, out);
    }

    /// Gives the first message to a keeper or, if there is none, to somebody who does not acknowledge. `None`, though there are
    /// ready messages: the first is paged out, and can be had when its page is back.
    pub fn get(&mut self, keeper: Option<Keeper>, now: WallMs, out: &mut Vec<Output>) -> Option<Delivery> {
        self.touch(now);
        let spot = self.first_unexpired(now, &mut Budget::unlimited(), out);
        let delivery = spot.map(|spot| self.give(spot, keeper, now));
        match (&delivery, keeper) {
            (None, _) => self.counts.got_empty += u64::from(self.index.amount(State::Ready).messages == 0),
            (Some(_), Some(_)) => self.counts.got += 1,
            (Some(_), None) => self.counts.got_no_ack += 1,
        }
        if let (Some(spot), None) = (spot, keeper) {
            self.settle_in(spot.slot, spot.bit(), State::Ready, Cause::Delivered, out);
        }
        if let Some(keeper) = keeper {
            self.release(keeper, out);
        }
        self.ask_for_pages(out);
        delivery
    }

    /// Says that somebody uses the queue.
    pub fn touch(&mut self, now: WallMs) {
        self.used_at = now;
        self.expired = false;
    }

    pub(super) fn tell_if_activated(&self, before: Option<Keeper>, out: &mut Vec<Output>) {
        let active = self.keepers.active();
        if let Some(keeper) = active.filter(|_| active != before) {
            let slot = self.keepers.get(keeper).expect("who is active is there");
            out.push(Output::Activated(slot.token));
        }
    }

    pub(super) fn release(&mut self, keeper: Keeper, out: &mut Vec<Output>) {
        out.extend(self.keepers.release(keeper).map(Output::Released));
    }

    /// Delivers to those whose turn it is, as long as there is work in the budget. `false`: it has to wait for a page.
    pub(super) fn dispatch(&mut self, now: WallMs, budget: &mut Budget, out: &mut Vec<Output>) -> bool {
        while let Some((keeper, token, no_ack)) = self.keepers.next() {
            let Some(spot) = self.first_unexpired(now, budget, out) else {
                return budget.0 == 0 || self.index.amount(State::Ready).messages == 0;
            };
            if !budget.take() {
                break;
            }
            let delivery = self.give(spot, (!no_ack).then_some(keeper), now);
            self.keepers.serve(delivery.size);
            *if no_ack { &mut self.counts.delivered_no_ack } else { &mut self.counts.delivered } += 1;
            out.push(Output::Deliver(token, delivery));
            if no_ack {
                self.settle_in(spot.slot, spot.bit(), State::Ready, Cause::Delivered, out);
            }
        }
        true
    }

    /// The first message, after those that have expired.
    fn first_unexpired(&mut self, now: WallMs, budget: &mut Budget, out: &mut Vec<Output>) -> Option<Spot> {
        loop {
            let spot = self.index.first(State::Ready)?;
            let chunk = self.index.chunk(spot.slot);
            if chunk.earliest >= now || chunk.expiry(spot.place) >= now {
                return Some(spot);
            }
            if !budget.take() {
                return None;
            }
            self.leave(spot, State::Ready, LeaveReason::Expired, out);
        }
    }

    /// Gives a message out; to nobody who keeps it, and it is to be settled at once.
    fn give(&mut self, spot: Spot, keeper: Option<Keeper>, now: WallMs) -> Delivery {
        let chunk = self.index.chunk_mut(spot.slot);
        let entry = chunk.entry(spot.place);
        let delivery = Delivery {
            seq: chunk.no.seq(spot.place),
            locator: entry.locator,
            size: entry.size,
            failures: entry.failures,
            redelivered: chunk.delivered & spot.bit() != 0,
            persistent: chunk.persistent & spot.bit() != 0,
        };
        self.counts.redelivered += u64::from(delivery.redelivered);
        let Some(keeper) = keeper else { return delivery };
        chunk.delivered |= spot.bit();
        chunk.keep(spot.place, Kept::new(keeper.0, now));
        self.index.shift(spot.slot, spot.bit(), State::Ready, State::Kept);
        let timeout_ms = self.keepers.keep(keeper).or(self.settings.consumer_timeout_ms);
        if let Some(timeout_ms) = timeout_ms {
            self.timeout_at = self.timeout_at.min(after(now, timeout_ms));
        }
        delivery
    }
}
