//! A member of a group, as the group keeps it.

use std::sync::Arc;

use millstream_engine::time::Nanos;

use super::question::{Asker, Join};
use super::records::MemberState;

/// What a member waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// The next generation.
    Join(Asker),
    /// Its part in this one.
    Sync(Asker),
}

/// A member.
#[derive(Debug)]
pub struct Member {
    pub instance_id: Option<Arc<str>>,
    pub client_id: Box<str>,
    pub client_host: Box<str>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocols: Vec<(Arc<str>, Arc<[u8]>)>,
    /// Empty until the leader has said.
    pub assignment: Arc<[u8]>,
    pub waiting: Option<Waiting>,
    /// It is gone if nothing is heard of it until then, unless it waits.
    pub expires: Nanos,
    /// Whether its client knows its id. One that does not cannot come back for it.
    pub knows_id: bool,
    /// Whether it has asked for its part in this generation.
    pub synced: bool,
}

impl Member {
    /// A member that has just come, and waits for nothing yet.
    pub fn new(join: &Join, now: Nanos) -> Member {
        let mut member = Member {
            instance_id: join.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Arc::default(),
            waiting: None,
            expires: now,
            knows_id: !join.member_id.is_empty(),
            synced: false,
        };
        member.update(join, now);
        member
    }

    /// A member that was there when the broker stopped.
    pub fn restored(state: &MemberState, protocol: &Arc<str>, now: Nanos) -> Member {
        let mut member = Member {
            instance_id: state.instance_id.clone(),
            client_id: state.client_id.clone(),
            client_host: state.client_host.clone(),
            session_timeout_ms: state.session_timeout_ms,
            rebalance_timeout_ms: state.rebalance_timeout_ms,
            protocols: vec![(Arc::clone(protocol), Arc::clone(&state.metadata))],
            assignment: Arc::clone(&state.assignment),
            waiting: None,
            expires: now,
            knows_id: true,
            synced: true,
        };
        member.heard(now);
        member
    }

    /// Takes what it says of itself when it joins again.
    pub fn update(&mut self, join: &Join, now: Nanos) {
        self.client_id.clone_from(&join.client_id);
        self.client_host.clone_from(&join.client_host);
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = join.rebalance_timeout_ms;
        self.protocols.clone_from(&join.protocols);
        self.heard(now);
    }

    /// Something was heard of it.
    pub fn heard(&mut self, now: Nanos) {
        self.expires = now + millis(self.session_timeout_ms);
    }

    /// Whether it waits for the next generation.
    pub fn awaits_join(&self) -> bool {
        matches!(self.waiting, Some(Waiting::Join(_)))
    }

    /// What a way to assign wants to know of it.
    pub fn metadata(&self, protocol: &str) -> Arc<[u8]> {
        let known = self.protocols.iter().find(|(name, _)| &**name == protocol);
        known.map(|(_, metadata)| Arc::clone(metadata)).unwrap_or_default()
    }

    /// Bytes that it brought, or was given.
    pub fn bytes(&self) -> usize {
        brought(&self.protocols) + self.assignment.len()
    }
}

/// Bytes of what somebody brings who joins.
pub fn brought(protocols: &[(Arc<str>, Arc<[u8]>)]) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum()
}

/// A span from the wire: none if negative.
pub fn millis(ms: i32) -> Nanos {
    Nanos::from_millis(u64::try_from(ms).unwrap_or(0))
}
