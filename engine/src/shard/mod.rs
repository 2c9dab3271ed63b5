//! A shard: the owner of its logs, its journal and everything that waits for them. Touched by its own thread only.
//!
//! Inputs are [`request::Request`]s, completions of the shard's own operations, and the end of each turn; outputs are
//! [`Output`]s, taken by the reactor. Call order per turn: [`Shard::on_done`] and [`Shard::on_written`] for every
//! completion, [`Shard::handle`] for every request, [`Shard::end_turn`] once, then [`Shard::take_output`] until empty.

mod append;
pub mod change;
mod commits;
pub mod controller;
mod departures;
pub mod draft;
pub mod mailbox;
mod maintenance;
pub mod message;
pub mod metadata;
mod metadata_log;
mod moving;
pub mod observer;
mod placement;
mod queues;
mod reads;
pub mod recovery;
pub mod request;
mod scrub;
mod tail;
pub mod tokens;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use append::{Placing, Waiting};
use commits::{Commits, Watches};
use departures::Departures;
use maintenance::Maintenance;
use observer::Observer;
use reads::Reads;
use request::{AppToken, Reply, Request, WatchId};
use scrub::Scrubbing;

use crate::buffer::{Block, Pool};
use crate::config::Config;
use crate::error::{IoError, Refusal};
use crate::format::journal::{RecordHeader, RecordKind};
use crate::io::{DiskDone, Io, Token};
use crate::journal::{Claim, Journal, Trim};
use crate::limits::{
    COLD_READS_IN_FLIGHT, GROUP_BYTES_MAX, JOURNAL_SLAB_BYTES, LARGE_MESSAGES_BYTES_MAX,
    READ_AHEAD_CHUNKS_MAX, READ_CHUNK_BYTES, SEGMENT_WRITE_BYTES, STAGED_WRITES_MAX,
};
use crate::log::table::{LogIndex, Logs};
use crate::log::{Log, paths};
use crate::metrics::Step;
use crate::time::Nanos;
use crate::types::{Lsn, MetadataEpoch, Offset, PartitionId, QueueId, Seq, ShardId, TopicId};
use message::{CancelReason, ConsumerId, DeadLetter, Delivery, Flow};
use metadata::Metadata;
pub use queues::{Arrived, Heirs, Inbound};
use queues::{Desk, Queues};
use tail::{TailBudget, TailGroup};

/// Who asked: a shard, and how its host calls the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requester {
    /// The shard.
    pub shard: ShardId,
    /// The token to answer with.
    pub token: AppToken,
}

/// What a shard gives back.
#[derive(Debug)]
pub enum Output {
    /// The answer to a request.
    Reply(Requester, Reply),
    /// A watch is set, or its condition held at once. This gives back the request's room; the host hears of it by
    /// [`Output::Woken`] only.
    Watching(Requester),
    /// A watch's condition holds.
    Woken(Requester, WatchId),
    /// Nothing is left here of topics that were deleted up to this epoch. For the controller.
    Clear(MetadataEpoch),
    /// The answer to a request, which arrives in order with what is told of consumers.
    Ordered(Requester, Reply),
    /// Messages for consumers of a shard.
    Delivered(ShardId, Vec<Delivery>),
    /// A consumer of a shard was ended.
    ConsumerCancelled(ShardId, ConsumerId, QueueId, CancelReason),
    /// The host of a shard is told whose publishers had better wait, or need not any more.
    Flow(ShardId, Vec<Flow>),
    /// A message leaves a queue of this shard for queues of another.
    Inbound(ShardId, Inbound),
    /// It has arrived here, or has not.
    Arrived(ShardId, Arrived),
    /// What another shard has from here it need not remember any more: the message has left its queue.
    Forget(ShardId, QueueId, Seq),
    /// Another shard is asked which of these names of its messages need not be remembered any more.
    Remembers(ShardId, Vec<(QueueId, Seq)>),
    /// The host of this shard is asked where a message goes.
    DeadLettered(DeadLetter),
    /// The host of this shard is told that a queue was unused for too long.
    QueueExpired(QueueId),
}

/// The memory of one shard, by what it is for.
#[derive(Clone)]
pub struct Pools {
    /// Journal slabs, which are the tail afterwards.
    pub tail: Pool,
    /// Blocks in which segment writes are staged.
    pub staging: Pool,
    /// Blocks that cold reads fill.
    pub read: Pool,
    /// What slow readers have not taken yet.
    pub slow: Pool,
    /// Messages that queues do not keep over a restart.
    pub passing: Pool,
    /// Messages in pieces, put together.
    pub large: Pool,
}

