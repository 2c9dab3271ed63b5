//! Where the messages of queues are: groups of the journal, and of the files that survivors go to.
//!
//! A [`Locator`] names a group and a record's position in it. A group is known as long as a message in it is wanted; the
//! journal needs the file of each group of its own that is known here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::hash::Table;
use crate::buffer::Slice;
use crate::format::journal::record_at;
use crate::format::message::split;
use crate::io::FileId;
use crate::journal::Submitted;
use crate::limits::{GROUP_BYTES_MAX, QUEUE_GROUPS_CACHED_BYTES};
use crate::queue::Locator;
use crate::types::Lsn;

/// Positions are multiples of 8 in a group.
const POSITION_BITS: u32 = (GROUP_BYTES_MAX / 8).trailing_zeros();
/// What tells groups of survivors from the journal's.
const STORED: u64 = 1 << 45;
/// What tells, of those, groups of messages that are not kept over a restart: these are in memory, or in files of their own.
const PASSING: u64 = 1 << 44;
/// What tells messages in pieces: the rest of such a locator is the pieces' name.
const IN_PIECES: u64 = 1 << 63;

const _: () = assert!(GROUP_BYTES_MAX.is_power_of_two() && POSITION_BITS + 46 < 64);

/// Names a group. Those of the journal are in its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupKey(u64);

impl GroupKey {
    /// The group that a locator names.
    pub fn of(locator: Locator) -> GroupKey {
        GroupKey(locator.0 >> POSITION_BITS)
    }

    /// A record of this group.
    pub fn locator(self, position: usize) -> Locator {
        Locator((self.0 << POSITION_BITS) | (position as u64 / 8))
    }
}

/// The locator of a message in pieces of that name.
pub fn locator_of_pieces(name: u64) -> Locator {
    Locator(name | IN_PIECES)
}

/// The name of the pieces that a message is in, if it is.
pub fn pieces_of(locator: Locator) -> Option<u64> {
    (locator.0 & IN_PIECES != 0).then_some(locator.0 & !IN_PIECES)
}

/// Whether a message's bytes stay where this says for as long as it is wanted, or at least keep the name.
pub fn stays(locator: Locator) -> bool {
    pieces_of(locator).is_some() || GroupKey::of(locator).0 & STORED != 0
}

fn position_of(locator: Locator) -> usize {
    (locator.0 & ((1 << POSITION_BITS) - 1)) as usize * 8
}

/// Where a group is in its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site {
    /// The file.
    pub file: FileId,
    /// The position in it.
    pub at: u64,
    /// The group's length.
    pub len: usize,
    /// Its first record, which tells it from what else has been there.
    pub first_lsn: Lsn,
    /// The number of the file of survivors that it is in; 0 for the journal.
    pub store: u64,
}

struct Group {
    /// `None`: it is the open one, or in memory only.
    site: Option<Site>,
    last_lsn: Lsn,
    /// Messages in it that are wanted, counted once per queue.
    wanted: u32,
    wanted_bytes: u64,
    bytes: Option<Slice>,
    /// Whether the bytes were read back.
    cached: bool,
    /// It cannot be read any more.
    lost: bool,
}

impl Group {
    fn new() -> Group {
        Group {
            site: None,
            last_lsn: Lsn::ZERO,
            wanted: 0,
            wanted_bytes: 0,
            bytes: None,
            cached: false,
            lost: false,
        }
    }
}

/// What is to be done to get at a group's bytes.
pub enum Bytes<'a> {
    /// Nothing.
    Here(&'a Slice),
    /// Wait until it is submitted.
    Open,
    /// Read them.
    Cold(Site),
    /// There is nothing to be done: they cannot be read any more.
    Lost,
}

/// A message in pieces.
pub struct Large {
    /// Queues that want it, and whoever is putting it together.
    pub wanted: u32,
    /// Where each piece is, and its length.
    pub pieces: Vec<(Locator, u32)>,
    pub header_bytes: usize,
    pub priority: u8,
}

