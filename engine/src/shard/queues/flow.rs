//! Which queues have so much waiting that their publishers had better wait, too.
//!
//! A publisher is held back by what it has on its way at most, not by what has arrived. If it is faster than its messages are
//! given out, what waits grows out of memory and out of the journal, and writing it to files and reading it back costs those who
//! are behind even more. So hosts are told when more waits in a queue than its consumers are about to take, and again when half
//! of that has gone.
//!
//! That is of use only as long as the consumers keep this shard busy, or are kept from it by those who publish. Slow ones are
//! what a queue is for: their publishers are asked to wait for a moment, find that nothing comes of it, and are let alone, for
//! longer each time. And nobody waits for ever: not for a queue that has no consumers, nor for one that is far too long.

use std::collections::BTreeSet;

use super::{Desk, Index, Queues};
use crate::limits::{
    FLOW_BYTES_MAX, FLOW_BYTES_MIN, FLOW_HELD, FLOW_LOOK, FLOW_MESSAGE_BYTES, FLOW_SPARED, FLOW_SPARED_MAX,
    FLOW_TAKEN_BYTES_MIN, FLOW_TAKEN_OF_SHARD_BYTES_MIN,
};
use crate::queue::QueueStats;
use crate::shard::Output;
use crate::shard::message::Flow;
use crate::time::Nanos;
use crate::types::ShardId;

/// How much consumers have been given: of one queue, and of all queues of the shard.
#[derive(Clone, Copy, Default)]
struct Taken {
    own: u64,
    all: u64,
}

/// How it is with the publishers of a queue.
#[derive(Clone, Copy, Default)]
enum State {
    /// They go on.
    #[default]
    Free,
    /// They wait.
    Held {
        since: Nanos,
        /// When it is seen whether anything comes of it.
        look_at: Nanos,
        /// What consumers had been given at the last look.
        before: Taken,
    },
    /// They have waited for long enough, and are let alone.
    Spared { until: Nanos },
}

/// What is known of a queue for that.
#[derive(Clone, Copy, Default)]
pub(super) struct Regulator {
    state: State,
    /// What its consumers have been given.
    taken: u64,
    /// How long they were let alone the last time, if nothing had come of it.
    spared_for: Nanos,
}

/// What is told of all queues.
#[derive(Default)]
pub(super) struct Flows {
    /// Queues whose publishers wait, by when they are looked at.
    held: BTreeSet<(Nanos, Index)>,
    /// What consumers of all queues have been given.
    taken: u64,
    /// What hosts are to be told.
    news: Vec<Flow>,
}

impl Flows {
    /// When a queue is to be looked at although nothing happens to it.
    pub fn due(&self) -> Option<Nanos> {
        self.held.first().map(|(at, _)| *at)
    }

    /// How many queues there are whose publishers wait.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

/// What messages weigh.
pub(super) fn weight(messages: u64, bytes: u64) -> u64 {
    bytes + messages * FLOW_MESSAGE_BYTES
}

impl Regulator {
    fn is_held(&self) -> bool {
        matches!(self.state, State::Held { .. })
    }

    fn look_at(&self) -> Option<Nanos> {
        if let State::Held { look_at, .. } = self.state { Some(look_at) } else { None }
    }

    /// Looks at how things are: `stats` at `now`, with what the shard's consumers have been given; more than `most` is too much.
    fn look(&mut self, now: Nanos, stats: &QueueStats, all: u64, most: u64) {
        let waiting = weight(stats.ready, stats.ready_bytes);
        if stats.consumers == 0 || waiting <= most / 2 {
            *self = Regulator { taken: self.taken, ..Regulator::default() };
            return;
        }
        let taken = Taken { own: self.taken, all };
        match self.state {
            State::Spared { until } if now < until => {}
            State::Free | State::Spared { .. } if waiting > most => {
                self.state = State::Held { since: now, look_at: now + FLOW_LOOK, before: taken };
            }
            State::Held { since, look_at, before } if now >= look_at => {
                let comes_of_it = taken.own - before.own >= FLOW_TAKEN_BYTES_MIN
                    && taken.all - before.all >= FLOW_TAKEN_OF_SHARD_BYTES_MIN;
                if comes_of_it && now.since(since) < FLOW_HELD {
                    self.state = State::Held { since, look_at: now + FLOW_LOOK, before: taken };
                    return;
                }
                let again = if comes_of_it { Nanos::ZERO } else { self.spared_for };
                self.spared_for = Nanos((2 * again.0).clamp(FLOW_SPARED.0, FLOW_SPARED_MAX.0));
                self.state = State::Spared { until: now + self.spared_for };
            }
            State::Free | State::Held { .. } | State::Spared { .. } => {}
        }
    }
}

impl Queues {
    /// Consumers of a queue have been given something.
    pub(super) fn note_taken(&mut self, index: Index, weight: u64) {
        self.flows.taken += weight;
        self.entry(index).regulator.taken += weight;
    }

    /// Has those queues run whose publishers have waited for a while.
    pub(super) fn look_at_held(&mut self, now: Nanos) {
        let due = self.flows.held.range(..=(now, Index(u32::MAX))).map(|(_, index)| *index);
        for index in due.collect::<Vec<_>>() {
            self.touch(index);
        }
    }

