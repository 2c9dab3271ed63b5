//! Sleeping and waking: a shard that has nothing to do blocks in the kernel, and is rung only while it does.
//!
//! | the sleeper ([`Parking::announce_sleep`])  | a sender                                          |
//! |--------------------------------------------|---------------------------------------------------|
//! | 1. swap to asleep                          | 1. publish the message                            |
//! | 2. fence                                   | 2. fence ([`Published::fence`])                   |
//! | 3. look again at everything it takes from  | 3. if asleep: swap to awake ([`Parking::must_ring`]) |
//! | 4. block, unless something was there       | 4. ring, if the swap found it asleep              |
//! | 5. swap to awake                           |                                                   |
//!
//! Why no wake-up is lost: of the two fences one comes first in the single order of all such fences. If it is the
//! sender's, the sleeper's second look sees the message. If it is the sleeper's, the sender sees it asleep, or sees
//! that another sender has swapped since; the swap makes exactly one of them owe the ring. A ring is remembered by the
//! kernel until the sleeper's next poll, so it may come before the sleeper blocks, or after it woke by itself: then a
//! poll returns for nothing, which costs a turn and no more.
//!
//! A sender that swapped must ring before it blocks itself, or the ring would be owed for ever. `model.rs` checks all
//! this under `loom`, and that the check fails when a fence or the second look is left out.

use crate::sync::{AtomicBool, Ordering, Padded, fence};

/// Whether one shard sleeps. Shared by that shard and whoever sends to it: the other shards, and threads that are no
/// shards, which ring by a [`crate::io::Bell`].
pub struct Parking {
    asleep: Padded<AtomicBool>,
}

/// The proof that a sender's messages were published and fenced before it asks who sleeps.
#[derive(Clone, Copy)]
pub struct Published(());

impl Published {
    /// To be called once after publishing, for any number of receivers.
    pub fn fence() -> Published {
        fence(Ordering::SeqCst);
        Published(())
    }
}

impl Default for Parking {
    fn default() -> Parking {
        Parking { asleep: Padded(AtomicBool::new(false)) }
    }
}

impl Parking {
    /// The sleeper's side, before it blocks. `anything` looks at every source that senders publish to; if it finds
    /// something, the shard counts as awake again. True: it may block, and calls [`Parking::awake`] when it is back.
    #[must_use]
    pub fn announce_sleep(&self, anything: impl FnOnce() -> bool) -> bool {
        // Stores would do here and in `awake`, and beside a system call swaps cost nothing. But `loom` orders the values
        // that swaps write and not always those of stores among them, and would report losses that cannot be.
        self.asleep.0.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let may_sleep = !anything();
        if !may_sleep {
            self.awake();
        }
        may_sleep
    }

    /// The sleeper's side, after it blocked. What was published while it slept is found by its next take.
    pub fn awake(&self) {
        self.asleep.0.swap(false, Ordering::Relaxed);
    }

    /// The sender's side. True: the shard sleeps, and this sender is the one that has to ring it, before it blocks
    /// itself.
    #[must_use]
    pub fn must_ring(&self, _after: Published) -> bool {
        // Looking first leaves the cache line shared while the receiver is awake, which is when there is much to send.
        self.asleep.0.load(Ordering::Relaxed) && self.asleep.0.swap(false, Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_a_sleeper_is_rung_and_by_one_sender_only() {
        let parking = Parking::default();
        assert!(!parking.must_ring(Published::fence()), "rung while awake");
        assert!(parking.announce_sleep(|| false));
        assert!(parking.must_ring(Published::fence()));
        assert!(!parking.must_ring(Published::fence()), "rung twice");
    }

    #[test]
    fn a_second_look_that_finds_something_keeps_the_shard_awake() {
        let parking = Parking::default();
        assert!(!parking.announce_sleep(|| true));
        assert!(!parking.must_ring(Published::fence()));
    }

    #[test]
    fn a_shard_that_woke_by_itself_is_not_rung() {
        let parking = Parking::default();
        assert!(parking.announce_sleep(|| false));
        parking.awake();
        assert!(!parking.must_ring(Published::fence()));
    }
}
