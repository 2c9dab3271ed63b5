//! A bounded ring with one producer and one consumer. Neither ever waits for the other.
//!
//! Positions count up for ever and wrap with the integer; a position's slot is its remainder. The slots from `head` up
//! to `tail` hold messages: the consumer alone moves `head`, the producer alone moves `tail`, each by a release store
//! that the other side acquires. Each half keeps a copy of the other's position and looks at the shared one only when
//! the copy says full, or empty: a batch costs one cache line's journey, not one per message.

use std::mem::MaybeUninit;

use crate::sync::{Arc, AtomicUsize, Ordering, Padded, UnsafeCell};

/// A ring of `slots` messages (a power of two), as its two halves.
pub fn ring<T>(slots: usize) -> (Producer<T>, Consumer<T>) {
    assert!(slots.is_power_of_two(), "a ring's positions are masked, not divided");
    let shared = Arc::new(Shared {
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        slots: (0..slots).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    let producer = Producer { shared: Arc::clone(&shared), tail: 0, published: 0, head_seen: 0 };
    (producer, Consumer { shared, head: 0, tail_seen: 0 })
}

struct Shared<T> {
    /// The position of the oldest message not taken yet.
    head: Padded<AtomicUsize>,
    /// One past the position of the newest message published.
    tail: Padded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by the producer while it is outside `head..tail` and by the consumer while it is inside; the
// release stores and acquire loads of the two positions hand it over. Messages change threads, so they must be `Send`.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above; there is one producer and one consumer, since neither half can be cloned.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[position & (self.slots.len() - 1)]
    }

    /// Takes the message at `position` out of its slot.
    ///
    /// # Safety
    /// The slot holds a published message that nobody takes again, and the caller has acquired the `tail` that
    /// published it.
    unsafe fn take(&self, position: usize) -> T {
        // SAFETY: by the promise above the slot is initialised, and the producer does not touch it until `head` moves.
        self.slot(position).with_mut(|slot| unsafe { (*slot).assume_init_read() })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (mut head, tail) = (self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed));
        while head != tail {
            // SAFETY: both halves are gone, and dropping the last reference acquired what they did; what lies between
            // `head` and `tail` was published and not taken, and this loop takes each once.
            drop(unsafe { self.take(head) });
            head = head.wrapping_add(1);
        }
    }
}

/// The half that puts messages in. What it pushed is seen after [`Producer::publish`], or when it is dropped.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// One past the newest message pushed.
    tail: usize,
    /// The tail that the consumer can see.
    published: usize,
    /// The consumer's position when it was last looked at.
    head_seen: usize,
}

impl<T> Producer<T> {
    /// Puts a message in; gives it back if there is no room.
    pub fn push(&mut self, message: T) -> Result<(), T> {
        let slots = self.shared.slots.len();
        if self.tail.wrapping_sub(self.head_seen) == slots {
            self.head_seen = self.shared.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == slots {
                return Err(message);
            }
        }
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: the slot is free: it was never used, or the acquired `head` says that its message was taken. The
            // consumer does not look at it before `tail` is published.
            unsafe { (*slot).write(message) };
        });
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Lets the consumer see what was pushed. Whether it has to be woken is told by [`super::Parking`].
    pub fn publish(&mut self) {
        if self.published != self.tail {
            self.shared.tail.0.store(self.tail, Ordering::Release);
            self.published = self.tail;
        }
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.publish();
    }
}

/// The half that takes messages out, oldest first.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// The oldest message not taken yet.
    head: usize,
    /// The producer's position when it was last looked at.
    tail_seen: usize,
}

impl<T> Consumer<T> {
    /// Takes the oldest message.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        // SAFETY: the acquired `tail` lies past this position, and `head` moves on right after, so it is taken once.
        let message = unsafe { self.shared.take(self.head) };
        self.head = self.head.wrapping_add(1);
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(message)
    }

    /// Whether nothing is there to take.
    pub fn is_empty(&self) -> bool {
        self.head == self.tail_seen && self.head == self.shared.tail.0.load(Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Miri runs these tests too, some thousand times slower.
    const MESSAGES: usize = if cfg!(miri) { 500 } else { 1_000_000 };

    #[test]
    fn messages_arrive_in_order_across_threads_and_many_wraps() {
        let (mut producer, mut consumer) = ring(8);
        let sender = std::thread::spawn(move || {
            for message in 0..MESSAGES {
                let mut message = Box::new(message);
                while let Err(back) = producer.push(message) {
                    message = back;
                    producer.publish();
                    std::thread::yield_now();
                }
            }
        });
        for expected in 0..MESSAGES {
            let message = loop {
                match consumer.pop() {
                    Some(message) => break message,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*message, expected);
        }
        sender.join().unwrap();
        assert!(consumer.is_empty());
    }

    #[test]
    fn nothing_is_seen_before_it_is_published() {
        let (mut producer, mut consumer) = ring(4);
        producer.push(1).unwrap();
        assert!(consumer.is_empty());
        assert_eq!(consumer.pop(), None);
        producer.publish();
        assert!(!consumer.is_empty());
        assert_eq!(consumer.pop(), Some(1));
    }

    #[test]
    fn a_full_ring_gives_the_message_back_and_has_room_after_a_pop() {
        let (mut producer, mut consumer) = ring(2);
        producer.push('a').unwrap();
        producer.push('b').unwrap();
        assert_eq!(producer.push('c'), Err('c'));
        producer.publish();
        assert_eq!(consumer.pop(), Some('a'));
        producer.push('c').unwrap();
        assert_eq!(producer.push('d'), Err('d'));
    }

    #[test]
    fn positions_wrap_around_with_the_integer() {
        let (mut producer, mut consumer) = ring(4);
        let start = usize::MAX - 1;
        producer.shared.head.0.store(start, Ordering::Relaxed);
        producer.shared.tail.0.store(start, Ordering::Relaxed);
        (producer.tail, producer.published, producer.head_seen) = (start, start, start);
        (consumer.head, consumer.tail_seen) = (start, start);
        for message in 0..4 {
            producer.push(message).unwrap();
        }
        assert_eq!(producer.push(4), Err(4));
        producer.publish();
        assert_eq!(std::iter::from_fn(|| consumer.pop()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_left_is_freed_with_the_ring_published_or_not() {
        let message = std::sync::Arc::new(());
        let (mut producer, mut consumer) = ring(8);
        for _ in 0..6 {
            producer.push(std::sync::Arc::clone(&message)).unwrap();
        }
        producer.publish();
        producer.push(std::sync::Arc::clone(&message)).unwrap();
        drop(consumer.pop());
        assert_eq!(std::sync::Arc::strong_count(&message), 7);
        drop(producer);
        drop(consumer);
        assert_eq!(std::sync::Arc::strong_count(&message), 1);
    }
}
