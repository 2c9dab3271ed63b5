//! Starting with another number of shards than the last run had.
//!
//! The old shards are recovered one after the other, from their own generation of directories, and everything in their
//! journals is moved to sealed segments. Then the new generation's checkpoints are written, and last the manifest is
//! replaced: it names generation and number of shards together. A crash before that leaves the old generation, complete,
//! and all of this is done again; a crash after it leaves directories of the old one, which the next start removes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::boot::{Boot, write_manifest};
use crate::buffer::Pool;
use crate::config::Config;
use crate::error::Fatal;
use crate::format::checkpoint::{Checkpoint, PartitionState};
use crate::format::manifest::Manifest;
use crate::io::{Blocking, Io};
use crate::log::recovery::remove_deleted;
use crate::shard::metadata::Metadata;
use crate::shard::recovery::{SHARDS, checkpoint_path, directory, make_directories};
use crate::shard::{Heirs, Shard};
use crate::types::{Lsn, PartitionId, ShardId};

/// Moves the directory to `config.shards` shards if it has another number, and removes what earlier generations and
/// deleted topics left.
pub fn reshard<I: Io>(io: &mut I, found: Boot, config: &Arc<Config>, pool: &Pool) -> Result<Boot, Fatal> {
    let moved =
        if found.manifest.shards == config.shards { found } else { move_shards(io, found, config, pool)? };
    let mut disk = Blocking::new(io, pool.clone());
    disk.make_dir(SHARDS)?;
    let current = format!("{}-", moved.manifest.generation);
    for entry in disk.list(SHARDS)? {
        if !entry.name.starts_with(&current) {
            disk.remove_tree(&format!("{SHARDS}/{}", entry.name))?;
        }
    }
    let metadata = &moved.metadata;
    let is_live = |name: &str, index, id| {
        metadata.topic(name).is_some_and(|topic| topic.id == id && topic.slots.len() > index as usize)
    };
    remove_deleted(&mut disk, &metadata.deleted, is_live)?;
    Ok(moved)
}

fn move_shards<I: Io>(io: &mut I, found: Boot, config: &Arc<Config>, pool: &Pool) -> Result<Boot, Fatal> {
    let Boot { manifest: old, metadata } = found;
    tracing::info!(
        from = old.shards,
        to = config.shards,
        "the number of shards has changed: moving what the journals hold"
    );
    let manifest = Manifest { shards: config.shards, generation: old.generation + 1, ..old };
    let before = Arc::clone(&metadata);
    let metadata = Arc::new(Metadata { shards: config.shards, ..Metadata::clone(&metadata) });
    let mut states: BTreeMap<PartitionId, PartitionState> = BTreeMap::new();
    let home = |id| directory(manifest.generation, id);
    let mut disk = Blocking::new(io, pool.clone());
    let mut heirs = Heirs::new(&mut disk, &before, &metadata, home, manifest.journal_key)?;
    for id in (0..old.shards).map(ShardId) {
        let (mut shard, _) = Shard::recover(io, id, &old, Arc::clone(config), Arc::clone(&before))?;
        let (logs, estate) = shard.move_out(io)?;
        states.extend(logs.into_iter().map(|state| (state.id, state)));
        shard.close(io);
        heirs.inherit(&mut Blocking::new(io, pool.clone()), id, estate)?;
    }
    let mut disk = Blocking::new(io, pool.clone());
    let mut queues = heirs.finish(&mut disk)?.into_iter();
    for id in (0..config.shards).map(ShardId) {
        let partitions =
            metadata.partitions_of(id).filter_map(|(partition, _)| states.get(&partition).cloned());
        let checkpoint = Checkpoint {
            lsn: Lsn::ZERO,
            replay_lsn: Lsn(1),
            generation: manifest.generation,
            shard: id,
            partitions: partitions.collect(),
            queues: queues.next().unwrap_or_default(),
        };
        make_directories(&mut disk, manifest.generation, id)?;
        disk.replace(&checkpoint_path(manifest.generation, id), &checkpoint.encode())?;
    }
    write_manifest(&mut disk, &manifest)?;
    Ok(Boot { manifest, metadata })
}
