//! Appends: one, many at once, for long, beside each other.

use std::time::Duration;

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use super::{Bench, Benchmark};
use crate::engine::alone::{self, AloneCase, TURN_BYTES};
use crate::engine::case::{Batch, CPU_PER_OPERATION, LoadCase, RATE};
use crate::engine::host::Host;
use crate::engine::load::{Load, Pace, Until};
use crate::engine::node::Spec;
use crate::limits::disk::{Append, Sequential, large_file};
use crate::limits::twice::Twice;
use crate::measure::{Measured, Of, Problem};
use crate::raw::Op;
use crate::results::{Bar, Row, rows};

const P50: Of = Of::Percentile(50.0);
const P99: Of = Of::Percentile(99.0);
const MB_S: Of = Of::Figure("MB/s");

/// A default node whose topic `t` has so many partitions, and which has gone around its journal: it takes no new memory
/// from the system any more.
fn used_host(bench: &Bench, partitions: u32) -> Result<Host, Problem> {
    let config = Config::default();
    let bytes = config.journal_bytes * 3 / 2;
    let host = host(bench, partitions, config)?;
    super::fill(&host, partitions as usize, bytes)?;
    Ok(host)
}

/// A node whose topic `t` has so many partitions.
fn host(bench: &Bench, partitions: u32, config: Config) -> Result<Host, Problem> {
    let host = bench.host(Spec { config, ..Spec::default() })?;
    host.create("t", partitions, TopicConfig::default())?;
    Ok(host)
}

/// Everything measured, and the benchmark's ratio of the first case to the second.
fn with_ratio(benchmark: &Benchmark, measured: &[Measured; 2], of: Of) -> Vec<Row> {
    let mut rows = rows(measured);
    rows.push(Row::ratio(benchmark.what, &measured[0].series(of), &measured[1].series(of), benchmark.bar));
    rows
}

pub(super) fn single(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let host = used_host(bench, 1)?;
    let batch = Batch::of(1, 4096);
    let engine = LoadCase::one("engine, durable append 4 KiB", &host, |span| {
        batch.append("t", 1, Pace::Closed(1), Until::Span(span))
    });
    let raw = Append::of(4096, &bench.dir, bench.direct);
    let measured = bench.measure([Box::new(engine), Box::new(raw)], bench.span)?;
    Ok(with_ratio(benchmark, &measured, P50))
}

pub(super) fn commit(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let host = used_host(bench, 64)?;
    let batch = Batch::of(1, 4096);
    let round = |partitions: usize| {
        let batch = &batch;
        LoadCase::one(format!("engine, {partitions} x 4 KiB at once"), &host, move |span| {
            batch.append("t", partitions, Pace::Rounds(partitions), Until::Span(span))
        })
    };
    let raw = |bytes| Box::new(Append::of(bytes, &bench.dir, bench.direct));
    let measured = bench.measure(
        [Box::new(round(64)), Box::new(round(1)), raw(64 * 4096 + 4096), raw(2 * 4096)],
        bench.span,
    )?;
    let [many, one, raw_many, raw_one] = measured.each_ref().map(|case| case.series(P50));
    let mut rows = rows(&measured);
    rows.push(Row::ratio("raw append of as many bytes / of as few, p50", &raw_many, &raw_one, Bar::Reported));
    rows.push(Row::ratio(benchmark.what, &many, &one, benchmark.bar));
    Ok(rows)
}

/// The load that fills groups.
fn groups(batch: &Batch, until: Until) -> Load {
    batch.append("t", 8, Pace::Closed(32), until)
}

/// That load, as much of it as one turn of the journal alone takes.
fn journal_alone<'a>(host: &'a Host, batch: &'a Batch) -> AloneCase<'a> {
    let load = LoadCase::one("engine, journal alone", host, |_| groups(batch, Until::Bytes(TURN_BYTES)));
    AloneCase { load, host, topic: "t", partitions: 8 }
}

pub(super) fn journal(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let host = host(bench, 8, alone::config())?;
    let batch = Batch::of(1, 64 << 10);
    let engine = journal_alone(&host, &batch);
    let raw = || Append::of(1 << 20, &bench.dir, bench.direct).over(TURN_BYTES);
    let measured =
        bench.measure([Box::new(engine), Box::new(raw()), Box::new(raw().copied())], bench.span)?;
    let [engine, raw, copied] = measured.each_ref().map(|case| case.series(MB_S));
    let mut rows = rows(&measured);
    rows.push(Row::ratio("journal alone / raw and copied, MB/s", &engine, &copied, Bar::Reported));
    rows.push(Row::ratio(benchmark.what, &engine, &raw, benchmark.bar));
    Ok(rows)
}

