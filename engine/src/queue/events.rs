//! What a queue is told, and what it wants done.

use crate::time::WallMs;
use crate::types::Seq;

/// Where a message's bytes are. The queue keeps it and understands nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Locator(pub u64);

/// The caller's name for a keeper: a queue gives it back with everything that concerns the keeper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Token(pub u64);

/// The queue's name for whoever can keep messages: a consumer, or somebody who gets them one by one. Valid until
/// [`Output::Released`], then free to name another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Keeper(pub u32);

/// A page of the index that is elsewhere. The name of one that has come back may be given again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageId(pub u64);

/// A message to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Where its bytes are.
    pub locator: Locator,
    /// How many they are: what the queue's limit of bytes and the consumers' windows count.
    pub size: u32,
    /// Whether it is kept over a restart.
    pub persistent: bool,
    /// Higher ones go first, in a queue that has priorities.
    pub priority: u8,
    /// When it expires by itself; the queue may end it sooner ([`super::Queue::expiry`]).
    pub expires_at: Option<WallMs>,
}

/// Whether a message is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Yes: [`super::Queue::publish`].
    Take,
    /// No, there is no room.
    Refuse,
    /// No, and it is a dead letter: [`super::Queue::publish_refused`].
    RefuseAndLeave,
}

/// What may be delivered to a consumer. Each delivery takes one message and its bytes; one is made while both are above
/// zero, so the bytes may be overdrawn by one message. It never comes back by itself: more is granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Credit {
    /// Messages.
    pub messages: u32,
    /// Bytes.
    pub bytes: u32,
}

/// A consumer that wants messages.
#[derive(Clone, Copy, Debug)]
pub struct Consume {
    /// The caller's name for it.
    pub token: Token,
    /// Deliveries are settled when they are made.
    pub no_ack: bool,
    /// It wants to be the only one.
    pub exclusive: bool,
    /// Those with the highest priority are given messages as long as they have credit.
    pub priority: i32,
    /// How long it may keep a delivery, if not as long as the queue says; zero: until the queue runs next.
    pub timeout_ms: Option<u64>,
    /// What may be delivered at once.
    pub credit: Credit,
}

/// Why somebody cannot consume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsumeError {
    /// There is a consumer that is to be the only one, or this one wants to be and is not.
    InUse,
}

/// What becomes of a delivered message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is done with.
    Ack,
    /// It goes back to its old place.
    Requeue {
        /// Whether that counts towards the queue's delivery limit.
        failed: bool,
    },
    /// It is not wanted: a dead letter, if the queue has those.
    Reject,
}

/// Why a message has to leave its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaveReason {
    /// Its consumer rejected it.
    Rejected,
    /// Its time was over.
    Expired,
    /// There was no room.
    MaxLength,
    /// It came back failed too often.
    DeliveryLimit,
}

/// How a message was settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Its consumer acknowledged it.
    Acked,
    /// It was delivered to somebody who does not acknowledge.
    Delivered,
    /// It had to leave, and nobody wants to know where to.
    Dropped(LeaveReason),
    /// It has left, to where the host said.
    Left,
    /// It was purged.
    Purged,
    /// Its bytes cannot be had any more.
    Lost,
}

/// A message given to somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Which message.
    pub seq: Seq,
    /// Where its bytes are.
    pub locator: Locator,
    /// How many they are.
    pub size: u32,
    /// How often it has come back failed.
    pub failures: u16,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// Whether it is kept over a restart.
    pub persistent: bool,
}

/// What is to be done. What concerns one message comes in the order in which it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Give a message to a consumer.
    Deliver(Token, Delivery),
    /// The message is no more: remember that, if it is persistent, and let go of its bytes, when what was put out before has
    /// been done.
    Settled {
        /// Which.
        seq: Seq,
        /// Where its bytes are.
        locator: Locator,
        /// How many they are.
        size: u32,
        /// Whether it was kept over a restart.
        persistent: bool,
        /// How it came to that.
        cause: Cause,
    },
    /// The message has come back failed: remember that, if it is persistent.
    Failed {
        /// Which.
        seq: Seq,
        /// How often, all together.
        failures: u16,
        /// Whether it is kept over a restart.
        persistent: bool,
    },
    /// The message has to leave from now on: remember that, if it is persistent.
    Leaving {
        /// Which.
        seq: Seq,
        /// Why.
        reason: LeaveReason,
        /// Whether it is kept over a restart.
        persistent: bool,
    },
    /// Ask the host where the message goes, then say [`super::Queue::left`].
    Leave {
        /// Which.
        seq: Seq,
        /// Where its bytes are.
        locator: Locator,
        /// How many they are.
        size: u32,
        /// Why.
        reason: LeaveReason,
        /// Whether it is kept over a restart.
        persistent: bool,
    },
    /// The keeper has kept a message for too long. What it kept has gone back; if it is a consumer, it has been cancelled.
    TimedOut(Token),
    /// The keeper consumes no more and keeps nothing: the queue has forgotten it.
    Released(Token),
    /// The consumer is the one that is given messages from now on, of several that want some.
    Activated(Token),
    /// A page is needed, in the order of these: [`super::Queue::page_in`]. Until then its messages wait.
    PageIn(PageId),
    /// The last consumer has gone.
    Unused,
    /// Nobody has used the queue for as long as it may be unused: it is to be deleted.
    Expired,
}

/// A message that is not settled, as it is to be stored or was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Its number.
    pub seq: Seq,
    /// Where its bytes are.
    pub locator: Locator,
    /// How many they are.
    pub size: u32,
    /// Whether it is kept over a restart.
    pub persistent: bool,
    /// When it expires.
    pub expires_at: Option<WallMs>,
    /// It may have been delivered.
    pub delivered: bool,
    /// How often it has come back failed.
    pub failures: u16,
    /// Why it has to leave, if it has.
    pub leaving: Option<LeaveReason>,
}

/// How a queue stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueStats {
    /// Messages that wait for a consumer.
    pub ready: u64,
    /// Bytes of them.
    pub ready_bytes: u64,
    /// Messages delivered and not settled.
    pub unacked: u64,
    /// Bytes of them.
    pub unacked_bytes: u64,
    /// Messages that are to leave as dead letters.
    pub leaving: u64,
    /// Messages of any state that are kept over a restart.
    pub persistent: u64,
    /// Consumers.
    pub consumers: u32,
    /// What has happened.
    pub counts: QueueCounts,
}

/// What has happened to messages of a queue since it came to be here: with a start of the node they begin anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueCounts {
    /// Messages that were taken.
    pub published: u64,
    /// Deliveries to consumers who acknowledge.
    pub delivered: u64,
    /// Deliveries to those who do not.
    pub delivered_no_ack: u64,
    /// Messages got one by one, to be acknowledged.
    pub got: u64,
    /// Messages got one by one, not to be.
    pub got_no_ack: u64,
    /// How often there was none to be got.
    pub got_empty: u64,
    /// Deliveries, of all four sorts, of what may have been delivered before.
    pub redelivered: u64,
    /// Messages that were acknowledged.
    pub acked: u64,
}
