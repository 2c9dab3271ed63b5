//! Changes of the metadata, one after the other: written to the metadata log, applied by every shard, then answered.
//!
//! The controller lives on shard 0. Its log is a file of its own (`metadata/log`) behind a snapshot
//! (`metadata/snapshot`); see [`crate::format::metadata`] for both. At every start the log is folded into the snapshot and
//! emptied: a crash in between leaves frames in the log that the snapshot has already, which are told by their epochs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Requester;
use super::change::MetadataChange;
use super::metadata::{Metadata, Topic};
use super::request::{Reply, Request};
use crate::buffer::{Block, Pool};
use crate::config::{Config, TopicConfig};
use crate::error::{Fatal, IoError, Refusal};
use crate::format::metadata::{End, MetadataRecord, encode_frame, scan};
use crate::format::partition::is_topic_name;
use crate::format::settings::configured;
use crate::io::{Blocking, DiskDone, FileId, Io, OpenMode, Token};
use crate::limits::{
    METADATA_CHANGES_WAITING_MAX, PARTITIONS_PER_NODE_MAX, PARTITIONS_PER_TOPIC_MAX, PRODUCER_IDS_PER_RECORD,
    SLOTS,
};
use crate::types::{MetadataEpoch, ShardId, Slot, TopicId};

/// The directory of the metadata log.
pub const METADATA: &str = "metadata";
const SNAPSHOT: &str = "metadata/snapshot";
const LOG: &str = "metadata/log";

/// A change that somebody wants.
#[derive(Debug)]
pub enum Change {
    /// A new topic.
    CreateTopic {
        /// Its name.
        name: String,
        /// How many partitions; the node's default if not said.
        partitions: Option<u32>,
        /// Its settings by name.
        settings: Vec<(String, String)>,
    },
    /// The end of one.
    DeleteTopic(TopicId),
    /// More partitions.
    AddPartitions {
        /// Of which topic.
        topic: TopicId,
        /// How many there are to be.
        count: u32,
    },
    /// Other settings.
    ConfigureTopic {
        /// Of which topic.
        topic: TopicId,
        /// What to set, or to unset.
        changes: Vec<(String, Option<String>)>,
        /// Whether everything else is unset.
        replace: bool,
    },
    /// An id for a producer.
    NewProducerId,
    /// Queues and the host's entries.
    Metadata(MetadataChange),
}

impl Change {
    /// The change that a request wants; a request that wants something else is given back.
    pub fn of(request: Request) -> Result<Change, Request> {
        Ok(match request {
            Request::CreateTopic { name, partitions, settings } => {
                Change::CreateTopic { name, partitions, settings }
            }
            Request::DeleteTopic(id) => Change::DeleteTopic(id),
            Request::AddPartitions { topic, count } => Change::AddPartitions { topic, count },
            Request::ConfigureTopic { topic, changes, replace } => {
                Change::ConfigureTopic { topic, changes, replace }
            }
            Request::NewProducerId => Change::NewProducerId,
            Request::ChangeMetadata(change) => Change::Metadata(change),
            other => return Err(other),
        })
    }
}

/// What a change comes to.
enum Prepared {
    /// It is answered as soon as this record is durable and applied.
    Write(MetadataRecord, Reply),
    /// It changes nothing.
    Answer(Reply),
}

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
    who: Requester,
    next: Arc<Metadata>,
    reply: Reply,
    crc: u32,
    bytes: u64,
}

/// The one place where metadata changes.
///
/// **Durability.** A change is answered when its frame is written and flushed and every shard has applied its epoch.
/// One change is under way at a time. After a failed flush nothing is changed any more until a restart.
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
            for record in &records {
                apply(&mut metadata, record, &config.topic);
            }
            metadata.epoch = epoch;
        }
    }
    let (frame, _) = encode_frame(metadata.epoch, 0, &snapshot_records(&metadata));
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
    apply(&mut next, record, &config.topic);
    let (frame, _) = encode_frame(next.epoch, 0, &snapshot_records(&next));
    disk.replace(SNAPSHOT, &frame)?;
    Ok(next)
}

/// The record of a new topic, if it may be.
pub fn new_topic<I: Io>(
    io: &mut I,
    metadata: &Metadata,
    defaults: &TopicConfig,
    name: String,
    partitions: u32,
    settings: Vec<(String, String)>,
) -> Result<(TopicId, MetadataRecord), Refusal> {
    if !is_topic_name(&name) {
        return Err(Refusal::InvalidTopicName);
    }
    if let Some(topic) = metadata.topic(&name) {
        return Err(Refusal::TopicExists(topic.id));
    }
    if partitions == 0 || partitions > PARTITIONS_PER_TOPIC_MAX {
        return Err(Refusal::InvalidPartitions);
    }
    check_room(metadata, partitions)?;
    configured(defaults, &settings).map_err(Refusal::InvalidConfig)?;
    let id = new_topic_id(io);
    let slots = least_loaded(metadata, partitions);
    Ok((id, MetadataRecord::TopicCreated { id, name, config: settings, slots }))
}

