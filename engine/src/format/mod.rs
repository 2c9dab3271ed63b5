//! Layouts of what is stored, pure: bytes in, values out, and back. No I/O.
//!
//! Every structure is described once, at its encoder here; `docs/storage.md` links to it. Decoders take bytes that may
//! be anything, and neither panic nor trust a length or count.

pub mod batch;
pub mod checkpoint;
pub mod damage;
pub mod index;
pub mod journal;
pub mod manifest;
pub mod message;
pub mod metadata;
pub mod partition;
pub mod producer;
pub mod queue;
pub mod queue_state;
pub mod record;
pub mod settings;
pub mod sum;
pub(crate) mod take;
