//! `millbench regress BASE..HEAD`: builds two commits of Millstream, gives both the same loads in turns, and calls a
//! difference one only if it is larger than the noise.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;

use crate::compare::plan::{self, Line};
use crate::compare::{check_space, give};
use crate::load::Span;
use crate::load::turn::{self, END_TO_END, PRODUCE, RECEIVED, SENT, SERVER_CPU, Turn};
use crate::machine::Others;
use crate::measure::{Problem, Spread};
use crate::peers::{Kind, Peer, Setup};
use crate::results::{Bar, Row, Run};
use crate::{raw, scratch};

/// What `millbench regress` is told.
#[derive(Args)]
pub struct Regress {
    /// Two commits: BASE..HEAD
    range: String,
    /// These rows only; `millbench compare --list` names them
    #[arg(long, value_delimiter = ',', default_values_t = ["produce-1k", "produce-100", "consume-1k", "latency-1k"].map(str::to_owned))]
    only: Vec<String>,
    /// How often each row is measured
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(3..))]
    reps: u16,
    /// Seconds that are measured in each turn
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of the same load before that
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Where the data goes: the disk to measure
    #[arg(long, default_value = "results/scratch")]
    dir: PathBuf,
    /// Where the commits are checked out and built
    #[arg(long, default_value = "target/regress")]
    cache: PathBuf,
}

/// A smaller difference of the medians is none, however little the turns differ.
const SMALLEST: f64 = 0.03;

/// What is said of two series of turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    Noise,
}

/// Compares turns of the base with turns of the head. They differ if no turn of one lies among those of the other, and the
/// medians are apart by more than a little.
fn verdict(base: &[f64], head: &[f64], more_is_better: bool) -> Option<Verdict> {
    let (base, head) = (Spread::of(base)?, Spread::of(head)?);
    let ratio = head.median / base.median;
    let apart = head.min > base.max || head.max < base.min;
    Some(match apart && (ratio - 1.0).abs() > SMALLEST {
        true if (ratio > 1.0) == more_is_better => Verdict::Better,
        true => Verdict::Worse,
        false => Verdict::Noise,
    })
}

/// A figure of head over that of base, turn by turn, and what is said of it. `None` if there is nothing to compare.
fn row(name: &str, base: &[f64], head: &[f64], more_is_better: bool) -> Option<Row> {
    let verdict = verdict(base, head, more_is_better)?;
    let ratio = Row::ratio(format!("{name}: {verdict:?}"), head, base, Bar::Reported);
    Some(Row { unit: "head / base".to_owned(), ..ratio })
}

