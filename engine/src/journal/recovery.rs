//! Finding the end of the journal, and giving every record that is still needed to whoever rebuilds the state.
//!
//! One group is in flight at a time, so a crash can tear the last group only. At every position, with `L` the next LSN
//! and `c` the checksum of the group before, the first row that applies decides:
//!
//! | # | what is found | what it means |
//! |---|---|---|
//! | R0 | the file that should come next starts with no valid group, but has one behind it, with `L` or a later LSN | **damage** at its start: the group behind was submitted when the first was durable |
//! | R1 | the file with the next epoch starts with LSN `L` chained to `c` | this file ends here, whatever lies behind: a start after a crash went on in the next file |
//! | R2 | a valid group of this file's epoch with LSN `L`, chained to `c` | accepted |
//! | R3 | there is a file with a later epoch | **damage**: it started behind a group that is gone |
//! | R4 | a valid group of this epoch further on in the file | **damage**: a later group was submitted, so the one here was durable |
//! | R5 | `L` is at or below a durable LSN recorded in any group or the checkpoint | **damage**: it was durable |
//! | R6 | none of these | the torn tail, or the end: the journal ends before `L` |
//!
//! R1 comes before R2 because a killed process's last write may reach the disk after its successor has read the file:
//! such a ghost is valid, but the successor's next file has taken its LSN.
//!
//! A group is one of this journal only if it carries its key: a client may have sent the image of a group, and a torn
//! write may have left it where a group would be looked for.
//!
//! R0 comes where the walk over the files before has ended by another row than R1. Without a second group in the file,
//! its damaged start cannot be told from a torn one; if R3 or R5 say that something is missing, it is named all the same.
//!
//! A ghost may also be the first group of a file. Its epoch is skipped by the successor, so the file whose records a later
//! epoch has anew is obsolete, as is one that was recycled.
//!
//! Nothing is ever appended behind a torn tail. The next group goes to a file of its own, with a new epoch.

use std::collections::VecDeque;

use super::files::{FileSlot, Files, UsedFile};
use crate::buffer::Slice;
use crate::error::Fatal;
use crate::format::journal::{GroupError, GroupHeader, RecordHeader, check, peek, records};
use crate::io::{Blocking, FileId, Io, OpenMode};
use crate::limits::{BLOCK_BYTES, GROUP_BYTES_MAX, JOURNAL_FILES_MIN, JOURNAL_SLAB_BYTES};
use crate::types::{FileEpoch, Lsn};

/// Where a journal is, and what its files are like.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    /// Its directory.
    pub directory: &'a str,
    /// What its groups carry.
    pub key: u64,
    /// The size of each file.
    pub file_bytes: u64,
}

/// What recovery found.
pub struct Recovered {
    /// The ring.
    pub files: Files,
    /// The last record; everything up to it is flushed now.
    pub last_lsn: Lsn,
    /// The last group's checksum.
    pub last_crc: u32,
    /// The key that its groups carry.
    pub key: u64,
    /// Bytes of groups that were read.
    pub bytes: u64,
}

/// A file that starts with a valid group.
struct Candidate {
    slot: FileSlot,
    name: String,
    first: GroupHeader,
}

/// A file that does not, but that may have been started in this journal.
struct Headless {
    name: String,
    epoch: FileEpoch,
    /// A valid group behind its first, and that group's first record; without one, its broken first group says that it
    /// starts with this record.
    later: Option<u64>,
    lsn: Lsn,
    /// What is wrong with its start.
    error: (usize, &'static str),
}

impl Headless {
    /// Whether it should be what comes behind record `last` in files of these epochs.
    fn is_next(&self, last: Lsn, after: Option<FileEpoch>, before: Option<FileEpoch>) -> bool {
        let starts_there = if self.later.is_some() { self.lsn > last } else { self.lsn == last.next() };
        starts_there
            && after.is_none_or(|after| self.epoch > after)
            && before.is_none_or(|before| self.epoch < before)
    }

