//! The groups of one partition of the offsets topic: what is stored of them, what is being stored, and what they are asked.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use millstream_engine::buffer::Slice;
use millstream_engine::error::Refusal;
use millstream_engine::format::batch::{self, BatchHeader};
use millstream_engine::shard::request::{Range, Reply};
use millstream_engine::time::Nanos;
use millstream_engine::types::Offset;

use super::group::{self, Bounds, Group, Input, Now};
use super::offsets::{Committed, GroupOffsets};
use super::question::{
    Answer, Asker, ByTopic, Commit, DeleteOffsets, Description, GroupError, Listing, Offsets, Outcome,
    Question,
};
use super::records::{GroupState, Record};
use super::writer::{Landed, Then, Unit, Writer};
use crate::limits::{
    GROUP_NAME_BYTES_MAX, OFFSET_METADATA_BYTES_MAX, OFFSETS_PER_GROUP_MAX, OFFSETS_UNIT_BYTES_MAX,
};

/// What is to be done for a partition.
#[derive(Debug)]
pub enum Output {
    /// Answer.
    Answer(Asker, Answer),
    /// Store this batch durably; then [`Partition::appended`].
    Append(Slice),
    /// Read from this offset on; then [`Partition::loaded`].
    Read(Offset),
    /// Read on; then [`Partition::loaded`].
    Load(Range),
    /// Reading failed: begin again after a while, by [`Partition::load`].
    Retry,
    /// Forget what lies before this offset; the answer does not matter.
    Trim(Offset),
    /// Look at a group by then: [`Partition::time`].
    LookBy(Arc<str>, Nanos),
}

/// A group, and what is stored of it.
#[derive(Debug)]
struct Entry {
    group: Group,
    offsets: GroupOffsets,
    /// Its state as it is stored: the log's last word about it.
    stored: Option<Arc<[u8]>>,
    /// Commits on their way to the disk.
    committing: usize,
}

impl Entry {
    fn new(now: Now) -> Entry {
        Entry { group: Group::new(now), offsets: GroupOffsets::default(), stored: None, committing: 0 }
    }

    /// Whether there is nothing to remember.
    fn is_nothing(&self) -> bool {
        self.group.is_empty()
            && self.group.is_new()
            && self.offsets.is_empty()
            && self.stored.is_none()
            && self.committing == 0
    }
}

/// How far the log has been read.
#[derive(Debug)]
enum Load {
    Reading { next: Offset, bytes: Vec<u8>, high_watermark: Offset, read_bytes: u64 },
    Done,
}

/// What a step may use.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// What bounds a group.
    pub bounds: &'a Bounds,
    /// The clocks.
    pub now: Now,
    /// Whether the shard has room for another group, or for a larger one.
    pub has_room: bool,
    /// Whether more may wait to be stored.
    pub may_store: bool,
}

/// One partition. First [`Partition::load`] and [`Partition::loaded`] until [`Partition::is_loaded`]; everybody who asks
/// before that is told to wait.
#[derive(Debug)]
pub struct Partition {
    load: Load,
    groups: BTreeMap<Arc<str>, Entry>,
    writer: Writer,
    /// Bytes that the members of all groups brought or were given.
    bytes: usize,
}

impl Default for Partition {
    /// A partition of which nothing is known yet.
    fn default() -> Partition {
        Partition {
            load: Load::Reading {
                next: Offset(0),
                bytes: Vec::new(),
                high_watermark: Offset(0),
                read_bytes: 0,
            },
            groups: BTreeMap::new(),
            writer: Writer::new(0, 0),
            bytes: 0,
        }
    }
}

impl Partition {
    /// Whether its log has been read.
    pub fn is_loaded(&self) -> bool {
        matches!(self.load, Load::Done)
    }

    /// How many groups it has.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether it has no groups.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Bytes that members of its groups brought or were given.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that wait to be stored.
    pub fn queued_bytes(&self) -> usize {
        self.writer.queued_bytes()
    }

    /// Begins to read the log, or begins again.
    pub fn load(&mut self, out: &mut Vec<Output>) {
        *self = Partition::default();
        out.push(Output::Read(Offset(0)));
    }

