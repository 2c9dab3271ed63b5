//! Kafka's clients of a broker's story: sound ones that produce, read and commit, and hostile ones. What the sound ones were
//! promised is remembered by the same model as in the engine's own simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use millstream::limits::{
    FETCH_BYTES_HELD_MAX, REQUEST_BYTES_IN_FLIGHT_MAX, RESPONSE_BYTES_WAITING_MAX, SEND_BYTES,
};
use millstream_engine::buffer::Slice;
use millstream_engine::format::batch::BatchBuilder;
use millstream_engine::io::random::Random;
use millstream_engine::time::Nanos;
use millstream_engine::types::{Durability, PartitionId, ShardId, TopicId};

use super::client::{Answer, Ask, Client};
use super::hostile::Hostile;
use crate::broker::story::PARTITIONS;
use crate::broker::{End, Node, Side, Stage};
use crate::sim::model::{Model, Outcome, Sent};
use crate::sim::partition::{Partition, Stored};

const TOPICS: [&str; 2] = ["orders", "events"];
/// Requests that a sound client has under way, at most.
const UNDER_WAY: usize = 6;
/// Steps after which an answer is given up.
const PATIENCE: u32 = 200_000;
/// Bytes of answers that one connection may get to what it had begun before there were too many.
const ANSWERS_BEGUN_BYTES: usize = 64 << 10;
/// Groups whose commits are read back when a life begins: the last ones.
const GROUPS_READ_BACK: usize = 20;
/// Error codes of a coordinator that is not there yet.
const NOT_YET: [i16; 3] = [14, 15, 16];

/// Who is there, and what they do.
#[derive(Clone, Debug)]
pub struct Cast {
    /// Sound clients.
    pub sound: usize,
    /// Hostile clients at a time.
    pub hostile: usize,
    /// The `acks` that are asked for.
    pub acks: Vec<i16>,
    /// Whether batches may be larger than a group of the journal.
    pub large: bool,
    /// Whether anybody reads, beside the judge.
    pub reads: bool,
    /// Whether offsets are committed.
    pub commits: bool,
}

impl Cast {
    /// Everything at once.
    pub fn whole(random: &mut Random) -> Cast {
        Cast {
            sound: random.between(1, 4) as usize,
            hostile: random.below(9) as usize,
            acks: vec![0, 1, -1, -1],
            large: true,
            reads: true,
            commits: true,
        }
    }

    /// Some of it.
    pub fn swarm(random: &mut Random) -> Cast {
        let whole = Cast::whole(random);
        let acks = [vec![-1], vec![1], vec![1, -1], vec![0, 1, -1, -1]];
        Cast {
            hostile: if random.chance(0.5) { whole.hostile } else { 0 },
            acks: acks[random.below(4) as usize].clone(),
            large: random.chance(0.5),
            reads: random.chance(0.7),
            commits: random.chance(0.6),
            ..whole
        }
    }
}

/// What is known of a group's offset of a partition.
#[derive(Default)]
struct Committed {
    /// All that was ever asked to be committed.
    asked: BTreeSet<u64>,
    /// What it is at least.
    promised: Option<u64>,
}

/// A sound client, what it is called, and what its batches of this connection are.
struct Sound {
    client: Client,
    sender: u64,
    /// The batches under way, in order, and the one that each answered fetch goes on from.
    batches: BTreeMap<Vec<u8>, u64>,
    next: BTreeMap<PartitionId, u64>,
}

/// Kafka's clients.
pub struct Kafka {
    cast: Cast,
    random: Random,
    model: Model,
    topics: BTreeMap<String, TopicId>,
    committed: BTreeMap<(u64, PartitionId), Committed>,
    sound: Vec<Sound>,
    hostile: Vec<Hostile>,
    numbers: u64,
    done: BTreeMap<&'static str, u64>,
}

impl Side for Kafka {
    fn begin(&mut self, stage: &mut Stage<'_>, _last: bool) {
        self.audit(stage);
    }

    fn turn(&mut self, stage: &mut Stage<'_>, asks: bool) {
        self.sound_clients(stage, asks);
        if asks {
            self.hostile_clients(stage);
        }
    }

