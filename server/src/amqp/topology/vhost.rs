//! One vhost: its exchanges with their bindings, its queues, its permissions and policies.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::config::QueueSettings;
use millstream_engine::shard::metadata;
use millstream_engine::types::{MetadataEpoch, QueueId, ShardId};

use super::arguments::Wishes;
use super::entries::{ApplyTo, Binding, Destination, ExchangeValue, Owner, PolicyValue, QueueValue};
use super::limits::Limits;
use super::users::{Permission, Topics};
use crate::amqp::codec::{Table, TableWriter, Value};
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

/// The policies that hold for something.
#[derive(Clone, Debug, Default)]
pub struct Effective<'v> {
    /// The policy's name.
    pub policy: Option<&'v [u8]>,
    /// The name of the policy that can only tighten.
    pub operator_policy: Option<&'v [u8]>,
    /// What both say together, a table's content.
    pub definition: Vec<u8>,
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
    /// By user, whether the user has a permission or not.
    topic_permissions: BTreeMap<Vec<u8>, Topics>,
    policies: BTreeMap<Vec<u8>, Policy>,
    operator_policies: BTreeMap<Vec<u8>, Policy>,
    /// How much there may be.
    pub limits: Limits,
    /// What policies are still to be looked up for, after they have changed.
    renewal: Option<Renewal>,
}

/// How far it is: from this name on.
#[derive(Debug)]
enum Renewal {
    /// Exchanges, and then all queues.
    Exchanges(Vec<u8>),
    /// Queues.
    Queues(Vec<u8>),
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
            topic_permissions: BTreeMap::new(),
            policies: BTreeMap::new(),
            operator_policies: BTreeMap::new(),
            limits: Limits::default(),
            renewal: None,
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
    pub fn queues(&self) -> impl ExactSizeIterator<Item = &Queue> {
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
        match permission {
            Some(mut permission) => {
                permission.set_topics(self.topic_permissions.get(&user).cloned().unwrap_or_default());
                self.permissions.insert(user, permission);
            }
            None => drop(self.permissions.remove(&user)),
        }
    }

    pub(super) fn set_topic_permission(
        &mut self,
        user: &[u8],
        exchange: Vec<u8>,
        patterns: Option<(Pattern, Pattern)>,
    ) {
        let topics = self.topic_permissions.entry(user.to_vec()).or_default();
        match patterns {
            Some(patterns) => drop(topics.insert(exchange, patterns)),
            None => drop(topics.remove(&exchange)),
        }
        if let Some(permission) = self.permissions.get_mut(user) {
            permission.set_topics(topics.clone());
        }
        if topics.is_empty() {
            self.topic_permissions.remove(user);
        }
    }

    pub(super) fn set_policy(&mut self, operator: bool, name: Vec<u8>, value: Option<PolicyValue>) {
        let policies = if operator { &mut self.operator_policies } else { &mut self.policies };
        match value {
            Some(value) => {
                let pattern = Pattern::of_policy(&value.pattern);
                policies.insert(name, Policy { value, pattern });
            }
            None => drop(policies.remove(&name)),
        }
        self.renewal = Some(Renewal::Exchanges(Vec::new()));
    }

    /// Whether policies have changed, and are not looked up for everything yet.
    pub(super) fn is_stale(&self) -> bool {
        self.renewal.is_some()
    }

    /// Looks up which policies hold, for some exchanges and queues, one behind the other: so many policies are looked at. Gives the queues for
    /// which other settings are to hold.
    pub(super) fn renew(&mut self, looks: &mut usize) -> Vec<Vec<u8>> {
        let mut changed = Vec::new();
        let each = 1 + self.policies.len() + self.operator_policies.len();
        while *looks > 0
            && let Some(renewal) = self.renewal.take()
        {
            *looks = looks.saturating_sub(each);
            match renewal {
                Renewal::Exchanges(from) => match self.exchanges.range(from..).next() {
                    Some((name, exchange)) => {
                        let (name, alternate) = (name.clone(), self.alternate(name, &exchange.value));
                        self.renewal = Some(Renewal::Exchanges(behind(&name)));
                        if let Some(exchange) = self.exchanges.get_mut(&name) {
                            exchange.alternate = alternate;
                        }
                    }
                    None => self.renewal = Some(Renewal::Queues(Vec::new())),
                },
                Renewal::Queues(from) => {
                    let Some((name, queue)) = self.queues.range(from..).next() else { break };
                    let own = Wishes::read(queue.arguments(), "").unwrap_or_default();
                    let (name, wishes) = (name.clone(), self.with_policies(name, own));
                    self.renewal = Some(Renewal::Queues(behind(&name)));
                    if let Some(queue) = self.queues.get_mut(&name) {
                        queue.wishes = wishes;
                        if queue.settings != queue.wishes.settings {
                            changed.push(name);
                        }
                    }
                }
            }
        }
        changed
    }

