//! Bytes that are not what they should be: answered with an error where there is one, else the connection is closed, and
//! nobody else notices.

use kafka_protocol::messages::{
    ApiVersionsRequest, FetchResponse, MetadataRequest, MetadataResponse, ProduceResponse,
};
use millstream::config::ServerConfig;
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::time::Nanos;

use crate::node::Node;
use crate::wire::{ask, batch, decode, fetch, frame, list_offsets, metadata, produce};

fn node() -> Node {
    let mut node = Node::new();
    node.engine.create("t", 2);
    node
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// Expects that these bytes close their connection without an answer, and no other one.
#[track_caller]
fn closes(bytes: &[u8]) {
    let mut node = node();
    let (conn, other) = (node.connect(), node.connect());
    node.receive(conn, bytes);
    assert!(node.socket(conn).closed && node.socket(conn).sent.is_empty());
    assert_eq!(node.broker.pending(), 0);
    ask(&mut node, other, 0, &ApiVersionsRequest::default());
}

#[test]
fn lengths_that_cannot_be_close_the_connection() {
    closes(&[0xff; 4]);
    closes(&[0x80, 0, 0, 0]);
    closes(&[0x7f, 0xff, 0xff, 0xff]);
    closes(b"GET / HTTP/1.1\r\n\r\n");
    closes(&[0; 4]);
    closes(&framed(&[0, 18, 0, 0, 0, 0]));
}

#[test]
fn a_frame_past_the_configured_size_closes_the_connection() {
    let mut node = Node::with(ServerConfig { request_bytes_max: 2000, ..ServerConfig::default() });
    let conn = node.connect();
    node.receive(conn, &[0, 0, 7, 0xd1]);
    assert!(node.socket(conn).closed);
    let conn = node.connect();
    node.receive(conn, &[0, 0, 7, 0xd0]);
    assert!(!node.socket(conn).closed);
}

#[test]
fn many_large_requests_at_once_cost_the_last_its_connection() {
    let mut node = Node::with(ServerConfig { partial_bytes_max: 1 << 20, ..ServerConfig::default() });
    let part_of_a_frame = [&(1_u32 << 20).to_be_bytes()[..], &vec![0; 300 << 10]].concat();
    let conns = [node.connect(), node.connect(), node.connect(), node.connect()];
    for conn in conns {
        node.receive(conn, &part_of_a_frame);
    }
    assert_eq!(conns.map(|conn| node.socket(conn).closed), [false, false, false, true]);
    node.disconnect(conns[0]);
    let conn = node.connect();
    node.receive(conn, &part_of_a_frame);
    assert!(!node.socket(conn).closed, "what was held for a connection is free when it is gone");
}

#[test]
fn silent_connections_are_closed_and_waiting_ones_are_not() {
    let mut node = Node::with(ServerConfig { idle_ms_max: 1000, ..ServerConfig::default() });
    node.engine.create("t", 1);
    node.step(AppEvent::Started);
    let (silent, stuck, waiting) = (node.connect(), node.connect(), node.connect());
    node.receive(waiting, &frame(11, 1, &fetch("t", 60_000, 1, &[(0, 0)])));
    node.hold_sends = true;
    node.receive(stuck, &frame(0, 1, &ApiVersionsRequest::default()));
    for _ in 0..4 {
        node.advance(Nanos::from_millis(250));
        assert!(!node.socket(silent).closed && !node.socket(stuck).closed);
    }
    node.advance(Nanos::from_millis(250));
    assert!(node.socket(silent).closed && node.socket(stuck).closed && !node.socket(waiting).closed);
}

#[test]
fn an_unknown_api_closes_the_connection() {
    closes(&framed(&[0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff]));
    closes(&framed(&[0xff, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]));
}

#[test]
fn versions_that_are_not_known_are_answered_where_there_is_a_form() {
    let request = |key: u8, version: u8| framed(&[0, key, 0, version, 0, 0, 0, 6, 0xff, 0xff, 0, 1, 2, 3]);
    let mut node = node();
    let conn = node.connect();
    node.receive(conn, &request(1, 17));
    let (id, response) = decode::<FetchResponse>(17, node.response(conn).unwrap());
    assert_eq!((id, response.error_code), (6, 35));
    node.receive(conn, &request(3, 13));
    let (id, response) = decode::<MetadataResponse>(13, node.response(conn).unwrap());
    assert_eq!((id, response.error_code), (6, 35));
    closes(&request(0, 13));
    closes(&request(2, 11));
    closes(&framed(&[0, 18, 0xff, 0xff, 0, 0, 0, 6, 0xff, 0xff]));
}

#[test]
fn old_fetches_and_searches_are_refused_in_their_own_form() {
    let header = |key: u8, version: u8| [0, key, 0, version, 0, 0, 0, 5, 0xff, 0xff];
    let topic = [0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0];
    for version in 0..4_u8 {
        let mut node = node();
        let conn = node.connect();
        let mut message = header(1, version).to_vec();
        message.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1]);
        message.extend([0, 0, 0, 9].iter().filter(|_| version == 3));
        message.extend(topic);
        message.extend([0; 12]);
        node.receive(conn, &framed(&message));
        let mut expected = vec![0, 0, 0, 5];
        expected.extend([0; 4].iter().filter(|_| version > 0));
        expected.extend(topic);
        expected.extend([0, 35, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(node.response(conn).unwrap(), expected, "version {version}");
    }
    let mut node = node();
    let conn = node.connect();
    let message = [&header(2, 0)[..], &[0xff; 4], &topic, &[0xff; 8], &[0, 0, 0, 1]].concat();
    node.receive(conn, &framed(&message));
    let expected = [&[0, 0, 0, 5][..], &topic, &[0, 35, 0, 0, 0, 0]].concat();
    assert_eq!(node.response(conn).unwrap(), expected);
}

#[test]
fn every_prefix_of_a_request_is_refused_and_none_harms() {
    let requests = [
        (9, frame(9, 1, &produce(-1, "t", &[(0, Some(batch(0, &["a"])))]))),
        (3, frame(3, 1, &produce(-1, "t", &[(0, Some(batch(0, &["a"])))]))),
        (12, frame(12, 1, &fetch("t", 0, 1, &[(0, 0)]))),
        (4, frame(4, 1, &fetch("t", 0, 1, &[(0, 0)]))),
        (7, frame(7, 1, &list_offsets("t", &[(0, -1)]))),
        (1, frame(1, 1, &list_offsets("t", &[(0, -1)]))),
        (12, frame(12, 1, &metadata(Some(&["t"])))),
        (0, frame(0, 1, &metadata(Some(&["t"])))),
    ];
    for (version, whole) in requests {
        for len in 4..whole.len() {
            let mut node = node();
            let conn = node.connect();
            node.receive(conn, &framed(&whole[4..len]));
            let answered = !node.socket(conn).sent.is_empty();
            assert!(node.socket(conn).closed && !answered, "version {version}, {len} bytes");
        }
    }
}

#[test]
fn any_byte_may_be_any_other() {
    let requests = [
        frame(9, 1, &produce(-1, "t", &[(0, Some(batch(0, &["a"])))])),
        frame(7, 1, &produce(1, "t", &[(0, Some(batch(0, &["a"])))])),
        frame(12, 1, &fetch("t", 10, 1, &[(0, 0)])),
        frame(11, 1, &fetch("t", 10, 1, &[(0, 0)])),
        frame(7, 1, &list_offsets("t", &[(0, 5)])),
        frame(12, 1, &metadata(Some(&["t"]))),
        frame(3, 1, &ApiVersionsRequest::default()),
    ];
    for whole in requests {
        for place in 0..whole.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff] {
                let mut bytes = whole.clone();
                bytes[place] = value;
                let mut node = node();
                let (conn, other) = (node.connect(), node.connect());
                node.receive(conn, &bytes);
                ask(&mut node, other, 0, &ApiVersionsRequest::default());
            }
        }
    }
}

