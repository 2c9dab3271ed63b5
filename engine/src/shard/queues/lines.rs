//! Who is given messages, and what is on its way to each: in the order in which it was given, and as soon as its bytes can be
//! had.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::groups::{Bytes, GroupKey, Groups, Read, pieces_of};
use super::hash::Table;
use super::{Desk, Index, Name, Queues, token};
use crate::buffer::Block;
use crate::error::Refusal;
use crate::few::Few;
use crate::limits::{COPIED_BYTES_PER_TURN, DELIVERIES_TOLD_TOGETHER, QUEUE_READS_IN_FLIGHT};
use crate::queue::{self, Keeper, LeaveReason, Locator, Token};
use crate::shard::message::{CancelReason, Consume, ConsumerId, DeadLetter, Delivery};
use crate::shard::request::Reply;
use crate::shard::{Output, Requester};
use crate::types::{QueueId, Seq, ShardId};

/// Somebody who keeps messages: a consumer, or who gets them one by one.
struct Person {
    name: Name,
    queue: QueueId,
    index: Index,
    keeper: Keeper,
    consumes: bool,
    /// What it is given is settled when that is decided.
    no_ack: bool,
    /// What it was given and has not been told of.
    line: VecDeque<queue::Delivery>,
    /// It has been cancelled: whom to answer when the line is empty.
    ending: Option<(Requester, u32)>,
    /// The queue knows nothing of it any more.
    released: bool,
}

impl Person {
    fn new(name: Name, queue: QueueId, index: Index, keeper: Keeper) -> Person {
        let (line, ending) = (VecDeque::new(), None);
        Person { name, queue, index, keeper, consumes: false, no_ack: false, line, ending, released: false }
    }
}

/// Whose line is being seen to.
struct Receiver {
    token: Token,
    name: Name,
    queue: QueueId,
    index: Index,
    keeper: Keeper,
    no_ack: bool,
}

/// A message that the host is to be asked about.
pub struct Leaving {
    pub queue: QueueId,
    pub seq: Seq,
    pub locator: Locator,
    pub size: u32,
    pub reason: LeaveReason,
    pub persistent: bool,
    /// When what was pending then is durable, that it leaves is.
    pub after: u64,
}

/// A message that somebody has got.
struct Got {
    who: Requester,
    consumer: ConsumerId,
    queue: QueueId,
    no_ack: bool,
    left: u64,
    delivery: queue::Delivery,
}

/// A message that somebody has got, or that is to leave.
enum Single {
    Got(Got),
    Leaving(Leaving),
}

impl Single {
    fn locator(&self) -> Locator {
        match self {
            Single::Got(got) => got.delivery.locator,
            Single::Leaving(leaving) => leaving.locator,
        }
    }

    fn size(&self) -> u64 {
        u64::from(match self {
            Single::Got(got) => got.delivery.size,
            Single::Leaving(leaving) => leaving.size,
        })
    }
}

/// What there is to be had of a message.
enum Fetched {
    Here(Read),
    /// Not yet.
    Later,
    /// It cannot be had any more.
    Lost,
}

/// A message in pieces being put together.
pub struct Download {
    name: u64,
    block: Block,
    /// The piece that comes next.
    next: usize,
    /// Somebody has asked for it in this turn.
    asked: bool,
}

/// What a turn may still copy of messages in pieces.
#[derive(Default)]
pub struct Copying {
    bytes: usize,
    /// There was more.
    is_short: bool,
}

impl Copying {
    /// Whether there is something to be copied in the next turn.
    pub fn goes_on(&self) -> bool {
        self.is_short
    }
}

/// See the module.
#[derive(Default)]
pub struct Lines {
    people: Table<Token, Person>,
    /// Whoever bears a name: most often one, who has to do with one queue.
    names: Table<Name, Few<Token>>,
    last: u64,
    /// Those with something in line.
    waiting: BTreeSet<Token>,
    /// Whose turn it is first: behind who was given a message in pieces last.
    first: Token,
    singles: Vec<Single>,
    /// What goes to each shard's host at the end of the turn.
    out: BTreeMap<ShardId, Vec<Delivery>>,
    /// Deliveries that a shard was told of together the last time: there may be as many again.
    told: usize,
}

