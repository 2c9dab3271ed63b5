//! A partition's directory: every segment's batches, what its indexes point to, and its checksums.

use std::collections::BTreeSet;

use super::batches::{Batches, Step};
use super::reader::Reader;
use super::report::{Report, Verdict};
use super::show;
use super::site::Site;
use crate::error::Fatal;
use crate::format::batch::BatchHeader;
use crate::format::checkpoint::PartitionState;
use crate::format::index::{OffsetIndexEntry, TimeIndexEntry};
use crate::format::partition::{
    DirName, LEADER_EPOCHS_FILE, METADATA_FILE, SegmentFile, decode_leader_epochs, decode_metadata,
    file_name, parse_dir_name, parse_file_name,
};
use crate::format::producer::decode_snapshot;
use crate::format::sum::{SUMMED, Sum, Summed};
use crate::io::{Blocking, Io};
use crate::limits::SUM_BLOCK_BYTES;
use crate::log::drain::COPY_SUFFIX;
use crate::types::{Offset, PartitionId};

/// How far a segment's file must be sound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It is complete and has this size, its indexes too.
    Stored(u64),
    /// It is being filled: this many bytes are durable in it, and its indexes are hints.
    Open(u64),
    /// Nobody says: whatever is whole must be sound.
    Unknown,
    /// It holds nothing that is still needed.
    Excess,
}

impl Standing {
    /// Of the segment `base` in a log with this state.
    fn of(state: &PartitionState, base: Offset) -> Standing {
        match state.segments.iter().find(|segment| segment.base == base) {
            Some(segment) if segment.stored => Standing::Stored(u64::from(segment.size)),
            Some(segment) => Standing::Open(u64::from(segment.flushed)),
            None if state.segments.last().is_none_or(|last| base > last.base) => Standing::Open(0),
            None => Standing::Excess,
        }
    }

    /// Whether a bad byte here is damage.
    fn vouches_for(self, position: u64) -> bool {
        match self {
            Standing::Stored(_) | Standing::Unknown => true,
            Standing::Open(flushed) => position < flushed,
            Standing::Excess => false,
        }
    }
}

/// Whose directory this is, by its `partition.metadata` and its name.
pub(super) fn owner<I: Io>(
    disk: &mut Blocking<'_, I>,
    directory: &str,
) -> Result<Option<(PartitionId, String)>, Fatal> {
    let last = directory.rsplit('/').next().unwrap_or_default();
    let Some(DirName::Live { topic, index }) = parse_dir_name(last) else { return Ok(None) };
    let text = disk.read_whole(&format!("{directory}/{METADATA_FILE}"))?;
    let id = text.and_then(|text| decode_metadata(&text));
    Ok(id.map(|id| (PartitionId { topic: id, index }, topic)))
}

/// Judges the wanted files of a partition's directory, and those that should be there.
pub(super) fn partition<I: Io>(
    disk: &mut Blocking<'_, I>,
    site: &Site,
    directory: &str,
    wanted: &BTreeSet<String>,
    report: &mut Report<'_>,
) -> Result<(), Fatal> {
    if directory.ends_with(COPY_SUFFIX) {
        for path in wanted {
            left_over(path, report);
        }
        return Ok(());
    }
    let owner = owner(disk, directory)?.map(|(id, _)| id);
    let state = owner.and_then(|id| site.state(id));
    let mut bases = BTreeSet::new();
    for path in wanted {
        let name = path.rsplit('/').next().unwrap_or_default();
        match parse_file_name(name) {
            Some(file) if file.deleted => left_over(path, report),
            Some(file) => {
                bases.insert(file.base_offset);
            }
            None if name.ends_with(COPY_SUFFIX) => left_over(path, report),
            None => text(disk, site, path, name, report)?,
        }
    }
    for base in bases {
        let standing = match state {
            Some(state) => Standing::of(state, base),
            None if site.is_complete() && owner.is_some() => Standing::Open(0),
            None => Standing::Unknown,
        };
        segment(disk, directory, base, owner, standing, wanted, report)?;
    }
    Ok(())
}

/// Tells of the segments that the checkpoint knows and no file holds.
pub(super) fn missing<I: Io>(
    disk: &mut Blocking<'_, I>,
    state: &PartitionState,
    directory: &str,
    report: &mut Report<'_>,
) -> Result<(), Fatal> {
    let names: BTreeSet<String> = disk.list(directory)?.into_iter().map(|entry| entry.name).collect();
    for segment in state.segments.iter().filter(|segment| segment.flushed > 0) {
        let name = file_name(segment.base, SegmentFile::Log);
        if !names.contains(&name) {
            let mut verdict = Verdict::new(format!("{directory}/{name}"));
            verdict.bad(0, format!("the file is missing, and {} bytes were durable in it", segment.flushed));
            report.file(&verdict);
        }
    }
    Ok(())
}

