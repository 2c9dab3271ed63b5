//! How far the groups of a partition have read: committed, asked for, forgotten.

use std::sync::Arc;

use super::{Entry, Env, Output, Partition};
use crate::coordinator::offsets::{Committed, GroupOffsets};
use crate::coordinator::question::{
    Asker, ByTopic, Commit, DeleteOffsets, GroupError, Offsets, Outcome, TopicCommit,
};
use crate::coordinator::records::Record;
use crate::coordinator::writer::{Then, Unit};
use crate::limits::{
    GROUP_NAME_BYTES_MAX, OFFSET_METADATA_BYTES_MAX, OFFSETS_PER_GROUP_MAX, OFFSETS_UNIT_BYTES_MAX,
};

impl Partition {
    pub(super) fn commit(
        &mut self,
        asker: Asker,
        commit: Commit,
        env: Env<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), GroupError> {
        let name = commit.group;
        if name.len() > GROUP_NAME_BYTES_MAX {
            return Err(GroupError::InvalidGroup);
        }
        if !env.may_store {
            return Err(GroupError::NotAvailable);
        }
        if !self.groups.contains_key(&name) {
            if commit.member.generation >= 0 {
                return Err(GroupError::IllegalGeneration);
            }
            if !env.has_room {
                return Err(GroupError::NotAvailable);
            }
        }
        let entry = self.groups.entry(Arc::clone(&name)).or_insert_with(|| Entry::new(env.now));
        let mut records = Vec::new();
        let mut answers = Vec::new();
        let (mut more, mut grows) = (0, false);
        let admitted = entry.group.admit_commit(&commit.member, env.now);
        for TopicCommit { name: topic, id, partitions } in
            commit.topics.into_iter().filter(|_| admitted.is_ok())
        {
            // The topic may have been deleted since the client's shard looked, and even been made anew.
            let is_there = env.metadata.topic(&topic).is_some_and(|now| now.id == id);
            for (partition, position) in partitions {
                if !is_there {
                    answers.push(Err(GroupError::UnknownTopic));
                    continue;
                }
                if position.metadata.len() > OFFSET_METADATA_BYTES_MAX {
                    answers.push(Err(GroupError::MetadataTooLarge));
                    continue;
                }
                let before = entry.offsets.get(&topic, partition);
                more += usize::from(before.is_none());
                grows |= before.is_none_or(|before| before.metadata.len() < position.metadata.len());
                let committed = Some(Committed {
                    offset: position.offset,
                    leader_epoch: position.leader_epoch,
                    metadata: Arc::from(position.metadata),
                    committed_ms: env.now.wall_ms,
                    topic: Some(id),
                });
                let topic = Arc::clone(&topic);
                records.push(Record::Offset { group: Arc::clone(&name), topic, partition, committed });
                answers.push(Ok(()));
            }
        }
        let unit = Unit { records, then: Then::Commit(Arc::clone(&name), asker, answers) };
        let refused = admitted.err().or_else(|| {
            let fits =
                entry.offsets.len() + more <= OFFSETS_PER_GROUP_MAX && (!grows || env.has_offsets_room);
            (!fits || unit.bytes() > OFFSETS_UNIT_BYTES_MAX).then_some(GroupError::TooLarge)
        });
        if refused.is_none() && !unit.records.is_empty() {
            entry.committing += 1;
            self.writer.push(unit);
            return Ok(());
        }
        self.forget_nothing(&name);
        match (refused, unit.then) {
            (None, Then::Commit(_, _, answers)) => {
                out.push(Output::Answer(asker, Ok(Outcome::Committed(answers))));
                Ok(())
            }
            (refused, _) => Err(refused.unwrap_or(GroupError::Invalid)),
        }
    }

    pub(super) fn offsets(&self, asked: &Offsets, env: Env<'_>) -> ByTopic<(i32, Option<Committed>)> {
        let known = self.groups.get(&asked.group).map(|entry| &entry.offsets);
        match &asked.topics {
            Some(topics) => {
                let of = |topic: &Arc<str>, partition: &i32| {
                    let committed = known.and_then(|known| known.get(topic, *partition));
                    (*partition, committed.filter(|each| each.is_about(topic, env.metadata)).cloned())
                };
                let topics = topics.iter().map(|(topic, partitions)| {
                    (Arc::clone(topic), partitions.iter().map(|partition| of(topic, partition)).collect())
                });
                topics.collect()
            }
            None => known
                .into_iter()
                .flat_map(GroupOffsets::topics)
                .filter_map(|(topic, partitions)| {
                    let about = partitions.iter().filter(|(_, each)| each.is_about(topic, env.metadata));
                    let partitions: Vec<_> =
                        about.map(|(index, each)| (*index, Some(each.clone()))).collect();
                    (!partitions.is_empty()).then(|| (Arc::clone(topic), partitions))
                })
                .collect(),
        }
    }

