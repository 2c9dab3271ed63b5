//! Looking into a data directory that nobody serves: what it holds, what is damaged, and what can be saved of it.
//!
//! Everything here reads through an [`Io`] and so runs on a simulated disk, too; [`local`] opens real paths. Nothing is
//! changed where it looks: [`salvage()`] writes to another directory.
//!
//! Where a start refuses at the first damage, an inspection notes it and goes on. What counts as damage is what the start
//! says it is: the journal is judged by the rows of its recovery's table, segments by what the checkpoint vouches for.

mod batches;
mod cross;
pub mod foreign;
mod journal;
pub mod local;
mod pieces;
mod queues;
mod reader;
mod report;
mod salvage;
mod segment;
mod show;
mod single;
mod site;
mod writer;

use std::collections::{BTreeMap, BTreeSet};

pub use report::{Detail, Line, Spot, Summary, Verdict};
pub use salvage::{Salvaged, salvage};

use crate::error::Fatal;
use crate::format::checkpoint::Checkpoint;
use crate::format::journal::records;
use crate::format::partition::{LEADER_EPOCHS_FILE, METADATA_FILE, parse_file_name};
use crate::io::{Blocking, Io};
use crate::journal::Files;
use crate::log::paths;
use crate::types::Lsn;
use pieces::Pieces;
use queues::Messages;
use report::Report;
use site::{CHECKPOINT, Site};

/// Directories within each other, at most: a data directory has three.
const DEPTH_MAX: usize = 8;

/// Looks at every file at or below `target` (a path relative to where `disk` looks from, empty for all of it) and tells
/// `out` of each. If `disk` looks from a data directory, files are also held against what its checkpoints say.
///
/// Fails only if something cannot be opened or listed. What cannot be read within a file is damage of that file.
pub fn check<I: Io>(
    disk: &mut Blocking<'_, I>,
    target: &str,
    detail: Detail,
    out: &mut dyn FnMut(Line<'_>),
) -> Result<Summary, Fatal> {
    let mut report = Report::new(detail, out);
    let site = Site::read(disk)?;
    for (directory, wanted) in files(disk, target)? {
        let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
        let of_partition = |path: &String| {
            parse_file_name(&name(path)).is_some()
                || name(path) == METADATA_FILE
                || name(path) == LEADER_EPOCHS_FILE
        };
        if wanted.iter().any(|path| Files::number(&name(path)).is_some()) {
            ring(disk, &site, &directory, &wanted, &mut report)?;
        } else if wanted.iter().any(|path| queues::store_number(path).is_some()) {
            queues::stores(disk, &site, &directory, &wanted, &mut report)?;
        } else if wanted.iter().any(of_partition) {
            segment::partition(disk, &site, &directory, &wanted, &mut report)?;
        } else {
            for path in &wanted {
                single::check(disk, path, &mut report)?;
            }
        }
    }
    for home in &site.shards {
        if target.is_empty() || target == home.directory || target == home.messages() {
            queues::missing(disk, home, &mut report)?;
        }
    }
    let checkpoints = site.shards.iter().filter_map(|shard| shard.checkpoint.as_ref());
    for state in checkpoints.flat_map(|checkpoint| &checkpoint.partitions) {
        let Some(name) = site.names.get(&state.id.topic) else { continue };
        let directory = paths::directory(name, state.id.index);
        if !site.deleted.contains(&state.id.topic) && (target.is_empty() || target == directory) {
            segment::missing(disk, state, &directory, &mut report)?;
        }
    }
    Ok(report.summary)
}

/// The files at or below `target`, by the directory that they are in.
fn files<I: Io>(
    disk: &mut Blocking<'_, I>,
    target: &str,
) -> Result<BTreeMap<String, BTreeSet<String>>, Fatal> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (parent, name) = target.rsplit_once('/').unwrap_or(("", target));
    let is_file = disk.list(parent)?.iter().any(|entry| entry.name == name && !entry.is_dir);
    if is_file {
        found.entry(parent.to_owned()).or_default().insert(target.to_owned());
        return Ok(found);
    }
    let mut open = vec![(target.to_owned(), 0)];
    while let Some((directory, depth)) = open.pop() {
        for entry in disk.list(&directory)? {
            let path = if directory.is_empty() { entry.name } else { format!("{directory}/{}", entry.name) };
            if !entry.is_dir {
                found.entry(directory.clone()).or_default().insert(path);
            } else if depth < DEPTH_MAX {
                open.push((path, depth + 1));
            }
        }
    }
    Ok(found)
}

