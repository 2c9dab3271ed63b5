//! A consumer group in a simulated world: members that join, leave and die at random, the leader of each generation sharing
//! out the partitions, and a judge who sees what each is given, commits and reads. Some have lasting names, which are
//! taken over from them while they go on as if nothing were; and the broker crashes under all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    FetchRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    OffsetCommitRequest, OffsetFetchRequest, ResponseHeader, SyncGroupRequest, TopicName, fetch_request,
    join_group_request, offset_commit_request, offset_fetch_request, sync_group_request,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use millstream::broker::Broker;
use millstream::config::{GroupConfig, ServerConfig};
use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::format::batch::{BatchBuilder, BatchHeader};
use millstream_engine::io::fault::Faults;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{Crash, SimPeer, Survivors, World};
use millstream_engine::time::Nanos;

use super::client::{Answer, Ask, Client, frame};
use crate::sim::canary::{Cage, Canary};
use crate::sim::node::SimNode;

const TOPIC: &str = "jobs";
const GROUP: &str = "workers";
/// Versions of the requests that members send.
const FIND: i16 = 2;
const JOIN: i16 = 5;
const SYNC: i16 = 3;
const HEARTBEAT: i16 = 3;
const LEAVE: i16 = 2;
const COMMIT: i16 = 7;
const OFFSETS: i16 = 5;
const FETCH: i16 = 11;
/// Error codes that send a member back to join, with its id and without.
const REBALANCE_IN_PROGRESS: i16 = 27;
const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER_ID: i16 = 25;
const MEMBER_ID_REQUIRED: i16 = 79;
/// Another has taken a lasting name over.
const FENCED_INSTANCE_ID: i16 = 82;
/// The coordinator is not there yet.
const NOT_AVAILABLE: i16 = 15;
const LOADING: i16 = 14;
const NOT_COORDINATOR: i16 = 16;

const HEARTBEAT_EVERY: Nanos = Nanos::from_millis(1_000);
const SESSION_MS: i32 = 6_000;
const REBALANCE_MS: i32 = 5_000;
const FETCH_WAIT_MS: i32 = 100;
/// In which everything is read and committed, when nobody comes or goes any more.
const PEACE: Nanos = Nanos::from_millis(240_000);

/// A story to be run.
#[derive(Clone, Debug)]
pub struct GroupStory {
    /// All chance comes from here.
    pub seed: u64,
    /// Members at a time.
    pub members: usize,
    /// Partitions of their topic.
    pub partitions: u32,
    /// Batches of each partition, which come in the course of the unrest.
    pub batches: u64,
    /// For how long members come and go.
    pub unrest: Nanos,
    /// How often the broker crashes meanwhile.
    pub crashes: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct GroupOutcomes {
    /// Broken promises; none if all is well.
    pub violations: Vec<String>,
    /// The last generation.
    pub generations: i32,
    /// Members that came.
    pub came: u64,
    /// Members that died without a word.
    pub died: u64,
    /// Commits that were taken, and that were refused to members of an outdated generation.
    pub commits: (u64, u64),
    /// Members that were told that another has their name.
    pub fenced: u64,
}

/// What all members have done so far.
#[derive(Default)]
struct Judge {
    violations: Vec<String>,
    owners: BTreeMap<(i32, i32), String>,
    /// By partition: the generation that committed last, and what.
    committed: BTreeMap<i32, (i32, i64)>,
    read: BTreeMap<i32, BTreeSet<u64>>,
    generations: i32,
    commits: (u64, u64),
    fenced: u64,
    /// By lasting name: how often somebody has come under it, and who was the last to be let in.
    names: BTreeMap<u64, (u32, u64)>,
}

impl Judge {
    /// Whether another has surely taken this member's name over: it was let in, and nobody has come under that name since.
    fn is_taken(&self, member: &Member) -> bool {
        let name = member.lasting.and_then(|lasting| self.names.get(&lasting));
        name.is_some_and(|(came, holder)| *came == 2 && *holder != member.name)
    }
}

/// What a member waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Awaits {
    Nothing,
    Coordinator,
    Join,
    Sync,
    Heartbeat,
    Offsets(BTreeMap<i32, (i32, i64)>),
    Fetch,
    /// With whether its name was taken over before.
    Commit(Vec<(i32, i64)>, bool),
    Leave,
}

