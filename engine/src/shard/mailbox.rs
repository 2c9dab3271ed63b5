//! How shards talk: bounded rings between every two of them, and the protocol by which one sleeps and is woken.
//!
//! For every ordered pair of shards there is a ring of requests and a ring of replies. A shard has at most as many
//! requests outstanding to a peer as a ring has slots: that is its *credit*, counted where it is spent. So there is
//! always room for a request that has credit, and always room for its reply, and answering never waits. A shard talks
//! to itself through rings like any other.
//!
//! A turn of a shard is: [`Post::take`], work, [`Post::publish`], and when there is nothing left to do,
//! [`Post::announce_sleep`], a poll that blocks, [`Post::awake`].

mod park;
mod ring;
mod sample;

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;

pub use park::{Parking, Published};
pub use ring::{Consumer, Producer, ring};

use sample::Sample;

use crate::limits::{MAILBOX_SLOTS, MAILBOX_SLOTS_INBOUND_MAX, MAILBOX_SLOTS_MIN};
use crate::sync::Arc;
use crate::time::Nanos;
use crate::types::ShardId;

/// Slots of each ring among `shards` shards: fewer when there are many, so that what waits for one shard is bounded.
pub fn slots(shards: u16) -> usize {
    assert!(shards > 0, "a node has at least one shard");
    let share = MAILBOX_SLOTS_INBOUND_MAX / usize::from(shards).next_power_of_two();
    share.clamp(MAILBOX_SLOTS_MIN, MAILBOX_SLOTS)
}

/// The mailboxes of `shards` shards that exchange requests `Q` and replies `R`, one for each, in order of their
/// numbers. `slots` is a power of two and the credit that each shard has with each.
pub fn mesh<Q, R>(shards: u16, slots: usize) -> Vec<Post<Q, R>> {
    let parkings: Vec<_> = (0..shards).map(|_| Arc::new(Parking::default())).collect();
    let mut posts: Vec<_> = (0..shards).map(|id| Post::new(ShardId(id), slots, parkings.clone())).collect();
    for from in 0..usize::from(shards) {
        for to in 0..usize::from(shards) {
            let (requests_out, requests_in) = ring(slots);
            let (replies_out, replies_in) = ring(slots);
            let sample = Arc::new(Sample::default());
            posts[from].outgoing.push(Outgoing {
                requests: requests_out,
                replies: replies_out,
                unpublished: false,
                published: 0,
                sample: Arc::clone(&sample),
            });
            posts[to].incoming.push(Incoming { requests: requests_in, replies: replies_in, sample });
        }
    }
    posts
}

/// A message that came in, and from whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mail<Q, R> {
    /// A request, to be answered by exactly one [`Post::reply`].
    Request(ShardId, Q),
    /// The answer to a request of ours.
    Reply(ShardId, R),
}

/// What goes to one peer.
struct Outgoing<Q, R> {
    requests: Producer<Q>,
    replies: Producer<R>,
    /// Whether something was pushed since the last publish.
    unpublished: bool,
    published: u32,
    sample: Arc<Sample>,
}

/// What comes from one peer.
struct Incoming<Q, R> {
    requests: Consumer<Q>,
    replies: Consumer<R>,
    sample: Arc<Sample>,
}

/// The messages that one shard and one peer owe each other.
#[derive(Clone, Copy, Default)]
struct Balance {
    /// Requests sent that were not answered yet.
    outstanding: usize,
    /// Requests taken that were not answered yet.
    owed: usize,
}

/// One shard's end of the mesh.
///
/// Requests from one shard to another arrive in the order sent, and so do replies. Nothing is promised between the two,
/// nor between peers.
pub struct Post<Q, R> {
    id: ShardId,
    slots: usize,
    outgoing: Vec<Outgoing<Q, R>>,
    incoming: Vec<Incoming<Q, R>>,
    balances: Vec<Balance>,
    parkings: Vec<Arc<Parking>>,
    /// The peers with something unpublished.
    unpublished: Vec<ShardId>,
    /// The peer that the next take begins with.
    next: usize,
    /// The time, for samples of how long messages lie here.
    now: Nanos,
    /// What the last take has found out about that.
    sampled: Option<Nanos>,
}

impl<Q, R> Post<Q, R> {
    fn new(id: ShardId, slots: usize, parkings: Vec<Arc<Parking>>) -> Post<Q, R> {
        let shards = parkings.len();
        Post {
            id,
            slots,
            outgoing: Vec::with_capacity(shards),
            incoming: Vec::with_capacity(shards),
            balances: vec![Balance::default(); shards],
            parkings,
            unpublished: Vec::with_capacity(shards),
            next: 0,
            now: Nanos::ZERO,
            sampled: None,
        }
    }

    /// Whose end this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Requests that can be sent to `to` before one is answered.
    pub fn credit(&self, to: ShardId) -> usize {
        self.slots - self.balances[usize::from(to.0)].outstanding
    }

