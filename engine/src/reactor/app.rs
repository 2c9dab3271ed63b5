//! The one way up: what a host implements, and what it may ask for.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::buffer::{Block, Slice};
use crate::io::random::Random;
use crate::io::{CloseReason, ConnId, Job};
use crate::shard::message::{CancelReason, ConsumerId, DeadLetter, Delivery, Flow};
use crate::shard::metadata::Metadata;
pub use crate::shard::request::AppToken;
use crate::shard::request::{Reply, Request};
use crate::time::{Nanos, WallMs};
use crate::types::{QueueId, ShardId};

/// The host's part of one shard: connections, protocols, whatever it serves. One value per shard, touched by that
/// shard's thread only; it runs unchanged in the simulator.
pub trait App {
    /// Takes one event. Everything it wants done goes into `out`; it must not block, and should take well under a
    /// millisecond.
    fn step(&mut self, event: AppEvent, out: &mut Outbox);
}

/// A host may choose its app when it runs.
impl<T: App + ?Sized> App for Box<T> {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        (**self).step(event, out);
    }
}

/// What happened.
#[derive(Debug)]
pub enum AppEvent {
    /// The shard is about to serve: the first event, once.
    Started,
    /// A connection is this shard's now.
    Accepted {
        /// Which.
        conn: ConnId,
        /// Who connected.
        peer: SocketAddr,
        /// The address they dialled.
        local: SocketAddr,
        /// Which of the addresses that the node listens at, in the order in which they were given.
        listener: u16,
    },
    /// Bytes came in, in order.
    Received(ConnId, Slice),
    /// All that has come in on a connection so far was handed over; in answer to [`Output::CatchUp`].
    CaughtUp(ConnId),
    /// What was sent last has been taken whole by the kernel: the next [`Output::Send`] may follow.
    SendDone(ConnId),
    /// What was sent last takes long, and keeps no slab any more. What waits behind it had better keep none either
    /// ([`Slice::loosen`]). May be told again.
    Slow(ConnId),
    /// What was sent last has not been taken for long, and others have no memory left to be answered from: close it.
    Stuck(ConnId),
    /// Reads wait for memory, of this shard or of another: what has been read and is not being sent is to keep none. It is
    /// planned, and can be loaded when its turn has come. Told again and again while that is so.
    LetGo,
    /// The connection is over; nothing about it follows.
    Closed(ConnId, CloseReason),
    /// A timer has run out.
    Timer(AppToken),
    /// A shard's answer.
    Reply(AppToken, Reply),
    /// An offloaded job's result.
    Offloaded(AppToken, Box<dyn Any + Send>),
    /// What the host of a shard, perhaps this one, has to say: [`Output::Tell`].
    Told {
        /// That shard.
        from: ShardId,
        /// What it says.
        message: Box<dyn Any + Send>,
    },
    /// What a thread has to say that is no shard's: [`super::node::Caller::call`].
    Called(Box<dyn Any + Send>),
    /// Messages for consumers of this shard, from one shard: all that came of one turn there.
    Delivered(Vec<Delivery>),
    /// A consumer of this shard was ended by its queue.
    ConsumerCancelled {
        /// Which.
        consumer: ConsumerId,
        /// The queue.
        queue: QueueId,
        /// Why.
        reason: CancelReason,
    },
    /// Queues, of whatever shard, whose publishers had better wait before they send more, or need not any more. A queue that
    /// nothing was told of is free; one that is deleted is told to be.
    Flow(Vec<Flow>),
    /// A message of a queue of this shard is to leave it: route it, and answer with
    /// [`crate::shard::request::Request::Move`]. At most [`crate::limits::LEAVING_TOLD_MAX`] are asked about at a time.
    DeadLettered(DeadLetter),
    /// A queue of this shard was not used for as long as its settings allow: delete it, if that is so still (close it
    /// with `if_unused` first). Told again if it is not.
    QueueExpired(QueueId),
    /// There is new metadata, see [`Outbox::metadata`].
    MetadataChanged,
    /// The node is stopping: answer what can be answered, take nothing new.
    Stopping,
}

