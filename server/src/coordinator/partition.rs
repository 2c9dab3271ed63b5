//! The groups of one partition of the offsets topic: what is stored of them, what is being stored, and what they are asked.

mod committed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use millstream_engine::buffer::Slice;
use millstream_engine::error::Refusal;
use millstream_engine::format::batch::{self, BatchHeader};
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::{Range, Reply};
use millstream_engine::time::Nanos;
use millstream_engine::types::Offset;

use super::group::{self, Bounds, Group, Input, Now};
use super::offsets::GroupOffsets;
use super::question::{Answer, Asker, Description, GroupError, Listing, Outcome, Question};
use super::records::{GroupState, Record};
use super::writer::{Landed, Then, Unit, Writer};
use crate::limits::GROUP_NAME_BYTES_MAX;

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
    /// Whether the shard has room for more committed offsets.
    pub has_offsets_room: bool,
    /// Whether more may wait to be stored.
    pub may_store: bool,
    /// The topics that there are.
    pub metadata: &'a Metadata,
}

/// How much there is of everything in a partition.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Groups.
    pub groups: usize,
    /// Members of all groups.
    pub members: usize,
    /// Bytes that the members of all groups brought or were given.
    pub member_bytes: usize,
    /// Committed offsets.
    pub offsets: usize,
    /// Bytes that these are reckoned to take.
    pub offsets_bytes: usize,
    /// Bytes that wait to be stored.
    pub queued_bytes: usize,
}

/// What has happened in a partition since it was asked last.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Generations that have begun.
    pub generations: u64,
    /// Offsets that were committed, and are durable.
    pub commits: u64,
}

/// One partition. First [`Partition::load`] and [`Partition::loaded`] until [`Partition::is_loaded`]; everybody who asks
/// before that is told to wait.
#[derive(Debug)]
pub struct Partition {
    load: Load,
    groups: BTreeMap<Arc<str>, Entry>,
    writer: Writer,
    /// What `groups` comes to: kept in step, for it is asked at every turn.
    extent: Extent,
    tally: Tally,
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
            extent: Extent::default(),
            tally: Tally::default(),
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

    /// How much there is of everything.
    pub fn extent(&self) -> Extent {
        Extent { groups: self.groups.len(), queued_bytes: self.writer.queued_bytes(), ..self.extent }
    }

    /// What has happened since this was asked last.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The partition is served no more: whoever waits is told so, and it must not be used again.
    pub fn abandon(&mut self, out: &mut Vec<Output>) {
        let groups = self.groups.values_mut().flat_map(|entry| entry.group.abandon());
        let askers = groups.chain(self.writer.abandon());
        out.extend(askers.map(|asker| Output::Answer(asker, Err(GroupError::NotCoordinator))));
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
                add(bytes, &read.chunk.bytes);
                read.chunk.rest()
            }
            Reply::Loaded(more) => {
                add(bytes, &more.bytes);
                more.rest()
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
            self.extent.members += entry.group.len();
            self.extent.member_bytes += entry.group.bytes();
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
                let Extent { offsets, offsets_bytes, .. } = &mut self.extent;
                (*offsets, *offsets_bytes) =
                    (*offsets - entry.offsets.len(), *offsets_bytes - entry.offsets.bytes());
                entry.offsets.set(&topic, partition, committed);
                (*offsets, *offsets_bytes) =
                    (*offsets + entry.offsets.len(), *offsets_bytes + entry.offsets.bytes());
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
            if let Then::Commit(..) = unit.then {
                self.tally.commits += unit.records.len() as u64;
            }
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
                        // Its offsets have gone with the records above, and members it had none.
                        assert!(
                            entry.offsets.is_empty(),
                            "nothing is committed for a group that is being deleted"
                        );
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
        let group = &mut entry.group;
        let (members, bytes, generation) = (group.len(), group.bytes(), group.generation());
        group.on(input, env.bounds, env.now, &mut outputs);
        self.extent.members = self.extent.members - members + group.len();
        self.extent.member_bytes = self.extent.member_bytes - bytes + group.bytes();
        self.tally.generations += u64::from(group.generation().abs_diff(generation));
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
                out.push(Output::Answer(asker, Ok(Outcome::Offsets(self.offsets(&offsets, env)))));
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

    /// The next group behind `after`, in order of names; for walks that are done in parts.
    pub fn next_group(&self, after: Option<&Arc<str>>) -> Option<Arc<str>> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(Arc::clone(after)));
        self.groups.range((from, Bound::Unbounded)).next().map(|(name, _)| Arc::clone(name))
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
