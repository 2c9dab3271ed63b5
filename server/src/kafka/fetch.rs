//! `Fetch`: reads whole batches from several partitions, and waits for news if there is too little.
//!
//! Partitions are read in the order of the request, each with what is left of the request's budget. A batch that is larger
//! than its partition's share is only sent if it is the first of the answer (KIP-74). Of partitions that are passed over
//! it is told where they stand, as of the others: clients measure by it how far they lag behind. If the sum falls short, what was read is let go, one watch per shard is registered, and the first to wake (or the deadline) has
//! everything read once more. Sessions (KIP-227) are never granted.

use std::collections::BTreeMap;

use millstream_engine::limits::READ_CHUNK_BYTES;
use millstream_engine::shard::request::{Chunk, Reply};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Offset, PartitionId};

use super::codec::{Malformed, Reader, Writer};
use super::topics::Topics;
use super::{Context, Done, ErrorCode, api, check_leader_epoch, code, find_partition, wire_offset};
use crate::dispatch::Watch;
use crate::limits::{FETCH_BYTES_HELD_MAX, FETCH_BYTES_MAX, FETCH_READS_IN_FLIGHT_MAX};
use crate::net::{Piece, Response, Stored};

/// Stands for a watch where a read would give its partition's place.
const WATCH: u32 = u32::MAX;
/// Stands for a question where partitions stand.
const EXTENTS: u32 = u32::MAX - 1;
/// What an unknown offset is on the wire.
const NO_OFFSET: i64 = -1;

/// A request to read records.
#[derive(Debug)]
pub struct Fetch {
    max_wait: Nanos,
    min_bytes: u64,
    max_bytes: u64,
    read_committed: bool,
    session_id: i32,
    topics: Topics<Part>,
    phase: Phase,
    /// Bytes found, and bytes that reads under way may still find.
    found: u64,
    reserved: u64,
    /// Of both, those that are in memory.
    held: usize,
    /// The place of the next partition to read, and how many reads are under way.
    next: usize,
    reading: usize,
    /// Whether a partition got less than it has because the budget was used up.
    cut: bool,
    /// Shards that have not said where the partitions stand that were passed over.
    asked: usize,
}

#[derive(Debug)]
enum Phase {
    /// Reading; the answer may be deferred if there is too little.
    First,
    /// Waiting for news until the deadline.
    Waiting { deadline: Nanos, watches: Vec<Watch> },
    /// Reading; whatever is found is the answer.
    Last,
}

/// One partition's read.
#[derive(Debug)]
struct Part {
    index: i32,
    leader_epoch: i32,
    offset: i64,
    max_bytes: u32,
    /// Which partition it is; an error code if it cannot be read.
    partition: Result<PartitionId, ErrorCode>,
    /// What it may have of the budget: more is sent only if nothing else is.
    reserved: u64,
    high_watermark: i64,
    log_start: i64,
    chunk: Chunk,
}

impl Part {
    fn found(&self) -> usize {
        self.chunk.range.map_or(0, |range| range.len as usize)
    }

    fn held(&self) -> usize {
        self.chunk.bytes.iter().map(|slice| slice.len()).sum()
    }
}

