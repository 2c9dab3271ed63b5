//! Who may do what.

use millstream::amqp::codec::{
    BasicPublish, ConnectionOpen, ExchangeBind, ExchangeDeclare, PROTOCOL_HEADER, Properties, QueueBind,
    QueueDeclare, Short, Table, TableWriter, TxCommit, TxSelect, Value,
};
use millstream::amqp::topology::entries::{PERMISSION, TOPIC_PERMISSION, USER, UserValue, key, patterns};
use millstream::auth::hash_password;
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::shard::change::{Edit, EntryKey, MetadataChange};
use millstream_engine::shard::request::Request;

use crate::client::Client;
use crate::node::Node;

/// Sets an entry, as the management does.
pub fn set(node: &mut Node, key: EntryKey, value: Vec<u8>) {
    let edits = vec![Edit::SetEntry { key, value, transient: false }];
    node.engine.handle(Request::ChangeMetadata(MetadataChange { guards: Vec::new(), edits }));
    node.step(AppEvent::MetadataChanged);
}

/// A client of user `u`, who may do these things.
fn client(node: &mut Node, [configure, write, read]: [&str; 3]) -> Client {
    let user = UserValue { password_hash: hash_password(b"p", [1; 4]), tags: Vec::new() };
    set(node, key(USER, &[b"u"]), user.write());
    let permission = patterns(&[configure.as_bytes(), write.as_bytes(), read.as_bytes()]);
    set(node, key(PERMISSION, &[b"/", b"u"]), permission);
    let client = Client { conn: node.connect() };
    client.raw(node, &PROTOCOL_HEADER);
    client.login(node, b"PLAIN", b"\0u\0p");
    client.tune(node, 2047, 131_072, 0);
    client.method(node, 0, ConnectionOpen { vhost: Short(b"/"), ..ConnectionOpen::default() });
    client.shown(node);
    client.open_channel(node, 1);
    client
}

fn refused(shown: &str, access: &str, what: &str) {
    let text = format!("ACCESS_REFUSED - {access} access to {what} in vhost '/' refused for user 'u'");
    assert!(shown.contains("reply_code: 403") && shown.contains(&text), "{shown}\nis not\n{text}");
}

#[test]
fn an_alternate_exchange_needs_to_be_written_to_and_its_exchange_to_be_read_from() {
    let alternate = TableWriter::default().with("alternate-exchange", Value::String(b"alt"));
    let declare =
        ExchangeDeclare { exchange: Short(b"x"), kind: Short(b"fanout"), ..ExchangeDeclare::default() };
    let with_alternate = ExchangeDeclare { arguments: alternate.table(), ..declare };
    for (permissions, access, what) in [
        (["y", ".*", ".*"], "configure", "exchange 'x'"),
        (["x", ".*", "y"], "read", "exchange 'x'"),
        (["x", "x", "x"], "write", "exchange 'alt'"),
    ] {
        let mut node = Node::new();
        let client = client(&mut node, permissions);
        refused(&client.ask(&mut node, 1, with_alternate), access, what);
    }
    let mut node = Node::new();
    let client = client(&mut node, ["x", "alt", "x"]);
    assert_eq!(client.ask(&mut node, 1, with_alternate), "1 ExchangeDeclareOk");
    // Whoever finds it there needs to be able to make it, no more.
    let permission = patterns(&[b"x", b"", b""]);
    set(&mut node, key(PERMISSION, &[b"/", b"u"]), permission);
    assert_eq!(client.ask(&mut node, 1, with_alternate), "1 ExchangeDeclareOk");
    let wrong = TableWriter::default().with("alternate-exchange", Value::I32(1));
    let shown = client.ask(
        &mut node,
        1,
        ExchangeDeclare { exchange: Short(b"xx"), arguments: wrong.table(), ..declare },
    );
    let text = "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'xx' in vhost '/'";
    assert!(shown.contains(text), "{shown}");
}

#[test]
fn a_queue_with_dead_letters_needs_to_be_read_from_and_their_exchange_to_be_written_to() {
    let dead = TableWriter::default().with("x-dead-letter-exchange", Value::String(b"dlx"));
    let declare = QueueDeclare { queue: Short(b"q"), arguments: dead.table(), ..QueueDeclare::default() };
    for (permissions, access, what) in [
        (["y", ".*", ".*"], "configure", "queue 'q'"),
        (["q", ".*", "y"], "read", "queue 'q'"),
        (["q", "q", "q"], "write", "exchange 'dlx'"),
    ] {
        let mut node = Node::new();
        let client = client(&mut node, permissions);
        refused(&client.ask(&mut node, 1, declare), access, what);
    }
    let mut node = Node::new();
    let client = client(&mut node, ["q", "dlx", "q"]);
    assert!(client.ask(&mut node, 1, declare).starts_with("1 QueueDeclareOk"));
    set(&mut node, key(PERMISSION, &[b"/", b"u"]), patterns(&[b"q", b"", b""]));
    assert!(client.ask(&mut node, 1, declare).starts_with("1 QueueDeclareOk"));
}

