//! From one processor to another: a round trip between two threads that sleep until the other wakes them, by each way
//! that there is, and between two that do not sleep.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::pinned;
use crate::measure::{Case, Outcome, Problem, histogram};
use crate::raw::{self, Ring};

/// How a thread is told.
#[derive(Clone, Copy)]
pub enum Way {
    /// A completion posted into its ring.
    MessageRing,
    /// A futex.
    Futex,
    /// An eventfd.
    EventFd,
    /// A word in memory that it keeps looking at.
    Spinning,
}

/// A round trip between two threads.
pub struct Wake(pub Way);

/// One side's end: tell the other, or wait to be told.
trait End {
    fn tell(&mut self) -> Result<(), Problem>;
    fn wait(&mut self) -> Result<(), Problem>;
}

/// The turn is a number that rises with every message, so that the end is told apart from a message.
const OVER: u32 = u32::MAX;

impl Case for Wake {
    fn name(&self) -> String {
        let way = match self.0 {
            Way::MessageRing => "MSG_RING",
            Way::Futex => "futex",
            Way::EventFd => "eventfd",
            Way::Spinning => "both spinning",
        };
        format!("cross-core round trip, {way}")
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let over = AtomicU32::new(0);
        match self.0 {
            Way::MessageRing => {
                let addresses = [AtomicI32::new(-1), AtomicI32::new(-1)];
                play(span, &over, |side| RingEnd::new(&addresses, side))
            }
            Way::Futex => {
                let words = [AtomicU32::new(0), AtomicU32::new(0)];
                play(span, &over, |side| Ok(WordEnd { words: &words, side, seen: 0, sleeps: true }))
            }
            Way::EventFd => {
                let events = [raw::eventfd()?, raw::eventfd()?];
                play(span, &over, |side| Ok(EventEnd { events: &events, side }))
            }
            Way::Spinning => {
                let words = [AtomicU32::new(0), AtomicU32::new(0)];
                play(span, &over, |side| Ok(WordEnd { words: &words, side, seen: 0, sleeps: false }))
            }
        }
    }
}

/// Side 0 tells and waits for the answer, for `span`; side 1 waits and answers. Each makes its end on its own thread.
fn play<E: End>(
    span: Duration,
    over: &AtomicU32,
    end: impl Fn(usize) -> Result<E, Problem> + Sync,
) -> Result<Outcome, Problem> {
    let end = &end;
    std::thread::scope(|scope| {
        let answering = scope.spawn(move || -> Result<(), Problem> {
            pinned(1)?;
            let mut end = end(1)?;
            loop {
                end.wait()?;
                if over.load(Ordering::Acquire) == OVER {
                    return Ok(());
                }
                end.tell()?;
            }
        });
        let asking = scope.spawn(move || -> Result<Outcome, Problem> {
            pinned(0)?;
            let mut end = end(0)?;
            let mut latency = histogram();
            let started = Instant::now();
            let mut before = started;
            while before - started < span {
                end.tell()?;
                end.wait()?;
                let after = Instant::now();
                latency.saturating_record((after - before).as_nanos() as u64);
                before = after;
            }
            over.store(OVER, Ordering::Release);
            end.tell()?;
            Ok(Outcome::default().with_latency(latency))
        });
        let outcome = asking.join().map_err(|_| "the asking thread panicked")?;
        answering.join().map_err(|_| "the answering thread panicked")??;
        outcome
    })
}

/// An end that sleeps in its ring.
struct RingEnd {
    ring: Ring,
    peer: RawFd,
}

impl RingEnd {
    /// Publishes its own ring and waits for the peer's.
    fn new(addresses: &[AtomicI32; 2], side: usize) -> Result<RingEnd, Problem> {
        let ring = Ring::new(8)?;
        addresses[side].store(ring.address(), Ordering::Release);
        loop {
            let peer = addresses[1 - side].load(Ordering::Acquire);
            if peer >= 0 {
                return Ok(RingEnd { ring, peer });
            }
            std::thread::yield_now();
        }
    }
}

impl End for RingEnd {
    fn tell(&mut self) -> Result<(), Problem> {
        Ok(self.ring.send_message(self.peer)?)
    }
    fn wait(&mut self) -> Result<(), Problem> {
        Ok(self.ring.receive_message()?)
    }
}

/// An end that looks at a word, and sleeps on it or not.
struct WordEnd<'a> {
    words: &'a [AtomicU32; 2],
    side: usize,
    seen: u32,
    sleeps: bool,
}

impl End for WordEnd<'_> {
    fn tell(&mut self) -> Result<(), Problem> {
        let word = &self.words[1 - self.side];
        word.fetch_add(1, Ordering::Release);
        if self.sleeps {
            raw::futex_wake(word);
        }
        Ok(())
    }
    fn wait(&mut self) -> Result<(), Problem> {
        let word = &self.words[self.side];
        while word.load(Ordering::Acquire) == self.seen {
            if self.sleeps {
                raw::futex_wait(word, self.seen);
            } else {
                std::hint::spin_loop();
            }
        }
        self.seen = self.seen.wrapping_add(1);
        Ok(())
    }
}

/// An end that sleeps in a read of its eventfd.
struct EventEnd<'a> {
    events: &'a [File; 2],
    side: usize,
}

impl End for EventEnd<'_> {
    fn tell(&mut self) -> Result<(), Problem> {
        Ok((&self.events[1 - self.side]).write_all(&[1; 8])?)
    }
    fn wait(&mut self) -> Result<(), Problem> {
        let mut count = [0; 8];
        Ok((&self.events[self.side]).read_exact(&mut count)?)
    }
}