impl Pools {
    /// Pools for a shard whose journal may grow to `journal_bytes`.
    pub fn new(journal_bytes: u64, config: &Config) -> Pools {
        let pinned_bytes = config.pinned_bytes;
        // The tail covers the journal's window; beyond it there is what slow readers may still pin, the slab being
        // filled, and the one in flight.
        let tail = journal_bytes + pinned_bytes + 4 * JOURNAL_SLAB_BYTES as u64;
        Pools {
            tail: Pool::new(tail as usize),
            // What all drains may have in flight, and the zeros that new journal files are made of.
            staging: Pool::new(STAGED_WRITES_MAX * SEGMENT_WRITE_BYTES + 2 * GROUP_BYTES_MAX),
            read: Pool::new((pinned_bytes as usize).max(64 * READ_CHUNK_BYTES)),
            slow: Pool::new(pinned_bytes as usize),
            // The group being filled, the largest that may come behind it, and as much being written.
            passing: Pool::new((config.queue_passing_bytes as usize).max(4 * GROUP_BYTES_MAX)),
            large: Pool::new(LARGE_MESSAGES_BYTES_MAX),
        }
    }

    /// Touches what the first requests will need, before there are any; see [`Pool::reserve`].
    fn reserve(&self) {
        self.tail.reserve(2, JOURNAL_SLAB_BYTES);
        self.staging.reserve(STAGED_WRITES_MAX, SEGMENT_WRITE_BYTES);
        // A chunk and the blocks around it that are checked with it. Half of what one reader is read ahead of at most: the rest
        // is a tenth of what a node takes that does nothing.
        let chunks = COLD_READS_IN_FLIGHT + READ_AHEAD_CHUNKS_MAX / 2;
        self.read.reserve(chunks, 2 * READ_CHUNK_BYTES);
    }

    /// A pool that has less ready than was reserved.
    fn short(&self) -> Option<&Pool> {
        [&self.tail, &self.staging, &self.read].into_iter().find(|pool| pool.is_short())
    }

    /// Lets go of memory that a busier time has left; see [`Pool::give_back_unused`].
    fn give_back_unused(&self) {
        let Pools { tail, staging, read, slow, passing, large } = self;
        [tail, staging, read, slow, passing, large].into_iter().for_each(Pool::give_back_unused);
    }
}

/// A log-start move that waits to be durable before files go.
struct Trimmed {
    lsn: Lsn,
    who: Option<Requester>,
    log: LogIndex,
    start: Offset,
    gone: Vec<Offset>,
}

/// One shard's state.
pub struct Shard<I: Io> {
    id: ShardId,
    config: Arc<Config>,
    metadata: Arc<Metadata>,
    logs: Logs,
    journal: Journal,
    trim: Trim,
    pools: Pools,
    tail_budget: TailBudget,
    tail_bytes: usize,
    tail_groups: VecDeque<TailGroup>,
    backlog: VecDeque<Waiting>,
    open_placed: Vec<Placing>,
    flying: Vec<Placing>,
    commits: Commits,
    watches: Watches,
    trimmed: VecDeque<Trimmed>,
    departures: Departures,
    scrubbing: Scrubbing,
    reads: Reads,
    queues: Queues,
    maintenance: Maintenance,
    disk_full: bool,
    /// Idempotent producers that the logs remember, all together.
    producers: usize,
    outputs: VecDeque<Output>,
    observer: Observer,
    io: std::marker::PhantomData<I>,
}

impl<I: Io> Shard<I> {
    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The metadata that this shard has applied.
    pub fn metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    /// How long its reactor looks for work before it sleeps.
    pub fn spin(&self) -> Nanos {
        Nanos::from_micros(self.config.spin_us)
    }

    /// Whether a failed flush has ended this shard's service.
    pub fn is_poisoned(&self) -> bool {
        self.journal.is_poisoned()
    }

    /// Whether nothing that was promised to anybody is still on its way to the disk.
    pub fn is_settled(&self) -> bool {
        self.journal.is_poisoned()
            || self.backlog.is_empty()
                && self.commits.is_empty()
                && self.queues.is_settled()
                && self.trimmed.is_empty()
                && self.journal.durable_lsn() == self.journal.last_lsn()
    }

    /// The logs, for checkers and tools.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// The journal, for metrics.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Gets ready to serve: what may be done before the first request is not to hold that up.
    pub fn warm_up(&self) {
        self.pools.reserve();
    }

