//! A client: writes methods and contents, reads what comes back, one frame after the other.

use std::fmt::Write as _;

use millstream::amqp::codec::{
    BasicPublish, ChannelOpen, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk, FRAME_BODY, FRAME_HEADER,
    FRAME_HEARTBEAT, FRAME_METHOD, Header, Long, Method, PROTOCOL_HEADER, Properties, QueueBind,
    QueueDeclare, Reader, Short, Table, TableWriter, Value, Writer,
};
use millstream_engine::io::ConnId;

use crate::node::Node;

/// A frame that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Came {
    pub kind: u8,
    pub channel: u16,
    pub payload: Vec<u8>,
}

pub struct Client {
    pub conn: ConnId,
}

/// A client's properties with every capability.
pub fn capable() -> TableWriter {
    let capabilities = TableWriter::default()
        .with("consumer_cancel_notify", Value::Bool(true))
        .with("authentication_failure_close", Value::Bool(true))
        .with("connection.blocked", Value::Bool(true));
    TableWriter::default().with("capabilities", Value::Table(capabilities.table()))
}

/// Properties as they stand on the wire.
pub fn raw(properties: &Properties<'_>) -> Vec<u8> {
    let mut raw = Vec::new();
    properties.write(&mut raw);
    raw
}

impl Client {
    /// A connection that is open, with nothing to be read.
    pub fn open(node: &mut Node) -> Client {
        Client::open_with(node, &capable())
    }

    /// The same, of a client with these properties.
    pub fn open_with(node: &mut Node, properties: &TableWriter) -> Client {
        Client::open_as(node, properties, 0)
    }

    /// The same, with channel 1, of a client that says every so many seconds that it is there.
    pub fn beating(node: &mut Node, heartbeat_s: u16) -> Client {
        let client = Client::open_as(node, &capable(), heartbeat_s);
        client.open_channel(node, 1);
        client
    }

    fn open_as(node: &mut Node, properties: &TableWriter, heartbeat_s: u16) -> Client {
        let client = Client { conn: node.connect() };
        client.raw(node, &PROTOCOL_HEADER);
        client.login_as(node, properties, b"PLAIN", b"\0guest\0guest");
        client.tune(node, 2047, 131_072, heartbeat_s);
        client.method(node, 0, ConnectionOpen { vhost: Short(b"/"), ..ConnectionOpen::default() });
        let shown = client.shown(node);
        assert!(shown.ends_with("0 ConnectionOpenOk { known_hosts: \"\" }"), "{shown}");
        client
    }

    /// The same, while sends do not complete by themselves.
    pub fn with_channel_quietly(node: &mut Node) -> Client {
        let holds = std::mem::replace(&mut node.hold_sends, false);
        let client = Client::with_channel(node);
        node.hold_sends = holds;
        client
    }

    /// The same, with channel 1.
    pub fn with_channel(node: &mut Node) -> Client {
        let client = Client::open(node);
        client.open_channel(node, 1);
        client
    }

    pub fn open_channel(&self, node: &mut Node, channel: u16) {
        self.method(node, channel, ChannelOpen::default());
        assert_eq!(self.shown(node), format!("{channel} ChannelOpenOk {{ channel_id: \"\" }}"));
    }

    pub fn login(&self, node: &mut Node, mechanism: &[u8], response: &[u8]) {
        self.login_as(node, &capable(), mechanism, response);
    }

    fn login_as(&self, node: &mut Node, properties: &TableWriter, mechanism: &[u8], response: &[u8]) {
        let start_ok = ConnectionStartOk {
            client_properties: properties.table(),
            mechanism: Short(mechanism),
            response: Long(response),
            locale: Short(b"en_US"),
        };
        self.method(node, 0, start_ok);
    }

    pub fn tune(&self, node: &mut Node, channel_max: u16, frame_max: u32, heartbeat: u16) {
        self.method(node, 0, ConnectionTuneOk { channel_max, frame_max, heartbeat });
    }

    /// Says that it is there.
    pub fn beat(&self, node: &mut Node) {
        let mut heartbeat = Vec::new();
        Writer::new(&mut heartbeat).frame(FRAME_HEARTBEAT, 0, |_| {});
        self.raw(node, &heartbeat);
    }

    pub fn raw(&self, node: &mut Node, bytes: &[u8]) {
        node.receive(self.conn, bytes);
    }

