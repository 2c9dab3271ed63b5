//! Leaving a shard: everything it holds goes to segments, so that other shards can serve it.

use super::Shard;
use super::queues::Estate;
use crate::error::{Fatal, IoError};
use crate::format::checkpoint::PartitionState;
use crate::io::{Event, Io, Wait};
use crate::journal;
use crate::log::segment::Segment;
use crate::log::table::LogIndex;
use crate::types::{Lsn, Offset, PartitionId};

impl<I: Io> Shard<I> {
    /// Seals every segment and moves it to its file, and all messages of queues to theirs. Gives the logs' states, and what
    /// there is of queues: nothing of them is in this shard's journal any more. For a shard that serves nobody; `io` is used
    /// for nothing else meanwhile.
    pub fn move_out(&mut self, io: &mut I) -> Result<(Vec<PartitionState>, Estate), Fatal> {
        self.scrubbing.never();
        self.queues.leave();
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
                    Event::Disk(_, Err(error @ IoError::Halted)) => {
                        let (doing, file) = ("move out", format!("the journal of shard {}", self.id.0));
                        return Err(Fatal::Io { doing, file, error });
                    }
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
        let states = self.logs.iter().map(|(_, log)| state(log)).collect();
        let queues = journal::Survivors::<I>::state(&mut self.queues);
        Ok((states, self.queues.estate(queues)))
    }

    /// Whether nothing was ever appended to a partition of this shard.
    pub fn is_untouched(&self, partition: PartitionId) -> bool {
        let log = self.logs.find(partition).and_then(|index| self.logs.get(index));
        log.is_some_and(|log| log.next_offset == Offset(0) && log.segments.is_empty())
    }

    /// Closes what a shard that is not served has open.
    pub fn close(mut self, io: &mut I) {
        self.queues.close_files(io);
        for slot in self.journal.files().slots() {
            io.close(slot.file);
        }
    }

    fn is_moved_out(&self) -> bool {
        let stored = |segment: &Segment| segment.stored || segment.size == 0;
        self.trim.is_idle()
            && self.maintenance.is_idle()
            && self.is_settled()
            && self.queues.have_left()
            && self.logs.iter().all(|(_, log)| log.segments.iter().all(stored))
    }
}