impl Lines {
    /// The consumer of that name: its queue, and how that calls it.
    pub fn consumer(&self, name: Name) -> Option<(Index, Keeper)> {
        let mut people = self.tokens_of(name).filter_map(|token| self.people.get(&token));
        people.find(|person| person.consumes).map(|person| (person.index, person.keeper))
    }

    /// Whoever keeps messages of a queue under that name.
    pub fn keeper(
        &self,
        (shard, consumer, queue): (ShardId, ConsumerId, QueueId),
    ) -> Option<(Index, Keeper)> {
        let mut people = self.tokens_of((shard, consumer)).filter_map(|token| self.people.get(&token));
        people.find(|person| person.queue == queue).map(|person| (person.index, person.keeper))
    }

    /// Whether nobody waits for a message.
    pub fn are_empty(&self) -> bool {
        self.waiting.is_empty() && self.singles.is_empty() && self.out.is_empty()
    }

    /// How many people there are.
    pub fn len(&self) -> usize {
        self.people.len()
    }

    fn tokens_of(&self, name: Name) -> impl Iterator<Item = Token> {
        self.names.get(&name).into_iter().flatten().copied()
    }

    fn next_token(&mut self) -> Token {
        self.last += 1;
        token(self.last)
    }

    fn add(&mut self, token: Token, person: Person) {
        let tokens = self.tokens_of(person.name).chain([token]).collect();
        self.names.insert(person.name, tokens);
        self.people.insert(token, person);
    }

    fn remove(&mut self, token: Token) -> Option<Person> {
        let person = self.people.remove(&token)?;
        let others: Few<Token> = self.tokens_of(person.name).filter(|other| *other != token).collect();
        if others.is_empty() {
            self.names.remove(&person.name);
        } else {
            self.names.insert(person.name, others);
        }
        Some(person)
    }

    /// A message for a consumer, whose group counts it as wanted until it is gone.
    pub fn push(&mut self, token: Token, delivery: queue::Delivery) {
        let person = self.people.get_mut(&token).expect("a queue delivers to those it knows");
        if person.line.is_empty() {
            self.waiting.insert(token);
        }
        person.line.push_back(delivery);
    }

    /// A message that the host is to be asked about.
    pub fn push_leaving(&mut self, leaving: Leaving) {
        self.singles.push(Single::Leaving(leaving));
    }

    /// Forgets what is in line, and lets go of its bytes.
    fn clear_line(&mut self, groups: &mut Groups, token: Token) {
        self.waiting.remove(&token);
        let Some(person) = self.people.get_mut(&token) else { return };
        for delivery in person.line.drain(..) {
            groups.release(delivery.locator, u64::from(delivery.size));
        }
    }

    /// The queue has taken back what somebody kept for too long; a consumer is one no more.
    pub fn timed_out(&mut self, desk: &mut Desk<'_>, groups: &mut Groups, token: Token) {
        self.clear_line(groups, token);
        let Some(person) = self.people.get_mut(&token).filter(|person| person.consumes) else { return };
        person.consumes = false;
        let ((shard, consumer), queue) = (person.name, person.queue);
        self.flush_to(desk, shard);
        desk.outputs.push_back(Output::ConsumerCancelled(shard, consumer, queue, CancelReason::Timeout));
    }

    /// The queue knows nothing of somebody any more.
    pub fn released(&mut self, token: Token) {
        if let Some(person) = self.people.get_mut(&token) {
            person.released = true;
            self.forget_if_done(token);
        }
    }

    fn forget_if_done(&mut self, token: Token) {
        let done = |person: &Person| person.released && person.line.is_empty() && person.ending.is_none();
        if self.people.get(&token).is_some_and(done) {
            self.remove(token);
        }
    }

