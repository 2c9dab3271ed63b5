//! Index files.

use millstream_engine::format::index::{OffsetIndexEntry, TimeIndexEntry};

/// What is decoded rises, and encodes to the file's first bytes.
pub fn run(bytes: &[u8]) {
    let offsets = OffsetIndexEntry::decode(bytes);
    assert!(
        offsets.entries.is_sorted_by(|a, b| a.relative_offset < b.relative_offset && a.position < b.position)
    );
    let mut encoded = Vec::new();
    for entry in &offsets.entries {
        entry.encode(&mut encoded);
    }
    assert!(bytes.starts_with(&encoded));
    assert_eq!(offsets.whole, encoded.len() == bytes.len());

    let times = TimeIndexEntry::decode(bytes);
    assert!(
        times
            .entries
            .is_sorted_by(|a, b| a.timestamp < b.timestamp && a.relative_offset <= b.relative_offset)
    );
    encoded.clear();
    for entry in &times.entries {
        entry.encode(&mut encoded);
    }
    assert!(bytes.starts_with(&encoded));
    assert_eq!(times.whole, encoded.len() == bytes.len());
}
