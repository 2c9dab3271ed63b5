//! AMQP 0-9-1 on the wire: frames, methods, content headers, field tables. Read in place, written into a buffer that the
//! caller keeps; nothing here takes memory per message. What a name on the wire holds is bytes, not text.

mod method;
mod properties;
mod reader;
mod table;
mod writer;

pub use method::*;
pub use properties::{Header, Properties};
pub use reader::{Malformed, Reader};
pub use table::{Array, ArrayContent, Table, TableWriter, Value};
pub use writer::Writer;

/// A frame of methods.
pub const FRAME_METHOD: u8 = 1;
/// A content's header.
pub const FRAME_HEADER: u8 = 2;
/// A part of a content's body.
pub const FRAME_BODY: u8 = 3;
/// Nothing but a sign of life.
pub const FRAME_HEARTBEAT: u8 = 8;
/// What every frame ends with.
pub const FRAME_END: u8 = 0xCE;
/// Bytes of a frame before its payload.
pub const FRAME_HEAD_BYTES: usize = 7;
/// Bytes of a frame that are not its payload.
pub const FRAME_EXTRA_BYTES: usize = FRAME_HEAD_BYTES + 1;
/// What a client begins with.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
