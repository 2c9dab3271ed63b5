//! `Produce`: one record batch per partition, stored as it came. The batch is handed to the engine as a part of the
//! frame that it arrived in.

use millstream_engine::buffer::Slice;
use millstream_engine::format::batch::{BatchHeader, magic};
use millstream_engine::shard::request::{Appended, Reply};
use millstream_engine::types::Durability;

use super::codec::{Malformed, Reader};
use super::topics::Topics;
use super::{Context, Done, ErrorCode, Failure, api, find_partition, is_internal, wire_offset};
use crate::net::Response;

/// The first version that may carry zstd (KIP-110).
const ZSTD_FROM: i16 = 7;
const ZSTD: u8 = 4;

/// A request to store records.
#[derive(Debug)]
pub struct Produce {
    acks: i16,
    transactional: bool,
    topics: Topics<Part>,
    /// Appends that are not answered.
    waiting: usize,
}

/// One partition's batch, then what became of it.
#[derive(Debug)]
struct Part {
    index: i32,
    records: Option<Slice>,
    outcome: Result<Appended, Failure>,
}

impl Produce {
    /// Reads a request; its batches stay where they are in `frame`.
    pub fn read(frame: &Slice, mut reader: Reader<'_>, version: i16) -> Result<Produce, Malformed> {
        let transactional = version >= 3 && reader.nullable_string()?.is_some();
        let acks = reader.i16()?;
        let _timeout_ms = reader.i32()?;
        let mut topics = Topics::new();
        for _ in 0..reader.count(2)? {
            topics.push_topic(reader.string()?)?;
            for _ in 0..reader.count(5)? {
                let index = reader.i32()?;
                let records = reader.nullable_bytes()?.map(|place| frame.slice(place));
                reader.tags()?;
                let outcome = Err(Failure::new(ErrorCode::RequestTimedOut, "not answered"));
                topics.push_partition(Part { index, records, outcome })?;
            }
            reader.tags()?;
        }
        reader.tags()?;
        Ok(Produce { acks, transactional, topics, waiting: 0 })
    }

    fn durability(&self) -> Option<Durability> {
        match self.acks {
            0 => Some(Durability::Memory),
            1 => Some(Durability::Written),
            -1 => Some(Durability::Durable),
            _ => None,
        }
    }

    /// Why no batch of this request can be stored.
    fn refuse_all(&self, context: &Context<'_>) -> Option<(ErrorCode, &'static str)> {
        if !api::is_served(context) {
            Some((ErrorCode::UnsupportedVersion, "record batches came with version 3"))
        } else if self.transactional {
            Some((ErrorCode::InvalidTxnState, "transactions are not served yet"))
        } else if self.durability().is_none() {
            Some((ErrorCode::InvalidRequiredAcks, "acks is -1, 0 or 1"))
        } else {
            None
        }
    }

    /// Hands the batches to their shards, in the order in which they came.
    pub fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let refused = self.refuse_all(context);
        let durability = self.durability().unwrap_or_default();
        let metadata = context.engine.metadata();
        let mut waiting = 0;
        self.topics.for_each_mut(|topic, place, part| {
            let records = part.records.take();
            let appended = match refused {
                Some((error, message)) => Err(Failure::new(error, message)),
                None if is_internal(topic) => {
                    Err(Failure::new(ErrorCode::InvalidTopic, "clients do not append to an internal topic"))
                }
                None => find_partition(&metadata, topic, part.index)
                    .map_err(|error| Failure::new(error, "unknown topic or partition"))
                    .and_then(|partition| Ok((partition, check(records, context.header.version)?)))
                    .and_then(|(partition, batch)| {
                        context.engine.append(place, partition, batch, durability).map_err(Failure::from)
                    }),
            };
            match appended {
                Ok(()) => waiting += 1,
                Err(failure) => part.outcome = Err(failure),
            }
        });
        self.waiting = waiting;
        self.finish(context)
    }

    /// Takes a shard's answer for one partition.
    pub fn on_reply(&mut self, place: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        self.topics.partition_mut(place).outcome = match reply {
            Reply::Appended(appended) => Ok(appended),
            Reply::Refused(refusal) => Err(refusal.into()),
            other => panic!("an append was answered {other:?}"),
        };
        self.waiting -= 1;
        self.finish(context)
    }

    fn finish(&self, context: &Context<'_>) -> Option<Done> {
        if self.waiting > 0 {
            return None;
        }
        if self.acks != 0 {
            return Some(self.answer(context));
        }
        // No response is expected, so that the only way to tell of an error is to close the connection.
        let failure = self.topics.partitions().iter().find_map(|part| part.outcome.as_ref().err());
        Some(match failure {
            None => Done::Answer(Response::silent(), 0),
            Some(failure) => Done::HangUp(format!("a produce request with acks=0: {}", failure.message)),
        })
    }

    fn answer(&self, context: &Context<'_>) -> Done {
        let version = context.header.version;
        let room = self.topics.names_len() + 48 * self.topics.partitions().len();
        let mut writer = context.response(room);
        self.topics.write(&mut writer, |writer, part| {
            let (appended, failure) = match &part.outcome {
                Ok(appended) => (Some(appended), None),
                Err(failure) => (None, Some(failure)),
            };
            let error = failure.map_or(ErrorCode::None, |failure| failure.error);
            writer.i32(part.index);
            writer.error(error);
            writer.i64(appended.map_or(-1, |appended| wire_offset(appended.base_offset)));
            if version >= 2 {
                writer.i64(appended.and_then(|appended| appended.append_time).map_or(-1, |time| time.0));
            }
            if version >= 5 {
                writer.i64(appended.map_or(-1, |appended| wire_offset(appended.log_start)));
            }
            if version >= 8 {
                writer.count(0);
                writer.nullable_string(failure.map(|failure| &*failure.message));
            }
        });
        if version >= 1 {
            writer.i32(0);
        }
        writer.tags();
        Done::answer(writer)
    }
}

/// Checks of a batch what depends on the request: the engine checks the rest.
fn check(records: Option<Slice>, version: i16) -> Result<Slice, Failure> {
    let records = records
        .filter(|records| !records.is_empty())
        .ok_or(Failure::new(ErrorCode::InvalidRecord, "there is no record batch"))?;
    // A batch of a format that there was once. One of a format that there never was is damage, with Kafka too.
    if matches!(magic(&records), Some(0 | 1)) {
        return Err(Failure::new(
            ErrorCode::InvalidRecord,
            "since version 3 of Produce batches have magic 2",
        ));
    }
    // A header that does not parse is left to the engine, which says what is wrong with it.
    if let Ok(header) = BatchHeader::parse(&records) {
        if header.attributes.codec() == ZSTD && version < ZSTD_FROM {
            let message = "zstd needs version 7 of Produce";
            return Err(Failure::new(ErrorCode::UnsupportedCompressionType, message));
        }
        if header.attributes.transactional() {
            return Err(Failure::new(ErrorCode::InvalidTxnState, "transactions are not served yet"));
        }
    }
    Ok(records)
}
