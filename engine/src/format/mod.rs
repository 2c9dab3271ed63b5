//! Layouts of what is stored, pure: bytes in, values out, and back. No I/O.
//!
//! Every structure is described once, at its encoder here; `docs/storage.md` links to it. Decoders take bytes that may
//! be anything, and neither panic nor trust a length or count.

pub mod batch;
pub mod record;
