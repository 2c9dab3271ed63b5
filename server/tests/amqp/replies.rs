//! Direct reply-to.

use millstream::amqp::codec::{
    BasicCancel, BasicConsume, BasicGet, Properties, QueueDeclare, Short, TableWriter,
};

use crate::client::Client;
use crate::node::Node;

const REPLY_TO: BasicConsume<'static> = BasicConsume {
    ticket: 0,
    queue: Short(b"amq.rabbitmq.reply-to"),
    consumer_tag: Short(b"r"),
    no_local: false,
    no_ack: true,
    exclusive: false,
    no_wait: false,
    arguments: EMPTY,
};
const EMPTY: millstream::amqp::codec::Table<'static> = millstream::amqp::codec::Table::EMPTY;

#[test]
fn a_question_is_answered_to_whoever_asked() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let server = Client::with_channel(&mut node);
    client.queue(&mut node, "q", &TableWriter::default());
    assert_eq!(client.ask(&mut node, 1, REPLY_TO), "1 BasicConsumeOk { consumer_tag: \"r\" }");
    let properties = Properties { reply_to: Some(b"amq.rabbitmq.reply-to"), ..Properties::default() };
    client.publish_with(&mut node, 1, "", "q", &properties, b"question");
    let shown =
        server.ask(&mut node, 1, BasicGet { queue: Short(b"q"), no_ack: true, ..BasicGet::default() });
    let (_, rest) = shown.split_once("reply_to=").unwrap();
    let address = rest.lines().next().unwrap();
    assert!(address.starts_with("amq.rabbitmq.reply-to."), "{address}");
    let declare = QueueDeclare { queue: Short(address.as_bytes()), passive: true, ..QueueDeclare::default() };
    assert!(server.ask(&mut node, 1, declare).contains("consumer_count: 1"));
    server.publish(&mut node, 1, "", address, "answer");
    assert_eq!(server.shown(&mut node), "");
    let shown = client.shown(&mut node);
    assert!(
        shown.starts_with("1 BasicDeliver { consumer_tag: \"r\", delivery_tag: 1, redelivered: false"),
        "{shown}"
    );
    assert!(shown.ends_with("body \"answer\""), "{shown}");
    client.ask(&mut node, 1, BasicCancel { consumer_tag: Short(b"r"), no_wait: false });
    server.publish(&mut node, 1, "", address, "late");
    assert_eq!(client.shown(&mut node), "");
}

#[test]
fn whoever_waits_for_answers_does_so_without_settling_and_once() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let shown = client.ask(&mut node, 1, BasicConsume { no_ack: false, ..REPLY_TO });
    assert!(shown.contains("PRECONDITION_FAILED - reply consumer cannot acknowledge"), "{shown}");
    client.open_channel(&mut node, 2);
    client.ask(&mut node, 2, REPLY_TO);
    let shown = client.ask(&mut node, 2, BasicConsume { consumer_tag: Short(b"s"), ..REPLY_TO });
    assert!(shown.contains("PRECONDITION_FAILED - reply consumer already set"), "{shown}");
    client.open_channel(&mut node, 3);
    let properties = Properties { reply_to: Some(b"amq.rabbitmq.reply-to"), ..Properties::default() };
    client.publish_with(&mut node, 3, "", "q", &properties, b"question");
    let shown = client.shown(&mut node);
    assert!(shown.contains("PRECONDITION_FAILED - fast reply consumer does not exist"), "{shown}");
}