/// What the host wants done.
pub enum Output {
    /// Send slices on a connection, gathered, in order. One at a time per connection: wait for [`AppEvent::SendDone`].
    Send(ConnId, Vec<Slice>),
    /// Turn reading from a connection on or off.
    Read(ConnId, bool),
    /// Say [`AppEvent::CaughtUp`] when the host has seen all that has come in on a connection.
    CatchUp(ConnId),
    /// Put what comes in next on a connection into this block until it is full: every [`AppEvent::Received`] is then right
    /// behind the one before, so that both are one piece. One block at a time per connection, and only in answer to
    /// [`AppEvent::CaughtUp`]: else something may be on its way to the host already. That it is done is not promised.
    ReceiveInto(ConnId, Block),
    /// Close a connection.
    Close(ConnId),
    /// Set a timer. It cannot be taken back: ignore it when it comes too late.
    SetTimer(AppToken, Nanos),
    /// Ask a shard. If that shard's mailbox is full, the request waits, and reading from `source` is off meanwhile.
    Engine {
        /// Returned with the reply.
        token: AppToken,
        /// Whom to ask; `dispatch` finds it in the metadata.
        shard: ShardId,
        /// What.
        request: Request,
        /// The connection on whose behalf.
        source: Option<ConnId>,
    },
    /// Tell the host of a shard something: [`AppEvent::Told`] there. One way: an answer is another message. Messages from
    /// one shard to another arrive in the order they were told, behind what was asked of that shard before. Without room
    /// in its mailbox the message waits like a request; the room is given back as soon as the host there has been told,
    /// so whoever may tell without end needs a bound of its own.
    Tell {
        /// Whom.
        shard: ShardId,
        /// What.
        message: Box<dyn Any + Send>,
        /// The connection on whose behalf.
        source: Option<ConnId>,
    },
    /// Run a job on a helper thread.
    Offload(AppToken, Job),
}

/// Where a step leaves what it wants done, and looks at what it may know. Owned by the reactor and reused.
pub struct Outbox {
    pub(super) outputs: Vec<Output>,
    pub(super) now: Nanos,
    pub(super) wall_ms: WallMs,
    pub(super) shard: ShardId,
    pub(super) metadata: Arc<Metadata>,
    pub(super) random: Random,
}

impl Outbox {
    /// An empty outbox. The reactor makes its own; hosts make one to test themselves.
    pub fn new(shard: ShardId, metadata: Arc<Metadata>) -> Outbox {
        let random = Random::stream(u64::from(shard.0), "outbox");
        Outbox { outputs: Vec::new(), now: Nanos::ZERO, wall_ms: WallMs(0), shard, metadata, random }
    }

    /// A random number, for names that must not repeat.
    pub fn random(&mut self) -> u64 {
        self.random.next()
    }

    /// The monotonic clock, as of this step.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// The wall clock, as of this step.
    pub fn wall_ms(&self) -> WallMs {
        self.wall_ms
    }

    /// The shard that steps.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The node's metadata that this shard has applied.
    pub fn metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    /// Sets the clocks; for a host's own tests.
    pub fn set_clocks(&mut self, now: Nanos, wall_ms: WallMs) {
        self.now = now;
        self.wall_ms = wall_ms;
    }

    /// Sets what random numbers come; for a host's own tests.
    pub fn set_random(&mut self, random: Random) {
        self.random = random;
    }

    /// Takes what was left here, in order; for a host's own tests.
    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Sends on a connection.
    pub fn send(&mut self, conn: ConnId, slices: Vec<Slice>) {
        self.outputs.push(Output::Send(conn, slices));
    }

    /// Turns reading on or off.
    pub fn read(&mut self, conn: ConnId, on: bool) {
        self.outputs.push(Output::Read(conn, on));
    }

    /// Has it said when all that has come in on a connection was seen here.
    pub fn catch_up(&mut self, conn: ConnId) {
        self.outputs.push(Output::CatchUp(conn));
    }

    /// Has what comes in next on a connection put into `room`, until that is full; see [`Output::ReceiveInto`].
    pub fn receive_into(&mut self, conn: ConnId, room: Block) {
        self.outputs.push(Output::ReceiveInto(conn, room));
    }

    /// Closes a connection.
    pub fn close(&mut self, conn: ConnId) {
        self.outputs.push(Output::Close(conn));
    }

    /// Sets a timer to run out at `at`.
    pub fn set_timer(&mut self, token: AppToken, at: Nanos) {
        self.outputs.push(Output::SetTimer(token, at));
    }

    /// Asks a shard, on behalf of a connection if there is one.
    pub fn engine(&mut self, token: AppToken, shard: ShardId, request: Request, source: Option<ConnId>) {
        self.outputs.push(Output::Engine { token, shard, request, source });
    }

    /// Tells the host of a shard something, on behalf of a connection if there is one.
    pub fn tell(&mut self, shard: ShardId, message: Box<dyn Any + Send>, source: Option<ConnId>) {
        self.outputs.push(Output::Tell { shard, message, source });
    }

    /// Runs a job on a helper thread.
    pub fn offload(&mut self, token: AppToken, job: Job) {
        self.outputs.push(Output::Offload(token, job));
    }
}
