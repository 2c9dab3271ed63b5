//! A file's bytes: what readers see, what is durable, and the changes that lie between the two.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::io::random::Random;
use crate::limits::BLOCK_BYTES;

/// One block's bytes; `None` is a block of zeros, so that zero-filled files cost no memory.
type BlockBytes = Option<Arc<[u8]>>;

/// Bytes in blocks.
#[derive(Clone, Default)]
struct Content {
    len: u64,
    blocks: BTreeMap<u64, Arc<[u8]>>,
}

/// A change that no flush has covered.
#[derive(Clone)]
struct Change {
    number: u64,
    what: What,
}

/// What a change did. Block changes hold the whole block as it was after the write, as a page cache would write it.
#[derive(Clone)]
enum What {
    Block(u64, BlockBytes),
    Len(u64),
}

/// An unflushed change, as crash explorers see it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Unflushed {
    Block(u64),
    Len(u64),
}

/// A file.
#[derive(Clone, Default)]
pub(super) struct File {
    current: Content,
    durable: Content,
    changes: Vec<Change>,
    next: u64,
}

impl File {
    /// A file whose bytes are durable already.
    pub(super) fn durable(bytes: &[u8]) -> File {
        let mut file = File::default();
        file.write(0, bytes);
        file.flush(file.next);
        file
    }

    pub(super) fn len(&self) -> u64 {
        self.current.len
    }

    /// Reads what readers see; gives the number of bytes up to the file's end.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> usize {
        self.current.read(at, into)
    }

    /// Everything that readers see.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.current.len as usize];
        self.current.read(0, &mut bytes);
        bytes
    }

    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (index, within) = place(at + done as u64);
            let step = (BLOCK_BYTES - within).min(bytes.len() - done);
            let mut block = self.current.block(index);
            block[within..within + step].copy_from_slice(&bytes[done..done + step]);
            let block: BlockBytes = (block != [0; BLOCK_BYTES]).then(|| Arc::from(block.as_slice()));
            self.current.put(index, block.clone());
            self.note(What::Block(index, block));
            done += step;
        }
        let end = at + bytes.len() as u64;
        if end > self.current.len {
            self.current.set_len(end);
            self.note(What::Len(end));
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.current.set_len(len);
        self.note(What::Len(len));
    }

    fn note(&mut self, what: What) {
        self.changes.push(Change { number: self.next, what });
        self.next += 1;
    }

    /// What a flush submitted now will cover: changes below this number.
    pub(super) fn flush_mark(&self) -> u64 {
        self.next
    }

    /// Makes the changes below `mark` durable.
    pub(super) fn flush(&mut self, mark: u64) {
        for change in self.changes.extract_if(.., |change| change.number < mark) {
            self.durable.apply(&change.what);
        }
    }

    /// A flush up to `mark` fails: each block is durable now, or readers see it and it never will be. Lengths stay
    /// undecided.
    pub(super) fn fail_flush(&mut self, mark: u64, random: &mut Random) {
        let covered = |change: &mut Change| change.number < mark && matches!(change.what, What::Block(..));
        for change in self.changes.extract_if(.., covered) {
            if random.chance(0.5) {
                self.durable.apply(&change.what);
            }
        }
    }

    /// The changes that a power loss may keep or lose, in order.
    pub(super) fn unflushed(&self) -> impl Iterator<Item = Unflushed> {
        self.changes.iter().map(|change| match change.what {
            What::Block(index, _) => Unflushed::Block(index),
            What::Len(len) => Unflushed::Len(len),
        })
    }

    /// Power is lost: of the changes listed by [`File::unflushed`], those remain for which `kept` says so, lengths
    /// only up to the first that is lost.
    pub(super) fn lose_power(&mut self, mut kept: impl Iterator<Item = bool>) {
        let mut lengths_survive = true;
        for change in std::mem::take(&mut self.changes) {
            let mut survives = kept.next().expect("there is a verdict on every unflushed change");
            if matches!(change.what, What::Len(_)) {
                lengths_survive &= survives;
                survives = lengths_survive;
            }
            if survives {
                self.durable.apply(&change.what);
            }
        }
        self.durable.cut();
        self.current = self.durable.clone();
    }

    /// Flips a bit of the byte at `position`, in what is read and in what is durable.
    pub(super) fn rot(&mut self, position: u64, bit: u8) {
        self.current.rot(position, bit);
        self.durable.rot(position, bit);
    }
}

impl Content {
    fn read(&self, at: u64, into: &mut [u8]) -> usize {
        let n = self.len.saturating_sub(at).min(into.len() as u64) as usize;
        let mut done = 0;
        while done < n {
            let (index, within) = place(at + done as u64);
            let step = (BLOCK_BYTES - within).min(n - done);
            let target = &mut into[done..done + step];
            match self.blocks.get(&index) {
                Some(block) => target.copy_from_slice(&block[within..within + step]),
                None => target.fill(0),
            }
            done += step;
        }
        n
    }

    fn block(&self, index: u64) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        if let Some(block) = self.blocks.get(&index) {
            bytes.copy_from_slice(block);
        }
        bytes
    }

    fn put(&mut self, index: u64, block: BlockBytes) {
        match block {
            Some(block) => self.blocks.insert(index, block),
            None => self.blocks.remove(&index),
        };
    }

    fn apply(&mut self, what: &What) {
        match what {
            What::Block(index, block) => self.put(*index, block.clone()),
            What::Len(len) => self.set_len(*len),
        }
    }

    fn set_len(&mut self, len: u64) {
        let shrinks = len < self.len;
        self.len = len;
        if shrinks {
            self.cut();
        }
    }

    /// Drops what lies past the end.
    fn cut(&mut self) {
        let (last, within) = place(self.len);
        self.blocks.retain(|index, _| *index < last || (*index == last && within > 0));
        if let Some(block) = self.blocks.get_mut(&last) {
            let mut bytes = block.to_vec();
            bytes[within..].fill(0);
            *block = Arc::from(bytes);
        }
    }

    fn rot(&mut self, position: u64, bit: u8) {
        if position < self.len {
            let (index, within) = place(position);
            let mut block = self.block(index);
            block[within] ^= 1 << bit;
            self.put(index, Some(Arc::from(block)));
        }
    }
}

/// The block that a position lies in, and where in it.
fn place(at: u64) -> (u64, usize) {
    (at / BLOCK_BYTES as u64, (at % BLOCK_BYTES as u64) as usize)
}