struct Member {
    peer: SimPeer,
    name: u64,
    /// Its lasting name, which others may have had before and may have after it.
    lasting: Option<u64>,
    inbox: Vec<u8>,
    sent: i32,
    awaits: Awaits,
    id: StrBytes,
    generation: i32,
    /// Whether it has its partitions.
    settled: bool,
    assignment: Vec<i32>,
    /// Where it reads on, by partition, once it knows.
    positions: BTreeMap<i32, i64>,
    /// What it has read and not committed.
    dirty: BTreeSet<i32>,
    next_heartbeat: Nanos,
    leaves: bool,
    gone: bool,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

fn topic() -> TopicName {
    TopicName(text(TOPIC))
}

impl Member {
    fn connect(world: &World, address: SocketAddr, name: u64, lasting: Option<u64>) -> Member {
        Member {
            peer: world.connect(address),
            name,
            lasting,
            inbox: Vec::new(),
            sent: 0,
            awaits: Awaits::Nothing,
            id: text(""),
            generation: -1,
            settled: false,
            assignment: Vec::new(),
            positions: BTreeMap::new(),
            dirty: BTreeSet::new(),
            next_heartbeat: Nanos::ZERO,
            leaves: false,
            gone: false,
        }
    }

    /// Goes on over a new connection, as what it was: what it had not been answered may have happened or not.
    fn reconnect(&mut self, world: &World, address: SocketAddr) {
        self.peer = world.connect(address);
        self.inbox.clear();
        self.sent = 0;
        match std::mem::replace(&mut self.awaits, Awaits::Nothing) {
            Awaits::Join | Awaits::Sync => self.settled = false,
            Awaits::Commit(offsets, _) => self.dirty.extend(offsets.iter().map(|(index, _)| *index)),
            _ => {}
        }
    }

    fn instance(&self) -> Option<StrBytes> {
        self.lasting.map(|lasting| text(&format!("name-{lasting}")))
    }

    /// Who owns what it owns: whoever has its lasting name, if it has one.
    fn owner(&self) -> String {
        self.lasting.map_or_else(|| format!("member {}", self.name), |lasting| format!("name {lasting}"))
    }

    fn send<R: Request + HeaderVersion>(&mut self, version: i16, request: &R, awaits: Awaits) {
        self.sent += 1;
        self.peer.send(&frame(version, self.sent, request));
        self.awaits = awaits;
    }

    /// The next answer that has arrived whole.
    fn arrived(&mut self) -> Option<Bytes> {
        self.inbox.extend(self.peer.received());
        let (length, rest) = self.inbox.split_first_chunk::<4>()?;
        let message = Bytes::copy_from_slice(rest.get(..u32::from_be_bytes(*length) as usize)?);
        self.inbox.drain(..4 + message.len());
        Some(message)
    }

    fn read<R: Request>(&self, version: i16, mut bytes: Bytes) -> R::Response
    where
        R::Response: HeaderVersion + Decodable,
    {
        let header = ResponseHeader::decode(&mut bytes, R::Response::header_version(version));
        assert_eq!(header.expect("a response has a header").correlation_id, self.sent);
        R::Response::decode(&mut bytes, version).expect("a response is sound")
    }

    fn join(&mut self, judge: &mut Judge) {
        if self.id.is_empty()
            && let Some(lasting) = self.lasting
        {
            judge.names.entry(lasting).or_default().0 += 1;
        }
        let protocol = join_group_request::JoinGroupRequestProtocol::default()
            .with_name(text("share"))
            .with_metadata(subscription());
        let request = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(SESSION_MS)
            .with_rebalance_timeout_ms(REBALANCE_MS)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        self.settled = false;
        self.send(JOIN, &request, Awaits::Join);
    }