    fn damage(&self, last: Lsn, evidence: &str) -> Fatal {
        let (offset, why) = self.error;
        Fatal::Corrupt {
            file: self.name.clone(),
            position: offset as u64,
            what: format!("{why}, where record {} should be; and {evidence}", last.0 + 1),
        }
    }
}

/// Where a record was found.
#[derive(Clone, Copy, Debug)]
pub struct Replayed {
    /// The file.
    pub file: FileId,
    /// Its group's position in that.
    pub at: u64,
    /// Its group.
    pub group: GroupHeader,
    /// Where its payload starts in the group.
    pub payload: usize,
}

/// Reads the journal at `ring`, which may not exist yet. The state that the records are applied to is as of
/// `checkpoint_lsn` (durable, by the checkpoint's word) and needs every record from `replay_lsn` on.
///
/// `replay` takes the records in order. A payload is a slice of journal memory, and may be kept. What it says against a
/// record, because that contradicts the state so far, is damage at the record's place.
pub fn recover<I: Io>(
    disk: &mut Blocking<'_, I>,
    ring: &Ring<'_>,
    checkpoint_lsn: Lsn,
    replay_lsn: Lsn,
    replay: &mut impl FnMut(Lsn, &RecordHeader, Slice, &Replayed) -> Result<(), String>,
) -> Result<Recovered, Fatal> {
    let Ring { directory, key, .. } = *ring;
    disk.make_dir(directory)?;
    let Opened { mut candidates, mut free, headless } = open_files(disk, ring)?;
    candidates.sort_by_key(|candidate| candidate.first.file_epoch);
    // An epoch is left out: a killed process may yet start a file with the one after the last that is seen here.
    let next_epoch = FileEpoch(candidates.last().map_or(0, |candidate| candidate.first.file_epoch.0) + 2);
    free.extend(drop_ghosts(&mut candidates));

    let needed = candidates
        .iter()
        .rposition(|candidate| candidate.first.first_lsn <= replay_lsn.min(checkpoint_lsn.next()));
    let live = candidates.split_off(needed.unwrap_or(0));
    free.extend(candidates.iter().map(|candidate| candidate.slot));

    let mut scan = Scan {
        durable_lsn: checkpoint_lsn,
        last_lsn: Lsn(live.first().map_or(0, |candidate| candidate.first.first_lsn.0 - 1)),
        last_crc: live.first().map_or(0, |candidate| candidate.first.previous_crc),
        bytes: 0,
        last_group: None,
        replay_lsn,
        file_bytes: ring.file_bytes,
        key: ring.key,
        headless,
    };
    if needed.is_none() && scan.last_lsn >= replay_lsn {
        let starts_at = Lsn(replay_lsn.0 - 1);
        let first = live.first().map(|candidate| candidate.first.file_epoch);
        if let Some(headless) = scan.headless(starts_at, None, first) {
            return Err(headless.damage(starts_at, "the next file holds later ones"));
        }
        return Err(Fatal::Corrupt {
            file: directory.to_owned(),
            position: 0,
            what: format!(
                "the journal starts at record {}, but {} is needed",
                scan.last_lsn.0 + 1,
                replay_lsn.0
            ),
        });
    }
    let mut used = VecDeque::new();
    for (index, candidate) in live.iter().enumerate() {
        scan.file(disk, candidate, live.get(index + 1), replay)?;
        used.push_back(UsedFile {
            slot: candidate.slot,
            epoch: candidate.first.file_epoch,
            last_lsn: scan.last_lsn,
        });
    }
    let last = live.last().map(|candidate| candidate.first.file_epoch);
    // Where no file has a beginning, what recycled ones hold lies before what the checkpoint needs.
    let behind =
        if live.is_empty() { Lsn(replay_lsn.min(checkpoint_lsn.next()).0 - 1) } else { scan.last_lsn };
    if let Some(headless) = scan.headless(behind, last, None)
        && let Some(at) = headless.later
    {
        return Err(headless.damage(behind, &format!("a valid group follows at {at}"))); // R0
    }
    if scan.last_lsn < scan.durable_lsn {
        return Err(Fatal::Corrupt {
            file: live.last().map_or_else(|| directory.to_owned(), |candidate| candidate.name.clone()),
            position: 0,
            what: format!(
                "the journal ends at record {}, but {} was durable",
                scan.last_lsn.0, scan.durable_lsn.0
            ),
        });
    }
    // The last group is about to be believed, whether or not it was ever flushed: by a killed process it may not have been,
    // and after a flush that failed it may be what is read and yet never reach the disk. So it is written once more.
    if let Some((candidate, (position, group))) = live.last().zip(scan.last_group) {
        disk.write(candidate.slot.file, &candidate.name, position, group)?;
        disk.flush(candidate.slot.file, &candidate.name)?;
    }
    // Names of files may be as new: a group in a file without a durable name would be lost with it.
    disk.sync_dir(directory)?;
    let mut files = Files::new(used, free.into(), next_epoch, ring.file_bytes);
    while files.total() < JOURNAL_FILES_MIN || files.free() == 0 {
        let number = files.next_number();
        let name = format!("{directory}/{}", Files::name(number));
        let (file, _) = disk.open(&name, OpenMode::Direct)?;
        disk.write_zeros(file, &name, 0, ring.file_bytes)?;
        disk.flush(file, &name)?;
        disk.sync_dir(directory)?;
        files.add(FileSlot { number, file });
    }
    Ok(Recovered { files, last_lsn: scan.last_lsn, last_crc: scan.last_crc, key, bytes: scan.bytes })
}

/// Takes out the files whose records a later epoch has anew: a killed process's last write may start a file after its
/// successor has read the journal, which then went on with the same record elsewhere.
fn drop_ghosts(candidates: &mut Vec<Candidate>) -> Vec<FileSlot> {
    let mut ghosts = Vec::new();
    let mut next = Lsn(u64::MAX);
    for index in (0..candidates.len()).rev() {
        let first = candidates[index].first.first_lsn;
        if first >= next {
            ghosts.push(candidates.remove(index).slot);
        } else {
            next = first;
        }
    }
    ghosts
}

/// Every file of the ring.
struct Opened {
    /// Those that start with a valid group.
    candidates: Vec<Candidate>,
    /// The rest, ready to be used.
    free: Vec<FileSlot>,
    /// Those of the rest that may be damaged.
    headless: Vec<Headless>,
}

/// Opens every file of the ring.
fn open_files<I: Io>(disk: &mut Blocking<'_, I>, ring: &Ring<'_>) -> Result<Opened, Fatal> {
    let directory = ring.directory;
    let mut candidates = Vec::new();
    let mut free = Vec::new();
    let mut headless = Vec::new();
    for entry in disk.list(directory)? {
        let Some(number) = Files::number(&entry.name) else { continue };
        let name = format!("{directory}/{}", entry.name);
        let (file, len) = disk.open(&name, OpenMode::Direct)?;
        let slot = FileSlot { number, file };
        if let Some(first) = first_group(disk, file, &name)?.filter(|first| first.key == ring.key) {
            if len != ring.file_bytes {
                return Err(Fatal::Config(format!(
                    "{name} has {len} bytes, but journal files are to have {}",
                    ring.file_bytes
                )));
            }
            candidates.push(Candidate { slot, name, first });
        } else {
            // A file whose making was interrupted is shorter; a used one never is.
            if len < ring.file_bytes {
                disk.write_zeros(file, &name, 0, ring.file_bytes)?;
                disk.flush(file, &name)?;
                disk.sync_dir(directory)?;
            } else {
                headless.extend(look_behind(disk, ring, file, &name)?);
            }
            free.push(slot);
        }
    }
    Ok(Opened { candidates, free, headless })
}

/// What a file without a valid first group tells of what it held: by the first valid group behind that, which starts
/// within the bytes that the first one may have taken, or by the broken one's header.
fn look_behind<I: Io>(
    disk: &mut Blocking<'_, I>,
    ring: &Ring<'_>,
    file: FileId,
    name: &str,
) -> Result<Option<Headless>, Fatal> {
    let len = (GROUP_BYTES_MAX + BLOCK_BYTES).min(ring.file_bytes as usize);
    let start = disk.read(file, name, 0, len)?;
    let bytes = start.filled();
    let error = match check(bytes) {
        Err(GroupError::Broken(offset, what)) => (offset, what),
        Ok(_) | Err(GroupError::Absent) => (0, "there is no group of this journal here"),
    };
    let found = |header: GroupHeader, later| Headless {
        name: name.to_owned(),
        epoch: header.file_epoch,
        later,
        lsn: header.first_lsn,
        error,
    };
    let ours = |bytes: &[u8]| peek(bytes).ok().filter(|header| header.key == ring.key);
    for at in (BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES) {
        let Some(claimed) = bytes.get(at..).and_then(ours) else { continue };
        let group = disk.read(file, name, at as u64, claimed.length)?;
        if let Ok(header) = check(group.filled()) {
            return Ok(Some(found(header, Some(at as u64))));
        }
    }
    Ok(ours(bytes).map(|header| found(header, None)))
}

/// The group that a file starts with, if it is valid.
fn first_group<I: Io>(
    disk: &mut Blocking<'_, I>,
    file: FileId,
    name: &str,
) -> Result<Option<GroupHeader>, Fatal> {
    let block = disk.read(file, name, 0, BLOCK_BYTES)?;
    let Ok(header) = peek(block.filled()) else { return Ok(None) };
    let block = disk.read(file, name, 0, header.length)?;
    Ok(check(block.filled()).ok())
}

/// The walk over the live files.
struct Scan {
    durable_lsn: Lsn,
    last_lsn: Lsn,
    last_crc: u32,
    bytes: u64,
    /// The last group accepted, and its position in its file.
    last_group: Option<(u64, Slice)>,
    replay_lsn: Lsn,
    file_bytes: u64,
    key: u64,
    headless: Vec<Headless>,
}

impl Scan {
    /// The file that lacks its start and should come next behind record `last`, between files of these epochs.
    fn headless(&self, last: Lsn, after: Option<FileEpoch>, before: Option<FileEpoch>) -> Option<&Headless> {
        self.headless
            .iter()
            .filter(|headless| headless.is_next(last, after, before))
            .min_by_key(|headless| headless.epoch)
    }

