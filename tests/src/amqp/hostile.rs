//! AMQP clients that do what no client should, or do too much of what they may.

use std::net::SocketAddr;

use millstream::amqp::codec::{
    BasicAck, BasicCancel, BasicConsume, BasicGet, BasicNack, BasicPublish, BasicQos, ChannelClose,
    ChannelOpen, ConfirmSelect, ConnectionClose, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk,
    ExchangeBind, ExchangeDeclare, FRAME_BODY, FRAME_HEADER, FRAME_METHOD, Long, Method, PROTOCOL_HEADER,
    Properties, QueueBind, QueueDeclare, QueueDelete, Reader, Short, Table, TableWriter, TxSelect, Value,
    Writer,
};
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{SimPeer, World};

/// Queues that nobody else uses: what is in them is nobody's business.
const QUEUES: [&str; 3] = ["h.one", "h.two", "h.three"];
/// Queues that go with whoever has declared them.
pub const OWN: [&str; 2] = ["h.own", "h.mine"];
/// Bytes that are not read before a deaf client asks for no more.
const UNREAD_MAX: usize = 1 << 20;

/// What one of them does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    /// Sends bytes that mean nothing.
    Garbage,
    /// Says things before it is time for them.
    Early,
    /// Sends methods of which a few bytes are others.
    Mutant,
    /// Sends messages whose frames are not what they say.
    Lies,
    /// Sends messages of several channels frame by frame, by turns.
    Turns,
    /// Opens channels, and uses some of them.
    Channels,
    /// Sends tables within tables.
    Nested,
    /// Consumes and cancels, over and over.
    Storm,
    /// Takes what is others', settles nothing, and goes.
    Thief,
    /// Asks for much and reads nothing.
    Deaf,
    /// Sends one byte at a time.
    Dribble,
    /// Begins messages on all channels, and ends none.
    Unfinished,
    /// Publishes and never commits.
    Undecided,
    /// Sends copies to many keys, of which most lead nowhere.
    Copies,
    /// Declares, binds and deletes without waiting for anything.
    Declarer,
    /// Does something and is never heard of again.
    Ghost,
}

const HABITS: [Habit; 16] = [
    Habit::Garbage,
    Habit::Early,
    Habit::Mutant,
    Habit::Lies,
    Habit::Turns,
    Habit::Channels,
    Habit::Nested,
    Habit::Storm,
    Habit::Thief,
    Habit::Deaf,
    Habit::Dribble,
    Habit::Unfinished,
    Habit::Undecided,
    Habit::Copies,
    Habit::Declarer,
    Habit::Ghost,
];

/// One of them, on one connection.
pub struct Hostile {
    peer: SimPeer,
    habit: Habit,
    /// What a dribbling client has left to send, last byte first.
    left: Vec<u8>,
    acts: u32,
}

fn method<'m>(bytes: &mut Vec<u8>, channel: u16, method: impl Into<Method<'m>>) {
    Writer::new(bytes).method(channel, &method.into());
}

fn header(bytes: &mut Vec<u8>, channel: u16, body_bytes: u64, properties: &Properties<'_>) {
    let mut raw = Vec::new();
    properties.write(&mut raw);
    Writer::new(bytes).frame(FRAME_HEADER, channel, |writer| {
        writer.u32(60 << 16);
        writer.u64(body_bytes);
        writer.bytes(&raw);
    });
}

fn body(bytes: &mut Vec<u8>, channel: u16, len: usize) {
    Writer::new(bytes).frame(FRAME_BODY, channel, |writer| writer.bytes(&vec![b'h'; len]));
}

/// The handshake, and some channels.
fn beginning(channels: u16, heartbeat: u16) -> Vec<u8> {
    let mut bytes = PROTOCOL_HEADER.to_vec();
    let start_ok = ConnectionStartOk {
        client_properties: Table::EMPTY,
        mechanism: Short(b"PLAIN"),
        response: Long(b"\0guest\0guest"),
        locale: Short(b"en_US"),
    };
    method(&mut bytes, 0, start_ok);
    method(&mut bytes, 0, ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat });
    method(&mut bytes, 0, ConnectionOpen { vhost: Short(b"/"), ..ConnectionOpen::default() });
    for channel in 1..=channels {
        method(&mut bytes, channel, ChannelOpen::default());
    }
    bytes
}

fn declare(name: &str) -> QueueDeclare<'_> {
    QueueDeclare { queue: Short(name.as_bytes()), ..QueueDeclare::default() }
}

fn to(exchange: &'static str, key: &'static str) -> BasicPublish<'static> {
    BasicPublish {
        exchange: Short(exchange.as_bytes()),
        routing_key: Short(key.as_bytes()),
        ..BasicPublish::default()
    }
}

