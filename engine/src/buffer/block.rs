//! Memory being written.

use std::sync::Arc;

use super::region::Region;
use super::slice::Slice;

/// The one writer of a stretch of memory. It fills from the front; what is filled can be frozen and shared while the
/// rest is still being written.
pub struct Block {
    region: Arc<Region>,
    /// Where this block's stretch starts within the region; everything before it is frozen.
    start: usize,
    /// Bytes filled from `start` on.
    len: usize,
    /// Bytes that belong to this block from `start` on.
    capacity: usize,
}

impl Block {
    pub(super) fn new(region: Arc<Region>) -> Block {
        let capacity = region.len();
        Block { region, start: 0, len: 0, capacity }
    }

    /// Bytes filled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is filled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that can still be filled.
    pub fn spare(&self) -> usize {
        self.capacity - self.len
    }

    /// Bytes that this block holds when it is full.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The whole stretch, filled or not.
    fn stretch(&mut self) -> &mut [u8] {
        // SAFETY: `start + capacity` lies within the region; its memory is initialised; and no slice covers any byte
        // from `start` on, since slices are only made of frozen bytes, which lie before it.
        unsafe { std::slice::from_raw_parts_mut(self.region.start().as_ptr().add(self.start), self.capacity) }
    }

    /// The filled bytes.
    pub fn filled(&self) -> &[u8] {
        // SAFETY: as in `stretch`; and `&self` keeps this block from writing while the reference lives.
        unsafe { std::slice::from_raw_parts(self.region.start().as_ptr().add(self.start), self.len) }
    }

    /// The filled bytes, to be changed in place (a header completed after its body).
    pub fn filled_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.stretch()[..len]
    }

    /// The bytes that are not filled yet.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.stretch()[len..]
    }

    /// Counts `n` more bytes as filled, after they were written through [`Block::spare_mut`].
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.spare(), "a block is filled past its end");
        self.len += n;
    }

    /// Appends `bytes`, which must fit.
    pub fn push(&mut self, bytes: &[u8]) {
        self.spare_mut()[..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends `n` zero bytes, which must fit.
    pub fn push_zeros(&mut self, n: usize) {
        self.spare_mut()[..n].fill(0);
        self.len += n;
    }

    /// Gives up what this block holds past its first `capacity` bytes, all of them not filled yet.
    #[must_use]
    pub fn cut(mut self, capacity: usize) -> Block {
        assert!(
            self.len <= capacity && capacity <= self.capacity,
            "a block is cut within what is not filled"
        );
        self.capacity = capacity;
        self
    }

    /// Forgets what was filled.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Freezes everything filled; the rest of the stretch is given up.
    pub fn freeze(self) -> Slice {
        Slice::new(self.region, self.start, self.len)
    }

    /// Freezes everything filled and goes on behind it, empty.
    #[must_use]
    pub fn split_frozen(&mut self) -> Slice {
        let slice = Slice::new(Arc::clone(&self.region), self.start, self.len);
        self.start += self.len;
        self.capacity -= self.len;
        self.len = 0;
        slice
    }
}

#[cfg(test)]
mod tests {
    use crate::buffer::Pool;

    #[test]
    fn a_block_goes_on_behind_what_it_froze() {
        let pool = Pool::new(1 << 20);
        let mut block = pool.block(4096).unwrap();
        block.push(b"first");
        let first = block.split_frozen();
        block.push(b"second");
        block.filled_mut()[0] = b'S';
        let second = block.freeze();
        assert_eq!((&first[..], &second[..]), (&b"first"[..], &b"Second"[..]));
        assert_eq!(first.joined(&second)[..], b"firstSecond"[..]);
    }

    #[test]
    fn capacity_shrinks_by_what_was_frozen() {
        let pool = Pool::new(1 << 20);
        let mut block = pool.block(4096).unwrap();
        block.push_zeros(4000);
        let frozen = block.split_frozen();
        assert_eq!((block.capacity(), block.spare(), frozen.len()), (96, 96, 4000));
    }
}
