//! How long the machine itself keeps a thread from its processor: no reactor on it can have a shorter longest turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::pinned;
use crate::measure::{Case, Outcome, Problem};

/// The unit of the watch's figure.
pub const LONGEST_GAP: &str = "ms longest gap";

/// A case, and on another processor a thread that does nothing but look at the clock: the longest time between two looks
/// is time that the kernel and the hypervisor took from it.
pub struct Watched<C> {
    case: C,
}

impl<C: Case> Watched<C> {
    /// Watches beside `case`.
    pub fn new(case: C) -> Watched<C> {
        Watched { case }
    }
}

impl<C: Case + Send> Case for Watched<C> {
    fn name(&self) -> String {
        self.case.name()
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        let over = AtomicBool::new(false);
        let case = &mut self.case;
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| watch(&over));
            let outcome = scope.spawn(|| {
                let outcome = pinned(1).and_then(|()| case.run(span));
                over.store(true, Ordering::Relaxed);
                outcome
            });
            let outcome = outcome.join().map_err(|_| "the case panicked")??;
            let gap = watch.join().map_err(|_| "the watch panicked")??;
            Ok(outcome.with(LONGEST_GAP, gap.as_secs_f64() * 1e3))
        })
    }
}

/// Looks at the clock on the first processor, where a node's first shard runs, until it is over.
fn watch(over: &AtomicBool) -> Result<Duration, Problem> {
    pinned(0)?;
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
    }
    Ok(longest)
}
