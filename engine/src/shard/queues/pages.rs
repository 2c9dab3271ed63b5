//! The indexes of long queues, as far as memory is not to hold them: pages in a file of the shard's own.
//!
//! A page goes out while the indexes take more than they may, from the queue whose index takes the most; it comes back a
//! little before its messages are delivered. Only messages are paged out whose bytes stay where they are: in files of
//! survivors, not in the journal. What is left in memory of those in the journal is bounded by the journal's size.
//!
//! **Durability.** The file holds nothing that recovery needs, which makes the indexes anew. It is never flushed, and a start
//! removes it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::groups::stays;
use super::{Index, Queues};
use crate::buffer::{Block, Pool, Slice};
use crate::error::{Fatal, IoError};
use crate::io::{Blocking, DiskDone, FileId, Io, OpenMode, Token};
use crate::limits::{
    BLOCK_BYTES, PAGE_CHUNKS, PAGE_CHUNKS_AHEAD, PAGE_SLOT_BYTES, PAGED_QUEUE_BYTES_MIN, PAGES_IN_FLIGHT,
};
use crate::queue::{PageId, Queue};
use crate::shard::tokens;
use crate::time::Nanos;

/// How long a queue is left alone that has nothing to be paged out, and the file after an error.
const REST: Nanos = Nanos::from_millis(10);

/// The file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    No,
    Opening,
    Yes(FileId),
}

/// A page that is out.
struct Page {
    slot: u64,
    len: usize,
    /// Its bytes, until they are written.
    held: Option<Slice>,
}

/// What is being done to the file.
enum Operation {
    Open,
    /// Writing to a slot; the page, if it is not back already.
    Write(u64, Option<(Index, PageId)>),
    Read(Index, PageId),
}

/// See the module.
pub struct Paging {
    path: String,
    staging: Pool,
    read: Pool,
    file: Open,
    /// Slots of the file that have been used, and those of them that are free.
    slots: u64,
    vacant: Vec<u64>,
    pages: BTreeMap<(Index, PageId), Page>,
    wanted: VecDeque<(Index, PageId)>,
    in_flight: BTreeMap<u64, Operation>,
    last: u64,
    /// Bytes that all indexes take, and may take.
    bytes: usize,
    bytes_max: usize,
    /// Queues with long indexes, by what these take; and those that have nothing to be paged out, until then.
    long: BTreeSet<(usize, Index)>,
    resting: VecDeque<(Nanos, Index)>,
    /// Nothing goes out before: the file has failed.
    not_before: Nanos,
    /// The next page to come back waits for memory.
    starved: bool,
}

impl Paging {
    /// Nothing is paged out. The file is `path`; the indexes may take so many bytes.
    pub fn new(path: String, staging: Pool, read: Pool, bytes_max: u64) -> Paging {
        Paging {
            path,
            staging,
            read,
            file: Open::No,
            slots: 0,
            vacant: Vec::new(),
            pages: BTreeMap::new(),
            wanted: VecDeque::new(),
            in_flight: BTreeMap::new(),
            last: 0,
            bytes: 0,
            bytes_max: bytes_max as usize,
            long: BTreeSet::new(),
            resting: VecDeque::new(),
            not_before: Nanos::ZERO,
            starved: false,
        }
    }

    /// A queue's index takes so much now, and took so much before.
    pub fn resized(&mut self, index: Index, before: usize, now: usize) {
        self.bytes = self.bytes - before + now;
        if before >= PAGED_QUEUE_BYTES_MIN {
            self.long.remove(&(before, index));
        }
        if now >= PAGED_QUEUE_BYTES_MIN && !self.resting.iter().any(|(_, resting)| *resting == index) {
            self.long.insert((now, index));
        }
    }

    /// The file, if it is open.
    pub fn file_id(&self) -> Option<FileId> {
        if let Open::Yes(file) = self.file { Some(file) } else { None }
    }

