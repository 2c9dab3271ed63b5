//! Moving one segment's bytes from the tail to its files, off the acknowledgement path.
//!
//! For an open segment: its whole durable blocks, and the index entries that point to them. For a sealed one: what is
//! left, the last block padded and the file then cut to its exact size, and its indexes complete and flushed. What is
//! durable when the job is done is said by [`Segment::flushed`](super::segment::Segment) and `stored`, set here and only
//! after the flushes, and after the flush of the directory if a name in it is new.
//!
//! After a flush that failed nobody knows what the file holds, and a later flush that succeeds would prove nothing. So the
//! next attempt goes into a new file: what was flushed before is copied from the old one, the rest comes from the tail
//! once more, and when the new file is flushed it takes the old one's name.

use super::Log;
use super::paths::{LOGS, segment as file_name};
use super::segment::Segment;
use super::summing::Summing;
use crate::buffer::{Block, Pool};
use crate::error::IoError;
use crate::format::index::{OffsetIndexEntry, TimeIndexEntry};
use crate::format::partition::{
    LEADER_EPOCHS_FILE, METADATA_FILE, SegmentFile, encode_leader_epochs, encode_metadata,
};
use crate::format::sum::{SumBuilder, Summed};
use crate::io::{DiskDone, FileId, Io, OpenMode, Replace, Token};
use crate::limits::{BLOCK_BYTES, SEGMENT_WRITE_BYTES};
use crate::types::{LeaderEpoch, Lsn, Offset};

/// What the name of a segment's new file ends in, until it takes the old one's place.
pub const COPY_SUFFIX: &str = ".new";

/// What a job is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    MakeDirectory,
    OpenPartitionMetadata,
    WritePartitionMetadata,
    FlushPartitionMetadata,
    SyncParent,
    TellEpochs,
    OpenLog,
    CutCopy,
    OpenOld,
    ReadOld,
    WriteOld,
    Write,
    Cut,
    FlushLog,
    RenameCopy,
    OpenIndex(SegmentFile),
    ReadIndex(SegmentFile),
    WriteIndex(SegmentFile),
    FlushIndex(SegmentFile),
    Sum,
    SyncDirectory,
    Finished,
}

/// How far a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It waits for completions.
    Going,
    /// It waits for memory to stage bytes in: [`Drain::resume`] it.
    Starved,
    /// It is done.
    Finished,
}

/// One segment being drained. Feed every completion of its tokens to [`Drain::on_done`].
pub struct Drain {
    base: Offset,
    /// Bytes to reach, fixed at the start.
    target: u32,
    seals: bool,
    /// Whether a new file is written in place of one whose flush has failed.
    copies: bool,
    step: Step,
    file: Option<FileId>,
    index_file: Option<FileId>,
    /// The text about leader epochs being replaced, and what it is going to tell.
    epochs: Option<(Replace, Vec<(LeaderEpoch, Offset)>)>,
    /// Whether the directory has to be flushed: a name in it is new, or may be.
    named: bool,
    submitted: u32,
    in_flight: u32,
    entries: Vec<u8>,
    times: Vec<u8>,
    /// The sums of the segment's bytes up to `submitted`, if they are known.
    sums: Option<Box<SumBuilder>>,
    summing: Option<Summing>,
}

impl Drain {
    /// Starts draining the oldest segment of `log` that wants it; `None` if none does. `failed` says of which segment the
    /// last attempt has failed.
    pub fn start<I: Io>(
        io: &mut I,
        log: &Log,
        token: Token,
        failed: impl Fn(Offset) -> bool,
    ) -> Option<Drain> {
        let segment = log.segments.iter().find(|segment| segment.wants_drain())?;
        let copies = failed(segment.base);
        let seals = segment.sealed && segment.durable == segment.size;
        let mut drain = Drain {
            base: segment.base,
            target: segment.drainable(),
            seals,
            copies,
            step: Step::OpenLog,
            file: None,
            index_file: None,
            epochs: None,
            named: !segment.named || seals || copies,
            submitted: segment.flushed,
            in_flight: 1,
            entries: Vec::new(),
            times: Vec::new(),
            sums: known_sums(log, segment),
            summing: None,
        };
        if log.has_directory {
            drain.tell_epochs(io, log, token);
        } else {
            drain.step = Step::MakeDirectory;
            io.make_dir(token, &log.directory);
        }
        Some(drain)
    }

