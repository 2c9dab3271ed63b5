//! Messages in: checked, placed in the open group once for all queues that get them, and answered when that is durable.

use super::groups::{Large, locator_of_pieces};
use super::moves::{Arrival, Inbound, Moving};
use super::{Desk, Index, Queues};
use crate::error::Refusal;
use crate::format::journal::{PAYLOAD_BYTES_MAX, RecordHeader};
use crate::format::message::{MessageRecord, PIECE_BYTES, Pieces, TARGET_BYTES, Target, piece};
use crate::journal::Claim;
use crate::limits::{MESSAGE_BYTES_MAX, MESSAGE_HEADER_BYTES_MAX, QUEUES_PER_PUBLISH_MAX};
use crate::queue::{Admission, Incoming, Locator};
use crate::shard::message::{Message, Outcome, Publish};
use crate::shard::request::Reply;
use crate::shard::{Output, Requester};
use crate::types::{Lsn, QueueId};

/// The largest header and body that fit one record, whatever queues it is for.
const BYTES_MAX: usize = PAYLOAD_BYTES_MAX - (QUEUES_PER_PUBLISH_MAX + 1) * TARGET_BYTES;

/// What stands in the record of a message in pieces, in the place of header and body.
const PIECES_BYTES: usize = 16;

/// What is needed while a message is placed; kept for its memory.
#[derive(Default)]
pub struct Placing {
    /// The queues that take it, and whether it is a dead letter there from the start.
    takers: Vec<(Index, bool)>,
    targets: Vec<Target>,
}

/// A message that is being journalled in pieces: that of the first job that waits.
pub struct Upload {
    pieces: Pieces,
    /// Bytes that are journalled.
    done: usize,
}

/// Something that waits for room in the journal.
pub enum Job {
    /// A request to publish.
    Publish(Publishing),
    /// A message that leaves a queue of this shard for others of it.
    Move(Moving),
    /// A message that has left a queue of another shard.
    Inbound(Box<Inbound>),
}

/// A request to publish, as far as it has come.
pub struct Publishing {
    who: Requester,
    messages: std::vec::IntoIter<Publish>,
    /// The one that is being placed, and in how many of its queues it is.
    current: Option<Box<(Publish, usize)>>,
    outcomes: Vec<Outcome>,
    /// Who has refused the message that is being placed, which is for more queues than one record names.
    refused: Vec<(QueueId, Refusal)>,
    /// The last record that has to be durable.
    lsn: Lsn,
}

impl Job {
    /// Whom to answer when it is done.
    pub fn answer(self) -> Output {
        match self {
            Job::Publish(Publishing { who, .. }) | Job::Move(Moving { who, .. }) => {
                Output::Reply(who, Reply::Done)
            }
            Job::Inbound(inbound) => inbound.answer(Arrival::Shut),
        }
    }
}