impl Regress {
    /// Builds, measures, and gives the run to print and to keep.
    pub fn run(&self) -> Result<Run, Problem> {
        let (base, head) = self.range.split_once("..").ok_or("give two commits: BASE..HEAD")?;
        let lines = self.lines()?;
        let span = Span {
            warm_up: Duration::try_from_secs_f64(self.warm_up)?,
            measure: Some(Duration::try_from_secs_f64(self.seconds)?),
        };
        let (base, head) = (self.build(base)?, self.build(head)?);
        raw::note_interrupts();
        scratch::prepare(&self.dir)?;
        check_space(&self.dir)?;
        let scratch = self.dir.join(format!("compare-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        let measured = self.measure(&lines, span, [&base, &head], &scratch);
        std::fs::remove_dir_all(&scratch)?;
        measured
    }

    fn lines(&self) -> Result<Vec<Line>, Problem> {
        let all = plan::lines();
        let known = |name: &String| {
            all.iter().find(|line| line.name == *name && line.load.concerns(Kind::Millstream))
        };
        let chosen =
            self.only.iter().map(|name| known(name).cloned().ok_or_else(|| format!("--only: no row {name}")));
        Ok(chosen.collect::<Result<_, _>>()?)
    }

    /// The binary of a commit, built in a folder of its own unless it is there.
    fn build(&self, commit: &str) -> Result<Built, Problem> {
        let commit = git(&["rev-parse", "--verify", &format!("{commit}^{{commit}}")])
            .map_err(|problem| format!("{commit}: {problem}"))?;
        let folder = self.cache.join(&commit);
        let binary = folder.join("target/release/millstream");
        if !binary.exists() {
            eprintln!("building {commit}");
            std::fs::create_dir_all(&self.cache)?;
            let folder = folder.to_str().ok_or("the folder has no name in UTF-8")?;
            git(&["worktree", "prune"])?;
            if !Path::new(folder).exists() {
                git(&["worktree", "add", "--detach", folder, &commit])?;
            }
            let built = Command::new("cargo")
                .args(["build", "--release", "--package", "millstream", "--target-dir", "target"])
                .current_dir(folder)
                .status()
                .map_err(|error| format!("cargo: {error}"))?;
            if !built.success() {
                return Err(format!("{commit} does not build").into());
            }
        }
        Ok(Built { commit, binary })
    }

    fn measure(
        &self,
        lines: &[Line],
        span: Span,
        builds: [&Built; 2],
        scratch: &Path,
    ) -> Result<Run, Problem> {
        let setup = Setup {
            scratch: scratch.to_owned(),
            cache: self.cache.clone(),
            millstream: None,
            heap: String::new(),
        };
        let mut peers = Vec::new();
        for (name, build) in ["base", "head"].into_iter().zip(builds) {
            let peer = Peer::millstream(&setup, name, &build.binary)?;
            peer.pause();
            peers.push(peer);
        }
        let (others, cpus) = (Others::start(), raw::cpus());
        let mut rows = Vec::new();
        for line in lines {
            let mut turns: [Vec<Turn>; 2] = Default::default();
            for number in 0..usize::from(self.reps) {
                eprintln!("  {}: turn {} of {}", line.name, number + 1, self.reps);
                // Who begins changes from turn to turn.
                for place in [number % 2, 1 - number % 2] {
                    turns[place].push(give(&mut peers[place], &line.load, false, &cpus, span)?);
                }
            }
            rows.extend(judged(line, &turns));
        }
        drop(peers);
        let notes = vec![
            format!("base {}, head {}", builds[0].commit, builds[1].commit),
            "a ratio is head over base, turn by turn; a difference is called only if no turn of one lies among those of the other"
                .to_owned(),
        ];
        Ok(Run::ended(&self.dir, &others, "acks=all", notes, rows))
    }
}

/// A commit and its binary.
struct Built {
    commit: String,
    binary: PathBuf,
}

/// What is said of a line's turns.
fn judged(line: &Line, [base, head]: &[Vec<Turn>; 2]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut judge = |name: &str, base: &[f64], head: &[f64], more_is_better: bool| {
        rows.extend(row(&format!("{}, {name}", line.name), base, head, more_is_better));
    };
    if !line.load.is_paced() {
        for figure in [SENT, RECEIVED] {
            judge(figure, &turn::series(base, figure), &turn::series(head, figure), true);
        }
    }
    judge(SERVER_CPU, &turn::series(base, SERVER_CPU), &turn::series(head, SERVER_CPU), false);
    for latency in [PRODUCE, END_TO_END] {
        for percent in [50.0, 99.0] {
            let of = |turns| turn::percentiles(turns, latency, percent);
            judge(&format!("{latency} p{percent:.0}"), &of(base), &of(head), false);
        }
    }
    rows
}

fn git(arguments: &[&str]) -> Result<String, Problem> {
    let output = Command::new("git").args(arguments).output().map_err(|error| format!("git: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("git {}: {}", arguments.join(" "), why.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_within_the_noise_is_none() {
        let base = [100.0, 90.0, 110.0];
        assert_eq!(verdict(&base, &[120.0, 109.0, 130.0], true).unwrap(), Verdict::Noise);
        assert_eq!(verdict(&base, &[120.0, 111.0, 130.0], true).unwrap(), Verdict::Better);
        assert_eq!(verdict(&base, &[120.0, 111.0, 130.0], false).unwrap(), Verdict::Worse);
        assert_eq!(verdict(&base, &[80.0, 70.0, 85.0], true).unwrap(), Verdict::Worse);
        assert_eq!(
            verdict(&[100.0, 100.1], &[102.0, 102.1], true).unwrap(),
            Verdict::Noise,
            "too small to matter"
        );
        assert_eq!(verdict(&[], &[1.0], true), None);
    }

    #[test]
    fn a_ratio_shows_how_far_its_turns_are_apart() {
        let row = row("produce, sent/s", &[100.0, 90.0, 110.0], &[120.0, 117.0, 132.0], true).unwrap();
        let spread = row.spread.unwrap();
        assert_eq!((row.name.as_str(), row.n), ("produce, sent/s: Better", 3));
        assert_eq!((spread.median, spread.min, spread.max), (1.2, 1.2, 1.3));
    }

    #[test]
    fn a_commit_that_is_not_there_is_named() {
        let why = git(&["rev-parse", "--verify", "no-such-commit^{commit}"]).unwrap_err().to_string();
        assert!(why.contains("no-such-commit"), "{why}");
    }
}
