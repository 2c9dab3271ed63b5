//! Queues: how they are made, looked at and deleted.

use millstream::amqp::codec::{
    BasicCancel, BasicConsume, ChannelCloseOk, ChannelOpen, ConnectionClose, QueueDeclare, QueueDelete,
    QueuePurge, Short, TableWriter, Value,
};
use millstream_engine::time::Nanos;

use crate::client::Client;
use crate::node::Node;

fn declare(name: &str) -> QueueDeclare<'_> {
    QueueDeclare { queue: Short(name.as_bytes()), ..QueueDeclare::default() }
}

fn declared(name: &str, messages: u32, consumers: u32) -> String {
    format!("1 QueueDeclareOk {{ queue: {name:?}, message_count: {messages}, consumer_count: {consumers} }}")
}

/// Expects the channel to be closed with this code and text, and opens it again.
fn closed(client: &Client, node: &mut Node, shown: &str, code: u16, text: &str) {
    let start = format!("1 ChannelClose {{ reply_code: {code}, reply_text: {text:?}");
    assert!(shown.starts_with(&start), "{shown}\n{start}");
    client.method(node, 1, ChannelCloseOk {});
    assert_eq!(client.ask(node, 1, ChannelOpen::default()), "1 ChannelOpenOk { channel_id: \"\" }");
}

#[test]
fn a_queue_is_declared_once_and_again() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    assert_eq!(client.ask(&mut node, 1, declare("q")), declared("q", 0, 0));
    client.publish(&mut node, 1, "", "q", "m");
    assert_eq!(client.ask(&mut node, 1, declare("q")), declared("q", 1, 0));
    assert_eq!(client.ask(&mut node, 1, QueueDeclare { passive: true, ..declare("q") }), declared("q", 1, 0));
    assert_eq!(client.ask(&mut node, 1, declare("a\r\nb")), declared("ab", 0, 0));
    let shown = client.ask(&mut node, 1, QueueDeclare { no_wait: true, ..declare("r") });
    assert_eq!(shown, "");
    assert_eq!(node.engine.queue_count(), 3);
}

#[test]
fn a_queue_without_a_name_gets_one() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let shown = client.ask(&mut node, 1, declare(""));
    let (_, rest) = shown.split_once("queue: \"amq.gen-").unwrap();
    assert_eq!(rest.split('"').next().unwrap().len(), 22, "{shown}");
    let purged = client.ask(&mut node, 1, QueuePurge::default());
    assert_eq!(purged, "1 QueuePurgeOk { message_count: 0 }", "the last one declared is meant");
}

#[test]
fn what_does_not_fit_ends_the_channel_with_rabbitmqs_words() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.queue(&mut node, "d", &TableWriter::default().with("x-message-ttl", Value::I32(5)));
    let durable = QueueDeclare { durable: true, ..declare("d") };
    for (method, code, text) in [
        (QueueDeclare { passive: true, ..declare("none") }, 404, "NOT_FOUND - no queue 'none' in vhost '/'"),
        (declare("amq.x"), 403, "ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'"),
        (
            declare("d"),
            406,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'd' in vhost '/': received 'false' but current is 'true'",
        ),
        (
            QueueDeclare { auto_delete: true, ..durable },
            406,
            "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue 'd' in vhost '/': received 'true' but current is \
             'false'",
        ),
        (
            durable,
            406,
            "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'd' in vhost '/': received none but current is \
             the value '5' of type 'signedint'",
        ),
        (QueueDeclare { passive: true, ..declare("") }, 404, "NOT_FOUND - no queue '' in vhost '/'"),
    ] {
        // What was declared last is forgotten with its channel.
        let shown = client.ask(&mut node, 1, method);
        closed(&client, &mut node, &shown, code, text);
    }
    let wrong = TableWriter::default().with("x-expires", Value::I32(0));
    let shown = client.ask(&mut node, 1, QueueDeclare { arguments: wrong.table(), ..declare("w") });
    let text = "PRECONDITION_FAILED - invalid arg 'x-expires' for queue 'w' in vhost '/': {value_zero,0}";
    closed(&client, &mut node, &shown, 406, text);
}

