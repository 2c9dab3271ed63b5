//! The one walk over stored batches: fetch, recovery and the offline tools use it.

use crate::format::batch::{BatchError, BatchHeader};

/// Walks batches in a stretch of a segment, header by header.
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A batch's header and where it lies in the stretch.
#[derive(Clone, Copy, Debug)]
pub struct Scanned {
    /// The header.
    pub header: BatchHeader,
    /// Where it starts.
    pub at: usize,
    /// Whether all of it lies within the stretch.
    pub whole: bool,
}

impl<'a> Scanner<'a> {
    /// A walk over `bytes`, which start with a batch.
    pub fn new(bytes: &'a [u8]) -> Scanner<'a> {
        Scanner { bytes, at: 0 }
    }
}

impl Iterator for Scanner<'_> {
    type Item = Result<Scanned, BatchError>;

    /// The next batch. Ends where the stretch does, or where it has no room for another header; a last batch that is
    /// cut off is given with `whole` unset.
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        match BatchHeader::parse(rest) {
            Ok(header) => {
                let scanned = Scanned { header, at: self.at, whole: header.size <= rest.len() };
                self.at = self.at.saturating_add(header.size);
                Some(Ok(scanned))
            }
            Err(BatchError::Truncated { .. }) => None,
            Err(error) => {
                self.at = self.bytes.len();
                Some(Err(error))
            }
        }
    }
}
