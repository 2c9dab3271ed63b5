//! The whole production broker in a simulated world: [`story`] runs the lives of a node and says what goes wrong, and the clients
//! of each protocol are a [`Side`], which says what they do and judges what they are told.

pub mod story;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use millstream::broker::Broker;
use millstream::config::ServerConfig;
use millstream_engine::io::sim::{Crash, World};
use millstream_engine::time::Nanos;

use crate::sim::node::SimNode;

/// Everything is answered in that time, when nobody asks for more.
pub const ANSWERED_IN: Nanos = Nanos::from_millis(30_000);

/// A broker that serves.
pub type Node = SimNode<Broker>;

/// What clients act on.
pub struct Stage<'a> {
    /// The world.
    pub world: &'a World,
    /// The broker.
    pub node: &'a mut Node,
    /// What it is configured with.
    pub config: &'a ServerConfig,
    /// Where it listens for Kafka's clients, and for RabbitMQ's.
    pub addresses: [SocketAddr; 2],
    /// Whether the disk is full or fails, so that what is asked may be refused.
    pub trouble: bool,
}

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// In good order.
    Stopped,
    /// By a crash.
    Crashed(Crash),
}

/// The clients of one protocol, and the judge of what they are told.
pub trait Side {
    /// A life begins: what has to be there is made, and what was promised is read back. Nothing follows the `last`.
    fn begin(&mut self, stage: &mut Stage<'_>, last: bool);
    /// Clients take their turns. Without `asks` they only take what comes.
    fn turn(&mut self, stage: &mut Stage<'_>, asks: bool);
    /// What the broker holds for clients is bounded at any time.
    fn check_bounds(&mut self, stage: &Stage<'_>);
    /// What somebody still waits for; put into words only if that is asked.
    fn waits(&self) -> Option<Box<dyn fmt::Debug + '_>>;
    /// Everybody goes, in whatever way.
    fn leave(&mut self);
    /// Everybody has gone: nothing of them is left.
    fn gone(&mut self, stage: &mut Stage<'_>);
    /// The life is over; when trouble began in it, if any did.
    fn ended(&mut self, end: End, trouble_at: Option<Nanos>, now: Nanos);
    /// Promises that were broken.
    fn violations(&self) -> &[String];
    /// How much was done, by name.
    fn done(&self) -> BTreeMap<&'static str, u64>;
}
