use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ApiKey, ProduceResponse};
use millstream_engine::error::Refusal;
use millstream_engine::format::batch::{Attributes, BatchBuilder};
use millstream_engine::shard::request::Request;
use millstream_engine::types::{Durability, ShardId};

use crate::node::Node;
use crate::wire::{ask, batch, frame, produce, served, text};

fn first(response: &ProduceResponse) -> &PartitionProduceResponse {
    &response.responses[0].partition_responses[0]
}

fn node() -> Node {
    let mut node = Node::new();
    node.engine.create("t", 4);
    node
}

#[test]
fn every_version_stores_the_batch_and_tells_its_offset() {
    for version in served(ApiKey::Produce) {
        let mut node = node();
        let conn = node.connect();
        let bytes = batch(1000, &["a", "b"]);
        for expected in [0, 2] {
            let response = ask(&mut node, conn, version, &produce(-1, "t", &[(1, Some(bytes.clone()))]));
            assert_eq!(&*response.responses[0].name.0, "t");
            let part = first(&response);
            let told = (part.index, part.error_code, part.base_offset, part.log_append_time_ms);
            assert_eq!(told, (1, 0, expected, -1), "version {version}");
            if version >= 5 {
                assert_eq!(part.log_start_offset, 0);
            }
        }
        let log = node.engine.log("t", 1);
        assert_eq!(log.len(), 2 * bytes.len());
        assert_eq!(log[21..bytes.len()], bytes[21..], "the records are stored as they came");
    }
}

#[test]
fn acks_say_how_durable_it_must_be() {
    for (acks, expected) in [(0, Durability::Memory), (1, Durability::Written), (-1, Durability::Durable)] {
        let mut node = node();
        let conn = node.connect();
        node.hold = true;
        node.receive(conn, &frame(7, 1, &produce(acks, "t", &[(0, Some(batch(0, &["a"])))])));
        let Request::Append { durability, .. } = node.held[0].2 else { panic!("an append") };
        assert_eq!(durability, expected);
        assert!(node.socket(conn).sent.is_empty(), "nobody is answered before the engine has answered");
        node.release_all();
        assert_eq!(node.response(conn).is_some(), acks != 0);
    }
    let mut node = node();
    let conn = node.connect();
    let response = ask(&mut node, conn, 7, &produce(2, "t", &[(0, Some(batch(0, &["a"])))]));
    assert_eq!(first(&response).error_code, 21);
    assert!(node.engine.log("t", 0).is_empty());
}

#[test]
fn no_acks_no_answer_and_an_error_closes_the_connection() {
    let mut node = node();
    let conn = node.connect();
    node.receive(conn, &frame(7, 1, &produce(0, "t", &[(0, Some(batch(0, &["a"])))])));
    assert!(node.socket(conn).sent.is_empty() && !node.socket(conn).closed);
    assert!(!node.engine.log("t", 0).is_empty());
    node.receive(conn, &frame(7, 2, &produce(0, "nowhere", &[(0, Some(batch(0, &["a"])))])));
    assert!(node.socket(conn).sent.is_empty() && node.socket(conn).closed);
    assert_eq!(node.broker.connections(), 0);
}

#[test]
fn each_partition_goes_to_its_shard_and_fails_by_itself() {
    let mut node = node();
    let conn = node.connect();
    node.hold = true;
    let good = Some(batch(0, &["a"]));
    let parts =
        [(0, good.clone()), (9, good.clone()), (1, None), (2, Some(Vec::new())), (3, good), (-1, None)];
    node.receive(conn, &frame(8, 1, &produce(-1, "t", &parts)));
    assert_eq!(node.held.iter().map(|(_, shard, _)| *shard).collect::<Vec<_>>(), [ShardId(0), ShardId(1)]);
    node.release(1);
    assert!(node.socket(conn).sent.is_empty());
    node.release_all();
    let (_, response) = crate::wire::decode::<ProduceResponse>(8, node.response(conn).unwrap());
    let told: Vec<_> = response.responses[0]
        .partition_responses
        .iter()
        .map(|part| (part.index, part.error_code, part.error_message.is_some()))
        .collect();
    let expected = [(0, 0, false), (9, 3, true), (1, 87, true), (2, 87, true), (3, 0, false), (-1, 3, true)];
    assert_eq!(told, expected);
}

