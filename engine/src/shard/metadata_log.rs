//! The metadata's log on the disk: frames behind the snapshot, and the fold that puts them into it.
//!
//! The file is written with zeros in advance, so that a frame needs no space that a full disk would refuse. What is left when
//! three quarters are used is for deletions, which make space. Then the log is folded: the snapshot is replaced by one that
//! has everything, and the log is cut to nothing and written in advance anew. A crash in between leaves frames that the
//! snapshot has already, which are told by their epochs.

use crate::buffer::{Pool, Slice};
use crate::error::{Fatal, IoError};
use crate::format::metadata::{MetadataRecord, encode_frame};
use crate::io::{Blocking, DiskDone, FileId, Io, OpenMode, Replace, Token};
use crate::time::Nanos;
use crate::types::MetadataEpoch;

/// The directory of the metadata log.
pub const METADATA: &str = "metadata";
/// Everything up to one epoch.
pub(super) const SNAPSHOT: &str = "metadata/snapshot";
/// What came since.
pub(super) const LOG: &str = "metadata/log";

/// How long a failed fold is over before another is tried.
const RETRY: Nanos = Nanos::from_millis(1_000);

/// Where a frame may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// Behind the last one.
    Here,
    /// Nowhere before a fold.
    AfterFold,
    /// Nowhere: a fold has found the disk full, not long ago.
    None,
}

/// What a fold came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Folded {
    /// The log is empty.
    Done,
    /// It could not be begun: the log goes on as it was.
    NotNow(IoError),
    /// Nobody knows what the log holds.
    Broken(IoError),
}

/// What a fold waits for.
enum Fold {
    Snapshot(Replace),
    Cut,
    FlushCut,
    Zeros,
    FlushZeros,
}

/// The log. One operation at a time; the owner feeds each completion to [`MetadataLog::on_folding`] while a fold is under way.
pub(super) struct MetadataLog {
    file: FileId,
    pool: Pool,
    /// How many bytes are written in advance.
    bytes: u64,
    /// Where the next frame goes, and what it is chained to.
    position: u64,
    last_crc: u32,
    fold: Option<Fold>,
    /// Why the last fold failed, and until when none is tried.
    failed: Option<(IoError, Nanos)>,
}

impl MetadataLog {
    /// Opens an empty log for what comes; what the old one held is in the snapshot already.
    pub fn start<I: Io>(disk: &mut Blocking<'_, I>, bytes: u64, pool: Pool) -> Result<MetadataLog, Fatal> {
        let (file, _) = disk.open(LOG, OpenMode::Direct)?;
        disk.set_len(file, LOG, 0)?;
        disk.flush(file, LOG)?;
        disk.sync_dir(METADATA)?;
        match disk.write_zeros(file, LOG, 0, bytes) {
            Err(Fatal::Io { error: IoError::NoSpace, .. }) => {
                tracing::warn!("no space for the metadata log in advance: deletions may be refused");
            }
            written => written?,
        }
        disk.flush(file, LOG)?;
        Ok(MetadataLog { file, pool, bytes, position: 0, last_crc: 0, fold: None, failed: None })
    }

    /// Where a frame of these records may go. What is kept back is for deletions: they make space.
    pub fn room(&self, records: &[MetadataRecord], now: Nanos) -> Room {
        let frees = records.iter().all(|record| {
            matches!(
                record,
                MetadataRecord::TopicDeleted { .. }
                    | MetadataRecord::QueueDeleted { .. }
                    | MetadataRecord::Entity { value: None, .. }
            )
        });
        let (frame, _) = encode_frame(MetadataEpoch(0), 0, records);
        let kept_back = if frees { 0 } else { self.bytes / 4 };
        let fits = self.position + frame.len() as u64 + kept_back <= self.bytes;
        match self.failed {
            // A frame that is larger than all of it goes beyond.
            _ if fits || self.position == 0 => Room::Here,
            Some((error, until)) if now < until => {
                if frees || error != IoError::NoSpace {
                    Room::Here
                } else {
                    Room::None
                }
            }
            _ => Room::AfterFold,
        }
    }

    /// Writes a frame behind the last one, and flushes it. Gives its checksum and its length, for
    /// [`MetadataLog::appended`]; `None` if there is no memory.
    pub fn append<I: Io>(
        &self,
        io: &mut I,
        token: Token,
        epoch: MetadataEpoch,
        records: &[MetadataRecord],
    ) -> Option<(u32, u64)> {
        let (frame, crc) = encode_frame(epoch, self.last_crc, records);
        let mut block = self.pool.block(frame.len())?;
        block.push(&frame);
        io.append_durable(token, self.file, self.position, block.freeze());
        Some((crc, frame.len() as u64))
    }

    /// The frame is durable.
    pub fn appended(&mut self, (crc, len): (u32, u64)) {
        self.position += len;
        self.last_crc = crc;
    }

    /// Starts to put everything into the snapshot.
    pub fn fold<I: Io>(
        &mut self,
        io: &mut I,
        token: Token,
        epoch: MetadataEpoch,
        everything: &[MetadataRecord],
    ) {
        let (frame, _) = encode_frame(epoch, 0, everything);
        self.fold = Some(Fold::Snapshot(Replace::start(io, token, SNAPSHOT, frame)));
    }

    /// Takes a completion of the fold and goes on; gives what it came to when it is over.
    pub fn on_folding<I: Io>(
        &mut self,
        io: &mut I,
        token: Token,
        done: Result<DiskDone, IoError>,
    ) -> Option<Folded> {
        let fold = self.fold.as_mut().expect("a fold waits for this");
        let next = match (fold, done) {
            (Fold::Snapshot(replace), done) => match replace.step(io, token, done) {
                Ok(false) => return None,
                Ok(true) => {
                    io.set_len(token, self.file, 0);
                    Fold::Cut
                }
                Err(error) => return Some(self.folded(io, Folded::NotNow(error))),
            },
            // Without space in advance, frames take their chance.
            (Fold::Zeros, Ok(_) | Err(IoError::NoSpace)) => {
                io.flush(token, self.file);
                Fold::FlushZeros
            }
            (_, Err(error)) => return Some(self.folded(io, Folded::Broken(error))),
            (Fold::Cut, Ok(_)) => {
                io.flush(token, self.file);
                Fold::FlushCut
            }
            (Fold::FlushCut, Ok(_)) => match self.zeros() {
                Some(zeros) => {
                    io.write(token, self.file, 0, zeros);
                    Fold::Zeros
                }
                None => return Some(self.folded(io, Folded::Done)),
            },
            (Fold::FlushZeros, Ok(_)) => return Some(self.folded(io, Folded::Done)),
        };
        self.fold = Some(next);
        None
    }

    fn zeros(&self) -> Option<Slice> {
        let mut block = self.pool.block(self.bytes as usize)?;
        block.push_zeros(self.bytes as usize);
        Some(block.freeze())
    }

    fn folded<I: Io>(&mut self, io: &I, folded: Folded) -> Folded {
        self.fold = None;
        self.failed = match folded {
            Folded::NotNow(error) => Some((error, io.now() + RETRY)),
            Folded::Done | Folded::Broken(_) => None,
        };
        if folded == Folded::Done {
            (self.position, self.last_crc) = (0, 0);
        }
        folded
    }
}
