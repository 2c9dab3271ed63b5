//! Messages in: checked, placed in the open group once for all queues that get them, and answered when that is durable.

use std::collections::VecDeque;

use super::{Desk, Index, Queues};
use crate::error::Refusal;
use crate::format::journal::PAYLOAD_BYTES_MAX;
use crate::format::message::{MessageRecord, TARGET_BYTES, Target};
use crate::journal::Claim;
use crate::limits::{MESSAGE_HEADER_BYTES_MAX, QUEUES_PER_PUBLISH_MAX};
use crate::queue::{Admission, Incoming};
use crate::shard::Requester;
use crate::shard::message::{Message, Outcome, Publish};
use crate::shard::request::Reply;
use crate::types::Lsn;

/// A request to publish, as far as it has come.
pub struct Publishing {
    who: Requester,
    messages: VecDeque<Publish>,
    outcomes: Vec<Outcome>,
    /// The last record that has to be durable.
    lsn: Lsn,
}

impl Publishing {
    /// Who sent it.
    pub fn who(&self) -> Requester {
        self.who
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
        self.backlog.push_back(job);
        if self.backlog.len() == 1 {
            self.drain_backlog(desk);
        }
    }

    /// Places what waits, in order, as far as there is room.
    pub fn drain_backlog(&mut self, desk: &mut Desk<'_>) {
        while let Some(mut job) = self.backlog.pop_front() {
            while let Some(publish) = job.messages.pop_front() {
                match self.place(desk, &publish, &mut job.lsn) {
                    Some(outcome) => job.outcomes.push(outcome),
                    None => {
                        job.messages.push_front(publish);
                        return self.backlog.push_front(job);
                    }
                }
            }
            self.answer_at(desk, job.lsn, job.who, Reply::Published(job.outcomes));
        }
    }

    /// Takes a message into its queues; `None` if there is no room now. Raises `durable` to its record, if somebody is to be
    /// told when that is durable.
    fn place(&mut self, desk: &mut Desk<'_>, publish: &Publish, durable: &mut Lsn) -> Option<Outcome> {
        let Publish { queues, message } = publish;
        let refuse = |refusal: Refusal| {
            Some(Outcome { refused: queues.iter().map(|id| (*id, refusal.clone())).collect() })
        };
        if let Some(refusal) = &desk.shut {
            return refuse(refusal.clone());
        }
        let limit = PAYLOAD_BYTES_MAX - QUEUES_PER_PUBLISH_MAX * TARGET_BYTES;
        if message.bytes() > limit || message.header.len() > MESSAGE_HEADER_BYTES_MAX {
            return refuse(Refusal::MessageTooLarge { limit });
        }
        if queues.len() > QUEUES_PER_PUBLISH_MAX {
            return refuse(Refusal::Busy);
        }
        if desk.busy || !desk.journal.fits(queues.len() * TARGET_BYTES + message.bytes(), Claim::Client) {
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
        if !takers.is_empty() {
            self.take(desk, message, &takers, durable);
        }
        Some(outcome)
    }

    fn take(&mut self, desk: &mut Desk<'_>, message: &Message, takers: &[(Index, bool)], durable: &mut Lsn) {
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
            source: None,
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
                *durable = placed.lsn;
            }
        }
    }
}
