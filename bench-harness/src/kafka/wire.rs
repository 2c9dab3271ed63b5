//! As much of Kafka's protocol as the benchmarks speak, each API in the last version before the flexible ones: requests
//! are encoded once and sent over and over, of an answer only what must be known is looked at.
//!
//! Every connection has its answers in order, so that the correlation id is always the same.

use crate::measure::Problem;

/// Kafka's error codes that a client lives with.
pub mod error {
    /// None.
    pub const NONE: i16 = 0;
    /// The coordinator is still reading what it has stored.
    pub const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    /// There is no coordinator yet.
    pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    /// The next generation is being formed: join again.
    pub const REBALANCE_IN_PROGRESS: i16 = 27;
    /// Join again under the id that comes with this.
    pub const MEMBER_ID_REQUIRED: i16 = 79;
}

/// How long a member may be silent, and a generation take to form: the defaults of Kafka's consumer.
const SESSION_TIMEOUT_MS: i32 = 45_000;
const REBALANCE_TIMEOUT_MS: i32 = 300_000;
/// How long the broker may take.
const TIMEOUT_MS: i32 = 30_000;
/// What a member says it wants, and what it is told to do: of the size that a consumer of one topic has.
const SUBSCRIPTION: [u8; 32] = [0; 32];
const ASSIGNMENT: [u8; 32] = [0; 32];

