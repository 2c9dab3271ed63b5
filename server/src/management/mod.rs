//! Administration without AMQP, in the forms of RabbitMQ's management plugin: what is under `/api`. It works on the management thread,
//! which follows the node's metadata by itself and asks shards for nothing but what only they know.

mod api;
mod bindings;
pub mod call;
mod connections;
mod definitions;
mod exchanges;
mod health;
mod json;
mod limits;
mod messages;
mod node;
mod overview;
mod parameters;
mod policies;
mod problem;
mod query;
mod queues;
mod routes;
mod samples;
mod session;
mod stats;
mod users;
mod vhosts;

pub use api::{About, Api, Peer, serve};
pub use definitions::Definitions;
pub use samples::EVERY as SAMPLED_EVERY;
