//! The way out: what is in the tail at once, the rest by cold reads, a bounded number at a time.
//!
//! A read for which there is no memory waits until some comes back. **It does come back**, for what was lent is one of these:
//!
//! - It is being read into, or was read ahead of somebody: that ends by itself.
//! - It is being sent: that ends when the peer has taken it, or, as soon as [`Shard::is_starved`], with whoever has taken nothing for
//!   [`crate::limits::STUCK_SEND`].
//! - It waits to be sent, behind something else, or with a host that waits for more to go with it. Its range stays when it is
//!   dropped: hosts let go of it when they are told to ([`crate::reactor::app::AppEvent::LetGo`]), and ask for it once more
//!   ([`Request::Load`]) when it can be sent at once. So nobody keeps memory while waiting for more, and each read that gets some moves its
//!   answer on.
//! - Queues keep it for what else is wanted of a group: that has a bound of its own, well below what there is. Deliveries keep it until
//!   they are sent; one that has to wait for its client's acknowledgements is copied.

use std::collections::VecDeque;

use super::commits::Watch;
use super::request::{Extent, Found, ReadReply, Reply, Request, Target, WatchId};
use super::{Output, Requester, Shard, tokens};
use crate::buffer::Slice;
use crate::error::{IoError, Refusal};
use crate::io::{DiskDone, Io, Token};
use crate::limits::{
    COLD_CHUNK_BESIDE_COMMITS_BYTES, COLD_READS_BESIDE_COMMITS, COLD_READS_IN_FLIGHT, COLD_READS_WAITING_MAX,
    EXTENTS_PER_REQUEST_MAX, READ_AHEAD_CHUNKS_MAX, READ_AHEADS, READ_CHUNK_BYTES,
};
use crate::log::Log;
use crate::log::cold::{Cold, Outcome, Want, end_in_file};
use crate::log::plan::{self, Chunk, Range};
use crate::log::readers::Readers;
use crate::log::table::LogIndex;
use crate::time::Nanos;
use crate::types::{LeaderEpoch, Offset, PartitionId};

/// Commits are over when there was none for so long.
const COMMITS_PAUSE: Nanos = Nanos::from_millis(10);

/// How long a chunk waits for the reader that it was read ahead of.
const AHEAD_KEPT: Nanos = Nanos::from_millis(500);

/// A cold read and who wants it; nobody yet, if it reads ahead.
struct Job {
    cold: Cold,
    who: Option<Requester>,
}

/// A chunk that was read before it was asked for.
struct Ahead {
    range: Range,
    chunk: Chunk,
    since: Nanos,
}

/// A cold read that waits for its turn.
struct Queued {
    who: Option<Requester>,
    log: LogIndex,
    segment: Offset,
    want: Want,
    /// Memory that it was short of, if it has been its turn before.
    room: usize,
}

/// The cold reads of a shard.
pub(super) struct Reads {
    pub readers: Readers,
    jobs: Vec<Option<Job>>,
    queue: VecDeque<Queued>,
    /// Reads of the tail that found no memory to be copied to.
    hungry: VecDeque<(Requester, Request)>,
    /// Whether the first of those that wait does so for memory.
    starved: bool,
    /// What nobody has asked for goes after a while, or when more comes.
    ahead: VecDeque<Ahead>,
}

impl Reads {
    /// None yet. `map_segments`: see [`crate::config::Config`].
    pub fn new(map_segments: bool) -> Reads {
        Reads {
            readers: Readers::new(map_segments.then(|| Token::new(tokens::MAP, 0))),
            jobs: Vec::new(),
            queue: VecDeque::new(),
            hungry: VecDeque::new(),
            starved: false,
            ahead: VecDeque::new(),
        }
    }

    /// Lets go of what was read ahead of readers that did not go on.
    pub fn forget_ahead(&mut self, now: Nanos) {
        while self.ahead.pop_front_if(|ahead| now.since(ahead.since) > AHEAD_KEPT).is_some() {}
    }

