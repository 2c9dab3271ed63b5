//! What is stored of a queue, and getting it back.

use super::chunk::{ChunkNo, Entry, NEVER, Places, State};
use super::index::{Arrival, rank_of};
use super::state::Queue;
use super::{LeaveReason, Locator, Stored};
use crate::types::Seq;

impl Queue {
    /// The messages that are not settled, in the order of their numbers, from this one on; without those that are paged out.
    pub fn stored(&self, from: Seq) -> impl Iterator<Item = Stored> {
        self.index
            .chunks_from(ChunkNo::of(from))
            .flat_map(|chunk| {
                Places(chunk.live()).map(|place| {
                    let entry = chunk.entry(place);
                    let has = |mask: u64| mask & 1 << place != 0;
                    Stored {
                        seq: chunk.no.seq(place),
                        locator: entry.locator,
                        size: entry.size,
                        persistent: has(chunk.persistent),
                        expires_at: Some(chunk.expiry(place)).filter(|at| *at != NEVER),
                        delivered: has(chunk.delivered),
                        failures: entry.failures,
                        leaving: entry.reason.filter(|_| has(chunk.mask(State::Leaving))),
                    }
                })
            })
            .skip_while(move |stored| stored.seq < from)
    }

    /// The numbers that come next, one for each priority that has been used: all lower ones of that priority are used up.
    pub fn next_seqs(&self) -> &[Seq] {
        self.index.nexts()
    }

    /// A message's bytes are somewhere else from now on. `false`: it is settled, or paged out.
    pub fn relocate(&mut self, seq: Seq, locator: Locator) -> bool {
        let spot = self.index.locate_live(seq);
        if let Some(spot) = spot {
            self.index.chunk_mut(spot.slot).entry_mut(spot.place).locator = locator;
        }
        spot.is_some()
    }

    /// Brings a message back that was stored. `false`: it is known, and perhaps settled. Those of one priority are to be brought
    /// back in the order of their numbers.
    pub fn recover(&mut self, stored: Stored) -> bool {
        if stored.seq < self.index.next(rank_of(stored.seq)) {
            return false;
        }
        self.index.skip_to(stored.seq);
        let state = if stored.leaving.is_some() { State::Leaving } else { State::Ready };
        let arrival = Arrival {
            entry: Entry {
                locator: stored.locator,
                size: stored.size,
                failures: stored.failures,
                reason: stored.leaving,
            },
            persistent: stored.persistent,
            delivered: stored.delivered,
            expires_at: stored.expires_at.unwrap_or(NEVER),
        };
        self.index.push(rank_of(stored.seq), state, arrival);
        true
    }

    /// Numbers below this one, of its priority, were used.
    pub fn recover_next(&mut self, seq: Seq) {
        self.index.skip_to(seq);
    }

    /// Messages with numbers from `first` to `last` were settled.
    pub fn recover_settled(&mut self, first: Seq, last: Seq) {
        self.index.settle_all(first, last);
    }

    /// A message had come back failed so often.
    pub fn recover_failures(&mut self, seq: Seq, failures: u16) {
        if let Some(spot) = self.index.locate_live(seq) {
            let chunk = self.index.chunk_mut(spot.slot);
            chunk.delivered |= spot.bit();
            let entry = chunk.entry_mut(spot.place);
            entry.failures = entry.failures.max(failures);
        }
    }

    /// A message had to leave.
    pub fn recover_leaving(&mut self, seq: Seq, reason: LeaveReason) {
        if let Some(spot) = self.index.locate(seq, State::Ready) {
            self.index.chunk_mut(spot.slot).entry_mut(spot.place).reason = Some(reason);
            self.index.shift(spot.slot, spot.bit(), State::Ready, State::Leaving);
        }
    }
}
