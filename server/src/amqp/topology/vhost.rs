//! One vhost: its exchanges with their bindings, its queues, its permissions and policies.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::config::QueueSettings;
use millstream_engine::shard::metadata;
use millstream_engine::types::{MetadataEpoch, QueueId, ShardId};

use super::arguments::Wishes;
use super::entries::{ApplyTo, Binding, Destination, ExchangeValue, Owner, PolicyValue, QueueValue};
use super::users::Permission;
use crate::amqp::codec::{Table, Value};
use crate::amqp::routing::bindings::{Bindings, ExchangeKind, Target};
use crate::auth::Pattern;

/// The exchanges that every vhost has.
const PREDECLARED: &[(&str, ExchangeKind, &str, bool)] = &[
    ("amq.direct", ExchangeKind::Direct, "direct", false),
    ("amq.fanout", ExchangeKind::Fanout, "fanout", false),
    ("amq.topic", ExchangeKind::Topic, "topic", false),
    ("amq.headers", ExchangeKind::Headers, "headers", false),
    ("amq.match", ExchangeKind::Headers, "headers", false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, "topic", true),
];

/// An exchange.
#[derive(Debug)]
pub struct Exchange {
    /// How it chooses.
    pub kind: ExchangeKind,
    /// What was declared.
    pub value: ExchangeValue,
    /// Since when it is as it is; `None` for those that every vhost has.
    pub version: Option<MetadataEpoch>,
    /// Where what it does not know a way for goes.
    pub alternate: Option<Vec<u8>>,
    /// The bindings that start from it.
    pub bindings: Bindings,
}

/// A queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its incarnation.
    pub id: QueueId,
    /// Its name.
    pub name: Vec<u8>,
    /// The shard that serves it.
    pub shard: ShardId,
    /// What was declared.
    pub value: QueueValue,
    /// Since when it is as it is.
    pub version: MetadataEpoch,
    /// What its arguments say.
    pub wishes: Wishes,
    /// What holds for it now.
    pub settings: QueueSettings,
}

impl Queue {
    /// Whether a connection may use it.
    pub fn is_open_to(&self, owner: Owner) -> bool {
        self.value.owner.is_none_or(|other| other == owner)
    }

    /// Its arguments.
    pub fn arguments(&self) -> Table<'_> {
        Table::from_raw(&self.value.arguments).unwrap_or_default()
    }
}

#[derive(Debug)]
struct Policy {
    value: PolicyValue,
    pattern: Pattern,
}

/// A vhost.
#[derive(Debug)]
pub struct Vhost {
    /// Its name.
    pub name: Vec<u8>,
    exchanges: BTreeMap<Vec<u8>, Exchange>,
    queues: BTreeMap<Vec<u8>, Queue>,
    queue_names: BTreeMap<QueueId, Vec<u8>>,
    /// Every binding, and the incarnation that it leads to, whether its ends exist or not.
    bindings: BTreeMap<Binding, Option<QueueId>>,
    by_destination: BTreeMap<Destination, BTreeSet<Binding>>,
    permissions: BTreeMap<Vec<u8>, Permission>,
    policies: BTreeMap<Vec<u8>, Policy>,
    operator_policies: BTreeMap<Vec<u8>, Policy>,
}

impl Vhost {
    /// A vhost with what every vhost has.
    pub fn new(name: Vec<u8>) -> Vhost {
        let exchanges = PREDECLARED.iter().map(|(name, kind, kind_name, internal)| {
            let value = ExchangeValue {
                kind: kind_name.as_bytes().to_vec(),
                durable: true,
                auto_delete: false,
                internal: *internal,
                arguments: Vec::new(),
            };
            let bindings = Bindings::new(*kind, Table::default());
            let exchange = Exchange { kind: *kind, value, version: None, alternate: None, bindings };
            (name.as_bytes().to_vec(), exchange)
        });
        Vhost {
            name,
            exchanges: exchanges.collect(),
            queues: BTreeMap::new(),
            queue_names: BTreeMap::new(),
            bindings: BTreeMap::new(),
            by_destination: BTreeMap::new(),
            permissions: BTreeMap::new(),
            policies: BTreeMap::new(),
            operator_policies: BTreeMap::new(),
        }
    }

    /// The exchange of that name; the default one is none.
    pub fn exchange(&self, name: &[u8]) -> Option<&Exchange> {
        self.exchanges.get(name)
    }

