//! Directories: names as they are seen, names as they are durable, and the changes that no directory flush has covered.

use std::collections::{BTreeMap, BTreeSet};

use super::content::File;
use crate::error::IoError;
use crate::io::DirEntry;

/// A file or directory, whatever it is called.
pub(super) type Inode = u64;

/// The data directory.
const ROOT: Inode = 0;

/// A change of names. Both halves of a rename are one change: it survives whole or not at all.
#[derive(Clone)]
struct NameChange {
    number: u64,
    /// Directory, name in it, and what the name stands for afterwards.
    names: Vec<(Inode, String, Option<Inode>)>,
    /// The file or directory that it is about.
    subject: Inode,
    /// Those of its directories that have been flushed since.
    flushed: BTreeSet<Inode>,
    text: String,
}

#[derive(Clone)]
enum Node {
    File(Box<File>),
    Dir { current: BTreeMap<String, Inode>, durable: BTreeMap<String, Inode> },
}

#[derive(Clone)]
struct Entry {
    node: Node,
    /// Whether a name leads to it.
    linked: bool,
    /// Open handles.
    opens: u32,
    /// What it was last called.
    path: String,
}

/// All files and directories.
#[derive(Clone)]
pub(super) struct Tree {
    entries: BTreeMap<Inode, Entry>,
    changes: Vec<NameChange>,
    next_inode: Inode,
    next_change: u64,
}

impl Tree {
    /// An empty data directory.
    pub(super) fn new() -> Tree {
        let root = Entry { node: Node::dir(), linked: true, opens: 0, path: String::new() };
        Tree {
            entries: BTreeMap::from([(ROOT, root)]),
            changes: Vec::new(),
            next_inode: ROOT + 1,
            next_change: 0,
        }
    }

    /// The file or directory of this path.
    pub(super) fn find(&self, path: &str) -> Result<Inode, IoError> {
        let mut at = ROOT;
        for name in components(path) {
            at = *self.dir(at)?.get(name).ok_or(IoError::NotFound)?;
        }
        Ok(at)
    }

