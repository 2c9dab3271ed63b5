//! What a shard knows of vhosts, exchanges, queues, bindings, users and policies: the entries of the node's metadata, arranged for
//! use. Follows the metadata epoch by epoch; every shard has its own.

pub mod arguments;
pub mod entries;
pub mod limits;
pub mod users;
mod vhost;

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::shard::change::EntryKey;
use millstream_engine::shard::metadata::{Changed, Metadata};
use millstream_engine::types::{MetadataEpoch, QueueId};

use self::entries::{
    BINDING, Binding, EXCHANGE, ExchangeValue, FOUNDED, OPERATOR_POLICY, PARAMETER, PERMISSION, POLICY,
    PolicyValue, QUEUE, QueueValue, TOPIC_PERMISSION, USER, USER_LIMITS, UserValue, VHOST, names,
    read_binding_value, read_patterns,
};
use self::limits::{LIMITS, Limits, VHOST_LIMITS};
use self::users::{Permission, User};
pub use self::vhost::{Effective, Exchange, Queue, Vhost};
use super::codec::Malformed;
use super::error::Failure;
use crate::auth::Pattern;
use crate::limits::{
    AMQP_BINDINGS_MAX, AMQP_BINDINGS_PER_EXCHANGE_MAX, AMQP_EXCHANGES_MAX, AMQP_TIDYING_EDITS_MAX,
    AMQP_VHOSTS_MAX,
};

/// What has changed in a vhost.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Touched {
    /// An exchange has come, changed or gone.
    Exchange(Vec<u8>),
    /// A queue has come or gone.
    Queue(Vec<u8>),
    /// A binding has come or gone.
    Binding(Binding),
    /// Other settings are to hold for these queues, for the policies have changed.
    Settings(Vec<Vec<u8>>),
}

/// Whether there may be one thing more of which there are so many. As all shards look for themselves, there may be a few more in
/// the end.
fn check(doing: &str, of: &str, count: usize, max: usize) -> Result<(), Failure> {
    if count < max {
        return Ok(());
    }
    Err(Failure::precondition(format!("cannot {doing}: the limit of {max} {of} is reached")))
}

/// Everything, at one epoch.
#[derive(Debug, Default)]
pub struct Topology {
    epoch: MetadataEpoch,
    begun: bool,
    is_founded: bool,
    vhosts: BTreeMap<Vec<u8>, Vhost>,
    users: BTreeMap<Vec<u8>, User>,
    user_limits: BTreeMap<Vec<u8>, Limits>,
    has_new_limits: bool,
    /// In which vhost the queue with this id is.
    queue_vhosts: BTreeMap<QueueId, Vec<u8>>,
}

impl Topology {
    /// The metadata's epoch that this follows.
    pub fn epoch(&self) -> MetadataEpoch {
        self.epoch
    }

    /// Whether the first vhost and user were made.
    pub fn is_founded(&self) -> bool {
        self.is_founded
    }

    /// The vhost of that name.
    pub fn vhost(&self, name: &[u8]) -> Option<&Vhost> {
        self.vhosts.get(name)
    }

    /// Every vhost.
    pub fn vhosts(&self) -> impl ExactSizeIterator<Item = &Vhost> {
        self.vhosts.values()
    }

    /// The user of that name.
    pub fn user(&self, name: &[u8]) -> Option<&User> {
        self.users.get(name)
    }

    /// Every user, by name.
    pub fn users(&self) -> impl Iterator<Item = (&Vec<u8>, &User)> {
        self.users.iter()
    }

    /// Whether other limits hold since somebody last asked.
    pub fn take_new_limits(&mut self) -> bool {
        std::mem::take(&mut self.has_new_limits)
    }

    /// What a user may have at most.
    pub fn user_limits(&self, name: &[u8]) -> Option<&Limits> {
        self.user_limits.get(name)
    }

    /// Every user with limits.
    pub fn limited_users(&self) -> impl Iterator<Item = (&Vec<u8>, &Limits)> {
        self.user_limits.iter()
    }

    /// The queue of that incarnation, and its vhost.
    pub fn queue(&self, id: QueueId) -> Option<(&Vhost, &Queue)> {
        let vhost = self.vhosts.get(self.queue_vhosts.get(&id)?)?;
        Some((vhost, vhost.queue_by_id(id)?))
    }