    /// A queue is gone, and with it whoever had to do with it.
    pub fn queue_deleted(&mut self, desk: &mut Desk<'_>, groups: &mut Groups, index: Index, queue: QueueId) {
        let mut gone: Vec<Token> =
            self.people.iter().filter(|(_, person)| person.index == index).map(|(token, _)| *token).collect();
        gone.sort_unstable();
        for token in gone {
            self.clear_line(groups, token);
            let Some(person) = self.remove(token) else { continue };
            let (shard, consumer) = person.name;
            self.flush_to(desk, shard);
            if let Some((who, consumers)) = person.ending {
                desk.outputs.push_back(Output::Ordered(who, Reply::Cancelled { consumers }));
            } else if person.consumes {
                let reason = CancelReason::QueueDeleted;
                desk.outputs.push_back(Output::ConsumerCancelled(shard, consumer, queue, reason));
            }
        }
        let (gone, kept) = std::mem::take(&mut self.singles).into_iter().partition(|single| match single {
            Single::Got(Got { queue: of, .. }) | Single::Leaving(Leaving { queue: of, .. }) => *of == queue,
        });
        self.singles = kept;
        for single in Vec::<Single>::into_iter(gone) {
            groups.release(single.locator(), single.size());
            if let Single::Got(Got { who, .. }) = single {
                desk.outputs.push_back(Output::Reply(who, Reply::Refused(Refusal::UnknownQueue)));
            }
        }
    }

    /// Ends everybody, for this reason: nothing that is on its way arrives any more. Gives who they were.
    pub fn end_all(
        &mut self,
        desk: &mut Desk<'_>,
        groups: &mut Groups,
        reason: CancelReason,
    ) -> Vec<(Index, Keeper)> {
        let mut everybody: Vec<Token> = self.people.keys().copied().collect();
        everybody.sort_unstable();
        for token in &everybody {
            self.clear_line(groups, *token);
        }
        self.names.clear();
        self.out.clear();
        for single in std::mem::take(&mut self.singles) {
            groups.release(single.locator(), single.size());
            if let Single::Got(Got { who, .. }) = single {
                desk.refuse(who, Refusal::Poisoned);
            }
        }
        let all = everybody.iter().filter_map(|token| self.people.remove(token));
        let all =
            all.map(|Person { name: (shard, consumer), queue, index, keeper, consumes, ending, .. }| {
                if let Some((who, consumers)) = ending {
                    desk.outputs.push_back(Output::Ordered(who, Reply::Cancelled { consumers }));
                } else if consumes {
                    desk.outputs.push_back(Output::ConsumerCancelled(shard, consumer, queue, reason));
                }
                (index, keeper)
            });
        all.collect()
    }

    /// Has a shard told of a delivery, together with others.
    fn give(&mut self, desk: &mut Desk<'_>, shard: ShardId, delivery: Delivery) {
        let deliveries = self.out.entry(shard).or_default();
        if deliveries.capacity() == 0 {
            deliveries.reserve(self.told.min(DELIVERIES_TOLD_TOGETHER));
        }
        deliveries.push(delivery);
        if deliveries.len() == DELIVERIES_TOLD_TOGETHER {
            self.flush_to(desk, shard);
        }
    }

    /// Hands over what a shard is to be told of deliveries, before something else that comes behind them.
    fn flush_to(&mut self, desk: &mut Desk<'_>, shard: ShardId) {
        if let Some(deliveries) = self.out.remove(&shard) {
            self.told = deliveries.len();
            desk.outputs.push_back(Output::Delivered(shard, deliveries));
        }
    }
}

/// Somebody who wants one message, which is paged out.
pub struct Getting {
    pub who: Requester,
    queue: QueueId,
    consumer: ConsumerId,
    no_ack: bool,
}

impl Queues {
    /// Starts a consumer.
    pub(super) fn consume(&mut self, desk: &mut Desk<'_>, who: Requester, consume: &Consume) {
        let name = (who.shard, consume.consumer);
        if self.lines.tokens_of(name).next().is_some() {
            return desk.refuse(who, Refusal::ConsumerExists);
        }
        let Some(index) = self.find_open(consume.queue) else {
            return desk.refuse(who, Refusal::UnknownQueue);
        };
        let token = self.lines.next_token();
        let wanted = queue::Consume {
            token,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            priority: consume.priority,
            timeout_ms: consume.timeout_ms,
            credit: consume.credit,
        };
        let wall = desk.wall;
        let Ok(keeper) = self.with(desk, index, |machine, wants| machine.consume(wanted, wall, wants)) else {
            return desk.refuse(who, Refusal::QueueInUse);
        };
        let queue = consume.queue;
        let person = Person::new(name, queue, index, keeper);
        self.lines.add(token, Person { consumes: true, no_ack: consume.no_ack, ..person });
        let stats = self.entry(index).machine.stats();
        let reply = Reply::Consuming { ready: stats.ready, consumers: stats.consumers };
        desk.outputs.push_back(Output::Ordered(who, reply));
    }

