//! Reading what is no longer in the tail: index, then batches, then a chunk of bytes that have been checked.
//!
//! An index entry is a hint. Whatever it says, the walk starts at a batch that parses, the offset that was asked for is
//! looked for batch by batch, and every batch that is given out whole has had its checksum verified here.
//!
//! Logs are read past the page cache: most history is read once, and through the cache its pages would be allocated and
//! copied on this thread's time, by which every commit of the shard would wait. What is read again and again is mapped.

use std::cell::RefCell;
use std::rc::Rc;

use super::Log;
use super::index::{boundary_in_file, floor_in_file, time_floor_in_file};
use super::maps::Look;
use super::paths;
use super::plan::{Chunk, Range};
use super::readers::Readers;
use super::scanner::Scanner;
use super::segment::Segment;
use super::table::LogIndex;
use super::verified::Verified;
use crate::buffer::{Block, Pool, Slice};
use crate::error::{IoError, Refusal};
use crate::format::batch;
use crate::format::partition::SegmentFile;
use crate::format::sum::Sum;
use crate::io::{DiskDone, FileId, Io, OpenMode, Token};
use crate::limits::{BLOCK_BYTES, SUM_BLOCK_BYTES};
use crate::types::Offset;

/// What a cold read is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// Whole batches from the one that holds this offset on.
    Batches {
        /// The offset.
        offset: Offset,
        /// Bytes at most, but one batch at least.
        max_bytes: u32,
    },
    /// A planned stretch's next chunk.
    Load(Range),
    /// The first batch with a timestamp of at least this.
    Time(i64),
}

/// What a cold read comes to.
#[derive(Debug)]
pub enum Outcome {
    /// A chunk, and the plan for what follows it.
    Chunk(Chunk),
    /// The batch that was looked for by time.
    Batch(Slice),
    /// The segment's file does not hold it: what follows in the tail, or the next segment, may.
    Passed,
}

/// What it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    OpenIndex(SegmentFile),
    ReadIndex(SegmentFile),
    OpenSum,
    ReadSum,
    /// Nothing: what comes before the first read was at hand.
    Ready,
    OpenLog,
    Read,
}

/// A cold read under way. One operation at a time; feed every completion of its token to [`Cold::on_done`].
pub struct Cold {
    log: LogIndex,
    want: Want,
    segment: Offset,
    /// Where the segment's file ends for readers: the rest is in the tail, or not there.
    end: u32,
    step: Step,
    /// The log's file being read; kept from being closed by that.
    file: Option<Rc<FileId>>,
    index_file: Option<FileId>,
    /// The offset to look for the batch of, relative to the segment; known once the time index has been asked.
    relative: Option<u32>,
    position: u32,
    read_len: u32,
    /// Whether the segment has sums to check by.
    stored: bool,
    verified: Option<Rc<RefCell<Verified>>>,
    /// Where the read under way starts, at or before `position`, and how many bytes from `position` on are wanted.
    reading: (u32, u32),
    /// Memory that it was last short of, or has got.
    room: usize,
}

impl Cold {
    /// Starts reading from the segment with base `segment`.
    pub fn start<I: Io>(
        io: &mut I,
        readers: &mut Readers,
        log: &Log,
        index: LogIndex,
        segment: Offset,
        want: Want,
        token: Token,
    ) -> Result<Cold, Refusal> {
        let held = log
            .segment(segment)
            .ok_or(Refusal::OffsetOutOfRange { start: log.log_start, end: log.high_watermark })?;
        let end = end_in_file(log, held);
        let relative = match want {
            Want::Batches { offset, .. } => Some(offset.0.saturating_sub(segment.0) as u32),
            Want::Load(_) => None,
            Want::Time(timestamp) => held.index.recent_time_floor(timestamp),
        };
        let position = match want {
            Want::Load(range) => range.position,
            Want::Batches { .. } | Want::Time(_) => 0,
        };
        let mut cold = Cold {
            log: index,
            want,
            segment,
            end,
            step: Step::Ready,
            file: None,
            index_file: None,
            relative,
            position,
            read_len: 0,
            stored: held.stored,
            verified: None,
            reading: (0, 0),
            room: 0,
        };
        cold.find_sums(io, readers, log, token);
        if cold.is_ready() {
            cold.seek(io, readers, log, token);
        }
        Ok(cold)
    }

    /// Which log it reads.
    pub fn log(&self) -> LogIndex {
        self.log
    }

    /// What it is for.
    pub fn want(&self) -> Want {
        self.want
    }

