//! The real backend, on a temporary directory and the loopback interface.

#![allow(clippy::disallowed_methods, reason = "tests look at the files from outside")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod net;
mod rig;
mod wake;
