//! What the connections of a shard share: the topology, routes, who gets what, what is under way.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::buffer::Slice;
use millstream_engine::io::ConnId;
use millstream_engine::reactor::app::Outbox;
use millstream_engine::shard::message::{ConsumerId, Settlement};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use super::alarm::Alarms;
use super::batches::{Asked, Batches, Published};
use super::census::{Census, Count, Holder};
use super::codec::Properties;
use super::counts::Accounts;
use super::error::{Failure, ReplyCode};
use super::flow::Held;
use super::keepers::Keepers;
use super::kept::Everybody;
use super::operations::{DeleteQueue, Done, Operation, Running, Step, Who};
use super::routing::router::{Route, Router, Sent};
use super::topology::Topology;
use super::topology::Vhost;
use super::topology::entries::Owner;
use crate::config::ServerConfig;
use crate::dispatch::{self, Pending};
use crate::metrics::BrokerMetrics;

/// Who waits for an answer of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// An operation.
    Operation(u64),
    /// Those whose messages went together.
    Published(u64),
    /// A transaction, for its settlements.
    Commit(Who),
    /// Nobody: it is only to be noted that it is over.
    Nobody,
    /// Whoever tidies up.
    Tidied,
    /// A connection's timer.
    Timer(ConnId),
    /// The timer after which the shard looks at what is short, and tries again what has failed.
    Tick,
    /// The timer after which it is looked up further which policies hold.
    Renewal,
    /// Whoever looks at the disk.
    Disk,
}

/// What the connections of a shard share.
#[derive(Debug, Default)]
pub struct State {
    /// Exchanges, queues and so on.
    pub topology: Topology,
    /// Where messages go.
    pub router: Router,
    /// Who gets deliveries.
    pub keepers: Keepers,
    /// What all connections keep.
    pub everybody: Everybody,
    /// What is to go to other shards at the end of the step.
    pub batches: Batches,
    /// How many connections and channels there are of whom.
    pub census: Census,
    /// By vhost: what was published to its exchanges.
    pub exchanges: BTreeMap<Vec<u8>, Accounts>,
    /// Connections that something has happened to in this step.
    pub touched: BTreeSet<ConnId>,
    /// What is short.
    pub alarms: Alarms,
    /// Connections that wait until nothing is.
    pub blocked: BTreeSet<ConnId>,
    /// Queues whose publishers wait for consumers.
    pub held: Held,
    /// What has been looked at in this step to find the ways of messages.
    pub work: usize,
    /// Deletions of queues that nobody needs any more which could not be done, by vhost.
    pub again: Vec<(Vec<u8>, DeleteQueue)>,
    operations: BTreeMap<u64, Running>,
    published: BTreeMap<u64, Vec<Published>>,
    next: u64,
}

/// What a step works with.
pub struct Desk<'a> {
    /// The node's settings.
    pub config: &'a ServerConfig,
    /// What is counted.
    pub metrics: &'a BrokerMetrics,
    /// Where requests go.
    pub out: &'a mut Outbox,
    /// Who waits for what.
    pub pending: &'a mut Pending,
    /// What connections share.
    pub state: &'a mut State,
}

/// An operation that is over.
pub struct Ended {
    /// For whom.
    pub who: Who,
    /// In which vhost.
    pub vhost: Vec<u8>,
    /// How it ended.
    pub ended: Result<Done, Failure>,
}