    fn commit(&mut self, judge: &Judge) {
        let dirty: Vec<(i32, i64)> =
            std::mem::take(&mut self.dirty).iter().map(|index| (*index, self.positions[index])).collect();
        let partitions = dirty.iter().map(|(index, offset)| {
            offset_commit_request::OffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(*offset)
        });
        let wanted = offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(topic())
            .with_partitions(partitions.collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance())
            .with_topics(vec![wanted]);
        let is_taken = judge.is_taken(self);
        self.send(COMMIT, &request, Awaits::Commit(dirty, is_taken));
    }

    fn fetch(&mut self) {
        let partitions = self.positions.iter().map(|(index, offset)| {
            fetch_request::FetchPartition::default()
                .with_partition(*index)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(2_000)
        });
        let wanted =
            fetch_request::FetchTopic::default().with_topic(topic()).with_partitions(partitions.collect());
        let request = FetchRequest::default()
            .with_max_wait_ms(FETCH_WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(20_000)
            .with_topics(vec![wanted]);
        self.send(FETCH, &request, Awaits::Fetch);
    }

    fn heartbeat(&mut self, now: Nanos) {
        self.next_heartbeat = now + HEARTBEAT_EVERY;
        let request = HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance());
        self.send(HEARTBEAT, &request, Awaits::Heartbeat);
    }