    /// Whether somebody waits for a file to be read.
    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty() || self.under_way() > 0
    }

    /// Whether the first of those that wait does so for memory.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    fn under_way(&self) -> usize {
        self.jobs.iter().flatten().count()
    }

    /// The job that reads this stretch ahead.
    fn reading_ahead(&mut self, range: Range) -> Option<&mut Job> {
        self.jobs.iter_mut().flatten().find(|job| job.who.is_none() && job.cold.want() == Want::Load(range))
    }
}

impl<I: Io> Shard<I> {
    fn log_for(&self, partition: PartitionId) -> Option<(LogIndex, &Log)> {
        let index = self.logs.find(partition)?;
        Some((index, self.logs.get(index)?))
    }

    pub(super) fn read(
        &mut self,
        io: &mut I,
        who: Requester,
        partition: PartitionId,
        offset: Offset,
        max_bytes: u32,
    ) {
        let Some((index, log)) = self.log_for(partition) else {
            return self.refuse(who, Refusal::UnknownPartition);
        };
        let (start, end) = (log.log_start, log.high_watermark);
        if offset < start || offset > end {
            return self.refuse(who, Refusal::OffsetOutOfRange { start, end });
        }
        let at_end = offset == end;
        match if at_end { Some(Chunk::default()) } else { plan::from_tail(log, offset, max_bytes) } {
            Some(chunk) => {
                let again = Request::Read { partition, offset, max_bytes };
                self.reply_from_tail(who, index, chunk, again);
            }
            None => {
                let segment =
                    log.segment_index_of(offset).and_then(|at| log.segments.get(at)).map(|held| held.base);
                let Some(segment) = segment else { return self.refuse(who, Refusal::ReadFailed) };
                self.start_cold(io, who, index, segment, Want::Batches { offset, max_bytes });
            }
        }
    }

    pub(super) fn load(&mut self, io: &mut I, who: Requester, range: Range) {
        let Some((index, log)) = self.log_for(range.partition) else {
            return self.refuse(who, Refusal::UnknownPartition);
        };
        if let Some(chunk) = plan::load_from_tail(log, range) {
            return match self.unpinned(chunk) {
                Some(chunk) => self.reply_loaded(who, chunk),
                None => self.starve(who, Request::Load(range)),
            };
        }
        if let Some(at) = self.reads.ahead.iter().position(|ahead| ahead.range == range)
            && let Some(ahead) = self.reads.ahead.remove(at)
        {
            self.read_ahead(io, index, ahead.chunk.rest());
            self.reply_loaded(who, ahead.chunk);
        } else if let Some(job) = self.reads.reading_ahead(range) {
            job.who = Some(who);
        } else {
            self.start_cold(io, who, index, range.segment, Want::Load(range));
        }
    }

    /// Whether there are commits: the disk serves one after the other, and a commit's write waits behind every read.
    pub(super) fn is_committing(&self, io: &I) -> bool {
        self.journal.is_in_flight() || io.now().since(self.journal.flushed_at()) < COMMITS_PAUSE
    }

    /// Cold reads that may be under way.
    fn cold_reads_max(&self, io: &I) -> usize {
        if self.is_committing(io) { COLD_READS_BESIDE_COMMITS } else { COLD_READS_IN_FLIGHT }
    }

    /// What each of them may read at a time.
    pub(super) fn cold_chunk_bytes(&self, io: &I) -> u32 {
        let bytes = if self.is_committing(io) { COLD_CHUNK_BESIDE_COMMITS_BYTES } else { READ_CHUNK_BYTES };
        bytes as u32
    }