    /// Of the policies that fit, the one that holds: the highest; of several, the first by name.
    fn policy<'v>(
        policies: &'v BTreeMap<Vec<u8>, Policy>,
        name: &[u8],
        fits: impl Fn(ApplyTo) -> bool,
    ) -> Option<(&'v [u8], Table<'v>)> {
        let fitting =
            policies.iter().filter(|(_, policy)| fits(policy.value.apply_to) && policy.pattern.fits(name));
        let (name, highest) = fitting.rev().max_by_key(|(_, policy)| policy.value.priority)?;
        Some((name, Table::from_raw(&highest.value.definition).ok()?))
    }

    fn policies_of_queue(&self, name: &[u8], quorum: bool) -> Effective<'_> {
        let fits = |apply_to| match apply_to {
            ApplyTo::All | ApplyTo::Queues => true,
            ApplyTo::ClassicQueues => !quorum,
            ApplyTo::QuorumQueues => quorum,
            ApplyTo::Exchanges => false,
        };
        let policy = Vhost::policy(&self.policies, name, fits);
        let operator = Vhost::policy(&self.operator_policies, name, fits);
        let definition =
            |policy: Option<(_, Table<'_>)>| policy.map(|(_, definition)| definition.raw().to_vec());
        Effective {
            policy: policy.map(|(name, _)| name),
            operator_policy: operator.map(|(name, _)| name),
            definition: match (policy, operator) {
                (Some((_, policy)), Some((_, operator))) => merged(policy, operator),
                (one, other) => definition(one).or(definition(other)).unwrap_or_default(),
            },
        }
    }

    /// The policies that hold for a queue.
    pub fn queue_policies(&self, queue: &Queue) -> Effective<'_> {
        self.policies_of_queue(&queue.name, queue.wishes.quorum)
    }

    /// The name of the policy that holds for an exchange.
    pub fn exchange_policy(&self, name: &[u8]) -> Option<&[u8]> {
        let fits = |apply_to| matches!(apply_to, ApplyTo::All | ApplyTo::Exchanges);
        Some(Vhost::policy(&self.policies, name, fits)?.0)
    }

    /// Its policies, or those that can only tighten, by name.
    pub fn policies(&self, operator: bool) -> impl Iterator<Item = (&Vec<u8>, &PolicyValue)> {
        let policies = if operator { &self.operator_policies } else { &self.policies };
        policies.iter().map(|(name, policy)| (name, &policy.value))
    }

    /// The policy of that name.
    pub fn policy_named(&self, operator: bool, name: &[u8]) -> Option<&PolicyValue> {
        let policies = if operator { &self.operator_policies } else { &self.policies };
        Some(&policies.get(name)?.value)
    }

    /// What holds for a queue: what its arguments say, and the policies under that.
    pub fn with_policies(&self, name: &[u8], own: Wishes) -> Wishes {
        let effective = self.policies_of_queue(name, own.quorum);
        if effective.definition.is_empty() {
            return own;
        }
        own.over(&Wishes::of_policy(Table::from_raw(&effective.definition).unwrap_or_default()))
    }

    /// Where what an exchange knows no way for goes: what its arguments say, else what a policy does.
    fn alternate(&self, name: &[u8], value: &ExchangeValue) -> Option<Vec<u8>> {
        let arguments = Table::from_raw(&value.arguments).unwrap_or_default();
        if let Some(own) = arguments.get(b"alternate-exchange").and_then(Value::string) {
            return Some(own.to_vec());
        }
        let fits = |apply_to| matches!(apply_to, ApplyTo::All | ApplyTo::Exchanges);
        let (_, policy) = Vhost::policy(&self.policies, name, fits)?;
        policy.get(b"alternate-exchange").and_then(Value::string).map(<[u8]>::to_vec)
    }
}

/// The first name behind this one.
fn behind(name: &[u8]) -> Vec<u8> {
    [name, &[0]].concat()
}