impl Queues {
    pub(super) fn publish(&mut self, desk: &mut Desk<'_>, who: Requester, messages: Vec<Publish>) {
        let job = Publishing {
            who,
            refused: Vec::new(),
            outcomes: Vec::with_capacity(messages.len()),
            messages: messages.into_iter(),
            current: None,
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
                Job::Move(moving) => self.move_here(desk, moving),
                Job::Inbound(inbound) => self.let_in(desk, inbound),
            };
            if let Err(job) = rest {
                return self.backlog.push_front(job);
            }
        }
    }

    /// Goes on with a request to publish; what there is no room for is given back.
    fn publish_on(&mut self, desk: &mut Desk<'_>, mut job: Publishing) -> Result<(), Job> {
        while let Some((publish, placed)) =
            job.current.take().map(|current| *current).or_else(|| job.messages.next().map(|next| (next, 0)))
        {
            // One record names so many queues at most.
            let upto = publish.queues.len().min(placed + QUEUES_PER_PUBLISH_MAX);
            let Some((outcome, lsn)) =
                self.place(desk, &publish.queues[placed..upto], &publish.message, None)
            else {
                job.current = Some(Box::new((publish, placed)));
                return Err(Job::Publish(job));
            };
            job.lsn = job.lsn.max(lsn);
            job.refused.extend(outcome.refused);
            if upto == publish.queues.len() {
                job.outcomes.push(Outcome { refused: std::mem::take(&mut job.refused) });
            } else {
                job.current = Some(Box::new((publish, upto)));
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
            self.drop_upload();
            return refuse(refusal.clone());
        }
        if message.bytes() > MESSAGE_BYTES_MAX || message.header.len() > MESSAGE_HEADER_BYTES_MAX {
            return refuse(Refusal::MessageTooLarge { limit: MESSAGE_BYTES_MAX });
        }
        if queues.len() > QUEUES_PER_PUBLISH_MAX {
            return refuse(Refusal::Busy);
        }
        // What no queue keeps over a restart has no business in the journal.
        let kept = message.persistent && queues.iter().any(|id| !id.is_transient());
        if kept && desk.busy {
            return None;
        }
        let large = if message.bytes() > BYTES_MAX { Some(self.upload(desk, message, kept)?) } else { None };
        let own = if large.is_some() { PIECES_BYTES } else { message.bytes() };
        if !self.fits(desk, (queues.len() + 1) * TARGET_BYTES + own, kept) {
            return None;
        }
        let mut outcome = Outcome::default();
        let mut takers = std::mem::take(&mut self.placing.takers);
        takers.clear();
        for id in queues {
            let Some(index) = self.find_open(*id) else {
                // One that is being deleted may stay after all: nobody is told that it has gone.
                let closed = self.find(*id).is_some();
                outcome.refused.push((*id, if closed { Refusal::Busy } else { Refusal::UnknownQueue }));
                continue;
            };
            let (size, wall) = (message.bytes() as u32, desk.wall);
            if self.entry(index).machine.admits(size) {
                takers.push((index, false));
                continue;
            }
            match self.with(desk, index, |machine, wants| machine.admit(size, wall, wants)) {
                Admission::Take => takers.push((index, false)),
                Admission::Refuse => outcome.refused.push((*id, Refusal::QueueFull)),
                Admission::RefuseAndLeave => {
                    outcome.refused.push((*id, Refusal::QueueFull));
                    takers.push((index, true));
                }
            }
        }
        let lsn = if takers.is_empty() {
            Lsn::ZERO
        } else {
            self.take(desk, message, &takers, source, large, kept)
        };
        self.placing.takers = takers;
        // It was wanted by us until queues want it.
        self.drop_upload();
        Some((outcome, lsn))
    }

    fn take(
        &mut self,
        desk: &mut Desk<'_>,
        message: &Message,
        takers: &[(Index, bool)],
        source: Option<Target>,
        pieces: Option<Pieces>,
        kept: bool,
    ) -> Lsn {
        let mut targets = std::mem::take(&mut self.placing.targets);
        targets.clear();
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
            pieces,
        };
        let size = message.bytes();
        let prefix = record.prefix();
        let header = record.header(size - message.header.len());
        let mut durable = Lsn::ZERO;
        let (lsn, locator) = if let Some(pieces) = pieces {
            let locator = locator_of_pieces(pieces.name);
            for _ in takers {
                self.groups.want(locator, 0);
            }
            // The record itself has to outlive its file as long as the message does.
            let payload = [prefix, record.pieces_bytes()].concat();
            let (lsn, index) = self.put(desk, &header, std::iter::once(&payload[..]), (1, 0), kept);
            self.groups.large_mut(pieces.name).expect("just put together").pieces.push((index, 0));
            (lsn, locator)
        } else {
            let parts = [&prefix[..], &message.header[..]].into_iter();
            let parts = parts.chain(message.body.iter().map(|piece| &piece[..]));
            self.put(desk, &header, parts, (takers.len() as u32, size as u64), kept)
        };
        for ((index, refused), target) in takers.iter().zip(&record.targets) {
            let entry = self.entry(*index);
            let persistent = message.persistent && entry.is_durable();
            let incoming = Incoming {
                locator,
                size: size as u32,
                persistent,
                priority: message.priority,
                expires_at: message.expires_at,
            };
            let wall = desk.wall;
            let seq = if *refused {
                self.with(desk, *index, |machine, wants| machine.publish_refused(incoming, wall, wants))
            } else {
                let seq = entry.machine.publish(incoming, wall);
                self.touch(*index);
                seq
            };
            assert_eq!(seq, target.seq, "the number that is stored is the one that is given");
            // Who publishes is told that it was refused. A message that has left another queue for this one is nowhere else.
            if persistent && (!refused || record.source.is_some()) {
                durable = lsn;
            }
        }
        self.placing.targets = record.targets;
        durable
    }

    /// Whether a record with this payload can be put into the journal, or into memory if it is not kept over a restart.
    fn fits(&mut self, desk: &mut Desk<'_>, payload: usize, kept: bool) -> bool {
        if kept {
            desk.journal.fits(payload, Claim::Client)
        } else {
            self.passing.fits(&mut self.groups, payload)
        }
    }

    /// Puts a record there, of a message that so many queues have. Gives its number in the journal, or zero.
    fn put<'a>(
        &mut self,
        desk: &mut Desk<'_>,
        header: &RecordHeader,
        payload: impl Iterator<Item = &'a [u8]>,
        (queues, bytes): (u32, u64),
        kept: bool,
    ) -> (Lsn, Locator) {
        if kept {
            let position = desk.journal.next_position();
            let placed = desk.journal.append_pieces(header, payload);
            (placed.lsn, self.groups.place(position, queues, bytes))
        } else {
            (Lsn::ZERO, self.passing.append(&mut self.groups, header, payload, (queues, bytes)))
        }
    }

    /// Lets go of what was journalled in pieces: queues want it by now, or nobody does.
    pub(super) fn drop_upload(&mut self) {
        if let Some(upload) = self.upload.take() {
            self.groups.release(locator_of_pieces(upload.pieces.name), 0);
        }
    }

    /// Puts the pieces of a message into the journal, or into memory, as many as there is room for; `None` if there are more.
    fn upload(&mut self, desk: &mut Desk<'_>, message: &Message, kept: bool) -> Option<Pieces> {
        let total = message.bytes();
        loop {
            let (name, done) = match &self.upload {
                Some(upload) if upload.done == total => return Some(upload.pieces),
                Some(upload) => (upload.pieces.name, upload.done),
                None if kept => (desk.journal.last_lsn().next().0, 0),
                None => (self.passing.name(), 0),
            };
            let len = (total - done).min(PIECE_BYTES);
            if !self.fits(desk, len, kept) {
                return None;
            }
            let header = piece(name, (done / PIECE_BYTES) as u64, len);
            let (_, locator) = self.put(desk, &header, stretch(message, done, len), (1, len as u64), kept);
            if self.upload.is_none() {
                let (header_bytes, priority) = (message.header.len(), message.priority);
                self.groups.add_large(name, Large { wanted: 1, pieces: Vec::new(), header_bytes, priority });
                self.upload = Some(Upload { pieces: Pieces { name, bytes: total as u64 }, done: 0 });
            }
            let large = self.groups.large_mut(name).expect("it was put there with its first piece");
            large.pieces.push((locator, len as u32));
            self.upload.as_mut().expect("it was just there").done += len;
        }
    }
}

/// So many bytes of a message's header and body, from this one on.
fn stretch(message: &Message, from: usize, len: usize) -> impl Iterator<Item = &[u8]> {
    let all = std::iter::once(&message.header).chain(&message.body);
    let (mut skip, mut left) = (from, len);
    all.filter_map(move |slice| {
        let start = skip.min(slice.len());
        skip -= start;
        let end = (start + left).min(slice.len());
        left -= end - start;
        (end > start).then(|| &slice[start..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_of_a_message_goes_over_its_pieces() {
        let body = vec![b"cd".to_vec().into(), Vec::new().into(), b"efg".to_vec().into()].into();
        let header = b"ab".to_vec().into();
        let message = Message { header, body, persistent: true, priority: 0, expires_at: None };
        for from in 0..=7 {
            for len in 0..=7 - from {
                let bytes: Vec<u8> = stretch(&message, from, len).flatten().copied().collect();
                assert_eq!(bytes, b"abcdefg"[from..from + len], "{from} {len}");
            }
        }
    }
}
