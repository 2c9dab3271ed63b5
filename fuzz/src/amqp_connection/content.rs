//! Messages on their way, frame by frame: those that a client begins, and those that come to it.

use std::fmt;

use millstream::amqp::codec::{
    BasicPublish, FRAME_BODY, FRAME_EXTRA_BYTES, FRAME_HEADER, Properties, Short, Writer,
};

use super::client::FRAME_BYTES_MAX;
use super::messages::{body, number};

/// Where a message goes.
#[derive(Clone, Debug)]
pub struct Address {
    /// By which exchange.
    pub exchange: String,
    /// By which key.
    pub key: String,
    /// Whether it comes back if it goes nowhere.
    pub mandatory: bool,
}

/// A message that a client has begun.
pub struct Begun {
    /// Its number.
    pub id: u64,
    /// Where it goes.
    pub address: Address,
    /// Frames that are still to be said, the first first.
    frames: Vec<Vec<u8>>,
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} to {:?}, {} frames left", self.id, self.address, self.frames.len())
    }
}

impl Begun {
    /// A message of so many bytes. The frame of its method comes first.
    pub fn new(channel: u16, id: u64, address: Address, persistent: bool, len: usize) -> (Vec<u8>, Begun) {
        let publish = BasicPublish {
            exchange: Short(address.exchange.as_bytes()),
            routing_key: Short(address.key.as_bytes()),
            mandatory: address.mandatory,
            ..BasicPublish::default()
        };
        let mut method = Vec::new();
        Writer::new(&mut method).method(channel, &publish.into());
        let bytes = body(id, len);
        let mut raw = Vec::new();
        let delivery_mode = Some(if persistent { 2 } else { 1 });
        Properties { delivery_mode, ..Properties::default() }.write(&mut raw);
        let mut header = Vec::new();
        Writer::new(&mut header).frame(FRAME_HEADER, channel, |writer| {
            writer.u32(60 << 16);
            writer.u64(bytes.len() as u64);
            writer.bytes(&raw);
        });
        let mut frames = vec![header];
        for piece in bytes.chunks(FRAME_BYTES_MAX - FRAME_EXTRA_BYTES) {
            let mut frame = Vec::new();
            Writer::new(&mut frame).frame(FRAME_BODY, channel, |writer| writer.bytes(piece));
            frames.push(frame);
        }
        (method, Begun { id, address, frames })
    }

    /// The next frame.
    pub fn next(&mut self) -> Vec<u8> {
        self.frames.remove(0)
    }

    /// Whether there is none.
    pub fn is_whole(&self) -> bool {
        self.frames.is_empty()
    }
}

/// What a message that comes is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// For a consumer of this name.
    Delivered { consumer: String, tag: u64, redelivered: bool },
    /// Asked for.
    Got { tag: u64, redelivered: bool },
    /// It went nowhere.
    Returned,
}

/// A message that has come in part.
#[derive(Debug)]
pub struct Coming {
    /// What it is.
    pub kind: Kind,
    /// Bytes of its body that have not come, once its header has.
    left: Option<u64>,
    body: Vec<u8>,
}

impl Coming {
    /// Nothing but its method has come.
    pub fn new(kind: Kind) -> Coming {
        Coming { kind, left: None, body: Vec::new() }
    }

    /// Its header comes.
    pub fn header(&mut self, body_bytes: u64) {
        assert!(self.left.replace(body_bytes).is_none(), "a message has one header");
    }

    /// A part of its body comes.
    pub fn body(&mut self, piece: &[u8]) {
        let left = self.left.expect("a header comes before a body");
        self.left = Some(left.checked_sub(piece.len() as u64).expect("a body is as long as its header says"));
        self.body.extend_from_slice(piece);
    }

    /// Its number, if it has come whole.
    pub fn number(&self) -> Option<u64> {
        (self.left == Some(0)).then(|| number(&self.body))
    }
}
