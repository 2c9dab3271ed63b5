//! The work in the background: growing and trimming the journal, retention, removing files, watching the disk's space.

use std::collections::VecDeque;

use super::append::Waiting;
use super::request::Reply;
use super::{Requester, Shard, tokens};
use crate::buffer::Slice;
use crate::error::IoError;
use crate::format::partition::{SEGMENT_FILES, file_name};
use crate::io::{DiskDone, Io, Space, Token};
use crate::journal::{Ended, Grow};
use crate::limits::{BLOCK_BYTES, JOURNAL_FILES_ROOM, WARM_SLABS_MAX};
use crate::log::table::LogIndex;
use crate::time::Nanos;
use crate::types::Offset;

/// How often a shard looks around.
const TICK: Nanos = Nanos::from_millis(1_000);

/// A thing to be removed, not before its time.
#[derive(Debug)]
enum Removal {
    File(String),
    /// List it, remove what is in it, then itself.
    Directory(String),
    /// Empty by now.
    EmptyDirectory(String),
}

/// How soon reads that wait for memory look for it again.
const STARVED_TURNS: Nanos = Nanos::from_millis(10);

/// The state of a shard's background work.
pub(super) struct Maintenance {
    journal_directory: String,
    files_max: usize,
    grow: Option<Grow>,
    zeros: Option<Slice>,
    next_tick: Nanos,
    next_retention: Nanos,
    removals: VecDeque<(Nanos, Removal)>,
    removing: Option<Removal>,
    /// The question for free space is under way.
    asking: bool,
    /// What the last answer was, less what the journal has taken since.
    free_bytes: Option<u64>,
    /// The last answer itself.
    space: Option<Space>,
    /// Memory is being made ready.
    warming: bool,
    now: Nanos,
    delay: Nanos,
}

impl Maintenance {
    pub fn new(journal_directory: String, files: u64, delete_delay_ms: u64) -> Maintenance {
        Maintenance {
            journal_directory,
            files_max: (files as usize).max(JOURNAL_FILES_ROOM),
            grow: None,
            zeros: None,
            next_tick: Nanos::ZERO,
            next_retention: Nanos::ZERO,
            removals: VecDeque::new(),
            removing: None,
            asking: false,
            free_bytes: None,
            space: None,
            warming: false,
            now: Nanos::ZERO,
            delay: Nanos::from_millis(delete_delay_ms),
        }
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.grow.is_none() && self.removing.is_none() && !self.asking
    }

    /// When the next look is due.
    pub fn due(&self) -> Nanos {
        self.next_tick
    }

    /// Removes a segment's files once readers have had their time.
    pub fn remove_segment(&mut self, directory: &str, segment: Offset) {
        for (file, _) in SEGMENT_FILES {
            let path = format!("{directory}/{}", file_name(segment, file));
            self.removals.push_back((self.now + self.delay, Removal::File(path)));
        }
    }

    /// Forgets about files in a directory that is about to have another name: by its old one they would be another
    /// incarnation's.
    pub fn forget_removals(&mut self, directory: &str) {
        let inside = |path: &str| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
        self.removals.retain(|(_, removal)| !matches!(removal, Removal::File(path) if inside(path)));
    }

    /// Whether a file is being removed at this moment.
    pub fn is_removing(&self) -> bool {
        self.removing.is_some()
    }

    /// Removes a file that nobody reads.
    pub fn remove_file(&mut self, path: String) {
        self.removals.push_back((self.now, Removal::File(path)));
    }

    /// Removes a directory and what is in it, once readers have had their time.
    pub fn remove_directory(&mut self, path: &str) {
        self.removals.push_back((self.now + self.delay, Removal::Directory(path.to_owned())));
    }
}

impl<I: Io> Shard<I> {
    /// When this shard next wants a turn although nothing happens.
    pub fn next_turn_due(&self) -> Nanos {
        let due = self.maintenance.due().min(self.queues.next_due());
        if self.is_starved() { due.min(self.maintenance.now + STARVED_TURNS) } else { due }
    }

    /// Looks around: cheap unless something is due.
    pub(super) fn maintain(&mut self, io: &mut I) {
        let now = io.now();
        self.maintenance.now = now;
        self.keep_journal_room(io);
        self.keep_memory_ready(io);
        if now < self.maintenance.next_tick {
            return;
        }
        self.maintenance.next_tick = now + TICK;
        self.pools.give_back_unused();
        self.tail_budget.shrink(now);
        self.reads.forget_ahead(now);
        self.look_around(now, self.maintenance.free_bytes.unwrap_or(0));
        self.roll_old_segments(io);
        if now >= self.maintenance.next_retention {
            self.maintenance.next_retention = now + Nanos::from_millis(self.config.retention_check_ms);
            self.retain(io);
            self.hasten_departures(io);
        }
        self.settle_departures(io);
        self.scrub_tick(io, now);
        self.remove_next(io);
        if !std::mem::replace(&mut self.maintenance.asking, true) {
            io.space(Token::new(tokens::SPACE, 0));
        }
        // A sealed segment is moved to its file in any case: until then retention cannot work on it.
        let sealed =
            |log: &crate::log::Log| log.segments.iter().any(|held| held.sealed && held.wants_drain());
        if self.trim.may_start(now) && !self.is_poisoned() && self.logs.iter().any(|(_, log)| sealed(log)) {
            self.trim.start(io, &mut self.logs, &mut self.queues, crate::types::Lsn::ZERO);
        }
    }

