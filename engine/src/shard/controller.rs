//! Changes of the metadata, in order, those that wait together as one: written to the metadata log, applied by every shard, then answered.
//!
//! The controller lives on shard 0. Its log is a file of its own (`metadata/log`) behind a snapshot
//! (`metadata/snapshot`); see [`crate::format::metadata`] for both. At every start the log is folded into the snapshot and
//! emptied: a crash in between leaves frames in the log that the snapshot has already, which are told by their epochs.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Requester;
use super::draft::{Draft, Means, records_of, replay};
use super::metadata::Metadata;
use super::placement::Placement;
use super::request::Reply;
use crate::buffer::{Block, Pool};
use crate::config::{Config, TopicConfig};
use crate::error::{Fatal, IoError, Refusal};
use crate::format::metadata::{End, MetadataRecord, encode_frame, scan};
use crate::io::{Blocking, DiskDone, FileId, Io, OpenMode, Token};
use crate::limits::METADATA_CHANGES_WAITING_MAX;
use crate::types::{MetadataEpoch, ShardId};

pub use super::draft::Change;

/// The directory of the metadata log.
pub const METADATA: &str = "metadata";
const SNAPSHOT: &str = "metadata/snapshot";
const LOG: &str = "metadata/log";

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
    /// A frame could not be made durable: what the log holds is unknown until the next start reads it.
    Broken,
}

struct Pending {
    /// Whom to answer when it is applied, and what.
    replies: Vec<(Requester, Reply)>,
    next: Arc<Metadata>,
    crc: u32,
    bytes: u64,
}

/// The one place where metadata changes.
///
/// **Durability.** A change is answered when its frame is written and flushed and every shard has applied its epoch.
/// One frame is under way at a time; what comes meanwhile is the next. After a failed flush nothing is changed any more until a restart.
pub struct Controller {
    metadata: Arc<Metadata>,
    defaults: TopicConfig,
    partitions_default: u32,
    /// The next id for a producer. Those from here to the metadata's mark are written down as given already.
    next_producer_id: u64,
    file: FileId,
    pool: Pool,
    position: u64,
    last_crc: u32,
    placement: Placement,
    queue: VecDeque<(Requester, Change)>,
    state: State,
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
        let (file, _) = disk.open(LOG, OpenMode::Direct)?;
        disk.set_len(file, LOG, 0)?;
        disk.flush(file, LOG)?;
        disk.sync_dir(METADATA)?;
        Ok(Controller {
            next_producer_id: metadata.producer_ids_below,
            placement: Placement::of(&metadata),
            metadata,
            defaults: config.topic.clone(),
            partitions_default: config.partitions_default,
            file,
            pool,
            position: 0,
            last_crc: 0,
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

    /// The frame being written is durable, or is not.
    pub fn on_done<I: Io>(
        &mut self,
        io: &mut I,
        token: Token,
        done: Result<DiskDone, IoError>,
        out: &mut Vec<Next>,
    ) {
        let State::Writing(pending) = std::mem::replace(&mut self.state, State::Broken) else {
            panic!("no frame is being written");
        };
        if let Err(IoError::NoSpace) = done {
            // The write found no room for the frame's block: what comes next is written in its place.
            self.state = State::Idle;
            self.refuse_all(pending.replies, &Refusal::DiskFull, out);
            return self.advance(io, token, out);
        }
        if let Err(error) = done {
            tracing::error!(%error, "the metadata log could not be flushed: nothing is created or deleted any more");
            self.refuse_all(pending.replies, &Refusal::Poisoned, out);
            return self.advance(io, token, out);
        }
        self.publish(pending, out);
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
        matches!(self.state, State::Writing(_) | State::Applying(..))
    }

    fn advance<I: Io>(&mut self, io: &mut I, token: Token, out: &mut Vec<Next>) {
        while !self.is_busy() && !self.queue.is_empty() {
            if matches!(self.state, State::Broken) {
                let refused = |(who, _)| Next::Reply(who, Reply::Refused(Refusal::Poisoned));
                out.extend(self.queue.drain(..).map(refused));
                return;
            }
            self.next_batch(io, token, out);
        }
    }

    /// Takes what waits, as much of it as one frame may hold, and makes one epoch of it.
    fn next_batch<I: Io>(&mut self, io: &mut I, token: Token, out: &mut Vec<Next>) {
        let mut draft = Draft::new(&self.metadata);
        let mut replies = Vec::new();
        while !draft.is_large()
            && let Some((who, change)) = self.queue.pop_front()
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
        let next = Arc::new(next);
        if records.is_empty() {
            return self.publish(Pending { replies, next, crc: self.last_crc, bytes: 0 }, out);
        }
        let (frame, crc) = encode_frame(next.epoch, self.last_crc, &records);
        let Some(mut block): Option<Block> = self.pool.block(frame.len()) else {
            return self.refuse_all(replies, &Refusal::Busy, out);
        };
        block.push(&frame);
        io.append_durable(token, self.file, self.position, block.freeze());
        let bytes = frame.len() as u64;
        self.state = State::Writing(Pending { replies, next, crc, bytes });
    }

    /// Has every shard apply what is durable, as far as it has to be.
    fn publish(&mut self, pending: Pending, out: &mut Vec<Next>) {
        self.position += pending.bytes;
        self.last_crc = pending.crc;
        self.metadata = Arc::clone(&pending.next);
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
