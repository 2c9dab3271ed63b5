//! The files that stand for themselves: manifest, metadata, checkpoint.

use super::reader::Reader;
use super::report::{Report, Verdict};
use super::site::{CHECKPOINT, MANIFEST, METADATA};
use crate::error::Fatal;
use crate::format::checkpoint::Checkpoint;
use crate::format::manifest::{Manifest, ManifestError};
use crate::format::metadata::{End, scan};
use crate::io::{Blocking, Io};
use crate::log::drain::COPY_SUFFIX;

/// The lock's name; it says nothing.
const LOCK: &str = "LOCK";

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Manifest,
    Checkpoint,
    MetadataLog,
    MetadataSnapshot,
}

/// What a file is, by its name, or else by how it starts.
fn what(path: &str, start: &[u8]) -> Option<What> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let [snapshot, log] = METADATA;
    Some(match (name, start) {
        (MANIFEST, _) | (_, [b'M', b'I', b'L', b'L', b'S', b'T', b'R', b'M', ..]) => What::Manifest,
        (CHECKPOINT, _) | (_, [b'M', b'S', b'C', b'1', ..]) => What::Checkpoint,
        _ if path == log => What::MetadataLog,
        _ if path == snapshot => What::MetadataSnapshot,
        (_, [b'M', b'S', b'M', b'D', ..]) => What::MetadataLog,
        _ => return None,
    })
}

/// Judges one file.
pub(super) fn check<I: Io>(
    disk: &mut Blocking<'_, I>,
    path: &str,
    report: &mut Report<'_>,
) -> Result<(), Fatal> {
    if path == LOCK {
        return Ok(());
    }
    let mut verdict = Verdict::new(path);
    let Some(mut reader) = Reader::open(disk, path)? else { return Ok(()) };
    let what = what(path, reader.get(disk, 0, 8)?);
    if path.ends_with(COPY_SUFFIX) {
        "left over: a replacement that a crash cut off".clone_into(&mut verdict.holds);
    } else if let Some(what) = what {
        let len = reader.len as usize;
        let bytes = reader.get(disk, 0, len)?;
        match what {
            What::Manifest => manifest(bytes, &mut verdict),
            What::Checkpoint => checkpoint(bytes, &mut verdict, report),
            What::MetadataLog => metadata(bytes, true, &mut verdict, report),
            What::MetadataSnapshot => metadata(bytes, false, &mut verdict, report),
        }
    } else {
        "none of ours".clone_into(&mut verdict.holds);
    }
    if let Some(at) = reader.unreadable {
        verdict.bad(at, "it cannot be read");
    }
    reader.close(disk);
    report.file(&verdict);
    Ok(())
}

fn manifest(bytes: &[u8], verdict: &mut Verdict) {
    match Manifest::decode(bytes) {
        Ok(manifest) => {
            verdict.holds = format!(
                "format version {}, cluster {}, node {}, {} shards, generation {}, boot epoch {}, ended {}",
                manifest.format_version,
                manifest.cluster_id,
                manifest.node_id,
                manifest.shards,
                manifest.generation,
                manifest.boot_epoch,
                if manifest.clean { "in good order" } else { "by a crash, or is being served" },
            );
        }
        Err(ManifestError::Newer(what)) => verdict.holds = what,
        Err(ManifestError::Corrupt { position, what }) => verdict.bad(position, what),
    }
}

fn checkpoint(bytes: &[u8], verdict: &mut Verdict, report: &mut Report<'_>) {
    let checkpoint = match Checkpoint::decode(bytes) {
        Ok(checkpoint) => checkpoint,
        Err((position, what)) => return verdict.bad(position, what),
    };
    for state in &checkpoint.partitions {
        report.entry(|| {
            format!(
                "{}: partition {}, log start {}, next offset {}, {} producers",
                verdict.file,
                state.id,
                state.log_start,
                state.next_offset,
                state.producers.len()
            )
        });
        for segment in &state.segments {
            report.entry(|| {
                format!(
                    "  segment {}: {} bytes, {} flushed, {} and {} index entries, {}",
                    segment.base,
                    segment.size,
                    segment.flushed,
                    segment.index_entries,
                    segment.time_entries,
                    if segment.stored { "stored" } else { "open" },
                )
            });
        }
    }
    verdict.holds = format!(
        "shard {} of generation {}, as of record {}, replay from {}, {} partitions",
        checkpoint.shard.0,
        checkpoint.generation,
        checkpoint.lsn.0,
        checkpoint.replay_lsn.0,
        checkpoint.partitions.len()
    );
}

fn metadata(bytes: &[u8], may_be_torn: bool, verdict: &mut Verdict, report: &mut Report<'_>) {
    let scan = scan(bytes, 0);
    for (epoch, records) in &scan.frames {
        report.entry(|| format!("{}: epoch {}, {} records", verdict.file, epoch.0, records.len()));
        for record in records {
            report.entry(|| format!("  {record:?}"));
        }
    }
    let epoch = scan.frames.last().map_or(0, |(epoch, _)| epoch.0);
    verdict.holds = format!("{} frames, up to epoch {epoch}", scan.frames.len());
    match scan.end {
        End::Clean => {}
        End::Torn { position } if may_be_torn => {
            let frames = std::mem::take(&mut verdict.holds);
            verdict.holds = format!("{frames}; torn from byte {position} on, which nobody was promised");
        }
        End::Torn { position } => verdict.bad(position, "the snapshot is cut off"),
        End::Corrupt { position, what } => verdict.bad(position, what),
        End::Newer { position, kind } => {
            verdict.bad(position, format!("a record of kind {kind}, which this version does not know"));
        }
    }
}