    fn file<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        candidate: &Candidate,
        next: Option<&Candidate>,
        replay: &mut impl FnMut(Lsn, &RecordHeader, Slice, &Replayed) -> Result<(), String>,
    ) -> Result<(), Fatal> {
        let Candidate { slot, name, first } = candidate;
        let mut position = 0;
        while position < self.file_bytes {
            let len = (JOURNAL_SLAB_BYTES as u64).min(self.file_bytes - position) as usize;
            let chunk = disk.read(slot.file, name, position, len)?.freeze();
            let mut at = 0;
            loop {
                let rest = chunk.slice(at..chunk.len());
                if next.is_some_and(|next| self.is_continued_by(&next.first)) {
                    return Ok(()); // R1
                }
                let error = match check(&rest) {
                    Ok(header) if header.file_epoch == first.file_epoch && self.is_continued_by(&header) => {
                        self.accept(&header, &rest, candidate, position + at as u64, replay)?; // R2
                        at += header.length;
                        continue;
                    }
                    Ok(_) | Err(GroupError::Absent) => (0, "there is no group of this file here"),
                    Err(GroupError::Broken(offset, what)) => (offset, what),
                };
                // The group may only be cut off by the chunk's end: look again with it at the start of a chunk.
                if at > 0
                    && (rest.len() < GROUP_BYTES_MAX && position + (chunk.len() as u64) < self.file_bytes)
                {
                    break;
                }
                if at == chunk.len() && next.is_none() && position + at as u64 == self.file_bytes {
                    return Ok(()); // The file is full to its last byte, and is the last: R6.
                }
                let position = position + at as u64;
                return self.end(disk, candidate, next, position, error);
            }
            position += at as u64;
        }
        Ok(())
    }

