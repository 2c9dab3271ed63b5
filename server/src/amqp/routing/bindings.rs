//! The bindings of one exchange, arranged as its type asks for them.

use std::collections::BTreeMap;

use millstream_engine::types::QueueId;

use super::hash::{hash, jump};
use super::headers::{self, HeaderIndex};
use super::topic::Trie;
use crate::amqp::codec::{Properties, Table, Value};
use crate::amqp::error::Failure;
use crate::amqp::topology::entries::{Binding, Destination};
use crate::limits::AMQP_HASH_WEIGHT_MAX;

/// The types of exchanges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExchangeKind {
    /// The key is the binding's.
    Direct,
    /// Everything goes everywhere.
    Fanout,
    /// The key fits the binding's pattern.
    Topic,
    /// The headers fit the binding's arguments.
    Headers,
    /// To one of the bindings, by weight, the same one for the same key.
    ConsistentHash,
    /// To one of the bindings, any.
    Random,
}

impl ExchangeKind {
    /// The type of that name.
    pub fn named(name: &[u8]) -> Option<ExchangeKind> {
        Some(match name {
            b"direct" => ExchangeKind::Direct,
            b"fanout" => ExchangeKind::Fanout,
            b"topic" => ExchangeKind::Topic,
            b"headers" => ExchangeKind::Headers,
            b"x-consistent-hash" => ExchangeKind::ConsistentHash,
            b"x-random" => ExchangeKind::Random,
            _ => return None,
        })
    }

    /// Whether a binding makes sense at an exchange of this type.
    pub fn check(self, routing_key: &[u8], arguments: Table<'_>) -> Result<(), Failure> {
        match self {
            ExchangeKind::Headers => headers::check(arguments),
            ExchangeKind::ConsistentHash => weight(routing_key).map(|_| ()).ok_or_else(|| {
                let key = String::from_utf8_lossy(routing_key);
                Failure::precondition(format!(
                    "invalid binding key '{key}': it has to be a number from 1 to {AMQP_HASH_WEIGHT_MAX}"
                ))
            }),
            ExchangeKind::Direct | ExchangeKind::Fanout | ExchangeKind::Topic | ExchangeKind::Random => {
                Ok(())
            }
        }
    }
}

fn weight(routing_key: &[u8]) -> Option<u64> {
    let weight = std::str::from_utf8(routing_key).ok()?.parse().ok()?;
    (1..=AMQP_HASH_WEIGHT_MAX).contains(&weight).then_some(weight)
}

/// What a binding leads to. A queue is meant by its incarnation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Target {
    /// Where.
    pub destination: Destination,
    /// The incarnation, if that is a queue.
    pub queue: Option<QueueId>,
}

/// What a message brings for an exchange to choose by.
#[derive(Clone, Copy, Debug)]
pub struct Addressed<'a> {
    /// Its routing key.
    pub key: &'a [u8],
    /// Its properties.
    pub properties: &'a Properties<'a>,
    /// A number that nobody can foretell.
    pub random: u64,
}

/// The bindings of one exchange.
#[derive(Clone, Debug)]
pub struct Bindings {
    count: usize,
    index: Index,
}

#[derive(Clone, Debug)]
enum Index {
    Direct(BTreeMap<Vec<u8>, Vec<Target>>),
    Fanout(Vec<Target>),
    Topic(Trie<Target>),
    Headers(HeaderIndex),
    Hash { by: HashBy, weights: BTreeMap<Target, u64> },
    Random(Vec<Target>),
}

/// What a message is spread by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HashBy {
    /// Its routing key.
    Key,
    /// One of its headers.
    Header(Vec<u8>),
    /// Its message id.
    MessageId,
    /// Its correlation id.
    CorrelationId,
    /// Its timestamp.
    Timestamp,
}

