//! The AMQP side from bytes to bytes: real connections, channels and routing, a stand-in for the engine behind them, and our own
//! codec, which its oracle checks, as the other end.

#![allow(clippy::unwrap_used, reason = "a test may end where it is surprised, in its helpers too")]

mod alarms;
mod allocations;
mod bounds;
mod client;
mod confirms;
mod consuming;
mod dead_letters;
mod endings;
mod engine;
mod errors;
mod exchanges;
mod flow;
mod handshake;
mod hostile;
mod limits;
mod node;
mod permissions;
mod queues;
mod replies;
mod silence;
mod statistics;
mod transactions;
