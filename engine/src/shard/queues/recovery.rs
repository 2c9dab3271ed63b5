//! Bringing queues back: what the checkpoint says of them, messages in files of survivors, then the journal.
//!
//! With `C` the checkpoint's LSN, of every message that is kept over a restart:
//!
//! | # | what is found | what it means |
//! |---|---|---|
//! | Q1 | a message in a file of survivors, or in a record up to `C`, that the checkpoint says was not settled | it is there; a later copy takes the place of an earlier one |
//! | Q2 | the same, and the checkpoint says it was settled, or does not know its queue | skipped |
//! | Q3 | a message in a record after `C` whose number the checkpoint has not given | it is new |
//! | Q4 | a message in a record after `C` whose number it has given | a copy that was carried: Q1 or Q2 |
//! | Q5 | settlements, failures, leavings, marks after `C` | they hold, in whatever order they come: numbers are never reused |
//! | Q6 | the same up to `C` | the checkpoint counts them already |
//! | Q7 | a record of a queue that the metadata does not know | skipped if the queue was transient or its deletion is known, or if another queue of the message is known; else **damage** |
//! | Q8 | at the end, a message that the checkpoint says was not settled, that nothing after it settles, and that is nowhere | **damage** |
//! | Q9 | a part of a file of survivors without a sound group | skipped; if something that is wanted was there, Q8 names it |
//!
//! A message that came from a queue of another shard is remembered by its place there, with the queues that have it, unless a later
//! record says that it has left that.
//!
//! Messages that are not kept over a restart are skipped; their numbers count as given.
//!
//! Each message goes to its queue's index as it is found, and is paged out if the indexes take too much. While the journal is
//! read nothing can come back: what is found then of a message that is paged out waits.

use std::collections::{BTreeMap, BTreeSet};

use super::groups::{GroupKey, Large, Site, locator_of_pieces, pieces_of};
use super::pending::reason_of;
use super::survivors::{Store, file_name, file_number};
use super::{Index, MESSAGES, Mark, PAGES, PASSING, Queues};
use crate::buffer::Slice;
use crate::error::Fatal;
use crate::format::checkpoint::{QueueState, QueuesState};
use crate::format::journal::{RECORD_HEADER_BYTES, RecordHeader, RecordKind, check, records};
use crate::format::message::{MessageRecord, Target, decode_pairs, queue_of};
use crate::io::{Blocking, Io, OpenMode};
use crate::journal::Replayed;
use crate::limits::{BLOCK_BYTES, GROUP_BYTES_MAX};
use crate::queue::{LeaveReason, Locator, Queue, Recovered, Stored, rank_of};
use crate::shard::metadata::Metadata;
use crate::types::{FileEpoch, Lsn, QueueId, Seq, ShardId};

/// A queue being put together.
struct Building {
    index: Index,
    /// As the checkpoint has it.
    state: QueueState,
    /// Numbers given, per rank.
    next: BTreeMap<u8, u64>,
    marks: BTreeMap<u8, u64>,
    settled: Vec<(u64, u64)>,
    failed: BTreeMap<Seq, u64>,
    leaving: BTreeMap<Seq, LeaveReason>,
    /// What was found of messages that are paged out.
    late: Vec<Stored>,
    /// Where in the checkpoint's masks a message was looked for last.
    looked_at: usize,
}

impl Building {
    fn new(index: Index) -> Building {
        Building {
            index,
            state: QueueState::default(),
            next: BTreeMap::new(),
            marks: BTreeMap::new(),
            settled: Vec::new(),
            failed: BTreeMap::new(),
            leaving: BTreeMap::new(),
            late: Vec::new(),
            looked_at: 0,
        }
    }

