//! How many connections, channels and queues vhosts and users may have; and vhosts that go while something is put into them.

use millstream::amqp::Told;
use millstream::amqp::census::{Count, Holder};
use millstream::amqp::codec::{
    ChannelClose, ConnectionOpen, ExchangeDeclare, PROTOCOL_HEADER, QueueBind, QueueDeclare, QueueDelete,
    Short, TableWriter,
};
use millstream::amqp::topology::entries::{
    PARAMETER, PERMISSION, USER, USER_LIMITS, UserValue, VHOST, key, patterns,
};
use millstream::auth::hash_password;
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::shard::change::{Edit, MetadataChange};
use millstream_engine::shard::request::Request;
use millstream_engine::types::ShardId;

use crate::client::Client;
use crate::node::Node;
use crate::permissions::set;

fn limit_vhost(node: &mut Node, limits: &str) {
    set(node, key(PARAMETER, &[b"/", b"vhost-limits", b"limits"]), limits.as_bytes().to_vec());
}

fn limit_user(node: &mut Node, user: &str, limits: &str) {
    set(node, key(USER_LIMITS, &[user.as_bytes()]), limits.as_bytes().to_vec());
}

/// A user who may do everything.
fn user(node: &mut Node, name: &str) {
    let user = UserValue { password_hash: hash_password(b"p", [1; 4]), tags: Vec::new() };
    set(node, key(USER, &[name.as_bytes()]), user.write());
    set(node, key(PERMISSION, &[b"/", name.as_bytes()]), patterns(&[b".*", b".*", b".*"]));
}

/// What a client is told that opens a connection as this user.
fn opens(node: &mut Node, user: &str) -> (Client, String) {
    let client = Client { conn: node.connect() };
    client.raw(node, &PROTOCOL_HEADER);
    client.login(node, b"PLAIN", format!("\0{user}\0p").as_bytes());
    client.tune(node, 2047, 131_072, 0);
    client.shown(node);
    let shown = client.ask(node, 0, ConnectionOpen { vhost: Short(b"/"), ..ConnectionOpen::default() });
    (client, shown)
}

fn is_open(shown: &str) {
    assert!(shown.starts_with("0 ConnectionOpenOk"), "{shown}");
}

fn is_refused(shown: &str, text: &str) {
    let text = format!("reply_code: 530, reply_text: \"NOT_ALLOWED - {text}\"");
    assert!(shown.contains(&text), "{shown}\nis not\n{text}");
}

