//! Taking over partitions of Apache Kafka, in a data directory that nobody serves.
//!
//! Each partition is copied into a directory that has no place yet, checked on the way; only when all of them stand there
//! whole and flushed do they become visible, and each as a whole:
//!
//! | crash after | what is found | what the next start does |
//! |---|---|---|
//! | something was copied | directories whose names end in `.new` | removes them |
//! | the metadata's snapshot was replaced | the topic, empty | removes those directories; the import can be run again |
//! | directories were renamed | the topic, empty, and segments that no checkpoint knows | removes these; the same |
//! | a shard's checkpoint was replaced | the topic, with that shard's partitions; the others are empty | the same, and only the others are to be imported again |
//!
//! Nothing else in the directory is touched: journals and the checkpoints' other partitions stay what they were.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::boot::{Boot, boot, finish};
use super::node::{BOOT_BYTES, boot_io, fit_to_machine, lock};
use crate::buffer::Pool;
use crate::config::Config;
use crate::error::Fatal;
use crate::format::checkpoint::PartitionState;
use crate::format::partition::{DirName, parse_dir_name};
use crate::inspect::foreign::{Copied, FOREIGN_EPOCH, copy};
use crate::io::probe::probe;
use crate::io::{Blocking, Io};
use crate::log::drain::COPY_SUFFIX;
use crate::log::paths;
use crate::shard::Shard;
use crate::shard::controller::add_topic;
use crate::shard::draft::new_topic_offline;
use crate::shard::metadata::Metadata;
use crate::shard::recovery::{checkpoint_path, make_directories, read_checkpoint};
use crate::types::{PartitionId, ShardId, TopicId};

/// What a topic gets that is made by an import: its records may be old, and must not vanish at once.
const SETTINGS: [(&str, &str); 2] = [("retention.ms", "-1"), ("retention.bytes", "-1")];

/// A partition's directory to be taken over.
pub struct Source<'a, 'io, J: Io> {
    /// The partition's number.
    pub index: u32,
    /// The directory, relative to where `disk` looks from.
    pub name: String,
    /// What errors call it.
    pub label: String,
    /// Looks from the directory that holds it.
    pub disk: &'a mut Blocking<'io, J>,
}

/// A partition that was taken over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported {
    /// Which one.
    pub partition: PartitionId,
    /// What it holds.
    pub copied: Copied,
}

/// Makes `sources` partitions of `topic` in the data directory that `io` looks from. The topic is made if it is not there,
/// with as many partitions as the sources need; one that is there must have them, and nothing may have been written to them.
///
/// # Errors
/// A source that is damaged, or a partition that cannot take it, leaves the directory's topics as they were.
pub fn import<I: Io, J: Io>(
    io: &mut I,
    config: &Config,
    pool: &Pool,
    topic: &str,
    sources: &mut [Source<'_, '_, J>],
) -> Result<Vec<Imported>, Fatal> {
    let mut disk = Blocking::new(io, pool.clone());
    let Boot { manifest, metadata } = boot(&mut disk, config)?;
    disk.make_dir(paths::LOGS)?;
    for shard in (0..manifest.shards).map(ShardId) {
        make_directories(&mut disk, manifest.generation, shard)?;
    }
    let found = Boot { manifest, metadata };
    let imported = take(io, config, pool, &found, topic, sources);
    let mut disk = Blocking::new(io, pool.clone());
    if imported.is_err() {
        for source in sources {
            disk.remove_tree(&aside(topic, source.index))?;
        }
    }
    finish(&mut disk, &found.manifest)?;
    imported
}

/// Where a partition is copied to, until it has its place.
fn aside(topic: &str, index: u32) -> String {
    format!("{}{COPY_SUFFIX}", paths::directory(topic, index))
}

fn take<I: Io, J: Io>(
    io: &mut I,
    config: &Config,
    pool: &Pool,
    found: &Boot,
    topic: &str,
    sources: &mut [Source<'_, '_, J>],
) -> Result<Vec<Imported>, Fatal> {
    let refused = |what: &dyn std::fmt::Display| Fatal::Refused(format!("{topic}: {what}"));
    let known = found.metadata.topic(topic).map(|topic| topic.id);
    let (id, record) = match known {
        Some(id) => {
            untouched(io, config, found, id, sources)?;
            (id, None)
        }
        None => {
            let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let partitions = sources.iter().map(|source| source.index + 1).max().unwrap_or(0);
            let (id, record) = new_topic_offline(
                &mut || io.random(),
                &found.metadata,
                config,
                topic.to_owned(),
                partitions,
                settings.to_vec(),
            )
            .map_err(|refusal| refused(&refusal))?;
            (id, Some(record))
        }
    };
    let mut disk = Blocking::new(io, pool.clone());
    let mut imported = Vec::new();
    for source in &mut *sources {
        let partition = PartitionId { topic: id, index: source.index };
        if imported.iter().any(|before: &Imported| before.partition == partition) {
            return Err(refused(&format!("partition {} is given twice", source.index)));
        }
        let aside = aside(topic, source.index);
        disk.remove_tree(&aside)?;
        let copied = copy(source.disk, &source.name, &source.label, &mut disk, &aside, partition)?;
        imported.push(Imported { partition, copied });
    }
    disk.sync_dir(paths::LOGS)?;

    // Everything stands on the disk. Now it is shown.
    let metadata = match &record {
        Some(record) => Arc::new(add_topic(&mut disk, &found.metadata, record, config)?),
        None => Arc::clone(&found.metadata),
    };
    for source in sources {
        let place = paths::directory(topic, source.index);
        disk.remove_tree(&place)?;
        disk.rename(&aside(topic, source.index), &place)?;
    }
    disk.sync_dir(paths::LOGS)?;
    show(&mut disk, found.manifest.generation, &metadata, &imported)?;
    Ok(imported)
}

