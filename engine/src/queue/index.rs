//! The messages of a queue that are not settled: found by number, and by state in the order of their numbers.
//!
//! A message's number has its rank in the highest byte, 0 for the highest priority, and counts within the rank below it. So
//! the order of the numbers is the order of delivery, and the next message is the lowest ready one, whatever has come back.
//! The numbers of a rank are given one after the other; so chunks are dense, and a chunk is full before the next begins.
//!
//! Chunks lie in a slab. A directory finds them by number; per state there is a list of those that have messages in it. A
//! list may name chunks that have none any more, which are struck off when somebody looks. Both are asked once per chunk as
//! long as numbers are used in order: what was found last is tried first.

use std::collections::{BTreeMap, BTreeSet};

use super::chunk::{Chunk, ChunkNo, Entry, NEVER, Places, STATES, State, mask_of, place_of};
use super::paging::Pages;
use crate::time::WallMs;
use crate::types::Seq;

/// The bits of a number that count within the rank.
const COUNT_BITS: u32 = 56;

/// A chunk's place in the slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot(u32);

/// Unused slots are not worth the work of giving their memory back while there are no more.
const SLAB_SLOTS_KEPT: usize = 256;

/// A slot that no chunk has.
const NO_SLOT: Slot = Slot(u32::MAX);

/// A message: the chunk's slot, and the place in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    pub slot: Slot,
    pub place: u32,
}

impl Spot {
    /// Its bit in the masks.
    pub fn bit(self) -> u64 {
        1 << self.place
    }
}

/// What a message comes with.
pub(super) struct Arrival {
    pub entry: Entry,
    pub persistent: bool,
    pub delivered: bool,
    pub expires_at: WallMs,
}

/// Messages and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Amount {
    pub messages: u64,
    pub bytes: u64,
}

/// See the module.
pub(super) struct Index {
    slab: Vec<Option<Box<Chunk>>>,
    vacant: Vec<u32>,
    spare: Option<Box<Chunk>>,
    pub(super) directory: BTreeMap<ChunkNo, Slot>,
    pub(super) lists: [BTreeSet<ChunkNo>; STATES],
    pub(super) deadlines: BTreeSet<(WallMs, ChunkNo)>,
    pub(super) pages: Pages,
    /// Per rank, the number that comes next.
    next: Vec<Seq>,
    /// What was found last: by number, by state, at a rank's end.
    found: Slot,
    first: [Slot; STATES],
    amounts: [Amount; STATES],
    persistent: u64,
    /// Bytes of all chunks that are here.
    bytes: usize,
}

/// The rank of a message.
pub fn rank_of(seq: Seq) -> u8 {
    (seq.0 >> COUNT_BITS) as u8
}

impl Index {
    /// An empty one.
    pub fn new() -> Index {
        Index {
            slab: Vec::new(),
            vacant: Vec::new(),
            spare: None,
            directory: BTreeMap::new(),
            lists: Default::default(),
            deadlines: BTreeSet::new(),
            pages: Pages::default(),
            next: Vec::new(),
            found: NO_SLOT,
            first: [NO_SLOT; STATES],
            amounts: [Amount::default(); STATES],
            persistent: 0,
            bytes: 0,
        }
    }

    /// Bytes that the chunks take which are not paged out.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number that the next message of a rank gets.
    pub fn next(&self, rank: u8) -> Seq {
        self.next.get(usize::from(rank)).copied().unwrap_or(Seq(u64::from(rank) << COUNT_BITS))
    }

    fn next_mut(&mut self, rank: u8) -> &mut Seq {
        let known = self.next.len();
        if known <= usize::from(rank) {
            self.next.extend((known as u64..=u64::from(rank)).map(|rank| Seq(rank << COUNT_BITS)));
        }
        &mut self.next[usize::from(rank)]
    }

    /// The numbers that come next, of each rank that has been used.
    pub fn nexts(&self) -> &[Seq] {
        &self.next
    }

    /// Messages in a state, and their bytes.
    pub fn amount(&self, state: State) -> Amount {
        self.amounts[state as usize]
    }

    /// Messages of any state that durable queues keep over a restart.
    pub fn persistent(&self) -> u64 {
        self.persistent
    }

    /// The chunk in a slot.
    pub fn chunk(&self, slot: Slot) -> &Chunk {
        self.slab[slot.0 as usize].as_deref().expect("a slot that was given out holds a chunk")
    }

