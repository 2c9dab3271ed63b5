//! Appends, in a closed loop, in rounds, or on a schedule.

use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::PartitionId;

use super::{Append, Desk, Pace, Report, Tally, Until, Work, partitions};

/// Appends under way at most in an open loop; more wait in the generator, and their latency counts from when they were
/// due all the same.
const OPEN_IN_FLIGHT_MAX: usize = 4096;

pub(super) struct AppendWork {
    load: Append,
    partitions: Vec<PartitionId>,
    tally: Tally,
    /// When the append in each slot was due.
    due: Vec<Nanos>,
    free: Vec<u32>,
    issued: u64,
    in_flight: usize,
    /// A timer for the next due append has been set and has not come.
    timed: bool,
    /// No more are issued.
    closing: bool,
}

impl AppendWork {
    pub(super) fn new(load: Append) -> AppendWork {
        AppendWork {
            load,
            partitions: Vec::new(),
            tally: Tally::new(),
            due: Vec::new(),
            free: Vec::new(),
            issued: 0,
            in_flight: 0,
            timed: false,
            closing: false,
        }
    }

    fn issue(&mut self, due: Nanos, desk: &mut Desk) {
        let slot = self.free.pop().unwrap_or(self.due.len() as u32);
        match self.due.get_mut(slot as usize) {
            Some(entry) => *entry = due,
            None => self.due.push(due),
        }
        let partition = self.partitions[(self.issued % self.partitions.len() as u64) as usize];
        self.issued += 1;
        self.in_flight += 1;
        let (batch, durability) = (self.load.batch.clone(), self.load.durability);
        desk.ask(slot, Request::Append { partition, batch, durability });
    }

    /// The end of the schedule or of the span; never, if bytes are counted.
    fn end(&self) -> Nanos {
        match self.load.until {
            Until::Span(span) => self.tally.started + span,
            Until::Bytes(_) => Nanos(u64::MAX),
        }
    }

    fn enough(&self, now: Nanos) -> bool {
        let bytes = self.issued * self.load.batch.len() as u64;
        now >= self.end() || matches!(self.load.until, Until::Bytes(enough) if bytes >= enough)
    }

    /// Issues what may be issued now.
    fn issue_more(&mut self, desk: &mut Desk) {
        let now = desk.now();
        match self.load.pace {
            _ if self.closing => {}
            Pace::Closed(depth) => {
                while !self.closing && self.in_flight < depth {
                    self.closing = self.enough(now);
                    if !self.closing {
                        self.issue(now, desk);
                    }
                }
            }
            Pace::Rounds(appends) => {
                if self.in_flight == 0 {
                    self.closing = self.enough(now);
                    for _ in 0..if self.closing { 0 } else { appends } {
                        self.issue(now, desk);
                    }
                }
            }
            Pace::Open(per_second) => self.issue_due(per_second, now, desk),
        }
    }

    fn issue_due(&mut self, per_second: f64, now: Nanos, desk: &mut Desk) {
        loop {
            let due = self.tally.started + Nanos((self.issued as f64 * 1e9 / per_second) as u64);
            if self.enough(due) {
                self.closing = true;
            } else if due > now {
                if !self.timed {
                    self.timed = true;
                    desk.timer(due);
                }
            } else if self.in_flight < OPEN_IN_FLIGHT_MAX {
                self.issue(due, desk);
                continue;
            }
            return;
        }
    }
}

impl Work for AppendWork {
    fn start(&mut self, desk: &mut Desk) {
        self.tally.started = desk.now();
        self.partitions = partitions(desk.out, &self.load.topic, desk.out.shard());
        if self.partitions.len() < self.load.partitions.max(1) {
            let (have, want) = (self.partitions.len(), self.load.partitions);
            self.tally
                .fail(format!("the shard has {have} partitions of {} instead of {want}", self.load.topic));
            self.closing = true;
            return;
        }
        self.partitions.truncate(self.load.partitions);
        self.issue_more(desk);
    }

    fn reply(&mut self, slot: u32, reply: Reply, desk: &mut Desk) {
        let now = desk.now();
        self.in_flight -= 1;
        self.free.push(slot);
        self.tally.ended = now;
        match reply {
            Reply::Appended(_) => {
                self.tally.operations += 1;
                self.tally.bytes += self.load.batch.len() as u64;
                let due = self.due[slot as usize];
                if !matches!(self.load.pace, Pace::Rounds(_)) || self.in_flight == 0 {
                    self.tally.latency.saturating_record(now.since(due).0);
                }
            }
            Reply::Refused(refusal) => {
                self.tally.fail(refusal.to_string());
                self.closing = true;
            }
            other => {
                self.tally.fail(format!("an append was answered by {other:?}"));
                self.closing = true;
            }
        }
        // In an open loop the timer says when to go on, unless too many were under way to look at it.
        if !matches!(self.load.pace, Pace::Open(_)) || self.in_flight + 1 == OPEN_IN_FLIGHT_MAX {
            self.issue_more(desk);
        }
    }

    fn timer(&mut self, desk: &mut Desk) {
        self.timed = false;
        self.issue_more(desk);
    }

    fn over(&self) -> bool {
        self.closing && self.in_flight == 0
    }

    fn report(&mut self) -> Report {
        self.tally.take()
    }
}
