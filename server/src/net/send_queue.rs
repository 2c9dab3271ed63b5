//! What is to be sent on a connection, in order, and how much of it goes at once.

use std::collections::VecDeque;

use millstream_engine::buffer::Slice;
use millstream_engine::shard::request::Range;

use crate::kafka::Tally;
use crate::limits::{SEND_BYTES, SEND_SLICES_MAX};

/// A part of a response.
#[derive(Debug)]
pub enum Piece {
    /// Bytes in memory.
    Bytes(Slice),
    /// Stored batches, to be loaded chunk by chunk when their turn to be sent has come, and the count of the records
    /// before them.
    Rest(Range, Tally),
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

    /// Bytes of memory in it.
    pub fn held_bytes(&self) -> usize {
        self.pieces.iter().map(Piece::held_bytes).sum()
    }

    /// Has it keep no more memory than its own bytes: they are copied out of the journal's slabs.
    pub fn loosen(&mut self) {
        self.pieces.iter_mut().for_each(Piece::loosen);
    }
}

impl From<Slice> for Response {
    fn from(bytes: Slice) -> Response {
        Response { pieces: vec![Piece::Bytes(bytes)] }
    }
}

impl Piece {
    fn held_bytes(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Rest(..) => 0,
        }
    }

    fn loosen(&mut self) {
        if let Piece::Bytes(bytes) = self {
            bytes.loosen();
        }
    }
}

/// What to do next for the queue to move on.
#[derive(Debug)]
pub enum SendStep {
    /// Send these; then [`SendQueue::sent`].
    Send(Vec<Slice>),
    /// Load the first chunk of this; then [`SendQueue::loaded`].
    Load(Range),
}

/// Responses on their way out. Call order: `push` at any time; `next_step` until it is `None`; each step is answered by
/// `sent` or `loaded` before there is another.
#[derive(Debug, Default)]
pub struct SendQueue {
    pieces: VecDeque<Piece>,
    held_bytes: usize,
    busy: bool,
    /// What is being sent takes long.
    slow: bool,
    /// The records before the chunk that is being loaded.
    loading: Tally,
}

impl SendQueue {
    /// Bytes of memory that wait.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
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
        self.held_bytes += response.held_bytes();
        self.pieces.extend(response.pieces);
    }

    /// What to do now, unless something is under way or nothing is left.
    pub fn next_step(&mut self) -> Option<SendStep> {
        if self.busy {
            return None;
        }
        if let Some(&Piece::Rest(range, tally)) = self.pieces.front() {
            self.pieces.pop_front();
            self.busy = true;
            self.loading = tally;
            return Some(SendStep::Load(range));
        }
        let mut slices = Vec::new();
        let mut bytes = 0;
        while let Some(Piece::Bytes(slice)) = self.pieces.front()
            && slices.len() < SEND_SLICES_MAX
            && (slices.is_empty() || bytes + slice.len() <= SEND_BYTES)
        {
            bytes += slice.len();
            slices.push(slice.clone());
            self.pieces.pop_front();
        }
        self.held_bytes -= bytes;
        self.busy = !slices.is_empty();
        self.busy.then_some(SendStep::Send(slices))
    }

    /// The kernel has taken what was sent last.
    pub fn sent(&mut self) {
        self.busy = false;
        self.slow = false;
    }

    /// What is being sent takes long: until it is over, nothing that waits keeps more memory than its own bytes.
    pub fn slow(&mut self) {
        self.slow = true;
        self.pieces.iter_mut().for_each(Piece::loosen);
    }

    /// The chunk is here, and `rest` is what is left behind it. Gives the records in it.
    pub fn loaded(&mut self, chunk: Vec<Slice>, rest: Option<Range>) -> u64 {
        self.busy = false;
        let records = chunk.iter().map(|slice| self.loading.count(slice)).sum();
        if let Some(rest) = rest {
            self.pieces.push_front(Piece::Rest(rest, self.loading));
        }
        for slice in chunk.into_iter().rev() {
            self.held_bytes += slice.len();
            self.pieces.push_front(Piece::Bytes(slice));
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::buffer::Pool;
    use millstream_engine::types::{Offset, PartitionId, TopicId};

    use super::*;

    fn range(position: u32, len: u32) -> Range {
        let partition = PartitionId { topic: TopicId::default(), index: 0 };
        Range { partition, segment: Offset(0), position, len }
    }

    fn sent(step: Option<SendStep>) -> Vec<u8> {
        match step {
            Some(SendStep::Send(slices)) => slices.iter().flat_map(|slice| slice.to_vec()).collect(),
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

    #[test]
    fn a_rest_is_loaded_chunk_by_chunk_in_its_place() {
        let mut queue = SendQueue::default();
        let head = Piece::Bytes(Slice::from(vec![1]));
        queue.push(Response::pieces(vec![head, Piece::Rest(range(0, 2), Tally::default())]));
        queue.push(Slice::from(vec![9]).into());
        assert_eq!(sent(queue.next_step()), [1]);
        queue.sent();
        assert!(matches!(queue.next_step(), Some(SendStep::Load(r)) if r == range(0, 2)));
        assert!(queue.next_step().is_none(), "nothing overtakes the load");
        queue.loaded(vec![Slice::from(vec![2])], Some(range(1, 1)));
        assert_eq!(sent(queue.next_step()), [2]);
        queue.sent();
        assert!(matches!(queue.next_step(), Some(SendStep::Load(r)) if r == range(1, 1)));
        queue.loaded(vec![Slice::from(vec![3])], None);
        assert_eq!(sent(queue.next_step()), [3, 9]);
    }

    #[test]
    fn behind_a_slow_send_nothing_keeps_a_slab() {
        let slabs = Pool::new(16 << 20);
        let bytes = || {
            let mut slab = slabs.block(4 << 20).unwrap();
            slab.push(&[7; 3]);
            Piece::Bytes(slab.freeze())
        };
        let mut queue = SendQueue::default();
        queue.push(Slice::from(vec![1]).into());
        assert_eq!(sent(queue.next_step()), [1]);
        queue.push(Response::pieces(vec![bytes()]));
        assert_eq!(slabs.usage().in_use, 4 << 20);
        queue.slow();
        assert_eq!((slabs.usage().in_use, queue.held_bytes()), (0, 3));
        queue.sent();
        assert_eq!(sent(queue.next_step()), [7; 3]);
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
