//! Messages that leave a queue for others: within one shard by one record, which settles here what it adds there; across
//! shards by way of an outbox, which is the queue that they leave.
//!
//! A leaving message stays where it is, durably and with its reason, until every other shard that gets it has said that it has
//! it, durably. Then one record of its own shard settles it. A crash in between has the host asked once more, and the
//! message sent once more under the name of its old place; a shard that has it already knows that by this name, and says yes.
//! It remembers the name, in its journal and checkpoint, until it is told that the message has left its old place. So nothing is
//! lost, and nothing doubled unless the host decides differently the second time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::publish::Job;
use super::{Desk, Queues};
use crate::error::Refusal;
use crate::format::message::Target;
use crate::shard::message::{Message, Move, Outcome};
use crate::shard::request::Reply;
use crate::shard::{Output, Requester};
use crate::time::Nanos;
use crate::types::{Lsn, QueueId, Seq, ShardId};

/// How long a message that could not go where it should stays before the host is asked again.
const STAY: Nanos = Nanos::from_millis(1_000);

/// A message on its way from a queue of one shard to queues of another.
#[derive(Debug)]
pub struct Inbound {
    /// Where it comes from, and what to answer with.
    pub ticket: (ShardId, u64),
    /// The place that it leaves.
    pub source: (QueueId, Seq),
    /// The queues that get it.
    pub queues: Vec<QueueId>,
    /// What it is.
    pub message: Message,
}

impl Inbound {
    /// The answer.
    pub fn answer(&self, taken: bool) -> Output {
        let (shard, ticket) = self.ticket;
        Output::Arrived(shard, Arrived { ticket, taken })
    }
}

/// What has become of an [`Inbound`].
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// Which it was.
    pub ticket: u64,
    /// Whether it is there, or was dropped by queues that are full or gone; else it may be tried again.
    pub taken: bool,
}

/// A message that other shards are getting.
struct Outbound {
    who: Requester,
    moved: Box<Move>,
    /// Shards that have not answered.
    missing: usize,
    failed: bool,
}

/// See the module.
#[derive(Default)]
pub struct Moves {
    outbound: BTreeMap<u64, Outbound>,
    last: u64,
    /// Names of messages that came in and may be sent once more.
    arrived: BTreeSet<(QueueId, Seq)>,
    /// Messages that stay for now.
    staying: VecDeque<(Nanos, QueueId, Seq)>,
    /// Messages that have left, and who is to be told when that is durable.
    forgetting: VecDeque<(Lsn, QueueId, Seq, Vec<ShardId>)>,
}

impl Moves {
    /// Forgets what came from a queue that is gone.
    pub fn forget_queue(&mut self, queue: QueueId) {
        let gone: Vec<_> = self.arrived.range((queue, Seq(0))..=(queue, Seq(u64::MAX))).copied().collect();
        for name in gone {
            self.arrived.remove(&name);
        }
        self.staying.retain(|(_, of, _)| *of != queue);
    }

    /// When there is something to do.
    pub fn due(&self) -> Option<Nanos> {
        self.staying.front().map(|(at, ..)| *at)
    }

    /// Whether no shard is still to be told that it may forget a name.
    pub fn are_told(&self) -> bool {
        self.forgetting.is_empty()
    }

    /// Names to be kept over a restart.
    pub fn arrived(&self) -> impl Iterator<Item = (QueueId, Seq)> {
        self.arrived.iter().copied()
    }

    /// A name that was kept.
    pub fn recovered(&mut self, queue: QueueId, seq: Seq) {
        self.arrived.insert((queue, seq));
    }
}

impl Queues {
    /// Sends a leaving message where the host says.
    pub(super) fn start_move(&mut self, desk: &mut Desk<'_>, who: Requester, moved: Move) {
        let moved = Box::new(moved);
        let known = self.find(moved.queue).and_then(|index| self.stored(index, moved.seq));
        if known.is_none_or(|stored| stored.leaving.is_none()) {
            return desk.refuse(who, Refusal::UnknownQueue);
        }
        let mut elsewhere: BTreeMap<ShardId, Vec<QueueId>> = BTreeMap::new();
        for (shard, queue) in moved.targets.iter().filter(|(shard, _)| *shard != desk.shard) {
            elsewhere.entry(*shard).or_default().push(*queue);
        }
        if elsewhere.is_empty() {
            return self.enqueue(desk, Job::Move(who, moved));
        }
        self.moves.last += 1;
        let number = self.moves.last;
        let missing = elsewhere.len();
        for (shard, queues) in elsewhere {
            let inbound = Inbound {
                ticket: (desk.shard, number),
                source: (moved.queue, moved.seq),
                queues,
                message: moved.message.clone(),
            };
            desk.outputs.push_back(Output::Inbound(shard, inbound));
        }
        self.moves.outbound.insert(number, Outbound { who, moved, missing, failed: false });
    }

    /// Another shard has a message that leaves a queue of this one, or has not.
    pub fn arrived(&mut self, desk: &mut Desk<'_>, arrived: Arrived) {
        let Some(outbound) = self.moves.outbound.get_mut(&arrived.ticket) else { return };
        outbound.missing -= 1;
        outbound.failed |= !arrived.taken;
        if outbound.missing > 0 {
            return;
        }
        let Some(Outbound { who, moved, failed, .. }) = self.moves.outbound.remove(&arrived.ticket) else {
            return;
        };
        if failed {
            self.stay(desk, who, &moved);
        } else {
            self.enqueue(desk, Job::Move(who, moved));
        }
    }

