//! The manifest: what a data directory is, and which version may open it. One block, replaced as a whole.
//!
//! Little-endian. The first three fields stay where they are in every version to come, so that a newer manifest is told
//! from a damaged one.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic: `MILLSTRM` |
//! | 8 | 4 | bytes of the whole manifest: 4096 in this version |
//! | 12 | 4 | CRC32C of bytes 16 to that length |
//! | 16 | 4 | format version |
//! | 20 | 4 | node id |
//! | 24 | 8 | incompatible features, a bit each |
//! | 32 | 16 | cluster id |
//! | 48 | 8 | generation: names the shard directories |
//! | 56 | 4 | boot epoch |
//! | 60 | 2 | shards |
//! | 62 | 1 | 1 if the last run ended in good order, else 0 |
//! | 63 | 1 | zero |
//! | 64 | 8 | journal key |
//! | 72 | | zeros, to a whole block |

use std::fmt;
use std::mem::{offset_of, size_of};

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::limits::{BLOCK_BYTES, SHARDS_MAX};
use crate::types::TopicId;

/// The version that this build writes, and the newest it opens.
pub const FORMAT_VERSION: u32 = 1;
/// A bit of [`Manifest::incompatible_features`]: topics that grow and are configured, ids of producers, and leader epochs.
/// The records are kinds 5 to 7 of [`super::metadata`], the epochs stand in [`super::checkpoint`].
pub const FEATURE_ADMIN: u64 = 1;
/// Another: queues and what the host keeps beside them. The records are kinds 4 and 8 to 11 of [`super::metadata`].
pub const FEATURE_QUEUES: u64 = 2;
/// Another: in which queues the messages are that came from queues of other shards. It stands in [`super::queue_state`].
pub const FEATURE_MOVED: u64 = 4;
/// The bits of [`Manifest::incompatible_features`] that this build knows. It sets them all in a directory that it serves.
pub const FEATURES_KNOWN: u64 = FEATURE_ADMIN | FEATURE_QUEUES | FEATURE_MOVED;

const MAGIC: [u8; 8] = *b"MILLSTRM";
const CRC_FROM: usize = 16;

/// What a data directory is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The version of every format in the directory.
    pub format_version: u32,
    /// Features that a version which does not know them must not touch, a bit each.
    pub incompatible_features: u64,
    /// The cluster: a random id, made when the directory was.
    pub cluster_id: TopicId,
    /// This node's number in the cluster.
    pub node_id: u32,
    /// Shards of the last run. At least 1, at most [`SHARDS_MAX`].
    pub shards: u16,
    /// Names the shard directories; raised when the number of shards changes.
    pub generation: u64,
    /// Raised after every unclean end; every partition's leader epoch.
    pub boot_epoch: u32,
    /// Whether the last run ended in good order.
    pub clean: bool,
    /// Stands in every journal group. Random, and known to nobody outside: so what a client sends can never pass for a
    /// group, wherever its bytes come to lie.
    pub journal_key: u64,
}

/// Why a manifest cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManifestError {
    /// It was written by a newer version; says what this one lacks.
    Newer(String),
    /// It is damaged.
    Corrupt {
        /// The byte where that shows.
        position: u64,
        /// What is wrong there.
        what: &'static str,
    },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::Newer(what) => f.write_str(what),
            ManifestError::Corrupt { position, what } => write!(f, "{what}, at byte {position}"),
        }
    }
}

impl std::error::Error for ManifestError {}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    length: U32,
    crc: U32,
    format_version: U32,
    node_id: U32,
    incompatible_features: U64,
    cluster_id: [u8; 16],
    generation: U64,
    boot_epoch: U32,
    shards: U16,
    clean: u8,
    zero: u8,
    journal_key: U64,
    zeros: [u8; BLOCK_BYTES - 72],
}

const _: () = assert!(size_of::<Raw>() == Manifest::BYTES);
const _: () = assert!(offset_of!(Raw, format_version) == CRC_FROM);

