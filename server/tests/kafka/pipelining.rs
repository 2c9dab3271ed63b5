use kafka_protocol::messages::{ApiVersionsRequest, MetadataResponse, ProduceResponse};
use millstream::limits::{
    FETCH_BYTES_HELD_MAX, REQUEST_BYTES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX, RESPONSE_BYTES_WAITING_MAX,
};
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::shard::request::Request;

use crate::node::Node;
use crate::wire::{ask, batch, decode, fetch, frame, metadata, produce};

fn node() -> Node {
    let mut node = Node::new();
    node.engine.create("t", 4);
    node
}

#[test]
fn answers_leave_in_the_order_of_the_requests() {
    let mut node = node();
    let conn = node.connect();
    node.hold = true;
    for (id, index) in [(1, 0), (2, 1), (3, 2)] {
        node.receive(conn, &frame(7, id, &produce(-1, "t", &[(index, Some(batch(0, &["a"])))])));
    }
    node.receive(conn, &frame(0, 4, &ApiVersionsRequest::default()));
    assert_eq!(node.held.len(), 3, "all three are under way");
    node.release(2);
    node.release(1);
    assert!(node.response(conn).is_none(), "the first is not answered");
    node.release(0);
    for expected in [1, 2, 3] {
        assert_eq!(decode::<ProduceResponse>(7, node.response(conn).unwrap()).0, expected);
    }
    assert!(node.response(conn).is_some() && node.response(conn).is_none());
}

