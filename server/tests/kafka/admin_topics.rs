//! Making, growing and deleting topics and what is in them.

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreatePartitionsRequest, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, ElectLeadersRequest,
    InitProducerIdRequest, ListPartitionReassignmentsRequest,
};
use millstream::config::ServerConfig;
use millstream_engine::io::ConnId;
use millstream_engine::types::TopicId;
use uuid::Uuid;

use crate::node::Node;
use crate::wire::{ask, batch, decode, frame, metadata, produce, served, text, topic};

const NODE: BrokerId = BrokerId(1);

fn node() -> (Node, ConnId) {
    let mut node = Node::new();
    let conn = node.connect();
    (node, conn)
}

fn new(name: &str, partitions: i32, replication: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication)
}

fn with_settings(name: &str, settings: &[(&str, Option<&str>)]) -> CreatableTopic {
    let setting = |(name, value): &(&str, Option<&str>)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text))
    };
    new(name, 1, 1).with_configs(settings.iter().map(setting).collect())
}

fn create(topics: &[CreatableTopic]) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics.to_vec()).with_timeout_ms(1000)
}

/// Creates one topic.
fn created(node: &mut Node, conn: ConnId, wanted: CreatableTopic) -> CreatableTopicResult {
    let response = ask(node, conn, 7, &create(&[wanted]));
    assert_eq!(response.topics.len(), 1);
    response.topics[0].clone()
}

fn codes(response: &CreateTopicsResponse) -> Vec<(String, i16)> {
    response.topics.iter().map(|topic| (topic.name.to_string(), topic.error_code)).collect()
}

fn delete(version: i16, names: &[&str]) -> DeleteTopicsRequest {
    if version < 6 {
        let names = names.iter().map(|name| topic(name));
        return DeleteTopicsRequest::default().with_topic_names(names.collect());
    }
    let states = names.iter().map(|name| DeleteTopicState::default().with_name(Some(topic(name))));
    DeleteTopicsRequest::default().with_topics(states.collect())
}

#[test]
fn every_version_creates_a_topic_and_tells_what_it_knows_of_it() {
    for version in served(ApiKey::CreateTopics) {
        let (mut node, conn) = node();
        let wanted = new("orders", 3, 1).with_configs(vec![
            CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("60000"))),
        ]);
        let response = ask(&mut node, conn, version, &create(&[wanted]));
        assert_eq!(codes(&response), [("orders".to_owned(), 0)], "version {version}");
        let made = node.engine.metadata.topic("orders").unwrap().clone();
        assert_eq!((made.slots.len(), made.config.retention_ms), (3, 60_000));
        let told = &response.topics[0];
        if version >= 5 {
            assert_eq!((told.num_partitions, told.replication_factor), (3, 1));
            let configs = told.configs.as_ref().unwrap();
            let find = |name| configs.iter().find(|config| config.name == text(name)).unwrap();
            let retention = find("retention.ms");
            assert_eq!((retention.value.as_deref(), retention.config_source), (Some("60000"), 1));
            let policy = find("cleanup.policy");
            assert_eq!((policy.value.as_deref(), policy.config_source), (Some("delete"), 5));
        }
        if version >= 7 {
            assert_eq!(told.topic_id, Uuid::from_bytes(made.id.0));
        }
        let again = ask(&mut node, conn, version, &create(&[new("orders", 1, 1)]));
        assert_eq!(codes(&again), [("orders".to_owned(), 36)]);
        assert_eq!(again.topics[0].error_message.as_deref(), Some("Topic 'orders' already exists."));
    }
}

#[test]
fn counts_may_be_left_to_the_broker_and_must_be_possible() {
    let (mut node, conn) = node();
    let code = |node: &mut Node, name, partitions, replication| {
        created(node, conn, new(name, partitions, replication)).error_code
    };
    assert_eq!(code(&mut node, "a", -1, -1), 0);
    assert_eq!(node.engine.metadata.topic("a").unwrap().slots.len(), 1);
    assert_eq!(code(&mut node, "b", 0, 1), 37);
    assert_eq!(code(&mut node, "b", -2, 1), 37);
    assert_eq!(code(&mut node, "b", 10_001, 1), 37);
    assert_eq!(code(&mut node, "b", 1, 0), 38);
    assert_eq!(code(&mut node, "b", 1, -2), 38);
    assert_eq!(code(&mut node, "b", 1, 3), 38);
    assert_eq!(code(&mut node, "b c", 1, 1), 17);
    assert_eq!(code(&mut node, "__consumer_offsets", 1, 1), 17);
    assert!(node.engine.metadata.topic("b").is_none());
}

