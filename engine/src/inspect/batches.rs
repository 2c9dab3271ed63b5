//! A walk over the batches of one file that goes on behind damage.

use super::reader::Reader;
use crate::error::Fatal;
use crate::format::batch::{BatchError, BatchHeader, HEADER_BYTES, check};
use crate::io::{Blocking, Io};
use crate::types::Offset;

/// What stands at a place of a segment's file.
pub(super) enum Step {
    /// A sound batch.
    Batch(u64, BatchHeader),
    /// A batch that the file's end cuts off: in an open segment its rest is in the journal.
    Cut(u64),
    /// Bytes that are no sound batch, and where the next sound one starts.
    Bad(u64, &'static str, Option<u64>),
}

/// The walk.
pub(super) struct Batches {
    at: u64,
    /// The segment's first offset: none in it is lower.
    base: Offset,
}

impl Batches {
    /// From the start of the segment with this base.
    pub fn new(base: Offset) -> Batches {
        Batches { at: 0, base }
    }

    /// What comes next; `None` at the file's end. `expected` is the lowest offset that a batch behind damage may have.
    pub fn next<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        reader: &mut Reader,
        expected: Offset,
    ) -> Result<Option<Step>, Fatal> {
        let at = self.at;
        if at >= reader.len {
            return Ok(None);
        }
        let what = match sound(disk, reader, at)? {
            Ok(header) => {
                self.at += header.size as u64;
                return Ok(Some(Step::Batch(at, header)));
            }
            Err(BatchError::Truncated { .. }) => None,
            Err(error) => Some(error.what()),
        };
        let resume = self.next_sound(disk, reader, expected)?;
        self.at = resume.unwrap_or(reader.len);
        Ok(Some(match (what, resume) {
            (None, None) => Step::Cut(at),
            (what, resume) => Step::Bad(at, what.unwrap_or("the batch's length is not its own"), resume),
        }))
    }

    /// Where the next sound batch starts: behind the bad one if its length can be believed, else wherever one is found.
    fn next_sound<I: Io>(
        &self,
        disk: &mut Blocking<'_, I>,
        reader: &mut Reader,
        expected: Offset,
    ) -> Result<Option<u64>, Fatal> {
        let lowest = expected.max(self.base);
        let follows = |header: &BatchHeader| {
            header.base_offset >= lowest && i32::try_from(header.base_offset.0 - self.base.0).is_ok()
        };
        if let Ok(header) = BatchHeader::parse(reader.get(disk, self.at, HEADER_BYTES)?) {
            let behind = self.at + header.size as u64;
            if sound(disk, reader, behind)?.is_ok_and(|header| follows(&header)) {
                return Ok(Some(behind));
            }
        }
        let mut at = self.at + 1;
        while at + (HEADER_BYTES as u64) <= reader.len {
            let stretch = reader.get(disk, at, SEARCH_BYTES)?;
            let candidate = stretch
                .windows(HEADER_BYTES)
                .position(|bytes| BatchHeader::parse(bytes).is_ok_and(|header| follows(&header)));
            let Some(found) = candidate else {
                at += stretch.len().saturating_sub(HEADER_BYTES - 1).max(1) as u64;
                continue;
            };
            at += found as u64;
            if sound(disk, reader, at)?.is_ok() {
                return Ok(Some(at));
            }
            at += 1;
        }
        Ok(None)
    }
}

/// How much is searched for a batch at a time.
const SEARCH_BYTES: usize = 64 << 10;

/// The batch at a position, if it is sound.
fn sound<I: Io>(
    disk: &mut Blocking<'_, I>,
    reader: &mut Reader,
    at: u64,
) -> Result<Result<BatchHeader, BatchError>, Fatal> {
    let header = match BatchHeader::parse(reader.get(disk, at, HEADER_BYTES)?) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    Ok(check(reader.get(disk, at, header.size)?))
}
