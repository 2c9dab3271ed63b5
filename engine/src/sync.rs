//! The standard library's atomics and shared cells, or `loom`'s stand-ins for them when models are checked
//! (tests with `--cfg loom`): what is built from these is checked as it is, not a copy of it.

#[cfg(not(all(test, loom)))]
mod backend {
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

    /// A cell whose content is reached through a raw pointer, so that `loom` can watch each access.
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// A cell that holds `value`.
        pub(crate) fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        /// Lets `access` have the content to itself. Using the pointer is where the caller promises that it does.
        pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
            access(self.0.get())
        }
    }
}

#[cfg(all(test, loom))]
mod backend {
    use std::cell::Cell;

    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    thread_local! {
        // A model runs all its threads on the operating system's thread that checks it.
        static FENCES_OFF: Cell<bool> = const { Cell::new(false) };
    }

    /// A fence, unless the model that runs here is a canary that does without.
    pub(crate) fn fence(order: Ordering) {
        if !FENCES_OFF.get() {
            loom::sync::atomic::fence(order);
        }
    }

    /// Runs `canary` with every fence left out.
    pub(crate) fn without_fences<R>(canary: impl FnOnce() -> R) -> R {
        FENCES_OFF.set(true);
        let result = canary();
        FENCES_OFF.set(false);
        result
    }
}

pub(crate) use backend::*;

/// A value on cache lines of its own: 128 bytes, because neighbouring lines are fetched in pairs.
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
