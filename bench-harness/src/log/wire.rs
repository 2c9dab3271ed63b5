//! What the load generator says beyond `kafka::wire`: many partitions at a time, and what it needs to know of a topic.

use crate::kafka::wire::{Answer, check, frame};
use crate::measure::Problem;

/// How long the broker may take.
const TIMEOUT_MS: i32 = 30_000;

/// `Metadata` of one topic, which is not made by asking.
pub fn metadata(topic: &str) -> Vec<u8> {
    frame(3, 4, |writer| {
        writer.i32(1).string(topic).i8(0);
    })
}

/// What is known of a topic.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// Its error code.
    pub error: i16,
    /// The node that leads each partition, partition by partition; -1 if none does.
    pub leaders: Vec<i32>,
}

/// Reads the answer to [`metadata`].
pub fn described(answer: &mut Answer) -> Result<Topic, Problem> {
    answer.i32()?;
    for _ in 0..answer.i32()? {
        answer.i32()?;
        answer.string()?;
        answer.i32()?;
        answer.string()?;
    }
    answer.string()?;
    answer.i32()?;
    let mut topic = Topic::default();
    for _ in 0..answer.i32()? {
        topic.error = answer.i16()?;
        answer.string()?;
        answer.take(1)?;
        let mut leaders = Vec::new();
        for _ in 0..answer.i32()? {
            let (error, partition, leader) = (answer.i16()?, answer.i32()?, answer.i32()?);
            leaders.push((partition, if error == 0 { leader } else { -1 }));
            for _ in 0..2 {
                let replicas = answer.len()?;
                answer.take(replicas * 4)?;
            }
        }
        leaders.sort_unstable();
        topic.leaders = leaders.into_iter().map(|(_, leader)| leader).collect();
    }
    Ok(topic)
}

/// `CreateTopics` of one topic with settings.
pub fn create(topic: &str, partitions: u32, settings: &[(String, String)]) -> Vec<u8> {
    frame(19, 4, |writer| {
        writer.i32(1).string(topic).i32(partitions as i32).i16(1).i32(0).i32(settings.len() as i32);
        for (name, value) in settings {
            writer.string(name).string(value);
        }
        writer.i32(TIMEOUT_MS).i8(0);
    })
}

/// `DeleteTopics` of one topic.
pub fn delete(topic: &str) -> Vec<u8> {
    frame(20, 3, |writer| {
        writer.i32(1).string(topic).i32(TIMEOUT_MS);
    })
}

/// The error code of the only topic that was deleted.
pub fn deleted(answer: &mut Answer) -> Result<i16, Problem> {
    answer.i32()?;
    answer.i32()?;
    answer.string()?;
    answer.i16()
}

/// A moment that `ListOffsets` understands: the end of the log.
pub const LATEST: i64 = -1;

/// `ListOffsets` of every partition.
pub fn list_offsets(topic: &str, partitions: u32, at: i64) -> Vec<u8> {
    frame(2, 1, |writer| {
        writer.i32(-1).i32(1).string(topic).i32(partitions as i32);
        for partition in 0..partitions {
            writer.i32(partition as i32).i64(at);
        }
    })
}

/// Reads the answer to [`list_offsets`]: for each partition its error code and the offset.
pub fn listed(answer: &mut Answer) -> Result<Vec<(i16, i64)>, Problem> {
    let mut offsets = Vec::new();
    for _ in 0..answer.i32()? {
        answer.string()?;
        for _ in 0..answer.i32()? {
            let (partition, error, _, offset) = (answer.i32()?, answer.i16()?, answer.i64()?, answer.i64()?);
            offsets.push((partition, error, offset));
        }
    }
    offsets.sort_unstable();
    Ok(offsets.into_iter().map(|(_, error, offset)| (error, offset)).collect())
}

/// `Produce` of batches, each to its partition.
pub fn produce<'a>(
    topic: &str,
    acks: i16,
    batches: impl ExactSizeIterator<Item = (u32, &'a [u8])>,
) -> Vec<u8> {
    frame(0, 7, |writer| {
        writer.null_string().i16(acks).i32(TIMEOUT_MS);
        writer.i32(1).string(topic).i32(batches.len() as i32);
        for (partition, batch) in batches {
            writer.i32(partition as i32).bytes(batch);
        }
    })
}

/// Checks the answer to [`produce`]: any partition's error is one.
pub fn produced(answer: &mut Answer) -> Result<(), Problem> {
    for _ in 0..answer.i32()? {
        answer.string()?;
        for _ in 0..answer.i32()? {
            let (partition, error) = (answer.i32()?, answer.i16()?);
            check(error).map_err(|problem| format!("producing to partition {partition}: {problem}"))?;
            answer.take(8 + 8 + 8)?;
        }
    }
    Ok(())
}

/// What a fetch may bring, and how long it may wait.
#[derive(Clone, Copy, Debug)]
pub struct FetchSize {
    /// Milliseconds.
    pub max_wait_ms: i32,
    /// Bytes that it waits for.
    pub min_bytes: i32,
    /// Bytes over all partitions.
    pub max_bytes: i32,
    /// Bytes of one partition.
    pub partition_max_bytes: i32,
}

/// `Fetch` of partitions from their offsets on, without a session.
pub fn fetch(topic: &str, size: FetchSize, from: &[(u32, i64)]) -> Vec<u8> {
    frame(1, 11, |writer| {
        writer.i32(-1).i32(size.max_wait_ms).i32(size.min_bytes).i32(size.max_bytes).i8(0).i32(0).i32(-1);
        writer.i32(1).string(topic).i32(from.len() as i32);
        for &(partition, offset) in from {
            writer.i32(partition as i32).i32(-1).i64(offset).i64(-1).i32(size.partition_max_bytes);
        }
        writer.i32(0).string("");
    })
}

/// A partition's part of a fetch.
pub struct Fetched<'a> {
    /// Which.
    pub partition: u32,
    /// Its error code.
    pub error: i16,
    /// Record batches; the last one may be cut off.
    pub bytes: &'a [u8],
}

/// Reads the answer to [`fetch`], and hands on each partition's part.
pub fn fetched<'a>(
    answer: &mut Answer<'a>,
    mut each: impl FnMut(Fetched<'a>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    answer.i32()?;
    check(answer.i16()?)?;
    answer.i32()?;
    for _ in 0..answer.i32()? {
        answer.string()?;
        for _ in 0..answer.i32()? {
            let (partition, error) = (answer.i32()?, answer.i16()?);
            answer.take(8 + 8 + 8)?;
            let aborted = answer.len()?;
            answer.take(aborted * 16 + 4)?;
            let len = answer.len()?;
            each(Fetched { partition: partition as u32, error, bytes: answer.take(len)? })?;
        }
    }
    Ok(())
}
