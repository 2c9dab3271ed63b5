//! Users and what they may do, as a shard has them at hand: hashes to check, expressions that are ready to be matched.

use std::collections::BTreeMap;

use super::entries::UserValue;
use crate::auth::{Pattern, password_matches};

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// What is kept.
    pub value: UserValue,
}

impl User {
    /// Whether that is the user's password.
    pub fn has_password(&self, password: &[u8]) -> bool {
        password_matches(&self.value.password_hash, password)
    }

    /// Whether the user has a tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.value.tags.split(|byte| *byte == b',').any(|other| other == tag.as_bytes())
    }
}

/// What is to be done with something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Make it, change it, delete it.
    Configure,
    /// Publish to it, bind to it.
    Write,
    /// Consume from it, bind from it.
    Read,
}

impl Access {
    /// Its name in RabbitMQ's texts.
    pub fn name(self) -> &'static str {
        match self {
            Access::Configure => "configure",
            Access::Write => "write",
            Access::Read => "read",
        }
    }
}

/// By exchange: the keys by which a user may publish and bind.
pub type Topics = BTreeMap<Vec<u8>, (Pattern, Pattern)>;

/// What a user may do in a vhost.
#[derive(Clone, Debug)]
pub struct Permission {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
    topics: Topics,
}

impl Permission {
    /// Reads the three expressions.
    pub fn new([configure, write, read]: &[Vec<u8>; 3]) -> Permission {
        let topics = BTreeMap::new();
        let (configure, write, read) = (Pattern::new(configure), Pattern::new(write), Pattern::new(read));
        Permission { configure, write, read, topics }
    }

    /// Whether it is for this name. The default exchange is called `amq.default` here.
    pub fn allows(&self, access: Access, name: &[u8]) -> bool {
        let name = if name.is_empty() { b"amq.default" } else { name };
        match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        }
        .fits(name)
    }

    /// Whether a key may be used to publish to an exchange of type topic, or to bind to it.
    pub fn allows_key(&self, access: Access, exchange: &[u8], key: &[u8]) -> bool {
        self.topics.get(exchange).is_none_or(|(write, read)| match access {
            Access::Write => write.fits(key),
            Access::Read => read.fits(key),
            Access::Configure => true,
        })
    }

    /// Sets the keys.
    pub fn set_topics(&mut self, topics: Topics) {
        self.topics = topics;
    }
}
