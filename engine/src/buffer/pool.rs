//! Slabs, lent out and taken back. One pool per shard and purpose; its limit is the memory that purpose may take.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::block::Block;
use super::region::{Memory, Region};
use crate::limits::BLOCK_BYTES;

/// Slabs come in powers of two from one disk block up; what is larger than the top class is not kept for reuse.
const CLASSES: usize = 12;
/// Of what has lain unused for a while, this share goes back to the system at a time: at one time a second, half of it in three
/// quarters of a minute.
const GIVE_BACK_SHARE: usize = 64;

/// Where slabs return to, from any thread.
pub(super) struct Home {
    limit: usize,
    in_use: AtomicUsize,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    bytes: usize,
    /// The least that `bytes` has been since memory was last given back.
    unused_bytes: usize,
    /// What is kept in any case.
    reserved_bytes: usize,
    /// The slabs that it is kept in.
    reserved_len: usize,
    classes: [Vec<Memory>; CLASSES],
}

/// Lends out blocks of memory up to a limit. Cloning it shares it.
#[derive(Clone)]
pub struct Pool {
    home: Arc<Home>,
}

/// A pool's state, for metrics and for tests that look for leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Bytes lent out.
    pub in_use: usize,
    /// Bytes kept for reuse.
    pub free: usize,
    /// The most that may be lent out.
    pub limit: usize,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?})", self.usage())
    }
}

impl Pool {
    /// A pool that lends out at most `limit` bytes at a time.
    pub fn new(limit: usize) -> Pool {
        Pool {
            home: Arc::new(Home { limit, in_use: AtomicUsize::new(0), free: Mutex::new(Free::default()) }),
        }
    }

    /// Whether a block of `len` bytes can be had at all, be it when everything else has come back.
    pub fn could_hold(&self, len: usize) -> bool {
        len.max(BLOCK_BYTES).next_power_of_two() <= self.home.limit
    }

    /// Whether a block of `len` bytes can be had now, unless somebody else takes the memory.
    pub fn has_room(&self, len: usize) -> bool {
        let size = len.max(BLOCK_BYTES).next_power_of_two();
        self.home.in_use.load(Ordering::Relaxed) + size <= self.home.limit
    }

    /// A block of at least `len` bytes, aligned to a disk block; `None` when the limit is reached.
    /// Its bytes are whatever the last user left.
    pub fn block(&self, len: usize) -> Option<Block> {
        let size = len.max(BLOCK_BYTES).next_power_of_two();
        let lent = self.home.in_use.fetch_add(size, Ordering::Relaxed);
        if lent + size > self.home.limit {
            self.home.in_use.fetch_sub(size, Ordering::Relaxed);
            return None;
        }
        let make = || Memory::new(size, |spare| self.home.keep(spare));
        let memory = self.home.reuse(size).or_else(|| self.home.reuse_twice(size)).unwrap_or_else(make);
        Some(Block::new(Arc::new(Region::slab(memory, Arc::clone(&self.home)))))
    }

    /// Takes `count` slabs of `len` bytes from the system now, keeps as much for good, and from now on wants as much to lie
    /// ready; see [`Pool::is_short`]. Memory that is touched for the first time holds its user up, by milliseconds for a huge
    /// page in a virtual machine whose host has to find it.
    pub fn reserve(&self, count: usize, len: usize) {
        let size = len.max(BLOCK_BYTES).next_power_of_two();
        {
            let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.reserved_bytes += count * size;
            free.reserved_len = size;
        }
        self.replenish(count);
    }

    /// Whether less than half of what was reserved lies ready, and more may be taken from the system: time to
    /// [`Pool::replenish`], on a thread that nobody waits for. Who does nothing keeps a slab or two, and shall cost no more.
    pub fn is_short(&self) -> bool {
        let free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        2 * free.bytes < free.reserved_bytes && self.home.has_room(&free)
    }

    /// Takes up to `slabs` slabs from the system and touches them, while less than what was reserved lies ready.
    pub fn replenish(&self, slabs: usize) {
        for _ in 0..slabs {
            let free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
            if free.bytes >= free.reserved_bytes || !self.home.has_room(&free) {
                return;
            }
            let len = free.reserved_len;
            drop(free);
            let keep = |mut memory: Memory| {
                memory.touch();
                self.home.keep(memory);
            };
            keep(Memory::new(len, keep));
        }
    }

    /// Gives a part of what nobody has needed since the last call back to the system. To be called every second or so: memory
    /// that comes from the system anew is zeroed page by page, which costs more than to fill it.
    pub fn give_back_unused(&self) {
        // Dropped behind the lock: to unmap takes a while, and slabs come home from other threads.
        let mut gone = Vec::new();
        let mut free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = (free.bytes - free.unused_bytes.div_ceil(GIVE_BACK_SHARE)).max(free.reserved_bytes);
        for class in (0..CLASSES).rev() {
            while free.bytes > keep
                && let Some(memory) = free.classes.get_mut(class).and_then(Vec::pop)
            {
                free.bytes -= memory.len();
                gone.push(memory);
            }
        }
        free.unused_bytes = free.bytes;
    }

    /// What is lent out and what is kept.
    pub fn usage(&self) -> PoolUse {
        let free = self.home.free.lock().unwrap_or_else(PoisonError::into_inner).bytes;
        PoolUse { in_use: self.home.in_use.load(Ordering::Relaxed), free, limit: self.home.limit }
    }
}

impl Home {
    fn class(size: usize) -> usize {
        (size / BLOCK_BYTES).trailing_zeros() as usize
    }

    /// Whether another slab of those that are reserved may be taken from the system.
    fn has_room(&self, free: &Free) -> bool {
        self.in_use.load(Ordering::Relaxed) + free.bytes + free.reserved_len <= self.limit
    }

