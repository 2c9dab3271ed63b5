//! Saving what is sound: every partition's batches, from the segments and from what the journals hold beyond them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::batches::{Batches, Step};
use super::journal::walk;
use super::pieces::{Kind, Piece, Pieces};
use super::queues::{Messages, store_number};
use super::reader::Reader;
use super::site::{ShardHome, Site};
use super::writer::Writer;
use super::{checkpoint_of, files, segment};
use crate::error::Fatal;
use crate::format::batch::{BatchBuilder, BatchHeader, check, stamp};
use crate::format::checkpoint::PartitionState;
use crate::format::partition::{DirName, SegmentFile, base64, dir_name, parse_dir_name, parse_file_name};
use crate::io::{Blocking, Io};
use crate::journal::Files;
use crate::log::paths;
use crate::types::{LeaderEpoch, Offset, PartitionId, QueueId, TopicId};

/// What a salvage came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Salvaged {
    /// Partitions written.
    pub partitions: u64,
    /// Batches written.
    pub batches: u64,
    /// Bytes of batches written.
    pub bytes: u64,
    /// Offsets that were in the log and are left out.
    pub lost: u64,
    /// Offsets that nothing had in the log itself, as where compaction has been.
    pub empty: u64,
    /// Queues of which messages were written.
    pub queues: u64,
    /// Messages of them.
    pub messages: u64,
    /// Messages that were not settled and are left out.
    pub messages_lost: u64,
}

/// Copies every sound batch at or below `target` into fresh partition directories below `directory` of `to`, which must
/// be empty or not there. Says line by line what was saved, and exactly which offsets were left out and why.
///
/// Of a queue, every message that is not settled becomes a record of a partition of its own: the key is what the host keeps with
/// it, the value its body. What tells that a message was settled may be damaged itself: then it is saved once too often.
///
/// Of a batch that is held twice, the segment's copy is taken, else the journal's. Batches before a log's start are left
/// out as deleted; topics that were deleted are left out.
pub fn salvage<I: Io, J: Io>(
    disk: &mut Blocking<'_, I>,
    target: &str,
    to: &mut Blocking<'_, J>,
    directory: &str,
    out: &mut dyn FnMut(&str),
) -> Result<Salvaged, Fatal> {
    if !to.list(directory)?.is_empty() {
        return Err(Fatal::Refused(
            "the directory to salvage to is not empty: give one that is new".to_owned(),
        ));
    }
    if !directory.is_empty() {
        to.make_dir(directory)?;
    }
    let site = Site::read(disk)?;
    let found = files(disk, target)?;
    let pieces = journals(disk, &site, &found, out)?;
    let mut saved = Salvaged::default();
    for source in sources(disk, &site, &found, &pieces, out)? {
        let path =
            if directory.is_empty() { source.name.clone() } else { format!("{directory}/{}", source.name) };
        let writer = Writer::create(to, path, source.id)?;
        let state = site.state(source.id);
        let held = pieces.owners.get(&source.id);
        let log_start = state
            .map_or(Offset(0), |state| state.log_start)
            .max(held.map_or(Offset(0), |held| held.log_start));
        let mut copy = Copy {
            source: &source,
            pieces: &pieces,
            writer,
            from_journal: Vec::new(),
            log_start,
            expected: None,
            adjoins: false,
            reason: None,
            saved: Salvaged { partitions: 1, ..Salvaged::default() },
        };
        copy.from_journal = copy.journal_batches(disk)?;
        let one = copy.run(disk, to, state, out)?;
        saved.partitions += 1;
        saved.batches += one.batches;
        saved.bytes += one.bytes;
        saved.lost += one.lost;
        saved.empty += one.empty;
    }
    save_queues(disk, &site, &found, to, directory, &mut saved, out)?;
    Ok(saved)
}