    /// The same, to be changed, but for its masks.
    pub fn chunk_mut(&mut self, slot: Slot) -> &mut Chunk {
        self.slab[slot.0 as usize].as_deref_mut().expect("a slot that was given out holds a chunk")
    }

    fn holds(&self, slot: Slot, no: ChunkNo) -> bool {
        matches!(self.slab.get(slot.0 as usize), Some(Some(chunk)) if chunk.no == no)
    }

    /// The slot of a chunk, if it is there.
    pub fn find(&mut self, no: ChunkNo) -> Option<Slot> {
        if !self.holds(self.found, no) {
            self.found = *self.directory.get(&no)?;
        }
        Some(self.found)
    }

    /// Where a message is, if it is in this state.
    pub fn locate(&mut self, seq: Seq, state: State) -> Option<Spot> {
        let spot = Spot { slot: self.find(ChunkNo::of(seq))?, place: place_of(seq) };
        (self.chunk(spot.slot).mask(state) & spot.bit() != 0).then_some(spot)
    }

    /// Where a message is, if it is not settled.
    pub fn locate_live(&mut self, seq: Seq) -> Option<Spot> {
        let spot = Spot { slot: self.find(ChunkNo::of(seq))?, place: place_of(seq) };
        (self.chunk(spot.slot).live() & spot.bit() != 0).then_some(spot)
    }

    /// The chunks from this one on.
    pub fn chunks_from(&self, from: ChunkNo) -> impl Iterator<Item = &Chunk> {
        self.directory.range(from..).map(|(_, slot)| self.chunk(*slot))
    }

    /// The first chunk from this one on that has messages in a state. If it is paged out, none, and it will be asked for.
    pub fn chunk_from(&mut self, state: State, from: ChunkNo) -> Option<Slot> {
        loop {
            let no = *self.lists[state as usize].range(from..).next()?;
            let slot = match self.first[state as usize] {
                slot if self.holds(slot, no) => slot,
                _ => match self.directory.get(&no) {
                    Some(slot) => *slot,
                    None => {
                        self.pages.want(no);
                        return None;
                    }
                },
            };
            self.first[state as usize] = slot;
            let chunk = self.chunk_mut(slot);
            if chunk.mask(state) != 0 {
                return Some(slot);
            }
            chunk.listed &= !(1 << state as u8);
            self.lists[state as usize].remove(&no);
        }
    }

    /// The first message in a state.
    pub fn first(&mut self, state: State) -> Option<Spot> {
        if self.amount(state).messages == 0 {
            return None;
        }
        let slot = self.chunk_from(state, ChunkNo(0))?;
        Some(Spot { slot, place: self.chunk(slot).mask(state).trailing_zeros() })
    }

    /// Adds a message at the end of a rank.
    pub fn push(&mut self, rank: u8, state: State, arrival: Arrival) -> Seq {
        let next = self.next_mut(rank);
        let seq = *next;
        *next = seq.next();
        assert!(rank_of(seq.next()) == rank, "a rank has more numbers than a broker has time");
        self.place(seq, state, arrival);
        seq
    }

    /// Says that numbers of this one's rank below it are used up.
    pub fn skip_to(&mut self, seq: Seq) {
        let next = self.next_mut(rank_of(seq));
        let before = std::mem::replace(next, seq.max(*next));
        if let Some(&slot) = self.directory.get(&ChunkNo::of(before)) {
            self.drop_if_done(slot);
        }
    }

    /// Puts a message at its place, be that behind others or between them; its chunk is not paged out.
    pub fn place(&mut self, seq: Seq, state: State, arrival: Arrival) {
        let no = ChunkNo::of(seq);
        let slot = self.find(no).unwrap_or_else(|| self.open(no));
        let spot = Spot { slot, place: place_of(seq) };
        let size = u64::from(arrival.entry.size);
        let chunk = self.slab[slot.0 as usize].as_deref_mut().expect("the slot was given out");
        *chunk.entry_mut(spot.place) = arrival.entry;
        let before = chunk.bytes();
        chunk.set_expiry(spot.place, arrival.expires_at);
        self.bytes += chunk.bytes() - before;
        chunk.persistent |= u64::from(arrival.persistent) << spot.place;
        chunk.delivered |= u64::from(arrival.delivered) << spot.place;
        self.persistent += u64::from(arrival.persistent);
        self.enter(slot, spot.bit(), size, state);
        if state == State::Ready {
            self.lower_deadline(slot, arrival.expires_at);
        }
    }