    /// The file behind this inode.
    pub(super) fn file(&self, inode: Inode) -> Result<&File, IoError> {
        match self.entries.get(&inode).map(|entry| &entry.node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir { .. }) => Err(IoError::Os(libc::EISDIR)),
            None => Err(IoError::NotFound),
        }
    }

    /// The file behind this inode, to be changed.
    pub(super) fn file_mut(&mut self, inode: Inode) -> Result<&mut File, IoError> {
        match self.entries.get_mut(&inode).map(|entry| &mut entry.node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir { .. }) => Err(IoError::Os(libc::EISDIR)),
            None => Err(IoError::NotFound),
        }
    }

    /// All files, by inode.
    pub(super) fn files(&self) -> impl Iterator<Item = (Inode, &File)> {
        self.entries.iter().filter_map(|(inode, entry)| match &entry.node {
            Node::File(file) => Some((*inode, &**file)),
            Node::Dir { .. } => None,
        })
    }

    /// All files, by inode, to be changed.
    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut File> {
        self.entries.values_mut().filter_map(|entry| match &mut entry.node {
            Node::File(file) => Some(&mut **file),
            Node::Dir { .. } => None,
        })
    }

    /// The lengths of the files that take space: those with a name, and those still open.
    pub(super) fn lengths(&self) -> impl Iterator<Item = u64> {
        self.entries.values().filter(|entry| entry.linked || entry.opens > 0).filter_map(|entry| match &entry
            .node
        {
            Node::File(file) => Some(file.len()),
            Node::Dir { .. } => None,
        })
    }

    /// A file's or directory's entries, sorted by name.
    pub(super) fn list(&self, path: &str) -> Result<Vec<DirEntry>, IoError> {
        let dir = self.dir(self.find(path)?)?;
        Ok(dir
            .iter()
            .map(|(name, inode)| DirEntry { name: name.clone(), is_dir: self.dir(*inode).is_ok() })
            .collect())
    }

    /// What the last name of each inode was, and of those that have a name now, that one.
    pub(super) fn paths(&self) -> BTreeMap<Inode, String> {
        let mut paths: BTreeMap<Inode, String> =
            self.entries.iter().map(|(inode, entry)| (*inode, entry.path.clone())).collect();
        let mut open = vec![(ROOT, String::new())];
        while let Some((inode, path)) = open.pop() {
            if let Ok(dir) = self.dir(inode) {
                open.extend(dir.iter().map(|(name, child)| (*child, join(&path, name))));
            }
            paths.insert(inode, path);
        }
        paths
    }

    /// The paths of all files that have one, sorted.
    pub(super) fn all_files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![(ROOT, String::new())];
        while let Some((inode, path)) = open.pop() {
            match self.dir(inode) {
                Ok(dir) => open.extend(dir.iter().map(|(name, child)| (*child, join(&path, name)))),
                Err(_) => found.push(path),
            }
        }
        found.sort();
        found
    }

    /// Counts a handle on a file.
    pub(super) fn opened(&mut self, inode: Inode) {
        self.entries.get_mut(&inode).expect("what is being opened exists").opens += 1;
    }

    /// Counts a handle less.
    pub(super) fn closed(&mut self, inode: Inode) {
        if let Some(entry) = self.entries.get_mut(&inode) {
            entry.opens -= 1;
            self.collect();
        }
    }

    /// The process is gone, and its handles with it.
    pub(super) fn close_all(&mut self) {
        for entry in self.entries.values_mut() {
            entry.opens = 0;
        }
        self.collect();
    }

    /// The file of this path, made empty if there is none.
    pub(super) fn create(&mut self, path: &str) -> Result<Inode, IoError> {
        match self.find(path) {
            Err(IoError::NotFound) => self.add(path, Node::File(Box::default())),
            Ok(inode) => self.file(inode).map(|_| inode),
            Err(error) => Err(error),
        }
    }

    /// The directory of this path, made empty if there is none.
    pub(super) fn make_dir(&mut self, path: &str) -> Result<Inode, IoError> {
        match self.find(path) {
            Err(IoError::NotFound) => self.add(path, Node::dir()),
            Ok(inode) => self.dir(inode).map(|_| inode),
            Err(error) => Err(error),
        }
    }

    fn add(&mut self, path: &str, node: Node) -> Result<Inode, IoError> {
        let (dir, name) = self.place(path)?;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.entries.insert(inode, Entry { node, linked: true, opens: 0, path: path.to_owned() });
        self.change(inode, vec![(dir, name, Some(inode))], format!("create {path}"));
        Ok(inode)
    }

    /// Renames a file or directory, over another of its kind if there is one (a directory only if it is empty).
    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<(), IoError> {
        let subject = self.find(from)?;
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        if to.starts_with(&format!("{from}/")) {
            return Err(IoError::Os(libc::EINVAL));
        }
        if let Ok(replaced) = self.find(to) {
            match (self.dir(subject), self.dir(replaced)) {
                _ if subject == replaced => return Ok(()),
                (Ok(_), Ok(there)) if !there.is_empty() => return Err(IoError::Os(libc::ENOTEMPTY)),
                (Ok(_), Err(_)) => return Err(IoError::Os(libc::ENOTDIR)),
                (Err(_), Ok(_)) => return Err(IoError::Os(libc::EISDIR)),
                _ => {}
            }
            self.entry(replaced).linked = false;
        }
        to.clone_into(&mut self.entry(subject).path);
        let names = vec![(from_dir, from_name, None), (to_dir, to_name, Some(subject))];
        self.change(subject, names, format!("rename {from} to {to}"));
        Ok(())
    }

    /// Removes a file or an empty directory.
    pub(super) fn unlink(&mut self, path: &str) -> Result<(), IoError> {
        let subject = self.find(path)?;
        if self.dir(subject).is_ok_and(|names| !names.is_empty()) {
            return Err(IoError::Os(libc::ENOTEMPTY));
        }
        let (dir, name) = self.place(path)?;
        self.entry(subject).linked = false;
        self.change(subject, vec![(dir, name, None)], format!("unlink {path}"));
        Ok(())
    }

    fn change(&mut self, subject: Inode, names: Vec<(Inode, String, Option<Inode>)>, text: String) {
        for (dir, name, target) in &names {
            let Node::Dir { current, .. } = &mut self.entry(*dir).node else {
                panic!("a name was placed in a file");
            };
            put(current, name, *target);
        }
        let number = self.next_change;
        self.next_change += 1;
        self.changes.push(NameChange { number, names, subject, flushed: BTreeSet::new(), text });
    }

    /// What a flush of a directory submitted now will cover: changes below this number.
    pub(super) fn flush_mark(&self) -> u64 {
        self.next_change
    }

    /// A directory is flushed: changes below `mark` all of whose directories have been flushed become durable, and
    /// with them whatever they were built on.
    pub(super) fn flush_dir(&mut self, path: &str, mark: u64) -> Result<(), IoError> {
        let dir = self.find(path)?;
        self.dir(dir)?;
        for change in self.changes.iter_mut().filter(|change| change.number < mark) {
            if change.touches(dir) {
                change.flushed.insert(dir);
            }
        }
        let mut durable: Vec<bool> = self.changes.iter().map(NameChange::is_flushed).collect();
        for later in (0..durable.len()).rev() {
            for earlier in 0..later {
                durable[earlier] |= durable[later] && self.changes[later].builds_on(&self.changes[earlier]);
            }
        }
        self.settle(&durable);
        self.collect();
        Ok(())
    }

    /// Makes every change of names durable.
    pub(super) fn flush_all(&mut self) {
        self.settle(&vec![true; self.changes.len()]);
        self.collect();
    }

    /// The changes of names that a power loss may keep or lose, in order.
    pub(super) fn unflushed(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().map(|change| change.text.as_str())
    }

    /// Power is lost: of the changes listed by [`Tree::unflushed`], those remain for which `kept` says so, as far as
    /// everything that they were built on remains too.
    pub(super) fn lose_power(&mut self, mut kept: Vec<bool>) {
        assert_eq!(kept.len(), self.changes.len(), "there is a verdict on every unflushed name");
        for later in 0..kept.len() {
            let base_lost = (0..later)
                .any(|earlier| !kept[earlier] && self.changes[later].builds_on(&self.changes[earlier]));
            kept[later] &= !base_lost;
        }
        self.settle(&kept);
        self.changes.clear();
        for entry in self.entries.values_mut() {
            entry.opens = 0;
            if let Node::Dir { current, durable } = &mut entry.node {
                current.clone_from(durable);
            }
        }
        let reachable = self.reachable();
        self.entries.retain(|inode, _| reachable.contains(inode));
        for (inode, path) in self.paths() {
            let entry = self.entry(inode);
            entry.linked = true;
            entry.path = path;
        }
    }

    /// Moves the chosen changes to the durable names.
    fn settle(&mut self, chosen: &[bool]) {
        let mut rest = Vec::new();
        for (change, chosen) in std::mem::take(&mut self.changes).into_iter().zip(chosen) {
            if !chosen {
                rest.push(change);
                continue;
            }
            for (dir, name, target) in &change.names {
                if let Some(Node::Dir { durable, .. }) =
                    self.entries.get_mut(dir).map(|entry| &mut entry.node)
                {
                    put(durable, name, *target);
                }
            }
        }
        self.changes = rest;
    }

    /// Forgets what nothing can bring back: no name, durable name, unflushed change or handle leads to it.
    fn collect(&mut self) {
        if self.entries.values().all(|entry| entry.linked) {
            return;
        }
        let reachable = self.reachable();
        self.entries.retain(|inode, _| reachable.contains(inode));
        self.changes.retain(|change| change.names.iter().any(|(dir, ..)| reachable.contains(dir)));
        for change in &mut self.changes {
            // A directory that is gone for good needs no flush any more.
            let gone = change.names.iter().map(|(dir, ..)| *dir).filter(|dir| !reachable.contains(dir));
            change.flushed.extend(gone);
        }
    }

    fn reachable(&self) -> BTreeSet<Inode> {
        let mut reachable = BTreeSet::new();
        let mut open = vec![ROOT];
        open.extend(self.entries.iter().filter(|(_, entry)| entry.opens > 0).map(|(inode, _)| *inode));
        loop {
            while let Some(inode) = open.pop() {
                if let Some(entry) = self.entries.get(&inode)
                    && reachable.insert(inode)
                    && let Node::Dir { current, durable } = &entry.node
                {
                    open.extend(current.values().chain(durable.values()));
                }
            }
            let live = self.changes.iter().filter(|change| {
                !reachable.contains(&change.subject)
                    && self.entries.contains_key(&change.subject)
                    && change.names.iter().any(|(dir, ..)| reachable.contains(dir))
            });
            open.extend(live.map(|change| change.subject));
            if open.is_empty() {
                return reachable;
            }
        }
    }

    fn entry(&mut self, inode: Inode) -> &mut Entry {
        self.entries.get_mut(&inode).expect("a name leads to something that exists")
    }

    fn dir(&self, inode: Inode) -> Result<&BTreeMap<String, Inode>, IoError> {
        match self.entries.get(&inode).map(|entry| &entry.node) {
            Some(Node::Dir { current, .. }) => Ok(current),
            Some(Node::File(_)) => Err(IoError::Os(libc::ENOTDIR)),
            None => Err(IoError::NotFound),
        }
    }

    /// The directory that a path's last name stands in, and that name.
    fn place(&self, path: &str) -> Result<(Inode, String), IoError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        assert!(!name.is_empty(), "the data directory itself is neither made, renamed nor removed");
        let dir = self.find(parent)?;
        self.dir(dir)?;
        Ok((dir, name.to_owned()))
    }
}

impl Node {
    fn dir() -> Node {
        Node::Dir { current: BTreeMap::new(), durable: BTreeMap::new() }
    }
}

impl NameChange {
    fn touches(&self, dir: Inode) -> bool {
        self.names.iter().any(|(touched, ..)| *touched == dir)
    }

    fn is_flushed(&self) -> bool {
        self.names.iter().all(|(dir, ..)| self.flushed.contains(dir))
    }

    /// Whether an earlier change must have happened for this one to make sense.
    fn builds_on(&self, earlier: &NameChange) -> bool {
        self.subject == earlier.subject
            || self.names.iter().any(|(dir, name, _)| {
                earlier.names.iter().any(|(other_dir, other, _)| (dir, name) == (other_dir, other))
            })
    }
}

fn put(names: &mut BTreeMap<String, Inode>, name: &str, target: Option<Inode>) {
    match target {
        Some(inode) => names.insert(name.to_owned(), inode),
        None => names.remove(name),
    };
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    assert!(!path.starts_with('/'), "paths are relative to the data directory: {path}");
    path.split('/').filter(|name| !name.is_empty()).inspect(|name| {
        assert!(!matches!(*name, "." | ".."), "a path leads through {name}");
    })
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}
