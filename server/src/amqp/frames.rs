//! Cutting a stream of bytes into AMQP's frames.

use std::collections::VecDeque;
use std::fmt;

use millstream_engine::buffer::Slice;

use super::codec::{FRAME_BODY, FRAME_END, FRAME_HEAD_BYTES, FRAME_HEADER, FRAME_METHOD};
use crate::limits::AMQP_PARTIAL_RESERVE_BYTES;

/// Why the stream cannot be cut any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// A frame is larger than was agreed on.
    TooLarge {
        /// What the frame says.
        len: usize,
        /// The most that a payload may have.
        limit: usize,
    },
    /// A frame does not end where it says it does.
    NoEnd {
        /// What stands there.
        found: u8,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLarge { len, limit } => {
                write!(f, "a frame's payload has {len} bytes, {limit} at most")
            }
            FrameError::NoEnd { found } => write!(f, "a frame ends with {found:#04x} instead of 0xce"),
        }
    }
}

/// A frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What it holds: a method, a header, a part of a body, nothing.
    pub kind: u8,
    /// Of which channel.
    pub channel: u16,
    /// That.
    pub payload: Slice,
}

/// A method with the header and the body that follow it, as they lie in what has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Of which channel.
    pub channel: u16,
    /// The method's payload.
    pub method: &'a [u8],
    /// The header's.
    pub header: &'a [u8],
    /// The body, which is empty or in one frame.
    pub body: &'a [u8],
    /// Bytes of the frames.
    pub bytes: usize,
}

