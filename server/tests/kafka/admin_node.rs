//! Sizes of logs, and where leader epochs end.

use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{ApiKey, DescribeLogDirsRequest, OffsetForLeaderEpochRequest};

use crate::engine::{LEADER_EPOCH, SPACE};
use crate::node::Node;
use crate::wire::{ask, batch, produce, served, topic};

/// Topic `a` with two partitions, the second of which holds three records; and `b` with one.
fn node() -> (Node, millstream_engine::io::ConnId, i64) {
    let mut node = Node::new();
    node.engine.create("a", 2);
    node.engine.create("b", 1);
    let conn = node.connect();
    ask(&mut node, conn, 9, &produce(-1, "a", &[(1, Some(batch(1, &["a", "b", "c"])))]));
    let bytes = node.engine.log("a", 1).len() as i64;
    (node, conn, bytes)
}

#[test]
fn every_version_tells_how_large_partitions_are() {
    for version in served(ApiKey::DescribeLogDirs) {
        let (mut node, conn, bytes) = node();
        let all = DescribeLogDirsRequest::default().with_topics(None);
        let wanted = DescribableLogDirTopic::default().with_topic(topic("a")).with_partitions(vec![1, 7]);
        let one = DescribeLogDirsRequest::default().with_topics(Some(vec![wanted]));
        let none = DescribeLogDirsRequest::default().with_topics(Some(Vec::new()));
        let mut sizes = |request: DescribeLogDirsRequest| {
            let response = ask(&mut node, conn, version, &request);
            assert_eq!((response.error_code, response.results.len()), (0, 1));
            let dir = &response.results[0];
            assert_eq!((dir.error_code, &*dir.log_dir), (0, "./millstream-data"));
            let space = (dir.total_bytes, dir.usable_bytes);
            let known = (SPACE.total_bytes.cast_signed(), SPACE.free_bytes.cast_signed());
            assert_eq!(space, if version >= 4 { known } else { (-1, -1) });
            let topics = dir.topics.iter();
            let parts = topics.flat_map(|topic| {
                topic.partitions.iter().map(|part| {
                    (topic.name.to_string(), part.partition_index, part.partition_size, part.offset_lag)
                })
            });
            parts.collect::<Vec<_>>()
        };
        let row = |name: &str, index, bytes| (name.to_owned(), index, bytes, 0);
        assert_eq!(sizes(all), [row("a", 0, 0), row("a", 1, bytes), row("b", 0, 0)], "version {version}");
        assert_eq!(sizes(one), [row("a", 1, bytes)]);
        assert_eq!(sizes(none), []);
        assert_eq!(node.broker.pending(), 0);
    }
}

#[test]
fn a_node_of_many_partitions_is_asked_in_pieces() {
    let (mut node, conn, _) = node();
    node.engine.create("many", 5_000);
    let response = ask(&mut node, conn, 4, &DescribeLogDirsRequest::default().with_topics(None));
    let partitions: usize = response.results[0].topics.iter().map(|topic| topic.partitions.len()).sum();
    assert_eq!(partitions, 5_003);
}

#[test]
fn every_version_tells_where_an_epoch_ends() {
    let current = LEADER_EPOCH as i32;
    for version in served(ApiKey::OffsetForLeaderEpoch) {
        let (mut node, conn, _) = node();
        let part = |index, believed, epoch| {
            OffsetForLeaderPartition::default()
                .with_partition(index)
                .with_current_leader_epoch(believed)
                .with_leader_epoch(epoch)
        };
        let partitions = vec![
            part(1, -1, current),
            part(1, current, current - 1),
            part(1, -1, current + 1),
            part(1, -1, -1),
            part(1, current - 1, current),
            part(1, current + 1, current),
            part(2, -1, current),
        ];
        let wanted = OffsetForLeaderTopic::default().with_topic(topic("a")).with_partitions(partitions);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![wanted]);
        let response = ask(&mut node, conn, version, &request);
        let told: Vec<_> = response.topics[0]
            .partitions
            .iter()
            .map(|part| (part.error_code, part.leader_epoch, part.end_offset))
            .collect();
        let none = |code| (code, -1, -1);
        let expected = [(0, current, 3), (0, current - 1, 1), none(0), none(0), none(74), none(75), none(3)];
        assert_eq!(told, expected, "version {version}");
    }
}