/// Any method, its fields small numbers mostly.
fn any_method(channel: u16, random: &mut Random) -> Vec<u8> {
    let (class, id) = Method::ALL[random.below(Method::ALL.len() as u64) as usize];
    let fields: Vec<u8> = (0..random.below(40)).map(|_| (random.next() & random.next() & 3) as u8).collect();
    let mut bytes = Vec::new();
    Writer::new(&mut bytes).frame(FRAME_METHOD, channel, |writer| {
        writer.u16(class);
        writer.u16(id);
        match Method::read(class, id, &mut Reader::new(&fields)) {
            Ok(Some(method)) => {
                let mut whole = Vec::new();
                method.write(&mut Writer::new(&mut whole));
                writer.bytes(whole.get(4..).unwrap_or_default());
            }
            _ => writer.bytes(&fields),
        }
    });
    bytes
}

impl Hostile {
    /// Connects, with some habit.
    pub fn connect(world: &World, address: SocketAddr, random: &mut Random) -> Hostile {
        let habit = HABITS[random.below(HABITS.len() as u64) as usize];
        Hostile { peer: world.connect(address), habit, left: Vec::new(), acts: 0 }
    }

    /// Whether there is nothing more to be expected of it.
    pub fn is_over(&self) -> bool {
        self.peer.is_closed() || self.acts > 400
    }

    /// Goes away, one way or the other.
    pub fn leave(&self, random: &mut Random) {
        match random.below(4) {
            0 => self.peer.reset(),
            1 => self.peer.vanish(),
            2 => {
                let mut bytes = Vec::new();
                method(&mut bytes, 0, ConnectionClose::default());
                self.peer.send(&bytes);
                self.peer.close();
            }
            _ => self.peer.close(),
        }
    }

    fn say(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.peer.send(&bytes);
    }

