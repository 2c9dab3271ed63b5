//! Simulated time, and what is to happen when.

use std::any::Any;
use std::collections::BTreeMap;

use super::port::PortRef;
use crate::io::random::Random;
use crate::io::{CloseReason, Token};
use crate::time::{Nanos, WallMs};

/// Where the wall clock stands when a world begins.
const WALL_START: WallMs = WallMs(1_700_000_000_000);

/// Both clocks.
pub(super) struct Clock {
    now: Nanos,
    /// What the wall clock shows at monotonic zero.
    wall_base: WallMs,
    random: Random,
}

impl Clock {
    pub(super) fn new(seed: u64) -> Clock {
        Clock { now: Nanos::from_millis(1), wall_base: WALL_START, random: Random::stream(seed, "clock") }
    }

    /// The time, untouched.
    pub(super) fn now(&self) -> Nanos {
        self.now
    }

    /// The time, after a little more of it has passed: looking at a clock takes time, too.
    pub(super) fn look(&mut self) -> Nanos {
        self.now = self.now + Nanos(self.random.below(200));
        self.now
    }

    /// A poll takes a system call's time.
    pub(super) fn spend_poll(&mut self) {
        self.now = self.now + Nanos(self.random.between(200, 2_000));
    }

    /// Lets time pass up to a point, unless that is past already.
    pub(super) fn advance_to(&mut self, at: Nanos) {
        self.now = self.now.max(at);
    }

    pub(super) fn wall_ms(&self) -> WallMs {
        WallMs(self.wall_base.0 + self.passed_ms())
    }

    pub(super) fn set_wall_ms(&mut self, wall: WallMs) {
        self.wall_base = WallMs(wall.0 - self.passed_ms());
    }

    fn passed_ms(&self) -> i64 {
        (self.now.0 / 1_000_000) as i64
    }
}

/// Something that will happen.
pub(super) enum Due {
    /// An operation on the disk takes its next step.
    Operation(u64),
    /// A listener hears of a connection.
    Accept(u64),
    /// Bytes, or a connection's end, reach us.
    Deliver(u64),
    /// The kernel takes bytes of a send.
    Take(u64),
    /// Bytes reach the peer.
    Arrive(u64),
    /// A connection is over.
    Close(u64, CloseReason),
    /// An offloaded job is done.
    Offloaded(PortRef, Token, Box<dyn Any + Send>),
}

/// What will happen, by time; at one time, in the order in which it was decided.
#[derive(Default)]
pub(super) struct Agenda {
    entries: BTreeMap<(Nanos, u64), Due>,
    next: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Nanos, due: Due) {
        self.entries.insert((at, self.next), due);
        self.next += 1;
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<Nanos> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next thing that has happened by `now`.
    pub(super) fn take(&mut self, now: Nanos) -> Option<Due> {
        if self.next_at()? > now {
            return None;
        }
        self.entries.pop_first().map(|(_, due)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::{Agenda, Due};
    use crate::time::Nanos;

    #[test]
    fn what_is_due_at_one_time_happens_in_the_order_of_its_booking() {
        let mut agenda = Agenda::default();
        for (at, id) in [(5, 1), (3, 2), (5, 3), (9, 4)] {
            agenda.add(Nanos(at), Due::Operation(id));
        }
        let mut order = Vec::new();
        while let Some(Due::Operation(id)) = agenda.take(Nanos(5)) {
            order.push(id);
        }
        assert_eq!((order, agenda.next_at()), (vec![2, 1, 3], Some(Nanos(9))));
    }
}
