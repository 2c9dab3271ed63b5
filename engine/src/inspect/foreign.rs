//! A partition's directory as Apache Kafka left it, copied batch by batch into one of ours.
//!
//! Offsets and records stay what they were, and so do gaps that compaction left. Leader epochs do not: those of another
//! cluster mean nothing here, so every batch belongs to this one's first. Indexes and sums are made anew from the batches,
//! every one of which is checked.
//!
//! **Transactions.** What was committed stays, and so do the markers of all that are over, since they have offsets of their
//! own and clients pass over them. Batches of aborted ones are left out, as if compaction had taken them: nobody who
//! reads committed records only was ever given them, and no index of aborted transactions is kept here by which they could
//! be kept from such readers. So who reads everything no longer sees them, either. A partition in which a transaction is not over is
//! refused: only its own cluster can say how it ends.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::Reader;
use super::writer::Writer;
use crate::error::Fatal;
use crate::format::batch::{BatchError, BatchHeader, HEADER_BYTES, check, records, stamp};
use crate::format::checkpoint::SegmentState;
use crate::format::partition::{SegmentFile, file_name, parse_file_name};
use crate::io::{Blocking, Io};
use crate::types::{LeaderEpoch, Offset, PartitionId};

/// The leader epoch of what was written elsewhere.
pub const FOREIGN_EPOCH: LeaderEpoch = LeaderEpoch(0);
/// The text that [`log_start`] reads.
const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// What a marker's key says of the transaction that it ends. Source: Kafka's documentation, "Control Batches".
const ABORTED: &[u8] = &[0, 0];

/// What was copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copied {
    /// The first offset.
    pub log_start: Offset,
    /// One past the last offset.
    pub next_offset: Offset,
    /// The segments, oldest first, all of them complete and flushed.
    pub segments: Vec<SegmentState>,
    /// How many batches there are.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Batches that were left out: those of aborted transactions.
    pub aborted: u64,
}

/// Copies the partition that lies in `name` below where `from` looks from into a new `directory` of `to`, as partition `id`.
/// Errors call the source `label`. Everything is flushed on success, but for the name of the directory itself.
///
/// # Errors
/// Fails on the first batch that is damaged or out of order, and names its file and byte.
pub fn copy<I: Io, J: Io>(
    from: &mut Blocking<'_, J>,
    name: &str,
    label: &str,
    to: &mut Blocking<'_, I>,
    directory: &str,
    id: PartitionId,
) -> Result<Copied, Fatal> {
    let bases: BTreeSet<Offset> = from
        .list(name)?
        .iter()
        .filter_map(|entry| parse_file_name(&entry.name))
        .filter(|name| name.file == SegmentFile::Log && !name.deleted)
        .map(|name| name.base_offset)
        .collect();
    let (Some(first), Some(last)) = (bases.first(), bases.last()) else {
        return Err(Fatal::Refused(format!("{label} holds no segment of a partition")));
    };
    let mut copied = Copied {
        log_start: *first,
        next_offset: *first,
        segments: Vec::new(),
        batches: 0,
        bytes: 0,
        aborted: 0,
    };
    // How a transaction ended stands behind its records: so the log is read twice.
    let mut transactions = Transactions::default();
    walk(from, name, label, &bases, &mut |_, place, header, batch| {
        transactions.pass(header, batch, place);
        Ok(())
    })?;
    let aborted = transactions.end().map_err(Fatal::Refused)?;
    let mut writer = Writer::create(to, directory.to_owned(), id)?;
    // The first segment of which anything is left; it takes the place of those before it, so that there is an answer for
    // every offset from the log's start on.
    let mut lead = None;
    walk(from, name, label, &bases, &mut |base, _, header, batch| {
        copied.next_offset = header.next_offset();
        if aborted.holds(header) {
            copied.aborted += 1;
            return Ok(());
        }
        stamp(batch, header.base_offset, FOREIGN_EPOCH);
        let header = BatchHeader { leader_epoch: FOREIGN_EPOCH, ..*header };
        let segment = if *lead.get_or_insert(base) == base { *first } else { base };
        writer.append(to, segment, &header, batch)?;
        copied.batches += 1;
        copied.bytes += header.size as u64;
        Ok(())
    })?;
    // The last segment may be empty, because compaction or retention took everything before it.
    copied.next_offset = copied.next_offset.max(*last);
    copied.segments = writer.finish(to)?;
    let held = copied.segments.first().map_or(copied.next_offset, |segment| segment.base);
    copied.log_start = copied.log_start.max(log_start(from, name)?).max(held).min(copied.next_offset);
    Ok(copied)
}

/// What is done with a batch: the segment that it is in, its file and position, its header, and its bytes.
type Visit<'a> = dyn FnMut(Offset, &dyn Fn() -> String, &BatchHeader, &mut [u8]) -> Result<(), Fatal> + 'a;

