//! The way out of a connection, and what its channels need to know of it.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::buffer::Slice;
use millstream_engine::io::ConnId;
use millstream_engine::types::QueueId;

use super::codec::{
    BASIC_CLASS, FRAME_BODY, FRAME_END, FRAME_EXTRA_BYTES, FRAME_HEADER, FRAME_METHOD, Method, Table, Value,
    Writer,
};
use super::error::{Failure, Text};
use super::kept::{Kept, Window};
use super::operations::Who;
use super::state::Desk;
use super::topology::entries::Owner;
use super::topology::users::{Access, Permission};
use crate::limits::{
    AMQP_BODY_COPIED_BYTES_MAX, AMQP_SEND_BYTES_GIVEN_BACK, AMQP_SEND_BYTES_WAITING_MAX,
    AMQP_SEND_PIECE_BYTES,
};
use crate::net::SendQueue;

/// `basic.deliver`.
const BASIC_DELIVER: u16 = 60;

/// What a client says that it understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// That its consumers may be cancelled.
    pub consumer_cancel_notify: bool,
    /// That a refused login is told.
    pub authentication_failure_close: bool,
    /// That it may be blocked while memory or the disk is short.
    pub connection_blocked: bool,
}

impl Capabilities {
    /// Reads the client's properties.
    pub fn read(properties: Table<'_>) -> Capabilities {
        let Some(Value::Table(capabilities)) = properties.get(b"capabilities") else {
            return Capabilities::default();
        };
        let has = |name: &[u8]| capabilities.get(name) == Some(Value::Bool(true));
        Capabilities {
            consumer_cancel_notify: has(b"consumer_cancel_notify"),
            authentication_failure_close: has(b"authentication_failure_close"),
            connection_blocked: has(b"connection.blocked"),
        }
    }
}

/// What channels know of their connection, and write to.
#[derive(Debug)]
pub struct Link {
    /// Its number on its shard.
    pub id: ConnId,
    /// The same, as owner of queues.
    pub owner: Owner,
    /// Who is logged in.
    pub user: Vec<u8>,
    /// Where.
    pub vhost: Vec<u8>,
    /// What the client has said of itself, a table's content.
    pub client_properties: Vec<u8>,
    /// By which mechanism it has logged in.
    pub mechanism: Vec<u8>,
    /// What the client understands.
    pub capabilities: Capabilities,
    /// The largest frame that the client takes.
    pub frame_max: usize,
    /// Queues that belong to this connection alone. Another may bear the name of one that is gone.
    pub own_queues: BTreeMap<Vec<u8>, QueueId>,
    /// Bytes of messages that have been published and not answered by their queues.
    pub publishing_bytes: usize,
    /// Whether something was published since that was looked at last.
    pub has_published: bool,
    /// Queues that it has published to and that have too much waiting.
    pub held_by: BTreeSet<QueueId>,
    /// So much waits to be sent that the connection has to end: nothing of it can go back.
    pub is_hopeless: bool,
    /// What its channels keep, as of when each was last looked at.
    pub kept: Kept,
    /// What is being written.
    bytes: Vec<u8>,
    /// How much the last piece was that was written.
    sealed_bytes: usize,
    /// What waits to be sent.
    pub queue: SendQueue,
}

impl Link {
    /// A way out of a connection that has not introduced itself.
    pub fn new(id: ConnId, owner: Owner, frame_max: usize) -> Link {
        Link {
            id,
            owner,
            user: Vec::new(),
            vhost: Vec::new(),
            client_properties: Vec::new(),
            mechanism: Vec::new(),
            capabilities: Capabilities::default(),
            frame_max,
            own_queues: BTreeMap::new(),
            publishing_bytes: 0,
            has_published: false,
            held_by: BTreeSet::new(),
            is_hopeless: false,
            kept: Kept::default(),
            bytes: Vec::new(),
            sealed_bytes: 0,
            queue: SendQueue::default(),
        }
    }

    /// A channel of this connection.
    pub fn who(&self, channel: u16, life: u32) -> Who {
        Who { conn: self.id, channel, life }
    }

