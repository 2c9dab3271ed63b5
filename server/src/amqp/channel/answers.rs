//! What a channel says when the operation is over that it has waited for.

use super::Channel;
use super::keeper::Life;
use crate::amqp::codec::{
    BasicCancelOk, BasicConsumeOk, BasicGetEmpty, ExchangeBindOk, ExchangeDeclareOk, ExchangeDeleteOk,
    ExchangeUnbindOk, Method, QueueBindOk, QueueDeclareOk, QueueDeleteOk, QueuePurgeOk, QueueUnbindOk, Short,
};
use crate::amqp::error::Failure;
use crate::amqp::link::Link;
use crate::amqp::operations::{Done, Running};
use crate::amqp::state::Desk;

/// What a channel waits for.
#[derive(Debug)]
pub struct Awaiting {
    /// What to say then.
    pub after: After,
    /// Not to say it.
    pub no_wait: bool,
    /// Class and number of the method that it came from.
    pub method: (u16, u16),
}

/// What is to be said.
#[derive(Debug)]
pub enum After {
    /// `exchange.declare-ok`
    ExchangeDeclared,
    /// `exchange.delete-ok`
    ExchangeDeleted,
    /// `exchange.bind-ok`
    ExchangeBound,
    /// `exchange.unbind-ok`
    ExchangeUnbound,
    /// `queue.declare-ok`
    QueueDeclared,
    /// `queue.bind-ok`
    QueueBound,
    /// `queue.unbind-ok`
    QueueUnbound,
    /// `queue.purge-ok`
    Purged,
    /// `queue.delete-ok`
    QueueDeleted {
        /// Which.
        name: Vec<u8>,
    },
    /// `basic.consume-ok`
    Consuming {
        /// The consumer.
        keeper: u32,
    },
    /// `basic.cancel-ok`
    Cancelled {
        /// The consumer.
        keeper: u32,
        /// Its tag.
        tag: Vec<u8>,
    },
    /// The same, when the queue has gone with its last consumer.
    Abandoned {
        /// The consumer's tag.
        tag: Vec<u8>,
    },
    /// `basic.get-ok` or `basic.get-empty`
    Got {
        /// Who keeps it.
        keeper: u32,
    },
    /// `tx.commit-ok`
    Committed,
}

impl Channel {
    /// The operation is over. A failure is about the method that it came from.
    pub fn ended(
        &mut self,
        ended: Result<Done, Failure>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), (Failure, (u16, u16))> {
        let Some(Awaiting { after, no_wait, method }) = self.awaiting.take() else { return Ok(()) };
        let done = match ended {
            Ok(done) => done,
            Err(failure) => {
                if let After::Consuming { keeper } | After::Got { keeper } = after {
                    self.give_up_keeper(keeper, desk);
                }
                return Err((failure, method));
            }
        };
        let channel = self.who.channel;
        let say = |link: &mut Link, method: Method<'_>| {
            if !no_wait {
                link.method(channel, method);
            }
        };
        match (after, done) {
            (After::ExchangeDeclared, _) => say(link, ExchangeDeclareOk {}.into()),
            (After::ExchangeDeleted, _) => say(link, ExchangeDeleteOk {}.into()),
            (After::ExchangeBound, _) => say(link, ExchangeBindOk {}.into()),
            (After::ExchangeUnbound, _) => say(link, ExchangeUnbindOk {}.into()),
            (After::QueueBound, _) => say(link, QueueBindOk {}.into()),
            (After::QueueUnbound, _) => say(link, QueueUnbindOk {}.into()),
            (After::QueueDeclared, Done::QueueDeclared { name, messages, consumers, own, id }) => {
                if own {
                    link.own_queues.insert(name.clone(), id);
                }
                let message_count = u32::try_from(messages).unwrap_or(u32::MAX);
                let ok = QueueDeclareOk { queue: Short(&name), message_count, consumer_count: consumers };
                say(link, ok.into());
                self.last_queue = name;
            }
            (After::Purged, Done::Messages(messages)) => {
                let message_count = u32::try_from(messages).unwrap_or(u32::MAX);
                say(link, QueuePurgeOk { message_count }.into());
            }
            (After::QueueDeleted { name }, Done::Messages(messages)) => {
                link.own_queues.remove(&name);
                let message_count = u32::try_from(messages).unwrap_or(u32::MAX);
                say(link, QueueDeleteOk { message_count }.into());
            }
            (After::Consuming { keeper: index }, _) => {
                if let Some(keeper) = self.keeper(index) {
                    keeper.life = Life::There;
                    let tag = keeper.tag.clone().unwrap_or_default();
                    say(link, BasicConsumeOk { consumer_tag: Short(&tag) }.into());
                }
                self.feed(index);
            }
            (After::Cancelled { keeper: index, tag }, Done::Cancelled { queue, left }) => {
                // It may have gone with its queue meanwhile.
                if let Some(keeper) = self.keeper(index) {
                    if keeper.life != Life::Gone {
                        keeper.life = Life::Cancelled;
                    }
                    self.consumers.remove(&tag);
                    self.give_back_held(index, desk);
                    self.drop_keeper_if_over(index, desk);
                }
                if left == Some(0)
                    && let Some(operation) = desk.deletion_if_abandoned(&link.vhost, &queue)
                {
                    let ended = desk.begin(Running::new(Some(self.who), None, link.vhost.clone(), operation));
                    self.awaiting = Some(Awaiting { after: After::Abandoned { tag }, no_wait, method });
                    return match ended {
                        // Whether it went or another consumer came in between is all the same to this one.
                        Some(_) => self.ended(Ok(Done::Ok), link, desk),
                        None => Ok(()),
                    };
                }
                say(link, BasicCancelOk { consumer_tag: Short(&tag) }.into());
            }
            (After::Abandoned { tag }, _) => say(link, BasicCancelOk { consumer_tag: Short(&tag) }.into()),
            (After::Got { keeper }, Done::Got(delivery, left)) => match delivery {
                Some(delivery) => self.got(keeper, &delivery, left, link, desk),
                None => {
                    desk.metrics.amqp_got_empty.add(1);
                    self.counts.got_empty += 1;
                    self.drop_keeper_if_over(keeper, desk);
                    link.method(channel, BasicGetEmpty { cluster_id: Short(b"") });
                }
            },
            (after, done) => panic!("{after:?} came to {done:?}"),
        }
        Ok(())
    }

    /// Whether the operation may fail without anybody being told: a queue that was to go with its last consumer has found another.
    pub fn may_fail(&self) -> bool {
        matches!(self.awaiting, Some(Awaiting { after: After::Abandoned { .. }, .. }))
    }
}
