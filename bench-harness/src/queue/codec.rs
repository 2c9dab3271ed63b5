//! As much of AMQP 0-9-1 as a client needs to publish, confirm, consume and acknowledge.
//! Source: the specification's "Data Definition" and RabbitMQ's extensions (confirm.select, basic.nack).

use crate::measure::Problem;

/// What a connection begins with.
pub const HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// What a frame has in front of its payload, and behind it.
pub const FRAME_HEAD_BYTES: usize = 7;
const FRAME_END: u8 = 0xCE;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const BODY: u8 = 3;
const BASIC: u16 = 60;
/// The only channel that is used beside 0.
pub const CHANNEL: u16 = 1;

/// What a server says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// It began the handshake.
    Start,
    /// Its limits: bytes of a frame.
    Tune {
        /// The most channels.
        channel_max: u16,
        /// The largest frame.
        frame_max: u32,
    },
    /// What was asked for last is done.
    Done,
    /// A message comes: its header and body follow.
    Deliver {
        /// The delivery tag.
        tag: u64,
    },
    /// Messages are confirmed.
    Ack {
        /// The last one's number.
        tag: u64,
        /// Whether all before are, too.
        multiple: bool,
    },
    /// Messages are refused.
    Nack,
    /// How long the body that follows is.
    Content {
        /// Bytes.
        size: u64,
    },
    /// A piece of a body.
    Body(&'a [u8]),
    /// It closes the connection or the channel.
    Close {
        /// Why, as a number.
        code: u16,
        /// And in words.
        text: &'a str,
    },
    /// Nothing of interest.
    Other,
}

/// How long the frame that begins here is as a whole; none if not even that has come.
pub fn frame_len(bytes: &[u8]) -> Option<usize> {
    let size: [u8; 4] = *bytes.get(3..)?.first_chunk()?;
    Some(FRAME_HEAD_BYTES + u32::from_be_bytes(size) as usize + 1)
}

/// Reads what a frame holds.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// So many bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("a frame ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        Ok(self.take(N)?.try_into()?)
    }

    fn u8(&mut self) -> Result<u8, Problem> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// A 16-bit integer.
    pub fn u16(&mut self) -> Result<u16, Problem> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A 64-bit integer.
    pub fn u64(&mut self) -> Result<u64, Problem> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A string of at most 255 bytes.
    pub fn short_string(&mut self) -> Result<&'a str, Problem> {
        let len = self.u8()?;
        Ok(std::str::from_utf8(self.take(len.into())?)?)
    }
}

impl<'a> Frame<'a> {
    /// Reads a whole frame.
    pub fn parse(bytes: &'a [u8]) -> Result<Frame<'a>, Problem> {
        let (end, bytes) = bytes.split_last().ok_or("a frame without bytes")?;
        if *end != FRAME_END {
            return Err("a frame does not end where it should".into());
        }
        let mut reader = Reader(bytes);
        let kind = reader.u8()?;
        reader.take(FRAME_HEAD_BYTES - 1)?;
        match kind {
            METHOD => Frame::method(&mut reader),
            CONTENT_HEADER => {
                reader.take(4)?;
                Ok(Frame::Content { size: reader.u64()? })
            }
            BODY => Ok(Frame::Body(reader.0)),
            _ => Ok(Frame::Other),
        }
    }

    fn method(reader: &mut Reader<'a>) -> Result<Frame<'a>, Problem> {
        Ok(match (reader.u16()?, reader.u16()?) {
            (10, 10) => Frame::Start,
            (10, 30) => Frame::Tune { channel_max: reader.u16()?, frame_max: reader.u32()? },
            (10, 41 | 51) | (20 | 50, 11 | 41) | (60, 11 | 21) | (85, 11) => Frame::Done,
            (BASIC, 60) => {
                reader.short_string()?;
                Frame::Deliver { tag: reader.u64()? }
            }
            (BASIC, 80) => Frame::Ack { tag: reader.u64()?, multiple: reader.u8()? & 1 != 0 },
            (BASIC, 120) => Frame::Nack,
            (10, 50) | (20, 40) => Frame::Close { code: reader.u16()?, text: reader.short_string()? },
            (BASIC, 30) => Frame::Close { code: 0, text: "the consumer was cancelled" },
            _ => Frame::Other,
        })
    }
}

/// Frames that are being written.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    fn frame(&mut self, kind: u8, channel: u16, payload: impl FnOnce(&mut Vec<u8>)) {
        let start = self.0.len();
        self.0.push(kind);
        self.0.extend(channel.to_be_bytes());
        self.0.extend([0; 4]);
        payload(&mut self.0);
        let size = (self.0.len() - start - FRAME_HEAD_BYTES) as u32;
        self.0[start + 3..start + FRAME_HEAD_BYTES].copy_from_slice(&size.to_be_bytes());
        self.0.push(FRAME_END);
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: impl FnOnce(&mut Vec<u8>)) {
        self.frame(METHOD, channel, |out| {
            out.extend(class.to_be_bytes());
            out.extend(method.to_be_bytes());
            arguments(out);
        });
    }

    /// `connection.start-ok` with user and password in the clear (PLAIN).
    pub fn start_ok(&mut self, user: &str, password: &str) {
        self.method(0, 10, 11, |out| {
            table(out, &[]);
            short_string(out, "PLAIN");
            let response = format!("\0{user}\0{password}");
            out.extend((response.len() as u32).to_be_bytes());
            out.extend(response.as_bytes());
            short_string(out, "en_US");
        });
    }

