//! Memory lent to the kernel, which fills it with what connections receive.
//!
//! A block is lent through the kernel's buffer ring. What comes in is frozen and handed up as a slice; what is left of
//! the block is lent again, so that small messages share a block. When the pool has no block to give, fewer are lent;
//! when none is, receiving stops with ENOBUFS until memory comes home.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;
use crate::buffer::{Block, Pool, Slice};
use crate::limits::{BLOCK_BYTES, RECEIVE_BLOCK_BYTES, RECEIVE_BLOCKS_MAX, RECEIVE_REST_BYTES_MIN};

/// The one group of buffers there is.
pub(super) const GROUP: u16 = 0;

/// The blocks that the kernel may fill.
pub(super) struct Lent {
    pool: Pool,
    /// Shared with the kernel: which memory it may take next. Page-aligned.
    entries: NonNull<BufRingEntry>,
    /// Lent blocks by their number; the kernel names the number of the one it filled.
    blocks: Vec<Option<Block>>,
    /// Numbers of which no block is lent.
    vacant: Vec<u16>,
    /// Entries ever offered, modulo 2^16.
    tail: u16,
}

impl Lent {
    /// Lends blocks out of `pool`, at most half of it at a time.
    pub(super) fn new(ring: &Ring, pool: Pool) -> io::Result<Lent> {
        let half = pool.usage().limit / RECEIVE_BLOCK_BYTES / 2;
        // The largest power of two in `half`.
        let count = 1 << half.clamp(1, RECEIVE_BLOCKS_MAX).ilog2();
        let layout = Lent::layout(count);
        // SAFETY: the layout's size is not zero.
        let Some(entries) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        let lent = Lent {
            pool,
            entries: entries.cast(),
            blocks: (0..count).map(|_| None).collect(),
            vacant: (0..count as u16).collect(),
            tail: 0,
        };
        let (submitter, address) = (ring.uring().submitter(), entries.as_ptr() as u64);
        // SAFETY: the memory is as large as the layout says, and is freed only after `take_back` (or not at all).
        unsafe { submitter.register_buf_ring_with_flags(address, count as u16, GROUP, 0)? };
        Ok(lent)
    }

    fn layout(count: usize) -> Layout {
        Layout::array::<BufRingEntry>(count)
            .and_then(|layout| layout.align_to(BLOCK_BYTES))
            .expect("a few pages can be laid out")
    }

    /// Lends what the pool has, up to the ring's size.
    pub(super) fn replenish(&mut self) {
        while let Some(number) = self.vacant.pop() {
            let Some(block) = self.pool.block(RECEIVE_BLOCK_BYTES) else {
                return self.vacant.push(number);
            };
            self.lend(number, block);
        }
    }

    /// Whether the kernel has something to fill.
    pub(super) fn is_exhausted(&self) -> bool {
        self.vacant.len() == self.blocks.len()
    }

    fn lend(&mut self, number: u16, mut block: Block) {
        let at = usize::from(self.tail) & (self.blocks.len() - 1);
        let spare = block.spare_mut();
        // SAFETY: `at` is below the ring's size. The kernel reads this entry only after the tail has passed it, and
        // has done with what was there before: no more are lent than there are entries.
        let entry = unsafe { &mut *self.entries.as_ptr().add(at) };
        entry.set_addr(spare.as_mut_ptr() as u64);
        entry.set_len(spare.len() as u32);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in a field of the ring's first entry that entries themselves do not use; it is aligned
        // to two bytes, and shared with the kernel by atomic access only.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        self.blocks[usize::from(number)] = Some(block);
    }

    /// The kernel has filled `n` bytes of a lent block.
    pub(super) fn filled(&mut self, number: u16, n: usize) -> Slice {
        let mut block = self.take(number);
        block.advance(n);
        let slice = block.split_frozen();
        if block.spare() >= RECEIVE_REST_BYTES_MIN {
            self.lend(number, block);
        } else {
            self.vacant.push(number);
        }
        slice
    }

    /// The kernel took a lent block and left it empty.
    pub(super) fn unfilled(&mut self, number: u16) {
        let block = self.take(number);
        self.lend(number, block);
    }

    fn take(&mut self, number: u16) -> Block {
        let block = self.blocks.get_mut(usize::from(number)).and_then(Option::take);
        block.expect("the kernel names blocks that were lent to it")
    }

    /// Takes the memory from the kernel, after the last receive has completed.
    pub(super) fn take_back(self, ring: &Ring) {
        if ring.uring().submitter().unregister_buf_ring(GROUP).is_ok() {
            // SAFETY: allocated in `new` with this very layout, freed once, and unknown to the kernel from here on.
            unsafe { dealloc(self.entries.as_ptr().cast(), Lent::layout(self.blocks.len())) }
        } else {
            // The kernel still knows the blocks: better leaked than filled under somebody else's hands.
            std::mem::forget(self.blocks);
        }
    }
}
