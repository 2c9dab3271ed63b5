//! How exchanges, queues, bindings, users and the like are kept as entries of the node's metadata: what a key and what a value
//! is made of. Names are short strings one behind the other; a value begins with its version.

use millstream_engine::shard::change::{EntryKey, Guard};
use millstream_engine::types::QueueId;

use crate::amqp::codec::{Malformed, Reader, Writer};

/// A vhost: key name.
pub const VHOST: u16 = 0x100;
/// An exchange: key vhost, name.
pub const EXCHANGE: u16 = 0x101;
/// A queue: key vhost, name, which together are its name for the engine.
pub const QUEUE: u16 = 0x102;
/// A binding: key vhost, source, sort of destination, destination, routing key, then its arguments to the end.
pub const BINDING: u16 = 0x103;
/// A user: key name.
pub const USER: u16 = 0x104;
/// What a user may do in a vhost: key vhost, user.
pub const PERMISSION: u16 = 0x105;
/// By which keys a user may publish to an exchange and bind to it: key vhost, user, exchange.
pub const TOPIC_PERMISSION: u16 = 0x106;
/// A policy: key vhost, name.
pub const POLICY: u16 = 0x107;
/// A policy that can only tighten: key vhost, name.
pub const OPERATOR_POLICY: u16 = 0x108;
/// A parameter, kept for whoever wants to read it: key vhost, component, name; the value is JSON.
pub const PARAMETER: u16 = 0x10A;
/// A parameter of the node as a whole: key name; the value is JSON.
pub const GLOBAL_PARAMETER: u16 = 0x10B;
/// How many connections and channels a user may have: key name; the value is JSON.
pub const USER_LIMITS: u16 = 0x10C;
/// Says that the first vhost and user were made once, so that they do not come back when they are deleted.
pub const FOUNDED: u16 = 0x109;

/// The version of every value.
const VERSION: u8 = 1;

/// A key made of names.
pub fn key(kind: u16, names: &[&[u8]]) -> EntryKey {
    let mut key = Vec::new();
    let mut writer = Writer::new(&mut key);
    for name in names {
        writer.short_string(name);
    }
    EntryKey { kind, key }
}

/// What a change relies on that puts something into a vhost: else it could be left behind by the vhost's deletion.
pub fn vhost_exists(vhost: &[u8]) -> Guard {
    Guard::Exists(key(VHOST, &[vhost]))
}

/// What a binding leads to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Destination {
    /// A queue.
    Queue(Vec<u8>),
    /// Another exchange.
    Exchange(Vec<u8>),
}

impl Destination {
    /// Its name.
    pub fn name(&self) -> &[u8] {
        let (Destination::Queue(name) | Destination::Exchange(name)) = self;
        name
    }
}

/// A binding within its vhost. All of it is what tells it from another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Binding {
    /// The exchange that it starts from.
    pub source: Vec<u8>,
    /// What it leads to.
    pub destination: Destination,
    /// Which messages, as its exchange understands that.
    pub routing_key: Vec<u8>,
    /// The same, as a table's content.
    pub arguments: Vec<u8>,
}

impl Binding {
    /// The entry's key.
    pub fn key(&self, vhost: &[u8]) -> EntryKey {
        let mut key = Vec::new();
        let mut writer = Writer::new(&mut key);
        writer.short_string(vhost);
        writer.short_string(&self.source);
        writer.u8(u8::from(matches!(self.destination, Destination::Exchange(_))));
        writer.short_string(self.destination.name());
        writer.short_string(&self.routing_key);
        writer.bytes(&self.arguments);
        EntryKey { kind: BINDING, key }
    }

    /// The vhost and the binding of a key.
    pub fn read(key: &[u8]) -> Result<(Vec<u8>, Binding), Malformed> {
        let mut reader = Reader::new(key);
        let vhost = reader.short_string()?.to_vec();
        let source = reader.short_string()?.to_vec();
        let destination = match reader.u8()? {
            0 => Destination::Queue(reader.short_string()?.to_vec()),
            1 => Destination::Exchange(reader.short_string()?.to_vec()),
            _ => return Err(Malformed),
        };
        let routing_key = reader.short_string()?.to_vec();
        let arguments = reader.rest().to_vec();
        Ok((vhost, Binding { source, destination, routing_key, arguments }))
    }
}

/// A binding's value: the incarnation of the queue that it leads to, if it is one. A queue that is made anew under an old name
/// has none of the bindings of the one before it.
pub fn binding_value(queue: Option<QueueId>) -> Vec<u8> {
    let mut value = vec![VERSION];
    if let Some(queue) = queue {
        value.extend_from_slice(&queue.0);
    }
    value
}

/// Reads a binding's value.
pub fn read_binding_value(value: &[u8]) -> Result<Option<QueueId>, Malformed> {
    let mut reader = versioned(value)?;
    if reader.is_empty() {
        return Ok(None);
    }
    let id = reader.take(16)?;
    Ok(Some(QueueId(*id.first_chunk().ok_or(Malformed)?)))
}