/// A message's bytes.
pub struct Read {
    pub priority: u8,
    pub header: Slice,
    pub body: Slice,
}

/// See the module.
#[derive(Default)]
pub struct Groups {
    known: Table<GroupKey, Group>,
    /// The names of those.
    order: BTreeSet<GroupKey>,
    next: u64,
    next_stored: u64,
    next_passing: u64,
    /// Nobody is forgotten yet, wanted or not.
    keeps_all: bool,
    open: Option<GroupKey>,
    /// Groups whose bytes were read back, in that order.
    cached: VecDeque<GroupKey>,
    cached_bytes: usize,
    cached_bytes_max: usize,
    /// What is wanted in each file of survivors: messages, and bytes.
    stores: BTreeMap<u64, (u64, u64)>,
    /// Messages in pieces, by name.
    large: BTreeMap<u64, Large>,
}

impl Groups {
    fn insert(&mut self, key: GroupKey, group: Group) {
        self.known.insert(key, group);
        self.order.insert(key);
    }

    /// Says that groups are read back into a pool of so many bytes: most of it is for others than who want them now.
    pub fn share(&mut self, read_bytes: usize) {
        self.cached_bytes_max = QUEUE_GROUPS_CACHED_BYTES.min(read_bytes / 4);
    }

    /// The locator of a record at this position of the open group, in which so many queues have a message.
    pub fn place(&mut self, position: usize, queues: u32, bytes: u64) -> Locator {
        let key = self.open.unwrap_or_else(|| {
            self.next += 1;
            let key = GroupKey(self.next);
            self.insert(key, Group::new());
            self.open = Some(key);
            key
        });
        let group = self.known.get_mut(&key).expect("the open group is known");
        group.wanted += queues;
        group.wanted_bytes += bytes * u64::from(queues);
        key.locator(position)
    }

    /// A new group that is in memory only.
    pub fn open_passing(&mut self) -> GroupKey {
        self.next_passing += 1;
        let key = GroupKey(self.next_passing | STORED | PASSING);
        self.insert(key, Group::new());
        key
    }

    /// The locator of a record at this position of such a group, in which so many queues have a message.
    pub fn place_passing(&mut self, key: GroupKey, position: usize, queues: u32, bytes: u64) -> Locator {
        let group = self.known.get_mut(&key).expect("a group that is added to is known");
        group.wanted += queues;
        group.wanted_bytes += bytes * u64::from(queues);
        key.locator(position)
    }

    /// The bytes of such a group, as many as there are by now.
    pub fn fill(&mut self, key: GroupKey, bytes: Slice) {
        if let Some(group) = self.known.get_mut(&key) {
            group.bytes = Some(bytes);
        }
    }

    /// The bytes of such a group, if it is still wanted and in memory only.
    pub fn resident(&self, key: GroupKey) -> Option<&Slice> {
        self.known.get(&key).filter(|group| group.site.is_none())?.bytes.as_ref()
    }

    /// Such a group has been written, and memory lets go of it.
    pub fn moved_out(&mut self, key: GroupKey, site: Site) {
        if let Some(group) = self.known.get_mut(&key) {
            group.site = Some(site);
            group.bytes = None;
            let wanted = self.stores.entry(site.store).or_default();
            *wanted = (wanted.0 + u64::from(group.wanted), wanted.1 + group.wanted_bytes);
        }
    }

    /// The open group is on its way to the disk. Gives its name, if there is anything of queues in it.
    pub fn submitted(&mut self, submitted: &Submitted) -> Option<GroupKey> {
        let key = self.open.take()?;
        let group = self.known.get_mut(&key).expect("the open group is known");
        group.site = Some(Site {
            file: submitted.file,
            at: submitted.at,
            len: submitted.bytes.len(),
            first_lsn: submitted.first_lsn,
            store: 0,
        });
        group.last_lsn = submitted.last_lsn;
        group.bytes = Some(submitted.bytes.clone());
        self.drop_unwanted(key).then_some(key)
    }