    /// Asks for the next thing, if nothing is under way.
    fn act(&mut self, now: Nanos, judge: &mut Judge, random: &mut Random) {
        if self.awaits != Awaits::Nothing || self.gone {
            return;
        }
        if self.sent == 0 {
            let request = FindCoordinatorRequest::default().with_key(text(GROUP));
            return self.send(FIND, &request, Awaits::Coordinator);
        }
        if !self.settled {
            return self.join(judge);
        }
        if self.leaves && self.dirty.is_empty() {
            let request = LeaveGroupRequest::default().with_group_id(group()).with_member_id(self.id.clone());
            return self.send(LEAVE, &request, Awaits::Leave);
        }
        if now >= self.next_heartbeat {
            return self.heartbeat(now);
        }
        if self.positions.len() < self.assignment.len() {
            let wanted = offset_fetch_request::OffsetFetchRequestTopic::default()
                .with_name(topic())
                .with_partition_indexes(self.assignment.clone());
            let request =
                OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![wanted]));
            return self.send(OFFSETS, &request, Awaits::Offsets(judge.committed.clone()));
        }
        if !self.dirty.is_empty() && (self.leaves || random.chance(0.3)) {
            return self.commit(judge);
        }
        if self.positions.is_empty() {
            return self.heartbeat(now);
        }
        self.fetch();
    }

    /// What an error code of the group's has it do; whether there was one.
    fn sent_back(&mut self, error: i16, judge: &mut Judge) -> bool {
        match error {
            0 => return false,
            REBALANCE_IN_PROGRESS | ILLEGAL_GENERATION | LOADING | NOT_AVAILABLE | NOT_COORDINATOR => {}
            UNKNOWN_MEMBER_ID => self.id = text(""),
            FENCED_INSTANCE_ID => {
                judge.fenced += 1;
                self.gone = true;
                let came =
                    self.lasting.and_then(|lasting| judge.names.get(&lasting)).map_or(0, |(came, _)| *came);
                if came < 2 {
                    judge
                        .violations
                        .push(format!("{} is fenced, and nobody has come after it", self.owner()));
                }
            }
            error => judge.violations.push(format!("member {} is told error {error}", self.name)),
        }
        self.settled = false;
        true
    }

    /// Takes an answer.
    fn answered(&mut self, bytes: Bytes, now: Nanos, judge: &mut Judge, partitions: u32) {
        match std::mem::replace(&mut self.awaits, Awaits::Nothing) {
            Awaits::Nothing => judge.violations.push("an answer that nobody waits for".to_owned()),
            Awaits::Coordinator => {
                let error = self.read::<FindCoordinatorRequest>(FIND, bytes).error_code;
                if error != 0 {
                    self.sent = 0; // It is being made: ask once more.
                }
            }
            Awaits::Join => {
                let response = self.read::<JoinGroupRequest>(JOIN, bytes);
                if response.error_code == MEMBER_ID_REQUIRED {
                    self.id = response.member_id;
                    return;
                }
                if self.sent_back(response.error_code, judge) {
                    return;
                }
                (self.id, self.generation) = (response.member_id.clone(), response.generation_id);
                judge.generations = judge.generations.max(self.generation);
                if let Some(name) = self.lasting.and_then(|lasting| judge.names.get_mut(&lasting)) {
                    name.1 = self.name;
                }
                let members = response.members.iter().map(|member| &member.member_id);
                let parts = if response.leader == response.member_id {
                    share_out(members, partitions)
                } else {
                    Vec::new()
                };
                let request = SyncGroupRequest::default()
                    .with_group_id(group())
                    .with_generation_id(self.generation)
                    .with_member_id(self.id.clone())
                    .with_group_instance_id(self.instance())
                    .with_assignments(parts);
                self.send(SYNC, &request, Awaits::Sync);
            }
            Awaits::Sync => {
                let response = self.read::<SyncGroupRequest>(SYNC, bytes);
                if self.sent_back(response.error_code, judge) {
                    return;
                }
                self.settled = true;
                self.next_heartbeat = now + HEARTBEAT_EVERY;
                self.assignment = numbers(response.assignment);
                self.positions.clear();
                self.dirty.clear();
                for index in &self.assignment {
                    let (generation, owner) = (self.generation, self.owner());
                    if let Some(other) = judge.owners.insert((generation, *index), owner.clone())
                        && other != owner
                    {
                        judge.violations.push(format!(
                            "partition {index} is owned by {other} and {owner} in generation {generation}"
                        ));
                    }
                }
            }
            Awaits::Heartbeat => {
                let error = self.read::<HeartbeatRequest>(HEARTBEAT, bytes).error_code;
                self.sent_back(error, judge);
            }
            Awaits::Offsets(before) => {
                let response = self.read::<OffsetFetchRequest>(OFFSETS, bytes);
                if self.sent_back(response.error_code, judge) {
                    return;
                }
                for part in response.topics.iter().flat_map(|topic| &topic.partitions) {
                    let index = part.partition_index;
                    let promised = before.get(&index).map_or(-1, |(_, offset)| *offset);
                    if part.committed_offset < promised {
                        let found = part.committed_offset;
                        judge
                            .violations
                            .push(format!("partition {index}: {promised} was committed, {found} is found"));
                    }
                    self.positions.insert(index, part.committed_offset.max(0));
                    // Whoever died before it heard of its commit has committed all the same.
                    let known = judge.committed.entry(index).or_insert((-1, -1));
                    known.1 = known.1.max(part.committed_offset);
                }
            }
            Awaits::Fetch => {
                let response = self.read::<FetchRequest>(FETCH, bytes);
                for part in response.responses.iter().flat_map(|topic| &topic.partitions) {
                    if part.error_code != 0 {
                        judge.violations.push(format!("a fetch is told error {}", part.error_code));
                    }
                    let mut rest = part.records.clone().unwrap_or_default();
                    while let Ok(header) = BatchHeader::parse(&rest) {
                        let index = part.partition_index;
                        judge.read.entry(index).or_default().insert(header.base_offset.0);
                        self.positions.insert(index, header.next_offset().0 as i64);
                        self.dirty.insert(index);
                        rest.advance(header.size.min(rest.len()));
                    }
                }
            }
            Awaits::Commit(offsets, was_taken) => {
                let response = self.read::<OffsetCommitRequest>(COMMIT, bytes);
                for part in response.topics.iter().flat_map(|topic| &topic.partitions) {
                    if self.sent_back(part.error_code, judge) {
                        judge.commits.1 += 1;
                        return;
                    }
                }
                judge.commits.0 += 1;
                if was_taken {
                    let owner = self.owner();
                    judge.violations.push(format!("{owner} was taken over, and whoever had it commits"));
                }
                for (index, offset) in offsets {
                    let last = judge.committed.insert(index, (self.generation, offset));
                    if let Some((generation, before)) = last
                        && (generation > self.generation || generation == self.generation && before > offset)
                    {
                        let ours = self.generation;
                        judge.violations.push(format!(
                            "partition {index}: generation {ours} commits {offset} after generation {generation} has {before}"
                        ));
                    }
                }
            }
            Awaits::Leave => self.gone = true,
        }
    }
}

