//! A partition's directory as Apache Kafka left it, copied batch by batch into one of ours.
//!
//! Offsets and records stay what they were, and so do gaps that compaction left. Leader epochs do not: those of another
//! cluster mean nothing here, so every batch belongs to this one's first. Markers of committed transactions stay, since
//! they have offsets of their own and clients pass over them. Indexes and sums are made anew from the batches, every one of
//! which is checked. A partition in which a transaction was aborted, or is not over, is refused: nothing here could keep
//! its records from who asks for committed ones only.

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
    let mut copied =
        Copied { log_start: *first, next_offset: *first, segments: Vec::new(), batches: 0, bytes: 0 };
    let mut writer = Writer::create(to, directory.to_owned(), id)?;
    let mut transactions = Transactions::default();
    for base in &bases {
        let log = file_name(*base, SegmentFile::Log);
        let file = format!("{label}/{log}");
        let Some(mut reader) = Reader::open(from, &format!("{name}/{log}"))? else { continue };
        let mut at = 0;
        while at < reader.len {
            let corrupt = |what: String| Fatal::Corrupt { file: file.clone(), position: at, what };
            let expected = copied.next_offset.max(*base);
            let (header, mut batch) =
                next(from, &mut reader, at)?.map_err(|error| corrupt(error.to_string()))?;
            if header.base_offset < expected || header.last_offset().0 - base.0 > i32::MAX as u64 {
                let what = format!("a batch with offset {} where {expected} comes next", header.base_offset);
                return Err(corrupt(what));
            }
            transactions.pass(&header, &batch, || format!("{file}, byte {at}")).map_err(Fatal::Refused)?;
            stamp(&mut batch, header.base_offset, FOREIGN_EPOCH);
            writer.append(to, *base, &header, &batch)?;
            copied.next_offset = header.next_offset();
            copied.batches += 1;
            copied.bytes += header.size as u64;
            at += header.size as u64;
        }
        reader.close(from);
    }
    transactions.end().map_err(Fatal::Refused)?;
    // The last segment may be empty, because compaction or retention took everything before it.
    copied.next_offset = copied.next_offset.max(*last);
    copied.log_start = copied.log_start.max(log_start(from, name)?).min(copied.next_offset);
    copied.segments = writer.finish(to)?;
    Ok(copied)
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

/// The transactions that are not over yet, by producer, and where each starts.
#[derive(Default)]
struct Transactions {
    open: BTreeMap<i64, String>,
}

impl Transactions {
    /// Takes note of a batch; refuses the end of a transaction that was aborted.
    fn pass(&mut self, header: &BatchHeader, batch: &[u8], place: impl Fn() -> String) -> Result<(), String> {
        if header.attributes.control() {
            let marker = records(batch).ok().and_then(|mut records| records.next()?.ok());
            let key = marker.and_then(|marker| marker.key).unwrap_or_default();
            // Behind two bytes of version.
            if header.attributes.transactional() && key.get(2..4) == Some(ABORTED) {
                return Err(format!(
                    "{}: a transaction was aborted, and this version cannot hide its records from who asks for committed ones",
                    place()
                ));
            }
            self.open.remove(&header.producer_id);
        } else if header.attributes.transactional() {
            self.open.entry(header.producer_id).or_insert_with(place);
        }
        Ok(())
    }

    /// Refuses a transaction without an end.
    fn end(self) -> Result<(), String> {
        match self.open.into_values().next() {
            Some(place) => Err(format!("{place}: a transaction starts here that is not over")),
            None => Ok(()),
        }
    }
}
