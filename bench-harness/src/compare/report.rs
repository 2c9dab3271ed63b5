//! The report: tables and plots of everything, losing rows like winning ones.

use super::bars::bars;
use super::outcome::{Cell, Outcome};
use super::plan::{Group, Line, Load, queue_row, thousands};
use crate::doc::plot::{self, Axes};
use crate::doc::{Piece, row};
use crate::load::turn::{
    self, END_TO_END, PROCESS_CPU, PRODUCE, RECEIVED_MB, RSS, SENT_MB, SERVER_CPU, UNSENT,
};
use crate::machine::{Machine, placeless};
use crate::measure::{Problem, Spread};
use crate::peers::{Kind, Protocol};
use crate::results::Row;

/// What stands at the report's head.
pub struct Head<'a> {
    /// Where it was measured.
    pub machine: &'a Machine,
    /// What was measured.
    pub commit: &'a str,
    /// The command that repeats it.
    pub command: &'a str,
    /// How long each turn was, and how many there were.
    pub turns: String,
    /// What else one must know.
    pub notes: &'a [String],
}

/// The whole report.
pub fn report(head: &Head<'_>, outcome: &Outcome<'_>) -> Result<Vec<Piece>, Problem> {
    let mut pieces = vec![Piece::Heading(1, "Millstream beside its peers".to_owned())];
    let machine = head.machine;
    pieces.push(Piece::Text(format!(
        "{}, {} cores, {} GiB of memory, Linux {}, {} on {}. Commit {}. {}. Server and client share all cores.",
        machine.cpu,
        machine.cores,
        machine.memory_bytes >> 30,
        machine.kernel,
        machine.file_system,
        machine.device,
        head.commit,
        head.turns
    )));
    pieces.push(Piece::Command(head.command.to_owned()));
    pieces.extend(head.notes.iter().map(|note| Piece::Text(format!("Note: {note}."))));
    pieces.push(Piece::Heading(2, "Who was measured".to_owned()));
    pieces.push(peers(outcome));
    pieces.push(Piece::Heading(2, "What everyone quotes, and what was measured here".to_owned()));
    pieces.push(quoted(outcome));
    pieces.push(Piece::Text(
        "Small is 100 B for logs and 12 B for queues. Latencies are those at a fixed rate: 20,000 records/s for logs, 5,000 messages/s for queues, of 1 KiB.".to_owned(),
    ));
    let bars = bars(outcome);
    if !bars.is_empty() {
        pieces.push(Piece::Heading(2, "The bars that Millstream is held to".to_owned()));
        pieces.push(judged(&bars));
        let references =
            [Kind::Kafka, Kind::RabbitMq].into_iter().filter(|peer| outcome.peers.contains(peer));
        let references: Vec<String> = references.map(|peer| outcome.named(peer)).collect();
        pieces.push(Piece::Text(format!("Beside {}.", references.join(" and "))));
    }
    for (group, heading) in [
        (Group::Throughput, "Throughput"),
        (Group::Latency, "Latency at a fixed rate"),
        (Group::Load, "Latency against load"),
        (Group::Partitions, "Cost against partitions"),
        (Group::QueueThroughput, "Queues: throughput"),
        (Group::QueueLatency, "Queues: latency at a fixed rate"),
        (Group::QueueLoad, "Queues: latency against load"),
        (Group::Queues, "Queues: cost against their number"),
    ] {
        let lines: Vec<&Line> = outcome.lines.iter().copied().filter(|line| line.group == group).collect();
        if lines.is_empty() {
            continue;
        }
        pieces.push(Piece::Heading(2, heading.to_owned()));
        pieces.extend(plots(group, &lines, outcome)?);
        for line in lines {
            pieces.push(Piece::Heading(3, line.title.clone()));
            pieces.push(table(line, outcome));
        }
    }
    pieces.push(Piece::Heading(2, "How to read this".to_owned()));
    pieces.extend(HOW_TO_READ.iter().map(|text| Piece::Text((*text).to_owned())));
    Ok(pieces)
}