/// What a consumer says in its metadata: version 0, one topic, no data of its own.
fn subscription() -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    bytes.put_i16(TOPIC.len() as i16);
    bytes.put_slice(TOPIC.as_bytes());
    bytes.put_i32(-1);
    bytes.freeze()
}

/// The leader's work: every partition to one member, in turn.
fn share_out<'a>(
    members: impl Iterator<Item = &'a StrBytes>,
    partitions: u32,
) -> Vec<sync_group_request::SyncGroupRequestAssignment> {
    let members: Vec<&StrBytes> = members.collect();
    let part = |place: usize, id: &StrBytes| {
        let mut bytes = BytesMut::new();
        for index in (place..partitions as usize).step_by(members.len()) {
            bytes.put_i32(index as i32);
        }
        sync_group_request::SyncGroupRequestAssignment::default()
            .with_member_id(id.clone())
            .with_assignment(bytes.freeze())
    };
    members.iter().enumerate().map(|(place, id)| part(place, id)).collect()
}

fn numbers(mut bytes: Bytes) -> Vec<i32> {
    let mut numbers = Vec::new();
    while bytes.len() >= 4 {
        numbers.push(bytes.get_i32());
    }
    numbers
}

impl GroupStory {
    fn config(&self, shards: u16) -> ServerConfig {
        ServerConfig {
            groups: GroupConfig { initial_delay_ms: 500, offsets_partitions: 4, ..GroupConfig::default() },
            engine: Config {
                shards,
                journal_bytes: u64::from(shards) * (4 << 20),
                journal_file_bytes: 1 << 20,
                disk_free_min_bytes: 0,
                pinned_bytes: 2 << 20,
                partitions_default: self.partitions,
                topic: TopicConfig { retention_ms: -1, ..TopicConfig::default() },
                ..Config::default()
            },
            ..ServerConfig::default()
        }
    }

    /// Starts a broker, as after a crash.
    fn start(
        &self,
        world: &World,
        config: &Arc<ServerConfig>,
        random: &mut Random,
    ) -> (SimNode<Broker>, SocketAddr) {
        let app = |_| Broker::new(Arc::clone(config));
        let cage = Cage::new(Canary::None);
        let mut node = SimNode::start_with(world, &config.engine, &cage, random.next(), app)
            .unwrap_or_else(|fatal| panic!("seed {}: the broker does not start: {fatal}", self.seed));
        let address = node.listen();
        (node, address)
    }

