//! A client: what it says, what must come back, and how it takes that.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;

use millstream::amqp::codec::{
    BasicAck, BasicCancel, BasicConsume, BasicGet, BasicNack, BasicPublish, BasicQos, BasicRecover,
    BasicReject, ChannelClose, ChannelFlow, ChannelOpen, ConfirmSelect, ConnectionClose, ConnectionOpen,
    ConnectionStartOk, ConnectionTuneOk, ConnectionUnblocked, ExchangeDeclare, ExchangeDelete, FRAME_BODY,
    FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, Long, Method, PROTOCOL_HEADER, QueueBind, QueueDeclare,
    QueueDelete, QueuePurge, QueueUnbind, Short, Table, TxCommit, TxRollback, TxSelect, Writer,
};
use millstream::limits::AMQP_HANDSHAKE_MS;
use millstream_engine::io::sim::{SimPeer, World};
use millstream_engine::time::Nanos;

use super::channel::{Channel, Expected, Mode, State};
use super::content::{Address, Begun};
use super::messages::{Messages, QueueId};
use super::say::Say;

/// Channels of a client.
pub const CHANNELS: u16 = 2;
/// Queues of a client.
pub const SLOTS: usize = 2;
/// The largest frame that is agreed upon.
pub const FRAME_BYTES_MAX: usize = 4096;
/// A client who introduces himself in this time is in time.
const GREETED_IN: Nanos = Nanos::from_millis(AMQP_HANDSHAKE_MS / 2);
/// What nothing is called.
const NONE: &str = "none";
/// A tag that no delivery has.
const NO_TAG: u64 = 1 << 40;

/// What comes of a method on a channel that is open and in no message.
enum Outcome {
    Nothing,
    Answer(Expected),
    /// The channel ends, with this code.
    Fails(u16),
    /// The connection ends, with this code.
    Dooms(u16),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Open,
    /// It has said something for which the connection ends, with this code.
    Doomed(u16),
    /// It was told so.
    Told,
    /// It has said goodbye.
    Leaving,
    /// It has said what may mean anything.
    Garbled,
    Over,
}

#[derive(Debug)]
pub(super) struct Queue {
    id: QueueId,
    durable: bool,
    exclusive: bool,
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) channel: u16,
    /// Which life of the channel it is of.
    pub(super) life: u32,
    pub(super) queue: QueueId,
    pub(super) no_ack: bool,
    /// Nothing comes for it any more, by what was said; by what has come.
    pub(super) is_ended: bool,
    pub(super) is_over: bool,
    /// The last message that came for the first time, of each publisher.
    pub(super) last: BTreeMap<(u64, u16, u32), u64>,
}

/// One connection.
pub struct Client {
    pub(super) number: u64,
    /// The socket.
    pub peer: SimPeer,
    pub(super) life: Life,
    /// Bytes that have not gone out.
    pub(super) unsent: VecDeque<u8>,
    /// Of those, what it introduces itself with; and whether some of that went out late.
    greeting: usize,
    was_late: bool,
    /// It has not read for some time.
    pub(super) was_deaf: bool,
    connected: Nanos,
    world: World,
    pub(super) inbox: Vec<u8>,
    pub(super) written: usize,
    /// What has to come about the connection as a whole.
    pub(super) expected: VecDeque<(u16, u16)>,
    pub(super) channels: BTreeMap<u16, Channel>,
    pub(super) queues: [Option<Queue>; SLOTS],
    pub(super) queues_made: u32,
    /// Its exchange, if it is there, and whether that is a topic exchange; and which queues are bound to it.
    pub(super) exchange: Option<bool>,
    pub(super) bound: [bool; SLOTS],
    pub(super) consumers: BTreeMap<String, Consumer>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Client { number, life, expected, channels, .. } = self;
        write!(f, "client {number}, {life:?}, {} unsent, {expected:?}, {channels:?}", self.unsent.len())
    }
}

