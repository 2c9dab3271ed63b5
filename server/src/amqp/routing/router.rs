//! The walk from an exchange to queues, and what was found before, as long as nothing has changed.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use millstream_engine::few::Few;
use millstream_engine::types::{MetadataEpoch, QueueId, ShardId};

use super::bindings::Addressed;
use super::hash::{Hashed, hash};
use crate::amqp::codec::Properties;
use crate::amqp::topology::entries::Destination;
use crate::amqp::topology::{Topology, Vhost};
use crate::limits::{AMQP_ROUTES_CACHED, AMQP_ROUTES_CACHED_QUEUES};

/// Where a message goes: the queues of each shard, every one of them once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// By shard, in order.
    pub shards: Vec<(ShardId, Few<QueueId>)>,
}

impl Route {
    /// A route to these queues.
    pub fn of(queues: &BTreeSet<(ShardId, QueueId)>) -> Route {
        let mut shards: Vec<(ShardId, Vec<QueueId>)> = Vec::new();
        for (shard, queue) in queues {
            match shards.last_mut() {
                Some((last, queues)) if last == shard => queues.push(*queue),
                _ => shards.push((*shard, vec![*queue])),
            }
        }
        Route { shards: shards.into_iter().map(|(shard, queues)| (shard, queues.into())).collect() }
    }

    /// How many queues it leads to.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|(_, queues)| queues.len()).sum()
    }

    /// Whether it leads nowhere.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }
}

/// Finds all queues that a message goes to which was published to an exchange by several keys; says whether that depends on the
/// keys alone, and adds to `work` how much it has looked at. The exchange exists.
pub fn walk(
    vhost: &Vhost,
    exchange: &[u8],
    keys: &[&[u8]],
    properties: &Properties<'_>,
    random: u64,
    queues: &mut BTreeSet<(ShardId, QueueId)>,
    work: &mut usize,
) -> bool {
    let mut by_key_alone = true;
    let mut seen: BTreeSet<&[u8]> = BTreeSet::from([exchange]);
    let mut next: Vec<&[u8]> = vec![exchange];
    while let Some(name) = next.pop() {
        if name.is_empty() {
            let named = keys.iter().filter_map(|key| vhost.queue(key));
            queues.extend(named.map(|queue| (queue.shard, queue.id)));
            continue;
        }
        let Some(exchange) = vhost.exchange(name) else { continue };
        by_key_alone &= exchange.bindings.by_key_alone();
        let mut found = 0;
        let keys = if exchange.bindings.heeds_key() { keys } else { keys.get(..1).unwrap_or_default() };
        for key in keys {
            *work += exchange.bindings.matches(Addressed { key, properties, random }, |target| {
                found += 1;
                match &target.destination {
                    Destination::Queue(name) => {
                        let queue = vhost.queue(name).filter(|queue| Some(queue.id) == target.queue);
                        queues.extend(queue.map(|queue| (queue.shard, queue.id)));
                    }
                    Destination::Exchange(name) => {
                        if seen.insert(name) {
                            next.push(name);
                        }
                    }
                }
            });
        }
        *work += found;
        if found == 0
            && let Some(alternate) = &exchange.alternate
            // The default exchange is nobody's alternate, as in RabbitMQ.
            && !alternate.is_empty()
            && seen.insert(alternate)
        {
            next.push(alternate);
        }
    }
    by_key_alone
}

/// What a message says of where it is to go.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The exchange that it is published to.
    pub exchange: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
    /// The keys in its headers.
    pub more_keys: &'a [&'a [u8]],
    /// Its properties.
    pub properties: &'a Properties<'a>,
    /// A number that nobody can foretell.
    pub random: u64,
}

/// A route that was found, and when: it holds no longer than the topology stays as it was.
#[derive(Debug)]
struct Found {
    epoch: MetadataEpoch,
    vhost: Vec<u8>,
    exchange: Vec<u8>,
    key: Vec<u8>,
    route: Arc<Route>,
}

/// Routes that were found. What depends on more than the key is not kept.
#[derive(Debug, Default)]
pub struct Router {
    /// By a hash of the names.
    found: HashMap<u64, Found, BuildHasherDefault<Hashed>>,
    /// Queues in all of them.
    queues: usize,
}

impl Router {
    /// The way of a message from an exchange that exists, by its key and those in its headers; and whether these alone say so. Adds
    /// to `work` how much it has looked at.
    pub fn route(
        &mut self,
        topology: &Topology,
        vhost: &Vhost,
        sent: Sent<'_>,
        work: &mut usize,
    ) -> (Arc<Route>, bool) {
        let Sent { exchange, key, more_keys, properties, random } = sent;
        let place = place(&vhost.name, exchange, key);
        if more_keys.is_empty()
            && let Some(found) = self.found.get(&place)
            && found.epoch == topology.epoch()
            && found.key == key
            && found.exchange == exchange
            && found.vhost == vhost.name
        {
            *work += found.route.len();
            return (Arc::clone(&found.route), true);
        }
        let mut queues = BTreeSet::new();
        let keys: Vec<&[u8]> = std::iter::once(key).chain(more_keys.iter().copied()).collect();
        let by_key_alone = walk(vhost, exchange, &keys, properties, random, &mut queues, work);
        let route = Arc::new(Route::of(&queues));
        if by_key_alone && more_keys.is_empty() && route.len() <= AMQP_ROUTES_CACHED_QUEUES {
            self.keep(
                place,
                Found {
                    epoch: topology.epoch(),
                    vhost: vhost.name.clone(),
                    exchange: exchange.to_vec(),
                    key: key.to_vec(),
                    route: Arc::clone(&route),
                },
            );
        }
        (route, by_key_alone)
    }

    fn keep(&mut self, place: u64, found: Found) {
        if self.found.len() == AMQP_ROUTES_CACHED
            || self.queues + found.route.len() > AMQP_ROUTES_CACHED_QUEUES
        {
            self.found.clear();
            self.queues = 0;
        }
        self.queues += found.route.len();
        if let Some(old) = self.found.insert(place, found) {
            self.queues -= old.route.len();
        }
    }
}

fn place(vhost: &[u8], exchange: &[u8], key: &[u8]) -> u64 {
    hash(vhost).rotate_left(17) ^ hash(exchange).rotate_left(31) ^ hash(key)
}