    /// Ends a consumer, and whoever gets messages under the same name.
    pub(super) fn cancel(
        &mut self,
        desk: &mut Desk<'_>,
        who: Requester,
        consumer: ConsumerId,
        release: bool,
    ) {
        let tokens: Vec<Token> = self.lines.tokens_of((who.shard, consumer)).collect();
        if tokens.is_empty() {
            return desk.refuse(who, Refusal::UnknownConsumer);
        }
        let mut answer = Some(who);
        let mut consumers = 0;
        for token in tokens {
            if release {
                self.lines.clear_line(&mut self.groups, token);
            }
            let Some(person) = self.lines.people.get_mut(&token) else { continue };
            let (index, keeper, consumed) = (person.index, person.keeper, person.consumes);
            person.consumes = false;
            let wall = desk.wall;
            self.with(desk, index, |machine, wants| {
                machine.cancel(keeper, wall, wants);
                if release {
                    let verdict = queue::Verdict::Requeue { failed: false };
                    machine.settle(keeper, Seq(0), Seq(u64::MAX), verdict, wants);
                }
            });
            if consumed {
                consumers = self.entry(index).machine.stats().consumers;
                if let Some(person) =
                    self.lines.people.get_mut(&token).filter(|person| !person.line.is_empty())
                {
                    person.ending = answer.take().map(|who| (who, consumers));
                }
            }
        }
        if let Some(who) = answer {
            self.lines.flush_to(desk, who.shard);
            desk.outputs.push_back(Output::Ordered(who, Reply::Cancelled { consumers }));
        }
    }

    /// Gives somebody one message.
    pub(super) fn get(
        &mut self,
        desk: &mut Desk<'_>,
        who: Requester,
        queue: QueueId,
        consumer: ConsumerId,
        no_ack: bool,
    ) {
        let Some(index) = self.find_open(queue) else { return desk.refuse(who, Refusal::UnknownQueue) };
        let name = (who.shard, consumer);
        let keeper = (!no_ack).then(|| match self.lines.keeper((who.shard, consumer, queue)) {
            Some((_, keeper)) => keeper,
            None => {
                let token = self.lines.next_token();
                let keeper = self.entry(index).machine.add_keeper(token);
                self.lines.add(token, Person::new(name, queue, index, keeper));
                keeper
            }
        });
        let mut wants = std::mem::take(&mut self.wants);
        let delivery = self.entry(index).machine.get(keeper, desk.wall, &mut wants);
        let left = self.entry(index).machine.stats().ready;
        if let Some(delivery) = delivery {
            if delivery.persistent {
                self.mark(desk, index, delivery.seq);
            }
            self.groups.want(delivery.locator, u64::from(delivery.size));
            self.lines.singles.push(Single::Got(Got { who, consumer, queue, no_ack, left, delivery }));
        } else if left > 0 {
            self.getting.push(Getting { who, queue, consumer, no_ack });
        } else {
            desk.outputs.push_back(Output::Reply(who, Reply::Got(None, left)));
        }
        self.touch(index);
        self.carry_out(desk, index, &mut wants);
        self.wants = wants;
    }

    /// Goes on with those who want one message, in the order in which they came.
    pub(super) fn get_again(&mut self, desk: &mut Desk<'_>) {
        for Getting { who, queue, consumer, no_ack } in std::mem::take(&mut self.getting) {
            self.get(desk, who, queue, consumer, no_ack);
        }
    }

    /// Whether a message may be given out: what recovery has to know of that is durable.
    fn may_go(&mut self, queue: QueueId, seq: Seq, persistent: bool) -> bool {
        self.find(queue).is_some_and(|index| !persistent || self.entry(index).may_give(seq))
    }