/// Two policies as one: of two numbers the lower one holds, else what the one says that can only tighten.
fn merged(policy: Table<'_>, operator: Table<'_>) -> Vec<u8> {
    let mut both = TableWriter::default();
    for (name, value) in policy.iter() {
        let value = match (value.integer(), operator.get(name)) {
            (_, None) => value,
            (Some(own), Some(other)) if other.integer().is_some_and(|other| own <= other) => value,
            (_, Some(other)) => other,
        };
        both.put(name, value);
    }
    for (name, value) in operator.iter().filter(|(name, _)| policy.get(name).is_none()) {
        both.put(name, value);
    }
    both.into_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(
        vhost: &mut Vhost,
        operator: bool,
        name: &str,
        (pattern, priority): (&str, i32),
        definition: &TableWriter,
    ) {
        let value = PolicyValue {
            pattern: pattern.as_bytes().to_vec(),
            apply_to: ApplyTo::Queues,
            priority,
            definition: definition.table().raw().to_vec(),
        };
        vhost.set_policy(operator, name.as_bytes().to_vec(), Some(value));
    }

    #[test]
    fn the_highest_policy_holds_and_an_operators_tightens_it() {
        let mut vhost = Vhost::new(b"/".to_vec());
        let low = TableWriter::default().with("max-length", Value::I64(10));
        let high = TableWriter::default()
            .with("max-length", Value::I64(50))
            .with("overflow", Value::String(b"reject-publish"))
            .with("message-ttl", Value::I64(7));
        let operator = TableWriter::default()
            .with("max-length", Value::I64(20))
            .with("expires", Value::I64(1000))
            .with("message-ttl", Value::I64(9))
            .with("overflow", Value::String(b"drop-head"));
        set(&mut vhost, false, "low", ("^q", 1), &low);
        set(&mut vhost, false, "high", ("^q", 2), &high);
        set(&mut vhost, false, "other", ("^x", 9), &low);
        set(&mut vhost, true, "o", ("", 0), &operator);
        assert!(vhost.policies_of_queue(b"z", false).operator_policy.is_some());
        set(&mut vhost, true, "o", ("q", 0), &operator);
        let held = vhost.policies_of_queue(b"q1", false);
        assert_eq!((held.policy, held.operator_policy), (Some(&b"high"[..]), Some(&b"o"[..])));
        let definition = Table::from_raw(&held.definition).unwrap();
        let found: Vec<_> = definition.iter().map(|(name, value)| (name, value.integer())).collect();
        let expected = [
            (&b"max-length"[..], Some(20)),
            (b"overflow", None),
            (b"message-ttl", Some(7)),
            (b"expires", Some(1000)),
        ];
        assert_eq!(found, expected);
        assert_eq!(definition.get(b"overflow"), Some(Value::String(b"drop-head")));
        let wishes = vhost.with_policies(b"q1", Wishes::default());
        assert_eq!(wishes.settings.max_messages, Some(20));
        vhost.set_policy(false, b"high".to_vec(), None);
        assert_eq!(vhost.policies_of_queue(b"q1", false).policy, Some(&b"low"[..]));
        assert!(vhost.policies_of_queue(b"z", false).policy.is_none());
    }

    #[test]
    fn policies_are_looked_up_for_so_many_things_at_a_time() {
        let mut vhost = Vhost::new(b"/".to_vec());
        for number in 0..40_u8 {
            let queue = metadata::Queue {
                id: QueueId([number; 16]),
                name: vec![number],
                durable: true,
                slot: millstream_engine::types::Slot(0),
                settings: QueueSettings::default(),
            };
            let value = QueueValue { durable: true, auto_delete: false, owner: None, arguments: Vec::new() };
            vhost.set_queue(vec![number], &queue, ShardId(0), value, MetadataEpoch(1));
        }
        let limit = |most| TableWriter::default().with("max-length", Value::I64(most));
        let all = |vhost: &mut Vhost| {
            let (mut changed, mut steps) = (Vec::new(), 0);
            while vhost.is_stale() {
                let some = vhost.renew(&mut 20);
                assert!(some.len() <= 10, "{} at once", some.len());
                changed.extend(some);
                steps += 1;
            }
            (changed.len(), steps)
        };
        set(&mut vhost, false, "p", ("", 1), &limit(5));
        // Two looks for each of 40 queues and 6 exchanges, and at each end.
        assert_eq!(all(&mut vhost), (40, 5));
        // A change in the middle begins anew, and all of it holds in the end.
        set(&mut vhost, false, "p", ("", 1), &limit(6));
        vhost.renew(&mut 60);
        set(&mut vhost, true, "o", ("", 1), &limit(3));
        assert_eq!(all(&mut vhost).0, 40);
        assert!(vhost.queues().all(|queue| queue.wishes.settings.max_messages == Some(3)));
        assert!(!vhost.is_stale() && vhost.renew(&mut 20).is_empty());
    }
}
