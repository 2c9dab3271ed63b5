//! What the management thread asks of a shard's part of the broker. It is asked for little and answers at once: lists are put together,
//! sorted and written on the thread that asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_engine::io::ConnId;
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::WallMs;
use tokio::sync::oneshot;

use crate::amqp::report::ConnectionReport;

/// A question. Whoever asks may have gone when it is answered.
#[derive(Debug)]
pub enum Call {
    /// What the shard knows of the node.
    News(oneshot::Sender<News>),
    /// A request to the engine's part of this shard.
    Engine(Request, oneshot::Sender<Reply>),
    /// Some of the AMQP connections of this shard, in order.
    Connections(ConnectionsWanted, oneshot::Sender<Connections>),
    /// What was published to exchanges on this shard.
    Exchanges(oneshot::Sender<Exchanges>),
    /// Close a connection, and say why. Answered whether there is such a one.
    Close(ConnId, String, oneshot::Sender<bool>),
}

/// What a shard knows of the node, and what no other thread has by itself.
#[derive(Debug, Default)]
pub struct News {
    /// The metadata.
    pub metadata: Arc<Metadata>,
    /// The wall clock.
    pub now: WallMs,
    /// Numbers that nobody can foretell.
    pub random: [u64; 2],
}

/// Which connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionsWanted {
    /// Those behind this one.
    pub after: Option<ConnId>,
    /// Only this one.
    pub only: Option<ConnId>,
}

/// By vhost and name: messages that came to an exchange, and queues that they went to.
pub type Exchanges = Vec<((Vec<u8>, Vec<u8>), (u64, u64))>;

/// Some connections, and whether there are more behind the last one.
#[derive(Debug, Default)]
pub struct Connections {
    /// In order of their numbers.
    pub reports: Vec<ConnectionReport>,
    /// Go on behind this one.
    pub next: Option<ConnId>,
}

/// Who waits for what the engine was asked on their behalf.
#[derive(Debug, Default)]
pub struct Waiting {
    callers: BTreeMap<u64, oneshot::Sender<Reply>>,
    next: u64,
}

impl Waiting {
    /// Somebody waits from now on; gives the number under which the answer is to be handed over.
    pub fn insert(&mut self, caller: oneshot::Sender<Reply>) -> u64 {
        self.next += 1;
        self.callers.insert(self.next, caller);
        self.next
    }

    /// Hands an answer over.
    pub fn answer(&mut self, number: u64, reply: Reply) {
        if let Some(caller) = self.callers.remove(&number) {
            // Nobody waits any more: it took too long.
            let _ = caller.send(reply);
        }
    }
}
