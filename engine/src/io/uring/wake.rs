//! Waking: shards wake each other through their rings, other threads ring a bell.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::{fmt, io};

use io_uring::{opcode, types};

use super::ring::{Owner, Ring};
use crate::io::Bell;
use crate::limits::SHARDS_MAX;
use crate::types::ShardId;

/// The shard has no ring yet.
const ABSENT: RawFd = -1;
/// It has none yet, and was woken already.
const ABSENT_WOKEN: RawFd = -2;

/// The rings of all shards of a process, by which they wake each other. Made once, shared by all.
pub struct Peers {
    rings: Vec<AtomicI32>,
}

impl Peers {
    /// For so many shards.
    pub fn new(shards: u16) -> Peers {
        assert!((1..=SHARDS_MAX).contains(&shards), "a process has 1 to {SHARDS_MAX} shards");
        Peers { rings: (0..shards).map(|_| AtomicI32::new(ABSENT)).collect() }
    }

    fn ring(&self, shard: ShardId) -> &AtomicI32 {
        self.rings.get(usize::from(shard.0)).expect("a shard is one of those that were counted at the start")
    }

    /// Makes a shard's ring known. True if the shard was woken before.
    pub(super) fn join(&self, shard: ShardId, ring: RawFd) -> bool {
        let before = self.ring(shard).swap(ring, Ordering::AcqRel);
        assert!(before < 0, "two rings for one shard");
        before == ABSENT_WOKEN
    }

    /// Forgets a shard's ring before it is closed. A peer that is submitting a message just now may still send it to
    /// whatever ring gets that descriptor next: that shard turns once for nothing.
    pub(super) fn leave(&self, shard: ShardId) {
        self.ring(shard).store(ABSENT, Ordering::Release);
    }

    /// Queues a message that wakes a shard. It goes out with the next submission.
    pub(super) fn wake(&self, shard: ShardId, from: &mut Ring) {
        let peer = self.ring(shard);
        loop {
            let fd = peer.load(Ordering::Acquire);
            if fd >= 0 {
                let message = opcode::MsgRingData::new(types::Fd(fd), 0, Owner::Wake.pack(), None);
                return from.push_quiet(message.build());
            }
            if peer.compare_exchange(fd, ABSENT_WOKEN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peers({} shards)", self.rings.len())
    }
}

/// An eventfd, and whether it was rung since the shard last looked.
pub(super) struct EventBell {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Bell for EventBell {
    fn ring(&self) {
        // Whoever finds it rung has stored its news before the shard, which clears the flag first, looks for them.
        if self.rung.swap(true, Ordering::SeqCst) {
            return;
        }
        // SAFETY: no memory is involved. The counter cannot overflow, so the call cannot block.
        let outcome = unsafe { libc::eventfd_write(self.fd.as_raw_fd(), 1) };
        assert_eq!(outcome, 0, "an eventfd takes what is far below its limit");
    }
}

/// The shard's side of its bell: a read that the ring keeps waiting.
pub(super) struct BellReader {
    bell: Arc<EventBell>,
    /// What the kernel reads into; not touched by us.
    counter: Box<[u8; 8]>,
}

impl BellReader {
    pub(super) fn new() -> io::Result<BellReader> {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made just now and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let bell = Arc::new(EventBell { fd, rung: AtomicBool::new(false) });
        Ok(BellReader { bell, counter: Box::new([0; 8]) })
    }

    pub(super) fn bell(&self) -> Arc<EventBell> {
        Arc::clone(&self.bell)
    }

    /// Waits for the next ring. Called once at the start and once after every completion.
    pub(super) fn arm(&mut self, ring: &mut Ring) {
        let fd = types::Fd(self.bell.fd.as_raw_fd());
        let read = opcode::Read::new(fd, self.counter.as_mut_ptr(), self.counter.len() as u32).build();
        // SAFETY: the counter is on the heap, not touched by us, and outlives the ring's operations (`Uring::drop`).
        unsafe { ring.push(Owner::Bell, read) }
    }

    /// The read has completed: from now on a ring is a new one.
    pub(super) fn rung(&mut self, ring: &mut Ring) {
        self.bell.rung.store(false, Ordering::SeqCst);
        self.arm(ring);
    }
}
