//! The queues of a shard: their state machines, and what these need of the journal, of memory and of other shards.
//!
//! A message goes into the open group of the journal, once for all queues of the shard that get it, and into their state
//! machines. At the end of a turn these say what is delivered; a delivery goes out as soon as its bytes can be had: when the
//! group is on its way to the disk, or has been read back. What is settled is noted in the journal a little later.

mod census;
mod flow;
mod groups;
mod hash;
mod heirs;
mod leaving;
mod lines;
mod lost;
mod moves;
mod names;
mod pages;
mod passing;
mod pending;
mod poison;
mod publish;
mod reading;
pub(super) mod recovery;
mod survivors;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use census::Census;
use flow::{Flows, Regulator};
pub use groups::GroupKey;
use groups::Groups;
use hash::Table;
pub use heirs::{Estate, Heirs};
use leaving::Letters;
use lines::{Copying, Download, Getting, Leaving, Lines};
use lost::Losses;
use moves::Moves;
pub use moves::{Arrived, Inbound};
use names::Names;
use pages::Paging;
use passing::Passing;
use pending::Pending;
use publish::{Job, Placing, Upload};
use reading::Reading;
use survivors::Survivors;

use super::message::{ConsumerId, Settlement};
use super::metadata::Metadata;
use super::request::{Reply, Request};
use super::{Output, Pools, Requester};
use crate::error::Refusal;
use crate::journal::{Journal, Submitted};
use crate::limits::{MARK_AHEAD, QUEUE_WORK_PER_TURN, QUEUES_PER_REQUEST_MAX};
use crate::queue::{self, Queue, Stored, Token};
use crate::time::{Nanos, WallMs};
use crate::types::{Lsn, QueueId, Seq, ShardId};

/// How long what has found no room in the journal waits before it tries again.
const RETRY: Nanos = Nanos::from_millis(1);

/// The directory of the files of survivors, within the shard's.
const MESSAGES: &str = "messages";
/// The file of pages, within the shard's directory.
const PAGES: &str = "pages";
/// What the names of files begin with, there, that hold messages which are not kept.
const PASSING: &str = "passing-";

/// A queue's place in the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Index(u32);

/// How far messages of one rank may be delivered: what is recorded ahead of deliveries, so that recovery knows which messages
/// may have been delivered before.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Durably recorded.
    durable: u64,
    /// Asked to be.
    asked: u64,
}

/// One queue.
struct Entry {
    id: QueueId,
    machine: Queue,
    touched: bool,
    deadline: Option<WallMs>,
    closed: bool,
    marks: Vec<Mark>,
    /// Bytes that its index takes, as far as that is counted.
    index_bytes: usize,
    regulator: Regulator,
    /// It is deleted, and here until it has let go of its messages.
    gone: bool,
}

impl Entry {
    fn is_durable(&self) -> bool {
        !self.id.is_transient()
    }

    /// Whether a message that it keeps over a restart may be given out: what recovery has to know of that is durable.
    fn may_give(&self, seq: Seq) -> bool {
        let mark = self.marks.get(usize::from(queue::rank_of(seq)));
        !self.is_durable() || mark.is_some_and(|mark| seq.0 < mark.durable)
    }
}

/// Somebody who waits until what was purged is settled, durably.
struct Purge {
    who: Requester,
    queue: QueueId,
    messages: u64,
}

/// What the queues may use of their shard for a moment.
pub struct Desk<'a> {
    /// Which shard it is.
    pub shard: ShardId,
    /// The journal.
    pub journal: &'a mut Journal,
    /// The metadata that the shard has applied.
    pub metadata: &'a Metadata,
    /// What the shard tells.
    pub outputs: &'a mut VecDeque<Output>,
    /// The clock.
    pub now: Nanos,
    /// The wall clock.
    pub wall: WallMs,
    /// Nothing may be stored for clients: why.
    pub shut: Option<Refusal>,
    /// Nothing of clients may be stored at this moment: something in parts is under way.
    pub busy: bool,
}

