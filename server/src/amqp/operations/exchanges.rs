//! Declaring and deleting exchanges.

use millstream_engine::shard::change::{Edit, Guard, MetadataChange};
use millstream_engine::shard::request::Request;

use super::{Done, METADATA_SHARD, Step, View, binding_edits};
use crate::amqp::codec::Table;
use crate::amqp::error::{Failure, Text, exchange_in};
use crate::amqp::routing::bindings::{ExchangeKind, HashBy};
use crate::amqp::topology::arguments::{check_exchange_arguments, check_property};
use crate::amqp::topology::entries::{Destination, EXCHANGE, ExchangeValue, key, vhost_exists};

/// Names that begin like this are the broker's.
pub(super) const RESERVED: &[u8] = b"amq.";

/// Makes an exchange, or sees whether it is as expected.
#[derive(Debug)]
pub struct DeclareExchange {
    /// Its name.
    pub name: Vec<u8>,
    /// Only look whether it is there.
    pub passive: bool,
    /// What it is to be.
    pub value: ExchangeValue,
    /// Whether the user may make it, if it is not there.
    pub may_be_made: Result<(), Failure>,
}

impl DeclareExchange {
    pub(super) fn begin(&mut self, view: View<'_>) -> Step {
        match self.look(view) {
            Ok(Some(change)) => Step::Ask(METADATA_SHARD, Request::ChangeMetadata(change)),
            Ok(None) => Step::Done(Done::Ok),
            Err(failure) => Step::Failed(failure),
        }
    }

    fn look(&self, view: View<'_>) -> Result<Option<MetadataChange>, Failure> {
        let vhost = view.vhost;
        if let Some(exchange) = vhost.exchange(&self.name) {
            return if self.passive {
                Ok(None)
            } else {
                self.check(&exchange.value, &vhost.name).map(|()| None)
            };
        }
        if self.passive {
            return Err(Failure::no_exchange(&self.name, &vhost.name));
        }
        let Some(kind) = ExchangeKind::named(&self.value.kind) else {
            return Err(Failure::precondition(format!("unknown exchange type '{}'", Text(&self.value.kind))));
        };
        if self.name.starts_with(RESERVED) {
            return Err(Failure::refused(format!(
                "exchange name '{}' contains reserved prefix 'amq.*'",
                Text(&self.name)
            )));
        }
        let arguments = Table::from_raw(&self.value.arguments).unwrap_or_default();
        if kind == ExchangeKind::ConsistentHash {
            HashBy::read(arguments)?;
        }
        self.may_be_made.clone()?;
        view.topology.check_exchanges()?;
        let key = key(EXCHANGE, &[&vhost.name, &self.name]);
        let set =
            Edit::SetEntry { key: key.clone(), value: self.value.write(), transient: !self.value.durable };
        let guards = vec![Guard::Entry(key, None), vhost_exists(&vhost.name)];
        Ok(Some(MetadataChange { guards, edits: vec![set] }))
    }

    fn check(&self, current: &ExchangeValue, vhost: &[u8]) -> Result<(), Failure> {
        let what = exchange_in(&self.name, vhost);
        let wanted = &self.value;
        if ExchangeKind::named(&wanted.kind).is_none() {
            return Err(Failure::precondition(format!("unknown exchange type '{}'", Text(&wanted.kind))));
        }
        check_property(&what, "type", Text(&current.kind), Text(&wanted.kind))?;
        check_property(&what, "durable", current.durable, wanted.durable)?;
        check_property(&what, "auto_delete", current.auto_delete, wanted.auto_delete)?;
        check_property(&what, "internal", current.internal, wanted.internal)?;
        let read =
            |value: &ExchangeValue| Table::from_raw(&value.arguments).unwrap_or_default().raw().to_vec();
        let (current, wanted) = (read(current), read(wanted));
        let (current, wanted) = (Table::from_raw(&current), Table::from_raw(&wanted));
        check_exchange_arguments(&what, current.unwrap_or_default(), wanted.unwrap_or_default())
    }
}

/// Deletes an exchange. One that is not there is as good as deleted.
#[derive(Debug)]
pub struct DeleteExchange {
    /// Its name.
    pub name: Vec<u8>,
    /// Only if no binding starts from it.
    pub if_unused: bool,
}

impl DeleteExchange {
    pub(super) fn begin(&mut self, view: View<'_>) -> Step {
        let vhost = view.vhost;
        let Some(exchange) = vhost.exchange(&self.name) else { return Step::Done(Done::Ok) };
        let what = exchange_in(&self.name, &vhost.name);
        if self.name.starts_with(RESERVED) {
            return Step::Failed(Failure::refused(format!("deletion of system {what} not allowed")));
        }
        if self.if_unused && !exchange.bindings.is_empty() {
            return Step::Failed(Failure::precondition(format!("{what} in use")));
        }
        let key = key(EXCHANGE, &[&vhost.name, &self.name]);
        let from = vhost.bindings_from(&self.name);
        let to = vhost.bindings_to(&Destination::Exchange(self.name.clone()));
        let mut edits = vec![Edit::RemoveEntry(key.clone())];
        edits.extend(binding_edits(vhost, from.chain(to).cloned().collect::<Vec<_>>()));
        let change = MetadataChange { guards: vec![Guard::Entry(key, exchange.version)], edits };
        Step::Ask(METADATA_SHARD, Request::ChangeMetadata(change))
    }
}