    /// Takes what was read.
    pub fn loaded(&mut self, reply: Reply, env: Env<'_>, out: &mut Vec<Output>) {
        let Load::Reading { next, bytes, high_watermark, .. } = &mut self.load else {
            panic!("the log has been read")
        };
        let rest = match reply {
            Reply::Read(read) => {
                *high_watermark = read.high_watermark;
                bytes.clear();
                add(bytes, &read.bytes);
                read.rest
            }
            Reply::Loaded(more, rest) => {
                add(bytes, &more);
                rest
            }
            Reply::Refused(Refusal::OffsetOutOfRange { start, .. }) if *next < start => {
                *next = start;
                return out.push(Output::Read(start));
            }
            Reply::Refused(refusal) => {
                tracing::error!(%refusal, "stored groups cannot be read");
                return out.push(Output::Retry);
            }
            other => panic!("a read was answered {other:?}"),
        };
        match rest {
            Some(rest) => out.push(Output::Load(rest)),
            None => self.replay(env, out),
        }
    }

    /// Applies the batches that were read, and reads on.
    fn replay(&mut self, env: Env<'_>, out: &mut Vec<Output>) {
        let Load::Reading { next, bytes, high_watermark, read_bytes } = &mut self.load else { return };
        let (mut from, mut rest) = (*next, &std::mem::take(bytes)[..]);
        let high_watermark = *high_watermark;
        *read_bytes += rest.len() as u64;
        let mut records = Vec::new();
        while let Ok(header) = BatchHeader::parse(rest) {
            let Some((batch, behind)) = rest.split_at_checked(header.size) else { break };
            read_batch(batch, &mut records);
            from = header.next_offset();
            rest = behind;
        }
        let Load::Reading { next, read_bytes, .. } = &mut self.load else { return };
        let (stands_still, read_bytes) = (from == *next, *read_bytes);
        *next = from;
        for record in records {
            self.apply(record, env.now);
        }
        if from >= high_watermark {
            self.finish_load(read_bytes, env, out);
        } else if stands_still {
            tracing::error!(offset = from.0, "stored groups cannot be read: no whole batch comes");
            out.push(Output::Retry);
        } else {
            out.push(Output::Read(from));
        }
    }

    /// Everything is read: groups come back to life as they were stored.
    fn finish_load(&mut self, log_bytes: u64, env: Env<'_>, out: &mut Vec<Output>) {
        self.groups.retain(|_, entry| entry.stored.is_some() || !entry.offsets.is_empty());
        for (name, entry) in &mut self.groups {
            let Some(stored) = &entry.stored else { continue };
            match GroupState::decode(stored) {
                Ok(state) => entry.group = Group::restored(&state, env.now),
                Err(error) => {
                    tracing::error!(group = &**name, %error, "the state of a group cannot be read: it begins anew");
                }
            }
            self.bytes += entry.group.bytes();
            if let Some(at) = entry.group.next_look() {
                out.push(Output::LookBy(Arc::clone(name), at));
            }
        }
        let live: usize = self.snapshot().map(|record| record.bytes()).sum();
        self.writer = Writer::new(log_bytes, live as u64);
        self.load = Load::Done;
        self.advance(env.now, out);
    }

    /// A change is durable: it holds from now on.
    fn apply(&mut self, record: Record, now: Now) {
        match record {
            Record::Offset { group, topic, partition, committed } => {
                if committed.is_none() && !self.groups.contains_key(&group) {
                    return;
                }
                let entry = self.groups.entry(group).or_insert_with(|| Entry::new(now));
                entry.offsets.set(&topic, partition, committed);
            }
            Record::Group { group, state } => {
                if state.is_none() && !self.groups.contains_key(&group) {
                    return;
                }
                self.groups.entry(group).or_insert_with(|| Entry::new(now)).stored = state;
            }
        }
    }

    /// The last word about everything.
    fn snapshot(&self) -> impl Iterator<Item = Record> {
        self.groups.iter().flat_map(|(name, entry)| {
            let state = entry
                .stored
                .iter()
                .map(|state| Record::Group { group: Arc::clone(name), state: Some(Arc::clone(state)) });
            let offsets = entry.offsets.iter().map(|(topic, partition, committed)| Record::Offset {
                group: Arc::clone(name),
                topic: Arc::clone(topic),
                partition,
                committed: Some(committed.clone()),
            });
            state.chain(offsets)
        })
    }

    /// Stores what waits, or what is stored once more.
    fn advance(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.is_loaded() {
            return;
        }
        if self.writer.is_free() && self.writer.wants_snapshot() {
            let records: Vec<_> = self.snapshot().collect();
            self.writer.start_snapshot(records.into_iter(), now.wall_ms);
        }
        out.extend(self.writer.next_batch(now.wall_ms).map(Output::Append));
    }

