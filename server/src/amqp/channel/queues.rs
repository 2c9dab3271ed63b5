//! Methods about exchanges, queues and bindings.

use super::Channel;
use super::answers::After;
use crate::amqp::codec::{
    ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeUnbind, QueueBind, QueueDeclare, QueueDelete,
    QueuePurge, QueueUnbind, Table, Value,
};
use crate::amqp::error::{Failure, Text};
use crate::amqp::link::Link;
use crate::amqp::names::{random_name, without_line_ends};
use crate::amqp::operations::{
    Bind, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Operation, Unbind,
};
use crate::amqp::reply_to;
use crate::amqp::routing::bindings::ExchangeKind;
use crate::amqp::state::Desk;
use crate::amqp::topology::entries::{Binding, Destination, ExchangeValue, QueueValue};
use crate::amqp::topology::users::Access;
use millstream_engine::shard::request::Request;

fn not_the_default(exchange: &[u8]) -> Result<(), Failure> {
    if exchange.is_empty() {
        return Err(Failure::refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

/// Whether something may be made whose argument `name` says to which exchange its messages go on: whoever reads from the one and
/// writes to the other may.
fn check_passing_on(
    (what, made): (&str, &[u8]),
    arguments: Table<'_>,
    name: &str,
    link: &Link,
    desk: &Desk<'_>,
) -> Result<(), Failure> {
    match arguments.get(name.as_bytes()) {
        None => Ok(()),
        Some(Value::String(exchange)) => {
            link.check(desk, Access::Read, what, made)?;
            link.check(desk, Access::Write, "exchange", exchange)
        }
        Some(other) => Err(Failure::precondition(format!(
            "invalid type '{}' for arg '{name}' in {what} '{}' in vhost '{}'",
            other.type_name(),
            Text(made),
            Text(&link.vhost)
        ))),
    }
}

/// Whether the user may bind these.
fn check_binding(binding: &Binding, link: &Link, desk: &Desk<'_>) -> Result<(), Failure> {
    let what = match &binding.destination {
        Destination::Queue(_) => "queue",
        Destination::Exchange(name) => {
            not_the_default(name)?;
            "exchange"
        }
    };
    not_the_default(&binding.source)?;
    link.check(desk, Access::Write, what, binding.destination.name())?;
    link.check(desk, Access::Read, "exchange", &binding.source)?;
    let source = desk.vhost(&link.vhost).and_then(|vhost| vhost.exchange(&binding.source));
    if source.is_some_and(|exchange| exchange.kind == ExchangeKind::Topic) {
        link.check_topic(desk, Access::Read, &binding.source, &binding.routing_key)?;
    }
    Ok(())
}

impl Channel {
    pub(super) fn declare_exchange(
        &mut self,
        method: ExchangeDeclare<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let name = without_line_ends(method.exchange.0);
        if method.passive && name.is_empty() {
            not_the_default(&name)?;
        }
        if !method.passive {
            not_the_default(&name)?;
            link.check(desk, Access::Configure, "exchange", &name)?;
        }
        let made = ("exchange", &name[..]);
        let may_be_made = check_passing_on(made, method.arguments, "alternate-exchange", link, desk);
        let value = ExchangeValue {
            kind: method.kind.0.to_vec(),
            durable: method.durable,
            auto_delete: method.auto_delete,
            internal: method.internal,
            arguments: method.arguments.raw().to_vec(),
        };
        let operation =
            Operation::DeclareExchange(DeclareExchange { name, passive: method.passive, value, may_be_made });
        self.begin(operation, After::ExchangeDeclared, method.no_wait, (40, 10), link, desk)
    }

    pub(super) fn delete_exchange(
        &mut self,
        method: ExchangeDelete<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let name = without_line_ends(method.exchange.0);
        not_the_default(&name)?;
        link.check(desk, Access::Configure, "exchange", &name)?;
        let operation = Operation::DeleteExchange(DeleteExchange { name, if_unused: method.if_unused });
        self.begin(operation, After::ExchangeDeleted, method.no_wait, (40, 20), link, desk)
    }

    pub(super) fn bind_exchange(
        &mut self,
        method: ExchangeBind<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let binding = Binding {
            source: without_line_ends(method.source.0),
            destination: Destination::Exchange(without_line_ends(method.destination.0)),
            routing_key: method.routing_key.0.to_vec(),
            arguments: method.arguments.raw().to_vec(),
        };
        check_binding(&binding, link, desk)?;
        let operation = Operation::Bind(Bind { binding });
        self.begin(operation, After::ExchangeBound, method.no_wait, (40, 30), link, desk)
    }

    pub(super) fn unbind_exchange(
        &mut self,
        method: ExchangeUnbind<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let binding = Binding {
            source: without_line_ends(method.source.0),
            destination: Destination::Exchange(without_line_ends(method.destination.0)),
            routing_key: method.routing_key.0.to_vec(),
            arguments: method.arguments.raw().to_vec(),
        };
        check_binding(&binding, link, desk)?;
        let operation = Operation::Unbind(Unbind { binding });
        self.begin(operation, After::ExchangeUnbound, method.no_wait, (40, 40), link, desk)
    }

    pub(super) fn declare_queue(
        &mut self,
        method: QueueDeclare<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let mut name = without_line_ends(method.queue.0);
        if reply_to::is_address(&name) {
            return self.declare_reply_queue(&name, method.no_wait, link, desk);
        }
        let generated = name.is_empty() && !method.passive;
        if generated {
            name = random_name("amq.gen-", desk.random());
        }
        if !method.passive {
            link.check(desk, Access::Configure, "queue", &name)?;
        }
        let made = ("queue", &name[..]);
        let may_be_made = check_passing_on(made, method.arguments, "x-dead-letter-exchange", link, desk);
        let value = QueueValue {
            // A queue goes with its connection if it is the connection's: it is not kept over a restart.
            durable: method.durable && !method.exclusive,
            auto_delete: method.auto_delete,
            owner: method.exclusive.then_some(link.owner),
            arguments: method.arguments.raw().to_vec(),
        };
        let (passive, exclusive) = (method.passive, method.exclusive);
        let operation =
            Operation::DeclareQueue(DeclareQueue { name, generated, passive, exclusive, value, may_be_made });
        self.begin(operation, After::QueueDeclared, method.no_wait, (50, 10), link, desk)
    }

    fn queue_binding(
        &self,
        queue: &[u8],
        exchange: &[u8],
        routing_key: &[u8],
        arguments: Table<'_>,
    ) -> Result<Binding, Failure> {
        let name = self.queue_meant(&without_line_ends(queue))?;
        // Without a queue's name an empty key stands for the same queue's.
        let routing_key = if queue.is_empty() && routing_key.is_empty() { &name } else { routing_key };
        Ok(Binding {
            source: without_line_ends(exchange),
            routing_key: routing_key.to_vec(),
            destination: Destination::Queue(name),
            arguments: arguments.raw().to_vec(),
        })
    }

    pub(super) fn bind_queue(
        &mut self,
        method: QueueBind<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let binding =
            self.queue_binding(method.queue.0, method.exchange.0, method.routing_key.0, method.arguments)?;
        check_binding(&binding, link, desk)?;
        let operation = Operation::Bind(Bind { binding });
        self.begin(operation, After::QueueBound, method.no_wait, (50, 20), link, desk)
    }

    pub(super) fn unbind_queue(
        &mut self,
        method: QueueUnbind<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let binding =
            self.queue_binding(method.queue.0, method.exchange.0, method.routing_key.0, method.arguments)?;
        check_binding(&binding, link, desk)?;
        let operation = Operation::Unbind(Unbind { binding });
        self.begin(operation, After::QueueUnbound, false, (50, 50), link, desk)
    }

    pub(super) fn purge_queue(
        &mut self,
        method: QueuePurge<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let name = self.queue_meant(&without_line_ends(method.queue.0))?;
        link.check(desk, Access::Read, "queue", &name)?;
        let (queue, shard) = Channel::find_queue(&name, link, desk)?;
        let operation = Operation::Ask { queue: name, shard, request: Some(Request::Purge(queue)) };
        self.begin(operation, After::Purged, method.no_wait, (50, 30), link, desk)
    }

    pub(super) fn delete_queue(
        &mut self,
        method: QueueDelete<'_>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let name = self.queue_meant(&without_line_ends(method.queue.0))?;
        link.check(desk, Access::Configure, "queue", &name)?;
        let operation =
            Operation::DeleteQueue(DeleteQueue::new(name.clone(), None, method.if_unused, method.if_empty));
        self.begin(operation, After::QueueDeleted { name }, method.no_wait, (50, 40), link, desk)
    }
}
