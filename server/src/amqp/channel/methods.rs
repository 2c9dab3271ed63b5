//! What a client may say on an open channel, and who deals with it.

use super::answers::{After, Awaiting};
use super::{Channel, Mode};
use crate::amqp::codec::{
    AccessRequestOk, BasicQosOk, BasicRecoverOk, ChannelFlowOk, ConfirmSelectOk, Method, TxSelectOk,
};
use crate::amqp::error::{Failure, ReplyCode};
use crate::amqp::link::Link;
use crate::amqp::operations::{Operation, Running};
use crate::amqp::state::Desk;

use super::confirms::Confirms;
use super::transaction::Transaction;

impl Channel {
    /// Takes a method. An error is about this method.
    pub fn method(
        &mut self,
        method: Method<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let channel = self.who.channel;
        match method {
            Method::ChannelFlow(flow) => {
                if !flow.active {
                    return Err(Failure::not_implemented("active=false"));
                }
                link.method(channel, ChannelFlowOk { active: true });
            }
            Method::ChannelFlowOk(_) | Method::BasicCancelOk(_) => {}
            Method::AccessRequest(_) => link.method(channel, AccessRequestOk { ticket: 1 }),
            Method::ExchangeDeclare(method) => return self.declare_exchange(method, link, desk),
            Method::ExchangeDelete(method) => return self.delete_exchange(method, link, desk),
            Method::ExchangeBind(method) => return self.bind_exchange(method, link, desk),
            Method::ExchangeUnbind(method) => return self.unbind_exchange(method, link, desk),
            Method::QueueDeclare(method) => return self.declare_queue(method, link, desk),
            Method::QueueBind(method) => return self.bind_queue(method, link, desk),
            Method::QueueUnbind(method) => return self.unbind_queue(method, link, desk),
            Method::QueuePurge(method) => return self.purge_queue(method, link, desk),
            Method::QueueDelete(method) => return self.delete_queue(method, link, desk),
            Method::BasicQos(method) => {
                if method.prefetch_size != 0 {
                    return Err(Failure::not_implemented(format!(
                        "prefetch_size!=0 ({})",
                        method.prefetch_size
                    )));
                }
                self.set_prefetch(method.prefetch_count, method.global);
                link.method(channel, BasicQosOk {});
            }
            Method::BasicConsume(method) => return self.consume(method, link, desk),
            Method::BasicCancel(method) => return self.cancel(method, link, desk),
            Method::BasicPublish(method) => return self.begin_publish(method),
            Method::BasicGet(method) => return self.get(method, link, desk),
            Method::BasicAck(method) => return self.ack(method, desk),
            Method::BasicReject(method) => return self.reject(method, desk),
            Method::BasicNack(method) => return self.nack(method, desk),
            Method::BasicRecover(method) => {
                self.recover(method.requeue, desk)?;
                link.method(channel, BasicRecoverOk {});
            }
            Method::BasicRecoverAsync(method) => return self.recover(method.requeue, desk),
            Method::ConfirmSelect(method) => {
                match self.mode {
                    Mode::Plain => self.mode = Mode::Confirm(Confirms::default()),
                    Mode::Confirm(_) => {}
                    Mode::Transaction(_) => {
                        return Err(Failure::precondition("cannot switch from tx to confirm mode"));
                    }
                }
                if !method.no_wait {
                    link.method(channel, ConfirmSelectOk {});
                }
            }
            Method::TxSelect(_) => {
                match self.mode {
                    Mode::Plain => self.mode = Mode::Transaction(Transaction::default()),
                    Mode::Transaction(_) => {}
                    Mode::Confirm(_) => {
                        return Err(Failure::precondition("cannot switch from confirm to tx mode"));
                    }
                }
                link.method(channel, TxSelectOk {});
            }
            Method::TxCommit(_) => return self.commit(link, desk),
            Method::TxRollback(_) => return self.roll_back(link),
            other => {
                let (class, id) = other.class_and_id();
                return Err(Failure::new(
                    ReplyCode::CommandInvalid,
                    format!("method {id} of class {class} is not expected here"),
                ));
            }
        }
        Ok(())
    }

    /// Begins an operation, and answers if it is over at once.
    pub(super) fn begin(
        &mut self,
        operation: Operation,
        after: After,
        no_wait: bool,
        method: (u16, u16),
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let running = Running::new(Some(self.who), Some(link.owner), link.vhost.clone(), operation);
        let ended = desk.begin(running);
        self.awaiting = Some(Awaiting { after, no_wait, method });
        match ended {
            None => Ok(()),
            Some(ended) => self.ended(ended, link, desk).map_err(|(failure, _)| failure),
        }
    }
}