    /// A message, if it can be had now; asks for it if not.
    fn fetch(&mut self, locator: Locator) -> Fetched {
        if let Some(name) = pieces_of(locator) {
            return self.fetch_large(name);
        }
        let key = GroupKey::of(locator);
        match self.groups.bytes(key).expect("a group with a message that is wanted is known") {
            Bytes::Here(bytes) => {
                let message = Groups::read(bytes, locator);
                Fetched::Here(message.expect("a group that was checked holds the message that we put there"))
            }
            Bytes::Open => Fetched::Later,
            Bytes::Cold(site) => {
                self.reading.want(key, site);
                Fetched::Later
            }
            Bytes::Lost => Fetched::Lost,
        }
    }

    /// The same of a message in pieces: they are copied together, as they can be had, and a few in each turn, so that others
    /// need not wait. One message at a time.
    fn fetch_large(&mut self, name: u64) -> Fetched {
        let large = self.groups.large(name).expect("a message that is wanted is known");
        let (header_bytes, priority) = (large.header_bytes, large.priority);
        match &mut self.download {
            Some(download) if download.name == name => download.asked = true,
            Some(_) => return Fetched::Later,
            None => {
                let total = large.pieces.iter().map(|(_, len)| *len as usize).sum();
                let Some(block) = self.reading.large_block(total) else { return Fetched::Later };
                self.download = Some(Download { name, block, next: 0, asked: true });
            }
        }
        let download = self.download.as_mut().expect("just seen to");
        while let Some(&(piece, len)) = large.pieces.get(download.next) {
            let key = GroupKey::of(piece);
            match self.groups.bytes(key).expect("a group with a piece that is wanted is known") {
                _ if len == 0 => {} // The message's own record.
                Bytes::Here(_) if self.copying.bytes == 0 => {
                    self.copying.is_short = true;
                    return Fetched::Later;
                }
                Bytes::Here(bytes) => {
                    let bytes = Groups::read_piece(bytes, piece);
                    let bytes = bytes.expect("a group that was checked holds the piece that we put there");
                    download.block.push(&bytes);
                    self.copying.bytes = self.copying.bytes.saturating_sub(bytes.len());
                }
                Bytes::Open => return Fetched::Later,
                Bytes::Cold(_) => {
                    // And those behind it, as many as are read at a time.
                    for (piece, _) in large.pieces[download.next..].iter().take(QUEUE_READS_IN_FLIGHT) {
                        let key = GroupKey::of(*piece);
                        if let Some(Bytes::Cold(site)) = self.groups.bytes(key) {
                            self.reading.want(key, site);
                        }
                    }
                    if self.reading.rests(key) {
                        self.download = None; // Others are not to wait for this.
                    }
                    return Fetched::Later;
                }
                Bytes::Lost => {
                    self.download = None;
                    return Fetched::Lost;
                }
            }
            download.next += 1;
        }
        let Some(download) = self.download.take() else { return Fetched::Later };
        let bytes = download.block.freeze();
        let header = bytes.slice(0..header_bytes);
        Fetched::Here(Read { priority, header, body: bytes.slice(header_bytes..bytes.len()) })
    }

    /// Gives out what can be had.
    pub fn deliver(&mut self, desk: &mut Desk<'_>) {
        self.copying = Copying { bytes: COPIED_BYTES_PER_TURN, is_short: false };
        if let Some(download) = &mut self.download {
            download.asked = false;
        }
        let first = self.lines.first;
        for (mut from, end) in [(first, token(u64::MAX)), (token(0), first)] {
            while let Some(&waiting) = self.lines.waiting.range(from..end).next() {
                from = token(waiting.0 + 1);
                self.deliver_line(desk, waiting);
            }
        }
        for single in std::mem::take(&mut self.lines.singles) {
            self.deliver_single(desk, single);
        }
        // Who wanted it is gone.
        self.download.take_if(|download| !download.asked);
        while let Some(shard) = self.lines.out.first_key_value().map(|(shard, _)| *shard) {
            self.lines.flush_to(desk, shard);
        }
    }

