//! Messages of queues, on their way in and out: what the host hands over, what it is handed, and how it settles.

use crate::buffer::Slice;
use crate::error::Refusal;
pub use crate::few::Few;
pub use crate::queue::{Credit, LeaveReason, QueueCounts, QueueStats, Verdict};
use crate::time::WallMs;
use crate::types::{QueueId, Seq, ShardId};

/// A message. Stored as it is and given out as it is: the engine understands none of its bytes.
#[derive(Clone, Debug)]
pub struct Message {
    /// What the host keeps with it (exchange, routing key, properties), at most
    /// [`crate::limits::MESSAGE_HEADER_BYTES_MAX`].
    pub header: Slice,
    /// The body, in as many pieces as it came in; with the header at most [`crate::limits::MESSAGE_BYTES_MAX`] bytes.
    pub body: Few<Slice>,
    /// Whether durable queues keep it over a restart.
    pub persistent: bool,
    /// Its priority, where a queue tells priorities apart.
    pub priority: u8,
    /// When it ends if nobody has taken it.
    pub expires_at: Option<WallMs>,
}

impl Message {
    /// Bytes of header and body.
    pub fn bytes(&self) -> usize {
        self.header.len() + self.body.iter().map(|piece| piece.len()).sum::<usize>()
    }
}

/// A message, and the queues of one shard that are to have it: each once.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Which queues. All are on the shard that is asked.
    pub queues: Few<QueueId>,
    /// What.
    pub message: Message,
}

/// What became of a published message: by every queue that is not named here it was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The queues that did not take it, and why: [`Refusal::QueueFull`], [`Refusal::UnknownQueue`] if it is gone, or
    /// what keeps the whole shard from storing.
    pub refused: Vec<(QueueId, Refusal)>,
}

/// Names a consumer, or whoever keeps what it got one by one, among those of one sending shard. Chosen by the host, and
/// not used again before the last one is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConsumerId(pub u64);

/// A consumer that wants messages.
#[derive(Clone, Debug)]
pub struct Consume {
    /// Of which queue.
    pub queue: QueueId,
    /// Its name.
    pub consumer: ConsumerId,
    /// Deliveries are settled when they are made.
    pub no_ack: bool,
    /// It wants to be the only one.
    pub exclusive: bool,
    /// Those with the highest priority are given messages as long as they have credit.
    pub priority: i32,
    /// A timeout of its own, over the queue's.
    pub timeout_ms: Option<u64>,
    /// What may be delivered at once.
    pub credit: Credit,
}

/// A message on its way to a consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// To whom.
    pub consumer: ConsumerId,
    /// From where.
    pub queue: QueueId,
    /// Names it, when it is settled.
    pub seq: Seq,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// How often it has come back failed.
    pub delivery_count: u32,
    /// What the host keeps with it.
    pub header: Slice,
    /// The body, whole.
    pub body: Slice,
}

/// The end of deliveries: all that this consumer keeps of this queue from `first` to `last`. What it does not keep (any
/// more) is skipped, so the messages of other consumers may lie in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settlement {
    /// Which queue.
    pub queue: QueueId,
    /// Who keeps them.
    pub consumer: ConsumerId,
    /// The first.
    pub first: Seq,
    /// The last.
    pub last: Seq,
    /// What becomes of them.
    pub verdict: Verdict,
}

/// Why a consumer was ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CancelReason {
    /// Its queue was deleted. What it keeps is gone.
    QueueDeleted,
    /// It has kept a delivery for too long. What it keeps has gone back.
    Timeout,
    /// Its queue's shard stores nothing any more, and so settles nothing.
    Poisoned,
}

/// Whether a queue has so much waiting for consumers that keep the shard busy that whoever publishes to it had better wait. It is
/// never so for long; see [`crate::limits::FLOW_HELD`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Which queue.
    pub queue: QueueId,
    /// From now on, or not any more.
    pub is_held: bool,
}

/// A message that is to leave its queue, told to the host of the shard that the queue is on. The queue keeps it until the
/// host says by [`super::request::Request::Move`] where it goes; after a crash the host is told again.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// From where.
    pub queue: QueueId,
    /// Which message.
    pub seq: Seq,
    /// Why.
    pub reason: LeaveReason,
    /// Whether durable queues keep it over a restart.
    pub persistent: bool,
    /// Its priority.
    pub priority: u8,
    /// What the host keeps with it.
    pub header: Slice,
    /// The body, whole.
    pub body: Slice,
}

/// Where a leaving message goes: to all of these, as one step; to none, and it is gone.
#[derive(Clone, Debug)]
pub struct Move {
    /// The queue that it leaves.
    pub queue: QueueId,
    /// Which message.
    pub seq: Seq,
    /// Where to.
    pub targets: Vec<(ShardId, QueueId)>,
    /// What arrives there.
    pub message: Message,
}
