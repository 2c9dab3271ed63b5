//! A stand-in for the engine: topics and batches in memory, every request answered as the contract says.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_engine::buffer::Slice;
use millstream_engine::config::TopicConfig;
use millstream_engine::error::Refusal;
use millstream_engine::format::batch::{BatchHeader, check_produced, stamp};
use millstream_engine::io::Space;
use millstream_engine::shard::metadata::{Metadata, Topic};
use millstream_engine::shard::request::{
    Appended, Chunk, Extent, Found, Range, ReadReply, Reply, Request, Target, WatchId,
};
use millstream_engine::types::{LeaderEpoch, MetadataEpoch, Offset, PartitionId, Slot, TopicId};

/// The epoch of this boot.
pub const LEADER_EPOCH: u32 = 3;
/// What its disk has.
pub const SPACE: Space = Space { free_bytes: 7 << 30, total_bytes: 9 << 30 };

#[derive(Default)]
struct Partition {
    log: Vec<u8>,
    next: u64,
    log_start: u64,
}

struct Watch {
    token: u64,
    interests: Vec<(PartitionId, Offset)>,
    min_bytes: u32,
}

/// All shards of a node in one.
pub struct Engine {
    pub metadata: Arc<Metadata>,
    /// One chunk of a read.
    pub chunk_bytes: usize,
    /// What the next append is answered with, once.
    pub refuse_append: Option<Refusal>,
    /// Whether a load fails.
    pub refuse_load: bool,
    partitions: BTreeMap<PartitionId, Partition>,
    watches: BTreeMap<WatchId, Watch>,
    topics_created: u8,
    producer_ids: u64,
}

impl Engine {
    pub fn new(shards: u16) -> Engine {
        let metadata = Metadata {
            cluster_id: TopicId([7; 16]),
            node_id: 1,
            shards,
            leader_epoch: LeaderEpoch(LEADER_EPOCH),
            ..Metadata::default()
        };
        Engine {
            metadata: Arc::new(metadata),
            chunk_bytes: 256 << 10,
            refuse_append: None,
            refuse_load: false,
            partitions: BTreeMap::new(),
            watches: BTreeMap::new(),
            topics_created: 0,
            producer_ids: 0,
        }
    }

    /// Creates a topic; its partitions are placed in turn.
    pub fn create(&mut self, name: &str, partitions: u32) -> TopicId {
        self.create_with(name, partitions, &[])
    }

    /// The same, with settings.
    pub fn create_with(&mut self, name: &str, partitions: u32, settings: &[(&str, &str)]) -> TopicId {
        self.topics_created += 1;
        let id = TopicId([self.topics_created; 16]);
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.put(id, name, partitions, settings.collect());
        id
    }

    fn put(&mut self, id: TopicId, name: &str, partitions: u32, settings: Vec<(String, String)>) {
        let slots = (0..partitions).map(Slot).collect();
        let topic = Topic::new(id, name.to_owned(), settings, slots, &TopicConfig::default());
        self.change(|metadata| metadata.put(topic));
        for index in 0..partitions {
            self.partitions.entry(PartitionId { topic: id, index }).or_default();
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Metadata)) {
        let mut metadata = Metadata::clone(&self.metadata);
        metadata.epoch = MetadataEpoch(metadata.epoch.0 + 1);
        change(&mut metadata);
        self.metadata = Arc::new(metadata);
    }

    fn topic(&self, id: TopicId) -> Result<Arc<Topic>, Refusal> {
        self.metadata.by_id.get(&id).cloned().ok_or(Refusal::UnknownTopic(id))
    }

    /// Deletes a topic behind the host's back.
    pub fn delete(&mut self, name: &str) {
        self.change(|metadata| {
            metadata.remove(metadata.topic(name).unwrap().id);
        });
    }

    /// Watches that are registered.
    pub fn watches(&self) -> usize {
        self.watches.len()
    }

    /// The bytes of a partition's log.
    pub fn log(&self, topic: &str, index: u32) -> &[u8] {
        let topic = self.metadata.topic(topic).unwrap().id;
        &self.partitions[&PartitionId { topic, index }].log
    }

    /// Moves a log's start up.
    pub fn trim(&mut self, topic: &str, index: u32, before: u64) {
        let topic = self.metadata.topic(topic).unwrap().id;
        self.partitions.get_mut(&PartitionId { topic, index }).unwrap().log_start = before;
    }