/// Saves the messages of queues, shard by shard.
fn save_queues<I: Io, J: Io>(
    disk: &mut Blocking<'_, I>,
    site: &Site,
    found: &BTreeMap<String, BTreeSet<String>>,
    to: &mut Blocking<'_, J>,
    directory: &str,
    saved: &mut Salvaged,
    out: &mut dyn FnMut(&str),
) -> Result<(), Fatal> {
    let holds = |files: &BTreeSet<String>| {
        files.iter().any(|path| {
            let name = path.rsplit('/').next().unwrap_or_default();
            Files::number(name).is_some() || store_number(name).is_some()
        })
    };
    let homes = found.iter().filter(|(_, files)| holds(files));
    let homes: BTreeSet<&str> =
        homes.filter_map(|(directory, _)| Some(directory.rsplit_once('/')?.0)).collect();
    for home in homes {
        let mut home = ShardHome { directory: home.to_owned(), checkpoint: None };
        let journal = home.journal();
        home.checkpoint = checkpoint_of(disk, site, &journal)?;
        let names: Vec<String> = disk
            .list(&journal)?
            .into_iter()
            .filter(|entry| Files::number(&entry.name).is_some())
            .map(|entry| format!("{journal}/{}", entry.name))
            .collect();
        let mut messages = Messages::new(site, home.checkpoint.as_ref());
        messages.take_stores(disk, &home)?;
        walk(disk, &journal, site.journal_key, home.checkpoint.as_ref(), &mut |group| {
            if let Some(name) = names.get(group.file) {
                messages.take_journal(name, group);
            }
        })?;
        for (file, position, what) in &messages.wrong {
            out(&format!("{file}: at byte {position}: {what}"));
        }
        // Messages come queue by queue.
        let mut open: Option<(QueueId, Writer, u64)> = None;
        let missing = messages.save(disk, &mut |queue, _, header, body| {
            if open.as_ref().is_none_or(|(id, _, _)| *id != queue) {
                finish_queue(site, to, open.take(), saved, out)?;
                let path = queue_directory(queue);
                let path = if directory.is_empty() { path } else { format!("{directory}/{path}") };
                let id = PartitionId { topic: TopicId(queue.0), index: 0 };
                open = Some((queue, Writer::create(to, path, id)?, 0));
            }
            let Some((_, writer, count)) = &mut open else { return Ok(()) };
            let mut batch = BatchBuilder::new(0).push(Some(header), Some(body)).build();
            stamp(&mut batch, Offset(*count), LeaderEpoch(0));
            if let Ok(header) = check(&batch) {
                writer.append(to, Offset(0), &header, &batch)?;
                *count += 1;
            }
            Ok(())
        })?;
        finish_queue(site, to, open.take(), saved, out)?;
        for what in &missing {
            out(&format!("{}: {what}", home.directory));
        }
        saved.messages_lost += missing.len() as u64;
    }
    Ok(())
}

/// The directory that the messages of a queue go to: its own name may have any bytes.
fn queue_directory(queue: QueueId) -> String {
    dir_name(&format!("queue.{}", base64(TopicId(queue.0))), 0)
}

fn finish_queue<J: Io>(
    site: &Site,
    to: &mut Blocking<'_, J>,
    open: Option<(QueueId, Writer, u64)>,
    saved: &mut Salvaged,
    out: &mut dyn FnMut(&str),
) -> Result<(), Fatal> {
    let Some((queue, writer, count)) = open else { return Ok(()) };
    writer.finish(to)?;
    saved.queues += 1;
    saved.messages += count;
    let name = site.queues.get(&queue).map(|name| name.escape_ascii().to_string());
    let name = name.unwrap_or_else(|| "of a name that is not known".to_owned());
    out(&format!("{}: {count} messages of queue {name} saved", queue_directory(queue)));
    Ok(())
}

/// Reads the journals below the target.
fn journals<I: Io>(
    disk: &mut Blocking<'_, I>,
    site: &Site,
    found: &BTreeMap<String, BTreeSet<String>>,
    out: &mut dyn FnMut(&str),
) -> Result<Pieces, Fatal> {
    let mut pieces = Pieces::default();
    for (directory, files) in found {
        let is_journal =
            |path: &String| path.rsplit('/').next().is_some_and(|name| Files::number(name).is_some());
        if !files.iter().any(is_journal) {
            continue;
        }
        let checkpoint = checkpoint_of(disk, site, directory)?;
        let walked =
            walk(disk, directory, site.journal_key, checkpoint.as_ref(), &mut |found| pieces.take(found))?;
        for verdict in walked.verdicts {
            if let Some(spot) = &verdict.damage {
                out(&verdict.to_string());
                pieces.damage.push(format!("{} is damaged at byte {}", verdict.file, spot.position));
            }
            pieces.files.push(verdict.file);
        }
    }
    Ok(pieces)
}

/// A partition to be saved.
struct Source {
    id: PartitionId,
    /// The name of its new directory.
    name: String,
    /// Its old one, if it has one.
    directory: String,
    /// The segments that are in it and below the target.
    segments: BTreeSet<Offset>,
}

