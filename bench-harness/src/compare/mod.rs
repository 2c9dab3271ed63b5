//! `millbench compare`: gets and starts the peers, gives all of them the same loads in turns, and writes the report.

mod bars;
mod journal;
mod outcome;
pub mod plan;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::doc::{Piece, html, markdown};
use crate::load::Span;
use crate::load::turn::{self, Turn};
use crate::log::{self, Target};
use crate::machine::{self, Machine, Others};
use crate::measure::Problem;
use crate::peers::{Kind, Peer, Setup};
use crate::queue::workload::Workload as Queues;
use crate::queue::{self, Broker};
use crate::raw;
use crate::results::Run;
use journal::{Entry, Journal, PeerFacts};
use outcome::Outcome;
use plan::{Line, Load};

/// What `millbench compare` is told.
#[derive(Args)]
pub struct Compare {
    /// The rows that can be measured within five minutes
    #[arg(long)]
    quick: bool,
    /// These rows only; --list names them
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// These peers only
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Kind::Millstream, Kind::Kafka, Kind::KafkaFlush, Kind::RabbitMq, Kind::RabbitMqQuorum, Kind::Null])]
    peers: Vec<Kind>,
    /// How often each row is measured [default: 4; 2 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    reps: Option<u16>,
    /// Seconds that are measured in each turn [default: 5; 2.5 with --quick]
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds of the same load before that [default: 2; 1 with --quick]
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
/// How long a peer comes to rest before its memory without load is looked at, or after it stood still.
const REST: Duration = Duration::from_secs(2);
const RESUME: Duration = Duration::from_millis(200);
/// How long a peer gets to remove the files of a deleted topic.
const DELETED: Duration = Duration::from_millis(600);
/// What a turn takes beside what is measured, about; and what a peer takes to start.
const TURN_SECONDS: f64 = 1.2;
const START_SECONDS: f64 = 7.0;