#[test]
fn counts_that_cannot_be_close_the_connection() {
    let header = |key: u8, version: u8| vec![0, key, 0, version, 0, 0, 0, 5, 0xff, 0xff];
    let huge = [0x7f, 0xff, 0xff, 0xff];
    closes(&framed(&[&header(3, 1)[..], &huge].concat()));
    closes(&framed(&[&header(0, 7)[..], &[0xff; 4], &[0; 4], &huge].concat()));
    closes(&framed(&[&header(2, 1)[..], &[0xff; 4], &huge].concat()));
    let mut compact = header(3, 9);
    compact.extend([0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    closes(&framed(&compact));
}

#[test]
fn more_partitions_than_the_limit_close_the_connection() {
    let partitions: Vec<_> = (0..20_001).map(|index| (index, 0)).collect();
    closes(&frame(11, 1, &fetch("t", 0, 1, &partitions)));
    let names: Vec<String> = (0..10_001).map(|i| i.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    closes(&frame(9, 1, &metadata(Some(&names))));
}

#[test]
fn what_came_before_garbage_is_still_answered() {
    let mut node = node();
    let conn = node.connect();
    node.hold = true;
    node.receive(conn, &frame(7, 1, &produce(-1, "t", &[(0, Some(batch(0, &["a"])))])));
    node.receive(conn, &[0xff; 100]);
    assert!(node.socket(conn).read_off && !node.socket(conn).closed);
    node.receive(conn, &frame(1, 2, &MetadataRequest::default()));
    node.release_all();
    let (id, response) = decode::<ProduceResponse>(7, node.response(conn).unwrap());
    assert_eq!((id, response.responses[0].partition_responses[0].error_code), (1, 0));
    assert!(node.response(conn).is_none() && node.socket(conn).closed);
}

#[test]
fn nulls_where_none_may_be_close_the_connection() {
    closes(&framed(&[0, 3, 0, 1, 0, 0, 0, 5, 0xff, 0xff, 0, 0, 0, 1, 0xff, 0xff]));
    closes(&framed(&[0, 2, 0, 1, 0, 0, 0, 5, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
}
