//! Changes of the metadata, one after the other: written to the metadata log, applied by every shard, then answered.
//!
//! The controller lives on shard 0. Its log is a file of its own (`metadata/log`) behind a snapshot
//! (`metadata/snapshot`); see [`crate::format::metadata`] for both, and [`super::metadata_log`] for how they are written.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::Requester;
use super::metadata::{Metadata, Topic};
use super::metadata_log::{Folded, LOG, METADATA, MetadataLog, Room, SNAPSHOT};
use super::request::{Reply, Request};
use crate::buffer::Pool;
use crate::config::{Config, TopicConfig};
use crate::error::{Fatal, IoError, Refusal};
use crate::format::metadata::{End, MetadataRecord, encode_frame, scan};
use crate::format::partition::is_topic_name;
use crate::format::settings::configured;
use crate::io::{Blocking, DiskDone, Io, Token};
use crate::limits::{
    DELETIONS_FORGOTTEN_MAX, METADATA_CHANGES_WAITING_MAX, PARTITIONS_PER_NODE_MAX, PARTITIONS_PER_TOPIC_MAX,
    PRODUCER_IDS_PER_RECORD, SLOTS,
};
use crate::types::{MetadataEpoch, ShardId, Slot, TopicId};

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
    /// The log is put into the snapshot; then comes the change that had no room.
    Folding(Option<Asked>),
    /// A frame could not be made durable: what the log holds is unknown until the next start reads it.
    Broken,
}

/// Records that somebody waits for, or nobody.
struct Asked {
    records: Vec<MetadataRecord>,
    answer: Option<(Requester, Reply)>,
}

struct Pending {
    asked: Asked,
    next: Arc<Metadata>,
    /// The frame's checksum and length.
    frame: (u32, u64),
}

/// How many partitions lie on each slot, over all topics.
struct Load {
    counts: Vec<u32>,
    /// Every slot behind its count.
    order: BTreeSet<(u32, u32)>,
    partitions: u64,
}

impl Load {
    fn of(metadata: &Metadata) -> Load {
        let mut load = Load {
            counts: vec![0; SLOTS as usize],
            order: (0..SLOTS).map(|slot| (0, slot)).collect(),
            partitions: 0,
        };
        metadata.by_id.values().for_each(|topic| load.add(&topic.slots));
        load
    }

    fn add(&mut self, slots: &[Slot]) {
        slots.iter().for_each(|slot| self.change(*slot, 1));
    }

    fn remove(&mut self, slots: &[Slot]) {
        slots.iter().for_each(|slot| self.change(*slot, -1));
    }

    fn change(&mut self, slot: Slot, by: i32) {
        self.partitions = self.partitions.saturating_add_signed(by.into());
        // A slot that does not exist here has no load to be spared.
        let Some(count) = self.counts.get_mut(slot.0 as usize) else { return };
        self.order.remove(&(*count, slot.0));
        *count = count.saturating_add_signed(by);
        self.order.insert((*count, slot.0));
    }

    /// Whether the node may have so many partitions more.
    fn check_room(&self, more: u32) -> Result<(), Refusal> {
        let fits = self.partitions + u64::from(more) <= u64::from(PARTITIONS_PER_NODE_MAX);
        if fits { Ok(()) } else { Err(Refusal::TooManyPartitions) }
    }

    /// Slots for new partitions: each time the one with the fewest so far, the lowest of them.
    fn least_loaded(&self, partitions: u32) -> Vec<Slot> {
        let mut others = self.order.iter().copied().peekable();
        let mut taken: BTreeSet<(u32, u32)> = BTreeSet::new();
        let mut slots = Vec::with_capacity(partitions as usize);
        for _ in 0..partitions {
            let again = taken.first().filter(|taken| others.peek().is_none_or(|other| *taken < other));
            let next = if again.is_some() { taken.pop_first() } else { others.next() };
            let (count, slot) = next.expect("there are slots");
            taken.insert((count + 1, slot));
            slots.push(Slot(slot));
        }
        slots
    }
}