    /// Does what it does. `queue` is one that others use.
    pub fn act(&mut self, queue: &str, random: &mut Random) {
        self.acts += 1;
        if self.acts == 1 && !matches!(self.habit, Habit::Garbage | Habit::Early | Habit::Dribble) {
            // Those that nobody will hear of again are found out by their silence.
            self.peer.send(&beginning(3, 10));
            self.say(|bytes| QUEUES.iter().for_each(|name| method(bytes, 1, declare(name))));
        }
        if self.habit != Habit::Deaf {
            drop(self.peer.received());
        }
        let channel = random.between(1, 3) as u16;
        match self.habit {
            Habit::Garbage => {
                let bytes: Vec<u8> = (0..random.between(1, 2000)).map(|_| random.next() as u8).collect();
                self.peer.send(&bytes);
            }
            Habit::Early => {
                let whole = beginning(1, 10);
                let skipped = if random.chance(0.5) { 8 } else { 0 };
                if self.acts == 1 {
                    self.peer.send(&whole[skipped..random.between(8, whole.len() as u64) as usize]);
                }
                self.peer.send(&any_method(random.below(2) as u16, random));
            }
            Habit::Mutant => {
                let mut bytes = any_method(channel, random);
                if random.chance(0.1) {
                    let place = random.below(bytes.len() as u64) as usize;
                    bytes[place] ^= 1 << random.below(8);
                }
                self.peer.send(&bytes);
            }
            Habit::Lies => self.lie(channel, random),
            Habit::Turns => self.take_turns(random),
            Habit::Channels => self.say(|bytes| {
                let number = 4 + (self.acts % 2100) as u16;
                method(bytes, number, ChannelOpen::default());
                match random.below(4) {
                    0 => method(bytes, number, ChannelClose::default()),
                    1 => method(bytes, number, BasicGet { queue: Short(b"h.one"), ..BasicGet::default() }),
                    2 => method(bytes, number, BasicAck { delivery_tag: random.below(3), multiple: true }),
                    _ => {}
                }
            }),
            Habit::Nested => self.nest(channel, random),
            Habit::Storm => self.say(|bytes| {
                for _ in 0..random.between(1, 20) {
                    let tag = [&b"a"[..], b"b", b"c"][random.below(3) as usize];
                    let queue = Short(QUEUES[random.below(3) as usize].as_bytes());
                    let (no_wait, no_ack) = (random.chance(0.5), random.chance(0.5));
                    if random.chance(0.5) {
                        let tag = if random.chance(0.7) { Short(b"") } else { Short(tag) };
                        method(
                            bytes,
                            channel,
                            BasicConsume {
                                queue,
                                consumer_tag: tag,
                                no_wait,
                                no_ack,
                                ..BasicConsume::default()
                            },
                        );
                    } else {
                        method(bytes, channel, BasicCancel { consumer_tag: Short(tag), no_wait });
                    }
                }
            }),
            Habit::Thief => self.say(|bytes| match random.below(6) {
                0 => method(
                    bytes,
                    channel,
                    BasicConsume { queue: Short(queue.as_bytes()), ..BasicConsume::default() },
                ),
                1 => {
                    method(
                        bytes,
                        channel,
                        BasicGet { queue: Short(queue.as_bytes()), ..BasicGet::default() },
                    );
                }
                2 => method(bytes, channel, BasicNack { delivery_tag: 0, multiple: true, requeue: true }),
                3 => method(
                    bytes,
                    channel,
                    BasicQos {
                        prefetch_count: random.below(4) as u16,
                        global: random.chance(0.5),
                        ..BasicQos::default()
                    },
                ),
                4 if random.chance(0.2) => method(bytes, channel, ChannelClose::default()),
                _ => {}
            }),
            Habit::Deaf => {
                self.peer.pause_reading(true);
                if self.peer.unread() < UNREAD_MAX {
                    self.say(|bytes| {
                        method(bytes, channel, to("", "h.one"));
                        header(bytes, channel, 50_000, &Properties::default());
                        body(bytes, channel, 50_000);
                        method(
                            bytes,
                            channel,
                            BasicConsume {
                                queue: Short(b"h.one"),
                                no_ack: random.chance(0.5),
                                no_wait: true,
                                ..BasicConsume::default()
                            },
                        );
                        method(bytes, channel, BasicGet { queue: Short(b"h.one"), ..BasicGet::default() });
                    });
                }
            }
            Habit::Dribble => {
                if self.left.is_empty() {
                    self.left = if self.acts == 1 { beginning(1, 10) } else { any_method(1, random) };
                    self.left.reverse();
                }
                for _ in 0..random.between(1, 3) {
                    self.left.pop().into_iter().for_each(|byte| self.peer.send(&[byte]));
                }
            }
            Habit::Unfinished => self.say(|bytes| {
                let number = 4 + (self.acts % 1000) as u16;
                method(bytes, number, ChannelOpen::default());
                method(bytes, number, to("", "h.two"));
                header(bytes, number, 1 << 20, &Properties::default());
                body(bytes, number, random.between(1, 20_000) as usize);
            }),
            Habit::Undecided => self.say(|bytes| {
                method(bytes, channel, TxSelect {});
                method(bytes, channel, to("", "h.two"));
                header(bytes, channel, 20_000, &Properties::default());
                body(bytes, channel, 20_000);
                method(bytes, channel, BasicGet { queue: Short(b"h.two"), ..BasicGet::default() });
                method(bytes, channel, BasicAck { delivery_tag: 0, multiple: true });
            }),
            Habit::Copies => self.copies(channel, random),
            Habit::Declarer => self.declare_all(channel, random),
            Habit::Ghost if self.acts == 2 => {
                self.say(|bytes| {
                    method(bytes, 1, QueueDeclare { exclusive: true, ..declare(OWN[0]) });
                    method(
                        bytes,
                        1,
                        BasicConsume { queue: Short(queue.as_bytes()), ..BasicConsume::default() },
                    );
                    method(bytes, 2, to("", "h.three"));
                });
                self.peer.vanish();
            }
            Habit::Ghost => {}
        }
        if random.chance(0.01) {
            self.leave(random);
        }
    }

    /// A message that is not what its frames say, or not in order.
    fn lie(&self, channel: u16, random: &mut Random) {
        self.say(|bytes| {
            method(bytes, channel, to("", "h.one"));
            let said = [0, 1, 10, 5_000, 1 << 24, u64::MAX][random.below(6) as usize];
            for _ in 0..random.below(3) {
                header(bytes, channel, said, &Properties::default());
            }
            for _ in 0..random.below(4) {
                body(bytes, channel, [0, 0, 1, 5_000][random.below(4) as usize]);
            }
            match random.below(6) {
                0 => method(bytes, channel, ChannelClose::default()),
                1 => bytes.extend_from_slice(&[8, 0, channel as u8, 0, 0, 0, 0, 0xCE]),
                2 => bytes.extend_from_slice(&[3, 0, channel as u8, 0, 2, 0, 0]),
                3 => bytes.extend_from_slice(&[9, 0, channel as u8, 0, 0, 0, 0, 0xCE]),
                _ => {}
            }
        });
    }

