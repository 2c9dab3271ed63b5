//! The ring of journal files: which is being written, which hold records that are still needed, which are free.

use std::collections::VecDeque;

use crate::io::FileId;
use crate::limits::GROUP_BYTES_MAX;
use crate::types::{FileEpoch, Lsn};

/// A journal file's place in its directory.
#[derive(Clone, Copy, Debug)]
pub struct FileSlot {
    /// The number in its name.
    pub number: u32,
    /// The open file.
    pub file: FileId,
}

/// A file that holds records.
#[derive(Clone, Copy, Debug)]
pub struct UsedFile {
    /// Which.
    pub slot: FileSlot,
    /// The epoch it was started with.
    pub epoch: FileEpoch,
    /// Its last record.
    pub last_lsn: Lsn,
}

/// Where a group goes.
#[derive(Clone, Copy, Debug)]
pub struct GroupTarget {
    /// The file.
    pub file: FileId,
    /// The position in it.
    pub at: u64,
    /// The file's epoch.
    pub epoch: FileEpoch,
}

/// The ring. Files are pre-written, so that a group never changes a file's length or block map; a file is recycled by
/// starting it again with a higher epoch, without any I/O of its own.
pub struct Files {
    /// Files with records, oldest first. The last is being written unless `position` is at its end.
    used: VecDeque<UsedFile>,
    free: VecDeque<FileSlot>,
    /// Where the next group goes in the last used file.
    position: u64,
    /// The size of every file.
    file_bytes: u64,
    next_epoch: FileEpoch,
    next_number: u32,
}

impl Files {
    /// The ring of files of `file_bytes` as recovery found it: nothing is appended behind what was there.
    pub fn new(
        used: VecDeque<UsedFile>,
        free: VecDeque<FileSlot>,
        next_epoch: FileEpoch,
        file_bytes: u64,
    ) -> Files {
        let numbers = used.iter().map(|file| file.slot.number).chain(free.iter().map(|slot| slot.number));
        let next_number = numbers.max().map_or(0, |number| number + 1);
        Files { used, free, position: file_bytes, file_bytes, next_epoch, next_number }
    }

    /// The name of a journal file within its directory.
    pub fn name(number: u32) -> String {
        format!("{number:04}.journal")
    }

    /// The number in a journal file's name.
    pub fn number(name: &str) -> Option<u32> {
        name.strip_suffix(".journal")?.parse().ok()
    }

    /// The size of every file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// All files of the ring.
    pub fn total(&self) -> usize {
        self.used.len() + self.free.len()
    }

    /// Files that can be started.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Files that hold records, oldest first; the last may still grow.
    pub fn used(&self) -> impl ExactSizeIterator<Item = &UsedFile> {
        self.used.iter()
    }

    /// Every file.
    pub fn slots(&self) -> impl Iterator<Item = FileSlot> {
        self.used.iter().map(|file| file.slot).chain(self.free.iter().copied())
    }

    /// The number that the next new file gets.
    pub fn next_number(&self) -> u32 {
        self.next_number
    }

    /// Adds a new, pre-written file.
    pub fn add(&mut self, slot: FileSlot) {
        assert_eq!(slot.number, self.next_number, "journal files are numbered in order");
        self.next_number += 1;
        self.free.push_back(slot);
    }

    /// Whether a group of any size can be placed while `reserve` files stay free.
    pub fn has_room(&self, reserve: usize) -> bool {
        self.position + GROUP_BYTES_MAX as u64 <= self.file_bytes && self.free.len() >= reserve
            || self.free.len() > reserve
    }

    /// Gives a group of `len` bytes its place, starting a file if the current one is too full.
    pub fn place(&mut self, len: usize, last_lsn: Lsn) -> GroupTarget {
        if self.position + len as u64 > self.file_bytes {
            let slot = self.free.pop_front().expect("room was checked before the first record of the group");
            self.used.push_back(UsedFile { slot, epoch: self.next_epoch, last_lsn });
            self.next_epoch.0 += 1;
            self.position = 0;
        }
        let current = self.used.back_mut().expect("a file was started");
        current.last_lsn = last_lsn;
        let target = GroupTarget { file: current.slot.file, at: self.position, epoch: current.epoch };
        self.position += len as u64;
        target
    }

    /// Frees every file whose records all lie before `needed`, except the one being written. The caller has made
    /// durable, elsewhere, everything they protect.
    pub fn recycle(&mut self, needed: Lsn) -> usize {
        let mut recycled = 0;
        while self.used.len() > 1 && self.used.front().is_some_and(|file| file.last_lsn < needed) {
            let file = self.used.pop_front().expect("the front was just looked at");
            self.free.push_back(file.slot);
            recycled += 1;
        }
        recycled
    }

    /// The last record of the oldest `count` files that could be recycled; `None` if there is none.
    pub fn last_lsn_of_oldest(&self, count: usize) -> Option<Lsn> {
        let full = self.used.len().checked_sub(1)?;
        Some(self.used.get(count.min(full).checked_sub(1)?)?.last_lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::JOURNAL_FILE_BYTES;

    fn ring(free: u32) -> Files {
        let slots = (0..free).map(|number| FileSlot { number, file: FileId(number) }).collect();
        Files::new(VecDeque::new(), slots, FileEpoch(1), JOURNAL_FILE_BYTES)
    }

    #[test]
    fn groups_follow_each_other_and_start_a_file_when_one_is_full() {
        let mut files = ring(2);
        let half = (JOURNAL_FILE_BYTES / 2) as usize;
        let places: Vec<_> = (1..=3).map(|lsn| files.place(half, Lsn(lsn))).collect();
        let seen: Vec<_> = places.iter().map(|place| (place.file.0, place.at, place.epoch.0)).collect();
        assert_eq!(seen, [(0, 0, 1), (0, half as u64, 1), (1, 0, 2)]);
    }

    #[test]
    fn only_files_before_the_needed_record_are_recycled_and_never_the_current_one() {
        let mut files = ring(3);
        for lsn in 1..=3 {
            files.place(JOURNAL_FILE_BYTES as usize, Lsn(lsn * 10));
        }
        assert_eq!(files.recycle(Lsn(20)), 1);
        assert_eq!(files.recycle(Lsn(99)), 1);
        assert_eq!((files.used().len(), files.free()), (1, 2));
        // The recycled file starts again, told apart by its epoch.
        assert_eq!(files.place(4096, Lsn(40)).epoch, FileEpoch(4));
    }

    #[test]
    fn the_reserve_is_not_for_everybody() {
        let mut files = ring(2);
        assert!(files.has_room(1));
        files.place(JOURNAL_FILE_BYTES as usize - 4096, Lsn(1));
        assert!(files.has_room(0) && !files.has_room(1));
    }
}
