//! The clocks and the source of chance.

use std::io;

use crate::time::{Nanos, WallMs};

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that is ours to be written.
    let outcome = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(outcome, 0, "the clocks used here exist on every Linux");
    time
}

/// The monotonic clock.
pub(super) fn now() -> Nanos {
    let time = read(libc::CLOCK_MONOTONIC);
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The wall clock.
pub(super) fn wall_ms() -> WallMs {
    let time = read(libc::CLOCK_REALTIME);
    WallMs(time.tv_sec * 1000 + time.tv_nsec / 1_000_000)
}

/// A generator of numbers that nobody foresees by accident (xoshiro256++). Not for secrets.
pub(super) struct Chance {
    state: [u64; 4],
}

impl Chance {
    /// Seeded by the kernel.
    pub(super) fn new() -> io::Result<Chance> {
        let mut seed = [0; 32];
        // SAFETY: `seed` is ours to be written, and as long as is said. 32 bytes are given whole or not at all.
        let got = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if got != 32 {
            return Err(io::Error::last_os_error());
        }
        let (words, _) = seed.as_chunks::<8>();
        let mut state = [1; 4];
        for (word, bytes) in state.iter_mut().zip(words) {
            *word = u64::from_le_bytes(*bytes);
        }
        // The one state that the generator never leaves.
        if state == [0; 4] {
            state = [1; 4];
        }
        Ok(Chance { state })
    }

    pub(super) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let drawn = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }
}
