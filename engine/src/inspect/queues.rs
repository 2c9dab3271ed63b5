//! What a shard's journal and its files of survivors hold of queues, judged by the rows of their recovery (Q1 to Q8 in
//! `shard/queues/recovery.rs`), without an end at the first damage: messages that contradict themselves, messages of
//! queues that nobody knows, messages that were not settled and are nowhere.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::Found;
use super::reader::Reader;
use super::report::{Report, Verdict};
use super::show;
use super::site::{ShardHome, Site};
use crate::error::Fatal;
use crate::format::checkpoint::{Checkpoint, QueueState};
use crate::format::journal::{GroupHeader, RecordHeader, RecordKind, check, peek, records};
use crate::format::message::{MessageRecord, Pieces, decode_pairs, queue_of};
use crate::io::{Blocking, Io};
use crate::limits::{BLOCK_BYTES, GROUP_BYTES_MAX};
use crate::types::{Lsn, QueueId, Seq};

/// The directory of files of survivors in a shard's directory.
pub(super) const MESSAGES: &str = "messages";

/// The number in the name of a file of survivors.
pub(super) fn store_number(name: &str) -> Option<u64> {
    name.rsplit('/').next()?.strip_suffix(".messages")?.parse().ok()
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// As a place in [`Messages::files`].
    file: usize,
    position: u64,
    len: usize,
}

/// Where a message is.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Its record's payload.
    place: Place,
    /// Bytes of that before the message's header.
    prefix_bytes: u32,
    header_bytes: u32,
    pieces: Option<Pieces>,
}

/// Something that is wrong: the file, where in it, and what.
pub(super) type Wrong = (String, u64, String);

/// Takes a message: the queue's, its number there, what the host keeps with it, its body.
pub(super) type TakeMessage<'t> = dyn FnMut(QueueId, Seq, &[u8], &[u8]) -> Result<(), Fatal> + 't;

/// What a shard holds of queues.
pub(super) struct Messages<'a> {
    site: &'a Site,
    checkpoint: Option<&'a Checkpoint>,
    states: BTreeMap<QueueId, &'a QueueState>,
    files: Vec<String>,
    found: BTreeMap<(QueueId, Seq), Held>,
    pieces: BTreeMap<(u64, u64), Place>,
    settled: BTreeMap<QueueId, Vec<(u64, u64)>>,
    pub wrong: Vec<Wrong>,
}