    /// Memory that it needs at a time, as far as it has come.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Memory to read into. Without it the read is over, and nothing stays open.
    fn block<I: Io>(&mut self, io: &mut I, pool: &Pool, len: usize) -> Result<Block, Refusal> {
        self.room = len.max(1);
        let block = pool.block(self.room);
        if block.is_none() {
            self.close_index(io);
        }
        block.ok_or(Refusal::Busy)
    }

    /// Where the segment's file ended when it was begun.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The segment that it reads.
    pub fn segment(&self) -> Offset {
        self.segment
    }

    /// Finds the position to start at, if it is not planned: by the entries in memory, else by the index files. Those of a
    /// stored segment are believed by its sums only, which are at hand by now.
    fn seek<I: Io>(&mut self, io: &mut I, readers: &mut Readers, log: &Log, token: Token) {
        self.step = Step::Ready;
        let Some(held) = log.segment(self.segment).filter(|_| !matches!(self.want, Want::Load(_))) else {
            return;
        };
        let relative = match (self.relative, self.want) {
            (Some(relative), _) => relative,
            (None, Want::Time(timestamp)) => {
                let Some(index) = readers.indexes.get(&(self.log, self.segment, SegmentFile::TimeIndex))
                else {
                    return self.open_index(io, log, SegmentFile::TimeIndex, token);
                };
                time_floor_in_file(&index, timestamp)
            }
            (None, _) => 0,
        };
        self.relative = Some(relative);
        self.position = match held.index.recent_floor(relative) {
            Some(position) => position,
            None => match readers.indexes.get(&(self.log, self.segment, SegmentFile::Index)) {
                Some(index) => floor_in_file(&index, relative),
                None => return self.open_index(io, log, SegmentFile::Index, token),
            },
        };
    }

    fn open_index<I: Io>(&mut self, io: &mut I, log: &Log, kind: SegmentFile, token: Token) {
        self.step = Step::OpenIndex(kind);
        io.open(token, &paths::segment(&log.directory, self.segment, kind), OpenMode::Read);
    }

    /// Has the sums of a stored segment at hand, or opens their file.
    fn find_sums<I: Io>(&mut self, io: &mut I, readers: &mut Readers, log: &Log, token: Token) {
        self.verified = readers.verified.get(&(self.log, self.segment, SegmentFile::Sum));
        if !self.stored || self.verified.is_some() {
            self.step = Step::Ready;
        } else {
            self.step = Step::OpenSum;
            io.open(token, &paths::segment(&log.directory, self.segment, SegmentFile::Sum), OpenMode::Read);
        }
    }

    /// Whether it waits for nothing, because everything it needed was at hand: call [`Cold::go_on`].
    pub fn is_ready(&self) -> bool {
        self.step == Step::Ready
    }

    /// Submits the next read of the log's file; `Some` if there is nothing more to read.
    pub fn go_on<I: Io>(
        &mut self,
        io: &mut I,
        readers: &mut Readers,
        log: &Log,
        pool: &Pool,
        token: Token,
    ) -> Result<Option<Outcome>, Refusal> {
        if self.position >= self.end {
            return Ok(Some(Outcome::Passed));
        }
        if let Some(bytes) = self.look_in_map(io, readers, log) {
            if let Want::Load(range) = self.want {
                return Ok(Some(Outcome::Chunk(loaded(range, bytes)?)));
            }
            let mut block = self.block(io, pool, bytes.len())?;
            block.push(&bytes);
            let bytes = self.checked_again(log, block.freeze())?;
            return self.scan(io, readers, log, pool, token, &bytes);
        }
        let want = match self.want {
            Want::Load(range) => range.len.min(readers.chunk_bytes),
            Want::Batches { .. } | Want::Time(_) => self.read_len.max(readers.chunk_bytes),
        };
        let len = want.min(self.end - self.position);
        let Some(file) = readers.files.get(&(self.log, self.segment, SegmentFile::Log)) else {
            self.step = Step::OpenLog;
            let path = paths::segment(&log.directory, self.segment, SegmentFile::Log);
            io.open(token, &path, OpenMode::ReadDirect);
            return Ok(None);
        };
        let (at, whole) = match &self.verified {
            Some(verified) => verified.borrow().to_read(self.position, len),
            None => (self.position, len),
        };
        let (at, whole) = whole_blocks(at, whole);
        let block = self.block(io, pool, whole as usize)?;
        self.reading = (at, len);
        self.step = Step::Read;
        io.read(token, *file, u64::from(at), block, whole as usize);
        self.file = Some(file);
        Ok(None)
    }