    /// A message could not go where it should: the host is asked again later.
    fn stay(&mut self, desk: &mut Desk<'_>, who: Requester, moved: &Move) {
        self.moves.staying.push_back((desk.now + STAY, moved.queue, moved.seq));
        desk.outputs.push_back(Output::Reply(who, Reply::Done));
    }

    /// Has the host asked again about messages that have stayed for long enough.
    pub(super) fn retry_moves(&mut self, desk: &mut Desk<'_>) {
        while let Some((_, queue, seq)) = self.moves.staying.pop_front_if(|(at, ..)| *at <= desk.now) {
            let Some(index) = self.find(queue) else { continue };
            if self.entry(index).machine.stayed(seq) {
                self.was_told(queue);
                self.entry(index).leaving = true;
                self.leaving.insert(index);
            }
        }
    }

    /// The host has answered for one of a queue's messages.
    fn was_told(&mut self, queue: QueueId) {
        if let Some(index) = self.find(queue) {
            let entry = self.entry(index);
            let told = usize::from(entry.told > 0);
            entry.told -= told;
            self.told -= told;
        }
    }

    /// Every other shard has the message: it leaves its place, and arrives at those of this shard, by one record.
    pub(super) fn move_here(
        &mut self,
        desk: &mut Desk<'_>,
        who: Requester,
        moved: Box<Move>,
    ) -> Result<(), Job> {
        if desk.shut.is_some() {
            self.drop_upload();
            self.stay(desk, who, &moved);
            return Ok(());
        }
        let shard = desk.shard;
        let here: Vec<QueueId> =
            moved.targets.iter().filter(|(to, _)| *to == shard).map(|(_, queue)| *queue).collect();
        if !here.is_empty() {
            let source = Target { queue: moved.queue, seq: moved.seq, expires_at: None };
            let Some((outcome, _)) = self.place(desk, &here, &moved.message, Some(source)) else {
                return Err(Job::Move(who, moved));
            };
            if is_put_off(&outcome, here.len()) {
                self.stay(desk, who, &moved);
                return Ok(());
            }
        }
        let mut elsewhere: Vec<ShardId> =
            moved.targets.iter().map(|(to, _)| *to).filter(|to| *to != shard).collect();
        elsewhere.sort_unstable();
        elsewhere.dedup();
        if let Some(index) = self.find(moved.queue) {
            let seq = moved.seq;
            self.with(desk, index, |machine, wants| machine.left(seq, wants));
            self.was_told(moved.queue);
        }
        if !elsewhere.is_empty() && moved.message.persistent && !moved.queue.is_transient() {
            self.moves.forgetting.push_back((Lsn(u64::MAX), moved.queue, moved.seq, elsewhere));
        }
        desk.outputs.push_back(Output::Reply(who, Reply::Done));
        Ok(())
    }

    /// What is pending is in the journal up to this record: those who have messages from here may forget their names when
    /// that is durable.
    pub(super) fn noted_moves(&mut self, lsn: Lsn) {
        for (until, ..) in self.moves.forgetting.iter_mut().filter(|(until, ..)| until.0 == u64::MAX) {
            *until = lsn;
        }
    }

    /// The journal is durable up to this record.
    pub(super) fn forget_moves(&mut self, lsn: Lsn, outputs: &mut VecDeque<Output>) {
        while let Some((_, queue, seq, shards)) =
            self.moves.forgetting.pop_front_if(|(until, ..)| *until <= lsn)
        {
            outputs.extend(shards.into_iter().map(|shard| Output::Forget(shard, queue, seq)));
        }
    }

    /// A message comes in from a queue of another shard.
    pub fn inbound(&mut self, desk: &mut Desk<'_>, inbound: Inbound) {
        self.enqueue(desk, Job::Inbound(Box::new(inbound)));
    }

    /// Takes a message in, unless it is here already.
    pub(super) fn let_in(&mut self, desk: &mut Desk<'_>, inbound: Box<Inbound>) -> Result<(), Job> {
        if desk.shut.is_some() {
            self.drop_upload();
            desk.outputs.push_back(inbound.answer(false));
            return Ok(());
        }
        let (queue, seq) = inbound.source;
        if self.moves.arrived.contains(&(queue, seq)) {
            // It may be on its way to the disk still.
            let last = desk.journal.last_lsn();
            self.answer_at(desk, last, inbound.answer(true));
            return Ok(());
        }
        let source = Target { queue, seq, expires_at: None };
        let Some((outcome, lsn)) = self.place(desk, &inbound.queues, &inbound.message, Some(source)) else {
            return Err(Job::Inbound(inbound));
        };
        if is_put_off(&outcome, inbound.queues.len()) {
            desk.outputs.push_back(inbound.answer(false));
            return Ok(());
        }
        if lsn > Lsn::ZERO && !queue.is_transient() {
            self.moves.arrived.insert((queue, seq));
        }
        self.answer_at(desk, lsn, inbound.answer(true));
        Ok(())
    }

    /// A message that came in has left its old place: it will not come again.
    pub fn forget(&mut self, queue: QueueId, seq: Seq, now: Nanos) {
        if self.moves.arrived.remove(&(queue, seq)) {
            self.pending.forgotten(queue, seq, now);
        }
    }
}

/// Whether none of the queues has taken a message, for a reason that may pass: then it stays where it is.
fn is_put_off(outcome: &Outcome, queues: usize) -> bool {
    let passes = |why: &Refusal| !matches!(why, Refusal::UnknownQueue | Refusal::QueueFull);
    outcome.refused.len() == queues && outcome.refused.iter().any(|(_, why)| passes(why))
}