    /// Answers a request; `token` is its own, and all answers that follow from it are returned.
    pub fn handle(&mut self, token: u64, request: Request) -> Vec<(u64, Reply)> {
        let mut replies = Vec::new();
        match self.answer(token, request) {
            Ok(reply) => replies.extend(reply.map(|reply| (token, reply))),
            Err(refusal) => replies.push((token, Reply::Refused(refusal))),
        }
        let woken: Vec<_> = self.watches.keys().copied().filter(|id| self.is_due(*id)).collect();
        for id in woken {
            let Watch { token, .. } = self.watches.remove(&id).unwrap();
            replies.push((token, Reply::Woken(id)));
        }
        replies
    }

    fn is_due(&self, id: WatchId) -> bool {
        let Watch { interests, min_bytes, .. } = &self.watches[&id];
        let new: usize =
            interests.iter().map(|(id, offset)| self.partitions[id].batches_from(*offset).len()).sum();
        *min_bytes == 0 || new >= *min_bytes as usize
    }

    fn partition(&mut self, id: PartitionId) -> Result<&mut Partition, Refusal> {
        self.partitions.get_mut(&id).ok_or(Refusal::UnknownPartition)
    }

    fn answer(&mut self, token: u64, request: Request) -> Result<Option<Reply>, Refusal> {
        let reply = match request {
            Request::Append { partition, batch, .. } => {
                if let Some(refusal) = self.refuse_append.take() {
                    return Err(refusal);
                }
                Reply::Appended(self.partition(partition)?.append(&batch)?)
            }
            Request::Read { partition, offset, max_bytes } => {
                let chunk = self.chunk_bytes;
                Reply::Read(self.partition(partition)?.read(partition, offset, max_bytes, chunk)?)
            }
            Request::Load(_) if self.refuse_load => return Err(Refusal::ReadFailed),
            Request::Load(range) => {
                let chunk = self.chunk_bytes;
                Reply::Loaded(self.partition(range.partition)?.load(range, chunk))
            }
            Request::Watch { watch, interests, min_bytes } => {
                self.watches.insert(watch, Watch { token, interests, min_bytes });
                return Ok(None);
            }
            Request::Unwatch(watch) => {
                if let Some(watch) = self.watches.get_mut(&watch) {
                    watch.min_bytes = 0;
                }
                Reply::Done
            }
            Request::Find { partition, target } => Reply::Found(self.partition(partition)?.find(target)),
            Request::CreateTopic { name, partitions, settings } => {
                if let Some(topic) = self.metadata.topic(&name) {
                    return Err(Refusal::TopicExists(topic.id));
                }
                let id = self.create(&name, partitions.unwrap_or(1));
                self.put(id, &name, partitions.unwrap_or(1), settings);
                Reply::TopicCreated(id)
            }
            Request::DeleteTopic(id) => {
                self.topic(id)?;
                self.change(|metadata| metadata.remove(id));
                Reply::Done
            }
            Request::AddPartitions { topic: id, count } => {
                let topic = self.topic(id)?;
                self.put(id, &topic.name, count, topic.settings.clone());
                Reply::Done
            }
            Request::ConfigureTopic { topic: id, changes, replace } => {
                let topic = self.topic(id)?;
                let mut settings = if replace { Vec::new() } else { topic.settings.clone() };
                for (name, value) in changes {
                    settings.retain(|(set, _)| *set != name);
                    settings.extend(value.map(|value| (name, value)));
                }
                self.put(id, &topic.name, topic.slots.len() as u32, settings);
                Reply::Done
            }
            Request::NewProducerId => {
                self.producer_ids += 1;
                Reply::ProducerId(self.producer_ids - 1)
            }
            // RabbitMQ's side founds its first vhost when it starts, which is not what is looked at here.
            Request::ChangeMetadata(_) => return Err(Refusal::Unsupported),
            Request::Publish(_)
            | Request::Consume(_)
            | Request::Grant(_)
            | Request::CancelConsumer { .. }
            | Request::Settle { .. }
            | Request::Get { .. }
            | Request::Purge(_)
            | Request::QueueStats { .. }
            | Request::CloseQueue { .. }
            | Request::OpenQueue(_)
            | Request::Move(_) => panic!("Kafka's side asked something of a queue: {request:?}"),
            Request::EpochEnd { partition, epoch } => {
                // Everything is of this boot; the epoch before it ended where half of it was.
                let next = self.partition(partition)?.next;
                Reply::EpochEnd(match epoch.0 {
                    LEADER_EPOCH => Some((epoch, Offset(next))),
                    0..LEADER_EPOCH => Some((epoch, Offset(next / 2))),
                    _ => None,
                })
            }
            Request::Extents(partitions) => {
                let extent = |partition: &PartitionId| {
                    let log = self.partitions.get(partition)?;
                    Some(Extent {
                        partition: *partition,
                        bytes: log.log.len() as u64,
                        log_start: Offset(log.log_start),
                        high_watermark: Offset(log.next),
                    })
                };
                Reply::Extents(partitions.iter().filter_map(extent).collect())
            }
            Request::DiskSpace => Reply::DiskSpace(Some(SPACE)),
            Request::TrimLog { partition, before } => {
                let log = self.partition(partition)?;
                let before = before.map_or(log.next, |before| before.0);
                if before > log.next {
                    let (start, end) = (Offset(log.log_start), Offset(log.next));
                    return Err(Refusal::OffsetOutOfRange { start, end });
                }
                log.log_start = log.log_start.max(before);
                Reply::Trimmed(Offset(log.log_start))
            }
        };
        Ok(Some(reply))
    }
}

