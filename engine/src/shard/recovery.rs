//! Bringing a shard up: its checkpoint, its journal, its logs, in that order.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use super::commits::{Commits, Watches};
use super::departures::Departures;
use super::maintenance::Maintenance;
use super::metadata::Metadata;
use super::observer::Observer;
use super::reads::Reads;
use super::scrub::Scrubbing;
use super::tail::{TailBudget, TailGroup};
use super::{Pools, Queues, Shard, queues, tokens};
use crate::config::Config;
use crate::error::Fatal;
use crate::format::checkpoint::{Checkpoint, QueuesState};
use crate::format::manifest::Manifest;
use crate::io::{Blocking, Io};
use crate::journal::{Journal, Ring, Trim, recover};
use crate::limits::{GROUP_BYTES_MAX, JOURNAL_FILES_ROOM};
use crate::log::recovery::Rebuild;
use crate::log::table::{LogIndex, Logs};
use crate::log::{Log, paths};
use crate::types::{Lsn, ShardId};

/// The directory that holds every shard's directory.
pub const SHARDS: &str = "shards";
/// The directory of a shard's journal, within the shard's.
pub const JOURNAL: &str = "journal";

/// A shard's directory. The generation is raised with every change of the number of shards.
pub fn directory(generation: u64, shard: ShardId) -> String {
    format!("{SHARDS}/{generation}-{}", shard.0)
}

/// The directory of a shard's journal.
pub fn journal_directory(generation: u64, shard: ShardId) -> String {
    format!("{}/{JOURNAL}", directory(generation, shard))
}

/// Makes a shard's directories, as far as they are not there: in a directory that is new before it has a manifest, and for a
/// new generation before the manifest names it. So where a manifest names them, they have been there.
pub fn make_directories<I: Io>(
    disk: &mut Blocking<'_, I>,
    generation: u64,
    shard: ShardId,
) -> Result<(), Fatal> {
    disk.make_dir(SHARDS)?;
    disk.make_dir(&directory(generation, shard))?;
    disk.make_dir(&journal_directory(generation, shard))
}

/// A shard's checkpoint.
pub fn checkpoint_path(generation: u64, shard: ShardId) -> String {
    format!("{}/checkpoint", directory(generation, shard))
}

/// What recovery had to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// Bytes of journal that were read.
    pub journal_bytes: u64,
    /// The last record found.
    pub last_lsn: Lsn,
    /// Logs that are here.
    pub logs: usize,
}

