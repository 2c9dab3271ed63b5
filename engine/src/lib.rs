//! The storage engine of Millstream: one shard per core, one journal per shard, and the logs that grow out of it.
//!
//! The engine knows no protocol. A host (the broker, a benchmark, the example under `examples/`) implements
//! [`reactor::app::App`], one per shard, and talks to the shards through requests and replies.
//!
//! Layers, topmost first; an import points down only (`tests/tidy` holds this true):
//! `reactor`, `shard` and `inspect`, `journal`, `log`, `queue`, `cache`, `format`, `io`, `buffer`, and the plain vocabulary below them.

pub mod buffer;
pub mod cache;
pub mod checksum;
pub mod config;
pub mod error;
pub mod format;
pub mod inspect;
pub mod io;
pub mod journal;
pub mod limits;
pub mod log;
pub mod reactor;
pub mod shard;
mod sync;
pub mod time;
pub mod types;
