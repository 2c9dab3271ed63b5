//! The only loop: take completions, step, submit, wait. One pinned thread per core.

pub mod app;