/// What is kept of an exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExchangeValue {
    /// Its type's name.
    pub kind: Vec<u8>,
    /// Whether it is there after a restart.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
    /// Whether nobody may publish to it.
    pub internal: bool,
    /// Its arguments, a table's content.
    pub arguments: Vec<u8>,
}

impl ExchangeValue {
    /// As it is kept.
    pub fn write(&self) -> Vec<u8> {
        let mut value = vec![VERSION];
        let mut writer = Writer::new(&mut value);
        writer.short_string(&self.kind);
        writer.bit(self.durable);
        writer.bit(self.auto_delete);
        writer.bit(self.internal);
        writer.bytes(&self.arguments);
        value
    }

    /// Reads what was kept.
    pub fn read(value: &[u8]) -> Result<ExchangeValue, Malformed> {
        let mut reader = versioned(value)?;
        let kind = reader.short_string()?.to_vec();
        let (durable, auto_delete, internal) = (reader.bit()?, reader.bit()?, reader.bit()?);
        Ok(ExchangeValue { kind, durable, auto_delete, internal, arguments: reader.rest().to_vec() })
    }
}

/// The connection that a queue belongs to alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The shard that serves it.
    pub shard: u16,
    /// Its number there.
    pub conn: u64,
}

/// What is kept of a queue, beside what the engine knows of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueValue {
    /// Whether it was declared durable.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Whose it is, if it is one connection's.
    pub owner: Option<Owner>,
    /// Its arguments, a table's content.
    pub arguments: Vec<u8>,
}

impl QueueValue {
    /// As it is kept.
    pub fn write(&self) -> Vec<u8> {
        let mut value = vec![VERSION];
        let mut writer = Writer::new(&mut value);
        writer.bit(self.durable);
        writer.bit(self.auto_delete);
        writer.bit(self.owner.is_some());
        if let Some(owner) = self.owner {
            writer.u16(owner.shard);
            writer.u64(owner.conn);
        }
        writer.bytes(&self.arguments);
        value
    }

    /// Reads what was kept.
    pub fn read(value: &[u8]) -> Result<QueueValue, Malformed> {
        let mut reader = versioned(value)?;
        let (durable, auto_delete, exclusive) = (reader.bit()?, reader.bit()?, reader.bit()?);
        let owner = if exclusive { Some(Owner { shard: reader.u16()?, conn: reader.u64()? }) } else { None };
        Ok(QueueValue { durable, auto_delete, owner, arguments: reader.rest().to_vec() })
    }
}

/// What is kept of a vhost. One of which nothing is said has an empty value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VhostValue {
    /// What it is for, in words.
    pub description: Vec<u8>,
    /// Tags, separated by commas.
    pub tags: Vec<u8>,
    /// The type of queues that are declared without one; empty: classic.
    pub default_queue_type: Vec<u8>,
}

impl VhostValue {
    /// As it is kept.
    pub fn write(&self) -> Vec<u8> {
        if *self == VhostValue::default() {
            return Vec::new();
        }
        let mut value = vec![VERSION];
        let mut writer = Writer::new(&mut value);
        writer.long_string(&self.description);
        writer.long_string(&self.tags);
        writer.long_string(&self.default_queue_type);
        value
    }

    /// Reads what was kept.
    pub fn read(value: &[u8]) -> Result<VhostValue, Malformed> {
        if value.is_empty() {
            return Ok(VhostValue::default());
        }
        let mut reader = versioned(value)?;
        let (description, tags) = (reader.long_string()?.to_vec(), reader.long_string()?.to_vec());
        Ok(VhostValue { description, tags, default_queue_type: reader.long_string()?.to_vec() })
    }
}

/// What is kept of a user.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UserValue {
    /// The hash of the password, as RabbitMQ has it: four bytes of salt, then SHA-256 or SHA-512 over salt and password; its length
    /// says which. Empty: no password will do.
    pub password_hash: Vec<u8>,
    /// What the user may do beyond AMQP: `administrator`, `monitoring` and so on, separated by commas.
    pub tags: Vec<u8>,
}

impl UserValue {
    /// As it is kept.
    pub fn write(&self) -> Vec<u8> {
        let mut value = vec![VERSION];
        let mut writer = Writer::new(&mut value);
        writer.short_string(&self.password_hash);
        writer.bytes(&self.tags);
        value
    }

    /// Reads what was kept.
    pub fn read(value: &[u8]) -> Result<UserValue, Malformed> {
        let mut reader = versioned(value)?;
        let password_hash = reader.short_string()?.to_vec();
        Ok(UserValue { password_hash, tags: reader.rest().to_vec() })
    }
}

/// The regular expressions of a permission, or of a topic permission, which has two. Kept one behind the other.
pub fn patterns(patterns: &[&[u8]]) -> Vec<u8> {
    let mut value = vec![VERSION];
    let mut writer = Writer::new(&mut value);
    for pattern in patterns {
        writer.long_string(pattern);
    }
    value
}