    fn waits(&self) -> Option<Box<dyn fmt::Debug + '_>> {
        let mut connected = self.sound.iter().filter(|one| !one.client.peer.is_closed());
        connected.find_map(|one| one.client.waiting().next()).map(|ask| Box::new(ask) as _)
    }

    fn leave(&mut self) {
        for guest in std::mem::take(&mut self.hostile) {
            guest.leave(&mut self.random);
        }
        for one in std::mem::take(&mut self.sound) {
            one.client.peer.close();
        }
    }

    fn gone(&mut self, _stage: &mut Stage<'_>) {}

    fn ended(&mut self, end: End, _trouble_at: Option<Nanos>, _now: Nanos) {
        match end {
            End::Stopped => self.model.stopped(),
            End::Crashed(crash) => self.model.crashed(crash),
        }
        self.sound.clear();
        self.hostile.clear();
    }

    fn violations(&self) -> &[String] {
        &self.model.violations
    }

    fn done(&self) -> BTreeMap<&'static str, u64> {
        self.done.clone()
    }

    fn check_bounds(&mut self, stage: &Stage<'_>) {
        let Stage { node, config, .. } = stage;
        let request_bytes = config.request_bytes_max;
        // What one connection may hold: its requests, one of which may be larger than all the others; its answers, with
        // one more that was begun when there still was room; and what is being sent.
        let connection_bytes = REQUEST_BYTES_IN_FLIGHT_MAX
            + request_bytes
            + RESPONSE_BYTES_WAITING_MAX
            + FETCH_BYTES_HELD_MAX
            + SEND_BYTES
            + request_bytes;
        for shard in 0..node.shards() {
            let most = node.app(ShardId(shard)).held_bytes().max().unwrap_or(0);
            let held = self.done.entry("most bytes of a connection").or_default();
            *held = (*held).max(most as u64);
            if most > connection_bytes {
                self.model.violated(format!("a connection holds {most} bytes"));
            }
            let app = node.app(ShardId(shard));
            let answers = self.done.entry("most bytes of all answers").or_default();
            *answers = (*answers).max(app.answer_bytes() as u64);
            if app.answer_bytes() > config.answer_bytes_max + ANSWERS_BEGUN_BYTES * app.connections() {
                self.model.violated(format!("{} bytes of answers wait", app.answer_bytes()));
            }
            let memory = node.shard(ShardId(shard)).memory();
            if memory["slow"] > config.engine.pinned_bytes as usize {
                self.model.violated(format!("slow readers hold {memory:?}"));
            }
        }
    }
}

impl Kafka {
    /// The clients of a seed's story.
    pub fn new(seed: u64, cast: Cast) -> Kafka {
        Kafka {
            cast,
            random: Random::stream(seed, "kafka side"),
            model: Model::default(),
            topics: BTreeMap::new(),
            committed: BTreeMap::new(),
            sound: Vec::new(),
            hostile: Vec::new(),
            numbers: 0,
            done: ["acked", "fetched", "committed", "guests"].map(|name| (name, 0)).into(),
        }
    }

    fn count(&mut self, name: &'static str) {
        *self.done.entry(name).or_default() += 1;
    }

