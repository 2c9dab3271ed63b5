//! Making what definitions say: first it is seen whether all of it fits the node, then it is made in steps of bounded size, in an order in
//! which each thing finds what it needs.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::shard::change::{Edit, EntryKey, Guard, MetadataChange, NewQueue};

use super::{Definitions, In};
use crate::amqp::codec::Table;
use crate::amqp::error::{Text, exchange_in, queue_in};
use crate::amqp::routing::bindings::ExchangeKind;
use crate::amqp::topology::Topology;
use crate::amqp::topology::arguments::Wishes;
use crate::amqp::topology::entries::{
    Binding, Destination, EXCHANGE, ExchangeValue, QUEUE, QueueValue, VHOST, binding_value, key, vhost_exists,
};
use crate::limits::{
    AMQP_BINDINGS_MAX, AMQP_BINDINGS_PER_EXCHANGE_MAX, AMQP_EXCHANGES_MAX, AMQP_OPERATION_TRIES_MAX,
    AMQP_VHOSTS_MAX, DEFINITIONS_EDITS_AT_ONCE,
};
use crate::management::node::Node;
use crate::management::problem::Problem;

impl Definitions {
    /// Makes all of it. The node is known as it was a moment ago.
    pub async fn apply(&self, node: &Node) -> Result<(), Problem> {
        node.look(|topology| {
            self.check(topology)?;
            self.check_counts(topology)
        })?;
        for some in self.entries.chunks(DEFINITIONS_EDITS_AT_ONCE) {
            let change = node.look_deep(|_, metadata| {
                let changed = some.iter().filter(|plain| {
                    metadata.entry(&plain.key).is_none_or(|entry| *entry.value != *plain.value)
                });
                // Vhosts come before what is in them, some of them in the same change.
                let made: BTreeSet<&EntryKey> =
                    some.iter().map(|plain| &plain.key).filter(|key| key.kind == VHOST).collect();
                let vhosts: BTreeSet<EntryKey> =
                    some.iter().filter_map(|plain| Some(key(VHOST, &[plain.vhost.as_deref()?]))).collect();
                let needed = vhosts.into_iter().filter(|vhost| !made.contains(vhost));
                let guards = needed.map(Guard::Exists).collect();
                let set = |plain: &super::Plain| Edit::SetEntry {
                    key: plain.key.clone(),
                    value: plain.value.clone(),
                    transient: false,
                };
                MetadataChange { guards, edits: changed.map(set).collect() }
            });
            if !change.edits.is_empty() && !node.change(change).await? {
                return Err(Problem::unavailable("a vhost was deleted meanwhile"));
            }
        }
        for some in self.exchanges.chunks(DEFINITIONS_EDITS_AT_ONCE) {
            make(node, |topology| exchanges(topology, some)).await?;
        }
        for some in self.queues.chunks(DEFINITIONS_EDITS_AT_ONCE) {
            make(node, |topology| queues(topology, some)).await?;
        }
        for some in self.bindings.chunks(DEFINITIONS_EDITS_AT_ONCE) {
            make(node, |topology| bindings(topology, some)).await?;
        }
        Ok(())
    }

    /// Sees whether everything finds what it needs, in the file or on the node.
    fn check(&self, topology: &Topology) -> Result<(), Problem> {
        let vhosts: BTreeSet<&[u8]> = self.vhosts.iter().map(Vec::as_slice).collect();
        let users: BTreeSet<&[u8]> = self.users.iter().map(Vec::as_slice).collect();
        let check_vhost = |about: &dyn Fn() -> String, vhost: &[u8]| {
            if vhosts.contains(vhost) || topology.vhost(vhost).is_some() {
                return Ok(());
            }
            Err(Problem::bad(format!("there is no vhost '{}'", Text(vhost))).about(&about()))
        };
        for plain in &self.entries {
            if let Some(vhost) = &plain.vhost {
                check_vhost(&|| plain.about.clone(), vhost)?;
            }
            if let Some(user) = &plain.user
                && !users.contains(&**user)
                && topology.user(user).is_none()
            {
                return Err(Problem::bad(format!("there is no user '{}'", Text(user))).about(&plain.about));
            }
        }
        for In { vhost, name, .. } in &self.exchanges {
            check_vhost(&|| exchange_in(name, vhost), vhost)?;
        }
        for In { vhost, name, .. } in &self.queues {
            check_vhost(&|| queue_in(name, vhost), vhost)?;
        }
        self.check_bindings(topology)
    }

    /// Sees whether there may be so many.
    fn check_counts(&self, topology: &Topology) -> Result<(), Problem> {
        let vhosts = topology.vhosts();
        let (mut exchanges, mut bindings, mut count) = (0, 0, 0);
        for vhost in vhosts {
            count += 1;
            exchanges += vhost.exchanges().len();
            bindings += vhost.bindings().len();
        }
        let new_exchanges = self
            .exchanges
            .iter()
            .filter(|one| topology.vhost(&one.vhost).is_none_or(|vhost| vhost.exchange(&one.name).is_none()));
        let new_bindings = self
            .bindings
            .iter()
            .filter(|(vhost, binding)| topology.vhost(vhost).is_none_or(|vhost| !vhost.has_binding(binding)));
        let mut sources: BTreeMap<(&[u8], &[u8]), usize> = BTreeMap::new();
        for (vhost, binding) in new_bindings {
            bindings += 1;
            let exchange = topology.vhost(vhost).and_then(|vhost| vhost.exchange(&binding.source));
            let there = exchange.map_or(0, |exchange| exchange.bindings.len());
            *sources.entry((vhost, &binding.source)).or_insert(there) += 1;
        }
        let new_vhosts = self.vhosts.iter().filter(|name| topology.vhost(name).is_none()).count();
        for (what, count, max) in [
            ("vhosts", count + new_vhosts, AMQP_VHOSTS_MAX),
            ("exchanges", exchanges + new_exchanges.count(), AMQP_EXCHANGES_MAX),
            ("bindings", bindings, AMQP_BINDINGS_MAX),
            (
                "bindings of one exchange",
                sources.values().copied().max().unwrap_or(0),
                AMQP_BINDINGS_PER_EXCHANGE_MAX,
            ),
        ] {
            if count > max {
                return Err(Problem::bad(format!("there would be {count} {what}; there are {max} at most")));
            }
        }
        Ok(())
    }

