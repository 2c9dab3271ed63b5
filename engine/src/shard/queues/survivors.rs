//! Messages that are wanted longer than their place in the journal: moved before its files are recycled, together with whatever
//! else is moved then ([`crate::journal::Survivors`]).
//!
//! When they are few, they are put into the journal anew. When they are many, they go to files of the shard's own: groups like
//! those of the journal, one behind the other, which hold messages only. A message that several queues want stays one record.
//! A file goes when nobody wants anything in it any more, and a checkpoint says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::groups::{Bytes, GroupKey, Site};
use super::{Index, Queues};
use crate::buffer::{Block, Pool, Slice};
use crate::error::IoError;
use crate::format::checkpoint::{QueueState, QueuesState, StoreState};
use crate::format::journal::{
    GROUP_HEADER_BYTES, GroupPlace, RECORD_HEADER_BYTES, RecordHeader, RecordKind, encode_record,
    record_bytes, records, seal,
};
use crate::format::message::{MessageRecord, without_source};
use crate::io::{DiskDone, FileId, Io, OpenMode, Token};
use crate::journal::{self, Claim, Journal};
use crate::limits::{
    BLOCK_BYTES, CARRIED_JOURNAL_SHARE, CARRIED_MESSAGE_BYTES_MAX, GROUP_BYTES_MAX, MESSAGE_FILE_BYTES,
    SEGMENT_WRITE_BYTES,
};
use crate::queue::Locator;
use crate::shard::tokens;
use crate::types::{FileEpoch, Lsn, QueueId, Seq};

/// Rounds for which a file that hardly anything is wanted of is left alone after it was tried to give it up.
const SPARED_ROUNDS: u64 = 32;

/// A file of survivors.
pub struct Store {
    pub file: FileId,
    /// Bytes that are flushed.
    pub bytes: u64,
}

/// A message that has been written elsewhere: where it was, where it is, its size, and its places in queues; or a record of a
/// message in pieces, and the name of those.
struct Moved {
    from: Locator,
    position: usize,
    size: u32,
    places: Vec<(QueueId, Seq)>,
    pieces: Option<u64>,
}

/// What a round is at.
enum Step {
    /// Looking at the next group.
    Next,
    Opening(u64),
    Writing,
    Flushing,
    /// The directory, which has a new name in it.
    Naming,
}

/// A round that moves messages to a file.
struct Moving {
    groups: VecDeque<GroupKey>,
    step: Step,
    store: Option<u64>,
    /// The group being built, and what is in it.
    open: Option<Block>,
    built: Vec<Moved>,
    /// Groups that are written and not flushed.
    written: Vec<(Site, Vec<Moved>)>,
    /// Bytes written to the file.
    bytes: u64,
    failed: Option<IoError>,
}

/// See the module.
pub struct Survivors {
    directory: String,
    staging: Pool,
    /// Bytes that are carried at most.
    carry_bytes_max: u64,
    stores: BTreeMap<u64, Store>,
    /// The file that is written to, if it has room.
    current: Option<u64>,
    next: u64,
    /// Numbers of groups, counted over all files.
    next_lsn: u64,
    moving: Option<Moving>,
    /// Rounds so far, and files that are not to be given up before one of them.
    round: u64,
    spared: BTreeMap<u64, u64>,
    /// Nothing is to be left in the journal.
    pub leaves: bool,
    /// Groups whose messages are to be put into the journal anew.
    carrying: VecDeque<GroupKey>,
    /// What the last checkpoint tells of, or the one being written.
    told: BTreeSet<u64>,
    /// Files that can be removed.
    dead: Vec<String>,
    is_named: bool,
}

/// The name of a file of survivors, within its directory.
pub fn file_name(number: u64) -> String {
    format!("{number:020}.messages")
}

/// The number in such a name.
pub fn file_number(name: &str) -> Option<u64> {
    name.strip_suffix(".messages")?.parse().ok()
}

