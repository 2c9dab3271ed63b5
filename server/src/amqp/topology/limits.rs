//! How much a vhost or a user may have: kept as JSON under RabbitMQ's names, and given back as it came.

use serde_json::{Map, Value};

/// The component whose parameters are the limits of vhosts, and what they are called there.
pub const VHOST_LIMITS: &[u8] = b"vhost-limits";
/// The name of that parameter.
pub const LIMITS: &[u8] = b"limits";

/// What a vhost or a user may have at most. What is not named, or negative, has no limit.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Limits(pub Map<String, Value>);

impl Limits {
    /// Reads what is kept; what makes no sense limits nothing.
    pub fn read(kept: &[u8]) -> Limits {
        Limits(serde_json::from_slice(kept).unwrap_or_default())
    }

    fn of(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    /// Connections.
    pub fn connections(&self) -> Option<u64> {
        self.of("max-connections")
    }

    /// Queues.
    pub fn queues(&self) -> Option<u64> {
        self.of("max-queues")
    }

    /// Channels.
    pub fn channels(&self) -> Option<u64> {
        self.of("max-channels")
    }
}