    /// The next output.
    pub fn take_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn reply(&mut self, who: Requester, reply: Reply) {
        self.outputs.push_back(Output::Reply(who, reply));
    }

    fn refuse(&mut self, who: Requester, refusal: Refusal) {
        self.observer.metrics.refusals.add(1);
        self.reply(who, Reply::Refused(refusal));
    }

    /// Takes a request.
    pub fn handle(&mut self, io: &mut I, who: Requester, request: Request) {
        match request {
            Request::Append { partition, batch, durability } => {
                self.append(io, who, partition, batch, durability);
            }
            Request::Read { partition, offset, max_bytes } => {
                self.read(io, who, partition, offset, max_bytes);
            }
            Request::Load(range) => self.load(io, who, range),
            Request::Watch { watch, interests, min_bytes } => self.watch(who, watch, &interests, min_bytes),
            Request::Unwatch(watch) => {
                if let Some(watcher) = self.watches.remove((who.shard, watch)) {
                    self.outputs.push_back(Output::Woken(watcher, watch));
                }
                self.reply(who, Reply::Done);
            }
            Request::Find { partition, target } => self.find(io, who, partition, target),
            Request::EpochEnd { partition, epoch } => self.epoch_end(who, partition, epoch),
            Request::Extents(partitions) => self.extents(who, &partitions),
            Request::DiskSpace => self.tell_space(who),
            Request::TrimLog { partition, before } => self.trim_log(who, partition, before),
            Request::Publish(_)
            | Request::Consume(_)
            | Request::Grant(_)
            | Request::CancelConsumer { .. }
            | Request::Settle { .. }
            | Request::Get { .. }
            | Request::Purge(_)
            | Request::QueueStats { .. }
            | Request::CloseQueue { .. }
            | Request::OpenQueue(_)
            | Request::Move(_) => {
                let (queues, mut desk) = self.queues(io);
                queues.handle(&mut desk, who, request);
            }
            Request::CreateTopic { .. }
            | Request::DeleteTopic(_)
            | Request::AddPartitions { .. }
            | Request::ConfigureTopic { .. }
            | Request::NewProducerId
            | Request::ChangeMetadata(_) => {
                unreachable!("changes of metadata are the controller's")
            }
        }
    }

    /// The group in flight has been written, whole.
    pub fn on_written(&mut self) {
        self.journal.on_written();
        self.release();
    }

    /// A message comes in from a queue of another shard.
    pub fn inbound(&mut self, io: &I, inbound: Inbound) {
        let (queues, mut desk) = self.queues(io);
        queues.inbound(&mut desk, inbound);
    }

    /// A message that was sent to another shard has arrived there, or has not.
    pub fn arrived(&mut self, io: &I, from: ShardId, arrived: Arrived) {
        let (queues, mut desk) = self.queues(io);
        queues.arrived(&mut desk, from, arrived);
    }

    /// Another shard remembers the names of messages that came from queues of this one.
    pub fn remembered(&mut self, io: &I, from: ShardId, names: Vec<(QueueId, Seq)>) {
        let (queues, mut desk) = self.queues(io);
        queues.remembered(&mut desk, from, names);
    }

    /// What came in from another shard's queue has left that.
    pub fn forget(&mut self, io: &I, queue: QueueId, seq: Seq) {
        self.queues.stir();
        self.queues.forget(queue, seq, io.now());
    }

    /// Takes the completion of one of the shard's own operations.
    pub fn on_done(&mut self, io: &mut I, token: Token, done: Result<DiskDone, IoError>) {
        match token.owner() {
            tokens::COMMIT => self.on_commit(io, done),
            tokens::TRIM => {
                let (journal, logs) = (&mut self.journal, &mut self.logs);
                let ended = self.trim.on_done(io, journal, logs, &mut self.queues, token, done);
                self.on_trim_ended(io, ended);
            }
            tokens::COLD => self.on_cold(io, token, done),
            tokens::QUEUE_READ => {
                self.queues.stir();
                if let Some(first) = self.queues.on_read(token, done) {
                    self.note_read_back(first);
                }
            }
            tokens::QUEUE_PAGE => {
                self.queues.stir();
                self.queues.on_paged(token, io.now(), done);
            }
            tokens::QUEUE_PASSING => {
                self.queues.stir();
                self.queues.on_passed(token, io.now(), done);
            }
            tokens::QUEUE_STORE => self.queues.on_stored(io, done),
            tokens::MAP => self.reads.readers.on_mapped(io, done),
            tokens::SCRUB => self.on_scrub(io, token, done),
            tokens::DEPARTURES => self.on_directories_flushed(done),
            tokens::GROW | tokens::REMOVE | tokens::SPACE => self.on_maintenance(io, token, done),
            owner => panic!("a completion for owner {owner}, which this shard does not know"),
        }
    }

