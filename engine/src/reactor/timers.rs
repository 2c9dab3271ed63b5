//! The host's timers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::shard::request::AppToken;
use crate::time::Nanos;

/// Timers by when they run out; those of one moment in the order they were set.
#[derive(Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Nanos, u64, AppToken)>>,
    set: u64,
}

impl Timers {
    /// Sets a timer.
    pub fn set(&mut self, token: AppToken, at: Nanos) {
        self.set += 1;
        self.heap.push(Reverse((at, self.set, token)));
    }

    /// When the next one runs out.
    pub fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// A timer that has run out, taken out.
    pub fn due(&mut self, now: Nanos) -> Option<AppToken> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((.., token))| token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_run_out_in_order_and_not_before_their_time() {
        let mut timers = Timers::default();
        timers.set(AppToken(1), Nanos(20));
        timers.set(AppToken(2), Nanos(10));
        timers.set(AppToken(3), Nanos(10));
        assert_eq!(timers.due(Nanos(9)), None);
        let due: Vec<_> = std::iter::from_fn(|| timers.due(Nanos(20))).collect();
        assert_eq!(due, [AppToken(2), AppToken(3), AppToken(1)]);
    }
}
