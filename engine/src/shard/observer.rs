//! What a shard notes of its own work, for [`mod@crate::metrics`]. Nothing here decides anything.

use super::{Placing, Pools, Shard};
use crate::io::Io;
use crate::journal::Ended;
use crate::metrics::{Meter, ShardMetrics, Step};
use crate::time::Nanos;

/// How long a peak is remembered for sure.
const PEAK_SPAN: Nanos = Nanos::from_millis(60_000);

/// The notes of one shard. Its thread writes; whoever has a reader of [`Observer::metrics`] reads.
#[derive(Debug, Default)]
pub struct Observer {
    /// Where the notes are.
    pub metrics: Meter<ShardMetrics>,
    turn_began: Nanos,
    /// When the last step ended.
    lap: Nanos,
    next_roll: Nanos,
    /// When the first batch of the open group came to this shard.
    open_since: Option<Nanos>,
    /// The same of the group in flight.
    flying_since: Option<Nanos>,
}

impl Observer {
    /// A turn's poll is over. If it may have waited, the turn begins here; if not, where the last one ended.
    pub fn turn_began(&mut self, now: Nanos, waited: bool) {
        if waited || self.lap == Nanos::ZERO {
            self.turn_began = now;
            self.lap = now;
        } else {
            self.turn_began = self.lap;
            self.step_ended(Step::Poll, now);
        }
    }

    /// When the last step ended: the turn's clock, without a look at the real one.
    pub fn lap(&self) -> Nanos {
        self.lap
    }

    /// A step of the turn is over.
    pub fn step_ended(&mut self, step: Step, now: Nanos) {
        self.metrics.longest.at(step as usize).record(now.since(self.lap).0);
        self.lap = now;
    }

    /// The turn is over, and with it its last step. So many messages wait for room in mailboxes.
    pub fn turn_ended(&mut self, now: Nanos, parked: usize) {
        self.step_ended(Step::Answers, now);
        self.metrics.parked.set(parked as u64);
        let took = now.since(self.turn_began).0;
        self.metrics.turns.add(1);
        self.metrics.busy.add(took);
        self.metrics.turn.record(took);
    }

    /// So many messages were found in the mailboxes; one from another shard lay there for so long.
    pub fn mail_taken(&mut self, messages: usize, lay: Option<Nanos>) {
        self.metrics.mailbox_messages.record(messages as u64);
        if let Some(lay) = lay {
            self.metrics.mailbox_wait.record(lay.0);
        }
    }

    /// A batch that came `since` joins the open group.
    pub fn placed(&mut self, since: Nanos) {
        self.open_since.get_or_insert(since);
    }

    /// The open group has been submitted.
    pub fn submitted(&mut self, bytes: usize, batches: usize) {
        self.flying_since = self.open_since.take();
        self.metrics.group_bytes.record(bytes as u64);
        self.metrics.group_batches.record(batches as u64);
    }

    /// The group in flight is durable.
    pub(super) fn durable(&mut self, submitted: Nanos, now: Nanos, batches: &[Placing]) {
        self.metrics.flush.record(now.since(submitted).0);
        if let Some(since) = self.flying_since.take() {
            self.metrics.group_wait.record(now.since(since).0);
        }
        let mut records = 0;
        let mut bytes = 0;
        for batch in batches {
            records += batch.next.0 - batch.base.0;
            bytes += u64::from(batch.len);
        }
        self.metrics.append_batches.add(batches.len() as u64);
        self.metrics.append_records.add(records);
        self.metrics.append_bytes.add(bytes);
    }

    /// A round of trimming is over.
    pub fn trimmed(&self, ended: Ended) {
        self.metrics.trim_rounds.at(usize::from(!matches!(ended, Ended::Done | Ended::Relieved))).add(1);
    }
}

impl<I: Io> Shard<I> {
    /// Its notes.
    pub fn observer(&mut self) -> &mut Observer {
        &mut self.observer
    }

    /// Notes how things are; about once a second.
    pub(super) fn look_around(&mut self, now: Nanos, disk_free_bytes: u64) {
        let metrics = &self.observer.metrics;
        let Pools { tail, staging, read, slow, passing, large } = &self.pools;
        for (place, pool) in [tail, staging, read, slow, passing, large].into_iter().enumerate() {
            let usage = pool.usage();
            metrics.memory.at(place).set(usage.in_use as u64);
            metrics.memory_limit.at(place).set(usage.limit as u64);
        }
        let files = self.journal.files();
        metrics.journal_files.at(0).set(files.used().len() as u64);
        metrics.journal_files.at(1).set(files.free() as u64);
        metrics.trim_lag.set(files.used().len() as u64 * files.file_bytes());
        metrics.backlog.set(self.backlog.len() as u64);
        metrics.watches.set(self.watches.len() as u64);
        metrics.tail.set(self.tail_bytes as u64);
        metrics.tail_limit.set(self.tail_budget.bytes(self.logs.len()) as u64);
        let (index_bytes, pages) = self.queues.index_usage();
        metrics.queue_index.set(index_bytes as u64);
        metrics.queue_pages.set(pages as u64);
        metrics.partitions.set(self.logs.len() as u64);
        metrics.producers.set(self.producers as u64);
        let totals = self.queues.count();
        metrics.queues.set(totals.queues);
        metrics.queue_messages.at(0).set(totals.ready);
        metrics.queue_messages.at(1).set(totals.unacked);
        metrics.queue_bytes.at(0).set(totals.ready_bytes);
        metrics.queue_bytes.at(1).set(totals.unacked_bytes);
        metrics.queue_consumers.set(totals.consumers);
        metrics.queues_held.set(self.queues.held_flows() as u64);
        metrics.disk_free.set(disk_free_bytes);
        metrics.disk_full.set(u64::from(self.disk_full));
        metrics.poisoned.set(u64::from(self.is_poisoned()));
        if now >= self.observer.next_roll {
            self.observer.next_roll = now + PEAK_SPAN;
            for step in 0..crate::metrics::STEPS.len() {
                metrics.longest.at(step).roll();
            }
        }
    }
}
