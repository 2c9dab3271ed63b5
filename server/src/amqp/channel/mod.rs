//! A channel: what was published on it, what was delivered, what its consumers may be given. Its methods are in the files beside
//! this one; each answers, fails, or leaves the channel waiting for an operation.

mod answers;
mod basic;
mod confirms;
mod keeper;
mod methods;
mod publish;
mod queues;
mod transaction;
mod unacked;

use std::collections::{BTreeMap, VecDeque};

use millstream_engine::buffer::Slice;
use millstream_engine::error::Refusal;
use millstream_engine::shard::message::{CancelReason, ConsumerId, Delivery, Verdict};
use millstream_engine::types::{QueueId, Seq, ShardId};

use self::answers::Awaiting;
pub use self::confirms::{Confirm, Confirms};
use self::keeper::{Keeper, Life};
pub use self::publish::Body;
use self::publish::{Content, Way};
use self::transaction::Transaction;
use self::unacked::{Entry, Unacked};
use super::codec::{BasicAck, BasicCancel, BasicNack, Short};
use super::counts::{Counts, Tally};
use super::error::Failure;
use super::keepers::Place;
use super::kept::Kept;
use super::link::Link;
use super::message::Stored;
use super::operations::Who;
use super::report::{ChannelReport, ConsumerReport};
use super::state::Desk;
use crate::limits::AMQP_SEND_BYTES_HUNG_UP;

/// What is promised for what is published.
#[derive(Debug)]
enum Mode {
    /// Nothing.
    Plain,
    /// Each message is confirmed.
    Confirm(Confirms),
    /// Nothing happens before it is committed.
    Transaction(Transaction),
}

/// Somebody who waits for answers at `amq.rabbitmq.reply-to`.
#[derive(Debug)]
struct ReplyConsumer {
    tag: Vec<u8>,
    secret: u64,
}

/// A channel that is open.
#[derive(Debug)]
pub struct Channel {
    /// Whose it is, and which.
    pub who: Who,
    mode: Mode,
    /// A message that is arriving.
    content: Option<Content>,
    /// Memory for the pieces of the next one.
    spare_body: Vec<Slice>,
    /// The way of its last message.
    way: Option<Way>,
    /// What it waits for before its next method.
    awaiting: Option<Awaiting>,
    /// The queue that was declared last: the one that is meant when none is named.
    last_queue: Vec<u8>,
    unacked: Unacked,
    keepers: Vec<Option<Keeper>>,
    consumers: BTreeMap<Vec<u8>, u32>,
    reply_consumer: Option<ReplyConsumer>,
    /// For consumers to come.
    prefetch: u16,
    /// For the channel as a whole; 0: no limit.
    prefetch_all: u16,
    /// Deliveries for which the channel has no room.
    held: VecDeque<(u32, Delivery)>,
    /// The bytes of those.
    held_bytes: usize,
    /// Keepers that may be given more. Each has a mark that says so.
    hungry: Vec<u32>,
    /// What it counts for in its connection's account.
    counted: Kept,
    /// What it has done.
    counts: Counts,
    /// What it has published, and to which exchange.
    tally: Tally,
    /// What has failed while nobody could be told.
    failed_later: Option<(Failure, (u16, u16))>,
}

impl Channel {
    /// A channel that was just opened.
    pub fn new(who: Who) -> Channel {
        Channel {
            who,
            mode: Mode::Plain,
            content: None,
            spare_body: Vec::new(),
            way: None,
            awaiting: None,
            last_queue: Vec::new(),
            unacked: Unacked::default(),
            keepers: Vec::new(),
            consumers: BTreeMap::new(),
            reply_consumer: None,
            prefetch: 0,
            prefetch_all: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            hungry: Vec::new(),
            counted: Kept::default(),
            counts: Counts::default(),
            tally: Tally::default(),
            failed_later: None,
        }
    }

