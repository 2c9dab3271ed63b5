//! `ListOffsets`: the first offset, the next one, and offsets by time. The engine finds the batch; which of its records
//! it is, is looked up here, because only the host decompresses.

use std::any::Any;

use millstream_engine::shard::request::{Found, Reply, Target};
use millstream_engine::time::WallMs;

use super::codec::{Malformed, Reader};
use super::search::{Hit, Search};
use super::topics::Topics;
use super::{Context, Done, ErrorCode, api, check_leader_epoch, code, find_partition, wire_offset};
use crate::limits::SEARCH_INLINE_BYTES_MAX;

/// The first version in which the record with the largest timestamp can be asked for (KIP-734).
const MAX_TIMESTAMP_FROM: i16 = 7;
/// The first versions with a number for the first offset on this machine, and for the last one elsewhere.
const EARLIEST_LOCAL_FROM: i16 = 8;
const LATEST_TIERED_FROM: i16 = 9;
/// The first version with a time to wait: only another store would need it.
const TIMEOUT_FROM: i16 = 10;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// The first offset on this machine: all are (KIP-405).
const EARLIEST_LOCAL: i64 = -4;
/// The last offset in another store: there is none (KIP-1005).
const LATEST_TIERED: i64 = -5;
/// What a missing offset or timestamp is on the wire.
const NONE: i64 = -1;

/// A request for offsets.
#[derive(Debug)]
pub struct ListOffsets {
    topics: Topics<Part>,
    /// Partitions that are not answered.
    waiting: usize,
}

/// One partition's question, then its answer.
#[derive(Debug)]
struct Part {
    index: i32,
    leader_epoch: i32,
    /// A time, or what one of the negative numbers stands for.
    timestamp: i64,
    answer: Result<Hit, ErrorCode>,
    answer_epoch: i32,
}

impl ListOffsets {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<ListOffsets, Malformed> {
        let _replica_id = reader.i32()?;
        if version >= 2 {
            // Without transactions, what is committed is what is durable.
            let _isolation_level = reader.i8()?;
        }
        let mut topics = Topics::new();
        for _ in 0..reader.count(2)? {
            topics.push_topic(reader.string()?)?;
            for _ in 0..reader.count(12)? {
                let index = reader.i32()?;
                let leader_epoch = if version >= 4 { reader.i32()? } else { -1 };
                let timestamp = reader.i64()?;
                if version == 0 {
                    let _max_offsets = reader.i32()?;
                }
                reader.tags()?;
                let answer = Ok(Hit { offset: NONE, timestamp: NONE });
                topics.push_partition(Part { index, leader_epoch, timestamp, answer, answer_epoch: -1 })?;
            }
            reader.tags()?;
        }
        if version >= TIMEOUT_FROM {
            let _timeout_ms = reader.i32()?;
        }
        reader.tags()?;
        Ok(ListOffsets { topics, waiting: 0 })
    }

    /// Asks the shards.
    pub fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let metadata = context.engine.metadata();
        let served = api::is_served(context);
        let version = context.header.version;
        let mut waiting = 0;
        self.topics.for_each_mut(|topic, place, part| {
            let asked = find_partition(&metadata, topic, part.index).and_then(|partition| {
                check_leader_epoch(&metadata, part.leader_epoch)?;
                if part.timestamp == LATEST_TIERED && version >= LATEST_TIERED_FROM {
                    return Ok(false);
                }
                let target = target(part.timestamp, version)
                    .filter(|_| served)
                    .ok_or(ErrorCode::UnsupportedVersion)?;
                context.engine.find(place, partition, target).map(|()| true).map_err(|refusal| code(&refusal))
            });
            match asked {
                Ok(asked) => waiting += usize::from(asked),
                Err(error) => part.answer = Err(error),
            }
        });
        self.waiting = waiting;
        self.finish(context)
    }

    /// Takes a shard's answer for one partition.
    pub fn on_reply(&mut self, place: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        let part = self.topics.partition_mut(place);
        match reply {
            Reply::Found(found) => {
                part.answer_epoch = found.leader_epoch.0 as i32;
                if let Some(search) = part.found(found) {
                    if search.batch.len() > SEARCH_INLINE_BYTES_MAX || search.is_compressed() {
                        context.engine.offload(place, Box::new(move || Box::new(search.run())));
                        return None;
                    }
                    part.answer = Ok(search.run());
                }
            }
            Reply::Refused(refusal) => part.answer = Err(code(&refusal)),
            other => panic!("a search was answered {other:?}"),
        }
        self.waiting -= 1;
        self.finish(context)
    }

    /// Takes the result of a search that ran on a helper.
    pub fn on_search(&mut self, place: u32, result: &dyn Any, context: &mut Context<'_>) -> Option<Done> {
        let hit = result.downcast_ref::<Hit>().expect("a search returns a hit");
        self.topics.partition_mut(place).answer = Ok(*hit);
        self.waiting -= 1;
        self.finish(context)
    }

    fn finish(&self, context: &Context<'_>) -> Option<Done> {
        (self.waiting == 0).then(|| self.answer(context))
    }

    fn answer(&self, context: &Context<'_>) -> Done {
        let version = context.header.version;
        let room = self.topics.names_len() + 32 * self.topics.partitions().len();
        let mut writer = context.response(room);
        if version >= 2 {
            writer.i32(0);
        }
        self.topics.write(&mut writer, |writer, part| {
            let none = Hit { offset: NONE, timestamp: NONE };
            let (error, hit) = match part.answer {
                Ok(hit) => (ErrorCode::None, hit),
                Err(error) => (error, none),
            };
            writer.i32(part.index);
            writer.error(error);
            if version == 0 {
                writer.count(0);
            } else {
                writer.i64(hit.timestamp);
                writer.i64(hit.offset);
            }
            if version >= 4 {
                writer.i32(part.answer_epoch);
            }
        });
        writer.tags();
        Done::answer(writer)
    }
}

impl Part {
    /// Notes what was found; returns what is left to search.
    fn found(&mut self, found: Found) -> Option<Search> {
        let offset = wire_offset(found.offset?);
        self.answer = Ok(Hit { offset, timestamp: NONE });
        // The record with the largest timestamp is the first that is as late as its batch says.
        let at_least = (self.timestamp >= 0).then_some(self.timestamp);
        let by_time = self.timestamp >= 0 || self.timestamp == MAX_TIMESTAMP;
        found.batch.filter(|_| by_time).map(|batch| Search { batch, at_least })
    }
}

/// What a number in the place of a timestamp asks for.
fn target(timestamp: i64, version: i16) -> Option<Target> {
    match timestamp {
        LATEST => Some(Target::Latest),
        EARLIEST => Some(Target::Earliest),
        EARLIEST_LOCAL if version >= EARLIEST_LOCAL_FROM => Some(Target::Earliest),
        MAX_TIMESTAMP if version >= MAX_TIMESTAMP_FROM => Some(Target::MaxTimestamp),
        0.. => Some(Target::Timestamp(WallMs(timestamp))),
        _ => None,
    }
}
