//! What the generator says and understands, against a codec that is not ours.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, FetchResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse, RequestHeader,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::wire::{self, FetchSize};
use crate::kafka::wire::Answer;

/// A request as the other codec reads it, whole.
fn read<R: Decodable>(frame: &[u8], key: i16, version: i16) -> R {
    let mut bytes = Bytes::copy_from_slice(frame);
    assert_eq!(bytes.get_u32() as usize, frame.len() - 4);
    let header = RequestHeader::decode(&mut bytes, 1).unwrap();
    assert_eq!((header.request_api_key, header.request_api_version), (key, version));
    let request = R::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
    request
}

/// An answer as the other codec writes it, behind its correlation id.
fn written(response: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = BytesMut::zeroed(4);
    response.encode(&mut bytes, version).unwrap();
    bytes.to_vec()
}

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

#[test]
fn requests_are_what_the_protocol_says() {
    let settings = [("retention.ms".to_owned(), "-1".to_owned())];
    let request: CreateTopicsRequest = read(&wire::create("t", 3, &settings), 19, 4);
    assert_eq!((request.topics[0].num_partitions, request.topics[0].replication_factor), (3, 1));
    assert_eq!(request.topics[0].configs[0].value.as_deref(), Some("-1"));
    let request: DeleteTopicsRequest = read(&wire::delete("t"), 20, 3);
    assert_eq!(request.topic_names, [name()]);
    let request: MetadataRequest = read(&wire::metadata("t"), 3, 4);
    assert!(!request.allow_auto_topic_creation);
    let request: ListOffsetsRequest = read(&wire::list_offsets("t", 2, wire::LATEST), 2, 1);
    assert_eq!(request.topics[0].partitions[1].timestamp, -1);
    let batches: [(u32, &[u8]); 2] = [(4, b"one"), (7, b"two")];
    let request: ProduceRequest = read(&wire::produce("t", 1, batches.into_iter()), 0, 7);
    assert_eq!((request.acks, request.topic_data[0].partition_data[1].index), (1, 7));
    assert_eq!(request.topic_data[0].partition_data[1].records.as_deref(), Some(&b"two"[..]));
    let size = FetchSize { max_wait_ms: 5, min_bytes: 6, max_bytes: 7, partition_max_bytes: 8 };
    let request: FetchRequest = read(&wire::fetch("t", size, &[(0, 9), (1, 10)]), 1, 11);
    assert_eq!((request.max_wait_ms, request.min_bytes, request.max_bytes), (5, 6, 7));
    let partition = &request.topics[0].partitions[1];
    assert_eq!((partition.partition, partition.fetch_offset, partition.partition_max_bytes), (1, 10, 8));
    assert_eq!(request.session_epoch, -1, "no session");
}

#[test]
fn answers_are_understood() {
    let partition = |index, leader| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(leader))
            .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
            .with_isr_nodes(vec![BrokerId(1)])
    };
    let response = MetadataResponse::default()
        .with_brokers(vec![MetadataResponseBroker::default().with_host(StrBytes::from_static_str("h"))])
        .with_topics(vec![
            MetadataResponseTopic::default()
                .with_name(Some(name()))
                .with_partitions(vec![partition(1, 5), partition(0, 4)]),
        ]);
    let topic = wire::described(&mut Answer::of(&written(&response, 4)).unwrap()).unwrap();
    assert_eq!((topic.error, topic.leaders), (0, vec![4, 5]));

    let offset = |index, offset| {
        ListOffsetsPartitionResponse::default().with_partition_index(index).with_offset(offset)
    };
    let response = ListOffsetsResponse::default().with_topics(vec![
        ListOffsetsTopicResponse::default()
            .with_name(name())
            .with_partitions(vec![offset(1, 11), offset(0, 10)]),
    ]);
    let listed = wire::listed(&mut Answer::of(&written(&response, 1)).unwrap()).unwrap();
    assert_eq!(listed, [(0, 10), (0, 11)]);

    let data = |index, bytes: &'static [u8]| {
        PartitionData::default()
            .with_partition_index(index)
            .with_aborted_transactions(None)
            .with_records(Some(Bytes::from_static(bytes)))
    };
    let response = FetchResponse::default().with_responses(vec![
        FetchableTopicResponse::default().with_topic(name()).with_partitions(vec![
            data(0, b""),
            data(1, b"some"),
            data(2, b"more"),
        ]),
    ]);
    let mut parts = Vec::new();
    let bytes = written(&response, 11);
    wire::fetched(&mut Answer::of(&bytes).unwrap(), |part| {
        parts.push((part.partition, part.bytes.to_vec()));
        Ok(())
    })
    .unwrap();
    assert_eq!(parts, [(0, vec![]), (1, b"some".to_vec()), (2, b"more".to_vec())]);
}

#[test]
fn an_error_of_any_partition_fails_the_request() {
    let answer = |errors: &[i16]| {
        let partitions =
            errors.iter().map(|error| PartitionProduceResponse::default().with_error_code(*error));
        let topic =
            TopicProduceResponse::default().with_name(name()).with_partition_responses(partitions.collect());
        written(&ProduceResponse::default().with_responses(vec![topic]), 7)
    };
    let produced = |bytes: &[u8]| wire::produced(&mut Answer::of(bytes).unwrap());
    produced(&answer(&[0, 0])).unwrap();
    assert!(produced(&answer(&[0, 56])).unwrap_err().to_string().contains("56"));
    let whole = answer(&[0, 0]);
    for len in 4..whole.len() - 4 {
        assert!(produced(&whole[..len]).is_err(), "{len} bytes of it");
    }
}