const HOW_TO_READ: &[&str] = &[
    "A figure is the median of the turns, with the smallest and the largest. All peers of a row take turns, so that whatever the machine does falls on all of them; whoever is not measured stands still. A comparison goes through all rows twice; a row is unstable if the medians of the two runs differ by more than 10 %: of its records per second, or, at a fixed rate, of the 99th percentile of its end-to-end latency.",
    "Latencies at a fixed rate are counted from the moment at which a record was due, whether or not it could be sent then: a server that pauses is seen to pause. End-to-end latency ends when a consumer has the record.",
    "Server CPU is the processor time of the whole machine less the load generator's, so that kernel threads that flush and write back count. Process CPU is that of the server's processes alone. What a server leaves in the page cache and the kernel writes back after the turn is in neither.",
    "The null endpoint parses and answers at once and stores nothing: where it is no faster than a server, the client is the limit. While a turn is measured nobody else writes; before each turn the page cache is written out.",
];

fn peers(outcome: &Outcome<'_>) -> Piece {
    let rows = outcome.peers.iter().map(|&peer| {
        let facts = outcome.facts(peer);
        let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            peer.title().to_owned(),
            cell(facts.map(|facts| facts.version.clone())),
            peer.durability().to_owned(),
            cell(facts.and_then(|facts| facts.idle_rss_mib).map(|mib| format!("{mib:.0} MiB"))),
            cell(facts.map(|facts| facts.settings.clone())),
        ]
    });
    Piece::Table(
        row(["peer", "version", "an acknowledged record is", "memory without load", "settings"]),
        rows.collect(),
    )
}

/// The table that everyone quotes.
fn quoted(outcome: &Outcome<'_>) -> Piece {
    let measured = |name: &str, peer: Kind| outcome.cell(name, peer);
    let rate = |peer: Kind, names: [&str; 2]| {
        let of =
            |name: &str| measured(name, peer).rate().map_or("-".to_owned(), |rate| plot::short(rate.median));
        format!("{} / {}", of(names[0]), of(names[1]))
    };
    let latency = |peer: Kind, name: &str| {
        let cell = measured(name, peer);
        let at = |percent| cell.percentile(END_TO_END, percent).map_or("-".to_owned(), |p| ms(p.median));
        format!("{} / {}", at(50.0), at(99.0))
    };
    let line = |name: &str, quoted: [&str; 2], rate: String, latency: String| {
        vec![name.to_owned(), quoted[0].to_owned(), quoted[1].to_owned(), rate, latency]
    };
    let of = |peer, logs: [&str; 2], latency_of: &str| (rate(peer, logs), latency(peer, latency_of));
    let mut rows = Vec::new();
    let everyone = [
        (Kind::RabbitMq, "", ["4-10 K msg/s", "1-5 ms"]),
        (Kind::RabbitMqQuorum, "", ["-", "-"]),
        (Kind::Millstream, ", queues", ["-", "-"]),
        (Kind::Kafka, "", ["1 M+ msg/s", "5-50 ms"]),
        (Kind::Nats, "", ["-", "-"]),
        (Kind::Redis, "", ["-", "-"]),
        (Kind::Millstream, ", logs", ["-", "-"]),
    ];
    let (queue_small, queue_large) = (queue_row(1, 12, 3000), queue_row(1, 1024, 3000));
    for (peer, what, quoted) in everyone.into_iter().filter(|(peer, ..)| outcome.peers.contains(peer)) {
        let queue = !what.contains("logs") && peer.speaks(Protocol::Amqp);
        let names = if queue { [&queue_small[..], &queue_large] } else { ["produce-100", "produce-1k"] };
        let (rate, latency) = of(peer, names, if queue { "queue-latency" } else { "latency-1k" });
        rows.push(line(&format!("{}{what}", peer.title()), quoted, rate, latency));
    }
    let head = row([
        "",
        "quoted throughput",
        "quoted latency",
        "small / 1 KiB per s, measured",
        "end-to-end p50 / p99, ms, measured",
    ]);
    Piece::Table(head, rows)
}