    /// Runs it.
    pub fn run(&self) -> GroupOutcomes {
        let mut random = Random::stream(self.seed, "group");
        let world = World::new(self.seed, Faults::rough());
        let config = Arc::new(self.config(random.between(1, 3) as u16));
        let (mut node, mut address) = self.start(&world, &config, &mut random);
        GroupStory::make_topic(&world, &mut node, address);

        let mut judge = Judge::default();
        let mut members: Vec<Member> = Vec::new();
        let (mut came, mut died, mut crashes, mut filled) = (0, 0, 0, 0);
        let begun = world.now();
        let calm_from = begun + self.unrest;
        let end = calm_from + PEACE;
        while world.now() < end && judge.violations.is_empty() && !self.is_done(&judge, &world, calm_from) {
            let calm = world.now() >= calm_from;
            if members.len() < self.members && (random.chance(0.2) || calm) {
                came += 1;
                let lasting = random.chance(0.3).then_some(came);
                members.push(Member::connect(&world, address, came, lasting));
            }
            if !calm && random.chance(0.01) && !members.is_empty() {
                let place = random.below(members.len() as u64) as usize;
                match random.below(5) {
                    0 => members[place].leaves = true,
                    1 => {
                        // Another comes under its lasting name, as when a process is started twice.
                        if let Some(lasting) = members[place].lasting {
                            came += 1;
                            members.push(Member::connect(&world, address, came, Some(lasting)));
                        }
                    }
                    how => {
                        died += 1;
                        let member = members.swap_remove(place);
                        match how {
                            2 => member.peer.reset(),
                            3 => member.peer.vanish(),
                            _ => member.peer.close(),
                        }
                    }
                }
            }
            // Records keep coming, or there would soon be nothing to be at odds about.
            let share = |part: u64, of: u64| begun + Nanos(self.unrest.0 / of * part);
            if filled < self.batches && world.now() >= share(filled, self.batches) {
                self.fill(filled, &world, &mut node, address);
                filled += 1;
            }
            if crashes < self.crashes && world.now() >= share(crashes + 1, self.crashes + 1) {
                crashes += 1;
                drop(node);
                world.crash(match random.below(3) {
                    0 => Crash::Kill,
                    1 => Crash::Power(Survivors::None),
                    _ => Crash::Power(Survivors::Some),
                });
                (node, address) = self.start(&world, &config, &mut random);
                for member in &mut members {
                    member.reconnect(&world, address);
                }
            }
            for member in &mut members {
                while let Some(bytes) = member.arrived() {
                    member.answered(bytes, world.now(), &mut judge, self.partitions);
                }
                member.act(world.now(), &mut judge, &mut random);
            }
            members.retain(|member| !member.gone && !member.peer.is_closed());
            node.step();
        }
        self.judge_the_end(&mut judge);
        let Judge { violations, generations, commits, fenced, .. } = judge;
        GroupOutcomes { violations, generations, came, died, commits, fenced }
    }

    /// Everything is read and committed, and nobody comes or goes any more.
    fn is_done(&self, judge: &Judge, world: &World, calm_from: Nanos) -> bool {
        let all = self.batches as i64;
        let committed = judge.committed.values().filter(|(_, offset)| *offset == all).count();
        world.now() > calm_from && committed == self.partitions as usize
    }

    fn judge_the_end(&self, judge: &mut Judge) {
        for index in 0..self.partitions as i32 {
            let read = judge.read.get(&index).map_or(0, BTreeSet::len) as u64;
            let committed = judge.committed.get(&index).map_or(-1, |(_, offset)| *offset);
            if read != self.batches || committed != self.batches as i64 {
                judge.violations.push(format!(
                    "partition {index}: {read} records of {} were read, and {committed} is committed",
                    self.batches
                ));
            }
        }
    }

    /// Makes the topic.
    fn make_topic(world: &World, node: &mut SimNode<Broker>, address: SocketAddr) {
        let mut client = Client::connect(world, address);
        loop {
            client.ask(Ask::Topic(TOPIC.to_owned()), 5);
            if matches!(told(&mut client, node).first(), Some((_, Answer::Topic(0, _)))) {
                break;
            }
        }
        client.peer.close();
    }

    /// Puts a batch of one record into every partition.
    fn fill(&self, number: u64, world: &World, node: &mut SimNode<Broker>, address: SocketAddr) {
        let mut client = Client::connect(world, address);
        for index in 0..self.partitions as i32 {
            let value = number.to_be_bytes();
            let batch = BatchBuilder::new(1_700_000_000_000).push(None, Some(&value)).build();
            client.ask(Ask::Produce { topic: TOPIC.to_owned(), index, acks: -1, batch }, 5);
        }
        for (_, answer) in told(&mut client, node) {
            assert!(matches!(answer, Answer::Produced(0, _)), "{answer:?}");
        }
        client.peer.close();
    }
}

/// Everything that a client is told of what it has asked.
fn told(client: &mut Client, node: &mut SimNode<Broker>) -> Vec<(Ask, Answer)> {
    let mut told = Vec::new();
    while client.waiting().next().is_some() {
        node.step();
        told.extend(client.answers().expect("sound answers"));
    }
    told
}
