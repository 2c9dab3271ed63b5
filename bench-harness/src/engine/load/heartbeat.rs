//! A timer that should come on time.

use millstream_engine::shard::request::Reply;
use millstream_engine::time::Nanos;

use super::{Desk, Report, Tally, Work};

pub(super) struct Heartbeat {
    every: Nanos,
    span: Nanos,
    due: Nanos,
    tally: Tally,
    over: bool,
}

impl Heartbeat {
    pub(super) fn new(every: Nanos, span: Nanos) -> Heartbeat {
        Heartbeat { every, span, due: Nanos::ZERO, tally: Tally::new(), over: false }
    }

    fn next(&mut self, desk: &mut Desk) {
        self.due = desk.now() + self.every;
        self.over = self.due > self.tally.started + self.span;
        if !self.over {
            desk.timer(self.due);
        }
    }
}

impl Work for Heartbeat {
    fn start(&mut self, desk: &mut Desk) {
        self.tally.started = desk.now();
        self.next(desk);
    }

    fn reply(&mut self, _: u32, reply: Reply, _: &mut Desk) {
        self.tally.fail(format!("a heartbeat asked nothing and was answered {reply:?}"));
    }

    fn timer(&mut self, desk: &mut Desk) {
        self.tally.ended = desk.now();
        self.tally.operations += 1;
        self.tally.latency.saturating_record(desk.now().since(self.due).0);
        self.next(desk);
    }

    fn over(&self) -> bool {
        self.over
    }

    fn report(&mut self) -> Report {
        self.tally.take()
    }
}
