//! How much memory a decoder takes: an allocator that counts, per thread, what is asked of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: usize) {
    // A thread that is ending has no counter any more, and nobody asks for it.
    let _ = TAKEN.try_with(|taken| taken.set(taken.get().saturating_add(bytes)));
}

// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` gives, and the bytes that it asked the allocator for, given back or not.
pub fn taken<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = TAKEN.get();
    let result = work();
    (result, TAKEN.get() - before)
}

#[cfg(test)]
mod tests {
    use super::taken;

    #[test]
    fn what_is_taken_is_counted_though_it_is_given_back() {
        let ((), bytes) = taken(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(1000))));
        assert!((1000..2000).contains(&bytes), "{bytes}");
    }
}