impl Client {
    /// Connects, and says all that it takes to be let in without waiting for an answer.
    pub fn connect(world: &World, address: SocketAddr, number: u64) -> Client {
        let mut client = Client {
            number,
            peer: world.connect(address),
            life: Life::Open,
            unsent: PROTOCOL_HEADER.into(),
            greeting: 0,
            was_late: false,
            was_deaf: false,
            connected: world.now(),
            world: world.clone(),
            inbox: Vec::new(),
            written: 0,
            expected: [(10, 10), (10, 30), (10, 41)].into(),
            channels: (1..=CHANNELS).map(|number| (number, Channel::new())).collect(),
            queues: [const { None }; SLOTS],
            queues_made: 0,
            exchange: None,
            bound: [false; SLOTS],
            consumers: BTreeMap::new(),
        };
        let start_ok = ConnectionStartOk {
            client_properties: Table::EMPTY,
            mechanism: Short(b"PLAIN"),
            response: Long(b"\0guest\0guest"),
            locale: Short(b"en_US"),
        };
        client.write_method(0, &start_ok.into());
        let tune_ok = ConnectionTuneOk { channel_max: 10, frame_max: FRAME_BYTES_MAX as u32, heartbeat: 0 };
        client.write_method(0, &tune_ok.into());
        client.write_method(0, &ConnectionOpen { vhost: Short(b"/"), ..ConnectionOpen::default() }.into());
        client.greeting = client.unsent.len();
        client
    }

    /// It does not read any more, or does again.
    pub fn read(&mut self, reads: bool) {
        self.was_deaf |= !reads;
        self.peer.pause_reading(!reads);
    }

    /// Whether its connection has ended.
    pub fn is_over(&self) -> bool {
        self.life == Life::Over
    }

    /// Whether all that had to come has come.
    pub fn is_content(&self) -> bool {
        match self.life {
            Life::Open => {
                let is_quiet = self.unsent.is_empty() && self.expected.is_empty();
                is_quiet && self.channels.values().all(Channel::is_content)
            }
            Life::Garbled => self.unsent.is_empty(),
            Life::Doomed(_) | Life::Told | Life::Leaving => false,
            Life::Over => true,
        }
    }

    /// Sends bytes of what was written.
    pub fn send(&mut self, bytes: usize) {
        let bytes: Vec<u8> = self.unsent.drain(..bytes.min(self.unsent.len())).collect();
        if !bytes.is_empty() {
            self.peer.send(&bytes);
        }
        self.was_late |= self.greeting > 0 && self.world.now().since(self.connected) > GREETED_IN;
        self.greeting = self.greeting.saturating_sub(bytes.len());
    }

    /// Whether it may have been taken for somebody who does not introduce himself.
    pub(super) fn is_late(&self) -> bool {
        self.was_late || self.greeting > 0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.written += bytes.len();
        self.unsent.extend(bytes);
    }

    pub(super) fn write_method(&mut self, channel: u16, method: &Method<'_>) {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).method(channel, method);
        self.write(&bytes);
    }