impl Compare {
    /// Compares, writes the report, and gives the run to keep; none if it was only asked for the list.
    pub fn run(&self) -> Result<Option<Run>, Problem> {
        let lines = self.lines()?;
        let span = Span {
            warm_up: Duration::try_from_secs_f64(self.warm_up.unwrap_or(if self.quick { 1.0 } else { 2.0 }))?,
            measure: Some(Duration::try_from_secs_f64(self.seconds.unwrap_or(if self.quick {
                2.5
            } else {
                5.0
            }))?),
        };
        let turns = self.reps.unwrap_or(if self.quick { 2 } else { 4 });
        let cells = self.cells(&lines);
        let estimate = self.estimate(cells, turns, span);
        if self.list {
            for line in &lines {
                println!("{:20}{}", line.name, line.title);
            }
            println!(
                "{} rows, {} peers, {turns} turns each: {}",
                lines.len(),
                self.peers.len(),
                minutes(estimate)
            );
            return Ok(None);
        }
        raw::note_interrupts();
        std::fs::create_dir_all(&self.dir)?;
        clean_up(&self.dir)?;
        let scratch = self.dir.join(format!("compare-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        let compared = self.compare(&lines, turns, span, estimate, &scratch);
        std::fs::remove_dir_all(&scratch)?;
        compared.map(Some)
    }

    fn lines(&self) -> Result<Vec<Line>, Problem> {
        let all = plan::lines();
        if let Some(unknown) = self.only.iter().find(|only| all.iter().all(|line| line.name != **only)) {
            let names: Vec<&str> = all.iter().map(|line| line.name.as_str()).collect();
            return Err(format!("--only: there is no row {unknown}; there are {}", names.join(", ")).into());
        }
        let chosen = |line: &Line| {
            if self.only.is_empty() { !self.quick || line.quick } else { self.only.contains(&line.name) }
        };
        Ok(all.into_iter().filter(chosen).collect())
    }

    /// Rows of each peer, all together.
    fn cells(&self, lines: &[Line]) -> usize {
        lines.iter().map(|line| self.peers.iter().filter(|&&peer| line.load.concerns(peer)).count()).sum()
    }

    fn estimate(&self, cells: usize, turns: u16, span: Span) -> f64 {
        let turn = (span.warm_up + span.measure.unwrap_or_default()).as_secs_f64() + TURN_SECONDS;
        turn * cells as f64 * f64::from(turns) + START_SECONDS * self.peers.len() as f64
    }

    fn compare(
        &self,
        lines: &[Line],
        turns: u16,
        span: Span,
        estimate: f64,
        scratch: &std::path::Path,
    ) -> Result<Run, Problem> {
        let commit = machine::commit();
        let plan = json!({
            "commit": commit, "lines": lines, "turns": turns, "peers": self.peers, "heap": self.heap,
            "seconds": span.measure, "warm_up": span.warm_up, "cpus": self.cpus()?,
        });
        let mut journal = Journal::open(&self.out.join("turns.jsonl"), &plan, self.fresh)?;
        eprintln!(
            "{} rows, {} peers, {turns} turns each: {}{}",
            lines.len(),
            self.peers.len(),
            minutes(estimate),
            if journal.resumed { ", less what was measured before the interruption" } else { "" }
        );
        let setup = Setup {
            scratch: scratch.to_owned(),
            cache: self.cache.clone(),
            millstream: self.millstream.clone(),
            heap: self.heap.clone(),
        };
        let others = Others::start();
        let mut stage = Stage { setup, peers: BTreeMap::new(), cpus: self.cpus()?, span };
        for &peer in &self.peers {
            if Compare::missing(&journal, lines, peer, turns) {
                eprintln!("starting {}", peer.title());
                stage.start(peer, &mut journal)?;
            }
        }
        self.measure(lines, turns, &mut stage, &mut journal)?;
        drop(stage);
        if raw::interrupted() {
            self.write(
                lines,
                turns,
                span,
                &journal,
                vec!["interrupted: not everything was measured".to_owned()],
            )?;
            return Err("interrupted; the same command goes on from here".into());
        }
        journal.add(Entry::Complete)?;
        let mut notes = Vec::new();
        if journal.resumed {
            notes.push("measured in several sittings".to_owned());
        }
        let rows = self.rows(lines, &journal);
        let run = Run::ended(&self.dir, &others, "acks=all where a row does not say otherwise", notes, rows);
        self.write(lines, turns, span, &journal, run.notes.clone())?;
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

    /// Whether anything of a peer is still to be measured.
    fn missing(journal: &Journal, lines: &[Line], peer: Kind, turns: u16) -> bool {
        lines.iter().filter(|line| line.load.concerns(peer)).any(|line| {
            !journal.failed(&line.name, peer) && journal.turns(&line.name, peer) < usize::from(turns)
        })
    }

    fn measure(
        &self,
        lines: &[Line],
        turns: u16,
        stage: &mut Stage,
        journal: &mut Journal,
    ) -> Result<(), Problem> {
        let bar = ProgressBar::new((self.cells(lines) * usize::from(turns)) as u64);
        let style = "{elapsed_precise} [{bar:40}] {pos}/{len}, {eta} left: {msg}";
        bar.set_style(ProgressStyle::with_template(style)?.progress_chars("=> "));
        for line in lines {
            if bar.is_hidden() {
                eprintln!("  {}", line.title);
            }
            for number in 1..=turns {
                for &kind in self.peers.iter().filter(|&&peer| line.load.concerns(peer)) {
                    bar.inc(1);
                    let done = journal.turns(&line.name, kind) >= usize::from(number);
                    if done || journal.failed(&line.name, kind) || !stage.peers.contains_key(&kind) {
                        continue;
                    }
                    bar.set_message(format!("{}, {}", line.name, kind.title()));
                    check_space(&self.dir)?;
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
                            journal.add(Entry::Failed {
                                line: Some(line),
                                peer,
                                why: problem.to_string(),
                            })?;
                            stage.start_again(kind, journal)?;
                        }
                    }
                }
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn outcome<'a>(&self, lines: &'a [Line], journal: &'a Journal) -> Outcome<'a> {
        Outcome::of(lines.iter().collect(), self.peers.clone(), journal.entries())
    }

    /// Every figure, for `runs.jsonl`.
    fn rows(&self, lines: &[Line], journal: &Journal) -> Vec<crate::results::Row> {
        let outcome = self.outcome(lines, journal);
        let mut rows = Vec::new();
        for line in lines {
            for &peer in self.peers.iter().filter(|&&peer| line.load.concerns(peer)) {
                let cell = outcome.cell(&line.name, peer);
                let name = format!("{}, {}", line.name, peer.title());
                if let Some(why) = cell.failure {
                    rows.push(crate::results::Row::failed(&name, crate::results::Bar::Reported, why));
                }
                rows.extend(turn::rows(&name, &cell.turns));
            }
        }
        rows.extend(bars::bars(&outcome));
        rows
    }

    /// Writes the report, with its plots, as Markdown and as a page.
    fn write(
        &self,
        lines: &[Line],
        turns: u16,
        span: Span,
        journal: &Journal,
        notes: Vec<String>,
    ) -> Result<(), Problem> {
        let machine = Machine::of(&self.dir);
        let (commit, command) = (machine::commit(), command());
        let measure = span.measure.unwrap_or_default().as_secs_f64();
        let head = report::Head {
            machine: &machine,
            commit: &commit,
            command: &command,
            turns: format!(
                "{turns} turns of {measure} s after {} s of warm-up for each row and peer, interleaved",
                span.warm_up.as_secs_f64()
            ),
            notes: &notes,
        };
        let pieces = report::report(&head, &self.outcome(lines, journal))?;
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

/// The peers that serve, and how they are loaded.
struct Stage {
    setup: Setup,
    peers: BTreeMap<Kind, Peer>,
    cpus: Vec<usize>,
    span: Span,
}

impl Stage {
    /// Starts a peer and has it stand still; one that does not start is noted.
    fn start(&mut self, kind: Kind, journal: &mut Journal) -> Result<(), Problem> {
        let peer = match Peer::start(kind, &self.setup) {
            Ok(peer) => peer,
            Err(_) if raw::interrupted() => return Ok(()),
            Err(problem) => {
                eprintln!("{problem}");
                return journal.add(Entry::Failed { line: None, peer: kind, why: problem.to_string() });
            }
        };
        sleep(REST);
        journal.add(Entry::Peer(PeerFacts {
            peer: kind,
            version: peer.version.clone(),
            settings: peer.settings.clone(),
            idle_rss_mib: peer.processes().rss_kib().map(|kib| kib / 1024.0),
        }))?;
        peer.pause();
        self.peers.insert(kind, peer);
        Ok(())
    }

    /// Starts a peer anew, which may have died.
    fn start_again(&mut self, kind: Kind, journal: &mut Journal) -> Result<(), Problem> {
        self.peers.remove(&kind);
        self.start(kind, journal)
    }

    /// Loads a peer once, while the others stand still.
    fn turn(&mut self, line: &Line, kind: Kind) -> Result<Turn, Problem> {
        let peer = self.peers.get_mut(&kind).ok_or("it does not run")?;
        give(peer, &line.load, kind == Kind::RabbitMqQuorum, &self.cpus, self.span)
    }
}

/// Gives a load to a peer that stands still, and has it stand still again.
pub fn give(
    peer: &mut Peer,
    load: &Load,
    quorum_queue: bool,
    cpus: &[usize],
    span: Span,
) -> Result<Turn, Problem> {
    raw::sync();
    peer.resume();
    sleep(RESUME);
    let (address, amqp, processes) = (peer.address, peer.amqp(), peer.processes());
    let turn = match load {
        Load::Log(workload) => {
            let target = Target { address, processes: &processes, cpus, settings: &[], records: None };
            log::load(&target, &workload.clone().checked()?, span)
        }
        Load::Queue(workload) => {
            let workload = Queues { quorum_queue, ..workload.clone().checked()? };
            queue::load(&Broker::at(amqp), &processes, cpus, &workload, span)
        }
    };
    let ended = peer.ended();
    if matches!(load, Load::Log(_)) && !load.is_paced() {
        // What was written is deleted now, and not while the peer is measured the next time.
        sleep(DELETED);
    }
    peer.pause();
    turn.map_err(|problem| match ended {
        Some(why) => format!("{problem}; {why}").into(),
        None => problem,
    })
}

/// Removes what a comparison has left behind that was killed without a word.
pub fn clean_up(dir: &std::path::Path) -> Result<(), Problem> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("compare-")?.parse::<u32>().ok());
        if process.is_some_and(|process| !std::path::Path::new(&format!("/proc/{process}")).exists()) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn check_space(dir: &std::path::Path) -> Result<(), Problem> {
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

fn minutes(seconds: f64) -> String {
    format!("about {:.0} minutes", (seconds / 60.0).max(1.0))
}

/// The command that repeats this.
fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release -p millstream-bench -- {}", arguments.join(" "))
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
        let why = compare(&["--only", "produce-1k,nonsense"]).unwrap().lines().unwrap_err().to_string();
        assert!(why.contains("nonsense") && why.contains("latency-100"), "{why}");
        assert!(compare(&["--peers", "nobody"]).err().unwrap().contains("nobody"));
    }

    #[test]
    fn the_quick_comparison_ends_within_five_minutes() {
        let quick = compare(&["--quick"]).unwrap();
        let span = Span { warm_up: Duration::from_secs(1), measure: Some(Duration::from_millis(2500)) };
        let estimate = quick.estimate(quick.cells(&quick.lines().unwrap()), 2, span);
        assert!(estimate < 5.0 * 60.0, "{estimate} s");
    }

    #[test]
    fn what_a_killed_comparison_left_behind_is_removed_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("millbench-{}-clean", std::process::id()));
        let own = format!("compare-{}", std::process::id());
        for name in ["compare-999999999", "compare-x", &own, "other"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        clean_up(&dir).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [own.as_str(), "compare-x", "other"]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
