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
            Verdict::Ack => {
                self.counts.acked += u64::from(bits.count_ones());
                self.settle_in(slot, bits, State::Kept, Cause::Acked, out);
            }
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
        self.untold_from = self.untold_from.min(chunk.no);
        let (seq, persistent) = (chunk.no.seq(spot.place), chunk.persistent & spot.bit() != 0);
        self.index.shift(spot.slot, spot.bit(), from, State::Leaving);
        out.push(Output::Leaving { seq, reason, persistent });
    }

    /// Tells of messages that have to leave, as many as the host can take. Each is told once.
    pub fn tell_leaving(&mut self, most: usize, out: &mut Vec<Output>) {
        let mut told = 0;
        while told < most
            && let Some(slot) = self.index.chunk_from(State::Leaving, self.untold_from)
        {
            let chunk = self.index.chunk_mut(slot);
            let untold = chunk.mask(State::Leaving) & !chunk.told;
            let all = untold.count_ones() as usize <= most - told;
            self.untold_from = if all { chunk.no.next() } else { chunk.no };
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

    /// Messages that had to leave could not, and are told once more: about so many of them, from this one on, but not those
    /// that somebody is busy with. Gives where to go on; `None` at the end.
    pub fn tell_again(&mut self, from: Seq, most: usize, is_busy: impl Fn(Seq) -> bool) -> Option<Seq> {
        let (mut again, mut no) = (0, ChunkNo::of(from));
        while again < most {
            let slot = self.index.chunk_from(State::Leaving, no)?;
            let chunk = self.index.chunk_mut(slot);
            no = chunk.no.next();
            let told = chunk.mask(State::Leaving) & chunk.told;
            let bits = Places(told).filter(|place| !is_busy(chunk.no.seq(*place)));
            let bits = bits.fold(0_u64, |bits, place| bits | 1 << place);
            chunk.told &= !bits;
            again += bits.count_ones() as usize;
            if bits != 0 {
                self.untold_from = self.untold_from.min(chunk.no);
            }
        }
        Some(no.seq(0))
    }

    /// A message's bytes cannot be had any more: it is settled, whoever has to do with it. `false`: it was settled before, or is
    /// paged out.
    pub fn lose(&mut self, seq: Seq, out: &mut Vec<Output>) -> bool {
        let Some(Spot { slot, place }) = self.index.locate_live(seq) else { return false };
        let (bit, chunk) = (1 << place, self.index.chunk(slot));
        let state = State::ALL.into_iter().find(|state| chunk.mask(*state) & bit != 0);
        let state = state.expect("a message that is not settled is in a state");
        let keeper = (state == State::Kept).then(|| Keeper(chunk.kept(place).keeper));
        self.settle_in(slot, bit, state, Cause::Lost, out);
        if let Some(keeper) = keeper {
            self.keepers.unkeep(keeper, 1);
            self.release(keeper, out);
        }
        true
    }

    /// Whether everything that was purged has been settled.
    pub fn is_purged(&self) -> bool {
        self.index.amount(State::Purged).messages == 0
    }

    /// Removes all messages that wait for a consumer; says how many. They are settled by [`Queue::run`].
    pub fn purge(&mut self) -> u64 {
        let messages = self.index.amount(State::Ready).messages;
        self.index.shift_all(State::Ready, State::Purged);
        messages
    }

    /// Removes all messages, whoever keeps them, of a queue that is gone. They are settled by [`Queue::run`].
    pub fn give_up(&mut self) {
        for state in [State::Ready, State::Kept, State::Leaving] {
            self.index.shift_all(state, State::Purged);
        }
    }

    /// Whether every message is settled.
    pub fn is_empty(&self) -> bool {
        State::ALL.iter().all(|state| self.index.amount(*state).messages == 0)
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
