//! One operation at a time, waited for: how recovery and the offline tools use an [`Io`].

use super::{DirEntry, DiskDone, Event, FileId, Io, OpenMode, Token, Wait};
use crate::buffer::{Block, Pool, Slice};
use crate::error::{Fatal, IoError};
use crate::limits::BLOCK_BYTES;

/// The token of every operation made here.
const TOKEN: Token = Token(u64::MAX);

/// A view of an [`Io`] that nothing else uses meanwhile. Errors come as [`Fatal::Io`], naming operation and file.
pub struct Blocking<'a, I: Io> {
    io: &'a mut I,
    pool: Pool,
    events: Vec<Event>,
}

impl<'a, I: Io> Blocking<'a, I> {
    /// Reads into buffers of `pool`.
    pub fn new(io: &'a mut I, pool: Pool) -> Blocking<'a, I> {
        Blocking { io, pool, events: Vec::new() }
    }

    /// The I/O underneath, for clocks and chance.
    pub fn io(&mut self) -> &mut I {
        self.io
    }

    fn wait(&mut self) -> Result<DiskDone, IoError> {
        loop {
            self.io.poll(Wait::Forever, &mut self.events);
            for event in self.events.drain(..) {
                match event {
                    Event::Disk(TOKEN, outcome) => return outcome,
                    Event::Written(TOKEN) => {}
                    other => panic!("an event that nobody asked for while recovering: {other:?}"),
                }
            }
        }
    }

    fn done(&mut self, doing: &'static str, file: &str) -> Result<(), Fatal> {
        self.wait().map(|_| ()).map_err(|error| Fatal::Io { doing, file: file.to_owned(), error })
    }

    /// Opens a file; gives its length too.
    pub fn open(&mut self, path: &str, mode: OpenMode) -> Result<(FileId, u64), Fatal> {
        self.io.open(TOKEN, path, mode);
        match self.wait() {
            Ok(DiskDone::Opened(file, len)) => Ok((file, len)),
            Ok(other) => panic!("open answered {other:?}"),
            Err(error) => Err(Fatal::Io { doing: "open", file: path.to_owned(), error }),
        }
    }

    /// Opens a file to read it; `None` if there is none.
    pub fn open_existing(&mut self, path: &str) -> Result<Option<(FileId, u64)>, Fatal> {
        match self.open(path, OpenMode::Read) {
            Ok(opened) => Ok(Some(opened)),
            Err(Fatal::Io { error: IoError::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Closes a file.
    pub fn close(&mut self, file: FileId) {
        self.io.close(file);
    }

    /// Memory to write from.
    pub fn block(&self, len: usize) -> Result<Block, Fatal> {
        self.pool.block(len).ok_or_else(|| Fatal::Refused(format!("no memory left to write {len} bytes")))
    }

    /// Reads `len` bytes at `at`, or what there is up to the file's end. `path` is for the error's text.
    pub fn read(&mut self, file: FileId, path: &str, at: u64, len: usize) -> Result<Block, Fatal> {
        let Some(block) = self.pool.block(len) else {
            return Err(Fatal::Refused(format!("no memory left to read {len} bytes of {path}")));
        };
        self.io.read(TOKEN, file, at, block, len);
        match self.wait() {
            Ok(DiskDone::Read(block)) => Ok(block),
            Ok(other) => panic!("read answered {other:?}"),
            Err(error) => Err(Fatal::Io { doing: "read", file: path.to_owned(), error }),
        }
    }

    /// The whole of a small file; `None` if there is none.
    pub fn read_whole(&mut self, path: &str) -> Result<Option<Vec<u8>>, Fatal> {
        let Some((file, len)) = self.open_existing(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            let block =
                self.read(file, path, bytes.len() as u64, (len as usize - bytes.len()).min(1 << 20))?;
            if block.is_empty() {
                break;
            }
            bytes.extend_from_slice(block.filled());
        }
        self.close(file);
        Ok(Some(bytes))
    }

    /// Writes `bytes` at `at`.
    pub fn write(&mut self, file: FileId, path: &str, at: u64, bytes: Slice) -> Result<(), Fatal> {
        self.io.write(TOKEN, file, at, bytes);
        self.done("write", path)
    }

    /// Fills `len` bytes from `at` on with zeros, in large aligned writes.
    pub fn write_zeros(&mut self, file: FileId, path: &str, at: u64, len: u64) -> Result<(), Fatal> {
        assert!(len.is_multiple_of(BLOCK_BYTES as u64), "zeros are written in whole blocks");
        let size = (1 << 20).min(len as usize).max(BLOCK_BYTES);
        let Some(mut block) = self.pool.block(size) else {
            return Err(Fatal::Refused(format!("no memory left to write {path}")));
        };
        block.push_zeros(size);
        let zeros = block.freeze();
        let mut done = 0;
        while done < len {
            let n = (size as u64).min(len - done);
            self.write(file, path, at + done, zeros.slice(0..n as usize))?;
            done += n;
        }
        Ok(())
    }

    /// Makes the file's content durable.
    pub fn flush(&mut self, file: FileId, path: &str) -> Result<(), Fatal> {
        self.io.flush(TOKEN, file);
        self.done("flush", path)
    }

    /// Cuts or extends the file.
    pub fn set_len(&mut self, file: FileId, path: &str, len: u64) -> Result<(), Fatal> {
        self.io.set_len(TOKEN, file, len);
        self.done("truncate", path)
    }

    /// Renames.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), Fatal> {
        self.io.rename(TOKEN, from, to);
        self.done("rename", from)
    }

    /// Removes a file or an empty directory.
    pub fn unlink(&mut self, path: &str) -> Result<(), Fatal> {
        self.io.unlink(TOKEN, path);
        self.done("remove", path)
    }

    /// Makes a directory, unless it is there, and makes its name durable.
    pub fn make_dir(&mut self, path: &str) -> Result<(), Fatal> {
        self.io.make_dir(TOKEN, path);
        self.done("make the directory", path)?;
        self.sync_dir(path.rsplit_once('/').map_or("", |(parent, _)| parent))
    }

    /// Makes a directory's entries durable.
    pub fn sync_dir(&mut self, path: &str) -> Result<(), Fatal> {
        self.io.sync_dir(TOKEN, path);
        self.done("flush the directory", path)
    }

    /// A directory's entries, sorted by name; none if there is no such directory.
    pub fn list(&mut self, path: &str) -> Result<Vec<DirEntry>, Fatal> {
        self.io.list(TOKEN, path);
        match self.wait() {
            Ok(DiskDone::Names(names)) => Ok(names),
            Ok(other) => panic!("list answered {other:?}"),
            Err(IoError::NotFound) => Ok(Vec::new()),
            Err(error) => Err(Fatal::Io { doing: "list", file: path.to_owned(), error }),
        }
    }

    /// Removes a directory and everything in it; one that is not there is fine.
    pub fn remove_tree(&mut self, path: &str) -> Result<(), Fatal> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        let name = path.rsplit('/').next().unwrap_or(path);
        if !self.list(&parent)?.iter().any(|entry| entry.name == name) {
            return Ok(());
        }
        for entry in self.list(path)? {
            let inner = format!("{path}/{}", entry.name);
            if entry.is_dir { self.remove_tree(&inner)? } else { self.unlink(&inner)? }
        }
        self.unlink(path)
    }

    /// Replaces a file so that a crash leaves the old one or the new one, whole: write aside, flush, rename, flush
    /// the directory.
    pub fn replace(&mut self, path: &str, bytes: &[u8]) -> Result<(), Fatal> {
        let aside = format!("{path}.new");
        let (file, _) = self.open(&aside, OpenMode::Buffered)?;
        self.set_len(file, &aside, 0)?;
        self.write(file, &aside, 0, Slice::from(bytes.to_vec()))?;
        self.flush(file, &aside)?;
        self.close(file);
        self.rename(&aside, path)?;
        self.sync_dir(path.rsplit_once('/').map_or("", |(parent, _)| parent))
    }
}
