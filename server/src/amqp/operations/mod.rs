//! What takes more than one step: declarations, deletions, bindings, and whatever asks a queue's shard. Each looks at the topology,
//! asks for one thing at a time, and looks again if what it relied on has changed meanwhile.

mod bindings;
mod edits;
mod exchanges;
mod queues;

use millstream_engine::error::Refusal;
use millstream_engine::io::ConnId;
use millstream_engine::shard::message::Delivery;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::{QueueId, ShardId};

pub use self::bindings::{Bind, Unbind};
pub use self::edits::{binding_edits, tidying_edits};
pub use self::exchanges::{DeclareExchange, DeleteExchange};
pub use self::queues::{DeclareQueue, DeleteQueue};
use super::error::{Failure, ReplyCode, Text};
use super::topology::entries::Owner;
use super::topology::{Topology, Vhost};
use crate::limits::AMQP_OPERATION_TRIES_MAX;

/// Where changes of metadata go.
pub const METADATA_SHARD: ShardId = ShardId(0);

/// On whose behalf something is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who {
    /// Which connection.
    pub conn: ConnId,
    /// Which of its channels.
    pub channel: u16,
    /// Which of the lives of that channel.
    pub life: u32,
}

/// What an operation sees of the node.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// All of it.
    pub topology: &'a Topology,
    /// The vhost that it is about.
    pub vhost: &'a Vhost,
    /// The connection that it is for; what belongs to that connection alone is open to it.
    pub owner: Option<Owner>,
}

/// What an operation does next.
#[derive(Debug)]
pub enum Step {
    /// It asks a shard.
    Ask(ShardId, Request),
    /// It is done.
    Done(Done),
    /// It cannot be done.
    Failed(Failure),
}

/// What came of it.
#[derive(Debug)]
pub enum Done {
    /// It is as it was to be, and there is nothing to tell.
    Ok,
    /// The queue is there.
    QueueDeclared {
        /// Its name.
        name: Vec<u8>,
        /// Its incarnation.
        id: QueueId,
        /// Messages that wait.
        messages: u64,
        /// Consumers.
        consumers: u32,
        /// It was made now, and belongs to the connection alone.
        own: bool,
    },
    /// So many messages are gone, with their queue or without.
    Messages(u64),
    /// A message, if there was one, and how many are left.
    Got(Option<Delivery>, u64),
    /// A consumer is there.
    Consuming,
    /// A consumer is gone.
    Cancelled {
        /// Its queue.
        queue: Vec<u8>,
        /// How many are left, if that is known.
        left: Option<u32>,
    },
}

/// What is to be done.
#[derive(Debug)]
pub enum Operation {
    /// Make an exchange, or see whether it is as expected.
    DeclareExchange(DeclareExchange),
    /// Delete an exchange.
    DeleteExchange(DeleteExchange),
    /// Bind.
    Bind(Bind),
    /// Take a binding back.
    Unbind(Unbind),
    /// Make a queue, or see whether it is as expected.
    DeclareQueue(DeclareQueue),
    /// Delete a queue.
    DeleteQueue(DeleteQueue),
    /// Ask a queue's shard one thing.
    Ask {
        /// The queue's name.
        queue: Vec<u8>,
        /// Its shard.
        shard: ShardId,
        /// What; taken when it is asked.
        request: Option<Request>,
    },
}

/// An operation that is under way.
#[derive(Debug)]
pub struct Running {
    /// For whom; nobody waits for what a shard does by itself.
    pub who: Option<Who>,
    /// The connection whose own queues it may touch.
    pub owner: Option<Owner>,
    /// In which vhost.
    pub vhost: Vec<u8>,
    operation: Operation,
    tries: u32,
}

impl Running {
    /// An operation that has not begun.
    pub fn new(who: Option<Who>, owner: Option<Owner>, vhost: Vec<u8>, operation: Operation) -> Running {
        Running { who, owner, vhost, operation, tries: 0 }
    }

    /// What it is about.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    fn with_view(
        &mut self,
        topology: &Topology,
        step: impl FnOnce(&mut Operation, View<'_>) -> Step,
    ) -> Step {
        let Some(vhost) = topology.vhost(&self.vhost) else {
            return Step::Failed(Failure::not_found(format!("no vhost '{}'", Text(&self.vhost))));
        };
        step(&mut self.operation, View { topology, vhost, owner: self.owner })
    }

    /// Looks at the topology and takes the first step.
    pub fn begin(&mut self, topology: &Topology) -> Step {
        self.with_view(topology, |operation, view| match operation {
            Operation::DeclareExchange(operation) => operation.begin(view),
            Operation::DeleteExchange(operation) => operation.begin(view),
            Operation::Bind(operation) => operation.begin(view),
            Operation::Unbind(operation) => operation.begin(view),
            Operation::DeclareQueue(operation) => operation.begin(view),
            Operation::DeleteQueue(operation) => operation.begin(view),
            Operation::Ask { shard, request, .. } => {
                Step::Ask(*shard, request.take().expect("it is asked once"))
            }
        })
    }

    /// Takes the answer to what was asked last.
    pub fn replied(&mut self, reply: Reply, topology: &Topology) -> Step {
        if let Reply::Refused(Refusal::Conflict | Refusal::QueueExists(_)) = reply {
            self.tries += 1;
            if self.tries > AMQP_OPERATION_TRIES_MAX {
                return Step::Failed(Failure::new(
                    ReplyCode::ResourceError,
                    "others keep changing what this depends on",
                ));
            }
            return self.begin(topology);
        }
        self.with_view(topology, |operation, view| match operation {
            Operation::DeclareExchange(_)
            | Operation::DeleteExchange(_)
            | Operation::Bind(_)
            | Operation::Unbind(_) => match reply {
                Reply::Changed(_) => Step::Done(Done::Ok),
                Reply::Refused(refusal) => Step::Failed(Failure::of(&refusal, b"", &view.vhost.name)),
                other => panic!("a change was answered {other:?}"),
            },
            Operation::DeclareQueue(operation) => operation.replied(reply, view),
            Operation::DeleteQueue(operation) => operation.replied(reply, view),
            Operation::Ask { queue, .. } => match reply {
                Reply::Purged(messages) => Step::Done(Done::Messages(messages)),
                Reply::Got(delivery, left) => Step::Done(Done::Got(delivery, left)),
                Reply::Consuming { .. } => Step::Done(Done::Consuming),
                Reply::Cancelled { consumers } => {
                    Step::Done(Done::Cancelled { queue: queue.clone(), left: Some(consumers) })
                }
                // The consumer's queue went before it did, or it was cancelled before.
                Reply::Refused(Refusal::UnknownConsumer) => {
                    Step::Done(Done::Cancelled { queue: queue.clone(), left: None })
                }
                Reply::Refused(Refusal::QueueInUse) => Step::Failed(Failure::refused(format!(
                    "{} in exclusive use",
                    super::error::queue_in(queue, &view.vhost.name)
                ))),
                Reply::Refused(refusal) => Step::Failed(Failure::of(&refusal, queue, &view.vhost.name)),
                other => panic!("a queue was asked, and answered {other:?}"),
            },
        })
    }
}
