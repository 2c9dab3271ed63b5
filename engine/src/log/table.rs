//! The logs of one shard.

use std::collections::BTreeMap;

use super::Log;
use crate::types::PartitionId;

/// A log's place in its shard's table. Not reused while the process lives: a stale one finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LogIndex(pub u32);

/// Every log of a shard, found by partition or by index.
#[derive(Default)]
pub struct Logs {
    slots: Vec<Option<Log>>,
    by_id: BTreeMap<PartitionId, LogIndex>,
}

impl Logs {
    /// Adds a log.
    pub fn insert(&mut self, log: Log) -> LogIndex {
        let index = LogIndex(self.slots.len() as u32);
        let before = self.by_id.insert(log.id, index);
        assert!(before.is_none(), "a partition has one log");
        self.slots.push(Some(log));
        index
    }

    /// Takes a log out.
    pub fn remove(&mut self, id: PartitionId) -> Option<(LogIndex, Log)> {
        let index = self.by_id.remove(&id)?;
        Some((index, self.slots.get_mut(index.0 as usize)?.take()?))
    }

    /// The partition's log.
    pub fn find(&self, id: PartitionId) -> Option<LogIndex> {
        self.by_id.get(&id).copied()
    }

    /// The log at an index, unless it was removed.
    pub fn get(&self, index: LogIndex) -> Option<&Log> {
        self.slots.get(index.0 as usize)?.as_ref()
    }

    /// The log at an index, unless it was removed.
    pub fn get_mut(&mut self, index: LogIndex) -> Option<&mut Log> {
        self.slots.get_mut(index.0 as usize)?.as_mut()
    }

    /// Every log.
    pub fn iter(&self) -> impl Iterator<Item = (LogIndex, &Log)> {
        self.slots.iter().enumerate().filter_map(|(index, log)| Some((LogIndex(index as u32), log.as_ref()?)))
    }

    /// One past the last index there ever was.
    pub fn end(&self) -> LogIndex {
        LogIndex(self.slots.len() as u32)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
