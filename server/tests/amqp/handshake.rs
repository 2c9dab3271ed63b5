//! How a connection begins and ends.

use std::net::SocketAddr;

use millstream::amqp::codec::{
    ConnectionClose, ConnectionCloseOk, ConnectionOpen, ConnectionUpdateSecret, FRAME_HEARTBEAT, Long,
    PROTOCOL_HEADER, Short, TableWriter, Value, Writer,
};
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::time::Nanos;

use crate::client::Client;
use crate::node::Node;

fn begun(node: &mut Node) -> Client {
    let client = Client { conn: node.connect() };
    client.raw(node, &PROTOCOL_HEADER);
    let shown = client.shown(node);
    assert!(shown.starts_with("0 ConnectionStart { version_major: 0, version_minor: 9"), "{shown}");
    assert!(shown.contains("mechanisms: \"PLAIN AMQPLAIN\", locales: \"en_US\""), "{shown}");
    client
}

fn open(client: &Client, node: &mut Node, vhost: &str) -> String {
    let vhost = Short(vhost.as_bytes());
    client.ask(node, 0, ConnectionOpen { vhost, ..ConnectionOpen::default() })
}

#[test]
fn a_client_introduces_itself_step_by_step() {
    let mut node = Node::new();
    let client = begun(&mut node);
    client.login(&mut node, b"PLAIN", b"\0guest\0guest");
    assert_eq!(
        client.shown(&mut node),
        "0 ConnectionTune { channel_max: 2047, frame_max: 131072, heartbeat: 60 }"
    );
    client.tune(&mut node, 10, 4096, 0);
    assert_eq!(open(&client, &mut node, "/"), "0 ConnectionOpenOk { known_hosts: \"\" }");
    client.open_channel(&mut node, 1);
    let update = ConnectionUpdateSecret { secret: Long(b"x"), reason: Short(b"y") };
    assert_eq!(client.ask(&mut node, 0, update), "0 ConnectionUpdateSecretOk");
    assert_eq!(client.ask(&mut node, 0, ConnectionClose::default()), "0 ConnectionCloseOk");
    assert!(node.socket(client.conn).closed);
}

#[test]
fn the_other_mechanism_is_a_table_without_its_length() {
    let mut node = Node::new();
    let client = begun(&mut node);
    let login = TableWriter::default()
        .with("LOGIN", Value::String(b"guest"))
        .with("PASSWORD", Value::String(b"guest"));
    client.login(&mut node, b"AMQPLAIN", login.table().raw());
    assert!(client.shown(&mut node).starts_with("0 ConnectionTune"));
}

#[test]
fn a_wrong_password_or_a_guest_from_elsewhere_is_refused() {
    let mut node = Node::new();
    let refused = "0 ConnectionClose { reply_code: 403, reply_text: \"ACCESS_REFUSED - Login was refused using authentication \
                   mechanism PLAIN. For details see the broker logfile.\", class: 0, method: 0 }";
    let client = begun(&mut node);
    client.login(&mut node, b"PLAIN", b"\0guest\0wrong");
    assert_eq!(client.shown(&mut node), refused);
    assert!(node.socket(client.conn).closed);
    let away = Client { conn: node.connect_from(SocketAddr::from(([10, 1, 2, 3], 5))) };
    away.raw(&mut node, &PROTOCOL_HEADER);
    away.came(&mut node);
    away.login(&mut node, b"PLAIN", b"\0guest\0guest");
    assert_eq!(away.shown(&mut node), refused);
}

#[test]
fn what_does_not_begin_with_our_protocol_is_told_which_it_is() {
    for header in [*b"AMQP\x00\x01\x00\x00", *b"AMQP\x03\x01\x00\x00", *b"GET / HT"] {
        let mut node = Node::new();
        let client = Client { conn: node.connect() };
        client.raw(&mut node, &header);
        assert_eq!(node.socket(client.conn).sent, PROTOCOL_HEADER);
        assert!(node.socket(client.conn).closed);
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (channel_max, frame_max, text) in [
        (2047, 4095, "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        (2047, 131_073, "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
        (2047, 0, "negotiated frame_max = 0 is higher than the maximum allowed value (131072)"),
        (2048, 131_072, "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"),
        (0, 131_072, "negotiated channel_max = 0 is higher than the maximum allowed value (2047)"),
    ] {
        let mut node = Node::new();
        let client = begun(&mut node);
        client.login(&mut node, b"PLAIN", b"\0guest\0guest");
        client.came(&mut node);
        client.tune(&mut node, channel_max, frame_max, 0);
        assert_eq!(
            client.shown(&mut node),
            format!(
                "0 ConnectionClose {{ reply_code: 530, reply_text: \"NOT_ALLOWED - {text}\", class: 10, method: 31 }}"
            )
        );
    }
}

#[test]
fn an_unknown_vhost_is_not_opened() {
    let mut node = Node::new();
    let client = begun(&mut node);
    client.login(&mut node, b"PLAIN", b"\0guest\0guest");
    client.came(&mut node);
    client.tune(&mut node, 10, 4096, 0);
    assert_eq!(
        open(&client, &mut node, "v"),
        "0 ConnectionClose { reply_code: 530, reply_text: \"NOT_ALLOWED - vhost v not found\", class: 10, method: 40 }"
    );
    assert!(!node.socket(client.conn).closed, "its answer is awaited");
    client.method(&mut node, 0, ConnectionCloseOk {});
    assert!(node.socket(client.conn).closed);
}

#[test]
fn whoever_does_not_introduce_itself_is_hung_up_on() {
    let mut node = Node::new();
    let client = Client { conn: node.connect() };
    node.advance(Nanos::from_millis(9_000));
    assert!(!node.socket(client.conn).closed);
    node.advance(Nanos::from_millis(2_000));
    assert!(node.socket(client.conn).closed);
}

#[test]
fn heartbeats_go_out_by_the_clock_and_silence_ends_a_connection() {
    let mut node = Node::new();
    let client = begun(&mut node);
    client.login(&mut node, b"PLAIN", b"\0guest\0guest");
    client.tune(&mut node, 10, 4096, 10);
    open(&client, &mut node, "/");
    let mut heartbeat = Vec::new();
    Writer::new(&mut heartbeat).frame(FRAME_HEARTBEAT, 0, |_| {});
    for _ in 0..10 {
        node.advance(Nanos::from_millis(5_000));
        let shown = client.shown(&mut node);
        assert_eq!(shown, "0 heartbeat");
        client.raw(&mut node, &heartbeat);
    }
    node.advance(Nanos::from_millis(19_000));
    assert!(!node.socket(client.conn).closed);
    node.advance(Nanos::from_millis(6_000));
    assert!(node.socket(client.conn).closed);
}

#[test]
fn a_node_that_stops_says_so() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    node.step(AppEvent::Stopping);
    assert_eq!(
        client.shown(&mut node),
        "0 ConnectionClose { reply_code: 320, reply_text: \"CONNECTION_FORCED - broker forced connection closure with reason \
         'shutdown'\", class: 0, method: 0 }"
    );
    node.advance(Nanos::from_millis(6_000));
    assert!(node.socket(client.conn).closed, "its answer is not awaited for ever");
}
