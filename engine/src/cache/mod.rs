//! What is kept in memory of what is stored.

pub mod blocks;
pub mod tail;
