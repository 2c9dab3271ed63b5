//! A partition's directory: its name, the names of its files, and the two small text files in it. All of it is Kafka's.

use std::fmt::Write as _;

use crate::limits::TOPIC_NAME_BYTES_MAX;
use crate::types::{LeaderEpoch, Offset, TopicId};

/// The text file that says which incarnation of a topic a directory belongs to.
pub const METADATA_FILE: &str = "partition.metadata";
/// The text file that says at which offset each leader epoch starts.
pub const LEADER_EPOCHS_FILE: &str = "leader-epoch-checkpoint";

/// What file systems allow for one name.
const FILE_NAME_BYTES_MAX: usize = 255;

/// Whether a topic may have this name: 1 to 249 characters of `[a-zA-Z0-9._-]`, and neither `.` nor `..`.
pub fn is_topic_name(name: &str) -> bool {
    (1..=TOPIC_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && name != "."
        && name != ".."
}

/// The name of a partition's directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DirName {
    /// `<topic>-<partition>`
    Live {
        /// The topic's name.
        topic: String,
        /// The partition's number.
        index: u32,
    },
    /// `<topic>-<partition>.<topic id in hex>-delete`: renamed, and to be unlinked.
    Deleted {
        /// The start of the topic's name; all of it, unless the directory's name would be too long.
        topic: String,
        /// The partition's number.
        index: u32,
        /// The topic's incarnation.
        id: TopicId,
    },
}

/// The name of a live partition's directory. `topic` must be a valid name.
pub fn dir_name(topic: &str, index: u32) -> String {
    assert!(is_topic_name(topic), "topic names are checked before they become directories");
    format!("{topic}-{index}")
}

/// The name that a partition's directory is given to delete it.
pub fn deleted_dir_name(topic: &str, index: u32, id: TopicId) -> String {
    assert!(is_topic_name(topic), "topic names are checked before they become directories");
    let mut suffix = format!("-{index}.");
    for byte in id.0 {
        write!(suffix, "{byte:02x}").expect("a string takes all that is written to it");
    }
    suffix.push_str("-delete");
    let kept: String = topic.chars().take(FILE_NAME_BYTES_MAX - suffix.len()).collect();
    kept + &suffix
}

/// Reads a directory's name. `None` if no partition's directory has such a name.
pub fn parse_dir_name(name: &str) -> Option<DirName> {
    if name.len() > FILE_NAME_BYTES_MAX {
        return None;
    }
    let (stem, id) = match name.strip_suffix("-delete") {
        Some(deleted) => {
            let (stem, hex) = deleted.rsplit_once('.')?;
            (stem, Some(parse_hex(hex)?))
        }
        None => (name, None),
    };
    let (topic, index) = stem.rsplit_once('-')?;
    let index = parse_number(index)?.try_into().ok()?;
    if !is_topic_name(topic) {
        return None;
    }
    let topic = topic.to_owned();
    Some(match id {
        Some(id) => DirName::Deleted { topic, index, id },
        None => DirName::Live { topic, index },
    })
}

/// A file of a segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SegmentFile {
    /// The batches.
    Log,
    /// Offset to position: [`super::index::OffsetIndexEntry`].
    Index,
    /// Timestamp to offset: [`super::index::TimeIndexEntry`].
    TimeIndex,
    /// Aborted transactions.
    TxnIndex,
    /// Producers as of the base offset: [`super::producer::encode_snapshot`].
    Snapshot,
    /// The checksums of a sealed segment: [`super::sum::Sum`].
    Sum,
}

/// Every file of a segment, and what its name ends in.
pub const SEGMENT_FILES: [(SegmentFile, &str); 6] = [
    (SegmentFile::Log, "log"),
    (SegmentFile::Index, "index"),
    (SegmentFile::TimeIndex, "timeindex"),
    (SegmentFile::TxnIndex, "txnindex"),
    (SegmentFile::Snapshot, "snapshot"),
    (SegmentFile::Sum, "sum"),
];

impl SegmentFile {
    /// What its name ends in.
    pub fn extension(self) -> &'static str {
        let found = SEGMENT_FILES.iter().find(|(file, _)| *file == self);
        found.expect("the table names every file").1
    }
}

/// The name of a segment's file: `<base offset in 20 digits>.<extension>`.
pub fn file_name(base_offset: Offset, file: SegmentFile) -> String {
    format!("{:020}.{}", base_offset.0, file.extension())
}

/// The name that a segment's file is given to delete it.
pub fn deleted_file_name(base_offset: Offset, file: SegmentFile) -> String {
    file_name(base_offset, file) + ".deleted"
}

/// A segment's file, as its name tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileName {
    /// The segment.
    pub base_offset: Offset,
    /// Which of its files.
    pub file: SegmentFile,
    /// Whether it is to be unlinked.
    pub deleted: bool,
}

