//! Kafka's primitive types, read in place and written once. "Flexible" versions of a message use compact lengths and end
//! every structure with tagged fields; which versions those are stands in the API table.
//! Source: Kafka's documentation, "Protocol Primitive Types"; KIP-482.

mod reader;
mod writer;

pub use reader::{Malformed, Reader};
pub use writer::Writer;