/// The one place where metadata changes.
///
/// **Durability.** A change is answered when its frame is written and flushed and every shard has applied its epoch.
/// One change is under way at a time. After a failed flush nothing is changed any more until a restart.
pub struct Controller {
    metadata: Arc<Metadata>,
    load: Load,
    defaults: TopicConfig,
    partitions_default: u32,
    /// The next id for a producer. Those from here to the metadata's mark are written down as given already.
    next_producer_id: u64,
    log: MetadataLog,
    /// Topics that are no more, by the epoch in which they went, and up to which epoch each shard has nothing left of such.
    deleted: VecDeque<(MetadataEpoch, TopicId)>,
    clear: Vec<MetadataEpoch>,
    /// Whether to look for what may be forgotten.
    forgets: bool,
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
    plan_topic(io, metadata, &Load::of(metadata), defaults, name, partitions, settings)
}

fn plan_topic<I: Io>(
    io: &mut I,
    metadata: &Metadata,
    load: &Load,
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
    load.check_room(partitions)?;
    configured(defaults, &settings).map_err(Refusal::InvalidConfig)?;
    let id = new_topic_id(io);
    let slots = load.least_loaded(partitions);
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
            metadata.remove(*id);
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
        Ok(Controller {
            next_producer_id: metadata.producer_ids_below,
            load: Load::of(&metadata),
            log: MetadataLog::start(disk, config.metadata_log_bytes, pool)?,
            deleted: metadata.deleted.iter().map(|id| (metadata.epoch, *id)).collect(),
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
            State::Folding(asked) => match self.log.on_folding(io, token, done) {
                None => self.state = State::Folding(asked),
                Some(folded) => {
                    self.on_folded(folded);
                    asked.map(|asked| self.place(io, token, asked, out));
                }
            },
            _ => panic!("nothing is being written"),
        }
        self.advance(io, token, out);
    }

    fn on_written(&mut self, pending: Pending, done: Result<DiskDone, IoError>, out: &mut Vec<Next>) {
        match done {
            Ok(_) => {}
            // The write found no room for the frame's block: what comes next is written in its place.
            Err(IoError::NoSpace) => {
                self.state = State::Idle;
                return self.refuse(pending.asked, Refusal::DiskFull, out);
            }
            Err(error) => {
                tracing::error!(%error, "the metadata log could not be flushed: nothing is created or deleted any more");
                return self.refuse(pending.asked, Refusal::Poisoned, out);
            }
        }
        self.log.appended(pending.frame);
        let before = std::mem::replace(&mut self.metadata, Arc::clone(&pending.next));
        if let Some(changed) = self.metadata.changed {
            let slots =
                |of: &Metadata| of.by_id.get(&changed).map(|topic| topic.slots.clone()).unwrap_or_default();
            self.load.remove(&slots(&before));
            self.load.add(&slots(&self.metadata));
        }
        for record in &pending.asked.records {
            match record {
                MetadataRecord::TopicDeleted { id } => self.deleted.push_back((self.metadata.epoch, *id)),
                MetadataRecord::DeletionForgotten { .. } => {
                    self.deleted.pop_front();
                    self.forgets = true; // There may be more than go at a time.
                }
                _ => {}
            }
        }
        out.push(Next::Publish(Arc::clone(&pending.next)));
        let shards = self.metadata.shards;
        self.state = State::Applying(pending, shards);
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

    /// A shard has nothing left of topics that were deleted up to this epoch: neither in its journal nor in its checkpoint, nor
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
        out.extend(pending.asked.answer.take().map(|(who, reply)| Next::Reply(who, reply)));
        self.state = State::Idle;
        self.advance(io, token, out);
    }

    /// Whether a change is under way.
    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Writing(_) | State::Applying(..) | State::Folding(_))
    }

    fn advance<I: Io>(&mut self, io: &mut I, token: Token, out: &mut Vec<Next>) {
        while !self.is_busy() {
            let Some((who, change)) = self.queue.pop_front() else { return self.forget(io, token, out) };
            if matches!(self.state, State::Broken) {
                out.push(Next::Reply(who, Reply::Refused(Refusal::Poisoned)));
                continue;
            }
            match self.prepare(io, change) {
                Err(refusal) => out.push(Next::Reply(who, Reply::Refused(refusal))),
                Ok(Prepared::Answer(reply)) => out.push(Next::Reply(who, reply)),
                Ok(Prepared::Write(record, reply)) => {
                    self.place(io, token, Asked { records: vec![record], answer: Some((who, reply)) }, out);
                }
            }
        }
    }

    /// Forgets deletions that no shard has anything left of, when nothing else is to be done.
    fn forget<I: Io>(&mut self, io: &mut I, token: Token, out: &mut Vec<Next>) {
        if !std::mem::take(&mut self.forgets) || matches!(self.state, State::Broken) {
            return;
        }
        let upto = self.clear.iter().min().copied().unwrap_or_default();
        let due = self.deleted.iter().take_while(|(epoch, _)| *epoch <= upto).take(DELETIONS_FORGOTTEN_MAX);
        let records: Vec<_> = due.map(|(_, id)| MetadataRecord::DeletionForgotten { id: *id }).collect();
        if !records.is_empty() {
            self.place(io, token, Asked { records, answer: None }, out);
        }
    }

    fn prepare<I: Io>(&mut self, io: &mut I, change: Change) -> Result<Prepared, Refusal> {
        match change {
            Change::CreateTopic { name, partitions, settings } => {
                let partitions = partitions.unwrap_or(self.partitions_default);
                let (metadata, load, defaults) = (&self.metadata, &self.load, &self.defaults);
                let (id, record) = plan_topic(io, metadata, load, defaults, name, partitions, settings)?;
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
                self.load.check_room(count - before)?;
                let slots = self.load.least_loaded(count - before);
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

    /// Writes what was asked, behind a fold if there is no room.
    fn place<I: Io>(&mut self, io: &mut I, token: Token, asked: Asked, out: &mut Vec<Next>) {
        if matches!(self.state, State::Broken) {
            return self.refuse(asked, Refusal::Poisoned, out);
        }
        match self.log.room(&asked.records, io.now()) {
            Room::Here => self.write(io, token, asked, out),
            Room::AfterFold => {
                self.log.fold(io, token, self.metadata.epoch, &snapshot_records(&self.metadata));
                self.state = State::Folding(Some(asked));
            }
            Room::None => self.refuse(asked, Refusal::DiskFull, out),
        }
    }

    fn write<I: Io>(&mut self, io: &mut I, token: Token, asked: Asked, out: &mut Vec<Next>) {
        let mut next = Metadata::clone(&self.metadata);
        next.epoch = MetadataEpoch(self.metadata.epoch.0 + 1);
        next.changed = None;
        for record in &asked.records {
            apply(&mut next, record, &self.defaults);
        }
        let Some(frame) = self.log.append(io, token, next.epoch, &asked.records) else {
            return self.refuse(asked, Refusal::Busy, out);
        };
        self.state = State::Writing(Pending { asked, next: Arc::new(next), frame });
    }

    fn refuse(&self, asked: Asked, refusal: Refusal, out: &mut Vec<Next>) {
        out.extend(asked.answer.map(|(who, _)| Next::Reply(who, Reply::Refused(refusal))));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(numbers: &[u32]) -> Vec<Slot> {
        numbers.iter().copied().map(Slot).collect()
    }

    #[test]
    fn partitions_go_to_the_slots_with_the_fewest_the_lowest_first() {
        let mut load = Load::of(&Metadata::default());
        assert_eq!(load.least_loaded(3), slots(&[0, 1, 2]));
        load.add(&slots(&[0, 2, 2]));
        assert_eq!(load.least_loaded(3), slots(&[1, 3, 4]));
        let all = load.least_loaded(SLOTS + 1);
        assert_eq!(
            all[SLOTS as usize - 2..],
            slots(&[0, 1, 3]),
            "then each has one, and a second one begins"
        );
        load.remove(&slots(&[0, 2, 2]));
        assert_eq!(load.least_loaded(3), slots(&[0, 1, 2]));
        assert_eq!(load.partitions, 0);
    }

    #[test]
    fn a_node_has_room_for_so_many_partitions_and_not_for_one_more() {
        let mut load = Load::of(&Metadata::default());
        assert_eq!(load.check_room(PARTITIONS_PER_NODE_MAX), Ok(()));
        load.add(&slots(&[7]));
        assert_eq!(load.check_room(PARTITIONS_PER_NODE_MAX), Err(Refusal::TooManyPartitions));
        assert_eq!(load.check_room(PARTITIONS_PER_NODE_MAX - 1), Ok(()));
    }
}
