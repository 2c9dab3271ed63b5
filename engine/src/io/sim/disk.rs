//! The simulated disk: files, names, and what is in flight. It knows neither time nor who asked.

use std::collections::BTreeMap;

use super::content::File;
use super::tree::{Inode, Tree};
use crate::buffer::Slice;
use crate::checksum::crc32c;
use crate::error::IoError;
use crate::io::random::Random;
use crate::io::{DirEntry, Space};
use crate::limits::BLOCK_BYTES;

/// What an operation in flight will do to the disk when it completes.
#[derive(Clone)]
pub(super) enum Effect {
    /// Bytes to be written; with the checksum that they had when they were handed over.
    Write {
        inode: Inode,
        at: u64,
        bytes: Slice,
        crc: u32,
    },
    /// Everything in the file below the mark is to become durable.
    Flush {
        inode: Inode,
        mark: u64,
    },
    SetLen {
        inode: Inode,
        len: u64,
    },
    Create {
        path: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    MakeDir {
        path: String,
    },
    /// Every name in the directory that changed below the mark is to become durable.
    SyncDir {
        path: String,
        mark: u64,
    },
}

/// An effect in flight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct EffectId(u64);

/// A disk: its content, what of it is durable, and what is in flight. A clone is independent; it is how many crashes
/// are explored from one state.
#[derive(Clone)]
pub struct Disk {
    pub(super) tree: Tree,
    pub(super) in_flight: BTreeMap<EffectId, Effect>,
    next_effect: u64,
    capacity_bytes: u64,
}

impl Disk {
    /// An empty disk.
    pub(super) fn new(capacity_bytes: u64) -> Disk {
        Disk { tree: Tree::new(), in_flight: BTreeMap::new(), next_effect: 0, capacity_bytes }
    }

    /// A file's bytes as a reader sees them; `None` if there is no such file.
    pub fn read_file(&self, path: &str) -> Option<Vec<u8>> {
        self.tree.find(path).and_then(|inode| self.tree.file(inode)).ok().map(File::bytes)
    }

    /// Puts a file there, with its directories, all of it durable.
    pub fn write_file(&mut self, path: &str, bytes: &[u8]) {
        for (end, _) in path.match_indices('/') {
            self.tree.make_dir(&path[..end]).expect("a path leads through directories");
        }
        let inode = self.tree.create(path).expect("a file stands where a file is put");
        *self.tree.file_mut(inode).expect("just made") = File::durable(bytes);
        self.tree.flush_all();
    }

    /// The paths of all files, sorted.
    pub fn list_all(&self) -> Vec<String> {
        self.tree.all_files()
    }

    /// Flips one bit of a file's byte at `position`, as it is read and as it is durable.
    pub fn rot(&mut self, path: &str, position: u64, bit: u8) {
        let inode = self.tree.find(path).expect("the file to damage is there");
        self.tree.file_mut(inode).expect("it is a file").rot(position, bit);
    }

    pub(super) fn set_capacity(&mut self, capacity_bytes: u64) {
        self.capacity_bytes = capacity_bytes;
    }

    pub(super) fn space(&self) -> Space {
        Space { free_bytes: self.free_bytes(), total_bytes: self.capacity_bytes }
    }

    fn free_bytes(&self) -> u64 {
        let used: u64 = self.tree.lengths().map(in_blocks).sum();
        self.capacity_bytes.saturating_sub(used)
    }

    pub(super) fn list(&self, path: &str) -> Result<Vec<DirEntry>, IoError> {
        self.tree.list(path)
    }

    /// Bytes to be written.
    pub(super) fn write_effect(inode: Inode, at: u64, bytes: Slice) -> Effect {
        let crc = crc32c(&bytes);
        Effect::Write { inode, at, bytes, crc }
    }

    /// A flush of everything written so far.
    pub(super) fn flush_effect(&self, inode: Inode) -> Effect {
        Effect::Flush { inode, mark: self.tree.file(inode).map_or(0, File::flush_mark) }
    }

    /// A flush of every name changed so far.
    pub(super) fn sync_dir_effect(&self, path: &str) -> Effect {
        Effect::SyncDir { path: path.to_owned(), mark: self.tree.flush_mark() }
    }

    /// Puts an effect in flight.
    pub(super) fn start(&mut self, effect: Effect) -> EffectId {
        let id = EffectId(self.next_effect);
        self.next_effect += 1;
        self.in_flight.insert(id, effect);
        id
    }

    /// An effect takes place.
    pub(super) fn finish(&mut self, id: EffectId) -> Result<(), IoError> {
        let effect = self.abandon(id);
        self.apply(&effect)
    }

    /// An effect does not take place.
    pub(super) fn abandon(&mut self, id: EffectId) -> Effect {
        self.in_flight.remove(&id).expect("an effect ends once")
    }

    /// A flush fails: see the fault model.
    pub(super) fn fail_flush(&mut self, id: EffectId, random: &mut Random) {
        if let Effect::Flush { inode, mark } = self.abandon(id)
            && let Ok(file) = self.tree.file_mut(inode)
        {
            file.fail_flush(mark, random);
        }
    }

    pub(super) fn apply(&mut self, effect: &Effect) -> Result<(), IoError> {
        match effect {
            Effect::Write { inode, at, bytes, crc } => {
                assert_eq!(crc32c(bytes), *crc, "a buffer was changed while it was being written");
                self.write(*inode, *at, bytes)
            }
            Effect::Flush { inode, mark } => {
                self.tree.file_mut(*inode)?.flush(*mark);
                Ok(())
            }
            Effect::SetLen { inode, len } => {
                let grows = in_blocks(*len).saturating_sub(in_blocks(self.tree.file(*inode)?.len()));
                if grows > self.free_bytes() {
                    return Err(IoError::NoSpace);
                }
                self.tree.file_mut(*inode)?.set_len(*len);
                Ok(())
            }
            Effect::Create { path } => self.tree.create(path).map(|_| ()),
            Effect::Rename { from, to } => self.tree.rename(from, to),
            Effect::Unlink { path } => self.tree.unlink(path),
            Effect::MakeDir { path } => self.tree.make_dir(path).map(|_| ()),
            Effect::SyncDir { path, mark } => self.tree.flush_dir(path, *mark),
        }
    }

    /// Writes as much as there is space for.
    fn write(&mut self, inode: Inode, at: u64, bytes: &[u8]) -> Result<(), IoError> {
        let held = in_blocks(self.tree.file(inode)?.len());
        let end = at + bytes.len() as u64;
        let fits = if end > held { end.min(held + self.free_bytes()) } else { end };
        let file = self.tree.file_mut(inode)?;
        if fits < end {
            file.write(at, &bytes[..fits.saturating_sub(at) as usize]);
            return Err(IoError::NoSpace);
        }
        file.write(at, bytes);
        Ok(())
    }
}

/// A length rounded up to blocks.
fn in_blocks(len: u64) -> u64 {
    len.next_multiple_of(BLOCK_BYTES as u64)
}
