//! What was changed by request is there when a killed process is started again.

use std::collections::BTreeSet;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, MetadataRequest, OffsetForLeaderEpochRequest,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use millstream_engine::format::batch::BatchBuilder;

use crate::broker::{Broker, TempDir, serve};
use crate::client::Client;

const TOPIC: i8 = 2;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text("orders"))
}

fn start(dir: &TempDir, shards: &str) -> (Broker, Client) {
    let broker = Broker::start(serve(dir).args(["--shards", shards]));
    let client = Client::connect(broker.address);
    (broker, client)
}

fn partitions(client: &mut Client) -> usize {
    let all = client.ask(9, &MetadataRequest::default().with_topics(None));
    all.topics.iter().find(|found| found.name == Some(topic())).map_or(0, |found| found.partitions.len())
}

fn setting(client: &mut Client, name: &'static str) -> Option<String> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("orders"))
        .with_configuration_keys(Some(vec![text(name)]));
    let described = client.ask(4, &DescribeConfigsRequest::default().with_resources(vec![resource]));
    described.results[0].configs[0].value.as_ref().map(ToString::to_string)
}

fn producer_id(client: &mut Client) -> i64 {
    let told = client.ask(4, &InitProducerIdRequest::default().with_transactional_id(None));
    assert_eq!(told.error_code, 0);
    told.producer_id.0
}

/// Where an epoch ends in partition 4.
fn epoch_end(client: &mut Client, epoch: i32) -> (i32, i64) {
    let partition = OffsetForLeaderPartition::default().with_partition(4).with_leader_epoch(epoch);
    let wanted = OffsetForLeaderTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    let told = client.ask(4, &OffsetForLeaderEpochRequest::default().with_topics(vec![wanted]));
    let told = &told.topics[0].partitions[0];
    assert_eq!(told.error_code, 0);
    (told.leader_epoch, told.end_offset)
}

fn append(client: &mut Client) -> i64 {
    let batch = BatchBuilder::new(1_700_000_000_000).push(None, Some(b"value")).build();
    client.send_batch(-1, "orders", 4, &batch).unwrap();
    client.acknowledged().unwrap()
}

#[test]
fn changes_survive_kills_and_other_numbers_of_shards() {
    let dir = TempDir::new();
    let (broker, mut client) = start(&dir, "2");
    let config = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("-1")));
    let wanted = CreatableTopic::default()
        .with_name(topic())
        .with_num_partitions(3)
        .with_replication_factor(1)
        .with_configs(vec![config]);
    let created = client.ask(7, &CreateTopicsRequest::default().with_topics(vec![wanted]));
    assert_eq!(created.topics[0].error_code, 0);
    let grow = CreatePartitionsTopic::default().with_name(topic()).with_count(5).with_assignments(None);
    let grown = client.ask(3, &CreatePartitionsRequest::default().with_topics(vec![grow]));
    assert_eq!(grown.results[0].error_code, 0);
    let change =
        AlterableConfig::default().with_name(text("cleanup.policy")).with_value(Some(text("compact")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("orders"))
        .with_configs(vec![change]);
    let altered = client.ask(1, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]));
    assert_eq!(altered.responses[0].error_code, 0);
    let mut ids = BTreeSet::from([producer_id(&mut client)]);
    assert_eq!((append(&mut client), append(&mut client)), (0, 1));
    broker.kill();

    for (round, shards) in ["1", "3"].into_iter().enumerate() {
        let (broker, mut client) = start(&dir, shards);
        let epoch = round as i32 + 1;
        assert_eq!(partitions(&mut client), 5);
        assert_eq!(setting(&mut client, "retention.ms").as_deref(), Some("-1"));
        assert_eq!(setting(&mut client, "cleanup.policy").as_deref(), Some("compact"));
        assert!(ids.insert(producer_id(&mut client)), "an id is given once");
        assert_eq!(epoch_end(&mut client, 0), (0, 2), "what was stored before the first kill ends there");
        assert_eq!(append(&mut client), 1 + i64::from(epoch));
        assert_eq!(epoch_end(&mut client, epoch), (epoch, 2 + i64::from(epoch)));
        assert_eq!(epoch_end(&mut client, 0), (0, 2));
        let sizes = client.ask(4, &DescribeLogDirsRequest::default().with_topics(None));
        let sizes = &sizes.results[0].topics[0].partitions;
        let stored: Vec<_> = sizes.iter().map(|part| part.partition_size > 0).collect();
        assert_eq!(stored, [false, false, false, false, true]);
        broker.kill();
    }
}