    fn write_frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).frame(kind, channel, |writer| writer.bytes(payload));
        self.write(&bytes);
    }

    pub(super) fn channel(&mut self, number: u16) -> &mut Channel {
        self.channels.get_mut(&number).expect("a client uses its own channels")
    }

    fn doom(&mut self, code: u16) {
        self.life = Life::Doomed(code);
    }

    /// A channel's consumers are over, by what was said.
    fn end_consumers(&mut self, number: u16) {
        let own = self.consumers.values_mut().filter(|consumer| consumer.channel == number);
        own.for_each(|consumer| consumer.is_ended = true);
    }

    /// Says a method. Gives whether it takes effect.
    fn method<'m>(&mut self, number: u16, method: impl Into<Method<'m>>, outcome: Outcome) -> bool {
        let method = method.into();
        self.write_method(number, &method);
        let channel = self.channel(number);
        if channel.begun.is_some() {
            self.doom(505);
            return false;
        }
        match (channel.state, outcome) {
            (State::Failed, _) => return false,
            (State::Closed, _) => {
                let is_late =
                    matches!(method, Method::BasicAck(_) | Method::BasicNack(_) | Method::BasicReject(_));
                if !is_late {
                    self.doom(504);
                }
                return false;
            }
            (State::Open, Outcome::Nothing) => {}
            (State::Open, Outcome::Answer(answer)) => channel.expected.push_back(answer),
            (State::Open, Outcome::Fails(code)) => {
                self.fail(number, code);
                return false;
            }
            (State::Open, Outcome::Dooms(code)) => {
                self.doom(code);
                return false;
            }
        }
        true
    }

    fn fail(&mut self, number: u16, code: u16) {
        let channel = self.channel(number);
        channel.end(State::Failed);
        channel.expected.push_back(Expected::Failed(code, true));
        self.end_consumers(number);
    }

    /// Says something on a channel. Gives how many bytes that is.
    pub fn say(&mut self, number: u16, say: Say, messages: &mut Messages) -> usize {
        let before = self.written;
        if self.life == Life::Open {
            self.say_something(number, say, messages);
        }
        self.written - before
    }

    fn say_something(&mut self, number: u16, say: Say, messages: &mut Messages) {
        match say {
            Say::OpenChannel => self.open_channel(number),
            Say::CloseChannel => self.close_channel(number),
            Say::Declare { slot, durable, exclusive, passive } => {
                self.declare(number, slot, (durable, exclusive, passive), messages);
            }
            Say::Bind { slot, wrong } => self.bind(number, slot, wrong),
            Say::Unbind(slot) => self.unbind(number, slot),
            Say::Purge(slot) => self.purge(number, slot, messages),
            Say::Delete(slot) => self.delete(number, slot, messages),
            Say::DeclareExchange { topic } => self.declare_exchange(number, topic),
            Say::DeleteExchange => {
                let name = self.exchange_name();
                let method = ExchangeDelete { exchange: Short(name.as_bytes()), ..ExchangeDelete::default() };
                if self.method(number, method, Outcome::Answer(Expected::Done(40, 21))) {
                    (self.exchange, self.bound) = (None, [false; SLOTS]);
                }
            }
            Say::Qos { count, all, size } => {
                let method = BasicQos { prefetch_size: u32::from(size), prefetch_count: count, global: all };
                let ok = Outcome::Answer(Expected::Done(60, 11));
                self.method(number, method, if size { Outcome::Dooms(540) } else { ok });
            }
            Say::Consume { slot, no_ack, again } => self.consume(number, slot, no_ack, again),
            Say::Cancel(nth) => self.cancel(number, nth),
            Say::Publish { slot, way, len, persistent, whole } => {
                let address = self.address(slot, way);
                self.publish(number, address, (len, persistent, whole), messages);
            }
            Say::Continue => self.go_on(number, messages),
            Say::Get { slot, no_ack } => {
                let (name, id) = self.queue_name(slot);
                let method = BasicGet { queue: Short(name.as_bytes()), no_ack, ..BasicGet::default() };
                let outcome = id.map_or(Outcome::Fails(404), |id| Outcome::Answer(Expected::Got(id, no_ack)));
                self.method(number, method, outcome);
            }
            Say::Settle { nth, multiple, how } => self.settle(number, nth, multiple, how, messages),
            Say::SettleUnknown(how) => {
                self.settlement(number, NO_TAG, how, false, Outcome::Fails(406));
            }
            Say::Recover { requeue } => {
                let ok = Outcome::Answer(Expected::Recovered);
                let outcome = if requeue { ok } else { Outcome::Dooms(540) };
                if self.method(number, BasicRecover { requeue }, outcome) {
                    self.channel(number).recovering += 1;
                }
            }
            Say::Confirm => {
                let is_in_transaction = matches!(self.channel(number).mode, Mode::Transaction(..));
                let ok = Outcome::Answer(Expected::Done(85, 11));
                let outcome = if is_in_transaction { Outcome::Fails(406) } else { ok };
                if self.method(number, ConfirmSelect::default(), outcome)
                    && matches!(self.channel(number).mode, Mode::Plain)
                {
                    self.channel(number).mode = Mode::Confirm(0);
                }
            }
            Say::Begin => {
                let confirms = matches!(self.channel(number).mode, Mode::Confirm(_));
                let ok = Outcome::Answer(Expected::Done(90, 11));
                let outcome = if confirms { Outcome::Fails(406) } else { ok };
                if self.method(number, TxSelect {}, outcome)
                    && matches!(self.channel(number).mode, Mode::Plain)
                {
                    self.channel(number).mode = Mode::Transaction(Vec::new(), Vec::new());
                }
            }
            Say::Commit => self.commit(number, messages),
            Say::RollBack => {
                let Mode::Transaction(..) = self.channel(number).mode else {
                    self.method(number, TxRollback {}, Outcome::Fails(406));
                    return;
                };
                if self.method(number, TxRollback {}, Outcome::Answer(Expected::Done(90, 31))) {
                    let channel = self.channel(number);
                    if let Mode::Transaction(_, settled) =
                        std::mem::replace(&mut channel.mode, Mode::Transaction(Vec::new(), Vec::new()))
                    {
                        channel.unsettled.extend(settled);
                    }
                }
            }
            Say::Flow { active } => {
                let ok = Outcome::Answer(Expected::Done(20, 21));
                self.method(number, ChannelFlow { active }, if active { ok } else { Outcome::Dooms(540) });
            }
            Say::Heartbeat => self.write_frame(FRAME_HEARTBEAT, 0, b""),
            Say::CloseConnection => {
                self.write_method(
                    0,
                    &ConnectionClose { reply_code: 200, ..ConnectionClose::default() }.into(),
                );
                self.life = Life::Leaving;
            }
            Say::Misplaced(which) => self.misplace(number, which),
            Say::Immediate => {
                let publish = BasicPublish { immediate: true, ..BasicPublish::default() };
                self.method(number, publish, Outcome::Dooms(540));
            }
            Say::Garbage(bytes) => {
                let bytes: Vec<u8> = (0..bytes).map(|at| (at * at + at / 3) as u8).collect();
                self.write(&bytes);
                self.life = Life::Garbled;
            }
        }
    }

    fn open_channel(&mut self, number: u16) {
        self.write_method(number, &ChannelOpen::default().into());
        let channel = self.channel(number);
        match channel.state {
            State::Open if channel.begun.is_some() => self.doom(505),
            State::Open => self.doom(504),
            State::Failed => {}
            State::Closed => {
                channel.state = State::Open;
                channel.life += 1;
                channel.expected.push_back(Expected::Opened);
            }
        }
    }

    fn close_channel(&mut self, number: u16) {
        self.write_method(number, &ChannelClose { reply_code: 200, ..ChannelClose::default() }.into());
        let channel = self.channel(number);
        if channel.begun.is_some() {
            self.doom(505);
            return;
        }
        // That both sides close it is answer enough.
        if let Some(Expected::Failed(_, is_answered)) = channel.expected.back_mut()
            && channel.state == State::Failed
        {
            *is_answered = false;
        }
        channel.end(State::Closed);
        channel.expected.push_back(Expected::Closed);
        self.end_consumers(number);
    }

    /// The name of a queue, or of none; and which it is.
    fn queue_name(&self, slot: usize) -> (String, Option<QueueId>) {
        let id = self.queues[slot].as_ref().map(|queue| queue.id);
        (id.map_or_else(|| NONE.to_owned(), |id| id.to_string()), id)
    }

    fn exchange_name(&self) -> String {
        format!("x{}", self.number)
    }

    fn declare(
        &mut self,
        number: u16,
        slot: usize,
        (durable, exclusive, passive): (bool, bool, bool),
        messages: &mut Messages,
    ) {
        let new = QueueId { client: self.number, slot, time: self.queues_made };
        let known = self.queues[slot].as_ref();
        let id = known.map_or(new, |queue| queue.id);
        let stored = durable && !exclusive;
        let outcome = match known {
            None if passive => Outcome::Fails(404),
            Some(queue) if !passive && queue.exclusive != exclusive => Outcome::Fails(405),
            Some(queue) if !passive && queue.durable != stored => Outcome::Fails(406),
            None | Some(_) => Outcome::Answer(Expected::Declared(id)),
        };
        let is_new = known.is_none() && !passive;
        let name = id.to_string();
        let queue = Short(name.as_bytes());
        let method = QueueDeclare { queue, durable, exclusive, passive, ..QueueDeclare::default() };
        if self.method(number, method, outcome) && is_new {
            self.queues_made += 1;
            self.queues[slot] = Some(Queue { id, durable: stored, exclusive });
            messages.declared(id, stored);
        }
    }

    fn bind(&mut self, number: u16, slot: usize, wrong: usize) {
        let (name, id) = self.queue_name(slot);
        let (queue, own) = (if wrong == 15 { NONE } else { &name }, self.exchange_name());
        let exchange = [own.as_str(), NONE, ""][wrong.saturating_sub(12).min(2)];
        let exchange = if wrong == 15 { own.as_str() } else { exchange };
        let ok = Outcome::Answer(Expected::Done(50, 21));
        let outcome = match exchange {
            "" => Outcome::Fails(403),
            NONE => Outcome::Fails(404),
            _ if wrong == 15 || id.is_none() || self.exchange.is_none() => Outcome::Fails(404),
            _ => ok,
        };
        let (queue, exchange) = (Short(queue.as_bytes()), Short(exchange.as_bytes()));
        let method =
            QueueBind { queue, exchange, routing_key: Short(name.as_bytes()), ..QueueBind::default() };
        if self.method(number, method, outcome) {
            self.bound[slot] = true;
        }
    }

    fn unbind(&mut self, number: u16, slot: usize) {
        let (name, exchange) = (self.queue_name(slot).0, self.exchange_name());
        if self.queues[slot].is_none() || self.exchange.is_none() {
            return;
        }
        let (queue, exchange) = (Short(name.as_bytes()), Short(exchange.as_bytes()));
        let method = QueueUnbind { queue, exchange, routing_key: queue, ..QueueUnbind::default() };
        if self.method(number, method, Outcome::Answer(Expected::Done(50, 51))) {
            self.bound[slot] = false;
        }
    }

    fn purge(&mut self, number: u16, slot: usize, messages: &mut Messages) {
        let (name, id) = self.queue_name(slot);
        let method = QueuePurge { queue: Short(name.as_bytes()), ..QueuePurge::default() };
        let outcome = id.map_or(Outcome::Fails(404), |_| Outcome::Answer(Expected::Done(50, 31)));
        if self.method(number, method, outcome)
            && let Some(id) = id
        {
            messages.purged(id);
        }
    }

    fn delete(&mut self, number: u16, slot: usize, messages: &mut Messages) {
        let (name, id) = self.queue_name(slot);
        let method = QueueDelete { queue: Short(name.as_bytes()), ..QueueDelete::default() };
        if self.method(number, method, Outcome::Answer(Expected::Deleted(id)))
            && let Some(id) = id
        {
            messages.deleted(id);
            self.queues[slot] = None;
            self.bound[slot] = false;
            let of_it = self.consumers.values_mut().filter(|consumer| consumer.queue == id);
            of_it.for_each(|consumer| consumer.is_ended = true);
        }
    }

    fn declare_exchange(&mut self, number: u16, topic: bool) {
        let name = self.exchange_name();
        let kind = Short(if topic { b"topic" } else { b"direct" });
        let method = ExchangeDeclare { exchange: Short(name.as_bytes()), kind, ..ExchangeDeclare::default() };
        let other = self.exchange.is_some_and(|known| known != topic);
        let ok = Outcome::Answer(Expected::Done(40, 11));
        if self.method(number, method, if other { Outcome::Fails(406) } else { ok }) {
            self.exchange = Some(topic);
        }
    }

    fn consume(&mut self, number: u16, slot: usize, no_ack: bool, again: bool) {
        let (name, id) = self.queue_name(slot);
        let lives = |consumer: &Consumer| consumer.channel == number && !consumer.is_ended;
        let taken = self.consumers.iter().find(|(_, consumer)| again && lives(consumer));
        let (tag, outcome) = match (taken, id) {
            (Some((tag, _)), _) => (tag.clone(), Outcome::Dooms(530)),
            (None, Some(_)) => {
                let tag = format!("t{}", self.consumers.len());
                (tag.clone(), Outcome::Answer(Expected::Consuming(tag)))
            }
            (None, None) => ("t".to_owned(), Outcome::Fails(404)),
        };
        let (queue, consumer_tag) = (Short(name.as_bytes()), Short(tag.as_bytes()));
        let method = BasicConsume { queue, consumer_tag, no_ack, ..BasicConsume::default() };
        if self.method(number, method, outcome)
            && let Some(queue) = id
        {
            let (life, last) = (self.channel(number).life, BTreeMap::new());
            let (is_ended, is_over) = (false, false);
            let consumer = Consumer { channel: number, life, queue, no_ack, is_ended, is_over, last };
            self.consumers.insert(tag, consumer);
        }
    }

    fn cancel(&mut self, number: u16, nth: usize) {
        let lives = |consumer: &Consumer| consumer.channel == number && !consumer.is_ended;
        let live: Vec<_> = self.consumers.iter().filter(|(_, consumer)| lives(consumer)).collect();
        let tag = live.get(nth % (live.len() + 1)).map_or_else(|| NONE.to_owned(), |(tag, _)| (*tag).clone());
        let method = BasicCancel { consumer_tag: Short(tag.as_bytes()), no_wait: false };
        if self.method(number, method, Outcome::Answer(Expected::Cancelled(tag.clone())))
            && let Some(consumer) = self.consumers.get_mut(&tag)
        {
            consumer.is_ended = true;
        }
    }

    fn address(&self, slot: usize, way: usize) -> Address {
        let key = self.queue_name(slot).0;
        let (exchange, key) = match way {
            4 | 5 => (self.exchange_name(), key),
            6 => (String::new(), NONE.to_owned()),
            7 => (NONE.to_owned(), key),
            _ => (String::new(), key),
        };
        Address { exchange, key, mandatory: way.is_multiple_of(2) }
    }

    fn publish(
        &mut self,
        number: u16,
        address: Address,
        (len, persistent, whole): (usize, bool, bool),
        messages: &mut Messages,
    ) {
        let client = self.number;
        let channel = self.channel(number);
        let is_held = matches!(channel.mode, Mode::Transaction(..));
        let publisher = (!is_held).then_some((client, number, channel.life));
        if !channel.is_live() {
            // Its number is of no matter: it is never published.
            self.method(number, BasicPublish::default(), Outcome::Nothing);
            return;
        }
        let id = messages.add(publisher, persistent);
        let (method, begun) = Begun::new(number, id, address, persistent, len);
        self.channel(number).begun = Some(begun);
        self.write(&method);
        while whole && self.channel(number).begun.is_some() {
            self.go_on(number, messages);
        }
    }

    /// Says the next frame of the message that was begun, if one was.
    fn go_on(&mut self, number: u16, messages: &mut Messages) {
        let Some(mut begun) = self.channel(number).begun.take() else { return };
        let frame = begun.next();
        self.write(&frame);
        if begun.is_whole() {
            self.published(number, begun.id, begun.address, messages);
        } else {
            self.channel(number).begun = Some(begun);
        }
    }

    /// Ends the messages that were begun.
    pub fn end_contents(&mut self, messages: &mut Messages) {
        for number in 1..=CHANNELS {
            while self.life == Life::Open && self.channel(number).begun.is_some() {
                self.go_on(number, messages);
            }
        }
    }

    /// A message was said whole.
    fn published(&mut self, number: u16, id: u64, address: Address, messages: &mut Messages) {
        let is_there = match address.exchange.as_str() {
            "" => true,
            NONE => false,
            _ => self.exchange.is_some(),
        };
        if !is_there {
            return self.fail(number, 404);
        }
        match &mut self.channel(number).mode {
            Mode::Transaction(held, _) => return held.push((id, address)),
            Mode::Plain => {}
            Mode::Confirm(count) => {
                *count += 1;
                let count = *count;
                let channel = self.channel(number);
                channel.unconfirmed.insert((channel.life, count), id);
            }
        }
        self.route(number, id, &address, messages);
    }

    fn route(&mut self, number: u16, id: u64, address: &Address, messages: &mut Messages) {
        let found = (0..SLOTS).find_map(|slot| {
            let (name, queue) = self.queue_name(slot);
            let leads = address.exchange.is_empty() || self.exchange.is_some() && self.bound[slot];
            queue.filter(|_| name == address.key && leads)
        });
        messages.routed(id, found);
        if found.is_none() && address.mandatory {
            let channel = self.channel(number);
            channel.returning.insert((channel.life, id));
        }
    }

    fn commit(&mut self, number: u16, messages: &mut Messages) {
        let channel = self.channel(number);
        let Mode::Transaction(held, _) = &channel.mode else {
            self.method(number, TxCommit {}, Outcome::Fails(406));
            return;
        };
        let held = held.clone();
        let ids = held.iter().map(|(id, _)| *id).collect();
        if self.method(number, TxCommit {}, Outcome::Answer(Expected::Committed(ids))) {
            self.channel(number).mode = Mode::Transaction(Vec::new(), Vec::new());
            for (id, address) in held {
                self.route(number, id, &address, messages);
            }
        }
    }

    /// Says how a delivery is settled.
    fn settlement(
        &mut self,
        number: u16,
        delivery_tag: u64,
        how: usize,
        multiple: bool,
        outcome: Outcome,
    ) -> bool {
        match how {
            0 | 1 => self.method(number, BasicAck { delivery_tag, multiple }, outcome),
            2 => self.method(number, BasicNack { delivery_tag, multiple, requeue: true }, outcome),
            3 => self.method(number, BasicNack { delivery_tag, multiple, requeue: false }, outcome),
            _ => self.method(number, BasicReject { delivery_tag, requeue: !multiple }, outcome),
        }
    }

    fn settle(&mut self, number: u16, nth: usize, multiple: bool, how: usize, messages: &mut Messages) {
        let channel = self.channel(number);
        // What came before the channel was closed, or given back, is nobody's to settle.
        if !channel.is_live() || channel.life != channel.life_come || channel.recovering > 0 {
            return;
        }
        let Some(tag) = channel.unsettled.keys().nth(nth % channel.unsettled.len().max(1)).copied() else {
            return;
        };
        if !self.settlement(number, tag, how, multiple, Outcome::Nothing) {
            return;
        }
        let requeued = how == 2 || how == 4 && !multiple;
        let channel = self.channel(number);
        let settled: Vec<(u64, u64)> = if multiple && how != 4 {
            let later = channel.unsettled.split_off(&(tag + 1));
            std::mem::replace(&mut channel.unsettled, later).into_iter().collect()
        } else {
            channel.unsettled.remove_entry(&tag).into_iter().collect()
        };
        if !requeued {
            for (_, id) in &settled {
                messages.dropped(*id);
            }
        }
        if let Mode::Transaction(_, all) = &mut channel.mode {
            all.extend(settled);
        }
    }

    /// Says what does not belong where it is.
    fn misplace(&mut self, number: u16, which: usize) {
        let channel = self.channel(number);
        let (state, in_message) = (channel.state, channel.begun.is_some());
        let header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        match which {
            0 => {
                self.write_frame(FRAME_HEARTBEAT, number, b"");
                self.doom(505);
            }
            1 | 2 if in_message => {}
            1 | 2 => {
                let (kind, payload) =
                    if which == 1 { (FRAME_HEADER, &header[..]) } else { (FRAME_BODY, &b"x"[..]) };
                self.write_frame(kind, number, payload);
                match state {
                    State::Open => self.doom(505),
                    State::Closed => self.doom(504),
                    State::Failed => {}
                }
            }
            3 | 4 => {
                let (payload, code) = if which == 3 { ([0, 60, 0, 20], 501) } else { ([0, 60, 0, 99], 503) };
                self.write_frame(FRAME_METHOD, number, &payload);
                if state != State::Failed {
                    self.doom(code);
                }
            }
            5 => {
                self.write_method(0, &BasicRecover { requeue: true }.into());
                self.doom(504);
            }
            6 => {
                self.write_method(0, &ConnectionUnblocked {}.into());
                self.doom(503);
            }
            7 => {
                self.write_frame(7, number, b"");
                self.doom(501);
            }
            _ => {
                self.write(b"\x01\x00\x01\x00\x00\x00\x01x\x00");
                self.doom(501);
            }
        }
    }
}