    fn is_continued_by(&self, header: &GroupHeader) -> bool {
        header.key == self.key
            && header.first_lsn == self.last_lsn.next()
            && header.previous_crc == self.last_crc
    }

    fn accept(
        &mut self,
        header: &GroupHeader,
        group: &Slice,
        candidate: &Candidate,
        position: u64,
        replay: &mut impl FnMut(Lsn, &RecordHeader, Slice, &Replayed) -> Result<(), String>,
    ) -> Result<(), Fatal> {
        self.durable_lsn = self.durable_lsn.max(header.durable_lsn);
        self.last_crc = header.crc;
        self.last_group = Some((position, group.slice(0..header.length)));
        self.bytes += header.length as u64;
        let mut lsn = self.last_lsn;
        self.last_lsn = header.last_lsn();
        if header.last_lsn() < self.replay_lsn {
            return Ok(());
        }
        for (record, payload) in records(group) {
            lsn = lsn.next();
            if lsn < self.replay_lsn {
                continue; // Its owner may be forgotten.
            }
            let at = position + payload.start as u64;
            let place =
                Replayed { file: candidate.slot.file, at: position, group: *header, payload: payload.start };
            replay(lsn, &record, group.slice(payload), &place).map_err(|what| Fatal::Corrupt {
                file: candidate.name.clone(),
                position: at,
                what,
            })?;
        }
        Ok(())
    }

