//! Rates: how numbers that only rise, and lengths of queues, have changed while somebody was looking.
//!
//! What is asked about is looked at again every five seconds, for some minutes after it was asked about last, and the numbers of the last
//! minutes are kept. So nobody pays for what nobody looks at, and a rate is that between the last two looks; at first there is
//! none. A history is as long as the memory for all of them allows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use millstream_engine::types::QueueId;
use serde_json::{Map, Value, json};

use super::query::Query;
use crate::limits::{SAMPLED_MAX, SAMPLED_NUMBERS_MAX, SAMPLES_KEPT_MAX};

/// How often numbers are looked at.
pub const EVERY: Duration = Duration::from_secs(5);
const EVERY_MS: i64 = EVERY.as_millis() as i64;
/// How long after somebody has asked, in milliseconds.
const ASKED_MS: i64 = 5 * 60_000;

/// Whose numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// The node's.
    Node,
    /// A queue's.
    Queue(QueueId),
    /// An exchange's, by vhost and name.
    Exchange(Vec<u8>, Vec<u8>),
    /// A connection's, by name.
    Connection(String),
    /// A channel's, by name.
    Channel(String),
}

/// What a subject has, at some time.
pub type Numbers = Vec<(&'static str, u64)>;

#[derive(Debug)]
struct Series {
    asked_ms: i64,
    /// When, and the numbers in their order, the newest last.
    points: VecDeque<(i64, Box<[u64]>)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Samples {
    series: BTreeMap<Subject, Series>,
    /// Numbers that all subjects have at one time.
    numbers: usize,
}

impl Samples {
    /// Somebody asks about a subject that has these numbers.
    pub fn asked(&mut self, subject: &Subject, now_ms: i64, numbers: &Numbers) {
        if let Some(series) = self.series.get_mut(subject) {
            series.asked_ms = now_ms;
        } else if self.series.len() < SAMPLED_MAX {
            let points = VecDeque::from([(now_ms, values(numbers))]);
            self.series.insert(subject.clone(), Series { asked_ms: now_ms, points });
            self.numbers += numbers.len();
        }
    }

    /// A subject has these numbers now. What nobody asks about is not kept.
    pub fn note(&mut self, subject: &Subject, now_ms: i64, numbers: &Numbers) {
        let most = (SAMPLED_NUMBERS_MAX / self.numbers.max(1)).clamp(2, SAMPLES_KEPT_MAX);
        let Some(series) = self.series.get_mut(subject) else { return };
        if series.points.back().is_none_or(|(at, _)| *at < now_ms) {
            series.points.push_back((now_ms, values(numbers)));
        }
        while series.points.len() > most {
            series.points.pop_front();
        }
    }

    /// Forgets what nobody has asked about for long, and what is not there any more: of that there was no news for as long.
    pub fn forget(&mut self, now_ms: i64) {
        let is_old = |at_ms: i64| now_ms - at_ms > ASKED_MS;
        self.series.retain(|_, series| {
            !is_old(series.asked_ms) && series.points.back().is_some_and(|(at, _)| !is_old(*at))
        });
        let numbers = |series: &Series| series.points.back().map_or(0, |(_, numbers)| numbers.len());
        self.numbers = self.series.values().map(numbers).sum();
    }

    /// What somebody asks about.
    pub fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.series.keys()
    }

    /// What is told of the number in this place beside the number itself: its rate, and its history if a span is asked for.
    fn details(&self, subject: &Subject, place: usize, now_ms: i64, span: Option<Span>) -> Value {
        let none = VecDeque::new();
        let points = self.series.get(subject).map_or(&none, |series| &series.points);
        let at = |point: &(i64, Box<[u64]>)| (point.0, point.1.get(place).copied().unwrap_or(0));
        let last_two = points.len().checked_sub(2).and_then(|first| {
            let ((from, before), (to, now)) = (at(points.get(first)?), at(points.back()?));
            // Of what is not looked at any more nothing is known.
            (now_ms - to <= 2 * EVERY_MS).then(|| rate(before, now, to - from))
        });
        let mut details = json!({"rate": last_two.unwrap_or(0.0)});
        if let (Some(span), Some(object)) = (span, details.as_object_mut()) {
            let newest_ms = now_ms - now_ms.rem_euclid(span.step_ms);
            let times = (0..=span.steps).map(|step| newest_ms - span.step_ms * i64::from(step));
            // What was before the first look is as it was then.
            let known = |time: i64| {
                let behind = points.partition_point(|(at, _)| *at <= time);
                points.get(behind.saturating_sub(1)).map_or(0, |point| at(point).1)
            };
            let samples: Vec<(i64, u64)> = times.map(|time| (time, known(time))).collect();
            let (first, last) =
                (samples.last().map_or(0, |one| one.1), samples.first().map_or(0, |one| one.1));
            let sum: u64 = samples.iter().map(|(_, sample)| sample).sum();
            let list = samples.iter().map(|(at, sample)| json!({"sample": sample, "timestamp": at}));
            object.insert("samples".to_owned(), list.collect());
            object.insert("avg".to_owned(), json!(sum as f64 / samples.len() as f64));
            let span_ms = span.step_ms * i64::from(span.steps);
            object.insert("avg_rate".to_owned(), json!(rate(first, last, span_ms)));
        }
        details
    }

    /// Puts numbers into an object, each with its details.
    pub fn tell(
        &self,
        object: &mut Map<String, Value>,
        subject: &Subject,
        numbers: &Numbers,
        (now_ms, span): (i64, Option<Span>),
        which: impl Fn(&str) -> bool,
    ) {
        for (place, (name, number)) in numbers.iter().enumerate().filter(|(_, (name, _))| which(name)) {
            object.insert((*name).to_owned(), json!(number));
            object.insert(format!("{name}_details"), self.details(subject, place, now_ms, span));
        }
    }
}

fn values(numbers: &Numbers) -> Box<[u64]> {
    numbers.iter().map(|(_, number)| *number).collect()
}

/// By how much a number has changed, in a second.
fn rate(before: u64, now: u64, span_ms: i64) -> f64 {
    if span_ms <= 0 {
        return 0.0;
    }
    (now as f64 - before as f64) * 1000.0 / span_ms as f64
}

/// What history is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    step_ms: i64,
    steps: u16,
}

