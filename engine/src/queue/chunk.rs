//! Sixty-four messages with consecutive numbers: what is known of each, and a mask for each state that one can be in.

use super::{LeaveReason, Locator};
use crate::time::WallMs;
use crate::types::Seq;

/// Messages in a chunk: as many as a word has bits.
pub(super) const CHUNK_MESSAGES: u64 = u64::BITS as u64;

/// Later than anything.
pub(super) const NEVER: WallMs = WallMs(i64::MAX);

/// A chunk's number: its messages' numbers without their lowest bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ChunkNo(pub u64);

impl ChunkNo {
    /// The chunk that a message is in.
    pub fn of(seq: Seq) -> ChunkNo {
        ChunkNo(seq.0 / CHUNK_MESSAGES)
    }

    /// The chunk after this one.
    pub fn next(self) -> ChunkNo {
        ChunkNo(self.0 + 1)
    }

    /// The message at a place of the chunk.
    pub fn seq(self, place: u32) -> Seq {
        Seq(self.0 * CHUNK_MESSAGES + u64::from(place))
    }
}

/// A message's place in its chunk.
pub(super) fn place_of(seq: Seq) -> u32 {
    (seq.0 % CHUNK_MESSAGES) as u32
}

/// Which of the chunk's messages have numbers from `first` to `last`.
pub(super) fn mask_of(no: ChunkNo, first: Seq, last: Seq) -> u64 {
    let from = if no == ChunkNo::of(first) { u64::MAX << place_of(first) } else { u64::MAX };
    let to = if no == ChunkNo::of(last) { u64::MAX >> (63 - place_of(last)) } else { u64::MAX };
    from & to
}

/// The places of a mask's bits, lowest first.
pub(super) struct Places(pub u64);

impl Iterator for Places {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let place = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        (place < u64::BITS).then_some(place)
    }
}

/// Where a message stands. One that is in none of these is settled, or was never there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// It waits for a consumer.
    Ready,
    /// Somebody keeps it, and has not settled it.
    Kept,
    /// It has to leave, and the host has not said where to.
    Leaving,
    /// It was purged, and is settled when there is time.
    Purged,
}

/// How many states there are.
pub(super) const STATES: usize = State::ALL.len();

impl State {
    /// Every one.
    pub const ALL: [State; 4] = [State::Ready, State::Kept, State::Leaving, State::Purged];
}

/// What is known of a message. Its priority is in its number, the rest in masks and in what few queues need.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    /// Where its bytes are.
    pub locator: Locator,
    /// How many they are.
    pub size: u32,
    /// How often it has come back failed.
    pub failures: u16,
    /// Why it is leaving, if it is.
    pub reason: Option<LeaveReason>,
}

/// Who keeps a message.
#[derive(Clone, Copy, Default)]
pub(super) struct Kept {
    /// The keeper's slot.
    pub keeper: u32,
    /// Since when: the low half of the clock.
    pub since: u32,
}

impl Kept {
    /// From now on.
    pub fn new(keeper: u32, now: WallMs) -> Kept {
        Kept { keeper, since: now.0 as u32 }
    }

    /// For how long; right up to 24 days, and 0 if the clock has been set back.
    pub fn age_ms(self, now: WallMs) -> u64 {
        u64::from((now.0 as u32).wrapping_sub(self.since).cast_signed().max(0).cast_unsigned())
    }
}

const _: () = assert!(size_of::<Entry>() == 16 && size_of::<Kept>() == 8);