#[test]
fn appends_go_out_in_the_order_in_which_they_came() {
    let mut node = node();
    let conn = node.connect();
    node.hold = true;
    let values = ["1", "2", "3", "4"];
    let frames: Vec<u8> = values
        .iter()
        .flat_map(|value| frame(7, 1, &produce(-1, "t", &[(0, Some(batch(0, &[value])))])))
        .collect();
    for piece in frames.chunks(17) {
        node.receive(conn, piece);
    }
    let order: Vec<u8> = node
        .held
        .iter()
        .map(|(_, _, request)| match request {
            Request::Append { batch, .. } => batch[batch.len() - 2],
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, b"1234");
}

#[test]
fn one_received_piece_may_hold_many_requests_and_their_answers_leave_together() {
    let mut node = node();
    let conn = node.connect();
    let many: Vec<u8> = (0..20).flat_map(|id| frame(1, id, &metadata(None))).collect();
    node.receive(conn, &many);
    for id in 0..20 {
        assert_eq!(decode::<MetadataResponse>(1, node.response(conn).unwrap()).0, id);
    }
    assert_eq!(node.socket(conn).sends, 1);
}

#[test]
fn reading_stops_at_so_many_requests_and_goes_on_when_they_are_answered() {
    let mut node = node();
    let conn = node.connect();
    node.hold = true;
    let one = frame(7, 1, &produce(-1, "t", &[(0, Some(batch(0, &["a"])))]));
    let many = one.repeat(REQUESTS_IN_FLIGHT_MAX + 50);
    node.receive(conn, &many);
    assert_eq!(node.held.len(), REQUESTS_IN_FLIGHT_MAX);
    assert!(node.socket(conn).read_off);
    node.release(0);
    assert_eq!(node.held.len(), REQUESTS_IN_FLIGHT_MAX, "one is answered, the next is taken");
    node.release_all();
    assert!(!node.socket(conn).read_off);
    let answers = std::iter::from_fn(|| node.response(conn)).count();
    assert_eq!(answers, REQUESTS_IN_FLIGHT_MAX + 50);
}

#[test]
fn no_more_large_answers_are_asked_for_than_may_wait_to_be_sent() {
    let mut node = node();
    let conn = node.connect();
    node.hold = true;
    node.receive(conn, &frame(11, 1, &fetch("t", 0, 0, &[(0, 0)])).repeat(10));
    let at_once = RESPONSE_BYTES_WAITING_MAX / FETCH_BYTES_HELD_MAX + 1;
    assert_eq!(node.held.len(), at_once);
    assert!(node.socket(conn).read_off);
    node.release(0);
    assert_eq!(node.held.len(), at_once, "one is answered, the next is taken");
    node.release_all();
    assert!(!node.socket(conn).read_off);
    assert_eq!(std::iter::from_fn(|| node.response(conn)).count(), 10);
}

#[test]
fn reading_stops_at_so_many_bytes() {
    let mut node = node();
    let conn = node.connect();
    node.hold = true;
    let value = "x".repeat(3 << 20);
    let one = frame(7, 1, &produce(-1, "t", &[(0, Some(batch(0, &[&value])))]));
    let fit = REQUEST_BYTES_IN_FLIGHT_MAX.div_ceil(one.len() - 4);
    for _ in 0..fit {
        assert!(!node.socket(conn).read_off);
        node.receive(conn, &one);
    }
    assert!(node.socket(conn).read_off);
    node.release_all();
    assert!(!node.socket(conn).read_off);
}

#[test]
fn a_client_that_does_not_take_its_answers_is_not_read_from() {
    let mut node = node();
    let conn = node.connect();
    let value = "x".repeat(1 << 20);
    for _ in 0..3 {
        ask(&mut node, conn, 7, &produce(-1, "t", &[(0, Some(batch(0, &[&value])))]));
    }
    node.hold_sends = true;
    node.engine.chunk_bytes = 4 << 20;
    let request = frame(11, 1, &{
        let mut request = fetch("t", 0, 1, &[(0, 0)]);
        request.topics[0].partitions[0].partition_max_bytes = 10 << 20;
        request
    });
    let mut taken = 0;
    while !node.socket(conn).read_off {
        node.receive(conn, &request);
        taken += 1;
        assert!(taken < 20, "reading is never turned off");
    }
    node.hold_sends = false;
    node.send_done(conn);
    assert!(!node.socket(conn).read_off);
    assert_eq!(std::iter::from_fn(|| node.response(conn)).count(), taken);
}

#[test]
fn stopping_answers_what_is_under_way_and_closes() {
    let mut node = node();
    let (idle, waiting, working) = (node.connect(), node.connect(), node.connect());
    node.receive(waiting, &frame(11, 1, &fetch("t", 60_000, 1, &[(0, 0)])));
    node.hold = true;
    node.receive(working, &frame(7, 1, &produce(-1, "t", &[(1, Some(batch(0, &["a"])))])));
    node.step(AppEvent::Stopping);
    assert!(node.socket(idle).closed && !node.socket(working).closed);
    node.release_all();
    for conn in [waiting, working] {
        assert!(node.response(conn).is_some() && node.socket(conn).closed);
    }
    let late = node.connect();
    assert!(node.socket(late).closed);
}

#[test]
fn whoever_takes_nothing_keeps_no_batches_and_gets_all_of_them_when_it_does() {
    let mut node = node();
    let (quick, slow) = (node.connect(), node.connect());
    let value = "x".repeat(200_000);
    for index in [0, 1, 0, 1] {
        ask(&mut node, quick, 7, &produce(-1, "t", &[(index, Some(batch(0, &[&value])))]));
    }
    let request = frame(11, 1, &fetch("t", 0, 1, &[(0, 0), (1, 0), (0, 1)]));
    node.receive(quick, &request);
    let expected = node.response(quick).unwrap();
    assert!(expected.len() > 5 * value.len());
    node.hold_sends = true;
    node.receive(slow, &request.repeat(3));
    let under_way = node.socket(slow).sent.len();
    assert!(node.broker.held_bytes().sum::<usize>() > 2 * value.len(), "batches wait");
    node.step(AppEvent::Slow(slow));
    assert!(node.broker.held_bytes().sum::<usize>() < 10_000, "they wait no more");
    node.receive(slow, &request.repeat(10));
    assert!(node.socket(slow).read_off);
    assert!(node.broker.held_bytes().sum::<usize>() < 10_000, "nothing is begun");
    assert_eq!(node.socket(slow).sent.len(), under_way);
    node.hold_sends = false;
    node.send_done(slow);
    for _ in 0..13 {
        assert!(node.response(slow).unwrap() == expected);
    }
    assert!(node.response(slow).is_none() && !node.socket(slow).read_off);
}

#[test]
fn when_memory_is_short_an_answer_that_waits_for_another_keeps_none_and_is_sent_whole_in_its_turn() {
    let mut node = node();
    let (other, conn) = (node.connect(), node.connect());
    let value = "x".repeat(200_000);
    for index in [0, 1, 0] {
        ask(&mut node, other, 7, &produce(-1, "t", &[(index, Some(batch(0, &[&value])))]));
    }
    let request = frame(11, 1, &fetch("t", 0, 1, &[(0, 0), (1, 0), (0, 1)]));
    node.receive(other, &request);
    let expected = node.response(other).unwrap();
    // News of partition 3 may be long in coming.
    node.receive(conn, &frame(11, 1, &fetch("t", i32::MAX, 1, &[(3, 0)])));
    node.receive(conn, &request.repeat(3));
    assert!(node.broker.held_bytes().sum::<usize>() > 9 * value.len());
    node.step(AppEvent::LetGo);
    assert!(node.broker.held_bytes().sum::<usize>() < 10_000);
    assert!(node.response(conn).is_none());
    ask(&mut node, other, 7, &produce(-1, "t", &[(3, Some(batch(0, &["news"])))]));
    assert!(node.response(conn).is_some_and(|news| news.len() < 1_000));
    for _ in 0..3 {
        assert!(node.response(conn).unwrap() == expected);
    }
}

#[test]
fn when_memory_is_short_a_fetch_that_is_not_read_to_its_end_keeps_none() {
    let mut node = node();
    let conn = node.connect();
    for index in [0, 1] {
        ask(&mut node, conn, 7, &produce(-1, "t", &[(index, Some(batch(0, &["some value"])))]));
    }
    let request = frame(11, 1, &fetch("t", 0, 1, &[(0, 0), (1, 0)]));
    node.receive(conn, &request);
    let expected = node.response(conn).unwrap();
    node.hold = true;
    node.receive(conn, &request);
    node.release(0);
    node.step(AppEvent::LetGo);
    node.release(0);
    let loads = node.held.iter().filter(|(_, _, request)| matches!(request, Request::Load(_))).count();
    assert_eq!((loads, node.held.len()), (1, 1), "what was let go is loaded, and nothing else");
    node.release_all();
    assert!(node.response(conn).unwrap() == expected);
}
