//! A segment's sparse indexes: the part that is not in their files yet, and how both parts are searched.

use crate::format::batch::BatchHeader;
use crate::format::index::{OffsetIndexEntry, TimeIndexEntry};
use crate::types::Offset;

/// Offset and time index of one segment. Entries go to the files when the bytes that they point to have gone to theirs;
/// from then on only the files have them. An entry is a hint: the batch that it points to must verify.
#[derive(Default, Debug)]
pub struct SparseIndex {
    /// Entries in the offset index file.
    pub stored: u32,
    /// Entries in the time index file.
    pub stored_times: u32,
    /// Entries behind those in the file, in order.
    recent: Vec<OffsetIndexEntry>,
    recent_times: Vec<TimeIndexEntry>,
    /// Bytes since the last entry.
    unindexed: u32,
    /// The largest timestamp so far, and the last offset of its batch.
    max_timestamp: i64,
    max_timestamp_offset: u32,
    /// The largest timestamp of the last time entry.
    last_time: i64,
}

impl SparseIndex {
    /// The index of a segment of which `stored` and `stored_times` entries are in its files.
    pub fn stored(stored: u32, stored_times: u32, max_timestamp: i64) -> SparseIndex {
        SparseIndex { stored, stored_times, max_timestamp, last_time: max_timestamp, ..SparseIndex::new() }
    }

    /// The index of an empty segment.
    pub fn new() -> SparseIndex {
        SparseIndex { max_timestamp: -1, last_time: -1, ..SparseIndex::default() }
    }

    /// The largest timestamp of the segment's records; -1 if there is none.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// Takes note of a batch at `position` of the segment that starts with `segment`.
    pub fn add(&mut self, segment: Offset, position: u32, batch: &BatchHeader, interval_bytes: u32) {
        let relative = (batch.last_offset().0 - segment.0) as u32;
        if batch.max_timestamp > self.max_timestamp {
            self.max_timestamp = batch.max_timestamp;
            self.max_timestamp_offset = relative;
        }
        if self.unindexed > interval_bytes {
            self.recent.push(OffsetIndexEntry { relative_offset: relative, position });
            self.add_time();
            self.unindexed = 0;
        }
        self.unindexed += batch.size as u32;
    }

    /// Gives the time index its last entry, when the segment is sealed.
    pub fn seal(&mut self) {
        self.add_time();
    }

    fn add_time(&mut self) {
        if self.max_timestamp > self.last_time {
            let entry =
                TimeIndexEntry { timestamp: self.max_timestamp, relative_offset: self.max_timestamp_offset };
            self.recent_times.push(entry);
            self.last_time = self.max_timestamp;
        }
    }

    /// Entries that may go to the files now that the segment is flushed up to `flushed`, encoded.
    pub fn storable(&self, flushed: u32) -> (Vec<u8>, Vec<u8>) {
        let mut entries = Vec::new();
        let mut times = Vec::new();
        let mut last = 0;
        for entry in self.recent.iter().take_while(|entry| entry.position < flushed) {
            entry.encode(&mut entries);
            last = entry.relative_offset;
        }
        let whole = entries.len() / OFFSET_ENTRY_BYTES == self.recent.len();
        for entry in self.recent_times.iter().take_while(|entry| whole || entry.relative_offset <= last) {
            entry.encode(&mut times);
        }
        (entries, times)
    }

    /// Forgets entries that have gone to the files: as many as [`SparseIndex::storable`] gave bytes for.
    pub fn stored_now(&mut self, entry_bytes: usize, time_bytes: usize) {
        let (entries, times) = (entry_bytes / OFFSET_ENTRY_BYTES, time_bytes / TIME_ENTRY_BYTES);
        self.recent.drain(..entries);
        self.recent_times.drain(..times);
        self.recent.shrink_to(64);
        self.recent_times.shrink_to(64);
        self.stored += entries as u32;
        self.stored_times += times as u32;
    }

    /// Where to start scanning for `relative`, by the entries in memory; `None` if the file must be asked.
    pub fn recent_floor(&self, relative: u32) -> Option<u32> {
        let index = self.recent.partition_point(|entry| entry.relative_offset <= relative);
        match index.checked_sub(1).and_then(|index| self.recent.get(index)) {
            Some(entry) => Some(entry.position),
            None if self.stored == 0 => Some(0),
            None => None,
        }
    }
}

impl SparseIndex {
    /// Where to start scanning for the first batch with a timestamp of at least `timestamp`, as an offset relative to the
    /// segment's, by the entries in memory; `None` if the file must be asked.
    pub fn recent_time_floor(&self, timestamp: i64) -> Option<u32> {
        let index = self.recent_times.partition_point(|entry| entry.timestamp < timestamp);
        match index.checked_sub(1).and_then(|index| self.recent_times.get(index)) {
            Some(entry) => Some(entry.relative_offset),
            None if self.stored_times == 0 => Some(0),
            None => None,
        }
    }
}

/// Where to start scanning for `timestamp`, as an offset relative to the segment's, by a time index file's bytes.
pub fn time_floor_in_file(file: &[u8], timestamp: i64) -> u32 {
    let (entries, _) = file.as_chunks::<TIME_ENTRY_BYTES>();
    let time = |entry: &[u8; 12]| {
        let (time, _) = entry.as_chunks::<8>();
        time.first().map_or(i64::MIN, |time| i64::from_be_bytes(*time))
    };
    let index = entries.partition_point(|entry| time(entry) < timestamp);
    let offset = |entry: &[u8; 12]| u32::from_be_bytes([entry[8], entry[9], entry[10], entry[11]]);
    index.checked_sub(1).and_then(|index| entries.get(index)).map_or(0, offset)
}

/// Bytes of an entry in the offset index file.
pub const OFFSET_ENTRY_BYTES: usize = 8;
/// Bytes of an entry in the time index file.
pub const TIME_ENTRY_BYTES: usize = 12;

/// Where to start scanning for `relative`, by an index file's bytes.
pub fn floor_in_file(file: &[u8], relative: u32) -> u32 {
    let (entries, _) = file.as_chunks::<OFFSET_ENTRY_BYTES>();
    let offset = |entry: &[u8; 8]| u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
    let index = entries.partition_point(|entry| offset(entry) <= relative);
    let position = |entry: &[u8; 8]| u32::from_be_bytes([entry[4], entry[5], entry[6], entry[7]]);
    index.checked_sub(1).and_then(|index| entries.get(index)).map_or(0, position)
}

/// The largest position in an index file that is at most `position`: a batch starts there.
pub fn boundary_in_file(file: &[u8], position: u32) -> u32 {
    let (entries, _) = file.as_chunks::<OFFSET_ENTRY_BYTES>();
    let at = |entry: &[u8; 8]| u32::from_be_bytes([entry[4], entry[5], entry[6], entry[7]]);
    let index = entries.partition_point(|entry| at(entry) <= position);
    index.checked_sub(1).and_then(|index| entries.get(index)).map_or(0, at)
}