    /// Makes a group known that is in a file.
    pub fn add(&mut self, site: Site, last_lsn: Lsn) -> GroupKey {
        let counter = if site.store > 0 { &mut self.next_stored } else { &mut self.next };
        *counter += 1;
        let key = GroupKey(*counter | if site.store > 0 { STORED } else { 0 });
        self.insert(key, Group { site: Some(site), last_lsn, ..Group::new() });
        key
    }

    /// Makes a message in pieces known; each piece is wanted on its behalf.
    pub fn add_large(&mut self, name: u64, large: Large) {
        self.large.insert(name, large);
    }

    /// The names of all messages in pieces.
    pub fn large_names(&self) -> impl Iterator<Item = u64> {
        self.large.keys().copied()
    }

    /// A message in pieces.
    pub fn large(&self, name: u64) -> Option<&Large> {
        self.large.get(&name)
    }

    /// The same, to be changed.
    pub fn large_mut(&mut self, name: u64) -> Option<&mut Large> {
        self.large.get_mut(&name)
    }

    /// One more wants the message.
    pub fn want(&mut self, locator: Locator, bytes: u64) {
        if let Some(name) = pieces_of(locator) {
            self.large.get_mut(&name).expect("a message that is wanted is known").wanted += 1;
            return;
        }
        let group = self.known.get_mut(&GroupKey::of(locator)).expect("a group with a message is known");
        group.wanted += 1;
        group.wanted_bytes += bytes;
        if let Some(site) = group.site.filter(|site| site.store > 0) {
            let wanted = self.stores.entry(site.store).or_default();
            *wanted = (wanted.0 + 1, wanted.1 + bytes);
        }
    }

    /// One less wants the message.
    pub fn release(&mut self, locator: Locator, bytes: u64) {
        if let Some(name) = pieces_of(locator) {
            let large = self.large.get_mut(&name).expect("a message that is wanted is known");
            large.wanted -= 1;
            if large.wanted == 0 {
                let large = self.large.remove(&name).expect("it was just there");
                for (piece, len) in large.pieces {
                    self.release(piece, u64::from(len));
                }
            }
            return;
        }
        let key = GroupKey::of(locator);
        let group = self.known.get_mut(&key).expect("a group with a message is known");
        group.wanted -= 1;
        group.wanted_bytes -= bytes;
        if let Some(site) = group.site.filter(|site| site.store > 0) {
            let wanted = self.stores.get_mut(&site.store).expect("it was counted");
            *wanted = (wanted.0 - 1, wanted.1 - bytes);
            if wanted.0 == 0 {
                self.stores.remove(&site.store);
            }
        }
        self.drop_unwanted(key);
    }

    /// Forgets a group that nobody wants; says whether it is still known.
    pub fn drop_unwanted(&mut self, key: GroupKey) -> bool {
        let Some(group) = self.known.get(&key) else { return false };
        if self.keeps_all || group.wanted > 0 || group.site.is_none() && key.0 & PASSING == 0 {
            return true;
        }
        self.forget_bytes(key);
        self.known.remove(&key);
        self.order.remove(&key);
        false
    }

    /// Keeps every group until [`Groups::drop_all_unwanted`]: it is not known yet what is wanted.
    pub fn keep_all(&mut self) {
        self.keeps_all = true;
    }

    /// Forgets all groups that nobody wants.
    pub fn drop_all_unwanted(&mut self) {
        self.keeps_all = false;
        for key in self.order.iter().copied().collect::<Vec<_>>() {
            self.drop_unwanted(key);
        }
    }

    /// Whether anybody wants something in this file of survivors.
    pub fn is_store_wanted(&self, store: u64) -> bool {
        self.stores.contains_key(&store)
    }

