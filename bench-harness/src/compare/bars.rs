//! What Millstream is to reach beside Kafka and RabbitMQ, in the same run, with the same client.

use super::outcome::{Cell, Outcome};
use super::plan::{FEW_OR_MANY, Group, Line, Load, ONE_BY_ONE, QUEUE_RATE, RATE, few_or_many_row};
use crate::load::turn::{DISK, END_TO_END, PRODUCE, SERVER_CPU};
use crate::log::workload::{Mode, Workload};
use crate::peers::{Kind, Protocol};
use crate::queue::workload::Workload as Queues;
use crate::results::{Bar, Row};

/// Throughput with a flush, over Kafka's without one.
const THROUGHPUT: Bar = Bar::AtLeast(1.0);
/// Processor time per record over Kafka's, for records of 100 B, and of 1 KiB.
const CPU_SMALL: Bar = Bar::AtMost(0.25);
const CPU_LARGE: Bar = Bar::AtMost(0.5);
/// The 99th percentile of a latency over the peer's; or over the null endpoint's, if that is more.
const LATENCY: f64 = 0.2;
const LATENCY_NULL: f64 = 1.5;
/// Memory without load over Kafka's.
const IDLE_MEMORY: Bar = Bar::AtMost(0.1);
/// Throughput of queues over RabbitMQ's; or over the null endpoint's, if that is less.
const QUEUE_THROUGHPUT: f64 = 10.0;
const QUEUE_THROUGHPUT_NULL: f64 = 0.8;
/// The median confirm of one message at a time, over a bare round trip and a bare durable write.
const CONFIRM: Bar = Bar::AtMost(1.25);
/// Bytes that are written by byte of a message, for a queue that keeps up and whose groups are large.
const WRITTEN: Bar = Bar::AtMost(1.2);

/// Throughput of very many queues over that of one, at the same rate.
const MANY_QUEUES: Bar = Bar::AtLeast(0.75);

/// The rows of logs whose throughput and processor time are judged.
const JUDGED: [&str; 4] = ["produce-1k", "produce-100", "produce-1k-default", "produce-100-default"];
/// The row of queues by which bytes written are judged.
const WRITTEN_ROW: &str = "queue-1-1024-3000";

/// Who takes part in a bar.
pub const PEERS: [Kind; 4] = [Kind::Millstream, Kind::Kafka, Kind::RabbitMq, Kind::Null];

/// Whether a bar is about a row.
pub fn concern(line: &Line) -> bool {
    match &line.load {
        Load::Log(workload) => JUDGED.contains(&line.name.as_str()) || is_latency(workload),
        Load::Queue(_) => {
            matches!(line.group, Group::QueueThroughput | Group::QueueLatency)
                || FEW_OR_MANY.map(few_or_many_row).contains(&line.name)
        }
    }
}

fn is_latency(workload: &Workload) -> bool {
    workload.mode == Mode::EndToEnd && (workload.throughput - RATE).abs() < 1.0
}

/// The bars, each with what was measured. There are none without Millstream and whom it is compared with.
pub fn bars(outcome: &Outcome<'_>) -> Vec<Row> {
    let there = |peer: Kind| outcome.peers.contains(&peer);
    let mut rows = Vec::new();
    if !there(Kind::Millstream) {
        return rows;
    }
    for line in &outcome.lines {
        let cells = Cells::of(outcome, line);
        match &line.load {
            Load::Log(workload) if there(Kind::Kafka) => log(line, workload, &cells, &mut rows),
            Load::Queue(workload) if there(Kind::RabbitMq) => {
                queue(line, workload, &cells, outcome.limits_us(), &mut rows);
            }
            _ => {}
        }
    }
    let [few, many] = FEW_OR_MANY.map(few_or_many_row);
    if let Some(line) = outcome.lines.iter().find(|line| line.name == many) {
        let own = |name: &str| rate(&outcome.cell(name, Kind::Millstream));
        let name = format!("{}: throughput over that of one queue", line.title);
        rows.push(over(&name, own(&many), own(&few), MANY_QUEUES));
    }
    if there(Kind::Kafka) && outcome.lines.iter().any(|line| matches!(line.load, Load::Log(_))) {
        let idle = |peer| outcome.facts(peer).and_then(|facts| facts.idle_rss_mib);
        rows.push(over(
            "resident memory without load over Kafka's",
            idle(Kind::Millstream),
            idle(Kind::Kafka),
            IDLE_MEMORY,
        ));
    }
    rows
}