    /// What is told of it, and of `room` consumers at most.
    pub fn report(&self, room: usize) -> ChannelReport {
        let consumers = self.consumers.iter().filter_map(|(tag, keeper)| {
            let keeper = self.keepers.get(*keeper as usize)?.as_ref()?;
            Some(ConsumerReport {
                tag: tag.clone(),
                queue: keeper.queue_name.clone(),
                no_ack: keeper.no_ack,
                is_exclusive: keeper.is_exclusive,
                prefetch: keeper.prefetch,
                arguments: keeper.arguments.clone(),
            })
        });
        let (unconfirmed, uncommitted) = match &self.mode {
            Mode::Plain => (0, 0),
            Mode::Confirm(confirms) => (confirms.len(), 0),
            Mode::Transaction(transaction) => (0, transaction.messages()),
        };
        ChannelReport {
            number: self.who.channel,
            confirms: matches!(self.mode, Mode::Confirm(_)),
            is_transactional: matches!(self.mode, Mode::Transaction(_)),
            prefetch: self.prefetch,
            prefetch_all: self.prefetch_all,
            unacked: self.unacked.len(),
            unconfirmed,
            uncommitted,
            counts: self.counts,
            consumer_count: self.consumers.len(),
            consumers: consumers.take(room).collect(),
        }
    }

    /// Whether it waits for an operation: its next frames have to wait as well.
    pub fn is_waiting(&self) -> bool {
        self.awaiting.is_some()
    }

    /// Whether a message is arriving.
    pub fn has_content(&self) -> bool {
        self.content.is_some()
    }

    /// What has failed since it was asked last, and of which method.
    pub fn take_failure(&mut self) -> Option<(Failure, (u16, u16))> {
        self.failed_later.take()
    }

