//! What is to be sent on a connection, in order, and how much of it goes at once.

use std::collections::VecDeque;
use std::ops::{AddAssign, SubAssign};

use millstream_engine::buffer::Slice;
use millstream_engine::shard::request::{Chunk, Range};

use crate::kafka::Tally;
use crate::limits::{SEND_BYTES, SEND_SLICES_MAX};

/// A part of a response.
#[derive(Debug)]
pub enum Piece {
    /// Bytes of the broker's own.
    Bytes(Slice),
    /// Batches as they are stored.
    Stored(Stored),
}

/// Stored batches on their way out: a plan, of which the first bytes may be in memory. The rest is loaded chunk by chunk when
/// its turn to be sent has come.
#[derive(Debug)]
pub struct Stored {
    loaded: Vec<Slice>,
    /// What has not been sent; the bytes that are loaded are its first.
    range: Range,
    /// The records that have been sent.
    tally: Tally,
}

impl Stored {
    /// All of this; `None` if it is empty.
    pub fn new(chunk: Chunk) -> Option<Stored> {
        let range = chunk.range?;
        Some(Stored { loaded: chunk.bytes, range, tally: Tally::default() })
    }

    fn loaded_bytes(&self) -> usize {
        self.loaded.iter().map(|slice| slice.len()).sum()
    }
}

/// Bytes of memory that answers keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Of the broker's own.
    pub own: usize,
    /// Of the engine's, which bounds them: stored batches.
    pub stored: usize,
}

impl Held {
    /// Both.
    pub fn bytes(self) -> usize {
        self.own + self.stored
    }
}

impl AddAssign for Held {
    fn add_assign(&mut self, other: Held) {
        self.own += other.own;
        self.stored += other.stored;
    }
}

impl SubAssign for Held {
    fn sub_assign(&mut self, other: Held) {
        self.own -= other.own;
        self.stored -= other.stored;
    }
}

/// An answer to one request.
#[derive(Debug, Default)]
pub struct Response {
    pieces: Vec<Piece>,
}

impl Response {
    /// Nothing is sent: `acks=0`.
    pub fn silent() -> Response {
        Response::default()
    }

    /// An answer in several pieces, its total length known to its first bytes.
    pub fn pieces(pieces: Vec<Piece>) -> Response {
        Response { pieces }
    }

    /// What it keeps in memory.
    pub fn held(&self) -> Held {
        held(&self.pieces)
    }

    /// Has it keep no memory but its own bytes: batches are planned again. Gives what they kept.
    pub fn let_go(&mut self) -> Held {
        let stored = self.held().stored;
        self.pieces.iter_mut().for_each(Piece::let_go);
        Held { own: 0, stored }
    }
}

impl From<Slice> for Response {
    fn from(bytes: Slice) -> Response {
        Response { pieces: vec![Piece::Bytes(bytes)] }
    }
}

impl Piece {
    fn held(&self) -> Held {
        match self {
            Piece::Bytes(bytes) => Held { own: bytes.len(), stored: 0 },
            Piece::Stored(stored) => Held { own: 0, stored: stored.loaded_bytes() },
        }
    }

    fn let_go(&mut self) {
        match self {
            Piece::Bytes(bytes) => bytes.loosen(),
            Piece::Stored(stored) => stored.loaded = Vec::new(),
        }
    }
}

fn held<'a>(pieces: impl IntoIterator<Item = &'a Piece>) -> Held {
    let mut sum = Held::default();
    pieces.into_iter().for_each(|piece| sum += piece.held());
    sum
}

/// What to do next for the queue to move on.
#[derive(Debug)]
pub enum SendStep {
    /// Send these, in which so many records begin; then [`SendQueue::sent`].
    Send(Vec<Slice>, u64),
    /// Load the first chunk of this; then [`SendQueue::loaded`].
    Load(Range),
}

/// Responses on their way out. Call order: `push` at any time; `next_step` until it is `None`; each step is answered by
/// `sent` or `loaded` before there is another.
#[derive(Debug, Default)]
pub struct SendQueue {
    pieces: VecDeque<Piece>,
    /// What waits.
    held: Held,
    /// Of what is being sent, the bytes of the broker's own.
    sending_bytes: usize,
    busy: bool,
    /// What is being sent takes long.
    slow: bool,
}

impl SendQueue {
    /// Bytes of memory that wait.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }

    /// Bytes of the broker's own that wait, or are being sent.
    pub fn own_bytes(&self) -> usize {
        self.held.own + self.sending_bytes
    }