    /// The batch under way is durable, or could not be stored.
    pub fn appended(&mut self, reply: Reply, env: Env<'_>, out: &mut Vec<Output>) {
        let stored = match reply {
            Reply::Appended(appended) => Ok(appended.base_offset),
            Reply::Refused(refusal) => {
                tracing::warn!(%refusal, "a group's state or offsets could not be stored");
                Err(match refusal {
                    Refusal::BatchTooLarge { .. } => GroupError::TooLarge,
                    _ => GroupError::NotAvailable,
                })
            }
            other => panic!("an append was answered {other:?}"),
        };
        match self.writer.landed(stored.as_ref().ok().copied()) {
            Landed::Snapshot => {}
            Landed::SnapshotDone(first) => out.push(Output::Trim(first)),
            Landed::Units(units) => {
                let outcome = stored.map(|_| ());
                for unit in units {
                    self.unit_landed(unit, &outcome, env, out);
                }
            }
        }
        self.advance(env.now, out);
    }

    fn unit_landed(
        &mut self,
        unit: Unit,
        outcome: &Result<(), GroupError>,
        env: Env<'_>,
        out: &mut Vec<Output>,
    ) {
        if outcome.is_ok() {
            for record in unit.records {
                self.apply(record, env.now);
            }
        }
        let merge = |answers: Vec<Result<(), GroupError>>| {
            answers.into_iter().map(|answer| answer.and(outcome.clone())).collect()
        };
        match unit.then {
            Then::Nothing => {}
            Then::Forgotten(asker, answers) => {
                out.push(Output::Answer(asker, Ok(Outcome::Committed(merge(answers)))));
            }
            Then::Commit(group, asker, answers) => {
                out.push(Output::Answer(asker, Ok(Outcome::Committed(merge(answers)))));
                if let Some(entry) = self.groups.get_mut(&group) {
                    entry.committing -= 1;
                }
                self.forget_nothing(&group);
            }
            Then::Stored(group, number) => {
                self.step(&group, Input::Stored(number, outcome.is_ok()), env, out);
            }
            Then::Deleted(group, asker) => {
                if let Some(entry) = self.groups.get_mut(&group) {
                    if outcome.is_ok() {
                        self.groups.remove(&group);
                    } else {
                        entry.group.set_dead(false);
                    }
                }
                if let Some(asker) = asker {
                    out.push(Output::Answer(asker, outcome.clone().map(|()| Outcome::Done)));
                }
            }
        }
    }

    fn forget_nothing(&mut self, group: &Arc<str>) {
        if self.groups.get(group).is_some_and(Entry::is_nothing) {
            self.groups.remove(group);
        }
    }

    /// Lets a group take something, and has done what it wants.
    fn step(&mut self, name: &Arc<str>, input: Input, env: Env<'_>, out: &mut Vec<Output>) {
        let Some(entry) = self.groups.get_mut(name) else { return };
        let mut outputs = Vec::new();
        let before = entry.group.bytes();
        entry.group.on(input, env.bounds, env.now, &mut outputs);
        self.bytes = self.bytes - before + entry.group.bytes();
        if let Some(at) = entry.group.next_look() {
            out.push(Output::LookBy(Arc::clone(name), at));
        }
        for output in outputs {
            match output {
                group::Output::Answer(asker, answer) => out.push(Output::Answer(asker, answer)),
                group::Output::Store(number, state) => {
                    let state = Some(state.encode());
                    let records = vec![Record::Group { group: Arc::clone(name), state }];
                    self.writer.push(Unit { records, then: Then::Stored(Arc::clone(name), number) });
                }
            }
        }
        self.forget_nothing(name);
    }

    /// Time has passed for a group.
    pub fn time(&mut self, group: &Arc<str>, env: Env<'_>, out: &mut Vec<Output>) {
        self.step(group, Input::Time, env, out);
        self.advance(env.now, out);
    }

    /// Nobody waits for an answer any more.
    pub fn cancel(&mut self, asker: Asker, group: &Arc<str>, env: Env<'_>, out: &mut Vec<Output>) {
        self.step(group, Input::Cancel(asker), env, out);
        self.advance(env.now, out);
    }

