//! The groups of one shard: has done what its partitions of the offsets topic want, and keeps the time for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_engine::reactor::app::Outbox;
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Durability, PartitionId, ShardId, TopicId};

use super::deadlines::Deadlines;
use super::group::{Bounds, Now};
use super::partition::{Env, Extent, Output, Partition, Tally};
use super::question::{Answer, Asker, GroupError, Message, Outcome, Question};
use super::topic;
use crate::config::GroupConfig;
use crate::dispatch::{self, Origin, Pending};
use crate::limits::{
    CLIENT_NAME_BYTES_MAX, GROUP_BYTES_MAX, GROUPS_BYTES_PER_SHARD_MAX, GROUPS_EXPIRED_AT_ONCE,
    GROUPS_PER_SHARD_MAX, MEMBER_BYTES_MAX, OFFSETS_BYTES_PER_SHARD_MAX, OFFSETS_LOADS_IN_FLIGHT,
    OFFSETS_WAITING_BYTES_MAX,
};

/// How long after a failure the log is read again.
const LOAD_AGAIN: Nanos = Nanos::from_millis(1_000);

/// What was asked of the engine for a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errand {
    /// To store a batch.
    Append,
    /// To read the log.
    Load,
    /// To forget its beginning.
    Trim,
}

/// What a step may use.
pub struct Desk<'a> {
    /// Where everything goes.
    pub out: &'a mut Outbox,
    /// Who waits for the engine.
    pub pending: &'a mut Pending,
}

/// The coordinator of one shard.
#[derive(Debug)]
pub struct Coordinator {
    bounds: Bounds,
    retention_ms: i64,
    retention_check: Nanos,
    metadata: Option<Arc<Metadata>>,
    topic: Option<TopicId>,
    /// Rises when the topic is another: answers that were meant for the last one are not taken.
    life: u32,
    partitions: BTreeMap<u32, Partition>,
    /// Partitions whose logs are to be read, and how many are being read.
    to_load: Vec<u32>,
    loading: usize,
    looks: Deadlines<(u32, Arc<str>)>,
    timer: Option<Nanos>,
    /// When offsets are next looked at for their age, and how far the look under way has come.
    expire_at: Nanos,
    expiring: Option<(u32, Option<Arc<str>>)>,
    /// What has happened since the start.
    tally: Tally,
}

impl Coordinator {
    /// A coordinator that knows nothing yet.
    pub fn new(config: &GroupConfig) -> Coordinator {
        Coordinator {
            bounds: Bounds {
                initial_delay: Nanos::from_millis(config.initial_delay_ms),
                session_ms: config.session_min_ms..=config.session_max_ms,
                members_max: config.members_max,
                member_bytes_max: MEMBER_BYTES_MAX,
                group_bytes_max: GROUP_BYTES_MAX,
            },
            retention_ms: config.offsets_retention_minutes.saturating_mul(60_000),
            retention_check: Nanos::from_millis(config.offsets_retention_check_ms),
            metadata: None,
            topic: None,
            life: 0,
            partitions: BTreeMap::new(),
            to_load: Vec::new(),
            loading: 0,
            looks: Deadlines::default(),
            timer: None,
            expire_at: Nanos::ZERO,
            expiring: None,
            tally: Tally::default(),
        }
    }

    /// How much there is of everything on this shard.
    pub fn extent(&self) -> Extent {
        self.partitions.values().map(Partition::extent).fold(Extent::default(), |sum, more| Extent {
            groups: sum.groups + more.groups,
            members: sum.members + more.members,
            member_bytes: sum.member_bytes + more.member_bytes,
            offsets: sum.offsets + more.offsets,
            offsets_bytes: sum.offsets_bytes + more.offsets_bytes,
            queued_bytes: sum.queued_bytes + more.queued_bytes,
        })
    }

    /// What has happened on this shard since it started.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The shard starts, or there is new metadata: takes on the partitions that it serves now.
    pub fn metadata_changed(&mut self, desk: &mut Desk<'_>) {
        let metadata = Arc::clone(desk.out.metadata());
        let before = self.metadata.replace(Arc::clone(&metadata));
        let topic = topic::find(&metadata).map(|topic| topic.id);
        if topic != self.topic {
            let mut outputs = Vec::new();
            for partition in self.partitions.values_mut() {
                partition.abandon(&mut outputs);
            }
            for output in outputs {
                self.carry_out(0, output, desk);
            }
            self.topic = topic;
            self.life += 1;
            self.partitions.clear();
            self.to_load.clear();
            self.loading = 0;
            self.looks = Deadlines::default();
            self.expiring = None;
            let own = desk.out.shard();
            let mine = metadata.partitions_of(own).filter(|(partition, _)| Some(partition.topic) == topic);
            for (partition, _) in mine {
                self.partitions.insert(partition.index, Partition::default());
                self.to_load.push(partition.index);
            }
            self.expire_at = desk.out.now() + self.retention_check;
        } else if let Some(before) = before {
            self.forget_topics(&before, &metadata, desk);
        }
        self.load_more(desk);
        self.arm(desk);
    }

