use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse};
use millstream_engine::io::ConnId;
use millstream_engine::shard::request::Request;
use millstream_engine::time::Nanos;

use crate::engine::LEADER_EPOCH;
use crate::node::Node;
use crate::wire::{ask, batch, decode, fetch, frame, produce, served};

/// A node whose topic `t` has one batch of two records in each of the first `filled` of its four partitions.
fn node(filled: i32) -> (Node, ConnId) {
    let mut node = Node::new();
    node.engine.create("t", 4);
    let conn = node.connect();
    for index in 0..filled {
        append(&mut node, conn, index);
    }
    (node, conn)
}

fn append(node: &mut Node, conn: ConnId, index: i32) {
    let response = ask(node, conn, 9, &produce(-1, "t", &[(index, Some(batch(1000, &["a", "b"])))]));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

fn parts(response: &FetchResponse) -> &[PartitionData] {
    &response.responses[0].partitions
}

fn len(part: &PartitionData) -> usize {
    part.records.as_ref().map_or(0, bytes::Bytes::len)
}

fn lens(response: &FetchResponse) -> Vec<usize> {
    parts(response).iter().map(len).collect()
}

fn answer(node: &mut Node, conn: ConnId) -> Option<FetchResponse> {
    node.response(conn).map(|response| decode(11, response).1)
}

#[test]
fn every_version_returns_the_stored_bytes() {
    for version in served(ApiKey::Fetch) {
        let (mut node, conn) = node(1);
        append(&mut node, conn, 0);
        let response = ask(&mut node, conn, version, &fetch("t", 0, 1, &[(0, 0), (1, 0)]));
        assert_eq!((response.error_code, response.session_id), (0, 0));
        let [full, empty] = parts(&response) else { panic!("two partitions") };
        assert_eq!((full.partition_index, full.error_code), (0, 0), "version {version}");
        assert_eq!((full.high_watermark, full.last_stable_offset), (4, 4));
        assert_eq!(full.records.as_deref(), Some(node.engine.log("t", 0)));
        assert_eq!((empty.partition_index, empty.high_watermark, len(empty)), (1, 0, 0));
        assert!(full.aborted_transactions.is_none());
        if version >= 5 {
            assert_eq!(full.log_start_offset, 0);
        }
        if version >= 11 {
            assert_eq!(full.preferred_read_replica.0, -1);
        }
    }
}

#[test]
fn the_whole_batch_that_holds_the_offset_is_returned() {
    let (mut node, conn) = node(1);
    append(&mut node, conn, 0);
    let log = node.engine.log("t", 0).to_vec();
    let response = ask(&mut node, conn, 11, &fetch("t", 0, 1, &[(0, 3)]));
    assert_eq!(parts(&response)[0].records.as_deref(), Some(&log[log.len() / 2..]));
}

#[test]
fn committed_readers_are_told_that_nothing_was_aborted() {
    let (mut node, conn) = node(1);
    let response = ask(&mut node, conn, 11, &fetch("t", 0, 1, &[(0, 0)]).with_isolation_level(1));
    assert_eq!(parts(&response)[0].aborted_transactions.as_deref(), Some(&[][..]));
}

#[test]
fn errors_are_told_by_partition_and_at_once() {
    let (mut node, conn) = node(1);
    node.engine.trim("t", 0, 1);
    let mut request = fetch("t", 10_000, 1 << 20, &[(0, 0), (0, 3), (0, -1), (7, 0), (0, 2), (0, 2), (0, 2)]);
    let epoch = LEADER_EPOCH as i32;
    let partitions = &mut request.topics[0].partitions;
    for (place, believed) in [(4, epoch - 1), (5, epoch + 1), (6, epoch)] {
        partitions[place].current_leader_epoch = believed;
    }
    let response = ask(&mut node, conn, 11, &request);
    let codes: Vec<_> = parts(&response).iter().map(|part| part.error_code).collect();
    assert_eq!(codes, [1, 1, 1, 3, 74, 75, 0]);
    assert_eq!((parts(&response)[6].high_watermark, parts(&response)[6].log_start_offset), (2, 1));
}

#[test]
fn a_session_is_never_granted_and_an_old_one_is_unknown() {
    let (mut node, conn) = node(1);
    let request = fetch("t", 0, 1, &[(0, 0)]);
    let asked = request.clone().with_session_id(0).with_session_epoch(0);
    assert_eq!(ask(&mut node, conn, 11, &asked).session_id, 0);
    let response = ask(&mut node, conn, 11, &request.with_session_id(5).with_session_epoch(1));
    assert_eq!((response.error_code, response.responses.len()), (70, 0));
}

#[test]
fn news_end_the_wait() {
    let (mut node, conn) = node(0);
    node.receive(conn, &frame(11, 1, &fetch("t", 500, 1, &[(0, 0), (1, 0), (2, 0), (3, 0)])));
    assert!(node.response(conn).is_none());
    assert_eq!(node.engine.watches(), 2, "one for each shard, not for each partition");
    let producer = node.connect();
    append(&mut node, producer, 1);
    let response = answer(&mut node, conn).expect("woken");
    assert_eq!(lens(&response), [0, node.engine.log("t", 1).len(), 0, 0]);
    assert_eq!(node.engine.watches(), 0, "the other watch is ended");
    node.advance(Nanos::from_millis(500));
    assert!(node.response(conn).is_none(), "it is answered once");
    assert_eq!(node.broker.pending(), 0);
}

#[test]
fn the_wait_ends_with_nothing_when_its_time_is_over() {
    let (mut node, conn) = node(1);
    node.receive(conn, &frame(11, 1, &fetch("t", 500, 1 << 20, &[(0, 0), (1, 0)])));
    node.advance(Nanos::from_millis(499));
    assert!(node.response(conn).is_none());
    node.advance(Nanos::from_millis(1));
    let response = answer(&mut node, conn).expect("the time is over");
    assert_eq!(lens(&response), [node.engine.log("t", 0).len(), 0]);
    assert_eq!((node.engine.watches(), node.broker.pending()), (0, 0));
}

#[test]
fn what_was_there_before_the_wait_counts() {
    let (mut node, conn) = node(1);
    let both = 2 * node.engine.log("t", 0).len();
    node.receive(conn, &frame(11, 1, &fetch("t", 500, both as i32, &[(0, 0), (1, 0)])));
    assert!(node.response(conn).is_none());
    let producer = node.connect();
    append(&mut node, producer, 1);
    let response = answer(&mut node, conn).expect("the sum is reached");
    assert_eq!(lens(&response).iter().sum::<usize>(), both);
}

#[test]
fn a_timer_is_set_once_for_many_waits_in_a_row() {
    let (mut node, conn) = node(0);
    let producer = node.connect();
    for round in 0..50 {
        node.receive(conn, &frame(11, 1, &fetch("t", 500, 1, &[(0, 2 * round)])));
        append(&mut node, producer, 0);
        assert!(answer(&mut node, conn).is_some(), "round {round}");
    }
    assert_eq!(node.timers.len(), 1);
    node.advance(Nanos::from_millis(400));
    node.receive(conn, &frame(11, 1, &fetch("t", 500, 1, &[(0, 100)])));
    node.advance(Nanos::from_millis(100));
    assert!(answer(&mut node, conn).is_none(), "the first timer is too early for the last wait");
    node.advance(Nanos::from_millis(400));
    assert!(answer(&mut node, conn).is_some());
}

#[test]
fn the_budget_is_spent_in_the_order_of_the_request() {
    let (mut node, conn) = node(4);
    let one = node.engine.log("t", 0).len();
    let spend = |node: &mut Node, max_bytes: usize, first: i32| {
        let request = fetch("t", 0, 1, &[(first, 0), (3 - first, 0), (1, 0), (2, 0)]);
        lens(&ask(node, conn, 11, &request.with_max_bytes(max_bytes as i32)))
    };
    assert_eq!(spend(&mut node, 1, 0), [one, 0, 0, 0], "the first batch comes however small the budget");
    assert_eq!(spend(&mut node, 1, 3), [one, 0, 0, 0]);
    assert_eq!(spend(&mut node, 2 * one, 0), [one, one, 0, 0]);
    assert_eq!(spend(&mut node, 1 << 20, 0), [one; 4]);
}

#[test]
fn an_empty_partition_gives_its_share_to_the_next() {
    let (mut node, conn) = node(2);
    let one = node.engine.log("t", 0).len();
    let request = fetch("t", 0, 1, &[(3, 0), (2, 0), (1, 0), (0, 0)]).with_max_bytes(1);
    let response = ask(&mut node, conn, 11, &request);
    assert_eq!(lens(&response), [0, 0, one, 0]);
    let last = &parts(&response)[3];
    assert_eq!((last.high_watermark, last.last_stable_offset, last.log_start_offset), (2, 2, 0));
}

#[test]
fn a_batch_larger_than_its_share_comes_first_or_not_at_all() {
    let (mut node, conn) = node(2);
    let one = node.engine.log("t", 0).len();
    let mut request = fetch("t", 0, 1, &[(2, 0), (1, 0), (0, 0), (1, 0), (0, 0)]);
    for partition in &mut request.topics[0].partitions {
        partition.partition_max_bytes = 1;
    }
    request.topics[0].partitions[4].partition_max_bytes = 1 << 20;
    let response = ask(&mut node, conn, 11, &request);
    assert_eq!(lens(&response), [0, one, 0, 0, one]);
    let stand: Vec<_> = parts(&response).iter().map(|part| part.high_watermark).collect();
    assert_eq!(stand, [0, 2, 2, 2, 2]);
}

#[test]
fn an_answer_has_a_limit_whatever_the_client_would_take() {
    let (mut node, conn) = node(0);
    let value = "x".repeat(15 << 20);
    for index in 0..4 {
        ask(&mut node, conn, 9, &produce(-1, "t", &[(index, Some(batch(1000, &[&value])))]));
    }
    let mut request = fetch("t", 0, 1, &[(0, 0), (1, 0), (2, 0), (3, 0)]).with_max_bytes(i32::MAX);
    for partition in &mut request.topics[0].partitions {
        partition.partition_max_bytes = i32::MAX;
    }
    let found: usize = lens(&ask(&mut node, conn, 11, &request)).iter().sum();
    assert!((45 << 20..=55 << 20).contains(&found), "{found}");
}

#[test]
fn a_large_read_is_loaded_chunk_by_chunk_as_it_is_sent() {
    let (mut node, conn) = node(0);
    for _ in 0..10 {
        append(&mut node, conn, 0);
        append(&mut node, conn, 1);
    }
    node.engine.chunk_bytes = 100;
    node.hold_sends = true;
    node.receive(conn, &frame(11, 5, &fetch("t", 0, 1, &[(0, 0), (1, 0)])));
    let log = node.engine.log("t", 0).to_vec();
    let mut before = 0;
    for _ in 0..3 {
        let now = node.socket(conn).sent.len();
        assert!(now - before <= 200, "a chunk at a time, and not before the last is sent");
        before = now;
        node.send_done(conn);
    }
    assert!(answer(&mut node, conn).is_none());
    node.hold_sends = false;
    node.send_done(conn);
    let response = answer(&mut node, conn).expect("whole");
    assert_eq!(parts(&response)[0].records.as_deref(), Some(&log[..]));
    assert_eq!(parts(&response)[1].records.as_deref(), Some(node.engine.log("t", 1)));
    assert!(node.socket(conn).sent.is_empty());
}

#[test]
fn a_read_that_breaks_off_closes_the_connection() {
    let (mut node, conn) = node(1);
    node.engine.chunk_bytes = 10;
    node.engine.refuse_load = true;
    node.receive(conn, &frame(11, 5, &fetch("t", 0, 1, &[(0, 0)])));
    assert!(answer(&mut node, conn).is_none() && node.socket(conn).closed);
    assert_eq!((node.broker.pending(), node.broker.connections()), (0, 0));
}

#[test]
fn watches_end_with_their_connection() {
    let (mut node, conn) = node(0);
    node.receive(conn, &frame(11, 1, &fetch("t", 500, 1, &[(0, 0), (1, 0)])));
    node.disconnect(conn);
    assert_eq!(node.engine.watches(), 0);
    node.advance(Nanos::from_millis(500));
    assert_eq!((node.broker.pending(), node.broker.connections()), (0, 0));
}

#[test]
fn an_answer_that_comes_after_its_connection_is_gone_is_ignored() {
    let (mut node, conn) = node(1);
    node.hold = true;
    node.receive(conn, &frame(11, 1, &fetch("t", 0, 1, &[(0, 0)])));
    node.disconnect(conn);
    let other = node.connect();
    node.release_all();
    assert!(node.socket(conn).sent.is_empty() && node.socket(other).sent.is_empty());
    assert_eq!(node.broker.pending(), 0);
}

#[test]
fn no_partitions_are_answered_at_once() {
    let (mut node, conn) = node(0);
    let request = FetchRequest::default().with_max_wait_ms(500).with_min_bytes(1).with_max_bytes(100);
    assert!(ask(&mut node, conn, 11, &request).responses.is_empty());
}

#[test]
fn many_partitions_are_read_a_few_at_a_time() {
    let mut node = Node::new();
    node.engine.create("wide", 200);
    let conn = node.connect();
    node.hold = true;
    let partitions: Vec<_> = (0..200).map(|index| (index, 0)).collect();
    node.receive(conn, &frame(11, 1, &fetch("wide", 0, 1, &partitions)));
    assert!((1..=64).contains(&node.held.len()), "{} reads at once", node.held.len());
    assert!(node.held.iter().all(|(_, _, request)| matches!(request, Request::Read { .. })));
    node.release_all();
    let response = answer(&mut node, conn).unwrap();
    assert!(parts(&response).iter().all(|part| part.high_watermark == 0), "all were looked at");
}
