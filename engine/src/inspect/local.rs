//! Inspections of real paths.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Detail, Line, Salvaged, Summary};
use crate::buffer::Pool;
use crate::error::Fatal;
use crate::io::Blocking;
use crate::io::uring::{Peers, Uring, UringOptions};
use crate::types::ShardId;

/// Memory for what is read at a time: a few of the largest batches.
const MEMORY_BYTES: usize = 512 << 20;

/// Where an inspection looks from, and what it is to look at there.
struct Place {
    root: PathBuf,
    target: String,
}

/// Finds the data directory that a path lies in; a path in none is looked at by itself.
fn place(path: &Path) -> Result<Place, Fatal> {
    let refused = |what: &dyn std::fmt::Display| Fatal::Refused(format!("{}: {what}", path.display()));
    let full = path.canonicalize().map_err(|error| refused(&error))?;
    let data = full.ancestors().find(|ancestor| ancestor.join("manifest").is_file());
    let own = if full.is_dir() { Some(full.as_path()) } else { full.parent() };
    let root = data.or(own).ok_or_else(|| refused(&"it is in no directory"))?.to_owned();
    let below = full.strip_prefix(&root).map_err(|error| refused(&error))?;
    let target = below.to_str().ok_or_else(|| refused(&"the path is no text"))?.to_owned();
    Ok(Place { root, target })
}

/// Takes the data directory's lock, so that nobody starts to serve it meanwhile. `None` if there is no lock file.
#[expect(clippy::disallowed_methods, reason = "the lock is the process's, and taken before there is any Io")]
fn lock(root: &Path) -> Result<Option<File>, Fatal> {
    let Ok(file) = File::open(root.join("LOCK")) else { return Ok(None) };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Fatal::Locked(root.display().to_string())),
        Err(TryLockError::Error(error)) => {
            Err(Fatal::Refused(format!("locking {}: {error}", root.display())))
        }
    }
}

fn io(root: &Path) -> Result<Uring, Fatal> {
    Uring::new(UringOptions {
        shard: ShardId(0),
        root: root.to_owned(),
        peers: Arc::new(Peers::new(1)),
        direct: false,
        receive_pool: Pool::new(1 << 20),
    })
}

/// Looks at a data directory, a directory in it, or a file; see [`super::check`]. A directory that is being served is
/// looked at as well, and `warn` is told: what is being written just then looks damaged.
pub fn check(
    path: &Path,
    detail: Detail,
    out: &mut dyn FnMut(Line<'_>),
    warn: &mut dyn FnMut(&Fatal),
) -> Result<Summary, Fatal> {
    let Place { root, target } = place(path)?;
    let lock = lock(&root);
    if let Err(fatal) = &lock {
        warn(fatal);
    }
    let mut io = io(&root)?;
    super::check(&mut Blocking::new(&mut io, Pool::new(MEMORY_BYTES)), &target, detail, out)
}

/// Saves what is sound at `path` into `to`, which is made if it is not there and must be empty; see
/// [`super::salvage()`]. A directory that is being served is refused.
#[expect(clippy::disallowed_methods, reason = "an Io looks from a directory that is there already")]
pub fn salvage(path: &Path, to: &Path, out: &mut dyn FnMut(&str)) -> Result<Salvaged, Fatal> {
    let Place { root, target } = place(path)?;
    let _lock = lock(&root)?;
    let refused = |error: std::io::Error| Fatal::Refused(format!("{}: {error}", to.display()));
    // Before it is made: nothing is ever written where the salvage looks.
    let parent = to.ancestors().skip(1).find(|parent| parent.as_os_str().is_empty() || parent.exists());
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let existing = if to.exists() { to } else { parent };
    if existing.canonicalize().map_err(refused)?.starts_with(&root) {
        return Err(Fatal::Refused(format!("{} lies in what is to be salvaged", to.display())));
    }
    std::fs::create_dir_all(to).map_err(refused)?;
    let mut from = io(&root)?;
    let mut into = io(to)?;
    let mut from = Blocking::new(&mut from, Pool::new(MEMORY_BYTES));
    let mut into = Blocking::new(&mut into, Pool::new(MEMORY_BYTES));
    super::salvage(&mut from, &target, &mut into, "", out)
}
