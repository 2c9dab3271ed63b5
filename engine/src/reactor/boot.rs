//! What a start does before any shard serves: the manifest, the metadata, and whether the last end was clean.

use std::sync::Arc;

use crate::config::Config;
use crate::error::Fatal;
use crate::format::manifest::{FEATURES_KNOWN, FORMAT_VERSION, Manifest, ManifestError};
use crate::io::{Blocking, Io};
use crate::limits::SHARDS_MAX;
use crate::shard::controller;
use crate::shard::metadata::Metadata;
use crate::types::{LeaderEpoch, TopicId};

const MANIFEST: &str = "manifest";

/// What the shards start from.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The manifest, as it is on disk now.
    pub manifest: Manifest,
    /// The metadata.
    pub metadata: Arc<Metadata>,
}

/// Reads the data directory's manifest and metadata, making both if there are none, and marks the directory as being
/// served: until [`finish`] it counts as not ended in good order.
pub fn boot<I: Io>(disk: &mut Blocking<'_, I>, config: &Config) -> Result<Boot, Fatal> {
    if config.shards == 0 || config.shards > SHARDS_MAX {
        return Err(Fatal::Config(format!("a node has 1 to {SHARDS_MAX} shards, not {}", config.shards)));
    }
    let mut manifest = match disk.read_whole(MANIFEST)? {
        Some(bytes) => Manifest::decode(&bytes).map_err(|error| match error {
            ManifestError::Newer(what) => Fatal::Newer(what),
            ManifestError::Corrupt { position, what } => {
                Fatal::Corrupt { file: MANIFEST.to_owned(), position, what: what.to_owned() }
            }
        })?,
        None => fresh(disk, config),
    };
    if !manifest.clean {
        manifest.boot_epoch += 1;
    }
    manifest.clean = false;
    // Before anything is written that a build without them cannot read.
    manifest.incompatible_features |= FEATURES_KNOWN;
    write_manifest(disk, &manifest)?;
    let base = Metadata {
        cluster_id: manifest.cluster_id,
        node_id: manifest.node_id,
        shards: manifest.shards,
        leader_epoch: LeaderEpoch(manifest.boot_epoch),
        ..Metadata::default()
    };
    let metadata = Arc::new(controller::load(disk, base, config)?);
    Ok(Boot { manifest, metadata })
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
