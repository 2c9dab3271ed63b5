//! Rebuilding a shard's logs: the checkpoint's state, the journal's records, and what the directories hold.
//!
//! Every journalled byte names its place (segment and position), so replay is idempotent. For each record of a log:
//!
//! | # | record | LSN | what is done |
//! |---|---|---|---|
//! | L1 | batch | after the checkpoint's | appended to the state: it must follow the state's end exactly, else damage |
//! | L2 | batch | up to the checkpoint's | the state has it already: only its bytes are taken, if they are not flushed in the segment |
//! | L3 | batch | any, behind a gap in the bytes | put aside: a later carry must bring the bytes before it, else [`Rebuild::finish`] reports damage |
//! | L4 | part | any | collected; the last one makes a batch of them. A chain that never ends was never acknowledged |
//! | L5 | carry | any | its bytes close the gap between the segment's flushed end and the batches behind it |
//! | L6 | log start | after the checkpoint's | moves the start |
//! | L7 | any | any, owner unknown | skipped if the metadata log holds the owner's deletion, else damage |

use std::collections::{BTreeMap, BTreeSet};

use super::drain::COPY_SUFFIX;
use super::epochs::Epochs;
use super::segment::Segment;
use super::table::{LogIndex, Logs};
use super::{Carried, Log, Placement, paths};
use crate::buffer::Slice;
use crate::cache::tail::TailBatch;
use crate::error::Fatal;
use crate::format::batch::{self, BatchHeader};
use crate::format::checkpoint::PartitionState;
use crate::format::index::{OffsetIndexEntry, TimeIndexEntry};
use crate::format::journal::{RecordHeader, RecordKind};
use crate::format::partition::{
    DirName, LEADER_EPOCHS_FILE, METADATA_FILE, SegmentFile, decode_leader_epochs, decode_metadata,
    parse_dir_name, parse_file_name,
};
use crate::io::{Blocking, Io};
use crate::log::index::SparseIndex;
use crate::log::producers::Producers;
use crate::log::scanner::Scanner;
use crate::time::WallMs;
use crate::types::{Lsn, Offset, PartitionId, TopicId};

/// A batch that is coming in parts.
struct Chain {
    segment: Offset,
    position: u32,
    first_lsn: Lsn,
    total: usize,
    bytes: Vec<u8>,
}

/// Carried bytes, and the batches that follow them, until the batch that they start in can be completed from its file.
struct Pending {
    segment: Offset,
    /// Where the batch starts that the first carried byte belongs to.
    start: u32,
    from: u32,
    bytes: Slice,
    lsn: Lsn,
    after: Vec<TailBatch>,
}

impl Pending {
    fn last_segment(&self) -> Offset {
        self.after.last().map_or(self.segment, |last| last.segment)
    }

    fn end(&self) -> u32 {
        self.after.last().map_or(self.from + self.bytes.len() as u32, TailBatch::end)
    }
}

/// The state being rebuilt.
pub struct Rebuild {
    logs: Logs,
    deleted: BTreeSet<TopicId>,
    checkpoint_lsn: Lsn,
    now: WallMs,
    /// Whether there was anything of a deleted owner.
    met_deleted: bool,
    chains: BTreeMap<PartitionId, Chain>,
    pending: BTreeMap<LogIndex, Pending>,
    /// Batches behind a gap, without a gap among themselves.
    aside: BTreeMap<LogIndex, Vec<TailBatch>>,
}

impl Rebuild {
    /// Starts from empty `logs` for every partition that the metadata places here, and the checkpoint's state of those
    /// that it knows.
    pub fn new(
        mut logs: Logs,
        deleted: BTreeSet<TopicId>,
        checkpoint_lsn: Lsn,
        states: &[PartitionState],
        now: WallMs,
    ) -> Result<Rebuild, String> {
        let mut met_deleted = false;
        for state in states {
            match logs.find(state.id).and_then(|index| logs.get_mut(index)) {
                Some(log) => restore(log, state),
                None if deleted.contains(&state.id.topic) => met_deleted = true,
                None => {
                    return Err(format!("it holds partition {}, which the metadata does not know", state.id));
                }
            }
        }
        Ok(Rebuild {
            logs,
            deleted,
            checkpoint_lsn,
            now,
            met_deleted,
            chains: BTreeMap::new(),
            pending: BTreeMap::new(),
            aside: BTreeMap::new(),
        })
    }

