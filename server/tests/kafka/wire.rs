//! The oracle: requests are encoded and responses decoded by the `kafka-protocol` crate.

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, RequestHeader, ResponseHeader,
    TopicName, fetch_request, list_offsets_request, metadata_request, produce_request,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use millstream::kafka::APIS;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::ConnId;

use crate::node::Node;

/// The versions of an API that are served.
pub fn served(api: ApiKey) -> RangeInclusive<i16> {
    let api = APIS.iter().find(|entry| entry.key == api as i16).unwrap();
    api.served_from..=*api.versions.end()
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

/// A frame: length, header, body.
pub fn frame<R: Request + HeaderVersion>(version: i16, correlation_id: i32, request: &R) -> Vec<u8> {
    let mut body = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(text("test")))
        .encode(&mut body, R::header_version(version))
        .unwrap();
    request.encode(&mut body, version).unwrap();
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    frame
}

/// A response without its frame's length: its correlation id and its body, which must be used up.
pub fn decode<R: Decodable + HeaderVersion>(version: i16, response: Vec<u8>) -> (i32, R) {
    let mut bytes = Bytes::from(response);
    let header = ResponseHeader::decode(&mut bytes, R::header_version(version)).unwrap();
    let body = R::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "{} bytes follow the response", bytes.len());
    (header.correlation_id, body)
}

/// Asks, and expects the answer at once.
pub fn ask<R: Request + HeaderVersion>(
    node: &mut Node,
    conn: ConnId,
    version: i16,
    request: &R,
) -> R::Response
where
    R::Response: HeaderVersion,
{
    node.receive(conn, &frame(version, 77, request));
    let response = node.response(conn).expect("an answer at once");
    let (correlation_id, body) = decode(version, response);
    assert_eq!(correlation_id, 77);
    body
}

/// A batch of one record per value; the timestamps rise by one.
pub fn batch(timestamp: i64, values: &[&str]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(timestamp);
    for (i, value) in values.iter().enumerate() {
        builder.push_at(timestamp + i as i64, None, Some(value.as_bytes()));
    }
    builder.build()
}

pub fn produce(acks: i16, name: &str, batches: &[(i32, Option<Vec<u8>>)]) -> ProduceRequest {
    let partitions = batches.iter().map(|(index, batch)| {
        produce_request::PartitionProduceData::default()
            .with_index(*index)
            .with_records(batch.clone().map(Bytes::from))
    });
    let data = produce_request::TopicProduceData::default()
        .with_name(topic(name))
        .with_partition_data(partitions.collect());
    ProduceRequest::default().with_acks(acks).with_timeout_ms(1000).with_topic_data(vec![data])
}

/// A fetch of whole partitions: `(index, offset)`.
pub fn fetch(name: &str, max_wait_ms: i32, min_bytes: i32, partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions = partitions.iter().map(|(index, offset)| {
        fetch_request::FetchPartition::default()
            .with_partition(*index)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1 << 20)
    });
    let data =
        fetch_request::FetchTopic::default().with_topic(topic(name)).with_partitions(partitions.collect());
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(min_bytes)
        .with_max_bytes(50 << 20)
        .with_topics(vec![data])
}

pub fn list_offsets(name: &str, partitions: &[(i32, i64)]) -> ListOffsetsRequest {
    let partitions = partitions.iter().map(|(index, timestamp)| {
        list_offsets_request::ListOffsetsPartition::default()
            .with_partition_index(*index)
            .with_timestamp(*timestamp)
    });
    let data = list_offsets_request::ListOffsetsTopic::default()
        .with_name(topic(name))
        .with_partitions(partitions.collect());
    ListOffsetsRequest::default().with_topics(vec![data])
}

pub fn metadata(names: Option<&[&str]>) -> MetadataRequest {
    let topics = names.map(|names| {
        let topic =
            |name: &&str| metadata_request::MetadataRequestTopic::default().with_name(Some(topic(name)));
        names.iter().map(topic).collect()
    });
    MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(true)
}
