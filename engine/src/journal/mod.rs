//! Group commit: one journal per shard, and nothing else flushes for an acknowledgement.
//!
//! Records join the open group. When no group is in flight the open one is closed and written, linked to a flush;
//! meanwhile the next one fills. No timer decides when: the disk does.

mod files;
mod grow;
mod recovery;
mod trim;

use std::ops::Range;

pub use files::{FileSlot, Files, UsedFile};
pub use grow::Grow;
pub use recovery::{Recovered, Replayed, Ring, recover};
pub use trim::{Ended, Survivors, Trim};

use crate::buffer::{Block, Pool, Slice};
use crate::format::journal::{
    GROUP_HEADER_BYTES, GroupPlace, PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader, encode_record,
    record_bytes, seal,
};
use crate::io::{FileId, Io, Token};
use crate::limits::{BLOCK_BYTES, GROUP_BYTES_MAX, GROUP_TARGET_BYTES, JOURNAL_SLAB_BYTES};
use crate::time::Nanos;
use crate::types::Lsn;

/// Whose record asks for room: the last files of the ring are for those that free others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// A client's bytes: may use the ring up to its reserve.
    Client,
    /// Carried bytes, log-start moves, settlements: may use the reserve too.
    Internal,
}

/// Where a record was put in the open group.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its number.
    pub lsn: Lsn,
    /// Where its payload lies in the group.
    pub payload: Range<usize>,
}

/// A group on its way to the disk.
#[derive(Debug)]
pub struct Submitted {
    /// Its bytes, immutable from now on: they are the tail cache's.
    pub bytes: Slice,
    /// Its first record.
    pub first_lsn: Lsn,
    /// Its last record.
    pub last_lsn: Lsn,
    /// The file that it goes to.
    pub file: FileId,
    /// The position there.
    pub at: u64,
}

struct InFlight {
    last_lsn: Lsn,
    submitted_at: Nanos,
}

/// A shard's journal.
///
/// **Durability.** A record is numbered when it joins the open group and promised nothing by that. Once
/// [`Journal::written_lsn`] covers it, its group has been written whole; once [`Journal::durable_lsn`] does, the flush
/// after that write has completed. Both only ever rise. A failed flush poisons the journal: neither rises again, and
/// what was in flight or in the open group is never acknowledged (a later flush that succeeds would prove nothing).
pub struct Journal {
    pool: Pool,
    files: Files,
    /// Where the open group is built; `None` until a record comes, or while the pool is exhausted.
    open: Option<Block>,
    records: u32,
    in_flight: Option<InFlight>,
    next_lsn: Lsn,
    written_lsn: Lsn,
    durable_lsn: Lsn,
    previous_crc: u32,
    key: u64,
    flushed_at: Nanos,
    poisoned: bool,
    /// Files that clients leave free.
    reserve: usize,
}

impl Journal {
    /// The journal that recovery found; slabs come from `pool`.
    pub fn new(recovered: Recovered, pool: Pool) -> Journal {
        Journal {
            pool,
            files: recovered.files,
            open: None,
            records: 0,
            in_flight: None,
            next_lsn: recovered.last_lsn.next(),
            written_lsn: recovered.last_lsn,
            durable_lsn: recovered.last_lsn,
            previous_crc: recovered.last_crc,
            key: recovered.key,
            flushed_at: Nanos::ZERO,
            poisoned: false,
            reserve: 1,
        }
    }

    /// Everything up to here has been written.
    pub fn written_lsn(&self) -> Lsn {
        self.written_lsn
    }

    /// Everything up to here has been flushed.
    pub fn durable_lsn(&self) -> Lsn {
        self.durable_lsn
    }

