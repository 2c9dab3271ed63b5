//! A contiguous piece of memory and the way it is given back.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use super::pool::Home;
use crate::limits::BLOCK_BYTES;

/// Raw memory, aligned to a disk block and initialised from the start (zeroed once, recycled later), so that every
/// byte of it may be read at any time.
pub(super) struct Memory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: `Memory` owns its allocation; who may touch which byte is settled by `Block` and `Slice`.
unsafe impl Send for Memory {}
// SAFETY: as above; a shared `Memory` hands out pointers only.
unsafe impl Sync for Memory {}

impl Memory {
    pub(super) fn new(len: usize) -> Memory {
        let layout = Memory::layout(len);
        // SAFETY: the layout's size is not zero (`layout` asserts it).
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Memory { start, len }
    }

    fn layout(len: usize) -> Layout {
        assert!(len > 0, "memory of no bytes was asked for");
        Layout::from_size_align(len, BLOCK_BYTES).expect("a slab's size is far below isize::MAX")
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout, and freed once.
        unsafe { dealloc(self.start.as_ptr(), Memory::layout(self.len)) }
    }
}

/// What holds the bytes that slices point into.
enum Holder {
    /// A slab of a pool; goes home when the region is dropped.
    Slab(Option<Memory>, Arc<Home>),
    /// A vector that somebody else filled.
    Bytes(Vec<u8>),
    /// A mapped file.
    Map(#[expect(dead_code, reason = "held for its lifetime")] memmap2::Mmap),
}

/// Shared memory. Bytes below a block's frozen end are never written again; bytes above it belong to that block alone.
pub(super) struct Region {
    start: NonNull<u8>,
    len: usize,
    holder: Holder,
}

// SAFETY: the pointer is into memory that `holder` owns; writers are unique by `Block`'s construction, and what is
// shared is immutable.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    pub(super) fn slab(memory: Memory, home: Arc<Home>) -> Region {
        Region { start: memory.start, len: memory.len, holder: Holder::Slab(Some(memory), home) }
    }

    pub(super) fn bytes(mut bytes: Vec<u8>) -> Region {
        let start = NonNull::new(bytes.as_mut_ptr()).expect("a vector's pointer is never null");
        Region { start, len: bytes.len(), holder: Holder::Bytes(bytes) }
    }

    pub(super) fn map(map: memmap2::Mmap) -> Region {
        let start = NonNull::new(map.as_ptr().cast_mut()).expect("a mapping's address is never null");
        Region { start, len: map.len(), holder: Holder::Map(map) }
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The bytes of memory that this region keeps from being reused: a mapping costs none.
    pub(super) fn pinned(&self) -> usize {
        match &self.holder {
            Holder::Slab(..) => self.len,
            Holder::Bytes(bytes) => bytes.capacity(),
            Holder::Map(_) => 0,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Holder::Slab(memory, home) = &mut self.holder
            && let Some(memory) = memory.take()
        {
            home.take_back(memory);
        }
    }
}
