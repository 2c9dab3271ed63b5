use std::io::Write;

use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use millstream_engine::checksum::crc32c;
use millstream_engine::format::batch::HEADER_BYTES;
use millstream_engine::io::ConnId;

use crate::engine::LEADER_EPOCH;
use crate::node::Node;
use crate::wire::{ask, batch, list_offsets, produce, served};

/// Topic `t` with three batches of three records: offset `n` has the time `1000 + 10 * (n / 3) + n % 3`.
fn node(pack: impl Fn(Vec<u8>) -> Vec<u8>) -> (Node, ConnId) {
    let mut node = Node::new();
    node.engine.create("t", 2);
    let conn = node.connect();
    for i in 0..3 {
        let bytes = pack(batch(1000 + 10 * i, &["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbb", "cccccccccccccccc"]));
        let response = ask(&mut node, conn, 9, &produce(-1, "t", &[(0, Some(bytes))]));
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }
    (node, conn)
}

fn find(node: &mut Node, conn: ConnId, version: i16, timestamp: i64) -> ListOffsetsPartitionResponse {
    let response = ask(node, conn, version, &list_offsets("t", &[(0, timestamp)]));
    assert_eq!(&*response.topics[0].name.0, "t");
    response.topics[0].partitions[0].clone()
}

fn hit(part: &ListOffsetsPartitionResponse) -> (i16, i64, i64) {
    (part.error_code, part.offset, part.timestamp)
}

/// A batch with its records packed: codec bits set, lengths and checksum made new.
fn repack(mut batch: Vec<u8>, codec: u8, packed: &[u8]) -> Vec<u8> {
    batch.truncate(HEADER_BYTES);
    batch.extend_from_slice(packed);
    batch[22] |= codec;
    let length = (batch.len() - 12) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn xerial(records: &[u8]) -> Vec<u8> {
    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for block in records.chunks(20) {
        let packed = snap::raw::Encoder::new().compress_vec(block).unwrap();
        framed.extend((packed.len() as u32).to_be_bytes());
        framed.extend(packed);
    }
    framed
}

fn gzip(records: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(records).unwrap();
    encoder.finish().unwrap()
}

fn lz4(records: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(records).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_version_tells_the_first_and_the_next_offset() {
    for version in served(ApiKey::ListOffsets) {
        let (mut node, conn) = node(|batch| batch);
        node.engine.trim("t", 0, 2);
        let part = find(&mut node, conn, version, -1);
        assert_eq!((part.partition_index, hit(&part)), (0, (0, 9, -1)), "version {version}");
        assert_eq!(hit(&find(&mut node, conn, version, -2)), (0, 2, -1), "version {version}");
        if version >= 4 {
            assert_eq!(part.leader_epoch, LEADER_EPOCH as i32);
        }
    }
}

#[test]
fn a_time_finds_the_first_record_that_is_not_earlier() {
    for version in served(ApiKey::ListOffsets) {
        let (mut node, conn) = node(|batch| batch);
        let cases = [
            (0, (0, 0, 1000)),
            (1000, (0, 0, 1000)),
            (1001, (0, 1, 1001)),
            (1003, (0, 3, 1010)),
            (1012, (0, 5, 1012)),
            (1022, (0, 8, 1022)),
            (1023, (0, -1, -1)),
        ];
        for (timestamp, expected) in cases {
            let part = find(&mut node, conn, version, timestamp);
            assert_eq!(hit(&part), expected, "time {timestamp} version {version}");
        }
        assert_eq!(node.jobs(), 0, "small plain batches are searched in place");
    }
}

#[test]
fn compressed_records_are_looked_into_on_a_helper() {
    type Pack = fn(&[u8]) -> Vec<u8>;
    let codecs: [(u8, Pack); 5] = [
        (1, gzip),
        (2, |records| snap::raw::Encoder::new().compress_vec(records).unwrap()),
        (2, xerial),
        (3, lz4),
        (4, |records| zstd::encode_all(records, 0).unwrap()),
    ];
    for (codec, pack) in codecs {
        let (mut node, conn) = node(|batch| {
            let packed = pack(&batch[HEADER_BYTES..]);
            repack(batch, codec, &packed)
        });
        assert_eq!(hit(&find(&mut node, conn, 7, 1011)), (0, 4, 1011), "codec {codec}");
        assert_eq!(hit(&find(&mut node, conn, 7, -3)), (0, 8, 1022), "codec {codec}");
        assert_eq!(node.jobs(), 2);
    }
}

#[test]
fn records_that_cannot_be_unpacked_give_the_offset_of_their_batch() {
    for (codec, packed) in
        [(1, &b"garbage"[..]), (2, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]), (3, b""), (4, b"garbage")]
    {
        let mut node = Node::new();
        node.engine.create("t", 1);
        let conn = node.connect();
        let bytes = repack(batch(1000, &["a", "b"]), codec, packed);
        let response = ask(&mut node, conn, 9, &produce(-1, "t", &[(0, Some(bytes))]));
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
        assert_eq!(hit(&find(&mut node, conn, 7, 1001)), (0, 0, 1001), "codec {codec}");
    }
}

#[test]
fn the_latest_record_is_found_from_version_7_on() {
    let (mut node, conn) = node(|batch| batch);
    assert_eq!(hit(&find(&mut node, conn, 7, -3)), (0, 8, 1022));
    assert_eq!(hit(&find(&mut node, conn, 6, -3)), (35, -1, -1));
    assert_eq!(hit(&find(&mut node, conn, 7, -4)), (35, -1, -1));
    assert_eq!(hit(&find(&mut node, conn, 8, -4)), (0, 0, -1), "everything is on this machine");
    assert_eq!(hit(&find(&mut node, conn, 8, -5)), (35, -1, -1));
    let tiered = find(&mut node, conn, 9, -5);
    assert_eq!((hit(&tiered), tiered.leader_epoch), ((0, -1, -1), -1), "nothing is elsewhere");
    assert_eq!(hit(&find(&mut node, conn, 10, -6)), (35, -1, -1));
}

#[test]
fn partitions_fail_by_themselves() {
    let (mut node, conn) = node(|batch| batch);
    let mut request = list_offsets("t", &[(0, -1), (5, -1), (0, -1), (0, -1), (1, 5)]);
    request.topics[0].partitions[2].current_leader_epoch = LEADER_EPOCH as i32 - 1;
    request.topics[0].partitions[3].current_leader_epoch = LEADER_EPOCH as i32 + 1;
    let response = ask(&mut node, conn, 5, &request);
    let told: Vec<_> = response.topics[0].partitions.iter().map(hit).collect();
    assert_eq!(told, [(0, 9, -1), (3, -1, -1), (74, -1, -1), (75, -1, -1), (0, -1, -1)]);
}
