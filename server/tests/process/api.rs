//! RabbitMQ's management API over a real node.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use millstream::limits::HTTP_BODY_BYTES_MAX;
use serde_json::{Value, json};

use crate::broker::{Broker, TempDir, serve};
use crate::http::{Http, read_answer};

fn node(dir: &TempDir) -> (Broker, Http) {
    let broker = Broker::start(serve(dir).args(["--shards", "2"]));
    let http = Http::guest(broker.http);
    (broker, http)
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

/// Looks until it is so.
fn becomes(mut look: impl FnMut() -> Value, wanted: &Value) {
    for _ in 0..1000 {
        if look() == *wanted {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(look(), *wanted);
}

#[test]
fn objects_are_made_listed_and_deleted_and_are_there_after_a_restart() {
    let dir = TempDir::new();
    let (broker, http) = node(&dir);
    assert_eq!(http.put("vhosts/a%2Fb", &json!({"description": "d", "tags": "x,y"})), 201);
    assert_eq!(http.put("vhosts/a%2Fb", &json!({})), 204);
    let durable = json!({"durable": true, "arguments": {"x-max-length": 5}});
    assert_eq!(http.put("queues/a%2Fb/q%25", &durable), 201);
    assert_eq!(http.put("queues/a%2Fb/q%25", &durable), 204);
    assert_eq!(http.put("queues/a%2Fb/q%25", &json!({"durable": true})), 400);
    assert_eq!(http.put("queues/a%2Fb/gone", &json!({})), 201);
    assert_eq!(http.put("exchanges/a%2Fb/x", &json!({"type": "topic", "durable": true})), 201);
    assert_eq!(http.put("exchanges/a%2Fb/x", &json!({"type": "fanout", "durable": true})), 400);
    let bound = http.post("bindings/a%2Fb/e/x/q/q%25", &json!({"routing_key": "k.#", "arguments": {"n": 1}}));
    assert_eq!(bound.status, 201);
    let location = bound.header("location").unwrap().to_owned();
    assert_eq!(http.post("bindings/a%2Fb/e/x/q/none", &json!({})).status, 404);
    assert_eq!(broker.terminate().code(), Some(0));

    let (_broker, http) = node(&dir);
    let vhost = http.value("vhosts/a%2Fb");
    assert_eq!((&vhost["description"], &vhost["tags"]), (&json!("d"), &json!(["x", "y"])));
    assert_eq!(names(&http.value("queues/a%2Fb")), ["q%"], "what is not durable has gone");
    assert_eq!(http.value("queues/a%2Fb/q%25")["arguments"], json!({"x-max-length": 5}));
    let binding = http.value(&format!("bindings/a%2Fb/e/x/q/{location}"));
    assert_eq!((&binding["routing_key"], &binding["arguments"]), (&json!("k.#"), &json!({"n": 1})));
    assert_eq!(http.delete(&format!("bindings/a%2Fb/e/x/q/{location}")), 204);
    assert_eq!(http.delete(&format!("bindings/a%2Fb/e/x/q/{location}")), 404);
    assert_eq!(http.delete("exchanges/a%2Fb/amq.topic"), 401);
    assert_eq!(http.delete("exchanges/a%2Fb/x"), 204);
    assert_eq!(http.delete("queues/a%2Fb/q%25"), 204);
    assert_eq!(http.get("queues/a%2Fb/q%25").status, 404);
    assert_eq!(http.delete("vhosts/a%2Fb"), 204);
    assert_eq!(http.get("queues/a%2Fb").status, 404);
}

#[test]
fn nothing_of_a_vhost_comes_back_with_its_name() {
    let dir = TempDir::new();
    let (_broker, http) = node(&dir);
    for _ in 0..2 {
        assert_eq!(http.put("vhosts/v", &json!({})), 201);
        assert_eq!(names(&http.value("queues/v")), [""; 0]);
        assert_eq!(names(&http.value("policies/v")), [""; 0]);
        for number in 0..10 {
            assert_eq!(http.put(&format!("queues/v/q{number}"), &json!({"durable": true})), 201);
        }
        let policy = json!({"pattern": ".*", "definition": {"max-length": 3}});
        assert_eq!(http.put("policies/v/p", &policy), 201);
        assert_eq!(http.delete("vhosts/v"), 204);
    }
}

#[test]
fn a_message_is_published_and_got_and_goes_back_to_its_place() {
    let dir = TempDir::new();
    let (_broker, http) = node(&dir);
    assert_eq!(http.put("queues/%2F/q", &json!({"durable": true})), 201);
    for payload in ["one", "two"] {
        let message = json!({
            "routing_key": "q", "payload": payload, "payload_encoding": "string",
            "properties": {"delivery_mode": 2, "headers": {"h": [1, "x"]}},
        });
        assert_eq!(http.post("exchanges/%2F/amq.default/publish", &message).body, json!({"routed": true}));
    }
    let get = |ackmode: &str, count: u32| {
        let wanted = json!({"count": count, "ackmode": ackmode, "encoding": "auto"});
        let got = http.post("queues/%2F/q/get", &wanted);
        assert_eq!(got.status, 200, "{}", got.body);
        let of = |one: &Value| (one["payload"].as_str().unwrap().to_owned(), one["redelivered"] == true);
        (got.body.as_array().unwrap().iter().map(of).collect::<Vec<_>>(), got.body)
    };
    let (got, body) = get("ack_requeue_true", 9);
    assert_eq!(got, [("one".to_owned(), false), ("two".to_owned(), false)]);
    assert_eq!(body[0]["properties"], json!({"delivery_mode": 2, "headers": {"h": [1, "x"]}}));
    assert_eq!((&body[0]["message_count"], &body[0]["exchange"]), (&json!(1), &json!("")));
    assert_eq!(get("ack_requeue_true", 1).0, [("one".to_owned(), true)]);
    assert_eq!(http.value("queues/%2F/q")["messages"], json!(2));
    assert_eq!(get("reject_requeue_false", 1).0, [("one".to_owned(), true)]);
    assert_eq!(get("ack_requeue_false", 5).0, [("two".to_owned(), true)]);
    becomes(
        || http.value("queues/%2F/q?columns=messages"),
        &json!({
            "messages": 0,
        }),
    );
    let nowhere =
        json!({"routing_key": "none", "payload": "/w==", "payload_encoding": "base64", "properties": {}});
    assert_eq!(http.post("exchanges/%2F/amq.default/publish", &nowhere).body, json!({"routed": false}));
    assert_eq!(http.post("exchanges/%2F/none/publish", &nowhere).status, 400);
}

#[test]
fn tags_decide_who_may_see_and_do_what() {
    let dir = TempDir::new();
    let (broker, http) = node(&dir);
    assert_eq!(http.put("vhosts/v", &json!({})), 201);
    for (user, tags) in [
        ("admin", "administrator"),
        ("watch", "monitoring"),
        ("policy", "policymaker"),
        ("plain", "management"),
        ("none", ""),
    ] {
        assert_eq!(http.put(&format!("users/{user}"), &json!({"password": user, "tags": tags})), 201);
    }
    for user in ["policy", "plain", "none"] {
        let all = json!({"configure": "^c", "write": ".*", "read": ".*"});
        assert_eq!(http.put(&format!("permissions/v/{user}"), &all), 201);
    }
    let status = |user: &str, method: &str, path: &str, body: &Value| {
        let http = Http::new(broker.http, user, user);
        http.send(method, path, body.to_string().as_bytes()).status
    };
    let policy = json!({"pattern": "^c", "definition": {"max-length": 5}});
    let user = json!({"password": "x", "tags": ""});
    for (method, path, body, allowed) in [
        ("GET", "overview", json!({}), &["admin", "watch", "policy", "plain"][..]),
        ("GET", "nodes", json!({}), &["admin", "watch"]),
        ("GET", "queues/v", json!({}), &["admin", "watch", "policy", "plain"]),
        ("GET", "queues/%2F", json!({}), &["admin", "watch"]),
        ("PUT", "queues/v/c1", json!({}), &["policy", "plain"]),
        ("PUT", "queues/v/d1", json!({}), &[]),
        ("PUT", "policies/v/p", policy.clone(), &["policy"]),
        ("PUT", "operator-policies/v/p", policy, &[]),
        ("PUT", "users/new", user, &["admin"]),
        ("GET", "users", json!({}), &["admin"]),
        ("GET", "definitions", json!({}), &["admin"]),
        ("GET", "permissions", json!({}), &["admin"]),
        ("PUT", "vhosts/w", json!({}), &["admin"]),
    ] {
        for user in ["admin", "watch", "policy", "plain", "none"] {
            let done = status(user, method, path, &body);
            assert_eq!(done < 300, allowed.contains(&user), "{user} {method} {path}: {done}");
            assert!(done < 300 || done == 401, "{user} {method} {path}: {done}");
        }
    }
    let plain = Http::new(broker.http, "plain", "plain");
    assert_eq!(names(&plain.value("vhosts")), ["v"]);
    assert_eq!(plain.value("whoami"), json!({"name": "plain", "tags": ["management"]}));
    let wrong = Http::new(broker.http, "plain", "wrong").get("whoami");
    assert_eq!(wrong.status, 401);
    assert_eq!(wrong.header("www-authenticate"), Some("Basic realm=\"RabbitMQ Management\""));
    assert_eq!(http.delete("users/plain"), 204);
    assert_eq!(plain.get("whoami").status, 401, "a user who is deleted is out at once");
}

#[test]
fn what_passes_messages_on_needs_the_right_to_read_it_and_to_write_where_they_go() {
    let dir = TempDir::new();
    let (broker, http) = node(&dir);
    assert_eq!(http.put("users/worker", &json!({"password": "worker", "tags": "management"})), 201);
    let rights = json!({"configure": ".*", "write": "^m", "read": "^m"});
    assert_eq!(http.put("permissions/%2F/worker", &rights), 201);
    let worker = Http::new(broker.http, "worker", "worker");
    let exchange = |to: &str| json!({"arguments": {"alternate-exchange": to}});
    let queue = |to: &str| json!({"arguments": {"x-dead-letter-exchange": to}});
    for (path, body) in [
        ("exchanges/%2F/a", exchange("m")),
        ("exchanges/%2F/m", exchange("a")),
        ("queues/%2F/a", queue("m")),
        ("queues/%2F/m", queue("a")),
    ] {
        assert_eq!(worker.put(path, &body), 401, "{path} {body}");
    }
    assert_eq!(worker.put("exchanges/%2F/m", &exchange("m.other")), 201);
    assert_eq!(worker.put("queues/%2F/m", &queue("m")), 201);
    let made = http.value("exchanges/%2F/m");
    assert_eq!(made["type"], json!("direct"), "as with RabbitMQ, if nothing is said");
}

#[test]
fn a_policy_holds_at_once_for_queues_that_are_there() {
    let dir = TempDir::new();
    let (_broker, http) = node(&dir);
    for queue in ["a1", "a2", "b1"] {
        assert_eq!(http.put(&format!("queues/%2F/{queue}"), &json!({"durable": true})), 201);
    }
    let publish = |key: &str| {
        let message =
            json!({"routing_key": key, "payload": "x", "payload_encoding": "string", "properties": {}});
        assert_eq!(http.post("exchanges/%2F/amq.default/publish", &message).body, json!({"routed": true}));
    };
    let ready = |queue: &str| http.value(&format!("queues/%2F/{queue}"))["messages"].clone();
    (0..9).for_each(|_| publish("a1"));
    (0..9).for_each(|_| publish("b1"));
    assert_eq!(http.put("policies/%2F/p", &json!({"pattern": "^a", "definition": {"max-length": 5}})), 201);
    becomes(|| ready("a1"), &json!(5));
    assert_eq!(
        http.put("operator-policies/%2F/o", &json!({"pattern": "1$", "definition": {"max-length": 3}})),
        201
    );
    becomes(|| ready("a1"), &json!(3));
    becomes(|| ready("b1"), &json!(3));
    let queue = http.value("queues/%2F/a1");
    let held = (&queue["policy"], &queue["operator_policy"], &queue["effective_policy_definition"]);
    assert_eq!(held, (&json!("p"), &json!("o"), &json!({"max-length": 3})));
    assert_eq!(http.delete("policies/%2F/p"), 204);
    assert_eq!(http.delete("operator-policies/%2F/o"), 204);
    becomes(|| http.value("queues/%2F/a1")["effective_policy_definition"].clone(), &json!({}));
    becomes(
        || {
            publish("a1");
            json!(ready("a1").as_u64() > Some(6))
        },
        &json!(true),
    );
    for wrong in [
        json!({"pattern": "(", "definition": {"max-length": 5}}),
        json!({"pattern": "a", "definition": {}}),
        json!({"pattern": "a", "definition": {"nope": 5}}),
        json!({"pattern": "a", "definition": {"max-length": "x"}}),
        json!({"definition": {"max-length": 5}}),
        json!({"pattern": "a", "definition": {"max-length": 5}, "apply-to": "x"}),
    ] {
        assert_eq!(http.put("policies/%2F/w", &wrong), 400, "{wrong}");
    }
}

#[test]
fn many_queues_are_listed_in_pages() {
    let dir = TempDir::new();
    let (_broker, http) = node(&dir);
    let queues: Vec<Value> = (0..2_500)
        .map(|number| json!({"name": format!("q{number:04}"), "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}))
        .collect();
    let answer = http.post("definitions", &json!({"queues": queues}));
    assert_eq!(answer.status, 204, "{}", answer.body);
    assert_eq!(http.value("queues?columns=name").as_array().unwrap().len(), 2_500);
    let page = http.value("queues?page=5&page_size=500&columns=name,messages");
    assert_eq!((&page["total_count"], &page["page_count"]), (&json!(2500), &json!(5)));
    assert_eq!(page["items"][499], json!({"name": "q2499", "messages": 0}));
    let found = http.value("queues?page=1&page_size=10&name=q00&sort=name&sort_reverse=true&columns=name");
    assert_eq!((&found["filtered_count"], &found["items"][0]), (&json!(100), &json!({"name": "q0099"})));
    assert_eq!(http.value("overview")["object_totals"]["queues"], json!(2500));
}

#[test]
fn limits_are_set_listed_exported_and_taken_back() {
    let dir = TempDir::new();
    let (broker, http) = node(&dir);
    assert_eq!(http.put("users/u", &json!({"password": "p", "tags": "management"})), 201);
    for (path, value, status) in [
        ("vhost-limits/%2F/max-queues", json!(1), 204),
        ("vhost-limits/%2F/max-connections", json!(-1), 204),
        ("vhost-limits/%2F/max-channels", json!(1), 400),
        ("vhost-limits/%2F/max-queues", json!("x"), 400),
        ("vhost-limits/none/max-queues", json!(1), 404),
        ("user-limits/u/max-channels", json!(5), 204),
        ("user-limits/u/max-queues", json!(5), 400),
        ("user-limits/none/max-channels", json!(5), 400),
    ] {
        assert_eq!(http.put(path, &json!({ "value": value })), status, "{path}");
    }
    let of_vhost = json!({"max-queues": 1, "max-connections": -1});
    assert_eq!(http.value("vhost-limits"), json!([{"vhost": "/", "value": of_vhost}]));
    assert_eq!(http.value("user-limits/u"), json!([{"user": "u", "value": {"max-channels": 5}}]));
    assert_eq!(http.put("queues/%2F/a", &json!({})), 201);
    let refused = http.send("PUT", "queues/%2F/b", b"{}");
    let reason = "cannot declare queue 'b': queue limit in vhost '/' (1) is reached";
    assert_eq!((refused.status, &refused.body["reason"]), (400, &json!(reason)));
    assert_eq!(http.delete("queues/%2F/a"), 204);
    assert_eq!(http.put("queues/%2F/b", &json!({})), 201);
    // They come with the definitions, and with the restart.
    let definitions = http.value("definitions");
    assert_eq!(broker.terminate().code(), Some(0));
    let (_broker, http) = node(&dir);
    assert_eq!(http.value("definitions")["users"], definitions["users"]);
    let other = TempDir::new();
    let (_other, there) = node(&other);
    assert_eq!(there.post("definitions", &definitions).status, 204);
    assert_eq!(there.value("users/u")["limits"], json!({"max-channels": 5}));
    assert_eq!(there.value("vhost-limits"), json!([{"vhost": "/", "value": of_vhost}]));
    // What is taken back, or goes with its user, is no limit.
    for path in
        ["vhost-limits/%2F/max-queues", "vhost-limits/%2F/max-queues", "vhost-limits/%2F/max-connections"]
    {
        assert_eq!(there.delete(path), 204);
    }
    assert_eq!(there.value("vhost-limits"), json!([]));
    assert_eq!(there.delete("users/u"), 204);
    assert_eq!(there.put("users/u", &json!({"password": "p", "tags": ""})), 201);
    assert_eq!(there.value("user-limits"), json!([]));
}

#[test]
fn what_happens_is_counted_and_has_rates_and_a_history() {
    let dir = TempDir::new();
    let (_broker, http) = node(&dir);
    assert_eq!(http.put("queues/%2F/q", &json!({})), 201);
    let queue = http.value("queues/%2F/q");
    assert!(queue.get("message_stats").is_none(), "nothing has happened");
    assert_eq!(queue["messages_details"], json!({"rate": 0.0}));
    let message = json!({"routing_key": "q", "payload": "m", "payload_encoding": "string", "properties": {}});
    for _ in 0..3 {
        assert_eq!(http.post("exchanges/%2F/amq.default/publish", &message).body, json!({"routed": true}));
    }
    let wanted = json!({"count": 9, "ackmode": "ack_requeue_false", "encoding": "auto"});
    assert_eq!(http.post("queues/%2F/q/get", &wanted).body.as_array().unwrap().len(), 3);
    let path = "queues/%2F/q?msg_rates_age=60&msg_rates_incr=5&lengths_age=60&lengths_incr=5";
    let stats = &http.value(path)["message_stats"];
    assert_eq!((&stats["publish"], &stats["deliver_get"]), (&json!(3), &json!(3)), "{stats}");
    let history = &stats["publish_details"];
    assert_eq!(history["samples"].as_array().unwrap().len(), 13);
    assert!(history["rate"].is_f64() && history["avg"].is_f64() && history["avg_rate"].is_f64(), "{history}");
    // It is looked at again, without anybody asking.
    becomes(
        || {
            let samples = &http.value(path)["message_stats"]["publish_details"]["samples"];
            json!(samples[0]["sample"].as_u64() > samples[12]["sample"].as_u64())
        },
        &json!(true),
    );
    // Version 2 of rabbitmqadmin does not do without it.
    assert_eq!(http.value("nodes")[0]["being_drained"], json!(false));
    let overview = http.value("overview?msg_rates_age=10&msg_rates_incr=5");
    assert_eq!(overview["rates_mode"], json!("basic"));
    assert!(overview["churn_rates"]["connection_created_details"]["rate"].is_f64(), "{overview}");
}

#[test]
fn requests_that_make_no_sense_get_a_clear_answer_and_hurt_nobody() {
    let dir = TempDir::new();
    let (_broker, http) = node(&dir);
    let status = |method: &str, path: &str, body: &[u8]| http.send(method, path, body).status;
    let nested = format!("{{\"arguments\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("{{\"arguments\":{}1{}}}", "{\"a\":".repeat(100), "}".repeat(100));
    for (method, path, body, expected) in [
        ("PUT", "queues/%2F/q", &b"{"[..], 400),
        ("PUT", "queues/%2F/q", b"[]", 400),
        ("PUT", "queues/%2F/q", b"\xFF", 400),
        ("PUT", "queues/%2F/q", nested.as_bytes(), 400),
        ("PUT", "queues/%2F/q", deep.as_bytes(), 400),
        ("PUT", "queues/%2F/q", br#"{"durable":"maybe"}"#, 400),
        ("PUT", "queues/%2F/q", br#"{"durable":1}"#, 400),
        ("PUT", "queues/%2F/q", br#"{"arguments":"x"}"#, 400),
        ("PUT", "queues/%2F/q", br#"{"arguments":{"x-max-length":-1}}"#, 400),
        ("PUT", "queues/%2F/q", br#"{"arguments":{"x-max-length":1e300}}"#, 400),
        ("PUT", "queues/none/q", b"{}", 404),
        ("PUT", "exchanges/%2F/x", br#"{"type":"none"}"#, 400),
        ("PUT", "exchanges/%2F/x", br#"{"type":[]}"#, 400),
        ("PUT", "exchanges/%2F/amq.default", br#"{"type":"direct"}"#, 401),
        ("PUT", "users/u", br#"{"password":1,"tags":""}"#, 400),
        ("PUT", "users/u", br#"{"password":"x","tags":{}}"#, 400),
        ("PUT", "users/u", br#"{"password_hash":"!","tags":""}"#, 400),
        ("PUT", "users/u", br#"{"password_hash":"AAAA","tags":""}"#, 400),
        ("PUT", "permissions/%2F/none", br#"{"configure":"","write":"","read":""}"#, 400),
        ("PUT", "permissions/%2F/guest", br#"{"configure":"(","write":"","read":""}"#, 400),
        (
            "POST",
            "queues/%2F/none/get",
            br#"{"count":1,"ackmode":"ack_requeue_true","encoding":"auto"}"#,
            404,
        ),
        ("POST", "exchanges/%2F/amq.default/publish", br#"{"routing_key":1}"#, 400),
        ("POST", "definitions", b"x", 400),
        ("POST", "definitions", br#"{"queues":{}}"#, 400),
        ("POST", "definitions", br#"{"queues":[1]}"#, 400),
        ("GET", "nope", b"", 404),
        ("GET", "queues/%2F/none", b"", 404),
        ("GET", "queues?page=0", b"", 400),
        ("PATCH", "queues", b"", 405),
        ("POST", "overview", b"{}", 405),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(status(method, path, body), expected, "{method} {path} {shown}");
    }
    let long = format!("queues/%2F/{}", "q".repeat(256));
    assert_eq!(status("PUT", &long, b"{}"), 400);
    assert_eq!(http.value("queues"), json!([]));
}

#[test]
fn a_body_that_is_too_large_is_refused_and_nobody_has_to_wait_for_one_that_does_not_come() {
    let dir = TempDir::new();
    let (_broker, http) = node(&dir);
    let head =
        format!("{}Content-Length: {}\r\n\r\n", http.head("PUT", "queues/%2F/q"), HTTP_BODY_BYTES_MAX + 1);
    let large = [head.into_bytes(), vec![b' '; HTTP_BODY_BYTES_MAX + 1]].concat();
    assert_eq!(http.raw(&large).status, 413);
    let chunked = format!(
        "{}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
        http.head("PUT", "queues/%2F/chunked")
    );
    assert_eq!(http.raw(chunked.as_bytes()).status, 201);
    // Whoever does not say who they are is not waited for at all.
    let stranger = Http { authorization: "Basic !".to_owned(), ..http.clone() };
    let waits = format!("{}Content-Length: 1000000\r\n\r\n", stranger.head("PUT", "queues/%2F/q"));
    assert_eq!(stranger.raw(waits.as_bytes()).status, 401);
    // Some never send what they have promised. Others are served meanwhile.
    let silent: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut socket = TcpStream::connect(http.address).unwrap();
            let head = format!("{}Content-Length: 10\r\n\r\n", http.head("PUT", "queues/%2F/q"));
            socket.write_all(head.as_bytes()).unwrap();
            socket
        })
        .collect();
    assert_eq!(http.put("queues/%2F/served", &json!({})), 201);
    drop(silent);
}

#[test]
fn a_connection_serves_several_requests() {
    let dir = TempDir::new();
    let (_broker, http) = node(&dir);
    let mut socket = TcpStream::connect(http.address).unwrap();
    for number in 0..3 {
        let body = b"{}";
        let head = format!("{}Content-Length: 2\r\n\r\n", http.head("PUT", &format!("queues/%2F/q{number}")));
        socket.write_all(&[head.as_bytes(), body].concat()).unwrap();
        assert_eq!(read_answer(&mut socket).status, 201);
        socket.write_all(format!("{}\r\n", http.head("GET", "whoami")).as_bytes()).unwrap();
        assert_eq!(read_answer(&mut socket).body["name"], "guest");
    }
}
