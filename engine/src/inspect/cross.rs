//! Whether a shard's journal, checkpoint and segments fit together: the checks that recovery makes, without its end at
//! the first that fails.

use std::collections::BTreeMap;

use super::pieces::{Kind, Piece, Pieces};
use super::report::Verdict;
use super::site::Site;
use crate::error::Fatal;
use crate::format::checkpoint::{Checkpoint, PartitionState};
use crate::format::partition::SegmentFile;
use crate::io::{Blocking, Io};
use crate::log::paths;
use crate::types::{Offset, PartitionId};

/// Judges what the journal holds of each partition. `verdicts` are those of the journal's files, in the order of
/// [`Pieces::files`]; verdicts on segments are added.
pub(super) fn judge<I: Io>(
    disk: &mut Blocking<'_, I>,
    site: &Site,
    checkpoint: &Checkpoint,
    pieces: &Pieces,
    verdicts: &mut Vec<Verdict>,
) -> Result<(), Fatal> {
    for (id, held) in &pieces.owners {
        if site.deleted.contains(&id.topic) {
            continue;
        }
        let Some(name) = site.names.get(&id.topic) else {
            // Before what is replayed there may be something of a topic whose deletion is forgotten.
            if let Some(piece) = held.pieces.iter().find(|piece| piece.lsn >= checkpoint.replay_lsn) {
                let what = format!("a record of partition {id}, which the metadata does not know");
                bad(verdicts, piece, what);
            }
            continue;
        };
        let state = checkpoint.partitions.iter().find(|state| state.id == *id);
        order(checkpoint, state, &held.pieces, verdicts);
        let directory = paths::directory(name, id.index);
        covered(disk, &directory, state, pieces, *id, verdicts)?;
    }
    for state in &checkpoint.partitions {
        let is_gone = site.deleted.contains(&state.id.topic);
        let unfinished = state.segments.iter().find(|segment| segment.flushed < segment.size);
        if let (Some(segment), Some(name), false) = (unfinished, site.names.get(&state.id.topic), is_gone)
            && !pieces.owners.contains_key(&state.id)
        {
            let directory = paths::directory(name, state.id.index);
            lacking(verdicts, &directory, segment.base, u64::from(segment.flushed));
        }
    }
    Ok(())
}

fn bad(verdicts: &mut [Verdict], piece: &Piece, what: String) {
    if let Some(span) = piece.spans.first()
        && let Some(verdict) = verdicts.get_mut(span.file)
    {
        verdict.bad(span.position, what);
    }
}

fn lacking(verdicts: &mut Vec<Verdict>, directory: &str, segment: Offset, position: u64) {
    let mut verdict = Verdict::new(paths::segment(directory, segment, SegmentFile::Log));
    verdict.bad(position, "neither the file nor the journal has the durable bytes from here on");
    verdicts.push(verdict);
}

/// Batches behind the checkpoint follow its state, one after the other.
fn order(
    checkpoint: &Checkpoint,
    state: Option<&PartitionState>,
    pieces: &[Piece],
    verdicts: &mut [Verdict],
) {
    let mut next = state.map_or(Offset(0), |state| state.next_offset);
    for piece in pieces.iter().filter(|piece| piece.lsn > checkpoint.lsn) {
        let Kind::Batch(first, behind) = piece.kind else { continue };
        if first != next {
            bad(verdicts, piece, format!("a batch with offset {first} where {next} comes next"));
        }
        next = behind;
    }
}

/// What is not flushed in a segment's file is in the journal, without a gap, and carries complete their batches.
fn covered<I: Io>(
    disk: &mut Blocking<'_, I>,
    directory: &str,
    state: Option<&PartitionState>,
    pieces: &Pieces,
    id: PartitionId,
    verdicts: &mut Vec<Verdict>,
) -> Result<(), Fatal> {
    // By segment: how much of the file is durable, how long the segment is.
    let mut segments: BTreeMap<Offset, (u64, u64)> = BTreeMap::new();
    let known = state.map(|state| &state.segments[..]).unwrap_or_default();
    for segment in known {
        segments.insert(segment.base, (u64::from(segment.flushed), u64::from(segment.size)));
    }
    let Some(held) = pieces.owners.get(&id) else { return Ok(()) };
    let oldest = known.first().map_or(Offset(0), |segment| segment.base);
    let mut stretches: Vec<&Piece> = held.pieces.iter().filter(|piece| piece.segment >= oldest).collect();
    for piece in &stretches {
        let (_, size) = segments.entry(piece.segment).or_default();
        *size = piece.end().max(*size);
    }
    stretches.sort_by_key(|piece| (piece.segment, piece.position));
    for (base, (flushed, size)) in segments {
        let mut end = flushed;
        for piece in stretches.iter().filter(|piece| piece.segment == base && piece.end() > flushed) {
            if u64::from(piece.position) > end {
                break;
            }
            end = end.max(piece.end());
            let Kind::Carry(start) = piece.kind else { continue };
            let log = paths::segment(directory, base, SegmentFile::Log);
            if let (_, Some(at)) = pieces.complete(disk, &log, piece, start)? {
                let mut verdict = Verdict::new(log);
                verdict.bad(u64::from(at), "the batch here, with its rest from the journal, is not sound");
                verdicts.push(verdict);
            }
        }
        if end < size {
            lacking(verdicts, directory, base, end);
        }
    }
    Ok(())
}
