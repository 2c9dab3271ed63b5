//! What becomes of the answers: each is a promise, or a refusal that has to be expected.

use millstream_engine::error::Refusal;
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::{Durability, PartitionId, ShardId, TopicId};

use super::model::{Outcome, Topic};
use super::node::SimNode;
use super::partition::Partition;
use super::workload::{Op, Producer, Workload};

impl Workload {
    /// Takes the answers that have come.
    pub fn absorb(&mut self, node: &SimNode) {
        let halted = node.is_halted();
        for (shard, wire) in node.wires.iter().enumerate() {
            let shard = ShardId(shard as u16);
            let replies: Vec<_> = wire.borrow_mut().replies.drain(..).collect();
            for (token, reply) in replies {
                if halted && matches!(reply, Reply::Refused(_)) {
                    continue; // What a machine that has died would have said was heard by nobody.
                }
                match self.pending.remove(&(shard, token.0)) {
                    Some(op) => self.answered(node, shard, op, reply),
                    None => self.model.violated(format!("an answer that nobody waits for: {reply:?}")),
                }
            }
        }
    }

    fn answered(&mut self, node: &SimNode, shard: ShardId, op: Op, reply: Reply) {
        if let Reply::Refused(refusal) = &reply {
            *self
                .refused
                .entry(
                    format!("{refusal}")
                        .split("..")
                        .next()
                        .unwrap_or_default()
                        .chars()
                        .filter(|c| !c.is_ascii_digit())
                        .collect(),
                )
                .or_default() += 1;
        }
        match (op, reply) {
            (Op::Change(change), reply) => self.changed(node, change, reply),
            (Op::Append(id, durability), Reply::Appended(appended)) => {
                self.acked += 1;
                let partition = self.model.sent[&id].partition;
                if let Some(owner) = node.metadata(shard).shard_of(partition)
                    && self.poisoned.contains(&(shard, owner))
                    && durability == Durability::Durable
                    && self.producer_of(id).is_none()
                {
                    self.model.violated(format!("batch {id} is acknowledged by a poisoned shard"));
                }
                self.model.acked(id, appended.base_offset.0, durability);
                if let Some(producer) = self.producer_of(id) {
                    producer.under_way -= 1;
                    producer.unacked.retain(|unacked| *unacked != id);
                }
            }
            (Op::Append(id, _), Reply::Refused(refusal)) => self.append_refused(node, shard, id, &refusal),
            (Op::Read { partition, offset, mut bytes, .. }, Reply::Read(read)) => {
                bytes.extend(read.chunk.bytes.iter().flat_map(|slice| slice.iter()));
                let high_watermark = read.high_watermark.0;
                if let Some(before) = self.told.insert((shard, partition), high_watermark)
                    && before > high_watermark
                {
                    self.model.violated(format!(
                        "{partition}: the high watermark fell from {before} to {high_watermark}"
                    ));
                }
                self.read_on(
                    node,
                    shard,
                    Op::Read { partition, offset, bytes, high_watermark },
                    read.chunk.rest().map(Request::Load),
                );
            }
            (Op::Read { partition, offset, mut bytes, high_watermark }, Reply::Loaded(more)) => {
                bytes.extend(more.bytes.iter().flat_map(|slice| slice.iter()));
                self.read_on(
                    node,
                    shard,
                    Op::Read { partition, offset, bytes, high_watermark },
                    more.rest().map(Request::Load),
                );
            }
            (Op::Read { partition, offset, bytes, high_watermark }, Reply::Refused(refusal)) => {
                let known = self.model.partitions.get(&partition).cloned().unwrap_or_default();
                let told = self.told.get(&(shard, partition)).copied().unwrap_or(0);
                let moved = offset < known.start_asked || known.retention;
                let expected = match refusal {
                    Refusal::UnknownPartition => self.model.is_going(partition.topic),
                    Refusal::OffsetOutOfRange { start, end } => {
                        moved && offset < start.0 && end.0 >= told || self.model.is_going(partition.topic)
                    }
                    Refusal::Busy => true,
                    Refusal::CorruptData => self.model.rotten_at(partition, offset).is_some(),
                    Refusal::ReadFailed => {
                        moved || self.demand.bad_reads || self.model.is_going(partition.topic)
                    }
                    _ => false,
                };
                if !expected {
                    self.model.violated(format!("{partition}: a read at {offset} was refused: {refusal}"));
                }
                if !bytes.is_empty() {
                    self.model.read(partition, offset, &bytes, high_watermark, true);
                }
            }
            (Op::Find, Reply::Found(_) | Reply::Refused(_))
            | (Op::Watch { .. }, Reply::Woken(_))
            | (Op::Unwatch, Reply::Done)
            | (Op::Delete(_), Reply::Refused(Refusal::Poisoned))
            | (Op::Trim { .. }, Reply::Refused(_)) => {}
            (Op::Trim { partition }, Reply::Trimmed(start)) => {
                if let Some(known) = self.model.partitions.get_mut(&partition) {
                    known.start = known.start.max(start.0);
                }
            }
            (Op::Create(name), Reply::TopicCreated(id)) => self.created(node, &name, id),
            (Op::Create(name), Reply::Refused(refusal)) => {
                if matches!(refusal, Refusal::Poisoned | Refusal::DiskFull) {
                    self.names.insert(name, None); // It may be there after the next start.
                } else {
                    self.model.violated(format!("the creation of {name} was refused: {refusal}"));
                }
            }
            (Op::Delete(id), Reply::Done) => {
                self.model.topics.insert(id, Topic::Deleted);
                self.model.partitions.retain(|partition, _| partition.topic != id);
                self.names.retain(|_, known| *known != Some(id));
                for shard in 0..node.shards() {
                    if node.metadata(ShardId(shard)).by_id.contains_key(&id) {
                        self.model.violated(format!("shard {shard} has not applied the deletion of {id}"));
                    }
                }
            }
            (_, reply) => self.model.violated(format!("an answer of the wrong kind: {reply:?}")),
        }
    }

