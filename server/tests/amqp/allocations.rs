//! How often a message takes memory on its way in and out.

use millstream::amqp::codec::{
    BasicAck, BasicConsume, BasicPublish, ConfirmSelect, Properties, QueueDeclare, Short, Writer,
};

use crate::client::{Client, raw};
use crate::node::Node;

fn publishes(count: usize) -> Vec<u8> {
    let publish = BasicPublish { routing_key: Short(b"q"), ..BasicPublish::default() };
    let properties = raw(&Properties { delivery_mode: Some(2), ..Properties::default() });
    (0..count).flat_map(|_| Client::message(1, publish, &properties, b"twelve bytes")).collect()
}

/// How often the broker takes memory for each of many more messages.
fn each(node: &mut Node, mut step: impl FnMut(&mut Node, usize)) -> f64 {
    let (few, many) = (100, 1100);
    let mut taken = |node: &mut Node, count| {
        let before = node.allocations;
        step(node, count);
        node.allocations - before
    };
    // The first time makes room that stays.
    taken(node, many);
    let (few_taken, many_taken) = (taken(node, few), taken(node, many));
    many_taken.saturating_sub(few_taken) as f64 / (many - few) as f64
}

#[test]
fn a_message_takes_memory_for_the_requests_that_it_is_in_and_for_nothing_else() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.ask(&mut node, 1, QueueDeclare { queue: Short(b"q"), ..QueueDeclare::default() });
    client.ask(&mut node, 1, ConfirmSelect::default());
    let published = each(&mut node, |node, count| {
        client.raw(node, &publishes(count));
        client.came(node);
    });
    assert!(published < 0.1, "{published}");

    client.open_channel(&mut node, 2);
    let consume = BasicConsume { queue: Short(b"q"), no_ack: false, ..BasicConsume::default() };
    client.ask(&mut node, 2, consume);
    let mut tag = 3 * 1100;
    let delivered = each(&mut node, |node, count| {
        client.raw(node, &publishes(count));
        client.came(node);
        let mut acks = Vec::new();
        for _ in 0..count {
            tag += 1;
            Writer::new(&mut acks).method(2, &BasicAck { delivery_tag: tag - 1100, multiple: false }.into());
        }
        client.raw(node, &acks);
        client.came(node);
    });
    assert!(delivered < 0.2, "{delivered}");
}
