//! What is kept of a run: one line of JSON in `results/runs.jsonl`, enough to judge it and to repeat it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::machine::{self, Machine, Others, placeless};
use crate::measure::{Measured, Of, Problem, Spread, histogram};

/// Other processes may take this share of the processors before the run warns of it.
const OTHERS_SHARE_MAX: f64 = 0.03;

/// One run of the harness.
#[derive(Serialize)]
pub struct Run {
    /// When it ended, in seconds since 1970.
    pub time_s: u64,
    /// The commit that was measured.
    pub commit: String,
    /// Where.
    pub machine: Machine,
    /// The share of the processors that other processes took meanwhile.
    pub others_share: f64,
    /// The command that repeats it.
    pub command: String,
    /// The durability level that its appends asked for.
    pub durability: String,
    /// What else one must know.
    pub notes: Vec<String>,
    /// The figures.
    pub rows: Vec<Row>,
}

/// One figure of a run.
#[derive(Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The unit of all figures of this row.
    pub unit: String,
    /// Over the turns. For a latency, of each turn's median.
    #[serde(flatten)]
    pub spread: Option<Spread>,
    /// Operations for a latency, turns for anything else.
    pub n: u64,
    /// Over all operations of all turns.
    #[serde(flatten)]
    pub percentiles: Option<Percentiles>,
    /// What the figure had to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bar: Option<String>,
    /// Whether it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Serialize)]
pub struct Percentiles {
    /// The median operation's.
    pub p50: f64,
    /// 99 of 100 took at most this.
    pub p99: f64,
    /// 999 of 1,000 took at most this.
    pub p999: f64,
    /// 9,999 of 10,000 took at most this.
    pub p9999: f64,
    /// The longest.
    pub longest: f64,
}

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// It is printed and judged by the reader.
    Reported,
}

impl Bar {
    /// The bar in a few characters; empty if there is none.
    pub fn text(self) -> Option<String> {
        match self {
            Bar::AtMost(limit) => Some(format!("<= {limit}")),
            Bar::AtLeast(limit) => Some(format!(">= {limit}")),
            Bar::Reported => None,
        }
    }

    /// Whether a figure passes; `None` if there is nothing to pass.
    pub fn met(self, figure: f64) -> Option<bool> {
        match self {
            Bar::AtMost(limit) => Some(figure <= limit),
            Bar::AtLeast(limit) => Some(figure >= limit),
            Bar::Reported => None,
        }
    }
}

impl Row {
    /// A figure given turn by turn, and its bar. A row without figures, or without a bar's worth of them, says so.
    pub fn figure(name: impl Into<String>, unit: &str, series: &[f64], bar: Bar) -> Row {
        let spread = Spread::of(series);
        Row {
            name: name.into(),
            unit: unit.to_owned(),
            spread,
            n: series.len() as u64,
            percentiles: None,
            bar: bar.text(),
            met: spread.and_then(|spread| bar.met(spread.median)),
            failure: spread.is_none().then(|| "nothing was measured".to_owned()),
        }
    }

    /// One figure over another, turn by turn, and the bar of their ratio.
    pub fn ratio(name: impl Into<String>, above: &[f64], below: &[f64], bar: Bar) -> Row {
        let series: Vec<f64> = above.iter().zip(below).map(|(above, below)| above / below).collect();
        Row::figure(name, "ratio", &series, bar)
    }

    /// A row without a figure, and why.
    pub fn failed(name: impl Into<String>, bar: Bar, failure: impl Into<String>) -> Row {
        Row { failure: Some(placeless(&failure.into())), ..Row::figure(name, "", &[], bar) }
    }
}

/// Every figure of what was measured: the latency first, then the others; and why it ended early, if it did.
pub fn rows(measured: &[Measured]) -> Vec<Row> {
    let mut rows = Vec::new();
    for case in measured {
        if let Some(failure) = &case.failure {
            rows.push(Row::failed(&case.name, Bar::Reported, failure));
        }
        let mut all = histogram();
        for latency in case.turns.iter().filter_map(|turn| turn.latency.as_ref()) {
            all += latency;
        }
        if !all.is_empty() {
            let mut row = Row::figure(&case.name, "us", &case.series(Of::Percentile(50.0)), Bar::Reported);
            let at = |percent| all.value_at_percentile(percent) as f64 / 1e3;
            row.n = all.len();
            row.percentiles = Some(Percentiles {
                p50: at(50.0),
                p99: at(99.0),
                p999: at(99.9),
                p9999: at(99.99),
                longest: all.max() as f64 / 1e3,
            });
            rows.push(row);
        }
        for &(unit, _) in case.turns.first().map_or(&[][..], |turn| &turn.figures) {
            rows.push(Row::figure(&case.name, unit, &case.series(Of::Figure(unit)), Bar::Reported));
        }
    }
    rows
}

impl Run {
    /// A run that has just ended, measured in `dir`; `others` was started with it.
    pub fn ended(
        dir: &Path,
        others: &Others,
        durability: &str,
        mut notes: Vec<String>,
        rows: Vec<Row>,
    ) -> Run {
        let others_share = others.share();
        if others_share > OTHERS_SHARE_MAX {
            let percent = others_share * 100.0;
            notes.push(format!(
                "other processes took {percent:.0} % of the processors: measure again on a quiet machine"
            ));
        }
        let time_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Run {
            time_s,
            commit: machine::commit(),
            machine: Machine::of(dir),
            others_share,
            command: format!("millbench {}", machine::arguments()),
            durability: durability.to_owned(),
            notes,
            rows,
        }
    }

    /// Appends the run to `file` as one line.
    pub fn append_to(&self, file: &Path) -> Result<(), Problem> {
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        OpenOptions::new().create(true).append(true).open(file)?.write_all(&line)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_judged_on_the_median_of_the_ratios() {
        let row = Row::ratio("x", &[1.0, 4.0, 1.2], &[1.0, 2.0, 1.0], Bar::AtMost(1.3));
        assert_eq!((row.met, row.bar.as_deref()), (Some(true), Some("<= 1.3")));
        let row = Row::ratio("x", &[1.0, 1.4, 1.5], &[1.0, 1.0, 1.0], Bar::AtMost(1.3));
        assert_eq!(row.met, Some(false));
        assert_eq!(Bar::AtLeast(0.9).met(0.89), Some(false));
    }

    #[test]
    fn a_failure_that_is_kept_names_no_folder_of_this_machine() {
        let row = Row::failed("x", Bar::Reported, "/data/me/f: no space");
        assert_eq!(row.failure.as_deref(), Some(".../f: no space"));
    }

    #[test]
    fn a_row_without_figures_has_not_met_its_bar_and_says_why() {
        let row = Row::failed("x", Bar::AtLeast(1.0), "the disk is full");
        assert_eq!((row.met, row.failure.as_deref()), (None, Some("the disk is full")));
        let line = serde_json::to_value(&row).unwrap();
        assert_eq!(line["failure"], "the disk is full");
        assert!(line.get("median").is_none());
    }
}