fn left_over(path: &str, report: &mut Report<'_>) {
    let mut verdict = Verdict::new(path);
    "left over: it was about to be removed".clone_into(&mut verdict.holds);
    report.file(&verdict);
}

/// Where the topic id stands in `partition.metadata`, behind the version and its own name.
const TOPIC_ID_AT: u64 = 21;

/// Whether a file lies in a directory of a topic of this name.
fn is_of(path: &str, topic: &str) -> bool {
    let directory = path.rsplit('/').nth(1).and_then(parse_dir_name);
    matches!(directory, Some(DirName::Live { topic: found, .. }) if found == topic)
}

/// The small texts of a partition's directory.
fn text<I: Io>(
    disk: &mut Blocking<'_, I>,
    site: &Site,
    path: &str,
    name: &str,
    report: &mut Report<'_>,
) -> Result<(), Fatal> {
    let mut verdict = Verdict::new(path);
    let bytes = disk.read_whole(path)?.unwrap_or_default();
    match name {
        METADATA_FILE => match decode_metadata(&bytes) {
            Some(id) => {
                verdict.holds = format!("topic id {id}");
                let is_known = site.names.get(&id).is_some_and(|name| is_of(path, name));
                if site.is_complete() && !is_known && !site.deleted.contains(&id) {
                    verdict
                        .bad(TOPIC_ID_AT, "the metadata knows no topic of this directory's name and this id");
                }
            }
            None => verdict.bad(0, "it is not what it should be"),
        },
        LEADER_EPOCHS_FILE => match decode_leader_epochs(&bytes) {
            Some(epochs) => verdict.holds = format!("{} leader epochs", epochs.len()),
            None => verdict.bad(0, "it is not what it should be"),
        },
        _ => "none of ours".clone_into(&mut verdict.holds),
    }
    report.file(&verdict);
    Ok(())
}

/// One segment with its files, of which the wanted ones are told of.
struct Judged {
    log: Verdict,
    index: Verdict,
    times: Verdict,
}

fn segment<I: Io>(
    disk: &mut Blocking<'_, I>,
    directory: &str,
    base: Offset,
    owner: Option<PartitionId>,
    standing: Standing,
    wanted: &BTreeSet<String>,
    report: &mut Report<'_>,
) -> Result<(), Fatal> {
    let path = |file| format!("{directory}/{}", file_name(base, file));
    let mut judged = Judged {
        log: Verdict::new(path(SegmentFile::Log)),
        index: Verdict::new(path(SegmentFile::Index)),
        times: Verdict::new(path(SegmentFile::TimeIndex)),
    };
    let mut pointers = Pointers::read(disk, &judged, report)?;
    if let Some(mut reader) = Reader::open(disk, &judged.log.file)? {
        if let Standing::Stored(size) = standing
            && size != reader.len
        {
            let what = format!("the file has {} bytes, but {size} were stored in it", reader.len);
            judged.log.bad(size.min(reader.len), what);
        }
        if let Standing::Open(flushed) = standing
            && reader.len < flushed
        {
            let what = format!("the file ends here, but {flushed} bytes of it were durable");
            judged.log.bad(reader.len, what);
        }
        log(disk, &mut reader, base, standing, &mut judged, &mut pointers, report)?;
        reader.close(disk);
        pointers.end(standing, &mut judged);
    }
    let sum = sums(disk, &path(SegmentFile::Sum), base, owner, &mut judged)?;
    let snapshot = snapshot(disk, &path(SegmentFile::Snapshot))?;
    let Judged { log, index, times } = judged;
    for verdict in [Some(log), Some(index), Some(times), sum, snapshot].into_iter().flatten() {
        if wanted.contains(&verdict.file) {
            report.file(&verdict);
        }
    }
    Ok(())
}

