//! A message that a client publishes: put together from its frames, checked, and sent on its way.

use std::borrow::Cow;
use std::sync::Arc;

use millstream_engine::buffer::Slice;
use millstream_engine::time::WallMs;
use millstream_engine::types::MetadataEpoch;

use super::transaction::Held;
use super::{Channel, Mode};
use crate::amqp::batches::{Published, Traits};
use crate::amqp::codec::{
    BasicPublish, BasicReturn, Header, Method, Properties, Reader, Short, TableWriter, Value,
};
use crate::amqp::error::{Failure, ReplyCode, Text};
use crate::amqp::link::Link;
use crate::amqp::message;
use crate::amqp::reply_to;
use crate::amqp::routing::bindings::ExchangeKind;
use crate::amqp::routing::router::Route;
use crate::amqp::state::Desk;
use crate::amqp::topology::users::Access;
use crate::limits::{
    AMQP_KEYS_PER_MESSAGE_MAX, AMQP_MESSAGE_BYTES_MAX, AMQP_PUBLISHING_BYTES_SHARED_MAX,
    AMQP_SMALL_PIECES_MAX,
};

/// What a message under way takes beside its own bytes, roughly.
pub(super) const MESSAGE_EXTRA_BYTES: usize = 256;
/// What a piece of one takes beside its own bytes, roughly.
pub(super) const PIECE_EXTRA_BYTES: usize = 96;
/// Room for pieces that is kept for the next message.
const SPARE_PIECES_MAX: usize = 64;
/// A smaller piece is more trouble than it has bytes.
const SMALL_PIECE_BYTES: usize = 512;

/// A message that is arriving.
#[derive(Debug)]
pub struct Content {
    /// Its method's frame, which is given to it as soon as it has been read.
    method: Option<Slice>,
    /// Its header's frame, once that has come.
    header: Option<Slice>,
    body: Vec<Slice>,
    /// Bytes of the body that have not come.
    left: u64,
    /// How many of the last pieces are small.
    small: usize,
    /// How many of the first pieces keep no more memory than their own.
    loose: usize,
}

impl Content {
    /// Bytes of memory that hold it.
    fn held_bytes(&self) -> usize {
        let pieces = self.method.iter().chain(&self.header).chain(&self.body);
        pieces.map(|piece| piece.len() + PIECE_EXTRA_BYTES).sum()
    }

    /// Has it keep no more memory than its own bytes: the rest of it may be long in coming, and what is received into is lent
    /// to all connections.
    fn loosen(&mut self) {
        let body = self.body.iter_mut().skip(self.loose);
        for piece in self.method.iter_mut().chain(&mut self.header).chain(body) {
            if piece.pinned() > piece.len() {
                *piece = Slice::from(piece.to_vec());
            }
        }
        self.loose = self.body.len();
    }

    /// Adds a piece of the body. Many small ones become one.
    fn push(&mut self, piece: Slice) {
        self.small = if piece.len() < SMALL_PIECE_BYTES { self.small + 1 } else { 0 };
        self.body.push(piece);
        if self.small == AMQP_SMALL_PIECES_MAX {
            let first = self.body.len() - self.small;
            let whole: Vec<u8> = self.body.drain(first..).flat_map(|piece| piece.to_vec()).collect();
            self.body.push(Slice::from(whole));
            (self.small, self.loose) = (0, self.loose.min(first));
        }
    }
}

/// A message that has arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived<'a> {
    pub publish: BasicPublish<'a>,
    pub properties: &'a [u8],
    pub body: Body<'a>,
}

/// The body of a message that has arrived.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Small, and in one piece.
    Bytes(&'a [u8]),
    /// In as many pieces as it came in.
    Pieces(&'a [Slice]),
}

impl<'a> Body<'a> {
    /// How long it is.
    pub fn bytes(self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }

    /// Its pieces.
    pub fn pieces(self) -> impl Iterator<Item = &'a [u8]> {
        let (whole, pieces) = match self {
            Body::Bytes(bytes) => (Some(bytes), &[][..]),
            Body::Pieces(pieces) => (None, pieces),
        };
        whole.into_iter().chain(pieces.iter().map(|piece| &piece[..]))
    }

    /// Its pieces in memory of their own.
    pub fn to_slices(self) -> Vec<Slice> {
        self.pieces().map(|piece| Slice::from(piece.to_vec())).collect()
    }
}