    /// Bytes that wait to be sent.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes.len() + self.queue.held_bytes()
    }

    /// Whether so much waits to be sent that nothing more should be asked for.
    pub fn is_congested(&self, desk: &Desk<'_>) -> bool {
        let waiting = self.waiting_bytes();
        waiting >= AMQP_SEND_BYTES_WAITING_MAX || desk.state.everybody.is_congested(waiting)
    }

    /// Whether so much waits, to be sent or for room in a prefetch, that what comes for consumers had better go back.
    pub fn has_too_much(&self, desk: &Desk<'_>) -> bool {
        let waiting = self.waiting_bytes() + self.kept.sending;
        waiting >= AMQP_SEND_BYTES_GIVEN_BACK || desk.state.everybody.is_congested(waiting)
    }

    /// Whether the client has so much to settle that it should not be given more.
    pub fn has_enough(&self, desk: &Desk<'_>) -> bool {
        desk.state.everybody.has_enough(self.kept.unacked)
    }

    /// Whether it had better publish no more for the moment. But what it has to settle is always listened to: others may wait
    /// for nothing else.
    pub fn is_held(&self) -> bool {
        !self.held_by.is_empty() && self.kept.unacked == 0
    }

    /// What may be on its way to each of its consumers.
    pub fn window(&self, desk: &Desk<'_>) -> Window {
        desk.state.everybody.window(self.kept.consumers)
    }

    /// Writes raw bytes.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes a method.
    pub fn method<'m>(&mut self, channel: u16, method: impl Into<Method<'m>>) {
        Writer::new(&mut self.bytes).method(channel, &method.into());
    }

    /// Writes a sign of life.
    pub fn heartbeat(&mut self) {
        Writer::new(&mut self.bytes).heartbeat();
    }

    /// Writes a method whose last fields, as they stand on the wire, are `address`.
    pub fn method_before(&mut self, channel: u16, address: &[u8], fields: impl FnOnce(&mut Writer<'_>)) {
        Writer::new(&mut self.bytes).frame(FRAME_METHOD, channel, |writer| {
            fields(writer);
            writer.bytes(address);
        });
    }

    /// Writes `basic.deliver`; `address` is the exchange and the routing key, as they stand on the wire.
    pub fn deliver(
        &mut self,
        channel: u16,
        consumer_tag: &[u8],
        tag: u64,
        redelivered: bool,
        address: &[u8],
    ) {
        if self.bytes.len() >= AMQP_SEND_PIECE_BYTES {
            self.seal();
        }
        if self.bytes.capacity() == 0 {
            // There may be as much to send as there was the last time.
            self.bytes.reserve(self.sealed_bytes.min(AMQP_SEND_PIECE_BYTES));
        }
        let deliver = [BASIC_CLASS.to_be_bytes(), BASIC_DELIVER.to_be_bytes()];
        let len = deliver.as_flattened().len() + 1 + consumer_tag.len() + 8 + 1 + address.len();
        self.frame_head(FRAME_METHOD, channel, len);
        self.bytes.extend_from_slice(deliver.as_flattened());
        self.bytes.push(u8::try_from(consumer_tag.len()).expect("a tag is a short string"));
        self.bytes.extend_from_slice(consumer_tag);
        self.bytes.extend_from_slice(&tag.to_be_bytes());
        self.bytes.push(u8::from(redelivered));
        self.bytes.extend_from_slice(address);
        self.bytes.push(FRAME_END);
    }

    fn frame_head(&mut self, kind: u8, channel: u16, len: usize) {
        let ([channel_1, channel_2], [a, b, c, d]) = (channel.to_be_bytes(), (len as u32).to_be_bytes());
        self.bytes.extend_from_slice(&[kind, channel_1, channel_2, a, b, c, d]);
    }

    /// Writes a message's properties and body.
    pub fn content(&mut self, channel: u16, properties: &[u8], body: &[Slice]) {
        let body_bytes: usize = body.iter().map(|piece| piece.len()).sum();
        let [class_1, class_2] = BASIC_CLASS.to_be_bytes();
        self.frame_head(FRAME_HEADER, channel, 12 + properties.len());
        self.bytes.extend_from_slice(&[class_1, class_2, 0, 0]);
        self.bytes.extend_from_slice(&(body_bytes as u64).to_be_bytes());
        self.bytes.extend_from_slice(properties);
        self.bytes.push(FRAME_END);
        let most = self.frame_max - FRAME_EXTRA_BYTES;
        for piece in body {
            let mut start = 0;
            while start < piece.len() {
                let end = piece.len().min(start + most);
                self.body_frame(channel, piece, start..end);
                start = end;
            }
        }
    }

    fn body_frame(&mut self, channel: u16, piece: &Slice, range: std::ops::Range<usize>) {
        let len = range.len();
        self.frame_head(FRAME_BODY, channel, len);
        if len <= AMQP_BODY_COPIED_BYTES_MAX {
            self.bytes.extend_from_slice(piece.get(range).expect("the caller has cut it"));
        } else {
            self.seal();
            let mut slice = piece.slice(range);
            if self.queue.is_slow() {
                slice.loosen(); // It waits behind what takes long, and is to keep no slab meanwhile.
            }
            self.queue.push(slice.into());
        }
        self.bytes.push(FRAME_END);
    }

    /// Hands what was written to the send queue.
    pub fn seal(&mut self) {
        if !self.bytes.is_empty() {
            self.sealed_bytes = self.bytes.len();
            self.queue.push(Slice::from(std::mem::take(&mut self.bytes)).into());
        }
    }

    fn permission<'d>(&self, desk: &'d Desk<'_>) -> Option<&'d Permission> {
        desk.vhost(&self.vhost)?.permission(&self.user)
    }

    /// Whether the user may do that with something of this vhost; `what` and `name` say with what.
    pub fn check(&self, desk: &Desk<'_>, access: Access, what: &str, name: &[u8]) -> Result<(), Failure> {
        if self.permission(desk).is_some_and(|permission| permission.allows(access, name)) {
            return Ok(());
        }
        let name = if name.is_empty() && what == "exchange" { b"amq.default" } else { name };
        Err(Failure::refused(format!(
            "{} access to {what} '{}' in vhost '{}' refused for user '{}'",
            access.name(),
            Text(name),
            Text(&self.vhost),
            Text(&self.user)
        )))
    }

    /// Whether the user may publish or bind to an exchange of type topic by that key.
    pub fn check_topic(
        &self,
        desk: &Desk<'_>,
        access: Access,
        exchange: &[u8],
        key: &[u8],
    ) -> Result<(), Failure> {
        if self.permission(desk).is_some_and(|permission| permission.allows_key(access, exchange, key)) {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "{} access to topic '{}' in exchange '{}' in vhost '{}' refused for user '{}'",
            access.name(),
            Text(key),
            Text(exchange),
            Text(&self.vhost),
            Text(&self.user)
        )))
    }
}
