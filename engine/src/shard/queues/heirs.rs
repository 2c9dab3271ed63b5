//! Messages for another number of shards: copied from the files of the old shards to files of the new ones.
//!
//! The old shard has moved all its messages to files of survivors before. Those that are not settled are copied as they are, each
//! to every new shard that has a queue of its. Pieces of a message get another name, by which no other shard's are called:
//! names that a new shard gives itself are numbers of its journal, which are lower.

use std::collections::{BTreeMap, BTreeSet};

use super::survivors::file_name;
use super::{MESSAGES, Queues};
use crate::buffer::{Block, Slice};
use crate::error::Fatal;
use crate::format::checkpoint::{MovedState, QueueState, QueuesState, StoreState};
use crate::format::journal::{
    GROUP_HEADER_BYTES, GroupPlace, RecordHeader, RecordKind, check, encode_record, record_bytes, records,
    seal,
};
use crate::format::message::{MessageRecord, Pieces};
use crate::io::{Blocking, FileId, Io, OpenMode};
use crate::limits::{
    BLOCK_BYTES, GROUP_BYTES_MAX, JOURNAL_SLAB_BYTES, MESSAGE_FILE_BYTES, SEGMENT_WRITE_BYTES,
};
use crate::shard::metadata::Metadata;
use crate::types::{FileEpoch, Lsn, QueueId, Seq, ShardId};

/// What is in the names of pieces that were copied, and in no number of a journal.
const COPIED: u64 = 1 << 61;

/// What a shard leaves of its queues.
pub struct Estate {
    directory: String,
    state: QueuesState,
    /// The names of messages in pieces.
    large: BTreeSet<u64>,
}

/// A new shard.
struct Heir {
    directory: String,
    state: QueuesState,
    /// Old shards that it has queues of.
    from: BTreeSet<ShardId>,
    /// Names that messages had in queues of other shards, and the queues of this one that have them.
    moved: BTreeMap<(QueueId, Seq), Vec<QueueId>>,
    file: Option<FileId>,
    at: u64,
    next_lsn: u64,
    open: Option<Block>,
    records: u32,
}

/// The new shards.
pub struct Heirs {
    shards: Vec<Heir>,
    /// Where each durable queue goes.
    homes: BTreeMap<QueueId, ShardId>,
    /// Names of which it is not known which queues have them, by the old shard that remembers them.
    arrived: BTreeMap<ShardId, BTreeSet<(QueueId, Seq)>>,
    names: u64,
    key: u64,
}

impl Heirs {
    /// Nothing is copied yet. The new shards' directories are made by `home`; they belong to nobody before.
    pub fn new<I: Io>(
        disk: &mut Blocking<'_, I>,
        old: &Metadata,
        new: &Metadata,
        home: impl Fn(ShardId) -> String,
        key: u64,
    ) -> Result<Heirs, Fatal> {
        let mut heirs = Vec::new();
        for id in (0..new.shards).map(ShardId) {
            let home = home(id);
            // What a start that ended too early has left.
            disk.remove_tree(&home)?;
            disk.make_dir(&home)?;
            let directory = format!("{home}/{MESSAGES}");
            disk.make_dir(&directory)?;
            heirs.push(Heir {
                directory,
                state: QueuesState::default(),
                from: BTreeSet::new(),
                moved: BTreeMap::new(),
                file: None,
                at: 0,
                next_lsn: 1,
                open: None,
                records: 0,
            });
        }
        let mut homes = BTreeMap::new();
        for id in new.queues.keys().filter(|id| !id.is_transient()) {
            if let (Some(from), Some(to)) = (old.shard_of_queue(*id), new.shard_of_queue(*id)) {
                heirs[usize::from(to.0)].from.insert(from);
                homes.insert(*id, to);
            }
        }
        Ok(Heirs { shards: heirs, homes, arrived: BTreeMap::new(), names: 0, key })
    }