    /// Whether the checkpoint or the journal holds anything of owners that are no more, and must not be forgotten yet.
    pub fn met_deleted(&self) -> bool {
        self.met_deleted
    }

    /// Takes one journal record, in order.
    pub fn record(&mut self, lsn: Lsn, record: &RecordHeader, payload: Slice) -> Result<(), String> {
        let Some(index) = self.logs.find(record.partition) else {
            if self.deleted.contains(&record.partition.topic) {
                self.met_deleted = true;
                return Ok(()); // L7
            }
            return Err(format!(
                "a record of partition {}, which the metadata does not know",
                record.partition
            ));
        };
        match record.kind {
            RecordKind::Batch => self.batch(index, lsn, lsn, record, payload),
            RecordKind::Part => self.part(index, lsn, record, &payload),
            RecordKind::Carry => {
                self.carry(index, lsn, record, payload);
                Ok(())
            }
            RecordKind::Message
            | RecordKind::Settled
            | RecordKind::Failed
            | RecordKind::Leaving
            | RecordKind::Mark
            | RecordKind::Forgotten
            | RecordKind::Piece => Err(format!("a record of kind {:?} is no log's", record.kind)),
            RecordKind::LogStart => {
                let log = self.logs.get_mut(index).expect("found above");
                if lsn > self.checkpoint_lsn {
                    if record.aux > log.next_offset.0 {
                        return Err(format!("the log start moves to {}, past the log's end", record.aux));
                    }
                    log.log_start = log.log_start.max(Offset(record.aux)); // L6
                }
                Ok(())
            }
        }
    }

    fn part(
        &mut self,
        index: LogIndex,
        lsn: Lsn,
        record: &RecordHeader,
        payload: &Slice,
    ) -> Result<(), String> {
        let (total, at) = ((record.aux >> 32) as usize, (record.aux & u64::from(u32::MAX)) as usize);
        if at == 0 {
            let chain = Chain {
                segment: record.segment,
                position: record.position,
                first_lsn: lsn,
                total,
                bytes: Vec::new(),
            };
            self.chains.insert(record.partition, chain);
        }
        // A chain whose start lies before the records that are needed is flushed in its segment.
        let Some(chain) = self.chains.get_mut(&record.partition) else { return Ok(()) };
        if chain.bytes.len() != at || chain.total != total || at + payload.len() > total {
            return Err("a part of a batch does not follow the one before".to_owned());
        }
        chain.bytes.extend_from_slice(payload);
        if chain.bytes.len() < total {
            return Ok(());
        }
        let chain = self.chains.remove(&record.partition).expect("found above");
        batch::check(&chain.bytes).map_err(|error| format!("a batch in parts: {error}"))?;
        let record = RecordHeader { segment: chain.segment, position: chain.position, ..*record };
        self.batch(index, lsn, chain.first_lsn, &record, Slice::from(chain.bytes))
    }

    /// A whole batch that record `lsn` completes and whose bytes start in record `first_lsn`.
    fn batch(
        &mut self,
        index: LogIndex,
        lsn: Lsn,
        first_lsn: Lsn,
        record: &RecordHeader,
        bytes: Slice,
    ) -> Result<(), String> {
        let header = BatchHeader::parse(&bytes).map_err(|error| error.to_string())?;
        let log = self.logs.get_mut(index).expect("the caller found it");
        if lsn > self.checkpoint_lsn {
            append(log, record, &header, lsn, self.now)?; // L1
        } else if log.segments.front().is_none_or(|first| record.segment < first.base) {
            return Ok(()); // Its segment was deleted before the checkpoint.
        } else {
            let interval_bytes = log.config.index_interval_bytes;
            let segment =
                log.segment_mut(record.segment).ok_or("a batch in a segment that the checkpoint lacks")?;
            if u64::from(record.position) + bytes.len() as u64 > u64::from(segment.size) {
                return Err("a batch beyond the end that the checkpoint gives its segment".to_owned());
            }
            if record.position >= segment.flushed {
                segment.index.add(segment.base, record.position, &header, interval_bytes); // L2
            }
        }
        let batch = TailBatch {
            base: header.base_offset,
            next: header.next_offset(),
            segment: record.segment,
            position: record.position,
            lsn: first_lsn,
            max_timestamp: header.max_timestamp,
            bytes,
        };
        if self.pending.contains_key(&index) {
            self.join(index, batch);
            return Ok(());
        }
        let flushed = log.segment(record.segment).map_or(0, |segment| segment.flushed);
        let follows = match log.tail.back() {
            Some(last) => last.next == batch.base,
            None => batch.position <= flushed && batch.end() > flushed,
        };
        if follows {
            log.tail.push(batch);
        } else if batch.position > flushed {
            self.aside.entry(index).or_default().push(batch); // L3
        } // else it is flushed.
        Ok(())
    }

