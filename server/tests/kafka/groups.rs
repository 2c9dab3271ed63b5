//! Consumer groups from bytes to bytes, in every version that is advertised.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId,
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest, SyncGroupResponse,
    join_group_request, leave_group_request, offset_commit_request, offset_delete_request,
    offset_fetch_request, sync_group_request,
};
use kafka_protocol::protocol::{HeaderVersion, Request, StrBytes};
use millstream::broker::Broker;
use millstream::config::{GroupConfig, ServerConfig};
use millstream::kafka::APIS;
use millstream_engine::io::ConnId;
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::time::Nanos;

use crate::node::Node;
use crate::wire::{ask, decode, frame, metadata, produce, served, text, topic};

const UNKNOWN_TOPIC: i16 = 3;
const LOADING: i16 = 14;
const NOT_AVAILABLE: i16 = 15;
const NOT_COORDINATOR: i16 = 16;
const INVALID_TOPIC: i16 = 17;
const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER: i16 = 25;
const REBALANCE: i16 = 27;
const NO_TRANSACTIONS: i16 = 53;
const NON_EMPTY: i16 = 68;
const NOT_FOUND: i16 = 69;
const ID_REQUIRED: i16 = 79;
const SUBSCRIBED: i16 = 86;

/// A consumer's metadata that names the topic `t`.
const SUBSCRIPTION: &[u8] = b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff";

fn config() -> ServerConfig {
    let groups = GroupConfig { initial_delay_ms: 0, offsets_partitions: 5, ..GroupConfig::default() };
    ServerConfig { groups, ..ServerConfig::default() }
}

fn node() -> Node {
    let mut node = Node::of_one_shard(config());
    node.engine.create("t", 3);
    node
}

/// The version of an API that a client of a certain age uses.
fn version(api: ApiKey, age: i16) -> i16 {
    age.clamp(*served(api).start(), *served(api).end())
}

fn group() -> GroupId {
    GroupId(text("g"))
}

/// A connection, and a client of a certain age on it.
struct Client {
    conn: ConnId,
    age: i16,
    id: StrBytes,
    generation: i32,
}

impl Client {
    fn new(node: &mut Node, age: i16) -> Client {
        Client { conn: node.connect(), age, id: text(""), generation: -1 }
    }

    fn send<R: Request + HeaderVersion>(&self, node: &mut Node, request: &R) {
        let version = version(ApiKey::try_from(R::KEY).unwrap(), self.age);
        node.receive(self.conn, &frame(version, 77, request));
    }

    fn response<R: Request>(&self, node: &mut Node) -> Option<R::Response>
    where
        R::Response: HeaderVersion,
    {
        let version = version(ApiKey::try_from(R::KEY).unwrap(), self.age);
        Some(decode(version, node.response(self.conn)?).1)
    }

    fn ask<R: Request + HeaderVersion>(&self, node: &mut Node, request: &R) -> R::Response
    where
        R::Response: HeaderVersion,
    {
        self.send(node, request);
        self.response::<R>(node).expect("an answer at once")
    }

    /// Asks to join; a newcomer that is sent back comes again.
    fn send_join(&mut self, node: &mut Node) {
        self.send(node, &self.join());
        if version(ApiKey::JoinGroup, self.age) >= 4 && self.id.is_empty() {
            let response = self.response::<JoinGroupRequest>(node).unwrap();
            assert_eq!(response.error_code, ID_REQUIRED);
            assert!(response.member_id.starts_with("test-"), "{}", &*response.member_id);
            self.id = response.member_id;
            self.send(node, &self.join());
        }
    }