#[test]
fn an_exclusive_queue_is_its_connections_and_goes_with_it() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let other = Client::with_channel(&mut node);
    let exclusive = QueueDeclare { exclusive: true, ..declare("e") };
    assert_eq!(client.ask(&mut node, 1, exclusive), declared("e", 0, 0));
    assert_eq!(client.ask(&mut node, 1, exclusive), declared("e", 0, 0));
    for method in [declare("e"), QueueDeclare { passive: true, ..declare("e") }] {
        let shown = other.ask(&mut node, 1, method);
        let text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'e' in vhost '/'. It could be originally \
                    declared on another connection or the exclusive property value does not match that of the original \
                    declaration.";
        closed(&other, &mut node, &shown, 405, text);
    }
    let shown = client.ask(&mut node, 1, declare("e"));
    assert!(shown.contains("reply_code: 405"), "{shown}");
    assert_eq!(client.ask(&mut node, 0, ConnectionClose::default()), "0 ConnectionCloseOk");
    assert_eq!(node.engine.queue_count(), 0);
    assert_eq!(other.ask(&mut node, 1, declare("e")), declared("e", 0, 0));
}

#[test]
fn an_exclusive_queue_goes_when_its_connection_is_cut_off() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.ask(&mut node, 1, QueueDeclare { exclusive: true, ..declare("e") });
    node.hold = true;
    client.method(&mut node, 1, QueueDeclare { exclusive: true, ..declare("f") });
    node.disconnect(client.conn);
    node.release_all();
    assert_eq!(node.engine.queue_count(), 0, "one that came to be too late as well");
    node.advance(Nanos::from_millis(20_000));
    assert_eq!(node.broker.pending(), 1, "the idle check");
}

#[test]
fn a_connections_end_spares_a_queue_that_bears_the_name_of_one_of_its_own_which_had_gone() {
    for cut_off in [true, false] {
        let mut node = Node::new();
        let (client, other) = (Client::with_channel(&mut node), Client::with_channel(&mut node));
        let expires = TableWriter::default().with("x-expires", Value::I32(10));
        let own = QueueDeclare { exclusive: true, arguments: expires.table(), ..declare("e") };
        assert_eq!(client.ask(&mut node, 1, own), declared("e", 0, 0));
        node.advance(Nanos::from_millis(50));
        assert_eq!(node.engine.queue_count(), 0, "it has expired");
        assert_eq!(other.ask(&mut node, 1, declare("e")), declared("e", 0, 0));
        other.publish(&mut node, 1, "", "e", "m");
        if cut_off {
            node.disconnect(client.conn);
        } else {
            client.ask(&mut node, 0, ConnectionClose::default());
        }
        assert_eq!(other.ask(&mut node, 1, declare("e")), declared("e", 1, 0));
    }
}

