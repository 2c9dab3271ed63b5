//! The benchmarks of the engine: one table, from which `millbench engine` runs, lists and reports.

mod append;
mod read;
mod scale;

pub use scale::fill;

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use super::host::Host;
use super::node::Spec;
use crate::measure::{self, Case, Measured, Problem};
use crate::raw;
use crate::results::{Bar, Row};

/// One benchmark.
pub struct Benchmark {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What is compared.
    pub what: &'static str,
    /// What the ratio, or the figure, must be.
    pub bar: Bar,
    /// How it is measured.
    pub how: &'static str,
    /// Measures: the rows to print, the one with the bar last.
    pub run: fn(&Bench, &Benchmark) -> Result<Vec<Row>, Problem>,
}

/// Every benchmark.
pub const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "append",
        what: "durable 4 KiB append / raw linked write and flush, p50",
        bar: Bar::AtMost(1.3),
        how: "one partition, one append in flight; the raw append writes as much to a pre-written file",
        run: append::single,
    },
    Benchmark {
        name: "commit",
        what: "64 partitions x 4 KiB in one commit / 1 partition x 4 KiB, p50",
        bar: Bar::AtMost(1.6),
        how: "rounds of one append to each partition; the next round starts when the last append is durable",
        run: append::commit,
    },
    Benchmark {
        name: "journal",
        what: "journal alone, 1 MiB groups / raw at the same size, MB/s",
        bar: Bar::AtLeast(0.9),
        how: "64 KiB batches, 32 in flight over 8 partitions, so that groups fill; the journal is too large to need segments",
        run: append::journal,
    },
    Benchmark {
        name: "sustained",
        what: "sustained over 10 x the journal, segments included / journal alone, MB/s",
        bar: Bar::AtLeast(0.6),
        how: "the load of `journal` until ten times the journal's size is appended; the raw sequential write beside it",
        run: append::sustained,
    },
    Benchmark {
        name: "bulk",
        what: "durable 4 KiB append during bulk segment writes and trim / without, p99",
        bar: Bar::AtMost(2.0),
        how: "one append in flight beside 100 MB/s of 256 KiB batches; without: the journal is too large to need segments",
        run: append::beside_bulk,
    },
    Benchmark {
        name: "shards",
        what: "2 shards / 1 shard, durable 4 KiB appends per second",
        bar: Bar::AtLeast(1.9),
        how: "one append in flight per shard, on a node of two shards",
        run: append::shards,
    },
    Benchmark {
        name: "cpu",
        what: "CPU per 1 KiB record, durable, in 64 KiB batches",
        bar: Bar::Reported,
        how: "all threads of the process, kernel workers included, per record; 4 batches in flight",
        run: append::cpu,
    },
    Benchmark {
        name: "tail",
        what: "tail read into a socket / bare send from memory, MB/s",
        bar: Bar::AtLeast(0.8),
        how: "one loopback connection gets a partition of 24 MiB over and over, all of it in the tail",
        run: read::tail,
    },
    Benchmark {
        name: "mapped",
        what: "warm mapped read into a socket / bare send from a mapped file, MB/s",
        bar: Bar::AtLeast(0.8),
        how: "the same over 1 GiB, 16 times the journal, in sealed segments of 64 MiB that were read before",
        run: read::mapped,
    },
    Benchmark {
        name: "cold",
        what: "cold sequential read / bare buffered sequential read, MB/s",
        bar: Bar::AtLeast(0.8),
        how: "one reader goes through 1 GiB once, the page cache dropped before, no segment mapped; a 1 ms heartbeat shows the longest turn, and beside the bare read a thread that watches the clock shows what the machine takes",
        run: read::cold,
    },
    Benchmark {
        name: "readers",
        what: "durable 4 KiB append while 64 readers read cold / without, p99",
        bar: Bar::AtMost(2.0),
        how: "one append in flight; the readers are spread over 1 GiB, the page cache dropped before, no segment mapped",
        run: read::beside_readers,
    },
    Benchmark {
        name: "partitions",
        what: "CPU per batch, 1,000 partitions / 1 partition, at equal rate and size",
        bar: Bar::AtMost(1.25),
        how: "2,000 batches of 4 KiB per second on a schedule, durable",
        run: scale::partitions,
    },
    Benchmark {
        name: "history",
        what: "CPU per batch, with a history (--history-gib) / on an empty log",
        bar: Bar::AtMost(1.25),
        how: "two nodes take turns, 2,000 batches of 4 KiB per second each",
        run: scale::history,
    },
    Benchmark {
        name: "restart",
        what: "restart after SIGKILL, 1,000 partitions and a history (--history-gib)",
        bar: Bar::Reported,
        how: "a child fills the log and is killed; another one is timed until it serves, process start included",
        run: scale::restart,
    },
    Benchmark {
        name: "idle",
        what: "memory per idle partition, of 10,000",
        bar: Bar::Reported,
        how: "resident memory and descriptors of a child that holds a topic, less those of one that holds none",
        run: scale::idle,
    },
];

