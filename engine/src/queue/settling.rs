//! Messages coming back, leaving, and being settled.

use std::cmp::Ordering;

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
        let (mut settled, mut from, to) = (0, ChunkNo::of(first), ChunkNo::of(last));
        while let Some(slot) = self.kept_from(from, to) {
            let chunk = self.index.chunk(slot);
            let mut bits = 0;
            for place in Places(chunk.mask(State::Kept) & mask_of(chunk.no, first, last)) {
                bits |= u64::from(chunk.kept(place).keeper == keeper.0) << place;
            }
            settled += bits.count_ones();
            from = chunk.no.next();
            self.judge(slot, bits, verdict, out);
        }
        self.keepers.unkeep(keeper, settled);
        self.release(keeper, out);
        settled
    }

    /// The first chunk from one to another with messages that somebody keeps.
    fn kept_from(&mut self, from: ChunkNo, to: ChunkNo) -> Option<Slot> {
        match from.cmp(&to) {
            Ordering::Less => {
                self.index.chunk_from(State::Kept, from).filter(|slot| self.index.chunk(*slot).no <= to)
            }
            // Most settle one message, or a few of one chunk.
            Ordering::Equal => self.index.find(to),
            Ordering::Greater => None,
        }
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
        self.index.shift_all(State::Ready, State::Purged);
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