/// Refuses partitions that are not there, or that something was written to.
fn untouched<I: Io, J: Io>(
    io: &mut I,
    config: &Config,
    found: &Boot,
    topic: TopicId,
    sources: &[Source<'_, '_, J>],
) -> Result<(), Fatal> {
    let config = Arc::new(Config { shards: found.manifest.shards, ..config.clone() });
    for source in sources {
        let partition = PartitionId { topic, index: source.index };
        let refused = |what| Fatal::Refused(format!("{}: {what}", source.label));
        let Some(id) = found.metadata.shard_of(partition) else {
            return Err(refused("the topic is there, but has no partition of this number"));
        };
        let (shard, _) =
            Shard::recover(io, id, &found.manifest, Arc::clone(&config), Arc::clone(&found.metadata))?;
        let is_untouched = shard.is_untouched(partition);
        shard.close(io);
        if !is_untouched {
            return Err(refused("the topic's partition of this number has records already"));
        }
    }
    Ok(())
}

/// Puts what was imported into the checkpoints of the shards that it is placed on.
fn show<I: Io>(
    disk: &mut Blocking<'_, I>,
    generation: u64,
    metadata: &Metadata,
    imported: &[Imported],
) -> Result<(), Fatal> {
    let mut by_shard: BTreeMap<ShardId, Vec<PartitionState>> = BTreeMap::new();
    for Imported { partition, copied } in imported {
        let shard = metadata.shard_of(*partition).expect("the topic has this partition");
        by_shard.entry(shard).or_default().push(PartitionState {
            id: *partition,
            log_start: copied.log_start,
            next_offset: copied.next_offset,
            segments: copied.segments.clone(),
            producers: Vec::new(),
            epochs: vec![(FOREIGN_EPOCH, copied.log_start)],
        });
    }
    for (shard, states) in by_shard {
        let mut checkpoint = read_checkpoint(disk, generation, shard)?;
        checkpoint.partitions.retain(|old| states.iter().all(|new| new.id != old.id));
        checkpoint.partitions.extend(states);
        disk.replace(&checkpoint_path(generation, shard), &checkpoint.encode())?;
    }
    Ok(())
}

/// A source by the name of its directory.
struct Named {
    parent: PathBuf,
    label: String,
    name: String,
    topic: String,
    index: u32,
}

/// [`import`] on real paths. A source's directory must have the name that Kafka gave it, `TOPIC-PARTITION`; `topic` is what
/// the topic is to be called here, if not the same. `data` is made if it is not there, and refused while it is served.
pub fn local(
    mut config: Config,
    data: &Path,
    topic: Option<&str>,
    sources: &[PathBuf],
) -> Result<Vec<(String, Imported)>, Fatal> {
    fit_to_machine(&mut config);
    let mut named = Vec::new();
    for path in sources {
        let refused = |what: &dyn std::fmt::Display| Fatal::Refused(format!("{}: {what}", path.display()));
        let full = path.canonicalize().map_err(|error| refused(&error))?;
        let name = full.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let (Some(DirName::Live { topic, index }), Some(parent)) = (parse_dir_name(&name), full.parent())
        else {
            return Err(refused(&"it is not named like a partition: TOPIC-NUMBER"));
        };
        named.push(Named {
            parent: parent.to_owned(),
            label: path.display().to_string(),
            name,
            topic,
            index,
        });
    }
    let Some(first) = named.first() else {
        return Err(Fatal::Refused("there is nothing to import".to_owned()));
    };
    if let Some(other) = named.iter().find(|other| other.topic != first.topic) {
        let (label, topic) = (&other.label, &first.topic);
        return Err(Fatal::Refused(format!(
            "{label} is of another topic than {topic}: import one at a time"
        )));
    }
    let topic = topic.unwrap_or(&first.topic).to_owned();
    let direct = probe(data)?.direct;
    let _lock = lock(data)?;
    let mut readers = Vec::new();
    for one in &named {
        readers.push(boot_io(&one.parent, false)?);
    }
    let pool = Pool::new(BOOT_BYTES);
    let mut disks: Vec<_> = readers.iter_mut().map(|io| Blocking::new(io, pool.clone())).collect();
    let sources = disks.iter_mut().zip(&named).map(|(disk, one)| Source {
        index: one.index,
        name: one.name.clone(),
        label: one.label.clone(),
        disk,
    });
    let mut sources: Vec<_> = sources.collect();
    let mut io = boot_io(data, direct)?;
    let imported = import(&mut io, &config, &Pool::new(BOOT_BYTES), &topic, &mut sources)?;
    Ok(imported.into_iter().map(|one| (format!("{topic}-{}", one.partition.index), one)).collect())
}
