//! The advertised table against the handlers: every version of every API, with the oracle as the client.

use std::collections::BTreeSet;

use kafka_protocol::messages::{
    AlterConfigsRequest, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest, ElectLeadersRequest, FetchRequest,
    FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::{HeaderVersion, Request};
use millstream::kafka::APIS;

use crate::node::Node;
use crate::wire::ask;

/// Asks in every version that is served for as little as can be, and decodes the answers. Gives the API's key.
fn walk<R: Request + HeaderVersion + Default>(minimal: impl Fn(i16) -> R) -> i16
where
    R::Response: HeaderVersion,
{
    let api = APIS.iter().find(|api| api.key == R::KEY).unwrap();
    for version in api.served_from..=*api.versions.end() {
        assert_eq!(R::header_version(version) >= 2, api.is_flexible(version), "{} {version}", api.name);
        let mut node = Node::new();
        node.engine.create("t", 2);
        let conn = node.connect();
        ask(&mut node, conn, version, &minimal(version));
        assert!(!node.socket(conn).closed, "{} {version}", api.name);
        assert_eq!(node.broker.pending(), node.timers.len(), "{} {version}", api.name);
    }
    R::KEY
}

fn empty<R: Default>(_: i16) -> R {
    R::default()
}

#[test]
fn every_advertised_version_is_read_and_its_answer_decodes() {
    let walked = [
        walk(|_| ProduceRequest::default().with_acks(-1)),
        walk(empty::<FetchRequest>),
        walk(empty::<ListOffsetsRequest>),
        walk(empty::<MetadataRequest>),
        walk(|_| {
            ApiVersionsRequest::default()
                .with_client_software_name("a".into())
                .with_client_software_version("1".into())
        }),
        walk(empty::<OffsetCommitRequest>),
        walk(empty::<OffsetFetchRequest>),
        walk(empty::<FindCoordinatorRequest>),
        walk(empty::<JoinGroupRequest>),
        walk(empty::<HeartbeatRequest>),
        walk(empty::<LeaveGroupRequest>),
        walk(empty::<SyncGroupRequest>),
        walk(empty::<DescribeGroupsRequest>),
        walk(empty::<ListGroupsRequest>),
        walk(empty::<DeleteGroupsRequest>),
        walk(empty::<OffsetDeleteRequest>),
        walk(empty::<CreateTopicsRequest>),
        walk(empty::<DeleteTopicsRequest>),
        walk(empty::<DeleteRecordsRequest>),
        walk(|_| InitProducerIdRequest::default().with_transactional_id(None)),
        walk(empty::<OffsetForLeaderEpochRequest>),
        walk(empty::<DescribeConfigsRequest>),
        walk(empty::<AlterConfigsRequest>),
        walk(empty::<DescribeLogDirsRequest>),
        walk(empty::<CreatePartitionsRequest>),
        walk(empty::<IncrementalAlterConfigsRequest>),
        walk(empty::<ElectLeadersRequest>),
        walk(empty::<ListPartitionReassignmentsRequest>),
        walk(empty::<DescribeClusterRequest>),
    ];
    let advertised: BTreeSet<i16> = APIS.iter().map(|api| api.key).collect();
    assert_eq!(BTreeSet::from(walked), advertised, "every API of the table is asked here");
    assert_eq!(advertised.len(), APIS.len(), "each stands in the table once");
}