    /// Takes a completion and goes on. After an error nothing more is under way once `in_flight` is zero; what was
    /// flushed before stays so, and the job is given up by its owner.
    pub fn on_done<I: Io>(
        &mut self,
        io: &mut I,
        log: &mut Log,
        pool: &Pool,
        token: Token,
        done: Result<DiskDone, IoError>,
    ) -> Result<Progress, IoError> {
        self.in_flight -= 1;
        let done = done?;
        let opened = match &done {
            DiskDone::Opened(file, _) => Some(*file),
            _ => None,
        };
        match self.step {
            Step::MakeDirectory => {
                self.step = Step::OpenPartitionMetadata;
                io.open(token, &format!("{}/{METADATA_FILE}", log.directory), OpenMode::Buffered);
            }
            Step::OpenPartitionMetadata => {
                self.index_file = opened;
                self.step = Step::WritePartitionMetadata;
                io.write(token, self.open_index(), 0, encode_metadata(log.id.topic).into_bytes().into());
            }
            Step::WritePartitionMetadata => {
                self.step = Step::FlushPartitionMetadata;
                io.flush(token, self.open_index());
            }
            Step::FlushPartitionMetadata => {
                self.close_index(io);
                self.step = Step::SyncParent;
                io.sync_dir(token, LOGS);
            }
            Step::SyncParent => {
                log.has_directory = true;
                self.tell_epochs(io, log, token);
            }
            Step::TellEpochs => {
                let (replace, _) = self.epochs.as_mut().expect("the step before started it");
                if replace.step(io, token, Ok(done))? {
                    log.epochs_told = self.epochs.take().map(|(_, told)| told).unwrap_or_default();
                    self.open_log(io, log, token);
                }
            }
            Step::OpenLog if self.copies => {
                self.file = opened;
                self.step = Step::CutCopy;
                io.set_len(token, self.log_file(), 0);
            }
            Step::CutCopy if self.submitted > 0 => {
                self.submitted = 0;
                self.step = Step::OpenOld;
                io.open(token, &file_name(&log.directory, self.base, SegmentFile::Log), OpenMode::Read);
            }
            Step::OpenOld => {
                self.index_file = opened;
                self.read_old(io, log, pool, token)?;
            }
            Step::ReadOld => {
                let DiskDone::Read(block) = done else { panic!("a read was answered {done:?}") };
                let len = block.len() as u32;
                if len == 0 || !block.len().is_multiple_of(BLOCK_BYTES) {
                    return Err(IoError::NotFound); // The old file is shorter than what was flushed to it.
                }
                self.step = Step::WriteOld;
                io.write(token, self.log_file(), u64::from(self.submitted), block.freeze());
                self.submitted += len;
            }
            Step::WriteOld if self.submitted < self.held(log).flushed => {
                self.read_old(io, log, pool, token)?;
            }
            Step::OpenLog | Step::CutCopy | Step::WriteOld => {
                if self.step == Step::OpenLog {
                    self.file = opened;
                }
                self.close_index(io);
                self.step = Step::Write;
                return Ok(self.write(io, log, pool, token));
            }
            Step::Write => return Ok(self.write(io, log, pool, token)),
            Step::Cut => {
                self.step = Step::FlushLog;
                io.flush(token, self.log_file());
            }
            Step::FlushLog if self.copies => {
                self.step = Step::RenameCopy;
                let name = file_name(&log.directory, self.base, SegmentFile::Log);
                io.rename(token, &aside(&name), &name);
            }
            Step::FlushLog | Step::RenameCopy => {
                (self.entries, self.times) = self.held(log).index.storable(self.target);
                return Ok(self.index_or_end(io, log, token, Some(SegmentFile::Index)));
            }
            Step::OpenIndex(kind) => {
                self.index_file = opened;
                let index = &self.held(log).index;
                let (at, bytes) = match kind {
                    SegmentFile::Index => (u64::from(index.stored) * 8, &self.entries),
                    _ => (u64::from(index.stored_times) * 12, &self.times),
                };
                if self.copies && self.seals && at > 0 {
                    // What was written before the flush that failed may never reach the disk: all of it is written once more.
                    let block = pool.block(at as usize).ok_or(IoError::Cancelled)?;
                    self.step = Step::ReadIndex(kind);
                    io.read(token, self.open_index(), 0, block, at as usize);
                } else if bytes.is_empty() {
                    self.step = Step::FlushIndex(kind);
                    io.flush(token, self.open_index());
                } else {
                    self.step = Step::WriteIndex(kind);
                    io.write(token, self.open_index(), at, bytes.clone().into());
                }
            }
            Step::ReadIndex(kind) => {
                let DiskDone::Read(block) = &done else { panic!("an index file was read, and not {done:?}") };
                let bytes = self.rewritten(log, kind, block.filled());
                self.step = Step::WriteIndex(kind);
                io.write(token, self.open_index(), 0, bytes.into());
            }
            Step::WriteIndex(kind) if self.seals => {
                self.step = Step::FlushIndex(kind);
                io.flush(token, self.open_index());
            }
            Step::WriteIndex(kind) | Step::FlushIndex(kind) => {
                self.close_index(io);
                let next = (kind == SegmentFile::Index).then_some(SegmentFile::TimeIndex);
                return Ok(self.index_or_end(io, log, token, next));
            }
            Step::Sum => {
                let summing = self.summing.as_mut().expect("the step before started it");
                if summing.on_done(io, log, pool, token, Ok(done))? {
                    self.step = Step::SyncDirectory;
                    io.sync_dir(token, &log.directory);
                }
            }
            Step::SyncDirectory => return Ok(self.finish(io, log)),
            Step::Finished => unreachable!("a finished job has nothing under way"),
        }
        self.in_flight += 1;
        Ok(Progress::Going)
    }