    fn on_commit(&mut self, io: &mut I, done: Result<DiskDone, IoError>) {
        if let Err(error) = &done {
            tracing::error!(shard = self.id.0, %error, "the journal could not be flushed: this shard stores nothing any more");
        }
        let (submitted, now) = (self.journal.in_flight_since(), io.now());
        self.journal.on_durable(done.is_ok(), now);
        if self.journal.is_poisoned() {
            return self.on_poisoned(io);
        }
        let flying = std::mem::take(&mut self.flying);
        self.observer.durable(submitted, now, &flying);
        for placing in &flying {
            if let Some(log) = self.logs.get_mut(placing.log) {
                log.durable(placing.segment, placing.position + placing.len, placing.next);
                for ((_, watch), who) in self.watches.grown(placing.log, u64::from(placing.len)) {
                    self.outputs.push_back(Output::Woken(who, watch));
                }
            }
        }
        self.flying = flying;
        self.flying.clear();
        // A large group goes out before those are answered whose answers bring more: the disk need not wait for that.
        if self.journal.is_group_large() {
            self.submit(io);
        }
        self.release();
    }

    /// Answers those whose records are covered now, and removes the files of log starts that are durable.
    fn release(&mut self) {
        let (written, durable) = (self.journal.written_lsn(), self.journal.durable_lsn());
        self.queues.durable(durable, &mut self.outputs);
        while let Some((who, appended)) = self.commits.next(written, durable) {
            self.reply(who, Reply::Appended(appended));
        }
        while let Some(trimmed) = self.trimmed.pop_front_if(|trimmed| trimmed.lsn <= durable) {
            let Some(log) = self.logs.get(trimmed.log) else {
                if let Some(who) = trimmed.who {
                    self.refuse(who, Refusal::UnknownPartition); // The topic was deleted meanwhile.
                }
                continue;
            };
            let directory = log.directory.clone();
            for segment in trimmed.gone {
                self.reads.readers.forget(trimmed.log, segment);
                self.maintenance.remove_segment(&directory, segment);
            }
            if let Some(who) = trimmed.who {
                self.reply(who, Reply::Trimmed(trimmed.start));
            }
        }
    }

    fn on_poisoned(&mut self, io: &I) {
        let (queues, mut desk) = self.queues(io);
        queues.poisoned(&mut desk);
        let waiting: Vec<Requester> = self.commits.drain().collect();
        for who in waiting
            .into_iter()
            .chain(self.trimmed.drain(..).filter_map(|trimmed| trimmed.who).collect::<Vec<_>>())
        {
            self.refuse(who, Refusal::Poisoned);
        }
    }

    /// Ends this shard's service.
    fn poison(&mut self, io: &I) {
        self.journal.poison();
        self.on_poisoned(io);
        while let Some(waiting) = self.backlog.pop_front() {
            self.refuse(waiting.who(), Refusal::Poisoned);
        }
    }

    /// Ends a turn: stores what waits, submits the group, and goes on with the work in the background.
    pub fn end_turn(&mut self, io: &mut I) {
        self.drain_backlog(io);
        let queues_work = self.queues.has_work(self.observer.lap());
        if queues_work {
            self.observer.metrics.queue_turns.add(1);
            let (queues, mut desk) = self.queues(io);
            queues.drain_backlog(&mut desk);
            queues.run(&mut desk);
            queues.note(&mut desk);
            self.observer.metrics.messages_lost.add(self.queues.take_lost());
            if self.queues.is_sick() && !self.is_poisoned() {
                tracing::error!(
                    shard = self.id.0,
                    "too much cannot be read: this shard stores nothing any more"
                );
                self.poison(io);
            }
            self.queues.freeze();
        }
        self.submit(io);
        if queues_work {
            let (queues, mut desk) = self.queues(io);
            queues.deliver(&mut desk);
            queues.read(io);
            queues.page(io);
            for path in self.queues.pass(io) {
                self.maintenance.remove_file(path);
            }
        }
        self.observer.step_ended(Step::Store, io.now());
        // What was drained since may go, also when nothing is submitted for want of memory.
        self.evict();
        // A batch in parts may have its last one in the open group, and the others in groups before it.
        let placed = self.open_placed.iter().map(|placing| placing.lsn).chain(self.chain_lsn()).min();
        let unsubmitted = placed.unwrap_or(Lsn(u64::MAX)).min(self.journal.first_open_lsn());
        let (journal, logs) = (&mut self.journal, &mut self.logs);
        let ended = self.trim.advance(io, journal, logs, &mut self.queues, unsubmitted);
        self.on_trim_ended(io, ended);
        self.maintain(io);
        if self.reads.is_starved() {
            self.read_queued(io);
        }
        self.submit(io);
        self.reads.readers.close_idle(io);
        // Moving survivors may have asked for some.
        self.queues.read(io);
        if queues_work {
            self.queues.plan(io.now(), io.wall_ms());
        }
        self.observer.step_ended(Step::Background, io.now());
    }