    /// Whether there may be one exchange more.
    pub fn check_exchanges(&self) -> Result<(), Failure> {
        let exchanges: usize = self.vhosts.values().map(|vhost| vhost.exchanges().len()).sum();
        check("declare exchange", "exchanges", exchanges, AMQP_EXCHANGES_MAX)
    }

    /// Whether there may be one binding more, from this exchange.
    pub fn check_bindings(&self, source: &Exchange) -> Result<(), Failure> {
        let bindings: usize = self.vhosts.values().map(|vhost| vhost.bindings().len()).sum();
        check("bind", "bindings", bindings, AMQP_BINDINGS_MAX)?;
        let of = "bindings of one exchange";
        check("bind", of, source.bindings.len(), AMQP_BINDINGS_PER_EXCHANGE_MAX)
    }

    /// Whether there may be one vhost more.
    pub fn check_vhosts(&self) -> Result<(), Failure> {
        check("create vhost", "vhosts", self.vhosts.len(), AMQP_VHOSTS_MAX)
    }

    /// Follows the metadata to its epoch. Gives what has changed and may leave something useless behind, by vhost.
    pub fn follow(&mut self, metadata: &Metadata) -> BTreeSet<(Vec<u8>, Touched)> {
        let known = if self.begun { metadata.changed_since(self.epoch) } else { None };
        let mut touched = BTreeSet::new();
        match known {
            Some(changed) => {
                // A change may be told of more than once, and things may depend on each other whatever their order: vhosts come
                // first, then exchanges and queues, then bindings and the rest.
                let mut keys: Vec<EntryKey> = Vec::new();
                for change in changed {
                    match change {
                        Changed::Entry(key) => keys.push(key.clone()),
                        // It has an entry under its name.
                        Changed::Queue(_, name) => keys.push(EntryKey { kind: QUEUE, key: name.clone() }),
                        Changed::Topic(_) => {}
                    }
                }
                keys.sort_unstable();
                keys.dedup();
                for key in &keys {
                    self.look(key, metadata, &mut touched);
                }
            }
            None => {
                *self = Topology { begun: true, has_new_limits: true, ..Topology::default() };
                let mut keys: Vec<&EntryKey> = metadata.entries.iter().map(|(key, _)| key).collect();
                keys.sort_unstable();
                for key in keys {
                    self.look(key, metadata, &mut touched);
                }
                touched.extend(self.renew(usize::MAX));
            }
        }
        self.epoch = metadata.epoch;
        touched
    }

    /// Whether policies have changed, and are not looked up for everything yet: [`Topology::renew`].
    pub fn is_stale(&self) -> bool {
        self.vhosts.values().any(Vhost::is_stale)
    }

    /// Goes on looking up which policies hold, as far as so many looks at one go.
    pub fn renew(&mut self, mut looks: usize) -> BTreeSet<(Vec<u8>, Touched)> {
        let mut touched = BTreeSet::new();
        for vhost in self.vhosts.values_mut() {
            for some in vhost.renew(&mut looks).chunks(AMQP_TIDYING_EDITS_MAX) {
                touched.insert((vhost.name.clone(), Touched::Settings(some.to_vec())));
            }
        }
        touched
    }

    /// Looks at one entry anew.
    fn look(&mut self, key: &EntryKey, metadata: &Metadata, touched: &mut BTreeSet<(Vec<u8>, Touched)>) {
        if self.apply(key, metadata, touched).is_err() {
            tracing::error!(kind = key.kind, "an entry of the metadata makes no sense and is ignored");
        }
    }

