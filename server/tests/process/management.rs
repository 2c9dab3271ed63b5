//! Health and metrics over HTTP, as an operator's tools see them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;
use std::{env, fs};

use millstream::limits::HTTP_CONNECTIONS_MAX;
use millstream::metrics::documentation;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::limits::READ_CHUNK_BYTES;

use crate::broker::{Broker, TempDir, serve, serve_at};
use crate::client::Client;
use crate::exposition::{Scrape, parse};

const PATIENCE: Duration = Duration::from_secs(30);

struct Answer {
    status: u16,
    content_type: String,
    body: String,
}

/// Asks, and reads the answer until the connection ends.
fn ask(http: SocketAddr, request: &str) -> io::Result<Answer> {
    let mut socket = TcpStream::connect(http)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(request.as_bytes())?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let header = |name: &str| {
        let found = head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        });
        found.unwrap_or_default()
    };
    assert_eq!(header("content-length"), body.len().to_string());
    Ok(Answer { status: status.unwrap(), content_type: header("content-type"), body: body.to_owned() })
}

fn get(http: SocketAddr, path: &str) -> Answer {
    ask(http, &format!("GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")).unwrap()
}

fn scrape(http: SocketAddr) -> Scrape {
    let Answer { status, content_type, body } = get(http, "/metrics");
    assert_eq!((status, content_type.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    parse(&body)
}

fn batch(records: usize, bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1_700_000_000_000);
    for _ in 0..records {
        builder.push(None, Some(&vec![7; bytes]));
    }
    builder.build()
}

#[test]
fn counters_move_by_exactly_what_was_sent() {
    const PRODUCE: &str = r#"api="Produce""#;
    let dir = TempDir::new();
    let config = dir.config("num.partitions = 4\n");
    let broker = Broker::start(serve(&dir).arg("--config").arg(config).args(["--shards", "2"]));
    let mut client = Client::connect(broker.address);
    assert_eq!(client.create("t"), 4);
    let before = scrape(broker.http);
    let sent_before = client.sent;
    let batches: Vec<_> =
        (0..40).map(|number| (batch(1 + number % 3, 100 * number), number as i32 % 4)).collect();
    for (batch, partition) in &batches {
        client.send_batch(-1, "t", *partition, batch).unwrap();
        client.acknowledged().unwrap();
    }
    let after = scrape(broker.http);
    let moved = |name: &str, labels: &[&str]| (after.sum(name, labels) - before.sum(name, labels)) as u64;
    let records: usize = (0..40).map(|number| 1 + number % 3).sum();
    let bytes: usize = batches.iter().map(|(batch, _)| batch.len()).sum();
    assert_eq!(moved("millstream_append_batches_total", &[]), 40);
    assert_eq!(moved("millstream_append_records_total", &[]), records as u64);
    assert_eq!(moved("millstream_append_bytes_total", &[]), bytes as u64);
    assert_eq!(moved("millstream_kafka_requests_total", &[PRODUCE]), 40);
    assert_eq!(moved("millstream_kafka_request_seconds_count", &[PRODUCE]), 40);
    assert_eq!(moved("millstream_kafka_errors_total", &[PRODUCE]), 0);
    assert_eq!(moved("millstream_received_bytes_total", &[]), client.sent - sent_before);
    assert_eq!(after.sum("millstream_connections", &[]) as u64, 1);
    // Each batch was waited for, so that each had a group of its own.
    assert_eq!(moved("millstream_group_bytes_count", &[]), 40);
    assert_eq!(moved("millstream_group_batches_sum", &[]), 40);
    assert_eq!(moved("millstream_flush_seconds_count", &[]), 40);
    assert_eq!(moved("millstream_group_wait_seconds_count", &[]), 40);
    for shard in [r#"shard="0""#, r#"shard="1""#] {
        assert!(moved("millstream_append_records_total", &[shard]) > 0, "{shard} has two partitions");
        assert!(moved("millstream_turns_total", &[shard]) > 0);
        assert!(after.sum("millstream_mailbox_messages_count", &[shard]) > 0.0);
        assert!(after.sum("millstream_busy_seconds_total", &[shard]) > 0.0);
        assert!(after.sum("millstream_turn_longest_seconds", &[shard]) > 0.0);
    }
    // Of the messages from shard to shard some are sampled, the first among them.
    assert!(after.sum("millstream_mailbox_wait_seconds_count", &[]) > 0.0);
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn what_is_fetched_and_what_fails_is_counted() {
    const FETCH: &str = r#"api="Fetch""#;
    let dir = TempDir::new();
    let broker = Broker::start(serve(&dir).args(["--shards", "1"]));
    let mut client = Client::connect(broker.address);
    client.create("t");
    let batch = batch(3, 1000);
    for _ in 0..300 {
        client.send_batch(-1, "t", 0, &batch).unwrap();
        client.acknowledged().unwrap();
    }
    let (before, received_before) = (scrape(broker.http), client.received);
    client.send_fetch("t", 0, 0, 0);
    // More than one chunk, so that what follows the first is loaded while it is sent.
    assert_eq!(client.fetched().1.len(), 300 * batch.len());
    assert!(300 * batch.len() > 2 * READ_CHUNK_BYTES);
    client.send_batch(-1, "no-such-topic", 0, &batch).unwrap();
    assert_eq!(client.refused(), 3);
    let after = scrape(broker.http);
    let moved = |name: &str, labels: &[&str]| (after.sum(name, labels) - before.sum(name, labels)) as u64;
    assert_eq!(moved("millstream_read_bytes_total", &[]), 300 * batch.len() as u64);
    assert_eq!(moved("millstream_fetch_records_total", &[]), 900);
    assert_eq!(moved("millstream_kafka_requests_total", &[FETCH]), 1);
    assert_eq!(moved("millstream_kafka_errors_total", &[FETCH]), 0);
    assert_eq!(moved("millstream_kafka_errors_total", &[r#"api="Produce""#]), 1);
    assert_eq!(moved("millstream_sent_bytes_total", &[]), client.received - received_before);
}

#[test]
fn the_process_is_described() {
    let dir = TempDir::new();
    let broker = Broker::start(&mut serve(&dir));
    let scrape = scrape(broker.http);
    let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), '"');
    assert!(scrape.sum("millstream_build_info", &[version]) > 0.0);
    assert!(scrape.value("process_resident_memory_bytes") > 1e6);
    assert!(scrape.value("process_open_fds") > 3.0);
    assert!(scrape.value("process_start_time_seconds") > 1.7e9);
    assert!(scrape.sum("millstream_memory_limit_bytes", &[r#"pool="tail""#]) > 1e6);
    assert!(scrape.sum("millstream_journal_files", &[]) >= 2.0);
}

#[test]
fn a_node_that_serves_is_live_and_ready_and_other_paths_are_not_there() {
    let dir = TempDir::new();
    let broker = Broker::start(serve(&dir).args(["--shards", "2"]));
    let check = |path, status, body| {
        let answer = get(broker.http, path);
        let seen = (answer.status, answer.content_type.as_str(), answer.body.as_str());
        assert_eq!(seen, (status, "application/json", body), "{path}");
    };
    check("/health/ready", 200, r#"{"status":"ready"}"#);
    check(
        "/health/live",
        200,
        r#"{"status":"live","shards":[{"shard":0,"live":true},{"shard":1,"live":true}]}"#,
    );
    check("/health", 404, r#"{"error":"there is nothing under this path"}"#);
    let post = "POST /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(broker.http, post).unwrap().status, 405);
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn a_request_without_an_end_is_refused_and_hurts_nobody() {
    let dir = TempDir::new();
    let broker = Broker::start(&mut serve(&dir));
    let endless = format!("GET /metrics HTTP/1.1\r\nLong: {}", "x".repeat(64 << 10));
    // It is hung up on while it still sends, so that the answer may be lost on the way.
    if let Ok(answer) = ask(broker.http, &endless) {
        assert_eq!(answer.status, 431);
    }
    assert_eq!(get(broker.http, "/health/ready").status, 200);
}

#[test]
fn more_connections_than_there_may_be_are_turned_away() {
    let dir = TempDir::new();
    let broker = Broker::start(&mut serve(&dir));
    let mut silent: Vec<_> =
        (0..HTTP_CONNECTIONS_MAX).map(|_| TcpStream::connect(broker.http).unwrap()).collect();
    let mut more = TcpStream::connect(broker.http).unwrap();
    more.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(more.read(&mut [0]).unwrap(), 0, "it is closed");
    silent.clear();
    let path = "GET /health/live HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
    let answered = (0..1000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        ask(broker.http, path).is_ok_and(|answer| answer.status == 200)
    });
    assert!(answered, "there is room again");
}

#[test]
fn a_node_that_stops_is_not_ready() {
    let dir = TempDir::new();
    let broker = Broker::start(serve(&dir).args(["--shards", "1"]));
    let mut client = Client::connect(broker.address);
    client.create("t");
    client.send_batch(-1, "t", 0, &batch(1, 1_000_000)).unwrap();
    client.acknowledged().unwrap();
    // Answers that nobody reads keep the connection open, and the node waits for it for a while.
    let mut slow = Client::connect(broker.address);
    for _ in 0..100 {
        slow.send_fetch("t", 0, 0, 0);
    }
    assert_eq!(get(broker.http, "/health/ready").status, 200);
    broker.ask_to_stop();
    let stopping = (0..3000).any(|_| {
        let answer = get(broker.http, "/health/ready");
        if answer.status == 503 {
            assert_eq!(answer.body, r#"{"status":"not ready","reasons":["the node is stopping"]}"#);
            assert_eq!(get(broker.http, "/health/live").status, 200);
        }
        answer.status == 503
    });
    assert!(stopping);
    drop(slow);
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn listening_beyond_the_machine_is_warned_of_and_the_loopback_is_not() {
    let dir = TempDir::new();
    let log = dir.path().join("log");
    let warned = |kafka: &str, http: &str| {
        let mut command = serve_at(&dir, kafka, http);
        let broker = Broker::start_with_log(&mut command, fs::File::create(&log).unwrap());
        assert_eq!(broker.terminate().code(), Some(0));
        let log = fs::read_to_string(&log).unwrap();
        ["kafka.listen", "http.listen"]
            .map(|listener| log.lines().any(|line| line.contains("WARN") && line.contains(listener)))
    };
    assert_eq!(warned("127.0.0.1:0", "[::1]:0"), [false, false]);
    assert_eq!(warned("0.0.0.0:0", "127.0.0.1:0"), [true, false]);
    assert_eq!(warned("127.0.0.1:0", "0.0.0.0:0"), [false, true]);
}

#[test]
fn the_page_of_metrics_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    if env::var_os("MILLSTREAM_RENEW_DOCS").is_some() {
        fs::write(path, documentation()).unwrap();
    }
    let page = fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == documentation(),
        "renew it: MILLSTREAM_RENEW_DOCS=1 cargo test -p millstream --test process page_of_metrics"
    );
}