/// The way that a channel's last message took by its key alone; who publishes once by a key does so again. It was found to be
/// allowed, and is as long as the topology stays as it was.
#[derive(Debug)]
pub(super) struct Way {
    epoch: MetadataEpoch,
    exchange: Vec<u8>,
    key: Vec<u8>,
    route: Arc<Route>,
}

impl Way {
    /// It is another message's now.
    fn lead(&mut self, epoch: MetadataEpoch, exchange: &[u8], key: &[u8], route: Arc<Route>) {
        self.exchange.clear();
        self.exchange.extend_from_slice(exchange);
        self.key.clear();
        self.key.extend_from_slice(key);
        (self.epoch, self.route) = (epoch, route);
    }

    fn is_of(&self, publish: BasicPublish<'_>, epoch: MetadataEpoch) -> bool {
        self.epoch == epoch && self.key == publish.routing_key.0 && self.exchange == publish.exchange.0
    }
}

/// A published message's frame, read anew: it was read before.
fn read_publish(payload: &[u8]) -> Result<BasicPublish<'_>, Failure> {
    let mut reader = Reader::new(payload);
    let malformed = |_| Failure::syntax("basic.publish is malformed");
    let (class, id) = (reader.u16().map_err(malformed)?, reader.u16().map_err(malformed)?);
    match Method::read(class, id, &mut reader) {
        Ok(Some(Method::BasicPublish(publish))) => Ok(publish),
        _ => Err(Failure::syntax("basic.publish is malformed")),
    }
}

impl Channel {
    /// `basic.publish`; its frame follows in [`Channel::keep_method`].
    pub(super) fn begin_publish(&mut self, method: BasicPublish<'_>) -> Result<(), Failure> {
        if method.immediate {
            return Err(Failure::not_implemented("immediate=true"));
        }
        let body = std::mem::take(&mut self.spare_body);
        self.content = Some(Content { method: None, header: None, body, left: 0, small: 0, loose: 0 });
        Ok(())
    }

    /// The frame of the method that has just been taken, if it begins a message.
    pub fn keep_method(&mut self, payload: Slice) {
        if let Some(content) = &mut self.content {
            content.method = Some(payload);
        }
    }

    /// A content header.
    pub fn header(&mut self, payload: Slice, link: &mut Link, desk: &mut Desk<'_>) -> Result<(), Failure> {
        let unexpected = |text: &str| Err(Failure::new(ReplyCode::UnexpectedFrame, text));
        let Some(content) = &mut self.content else {
            return unexpected("expected method frame, got content header frame instead");
        };
        if content.header.is_some() {
            return unexpected("expected content body, got content header frame instead");
        }
        let Ok(header) = Header::read(&payload) else {
            return unexpected("expected content header for class 60");
        };
        if header.body_bytes > AMQP_MESSAGE_BYTES_MAX {
            return Err(Failure::precondition(format!(
                "message size {} is larger than configured max size {AMQP_MESSAGE_BYTES_MAX}",
                header.body_bytes
            )));
        }
        content.left = header.body_bytes;
        content.header = Some(payload);
        self.complete(link, desk)
    }

    /// A part of a body.
    pub fn body(&mut self, payload: Slice, link: &mut Link, desk: &mut Desk<'_>) -> Result<(), Failure> {
        let unexpected = |text: &str| Err(Failure::new(ReplyCode::UnexpectedFrame, text));
        let Some(content) = self.content.as_mut().filter(|content| content.header.is_some()) else {
            return unexpected("expected method or content header frame, got content body frame instead");
        };
        let Some(left) = content.left.checked_sub(payload.len() as u64) else {
            return unexpected("content body is larger than its header says");
        };
        content.left = left;
        if !payload.is_empty() {
            content.push(payload);
        }
        self.complete(link, desk)
    }