/// The frame at the start of bytes, if it is complete and sound: its kind, its channel, its payload, and what is behind it.
fn split_frame(bytes: &[u8], payload_max: usize) -> Option<(u8, u16, &[u8], &[u8])> {
    let (&[kind, channel_1, channel_2, ref len @ ..], rest) =
        bytes.split_first_chunk::<FRAME_HEAD_BYTES>()?;
    let len = u32::from_be_bytes(*len) as usize;
    if len > payload_max {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(len)?;
    let (&end, rest) = rest.split_first()?;
    (end == FRAME_END).then_some((kind, u16::from_be_bytes([channel_1, channel_2]), payload, rest))
}

/// What has arrived of a stream. A frame that arrived in one piece is handed out in place; one that did not is put together in
/// memory of its own, so that a slow sender pins no receive buffers.
#[derive(Debug)]
pub struct Frames {
    arrived: VecDeque<Slice>,
    arrived_bytes: usize,
    /// The largest payload allowed.
    payload_max: usize,
    /// The next frame's head, as far as it has arrived.
    head: [u8; FRAME_HEAD_BYTES],
    head_len: usize,
    /// Its payload and its end, as far as they have arrived, if that was in several pieces.
    partial: Vec<u8>,
    /// How many of the first slices that have arrived are in memory of their own.
    loose: usize,
}

impl Frames {
    /// Nothing has arrived yet.
    pub fn new(payload_max: usize) -> Frames {
        Frames {
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            payload_max,
            head: [0; FRAME_HEAD_BYTES],
            head_len: 0,
            partial: Vec::new(),
            loose: 0,
        }
    }

    /// Sets the largest payload that is allowed from now on.
    pub fn set_payload_max(&mut self, payload_max: usize) {
        self.payload_max = payload_max;
    }

    /// Takes what has arrived.
    pub fn push(&mut self, bytes: Slice) {
        if !bytes.is_empty() {
            self.arrived_bytes += bytes.len();
            self.arrived.push_back(bytes);
        }
    }

    /// Bytes that have arrived and were not handed out.
    pub fn held_bytes(&self) -> usize {
        self.arrived_bytes + self.partial.capacity()
    }

    /// Has what has arrived keep no receive buffers: it may have to wait. Small pieces become larger ones.
    pub fn loosen(&mut self) {
        if self.loose == self.arrived.len() {
            return;
        }
        for slice in self.arrived.split_off(self.loose) {
            let back =
                self.arrived.back().filter(|back| back.len() + slice.len() <= AMQP_PARTIAL_RESERVE_BYTES);
            let joined = match back {
                Some(back) => [&back[..], &slice[..]].concat(),
                None => slice.to_vec(),
            };
            if back.is_some() {
                self.arrived.pop_back();
            }
            self.arrived.push_back(Slice::from(joined));
        }
        self.loose = self.arrived.len();
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.loose = 0;
        self.arrived.clear();
        self.arrived_bytes = 0;
        self.partial = Vec::new();
        self.head_len = 0;
    }

    /// The first eight bytes, once they have arrived.
    pub fn protocol_header(&mut self) -> Option<[u8; 8]> {
        if self.arrived_bytes < 8 {
            return None;
        }
        let mut header = [0; 8];
        for byte in &mut header {
            *byte = self.next_byte()?;
        }
        Some(header)
    }

    /// The message that comes next, if its frames lie one behind the other in one piece and its body, which is in one frame at
    /// most, has no more than so many bytes; for how many, `body_bytes` is asked about a method and a header. Nothing is wrong if
    /// there is none.
    pub fn peek_message(
        &self,
        body_bytes: impl FnOnce(&[u8], &[u8]) -> Option<u64>,
        body_bytes_max: usize,
    ) -> Option<Message<'_>> {
        if self.head_len > 0 || !self.partial.is_empty() {
            return None;
        }
        let front = &self.arrived.front()?[..];
        let (FRAME_METHOD, channel, method, rest) = split_frame(front, self.payload_max)? else {
            return None;
        };
        let (FRAME_HEADER, of_header, header, rest) = split_frame(rest, self.payload_max)? else {
            return None;
        };
        let len = usize::try_from(body_bytes(method, header)?).ok().filter(|len| *len <= body_bytes_max)?;
        if len == 0 {
            let bytes = front.len() - rest.len();
            return (of_header == channel).then_some(Message { channel, method, header, body: &[], bytes });
        }
        let (FRAME_BODY, of_body, body, rest) = split_frame(rest, self.payload_max)? else { return None };
        let bytes = front.len() - rest.len();
        (of_header == channel && of_body == channel && body.len() == len).then_some(Message {
            channel,
            method,
            header,
            body,
            bytes,
        })
    }

    /// Drops a message that was looked at.
    pub fn skip_message(&mut self, bytes: usize) {
        self.advance(bytes);
    }

    /// The next frame, if it is complete. After an error there is none any more.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        // Most lie in one piece; what is wrong with one is found below.
        if self.head_len == 0
            && self.partial.is_empty()
            && let Some(front) = self.arrived.front()
            && let Some((kind, channel, payload, _)) = split_frame(front, self.payload_max)
        {
            let len = payload.len();
            let payload = front.slice(FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + len);
            self.advance(FRAME_HEAD_BYTES + len + 1);
            return Ok(Some(Frame { kind, channel, payload }));
        }
        while self.head_len < FRAME_HEAD_BYTES {
            let Some(byte) = self.next_byte() else { return Ok(None) };
            if let Some(place) = self.head.get_mut(self.head_len) {
                *place = byte;
            }
            self.head_len += 1;
        }
        let [kind, channel_1, channel_2, len @ ..] = self.head;
        let channel = u16::from_be_bytes([channel_1, channel_2]);
        let len = u32::from_be_bytes(len) as usize;
        if len > self.payload_max {
            return Err(FrameError::TooLarge { len, limit: self.payload_max });
        }
        let Some(payload) = self.payload(len)? else { return Ok(None) };
        self.head_len = 0;
        Ok(Some(Frame { kind, channel, payload }))
    }

    fn payload(&mut self, len: usize) -> Result<Option<Slice>, FrameError> {
        let whole = len + 1;
        if self.partial.is_empty()
            && let Some(front) = self.arrived.front()
            && front.len() >= whole
        {
            ended(front.get(len).copied())?;
            let payload = front.slice(0..len);
            self.advance(whole);
            return Ok(Some(payload));
        }
        while self.partial.len() < whole {
            let Some(front) = self.arrived.front().cloned() else { return Ok(None) };
            let (bytes, _) = front.split_at(front.len().min(whole - self.partial.len()));
            self.reserve(bytes.len(), whole);
            self.partial.extend_from_slice(bytes);
            self.advance(bytes.len());
        }
        ended(self.partial.pop())?;
        Ok(Some(Slice::from(std::mem::take(&mut self.partial))))
    }

    fn next_byte(&mut self) -> Option<u8> {
        let byte = *self.arrived.front()?.first()?;
        self.advance(1);
        Some(byte)
    }

    /// Drops `n` bytes from the front of what has arrived.
    fn advance(&mut self, n: usize) {
        let Some(front) = self.arrived.front_mut() else { return };
        self.arrived_bytes -= n;
        if n == front.len() {
            self.arrived.pop_front();
            self.loose = self.loose.saturating_sub(1);
        } else {
            front.skip(n);
        }
    }

    /// Makes room for `more` bytes of a frame of `whole`: twice what there was, never more than the frame.
    fn reserve(&mut self, more: usize, whole: usize) {
        let needed = self.partial.len() + more;
        if needed > self.partial.capacity() {
            let capacity = needed.max(self.partial.capacity() * 2).max(AMQP_PARTIAL_RESERVE_BYTES).min(whole);
            self.partial.reserve_exact(capacity - self.partial.len());
        }
    }
}