    /// Reads what a reader will ask for next, while it is served what it has asked for; unless others wait for the disk.
    fn read_ahead(&mut self, io: &mut I, index: LogIndex, mut rest: Option<Range>) {
        for _ in 0..READ_AHEADS {
            let Some(range) = rest else { return };
            if !self.reads.queue.is_empty() || self.reads.under_way() >= self.cold_reads_max(io) {
                return;
            }
            let known = self.reads.ahead.iter().any(|ahead| ahead.range == range);
            if !known && self.reads.reading_ahead(range).is_none() {
                let want = Want::Load(range);
                self.run_cold(io, Queued { who: None, log: index, segment: range.segment, want, room: 0 });
            }
            rest = range.after(range.len.min(READ_CHUNK_BYTES as u32));
        }
    }

    /// The epoch that an offset was stored under, or would be now.
    fn epoch_of(&self, log: &Log, offset: Offset) -> LeaderEpoch {
        let stored = offset < log.high_watermark;
        log.epochs.of(offset).filter(|_| stored).unwrap_or(self.metadata.leader_epoch)
    }

    pub(super) fn epoch_end(&mut self, who: Requester, partition: PartitionId, epoch: LeaderEpoch) {
        let Some((_, log)) = self.log_for(partition) else {
            return self.refuse(who, Refusal::UnknownPartition);
        };
        let end = log.epochs.end_of(epoch, self.metadata.leader_epoch, log.high_watermark);
        self.reply(who, Reply::EpochEnd(end));
    }

    pub(super) fn extents(&mut self, who: Requester, partitions: &[PartitionId]) {
        assert!(partitions.len() <= EXTENTS_PER_REQUEST_MAX, "the host asks for so many at a time");
        let extent = |partition: &PartitionId| {
            let (_, log) = self.log_for(*partition)?;
            let (log_start, high_watermark) = (log.log_start, log.high_watermark);
            Some(Extent { partition: *partition, bytes: log.bytes(), log_start, high_watermark })
        };
        let extents = partitions.iter().filter_map(extent).collect();
        self.reply(who, Reply::Extents(extents));
    }

    pub(super) fn find(&mut self, io: &mut I, who: Requester, partition: PartitionId, target: Target) {
        let Some((index, log)) = self.log_for(partition) else {
            return self.refuse(who, Refusal::UnknownPartition);
        };
        let at = |offset, leader_epoch| Found { offset: Some(offset), batch: None, leader_epoch };
        let timestamp = match target {
            Target::Earliest => {
                let epoch = self.epoch_of(log, log.log_start);
                return self.reply(who, Reply::Found(at(log.log_start, epoch)));
            }
            Target::Latest => {
                return self.reply(who, Reply::Found(at(log.high_watermark, self.metadata.leader_epoch)));
            }
            Target::Timestamp(timestamp) => timestamp.0,
            Target::MaxTimestamp => log.max_timestamp(),
        };
        self.find_time(io, who, index, timestamp, log.log_start);
    }

    /// Looks for the first batch with a timestamp of at least `timestamp`, in the segments from the one that holds
    /// `from` on.
    fn find_time(&mut self, io: &mut I, who: Requester, index: LogIndex, timestamp: i64, from: Offset) {
        let Some(log) = self.logs.get(index) else { return self.refuse(who, Refusal::UnknownPartition) };
        let first = log.segment_index_of(from).unwrap_or(0);
        let cold = log.segments.iter().skip(first).find(|segment| {
            let in_tail =
                log.tail.front().is_some_and(|front| (front.segment, front.position) <= (segment.base, 0));
            segment.index.max_timestamp() >= timestamp && !in_tail && segment.flushed > 0
        });
        let tail_starts = log.tail.front().map(|front| front.segment);
        if let Some(segment) = cold.filter(|cold| tail_starts.is_none_or(|tail| cold.base <= tail)) {
            let segment = segment.base;
            return self.start_cold(io, who, index, segment, Want::Time(timestamp));
        }
        self.find_time_in_tail(who, index, timestamp);
    }