    fn join(&self) -> JoinGroupRequest {
        let protocol = join_group_request::JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(SUBSCRIPTION));
        JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(60_000)
            .with_member_id(self.id.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol])
    }

    fn joined(&mut self, node: &mut Node) -> JoinGroupResponse {
        let joined = self.response::<JoinGroupRequest>(node).expect("the generation has begun");
        assert_eq!(joined.error_code, 0);
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));
        if version(ApiKey::JoinGroup, self.age) >= 7 {
            assert_eq!(joined.protocol_type.as_deref(), Some("consumer"));
        }
        (self.id, self.generation) = (joined.member_id.clone(), joined.generation_id);
        joined
    }

    fn send_sync(&self, node: &mut Node, parts: &[(&StrBytes, &'static [u8])]) {
        let parts = parts.iter().map(|(id, part)| {
            sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id((*id).clone())
                .with_assignment(Bytes::from_static(part))
        });
        let named = version(ApiKey::SyncGroup, self.age) >= 5;
        let request = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_protocol_type(named.then(|| text("consumer")))
            .with_protocol_name(named.then(|| text("range")))
            .with_assignments(parts.collect());
        self.send(node, &request);
    }

    fn synced(&self, node: &mut Node) -> Option<SyncGroupResponse> {
        self.response::<SyncGroupRequest>(node)
    }

    fn heartbeat(&self, node: &mut Node) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        self.ask(node, &request).error_code
    }

    /// Commits offset 5 for partitions of `t`, and for one of a topic that is not there: all error codes.
    fn commit(&self, node: &mut Node, generation: i32, partitions: &[i32]) -> Vec<i16> {
        let age = version(ApiKey::OffsetCommit, self.age);
        let each = |index: &i32| {
            let each = offset_commit_request::OffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(5)
                .with_committed_metadata(Some(text("note")));
            if age >= 6 { each.with_committed_leader_epoch(3) } else { each }
        };
        let of = |name, partitions: &[i32]| {
            offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(topic(name))
                .with_partitions(partitions.iter().map(each).collect())
        };
        let request = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(if generation < 0 { text("") } else { self.id.clone() })
            .with_topics(vec![of("gone", &[0]), of("t", partitions)]);
        let response = self.ask(node, &request);
        assert_eq!(response.topics.iter().map(|topic| &*topic.name.0).collect::<Vec<_>>(), ["gone", "t"]);
        let codes = response.topics.iter().flat_map(|topic| &topic.partitions);
        codes.map(|partition| partition.error_code).collect()
    }

    /// Partitions 0 and 1 of `t`, or all that are known: index, offset, epoch, text.
    fn offsets(&self, node: &mut Node, all: bool) -> Vec<(i32, i64, i32, String)> {
        let age = version(ApiKey::OffsetFetch, self.age);
        if age >= 8 {
            let wanted = offset_fetch_request::OffsetFetchRequestTopics::default()
                .with_name(topic("t"))
                .with_partition_indexes(vec![0, 1]);
            let of = |name, topics| {
                offset_fetch_request::OffsetFetchRequestGroup::default()
                    .with_group_id(GroupId(text(name)))
                    .with_topics(topics)
            };
            let request = OffsetFetchRequest::default()
                .with_groups(vec![of("g", (!all).then(|| vec![wanted])), of("unknown", None)]);
            let response = self.ask(node, &request);
            assert_eq!(response.groups.len(), 2);
            assert!(response.groups[1].topics.is_empty());
            assert_eq!((response.groups[0].error_code, &*response.groups[0].group_id.0), (0, "g"));
            let partitions = response.groups[0].topics.iter().flat_map(|topic| &topic.partitions);
            let shape = partitions.map(|each| {
                let text = each.metadata.as_deref().unwrap().to_owned();
                (each.partition_index, each.committed_offset, each.committed_leader_epoch, text)
            });
            return shape.collect();
        }
        let wanted = offset_fetch_request::OffsetFetchRequestTopic::default()
            .with_name(topic("t"))
            .with_partition_indexes(vec![0, 1]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group())
            .with_topics((!all).then(|| vec![wanted]))
            .with_require_stable(age >= 7);
        let response = self.ask(node, &request);
        assert_eq!(response.error_code, 0);
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let shape = partitions.map(|each| {
            assert_eq!(each.error_code, 0);
            let text = each.metadata.as_deref().unwrap().to_owned();
            (each.partition_index, each.committed_offset, each.committed_leader_epoch, text)
        });
        shape.collect()
    }

    fn leave(&self, node: &mut Node) -> i16 {
        let request = LeaveGroupRequest::default().with_group_id(group());
        if version(ApiKey::LeaveGroup, self.age) < 3 {
            return self.ask(node, &request.with_member_id(self.id.clone())).error_code;
        }
        let member = leave_group_request::MemberIdentity::default().with_member_id(self.id.clone());
        let response = self.ask(node, &request.with_members(vec![member]));
        assert_eq!((response.error_code, &response.members[0].member_id), (0, &self.id));
        response.members[0].error_code
    }

    fn find(&self, node: &mut Node) {
        let request = FindCoordinatorRequest::default();
        let response = if version(ApiKey::FindCoordinator, self.age) >= 4 {
            let response = self.ask(node, &request.with_coordinator_keys(vec![text("g"), text("h")]));
            assert_eq!(&*response.coordinators[1].key, "h");
            let first = &response.coordinators[0];
            (first.error_code, first.node_id, first.host.clone(), first.port)
        } else {
            let response = self.ask(node, &request.with_key(text("g")));
            (response.error_code, response.node_id, response.host, response.port)
        };
        assert_eq!(response, (0, 1.into(), text("10.0.0.1"), 9092));
    }

    /// Its state, its members, and the part of each.
    fn describe(&self, node: &mut Node) -> (String, Vec<Bytes>) {
        let age = version(ApiKey::DescribeGroups, self.age);
        let request = DescribeGroupsRequest::default()
            .with_groups(vec![group(), GroupId(text("unknown"))])
            .with_include_authorized_operations(age >= 3);
        let response = self.ask(node, &request);
        assert_eq!((&*response.groups[1].group_state, response.groups[1].error_code), ("Dead", 0));
        let described = &response.groups[0];
        assert_eq!((described.error_code, &*described.group_id.0), (0, "g"));
        for member in &described.members {
            assert_eq!((&*member.client_id, &*member.client_host), ("test", "/10.0.0.2"));
        }
        let parts = described.members.iter().map(|member| member.member_assignment.clone());
        (described.group_state.to_string(), parts.collect())
    }

    fn list(&self, node: &mut Node, state: Option<&str>) -> Vec<(String, String)> {
        let states = state.map(text).into_iter().collect();
        let response = self.ask(node, &ListGroupsRequest::default().with_states_filter(states));
        assert_eq!(response.error_code, 0);
        let groups = response.groups.iter();
        groups.map(|group| (group.group_id.to_string(), group.protocol_type.to_string())).collect()
    }

    fn delete(&self, node: &mut Node) -> i16 {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
        self.ask(node, &request).results[0].error_code
    }

    fn delete_offsets(&self, node: &mut Node, partition: i32) -> (i16, Option<i16>) {
        let partition =
            offset_delete_request::OffsetDeleteRequestPartition::default().with_partition_index(partition);
        let of_topic = offset_delete_request::OffsetDeleteRequestTopic::default()
            .with_name(topic("t"))
            .with_partitions(vec![partition]);
        let request = OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![of_topic]);
        let response = self.ask(node, &request);
        (response.error_code, response.topics.first().map(|topic| topic.partitions[0].error_code))
    }
}

