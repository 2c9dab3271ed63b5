//! Reading a stored segment's files once more, and checking them against its sums: what rots where nobody reads is found
//! before somebody needs it.
//!
//! Everything is read past the page cache, for it is the disk that is asked. The checksum file comes first: without it
//! nothing can be said of the others. Of each file the first damage is told.

use super::Log;
use super::paths;
use super::table::LogIndex;
use crate::buffer::{Block, Pool};
use crate::error::IoError;
use crate::format::partition::SegmentFile;
use crate::format::sum::{Sum, Summed};
use crate::io::{DiskDone, FileId, Io, OpenMode, Token};
use crate::limits::{BLOCK_BYTES, READ_CHUNK_BYTES, SUM_BLOCK_BYTES};
use crate::types::Offset;

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// In which file.
    pub file: SegmentFile,
    /// Where in it.
    pub position: u64,
    /// What is wrong there.
    pub what: &'static str,
    /// Why it could not be read, if that is what is wrong.
    pub error: Option<IoError>,
}

/// How far a check is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It waits for a completion.
    Waits,
    /// It waits to be told to go on, after so many bytes.
    Ready(usize),
    /// It is over.
    Finished(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Next,
    Open,
    Read,
}

/// A stored segment being checked. One operation at a time; feed every completion of its token to [`Scrub::on_done`], and
/// call [`Scrub::go_on`] whenever there is time for another read.
pub struct Scrub {
    log: LogIndex,
    segment: Offset,
    sum: Option<Sum>,
    /// The files to read, the one under way first, with their lengths; that of the checksum file is learned.
    left: Vec<(SegmentFile, u64)>,
    step: Step,
    file: Option<FileId>,
    position: u64,
    /// Bytes to read at a time: whole blocks of sums.
    pub piece_bytes: usize,
    /// What was read of the checksum file.
    sum_bytes: Vec<u8>,
    /// What was found, to be taken.
    pub findings: Vec<Finding>,
}

