//! Making room in the journal: a round of drains, carries and a checkpoint, and only then are files recycled.
//!
//! The order is the promise (DESIGN §3.5), and each step waits for the one before:
//!
//! 1. messages that are still wanted and lie in the files to be recycled are moved to files of their own, if they are many;
//!    every log that needs a record of the files to be recycled has its whole blocks written to its segment, the segment
//!    flushed, and the directory too if a name in it is new;
//! 2. what is left of such logs, less than a block each, and messages, if they are few, is carried: put into the journal anew;
//! 3. the shard's state is taken at the journal's last record, and waits until that record is durable, so that a
//!    checkpoint never tells of anything that a crash could take back;
//! 4. the checkpoint replaces the old one: written aside, flushed, renamed, the directory flushed;
//! 5. files that hold nothing which the checkpoint says is needed are recycled.
//!
//! A failure anywhere ends the round: every file is kept, and a later round begins anew.

use std::collections::{BTreeMap, VecDeque};

use super::{Claim, Journal};
use crate::buffer::Pool;
use crate::error::IoError;
use crate::format::checkpoint::{Checkpoint, QueuesState};
use crate::format::journal::{RecordHeader, RecordKind};
use crate::io::{DiskDone, Io, Replace, Token};
use crate::limits::{SEGMENT_FLUSH_FAILURES_MAX, SEGMENTS_DRAINING_MAX};
use crate::log::Carried;
use crate::log::drain::{Drain, Progress, remainder};
use crate::log::table::{LogIndex, Logs};
use crate::time::Nanos;
use crate::types::{Lsn, Offset, ShardId};

/// How long a failed round is over before another is tried.
const RETRY: Nanos = Nanos::from_millis(500);

/// Who is meant by a completion's token: a drain job's slot, or the checkpoint.
const CHECKPOINT: u64 = SEGMENTS_DRAINING_MAX as u64;

/// What else than logs the journal protects: it has to be moved, too, before files are recycled.
pub trait Survivors<I: Io> {
    /// Starts to move what the journal holds up to record `upto` to where it stays.
    fn start(&mut self, upto: Lsn);
    /// Goes on; `true` when all of it has been moved: durably, or into the open group anew.
    ///
    /// # Errors
    /// Something failed: nothing counts as moved, and a later round begins anew.
    fn advance(&mut self, io: &mut I, journal: &mut Journal) -> Result<bool, IoError>;
    /// Ends what is under way: the round has failed.
    fn give_up(&mut self, io: &mut I);
    /// The first record of which something is still needed.
    fn needed(&self) -> Option<Lsn>;
    /// What the checkpoint tells of it.
    fn state(&mut self) -> QueuesState;
    /// The last state told is in a durable checkpoint.
    fn kept(&mut self, io: &mut I);
}

/// What a round is at.
enum Phase {
    Idle,
    /// Logs are drained for the sake of the memory that they take, and no file is to be recycled.
    Relieving,
    Draining,
    Carrying,
    /// The checkpoint's bytes wait for its last record to be durable.
    Settling(Taken),
    Replacing(Replace, Lsn),
}

/// A state taken.
struct Taken {
    lsn: Lsn,
    needed: Lsn,
    bytes: Vec<u8>,
}

struct Job {
    log: LogIndex,
    drain: Drain,
    failed: Option<IoError>,
}

/// What the owner must know of a round's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Files were recycled, or at least the checkpoint is new.
    Done,
    /// The memory of what was drained may be used for something else.
    Relieved,
    /// A step failed for this reason; another round will be tried.
    Failed(IoError),
    /// Segments have failed to flush too often: the shard must be poisoned.
    Poison,
}

/// The trimmer of one shard.
pub struct Trim {
    shard: ShardId,
    generation: u64,
    path: String,
    owner: u8,
    pool: Pool,
    phase: Phase,
    upto: Lsn,
    queue: VecDeque<LogIndex>,
    jobs: Vec<Option<Job>>,
    failures: BTreeMap<(LogIndex, Offset), u32>,
    failed: Option<IoError>,
    not_before: Nanos,
    /// States taken so far, and what the checkpoint on disk is: which of them, and from where it has the journal replayed.
    taken: u64,
    durable: (u64, Lsn),
    /// Segments whose files have grown: what is cached of them, their indexes above all, is outdated.
    drained: Vec<(LogIndex, Offset)>,
}