/// The checkpoint that belongs to a journal's directory, if one can be had.
fn checkpoint_of<I: Io>(
    disk: &mut Blocking<'_, I>,
    site: &Site,
    journal: &str,
) -> Result<Option<Checkpoint>, Fatal> {
    if let Some(home) = site.shards.iter().find(|home| home.journal() == journal) {
        return Ok(home.checkpoint.clone());
    }
    let Some((parent, _)) = journal.rsplit_once('/') else { return Ok(None) };
    let sibling = disk.read_whole(&format!("{parent}/{CHECKPOINT}"))?;
    Ok(sibling.and_then(|bytes| Checkpoint::decode(&bytes).ok()))
}

/// Judges the wanted files of a journal. All of it is read, because its files belong together.
fn ring<I: Io>(
    disk: &mut Blocking<'_, I>,
    site: &Site,
    directory: &str,
    wanted: &BTreeSet<String>,
    report: &mut Report<'_>,
) -> Result<(), Fatal> {
    let checkpoint = checkpoint_of(disk, site, directory)?;
    let mut pieces = Pieces::default();
    let names: Vec<String> = disk
        .list(directory)?
        .into_iter()
        .filter(|entry| Files::number(&entry.name).is_some())
        .map(|entry| format!("{directory}/{}", entry.name))
        .collect();
    let mut messages = Messages::new(site, checkpoint.as_ref());
    let walked = journal::walk(disk, directory, site.journal_key, checkpoint.as_ref(), &mut |found| {
        pieces.take(found);
        if let Some(name) = names.get(found.file) {
            messages.take_journal(name, found);
        }
        let Some(file) = names.get(found.file).filter(|file| wanted.contains(*file)) else { return };
        report.entry(|| format!("{file}{}", show::group(found.position, &found.header)));
        let mut lsn = found.header.first_lsn;
        for (record, payload) in records(found.bytes) {
            let position = found.position + payload.start as u64;
            let bytes = found.bytes.get(payload).unwrap_or_default();
            report.entry(|| show::record(position, lsn.0, &record, &site.owner(record.partition), bytes));
            if let Ok(header) = crate::format::batch::check(bytes) {
                show::records(report, &header, bytes);
            }
            lsn = Lsn(lsn.0 + 1);
        }
    })?;
    let mut verdicts = walked.verdicts;
    pieces.files.extend(verdicts.iter().map(|verdict| verdict.file.clone()));
    let journal_files: BTreeSet<String> = names.into_iter().collect();
    let home = site.shards.iter().find(|home| home.journal() == directory);
    let home = home.filter(|home| home.checkpoint.is_some() && journal_files.is_subset(wanted));
    let (wrong, nowhere) = match home {
        Some(home) => {
            messages.take_stores(disk, home)?;
            messages.judge(home)
        }
        None => (messages.wrong, None),
    };
    for (file, position, what) in wrong {
        if let Some(verdict) = verdicts.iter_mut().find(|verdict| verdict.file == file) {
            verdict.bad(position, what);
        }
    }
    verdicts.extend(nowhere);
    if site.is_data
        && let Some(checkpoint) = &checkpoint
        && journal_files.is_subset(wanted)
    {
        cross::judge(disk, site, checkpoint, &pieces, &mut verdicts)?;
    }
    for verdict in &verdicts {
        if wanted.contains(&verdict.file) || !journal_files.contains(&verdict.file) {
            report.file(verdict);
        }
    }
    Ok(())
}
