//! `OffsetForLeaderEpoch`: where an epoch ends, so that a client can tell whether what it has read is still there (KIP-320).

use millstream_engine::shard::request::Reply;
use millstream_engine::types::{LeaderEpoch, Offset};

use super::super::codec::{Malformed, Reader};
use super::super::topics::Topics;
use super::super::{Context, Done, ErrorCode, check_leader_epoch, code, find_partition, wire_offset};
use super::Admin;

/// The first version that says who asks.
const REPLICA_FROM: i16 = 3;
/// What a missing epoch or offset is on the wire.
const NONE: i64 = -1;

/// A request for the ends of epochs.
#[derive(Debug)]
pub struct OffsetForLeaderEpoch {
    topics: Topics<Part>,
    /// Partitions that are not answered.
    waiting: usize,
}

#[derive(Debug)]
struct Part {
    index: i32,
    /// What the client takes for the newest.
    current_epoch: i32,
    epoch: i32,
    outcome: Result<Option<(LeaderEpoch, Offset)>, ErrorCode>,
}

impl OffsetForLeaderEpoch {
    /// Reads a request.
    pub fn read(mut reader: Reader<'_>, version: i16) -> Result<OffsetForLeaderEpoch, Malformed> {
        if version >= REPLICA_FROM {
            let _replica_id = reader.i32()?;
        }
        let mut topics = Topics::new();
        for _ in 0..reader.count(2)? {
            topics.push_topic(reader.string()?)?;
            for _ in 0..reader.count(12)? {
                let (index, current_epoch, epoch) = (reader.i32()?, reader.i32()?, reader.i32()?);
                reader.tags()?;
                topics.push_partition(Part { index, current_epoch, epoch, outcome: Ok(None) })?;
            }
            reader.tags()?;
        }
        reader.tags()?;
        Ok(OffsetForLeaderEpoch { topics, waiting: 0 })
    }

    fn finish(&self, context: &Context<'_>) -> Option<Done> {
        if self.waiting > 0 {
            return None;
        }
        let mut writer = context.response(self.topics.names_len() + 24 * self.topics.partitions().len());
        writer.i32(0);
        self.topics.write(&mut writer, |writer, part| {
            let end = part.outcome.ok().flatten();
            writer.error(part.outcome.err().unwrap_or(ErrorCode::None));
            writer.i32(part.index);
            writer.i32(end.map_or(NONE as i32, |(epoch, _)| epoch.0 as i32));
            writer.i64(end.map_or(NONE, |(_, offset)| wire_offset(offset)));
        });
        writer.tags();
        Some(Done::answer(writer))
    }
}

impl Admin for OffsetForLeaderEpoch {
    fn start(&mut self, context: &mut Context<'_>) -> Option<Done> {
        let metadata = context.engine.metadata();
        let mut waiting = 0;
        self.topics.for_each_mut(|topic, place, part| {
            let asked = find_partition(&metadata, topic, part.index).and_then(|partition| {
                check_leader_epoch(&metadata, part.current_epoch)?;
                // No batch is of a negative epoch.
                let Ok(epoch) = u32::try_from(part.epoch) else { return Ok(false) };
                let asked = context.engine.epoch_end(place, partition, LeaderEpoch(epoch));
                asked.map(|()| true).map_err(|refusal| code(&refusal))
            });
            match asked {
                Ok(asked) => waiting += usize::from(asked),
                Err(error) => part.outcome = Err(error),
            }
        });
        self.waiting = waiting;
        self.finish(context)
    }

    fn on_reply(&mut self, place: u32, reply: Reply, context: &mut Context<'_>) -> Option<Done> {
        self.topics.partition_mut(place).outcome = match reply {
            Reply::EpochEnd(end) => Ok(end),
            Reply::Refused(refusal) => Err(code(&refusal)),
            other => panic!("an epoch's end was answered {other:?}"),
        };
        self.waiting -= 1;
        self.finish(context)
    }
}