    /// Whether everything has been sent.
    pub fn is_idle(&self) -> bool {
        !self.busy && self.pieces.is_empty()
    }

    /// Whether nothing waits behind what is being sent.
    pub fn is_drained(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether what is being sent takes long.
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// Adds a response.
    pub fn push(&mut self, response: Response) {
        self.held += response.held();
        self.pieces.extend(response.pieces);
    }

    /// What to do now, unless something is under way or nothing is left.
    pub fn next_step(&mut self) -> Option<SendStep> {
        if self.busy {
            return None;
        }
        let mut send = Gathered::default();
        while let Some(piece) = self.pieces.pop_front() {
            match piece {
                Piece::Bytes(slice) if send.has_room(slice.len()) => {
                    self.held.own -= slice.len();
                    self.sending_bytes += slice.len();
                    send.push(slice);
                }
                Piece::Stored(stored) if !stored.loaded.is_empty() => {
                    let before = send.bytes;
                    let left = send.push_stored(stored);
                    self.held.stored -= send.bytes - before;
                    if let Some(stored) = left {
                        self.pieces.push_front(Piece::Stored(stored));
                        break;
                    }
                }
                Piece::Stored(stored) if send.slices.is_empty() => {
                    let range = stored.range;
                    self.pieces.push_front(Piece::Stored(stored));
                    self.busy = true;
                    return Some(SendStep::Load(range));
                }
                later => {
                    self.pieces.push_front(later);
                    break;
                }
            }
        }
        self.busy = !send.slices.is_empty();
        self.busy.then_some(SendStep::Send(send.slices, send.records))
    }

    /// The kernel has taken what was sent last.
    pub fn sent(&mut self) {
        self.busy = false;
        self.slow = false;
        self.sending_bytes = 0;
    }

    /// What is being sent takes long: until it is over, nothing that waits keeps more memory than its own bytes.
    pub fn slow(&mut self) {
        self.slow = true;
        self.let_go();
    }

    /// Has what waits keep no memory but its own bytes: batches are planned again.
    pub fn let_go(&mut self) {
        self.pieces.iter_mut().for_each(Piece::let_go);
        self.held.stored = 0;
    }

    /// What was asked for is here.
    pub fn loaded(&mut self, chunk: Chunk) {
        self.busy = false;
        let Some(Piece::Stored(stored)) = self.pieces.front_mut() else { panic!("nothing is loaded") };
        stored.loaded = chunk.bytes;
        assert!(stored.loaded_bytes() > 0, "a load gives something, or is refused");
        self.held.stored += stored.loaded_bytes();
    }
}

/// What goes at once.
#[derive(Default)]
struct Gathered {
    slices: Vec<Slice>,
    bytes: usize,
    records: u64,
}

impl Gathered {
    fn has_room(&self, len: usize) -> bool {
        self.slices.len() < SEND_SLICES_MAX && (self.slices.is_empty() || self.bytes + len <= SEND_BYTES)
    }

    fn push(&mut self, slice: Slice) {
        self.bytes += slice.len();
        self.slices.push(slice);
    }

