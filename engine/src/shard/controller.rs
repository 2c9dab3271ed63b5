//! Changes of the metadata, in order, those that wait together as one: written to the metadata log, applied by every
//! shard, then answered.
//!
//! The controller lives on shard 0. Its log is a file of its own (`metadata/log`) behind a snapshot
//! (`metadata/snapshot`); see [`crate::format::metadata`] for both, and `metadata_log.rs` for how they are written.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Requester;
use super::draft::{Draft, Means, records_of, replay};
use super::metadata::Metadata;
use super::metadata_log::{Folded, LOG, METADATA, MetadataLog, Room, SNAPSHOT};
use super::placement::Placement;
use super::request::Reply;
use crate::buffer::Pool;
use crate::config::{Config, TopicConfig};
use crate::error::{Fatal, IoError, Refusal};
use crate::format::metadata::{End, MetadataRecord, encode_frame, scan};
use crate::io::{Blocking, DiskDone, Io, Token};
use crate::limits::{DELETIONS_FORGOTTEN_MAX, METADATA_CHANGES_WAITING_MAX};
use crate::types::{MetadataEpoch, ShardId};

pub use super::draft::Change;

/// What is to be done next about a change.
#[derive(Debug)]
pub enum Next {
    /// Answer.
    Reply(Requester, Reply),
    /// Have every shard apply this, and tell [`Controller::applied`] for each.
    Publish(Arc<Metadata>),
}

enum State {
    Idle,
    Writing(Pending),
    Applying(Pending, u16),
    /// The log is put into the snapshot; then comes what had no room.
    Folding(Pending),
    /// A frame could not be made durable: what the log holds is unknown until the next start reads it.
    Broken,
}

struct Pending {
    /// Whom to answer when it is applied, and what.
    replies: Vec<(Requester, Reply)>,
    /// What it writes down; nothing, if it changes only what is not kept.
    records: Vec<MetadataRecord>,
    next: Arc<Metadata>,
    /// The frame's checksum and length, once it is being written.
    frame: (u32, u64),
}

/// The one place where metadata changes.
///
/// **Durability.** A change is answered when its frame is written and flushed and every shard has applied its epoch.
/// One frame is under way at a time; what comes meanwhile is the next. After a failed flush nothing is changed any more
/// until a restart.
pub struct Controller {
    metadata: Arc<Metadata>,
    defaults: TopicConfig,
    partitions_default: u32,
    /// The next id for a producer. Those from here to the metadata's mark are written down as given already.
    next_producer_id: u64,
    log: MetadataLog,
    placement: Placement,
    /// What forgets topics and queues that are no more, by the epoch in which they went, and up to which epoch each shard has nothing left of such.
    deleted: VecDeque<(MetadataEpoch, MetadataRecord)>,
    clear: Vec<MetadataEpoch>,
    /// Whether to look for what may be forgotten.
    forgets: bool,
    queue: VecDeque<(Requester, Change)>,
    state: State,
}