/// What those whom a bar is about came to in a row.
struct Cells {
    own: Cell,
    other: Cell,
    null: Cell,
    /// The name of the other one.
    name: &'static str,
}

impl Cells {
    fn of(outcome: &Outcome<'_>, line: &Line) -> Cells {
        let other = line.load.reference();
        Cells {
            own: outcome.cell(&line.name, Kind::Millstream),
            other: outcome.cell(&line.name, other),
            null: outcome.cell(&line.name, Kind::Null),
            name: if other.speaks(Protocol::Kafka) { "Kafka" } else { "RabbitMQ" },
        }
    }

    /// The bar of one latency: a fifth of the other's, or what the client and the kernel take anyway.
    fn latency(&self, title: &str, latency: &str, rows: &mut Vec<Row>) {
        let p99 = |cell: &Cell| cell.percentile(latency, 99.0).map(|p99| p99.median);
        let bar = match (p99(&self.null), p99(&self.other)) {
            (Some(null), Some(other)) => LATENCY.max(LATENCY_NULL * null / other),
            _ => LATENCY,
        };
        let name = format!("{title}: {latency} p99 over {}'s", self.name);
        rows.push(over(&name, p99(&self.own), p99(&self.other), Bar::AtMost(rounded(bar))));
    }
}

fn log(line: &Line, workload: &Workload, cells: &Cells, rows: &mut Vec<Row>) {
    let title = &line.title;
    if JUDGED.contains(&line.name.as_str()) {
        let name = format!("{title}: throughput over Kafka's");
        rows.push(over(&name, rate(&cells.own), rate(&cells.other), THROUGHPUT));
        let cpu = |cell: &Cell| cell.figure(SERVER_CPU).map(|cpu| cpu.median);
        let bar = if workload.record_size < 1024 { CPU_SMALL } else { CPU_LARGE };
        let name = format!("{title}: server CPU per record over Kafka's");
        rows.push(over(&name, cpu(&cells.own), cpu(&cells.other), bar));
    }
    if is_latency(workload) {
        cells.latency(title, PRODUCE, rows);
        cells.latency(title, END_TO_END, rows);
    }
}

fn queue(line: &Line, workload: &Queues, cells: &Cells, limits_us: Option<f64>, rows: &mut Vec<Row>) {
    let title = &line.title;
    if line.name == ONE_BY_ONE {
        let p50 = cells.own.percentile(PRODUCE, 50.0).map(|p50| p50.median);
        let name = format!("{title}: confirm p50 over a bare round trip and a bare durable write");
        rows.push(over(&name, p50, limits_us, CONFIRM));
    } else if line.group == Group::QueueThroughput {
        let bar = match (rate(&cells.null), rate(&cells.other)) {
            (Some(null), Some(other)) => QUEUE_THROUGHPUT.min(QUEUE_THROUGHPUT_NULL * null / other),
            _ => QUEUE_THROUGHPUT,
        };
        let name = format!("{title}: throughput over RabbitMQ's");
        rows.push(over(&name, rate(&cells.own), rate(&cells.other), Bar::AtLeast(rounded(bar))));
    }
    if line.name == WRITTEN_ROW {
        let written = cells.own.figure(DISK).map(|written| written.median);
        rows.push(over(&format!("{title}: bytes written by byte"), written, Some(1.0), WRITTEN));
    }
    if line.group == Group::QueueLatency && (line.load.rate() - QUEUE_RATE).abs() < 1.0 {
        if workload.window().is_some() {
            cells.latency(title, PRODUCE, rows);
        }
        cells.latency(title, END_TO_END, rows);
    }
}

