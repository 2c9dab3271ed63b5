//! How long a shard's thread may run before it has to make way for others on its core.

use std::io;

use crate::time::Nanos;

/// The shortest slice that the kernel grants.
const TIME_SLICE: Nanos = Nanos::from_micros(100);

/// Asks for a short time slice for the calling thread and for those that it starts, the ring's workers among them. The
/// worker that carries a commit's flush wakes up on the same core; with the slice that the kernel gives by default, a
/// busy reactor would keep it waiting for 3 ms, and in fact until the next tick. Kernels before 6.12 ignore it. Gives the
/// error if it was refused.
pub fn shorten_time_slice() -> Option<io::Error> {
    // SAFETY: a sched_attr is plain integers, for which zero is a value.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: the structure is valid for writes of its size, and 0 means the calling thread.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    if got != 0 {
        return Some(io::Error::last_os_error());
    }
    attr.size = size;
    attr.sched_runtime = TIME_SLICE.0;
    // SAFETY: the structure is valid for reads of its size, and 0 means the calling thread.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    (set != 0).then(io::Error::last_os_error)
}