impl Trim {
    /// A trimmer whose operations carry tokens of `owner`; the checkpoint is at `path`, and segments are staged in
    /// blocks of `pool`.
    pub fn new(shard: ShardId, generation: u64, path: String, owner: u8, pool: Pool) -> Trim {
        Trim {
            shard,
            generation,
            path,
            owner,
            pool,
            phase: Phase::Idle,
            upto: Lsn::ZERO,
            queue: VecDeque::new(),
            jobs: (0..SEGMENTS_DRAINING_MAX).map(|_| None).collect(),
            failures: BTreeMap::new(),
            failed: None,
            not_before: Nanos::ZERO,
            taken: 0,
            durable: (0, Lsn::ZERO),
            drained: Vec::new(),
        }
    }

    /// Whether no round is under way.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Whether a round may start: none is under way, and the last one did not fail just now.
    pub fn may_start(&self, now: Nanos) -> bool {
        self.is_idle() && now >= self.not_before
    }

    /// States taken so far. A checkpoint of one of them may come to be on disk, or is.
    pub fn states_taken(&self) -> u64 {
        self.taken
    }

    /// Whether the checkpoint on disk is of a later state than these, and the journal is replayed from behind `lsn`.
    pub fn is_beyond(&self, states: u64, lsn: Lsn) -> bool {
        self.durable.0 > states && self.durable.1 > lsn
    }

    /// Segments whose files have grown since this was last asked.
    pub fn take_drained(&mut self) -> Vec<(LogIndex, Offset)> {
        std::mem::take(&mut self.drained)
    }

    /// Starts a round that frees the journal up to record `upto`.
    pub fn start<I: Io>(
        &mut self,
        io: &mut I,
        logs: &mut Logs,
        survivors: &mut impl Survivors<I>,
        upto: Lsn,
    ) {
        survivors.start(upto);
        self.drain(io, logs, upto, Phase::Draining);
    }

    /// Starts a round that moves logs up to record `upto` to their segments, and nothing else: their memory is wanted, and
    /// the journal has room. No checkpoint tells of it; recovery finds what it replays in the segments already.
    pub fn relieve<I: Io>(&mut self, io: &mut I, logs: &mut Logs, upto: Lsn) {
        self.drain(io, logs, upto, Phase::Relieving);
    }

    fn drain<I: Io>(&mut self, io: &mut I, logs: &mut Logs, upto: Lsn, phase: Phase) {
        assert!(self.is_idle(), "one round at a time");
        self.upto = upto;
        self.failed = None;
        // Oldest need first: should the round be cut short, the oldest files are the ones that it helped to free. A log
        // whose segment was sealed is drained as well: until then its retention cannot work.
        let wants = |log: &crate::log::Log| {
            log.segments.iter().any(|segment| segment.sealed && segment.wants_drain())
        };
        let mut due: Vec<(Lsn, LogIndex)> = logs
            .iter()
            .filter_map(|(index, log)| {
                let needed = log.first_needed_lsn();
                (needed.is_some_and(|lsn| lsn <= upto) || wants(log)).then(|| (needed.unwrap_or(upto), index))
            })
            .collect();
        due.sort_unstable();
        self.queue = due.into_iter().map(|(_, index)| index).collect();
        self.phase = phase;
        self.fill_jobs(io, logs);
    }