    /// A message that has arrived at once: its method, its header's payload and its body.
    pub fn message(
        &mut self,
        publish: BasicPublish<'_>,
        header: &[u8],
        body: &[u8],
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        if publish.immediate {
            return Err(Failure::not_implemented("immediate=true"));
        }
        let header = Header::read(header).map_err(|_| Failure::syntax("content header is malformed"))?;
        self.publish(Arrived { publish, properties: header.raw, body: Body::Bytes(body) }, link, desk)
    }

    /// Bytes of memory that hold a message which is arriving.
    pub(super) fn content_bytes(&self) -> usize {
        self.content.as_ref().map_or(0, Content::held_bytes)
    }

    /// A message that has not arrived whole keeps no receive buffers.
    pub(super) fn loosen_content(&mut self) {
        if let Some(content) = &mut self.content {
            content.loosen();
        }
    }

    fn complete(&mut self, link: &mut Link, desk: &mut Desk<'_>) -> Result<(), Failure> {
        if self.content.as_ref().is_none_or(|content| content.left > 0) {
            return Ok(());
        }
        let Some(Content { method: Some(method), header: Some(header), mut body, .. }) = self.content.take()
        else {
            return Ok(());
        };
        let publish = read_publish(&method)?;
        let header = Header::read(&header).map_err(|_| Failure::syntax("content header is malformed"))?;
        let outcome =
            self.publish(Arrived { publish, properties: header.raw, body: Body::Pieces(&body) }, link, desk);
        body.clear();
        if body.capacity() <= SPARE_PIECES_MAX {
            self.spare_body = body;
        }
        outcome
    }

    /// A message has arrived whole.
    fn publish(&mut self, arrived: Arrived<'_>, link: &mut Link, desk: &mut Desk<'_>) -> Result<(), Failure> {
        let properties = Properties::read(arrived.properties)
            .map_err(|_| Failure::syntax("the properties of a message are malformed"))?;
        link.has_published = true;
        self.check_publish(arrived.publish, &properties, link, desk)?;
        let expires_at = expiry(&properties, desk)?;
        if let Mode::Transaction(transaction) = &mut self.mode {
            transaction.hold(Held::publish(arrived));
            return Ok(());
        }
        self.send(arrived, &properties, expires_at, link, desk)
    }

    fn check_publish(
        &self,
        publish: BasicPublish<'_>,
        properties: &Properties<'_>,
        link: &Link,
        desk: &Desk<'_>,
    ) -> Result<(), Failure> {
        if self.known_way(publish, properties, desk).is_none() {
            Channel::check_exchange(publish, properties, link, desk)?;
        }
        more_keys(properties)?;
        if let Some(user) = properties.user_id
            && user != link.user
            && !desk.state.topology.user(&link.user).is_some_and(|user| user.has_tag("impersonator"))
        {
            return Err(Failure::precondition(format!(
                "user_id property set to '{}' but authenticated user was '{}'",
                Text(user),
                Text(&link.user)
            )));
        }
        if properties.reply_to.is_some_and(reply_to::is_pseudo_queue) && self.reply_consumer.is_none() {
            return Err(Failure::precondition("fast reply consumer does not exist"));
        }
        Ok(())
    }

    /// The way of a message like the last one, whose headers add no keys.
    fn known_way(
        &self,
        publish: BasicPublish<'_>,
        properties: &Properties<'_>,
        desk: &Desk<'_>,
    ) -> Option<&Arc<Route>> {
        let way = self.way.as_ref().filter(|_| properties.headers.is_none())?;
        way.is_of(publish, desk.state.topology.epoch()).then_some(&way.route)
    }

    /// The way of a message that was checked. Says, too, whether it was an answer for somebody who waits for it.
    fn find_way(
        &mut self,
        arrived: Arrived<'_>,
        properties: &Properties<'_>,
        more_keys: &[&[u8]],
        link: &Link,
        desk: &mut Desk<'_>,
    ) -> (Arc<Route>, bool) {
        if let Some(route) = self.known_way(arrived.publish, properties, desk) {
            desk.state.work += route.len();
            return (Arc::clone(route), false);
        }
        let (exchange, key) = (arrived.publish.exchange.0, arrived.publish.routing_key.0);
        let (route, by_key_alone) = desk.route(&link.vhost, exchange, key, more_keys, properties);
        let is_address = exchange.is_empty() && reply_to::is_address(key);
        // What a transaction sends was checked when it was held, which may be long ago.
        let is_checked = !matches!(self.mode, Mode::Transaction(_));
        if by_key_alone && properties.headers.is_none() && !is_address && is_checked {
            let (epoch, route) = (desk.state.topology.epoch(), Arc::clone(&route));
            match &mut self.way {
                Some(way) => way.lead(epoch, exchange, key, route),
                None => {
                    let (exchange, key) = (exchange.to_vec(), key.to_vec());
                    self.way = Some(Way { epoch, exchange, key, route });
                }
            }
        }
        (route, is_address && reply(key, arrived, link, desk))
    }

