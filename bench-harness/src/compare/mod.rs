//! `millbench compare`: gets and starts the peers, gives all of them the same loads in turns, and writes the report.

mod bars;
mod journal;
mod outcome;
pub mod plan;
mod report;
mod stage;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::doc::{Piece, html, markdown};
use crate::load::Span;
use crate::load::turn;
use crate::machine::{self, Machine, Others};
use crate::measure::Problem;
use crate::peers::{Kind, Setup};
use crate::results::{Bar, Row, Run};
use crate::{raw, scratch};
use journal::{Entry, Journal};
use outcome::Outcome;
use plan::Line;
pub use stage::give;
use stage::{SETTLE_SECONDS, START_SECONDS, Stage, TURN_SECONDS};

/// What `millbench compare` is told.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Compare {
    /// The rows that can be measured within five minutes
    #[arg(long)]
    quick: bool,
    /// The rows and the peers that Millstream's bars are about
    #[arg(long, conflicts_with = "quick")]
    bars: bool,
    /// These rows only; --list names them
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// These peers only
    #[arg(long, value_delimiter = ',', value_enum)]
    peers: Vec<Kind>,
    /// Runs through all rows, one after the other: a row whose runs differ is unstable
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// How often each row is measured in a run [default: 3; 1 with --quick and --bars]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    reps: Option<u16>,
    /// Seconds that are measured in each turn [default: 5; 2 with --quick and --bars]
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds of the same load before that [default: 2; 0.7 with --quick and --bars]
    #[arg(long)]
    warm_up: Option<f64>,
    /// Processors that the load generator uses, a pinned thread each [default: all]
    #[arg(long, value_delimiter = ',')]
    client_cpus: Vec<usize>,
    /// Where the report goes, and what was measured so far
    #[arg(long, default_value = "results/compare")]
    out: PathBuf,
    /// Where the peers' data goes: the disk to measure
    #[arg(long, default_value = "results/scratch")]
    dir: PathBuf,
    /// Where what is got from elsewhere is kept
    #[arg(long, default_value = "target/peers")]
    cache: PathBuf,
    /// The binary of Millstream [default: the one beside this one]
    #[arg(long)]
    millstream: Option<PathBuf>,
    /// The heap of Java peers
    #[arg(long, default_value = "1g")]
    heap: String,
    /// Begin anew, even if a comparison was interrupted
    #[arg(long)]
    fresh: bool,
    /// Print what would be measured, and how long it takes
    #[arg(long)]
    list: bool,
}

/// The disk must have so much free before a turn.
const TURN_BYTES: u64 = 8 << 30;