#[test]
fn a_queue_is_deleted_if_it_is_as_expected() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.queue(&mut node, "q", &TableWriter::default());
    client.publish(&mut node, 1, "", "q", "m");
    let delete = QueueDelete { queue: Short(b"q"), ..QueueDelete::default() };
    let shown = client.ask(&mut node, 1, QueueDelete { if_empty: true, ..delete });
    closed(&client, &mut node, &shown, 406, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty");
    let consume = BasicConsume { queue: Short(b"q"), consumer_tag: Short(b"t"), ..BasicConsume::default() };
    client.ask(&mut node, 1, consume);
    let shown = client.ask(&mut node, 1, QueueDelete { if_unused: true, ..delete });
    closed(&client, &mut node, &shown, 406, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use");
    assert_eq!(client.ask(&mut node, 1, delete), "1 QueueDeleteOk { message_count: 1 }");
    assert_eq!(client.ask(&mut node, 1, delete), "1 QueueDeleteOk { message_count: 0 }");
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer_and_not_before_the_first() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.ask(&mut node, 1, QueueDeclare { auto_delete: true, ..declare("a") });
    client.open_channel(&mut node, 2);
    for (channel, tag) in [(1, "x"), (2, "y")] {
        let consume = BasicConsume {
            queue: Short(b"a"),
            consumer_tag: Short(tag.as_bytes()),
            ..BasicConsume::default()
        };
        client.ask(&mut node, channel, consume);
    }
    client.ask(&mut node, 1, BasicCancel { consumer_tag: Short(b"x"), no_wait: false });
    assert_eq!(node.engine.queue_count(), 1);
    let shown = client.ask(&mut node, 2, BasicCancel { consumer_tag: Short(b"y"), no_wait: false });
    assert_eq!(shown, "2 BasicCancelOk { consumer_tag: \"y\" }");
    assert_eq!(node.engine.queue_count(), 0);
    client.ask(&mut node, 1, QueueDeclare { auto_delete: true, ..declare("b") });
    client.ask(&mut node, 1, BasicConsume { queue: Short(b"b"), ..BasicConsume::default() });
    node.disconnect(client.conn);
    assert_eq!(node.engine.queue_count(), 0);
}

#[test]
fn a_queue_that_nobody_uses_expires() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.queue(&mut node, "q", &TableWriter::default().with("x-expires", Value::I32(1000)));
    node.advance(Nanos::from_millis(900));
    assert_eq!(node.engine.queue_count(), 1);
    node.advance(Nanos::from_millis(200));
    assert_eq!(node.engine.queue_count(), 0);
}

#[test]
fn whoever_is_slower_looks_again() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    node.engine.conflicts = 3;
    assert_eq!(client.ask(&mut node, 1, declare("q")), declared("q", 0, 0));
    node.engine.conflicts = 3;
    let delete = QueueDelete { queue: Short(b"q"), ..QueueDelete::default() };
    assert_eq!(client.ask(&mut node, 1, delete), "1 QueueDeleteOk { message_count: 0 }");
}

#[test]
fn a_consumer_that_is_being_cancelled_when_its_queue_goes_is_told_both() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let other = Client::with_channel(&mut node);
    client.queue(&mut node, "q", &TableWriter::default());
    client.ask(
        &mut node,
        1,
        BasicConsume { queue: Short(b"q"), consumer_tag: Short(b"t"), ..BasicConsume::default() },
    );
    node.hold = true;
    other.method(&mut node, 1, QueueDelete { queue: Short(b"q"), ..QueueDelete::default() });
    client.method(&mut node, 1, BasicCancel { consumer_tag: Short(b"t"), no_wait: false });
    node.hold = false;
    let cancel = node.held.pop_back().unwrap();
    node.release_all();
    node.held.push_back(cancel);
    node.release_all();
    assert_eq!(
        client.shown(&mut node),
        "1 BasicCancel { consumer_tag: \"t\", no_wait: true }\n1 BasicCancelOk { consumer_tag: \"t\" }"
    );
}

#[test]
fn a_queue_of_type_quorum_has_a_name_and_stays() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let quorum = TableWriter::default().with("x-queue-type", Value::String(b"quorum"));
    let quorum = |name| QueueDeclare { durable: true, arguments: quorum.table(), ..declare(name) };
    for (wrong, text) in [
        (
            QueueDeclare { durable: false, ..quorum("w") },
            "invalid property 'non-durable' for queue 'w' in vhost '/'",
        ),
        (
            QueueDeclare { auto_delete: true, ..quorum("w") },
            "invalid property 'auto-delete' for queue 'w' in vhost '/'",
        ),
        (
            QueueDeclare { exclusive: true, ..quorum("w") },
            "invalid property 'exclusive-owner' for queue 'w' in vhost '/'",
        ),
        (quorum(""), "Cannot declare a server-named queue for type rabbit_quorum_queue"),
    ] {
        let shown = client.ask(&mut node, 1, wrong);
        closed(&client, &mut node, &shown, 406, &format!("PRECONDITION_FAILED - {text}"));
    }
}
