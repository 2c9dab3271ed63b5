//! A walk over a journal that changes nothing and does not end at damage.
//!
//! It decides by the rows of the recovery's table (R0 to R6 in `journal/recovery.rs`). Where recovery refuses, this
//! notes the damage and goes on with the next group that is sound, in the same file or in the next.

use super::reader::Reader;
use super::report::Verdict;
use crate::error::Fatal;
use crate::format::checkpoint::Checkpoint;
use crate::format::journal::{GroupError, GroupHeader, check, peek};
use crate::io::{Blocking, Io};
use crate::journal::Files;
use crate::limits::{BLOCK_BYTES, GROUP_BYTES_MAX};
use crate::types::{FileEpoch, Lsn};

/// A sound group, and where it is.
pub(super) struct Found<'a> {
    /// The file, as a place in [`Walked::verdicts`].
    pub file: usize,
    pub position: u64,
    pub header: GroupHeader,
    pub bytes: &'a [u8],
}

/// What a walk came to.
pub(super) struct Walked {
    /// One for each file, by name; and one for the directory if records are missing at the journal's start.
    pub verdicts: Vec<Verdict>,
}

struct File {
    index: usize,
    reader: Reader,
    /// The epoch that it is told by.
    epoch: FileEpoch,
    /// Its first group, if that is valid.
    first: Option<GroupHeader>,
    /// Its first valid group's first record.
    lsn: Lsn,
    key: u64,
}

/// Walks the journal in `directory`, and gives its sound groups in the order of their records. Groups without `key` are
/// a client's bytes; where it is not known, the newest file's is taken.
pub(super) fn walk<I: Io>(
    disk: &mut Blocking<'_, I>,
    directory: &str,
    key: Option<u64>,
    checkpoint: Option<&Checkpoint>,
    take: &mut dyn FnMut(&Found<'_>),
) -> Result<Walked, Fatal> {
    let mut verdicts = Vec::new();
    let mut files = Vec::new();
    for entry in disk.list(directory)? {
        if Files::number(&entry.name).is_none() {
            continue;
        }
        let name = format!("{directory}/{}", entry.name);
        let Some(reader) = Reader::open(disk, &name)? else { continue };
        let index = verdicts.len();
        verdicts.push(Verdict::new(&name));
        match File::new(disk, reader, index, key)? {
            Ok(file) => files.push(file),
            Err(reader) => {
                note(&mut verdicts, index, "free: it holds no group");
                close(disk, reader, &mut verdicts, index);
            }
        }
    }
    files.sort_by_key(|file| file.epoch);
    let key = key.or_else(|| files.last().map(|file: &File| file.key));
    let needed = checkpoint.map(|checkpoint| checkpoint.replay_lsn.min(checkpoint.lsn.next()));
    let oldest = files.iter().find(|file| file.first.is_some()).map(|file| file.epoch);
    let start = needed.and_then(|needed| {
        files.iter().rposition(|file| file.first.is_some_and(|first| first.first_lsn <= needed))
    });
    let mut live = Vec::new();
    for (at, file) in files.into_iter().enumerate() {
        let needed_by = match needed {
            Some(needed) => file.lsn >= needed,
            None => oldest.is_some_and(|oldest| file.epoch > oldest),
        };
        let is_live = if file.first.is_some() { at >= start.unwrap_or(0) } else { needed_by }; // R0
        if is_live {
            live.push(file);
            continue;
        }
        note(&mut verdicts, file.index, "free: what it holds is needed no more");
        close(disk, file.reader, &mut verdicts, file.index);
    }
    let first = live.first().and_then(|file| file.first);
    let mut walk = Walk {
        key: key.unwrap_or_default(),
        durable_lsn: checkpoint.map_or(Lsn::ZERO, |checkpoint| checkpoint.lsn),
        last_lsn: first.map_or(Lsn::ZERO, |first| Lsn(first.first_lsn.0 - 1)),
        last_crc: first.map_or(0, |first| first.previous_crc),
        verdicts,
        take,
    };
    if let Some(needed) = needed
        && walk.last_lsn >= needed
    {
        let mut verdict = Verdict::new(directory);
        verdict.bad(
            0,
            format!("the journal starts at record {}, but {} is needed", walk.last_lsn.0 + 1, needed.0),
        );
        walk.verdicts.push(verdict);
    }
    if live.is_empty()
        && walk.durable_lsn > Lsn::ZERO
        && needed.is_some_and(|needed| needed <= walk.durable_lsn)
    {
        let mut verdict = Verdict::new(directory);
        verdict.bad(0, format!("the journal is gone, but record {} was durable", walk.durable_lsn.0));
        walk.verdicts.push(verdict);
    }
    for at in 0..live.len() {
        let (file, next) = live.split_at_mut(at + 1);
        let (Some(file), next) = (file.last_mut(), next.first()) else { break };
        walk.file(disk, file, next)?;
    }
    let mut verdicts = walk.verdicts;
    for file in live {
        close(disk, file.reader, &mut verdicts, file.index);
    }
    Ok(Walked { verdicts })
}

fn note(verdicts: &mut [Verdict], index: usize, holds: &str) {
    if let Some(verdict) = verdicts.get_mut(index) {
        holds.clone_into(&mut verdict.holds);
    }
}

/// Closes a file, and tells of what could not be read in it.
fn close<I: Io>(disk: &mut Blocking<'_, I>, reader: Reader, verdicts: &mut [Verdict], index: usize) {
    if let (Some(at), Some(verdict)) = (reader.unreadable, verdicts.get_mut(index)) {
        verdict.bad(at, "it cannot be read");
    }
    reader.close(disk);
}

impl File {
    /// Looks at how a file starts; gives it back if it holds no valid group at all.
    fn new<I: Io>(
        disk: &mut Blocking<'_, I>,
        mut reader: Reader,
        index: usize,
        key: Option<u64>,
    ) -> Result<Result<File, Reader>, Fatal> {
        let is_ours = |header: &GroupHeader| key.is_none_or(|key| header.key == key);
        let first = group(disk, &mut reader, 0)?.ok().filter(is_ours);
        let known = match first {
            Some(first) => Some(first),
            None => later(disk, &mut reader, 0, is_ours)?.map(|(_, header)| header),
        };
        let Some(GroupHeader { file_epoch: epoch, first_lsn: lsn, key, .. }) = known else {
            return Ok(Err(reader));
        };
        Ok(Ok(File { index, reader, epoch, first, lsn, key }))
    }
}

/// The group at a position, checked.
fn group<I: Io>(
    disk: &mut Blocking<'_, I>,
    reader: &mut Reader,
    position: u64,
) -> Result<Result<GroupHeader, GroupError>, Fatal> {
    let len = match peek(reader.get(disk, position, BLOCK_BYTES)?) {
        Ok(header) => header.length,
        Err(error) => return Ok(Err(error)),
    };
    Ok(check(reader.get(disk, position, len.min(GROUP_BYTES_MAX))?))
}

/// The next valid group behind `position` that is wanted.
fn later<I: Io>(
    disk: &mut Blocking<'_, I>,
    reader: &mut Reader,
    position: u64,
    wanted: impl Fn(&GroupHeader) -> bool,
) -> Result<Option<(u64, GroupHeader)>, Fatal> {
    let mut at = position + BLOCK_BYTES as u64;
    while at < reader.len {
        if peek(reader.get(disk, at, BLOCK_BYTES)?).is_ok_and(|header| wanted(&header))
            && let Ok(header) = group(disk, reader, at)?
        {
            return Ok(Some((at, header)));
        }
        at += BLOCK_BYTES as u64;
    }
    Ok(None)
}

/// The state of the walk over the live files.
struct Walk<'a> {
    key: u64,
    durable_lsn: Lsn,
    last_lsn: Lsn,
    last_crc: u32,
    verdicts: Vec<Verdict>,
    take: &'a mut dyn FnMut(&Found<'_>),
}

