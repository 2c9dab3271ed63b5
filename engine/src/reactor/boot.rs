//! What a start does before any shard serves: the manifest, the metadata, and whether the last end was clean.

use std::sync::Arc;

use crate::config::Config;
use crate::error::Fatal;
use crate::format::manifest::{FEATURES_KNOWN, FORMAT_VERSION, Manifest, ManifestError};
use crate::io::{Blocking, Io};
use crate::limits::SHARDS_MAX;
use crate::log::paths::LOGS;
use crate::shard::controller;
use crate::shard::metadata::Metadata;
use crate::shard::recovery::{JOURNAL, SHARDS, directory, journal_directory, make_directories};
use crate::types::{LeaderEpoch, ShardId, TopicId};

const MANIFEST: &str = "manifest";

/// What the shards start from.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The manifest, as it is on disk now.
    pub manifest: Manifest,
    /// The metadata.
    pub metadata: Arc<Metadata>,
}

/// Reads the data directory's manifest and metadata, making both if the directory is new, and marks it as being
/// served: until [`finish`] it counts as not ended in good order.
///
/// # Errors
/// [`Fatal::Missing`], if the directory is not new and something is not there that a first start makes.
pub fn boot<I: Io>(disk: &mut Blocking<'_, I>, config: &Config) -> Result<Boot, Fatal> {
    if config.shards == 0 || config.shards > SHARDS_MAX {
        return Err(Fatal::Config(format!("a node has 1 to {SHARDS_MAX} shards, not {}", config.shards)));
    }
    let (mut manifest, is_new) = match disk.read_whole(MANIFEST)? {
        Some(bytes) => {
            let manifest = Manifest::decode(&bytes).map_err(|error| match error {
                ManifestError::Newer(what) => Fatal::Newer(what),
                ManifestError::Corrupt { position, what } => {
                    Fatal::Corrupt { file: MANIFEST.to_owned(), position, what: what.to_owned() }
                }
            })?;
            check_all_there(disk, &manifest)?;
            (manifest, false)
        }
        None => {
            check_never_served(disk)?;
            (fresh(disk, config), true)
        }
    };
    if !manifest.clean {
        manifest.boot_epoch += 1;
    }
    manifest.clean = false;
    // Before anything is written that a build without them cannot read.
    manifest.incompatible_features |= FEATURES_KNOWN;
    let base = Metadata {
        cluster_id: manifest.cluster_id,
        node_id: manifest.node_id,
        shards: manifest.shards,
        leader_epoch: LeaderEpoch(manifest.boot_epoch),
        ..Metadata::default()
    };
    if is_new {
        // All that a manifest stands for comes before it.
        controller::load(disk, base.clone(), config)?;
        for id in (0..manifest.shards).map(ShardId) {
            make_directories(disk, manifest.generation, id)?;
        }
    }
    write_manifest(disk, &manifest)?;
    let metadata = Arc::new(controller::load(disk, base, config)?);
    Ok(Boot { manifest, metadata })
}

/// Refuses a directory that lacks what its manifest stands for: what was stored there would be missed by nobody. What else may be
/// missing is found by whoever needs it.
fn check_all_there<I: Io>(disk: &mut Blocking<'_, I>, manifest: &Manifest) -> Result<(), Fatal> {
    let mut what: Vec<String> = controller::missing(disk)?.into_iter().map(str::to_owned).collect();
    let homes = disk.list(SHARDS)?;
    for id in (0..manifest.shards).map(ShardId) {
        let home = directory(manifest.generation, id);
        if homes.iter().any(|entry| home == format!("{SHARDS}/{}", entry.name)) {
            let inside = disk.list(&home)?;
            // Older versions made an empty directory for a shard when something was imported before the first start.
            if !inside.is_empty() && !inside.iter().any(|entry| entry.name == JOURNAL) {
                what.push(journal_directory(manifest.generation, id));
            }
        } else {
            what.push(home);
        }
    }
    if what.is_empty() { Ok(()) } else { Err(Fatal::Missing { what, beside: MANIFEST.to_owned() }) }
}

/// Refuses a directory without a manifest in which something was stored: nothing of it can be believed without the key in the
/// manifest. A first start that was cut off leaves directories of shards in which there is nothing but an empty journal.
fn check_never_served<I: Io>(disk: &mut Blocking<'_, I>) -> Result<(), Fatal> {
    let mut stored = disk.list(LOGS)?.first().map(|entry| format!("{LOGS}/{}", entry.name));
    for entry in disk.list(SHARDS)?.into_iter().filter(|entry| entry.is_dir) {
        let home = format!("{SHARDS}/{}", entry.name);
        let has_more = disk.list(&home)?.iter().any(|entry| entry.name != JOURNAL);
        if has_more || !disk.list(&format!("{home}/{JOURNAL}"))?.is_empty() {
            stored.get_or_insert(home);
        }
    }
    match stored {
        Some(beside) => Err(Fatal::Missing { what: vec![MANIFEST.to_owned()], beside }),
        None => Ok(()),
    }
}

/// Notes that the node has ended in good order.
pub fn finish<I: Io>(disk: &mut Blocking<'_, I>, manifest: &Manifest) -> Result<(), Fatal> {
    write_manifest(disk, &Manifest { clean: true, ..manifest.clone() })
}

/// Replaces the manifest.
pub(super) fn write_manifest<I: Io>(disk: &mut Blocking<'_, I>, manifest: &Manifest) -> Result<(), Fatal> {
    disk.replace(MANIFEST, &manifest.encode())
}

fn fresh<I: Io>(disk: &mut Blocking<'_, I>, config: &Config) -> Manifest {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&disk.io().random().to_be_bytes());
    id[8..].copy_from_slice(&disk.io().random().to_be_bytes());
    Manifest {
        format_version: FORMAT_VERSION,
        incompatible_features: 0,
        cluster_id: TopicId(id),
        node_id: 0,
        shards: config.shards,
        generation: 1,
        boot_epoch: 0,
        clean: true,
        journal_key: disk.io().random(),
    }
}