impl<'a> Messages<'a> {
    /// Nothing yet, of a shard with this checkpoint, if that can be read.
    pub fn new(site: &'a Site, checkpoint: Option<&'a Checkpoint>) -> Messages<'a> {
        let states = checkpoint.map(|checkpoint| &checkpoint.queues.queues[..]).unwrap_or_default();
        Messages {
            site,
            checkpoint,
            states: states.iter().map(|state| (state.id, state)).collect(),
            files: Vec::new(),
            found: BTreeMap::new(),
            pieces: BTreeMap::new(),
            settled: BTreeMap::new(),
            wrong: Vec::new(),
        }
    }

    fn file(&mut self, name: &str) -> usize {
        self.files.iter().position(|file| file == name).unwrap_or_else(|| {
            self.files.push(name.to_owned());
            self.files.len() - 1
        })
    }

    /// Takes the records of a sound group of the journal.
    pub fn take_journal(&mut self, name: &str, found: &Found<'_>) {
        self.take_group(name, found.position, found.bytes, Some(found.header.first_lsn));
    }

    /// Takes a sound group; `first_lsn` is that of the journal, of which files of survivors have none.
    fn take_group(&mut self, name: &str, position: u64, bytes: &[u8], first_lsn: Option<Lsn>) {
        let file = self.file(name);
        for (number, (record, payload)) in records(bytes).enumerate() {
            let lsn = first_lsn.map(|first| Lsn(first.0 + number as u64));
            let place = Place { file, position: position + payload.start as u64, len: payload.len() };
            let payload = bytes.get(payload).unwrap_or_default();
            if let Err(what) = self.take(place, lsn, &record, payload) {
                self.wrong.push((name.to_owned(), place.position, what));
            }
        }
    }

    fn is_new(&self, lsn: Option<Lsn>) -> bool {
        lsn.is_some_and(|lsn| self.checkpoint.is_none_or(|checkpoint| lsn > checkpoint.lsn))
    }

    fn take(
        &mut self,
        place: Place,
        lsn: Option<Lsn>,
        record: &RecordHeader,
        payload: &[u8],
    ) -> Result<(), String> {
        let pairs = || decode_pairs(payload).ok_or_else(|| "a note about a queue is cut off".to_owned());
        match record.kind {
            RecordKind::Message => self.message(place, lsn, record, payload),
            RecordKind::Piece => {
                self.pieces.insert((record.aux, record.segment.0), place);
                Ok(())
            }
            _ if lsn.is_none() => Err("a record that is no message is among messages".to_owned()),
            RecordKind::Settled => {
                let ranges: Vec<(u64, u64)> = pairs()?.collect();
                if self.is_new(lsn) {
                    self.settled.entry(queue_of(record)).or_default().extend(ranges);
                }
                self.check_known(&[queue_of(record)], lsn)
            }
            RecordKind::Failed | RecordKind::Leaving => {
                drop(pairs()?);
                self.check_known(&[queue_of(record)], lsn)
            }
            RecordKind::Forgotten => pairs().map(drop),
            RecordKind::Mark => self.check_known(&[queue_of(record)], lsn),
            RecordKind::Batch | RecordKind::Carry | RecordKind::LogStart | RecordKind::Part => Ok(()),
        }
    }

    fn message(
        &mut self,
        place: Place,
        lsn: Option<Lsn>,
        record: &RecordHeader,
        payload: &[u8],
    ) -> Result<(), String> {
        let message = MessageRecord::decode(record, payload)
            .ok_or_else(|| "a message contradicts itself".to_owned())?;
        let is_new = self.is_new(lsn);
        for target in &message.targets {
            let state = self.states.get(&target.queue);
            let was_given = state.is_some_and(|state| {
                let rank = crate::queue::rank_of(target.seq);
                state.next.get(usize::from(rank)).is_some_and(|next| target.seq < *next)
            });
            let is_live = state.is_some_and(|state| state.is_live(target.seq));
            let counts = is_new && !was_given || is_live || self.checkpoint.is_none();
            if counts && message.persistent && !target.queue.is_transient() {
                let held = Held {
                    place,
                    prefix_bytes: message.prefix_bytes() as u32,
                    header_bytes: message.header_bytes as u32,
                    pieces: message.pieces,
                };
                self.found.insert((target.queue, target.seq), held);
            }
        }
        if let Some(source) = message.source.filter(|_| is_new) {
            self.settled.entry(source.queue).or_default().push((source.seq.0, source.seq.0));
        }
        let queues: Vec<QueueId> = message.targets.iter().map(|target| target.queue).collect();
        self.check_known(&queues, lsn)
    }

    /// Q7: of a queue that nobody knows there is nothing in what a start replays.
    fn check_known(&self, queues: &[QueueId], lsn: Option<Lsn>) -> Result<(), String> {
        let replayed =
            lsn.is_some_and(|lsn| self.checkpoint.is_some_and(|checkpoint| lsn >= checkpoint.replay_lsn));
        let known = |id: &QueueId| id.is_transient() || self.site.knows_queue(*id);
        match queues.first() {
            Some(id) if self.site.is_data && replayed && !queues.iter().any(known) => {
                Err(format!("a record of queue {id}, which the metadata does not know"))
            }
            _ => Ok(()),
        }
    }

    fn is_settled(&self, queue: QueueId, seq: Seq) -> bool {
        let ranges = self.settled.get(&queue).map(Vec::as_slice).unwrap_or_default();
        let behind = ranges.partition_point(|(first, _)| *first <= seq.0);
        behind.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| seq.0 <= *last)
    }

    /// The messages that are not settled, by queue and in order; and those of them that are nowhere (Q8), or not whole.
    fn unsettled(&mut self) -> (Vec<(QueueId, Seq)>, Vec<String>) {
        for ranges in self.settled.values_mut() {
            // By where they start, each as far as it and those before it reach.
            ranges.sort_unstable();
            let mut reach = 0;
            for (_, last) in ranges {
                reach = reach.max(*last);
                *last = reach;
            }
        }
        let is_there = |id: &QueueId| !self.site.is_data || self.site.queues.contains_key(id);
        let mut missing = Vec::new();
        for state in self.states.values().filter(|state| is_there(&state.id)) {
            for (chunk, mask) in &state.live {
                for place in (0..64).filter(|place| mask & 1 << place != 0) {
                    let seq = Seq(chunk * 64 + place);
                    if !self.found.contains_key(&(state.id, seq)) && !self.is_settled(state.id, seq) {
                        missing.push(format!(
                            "message {} of queue {} was durable, and is nowhere",
                            seq.0, state.id
                        ));
                    }
                }
            }
        }
        let mut there = Vec::new();
        for ((queue, seq), held) in &self.found {
            if !is_there(queue) || self.is_settled(*queue, *seq) {
                continue;
            }
            let lacks = held.pieces.is_some_and(|pieces| {
                (0..pieces.count()).any(|number| !self.pieces.contains_key(&(pieces.name, number)))
            });
            if lacks {
                missing.push(format!("message {} of queue {queue}: a piece of it is nowhere", seq.0));
            } else {
                there.push((*queue, *seq));
            }
        }
        (there, missing)
    }

    /// Holds everything against the checkpoint; `home` is where its files of survivors are.
    pub fn judge(mut self, home: &ShardHome) -> (Vec<Wrong>, Option<Verdict>) {
        let (_, missing) = self.unsettled();
        let mut verdict = Verdict::new(home.messages());
        for what in &missing {
            verdict.bad(0, what.clone());
        }
        (self.wrong, (!missing.is_empty()).then_some(verdict))
    }

    /// Gives every message that is not settled and whole, with what the host keeps with it and its body; and says of which
    /// there is not everything.
    pub fn save<I: Io>(
        mut self,
        disk: &mut Blocking<'_, I>,
        take: &mut TakeMessage<'_>,
    ) -> Result<Vec<String>, Fatal> {
        let (there, mut missing) = self.unsettled();
        for (queue, seq) in there {
            let Some(held) = self.found.get(&(queue, seq)).copied() else { continue };
            let Some(bytes) = self.bytes(disk, held)? else {
                missing.push(format!("message {} of queue {queue} cannot be read", seq.0));
                continue;
            };
            let (header, body) = bytes.split_at(bytes.len().min(held.header_bytes as usize));
            take(queue, seq, header, body)?;
        }
        Ok(missing)
    }

    /// Header and body of a message, one behind the other.
    fn bytes<I: Io>(&self, disk: &mut Blocking<'_, I>, held: Held) -> Result<Option<Vec<u8>>, Fatal> {
        let Some(pieces) = held.pieces else {
            let bytes = self.read(disk, held.place)?;
            return Ok(bytes.get(held.prefix_bytes as usize..).map(<[u8]>::to_vec));
        };
        let mut bytes = Vec::new();
        for number in 0..pieces.count() {
            let Some(place) = self.pieces.get(&(pieces.name, number)) else { return Ok(None) };
            bytes.extend(self.read(disk, *place)?);
        }
        Ok((bytes.len() as u64 == pieces.bytes).then_some(bytes))
    }

    fn read<I: Io>(&self, disk: &mut Blocking<'_, I>, place: Place) -> Result<Vec<u8>, Fatal> {
        let Some(name) = self.files.get(place.file) else { return Ok(Vec::new()) };
        let Some(mut reader) = Reader::open(disk, name)? else { return Ok(Vec::new()) };
        let bytes = reader.get(disk, place.position, place.len)?.to_vec();
        reader.close(disk);
        Ok(bytes)
    }

    /// Reads a shard's files of survivors, as far as its checkpoint tells of them.
    pub fn take_stores<I: Io>(&mut self, disk: &mut Blocking<'_, I>, home: &ShardHome) -> Result<(), Fatal> {
        let told: BTreeMap<u64, u64> = told(self.checkpoint);
        let directory = home.messages();
        for entry in disk.list(&directory)? {
            let Some(number) = store_number(&entry.name) else { continue };
            let bytes = match (self.checkpoint, told.get(&number)) {
                (Some(_), None) => continue,
                (_, bytes) => bytes.copied(),
            };
            let name = format!("{directory}/{}", entry.name);
            let Some(mut reader) = Reader::open(disk, &name)? else { continue };
            let len = bytes.unwrap_or(reader.len).min(reader.len);
            groups(disk, &mut reader, len, &mut |position, _, bytes| {
                self.take_group(&name, position, bytes, None);
            })?;
            reader.close(disk);
        }
        Ok(())
    }
}

