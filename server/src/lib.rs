//! The broker on top of the engine: protocols, routing, configuration. It knows no file; what it wants stored or read
//! it asks of a shard through [`dispatch`].
//!
//! The binary `millstream` is a thin shell around this library, so that tests and the simulator drive the very code that
//! serves real connections: [`broker::Broker`].
#![forbid(unsafe_code)]

pub mod admin;
pub mod amqp;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod config;
pub mod coordinator;
pub mod dispatch;
pub mod inspect;
pub mod kafka;
pub mod limits;
pub mod management;
pub mod metrics;
pub mod net;
pub mod run;