/// What the benchmarks are run with.
pub struct Bench {
    /// Where nodes and scratch files live.
    pub dir: PathBuf,
    /// Whether the raw comparisons go past the page cache.
    pub direct: bool,
    /// How long each turn of a case lasts, unless it counts bytes.
    pub span: Duration,
    /// How often each case is run.
    pub turns: usize,
    /// The size of the history that `history` and `restart` stand on.
    pub history_bytes: u64,
    /// Nodes started so far, to tell their directories apart.
    pub nodes: Cell<u32>,
}

impl Bench {
    /// A directory that no other node of this run has.
    pub fn fresh_dir(&self) -> PathBuf {
        self.nodes.set(self.nodes.get() + 1);
        self.dir.join(format!("node-{}-{}", std::process::id(), self.nodes.get()))
    }

    /// A new node.
    pub fn host(&self, spec: Spec) -> Result<Host, Problem> {
        Host::start(spec, &self.fresh_dir())
    }

    /// Runs cases in turns. That one failed fails the benchmark: a ratio needs them all.
    pub fn measure<const N: usize>(
        &self,
        mut cases: [Box<dyn Case + '_>; N],
        span: Duration,
    ) -> Result<[Measured; N], Problem> {
        let measured = measure::interleave(&mut cases, self.turns, span);
        if let Some((name, failure)) =
            measured.iter().find_map(|case| Some((&case.name, case.failure.as_ref()?)))
        {
            return Err(format!("{name}: {failure}").into());
        }
        measured.try_into().map_err(|_| "as many cases are measured as were given".into())
    }

    /// Runs a benchmark. If it fails, its row says why. After Ctrl-C there is nothing to run.
    pub fn run(&self, benchmark: &Benchmark) -> Vec<Row> {
        if raw::interrupted() {
            return Vec::new();
        }
        eprintln!("{}: {}", benchmark.name, benchmark.what);
        (benchmark.run)(self, benchmark)
            .unwrap_or_else(|problem| vec![Row::failed(benchmark.what, benchmark.bar, problem.to_string())])
    }
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
    fn a_benchmark_that_cannot_run_is_a_row_that_says_why_and_has_not_met_its_bar() {
        let bench = Bench {
            dir: PathBuf::new(),
            direct: false,
            span: Duration::ZERO,
            turns: 1,
            history_bytes: 0,
            nodes: Cell::new(0),
        };
        let benchmark = Benchmark {
            name: "x",
            what: "x",
            bar: Bar::AtMost(1.0),
            how: "",
            run: |_, _| Err("there is no disk".into()),
        };
        let rows = bench.run(&benchmark);
        assert_eq!((rows[0].met, rows[0].failure.as_deref()), (None, Some("there is no disk")));
    }
}