/// Shows every batch of the segments, in order, each of them checked.
fn walk<J: Io>(
    from: &mut Blocking<'_, J>,
    name: &str,
    label: &str,
    bases: &BTreeSet<Offset>,
    visit: &mut Visit<'_>,
) -> Result<(), Fatal> {
    let mut lowest = Offset(0);
    for base in bases {
        let log = file_name(*base, SegmentFile::Log);
        let file = format!("{label}/{log}");
        let Some(mut reader) = Reader::open(from, &format!("{name}/{log}"))? else { continue };
        let mut at = 0;
        while at < reader.len {
            let corrupt = |what: String| Fatal::Corrupt { file: file.clone(), position: at, what };
            let expected = lowest.max(*base);
            let (header, mut batch) =
                next(from, &mut reader, at)?.map_err(|error| corrupt(error.to_string()))?;
            if header.base_offset < expected || header.last_offset().0 - base.0 > i32::MAX as u64 {
                let what = format!("a batch with offset {} where {expected} comes next", header.base_offset);
                return Err(corrupt(what));
            }
            visit(*base, &|| format!("{file}, byte {at}"), &header, &mut batch)?;
            lowest = header.next_offset();
            at += header.size as u64;
        }
        reader.close(from);
    }
    Ok(())
}

/// Where the log starts according to the text that Kafka keeps beside its partitions' directories, which may not have been
/// copied along: a version, a count, then `TOPIC PARTITION OFFSET` in lines. It tells of records that were deleted by
/// request and whose segment is still there.
fn log_start<I: Io>(disk: &mut Blocking<'_, I>, name: &str) -> Result<Offset, Fatal> {
    let text = disk.read_whole(LOG_STARTS)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut starts = text.lines().skip(2).filter_map(|line| {
        let mut words = line.split(' ');
        let found = format!("{}-{}", words.next()?, words.next()?);
        (found == name).then(|| words.next()?.parse().ok()).flatten()
    });
    Ok(Offset(starts.next().unwrap_or(0)))
}

/// The batch at a position, checked.
fn next<I: Io>(
    disk: &mut Blocking<'_, I>,
    reader: &mut Reader,
    at: u64,
) -> Result<Result<(BatchHeader, Vec<u8>), BatchError>, Fatal> {
    let size = match BatchHeader::parse(reader.get(disk, at, HEADER_BYTES)?) {
        Ok(header) => header.size,
        Err(error) => return Ok(Err(error)),
    };
    let batch = reader.get(disk, at, size)?;
    Ok(check(batch).map(|header| (header, batch.to_vec())))
}

/// The transactions of a log, as its batches come by.
#[derive(Default)]
struct Transactions {
    /// Those that are not over yet, by producer: the first offset, and where that is.
    open: BTreeMap<i64, (Offset, String)>,
    aborted: Aborted,
}

/// The stretches of aborted transactions: for each producer, from a first batch up to its marker.
#[derive(Default)]
struct Aborted(BTreeMap<i64, Vec<(Offset, Offset)>>);

impl Aborted {
    /// Whether a batch is a part of one.
    fn holds(&self, header: &BatchHeader) -> bool {
        let (attributes, base) = (header.attributes, header.base_offset);
        let stretches = self.0.get(&header.producer_id).map(|stretches| &stretches[..]).unwrap_or_default();
        let next = stretches.partition_point(|(_, end)| *end <= base);
        let within = stretches.get(next).is_some_and(|(start, _)| *start <= base);
        attributes.transactional() && !attributes.control() && within
    }
}

impl Transactions {
    /// Takes note of a batch.
    fn pass(&mut self, header: &BatchHeader, batch: &[u8], place: &dyn Fn() -> String) {
        let (producer, base) = (header.producer_id, header.base_offset);
        if !header.attributes.transactional() {
            return;
        }
        if !header.attributes.control() {
            self.open.entry(producer).or_insert_with(|| (base, place()));
            return;
        }
        let marker = records(batch).ok().and_then(|mut records| records.next()?.ok());
        let key = marker.and_then(|marker| marker.key).unwrap_or_default();
        let start = self.open.remove(&producer);
        // Behind two bytes of version.
        if let Some((start, _)) = start
            && key.get(2..4) == Some(ABORTED)
        {
            self.aborted.0.entry(producer).or_default().push((start, base));
        }
    }

    /// What was aborted; refuses a transaction without an end.
    fn end(self) -> Result<Aborted, String> {
        match self.open.into_values().next() {
            Some((_, place)) => Err(format!("{place}: a transaction starts here that is not over")),
            None => Ok(self.aborted),
        }
    }
}