/// The files of survivors that a checkpoint tells of, and how far.
fn told(checkpoint: Option<&Checkpoint>) -> BTreeMap<u64, u64> {
    let stores = checkpoint.map(|checkpoint| &checkpoint.queues.stores[..]).unwrap_or_default();
    stores.iter().map(|store| (store.number, store.bytes)).collect()
}

/// Goes through the sound groups of a file of survivors up to `len`; gives where there should be one and is none.
fn groups<I: Io>(
    disk: &mut Blocking<'_, I>,
    reader: &mut Reader,
    len: u64,
    take: &mut dyn FnMut(u64, &GroupHeader, &[u8]),
) -> Result<Vec<u64>, Fatal> {
    let (mut position, mut bad) = (0, Vec::new());
    let mut is_lost = false;
    while position < len {
        let length = peek(reader.get(disk, position, BLOCK_BYTES)?).map_or(0, |header| header.length);
        let bytes = reader.get(disk, position, length.min(GROUP_BYTES_MAX))?;
        match check(bytes) {
            Ok(header) if length > 0 => {
                take(position, &header, bytes);
                position += length as u64;
                is_lost = false;
            }
            _ => {
                if !is_lost {
                    bad.push(position);
                }
                is_lost = true;
                position += BLOCK_BYTES as u64;
            }
        }
    }
    Ok(bad)
}