    /// `connection.tune-ok` without heartbeats, and `connection.open`.
    pub fn tune_ok_and_open(&mut self, channel_max: u16, frame_max: u32, virtual_host: &str) {
        self.method(0, 10, 31, |out| {
            out.extend(channel_max.to_be_bytes());
            out.extend(frame_max.to_be_bytes());
            out.extend(0_u16.to_be_bytes());
        });
        self.method(0, 10, 40, |out| {
            short_string(out, virtual_host);
            out.extend([0, 0]);
        });
    }

    /// `connection.close`, in good order.
    pub fn close(&mut self) {
        self.method(0, 10, 50, |out| {
            out.extend(200_u16.to_be_bytes());
            short_string(out, "");
            out.extend([0; 4]);
        });
    }

    /// `channel.open`.
    pub fn channel_open(&mut self) {
        self.method(CHANNEL, 20, 10, |out| out.push(0));
    }

    /// `confirm.select`.
    pub fn confirm_select(&mut self) {
        self.method(CHANNEL, 85, 10, |out| out.push(0));
    }

    /// `queue.declare`; arguments are text.
    pub fn declare(&mut self, queue: &str, durable: bool, arguments: &[(String, String)]) {
        self.method(CHANNEL, 50, 10, |out| {
            out.extend([0, 0]);
            short_string(out, queue);
            out.push(if durable { 0b10 } else { 0 });
            table(out, arguments);
        });
    }

    /// `queue.delete`, whatever is in it.
    pub fn delete(&mut self, queue: &str) {
        self.method(CHANNEL, 50, 40, |out| {
            out.extend([0, 0]);
            short_string(out, queue);
            out.push(0);
        });
    }

    /// `basic.qos`, for each consumer.
    pub fn qos(&mut self, prefetch: u16) {
        self.method(CHANNEL, BASIC, 10, |out| {
            out.extend([0; 4]);
            out.extend(prefetch.to_be_bytes());
            out.push(0);
        });
    }

    /// `basic.consume`.
    pub fn consume(&mut self, queue: &str, auto_ack: bool) {
        self.method(CHANNEL, BASIC, 20, |out| {
            out.extend([0, 0]);
            short_string(out, queue);
            short_string(out, "");
            out.push(if auto_ack { 0b10 } else { 0 });
            table(out, &[]);
        });
    }

    /// `basic.publish` to a queue, with its content, in frames of at most `frame_max` bytes. Gives the place of the body's
    /// first byte.
    pub fn publish(&mut self, queue: &str, persistent: bool, body: &[u8], frame_max: u32) -> usize {
        const DELIVERY_MODE: u16 = 1 << 12;
        self.method(CHANNEL, BASIC, 40, |out| {
            out.extend([0, 0]);
            short_string(out, "");
            short_string(out, queue);
            out.push(0);
        });
        self.frame(CONTENT_HEADER, CHANNEL, |out| {
            out.extend(BASIC.to_be_bytes());
            out.extend([0, 0]);
            out.extend((body.len() as u64).to_be_bytes());
            out.extend(DELIVERY_MODE.to_be_bytes());
            out.push(if persistent { 2 } else { 1 });
        });
        let place = self.0.len() + FRAME_HEAD_BYTES;
        for piece in body.chunks((frame_max as usize).saturating_sub(FRAME_HEAD_BYTES + 1).max(1)) {
            self.frame(BODY, CHANNEL, |out| out.extend(piece));
        }
        place
    }

    /// `connection.start`, as a server says it.
    pub fn start(&mut self) {
        self.method(0, 10, 10, |out| {
            out.extend([0, 9]);
            table(out, &[]);
            for text in ["PLAIN", "en_US"] {
                out.extend((text.len() as u32).to_be_bytes());
                out.extend(text.as_bytes());
            }
        });
    }

    /// `connection.tune`, as a server says it, without heartbeats.
    pub fn tune(&mut self, channel_max: u16, frame_max: u32) {
        self.method(0, 10, 30, |out| {
            out.extend(channel_max.to_be_bytes());
            out.extend(frame_max.to_be_bytes());
            out.extend([0, 0]);
        });
    }

    /// A server's answer, with its arguments as they are on the wire.
    pub fn done(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        self.method(channel, class, method, |out| out.extend(arguments));
    }

    /// `basic.deliver`, as a server says it, to the consumer `c`. Header and body follow.
    pub fn deliver(&mut self, tag: u64) {
        self.method(CHANNEL, BASIC, 60, |out| {
            short_string(out, "c");
            out.extend(tag.to_be_bytes());
            out.push(0);
            short_string(out, "");
            short_string(out, "");
        });
    }

    /// `basic.ack`.
    pub fn ack(&mut self, tag: u64, multiple: bool) {
        self.method(CHANNEL, BASIC, 80, |out| {
            out.extend(tag.to_be_bytes());
            out.push(multiple.into());
        });
    }
}

fn short_string(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() <= 255, "names are short");
    out.push(text.len() as u8);
    out.extend(text.as_bytes());
}

/// A table of strings; a value that is a whole number is one.
fn table(out: &mut Vec<u8>, entries: &[(String, String)]) {
    let start = out.len();
    out.extend([0; 4]);
    for (name, value) in entries {
        short_string(out, name);
        if let Ok(number) = value.parse::<i64>() {
            out.push(b'l');
            out.extend(number.to_be_bytes());
        } else {
            out.push(b'S');
            out.extend((value.len() as u32).to_be_bytes());
            out.extend(value.as_bytes());
        }
    }
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}
