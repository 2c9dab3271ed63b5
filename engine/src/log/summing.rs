//! Writing a sealed segment's checksum file: the log's bytes were summed as they were drained, if this process drained
//! all of them; what it does not know it reads back.

use super::Log;
use super::paths;
use crate::buffer::Pool;
use crate::error::IoError;
use crate::format::partition::SegmentFile;
use crate::format::sum::{SumBuilder, Summed};
use crate::io::{DiskDone, FileId, Io, OpenMode, Token};
use crate::limits::SEGMENT_WRITE_BYTES;
use crate::types::Offset;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Open,
    Read,
    OpenSum,
    CutSum,
    WriteSum,
    FlushSum,
}

/// A checksum file being made. One operation at a time; feed every completion to [`Summing::on_done`].
pub struct Summing {
    base: Offset,
    builder: SumBuilder,
    /// The files to read back, last first, with their lengths.
    left: Vec<(Summed, u32)>,
    position: u32,
    step: Step,
    file: Option<FileId>,
}

impl Summing {
    /// Starts on a segment whose other files are complete. `known` has summed the log's bytes, if it has summed all.
    pub fn start<I: Io>(
        io: &mut I,
        log: &Log,
        base: Offset,
        known: Option<SumBuilder>,
        token: Token,
    ) -> Summing {
        let segment = log.segment(base).expect("a segment stays until its drain is over");
        let mut left = vec![
            (Summed::TimeIndex, segment.index.stored_times * 12),
            (Summed::Index, segment.index.stored * 8),
        ];
        if known.is_none() {
            left.push((Summed::Log, segment.size));
        }
        let builder = known.unwrap_or_else(|| SumBuilder::new(log.id, base));
        let mut summing = Summing { base, builder, left, position: 0, step: Step::Open, file: None };
        summing.open_next(io, log, token);
        summing
    }

    fn open_next<I: Io>(&mut self, io: &mut I, log: &Log, token: Token) {
        self.left.retain(|(_, len)| *len > 0);
        self.position = 0;
        let Some((summed, _)) = self.left.last() else {
            self.step = Step::OpenSum;
            return io.open(
                token,
                &paths::segment(&log.directory, self.base, SegmentFile::Sum),
                OpenMode::Buffered,
            );
        };
        let kind = match summed {
            Summed::Log => SegmentFile::Log,
            Summed::Index => SegmentFile::Index,
            Summed::TimeIndex => SegmentFile::TimeIndex,
        };
        self.step = Step::Open;
        io.open(token, &paths::segment(&log.directory, self.base, kind), OpenMode::Read);
    }

    /// Takes a completion and goes on; `Ok(true)` when the file is written and flushed.
    pub fn on_done<I: Io>(
        &mut self,
        io: &mut I,
        log: &Log,
        pool: &Pool,
        token: Token,
        done: Result<DiskDone, IoError>,
    ) -> Result<bool, IoError> {
        match (self.step, done?) {
            (Step::Open, DiskDone::Opened(file, _)) => {
                self.file = Some(file);
                self.step = Step::Read;
                self.read(io, pool, token)?;
            }
            (Step::Read, DiskDone::Read(block)) => {
                let Some((summed, len)) = self.left.last().copied() else { return Err(IoError::Cancelled) };
                if block.is_empty() {
                    return Err(IoError::NotFound); // The file is shorter than what was flushed to it.
                }
                self.builder.feed(summed, block.filled());
                self.position += block.len() as u32;
                if self.position < len {
                    self.read(io, pool, token)?;
                } else {
                    self.close(io);
                    self.left.pop();
                    self.open_next(io, log, token);
                }
            }
            (Step::OpenSum, DiskDone::Opened(file, _)) => {
                self.file = Some(file);
                self.step = Step::CutSum;
                io.set_len(token, file, 0);
            }
            (Step::CutSum, _) => {
                self.step = Step::WriteSum;
                io.write(token, self.open_file(), 0, self.builder.clone().finish().encode().into());
            }
            (Step::WriteSum, _) => {
                self.step = Step::FlushSum;
                io.flush(token, self.open_file());
            }
            (Step::FlushSum, _) => {
                self.close(io);
                return Ok(true);
            }
            (step, done) => panic!("the checksum file at {step:?} was answered {done:?}"),
        }
        Ok(false)
    }

    fn read<I: Io>(&mut self, io: &mut I, pool: &Pool, token: Token) -> Result<(), IoError> {
        let (_, len) = self.left.last().expect("a file is being read");
        let want = (len - self.position).min(SEGMENT_WRITE_BYTES as u32) as usize;
        // Without memory the job fails and is tried again by a later round.
        let block = pool.block(want).ok_or(IoError::Cancelled)?;
        io.read(token, self.open_file(), u64::from(self.position), block, want);
        Ok(())
    }

    fn open_file(&self) -> FileId {
        self.file.expect("opened by the step before")
    }

    /// Closes what is open, at the end or when the job is given up.
    pub fn close<I: Io>(&mut self, io: &mut I) {
        if let Some(file) = self.file.take() {
            io.close(file);
        }
    }
}