/// Two members on two connections, `a` leading.
fn two(node: &mut Node, age: i16) -> (Client, Client) {
    let (mut a, mut b) = (Client::new(node, age), Client::new(node, age));
    a.find(node);
    a.send_join(node);
    assert_eq!(a.joined(node).generation_id, 1);
    b.send_join(node);
    assert!(b.response::<JoinGroupRequest>(node).is_none(), "b waits for a");
    assert_eq!(a.heartbeat(node), REBALANCE);
    a.send_join(node);
    let (joined_a, joined_b) = (a.joined(node), b.joined(node));
    assert_eq!((joined_a.generation_id, joined_b.generation_id), (2, 2));
    assert_eq!((&joined_a.leader, &joined_b.leader), (&a.id, &a.id));
    assert_eq!((joined_a.members.len(), joined_b.members.len()), (2, 0));
    assert_eq!(joined_a.members[0].metadata, SUBSCRIPTION);
    (a, b)
}

#[test]
fn a_groups_whole_life_in_every_version() {
    for age in 0..=9 {
        let mut node = node();
        let node = &mut node;
        let (a, b) = two(node, age);
        assert_eq!(a.commit(node, 2, &[0]), [UNKNOWN_TOPIC, REBALANCE], "nobody has a part yet");
        b.send_sync(node, &[]);
        assert!(b.synced(node).is_none(), "b waits for the leader");
        a.send_sync(node, &[(&a.id, b"left"), (&b.id, b"right")]);
        let (part_a, part_b) = (a.synced(node).unwrap(), b.synced(node).unwrap());
        assert_eq!((part_a.error_code, part_b.error_code), (0, 0));
        assert_eq!((&part_a.assignment[..], &part_b.assignment[..]), (&b"left"[..], &b"right"[..]));
        assert_eq!((a.heartbeat(node), b.heartbeat(node)), (0, 0));

        assert_eq!(a.commit(node, 2, &[0]), [UNKNOWN_TOPIC, 0]);
        assert_eq!(a.commit(node, 1, &[0]), [UNKNOWN_TOPIC, ILLEGAL_GENERATION]);
        assert_eq!(a.commit(node, -1, &[0]), [UNKNOWN_TOPIC, UNKNOWN_MEMBER]);
        let epoch = |from, api| if version(api, age) >= from { 3 } else { -1 };
        let committed = epoch(6, ApiKey::OffsetCommit).min(epoch(5, ApiKey::OffsetFetch));
        let offsets = a.offsets(node, false);
        assert_eq!(offsets, [(0, 5, committed, "note".to_owned()), (1, -1, -1, String::new())]);
        if version(ApiKey::OffsetFetch, age) >= 2 {
            assert_eq!(a.offsets(node, true), [(0, 5, committed, "note".to_owned())]);
        }

        let (state, parts) = a.describe(node);
        assert_eq!((&*state, parts.len()), ("Stable", 2));
        assert!(parts.contains(&Bytes::from_static(b"right")));
        assert_eq!(a.list(node, None), [("g".to_owned(), "consumer".to_owned())]);
        if version(ApiKey::ListGroups, age) >= 4 {
            assert_eq!(a.list(node, Some("stable")).len(), 1);
            assert!(a.list(node, Some("Empty")).is_empty());
        }
        assert_eq!(a.delete(node), NON_EMPTY);
        assert_eq!(a.delete_offsets(node, 0), (0, Some(SUBSCRIBED)));

        assert_eq!(b.leave(node), 0);
        assert_eq!(b.leave(node), UNKNOWN_MEMBER);
        assert_eq!(a.heartbeat(node), REBALANCE);
        assert_eq!(a.leave(node), 0);
        assert_eq!(a.describe(node), ("Empty".to_owned(), Vec::new()));
        assert_eq!(a.commit(node, -1, &[1]), [UNKNOWN_TOPIC, 0], "a consumer without a group");
        assert_eq!(a.delete_offsets(node, 0), (0, Some(0)));
        assert_eq!(a.offsets(node, false)[0].1, -1);
        assert_eq!(a.offsets(node, false)[1].1, 5);
        assert_eq!(a.delete(node), 0);
        assert_eq!(a.delete(node), NOT_FOUND);
        assert_eq!(a.delete_offsets(node, 1), (NOT_FOUND, None));
        assert!(a.list(node, None).is_empty());
        assert_eq!(a.offsets(node, false)[1].1, -1);
    }
}

