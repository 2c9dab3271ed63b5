//! How many connections and channels each vhost and each user has on the whole node, as far as that is limited.
//!
//! Every shard counts its own. Of a vhost or a user with limits it tells the others, whenever its count has changed and when the limits
//! have: a number that takes the place of the one before. So as long as nothing is limited nothing is told. Two that come at the same
//! time to different shards may both find room where there was some for one.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::types::ShardId;

use super::topology::Topology;

/// Whose connections are counted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Holder {
    /// Those to a vhost.
    Vhost(Vec<u8>),
    /// Those of a user.
    User(Vec<u8>),
}

/// How many there are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// Connections.
    pub connections: u64,
    /// Their channels; of vhosts they are not counted.
    pub channels: u64,
}

impl Holder {
    fn is_limited(&self, topology: &Topology) -> bool {
        match self {
            Holder::Vhost(name) => {
                topology.vhost(name).is_some_and(|vhost| vhost.limits.connections().is_some())
            }
            Holder::User(name) => topology.user_limits(name).is_some(),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Census {
    own: BTreeMap<Holder, Count>,
    others: BTreeMap<(Holder, ShardId), Count>,
    /// Whose own count has changed since it was told.
    changed: BTreeSet<Holder>,
}

impl Census {
    /// How many there are on the node, as far as it is known here.
    pub fn count(&self, holder: &Holder) -> Count {
        let own = self.own.get(holder).copied().unwrap_or_default();
        let range = (holder.clone(), ShardId(0))..=(holder.clone(), ShardId(u16::MAX));
        self.others.range(range).fold(own, |sum, (_, count)| Count {
            connections: sum.connections + count.connections,
            channels: sum.channels + count.channels,
        })
    }

    /// So many of this shard have become so many.
    pub fn change(&mut self, holder: Holder, before: Count, now: Count) {
        if before == now {
            return;
        }
        let own = self.own.entry(holder.clone()).or_default();
        own.connections = own.connections + now.connections - before.connections;
        own.channels = own.channels + now.channels - before.channels;
        if *own == Count::default() {
            self.own.remove(&holder);
        }
        self.changed.insert(holder);
    }

    /// Other limits hold: what is limited is told anew.
    pub fn limits_changed(&mut self, topology: &Topology) {
        let known = self.others.keys().map(|(holder, _)| holder);
        let gone: BTreeSet<Holder> = known.filter(|holder| !holder.is_limited(topology)).cloned().collect();
        self.others.retain(|(holder, _), _| !gone.contains(holder));
        self.changed.extend(self.own.keys().cloned());
    }

    /// What is to be told to the other shards.
    pub fn news(&mut self, topology: &Topology) -> Vec<(Holder, Count)> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        let limited = changed.filter(|holder| holder.is_limited(topology));
        limited.map(|holder| (holder.clone(), self.own.get(&holder).copied().unwrap_or_default())).collect()
    }

    /// Another shard has so many.
    pub fn told(&mut self, shard: ShardId, holder: Holder, count: Count) {
        if count == Count::default() {
            self.others.remove(&(holder, shard));
        } else {
            self.others.insert((holder, shard), count);
        }
    }
}