    /// Three messages, frame by frame.
    fn take_turns(&self, random: &mut Random) {
        self.say(|bytes| {
            let mut stage = [0; 3];
            for _ in 0..30 {
                let place = random.below(3) as usize;
                let channel = place as u16 + 1;
                match stage[place] {
                    0 => method(bytes, channel, to("", QUEUES[place])),
                    1 => header(bytes, channel, 300, &Properties::default()),
                    _ => body(bytes, channel, 100),
                }
                stage[place] = (stage[place] + 1) % 5;
            }
            for (channel, stage) in (1..).zip(stage) {
                match stage {
                    1 => header(bytes, channel, 0, &Properties::default()),
                    2..=4 => body(bytes, channel, 100 * (5 - stage)),
                    _ => {}
                }
            }
        });
    }

    /// Arguments and headers that are deep, or long.
    fn nest(&self, channel: u16, random: &mut Random) {
        let depth = random.between(1, 100);
        let mut inner = TableWriter::default();
        for _ in 0..depth {
            inner = if random.chance(0.5) {
                TableWriter::default().with("t", Value::Table(inner.table()))
            } else {
                let array = TableWriter::array([Value::Table(inner.table())]);
                TableWriter::default().with("a", array.value())
            };
        }
        let wide: TableWriter = (0..random.below(200)).fold(inner, |table, place| {
            table.with(["x-match", "x-death", "CC", "k"][place as usize % 4], Value::I64(place as i64))
        });
        self.say(|bytes| {
            let declare = QueueDeclare { arguments: wide.table(), ..declare("h.deep") };
            method(bytes, channel, declare);
            let bind = QueueBind {
                queue: Short(b"h.one"),
                exchange: Short(b"amq.headers"),
                arguments: wide.table(),
                ..QueueBind::default()
            };
            method(bytes, channel, bind);
            method(bytes, channel, to("amq.headers", ""));
            header(bytes, channel, 0, &Properties { headers: Some(wide.table()), ..Properties::default() });
        });
    }

    /// Many keys, and patterns that are long in matching.
    fn copies(&self, channel: u16, random: &mut Random) {
        let keys: Vec<Vec<u8>> =
            (0..random.below(1_200)).map(|key| format!("a.{}", key % 30).into_bytes()).collect();
        let array = TableWriter::array(keys.iter().map(|key| Value::String(key)));
        let headers = TableWriter::default().with("BCC", array.value());
        self.say(|bytes| {
            let pattern = "#.*.".repeat(random.below(40) as usize);
            let bind = QueueBind {
                queue: Short(b"h.three"),
                exchange: Short(b"amq.topic"),
                routing_key: Short(pattern.as_bytes()),
                ..QueueBind::default()
            };
            method(bytes, channel, bind);
            method(bytes, channel, ConfirmSelect::default());
            method(bytes, channel, to("amq.topic", "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a"));
            let properties = Properties { headers: Some(headers.table()), ..Properties::default() };
            header(bytes, channel, 0, &properties);
        });
    }

    /// Queues of its own and exchanges, by the dozen.
    fn declare_all(&self, channel: u16, random: &mut Random) {
        self.say(|bytes| {
            for _ in 0..random.between(1, 10) {
                let own = OWN[random.below(2) as usize];
                let auto = Short(b"h.auto");
                match random.below(8) {
                    0 => method(bytes, channel, QueueDeclare { exclusive: true, ..declare(own) }),
                    1 => method(bytes, channel, QueueDeclare { auto_delete: true, ..declare("h.auto") }),
                    2 => method(
                        bytes,
                        channel,
                        BasicConsume { queue: auto, consumer_tag: Short(b"auto"), ..BasicConsume::default() },
                    ),
                    3 => method(bytes, channel, BasicCancel { consumer_tag: Short(b"auto"), no_wait: false }),
                    4 => method(
                        bytes,
                        channel,
                        QueueDelete { queue: Short(own.as_bytes()), ..QueueDelete::default() },
                    ),
                    5 => method(
                        bytes,
                        channel,
                        ExchangeDeclare {
                            exchange: Short(b"h.x"),
                            kind: Short(b"fanout"),
                            auto_delete: true,
                            ..ExchangeDeclare::default()
                        },
                    ),
                    6 => method(
                        bytes,
                        channel,
                        ExchangeBind {
                            source: Short(b"h.x"),
                            destination: Short(b"amq.direct"),
                            ..ExchangeBind::default()
                        },
                    ),
                    _ => method(
                        bytes,
                        channel,
                        QueueBind {
                            queue: Short(own.as_bytes()),
                            exchange: Short(b"h.x"),
                            ..QueueBind::default()
                        },
                    ),
                }
            }
        });
    }
}