impl Walk<'_> {
    fn is_continued_by(&self, header: &GroupHeader) -> bool {
        header.key == self.key
            && header.first_lsn == self.last_lsn.next()
            && header.previous_crc == self.last_crc
    }

    /// Goes on behind records that are gone.
    fn resume_at(&mut self, header: &GroupHeader) {
        self.last_lsn = Lsn(header.first_lsn.0 - 1);
        self.last_crc = header.previous_crc;
    }

    fn file<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        file: &mut File,
        next: Option<&File>,
    ) -> Result<(), Fatal> {
        let (mut position, mut groups) = (0, 0_u64);
        let first_lsn = self.last_lsn.next();
        let epoch = file.epoch;
        let ends = loop {
            if let Some(first) = next.and_then(|next| next.first)
                && self.is_continued_by(&first)
            {
                break "the next file goes on"; // R1
            }
            let (offset, why) = match group(disk, &mut file.reader, position)? {
                Ok(header) if header.file_epoch == epoch && self.is_continued_by(&header) => {
                    self.accept(disk, file, position, &header)?; // R2
                    position += header.length as u64;
                    groups += 1;
                    continue;
                }
                Ok(_) | Err(GroupError::Absent) => (0, "there is no group of this file here"),
                Err(GroupError::Broken(offset, what)) => (offset, what),
            };
            let (last, key) = (self.last_lsn, self.key);
            let later = later(disk, &mut file.reader, position, |header| {
                header.file_epoch == epoch && header.key == key && header.first_lsn > last
            })?;
            let evidence = if let Some(next) = next.filter(|next| next.first.is_some()) {
                Some(format!("{} was started behind it", next.reader.name)) // R3
            } else if let Some((at, _)) = later {
                Some(format!("a valid group follows at {at}")) // R4
            } else if next.is_none() && self.last_lsn < self.durable_lsn {
                Some(format!("record {} was durable", self.durable_lsn.0)) // R5
            } else {
                None
            };
            let Some(evidence) = evidence else {
                // R6, or the next file's damaged start tells of what is missing here.
                let torn = file.reader.get(disk, position, BLOCK_BYTES)?.iter().any(|byte| *byte != 0);
                break if torn && next.is_none() {
                    "a torn or an older group follows, which nobody was promised"
                } else {
                    "nothing follows"
                };
            };
            if let Some(verdict) = self.verdicts.get_mut(file.index) {
                let what = format!("{why}, where record {} should be; and {evidence}", last.0 + 1);
                verdict.bad(position + offset as u64, what);
            }
            match (later, next.and_then(|next| next.first)) {
                (Some((at, header)), _) => {
                    self.resume_at(&header);
                    position = at;
                }
                (None, Some(first)) => {
                    self.resume_at(&first);
                    break "records are missing";
                }
                (None, None) => break "records are missing",
            }
        };
        if let Some(verdict) = self.verdicts.get_mut(file.index) {
            verdict.holds = format!(
                "{groups} groups, records {}..={}, file epoch {}, to byte {position}: {ends}",
                first_lsn.0, self.last_lsn.0, epoch.0
            );
        }
        Ok(())
    }

    fn accept<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        file: &mut File,
        position: u64,
        header: &GroupHeader,
    ) -> Result<(), Fatal> {
        self.durable_lsn = self.durable_lsn.max(header.durable_lsn);
        self.last_crc = header.crc;
        self.last_lsn = header.last_lsn();
        let bytes = file.reader.get(disk, position, header.length)?;
        (self.take)(&Found { file: file.index, position, header: *header, bytes });
        Ok(())
    }
}