    /// The last record given a number.
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.next_lsn.0 - 1)
    }

    /// The first record of the open group; the next record's number if it has none.
    pub fn first_open_lsn(&self) -> Lsn {
        Lsn(self.next_lsn.0 - u64::from(self.records))
    }

    /// Whether a flush has failed.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// What its groups carry.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// When the last group became durable.
    pub fn flushed_at(&self) -> Nanos {
        self.flushed_at
    }

    /// Whether a group is on its way to the disk.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// When the group in flight was submitted; zero if there is none.
    pub fn in_flight_since(&self) -> Nanos {
        self.in_flight.as_ref().map_or(Nanos::ZERO, |in_flight| in_flight.submitted_at)
    }

    /// Whether the open group is so large that waiting for more would gain next to nothing.
    pub fn is_group_large(&self) -> bool {
        self.records > 0 && self.open.as_ref().is_some_and(|open| open.len() >= GROUP_TARGET_BYTES)
    }

    /// The ring of files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The ring of files, to add to it or to recycle.
    pub fn files_mut(&mut self) -> &mut Files {
        &mut self.files
    }

    /// Sets how many files clients leave free.
    pub fn set_reserve(&mut self, files: usize) {
        self.reserve = files.max(1);
    }

    /// Files that the parts of a batch of `bytes` fill, the reserve beside them included. All of them must be free before
    /// the first part is journalled: until the last is, none of the files that hold parts can be recycled.
    pub fn files_for_parts(&self, bytes: usize) -> usize {
        let per_file = (self.files.file_bytes() as usize / GROUP_BYTES_MAX).max(1);
        bytes.div_ceil(PAYLOAD_BYTES_MAX).div_ceil(per_file) + 1 + self.reserve
    }

    /// Whether a record with this payload may join the open group now.
    pub fn fits(&mut self, payload: usize, claim: Claim) -> bool {
        assert!(payload <= PAYLOAD_BYTES_MAX, "a larger record is a chain of parts");
        let reserve = match claim {
            Claim::Client => self.reserve,
            Claim::Internal => 0,
        };
        if self.poisoned || !self.files.has_room(reserve) {
            return false;
        }
        let needed = record_bytes(payload);
        if self.records > 0 {
            let open = self.open.as_ref().expect("an open group with records has a block");
            return open.len() + needed <= GROUP_BYTES_MAX.min(open.capacity());
        }
        // The first record of a group always fits, if not behind the groups before it then in a slab of its own.
        let enough =
            |block: &Block| block.capacity() >= (GROUP_HEADER_BYTES + needed).max(GROUP_TARGET_BYTES);
        if !self.open.as_ref().is_some_and(enough) {
            self.open = self.pool.block(JOURNAL_SLAB_BYTES);
        }
        self.open.is_some()
    }

    /// Whether the open group has nothing in it.
    pub fn is_open_empty(&self) -> bool {
        self.records == 0
    }

    /// Where in the open group the next record goes, after [`Journal::fits`] has said that it may.
    pub fn next_position(&self) -> usize {
        let open = self.open.as_ref().filter(|_| self.records > 0);
        open.map_or(GROUP_HEADER_BYTES, Block::len)
    }

    /// Adds a record to the open group, after [`Journal::fits`] has said that it may.
    pub fn append(&mut self, header: &RecordHeader, payload: &[u8]) -> Placed {
        self.append_pieces(header, std::iter::once(payload))
    }

    /// The same, of a payload in pieces.
    pub fn append_pieces<'a>(
        &mut self,
        header: &RecordHeader,
        payload: impl Iterator<Item = &'a [u8]>,
    ) -> Placed {
        let open = self.open.as_mut().expect("fits() provided a block");
        if self.records == 0 {
            open.clear();
            open.push_zeros(GROUP_HEADER_BYTES);
        }
        open.push(&encode_record(header));
        let start = open.len();
        payload.for_each(|piece| open.push(piece));
        assert_eq!(header.len, open.len() - start, "a record's header tells its payload's length");
        open.push_zeros(record_bytes(header.len) - RECORD_HEADER_BYTES - header.len);
        self.records += 1;
        let lsn = self.next_lsn;
        self.next_lsn = lsn.next();
        Placed { lsn, payload: start..start + header.len }
    }

    /// A payload in the open group, to be stamped.
    pub fn payload_mut(&mut self, placed: &Placed) -> &mut [u8] {
        let open = self.open.as_mut().expect("a placed record lies in the open group");
        &mut open.filled_mut()[placed.payload.clone()]
    }

    /// Closes the open group and writes it, if there is one and none is in flight. Both halves of the commit come back
    /// under `token`: hand them to [`Journal::on_written`] and [`Journal::on_durable`].
    pub fn submit<I: Io>(&mut self, io: &mut I, token: Token) -> Option<Submitted> {
        if self.records == 0 || self.in_flight.is_some() || self.poisoned {
            return None;
        }
        let open = self.open.as_mut().expect("an open group with records has a block");
        let used = open.len();
        open.push_zeros(used.next_multiple_of(BLOCK_BYTES) - used);
        let last_lsn = Lsn(self.next_lsn.0 - 1);
        let target = self.files.place(open.len(), last_lsn);
        let place = GroupPlace {
            previous_crc: self.previous_crc,
            file_epoch: target.epoch,
            first_lsn: Lsn(self.next_lsn.0 - u64::from(self.records)),
            durable_lsn: self.durable_lsn,
            key: self.key,
        };
        self.previous_crc = seal(open.filled_mut(), used, self.records, &place);
        let bytes = open.split_frozen();
        io.append_durable(token, target.file, target.at, bytes.clone());
        self.in_flight = Some(InFlight { last_lsn, submitted_at: io.now() });
        self.records = 0;
        Some(Submitted { bytes, first_lsn: place.first_lsn, last_lsn, file: target.file, at: target.at })
    }

    /// The group in flight has been written.
    pub fn on_written(&mut self) {
        let in_flight = self.in_flight.as_ref().expect("only a group in flight can be written");
        self.written_lsn = in_flight.last_lsn;
    }

    /// The flush behind the group in flight has completed, or has not: then the journal is poisoned.
    pub fn on_durable(&mut self, flushed: bool, now: Nanos) {
        let in_flight = self.in_flight.take().expect("only a group in flight can be flushed");
        if !flushed {
            self.poisoned = true;
            return;
        }
        self.written_lsn = in_flight.last_lsn;
        self.durable_lsn = in_flight.last_lsn;
        self.flushed_at = now;
    }

    /// Stops the journal for good, when what it protects cannot be moved to segments.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }
}