    /// Copies what an old shard leaves.
    pub fn inherit<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        from: ShardId,
        estate: Estate,
    ) -> Result<(), Fatal> {
        let Estate { directory, state, large } = estate;
        let queues: BTreeMap<QueueId, &QueueState> =
            state.queues.iter().map(|queue| (queue.id, queue)).collect();
        let mut names: BTreeMap<u64, u64> = BTreeMap::new();
        for name in large {
            self.names += 1;
            names.insert(name, self.names | COPIED);
        }
        for StoreState { number, bytes } in &state.stores {
            let path = format!("{directory}/{}", file_name(*number));
            let (file, _) = disk.open(&path, OpenMode::ReadDirect)?;
            let mut position = 0;
            while position < *bytes {
                let rest = (bytes - position).min(JOURNAL_SLAB_BYTES as u64) as usize;
                let chunk = disk.read(file, &path, position, rest)?.freeze();
                let mut at = 0;
                while at < chunk.len() {
                    let group = chunk.slice(at..chunk.len());
                    let Ok(header) = check(&group) else {
                        let left = chunk.len() - at;
                        if at > 0 && left < GROUP_BYTES_MAX && position + (chunk.len() as u64) < *bytes {
                            break; // It may only be cut off by the chunk's end.
                        }
                        // Nothing is wanted here: the old shard has found everything.
                        at += BLOCK_BYTES;
                        continue;
                    };
                    let group = group.slice(0..header.length);
                    for (record, payload) in records(&group) {
                        self.copy(disk, &queues, &names, &record, &group.slice(payload))?;
                    }
                    at += header.length;
                }
                position += at as u64;
            }
            disk.close(file);
        }
        self.arrived.insert(from, state.arrived.iter().copied().collect());
        for MovedState { queue, seq, targets } in state.moved {
            for target in targets {
                if let Some(to) = self.homes.get(&target) {
                    self.shards[usize::from(to.0)].moved.entry((queue, seq)).or_default().push(target);
                }
            }
        }
        for queue in state.queues {
            if let Some(to) = self.homes.get(&queue.id) {
                self.shards[usize::from(to.0)].state.queues.push(queue);
            }
        }
        Ok(())
    }

    /// Copies a record to those who need it.
    fn copy<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        queues: &BTreeMap<QueueId, &QueueState>,
        names: &BTreeMap<u64, u64>,
        record: &RecordHeader,
        payload: &Slice,
    ) -> Result<(), Fatal> {
        let mut record = *record;
        let mut renamed: Option<Vec<u8>> = None;
        let mut to = BTreeSet::new();
        if record.kind == RecordKind::Piece {
            let Some(name) = names.get(&record.aux) else { return Ok(()) };
            record.aux = *name;
            to.extend((0..self.shards.len()).map(|shard| ShardId(shard as u16)));
        } else if let Some(mut message) = MessageRecord::decode(&record, payload) {
            let live = message
                .targets
                .iter()
                .filter(|target| queues.get(&target.queue).is_some_and(|queue| queue.is_live(target.seq)));
            to.extend(live.filter_map(|target| self.homes.get(&target.queue)));
            if let Some(pieces) = message.pieces {
                let Some(name) = names.get(&pieces.name) else { return Ok(()) };
                message.pieces = Some(Pieces { name: *name, ..pieces });
                renamed = Some([message.prefix(), message.pieces_bytes()].concat());
            }
        }
        let payload = renamed.as_deref().unwrap_or(payload);
        for shard in to {
            self.shards[usize::from(shard.0)].push(disk, &record, payload, self.key)?;
        }
        Ok(())
    }

    /// Everything is copied, and durable: what the checkpoint of each new shard is to tell of its queues.
    pub fn finish<I: Io>(mut self, disk: &mut Blocking<'_, I>) -> Result<Vec<QueuesState>, Fatal> {
        let mut states = Vec::new();
        for mut heir in std::mem::take(&mut self.shards) {
            heir.write(disk, self.key)?;
            heir.end_file(disk)?;
            disk.sync_dir(&heir.directory)?;
            let moved = std::mem::take(&mut heir.moved).into_iter();
            heir.state.moved =
                moved.map(|((queue, seq), targets)| MovedState { queue, seq, targets }).collect();
            // Of a name that an older version has left, it is only known that every queue of the old shard had the message. It may
            // be sent again to any queue of the new one.
            let mut names = heir.from.iter().map(|from| self.arrived.get(from).cloned().unwrap_or_default());
            let first = names.next().unwrap_or_default();
            let all = names.fold(first, |all, names| &all & &names);
            heir.state.arrived = all.into_iter().collect();
            heir.state.queues.sort_by_key(|queue| queue.id);
            states.push(heir.state);
        }
        Ok(states)
    }
}

