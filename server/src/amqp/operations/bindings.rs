//! Binding queues and exchanges to exchanges, and taking that back.

use millstream_engine::shard::change::{Edit, Guard, MetadataChange};
use millstream_engine::shard::request::Request;

use super::{Done, METADATA_SHARD, Step, View, binding_edits};
use crate::amqp::codec::Table;
use crate::amqp::error::Failure;
use crate::amqp::topology::entries::{Binding, Destination, EXCHANGE, binding_value, key, vhost_exists};
use crate::limits::AMQP_BINDING_ARGUMENTS_BYTES_MAX;

/// Binds.
#[derive(Debug)]
pub struct Bind {
    /// What to what.
    pub binding: Binding,
}

impl Bind {
    pub(super) fn begin(&mut self, view: View<'_>) -> Step {
        match self.look(view) {
            Ok(Some(change)) => Step::Ask(METADATA_SHARD, Request::ChangeMetadata(change)),
            Ok(None) => Step::Done(Done::Ok),
            Err(failure) => Step::Failed(failure),
        }
    }

    fn look(&self, view: View<'_>) -> Result<Option<MetadataChange>, Failure> {
        let (vhost, binding) = (view.vhost, &self.binding);
        let no_exchange = |name: &[u8]| Failure::no_exchange(name, &vhost.name);
        let (queue, durable) = match &binding.destination {
            Destination::Queue(name) => {
                let queue = vhost.queue(name).ok_or_else(|| Failure::no_queue(name, &vhost.name))?;
                if view.owner.is_some_and(|owner| !queue.is_open_to(owner)) {
                    return Err(Failure::locked(name, &vhost.name));
                }
                (Some(queue.id), queue.value.durable)
            }
            Destination::Exchange(name) => {
                (None, vhost.exchange(name).ok_or_else(|| no_exchange(name))?.value.durable)
            }
        };
        let source = vhost.exchange(&binding.source).ok_or_else(|| no_exchange(&binding.source))?;
        let arguments = Table::from_raw(&binding.arguments).unwrap_or_default();
        source.kind.check(&binding.routing_key, arguments)?;
        if binding.arguments.len() > AMQP_BINDING_ARGUMENTS_BYTES_MAX {
            return Err(Failure::precondition(format!(
                "a binding's arguments have {AMQP_BINDING_ARGUMENTS_BYTES_MAX} bytes at most"
            )));
        }
        if vhost.has_binding(binding) {
            return Ok(None);
        }
        view.topology.check_bindings(source)?;
        // Those that every vhost has cannot go, and have no entry.
        let queue_exists = queue.map(Guard::Queue);
        let mut guards: Vec<Guard> = queue_exists.into_iter().chain([vhost_exists(&vhost.name)]).collect();
        let mut guard = |name: &[u8]| {
            if let Some(version) = vhost.exchange(name).and_then(|exchange| exchange.version) {
                guards.push(Guard::Entry(key(EXCHANGE, &[&vhost.name, name]), Some(version)));
            }
        };
        guard(&binding.source);
        if let Destination::Exchange(name) = &binding.destination {
            guard(name);
        }
        let transient = !(durable && source.value.durable);
        let set = Edit::SetEntry { key: binding.key(&vhost.name), value: binding_value(queue), transient };
        Ok(Some(MetadataChange { guards, edits: vec![set] }))
    }
}

/// Takes a binding back. One that is not there is as good as taken back.
#[derive(Debug)]
pub struct Unbind {
    /// What from what.
    pub binding: Binding,
}

impl Unbind {
    pub(super) fn begin(&mut self, view: View<'_>) -> Step {
        let vhost = view.vhost;
        if let Destination::Queue(name) = &self.binding.destination
            && let Some(queue) = vhost.queue(name)
            && view.owner.is_some_and(|owner| !queue.is_open_to(owner))
        {
            return Step::Failed(Failure::locked(name, &vhost.name));
        }
        if !vhost.has_binding(&self.binding) {
            return Step::Done(Done::Ok);
        }
        let edits = binding_edits(vhost, [self.binding.clone()]);
        Step::Ask(METADATA_SHARD, Request::ChangeMetadata(MetadataChange { guards: Vec::new(), edits }))
    }
}