    /// Whether it has to be looked at again when its connection has more room.
    pub fn is_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }

    fn kept(&self) -> Kept {
        let (transaction, settling) = match &self.mode {
            Mode::Transaction(transaction) => (transaction.held_bytes(), transaction.settlements()),
            Mode::Plain | Mode::Confirm(_) => (0, 0),
        };
        Kept {
            unfinished: self.content_bytes() + transaction,
            publishing: 0,
            sending: self.held_bytes,
            unacked: self.unacked.len() + settling,
            unconfirmed: match &self.mode {
                Mode::Confirm(confirms) => confirms.len(),
                Mode::Plain | Mode::Transaction(_) => 0,
            },
            channels: 1,
            consumers: self.consumers.len(),
        }
    }

    /// Brings its connection's account up to date.
    fn count(&mut self, link: &mut Link) {
        let kept = self.kept();
        if kept != self.counted {
            link.kept -= self.counted;
            link.kept += kept;
            self.counted = kept;
        }
    }

    /// Notes that a keeper may be given more.
    fn feed(&mut self, index: u32) {
        if let Some(keeper) = self.keeper(index).filter(|keeper| !keeper.is_hungry) {
            keeper.is_hungry = true;
            self.hungry.push(index);
        }
    }

    fn keeper(&mut self, index: u32) -> Option<&mut Keeper> {
        self.keepers.get_mut(index as usize)?.as_mut()
    }

    /// A place for a keeper, known to the engine by the name that `make` is given.
    fn add_keeper(&mut self, desk: &mut Desk<'_>, make: impl FnOnce(ConsumerId) -> Keeper) -> u32 {
        let index = self.keepers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.keepers.push(None);
            self.keepers.len() - 1
        });
        let id = desk.state.keepers.insert(Place { who: self.who, keeper: index as u32 });
        if let Some(slot) = self.keepers.get_mut(index) {
            *slot = Some(make(id));
        }
        index as u32
    }

    /// Forgets a keeper that is over and keeps nothing.
    fn drop_keeper_if_over(&mut self, index: u32, desk: &mut Desk<'_>) {
        let over = self.keeper(index).is_some_and(|keeper| {
            keeper.kept == 0 && (keeper.tag.is_none() || matches!(keeper.life, Life::Cancelled | Life::Gone))
        });
        if over {
            self.forget_keeper(index, desk);
        }
    }

    fn forget_keeper(&mut self, index: u32, desk: &mut Desk<'_>) {
        if let Some(keeper) = self.keepers.get_mut(index as usize).and_then(Option::take) {
            desk.state.keepers.remove(keeper.id);
        }
    }

    /// A message for a consumer.
    pub fn delivered(&mut self, index: u32, delivery: Delivery, link: &mut Link, desk: &mut Desk<'_>) {
        let Some(keeper) = self.keeper(index) else { return };
        let bytes = delivery.header.len() + delivery.body.len();
        keeper.given(bytes);
        let no_ack = keeper.no_ack;
        let life = keeper.life;
        self.feed(index);
        let is_there = life == Life::There || life == Life::Coming;
        // What comes while a consumer is being cancelled nobody has seen.
        if !is_there || !no_ack && link.has_too_much(desk) {
            if !no_ack {
                self.give_back(index, delivery.seq, desk);
            }
            return;
        }
        if !no_ack && self.is_full() {
            // It may wait as long as the client likes, and is to keep nothing that others wait for.
            let mut delivery = delivery;
            delivery.header.tighten();
            delivery.body.tighten();
            self.held_bytes += bytes;
            self.held.push_back((index, delivery));
            return;
        }
        link.is_hopeless |= link.waiting_bytes() >= AMQP_SEND_BYTES_HUNG_UP;
        self.deliver(index, delivery, link, desk);
    }

    fn deliver(&mut self, index: u32, delivery: Delivery, link: &mut Link, desk: &Desk<'_>) {
        let no_ack = self.keeper(index).is_some_and(|keeper| keeper.no_ack);
        desk.metrics.amqp_delivered.add(1);
        desk.metrics.amqp_redelivered.add(u64::from(delivery.redelivered));
        if no_ack { &desk.metrics.amqp_delivered_no_ack } else { &desk.metrics.amqp_delivered_to_ack }.add(1);
        self.counts.redelivered += u64::from(delivery.redelivered);
        *if no_ack { &mut self.counts.delivered_no_ack } else { &mut self.counts.delivered } += 1;
        self.write_delivery(index, delivery, link);
    }

    /// Whether the consumers of this channel have all that they may together. What was got one by one does not count.
    fn is_full(&self) -> bool {
        self.prefetch_all > 0 && (!self.held.is_empty() || !self.has_room())
    }

    fn has_room(&self) -> bool {
        self.prefetch_all == 0 || self.unacked.consumed() < usize::from(self.prefetch_all)
    }

    fn write_delivery(&mut self, index: u32, delivery: Delivery, link: &mut Link) {
        let channel = self.who.channel;
        let Some(keeper) = self.keepers.get(index as usize).and_then(Option::as_ref) else { return };
        let tag = if keeper.no_ack {
            self.unacked.skip()
        } else {
            self.unacked.push(Entry { keeper: index, seq: delivery.seq, got: false })
        };
        let Ok(stored) = Stored::read(&delivery.header) else {
            tracing::error!("what is kept with a message makes no sense");
            return;
        };
        let consumer_tag = keeper.tag.as_deref().unwrap_or_default();
        link.deliver(channel, consumer_tag, tag, delivery.redelivered, stored.address);
        write_content(channel, &stored, &delivery, keeper.is_told_count, link);
    }

    /// Gives a message that nobody has seen back to its queue.
    fn give_back(&mut self, index: u32, seq: Seq, desk: &mut Desk<'_>) {
        let entry = Entry { keeper: index, seq, got: false };
        self.settle(entry, Verdict::Requeue { failed: false }, desk);
    }

    /// Settles a delivery that was taken out of the ring.
    fn settle(&mut self, entry: Entry, verdict: Verdict, desk: &mut Desk<'_>) {
        let index = entry.keeper;
        let Some(keeper) = self.keeper(index) else { return };
        keeper.kept = keeper.kept.saturating_sub(1);
        desk.metrics.amqp_acked.add(u64::from(verdict == Verdict::Ack));
        if keeper.life != Life::Gone {
            desk.state.batches.settle(keeper.shard, keeper.queue, keeper.id, entry.seq, verdict);
        }
        self.counts.acked += u64::from(verdict == Verdict::Ack);
        self.feed(index);
        self.drop_keeper_if_over(index, desk);
    }

    /// The engine has ended a consumer.
    pub fn cancelled(&mut self, index: u32, reason: CancelReason, link: &mut Link, desk: &mut Desk<'_>) {
        let channel = self.who.channel;
        let Some(keeper) = self.keeper(index) else { return };
        keeper.life = Life::Gone;
        let (queue, tag) = (keeper.queue_name.clone(), keeper.tag.clone().unwrap_or_default());
        self.consumers.remove(&tag);
        let dropped = self.take_held(index).len();
        if let Some(keeper) = self.keeper(index) {
            keeper.kept = keeper.kept.saturating_sub(dropped as u32);
        }
        if link.capabilities.consumer_cancel_notify {
            link.method(channel, BasicCancel { consumer_tag: Short(&tag), no_wait: true });
        }
        if reason == CancelReason::Timeout {
            desk.delete_if_abandoned(&link.vhost, &queue);
        }
        self.drop_keeper_if_over(index, desk);
    }

    /// Ends everything: what is kept goes back in order, consumers go.
    pub fn close(&mut self, link: &mut Link, desk: &mut Desk<'_>) {
        self.tally.flush(&link.vhost, desk);
        self.content = None;
        self.awaiting = None;
        let mut entries = Vec::new();
        // Whatever the ring holds can be taken through its end.
        let _ = self.unacked.take_through(0, |entry| entries.push(entry));
        if let Mode::Transaction(transaction) = &mut self.mode {
            entries.extend(transaction.drain());
            entries.sort_by_key(|entry| (entry.keeper, entry.seq));
        }
        let held: Vec<(u32, Delivery)> = self.held.drain(..).collect();
        self.held_bytes = 0;
        for entry in entries {
            self.settle(entry, Verdict::Requeue { failed: true }, desk);
        }
        for (index, delivery) in held {
            self.give_back(index, delivery.seq, desk);
        }
        for keeper in std::mem::take(&mut self.keepers).into_iter().flatten() {
            if keeper.tag.is_some() && matches!(keeper.life, Life::Coming | Life::There) {
                desk.cancel_by_itself(&link.vhost, &keeper.queue_name, keeper.shard, keeper.id);
            }
            desk.state.keepers.remove(keeper.id);
        }
        self.consumers.clear();
        self.reply_consumer = None;
        link.kept -= std::mem::take(&mut self.counted);
    }

    /// An answer for whoever waits at `amq.rabbitmq.reply-to`. One that is meant for somebody else is dropped.
    pub fn reply_came(
        &mut self,
        secret: u64,
        header: &Slice,
        body: &[Slice],
        link: &mut Link,
        desk: &Desk<'_>,
    ) {
        let channel = self.who.channel;
        let Some(consumer) = self.reply_consumer.as_ref().filter(|consumer| consumer.secret == secret) else {
            return;
        };
        let Ok(stored) = Stored::read(header) else { return };
        if link.is_congested(desk) {
            // Answers are delivered once at most; nothing else holds up whoever sends them to a client that does not read.
            tracing::debug!(channel, "an answer was dropped: its client does not read");
            return;
        }
        let tag = self.unacked.skip();
        link.deliver(channel, &consumer.tag, tag, false, stored.address);
        link.content(channel, stored.properties, body);
    }

    /// Whether that is the secret of whoever waits for answers here.
    pub fn awaits_replies(&self, secret: u64) -> bool {
        self.reply_consumer.as_ref().is_some_and(|consumer| consumer.secret == secret)
    }

    /// Messages that were published on this channel have reached a shard's queues, or have been refused. `number` is what the first
    /// of them was counted as, if it was.
    pub fn published(
        &mut self,
        number: Option<u64>,
        count: usize,
        refused: Option<&Refusal>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) {
        match (&mut self.mode, number) {
            (Mode::Confirm(confirms), Some(number)) => confirms.answered(number, count, refused.is_some()),
            (Mode::Transaction(_), Some(_)) => self.commit_answered(count, refused.is_some(), link, desk),
            // Nobody waits for word of it, so a queue may be full in silence, or about to be deleted. What nothing could be stored
            // for may not.
            _ => {
                let silent = |refusal: &&Refusal| matches!(refusal, Refusal::QueueFull | Refusal::Busy);
                if let Some(refusal) = refused.filter(|refusal| !silent(refusal)) {
                    let failure = Failure::of(refusal, b"", &link.vhost);
                    self.failed_later.get_or_insert((failure, (60, 40)));
                }
            }
        }
    }

    /// Does what is due at the end of a step: confirms what can be, delivers what has room, grants consumers what they may have.
    pub fn finish(&mut self, link: &mut Link, desk: &mut Desk<'_>) {
        let channel = self.who.channel;
        if let Mode::Confirm(confirms) = &mut self.mode {
            let before = confirms.len();
            while let Some(Confirm { tag, multiple, refused }) = confirms.next_confirm() {
                desk.metrics.amqp_confirmed.add(1);
                if refused {
                    // The last flag means nothing here; it is as RabbitMQ has it.
                    link.method(channel, BasicNack { delivery_tag: tag, multiple, requeue: true });
                } else {
                    link.method(channel, BasicAck { delivery_tag: tag, multiple });
                }
            }
            let confirmed = (before - confirms.len()) as u64;
            desk.metrics.amqp_messages_confirmed.add(confirmed);
            self.counts.confirmed += confirmed;
        }
        while self.has_room()
            && let Some((index, delivery)) = self.held.pop_front()
        {
            self.held_bytes -= delivery.header.len() + delivery.body.len();
            self.deliver(index, delivery, link, desk);
        }
        self.tally.flush(&link.vhost, desk);
        self.loosen_content();
        self.count(link);
        if !self.hungry.is_empty() && !link.is_congested(desk) && !link.has_enough(desk) {
            let (all, window) = (self.prefetch_all, link.window(desk));
            for index in self.hungry.drain(..) {
                let Some(keeper) = self.keepers.get_mut(index as usize).and_then(Option::as_mut) else {
                    continue;
                };
                keeper.is_hungry = false;
                if keeper.life == Life::There
                    && let Some(credit) = keeper.top_up(all, window)
                {
                    desk.state.batches.grant(keeper.shard, keeper.id, credit);
                }
            }
        }
    }

    /// Takes the deliveries of a keeper out of those that have no room.
    fn take_held(&mut self, index: u32) -> Vec<Seq> {
        let mut taken = Vec::new();
        let held_bytes = &mut self.held_bytes;
        self.held.retain(|(other, delivery)| {
            if *other == index {
                taken.push(delivery.seq);
                *held_bytes -= delivery.header.len() + delivery.body.len();
            }
            *other != index
        });
        taken
    }

    /// The queue that is meant: the one that is named, or the last one that was declared here.
    fn queue_meant(&self, name: &[u8]) -> Result<Vec<u8>, Failure> {
        match (name, &self.last_queue[..]) {
            (b"", b"") => Err(Failure::not_found("no previously declared queue")),
            (b"", last) => Ok(last.to_vec()),
            (name, _) => Ok(name.to_vec()),
        }
    }

    /// A queue that this channel may use, with its shard.
    fn find_queue(name: &[u8], link: &Link, desk: &Desk<'_>) -> Result<(QueueId, ShardId), Failure> {
        let queue = desk.vhost(&link.vhost).and_then(|vhost| vhost.queue(name));
        let queue = queue.ok_or_else(|| Failure::no_queue(name, &link.vhost))?;
        if !queue.is_open_to(link.owner) {
            return Err(Failure::locked(name, &link.vhost));
        }
        Ok((queue.id, queue.shard))
    }
}

/// Writes a delivery's properties and body. How often it has come back is a header, from the first time on, for those who are
/// told.
fn write_content(
    channel: u16,
    stored: &Stored<'_>,
    delivery: &Delivery,
    is_told_count: bool,
    link: &mut Link,
) {
    let body = std::slice::from_ref(&delivery.body);
    if delivery.delivery_count == 0 || !is_told_count {
        link.content(channel, stored.properties, body);
        return;
    }
    match super::dead_letter::with_delivery_count(stored, delivery.delivery_count) {
        Some(properties) => link.content(channel, &properties, body),
        None => link.content(channel, stored.properties, body),
    }
}