    /// The file does not go on at `position`: rows R3 to R6.
    fn end<I: Io>(
        &self,
        disk: &mut Blocking<'_, I>,
        candidate: &Candidate,
        next: Option<&Candidate>,
        position: u64,
        (offset, why): (usize, &str),
    ) -> Result<(), Fatal> {
        let evidence = if let Some(next) = next {
            Some(format!("{} was started behind it", next.name)) // R3
        } else if let Some(later) = self.later_group(disk, candidate, position)? {
            Some(format!("a valid group follows at {later}")) // R4
        } else if self.last_lsn < self.durable_lsn {
            Some(format!("record {} was durable", self.durable_lsn.0)) // R5
        } else {
            None // R6
        };
        let Some(evidence) = evidence else { return Ok(()) };
        let before = next.map(|next| next.first.file_epoch);
        if let Some(headless) = self.headless(self.last_lsn, Some(candidate.first.file_epoch), before) {
            return Err(headless.damage(self.last_lsn, &evidence)); // R0
        }
        Err(Fatal::Corrupt {
            file: candidate.name.clone(),
            position: position + offset as u64,
            what: format!("{why}, where record {} should be; and {evidence}", self.last_lsn.0 + 1),
        })
    }

    /// The position of a valid group of this file's epoch behind `position`.
    fn later_group<I: Io>(
        &self,
        disk: &mut Blocking<'_, I>,
        candidate: &Candidate,
        position: u64,
    ) -> Result<Option<u64>, Fatal> {
        let rest =
            disk.read(candidate.slot.file, &candidate.name, position, (self.file_bytes - position) as usize)?;
        let bytes = rest.filled();
        for at in (BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES) {
            let Some(here) = bytes.get(at..) else { break };
            if let Ok(header) = peek(here)
                && header.file_epoch == candidate.first.file_epoch
                && header.key == self.key
                && header.first_lsn > self.last_lsn
                && check(here).is_ok()
            {
                return Ok(Some(position + at as u64));
            }
        }
        Ok(None)
    }
}