impl Survivors {
    pub fn new(directory: String, staging: Pool, journal_bytes: u64) -> Survivors {
        Survivors {
            directory,
            staging,
            carry_bytes_max: CARRIED_MESSAGE_BYTES_MAX.min(journal_bytes / CARRIED_JOURNAL_SHARE),
            stores: BTreeMap::new(),
            current: None,
            next: 1,
            next_lsn: 1,
            moving: None,
            round: 0,
            spared: BTreeMap::new(),
            leaves: false,
            carrying: VecDeque::new(),
            told: BTreeSet::new(),
            dead: Vec::new(),
            is_named: false,
        }
    }

    /// What recovery found. Nothing more is written to these files.
    pub fn recovered(&mut self, stores: BTreeMap<u64, Store>, next: u64, next_lsn: u64) {
        self.told = stores.keys().copied().collect();
        self.stores = stores;
        self.next = next;
        self.next_lsn = next_lsn;
    }

    /// Files that nobody needs.
    pub fn take_dead(&mut self) -> Vec<String> {
        std::mem::take(&mut self.dead)
    }

    /// Where the files are.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = FileId> {
        self.stores.values().map(|store| store.file)
    }

    fn path(&self, number: u64) -> String {
        format!("{}/{}", self.directory, file_name(number))
    }
}

fn token() -> Token {
    Token::new(tokens::QUEUE_STORE, 0)
}

impl Queues {
    /// Files of survivors that nobody needs any more.
    pub fn take_dead(&mut self) -> Vec<String> {
        self.survivors.take_dead()
    }

    /// An operation on a file of survivors is over.
    pub fn on_stored<I: Io>(&mut self, io: &mut I, done: Result<DiskDone, IoError>) {
        let moving = self.survivors.moving.as_mut().expect("somebody waits for this");
        match (done, std::mem::replace(&mut moving.step, Step::Next)) {
            (Ok(DiskDone::Opened(file, _)), Step::Opening(number)) => {
                self.survivors.stores.insert(number, Store { file, bytes: 0 });
                self.survivors.current = Some(number);
                moving.store = Some(number);
            }
            (Ok(_), Step::Writing) => {}
            (Ok(_), Step::Flushing) => {
                if self.survivors.is_named {
                    self.relocate();
                } else {
                    moving.step = Step::Naming;
                    io.sync_dir(token(), &self.survivors.directory);
                }
            }
            (Ok(_), Step::Naming) => {
                self.survivors.is_named = true;
                self.relocate();
            }
            (Ok(other), _) => panic!("a step of moving messages ended as {other:?}"),
            // Nobody knows what the file holds now. What was told of it before stays; nothing more goes there.
            (Err(error), _) => {
                moving.failed = Some(error);
                self.survivors.current = None;
            }
        }
    }