    pub fn method<'m>(&self, node: &mut Node, channel: u16, method: impl Into<Method<'m>>) {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).method(channel, &method.into());
        self.raw(node, &bytes);
    }

    /// Says something and gives the answer as it is shown.
    pub fn ask<'m>(&self, node: &mut Node, channel: u16, method: impl Into<Method<'m>>) -> String {
        self.method(node, channel, method);
        self.shown(node)
    }

    /// A message's frames.
    pub fn message(channel: u16, publish: BasicPublish<'_>, properties: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.method(channel, &publish.into());
        writer.frame(FRAME_HEADER, channel, |writer| {
            writer.u16(60);
            writer.u16(0);
            writer.u64(body.len() as u64);
            writer.bytes(properties);
        });
        for chunk in body.chunks(131_072 - 8) {
            writer.frame(FRAME_BODY, channel, |writer| writer.bytes(chunk));
        }
        bytes
    }

    pub fn publish_with(
        &self,
        node: &mut Node,
        channel: u16,
        exchange: &str,
        key: &str,
        properties: &Properties<'_>,
        body: &[u8],
    ) {
        let publish = BasicPublish {
            exchange: Short(exchange.as_bytes()),
            routing_key: Short(key.as_bytes()),
            mandatory: true,
            ..BasicPublish::default()
        };
        self.raw(node, &Client::message(channel, publish, &raw(properties), body));
    }

    pub fn publish(&self, node: &mut Node, channel: u16, exchange: &str, key: &str, body: &str) {
        self.publish_with(node, channel, exchange, key, &Properties::default(), body.as_bytes());
    }

    /// Declares a queue on channel 1, durable, with arguments, and expects it to work.
    pub fn queue(&self, node: &mut Node, name: &str, arguments: &TableWriter) {
        let declare = QueueDeclare {
            queue: Short(name.as_bytes()),
            durable: true,
            arguments: arguments.table(),
            ..QueueDeclare::default()
        };
        let shown = self.ask(node, 1, declare);
        assert!(shown.starts_with("1 QueueDeclareOk"), "{shown}");
    }

    pub fn bind(&self, node: &mut Node, queue: &str, exchange: &str, key: &str, arguments: Table<'_>) {
        let bind = QueueBind {
            queue: Short(queue.as_bytes()),
            exchange: Short(exchange.as_bytes()),
            routing_key: Short(key.as_bytes()),
            arguments,
            ..QueueBind::default()
        };
        assert_eq!(self.ask(node, 1, bind), "1 QueueBindOk");
    }

    /// The frames that have come.
    pub fn came(&self, node: &mut Node) -> Vec<Came> {
        let sent = std::mem::take(&mut node.sockets.get_mut(&self.conn).unwrap().sent);
        let mut rest = &sent[..];
        let mut came = Vec::new();
        while rest.len() > 7 {
            let len = u32::from_be_bytes(rest[3..7].try_into().unwrap()) as usize;
            if rest.len() < 8 + len {
                break;
            }
            assert_eq!(rest[7 + len], 0xCE, "a frame has an end");
            let channel = u16::from_be_bytes(rest[1..3].try_into().unwrap());
            came.push(Came { kind: rest[0], channel, payload: rest[7..7 + len].to_vec() });
            rest = &rest[8 + len..];
        }
        node.sockets.get_mut(&self.conn).unwrap().sent = rest.to_vec();
        came
    }

    /// What has come, in words: a line for each frame.
    pub fn shown(&self, node: &mut Node) -> String {
        let mut shown = String::new();
        for came in self.came(node) {
            if !shown.is_empty() {
                shown.push('\n');
            }
            write!(shown, "{} ", came.channel).unwrap();
            match came.kind {
                FRAME_METHOD => {
                    let mut reader = Reader::new(&came.payload);
                    let (class, id) = (reader.u16().unwrap(), reader.u16().unwrap());
                    let method = Method::read(class, id, &mut reader).unwrap().unwrap();
                    assert!(reader.is_empty());
                    // Without the name of the variant around it.
                    let text = format!("{method:?}");
                    let (_, inner) = text.split_once('(').unwrap();
                    shown.push_str(inner.strip_suffix(')').unwrap());
                }
                FRAME_HEADER => {
                    let header = Header::read(&came.payload).unwrap();
                    write!(shown, "header {} bytes {}", header.body_bytes, show_properties(header.raw))
                        .unwrap();
                }
                FRAME_BODY => {
                    write!(shown, "body {:?}", String::from_utf8_lossy(&came.payload)).unwrap();
                }
                FRAME_HEARTBEAT => shown.push_str("heartbeat"),
                kind => panic!("a frame of kind {kind}"),
            }
        }
        shown
    }
}

fn show_properties(raw: &[u8]) -> String {
    let properties = Properties::read(raw).unwrap();
    let mut parts = Vec::new();
    if let Some(headers) = properties.headers {
        parts.push(show_table(headers));
    }
    for (name, value) in [
        ("reply_to", properties.reply_to),
        ("expiration", properties.expiration),
        ("correlation_id", properties.correlation_id),
        ("user_id", properties.user_id),
    ] {
        if let Some(value) = value {
            parts.push(format!("{name}={}", String::from_utf8_lossy(value)));
        }
    }
    if properties.delivery_mode == Some(2) {
        parts.push("persistent".to_owned());
    }
    if let Some(priority) = properties.priority {
        parts.push(format!("priority={priority}"));
    }
    parts.join(" ")
}

/// A table in words.
pub fn show_table(table: Table<'_>) -> String {
    let fields: Vec<String> = table
        .iter()
        .map(|(name, value)| format!("{}: {}", String::from_utf8_lossy(name), show_value(value)))
        .collect();
    format!("{{{}}}", fields.join(", "))
}

fn show_value(value: Value<'_>) -> String {
    match value {
        Value::String(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Table(table) => show_table(table),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(show_value).collect::<Vec<_>>().join(", "))
        }
        Value::Void => "void".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Timestamp(seconds) => format!("@{seconds}"),
        other => other.integer().map_or_else(|| format!("{other:?}"), |number| number.to_string()),
    }
}
