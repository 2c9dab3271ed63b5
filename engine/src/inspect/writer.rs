//! Writing a partition's directory anew: segments, their indexes and checksums, in Kafka's layout.

use crate::buffer::Slice;
use crate::config::TopicConfig;
use crate::error::Fatal;
use crate::format::batch::BatchHeader;
use crate::format::checkpoint::SegmentState;
use crate::format::partition::{
    LEADER_EPOCHS_FILE, METADATA_FILE, SegmentFile, encode_leader_epochs, encode_metadata,
};
use crate::format::sum::{SumBuilder, Summed};
use crate::io::{Blocking, FileId, Io, OpenMode};
use crate::limits::SEGMENT_BYTES_MAX;
use crate::log::epochs::Epochs;
use crate::log::index::{OFFSET_ENTRY_BYTES, SparseIndex, TIME_ENTRY_BYTES};
use crate::log::paths;
use crate::types::{Offset, PartitionId};

/// What is written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A partition being written. Every file is flushed when it is complete.
pub(super) struct Writer {
    directory: String,
    id: PartitionId,
    index_interval_bytes: u32,
    /// The old log's segment that is being copied.
    source: Option<Offset>,
    open: Option<Open>,
    complete: Vec<SegmentState>,
    epochs: Epochs,
}

struct Open {
    base: Offset,
    name: String,
    file: FileId,
    size: u64,
    staged: Vec<u8>,
    index: SparseIndex,
    sum: SumBuilder,
}

impl Writer {
    /// Makes the directory.
    pub fn create<I: Io>(
        disk: &mut Blocking<'_, I>,
        directory: String,
        id: PartitionId,
    ) -> Result<Writer, Fatal> {
        disk.make_dir(&directory)?;
        put(disk, &format!("{directory}/{METADATA_FILE}"), encode_metadata(id.topic).into_bytes())?;
        let index_interval_bytes = TopicConfig::default().index_interval_bytes;
        Ok(Writer {
            directory,
            id,
            index_interval_bytes,
            source: None,
            open: None,
            complete: Vec::new(),
            epochs: Epochs::default(),
        })
    }

    /// Appends a batch. Where the old log started a segment, so does the new one, and it has the same name.
    pub fn append<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        segment: Offset,
        header: &BatchHeader,
        batch: &[u8],
    ) -> Result<(), Fatal> {
        let is_new = self.source.is_none_or(|source| source < segment);
        let full = self.open.as_ref().is_none_or(|open| {
            open.size + batch.len() as u64 > SEGMENT_BYTES_MAX
                || header.last_offset().0 - open.base.0 > i32::MAX as u64
        });
        if is_new || full {
            self.seal(disk)?;
            self.source = Some(segment);
            self.start(disk, if is_new { segment } else { header.base_offset })?;
        }
        self.epochs.note(header.leader_epoch, header.base_offset);
        let open = self.open.as_mut().expect("a segment was started");
        open.index.add(open.base, open.size as u32, header, self.index_interval_bytes);
        open.sum.feed(Summed::Log, batch);
        open.size += batch.len() as u64;
        open.staged.extend_from_slice(batch);
        if open.staged.len() >= CHUNK_BYTES { open.write(disk) } else { Ok(()) }
    }

    fn start<I: Io>(&mut self, disk: &mut Blocking<'_, I>, base: Offset) -> Result<(), Fatal> {
        let name = paths::segment(&self.directory, base, SegmentFile::Log);
        let (file, _) = disk.open(&name, OpenMode::Buffered)?;
        self.open = Some(Open {
            base,
            name,
            file,
            size: 0,
            staged: Vec::new(),
            index: SparseIndex::new(),
            sum: SumBuilder::new(self.id, base),
        });
        Ok(())
    }

    /// Completes what is open, and gives the segments that were written.
    pub fn finish<I: Io>(mut self, disk: &mut Blocking<'_, I>) -> Result<Vec<SegmentState>, Fatal> {
        self.seal(disk)?;
        let epochs = encode_leader_epochs(&self.epochs.starts()).into_bytes();
        put(disk, &format!("{}/{LEADER_EPOCHS_FILE}", self.directory), epochs)?;
        disk.sync_dir(&self.directory)?;
        Ok(self.complete)
    }

    fn seal<I: Io>(&mut self, disk: &mut Blocking<'_, I>) -> Result<(), Fatal> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.write(disk)?;
        disk.flush(open.file, &open.name)?;
        disk.close(open.file);
        open.index.seal();
        let (entries, times) = open.index.storable(u32::MAX);
        open.sum.feed(Summed::Index, &entries);
        open.sum.feed(Summed::TimeIndex, &times);
        let size = open.size as u32;
        self.complete.push(SegmentState {
            base: open.base,
            size,
            flushed: size,
            index_entries: (entries.len() / OFFSET_ENTRY_BYTES) as u32,
            time_entries: (times.len() / TIME_ENTRY_BYTES) as u32,
            max_timestamp: open.index.max_timestamp(),
            created_ms: disk.io().wall_ms().0,
            stored: true,
        });
        let name = |file| paths::segment(&self.directory, open.base, file);
        put(disk, &name(SegmentFile::Index), entries)?;
        put(disk, &name(SegmentFile::TimeIndex), times)?;
        put(disk, &name(SegmentFile::Sum), open.sum.finish().encode())
    }
}

impl Open {
    fn write<I: Io>(&mut self, disk: &mut Blocking<'_, I>) -> Result<(), Fatal> {
        let bytes = std::mem::take(&mut self.staged);
        if bytes.is_empty() {
            return Ok(());
        }
        let at = self.size - bytes.len() as u64;
        disk.write(self.file, &self.name, at, Slice::from(bytes))
    }
}

/// Writes a small file, durably but for its name.
fn put<I: Io>(disk: &mut Blocking<'_, I>, name: &str, bytes: Vec<u8>) -> Result<(), Fatal> {
    let (file, _) = disk.open(name, OpenMode::Buffered)?;
    if !bytes.is_empty() {
        disk.write(file, name, 0, Slice::from(bytes))?;
    }
    disk.flush(file, name)?;
    disk.close(file);
    Ok(())
}