impl<I: Io> Shard<I> {
    /// Recovers a shard. What it promised to anybody before is there when this returns; everything else that was on its
    /// way may be or not be, as a whole.
    pub fn recover(
        io: &mut I,
        id: ShardId,
        manifest: &Manifest,
        config: Arc<Config>,
        metadata: Arc<Metadata>,
    ) -> Result<(Shard<I>, Report), Fatal> {
        let file_bytes = config.journal_file_bytes;
        if file_bytes == 0 || !file_bytes.is_multiple_of(GROUP_BYTES_MAX as u64) {
            return Err(Fatal::Config(format!("a journal file has whole MiB, not {file_bytes} bytes")));
        }
        let journal_bytes =
            (config.journal_bytes / u64::from(config.shards)).max(JOURNAL_FILES_ROOM as u64 * file_bytes);
        let pools = Pools::new(journal_bytes, &config);
        let now = io.wall_ms();
        let generation = manifest.generation;
        let mut disk = Blocking::new(io, pools.tail.clone());

        let home = directory(generation, id);
        make_directories(&mut disk, generation, id)?;
        disk.make_dir(paths::LOGS)?;
        let checkpoint = read_checkpoint(&mut disk, generation, id)?;

        let mut logs = Logs::default();
        for (partition, topic) in metadata.partitions_of(id) {
            let directory = paths::directory(&topic.name, partition.index);
            logs.insert(Log::new(partition, directory, Arc::new(topic.config.clone())));
        }
        let mut rebuild =
            Rebuild::new(logs, metadata.deleted.clone(), checkpoint.lsn, &checkpoint.partitions, now)
                .map_err(|what| Fatal::Corrupt {
                    file: checkpoint_path(generation, id),
                    position: 0,
                    what,
                })?;
        let mut queues = queues::recovery::Rebuild::start(
            &mut disk,
            &metadata,
            id,
            &home,
            manifest.journal_key,
            (checkpoint.lsn, checkpoint.queues),
            Queues::new(&home, &pools, journal_bytes, config.queue_index_bytes),
        )?;
        let journal_directory = journal_directory(generation, id);
        let recovered = recover(
            &mut disk,
            &Ring { directory: &journal_directory, key: manifest.journal_key, file_bytes },
            checkpoint.lsn,
            checkpoint.replay_lsn,
            &mut |lsn, record, payload, place| {
                if record.kind.is_of_queues() {
                    queues.record(lsn, record, &payload, place)
                } else {
                    rebuild.record(lsn, record, payload)
                }
            },
        )?;
        let met_deleted = rebuild.met_deleted() || queues.met_deleted();
        let departures = Departures::new(met_deleted, metadata.epoch, recovered.last_lsn);
        let logs = rebuild.finish(&mut disk)?;
        let queues = queues.finish(&mut disk)?;
        let report =
            Report { journal_bytes: recovered.bytes, last_lsn: recovered.last_lsn, logs: logs.len() };

        let tail_groups = tail_groups(&logs);
        let producers = logs.iter().map(|(_, log)| log.producers.len()).sum();
        let shard = Shard {
            id,
            maintenance: Maintenance::new(
                journal_directory,
                journal_bytes / file_bytes,
                config.delete_delay_ms,
            ),
            trim: Trim::new(
                id,
                generation,
                checkpoint_path(generation, id),
                tokens::TRIM,
                pools.staging.clone(),
            ),
            reads: Reads::new(config.map_segments),
            scrubbing: Scrubbing::new(config.scrub_interval_ms),
            queues,
            config,
            metadata,
            logs,
            journal: Journal::new(recovered, pools.tail.clone()),
            tail_budget: TailBudget::new(journal_bytes as usize),
            tail_bytes: tail_groups.iter().map(|group| group.bytes).sum(),
            tail_groups,
            pools,
            backlog: VecDeque::new(),
            open_placed: Vec::new(),
            flying: Vec::new(),
            commits: Commits::default(),
            watches: Watches::default(),
            trimmed: VecDeque::new(),
            departures,
            disk_full: false,
            producers,
            outputs: VecDeque::new(),
            observer: Observer::default(),
            io: PhantomData,
        };
        Ok((shard, report))
    }
}

/// Reads a shard's checkpoint; that of a shard which never wrote one is empty.
pub fn read_checkpoint<I: Io>(
    disk: &mut Blocking<'_, I>,
    generation: u64,
    id: ShardId,
) -> Result<Checkpoint, Fatal> {
    let path = checkpoint_path(generation, id);
    let Some(bytes) = disk.read_whole(&path)? else {
        return Ok(Checkpoint {
            lsn: Lsn::ZERO,
            replay_lsn: Lsn(1),
            generation,
            shard: id,
            partitions: Vec::new(),
            queues: QueuesState::default(),
        });
    };
    let corrupt =
        |position, what: &str| Fatal::Corrupt { file: path.clone(), position, what: what.to_owned() };
    let checkpoint = Checkpoint::decode(&bytes).map_err(|(position, what)| corrupt(position, what))?;
    if (checkpoint.generation, checkpoint.shard) != (generation, id) {
        return Err(corrupt(32, "it belongs to another shard"));
    }
    Ok(checkpoint)
}

/// The recovered tails, in the order of the journal: each batch a group of its own, for eviction.
fn tail_groups(logs: &Logs) -> VecDeque<TailGroup> {
    let mut batches: Vec<(Lsn, LogIndex, usize)> = logs
        .iter()
        .flat_map(|(index, log)| log.tail.iter().map(move |batch| (batch.lsn, index, batch.bytes.len())))
        .collect();
    batches.sort_by_key(|(lsn, ..)| *lsn);
    batches.into_iter().map(|(_, index, bytes)| TailGroup::of_rests(bytes, VecDeque::from([index]))).collect()
}
