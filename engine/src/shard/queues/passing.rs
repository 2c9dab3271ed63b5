//! Messages that are not kept over a restart: in memory, and while that is short, in files of the shard's own.
//!
//! They lie in groups like those of the journal, one behind the other in slabs. A group is filled turn by turn; what a turn has
//! added can be read from the end of that turn on. When more than half of the memory is taken, the oldest full groups that
//! are still wanted are written to a file and forgotten here, and are read back like any other. A publisher for whose message
//! there is no memory waits.
//!
//! **Durability.** None: the files are never flushed, and a start removes them.

use std::collections::{BTreeMap, VecDeque};

use super::Queues;
use super::groups::{GroupKey, Groups, Site};
use crate::buffer::{Block, Pool, Slice};
use crate::error::IoError;
use crate::format::journal::{
    GROUP_HEADER_BYTES, GroupPlace, RECORD_HEADER_BYTES, RecordHeader, encode_record, record_bytes, seal,
};
use crate::io::{DiskDone, FileId, Io, OpenMode, Token};
use crate::limits::{
    BLOCK_BYTES, GROUP_BYTES_MAX, MESSAGE_FILE_BYTES, PASSING_SLAB_BYTES, PASSING_WRITES_IN_FLIGHT,
};
use crate::queue::Locator;
use crate::shard::tokens;
use crate::time::Nanos;
use crate::types::{FileEpoch, Lsn};

/// How long nothing is written after an error.
const RETRY: Nanos = Nanos::from_millis(500);
/// What tells these files from those of survivors among the files that messages are counted in.
const PASSING: u64 = 1 << 63;

/// The group that is being filled.
struct Open {
    key: GroupKey,
    block: Block,
    /// What earlier turns have added.
    frozen: Option<Slice>,
    records: u32,
}

/// What is being done.
enum Operation {
    Open(u64),
    Write(GroupKey, u32, Site),
}

/// See the module.
pub struct Passing {
    /// What the files' names begin with.
    path: String,
    pool: Pool,
    staging: Pool,
    open: Option<Open>,
    /// Full groups, the oldest first, and how many records each has.
    full: VecDeque<(GroupKey, u32)>,
    files: BTreeMap<u64, FileId>,
    /// The file that is written to, and how far.
    current: Option<(u64, u64)>,
    last_file: u64,
    groups_written: u64,
    names: u64,
    in_flight: BTreeMap<u64, Operation>,
    last: u64,
    not_before: Nanos,
}

impl Passing {
    /// Nothing is here. Memory comes from `pool`; files have names that begin with `path`.
    pub fn new(path: String, pool: Pool, staging: Pool) -> Passing {
        Passing {
            path,
            pool,
            staging,
            open: None,
            full: VecDeque::new(),
            files: BTreeMap::new(),
            current: None,
            last_file: 0,
            groups_written: 0,
            names: 0,
            in_flight: BTreeMap::new(),
            last: 0,
            not_before: Nanos::ZERO,
        }
    }

    /// A name for a message in pieces, which no message in the journal has.
    pub fn name(&mut self) -> u64 {
        self.names += 1;
        self.names | 1 << 62
    }

    /// Whether memory is so short that groups are to be written.
    fn is_pressed(&self) -> bool {
        let usage = self.pool.usage();
        usage.in_use > usage.limit / 2
    }

    /// Whether memory is on the way to be short.
    pub fn is_filling(&self) -> bool {
        let usage = self.pool.usage();
        usage.in_use > usage.limit / 4
    }

    /// Whether there is nothing to do.
    pub fn is_at_rest(&self) -> bool {
        self.files.is_empty() && (self.full.is_empty() || !self.is_pressed())
    }

    /// When to try again after an error.
    pub fn due(&self) -> Option<Nanos> {
        Some(self.not_before).filter(|_| self.is_pressed() && !self.full.is_empty())
    }

    /// Whether a record with this payload can be added, after the group being filled has been closed if it is full.
    pub fn fits(&mut self, groups: &mut Groups, payload: usize) -> bool {
        let needed = record_bytes(payload);
        if let Some(open) = &self.open {
            let filled = open.frozen.as_ref().map_or(0, |frozen| frozen.len()) + open.block.len();
            // A group that nobody wants any more is given up, and another begins behind it.
            let begins = if groups.bytes(open.key).is_none() { GROUP_HEADER_BYTES } else { 0 };
            if open.block.spare() >= needed + begins && filled + needed <= GROUP_BYTES_MAX {
                return true;
            }
            self.freeze(groups);
            if let Some(open) = self.open.take()
                && groups.drop_unwanted(open.key)
            {
                self.full.push_back((open.key, open.records));
            }
        }
        let Some(mut block) = self.pool.block(PASSING_SLAB_BYTES.max(GROUP_HEADER_BYTES + needed)) else {
            return false;
        };
        block.push_zeros(GROUP_HEADER_BYTES);
        self.open = Some(Open { key: groups.open_passing(), block, frozen: None, records: 0 });
        true
    }

