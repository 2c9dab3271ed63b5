//! What a load generator counts.

use hdrhistogram::Histogram;

use super::window::{Window, now_ns};
use crate::measure::histogram;

/// Counts of one thread, or of many added up. Only what falls into the window is in them.
pub struct Count {
    /// Records or messages that were sent and acknowledged.
    pub sent: u64,
    /// Bytes of their payloads.
    pub sent_bytes: u64,
    /// Requests that carried them.
    pub requests: u64,
    /// Records or messages that were received.
    pub received: u64,
    /// Bytes of their payloads, or of the batches that they came in.
    pub received_bytes: u64,
    /// From the moment at which a record was due, or its request sent, until it was acknowledged.
    pub produce: Histogram<u64>,
    /// From the moment at which a record was due until a consumer had it.
    pub end_to_end: Histogram<u64>,
    /// Records that were due and could not be sent before the turn was given up.
    pub unsent: u64,
    /// When the last thing that counts happened.
    pub last_ns: u64,
}

impl Default for Count {
    fn default() -> Count {
        Count {
            sent: 0,
            sent_bytes: 0,
            requests: 0,
            received: 0,
            received_bytes: 0,
            produce: histogram(),
            end_to_end: histogram(),
            unsent: 0,
            last_ns: 0,
        }
    }
}

impl Count {
    /// Counts records that were acknowledged just now; `since` is when the request that carried them was sent.
    pub fn acknowledged(&mut self, window: &Window, since: u64, records: u64, bytes: u64) {
        let now = now_ns();
        if window.counts(now) {
            self.sent += records;
            self.sent_bytes += bytes;
            self.requests += 1;
            self.last_ns = now;
        }
        if window.counts(since) {
            self.produce.saturating_record(now.saturating_sub(since));
        }
    }

    /// Counts records of `bytes` each that were acknowledged just now, and were due at these moments.
    pub fn acknowledged_due(&mut self, window: &Window, due: impl IntoIterator<Item = u64>, bytes: u64) {
        let now = now_ns();
        let within = window.counts(now);
        if within {
            self.requests += 1;
            self.last_ns = now;
        }
        for due in due {
            if within {
                self.sent += 1;
                self.sent_bytes += bytes;
            }
            if window.counts(due) {
                self.produce.saturating_record(now.saturating_sub(due));
            }
        }
    }

    /// Counts records that were sent just now and are not acknowledged by anybody.
    pub fn sent(&mut self, window: &Window, records: u64, bytes: u64) {
        let now = now_ns();
        if window.counts(now) {
            self.sent += records;
            self.sent_bytes += records * bytes;
            self.requests += 1;
            self.last_ns = now;
        }
    }

    /// Counts records that came just now.
    pub fn received(&mut self, window: &Window, now: u64, records: u64, bytes: u64) {
        if window.counts(now) {
            self.received += records;
            self.received_bytes += bytes;
            self.last_ns = now;
        }
    }

    /// Counts how long a record that came at `now` took since it was due.
    pub fn arrived(&mut self, window: &Window, now: u64, due: u64) {
        if window.counts(due) {
            self.end_to_end.saturating_record(now.saturating_sub(due));
        }
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Count) {
        self.sent += other.sent;
        self.sent_bytes += other.sent_bytes;
        self.requests += other.requests;
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.produce += &other.produce;
        self.end_to_end += &other.end_to_end;
        self.unsent += other.unsent;
        self.last_ns = self.last_ns.max(other.last_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        let now = now_ns();
        Window { start_ns: now, from_ns: now + 1_000_000_000, until_ns: u64::MAX }
    }

    #[test]
    fn what_was_due_before_the_window_counts_for_nothing() {
        let (mut count, window) = (Count::default(), window());
        count.acknowledged_due(&window, [window.start_ns], 10);
        count.arrived(&window, window.from_ns + 5, window.from_ns - 1);
        assert_eq!((count.sent, count.produce.len(), count.end_to_end.len()), (0, 0, 0));
    }

    #[test]
    fn a_record_is_late_by_the_time_since_it_was_due_not_since_it_was_sent() {
        let (mut count, window) = (Count::default(), window());
        count.arrived(&window, window.from_ns + 50_000_000, window.from_ns);
        assert!(count.end_to_end.max() >= 50_000_000);
    }
}
