//! A connection: bytes in, requests in flight, bytes out. What the requests mean is the protocols' business.

mod answers;
mod connection;
mod frames;
mod send_queue;

pub use answers::Answers;
pub use connection::{Connection, Shared};
pub use frames::{FrameError, Frames};
pub use send_queue::{Held, Piece, Response, SendQueue, SendStep, Stored};
