//! A partition's log: segments, indexes, producers, and the plans that read them.

pub mod plan;