    /// Builds and writes groups of survivors; `true` when all is done.
    fn store<I: Io>(&mut self, io: &mut I, journal: &Journal) -> Result<bool, IoError> {
        while let Some(moving) = &mut self.survivors.moving {
            if !matches!(moving.step, Step::Next) {
                return Ok(false);
            }
            if let Some(error) = moving.failed {
                return Err(error);
            }
            let Some(&key) = moving.groups.front() else {
                if moving.built.is_empty() && moving.written.is_empty() {
                    self.survivors.moving = None;
                    return Ok(true);
                }
                if moving.built.is_empty() {
                    let store = self.survivors.stores.get(&moving.store.expect("something was written"));
                    moving.step = Step::Flushing;
                    io.flush(token(), store.expect("it is open").file);
                } else {
                    self.write_group(io, journal);
                }
                continue;
            };
            let bytes = match self.groups.bytes(key) {
                None | Some(Bytes::Lost) => {
                    moving.groups.pop_front();
                    continue;
                }
                Some(Bytes::Open) => return Ok(false),
                Some(Bytes::Cold(site)) => {
                    self.reading.want(key, site);
                    return Ok(false);
                }
                Some(Bytes::Here(bytes)) => bytes.clone(),
            };
            if !self.build(io, journal, key, &bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds what is wanted of a group to the one being built; `false` if that has to wait.
    fn build<I: Io>(&mut self, io: &mut I, journal: &Journal, key: GroupKey, bytes: &Slice) -> bool {
        let wanted = self.wanted(key, bytes);
        let needed: usize = wanted.iter().map(|(record, ..)| record_bytes(record.len)).sum();
        let moving = self.survivors.moving.as_mut().expect("the caller saw it");
        let filled = moving.open.as_ref().map_or(GROUP_HEADER_BYTES, Block::len);
        if !moving.built.is_empty() && (filled + needed > GROUP_BYTES_MAX || filled >= SEGMENT_WRITE_BYTES) {
            self.write_group(io, journal);
            return false;
        }
        if moving.open.is_none() {
            let Some(mut block) = self.survivors.staging.block(GROUP_BYTES_MAX) else { return false };
            block.push_zeros(GROUP_HEADER_BYTES);
            moving.open = Some(block);
        }
        let open = moving.open.as_mut().expect("just made");
        for (record, payload, moved) in wanted {
            let position = open.len();
            open.push(&encode_record(&record));
            open.push(&bytes[payload]);
            open.push_zeros(position + record_bytes(record.len) - open.len());
            moving.built.push(Moved { position, ..moved });
        }
        moving.groups.pop_front();
        true
    }

    /// The records of a group that some queue wants, and wants from there.
    fn wanted(&mut self, key: GroupKey, bytes: &Slice) -> Vec<(RecordHeader, Range<usize>, Moved)> {
        let mut wanted = Vec::new();
        for (record, payload) in records(bytes) {
            let from = key.locator(payload.start - RECORD_HEADER_BYTES);
            let message = match record.kind {
                RecordKind::Message => MessageRecord::decode(&record, &bytes[payload.clone()]),
                RecordKind::Piece => None,
                _ => continue,
            };
            let name = match &message {
                Some(message) => message.pieces.map(|pieces| pieces.name),
                None => Some(record.aux),
            };
            if let Some(large) = name.and_then(|name| self.groups.large(name))
                && let Some((_, size)) = large.pieces.iter().find(|(piece, _)| *piece == from)
            {
                let moved = Moved { from, position: 0, size: *size, places: Vec::new(), pieces: name };
                let (record, payload) = without_source(&record, payload.clone());
                wanted.push((record, payload, moved));
            }
            let Some(message) = message.filter(|message| message.pieces.is_none()) else { continue };
            let mut places = Vec::new();
            let mut size = 0;
            for target in &message.targets {
                if let Some(index) = self.find(target.queue)
                    && let Some(stored) = self.stored(index, target.seq)
                    && stored.locator == from
                {
                    size = stored.size;
                    places.push((target.queue, target.seq));
                }
            }
            if !places.is_empty() {
                // Whether it may come in once more is in the checkpoint.
                let (record, payload) = without_source(&record, payload);
                wanted.push((record, payload, Moved { from, position: 0, size, places, pieces: None }));
            }
        }
        wanted
    }

    fn write_group<I: Io>(&mut self, io: &mut I, journal: &Journal) {
        let survivors = &mut self.survivors;
        let moving = survivors.moving.as_mut().expect("the caller saw it");
        let Some(number) = moving.store.or(survivors.current) else {
            let number = survivors.next;
            survivors.next += 1;
            survivors.is_named = false;
            moving.step = Step::Opening(number);
            let path = survivors.path(number);
            return io.open(token(), &path, OpenMode::Direct);
        };
        let store = survivors.stores.get(&number).expect("a file that is written to is open");
        if moving.store.is_none() {
            moving.store = Some(number);
            moving.bytes = store.bytes;
        }
        let mut block = moving.open.take().expect("there is something to write");
        let used = block.len();
        let mut len = used.next_multiple_of(BLOCK_BYTES);
        block.push_zeros(len - used);
        let place = GroupPlace {
            previous_crc: 0,
            file_epoch: FileEpoch(number),
            first_lsn: Lsn(survivors.next_lsn),
            durable_lsn: Lsn::ZERO,
            key: journal.key(),
        };
        let built = std::mem::take(&mut moving.built);
        seal(block.filled_mut(), used, built.len() as u32, &place);
        let bytes = block.freeze();
        len = bytes.len();
        let site =
            Site { file: store.file, at: moving.bytes, len, first_lsn: place.first_lsn, store: number };
        survivors.next_lsn += built.len() as u64;
        moving.bytes += len as u64;
        moving.written.push((site, built));
        moving.step = Step::Writing;
        io.write(token(), site.file, site.at, bytes);
    }

    /// What was written is durable: from now on the messages are there.
    fn relocate(&mut self) {
        let moving = self.survivors.moving.as_mut().expect("the caller saw it");
        let written = std::mem::take(&mut moving.written);
        let number = moving.store.take().expect("it was written to");
        let store = self.survivors.stores.get_mut(&number).expect("it is open");
        store.bytes = moving.bytes;
        if store.bytes >= MESSAGE_FILE_BYTES {
            self.survivors.current = None;
        }
        for (site, built) in written {
            let key = self.groups.add(site, site.first_lsn);
            for moved in built {
                self.move_places(&moved, key.locator(moved.position));
            }
            self.groups.drop_unwanted(key);
        }
    }

    /// A message is somewhere else from now on, for those of its queues that still want it from where it was.
    fn move_places(&mut self, moved: &Moved, to: Locator) {
        if let Some(name) = moved.pieces {
            let Some(large) = self.groups.large_mut(name) else { return };
            if let Some((piece, _)) = large.pieces.iter_mut().find(|(piece, _)| *piece == moved.from) {
                *piece = to;
                self.groups.want(to, u64::from(moved.size));
                self.groups.release(moved.from, u64::from(moved.size));
            }
            return;
        }
        for (queue, seq) in &moved.places {
            let Some(index) = self.find(*queue) else { continue };
            let here = self.stored(index, *seq).is_some_and(|stored| stored.locator == moved.from);
            if here && self.entry(index).machine.relocate(*seq, to) {
                self.groups.want(to, u64::from(moved.size));
                self.groups.release(moved.from, u64::from(moved.size));
            }
        }
    }

    /// Puts the messages of a group that are wanted into the journal anew; `false` if there is no room, and then some may
    /// be there.
    fn carry_group(&mut self, journal: &mut Journal, key: GroupKey, bytes: &Slice) -> bool {
        for (record, payload, moved) in self.wanted(key, bytes) {
            if !journal.fits(record.len, Claim::Internal) {
                return false;
            }
            let position = journal.next_position();
            journal.append(&record, &bytes[payload]);
            let to = self.groups.place(position, 0, 0);
            self.move_places(&moved, to);
        }
        true
    }

    /// Carries what is to be carried, as far as it can be had and there is room; `true` when nothing is left.
    fn carry(&mut self, journal: &mut Journal) -> bool {
        while let Some(&key) = self.survivors.carrying.front() {
            let bytes = match self.groups.bytes(key) {
                None | Some(Bytes::Lost) => None,
                Some(Bytes::Here(bytes)) => Some(bytes.clone()),
                Some(Bytes::Open) => return false,
                Some(Bytes::Cold(site)) => {
                    self.reading.want(key, site);
                    return false;
                }
            };
            if let Some(bytes) = bytes
                && !self.carry_group(journal, key, &bytes)
            {
                // Another group gives more room. If none is under way, there is no file for it.
                if !journal.is_in_flight() && journal.is_open_empty() {
                    self.survivors.carrying.clear();
                }
                return self.survivors.carrying.is_empty();
            }
            self.survivors.carrying.pop_front();
        }
        true
    }

    fn state_of(&mut self, index: Index) -> Option<QueueState> {
        let entry = self.entry(index);
        if !entry.is_durable() {
            return None;
        }
        let mut state = QueueState { id: entry.id, ..QueueState::default() };
        state.next = entry.machine.next_seqs().to_vec();
        // A mark that is on its way to the disk is in a record that the checkpoint covers.
        state.marks = entry.marks.iter().map(|mark| Seq(mark.asked)).collect();
        state.live = entry.machine.persistent().map(|(seq, mask)| (seq.0 / 64, mask)).collect();
        for (seq, failures, leaving) in entry.machine.troubled() {
            if failures > 0 {
                state.failed.push((seq.0, u64::from(failures)));
            }
            if let Some(reason) = leaving {
                state.leaving.push((seq.0, super::pending::reason_code(reason)));
            }
        }
        Some(state)
    }
}

impl<I: Io> journal::Survivors<I> for Queues {
    fn start(&mut self, upto: Lsn) {
        let wanted: Vec<_> = self.groups.up_to(upto).collect();
        let bytes: u64 = wanted.iter().map(|(_, bytes)| bytes).sum();
        let keys: VecDeque<GroupKey> = wanted.into_iter().map(|(key, _)| key).collect();
        // A file in which hardly anything is wanted goes, too.
        let sparse_bytes = self.survivors.carry_bytes_max / 4;
        let survivors = &mut self.survivors;
        survivors.round += 1;
        let round = survivors.round;
        survivors.spared.retain(|_, until| *until > round);
        let stores = survivors.stores.keys().filter(|number| survivors.current != Some(**number));
        let sparse: Vec<u64> = stores
            .filter(|number| !survivors.leaves && !survivors.spared.contains_key(number))
            .filter(|number| self.groups.is_store_sparse(**number, sparse_bytes))
            .copied()
            .collect();
        // What is paged out stays there, and keeps the file: it is not to be read in every round.
        survivors.spared.extend(sparse.iter().map(|number| (*number, round + SPARED_ROUNDS)));
        self.survivors.carrying.extend(sparse.iter().flat_map(|number| self.groups.groups_of_store(*number)));
        if bytes <= self.survivors.carry_bytes_max && !self.survivors.leaves {
            self.survivors.carrying.extend(keys);
            return;
        }
        self.survivors.moving = Some(Moving {
            groups: keys,
            step: Step::Next,
            store: None,
            open: None,
            built: Vec::new(),
            written: Vec::new(),
            bytes: 0,
            failed: None,
        });
    }

    fn advance(&mut self, io: &mut I, journal: &mut Journal) -> Result<bool, IoError> {
        if journal.is_poisoned() {
            return Err(IoError::Cancelled);
        }
        Ok(self.carry(journal) && self.store(io, journal)?)
    }

    fn give_up(&mut self, _: &mut I) {
        self.survivors.carrying.clear();
        if self.survivors.moving.as_ref().is_some_and(|moving| matches!(moving.step, Step::Next)) {
            self.survivors.moving = None;
        }
    }

    fn needed(&self) -> Option<Lsn> {
        self.groups.needed()
    }

    fn state(&mut self) -> QueuesState {
        let stores = self.survivors.stores.iter();
        let stores: Vec<_> = stores
            .filter(|(number, _)| self.groups.is_store_wanted(**number))
            .map(|(number, store)| StoreState { number: *number, bytes: store.bytes })
            .collect();
        self.survivors.told = stores.iter().map(|store| store.number).collect();
        let queues = self.all().into_iter().filter_map(|(_, index)| self.state_of(index)).collect();
        let (arrived, moved) = self.names.state();
        QueuesState { stores, arrived, moved, queues }
    }

    fn kept(&mut self, io: &mut I) {
        let survivors = &mut self.survivors;
        let busy = !self.reading.is_idle();
        let gone = |number: &u64| {
            !survivors.told.contains(number)
                && !self.groups.is_store_wanted(*number)
                && survivors.current != Some(*number)
        };
        if busy {
            return; // One of them may be being read.
        }
        let gone: Vec<u64> = survivors.stores.keys().copied().filter(gone).collect();
        for number in gone {
            if let Some(store) = survivors.stores.remove(&number) {
                io.close(store.file);
                survivors.dead.push(survivors.path(number));
            }
        }
    }
}