pub(super) fn sustained(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let (whole, alone) = (used_host(bench, 8)?, host(bench, 8, alone::config())?);
    let batch = Batch::of(1, 64 << 10);
    let journal_bytes = Config::default().journal_bytes;
    let bytes = Until::Bytes(10 * journal_bytes);
    let raw = Sequential::new(Op::Write, large_file(&bench.dir, bench.direct)?);
    // No log that journals can do better, on a disk whose files grow more slowly than they are written once more.
    let twice =
        Twice { direct: bench.direct, journal_bytes, bytes: 10 * journal_bytes, dir: bench.dir.clone() };
    let measured = bench.measure(
        [
            Box::new(LoadCase::one("engine, sustained", &whole, |_| groups(&batch, bytes))),
            Box::new(journal_alone(&alone, &batch)),
            Box::new(raw),
            Box::new(twice),
        ],
        bench.span,
    )?;
    let [whole, alone, raw, twice] = measured.each_ref().map(|case| case.series(MB_S));
    let mut rows = rows(&measured);
    rows.push(Row::ratio("sustained / raw sequential write, MB/s", &whole, &raw, Bar::Reported));
    rows.push(Row::ratio("sustained / the same writes bare, MB/s", &whole, &twice, Bar::Reported));
    rows.push(Row::ratio(benchmark.what, &whole, &alone, benchmark.bar));
    Ok(rows)
}

pub(super) fn beside_bulk(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let (whole, alone) = (used_host(bench, 9)?, host(bench, 9, alone::config())?);
    let (small, large) = (Batch::of(1, 4096), Batch::of(1, 256 << 10));
    let loads = |span: Nanos| {
        let small = small.append("t", 1, Pace::Closed(1), Until::Span(span));
        let large = large.append("t", 9, Pace::Open(400.0), Until::Span(span));
        vec![(ShardId(0), vec![small, large])]
    };
    // Long enough to go around the default journal; and short enough for the other's tail.
    let (span, alone_span) = (Duration::from_secs(5), Nanos::from_millis(1_000));
    let measured = bench.measure(
        [
            Box::new(LoadCase::new("engine, append beside segment writes", &whole, loads)),
            Box::new(AloneCase {
                load: LoadCase::new("engine, append without segment writes", &alone, |_| loads(alone_span)),
                host: &alone,
                topic: "t",
                partitions: 9,
            }),
        ],
        span,
    )?;
    Ok(with_ratio(benchmark, &measured, P99))
}

pub(super) fn shards(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let config = Config { shards: 2, ..Config::default() };
    let host = bench.host(Spec { config, ..Spec::default() })?;
    host.create("t", 8, TopicConfig::default())?;
    let batch = Batch::of(1, 4096);
    let on = |shards: u16| {
        let batch = &batch;
        LoadCase::new(format!("engine, appends on {shards} shards"), &host, move |span| {
            let load = batch.append("t", 1, Pace::Closed(1), Until::Span(span));
            (0..shards).map(|shard| (ShardId(shard), vec![load.clone()])).collect()
        })
    };
    let measured = bench.measure([Box::new(on(2)), Box::new(on(1))], bench.span)?;
    Ok(with_ratio(benchmark, &measured, Of::Figure(RATE)))
}

pub(super) fn cpu(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    const RECORDS: usize = 63;
    let host = used_host(bench, 1)?;
    let batch = Batch::of(RECORDS, 64 << 10);
    let engine = LoadCase::one("engine, 64 KiB batches of 1 KiB records", &host, |span| {
        batch.append("t", 1, Pace::Closed(4), Until::Span(span))
    });
    let measured = bench.measure([Box::new(engine)], bench.span)?;
    let per_batch = measured[0].series(Of::Figure(CPU_PER_OPERATION));
    let per_record: Vec<f64> = per_batch.iter().map(|us| us / RECORDS as f64).collect();
    let mut rows = rows(&measured);
    rows.push(Row::figure(benchmark.what, "us", &per_record, benchmark.bar));
    Ok(rows)
}
