//! Transactions.

use millstream::amqp::codec::{
    BasicAck, BasicConsume, BasicGet, ConfirmSelect, Short, TableWriter, TxCommit, TxRollback, TxSelect,
    Value,
};

use crate::client::Client;
use crate::node::Node;

fn transactional(node: &mut Node) -> Client {
    let client = Client::with_channel(node);
    client.queue(node, "q", &TableWriter::default());
    assert_eq!(client.ask(node, 1, TxSelect {}), "1 TxSelectOk");
    client
}

fn got(client: &Client, node: &mut Node) -> String {
    client.open_channel(node, 9);
    let shown = client.ask(node, 9, BasicGet { queue: Short(b"q"), no_ack: true, ..BasicGet::default() });
    client.ask(node, 9, millstream::amqp::codec::ChannelClose::default());
    shown
}

#[test]
fn nothing_is_there_before_it_is_committed() {
    let mut node = Node::new();
    let client = transactional(&mut node);
    client.publish(&mut node, 1, "", "q", "m");
    assert!(got(&client, &mut node).contains("BasicGetEmpty"));
    assert_eq!(client.ask(&mut node, 1, TxCommit {}), "1 TxCommitOk");
    assert!(got(&client, &mut node).contains("body \"m\""));
    client.publish(&mut node, 1, "", "q", "n");
    assert_eq!(client.ask(&mut node, 1, TxRollback {}), "1 TxRollbackOk");
    assert_eq!(client.ask(&mut node, 1, TxCommit {}), "1 TxCommitOk");
    assert!(got(&client, &mut node).contains("BasicGetEmpty"));
}

#[test]
fn a_commit_is_answered_when_all_of_it_is_durable() {
    let mut node = Node::new();
    let client = transactional(&mut node);
    client.publish(&mut node, 1, "", "q", "m");
    client.publish(&mut node, 1, "", "nowhere", "x");
    node.hold = true;
    let shown = client.ask(&mut node, 1, TxCommit {});
    assert!(shown.starts_with("1 BasicReturn") && !shown.contains("CommitOk"), "{shown}");
    node.release_all();
    assert_eq!(client.shown(&mut node), "1 TxCommitOk");
}

#[test]
fn settlements_are_taken_back_by_a_rollback() {
    let mut node = Node::new();
    let client = transactional(&mut node);
    for message in ["a", "b", "c"] {
        client.publish(&mut node, 1, "", "q", message);
    }
    client.ask(&mut node, 1, TxCommit {});
    client.ask(&mut node, 1, BasicConsume { queue: Short(b"q"), ..BasicConsume::default() });
    assert_eq!(client.ask(&mut node, 1, BasicAck { delivery_tag: 2, multiple: true }), "");
    client.ask(&mut node, 1, TxRollback {});
    assert_eq!(client.ask(&mut node, 1, BasicAck { delivery_tag: 0, multiple: true }), "");
    assert_eq!(client.ask(&mut node, 1, TxCommit {}), "1 TxCommitOk");
    assert!(client.ask(&mut node, 1, BasicAck { delivery_tag: 1, multiple: false }).contains("406"));
    assert!(got(&client, &mut node).contains("BasicGetEmpty"));
}

#[test]
fn a_refusal_is_told() {
    let mut node = Node::new();
    let client = transactional(&mut node);
    let full = TableWriter::default()
        .with("x-max-length", Value::I32(0))
        .with("x-overflow", Value::String(b"reject-publish"));
    client.queue(&mut node, "f", &full);
    client.publish(&mut node, 1, "", "f", "m");
    let shown = client.ask(&mut node, 1, TxCommit {});
    assert!(
        shown.contains("PRECONDITION_FAILED - partial tx completion\", class: 90, method: 20"),
        "{shown}"
    );
}

#[test]
fn a_channel_is_one_thing_or_the_other() {
    let mut node = Node::new();
    let client = transactional(&mut node);
    let shown = client.ask(&mut node, 1, ConfirmSelect::default());
    assert!(shown.contains("PRECONDITION_FAILED - cannot switch from tx to confirm mode"), "{shown}");
    client.open_channel(&mut node, 2);
    client.ask(&mut node, 2, ConfirmSelect::default());
    let shown = client.ask(&mut node, 2, TxSelect {});
    assert!(shown.contains("PRECONDITION_FAILED - cannot switch from confirm to tx mode"), "{shown}");
    client.open_channel(&mut node, 3);
    let shown = client.ask(&mut node, 3, TxCommit {});
    assert!(shown.contains("PRECONDITION_FAILED - channel is not transactional"), "{shown}");
}
