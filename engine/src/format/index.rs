//! A segment's two sparse indexes, in Kafka's layout: big-endian entries, one after the other, nothing else.
//!
//! `.index`, 8 bytes per entry:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | last offset of a batch, less the segment's base offset |
//! | 4 | 4 | where in the log that batch starts |
//!
//! `.timeindex`, 12 bytes per entry:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | largest timestamp up to here, in ms |
//! | 8 | 4 | offset of the batch that has it, less the segment's base offset |
//!
//! Nothing protects an entry but the segment's checksum file, and an open segment has none: an entry is a hint, and the
//! batch that it points to must verify. Kafka preallocates these files; the zeros at the end decode as nothing, because
//! they do not rise.

use std::mem::size_of;

use zerocopy::byteorder::big_endian::{I32, I64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An entry of `.index`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetIndexEntry {
    /// The offset, less the segment's base offset. At most `i32::MAX`.
    pub relative_offset: u32,
    /// A byte position in the log file. At most `i32::MAX`.
    pub position: u32,
}

/// An entry of `.timeindex`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeIndexEntry {
    /// In ms since 1970.
    pub timestamp: i64,
    /// The offset, less the segment's base offset. At most `i32::MAX`.
    pub relative_offset: u32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawOffset {
    relative_offset: I32,
    position: I32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTime {
    timestamp: I64,
    relative_offset: I32,
}

const _: () = assert!(size_of::<RawOffset>() == OffsetIndexEntry::BYTES);
const _: () = assert!(size_of::<RawTime>() == TimeIndexEntry::BYTES);

impl OffsetIndexEntry {
    /// Bytes of one entry.
    pub const BYTES: usize = 8;

    /// Appends the entry.
    pub fn encode(self, out: &mut Vec<u8>) {
        let raw =
            RawOffset { relative_offset: narrow(self.relative_offset), position: narrow(self.position) };
        out.extend_from_slice(raw.as_bytes());
    }

    /// The entries of a file, up to the first whose offset or position does not rise, or is negative.
    pub fn decode(bytes: &[u8]) -> Decoded<OffsetIndexEntry> {
        decode(bytes, |previous: Option<OffsetIndexEntry>, raw: &RawOffset| {
            let entry = OffsetIndexEntry {
                relative_offset: raw.relative_offset.get().try_into().ok()?,
                position: raw.position.get().try_into().ok()?,
            };
            let rises = previous.is_none_or(|previous| {
                previous.relative_offset < entry.relative_offset && previous.position < entry.position
            });
            rises.then_some(entry)
        })
    }
}

impl TimeIndexEntry {
    /// Bytes of one entry.
    pub const BYTES: usize = 12;

    /// Appends the entry.
    pub fn encode(self, out: &mut Vec<u8>) {
        let raw =
            RawTime { timestamp: I64::new(self.timestamp), relative_offset: narrow(self.relative_offset) };
        out.extend_from_slice(raw.as_bytes());
    }

    /// The entries of a file, up to the first whose timestamp does not rise, or whose offset falls or is negative.
    pub fn decode(bytes: &[u8]) -> Decoded<TimeIndexEntry> {
        decode(bytes, |previous: Option<TimeIndexEntry>, raw: &RawTime| {
            let entry = TimeIndexEntry {
                timestamp: raw.timestamp.get(),
                relative_offset: raw.relative_offset.get().try_into().ok()?,
            };
            let rises = previous.is_none_or(|previous| {
                previous.timestamp < entry.timestamp && previous.relative_offset <= entry.relative_offset
            });
            rises.then_some(entry)
        })
    }
}

/// What an index file holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded<Entry> {
    /// The good entries, from the file's start.
    pub entries: Vec<Entry>,
    /// Whether they are all of the file. If not, what follows is padding or damage; the log says which.
    pub whole: bool,
}

/// `accept` returns the entry if it may follow the previous one.
fn decode<Entry: Copy, Raw: FromBytes + KnownLayout + Immutable + Unaligned>(
    bytes: &[u8],
    accept: impl Fn(Option<Entry>, &Raw) -> Option<Entry>,
) -> Decoded<Entry> {
    let mut entries = Vec::with_capacity(bytes.len() / size_of::<Raw>());
    let mut rest = bytes;
    while let Ok((raw, after)) = Raw::ref_from_prefix(rest) {
        let Some(entry) = accept(entries.last().copied(), raw) else { break };
        entries.push(entry);
        rest = after;
    }
    Decoded { entries, whole: rest.is_empty() }
}

fn narrow(value: u32) -> I32 {
    I32::new(i32::try_from(value).expect("a segment's offsets and positions are kept within 31 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(entries: &[(u32, u32)]) -> Vec<OffsetIndexEntry> {
        entries
            .iter()
            .map(|&(relative_offset, position)| OffsetIndexEntry { relative_offset, position })
            .collect()
    }

    fn times(entries: &[(i64, u32)]) -> Vec<TimeIndexEntry> {
        entries
            .iter()
            .map(|&(timestamp, relative_offset)| TimeIndexEntry { timestamp, relative_offset })
            .collect()
    }

    fn offset_file(entries: &[(u32, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in offsets(entries) {
            entry.encode(&mut bytes);
        }
        bytes
    }

    fn time_file(entries: &[(i64, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in times(entries) {
            entry.encode(&mut bytes);
        }
        bytes
    }

    #[test]
    fn entries_round_trip_and_have_kafkas_bytes() {
        let file = offset_file(&[(0, 0), (5, 4200), (i32::MAX as u32, i32::MAX as u32)]);
        assert_eq!(&file[8..16], [0, 0, 0, 5, 0, 0, 0x10, 0x68]);
        let decoded = OffsetIndexEntry::decode(&file);
        assert_eq!(decoded.entries, offsets(&[(0, 0), (5, 4200), (i32::MAX as u32, i32::MAX as u32)]));
        assert!(decoded.whole);

        let file = time_file(&[(-1, 0), (258, 7), (259, 7)]);
        assert_eq!(&file[12..24], [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 7]);
        let decoded = TimeIndexEntry::decode(&file);
        assert_eq!(decoded.entries, times(&[(-1, 0), (258, 7), (259, 7)]));
        assert!(decoded.whole);
    }

    #[test]
    fn decoding_stops_where_offsets_stop_rising() {
        for bad in [(5, 9000), (4, 9000), (6, 4200), (6, 100), (0, 0)] {
            let decoded = OffsetIndexEntry::decode(&offset_file(&[(1, 50), (5, 4200), bad, (9, 9999)]));
            assert_eq!(decoded.entries, offsets(&[(1, 50), (5, 4200)]), "{bad:?}");
            assert!(!decoded.whole);
        }
    }

    #[test]
    fn decoding_stops_where_timestamps_stop_rising() {
        for bad in [(20, 9), (19, 9), (21, 4), (0, 0)] {
            let decoded = TimeIndexEntry::decode(&time_file(&[(10, 1), (20, 5), bad, (90, 99)]));
            assert_eq!(decoded.entries, times(&[(10, 1), (20, 5)]), "{bad:?}");
            assert!(!decoded.whole);
        }
    }

    #[test]
    fn negative_numbers_and_cut_entries_end_an_index() {
        let mut file = offset_file(&[(1, 50), (5, 4200)]);
        file[12] |= 0x80;
        assert_eq!(OffsetIndexEntry::decode(&file).entries, offsets(&[(1, 50)]));
        let file = time_file(&[(10, 1), (20, 5)]);
        let cut = TimeIndexEntry::decode(&file[..23]);
        assert_eq!((cut.entries, cut.whole), (times(&[(10, 1)]), false));
        assert!(TimeIndexEntry::decode(&[]).whole);
    }
}
