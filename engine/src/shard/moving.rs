//! Leaving a shard: everything it holds goes to segments, so that other shards can serve it.

use super::Shard;
use crate::error::Fatal;
use crate::format::checkpoint::PartitionState;
use crate::io::{Event, Io, Wait};
use crate::log::segment::Segment;
use crate::log::table::LogIndex;
use crate::types::{Lsn, Offset, PartitionId};

impl<I: Io> Shard<I> {
    /// Seals every segment and moves it to its file. Gives the logs' states: nothing of them is in this shard's journal
    /// any more. For a shard that serves nobody; `io` is used for nothing else meanwhile.
    pub fn move_out(&mut self, io: &mut I) -> Result<Vec<PartitionState>, Fatal> {
        self.scrubbing.never();
        if !self.queues.is_empty() {
            return Err(Fatal::Config(format!(
                "queues of shard {} hold messages: this version cannot move them to another number of shards. Start with the old number until they are consumed",
                self.id.0
            )));
        }
        let now = io.wall_ms();
        let holding: Vec<LogIndex> = self
            .logs
            .iter()
            .filter(|(_, log)| log.segments.back().is_some_and(|open| open.size > 0 && !open.sealed))
            .map(|(index, _)| index)
            .collect();
        for index in holding {
            if let Some(log) = self.logs.get_mut(index) {
                log.roll(now);
            }
        }
        let mut events = Vec::new();
        while !self.is_moved_out() {
            if self.is_poisoned() || self.disk_full {
                return Err(Fatal::Refused(format!(
                    "shard {} could not move its journal to segments: the disk is full or fails",
                    self.id.0
                )));
            }
            if self.trim.may_start(io.now()) {
                self.trim.start(io, &mut self.logs, &mut self.queues, Lsn(u64::MAX));
            }
            self.end_turn(io);
            io.poll(Wait::Until(self.next_turn_due()), &mut events);
            for event in events.drain(..) {
                match event {
                    Event::Disk(token, done) => self.on_done(io, token, done),
                    Event::Written(_) => self.on_written(),
                    other => panic!("an event that nobody asked for while moving out: {other:?}"),
                }
            }
        }
        let state = |log: &crate::log::Log| {
            let mut state = log.state();
            state.segments.retain(|segment| segment.size > 0);
            state
        };
        Ok(self.logs.iter().map(|(_, log)| state(log)).collect())
    }

    /// Whether nothing was ever appended to a partition of this shard.
    pub fn is_untouched(&self, partition: PartitionId) -> bool {
        let log = self.logs.find(partition).and_then(|index| self.logs.get(index));
        log.is_some_and(|log| log.next_offset == Offset(0) && log.segments.is_empty())
    }

    /// Closes what a shard that is not served has open.
    pub fn close(self, io: &mut I) {
        for slot in self.journal.files().slots() {
            io.close(slot.file);
        }
    }

    fn is_moved_out(&self) -> bool {
        let stored = |segment: &Segment| segment.stored || segment.size == 0;
        self.trim.is_idle()
            && self.maintenance.is_idle()
            && self.is_settled()
            && self.logs.iter().all(|(_, log)| log.segments.iter().all(stored))
    }
}
