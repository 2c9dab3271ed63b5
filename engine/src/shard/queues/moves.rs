//! Messages that leave a queue for others: within one shard by one record, which settles here what it adds there; across
//! shards by way of an outbox, which is the queue that they leave.
//!
//! A leaving message stays where it is, durably and with its reason, until every other shard that gets it has said that it has
//! it, durably. Then one record of its own shard settles it. A crash in between has the host asked once more, and the
//! message sent once more under the name of its old place; a shard that has it already knows that by this name, and says yes.
//! It remembers the name, and which of its queues have the message, in its journal and checkpoint, until it is told that the message has
//! left its old place (`names.rs`); another number of shards changes nothing of that, even if old and new place are on one shard then.
//! So nothing is lost, and nothing doubled unless the host decides differently the second time, or the message goes to more queues
//! of its own shard than one record names.

use std::collections::BTreeMap;

use super::publish::Job;
use super::{Desk, Queues};
use crate::error::Refusal;
use crate::format::message::Target;
use crate::limits::QUEUES_PER_PUBLISH_MAX;
use crate::shard::message::{Message, Move, Outcome};
use crate::shard::request::Reply;
use crate::shard::{Output, Requester};
use crate::types::{Lsn, QueueId, Seq, ShardId};

/// A message on its way from a queue of one shard to queues of another.
#[derive(Debug)]
pub struct Inbound {
    /// Where it comes from, and what to answer with.
    pub ticket: (ShardId, u64),
    /// The place that it leaves.
    pub source: (QueueId, Seq),
    /// The queues that get it and do not have it yet.
    pub queues: Vec<QueueId>,
    /// If some queue has it already, the record that has to be durable for that.
    pub taken: Option<Lsn>,
    /// What it is.
    pub message: Message,
}

impl Inbound {
    /// The answer.
    pub fn answer(&self, arrival: Arrival) -> Output {
        let (shard, ticket) = self.ticket;
        Output::Arrived(shard, Arrived { ticket, arrival })
    }
}

/// What has become of an [`Inbound`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// It is there, or was dropped by queues that are full or gone.
    Taken,
    /// It may be tried again.
    PutOff,
    /// The same, but the shard takes nothing now, whatever it is.
    Shut,
}

/// The same, told to where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// Which it was.
    pub ticket: u64,
    /// What has become of it.
    pub arrival: Arrival,
}

/// A message that other shards are getting.
struct Outbound {
    moving: Moving,
    /// Shards that have not answered.
    missing: usize,
    failed: bool,
}

/// A message that leaves for queues of its own shard.
pub struct Moving {
    pub who: Requester,
    /// Where it goes; without those of this shard that have it already.
    pub moved: Box<Move>,
    /// Whether some queue has it already.
    pub partly: bool,
}

/// See the module.
#[derive(Default)]
pub struct Moves {
    outbound: BTreeMap<u64, Outbound>,
    last: u64,
}

impl Moves {
    /// Forgets what is on its way, and says who waits for it.
    pub fn give_up(&mut self) -> impl Iterator<Item = Requester> {
        std::mem::take(&mut self.outbound).into_values().map(|outbound| outbound.moving.who)
    }
}

impl Queues {
    /// Sends a leaving message where the host says.
    pub(super) fn start_move(&mut self, desk: &mut Desk<'_>, who: Requester, moved: Box<Move>) {
        let known = self.find(moved.queue).and_then(|index| self.stored(index, moved.seq));
        let leaves = known.is_some_and(|stored| stored.leaving.is_some());
        if !leaves || !self.letters.moves(moved.queue, moved.seq) {
            return desk.refuse(who, Refusal::UnknownQueue);
        }
        let mut elsewhere: BTreeMap<ShardId, Vec<QueueId>> = BTreeMap::new();
        for (shard, queue) in moved.targets.iter().filter(|(shard, _)| *shard != desk.shard) {
            elsewhere.entry(*shard).or_default().push(*queue);
        }
        let moving = Moving { who, moved, partly: false };
        if elsewhere.is_empty() {
            return self.enqueue(desk, Job::Move(moving));
        }
        if elsewhere.keys().any(|shard| self.letters.is_shut(*shard, desk.now)) {
            return self.stay(desk, &moving);
        }
        self.moves.last += 1;
        let number = self.moves.last;
        let missing = elsewhere.len();
        for (shard, queues) in elsewhere {
            let inbound = Inbound {
                ticket: (desk.shard, number),
                source: (moving.moved.queue, moving.moved.seq),
                queues,
                taken: None,
                message: moving.moved.message.clone(),
            };
            desk.outputs.push_back(Output::Inbound(shard, inbound));
        }
        self.moves.outbound.insert(number, Outbound { moving, missing, failed: false });
    }

    /// Another shard has a message that leaves a queue of this one, or has not.
    pub fn arrived(&mut self, desk: &mut Desk<'_>, from: ShardId, arrived: Arrived) {
        match arrived.arrival {
            Arrival::Taken => self.letters.opens(from, desk.now),
            Arrival::PutOff => {}
            Arrival::Shut => self.letters.shuts(from, desk.now),
        }
        let Some(outbound) = self.moves.outbound.get_mut(&arrived.ticket) else { return };
        outbound.missing -= 1;
        outbound.failed |= arrived.arrival != Arrival::Taken;
        if outbound.missing > 0 {
            return;
        }
        let Some(Outbound { moving, failed, .. }) = self.moves.outbound.remove(&arrived.ticket) else {
            return;
        };
        if failed {
            self.stay(desk, &moving);
        } else {
            self.enqueue(desk, Job::Move(moving));
        }
    }

