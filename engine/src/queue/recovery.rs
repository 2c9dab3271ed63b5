//! What is stored of a queue, and getting it back.

use super::chunk::{ChunkNo, Entry, NEVER, Places, State};
use super::index::Arrival;
use super::state::Queue;
use super::{LeaveReason, Locator, PageId, Stored};
use crate::types::Seq;

/// What became of a message that was brought back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recovered {
    /// It is there.
    New,
    /// It was there already, and is elsewhere now: where it was.
    Known(Locator),
    /// It is in a page that has to come back first.
    PagedOut(PageId),
}

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

    /// The messages that have failed or are leaving, with how often they have failed: what is to be kept of those that are
    /// persistent beside their numbers. None of them is paged out.
    pub fn troubled(&self) -> impl Iterator<Item = (Seq, u16, Option<LeaveReason>)> {
        self.index.chunks_from(ChunkNo(0)).flat_map(|chunk| {
            let leaving = chunk.mask(State::Leaving);
            // What has failed was delivered.
            let some = chunk.live() & chunk.persistent & (chunk.delivered | leaving);
            Places(some).filter_map(move |place| {
                let entry = chunk.entry(place);
                let reason = entry.reason.filter(|_| leaving & 1 << place != 0);
                (entry.failures > 0 || reason.is_some())
                    .then(|| (chunk.no.seq(place), entry.failures, reason))
            })
        })
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

    /// Brings a message back that was stored and is not settled; in whatever order, though those in the order of their numbers
    /// take the least.
    pub fn recover(&mut self, stored: Stored) -> Recovered {
        if self.index.find(ChunkNo::of(stored.seq)).is_none()
            && let Some(page) = self.page_of(stored.seq)
        {
            return Recovered::PagedOut(page);
        }
        if let Some(spot) = self.index.locate_live(stored.seq) {
            let entry = self.index.chunk_mut(spot.slot).entry_mut(spot.place);
            return Recovered::Known(std::mem::replace(&mut entry.locator, stored.locator));
        }
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
        self.index.place(stored.seq, state, arrival);
        self.index.skip_to(stored.seq.next());
        Recovered::New
    }

    /// Of 64 messages beginning with this one, a multiple of 64, which are not settled, those that are paged out included.
    pub fn live(&self, first: Seq) -> u64 {
        self.index.live_mask(ChunkNo::of(first))
    }

    /// Numbers below this one, of its priority, were used.
    pub fn recover_next(&mut self, seq: Seq) {
        self.index.skip_to(seq);
    }

    /// Messages with numbers from `first` to `last` were settled, or will never come: where those lie that are here, and how
    /// large they are. For this and what follows, none of the messages is paged out.
    pub fn recover_settled(&mut self, first: Seq, last: Seq, gone: &mut Vec<(Locator, u32)>) {
        let mut settled = Vec::new();
        self.index.settle_all(first, last, &mut settled);
        gone.extend(settled.iter().map(|entry| (entry.locator, entry.size)));
    }

    /// Messages with numbers from `first` to `last` may have been delivered.
    pub fn recover_delivered(&mut self, first: Seq, last: Seq) {
        self.index.set_delivered(first, last);
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
