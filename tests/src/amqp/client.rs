//! An AMQP client on a simulated connection: it opens a channel by itself, then says what it is told to, and tells what came.

use std::net::SocketAddr;

use millstream::amqp::codec::{
    BasicPublish, ChannelOpen, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk, FRAME_BODY,
    FRAME_EXTRA_BYTES, FRAME_HEAD_BYTES, FRAME_HEADER, FRAME_METHOD, Header, Long, Method, PROTOCOL_HEADER,
    Properties, Reader, Short, Table, Writer,
};
use millstream_engine::io::sim::{SimPeer, World};

/// The channel that everything happens on.
const CHANNEL: u16 = 1;
const FRAME_MAX: u32 = 4096;

/// What came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Came {
    /// The channel is open.
    Opened,
    /// What was asked for is done: the answer's class and method.
    Done(u16, u16),
    /// Messages up to this one, or this one alone, are confirmed.
    Confirmed {
        /// The last.
        tag: u64,
        /// Whether all before it are, too.
        multiple: bool,
        /// Whether they are refused instead.
        refused: bool,
    },
    /// A message.
    Delivered {
        /// To settle it by.
        tag: u64,
        /// It may have come before.
        redelivered: bool,
        /// Its key.
        key: Vec<u8>,
        /// Its body.
        body: Vec<u8>,
    },
    /// There is nothing to be got.
    Empty,
    /// The channel or the connection was closed by the other side.
    Refused(u16, String),
}

/// A delivery, as far as it has come.
struct Partial {
    tag: u64,
    redelivered: bool,
    key: Vec<u8>,
    body: Vec<u8>,
    left: Option<u64>,
}

/// One connection.
pub struct Client {
    /// The socket.
    pub peer: SimPeer,
    inbox: Vec<u8>,
    partial: Option<Partial>,
}

impl Client {
    /// Connects, and says all that it takes to open a channel without waiting for an answer.
    pub fn connect(world: &World, address: SocketAddr) -> Client {
        let mut client = Client { peer: world.connect(address), inbox: Vec::new(), partial: None };
        let mut bytes = PROTOCOL_HEADER.to_vec();
        let mut writer = Writer::new(&mut bytes);
        let start_ok = ConnectionStartOk {
            client_properties: Table::EMPTY,
            mechanism: Short(b"PLAIN"),
            response: Long(b"\0guest\0guest"),
            locale: Short(b"en_US"),
        };
        let open = ConnectionOpen { vhost: Short(b"/"), ..ConnectionOpen::default() };
        writer.method(0, &start_ok.into());
        writer.method(0, &ConnectionTuneOk { channel_max: 10, frame_max: FRAME_MAX, heartbeat: 60 }.into());
        writer.method(0, &open.into());
        writer.method(CHANNEL, &ChannelOpen::default().into());
        client.send(&bytes);
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.peer.send(bytes);
    }

