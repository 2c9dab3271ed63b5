//! How long messages lie in a mailbox: one of them in many is stamped as it is published, beside its ring.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Nanos;

/// Of so many publications one is stamped: the cell's cache line goes to and fro no more often than that.
const EVERY: u32 = 16;

/// When a message was published that has not been taken yet; zero if none is stamped. Beside the ring from one shard to
/// another: the sender sets it when it is zero, the receiver sets it to zero. It orders nothing, and a stamp that is
/// taken with the message before its own makes a sample that is too short, by less than the receiver's turn.
#[derive(Debug, Default)]
pub struct Sample(AtomicU64);

impl Sample {
    /// Something is about to be published, for the `number`th time.
    pub fn publish(&self, number: u32, now: Nanos) {
        if number.is_multiple_of(EVERY) && self.0.load(Ordering::Relaxed) == 0 {
            self.0.store(now.0, Ordering::Relaxed);
        }
    }

    /// Something has been taken: when it was published, if it was stamped.
    pub fn take(&self) -> Option<Nanos> {
        let stamp = self.0.load(Ordering::Relaxed);
        if stamp == 0 {
            return None;
        }
        self.0.store(0, Ordering::Relaxed);
        Some(Nanos(stamp))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_publication_in_many_is_stamped_and_its_stamp_stays_until_it_is_taken() {
        let sample = Sample::default();
        assert_eq!(sample.take(), None);
        for number in 0..=EVERY {
            sample.publish(number, Nanos(10 + u64::from(number)));
        }
        assert_eq!(sample.take(), Some(Nanos(10)));
        sample.publish(EVERY + 1, Nanos(50));
        assert_eq!(sample.take(), None);
        sample.publish(2 * EVERY, Nanos(60));
        assert_eq!(sample.take(), Some(Nanos(60)));
    }
}
