//! Memory that is written no more.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::region::Region;

/// Immutable bytes that keep their memory alive. Cloning counts a reference; dropping the last one, on any thread,
/// sends the memory home.
#[derive(Clone)]
pub struct Slice {
    region: Arc<Region>,
    start: usize,
    len: usize,
}

impl Slice {
    pub(super) fn new(region: Arc<Region>, start: usize, len: usize) -> Slice {
        Slice { region, start, len }
    }

    /// The bytes of a mapped file.
    pub fn from_map(map: memmap2::Mmap) -> Slice {
        let region = Region::map(map);
        Slice { start: 0, len: region.len(), region: Arc::new(region) }
    }

    /// A part of these bytes.
    #[inline]
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len, "a slice's range lies outside of it");
        Slice {
            region: Arc::clone(&self.region),
            start: self.start + range.start,
            len: range.end - range.start,
        }
    }

    /// Whether the bytes of `next` are right behind these in the same memory.
    pub fn precedes(&self, next: &Slice) -> bool {
        Arc::ptr_eq(&self.region, &next.region) && self.start + self.len == next.start
    }

    /// Gives up the first `n` bytes.
    #[inline]
    pub fn skip(&mut self, n: usize) {
        assert!(n <= self.len, "no more of a slice is given up than there is");
        self.start += n;
        self.len -= n;
    }

    /// These bytes and those right behind them in the same memory, as one.
    #[must_use]
    pub fn joined(&self, next: &Slice) -> Slice {
        assert!(self.precedes(next), "only neighbours are joined");
        Slice { region: Arc::clone(&self.region), start: self.start, len: self.len + next.len }
    }

    /// Whether no other slice keeps the same memory.
    pub fn is_last(&self) -> bool {
        Arc::strong_count(&self.region) == 1
    }

    /// The bytes of memory that stay taken as long as this slice lives: often more than its length.
    pub fn pinned(&self) -> usize {
        self.region.pinned()
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Slice {
        let region = Region::bytes(bytes);
        Slice { start: 0, len: region.len(), region: Arc::new(region) }
    }
}

impl Deref for Slice {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies within the region, whose bytes here are initialised, frozen, and alive as long as
        // `self.region` is.
        unsafe { std::slice::from_raw_parts(self.region.start().as_ptr().add(self.start), self.len) }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.len)
    }
}