    /// Whether the checkpoint says that a message was not settled. Messages come mostly in the order of their numbers.
    fn is_live(&mut self, seq: Seq) -> bool {
        let live = &self.state.live;
        let has = |at: usize| live.get(at).is_some_and(|(chunk, _)| *chunk == seq.0 / 64);
        if !has(self.looked_at) {
            self.looked_at += 1;
            if !has(self.looked_at) {
                self.looked_at = live.partition_point(|(chunk, _)| *chunk < seq.0 / 64);
            }
        }
        has(self.looked_at) && live[self.looked_at].1 & 1 << (seq.0 % 64) != 0
    }

    fn given(&mut self, seq: Seq) {
        let next = self.next.entry(rank_of(seq)).or_default();
        *next = (*next).max(seq.0 + 1);
    }

    /// Whether the checkpoint had given this number.
    fn was_given(&self, seq: Seq) -> bool {
        self.state.next.get(usize::from(rank_of(seq))).is_some_and(|next| seq < *next)
    }

    /// Puts the settled ranges in order, so that they can be searched.
    fn order_settled(&mut self) {
        self.settled.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (first, last) in self.settled.drain(..) {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        self.settled = merged;
    }

    /// The mark of a rank in the checkpoint.
    fn old_mark(&self, rank: u8) -> u64 {
        self.state.marks.get(usize::from(rank)).map_or(0, |mark| mark.0)
    }

    /// What is known of a message that was found.
    fn stored(&self, locator: Locator, size: u32, target: &Target) -> Stored {
        let seq = target.seq;
        Stored {
            seq,
            locator,
            size,
            persistent: true,
            expires_at: target.expires_at,
            delivered: seq.0 < self.old_mark(rank_of(seq)),
            failures: 0,
            leaving: None,
        }
    }

    fn is_settled(&self, seq: Seq) -> bool {
        let behind = self.settled.partition_point(|(first, _)| *first <= seq.0);
        behind > 0 && self.settled[behind - 1].1 >= seq.0
    }
}

/// The queues of a shard being recovered.
pub struct Rebuild<'a> {
    metadata: &'a Metadata,
    shard: ShardId,
    lsn: Lsn,
    queues: Queues,
    building: BTreeMap<QueueId, Building>,
    /// The group of the last record.
    last: Option<(Lsn, GroupKey)>,
    stores: BTreeMap<u64, Store>,
    next_store: u64,
    next_store_lsn: u64,
    directory: String,
    /// What groups of this node carry.
    key: u64,
    /// The first place in a file of survivors where there is no sound group: nothing that is wanted may have been there.
    unreadable: Option<(String, u64)>,
    /// Pieces of messages, by name and number: where, and how long.
    pieces: BTreeMap<(u64, u64), (Locator, u32)>,
    /// Messages in pieces, by name: where the message's own record is, and what it says.
    large: BTreeMap<u64, (Locator, MessageRecord)>,
    /// The places that these have in queues.
    large_places: BTreeSet<(u64, QueueId, Seq)>,
    /// Whether there was anything of a queue whose deletion is known.
    met_deleted: bool,
    forgotten: Vec<(QueueId, u64, u64)>,
}