    /// Looks whether a queue's publishers had better wait, or need not any more.
    pub(super) fn regulate(&mut self, now: Nanos, index: Index) {
        let most = if self.passing.is_filling() { FLOW_BYTES_MIN } else { FLOW_BYTES_MAX };
        let all = self.flows.taken;
        let entry = self.entry(index);
        let before = entry.regulator;
        entry.regulator.look(now, &entry.machine.stats(), all, most);
        self.note_flow(index, &before);
    }

    /// Lets a queue's publishers go, whatever waits there.
    pub(super) fn let_flow(&mut self, index: Index) {
        let before = std::mem::take(&mut self.entry(index).regulator);
        self.note_flow(index, &before);
    }

    /// How many queues there are whose publishers wait.
    pub fn held_flows(&self) -> usize {
        self.flows.held()
    }

    /// Lets all publishers go.
    pub(super) fn let_all_flow(&mut self, desk: &mut Desk<'_>) {
        for (_, index) in self.flows.held.clone() {
            self.let_flow(index);
        }
        self.tell_flow(desk);
    }

    /// Tells every host what is new: anybody may publish to any queue.
    pub(super) fn tell_flow(&mut self, desk: &mut Desk<'_>) {
        if self.flows.news.is_empty() {
            return;
        }
        let news = std::mem::take(&mut self.flows.news);
        for shard in 0..desk.metadata.shards {
            desk.outputs.push_back(Output::Flow(ShardId(shard), news.clone()));
        }
    }

    fn note_flow(&mut self, index: Index, before: &Regulator) {
        let entry = self.entry(index);
        let (queue, now) = (entry.id, entry.regulator);
        if let Some(at) = before.look_at() {
            self.flows.held.remove(&(at, index));
        }
        if let Some(at) = now.look_at() {
            self.flows.held.insert((at, index));
        }
        if before.is_held() != now.is_held() {
            self.flows.news.push(Flow { queue, is_held: now.is_held() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn stats(ready: u64, consumers: u32) -> QueueStats {
        QueueStats { ready, ready_bytes: 1_000 * ready, consumers, ..QueueStats::default() }
    }

    /// So many messages are too many, and so many few enough.
    const MANY: u64 = 1_000;
    const FEW: u64 = 400;
    const MOST: u64 = MANY * (1_000 + FLOW_MESSAGE_BYTES) - 1;

    /// A queue whose publishers wait since the beginning.
    fn held() -> Regulator {
        let mut regulator = Regulator::default();
        regulator.look(Nanos(0), &stats(MANY, 1), 0, MOST);
        assert!(regulator.is_held());
        regulator
    }

    #[test]
    fn publishers_wait_until_half_of_what_was_too_much_has_gone() {
        let mut regulator = Regulator::default();
        regulator.look(Nanos(0), &stats(MANY - 1, 1), 0, MOST);
        assert!(!regulator.is_held());
        regulator.look(Nanos(1), &stats(MANY, 1), 0, MOST);
        assert!(regulator.is_held());
        regulator.look(Nanos(2), &stats(FEW + 200, 1), 0, MOST);
        assert!(regulator.is_held());
        regulator.look(Nanos(3), &stats(FEW, 1), 0, MOST);
        assert!(!regulator.is_held());
        regulator.look(Nanos(4), &stats(MANY, 1), 0, MOST);
        assert!(regulator.is_held(), "at once, if it was worth it");
    }

    #[test]
    fn nobody_waits_for_consumers_that_are_not_there() {
        let mut regulator = Regulator::default();
        regulator.look(Nanos(0), &stats(100 * MANY, 0), 0, MOST);
        assert!(!regulator.is_held());
        let mut regulator = held();
        regulator.look(Nanos(1), &stats(100 * MANY, 0), 0, MOST);
        assert!(!regulator.is_held());
    }

    /// Lets time pass, in which consumers take so much per look. Gives how long publishers have waited in all.
    fn passed(regulator: &mut Regulator, looks: u64, own: u64, all: u64) -> Nanos {
        let mut waited = 0;
        let mut total = 0;
        for look in 1..=looks {
            waited += u64::from(regulator.is_held());
            regulator.taken += own;
            total += all;
            regulator.look(Nanos(look * FLOW_LOOK.0), &stats(100 * MANY, 1), total, MOST);
        }
        Nanos(waited * FLOW_LOOK.0)
    }

    #[test]
    fn consumers_that_are_slow_are_not_waited_for() {
        let (own, all) = (FLOW_TAKEN_BYTES_MIN, FLOW_TAKEN_OF_SHARD_BYTES_MIN);
        for (own, all) in [(0, all), (own, all - 1)] {
            let waited = passed(&mut held(), 10 * FLOW_SPARED_MAX.0 / FLOW_LOOK.0, own, all);
            assert!(waited.0 < FLOW_LOOK.0 * 18, "{} ms", waited.0 / MS);
        }
    }

    #[test]
    fn consumers_that_take_much_are_waited_for_but_not_without_end() {
        let (own, all) = (FLOW_TAKEN_BYTES_MIN, FLOW_TAKEN_OF_SHARD_BYTES_MIN);
        let looks = 100 * FLOW_HELD.0 / FLOW_LOOK.0;
        let waited = passed(&mut held(), looks, own, all);
        let share = waited.0 as f64 / (looks * FLOW_LOOK.0) as f64;
        assert!((0.3..0.7).contains(&share), "{share}");
    }
}
