//! How figures come about: cases run in turns, again and again, so that whatever the machine does meanwhile falls on
//! all of them alike; a figure is the median over the turns, and its spread is printed with it.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::raw;

/// What went wrong, in a sentence for the one who runs the harness.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Latencies in nanoseconds, up to a minute, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constants in order")
}

/// Something that is measured for a while, several times.
pub trait Case {
    /// What it is called in the tables and in `runs.jsonl`.
    fn name(&self) -> String;
    /// Measures for about `span`.
    fn run(&mut self, span: Duration) -> Result<Outcome, Problem>;
}

/// What one turn of a case came to.
#[derive(Default)]
pub struct Outcome {
    /// Latencies in nanoseconds, if the case has any.
    pub latency: Option<Histogram<u64>>,
    /// Other figures, each with its unit; at most one per unit.
    pub figures: Vec<(&'static str, f64)>,
}

impl Outcome {
    /// Adds a figure.
    #[must_use]
    pub fn with(mut self, unit: &'static str, value: f64) -> Outcome {
        self.figures.push((unit, value));
        self
    }

    /// Adds latencies.
    #[must_use]
    pub fn with_latency(mut self, latency: Histogram<u64>) -> Outcome {
        self.latency = Some(latency);
        self
    }

    /// One figure of this turn; `None` if the case does not have it.
    pub fn get(&self, of: Of) -> Option<f64> {
        match of {
            Of::Percentile(percent) => {
                self.latency.as_ref().map(|latency| latency.value_at_percentile(percent) as f64 / 1e3)
            }
            Of::Figure(unit) => self.figures.iter().find(|(name, _)| *name == unit).map(|&(_, value)| value),
        }
    }
}

/// Which figure of an outcome.
#[derive(Clone, Copy)]
pub enum Of {
    /// A percentile of the latency, in microseconds.
    Percentile(f64),
    /// The figure with this unit.
    Figure(&'static str),
}

/// Bytes over a span, in MB/s.
pub fn mb_per_second(bytes: u64, span: Duration) -> f64 {
    bytes as f64 / 1e6 / span.as_secs_f64()
}

/// Processor time per byte, in ms/GB.
pub fn cpu_ms_per_gb(cpu: Duration, bytes: u64) -> f64 {
    cpu.as_secs_f64() * 1e3 / (bytes as f64 / 1e9)
}

/// A case and what its turns came to.
pub struct Measured {
    /// The case's name.
    pub name: String,
    /// One per turn.
    pub turns: Vec<Outcome>,
    /// Why it was given up, if it was.
    pub failure: Option<String>,
}

impl Measured {
    /// One figure, turn by turn.
    pub fn series(&self, of: Of) -> Vec<f64> {
        self.turns.iter().filter_map(|turn| turn.get(of)).collect()
    }
}

/// Runs every case for `span`, `turns` times, in turns. A case that fails is given up and says why; the others go on. After
/// Ctrl-C no turn begins.
pub fn interleave(cases: &mut [Box<dyn Case + '_>], turns: usize, span: Duration) -> Vec<Measured> {
    let mut measured: Vec<Measured> =
        cases.iter().map(|case| Measured { name: case.name(), turns: Vec::new(), failure: None }).collect();
    for turn in 1..=turns {
        for (case, measured) in cases.iter_mut().zip(&mut measured).filter(|(_, m)| m.failure.is_none()) {
            if raw::interrupted() {
                measured.failure = Some("interrupted".to_owned());
                continue;
            }
            eprintln!("  turn {turn} of {turns}: {}", measured.name);
            match case.run(span) {
                Ok(outcome) => measured.turns.push(outcome),
                Err(problem) => measured.failure = Some(problem.to_string()),
            }
        }
    }
    measured
}

/// The middle of some figures and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure, none of them NaN; else `None`.
    pub fn of(figures: &[f64]) -> Option<Spread> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        if sorted.iter().any(|figure| figure.is_nan()) {
            return None;
        }
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            *sorted.get(middle)?
        } else {
            f64::midpoint(*sorted.get(middle - 1)?, *sorted.get(middle)?)
        };
        Some(Spread { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(&[9.0, 1.0, 2.0]).map(|spread| spread.median), Some(2.0));
        assert_eq!(Spread::of(&[]), None);
    }

    struct Counting(u32);
    impl Case for Counting {
        fn name(&self) -> String {
            "counting".to_owned()
        }
        fn run(&mut self, _: Duration) -> Result<Outcome, Problem> {
            self.0 += 1;
            if self.0 == 2 { Err("broke".into()) } else { Ok(Outcome::default().with("turns", 1.0)) }
        }
    }

    #[test]
    fn a_case_that_fails_keeps_its_earlier_turns_and_stops_nobody() {
        let mut cases: Vec<Box<dyn Case>> = vec![Box::new(Counting(0)), Box::new(Counting(10))];
        let measured = interleave(&mut cases, 3, Duration::ZERO);
        assert_eq!(measured[0].series(Of::Figure("turns")).len(), 1);
        assert_eq!(measured[0].failure.as_deref(), Some("broke"));
        assert_eq!(measured[1].series(Of::Figure("turns")).len(), 3);
    }
}
