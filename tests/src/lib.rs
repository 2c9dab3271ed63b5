//! Simulation, crash, conformance, golden files and tidiness. What several tests share lives here.

pub mod crash;
pub mod replay;
pub mod scheduler;
pub mod source;
pub mod tidy;
pub mod tree;
