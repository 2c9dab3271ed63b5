//! Cutting a stream of bytes into frames: a signed 32-bit length, then as many bytes.

use std::collections::VecDeque;
use std::fmt;

use millstream_engine::buffer::Slice;

use crate::limits::PARTIAL_RESERVE_BYTES;

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
}

impl Frames {
    /// Nothing has arrived yet.
    pub fn new(limit: usize) -> Frames {
        Frames { limit, arrived: VecDeque::new(), prefix: [0; 4], prefix_len: 0, partial: Vec::new() }
    }

    /// Takes what has arrived.
    pub fn push(&mut self, bytes: Slice) {
        if !bytes.is_empty() {
            self.arrived.push_back(bytes);
        }
    }

    /// Bytes of memory that hold the part of a frame that has arrived.
    pub fn partial_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.arrived.clear();
        self.partial = Vec::new();
    }

    /// The next frame without its length, if it is complete. After an error there is none any more.
    pub fn next_frame(&mut self) -> Result<Option<Slice>, FrameError> {
        let Some(len) = self.length()? else { return Ok(None) };
        if self.partial.is_empty()
            && let Some(front) = self.arrived.front()
            && front.len() >= len
        {
            let frame = front.slice(0..len);
            self.advance(len);
            self.prefix_len = 0;
            return Ok(Some(frame));
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
        let mut frames = Frames::new(1000);
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
        let mut frames = Frames::new(10);
        frames.push(arrived);
        let frame = frames.next_frame().unwrap().unwrap();
        assert_eq!(frame[..], [7, 8]);
        assert_eq!(frame.as_ptr(), place.wrapping_add(4));
    }

    #[test]
    fn impossible_lengths_are_errors() {
        let mut frames = Frames::new(10);
        frames.push(Slice::from(vec![0xff, 0xff, 0xff, 0xff]));
        assert_eq!(frames.next_frame().unwrap_err(), FrameError::Negative(-1));
        let mut frames = Frames::new(10);
        frames.push(Slice::from(vec![0, 0, 0, 11]));
        assert_eq!(frames.next_frame().unwrap_err(), FrameError::TooLarge { len: 11, limit: 10 });
    }

    #[test]
    fn a_length_alone_reserves_little() {
        let mut frames = Frames::new(100 << 20);
        frames.push(Slice::from(vec![0x06, 0, 0, 0, 1]));
        assert!(frames.next_frame().unwrap().is_none());
        assert!(frames.partial_bytes() <= PARTIAL_RESERVE_BYTES, "{}", frames.partial_bytes());
    }
}