    fn is_over(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// Whether there is nothing to do.
    pub fn is_at_rest(&self) -> bool {
        self.wanted.is_empty() && (!self.is_over() || self.long.is_empty())
    }

    /// Whether the next page to come back waits for memory.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// When there is something to do although nothing happens.
    pub fn due(&self) -> Option<Nanos> {
        let rested = self.resting.front().map(|(until, _)| *until).filter(|_| self.is_over());
        let failed = Some(self.not_before).filter(|_| !self.is_at_rest());
        rested.into_iter().chain(failed).min()
    }

    /// Chunks of a page, and chunks that stay of each queue: fewer, the more long queues share the memory.
    fn shape(&self) -> (usize, usize) {
        let share = self.bytes_max / (self.long.len() + self.resting.len()).max(1);
        let size = (share / PAGED_QUEUE_BYTES_MIN).clamp(2, PAGE_CHUNKS);
        (size, size * PAGE_CHUNKS_AHEAD / PAGE_CHUNKS)
    }

    fn slot(&mut self) -> u64 {
        self.vacant.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    fn token(&mut self, operation: Operation) -> Token {
        self.last += 1;
        self.in_flight.insert(self.last, operation);
        Token::new(tokens::QUEUE_PAGE, self.last)
    }

    /// A page's bytes, if it is being written still: it is out no more.
    fn take_held(&mut self, key: (Index, PageId)) -> Option<(Slice, usize)> {
        let held = self.pages.get_mut(&key).expect("a page is asked for that is out").held.take()?;
        let page = self.pages.remove(&key).expect("it was just there");
        // Its slot is free when the write has ended.
        for operation in self.in_flight.values_mut() {
            if let Operation::Write(slot, back) = operation
                && *slot == page.slot
            {
                *back = None;
            }
        }
        Some((held, page.len))
    }

    /// Whether nothing of a queue is out any more, in the file or on its way.
    pub fn has_pages_of(&self, index: Index) -> bool {
        self.pages.range((index, PageId(0))..=(index, PageId(u64::MAX))).next().is_some()
    }

    /// Takes a page of a queue out: what is to be written. `None` if it has none, or there is no memory for it.
    fn take_out(
        &mut self,
        index: Index,
        machine: &mut Queue,
        mut block: Block,
    ) -> Option<(PageId, Slice, usize)> {
        let (size, ahead) = self.shape();
        machine.page_by(size, ahead);
        let mut bytes = Vec::with_capacity(PAGE_SLOT_BYTES);
        let page = machine.page_out(stays, &mut bytes)?;
        assert!(!self.pages.contains_key(&(index, page)), "a page is out once");
        block.push(&bytes);
        block.push_zeros(bytes.len().next_multiple_of(BLOCK_BYTES) - bytes.len());
        Some((page, block.freeze(), bytes.len()))
    }

    /// Puts a page of a queue into the file; `false` if there is none to be put there.
    fn page_out_now<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        index: Index,
        machine: &mut Queue,
    ) -> Result<bool, Fatal> {
        let Some(block) = self.staging.block(PAGE_SLOT_BYTES) else { return Ok(false) };
        let Some((page, bytes, len)) = self.take_out(index, machine, block) else { return Ok(false) };
        let file = if let Open::Yes(file) = self.file {
            file
        } else {
            let (file, _) = disk.open(&self.path, OpenMode::Direct)?;
            self.file = Open::Yes(file);
            file
        };
        let slot = self.slot();
        disk.write(file, &self.path, slot * PAGE_SLOT_BYTES as u64, bytes)?;
        self.pages.insert((index, page), Page { slot, len, held: None });
        Ok(true)
    }

    /// Brings a page back to its queue.
    pub fn page_in_now<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        index: Index,
        machine: &mut Queue,
        page: PageId,
    ) -> Result<(), Fatal> {
        let Page { slot, len, .. } =
            self.pages.remove(&(index, page)).expect("a page is asked for that is out");
        let Open::Yes(file) = self.file else { panic!("pages are in a file that is open") };
        let at = slot * PAGE_SLOT_BYTES as u64;
        let block = disk.read(file, &self.path, at, len.next_multiple_of(BLOCK_BYTES))?;
        let bytes = block.filled().get(..len).unwrap_or_default();
        machine.page_in(page, bytes).map_err(|damage| Fatal::Corrupt {
            file: self.path.clone(),
            position: at + damage.position,
            what: damage.what.to_owned(),
        })?;
        self.vacant.push(slot);
        Ok(())
    }

    /// Counts queues in again that have rested.
    fn end_rests(&mut self, now: Nanos) -> Vec<Index> {
        let mut rested = Vec::new();
        while let Some((_, index)) = self.resting.pop_front_if(|(until, _)| *until <= now) {
            rested.push(index);
        }
        rested
    }
}

impl Queues {
    /// Bytes of memory that indexes take, and pages that are out.
    pub fn index_usage(&self) -> (usize, usize) {
        (self.paging.bytes, self.paging.pages.len())
    }

    /// A queue needs a page.
    pub(super) fn want_page(&mut self, index: Index, page: PageId) {
        if let Some((bytes, len)) = self.paging.take_held((index, page)) {
            self.page_in(index, page, &bytes[..len]);
        } else {
            self.paging.wanted.push_back((index, page));
        }
    }

    /// Gives a page back to its queue; says whether it was sound.
    fn page_in(&mut self, index: Index, page: PageId, bytes: &[u8]) -> bool {
        let entry = self.entry(index);
        let sound = entry.machine.page_in(page, bytes);
        if let Err(damage) = sound {
            let path = &self.paging.path;
            tracing::error!(
                path,
                position = damage.position,
                what = damage.what,
                "a page of a queue's index is damaged: its messages can be had after a restart"
            );
            return false;
        }
        self.resize(index);
        self.touch(index);
        true
    }

    /// Notes what a queue's index takes.
    pub(super) fn resize(&mut self, index: Index) {
        let entry = self.entry(index);
        let now = entry.machine.index_bytes();
        let before = std::mem::replace(&mut entry.index_bytes, now);
        if before != now {
            self.paging.resized(index, before, now);
        }
    }

