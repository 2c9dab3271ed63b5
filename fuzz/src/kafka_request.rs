//! Requests of every API and version that is advertised, from any bytes, beside what `kafka-protocol` makes of them.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, FetchRequest, ListOffsetsRequest, ProduceRequest, RequestKind};
use millstream::config::ServerConfig;
use millstream::dispatch::{Dispatch, Pending};
use millstream::kafka::{APIS, Api, Context, Work, read_request};
use millstream::metrics::BrokerMetrics;
use millstream_engine::buffer::Slice;
use millstream_engine::config::TopicConfig;
use millstream_engine::format::batch::{BatchHeader, magic};
use millstream_engine::io::ConnId;
use millstream_engine::metrics::Meter;
use millstream_engine::reactor::app::{Outbox, Output};
use millstream_engine::shard::metadata::{Metadata, Topic};
use millstream_engine::shard::request::{Request, Target};
use millstream_engine::types::{Durability, PartitionId, ShardId, Slot, TopicId};

use crate::alloc::taken;

/// Partitions of every topic here.
const PARTITIONS: i32 = 64;
/// What we may refuse although it can be decoded: limits, and counts for which nothing is reserved.
const LIMITS: [&str; 5] = [
    "more elements than the message has room for",
    "too many topics",
    "too many partitions",
    "longer than 32767 bytes",
    "too many",
];
/// Elements that the oracle may reserve room for on the word of a count alone.
const RESERVED_MAX: i64 = 1 << 16;
/// Bytes that may be taken for a request: so many for each of its own, and so many in any case.
const TAKEN_PER_BYTE: usize = 256;
const TAKEN_AT_LEAST: usize = 4096;

/// The first two bytes are an API's key and a version; the rest is the body. Decoding never panics and takes memory by the bytes
/// that came. What the oracle accepts is accepted or past a limit; and of what both accept, the engine is asked for what
/// the oracle says.
pub fn run(bytes: &[u8]) {
    let Some(([key, version], body)) = bytes.split_first_chunk::<2>() else { return };
    let named = APIS.iter().find(|api| api.key == i16::from(*key));
    let Some(api) = named.or_else(|| APIS.get(usize::from(*key) % APIS.len())) else { return };
    decode(api, i16::from(*version) % (api.versions.end() + 1), body);
}

/// Decodes a body by both.
pub fn decode(api: &Api, version: i16, body: &[u8]) {
    let mut frame = Vec::new();
    frame.extend(api.key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend([0, 0, 0, 7, 0xff, 0xff]);
    frame.extend([0].iter().filter(|_| api.is_flexible(version)));
    frame.extend_from_slice(body);
    let frame = Slice::from(frame);
    let (ours, bytes) = taken(|| read_request(&frame));
    let most = TAKEN_AT_LEAST + TAKEN_PER_BYTE * frame.len();
    assert!(bytes <= most, "{bytes} bytes were taken for a request of {}", frame.len());
    let work = match ours {
        Ok((header, work)) => {
            assert_eq!((header.api_key, header.version, header.correlation_id), (api.key, version, 7));
            work
        }
        Err(reason) => {
            if !LIMITS.iter().any(|limit| reason.contains(limit)) && is_harmless(body) {
                let accepted = oracle(api, version, body);
                assert!(accepted.is_none(), "{reason}, but the oracle reads {accepted:?}");
            }
            return;
        }
    };
    // What we have read has no count that is past the message's end, up to where the oracle reads on.
    let Some(oracle) = oracle(api, version, body) else { return };
    if version < api.served_from {
        return;
    }
    match oracle {
        RequestKind::Produce(request) => compare_produce(version, work, &frame, &request),
        RequestKind::Fetch(request) => compare_fetch(version, work, &frame, &request),
        RequestKind::ListOffsets(request) => compare_list(version, work, &frame, &request),
        _ => {}
    }
}

fn oracle(api: &Api, version: i16, body: &[u8]) -> Option<RequestKind> {
    let key = ApiKey::try_from(api.key).ok()?;
    RequestKind::decode(key, &mut Bytes::copy_from_slice(body), version).ok()
}

/// Whether no count that could be read anywhere in a body has the oracle reserve memory that would end the process: it
/// believes counts from the wire.
fn is_harmless(body: &[u8]) -> bool {
    let small = |count: i64| count <= RESERVED_MAX;
    let plain = body.windows(4).all(|window| {
        let bytes: [u8; 4] = window.try_into().expect("windows are of four bytes");
        small(i64::from(i32::from_be_bytes(bytes)))
    });
    // Three bytes of a varint are at most 2^21; a fourth makes it more than is harmless, as do most with three.
    let compact = body.windows(3).all(|window| window[..2].iter().any(|byte| *byte < 0x80) || window[2] < 4);
    plain && compact
}

/// The node's metadata if every topic of a request were there.
fn metadata<'a>(names: impl Iterator<Item = &'a str>) -> Metadata {
    let mut metadata = Metadata { shards: 1, ..Metadata::default() };
    for name in names {
        if metadata.topic(name).is_some() {
            continue;
        }
        let number = metadata.topics.size() as u32 + 1;
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let slots = vec![Slot(0); PARTITIONS as usize];
        metadata.put(Topic::new(TopicId(id), name.to_owned(), Vec::new(), slots, &TopicConfig::default()));
    }
    metadata
}