    fn reuse(&self, size: usize) -> Option<Memory> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = free.classes.get_mut(Home::class(size))?.pop()?;
        free.bytes -= size;
        free.unused_bytes = free.unused_bytes.min(free.bytes);
        Some(memory)
    }

    /// A slab twice as large as asked for, if it may be lent out: it has been touched, which new memory has not, and that
    /// holds its first user up; see [`Pool::reserve`].
    fn reuse_twice(&self, size: usize) -> Option<Memory> {
        let lent = self.in_use.fetch_add(size, Ordering::Relaxed);
        let memory = if lent + size > self.limit { None } else { self.reuse(2 * size) };
        if memory.is_none() {
            self.in_use.fetch_sub(size, Ordering::Relaxed);
        }
        memory
    }

    /// Takes a slab back; on whatever thread its last slice was dropped.
    pub(super) fn take_back(&self, memory: Memory) {
        self.in_use.fetch_sub(memory.len(), Ordering::Relaxed);
        self.keep(memory);
    }

    /// Keeps memory for reuse.
    fn keep(&self, memory: Memory) {
        let size = memory.len();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(class) = free.classes.get_mut(Home::class(size)) {
            class.push(memory);
            free.bytes += size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_goes_home_when_its_last_slice_is_dropped_on_another_thread() {
        let pool = Pool::new(1 << 20);
        let mut block = pool.block(8192).unwrap();
        block.push(b"hello");
        let slice = block.freeze();
        let other = slice.slice(1..3);
        assert_eq!(pool.usage().in_use, 8192);
        drop(slice);
        assert_eq!(pool.usage().in_use, 8192);
        std::thread::spawn(move || assert_eq!(&other[..], b"el")).join().unwrap();
        assert_eq!(pool.usage(), PoolUse { in_use: 0, free: 8192, limit: 1 << 20 });
    }

    #[test]
    fn the_limit_holds_and_heals() {
        let pool = Pool::new(16384);
        let first = pool.block(8192).unwrap();
        let second = pool.block(5000).unwrap();
        assert!(pool.block(1).is_none());
        drop(first);
        assert!(pool.block(1).is_some());
        drop(second);
        assert_eq!(pool.usage().in_use, 0);
    }

    #[test]
    fn what_nobody_needs_goes_back_bit_by_bit_and_what_is_needed_stays() {
        let pool = Pool::new(256 * 8192);
        let lend = |count: usize| (0..count).map(|_| pool.block(8192).unwrap()).collect::<Vec<_>>();
        drop(lend(256));
        pool.give_back_unused();
        assert_eq!(pool.usage().free, 256 * 8192, "all of it was needed since the last time");
        drop(lend(128));
        pool.give_back_unused();
        assert_eq!(pool.usage().free, 254 * 8192, "a part of the other half");
        for _ in 0..1000 {
            pool.give_back_unused();
        }
        assert_eq!(pool.usage().free, 0);
    }

    #[test]
    fn what_is_reserved_is_there_and_stays() {
        let pool = Pool::new(16 * 8192);
        pool.reserve(3, 8192);
        for _ in 0..100 {
            pool.give_back_unused();
        }
        assert_eq!(pool.usage(), PoolUse { in_use: 0, free: 3 * 8192, limit: 16 * 8192 });
    }

    #[test]
    fn what_was_reserved_and_is_lent_is_made_up_for_within_the_limit() {
        let pool = Pool::new(5 * 8192);
        assert!(!pool.is_short(), "nothing was reserved");
        pool.reserve(2, 8192);
        assert!(!pool.is_short());
        let first = pool.block(8192);
        assert!(!pool.is_short(), "one of two");
        let lent = [first, pool.block(8192)];
        assert!(pool.is_short());
        pool.replenish(100);
        assert_eq!(pool.usage(), PoolUse { in_use: 2 * 8192, free: 2 * 8192, limit: 5 * 8192 });
        let more = [pool.block(8192), pool.block(8192)];
        pool.replenish(100);
        assert_eq!(pool.usage().free, 8192, "the limit is reached");
        assert!(!pool.is_short(), "there is no more to be had");
        drop((lent, more));
    }

    #[test]
    fn a_slab_twice_as_large_is_taken_before_new_memory_but_within_the_limit() {
        let pool = Pool::new(4 * 8192);
        pool.reserve(1, 2 * 8192);
        let first = pool.block(8192).unwrap();
        assert_eq!(pool.usage(), PoolUse { in_use: 2 * 8192, free: 0, limit: 4 * 8192 });
        drop(first);
        let others = [pool.block(4 * 4096), pool.block(8192)];
        assert_eq!(pool.usage().in_use, 3 * 8192, "what is there in its own size comes first");
        drop(others);
        let full = pool.block(3 * 8192);
        assert!(full.is_some() && pool.block(1).is_none());
        drop(full);
        assert_eq!(pool.usage().in_use, 0);
    }

    #[test]
    fn what_a_huge_page_has_beside_a_small_slab_is_kept_for_the_next_ones() {
        let pool = Pool::new(4 << 20);
        let mut first = pool.block(256 << 10).unwrap();
        assert_eq!(
            pool.usage(),
            PoolUse { in_use: 256 << 10, free: (2 << 20) - (256 << 10), limit: 4 << 20 }
        );
        let mut others: Vec<_> = (0..7).map(|_| pool.block(256 << 10).unwrap()).collect();
        assert_eq!(pool.usage().free, 0);
        first.push_zeros(256 << 10);
        for block in &mut others {
            block.spare_mut().fill(1);
        }
        assert!(first.filled().iter().all(|byte| *byte == 0), "two slabs share a byte");
    }
}