    fn find_time_in_tail(&mut self, who: Requester, index: LogIndex, timestamp: i64) {
        let Some(log) = self.logs.get(index) else { return self.refuse(who, Refusal::UnknownPartition) };
        let found = log
            .tail
            .iter()
            .take_while(|batch| batch.next <= log.high_watermark)
            .find(|batch| batch.max_timestamp >= timestamp && batch.next > log.log_start);
        let found = Found {
            offset: found.map(|batch| batch.base.max(log.log_start)),
            batch: found.map(|batch| batch.bytes.clone()),
            leader_epoch: found.map_or(self.metadata.leader_epoch, |batch| {
                self.epoch_of(log, batch.base.max(log.log_start))
            }),
        };
        self.reply(who, Reply::Found(found));
    }

    pub(super) fn watch(
        &mut self,
        who: Requester,
        watch: WatchId,
        interests: &[(PartitionId, Offset)],
        min_bytes: u32,
    ) {
        let mut readable = 0;
        let mut logs = Vec::with_capacity(interests.len());
        for (partition, offset) in interests {
            let Some((index, log)) = self.log_for(*partition) else {
                readable = u64::MAX; // It is gone: let them find out.
                break;
            };
            readable += readable_bytes(log, *offset);
            logs.push(index);
        }
        let missing = u64::from(min_bytes.max(1)).saturating_sub(readable);
        if missing == 0 {
            self.outputs.push_back(Output::Woken(who, watch));
        } else {
            self.watches.add((who.shard, watch), Watch { who, logs, missing });
        }
        self.outputs.push_back(Output::Watching(who));
    }

    fn start_cold(&mut self, io: &mut I, who: Requester, log: LogIndex, segment: Offset, want: Want) {
        let queued = Queued { who: Some(who), log, segment, want, room: 0 };
        if self.reads.under_way() >= self.cold_reads_max(io) || self.reads.starved {
            if self.reads.queue.len() >= COLD_READS_WAITING_MAX {
                return self.refuse_read(queued.who, Refusal::Busy);
            }
            self.reads.queue.push_back(queued);
            return;
        }
        self.run_cold(io, queued);
    }