    /// The queues, and what they may use of the shard: something happens to them.
    fn queues(&mut self, io: &I) -> (&mut Queues, Desk<'_>) {
        self.queues.stir();
        let shut = if self.journal.is_poisoned() {
            Some(Refusal::Poisoned)
        } else {
            self.disk_full.then_some(Refusal::DiskFull)
        };
        let desk = Desk {
            shard: self.id,
            shut,
            busy: self.chain_lsn().is_some(),
            now: io.now(),
            wall: io.wall_ms(),
            journal: &mut self.journal,
            metadata: &self.metadata,
            outputs: &mut self.outputs,
        };
        (&mut self.queues, desk)
    }

    /// Writes the open group, if none is in flight; its batches are the tail's from now on.
    fn submit(&mut self, io: &mut I) {
        let Some(submitted) = self.journal.submit(io, Token::new(tokens::COMMIT, 0)) else { return };
        assert!(self.flying.is_empty(), "one group in flight");
        std::mem::swap(&mut self.flying, &mut self.open_placed);
        self.observer.submitted(submitted.bytes.len(), self.flying.len());
        let mut logs = VecDeque::with_capacity(self.flying.len());
        for placing in &self.flying {
            if let Some(log) = self.logs.get_mut(placing.log) {
                log.tail.push(placing.tail_batch(&submitted.bytes));
                logs.push_back(placing.log);
            }
        }
        let own: usize = self
            .flying
            .iter()
            .map(|placing| if let append::Source::Own(bytes) = &placing.source { bytes.pinned() } else { 0 })
            .sum();
        let bytes = submitted.bytes.len() + own + logs.len() * size_of::<crate::cache::tail::TailBatch>();
        self.tail_bytes += bytes;
        let (lsn, queues) = (submitted.last_lsn, self.queues.submitted(&submitted));
        self.tail_groups.push_back(TailGroup { bytes, logs, lsn, queues });
        self.evict();
    }

    /// Moves a log's start, and tells `who` when that is durable.
    fn move_log_start(&mut self, index: LogIndex, start: Offset, who: Option<Requester>) -> bool {
        if !self.journal.fits(0, Claim::Internal) {
            return false;
        }
        let log = self.logs.get_mut(index).expect("the caller found it");
        let header = RecordHeader {
            kind: RecordKind::LogStart,
            partition: log.id,
            segment: Offset(0),
            position: 0,
            aux: start.0,
            len: 0,
        };
        let placed = self.journal.append(&header, &[]);
        let gone = log.move_start(start);
        self.trimmed.push_back(Trimmed { lsn: placed.lsn, who, log: index, start, gone });
        true
    }

    fn trim_log(&mut self, who: Requester, partition: PartitionId, before: Option<Offset>) {
        let Some((index, log)) =
            self.logs.find(partition).and_then(|index| Some((index, self.logs.get(index)?)))
        else {
            return self.refuse(who, Refusal::UnknownPartition);
        };
        let (start, end) = (log.log_start, log.high_watermark);
        let to = before.unwrap_or(end);
        if self.journal.is_poisoned() {
            return self.refuse(who, Refusal::Poisoned);
        }
        if to > end {
            return self.refuse(who, Refusal::OffsetOutOfRange { start, end });
        }
        if to <= start {
            // The move that brought it there may not be durable yet.
            let under_way = self.trimmed.iter().rev().find(|trimmed| trimmed.log == index);
            let Some(lsn) = under_way.map(|trimmed| trimmed.lsn) else {
                return self.reply(who, Reply::Trimmed(start));
            };
            let trimmed = Trimmed { lsn, who: Some(who), log: index, start, gone: Vec::new() };
            return self.trimmed.push_back(trimmed);
        }
        if !self.move_log_start(index, to, Some(who)) {
            self.refuse(who, Refusal::Busy);
        }
    }

