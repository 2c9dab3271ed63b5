//! The journal alone: a node whose journal is so large that what a turn appends does not make it move bytes to segments.
//!
//! A topic that is deleted needs nothing of the journal any more. So the journal is emptied between two turns by
//! deleting the topic, creating it anew, and appending until the engine has recycled the files: without any segment
//! being written, and without a switch in the engine. After each turn it is checked that no segment was written.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::limits::JOURNAL_FILE_BYTES;
use millstream_engine::log::paths::LOGS;
use millstream_engine::shard::recovery::{checkpoint_path, directory};
use millstream_engine::types::ShardId;

use super::case::{Batch, LoadCase};
use super::host::Host;
use super::load::{Pace, Until};
use crate::measure::{Case, Outcome, Problem};

/// The node's journal. The engine makes room when half of it is used.
pub const JOURNAL_BYTES: u64 = 2 << 30;
/// What a turn should append. With a step of emptying before it, it stays within what the tail begins with, an eighth of the
/// journal: beyond that the engine moves logs to their segments, and the journal is not alone.
pub const TURN_BYTES: u64 = JOURNAL_BYTES / 16;
/// One step of emptying.
const STEP_BYTES: u64 = JOURNAL_BYTES / 32;
/// Steps until it counts as stuck: many more than it takes to fill half of the journal.
const STEPS_MAX: u32 = 64;
/// What the appends of a step leave to be done takes less than this.
const PAUSE: Duration = Duration::from_millis(100);
/// A new data directory's generation.
const GENERATION: u64 = 1;

/// The settings of such a node.
pub fn config() -> Config {
    Config { journal_bytes: JOURNAL_BYTES, ..Config::default() }
}

/// A load on a node with [`config`], on one topic, of about [`TURN_BYTES`] per turn.
pub struct AloneCase<'a> {
    /// The load.
    pub load: LoadCase<'a>,
    /// The node.
    pub host: &'a Host,
    /// The topic, which is there.
    pub topic: &'static str,
    /// Its partitions.
    pub partitions: u32,
}

impl AloneCase<'_> {
    /// Empties the journal, except for a small rest.
    fn empty(&self) -> Result<(), Problem> {
        if journal_files(self.host.dir())? < JOURNAL_BYTES / JOURNAL_FILE_BYTES {
            // It grows while it is being filled.
            self.fill(JOURNAL_BYTES)?;
        }
        for _ in 0..STEPS_MAX {
            let before = trimmed(self.host.dir());
            self.host.delete(self.topic)?;
            self.host.create(self.topic, self.partitions, TopicConfig::default())?;
            self.fill(STEP_BYTES)?;
            std::thread::sleep(PAUSE);
            let grown = journal_files(self.host.dir())? >= JOURNAL_BYTES / JOURNAL_FILE_BYTES;
            if grown && trimmed(self.host.dir()) != before {
                return Ok(());
            }
        }
        Err("the journal was not recycled, whatever was appended".into())
    }

    fn fill(&self, bytes: u64) -> Result<(), Problem> {
        let partitions = self.partitions as usize;
        let load =
            Batch::of(1, 64 << 10).append(self.topic, partitions, Pace::Closed(32), Until::Bytes(bytes));
        self.host.run(vec![(ShardId(0), vec![load])]).map(drop)
    }
}

impl Case for AloneCase<'_> {
    fn name(&self) -> String {
        self.load.name()
    }

    fn run(&mut self, span: Duration) -> Result<Outcome, Problem> {
        self.empty()?;
        let state = || (trimmed(self.host.dir()), segments(self.host.dir(), self.topic));
        let before = state();
        let outcome = self.load.run(span)?;
        if state() != before {
            return Err("the journal was not alone: it had to make room during the turn".into());
        }
        Ok(outcome)
    }
}

/// When the journal was trimmed last: every round ends with a new checkpoint.
fn trimmed(dir: &Path) -> Option<SystemTime> {
    fs::metadata(dir.join(checkpoint_path(GENERATION, ShardId(0)))).and_then(|file| file.modified()).ok()
}

/// Files of the journal.
fn journal_files(dir: &Path) -> Result<u64, Problem> {
    Ok(fs::read_dir(dir.join(directory(GENERATION, ShardId(0))).join("journal"))?.count() as u64)
}

/// Directories of the topic: a partition has none before a segment is written.
fn segments(dir: &Path, topic: &str) -> usize {
    let named = |name: &str| {
        let number = name.strip_prefix(topic).and_then(|rest| rest.strip_prefix('-'));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let entries = fs::read_dir(dir.join(LOGS)).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(named)).count()
}
