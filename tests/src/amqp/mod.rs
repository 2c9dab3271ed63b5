//! RabbitMQ's side of the broker in the simulated world: publishers with confirms, workers, and crashes.

pub mod client;
pub mod hostile;
pub mod side;