/// What the engine is asked when a request starts.
fn asked(version: i16, mut work: Work, frame: &Slice, metadata: Metadata) -> Vec<Request> {
    let mut out = Outbox::new(ShardId(0), Arc::new(metadata));
    let mut pending = Pending::default();
    let config = ServerConfig::default();
    let (header, _) = read_request(frame).expect("it was read before");
    assert_eq!(header.version, version);
    let engine = Dispatch::new(&mut out, &mut pending, ConnId(1), 0);
    let local = SocketAddr::from(([127, 0, 0, 1], 9092));
    let meter = Meter::<BrokerMetrics>::default();
    let mut context = Context { config: &config, metrics: &meter, peer: local, local, header, engine };
    work.start(&mut context);
    let request = |output| match output {
        Output::Engine { request, .. } => Some(request),
        _ => None,
    };
    out.take().into_iter().filter_map(request).collect()
}

/// The partition that is meant, if it is there.
fn partition(metadata: &Metadata, name: &str, index: i32) -> Option<PartitionId> {
    let topic = metadata.topic(name)?;
    (0..PARTITIONS).contains(&index).then(|| PartitionId { topic: topic.id, index: index as u32 })
}

fn compare_produce(version: i16, work: Work, frame: &Slice, request: &ProduceRequest) {
    let metadata = metadata(request.topic_data.iter().map(|topic| topic.name.as_str()));
    let durability = match request.acks {
        0 => Some(Durability::Memory),
        1 => Some(Durability::Written),
        -1 => Some(Durability::Durable),
        _ => None,
    };
    let served = durability.filter(|_| request.transactional_id.is_none());
    let is_stored = |records: &[u8]| match BatchHeader::parse(records) {
        Ok(header) => !header.attributes.transactional() && (version >= 7 || header.attributes.codec() != 4),
        Err(_) => !records.is_empty() && !matches!(magic(records), Some(0 | 1)),
    };
    let mut expected = Vec::new();
    for topic in &request.topic_data {
        for data in &topic.partition_data {
            let records = data.records.clone().unwrap_or_default();
            if let Some(id) = partition(&metadata, topic.name.as_str(), data.index)
                && let Some(durability) = served
                && is_stored(&records)
            {
                expected.push((id, records.to_vec(), durability));
            }
        }
    }
    let asked: Vec<_> = asked(version, work, frame, metadata)
        .into_iter()
        .map(|request| match request {
            Request::Append { partition, batch, durability } => (partition, batch.to_vec(), durability),
            other => panic!("a produce request asks for {other:?}"),
        })
        .collect();
    assert!(asked == expected, "{asked:?} instead of {expected:?}");
}

fn compare_fetch(version: i16, work: Work, frame: &Slice, request: &FetchRequest) {
    let metadata = metadata(request.topics.iter().map(|topic| topic.topic.as_str()));
    let mut expected = Vec::new();
    for topic in &request.topics {
        for wanted in &topic.partitions {
            if let Some(id) = partition(&metadata, topic.topic.as_str(), wanted.partition)
                && wanted.current_leader_epoch <= 0
                && wanted.fetch_offset >= 0
            {
                expected.push((id, wanted.fetch_offset as u64));
            }
        }
    }
    if request.session_id != 0 {
        expected.clear();
    }
    let asked: Vec<_> = asked(version, work, frame, metadata)
        .into_iter()
        .map(|request| match request {
            Request::Read { partition, offset, .. } => (partition, offset.0),
            Request::Watch { .. } => panic!("nothing was read yet"),
            other => panic!("a fetch asks for {other:?}"),
        })
        .collect();
    // As many as the budget has room for, in order, and the first in any case.
    assert!(expected.starts_with(&asked), "{asked:?} instead of {expected:?}");
    assert_eq!(asked.is_empty(), expected.is_empty());
}

fn compare_list(version: i16, work: Work, frame: &Slice, request: &ListOffsetsRequest) {
    let metadata = metadata(request.topics.iter().map(|topic| topic.name.as_str()));
    let mut expected = Vec::new();
    for topic in &request.topics {
        for wanted in &topic.partitions {
            if let Some(id) = partition(&metadata, topic.name.as_str(), wanted.partition_index)
                && wanted.current_leader_epoch <= 0
                && wanted.timestamp >= 0
            {
                expected.push((id, wanted.timestamp));
            }
        }
    }
    let asked: Vec<_> = asked(version, work, frame, metadata)
        .into_iter()
        .filter_map(|request| match request {
            Request::Find { partition, target: Target::Timestamp(time) } => Some((partition, time.0)),
            Request::Find { .. } => None,
            other => panic!("a search asks for {other:?}"),
        })
        .collect();
    assert!(asked == expected, "{asked:?} instead of {expected:?}");
}