    /// Says something on the channel.
    pub fn say<'m>(&mut self, method: impl Into<Method<'m>>) {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).method(CHANNEL, &method.into());
        self.send(&bytes);
    }

    /// Publishes a message.
    pub fn publish(&mut self, exchange: &str, key: &str, persistent: bool, body: &[u8]) {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        let publish = BasicPublish {
            exchange: Short(exchange.as_bytes()),
            routing_key: Short(key.as_bytes()),
            ..BasicPublish::default()
        };
        writer.method(CHANNEL, &publish.into());
        let mode = if persistent { 2 } else { 1 };
        let mut raw = Vec::new();
        Properties { delivery_mode: Some(mode), ..Properties::default() }.write(&mut raw);
        writer.frame(FRAME_HEADER, CHANNEL, |writer| {
            writer.u16(60);
            writer.u16(0);
            writer.u64(body.len() as u64);
            writer.bytes(&raw);
        });
        for piece in body.chunks(FRAME_MAX as usize - FRAME_EXTRA_BYTES) {
            writer.frame(FRAME_BODY, CHANNEL, |writer| writer.bytes(piece));
        }
        self.send(&bytes);
    }

    /// What has arrived whole; an error if it makes no sense.
    pub fn came(&mut self) -> Result<Vec<Came>, String> {
        self.inbox.extend(self.peer.received());
        let mut came = Vec::new();
        while let Some((head, _)) = self.inbox.split_first_chunk::<FRAME_HEAD_BYTES>() {
            let [kind, _, _, len @ ..] = *head;
            let whole = u32::from_be_bytes(len) as usize + FRAME_EXTRA_BYTES;
            if self.inbox.len() < whole {
                break;
            }
            if whole > FRAME_MAX as usize {
                return Err(format!("a frame of {whole} bytes"));
            }
            let frame: Vec<u8> = self.inbox.drain(..whole).collect();
            let payload = &frame[FRAME_HEAD_BYTES..whole - 1];
            came.extend(self.frame(kind, payload)?);
        }
        Ok(came)
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> Result<Option<Came>, String> {
        match (kind, self.partial.take()) {
            (FRAME_METHOD, None) => self.method(payload),
            (FRAME_HEADER, Some(partial)) if partial.left.is_none() => {
                let header = Header::read(payload).map_err(|error| error.to_string())?;
                Ok(self.grown(Partial { left: Some(header.body_bytes), ..partial }))
            }
            (FRAME_BODY, Some(mut partial)) => {
                let left = partial.left.and_then(|left| left.checked_sub(payload.len() as u64));
                partial.left = Some(left.ok_or("a body that does not fit its header")?);
                partial.body.extend_from_slice(payload);
                Ok(self.grown(partial))
            }
            (8, partial) => {
                self.partial = partial;
                Ok(None)
            }
            (kind, partial) => Err(format!("a frame of kind {kind} within a message: {}", partial.is_some())),
        }
    }

    fn grown(&mut self, partial: Partial) -> Option<Came> {
        if partial.left != Some(0) {
            self.partial = Some(partial);
            return None;
        }
        let Partial { tag, redelivered, key, body, .. } = partial;
        Some(Came::Delivered { tag, redelivered, key, body })
    }

    fn method(&mut self, payload: &[u8]) -> Result<Option<Came>, String> {
        let mut reader = Reader::new(payload);
        let text = |error: millstream::amqp::codec::Malformed| error.to_string();
        let (class, id) = (reader.u16().map_err(text)?, reader.u16().map_err(text)?);
        let method = Method::read(class, id, &mut reader).map_err(text)?;
        let method = method.ok_or_else(|| format!("method {id} of class {class}"))?;
        Ok(Some(match method {
            Method::ConnectionStart(_) | Method::ConnectionTune(_) | Method::ConnectionOpenOk(_) => {
                return Ok(None);
            }
            Method::ChannelOpenOk(_) => Came::Opened,
            Method::BasicAck(ack) => {
                Came::Confirmed { tag: ack.delivery_tag, multiple: ack.multiple, refused: false }
            }
            Method::BasicNack(nack) => {
                Came::Confirmed { tag: nack.delivery_tag, multiple: nack.multiple, refused: true }
            }
            Method::BasicDeliver(deliver) => {
                self.partial = Some(Partial {
                    tag: deliver.delivery_tag,
                    redelivered: deliver.redelivered,
                    key: deliver.routing_key.0.to_vec(),
                    body: Vec::new(),
                    left: None,
                });
                return Ok(None);
            }
            Method::BasicGetOk(got) => {
                self.partial = Some(Partial {
                    tag: got.delivery_tag,
                    redelivered: got.redelivered,
                    key: got.routing_key.0.to_vec(),
                    body: Vec::new(),
                    left: None,
                });
                return Ok(None);
            }
            Method::BasicGetEmpty(_) => Came::Empty,
            Method::ChannelClose(close) => {
                Came::Refused(close.reply_code, String::from_utf8_lossy(close.reply_text.0).into_owned())
            }
            Method::ConnectionClose(close) => {
                Came::Refused(close.reply_code, String::from_utf8_lossy(close.reply_text.0).into_owned())
            }
            _ => Came::Done(class, id),
        }))
    }
}
