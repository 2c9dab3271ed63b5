//! Publishers that wait for consumers.

use millstream::amqp::codec::{
    BasicAck, BasicConsume, BasicPublish, ConfirmSelect, QueueDelete, Short, TableWriter,
};
use millstream::management::call::{Call, ConnectionsWanted};
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::shard::message::Flow;
use millstream_engine::types::QueueId;
use tokio::sync::oneshot;

use crate::client::Client;
use crate::node::Node;

fn id(node: &Node, name: &str) -> QueueId {
    let mut queues = node.engine.metadata.queues.iter();
    *queues.find(|(_, queue)| queue.name.ends_with(name.as_bytes())).expect("it is there").0
}

/// The engine says that publishers of this queue wait, or need not any more.
fn hold(node: &mut Node, queue: QueueId, is_held: bool) {
    node.step(AppEvent::Flow(vec![Flow { queue, is_held }]));
}

fn publish(node: &mut Node, client: &Client, key: &str) {
    let publish = BasicPublish { routing_key: Short(key.as_bytes()), ..BasicPublish::default() };
    client.raw(node, &Client::message(1, publish, &[0, 0], b"m"));
}

/// A node with a queue that is held, and one that is not.
fn node() -> (Node, Client, QueueId) {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.queue(&mut node, "full", &TableWriter::default());
    client.queue(&mut node, "free", &TableWriter::default());
    let queue = id(&node, "full");
    hold(&mut node, queue, true);
    (node, client, queue)
}

fn is_read(node: &Node, client: &Client) -> bool {
    !node.socket(client.conn).read_off
}

#[test]
fn who_publishes_to_a_queue_with_too_much_in_it_is_not_read_from() {
    let (mut node, client, queue) = node();
    let other = Client::with_channel(&mut node);
    publish(&mut node, &client, "free");
    publish(&mut node, &other, "free");
    assert!(is_read(&node, &client));
    publish(&mut node, &client, "full");
    assert!(!is_read(&node, &client) && is_read(&node, &other));
    // What has come in already is not taken, either.
    node.engine.log.clear();
    publish(&mut node, &client, "free");
    assert!(!node.engine.log.iter().any(|asked| asked.starts_with("Publish")), "{:?}", node.engine.log);
    hold(&mut node, queue, false);
    assert!(is_read(&node, &client));
    assert!(node.engine.log.iter().any(|asked| asked.starts_with("Publish")));
}

#[test]
fn what_is_held_is_confirmed() {
    let (mut node, client, _) = node();
    client.ask(&mut node, 1, ConfirmSelect::default());
    publish(&mut node, &client, "full");
    assert!(!is_read(&node, &client));
    assert_eq!(client.shown(&mut node), "1 BasicAck { delivery_tag: 1, multiple: false }");
}

#[test]
fn who_has_something_to_settle_is_listened_to() {
    let (mut node, client, _) = node();
    let consume = BasicConsume { queue: Short(b"free"), ..BasicConsume::default() };
    client.ask(&mut node, 1, consume);
    publish(&mut node, &client, "full");
    assert!(!is_read(&node, &client));
    let other = Client::with_channel(&mut node);
    publish(&mut node, &other, "free");
    assert!(is_read(&node, &client), "others may wait for what it settles");
    client.method(&mut node, 1, BasicAck { delivery_tag: 1, multiple: false });
    assert!(!is_read(&node, &client));
}

#[test]
fn a_queue_that_goes_and_a_connection_that_goes_leave_nothing_behind() {
    let (mut node, client, queue) = node();
    publish(&mut node, &client, "full");
    let other = Client::with_channel(&mut node);
    other.ask(&mut node, 1, QueueDelete { queue: Short(b"full"), ..QueueDelete::default() });
    hold(&mut node, queue, false);
    assert!(is_read(&node, &client));
    let queue = id(&node, "free");
    hold(&mut node, queue, true);
    publish(&mut node, &client, "free");
    publish(&mut node, &other, "free");
    node.disconnect(client.conn);
    hold(&mut node, queue, false);
    assert!(is_read(&node, &other));
}

#[test]
fn what_waits_is_told_as_flow() {
    let (mut node, client, _) = node();
    publish(&mut node, &client, "full");
    let (answer, mut told) = oneshot::channel();
    let call = Call::Connections(ConnectionsWanted::default(), answer);
    node.step(AppEvent::Called(Box::new(call)));
    let told = told.try_recv().unwrap();
    assert_eq!(told.reports.iter().map(|report| report.state).collect::<Vec<_>>(), ["flow"]);
}