/// The file of metadata that each directory has which was ever loaded, if it is not there.
pub fn missing<I: Io>(disk: &mut Blocking<'_, I>) -> Result<Option<&'static str>, Fatal> {
    let is_there = disk.list(METADATA)?.iter().any(|entry| SNAPSHOT == format!("{METADATA}/{}", entry.name));
    Ok((!is_there).then_some(SNAPSHOT))
}

/// The metadata as the directory holds it, with what the node gives to it at this start. The log is folded into the
/// snapshot here, before anything is derived from it: what a killed process had written to it may not be flushed, and
/// directories are about to be removed on its word.
pub fn load<I: Io>(disk: &mut Blocking<'_, I>, base: Metadata, config: &Config) -> Result<Metadata, Fatal> {
    disk.make_dir(METADATA)?;
    let mut metadata = base;
    for path in [SNAPSHOT, LOG] {
        let Some(bytes) = disk.read_whole(path)? else { continue };
        let scan = scan(&bytes, 0);
        match scan.end {
            End::Clean => {}
            End::Torn { .. } if path == LOG => {}
            End::Torn { position } => {
                let what = "the snapshot is cut off".to_owned();
                return Err(Fatal::Corrupt { file: path.to_owned(), position, what });
            }
            End::Corrupt { position, what } => {
                return Err(Fatal::Corrupt { file: path.to_owned(), position, what: what.to_owned() });
            }
            End::Newer { kind, .. } => {
                return Err(Fatal::Newer(format!("{path} holds a record of kind {kind}")));
            }
        }
        for (epoch, records) in scan.frames {
            if path == LOG && epoch <= metadata.epoch {
                continue;
            }
            metadata.epoch = epoch;
            for record in &records {
                replay(&mut metadata, record, &config.topic);
            }
        }
    }
    let (frame, _) = encode_frame(metadata.epoch, 0, &records_of(&metadata));
    disk.replace(SNAPSHOT, &frame)?;
    Ok(metadata)
}

/// Makes a topic in a directory that nobody serves: durable, and in the metadata given back, when this returns.
pub fn add_topic<I: Io>(
    disk: &mut Blocking<'_, I>,
    metadata: &Metadata,
    record: &MetadataRecord,
    config: &Config,
) -> Result<Metadata, Fatal> {
    let mut next = metadata.clone();
    next.epoch = MetadataEpoch(metadata.epoch.0 + 1);
    replay(&mut next, record, &config.topic);
    let (frame, _) = encode_frame(next.epoch, 0, &records_of(&next));
    disk.replace(SNAPSHOT, &frame)?;
    Ok(next)
}

impl Controller {
    /// Opens an empty log for what comes; what the old one held is in the snapshot since [`load`].
    pub fn start<I: Io>(
        disk: &mut Blocking<'_, I>,
        metadata: Arc<Metadata>,
        config: &Config,
        pool: Pool,
    ) -> Result<Controller, Fatal> {
        let topics = metadata.deleted.iter().map(|id| MetadataRecord::DeletionForgotten { id: *id });
        let queues = metadata.deleted_queues.iter();
        let queues = queues.map(|id| MetadataRecord::QueueDeletionForgotten { id: *id });
        Ok(Controller {
            next_producer_id: metadata.producer_ids_below,
            log: MetadataLog::start(disk, config.metadata_log_bytes, pool)?,
            placement: Placement::of(&metadata),
            deleted: topics.chain(queues).map(|forgotten| (metadata.epoch, forgotten)).collect(),
            clear: vec![MetadataEpoch(0); usize::from(metadata.shards)],
            forgets: false,
            metadata,
            defaults: config.topic.clone(),
            partitions_default: config.partitions_default,
            queue: VecDeque::new(),
            state: State::Idle,
        })
    }

    /// Takes a change that somebody wants. It is answered in its turn.
    pub fn submit<I: Io>(
        &mut self,
        io: &mut I,
        token: Token,
        who: Requester,
        change: Change,
        out: &mut Vec<Next>,
    ) {
        if self.queue.len() >= METADATA_CHANGES_WAITING_MAX {
            return out.push(Next::Reply(who, Reply::Refused(Refusal::Busy)));
        }
        self.queue.push_back((who, change));
        self.advance(io, token, out);
    }

    /// What was written is durable, or is not: a frame, or a step of a fold.
    pub fn on_done<I: Io>(
        &mut self,
        io: &mut I,
        token: Token,
        done: Result<DiskDone, IoError>,
        out: &mut Vec<Next>,
    ) {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Writing(pending) => self.on_written(pending, done, out),
            State::Folding(pending) => match self.log.on_folding(io, token, done) {
                None => self.state = State::Folding(pending),
                Some(folded) => {
                    self.on_folded(folded);
                    self.place(io, token, pending, out);
                }
            },
            _ => panic!("nothing is being written"),
        }
        self.advance(io, token, out);
    }

    fn on_written(&mut self, pending: Pending, done: Result<DiskDone, IoError>, out: &mut Vec<Next>) {
        match done {
            Ok(_) => {
                self.log.appended(pending.frame);
                self.publish(pending, out);
            }
            // The write found no room for the frame's block: what comes next is written in its place.
            Err(IoError::NoSpace) => {
                self.state = State::Idle;
                self.refuse_all(pending.replies, &Refusal::DiskFull, out);
            }
            Err(error) => {
                tracing::error!(%error, "the metadata log could not be flushed: nothing is created or deleted any more");
                self.refuse_all(pending.replies, &Refusal::Poisoned, out);
            }
        }
    }

    fn on_folded(&mut self, folded: Folded) {
        self.state = State::Idle;
        match folded {
            Folded::Done => {}
            Folded::NotNow(error) => tracing::warn!(%error, "the metadata log could not be folded"),
            Folded::Broken(error) => {
                tracing::error!(%error, "the metadata log could not be emptied: nothing is created or deleted any more");
                self.state = State::Broken;
            }
        }
    }

    /// A shard has nothing left of topics and queues that were deleted up to this epoch: neither in its journal nor in its checkpoint, nor
    /// directories by their names.
    pub fn clear<I: Io>(
        &mut self,
        io: &mut I,
        token: Token,
        from: ShardId,
        upto: MetadataEpoch,
        out: &mut Vec<Next>,
    ) {
        if let Some(clear) = self.clear.get_mut(usize::from(from.0)) {
            *clear = upto.max(*clear);
        }
        self.forgets = true;
        self.advance(io, token, out);
    }

    /// One more shard has applied the change under way.
    pub fn applied<I: Io>(&mut self, io: &mut I, token: Token, out: &mut Vec<Next>) {
        let State::Applying(pending, missing) = &mut self.state else { panic!("nothing is being applied") };
        *missing -= 1;
        if *missing > 0 {
            return;
        }
        let replies = std::mem::take(&mut pending.replies);
        out.extend(replies.into_iter().map(|(who, reply)| Next::Reply(who, reply)));
        self.state = State::Idle;
        self.advance(io, token, out);
    }

    /// Whether a change is under way.
    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Writing(_) | State::Applying(..) | State::Folding(_))
    }

    fn advance<I: Io>(&mut self, io: &mut I, token: Token, out: &mut Vec<Next>) {
        while !self.is_busy() {
            if self.queue.is_empty() {
                return self.forget(io, token, out);
            }
            if matches!(self.state, State::Broken) {
                let refused = |(who, _)| Next::Reply(who, Reply::Refused(Refusal::Poisoned));
                out.extend(self.queue.drain(..).map(refused));
                return;
            }
            self.next_batch(io, token, out);
        }
    }

    /// Takes what waits, as much of it as one frame may hold, and makes one epoch of it. What makes space is not mixed with
    /// what takes some, which a full disk refuses.
    fn next_batch<I: Io>(&mut self, io: &mut I, token: Token, out: &mut Vec<Next>) {
        let mut draft = Draft::new(&self.metadata);
        let mut replies = Vec::new();
        let frees = self.queue.front().is_some_and(|(_, change)| change.frees());
        while !draft.is_large()
            && let Some((who, change)) = self.queue.pop_front_if(|(_, change)| change.frees() == frees)
        {
            let mut means = Means {
                defaults: &self.defaults,
                partitions_default: self.partitions_default,
                placement: &mut self.placement,
                next_producer_id: &mut self.next_producer_id,
                random: &mut || io.random(),
            };
            match draft.take(change, &mut means) {
                Ok(reply) => replies.push((who, reply)),
                Err(refusal) => out.push(Next::Reply(who, Reply::Refused(refusal))),
            }
        }
        let Draft { metadata: mut next, records, changed, .. } = draft;
        if records.is_empty() && changed.is_empty() {
            // Nobody has anything to wait for.
            return out.extend(replies.into_iter().map(|(who, reply)| Next::Reply(who, reply)));
        }
        next.advance(next.epoch, changed);
        let pending = Pending { replies, records, next: Arc::new(next), frame: (0, 0) };
        if pending.records.is_empty() {
            return self.publish(pending, out);
        }
        self.place(io, token, pending, out);
    }

    /// Forgets deletions that no shard has anything left of, when nothing else is to be done.
    fn forget<I: Io>(&mut self, io: &mut I, token: Token, out: &mut Vec<Next>) {
        if !std::mem::take(&mut self.forgets) || matches!(self.state, State::Broken) {
            return;
        }
        let upto = self.clear.iter().min().copied().unwrap_or_default();
        let due = self.deleted.iter().take_while(|(epoch, _)| *epoch <= upto).take(DELETIONS_FORGOTTEN_MAX);
        let records: Vec<_> = due.map(|(_, forgotten)| forgotten.clone()).collect();
        if records.is_empty() {
            return;
        }
        let mut next = Draft::new(&self.metadata).metadata;
        for record in &records {
            replay(&mut next, record, &self.defaults);
        }
        next.advance(next.epoch, Vec::new());
        let pending = Pending { replies: Vec::new(), records, next: Arc::new(next), frame: (0, 0) };
        self.place(io, token, pending, out);
    }

    /// Writes what is to be kept, behind a fold if there is no room.
    fn place<I: Io>(&mut self, io: &mut I, token: Token, mut pending: Pending, out: &mut Vec<Next>) {
        if matches!(self.state, State::Broken) {
            return self.refuse_all(pending.replies, &Refusal::Poisoned, out);
        }
        match self.log.room(&pending.records, io.now()) {
            Room::Here => match self.log.append(io, token, pending.next.epoch, &pending.records) {
                Some(frame) => {
                    pending.frame = frame;
                    self.state = State::Writing(pending);
                }
                None => self.refuse_all(pending.replies, &Refusal::Busy, out),
            },
            Room::AfterFold => {
                self.log.fold(io, token, self.metadata.epoch, &records_of(&self.metadata));
                self.state = State::Folding(pending);
            }
            Room::None => self.refuse_all(pending.replies, &Refusal::DiskFull, out),
        }
    }

    /// Has every shard apply what is durable, as far as it has to be.
    fn publish(&mut self, pending: Pending, out: &mut Vec<Next>) {
        self.metadata = Arc::clone(&pending.next);
        for record in &pending.records {
            let forgotten = match record {
                MetadataRecord::TopicDeleted { id } => MetadataRecord::DeletionForgotten { id: *id },
                MetadataRecord::QueueDeleted { id } => MetadataRecord::QueueDeletionForgotten { id: *id },
                MetadataRecord::DeletionForgotten { .. } | MetadataRecord::QueueDeletionForgotten { .. } => {
                    self.deleted.pop_front();
                    self.forgets = true; // There may be more than go at a time.
                    continue;
                }
                _ => continue,
            };
            self.deleted.push_back((self.metadata.epoch, forgotten));
        }
        out.push(Next::Publish(Arc::clone(&pending.next)));
        self.state = State::Applying(pending, self.metadata.shards);
    }

    /// Drops a draft.
    fn refuse_all(&mut self, replies: Vec<(Requester, Reply)>, refusal: &Refusal, out: &mut Vec<Next>) {
        out.extend(replies.into_iter().map(|(who, _)| Next::Reply(who, Reply::Refused(refusal.clone()))));
        self.placement = Placement::of(&self.metadata);
    }
}

/// The shard that the controller lives on.
pub const CONTROLLER: ShardId = ShardId(0);
