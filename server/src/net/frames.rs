//! Cutting a stream of bytes into frames: a signed 32-bit length, then as many bytes.

use std::collections::VecDeque;
use std::fmt;

use millstream_engine::buffer::{Block, Pool, Slice};

use crate::limits::{FRAME_IN_ROOM_BYTES_MAX, FRAME_IN_ROOM_BYTES_MIN, PARTIAL_RESERVE_BYTES};

/// Why the stream cannot be cut any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// A frame's length is negative.
    Negative(i32),
    /// A frame is larger than the configuration allows.
    TooLarge {
        /// What the frame says.
        len: usize,
        /// `socket.request.max.bytes`.
        limit: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Negative(len) => write!(f, "a request's length is negative: {len}"),
            FrameError::TooLarge { len, limit } => {
                write!(f, "a request of {len} bytes is larger than socket.request.max.bytes = {limit}")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// What has arrived of a stream, and where its frames begin. A frame that arrived in one piece is handed out in place;
/// one that did not is put together in memory of its own, so that a slow sender pins no receive buffers.
///
/// A large frame is put together in a room, and what comes next is best received straight into that
/// ([`Frames::take_room`]). Where it comes otherwise, or there is no room to be had, it is put together all the same.
#[derive(Debug)]
pub struct Frames {
    /// The largest frame allowed.
    limit: usize,
    /// Arrived and not looked at.
    arrived: VecDeque<Slice>,
    /// The next frame's length, as far as it has arrived.
    prefix: [u8; 4],
    prefix_len: usize,
    /// The next frame, as far as it has arrived, if it came in several pieces.
    partial: Vec<u8>,
    /// The same of a large one: as large as the frame.
    room: Option<Block>,
    /// Where rooms come from.
    rooms: Pool,
    /// The rest of the next frame's room was taken; what the room holds so far is in front of what has arrived.
    is_room_taken: bool,
}

impl Frames {
    /// Nothing has arrived yet.
    pub fn new(limit: usize, rooms: Pool) -> Frames {
        Frames {
            limit,
            arrived: VecDeque::new(),
            prefix: [0; 4],
            prefix_len: 0,
            partial: Vec::new(),
            room: None,
            rooms,
            is_room_taken: false,
        }
    }

    /// Takes what has arrived.
    pub fn push(&mut self, bytes: Slice) {
        match self.arrived.back_mut().filter(|_| self.is_room_taken) {
            _ if bytes.is_empty() => {}
            Some(back) if back.precedes(&bytes) => *back = back.joined(&bytes),
            _ => self.arrived.push_back(bytes),
        }
    }

    /// Whether there is a room to be taken.
    pub fn has_room(&self) -> bool {
        self.room.is_some()
    }

    /// Where what arrives next is best put: it has room for the rest of the next frame, and for no more. There is none while
    /// something has arrived that was not looked at: that belongs in front.
    pub fn take_room(&mut self) -> Option<Block> {
        let mut room = self.room.take_if(|_| self.arrived.is_empty())?;
        self.arrived.push_front(room.split_frozen());
        self.is_room_taken = true;
        Some(room)
    }

    /// Bytes of memory that hold the part of a frame that has arrived.
    pub fn partial_bytes(&self) -> usize {
        let room = self.room.as_ref().map_or(0, Block::capacity);
        let taken = self.arrived.front().filter(|_| self.is_room_taken);
        self.partial.capacity() + room + taken.map_or(0, Slice::pinned)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.arrived.clear();
        self.partial = Vec::new();
        self.room = None;
        self.is_room_taken = false;
    }

    /// The next frame without its length, if it is complete. After an error there is none any more.
    pub fn next_frame(&mut self) -> Result<Option<Slice>, FrameError> {
        let Some(len) = self.length()? else { return Ok(None) };
        if self.partial.is_empty()
            && self.room.is_none()
            && let Some(front) = self.arrived.front()
            && front.len() >= len
        {
            let frame = front.slice(0..len);
            self.advance(len);
            self.prefix_len = 0;
            self.is_room_taken = false;
            return Ok(Some(frame));
        }
        if self.is_room_taken && self.arrived.len() == 1 {
            return Ok(None);
        }
        // What came next came otherwise.
        self.is_room_taken = false;
        let large = (FRAME_IN_ROOM_BYTES_MIN..=FRAME_IN_ROOM_BYTES_MAX).contains(&len);
        if large && self.partial.is_empty() && self.room.is_none() && !self.arrived.is_empty() {
            self.room = self.rooms.block(len).map(|room| room.cut(len));
        }
        if let Some(mut room) = self.room.take() {
            self.fill(&mut room);
            if room.spare() > 0 {
                self.room = Some(room);
                return Ok(None);
            }
            self.prefix_len = 0;
            return Ok(Some(room.freeze()));
        }
        while self.partial.len() < len {
            let Some(front) = self.arrived.front().cloned() else { return Ok(None) };
            let (bytes, _) = front.split_at(front.len().min(len - self.partial.len()));
            self.reserve(bytes.len(), len);
            self.partial.extend_from_slice(bytes);
            self.advance(bytes.len());
        }
        self.prefix_len = 0;
        Ok(Some(Slice::from(std::mem::take(&mut self.partial))))
    }

    /// The next frame's length, once all of it has arrived.
    fn length(&mut self) -> Result<Option<usize>, FrameError> {
        while let Some(byte) = self.prefix.get_mut(self.prefix_len) {
            let Some(front) = self.arrived.front() else { return Ok(None) };
            *byte = *front.first().expect("push keeps no empty slices");
            self.prefix_len += 1;
            self.advance(1);
        }
        let len = i32::from_be_bytes(self.prefix);
        let len = usize::try_from(len).map_err(|_| FrameError::Negative(len))?;
        if len > self.limit {
            return Err(FrameError::TooLarge { len, limit: self.limit });
        }
        Ok(Some(len))
    }

    /// Moves what has arrived to `room`, as far as it goes.
    fn fill(&mut self, room: &mut Block) {
        while room.spare() > 0
            && let Some(front) = self.arrived.front()
        {
            let taken = front.len().min(room.spare());
            room.push(&front[..taken]);
            self.advance(taken);
        }
    }

    /// Drops `n` bytes from the front of what has arrived.
    fn advance(&mut self, n: usize) {
        let Some(front) = self.arrived.front_mut() else { return };
        if n == front.len() {
            self.arrived.pop_front();
        } else {
            *front = front.slice(n..front.len());
        }
    }

    /// Makes room for `more` bytes of a frame of `len`: twice what there was, never more than the frame.
    fn reserve(&mut self, more: usize, len: usize) {
        let needed = self.partial.len() + more;
        if needed > self.partial.capacity() {
            let capacity = needed.max(self.partial.capacity() * 2).max(PARTIAL_RESERVE_BYTES).min(len);
            self.partial.reserve_exact(capacity - self.partial.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut frames = Frames::new(1000, Pool::new(0));
        let mut cut = Vec::new();
        for piece in stream.chunks(piece) {
            frames.push(Slice::from(piece.to_vec()));
            while let Some(frame) = frames.next_frame().unwrap() {
                cut.push(frame.to_vec());
            }
        }
        cut
    }

    #[test]
    fn frames_are_the_same_however_the_stream_is_split() {
        let mut stream = Vec::new();
        for len in [5_usize, 0, 300, 1, 1000] {
            stream.extend_from_slice(&(len as u32).to_be_bytes());
            stream.extend((0..len).map(|i| i as u8));
        }
        let whole = frames(&stream, stream.len());
        assert_eq!(whole.iter().map(Vec::len).collect::<Vec<_>>(), [5, 0, 300, 1, 1000]);
        for piece in [1, 2, 3, 5, 7, 64, 311] {
            assert_eq!(frames(&stream, piece), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn a_frame_in_one_piece_is_not_copied() {
        let arrived = Slice::from(vec![0, 0, 0, 2, 7, 8, 0]);
        let place = arrived.as_ptr();
        let mut frames = Frames::new(10, Pool::new(0));
        frames.push(arrived);
        let frame = frames.next_frame().unwrap().unwrap();
        assert_eq!(frame[..], [7, 8]);
        assert_eq!(frame.as_ptr(), place.wrapping_add(4));
    }

    #[test]
    fn impossible_lengths_are_errors() {
        let mut frames = Frames::new(10, Pool::new(0));
        frames.push(Slice::from(vec![0xff, 0xff, 0xff, 0xff]));
        assert_eq!(frames.next_frame().unwrap_err(), FrameError::Negative(-1));
        let mut frames = Frames::new(10, Pool::new(0));
        frames.push(Slice::from(vec![0, 0, 0, 11]));
        assert_eq!(frames.next_frame().unwrap_err(), FrameError::TooLarge { len: 11, limit: 10 });
    }

    const LARGE: usize = FRAME_IN_ROOM_BYTES_MIN + 1000;

    /// A stream with a large frame, and a small one behind it.
    fn large() -> Vec<u8> {
        let large = (0..LARGE).map(|i| i as u8);
        let mut stream: Vec<u8> = (LARGE as u32).to_be_bytes().into_iter().chain(large).collect();
        stream.extend_from_slice(&[0, 0, 0, 1, 7]);
        stream
    }

    #[test]
    fn the_rest_of_a_large_frame_is_asked_for_in_one_piece_and_handed_out_in_place() {
        let (stream, rooms) = (large(), Pool::new(1 << 20));
        let mut frames = Frames::new(1 << 20, rooms.clone());
        let (head, rest) = stream.split_at(3000);
        frames.push(Slice::from(head.to_vec()));
        assert!(frames.take_room().is_none() && frames.next_frame().unwrap().is_none());
        let mut room = frames.take_room().unwrap();
        assert!(frames.take_room().is_none(), "it is taken once");
        assert_eq!(room.spare(), 4 + LARGE - 3000, "what is behind the frame is left out");
        let place = room.spare_mut().as_ptr();
        for piece in rest[..room.spare()].chunks(20_000) {
            assert!(frames.next_frame().unwrap().is_none());
            assert_eq!(frames.partial_bytes(), rooms.usage().in_use);
            room.push(piece);
            frames.push(room.split_frozen());
        }
        frames.push(Slice::from(rest[rest.len() - 5..].to_vec()));
        let frame = frames.next_frame().unwrap().unwrap();
        assert_eq!(frame[..], stream[4..4 + LARGE]);
        assert_eq!(frame[2996..].as_ptr(), place);
        assert_eq!(frames.next_frame().unwrap().unwrap()[..], [7]);
        drop((frame, room));
        assert_eq!((frames.partial_bytes(), rooms.usage().in_use), (0, 0));
    }

    #[test]
    fn a_large_frame_is_put_together_if_its_rest_comes_otherwise_or_there_is_no_room() {
        let stream = large();
        let cases = [
            (1000, 1 << 20, false),
            (1000, 1 << 20, true),
            (30_000, 1 << 20, true),
            (LARGE, 1 << 20, true),
            (1000, 0, false),
        ];
        for (piece, rooms, taken) in cases {
            let rooms = Pool::new(rooms);
            let mut frames = Frames::new(1 << 20, rooms.clone());
            let mut cut = Vec::new();
            for piece in stream.chunks(piece) {
                frames.push(Slice::from(piece.to_vec()));
                while let Some(frame) = frames.next_frame().unwrap() {
                    cut.push(frame.to_vec());
                }
                if taken {
                    frames.take_room();
                }
            }
            assert!(cut.len() == 2 && cut[0] == stream[4..4 + LARGE] && cut[1] == [7], "pieces of {piece}");
            frames.clear();
            assert_eq!((frames.partial_bytes(), rooms.usage().in_use), (0, 0));
        }
    }

    #[test]
    fn a_room_is_not_given_away_while_something_waits_to_be_put_into_it() {
        let stream = large();
        let mut frames = Frames::new(1 << 20, Pool::new(1 << 20));
        frames.push(Slice::from(stream[..3000].to_vec()));
        assert!(frames.next_frame().unwrap().is_none() && frames.has_room());
        frames.push(Slice::from(stream[3000..5000].to_vec()));
        assert!(frames.take_room().is_none());
        assert!(frames.next_frame().unwrap().is_none());
        assert_eq!(frames.take_room().unwrap().spare(), 4 + LARGE - 5000);
        frames.push(Slice::from(stream[5000..].to_vec()));
        assert_eq!(frames.next_frame().unwrap().unwrap()[..], stream[4..4 + LARGE]);
        assert_eq!(frames.next_frame().unwrap().unwrap()[..], [7]);
    }

    #[test]
    fn a_large_frame_that_has_all_arrived_asks_for_nothing() {
        let stream = large();
        let mut frames = Frames::new(1 << 20, Pool::new(1 << 20));
        let (head, rest) = stream.split_at(LARGE / 2);
        frames.push(Slice::from(head.to_vec()));
        frames.push(Slice::from(rest.to_vec()));
        assert_eq!(frames.next_frame().unwrap().unwrap()[..], stream[4..4 + LARGE]);
        assert!(frames.take_room().is_none());
        assert_eq!(frames.next_frame().unwrap().unwrap()[..], [7]);
    }

    #[test]
    fn a_length_alone_reserves_little() {
        let mut frames = Frames::new(100 << 20, Pool::new(0));
        frames.push(Slice::from(vec![0x06, 0, 0, 0, 1]));
        assert!(frames.next_frame().unwrap().is_none());
        assert!(frames.partial_bytes() <= PARTIAL_RESERVE_BYTES, "{}", frames.partial_bytes());
    }
}
