//! A file read from front to back in chunks, with a look back now and then.

use crate::error::{Fatal, IoError};
use crate::io::{Blocking, FileId, Io};
use crate::limits::BLOCK_BYTES;

/// What is read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// An open file. What the device cannot read is given as zeros, and remembered.
pub(super) struct Reader {
    pub name: String,
    pub len: u64,
    /// The first byte that could not be read.
    pub unreadable: Option<u64>,
    file: FileId,
    at: u64,
    chunk: Vec<u8>,
}

impl Reader {
    /// Opens a file; `None` if there is none.
    pub fn open<I: Io>(disk: &mut Blocking<'_, I>, name: &str) -> Result<Option<Reader>, Fatal> {
        let Some((file, len)) = disk.open_existing(name)? else { return Ok(None) };
        Ok(Some(Reader { name: name.to_owned(), len, unreadable: None, file, at: 0, chunk: Vec::new() }))
    }

    pub fn close<I: Io>(self, disk: &mut Blocking<'_, I>) {
        disk.close(self.file);
    }

    /// The `len` bytes at `position`, or what there is up to the file's end.
    pub fn get<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        position: u64,
        len: usize,
    ) -> Result<&[u8], Fatal> {
        let len = self.len.saturating_sub(position).min(len as u64) as usize;
        let held = self.at..self.at + self.chunk.len() as u64;
        if !(held.contains(&position) && position + len as u64 <= held.end) {
            self.fill(disk, position, len.max(CHUNK_BYTES))?;
        }
        let start = (position - self.at) as usize;
        Ok(self.chunk.get(start..(start + len).min(self.chunk.len())).unwrap_or_default())
    }

    fn fill<I: Io>(&mut self, disk: &mut Blocking<'_, I>, position: u64, len: usize) -> Result<(), Fatal> {
        self.at = position;
        self.chunk.clear();
        match disk.read(self.file, &self.name, position, len) {
            Ok(block) => self.chunk.extend_from_slice(block.filled()),
            Err(Fatal::Io { error: IoError::Os(_), .. }) => self.fill_by_blocks(disk, position, len)?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads what can be read of a stretch in which something cannot.
    fn fill_by_blocks<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        position: u64,
        len: usize,
    ) -> Result<(), Fatal> {
        let end = (position + len as u64).min(self.len);
        let mut at = position;
        while at < end {
            let step = (BLOCK_BYTES as u64 - at % BLOCK_BYTES as u64).min(end - at) as usize;
            match disk.read(self.file, &self.name, at, step) {
                Ok(block) => self.chunk.extend_from_slice(block.filled()),
                Err(Fatal::Io { error: IoError::Os(_), .. }) => {
                    self.unreadable = Some(self.unreadable.map_or(at, |first| first.min(at)));
                }
                Err(error) => return Err(error),
            }
            at += step as u64;
            self.chunk.resize((at - position) as usize, 0);
        }
        Ok(())
    }
}
