//! The only place where a protocol's intent becomes a request to the engine: it finds the shard in the metadata, and
//! remembers on whose behalf it asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_engine::buffer::Slice;
use millstream_engine::error::Refusal;
use millstream_engine::io::{ConnId, Job};
use millstream_engine::limits::EXTENTS_PER_REQUEST_MAX;
use millstream_engine::reactor::app::{AppToken, Outbox};
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::{Range, Request, Target, WatchId};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Durability, LeaderEpoch, Offset, PartitionId, ShardId};

use crate::amqp;
use crate::coordinator::shard::Errand;
use crate::coordinator::{Message, Question, topic};

/// Where topics are created and deleted.
const METADATA_SHARD: ShardId = ShardId(0);

/// Who waits for an answer. Neither a connection nor a request's number is ever used twice, so an answer that comes
/// after its asker is gone finds nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A request of a connection.
    Request {
        /// Which connection.
        conn: ConnId,
        /// Which of its requests, counted from the first.
        number: u64,
        /// Which part of that request; its handler knows.
        part: u32,
    },
    /// A connection's send queue, which loads what it sends next.
    SendQueue(ConnId),
    /// A connection's timer.
    Timer(ConnId),
    /// The timer after which a shard looks for idle connections.
    IdleCheck,
    /// The timer after which a shard looks for connections that take no answers.
    Answers,
    /// The timer after which memory that no large request needs goes back to the system.
    Rooms,
    /// The coordinator of the shard's groups: what it asked of the engine for a partition of the offsets topic.
    Offsets {
        /// Which topic, counted as they follow each other.
        life: u32,
        /// Which partition.
        index: u32,
        /// For what.
        errand: Errand,
    },
    /// Somebody outside of the shards.
    Call(u64),
    /// Something of AMQP.
    Amqp(amqp::Origin),
    /// The coordinator's timer.
    GroupTimer,
}

/// What is under way: who asked, per token. Slots are reused; the generation in a token tells their uses apart.
#[derive(Debug, Default)]
pub struct Pending {
    slots: Vec<(u32, Option<Origin>)>,
    free: Vec<u32>,
}

impl Pending {
    fn insert(&mut self, origin: Origin) -> AppToken {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let (generation, slot) = self.slots.get_mut(index as usize).expect("free slots exist");
        *slot = Some(origin);
        AppToken(u64::from(*generation) << 32 | u64::from(index))
    }

    /// Who asked under this token, which is used up by that. `None` if it was used up before.
    pub fn take(&mut self, token: AppToken) -> Option<Origin> {
        let index = token.0 as u32;
        let (generation, slot) = self.slots.get_mut(index as usize)?;
        if u64::from(*generation) != token.0 >> 32 {
            return None;
        }
        let origin = slot.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(index);
        Some(origin)
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Asks on behalf of one request of one connection.
pub struct Dispatch<'a> {
    out: &'a mut Outbox,
    pending: &'a mut Pending,
    conn: ConnId,
    number: u64,
}

impl<'a> Dispatch<'a> {
    /// For the `number`th request of a connection.
    pub fn new(out: &'a mut Outbox, pending: &'a mut Pending, conn: ConnId, number: u64) -> Dispatch<'a> {
        Dispatch { out, pending, conn, number }
    }

    /// What this shard knows of the node.
    pub fn metadata(&self) -> Arc<Metadata> {
        Arc::clone(self.out.metadata())
    }

    /// The monotonic clock.
    pub fn now(&self) -> Nanos {
        self.out.now()
    }

    fn token(&mut self, part: u32) -> AppToken {
        self.pending.insert(Origin::Request { conn: self.conn, number: self.number, part })
    }

    fn engine(&mut self, part: u32, shard: ShardId, request: Request) {
        let token = self.token(part);
        self.out.engine(token, shard, request, Some(self.conn));
    }

    fn shard_of(&self, partition: PartitionId) -> Result<ShardId, Refusal> {
        self.out.metadata().shard_of(partition).ok_or(Refusal::UnknownPartition)
    }