    /// Sends a request; it leaves with the next [`Post::publish`]. Without credit it is given back: the caller keeps
    /// it, stops reading the source it came from, and tries again when a reply from `to` has come in.
    pub fn send(&mut self, to: ShardId, request: Q) -> Result<(), Q> {
        let peer = usize::from(to.0);
        if self.credit(to) == 0 {
            return Err(request);
        }
        self.balances[peer].outstanding += 1;
        let pushed = self.outgoing[peer].requests.push(request);
        assert!(pushed.is_ok(), "a request with credit found no room in shard {}'s ring", to.0);
        self.mark(to);
        Ok(())
    }

    /// Answers a request that was taken from `to`; leaves with the next [`Post::publish`]. Requests may be answered in
    /// any order, each once.
    pub fn reply(&mut self, to: ShardId, reply: R) {
        let peer = usize::from(to.0);
        let balance = &mut self.balances[peer];
        assert!(balance.owed > 0, "shard {} is answered without having asked", to.0);
        balance.owed -= 1;
        let pushed = self.outgoing[peer].replies.push(reply);
        assert!(
            pushed.is_ok(),
            "a reply found no room in shard {}'s ring, where its request had reserved it",
            to.0
        );
        self.mark(to);
    }

    fn mark(&mut self, to: ShardId) {
        let outgoing = &mut self.outgoing[usize::from(to.0)];
        if !outgoing.unpublished {
            outgoing.unpublished = true;
            self.unpublished.push(to);
        }
    }

    /// Appends at most `most` messages to `into`: replies before requests of each peer, every peer's turn to be first.
    pub fn take(&mut self, most: usize, into: &mut Vec<Mail<Q, R>>) {
        let shards = self.incoming.len();
        let mut left = most;
        let first = self.next;
        for peer in (first..shards).chain(0..first) {
            if left == 0 {
                break;
            }
            self.next = (peer + 1) % shards;
            let from = ShardId(peer as u16);
            let (incoming, balance) = (&mut self.incoming[peer], &mut self.balances[peer]);
            let before = left;
            while left > 0
                && let Some(reply) = incoming.replies.pop()
            {
                assert!(balance.outstanding > 0, "shard {peer} answers what it was not asked");
                balance.outstanding -= 1;
                left -= 1;
                into.push(Mail::Reply(from, reply));
            }
            while left > 0
                && let Some(request) = incoming.requests.pop()
            {
                balance.owed += 1;
                left -= 1;
                into.push(Mail::Request(from, request));
            }
            if left < before
                && from != self.id
                && let Some(published) = incoming.sample.take()
            {
                self.sampled = Some(self.now.since(published));
            }
        }
    }

    /// Tells the time, as of which messages are published and taken. It decides nothing.
    pub fn tell_time(&mut self, now: Nanos) {
        self.now = now;
    }

    /// How long a message from another shard lay here that was taken, if one of those was sampled.
    pub fn take_sample(&mut self) -> Option<Nanos> {
        self.sampled.take()
    }

    /// Lets the peers see what was sent since the last time, and calls `wake` for those of them that sleep: they are
    /// rung by nobody else, so `wake` must not be put off past this shard's own next poll.
    pub fn publish(&mut self, mut wake: impl FnMut(ShardId)) {
        if self.unpublished.is_empty() {
            return;
        }
        for peer in &self.unpublished {
            let outgoing = &mut self.outgoing[usize::from(peer.0)];
            outgoing.sample.publish(outgoing.published, self.now);
            outgoing.published = outgoing.published.wrapping_add(1);
            outgoing.requests.publish();
            outgoing.replies.publish();
            outgoing.unpublished = false;
        }
        let published = Published::fence();
        for peer in self.unpublished.drain(..) {
            if self.parkings[usize::from(peer.0)].must_ring(published) {
                wake(peer);
            }
        }
    }

    /// Whether this shard may block, as far as its peers are concerned: true if they all know that it must be rung from
    /// now on, and none has sent anything. Everything of its own must have been published.
    #[must_use]
    pub fn announce_sleep(&self) -> bool {
        assert!(self.unpublished.is_empty(), "a shard goes to sleep on messages that it has not published");
        let anything =
            || self.incoming.iter().any(|from| !from.replies.is_empty() || !from.requests.is_empty());
        self.parkings[usize::from(self.id.0)].announce_sleep(anything)
    }

    /// Ends what [`Post::announce_sleep`] began; to be called when the poll has returned.
    pub fn awake(&self) {
        self.parkings[usize::from(self.id.0)].awake();
    }

    /// Whether this shard sleeps, for threads that are no shards: they publish to a queue of their own, which the
    /// shard looks at after [`Post::announce_sleep`] said true and before it blocks, then ask [`Parking::must_ring`]
    /// and ring a [`crate::io::Bell`].
    pub fn parking(&self) -> Arc<Parking> {
        Arc::clone(&self.parkings[usize::from(self.id.0)])
    }
}
