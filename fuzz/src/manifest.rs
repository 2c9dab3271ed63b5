//! The manifest.

use millstream_engine::checksum::crc32c;
use millstream_engine::format::manifest::{FEATURES_KNOWN, FORMAT_VERSION, Manifest};

use crate::overwrite;

/// What is decoded encodes to the same bytes, and is of a version that this build knows.
pub fn run(bytes: &[u8]) {
    inspect(bytes);
    let mut repaired = bytes.to_vec();
    repaired.resize(Manifest::BYTES, 0);
    overwrite(&mut repaired, 0, b"MILLSTRM");
    overwrite(&mut repaired, 8, &(Manifest::BYTES as u32).to_le_bytes());
    let crc = crc32c(repaired.get(16..).unwrap_or_default());
    overwrite(&mut repaired, 12, &crc.to_le_bytes());
    inspect(&repaired);
}

fn inspect(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert!(manifest.format_version <= FORMAT_VERSION);
        assert_eq!(manifest.incompatible_features & !FEATURES_KNOWN, 0);
        assert_eq!(manifest.encode(), bytes);
    }
}