    /// Stores a batch: `Reply::Appended`.
    pub fn append(
        &mut self,
        part: u32,
        partition: PartitionId,
        batch: Slice,
        durability: Durability,
    ) -> Result<(), Refusal> {
        let shard = self.shard_of(partition)?;
        self.engine(part, shard, Request::Append { partition, batch, durability });
        Ok(())
    }

    /// Reads batches: `Reply::Read`.
    pub fn read(
        &mut self,
        part: u32,
        partition: PartitionId,
        offset: Offset,
        max_bytes: u32,
    ) -> Result<(), Refusal> {
        let shard = self.shard_of(partition)?;
        self.engine(part, shard, Request::Read { partition, offset, max_bytes });
        Ok(())
    }

    /// Waits for news behind the given offsets: one watch for each shard that serves some of them, each for
    /// `min_bytes`; `Reply::Woken`. Partitions that are no more are left out.
    pub fn watch(
        &mut self,
        part: u32,
        interests: impl Iterator<Item = (PartitionId, Offset)>,
        min_bytes: u32,
    ) -> Vec<Watch> {
        let metadata = self.metadata();
        let mut by_shard: Vec<(ShardId, Vec<(PartitionId, Offset)>)> = Vec::new();
        for (partition, offset) in interests {
            let Some(shard) = metadata.shard_of(partition) else { continue };
            match by_shard.iter_mut().find(|(other, _)| *other == shard) {
                Some((_, interests)) => interests.push((partition, offset)),
                None => by_shard.push((shard, vec![(partition, offset)])),
            }
        }
        by_shard
            .into_iter()
            .map(|(shard, interests)| {
                // The token is in use until the watch is answered, so no other watch of this shard has its number.
                let token = self.token(part);
                let watch = WatchId(token.0);
                self.out.engine(
                    token,
                    shard,
                    Request::Watch { watch, interests, min_bytes },
                    Some(self.conn),
                );
                Watch { shard, id: watch }
            })
            .collect()
    }

    /// Ends a watch: the watch's own `Reply::Woken`, and `Reply::Done`.
    pub fn unwatch(&mut self, part: u32, watch: Watch) {
        // On nobody's behalf: the connection may be gone, and what frees something should not wait for it.
        let token = self.token(part);
        self.out.engine(token, watch.shard, Request::Unwatch(watch.id), None);
    }

    /// Finds an offset: `Reply::Found`.
    pub fn find(&mut self, part: u32, partition: PartitionId, target: Target) -> Result<(), Refusal> {
        let shard = self.shard_of(partition)?;
        self.engine(part, shard, Request::Find { partition, target });
        Ok(())
    }

    /// Creates a topic: `Reply::TopicCreated`.
    pub fn create_topic(
        &mut self,
        part: u32,
        name: &str,
        partitions: Option<u32>,
        settings: Vec<(String, String)>,
    ) {
        let request = Request::CreateTopic { name: name.to_owned(), partitions, settings };
        self.engine(part, METADATA_SHARD, request);
    }

    /// Changes the metadata otherwise: deletes or configures a topic, gives it partitions, or makes an id for a producer.
    /// Answered as the request says.
    pub fn change_metadata(&mut self, part: u32, change: Request) {
        self.engine(part, METADATA_SHARD, change);
    }

    /// Asks where a leader epoch ends: `Reply::EpochEnd`.
    pub fn epoch_end(
        &mut self,
        part: u32,
        partition: PartitionId,
        epoch: LeaderEpoch,
    ) -> Result<(), Refusal> {
        let shard = self.shard_of(partition)?;
        self.engine(part, shard, Request::EpochEnd { partition, epoch });
        Ok(())
    }

    /// Asks how large logs are: `Reply::Extents`, as often as is returned. Partitions that are no more are left out.
    pub fn extents(&mut self, part: u32, partitions: &[PartitionId]) -> usize {
        let metadata = self.metadata();
        let mut by_shard: BTreeMap<ShardId, Vec<PartitionId>> = BTreeMap::new();
        for partition in partitions {
            if let Some(shard) = metadata.shard_of(*partition) {
                by_shard.entry(shard).or_default().push(*partition);
            }
        }
        let mut requests = 0;
        for (shard, partitions) in by_shard {
            for some in partitions.chunks(EXTENTS_PER_REQUEST_MAX) {
                self.engine(part, shard, Request::Extents(some.to_vec()));
                requests += 1;
            }
        }
        requests
    }