impl HashBy {
    /// What an exchange's arguments say.
    pub fn read(arguments: Table<'_>) -> Result<HashBy, Failure> {
        match (arguments.get(b"hash-header"), arguments.get(b"hash-property")) {
            (None | Some(Value::String(b"")), None) => Ok(HashBy::Key),
            (Some(Value::String(name)), None) => Ok(HashBy::Header(name.to_vec())),
            (None, Some(Value::String(b"message_id"))) => Ok(HashBy::MessageId),
            (None, Some(Value::String(b"correlation_id"))) => Ok(HashBy::CorrelationId),
            (None, Some(Value::String(b"timestamp"))) => Ok(HashBy::Timestamp),
            _ => Err(Failure::precondition(
                "Unsupported property: hash-header takes a header's name, hash-property message_id, correlation_id or timestamp, \
                 and there is one of both at most",
            )),
        }
    }

    fn hash(&self, addressed: Addressed<'_>) -> u64 {
        let properties = addressed.properties;
        match self {
            HashBy::Key => hash(addressed.key),
            HashBy::Header(name) => match properties.headers.and_then(|headers| headers.get(name)) {
                Some(Value::String(value) | Value::Bytes(value)) => hash(value),
                Some(value) => hash(&value.integer().unwrap_or(0).to_be_bytes()),
                None => hash(&[]),
            },
            HashBy::MessageId => hash(properties.message_id.unwrap_or_default()),
            HashBy::CorrelationId => hash(properties.correlation_id.unwrap_or_default()),
            HashBy::Timestamp => hash(&properties.timestamp.unwrap_or(0).to_be_bytes()),
        }
    }
}