    pub(super) fn tell_space(&mut self, who: Requester) {
        self.reply(who, Reply::DiskSpace(self.maintenance.space));
    }

    /// Whether there is space for another journal file, once that is known. What must stay free is for settlements,
    /// checkpoints and metadata.
    pub(super) fn may_journal_grow(&self) -> Option<bool> {
        let least = self.config.disk_free_min_bytes.saturating_mul(2);
        Some(self.maintenance.free_bytes? >= self.journal.files().file_bytes() + least)
    }

    /// Grows the journal while it may, and starts a round of trimming when it is time.
    fn keep_journal_room(&mut self, io: &mut I) {
        let files = self.journal.files();
        let (total, free, used) = (files.total(), files.free(), files.used().len());
        let file_bytes = files.file_bytes();
        let has_space = self.may_journal_grow() == Some(true);
        // A batch in parts may need more files than the journal is to have: then it gets them.
        let parts = self.backlog.front().and_then(Waiting::parts_bytes);
        let short = parts.is_some_and(|bytes| free < self.journal.files_for_parts(bytes));
        let too_few = parts.is_some_and(|bytes| total <= self.journal.files_for_parts(bytes));
        let remainders = self.logs.len() * (BLOCK_BYTES + 64);
        let reserve = 1 + remainders / files.file_bytes() as usize;
        let wants_more = total < self.maintenance.files_max || free < reserve.min(total / 4 + 1);
        let half = files.last_lsn_of_oldest(used.div_ceil(2));
        self.journal.set_reserve(reserve.min(total / 2));
        if self.is_poisoned() {
            return;
        }
        if (wants_more && free * 2 <= total || too_few)
            && self.maintenance.grow.is_none()
            && !self.disk_full
            && has_space
            && let Some(zeros) = self.zeros()
        {
            self.maintenance.free_bytes = self.maintenance.free_bytes.map(|free| free - file_bytes);
            let token = Token::new(tokens::GROW, 0);
            let directory = self.maintenance.journal_directory.clone();
            self.maintenance.grow = Some(Grow::start(io, token, &directory, self.journal.files(), zeros));
        }
        if !self.trim.may_start(io.now()) {
            return;
        }
        let crowded = free * 2 <= total && total >= self.maintenance.files_max || free <= reserve || short;
        let relief = self.is_tail_pressed().then(|| self.half_of_tail());
        let relief = relief.filter(|upto| self.logs.iter().any(|(_, log)| log.wants_drain(*upto)));
        if crowded && let Some(upto) = half.or(relief) {
            self.trim.start(io, &mut self.logs, &mut self.queues, upto);
        } else if let Some(upto) = relief {
            self.trim.relieve(io, &mut self.logs, upto);
        }
    }

    /// Has a helper touch new memory before it is needed: whoever is first to touch it is held up, and this thread would
    /// hold up everybody. When more is needed than helpers can touch, the rest is touched here.
    fn keep_memory_ready(&mut self, io: &mut I) {
        if !self.maintenance.warming
            && let Some(pool) = self.pools.short()
        {
            self.maintenance.warming = true;
            let pool = pool.clone();
            let warm = move || {
                pool.replenish(WARM_SLABS_MAX);
                Box::new(()) as Box<dyn std::any::Any + Send>
            };
            io.offload(Token::new(tokens::WARM, 0), Box::new(warm));
        }
    }

    /// The helper has done so.
    pub fn warmed(&mut self) {
        self.maintenance.warming = false;
    }

    fn zeros(&mut self) -> Option<Slice> {
        if self.maintenance.zeros.is_none() {
            let mut block = self.pools.staging.block(Grow::zeros_bytes())?;
            block.push_zeros(Grow::zeros_bytes());
            self.maintenance.zeros = Some(block.freeze());
        }
        self.maintenance.zeros.clone()
    }

    fn roll_old_segments(&mut self, io: &mut I) {
        if self.chain_lsn().is_some() {
            return; // A batch in parts has its place already.
        }
        let now = io.wall_ms();
        let due: Vec<LogIndex> =
            self.logs.iter().filter(|(_, log)| log.is_roll_due(now)).map(|(index, _)| index).collect();
        for index in due {
            if let Some(log) = self.logs.get_mut(index) {
                log.roll(now);
            }
        }
    }

