//! As much of Kafka's protocol as clients need to load something: each API in the versions before the flexible ones.

use std::net::SocketAddr;
use std::sync::Arc;

use millstream_engine::buffer::Slice;

use super::store::{Store, Topic};
use crate::kafka::wire::{Answer, Writer};
use crate::measure::Problem;

/// Every API: its key, and the first and the last version.
const APIS: &[(i16, i16, i16)] =
    &[(PRODUCE, 3, 7), (FETCH, 4, 11), (2, 1, 1), (3, 4, 4), (18, 0, 2), (19, 2, 4), (20, 1, 3)];
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const UNSUPPORTED_VERSION: i16 = 35;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const CORRUPT_MESSAGE: i16 = 2;

/// What a request comes to.
pub enum Outcome {
    /// An answer.
    Answer(Vec<Slice>),
    /// There is no answer.
    Silence,
    /// There is nothing to fetch yet.
    Wait(Fetch),
}

/// A request, and what it brought about.
pub struct Done {
    /// What it comes to.
    pub outcome: Outcome,
    /// Whether somebody may fetch more than before.
    pub appended: bool,
}

/// A fetch, which may be answered later.
pub struct Fetch {
    correlation: i32,
    version: i16,
    /// How long it may wait.
    pub max_wait_ms: i32,
    min_bytes: usize,
    max_bytes: usize,
    topics: Vec<FetchTopic>,
}

struct FetchTopic {
    name: String,
    topic: Option<Arc<Topic>>,
    /// Partition, offset, bytes.
    partitions: Vec<(i32, i64, i32)>,
}

/// Takes a request. An error is one that cannot be answered.
pub fn request(frame: &[u8], store: &Store, local: SocketAddr) -> Result<Done, Problem> {
    let (key, version) = match *frame {
        [a, b, c, d, ..] => (i16::from_be_bytes([a, b]), i16::from_be_bytes([c, d])),
        _ => return Err("a request is too short".into()),
    };
    let correlation = i32::from_be_bytes(
        *frame.get(4..).and_then(|rest| rest.first_chunk()).ok_or("a request is too short")?,
    );
    let supported = APIS.iter().any(|&(api, first, last)| api == key && (first..=last).contains(&version));
    if key == 18 {
        return Ok(answered(api_versions(correlation, if supported { version } else { 0 }, supported)));
    }
    if !supported {
        return Err(format!("API {key} in version {version} is not served here").into());
    }
    // What `Answer` skips is what it takes for the correlation id: here the key and the version.
    let mut reader = Answer::of(frame)?;
    reader.i32()?;
    reader.string()?;
    match key {
        PRODUCE => produce(&mut reader, correlation, version, store),
        FETCH => {
            let fetch = read_fetch(&mut reader, correlation, version, store)?;
            let outcome = fetch.answer(false).map_or_else(|| Outcome::Wait(fetch), Outcome::Answer);
            Ok(Done { outcome, appended: false })
        }
        2 => list_offsets(&mut reader, correlation, store).map(answered),
        3 => metadata(&mut reader, correlation, store, local).map(answered),
        19 => create(&mut reader, correlation, store).map(answered),
        _ => delete(&mut reader, correlation, store).map(answered),
    }
}

fn answered(bytes: Vec<u8>) -> Done {
    Done { outcome: Outcome::Answer(vec![Slice::from(bytes)]), appended: false }
}

/// An answer, whose length is known when it is written.
fn answer(correlation: i32) -> Writer {
    let mut writer = Writer(vec![0; 4]);
    writer.i32(correlation);
    writer
}