fn rate(cell: &Cell) -> Option<f64> {
    cell.rate().map(|rate| rate.median)
}

/// To three digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn over(name: &str, own: Option<f64>, other: Option<f64>, bar: Bar) -> Row {
    match (own, other) {
        (Some(own), Some(other)) => Row::figure(name, "ratio", &[own / other], bar),
        _ => Row::failed(name, bar, "one of the two was not measured"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::{Entry, Limits, PeerFacts};
    use super::super::plan::{lines, queue_row};
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

    #[test]
    fn queues_are_judged_beside_rabbitmq_or_what_the_client_can_do_at_all() {
        let row = queue_row(32, 12, 192);
        let outcome_of = |own, null| {
            let entries = vec![
                entry(&row, Kind::Millstream, own, 1.0, 1),
                entry(&row, Kind::RabbitMq, 100.0, 1.0, 1),
                entry(&row, Kind::Null, null, 1.0, 1),
            ];
            let all = lines();
            let lines: Vec<&Line> = all.iter().filter(|line| line.name == row).collect();
            let peers = vec![Kind::Millstream, Kind::RabbitMq, Kind::Null];
            let bars = bars(&Outcome::of(lines, peers, &entries));
            assert_eq!(bars.len(), 1, "Kafka has no part in it");
            (bars[0].bar.clone().unwrap(), bars[0].met)
        };
        assert_eq!(outcome_of(999.0, 5000.0), (">= 10".to_owned(), Some(false)));
        assert_eq!(outcome_of(1000.0, 5000.0), (">= 10".to_owned(), Some(true)));
        assert_eq!(outcome_of(480.0, 600.0), (">= 4.8".to_owned(), Some(true)));
        assert_eq!(outcome_of(470.0, 600.0), (">= 4.8".to_owned(), Some(false)));
    }

    #[test]
    fn many_queues_are_judged_beside_one() {
        let rows = FEW_OR_MANY.map(few_or_many_row);
        let all = lines();
        let bar_of = |many| {
            let entries = vec![
                entry(&rows[0], Kind::Millstream, 100.0, 1.0, 1),
                entry(&rows[1], Kind::Millstream, many, 1.0, 1),
            ];
            let lines = all.iter().filter(|line| rows.contains(&line.name)).collect();
            bars(&Outcome::of(lines, vec![Kind::Millstream], &entries))
        };
        let met = |many| bar_of(many).iter().map(|row| row.met).collect::<Vec<_>>();
        assert_eq!((met(76.0), met(74.0)), (vec![Some(true)], vec![Some(false)]));
    }

    #[test]
    fn one_message_at_a_time_is_judged_beside_the_machine_itself() {
        let all = lines();
        let line = all.iter().find(|line| line.name == ONE_BY_ONE).unwrap();
        let mut entries = vec![
            entry(ONE_BY_ONE, Kind::Millstream, 1.0, 1.0, 160),
            entry(ONE_BY_ONE, Kind::RabbitMq, 1.0, 1.0, 1),
        ];
        let peers = || vec![Kind::Millstream, Kind::RabbitMq];
        assert_eq!(bars(&Outcome::of(vec![line], peers(), &entries))[0].met, None, "no limits are known");
        let limits = |us| Entry::Limits(Limits { round_trip_us: us, durable_write_us: 100.0 });
        entries.push(limits(30.0));
        assert_eq!(bars(&Outcome::of(vec![line], peers(), &entries))[0].met, Some(true));
        entries[2] = limits(20.0);
        assert_eq!(bars(&Outcome::of(vec![line], peers(), &entries))[0].met, Some(false));
    }
}
