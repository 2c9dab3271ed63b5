//! The scrub: every stored segment of the shard is read and checked once in a while, slowly, and behind everything else.
//!
//! Each second it may read some megabytes, one piece at a time; while the disk is wanted for anything else, one piece. What
//! it finds is logged and counted, and what was known of that segment is forgotten: whoever reads there next meets the damage
//! too, even if the block was sound when it was read first.

use super::{Shard, tokens};
use crate::error::IoError;
use crate::format::partition::file_name;
use crate::io::{DiskDone, Io, Token};
use crate::limits::{SCRUB_BYTES_PER_SECOND, SCRUB_LOGS_PER_TURN, SCRUB_STEP_BYTES_MIN};
use crate::log::scrub::{Finding, Progress, Scrub};
use crate::log::table::LogIndex;
use crate::time::Nanos;
use crate::types::Offset;

/// The scrub's state.
pub(super) struct Scrubbing {
    /// The segment that is being checked, and whether an operation of it is under way.
    job: Option<Scrub>,
    waits: bool,
    /// What comes next is behind this; `None` between two passes.
    behind: Option<(LogIndex, Option<Offset>)>,
    interval: Nanos,
    next_pass: Nanos,
    /// Bytes that may be read before the next second.
    allowance: usize,
}

impl Scrubbing {
    /// Passes begin so long after each other, if at all.
    pub fn new(interval_ms: u64) -> Scrubbing {
        Scrubbing {
            job: None,
            waits: false,
            behind: None,
            interval: Nanos::from_millis(interval_ms),
            next_pass: if interval_ms == 0 { Nanos(u64::MAX) } else { Nanos::ZERO },
            allowance: 0,
        }
    }

    /// Ends it, before it has begun: for a shard that does not serve.
    pub fn never(&mut self) {
        assert!(self.job.is_none(), "it has begun");
        self.next_pass = Nanos(u64::MAX);
    }
}

impl<I: Io> Shard<I> {
    /// Another second has passed.
    pub(super) fn scrub_tick(&mut self, io: &mut I, now: Nanos) {
        if self.scrubbing.behind.is_none() {
            if now < self.scrubbing.next_pass {
                return;
            }
            self.scrubbing.next_pass = now + self.scrubbing.interval;
            self.scrubbing.behind = Some((LogIndex(0), None));
        }
        self.scrubbing.allowance = SCRUB_BYTES_PER_SECOND;
        self.scrub_on(io);
    }

    /// Whether somebody else wants the disk.
    fn is_disk_wanted(&self, io: &I) -> bool {
        !self.trim.is_idle() || self.is_committing(io) || self.reads.is_busy()
    }

    /// Goes on as long as it may.
    fn scrub_on(&mut self, io: &mut I) {
        while !self.scrubbing.waits && self.scrubbing.allowance > 0 {
            if self.scrubbing.allowance < SCRUB_BYTES_PER_SECOND && self.is_disk_wanted(io) {
                return;
            }
            let Some(mut job) = self.scrubbing.job.take().or_else(|| self.next_to_scrub()) else { return };
            let token = Token::new(tokens::SCRUB, 0);
            job.piece_bytes = self.cold_chunk_bytes(io) as usize;
            let progress = match self.logs.get(job.segment().0) {
                Some(log) => job.go_on(io, log, &self.pools.read, token),
                None => {
                    job.close(io);
                    Progress::Finished(0)
                }
            };
            if progress == Progress::Ready(0) {
                self.scrubbing.allowance = 0; // There is no memory: in the next second, then.
            }
            self.scrubbed(job, progress);
        }
    }

    /// The stored segment that comes next. `None` if the pass is over, or there was enough looking for it in this turn.
    fn next_to_scrub(&mut self) -> Option<Scrub> {
        let (mut index, mut behind) = self.scrubbing.behind?;
        for _ in 0..SCRUB_LOGS_PER_TURN {
            if index.0 >= self.logs.end().0 {
                self.scrubbing.behind = None;
                self.observer.metrics.scrub_passes.add(1);
                return None;
            }
            if let Some(log) = self.logs.get(index) {
                let next =
                    log.segments.iter().find(|held| held.stored && behind.is_none_or(|b| held.base > b));
                if let Some(base) = next.map(|segment| segment.base) {
                    self.scrubbing.behind = Some((index, Some(base)));
                    return Some(Scrub::new(index, base));
                }
            }
            (index, behind) = (LogIndex(index.0 + 1), None);
        }
        self.scrubbing.behind = Some((index, None));
        self.scrubbing.allowance = 0;
        None
    }

    pub(super) fn on_scrub(&mut self, io: &mut I, token: Token, done: Result<DiskDone, IoError>) {
        let mut job = self.scrubbing.job.take().expect("the scrub waits for this");
        self.scrubbing.waits = false;
        let log = self.logs.get(job.segment().0);
        let progress = job.on_done(io, log, &self.pools.read, token, done);
        self.scrubbed(job, progress);
        self.scrub_on(io);
    }

    fn scrubbed(&mut self, mut job: Scrub, progress: Progress) {
        let segment = job.segment();
        for finding in job.findings.drain(..) {
            self.note_damage(segment, finding);
        }
        match progress {
            Progress::Waits => {
                self.scrubbing.waits = true;
                self.scrubbing.job = Some(job);
            }
            Progress::Ready(bytes) | Progress::Finished(bytes) => {
                self.observer.metrics.scrub_bytes.add(bytes as u64);
                let cost = bytes.max(SCRUB_STEP_BYTES_MIN);
                self.scrubbing.allowance = self.scrubbing.allowance.saturating_sub(cost);
                self.scrubbing.job = matches!(progress, Progress::Ready(_)).then_some(job);
            }
        }
    }

    fn note_damage(&mut self, (index, segment): (LogIndex, Offset), finding: Finding) {
        let Some(log) = self.logs.get(index) else { return };
        let Finding { file, position, what, error } = finding;
        let path = format!("{}/{}", log.directory, file_name(segment, file));
        tracing::error!(
            shard = self.id.0,
            path,
            position,
            what,
            error = error.map(tracing::field::display),
            "the scrub has found damage"
        );
        self.observer.metrics.scrub_findings.at(usize::from(error.is_some())).add(1);
        self.reads.readers.forget(index, segment);
    }
}