    /// Reads pages that are wanted, and writes pages while the indexes take more than they may.
    pub fn page<I: Io>(&mut self, io: &mut I) {
        self.paging.starved = false;
        if self.paging.is_at_rest() && self.paging.due().is_none() {
            return;
        }
        let now = io.now();
        if now < self.paging.not_before {
            return;
        }
        self.end_rests(now);
        let Open::Yes(file) = self.paging.file else {
            if self.paging.is_over() && self.paging.file == Open::No {
                self.paging.file = Open::Opening;
                let token = self.paging.token(Operation::Open);
                io.open(token, &self.paging.path, OpenMode::Direct);
            }
            return;
        };
        while self.paging.in_flight.len() < PAGES_IN_FLIGHT
            && let Some(&(index, page)) = self.paging.wanted.front()
        {
            let Page { slot, len, .. } = self.paging.pages[&(index, page)];
            let len = len.next_multiple_of(BLOCK_BYTES);
            let Some(block) = self.paging.read.block(len) else {
                self.paging.starved = true;
                return;
            };
            self.paging.wanted.pop_front();
            let token = self.paging.token(Operation::Read(index, page));
            io.read(token, file, slot * PAGE_SLOT_BYTES as u64, block, len);
        }
        while self.paging.in_flight.len() < PAGES_IN_FLIGHT
            && self.paging.is_over()
            && let Some(&(_, index)) = self.paging.long.last()
        {
            let Some(block) = self.paging.staging.block(PAGE_SLOT_BYTES) else { return };
            let machine = &mut self.entries[index.0 as usize].as_mut().expect("it has an index").machine;
            if let Some((page, bytes, len)) = self.paging.take_out(index, machine, block) {
                let slot = self.paging.slot();
                let token = self.paging.token(Operation::Write(slot, Some((index, page))));
                io.write(token, file, slot * PAGE_SLOT_BYTES as u64, bytes.clone());
                self.paging.pages.insert((index, page), Page { slot, len, held: Some(bytes) });
                self.resize(index);
            } else {
                self.leave_alone(index, now);
            }
        }
    }

    /// Leaves a queue alone for a while that has nothing to be paged out.
    fn leave_alone(&mut self, index: Index, now: Nanos) {
        let bytes = self.entry(index).index_bytes;
        self.paging.long.remove(&(bytes, index));
        self.paging.resting.push_back((now + REST, index));
    }

    fn end_rests(&mut self, now: Nanos) {
        for index in self.paging.end_rests(now) {
            if self.entries[index.0 as usize].is_some() {
                let bytes = self.entry(index).index_bytes;
                self.paging.resized(index, bytes, bytes);
            }
        }
    }

    /// Pages out while the indexes take more than they may, before anything is served.
    pub(super) fn page_out_now<I: Io>(&mut self, disk: &mut Blocking<'_, I>) -> Result<(), Fatal> {
        if !self.paging.is_over() {
            return Ok(());
        }
        let now = disk.io().now();
        self.end_rests(now);
        while self.paging.is_over()
            && let Some(&(_, index)) = self.paging.long.last()
        {
            let machine = &mut self.entries[index.0 as usize].as_mut().expect("it has an index").machine;
            if self.paging.page_out_now(disk, index, machine)? {
                self.resize(index);
            } else {
                self.leave_alone(index, now);
            }
        }
        Ok(())
    }

    /// Something was done to the file of pages, or could not be.
    pub fn on_paged(&mut self, token: Token, now: Nanos, done: Result<DiskDone, IoError>) {
        let paging = &mut self.paging;
        match (paging.in_flight.remove(&token.id()).expect("it was under way"), done) {
            (Operation::Open, Ok(DiskDone::Opened(file, _))) => paging.file = Open::Yes(file),
            (Operation::Open, done) => {
                paging.file = Open::No;
                paging.failed(now, "open", done.err());
            }
            (Operation::Write(slot, None), _) => paging.vacant.push(slot),
            (Operation::Write(_, Some(key)), Ok(_)) => {
                let page = paging.pages.get_mut(&key).expect("it is not back");
                page.held = None;
            }
            (Operation::Write(slot, Some(key)), Err(error)) => {
                paging.failed(now, "write", Some(error));
                let (bytes, len) = paging.take_held(key).expect("it was not written");
                paging.vacant.push(slot);
                self.page_in(key.0, key.1, &bytes[..len]);
            }
            (Operation::Read(index, page), Ok(DiskDone::Read(block))) => {
                let Page { slot, len, .. } = paging.pages[&(index, page)];
                if self.page_in(index, page, block.filled().get(..len).unwrap_or_default()) {
                    self.paging.pages.remove(&(index, page));
                    self.paging.vacant.push(slot);
                }
            }
            (Operation::Read(index, page), done) => {
                // The bytes may be there all the same.
                paging.failed(now, "read", done.err());
                paging.wanted.push_back((index, page));
            }
        }
    }
}

impl Paging {
    fn failed(&mut self, now: Nanos, doing: &'static str, error: Option<IoError>) {
        self.not_before = now + REST;
        if let Some(error) = error.filter(|error| *error != IoError::Halted) {
            tracing::warn!(path = self.path, doing, %error, "pages of queues' indexes: it is tried again");
        }
    }
}
