//! Who waits for the journal, and who waits for a log to grow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Requester;
use super::request::{Appended, WatchId};
use crate::log::table::LogIndex;
use crate::types::{Lsn, ShardId};

/// Senders waiting for their records to be as durable as asked, in the order of the records.
#[derive(Default)]
pub struct Commits {
    written: VecDeque<(Lsn, Requester, Appended)>,
    durable: VecDeque<(Lsn, Requester, Appended)>,
}

impl Commits {
    /// Waits until record `lsn` is written.
    pub fn until_written(&mut self, lsn: Lsn, who: Requester, what: Appended) {
        self.written.push_back((lsn, who, what));
    }

    /// Waits until record `lsn` is durable.
    pub fn until_durable(&mut self, lsn: Lsn, who: Requester, what: Appended) {
        self.durable.push_back((lsn, who, what));
    }

    /// The next sender whose record is covered.
    pub fn next(&mut self, written: Lsn, durable: Lsn) -> Option<(Requester, Appended)> {
        let covered = |queue: &mut VecDeque<(Lsn, Requester, Appended)>, lsn: Lsn| {
            queue.pop_front_if(|(waiting, ..)| *waiting <= lsn).map(|(_, who, what)| (who, what))
        };
        covered(&mut self.written, written).or_else(|| covered(&mut self.durable, durable))
    }

    /// Everybody who waits, when nothing will be written or flushed any more.
    pub fn drain(&mut self) -> impl Iterator<Item = Requester> {
        self.written.drain(..).chain(self.durable.drain(..)).map(|(_, who, _)| who)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty() && self.durable.is_empty()
    }
}

/// A watch's name among all: who set it, and how that shard calls it.
pub type WatchKey = (ShardId, WatchId);

/// Somebody waiting for logs to grow.
pub struct Watch {
    /// Who.
    pub who: Requester,
    /// The logs.
    pub logs: Vec<LogIndex>,
    /// Bytes still to come.
    pub missing: u64,
}

/// Those who wait for logs to grow.
#[derive(Default)]
pub struct Watches {
    by_key: BTreeMap<WatchKey, Watch>,
    /// However many watch a log, and however often one of them names it, it is taken out in a few steps.
    by_log: BTreeMap<LogIndex, BTreeSet<WatchKey>>,
}

impl Watches {
    /// Waits for `missing` bytes to be added to any of the logs.
    pub fn add(&mut self, key: WatchKey, watch: Watch) {
        for log in &watch.logs {
            self.by_log.entry(*log).or_default().insert(key);
        }
        self.by_key.insert(key, watch);
    }

    /// Ends a watch.
    pub fn remove(&mut self, key: WatchKey) -> Option<Requester> {
        let watch = self.by_key.remove(&key)?;
        for log in &watch.logs {
            if let Some(keys) = self.by_log.get_mut(log) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_log.remove(log);
                }
            }
        }
        Some(watch.who)
    }

    /// A log has grown by `bytes`: gives those whose wait is over. `u64::MAX` ends everybody's, for a log that is gone.
    pub fn grown(&mut self, log: LogIndex, bytes: u64) -> Vec<(WatchKey, Requester)> {
        let Some(keys) = self.by_log.get(&log) else { return Vec::new() };
        let mut over = Vec::new();
        for key in keys {
            let watch = self.by_key.get_mut(key).expect("a log's watches exist");
            watch.missing = watch.missing.saturating_sub(bytes);
            if watch.missing == 0 {
                over.push(*key);
            }
        }
        over.into_iter().filter_map(|key| Some((key, self.remove(key)?))).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::request::AppToken;

    #[test]
    fn what_comes_counts_once_however_often_its_log_is_named() {
        let who = Requester { shard: ShardId(0), token: AppToken(1) };
        let (first, second) = ((ShardId(0), WatchId(1)), (ShardId(0), WatchId(2)));
        let mut watches = Watches::default();
        watches.add(first, Watch { who, logs: vec![LogIndex(3); 5], missing: 10 });
        watches.add(second, Watch { who, logs: vec![LogIndex(3), LogIndex(4)], missing: 4 });
        let over: Vec<_> = watches.grown(LogIndex(3), 4).into_iter().map(|(key, _)| key).collect();
        assert_eq!(over, [second]);
        let over: Vec<_> = watches.grown(LogIndex(3), 6).into_iter().map(|(key, _)| key).collect();
        assert_eq!(over, [first]);
        assert!(watches.grown(LogIndex(4), 1).is_empty());
        assert_eq!((watches.len(), watches.by_log.len()), (0, 0));
    }
}
