//! What goes to other shards, gathered over a step: one request of each sort for each shard.

use std::collections::BTreeMap;
use std::ops::Range;

use millstream_engine::buffer::Slice;
use millstream_engine::shard::message::{ConsumerId, Credit, Few, Message, Publish, Settlement, Verdict};
use millstream_engine::time::WallMs;
use millstream_engine::types::{QueueId, Seq, ShardId};

use super::channel;
use super::operations::Who;
use super::routing::router::Route;
use crate::limits::{AMQP_BODY_COPIED_BYTES_MAX, AMQP_SEND_PIECE_BYTES};

/// Messages that one channel has published one after the other, on their way to queues of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// By whom; nobody waits for what a shard does by itself.
    pub who: Option<Who>,
    /// The number of the first on its channel, if that counts them.
    pub number: Option<u64>,
    /// How many.
    pub count: usize,
    /// How much of what their connection may have under way they take.
    pub bytes: usize,
}

impl Published {
    /// Adds messages that come right behind. `false`: they do not.
    fn join(&mut self, next: Published) -> bool {
        let follows = self.who == next.who
            && match (self.number, next.number) {
                (None, None) => true,
                (Some(number), Some(next)) => number + self.count as u64 == next,
                _ => false,
            };
        if follows {
            self.count += next.count;
            self.bytes += next.bytes;
        }
        follows
    }
}

/// What a message is, beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traits {
    /// Whether it is to be there after a restart.
    pub persistent: bool,
    /// Higher goes first.
    pub priority: u8,
    /// When it ends.
    pub expires_at: Option<WallMs>,
}

/// A message that waits for the step's end. Small bodies lie beside the header.
#[derive(Clone, Debug)]
enum Body {
    Copied(Range<usize>),
    Shared(Few<Slice>),
}

#[derive(Debug)]
struct Outgoing {
    queues: Few<QueueId>,
    header: Range<usize>,
    body: Body,
    traits: Traits,
}

#[derive(Debug, Default)]
struct Batch {
    publishes: Vec<Outgoing>,
    published: Vec<Published>,
    settlements: Vec<Settlement>,
    grants: Vec<(ConsumerId, Credit)>,
}

/// What one shard is asked.
#[derive(Debug)]
pub enum Asked {
    /// To take these messages, published by whom is said, in this order.
    Publish(Vec<Publish>, Vec<Published>),
    /// To settle these deliveries.
    Settle(Vec<Settlement>),
    /// To grant these consumers more.
    Grant(Vec<(ConsumerId, Credit)>),
}

/// What has been gathered.
#[derive(Debug, Default)]
pub struct Batches {
    shards: BTreeMap<ShardId, Batch>,
    /// Headers and small bodies of all messages.
    bytes: Vec<u8>,
    /// How much that was the last time: there may be as much again.
    last_bytes: usize,
    any: bool,
}

impl Batches {
    /// Adds a message for the queues of a route, its header written by `header`; its body may be shared with whatever it came in,
    /// or not. Gives how many bytes of memory it takes until it is answered, over all shards.
    pub fn publish(
        &mut self,
        route: &Route,
        header: impl FnOnce(&mut Vec<u8>),
        body: channel::Body<'_>,
        may_share: bool,
        traits: Traits,
        published: Published,
    ) -> usize {
        let start = self.bytes.len();
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(self.last_bytes.min(AMQP_SEND_PIECE_BYTES));
        }
        header(&mut self.bytes);
        let header = start..self.bytes.len();
        let body = match body {
            channel::Body::Pieces(pieces) if body.bytes() > AMQP_BODY_COPIED_BYTES_MAX => {
                let own = |piece: &Slice| {
                    let tight = !may_share && piece.pinned() > piece.len();
                    if tight { Slice::from(piece.to_vec()) } else { piece.clone() }
                };
                Body::Shared(pieces.iter().map(own).collect())
            }
            _ => {
                for piece in body.pieces() {
                    self.bytes.extend_from_slice(piece);
                }
                Body::Copied(header.end..self.bytes.len())
            }
        };
        let mut bytes = 0;
        for (shard, queues) in &route.shards {
            let published = Published { bytes: published.bytes + size_of_val(&queues[..]), ..published };
            bytes += published.bytes;
            let batch = self.shards.entry(*shard).or_default();
            batch.publishes.push(Outgoing {
                queues: queues.clone(),
                header: header.clone(),
                body: body.clone(),
                traits,
            });
            if batch.published.last_mut().is_none_or(|last| !last.join(published)) {
                batch.published.push(published);
            }
        }
        self.any = true;
        bytes
    }

    /// Adds a settlement. Those in a row become one. What lies between two others is not taken in, even if the consumer keeps
    /// nothing there: it may be on its way to it, having come back from somebody else.
    pub fn settle(
        &mut self,
        shard: ShardId,
        queue: QueueId,
        consumer: ConsumerId,
        seq: Seq,
        verdict: Verdict,
    ) {
        let settlements = &mut self.shards.entry(shard).or_default().settlements;
        self.any = true;
        if let Some(last) = settlements.last_mut()
            && (last.queue, last.consumer, last.verdict) == (queue, consumer, verdict)
            && last.last.next() == seq
        {
            last.last = seq;
            return;
        }
        settlements.push(Settlement { queue, consumer, first: seq, last: seq, verdict });
    }

    /// Adds credit.
    pub fn grant(&mut self, shard: ShardId, consumer: ConsumerId, credit: Credit) {
        self.shards.entry(shard).or_default().grants.push((consumer, credit));
        self.any = true;
    }

    /// Takes what was gathered.
    pub fn take(&mut self) -> Vec<(ShardId, Asked)> {
        let mut asked = Vec::new();
        if !std::mem::take(&mut self.any) {
            return asked;
        }
        self.last_bytes = self.bytes.len();
        let bytes = Slice::from(std::mem::take(&mut self.bytes));
        for (shard, batch) in &mut self.shards {
            let Batch { publishes, published, settlements, grants } = std::mem::take(batch);
            if !publishes.is_empty() {
                let publishes = publishes.into_iter().map(|outgoing| outgoing.publish(&bytes)).collect();
                asked.push((*shard, Asked::Publish(publishes, published)));
            }
            if !settlements.is_empty() {
                asked.push((*shard, Asked::Settle(settlements)));
            }
            if !grants.is_empty() {
                asked.push((*shard, Asked::Grant(grants)));
            }
        }
        asked
    }
}