fn log<I: Io>(
    disk: &mut Blocking<'_, I>,
    reader: &mut Reader,
    base: Offset,
    standing: Standing,
    judged: &mut Judged,
    pointers: &mut Pointers,
    report: &mut Report<'_>,
) -> Result<(), Fatal> {
    let mut walk = Batches::new(base);
    let mut expected = base;
    let (mut batches, mut end) = (0_u64, "");
    while let Some(step) = walk.next(disk, reader, expected)? {
        match step {
            Step::Batch(at, header) => {
                batches += 1;
                report.entry(|| format!("{}{}", judged.log.file, show::batch(at, &header)));
                show::records(report, &header, reader.get(disk, at, header.size)?);
                // What is appended has no gaps. What was imported may, and a stored segment has sums that tell of loss.
                let gapless = matches!(standing, Standing::Open(_));
                let follows = header.base_offset == expected || header.base_offset > expected && !gapless;
                if !follows && standing.vouches_for(at) {
                    let what =
                        format!("a batch with offset {} where {expected} comes next", header.base_offset);
                    judged.log.bad(at, what);
                }
                expected = expected.max(header.next_offset());
                pointers.batch(base, at, &header, standing, judged);
            }
            Step::Cut(at) => {
                if matches!(standing, Standing::Stored(_)) {
                    judged.log.bad(at, "the batch is cut short");
                }
                end = ", and the start of a batch whose rest is in the journal";
            }
            Step::Bad(at, what, resume) => {
                if standing.vouches_for(at) {
                    let note = resume.map_or_else(String::new, |at| format!("; sound again from {at}"));
                    judged.log.bad(at, format!("{what}{note}"));
                }
                end = ", and bytes that were not durable";
                let resumed = match resume {
                    Some(at) => {
                        BatchHeader::parse(reader.get(disk, at, crate::format::batch::HEADER_BYTES)?)
                            .map_or(expected, |header| header.base_offset)
                    }
                    None => expected,
                };
                pointers.skip(resume.unwrap_or(reader.len), resumed.0.saturating_sub(base.0) as u32);
                expected = expected.max(resumed);
            }
        }
    }
    if let Some(at) = reader.unreadable {
        judged.log.bad(at, "it cannot be read");
    }
    let kind = match standing {
        Standing::Stored(_) => "stored".to_owned(),
        Standing::Open(flushed) => format!("open, durable to byte {flushed}{end}"),
        Standing::Unknown => format!("no checkpoint tells how much of it is durable{end}"),
        Standing::Excess => "left over: nothing in it is needed".to_owned(),
    };
    judged.log.holds = format!("{batches} batches, offsets {base}..{expected}, {} bytes; {kind}", reader.len);
    Ok(())
}

/// The entries of both indexes, held against the batches as those go by.
struct Pointers {
    entries: Vec<OffsetIndexEntry>,
    times: Vec<TimeIndexEntry>,
    next: usize,
    next_time: usize,
}

impl Pointers {
    fn read<I: Io>(
        disk: &mut Blocking<'_, I>,
        judged: &Judged,
        report: &mut Report<'_>,
    ) -> Result<Pointers, Fatal> {
        let file = disk.read_whole(&judged.index.file)?.unwrap_or_default();
        let (chunks, _) = file.as_chunks::<{ OffsetIndexEntry::BYTES }>();
        let entries = chunks.iter().map(|bytes| match OffsetIndexEntry::decode(bytes).entries.first() {
            Some(entry) => *entry,
            None => OffsetIndexEntry { relative_offset: u32::MAX, position: u32::MAX },
        });
        let entries: Vec<_> = entries.collect();
        for entry in &entries {
            report.entry(|| {
                format!("{}: offset +{} at {}", judged.index.file, entry.relative_offset, entry.position)
            });
        }
        let file = disk.read_whole(&judged.times.file)?.unwrap_or_default();
        let (chunks, _) = file.as_chunks::<{ TimeIndexEntry::BYTES }>();
        let times = chunks.iter().map(|bytes| match TimeIndexEntry::decode(bytes).entries.first() {
            Some(entry) => *entry,
            None => TimeIndexEntry { timestamp: i64::MAX, relative_offset: u32::MAX },
        });
        let times: Vec<_> = times.collect();
        for entry in &times {
            report.entry(|| {
                format!(
                    "{}: timestamp {} at offset +{}",
                    judged.times.file, entry.timestamp, entry.relative_offset
                )
            });
        }
        Ok(Pointers { entries, times, next: 0, next_time: 0 })
    }

    /// Entries of zeros were lost with a page cache, or preallocated by Kafka: no entry, and no harm.
    fn is_entry(entry: OffsetIndexEntry) -> bool {
        entry.relative_offset != 0 || entry.position != 0
    }

