//! Publishers while the disk or memory is short: they wait, and are told so.

use millstream::amqp::codec::{BasicConsume, BasicPublish, ConfirmSelect, Short, TableWriter};
use millstream::limits::{AMQP_PUBLISHING_BYTES_PER_SHARD_MAX, AMQP_TICK_MS};
use millstream_engine::time::Nanos;

use crate::client::Client;
use crate::node::Node;

fn with_queue(node: &mut Node) -> Client {
    let client = Client::with_channel(node);
    client.queue(node, "q", &TableWriter::default());
    client
}

fn free(node: &mut Node, free_bytes: u64) {
    node.engine.space.free_bytes = free_bytes;
    node.advance(Nanos::from_millis(2 * AMQP_TICK_MS));
}

#[test]
fn whoever_publishes_while_the_disk_is_nearly_full_waits() {
    let mut node = Node::new();
    let (publisher, consumer) = (with_queue(&mut node), Client::with_channel(&mut node));
    consumer.ask(&mut node, 1, BasicConsume { queue: Short(b"q"), ..BasicConsume::default() });
    free(&mut node, 300 << 20);
    assert_eq!(publisher.shown(&mut node), "", "nobody is told who does not publish");
    assert!(!node.socket(publisher.conn).read_off);
    publisher.ask(&mut node, 1, ConfirmSelect::default());
    publisher.publish(&mut node, 1, "", "q", "m");
    let shown = publisher.shown(&mut node);
    assert_eq!(
        shown,
        "0 ConnectionBlocked { reason: \"low on disk\" }\n1 BasicAck { delivery_tag: 1, multiple: false }"
    );
    assert!(node.socket(publisher.conn).read_off);
    assert!(consumer.shown(&mut node).ends_with("body \"m\""), "consumers go on");
    assert!(!node.socket(consumer.conn).read_off);
    free(&mut node, 600 << 20);
    assert_eq!(publisher.shown(&mut node), "", "it ends later than it began");
    free(&mut node, 1 << 30);
    assert_eq!(publisher.shown(&mut node), "0 ConnectionUnblocked");
    assert!(!node.socket(publisher.conn).read_off);
    publisher.publish(&mut node, 1, "", "q", "n");
    assert_eq!(publisher.shown(&mut node), "1 BasicAck { delivery_tag: 2, multiple: false }");
}

#[test]
fn what_could_not_be_stored_blocks_as_well_and_whoever_does_not_understand_is_not_told() {
    let mut node = Node::new();
    let publisher = Client::open_with(&mut node, &TableWriter::default());
    publisher.open_channel(&mut node, 1);
    publisher.queue(&mut node, "q", &TableWriter::default());
    publisher.ask(&mut node, 1, ConfirmSelect::default());
    node.engine.is_full = true;
    publisher.publish(&mut node, 1, "", "q", "m");
    publisher.publish(&mut node, 1, "", "q", "n");
    assert!(node.socket(publisher.conn).read_off);
    let shown = publisher.shown(&mut node);
    assert!(shown.contains("BasicNack { delivery_tag: 1,") && !shown.contains("Blocked"), "{shown}");
    node.engine.is_full = false;
    node.advance(Nanos::from_millis(2 * AMQP_TICK_MS));
    assert!(!node.socket(publisher.conn).read_off);
}

#[test]
fn publishers_that_are_faster_than_the_disk_are_not_read_from_however_many_they_are() {
    let mut node = Node::new();
    let publishers: Vec<Client> = (0..60).map(|_| with_queue(&mut node)).collect();
    node.hold = true;
    let body = vec![0; 1 << 20];
    let publish = BasicPublish { routing_key: Short(b"q"), ..BasicPublish::default() };
    let message = Client::message(1, publish, &[0, 0], &body);
    for round in 0..100 {
        let mut read = 0;
        for publisher in &publishers {
            if !node.socket(publisher.conn).read_off {
                publisher.raw(&mut node, &message);
                read += 1;
            }
        }
        let publishing = node.broker.amqp_kept().publishing;
        assert!(publishing <= AMQP_PUBLISHING_BYTES_PER_SHARD_MAX + (64 << 20), "{publishing} bytes");
        if read == 0 {
            assert!(round > 3, "they could publish");
            break;
        }
        assert!(round < 90, "memory grows without end");
    }
    let shown = publishers[0].shown(&mut node);
    assert_eq!(shown, "0 ConnectionBlocked { reason: \"low on memory\" }");
    // The connection's end does not make its messages any fewer.
    let before = node.broker.amqp_kept().publishing;
    node.disconnect(publishers[1].conn);
    assert_eq!(node.broker.amqp_kept().publishing, before);
    node.release_all();
    assert_eq!(node.broker.amqp_kept().publishing, 0);
    assert_eq!(publishers[0].shown(&mut node), "0 ConnectionUnblocked");
    let reads = |publisher: &Client| {
        let socket = node.socket(publisher.conn);
        socket.closed || !socket.read_off
    };
    assert!(publishers.iter().all(reads));
}
