//! The time that a turn measures in.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::raw;

/// Nanoseconds since the harness began to measure, the same on all of its threads; never 0.
pub fn now_ns() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1
}

/// How long a turn warms up and measures.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Load that is not counted.
    pub warm_up: Duration,
    /// Load that is counted; without an end if those who load have one themselves.
    pub measure: Option<Duration>,
}

/// What a turn counts: what was due, or was answered, from one moment until another. Loads run from `start_ns` on.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "units stand last in a name, here as everywhere")]
pub struct Window {
    /// When load begins.
    pub start_ns: u64,
    /// When counting begins.
    pub from_ns: u64,
    /// When both end.
    pub until_ns: u64,
}

impl Window {
    /// A turn that starts now.
    pub fn starting(span: Span) -> Window {
        let start_ns = now_ns();
        let from_ns = start_ns + span.warm_up.as_nanos() as u64;
        let until_ns = span.measure.map_or(u64::MAX, |measure| from_ns + measure.as_nanos() as u64);
        Window { start_ns, from_ns, until_ns }
    }

    /// Whether a moment counts.
    pub fn counts(&self, ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&ns)
    }

    /// Whether load is to end: the turn is over, or somebody wants the harness to stop.
    pub fn over(&self) -> bool {
        now_ns() >= self.until_ns || raw::interrupted()
    }
}
