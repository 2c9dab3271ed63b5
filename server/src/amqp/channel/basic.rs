//! Consumers, `basic.get`, and settling what was delivered.

use millstream_engine::shard::message::{Consume, Delivery, Verdict};
use millstream_engine::shard::request::Request;

use super::answers::After;
use super::keeper::{Keeper, Life};
use super::unacked::UnknownTag;
use super::{Channel, Mode, ReplyConsumer};
use crate::amqp::codec::{
    BasicAck, BasicCancel, BasicCancelOk, BasicConsume, BasicConsumeOk, BasicGet, BasicNack, BasicReject,
    QueueDeclareOk, Short, Value,
};
use crate::amqp::error::{Failure, ReplyCode, Text, queue_in};
use crate::amqp::link::Link;
use crate::amqp::message::Stored;
use crate::amqp::names::random_name;
use crate::amqp::operations::Operation;
use crate::amqp::reply_to;
use crate::amqp::state::Desk;
use crate::amqp::topology::users::Access;
use crate::limits::{
    AMQP_CONSUMERS_PER_CONNECTION_MAX, AMQP_CONSUMERS_PER_SHARD_MAX, AMQP_UNACKED_PER_CONNECTION_MAX,
};

fn unknown_tag(tag: u64) -> Failure {
    Failure::precondition(format!("unknown delivery tag {tag}"))
}

/// Whether whoever gets a queue's messages is told how often they have come back: those of queues of type quorum are.
fn is_told_count(queue: &[u8], link: &Link, desk: &Desk<'_>) -> bool {
    desk.vhost(&link.vhost).and_then(|vhost| vhost.queue(queue)).is_some_and(|queue| queue.wishes.quorum)
}

/// Whether there may be one consumer more.
fn check_consumers(link: &Link, desk: &Desk<'_>) -> Result<(), Failure> {
    let reached = |max: usize, of: &str| {
        Err(Failure::not_allowed(format!("reached maximum ({max}) of consumers per {of}")))
    };
    if link.kept.consumers >= AMQP_CONSUMERS_PER_CONNECTION_MAX {
        return reached(AMQP_CONSUMERS_PER_CONNECTION_MAX, "connection");
    }
    if desk.state.everybody.kept.consumers >= AMQP_CONSUMERS_PER_SHARD_MAX {
        return reached(AMQP_CONSUMERS_PER_SHARD_MAX, "core of this node");
    }
    Ok(())
}

