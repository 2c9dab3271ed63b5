//! A consumer of a channel, or what was got from a queue without one: how much it may be given, and how much it keeps.

use millstream_engine::shard::message::{ConsumerId, Credit};
use millstream_engine::types::{QueueId, ShardId};

use crate::amqp::kept::Window;

/// How a keeper stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// The engine was asked for it.
    Coming,
    /// It is given messages, or could be.
    There,
    /// Nothing more comes; what it keeps can be settled.
    Cancelled,
    /// Its queue has taken back or dropped what it kept.
    Gone,
}

/// Who keeps deliveries of one queue.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and they do not exclude each other"
)]
pub struct Keeper {
    /// Its name for the engine.
    pub id: ConsumerId,
    /// The queue's name.
    pub queue_name: Vec<u8>,
    /// The queue.
    pub queue: QueueId,
    /// The queue's shard.
    pub shard: ShardId,
    /// The consumer's tag; `None`: it has none, and got what it keeps one by one.
    pub tag: Option<Vec<u8>>,
    /// Whether what it is given needs no settling.
    pub no_ack: bool,
    /// How many messages it may keep; 0: any number.
    pub prefetch: u16,
    /// Whether it is its queue's only consumer.
    pub is_exclusive: bool,
    /// What it was made with, a table's content.
    pub arguments: Vec<u8>,
    /// Whether it is told how often a message has come back.
    pub is_told_count: bool,
    /// How it stands.
    pub life: Life,
    /// Messages that it keeps, or that wait for the channel to have room.
    pub kept: u32,
    /// Whether its channel has noted that it may be given more.
    pub is_hungry: bool,
    /// Messages that the engine may still deliver.
    credit_messages: u32,
    /// Bytes; overdrawn by a message that is larger than what was left.
    credit_bytes: i64,
}

impl Keeper {
    /// A keeper that is given nothing by itself.
    pub fn new(id: ConsumerId, queue_name: Vec<u8>, queue: QueueId, shard: ShardId) -> Keeper {
        Keeper {
            id,
            queue_name,
            queue,
            shard,
            tag: None,
            no_ack: false,
            prefetch: 0,
            is_exclusive: false,
            arguments: Vec::new(),
            is_told_count: false,
            life: Life::There,
            kept: 0,
            is_hungry: false,
            credit_messages: 0,
            credit_bytes: 0,
        }
    }

    /// It was given a message; what was got needs no credit.
    pub fn given(&mut self, bytes: usize) {
        if self.tag.is_some() {
            self.credit_messages = self.credit_messages.saturating_sub(1);
            self.credit_bytes -= bytes as i64;
        }
        if !self.no_ack {
            self.kept += 1;
        }
    }

    /// What to grant, if anything: as many messages as it may keep more, and bytes up to its window. `channel_limit` is what its
    /// channel may keep all in all, or 0.
    pub fn top_up(&mut self, channel_limit: u16, window: Window) -> Option<Credit> {
        if self.tag.is_none() || matches!(self.life, Life::Cancelled | Life::Gone) {
            return None;
        }
        let limit = match (self.prefetch, channel_limit) {
            (0, 0) => 0,
            (0, limit) | (limit, 0) => limit,
            (one, other) => one.min(other),
        };
        let messages = if limit == 0 || self.no_ack {
            // Half of the window is enough to go on with, and granting costs.
            let missing = window.messages.saturating_sub(self.credit_messages);
            if missing >= window.messages / 2 { missing } else { 0 }
        } else {
            u32::from(limit).saturating_sub(self.kept + self.credit_messages)
        };
        let missing = i64::from(window.bytes) - self.credit_bytes;
        let bytes = if missing >= i64::from(window.bytes / 2) { missing as u32 } else { 0 };
        if messages == 0 && bytes == 0 {
            return None;
        }
        self.credit_messages += messages;
        self.credit_bytes += i64::from(bytes);
        Some(Credit { messages, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{AMQP_WINDOW_BYTES, AMQP_WINDOW_MESSAGES};

    const WINDOW: Window = Window { bytes: AMQP_WINDOW_BYTES, messages: AMQP_WINDOW_MESSAGES };

    fn consumer(prefetch: u16) -> Keeper {
        let mut keeper = Keeper::new(ConsumerId(1), Vec::new(), QueueId([0; 16]), ShardId(0));
        keeper.tag = Some(b"t".to_vec());
        keeper.prefetch = prefetch;
        keeper
    }

    #[test]
    fn a_prefetch_is_what_is_kept_and_what_may_come() {
        let mut keeper = consumer(3);
        assert_eq!(keeper.top_up(0, WINDOW).unwrap().messages, 3);
        assert_eq!(keeper.top_up(0, WINDOW), None);
        keeper.given(10);
        keeper.given(10);
        assert_eq!(keeper.top_up(0, WINDOW), None);
        keeper.kept -= 1;
        assert_eq!(keeper.top_up(0, WINDOW), Some(Credit { messages: 1, bytes: 0 }));
        keeper.prefetch = 5;
        assert_eq!(keeper.top_up(0, WINDOW), Some(Credit { messages: 2, bytes: 0 }));
        assert_eq!(keeper.top_up(1, WINDOW), None, "what was granted is not taken back");
    }

    #[test]
    fn without_a_prefetch_a_window_is_kept_open() {
        let mut keeper = consumer(0);
        assert_eq!(keeper.top_up(0, WINDOW).unwrap().messages, AMQP_WINDOW_MESSAGES);
        for _ in 1..AMQP_WINDOW_MESSAGES / 2 {
            keeper.given(1);
            assert_eq!(keeper.top_up(0, WINDOW), None);
        }
        keeper.given(1);
        assert_eq!(keeper.top_up(0, WINDOW).unwrap().messages, AMQP_WINDOW_MESSAGES / 2);
        keeper.given(AMQP_WINDOW_BYTES as usize * 2);
        assert!(keeper.top_up(0, WINDOW).unwrap().bytes >= AMQP_WINDOW_BYTES * 2);
    }
}