fn ended(end: Option<u8>) -> Result<(), FrameError> {
    match end {
        Some(FRAME_END) => Ok(()),
        found => Err(FrameError::NoEnd { found: found.unwrap_or(0) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::codec::{FRAME_BODY, FRAME_METHOD, Writer};

    fn two_frames() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.frame(FRAME_METHOD, 1, |payload| payload.bytes(b"hello"));
        writer.frame(FRAME_BODY, 2, |_| {});
        bytes
    }

    #[test]
    fn frames_come_out_however_the_stream_is_cut() {
        let bytes = two_frames();
        for cut in 1..bytes.len() {
            let mut frames = Frames::new(5);
            let mut found = Vec::new();
            for piece in bytes.chunks(cut) {
                frames.push(Slice::from(piece.to_vec()));
                while let Some(frame) = frames.next_frame().unwrap() {
                    found.push((frame.kind, frame.channel, frame.payload.to_vec()));
                }
            }
            assert_eq!(found, [(FRAME_METHOD, 1, b"hello".to_vec()), (FRAME_BODY, 2, Vec::new())], "{cut}");
            assert_eq!(frames.held_bytes(), 0);
        }
    }

    #[test]
    fn a_message_is_seen_whole_if_it_lies_in_one_piece_and_nothing_of_it_is_missing() {
        let message = |header_channel, body: &[u8]| {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes);
            writer.frame(FRAME_METHOD, 1, |payload| payload.bytes(b"m"));
            writer.frame(FRAME_HEADER, header_channel, |payload| payload.bytes(b"h"));
            if !body.is_empty() {
                writer.frame(FRAME_BODY, 1, |payload| payload.bytes(body));
            }
            bytes
        };
        let seen = |bytes: &[u8], len: u64, max: usize| {
            let mut frames = Frames::new(8);
            frames.push(Slice::from(bytes.to_vec()));
            frames.peek_message(|_, _| Some(len), max).map(|message| (message.body.to_vec(), message.bytes))
        };
        let whole = message(1, b"body");
        assert_eq!(seen(&[&whole[..], b"more"].concat(), 4, 4), Some((b"body".to_vec(), whole.len())));
        assert_eq!(seen(&message(1, b""), 0, 4), Some((Vec::new(), 18)));
        assert_eq!(seen(&whole, 4, 3), None, "it is too large");
        assert_eq!(seen(&whole, 5, 9), None, "the rest of the body is in another frame");
        assert_eq!(seen(&message(2, b"body"), 4, 4), None, "the header is another channel's");
        assert_eq!(seen(&message(1, b"too large"), 9, 9), None, "the frame is");
        for end in 0..whole.len() {
            assert_eq!(seen(&whole[..end], 4, 4), None, "{end}");
        }
        let mut frames = Frames::new(8);
        frames.push(Slice::from(whole[..1].to_vec()));
        assert!(frames.next_frame().unwrap().is_none());
        frames.push(Slice::from(whole.clone()));
        assert!(frames.peek_message(|_, _| Some(4), 4).is_none(), "another frame has begun before");
    }

    #[test]
    fn what_has_to_wait_keeps_no_receive_buffers() {
        let bytes = two_frames();
        let block = Slice::from([&bytes[..], &vec![0; 60_000]].concat());
        let mut frames = Frames::new(5);
        for place in 0..bytes.len() {
            frames.push(block.slice(place..place + 1));
            frames.loosen();
        }
        assert!(frames.arrived.len() == 1 && frames.arrived[0].pinned() < 100, "{:?}", frames.arrived);
        assert_eq!(&frames.next_frame().unwrap().unwrap().payload[..], b"hello");
        frames.push(block.slice(0..13));
        frames.loosen();
        assert_eq!(frames.next_frame().unwrap().unwrap().payload.len(), 0);
        assert_eq!(&frames.next_frame().unwrap().unwrap().payload[..], b"hello");
    }

    #[test]
    fn frames_that_are_too_large_or_do_not_end_are_refused() {
        let mut frames = Frames::new(4);
        frames.push(Slice::from(two_frames()));
        assert_eq!(frames.next_frame().unwrap_err(), FrameError::TooLarge { len: 5, limit: 4 });
        let mut bytes = two_frames();
        bytes[12] = 0;
        let mut frames = Frames::new(5);
        frames.push(Slice::from(bytes));
        assert_eq!(frames.next_frame().unwrap_err(), FrameError::NoEnd { found: 0 });
    }
}