    /// Adds a record, after [`Passing::fits`] has said that it can be, of a message that so many queues have.
    pub fn append<'a>(
        &mut self,
        groups: &mut Groups,
        header: &RecordHeader,
        payload: impl Iterator<Item = &'a [u8]>,
        (queues, bytes): (u32, u64),
    ) -> Locator {
        let open = self.open.as_mut().expect("fits() made one");
        if groups.bytes(open.key).is_none() {
            drop(open.block.split_frozen());
            open.block.push_zeros(GROUP_HEADER_BYTES);
            (open.key, open.frozen, open.records) = (groups.open_passing(), None, 0);
        }
        let position = open.frozen.as_ref().map_or(0, |frozen| frozen.len()) + open.block.len();
        open.block.push(&encode_record(header));
        payload.for_each(|piece| open.block.push(piece));
        open.block.push_zeros(record_bytes(header.len) - RECORD_HEADER_BYTES - header.len);
        open.records += 1;
        groups.place_passing(open.key, position, queues, bytes)
    }

    /// Lets what was added be read.
    pub fn freeze(&mut self, groups: &mut Groups) {
        let Some(open) = self.open.as_mut().filter(|open| !open.block.is_empty() && open.records > 0) else {
            return;
        };
        let new = open.block.split_frozen();
        let all = match &open.frozen {
            Some(frozen) => frozen.joined(&new),
            None => new,
        };
        open.frozen = Some(all.clone());
        groups.fill(open.key, all);
    }

    fn token(&mut self, operation: Operation) -> Token {
        self.last += 1;
        self.in_flight.insert(self.last, operation);
        Token::new(tokens::QUEUE_PASSING, self.last)
    }

    /// A group as it is written: with its header.
    fn sealed(&self, bytes: &Slice, records: u32, first_lsn: Lsn) -> Option<Slice> {
        let padded = bytes.len().next_multiple_of(BLOCK_BYTES);
        let mut block = self.staging.block(padded)?;
        block.push(bytes);
        block.push_zeros(padded - bytes.len());
        let place = GroupPlace {
            previous_crc: 0,
            file_epoch: FileEpoch(0),
            first_lsn,
            durable_lsn: Lsn::ZERO,
            key: 0,
        };
        seal(block.filled_mut(), bytes.len(), records, &place);
        Some(block.freeze())
    }

    /// Files that nobody wants anything of any more.
    fn take_dead<I: Io>(&mut self, io: &mut I, groups: &Groups, dead: &mut Vec<String>) {
        let busy = |number: u64| {
            let writes = |operation: &Operation| matches!(operation, Operation::Write(_, _, site) if site.store == number | PASSING);
            self.current.is_some_and(|(current, _)| current == number)
                || groups.is_store_wanted(number | PASSING)
                || self.in_flight.values().any(writes)
        };
        let gone: Vec<u64> = self.files.keys().copied().filter(|number| !busy(*number)).collect();
        for number in gone {
            if let Some(file) = self.files.remove(&number) {
                io.close(file);
                dead.push(format!("{}{number}", self.path));
            }
        }
    }
}

impl Queues {
    /// Writes full groups while memory is short; gives the files that can be removed.
    pub fn pass<I: Io>(&mut self, io: &mut I) -> Vec<String> {
        let (passing, groups) = (&mut self.passing, &mut self.groups);
        let mut dead = Vec::new();
        if passing.is_at_rest() || io.now() < passing.not_before {
            return dead;
        }
        while passing.is_pressed() && passing.in_flight.len() < PASSING_WRITES_IN_FLIGHT {
            let Some(&(key, records)) = passing.full.front() else { break };
            let Some(bytes) = groups.resident(key).cloned() else {
                passing.full.pop_front();
                continue;
            };
            let Some((number, at)) = passing.current else {
                if !passing.in_flight.values().any(|operation| matches!(operation, Operation::Open(_))) {
                    passing.last_file += 1;
                    let number = passing.last_file;
                    let token = passing.token(Operation::Open(number));
                    io.open(token, &format!("{}{number}", passing.path), OpenMode::Direct);
                }
                break;
            };
            passing.groups_written += 1;
            let first_lsn = Lsn(passing.groups_written);
            let Some(sealed) = passing.sealed(&bytes, records, first_lsn) else { break };
            let file = passing.files[&number];
            let site = Site { file, at, len: sealed.len(), first_lsn, store: number | PASSING };
            let end = at + sealed.len() as u64;
            passing.current = (end < MESSAGE_FILE_BYTES).then_some((number, end));
            passing.full.pop_front();
            let token = passing.token(Operation::Write(key, records, site));
            io.write(token, file, at, sealed);
        }
        while passing.full.pop_front_if(|(key, _)| groups.resident(*key).is_none()).is_some() {}
        // A file in which nobody wants anything is not written on.
        let stays = |number: u64| passing.is_pressed() || groups.is_store_wanted(number | PASSING);
        passing.current = passing.current.filter(|(number, _)| stays(*number));
        if self.reading.is_idle() {
            passing.take_dead(io, groups, &mut dead);
        }
        dead
    }

    /// Something was done to a file of messages that pass, or could not be.
    pub fn on_passed(&mut self, token: Token, now: Nanos, done: Result<DiskDone, IoError>) {
        let passing = &mut self.passing;
        match (passing.in_flight.remove(&token.id()).expect("it was under way"), done) {
            (Operation::Open(number), Ok(DiskDone::Opened(file, _))) => {
                passing.files.insert(number, file);
                passing.current = Some((number, 0));
            }
            (Operation::Write(key, _, site), Ok(_)) => self.groups.moved_out(key, site),
            (operation, done) => {
                if let Some(error) = done.err().filter(|error| *error != IoError::Halted) {
                    tracing::warn!(path = passing.path, %error, "messages that are not kept cannot be written to make room: it is tried again");
                }
                passing.not_before = now + RETRY;
                passing.current = None;
                if let Operation::Write(key, records, _) = operation {
                    passing.full.push_front((key, records));
                }
            }
        }
    }
}