impl Compare {
    /// Compares, writes the report, and gives the run to keep; none if it was only asked for the list.
    pub fn run(&self) -> Result<Option<Run>, Problem> {
        let matrix = self.matrix()?;
        if self.list {
            for line in &matrix.lines {
                println!("{:20}{}", line.name, line.title);
            }
            println!("{}", matrix.told());
            return Ok(None);
        }
        raw::note_interrupts();
        scratch::prepare(&self.dir)?;
        // Before anything is got, started or written.
        check_space(&self.dir)?;
        let scratch = self.dir.join(format!("compare-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        let compared = self.compare(&matrix, &scratch);
        std::fs::remove_dir_all(&scratch)?;
        compared.map(Some)
    }

    /// What is measured.
    fn matrix(&self) -> Result<Matrix, Problem> {
        let all = plan::lines();
        if let Some(unknown) = self.only.iter().find(|only| all.iter().all(|line| line.name != **only)) {
            let names: Vec<&str> = all.iter().map(|line| line.name.as_str()).collect();
            return Err(format!("--only: there is no row {unknown}; there are {}", names.join(", ")).into());
        }
        let chosen = |line: &Line| match () {
            () if !self.only.is_empty() => self.only.contains(&line.name),
            () if self.bars => bars::concern(line),
            () => !self.quick || line.quick,
        };
        let peers = match &self.peers[..] {
            [] if self.bars => bars::PEERS.to_vec(),
            [] if self.quick => Kind::QUICK.to_vec(),
            [] => Kind::ALL.to_vec(),
            named => named.to_vec(),
        };
        let short = self.quick || self.bars;
        let seconds = |given: Option<f64>, short_s: f64, long_s: f64| {
            Duration::try_from_secs_f64(given.unwrap_or(if short { short_s } else { long_s }))
        };
        Ok(Matrix {
            lines: all.into_iter().filter(chosen).collect(),
            peers,
            runs: self.runs.into(),
            reps: self.reps.unwrap_or(if short { 1 } else { 3 }).into(),
            span: Span {
                warm_up: seconds(self.warm_up, 0.7, 2.0)?,
                measure: Some(seconds(self.seconds, 2.0, 5.0)?),
            },
        })
    }

    fn compare(&self, matrix: &Matrix, scratch: &std::path::Path) -> Result<Run, Problem> {
        let plan = json!({
            "commit": machine::commit(), "lines": matrix.lines, "peers": matrix.peers, "heap": self.heap,
            "runs": matrix.runs, "turns": matrix.reps, "cpus": self.cpus()?,
            "seconds": matrix.span.measure, "warm_up": matrix.span.warm_up,
        });
        let mut journal = Journal::open(&self.out.join("turns.jsonl"), &plan, self.fresh)?;
        let less = if journal.resumed { ", less what was measured before the interruption" } else { "" };
        eprintln!("{}{less}", matrix.told());
        let setup = Setup {
            scratch: scratch.to_owned(),
            cache: self.cache.clone(),
            millstream: self.millstream.clone(),
            heap: self.heap.clone(),
        };
        let others = Others::start();
        journal.add(Entry::Limits(stage::limits(scratch)?))?;
        let mut stage = Stage::new(setup, self.cpus()?, matrix.span);
        for &peer in &matrix.peers {
            if !raw::interrupted() && matrix.misses(&journal, peer) {
                eprintln!("starting {}", peer.title());
                stage.start(peer, &mut journal)?;
            }
        }
        self.measure(matrix, &mut stage, &mut journal)?;
        drop(stage);
        if raw::interrupted() {
            self.write(matrix, &journal, vec!["interrupted: not everything was measured".to_owned()])?;
            return Err("interrupted; the same command goes on from here".into());
        }
        journal.add(Entry::Complete)?;
        let mut notes = Vec::new();
        if journal.resumed {
            notes.push("measured in several sittings".to_owned());
        }
        let rows = rows(matrix, &journal);
        let mut run =
            Run::ended(&self.dir, &others, "acks=all where a row does not say otherwise", notes, rows);
        self.write(matrix, &journal, run.notes.clone())?;
        // The report has a table of them.
        run.notes.extend(matrix.outcome(&journal).told());
        Ok(run)
    }

    fn cpus(&self) -> Result<Vec<usize>, Problem> {
        let allowed = raw::cpus();
        match self.client_cpus.iter().find(|cpu| !allowed.contains(cpu)) {
            Some(cpu) => Err(format!("--client-cpus: {cpu} is none of those allowed: {allowed:?}").into()),
            None if self.client_cpus.is_empty() => Ok(allowed),
            None => Ok(self.client_cpus.clone()),
        }
    }

    fn measure(&self, matrix: &Matrix, stage: &mut Stage, journal: &mut Journal) -> Result<(), Problem> {
        let bar = ProgressBar::new((matrix.cells() * matrix.turns()) as u64);
        let style = "{elapsed_precise} [{bar:40}] {pos}/{len}, {eta} left: {msg}";
        bar.set_style(ProgressStyle::with_template(style)?.progress_chars("=> "));
        let mut shown = String::new();
        for (run, line, number, kind) in matrix.order() {
            let title = format!("  run {} of {}: {}", run + 1, matrix.runs, line.title);
            if bar.is_hidden() && shown != title {
                eprintln!("{title}");
            }
            shown = title;
            bar.inc(1);
            let done = journal.turns(&line.name, kind) >= number;
            if done || journal.failed(&line.name, kind) || !stage.has(kind) {
                continue;
            }
            bar.set_message(format!("{}, {}", line.name, kind.title()));
            check_space(&self.dir)
                .map_err(|problem| format!("{problem}; the same command goes on from here"))?;
            let taken = stage.turn(line, kind);
            if raw::interrupted() {
                bar.abandon();
                return Ok(());
            }
            let (line, peer) = (line.name.clone(), kind);
            match taken {
                Ok(turn) => journal.add(Entry::Turn { line, peer, turn })?,
                Err(problem) => {
                    bar.suspend(|| eprintln!("{line}, {}: {problem}", kind.title()));
                    let (line, why) = (Some(line), problem.to_string());
                    journal.add(Entry::Failed { line, peer, why })?;
                    stage.start_again(kind, journal)?;
                }
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Writes the report, with its plots, as Markdown and as a page.
    fn write(&self, matrix: &Matrix, journal: &Journal, notes: Vec<String>) -> Result<(), Problem> {
        let machine = Machine::of(&self.dir);
        let (commit, command) = (machine::commit(), command());
        let head = report::Head {
            machine: &machine,
            commit: &commit,
            command: &command,
            turns: format!(
                "{} runs with {} turns of {} s after {} s of warm-up for each row and peer, interleaved",
                matrix.runs,
                matrix.reps,
                matrix.span.measure.unwrap_or_default().as_secs_f64(),
                matrix.span.warm_up.as_secs_f64()
            ),
            notes: &notes,
        };
        let pieces = report::report(&head, &matrix.outcome(journal))?;
        for piece in &pieces {
            if let Piece::Figure(name, _, svg) = piece {
                std::fs::write(self.out.join(name), svg)?;
            }
        }
        let (text, page) = (self.out.join("report.md"), self.out.join("report.html"));
        std::fs::write(&text, markdown(&pieces))?;
        std::fs::write(&page, html("Millstream beside its peers", &pieces))?;
        eprintln!("wrote {} and {}", text.display(), page.display());
        Ok(())
    }
}

/// What is measured, and how often.
struct Matrix {
    lines: Vec<Line>,
    peers: Vec<Kind>,
    runs: usize,
    /// Turns of a row and peer in a run.
    reps: usize,
    span: Span,
}

impl Matrix {
    /// Whom a row is about.
    fn concerned<'a>(&'a self, line: &'a Line) -> impl Iterator<Item = &'a Kind> {
        self.peers.iter().filter(|&&peer| line.load.concerns(peer))
    }

    /// Rows of each peer, all together.
    fn cells(&self) -> usize {
        self.lines.iter().map(|line| self.concerned(line).count()).sum()
    }

    /// Every turn in its order: the run, the row, which of its turns it is, the peer.
    fn order(&self) -> impl Iterator<Item = (usize, &Line, usize, Kind)> {
        let turns = (0..self.runs).flat_map(move |run| {
            let in_run = move |line| (1..=self.reps).map(move |rep| (run, line, run * self.reps + rep));
            self.lines.iter().flat_map(in_run)
        });
        turns.flat_map(|(run, line, number)| self.concerned(line).map(move |&peer| (run, line, number, peer)))
    }

    /// Turns of a row and peer.
    fn turns(&self) -> usize {
        self.runs * self.reps
    }

    /// Whether anything of a peer is still to be measured.
    fn misses(&self, journal: &Journal, peer: Kind) -> bool {
        self.lines
            .iter()
            .filter(|line| line.load.concerns(peer))
            .any(|line| !journal.failed(&line.name, peer) && journal.turns(&line.name, peer) < self.turns())
    }

    /// Seconds that it takes, about.
    fn estimate(&self) -> f64 {
        let turn = (self.span.warm_up + self.span.measure.unwrap_or_default()).as_secs_f64() + TURN_SECONDS;
        let settled: BTreeSet<_> = self
            .lines
            .iter()
            .flat_map(|line| self.concerned(line).map(|&peer| (peer, line.load.protocol())))
            .collect();
        let started: BTreeSet<Kind> = settled.iter().map(|(peer, _)| *peer).collect();
        turn * (self.cells() * self.turns()) as f64
            + SETTLE_SECONDS * settled.len() as f64
            + START_SECONDS * started.len() as f64
    }

    /// What it is, in a line.
    fn told(&self) -> String {
        let (rows, peers) = (self.lines.len(), self.peers.len());
        let minutes = (self.estimate() / 60.0).max(1.0);
        format!(
            "{rows} rows, {peers} peers, {} runs of {} turns: about {minutes:.0} minutes",
            self.runs, self.reps
        )
    }

    fn outcome<'a>(&'a self, journal: &'a Journal) -> Outcome<'a> {
        Outcome::of(self.lines.iter().collect(), self.peers.clone(), journal.entries())
    }
}

/// Every figure, for `runs.jsonl`.
fn rows(matrix: &Matrix, journal: &Journal) -> Vec<Row> {
    let outcome = matrix.outcome(journal);
    let mut rows = Vec::new();
    for line in &matrix.lines {
        for &peer in matrix.concerned(line) {
            let cell = outcome.cell(&line.name, peer);
            let name = format!("{}, {}", line.name, peer.title());
            if let Some(why) = &cell.failure {
                rows.push(Row::failed(&name, Bar::Reported, why));
            }
            rows.extend(turn::rows(&name, &cell.turns));
        }
    }
    rows.extend(bars::bars(&outcome));
    rows
}

/// An error if there is not enough room for a turn.
pub fn check_space(dir: &std::path::Path) -> Result<(), Problem> {
    let free = raw::free_bytes(&std::fs::File::open(dir)?)?;
    if free < TURN_BYTES {
        return Err(format!(
            "{} has {} MiB free; a turn needs {} MiB: choose another with --dir",
            dir.display(),
            free >> 20,
            TURN_BYTES >> 20
        )
        .into());
    }
    Ok(())
}

/// The command that repeats this.
fn command() -> String {
    format!("cargo run --release -p millstream-bench -- {}", machine::arguments())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        compare: Compare,
    }

    fn compare(arguments: &[&str]) -> Result<Compare, String> {
        let arguments = ["millbench"].iter().chain(arguments);
        Cli::try_parse_from(arguments).map(|cli| cli.compare).map_err(|error| error.to_string())
    }

    #[test]
    fn a_row_that_does_not_exist_is_explained() {
        let why = compare(&["--only", "produce-1k,nonsense"]).unwrap().matrix().err().unwrap().to_string();
        assert!(why.contains("nonsense") && why.contains("latency-100"), "{why}");
        assert!(compare(&["--peers", "nobody"]).err().unwrap().contains("nobody"));
    }

    #[test]
    fn the_quick_comparison_ends_within_five_minutes() {
        let quick = compare(&["--quick"]).unwrap().matrix().unwrap();
        assert!(quick.estimate() < 5.0 * 60.0, "{} s", quick.estimate());
        assert!(compare(&[]).unwrap().matrix().unwrap().estimate() > quick.estimate());
    }

    #[test]
    fn rows_and_peers_of_the_bars_are_measured_when_only_bars_are_asked_for() {
        let matrix = compare(&["--bars"]).unwrap().matrix().unwrap();
        assert_eq!(matrix.peers, bars::PEERS);
        assert!(matrix.lines.iter().all(bars::concern) && matrix.lines.len() > 15);
        assert!(compare(&["--bars", "--quick"]).is_err());
    }

    #[test]
    fn a_run_is_over_all_rows_before_the_next_begins_and_peers_take_turns() {
        let asked = ["--only", "produce-1k,produce-100", "--peers", "null,kafka", "--reps", "1"];
        let matrix = compare(&asked).unwrap().matrix().unwrap();
        let order: Vec<_> =
            matrix.order().map(|(run, line, number, kind)| (run, &line.name[..], number, kind)).collect();
        let run = |run, number| {
            let row = move |name| [(run, name, number, Kind::Null), (run, name, number, Kind::Kafka)];
            [row("produce-1k"), row("produce-100")].concat()
        };
        assert_eq!(order, [run(0, 1), run(1, 2)].concat());
    }

    #[test]
    fn a_peer_is_needed_until_it_has_had_its_turns_in_all_runs() {
        let asked = ["--only", "produce-1k", "--peers", "null", "--runs", "2", "--reps", "2"];
        let matrix = compare(&asked).unwrap().matrix().unwrap();
        let path = std::env::temp_dir().join(format!("millbench-{}-runs.jsonl", std::process::id()));
        let mut journal = Journal::open(&path, &json!(1), true).unwrap();
        for _ in 0..4 {
            assert!(matrix.misses(&journal, Kind::Null));
            let (line, turn) = ("produce-1k".to_owned(), turn::Turn::default());
            journal.add(Entry::Turn { line, peer: Kind::Null, turn }).unwrap();
        }
        assert!(!matrix.misses(&journal, Kind::Null));
        std::fs::remove_file(path).unwrap();
    }
}
