//! Simulation, crash, conformance, golden files and tidiness. What several tests share lives here.

pub mod amqp;
pub mod broker;
pub mod crash;
pub mod golden_data;
pub mod image;
pub mod kafka;
pub mod queue_model;
pub mod queue_story;
pub mod queues;
pub mod replay;
pub mod scheduler;
pub mod seeds;
pub mod several;
pub mod sim;
pub mod solo;
pub mod source;
pub mod tidy;
pub mod tree;
