//! Topics and queues that are deleted, until nothing is left of them here.
//!
//! Replay skips what the journal holds of an owner only if the metadata has its deletion. So that is remembered until, on
//! every shard, three things are durable: a checkpoint that does not tell of the owner, from which on the journal that is
//! replayed holds no record of it; and the names of its directories, which tell that they are to be removed. A restart takes up
//! what is left of this: it looks whether it meets anything of a deleted owner.

use std::collections::VecDeque;

use super::{Output, Shard, tokens};
use crate::error::IoError;
use crate::io::{DiskDone, Io, Token};
use crate::log::paths::LOGS;
use crate::types::{Lsn, MetadataEpoch};

/// A round of trimming is begun for a deletion's sake if none came by itself within so many checks of retention.
const CHECKS_MAX: u32 = 12;

/// What was deleted in one epoch.
#[derive(Clone, Copy)]
struct Departed {
    epoch: MetadataEpoch,
    /// The last record that may be its.
    lsn: Lsn,
    /// States for checkpoints that were taken when it was still there.
    states: u64,
}

/// What has been deleted, and is not gone yet.
pub(super) struct Departures {
    /// In the order of their epochs.
    waiting: VecDeque<Departed>,
    /// Its directories are being renamed.
    leaving: Option<Departed>,
    /// Up to where the controller has been told.
    told: MetadataEpoch,
    /// Whether names were changed since directories were flushed last.
    renamed: bool,
    /// What is told when the flush that is under way is done.
    flushing: Option<MetadataEpoch>,
    /// A name could not be changed, or not durably: the next start sees to it, and must know what was deleted.
    stuck: bool,
    /// Checks of retention since the first of those that wait came.
    checks: u32,
}

impl Departures {
    /// What a recovery has met of owners that are no more, up to record `lsn`, is older than `epoch`.
    pub fn new(met_any: bool, epoch: MetadataEpoch, lsn: Lsn) -> Departures {
        let met = met_any.then_some(Departed { epoch, lsn, states: 0 });
        Departures {
            waiting: met.into_iter().collect(),
            leaving: None,
            told: MetadataEpoch(0),
            renamed: false,
            flushing: None,
            stuck: false,
            checks: 0,
        }
    }

    /// Logs or queues were taken away in this epoch.
    pub fn leave(&mut self, epoch: MetadataEpoch, lsn: Lsn, states: u64) {
        assert!(self.leaving.is_none(), "one epoch is applied at a time");
        self.leaving = Some(Departed { epoch, lsn, states });
    }

    /// The last epoch of which nothing is left.
    fn clear_upto(&self, now: MetadataEpoch) -> MetadataEpoch {
        let first = self.waiting.front().or(self.leaving.as_ref());
        first.map_or(now, |first| MetadataEpoch(first.epoch.0 - 1))
    }
}

impl<I: Io> Shard<I> {
    /// The directories of what was taken away last have other names, or never had any; `ok` unless that failed.
    pub fn departed(&mut self, ok: bool) {
        let departures = &mut self.departures;
        departures.stuck |= !ok;
        if let Some(departed) = departures.leaving.take() {
            departures.renamed = true;
            departures.waiting.push_back(departed);
        }
    }

    /// Tells the controller what is gone, if there is anything to forget. To be called every second or so.
    pub(super) fn settle_departures(&mut self, io: &mut I) {
        let departures = &mut self.departures;
        while departures.waiting.pop_front_if(|first| self.trim.is_beyond(first.states, first.lsn)).is_some()
        {
            departures.checks = 0;
        }
        let upto = departures.clear_upto(self.metadata.epoch);
        let idle = departures.flushing.is_none() && !departures.stuck;
        let none = self.metadata.deleted.is_empty() && self.metadata.deleted_queues.is_empty();
        if none || upto <= departures.told || !idle {
            return;
        }
        departures.flushing = Some(upto);
        if std::mem::take(&mut departures.renamed) {
            io.sync_dir(Token::new(tokens::DEPARTURES, 0), LOGS);
        } else {
            self.on_directories_flushed(Ok(DiskDone::Done));
        }
    }

    pub(super) fn on_directories_flushed(&mut self, done: Result<DiskDone, IoError>) {
        let departures = &mut self.departures;
        let upto = departures.flushing.take().expect("somebody waits for the flush");
        if let Err(error) = done {
            // A later flush that succeeds would prove nothing.
            tracing::warn!(shard = self.id.0, %error, "directories could not be flushed; deletions are remembered until the next start");
            departures.stuck = true;
            return;
        }
        departures.told = upto;
        self.outputs.push_back(Output::Clear(upto));
    }

    /// Begins a round of trimming if nothing else has done so for long, and a deletion waits for it.
    pub(super) fn hasten_departures(&mut self, io: &mut I) {
        let departures = &mut self.departures;
        let Some(last) = departures.waiting.back().map(|last| last.lsn) else { return };
        departures.checks += 1;
        if departures.checks >= CHECKS_MAX
            && !departures.stuck
            && !self.journal.is_poisoned()
            && self.trim.may_start(io.now())
        {
            departures.checks = 0;
            self.trim.start(io, &mut self.logs, &mut self.queues, last);
        }
    }
}
