//! A simulated outside world: disk, network and clocks, all from one seed, with the faults of [`crate::io::fault`].
//!
//! A [`World`] hands out one [`SimIo`] per shard; production code runs on it unchanged, in one thread, and whoever
//! drives the shards decides who is next. The same seed and the same calls give the same history, to the last byte.
//!
//! Outermost first: [`World`] and [`SimPeer`] are what tests hold; `SimIo` is what the engine holds; `operation` and
//! `network` give operations their time and their faults; [`Disk`] (`tree`, `content`, `crash`) is the pure model below.

mod backend;
mod clock;
mod content;
mod crash;
mod directory;
mod disk;
mod network;
mod operation;
mod peer;
mod port;
mod state;
#[cfg(test)]
mod tests;
mod trace;
mod tree;
mod world;

pub use backend::SimIo;
pub use crash::{Crash, Survivors, Unflushed, UnflushedChange};
pub use disk::Disk;
pub use peer::SimPeer;
pub use world::World;
