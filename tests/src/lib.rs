//! Simulation, crash, conformance, golden files and tidiness. What several tests share lives here.

pub mod crash;
pub mod replay;
pub mod scheduler;