fn finish(writer: Writer, behind: usize) -> Vec<u8> {
    let mut bytes = writer.0;
    let len = (bytes.len() - 4 + behind) as u32;
    bytes[..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

fn api_versions(correlation: i32, version: i16, supported: bool) -> Vec<u8> {
    let mut writer = answer(correlation);
    writer.i16(if supported { 0 } else { UNSUPPORTED_VERSION }).i32(APIS.len() as i32);
    for &(key, first, last) in APIS {
        writer.i16(key).i16(first).i16(last);
    }
    if version >= 1 {
        writer.i32(0);
    }
    finish(writer, 0)
}

fn produce(reader: &mut Answer, correlation: i32, version: i16, store: &Store) -> Result<Done, Problem> {
    reader.string()?;
    let acks = reader.i16()?;
    reader.i32()?;
    let mut writer = answer(correlation);
    let topics = reader.i32()?;
    writer.i32(topics);
    for _ in 0..topics {
        let name = reader.string()?;
        let topic = store.topic(name);
        let partitions = reader.i32()?;
        writer.string(name).i32(partitions);
        for _ in 0..partitions {
            let partition = reader.i32()?;
            let len = reader.len()?;
            let batch = reader.take(len)?;
            let (error, offset) = match topic.as_ref().map(|topic| topic.append(partition as u32, batch)) {
                Some(Some(offset)) => (0, offset as i64),
                Some(None) => (CORRUPT_MESSAGE, -1),
                None => (UNKNOWN_TOPIC_OR_PARTITION, -1),
            };
            writer.i32(partition).i16(error).i64(offset).i64(-1);
            if version >= 5 {
                writer.i64(0);
            }
        }
    }
    writer.i32(0);
    let outcome = match acks {
        0 => Outcome::Silence,
        _ => Outcome::Answer(vec![Slice::from(finish(writer, 0))]),
    };
    Ok(Done { outcome, appended: true })
}

fn read_fetch(reader: &mut Answer, correlation: i32, version: i16, store: &Store) -> Result<Fetch, Problem> {
    reader.i32()?;
    let (max_wait_ms, min_bytes, max_bytes) = (reader.i32()?, reader.i32()?, reader.i32()?);
    reader.take(1)?;
    if version >= 7 {
        reader.take(8)?;
    }
    let mut topics = Vec::new();
    for _ in 0..reader.i32()? {
        let name = reader.string()?.to_owned();
        let mut partitions = Vec::new();
        for _ in 0..reader.i32()? {
            let partition = reader.i32()?;
            if version >= 9 {
                reader.i32()?;
            }
            let offset = reader.i64()?;
            if version >= 5 {
                reader.i64()?;
            }
            partitions.push((partition, offset, reader.i32()?));
        }
        topics.push(FetchTopic { topic: store.topic(&name), name, partitions });
    }
    let bytes = |bytes: i32| bytes.max(0) as usize;
    Ok(Fetch {
        correlation,
        version,
        max_wait_ms,
        min_bytes: bytes(min_bytes),
        max_bytes: bytes(max_bytes),
        topics,
    })
}

impl Fetch {
    /// The answer; none if there is not enough and that matters.
    pub fn answer(&self, at_any_size: bool) -> Option<Vec<Slice>> {
        let mut slices = Vec::new();
        let mut writer = answer(self.correlation);
        writer.i32(0);
        if self.version >= 7 {
            writer.i16(0).i32(0);
        }
        writer.i32(self.topics.len() as i32);
        let (mut bytes, mut behind) = (0, 0);
        let mut failed = false;
        for FetchTopic { name, topic, partitions } in &self.topics {
            writer.string(name).i32(partitions.len() as i32);
            for &(partition, offset, max_bytes) in partitions {
                let mut batches = Vec::new();
                let room = self.max_bytes.saturating_sub(bytes).min(max_bytes.max(0) as usize);
                let read = topic.as_ref().and_then(|topic| {
                    if room == 0 {
                        return topic.end(partition as u32).map(|end| (0, end));
                    }
                    topic.read(partition as u32, offset.max(0) as u64, room, &mut batches)
                });
                failed |= read.is_none();
                let error = if read.is_none() { UNKNOWN_TOPIC_OR_PARTITION } else { 0 };
                let (len, end) = read.unwrap_or_default();
                bytes += len;
                writer.i32(partition).i16(error).i64(end as i64).i64(end as i64);
                if self.version >= 5 {
                    writer.i64(0);
                }
                writer.i32(0);
                if self.version >= 11 {
                    writer.i32(-1);
                }
                writer.i32(len as i32);
                behind += writer.0.len() + len;
                slices.push(Slice::from(std::mem::take(&mut writer.0)));
                slices.append(&mut batches);
            }
        }
        if bytes < self.min_bytes && !at_any_size && !failed {
            return None;
        }
        if !writer.0.is_empty() {
            behind += writer.0.len();
            slices.push(Slice::from(writer.0));
        }
        // The first piece holds the length of everything.
        let mut first = slices.first().map(|slice| slice.to_vec()).unwrap_or_default();
        first[..4].copy_from_slice(&(behind as u32 - 4).to_be_bytes());
        let rest = slices.into_iter().skip(1);
        Some(std::iter::once(Slice::from(first)).chain(rest).collect())
    }
}

fn list_offsets(reader: &mut Answer, correlation: i32, store: &Store) -> Result<Vec<u8>, Problem> {
    reader.i32()?;
    let mut writer = answer(correlation);
    let topics = reader.i32()?;
    writer.i32(topics);
    for _ in 0..topics {
        let name = reader.string()?;
        let topic = store.topic(name);
        let partitions = reader.i32()?;
        writer.string(name).i32(partitions);
        for _ in 0..partitions {
            let (partition, at) = (reader.i32()?, reader.i64()?);
            let end = topic.as_ref().and_then(|topic| topic.end(partition as u32));
            let offset = if at == -2 { end.map(|_| 0) } else { end };
            let error = if end.is_none() { UNKNOWN_TOPIC_OR_PARTITION } else { 0 };
            writer.i32(partition).i16(error).i64(-1).i64(offset.map_or(-1, |offset| offset as i64));
        }
    }
    Ok(finish(writer, 0))
}

fn metadata(
    reader: &mut Answer,
    correlation: i32,
    store: &Store,
    local: SocketAddr,
) -> Result<Vec<u8>, Problem> {
    let count = reader.i32()?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(reader.string()?.to_owned());
    }
    let create = reader.take(1)? != [0];
    if count < 0 {
        names = store.names();
    }
    let mut writer = answer(correlation);
    writer.i32(0).i32(1).i32(0).string(&local.ip().to_string()).i32(i32::from(local.port())).null_string();
    writer.string("millbench-null").i32(0).i32(names.len() as i32);
    for name in names {
        if create && store.topic(&name).is_none() {
            store.create(&name, 1);
        }
        let partitions = store.topic(&name).map(|topic| topic.partitions());
        let error = if partitions.is_none() { UNKNOWN_TOPIC_OR_PARTITION } else { 0 };
        writer.i16(error).string(&name).i8(0).i32(partitions.unwrap_or_default() as i32);
        for partition in 0..partitions.unwrap_or_default() {
            writer.i16(0).i32(partition as i32).i32(0).i32(1).i32(0).i32(1).i32(0);
        }
    }
    Ok(finish(writer, 0))
}

fn create(reader: &mut Answer, correlation: i32, store: &Store) -> Result<Vec<u8>, Problem> {
    let mut writer = answer(correlation);
    let topics = reader.i32()?;
    writer.i32(0).i32(topics);
    for _ in 0..topics {
        let name = reader.string()?;
        let partitions = reader.i32()?;
        reader.i16()?;
        for _ in 0..reader.i32()? {
            reader.i32()?;
            let replicas = reader.len()?;
            reader.take(replicas * 4)?;
        }
        for _ in 0..reader.i32()? {
            reader.string()?;
            reader.string()?;
        }
        store.create(name, partitions.max(1) as u32);
        writer.string(name).i16(0).null_string();
    }
    Ok(finish(writer, 0))
}

fn delete(reader: &mut Answer, correlation: i32, store: &Store) -> Result<Vec<u8>, Problem> {
    let mut writer = answer(correlation);
    let topics = reader.i32()?;
    writer.i32(0).i32(topics);
    for _ in 0..topics {
        let name = reader.string()?;
        let error = if store.delete(name) { 0 } else { UNKNOWN_TOPIC_OR_PARTITION };
        writer.string(name).i16(error);
    }
    Ok(finish(writer, 0))
}