impl Manifest {
    /// Bytes of a manifest: one block, which a crash keeps or loses as a whole.
    pub const BYTES: usize = BLOCK_BYTES;

    /// The manifest's bytes: always [`Manifest::BYTES`].
    pub fn encode(&self) -> Vec<u8> {
        let mut raw = Raw {
            magic: MAGIC,
            length: U32::new(Manifest::BYTES as u32),
            crc: U32::new(0),
            format_version: U32::new(self.format_version),
            node_id: U32::new(self.node_id),
            incompatible_features: U64::new(self.incompatible_features),
            cluster_id: self.cluster_id.0,
            generation: U64::new(self.generation),
            boot_epoch: U32::new(self.boot_epoch),
            shards: U16::new(self.shards),
            clean: u8::from(self.clean),
            zero: 0,
            journal_key: U64::new(self.journal_key),
            zeros: [0; BLOCK_BYTES - 72],
        };
        raw.crc.set(crc32c(raw.as_bytes().get(CRC_FROM..).expect("the manifest is a block")));
        raw.as_bytes().to_vec()
    }

    /// Reads a manifest. `bytes` is the whole file.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let corrupt = |position, what| Err(ManifestError::Corrupt { position, what });
        let Ok((magic, _)) = <[u8; 8]>::read_from_prefix(bytes) else {
            return corrupt(bytes.len() as u64, "the manifest is cut short");
        };
        if magic != MAGIC {
            return corrupt(0, "this is no manifest of Millstream");
        }
        let field = |at: usize| bytes.get(at..).and_then(|bytes| U32::read_from_prefix(bytes).ok());
        let (Some((length, _)), Some((crc, _)), Some((version, _))) = (field(8), field(12), field(16)) else {
            return corrupt(bytes.len() as u64, "the manifest is cut short");
        };
        if length.get() as usize != bytes.len() {
            return corrupt(8, "the manifest's length is not the file's");
        }
        if bytes.get(CRC_FROM..).map(crc32c) != Some(crc.get()) {
            return corrupt(12, "the checksum does not match");
        }
        if version.get() > FORMAT_VERSION {
            return Err(ManifestError::Newer(format!(
                "the data directory has format version {version}, this build knows versions up to {FORMAT_VERSION}"
            )));
        }
        if version.get() == 0 {
            return corrupt(16, "there is no format version 0");
        }
        let Ok(raw) = Raw::ref_from_bytes(bytes) else {
            return corrupt(8, "the length is not that of this format version");
        };
        let unknown = raw.incompatible_features.get() & !FEATURES_KNOWN;
        if unknown != 0 {
            let bits: Vec<String> =
                (0..u64::BITS).filter(|bit| unknown >> bit & 1 == 1).map(|bit| bit.to_string()).collect();
            return Err(ManifestError::Newer(format!(
                "the data directory uses features that this build lacks: bits {}",
                bits.join(", ")
            )));
        }
        let shards = raw.shards.get();
        if !(1..=SHARDS_MAX).contains(&shards) {
            return corrupt(60, "the number of shards is out of range");
        }
        if raw.clean > 1 {
            return corrupt(62, "the clean flag is neither 0 nor 1");
        }
        if raw.zero != 0 {
            return corrupt(63, "a byte that means nothing is not zero");
        }
        if raw.zeros.iter().any(|byte| *byte != 0) {
            return corrupt(72, "bytes that mean nothing are not zero");
        }
        Ok(Manifest {
            format_version: version.get(),
            incompatible_features: raw.incompatible_features.get(),
            cluster_id: TopicId(raw.cluster_id),
            node_id: raw.node_id.get(),
            shards,
            generation: raw.generation.get(),
            boot_epoch: raw.boot_epoch.get(),
            clean: raw.clean == 1,
            journal_key: raw.journal_key.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            incompatible_features: 0,
            cluster_id: TopicId(*b"0123456789abcdef"),
            node_id: 3,
            shards: 8,
            generation: 5,
            boot_epoch: 9,
            clean: true,
            journal_key: 0x0123_4567_89ab_cdef,
        }
    }

