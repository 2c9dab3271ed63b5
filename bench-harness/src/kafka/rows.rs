//! The benchmarks of the protocol: one table, from which `millbench kafka` runs, lists and reports.

use std::thread::sleep;
use std::time::Duration;

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::types::ShardId;

use super::case::{CPU_PER_RECORD, CommitCase, FetchCase, ProduceCase};
use super::client::Client;
use super::join::{JoinCase, UNTIL_ALL};
use super::server::Server;
use super::wire;
use crate::engine::case::{Batch, CPU_PER_GB, CPU_PER_OPERATION, LoadCase, RATE, SinkCase};
use crate::engine::load::{Pace, Serve, Until};
use crate::engine::node::{ANY_PORT, Spec};
use crate::engine::{Bench, Benchmark, fill};
use crate::measure::{Case, Measured, Of, Problem};
use crate::raw;
use crate::results::{Bar, Row, rows};

/// Every benchmark.
pub const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "produce",
        what: "produce through the socket / embedded append, durable, MB/s",
        bar: Bar::Reported,
        how: "64 KiB batches of 1 KiB records to one partition, 4 in flight, acks=all, one connection; the embedded engine takes the same batches, in turns",
        run: produce,
    },
    Benchmark {
        name: "fetch",
        what: "fetch from the tail through the socket / embedded read into a socket, MB/s",
        bar: Bar::Reported,
        how: "one connection, 1 MiB per fetch, one fetch in flight, of 64 MiB of the same batches; the engine reads ahead by one chunk and hears no requests",
        run: fetch,
    },
    Benchmark {
        name: "small",
        what: "produce of one 100 B record through the socket / embedded append of it, durable, p50",
        bar: Bar::Reported,
        how: "one partition, one request in flight, acks=all",
        run: small,
    },
    Benchmark {
        name: "connections",
        what: "resident memory per idle connection",
        bar: Bar::Reported,
        how: "of 10,000, or as many as the descriptors' limit allows; each has asked for ApiVersions once; the kernel's part of a socket is not in it",
        run: connections,
    },
    Benchmark {
        name: "join",
        what: "1,000 members join a group, durable, until the last one has its part",
        bar: Bar::Reported,
        how: "a connection each, opened before; group.initial.rebalance.delay.ms=0, JoinGroup 5 (an id first), SyncGroup, heartbeats each 3 s; the group is durable before it is told",
        run: join,
    },
    Benchmark {
        name: "commits",
        what: "offset commits per second, durable",
        bar: Bar::Reported,
        how: "100 connections with a group each, one commit of one partition in flight on each",
        run: commits,
    },
];

const MB_S: Of = Of::Figure("MB/s");
/// Records of a batch: 1 KiB each, as near as their own overhead lets 64 KiB come.
const RECORDS: usize = 63;
/// What a batch of one record with a value of 100 bytes takes.
const SMALL_BYTES: usize = 170;
/// What is fetched: all of it fits into the tail.
const TAIL_BYTES: u64 = 64 << 20;
/// Requests under way where throughput is measured.
const DEPTH: usize = 4;
/// Connections that idle; and descriptors that either side needs besides.
const IDLE_CONNECTIONS: u64 = 10_000;
const DESCRIPTORS_SPARE: u64 = 256;
/// What a change of memory takes to come to rest.
const REST: Duration = Duration::from_secs(1);
const MEMBERS: usize = 1_000;
const COMMITTERS: usize = 100;

fn batch() -> Batch {
    Batch::of(RECORDS, 64 << 10)
}

/// A broker in a child, with a topic `t` of one partition.
fn server(bench: &Bench) -> Result<Server, Problem> {
    let server = Server::start(&bench.fresh_dir())?;
    Client::connect(server.address)?.ask(&wire::create_topic("t", 1), wire::created)?;
    Ok(server)
}

/// What a node takes to go around its journal, after which it takes no new memory from the system.
fn around() -> u64 {
    Config::default().journal_bytes * 3 / 2
}

/// What a record costs the engine, and what the broker takes on top of that, turn by turn.
fn per_record(what: &str, broker: &Measured, engine: &[f64], on_top: &str) -> [Row; 2] {
    let broker = broker.series(Of::Figure(CPU_PER_RECORD));
    let more: Vec<f64> = broker.iter().zip(engine).map(|(broker, engine)| broker - engine).collect();
    [("the engine's part", engine), (on_top, &more)].map(|(part, series)| {
        Row::figure(format!("CPU per 1 KiB record {what}, {part}"), "us", series, Bar::Reported)
    })
}

/// Everything measured, and the benchmark's ratio of the first case to the second.
fn with_ratio(benchmark: &Benchmark, measured: &[Measured; 2], of: Of) -> Vec<Row> {
    let mut rows = rows(measured);
    rows.push(Row::ratio(benchmark.what, &measured[0].series(of), &measured[1].series(of), benchmark.bar));
    rows
}

fn produce(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let batch = batch();
    let (host, server) = (bench.host(Spec::default())?, server(bench)?);
    host.create("t", 1, TopicConfig::default())?;
    fill(&host, 1, around())?;
    let socket = ProduceCase {
        name: "broker, produce 64 KiB batches of 1 KiB records, acks=all",
        server: &server,
        batch: &batch,
        depth: DEPTH,
    };
    socket.fill(around())?;
    let engine = LoadCase::one("engine, durable append of the same batches", &host, |span| {
        batch.append("t", 1, Pace::Closed(DEPTH), Until::Span(span))
    });
    let measured = bench.measure([Box::new(socket), Box::new(engine)], bench.span)?;
    let mut rows = with_ratio(benchmark, &measured, MB_S);
    let engine = measured[1].series(Of::Figure(CPU_PER_OPERATION));
    let engine: Vec<f64> = engine.iter().map(|us| us / RECORDS as f64).collect();
    rows.extend(per_record(
        "produced, acks=all",
        &measured[0],
        &engine,
        "the socket's and the protocol's part",
    ));
    Ok(rows)
}

