//! Definitions: what a real RabbitMQ has exported comes in, is there, and comes out as it was.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::broker::{Broker, TempDir, run, serve};
use crate::http::Http;

/// What RabbitMQ 3.10 has exported.
const EXPORTED: &str = include_str!("definitions-3.10.json");

/// Definitions by section, in an order of their own; what names the broker is left out.
fn plain(definitions: &Value) -> BTreeMap<String, Vec<String>> {
    let sections = definitions.as_object().unwrap().iter();
    let sections = sections.filter_map(|(name, objects)| Some((name.clone(), objects.as_array()?)));
    sections
        .map(|(name, objects)| {
            let mut objects: Vec<String> = objects.iter().map(Value::to_string).collect();
            objects.sort_unstable();
            (name, objects)
        })
        .collect()
}

fn with_definitions(dir: &TempDir, text: &str) -> std::process::Command {
    let path = dir.path().join("definitions.json");
    fs::write(&path, text).unwrap();
    let mut command = serve(dir);
    command.args(["--shards", "2", "--load-definitions"]).arg(path);
    command
}

#[test]
fn what_rabbitmq_has_exported_comes_out_as_it_went_in() {
    let dir = TempDir::new();
    let exported: Value = serde_json::from_str(EXPORTED).unwrap();
    for start in 0..3 {
        let broker = Broker::start(&mut with_definitions(&dir, EXPORTED));
        let http = Http::new(broker.http, "admin", "secret");
        assert_eq!(plain(&http.value("definitions")), plain(&exported), "start {start}");
        let queue = http.value("queues/shop/work");
        assert_eq!((&queue["policy"], &queue["operator_policy"]), (&json!("ttl"), &json!("cap")));
        assert_eq!(http.value("queues/shop/dead")["type"], "quorum");
        // Passwords were taken over, and so was what users may do.
        assert_eq!(Http::new(broker.http, "admin", "wrong").get("whoami").status, 401);
        assert_eq!(Http::new(broker.http, "watch", "w").get("overview").status, 200);
        assert_eq!(Http::new(broker.http, "worker", "work").get("overview").status, 401);
        let order = json!({"routing_key": "order.new", "payload": "x", "payload_encoding": "string", "properties": {"delivery_mode": 2}});
        assert_eq!(http.post("exchanges/shop/orders/publish", &order).body, json!({"routed": true}));
        assert_eq!(http.value("queues/shop/work")["messages"], json!(start + 1));
        assert_eq!(broker.terminate().code(), Some(0));
    }
}

#[test]
fn definitions_of_one_vhost_go_into_another() {
    let dir = TempDir::new();
    let broker = Broker::start(&mut with_definitions(&dir, EXPORTED));
    let http = Http::new(broker.http, "admin", "secret");
    let shop = http.value("definitions/shop");
    assert!(shop["queues"][0].get("vhost").is_none() && shop.get("users").is_none());
    assert_eq!(http.put("vhosts/other", &json!({})), 201);
    let answer = http.post("definitions/other", &shop);
    assert_eq!(answer.status, 204, "{}", answer.body);
    assert_eq!(plain(&http.value("definitions/other")), plain(&shop));
    assert_eq!(http.post("definitions/none", &shop).status, 404);
}

#[test]
fn what_rabbitmq_4_says_in_addition_is_understood() {
    let dir = TempDir::new();
    let metadata = json!({"description": "d", "tags": ["t"], "default_queue_type": "quorum"});
    let text = json!({
        "rabbit_version": "4.1.0", "rabbitmq_version": "4.1.0", "product_name": "RabbitMQ", "product_version": "4.1.0",
        "rabbitmq_definition_format": "cluster", "original_cluster_name": "rabbit@x", "explanation": "Definitions of cluster 'x'",
        "users": [{"name": "u", "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha512", "tags": [], "limits": {}}],
        "vhosts": [{"name": "/", "description": "d", "tags": ["t"], "default_queue_type": "quorum", "metadata": metadata}],
        "queues": [{"name": "q", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "classic"}}],
        "policies": [{"vhost": "/", "name": "p", "pattern": ".*", "apply-to": "quorum_queues", "definition": {"delivery-limit": 7}, "priority": 0}],
    });
    let broker = Broker::start(&mut with_definitions(&dir, &text.to_string()));
    // There are users in the file, so that nobody was made up.
    assert_eq!(Http::guest(broker.http).get("whoami").status, 401);
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn a_file_that_is_wrong_is_refused_as_a_whole_by_naming_what_is_wrong() {
    let queue = |name: &str, arguments: Value| json!({"name": name, "vhost": "/", "durable": true, "auto_delete": false, "arguments": arguments});
    for (text, named) in [
        ("{".to_owned(), "no JSON object"),
        (json!({"queues": [queue("good", json!({})), queue("bad", json!({"x-max-length": "x"}))]}).to_string(), "queue 'bad' in vhost '/'"),
        (json!({"queues": [queue("good", json!({})), {"name": "lost", "vhost": "none"}]}).to_string(), "queue 'lost' in vhost 'none': there is no vhost 'none'"),
        (json!({"queues": [queue("good", json!({}))], "exchanges": [{"name": "x", "vhost": "/", "type": "zz"}]}).to_string(), "exchange 'x' in vhost '/': unknown exchange type 'zz'"),
        (json!({"queues": [queue("good", json!({}))], "bindings": [{"source": "amq.topic", "vhost": "/", "destination": "none", "destination_type": "queue", "routing_key": "", "arguments": {}}]}).to_string(), "binding from 'amq.topic' to 'none' in vhost '/': there is no queue 'none'"),
        (json!({"queues": [queue("good", json!({}))], "permissions": [{"user": "none", "vhost": "/", "configure": "", "write": "", "read": ""}]}).to_string(), "permission of user 'none' in vhost '/': there is no user 'none'"),
        (json!({"users": [{"name": "u", "password_hash": "AAAA", "hashing_algorithm": "rabbit_password_hashing_md5", "tags": ""}]}).to_string(), "user 'u': passwords hashed by rabbit_password_hashing_md5"),
        (json!({"policies": [{"vhost": "/", "name": "p", "pattern": "(", "definition": {"max-length": 1}}]}).to_string(), "policy 'p': Validation failed"),
    ] {
        let dir = TempDir::new();
        let (code, stdout, stderr) = run(&mut with_definitions(&dir, &text));
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(named), "{named}: {stderr}");
        let broker = Broker::start(&mut serve(&dir));
        assert_eq!(Http::guest(broker.http).value("queues"), json!([]), "nothing of it was made: {named}");
    }
    let dir = TempDir::new();
    let (code, _, stderr) = run(serve(&dir).args(["--load-definitions", "no/such/file"]));
    assert!(code == 1 && stderr.contains("no/such/file"), "{stderr}");
}
