//! What goes to other shards, gathered over a step: one request of each sort for each shard.

use std::collections::BTreeMap;
use std::ops::Range;

use millstream_engine::buffer::Slice;
use millstream_engine::shard::message::{ConsumerId, Credit, Message, Publish, Settlement, Verdict};
use millstream_engine::time::WallMs;
use millstream_engine::types::{QueueId, Seq, ShardId};

use super::operations::Who;
use super::routing::router::Route;
use crate::limits::AMQP_BODY_COPIED_BYTES_MAX;

/// A message that was published, on its way to its queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// By whom; nobody waits for what a shard does by itself.
    pub who: Option<Who>,
    /// Its number on its channel, if that counts them.
    pub number: Option<u64>,
    /// How much of what its connection may have under way it takes.
    pub bytes: usize,
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
    Shared(Vec<Slice>),
}

#[derive(Debug)]
struct Outgoing {
    queues: Vec<QueueId>,
    header: Range<usize>,
    body: Body,
    traits: Traits,
    published: Published,
}

#[derive(Debug, Default)]
struct Batch {
    publishes: Vec<Outgoing>,
    settlements: Vec<Settlement>,
    grants: Vec<(ConsumerId, Credit)>,
}

/// What one shard is asked.
#[derive(Debug)]
pub enum Asked {
    /// To take these messages, each published by whom is said.
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
    any: bool,
}

impl Batches {
    /// Adds a message for the queues of a route, its header written by `header`; its body may be shared with whatever it came in,
    /// or not. Gives how many bytes of memory it takes until it is answered, over all shards.
    pub fn publish(
        &mut self,
        route: &Route,
        header: impl FnOnce(&mut Vec<u8>),
        body: &[Slice],
        may_share: bool,
        traits: Traits,
        published: Published,
    ) -> usize {
        let start = self.bytes.len();
        header(&mut self.bytes);
        let header = start..self.bytes.len();
        let body_bytes: usize = body.iter().map(|piece| piece.len()).sum();
        let body = if body_bytes <= AMQP_BODY_COPIED_BYTES_MAX {
            for piece in body {
                self.bytes.extend_from_slice(piece);
            }
            Body::Copied(header.end..self.bytes.len())
        } else if may_share {
            Body::Shared(body.to_vec())
        } else {
            let own = |piece: &Slice| {
                let tight = piece.pinned() > piece.len();
                if tight { Slice::from(piece.to_vec()) } else { piece.clone() }
            };
            Body::Shared(body.iter().map(own).collect())
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
                published,
            });
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
        let bytes = Slice::from(std::mem::take(&mut self.bytes));
        for (shard, batch) in &mut self.shards {
            let Batch { publishes, settlements, grants } = std::mem::take(batch);
            if !publishes.is_empty() {
                let published = publishes.iter().map(|outgoing| outgoing.published).collect();
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
            Body::Copied(range) if range.is_empty() => Vec::new(),
            Body::Copied(range) => vec![bytes.slice(range)],
            Body::Shared(pieces) => pieces,
        };
        let Traits { persistent, priority, expires_at } = self.traits;
        let header = bytes.slice(self.header);
        Publish { queues: self.queues, message: Message { header, body, persistent, priority, expires_at } }
    }
}

#[cfg(test)]
mod tests {
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
    fn a_message_reaches_every_shard_of_its_route() {
        let mut batches = Batches::default();
        let queue = QueueId([1; 16]);
        let route = Route { shards: vec![(ShardId(0), vec![queue]), (ShardId(1), vec![queue])] };
        let traits = Traits { persistent: true, priority: 3, expires_at: None };
        let published = Published { who: None, number: None, bytes: 5 };
        let large = Slice::from(vec![7; AMQP_BODY_COPIED_BYTES_MAX + 1]);
        for body in [vec![Slice::from(vec![1, 2]), Slice::from(vec![3])], vec![large]] {
            let header = |bytes: &mut Vec<u8>| bytes.extend_from_slice(b"h");
            let bytes = batches.publish(&route, header, &body, true, traits, published);
            assert_eq!(bytes, 2 * (5 + 16), "each shard has its list of queues");
        }
        let asked = batches.take();
        assert_eq!(asked.len(), 2);
        for (_, asked) in asked {
            let Asked::Publish(publishes, published) = asked else { panic!("{asked:?}") };
            assert_eq!(published.len(), 2);
            let bodies: Vec<usize> = publishes.iter().map(|publish| publish.message.bytes() - 1).collect();
            assert_eq!(bodies, [3, AMQP_BODY_COPIED_BYTES_MAX + 1]);
            assert_eq!(&publishes[0].message.header[..], b"h");
            assert_eq!(&publishes[0].message.body[0][..], [1, 2, 3]);
        }
    }
}
