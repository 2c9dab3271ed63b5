//! Simulation, crash, conformance, golden files and tidiness. What several tests share lives here.

pub mod source;
pub mod tidy;
pub mod tree;
