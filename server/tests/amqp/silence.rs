//! Clients that have vanished, or do not read: how long they are waited for.

use millstream::amqp::codec::{BasicQos, Writer};
use millstream::amqp::kept::Kept;
use millstream::limits::{AMQP_SEND_BYTES_MAX, AMQP_STALLED_BYTES_MAX};
use millstream_engine::time::Nanos;

use crate::bounds::hungry;
use crate::client::Client;
use crate::node::Node;

const HEARTBEAT_S: u16 = 10;

/// A client of a node that has more to send to it than it looks at requests for, and that reads nothing.
fn deaf(node: &mut Node) -> Client {
    let client = Client::beating(node, HEARTBEAT_S);
    let client = hungry(node, client, 20, true);
    assert!(node.broker.amqp_kept().sending > AMQP_SEND_BYTES_MAX);
    client
}

/// So many methods that no more is read while they wait.
fn too_much() -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < AMQP_STALLED_BYTES_MAX {
        Writer::new(&mut bytes).method(1, &BasicQos { prefetch_count: 1, ..BasicQos::default() }.into());
    }
    bytes
}

#[test]
fn a_client_with_much_to_be_sent_is_hung_up_on_when_it_is_silent() {
    let mut node = Node::new();
    let client = deaf(&mut node);
    node.advance(Nanos::from_millis(19_000));
    assert!(!node.socket(client.conn).closed);
    node.advance(Nanos::from_millis(6_000));
    assert!(node.socket(client.conn).closed);
    assert_eq!(node.broker.amqp_kept(), Kept::default());
}

#[test]
fn a_client_with_much_to_be_sent_stays_as_long_as_it_says_that_it_is_there() {
    let mut node = Node::new();
    let client = deaf(&mut node);
    for _ in 0..30 {
        node.advance(Nanos::from_millis(10_000));
        client.beat(&mut node);
    }
    assert!(!node.socket(client.conn).read_off);
    let unfinished = node.broker.amqp_kept().unfinished;
    assert!(unfinished > 0, "what it says is kept until there is less to send");
    while node.broker.amqp_kept().sending > AMQP_SEND_BYTES_MAX {
        node.send_done(client.conn);
    }
    assert_eq!(node.broker.amqp_kept().unfinished, 0);
}

#[test]
fn a_client_that_cannot_be_heard_is_hung_up_on_when_it_takes_nothing() {
    let mut node = Node::new();
    let client = deaf(&mut node);
    client.raw(&mut node, &too_much());
    assert!(node.socket(client.conn).read_off);
    for _ in 0..3 {
        node.advance(Nanos::from_millis(55_000));
        node.send_done(client.conn);
        assert!(node.socket(client.conn).read_off && !node.socket(client.conn).closed);
    }
    node.advance(Nanos::from_millis(66_000));
    assert!(node.socket(client.conn).closed);
    assert_eq!(node.broker.amqp_kept(), Kept::default());
}
