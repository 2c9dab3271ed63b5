//! A shard: the owner of its logs, its journal and everything that waits for them. Touched by its own thread only.

pub mod mailbox;
pub mod metadata;
pub mod request;
