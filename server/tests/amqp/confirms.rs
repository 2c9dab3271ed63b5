//! Confirms.

use millstream::amqp::codec::{BasicPublish, ConfirmSelect, Short, TableWriter, Value};

use crate::client::Client;
use crate::node::Node;

fn publish(key: &str) -> Vec<u8> {
    let publish =
        BasicPublish { routing_key: Short(key.as_bytes()), mandatory: true, ..BasicPublish::default() };
    Client::message(1, publish, &[0, 0], b"m")
}

fn confirming(node: &mut Node) -> Client {
    let client = Client::with_channel(node);
    for queue in ["a", "b"] {
        client.queue(node, queue, &TableWriter::default());
    }
    assert_eq!(client.ask(node, 1, ConfirmSelect::default()), "1 ConfirmSelectOk");
    client
}

#[test]
fn messages_are_confirmed_when_their_queues_have_them_and_several_at_once() {
    let mut node = Node::new();
    let client = confirming(&mut node);
    node.hold = true;
    client.raw(&mut node, &[publish("a"), publish("b"), publish("a")].concat());
    assert_eq!(client.shown(&mut node), "", "nothing is confirmed before it is where it belongs");
    node.release_all();
    assert_eq!(client.shown(&mut node), "1 BasicAck { delivery_tag: 3, multiple: true }");
    client.raw(&mut node, &publish("a"));
    assert_eq!(client.shown(&mut node), "1 BasicAck { delivery_tag: 4, multiple: false }");
}

#[test]
fn what_has_no_way_comes_back_and_is_confirmed_after_that() {
    let mut node = Node::new();
    let client = confirming(&mut node);
    client.raw(&mut node, &publish("nowhere"));
    let shown = client.shown(&mut node);
    let kinds: Vec<&str> = shown.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(kinds, ["BasicReturn", "header", "body", "BasicAck"]);
}

#[test]
fn a_refusal_is_told_in_its_place() {
    let mut node = Node::new();
    let client = confirming(&mut node);
    let full = TableWriter::default()
        .with("x-max-length", Value::I32(1))
        .with("x-overflow", Value::String(b"reject-publish"));
    client.queue(&mut node, "f", &full);
    client.raw(&mut node, &[publish("f"), publish("f"), publish("a")].concat());
    assert_eq!(
        client.shown(&mut node),
        "1 BasicAck { delivery_tag: 1, multiple: false }\n\
         1 BasicNack { delivery_tag: 2, multiple: false, requeue: true }\n\
         1 BasicAck { delivery_tag: 3, multiple: false }"
    );
    node.engine.is_full = true;
    client.raw(&mut node, &publish("a"));
    assert_eq!(client.shown(&mut node), "1 BasicNack { delivery_tag: 4, multiple: false, requeue: true }");
}

#[test]
fn a_publisher_that_is_faster_than_its_queues_is_not_read_from() {
    let mut node = Node::new();
    let client = confirming(&mut node);
    node.hold = true;
    let body = vec![0; 1 << 20];
    let mut sent = 0;
    while !node.socket(client.conn).read_off {
        let publish = BasicPublish { routing_key: Short(b"a"), ..BasicPublish::default() };
        client.raw(&mut node, &Client::message(1, publish, &[0, 0], &body));
        sent += 1;
        assert!(sent < 100, "memory grows without end");
    }
    node.release_all();
    assert!(!node.socket(client.conn).read_off);
    let shown = client.shown(&mut node);
    assert!(shown.contains(&format!("delivery_tag: {sent},")), "{shown}");
}