    fn deliver_line(&mut self, desk: &mut Desk<'_>, token: Token) {
        let Some(person) = self.lines.people.get_mut(&token) else { return };
        let Person { name, queue, index, keeper, no_ack, .. } = *person;
        // Nothing is added to it meanwhile.
        let mut line = std::mem::take(&mut person.line);
        let to = Receiver { token, name, queue, index, keeper, no_ack };
        self.give_out(desk, &to, &mut line);
        let Some(person) = self.lines.people.get_mut(&token) else {
            assert!(line.is_empty(), "somebody is forgotten when nothing is in line any more");
            self.lines.waiting.remove(&token);
            return;
        };
        person.line = line;
        if !person.line.is_empty() {
            return;
        }
        self.lines.waiting.remove(&token);
        if let Some((who, consumers)) = person.ending.take() {
            self.lines.flush_to(desk, who.shard);
            desk.outputs.push_back(Output::Ordered(who, Reply::Cancelled { consumers }));
        }
        self.lines.forget_if_done(token);
    }

    /// Gives out what can be had of somebody's line.
    fn give_out(&mut self, desk: &mut Desk<'_>, to: &Receiver, line: &mut VecDeque<queue::Delivery>) {
        let (shard, consumer) = to.name;
        while let Some(&delivery) = line.front() {
            if delivery.persistent && !self.entry(to.index).may_give(delivery.seq) {
                return;
            }
            let fetched = match self.fetch(delivery.locator) {
                Fetched::Here(read) => Some(read),
                Fetched::Later => return,
                Fetched::Lost => None,
            };
            self.groups.release(delivery.locator, u64::from(delivery.size));
            line.pop_front();
            if let Some(read) = fetched {
                self.lines.give(desk, shard, given(consumer, to.queue, &delivery, read));
                if pieces_of(delivery.locator).is_some() {
                    // The next one that is put together may be somebody else's.
                    self.lines.first = super::token(to.token.0 + 1);
                    if !line.is_empty() {
                        self.copying.is_short = true;
                        return;
                    }
                }
                continue;
            }
            // It is as if it had not been given.
            let credit = queue::Credit { messages: 1, bytes: delivery.size };
            self.entry(to.index).machine.credit(to.keeper, credit);
            self.touch(to.index);
            self.lose_given(desk, to.index, delivery.seq, to.no_ack);
        }
    }

    fn deliver_single(&mut self, desk: &mut Desk<'_>, single: Single) {
        let may_go = match &single {
            Single::Got(Got { queue, delivery, .. }) => {
                self.may_go(*queue, delivery.seq, delivery.persistent)
            }
            // Its number is a name for it elsewhere: it must not be another message's after a crash.
            Single::Leaving(leaving) => {
                self.noted_durably >= leaving.after
                    && self.may_go(leaving.queue, leaving.seq, leaving.persistent)
            }
        };
        let fetched = if may_go { self.fetch(single.locator()) } else { Fetched::Later };
        if matches!(fetched, Fetched::Later) {
            return self.lines.singles.push(single);
        }
        self.groups.release(single.locator(), single.size());
        match (single, fetched) {
            (Single::Got(Got { who, consumer, queue, left, delivery, .. }), Fetched::Here(read)) => {
                let delivery = given(consumer, queue, &delivery, read);
                desk.outputs.push_back(Output::Reply(who, Reply::Got(Some(delivery), left)));
            }
            (Single::Got(Got { who, consumer, queue, no_ack, delivery, .. }), _) => {
                if let Some(index) = self.find(queue) {
                    self.lose_given(desk, index, delivery.seq, no_ack);
                }
                self.get(desk, who, queue, consumer, no_ack);
            }
            (Single::Leaving(Leaving { queue, seq, reason, persistent, .. }), Fetched::Here(read)) => {
                let Read { priority, header, body } = read;
                let letter = DeadLetter { queue, seq, reason, persistent, priority, header, body };
                desk.outputs.push_back(Output::DeadLettered(letter));
            }
            (Single::Leaving(Leaving { queue, seq, .. }), _) => {
                if let Some(index) = self.find(queue) {
                    self.lose(desk, index, seq);
                }
            }
        }
    }
}

fn given(
    consumer: ConsumerId,
    queue: QueueId,
    delivery: &queue::Delivery,
    Read { header, body, .. }: Read,
) -> Delivery {
    Delivery {
        consumer,
        queue,
        seq: delivery.seq,
        redelivered: delivery.redelivered,
        delivery_count: u32::from(delivery.failures),
        header,
        body,
    }
}