/// The messages, of which one at least is not settled or has yet to come.
pub(super) struct Chunk {
    /// Which chunk this is.
    pub no: ChunkNo,
    /// Of each state, the messages in it.
    pub masks: [u64; STATES],
    /// The leaving messages that the host knows of.
    pub told: u64,
    /// The messages that have been delivered before.
    pub delivered: u64,
    /// The messages that durable queues keep over a restart.
    pub persistent: u64,
    /// Not later than any ready message expires.
    pub earliest: WallMs,
    /// The states under which the index lists this chunk, as bits.
    pub listed: u8,
    /// What is known of each message.
    pub entries: [Entry; CHUNK_MESSAGES as usize],
    expiries: Option<Box<[WallMs; CHUNK_MESSAGES as usize]>>,
    kept: Option<Box<[Kept; CHUNK_MESSAGES as usize]>>,
}

impl Chunk {
    /// A chunk without messages.
    pub fn new(no: ChunkNo) -> Box<Chunk> {
        Box::new(Chunk {
            no,
            masks: [0; STATES],
            told: 0,
            delivered: 0,
            persistent: 0,
            earliest: NEVER,
            listed: 0,
            entries: [Entry::default(); CHUNK_MESSAGES as usize],
            expiries: None,
            kept: None,
        })
    }

    /// Makes a chunk whose messages are all settled an empty one with another number.
    pub fn renew(&mut self, no: ChunkNo) {
        assert!(self.live() == 0 && self.listed == 0, "a chunk is used again when nothing is in it");
        self.no = no;
        self.told = 0;
        self.delivered = 0;
        self.persistent = 0;
        self.earliest = NEVER;
    }

    /// The messages in a state.
    pub fn mask(&self, state: State) -> u64 {
        self.masks[state as usize]
    }

    /// The messages that are not settled.
    pub fn live(&self) -> u64 {
        self.masks.iter().fold(0, |live, mask| live | mask)
    }

    /// What is known of a message.
    pub fn entry(&self, place: u32) -> &Entry {
        &self.entries[place as usize]
    }

    /// The same, to be changed.
    pub fn entry_mut(&mut self, place: u32) -> &mut Entry {
        &mut self.entries[place as usize]
    }

    /// When a message expires.
    pub fn expiry(&self, place: u32) -> WallMs {
        self.expiries.as_ref().map_or(NEVER, |expiries| expiries[place as usize])
    }

    /// Sets when a message expires.
    pub fn set_expiry(&mut self, place: u32, at: WallMs) {
        if at == NEVER && self.expiries.is_none() {
            return;
        }
        self.expiries.get_or_insert_with(|| Box::new([NEVER; CHUNK_MESSAGES as usize]))[place as usize] = at;
    }

    /// Bytes that it takes, but for who keeps its messages: those are as many as consumers have credit.
    pub fn bytes(&self) -> usize {
        let expiries = self.expiries.as_ref().map_or(0, |_| size_of::<[WallMs; CHUNK_MESSAGES as usize]>());
        size_of::<Chunk>() + expiries
    }

    /// Who keeps a message that is kept.
    pub fn kept(&self, place: u32) -> Kept {
        self.kept.as_ref().expect("a message that is kept was given to somebody")[place as usize]
    }

    /// Says who keeps a message.
    pub fn keep(&mut self, place: u32, kept: Kept) {
        self.kept.get_or_insert_with(|| Box::new([Kept::default(); CHUNK_MESSAGES as usize]))
            [place as usize] = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_bits_of_a_mask_from_the_lowest() {
        let places = |mask| Places(mask).collect::<Vec<_>>();
        assert_eq!(places(0), []);
        assert_eq!(places(1 | 1 << 5 | 1 << 63), [0, 5, 63]);
        assert_eq!(places(u64::MAX).len(), 64);
    }

    #[test]
    fn a_range_is_cut_to_the_chunk() {
        let mask = |no, first, last| mask_of(ChunkNo(no), Seq(first), Seq(last));
        assert_eq!(mask(0, 3, 3), 0b1000);
        assert_eq!(mask(0, 62, 64), 0b11 << 62);
        assert_eq!(mask(1, 62, 64), 1);
        assert_eq!(mask(1, 0, 500), u64::MAX);
        assert_eq!(mask(2, 130, 131), 0b1100);
    }
}