    /// Whether the exchange is there, and the user may publish to it.
    fn check_exchange(
        publish: BasicPublish<'_>,
        properties: &Properties<'_>,
        link: &Link,
        desk: &Desk<'_>,
    ) -> Result<(), Failure> {
        let exchange = publish.exchange.0;
        link.check(desk, Access::Write, "exchange", exchange)?;
        if !exchange.is_empty() {
            let found = desk.vhost(&link.vhost).and_then(|vhost| vhost.exchange(exchange));
            let found = found.ok_or_else(|| Failure::no_exchange(exchange, &link.vhost))?;
            if found.value.internal {
                return Err(Failure::refused(format!(
                    "cannot publish to internal {}",
                    crate::amqp::error::exchange_in(exchange, &link.vhost)
                )));
            }
            if found.kind == ExchangeKind::Topic {
                for key in std::iter::once(publish.routing_key.0).chain(more_keys(properties)?.0) {
                    link.check_topic(desk, Access::Write, exchange, key)?;
                }
            }
        }
        Ok(())
    }

    /// Routes a message that was checked, and hands it to its queues.
    pub(super) fn send(
        &mut self,
        arrived: Arrived<'_>,
        properties: &Properties<'_>,
        expires_at: Option<WallMs>,
        link: &mut Link,
        desk: &mut Desk<'_>,
    ) -> Result<(), Failure> {
        let (exchange, key) = (arrived.publish.exchange.0, arrived.publish.routing_key.0);
        let (more, has_bcc) = more_keys(properties)?;
        desk.metrics.amqp_published.add(1);
        self.counts.published += 1;
        let (route, replied) = self.find_way(arrived, properties, &more, link, desk);
        self.tally.add(&link.vhost, exchange, route.len(), desk);
        match (route.is_empty() && !replied, arrived.publish.mandatory) {
            (false, _) => desk.metrics.amqp_routed.add(1),
            (true, true) => {
                desk.metrics.amqp_returned.add(1);
                self.counts.returned += 1;
                self.return_message(arrived, link);
            }
            (true, false) => {
                desk.metrics.amqp_dropped.add(1);
                self.counts.dropped += 1;
            }
        }
        desk.state.held.published(&route, link);
        let shards = route.shards.len();
        let number = match &mut self.mode {
            Mode::Plain => None,
            Mode::Confirm(confirms) => {
                desk.metrics.amqp_published_to_confirm.add(1);
                Some(confirms.publish(shards as u16))
            }
            Mode::Transaction(transaction) => {
                transaction.expect(shards);
                Some(0)
            }
        };
        if route.is_empty() {
            return Ok(());
        }
        let stored = self.stored_properties(arrived.properties, properties, has_bcc, link, desk);
        let traits = Traits {
            persistent: properties.is_persistent(),
            priority: properties.priority.unwrap_or(0),
            expires_at,
        };
        let published = Published { who: Some(self.who), number, count: 1, bytes: message_bytes(arrived) };
        let header = |buffer: &mut Vec<u8>| message::write(buffer, exchange, key, &stored);
        let may_share = desk.state.everybody.kept.publishing < AMQP_PUBLISHING_BYTES_SHARED_MAX;
        link.publishing_bytes +=
            desk.state.batches.publish(&route, header, arrived.body, may_share, traits, published);
        Ok(())
    }