fn sources<I: Io>(
    disk: &mut Blocking<'_, I>,
    site: &Site,
    found: &BTreeMap<String, BTreeSet<String>>,
    pieces: &Pieces,
    out: &mut dyn FnMut(&str),
) -> Result<Vec<Source>, Fatal> {
    let mut sources: BTreeMap<PartitionId, Source> = BTreeMap::new();
    for (directory, files) in found {
        let segments: BTreeSet<Offset> = files
            .iter()
            .filter_map(|path| parse_file_name(path.rsplit('/').next()?))
            .filter(|file| file.file == SegmentFile::Log && !file.deleted)
            .map(|file| file.base_offset)
            .collect();
        let last = directory.rsplit('/').next().unwrap_or_default();
        let Some(DirName::Live { topic, index }) = parse_dir_name(last) else { continue };
        if segments.is_empty() {
            continue;
        }
        let owner = segment::owner(disk, directory)?.map(|(id, _)| id).or_else(|| {
            let known = site.names.iter().find(|(id, name)| **name == topic && !site.deleted.contains(id));
            known.map(|(id, _)| PartitionId { topic: *id, index })
        });
        let id = owner.unwrap_or_else(|| {
            out(&format!("{directory}: its topic id is not known; it is given one of zeros"));
            PartitionId { topic: TopicId::default(), index }
        });
        if site.deleted.contains(&id.topic) {
            out(&format!("{directory}: left out, its topic was deleted"));
            continue;
        }
        let source = Source { id, name: dir_name(&topic, index), directory: directory.clone(), segments };
        match sources.entry(id) {
            Entry::Vacant(place) => drop(place.insert(source)),
            Entry::Occupied(_) => {
                out(&format!("{directory}: left out, another directory has the same topic id"));
            }
        }
    }
    let names: BTreeMap<TopicId, String> = sources
        .values()
        .filter_map(|source| Some((source.id.topic, source.name.rsplit_once('-')?.0.to_owned())))
        .collect();
    for (id, held) in &pieces.owners {
        if sources.contains_key(id) || held.pieces.is_empty() || site.deleted.contains(&id.topic) {
            continue;
        }
        let topic = site.names.get(&id.topic).or_else(|| names.get(&id.topic)).cloned();
        let topic = topic.unwrap_or_else(|| format!("topic.{}", base64(id.topic)));
        let name = dir_name(&topic, id.index);
        let directory = format!("{}/{name}", paths::LOGS);
        sources.insert(*id, Source { id: *id, name, directory, segments: BTreeSet::new() });
    }
    // Two ids may have had one name, if the metadata is damaged.
    let mut taken = BTreeSet::new();
    for source in sources.values_mut() {
        if !taken.insert(source.name.clone()) {
            source.name = dir_name(&format!("topic.{}", base64(source.id.topic)), source.id.index);
            taken.insert(source.name.clone());
        }
    }
    Ok(sources.into_values().collect())
}

/// A sound batch that the journal holds.
enum Held<'a> {
    Piece(&'a Piece),
    Bytes(Vec<u8>),
}

struct InJournal<'a> {
    base: Offset,
    next: Offset,
    segment: Offset,
    held: Held<'a>,
}

/// One partition being copied: a merge of its segments and of the journal, by offset.
struct Copy<'a> {
    source: &'a Source,
    pieces: &'a Pieces,
    writer: Writer,
    /// Sorted by offset; taken from the back.
    from_journal: Vec<InJournal<'a>>,
    log_start: Offset,
    /// The offset that comes next, once one is known.
    expected: Option<Offset>,
    /// Whether nothing can be missing here: what comes next stands directly behind what came last, in sound files.
    adjoins: bool,
    /// Why something may be missing from here on.
    reason: Option<String>,
    saved: Salvaged,
}