    /// Room for what a slow reader has not taken yet; `None` if slow readers have all that they may.
    pub fn room_for_slow(&self, len: usize) -> Option<Block> {
        self.pools.slow.block(len)
    }

    /// Whether a file is being removed at this moment, by a name that a rename would give another meaning.
    pub fn is_removing(&self) -> bool {
        self.maintenance.is_removing()
    }

    /// Swaps the metadata: makes the logs that are new here, and takes those away whose topics are gone. The
    /// directories of the latter are renamed by the returned names, which is to be done before the change is answered.
    pub fn apply(&mut self, io: &I, metadata: Arc<Metadata>) -> Vec<(String, String)> {
        assert_eq!(metadata.epoch.0, self.metadata.epoch.0 + 1, "every shard applies every epoch");
        let mut renames = Vec::new();
        let changed: BTreeSet<TopicId> = metadata.changed_topics().collect();
        let lost = changed.iter().filter(|topic| !metadata.by_id.contains_key(topic));
        let of_topic = |topic: &TopicId| self.metadata.partitions_in(*topic, self.id).map(|(id, _)| id);
        let gone: Vec<PartitionId> = lost.flat_map(of_topic).collect();
        if !gone.is_empty() || self.loses_queue(&metadata) {
            self.departures.leave(metadata.epoch, self.journal.last_lsn(), self.trim.states_taken());
        }
        for id in gone {
            let Some((index, log)) = self.logs.remove(id) else { continue };
            self.producers -= log.producers.len();
            self.reads.readers.forget_log(index);
            for ((_, watch), who) in self.watches.grown(index, u64::MAX) {
                self.outputs.push_back(Output::Woken(who, watch));
            }
            let topic =
                self.metadata.by_id.get(&id.topic).map_or_else(String::new, |topic| topic.name.clone());
            let to = paths::deleted_directory(&topic, id);
            self.maintenance.forget_removals(&log.directory);
            self.maintenance.remove_directory(&to);
            renames.push((log.directory, to));
        }
        for (id, topic) in changed.iter().flat_map(|topic| metadata.partitions_in(*topic, self.id)) {
            let config = Arc::new(topic.config.clone());
            match self.logs.find(id).and_then(|index| self.logs.get_mut(index)) {
                Some(log) if *log.config != *config => log.config = config,
                Some(_) => {}
                None => {
                    self.logs.insert(Log::new(id, paths::directory(&topic.name, id.index), config));
                }
            }
        }
        let before = std::mem::replace(&mut self.metadata, metadata);
        let metadata = Arc::clone(&self.metadata);
        let (queues, mut desk) = self.queues(io);
        queues.apply(&mut desk, &before, &metadata);
        renames
    }

    /// Whether the next metadata have a durable queue of this shard no more.
    fn loses_queue(&self, next: &Metadata) -> bool {
        let gone = |id: &QueueId| !id.is_transient() && next.queue(*id).is_none();
        next.changed_queues().any(|id| gone(&id) && self.metadata.shard_of_queue(id) == Some(self.id))
    }

    /// How much the queues hold of everything that is to be bounded, for tests.
    pub fn queues_held(&self) -> BTreeMap<&'static str, usize> {
        self.queues.held()
    }

    /// Chunks that were served from mapped segments, for metrics.
    pub fn chunks_from_maps(&self) -> u64 {
        self.reads.readers.chunks_from_maps()
    }

    /// Bytes of segments that are mapped, for metrics.
    pub fn mapped_bytes(&self) -> usize {
        self.reads.readers.mapped_bytes()
    }

    /// Bytes and batches of every kind that this shard holds in memory, for metrics and for tests of its bounds.
    pub fn memory(&self) -> BTreeMap<&'static str, usize> {
        let (queue_index, queue_pages) = self.queues.index_usage();
        BTreeMap::from([
            ("queue index", queue_index),
            ("queue pages", queue_pages),
            ("tail", self.pools.tail.usage().in_use),
            ("staging", self.pools.staging.usage().in_use),
            ("read", self.pools.read.usage().in_use),
            ("slow", self.pools.slow.usage().in_use),
            ("passing", self.pools.passing.usage().in_use),
            ("large", self.pools.large.usage().in_use),
            ("watches", self.watches.len()),
            ("backlog", self.backlog.len()),
        ])
    }
}
