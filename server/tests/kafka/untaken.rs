//! Clients that do not take their answers, all of a shard together.

use kafka_protocol::messages::{ApiVersionsRequest, MetadataResponse};
use millstream::config::ServerConfig;
use millstream::limits::ANSWERS_UNTAKEN_MS;
use millstream_engine::io::ConnId;
use millstream_engine::time::Nanos;

use crate::node::Node;
use crate::wire::{decode, fetch, frame, metadata};

/// What all answers of the node may take.
const BYTES_MAX: usize = 1 << 20;

/// A node whose answers about all topics are large.
fn node() -> Node {
    let mut node = Node::with(ServerConfig { answer_bytes_max: BYTES_MAX, ..ServerConfig::default() });
    for number in 0..200 {
        node.engine.create(&format!("{number:0>200}"), 1);
    }
    node
}

/// Connections that ask for everything and take nothing, until there are too many answers. Gives how large an answer is as well.
fn deaf(node: &mut Node) -> (Vec<ConnId>, usize) {
    node.hold_sends = true;
    let mut deaf = Vec::new();
    let mut answer_bytes = 0;
    while node.broker.answer_bytes() < BYTES_MAX {
        let conn = node.connect();
        node.receive(conn, &frame(1, 1, &metadata(None)));
        answer_bytes = answer_bytes.max(node.socket(conn).sent.len());
        node.advance(Nanos::from_millis(10));
        deaf.push(conn);
    }
    node.hold_sends = false;
    (deaf, answer_bytes)
}

fn is_answered(node: &mut Node, conn: ConnId) -> bool {
    node.response(conn).is_some_and(|answer| decode::<MetadataResponse>(1, answer).1.topics.len() == 200)
}

#[test]
fn nothing_more_is_begun_and_whoever_takes_nothing_for_longest_is_hung_up_on() {
    let mut node = node();
    let (deaf, answer_bytes) = deaf(&mut node);
    assert!(deaf.len() > 10);
    let late: Vec<ConnId> = (0..300).map(|_| node.connect()).collect();
    for conn in &late {
        node.receive(*conn, &frame(1, 1, &metadata(None)).repeat(3));
    }
    assert!(node.broker.answer_bytes() < BYTES_MAX + answer_bytes);
    assert!(late.iter().all(|conn| node.socket(*conn).read_off && node.socket(*conn).sent.is_empty()));
    node.advance(Nanos::from_millis(ANSWERS_UNTAKEN_MS - 1_000));
    assert!(deaf.iter().all(|conn| !node.socket(*conn).closed), "they may be slow");
    for _ in 0..20 {
        node.advance(Nanos::from_millis(100));
    }
    let closed = deaf.iter().take_while(|conn| node.socket(**conn).closed).count();
    let open = deaf[closed..].iter().filter(|conn| !node.socket(**conn).closed).count();
    assert_eq!(closed + open, deaf.len(), "those that have waited for longest go first");
    assert!(
        open * answer_bytes <= BYTES_MAX / 2 && (open + 1) * answer_bytes >= BYTES_MAX / 2,
        "and no more"
    );
    assert_eq!(node.broker.answer_bytes(), open * answer_bytes);
    for conn in late {
        assert!((0..3).all(|_| is_answered(&mut node, conn)));
        assert!(!node.socket(conn).read_off);
    }
}

#[test]
fn whoever_was_kept_out_is_let_in_as_soon_as_somebody_takes_an_answer() {
    let mut node = node();
    let (deaf, _) = deaf(&mut node);
    let late = [node.connect(), node.connect()];
    for conn in late {
        node.receive(conn, &frame(1, 1, &metadata(None)));
    }
    node.hold_sends = true;
    node.send_done(deaf[3]);
    assert!(is_answered(&mut node, late[0]), "who came first");
    assert!(!is_answered(&mut node, late[1]), "there is no room for both");
    node.send_done(late[0]);
    assert!(is_answered(&mut node, late[1]));
}

#[test]
fn while_answers_are_many_a_connection_gets_one_at_a_time_and_one_with_few_is_not_hung_up_on() {
    let mut node = node();
    let (busy, few) = (node.connect(), node.connect());
    node.hold_sends = true;
    node.receive(few, &frame(0, 1, &ApiVersionsRequest::default()));
    let (deaf, answer_bytes) = deaf(&mut node);
    for conn in deaf.iter().take(2) {
        node.send_done(*conn);
    }
    node.hold_sends = true;
    node.receive(busy, &frame(1, 1, &metadata(None)).repeat(2));
    assert_eq!(node.socket(busy).sent.len(), answer_bytes);
    assert!(node.socket(busy).read_off);
    node.send_done(busy);
    assert_eq!(node.socket(busy).sent.len(), 2 * answer_bytes);
    for _ in 0..30 {
        node.advance(Nanos::from_millis(100));
    }
    assert!(deaf.iter().skip(2).any(|conn| node.socket(*conn).closed));
    assert!(!node.socket(few).closed);
}

#[test]
fn a_connection_that_waits_for_news_is_read_from_again_when_answers_are_few() {
    let mut node = node();
    node.engine.create("t", 1);
    let waiting = node.connect();
    node.receive(waiting, &frame(11, 1, &fetch("t", 60_000, 1, &[(0, 0)])));
    let (deaf, _) = deaf(&mut node);
    node.receive(waiting, &frame(1, 2, &metadata(None)));
    assert!(node.socket(waiting).read_off);
    for conn in deaf {
        node.send_done(conn);
    }
    assert!(!node.socket(waiting).read_off);
    assert!(node.broker.answer_bytes() > 0, "the answer behind the wait is ready");
}

#[test]
fn a_connection_that_ends_takes_its_answers_with_it() {
    let mut node = node();
    let (deaf, answer_bytes) = deaf(&mut node);
    let late = node.connect();
    node.receive(late, &frame(1, 1, &metadata(None)));
    for conn in &deaf {
        assert!(node.broker.answer_bytes() >= answer_bytes);
        node.disconnect(*conn);
    }
    assert!(is_answered(&mut node, late));
    assert_eq!(node.broker.answer_bytes(), 0);
}
