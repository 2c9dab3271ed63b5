//! A partition over a log in memory that is cut off wherever chance will have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_engine::buffer::Slice;
use millstream_engine::config::TopicConfig;
use millstream_engine::error::Refusal;
use millstream_engine::format::batch::{BatchHeader, check_produced, stamp};
use millstream_engine::io::random::Random;
use millstream_engine::reactor::app::AppToken;
use millstream_engine::shard::metadata::{Metadata, Topic};
use millstream_engine::shard::request::{Appended, Chunk, ReadReply, Reply};
use millstream_engine::time::Nanos;
use millstream_engine::types::{LeaderEpoch, Offset, ShardId, Slot, TopicId};

use super::{Env, Extent, Output, Partition, Tally};
use crate::coordinator::group::{Bounds, Now};
use crate::coordinator::offsets::Committed;
use crate::coordinator::question::{
    Answer, Asker, Commit, DeleteOffsets, GroupError, Join, Member, Offsets, Outcome, Position, Question,
    Sync, TopicCommit,
};
use crate::limits::OFFSET_METADATA_BYTES_MAX;

/// A partition's log, as the engine keeps it.
#[derive(Clone, Default)]
struct Log {
    batches: Vec<Vec<u8>>,
    next: u64,
    start: u64,
    trims: u64,
}

impl Log {
    fn append(&mut self, batch: &[u8]) -> Offset {
        let header = check_produced(batch).unwrap();
        let base = Offset(self.next);
        let mut stored = batch.to_vec();
        stamp(&mut stored, base, LeaderEpoch(1));
        self.batches.push(stored);
        self.next += u64::from(header.records);
        base
    }

    fn trim(&mut self, before: Offset) {
        self.trims += 1;
        self.start = before.0;
        self.batches.retain(|batch| BatchHeader::parse(batch).unwrap().next_offset() > before);
    }

    /// A few batches from an offset on.
    fn read(&self, offset: Offset) -> Reply {
        let (start, end) = (Offset(self.start), Offset(self.next));
        if offset < start || offset > end {
            return Reply::Refused(Refusal::OffsetOutOfRange { start, end });
        }
        let from =
            self.batches.iter().filter(|batch| BatchHeader::parse(batch).unwrap().next_offset() > offset);
        let bytes = from.take(3).map(|batch| Slice::from(batch.clone())).collect();
        Reply::Read(ReadReply { chunk: Chunk { bytes, range: None }, high_watermark: end, log_start: start })
    }
}

struct Rig {
    bounds: Bounds,
    now: Now,
    partition: Partition,
    log: Log,
    /// The batch that the engine has and has not answered.
    flying: Option<Slice>,
    trim: Option<Offset>,
    answers: BTreeMap<u64, Answer>,
    asked: u64,
    may_store: bool,
    has_offsets_room: bool,
    metadata: Metadata,
}

/// Topic `t` in one of its incarnations.
fn incarnation(number: u8) -> TopicId {
    TopicId([number; 16])
}

/// A node that has topic `t` in that incarnation.
fn metadata(number: u8) -> Metadata {
    let mut metadata = Metadata::default();
    let (name, slots) = ("t".to_owned(), vec![Slot(0)]);
    metadata.put(Topic::new(incarnation(number), name, Vec::new(), slots, &TopicConfig::default()));
    metadata
}

fn name(group: u64) -> Arc<str> {
    format!("group{group}").into()
}

impl Rig {
    fn new(log: Log) -> Rig {
        let mut rig = Rig {
            bounds: Bounds {
                initial_delay: Nanos::ZERO,
                session_ms: 1..=100_000,
                members_max: 10,
                member_bytes_max: 1 << 20,
                group_bytes_max: 1 << 20,
            },
            now: Now { mono: Nanos(1), wall_ms: 1_000_000 },
            partition: Partition::default(),
            log,
            flying: None,
            trim: None,
            answers: BTreeMap::new(),
            asked: 0,
            may_store: true,
            has_offsets_room: true,
            metadata: metadata(1),
        };
        rig.with(|partition, _, out| partition.load(out));
        rig
    }

