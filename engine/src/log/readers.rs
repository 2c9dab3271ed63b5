//! What a shard keeps at hand for reading its logs' files: descriptors, indexes, what has been checked, and maps.

use std::cell::RefCell;
use std::rc::Rc;

use super::maps::Maps;
use super::table::LogIndex;
use super::verified::Verified;
use crate::buffer::Slice;
use crate::cache::blocks::Lru;
use crate::error::IoError;
use crate::format::partition::SegmentFile;
use crate::io::{DiskDone, FileId, Io, Token};
use crate::limits::{OPEN_SEGMENTS_MAX, READ_CHUNK_BYTES};
use crate::types::Offset;

/// Names a file of a segment of a log.
pub type FileKey = (LogIndex, Offset, SegmentFile);

/// Bytes of index files that a shard keeps in memory.
const INDEX_CACHE_BYTES: usize = 16 << 20;

/// What is kept open, and which indexes are kept, for reading.
pub struct Readers {
    /// What a cold read reads at a time, unless a batch is larger.
    pub chunk_bytes: u32,
    pub(super) files: Lru<FileKey, Rc<FileId>>,
    pub(super) indexes: Lru<FileKey, Slice>,
    pub(super) verified: Lru<FileKey, Rc<RefCell<Verified>>>,
    /// Unless segments are not to be mapped.
    pub(super) maps: Option<Maps>,
    /// Let go of, and to be closed when nobody reads them any more.
    pub(super) closing: Vec<Rc<FileId>>,
}

impl Readers {
    /// Nothing is open yet. Segments that are read again are mapped, under `map_token`, if there is one.
    pub fn new(map_token: Option<Token>) -> Readers {
        Readers {
            chunk_bytes: READ_CHUNK_BYTES as u32,
            files: Lru::new(OPEN_SEGMENTS_MAX),
            indexes: Lru::new(INDEX_CACHE_BYTES),
            verified: Lru::new(OPEN_SEGMENTS_MAX),
            maps: map_token.map(Maps::new),
            closing: Vec::new(),
        }
    }

    /// Forgets what belongs to a segment, since it has changed or gone.
    pub fn forget(&mut self, log: LogIndex, segment: Offset) {
        let range = (log, segment, SegmentFile::Log)..=(log, segment, SegmentFile::Sum);
        self.closing.extend(self.files.remove_range(range.clone()));
        self.indexes.remove_range(range.clone());
        self.verified.remove_range(range);
        if let Some(maps) = &mut self.maps {
            maps.forget((log, segment)..=(log, segment));
        }
    }

    /// Forgets what belongs to a log.
    pub fn forget_log(&mut self, log: LogIndex) {
        let range = (log, Offset(0), SegmentFile::Log)..=(log, Offset(u64::MAX), SegmentFile::Sum);
        self.closing.extend(self.files.remove_range(range.clone()));
        self.indexes.remove_range(range.clone());
        self.verified.remove_range(range);
        if let Some(maps) = &mut self.maps {
            maps.forget((log, Offset(0))..=(log, Offset(u64::MAX)));
        }
    }

    /// Takes the completion of a map being made.
    pub fn on_mapped<I: Io>(&mut self, io: &I, done: Result<DiskDone, IoError>) {
        let maps = self.maps.as_mut().expect("they asked for it");
        maps.made(io, done);
    }

    /// Chunks that were served from mapped segments.
    pub fn chunks_from_maps(&self) -> u64 {
        self.maps.as_ref().map_or(0, Maps::chunks_served)
    }

    /// Bytes that are mapped.
    pub fn mapped_bytes(&self) -> usize {
        self.maps.as_ref().map_or(0, Maps::mapped_bytes)
    }

    /// Closes files, and unmaps segments, that nobody reads any more.
    pub fn close_idle<I: Io>(&mut self, io: &mut I) {
        if let Some(maps) = &mut self.maps {
            maps.unmap_idle(io);
        }
        self.closing.retain(|file| {
            let idle = Rc::strong_count(file) == 1;
            if idle {
                io.close(**file);
            }
            !idle
        });
    }
}