    pub(super) fn delete_offsets(
        &mut self,
        asker: Asker,
        delete: &DeleteOffsets,
        env: Env<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), GroupError> {
        let entry = self.groups.get(&delete.group).filter(|entry| !entry.group.is_dead());
        let entry = entry.ok_or(GroupError::NotFound)?;
        if !env.may_store {
            return Err(GroupError::NotAvailable);
        }
        let mut records = Vec::new();
        let mut answers = Vec::new();
        for (topic, partitions) in &delete.topics {
            let is_read = entry.group.reads(topic)?;
            for partition in partitions {
                answers.push(if is_read { Err(GroupError::Subscribed) } else { Ok(()) });
                // A commit on its way to the disk comes before this, and goes with it.
                let is_there = entry.committing > 0 || entry.offsets.get(topic, *partition).is_some();
                if !is_read && is_there {
                    records.push(Record::Offset {
                        group: Arc::clone(&delete.group),
                        topic: Arc::clone(topic),
                        partition: *partition,
                        committed: None,
                    });
                }
            }
        }
        if records.is_empty() {
            out.push(Output::Answer(asker, Ok(Outcome::Committed(answers))));
        } else {
            self.writer.push(Unit { records, then: Then::Forgotten(asker, answers) });
        }
        Ok(())
    }

    /// Forgets offsets of a group that have outlived their use, or their topic, and the group if nothing is left of it:
    /// see `offsets.retention.minutes`.
    pub fn expire(&mut self, name: &Arc<str>, retention_ms: i64, env: Env<'_>, out: &mut Vec<Output>) {
        // What has been read so far may not be the last word.
        let Some(entry) = self.groups.get(name).filter(|_| self.is_loaded()) else { return };
        if entry.group.is_dead() || entry.committing > 0 || !env.may_store {
            return;
        }
        let is_old = |since_ms: i64| env.now.wall_ms.saturating_sub(since_ms) >= retention_ms;
        let empty = entry.group.is_empty();
        // Without members ever, each offset counts for itself; with members gone, from when they went.
        let base_ms = if entry.group.is_new() { i64::MIN } else { entry.group.since_ms() };
        let expired = entry.offsets.iter().filter(|(topic, _, committed)| {
            let unused = empty || entry.group.reads(topic) == Ok(false);
            let since_ms = if empty { committed.committed_ms.max(base_ms) } else { committed.committed_ms };
            !committed.is_about(topic, env.metadata) || unused && is_old(since_ms)
        });
        let records: Vec<_> = expired
            .map(|(topic, partition, _)| Record::Offset {
                group: Arc::clone(name),
                topic: Arc::clone(topic),
                partition,
                committed: None,
            })
            .collect();
        if empty && records.len() == entry.offsets.len() {
            tracing::info!(group = &**name, "a group is forgotten: nobody has used it for long");
            let _ = self.delete(None, name, env);
        } else if !records.is_empty() {
            self.writer.push(Unit { records, then: Then::Nothing });
        }
        self.advance(env.now, out);
    }

    /// Topics are no more: nor is how far they have been read. Nobody is told of such offsets even before that
    /// ([`Committed::is_about`]); so a group with commits under way can wait for [`Partition::expire`], lest what is being
    /// committed for a topic of the same name goes with what is forgotten.
    pub fn forget_topics(&mut self, env: Env<'_>, out: &mut Vec<Output>) {
        for (name, entry) in self.groups.iter().filter(|(_, entry)| entry.committing == 0) {
            let gone = entry.offsets.iter().filter(|(topic, _, each)| !each.is_about(topic, env.metadata));
            let records: Vec<_> = gone
                .map(|(topic, partition, _)| Record::Offset {
                    group: Arc::clone(name),
                    topic: Arc::clone(topic),
                    partition,
                    committed: None,
                })
                .collect();
            if !records.is_empty() {
                self.writer.push(Unit { records, then: Then::Nothing });
            }
        }
        self.advance(env.now, out);
    }
}
