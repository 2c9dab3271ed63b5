//! AMQP 0-9-1, as RabbitMQ speaks it.

pub mod alarm;
pub mod batches;
pub mod census;
pub mod channel;
pub mod codec;
pub mod connection;
pub mod counts;
pub mod dead_letter;
pub mod error;
pub mod flow;
pub mod frames;
pub mod keepers;
pub mod kept;
pub mod link;
pub mod message;
mod names;
pub mod operations;
pub mod reply_to;
pub mod report;
pub mod routing;
pub mod shard;
pub mod state;
pub mod topology;

pub use shard::Amqp;
pub use state::{Origin, Told};