    /// Every exchange but the default one, by name.
    pub fn exchanges(&self) -> impl ExactSizeIterator<Item = (&Vec<u8>, &Exchange)> {
        self.exchanges.iter()
    }

    /// The queue of that name.
    pub fn queue(&self, name: &[u8]) -> Option<&Queue> {
        self.queues.get(name)
    }

    /// The queue of that incarnation.
    pub fn queue_by_id(&self, id: QueueId) -> Option<&Queue> {
        self.queue(self.queue_names.get(&id)?)
    }

    /// Every queue.
    pub fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.queues.values()
    }

    /// The bindings that lead somewhere.
    pub fn bindings_to<'v>(
        &'v self,
        destination: &Destination,
    ) -> impl Iterator<Item = &'v Binding> + use<'v> {
        self.by_destination.get(destination).into_iter().flatten()
    }

    /// The bindings that start from an exchange.
    pub fn bindings_from(&self, source: &[u8]) -> impl Iterator<Item = &Binding> {
        let first = Binding {
            source: source.to_vec(),
            destination: Destination::Queue(Vec::new()),
            routing_key: Vec::new(),
            arguments: Vec::new(),
        };
        self.bindings
            .range(first..)
            .map(|(binding, _)| binding)
            .take_while(move |binding| binding.source == source)
    }

    /// Every binding, whether its ends exist or not.
    pub fn bindings(&self) -> impl ExactSizeIterator<Item = &Binding> {
        self.bindings.keys()
    }

    /// Whether there is such a binding, and it leads somewhere.
    pub fn has_binding(&self, binding: &Binding) -> bool {
        self.bindings.get(binding).is_some_and(|queue| self.has_ends(binding, *queue))
    }

    fn has_ends(&self, binding: &Binding, queue: Option<QueueId>) -> bool {
        self.exchanges.contains_key(&binding.source)
            && match &binding.destination {
                Destination::Queue(name) => self.queue(name).is_some_and(|there| Some(there.id) == queue),
                Destination::Exchange(name) => self.exchanges.contains_key(name),
            }
    }

    /// Whether there is such a binding, and it leads nowhere or starts from nowhere: no client can see it, and it should go.
    pub fn is_loose(&self, binding: &Binding) -> bool {
        self.bindings.get(binding).is_some_and(|queue| !self.has_ends(binding, *queue))
    }

    /// What a user may do here.
    pub fn permission(&self, user: &[u8]) -> Option<&Permission> {
        self.permissions.get(user)
    }

    pub(super) fn set_exchange(&mut self, name: Vec<u8>, value: ExchangeValue, version: MetadataEpoch) {
        let Some(kind) = ExchangeKind::named(&value.kind) else { return };
        let arguments = Table::from_raw(&value.arguments).unwrap_or_default();
        let alternate = self.alternate(&name, &value);
        let mut bindings = Bindings::new(kind, arguments);
        for binding in self.bindings_from(&name) {
            let queue = self.bindings.get(binding).copied().flatten();
            bindings.insert(binding, Target { destination: binding.destination.clone(), queue });
        }
        self.exchanges.insert(name, Exchange { kind, value, version: Some(version), alternate, bindings });
    }

    pub(super) fn remove_exchange(&mut self, name: &[u8]) {
        self.exchanges.remove(name);
    }

    pub(super) fn set_queue(
        &mut self,
        name: Vec<u8>,
        queue: &metadata::Queue,
        shard: ShardId,
        value: QueueValue,
        version: MetadataEpoch,
    ) {
        let arguments = Table::from_raw(&value.arguments).unwrap_or_default();
        let wishes = Wishes::read(arguments, "").unwrap_or_default();
        let wishes = self.with_policies(&name, wishes);
        let settings = queue.settings.clone();
        self.queue_names.insert(queue.id, name.clone());
        self.queues
            .insert(name.clone(), Queue { id: queue.id, name, shard, value, version, wishes, settings });
    }

    pub(super) fn remove_queue(&mut self, name: &[u8]) -> Option<Queue> {
        let queue = self.queues.remove(name)?;
        self.queue_names.remove(&queue.id);
        Some(queue)
    }

    pub(super) fn set_binding(&mut self, binding: Binding, queue: Option<QueueId>) {
        if let Some(exchange) = self.exchanges.get_mut(&binding.source) {
            exchange.bindings.insert(&binding, Target { destination: binding.destination.clone(), queue });
        }
        self.by_destination.entry(binding.destination.clone()).or_default().insert(binding.clone());
        self.bindings.insert(binding, queue);
    }

    pub(super) fn remove_binding(&mut self, binding: &Binding) {
        let Some(queue) = self.bindings.remove(binding) else { return };
        if let Some(exchange) = self.exchanges.get_mut(&binding.source) {
            exchange.bindings.remove(binding, &Target { destination: binding.destination.clone(), queue });
        }
        if let Some(others) = self.by_destination.get_mut(&binding.destination) {
            others.remove(binding);
            if others.is_empty() {
                self.by_destination.remove(&binding.destination);
            }
        }
    }

    pub(super) fn set_permission(&mut self, user: Vec<u8>, permission: Option<Permission>) {
        match (permission, self.permissions.get_mut(&user)) {
            (Some(permission), Some(old)) => old.replace(permission),
            (Some(permission), None) => drop(self.permissions.insert(user, permission)),
            (None, _) => drop(self.permissions.remove(&user)),
        }
    }

    pub(super) fn set_topic_permission(
        &mut self,
        user: &[u8],
        exchange: Vec<u8>,
        patterns: Option<(Pattern, Pattern)>,
    ) {
        if let Some(permission) = self.permissions.get_mut(user) {
            permission.set_topic(exchange, patterns);
        }
    }

    pub(super) fn set_policy(&mut self, operator: bool, name: Vec<u8>, value: Option<PolicyValue>) {
        let policies = if operator { &mut self.operator_policies } else { &mut self.policies };
        match value {
            Some(value) => {
                let pattern = Pattern::new(&value.pattern);
                policies.insert(name, Policy { value, pattern });
            }
            None => drop(policies.remove(&name)),
        }
        let alternates: Vec<(Vec<u8>, Option<Vec<u8>>)> = self
            .exchanges
            .iter()
            .map(|(name, exchange)| (name.clone(), self.alternate(name, &exchange.value)))
            .collect();
        for (name, alternate) in alternates {
            if let Some(exchange) = self.exchanges.get_mut(&name) {
                exchange.alternate = alternate;
            }
        }
        let names: Vec<Vec<u8>> = self.queues.keys().cloned().collect();
        for name in names {
            let own =
                self.queues.get(&name).map(|queue| Wishes::read(queue.arguments(), "").unwrap_or_default());
            let wishes = self.with_policies(&name, own.unwrap_or_default());
            if let Some(queue) = self.queues.get_mut(&name) {
                queue.wishes = wishes;
            }
        }
    }

    fn policy<'v>(
        policies: &'v BTreeMap<Vec<u8>, Policy>,
        name: &[u8],
        fits: impl Fn(ApplyTo) -> bool,
    ) -> Option<Table<'v>> {
        let fitting =
            policies.values().filter(|policy| fits(policy.value.apply_to) && policy.pattern.fits(name));
        let highest = fitting.max_by_key(|policy| policy.value.priority)?;
        Table::from_raw(&highest.value.definition).ok()
    }

    /// What holds for a queue: what its arguments say, and the policies under that.
    pub fn with_policies(&self, name: &[u8], own: Wishes) -> Wishes {
        let fits = |apply_to| match apply_to {
            ApplyTo::All | ApplyTo::Queues => true,
            ApplyTo::ClassicQueues => !own.quorum,
            ApplyTo::QuorumQueues => own.quorum,
            ApplyTo::Exchanges => false,
        };
        let policies = [&self.policies, &self.operator_policies];
        let under: Vec<Wishes> = policies
            .iter()
            .filter_map(|policies| Vhost::policy(policies, name, fits))
            .map(Wishes::of_policy)
            .collect();
        under.iter().fold(own, Wishes::over)
    }

    /// Where what an exchange knows no way for goes: what its arguments say, else what a policy does.
    fn alternate(&self, name: &[u8], value: &ExchangeValue) -> Option<Vec<u8>> {
        let arguments = Table::from_raw(&value.arguments).unwrap_or_default();
        if let Some(own) = arguments.get(b"alternate-exchange").and_then(Value::string) {
            return Some(own.to_vec());
        }
        let fits = |apply_to| matches!(apply_to, ApplyTo::All | ApplyTo::Exchanges);
        let policy = Vhost::policy(&self.policies, name, fits)?;
        policy.get(b"alternate-exchange").and_then(Value::string).map(<[u8]>::to_vec)
    }
}
