//! Kafka's consumer groups: who is a member, who reads which partition, and how far they have read.
//!
//! A group belongs to one partition of [`topic::NAME`], found by a hash of its name, and lives on the shard that serves
//! that partition. Connections of every shard ask by message ([`question::Message`]), a shard's own like the others.
//!
//! Everything here is sans-IO. [`group::Group`] is the state machine of one group. [`partition::Partition`] holds the groups of
//! a partition and what they have committed, and says what is to be appended and read; [`shard::Coordinator`] has it done,
//! and keeps the time.

pub mod deadlines;
pub mod group;
mod member;
pub mod offsets;
pub mod partition;
pub mod question;
pub mod records;
pub mod shard;
mod subscription;
pub mod topic;
mod writer;

pub use question::{Answer, GroupError, Message, Outcome, Question};