    /// What is to be read next, if it is in a map: of a stored segment all of whose blocks have been checked. A planned
    /// stretch is sent from the map, for nothing in it is looked at any more. What is to be looked through is whole blocks, to
    /// be copied and checked once more: batch headers are parsed in owned, checked memory only. Has the segment mapped if it
    /// is worth that.
    fn look_in_map<I: Io>(&mut self, io: &mut I, readers: &mut Readers, log: &Log) -> Option<Slice> {
        let maps = readers.maps.as_mut()?;
        let verified = self.verified.as_ref().filter(|verified| verified.borrow().is_complete())?;
        let left = self.end - self.position;
        let (at, len) = match self.want {
            Want::Load(range) => (self.position, range.len.min(readers.chunk_bytes).min(left)),
            Want::Batches { .. } | Want::Time(_) => {
                // The rest of a block will do, if it is more than a scrap.
                let rest = SUM_BLOCK_BYTES as u32 - self.position % SUM_BLOCK_BYTES as u32;
                let head = if rest < BLOCK_BYTES as u32 { rest + SUM_BLOCK_BYTES as u32 } else { rest };
                let len = self.read_len.max(head).min(left);
                self.reading = (self.position, len);
                verified.borrow().blocks_around(self.position, len)
            }
        };
        match maps.look(io, (self.log, self.segment), at, len) {
            Look::Served(bytes) => {
                self.reading.0 = at;
                return Some(bytes);
            }
            Look::Elsewhere => {}
            Look::Unmapped => {
                let path = paths::segment(&log.directory, self.segment, SegmentFile::Log);
                maps.start(io, (self.log, self.segment), &path);
            }
        }
        None
    }

    /// Takes a completion and goes on; gives the outcome when there is one. An error ends the read, and says why.
    pub fn on_done<I: Io>(
        &mut self,
        io: &mut I,
        readers: &mut Readers,
        log: &Log,
        pool: &Pool,
        token: Token,
        done: Result<DiskDone, IoError>,
    ) -> Result<Option<Outcome>, Refusal> {
        let done = match done {
            Ok(done) => done,
            // An open segment's indexes are hints, and not flushed with it: a power loss may have taken the file.
            Err(IoError::NotFound) if matches!(self.step, Step::OpenIndex(_)) => {
                return self.indexed(io, readers, log, pool, token, Slice::from(Vec::new()));
            }
            Err(IoError::NotFound) if self.step == Step::OpenSum => {
                tracing::warn!(
                    directory = log.directory,
                    segment = self.segment.0,
                    "a stored segment has no checksum file"
                );
                self.stored = false;
                return self.seek_on(io, readers, log, pool, token);
            }
            Err(error) => {
                tracing::error!(directory = log.directory, segment = self.segment.0, %error, "a cold read failed");
                self.close_index(io);
                return Err(Refusal::ReadFailed);
            }
        };
        match (self.step, done) {
            (Step::OpenIndex(kind), DiskDone::Opened(file, _)) => {
                self.index_file = Some(file);
                let held = log.segment(self.segment).ok_or(Refusal::ReadFailed)?;
                let len = match kind {
                    SegmentFile::TimeIndex => held.index.stored_times as usize * 12,
                    _ => held.index.stored as usize * 8,
                };
                let block = self.block(io, pool, len)?;
                self.step = Step::ReadIndex(kind);
                io.read(token, file, 0, block, len);
                Ok(None)
            }
            (Step::ReadIndex(_), DiskDone::Read(block)) => {
                self.close_index(io);
                self.indexed(io, readers, log, pool, token, Slice::from(block.filled().to_vec()))
            }
            (Step::OpenLog, DiskDone::Opened(file, _)) => {
                let key = (self.log, self.segment, SegmentFile::Log);
                let gone = readers.files.insert(key, Rc::new(file), 1);
                readers.closing.extend(gone);
                self.go_on(io, readers, log, pool, token)
            }
            (Step::OpenSum, DiskDone::Opened(file, len)) => {
                self.index_file = Some(file);
                let block = self.block(io, pool, len as usize)?;
                self.step = Step::ReadSum;
                io.read(token, file, 0, block, len as usize);
                Ok(None)
            }
            (Step::ReadSum, DiskDone::Read(block)) => {
                self.close_index(io);
                let sum = Sum::decode(block.filled(), log.id, self.segment).map_err(|damage| {
                    let (position, what) = (damage.position, damage.what);
                    tracing::error!(
                        directory = log.directory,
                        segment = self.segment.0,
                        position,
                        what,
                        "a checksum file is damaged"
                    );
                    Refusal::CorruptData
                })?;
                let verified = Rc::new(RefCell::new(Verified::new(sum)));
                readers.verified.insert((self.log, self.segment, SegmentFile::Sum), Rc::clone(&verified), 1);
                self.verified = Some(verified);
                self.seek_on(io, readers, log, pool, token)
            }
            (Step::Read, DiskDone::Read(block)) => {
                let bytes = self.checked(log, block.freeze())?;
                match self.want {
                    Want::Load(range) => Ok(Some(Outcome::Chunk(loaded(range, bytes)?))),
                    Want::Batches { .. } | Want::Time(_) => self.scan(io, readers, log, pool, token, &bytes),
                }
            }
            (step, done) => panic!("a cold read at {step:?} was answered {done:?}"),
        }
    }

