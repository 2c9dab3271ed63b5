//! What Millstream is to reach beside Kafka, in the same run, with the same client.

use super::outcome::{Cell, Outcome};
use super::plan::{Load, RATE};
use crate::load::turn::{END_TO_END, PRODUCE, SERVER_CPU};
use crate::log::workload::Mode;
use crate::peers::Kind;
use crate::results::{Bar, Row};

/// Throughput with a flush, over Kafka's without one.
const THROUGHPUT: Bar = Bar::AtLeast(1.0);
/// Processor time per record over Kafka's, for records of 100 B, and of 1 KiB.
const CPU_SMALL: Bar = Bar::AtMost(0.25);
const CPU_LARGE: Bar = Bar::AtMost(0.5);
/// The 99th percentile of a latency over Kafka's; or over the null endpoint's, if that is more.
const LATENCY: f64 = 0.2;
const LATENCY_NULL: f64 = 1.5;
/// Memory without load over Kafka's.
const IDLE_MEMORY: Bar = Bar::AtMost(0.1);

/// The rows whose throughput and processor time are judged.
const JUDGED: [&str; 4] = ["produce-1k", "produce-100", "produce-1k-default", "produce-100-default"];

/// The bars, each with what was measured. There are none without Millstream and Kafka.
pub fn bars(outcome: &Outcome<'_>) -> Vec<Row> {
    let both = [Kind::Millstream, Kind::Kafka].iter().all(|peer| outcome.peers.contains(peer));
    if !both {
        return Vec::new();
    }
    let mut rows = Vec::new();
    for line in &outcome.lines {
        let Load::Log(workload) = &line.load else { continue };
        let (own, kafka, null) = (
            outcome.cell(&line.name, Kind::Millstream),
            outcome.cell(&line.name, Kind::Kafka),
            outcome.cell(&line.name, Kind::Null),
        );
        let title = &line.title;
        if JUDGED.contains(&line.name.as_str()) {
            let rate = |cell: &Cell| cell.rate().map(|rate| rate.median);
            rows.push(over(
                &format!("{title}: throughput over Kafka's"),
                rate(&own),
                rate(&kafka),
                THROUGHPUT,
            ));
            let cpu = |cell: &Cell| cell.figure(SERVER_CPU).map(|cpu| cpu.median);
            let bar = if workload.record_size < 1024 { CPU_SMALL } else { CPU_LARGE };
            rows.push(over(
                &format!("{title}: server CPU per record over Kafka's"),
                cpu(&own),
                cpu(&kafka),
                bar,
            ));
        }
        if workload.mode == Mode::EndToEnd && (workload.throughput - RATE).abs() < 1.0 {
            for latency in [PRODUCE, END_TO_END] {
                let p99 = |cell: &Cell| cell.percentile(latency, 99.0).map(|p99| p99.median);
                let bar = match (p99(&null), p99(&kafka)) {
                    (Some(null), Some(kafka)) => LATENCY.max(LATENCY_NULL * null / kafka),
                    _ => LATENCY,
                };
                let bar = Bar::AtMost((bar * 1000.0).round() / 1000.0);
                rows.push(over(&format!("{title}: {latency} p99 over Kafka's"), p99(&own), p99(&kafka), bar));
            }
        }
    }
    let idle = |peer| outcome.facts(peer).and_then(|facts| facts.idle_rss_mib);
    rows.push(over(
        "resident memory without load over Kafka's",
        idle(Kind::Millstream),
        idle(Kind::Kafka),
        IDLE_MEMORY,
    ));
    rows
}

fn over(name: &str, own: Option<f64>, kafka: Option<f64>, bar: Bar) -> Row {
    match (own, kafka) {
        (Some(own), Some(kafka)) => Row::figure(name, "ratio", &[own / kafka], bar),
        _ => Row::failed(name, bar, "one of the two was not measured"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::{Entry, PeerFacts};
    use super::super::plan::lines;
    use super::*;
    use crate::load::turn::{Latency, SENT, Turn};
    use crate::measure::histogram;

    fn entry(line: &str, peer: Kind, rate: f64, cpu: f64, p99_us: u64) -> Entry {
        let mut latency = histogram();
        latency.saturating_record_n(p99_us * 1000, 100);
        let mut turn = Turn::default();
        turn.figure(SENT, rate);
        turn.figure(SERVER_CPU, cpu);
        turn.latencies.push((PRODUCE.to_owned(), Latency::of(&latency)));
        Entry::Turn { line: line.to_owned(), peer, turn }
    }

    #[test]
    fn a_bar_is_met_or_missed_by_the_medians_of_one_run() {
        let idle = |peer, mib| {
            Entry::Peer(PeerFacts {
                peer,
                version: String::new(),
                settings: String::new(),
                idle_rss_mib: Some(mib),
            })
        };
        let entries = [
            idle(Kind::Millstream, 30.0),
            idle(Kind::Kafka, 400.0),
            entry("produce-100", Kind::Millstream, 900.0, 0.3, 1),
            entry("produce-100", Kind::Kafka, 1000.0, 1.0, 1),
            entry("latency-100", Kind::Millstream, 1.0, 1.0, 290),
            entry("latency-100", Kind::Kafka, 1.0, 1.0, 1000),
            entry("latency-100", Kind::Null, 1.0, 1.0, 200),
        ];
        let all = lines();
        let lines =
            all.iter().filter(|line| ["produce-100", "latency-100"].contains(&line.name.as_str())).collect();
        let outcome = Outcome::of(lines, vec![Kind::Millstream, Kind::Kafka, Kind::Null], &entries);
        let bars = bars(&outcome);
        let met = |word: &str| bars.iter().find(|row| row.name.contains(word)).unwrap().met;
        assert_eq!(met("throughput"), Some(false));
        assert_eq!(met("CPU"), Some(false));
        assert_eq!(met("produce latency"), Some(true), "1.5 times the null endpoint's is allowed");
        assert_eq!(met("end-to-end"), None, "nothing was measured");
        assert_eq!(met("resident memory"), Some(true));
    }
}