impl Fetch {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<Fetch, Malformed> {
        let _replica_id = reader.i32()?;
        let max_wait_ms = reader.i32()?;
        let min_bytes = reader.i32()?;
        let max_bytes = if version >= 3 { reader.i32()? } else { i32::MAX };
        let read_committed = version >= 4 && reader.i8()? == 1;
        let mut session_id = 0;
        if version >= 7 {
            session_id = reader.i32()?;
            let _session_epoch = reader.i32()?;
        }
        let mut topics = Topics::new();
        for _ in 0..reader.count(2)? {
            topics.push_topic(reader.string()?)?;
            for _ in 0..reader.count(16)? {
                let index = reader.i32()?;
                let leader_epoch = if version >= 9 { reader.i32()? } else { -1 };
                let offset = reader.i64()?;
                if version >= 12 {
                    let _last_fetched_epoch = reader.i32()?;
                }
                if version >= 5 {
                    let _log_start_offset = reader.i64()?;
                }
                let max_bytes = u32::try_from(reader.i32()?).unwrap_or(0);
                reader.tags()?;
                topics.push_partition(Part {
                    index,
                    leader_epoch,
                    offset,
                    max_bytes,
                    partition: Err(ErrorCode::UnknownTopicOrPartition),
                    reserved: 0,
                    high_watermark: NO_OFFSET,
                    log_start: NO_OFFSET,
                    chunk: Chunk::default(),
                })?;
            }
            reader.tags()?;
        }
        skip_forgotten(&mut reader, version)?;
        let bytes = |number| u64::try_from(number).unwrap_or(0);
        Ok(Fetch {
            max_wait: Nanos::from_millis(bytes(max_wait_ms)),
            min_bytes: bytes(min_bytes),
            max_bytes: bytes(max_bytes).min(FETCH_BYTES_MAX),
            read_committed,
            session_id,
            topics,
            phase: Phase::First,
            found: 0,
            reserved: 0,
            held: 0,
            next: 0,
            reading: 0,
            cut: false,
            asked: 0,
        })
    }

    /// Until when it waits for news, if it does.
    pub fn deadline(&self) -> Option<Nanos> {
        match self.phase {
            Phase::Waiting { deadline, .. } => Some(deadline),
            Phase::First | Phase::Last => None,
        }
    }