impl Outgoing {
    fn publish(self, bytes: &Slice) -> Publish {
        let body = match self.body {
            Body::Copied(range) if range.is_empty() => Few::default(),
            Body::Copied(range) => Few::one(bytes.slice(range)),
            Body::Shared(pieces) => pieces,
        };
        let Traits { persistent, priority, expires_at } = self.traits;
        let header = bytes.slice(self.header);
        Publish { queues: self.queues, message: Message { header, body, persistent, priority, expires_at } }
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::io::ConnId;

    use super::*;

    #[test]
    fn settlements_in_a_row_become_one() {
        let mut batches = Batches::default();
        let queue = QueueId([1; 16]);
        let mut settle = |consumer, seq, verdict| {
            batches.settle(ShardId(0), queue, ConsumerId(consumer), Seq(seq), verdict);
        };
        settle(1, 5, Verdict::Ack);
        settle(1, 6, Verdict::Ack);
        settle(1, 8, Verdict::Ack);
        settle(1, 9, Verdict::Reject);
        settle(2, 10, Verdict::Reject);
        let asked = batches.take();
        let [(ShardId(0), Asked::Settle(settlements))] = &asked[..] else { panic!("{asked:?}") };
        let ranges: Vec<_> =
            settlements.iter().map(|one| (one.consumer.0, one.first.0, one.last.0)).collect();
        assert_eq!(ranges, [(1, 5, 6), (1, 8, 8), (1, 9, 9), (2, 10, 10)]);
        assert!(batches.take().is_empty());
    }

    #[test]
    fn messages_of_a_channel_are_answered_together_as_long_as_their_numbers_follow() {
        let who = |channel| Some(Who { conn: ConnId(1), channel, life: 1 });
        let of = |channel, number| Published { who: who(channel), number, count: 1, bytes: 10 };
        let mut first = of(1, Some(4));
        assert!(first.join(of(1, Some(5))) && first.join(of(1, Some(6))));
        assert_eq!(first, Published { count: 3, bytes: 30, ..of(1, Some(4)) });
        assert!(!first.join(of(1, Some(8))), "the one between went to another shard");
        assert!(!first.join(of(2, Some(7))) && !first.join(of(1, None)));
        assert_eq!(first.count, 3);
        let mut plain = of(1, None);
        assert!(plain.join(of(1, None)) && !plain.join(of(1, Some(1))));
    }

    #[test]
    fn a_message_reaches_every_shard_of_its_route() {
        let mut batches = Batches::default();
        let queue = QueueId([1; 16]);
        let route =
            Route { shards: vec![(ShardId(0), vec![queue].into()), (ShardId(1), vec![queue].into())] };
        let traits = Traits { persistent: true, priority: 3, expires_at: None };
        let published = Published { who: None, number: None, count: 1, bytes: 5 };
        let large = Slice::from(vec![7; AMQP_BODY_COPIED_BYTES_MAX + 1]);
        for body in [vec![Slice::from(vec![1, 2]), Slice::from(vec![3])], vec![large]] {
            let header = |bytes: &mut Vec<u8>| bytes.extend_from_slice(b"h");
            let body = channel::Body::Pieces(&body);
            let bytes = batches.publish(&route, header, body, true, traits, published);
            assert_eq!(bytes, 2 * (5 + 16), "each shard has its list of queues");
        }
        let asked = batches.take();
        assert_eq!(asked.len(), 2);
        for (_, asked) in asked {
            let Asked::Publish(publishes, published) = asked else { panic!("{asked:?}") };
            assert_eq!(published, [Published { count: 2, bytes: 2 * (5 + 16), ..published[0] }]);
            let bodies: Vec<usize> = publishes.iter().map(|publish| publish.message.bytes() - 1).collect();
            assert_eq!(bodies, [3, AMQP_BODY_COPIED_BYTES_MAX + 1]);
            assert_eq!(&publishes[0].message.header[..], b"h");
            assert_eq!(&publishes[0].message.body[0][..], [1, 2, 3]);
        }
    }
}
