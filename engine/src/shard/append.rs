//! The way in: from a request to a record in the open group.

use super::request::{Appended, Reply};
use super::{Requester, Shard};
use crate::buffer::Slice;
use crate::cache::tail::TailBatch;
use crate::error::Refusal;
use crate::format::batch::{self, BatchError, BatchHeader};
use crate::format::journal::{PAYLOAD_BYTES_MAX, RecordHeader, RecordKind};
use crate::io::Io;
use crate::journal::Claim;
use crate::limits::{JOURNAL_SLAB_BYTES, PRODUCERS_PER_SHARD_MAX};
use crate::log::producers::Verdict;
use crate::log::table::LogIndex;
use crate::log::{Log, Placement};
use crate::time::{Nanos, WallMs};
use crate::types::{Durability, Lsn, Offset, PartitionId};

/// A batch that waits for room in a group.
pub(super) struct Waiting {
    who: Requester,
    partition: PartitionId,
    header: BatchHeader,
    batch: Slice,
    durability: Durability,
    since: Nanos,
    chain: Option<Chain>,
}

impl Waiting {
    /// The size of the batch.
    pub(super) fn batch_bytes(&self) -> usize {
        self.header.size
    }

    /// The size of the batch if it is to come in parts, none of which has been journalled.
    pub(super) fn parts_bytes(&self) -> Option<usize> {
        (self.header.size > PAYLOAD_BYTES_MAX && self.chain.is_none()).then_some(self.header.size)
    }

    /// Who sent it.
    pub(super) fn who(&self) -> Requester {
        self.who
    }
}

/// A batch larger than a group, part of which has been journalled.
struct Chain {
    placement: Placement,
    /// The batch as it will be stored.
    stamped: Slice,
    done: usize,
    first_lsn: Lsn,
    stamped_at: Option<WallMs>,
}

/// A batch in the open group, or just submitted with it.
pub(super) struct Placing {
    pub log: LogIndex,
    pub base: Offset,
    pub next: Offset,
    pub segment: Offset,
    pub position: u32,
    pub len: u32,
    /// The first record with bytes of it.
    pub lsn: Lsn,
    pub max_timestamp: i64,
    pub source: Source,
}

/// Where a placed batch's bytes are.
pub(super) enum Source {
    /// In the group, from here on.
    Group(usize),
    /// In memory of its own.
    Own(Slice),
}

impl Placing {
    /// The tail's entry, once the group is immutable.
    pub fn tail_batch(&self, group: &Slice) -> TailBatch {
        let bytes = match &self.source {
            Source::Group(at) => group.slice(*at..*at + self.len as usize),
            Source::Own(bytes) => bytes.clone(),
        };
        TailBatch {
            base: self.base,
            next: self.next,
            segment: self.segment,
            position: self.position,
            lsn: self.lsn,
            max_timestamp: self.max_timestamp,
            bytes,
        }
    }
}

/// Memory that must be free in the tail's pool to store a batch: a slab for its group and, if it comes in parts, a block
/// of its own and another slab.
pub(super) fn memory_for(batch_bytes: usize) -> usize {
    if batch_bytes > PAYLOAD_BYTES_MAX {
        batch_bytes.next_power_of_two() + 2 * JOURNAL_SLAB_BYTES
    } else {
        JOURNAL_SLAB_BYTES
    }
}

/// What became of an attempt to store a batch.
enum Attempt {
    /// It is in a group, or was refused: its sender is or will be answered.
    Settled,
    /// There is no room now.
    Later(Box<Waiting>),
}

impl<I: Io> Shard<I> {
    /// Checks a batch and stores it, now or when there is room.
    pub(super) fn append(
        &mut self,
        io: &mut I,
        who: Requester,
        partition: PartitionId,
        batch: Slice,
        durability: Durability,
    ) {
        let header = match batch::check_produced(&batch) {
            Ok(header) => header,
            Err(error) => return self.refuse(who, refusal_of(error)),
        };
        let waiting = Waiting { who, partition, header, batch, durability, since: io.now(), chain: None };
        if !self.backlog.is_empty() {
            self.backlog.push_back(waiting);
        } else if let Attempt::Later(waiting) = self.attempt(io, waiting) {
            self.backlog.push_back(*waiting);
        }
    }

    /// Stores what has waited, in order, as far as there is room.
    pub(super) fn drain_backlog(&mut self, io: &mut I) {
        while let Some(waiting) = self.backlog.pop_front() {
            if let Attempt::Later(waiting) = self.attempt(io, waiting) {
                self.backlog.push_front(*waiting);
                break;
            }
        }
    }

