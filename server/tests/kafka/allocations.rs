//! How often the broker takes memory for a request on the hot path, from the bytes that arrive to the bytes that leave:
//! a bounded few times, whatever the request carries. Counted, so that it is the same on every machine.

use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::ConnId;

use crate::node::Node;
use crate::wire::{fetch, frame, produce};

/// What is counted, after what only happens at first.
const REQUESTS: u64 = 100;
const WARM_UP: u64 = 20;

/// Allocations per request. One more is a decision, not an accident.
const PRODUCE_MAX: f64 = 7.0;
const FETCH_MAX: f64 = 8.0;

fn node() -> (Node, ConnId) {
    let mut node = Node::new();
    node.engine.create("t", 1);
    let conn = node.connect();
    (node, conn)
}

fn batch(records: usize, value: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1000);
    for _ in 0..records {
        builder.push(None, Some(&vec![7; value]));
    }
    builder.build()
}

/// Allocations per request of this one, over and over, each answered at once by at least so many bytes.
fn per_request(node: &mut Node, conn: ConnId, request: &[u8], response_bytes_min: usize) -> f64 {
    let mut run = |requests| {
        let before = node.allocations;
        for _ in 0..requests {
            node.receive(conn, request);
            let response = node.response(conn).expect("an answer at once");
            assert!(response.len() >= response_bytes_min, "{} bytes", response.len());
        }
        node.allocations - before
    };
    run(WARM_UP);
    run(REQUESTS) as f64 / REQUESTS as f64
}

#[test]
fn a_produce_request_takes_memory_a_bounded_few_times_whatever_it_carries() {
    for (records, value) in [(1, 100), (63, 1000)] {
        let (mut node, conn) = node();
        let request = frame(9, 1, &produce(-1, "t", &[(0, Some(batch(records, value)))]));
        let allocations = per_request(&mut node, conn, &request, 1);
        assert!(allocations <= PRODUCE_MAX, "{allocations} allocations for {records} records");
    }
}

#[test]
fn a_fetch_request_takes_memory_a_bounded_few_times_whatever_it_finds() {
    for (batches, records) in [(1, 1), (4, 63)] {
        let (mut node, conn) = node();
        let one = batch(records, 1000);
        for _ in 0..batches {
            node.receive(conn, &frame(9, 1, &produce(-1, "t", &[(0, Some(one.clone()))])));
            node.response(conn).expect("an answer at once");
        }
        let request = frame(11, 1, &fetch("t", 0, 1, &[(0, 0)]));
        let allocations = per_request(&mut node, conn, &request, batches * one.len());
        assert!(allocations <= FETCH_MAX, "{allocations} allocations for {batches} batches");
    }
}