fn judged(bars: &[Row]) -> Piece {
    let rows = bars.iter().map(|bar| {
        let measured = bar.spread.map_or_else(
            || bar.failure.clone().unwrap_or_default(),
            |spread| format!("{:.3}", spread.median),
        );
        let verdict = match bar.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not judged",
        };
        vec![bar.name.clone(), bar.bar.clone().unwrap_or_default(), measured, verdict.to_owned()]
    });
    Piece::Table(row(["", "bar", "measured", ""]), rows.collect())
}

/// Milliseconds, from microseconds.
fn ms(us: f64) -> String {
    format!("{:.2}", us / 1e3)
}

/// A median and what it lies between.
fn spread(spread: Option<Spread>, figure: impl Fn(f64) -> String) -> String {
    spread.map_or("-".to_owned(), |spread| {
        format!("{} ({} to {})", figure(spread.median), figure(spread.min), figure(spread.max))
    })
}

fn table(line: &Line, outcome: &Outcome<'_>) -> Piece {
    let reference = line.load.reference();
    let other = outcome.cell(&line.name, reference).rate().map(|rate| rate.median);
    let other_named = outcome.named(reference);
    let over_other = format!("over {}", other_named.split(',').next().unwrap_or_default());
    let two = |value: f64| format!("{value:.2}");
    let mut head = vec![String::new()];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for &peer in outcome.peers.iter().filter(|&&peer| line.load.concerns(peer)) {
        let cell = outcome.cell(&line.name, peer);
        let mut cells = vec![peer.title().to_owned()];
        head.truncate(1);
        let mut put = |name: &str, value: String| {
            head.push(name.to_owned());
            cells.push(value);
        };
        if line.load.is_paced() {
            for (short, latency) in [("produce", PRODUCE), ("end to end", END_TO_END)] {
                if latency == END_TO_END && !line.load.is_end_to_end() {
                    continue;
                }
                let all = turn::merged(&cell.turns, latency);
                let at = |percent| {
                    if all.is_empty() {
                        "-".to_owned()
                    } else {
                        ms(all.value_at_percentile(percent) as f64 / 1e3)
                    }
                };
                put(&format!("{short} p50 ms"), at(50.0));
                put("p99 (turns)", spread(cell.percentile(latency, 99.0), ms));
                put("p99.9", at(99.9));
                put("max", at(100.0));
            }
            put("unsent", cell.figure(UNSENT).map_or("0".to_owned(), |unsent| thousands(unsent.max)));
        } else {
            put("records/s", spread(cell.rate(), thousands));
            let over = cell.rate().zip(other).map(|(rate, other)| two(rate.median / other));
            put(&over_other, over.unwrap_or_else(|| "-".to_owned()));
            let mb = cell.figure(SENT_MB).or_else(|| cell.figure(RECEIVED_MB));
            put("MB/s", mb.map_or("-".to_owned(), |mb| format!("{:.0}", mb.median)));
        }
        put("server CPU us/record", spread(cell.figure(SERVER_CPU), two));
        put("process CPU", cell.figure(PROCESS_CPU).map_or("-".to_owned(), |cpu| two(cpu.median)));
        put("RSS MiB", cell.figure(RSS).map_or("-".to_owned(), |rss| format!("{:.0}", rss.max)));
        put("turns", cell.turns.len().to_string());
        put("", remark(&cell, line.load.is_paced()));
        rows.push(cells);
    }
    Piece::Table(head, rows)
}

/// What must be said of a cell.
fn remark(cell: &Cell, paced: bool) -> String {
    match &cell.failure {
        Some(failure) => shortened(&placeless(&failure.split_whitespace().collect::<Vec<_>>().join(" "))),
        None if cell.is_unstable(paced) => "unstable".to_owned(),
        None => String::new(),
    }
}

