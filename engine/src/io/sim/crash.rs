//! What a disk holds after the machine or the process has died.

use super::content;
use super::disk::{Disk, Effect};
use crate::io::random::Random;
use crate::limits::BLOCK_BYTES;

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process is killed: what completed stays (and stays as undurable as it was), of what was in flight any part.
    Kill,
    /// Power is lost: what was durable stays, and of the rest this.
    Power(Survivors),
}

/// What a power loss leaves of what was not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survivors {
    /// Nothing.
    None,
    /// All of it, even what was in flight.
    All,
    /// A random part.
    Some,
}

/// Something that a power loss now may keep or lose. What is in flight counts as written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Unflushed {
    /// The file; or what was done to a name, in words.
    pub path: String,
    /// What of it.
    pub change: UnflushedChange,
}

/// See [`Unflushed`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum UnflushedChange {
    /// One write's version of the block of this number. Of several versions that survive, the last one counts.
    Block(u64),
    /// The file's length in bytes. It survives only if the lengths listed before it for this file do.
    Length(u64),
    /// A name. It survives only if what it was built on does.
    Name,
}

impl Disk {
    /// Everything that a power loss now may keep or lose, in a fixed order: files' changes, then names.
    pub fn unflushed(&self) -> Vec<Unflushed> {
        let mut landed = self.clone();
        landed.land_everything();
        landed.list_unflushed()
    }

    /// Power is lost; of what [`Disk::unflushed`] lists, that stays for which `keep` says so (asked once for each, in
    /// the list's order).
    pub fn crash_keeping(&mut self, mut keep: impl FnMut(&Unflushed) -> bool) {
        self.land_everything();
        let mut kept: Vec<bool> = self.list_unflushed().iter().map(&mut keep).collect();
        let names = kept.split_off(kept.len() - self.tree.unflushed().count());
        let mut kept = kept.into_iter();
        for file in self.tree.files_mut() {
            let mine = file.unflushed().count();
            file.lose_power(kept.by_ref().take(mine));
        }
        self.tree.lose_power(names);
    }

    /// The process or the machine dies; `random` decides what the crash leaves open.
    pub fn crash(&mut self, crash: Crash, random: &mut Random) {
        match crash {
            Crash::Kill => self.kill(random),
            Crash::Power(Survivors::None) => self.crash_keeping(|_| false),
            Crash::Power(Survivors::All) => self.crash_keeping(|_| true),
            Crash::Power(Survivors::Some) => {
                // Nearly nothing and nearly everything are as telling as half.
                let share = [0.1, 0.5, 0.9][random.below(3) as usize];
                self.crash_keeping(|_| random.chance(share));
            }
        }
    }

    fn kill(&mut self, random: &mut Random) {
        for effect in std::mem::take(&mut self.in_flight).into_values() {
            match effect {
                Effect::Write { inode, at, bytes, .. } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let within = (at as usize + from) % BLOCK_BYTES;
                        let to = (from + BLOCK_BYTES - within).min(bytes.len());
                        if random.chance(0.5) {
                            let part = Disk::write_effect(inode, at + from as u64, bytes.slice(from..to));
                            // Without space, or without the file, it is as if it had not been written.
                            let _ = self.apply(&part);
                        }
                        from = to;
                    }
                }
                other if random.chance(0.5) => {
                    // An operation that fails in its last moment has nobody to tell.
                    let _ = self.apply(&other);
                }
                _ => {}
            }
        }
        self.tree.close_all();
    }

    /// Completes what is in flight, so that each part of it can be kept or lost. Flushes do not happen: they would
    /// take choices away.
    fn land_everything(&mut self) {
        for effect in std::mem::take(&mut self.in_flight).into_values() {
            if !matches!(effect, Effect::Flush { .. } | Effect::SyncDir { .. }) {
                // An operation that fails in its last moment has nobody to tell.
                let _ = self.apply(&effect);
            }
        }
    }

    fn list_unflushed(&self) -> Vec<Unflushed> {
        let paths = self.tree.paths();
        let mut found = Vec::new();
        for (inode, file) in self.tree.files() {
            let path = paths.get(&inode).cloned().unwrap_or_default();
            found.extend(file.unflushed().map(|change| Unflushed {
                path: path.clone(),
                change: match change {
                    content::Unflushed::Block(index) => UnflushedChange::Block(index),
                    content::Unflushed::Len(len) => UnflushedChange::Length(len),
                },
            }));
        }
        let names = self.tree.unflushed();
        found.extend(names.map(|text| Unflushed { path: text.to_owned(), change: UnflushedChange::Name }));
        found
    }
}
