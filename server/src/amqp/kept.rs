//! What is kept in memory for a client, counted for a channel, for a connection, and for all connections of a shard.

use std::ops::{AddAssign, SubAssign};

use crate::limits::{
    AMQP_SEND_BYTES_PER_SHARD_MAX, AMQP_UNACKED_PER_CONNECTION_MAX, AMQP_UNACKED_PER_SHARD_MAX,
    AMQP_WINDOW_BYTES, AMQP_WINDOW_BYTES_MIN, AMQP_WINDOW_MESSAGES, AMQP_WINDOW_MESSAGES_MIN,
    AMQP_WINDOWS_BYTES_PER_CONNECTION, AMQP_WINDOWS_BYTES_PER_SHARD,
};

/// How much is kept, by what ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// Bytes of what the client has begun and has to end: messages that arrive, what waits for a commit.
    pub unfinished: usize,
    /// Bytes on their way to queues, until these have answered.
    pub publishing: usize,
    /// Bytes that wait until the client takes them, or has room for them in its prefetch.
    pub sending: usize,
    /// Deliveries that the client has not settled.
    pub unacked: usize,
    /// Messages that wait for their confirms.
    pub unconfirmed: usize,
    /// Channels that are open.
    pub channels: usize,
    /// Consumers.
    pub consumers: usize,
}

impl Kept {
    fn each(&mut self, other: Kept, change: impl Fn(&mut usize, usize)) {
        change(&mut self.unfinished, other.unfinished);
        change(&mut self.publishing, other.publishing);
        change(&mut self.sending, other.sending);
        change(&mut self.unacked, other.unacked);
        change(&mut self.unconfirmed, other.unconfirmed);
        change(&mut self.channels, other.channels);
        change(&mut self.consumers, other.consumers);
    }
}

impl AddAssign for Kept {
    fn add_assign(&mut self, other: Kept) {
        self.each(other, |one, other| *one += other);
    }
}

impl SubAssign for Kept {
    fn sub_assign(&mut self, other: Kept) {
        self.each(other, |one, other| *one -= other);
    }
}

/// What all connections of a shard keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Everybody {
    /// That.
    pub kept: Kept,
    /// How many connections there are.
    pub connections: usize,
}

impl Everybody {
    /// Whether all have as much as they may together, and this one has its share of it or more. Whoever is slowed for that has
    /// something of its own to get rid of, and goes on when it has.
    pub fn is_over(&self, all: usize, max: usize, own: usize) -> bool {
        all >= max && own >= max / self.connections.max(1)
    }

    /// Whether a connection with so much to be sent should not ask for more.
    pub fn is_congested(&self, own: usize) -> bool {
        self.is_over(self.kept.sending, AMQP_SEND_BYTES_PER_SHARD_MAX, own)
    }

    /// Whether a connection with so many deliveries that are not settled should not be given more.
    pub fn has_enough(&self, own: usize) -> bool {
        own >= AMQP_UNACKED_PER_CONNECTION_MAX
            || self.is_over(self.kept.unacked, AMQP_UNACKED_PER_SHARD_MAX, own)
    }

    /// What may be on its way to each of a connection's consumers.
    pub fn window(&self, consumers: usize) -> Window {
        let bytes = (AMQP_WINDOWS_BYTES_PER_CONNECTION / consumers.max(1))
            .min(AMQP_WINDOWS_BYTES_PER_SHARD / self.kept.consumers.max(1))
            .clamp(AMQP_WINDOW_BYTES_MIN as usize, AMQP_WINDOW_BYTES as usize) as u32;
        let messages = u64::from(AMQP_WINDOW_MESSAGES) * u64::from(bytes) / u64::from(AMQP_WINDOW_BYTES);
        Window { bytes, messages: (messages as u32).max(AMQP_WINDOW_MESSAGES_MIN) }
    }
}

/// What may be on its way to a consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Bytes, and one message more.
    pub bytes: u32,
    /// Messages, if it has no prefetch.
    pub messages: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_share_what_may_be_on_its_way() {
        let mut everybody = Everybody::default();
        assert_eq!(everybody.window(1), Window { bytes: AMQP_WINDOW_BYTES, messages: AMQP_WINDOW_MESSAGES });
        assert_eq!(everybody.window(64).bytes, AMQP_WINDOW_BYTES / 4);
        assert_eq!(
            everybody.window(1 << 20),
            Window { bytes: AMQP_WINDOW_BYTES_MIN, messages: AMQP_WINDOW_MESSAGES_MIN }
        );
        everybody.kept.consumers = 10_000;
        let bytes = everybody.window(1).bytes as usize;
        assert!(bytes * 10_000 <= AMQP_WINDOWS_BYTES_PER_SHARD, "{bytes}");
    }

    #[test]
    fn only_those_with_more_than_their_share_are_over() {
        let everybody = Everybody { connections: 4, ..Everybody::default() };
        assert!(!everybody.is_over(99, 100, 99));
        assert!(everybody.is_over(100, 100, 25));
        assert!(!everybody.is_over(100, 100, 24));
    }
}