#[test]
fn without_its_topic_a_group_has_no_coordinator_until_that_is_looked_for() {
    let mut node = node();
    let node = &mut node;
    let mut client = Client::new(node, 9);
    client.send(node, &client.join());
    assert_eq!(client.response::<JoinGroupRequest>(node).unwrap().error_code, NOT_AVAILABLE);
    assert!(client.list(node, None).is_empty());
    client.find(node);
    client.send_join(node);
    client.joined(node);
    let topics = ask(node, client.conn, 12, &metadata(Some(&["__consumer_offsets", "t"]))).topics;
    assert_eq!((topics[0].is_internal, topics[0].partitions.len()), (true, 5));
    assert!(!topics[1].is_internal);
}

#[test]
fn clients_may_not_write_what_groups_are_kept_in() {
    let mut node = node();
    let node = &mut node;
    let client = Client::new(node, 9);
    client.find(node);
    let batch = crate::wire::batch(1, &["x"]);
    let response = ask(node, client.conn, 9, &produce(-1, "__consumer_offsets", &[(0, Some(batch))]));
    assert_eq!(response.responses[0].partition_responses[0].error_code, INVALID_TOPIC);
}

#[test]
fn what_was_read_of_a_deleted_topic_is_forgotten_with_it_at_once_or_at_the_next_start() {
    let mut node = node();
    let node = &mut node;
    let client = Client::new(node, 8);
    client.find(node);
    assert_eq!(client.commit(node, -1, &[0, 1]), [UNKNOWN_TOPIC, 0, 0]);
    assert_eq!(client.offsets(node, true).len(), 2);
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic("t")]);
    assert_eq!(ask(node, client.conn, 5, &delete).responses[0].error_code, 0);
    assert!(client.offsets(node, true).is_empty());

    node.engine.create("t", 3);
    node.step(AppEvent::MetadataChanged);
    assert_eq!(client.commit(node, -1, &[0]), [UNKNOWN_TOPIC, 0]);
    node.engine.delete("t");
    node.broker = Broker::new(Arc::new(config()));
    node.step(AppEvent::Started);
    let client = Client::new(node, 8);
    assert!(client.offsets(node, true).is_empty());
    assert!(client.list(node, None).iter().all(|(group, _)| group == "g"));
}