    /// Takes what is loaded, as far as there is room, and gives what is left.
    fn push_stored(&mut self, mut stored: Stored) -> Option<Stored> {
        let before = self.bytes;
        let mut loaded = std::mem::take(&mut stored.loaded).into_iter().peekable();
        while let Some(slice) = loaded.next_if(|slice| self.has_room(slice.len())) {
            self.records += stored.tally.count(&slice);
            self.push(slice);
        }
        let range = stored.range.after((self.bytes - before) as u32)?;
        Some(Stored { loaded: loaded.collect(), range, ..stored })
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::buffer::Pool;
    use millstream_engine::format::batch::BatchBuilder;
    use millstream_engine::types::{Offset, PartitionId, TopicId};

    use super::*;

    fn range(position: u32, len: u32) -> Range {
        let partition = PartitionId { topic: TopicId::default(), index: 0 };
        Range { partition, segment: Offset(0), position, len }
    }

    fn sent(step: Option<SendStep>) -> Vec<u8> {
        match step {
            Some(SendStep::Send(slices, _)) => slices.iter().flat_map(|slice| slice.to_vec()).collect(),
            other => panic!("expected a send, got {other:?}"),
        }
    }

    #[test]
    fn one_send_at_a_time_and_small_answers_together() {
        let mut queue = SendQueue::default();
        queue.push(Slice::from(vec![1]).into());
        assert_eq!(sent(queue.next_step()), [1]);
        queue.push(Slice::from(vec![2]).into());
        queue.push(Slice::from(vec![3]).into());
        assert!(queue.next_step().is_none(), "the first send is not over");
        queue.sent();
        assert_eq!(sent(queue.next_step()), [2, 3]);
        queue.sent();
        assert!(queue.next_step().is_none());
        assert!(queue.is_idle());
        assert_eq!(queue.held_bytes(), 0);
    }

    /// The first bytes of a stretch, and the plan for all of it.
    fn chunk(bytes: &[u8], range: Range) -> Chunk {
        Chunk { bytes: vec![Slice::from(bytes.to_vec())], range: Some(range) }
    }

    fn stored(chunk: Chunk) -> Piece {
        Piece::Stored(Stored::new(chunk).unwrap())
    }

    #[test]
    fn what_is_planned_is_loaded_chunk_by_chunk_in_its_place() {
        let mut queue = SendQueue::default();
        let head = Piece::Bytes(Slice::from(vec![1]));
        queue.push(Response::pieces(vec![head, stored(chunk(&[2], range(0, 3)))]));
        queue.push(Slice::from(vec![9]).into());
        assert_eq!(sent(queue.next_step()), [1, 2]);
        queue.sent();
        for (at, byte) in [(1, 3), (2, 4)] {
            let rest = range(at, 3 - at);
            assert!(matches!(queue.next_step(), Some(SendStep::Load(r)) if r == rest));
            assert!(queue.next_step().is_none(), "nothing overtakes the load");
            queue.loaded(chunk(&[byte], rest));
            assert_eq!(sent(queue.next_step())[0], byte);
            queue.sent();
        }
        assert!(queue.is_idle(), "what follows is sent with the last chunk");
    }

    #[test]
    fn behind_a_slow_send_batches_are_planned_again_and_the_brokers_own_bytes_keep_no_slab() {
        let slabs = Pool::new(16 << 20);
        let slab = || {
            let mut slab = slabs.block(4 << 20).unwrap();
            slab.push(&[7; 3]);
            slab.freeze()
        };
        let mut queue = SendQueue::default();
        queue.push(Slice::from(vec![1]).into());
        assert_eq!(sent(queue.next_step()), [1]);
        let batches = stored(Chunk { bytes: vec![slab()], range: Some(range(4, 3)) });
        queue.push(Response::pieces(vec![Piece::Bytes(slab()), batches]));
        assert_eq!((slabs.usage().in_use, queue.held_bytes()), (8 << 20, 6));
        queue.slow();
        assert_eq!((slabs.usage().in_use, queue.held_bytes(), queue.own_bytes()), (0, 3, 4));
        queue.sent();
        assert_eq!(sent(queue.next_step()), [7; 3]);
        queue.sent();
        assert!(matches!(queue.next_step(), Some(SendStep::Load(r)) if r == range(4, 3)));
        queue.loaded(chunk(&[8; 3], range(4, 3)));
        assert_eq!(sent(queue.next_step()), [8; 3]);
        queue.sent();
        assert!(queue.is_idle() && queue.held_bytes() == 0 && queue.own_bytes() == 0);
    }

    #[test]
    fn records_are_counted_as_they_are_sent_and_once() {
        let batch = BatchBuilder::new(0).push(None, Some(&[7; 40])).build();
        let len = batch.len() as u32;
        let mut queue = SendQueue::default();
        queue.push(Slice::from(vec![1]).into());
        queue.next_step();
        queue.push(Response::pieces(vec![stored(chunk(&batch[..10], range(0, len)))]));
        queue.slow();
        queue.sent();
        let mut records = Vec::new();
        for (from, to) in [(0, 20), (20, batch.len())] {
            let rest = range(from, len - from);
            assert!(matches!(queue.next_step(), Some(SendStep::Load(r)) if r == rest));
            queue.loaded(chunk(&batch[from as usize..to], rest));
            let Some(SendStep::Send(_, count)) = queue.next_step() else { panic!("it is here") };
            records.push(count);
            queue.sent();
        }
        assert_eq!(records, [0, 1]);
    }

    #[test]
    fn a_send_is_bounded() {
        let mut queue = SendQueue::default();
        for _ in 0..3 {
            queue.push(Slice::from(vec![0; SEND_BYTES / 2]).into());
        }
        assert_eq!(sent(queue.next_step()).len(), SEND_BYTES);
        assert_eq!(queue.held_bytes(), SEND_BYTES / 2);
    }
}
