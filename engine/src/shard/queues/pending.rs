//! What has become of messages and is not in the journal yet: settlements and what is like them.
//!
//! Nobody waits for it, and it waits for nobody: it joins a group that goes out anyway, or makes one go out when it is a few
//! milliseconds old or large. What a crash takes back of it is so much.

use std::collections::BTreeMap;

use super::hash::Table;
use crate::format::journal::RecordKind;
use crate::format::message::{encode_pairs, note};
use crate::journal::{Claim, Journal};
use crate::limits::{SETTLEMENT_BYTES_MAX, SETTLEMENT_DELAY};
use crate::queue::LeaveReason;
use crate::time::Nanos;
use crate::types::{Lsn, QueueId, Seq};

/// Pairs in one record.
const PAIRS_PER_RECORD: usize = 4_000;

#[derive(Default)]
struct OfQueue {
    settled: Vec<(u64, u64)>,
    failed: Vec<(u64, u64)>,
    leaving: Vec<(u64, u64)>,
    forgotten: Vec<(u64, u64)>,
    marks: BTreeMap<u8, u64>,
}

/// See the module.
#[derive(Default)]
pub struct Pending {
    queues: Vec<(QueueId, OfQueue)>,
    /// Where in that each is.
    places: Table<QueueId, usize>,
    pairs: usize,
    since: Option<Nanos>,
    /// It is to go out now.
    urgent: bool,
}

impl Pending {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// How many queues there is something of.
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    fn of(&mut self, queue: QueueId, now: Nanos) -> &mut OfQueue {
        self.since.get_or_insert(now);
        self.pairs += 1;
        let place = *self.places.entry(queue).or_insert(self.queues.len());
        if place == self.queues.len() {
            self.queues.push((queue, OfQueue::default()));
        }
        &mut self.queues[place].1
    }

    /// A message is settled.
    pub fn settled(&mut self, queue: QueueId, seq: Seq, now: Nanos) {
        let settled = &mut self.of(queue, now).settled;
        match settled.last_mut() {
            Some((_, last)) if *last + 1 == seq.0 => {
                *last = seq.0;
                self.pairs -= 1;
            }
            _ => settled.push((seq.0, seq.0)),
        }
    }

    /// A message has come back failed so often.
    pub fn failed(&mut self, queue: QueueId, seq: Seq, failures: u16, now: Nanos) {
        self.of(queue, now).failed.push((seq.0, u64::from(failures)));
    }

    /// A message has to leave.
    pub fn leaving(&mut self, queue: QueueId, seq: Seq, reason: LeaveReason, now: Nanos) {
        self.of(queue, now).leaving.push((seq.0, reason_code(reason)));
    }

    /// A message that came from another shard's queue has left that.
    pub fn forgotten(&mut self, queue: QueueId, seq: Seq, now: Nanos) {
        self.of(queue, now).forgotten.push((seq.0, seq.0));
    }

    /// Messages of a rank up to `seq` may be delivered once this is durable. Somebody waits for it.
    pub fn mark(&mut self, queue: QueueId, rank: u8, seq: Seq, now: Nanos) {
        self.of(queue, now).marks.insert(rank, seq.0);
        self.urgent = true;
    }

    /// Somebody waits for what is here.
    pub fn hurry(&mut self) {
        self.urgent = !self.is_empty();
    }

    /// Forgets what is here of a queue that is gone.
    pub fn forget(&mut self, queue: QueueId) {
        // Its place stays: somebody may wait until what was pending when it went is durable.
        if let Some(place) = self.places.get(&queue) {
            self.queues[*place].1 = OfQueue::default();
        }
    }

    /// When it has to go out.
    pub fn due(&self) -> Option<Nanos> {
        Some(if self.urgent { Nanos::ZERO } else { self.since? + SETTLEMENT_DELAY })
    }

    /// Whether it goes out now; `company` says whether a group does anyway.
    pub fn is_due(&self, now: Nanos, company: bool) -> bool {
        let large = self.pairs * 16 >= SETTLEMENT_BYTES_MAX;
        !self.is_empty() && (company || large || self.due().is_some_and(|due| due <= now))
    }

    /// Puts it into the open group, as far as there is room. Gives the marks that went there: queue, rank, sequence, record.
    pub fn journal(&mut self, journal: &mut Journal) -> Vec<(QueueId, u8, Seq, Lsn)> {
        let mut marks = Vec::new();
        while let Some((queue, of)) = self.queues.last_mut() {
            let queue = *queue;
            let notes = [
                (RecordKind::Settled, &mut of.settled),
                (RecordKind::Failed, &mut of.failed),
                (RecordKind::Leaving, &mut of.leaving),
                (RecordKind::Forgotten, &mut of.forgotten),
            ];
            for (kind, pairs) in notes {
                while !pairs.is_empty() {
                    let count = pairs.len().min(PAIRS_PER_RECORD);
                    let payload = encode_pairs(&pairs[pairs.len() - count..]);
                    if !journal.fits(payload.len(), Claim::Internal) {
                        return marks;
                    }
                    journal.append(&note(kind, queue, 0, payload.len()), &payload);
                    pairs.truncate(pairs.len() - count);
                }
            }
            while let Some((rank, seq)) = of.marks.pop_first() {
                if !journal.fits(0, Claim::Internal) {
                    of.marks.insert(rank, seq);
                    return marks;
                }
                let placed = journal.append(&note(RecordKind::Mark, queue, seq, 0), &[]);
                marks.push((queue, rank, Seq(seq), placed.lsn));
            }
            self.places.remove(&queue);
            self.queues.pop();
        }
        (self.pairs, self.since, self.urgent) = (0, None, false);
        marks
    }
}

/// A reason, as it is stored.
pub fn reason_code(reason: LeaveReason) -> u64 {
    match reason {
        LeaveReason::Rejected => 1,
        LeaveReason::Expired => 2,
        LeaveReason::MaxLength => 3,
        LeaveReason::DeliveryLimit => 4,
    }
}

/// The reason that a stored number stands for.
pub fn reason_of(code: u64) -> Option<LeaveReason> {
    Some(match code {
        1 => LeaveReason::Rejected,
        2 => LeaveReason::Expired,
        3 => LeaveReason::MaxLength,
        4 => LeaveReason::DeliveryLimit,
        _ => return None,
    })
}
