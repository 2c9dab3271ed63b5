//! What the journals hold of each partition, and where: no bytes are kept.

use std::collections::BTreeMap;

use super::journal::Found;
use super::reader::Reader;
use crate::error::Fatal;
use crate::format::batch::{BatchHeader, check};
use crate::format::journal::{RecordHeader, RecordKind, records};
use crate::io::{Blocking, Io};
use crate::log::scanner::Scanner;
use crate::types::{Lsn, Offset, PartitionId};

/// Bytes in a journal file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The file, as a place in [`Pieces::files`].
    pub file: usize,
    pub position: u64,
    pub len: usize,
}

/// A stretch of a segment that the journal holds.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub lsn: Lsn,
    pub segment: Offset,
    pub position: u32,
    pub kind: Kind,
    /// More than one if it came in parts.
    pub spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A whole batch with these offsets: the first, and one past the last.
    Batch(Offset, Offset),
    /// Bytes in a batch that starts at this position of the segment.
    Carry(u32),
}

impl Piece {
    fn len(&self) -> u64 {
        self.spans.iter().map(|span| span.len as u64).sum()
    }

    /// One past its last byte in the segment.
    pub fn end(&self) -> u64 {
        u64::from(self.position) + self.len()
    }
}

/// Batches in memory.
pub(super) type Batches = Vec<(BatchHeader, Vec<u8>)>;

/// What the journals hold of one partition.
#[derive(Default)]
pub(super) struct Held {
    /// In the order of the records.
    pub pieces: Vec<Piece>,
    /// The highest log start recorded.
    pub log_start: Offset,
    /// A batch of which parts are missing yet, and its length.
    chain: Option<(Piece, usize)>,
}

/// What the journals hold.
#[derive(Default)]
pub(super) struct Pieces {
    pub files: Vec<String>,
    /// The first damage of each journal that has any.
    pub damage: Vec<String>,
    pub owners: BTreeMap<PartitionId, Held>,
}

impl Pieces {
    /// Takes the records of a sound group. Until the walk is over, files count from the end of [`Pieces::files`].
    pub fn take(&mut self, found: &Found<'_>) {
        let mut lsn = found.header.first_lsn;
        for (record, payload) in records(found.bytes) {
            let span = Span {
                file: self.files.len() + found.file,
                position: found.position + payload.start as u64,
                len: payload.len(),
            };
            let bytes = found.bytes.get(payload).unwrap_or_default();
            self.owners.entry(record.partition).or_default().take(lsn, &record, span, bytes);
            lsn = lsn.next();
        }
    }

    /// The bytes of a piece.
    pub fn bytes<I: Io>(&self, disk: &mut Blocking<'_, I>, piece: &Piece) -> Result<Vec<u8>, Fatal> {
        let mut bytes = Vec::new();
        for span in &piece.spans {
            let Some(name) = self.files.get(span.file) else { continue };
            let Some(mut reader) = Reader::open(disk, name)? else { continue };
            bytes.extend_from_slice(reader.get(disk, span.position, span.len)?);
            reader.close(disk);
        }
        Ok(bytes)
    }

    /// The batches that a carry completes, and where the first that is not sound starts: its first bytes are in the
    /// segment's file, the rest in the journal.
    pub fn complete<I: Io>(
        &self,
        disk: &mut Blocking<'_, I>,
        log: &str,
        piece: &Piece,
        start: u32,
    ) -> Result<(Batches, Option<u32>), Fatal> {
        let prefix = piece.position.saturating_sub(start) as usize;
        let mut bytes = Vec::new();
        if prefix > 0
            && let Some(mut reader) = Reader::open(disk, log)?
        {
            bytes.extend_from_slice(reader.get(disk, u64::from(start), prefix)?);
            reader.close(disk);
        }
        if bytes.len() < prefix {
            return Ok((Vec::new(), Some(start)));
        }
        bytes.extend_from_slice(&self.bytes(disk, piece)?);
        let (mut batches, mut end) = (Vec::new(), 0);
        for scanned in Scanner::new(&bytes) {
            let Ok(scanned) = scanned else { break };
            let Some(batch) = bytes.get(scanned.at..scanned.at.saturating_add(scanned.header.size)) else {
                break;
            };
            if check(batch).is_ok() {
                batches.push((scanned.header, batch.to_vec()));
                if end == scanned.at {
                    end += batch.len();
                }
            }
        }
        Ok((batches, (end < bytes.len()).then_some(start.saturating_add(end as u32))))
    }
}

impl Held {
    fn take(&mut self, lsn: Lsn, record: &RecordHeader, span: Span, bytes: &[u8]) {
        let piece =
            |kind| Piece { lsn, segment: record.segment, position: record.position, kind, spans: vec![span] };
        let batch = || {
            let header = BatchHeader::parse(bytes).ok()?;
            Some(Kind::Batch(header.base_offset, header.next_offset()))
        };
        match record.kind {
            RecordKind::Batch => self.pieces.extend(batch().map(piece)),
            RecordKind::Carry => self.pieces.push(piece(Kind::Carry(record.aux as u32))),
            RecordKind::Message
            | RecordKind::Settled
            | RecordKind::Failed
            | RecordKind::Leaving
            | RecordKind::Mark
            | RecordKind::Forgotten
            | RecordKind::Piece => {}
            RecordKind::LogStart => self.log_start = self.log_start.max(Offset(record.aux)),
            RecordKind::Part => {
                let (total, at) = ((record.aux >> 32) as usize, record.aux & u64::from(u32::MAX));
                if at == 0 {
                    self.chain = batch().map(|kind| (piece(kind), total));
                } else if let Some((chain, _)) = &mut self.chain {
                    if chain.len() != at {
                        self.chain = None;
                        return;
                    }
                    chain.spans.push(span);
                    chain.lsn = lsn;
                }
                if let Some((chain, _)) = self.chain.take_if(|(chain, total)| chain.len() >= *total as u64) {
                    self.pieces.push(chain);
                }
            }
        }
    }
}