impl Span {
    /// Reads parameters like `lengths_age` and `lengths_incr`, in seconds.
    pub fn read(query: &Query, of: &str) -> Option<Span> {
        let seconds = |what: &str| query.get(&format!("{of}_{what}"))?.parse::<u16>().ok().filter(|n| *n > 0);
        let (age, step) = (seconds("age")?, seconds("incr")?);
        let steps = (age / step).min(SAMPLES_KEPT_MAX as u16 * 8);
        Some(Span { step_ms: i64::from(step) * 1000, steps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(publish: u64) -> Numbers {
        vec![("publish", publish), ("ack", 7)]
    }

    fn told(samples: &Samples, now_ms: i64, span: Option<Span>) -> Value {
        let mut object = Map::new();
        samples.tell(&mut object, &Subject::Node, &numbers(0), (now_ms, span), |name| name == "publish");
        object.remove("publish_details").expect("it is told")
    }

    #[test]
    fn a_rate_is_that_between_the_last_two_looks() {
        let mut samples = Samples::default();
        assert_eq!(told(&samples, 0, None), json!({"rate": 0.0}), "nobody has asked");
        samples.note(&Subject::Node, 0, &numbers(5));
        samples.asked(&Subject::Node, 0, &numbers(5));
        samples.asked(&Subject::Node, 1, &numbers(9));
        assert_eq!(told(&samples, 1, None), json!({"rate": 0.0}), "there was one look");
        samples.note(&Subject::Node, 5_000, &numbers(55));
        samples.note(&Subject::Node, 10_000, &numbers(56));
        assert_eq!(told(&samples, 11_000, None), json!({"rate": 0.2}));
        assert_eq!(told(&samples, 30_000, None), json!({"rate": 0.0}), "it was long ago");
    }

    #[test]
    fn a_history_has_a_number_for_each_step() {
        let mut samples = Samples::default();
        samples.asked(&Subject::Node, 4_000, &numbers(10));
        for (at, number) in [(9_000, 20), (14_000, 60)] {
            samples.note(&Subject::Node, at, &numbers(number));
        }
        let query = Query::read("msg_rates_age=15&msg_rates_incr=5&lengths_age=0&lengths_incr=5").unwrap();
        assert_eq!(Span::read(&query, "lengths"), None);
        let history = told(&samples, 15_500, Span::read(&query, "msg_rates"));
        let at = |timestamp: i64, sample: u64| json!({"sample": sample, "timestamp": timestamp});
        assert_eq!(history["samples"], json!([at(15_000, 60), at(10_000, 20), at(5_000, 10), at(0, 10)]));
        assert_eq!((&history["avg"], &history["avg_rate"]), (&json!(25.0), &json!(50.0 / 15.0)));
    }

    #[test]
    fn what_nobody_asks_about_is_forgotten_and_memory_is_bounded() {
        let mut samples = Samples::default();
        for number in 0..SAMPLED_MAX + 10 {
            samples.asked(&Subject::Channel(number.to_string()), 0, &numbers(1));
        }
        assert_eq!(samples.series.len(), SAMPLED_MAX);
        let subject = Subject::Channel("0".to_owned());
        for at in 1..1_000 {
            samples.note(&subject, at * EVERY_MS, &numbers(1));
        }
        let kept = samples.series[&subject].points.len();
        assert!(
            kept >= 2 && kept * samples.numbers <= SAMPLED_NUMBERS_MAX.max(2 * samples.numbers),
            "{kept}"
        );
        samples.asked(&subject, 999 * EVERY_MS, &numbers(1));
        samples.forget(999 * EVERY_MS);
        assert_eq!(samples.subjects().collect::<Vec<_>>(), [&subject]);
        samples.forget(2_000 * EVERY_MS);
        assert_eq!((samples.series.len(), samples.numbers), (0, 0));
    }
}