impl Partition {
    fn append(&mut self, batch: &[u8]) -> Result<Appended, Refusal> {
        let header = check_produced(batch).map_err(|error| Refusal::CorruptBatch(error.what()))?;
        let base_offset = Offset(self.next);
        let mut stored = batch.to_vec();
        stamp(&mut stored, base_offset, LeaderEpoch(LEADER_EPOCH));
        self.log.extend_from_slice(&stored);
        self.next += u64::from(header.records);
        Ok(Appended { base_offset, append_time: None, log_start: Offset(self.log_start) })
    }

    fn headers(&self) -> impl Iterator<Item = (usize, BatchHeader)> {
        let mut position = 0;
        std::iter::from_fn(move || {
            let header = BatchHeader::parse(self.log.get(position..)?).ok()?;
            position += header.size;
            Some((position - header.size, header))
        })
    }

    /// The bytes of every batch from the one that holds `offset`.
    fn batches_from(&self, offset: Offset) -> &[u8] {
        let first = self.headers().find(|(_, header)| header.next_offset() > offset);
        first.map_or(&[], |(position, _)| &self.log[position..])
    }

    fn read(&self, id: PartitionId, offset: Offset, max: u32, chunk: usize) -> Result<ReadReply, Refusal> {
        if offset.0 < self.log_start || offset.0 > self.next {
            let (start, end) = (Offset(self.log_start), Offset(self.next));
            return Err(Refusal::OffsetOutOfRange { start, end });
        }
        let bytes = self.batches_from(offset);
        let position = self.log.len() - bytes.len();
        let mut len = 0;
        for (at, header) in self.headers().filter(|(at, _)| *at >= position) {
            let end = at + header.size - position;
            if len > 0 && end > max as usize {
                break;
            }
            len = end;
        }
        let range = Range { partition: id, segment: Offset(0), position: position as u32, len: len as u32 };
        let chunk = if len == 0 { Chunk::default() } else { self.load(range, chunk) };
        let high_watermark = Offset(self.next);
        Ok(ReadReply { chunk, high_watermark, log_start: Offset(self.log_start) })
    }

    /// The first chunk of a range, in two slices.
    fn load(&self, range: Range, chunk: usize) -> Chunk {
        let position = range.position as usize;
        let len = chunk.min(range.len as usize);
        let bytes = &self.log[position..position + len];
        let (first, second) = bytes.split_at(len / 2);
        let bytes = [first, second].map(|part| Slice::from(part.to_vec())).into();
        Chunk { bytes, range: Some(range) }
    }

    fn find(&self, target: Target) -> Found {
        let leader_epoch = LeaderEpoch(LEADER_EPOCH);
        let batch = match target {
            Target::Earliest => {
                return Found { offset: Some(Offset(self.log_start)), batch: None, leader_epoch };
            }
            Target::Latest => return Found { offset: Some(Offset(self.next)), batch: None, leader_epoch },
            Target::Timestamp(wanted) => self.headers().find(|(_, header)| header.max_timestamp >= wanted.0),
            Target::MaxTimestamp => {
                let latest = self.headers().map(|(_, header)| header.max_timestamp).max();
                self.headers().find(|(_, header)| Some(header.max_timestamp) == latest)
            }
        };
        Found {
            offset: batch.map(|(_, header)| header.base_offset),
            batch: batch.map(|(at, header)| Slice::from(self.log[at..at + header.size].to_vec())),
            leader_epoch,
        }
    }
}