impl Desk<'_> {
    fn refuse(&mut self, who: Requester, refusal: Refusal) {
        self.outputs.push_back(Output::Reply(who, Reply::Refused(refusal)));
    }
}

/// See the module.
pub struct Queues {
    by_id: Table<QueueId, Index>,
    entries: Vec<Option<Entry>>,
    vacant: Vec<Index>,
    groups: Groups,
    lines: Lines,
    pending: Pending,
    reading: Reading,
    paging: Paging,
    passing: Passing,
    flows: Flows,
    survivors: Survivors,
    backlog: VecDeque<Job>,
    upload: Option<Upload>,
    placing: Placing,
    /// The message in pieces that is being put together.
    download: Option<Download>,
    copying: Copying,
    moves: Moves,
    names: Names,
    letters: Letters,
    losses: Losses,
    purges: Vec<Purge>,
    /// Those who want one message of a queue whose first is paged out.
    getting: Vec<Getting>,
    /// Who is to be answered when this record is durable.
    waits: VecDeque<(Lsn, Output)>,
    /// Who is to be answered when what is pending is durable.
    hurried: Vec<(Requester, Reply)>,
    /// How often what is pending has been journalled as a whole; which of those are on their way to the disk, and which is
    /// durable.
    noted: u64,
    noting: VecDeque<(Lsn, u64)>,
    noted_durably: u64,
    /// Marks that are on their way to the disk.
    marking: VecDeque<(QueueId, u8, Seq, Lsn)>,
    touched: Vec<Index>,
    census: Census,
    deadlines: BTreeSet<(WallMs, Index)>,
    /// What the state machines want done; reused.
    wants: Vec<queue::Output>,
    /// Whether something has happened since it was last looked for what is to be done, or was left to be done.
    stirred: bool,
    /// When there is something to do although nothing happens.
    due: Nanos,
}

impl Queues {
    /// No queues. Files are in `home`; the journal may grow to so many bytes, and indexes may take so many.
    pub fn new(home: &str, pools: &Pools, journal_bytes: u64, index_bytes: u64) -> Queues {
        let pages = format!("{home}/{PAGES}");
        let directory = format!("{home}/{MESSAGES}");
        let mut groups = Groups::default();
        groups.share(pools.read.usage().limit);
        Queues {
            by_id: Table::default(),
            placing: Placing::default(),
            entries: Vec::new(),
            census: Census::default(),
            vacant: Vec::new(),
            groups,
            lines: Lines::default(),
            pending: Pending::default(),
            reading: Reading::new(pools.read.clone(), pools.large.clone()),
            paging: Paging::new(pages, pools.staging.clone(), pools.read.clone(), index_bytes),
            passing: Passing::new(format!("{home}/{PASSING}"), pools.passing.clone(), pools.staging.clone()),
            flows: Flows::default(),
            survivors: Survivors::new(directory, pools.staging.clone(), journal_bytes),
            backlog: VecDeque::new(),
            upload: None,
            download: None,
            copying: Copying::default(),
            moves: Moves::default(),
            names: Names::default(),
            letters: Letters::default(),
            losses: Losses::default(),
            purges: Vec::new(),
            getting: Vec::new(),
            waits: VecDeque::new(),
            hurried: Vec::new(),
            noted: 0,
            noting: VecDeque::new(),
            noted_durably: 0,
            marking: VecDeque::new(),
            touched: Vec::new(),
            deadlines: BTreeSet::new(),
            wants: Vec::new(),
            stirred: true,
            due: Nanos(u64::MAX),
        }
    }

    /// Says that something happens to queues: this turn is one of theirs.
    pub fn stir(&mut self) {
        self.stirred = true;
    }

    /// Whether there is anything to do at the end of this turn. Where there are no queues, or idle ones, this is all that a
    /// turn pays for them.
    pub fn has_work(&mut self, now: Nanos) -> bool {
        self.stirred |= self.due <= now;
        self.stirred
    }