/// A reason, without the middle of what a server may have printed at great length.
fn shortened(why: &str) -> String {
    const START: usize = 200;
    const END: usize = 200;
    let chars: Vec<char> = why.chars().collect();
    if chars.len() <= START + END {
        return why.to_owned();
    }
    let text = |chars: &[char]| chars.iter().collect::<String>();
    format!("{} [...] {}", text(&chars[..START]), text(&chars[chars.len() - END..]))
}

fn plots(group: Group, lines: &[&Line], outcome: &Outcome<'_>) -> Result<Vec<Piece>, Problem> {
    match group {
        Group::Throughput | Group::QueueThroughput => {
            let groups: Vec<_> = lines
                .iter()
                .map(|line| {
                    let bars = outcome.peers.iter().filter_map(|&peer| {
                        Some((peer.title().to_owned(), outcome.cell(&line.name, peer).rate()?.median))
                    });
                    (line.title.clone(), bars.collect())
                })
                .collect();
            let svg = plot::bars("Records per second, medians", &groups)?;
            let name = if group == Group::Throughput { "throughput.svg" } else { "queue-throughput.svg" };
            Ok(vec![Piece::Figure(name.to_owned(), "Throughput".to_owned(), svg)])
        }
        Group::Latency | Group::QueueLatency => lines
            .iter()
            .flat_map(|line| [(line, PRODUCE), (line, END_TO_END)])
            .map(|(line, latency)| {
                let axes = Axes { x: "percentile", y: "ms", x_label: &plot::tail_label };
                let title = format!("{latency}, {}", line.title);
                let curves = outcome.peers.iter().map(|&peer| curve(line, latency, peer, outcome));
                let curves: Vec<_> = curves.filter(|line| !line.points.is_empty()).collect();
                let svg = plot::lines(&title, &axes, &curves, true)?;
                let name = format!("{}-{}.svg", line.name, latency.replace(' ', "-"));
                Ok(Piece::Figure(name, title, svg))
            })
            .collect(),
        Group::Load | Group::QueueLoad => {
            let name = if group == Group::Load { "load" } else { "queue-load" };
            let figure = |cell: &Cell| cell.percentile(END_TO_END, 99.0).map(|p99| p99.median / 1e3);
            against(lines, outcome, name, ["records/s", "end-to-end latency p99, ms"], Load::rate, figure)
        }
        Group::Partitions | Group::Queues => {
            let name = if group == Group::Partitions { "partitions" } else { "queues" };
            let figure = |cell: &Cell| cell.figure(SERVER_CPU).map(|cpu| cpu.median);
            against(lines, outcome, name, [name, "server CPU, us/record"], Load::places, figure)
        }
    }
}

/// The percentiles of all turns of a cell.
fn curve(line: &Line, latency: &str, peer: Kind, outcome: &Outcome<'_>) -> plot::Line {
    let all = turn::merged(&outcome.cell(&line.name, peer).turns, latency);
    let mut points = Vec::new();
    let mut x = 1.0_f64;
    // Up to the percentile that ten records lie beyond.
    while !all.is_empty() && x <= (all.len() as f64 / 10.0).max(1.0) {
        points.push((x, all.value_at_percentile(100.0 - 100.0 / x) as f64 / 1e6));
        x *= 1.3;
    }
    plot::Line { name: peer.title().to_owned(), points }
}

/// One figure of every peer against what the rows differ in; `axes` are their names.
fn against(
    lines: &[&Line],
    outcome: &Outcome<'_>,
    name: &str,
    [x, y]: [&str; 2],
    place: impl Fn(&Load) -> f64,
    figure: impl Fn(&Cell) -> Option<f64>,
) -> Result<Vec<Piece>, Problem> {
    let curve = |peer: Kind| {
        let points = lines
            .iter()
            .filter_map(|line| Some((place(&line.load), figure(&outcome.cell(&line.name, peer))?)));
        plot::Line { name: peer.title().to_owned(), points: points.collect() }
    };
    let curves: Vec<_> =
        outcome.peers.iter().map(|&peer| curve(peer)).filter(|line| !line.points.is_empty()).collect();
    let axes = Axes { x, y, x_label: &plot::short };
    let title = format!("{y}, against {x}");
    let svg = plot::lines(&title, &axes, &curves, true)?;
    Ok(vec![Piece::Figure(format!("{name}.svg"), title, svg)])
}