#[test]
fn a_topic_permission_is_for_every_key_of_a_message() {
    let publish = |node: &mut Node, client: &Client, key: &str, copies: &[&str]| {
        let keys = TableWriter::array(copies.iter().map(|key| Value::String(key.as_bytes())));
        let headers = TableWriter::default().with("CC", keys.value()).with("BCC", keys.value());
        let properties = Properties { headers: Some(headers.table()), ..Properties::default() };
        let publish = BasicPublish {
            exchange: Short(b"amq.topic"),
            routing_key: Short(key.as_bytes()),
            ..BasicPublish::default()
        };
        client.raw(node, &Client::message(1, publish, &crate::client::raw(&properties), b"m"));
        client.shown(node)
    };
    let mut node = Node::new();
    let client = client(&mut node, [".*", ".*", ".*"]);
    let permission = patterns(&[b"^{username}\\.a", b"^{username}\\.b"]);
    set(&mut node, key(TOPIC_PERMISSION, &[b"/", b"u", b"amq.topic"]), permission);
    assert_eq!(publish(&mut node, &client, "u.a", &["u.ab"]), "");
    let bind = |node: &mut Node, client: &Client, key: &str| {
        client.queue(node, "q", &TableWriter::default());
        let bind = QueueBind {
            queue: Short(b"q"),
            exchange: Short(b"amq.topic"),
            routing_key: Short(key.as_bytes()),
            arguments: Table::EMPTY,
            ..QueueBind::default()
        };
        client.ask(node, 1, bind)
    };
    assert_eq!(bind(&mut node, &client, "u.b"), "1 QueueBindOk");
    refused(&bind(&mut node, &client, "u.a"), "read", "topic 'u.a' in exchange 'amq.topic'");
    client.method(&mut node, 1, millstream::amqp::codec::ChannelCloseOk {});
    client.open_channel(&mut node, 1);
    let shown = publish(&mut node, &client, "u.a", &["u.c"]);
    refused(&shown, "write", "topic 'u.c' in exchange 'amq.topic'");
}

#[test]
fn a_permission_that_is_taken_away_holds_for_the_next_message() {
    let publish = |node: &mut Node, client: &Client| {
        let publish = BasicPublish { routing_key: Short(b"q"), ..BasicPublish::default() };
        client.raw(node, &Client::message(1, publish, &[0, 0], b"m"));
        client.shown(node)
    };
    let mut node = Node::new();
    let client = client(&mut node, [".*", ".*", ".*"]);
    client.queue(&mut node, "q", &TableWriter::default());
    for _ in 0..2 {
        assert_eq!(publish(&mut node, &client), "");
    }
    set(&mut node, key(PERMISSION, &[b"/", b"u"]), patterns(&[b".*", b"", b".*"]));
    refused(&publish(&mut node, &client), "write", "exchange 'amq.default'");
}

/// What a transaction sends was allowed when it was published; that the way there is known says nothing of the next message.
#[test]
fn a_permission_that_is_taken_away_before_a_commit_holds_for_the_message_behind_it() {
    let mut node = Node::new();
    let client = client(&mut node, [".*", ".*", ".*"]);
    client.queue(&mut node, "q", &TableWriter::default());
    client.ask(&mut node, 1, TxSelect {});
    client.publish(&mut node, 1, "", "q", "m");
    set(&mut node, key(PERMISSION, &[b"/", b"u"]), patterns(&[b".*", b"", b".*"]));
    assert_eq!(client.ask(&mut node, 1, TxCommit {}), "1 TxCommitOk");
    client.publish(&mut node, 1, "", "q", "n");
    refused(&client.shown(&mut node), "write", "exchange 'amq.default'");
}

#[test]
fn binding_exchanges_needs_writing_to_the_one_and_reading_from_the_other() {
    let mut node = Node::new();
    let client = client(&mut node, [".*", "^amq.direct$", "^amq.fanout$"]);
    let bind = |source, destination| ExchangeBind {
        source: Short(source),
        destination: Short(destination),
        ..ExchangeBind::default()
    };
    assert_eq!(client.ask(&mut node, 1, bind(b"amq.fanout", b"amq.direct")), "1 ExchangeBindOk");
    let shown = client.ask(&mut node, 1, bind(b"amq.fanout", b"amq.topic"));
    refused(&shown, "write", "exchange 'amq.topic'");
    client.method(&mut node, 1, millstream::amqp::codec::ChannelCloseOk {});
    client.open_channel(&mut node, 1);
    let shown = client.ask(&mut node, 1, bind(b"amq.topic", b"amq.direct"));
    refused(&shown, "read", "exchange 'amq.topic'");
}
