//! Requests as `kafka-protocol` writes them, of every version, and close to those: what the corpus of a fuzz target would
//! have to find first.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, TopicName,
    fetch_request, list_offsets_request, metadata_request, produce_request,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use millstream::kafka::APIS;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::random::Random;
use millstream_fuzz::kafka_request::decode;

/// Changed copies of each request.
const CHANGED: u64 = 400;

fn topic(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn body(request: &impl Encodable, version: i16) -> Option<Vec<u8>> {
    let mut bytes = BytesMut::new();
    request.encode(&mut bytes, version).ok()?;
    Some(bytes.to_vec())
}

fn produce(version: i16) -> Option<Vec<u8>> {
    let batch = BatchBuilder::new(5).push(Some(b"key"), Some(b"value")).build();
    let data = |index, records: Option<Vec<u8>>| {
        produce_request::PartitionProduceData::default()
            .with_index(index)
            .with_records(records.map(Bytes::from))
    };
    let parts = vec![data(0, Some(batch.clone())), data(3, Some(vec![1, 2])), data(1, None)];
    let topics = ["a", "topic"].map(|name| {
        produce_request::TopicProduceData::default().with_name(topic(name)).with_partition_data(parts.clone())
    });
    body(&ProduceRequest::default().with_acks(-1).with_topic_data(topics.into()), version)
}

fn fetch(version: i16) -> Option<Vec<u8>> {
    let part = |index, offset| {
        fetch_request::FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1 << 20)
    };
    let topics = ["a", "b"].map(|name| {
        fetch_request::FetchTopic::default().with_topic(topic(name)).with_partitions(vec![
            part(0, 7),
            part(70, 0),
            part(2, 1 << 40),
        ])
    });
    body(
        &FetchRequest::default().with_max_wait_ms(10).with_max_bytes(1 << 20).with_topics(topics.into()),
        version,
    )
}

fn list_offsets(version: i16) -> Option<Vec<u8>> {
    let part = |index, timestamp| {
        list_offsets_request::ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_timestamp(timestamp)
    };
    let topics = ["a", "b"].map(|name| {
        list_offsets_request::ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![
            part(0, -1),
            part(1, -2),
            part(2, 1_700_000_000_000),
        ])
    });
    body(&ListOffsetsRequest::default().with_topics(topics.into()), version)
}

fn metadata(version: i16) -> Option<Vec<u8>> {
    let topics =
        ["a", "b"].map(|name| metadata_request::MetadataRequestTopic::default().with_name(Some(topic(name))));
    body(&MetadataRequest::default().with_topics(Some(topics.into())), version)
}

fn api_versions(version: i16) -> Option<Vec<u8>> {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request = request.with_client_software_name(text("client")).with_client_software_version(text("1.0"));
    }
    body(&request, version)
}

/// A request of an API, if there is one here in that version.
fn sample(key: i16, version: i16) -> Option<Vec<u8>> {
    match key {
        0 => produce(version),
        1 => fetch(version),
        2 => list_offsets(version),
        3 => metadata(version),
        18 => api_versions(version),
        _ => None,
    }
}

fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.between(1, 3) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let value = [0, 1, 2, 0x7f, 0x80, 0xff, random.next() as u8][random.below(7) as usize];
        match random.below(4) {
            0 => bytes.insert(at, value),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.truncate(at),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
        }
    }
}

#[test]
fn requests_and_what_is_close_to_them_are_read_as_the_oracle_reads_them() {
    let mut random = Random::stream(1, "requests");
    let mut versions = 0;
    for api in &APIS {
        for version in 0..=*api.versions.end() {
            let sample = sample(api.key, version).unwrap_or_default();
            versions += usize::from(!sample.is_empty());
            decode(api, version, &sample);
            for _ in 0..CHANGED {
                let mut changed = sample.clone();
                change(&mut changed, &mut random);
                decode(api, version, &changed);
            }
        }
    }
    assert!(versions > 30, "{versions} versions have a sample");
}