    fn read_on(&mut self, node: &SimNode, shard: ShardId, op: Op, rest: Option<Request>) {
        let Op::Read { partition, offset, bytes, high_watermark } = &op else { return };
        match rest {
            Some(request) => match node.metadata(shard).shard_of(*partition) {
                Some(to) => self.send(node, shard, to, request, op),
                None => {
                    self.model.read(*partition, *offset, bytes, *high_watermark, true);
                }
            },
            None => {
                self.model.read(*partition, *offset, bytes, *high_watermark, false);
            }
        }
    }

    fn producer_of(&mut self, id: u64) -> Option<&mut Producer> {
        self.producers.iter_mut().find(|producer| producer.unacked.contains(&id))
    }

    fn append_refused(&mut self, node: &SimNode, shard: ShardId, id: u64, refusal: &Refusal) {
        let sent = self.model.sent.get_mut(&id).expect("only what was sent is answered");
        let partition = sent.partition;
        // A group that was not flushed may be there all the same.
        sent.maybe |= *refusal == Refusal::Poisoned;
        sent.outcome = if sent.maybe { Outcome::Unknown } else { Outcome::Refused };
        let stalled = self.producer_of(id).is_some_and(|producer| {
            producer.under_way -= 1;
            std::mem::replace(&mut producer.stalled, true)
        });
        let expected = match refusal {
            Refusal::UnknownPartition => self.model.is_going(partition.topic),
            Refusal::Poisoned => {
                if let Some(owner) = node.metadata(shard).shard_of(partition) {
                    self.poisoned.insert((shard, owner));
                }
                self.demand.poison
            }
            Refusal::DiskFull => self.demand.full_disk,
            Refusal::OutOfOrderSequence => stalled,
            _ => false,
        };
        if !expected {
            self.model.violated(format!("{partition}: batch {id} was refused: {refusal}"));
        }
    }

    fn created(&mut self, node: &SimNode, name: &str, id: TopicId) {
        for shard in 0..node.shards() {
            if !node.metadata(ShardId(shard)).by_id.contains_key(&id) {
                self.model.violated(format!("shard {shard} has not applied the creation of {name}"));
            }
        }
        self.adopt(node.metadata(ShardId(0)), name, id);
    }

    pub(super) fn adopt(&mut self, metadata: &Metadata, name: &str, id: TopicId) {
        let Some(topic) = metadata.by_id.get(&id) else { return };
        self.names.insert(name.to_owned(), Some(id));
        self.model.topics.insert(id, Topic::Live);
        if self.configs.get(name) != Some(&topic.config) {
            self.model.violated(format!("{name} has other settings than it was created with"));
        }
        for index in 0..topic.slots.len() as u32 {
            self.model.partitions.insert(PartitionId { topic: id, index }, Partition::of(&topic.config));
        }
    }
}