    /// An index file anew: its entries so far, as far as they can be read, and those that come.
    fn rewritten(&self, log: &mut Log, kind: SegmentFile, before: &[u8]) -> Vec<u8> {
        let (entries, bytes, new) = match kind {
            SegmentFile::Index => {
                let entries = OffsetIndexEntry::decode(before).entries.len();
                self.held_mut(log).index.stored = entries as u32;
                (entries, OffsetIndexEntry::BYTES, &self.entries)
            }
            _ => {
                let entries = TimeIndexEntry::decode(before).entries.len();
                self.held_mut(log).index.stored_times = entries as u32;
                (entries, TimeIndexEntry::BYTES, &self.times)
            }
        };
        let mut all = before.get(..entries * bytes).unwrap_or_default().to_vec();
        all.extend_from_slice(new);
        all
    }

    /// Goes on with the next index file that has anything to be written, or has to be there; else ends the job.
    fn index_or_end<I: Io>(
        &mut self,
        io: &mut I,
        log: &mut Log,
        token: Token,
        next: Option<SegmentFile>,
    ) -> Progress {
        let wanted = |kind: SegmentFile| {
            self.seals
                || !if kind == SegmentFile::Index { self.entries.is_empty() } else { self.times.is_empty() }
        };
        let next =
            next.and_then(|kind| [kind, SegmentFile::TimeIndex].into_iter().find(|kind| wanted(*kind)));
        if let Some(kind) = next {
            self.step = Step::OpenIndex(kind);
            io.open(token, &file_name(&log.directory, self.base, kind), OpenMode::Buffered);
        } else if self.seals {
            let (entries, times) = (self.entries.len(), self.times.len());
            self.held_mut(log).index.stored_now(entries, times);
            (self.entries, self.times) = (Vec::new(), Vec::new());
            let known = self.sums.take().map(|sums| *sums);
            self.step = Step::Sum;
            self.summing = Some(Summing::start(io, log, self.base, known, token));
        } else if self.named {
            self.step = Step::SyncDirectory;
            io.sync_dir(token, &log.directory);
        } else {
            return self.finish(io, log);
        }
        self.in_flight += 1;
        Progress::Going
    }