    fn open(&mut self, no: ChunkNo) -> Slot {
        let chunk = match self.spare.take() {
            Some(mut chunk) => {
                chunk.renew(no);
                chunk
            }
            None => Chunk::new(no),
        };
        self.found = self.insert(chunk);
        self.found
    }

    fn insert(&mut self, chunk: Box<Chunk>) -> Slot {
        let slot = match self.vacant.pop() {
            Some(slot) => Slot(slot),
            None => {
                self.slab.push(None);
                Slot((self.slab.len() - 1) as u32)
            }
        };
        self.directory.insert(chunk.no, slot);
        self.bytes += chunk.bytes();
        self.slab[slot.0 as usize] = Some(chunk);
        slot
    }

    /// Moves messages of a chunk from one state to another.
    pub fn shift(&mut self, slot: Slot, bits: u64, from: State, to: State) {
        let size = self.leave(slot, bits, from);
        self.enter(slot, bits, size, to);
    }

    /// Moves all messages of a state to another.
    pub fn shift_all(&mut self, from: State, to: State) {
        for no in std::mem::take(&mut self.lists[from as usize]) {
            let Some(slot) = self.find(no) else {
                self.pages.shift(no, to);
                self.lists[to as usize].insert(no);
                continue;
            };
            let chunk = self.chunk_mut(slot);
            chunk.listed &= !(1 << from as u8);
            let bits = std::mem::take(&mut chunk.masks[from as usize]);
            chunk.masks[to as usize] |= bits;
            self.list(slot, to);
        }
        let moved = std::mem::take(&mut self.amounts[from as usize]);
        let amount = &mut self.amounts[to as usize];
        amount.messages += moved.messages;
        amount.bytes += moved.bytes;
    }

    /// Puts a message back among those that are ready.
    pub fn make_ready(&mut self, spot: Spot, from: State) {
        self.shift(spot.slot, spot.bit(), from, State::Ready);
        self.lower_deadline(spot.slot, self.chunk(spot.slot).expiry(spot.place));
    }

    /// Settles messages of a chunk. Its slot is void afterwards.
    pub fn settle(&mut self, slot: Slot, bits: u64, from: State) {
        self.leave(slot, bits, from);
        let kept = self.chunk(slot).persistent & bits;
        self.persistent -= u64::from(kept.count_ones());
        self.drop_if_done(slot);
    }

    fn leave(&mut self, slot: Slot, bits: u64, from: State) -> u64 {
        let chunk = self.slab[slot.0 as usize].as_deref_mut().expect("the slot was given out");
        let mask = &mut chunk.masks[from as usize];
        assert!(*mask & bits == bits, "a message leaves the state that it is in");
        *mask &= !bits;
        let size = Places(bits).map(|place| u64::from(chunk.entry(place).size)).sum();
        let amount = &mut self.amounts[from as usize];
        amount.messages -= u64::from(bits.count_ones());
        amount.bytes -= size;
        size
    }

    fn enter(&mut self, slot: Slot, bits: u64, size: u64, to: State) {
        let chunk = self.slab[slot.0 as usize].as_deref_mut().expect("the slot was given out");
        chunk.masks[to as usize] |= bits;
        self.list(slot, to);
        let amount = &mut self.amounts[to as usize];
        amount.messages += u64::from(bits.count_ones());
        amount.bytes += size;
    }

    fn list(&mut self, slot: Slot, state: State) {
        let chunk = self.slab[slot.0 as usize].as_deref_mut().expect("the slot was given out");
        if chunk.listed & 1 << state as u8 == 0 {
            chunk.listed |= 1 << state as u8;
            self.lists[state as usize].insert(chunk.no);
        }
    }

    /// Whether no more messages will come into a chunk.
    pub fn is_closed(&self, no: ChunkNo) -> bool {
        ChunkNo::of(self.next(rank_of(no.seq(0)))) != no
    }

    /// Lets go of a chunk whose messages are all settled, unless more will come into it.
    fn drop_if_done(&mut self, slot: Slot) {
        let chunk = self.chunk(slot);
        if chunk.live() == 0 && self.is_closed(chunk.no) {
            self.spare = Some(self.take_out(slot));
            if self.slab.len() > SLAB_SLOTS_KEPT && self.slab.len() > 4 * self.directory.len() {
                self.compact();
            }
        }
    }