    /// Takes a question; `fresh` is an id for whoever joins without one.
    pub fn ask(
        &mut self,
        asker: Asker,
        question: Question,
        fresh: Arc<str>,
        env: Env<'_>,
        out: &mut Vec<Output>,
    ) {
        if !self.is_loaded() {
            return out.push(Output::Answer(asker, Err(GroupError::Loading)));
        }
        if let Err(error) = self.take(asker, question, fresh, env, out) {
            out.push(Output::Answer(asker, Err(error)));
        }
        self.advance(env.now, out);
    }

    /// An error is the answer; otherwise it is given, now or later.
    fn take(
        &mut self,
        asker: Asker,
        question: Question,
        fresh: Arc<str>,
        env: Env<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), GroupError> {
        match question {
            Question::Join(join) => {
                if join.group.is_empty() || join.group.len() > GROUP_NAME_BYTES_MAX {
                    return Err(GroupError::InvalidGroup);
                }
                let group = Arc::clone(&join.group);
                if !self.groups.contains_key(&group) && !join.member_id.is_empty() {
                    return Err(GroupError::UnknownMember);
                }
                if !env.has_room {
                    return Err(GroupError::NotAvailable);
                }
                self.groups.entry(Arc::clone(&group)).or_insert_with(|| Entry::new(env.now));
                self.step(&group, Input::Join(asker, join, fresh), env, out);
            }
            Question::Sync(sync) => {
                let group = self.known(&sync.group)?;
                self.step(&group, Input::Sync(asker, sync), env, out);
            }
            Question::Heartbeat(heartbeat) => {
                let group = self.known(&heartbeat.group)?;
                self.step(&group, Input::Heartbeat(asker, heartbeat), env, out);
            }
            Question::Leave(leave) => {
                let Ok(group) = self.known(&leave.group) else {
                    let left = leave.members.iter().map(|_| Err(GroupError::UnknownMember)).collect();
                    out.push(Output::Answer(asker, Ok(Outcome::Left(left))));
                    return Ok(());
                };
                self.step(&group, Input::Leave(asker, leave), env, out);
            }
            Question::Commit(commit) => return self.commit(asker, commit, env, out),
            Question::Offsets(offsets) => {
                out.push(Output::Answer(asker, Ok(Outcome::Offsets(self.offsets(&offsets)))));
            }
            Question::Describe(group) => {
                let described = self.groups.get(&group).map(|entry| entry.group.describe());
                let unknown = || Description {
                    state: "Dead",
                    protocol_type: Arc::default(),
                    protocol: Arc::default(),
                    members: Vec::new(),
                };
                let described = described.unwrap_or_else(unknown);
                out.push(Output::Answer(asker, Ok(Outcome::Described(described))));
            }
            Question::Delete(group) => return self.delete(Some(asker), &group, env),
            Question::DeleteOffsets(delete) => return self.delete_offsets(asker, &delete, env, out),
            Question::List => panic!("all partitions are asked for their groups together"),
        }
        Ok(())
    }

    fn known(&self, group: &Arc<str>) -> Result<Arc<str>, GroupError> {
        if self.groups.contains_key(group) { Ok(Arc::clone(group)) } else { Err(GroupError::UnknownMember) }
    }

    /// Its groups.
    pub fn list(&self) -> impl Iterator<Item = Listing> {
        self.groups.iter().map(|(name, entry)| Listing {
            group: Arc::clone(name),
            protocol_type: entry.group.protocol_type().cloned().unwrap_or_default(),
            state: entry.group.state(),
        })
    }