    /// Goes on as far as it can; called once per turn. `unsubmitted` is the first record that the tail does not know
    /// of yet, be it in the open group or a chain of parts under way.
    pub fn advance<I: Io>(
        &mut self,
        io: &mut I,
        journal: &mut Journal,
        logs: &mut Logs,
        survivors: &mut impl Survivors<I>,
        unsubmitted: Lsn,
    ) -> Option<Ended> {
        loop {
            match &mut self.phase {
                Phase::Idle | Phase::Replacing(..) => return None,
                Phase::Relieving => {
                    self.fill_jobs(io, logs);
                    if self.jobs.iter().any(Option::is_some) {
                        return None;
                    }
                    self.phase = Phase::Idle;
                    return Some(self.failed.map_or(Ended::Relieved, |error| self.fail(io, error)));
                }
                Phase::Draining => {
                    self.fill_jobs(io, logs);
                    let moved = survivors.advance(io, journal);
                    if self.jobs.iter().any(Option::is_some) || moved == Ok(false) {
                        return None;
                    }
                    if let Some(error) = self.failed.or(moved.err()) {
                        survivors.give_up(io);
                        return Some(self.fail(io, error));
                    }
                    let upto = self.upto;
                    self.queue = logs
                        .iter()
                        .filter(|(_, log)| log.wants_carry(upto))
                        .map(|(index, _)| index)
                        .collect();
                    self.phase = Phase::Carrying;
                }
                Phase::Carrying => {
                    if journal.is_poisoned() {
                        return Some(self.fail(io, IoError::Cancelled));
                    }
                    if !carry(journal, logs, &mut self.queue, self.upto) {
                        if journal.is_in_flight() || journal.first_open_lsn() <= journal.last_lsn() {
                            return None; // The rest joins the next group.
                        }
                        // There is no memory or no file for it: what was drained makes room for the next round.
                        self.queue.clear();
                    }
                    let needed = logs.iter().filter_map(|(_, log)| log.first_needed_lsn()).min();
                    let lsn = journal.last_lsn();
                    let needed = needed.into_iter().chain(survivors.needed()).min();
                    let needed = needed.unwrap_or(lsn.next()).min(unsubmitted).min(lsn.next());
                    let checkpoint = Checkpoint {
                        lsn,
                        replay_lsn: needed,
                        generation: self.generation,
                        shard: self.shard,
                        partitions: logs.iter().map(|(_, log)| log.state()).collect(),
                        queues: survivors.state(),
                    };
                    self.taken += 1;
                    self.phase = Phase::Settling(Taken { lsn, needed, bytes: checkpoint.encode() });
                }
                Phase::Settling(taken) => {
                    if journal.is_poisoned() {
                        return Some(self.fail(io, IoError::Cancelled));
                    }
                    if journal.durable_lsn() < taken.lsn {
                        return None;
                    }
                    let bytes = std::mem::take(&mut taken.bytes);
                    let needed = taken.needed;
                    let replace = Replace::start(io, Token::new(self.owner, CHECKPOINT), &self.path, bytes);
                    self.phase = Phase::Replacing(replace, needed);
                }
            }
        }
    }

    /// Takes the completion of one of this trimmer's tokens.
    pub fn on_done<I: Io>(
        &mut self,
        io: &mut I,
        journal: &mut Journal,
        logs: &mut Logs,
        survivors: &mut impl Survivors<I>,
        token: Token,
        done: Result<DiskDone, IoError>,
    ) -> Option<Ended> {
        if token.id() == CHECKPOINT {
            let Phase::Replacing(replace, needed) = &mut self.phase else {
                panic!("no checkpoint is being written")
            };
            let needed = *needed;
            return match replace.step(io, token, done) {
                Ok(false) => None,
                Ok(true) => {
                    journal.files_mut().recycle(needed);
                    self.durable = (self.taken, needed);
                    survivors.kept(io);
                    self.phase = Phase::Idle;
                    Some(Ended::Done)
                }
                Err(error) => Some(self.fail(io, error)),
            };
        }
        let slot = token.id() as usize;
        let job = self.jobs.get_mut(slot).and_then(Option::as_mut).expect("a job waits for this");
        let progress = match logs.get_mut(job.log) {
            None => {
                job.drain.settle();
                Err(IoError::Cancelled) // The topic was deleted meanwhile.
            }
            Some(_) if job.failed.is_some() && done.is_ok() => {
                job.drain.settle();
                Ok(Progress::Going)
            }
            Some(log) => job.drain.on_done(io, log, &self.pool, token, done),
        };
        match progress {
            Ok(Progress::Finished) => {
                let job = self.jobs[slot].take().expect("it was there");
                self.failures.remove(&(job.log, job.drain.segment()));
                self.drained.push((job.log, job.drain.segment()));
            }
            Ok(Progress::Going | Progress::Starved) => {}
            Err(error) => job.failed = Some(job.failed.unwrap_or(error)),
        }
        if let Some(job) = &mut self.jobs[slot]
            && let Some(error) = job.failed
            && job.drain.in_flight() == 0
        {
            job.drain.give_up(io);
            let deleted = logs.get(job.log).is_none();
            if !deleted {
                // A full disk heals, and so does want of memory; anything else puts the file itself in doubt.
                if !matches!(error, IoError::NoSpace | IoError::Cancelled) {
                    *self.failures.entry((job.log, job.drain.segment())).or_default() += 1;
                }
                self.failed = Some(error);
            }
            self.jobs[slot] = None;
        }
        self.fill_jobs(io, logs);
        None
    }

