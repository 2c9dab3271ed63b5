//! Which cores this process may use, and pinning a thread to one of them.

use std::io;

/// Pins the calling thread to the `index`-th core that it may use, counted round. Gives the error if it could not.
pub fn pin_to_core(index: usize) -> Option<io::Error> {
    let allowed = allowed_cores()?;
    let core = *allowed.get(index % allowed.len().max(1))?;
    // SAFETY: a cpu_set_t is plain bits, for which all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` came out of a set of the same size.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is valid for its size, and 0 means the calling thread.
    let done = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    (done != 0).then(io::Error::last_os_error)
}

/// The cores that the calling thread may use, in order.
fn allowed_cores() -> Option<Vec<usize>> {
    // SAFETY: a cpu_set_t is plain bits, for which all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is valid for its size, and 0 means the calling thread.
    let done = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if done != 0 {
        return None;
    }
    let limit = libc::CPU_SETSIZE as usize;
    // SAFETY: every index is below the set's size.
    let cores: Vec<usize> = (0..limit).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect();
    (!cores.is_empty()).then_some(cores)
}