#[cfg(test)]
mod tests {
    use super::super::journal::{Entry, PeerFacts};
    use super::super::plan::lines;
    use super::*;
    use crate::doc::{html, markdown};
    use crate::load::turn::{Latency, SENT, Turn};
    use crate::measure::histogram;

    fn entry(line: &Line, peer: Kind, rate: f64) -> Entry {
        let mut latency = histogram();
        (1..1000_u64).for_each(|n| latency.saturating_record(n * 1000));
        let mut turn = Turn::default();
        turn.figure(SENT, rate);
        turn.figure(SERVER_CPU, 1.5);
        for name in [PRODUCE, END_TO_END] {
            turn.latencies.push((name.to_owned(), Latency::of(&latency)));
        }
        Entry::Turn { line: line.name.clone(), peer, turn }
    }

    #[test]
    fn every_row_of_every_peer_is_there_with_its_figures_or_the_reason() {
        let all = lines();
        let mut entries: Vec<Entry> = all
            .iter()
            .flat_map(|line| [entry(line, Kind::Millstream, 900.0), entry(line, Kind::Kafka, 1000.0)])
            .collect();
        entries.push(Entry::Failed {
            line: None,
            peer: Kind::KafkaFlush,
            why: "/opt/java is\n not installed".to_owned(),
        });
        entries.push(Entry::Peer(PeerFacts {
            peer: Kind::Kafka,
            version: "4.9.9".to_owned(),
            settings: "defaults".to_owned(),
            idle_rss_mib: None,
        }));
        let peers = vec![Kind::Millstream, Kind::Kafka, Kind::KafkaFlush];
        let outcome = Outcome::of(all.iter().collect(), peers, &entries);
        let machine = Machine::of(std::path::Path::new("."));
        let notes = ["something".to_owned()];
        let head = Head {
            machine: &machine,
            commit: "abc",
            command: "millbench compare",
            turns: "3 turns".to_owned(),
            notes: &notes,
        };
        let pieces = report(&head, &outcome).unwrap();
        let text = markdown(&pieces);
        for line in &all {
            assert!(text.contains(&format!("### {}\n", line.title)), "{}", line.title);
        }
        let failed = text.matches(".../java is not installed").count();
        let concerned = all.iter().filter(|line| line.load.concerns(Kind::KafkaFlush)).count();
        assert_eq!(failed, concerned, "each row of a peer that did not start says why");
        assert!(
            text.contains("| Millstream | 900 (900 to 900) | 0.90 |"),
            "a losing row is printed like any other"
        );
        assert!(
            text.contains("MISSED") && text.contains("not measured") && text.contains("Note: something.")
        );
        assert!(
            text.contains("| over Kafka 4.9.9 |") && text.contains("Beside Kafka 4.9.9."),
            "a ratio says over what"
        );
        let rate_of =
            |row: &str| text.lines().find(|line| line.starts_with(row)).unwrap().split(" | ").nth(3);
        assert_eq!(rate_of("| Millstream, logs | -"), Some("900 / 900"), "both halves stand in the table");
        assert_eq!(rate_of("| Millstream, queues | -"), Some("900 / 900"));
        assert!(html("t", &pieces).matches("<svg").count() >= 7);
    }

    #[test]
    fn what_a_server_printed_before_it_died_does_not_fill_the_report() {
        let why = format!("it ended: {} out of memory", "log line ".repeat(300));
        let short = shortened(&why);
        assert!(short.len() < 500 && short.starts_with("it ended: ") && short.ends_with(" out of memory"));
        assert_eq!(shortened("no disk"), "no disk");
    }
}