    /// The first record of a chain under way.
    pub(super) fn chain_lsn(&self) -> Option<Lsn> {
        self.backlog.front()?.chain.as_ref().map(|chain| chain.first_lsn)
    }

    fn attempt(&mut self, io: &mut I, waiting: Waiting) -> Attempt {
        if waiting.chain.is_some() {
            return self.attempt_parts(io, waiting);
        }
        let Waiting { who, partition, header, durability, .. } = waiting;
        if self.journal.is_poisoned() {
            self.refuse(who, Refusal::Poisoned);
            return Attempt::Settled;
        }
        if self.disk_full {
            self.refuse(who, Refusal::DiskFull);
            return Attempt::Settled;
        }
        let Some((index, log)) =
            self.logs.find(partition).and_then(|index| Some((index, self.logs.get(index)?)))
        else {
            self.refuse(who, Refusal::UnknownPartition);
            return Attempt::Settled;
        };
        // What can be free when everything that may go is gone: all but the slab being filled.
        let most = self.pools.tail.usage().limit.saturating_sub(JOURNAL_SLAB_BYTES);
        if memory_for(header.size) > most {
            self.refuse(who, Refusal::BatchTooLarge { limit: most as u32 });
            return Attempt::Settled;
        }
        let now = io.wall_ms();
        match log.admit(&header, now).and_then(|()| log.producers.judge(&header)) {
            Ok(Verdict::New) => {}
            Ok(Verdict::Duplicate(base_offset, lsn)) => {
                let appended = Appended { base_offset, append_time: None, log_start: log.log_start };
                let durability = durability.max(log.config.durability_min);
                self.answer_at(lsn, who, appended, durability);
                return Attempt::Settled;
            }
            Err(refusal) => {
                self.refuse(who, refusal);
                return Attempt::Settled;
            }
        }
        if header.size > PAYLOAD_BYTES_MAX {
            return self.start_parts(io, index, waiting, now);
        }
        if !self.journal.fits(header.size, Claim::Client) {
            return Attempt::Later(Box::new(waiting));
        }
        let log = self.logs.get_mut(index).expect("found above");
        let placement = log.place(&header, now);
        let record = record_of(log, RecordKind::Batch, placement, 0, header.size);
        let placed = self.journal.append(&record, &waiting.batch);
        let bytes = self.journal.payload_mut(&placed);
        batch::stamp(bytes, placement.base, self.metadata.leader_epoch);
        let append_time = log.config.log_append_time.then_some(now);
        if append_time.is_some() {
            batch::stamp_append_time(bytes, now);
        }
        let source = Source::Group(placed.payload.start);
        self.observer.placed(waiting.since);
        self.placed(
            index,
            placement,
            &header,
            (placed.lsn, placed.lsn),
            append_time,
            source,
            who,
            durability,
        );
        Attempt::Settled
    }

    fn start_parts(&mut self, io: &mut I, index: LogIndex, waiting: Waiting, now: WallMs) -> Attempt {
        let files = self.journal.files_for_parts(waiting.header.size);
        if files >= self.journal.files().total() && self.may_journal_grow() == Some(false) {
            self.refuse(waiting.who, Refusal::DiskFull);
            return Attempt::Settled;
        }
        if self.journal.files().free() < files {
            return Attempt::Later(Box::new(waiting));
        }
        let Some(mut block) = self.pools.tail.block(waiting.header.size) else {
            return Attempt::Later(Box::new(waiting));
        };
        // Nothing is placed before the first part has its room: until then others may still be served.
        if !self.journal.fits(PAYLOAD_BYTES_MAX, Claim::Client) {
            return Attempt::Later(Box::new(waiting));
        }
        let log = self.logs.get_mut(index).expect("the caller found it");
        let placement = log.place(&waiting.header, now);
        block.push(&waiting.batch);
        batch::stamp(block.filled_mut(), placement.base, self.metadata.leader_epoch);
        let stamped_at = log.config.log_append_time.then_some(now);
        if stamped_at.is_some() {
            batch::stamp_append_time(block.filled_mut(), now);
        }
        let chain = Chain {
            placement,
            stamped: block.freeze(),
            done: 0,
            first_lsn: self.journal.last_lsn().next(),
            stamped_at,
        };
        self.attempt_parts(io, Waiting { chain: Some(chain), ..waiting })
    }