    fn commit(
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
        let mut more = 0;
        let admitted = entry.group.admit_commit(&commit.member, env.now);
        for (topic, partitions) in commit.topics.into_iter().filter(|_| admitted.is_ok()) {
            for (partition, position) in partitions {
                if position.metadata.len() > OFFSET_METADATA_BYTES_MAX {
                    answers.push(Err(GroupError::MetadataTooLarge));
                    continue;
                }
                more += usize::from(entry.offsets.get(&topic, partition).is_none());
                let committed = Some(Committed {
                    offset: position.offset,
                    leader_epoch: position.leader_epoch,
                    metadata: Arc::from(position.metadata),
                    committed_ms: env.now.wall_ms,
                });
                let topic = Arc::clone(&topic);
                records.push(Record::Offset { group: Arc::clone(&name), topic, partition, committed });
                answers.push(Ok(()));
            }
        }
        let unit = Unit { records, then: Then::Commit(Arc::clone(&name), asker, answers) };
        let refused = admitted.err().or_else(|| {
            let fits = entry.offsets.len() + more <= OFFSETS_PER_GROUP_MAX;
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

    fn offsets(&self, asked: &Offsets) -> ByTopic<(i32, Option<Committed>)> {
        let known = self.groups.get(&asked.group).map(|entry| &entry.offsets);
        match &asked.topics {
            Some(topics) => {
                let of = |topic: &Arc<str>, partition: &i32| {
                    (*partition, known.and_then(|known| known.get(topic, *partition)).cloned())
                };
                let topics = topics.iter().map(|(topic, partitions)| {
                    (Arc::clone(topic), partitions.iter().map(|partition| of(topic, partition)).collect())
                });
                topics.collect()
            }
            None => known
                .into_iter()
                .flat_map(GroupOffsets::topics)
                .map(|(topic, partitions)| {
                    let partitions = partitions.iter();
                    (
                        Arc::clone(topic),
                        partitions.map(|(index, each)| (*index, Some(each.clone()))).collect(),
                    )
                })
                .collect(),
        }
    }

    fn delete(&mut self, asker: Option<Asker>, name: &Arc<str>, env: Env<'_>) -> Result<(), GroupError> {
        let entry = self.groups.get_mut(name).filter(|entry| !entry.group.is_dead());
        let entry = entry.ok_or(GroupError::NotFound)?;
        if !entry.group.is_empty() {
            return Err(GroupError::NotEmpty);
        }
        // What is still on its way would come behind the deletion, and stay.
        if entry.committing > 0 || !env.may_store {
            return Err(GroupError::NotAvailable);
        }
        entry.group.set_dead(true);
        let offsets = entry.offsets.iter().map(|(topic, partition, _)| Record::Offset {
            group: Arc::clone(name),
            topic: Arc::clone(topic),
            partition,
            committed: None,
        });
        let mut records: Vec<_> = offsets.collect();
        records.push(Record::Group { group: Arc::clone(name), state: None });
        self.writer.push(Unit { records, then: Then::Deleted(Arc::clone(name), asker) });
        Ok(())
    }

    fn delete_offsets(
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

    /// The next group behind `after`, in order of names; for walks that are done in parts.
    pub fn next_group(&self, after: Option<&Arc<str>>) -> Option<Arc<str>> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(Arc::clone(after)));
        self.groups.range((from, Bound::Unbounded)).next().map(|(name, _)| Arc::clone(name))
    }

    /// Forgets offsets of a group that have outlived their use, and the group if nothing is left of it: see
    /// `offsets.retention.minutes`.
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
            unused && is_old(since_ms)
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

    /// The topics that its groups have read.
    pub fn topics(&self) -> BTreeSet<Arc<str>> {
        self.groups
            .values()
            .flat_map(|entry| entry.offsets.topics())
            .map(|(topic, _)| Arc::clone(topic))
            .collect()
    }

    /// A topic is no more: nor is how far it has been read.
    pub fn forget_topic(&mut self, topic: &str, now: Now, out: &mut Vec<Output>) {
        for (name, entry) in &self.groups {
            let of_topic = entry.offsets.topics().find(|(other, _)| &***other == topic);
            let Some((topic, partitions)) = of_topic else { continue };
            let records = partitions.keys().map(|partition| Record::Offset {
                group: Arc::clone(name),
                topic: Arc::clone(topic),
                partition: *partition,
                committed: None,
            });
            self.writer.push(Unit { records: records.collect(), then: Then::Nothing });
        }
        self.advance(now, out);
    }
}

fn add(bytes: &mut Vec<u8>, slices: &[Slice]) {
    for slice in slices {
        bytes.extend_from_slice(slice);
    }
}

fn read_batch(batch: &[u8], records: &mut Vec<Record>) {
    let stored = match batch::check(batch).and_then(|_| batch::records(batch)) {
        Ok(stored) => stored,
        Err(error) => return tracing::error!(%error, "a batch of stored groups cannot be read"),
    };
    for record in stored {
        let decoded = record.map_err(|error| error.what()).and_then(|record| {
            Record::decode(record.key.unwrap_or_default(), record.value).map_err(|error| error.0)
        });
        match decoded {
            Ok(record) => records.extend(record),
            Err(error) => tracing::error!(error, "a record of stored groups cannot be read"),
        }
    }
}