    /// Goes on with an index file's bytes.
    fn indexed<I: Io>(
        &mut self,
        io: &mut I,
        readers: &mut Readers,
        log: &Log,
        pool: &Pool,
        token: Token,
        bytes: Slice,
    ) -> Result<Option<Outcome>, Refusal> {
        if let Step::OpenIndex(kind) | Step::ReadIndex(kind) = self.step {
            let bytes = self.believed(log, kind, bytes);
            let cost = bytes.len();
            readers.indexes.insert((self.log, self.segment, kind), bytes, cost);
        }
        self.seek_on(io, readers, log, pool, token)
    }

    /// Finds the position, and reads there as soon as it is known.
    fn seek_on<I: Io>(
        &mut self,
        io: &mut I,
        readers: &mut Readers,
        log: &Log,
        pool: &Pool,
        token: Token,
    ) -> Result<Option<Outcome>, Refusal> {
        self.seek(io, readers, log, token);
        if self.is_ready() { self.go_on(io, readers, log, pool, token) } else { Ok(None) }
    }

    /// An index file's bytes, if they are what was sealed. Without an index the walk starts at the segment's first batch.
    fn believed(&self, log: &Log, kind: SegmentFile, bytes: Slice) -> Slice {
        let sound = self.verified.as_ref().is_none_or(|verified| verified.borrow().holds(kind, &bytes));
        if sound {
            return bytes;
        }
        tracing::error!(
            directory = log.directory,
            segment = self.segment.0,
            ?kind,
            "an index fails its checksum: it is not used"
        );
        Slice::from(Vec::new())
    }

    /// Closes what is open and what was just opened, when nobody wants the outcome any more.
    pub fn give_up<I: Io>(&mut self, io: &mut I, done: Result<DiskDone, IoError>) {
        if let Ok(DiskDone::Opened(file, _)) = done {
            io.close(file);
        }
        self.close_index(io);
    }

    fn close_index<I: Io>(&mut self, io: &mut I) {
        if let Some(file) = self.index_file.take() {
            io.close(file);
        }
    }

    /// Checks what was read against the segment's sums, and gives the part that was wanted.
    fn checked(&self, log: &Log, bytes: Slice) -> Result<Slice, Refusal> {
        if let Some(verified) = &self.verified {
            let check = verified.borrow_mut().check(self.reading.0, &bytes);
            check.map_err(|position| self.is_damaged(log, position))?;
        }
        self.wanted(bytes)
    }

    /// The same of blocks that were checked before, and copied out of a map.
    fn checked_again(&self, log: &Log, bytes: Slice) -> Result<Slice, Refusal> {
        let verified = self.verified.as_ref().expect("only segments with sums are mapped");
        let check = verified.borrow().check_again(self.reading.0, &bytes);
        check.map_err(|position| self.is_damaged(log, position))?;
        self.wanted(bytes)
    }

    fn is_damaged(&self, log: &Log, position: u32) -> Refusal {
        tracing::error!(
            directory = log.directory,
            segment = self.segment.0,
            position,
            "a block fails its checksum"
        );
        Refusal::CorruptData
    }

    /// The part of what was read that was wanted.
    fn wanted(&self, bytes: Slice) -> Result<Slice, Refusal> {
        let (at, len) = self.reading;
        let start = (self.position - at) as usize;
        let end = (start + len as usize).min(bytes.len());
        if start > end {
            return Err(Refusal::ReadFailed); // The file is shorter than what was flushed to it.
        }
        Ok(bytes.slice(start..end))
    }