#[test]
fn a_vhost_takes_as_many_connections_as_it_may_have() {
    let mut node = Node::new();
    user(&mut node, "u");
    limit_vhost(&mut node, r#"{"max-connections": 2}"#);
    let (first, shown) = opens(&mut node, "u");
    is_open(&shown);
    is_open(&opens(&mut node, "u").1);
    let text = "access to vhost '/' refused for user 'u': connection limit (2) is reached";
    is_refused(&opens(&mut node, "u").1, text);
    // One that goes makes room, and so do other limits.
    node.disconnect(first.conn);
    is_open(&opens(&mut node, "u").1);
    is_refused(&opens(&mut node, "u").1, text);
    limit_vhost(&mut node, r#"{"max-connections": -1, "max-queues": 0}"#);
    is_open(&opens(&mut node, "u").1);
    limit_vhost(&mut node, r#"{"max-connections": 0}"#);
    is_refused(&opens(&mut node, "u").1, &text.replace("(2)", "(0)"));
}

#[test]
fn a_user_takes_as_many_connections_as_they_may_have() {
    let mut node = Node::new();
    user(&mut node, "u");
    user(&mut node, "other");
    is_open(&opens(&mut node, "u").1);
    limit_user(&mut node, "u", r#"{"max-connections": 2}"#);
    let (second, shown) = opens(&mut node, "u");
    is_open(&shown);
    let text = "connection refused for user 'u': user connection limit (2) is reached";
    is_refused(&opens(&mut node, "u").1, text);
    is_open(&opens(&mut node, "other").1);
    node.disconnect(second.conn);
    is_open(&opens(&mut node, "u").1);
}

#[test]
fn a_user_opens_as_many_channels_as_they_may_have() {
    let mut node = Node::new();
    user(&mut node, "u");
    limit_user(&mut node, "u", r#"{"max-channels": 3}"#);
    let (first, second) = (opens(&mut node, "u").0, opens(&mut node, "u").0);
    first.open_channel(&mut node, 1);
    first.open_channel(&mut node, 2);
    second.open_channel(&mut node, 1);
    assert_eq!(first.ask(&mut node, 2, ChannelClose::default()), "2 ChannelCloseOk");
    second.open_channel(&mut node, 2);
    let shown = second.ask(&mut node, 3, millstream::amqp::codec::ChannelOpen::default());
    is_refused(
        &shown,
        "number of channels opened for user 'u' has reached the maximum allowed user limit of (3)",
    );
    // The connection has gone with its channels.
    first.open_channel(&mut node, 2);
    first.open_channel(&mut node, 3);
}

#[test]
fn what_other_shards_have_counts() {
    let mut node = Node::new();
    user(&mut node, "u");
    limit_vhost(&mut node, r#"{"max-connections": 3}"#);
    let tell = |node: &mut Node, connections| {
        let (holder, count) = (Holder::Vhost(b"/".to_vec()), Count { connections, channels: 0 });
        let told = Told::Census { shard: ShardId(1), holder, count };
        node.step(AppEvent::Told { from: ShardId(1), message: Box::new(told) });
    };
    tell(&mut node, 2);
    is_open(&opens(&mut node, "u").1);
    assert!(opens(&mut node, "u").1.contains("connection limit (3) is reached"));
    // It is the whole number that is told, each time.
    tell(&mut node, 1);
    is_open(&opens(&mut node, "u").1);
    tell(&mut node, 0);
    is_open(&opens(&mut node, "u").1);
    assert!(opens(&mut node, "u").1.contains("connection limit (3) is reached"));
}

#[test]
fn a_vhost_has_as_many_queues_as_it_may_have() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    limit_vhost(&mut node, r#"{"max-queues": 2}"#);
    client.queue(&mut node, "a", &TableWriter::default());
    client.queue(&mut node, "b", &TableWriter::default());
    client.queue(&mut node, "a", &TableWriter::default());
    let shown = client.ask(&mut node, 1, QueueDeclare { queue: Short(b"c"), ..QueueDeclare::default() });
    let text = "PRECONDITION_FAILED - cannot declare queue 'c': queue limit in vhost '/' (2) is reached";
    assert!(shown.contains("1 ChannelClose { reply_code: 406") && shown.contains(text), "{shown}");
    client.method(&mut node, 1, millstream::amqp::codec::ChannelCloseOk {});
    client.open_channel(&mut node, 1);
    let shown = client.ask(&mut node, 1, QueueDelete { queue: Short(b"a"), ..QueueDelete::default() });
    assert!(shown.starts_with("1 QueueDeleteOk"), "{shown}");
    client.queue(&mut node, "c", &TableWriter::default());
}

#[test]
fn nothing_is_put_into_a_vhost_that_has_just_gone() {
    for number in 0..3 {
        let mut node = Node::new();
        let client = Client::with_channel(&mut node);
        client.queue(&mut node, "q", &TableWriter::default());
        // It is asked for while there is a vhost, and done when there is none.
        node.hold = true;
        match number {
            0 => {
                client.method(&mut node, 1, QueueDeclare { queue: Short(b"new"), ..QueueDeclare::default() });
            }
            1 => {
                let (exchange, kind) = (Short(b"x"), Short(b"fanout"));
                client.method(&mut node, 1, ExchangeDeclare { exchange, kind, ..ExchangeDeclare::default() });
            }
            _ => {
                let (queue, exchange) = (Short(b"q"), Short(b"amq.fanout"));
                client.method(&mut node, 1, QueueBind { queue, exchange, ..QueueBind::default() });
            }
        }
        let before = (node.engine.queue_count(), node.engine.entry_count());
        let edits = vec![Edit::RemoveEntry(key(VHOST, &[b"/"]))];
        node.engine.handle(Request::ChangeMetadata(MetadataChange { guards: Vec::new(), edits }));
        node.step(AppEvent::MetadataChanged);
        node.release_all();
        assert_eq!((node.engine.queue_count(), node.engine.entry_count() + 1), before, "{number}");
        let shown = client.shown(&mut node);
        assert!(shown.contains("reply_code: 404") && shown.contains("no vhost '/'"), "{shown}");
    }
}