impl Desk<'_> {
    fn number(&mut self) -> u64 {
        self.state.next += 1;
        self.state.next
    }

    /// A shard is asked, after everything that was gathered for it so far.
    pub fn ask(&mut self, origin: Origin, shard: ShardId, request: Request, source: Option<ConnId>) {
        self.flush(source);
        let origin = dispatch::Origin::Amqp(origin);
        dispatch::ask(self.out, self.pending, origin, shard, request, source);
    }

    /// What was gathered goes out.
    pub fn flush(&mut self, source: Option<ConnId>) {
        for (shard, asked) in self.state.batches.take() {
            let (origin, request) = match asked {
                Asked::Publish(publishes, published) => {
                    let number = self.number();
                    self.state.published.insert(number, published);
                    (Origin::Published(number), Request::Publish(publishes))
                }
                Asked::Settle(settlements) => {
                    (Origin::Nobody, Request::Settle { settlements, durable: false })
                }
                Asked::Grant(grants) => (Origin::Nobody, Request::Grant(grants)),
            };
            let origin = dispatch::Origin::Amqp(origin);
            dispatch::ask(self.out, self.pending, origin, shard, request, source);
        }
    }

    /// Settles deliveries, and has `who` told when that is durable. Gives how many answers will come.
    pub fn settle_durably(&mut self, who: Who, settlements: BTreeMap<ShardId, Vec<Settlement>>) -> usize {
        let count = settlements.len();
        for (shard, settlements) in settlements {
            let request = Request::Settle { settlements, durable: true };
            self.ask(Origin::Commit(who), shard, request, Some(who.conn));
        }
        count
    }

    /// Those whose messages went together, when they are answered.
    pub fn published(&mut self, number: u64) -> Vec<Published> {
        self.state.published.remove(&number).expect("what was published is answered once")
    }

    /// Begins an operation for a channel; gives how it ended if that is clear at once.
    pub fn begin(&mut self, running: Running) -> Option<Result<Done, Failure>> {
        let mut running = running;
        let step = running.begin(&self.state.topology);
        let number = self.number();
        self.take_step(number, running, step).map(|(_, ended)| ended)
    }

    /// Begins an operation that nobody waits for.
    pub fn begin_by_itself(&mut self, owner: Option<Owner>, vhost: Vec<u8>, operation: Operation) {
        self.begin(Running::new(None, owner, vhost, operation));
    }

    /// An operation's answer. Gives who is to be told how it ended, if it has.
    pub fn replied(&mut self, number: u64, reply: Reply) -> Option<Ended> {
        let mut running =
            self.state.operations.remove(&number).expect("an operation is answered while it runs");
        let step = running.replied(reply, &self.state.topology);
        let vhost = running.vhost.clone();
        let (who, ended) = self.take_step(number, running, step)?;
        Some(Ended { who: who?, vhost, ended })
    }

    fn take_step(
        &mut self,
        number: u64,
        running: Running,
        step: Step,
    ) -> Option<(Option<Who>, Result<Done, Failure>)> {
        let who = running.who;
        match step {
            Step::Ask(shard, request) => {
                let source = who.map(|who| who.conn);
                self.state.operations.insert(number, running);
                self.ask(Origin::Operation(number), shard, request, source);
                None
            }
            Step::Done(done) => {
                self.follow_up(&running, &done);
                Some((who, Ok(done)))
            }
            Step::Failed(failure) => {
                if let Operation::DeleteQueue(operation) = running.operation() {
                    if let Some((queue, shard)) = operation.closed() {
                        self.ask(Origin::Nobody, shard, Request::OpenQueue(queue), None);
                    }
                    // Nobody will ask for it again: it belonged to a connection, or went with its last consumer.
                    if operation.id.is_some() && failure.code == ReplyCode::ResourceError {
                        self.state.again.push((running.vhost.clone(), operation.anew()));
                    }
                }
                if who.is_none() {
                    tracing::debug!(text = failure.text, "what nobody waited for was not done");
                }
                Some((who, Err(failure)))
            }
        }
    }

    /// What has to follow whoever waits for it: a queue goes with its last consumer, and with its connection.
    fn follow_up(&mut self, running: &Running, done: &Done) {
        if let (Done::Cancelled { queue, left: Some(0) }, None) = (done, running.who) {
            self.delete_if_abandoned(&running.vhost, queue);
        }
    }

    /// Deletes a queue that was to stay as long as it has consumers.
    pub fn delete_if_abandoned(&mut self, vhost: &[u8], queue: &[u8]) {
        if let Some(operation) = self.deletion_if_abandoned(vhost, queue) {
            self.begin_by_itself(None, vhost.to_vec(), operation);
        }
    }

    /// The operation that deletes a queue which was to stay as long as it has consumers, if it is one of those.
    pub fn deletion_if_abandoned(&self, vhost: &[u8], queue: &[u8]) -> Option<Operation> {
        let queue = self.state.topology.vhost(vhost)?.queue(queue)?;
        let delete = DeleteQueue::new(queue.name.clone(), Some(queue.id), true, false);
        queue.value.auto_delete.then_some(Operation::DeleteQueue(delete))
    }

    /// Ends a consumer that nobody speaks for any more.
    pub fn cancel_by_itself(&mut self, vhost: &[u8], queue: &[u8], shard: ShardId, consumer: ConsumerId) {
        let request = Some(Request::CancelConsumer { consumer, release: true });
        let operation = Operation::Ask { queue: queue.to_vec(), shard, request };
        self.begin_by_itself(None, vhost.to_vec(), operation);
    }

    /// The way of a message from an exchange that exists; and whether it depends on its keys alone.
    pub fn route(
        &mut self,
        vhost: &[u8],
        exchange: &[u8],
        key: &[u8],
        more_keys: &[&[u8]],
        properties: &Properties<'_>,
    ) -> (std::sync::Arc<Route>, bool) {
        let random = self.out.random();
        let State { topology, router, work, .. } = &mut *self.state;
        match topology.vhost(vhost) {
            Some(vhost) => {
                let sent = Sent { exchange, key, more_keys, properties, random };
                router.route(topology, vhost, sent, work)
            }
            None => (std::sync::Arc::default(), false),
        }
    }

    /// The vhost of that name.
    pub fn vhost(&self, name: &[u8]) -> Option<&Vhost> {
        self.state.topology.vhost(name)
    }

    /// Sets a timer for a connection.
    pub fn set_timer(&mut self, conn: ConnId, at: Nanos) {
        let origin = dispatch::Origin::Amqp(Origin::Timer(conn));
        dispatch::set_timer(self.out, self.pending, origin, at);
    }

    /// Sets the timer of the shard.
    pub fn set_tick(&mut self, at: Nanos) {
        dispatch::set_timer(self.out, self.pending, dispatch::Origin::Amqp(Origin::Tick), at);
    }

    /// Has it looked up further, in another turn, which policies hold.
    pub fn renew_later(&mut self) {
        let now = self.out.now();
        dispatch::set_timer(self.out, self.pending, dispatch::Origin::Amqp(Origin::Renewal), now);
    }

    /// 128 random bits.
    pub fn random(&mut self) -> [u64; 2] {
        [self.out.random(), self.out.random()]
    }

    /// Tells the other shards how many connections and channels there are here of whoever has limits.
    pub fn tell_census(&mut self, source: Option<ConnId>) {
        let shard = self.out.shard();
        for (holder, count) in self.state.census.news(&self.state.topology) {
            for other in (0..self.out.metadata().shards).map(ShardId).filter(|other| *other != shard) {
                self.tell(other, Told::Census { shard, holder: holder.clone(), count }, source);
            }
        }
    }

    /// Tells a shard's host something about AMQP.
    pub fn tell(&mut self, shard: ShardId, told: Told, source: Option<ConnId>) {
        self.out.tell(shard, Box::new(told), source);
    }
}

/// What shards tell each other about AMQP.
#[derive(Debug)]
pub enum Told {
    /// An answer for whoever waits at `amq.rabbitmq.reply-to`.
    Reply {
        /// On which channel.
        who: Who,
        /// A number that only this channel's askers know.
        secret: u64,
        /// What is kept with a message.
        header: Slice,
        /// The body.
        body: Vec<Slice>,
    },
    /// How many connections and channels a shard has of somebody with limits.
    Census {
        /// Which shard.
        shard: ShardId,
        /// Of whom.
        holder: Holder,
        /// How many.
        count: Count,
    },
}