fn apply(metadata: &mut Metadata, record: &MetadataRecord, defaults: &TopicConfig) {
    match record {
        MetadataRecord::TopicCreated { id, name, config: pairs, slots } => {
            metadata.put(Topic::new(*id, name.clone(), pairs.clone(), slots.clone(), defaults));
        }
        MetadataRecord::TopicConfigured { id, config: pairs } => {
            if let Some(topic) = metadata.by_id.get(id) {
                let topic = Topic::new(*id, topic.name.clone(), pairs.clone(), topic.slots.clone(), defaults);
                metadata.put(topic);
            }
        }
        MetadataRecord::PartitionsAdded { id, slots } => {
            if let Some(topic) = metadata.by_id.get(id) {
                let mut topic = Topic::clone(topic);
                topic.slots.extend_from_slice(slots);
                metadata.put(topic);
            }
        }
        MetadataRecord::ProducerIdsGiven { below } => metadata.producer_ids_below = *below,
        MetadataRecord::TopicDeleted { id } => {
            if let Some(topic) = metadata.by_id.remove(id) {
                metadata.topics.remove(&topic.name);
            }
            metadata.deleted.insert(*id);
        }
        MetadataRecord::DeletionForgotten { id } => {
            metadata.deleted.remove(id);
        }
        // What only the host understands is not asked for yet.
        MetadataRecord::Entity { .. } => {}
    }
}

fn snapshot_records(metadata: &Metadata) -> Vec<MetadataRecord> {
    let topics = metadata.by_id.values().map(|topic| created(topic));
    let deleted = metadata.deleted.iter().map(|id| MetadataRecord::TopicDeleted { id: *id });
    let given = MetadataRecord::ProducerIdsGiven { below: metadata.producer_ids_below };
    topics.chain(deleted).chain((metadata.producer_ids_below > 0).then_some(given)).collect()
}