    fn forget_topics(&mut self, before: &Metadata, metadata: &Metadata, desk: &mut Desk<'_>) {
        let is_gone =
            |topic: &TopicId| before.by_id.contains_key(topic) && !metadata.by_id.contains_key(topic);
        if metadata.changed_topics().any(|topic| is_gone(&topic)) {
            for index in self.indexes() {
                self.forget_missing(index, desk);
            }
        }
    }

    /// Forgets how far topics were read that have been deleted since that was stored.
    fn forget_missing(&mut self, index: u32, desk: &mut Desk<'_>) {
        self.with(index, desk, |partition, env, out| {
            if partition.is_loaded() {
                partition.forget_topics(env, out);
            }
        });
    }

    fn indexes(&self) -> Vec<u32> {
        self.partitions.keys().copied().collect()
    }

    fn load_more(&mut self, desk: &mut Desk<'_>) {
        while self.loading < OFFSETS_LOADS_IN_FLIGHT
            && let Some(index) = self.to_load.pop()
        {
            self.loading += 1;
            self.with(index, desk, |partition, _, out| partition.load(out));
        }
    }

    /// Lets a partition do something, and has done what it wants.
    fn with(
        &mut self,
        index: u32,
        desk: &mut Desk<'_>,
        work: impl FnOnce(&mut Partition, Env<'_>, &mut Vec<Output>),
    ) {
        let extent = self.extent();
        let Some(metadata) = self.metadata.clone() else { return };
        let Some(partition) = self.partitions.get_mut(&index) else { return };
        let mut outputs = Vec::new();
        let env = Env {
            bounds: &self.bounds,
            now: now(desk),
            has_room: extent.groups < GROUPS_PER_SHARD_MAX
                && extent.member_bytes < GROUPS_BYTES_PER_SHARD_MAX,
            has_offsets_room: extent.offsets_bytes < OFFSETS_BYTES_PER_SHARD_MAX,
            may_store: extent.queued_bytes < OFFSETS_WAITING_BYTES_MAX,
            metadata: &metadata,
        };
        work(partition, env, &mut outputs);
        let Tally { generations, commits } = partition.take_tally();
        self.tally.generations += generations;
        self.tally.commits += commits;
        for output in outputs {
            self.carry_out(index, output, desk);
        }
    }

    fn carry_out(&mut self, index: u32, output: Output, desk: &mut Desk<'_>) {
        let Some(topic) = self.topic else { return };
        let partition = PartitionId { topic, index };
        let (errand, request) = match output {
            Output::Answer(asker, answer) => return tell_answer(asker, answer, desk),
            Output::LookBy(group, at) => return self.looks.look_by(&(index, group), at),
            Output::Retry => {
                self.loading -= 1;
                self.to_load.insert(0, index);
                let at = desk.out.now() + LOAD_AGAIN;
                return dispatch::set_timer(desk.out, desk.pending, Origin::GroupTimer, at);
            }
            Output::Append(batch) => {
                (Errand::Append, Request::Append { partition, batch, durability: Durability::Durable })
            }
            Output::Read(offset) => (
                Errand::Load,
                Request::Read {
                    partition,
                    offset,
                    max_bytes: millstream_engine::limits::READ_CHUNK_BYTES as u32,
                },
            ),
            Output::Load(range) => (Errand::Load, Request::Load(range)),
            Output::Trim(before) => (Errand::Trim, Request::TrimLog { partition, before: Some(before) }),
        };
        let origin = Origin::Offsets { life: self.life, index, errand };
        dispatch::errand(desk.out, desk.pending, origin, desk.out.shard(), request);
    }

    /// The engine has answered.
    pub fn replied(&mut self, life: u32, index: u32, errand: Errand, reply: Reply, desk: &mut Desk<'_>) {
        if life != self.life {
            return;
        }
        match errand {
            Errand::Append => {
                self.with(index, desk, |partition, env, out| partition.appended(reply, env, out));
            }
            Errand::Load => {
                self.with(index, desk, |partition, env, out| partition.loaded(reply, env, out));
                if self.partitions.get(&index).is_some_and(Partition::is_loaded) {
                    self.loading -= 1;
                    self.forget_missing(index, desk);
                    self.load_more(desk);
                }
            }
            Errand::Trim => {
                if let Reply::Refused(refusal) = reply {
                    tracing::info!(%refusal, "what a snapshot of groups replaces stays until the next one");
                }
            }
        }
        self.arm(desk);
    }

    /// Another host, or this one, has a question, or does not want its answer any more.
    pub fn told(&mut self, from: ShardId, message: Message, desk: &mut Desk<'_>) {
        match message {
            Message::Ask(token, question) => self.ask(Asker { shard: from, token }, question, desk),
            Message::Cancel(token, group) => {
                let asker = Asker { shard: from, token };
                if let Some(index) = self.index_of(&group) {
                    self.with(index, desk, |partition, env, out| partition.cancel(asker, &group, env, out));
                }
            }
            Message::Answer(..) => panic!("answers are for connections"),
        }
        self.arm(desk);
    }

    fn ask(&mut self, asker: Asker, question: Question, desk: &mut Desk<'_>) {
        let Some(group) = question.group().cloned() else { return self.list(asker, desk) };
        let Some(index) = self.index_of(&group).filter(|index| self.partitions.contains_key(index)) else {
            return tell_answer(asker, Err(GroupError::NotCoordinator), desk);
        };
        let fresh = match &question {
            Question::Join(join) if join.member_id.is_empty() => {
                let name = join.instance_id.as_deref().unwrap_or(&join.client_id);
                fresh_id(name, [desk.out.random(), desk.out.random()])
            }
            _ => Arc::default(),
        };
        self.with(index, desk, |partition, env, out| partition.ask(asker, question, fresh, env, out));
    }

    fn list(&self, asker: Asker, desk: &mut Desk<'_>) {
        let answer = if self.partitions.values().all(Partition::is_loaded) {
            Ok(Outcome::Listed(self.partitions.values().flat_map(Partition::list).collect()))
        } else {
            Err(GroupError::Loading)
        };
        tell_answer(asker, answer, desk);
    }

    fn index_of(&self, group: &str) -> Option<u32> {
        let topic = topic::find(self.metadata.as_ref()?)?;
        Some(topic::partition_of(group, topic.slots.len() as u32))
    }

    /// A timer has run out.
    pub fn timer(&mut self, desk: &mut Desk<'_>) {
        let at = desk.out.now();
        if self.timer.is_some_and(|timer| timer <= at) {
            self.timer = None;
        }
        while let Some((index, group)) = self.looks.due(at) {
            self.with(index, desk, |partition, env, out| partition.time(&group, env, out));
        }
        self.load_more(desk);
        self.expire(desk);
        self.arm(desk);
    }

    /// Looks at the age of offsets, some groups at a time.
    fn expire(&mut self, desk: &mut Desk<'_>) {
        if self.topic.is_none() || desk.out.now() < self.expire_at {
            return;
        }
        let retention_ms = self.retention_ms;
        let (mut index, mut after) = self.expiring.take().unwrap_or_default();
        for _ in 0..GROUPS_EXPIRED_AT_ONCE {
            let next = self.partitions.get(&index).and_then(|partition| partition.next_group(after.as_ref()));
            match next {
                Some(group) => {
                    self.with(index, desk, |partition, env, out| {
                        partition.expire(&group, retention_ms, env, out);
                    });
                    after = Some(group);
                }
                None => {
                    after = None;
                    match self.partitions.range(index + 1..).next() {
                        Some((next, _)) => index = *next,
                        None => {
                            self.expire_at = desk.out.now() + self.retention_check;
                            return;
                        }
                    }
                }
            }
        }
        self.expiring = Some((index, after));
    }

    /// Sets a timer for what is due next, unless one that is set runs out before.
    fn arm(&mut self, desk: &mut Desk<'_>) {
        let expire = self.topic.map(|_| self.expire_at);
        let Some(next) = self.looks.next().into_iter().chain(expire).min() else { return };
        if self.timer.is_none_or(|timer| next < timer) {
            self.timer = Some(next);
            dispatch::set_timer(desk.out, desk.pending, Origin::GroupTimer, next);
        }
    }
}

fn now(desk: &Desk<'_>) -> Now {
    Now { mono: desk.out.now(), wall_ms: desk.out.wall_ms().0 }
}

fn tell_answer(asker: Asker, answer: Answer, desk: &mut Desk<'_>) {
    let message = Message::Answer(asker.token, answer);
    desk.out.tell(asker.shard, Box::new(message), None);
}

/// An id for a member: what its client calls itself, and a random UUID (RFC 9562, version 4).
fn fresh_id(name: &str, random: [u64; 2]) -> Arc<str> {
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&random[0].to_be_bytes());
    uuid[8..].copy_from_slice(&random[1].to_be_bytes());
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    let name = (0..=CLIENT_NAME_BYTES_MAX).rev().find_map(|end| name.get(..end)).unwrap_or(name);
    format!("{name}-{}", TopicId(uuid)).into()
}
