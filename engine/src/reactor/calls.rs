//! What threads that are no shards have to say to hosts. Each shard has a line of it, which it looks at once per turn: one load of
//! a flag when nobody has called.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use crate::limits::CALLS_WAITING_MAX;

/// A message from outside.
pub type Call = Box<dyn Any + Send>;

/// The calls that wait for one shard.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Set before the bell is rung. A shard that finds it unset has not missed anything but what its bell will tell it of.
    some: AtomicBool,
    waiting: Mutex<Vec<Call>>,
}

impl Line {
    /// Puts a call in line; gives it back if there are [`CALLS_WAITING_MAX`] already. Ring the shard's bell afterwards.
    pub(super) fn put(&self, call: Call) -> Result<(), Call> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= CALLS_WAITING_MAX {
            return Err(call);
        }
        waiting.push(call);
        self.some.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes what waits. A shard does not wait for the lock: whoever holds it rings the bell when it has been given back.
    pub(super) fn take(&self) -> Vec<Call> {
        if !self.some.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut waiting = match self.waiting.try_lock() {
            Ok(waiting) => waiting,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Vec::new(),
        };
        self.some.store(false, Ordering::Release);
        std::mem::take(&mut *waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_taken_once_and_in_order_and_no_more_than_fit_wait() {
        let line = Line::default();
        assert!(line.take().is_empty());
        for number in 0..CALLS_WAITING_MAX {
            assert!(line.put(Box::new(number)).is_ok());
        }
        assert!(line.put(Box::new(0_usize)).is_err());
        let taken: Vec<usize> =
            line.take().into_iter().filter_map(|call| Some(*call.downcast().ok()?)).collect();
        assert_eq!(taken, (0..CALLS_WAITING_MAX).collect::<Vec<_>>());
        assert!(line.take().is_empty());
    }
}
