//! Requests of administration that are cut or changed anywhere: refused, and nobody else notices.

use kafka_protocol::messages::alter_configs_request as alter;
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiVersionsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    ListPartitionReassignmentsRequest, OffsetForLeaderEpochRequest,
};

use crate::node::Node;
use crate::wire::{ask, frame, text, topic};

/// A request of every API, with something in every array; in its oldest and its newest form.
fn requests() -> Vec<Vec<u8>> {
    let assigned = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]);
    let config = CreatableTopicConfig::default().with_name(text("segment.ms")).with_value(Some(text("9")));
    let new =
        CreatableTopic::default().with_name(topic("n")).with_num_partitions(1).with_replication_factor(1);
    let create = CreateTopicsRequest::default().with_topics(vec![
        new.clone().with_configs(vec![config]),
        new.with_num_partitions(-1).with_replication_factor(-1).with_assignments(vec![assigned]),
    ]);
    let by_name = DeleteTopicsRequest::default().with_topic_names(vec![topic("t")]);
    let doomed = DeleteTopicState::default().with_name(Some(topic("t")));
    let by_state = DeleteTopicsRequest::default().with_topics(vec![doomed]);
    let records = DeleteRecordsTopic::default()
        .with_name(topic("t"))
        .with_partitions(vec![DeleteRecordsPartition::default().with_offset(-1)]);
    let records = DeleteRecordsRequest::default().with_topics(vec![records]);
    let id = InitProducerIdRequest::default().with_transactional_id(None);
    let epochs = OffsetForLeaderTopic::default()
        .with_topic(topic("t"))
        .with_partitions(vec![OffsetForLeaderPartition::default()]);
    let epochs = OffsetForLeaderEpochRequest::default().with_topics(vec![epochs]);
    let described = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configuration_keys(Some(vec![text("segment.ms")]));
    let describe = DescribeConfigsRequest::default().with_resources(vec![described]);
    let altered = alter::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configs(vec![
            alter::AlterableConfig::default().with_name(text("segment.ms")).with_value(Some(text("9"))),
        ]);
    let alter = AlterConfigsRequest::default().with_resources(vec![altered]);
    let edited = incremental::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configs(vec![
            incremental::AlterableConfig::default()
                .with_name(text("cleanup.policy"))
                .with_config_operation(2)
                .with_value(Some(text("compact"))),
        ]);
    let edit = IncrementalAlterConfigsRequest::default().with_resources(vec![edited]);
    let dirs = DescribableLogDirTopic::default().with_topic(topic("t")).with_partitions(vec![0]);
    let dirs = DescribeLogDirsRequest::default().with_topics(Some(vec![dirs]));
    let placed = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
    let grow = CreatePartitionsTopic::default()
        .with_name(topic("t"))
        .with_count(3)
        .with_assignments(Some(vec![placed]));
    let grow = CreatePartitionsRequest::default().with_topics(vec![grow]);
    let led = TopicPartitions::default().with_topic(topic("t")).with_partitions(vec![0]);
    let elect = ElectLeadersRequest::default().with_topic_partitions(Some(vec![led]));
    let moved =
        ListPartitionReassignmentsTopics::default().with_name(topic("t")).with_partition_indexes(vec![0]);
    let moved = ListPartitionReassignmentsRequest::default().with_topics(Some(vec![moved]));
    let cluster = DescribeClusterRequest::default();
    vec![
        frame(2, 1, &create),
        frame(7, 1, &create),
        frame(1, 1, &by_name),
        frame(6, 1, &by_state),
        frame(0, 1, &records),
        frame(2, 1, &records),
        frame(0, 1, &id),
        frame(4, 1, &id),
        frame(2, 1, &epochs),
        frame(4, 1, &epochs),
        frame(1, 1, &describe),
        frame(4, 1, &describe),
        frame(0, 1, &alter),
        frame(2, 1, &alter),
        frame(1, 1, &dirs),
        frame(4, 1, &dirs),
        frame(0, 1, &grow),
        frame(3, 1, &grow),
        frame(0, 1, &elect),
        frame(2, 1, &elect),
        frame(0, 1, &edit),
        frame(1, 1, &edit),
        frame(0, 1, &moved),
        frame(0, 1, &cluster),
        frame(1, 1, &cluster),
    ]
}

fn node() -> Node {
    let mut node = Node::new();
    node.engine.create("t", 2);
    node
}

#[test]
fn every_prefix_of_a_request_is_refused() {
    for whole in requests() {
        for len in 4..whole.len() {
            let mut node = node();
            let conn = node.connect();
            let cut = [&((len - 4) as u32).to_be_bytes()[..], &whole[4..len]].concat();
            node.receive(conn, &cut);
            let answered = !node.socket(conn).sent.is_empty();
            assert!(node.socket(conn).closed && !answered, "{:?}, {len} bytes", &whole[4..8]);
        }
        let mut node = node();
        let conn = node.connect();
        node.receive(conn, &whole);
        assert!(node.response(conn).is_some(), "{:?}, whole", &whole[4..8]);
    }
}

#[test]
fn any_byte_may_be_any_other() {
    for whole in requests() {
        for place in 4..whole.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff] {
                let mut bytes = whole.clone();
                bytes[place] = value;
                let mut node = node();
                let (conn, other) = (node.connect(), node.connect());
                node.receive(conn, &bytes);
                ask(&mut node, other, 0, &ApiVersionsRequest::default());
                node.disconnect_if_open(conn);
                assert_eq!(node.broker.pending(), 0, "{:?}, byte {place} = {value}", &whole[4..8]);
            }
        }
    }
}

#[test]
fn a_request_that_names_too_many_settings_is_cut_off() {
    let keys = vec![text("a"); 50_001];
    let resource = |name| {
        DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(name))
            .with_configuration_keys(Some(keys.clone()))
    };
    let describe = |resources| frame(4, 1, &DescribeConfigsRequest::default().with_resources(resources));
    let config = alter::AlterableConfig::default().with_name(text("a")).with_value(None);
    let altered = alter::AlterConfigsResource::default().with_configs(vec![config; 100_001]);
    let config = CreatableTopicConfig::default().with_name(text("a"));
    let new = CreatableTopic::default().with_name(topic("n")).with_configs(vec![config; 100_001]);
    for (request, cut_off) in [
        (describe(vec![resource("t")]), false),
        (describe(vec![resource("t"), resource("u")]), true),
        (frame(2, 1, &AlterConfigsRequest::default().with_resources(vec![altered])), true),
        (frame(7, 1, &CreateTopicsRequest::default().with_topics(vec![new])), true),
    ] {
        let mut node = node();
        let conn = node.connect();
        node.receive(conn, &request);
        assert_eq!(node.socket(conn).closed, cut_off);
    }
}