    /// Asks how much space the disk has: `Reply::DiskSpace`. All shards share it.
    pub fn disk_space(&mut self, part: u32) {
        self.engine(part, METADATA_SHARD, Request::DiskSpace);
    }

    /// Moves a log's start up: `Reply::Trimmed`.
    pub fn trim_log(
        &mut self,
        part: u32,
        partition: PartitionId,
        before: Option<Offset>,
    ) -> Result<(), Refusal> {
        let shard = self.shard_of(partition)?;
        self.engine(part, shard, Request::TrimLog { partition, before });
        Ok(())
    }

    /// The shards that there are.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.out.metadata().shards).map(ShardId)
    }

    /// Asks the coordinator of a group, wherever it is: an [`crate::coordinator::Answer`]. `None` if groups have no home yet.
    pub fn ask_group(&mut self, part: u32, question: Question) -> Option<Asked> {
        let (_, shard) = topic::home(self.out.metadata(), question.group()?)?;
        Some(self.ask_coordinator(part, shard, question))
    }

    /// Asks a shard's coordinator: an [`crate::coordinator::Answer`].
    pub fn ask_coordinator(&mut self, part: u32, shard: ShardId, question: Question) -> Asked {
        let token = self.token(part);
        let group = question.group().cloned().unwrap_or_default();
        self.out.tell(shard, Box::new(Message::Ask(token, question)), Some(self.conn));
        Asked { shard, token, group }
    }

    /// Tells a coordinator that nobody waits for its answer, which is given all the same.
    pub fn cancel_question(&mut self, asked: Asked) {
        self.out.tell(asked.shard, Box::new(Message::Cancel(asked.token, asked.group)), None);
    }

    /// Runs a job on a helper thread.
    pub fn offload(&mut self, part: u32, job: Job) {
        let token = self.token(part);
        self.out.offload(token, job);
    }
}

/// A question that was put to a coordinator.
#[derive(Debug)]
pub struct Asked {
    shard: ShardId,
    token: AppToken,
    group: Arc<str>,
}

/// A watch that has been registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    /// Where.
    pub shard: ShardId,
    /// Under which name.
    pub id: WatchId,
}

/// Loads the next chunk of what a connection sends: `Reply::Loaded`. Fails if the partition is no more.
pub fn load(out: &mut Outbox, pending: &mut Pending, conn: ConnId, range: Range) -> Result<(), Refusal> {
    let shard = out.metadata().shard_of(range.partition).ok_or(Refusal::UnknownPartition)?;
    let token = pending.insert(Origin::SendQueue(conn));
    out.engine(token, shard, Request::Load(range), Some(conn));
    Ok(())
}

/// Asks a shard, on behalf of a connection if there is one.
pub fn ask(
    out: &mut Outbox,
    pending: &mut Pending,
    origin: Origin,
    shard: ShardId,
    request: Request,
    source: Option<ConnId>,
) {
    let token = pending.insert(origin);
    out.engine(token, shard, request, source);
}

/// Asks a shard for the host itself.
pub fn errand(out: &mut Outbox, pending: &mut Pending, origin: Origin, shard: ShardId, request: Request) {
    let token = pending.insert(origin);
    out.engine(token, shard, request, None);
}

/// Sets a timer for `origin`.
pub fn set_timer(out: &mut Outbox, pending: &mut Pending, origin: Origin, at: Nanos) {
    let token = pending.insert(origin);
    out.set_timer(token, at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_one_answer() {
        let mut pending = Pending::default();
        let first = pending.insert(Origin::Timer(ConnId(1)));
        assert_eq!(pending.take(first), Some(Origin::Timer(ConnId(1))));
        assert_eq!(pending.take(first), None);
        let second = pending.insert(Origin::Timer(ConnId(2)));
        assert_eq!(second.0 as u32, first.0 as u32, "the slot is used again");
        assert_eq!(pending.take(first), None, "the old token does not fit the new use");
        assert_eq!(pending.take(second), Some(Origin::Timer(ConnId(2))));
        assert!(pending.is_empty());
        assert_eq!(pending.take(AppToken(77)), None);
    }
}