    fn run_cold(&mut self, io: &mut I, queued: Queued) {
        let Queued { who, log: index, segment, want, .. } = queued;
        let Some(log) = self.logs.get(index) else { return self.refuse_read(who, Refusal::UnknownPartition) };
        let slot = self.reads.jobs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.reads.jobs.push(None);
            self.reads.jobs.len() - 1
        });
        let token = Token::new(tokens::COLD, slot as u64);
        self.reads.readers.chunk_bytes = self.cold_chunk_bytes(io);
        match Cold::start(io, &mut self.reads.readers, log, index, segment, want, token) {
            Err(refusal) => self.refuse_read(who, refusal),
            Ok(mut cold) => {
                let ready = if cold.is_ready() {
                    cold.go_on(io, &mut self.reads.readers, log, &self.pools.read, token)
                } else {
                    Ok(None)
                };
                self.after_cold(io, slot, Job { cold, who }, ready);
            }
        }
    }

    pub(super) fn on_cold(&mut self, io: &mut I, token: Token, done: Result<DiskDone, IoError>) {
        let slot = token.id() as usize;
        let mut job =
            self.reads.jobs.get_mut(slot).and_then(Option::take).expect("a cold read waits for this");
        let result = match self.logs.get(job.cold.log()) {
            Some(log) => job.cold.on_done(io, &mut self.reads.readers, log, &self.pools.read, token, done),
            None => {
                job.cold.give_up(io, done);
                Err(Refusal::UnknownPartition)
            }
        };
        self.after_cold(io, slot, job, result);
        self.read_queued(io);
    }

    /// Goes on with the reads that wait, as far as there is memory.
    pub(super) fn read_queued(&mut self, io: &mut I) {
        self.reads.starved = false;
        while !self.reads.starved
            && let Some((who, request)) = self.reads.hungry.pop_front()
        {
            self.handle(io, who, request);
        }
        while !self.reads.starved
            && self.reads.under_way() < self.cold_reads_max(io)
            && let Some(queued) = self.reads.queue.pop_front()
        {
            // It would open its files again, only to find that there is no memory to read them into.
            if queued.room == 0 || self.pools.read.has_room(queued.room) {
                self.run_cold(io, queued);
            } else {
                self.reads.starved = true;
                self.reads.queue.push_front(queued);
            }
        }
    }

    /// Whether reads wait for memory, of logs or of queues.
    pub fn is_starved(&self) -> bool {
        self.reads.is_starved() || self.queues.is_starved()
    }

    /// Has a read of the tail be made again when there is memory.
    fn starve(&mut self, who: Requester, request: Request) {
        if self.reads.hungry.len() >= COLD_READS_WAITING_MAX {
            return self.refuse(who, Refusal::Busy);
        }
        self.reads.starved = true;
        self.reads.hungry.push_front((who, request));
    }

    /// Keeps a cold read that goes on; answers for one that is over.
    fn after_cold(&mut self, io: &mut I, slot: usize, job: Job, result: Result<Option<Outcome>, Refusal>) {
        let (index, want) = (job.cold.log(), job.cold.want());
        if let Ok(Some(Outcome::Chunk(chunk))) = &result {
            self.observer.metrics.cold_reads.add(1);
            self.observer.metrics.cold_read_bytes.add(bytes_of(&chunk.bytes));
            if let Some(range) = chunk.range {
                self.note_cold(index, range);
            }
        }
        let outcome = match result {
            Ok(None) => {
                self.reads.jobs[slot] = Some(job);
                return;
            }
            Ok(Some(outcome)) => outcome,
            Err(Refusal::Busy) if job.who.is_some() && self.pools.read.could_hold(job.cold.room()) => {
                let (who, segment, room) = (job.who, job.cold.segment(), job.cold.room());
                self.reads.starved = true;
                return self.reads.queue.push_front(Queued { who, log: index, segment, want, room });
            }
            Err(refusal) => return self.refuse_read(job.who, refusal),
        };
        let Some(who) = job.who else {
            if let (Outcome::Chunk(chunk), Want::Load(range)) = (outcome, want) {
                if self.reads.ahead.len() >= READ_AHEAD_CHUNKS_MAX {
                    self.reads.ahead.pop_front();
                }
                self.reads.ahead.push_back(Ahead { range, chunk, since: io.now() });
            }
            return;
        };
        match (outcome, want) {
            (Outcome::Chunk(chunk), want) => {
                self.read_ahead(io, index, chunk.rest());
                match want {
                    Want::Load(_) => self.reply_loaded(who, chunk),
                    Want::Batches { .. } | Want::Time(_) => self.reply_read(who, index, chunk),
                }
            }
            (Outcome::Batch(batch), _) => self.reply_found(who, index, batch),
            (Outcome::Passed, want) => self.passed(io, who, index, &job.cold, want),
        }
    }

    /// Refuses a read to whoever wants it. If nobody does yet, they will ask, and meet what is wrong.
    fn refuse_read(&mut self, who: Option<Requester>, refusal: Refusal) {
        if let Some(who) = who {
            self.refuse(who, refusal);
        }
    }

    /// A segment's file did not hold what was wanted: it is in the tail, in a later segment, or nowhere.
    fn passed(&mut self, io: &mut I, who: Requester, index: LogIndex, cold: &Cold, want: Want) {
        let Some(log) = self.logs.get(index) else { return self.refuse(who, Refusal::UnknownPartition) };
        let segment = cold.segment();
        let next = log.segments.iter().map(|segment| segment.base).find(|base| *base > segment);
        match want {
            Want::Load(_) => self.refuse(who, Refusal::ReadFailed),
            Want::Batches { offset, max_bytes } => {
                // What follows is in the tail, unless it starts behind the next segment's start. A log that was
                // imported may also have a gap here, and so nothing before the next segment, or before its end.
                let in_tail = log
                    .tail
                    .front()
                    .filter(|front| next.is_none_or(|next| (front.segment, front.position) <= (next, 0)));
                let from = in_tail.map(|front| offset.max(front.base));
                match (from.and_then(|from| plan::from_tail(log, from, max_bytes)), next) {
                    (Some(chunk), _) => {
                        let again = Request::Read { partition: log.id, offset, max_bytes };
                        self.reply_from_tail(who, index, chunk, again);
                    }
                    (None, Some(segment)) => {
                        self.start_cold(io, who, index, segment, want);
                    }
                    (None, None) => self.reply_read(who, index, Chunk::default()),
                }
            }
            // The tail has let go of what it had when the read was begun, and with it perhaps of what is looked for.
            Want::Time(timestamp)
                if log.segment(segment).is_some_and(|held| end_in_file(log, held) > cold.end()) =>
            {
                self.find_time(io, who, index, timestamp, segment);
            }
            Want::Time(timestamp) => match next {
                Some(next) => self.find_time(io, who, index, timestamp, next),
                None => self.find_time_in_tail(who, index, timestamp),
            },
        }
    }

    fn reply_from_tail(&mut self, who: Requester, index: LogIndex, chunk: Chunk, again: Request) {
        match self.unpinned(chunk) {
            Some(chunk) => self.reply_read(who, index, chunk),
            None => self.starve(who, again),
        }
    }

    fn reply_read(&mut self, who: Requester, index: LogIndex, chunk: Chunk) {
        let Some(log) = self.logs.get(index) else { return self.refuse(who, Refusal::UnknownPartition) };
        let (high_watermark, log_start) = (log.high_watermark, log.log_start);
        self.observer.metrics.read_bytes.add(bytes_of(&chunk.bytes));
        self.reply(who, Reply::Read(ReadReply { chunk, high_watermark, log_start }));
    }

    fn reply_loaded(&mut self, who: Requester, chunk: Chunk) {
        self.observer.metrics.read_bytes.add(bytes_of(&chunk.bytes));
        self.reply(who, Reply::Loaded(chunk));
    }

    fn reply_found(&mut self, who: Requester, index: LogIndex, batch: Slice) {
        let header = crate::format::batch::BatchHeader::parse(&batch).ok();
        let log_start = self.logs.get(index).map_or(Offset(0), |log| log.log_start);
        let found = Found {
            offset: header.map(|header| header.base_offset.max(log_start)),
            batch: Some(batch),
            leader_epoch: header.map_or(self.metadata.leader_epoch, |header| header.leader_epoch),
        };
        self.reply(who, Reply::Found(found));
    }

    /// Slices of the tail as they may be handed out: pinned where they are as long as readers hold few slabs, copied otherwise, so
    /// that slow readers never hold the journal's memory. `None` if there is no memory for the copy either.
    fn unpinned(&self, chunk: Chunk) -> Option<Chunk> {
        let usage = self.pools.tail.usage();
        if usage.in_use + crate::limits::JOURNAL_SLAB_BYTES * 2 < usage.limit {
            return Some(chunk);
        }
        let len = bytes_of(&chunk.bytes) as usize;
        if len == 0 {
            return Some(chunk);
        }
        let mut block = self.pools.read.block(len)?;
        for slice in &chunk.bytes {
            block.push(slice);
        }
        Some(Chunk { bytes: vec![block.freeze()], ..chunk })
    }
}

fn bytes_of(slices: &[Slice]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}

/// Bytes that can be read from `offset` on; as good as endless where the answer is in files.
fn readable_bytes(log: &Log, offset: Offset) -> u64 {
    if offset >= log.high_watermark {
        return if offset > log.high_watermark { u64::MAX } else { 0 };
    }
    let Some(batches) = log.tail.from_offset(offset) else { return u64::MAX };
    batches.take_while(|batch| batch.next <= log.high_watermark).map(|batch| batch.bytes.len() as u64).sum()
}