    fn retain(&mut self, io: &mut I) {
        if self.is_poisoned() {
            return;
        }
        let now = io.wall_ms();
        let due: Vec<(LogIndex, Offset)> =
            self.logs.iter().filter_map(|(index, log)| Some((index, log.retention_start(now)?))).collect();
        for (index, start) in due {
            self.move_log_start(index, start, None);
        }
    }

    fn remove_next(&mut self, io: &mut I) {
        let now = self.maintenance.now;
        if self.maintenance.removing.is_some() {
            return;
        }
        let Some((_, removal)) = self.maintenance.removals.pop_front_if(|(due, _)| *due <= now) else {
            return;
        };
        let token = Token::new(tokens::REMOVE, 0);
        match &removal {
            Removal::File(path) | Removal::EmptyDirectory(path) => io.unlink(token, path),
            Removal::Directory(path) => io.list(token, path),
        }
        self.maintenance.removing = Some(removal);
    }

    pub(super) fn on_maintenance(&mut self, io: &mut I, token: Token, done: Result<DiskDone, IoError>) {
        match token.owner() {
            tokens::GROW => self.on_grow(io, token, done),
            tokens::REMOVE => self.on_removed(io, done),
            tokens::SPACE => self.on_space(done),
            owner => unreachable!("owner {owner} is not maintenance"),
        }
    }

    fn on_grow(&mut self, io: &mut I, token: Token, done: Result<DiskDone, IoError>) {
        let Some(grow) = &mut self.maintenance.grow else { return };
        match grow.step(io, token, done) {
            Ok(None) => return,
            Ok(Some(slot)) => self.journal.files_mut().add(slot),
            Err(IoError::NoSpace) => self.disk_full = true,
            Err(error) => tracing::warn!(shard = self.id.0, %error, "the journal could not grow"),
        }
        self.maintenance.grow = None;
        self.maintenance.zeros = None;
    }

    fn on_removed(&mut self, io: &mut I, done: Result<DiskDone, IoError>) {
        let Some(removal) = self.maintenance.removing.take() else { return };
        match (removal, done) {
            (Removal::Directory(path), Ok(DiskDone::Names(names))) => {
                // In front of everything else, so that the directory is empty when its own turn comes.
                self.maintenance.removals.push_front((Nanos::ZERO, Removal::EmptyDirectory(path.clone())));
                for entry in names {
                    let file = Removal::File(format!("{path}/{}", entry.name));
                    self.maintenance.removals.push_front((Nanos::ZERO, file));
                }
            }
            (_, Ok(_) | Err(IoError::NotFound)) => {}
            (removal, Err(error)) => {
                tracing::warn!(?removal, %error, "a deleted file could not be removed; the next start will");
            }
        }
        self.remove_next(io);
    }

    /// Refuses appends while there is less space than there must be, and takes them again when there is twice that.
    fn on_space(&mut self, done: Result<DiskDone, IoError>) {
        self.maintenance.asking = false;
        let Ok(DiskDone::Space(space)) = done else { return };
        let free = space.free_bytes;
        self.maintenance.space = Some(space);
        self.maintenance.free_bytes = Some(free);
        let least = self.config.disk_free_min_bytes;
        if !self.disk_full && free < least {
            tracing::error!(
                shard = self.id.0,
                free,
                least,
                "the disk is full: nothing is stored until there is space"
            );
            self.disk_full = true;
        } else if self.disk_full && free >= least.saturating_mul(2) {
            tracing::info!(shard = self.id.0, free, "the disk has space again");
            self.disk_full = false;
        }
    }

    pub(super) fn on_trim_ended(&mut self, io: &mut I, ended: Option<Ended>) {
        for (log, segment) in self.trim.take_drained() {
            self.reads.readers.forget(log, segment);
        }
        ended.inspect(|ended| self.observer.trimmed(*ended));
        match ended {
            None | Some(Ended::Failed(IoError::Halted | IoError::Cancelled)) => {}
            Some(Ended::Relieved) => {
                self.evict();
                self.drain_backlog(io);
            }
            Some(Ended::Done) => {
                for path in self.queues.take_dead() {
                    self.maintenance.remove_file(path);
                }
                self.evict();
                self.drain_backlog(io);
            }
            Some(Ended::Failed(IoError::NoSpace)) => {
                tracing::error!(shard = self.id.0, "no space is left to move the journal to segments");
                self.disk_full = true;
            }
            Some(Ended::Failed(error)) => {
                tracing::error!(shard = self.id.0, %error, "the journal could not be trimmed; trying again");
            }
            Some(Ended::Poison) => {
                tracing::error!(
                    shard = self.id.0,
                    "segments fail to flush: this shard stores nothing any more"
                );
                self.poison(io);
            }
        }
    }
}
