//! What one turn of a load came to, in a form that can be kept and read again.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::count::Count;
use super::footprint::Footprint;
use super::window::Window;
use crate::measure::{Spread, histogram};
use crate::results::{Bar, Percentiles, Row};

/// The figures of a turn, by name. The name says the unit.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Turn {
    /// Figures.
    pub figures: Vec<(String, f64)>,
    /// Latencies.
    pub latencies: Vec<(String, Latency)>,
}

/// Records or messages per second that were acknowledged.
pub const SENT: &str = "sent/s";
/// Bytes of payload per second that were acknowledged.
pub const SENT_MB: &str = "sent MB/s";
/// Acknowledgements per second: produce requests, or confirms, each for many records.
pub const REQUESTS: &str = "acknowledgements/s";
/// Records or messages per second that were received.
pub const RECEIVED: &str = "received/s";
/// Bytes per second that were received.
pub const RECEIVED_MB: &str = "received MB/s";
/// Time until a record was acknowledged.
pub const PRODUCE: &str = "produce latency";
/// Time until a consumer had a record.
pub const END_TO_END: &str = "end-to-end latency";
/// The server's processor time per record: the machine's less the client's, so that kernel workers count.
pub const SERVER_CPU: &str = "server CPU us/record";
/// The processor time of the server's processes alone.
pub const PROCESS_CPU: &str = "server process CPU us/record";
/// The client's processor time per record.
pub const CLIENT_CPU: &str = "client CPU us/record";
/// The largest resident memory of the server.
pub const RSS: &str = "server RSS MiB";
/// Bytes that the server's processes wrote to the disk, per byte of payload.
pub const DISK: &str = "disk bytes/byte";
/// Records that were due and were not sent when the turn was given up.
pub const UNSENT: &str = "unsent";

impl Turn {
    /// Of what was counted and used in a window.
    pub fn of(window: &Window, count: &Count, used: &Footprint) -> Turn {
        let until = if window.until_ns == u64::MAX { count.last_ns } else { window.until_ns };
        let seconds = until.saturating_sub(window.from_ns).max(1) as f64 / 1e9;
        let mut turn = Turn::default();
        if count.sent > 0 {
            turn.figure(SENT, count.sent as f64 / seconds);
            turn.figure(SENT_MB, count.sent_bytes as f64 / 1e6 / seconds);
            turn.figure(REQUESTS, count.requests as f64 / seconds);
        }
        if count.received > 0 {
            turn.figure(RECEIVED, count.received as f64 / seconds);
            turn.figure(RECEIVED_MB, count.received_bytes as f64 / 1e6 / seconds);
        }
        // A record that is sent and received is one record.
        let records = count.sent.max(count.received).max(1) as f64;
        turn.figure(SERVER_CPU, used.server.as_secs_f64() * 1e6 / records);
        if let Some(cpu) = used.process {
            turn.figure(PROCESS_CPU, cpu.as_secs_f64() * 1e6 / records);
        }
        turn.figure(CLIENT_CPU, used.client.as_secs_f64() * 1e6 / records);
        if let Some(rss) = used.rss_kib_max {
            turn.figure(RSS, rss / 1024.0);
        }
        if let Some(bytes) = used.disk_bytes.filter(|_| count.sent_bytes > 0) {
            turn.figure(DISK, bytes as f64 / count.sent_bytes as f64);
        }
        if count.unsent > 0 {
            turn.figure(UNSENT, count.unsent as f64);
        }
        turn.latency(PRODUCE, &count.produce);
        turn.latency(END_TO_END, &count.end_to_end);
        turn
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: &str, value: f64) {
        self.figures.push((name.to_owned(), value));
    }

    fn latency(&mut self, name: &str, latency: &Histogram<u64>) {
        if !latency.is_empty() {
            self.latencies.push((name.to_owned(), Latency::of(latency)));
        }
    }

    /// A figure, if this turn has it.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(figure, _)| figure == name).map(|&(_, value)| value)
    }

    /// A latency, if this turn has it.
    pub fn latency_of(&self, name: &str) -> Option<Histogram<u64>> {
        self.latencies.iter().find(|(latency, _)| latency == name).map(|(_, latency)| latency.histogram())
    }
}