impl Heir {
    fn push<I: Io>(
        &mut self,
        disk: &mut Blocking<'_, I>,
        record: &RecordHeader,
        payload: &[u8],
        key: u64,
    ) -> Result<(), Fatal> {
        let needed = record_bytes(record.len);
        let filled = self.open.as_ref().map_or(0, Block::len);
        if self.records > 0 && (filled >= SEGMENT_WRITE_BYTES || filled + needed > GROUP_BYTES_MAX) {
            self.write(disk, key)?;
        }
        if self.open.is_none() {
            let mut block = disk.block(GROUP_BYTES_MAX)?;
            block.push_zeros(GROUP_HEADER_BYTES);
            self.open = Some(block);
        }
        let open = self.open.as_mut().expect("just made");
        let start = open.len();
        open.push(&encode_record(record));
        open.push(payload);
        open.push_zeros(start + needed - open.len());
        self.records += 1;
        Ok(())
    }

    fn path(&self) -> String {
        format!("{}/{}", self.directory, file_name(self.state.stores.len() as u64))
    }

    /// Writes the group being filled.
    fn write<I: Io>(&mut self, disk: &mut Blocking<'_, I>, key: u64) -> Result<(), Fatal> {
        let Some(mut block) = self.open.take() else { return Ok(()) };
        let file = match self.file {
            Some(file) => file,
            None => {
                let number = self.state.stores.len() as u64 + 1;
                self.state.stores.push(StoreState { number, bytes: 0 });
                self.at = 0;
                let (file, _) = disk.open(&self.path(), OpenMode::Direct)?;
                self.file = Some(file);
                file
            }
        };
        let used = block.len();
        block.push_zeros(used.next_multiple_of(BLOCK_BYTES) - used);
        let place = GroupPlace {
            previous_crc: 0,
            file_epoch: FileEpoch(self.state.stores.len() as u64),
            first_lsn: Lsn(self.next_lsn),
            durable_lsn: Lsn::ZERO,
            key,
        };
        seal(block.filled_mut(), used, self.records, &place);
        let len = block.len() as u64;
        disk.write(file, &self.path(), self.at, block.freeze())?;
        self.next_lsn += u64::from(std::mem::take(&mut self.records));
        self.at += len;
        self.state.stores.last_mut().expect("it was made with its first group").bytes = self.at;
        if self.at >= MESSAGE_FILE_BYTES { self.end_file(disk) } else { Ok(()) }
    }

    fn end_file<I: Io>(&mut self, disk: &mut Blocking<'_, I>) -> Result<(), Fatal> {
        if let Some(file) = self.file.take() {
            disk.flush(file, &self.path())?;
            disk.close(file);
        }
        Ok(())
    }
}

impl Queues {
    /// Has all messages moved to files, whatever they are worth there.
    pub fn leave(&mut self) {
        self.survivors.leaves = true;
    }

    /// Whether the journal has nothing any more that is wanted.
    pub fn have_left(&self) -> bool {
        self.groups.needed().is_none()
    }

    /// What this shard leaves, when everything is in files.
    pub fn estate(&mut self, state: QueuesState) -> Estate {
        Estate {
            directory: self.survivors.directory().to_owned(),
            state,
            large: self.groups.large_names().collect(),
        }
    }

    /// Closes what is open.
    pub fn close_files<I: Io>(&mut self, io: &mut I) {
        for file in self.survivors.files().chain(self.paging.file_id()) {
            io.close(file);
        }
    }
}
