//! Messages that leave their queue for another.

use millstream::amqp::codec::{
    BasicConsume, BasicGet, BasicReject, Properties, Short, Table, TableWriter, Value,
};
use millstream_engine::time::Nanos;

use crate::client::Client;
use crate::node::Node;

fn to(exchange: &'static str, key: &'static str) -> TableWriter {
    TableWriter::default()
        .with("x-dead-letter-exchange", Value::String(exchange.as_bytes()))
        .with("x-dead-letter-routing-key", Value::String(key.as_bytes()))
}

fn got(client: &Client, node: &mut Node, queue: &str) -> String {
    client.ask(node, 1, BasicGet { queue: Short(queue.as_bytes()), no_ack: true, ..BasicGet::default() })
}

#[test]
fn a_rejected_message_tells_where_it_was() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.queue(&mut node, "q", &to("", "d"));
    client.queue(&mut node, "d", &TableWriter::default());
    client.publish(&mut node, 1, "", "q", "m");
    client.ask(&mut node, 1, BasicConsume { queue: Short(b"q"), ..BasicConsume::default() });
    client.ask(&mut node, 1, BasicReject { delivery_tag: 1, requeue: false });
    assert_eq!(
        got(&client, &mut node, "d"),
        "1 BasicGetOk { delivery_tag: 2, redelivered: false, exchange: \"\", routing_key: \"d\", message_count: 0 }\n\
         1 header 1 bytes {x-death: [{count: 1, reason: rejected, queue: q, time: @1700000000, exchange: , routing-keys: [q]}], \
         x-first-death-reason: rejected, x-last-death-reason: rejected, x-first-death-queue: q, x-last-death-queue: q, \
         x-first-death-exchange: , x-last-death-exchange: }\n1 body \"m\""
    );
}

#[test]
fn an_expired_message_loses_its_expiry_and_tells_of_it() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let fanout = TableWriter::default().with("x-dead-letter-exchange", Value::String(b"amq.fanout"));
    client.queue(&mut node, "q", &fanout);
    client.queue(&mut node, "d", &TableWriter::default());
    client.bind(&mut node, "d", "amq.fanout", "", Table::default());
    let properties = Properties { expiration: Some(b"100"), ..Properties::default() };
    client.publish_with(&mut node, 1, "", "q", &properties, b"m");
    node.advance(Nanos::from_millis(150));
    let shown = got(&client, &mut node, "d");
    assert!(shown.contains("exchange: \"amq.fanout\", routing_key: \"q\""), "{shown}");
    assert!(shown.contains("{original-expiration: 100, count: 1, reason: expired, queue: q"), "{shown}");
    assert!(!shown.contains("expiration=100"), "{shown}");
}

#[test]
fn messages_do_not_go_round_unless_somebody_rejects_them() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let ttl = to("", "q").with("x-message-ttl", Value::I32(10));
    client.queue(&mut node, "q", &ttl);
    client.publish(&mut node, 1, "", "q", "m");
    node.advance(Nanos::from_millis(50));
    assert!(got(&client, &mut node, "q").contains("BasicGetEmpty"), "it would for ever");
    client.publish(&mut node, 1, "", "q", "m");
    client.ask(&mut node, 1, BasicConsume { queue: Short(b"q"), ..BasicConsume::default() });
    for tag in 1..4 {
        let shown = client.ask(&mut node, 1, BasicReject { delivery_tag: tag, requeue: false });
        assert!(shown.contains(&format!("{{count: {tag}, reason: rejected")), "{shown}");
    }
}

#[test]
fn what_a_full_queue_drops_is_a_dead_letter() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.queue(&mut node, "q", &to("", "d").with("x-max-length", Value::I32(1)));
    client.queue(&mut node, "d", &TableWriter::default());
    for message in ["a", "b"] {
        client.publish(&mut node, 1, "", "q", message);
    }
    let shown = got(&client, &mut node, "d");
    assert!(shown.contains("reason: maxlen") && shown.contains("body \"a\""), "{shown}");
}

#[test]
fn a_message_that_keeps_failing_is_given_up() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let quorum =
        to("", "d").with("x-queue-type", Value::String(b"quorum")).with("x-delivery-limit", Value::I32(2));
    client.queue(&mut node, "q", &quorum);
    client.queue(&mut node, "d", &TableWriter::default());
    client.publish(&mut node, 1, "", "q", "m");
    client.ask(&mut node, 1, BasicConsume { queue: Short(b"q"), ..BasicConsume::default() });
    for tag in 1..=3 {
        client.ask(&mut node, 1, BasicReject { delivery_tag: tag, requeue: true });
    }
    assert!(got(&client, &mut node, "d").contains("reason: delivery_limit"));
}