/// Reads regular expressions.
pub fn read_patterns<const N: usize>(value: &[u8]) -> Result<[Vec<u8>; N], Malformed> {
    let mut reader = versioned(value)?;
    let mut patterns = [const { Vec::new() }; N];
    for pattern in &mut patterns {
        *pattern = reader.long_string()?.to_vec();
    }
    Ok(patterns)
}

/// What a policy is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApplyTo {
    /// Queues and exchanges.
    All,
    /// Queues.
    Queues,
    /// Queues that are not of type quorum.
    ClassicQueues,
    /// Queues of type quorum.
    QuorumQueues,
    /// Exchanges.
    Exchanges,
}

/// What is kept of a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyValue {
    /// Which names it is for.
    pub pattern: Vec<u8>,
    /// What sort of things.
    pub apply_to: ApplyTo,
    /// Of all that fit, the highest holds.
    pub priority: i32,
    /// What it says: a table's content, names as in arguments but without `x-`.
    pub definition: Vec<u8>,
}

impl PolicyValue {
    /// As it is kept.
    pub fn write(&self) -> Vec<u8> {
        let mut value = vec![VERSION];
        let mut writer = Writer::new(&mut value);
        writer.long_string(&self.pattern);
        writer.u8(match self.apply_to {
            ApplyTo::All => 0,
            ApplyTo::Queues => 1,
            ApplyTo::ClassicQueues => 2,
            ApplyTo::QuorumQueues => 3,
            ApplyTo::Exchanges => 4,
        });
        writer.u32(self.priority as u32);
        writer.bytes(&self.definition);
        value
    }

    /// Reads what was kept.
    pub fn read(value: &[u8]) -> Result<PolicyValue, Malformed> {
        let mut reader = versioned(value)?;
        let pattern = reader.long_string()?.to_vec();
        let apply_to = match reader.u8()? {
            0 => ApplyTo::All,
            1 => ApplyTo::Queues,
            2 => ApplyTo::ClassicQueues,
            3 => ApplyTo::QuorumQueues,
            4 => ApplyTo::Exchanges,
            _ => return Err(Malformed),
        };
        let priority = reader.u32()? as i32;
        Ok(PolicyValue { pattern, apply_to, priority, definition: reader.rest().to_vec() })
    }
}

/// The names of a key.
pub fn names<const N: usize>(key: &[u8]) -> Result<[Vec<u8>; N], Malformed> {
    let mut reader = Reader::new(key);
    let mut names = [const { Vec::new() }; N];
    for name in &mut names {
        *name = reader.short_string()?.to_vec();
    }
    if reader.is_empty() { Ok(names) } else { Err(Malformed) }
}

fn versioned(value: &[u8]) -> Result<Reader<'_>, Malformed> {
    let mut reader = Reader::new(value);
    if reader.u8()? == VERSION { Ok(reader) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let binding = Binding {
            source: b"x".to_vec(),
            destination: Destination::Exchange(b"y".to_vec()),
            routing_key: b"k".to_vec(),
            arguments: vec![1, b'a', b'V'],
        };
        assert_eq!(Binding::read(&binding.key(b"/").key), Ok((b"/".to_vec(), binding)));
        assert_eq!(read_binding_value(&binding_value(Some(QueueId([7; 16])))), Ok(Some(QueueId([7; 16]))));
        assert_eq!(read_binding_value(&binding_value(None)), Ok(None));
        let exchange = ExchangeValue {
            kind: b"topic".to_vec(),
            durable: true,
            auto_delete: false,
            internal: true,
            arguments: vec![1, b'a', b'V'],
        };
        assert_eq!(ExchangeValue::read(&exchange.write()), Ok(exchange));
        for owner in [None, Some(Owner { shard: 3, conn: 1 << 40 })] {
            let queue =
                QueueValue { durable: true, auto_delete: true, owner, arguments: vec![1, b'a', b'V'] };
            assert_eq!(QueueValue::read(&queue.write()), Ok(queue));
        }
        let policy = PolicyValue {
            pattern: b"^a".to_vec(),
            apply_to: ApplyTo::QuorumQueues,
            priority: -3,
            definition: vec![1, b'a', b'V'],
        };
        assert_eq!(PolicyValue::read(&policy.write()), Ok(policy));
        let user = UserValue { password_hash: vec![1; 36], tags: b"administrator".to_vec() };
        assert_eq!(UserValue::read(&user.write()), Ok(user));
        for vhost in [
            VhostValue::default(),
            VhostValue {
                description: b"d".to_vec(),
                tags: b"a,b".to_vec(),
                default_queue_type: b"quorum".to_vec(),
            },
        ] {
            assert_eq!(VhostValue::read(&vhost.write()), Ok(vhost));
        }
        assert_eq!(read_patterns(&patterns(&[b".*", b""])), Ok([b".*".to_vec(), Vec::new()]));
        assert_eq!(names(&key(QUEUE, &[b"/", b"q"]).key), Ok([b"/".to_vec(), b"q".to_vec()]));
    }
}
