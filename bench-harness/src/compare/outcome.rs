//! Everything that a comparison came to.

use std::collections::BTreeMap;

use super::journal::{Entry, PeerFacts};
use super::plan::Line;
use crate::load::turn::{self, END_TO_END, PRODUCE, RECEIVED, SENT, Turn};
use crate::measure::Spread;
use crate::peers::Kind;

/// Two halves of the turns whose medians lie further apart than this are not the same figure.
const STABLE: f64 = 1.10;

/// What a comparison came to.
pub struct Outcome<'a> {
    /// The rows.
    pub lines: Vec<&'a Line>,
    /// The peers, in the order in which they are shown.
    pub peers: Vec<Kind>,
    entries: &'a [Entry],
}

/// What one peer came to in one row.
pub struct Cell {
    /// Its turns.
    pub turns: Vec<Turn>,
    /// Why there are not more.
    pub failure: Option<String>,
}

impl<'a> Outcome<'a> {
    /// Of what was measured.
    pub fn of(lines: Vec<&'a Line>, peers: Vec<Kind>, entries: &'a [Entry]) -> Outcome<'a> {
        Outcome { lines, peers, entries }
    }

    /// What is known of a peer, as it was last started.
    pub fn facts(&self, of: Kind) -> Option<&PeerFacts> {
        self.entries.iter().rev().find_map(|entry| match entry {
            Entry::Peer(facts) if facts.peer == of => Some(facts),
            _ => None,
        })
    }

    /// A peer's name with the version that was measured.
    pub fn named(&self, peer: Kind) -> String {
        let (title, version) = (peer.title(), self.facts(peer).map(|facts| format!(" {}", facts.version)));
        let (name, how) = title.split_at(title.find(',').unwrap_or(title.len()));
        format!("{name}{}{how}", version.unwrap_or_default())
    }

    /// Each peer that was started, with its version and its settings.
    pub fn told(&self) -> impl Iterator<Item = String> {
        let told = move |&peer| Some(format!("{}: {}", self.named(peer), self.facts(peer)?.settings));
        self.peers.iter().filter_map(told)
    }

    /// What a bare round trip and a bare durable write take together, in microseconds: the median over the sittings.
    pub fn limits_us(&self) -> Option<f64> {
        let limits = self.entries.iter().filter_map(|entry| match entry {
            Entry::Limits(limits) => Some(limits.round_trip_us + limits.durable_write_us),
            _ => None,
        });
        Some(Spread::of(&limits.collect::<Vec<_>>())?.median)
    }

    /// A cell.
    pub fn cell(&self, of: &str, by: Kind) -> Cell {
        let mut cell = Cell { turns: Vec::new(), failure: None };
        let mut not_started = None;
        // Turns of each peer: whoever has fewer than others was given up.
        let mut turns: BTreeMap<Kind, usize> = BTreeMap::new();
        for entry in self.entries {
            match entry {
                Entry::Turn { line, peer, turn } if line == of => {
                    *turns.entry(*peer).or_default() += 1;
                    if *peer == by {
                        cell.turns.push(turn.clone());
                    }
                }
                Entry::Failed { line: Some(line), peer, why } if line == of && *peer == by => {
                    cell.failure = Some(why.clone());
                }
                Entry::Failed { line: None, peer, why } if *peer == by => not_started = Some(why.clone()),
                _ => {}
            }
        }
        if cell.failure.is_none() && turns.values().any(|others| *others > cell.turns.len()) {
            cell.failure.clone_from(&not_started);
        }
        if cell.turns.is_empty() && cell.failure.is_none() {
            cell.failure = not_started.or_else(|| Some("not measured".to_owned()));
        }
        cell
    }
}

impl Cell {
    /// The median of a figure and how far it lies apart.
    pub fn figure(&self, name: &str) -> Option<Spread> {
        Spread::of(&turn::series(&self.turns, name))
    }

    /// The same of a percentile of a latency, in microseconds: the median over the turns.
    pub fn percentile(&self, name: &str, percent: f64) -> Option<Spread> {
        Spread::of(&turn::percentiles(&self.turns, name, percent))
    }

    /// Records per second, turn by turn: those that came through, if they were both sent and received.
    fn rates(&self) -> Vec<f64> {
        let rate = |turn: &Turn| match (turn.get(SENT), turn.get(RECEIVED)) {
            (Some(sent), Some(received)) => Some(sent.min(received)),
            (sent, received) => sent.or(received),
        };
        self.turns.iter().filter_map(rate).collect()
    }

    /// Records per second.
    pub fn rate(&self) -> Option<Spread> {
        Spread::of(&self.rates())
    }