    /// Starts to read.
    pub fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        if self.session_id != 0 {
            return Some(answer_error(context, ErrorCode::FetchSessionIdNotFound));
        }
        let metadata = context.engine.metadata();
        let served = api::is_served(context);
        self.topics.for_each_mut(|topic, _, part| {
            part.partition = if served {
                find_partition(&metadata, topic, part.index).and_then(|partition| {
                    check_leader_epoch(&metadata, part.leader_epoch)?;
                    u64::try_from(part.offset).map_err(|_| ErrorCode::OffsetOutOfRange)?;
                    Ok(partition)
                })
            } else {
                Err(ErrorCode::UnsupportedVersion)
            };
        });
        self.read_on(context)
    }

    /// Reads as many partitions at once as the budget is sure to have room for.
    fn read_on(&mut self, context: &mut Context<'_>) -> Option<Done> {
        while let Some(part) = self.topics.partitions_mut().get_mut(self.next) {
            let Ok(partition) = part.partition else {
                self.next += 1;
                continue;
            };
            let left = self.max_bytes.saturating_sub(self.found + self.reserved);
            let is_first = self.found == 0 && self.reading == 0;
            if !is_first && (left == 0 || self.held >= FETCH_BYTES_HELD_MAX) {
                if self.reading > 0 {
                    return None;
                }
                self.cut = true;
                break;
            }
            if self.reading >= FETCH_READS_IN_FLIGHT_MAX {
                return None;
            }
            let wanted = u64::from(part.max_bytes).min(left);
            match context.engine.read(
                self.next as u32,
                partition,
                Offset(part.offset as u64),
                u32::try_from(wanted).unwrap_or(u32::MAX),
            ) {
                Ok(()) => {
                    part.reserved = wanted;
                    self.reserved += wanted;
                    self.held += held_of(wanted);
                    self.reading += 1;
                }
                Err(refusal) => part.partition = Err(code(&refusal)),
            }
            self.next += 1;
        }
        if self.reading > 0 {
            return None;
        }
        self.drop_excess();
        if self.cut {
            let missed = |part: &Part| part.partition.ok().filter(|_| part.high_watermark == NO_OFFSET);
            let missed: Vec<_> = self.topics.partitions().iter().filter_map(missed).collect();
            self.asked = context.engine.extents(EXTENTS, &missed);
            if self.asked > 0 {
                return None;
            }
        }
        self.read_all(context)
    }

    /// Lets go of batches that are larger than their partitions' shares, but for the first of the answer.
    fn drop_excess(&mut self) {
        let mut found = 0;
        for part in self.topics.partitions_mut() {
            if part.found() as u64 > part.reserved && found > 0 {
                part.chunk = Chunk::default();
                self.cut = true;
            }
            found += part.found() as u64;
        }
        self.found = found;
    }

    /// Takes a shard's word where partitions stand that were passed over. One that is gone meanwhile is not told of.
    fn on_extents(&mut self, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        match reply {
            Reply::Extents(extents) => {
                let extents: BTreeMap<_, _> =
                    extents.into_iter().map(|extent| (extent.partition, extent)).collect();
                for part in self.topics.partitions_mut() {
                    if let Some(extent) = part.partition.ok().and_then(|partition| extents.get(&partition))
                        && part.high_watermark == NO_OFFSET
                    {
                        part.high_watermark = wire_offset(extent.high_watermark);
                        part.log_start = wire_offset(extent.log_start);
                    }
                }
            }
            // They are told of the next time.
            Reply::Refused(_) => {}
            other => panic!("extents were answered {other:?}"),
        }
        self.asked -= 1;
        if self.asked > 0 { None } else { self.read_all(context) }
    }

    /// Takes a shard's answer: to a read, or to a watch.
    pub fn on_reply(&mut self, place: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        if place == WATCH {
            return self.on_watch(&reply, context);
        }
        if place == EXTENTS {
            return self.on_extents(reply, context);
        }
        let part = self.topics.partition_mut(place);
        self.reading -= 1;
        self.reserved -= part.reserved;
        self.held -= held_of(part.reserved);
        match reply {
            Reply::Read(read) => {
                part.high_watermark = wire_offset(read.high_watermark);
                part.log_start = wire_offset(read.log_start);
                part.chunk = read.chunk;
                self.found += part.found() as u64;
                self.held += part.held();
            }
            Reply::Refused(refusal) => part.partition = Err(code(&refusal)),
            other => panic!("a read was answered {other:?}"),
        }
        self.read_on(context)
    }

    /// Everything has been read: answers, or waits for more.
    fn read_all(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let wanted = self.min_bytes.min(self.max_bytes);
        let enough = self.found >= wanted
            || self.cut
            || self.max_wait == Nanos::ZERO
            || matches!(self.phase, Phase::Last)
            || self.topics.partitions().is_empty()
            || self.topics.partitions().iter().any(|part| part.partition.is_err());
        if enough {
            return Some(self.answer(context));
        }
        let missing = u32::try_from(wanted - self.found).unwrap_or(u32::MAX);
        let seen = self.topics.partitions().iter().filter_map(|part| {
            let seen = u64::try_from(part.high_watermark).ok()?;
            Some((part.partition.ok()?, Offset(seen)))
        });
        let watches = context.engine.watch(WATCH, seen, missing);
        self.forget();
        self.phase = Phase::Waiting { deadline: context.engine.now() + self.max_wait, watches };
        None
    }

    /// Lets go of what was read, so that no buffer is pinned while the request waits.
    fn forget(&mut self) {
        for part in self.topics.partitions_mut() {
            part.chunk = Chunk::default();
            (part.high_watermark, part.log_start) = (NO_OFFSET, NO_OFFSET);
        }
        (self.found, self.held, self.next) = (0, 0, 0);
    }

    /// Keeps the plans of what was read, and no memory.
    pub fn let_go(&mut self) {
        for part in self.topics.partitions_mut() {
            self.held -= part.held();
            part.chunk.bytes = Vec::new();
        }
    }

    fn on_watch(&mut self, reply: &Reply, context: &mut Context<'_>) -> Option<Done> {
        match reply {
            Reply::Woken(id) => {
                let Phase::Waiting { watches, .. } = &mut self.phase else { return None };
                let before = watches.len();
                watches.retain(|watch| watch.id != *id);
                if watches.len() == before { None } else { self.read_again(context) }
            }
            // An ended watch, or one that could not be had: the deadline still comes.
            Reply::Done | Reply::Refused(_) => None,
            other => panic!("a watch was answered {other:?}"),
        }
    }

    /// Enough time has passed.
    pub fn on_deadline(&mut self, context: &mut Context<'_>) -> Option<Done> {
        match self.phase {
            Phase::Waiting { .. } => self.read_again(context),
            Phase::First | Phase::Last => None,
        }
    }

    fn read_again(&mut self, context: &mut Context<'_>) -> Option<Done> {
        self.cancel(context);
        self.phase = Phase::Last;
        self.read_on(context)
    }

    /// Ends the watches that are registered.
    pub fn cancel(&mut self, context: &mut Context<'_>) {
        if let Phase::Waiting { watches, .. } = &mut self.phase {
            for watch in watches.drain(..) {
                context.engine.unwatch(WATCH, watch);
            }
        }
    }

    /// The response: small pieces of its own around the stored bytes, which are sent from where they lie.
    fn answer(&mut self, context: &Context<'_>) -> Done {
        let version = context.header.version;
        let parts = self.topics.partitions();
        let stored = parts.iter().map(Part::found).sum();
        let mut writer = context.response(self.topics.names_len() + 64 * parts.len());
        write_head(&mut writer, version, ErrorCode::None);
        let mut cuts = Vec::with_capacity(parts.len());
        self.topics.write(&mut writer, |writer, part| {
            let error = part.partition.err().unwrap_or_default();
            writer.i32(part.index);
            writer.error(error);
            writer.i64(part.high_watermark);
            if version >= 4 {
                // Without transactions the last stable offset is the high watermark, and none has been aborted.
                writer.i64(part.high_watermark);
            }
            if version >= 5 {
                writer.i64(part.log_start);
            }
            if version >= 4 {
                writer.nullable_count(self.read_committed.then_some(0));
            }
            if version >= 11 {
                writer.i32(-1);
            }
            writer.count(part.found());
            cuts.push(writer.len());
        });
        writer.tags();
        let errors = writer.errors();
        let head = writer.finish_with(stored);
        let mut pieces = Vec::with_capacity(2 * cuts.len() + 1);
        let mut start = 0;
        for (part, cut) in self.topics.partitions_mut().iter_mut().zip(cuts) {
            if let Some(stored) = Stored::new(std::mem::take(&mut part.chunk)) {
                pieces.push(Piece::Bytes(head.slice(start..cut)));
                pieces.push(Piece::Stored(stored));
                start = cut;
            }
        }
        pieces.push(Piece::Bytes(head.slice(start..head.len())));
        Done::Answer(Response::pieces(pieces), errors)
    }
}