    fn check_bindings(&self, topology: &Topology) -> Result<(), Problem> {
        let kinds: BTreeMap<(&[u8], &[u8]), ExchangeKind> = self
            .exchanges
            .iter()
            .filter_map(|one| Some(((&*one.vhost, &*one.name), ExchangeKind::named(&one.value.kind)?)))
            .collect();
        let queues: BTreeSet<(&[u8], &[u8])> =
            self.queues.iter().map(|one| (&*one.vhost, &*one.name)).collect();
        let fresh = crate::amqp::topology::Vhost::new(Vec::new());
        for (vhost, binding) in &self.bindings {
            let about = || {
                let (source, to) = (Text(&binding.source), Text(binding.destination.name()));
                format!("binding from '{source}' to '{to}' in vhost '{}'", Text(vhost))
            };
            let known = topology.vhost(vhost).unwrap_or(&fresh);
            let kind = |name: &[u8]| {
                let there = known.exchange(name).map(|exchange| exchange.kind);
                there.or_else(|| kinds.get(&(&**vhost, name)).copied())
            };
            let missing = |what: &str, name: &[u8]| {
                Problem::bad(format!("there is no {what} '{}'", Text(name))).about(&about())
            };
            let source = kind(&binding.source).ok_or_else(|| missing("exchange", &binding.source))?;
            match &binding.destination {
                Destination::Queue(name) => {
                    if known.queue(name).is_none() && !queues.contains(&(&**vhost, &**name)) {
                        return Err(missing("queue", name));
                    }
                }
                Destination::Exchange(name) => drop(kind(name).ok_or_else(|| missing("exchange", name))?),
            }
            let arguments = Table::from_raw(&binding.arguments).unwrap_or_default();
            source
                .check(&binding.routing_key, arguments)
                .map_err(|failure| Problem::failed(&failure).about(&about()))?;
        }
        Ok(())
    }
}

/// Makes a change that depends on what there is; again, if that has changed meanwhile.
async fn make(
    node: &Node,
    mut change: impl FnMut(&Topology) -> MetadataChange + Send,
) -> Result<(), Problem> {
    for _ in 0..AMQP_OPERATION_TRIES_MAX {
        let change = node.look(&mut change);
        if change.edits.is_empty() || node.change(change).await? {
            return Ok(());
        }
    }
    Err(Problem::unavailable("others keep changing what this depends on"))
}

fn exchanges(topology: &Topology, some: &[In<ExchangeValue>]) -> MetadataChange {
    let mut change = MetadataChange::default();
    for In { vhost, name, value } in some {
        let is_there = topology.vhost(vhost).is_none_or(|vhost| vhost.exchange(name).is_some());
        if !is_there {
            let key = key(EXCHANGE, &[vhost, name]);
            change.guards.extend([Guard::Entry(key.clone(), None), vhost_exists(vhost)]);
            change.edits.push(Edit::SetEntry { key, value: value.write(), transient: !value.durable });
        }
    }
    change
}

fn queues(topology: &Topology, some: &[In<QueueValue>]) -> MetadataChange {
    let mut change = MetadataChange::default();
    let mut seen = BTreeSet::new();
    for In { vhost, name, value } in some {
        let Some(vhost) = topology.vhost(vhost).filter(|vhost| vhost.queue(name).is_none()) else { continue };
        if !seen.insert((&vhost.name, name)) {
            continue;
        }
        let arguments = Table::from_raw(&value.arguments).unwrap_or_default();
        // It was read before, and made sense.
        let wishes = vhost.with_policies(name, Wishes::read(arguments, "").unwrap_or_default());
        let key = key(QUEUE, &[&vhost.name, name]);
        let new = NewQueue { name: key.key.clone(), durable: value.durable, settings: wishes.settings };
        change.guards.extend([Guard::Entry(key.clone(), None), vhost_exists(&vhost.name)]);
        change.edits.push(Edit::CreateQueue(new));
        change.edits.push(Edit::SetEntry { key, value: value.write(), transient: !value.durable });
    }
    change
}

fn bindings(topology: &Topology, some: &[(Vec<u8>, Binding)]) -> MetadataChange {
    let mut change = MetadataChange::default();
    for (vhost, binding) in some {
        let Some(vhost) = topology.vhost(vhost).filter(|vhost| !vhost.has_binding(binding)) else { continue };
        let Some(source) = vhost.exchange(&binding.source) else { continue };
        let (queue, durable) = match &binding.destination {
            Destination::Queue(name) => match vhost.queue(name) {
                Some(queue) => (Some(queue.id), queue.value.durable),
                None => continue,
            },
            Destination::Exchange(name) => match vhost.exchange(name) {
                Some(exchange) => (None, exchange.value.durable),
                None => continue,
            },
        };
        change.guards.extend(queue.map(Guard::Queue).into_iter().chain([vhost_exists(&vhost.name)]));
        change.edits.push(Edit::SetEntry {
            key: binding.key(&vhost.name),
            value: binding_value(queue),
            transient: !(durable && source.value.durable),
        });
    }
    change
}