/// Reads the name of a segment's file. `None` if it is some other file.
pub fn parse_file_name(name: &str) -> Option<FileName> {
    let (name, deleted) = name.strip_suffix(".deleted").map_or((name, false), |name| (name, true));
    let (digits, extension) = name.split_once('.')?;
    let (file, _) = *SEGMENT_FILES.iter().find(|(_, known)| *known == extension)?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let base_offset = Offset(digits.parse().ok().filter(|base| *base <= i64::MAX.cast_unsigned())?);
    Some(FileName { base_offset, file, deleted })
}

/// The text of `partition.metadata`.
pub fn encode_metadata(id: TopicId) -> String {
    format!("version: 0\ntopic_id: {}\n", base64(id))
}

/// Reads `partition.metadata`. `None` if it is not what it should be.
pub fn decode_metadata(text: &[u8]) -> Option<TopicId> {
    let mut lines = str::from_utf8(text).ok()?.lines();
    if lines.next()? != "version: 0" {
        return None;
    }
    let id = parse_base64(lines.next()?.strip_prefix("topic_id: ")?)?;
    lines.next().is_none().then_some(id)
}

/// The text of `leader-epoch-checkpoint`: version 0, the number of entries, and an entry per line.
pub fn encode_leader_epochs(epochs: &[(LeaderEpoch, Offset)]) -> String {
    let mut text = format!("0\n{}\n", epochs.len());
    for (epoch, start) in epochs {
        writeln!(text, "{} {start}", epoch.0).expect("a string takes all that is written to it");
    }
    text
}

/// Reads `leader-epoch-checkpoint`. `None` if it is not what it should be: epochs rise, and offsets do not fall.
pub fn decode_leader_epochs(text: &[u8]) -> Option<Vec<(LeaderEpoch, Offset)>> {
    let mut lines = str::from_utf8(text).ok()?.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count = parse_number(lines.next()?)?;
    let mut epochs: Vec<(LeaderEpoch, Offset)> = Vec::new();
    for line in lines {
        let (epoch, start) = line.split_once(' ')?;
        let entry = (LeaderEpoch(parse_number(epoch)?.try_into().ok()?), Offset(parse_number(start)?));
        if epochs.last().is_some_and(|last| last.0 >= entry.0 || last.1 > entry.1) {
            return None;
        }
        epochs.push(entry);
    }
    (epochs.len() as u64 == count).then_some(epochs)
}

