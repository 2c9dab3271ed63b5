use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse};
use millstream::config::ServerConfig;
use uuid::Uuid;

use crate::engine::LEADER_EPOCH;
use crate::node::Node;
use crate::wire::{ask, decode, frame, metadata, served};

fn names(response: &MetadataResponse) -> Vec<(i16, String)> {
    let name = |name: &Option<kafka_protocol::messages::TopicName>| {
        name.as_ref().map(|name| name.to_string()).unwrap_or_default()
    };
    response.topics.iter().map(|topic| (topic.error_code, name(&topic.name))).collect()
}

fn known(code: i16, name: &str) -> (i16, String) {
    (code, name.to_owned())
}

#[test]
fn every_version_describes_the_node_and_a_topic() {
    for version in served(ApiKey::Metadata) {
        let mut node = Node::new();
        let id = node.engine.create("orders", 3);
        let conn = node.connect();
        let response = ask(&mut node, conn, version, &metadata(Some(&["orders"])));
        assert_eq!(response.brokers.len(), 1);
        let broker = &response.brokers[0];
        assert_eq!((broker.node_id.0, &*broker.host, broker.port), (1, "10.0.0.1", 9092));
        assert_eq!(names(&response), [known(0, "orders")], "version {version}");
        let topic = &response.topics[0];
        let indexes: Vec<_> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
        assert_eq!(indexes, [0, 1, 2]);
        let partition = &topic.partitions[0];
        assert_eq!((partition.error_code, partition.leader_id.0), (0, 1));
        assert_eq!((partition.replica_nodes.len(), partition.isr_nodes.len()), (1, 1));
        if version >= 1 {
            assert_eq!(response.controller_id.0, 1);
        }
        if version >= 2 {
            assert!(response.cluster_id.is_some());
        }
        if version >= 7 {
            assert_eq!(partition.leader_epoch, LEADER_EPOCH as i32);
        }
        if version >= 10 {
            assert_eq!(topic.topic_id, Uuid::from_bytes(id.0));
        }
    }
}

#[test]
fn null_means_all_topics_and_empty_means_none() {
    let mut node = Node::new();
    node.engine.create("a", 1);
    node.engine.create("b", 1);
    let conn = node.connect();
    for version in served(ApiKey::Metadata) {
        let all = if version == 0 { metadata(Some(&[])) } else { metadata(None) };
        let response = ask(&mut node, conn, version, &all);
        assert_eq!(names(&response), [known(0, "a"), known(0, "b")], "version {version}");
        if version > 0 {
            assert!(ask(&mut node, conn, version, &metadata(Some(&[]))).topics.is_empty());
        }
    }
}

#[test]
fn a_missing_topic_is_created_and_described_in_the_same_answer() {
    for version in served(ApiKey::Metadata) {
        let mut node = Node::new();
        let conn = node.connect();
        let response = ask(&mut node, conn, version, &metadata(Some(&["new", "new", "bad name"])));
        let expected = [known(0, "new"), known(17, "bad name")];
        assert_eq!(names(&response), expected, "version {version}");
        assert_eq!(node.engine.metadata.topics.size(), 1);
        assert_eq!(node.broker.pending(), 0);
    }
}

#[test]
fn nothing_is_created_if_the_client_or_the_configuration_says_so() {
    let mut node = Node::new();
    let conn = node.connect();
    let request = metadata(Some(&["new"])).with_allow_auto_topic_creation(false);
    assert_eq!(names(&ask(&mut node, conn, 4, &request)), [known(3, "new")]);
    let mut node = Node::with(ServerConfig { auto_create_topics: false, ..ServerConfig::default() });
    let conn = node.connect();
    assert_eq!(names(&ask(&mut node, conn, 1, &metadata(Some(&["new"])))), [known(3, "new")]);
    assert!(node.engine.metadata.topics.is_empty());
}

#[test]
fn the_answer_waits_until_the_topic_is_there() {
    let mut node = Node::new();
    let conn = node.connect();
    node.hold = true;
    node.receive(conn, &frame(9, 1, &metadata(Some(&["new"]))));
    assert!(node.response(conn).is_none());
    node.release_all();
    let (_, response) = decode::<MetadataResponse>(9, node.response(conn).unwrap());
    assert_eq!(names(&response), [known(0, "new")]);
}

#[test]
fn somebody_else_creating_the_topic_at_the_same_time_is_no_error() {
    let mut node = Node::new();
    let conn = node.connect();
    node.hold = true;
    node.receive(conn, &frame(9, 1, &metadata(Some(&["new"]))));
    node.engine.create("new", 2);
    node.release_all();
    let (_, response) = decode::<MetadataResponse>(9, node.response(conn).unwrap());
    assert_eq!(names(&response), [known(0, "new")]);
}

#[test]
fn a_request_creates_only_so_many_topics_and_the_rest_come_with_the_retry() {
    let mut node = Node::new();
    let conn = node.connect();
    let all: Vec<String> = (0..100).map(|i| format!("t{i}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let codes = |response: MetadataResponse| names(&response).iter().filter(|(code, _)| *code == 0).count();
    let response = ask(&mut node, conn, 9, &metadata(Some(&all)));
    assert!(response.topics.iter().all(|topic| matches!(topic.error_code, 0 | 5)));
    assert_eq!(codes(response), 64);
    assert_eq!(codes(ask(&mut node, conn, 9, &metadata(Some(&all)))), 100);
}

#[test]
fn a_topic_is_found_by_id_from_version_12_on() {
    let mut node = Node::new();
    let id = Uuid::from_bytes(node.engine.create("orders", 1).0);
    let conn = node.connect();
    let by_id = |id| {
        let topic = MetadataRequestTopic::default().with_topic_id(id).with_name(None);
        MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(true)
    };
    assert_eq!(names(&ask(&mut node, conn, 12, &by_id(id))), [known(0, "orders")]);
    let response = ask(&mut node, conn, 12, &by_id(Uuid::from_u128(99)));
    assert_eq!((response.topics[0].error_code, &response.topics[0].name), (100, &None));
    assert_eq!(response.topics[0].topic_id, Uuid::from_u128(99));
}

#[test]
fn the_advertised_address_is_told() {
    let advertise = Some("broker.example:19092".parse().unwrap());
    let mut node = Node::with(ServerConfig { kafka_advertise: advertise, ..ServerConfig::default() });
    let conn = node.connect();
    let response = ask(&mut node, conn, 5, &metadata(None));
    assert_eq!((&*response.brokers[0].host, response.brokers[0].port), ("broker.example", 19092));
}

#[test]
fn what_a_client_may_do_is_told_only_if_asked() {
    let mut node = Node::new();
    node.engine.create("orders", 1);
    let conn = node.connect();
    let response = ask(&mut node, conn, 8, &metadata(None));
    assert_eq!(response.cluster_authorized_operations, i32::MIN);
    assert_eq!(response.topics[0].topic_authorized_operations, i32::MIN);
    let asked = metadata(None)
        .with_include_cluster_authorized_operations(true)
        .with_include_topic_authorized_operations(true);
    let response = ask(&mut node, conn, 8, &asked);
    assert_eq!(response.cluster_authorized_operations, 8096);
    assert_eq!(response.topics[0].topic_authorized_operations, 3576);
}

#[test]
fn a_topic_is_told_of_once_however_often_it_is_named() {
    let mut node = Node::new();
    node.engine.create("orders", 1);
    let conn = node.connect();
    let response = ask(&mut node, conn, 9, &metadata(Some(&["orders", "gone", "orders"])));
    assert_eq!(response.topics.len(), 2);
}