    fn apply(
        &mut self,
        key: &EntryKey,
        metadata: &Metadata,
        touched: &mut BTreeSet<(Vec<u8>, Touched)>,
    ) -> Result<(), Malformed> {
        let entry = metadata.entry(key);
        let value = entry.map(|entry| &*entry.value);
        match key.kind {
            VHOST => {
                let [name] = names(&key.key)?;
                match value {
                    Some(_) => {
                        self.vhosts.entry(name.clone()).or_insert_with(|| Vhost::new(name));
                    }
                    None => {
                        if let Some(gone) = self.vhosts.remove(&name) {
                            for queue in gone.queues() {
                                self.queue_vhosts.remove(&queue.id);
                            }
                        }
                    }
                }
            }
            EXCHANGE => {
                let [vhost, name] = names(&key.key)?;
                let exchange = match entry {
                    Some(entry) => Some((ExchangeValue::read(&entry.value)?, entry.version)),
                    None => None,
                };
                let Some(vhost) = self.vhosts.get_mut(&vhost) else { return Ok(()) };
                touched.insert((vhost.name.clone(), Touched::Exchange(name.clone())));
                match exchange {
                    Some((value, version)) => vhost.set_exchange(name, value, version),
                    None => vhost.remove_exchange(&name),
                }
            }
            QUEUE => {
                let [vhost, name] = names(&key.key)?;
                let Some(vhost) = self.vhosts.get_mut(&vhost) else { return Ok(()) };
                let gone = vhost.remove_queue(&name);
                if let Some(gone) = &gone {
                    self.queue_vhosts.remove(&gone.id);
                }
                if let Some(entry) = entry
                    && let Some(queue) = metadata.queue_named(&key.key)
                {
                    let value = QueueValue::read(&entry.value)?;
                    self.queue_vhosts.insert(queue.id, vhost.name.clone());
                    let same = gone.is_some_and(|gone| gone.id == queue.id);
                    vhost.set_queue(
                        name.clone(),
                        queue,
                        queue.slot.shard(metadata.shards),
                        value,
                        entry.version,
                    );
                    if same {
                        return Ok(());
                    }
                }
                touched.insert((vhost.name.clone(), Touched::Queue(name)));
            }
            BINDING => {
                let (vhost, binding) = Binding::read(&key.key)?;
                let Some(vhost) = self.vhosts.get_mut(&vhost) else { return Ok(()) };
                touched.insert((vhost.name.clone(), Touched::Binding(binding.clone())));
                vhost.remove_binding(&binding);
                if let Some(value) = value {
                    vhost.set_binding(binding, read_binding_value(value)?);
                }
            }
            USER => {
                let [name] = names(&key.key)?;
                match value {
                    Some(value) => drop(self.users.insert(name, User { value: UserValue::read(value)? })),
                    None => drop(self.users.remove(&name)),
                }
            }
            PERMISSION => {
                let [vhost, user] = names(&key.key)?;
                let permission = match value {
                    Some(value) => Some(Permission::new(&read_patterns(value)?)),
                    None => None,
                };
                let Some(vhost) = self.vhosts.get_mut(&vhost) else { return Ok(()) };
                vhost.set_permission(user, permission);
            }
            TOPIC_PERMISSION => {
                let [vhost, user, exchange] = names(&key.key)?;
                let patterns = match value {
                    Some(value) => {
                        let [write, read] = read_patterns(value)?;
                        let names = [(&b"username"[..], &user[..]), (b"vhost", &vhost)];
                        let pattern = |pattern: &[u8]| Pattern::with_names(pattern, &names);
                        Some((pattern(&write), pattern(&read)))
                    }
                    None => None,
                };
                let Some(vhost) = self.vhosts.get_mut(&vhost) else { return Ok(()) };
                vhost.set_topic_permission(&user, exchange, patterns);
            }
            POLICY | OPERATOR_POLICY => {
                let [vhost, name] = names(&key.key)?;
                let policy = match value {
                    Some(value) => Some(PolicyValue::read(value)?),
                    None => None,
                };
                let Some(vhost) = self.vhosts.get_mut(&vhost) else { return Ok(()) };
                vhost.set_policy(key.kind == OPERATOR_POLICY, name, policy);
            }
            PARAMETER => {
                let [vhost, component, name] = names(&key.key)?;
                if component == VHOST_LIMITS
                    && name == LIMITS
                    && let Some(vhost) = self.vhosts.get_mut(&vhost)
                {
                    vhost.limits = value.map(Limits::read).unwrap_or_default();
                    self.has_new_limits = true;
                }
            }
            USER_LIMITS => {
                let [name] = names(&key.key)?;
                self.has_new_limits = true;
                match value {
                    Some(value) => drop(self.user_limits.insert(name, Limits::read(value))),
                    None => drop(self.user_limits.remove(&name)),
                }
            }
            FOUNDED => self.is_founded = true,
            _ => {}
        }
        Ok(())
    }
}