/// A number as it is printed, in no other way: no sign, no leading zeros.
fn parse_number(digits: &str) -> Option<u64> {
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

fn parse_hex(hex: &str) -> Option<TopicId> {
    let plain = hex.len() == 32 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u128::from_str_radix(hex, 16).ok())?.map(|id| TopicId(id.to_be_bytes()))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// 128 bits in digits of 6 bits.
const BASE64_ID_CHARS: u32 = 22;
/// What the last digit has too many; they are zero.
const BASE64_ID_SPARE_BITS: u32 = BASE64_ID_CHARS * 6 - 128;

/// An id as Kafka writes it: base64 for URLs, without padding.
pub fn base64(id: TopicId) -> String {
    let bits = u128::from_be_bytes(id.0);
    (0..BASE64_ID_CHARS)
        .map(|place| {
            let below = 128_u32.checked_sub((place + 1) * 6);
            let digit = below.map_or(bits << BASE64_ID_SPARE_BITS, |below| bits >> below) & 63;
            BASE64.get(digit as usize).map_or('A', |byte| char::from(*byte))
        })
        .collect()
}

/// Reads an id as Kafka writes it.
pub fn parse_base64(text: &str) -> Option<TopicId> {
    let (last, front) = text.as_bytes().split_last()?;
    if text.len() != BASE64_ID_CHARS as usize {
        return None;
    }
    let digit = |byte: &u8| BASE64.iter().position(|known| known == byte).map(|digit| digit as u128);
    let mut bits = 0;
    for byte in front {
        bits = bits << 6 | digit(byte)?;
    }
    let last = digit(last)?;
    let spare = last & ((1 << BASE64_ID_SPARE_BITS) - 1);
    (spare == 0)
        .then(|| TopicId((bits << (6 - BASE64_ID_SPARE_BITS) | last >> BASE64_ID_SPARE_BITS).to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TopicId = TopicId([
        0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x0f, 0xed, 0xcb, 0xa9, 0x87, 0x65, 0x43, 0x21,
    ]);

    #[test]
    fn directory_names_round_trip() {
        for (topic, index) in [("orders", 0), ("a-1", 9_999), ("a.b_c-", 7), ("x-0.00-delete", 1)] {
            let live = DirName::Live { topic: topic.to_owned(), index };
            assert_eq!(parse_dir_name(&dir_name(topic, index)), Some(live));
            let deleted = DirName::Deleted { topic: topic.to_owned(), index, id: ID };
            assert_eq!(parse_dir_name(&deleted_dir_name(topic, index, ID)), Some(deleted));
        }
        assert_eq!(deleted_dir_name("orders", 3, ID), "orders-3.123456789abcdef00fedcba987654321-delete");
    }

    #[test]
    fn the_longest_topic_still_has_a_name_when_deleted() {
        let topic = "t".repeat(TOPIC_NAME_BYTES_MAX);
        assert!(dir_name(&topic, 9_999).len() <= FILE_NAME_BYTES_MAX);
        let name = deleted_dir_name(&topic, 9_999, ID);
        assert_eq!(name.len(), FILE_NAME_BYTES_MAX);
        let Some(DirName::Deleted { topic: kept, index, id }) = parse_dir_name(&name) else {
            panic!("{name} is read back")
        };
        assert!(topic.starts_with(&kept));
        assert_eq!((index, id), (9_999, ID));
    }

    #[test]
    fn other_names_are_no_partitions_directory() {
        for name in [
            "",
            "-",
            "orders",
            "orders-",
            "-0",
            "orders-x",
            "orders-01",
            "orders-+1",
            "orders--1 ",
            "or ders-1",
            "../x-1",
            "..-1",
            ".-0",
            "orders-4294967296",
            "orders-1-delete",
            &format!("{}-1.123456789abcdef00fedcba987654321-delete", "a".repeat(249)),
            "orders-1.123-delete",
            "orders-1.123456789ABCDEF00FEDCBA987654321-delete",
            "orders.123456789abcdef00fedcba987654321-delete",
        ] {
            assert_eq!(parse_dir_name(name), None, "{name}");
        }
        assert!(!is_topic_name(&"t".repeat(TOPIC_NAME_BYTES_MAX + 1)));
    }

    #[test]
    fn file_names_round_trip() {
        assert_eq!(file_name(Offset(42), SegmentFile::TimeIndex), "00000000000000000042.timeindex");
        for (file, _) in SEGMENT_FILES {
            for base_offset in [Offset(0), Offset(i64::MAX as u64)] {
                let name = FileName { base_offset, file, deleted: false };
                assert_eq!(parse_file_name(&file_name(base_offset, file)), Some(name));
                let name = FileName { deleted: true, ..name };
                assert_eq!(parse_file_name(&deleted_file_name(base_offset, file)), Some(name));
            }
        }
    }

    #[test]
    fn other_names_are_no_segments_file() {
        for name in [
            "",
            "partition.metadata",
            "0.log",
            "00000000000000000042",
            "00000000000000000042.log2",
            "+0000000000000000042.log",
            "00000000000000000042.log.swap",
            "99999999999999999999.log",
            "09223372036854775808.log",
            ".log",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn ids_are_written_in_base64_as_kafka_does() {
        assert_eq!(base64(ID), "EjRWeJq83vAP7cuph2VDIQ");
        assert_eq!(base64(TopicId([0xff; 16])), "_____________________w");
        for id in [ID, TopicId([0; 16]), TopicId([0xff; 16])] {
            assert_eq!(parse_base64(&base64(id)), Some(id));
        }
        for text in [
            "",
            "EjRWeJq83vAP7cuph2VDI",
            "EjRWeJq83vAP7cuph2VDIQA",
            "EjRWeJq83vAP7cuph2VDIR",
            "EjRWeJq83vAP7cuph2VD+Q",
        ] {
            assert_eq!(parse_base64(text), None, "{text}");
        }
    }

    #[test]
    fn the_metadata_file_round_trips_and_nothing_else_passes() {
        let text = encode_metadata(ID);
        assert_eq!(text, "version: 0\ntopic_id: EjRWeJq83vAP7cuph2VDIQ\n");
        assert_eq!(decode_metadata(text.as_bytes()), Some(ID));
        assert_eq!(decode_metadata(text.trim_end().as_bytes()), Some(ID), "as some versions write it");
        for text in [
            "",
            "version: 0",
            "version: 1\ntopic_id: EjRWeJq83vAP7cuph2VDIQ",
            "version: 0\nid: EjRWeJq83vAP7cuph2VDIQ",
            "version: 0\ntopic_id: EjRWeJq83vAP7cuph2VDIQ\nmore",
        ] {
            assert_eq!(decode_metadata(text.as_bytes()), None, "{text}");
        }
        assert_eq!(decode_metadata(&[0xff]), None);
    }

    #[test]
    fn leader_epochs_round_trip_and_must_rise() {
        let epochs =
            vec![(LeaderEpoch(0), Offset(0)), (LeaderEpoch(2), Offset(0)), (LeaderEpoch(3), Offset(17))];
        let text = encode_leader_epochs(&epochs);
        assert_eq!(text, "0\n3\n0 0\n2 0\n3 17\n");
        assert_eq!(decode_leader_epochs(text.as_bytes()), Some(epochs));
        assert_eq!(decode_leader_epochs(b"0\n0\n"), Some(vec![]));
        for text in [
            "",
            "0\n",
            "1\n0\n",
            "0\n1\n",
            "0\n2\n0 0\n",
            "0\n0\n0 0\n",
            "0\n2\n1 0\n1 5\n",
            "0\n2\n1 5\n2 4\n",
            "0\n1\n1\n",
            "0\n1\n1 2 3\n",
            "0\n1\n-1 0\n",
            "0\n1\n4294967296 0\n",
            "0\n99999999999999999999\n",
        ] {
            assert_eq!(decode_leader_epochs(text.as_bytes()), None, "{text:?}");
        }
    }
}
