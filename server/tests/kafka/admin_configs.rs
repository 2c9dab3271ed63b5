//! Settings of topics and of the node: told, and changed.

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    incremental_alter_configs_request as incremental,
};
use millstream::config::{KEYS, ServerConfig};
use millstream_engine::io::ConnId;

use crate::node::Node;
use crate::wire::{ask, served, text};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn node() -> (Node, ConnId) {
    let mut config = ServerConfig::default();
    config.engine.topic.retention_bytes = 7;
    let mut node = Node::with(config);
    node.engine.create_with("t", 1, &[("retention.ms", "5"), ("preallocate", "true")]);
    let conn = node.connect();
    (node, conn)
}

fn describe(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true)
}

fn described(
    node: &mut Node,
    conn: ConnId,
    version: i16,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResult {
    let response = ask(node, conn, version, request);
    assert_eq!(response.results.len(), 1);
    response.results[0].clone()
}

fn setting(node: &Node, name: &str) -> Option<String> {
    node.engine.metadata.topic("t").unwrap().setting(name).map(str::to_owned)
}

#[test]
fn every_version_tells_every_setting_of_a_topic_and_where_it_comes_from() {
    for version in served(ApiKey::DescribeConfigs) {
        let (mut node, conn) = node();
        let mut request = describe(TOPIC, "t", None);
        request.include_documentation = version >= 3;
        let result = described(&mut node, conn, version, &request);
        assert_eq!((result.error_code, result.configs.len()), (0, 34), "version {version}");
        let find = |name| result.configs.iter().find(|config| config.name == text(name)).unwrap();
        let check = |name, value, source, synonyms: &[(&str, &str, i8)]| {
            let config = find(name);
            let told = (config.value.as_deref(), config.config_source, config.read_only, config.is_sensitive);
            assert_eq!(told, (Some(value), source, false, false), "{name}");
            let listed: Vec<_> = config
                .synonyms
                .iter()
                .map(|synonym| (&*synonym.name, synonym.value.as_deref().unwrap(), synonym.source))
                .collect();
            assert_eq!(listed, synonyms, "{name}");
        };
        let week = "604800000";
        check("retention.ms", "5", 1, &[("retention.ms", "5", 1), ("log.retention.ms", week, 5)]);
        check(
            "retention.bytes",
            "7",
            4,
            &[("log.retention.bytes", "7", 4), ("log.retention.bytes", "-1", 5)],
        );
        check("segment.ms", week, 5, &[("log.roll.ms", week, 5)]);
        check("preallocate", "true", 1, &[("preallocate", "true", 1), ("preallocate", "false", 5)]);
        if version >= 3 {
            let kind = |name| find(name).config_type;
            let kinds = [
                kind("preallocate"),
                kind("message.timestamp.type"),
                kind("segment.bytes"),
                kind("segment.ms"),
                kind("min.cleanable.dirty.ratio"),
                kind("cleanup.policy"),
            ];
            assert_eq!(kinds, [1, 2, 3, 5, 6, 7]);
            assert!(result.configs.iter().all(|config| config.documentation.is_some()));
        }
    }
}

#[test]
fn only_what_is_asked_for_is_told() {
    let (mut node, conn) = node();
    let request = describe(TOPIC, "t", Some(&["segment.ms", "no.such"])).with_include_synonyms(false);
    let result = described(&mut node, conn, 4, &request);
    assert_eq!(result.configs.len(), 1);
    assert_eq!(&*result.configs[0].name, "segment.ms");
    assert!(result.configs[0].synonyms.is_empty() && result.configs[0].documentation.is_none());
}

#[test]
fn a_resource_is_told_of_once() {
    let (mut node, conn) = node();
    let mut request = describe(TOPIC, "t", None);
    request.resources.push(request.resources[0].clone());
    let results = ask(&mut node, conn, 4, &request).results;
    assert_eq!(results.iter().map(|result| result.error_code).collect::<Vec<_>>(), [0, 42]);
    assert!(!results[0].configs.is_empty() && results[1].configs.is_empty());
}

#[test]
fn a_node_tells_its_configuration_and_what_tools_look_for() {
    let (mut node, conn) = node();
    let result = described(&mut node, conn, 4, &describe(BROKER, "1", None));
    assert_eq!(result.error_code, 0);
    assert!(result.configs.iter().all(|config| config.read_only));
    let find = |name| result.configs.iter().find(|config| config.name == text(name)).unwrap();
    let told = |name| (find(name).value.as_deref().unwrap().to_owned(), find(name).config_source);
    assert_eq!(told("log.retention.bytes"), ("7".to_owned(), 4));
    assert_eq!(told("kafka.listen"), ("127.0.0.1:9092".to_owned(), 5));
    assert_eq!(told("default.replication.factor"), ("1".to_owned(), 5));
    for key in KEYS {
        find(key.name);
    }
}

#[test]
fn resources_that_are_not_there_are_errors() {
    let (mut node, conn) = node();
    let mut code = |kind, name| described(&mut node, conn, 4, &describe(kind, name, None)).error_code;
    assert_eq!(code(TOPIC, "u"), 3);
    assert_eq!(code(BROKER, "2"), 42);
    assert_eq!(code(16, "metrics"), 42);
    assert_eq!(code(BROKER, ""), 0);
}

fn alter(kind: i8, name: &str, settings: &[(&str, Option<&str>)]) -> AlterConfigsRequest {
    let configs = settings
        .iter()
        .map(|(name, value)| AlterableConfig::default().with_name(text(name)).with_value(value.map(text)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    AlterConfigsRequest::default().with_resources(vec![resource])
}

#[test]
fn every_version_replaces_all_settings() {
    for version in served(ApiKey::AlterConfigs) {
        let (mut node, conn) = node();
        let mut code = |request: &AlterConfigsRequest| {
            let response = ask(&mut node, conn, version, request);
            response.responses[0].error_code
        };
        assert_eq!(code(&alter(TOPIC, "t", &[("segment.ms", Some("9"))]).with_validate_only(true)), 0);
        assert_eq!(code(&alter(TOPIC, "t", &[("segment.ms", Some("0"))])), 40);
        assert_eq!(code(&alter(TOPIC, "t", &[("segment.ms", None)])), 42);
        assert_eq!(code(&alter(TOPIC, "u", &[])), 3);
        assert_eq!(code(&alter(BROKER, "1", &[("log.roll.ms", Some("9"))])), 42);
        assert_eq!(setting(&node, "retention.ms").as_deref(), Some("5"), "nothing has changed so far");
        let response = ask(&mut node, conn, version, &alter(TOPIC, "t", &[("segment.ms", Some("9"))]));
        assert_eq!(response.responses[0].error_code, 0, "version {version}");
        let topic = node.engine.metadata.topic("t").unwrap();
        assert_eq!(topic.settings, [("segment.ms".to_owned(), "9".to_owned())]);
        assert_eq!(topic.config.segment_ms, 9);
    }
}

fn edit(name: &str, edits: &[(&str, i8, Option<&str>)]) -> IncrementalAlterConfigsRequest {
    let configs = edits.iter().map(|(name, operation, value)| {
        incremental::AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    });
    let resource = incremental::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

fn edited(node: &mut Node, conn: ConnId, version: i16, edits: &[(&str, i8, Option<&str>)]) -> i16 {
    ask(node, conn, version, &edit("t", edits)).responses[0].error_code
}

#[test]
fn every_version_changes_single_settings() {
    for version in served(ApiKey::IncrementalAlterConfigs) {
        let (mut node, conn) = node();
        let edits = [("segment.ms", SET, Some("9")), ("preallocate", DELETE, None)];
        assert_eq!(edited(&mut node, conn, version, &edits), 0, "version {version}");
        assert_eq!(setting(&node, "segment.ms").as_deref(), Some("9"));
        assert_eq!(setting(&node, "preallocate"), None);
        assert_eq!(setting(&node, "retention.ms").as_deref(), Some("5"), "what is not named stays");
    }
}

#[test]
fn a_list_is_added_to_and_taken_from() {
    let (mut node, conn) = node();
    let mut policy = |operation, words| {
        let code = edited(&mut node, conn, 1, &[("cleanup.policy", operation, Some(words))]);
        (code, setting(&node, "cleanup.policy").unwrap_or_default())
    };
    assert_eq!(policy(APPEND, "compact"), (0, "delete,compact".to_owned()), "onto what holds");
    assert_eq!(policy(APPEND, "compact"), (0, "delete,compact".to_owned()), "once");
    assert_eq!(policy(SUBTRACT, "delete"), (0, "compact".to_owned()));
    assert_eq!(policy(SUBTRACT, "compact"), (40, "compact".to_owned()), "it may not be empty");
    assert_eq!(policy(APPEND, "squash").0, 40);
    assert_eq!(edited(&mut node, conn, 1, &[("segment.ms", APPEND, Some("1"))]), 40, "no list");
}

#[test]
fn a_resource_is_changed_whole_or_not_at_all() {
    let (mut node, conn) = node();
    let good = ("segment.ms", SET, Some("9"));
    let bad: [(&str, i8, Option<&str>); 5] = [
        ("retention.ms", SET, Some("x")),
        ("no.such", SET, Some("1")),
        ("no.such", DELETE, None),
        ("retention.ms", SET, None),
        ("retention.ms", 9, Some("1")),
    ];
    for (bad, code) in bad.into_iter().zip([40, 40, 40, 42, 42]) {
        assert_eq!(edited(&mut node, conn, 1, &[good, bad]), code, "{bad:?}");
    }
    assert_eq!(edited(&mut node, conn, 1, &[good, good]), 42, "twice the same");
    assert_eq!(setting(&node, "segment.ms"), None);
    let dry = edit("t", &[good]).with_validate_only(true);
    assert_eq!(ask(&mut node, conn, 1, &dry).responses[0].error_code, 0);
    assert_eq!(setting(&node, "segment.ms"), None);
}

#[test]
fn one_resource_does_not_stand_in_anothers_way_and_none_is_named_twice() {
    let (mut node, conn) = node();
    node.engine.create("u", 1);
    let resources = |names: &[(&str, &str)]| {
        let all =
            names.iter().map(|(name, ms)| edit(name, &[("segment.ms", SET, Some(ms))]).resources.remove(0));
        IncrementalAlterConfigsRequest::default().with_resources(all.collect())
    };
    let response = ask(&mut node, conn, 1, &resources(&[("t", "0"), ("u", "9"), ("v", "9")]));
    let codes: Vec<_> = response.responses.iter().map(|resource| resource.error_code).collect();
    assert_eq!(codes, [40, 0, 3]);
    assert_eq!(node.engine.metadata.topic("u").unwrap().config.segment_ms, 9);
    let response = ask(&mut node, conn, 1, &resources(&[("t", "9"), ("t", "8")]));
    let codes: Vec<_> = response.responses.iter().map(|resource| resource.error_code).collect();
    assert_eq!(codes, [42, 42]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test keeps a page of the repository fresh")]
fn the_page_of_topic_settings_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/topic-settings.md");
    let made = millstream::kafka::topic_settings_documentation();
    if std::env::var_os("MILLSTREAM_RENEW_DOCS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == made,
        "renew it: MILLSTREAM_RENEW_DOCS=1 cargo test -p millstream --test kafka page_of_topic_settings"
    );
}
