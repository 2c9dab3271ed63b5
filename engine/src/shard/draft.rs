//! What a change of the metadata comes to: checked against the metadata as they will be, put into them, and written down
//! as records. No I/O: the controller makes a draft durable and has it applied, or drops it.

use std::collections::BTreeSet;

use super::change::{Edit, MetadataChange, NewQueue};
use super::metadata::{Changed, Entry, Metadata, Queue, Topic};
use super::placement::Placement;
use super::request::{Reply, Request};
use crate::config::{Config, TopicConfig};
use crate::error::Refusal;
use crate::format::metadata::MetadataRecord;
use crate::format::partition::is_topic_name;
use crate::format::settings::configured;
use crate::limits::{
    CHANGE_BYTES_MAX, EDITS_PER_CHANGE_MAX, ENTRY_KEY_BYTES_MAX, ENTRY_VALUE_BYTES_MAX,
    METADATA_CHANGES_PER_FRAME, METADATA_FRAME_BYTES, PARTITIONS_PER_NODE_MAX, PARTITIONS_PER_TOPIC_MAX,
    PRODUCER_IDS_PER_RECORD, QUEUE_NAME_BYTES_MAX, QUEUES_PER_NODE_MAX,
};
use crate::types::{MetadataEpoch, QueueId, TopicId};

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
    /// Whether it makes space and takes none: it may use what is kept back for that on a full disk.
    pub fn frees(&self) -> bool {
        match self {
            Change::DeleteTopic(_) => true,
            Change::Metadata(change) => {
                change.edits.iter().all(|edit| matches!(edit, Edit::DeleteQueue(_) | Edit::RemoveEntry(_)))
            }
            _ => false,
        }
    }

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

/// The metadata as they will be, once the changes that were taken are durable and applied.
pub struct Draft {
    /// What they will be.
    pub metadata: Metadata,
    /// What is to be written down for that.
    pub records: Vec<MetadataRecord>,
    /// What is new.
    pub changed: Vec<Changed>,
    bytes: usize,
}

/// What a draft needs from its owner, and what lasts longer than one.
pub struct Means<'a> {
    /// The node's settings for topics.
    pub defaults: &'a TopicConfig,
    /// Partitions of a topic whose creator does not say.
    pub partitions_default: u32,
    /// Where new things are placed.
    pub placement: &'a mut Placement,
    /// The next id for a producer.
    pub next_producer_id: &'a mut u64,
    /// Random numbers.
    pub random: &'a mut dyn FnMut() -> u64,
}

impl Draft {
    /// A draft that changes nothing yet; its epoch is the one after `metadata`'s.
    pub fn new(metadata: &Metadata) -> Draft {
        let mut metadata = metadata.clone();
        metadata.epoch = MetadataEpoch(metadata.epoch.0 + 1);
        Draft { metadata, records: Vec::new(), changed: Vec::new(), bytes: 0 }
    }

    /// Whether it should take nothing more.
    pub fn is_large(&self) -> bool {
        self.bytes >= METADATA_FRAME_BYTES || self.changed.len() >= METADATA_CHANGES_PER_FRAME
    }

    /// Takes a change, if it may be; gives what is to be answered when the draft is applied.
    ///
    /// # Errors
    /// Nothing of a change that is refused is in the draft.
    pub fn take(&mut self, change: Change, means: &mut Means<'_>) -> Result<Reply, Refusal> {
        match change {
            Change::CreateTopic { name, partitions, settings } => {
                let partitions = partitions.unwrap_or(means.partitions_default);
                let (id, record) = new_topic(&self.metadata, means, name, partitions, settings)?;
                self.put(record, Changed::Topic(id), means);
                Ok(Reply::TopicCreated(id))
            }
            Change::DeleteTopic(id) => {
                means.placement.give_back(&self.topic(id)?.slots);
                self.put(MetadataRecord::TopicDeleted { id }, Changed::Topic(id), means);
                Ok(Reply::Done)
            }
            Change::AddPartitions { topic: id, count } => {
                let before = self.topic(id)?.slots.len() as u32;
                if count <= before || count > PARTITIONS_PER_TOPIC_MAX {
                    return Err(Refusal::InvalidPartitions);
                }
                check_room(&self.metadata, count - before)?;
                let slots = (before..count).map(|_| means.placement.take()).collect();
                self.put(MetadataRecord::PartitionsAdded { id, slots }, Changed::Topic(id), means);
                Ok(Reply::Done)
            }
            Change::ConfigureTopic { topic: id, changes, replace } => {
                let topic = self.topic(id)?;
                let mut config = if replace { Vec::new() } else { topic.settings.clone() };
                for (name, value) in changes {
                    config.retain(|(set, _)| *set != name);
                    config.extend(value.map(|value| (name, value)));
                }
                if config != topic.settings {
                    configured(means.defaults, &config).map_err(Refusal::InvalidConfig)?;
                    self.put(MetadataRecord::TopicConfigured { id, config }, Changed::Topic(id), means);
                }
                Ok(Reply::Done)
            }
            Change::NewProducerId => {
                let id = *means.next_producer_id;
                *means.next_producer_id += 1;
                if id >= self.metadata.producer_ids_below {
                    let record = MetadataRecord::ProducerIdsGiven { below: id + PRODUCER_IDS_PER_RECORD };
                    replay(&mut self.metadata, &record, means.defaults);
                    self.records.push(record);
                }
                Ok(Reply::ProducerId(id))
            }
            Change::Metadata(change) => {
                self.bytes += check(&self.metadata, &change)?;
                let created = change.edits.into_iter().filter_map(|edit| self.edit(edit, means)).collect();
                Ok(Reply::Changed(created))
            }
        }
    }

