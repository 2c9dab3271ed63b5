//! Messages in: checked, placed in the open group once for all queues that get them, and answered when that is durable.

use std::collections::VecDeque;

use super::moves::Inbound;
use super::{Desk, Index, Queues};
use crate::error::Refusal;
use crate::format::journal::PAYLOAD_BYTES_MAX;
use crate::format::message::{MessageRecord, TARGET_BYTES, Target};
use crate::journal::Claim;
use crate::limits::{MESSAGE_HEADER_BYTES_MAX, QUEUES_PER_PUBLISH_MAX};
use crate::queue::{Admission, Incoming};
use crate::shard::message::{Message, Move, Outcome, Publish};
use crate::shard::request::Reply;
use crate::shard::{Output, Requester};
use crate::types::{Lsn, QueueId};

/// The largest header and body that fit one record, whatever queues it is for.
const BYTES_MAX: usize = PAYLOAD_BYTES_MAX - (QUEUES_PER_PUBLISH_MAX + 1) * TARGET_BYTES;

/// Something that waits for room in the journal.
pub enum Job {
    /// A request to publish.
    Publish(Publishing),
    /// A message that leaves a queue of this shard for others of it.
    Move(Requester, Move),
    /// A message that has left a queue of another shard.
    Inbound(Inbound),
}

/// A request to publish, as far as it has come.
pub struct Publishing {
    who: Requester,
    messages: VecDeque<Publish>,
    outcomes: Vec<Outcome>,
    /// The last record that has to be durable.
    lsn: Lsn,
}

impl Job {
    /// Whom to answer when it is done.
    pub fn answer(self) -> Output {
        match self {
            Job::Publish(Publishing { who, .. }) | Job::Move(who, _) => Output::Reply(who, Reply::Done),
            Job::Inbound(inbound) => inbound.answer(true),
        }
    }
}

impl Queues {
    pub(super) fn publish(&mut self, desk: &mut Desk<'_>, who: Requester, messages: Vec<Publish>) {
        let job = Publishing {
            who,
            outcomes: Vec::with_capacity(messages.len()),
            messages: messages.into(),
            lsn: Lsn::ZERO,
        };
        self.enqueue(desk, Job::Publish(job));
    }

    /// Does a job, as soon as those before it are done and there is room.
    pub(super) fn enqueue(&mut self, desk: &mut Desk<'_>, job: Job) {
        self.backlog.push_back(job);
        if self.backlog.len() == 1 {
            self.drain_backlog(desk);
        }
    }

    /// Places what waits, in order, as far as there is room.
    pub fn drain_backlog(&mut self, desk: &mut Desk<'_>) {
        while let Some(job) = self.backlog.pop_front() {
            let rest = match job {
                Job::Publish(job) => self.publish_on(desk, job),
                Job::Move(who, moved) => self.move_here(desk, who, moved),
                Job::Inbound(inbound) => self.let_in(desk, inbound),
            };
            if let Err(job) = rest {
                return self.backlog.push_front(job);
            }
        }
    }

    /// Goes on with a request to publish; what there is no room for is given back.
    fn publish_on(&mut self, desk: &mut Desk<'_>, mut job: Publishing) -> Result<(), Job> {
        while let Some(publish) = job.messages.pop_front() {
            match self.place(desk, &publish.queues, &publish.message, None) {
                Some((outcome, lsn)) => {
                    job.outcomes.push(outcome);
                    job.lsn = job.lsn.max(lsn);
                }
                None => {
                    job.messages.push_front(publish);
                    return Err(Job::Publish(job));
                }
            }
        }
        let reply = Reply::Published(job.outcomes);
        self.answer_at(desk, job.lsn, Output::Reply(job.who, reply));
        Ok(())
    }

    /// Takes a message into its queues; `None` if there is no room now. Gives the record that has to be durable before
    /// anybody is told. `source`: the place that it leaves.
    pub(super) fn place(
        &mut self,
        desk: &mut Desk<'_>,
        queues: &[QueueId],
        message: &Message,
        source: Option<Target>,
    ) -> Option<(Outcome, Lsn)> {
        let refuse = |refusal: Refusal| {
            let refused = queues.iter().map(|id| (*id, refusal.clone())).collect();
            Some((Outcome { refused }, Lsn::ZERO))
        };
        if let Some(refusal) = &desk.shut {
            return refuse(refusal.clone());
        }
        if message.bytes() > BYTES_MAX || message.header.len() > MESSAGE_HEADER_BYTES_MAX {
            return refuse(Refusal::MessageTooLarge { limit: BYTES_MAX });
        }
        if queues.len() > QUEUES_PER_PUBLISH_MAX {
            return refuse(Refusal::Busy);
        }
        if desk.busy || !desk.journal.fits((queues.len() + 1) * TARGET_BYTES + message.bytes(), Claim::Client)
        {
            return None;
        }
        let mut outcome = Outcome::default();
        let mut takers = Vec::with_capacity(queues.len());
        for id in queues {
            let Some(index) = self.find_open(*id) else {
                outcome.refused.push((*id, Refusal::UnknownQueue));
                continue;
            };
            let (size, wall) = (message.bytes() as u32, desk.wall);
            match self.with(desk, index, |machine, wants| machine.admit(size, wall, wants)) {
                Admission::Take => takers.push((index, false)),
                Admission::Refuse => outcome.refused.push((*id, Refusal::QueueFull)),
                Admission::RefuseAndLeave => {
                    outcome.refused.push((*id, Refusal::QueueFull));
                    takers.push((index, true));
                }
            }
        }
        let lsn = if takers.is_empty() { Lsn::ZERO } else { self.take(desk, message, &takers, source) };
        Some((outcome, lsn))
    }

    fn take(
        &mut self,
        desk: &mut Desk<'_>,
        message: &Message,
        takers: &[(Index, bool)],
        source: Option<Target>,
    ) -> Lsn {
        let mut targets = Vec::with_capacity(takers.len());
        for (index, _) in takers {
            let entry = self.entry(*index);
            targets.push(Target {
                queue: entry.id,
                seq: entry.machine.next_seq(message.priority),
                expires_at: entry.machine.expiry(message.expires_at, desk.wall),
            });
        }
        let record = MessageRecord {
            targets,
            source,
            persistent: message.persistent,
            priority: message.priority,
            header_bytes: message.header.len(),
        };
        let size = message.bytes();
        let position = desk.journal.next_position();
        let prefix = record.prefix();
        let pieces = [&prefix[..], &message.header[..]].into_iter();
        let pieces = pieces.chain(message.body.iter().map(|piece| &piece[..]));
        let placed = desk.journal.append_pieces(&record.header(size - message.header.len()), pieces);
        let mut durable = Lsn::ZERO;
        let locator = self.groups.place(position, takers.len() as u32, size as u64);
        for ((index, refused), target) in takers.iter().zip(&record.targets) {
            let entry = self.entry(*index);
            let persistent = message.persistent && entry.durable;
            let incoming = Incoming {
                locator,
                size: size as u32,
                persistent,
                priority: message.priority,
                expires_at: message.expires_at,
            };
            let wall = desk.wall;
            let seq = self.with(desk, *index, |machine, wants| {
                if *refused {
                    machine.publish_refused(incoming, wall, wants)
                } else {
                    machine.publish(incoming, wall)
                }
            });
            assert_eq!(seq, target.seq, "the number that is stored is the one that is given");
            if persistent && !refused {
                durable = placed.lsn;
            }
        }
        durable
    }
}
