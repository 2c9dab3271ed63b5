//! What has been measured so far, turn by turn, so that a comparison that was interrupted goes on where it stopped.
//!
//! A file of lines: the first says what is compared; each of the others is one turn, or why there is none. A comparison that
//! is over ends with a line that says so. A line that was cut off by a crash is left out.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::load::turn::Turn;
use crate::measure::Problem;
use crate::peers::Kind;

/// One line.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// What is compared, in whatever form: a journal that begins with something else is another comparison's.
    Plan(Value),
    /// A peer has been started.
    Peer(PeerFacts),
    /// What the machine itself takes, measured at the beginning of a sitting.
    Limits(Limits),
    /// A turn.
    Turn {
        /// The row.
        line: String,
        /// The peer.
        peer: Kind,
        /// What it came to.
        turn: Turn,
    },
    /// A peer was given up for a row.
    Failed {
        /// The row; none if the peer did not start.
        line: Option<String>,
        /// The peer.
        peer: Kind,
        /// Why.
        why: String,
    },
    /// Nothing is missing.
    Complete,
}

/// What nothing on this machine can undercut, in microseconds: medians.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// A small request and its answer between two threads, over loopback.
    pub round_trip_us: f64,
    /// A block of 4 KiB that is written and flushed.
    pub durable_write_us: f64,
}

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerFacts {
    /// Who.
    pub peer: Kind,
    /// Its version.
    pub version: String,
    /// What it was told.
    pub settings: String,
    /// Its resident memory without load.
    pub idle_rss_mib: Option<f64>,
}

/// The file, and what it holds.
pub struct Journal {
    file: File,
    entries: Vec<Entry>,
    /// Whether it was there and goes on.
    pub resumed: bool,
}

impl Journal {
    /// Goes on with the file if it began with the same plan and is not complete; else begins anew.
    pub fn open(path: &Path, plan: &Value, fresh: bool) -> Result<Journal, Problem> {
        if !fresh && let Some(entries) = unfinished(path, plan) {
            // Written anew, so that a line that was cut off does not spoil the next one.
            let mut journal = Journal { file: File::create(path)?, entries: Vec::new(), resumed: true };
            entries.into_iter().try_for_each(|entry| journal.add(entry))?;
            return Ok(journal);
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
        let mut journal = Journal { file, entries: Vec::new(), resumed: false };
        journal.add(Entry::Plan(plan.clone()))?;
        Ok(journal)
    }

    /// Adds a line.
    pub fn add(&mut self, entry: Entry) -> Result<(), Problem> {
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Everything in it.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Turns of a row that a peer has had.
    pub fn turns(&self, of: &str, by: Kind) -> usize {
        let counts =
            |entry: &&Entry| matches!(entry, Entry::Turn { line, peer, .. } if line == of && *peer == by);
        self.entries.iter().filter(counts).count()
    }

    /// Whether a peer was given up for a row.
    pub fn failed(&self, of: &str, by: Kind) -> bool {
        self.entries.iter().any(|entry| match entry {
            Entry::Failed { line: Some(line), peer, .. } => line == of && *peer == by,
            _ => false,
        })
    }
}

/// The entries of a comparison that goes on.
fn unfinished(path: &Path, plan: &Value) -> Option<Vec<Entry>> {
    let text = std::fs::read_to_string(path).ok()?;
    let entries: Vec<Entry> = text.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
    let same = matches!(entries.first(), Some(Entry::Plan(begun)) if begun == plan);
    let complete = entries.iter().any(|entry| matches!(entry, Entry::Complete));
    // A peer that did not start gets another chance.
    let again = |entry: &Entry| !matches!(entry, Entry::Failed { line: None, .. });
    (same && !complete).then(|| entries.into_iter().filter(again).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn turn(line: &str, peer: Kind) -> Entry {
        Entry::Turn { line: line.to_owned(), peer, turn: Turn::default() }
    }

    fn path(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("millbench-{}-{name}.jsonl", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn what_was_measured_is_not_measured_again() {
        let path = path("resume");
        let mut journal = Journal::open(&path, &json!("plan"), false).unwrap();
        journal.add(turn("a", Kind::Kafka)).unwrap();
        journal.add(turn("a", Kind::Kafka)).unwrap();
        journal
            .add(Entry::Failed { line: Some("b".to_owned()), peer: Kind::Null, why: "died".to_owned() })
            .unwrap();
        journal.add(Entry::Failed { line: None, peer: Kind::Millstream, why: "no disk".to_owned() }).unwrap();
        drop(journal);
        let journal = Journal::open(&path, &json!("plan"), false).unwrap();
        assert!(journal.resumed);
        assert_eq!((journal.turns("a", Kind::Kafka), journal.turns("a", Kind::Null)), (2, 0));
        assert!(journal.failed("b", Kind::Null) && !journal.failed("a", Kind::Null));
        assert_eq!(journal.entries().len(), 4, "whoever did not start is tried again");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_line_that_was_cut_off_is_measured_again() {
        let path = path("cut");
        let mut journal = Journal::open(&path, &json!(1), false).unwrap();
        journal.add(turn("a", Kind::Kafka)).unwrap();
        journal.add(turn("b", Kind::Kafka)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        let mut journal = Journal::open(&path, &json!(1), false).unwrap();
        assert_eq!((journal.turns("a", Kind::Kafka), journal.turns("b", Kind::Kafka)), (1, 0));
        journal.add(turn("b", Kind::Kafka)).unwrap();
        let journal = Journal::open(&path, &json!(1), false).unwrap();
        assert_eq!(journal.turns("b", Kind::Kafka), 1);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn another_plan_a_complete_one_and_a_fresh_start_begin_anew() {
        let path = path("anew");
        let mut journal = Journal::open(&path, &json!(1), false).unwrap();
        journal.add(turn("a", Kind::Kafka)).unwrap();
        assert!(!Journal::open(&path, &json!(2), false).unwrap().resumed);
        let mut journal = Journal::open(&path, &json!(2), false).unwrap();
        assert!(journal.resumed);
        journal.add(Entry::Complete).unwrap();
        assert!(!Journal::open(&path, &json!(2), false).unwrap().resumed);
        assert!(!Journal::open(&path, &json!(2), true).unwrap().resumed);
        std::fs::remove_file(path).unwrap();
    }
}