impl<'a> Rebuild<'a> {
    /// Starts with no `queues`, from a checkpoint as of `lsn`, and reads the files of survivors in the shard's directory, `home`,
    /// that it tells of; others are removed.
    pub fn start<I: Io>(
        disk: &mut Blocking<'_, I>,
        metadata: &'a Metadata,
        shard: ShardId,
        home: &str,
        key: u64,
        (lsn, state): (Lsn, QueuesState),
        mut queues: Queues,
    ) -> Result<Rebuild<'a>, Fatal> {
        let now = disk.io().wall_ms();
        queues.groups.keep_all();
        let mut all: BTreeMap<QueueId, Building> = BTreeMap::new();
        let own = |id: &QueueId| metadata.shard_of_queue(*id) == Some(shard);
        for (id, queue) in metadata.queues.iter().filter(|(id, _)| own(id)) {
            let index = queues.insert(*id, Queue::new(queue.settings.clone(), now), Vec::new());
            all.insert(*id, Building::new(index));
        }
        let mut met_deleted = false;
        for state in state.queues {
            let Some(building) = all.get_mut(&state.id) else {
                met_deleted = true;
                continue;
            };
            for next in &state.next {
                building.next.insert(rank_of(*next), next.0);
            }
            for (rank, mark) in (0..=u8::MAX).zip(&state.marks) {
                building.marks.insert(rank, mark.0);
            }
            building.failed = state.failed.iter().map(|(seq, count)| (Seq(*seq), *count)).collect();
            let leaving = |(seq, code): &(u64, u64)| Some((Seq(*seq), reason_of(*code)?));
            building.leaving = state.leaving.iter().filter_map(leaving).collect();
            building.state = state;
        }
        let directory = format!("{home}/{MESSAGES}");
        disk.make_dir(&directory)?;
        // What was good for as long as the process ran.
        for entry in disk.list(home)? {
            if entry.name == PAGES || entry.name.starts_with(PASSING) {
                disk.unlink(&format!("{home}/{}", entry.name))?;
            }
        }
        let mut rebuild = Rebuild {
            metadata,
            shard,
            lsn,
            queues,
            building: all,
            last: None,
            stores: BTreeMap::new(),
            next_store: 1,
            next_store_lsn: 1,
            directory,
            key,
            unreadable: None,
            pieces: BTreeMap::new(),
            large: BTreeMap::new(),
            large_places: BTreeSet::new(),
            met_deleted,
            forgotten: Vec::new(),
        };
        rebuild.queues.names.recover(state.arrived, state.moved);
        let told: BTreeSet<u64> = state.stores.iter().map(|store| store.number).collect();
        for entry in disk.list(&rebuild.directory)? {
            let Some(number) = file_number(&entry.name) else { continue };
            rebuild.next_store = rebuild.next_store.max(number + 1);
            if !told.contains(&number) {
                disk.unlink(&format!("{}/{}", rebuild.directory, entry.name))?;
            }
        }
        for store in state.stores {
            rebuild.read_store(disk, store.number, store.bytes)?;
        }
        Ok(rebuild)
    }

    /// Reads a file of survivors.
    fn read_store<I: Io>(&mut self, disk: &mut Blocking<'_, I>, number: u64, len: u64) -> Result<(), Fatal> {
        let path = format!("{}/{}", self.directory, file_name(number));
        let corrupt =
            |position, what: &str| Fatal::Corrupt { file: path.clone(), position, what: what.to_owned() };
        let key = self.key;
        let sound = |group: &Slice| {
            check(group).ok().filter(|header| header.key == key && header.file_epoch == FileEpoch(number))
        };
        let (file, found) = disk.open(&path, OpenMode::ReadDirect)?;
        if found < len {
            return Err(corrupt(found, "the file is shorter than the checkpoint says"));
        }
        let mut position = 0;
        while position < len {
            let rest = (len - position).min(crate::limits::JOURNAL_SLAB_BYTES as u64) as usize;
            let chunk = disk.read(file, &path, position, rest)?.freeze();
            let mut at = 0;
            while at < chunk.len() {
                let group = chunk.slice(at..chunk.len());
                let Some(header) = sound(&group) else {
                    if at > 0 && chunk.len() - at < GROUP_BYTES_MAX && position + (chunk.len() as u64) < len {
                        break; // It may only be cut off by the chunk's end.
                    }
                    // Its messages may all be settled. If not, the file is damaged (Q8).
                    self.unreadable.get_or_insert_with(|| (path.clone(), position + at as u64));
                    at += BLOCK_BYTES;
                    continue;
                };
                let site = Site {
                    file,
                    at: position + at as u64,
                    len: header.length,
                    first_lsn: header.first_lsn,
                    store: number,
                };
                let key = self.queues.groups.add(site, header.last_lsn());
                self.next_store_lsn = self.next_store_lsn.max(header.last_lsn().0 + 1);
                let group = group.slice(0..header.length);
                for (record, payload) in records(&group) {
                    let from = key.locator(payload.start - RECORD_HEADER_BYTES);
                    self.stored(&record, &group[payload], from)
                        .map_err(|what| corrupt(position + at as u64, &what))?;
                }
                self.queues.page_out_now(disk)?;
                at += header.length;
            }
            position += at as u64;
        }
        self.stores.insert(number, Store { file, bytes: len });
        Ok(())
    }

    /// A message in a file of survivors.
    fn stored(&mut self, record: &RecordHeader, payload: &[u8], from: Locator) -> Result<(), String> {
        if record.kind == RecordKind::Piece {
            self.pieces.insert((record.aux, record.segment.0), (from, record.len as u32));
            return Ok(());
        }
        let message = decode(record, payload)?;
        let size = message.bytes(record);
        let from = self.locator(&message, from);
        for target in &message.targets {
            if self.building.get_mut(&target.queue).is_some_and(|building| building.is_live(target.seq)) {
                self.bring(from, size, target);
            }
        }
        Ok(())
    }

    /// Puts a message that was found into the index of a queue that is here.
    fn bring(&mut self, locator: Locator, size: u32, target: &Target) {
        let building = self.building.get_mut(&target.queue).expect("the caller knows it");
        let (index, stored) = (building.index, building.stored(locator, size, target));
        if let Some(name) = pieces_of(locator) {
            self.large_places.insert((name, target.queue, target.seq));
        }
        if !self.queues.recover(index, stored) {
            building.late.push(stored);
        }
    }

    /// How a message's bytes are found, whose record is here.
    fn locator(&mut self, message: &MessageRecord, from: Locator) -> Locator {
        let Some(pieces) = message.pieces else { return from };
        self.large.insert(pieces.name, (from, message.clone()));
        locator_of_pieces(pieces.name)
    }

    /// The queue of a record of the journal; `None` if it is to be skipped.
    fn of(&mut self, id: QueueId) -> Result<Option<&mut Building>, String> {
        if id.is_transient() {
            return Ok(None);
        }
        if self.metadata.deleted_queues.contains(&id) {
            self.met_deleted = true;
            return Ok(None);
        }
        match self.building.get_mut(&id) {
            Some(building) => Ok(Some(building)),
            None => {
                Err(format!("queue {id} is not known, and neither is its deletion (shard {})", self.shard.0))
            }
        }
    }

    /// Whether anything was met of a queue whose deletion is known.
    pub fn met_deleted(&self) -> bool {
        self.met_deleted
    }

    /// Takes a record of the journal.
    pub fn record(
        &mut self,
        lsn: Lsn,
        record: &RecordHeader,
        payload: &Slice,
        place: &Replayed,
    ) -> Result<(), String> {
        if matches!(record.kind, RecordKind::Message | RecordKind::Piece) {
            return self.message(lsn, record, payload, place);
        }
        let is_new = lsn > self.lsn;
        let pairs = || decode_pairs(payload).ok_or_else(|| "a note about a queue is cut off".to_owned());
        if record.kind == RecordKind::Forgotten {
            let id = queue_of(record);
            self.forgotten.extend(pairs()?.map(|(first, last)| (id, first, last)));
            return Ok(());
        }
        let Some(queue) = self.of(queue_of(record))?.filter(|_| is_new) else { return Ok(()) };
        match record.kind {
            RecordKind::Settled => {
                for (first, last) in pairs()? {
                    queue.settled.push((first, last));
                    queue.given(Seq(last));
                }
            }
            RecordKind::Failed => {
                for (seq, count) in pairs()? {
                    let known = queue.failed.entry(Seq(seq)).or_default();
                    *known = (*known).max(count);
                }
            }
            RecordKind::Leaving => {
                for (seq, code) in pairs()? {
                    let reason = reason_of(code).ok_or("a message leaves for a reason that is none")?;
                    queue.leaving.insert(Seq(seq), reason);
                }
            }
            RecordKind::Mark => {
                let mark = queue.marks.entry(rank_of(Seq(record.aux))).or_default();
                *mark = (*mark).max(record.aux);
            }
            kind => return Err(format!("a record of kind {kind:?} is not about a queue")),
        }
        Ok(())
    }

    fn message(
        &mut self,
        lsn: Lsn,
        record: &RecordHeader,
        payload: &Slice,
        place: &Replayed,
    ) -> Result<(), String> {
        let key = match self.last {
            Some((first, key)) if first == place.group.first_lsn => key,
            _ => {
                let (file, at, first_lsn) = (place.file, place.at, place.group.first_lsn);
                let site = Site { file, at, len: place.group.length, first_lsn, store: 0 };
                self.queues.groups.add(site, place.group.last_lsn())
            }
        };
        self.last = Some((place.group.first_lsn, key));
        let from = key.locator(place.payload - RECORD_HEADER_BYTES);
        if record.kind == RecordKind::Piece {
            self.pieces.insert((record.aux, record.segment.0), (from, record.len as u32));
            return Ok(());
        }
        let message = decode(record, payload)?;
        let size = message.bytes(record);
        let from = self.locator(&message, from);
        let is_new = lsn > self.lsn;
        // A message that one queue has still wanted may have been carried with the places of others that were forgotten.
        let known = |target: &Target| {
            target.queue.is_transient()
                || self.building.contains_key(&target.queue)
                || self.metadata.deleted_queues.contains(&target.queue)
        };
        let any_known = message.targets.iter().any(known);
        for target in &message.targets {
            let queue = match self.of(target.queue) {
                Ok(queue) => queue,
                Err(_) if any_known => None,
                Err(unknown) => return Err(unknown),
            };
            let Some(queue) = queue else { continue };
            let was_given = queue.was_given(target.seq);
            queue.given(target.seq);
            let counts = is_new && !was_given || queue.is_live(target.seq);
            if counts && message.persistent {
                self.bring(from, size, target);
            }
        }
        if let Some(Target { queue: from, seq, .. }) = message.source.filter(|_| is_new) {
            // Only what stays is sent once more.
            let stays =
                message.persistent && message.targets.iter().any(|target| !target.queue.is_transient());
            match self.building.get_mut(&from) {
                Some(queue) => queue.settled.push((seq.0, seq.0)),
                None if stays && self.metadata.queue(from).is_some() => {
                    let targets = message.targets.iter().map(|target| target.queue);
                    self.queues.names.add((from, seq), targets.filter(|target| !target.is_transient()));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// The queues, as they were.
    pub fn finish<I: Io>(mut self, disk: &mut Blocking<'_, I>) -> Result<Queues, Fatal> {
        for (id, building) in std::mem::take(&mut self.building) {
            self.complete(disk, id, building)?;
            self.queues.page_out_now(disk)?;
        }
        for (name, id, seq) in std::mem::take(&mut self.large_places) {
            if let Some(index) = self.queues.find(id)
                && self.queues.is_live(index, seq)
            {
                self.put_together(name)?;
                self.queues.groups.want(locator_of_pieces(name), 0);
            }
        }
        let mut queues = self.queues;
        let forgotten = Forgotten::of(std::mem::take(&mut self.forgotten));
        queues.names.retain(|name| self.metadata.queue(name.0).is_some() && !forgotten.has(name));
        queues.groups.drop_all_unwanted();
        queues.survivors.recovered(self.stores, self.next_store, self.next_store_lsn);
        Ok(queues)
    }

    /// Does what was read of a queue beside its messages.
    fn complete<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        id: QueueId,
        mut building: Building,
    ) -> Result<(), Fatal> {
        let (index, queues) = (building.index, &mut self.queues);
        for stored in std::mem::take(&mut building.late) {
            queues.page_in_now(disk, index, stored.seq, stored.seq)?;
            queues.recover(index, stored);
        }
        building.order_settled();
        self.check_complete(id, &building)?;
        let queues = &mut self.queues;
        for (first, last) in &building.settled {
            queues.recover_settled(disk, index, Seq(*first), Seq(*last))?;
        }
        for (rank, mark) in &building.marks {
            // Numbers of a rank begin with its own.
            let before = building.old_mark(*rank).max(mark & (0xff << 56));
            if before < *mark {
                let (first, last) = (Seq(before), Seq(mark - 1));
                queues.page_in_now(disk, index, first, last)?;
                queues.entry(index).machine.recover_delivered(first, last);
            }
        }
        for (seq, failures) in &building.failed {
            queues.page_in_now(disk, index, *seq, *seq)?;
            let failures = u16::try_from(*failures).unwrap_or(u16::MAX);
            queues.entry(index).machine.recover_failures(*seq, failures);
        }
        for (seq, reason) in &building.leaving {
            queues.page_in_now(disk, index, *seq, *seq)?;
            queues.entry(index).machine.recover_leaving(*seq, *reason);
        }
        // Numbers below a mark may have been seen outside, also of messages that the crash has swallowed.
        for next in building.next.values().chain(building.marks.values()).filter(|next| **next > 0) {
            queues.entry(index).machine.recover_next(Seq(*next));
        }
        let ranks = building.marks.keys().last().map_or(0, |rank| usize::from(*rank) + 1);
        let entry = queues.entry(index);
        entry.marks = vec![Mark::default(); ranks];
        for (rank, mark) in &building.marks {
            entry.marks[usize::from(*rank)] = Mark { durable: *mark, asked: *mark };
        }
        if entry.machine.stats().leaving > 0 {
            queues.letters.add(index);
        }
        queues.resize(index);
        Ok(())
    }

    /// Makes a message in pieces known, all of whose pieces must be there.
    fn put_together(&mut self, name: u64) -> Result<(), Fatal> {
        if self.queues.groups.large(name).is_some() {
            return Ok(());
        }
        let (index, message) = &self.large[&name];
        let count = message.pieces.map_or(0, |pieces| pieces.count());
        let pieces: Option<Vec<_>> =
            (0..count).map(|number| self.pieces.get(&(name, number)).copied()).collect();
        let Some(mut pieces) = pieces else {
            return Err(
                self.missing(format!("a piece of the message that starts at record {name} is nowhere"))
            );
        };
        pieces.push((*index, 0));
        let groups = &mut self.queues.groups;
        for (piece, len) in &pieces {
            groups.want(*piece, u64::from(*len));
        }
        let (header_bytes, priority) = (message.header_bytes, message.priority);
        groups.add_large(name, Large { wanted: 0, pieces, header_bytes, priority });
        Ok(())
    }

    /// Something is nowhere that was durable: where it must have been, as far as that is known.
    fn missing(&self, what: String) -> Fatal {
        let (file, position) = self.unreadable.clone().unwrap_or_else(|| (self.directory.clone(), 0));
        Fatal::Corrupt { file, position, what }
    }

    /// Q8.
    fn check_complete(&self, id: QueueId, building: &Building) -> Result<(), Fatal> {
        let machine = &self.queues.entries[building.index.0 as usize].as_ref().expect("it is here").machine;
        for (chunk, mask) in &building.state.live {
            let missing = mask & !machine.live(Seq(chunk * 64));
            for place in (0..64).filter(|place| missing & 1 << place != 0) {
                let seq = Seq(chunk * 64 + place);
                if !building.is_settled(seq) {
                    return Err(
                        self.missing(format!("message {} of queue {id} was durable, and is nowhere", seq.0))
                    );
                }
            }
        }
        Ok(())
    }
}

/// Ranges of names that may be forgotten, in order: each as far as it and those before it reach.
struct Forgotten(Vec<(QueueId, u64, u64)>);

impl Forgotten {
    fn of(mut ranges: Vec<(QueueId, u64, u64)>) -> Forgotten {
        ranges.sort_unstable();
        let mut reach: Option<(QueueId, u64)> = None;
        for (queue, _, last) in &mut ranges {
            *last = reach.filter(|(of, _)| of == queue).map_or(*last, |(_, before)| before.max(*last));
            reach = Some((*queue, *last));
        }
        Forgotten(ranges)
    }

    fn has(&self, (queue, seq): (QueueId, Seq)) -> bool {
        let behind = self.0.partition_point(|(of, first, _)| (*of, *first) <= (queue, seq.0));
        let range = behind.checked_sub(1).and_then(|at| self.0.get(at));
        range.is_some_and(|(of, _, last)| *of == queue && seq.0 <= *last)
    }
}

fn decode(record: &RecordHeader, payload: &[u8]) -> Result<MessageRecord, String> {
    MessageRecord::decode(record, payload).ok_or_else(|| "a message contradicts itself".to_owned())
}

impl Queues {
    /// Brings a message back; `false` if it is paged out, and its page has to come back first.
    fn recover(&mut self, index: Index, stored: Stored) -> bool {
        let before = match self.entry(index).machine.recover(stored) {
            Recovered::PagedOut(_) => return false,
            Recovered::Known(before) => Some(before),
            Recovered::New => None,
        };
        // Messages in pieces are wanted when all pieces are there.
        let size = u64::from(stored.size);
        if pieces_of(stored.locator).is_none() {
            self.groups.want(stored.locator, size);
        }
        if let Some(before) = before.filter(|before| pieces_of(*before).is_none()) {
            self.groups.release(before, size);
        }
        self.resize(index);
        true
    }

    fn is_live(&mut self, index: Index, seq: Seq) -> bool {
        self.entry(index).machine.live(Seq(seq.0 / 64 * 64)) & 1 << (seq.0 % 64) != 0
    }

    /// Brings back what is paged out of these messages.
    fn page_in_now<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        index: Index,
        first: Seq,
        last: Seq,
    ) -> Result<(), Fatal> {
        while let Some(page) = self.entry(index).machine.page_between(first, last) {
            let machine = &mut self.entries[index.0 as usize].as_mut().expect("it is here").machine;
            self.paging.page_in_now(disk, index, machine, page)?;
            self.resize(index);
        }
        Ok(())
    }

    /// Settles messages, a page of them at a time.
    fn recover_settled<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        index: Index,
        first: Seq,
        last: Seq,
    ) -> Result<(), Fatal> {
        let mut gone = Vec::new();
        loop {
            self.entry(index).machine.recover_settled(first, last, &mut gone);
            for (locator, size) in gone.drain(..).filter(|(locator, _)| pieces_of(*locator).is_none()) {
                self.groups.release(locator, u64::from(size));
            }
            self.resize(index);
            let Some(page) = self.entry(index).machine.page_between(first, last) else { return Ok(()) };
            let machine = &mut self.entries[index.0 as usize].as_mut().expect("it is here").machine;
            self.paging.page_in_now(disk, index, machine, page)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_forgotten_by_ranges_that_overlap_in_any_order() {
        let id = |byte| QueueId([byte; 16]);
        let ranges =
            vec![(id(2), 5, 5), (id(1), 10, 12), (id(1), 1, 30), (id(1), 3, 4), (id(2), 0, 2), (id(3), 7, 9)];
        let has = |queue, seq| {
            ranges.iter().any(|(of, first, last)| *of == queue && (*first..=*last).contains(&seq))
        };
        let forgotten = Forgotten::of(ranges.clone());
        for byte in 0..5 {
            for seq in 0..35 {
                assert_eq!(forgotten.has((id(byte), Seq(seq))), has(id(byte), seq), "{byte}, {seq}");
            }
        }
    }
}
