//! What the queues of a shard hold all together, counted some queues at a time: a shard with very many is through after some looks.

use super::Queues;
use crate::limits::QUEUES_COUNTED_AT_ONCE;

/// What was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Queues.
    pub queues: u64,
    /// Messages that wait for a consumer.
    pub ready: u64,
    /// Bytes of them.
    pub ready_bytes: u64,
    /// Messages delivered and not settled.
    pub unacked: u64,
    /// Bytes of them.
    pub unacked_bytes: u64,
    /// Consumers.
    pub consumers: u64,
}

/// How far the counting is.
#[derive(Debug, Default)]
pub(super) struct Census {
    next: usize,
    counting: Totals,
    counted: Totals,
}

impl Queues {
    /// Counts some more queues, and gives what all of them held when they were counted last.
    pub fn count(&mut self) -> Totals {
        let Census { next, counting, counted } = &mut self.census;
        let rest = self.entries.get(*next..).unwrap_or_default();
        for entry in rest.iter().take(QUEUES_COUNTED_AT_ONCE).flatten() {
            let stats = entry.machine.stats();
            counting.queues += 1;
            counting.ready += stats.ready;
            counting.ready_bytes += stats.ready_bytes;
            counting.unacked += stats.unacked;
            counting.unacked_bytes += stats.unacked_bytes;
            counting.consumers += u64::from(stats.consumers);
        }
        *next += QUEUES_COUNTED_AT_ONCE;
        if *next >= self.entries.len() {
            *counted = std::mem::take(counting);
            *next = 0;
        }
        *counted
    }
}