#[test]
fn a_commit_waits_for_the_disk() {
    let mut node = node();
    let node = &mut node;
    let client = Client::new(node, 8);
    client.find(node);
    node.hold = true;
    let each = offset_commit_request::OffsetCommitRequestPartition::default().with_committed_offset(1);
    let of_topic = offset_commit_request::OffsetCommitRequestTopic::default()
        .with_name(topic("t"))
        .with_partitions(vec![each]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![of_topic]);
    client.send(node, &request);
    assert!(client.response::<OffsetCommitRequest>(node).is_none());
    node.release_all();
    let response = client.response::<OffsetCommitRequest>(node).unwrap();
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
}

#[test]
fn a_closed_connection_leaves_nothing_behind_and_a_silent_member_is_gone() {
    let mut node = node();
    let node = &mut node;
    let (mut a, b) = two(node, 9);
    let mut c = Client::new(node, 3);
    c.send_join(node);
    assert!(c.response::<JoinGroupRequest>(node).is_none());
    node.disconnect(c.conn);
    // c did not know its id and is not waited for; b never asks for its part, and goes with its session.
    a.send_join(node);
    assert!(a.response::<JoinGroupRequest>(node).is_none());
    node.disconnect(b.conn);
    node.advance(Nanos::from_millis(10_000));
    assert_eq!(a.joined(node).members.len(), 1);
    assert_eq!(node.broker.pending(), node.timers.len(), "only timers are under way");
}

#[test]
fn a_node_that_stops_waits_for_no_generation() {
    let mut node = node();
    let node = &mut node;
    let (a, _) = two(node, 9);
    a.send_sync(node, &[]);
    a.synced(node).unwrap();
    let mut c = Client::new(node, 9);
    c.send_join(node);
    node.step(AppEvent::Stopping);
    let response = c.response::<JoinGroupRequest>(node).expect("an answer");
    assert_eq!(response.error_code, NOT_AVAILABLE);
    assert!(node.socket(c.conn).closed);
}

#[test]
fn errors_are_counted_by_api() {
    let mut node = node();
    let node = &mut node;
    let client = Client::new(node, 9);
    client.find(node);
    assert_eq!(client.heartbeat(node), UNKNOWN_MEMBER);
    assert_eq!(client.delete(node), NOT_FOUND);
    assert_eq!(client.commit(node, 1, &[0, 1]).len(), 3);
    let unknown = DeleteTopicsRequest::default().with_topic_names(vec![topic("x"), topic("y")]);
    ask(node, client.conn, 5, &unknown);
    let errors = |api| {
        let place = APIS.iter().position(|each| each.name == api).unwrap();
        node.broker.metrics().get(|metrics| metrics.errors.at(place).get())
    };
    let counted = ["Heartbeat", "DeleteGroups", "OffsetCommit", "DeleteTopics", "FindCoordinator"];
    assert_eq!(counted.map(errors), [1, 1, 3, 2, 0]);
}