    /// A message could not go where it should: the host is asked again later.
    fn stay(&mut self, desk: &mut Desk<'_>, moving: &Moving) {
        let Move { queue, seq, .. } = *moving.moved;
        self.letters.left(queue, seq);
        if self.find(queue).is_some() {
            self.letters.stay(queue, seq, desk.now);
        }
        desk.outputs.push_back(Output::Reply(moving.who, Reply::Done));
    }

    /// Every other shard has the message: it leaves its place, and arrives at those of this shard, by one record.
    pub(super) fn move_here(&mut self, desk: &mut Desk<'_>, mut moving: Moving) -> Result<(), Job> {
        if desk.shut.is_some() {
            self.drop_upload();
            self.stay(desk, &moving);
            return Ok(());
        }
        let shard = desk.shard;
        let Move { queue, seq, .. } = *moving.moved;
        // When there was another number of shards it may have come to some of them.
        let is_missing =
            |(to, target): &&(ShardId, QueueId)| *to == shard && !self.names.has((queue, seq), *target);
        let mut here: Vec<QueueId> =
            moving.moved.targets.iter().filter(is_missing).map(|(_, target)| *target).collect();
        while !here.is_empty() {
            let now = here.len().min(QUEUES_PER_PUBLISH_MAX);
            // The record that names the last of them settles the old place.
            let source = Some(place_of(queue, seq)).filter(|_| now == here.len());
            let Some((outcome, _)) = self.place(desk, &here[..now], &moving.moved.message, source) else {
                moving.moved.targets.retain(|(to, queue)| *to != shard || here.contains(queue));
                return Err(Job::Move(moving));
            };
            if is_put_off(&outcome, now) && !moving.partly {
                self.stay(desk, &moving);
                return Ok(());
            }
            moving.partly = true;
            here.drain(..now);
        }
        let mut elsewhere: Vec<ShardId> =
            moving.moved.targets.iter().map(|(to, _)| *to).filter(|to| *to != shard).collect();
        elsewhere.extend(self.names.knows((queue, seq)).then_some(shard));
        elsewhere.sort_unstable();
        elsewhere.dedup();
        if let Some(index) = self.find(queue) {
            self.with(desk, index, |machine, wants| machine.left(seq, wants));
            self.letters.left(queue, seq);
        }
        if moving.moved.message.persistent && !queue.is_transient() {
            self.has_left((queue, seq), elsewhere);
        }
        desk.outputs.push_back(Output::Reply(moving.who, Reply::Done));
        Ok(())
    }

    /// A message comes in from a queue of another shard.
    pub fn inbound(&mut self, desk: &mut Desk<'_>, inbound: Inbound) {
        self.enqueue(desk, Job::Inbound(Box::new(inbound)));
    }

    /// Takes a message in, unless it is here already.
    pub(super) fn let_in(&mut self, desk: &mut Desk<'_>, mut inbound: Box<Inbound>) -> Result<(), Job> {
        if desk.shut.is_some() || !self.names.has_room() {
            self.drop_upload();
            desk.outputs.push_back(inbound.answer(Arrival::Shut));
            return Ok(());
        }
        let (queue, seq) = inbound.source;
        inbound.queues.retain(|target| !self.names.has((queue, seq), *target));
        while !inbound.queues.is_empty() {
            let now = inbound.queues.len().min(QUEUES_PER_PUBLISH_MAX);
            let source = Some(place_of(queue, seq));
            let Some((outcome, lsn)) = self.place(desk, &inbound.queues[..now], &inbound.message, source)
            else {
                return Err(Job::Inbound(inbound));
            };
            if is_put_off(&outcome, now) && inbound.taken.is_none() {
                desk.outputs.push_back(inbound.answer(Arrival::PutOff));
                return Ok(());
            }
            inbound.taken = inbound.taken.max(Some(lsn));
            let placed = inbound.queues.drain(..now);
            if lsn > Lsn::ZERO && !queue.is_transient() {
                self.names.add((queue, seq), placed);
            }
        }
        // What was here before may be on its way to the disk still.
        let last = self.names.knows((queue, seq)).then(|| desk.journal.last_lsn());
        let durable = last.or(inbound.taken).unwrap_or(Lsn::ZERO);
        self.answer_at(desk, durable, inbound.answer(Arrival::Taken));
        Ok(())
    }
}

/// The place that a message leaves.
fn place_of(queue: QueueId, seq: Seq) -> Target {
    Target { queue, seq, expires_at: None }
}

/// Whether none of the queues has taken a message, for a reason that may pass: then it stays where it is.
fn is_put_off(outcome: &Outcome, queues: usize) -> bool {
    let passes = |why: &Refusal| !matches!(why, Refusal::UnknownQueue | Refusal::QueueFull);
    outcome.refused.len() == queues && outcome.refused.iter().any(|(_, why)| passes(why))
}