    fn carry(&mut self, index: LogIndex, lsn: Lsn, record: &RecordHeader, bytes: Slice) {
        let log = self.logs.get_mut(index).expect("the caller found it");
        let end = record.position + bytes.len() as u32;
        let Some(segment) = log.segment(record.segment) else { return };
        let in_tail = log.tail.back().is_some_and(|last| (last.segment, last.end()) >= (record.segment, end));
        let known = self
            .pending
            .get(&index)
            .is_some_and(|pending| (pending.last_segment(), pending.end()) >= (record.segment, end));
        if in_tail || known || segment.flushed >= end {
            return;
        }
        // L5. What the tail has of this log lies before a gap, and is flushed: the carry starts where the file ends.
        log.tail.clear();
        let mut behind = self.pending.remove(&index).map_or_else(Vec::new, |before| before.after);
        behind.extend(self.aside.remove(&index).unwrap_or_default());
        let pending = Pending {
            segment: record.segment,
            start: record.aux as u32,
            from: record.position,
            bytes,
            lsn,
            after: Vec::new(),
        };
        self.pending.insert(index, pending);
        for batch in behind {
            self.join(index, batch);
        }
    }

    /// Puts a batch behind the carried bytes; or aside, if there is a gap between: a later carry has what lies there.
    fn join(&mut self, index: LogIndex, batch: TailBatch) {
        let (Some(pending), Some(log)) = (self.pending.get_mut(&index), self.logs.get(index)) else { return };
        let (last, end) = (pending.last_segment(), pending.end());
        let follows = if batch.segment == last {
            batch.position == end
        } else {
            log.segment(last).is_some_and(|segment| segment.size == end)
        };
        if follows && !self.aside.contains_key(&index) {
            pending.after.push(batch);
        } else if (batch.segment, batch.position) >= (last, end) {
            self.aside.entry(index).or_default().push(batch); // L3
        } // else it is carried.
    }

    /// Completes what was carried from the files, removes what the directories hold in excess, and makes sure that no
    /// durable byte is missing.
    pub fn finish<I: Io>(mut self, disk: &mut Blocking<'_, I>) -> Result<Logs, Fatal> {
        // A killed process may have made directories whose names are not durable yet, and are believed from here on.
        disk.sync_dir(paths::LOGS)?;
        let directories: BTreeSet<String> = disk
            .list(paths::LOGS)?
            .into_iter()
            .map(|entry| format!("{}/{}", paths::LOGS, entry.name))
            .collect();
        let indexes: Vec<LogIndex> = self.logs.iter().map(|(index, _)| index).collect();
        for index in indexes {
            let pending = self.pending.remove(&index);
            let log = self.logs.get_mut(index).expect("just listed");
            log.high_watermark = log.next_offset;
            let first = log.drop_before_start();
            match pending {
                Some(pending) if pending.segment < first => {
                    let after = pending.after.into_iter().filter(|batch| batch.segment >= first);
                    after.for_each(|batch| log.tail.push(batch));
                }
                Some(pending) => complete(disk, log, pending)?,
                None => {}
            }
            let last = log.segments.len().saturating_sub(1);
            for (at, segment) in log.segments.iter_mut().enumerate() {
                segment.durable = segment.size;
                if at < last && !segment.sealed {
                    segment.sealed = true;
                    segment.index.seal();
                }
            }
            sweep(disk, log, directories.contains(&log.directory))?;
            check_indexes(disk, log)?;
            covered(log)?;
        }
        Ok(self.logs)
    }
}

fn restore(log: &mut Log, state: &PartitionState) {
    log.log_start = state.log_start;
    log.next_offset = state.next_offset;
    log.producers = Producers::restore(&state.producers);
    log.epochs = Epochs::restore(&state.epochs);
    let last = state.segments.len().saturating_sub(1);
    for (index, state) in state.segments.iter().enumerate() {
        log.segments.push_back(Segment {
            size: state.size,
            durable: state.flushed,
            drained: state.flushed,
            flushed: state.flushed,
            sealed: index < last || state.stored,
            stored: state.stored,
            index: SparseIndex::stored(state.index_entries, state.time_entries, state.max_timestamp),
            ..Segment::new(state.base, WallMs(state.created_ms))
        });
    }
}

