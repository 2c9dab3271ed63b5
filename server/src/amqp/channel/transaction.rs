//! Transactions: what was published and settled is held until it is committed, or dropped.

use std::collections::BTreeMap;

use millstream_engine::buffer::Slice;
use millstream_engine::shard::message::{Settlement, Verdict};
use millstream_engine::time::WallMs;
use millstream_engine::types::ShardId;

use super::answers::{After, Awaiting};
use super::keeper::Life;
use super::publish::{Arrived, Body, MESSAGE_EXTRA_BYTES, PIECE_EXTRA_BYTES};
use super::unacked::Entry;
use super::{Channel, Mode};
use crate::amqp::codec::{BasicPublish, Properties, Short, TxCommitOk, TxRollbackOk};
use crate::amqp::error::Failure;
use crate::amqp::link::Link;
use crate::amqp::state::Desk;

/// A message that is held.
#[derive(Debug)]
pub(super) struct Held {
    exchange: Vec<u8>,
    routing_key: Vec<u8>,
    mandatory: bool,
    properties: Vec<u8>,
    body: Vec<Slice>,
}

impl Held {
    pub(super) fn publish(arrived: Arrived<'_>) -> Held {
        Held {
            exchange: arrived.publish.exchange.0.to_vec(),
            routing_key: arrived.publish.routing_key.0.to_vec(),
            mandatory: arrived.publish.mandatory,
            properties: arrived.properties.to_vec(),
            body: arrived.body.to_slices(),
        }
    }

    fn bytes(&self) -> usize {
        let body = self.body.iter().map(|piece| piece.len() + PIECE_EXTRA_BYTES).sum::<usize>();
        MESSAGE_EXTRA_BYTES + self.properties.len() + body
    }
}

/// A delivery whose settlement is held.
#[derive(Clone, Copy, Debug)]
struct Settling {
    tag: u64,
    entry: Entry,
    verdict: Verdict,
}

/// What is held.
#[derive(Debug, Default)]
pub struct Transaction {
    messages: Vec<Held>,
    bytes: usize,
    settling: Vec<Settling>,
    /// Answers that the commit under way waits for.
    answers: usize,
    refused: bool,
}

impl Transaction {
    /// Messages that are held.
    pub fn messages(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn hold(&mut self, message: Held) {
        self.bytes += message.bytes();
        self.messages.push(message);
    }

    /// Bytes of the messages.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Deliveries whose settlement is held.
    pub(super) fn settlements(&self) -> usize {
        self.settling.len()
    }

    pub(super) fn settle(&mut self, tag: u64, entry: Entry, verdict: Verdict) {
        self.settling.push(Settling { tag, entry, verdict });
    }

    /// So many shards will answer for a message.
    pub(super) fn expect(&mut self, shards: usize) {
        self.answers += shards;
    }

    /// Takes the deliveries whose settlement was held.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry> {
        self.settling.drain(..).map(|settling| settling.entry)
    }
}

fn not_transactional() -> Failure {
    Failure::precondition("channel is not transactional")
}

impl Channel {
    pub(super) fn commit(&mut self, link: &mut Link, desk: &mut Desk<'_>) -> Result<(), Failure> {
        let Mode::Transaction(transaction) = &mut self.mode else { return Err(not_transactional()) };
        let Transaction { messages, settling, .. } = std::mem::take(transaction);
        self.awaiting = Some(Awaiting { after: After::Committed, no_wait: false, method: (90, 20) });
        for held in &messages {
            let publish = BasicPublish {
                ticket: 0,
                exchange: Short(&held.exchange),
                routing_key: Short(&held.routing_key),
                mandatory: held.mandatory,
                immediate: false,
            };
            let arrived = Arrived { publish, properties: &held.properties, body: Body::Pieces(&held.body) };
            let Ok(properties) = Properties::read(&held.properties) else { continue };
            // Its time runs from when it is committed. It was found to be a number when it came.
            let ms =
                properties.expiration.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u32>().ok());
            let expires_at = ms.map(|ms| WallMs(desk.out.wall_ms().0 + i64::from(ms)));
            self.send(arrived, &properties, expires_at, link, desk)?;
        }
        let mut settlements: BTreeMap<ShardId, Vec<Settlement>> = BTreeMap::new();
        for Settling { entry, verdict, .. } in settling {
            let Some(keeper) = self.keeper(entry.keeper) else { continue };
            keeper.kept = keeper.kept.saturating_sub(1);
            if keeper.life != Life::Gone {
                let (queue, consumer) = (keeper.queue, keeper.id);
                let settlement = Settlement { queue, consumer, first: entry.seq, last: entry.seq, verdict };
                settlements.entry(keeper.shard).or_default().push(settlement);
            }
            self.feed(entry.keeper);
            self.drop_keeper_if_over(entry.keeper, desk);
        }
        let answers = desk.settle_durably(self.who, settlements);
        if let Mode::Transaction(transaction) = &mut self.mode {
            transaction.answers += answers;
        }
        self.commit_if_answered(link).map_err(|(failure, _)| failure)
    }

    pub(super) fn roll_back(&mut self, link: &mut Link) -> Result<(), Failure> {
        let Mode::Transaction(transaction) = &mut self.mode else { return Err(not_transactional()) };
        let Transaction { mut settling, .. } = std::mem::take(transaction);
        settling.sort_by_key(|settling| settling.tag);
        self.unacked.restore(settling.into_iter().map(|settling| (settling.tag, settling.entry)));
        link.method(self.who.channel, TxRollbackOk {});
        Ok(())
    }

    /// Shards have answered for so many parts of the commit under way.
    pub fn commit_answered(&mut self, answers: usize, refused: bool, link: &mut Link, desk: &mut Desk<'_>) {
        if let Mode::Transaction(transaction) = &mut self.mode {
            transaction.answers = transaction.answers.saturating_sub(answers);
            transaction.refused |= refused;
        }
        if let Err((failure, method)) = self.commit_if_answered(link) {
            self.failed_later = Some((failure, method));
        }
        desk.state.touched.insert(self.who.conn);
    }

    fn commit_if_answered(&mut self, link: &mut Link) -> Result<(), (Failure, (u16, u16))> {
        let Mode::Transaction(transaction) = &mut self.mode else { return Ok(()) };
        if transaction.answers > 0 || !matches!(self.awaiting, Some(Awaiting { after: After::Committed, .. }))
        {
            return Ok(());
        }
        self.awaiting = None;
        if std::mem::take(&mut transaction.refused) {
            return Err((Failure::precondition("partial tx completion"), (90, 20)));
        }
        link.method(self.who.channel, TxCommitOk {});
        Ok(())
    }
}