impl Bindings {
    /// No bindings, of an exchange with these arguments.
    pub fn new(kind: ExchangeKind, arguments: Table<'_>) -> Bindings {
        let index = match kind {
            ExchangeKind::Direct => Index::Direct(BTreeMap::new()),
            ExchangeKind::Fanout => Index::Fanout(Vec::new()),
            ExchangeKind::Topic => Index::Topic(Trie::default()),
            ExchangeKind::Headers => Index::Headers(HeaderIndex::default()),
            ExchangeKind::ConsistentHash => {
                let by = HashBy::read(arguments).unwrap_or(HashBy::Key);
                Index::Hash { by, weights: BTreeMap::new() }
            }
            ExchangeKind::Random => Index::Random(Vec::new()),
        };
        Bindings { count: 0, index }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the way of a message depends on its key alone.
    pub fn by_key_alone(&self) -> bool {
        match &self.index {
            Index::Direct(_) | Index::Fanout(_) | Index::Topic(_) => true,
            Index::Hash { by, .. } => *by == HashBy::Key,
            Index::Headers(_) | Index::Random(_) => false,
        }
    }

    /// Adds a binding. One that is there already is another one's.
    pub fn insert(&mut self, binding: &Binding, target: Target) {
        self.count += 1;
        match &mut self.index {
            Index::Direct(keys) => keys.entry(binding.routing_key.clone()).or_default().push(target),
            Index::Fanout(targets) | Index::Random(targets) => targets.push(target),
            Index::Topic(trie) => trie.insert(&binding.routing_key, target),
            Index::Headers(index) => index.insert(&binding.arguments, target),
            Index::Hash { weights, .. } => {
                *weights.entry(target).or_default() += weight(&binding.routing_key).unwrap_or(1);
            }
        }
    }

    /// Takes out a binding that is there.
    pub fn remove(&mut self, binding: &Binding, target: &Target) {
        fn take<T>(values: &mut Vec<T>, is: impl Fn(&T) -> bool) {
            if let Some(index) = values.iter().position(is) {
                values.swap_remove(index);
            }
        }
        self.count -= 1;
        match &mut self.index {
            Index::Direct(keys) => {
                if let Some(targets) = keys.get_mut(&binding.routing_key) {
                    take(targets, |other| other == target);
                    if targets.is_empty() {
                        keys.remove(&binding.routing_key);
                    }
                }
            }
            Index::Fanout(targets) | Index::Random(targets) => take(targets, |other| other == target),
            Index::Topic(trie) => trie.remove(&binding.routing_key, target),
            Index::Headers(index) => index.remove(&binding.arguments, target),
            Index::Hash { weights, .. } => {
                let left = weights.get(target).copied().unwrap_or(0);
                match left.saturating_sub(weight(&binding.routing_key).unwrap_or(1)) {
                    0 => drop(weights.remove(target)),
                    left => drop(weights.insert(target.clone(), left)),
                }
            }
        }
    }

    /// Whether a message goes elsewhere by another key.
    pub fn heeds_key(&self) -> bool {
        match &self.index {
            Index::Direct(_) | Index::Topic(_) => true,
            Index::Hash { by, .. } => *by == HashBy::Key,
            Index::Fanout(_) | Index::Headers(_) | Index::Random(_) => false,
        }
    }

    /// Goes through what the bindings lead to that fit a message; what several lead to comes as often. Gives how much was looked at,
    /// beside what was found.
    pub fn matches<'b>(&'b self, addressed: Addressed<'_>, mut found: impl FnMut(&'b Target)) -> usize {
        match &self.index {
            Index::Direct(keys) => keys.get(addressed.key).into_iter().flatten().for_each(found),
            Index::Fanout(targets) => targets.iter().for_each(found),
            Index::Topic(trie) => return trie.matches(addressed.key, found),
            Index::Headers(index) => {
                return index.matches(addressed.properties.headers.unwrap_or_default(), found);
            }
            Index::Hash { by, weights } => {
                let all: u64 = weights.values().sum();
                if all > 0 {
                    let mut place = jump(by.hash(addressed), all);
                    let chosen = weights.iter().find(|(_, weight)| {
                        let here = place < **weight;
                        place = place.saturating_sub(**weight);
                        here
                    });
                    if let Some((target, _)) = chosen {
                        found(target);
                    }
                }
                return weights.len();
            }
            Index::Random(targets) => {
                if let Some(target) = addressed
                    .random
                    .checked_rem(targets.len() as u64)
                    .and_then(|place| targets.get(place as usize))
                {
                    found(target);
                }
            }
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> Target {
        Target { destination: Destination::Queue(name.into()), queue: Some(QueueId([0; 16])) }
    }

    fn binding(key: &str, to: &str) -> Binding {
        Binding {
            source: b"x".to_vec(),
            destination: Destination::Queue(to.into()),
            routing_key: key.into(),
            arguments: Vec::new(),
        }
    }

    fn found(bindings: &Bindings, key: &str) -> Vec<String> {
        let mut found = Vec::new();
        let properties = Properties::default();
        let addressed = Addressed { key: key.as_bytes(), properties: &properties, random: 5 };
        bindings.matches(addressed, |target| {
            found.push(String::from_utf8_lossy(target.destination.name()).into_owned());
        });
        found
    }

    #[test]
    fn every_type_finds_what_was_bound_and_forgets_what_was_unbound() {
        for kind in [
            ExchangeKind::Direct,
            ExchangeKind::Fanout,
            ExchangeKind::Topic,
            ExchangeKind::Headers,
            ExchangeKind::ConsistentHash,
            ExchangeKind::Random,
        ] {
            let mut bindings = Bindings::new(kind, Table::default());
            bindings.insert(&binding("1", "q"), target("q"));
            bindings.insert(&binding("2", "r"), target("r"));
            bindings.remove(&binding("2", "r"), &target("r"));
            assert_eq!(found(&bindings, "1"), ["q"], "{kind:?}");
            assert_eq!(bindings.len(), 1);
            bindings.remove(&binding("1", "q"), &target("q"));
            assert_eq!(found(&bindings, "1"), [""; 0], "{kind:?}");
            assert!(bindings.is_empty());
        }
    }

    #[test]
    fn weights_share_out_the_keys() {
        let mut bindings = Bindings::new(ExchangeKind::ConsistentHash, Table::default());
        bindings.insert(&binding("1", "q"), target("q"));
        bindings.insert(&binding("3", "r"), target("r"));
        let to_r = (0..1_000).filter(|key| found(&bindings, &key.to_string()) == ["r"]).count();
        assert!((650..850).contains(&to_r), "{to_r}");
    }
}