    /// Goes on after it was starved of memory.
    pub fn resume<I: Io>(&mut self, io: &mut I, log: &mut Log, pool: &Pool, token: Token) -> Progress {
        if self.step != Step::Write || self.in_flight > 0 {
            return Progress::Going;
        }
        self.write(io, log, pool, token)
    }

    /// Closes what is open, when the job is given up.
    pub fn give_up<I: Io>(&mut self, io: &mut I) {
        if let Some(summing) = &mut self.summing {
            summing.close(io);
        }
        if let Some((replace, _)) = self.epochs.take() {
            replace.give_up(io);
        }
        self.close_index(io);
        if let Some(file) = self.file.take() {
            io.close(file);
        }
    }

    /// Counts a completion that comes after the job has failed.
    pub fn settle(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Operations under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The segment being drained.
    pub fn segment(&self) -> Offset {
        self.base
    }

    /// Replaces the text about leader epochs if it is out of date; then opens the segment.
    fn tell_epochs<I: Io>(&mut self, io: &mut I, log: &Log, token: Token) {
        let epochs = log.epochs.durable(log.high_watermark);
        if epochs == log.epochs_told {
            return self.open_log(io, log, token);
        }
        self.step = Step::TellEpochs;
        let path = format!("{}/{LEADER_EPOCHS_FILE}", log.directory);
        let text = encode_leader_epochs(&epochs).into_bytes();
        self.epochs = Some((Replace::start(io, token, &path, text), epochs));
    }

    fn open_log<I: Io>(&mut self, io: &mut I, log: &Log, token: Token) {
        self.step = Step::OpenLog;
        let name = file_name(&log.directory, self.base, SegmentFile::Log);
        io.open(token, &if self.copies { aside(&name) } else { name }, OpenMode::Direct);
    }

    /// Reads the next piece of what was flushed to the old file.
    fn read_old<I: Io>(&mut self, io: &mut I, log: &Log, pool: &Pool, token: Token) -> Result<(), IoError> {
        let len = (self.held(log).flushed - self.submitted).min(SEGMENT_WRITE_BYTES as u32) as usize;
        // Without memory the attempt fails, and another is made.
        let block = pool.block(len).ok_or(IoError::Cancelled)?;
        self.step = Step::ReadOld;
        io.read(token, self.open_index(), u64::from(self.submitted), block, len);
        Ok(())
    }

    /// Submits as many writes as may be in flight; goes on to the flush when all have completed.
    fn write<I: Io>(&mut self, io: &mut I, log: &mut Log, pool: &Pool, token: Token) -> Progress {
        while self.submitted < self.target
            && (self.in_flight as usize) < crate::limits::SEGMENT_WRITES_IN_FLIGHT
        {
            let len = (self.target - self.submitted).min(SEGMENT_WRITE_BYTES as u32);
            let Some(mut block) = pool.block((len as usize).next_multiple_of(BLOCK_BYTES)) else {
                return if self.in_flight == 0 { Progress::Starved } else { Progress::Going };
            };
            stage(log, self.base, self.submitted, len, &mut block);
            if let Some(sums) = &mut self.sums {
                sums.feed(Summed::Log, &block.filled()[..len as usize]);
            }
            io.write(token, self.log_file(), u64::from(self.submitted), block.freeze());
            self.submitted += len;
            self.in_flight += 1;
        }
        if self.in_flight > 0 {
            return Progress::Going;
        }
        let target = self.target;
        self.held_mut(log).drained = target;
        if self.seals {
            self.step = Step::Cut;
            io.set_len(token, self.log_file(), u64::from(target));
        } else {
            self.step = Step::FlushLog;
            io.flush(token, self.log_file());
        }
        self.in_flight += 1;
        Progress::Going
    }

    fn finish<I: Io>(&mut self, io: &mut I, log: &mut Log) -> Progress {
        self.step = Step::Finished;
        self.give_up(io);
        let (target, seals) = (self.target, self.seals);
        let (entries, times) = (self.entries.len(), self.times.len());
        let sums = self.sums.take();
        let segment = self.held_mut(log);
        segment.flushed = target;
        segment.index.stored_now(entries, times);
        segment.stored = seals;
        segment.named = true;
        segment.sums = sums;
        if log.carried.is_some_and(|carried| carried.segment == self.base && carried.from != target) {
            log.carried = None;
        }
        Progress::Finished
    }

    fn held<'a>(&self, log: &'a Log) -> &'a Segment {
        log.segment(self.base).expect("a segment stays until its drain is over")
    }

    fn held_mut<'a>(&self, log: &'a mut Log) -> &'a mut Segment {
        log.segment_mut(self.base).expect("a segment stays until its drain is over")
    }

    fn log_file(&self) -> FileId {
        self.file.expect("the segment's file is open from its first step on")
    }

    fn open_index(&self) -> FileId {
        self.index_file.expect("opened by the step before")
    }

    fn close_index<I: Io>(&mut self, io: &mut I) {
        if let Some(file) = self.index_file.take() {
            io.close(file);
        }
    }
}