/// A request that is being written.
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// A 16-bit integer.
    pub fn i16(&mut self, value: i16) -> &mut Writer {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A 32-bit integer.
    pub fn i32(&mut self, value: i32) -> &mut Writer {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A 64-bit integer.
    pub fn i64(&mut self, value: i64) -> &mut Writer {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// An 8-bit integer.
    pub fn i8(&mut self, value: i8) -> &mut Writer {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A string.
    pub fn string(&mut self, text: &str) -> &mut Writer {
        self.i16(text.len() as i16);
        self.0.extend(text.as_bytes());
        self
    }

    /// No string.
    pub fn null_string(&mut self) -> &mut Writer {
        self.i16(-1)
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Writer {
        self.i32(bytes.len() as i32);
        self.0.extend(bytes);
        self
    }
}

/// A whole frame.
pub fn frame(key: i16, version: i16, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer(vec![0; 4]);
    writer.i16(key).i16(version).i32(0).string("millbench");
    body(&mut writer);
    let mut frame = writer.0;
    let len = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame
}

/// `ApiVersions`, with which every client begins.
pub fn api_versions() -> Vec<u8> {
    frame(18, 0, |_| {})
}

/// `CreateTopics` of one topic.
pub fn create_topic(name: &str, partitions: i32) -> Vec<u8> {
    frame(19, 4, |writer| {
        writer.i32(1).string(name).i32(partitions).i16(1).i32(0).i32(0).i32(TIMEOUT_MS).i8(0);
    })
}

/// `Produce` of one batch to partition 0, acks=all.
pub fn produce(topic: &str, batch: &[u8]) -> Vec<u8> {
    frame(0, 7, |writer| {
        writer.null_string().i16(-1).i32(TIMEOUT_MS);
        writer.i32(1).string(topic).i32(1).i32(0).bytes(batch);
    })
}

/// `Fetch` of partition 0 from `offset`, without sessions.
pub fn fetch(topic: &str, offset: i64, max_bytes: i32) -> Vec<u8> {
    frame(1, 11, |writer| {
        writer.i32(-1).i32(500).i32(1).i32(max_bytes).i8(0).i32(0).i32(-1);
        writer.i32(1).string(topic).i32(1).i32(0).i32(-1).i64(offset).i64(-1).i32(max_bytes);
        writer.i32(0).string("");
    })
}

/// `FindCoordinator` of a group.
pub fn find_coordinator(group: &str) -> Vec<u8> {
    frame(10, 2, |writer| {
        writer.string(group).i8(0);
    })
}

/// `JoinGroup`; the first time without an id.
pub fn join(group: &str, member: &str) -> Vec<u8> {
    frame(11, 5, |writer| {
        writer.string(group).i32(SESSION_TIMEOUT_MS).i32(REBALANCE_TIMEOUT_MS).string(member).null_string();
        writer.string("consumer").i32(1).string("range").bytes(&SUBSCRIPTION);
    })
}

/// `SyncGroup`; the leader's names what each of `members` is to do.
pub fn sync(group: &str, generation: i32, member: &str, members: &[String]) -> Vec<u8> {
    frame(14, 3, |writer| {
        writer.string(group).i32(generation).string(member).null_string().i32(members.len() as i32);
        for member in members {
            writer.string(member).bytes(&ASSIGNMENT);
        }
    })
}

/// `Heartbeat`.
pub fn heartbeat(group: &str, generation: i32, member: &str) -> Vec<u8> {
    frame(12, 3, |writer| {
        writer.string(group).i32(generation).string(member).null_string();
    })
}

/// `OffsetCommit` of partition 0, from outside the group.
pub fn commit(group: &str, topic: &str, offset: i64) -> Vec<u8> {
    frame(8, 7, |writer| {
        writer.string(group).i32(-1).string("").null_string();
        writer.i32(1).string(topic).i32(1).i32(0).i64(offset).i32(-1).null_string();
    })
}

/// An answer that is being read, behind its correlation id.
pub struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    /// A frame without its length.
    pub fn of(frame: &'a [u8]) -> Result<Answer<'a>, Problem> {
        let mut answer = Answer(frame);
        answer.i32()?;
        Ok(answer)
    }

    /// So many bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("an answer ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        Ok(self.take(N)?.try_into()?)
    }

    /// A 16-bit integer.
    pub fn i16(&mut self) -> Result<i16, Problem> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    /// A 32-bit integer.
    pub fn i32(&mut self) -> Result<i32, Problem> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// A 64-bit integer.
    pub fn i64(&mut self) -> Result<i64, Problem> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A string, or nothing if it is null.
    pub fn string(&mut self) -> Result<&'a str, Problem> {
        let len = self.i16()?.max(0);
        Ok(std::str::from_utf8(self.take(len as usize)?)?)
    }

    /// The length of the bytes that follow; null counts as none.
    pub fn len(&mut self) -> Result<usize, Problem> {
        Ok(self.i32()?.max(0) as usize)
    }
}

/// The error code of an answer that begins with it.
pub fn first_error(answer: &mut Answer) -> Result<i16, Problem> {
    answer.i16()
}

/// The error code of an answer that begins with a throttle time.
pub fn throttled_error(answer: &mut Answer) -> Result<i16, Problem> {
    answer.i32()?;
    answer.i16()
}

/// The error code of the only topic that was created.
pub fn created(answer: &mut Answer) -> Result<i16, Problem> {
    answer.take(4 + 4)?;
    answer.string()?;
    answer.i16()
}

/// The error code of the only partition that was produced to.
pub fn produced(answer: &mut Answer) -> Result<i16, Problem> {
    answer.i32()?;
    answer.string()?;
    answer.take(4 + 4)?;
    answer.i16()
}

/// The error code of the only partition that was committed.
pub fn committed(answer: &mut Answer) -> Result<i16, Problem> {
    answer.i32()?;
    produced(answer)
}

/// Bytes of records of the only partition that was fetched.
pub fn fetched(answer: &mut Answer) -> Result<usize, Problem> {
    check(throttled_error(answer)?)?;
    answer.take(4 + 4)?;
    answer.string()?;
    answer.take(4 + 4)?;
    check(answer.i16()?)?;
    answer.take(8 + 8 + 8)?;
    let aborted = answer.len()?;
    answer.take(aborted * 16 + 4)?;
    let len = answer.len()?;
    answer.take(len)?;
    Ok(len)
}

/// How joining ended.
pub struct Joined {
    /// The error code.
    pub error: i16,
    /// The generation.
    pub generation: i32,
    /// The member that is to assign.
    pub leader: String,
    /// One's own id.
    pub member: String,
    /// All ids, if one is the leader.
    pub members: Vec<String>,
}

/// Reads the answer to [`join`].
pub fn joined(answer: &mut Answer) -> Result<Joined, Problem> {
    let (error, generation) = (throttled_error(answer)?, answer.i32()?);
    answer.string()?;
    let (leader, member) = (answer.string()?.to_owned(), answer.string()?.to_owned());
    let mut members = Vec::new();
    for _ in 0..answer.i32()? {
        members.push(answer.string()?.to_owned());
        answer.string()?;
        let metadata = answer.len()?;
        answer.take(metadata)?;
    }
    Ok(Joined { error, generation, leader, member, members })
}

/// Anything but success ends a benchmark.
pub fn check(error: i16) -> Result<(), Problem> {
    if error == error::NONE { Ok(()) } else { Err(format!("the broker answered with error {error}").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_ends_too_early_is_an_error_wherever_it_ends() {
        let mut whole = Writer(Vec::new());
        // A fetch: correlation id, throttle time, error, session; topic `t`, partition 0 without an error, five bytes.
        whole.i32(0).i32(0).i16(0).i32(0).i32(1).string("t").i32(1).i32(0).i16(0);
        whole.i64(9).i64(9).i64(0).i32(-1).i32(-1).bytes(b"batch");
        let read = |bytes: &[u8]| fetched(&mut Answer::of(bytes)?);
        assert_eq!(read(&whole.0).unwrap(), 5);
        for len in 0..whole.0.len() {
            assert!(read(&whole.0[..len]).is_err(), "{len} bytes of it");
        }
    }
}