    fn batch(
        &mut self,
        base: Offset,
        at: u64,
        header: &BatchHeader,
        standing: Standing,
        judged: &mut Judged,
    ) {
        let asserted = matches!(standing, Standing::Stored(_) | Standing::Unknown);
        let first = header.base_offset.0.saturating_sub(base.0);
        let last = header.last_offset().0.saturating_sub(base.0);
        while let Some(entry) = self.entries.get(self.next).filter(|entry| u64::from(entry.position) <= at) {
            let points = u64::from(entry.position) == at && u64::from(entry.relative_offset) == last;
            if asserted && Pointers::is_entry(*entry) && !points {
                let place = self.next * OffsetIndexEntry::BYTES;
                judged.index.bad(place as u64, "the entry points to no batch with its offset");
            }
            self.next += 1;
        }
        while let Some(entry) =
            self.times.get(self.next_time).filter(|entry| u64::from(entry.relative_offset) <= last)
        {
            let is_entry = entry.timestamp != 0 || entry.relative_offset != 0;
            let points = u64::from(entry.relative_offset) >= first && entry.timestamp == header.max_timestamp;
            if asserted && is_entry && !points {
                let place = self.next_time * TimeIndexEntry::BYTES;
                judged.times.bad(place as u64, "the entry's timestamp is not that of its batch");
            }
            self.next_time += 1;
        }
    }

    /// Passes over entries that point into a damaged stretch: nobody can say whether they are right.
    fn skip(&mut self, position: u64, relative: u32) {
        while self.entries.get(self.next).is_some_and(|entry| u64::from(entry.position) < position) {
            self.next += 1;
        }
        while self.times.get(self.next_time).is_some_and(|entry| entry.relative_offset < relative) {
            self.next_time += 1;
        }
    }

    /// What is left points behind the last batch.
    fn end(&self, standing: Standing, judged: &mut Judged) {
        judged.index.holds = format!("{} entries", self.entries.len());
        judged.times.holds = format!("{} entries", self.times.len());
        if !matches!(standing, Standing::Stored(_)) || judged.log.damage.is_some() {
            return;
        }
        if self.entries.get(self.next..).is_some_and(|left| left.iter().copied().any(Pointers::is_entry)) {
            let place = self.next * OffsetIndexEntry::BYTES;
            judged.index.bad(place as u64, "the entry points behind the last batch");
        }
        if self.next_time < self.times.len() {
            let place = self.next_time * TimeIndexEntry::BYTES;
            judged.times.bad(place as u64, "the entry points behind the last batch");
        }
    }
}

/// Checks a segment's checksum file, and its files against it.
fn sums<I: Io>(
    disk: &mut Blocking<'_, I>,
    path: &str,
    base: Offset,
    owner: Option<PartitionId>,
    judged: &mut Judged,
) -> Result<Option<Verdict>, Fatal> {
    let (Some(bytes), Some(owner)) = (disk.read_whole(path)?, owner) else { return Ok(None) };
    let mut verdict = Verdict::new(path);
    let sum = match Sum::decode(&bytes, owner, base) {
        Ok(sum) => sum,
        Err(damage) => {
            verdict.bad(damage.position, damage.what);
            return Ok(Some(verdict));
        }
    };
    verdict.holds = format!("checksums of {} bytes of log", sum.len(Summed::Log));
    for file in SUMMED {
        let summed = match file {
            Summed::Log => &mut judged.log,
            Summed::Index => &mut judged.index,
            Summed::TimeIndex => &mut judged.times,
        };
        let len = u64::from(sum.len(file));
        let Some(mut reader) = Reader::open(disk, &summed.file)? else { continue };
        if reader.len != len {
            summed.bad(reader.len.min(len), format!("the file has {} bytes, {len} were sealed", reader.len));
        }
        for block in 0..len.div_ceil(SUM_BLOCK_BYTES as u64) {
            let at = block * SUM_BLOCK_BYTES as u64;
            let size = (len - at).min(SUM_BLOCK_BYTES as u64) as usize;
            // Where a batch in the block was found bad, that is the better place to point at.
            let found =
                summed.damage.as_ref().is_some_and(|spot| (at..at + size as u64).contains(&spot.position));
            if !found && !sum.verify_block(file, block as u32, reader.get(disk, at, size)?) {
                summed.bad(at, "a block of 64 KiB fails its checksum");
            }
        }
        reader.close(disk);
    }
    Ok(Some(verdict))
}

fn snapshot<I: Io>(disk: &mut Blocking<'_, I>, path: &str) -> Result<Option<Verdict>, Fatal> {
    let Some(bytes) = disk.read_whole(path)? else { return Ok(None) };
    let mut verdict = Verdict::new(path);
    match decode_snapshot(&bytes) {
        Ok(producers) => verdict.holds = format!("{} producers", producers.len()),
        Err(damage) => verdict.bad(damage.position, damage.what),
    }
    Ok(Some(verdict))
}
