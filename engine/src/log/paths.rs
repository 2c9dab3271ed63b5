//! Where a log's files are, relative to the data directory. The names are Kafka's: see [`crate::format::partition`].

use crate::format::partition::{SegmentFile, deleted_dir_name, dir_name, file_name};
use crate::types::{Offset, PartitionId};

/// The directory that holds every partition's directory.
pub const LOGS: &str = "logs";

/// A partition's directory.
pub fn directory(topic: &str, index: u32) -> String {
    format!("{LOGS}/{}", dir_name(topic, index))
}

/// The name that a directory takes before its files are removed.
pub fn deleted_directory(topic: &str, partition: PartitionId) -> String {
    format!("{LOGS}/{}", deleted_dir_name(topic, partition.index, partition.topic))
}

/// A segment's file.
pub fn segment(directory: &str, base: Offset, file: SegmentFile) -> String {
    format!("{directory}/{}", file_name(base, file))
}