fn created(topic: &Topic) -> MetadataRecord {
    MetadataRecord::TopicCreated {
        id: topic.id,
        name: topic.name.clone(),
        config: topic.settings.clone(),
        slots: topic.slots.clone(),
    }
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
            out.push(Next::Reply(pending.who, Reply::Refused(Refusal::DiskFull)));
            return self.advance(io, token, out);
        }
        if let Err(error) = done {
            tracing::error!(%error, "the metadata log could not be flushed: nothing is created or deleted any more");
            out.push(Next::Reply(pending.who, Reply::Refused(Refusal::Poisoned)));
            return self.advance(io, token, out);
        }
        self.position += pending.bytes;
        self.last_crc = pending.crc;
        self.metadata = Arc::clone(&pending.next);
        out.push(Next::Publish(Arc::clone(&pending.next)));
        let shards = self.metadata.shards;
        self.state = State::Applying(pending, shards);
    }

    /// One more shard has applied the change under way.
    pub fn applied<I: Io>(&mut self, io: &mut I, token: Token, out: &mut Vec<Next>) {
        let State::Applying(pending, missing) = &mut self.state else { panic!("nothing is being applied") };
        *missing -= 1;
        if *missing > 0 {
            return;
        }
        let reply = std::mem::replace(&mut pending.reply, Reply::Done);
        out.push(Next::Reply(pending.who, reply));
        self.state = State::Idle;
        self.advance(io, token, out);
    }

    /// Whether a change is under way.
    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Writing(_) | State::Applying(..))
    }

    fn advance<I: Io>(&mut self, io: &mut I, token: Token, out: &mut Vec<Next>) {
        while !self.is_busy() {
            let Some((who, change)) = self.queue.pop_front() else { return };
            if matches!(self.state, State::Broken) {
                out.push(Next::Reply(who, Reply::Refused(Refusal::Poisoned)));
                continue;
            }
            match self.prepare(io, change) {
                Err(refusal) => out.push(Next::Reply(who, Reply::Refused(refusal))),
                Ok(Prepared::Answer(reply)) => out.push(Next::Reply(who, reply)),
                Ok(Prepared::Write(record, reply)) => self.write(io, token, who, &record, reply, out),
            }
        }
    }

    fn prepare<I: Io>(&mut self, io: &mut I, change: Change) -> Result<Prepared, Refusal> {
        match change {
            Change::CreateTopic { name, partitions, settings } => {
                let partitions = partitions.unwrap_or(self.partitions_default);
                let (id, record) = new_topic(io, &self.metadata, &self.defaults, name, partitions, settings)?;
                Ok(Prepared::Write(record, Reply::TopicCreated(id)))
            }
            Change::DeleteTopic(id) => {
                self.topic(id)?;
                Ok(Prepared::Write(MetadataRecord::TopicDeleted { id }, Reply::Done))
            }
            Change::AddPartitions { topic: id, count } => {
                let before = self.topic(id)?.slots.len() as u32;
                if count <= before || count > PARTITIONS_PER_TOPIC_MAX {
                    return Err(Refusal::InvalidPartitions);
                }
                check_room(&self.metadata, count - before)?;
                let slots = least_loaded(&self.metadata, count - before);
                Ok(Prepared::Write(MetadataRecord::PartitionsAdded { id, slots }, Reply::Done))
            }
            Change::ConfigureTopic { topic: id, changes, replace } => {
                let topic = self.topic(id)?;
                let mut config = if replace { Vec::new() } else { topic.settings.clone() };
                for (name, value) in changes {
                    config.retain(|(set, _)| *set != name);
                    config.extend(value.map(|value| (name, value)));
                }
                if config == topic.settings {
                    return Ok(Prepared::Answer(Reply::Done));
                }
                configured(&self.defaults, &config).map_err(Refusal::InvalidConfig)?;
                Ok(Prepared::Write(MetadataRecord::TopicConfigured { id, config }, Reply::Done))
            }
            Change::Metadata(_) => Err(Refusal::Unsupported),
            Change::NewProducerId => {
                let id = self.next_producer_id;
                self.next_producer_id += 1;
                let reply = Reply::ProducerId(id);
                if id < self.metadata.producer_ids_below {
                    return Ok(Prepared::Answer(reply));
                }
                let below = id + PRODUCER_IDS_PER_RECORD;
                Ok(Prepared::Write(MetadataRecord::ProducerIdsGiven { below }, reply))
            }
        }
    }

    fn topic(&self, id: TopicId) -> Result<&Arc<Topic>, Refusal> {
        self.metadata.by_id.get(&id).ok_or(Refusal::UnknownTopic(id))
    }

    fn write<I: Io>(
        &mut self,
        io: &mut I,
        token: Token,
        who: Requester,
        record: &MetadataRecord,
        reply: Reply,
        out: &mut Vec<Next>,
    ) {
        let mut next = Metadata::clone(&self.metadata);
        next.epoch = MetadataEpoch(self.metadata.epoch.0 + 1);
        apply(&mut next, record, &self.defaults);
        let (frame, crc) = encode_frame(next.epoch, self.last_crc, std::slice::from_ref(record));
        let Some(mut block): Option<Block> = self.pool.block(frame.len()) else {
            return out.push(Next::Reply(who, Reply::Refused(Refusal::Busy)));
        };
        block.push(&frame);
        io.append_durable(token, self.file, self.position, block.freeze());
        let bytes = frame.len() as u64;
        self.state = State::Writing(Pending { who, next: Arc::new(next), reply, crc, bytes });
    }
}

/// Whether the node may have so many partitions more.
fn check_room(metadata: &Metadata, more: u32) -> Result<(), Refusal> {
    let now: usize = metadata.by_id.values().map(|topic| topic.slots.len()).sum();
    let fits = now + more as usize <= PARTITIONS_PER_NODE_MAX as usize;
    if fits { Ok(()) } else { Err(Refusal::TooManyPartitions) }
}

/// Slots for new partitions: each time the one with the fewest so far, the lowest of them.
fn least_loaded(metadata: &Metadata, partitions: u32) -> Vec<Slot> {
    let mut load: BTreeMap<u32, u32> = (0..SLOTS).map(|slot| (slot, 0)).collect();
    for slot in metadata.by_id.values().flat_map(|topic| &topic.slots) {
        *load.entry(slot.0).or_default() += 1;
    }
    let mut order: std::collections::BTreeSet<(u32, u32)> =
        load.into_iter().map(|(slot, count)| (count, slot)).collect();
    (0..partitions)
        .map(|_| {
            let (count, slot) = order.pop_first().expect("there are slots");
            order.insert((count + 1, slot));
            Slot(slot)
        })
        .collect()
}

/// A random id: RFC 9562, version 4; never all zeros, which clients take for "none".
fn new_topic_id<I: Io>(io: &mut I) -> TopicId {
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&io.random().to_be_bytes());
    uuid[8..].copy_from_slice(&io.random().to_be_bytes());
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    TopicId(uuid)
}

/// The shard that the controller lives on.
pub const CONTROLLER: ShardId = ShardId(0);
