//! Reads: of the tail, of mapped segments, of cold history; and appends beside them.

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use super::{Bench, Benchmark};
use crate::engine::case::{Batch, LONGEST_TURN, LoadCase, SinkCase};
use crate::engine::host::Host;
use crate::engine::load::{Load, Pace, Read, Serve, Until};
use crate::engine::node::{ANY_PORT, Spec};
use crate::limits::disk::{ColdRead, large_file};
use crate::limits::net;
use crate::limits::watch::{LONGEST_GAP, Watched};
use crate::measure::{Case, Of, Problem};
use crate::results::{Bar, Row, rows};

/// What the topics here are filled with.
fn filling() -> Batch {
    Batch::of(60, 64 << 10)
}

/// What a tail holds that no reader has made larger.
const TAIL_BYTES: u64 = 24 << 20;
/// The history that is read: far more than the journal, and so than the tail.
const HISTORY_BYTES: u64 = 1 << 30;
/// The journal of nodes with a history.
const JOURNAL_BYTES: u64 = 64 << 20;
/// The largest segment, so that most of the history is sealed.
const SEGMENT_BYTES: u32 = 64 << 20;
/// Bytes that a reader asks for.
const READ_BYTES: u32 = 1 << 20;
/// Turns of a case before it counts as warm.
const WARM_UPS: usize = 6;
/// The longest turn allowed.
const TURN_MS_MAX: f64 = 2.0;

/// A node whose topic `history` holds [`HISTORY_BYTES`] and whose topic `t` is empty.
fn with_history(bench: &Bench, listen: bool, map_segments: bool) -> Result<Host, Problem> {
    let config = Config { journal_bytes: JOURNAL_BYTES, map_segments, ..Config::default() };
    let host = bench.host(Spec { config, listen: listen.then_some(ANY_PORT) })?;
    let segments = TopicConfig { segment_bytes: SEGMENT_BYTES, ..TopicConfig::default() };
    host.create("history", 1, segments)?;
    host.create("t", 1, TopicConfig::default())?;
    fill(&host, "history", HISTORY_BYTES)?;
    Ok(host)
}

fn fill(host: &Host, topic: &str, bytes: u64) -> Result<(), Problem> {
    let load = filling().append(topic, 1, Pace::Closed(32), Until::Bytes(bytes));
    host.run(vec![(ShardId(0), vec![load])]).map(drop)
}

/// What a connection gets, beside a bare send of the same.
fn into_socket(
    bench: &Bench,
    benchmark: &Benchmark,
    host: &Host,
    topic: &str,
    bare: impl Case,
) -> Result<Vec<Row>, Problem> {
    host.serve(Serve { topic: topic.to_owned(), stored: filling().stored() })?;
    let mut engine = SinkCase { name: "engine, read into a socket", host };
    // Often enough that what can be warm is warm: read, checked, and mapped, a segment at a time.
    for _ in 0..WARM_UPS {
        engine.run(bench.span)?;
    }
    let measured = bench.measure([Box::new(engine), Box::new(bare)], bench.span)?;
    let [engine, bare] = measured.each_ref().map(|case| case.series(Of::Figure("MB/s")));
    let mut rows = rows(&measured);
    rows.push(Row::ratio(benchmark.what, &engine, &bare, benchmark.bar));
    Ok(rows)
}

pub(super) fn tail(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let host = bench.host(Spec { listen: Some(ANY_PORT), ..Spec::default() })?;
    host.create("t", 1, TopicConfig::default())?;
    fill(&host, "t", TAIL_BYTES)?;
    into_socket(bench, benchmark, &host, "t", net::from_memory()?)
}

pub(super) fn mapped(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let host = with_history(bench, true, true)?;
    into_socket(bench, benchmark, &host, "history", net::from_mapped_file(&bench.dir)?)
}

fn readers(readers: usize, once: bool, span: Nanos) -> Load {
    let (topic, stored) = ("history".to_owned(), filling().stored());
    Load::Read(Read { topic, readers, max_bytes: READ_BYTES, stored, span, once })
}

pub(super) fn cold(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let host = with_history(bench, false, false)?;
    let engine = LoadCase::new("engine, cold sequential read", &host, |span| {
        let beat = Load::Heartbeat { every: Nanos::from_millis(1), span };
        vec![(ShardId(0), vec![readers(1, true, span), beat])]
    });
    let raw = Watched::new(ColdRead::new(large_file(&bench.dir, false)?));
    let measured = bench.measure([Box::new(engine.cold()), Box::new(raw)], bench.span)?;
    let [engine, bare] = measured.each_ref().map(|case| case.series(Of::Figure("MB/s")));
    let worst = |case: usize, unit| -> Vec<f64> {
        measured[case].series(Of::Figure(unit)).into_iter().reduce(f64::max).into_iter().collect()
    };
    let mut rows = rows(&measured);
    let (turn, gap) = (worst(0, LONGEST_TURN), worst(1, LONGEST_GAP));
    rows.push(Row::figure("longest turn while reading cold", "ms", &turn, Bar::AtMost(TURN_MS_MAX)));
    rows.push(Row::figure("what the machine takes from a bare thread meanwhile", "ms", &gap, Bar::Reported));
    rows.push(Row::ratio(benchmark.what, &engine, &bare, benchmark.bar));
    Ok(rows)
}

pub(super) fn beside_readers(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let host = with_history(bench, false, false)?;
    let batch = Batch::of(1, 4096);
    let append = |span| batch.append("t", 1, Pace::Closed(1), Until::Span(span));
    let beside = LoadCase::new("engine, append beside 64 cold readers", &host, |span| {
        vec![(ShardId(0), vec![append(span), readers(64, false, span)])]
    });
    let alone = LoadCase::one("engine, append without readers", &host, append);
    let measured = bench.measure([Box::new(beside.cold()), Box::new(alone)], bench.span)?;
    let [beside, alone] = measured.each_ref().map(|case| case.series(Of::Percentile(99.0)));
    let mut rows = rows(&measured);
    rows.push(Row::ratio(benchmark.what, &beside, &alone, benchmark.bar));
    Ok(rows)
}