    fn hostile_clients(&mut self, stage: &Stage<'_>) {
        while self.hostile.len() < self.cast.hostile {
            self.count("guests");
            self.hostile.push(Hostile::connect(stage.world, stage.addresses[0], &mut self.random));
        }
        for guest in &mut self.hostile {
            if self.random.chance(0.3) {
                let topic = TOPICS[self.random.below(2) as usize];
                guest.act(topic, &mut self.random);
            }
        }
        let random = &mut self.random;
        self.hostile.retain(|guest| {
            let goes = guest.is_over() || random.chance(0.002);
            if goes {
                guest.leave(random);
            }
            !goes
        });
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn sound_clients(&mut self, stage: &Stage<'_>, asks: bool) {
        while self.sound.len() < self.cast.sound && asks {
            let client = Client::connect(stage.world, stage.addresses[0]);
            let sender = self.number();
            self.sound.push(Sound { client, sender, batches: BTreeMap::new(), next: BTreeMap::new() });
        }
        for mut one in std::mem::take(&mut self.sound) {
            match one.client.answers() {
                Ok(answers) => {
                    for (ask, answer) in answers {
                        self.answered(stage, &mut one, &ask, answer);
                    }
                }
                Err(what) => self.model.violated(what),
            }
            if one.client.peer.is_closed() {
                // A reset: of what was under way nobody knows whether it is stored.
                for id in one.batches.into_values() {
                    self.unanswered(id);
                }
                continue;
            }
            if asks && one.client.waiting().count() < UNDER_WAY && self.random.chance(0.3) {
                self.ask(&mut one);
            }
            self.sound.push(one);
        }
    }

    fn unanswered(&mut self, id: u64) {
        if let Some(sent) = self.model.sent.get_mut(&id).filter(|sent| sent.outcome == Outcome::Pending) {
            (sent.outcome, sent.maybe) = (Outcome::Unknown, true);
        }
    }

    fn ask(&mut self, one: &mut Sound) {
        let name = TOPICS[self.random.below(2) as usize].to_owned();
        let pick = self.random.next();
        let Some(topic) = self.topics.get(&name).copied() else {
            return one.client.ask(Ask::Topic(name), pick);
        };
        let index = self.random.below(u64::from(PARTITIONS)) as u32;
        let of = PartitionId { topic, index };
        let known = self.model.partitions.get(&of).map_or(0, |known| known.high_watermark);
        let (topic, index) = (name, index as i32);
        let ask = match self.random.below(22) {
            0 => Ask::Versions,
            1 => Ask::Topic(topic),
            20 | 21 if self.cast.commits => self.ask_of_group(one.sender, of, topic),
            2 | 3 if self.cast.reads => {
                Ask::List { topic, index, timestamp: -1 - self.random.below(2) as i64 }
            }
            4..=9 if self.cast.reads => {
                let offset = match self.random.below(3) {
                    0 => known,
                    1 => self.random.below(known + 1),
                    _ => one.next.get(&of).copied().unwrap_or(0),
                };
                let max_bytes = [1, 5_000, 1 << 20][self.random.below(3) as usize];
                let max_wait_ms = self.random.below(50) as i32;
                Ask::Fetch { topic, index, offset, max_bytes, max_wait_ms }
            }
            _ => {
                let id = self.number();
                let batch = self.batch(id);
                let acks = self.cast.acks[self.random.below(self.cast.acks.len() as u64) as usize];
                let bytes = Slice::from(batch.clone());
                let sender = Some(one.sender);
                self.model.sent.insert(
                    id,
                    Sent { partition: of, sender, bytes, outcome: Outcome::Pending, maybe: false },
                );
                one.batches.insert(batch.clone(), id);
                Ask::Produce { topic, index, acks, batch }
            }
        };
        one.client.ask(ask, pick);
    }

    /// Something about the group that a client is alone in.
    fn ask_of_group(&mut self, group: u64, of: PartitionId, topic: String) -> Ask {
        let index = of.index as i32;
        let name = format!("group-{group}");
        match self.random.below(6) {
            0 => Ask::Coordinator(name),
            1 | 2 => {
                let promised = self.committed.get(&(group, of)).and_then(|known| known.promised);
                let at_least = promised.map_or(-1, |offset| offset as i64);
                Ask::Committed { group: name, topic, index, at_least }
            }
            _ => {
                let known = self.committed.entry((group, of)).or_default();
                let offset = known.asked.last().map_or(1, |last| last + 1);
                known.asked.insert(offset);
                Ask::Commit { group: name, topic, index, offset }
            }
        }
    }

    /// A group's offset is at least what was promised, and something that was asked for.
    fn found_committed(&mut self, group: u64, of: PartitionId, found: i64, at_least: i64) {
        let known = self.committed.entry((group, of)).or_default();
        let is_known = found == -1 || known.asked.contains(&(found as u64));
        if found < at_least || !is_known {
            let asked = known.asked.last();
            self.model.violated(format!(
                "group {group} of {of} has committed {found}; {at_least} was promised, {asked:?} asked last"
            ));
        } else if found >= 0 {
            known.promised = known.promised.max(Some(found as u64));
        }
    }

    fn batch(&mut self, id: u64) -> Vec<u8> {
        let size = match self.random.below(20) {
            0 if self.cast.large => self.random.between(100_000, 700_000),
            1..=8 => self.random.between(1_000, 20_000),
            _ => self.random.between(1, 600),
        } as usize;
        let mut value = vec![0; size];
        for (chunk, place) in value.chunks_mut(8).zip(0_u64..) {
            let bytes = (id << 24 ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        let mut builder = BatchBuilder::new(1_700_000_000_000 + id as i64);
        builder.push(Some(&id.to_be_bytes()), Some(&value));
        for _ in 0..self.random.below(3) {
            builder.push(None, Some(b"more"));
        }
        builder.build()
    }

    fn partition(&self, topic: &str, index: i32) -> Option<PartitionId> {
        self.topics.get(topic).map(|topic| PartitionId { topic: *topic, index: index as u32 })
    }

    fn answered(&mut self, stage: &Stage<'_>, one: &mut Sound, ask: &Ask, answer: Answer) {
        match (ask, answer) {
            (Ask::Versions, Answer::Versions(apis)) if !apis.is_empty() => {}
            // "No leader yet": it is being made.
            (Ask::Topic(name), Answer::Topic(error @ (0 | 5), partitions)) => {
                if error == 0 && partitions != PARTITIONS as usize {
                    self.model.violated(format!("{name} has {partitions} partitions"));
                }
                if error == 0 {
                    self.learn(stage.node, name);
                }
            }
            (Ask::Produce { acks, batch, .. }, Answer::Produced(0, base)) => {
                let durability = if *acks == 1 { Durability::Written } else { Durability::Durable };
                let id = one.batches.remove(batch).expect("it was sent on this connection");
                self.model.acked(id, base as u64, durability);
                self.count("acked");
            }
            (
                Ask::Fetch { topic, index, offset, .. },
                Answer::Fetched { error: 0, high_watermark, bytes },
            ) => {
                let Some(of) = self.partition(topic, *index) else { return };
                let stored = self.model.read(of, *offset, &bytes, high_watermark as u64, false);
                if let Some(last) = stored.last() {
                    self.count("fetched");
                    one.next.insert(of, last.next);
                }
            }
            (Ask::List { topic, index, timestamp }, Answer::Listed(0, offset)) => {
                let Some(of) = self.partition(topic, *index) else { return };
                let Some(known) = self.model.partitions.get_mut(&of) else { return };
                if *timestamp == -1 {
                    known.high_watermark = known.high_watermark.max(offset as u64);
                } else if offset != 0 {
                    self.model.violated(format!("{of} starts at {offset}, and nobody has moved its start"));
                }
            }
            (Ask::Coordinator(_), Answer::Done(error)) if error == 0 || NOT_YET.contains(&error) => {}
            (Ask::Commit { topic, index, offset, .. }, Answer::Done(0)) => {
                let Some(of) = self.partition(topic, *index) else { return };
                let known = self.committed.entry((one.sender, of)).or_default();
                known.promised = known.promised.max(Some(*offset));
                self.count("committed");
            }
            (Ask::Committed { topic, index, at_least, .. }, Answer::Listed(0, found)) => {
                let Some(of) = self.partition(topic, *index) else { return };
                self.found_committed(one.sender, of, found, *at_least);
            }
            (Ask::Commit { .. }, Answer::Done(error)) | (Ask::Committed { .. }, Answer::Listed(error, _))
                if NOT_YET.contains(&error) => {}
            // What was refused may be there all the same: a flush that fails may have written.
            (Ask::Produce { batch, .. }, Answer::Produced(..)) if stage.trouble => {
                one.batches.remove(batch).into_iter().for_each(|id| self.unanswered(id));
            }
            (_, Answer::Topic(..) | Answer::Fetched { .. } | Answer::Listed(..) | Answer::Done(_))
                if stage.trouble => {}
            (ask, answer) => {
                let ask: String = format!("{ask:?}").chars().take(200).collect();
                self.model.violated(format!("{ask} was answered {answer:?}"));
            }
        }
    }

    /// A topic is there: from now on it stays.
    fn learn(&mut self, node: &Node, name: &str) {
        let found = node.metadata(ShardId(0)).topic(name).map(|topic| topic.id);
        match (self.topics.get(name), found) {
            (Some(known), Some(found)) if *known == found => {}
            (None, Some(found)) => {
                self.topics.insert(name.to_owned(), found);
                for index in 0..PARTITIONS {
                    self.model.partitions.insert(PartitionId { topic: found, index }, Partition::default());
                }
            }
            (known, found) => {
                self.model.violated(format!("topic {name} was {known:?}, and is {found:?}"));
            }
        }
    }

    /// Reads everything back over the wire.
    fn audit(&mut self, stage: &mut Stage<'_>) {
        let names: Vec<String> = self.topics.keys().cloned().collect();
        let mut client = Client::connect(stage.world, stage.addresses[0]);
        for name in names {
            self.learn(stage.node, &name);
            for index in 0..PARTITIONS {
                let Some(topic) = self.topics.get(&name).copied() else { continue };
                let of = PartitionId { topic, index };
                let mut content: Vec<Stored> = Vec::new();
                let mut offset = 0;
                let high_watermark = loop {
                    let ask = Ask::Fetch {
                        topic: name.clone(),
                        index: index as i32,
                        offset,
                        max_bytes: 1 << 20,
                        max_wait_ms: 0,
                    };
                    let Some(answer) = self.wait(stage, &mut client, ask) else { return };
                    let Answer::Fetched { error: 0, high_watermark, bytes } = answer else {
                        return self
                            .model
                            .violated(format!("{of}: a fetch at {offset} was answered {answer:?}"));
                    };
                    let stored = self.model.read(of, offset, &bytes, high_watermark as u64, false);
                    let Some(last) = stored.last() else { break high_watermark as u64 };
                    offset = last.next;
                    content.extend(stored);
                };
                self.model.audited(of, (0, high_watermark), &content, false);
            }
        }
        self.audit_commits(stage, &mut client);
        client.peer.close();
    }

    fn audit_commits(&mut self, stage: &mut Stage<'_>, client: &mut Client) {
        let promised: Vec<(u64, PartitionId, i64)> = (self.committed.iter().rev())
            .filter_map(|((group, of), known)| Some((*group, *of, known.promised? as i64)))
            .take(GROUPS_READ_BACK)
            .collect();
        for (group, of, at_least) in promised {
            let Some(topic) =
                self.topics.iter().find(|(_, id)| **id == of.topic).map(|(name, _)| name.clone())
            else {
                continue;
            };
            let found = loop {
                let (group, topic) = (format!("group-{group}"), topic.clone());
                let ask = Ask::Committed { group, topic, index: of.index as i32, at_least };
                match self.wait(stage, client, ask) {
                    Some(Answer::Listed(0, found)) => break found,
                    Some(Answer::Listed(error, _)) if NOT_YET.contains(&error) => {}
                    Some(other) => return self.model.violated(format!("commits are answered {other:?}")),
                    None => return,
                }
            };
            self.found_committed(group, of, found, at_least);
        }
    }

    fn wait(&mut self, stage: &mut Stage<'_>, client: &mut Client, ask: Ask) -> Option<Answer> {
        let pick = self.random.next();
        client.ask(ask.clone(), pick);
        for _ in 0..PATIENCE {
            match client.answers() {
                Ok(mut answers) => {
                    if let Some((_, answer)) = answers.pop() {
                        return Some(answer);
                    }
                }
                Err(what) => {
                    self.model.violated(what);
                    return None;
                }
            }
            stage.node.step();
        }
        self.model.violated(format!("{ask:?} is not answered"));
        None
    }
}
