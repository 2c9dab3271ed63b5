//! Messages coming back, leaving, and being settled.

use super::chunk::{ChunkNo, Places, State, mask_of};
use super::index::{Slot, Spot};
use super::state::Queue;
use super::{Cause, Keeper, LeaveReason, Output, Verdict};
use crate::types::Seq;

impl Queue {
    /// Settles what a keeper keeps with numbers from `first` to `last`; says how many those were. What it does not keep is
    /// left alone.
    pub fn settle(
        &mut self,
        keeper: Keeper,
        first: Seq,
        last: Seq,
        verdict: Verdict,
        out: &mut Vec<Output>,
    ) -> u32 {
        if self.keepers.get(keeper).is_none_or(|slot| slot.kept == 0) {
            return 0;
        }
        let mut settled = 0;
        let mut from = ChunkNo::of(first);
        while let Some(slot) = self.index.chunk_from(State::Kept, from) {
            let chunk = self.index.chunk(slot);
            let no = chunk.no;
            if no > ChunkNo::of(last) {
                break;
            }
            let mut bits = 0;
            for place in Places(chunk.mask(State::Kept) & mask_of(no, first, last)) {
                bits |= u64::from(chunk.kept(place).keeper == keeper.0) << place;
            }
            settled += bits.count_ones();
            self.judge(slot, bits, verdict, out);
            if no == ChunkNo::of(last) {
                break;
            }
            from = no.next();
        }
        self.keepers.unkeep(keeper, settled);
        self.release(keeper, out);
        settled
    }

    fn judge(&mut self, slot: Slot, bits: u64, verdict: Verdict, out: &mut Vec<Output>) {
        match verdict {
            Verdict::Ack => self.settle_in(slot, bits, State::Kept, Cause::Acked, out),
            Verdict::Requeue { failed } => {
                for place in Places(bits) {
                    self.take_back(Spot { slot, place }, failed, out);
                }
            }
            Verdict::Reject => {
                for place in Places(bits) {
                    self.leave(Spot { slot, place }, State::Kept, LeaveReason::Rejected, out);
                }
            }
        }
    }

    fn take_back(&mut self, spot: Spot, failed: bool, out: &mut Vec<Output>) {
        if failed {
            let chunk = self.index.chunk_mut(spot.slot);
            let (seq, persistent) = (chunk.no.seq(spot.place), chunk.persistent & spot.bit() != 0);
            let entry = chunk.entry_mut(spot.place);
            entry.failures = entry.failures.saturating_add(1);
            let failures = entry.failures;
            if self.settings.delivery_limit.is_some_and(|limit| u32::from(failures) > limit) {
                self.leave(spot, State::Kept, LeaveReason::DeliveryLimit, out);
                return;
            }
            out.push(Output::Failed { seq, failures, persistent });
        }
        self.index.make_ready(spot, State::Kept);
    }

    /// Makes a message leave: as a dead letter, or for good if nobody wants to know.
    pub(super) fn leave(&mut self, spot: Spot, from: State, reason: LeaveReason, out: &mut Vec<Output>) {
        if !self.settings.dead_letter {
            self.settle_in(spot.slot, spot.bit(), from, Cause::Dropped(reason), out);
            return;
        }
        let chunk = self.index.chunk_mut(spot.slot);
        chunk.entry_mut(spot.place).reason = Some(reason);
        chunk.told &= !spot.bit();
        let (seq, persistent) = (chunk.no.seq(spot.place), chunk.persistent & spot.bit() != 0);
        self.index.shift(spot.slot, spot.bit(), from, State::Leaving);
        out.push(Output::Leaving { seq, reason, persistent });
    }

    /// Tells of messages that have to leave, as many as the host can take. Each is told once.
    pub fn tell_leaving(&mut self, most: usize, out: &mut Vec<Output>) {
        let (mut told, mut from) = (0, ChunkNo(0));
        while told < most
            && let Some(slot) = self.index.chunk_from(State::Leaving, from)
        {
            let chunk = self.index.chunk_mut(slot);
            from = chunk.no.next();
            let untold = chunk.mask(State::Leaving) & !chunk.told;
            for place in Places(untold).take(most - told) {
                told += 1;
                chunk.told |= 1 << place;
                let entry = chunk.entry(place);
                out.push(Output::Leave {
                    seq: chunk.no.seq(place),
                    locator: entry.locator,
                    size: entry.size,
                    reason: entry.reason.expect("what leaves has a reason"),
                    persistent: chunk.persistent & 1 << place != 0,
                });
            }
        }
    }

    /// A message that had to leave is where it belongs. `false`: it was not leaving.
    pub fn left(&mut self, seq: Seq, out: &mut Vec<Output>) -> bool {
        let spot = self.index.locate(seq, State::Leaving);
        if let Some(spot) = spot {
            self.settle_in(spot.slot, spot.bit(), State::Leaving, Cause::Left, out);
        }
        spot.is_some()
    }

    /// A message that had to leave could not: it is told again. `false`: it was not leaving.
    pub fn stayed(&mut self, seq: Seq) -> bool {
        let spot = self.index.locate(seq, State::Leaving);
        if let Some(spot) = spot {
            self.index.chunk_mut(spot.slot).told &= !spot.bit();
        }
        spot.is_some()
    }

    /// Removes all messages that wait for a consumer; says how many. They are settled by [`Queue::run`].
    pub fn purge(&mut self) -> u64 {
        let messages = self.index.amount(State::Ready).messages;
        let mut from = ChunkNo(0);
        while let Some(slot) = self.index.chunk_from(State::Ready, from) {
            let chunk = self.index.chunk(slot);
            from = chunk.no.next();
            self.index.shift(slot, chunk.mask(State::Ready), State::Ready, State::Purged);
        }
        messages
    }

    /// Settles messages of a chunk.
    pub(super) fn settle_in(
        &mut self,
        slot: Slot,
        bits: u64,
        from: State,
        cause: Cause,
        out: &mut Vec<Output>,
    ) {
        let chunk = self.index.chunk(slot);
        out.extend(Places(bits).map(|place| {
            let entry = chunk.entry(place);
            Output::Settled {
                seq: chunk.no.seq(place),
                locator: entry.locator,
                size: entry.size,
                persistent: chunk.persistent & 1 << place != 0,
                cause,
            }
        }));
        self.index.settle(slot, bits, from);
    }
}
