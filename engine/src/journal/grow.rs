//! Making a new journal file in the background: zeros, a flush, and a flushed name, before the ring may use it.

use super::files::{FileSlot, Files};
use crate::buffer::Slice;
use crate::error::IoError;
use crate::io::{DiskDone, FileId, Io, OpenMode, Token};

/// One write of zeros.
const ZEROS_BYTES: u64 = 256 << 10;

/// A file being made. Feed every completion of its token to [`Grow::step`].
pub struct Grow {
    directory: String,
    number: u32,
    file_bytes: u64,
    zeros: Slice,
    file: Option<FileId>,
    written: u64,
    flushed: bool,
}

impl Grow {
    /// Starts making file `number` of the ring that `files` describes. `zeros` are [`Grow::zeros_bytes`] of zeros in aligned memory.
    pub fn start<I: Io>(io: &mut I, token: Token, directory: &str, files: &Files, zeros: Slice) -> Grow {
        let (number, file_bytes) = (files.next_number(), files.file_bytes());
        assert!(zeros.len() as u64 == ZEROS_BYTES && file_bytes.is_multiple_of(ZEROS_BYTES));
        io.open(token, &format!("{directory}/{}", Files::name(number)), OpenMode::Direct);
        Grow {
            directory: directory.to_owned(),
            number,
            file_bytes,
            zeros,
            file: None,
            written: 0,
            flushed: false,
        }
    }

    /// How many zeros [`Grow::start`] wants.
    pub fn zeros_bytes() -> usize {
        ZEROS_BYTES as usize
    }

    /// Takes a completion and goes on; gives the file when it is ready. After an error there is no new file, and the
    /// next attempt under the same number writes it anew.
    pub fn step<I: Io>(
        &mut self,
        io: &mut I,
        token: Token,
        done: Result<DiskDone, IoError>,
    ) -> Result<Option<FileSlot>, IoError> {
        match done {
            Ok(DiskDone::Opened(file, _)) => self.file = Some(file),
            Ok(_) => {}
            Err(error) => {
                if let Some(file) = self.file.take() {
                    io.close(file);
                }
                return Err(error);
            }
        }
        let file = self.file.expect("the first completion opened it");
        if self.written < self.file_bytes {
            io.write(token, file, self.written, self.zeros.clone());
            self.written += ZEROS_BYTES;
        } else if !self.flushed {
            io.flush(token, file);
            self.flushed = true;
        } else if self.zeros.is_empty() {
            return Ok(Some(FileSlot { number: self.number, file }));
        } else {
            self.zeros = self.zeros.slice(0..0);
            io.sync_dir(token, &self.directory);
        }
        Ok(None)
    }
}
