//! The Kafka side from bytes to bytes: real connections, handlers and dispatch, a stand-in for the engine behind them,
//! and the `kafka-protocol` crate as the other end.

#![allow(clippy::unwrap_used, reason = "a test may end where it is surprised, in its helpers too")]

mod admin_configs;
mod admin_hostile;
mod admin_node;
mod admin_topics;
mod allocations;
mod api_table;
mod api_versions;
mod engine;
mod fetch;
mod groups;
mod hostile;
mod list_offsets;
mod metadata;
mod node;
mod pipelining;
mod produce;
mod untaken;
mod wire;