    /// Journals as many parts as there is room for. Nothing else of this shard's clients is journalled between them.
    fn attempt_parts(&mut self, io: &mut I, mut waiting: Waiting) -> Attempt {
        let Some(index) = self.logs.find(waiting.partition) else {
            self.refuse(waiting.who, Refusal::UnknownPartition);
            return Attempt::Settled;
        };
        if self.journal.is_poisoned() {
            self.refuse(waiting.who, Refusal::Poisoned);
            return Attempt::Settled;
        }
        let chain = waiting.chain.as_mut().expect("the caller saw the chain");
        let total = chain.stamped.len();
        let mut last = chain.first_lsn;
        while chain.done < total {
            let len = (total - chain.done).min(PAYLOAD_BYTES_MAX);
            if !self.journal.fits(len, Claim::Client) {
                return Attempt::Later(Box::new(waiting));
            }
            let log = self.logs.get(index).expect("found above");
            let aux = (total as u64) << 32 | chain.done as u64;
            let record = record_of(log, RecordKind::Part, chain.placement, aux, len);
            last = self.journal.append(&record, &chain.stamped[chain.done..chain.done + len]).lsn;
            chain.done += len;
            if chain.done < total {
                // One part fills a group: let it go before the next is asked for. The last one stays for what is behind it.
                self.submit(io);
            }
        }
        self.observer.placed(waiting.since);
        let Waiting { who, header, durability, chain, .. } = waiting;
        let Chain { placement, stamped, first_lsn, stamped_at, .. } = chain.expect("still there");
        self.placed(
            index,
            placement,
            &header,
            (first_lsn, last),
            stamped_at,
            Source::Own(stamped),
            who,
            durability,
        );
        Attempt::Settled
    }

    /// A batch is journalled: the log's state advances, and its sender waits as long as asked.
    #[expect(
        clippy::too_many_arguments,
        reason = "everything known of the batch, once, at the end of two ways in"
    )]
    fn placed(
        &mut self,
        index: LogIndex,
        placement: Placement,
        header: &BatchHeader,
        (first_lsn, last_lsn): (Lsn, Lsn),
        append_time: Option<WallMs>,
        source: Source,
        who: Requester,
        durability: Durability,
    ) {
        let log = self.logs.get_mut(index).expect("the caller found it");
        let durability = durability.max(log.config.durability_min);
        let known = log.producers.len();
        let max_timestamp = append_time.map_or(header.max_timestamp, |now| now.0);
        let leader_epoch = self.metadata.leader_epoch;
        let stored = BatchHeader { base_offset: placement.base, leader_epoch, max_timestamp, ..*header };
        log.appended(placement, &stored, last_lsn);
        self.producers += log.producers.len() - known;
        let appended = Appended { base_offset: placement.base, append_time, log_start: log.log_start };
        self.open_placed.push(Placing {
            log: index,
            base: placement.base,
            next: stored.next_offset(),
            segment: placement.segment,
            position: placement.position,
            len: header.size as u32,
            lsn: first_lsn,
            max_timestamp,
            source,
        });
        self.answer_at(last_lsn, who, appended, durability);
        if self.producers > PRODUCERS_PER_SHARD_MAX {
            self.forget_producers();
        }
    }

    /// Forgets the hundredth of all producers whose last batches are oldest; so seldom that a look at all is cheap.
    fn forget_producers(&mut self) {
        let each = |(index, log): (LogIndex, &Log)| {
            log.producers.last_stored().map(|(lsn, id)| (lsn, index, id)).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.logs.iter().flat_map(each).collect();
        let forgotten = all.len() / 100 + 1;
        all.sort_unstable();
        for (_, index, id) in all.into_iter().take(forgotten) {
            if let Some(log) = self.logs.get_mut(index) {
                log.producers.forget(id);
                self.producers -= 1;
            }
        }
    }

    /// Answers when record `lsn` is as durable as asked.
    fn answer_at(&mut self, lsn: Lsn, who: Requester, appended: Appended, durability: Durability) {
        let covered = match durability {
            Durability::Memory => true,
            Durability::Written => lsn <= self.journal.written_lsn(),
            Durability::Durable => lsn <= self.journal.durable_lsn(),
        };
        match durability {
            _ if covered => self.reply(who, Reply::Appended(appended)),
            Durability::Memory => unreachable!("memory is covered at once"),
            Durability::Written => self.commits.until_written(lsn, who, appended),
            Durability::Durable => self.commits.until_durable(lsn, who, appended),
        }
    }
}

fn record_of(log: &Log, kind: RecordKind, placement: Placement, aux: u64, len: usize) -> RecordHeader {
    RecordHeader {
        kind,
        partition: log.id,
        segment: placement.segment,
        position: placement.position,
        aux,
        len,
    }
}

fn refusal_of(error: BatchError) -> Refusal {
    match error {
        BatchError::InvalidRecord(what) => Refusal::InvalidRecord(what),
        BatchError::Truncated { .. } | BatchError::CorruptStructure(_) | BatchError::BadCrc => {
            Refusal::CorruptBatch(error.what())
        }
    }
}