    /// Whether the two halves of the turns, which are the two runs of a comparison, say something different: of records per
    /// second, or of the latency's 99th percentile if the rate was given.
    pub fn is_unstable(&self, paced: bool) -> bool {
        let figures = if paced {
            match turn::percentiles(&self.turns, END_TO_END, 99.0) {
                none if none.is_empty() => turn::percentiles(&self.turns, PRODUCE, 99.0),
                figures => figures,
            }
        } else {
            self.rates()
        };
        let (first, second) = figures.split_at(figures.len() / 2);
        match (Spread::of(first), Spread::of(second)) {
            (Some(first), Some(second)) => {
                let (low, high) = (first.median.min(second.median), first.median.max(second.median));
                high > low * STABLE
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::Limits;
    use super::*;
    use crate::load::turn::Latency;
    use crate::measure::histogram;

    fn entry(line: &str, peer: Kind, rate: f64) -> Entry {
        let mut turn = Turn::default();
        turn.figure(SENT, rate);
        Entry::Turn { line: line.to_owned(), peer, turn }
    }

    #[test]
    fn a_cell_has_its_turns_and_says_why_there_are_not_more() {
        let failed = |line: Option<&str>, peer, why: &str| Entry::Failed {
            line: line.map(str::to_owned),
            peer,
            why: why.to_owned(),
        };
        let entries = [
            entry("a", Kind::Kafka, 1.0),
            entry("b", Kind::Kafka, 2.0),
            failed(Some("a"), Kind::Kafka, "it died"),
            failed(None, Kind::Millstream, "no disk"),
        ];
        let outcome = Outcome::of(Vec::new(), Vec::new(), &entries);
        let cell = outcome.cell("a", Kind::Kafka);
        assert_eq!((cell.turns.len(), cell.failure.as_deref()), (1, Some("it died")));
        assert_eq!(outcome.cell("b", Kind::Kafka).failure, None);
        assert_eq!(outcome.cell("a", Kind::Millstream).failure.as_deref(), Some("no disk"));
        assert_eq!(outcome.cell("a", Kind::Null).failure.as_deref(), Some("not measured"));
    }

    #[test]
    fn a_peer_that_could_not_be_started_again_has_fewer_turns_and_says_why() {
        let gone = Entry::Failed { line: None, peer: Kind::Null, why: "its port is taken".to_owned() };
        let failure =
            |entries: &[Entry]| Outcome::of(Vec::new(), Vec::new(), entries).cell("a", Kind::Null).failure;
        let (own, other) = (entry("a", Kind::Null, 1.0), entry("a", Kind::Kafka, 2.0));
        let entries = [own, other.clone(), gone, other];
        assert_eq!(failure(&entries).as_deref(), Some("its port is taken"));
        assert_eq!(failure(&entries[..3]), None, "it has had as many turns as the others");
    }

    #[test]
    fn a_peer_is_named_with_the_version_that_was_measured() {
        let facts = PeerFacts {
            peer: Kind::RabbitMq,
            version: "3.10.8".to_owned(),
            settings: "defaults".to_owned(),
            idle_rss_mib: None,
        };
        let entries = [Entry::Peer(facts)];
        let outcome = Outcome::of(Vec::new(), vec![Kind::Kafka, Kind::RabbitMq], &entries);
        assert_eq!(outcome.named(Kind::RabbitMq), "RabbitMQ 3.10.8, classic queues");
        assert_eq!(outcome.named(Kind::Kafka), "Kafka", "nobody knows which");
        assert_eq!(outcome.told().collect::<Vec<_>>(), ["RabbitMQ 3.10.8, classic queues: defaults"]);
    }

    #[test]
    fn a_row_whose_halves_differ_is_unstable() {
        let cell = |rates: &[f64]| {
            let entries: Vec<Entry> = rates.iter().map(|rate| entry("a", Kind::Null, *rate)).collect();
            Outcome::of(Vec::new(), Vec::new(), &entries).cell("a", Kind::Null)
        };
        assert!(!cell(&[100.0, 50.0, 101.0, 108.0, 60.0, 107.0]).is_unstable(false));
        assert!(cell(&[100.0, 101.0, 112.0, 113.0]).is_unstable(false));
        assert!(!cell(&[100.0]).is_unstable(false));
        assert!(!cell(&[100.0, 200.0]).is_unstable(true), "of no latency nothing is said");
    }

    #[test]
    fn at_a_fixed_rate_the_latencies_of_the_two_runs_are_compared_and_not_the_rates() {
        let cell = |p99s_us: &[u64]| {
            let entries: Vec<Entry> = p99s_us
                .iter()
                .map(|us| {
                    let mut latency = histogram();
                    latency.saturating_record_n(us * 1000, 100);
                    let mut turn = Turn::default();
                    turn.figure(SENT, 1000.0);
                    turn.latencies.push((PRODUCE.to_owned(), Latency::of(&latency)));
                    Entry::Turn { line: "a".to_owned(), peer: Kind::Null, turn }
                })
                .collect();
            Outcome::of(Vec::new(), Vec::new(), &entries).cell("a", Kind::Null)
        };
        assert!(cell(&[1000, 1500]).is_unstable(true) && !cell(&[1000, 1500]).is_unstable(false));
        assert!(!cell(&[1000, 1050]).is_unstable(true));
    }

    #[test]
    fn what_was_sent_and_never_came_did_not_come_through() {
        let mut turn = Turn::default();
        turn.figure(SENT, 1000.0);
        turn.figure(RECEIVED, 400.0);
        let entries = [Entry::Turn { line: "a".to_owned(), peer: Kind::Null, turn }];
        let cell = Outcome::of(Vec::new(), Vec::new(), &entries).cell("a", Kind::Null);
        assert!((cell.rate().unwrap().median - 400.0).abs() < 1e-9);
    }

    #[test]
    fn the_limits_of_all_sittings_are_one_figure() {
        let limits = |us| Entry::Limits(Limits { round_trip_us: us, durable_write_us: 100.0 });
        let entries = [limits(20.0), limits(40.0), limits(30.0)];
        let outcome = Outcome::of(Vec::new(), Vec::new(), &entries);
        assert_eq!(outcome.limits_us(), Some(130.0));
        assert_eq!(Outcome::of(Vec::new(), Vec::new(), &[]).limits_us(), None);
    }
}
