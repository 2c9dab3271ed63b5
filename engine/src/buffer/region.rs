//! A contiguous piece of memory and the way it is given back.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Advice, MmapMut};

use super::pool::Home;
use crate::limits::{BLOCK_BYTES, HUGE_PAGE_BYTES, MAPPED_MEMORY_BYTES_MIN};

/// Raw memory, aligned to a disk block and initialised from the start (zeroed once, recycled later), so that every
/// byte of it may be read at any time.
pub(super) struct Memory {
    start: NonNull<u8>,
    len: usize,
    source: Source,
}

/// Where memory came from, and goes.
enum Source {
    Heap,
    /// The system itself. It goes back when the map's last piece does.
    Map(#[expect(dead_code, reason = "held for its lifetime")] Arc<MmapMut>),
}

// SAFETY: `Memory` alone owns its bytes, an allocation or a piece of a map; who may touch which of them is settled by
// `Block` and `Slice`.
unsafe impl Send for Memory {}
// SAFETY: as above; a shared `Memory` hands out pointers only.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory of `len` bytes, a power of two and at least a disk block; what else came with it goes to `spare`.
    ///
    /// Large memory lies in huge pages, where the system has them. A write past the page cache looks up every page that
    /// it takes bytes from, and the device gets a segment for each run of neighbours: in a huge page that is one of each.
    pub(super) fn new(len: usize, spare: impl FnMut(Memory)) -> Memory {
        assert!(len.is_power_of_two() && len >= BLOCK_BYTES, "memory comes in classes");
        if len >= MAPPED_MEMORY_BYTES_MIN { Memory::map(len, spare) } else { Memory::heap(len) }
    }

    fn heap(len: usize) -> Memory {
        let layout = Memory::layout(len);
        // SAFETY: the layout's size is not zero (`new` asserts it).
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Memory { start, len, source: Source::Heap }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, BLOCK_BYTES).expect("a slab's size is far below isize::MAX")
    }

    /// A map of its own, or of as many pieces as a huge page has.
    fn map(len: usize, spare: impl FnMut(Memory)) -> Memory {
        let whole = len.max(HUGE_PAGE_BYTES);
        // Not every kernel starts a map at a huge page. What is mapped to make up for that is never touched.
        let mut map = MmapMut::map_anon(whole + HUGE_PAGE_BYTES)
            .unwrap_or_else(|_| handle_alloc_error(Memory::layout(whole)));
        // Where it is refused, all goes on with small pages. Miri knows of no such advice.
        if !cfg!(miri) {
            let _ = map.advise(Advice::HugePage);
        }
        // Pieces are written to: a pointer that came from a shared slice could not be.
        let mapped = map.as_mut_ptr();
        let map = Arc::new(map);
        let skipped = mapped.align_offset(HUGE_PAGE_BYTES);
        let piece = |at: usize| {
            // SAFETY: pieces lie behind what is skipped, less than a huge page, and end within `whole` from there on; so they
            // are within the map. Its pages are zeros until they are written.
            let start = unsafe { mapped.add(skipped + at) };
            let start = NonNull::new(start).expect("a mapping's address is never null");
            Memory { start, len, source: Source::Map(Arc::clone(&map)) }
        };
        (len..whole).step_by(len).map(piece).for_each(spare);
        piece(0)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Writes to every page, so that the system has to find them now.
    pub(super) fn touch(&mut self) {
        // SAFETY: `self` owns these bytes alone, from `start` on, and zeros are what new memory holds.
        unsafe { self.start.as_ptr().write_bytes(0, self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Source::Heap = self.source {
            // SAFETY: allocated in `heap` with this very layout, and freed once.
            unsafe { dealloc(self.start.as_ptr(), Memory::layout(self.len)) }
        }
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

    #[inline]
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