impl<'a> Copy<'a> {
    /// What the journal holds of the partition, the first batch last.
    fn journal_batches<I: Io>(&self, disk: &mut Blocking<'_, I>) -> Result<Vec<InJournal<'a>>, Fatal> {
        let mut batches = Vec::new();
        for piece in self.pieces.owners.get(&self.source.id).map(|held| &held.pieces[..]).unwrap_or_default()
        {
            match piece.kind {
                Kind::Batch(base, next) => {
                    let held = Held::Piece(piece);
                    batches.push(InJournal { base, next, segment: piece.segment, held });
                }
                Kind::Carry(start) => {
                    let log = paths::segment(&self.source.directory, piece.segment, SegmentFile::Log);
                    let (whole, _) = self.pieces.complete(disk, &log, piece, start)?;
                    batches.extend(whole.into_iter().map(|(header, bytes)| InJournal {
                        base: header.base_offset,
                        next: header.next_offset(),
                        segment: piece.segment,
                        held: Held::Bytes(bytes),
                    }));
                }
            }
        }
        batches.sort_by_key(|batch| std::cmp::Reverse(batch.base));
        Ok(batches)
    }

    fn run<I: Io, J: Io>(
        mut self,
        disk: &mut Blocking<'_, I>,
        to: &mut Blocking<'_, J>,
        state: Option<&PartitionState>,
        out: &mut dyn FnMut(&str),
    ) -> Result<Salvaged, Fatal> {
        if self.log_start > Offset(0) || state.is_some() {
            self.expected = Some(self.log_start);
        }
        // The segments that the checkpoint knows and that come next, as long as each was found whole.
        let mut known = state.map(|state| &state.segments[..]).unwrap_or_default();
        for base in &self.source.segments {
            let next = known.split_first().filter(|(next, _)| next.base == *base);
            let mut sound = next.is_some();
            self.adjoins = sound;
            let name = paths::segment(&self.source.directory, *base, SegmentFile::Log);
            let Some(mut reader) = Reader::open(disk, &name)? else { continue };
            let mut walk = Batches::new(*base);
            while let Some(step) = walk.next(disk, &mut reader, self.expected.unwrap_or(*base))? {
                match step {
                    Step::Batch(at, header) => {
                        self.journal_up_to(disk, to, Some(header.base_offset), out)?;
                        let batch = reader.get(disk, at, header.size)?;
                        self.put(to, *base, &header, batch, out)?;
                        self.adjoins = true;
                    }
                    Step::Cut(at) => {
                        (sound, self.adjoins) = (false, false);
                        self.reason = Some(format!("{name} ends within the batch at byte {at}"));
                    }
                    Step::Bad(at, what, _) => {
                        (sound, self.adjoins) = (false, false);
                        out(&format!("{name}: at byte {at}: {what}"));
                        self.reason = Some(format!("{name} is damaged at byte {at}"));
                    }
                }
            }
            sound &= next.is_some_and(|(next, _)| next.stored && u64::from(next.size) == reader.len);
            known = next.filter(|_| sound).map(|(_, rest)| rest).unwrap_or_default();
            self.adjoins = sound;
            reader.close(disk);
        }
        self.adjoins &= known.is_empty();
        self.journal_up_to(disk, to, None, out)?;
        if let Some(state) = state {
            self.gap(state.next_offset, out);
        }
        self.writer.finish(to)?;
        let Salvaged { batches, bytes, lost, .. } = self.saved;
        let name = &self.source.name;
        let span = self.expected.map_or_else(String::new, |next| format!(", up to offset {next}"));
        out(&format!("{name}: {batches} batches, {bytes} bytes saved{span}; {lost} offsets left out"));
        Ok(self.saved)
    }

    /// Writes what the journal has before an offset.
    fn journal_up_to<I: Io, J: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        to: &mut Blocking<'_, J>,
        before: Option<Offset>,
        out: &mut dyn FnMut(&str),
    ) -> Result<(), Fatal> {
        let due = |batch: &mut InJournal<'_>| before.is_none_or(|before| batch.base < before);
        while let Some(batch) = self.from_journal.pop_if(due) {
            if self.expected.is_some_and(|expected| batch.next <= expected) {
                continue;
            }
            let bytes = match batch.held {
                Held::Bytes(bytes) => bytes,
                Held::Piece(piece) => self.pieces.bytes(disk, piece)?,
            };
            if let Ok(header) = check(&bytes) {
                self.adjoins = false;
                self.put(to, batch.segment, &header, &bytes, out)?;
            }
        }
        Ok(())
    }

    /// Writes a batch, unless it was written or deleted before.
    fn put<J: Io>(
        &mut self,
        to: &mut Blocking<'_, J>,
        segment: Offset,
        header: &BatchHeader,
        batch: &[u8],
        out: &mut dyn FnMut(&str),
    ) -> Result<(), Fatal> {
        // Only the first may lie across the log's start, and so begin before what is expected.
        let lowest = if self.saved.batches > 0 { self.expected } else { None };
        let is_old = lowest.is_some_and(|expected| header.base_offset < expected);
        if header.next_offset() <= self.log_start || is_old {
            return Ok(());
        }
        self.gap(header.base_offset, out);
        self.writer.append(to, segment, header, batch)?;
        self.expected = Some(header.next_offset());
        self.saved.batches += 1;
        self.saved.bytes += batch.len() as u64;
        Ok(())
    }

    /// Says what is left out before `next`, if anything is.
    fn gap(&mut self, next: Offset, out: &mut dyn FnMut(&str)) {
        let Some(expected) = self.expected.filter(|expected| *expected < next) else { return };
        let name = &self.source.name;
        if self.adjoins {
            out(&format!(
                "{name}: offsets {expected}..{next} hold nothing, as after compaction: its files are whole there"
            ));
            self.saved.empty += next.0 - expected.0;
            return;
        }
        let reasons: Vec<_> =
            self.reason.take().into_iter().chain(self.pieces.damage.iter().cloned()).collect();
        let reason = if reasons.is_empty() {
            "neither a segment nor a journal below the path given holds them".to_owned()
        } else {
            reasons.join(", and ")
        };
        out(&format!("{name}: offsets {expected}..{next} are left out: {reason}"));
        self.saved.lost += next.0 - expected.0;
    }
}