    /// Whether somebody wants something in this file of survivors, but so little that it had better be elsewhere.
    pub fn is_store_sparse(&self, store: u64, bytes_max: u64) -> bool {
        self.stores.get(&store).is_some_and(|(_, bytes)| *bytes <= bytes_max)
    }

    /// The groups of a file of survivors.
    pub fn groups_of_store(&self, store: u64) -> impl Iterator<Item = GroupKey> {
        let all = self.order.range(GroupKey(STORED)..).copied();
        all.filter(move |key| self.known[key].site.is_some_and(|site| site.store == store))
    }

    /// A group's bytes.
    pub fn bytes(&self, key: GroupKey) -> Option<Bytes<'_>> {
        let group = self.known.get(&key)?;
        Some(match (&group.bytes, group.site) {
            (Some(bytes), _) => Bytes::Here(bytes),
            (None, _) if group.lost => Bytes::Lost,
            (None, Some(site)) => Bytes::Cold(site),
            (None, None) => Bytes::Open,
        })
    }

    /// A group's bytes were read back. The oldest that were go.
    pub fn read_back(&mut self, key: GroupKey, bytes: Slice) {
        let Some(group) = self.known.get_mut(&key).filter(|group| group.bytes.is_none()) else { return };
        self.cached_bytes += bytes.pinned();
        group.bytes = Some(bytes);
        group.cached = true;
        self.cached.push_back(key);
        while self.cached_bytes > self.cached_bytes_max && self.cached.len() > 1 {
            let Some(oldest) = self.cached.pop_front() else { return };
            self.forget_bytes(oldest);
        }
    }

    /// A group cannot be read any more.
    pub fn lose(&mut self, key: GroupKey) {
        if let Some(group) = self.known.get_mut(&key) {
            group.lost = true;
        }
    }

    /// The names of messages in pieces of which a piece is in this group.
    pub fn large_in(&self, key: GroupKey) -> BTreeSet<u64> {
        let has = |large: &Large| large.pieces.iter().any(|(piece, _)| GroupKey::of(*piece) == key);
        self.large.iter().filter(|(_, large)| has(large)).map(|(name, _)| *name).collect()
    }

    /// Lets go of a group's bytes in memory: its file has them.
    pub fn forget_bytes(&mut self, key: GroupKey) {
        let Some(group) = self.known.get_mut(&key) else { return };
        let bytes = group.bytes.take();
        if std::mem::take(&mut group.cached) {
            self.cached_bytes -= bytes.map_or(0, |bytes| bytes.pinned());
            self.cached.retain(|cached| *cached != key);
        }
    }

    /// The first record of the journal that a message which is wanted is in, or may be behind.
    pub fn needed(&self) -> Option<Lsn> {
        let first = self.order.range(..GroupKey(STORED)).next()?;
        self.known[first].site.map(|site| site.first_lsn)
    }

    /// The journal's groups up to this record, and the bytes that are wanted of each.
    pub fn up_to(&self, lsn: Lsn) -> impl Iterator<Item = (GroupKey, u64)> {
        let journal = self.order.range(..GroupKey(STORED)).map(|key| (key, &self.known[key]));
        journal
            .filter(move |(_, group)| group.site.is_some_and(|site| site.first_lsn <= lsn))
            .map(|(key, group)| (*key, group.wanted_bytes))
    }

    /// A piece in a group whose bytes are here.
    pub fn read_piece(bytes: &Slice, locator: Locator) -> Option<Slice> {
        let (_, payload) = record_at(bytes, position_of(locator))?;
        Some(bytes.slice(payload))
    }

    /// A message in a group whose bytes are here.
    pub fn read(bytes: &Slice, locator: Locator) -> Option<Read> {
        let (record, payload) = record_at(bytes, position_of(locator))?;
        let (header, body) = split(&record, payload.len())?;
        let start = payload.start;
        Some(Read {
            priority: record.partition.index as u8,
            header: bytes.slice(start + header..start + body),
            body: bytes.slice(start + body..payload.end),
        })
    }
}