    fn put(&mut self, record: MetadataRecord, changed: Changed, means: &Means<'_>) {
        replay(&mut self.metadata, &record, means.defaults);
        self.records.push(record);
        self.changed.push(changed);
    }

    fn topic(&self, id: TopicId) -> Result<&std::sync::Arc<Topic>, Refusal> {
        self.metadata.by_id.get(&id).ok_or(Refusal::UnknownTopic(id))
    }

    /// Makes an edit that was checked; gives the id of the queue that it creates.
    fn edit(&mut self, edit: Edit, means: &mut Means<'_>) -> Option<QueueId> {
        match edit {
            Edit::CreateQueue(NewQueue { name, durable, settings }) => {
                let id = QueueId::new(new_id(means.random), durable);
                let slot = means.placement.take();
                self.changed.push(Changed::Queue(id, name.clone()));
                if durable {
                    let (name, settings) = (name.clone(), settings.clone());
                    self.records.push(MetadataRecord::QueueCreated { id, name, slot, settings });
                }
                self.metadata.put_queue(Queue { id, name, durable, slot, settings });
                return Some(id);
            }
            Edit::DeleteQueue(id) => {
                let queue = self.metadata.remove_queue(id).expect("the change was checked");
                means.placement.give_back(&[queue.slot]);
                self.changed.push(Changed::Queue(id, queue.name.clone()));
                if queue.durable {
                    self.metadata.deleted_queues.insert(id);
                    self.records.push(MetadataRecord::QueueDeleted { id });
                }
            }
            Edit::ConfigureQueue { queue: id, settings } => {
                let queue = self.metadata.queue(id).expect("the change was checked");
                let queue = Queue { settings: settings.clone(), ..Queue::clone(queue) };
                self.changed.push(Changed::Queue(id, queue.name.clone()));
                if queue.durable {
                    self.records.push(MetadataRecord::QueueConfigured { id, settings });
                }
                self.metadata.put_queue(queue);
            }
            Edit::SetEntry { key, value, transient } => {
                let was_kept = self.metadata.entry(&key).is_some_and(|entry| !entry.transient);
                if !transient || was_kept {
                    self.records.push(MetadataRecord::Entity {
                        kind: key.kind,
                        key: key.key.clone(),
                        value: (!transient).then(|| value.clone()),
                    });
                }
                self.changed.push(Changed::Entry(key.clone()));
                let version = self.metadata.epoch;
                self.metadata.put_entry(key, Some(Entry { value: value.into(), version, transient }));
            }
            Edit::RemoveEntry(key) => {
                let entry = self.metadata.entry(&key)?;
                if !entry.transient {
                    let (kind, key) = (key.kind, key.key.clone());
                    self.records.push(MetadataRecord::Entity { kind, key, value: None });
                }
                self.changed.push(Changed::Entry(key.clone()));
                self.metadata.put_entry(key, None);
            }
        }
        None
    }
}

/// Whether all of a change may be: what it relies on, and each edit behind those before it. Gives the bytes of its names
/// and values.
fn check(metadata: &Metadata, change: &MetadataChange) -> Result<usize, Refusal> {
    if change.guards.len() + change.edits.len() > EDITS_PER_CHANGE_MAX {
        return Err(Refusal::Busy);
    }
    if !change.guards.iter().all(|guard| guard.holds(metadata)) {
        return Err(Refusal::Conflict);
    }
    let mut gone = BTreeSet::new();
    let mut names: BTreeSet<&[u8]> = BTreeSet::new();
    let mut bytes = 0;
    for edit in &change.edits {
        match edit {
            Edit::CreateQueue(queue) => {
                bytes += queue.name.len();
                if queue.name.len() > QUEUE_NAME_BYTES_MAX {
                    return Err(Refusal::InvalidQueue("its name is too long"));
                }
                let taken = metadata.queue_named(&queue.name).map(|queue| queue.id);
                if let Some(id) = taken.filter(|id| !gone.contains(id)) {
                    return Err(Refusal::QueueExists(id));
                }
                if !names.insert(&queue.name) {
                    return Err(Refusal::InvalidQueue("it is created twice in one change"));
                }
                if metadata.queues.size() + names.len() > QUEUES_PER_NODE_MAX {
                    return Err(Refusal::TooManyQueues);
                }
            }
            Edit::DeleteQueue(id) => {
                if metadata.queue(*id).is_none() || !gone.insert(*id) {
                    return Err(Refusal::UnknownQueue);
                }
            }
            Edit::ConfigureQueue { queue: id, .. } => {
                if metadata.queue(*id).is_none() || gone.contains(id) {
                    return Err(Refusal::UnknownQueue);
                }
            }
            Edit::SetEntry { key, value, .. } => {
                bytes += key.key.len() + value.len();
                if key.key.len() > ENTRY_KEY_BYTES_MAX || value.len() > ENTRY_VALUE_BYTES_MAX {
                    return Err(Refusal::InvalidConfig("an entry is too long".to_owned()));
                }
            }
            Edit::RemoveEntry(_) => {}
        }
    }
    if bytes > CHANGE_BYTES_MAX { Err(Refusal::Busy) } else { Ok(bytes) }
}