impl Channel {
    pub(super) fn consume(
        &mut self,
        method: BasicConsume<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let given = method.consumer_tag.0;
        let taken = self.reply_consumer.as_ref().is_some_and(|consumer| consumer.tag == given);
        if self.consumers.contains_key(given) || taken {
            return Err(Failure::not_allowed(format!("attempt to reuse consumer tag '{}'", Text(given))));
        }
        let tag = if given.is_empty() { random_name("amq.ctag-", desk.random()) } else { given.to_vec() };
        if reply_to::is_pseudo_queue(method.queue.0) {
            return self.consume_replies(method, tag, link, desk);
        }
        check_consumers(link, desk)?;
        let name = self.queue_meant(method.queue.0)?;
        link.check(desk, Access::Read, "queue", &name)?;
        let (queue, shard) = Channel::find_queue(&name, link, desk)?;
        let priority = match method.arguments.get(b"x-priority") {
            None => 0,
            Some(value) => i32::try_from(value.integer().ok_or_else(|| {
                let (queue, kind) = (queue_in(&name, &link.vhost), value.type_name());
                Failure::precondition(format!(
                    "invalid arg 'x-priority' for {queue}: \"expected integer, got {kind}\""
                ))
            })?)
            .unwrap_or(i32::MAX),
        };
        let timeout_ms = method.arguments.get(b"x-consumer-timeout").and_then(Value::integer);
        let (prefetch, prefetch_all) = (self.prefetch, self.prefetch_all);
        let is_told_count = is_told_count(&name, link, desk);
        let keeper = self.add_keeper(desk, |id| {
            let mut keeper = Keeper::new(id, name.clone(), queue, shard);
            keeper.is_told_count = is_told_count;
            keeper.tag = Some(tag.clone());
            keeper.no_ack = method.no_ack;
            keeper.is_exclusive = method.exclusive;
            keeper.arguments = method.arguments.raw().to_vec();
            keeper.prefetch = prefetch;
            keeper.life = Life::Coming;
            keeper
        });
        self.consumers.insert(tag, keeper);
        let Some(added) = self.keeper(keeper) else { return Ok(()) };
        let (id, credit) = (added.id, added.top_up(prefetch_all, link.window(desk)).unwrap_or_default());
        let consume = Consume {
            queue,
            consumer: id,
            no_ack: method.no_ack,
            exclusive: method.exclusive,
            priority,
            timeout_ms: timeout_ms.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0),
            credit,
        };
        let operation = Operation::Ask { queue: name, shard, request: Some(Request::Consume(consume)) };
        self.begin(operation, After::Consuming { keeper }, method.no_wait, (60, 20), link, desk)
    }

    fn consume_replies(
        &mut self,
        method: BasicConsume<'_>,
        tag: Vec<u8>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        if self.reply_consumer.is_some() {
            return Err(Failure::precondition("reply consumer already set"));
        }
        if !method.no_ack {
            return Err(Failure::precondition("reply consumer cannot acknowledge"));
        }
        if !method.no_wait {
            link.method(self.who.channel, BasicConsumeOk { consumer_tag: Short(&tag) });
        }
        let [secret, _] = desk.random();
        self.reply_consumer = Some(ReplyConsumer { tag, secret });
        Ok(())
    }

    /// `queue.declare` of an address for answers asks whether somebody still waits there.
    pub(super) fn declare_reply_queue(
        &mut self,
        name: &[u8],
        no_wait: bool,
        link: &mut Link,
        desk: &Desk<'_>,
    ) -> Result<(), Failure> {
        let there = reply_to::is_pseudo_queue(name)
            || reply_to::read_address(name).is_some_and(|to| {
                // Of other connections only their own shard knows; they are taken to be there.
                to.who != self.who && to.shard.0 < desk.out.metadata().shards
                    || self.awaits_replies(to.secret)
            });
        if !there {
            return Err(Failure::no_queue(name, &link.vhost));
        }
        if !no_wait {
            let ok = QueueDeclareOk { queue: Short(name), message_count: 0, consumer_count: 1 };
            link.method(self.who.channel, ok);
        }
        Ok(())
    }

    pub(super) fn cancel(
        &mut self,
        method: BasicCancel<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let tag = method.consumer_tag.0;
        let Some(index) = self.consumers.get(tag).copied() else {
            if self.reply_consumer.as_ref().is_some_and(|consumer| consumer.tag == tag) {
                self.reply_consumer = None;
            }
            if !method.no_wait {
                link.method(self.who.channel, BasicCancelOk { consumer_tag: method.consumer_tag });
            }
            return Ok(());
        };
        let Some(keeper) = self.keeper(index) else { return Ok(()) };
        let (queue, shard, consumer) = (keeper.queue_name.clone(), keeper.shard, keeper.id);
        let request = Some(Request::CancelConsumer { consumer, release: false });
        let operation = Operation::Ask { queue, shard, request };
        let after = After::Cancelled { keeper: index, tag: tag.to_vec() };
        self.begin(operation, after, method.no_wait, (60, 30), link, desk)
    }

    /// Deliveries for a consumer that has gone, which nobody has seen.
    pub(super) fn give_back_held(&mut self, index: u32, desk: &mut Desk<'_>) {
        for seq in self.take_held(index) {
            self.give_back(index, seq, desk);
        }
    }

    /// A keeper that never came to be.
    pub(super) fn give_up_keeper(&mut self, index: u32, desk: &mut Desk<'_>) {
        if let Some(keeper) = self.keeper(index) {
            if let Some(tag) = keeper.tag.take() {
                self.consumers.remove(&tag);
            }
            self.drop_keeper_if_over(index, desk);
        }
    }

    pub(super) fn get(
        &mut self,
        method: BasicGet<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let name = self.queue_meant(method.queue.0)?;
        link.check(desk, Access::Read, "queue", &name)?;
        let (queue, shard) = Channel::find_queue(&name, link, desk)?;
        if !method.no_ack && link.has_enough(desk) {
            return Err(Failure::new(
                ReplyCode::ResourceError,
                format!(
                    "deliveries that are not settled: {AMQP_UNACKED_PER_CONNECTION_MAX} per connection at most"
                ),
            ));
        }
        let fits =
            |keeper: &Keeper| keeper.tag.is_none() && keeper.queue == queue && keeper.no_ack == method.no_ack;
        let keeper = self.keepers.iter().position(|keeper| keeper.as_ref().is_some_and(fits));
        let is_told_count = is_told_count(&name, link, desk);
        let keeper = match keeper {
            Some(index) => index as u32,
            None => self.add_keeper(desk, |id| {
                let mut keeper = Keeper::new(id, name.clone(), queue, shard);
                keeper.is_told_count = is_told_count;
                keeper.no_ack = method.no_ack;
                keeper
            }),
        };
        let Some(consumer) = self.keeper(keeper).map(|keeper| keeper.id) else { return Ok(()) };
        let request = Some(Request::Get { queue, consumer, no_ack: method.no_ack });
        let operation = Operation::Ask { queue: name, shard, request };
        self.begin(operation, After::Got { keeper }, false, (60, 70), link, desk)
    }

    pub(super) fn got(
        &mut self,
        index: u32,
        delivery: &Delivery,
        left: u64,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) {
        let channel = self.who.channel;
        let Some(keeper) = self.keeper(index) else { return };
        desk.metrics.amqp_delivered.add(1);
        desk.metrics.amqp_redelivered.add(u64::from(delivery.redelivered));
        if keeper.no_ack { &desk.metrics.amqp_got_no_ack } else { &desk.metrics.amqp_got_to_ack }.add(1);
        keeper.given(0);
        let (is_told_count, no_ack) = (keeper.is_told_count, keeper.no_ack);
        self.counts.redelivered += u64::from(delivery.redelivered);
        *if no_ack { &mut self.counts.got_no_ack } else { &mut self.counts.got } += 1;
        let tag = if no_ack {
            self.unacked.skip()
        } else {
            self.unacked.push(super::Entry { keeper: index, seq: delivery.seq, got: true })
        };
        if let Ok(stored) = Stored::read(&delivery.header) {
            // The count of what is left stands behind the address here.
            let mut address = stored.address.to_vec();
            address.extend_from_slice(&u32::try_from(left).unwrap_or(u32::MAX).to_be_bytes());
            link.method_before(channel, &address, |writer| {
                writer.u16(60);
                writer.u16(71);
                writer.u64(tag);
                writer.bit(delivery.redelivered);
            });
            super::write_content(channel, &stored, delivery, is_told_count, link);
        }
        self.drop_keeper_if_over(index, desk);
    }

    /// Sets how much consumers may keep: each of them, those that there are and those to come; or the channel as a whole.
    pub(super) fn set_prefetch(&mut self, count: u16, all: bool) {
        if all {
            self.prefetch_all = count;
        } else {
            self.prefetch = count;
            for keeper in self.keepers.iter_mut().flatten() {
                keeper.prefetch = count;
            }
        }
        for index in 0..self.keepers.len() {
            self.feed(index as u32);
        }
    }

    /// Settles one delivery, or all up to it; at once, or when the transaction is committed.
    fn settle_tag(
        &mut self,
        tag: u64,
        multiple: bool,
        verdict: Verdict,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let failed = |UnknownTag| unknown_tag(tag);
        if let Mode::Transaction(transaction) = &mut self.mode {
            let tags: Vec<u64> = if multiple { self.unacked.tags_through(tag).collect() } else { vec![tag] };
            if multiple && tag != 0 && tags.last() != Some(&tag) {
                return Err(unknown_tag(tag));
            }
            for tag in tags {
                let entry = self.unacked.take(tag).map_err(failed)?;
                transaction.settle(tag, entry, verdict);
            }
            return Ok(());
        }
        if !multiple {
            let entry = self.unacked.take(tag).map_err(failed)?;
            self.settle(entry, verdict, desk);
            return Ok(());
        }
        let mut unacked = std::mem::take(&mut self.unacked);
        let outcome = unacked.take_through(tag, |entry| self.settle(entry, verdict, desk));
        self.unacked = unacked;
        outcome.map_err(failed)
    }

    pub(super) fn ack(&mut self, method: BasicAck, desk: &mut Desk<'_>) -> Result<(), Failure> {
        self.settle_tag(method.delivery_tag, method.multiple, Verdict::Ack, desk)
    }

    pub(super) fn nack(&mut self, method: BasicNack, desk: &mut Desk<'_>) -> Result<(), Failure> {
        let verdict = if method.requeue { Verdict::Requeue { failed: false } } else { Verdict::Reject };
        self.settle_tag(method.delivery_tag, method.multiple, verdict, desk)
    }

    pub(super) fn reject(&mut self, method: BasicReject, desk: &mut Desk<'_>) -> Result<(), Failure> {
        let verdict = if method.requeue { Verdict::Requeue { failed: true } } else { Verdict::Reject };
        self.settle_tag(method.delivery_tag, false, verdict, desk)
    }

    /// Everything that is not settled goes back.
    pub(super) fn recover(&mut self, requeue: bool, desk: &mut Desk<'_>) -> Result<(), Failure> {
        if !requeue {
            return Err(Failure::not_implemented("requeue=false"));
        }
        let mut unacked = std::mem::take(&mut self.unacked);
        let verdict = Verdict::Requeue { failed: false };
        // Zero means all, of which there may be none.
        let _ = unacked.take_through(0, |entry| self.settle(entry, verdict, desk));
        self.unacked = unacked;
        Ok(())
    }
}
