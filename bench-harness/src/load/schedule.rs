//! When records are due. The schedule goes on whatever the server does: what waits because the server does not answer is
//! late from the moment at which it was due, so that a pause is seen at its full length by everything that falls into it
//! (no coordinated omission).

/// Evenly spaced moments.
#[derive(Clone, Debug)]
pub struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    /// How many have been taken.
    taken: u64,
}

impl Schedule {
    /// `per_second` moments from `start_ns` on, shared among `of` who take turns; this is the schedule of the one with
    /// this `number`.
    pub fn new(start_ns: u64, per_second: f64, number: usize, of: usize) -> Schedule {
        let every = 1e9 / per_second;
        Schedule {
            start_ns: start_ns + (every * number as f64) as u64,
            interval_ns: every * of as f64,
            taken: 0,
        }
    }

    /// The next moment.
    pub fn next_ns(&self) -> u64 {
        self.due_ns(self.taken)
    }

    fn due_ns(&self, number: u64) -> u64 {
        self.start_ns + (self.interval_ns * number as f64) as u64
    }

    /// Takes the next moment if it has come.
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due = self.next_ns();
        (due <= now_ns).then(|| {
            self.taken += 1;
            due
        })
    }

    /// Moments that have come by then and were not taken.
    pub fn waiting(&self, now_ns: u64) -> u64 {
        let come = (now_ns.saturating_sub(self.start_ns)) as f64 / self.interval_ns;
        (come as u64 + 1).saturating_sub(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_leaves_every_moment_that_fell_into_it() {
        let mut schedule = Schedule::new(1_000, 1e9 / 100.0, 0, 1);
        assert_eq!(schedule.take(1_000), Some(1_000));
        assert_eq!(schedule.take(1_050), None);
        // The server was silent for ten intervals: all of them are due, each at its own moment.
        let due: Vec<u64> = std::iter::from_fn(|| schedule.take(2_000)).collect();
        assert_eq!(due, (11..=20).map(|n| n * 100).collect::<Vec<_>>());
        assert_eq!(schedule.waiting(2_000), 0);
        assert_eq!(schedule.waiting(2_500), 5);
    }

    #[test]
    fn those_who_share_a_rate_take_turns() {
        let mut all: Vec<u64> = (0..4)
            .flat_map(|number| {
                let mut schedule = Schedule::new(0, 1e9 / 10.0, number, 4);
                std::iter::from_fn(move || schedule.take(1_000)).collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..=100).map(|n| n * 10).collect::<Vec<_>>());
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        let mut schedule = Schedule::new(0, 30_000.0, 0, 1);
        let count = std::iter::from_fn(|| schedule.take(10_000_000_000)).count();
        assert!((299_999..=300_001).contains(&count), "{count}");
    }
}