fn append(
    log: &mut Log,
    record: &RecordHeader,
    header: &BatchHeader,
    lsn: Lsn,
    now: WallMs,
) -> Result<(), String> {
    if header.base_offset != log.next_offset {
        return Err(format!(
            "a batch with offset {} where {} comes next",
            header.base_offset, log.next_offset
        ));
    }
    if log.segments.back().is_none_or(|open| open.base != record.segment) {
        if record.segment != log.next_offset {
            return Err(format!("a batch in segment {}, which was never started", record.segment));
        }
        log.roll(now);
    }
    let open = log.segments.back().expect("there is one now");
    if record.position != open.size {
        return Err(format!("a batch at position {} where {} comes next", record.position, open.size));
    }
    let placement =
        Placement { base: header.base_offset, segment: record.segment, position: record.position };
    log.appended(placement, header, lsn);
    Ok(())
}

/// Puts the batch together of which the file has the first bytes and the journal the carried rest, and the batches
/// behind it.
fn complete<I: Io>(disk: &mut Blocking<'_, I>, log: &mut Log, pending: Pending) -> Result<(), Fatal> {
    let name = paths::segment(&log.directory, pending.segment, SegmentFile::Log);
    let corrupt = |position: u32, what: &str| Fatal::Corrupt {
        file: name.clone(),
        position: u64::from(position),
        what: what.to_owned(),
    };
    let prefix = pending
        .from
        .checked_sub(pending.start)
        .ok_or_else(|| corrupt(pending.from, "a carry from before"))?;
    let mut bytes = Vec::new();
    if prefix > 0 {
        let Some((file, _)) = disk.open_existing(&name)? else {
            return Err(corrupt(0, "the file is missing"));
        };
        let block = disk.read(file, &name, u64::from(pending.start), prefix as usize)?;
        bytes.extend_from_slice(block.filled());
        disk.close(file);
    }
    if bytes.len() != prefix as usize {
        return Err(corrupt(pending.start, "the file is shorter than what was flushed to it"));
    }
    bytes.extend_from_slice(&pending.bytes);
    let bytes = Slice::from(bytes);
    // Batches behind the carried ones may have been journalled before the carry was.
    let first_lsn = pending.after.first().map_or(pending.lsn, |batch| batch.lsn.min(pending.lsn));
    let mut end = 0;
    for scanned in Scanner::new(&bytes) {
        let scanned = scanned.map_err(|error| corrupt(pending.start + end as u32, error.what()))?;
        let range = scanned.at..scanned.at + scanned.header.size;
        let whole = bytes
            .get(range.clone())
            .ok_or_else(|| corrupt(pending.start + end as u32, "a batch is cut off"))?;
        batch::check(whole).map_err(|error| corrupt(pending.start + end as u32, error.what()))?;
        end = range.end;
        log.tail.push(TailBatch {
            base: scanned.header.base_offset,
            next: scanned.header.next_offset(),
            segment: pending.segment,
            position: pending.start + scanned.at as u32,
            lsn: first_lsn,
            max_timestamp: scanned.header.max_timestamp,
            bytes: bytes.slice(range),
        });
    }
    if end != bytes.len() {
        return Err(corrupt(pending.start + end as u32, "a batch is cut off"));
    }
    log.carried = Some(Carried {
        segment: pending.segment,
        from: pending.from,
        to: pending.from + pending.bytes.len() as u32,
        lsn: pending.lsn,
    });
    for batch in pending.after {
        log.tail.push(batch);
    }
    Ok(())
}

/// Removes files of segments that the log no longer has, and checks that those it has are there.
fn sweep<I: Io>(disk: &mut Blocking<'_, I>, log: &mut Log, has_directory: bool) -> Result<(), Fatal> {
    // Without its metadata file, a directory was being made when the machine died: it is made again.
    log.has_directory = has_directory && owner(disk, &log.directory)? == Some(log.id.topic);
    if has_directory {
        // Only to know whether it is out of date: what holds is the checkpoint's word and the batches'.
        let told = disk.read_whole(&format!("{}/{LEADER_EPOCHS_FILE}", log.directory))?;
        log.epochs_told = told.and_then(|text| decode_leader_epochs(&text)).unwrap_or_default();
    }
    let mut present = BTreeSet::new();
    for entry in if has_directory { disk.list(&log.directory)? } else { Vec::new() } {
        if entry.name.ends_with(COPY_SUFFIX) {
            disk.unlink(&format!("{}/{}", log.directory, entry.name))?;
        }
        let Some(name) = parse_file_name(&entry.name) else { continue };
        if name.deleted || log.segment(name.base_offset).is_none() {
            disk.unlink(&format!("{}/{}", log.directory, entry.name))?;
        } else if name.file == SegmentFile::Log {
            present.insert(name.base_offset);
        }
    }
    for segment in &log.segments {
        if segment.flushed > 0 && !present.contains(&segment.base) {
            let file = paths::segment(&log.directory, segment.base, SegmentFile::Log);
            return Err(Fatal::Corrupt { file, position: 0, what: "the file is missing".to_owned() });
        }
    }
    Ok(())
}