#[test]
fn a_batch_in_a_frame_that_came_in_one_piece_is_not_copied() {
    let mut node = node();
    let conn = node.connect();
    node.hold = true;
    let frame = millstream_engine::buffer::Slice::from(frame(
        7,
        1,
        &produce(-1, "t", &[(0, Some(batch(0, &["a value that is easily found"])))]),
    ));
    let place = frame.as_ptr_range();
    node.step(millstream_engine::reactor::app::AppEvent::Received(conn, frame.clone()));
    let Request::Append { batch, .. } = &node.held[0].2 else { panic!("an append") };
    assert!(place.contains(&batch.as_ptr()));
}

#[test]
fn a_batch_of_an_older_format_is_an_invalid_record_and_one_of_no_format_is_damage() {
    for (magic, expected) in [(0, 87), (1, 87), (3, 2), (0xff, 2)] {
        let mut node = node();
        let conn = node.connect();
        let mut bytes = batch(0, &["a"]);
        bytes[16] = magic;
        let response = ask(&mut node, conn, 8, &produce(-1, "t", &[(0, Some(bytes))]));
        assert_eq!(first(&response).error_code, expected, "magic {magic}");
        assert!(node.engine.log("t", 0).is_empty());
    }
}

#[test]
fn refusals_become_codes_and_messages() {
    let cases = [
        (Refusal::CorruptBatch("bad"), 2),
        (Refusal::BatchTooLarge { limit: 5 }, 10),
        (Refusal::OutOfOrderSequence, 45),
        (Refusal::DuplicateSequence, 46),
        (Refusal::InvalidProducerEpoch, 47),
        (Refusal::DiskFull, 56),
        (Refusal::Poisoned, 56),
        (Refusal::InvalidRecord("bad"), 87),
        (Refusal::Busy, 7),
    ];
    for (refusal, expected) in cases {
        let mut node = node();
        let conn = node.connect();
        node.engine.refuse_append = Some(refusal.clone());
        let response = ask(&mut node, conn, 9, &produce(-1, "t", &[(0, Some(batch(0, &["a"])))]));
        let part = first(&response);
        assert_eq!((part.error_code, part.base_offset), (expected, -1), "{refusal:?}");
        assert_eq!(part.error_message.as_deref(), Some(&*refusal.to_string()));
    }
}

#[test]
fn zstd_and_transactions_are_refused_where_they_cannot_be() {
    let mut node = node();
    let conn = node.connect();
    let with = |bits| BatchBuilder::new(0).push(None, Some(b"a")).attributes(bits).producer(1, 0, 0).build();
    let mut code = |version, bits| {
        first(&ask(&mut node, conn, version, &produce(-1, "t", &[(0, Some(with(bits)))]))).error_code
    };
    assert_eq!(code(6, 4), 76);
    assert_eq!(code(7, 4), 0);
    assert_eq!(code(9, Attributes::TRANSACTIONAL), 48);
    let request = produce(-1, "t", &[(0, Some(batch(0, &["a"])))]);
    let request = request.with_transactional_id(Some(text("tx").into()));
    assert_eq!(first(&ask(&mut node, conn, 9, &request)).error_code, 48);
}

#[test]
fn versions_before_3_are_refused_in_their_own_form() {
    for version in 0..3_u8 {
        let mut node = node();
        let conn = node.connect();
        // acks, timeout, one topic "t", one partition 0, no records
        let body =
            [&[0xff, 0xff][..], &[0; 4], &[0, 0, 0, 1], &[0, 1, b't'], &[0, 0, 0, 1], &[0; 4], &[0xff; 4]];
        let header = [0, 0, 0, version, 0, 0, 0, 5, 0xff, 0xff];
        let message = [&header[..], &body.concat()].concat();
        node.receive(conn, &[&(message.len() as u32).to_be_bytes()[..], &message].concat());
        let mut expected = vec![0, 0, 0, 5, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0, 0, 35];
        expected.extend([0xff; 8]);
        if version >= 2 {
            expected.extend([0xff; 8]);
        }
        if version >= 1 {
            expected.extend([0; 4]);
        }
        assert_eq!(node.response(conn).unwrap(), expected, "version {version}");
    }
}