    fn corrupt(bytes: &[u8]) -> (u64, &'static str) {
        match Manifest::decode(bytes) {
            Err(ManifestError::Corrupt { position, what }) => (position, what),
            other => panic!("{other:?}"),
        }
    }

    fn newer(manifest: &Manifest) -> String {
        match Manifest::decode(&manifest.encode()) {
            Err(ManifestError::Newer(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_manifest_round_trips() {
        for manifest in [sample(), Manifest { clean: false, shards: SHARDS_MAX, ..sample() }] {
            let bytes = manifest.encode();
            assert_eq!(bytes.len(), Manifest::BYTES);
            assert_eq!(Manifest::decode(&bytes), Ok(manifest));
        }
    }

    #[test]
    fn newer_versions_and_unknown_features_are_refused_by_name() {
        assert_eq!(
            newer(&Manifest { format_version: 2, ..sample() }),
            "the data directory has format version 2, this build knows versions up to 1"
        );
        assert_eq!(
            newer(&Manifest { incompatible_features: 1 << 3 | 1 << 63, ..sample() }),
            "the data directory uses features that this build lacks: bits 3, 63"
        );
    }

    #[test]
    fn a_newer_manifest_of_another_size_is_newer_and_not_corrupt() {
        let mut bytes = Manifest { format_version: 2, ..sample() }.encode();
        bytes.truncate(100);
        bytes[8..12].copy_from_slice(&100_u32.to_le_bytes());
        let crc = crc32c(&bytes[CRC_FROM..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(Manifest::decode(&bytes), Err(ManifestError::Newer(_))));
        bytes[16] = 1;
        let crc = crc32c(&bytes[CRC_FROM..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(corrupt(&bytes), (8, "the length is not that of this format version"));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample().encode();
        for bit in (0..64 * 8).chain([4095 * 8]) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            corrupt(&damaged);
        }
    }

    #[test]
    fn cut_padded_and_foreign_files_are_corrupt() {
        let bytes = sample().encode();
        for len in [0, 7, 8, 19] {
            assert_eq!(corrupt(&bytes[..len]), (len as u64, "the manifest is cut short"), "{len} bytes");
        }
        assert_eq!(corrupt(&bytes[..4095]), (8, "the manifest's length is not the file's"));
        assert_eq!(corrupt(&[&bytes[..], &[0]].concat()), (8, "the manifest's length is not the file's"));
        assert_eq!(corrupt(&[0; 4096]), (0, "this is no manifest of Millstream"));
    }

    #[test]
    fn bytes_without_a_meaning_must_be_zero_and_flags_0_or_1() {
        let changed = |at: usize, value| {
            let mut bytes = sample().encode();
            bytes[at] = value;
            let crc = crc32c(&bytes[CRC_FROM..]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            corrupt(&bytes)
        };
        assert_eq!(changed(62, 2), (62, "the clean flag is neither 0 nor 1"));
        assert_eq!(changed(63, 1), (63, "a byte that means nothing is not zero"));
        assert_eq!(changed(4095, 1), (72, "bytes that mean nothing are not zero"));
    }

    #[test]
    fn values_out_of_range_are_corrupt() {
        let encoded = |manifest: Manifest| manifest.encode();
        assert_eq!(
            corrupt(&encoded(Manifest { shards: 0, ..sample() })),
            (60, "the number of shards is out of range")
        );
        assert_eq!(
            corrupt(&encoded(Manifest { shards: SHARDS_MAX + 1, ..sample() })),
            (60, "the number of shards is out of range")
        );
        assert_eq!(
            corrupt(&encoded(Manifest { format_version: 0, ..sample() })),
            (16, "there is no format version 0")
        );
    }
}