/// A histogram of nanoseconds, as pairs of a value and how often it was seen.
#[derive(Clone, Serialize, Deserialize)]
pub struct Latency(Vec<(u64, u64)>);

impl Latency {
    /// Of these.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let seen = histogram.iter_recorded();
        Latency(seen.map(|step| (step.value_iterated_to(), step.count_at_value())).collect())
    }

    /// The same, to be asked.
    pub fn histogram(&self) -> Histogram<u64> {
        let mut whole = histogram();
        for &(value, count) in &self.0 {
            whole.saturating_record_n(value, count);
        }
        whole
    }
}

/// One figure of several turns.
pub fn series(turns: &[Turn], name: &str) -> Vec<f64> {
    turns.iter().filter_map(|turn| turn.get(name)).collect()
}

/// A percentile of each turn's latency, in microseconds.
pub fn percentiles(turns: &[Turn], name: &str, percent: f64) -> Vec<f64> {
    let latencies = turns.iter().filter_map(|turn| turn.latency_of(name));
    latencies.map(|latency| latency.value_at_percentile(percent) as f64 / 1e3).collect()
}

/// A latency over all turns.
pub fn merged(turns: &[Turn], name: &str) -> Histogram<u64> {
    let mut all = histogram();
    for latency in turns.iter().filter_map(|turn| turn.latency_of(name)) {
        all += latency;
    }
    all
}

/// The names of all figures and of all latencies, in the order of their first turn.
pub fn names(turns: &[Turn]) -> (Vec<&str>, Vec<&str>) {
    let (mut figures, mut latencies) = (Vec::new(), Vec::new());
    for turn in turns {
        for (name, _) in &turn.figures {
            if !figures.contains(&name.as_str()) {
                figures.push(name);
            }
        }
        for (name, _) in &turn.latencies {
            if !latencies.contains(&name.as_str()) {
                latencies.push(name);
            }
        }
    }
    (figures, latencies)
}

/// Everything that several turns of one case came to.
pub fn rows(case: &str, turns: &[Turn]) -> Vec<Row> {
    let (figures, latencies) = names(turns);
    let mut rows = Vec::new();
    for name in latencies {
        let all = merged(turns, name);
        let at = |percent| all.value_at_percentile(percent) as f64 / 1e3;
        let mut row = Row::figure(format!("{case}, {name}"), "us", &[], Bar::Reported);
        row.spread = Spread::of(&percentiles(turns, name, 50.0));
        row.failure = None;
        row.n = all.len();
        row.percentiles = Some(Percentiles {
            p50: at(50.0),
            p99: at(99.0),
            p999: at(99.9),
            p9999: at(99.99),
            longest: all.max() as f64 / 1e3,
        });
        rows.push(row);
        let p99 = percentiles(turns, name, 99.0);
        rows.push(Row::figure(format!("{case}, {name}, p99"), "us", &p99, Bar::Reported));
    }
    rows.extend(figures.into_iter().map(|name| Row::figure(case, name, &series(turns, name), Bar::Reported)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_latency_has_the_same_percentiles() {
        let mut latency = histogram();
        for value in 1..10_000_u64 {
            latency.saturating_record(value * 977);
        }
        let kept: Latency =
            serde_json::from_str(&serde_json::to_string(&Latency::of(&latency)).unwrap()).unwrap();
        let again = kept.histogram();
        for percent in [1.0, 50.0, 99.0, 99.99, 100.0] {
            assert_eq!(again.value_at_percentile(percent), latency.value_at_percentile(percent));
        }
        assert_eq!(again.len(), latency.len());
    }

    #[test]
    fn the_median_of_turns_stands_beside_the_percentiles_of_all_operations() {
        let turn = |ns: u64, rate: f64| {
            let mut latency = histogram();
            latency.saturating_record_n(ns, 100);
            let mut turn = Turn::default();
            turn.figure(SENT, rate);
            turn.latency(PRODUCE, &latency);
            turn
        };
        let rows = rows("case", &[turn(1_000, 5.0), turn(3_000, 7.0), turn(9_000, 6.0)]);
        let spread = rows[0].spread.unwrap();
        assert!((2.9..3.1).contains(&spread.median) && spread.max > 8.9, "{spread:?}");
        assert_eq!((rows[0].n, rows[2].unit.as_str(), rows[2].spread.unwrap().median), (300, SENT, 6.0));
    }
}
