//! What many partitions and much history cost: while appending, at a restart, at rest.

use std::fs;
use std::path::Path;
use std::time::Duration;

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::types::ShardId;

use super::{Bench, Benchmark};
use crate::engine::case::{Batch, CPU_PER_OPERATION, LoadCase};
use crate::engine::hold::{Content, Held};
use crate::engine::host::Host;
use crate::engine::load::{Load, Pace, Until};
use crate::engine::node::Spec;
use crate::machine;
use crate::measure::{Measured, Of, Problem};
use crate::results::{Bar, Row, rows};

/// Batches per second where costs are compared at equal rates.
const PER_SECOND: f64 = 2_000.0;
/// Partitions of the restart.
const RESTART_PARTITIONS: u32 = 1_000;
/// Partitions that idle.
const IDLE_PARTITIONS: u32 = 10_000;

/// Everything measured, and the processor time per batch of the first case over that of the second.
fn with_cpu_ratio(benchmark: &Benchmark, measured: &[Measured; 2]) -> Vec<Row> {
    let [above, below] = measured.each_ref().map(|case| case.series(Of::Figure(CPU_PER_OPERATION)));
    let mut rows = rows(measured);
    rows.push(Row::ratio(benchmark.what, &above, &below, benchmark.bar));
    rows
}

pub(super) fn partitions(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let host = bench.host(Spec::default())?;
    host.create("t", 1_000, TopicConfig::default())?;
    let batch = Batch::of(1, 4096);
    let over = |partitions: usize| {
        let batch = &batch;
        LoadCase::one(format!("engine, {partitions} partitions"), &host, move |span| {
            batch.append("t", partitions, Pace::Open(PER_SECOND), Until::Span(span))
        })
    };
    let measured = bench.measure([Box::new(over(1_000)), Box::new(over(1))], bench.span)?;
    Ok(with_cpu_ratio(benchmark, &measured))
}

pub(super) fn history(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let (old, new) = (bench.host(Spec::default())?, bench.host(Spec::default())?);
    for host in [&old, &new] {
        host.create("t", 1, TopicConfig::default())?;
    }
    fill(&old, 1, bench.history_bytes)?;
    let batch = Batch::of(1, 4096);
    let append = |span| batch.append("t", 1, Pace::Open(PER_SECOND), Until::Span(span));
    let measured = bench.measure(
        [
            Box::new(LoadCase::one("engine, with a history", &old, append)),
            Box::new(LoadCase::one("engine, empty log", &new, append)),
        ],
        bench.span,
    )?;
    Ok(with_cpu_ratio(benchmark, &measured))
}

/// Appends `bytes` to the topic `t`, over so many partitions.
pub fn fill(host: &Host, partitions: usize, bytes: u64) -> Result<(), Problem> {
    let load: Load = Batch::of(60, 64 << 10).append("t", partitions, Pace::Closed(32), Until::Bytes(bytes));
    host.run(vec![(ShardId(0), vec![load])]).map(drop)
}

pub(super) fn restart(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let dir = Scratch(bench.fresh_dir());
    drop(Held::start(
        &dir.0,
        Content { create: true, partitions: RESTART_PARTITIONS, bytes: bench.history_bytes },
    )?);
    let mut seconds = Vec::new();
    for _ in 0..bench.turns {
        // What one start has replayed the next need not: the journal is filled again before each.
        let bytes = Config::default().journal_bytes;
        drop(Held::start(&dir.0, Content { create: false, partitions: RESTART_PARTITIONS, bytes })?);
        let held = Held::start(&dir.0, Content::default())?;
        seconds.push(held.took.as_secs_f64());
    }
    Ok(vec![Row::figure(benchmark.what, "s", &seconds, benchmark.bar)])
}

pub(super) fn idle(bench: &Bench, benchmark: &Benchmark) -> Result<Vec<Row>, Problem> {
    let idle = Content { create: true, partitions: IDLE_PARTITIONS, bytes: 0 };
    let mut figures: [Vec<f64>; 4] = Default::default();
    for _ in 0..bench.turns {
        let (empty, full) = (Scratch(bench.fresh_dir()), Scratch(bench.fresh_dir()));
        let (empty, full) = (Held::start(&empty.0, Content::default())?, Held::start(&full.0, idle)?);
        std::thread::sleep(Duration::from_secs(1));
        let (rss, per) = (machine::rss_kib(empty.process())?, f64::from(IDLE_PARTITIONS));
        let (files, files_full) =
            (machine::descriptors(empty.process())?, machine::descriptors(full.process())?);
        let new = [
            rss / 1024.0,
            files,
            (files_full - files) / per,
            (machine::rss_kib(full.process())? - rss) / per,
        ];
        for (series, figure) in figures.iter_mut().zip(new) {
            series.push(figure);
        }
    }
    let [rss, files, files_per, rss_per] = figures;
    Ok(vec![
        Row::figure("resident memory, idle, no partitions", "MiB", &rss, Bar::Reported),
        Row::figure("descriptors, idle, no partitions", "count", &files, Bar::Reported),
        Row::figure("descriptors per idle partition, of 10,000", "count", &files_per, Bar::Reported),
        Row::figure(benchmark.what, "KiB", &rss_per, benchmark.bar),
    ])
}

/// A directory that is removed when this is dropped.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let dir: &Path = &self.0;
        if dir.exists()
            && let Err(error) = fs::remove_dir_all(dir)
        {
            eprintln!("{} is left behind: {error}", dir.display());
        }
    }
}