/// The topic that a partition's directory says it belongs to.
fn owner<I: Io>(disk: &mut Blocking<'_, I>, directory: &str) -> Result<Option<TopicId>, Fatal> {
    let text = disk.read_whole(&format!("{directory}/{METADATA_FILE}"))?;
    Ok(text.and_then(|text| decode_metadata(&text)))
}

/// Removes the directories of topics that are deleted: those that have been renamed, and those whose rename a crash
/// came before. One of a topic that nobody knows is left alone, and told of.
pub fn remove_deleted<I: Io>(
    disk: &mut Blocking<'_, I>,
    deleted: &BTreeSet<TopicId>,
    is_live: impl Fn(&str, u32, TopicId) -> bool,
) -> Result<(), Fatal> {
    for entry in disk.list(paths::LOGS)? {
        let path = format!("{}/{}", paths::LOGS, entry.name);
        match parse_dir_name(&entry.name) {
            Some(DirName::Deleted { .. }) => disk.remove_tree(&path)?,
            Some(DirName::Live { topic, index }) => match owner(disk, &path)? {
                Some(id) if deleted.contains(&id) => disk.remove_tree(&path)?,
                Some(id) if !is_live(&topic, index, id) => {
                    tracing::warn!(path, %id, "a directory of a topic that the metadata does not know is left alone");
                }
                _ => {}
            },
            // An import that did not get as far as giving the directory its name.
            None if entry.name.ends_with(COPY_SUFFIX) => disk.remove_tree(&path)?,
            None => {}
        }
    }
    Ok(())
}

/// Believes as many entries of the index files of segments that are not stored as are there and in order: those files,
/// and their names, are not flushed before the segment is sealed.
fn check_indexes<I: Io>(disk: &mut Blocking<'_, I>, log: &mut Log) -> Result<(), Fatal> {
    let Log { directory, segments, .. } = log;
    for segment in segments.iter_mut().filter(|segment| !segment.stored) {
        let mut whole_entries = |kind, recorded: u32, count: fn(&[u8]) -> usize| {
            if recorded == 0 {
                return Ok(0);
            }
            let bytes = disk.read_whole(&paths::segment(directory, segment.base, kind))?;
            Ok(recorded.min(bytes.map_or(0, |bytes| count(&bytes)) as u32))
        };
        let index = &mut segment.index;
        index.stored = whole_entries(SegmentFile::Index, index.stored, |bytes| {
            OffsetIndexEntry::decode(bytes).entries.len()
        })?;
        index.stored_times = whole_entries(SegmentFile::TimeIndex, index.stored_times, |bytes| {
            TimeIndexEntry::decode(bytes).entries.len()
        })?;
    }
    Ok(())
}

/// Every byte that is not flushed in a segment must be in the tail, whatever the checkpoint claims.
fn covered(log: &Log) -> Result<(), Fatal> {
    // By segment, the last stretch without a gap that the tail holds.
    let mut held: BTreeMap<Offset, (u32, u32)> = BTreeMap::new();
    for batch in log.tail.iter() {
        let (start, end) = held.entry(batch.segment).or_insert((batch.position, batch.position));
        if *end != batch.position {
            *start = batch.position;
        }
        *end = batch.end();
    }
    for segment in log.segments.iter().filter(|segment| segment.flushed < segment.size) {
        let (start, end) = held.get(&segment.base).copied().unwrap_or_default();
        if start > segment.flushed || end != segment.size {
            return Err(Fatal::Corrupt {
                file: paths::segment(&log.directory, segment.base, SegmentFile::Log),
                position: u64::from(segment.flushed),
                what: "the journal lacks bytes that were durable".to_owned(),
            });
        }
    }
    Ok(())
}
