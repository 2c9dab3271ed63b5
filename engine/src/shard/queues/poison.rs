//! The end of a shard's service, as its queues have it: everybody who waits is refused, nobody is given anything any more, and
//! nothing that comes later is kept.

use super::publish::Job;
use super::{Desk, Queues};
use crate::error::Refusal;
use crate::shard::Output;
use crate::shard::Requester;
use crate::shard::message::CancelReason;
use crate::shard::request::{Reply, Request};

use super::moves::{Arrival, Arrived};
use super::pending::Pending;

impl Queues {
    /// Nothing will be durable any more.
    pub fn poisoned(&mut self, desk: &mut Desk<'_>) {
        let hurried = self.hurried.drain(..).map(|(who, reply)| Output::Reply(who, reply));
        let backlog = self.backlog.drain(..).map(Job::answer);
        let waiting = self.waits.drain(..).map(|(_, answer)| answer).chain(hurried).chain(backlog);
        desk.outputs.extend(waiting.map(|answer| match answer {
            Output::Reply(who, _) => Output::Reply(who, Reply::Refused(Refusal::Poisoned)),
            Output::Arrived(to, arrived) => {
                Output::Arrived(to, Arrived { arrival: Arrival::Shut, ..arrived })
            }
            other => other,
        }));
        let purging = self.purges.drain(..).map(|purge| purge.who);
        let getting = self.getting.drain(..).map(|getting| getting.who);
        let refused: Vec<Requester> = self.moves.give_up().chain(purging).chain(getting).collect();
        for who in refused {
            desk.refuse(who, Refusal::Poisoned);
        }
        self.drop_upload();
        self.download = None;
        self.pending = Pending::default();
        self.noting.clear();
        self.marking.clear();
        self.names.give_up();
        self.letters = super::leaving::Letters::default();
        self.losses.give_up();
        for (index, keeper) in self.lines.end_all(desk, &mut self.groups, CancelReason::Poisoned) {
            let wall = desk.wall;
            // What it wants done is of no use to anybody any more.
            self.entry(index).machine.cancel(keeper, wall, &mut Vec::new());
        }
        self.let_all_flow(desk);
        self.rest();
    }

    /// Has nothing done at any time, whatever was to be done.
    pub(super) fn rest(&mut self) {
        for index in std::mem::take(&mut self.touched) {
            self.entry(index).touched = false;
        }
        for (_, index) in std::mem::take(&mut self.deadlines) {
            self.entry(index).deadline = None;
        }
        self.pending = Pending::default();
    }

    /// Answers a request on a shard that is poisoned; what can be answered all the same is given back.
    pub(super) fn refuse_poisoned(desk: &mut Desk<'_>, who: Requester, request: Request) -> Option<Request> {
        match request {
            // Each message is refused, or is only looked at.
            Request::Publish(_) | Request::QueueStats { .. } => return Some(request),
            // All have been ended.
            Request::CancelConsumer { .. } => desk.refuse(who, Refusal::UnknownConsumer),
            _ => desk.refuse(who, Refusal::Poisoned),
        }
        None
    }
}
