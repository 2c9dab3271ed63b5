//! The management thread's way to the node: what it knows of it, which it brings up to date with each request, and what it asks of shards.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_engine::io::ConnId;
use millstream_engine::reactor::node::Caller;
use millstream_engine::shard::change::{EntryKey, MetadataChange};
use millstream_engine::shard::message::QueueStats;
use millstream_engine::shard::metadata::{Entry, Metadata};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::WallMs;
use millstream_engine::types::{QueueId, ShardId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::call::{Call, Connections, ConnectionsWanted, Exchanges, News};
use super::problem::Problem;
use crate::amqp::operations::{Done, METADATA_SHARD, Operation, Running, Step};
use crate::amqp::topology::Topology;
use crate::amqp::topology::entries::Owner;
use crate::limits::{MANAGEMENT_ASKED_MAX, MANAGEMENT_WAIT};

/// Nobody's connection: what belongs to a connection alone is closed to the management.
const NO_CONNECTION: Owner = Owner { shard: u16::MAX, conn: u64::MAX };

/// The node, as the management thread sees it.
#[derive(Debug)]
pub struct Node {
    caller: Caller,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    topology: Topology,
    news: News,
}

impl Node {
    /// A node that is reached so.
    pub fn new(caller: Caller) -> Node {
        Node { caller, known: Mutex::default() }
    }

    /// Its shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.caller.shards()
    }

    async fn call<A>(
        &self,
        shard: ShardId,
        call: impl FnOnce(oneshot::Sender<A>) -> Call,
    ) -> Result<A, Problem> {
        let (sender, answer) = oneshot::channel();
        self.caller
            .call(shard, Box::new(call(sender)))
            .map_err(|_| Problem::unavailable("the node is too busy"))?;
        match timeout(MANAGEMENT_WAIT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Problem::unavailable("the node is stopping")),
            Err(_) => Err(Problem::unavailable("a shard of the node does not answer")),
        }
    }

    /// Asks the engine's part of a shard.
    pub async fn ask(&self, shard: ShardId, request: Request) -> Result<Reply, Problem> {
        self.call(shard, |answer| Call::Engine(request, answer)).await
    }

    /// Brings what is known up to date.
    pub async fn refresh(&self) -> Result<(), Problem> {
        let news = self.call(METADATA_SHARD, Call::News).await?;
        let mut known = self.known();
        // Two requests may ask at the same time, and what was asked first be answered last.
        if news.metadata.epoch > known.topology.epoch() || known.news.metadata.shards == 0 {
            known.topology.follow(&news.metadata);
            known.topology.renew(usize::MAX);
            known.news = news;
        } else {
            known.news = News { metadata: Arc::clone(&known.news.metadata), ..news };
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wall clock, as of the last [`Node::refresh`].
    pub fn now(&self) -> WallMs {
        self.known().news.now
    }

    /// A number that nobody can foretell.
    pub fn random(&self) -> u64 {
        let [mut state, key] = self.known().news.random;
        // Several numbers may be needed before there is news: each is the last one, stirred.
        state = (state ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) ^ key;
        self.known().news.random = [state, key];
        state
    }

    /// Looks at vhosts, queues and so on, as they were at the last [`Node::refresh`].
    pub fn look<R>(&self, work: impl FnOnce(&Topology) -> R) -> R {
        work(&self.known().topology)
    }

    /// Looks at the metadata that this comes from, too.
    pub fn look_deep<R>(&self, work: impl FnOnce(&Topology, &Metadata) -> R) -> R {
        let known = self.known();
        work(&known.topology, &known.news.metadata)
    }

    /// Changes the metadata; what is known afterwards is at least as new. `false`: a guard of it did not hold.
    pub async fn change(&self, change: MetadataChange) -> Result<bool, Problem> {
        let reply = self.ask(METADATA_SHARD, Request::ChangeMetadata(change)).await?;
        self.refresh().await?;
        match reply {
            Reply::Changed(_) => Ok(true),
            Reply::Refused(millstream_engine::error::Refusal::Conflict) => Ok(false),
            Reply::Refused(refusal) => Err(Problem::refused(&refusal)),
            other => panic!("a change was answered {other:?}"),
        }
    }

    /// Does something in a vhost that may take several steps.
    pub async fn run(&self, vhost: &[u8], operation: Operation) -> Result<Done, Problem> {
        let mut running = Running::new(None, Some(NO_CONNECTION), vhost.to_vec(), operation);
        let mut step = self.look(|topology| running.begin(topology));
        loop {
            match step {
                Step::Ask(shard, request) => {
                    let reply = self.ask(shard, request).await?;
                    self.refresh().await?;
                    step = self.look(|topology| running.replied(reply, topology));
                }
                Step::Done(done) => return Ok(done),
                Step::Failed(failure) => {
                    if let Operation::DeleteQueue(deletion) = running.operation()
                        && let Some((queue, shard)) = deletion.closed()
                    {
                        self.ask(shard, Request::OpenQueue(queue)).await?;
                    }
                    return Err(Problem::failed(&failure));
                }
            }
        }
    }

    /// How queues stand, in the order asked; of those that have just gone, nothing. Use [`MANAGEMENT_ASKED_MAX`] at a time.
    pub async fn stats(&self, queues: &[(ShardId, QueueId)]) -> Result<Vec<(QueueId, QueueStats)>, Problem> {
        let mut found = Vec::with_capacity(queues.len());
        for shard in self.shards() {
            let here: Vec<QueueId> =
                queues.iter().filter(|(other, _)| *other == shard).map(|(_, queue)| *queue).collect();
            for some in here.chunks(MANAGEMENT_ASKED_MAX) {
                let request = Request::QueueStats { queues: some.to_vec(), touch: false };
                match self.ask(shard, request).await? {
                    Reply::QueueStats(stats) => found.extend(stats),
                    Reply::Refused(refusal) => return Err(Problem::refused(&refusal)),
                    other => panic!("how queues stand was answered {other:?}"),
                }
            }
        }
        Ok(found)
    }

    /// Some of a shard's AMQP connections.
    pub async fn connections(
        &self,
        shard: ShardId,
        wanted: ConnectionsWanted,
    ) -> Result<Connections, Problem> {
        self.call(shard, |answer| Call::Connections(wanted, answer)).await
    }

    /// What was published to exchanges on a shard, and to how many queues it went.
    pub async fn exchanges(&self, shard: ShardId) -> Result<Exchanges, Problem> {
        self.call(shard, Call::Exchanges).await
    }

    /// Closes an AMQP connection. Says whether there was one.
    pub async fn close(&self, shard: ShardId, conn: ConnId, reason: String) -> Result<bool, Problem> {
        self.call(shard, |answer| Call::Close(conn, reason, answer)).await
    }
}

/// The host's entries of one sort.
pub fn entries(metadata: &Metadata, kind: u16) -> impl Iterator<Item = (&EntryKey, &Entry)> {
    let (first, behind) = (EntryKey { kind, key: Vec::new() }, EntryKey { kind: kind + 1, key: Vec::new() });
    metadata.entries.range(first..behind)
}
