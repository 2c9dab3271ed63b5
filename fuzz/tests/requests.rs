//! Requests as `kafka-protocol` writes them, of every version, and close to those: what the corpus of a fuzz target would
//! have to find first.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest, ElectLeadersRequest, FetchRequest,
    FindCoordinatorRequest, GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest, TopicName,
    create_topics_request, fetch_request, incremental_alter_configs_request, join_group_request,
    list_offsets_request, metadata_request, offset_commit_request, offset_fetch_request, produce_request,
    sync_group_request,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use millstream::kafka::APIS;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::random::Random;
use millstream_fuzz::kafka_request::decode;

/// Changed copies of each request.
const CHANGED: u64 = 2_000;

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

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group() -> GroupId {
    GroupId(text("group"))
}

fn join_group(version: i16) -> Option<Vec<u8>> {
    let protocol = |name| {
        join_group_request::JoinGroupRequestProtocol::default()
            .with_name(text(name))
            .with_metadata(Bytes::from_static(&[0, 1, 2]))
    };
    let mut request = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol("range"), protocol("roundrobin")]);
    if version >= 1 {
        request = request.with_rebalance_timeout_ms(60_000);
    }
    body(&request, version)
}

fn sync_group(version: i16) -> Option<Vec<u8>> {
    let assignment = sync_group_request::SyncGroupRequestAssignment::default()
        .with_member_id(text("member"))
        .with_assignment(Bytes::from_static(&[0, 0]));
    let request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(3)
        .with_member_id(text("member"))
        .with_assignments(vec![assignment.clone(), assignment]);
    body(&request, version)
}

fn offset_commit(version: i16) -> Option<Vec<u8>> {
    let part = |index| {
        offset_commit_request::OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(7)
            .with_committed_metadata(Some(text("m")))
    };
    let topics = ["a", "b"].map(|name| {
        offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![part(0), part(1)])
    });
    body(&OffsetCommitRequest::default().with_group_id(group()).with_topics(topics.into()), version)
}

fn offset_fetch(version: i16) -> Option<Vec<u8>> {
    if version < 8 {
        let wanted = offset_fetch_request::OffsetFetchRequestTopic::default()
            .with_name(topic("a"))
            .with_partition_indexes(vec![0, 1, 2]);
        let request = OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![wanted]));
        return body(&request, version);
    }
    let wanted = offset_fetch_request::OffsetFetchRequestTopics::default()
        .with_name(topic("a"))
        .with_partition_indexes(vec![0, 1, 2]);
    let of_group = offset_fetch_request::OffsetFetchRequestGroup::default()
        .with_group_id(group())
        .with_topics(Some(vec![wanted]));
    body(&OffsetFetchRequest::default().with_groups(vec![of_group.clone(), of_group]), version)
}

fn create_topics(version: i16) -> Option<Vec<u8>> {
    let config = create_topics_request::CreatableTopicConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("5")));
    let topics = ["a", "b"].map(|name| {
        create_topics_request::CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(3)
            .with_replication_factor(1)
            .with_configs(vec![config.clone()])
    });
    body(&CreateTopicsRequest::default().with_topics(topics.into()), version)
}

fn alter_configs(version: i16) -> Option<Vec<u8>> {
    let config = incremental_alter_configs_request::AlterableConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("5")));
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("a"))
        .with_configs(vec![config]);
    body(&IncrementalAlterConfigsRequest::default().with_resources(vec![resource]), version)
}

fn api_versions(version: i16) -> Option<Vec<u8>> {
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
        8 => offset_commit(version),
        9 => offset_fetch(version),
        10 => body(
            &FindCoordinatorRequest::default().with_key(text(if version < 4 { "g" } else { "" })),
            version,
        ),
        11 => join_group(version),
        12 => body(&HeartbeatRequest::default().with_group_id(group()), version),
        13 => body(&LeaveGroupRequest::default().with_group_id(group()), version),
        14 => sync_group(version),
        15 => body(&DescribeGroupsRequest::default().with_groups(vec![group(), group()]), version),
        16 => body(&ListGroupsRequest::default(), version),
        18 => api_versions(version),
        19 => create_topics(version),
        20 if version < 6 => {
            body(&DeleteTopicsRequest::default().with_topic_names(vec![topic("a"), topic("b")]), version)
        }
        20 => body(&DeleteTopicsRequest::default(), version),
        21 => body(&DeleteRecordsRequest::default(), version),
        22 => body(&InitProducerIdRequest::default(), version),
        23 => body(&OffsetForLeaderEpochRequest::default(), version),
        32 => body(&DescribeConfigsRequest::default(), version),
        33 => body(&AlterConfigsRequest::default(), version),
        35 => body(&DescribeLogDirsRequest::default(), version),
        37 => body(&CreatePartitionsRequest::default(), version),
        42 => body(&DeleteGroupsRequest::default().with_groups_names(vec![group()]), version),
        43 => body(&ElectLeadersRequest::default(), version),
        44 => alter_configs(version),
        46 => body(&ListPartitionReassignmentsRequest::default(), version),
        47 => body(&OffsetDeleteRequest::default().with_group_id(group()), version),
        60 => body(&DescribeClusterRequest::default(), version),
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
    for api in APIS {
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
    println!("{versions} versions have a sample");
    assert!(versions > 100, "{versions} versions have a sample");
}