/// The record of a new topic, if it may be.
pub fn new_topic(
    metadata: &Metadata,
    means: &mut Means<'_>,
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
    configured(means.defaults, &settings).map_err(Refusal::InvalidConfig)?;
    let id = TopicId(new_id(means.random));
    let slots = (0..partitions).map(|_| means.placement.take()).collect();
    Ok((id, MetadataRecord::TopicCreated { id, name, config: settings, slots }))
}

/// Whether the node may have so many partitions more.
fn check_room(metadata: &Metadata, more: u32) -> Result<(), Refusal> {
    let fits = metadata.partitions + more as usize <= PARTITIONS_PER_NODE_MAX as usize;
    if fits { Ok(()) } else { Err(Refusal::TooManyPartitions) }
}

/// A random id: RFC 9562, version 4; never all zeros, which clients take for "none".
fn new_id(random: &mut dyn FnMut() -> u64) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&random().to_be_bytes());
    uuid[8..].copy_from_slice(&random().to_be_bytes());
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// Puts a record of the metadata log into the metadata.
pub fn replay(metadata: &mut Metadata, record: &MetadataRecord, defaults: &TopicConfig) {
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
        MetadataRecord::QueueCreated { id, name, slot, settings } => {
            let (name, settings) = (name.clone(), settings.clone());
            metadata.put_queue(Queue { id: *id, name, durable: true, slot: *slot, settings });
        }
        MetadataRecord::QueueDeleted { id } => {
            metadata.remove_queue(*id);
            metadata.deleted_queues.insert(*id);
        }
        MetadataRecord::QueueConfigured { id, settings } => {
            if let Some(queue) = metadata.queue(*id) {
                let queue = Queue { settings: settings.clone(), ..Queue::clone(queue) };
                metadata.put_queue(queue);
            }
        }
        MetadataRecord::QueueDeletionForgotten { id } => {
            metadata.deleted_queues.remove(id);
        }
        MetadataRecord::Entity { kind, key, value } => {
            let key = super::change::EntryKey { kind: *kind, key: key.clone() };
            let version = metadata.epoch;
            let entry =
                value.as_ref().map(|value| Entry { value: value[..].into(), version, transient: false });
            metadata.put_entry(key, entry);
        }
    }
}

/// The records that make the metadata, as far as they are kept.
pub fn records_of(metadata: &Metadata) -> Vec<MetadataRecord> {
    let topics = metadata.by_id.values().map(|topic| MetadataRecord::TopicCreated {
        id: topic.id,
        name: topic.name.clone(),
        config: topic.settings.clone(),
        slots: topic.slots.clone(),
    });
    let deleted = metadata.deleted.iter().map(|id| MetadataRecord::TopicDeleted { id: *id });
    let below = metadata.producer_ids_below;
    let given = (below > 0).then_some(MetadataRecord::ProducerIdsGiven { below });
    let durable = metadata.queues.iter().map(|(_, queue)| queue).filter(|queue| queue.durable);
    let queues = durable.map(|queue| MetadataRecord::QueueCreated {
        id: queue.id,
        name: queue.name.clone(),
        slot: queue.slot,
        settings: queue.settings.clone(),
    });
    let deleted_queues = metadata.deleted_queues.iter().map(|id| MetadataRecord::QueueDeleted { id: *id });
    let kept = metadata.entries.iter().filter(|(_, entry)| !entry.transient);
    let entries = kept.map(|(key, entry)| MetadataRecord::Entity {
        kind: key.kind,
        key: key.key.clone(),
        value: Some(entry.value.to_vec()),
    });
    topics.chain(deleted).chain(given).chain(queues).chain(deleted_queues).chain(entries).collect()
}

/// What a draft needs where a topic is made in a directory that nobody serves.
pub fn new_topic_offline(
    random: &mut dyn FnMut() -> u64,
    metadata: &Metadata,
    config: &Config,
    name: String,
    partitions: u32,
    settings: Vec<(String, String)>,
) -> Result<(TopicId, MetadataRecord), Refusal> {
    let mut means = Means {
        defaults: &config.topic,
        partitions_default: config.partitions_default,
        placement: &mut Placement::of(metadata),
        next_producer_id: &mut 0,
        random,
    };
    new_topic(metadata, &mut means, name, partitions, settings)
}