impl Scrub {
    /// Of the segment with base `segment`, which is stored.
    pub fn new(log: LogIndex, segment: Offset) -> Scrub {
        Scrub {
            log,
            segment,
            sum: None,
            left: vec![(SegmentFile::Sum, 0)],
            step: Step::Next,
            file: None,
            position: 0,
            piece_bytes: READ_CHUNK_BYTES,
            sum_bytes: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Which segment it checks.
    pub fn segment(&self) -> (LogIndex, Offset) {
        (self.log, self.segment)
    }

    /// Submits the next operation. Without memory it stays ready.
    pub fn go_on<I: Io>(&mut self, io: &mut I, log: &Log, pool: &Pool, token: Token) -> Progress {
        let Some((kind, len)) = self.left.first().copied() else { return Progress::Finished(0) };
        let Some(file) = self.file else {
            self.step = Step::Open;
            io.open(token, &paths::segment(&log.directory, self.segment, kind), OpenMode::ReadDirect);
            return Progress::Waits;
        };
        let want = (len - self.position).min(self.piece_bytes as u64) as usize;
        let want = want.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES);
        let Some(block) = pool.block(want) else { return Progress::Ready(0) };
        self.step = Step::Read;
        io.read(token, file, self.position, block, want);
        Progress::Waits
    }

    /// Takes a completion. `log` is the segment's, unless it was deleted meanwhile.
    pub fn on_done<I: Io>(
        &mut self,
        io: &mut I,
        log: Option<&Log>,
        pool: &Pool,
        token: Token,
        done: Result<DiskDone, IoError>,
    ) -> Progress {
        let step = std::mem::replace(&mut self.step, Step::Next);
        if let (Step::Open, Ok(DiskDone::Opened(file, _))) = (step, &done) {
            self.file = Some(*file);
        }
        // A segment that goes takes its files along.
        let Some(log) = log.filter(|log| log.segment(self.segment).is_some()) else {
            self.close(io);
            return Progress::Finished(0);
        };
        match (step, done) {
            (Step::Open, Ok(DiskDone::Opened(_, len))) => {
                match self.left.first_mut() {
                    Some((SegmentFile::Sum, sum_len)) => *sum_len = len,
                    Some((kind, sealed)) if len < *sealed => {
                        let kind = *kind;
                        self.found(kind, len, "the file is shorter than when it was sealed", None);
                        return self.next_file(io, 0);
                    }
                    _ => {}
                }
                self.go_on(io, log, pool, token)
            }
            (Step::Read, Ok(DiskDone::Read(block))) => self.on_read(io, log, &block),
            (_, Err(error)) => {
                let kind = self.left.first().map_or(SegmentFile::Sum, |(kind, _)| *kind);
                let missing = error == IoError::NotFound;
                let what = if missing { "the file is missing" } else { "it cannot be read" };
                self.found(kind, self.position, what, (!missing).then_some(error));
                self.next_file(io, 0)
            }
            (step, done) => panic!("a scrub at {step:?} was answered {done:?}"),
        }
    }

    fn on_read<I: Io>(&mut self, io: &mut I, log: &Log, block: &Block) -> Progress {
        let Some((kind, len)) = self.left.first().copied() else { return Progress::Finished(0) };
        let left = (len - self.position) as usize;
        let bytes = block.filled().get(..left).unwrap_or(block.filled());
        let read = bytes.len();
        if kind == SegmentFile::Sum {
            self.sum_bytes.extend_from_slice(bytes);
        } else if let Some(at) = self.first_damage(kind, bytes) {
            self.found(kind, at, "a block fails its checksum", None);
            return self.next_file(io, read);
        }
        self.position += read as u64;
        if read > 0 && self.position < len {
            return Progress::Ready(read);
        }
        if kind == SegmentFile::Sum {
            self.learn(log);
        } else if self.position < len {
            self.found(kind, self.position, "the file is shorter than when it was sealed", None);
        }
        self.next_file(io, read)
    }

    /// The first of the blocks read that is not what was sealed.
    fn first_damage(&self, kind: SegmentFile, bytes: &[u8]) -> Option<u64> {
        let (sum, file) = (self.sum.as_ref()?, summed(kind)?);
        let first = self.position / SUM_BLOCK_BYTES as u64;
        let damaged = |(block, number): &(&[u8], u64)| !sum.verify_block(file, *number as u32, block);
        let (_, number) = bytes.chunks(SUM_BLOCK_BYTES).zip(first..).find(damaged)?;
        Some(number * SUM_BLOCK_BYTES as u64)
    }

    /// The checksum file has been read.
    fn learn(&mut self, log: &Log) {
        let size = log.segment(self.segment).map_or(0, |segment| segment.size);
        match Sum::decode(&self.sum_bytes, log.id, self.segment) {
            Ok(sum) if sum.len(Summed::Log) == size => {
                let files = [SegmentFile::Log, SegmentFile::Index, SegmentFile::TimeIndex];
                let lens = files.map(|kind| (kind, summed(kind).map_or(0, |file| u64::from(sum.len(file)))));
                self.left.extend(lens.into_iter().filter(|(_, len)| *len > 0));
                self.sum = Some(sum);
            }
            Ok(_) => self.found(SegmentFile::Sum, 28, "it is of a segment of another size", None),
            Err(damage) => self.found(SegmentFile::Sum, damage.position, damage.what, None),
        }
        self.sum_bytes = Vec::new();
    }

    fn found(&mut self, file: SegmentFile, position: u64, what: &'static str, error: Option<IoError>) {
        self.findings.push(Finding { file, position, what, error });
    }

    fn next_file<I: Io>(&mut self, io: &mut I, read: usize) -> Progress {
        self.close(io);
        self.left.remove(0);
        self.position = 0;
        if self.left.is_empty() { Progress::Finished(read) } else { Progress::Ready(read) }
    }

    /// Closes what is open.
    pub fn close<I: Io>(&mut self, io: &mut I) {
        if let Some(file) = self.file.take() {
            io.close(file);
        }
    }
}

/// As the sums call it.
fn summed(kind: SegmentFile) -> Option<Summed> {
    match kind {
        SegmentFile::Log => Some(Summed::Log),
        SegmentFile::Index => Some(Summed::Index),
        SegmentFile::TimeIndex => Some(Summed::TimeIndex),
        _ => None,
    }
}