    /// Keeps the job slots busy.
    fn fill_jobs<I: Io>(&mut self, io: &mut I, logs: &mut Logs) {
        if !matches!(self.phase, Phase::Draining | Phase::Relieving) {
            return;
        }
        for slot in 0..self.jobs.len() {
            let token = Token::new(self.owner, slot as u64);
            if let Some(job) = &mut self.jobs[slot] {
                if let Some(log) = logs.get_mut(job.log) {
                    job.drain.resume(io, log, &self.pool, token);
                }
                continue;
            }
            while self.jobs[slot].is_none() && self.failed.is_none() {
                // A log's segments are drained in order, by one job at a time.
                let busy = |index: &LogIndex| self.jobs.iter().flatten().any(|job| job.log == *index);
                let Some(at) = self.queue.iter().position(|index| !busy(index)) else { break };
                let index = self.queue[at];
                let drain = {
                    let failed = |segment| self.failures.contains_key(&(index, segment));
                    let log = logs.get(index).filter(|log| log.wants_drain(self.upto));
                    log.and_then(|log| Drain::start(io, log, token, failed))
                };
                match drain {
                    // It stays in its place: it may have another segment to drain.
                    Some(drain) => self.jobs[slot] = Some(Job { log: index, drain, failed: None }),
                    None => drop(self.queue.remove(at)),
                }
            }
        }
    }

    fn fail<I: Io>(&mut self, io: &I, error: IoError) -> Ended {
        self.phase = Phase::Idle;
        self.queue.clear();
        self.not_before = io.now() + RETRY;
        // A full disk heals; a segment that cannot be flushed does not.
        if error != IoError::NoSpace
            && self.failures.values().any(|count| *count >= SEGMENT_FLUSH_FAILURES_MAX)
        {
            return Ended::Poison;
        }
        Ended::Failed(error)
    }
}

/// Puts the remainders of the queued logs into the open group. Says whether all of them are.
fn carry(journal: &mut Journal, logs: &mut Logs, queue: &mut VecDeque<LogIndex>, upto: Lsn) -> bool {
    while let Some(&index) = queue.front() {
        if let Some(log) = logs.get_mut(index).filter(|log| log.wants_carry(upto))
            && let Some(rest) = remainder(log, upto)
        {
            if !journal.fits(rest.bytes.len(), Claim::Internal) {
                return false;
            }
            let header = RecordHeader {
                kind: RecordKind::Carry,
                partition: log.id,
                segment: rest.segment,
                position: rest.from,
                aux: u64::from(rest.start),
                len: rest.bytes.len(),
            };
            let placed = journal.append(&header, &rest.bytes);
            log.carried = Some(Carried {
                segment: rest.segment,
                from: rest.from,
                to: rest.from + rest.bytes.len() as u32,
                lsn: placed.lsn,
            });
        }
        queue.pop_front();
    }
    true
}