#[test]
fn more_copies_than_nodes_are_as_many_as_nodes_if_the_configuration_says_so() {
    let mut node = Node::with(ServerConfig { clamp_replication: true, ..ServerConfig::default() });
    let conn = node.connect();
    let told = created(&mut node, conn, new("a", 1, 3));
    assert_eq!((told.error_code, told.replication_factor), (0, 1));
}

#[test]
fn names_that_differ_in_dots_and_underscores_only_collide() {
    let (mut node, conn) = node();
    assert_eq!(created(&mut node, conn, new("a.b_c", 1, 1)).error_code, 0);
    let refused = created(&mut node, conn, new("a_b.c", 1, 1));
    assert_eq!(refused.error_code, 17);
    assert!(refused.error_message.unwrap().contains("collides with a.b_c"));
    let response = ask(&mut node, conn, 9, &metadata(Some(&["a.b.c"])));
    assert_eq!(response.topics[0].error_code, 17, "also when it is made by asking for it");
    assert_eq!(node.engine.metadata.topics.size(), 1);
}

#[test]
fn settings_are_checked_by_name_and_value() {
    let (mut node, conn) = node();
    let refused = |node: &mut Node, settings: &[_]| {
        let told = created(node, conn, with_settings("t", settings));
        assert_eq!((told.error_code, told.num_partitions), (40, -1));
        told.error_message.unwrap().to_string()
    };
    assert_eq!(refused(&mut node, &[("retention", Some("1"))]), "Unknown topic config name: retention");
    assert!(refused(&mut node, &[("retention.ms", Some("soon"))]).starts_with("Invalid value soon for"));
    assert!(refused(&mut node, &[("retention.ms", None)]).contains("Null value"));
    let stock = [
        ("cleanup.policy", Some("compact")),
        ("compression.type", Some("producer")),
        ("min.insync.replicas", Some("1")),
        ("min.cleanable.dirty.ratio", Some("0.1")),
    ];
    assert_eq!(created(&mut node, conn, with_settings("t", &stock)).error_code, 0);
    let made = node.engine.metadata.topic("t").unwrap();
    assert!(made.config.compacts && !made.config.deletes);
    assert_eq!(made.setting("min.cleanable.dirty.ratio"), Some("0.1"));
}

#[test]
fn a_name_that_stands_there_twice_is_answered_once_and_not_created() {
    let (mut node, conn) = node();
    let request = create(&[new("a", 1, 1), new("b", 1, 1), new("a", 2, 1)]);
    let response = ask(&mut node, conn, 7, &request);
    assert_eq!(codes(&response), [("a".to_owned(), 42), ("b".to_owned(), 0)]);
    assert!(node.engine.metadata.topic("a").is_none());
}

#[test]
fn a_request_that_only_asks_whether_it_would_work_does_nothing() {
    let (mut node, conn) = node();
    let request = create(&[new("a", -1, -1), new("b", 0, 1)]).with_validate_only(true);
    let response = ask(&mut node, conn, 7, &request);
    assert_eq!(codes(&response), [("a".to_owned(), 0), ("b".to_owned(), 37)]);
    assert_eq!(response.topics[0].num_partitions, 1);
    assert!(node.engine.metadata.topics.is_empty());
}

#[test]
fn partitions_may_be_placed_by_hand_on_the_only_node() {
    let (mut node, conn) = node();
    let at = |index, nodes: &[i32]| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(nodes.iter().map(|node| BrokerId(*node)).collect())
    };
    let mut code = |partitions, assignments: &[_]| {
        let wanted = new("t", partitions, -1).with_assignments(assignments.to_vec());
        created(&mut node, conn, wanted).error_code
    };
    assert_eq!(code(-1, &[at(0, &[1]), at(1, &[2])]), 39);
    assert_eq!(code(-1, &[at(0, &[1, 1])]), 39);
    assert_eq!(code(-1, &[at(0, &[1]), at(2, &[1])]), 39);
    assert_eq!(code(-1, &[at(0, &[1]), at(0, &[1])]), 39);
    assert_eq!(code(2, &[at(0, &[1]), at(1, &[1])]), 42);
    assert_eq!(code(-1, &[at(1, &[1]), at(0, &[1])]), 0);
    assert_eq!(node.engine.metadata.topic("t").unwrap().slots.len(), 2);
}

#[test]
fn a_topic_that_somebody_else_makes_meanwhile_exists() {
    let (mut node, conn) = node();
    node.hold = true;
    node.receive(conn, &frame(7, 1, &create(&[new("a", 1, 1)])));
    node.engine.create("a", 1);
    node.release_all();
    let (_, response) = decode::<CreateTopicsResponse>(7, node.response(conn).unwrap());
    assert_eq!(codes(&response), [("a".to_owned(), 36)]);
}