#[test]
fn a_member_that_knows_too_many_ways_to_assign_is_cut_off() {
    let mut node = node();
    let node = &mut node;
    let client = Client::new(node, 9);
    client.find(node);
    let mut join = client.join();
    join.protocols = vec![join.protocols[0].clone(); 101];
    client.send(node, &join);
    assert!(node.socket(client.conn).closed);
}

fn fetch_offsets(groups: &[&str]) -> OffsetFetchRequest {
    let group = |name: &&str| {
        offset_fetch_request::OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(name)))
            .with_topics(None)
    };
    OffsetFetchRequest::default().with_groups(groups.iter().map(group).collect())
}

#[test]
fn a_group_is_told_of_once_however_often_it_is_named() {
    let mut node = node();
    let node = &mut node;
    let client = Client::new(node, 9);
    client.find(node);
    let names = ["g", "h", "g"].map(|name| GroupId(text(name))).to_vec();
    let described = client.ask(node, &DescribeGroupsRequest::default().with_groups(names.clone()));
    assert_eq!(described.groups.iter().map(|group| &*group.group_id.0).collect::<Vec<_>>(), ["g", "h"]);
    let deleted = client.ask(node, &DeleteGroupsRequest::default().with_groups_names(names));
    assert_eq!(deleted.results.len(), 2);
    client.send(node, &fetch_offsets(&["g", "h", "g"]));
    assert!(node.socket(client.conn).closed);
}

#[test]
fn while_groups_are_read_nobody_gets_a_code_that_clients_do_not_expect() {
    let mut node = node();
    let node = &mut node;
    let (a, _) = two(node, 9);
    node.broker = Broker::new(Arc::new(config()));
    node.hold = true;
    node.step(AppEvent::Started);
    let a = Client { conn: node.connect(), ..a };
    assert_eq!(a.heartbeat(node), 0);
    a.send_sync(node, &[]);
    assert_eq!(a.synced(node).unwrap().error_code, REBALANCE);
    assert_eq!(a.ask(node, &a.join()).error_code, LOADING);
    assert_eq!(a.ask(node, &fetch_offsets(&["g"])).groups[0].error_code, LOADING);
    assert_eq!(a.ask(node, &ListGroupsRequest::default()).error_code, LOADING);
    assert_eq!(a.delete(node), LOADING);
    node.release_all();
    assert_eq!(a.heartbeat(node), UNKNOWN_MEMBER, "nothing had been stored of it");
}

#[test]
fn who_asks_for_offsets_without_a_coordinator_is_sent_to_look_for_one() {
    let mut node = node();
    let node = &mut node;
    let client = Client::new(node, 9);
    assert_eq!(client.ask(node, &fetch_offsets(&["g"])).groups[0].error_code, NOT_COORDINATOR);
    let client = Client::new(node, 7);
    let request = OffsetFetchRequest::default().with_group_id(group()).with_topics(None);
    assert_eq!(client.ask(node, &request).error_code, NOT_COORDINATOR);
}

#[test]
fn whoever_looks_for_a_coordinator_of_transactions_is_told_that_there_is_none() {
    for age in 1..=9 {
        let mut node = node();
        let client = Client::new(&mut node, age);
        let request = FindCoordinatorRequest::default().with_key_type(1);
        let (error, message) = if version(ApiKey::FindCoordinator, age) >= 4 {
            let request = request.with_coordinator_keys(vec![text("tx")]);
            let first = client.ask(&mut node, &request).coordinators.remove(0);
            (first.error_code, first.error_message)
        } else {
            let response = client.ask(&mut node, &request.with_key(text("tx")));
            (response.error_code, response.error_message)
        };
        assert_eq!((error, message.as_deref()), (NO_TRANSACTIONS, Some("transactions are not served yet")));
    }
}