    fn with(&mut self, work: impl FnOnce(&mut Partition, Env<'_>, &mut Vec<Output>)) {
        let mut out = Vec::new();
        let env = Env {
            bounds: &self.bounds,
            now: self.now,
            has_room: true,
            has_offsets_room: self.has_offsets_room,
            may_store: self.may_store,
            metadata: &self.metadata,
        };
        work(&mut self.partition, env, &mut out);
        let mut at = 0;
        while at < out.len() {
            if let Output::Read(offset) = out[at] {
                self.partition.loaded(self.log.read(offset), env, &mut out);
            }
            at += 1;
        }
        for output in out {
            match output {
                Output::Answer(asker, answer) => {
                    assert!(self.answers.insert(asker.token.0, answer).is_none(), "answered twice");
                }
                Output::Append(batch) => {
                    assert!(self.flying.replace(batch).is_none(), "one batch is under way at a time");
                }
                Output::Trim(before) => self.trim = Some(before),
                Output::Load(_) | Output::Retry => panic!("the log is sound, and its batches small"),
                Output::Read(_) | Output::LookBy(..) => {}
            }
        }
    }

    fn ask(&mut self, question: Question) -> u64 {
        self.asked += 1;
        let asker = Asker { shard: ShardId(0), token: AppToken(self.asked) };
        self.with(|partition, env, out| partition.ask(asker, question, "fresh".into(), env, out));
        self.asked
    }

    fn commit(&mut self, group: u64, partition: i32, offset: i64, text: usize) -> u64 {
        self.commit_of(1, group, partition, offset, text)
    }

    /// Commits for that incarnation of the topic.
    fn commit_of(&mut self, number: u8, group: u64, partition: i32, offset: i64, text: usize) -> u64 {
        let position = Position { offset, leader_epoch: 1, metadata: "x".repeat(text).into() };
        self.ask(Question::Commit(Commit {
            group: name(group),
            member: Member { id: "".into(), instance_id: None, generation: -1 },
            topics: vec![TopicCommit {
                name: "t".into(),
                id: incarnation(number),
                partitions: vec![(partition, position)],
            }],
        }))
    }

    /// The engine stores the batch under way, or refuses it.
    fn land(&mut self, ok: bool) {
        let Some(batch) = self.flying.take() else { return };
        let reply = if ok {
            let base_offset = self.log.append(&batch);
            Reply::Appended(Appended { base_offset, append_time: None, log_start: Offset(self.log.start) })
        } else {
            Reply::Refused(Refusal::DiskFull)
        };
        self.with(|partition, env, out| partition.appended(reply, env, out));
    }

    fn land_all(&mut self) {
        while self.flying.is_some() {
            self.land(true);
        }
    }

    fn offsets(&mut self, group: u64) -> BTreeMap<i32, i64> {
        let token = self.ask(Question::Offsets(Offsets { group: name(group), topics: None }));
        match self.answers.remove(&token) {
            Some(Ok(Outcome::Offsets(topics))) => topics
                .into_iter()
                .flat_map(|(_, partitions)| partitions)
                .map(|(partition, committed)| (partition, committed.unwrap().offset))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn committed(&mut self, token: u64) -> Option<Result<(), GroupError>> {
        match self.answers.remove(&token)? {
            Ok(Outcome::Committed(mut committed)) => Some(committed.remove(0)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Some(Err(error)),
        }
    }

    /// The process is killed: what was under way is stored or not, and another one reads the log.
    fn crash(&mut self, random: &mut Random) {
        let mut log = self.log.clone();
        if let Some(batch) = self.flying.take().filter(|_| random.chance(0.5)) {
            log.append(&batch);
        }
        if let Some(before) = self.trim.take().filter(|_| random.chance(0.5)) {
            log.trim(before);
        }
        let now = self.now;
        *self = Rig::new(log);
        self.now = now;
        assert!(self.partition.is_loaded());
    }
}

#[test]
fn a_commit_is_answered_when_it_is_durable_and_what_comes_meanwhile_shares_a_batch() {
    let mut rig = Rig::new(Log::default());
    let first = rig.commit(0, 0, 1, 0);
    let others = [rig.commit(0, 0, 2, 0), rig.commit(1, 0, 3, 0)];
    assert!(rig.answers.is_empty());
    assert!(rig.offsets(0).is_empty(), "what is not durable is not shown");
    rig.land(true);
    assert_eq!(rig.committed(first), Some(Ok(())));
    assert_eq!(rig.offsets(0), BTreeMap::from([(0, 1)]));
    rig.land(true);
    for token in others {
        assert_eq!(rig.committed(token), Some(Ok(())));
    }
    assert_eq!(rig.log.batches.len(), 2);
    assert_eq!((rig.offsets(0)[&0], rig.offsets(1)[&0]), (2, 3));
}

#[test]
fn a_commit_that_cannot_be_stored_changes_nothing() {
    let mut rig = Rig::new(Log::default());
    let token = rig.commit(0, 0, 1, 0);
    rig.land(false);
    assert_eq!(rig.committed(token), Some(Err(GroupError::NotAvailable)));
    assert!(rig.partition.is_empty(), "nor is the group remembered");
    let token = rig.commit(0, 0, 1, OFFSET_METADATA_BYTES_MAX + 1);
    assert_eq!(rig.committed(token), Some(Err(GroupError::MetadataTooLarge)));
    rig.may_store = false;
    let token = rig.commit(0, 0, 1, 0);
    assert_eq!(rig.committed(token), Some(Err(GroupError::NotAvailable)));
}

#[test]
fn a_deleted_group_stays_deleted_and_one_with_commits_under_way_is_not_deleted() {
    let mut rig = Rig::new(Log::default());
    let delete = || Question::Delete(name(0));
    let none = rig.ask(delete());
    assert!(matches!(rig.answers.remove(&none), Some(Err(GroupError::NotFound))));
    rig.commit(0, 0, 1, 0);
    let early = rig.ask(delete());
    assert!(matches!(rig.answers.remove(&early), Some(Err(GroupError::NotAvailable))));
    rig.land_all();
    let token = rig.ask(delete());
    let meanwhile = rig.commit(0, 0, 2, 0);
    assert_eq!(rig.committed(meanwhile), Some(Err(GroupError::NotAvailable)), "it is on its way out");
    rig.land_all();
    assert!(matches!(rig.answers.remove(&token), Some(Ok(Outcome::Done))));
    assert!(rig.partition.is_empty());
    let mut rig = Rig::new(rig.log);
    assert!(rig.partition.is_empty());
    assert!(rig.offsets(0).is_empty());
}

#[test]
fn offsets_outlive_their_use_by_the_retention_and_no_longer() {
    const RETENTION_MS: i64 = 1_000;
    let mut rig = Rig::new(Log::default());
    rig.commit(0, 0, 1, 0);
    rig.land_all();
    rig.now.wall_ms += RETENTION_MS / 2;
    rig.commit(0, 1, 1, 0);
    rig.land_all();
    rig.now.wall_ms += RETENTION_MS / 2;
    rig.with(|partition, env, out| partition.expire(&name(0), RETENTION_MS, env, out));
    rig.land_all();
    assert_eq!(rig.offsets(0).into_keys().collect::<Vec<_>>(), [1]);
    rig.now.wall_ms += RETENTION_MS / 2;
    rig.with(|partition, env, out| partition.expire(&name(0), RETENTION_MS, env, out));
    rig.land_all();
    assert!(rig.partition.is_empty());
    assert!(Rig::new(rig.log).partition.is_empty());
}

#[test]
fn nothing_expires_while_the_log_is_read() {
    let mut rig = Rig::new(Log::default());
    for offset in 1..=5 {
        rig.commit(0, 0, offset, 0);
        rig.land_all();
    }
    let env = Env {
        bounds: &rig.bounds,
        now: rig.now,
        has_room: true,
        has_offsets_room: true,
        may_store: true,
        metadata: &rig.metadata,
    };
    let mut partition = Partition::default();
    let mut out = Vec::new();
    partition.load(&mut out);
    partition.loaded(rig.log.read(Offset(0)), env, &mut out);
    assert!(!partition.is_loaded() && partition.len() == 1);
    partition.expire(&name(0), 0, env, &mut out);
    partition.loaded(rig.log.read(Offset(3)), env, &mut out);
    assert!(partition.is_loaded());
    rig.partition = partition;
    assert_eq!(rig.offsets(0)[&0], 5);
    let token = rig.commit(0, 0, 6, 0);
    rig.land_all();
    assert_eq!(rig.committed(token), Some(Ok(())), "the group is not taken for one that is being deleted");
}

#[test]
fn what_is_committed_of_a_topic_goes_with_it() {
    let mut rig = Rig::new(Log::default());
    rig.commit(0, 0, 1, 0);
    rig.commit(1, 0, 1, 0);
    rig.land_all();
    rig.metadata = Metadata::default();
    rig.with(Partition::forget_topics);
    assert!(rig.offsets(0).is_empty(), "nobody is told of it even before that is durable");
    rig.land_all();
    rig.metadata = metadata(1);
    assert!(rig.offsets(0).is_empty() && rig.offsets(1).is_empty());
    assert!(Rig::new(rig.log).offsets(0).is_empty());
}

#[test]
fn a_topic_that_is_made_anew_inherits_nothing_of_a_commit_that_was_under_way() {
    let mut rig = Rig::new(Log::default());
    let first = rig.commit(0, 0, 7, 0);
    rig.metadata = metadata(2);
    rig.with(Partition::forget_topics);
    rig.land_all();
    assert_eq!(rig.committed(first), Some(Ok(())));
    assert!(rig.offsets(0).is_empty(), "it was committed for the topic before");
    let late = rig.commit_of(1, 0, 0, 8, 0);
    assert_eq!(rig.committed(late), Some(Err(GroupError::UnknownTopic)));
    // The same after a crash, even though nothing has been forgotten yet.
    let mut after = Rig::new(rig.log.clone());
    after.metadata = metadata(2);
    assert!(after.offsets(0).is_empty());
    // What is committed for the new one stays, whenever the old one's is forgotten.
    rig.commit_of(2, 0, 0, 3, 0);
    rig.with(Partition::forget_topics);
    rig.land_all();
    assert_eq!(rig.offsets(0), BTreeMap::from([(0, 3)]));
    // And what was stored without an incarnation, by Kafka for one, holds for the topic of that name.
    let committed = rig.partition.groups[&name(0)].offsets.get("t", 0).unwrap().clone();
    assert!(Committed { topic: None, ..committed }.is_about("t", &rig.metadata));
}

#[test]
fn offsets_of_a_topic_that_is_gone_expire_at_once() {
    let mut rig = Rig::new(Log::default());
    let token = rig.commit(0, 0, 7, 0);
    rig.metadata = metadata(2);
    rig.land_all();
    assert_eq!(rig.committed(token), Some(Ok(())));
    rig.with(|partition, env, out| partition.expire(&name(0), i64::MAX, env, out));
    rig.land_all();
    assert!(rig.partition.is_empty());
}

#[test]
fn without_room_offsets_may_move_on_but_not_become_more() {
    let mut rig = Rig::new(Log::default());
    rig.commit(0, 0, 1, 10);
    rig.land_all();
    rig.has_offsets_room = false;
    for (group, partition, text) in [(0, 1, 0), (1, 0, 0), (0, 0, 11)] {
        let token = rig.commit(group, partition, 2, text);
        assert_eq!(rig.committed(token), Some(Err(GroupError::TooLarge)), "{group} {partition} {text}");
    }
    let token = rig.commit(0, 0, 3, 10);
    rig.land_all();
    assert_eq!(rig.committed(token), Some(Ok(())));
    assert_eq!(rig.offsets(0), BTreeMap::from([(0, 3)]));
}

fn join(group: u64) -> Question {
    Question::Join(Join {
        group: name(group),
        member_id: "".into(),
        instance_id: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), [1, 2, 3].into())],
        takes_id_first: false,
        skips_assignment: false,
    })
}

#[test]
fn everything_is_counted_as_it_comes_and_goes() {
    let mut rig = Rig::new(Log::default());
    rig.commit(0, 0, 1, 0);
    rig.commit(0, 1, 1, 0);
    assert!(rig.partition.extent().queued_bytes > 0);
    rig.land_all();
    rig.ask(join(1));
    let extent = rig.partition.extent();
    assert_eq!((extent.groups, extent.members, extent.offsets, extent.queued_bytes), (2, 1, 2, 0));
    assert!(extent.member_bytes > 0 && extent.offsets_bytes > 0);
    assert_eq!(rig.partition.take_tally(), Tally { generations: 1, commits: 2 });
    assert_eq!(rig.partition.take_tally(), Tally::default());
    let read = Rig::new(rig.log.clone()).partition.extent();
    assert_eq!((read.groups, read.offsets, read.offsets_bytes), (1, 2, extent.offsets_bytes));
    // Nobody assigns: the member is silent for too long.
    rig.now.mono = Nanos::from_millis(60_000);
    rig.with(|partition, env, out| partition.time(&name(1), env, out));
    rig.land_all();
    rig.ask(Question::Delete(name(0)));
    rig.ask(Question::Delete(name(1)));
    rig.land_all();
    assert_eq!(rig.partition.extent(), Extent::default());
}

#[test]
fn whoever_waits_when_the_partition_goes_is_told_so() {
    let mut rig = Rig::new(Log::default());
    let flying = rig.commit(0, 0, 1, 0);
    let queued = rig.commit(0, 1, 1, 0);
    let joined = rig.ask(join(1));
    let synced = match rig.answers.remove(&joined) {
        Some(Ok(Outcome::Joined(joined))) => rig.ask(Question::Sync(Sync {
            group: name(1),
            member: Member { id: joined.member_id, instance_id: None, generation: joined.generation },
            protocol_type: None,
            protocol: None,
            assignments: Vec::new(),
        })),
        other => panic!("{other:?}"),
    };
    rig.with(|partition, _, out| partition.abandon(out));
    for token in [flying, queued, synced] {
        assert!(matches!(rig.answers.remove(&token), Some(Err(GroupError::NotCoordinator))), "{token}");
    }
    assert!(rig.answers.is_empty());
}

/// Commits, deletions and crashes from seeds. An acknowledged commit is never lost nor goes back; an acknowledged deletion
/// holds; and the log stays short, though it is written to for ever.
#[test]
fn what_was_acknowledged_survives_a_crash_at_any_point_of_a_snapshot() {
    const GROUPS: u64 = 200;
    let (mut trims, mut crashes) = (0, 0);
    for seed in 0..4 {
        let mut random = Random::stream(seed, "partition");
        let mut rig = Rig::new(Log::default());
        // Per group: what was acknowledged, and what was asked for since; zero stands for "deleted".
        let mut acknowledged: BTreeMap<u64, i64> = BTreeMap::new();
        let mut asked: BTreeMap<u64, Vec<(u64, i64)>> = BTreeMap::new();
        for step in 1..3_000 {
            let group = random.below(GROUPS);
            if random.chance(0.02) {
                let topics = vec![("t".into(), vec![0])];
                let delete = Question::DeleteOffsets(DeleteOffsets { group: name(group), topics });
                let token = rig.ask(delete);
                asked.entry(group).or_default().push((token, 0));
            } else {
                let text = random.below(OFFSET_METADATA_BYTES_MAX as u64) as usize;
                let token = rig.commit(group, 0, step, text);
                asked.entry(group).or_default().push((token, step));
            }
            if random.chance(0.7) {
                rig.land(!random.chance(0.05));
            }
            if random.chance(0.3)
                && let Some(before) = rig.trim.take()
            {
                rig.log.trim(before);
            }
            for (group, asked) in &mut asked {
                while let Some((token, value)) = asked.first().copied()
                    && let Some(answer) = rig.committed(token)
                {
                    asked.remove(0);
                    if answer.is_ok() {
                        acknowledged.insert(*group, value);
                    }
                }
            }
            if random.chance(0.01) {
                trims += rig.log.trims;
                rig.crash(&mut random);
                rig.log.trims = 0;
                crashes += 1;
                for group in 0..GROUPS {
                    let found = rig.offsets(group).get(&0).copied().unwrap_or(0);
                    let known = acknowledged.get(&group).copied().unwrap_or(0);
                    let since = asked.remove(&group).unwrap_or_default();
                    let possible = found == known || since.iter().any(|(_, value)| *value == found);
                    assert!(possible, "seed {seed}, group {group}: {found} after {known} and {since:?}");
                    acknowledged.insert(group, found);
                }
            }
            let bytes: usize = rig.log.batches.iter().map(Vec::len).sum();
            assert!(bytes < 8 << 20, "seed {seed}: the log takes {bytes} bytes");
        }
    }
    assert!(trims > 4 && crashes > 80, "{trims} trims and {crashes} crashes mean little");
}
