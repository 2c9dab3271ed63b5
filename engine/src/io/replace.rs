//! Replacing a file so that a crash leaves the old one or the new one, whole.

use super::{DiskDone, FileId, Io, OpenMode, Token};
use crate::buffer::Slice;
use crate::error::IoError;

/// A replacement under way: write aside, flush, rename, flush the directory; each step when the one before is done.
/// Feed every completion of its token to [`Replace::step`].
pub struct Replace {
    path: String,
    bytes: Slice,
    file: Option<FileId>,
    next: Step,
}

#[derive(Clone, Copy)]
enum Step {
    Cut,
    Write,
    Flush,
    Rename,
    SyncDir,
    End,
}

impl Replace {
    /// Starts replacing `path` by `bytes`.
    pub fn start<I: Io>(io: &mut I, token: Token, path: &str, bytes: Vec<u8>) -> Replace {
        let replace =
            Replace { path: path.to_owned(), bytes: Slice::from(bytes), file: None, next: Step::Cut };
        io.open(token, &replace.aside(), OpenMode::Buffered);
        replace
    }

    fn aside(&self) -> String {
        format!("{}.new", self.path)
    }

    /// Takes a completion and goes on. `Ok(true)` when the new file is there, durably. After an error the old file
    /// still is, and nothing is left to be done.
    pub fn step<I: Io>(
        &mut self,
        io: &mut I,
        token: Token,
        done: Result<DiskDone, IoError>,
    ) -> Result<bool, IoError> {
        match done {
            Ok(DiskDone::Opened(file, _)) => self.file = Some(file),
            Ok(_) => {}
            Err(error) => {
                self.close(io);
                return Err(error);
            }
        }
        let file = || self.file.expect("the file stays open until it is renamed");
        match self.next {
            Step::Cut => io.set_len(token, file(), 0),
            Step::Write => io.write(token, file(), 0, self.bytes.clone()),
            Step::Flush => io.flush(token, file()),
            Step::Rename => {
                self.close(io);
                io.rename(token, &self.aside(), &self.path);
            }
            Step::SyncDir => io.sync_dir(token, self.path.rsplit_once('/').map_or("", |(parent, _)| parent)),
            Step::End => return Ok(true),
        }
        self.next = match self.next {
            Step::Cut => Step::Write,
            Step::Write => Step::Flush,
            Step::Flush => Step::Rename,
            Step::Rename => Step::SyncDir,
            Step::SyncDir | Step::End => Step::End,
        };
        Ok(false)
    }

    /// Ends it wherever it is, with nothing under way. The old file is still there, or the new one.
    pub fn give_up<I: Io>(mut self, io: &mut I) {
        self.close(io);
    }

    fn close<I: Io>(&mut self, io: &mut I) {
        if let Some(file) = self.file.take() {
            io.close(file);
        }
    }
}
