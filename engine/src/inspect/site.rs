//! What a data directory says about itself: the manifest, the metadata and the checkpoints, as far as they are sound.

use std::collections::{BTreeMap, BTreeSet};

use super::queues::MESSAGES;
use crate::error::Fatal;
use crate::format::checkpoint::{Checkpoint, PartitionState, QueuesState};
use crate::format::manifest::Manifest;
use crate::format::metadata::{MetadataRecord, scan};
use crate::io::{Blocking, Io};
use crate::types::{Lsn, PartitionId, QueueId, ShardId, TopicId};

/// The manifest's name.
pub(super) const MANIFEST: &str = "manifest";
/// The directory that holds every shard's directory.
pub(super) const SHARDS: &str = "shards";
/// The checkpoint's name in a shard's directory.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// The journal's directory in a shard's directory.
pub(super) const JOURNAL: &str = "journal";
/// The metadata's snapshot and log.
pub(super) const METADATA: [&str; 2] = ["metadata/snapshot", "metadata/log"];

/// What is known before any file is judged.
#[derive(Default)]
pub(super) struct Site {
    /// Whether this is a data directory at all, or just some directory.
    pub is_data: bool,
    /// What the groups of its journals carry, if the manifest could be read.
    pub journal_key: Option<u64>,
    /// Topics by id.
    pub names: BTreeMap<TopicId, String>,
    /// Topics that are no more.
    pub deleted: BTreeSet<TopicId>,
    /// Queues by id, with the names that the host has given them.
    pub queues: BTreeMap<QueueId, Vec<u8>>,
    /// Queues that are no more.
    pub deleted_queues: BTreeSet<QueueId>,
    /// The shards of the generation that is served.
    pub shards: Vec<ShardHome>,
}

/// A shard's directory.
pub(super) struct ShardHome {
    pub directory: String,
    /// Its checkpoint: `None` if it is damaged, an empty one if it was never written.
    pub checkpoint: Option<Checkpoint>,
}

impl ShardHome {
    pub fn journal(&self) -> String {
        format!("{}/{JOURNAL}", self.directory)
    }

    pub fn messages(&self) -> String {
        format!("{}/{MESSAGES}", self.directory)
    }
}

impl Site {
    /// Looks around in the directory that `disk` is rooted at.
    pub fn read<I: Io>(disk: &mut Blocking<'_, I>) -> Result<Site, Fatal> {
        let mut site = Site::default();
        let manifest = disk.read_whole(MANIFEST)?;
        site.is_data = manifest.is_some();
        let manifest = manifest.and_then(|bytes| Manifest::decode(&bytes).ok());
        site.journal_key = manifest.as_ref().map(|manifest| manifest.journal_key);
        for path in METADATA {
            let Some(bytes) = disk.read_whole(path)? else { continue };
            for (_, records) in scan(&bytes, 0).frames {
                for record in records {
                    site.learn(record);
                }
            }
        }
        let mut homes: Vec<(u64, String)> = disk
            .list(SHARDS)?
            .into_iter()
            .filter_map(|entry| Some((generation(&entry.name)?, format!("{SHARDS}/{}", entry.name))))
            .collect();
        let served = manifest.map(|manifest| manifest.generation);
        let served = served.or(homes.iter().map(|(generation, _)| *generation).max());
        homes.retain(|(generation, _)| Some(*generation) == served);
        for (generation, directory) in homes {
            let checkpoint = checkpoint(disk, &format!("{directory}/{CHECKPOINT}"), generation)?;
            site.shards.push(ShardHome { directory, checkpoint });
        }
        Ok(site)
    }

    fn learn(&mut self, record: MetadataRecord) {
        match record {
            MetadataRecord::TopicCreated { id, name, .. } => {
                self.names.insert(id, name);
            }
            MetadataRecord::TopicDeleted { id } => {
                self.deleted.insert(id);
            }
            MetadataRecord::QueueCreated { id, name, .. } => {
                self.queues.insert(id, name);
            }
            MetadataRecord::QueueDeleted { id } => {
                self.queues.remove(&id);
                self.deleted_queues.insert(id);
            }
            MetadataRecord::DeletionForgotten { .. }
            | MetadataRecord::QueueConfigured { .. }
            | MetadataRecord::QueueDeletionForgotten { .. }
            | MetadataRecord::Entity { .. }
            | MetadataRecord::TopicConfigured { .. }
            | MetadataRecord::PartitionsAdded { .. }
            | MetadataRecord::ProducerIdsGiven { .. } => {}
        }
    }

    /// What the checkpoints say of a partition.
    pub fn state(&self, id: PartitionId) -> Option<&PartitionState> {
        let checkpoints = self.shards.iter().filter_map(|shard| shard.checkpoint.as_ref());
        checkpoints.flat_map(|checkpoint| &checkpoint.partitions).find(|state| state.id == id)
    }

    /// Whether every shard's checkpoint could be read, so that what they do not name is not there.
    pub fn is_complete(&self) -> bool {
        self.is_data && self.shards.iter().all(|shard| shard.checkpoint.is_some())
    }

    /// Whether the metadata knows a queue, or its deletion.
    pub fn knows_queue(&self, id: QueueId) -> bool {
        self.queues.contains_key(&id) || self.deleted_queues.contains(&id)
    }

    /// How a partition is called: by its topic's name, if that is known.
    pub fn owner(&self, id: PartitionId) -> String {
        match self.names.get(&id.topic) {
            Some(name) => format!("{name}-{}", id.index),
            None => id.to_string(),
        }
    }
}

/// The generation in the name of a shard's directory.
fn generation(name: &str) -> Option<u64> {
    name.split_once('-')?.0.parse().ok()
}

/// Reads a checkpoint; one that is not there is empty.
pub(super) fn checkpoint<I: Io>(
    disk: &mut Blocking<'_, I>,
    path: &str,
    generation: u64,
) -> Result<Option<Checkpoint>, Fatal> {
    Ok(match disk.read_whole(path)? {
        Some(bytes) => Checkpoint::decode(&bytes).ok(),
        None => Some(Checkpoint {
            lsn: Lsn::ZERO,
            replay_lsn: Lsn(1),
            generation,
            shard: ShardId(0),
            partitions: Vec::new(),
            queues: QueuesState::default(),
        }),
    })
}