#[test]
fn every_version_deletes_by_name() {
    for version in served(ApiKey::DeleteTopics) {
        let (mut node, conn) = node();
        node.engine.create("a", 1);
        let response = ask(&mut node, conn, version, &delete(version, &["a", "b", "__consumer_offsets"]));
        let told: Vec<_> = response
            .responses
            .iter()
            .map(|topic| (topic.name.as_ref().unwrap().to_string(), topic.error_code))
            .collect();
        let expected = [("a", 0), ("b", 3), ("__consumer_offsets", 3)];
        assert_eq!(told, expected.map(|(name, code)| (name.to_owned(), code)), "version {version}");
        assert!(node.engine.metadata.topics.is_empty());
        if version >= 5 {
            assert!(response.responses[1].error_message.is_some());
        }
    }
}

#[test]
fn a_topic_is_deleted_by_its_id_and_named_in_one_way_only() {
    let (mut node, conn) = node();
    let id = node.engine.create("a", 1);
    node.engine.create("b", 1);
    let by_id = |id: TopicId| DeleteTopicState::default().with_topic_id(Uuid::from_bytes(id.0));
    let states = vec![
        by_id(id),
        by_id(TopicId([99; 16])),
        by_id(id).with_name(Some(topic("b"))),
        DeleteTopicState::default(),
    ];
    let response = ask(&mut node, conn, 6, &DeleteTopicsRequest::default().with_topics(states));
    let codes: Vec<_> = response.responses.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [0, 100, 42, 42]);
    assert_eq!(response.responses[0].name.as_ref().unwrap().to_string(), "a");
    assert_eq!(node.engine.metadata.topics.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_topic_named_twice_is_deleted_once_and_an_internal_one_never() {
    let (mut node, conn) = node();
    node.engine.create("a", 1);
    node.engine.create("__consumer_offsets", 1);
    let response = ask(&mut node, conn, 5, &delete(5, &["a", "a", "__consumer_offsets"]));
    let codes: Vec<_> = response.responses.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [0, 42, 17]);
    assert_eq!(node.engine.metadata.topics.size(), 1);
}

#[test]
fn internal_topics_are_flagged_and_not_produced_to() {
    let (mut node, conn) = node();
    node.engine.create("__consumer_offsets", 1);
    node.engine.create("__like_internal", 1);
    let response = ask(&mut node, conn, 9, &metadata(None));
    let flags: Vec<_> = response.topics.iter().map(|topic| topic.is_internal).collect();
    assert_eq!(flags, [true, false]);
    for (name, code) in [("__consumer_offsets", 17), ("__like_internal", 0)] {
        let response = ask(&mut node, conn, 9, &produce(-1, name, &[(0, Some(batch(1, &["a"])))]));
        assert_eq!(response.responses[0].partition_responses[0].error_code, code);
    }
}

fn grow(name: &str, count: i32) -> CreatePartitionsTopic {
    CreatePartitionsTopic::default().with_name(topic(name)).with_count(count).with_assignments(None)
}

fn grow_by_hand(name: &str, count: i32, nodes: &[&[i32]]) -> CreatePartitionsTopic {
    let assignments = nodes.iter().map(|nodes| {
        CreatePartitionsAssignment::default()
            .with_broker_ids(nodes.iter().map(|node| BrokerId(*node)).collect())
    });
    grow(name, count).with_assignments(Some(assignments.collect()))
}

#[test]
fn every_version_adds_partitions() {
    for version in served(ApiKey::CreatePartitions) {
        let (mut node, conn) = node();
        node.engine.create("a", 2);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![grow("a", 5), grow("b", 1)])
            .with_timeout_ms(1000);
        let response = ask(&mut node, conn, version, &request);
        let told: Vec<_> =
            response.results.iter().map(|topic| (topic.name.to_string(), topic.error_code)).collect();
        assert_eq!(told, [("a".to_owned(), 0), ("b".to_owned(), 3)], "version {version}");
        assert_eq!(node.engine.metadata.topic("a").unwrap().slots.len(), 5);
    }
}