/// Judges the wanted files of survivors of a directory.
pub(super) fn stores<I: Io>(
    disk: &mut Blocking<'_, I>,
    site: &Site,
    directory: &str,
    wanted: &BTreeSet<String>,
    report: &mut Report<'_>,
) -> Result<(), Fatal> {
    let home = site.shards.iter().find(|home| home.messages() == directory);
    let checkpoint = home.and_then(|home| home.checkpoint.as_ref());
    let told = told(checkpoint);
    for name in wanted {
        let Some(number) = store_number(name) else {
            super::single::check(disk, name, report)?;
            continue;
        };
        let mut verdict = Verdict::new(name);
        let Some(mut reader) = Reader::open(disk, name)? else { continue };
        let len = match (checkpoint, told.get(&number)) {
            (Some(_), None) => {
                "left over: no checkpoint tells of it".clone_into(&mut verdict.holds);
                report.file(&verdict);
                reader.close(disk);
                continue;
            }
            (_, len) => len.copied().unwrap_or(reader.len),
        };
        if reader.len < len {
            verdict.bad(reader.len, format!("the file ends here; the checkpoint tells of {len} bytes"));
        }
        let mut messages = Messages::new(site, checkpoint);
        let (mut count, mut sound) = (0_u64, 0_u64);
        let end = len.min(reader.len);
        let bad = groups(disk, &mut reader, end, &mut |position, header, bytes| {
            sound += 1;
            report.entry(|| format!("{name}{}", show::group(position, header)));
            let mut lsn = header.first_lsn;
            for (record, payload) in records(bytes) {
                count += u64::from(record.kind == RecordKind::Message);
                let at = position + payload.start as u64;
                let payload = bytes.get(payload).unwrap_or_default();
                report.entry(|| show::record(at, lsn.0, &record, "", payload));
                lsn = lsn.next();
            }
            messages.take_group(name, position, bytes, None);
        })?;
        for position in bad {
            verdict.bad(position, "there is no sound group of messages here");
        }
        for (_, position, what) in messages.wrong {
            verdict.bad(position, what);
        }
        if let Some(at) = reader.unreadable {
            verdict.bad(at, "it cannot be read");
        }
        verdict.holds = format!("{count} messages in {sound} groups, to byte {len}");
        reader.close(disk);
        report.file(&verdict);
    }
    Ok(())
}

/// Tells of files of survivors that a checkpoint tells of, and that are not there.
pub(super) fn missing<I: Io>(
    disk: &mut Blocking<'_, I>,
    home: &ShardHome,
    report: &mut Report<'_>,
) -> Result<(), Fatal> {
    let directory = home.messages();
    let there: BTreeSet<u64> =
        disk.list(&directory)?.iter().filter_map(|entry| store_number(&entry.name)).collect();
    for number in told(home.checkpoint.as_ref()).keys().filter(|number| !there.contains(number)) {
        let mut verdict = Verdict::new(format!("{directory}/{number:020}.messages"));
        verdict.bad(0, "the file is missing; the checkpoint tells of it");
        report.file(&verdict);
    }
    Ok(())
}