/// Of the bytes that a read may find, those that come into memory with its answer.
fn held_of(wanted: u64) -> usize {
    wanted.min(READ_CHUNK_BYTES as u64) as usize
}

/// Forgotten topics belong to sessions, and the rack to replicas: neither exists here.
fn skip_forgotten(reader: &mut Reader<'_>, version: i16) -> Result<(), Malformed> {
    if version >= 7 {
        for _ in 0..reader.count(2)? {
            reader.string()?;
            for _ in 0..reader.count(4)? {
                reader.i32()?;
            }
            reader.tags()?;
        }
    }
    if version >= 11 {
        reader.string()?;
    }
    reader.tags()
}

fn write_head(writer: &mut Writer, version: i16, error: ErrorCode) {
    if version >= 1 {
        writer.i32(0);
    }
    if version >= 7 {
        writer.error(error);
        // No session: the next request names all its partitions again.
        writer.i32(0);
    }
}

fn answer_error(context: &Context<'_>, error: ErrorCode) -> Done {
    let mut writer = context.response(16);
    write_head(&mut writer, context.header.version, error);
    writer.count(0);
    writer.tags();
    Done::answer(writer)
}

/// The answer to a version that is not known yet; its form has not changed from version 12 to 18.
pub fn answer_too_new(context: &Context<'_>) -> Done {
    answer_error(context, ErrorCode::UnsupportedVersion)
}
