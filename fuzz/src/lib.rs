//! The bodies of the fuzz targets, one module each: take any bytes, panic if a promise is broken.
//!
//! They are a library so that `cargo test` replays everything that was found, without libFuzzer. A new target is a module
//! here, a line in [`TARGETS`], and its binary in `Cargo.toml` and under `targets/`; `tests/replay.rs` checks that none
//! of the three is forgotten.

pub mod alloc;
pub mod amqp_connection;
pub mod amqp_frame;
pub mod amqp_routing;
pub mod canary;
pub mod checkpoint;
pub mod group;
pub mod index;
pub mod journal;
pub mod journal_recovery;
pub mod kafka_connection;
pub mod kafka_frame;
pub mod kafka_request;
pub mod manifest;
pub mod metadata;
pub mod partition;
pub mod producer;
pub mod queue;
pub mod record_batch;
pub mod segment_recovery;
pub mod sum;

/// A target.
pub struct Target {
    /// Its name: of its binary, its corpus, and the golden files that it starts from.
    pub name: &'static str,
    /// Its body.
    pub run: fn(&[u8]),
}

/// Every target, in the order of the layers that they test.
pub const TARGETS: &[Target] = &[
    Target { name: "canary", run: canary::run },
    Target { name: "record_batch", run: record_batch::run },
    Target { name: "index", run: index::run },
    Target { name: "manifest", run: manifest::run },
    Target { name: "metadata", run: metadata::run },
    Target { name: "producer", run: producer::run },
    Target { name: "sum", run: sum::run },
    Target { name: "partition", run: partition::run },
    Target { name: "journal", run: journal::run },
    Target { name: "checkpoint", run: checkpoint::run },
    Target { name: "journal_recovery", run: journal_recovery::run },
    Target { name: "segment_recovery", run: segment_recovery::run },
    Target { name: "queue", run: queue::run },
    Target { name: "kafka_frame", run: kafka_frame::run },
    Target { name: "kafka_request", run: kafka_request::run },
    Target { name: "kafka_connection", run: kafka_connection::run },
    Target { name: "group", run: group::run },
    Target { name: "amqp_frame", run: amqp_frame::run },
    Target { name: "amqp_routing", run: amqp_routing::run },
    Target { name: "amqp_connection", run: amqp_connection::run },
];

/// Overwrites bytes at a position, as far as there are any: how a body repairs a checksum or a length that chance would
/// hit never.
fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + with.len()) {
        place.copy_from_slice(with);
    }
}
