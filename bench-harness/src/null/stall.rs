//! A server that stands still now and then, as one does that collects garbage: whoever measures it has to see each pause at
//! its full length.

use std::time::Duration;

use millstream_engine::time::Nanos;

/// When a shard stands still, and for how long.
#[derive(Clone, Debug)]
pub struct Stall {
    pause: Duration,
    every: Nanos,
    /// When it does so next; none before its first step.
    next: Option<Nanos>,
}

impl Stall {
    /// A pause of so many milliseconds, every so many.
    pub fn new(pause_ms: u64, every_ms: u64) -> Stall {
        Stall { pause: Duration::from_millis(pause_ms), every: Nanos::from_millis(every_ms), next: None }
    }

    /// How long to stand still now, if it is time.
    pub fn due(&mut self, now: Nanos) -> Option<Duration> {
        if now < *self.next.get_or_insert(now + self.every) {
            return None;
        }
        self.next = Some(now + self.every);
        Some(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_once_in_each_interval_from_the_first_step_on() {
        let mut stall = Stall::new(50, 1000);
        let at: Vec<u64> = (100..4000)
            .step_by(100)
            .filter(|ms| stall.due(Nanos::from_millis(*ms)) == Some(Duration::from_millis(50)))
            .collect();
        assert_eq!(at, [1100, 2100, 3100]);
    }
}
