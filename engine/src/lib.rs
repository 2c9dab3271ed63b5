//! The storage engine of Millstream: one shard per core, one journal per shard, and the logs that grow out of it.
//!
//! The engine knows no protocol. A host (the broker, a benchmark, `examples/embedded.rs`) implements
//! [`reactor::app::App`], one value per shard, and talks to the shards through requests and replies.
//!
//! # How to use it
//! 1. [`reactor::node::start`] takes a data directory and a [`config::Config`], recovers what is there, and makes the
//!    host's part of each shard, on that shard's own pinned thread.
//! 2. From then on the shard calls [`App::step`](reactor::app::App::step) with what happens: a connection's bytes, a
//!    timer, an answer. The host leaves what it wants in the [`Outbox`](reactor::app::Outbox), and never blocks.
//! 3. [`shard::request::Request`] is all that can be asked of the storage: append a record batch, read, wait for more,
//!    find an offset, trim, create and delete topics. Each request is answered by one [`shard::request::Reply`]. It goes
//!    to the shard that owns the partition: [`shard::metadata::Metadata::shard_of`].
//! 4. [`types::Durability`] says when an append is answered; readers are given durable records only, whatever it says.
//! 5. [`Node::stop`](reactor::node::Node::stop) ends in good order. A process that is killed instead loses nothing that
//!    was acknowledged as written, a machine that loses power nothing that was acknowledged as durable.
//!
//! [`inspect`] looks into a directory that nobody serves, and saves what is sound of a damaged one.
//!
//! Layers, topmost first; an import points down only (`tests/tidy` holds this true):
//! `reactor`, `shard` and `inspect`, `journal`, `log`, `queue`, `cache`, `format`, `io`, `buffer`, and the plain vocabulary below them.

pub mod buffer;
pub mod cache;
pub mod checksum;
pub mod config;
pub mod error;
pub mod few;
pub mod format;
pub mod inspect;
pub mod io;
pub mod journal;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod queue;
pub mod reactor;
pub mod shard;
mod sync;
pub mod time;
pub mod types;