    /// What is kept of a message's properties: all of them, as they came, but for hidden receivers and the place of whoever
    /// waits for an answer.
    fn stored_properties<'a>(
        &self,
        raw: &'a [u8],
        properties: &Properties<'a>,
        has_bcc: bool,
        link: &Link,
        desk: &Desk<'_>,
    ) -> Cow<'a, [u8]> {
        let address = properties
            .reply_to
            .filter(|name| reply_to::is_pseudo_queue(name))
            .and(self.reply_consumer.as_ref())
            .map(|consumer| {
                reply_to::address(
                    desk.out.shard(),
                    link.who(self.who.channel, self.who.life),
                    consumer.secret,
                )
            });
        if !has_bcc && address.is_none() {
            return Cow::Borrowed(raw);
        }
        let mut headers = TableWriter::default();
        for (name, value) in properties.headers.unwrap_or_default().iter() {
            if name != b"BCC" {
                headers.put(name, value);
            }
        }
        let changed = Properties {
            headers: properties.headers.map(|_| headers.table()),
            reply_to: address.as_deref().or(properties.reply_to),
            ..*properties
        };
        let mut bytes = Vec::new();
        changed.write(&mut bytes);
        Cow::Owned(bytes)
    }

    /// `basic.return`: there is no way for a message.
    fn return_message(&self, arrived: Arrived<'_>, link: &mut Link) {
        let BasicPublish { exchange, routing_key, .. } = arrived.publish;
        let code = ReplyCode::NoRoute as u16;
        let method = BasicReturn { reply_code: code, reply_text: Short(b"NO_ROUTE"), exchange, routing_key };
        link.method(self.who.channel, method);
        link.content(self.who.channel, arrived.properties, &arrived.body.to_slices());
    }
}

/// Passes an answer on, if the key is the address of somebody who waits for one.
fn reply(key: &[u8], arrived: Arrived<'_>, link: &Link, desk: &mut Desk<'_>) -> bool {
    let Some(to) = reply_to::read_address(key) else { return false };
    let mut header = Vec::new();
    message::write(&mut header, b"", key, arrived.properties);
    let told = crate::amqp::state::Told::Reply {
        who: to.who,
        secret: to.secret,
        header: Slice::from(header),
        body: arrived.body.to_slices(),
    };
    if to.shard.0 >= desk.out.metadata().shards {
        return false;
    }
    desk.tell(to.shard, told, Some(link.id));
    true
}

fn message_bytes(arrived: Arrived<'_>) -> usize {
    arrived.properties.len() + arrived.body.bytes() + MESSAGE_EXTRA_BYTES
}

/// When a message ends by its own wish.
fn expiry(properties: &Properties<'_>, desk: &Desk<'_>) -> Result<Option<WallMs>, Failure> {
    let Some(text) = properties.expiration else { return Ok(None) };
    let invalid = |why: &str| Failure::precondition(format!("invalid expiration '{}': {why}", Text(text)));
    let ms: i64 = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| invalid("no_integer"))?;
    match u32::try_from(ms) {
        Ok(ms) => Ok(Some(WallMs(desk.out.wall_ms().0 + i64::from(ms)))),
        Err(_) if ms < 0 => Err(invalid(&format!("{{value_negative,{ms}}}"))),
        Err(_) => Err(invalid(&format!("{{value_too_big,{ms}}}"))),
    }
}

/// The keys in a message's headers, and whether some of them are not to be seen.
pub(super) fn more_keys<'a>(properties: &Properties<'a>) -> Result<(Vec<&'a [u8]>, bool), Failure> {
    let mut keys = Vec::new();
    let Some(headers) = properties.headers else { return Ok((keys, false)) };
    let mut has_bcc = false;
    for (name, value) in headers.iter() {
        if name != b"CC" && name != b"BCC" {
            continue;
        }
        has_bcc |= name == b"BCC";
        let unacceptable = |value: Value<'_>| {
            let (name, kind) = (Text(name), value.type_name());
            Failure::precondition(format!(
                "invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}"
            ))
        };
        let Value::Array(values) = value else { return Err(unacceptable(value)) };
        for value in values.iter() {
            keys.push(value.string().ok_or_else(|| unacceptable(value))?);
            if keys.len() >= AMQP_KEYS_PER_MESSAGE_MAX {
                return Err(Failure::precondition(format!(
                    "invalid message: it has more than {AMQP_KEYS_PER_MESSAGE_MAX} keys"
                )));
            }
        }
    }
    Ok((keys, has_bcc))
}
