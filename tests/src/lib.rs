//! Simulation, crash, conformance, golden files and tidiness. What several tests share lives here.

<<<<<<< HEAD
pub mod source;
pub mod tidy;
pub mod tree;
=======
pub mod crash;
pub mod replay;
pub mod scheduler;
>>>>>>> w-sim