    /// Takes a chunk out of the slab, the directory and all lists.
    pub fn take_out(&mut self, slot: Slot) -> Box<Chunk> {
        let mut chunk = self.slab[slot.0 as usize].take().expect("the slot was given out");
        for (state, list) in self.lists.iter_mut().enumerate() {
            if chunk.listed & 1 << state != 0 {
                list.remove(&chunk.no);
            }
        }
        chunk.listed = 0;
        if chunk.earliest != NEVER {
            self.deadlines.remove(&(chunk.earliest, chunk.no));
        }
        self.directory.remove(&chunk.no);
        self.vacant.push(slot.0);
        self.bytes -= chunk.bytes();
        chunk
    }

    /// Puts a chunk in that was taken out, and whose messages are all in this state.
    pub fn put_in(&mut self, chunk: Box<Chunk>, state: State) {
        let (no, earliest) = (chunk.no, chunk.earliest);
        let slot = self.insert(chunk);
        self.list(slot, state);
        if state == State::Ready && earliest != NEVER {
            self.deadlines.insert((earliest, no));
        }
    }

    /// Gives back the memory of slots that are not used.
    fn compact(&mut self) {
        let mut slab = Vec::with_capacity(self.directory.len());
        for slot in self.directory.values_mut() {
            slab.push(self.slab[slot.0 as usize].take());
            *slot = Slot((slab.len() - 1) as u32);
        }
        self.slab = slab;
        self.vacant = Vec::new();
    }

    /// Settles all messages with numbers from `first` to `last` that are here, whatever their states; gives what was known of
    /// each.
    pub fn settle_all(&mut self, first: Seq, last: Seq, settled: &mut Vec<Entry>) {
        let mut from = ChunkNo::of(first);
        let end = ChunkNo::of(last);
        while let Some((&no, &slot)) = self.directory.range(from..).next().filter(|(no, _)| **no <= end) {
            from = no.next();
            for state in State::ALL {
                // The last of these may have let go of the chunk, and then there is nothing left.
                if self.holds(slot, no) {
                    let chunk = self.chunk(slot);
                    let bits = chunk.mask(state) & mask_of(no, first, last);
                    settled.extend(Places(bits).map(|place| *chunk.entry(place)));
                    self.settle(slot, bits, state);
                }
            }
        }
    }

    /// Says that messages with numbers from `first` to `last` that are here may have been delivered.
    pub fn set_delivered(&mut self, first: Seq, last: Seq) {
        let chunks: Vec<_> = self
            .directory
            .range(ChunkNo::of(first)..=ChunkNo::of(last))
            .map(|(no, slot)| (*no, *slot))
            .collect();
        for (no, slot) in chunks {
            let chunk = self.chunk_mut(slot);
            chunk.delivered |= chunk.live() & mask_of(no, first, last);
        }
    }

    /// Of the messages of a chunk, which are not settled, be it here or paged out.
    pub fn live_mask(&self, no: ChunkNo) -> u64 {
        let here = self.directory.get(&no).map_or(0, |slot| self.chunk(*slot).live());
        here | self.pages.mask(no)
    }

    /// When the first ready message may expire.
    pub fn deadline(&self) -> Option<WallMs> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The chunk whose first message may expire first, if that is not after `now`.
    pub fn due(&mut self, now: WallMs) -> Option<Slot> {
        loop {
            let (at, no) = *self.deadlines.first()?;
            if at > now {
                return None;
            }
            if let Some(slot) = self.find(no) {
                return Some(slot);
            }
            // It is looked at again when it is back.
            self.pages.want(no);
            self.deadlines.pop_first();
        }
    }

    /// Sets a chunk's deadline to when its first ready message does expire, these not counted.
    pub fn renew_deadline(&mut self, slot: Slot, but: u64) {
        let chunk = self.chunk(slot);
        let (no, before) = (chunk.no, chunk.earliest);
        let ready = chunk.mask(State::Ready) & !but;
        let earliest = Places(ready).map(|place| chunk.expiry(place)).min().unwrap_or(NEVER);
        self.deadlines.remove(&(before, no));
        if earliest != NEVER {
            self.deadlines.insert((earliest, no));
        }
        self.chunk_mut(slot).earliest = earliest;
    }

    fn lower_deadline(&mut self, slot: Slot, at: WallMs) {
        let chunk = self.slab[slot.0 as usize].as_deref_mut().expect("the slot was given out");
        let before = chunk.earliest;
        if at >= before {
            return;
        }
        chunk.earliest = at;
        if before != NEVER {
            self.deadlines.remove(&(before, chunk.no));
        }
        self.deadlines.insert((at, chunk.no));
    }
}