    /// Looks through what was read for the first batch wanted; reads on if it is not there.
    fn scan<I: Io>(
        &mut self,
        io: &mut I,
        readers: &mut Readers,
        log: &Log,
        pool: &Pool,
        token: Token,
        bytes: &Slice,
    ) -> Result<Option<Outcome>, Refusal> {
        let damaged = |at: usize, what: &str| {
            let position = self.position as usize + at;
            tracing::error!(
                directory = log.directory,
                segment = self.segment.0,
                position,
                what,
                "stored bytes are damaged"
            );
            Refusal::CorruptData
        };
        let mut passed = 0;
        for scanned in Scanner::new(bytes) {
            let scanned = scanned.map_err(|error| damaged(passed, error.what()))?;
            let header = &scanned.header;
            let wanted = match self.want {
                Want::Batches { offset, .. } => header.next_offset() > offset,
                Want::Time(timestamp) => {
                    header.max_timestamp >= timestamp && header.next_offset() > log.log_start
                }
                Want::Load(_) => true,
            };
            if !wanted {
                passed = scanned.at + header.size;
                continue;
            }
            if let Want::Batches { max_bytes, .. } = self.want {
                return self.chunk(readers, log, bytes, scanned.at, header.size, max_bytes).map(Some);
            }
            if scanned.whole {
                let found = bytes.slice(scanned.at..scanned.at + header.size);
                batch::check(&found).map_err(|error| damaged(scanned.at, error.what()))?;
                return Ok(Some(Outcome::Batch(found)));
            }
            // It starts here, but does not end here: read it from its start.
            self.read_len = header.size as u32;
            self.position += scanned.at as u32;
            return self.go_on(io, readers, log, pool, token);
        }
        if passed == 0 {
            return Err(damaged(0, "no batch starts here"));
        }
        self.position += passed as u32;
        self.go_on(io, readers, log, pool, token)
    }

    /// The chunk that starts with the batch at `at`, and the plan for the rest.
    fn chunk(
        &self,
        readers: &mut Readers,
        log: &Log,
        bytes: &Slice,
        at: usize,
        first: usize,
        max_bytes: u32,
    ) -> Result<Outcome, Refusal> {
        let start = self.position + at as u32;
        let mut whole = 0;
        let damaged = |what: &str| {
            tracing::error!(
                directory = log.directory,
                segment = self.segment.0,
                position = start,
                what,
                "stored bytes are damaged"
            );
            Refusal::CorruptData
        };
        for scanned in Scanner::new(&bytes[at..]) {
            let scanned = scanned.map_err(|error| damaged(error.what()))?;
            let end = scanned.at + scanned.header.size;
            let fits = scanned.at == 0 || end <= max_bytes as usize;
            if !scanned.whole || !fits {
                break;
            }
            batch::check(&bytes[at + scanned.at..at + end]).map_err(|error| damaged(error.what()))?;
            whole = end;
        }
        // If the first batch is larger than what was read, all of it is promised, and the rest of it planned.
        let (here, least) = if whole == 0 { (bytes.len() - at, first as u32) } else { (whole, whole as u32) };
        // What the index knows to be batches further on can be promised without being looked at.
        let limit = start.saturating_add(max_bytes).min(self.end);
        let known = readers.indexes.get(&(self.log, self.segment, SegmentFile::Index));
        let boundary = known.map_or(0, |index| boundary_in_file(&index, limit));
        let len = boundary.saturating_sub(start).max(least);
        let range = Range { partition: log.id, segment: self.segment, position: start, len };
        Ok(Outcome::Chunk(Chunk { bytes: vec![bytes.slice(at..at + here)], range: Some(range) }))
    }
}

/// The whole blocks of the disk that hold these bytes.
fn whole_blocks(position: u32, len: u32) -> (u32, u32) {
    let at = position - position % BLOCK_BYTES as u32;
    (at, (position + len - at).next_multiple_of(BLOCK_BYTES as u32))
}

/// Up to where a segment is read from its file: what follows is in the tail.
pub fn end_in_file(log: &Log, held: &Segment) -> u32 {
    match log.tail.front() {
        Some(front) if front.segment == held.base => front.position,
        _ => held.flushed,
    }
}

/// A planned stretch's chunk. Fewer bytes than were planned means that the file was cut.
fn loaded(range: Range, bytes: Slice) -> Result<Chunk, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::ReadFailed);
    }
    Ok(Chunk { bytes: vec![bytes], range: Some(range) })
}