#[test]
fn partitions_are_only_added_and_only_once_per_request() {
    let (mut node, conn) = node();
    node.engine.create("a", 2);
    node.engine.create("__consumer_offsets", 2);
    let mut code = |topics: Vec<CreatePartitionsTopic>, validate_only| {
        let request =
            CreatePartitionsRequest::default().with_topics(topics).with_validate_only(validate_only);
        let response = ask(&mut node, conn, 3, &request);
        let results = &response.results;
        (
            results[0].error_code,
            results[0].error_message.as_ref().map(ToString::to_string).unwrap_or_default(),
        )
    };
    assert_eq!(code(vec![grow("a", 2)], false), (37, "the topic has 2 partitions already".to_owned()));
    assert_eq!(code(vec![grow("a", 1)], false).0, 37);
    assert_eq!(code(vec![grow("a", -1)], false).0, 37);
    assert_eq!(code(vec![grow("a", 10_001)], false).0, 37);
    assert_eq!(code(vec![grow("__consumer_offsets", 3)], false).0, 17);
    assert_eq!(code(vec![grow("a", 3), grow("a", 4)], false).0, 42);
    assert_eq!(code(vec![grow_by_hand("a", 4, &[&[1]])], false).0, 39);
    assert_eq!(code(vec![grow_by_hand("a", 3, &[&[2]])], false).0, 39);
    assert_eq!(code(vec![grow("a", 3)], true).0, 0);
    assert_eq!(code(vec![grow_by_hand("a", 4, &[&[1], &[1]])], false).0, 0);
    assert_eq!(node.engine.metadata.topic("a").unwrap().slots.len(), 4);
}

#[test]
fn every_version_deletes_records_and_tells_the_new_start() {
    for version in served(ApiKey::DeleteRecords) {
        let (mut node, conn) = node();
        node.engine.create("a", 3);
        node.engine.create_with("compacted", 1, &[("cleanup.policy", "compact")]);
        let three = || Some(batch(1, &["a", "b", "c"]));
        ask(&mut node, conn, 9, &produce(-1, "a", &[(0, three()), (1, three()), (2, three())]));
        let part =
            |index, offset| DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset);
        let of = |name, partitions| {
            DeleteRecordsTopic::default().with_name(topic(name)).with_partitions(partitions)
        };
        let request = DeleteRecordsRequest::default().with_topics(vec![
            of("a", vec![part(0, 2), part(1, -1), part(2, 4), part(2, -2), part(3, 0)]),
            of("compacted", vec![part(0, 0)]),
        ]);
        let response = ask(&mut node, conn, version, &request);
        let told: Vec<_> = response.topics[0]
            .partitions
            .iter()
            .map(|part| (part.partition_index, part.low_watermark, part.error_code))
            .collect();
        assert_eq!(told, [(0, 2, 0), (1, 3, 0), (2, -1, 1), (2, -1, 1), (3, -1, 3)], "version {version}");
        assert_eq!(response.topics[1].partitions[0].error_code, 44);
    }
}

#[test]
fn every_version_gives_producers_ids_that_nobody_has() {
    for version in served(ApiKey::InitProducerId) {
        let (mut node, conn) = node();
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        for expected in 0..3 {
            let response = ask(&mut node, conn, version, &request);
            let told = (response.error_code, response.producer_id.0, response.producer_epoch);
            assert_eq!(told, (0, expected, 0), "version {version}");
        }
        let transactional = request.with_transactional_id(Some(text("t").into()));
        let response = ask(&mut node, conn, version, &transactional);
        assert_eq!((response.error_code, response.producer_id.0, response.producer_epoch), (53, -1, -1));
    }
}

#[test]
fn every_version_says_that_the_leaders_are_the_right_ones() {
    for version in served(ApiKey::ElectLeaders) {
        let (mut node, conn) = node();
        node.engine.create("a", 1);
        let wanted = TopicPartitions::default().with_topic(topic("a")).with_partitions(vec![0, 1]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![wanted]));
        let response = ask(&mut node, conn, version, &request);
        let results = &response.replica_election_results[0].partition_result;
        let codes: Vec<_> = results.iter().map(|part| (part.partition_id, part.error_code)).collect();
        assert_eq!(codes, [(0, 84), (1, 3)], "version {version}");
        let all = ElectLeadersRequest::default().with_topic_partitions(None);
        assert!(ask(&mut node, conn, version, &all).replica_election_results.is_empty());
    }
}

#[test]
fn nothing_is_ever_being_moved() {
    let (mut node, conn) = node();
    let response = ask(&mut node, conn, 0, &ListPartitionReassignmentsRequest::default().with_topics(None));
    assert_eq!((response.error_code, response.topics.len()), (0, 0));
}

#[test]
fn every_version_describes_the_cluster() {
    for version in served(ApiKey::DescribeCluster) {
        let (mut node, conn) = node();
        let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let response = ask(&mut node, conn, version, &request);
        assert_eq!((response.error_code, response.controller_id), (0, NODE), "version {version}");
        let broker = &response.brokers[0];
        assert_eq!((broker.broker_id, &*broker.host, broker.port), (NODE, "10.0.0.1", 9092));
        assert_eq!(response.cluster_authorized_operations, 8096);
    }
    let (mut node, conn) = node();
    for (endpoint, code) in [(2, 114), (3, 115)] {
        let request = DescribeClusterRequest::default().with_endpoint_type(endpoint);
        let response = ask(&mut node, conn, 1, &request);
        assert_eq!((response.error_code, response.brokers.len()), (code, 0));
    }
}