/// The name of a segment's new file until it takes the old one's place.
fn aside(name: &str) -> String {
    format!("{name}{COPY_SUFFIX}")
}

/// The sums of what is flushed of a segment, to be continued; `None` if another process drained some of it.
fn known_sums(log: &Log, segment: &Segment) -> Option<Box<SumBuilder>> {
    if segment.flushed == 0 {
        return Some(Box::new(SumBuilder::new(log.id, segment.base)));
    }
    segment.sums.clone()
}

/// Copies `len` bytes of a segment from the tail into a block, and pads it with zeros to whole disk blocks.
fn stage(log: &Log, segment: Offset, from: u32, len: u32, block: &mut Block) {
    let end = from + len;
    let batches = log.tail.from_position(segment, from).expect("the tail holds what is not drained");
    for batch in batches.take_while(|batch| batch.segment == segment && batch.position < end) {
        let start = from.max(batch.position) - batch.position;
        let stop = end.min(batch.end()) - batch.position;
        block.push(&batch.bytes[start as usize..stop as usize]);
    }
    assert_eq!(block.len(), len as usize, "the tail holds all that is not drained");
    block.push_zeros(block.len().next_multiple_of(BLOCK_BYTES) - block.len());
}

/// The bytes behind the open segment's last flushed block, if there are any: what the journal must carry forward.
pub struct Remainder {
    /// The segment.
    pub segment: Offset,
    /// Where the batch starts that the first byte belongs to.
    pub start: u32,
    /// Where the bytes start.
    pub from: u32,
    /// The bytes: less than a disk block of them, once the segment has been drained.
    pub bytes: Vec<u8>,
}

/// Copies from the tail what the journal up to `upto` holds of a log's open segment behind its flushed blocks. `None` if
/// that is nothing, or more than the rest of a block: then it has to be drained before.
pub fn remainder(log: &Log, upto: Lsn) -> Option<Remainder> {
    let open = log.segments.back()?;
    let (from, to) = (open.flushed, log.end_in(open, upto));
    if to <= from || to - from > BLOCK_BYTES as u32 {
        return None;
    }
    let mut bytes = Vec::with_capacity((to - from) as usize);
    let mut batches = log.tail.from_position(open.base, from)?.peekable();
    let start = batches.peek()?.position;
    for batch in batches {
        let first = from.max(batch.position) - batch.position;
        let last = to.min(batch.end()).saturating_sub(batch.position);
        if first >= last {
            break;
        }
        bytes.extend_from_slice(&batch.bytes[first as usize..last as usize]);
    }
    assert_eq!(bytes.len() as u32, to - from, "the tail holds all that is not drained");
    Some(Remainder { segment: open.base, start, from, bytes })
}