fn fetch(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let batch = batch();
    let stored = batch.stored();
    let (host, server) = (bench.host(Spec { listen: Some(ANY_PORT), ..Spec::default() })?, server(bench)?);
    host.create("t", 1, TopicConfig::default())?;
    let load = batch.append("t", 1, Pace::Closed(32), Until::Bytes(TAIL_BYTES));
    host.run(vec![(ShardId(0), vec![load])])?;
    host.serve(Serve { topic: "t".to_owned(), stored })?;
    ProduceCase { name: "", server: &server, batch: &batch, depth: DEPTH }.fill(TAIL_BYTES)?;
    let batches = TAIL_BYTES / stored.batch_bytes;
    let mut socket =
        FetchCase { name: "broker, fetch 1 MiB from the tail", server: &server, batch: &batch, batches };
    let mut engine = SinkCase { name: "engine, tail read into a socket", host: &host };
    // Once around, so that what can be warm is warm.
    socket.run(bench.span)?;
    engine.run(bench.span)?;
    let measured = bench.measure([Box::new(socket), Box::new(engine)], bench.span)?;
    let mut rows = with_ratio(benchmark, &measured, MB_S);
    let records_per_gb = 1e9 / stored.batch_bytes as f64 * RECORDS as f64;
    let engine = measured[1].series(Of::Figure(CPU_PER_GB));
    let engine: Vec<f64> = engine.iter().map(|ms| ms * 1e3 / records_per_gb).collect();
    rows.extend(per_record("fetched", &measured[0], &engine, "the protocol's part"));
    Ok(rows)
}

fn small(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let batch = Batch::of(1, SMALL_BYTES);
    let (host, server) = (bench.host(Spec::default())?, server(bench)?);
    host.create("t", 1, TopicConfig::default())?;
    let socket = ProduceCase {
        name: "broker, produce one 100 B record, acks=all",
        server: &server,
        batch: &batch,
        depth: 1,
    };
    let engine = LoadCase::one("engine, durable append of one 100 B record", &host, |span| {
        batch.append("t", 1, Pace::Closed(1), Until::Span(span))
    });
    let measured = bench.measure([Box::new(socket), Box::new(engine)], bench.span)?;
    Ok(with_ratio(benchmark, &measured, Of::Percentile(50.0)))
}

fn connections(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let allowed = raw::raise_descriptors()?.saturating_sub(DESCRIPTORS_SPARE);
    let count = IDLE_CONNECTIONS.min(allowed);
    let mut figures: [Vec<f64>; 4] = Default::default();
    for _ in 0..bench.turns {
        let server = Server::start(&bench.fresh_dir())?;
        sleep(REST);
        let (rss, files) = (server.rss_kib()?, server.descriptors()?);
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = Client::connect(server.address)?;
            client.ask(&wire::api_versions(), wire::first_error)?;
            clients.push(client);
        }
        sleep(REST);
        let (rss_full, files_full) = (server.rss_kib()?, server.descriptors()?);
        let per = count as f64;
        let new = [rss / 1024.0, files, (files_full - files) / per, (rss_full - rss) / per];
        for (series, figure) in figures.iter_mut().zip(new) {
            series.push(figure);
        }
    }
    let [rss, files, files_per, rss_per] = figures;
    let of = |what: &str| format!("{what}, of {count}");
    Ok(vec![
        Row::figure("resident memory of the broker, no connection", "MiB", &rss, Bar::Reported),
        Row::figure("descriptors of the broker, no connection", "count", &files, Bar::Reported),
        Row::figure(of("descriptors per idle connection"), "count", &files_per, Bar::Reported),
        Row::figure(of(benchmark.what), "KiB", &rss_per, benchmark.bar),
    ])
}

fn join(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let server = server(bench)?;
    let case = JoinCase { server: &server, members: MEMBERS, groups: 0 };
    let measured = bench.measure([Box::new(case)], bench.span)?;
    let mut rows = rows(&measured);
    let series = measured[0].series(Of::Figure(UNTIL_ALL));
    rows.push(Row::figure(benchmark.what, UNTIL_ALL, &series, benchmark.bar));
    Ok(rows)
}

fn commits(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let server = server(bench)?;
    let case = CommitCase {
        name: "broker, offset commits on 100 connections, durable",
        server: &server,
        connections: COMMITTERS,
    };
    let measured = bench.measure([Box::new(case)], bench.span)?;
    let mut rows = rows(&measured);
    let series = measured[0].series(Of::Figure(RATE));
    rows.push(Row::figure(benchmark.what, "1/s", &series, benchmark.bar));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_benchmark_has_a_name_of_its_own() {
        let mut names: Vec<_> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), BENCHMARKS.len());
    }

    #[test]
    fn the_small_record_has_a_hundred_bytes_of_value() {
        let batch = Batch::of(1, SMALL_BYTES);
        assert_eq!(batch.bytes().len(), SMALL_BYTES);
    }
}
