//! Memory that bytes arrive in, are stored from, and are sent from, without being copied in between.
//!
//! A [`Block`] is written by one owner. What it has written is frozen into [`Slice`]s: immutable, cheap to clone,
//! free to cross threads. When the last slice of a slab is dropped, on whatever thread, the slab goes home to the
//! [`Pool`] it came from.

mod block;
mod loosen;
mod pool;
mod region;
mod slice;

pub use block::Block;
pub use loosen::{loosen, tight_bytes};
pub use pool::{Pool, PoolUse};
pub use slice::Slice;