    /// Whether nothing is left that waits for a later turn, or for the disk.
    fn is_at_rest(&self) -> bool {
        self.is_settled()
            && self.touched.is_empty()
            && self.lines.are_empty()
            && self.reading.wants_nothing()
            && self.paging.is_at_rest()
            && self.passing.is_at_rest()
            && self.flows.held() == 0
            && self.noting.is_empty()
            && self.marking.is_empty()
            && self.names.are_told()
            && self.letters.are_asked_about()
            && self.losses.len() == 0
    }

    /// Whether nothing that was promised to anybody is still on its way to the disk.
    pub fn is_settled(&self) -> bool {
        self.backlog.is_empty()
            && self.waits.is_empty()
            && self.hurried.is_empty()
            && self.pending.is_empty()
            && self.purges.is_empty()
    }

    /// When it wants a turn although nothing happens.
    pub fn next_due(&self) -> Nanos {
        self.due
    }

    /// Whether what is to be read next waits for memory.
    pub fn is_starved(&self) -> bool {
        self.reading.is_starved() || self.paging.is_starved()
    }

    /// How much there is of everything that is to be bounded, for tests.
    pub fn held(&self) -> BTreeMap<&'static str, usize> {
        BTreeMap::from([
            ("backlog", self.backlog.len()),
            ("waits", self.waits.len() + self.hurried.len() + self.purges.len()),
            ("noting", self.noting.len() + self.marking.len()),
            ("pending", self.pending.len()),
            ("names", self.names.len()),
            ("told", self.letters.told()),
            ("people", self.lines.len()),
            ("getting", self.getting.len()),
            ("losses", self.losses.len()),
        ])
    }

    fn find(&self, id: QueueId) -> Option<Index> {
        self.by_id.get(&id).copied()
    }

    /// All queues, in the order of their ids.
    fn all(&self) -> Vec<(QueueId, Index)> {
        let mut all: Vec<_> = self.by_id.iter().map(|(id, index)| (*id, *index)).collect();
        all.sort_unstable();
        all
    }

    fn entry(&mut self, index: Index) -> &mut Entry {
        self.entries[index.0 as usize].as_mut().expect("an index that is known has a queue")
    }

    fn find_open(&mut self, id: QueueId) -> Option<Index> {
        let index = self.find(id)?;
        (!self.entry(index).closed).then_some(index)
    }

    fn insert(&mut self, id: QueueId, machine: Queue, marks: Vec<Mark>) -> Index {
        let leaving = machine.stats().leaving > 0;
        let entry = Entry {
            id,
            machine,
            touched: false,
            deadline: None,
            closed: false,
            marks,
            index_bytes: 0,
            regulator: Regulator::default(),
            gone: false,
        };
        let index = self.vacant.pop().unwrap_or(Index(self.entries.len() as u32));
        if index.0 as usize == self.entries.len() {
            self.entries.push(Some(entry));
        } else {
            self.entries[index.0 as usize] = Some(entry);
        }
        self.by_id.insert(id, index);
        if leaving {
            self.letters.add(index);
        }
        self.touch(index);
        index
    }

    /// Has a queue's state machine run at the end of the turn.
    fn touch(&mut self, index: Index) {
        let entry = self.entry(index);
        if !std::mem::replace(&mut entry.touched, true) {
            self.touched.push(index);
        }
    }

    /// Makes the queues that are new here, configures those that changed, and takes those away that are gone.
    pub fn apply(&mut self, desk: &mut Desk<'_>, before: &Metadata, metadata: &Metadata) {
        assert_eq!(metadata.epoch.0, before.epoch.0 + 1, "every shard applies every epoch");
        let mut ids: Vec<QueueId> = metadata.changed_queues().collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            if metadata.queue(id).is_none() {
                self.names.forget_queue(id);
            }
            match (metadata.queue(id), self.find(id)) {
                (None, Some(index)) => self.remove(desk, index),
                (Some(queue), None) if queue.slot.shard(metadata.shards) == desk.shard => {
                    self.insert(id, Queue::new(queue.settings.clone(), desk.wall), Vec::new());
                }
                (Some(queue), Some(index)) if *self.entry(index).machine.settings() != queue.settings => {
                    let (settings, wall) = (queue.settings.clone(), desk.wall);
                    self.with(desk, index, |machine, out| machine.configure(settings, wall, out));
                }
                _ => {}
            }
        }
    }

    /// Takes a queue away, and all that is in it.
    fn remove(&mut self, desk: &mut Desk<'_>, index: Index) {
        let entry = self.entry(index);
        let id = entry.id;
        entry.gone = true;
        entry.machine.give_up();
        self.let_flow(index);
        let entry = self.entry(index);
        if let Some(deadline) = entry.deadline.take() {
            self.deadlines.remove(&(deadline, index));
        }
        self.by_id.remove(&id);
        self.letters.forget_queue(index, id);
        self.pending.forget(id);
        for purge in self.purges.extract_if(.., |purge| purge.queue == id) {
            desk.outputs.push_back(Output::Reply(purge.who, Reply::Purged(purge.messages)));
        }
        self.lines.queue_deleted(desk, &mut self.groups, index, id);
        // It lets go of its messages little by little, and of those that are paged out when they are back.
        self.touch(index);
    }

    /// Goes on with a queue that is deleted: lets go of its messages, then of itself.
    fn dissolve(&mut self, desk: &mut Desk<'_>, index: Index) {
        let mut wants = std::mem::take(&mut self.wants);
        let more = self.entry(index).machine.run(desk.wall, QUEUE_WORK_PER_TURN, &mut wants);
        for want in wants.drain(..) {
            match want {
                queue::Output::Settled { locator, size, .. } => self.groups.release(locator, u64::from(size)),
                queue::Output::PageIn(page) => self.want_page(index, page),
                _ => {}
            }
        }
        self.wants = wants;
        self.resize(index);
        if self.entry(index).machine.is_empty() && !self.paging.has_pages_of(index) {
            self.entries[index.0 as usize] = None;
            self.vacant.push(index);
        } else if more {
            self.touch(index);
        }
    }

    /// Lets a state machine do something, then does what it wants done; it is run at the end of the turn.
    fn with<T>(
        &mut self,
        desk: &mut Desk<'_>,
        index: Index,
        act: impl FnOnce(&mut Queue, &mut Vec<queue::Output>) -> T,
    ) -> T {
        let mut wants = std::mem::take(&mut self.wants);
        let result = act(&mut self.entry(index).machine, &mut wants);
        self.touch(index);
        self.carry_out(desk, index, &mut wants);
        self.wants = wants;
        result
    }

    /// Does what a state machine wants done.
    fn carry_out(&mut self, desk: &mut Desk<'_>, index: Index, wants: &mut Vec<queue::Output>) {
        let (id, durable) = {
            let entry = self.entry(index);
            (entry.id, entry.is_durable())
        };
        let mut taken = 0;
        for want in wants.drain(..) {
            match want {
                queue::Output::Deliver(token, delivery) => {
                    taken += flow::weight(1, u64::from(delivery.size));
                    if delivery.persistent {
                        self.mark(desk, index, delivery.seq);
                    }
                    self.groups.want(delivery.locator, u64::from(delivery.size));
                    self.lines.push(token, delivery);
                }
                queue::Output::Settled { seq, locator, size, persistent, .. } => {
                    self.groups.release(locator, u64::from(size));
                    if persistent && durable {
                        self.pending.settled(id, seq, desk.now);
                    }
                }
                queue::Output::Failed { seq, failures, persistent } => {
                    if persistent && durable {
                        self.pending.failed(id, seq, failures, desk.now);
                    }
                }
                queue::Output::Leaving { seq, reason, persistent } => {
                    if persistent && durable {
                        self.pending.leaving(id, seq, reason, desk.now);
                    }
                    self.letters.add(index);
                }
                queue::Output::Leave { seq, locator, size, reason, persistent } => {
                    if persistent {
                        self.mark(desk, index, seq);
                    }
                    self.groups.want(locator, u64::from(size));
                    // It leaves durably before anybody is asked: after a crash it is not given to consumers again.
                    self.pending.hurry();
                    let after = self.noted + u64::from(!self.pending.is_empty());
                    let letter = Leaving { queue: id, seq, locator, size, reason, persistent, after };
                    self.lines.push_leaving(letter);
                }
                queue::Output::TimedOut(token) => self.lines.timed_out(desk, &mut self.groups, token),
                queue::Output::Released(token) => self.lines.released(token),
                queue::Output::Expired => desk.outputs.push_back(Output::QueueExpired(id)),
                queue::Output::Activated(_) | queue::Output::Unused => {}
                queue::Output::PageIn(page) => self.want_page(index, page),
            }
        }
        self.note_taken(index, taken);
    }

    /// Has it recorded that messages up to this one may be delivered, some of them ahead.
    fn mark(&mut self, desk: &Desk<'_>, index: Index, seq: Seq) {
        let entry = self.entry(index);
        if !entry.is_durable() {
            return;
        }
        let rank = queue::rank_of(seq);
        if entry.marks.len() <= usize::from(rank) {
            entry.marks.resize(usize::from(rank) + 1, Mark::default());
        }
        let mark = &mut entry.marks[usize::from(rank)];
        if seq.0 + MARK_AHEAD / 2 >= mark.asked {
            mark.asked = seq.0 + MARK_AHEAD;
            let (id, asked) = (entry.id, Seq(mark.asked));
            self.pending.mark(id, rank, asked, desk.now);
        }
    }

    /// Answers when record `lsn` is durable.
    fn answer_at(&mut self, desk: &mut Desk<'_>, lsn: Lsn, answer: Output) {
        if lsn <= desk.journal.durable_lsn() {
            desk.outputs.push_back(answer);
        } else {
            self.waits.push_back((lsn, answer));
        }
    }

    /// Takes a request about queues.
    pub fn handle(&mut self, desk: &mut Desk<'_>, who: Requester, request: Request) {
        let request = if desk.journal.is_poisoned() {
            let Some(request) = Queues::refuse_poisoned(desk, who, request) else { return };
            request
        } else {
            request
        };
        let answered = match request {
            Request::Publish(messages) => return self.publish(desk, who, messages),
            Request::Consume(consume) => return self.consume(desk, who, &consume),
            Request::CancelConsumer { consumer, release } => {
                return self.cancel(desk, who, consumer, release);
            }
            Request::Grant(grants) => {
                for (consumer, credit) in grants {
                    if let Some((index, keeper)) = self.lines.consumer((who.shard, consumer)) {
                        self.entry(index).machine.credit(keeper, credit);
                        self.touch(index);
                    }
                }
                Ok(Reply::Done)
            }
            Request::Settle { settlements, durable } => {
                for settlement in &settlements {
                    self.settle(desk, who.shard, settlement);
                }
                if durable {
                    return self.answer_when_noted(desk, who, Reply::Done);
                }
                Ok(Reply::Done)
            }
            Request::Get { queue, consumer, no_ack } => return self.get(desk, who, queue, consumer, no_ack),
            Request::Purge(queue) => {
                let Some(index) = self.find_open(queue) else {
                    return desk.refuse(who, Refusal::UnknownQueue);
                };
                let messages = self.with(desk, index, |machine, _| machine.purge());
                return self.purges.push(Purge { who, queue, messages });
            }
            Request::QueueStats { queues, touch } => Ok(Reply::QueueStats(self.stats(desk, &queues, touch))),
            Request::CloseQueue { queue, if_unused, if_empty } => self.close(queue, if_unused, if_empty),
            Request::OpenQueue(id) => self.find(id).ok_or(Refusal::UnknownQueue).map(|index| {
                self.entry(index).closed = false;
                self.touch(index);
                Reply::Done
            }),
            Request::Move(moved) => return self.start_move(desk, who, moved),
            other => unreachable!("{other:?} is not about queues"),
        };
        desk.outputs.push_back(Output::Reply(who, answered.unwrap_or_else(Reply::Refused)));
    }

    fn stats(
        &mut self,
        desk: &Desk<'_>,
        queues: &[QueueId],
        touch: bool,
    ) -> Vec<(QueueId, queue::QueueStats)> {
        assert!(queues.len() <= QUEUES_PER_REQUEST_MAX, "the host asks about so many at a time");
        let known: Vec<_> = queues.iter().filter_map(|id| Some((*id, self.find(*id)?))).collect();
        let stats = |(id, index)| {
            let machine = &mut self.entry(index).machine;
            if touch {
                machine.touch(desk.wall);
            }
            (id, machine.stats())
        };
        known.into_iter().map(stats).collect()
    }

    fn close(&mut self, id: QueueId, if_unused: bool, if_empty: bool) -> Result<Reply, Refusal> {
        let index = self.find_open(id).ok_or(Refusal::UnknownQueue)?;
        let entry = self.entry(index);
        let stats = entry.machine.stats();
        if if_unused && stats.consumers > 0 {
            return Err(Refusal::QueueInUse);
        }
        if if_empty && stats.ready > 0 {
            return Err(Refusal::QueueNotEmpty);
        }
        entry.closed = true;
        self.touch(index);
        Ok(Reply::Closed(Box::new(stats)))
    }

    fn settle(&mut self, desk: &mut Desk<'_>, shard: ShardId, settlement: &Settlement) {
        let Settlement { queue, consumer, first, last, verdict } = *settlement;
        let Some((index, keeper)) = self.lines.keeper((shard, consumer, queue)) else { return };
        self.with(desk, index, |machine, wants| machine.settle(keeper, first, last, verdict, wants));
    }

    /// Does what is due for queues that something happened to.
    pub fn run(&mut self, desk: &mut Desk<'_>) {
        if desk.journal.is_poisoned() {
            return self.rest();
        }
        self.set_lost_aside(desk);
        while let Some(&(deadline, index)) = self.deadlines.first()
            && deadline <= desk.wall
        {
            self.deadlines.pop_first();
            self.entry(index).deadline = None;
            self.touch(index);
        }
        self.look_at_held(desk.now);
        for index in std::mem::take(&mut self.touched) {
            let entry = self.entry(index);
            entry.touched = false;
            if entry.gone {
                self.dissolve(desk, index);
                continue;
            }
            if entry.closed {
                self.let_flow(index);
                continue;
            }
            let mut wants = std::mem::take(&mut self.wants);
            let more = self.entry(index).machine.run(desk.wall, QUEUE_WORK_PER_TURN, &mut wants);
            self.carry_out(desk, index, &mut wants);
            self.wants = wants;
            if more {
                self.touch(index);
            }
            self.resize(index);
            self.regulate(desk.now, index);
            let entry = self.entry(index);
            let next = entry.machine.next_deadline();
            let before = std::mem::replace(&mut entry.deadline, next);
            if before != next {
                before.map(|before| self.deadlines.remove(&(before, index)));
                next.map(|next| self.deadlines.insert((next, index)));
            }
        }
        self.tell_flow(desk);
        self.get_again(desk);
        self.end_purges(desk);
        self.ask_about_names(desk);
        if desk.shut.is_none() {
            self.tell_leaving(desk);
        }
    }

    /// Has those answered whose purged messages are all settled, when that is durable.
    fn end_purges(&mut self, desk: &mut Desk<'_>) {
        for purge in std::mem::take(&mut self.purges) {
            let index = self.find(purge.queue).expect("the purges of a queue go with it");
            if !self.entry(index).machine.is_purged() {
                self.purges.push(purge);
                continue;
            }
            self.answer_when_noted(desk, purge.who, Reply::Purged(purge.messages));
        }
    }

    /// Answers when what is known now is durable.
    fn answer_when_noted(&mut self, desk: &mut Desk<'_>, who: Requester, reply: Reply) {
        if self.pending.is_empty() {
            let last = desk.journal.last_lsn();
            return self.answer_at(desk, last, Output::Reply(who, reply));
        }
        self.pending.hurry();
        self.hurried.push((who, reply));
    }

    /// Puts what is pending into the open group, if it is time.
    pub fn note(&mut self, desk: &mut Desk<'_>) {
        let company = !desk.journal.is_open_empty() && !desk.journal.is_in_flight();
        if !self.pending.is_due(desk.now, company) {
            return;
        }
        self.marking.extend(self.pending.journal(desk.journal));
        if self.pending.is_empty() {
            let last = desk.journal.last_lsn();
            self.noted += 1;
            self.noting.push_back((last, self.noted));
            self.noted_gone(last);
            for (who, reply) in std::mem::take(&mut self.hurried) {
                self.answer_at(desk, last, Output::Reply(who, reply));
            }
        }
    }

    /// Lets the messages be read that this turn has put into memory only.
    pub fn freeze(&mut self) {
        self.passing.freeze(&mut self.groups);
    }

    /// The open group has gone to the disk. Gives its name among the queues' groups, if they have something in it.
    pub fn submitted(&mut self, submitted: &Submitted) -> Option<GroupKey> {
        self.groups.submitted(submitted)
    }

    /// Lets go of a group's bytes in memory.
    pub fn evict(&mut self, key: GroupKey) {
        self.groups.forget_bytes(key);
    }

    /// More of the journal is durable: answers those who waited for it.
    pub fn durable(&mut self, lsn: Lsn, outputs: &mut VecDeque<Output>) {
        if !self.stirred {
            return; // Nobody waits.
        }
        while let Some((_, answer)) = self.waits.pop_front_if(|(waiting, _)| *waiting <= lsn) {
            outputs.push_back(answer);
        }
        while let Some((_, noted)) = self.noting.pop_front_if(|(waiting, _)| *waiting <= lsn) {
            self.noted_durably = noted;
        }
        self.tell_gone(lsn, outputs);
        while let Some((id, rank, seq, _)) = self.marking.pop_front_if(|(.., waiting)| *waiting <= lsn) {
            if let Some(index) = self.find(id)
                && let Some(mark) = self.entry(index).marks.get_mut(usize::from(rank))
            {
                mark.durable = mark.durable.max(seq.0);
            }
        }
    }

    /// When the next turn is wanted, as things are now.
    pub fn plan(&mut self, now: Nanos, wall: WallMs) {
        self.stirred = !self.is_at_rest();
        let deadline = self.deadlines.first().map(|(at, _)| {
            let ms = u64::try_from(at.0.saturating_sub(wall.0)).unwrap_or(0);
            now + Nanos::from_millis(ms.min(1_000))
        });
        let more = !self.touched.is_empty() || self.copying.goes_on() || self.losses.len() > 0;
        let more = more.then_some(now);
        // What is due and still here has found no room.
        let noted = self.pending.due().map(|due| due.max(now + RETRY));
        let others =
            [self.letters.due(), self.names.due(), self.reading.due(), self.paging.due(), self.passing.due()];
        let all = [deadline, more, noted, self.flows.due()].into_iter().chain(others).flatten();
        self.due = all.min().unwrap_or(Nanos(u64::MAX));
    }

    /// What is known of a message that is not settled.
    fn stored(&mut self, index: Index, seq: Seq) -> Option<Stored> {
        let stored = self.entry(index).machine.stored(seq).next()?;
        (stored.seq == seq).then_some(stored)
    }
}

/// A consumer's name, with the shard that gave it.
type Name = (ShardId, ConsumerId);

/// A token's number counts consumers and those who get.
fn token(number: u64) -> Token {
    Token(number)
}
