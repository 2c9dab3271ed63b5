//! A group under clients that come, go, die and lose their connections, from a seed: what must hold at every step, and that
//! all comes to rest once nobody disturbs it any more.
//!
//! `MILLSTREAM_GROUP_SEED=n` replays one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_engine::io::random::Random;
use millstream_engine::reactor::app::AppToken;
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use super::{Bounds, Group, Input, Now, Output};
use crate::coordinator::question::{
    Answer, Asker, GroupError, Heartbeat, Join, Joined, Leave, Member, Outcome, Sync,
};

const SEEDS: u64 = 100;
const CLIENTS: usize = 8;
const PARTITIONS: u8 = 12;
const STEPS: u64 = 3_000;
const STEP_MS: u64 = 100;
const SESSION_MS: i32 = 6_000;
const REBALANCE_MS: i32 = 8_000;
const HEARTBEAT_MS: u64 = 1_000;
/// Steps without a disturbance after which everything has come to rest: a session, two rebalances, and what it takes.
const REST: u64 = 600;

/// Something on its way, and when it arrives.
enum Post {
    Request(usize, u64, Request),
    Answer(usize, u64, Answer),
    /// The group learns that a connection is gone.
    Cut(u64),
    Stored(u64),
}

#[derive(Clone)]
enum Request {
    Join(Join),
    Sync(Sync),
    Heartbeat(Heartbeat),
    Leave(Leave),
}

/// A client, as the usual libraries are.
#[expect(clippy::struct_excessive_bools, reason = "two say what it is, two what it does")]
struct Client {
    alive: bool,
    instance: Option<Arc<str>>,
    takes_id_first: bool,
    skips_assignment: bool,
    id: Arc<str>,
    generation: i32,
    /// What it was told to read, once it was.
    part: Option<Vec<u8>>,
    /// The request under way.
    waits: Option<u64>,
    next_heartbeat: u64,
    joins: bool,
}

struct World {
    seed: u64,
    random: Random,
    bounds: Bounds,
    group: Group,
    step: u64,
    post: BTreeMap<(u64, u64), Post>,
    posted: u64,
    last_store: u64,
    clients: Vec<Client>,
    asked: u64,
    /// Questions that the group has and has not answered, and who asked.
    open: BTreeMap<u64, usize>,
    /// Who was told to read a partition, per generation.
    told: BTreeMap<(i32, u8), Arc<str>>,
    generation: i32,
    calm: bool,
    rebalances: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::stream(seed, "group");
        let delay = random.below(2) * 500;
        let bounds = Bounds {
            initial_delay: Nanos::from_millis(delay),
            session_ms: 1..=60_000,
            members_max: 50,
            member_bytes_max: 1_000,
            group_bytes_max: 10_000,
        };
        let clients = (0..CLIENTS)
            .map(|number| Client {
                alive: false,
                instance: (number % 3 == 0).then(|| format!("static{number}").into()),
                takes_id_first: random.chance(0.5),
                skips_assignment: random.chance(0.5),
                id: Arc::default(),
                generation: -1,
                part: None,
                waits: None,
                next_heartbeat: 0,
                joins: false,
            })
            .collect();
        let now = Now { mono: Nanos::ZERO, wall_ms: 0 };
        World {
            seed,
            random,
            bounds,
            group: Group::new(now),
            step: 0,
            post: BTreeMap::new(),
            posted: 0,
            last_store: 0,
            clients,
            asked: 0,
            open: BTreeMap::new(),
            told: BTreeMap::new(),
            generation: 0,
            calm: false,
            rebalances: 0,
        }
    }

    fn now(&self) -> Now {
        let ms = self.step * STEP_MS;
        Now { mono: Nanos::from_millis(ms), wall_ms: ms as i64 }
    }

    fn send(&mut self, post: Post) {
        let slow = if self.calm { 2 } else { 20 };
        let mut at = self.step + 1 + if self.random.chance(0.3) { self.random.below(slow) } else { 0 };
        if matches!(post, Post::Stored(_)) {
            // The disk keeps to its order.
            at = at.max(self.last_store);
            self.last_store = at;
        }
        self.posted += 1;
        self.post.insert((at, self.posted), post);
    }

    fn take(&mut self, input: Input) {
        let mut out = Vec::new();
        self.group.on(input, &self.bounds, self.now(), &mut out);
        for output in out {
            match output {
                Output::Store(number, _) => self.send(Post::Stored(number)),
                Output::Answer(asker, answer) => {
                    let token = asker.token.0;
                    let client = self.open.remove(&token);
                    let client = client.unwrap_or_else(|| panic!("seed {}: {token} again", self.seed));
                    self.check(client, &answer);
                    self.send(Post::Answer(client, token, answer));
                }
            }
        }
        let waiting = self.group.members.values().filter(|member| member.awaits_join()).count();
        assert_eq!(self.group.joined, waiting, "seed {}", self.seed);
        let bytes: usize = self.group.members.values().map(super::Member::bytes).sum();
        assert_eq!(self.group.bytes, bytes, "seed {}", self.seed);
    }

    /// What the group says must not contradict what it has said.
    fn check(&mut self, client: usize, answer: &Answer) {
        match answer {
            Ok(Outcome::Joined(joined)) => {
                assert!(joined.generation >= self.generation, "seed {}: a generation goes back", self.seed);
                self.rebalances += u64::from(joined.generation > self.generation);
                self.generation = joined.generation;
            }
            Ok(Outcome::Synced(synced)) => {
                let seed = self.seed;
                assert!(!synced.assignment.is_empty(), "seed {seed}: the leader gave everybody something");
                let reader = self.clients[client].instance.clone();
                let reader = reader.unwrap_or_else(|| Arc::clone(&self.clients[client].id));
                for partition in synced.assignment.iter() {
                    let key = (self.group.generation, *partition);
                    let before = self.told.insert(key, Arc::clone(&reader));
                    assert!(
                        before.as_ref().is_none_or(|before| *before == reader),
                        "seed {}: {before:?} and {reader} both read {key:?}",
                        self.seed
                    );
                }
            }
            _ => {}
        }
    }

    fn request(&mut self, client: usize, request: Request) {
        self.asked += 1;
        let token = self.asked;
        self.clients[client].waits = Some(token);
        self.send(Post::Request(client, token, request));
    }

    fn arrive(&mut self, post: Post) {
        match post {
            Post::Stored(number) => {
                let ok = self.calm || !self.random.chance(0.05);
                self.take(Input::Stored(number, ok));
            }
            Post::Cut(token) => {
                if self.open.contains_key(&token) {
                    self.take(Input::Cancel(Asker { shard: ShardId(0), token: AppToken(token) }));
                }
            }
            Post::Request(client, token, request) => {
                let asker = Asker { shard: ShardId(0), token: AppToken(token) };
                self.open.insert(token, client);
                self.take(match request {
                    Request::Join(join) => Input::Join(asker, join, format!("m{token}").into()),
                    Request::Sync(sync) => Input::Sync(asker, sync),
                    Request::Heartbeat(heartbeat) => Input::Heartbeat(asker, heartbeat),
                    Request::Leave(leave) => Input::Leave(asker, leave),
                });
            }
            Post::Answer(client, token, answer) => {
                if self.clients[client].waits == Some(token) {
                    self.clients[client].waits = None;
                    self.answered(client, answer);
                }
            }
        }
    }

    fn answered(&mut self, number: usize, answer: Answer) {
        let client = &mut self.clients[number];
        match answer {
            Ok(Outcome::Joined(joined)) => {
                client.id = Arc::clone(&joined.member_id);
                client.generation = joined.generation;
                client.joins = false;
                client.part = None;
                let assignments = assign(&joined);
                let sync = Sync {
                    group: "g".into(),
                    member: client.member(),
                    protocol_type: joined.protocol_type,
                    protocol: joined.protocol,
                    assignments,
                };
                self.request(number, Request::Sync(sync));
            }
            Ok(Outcome::Synced(synced)) => client.part = Some(synced.assignment.to_vec()),
            Ok(Outcome::Left(_)) => client.alive = false,
            Ok(_) => {}
            Err(GroupError::MemberIdRequired(id)) => client.id = id,
            Err(GroupError::UnknownMember | GroupError::Fenced) => {
                (client.id, client.generation, client.part) = (Arc::default(), -1, None);
                client.joins = true;
            }
            Err(_) => {
                client.part = None;
                client.joins = true;
            }
        }
    }

    /// What a client does next, if it waits for nothing.
    fn act(&mut self, number: usize) {
        let step = self.step;
        let client = &mut self.clients[number];
        if !client.alive || client.waits.is_some() {
            return;
        }
        if client.joins {
            let join = Join {
                group: "g".into(),
                member_id: Arc::clone(&client.id),
                instance_id: client.instance.clone(),
                client_id: "c".into(),
                client_host: "".into(),
                session_timeout_ms: SESSION_MS,
                rebalance_timeout_ms: REBALANCE_MS,
                protocol_type: "consumer".into(),
                protocols: vec![("range".into(), Arc::default())],
                takes_id_first: client.takes_id_first,
                skips_assignment: client.skips_assignment,
            };
            self.request(number, Request::Join(join));
        } else if step >= client.next_heartbeat {
            client.next_heartbeat = step + HEARTBEAT_MS / STEP_MS;
            let heartbeat = Heartbeat { group: "g".into(), member: client.member() };
            self.request(number, Request::Heartbeat(heartbeat));
        }
    }

    /// Something happens to somebody.
    fn disturb(&mut self) {
        let number = self.random.below(CLIENTS as u64) as usize;
        let what = self.random.below(10);
        let client = &mut self.clients[number];
        let waits = client.waits;
        match what {
            // It starts, perhaps anew: what it knew is gone.
            0..=4 => {
                (client.id, client.generation, client.part) = (Arc::default(), -1, None);
                (client.alive, client.joins, client.waits) = (true, true, None);
            }
            // It dies without a word.
            5 | 6 => (client.alive, client.waits) = (false, None),
            // Its connection breaks: it asks again what it was asking.
            7 | 8 if waits.is_some() => {
                client.waits = None;
                client.joins |= client.part.is_none();
            }
            9 if client.alive && waits.is_none() && !client.id.is_empty() => {
                let members = vec![(Arc::clone(&client.id), client.instance.clone())];
                return self.request(number, Request::Leave(Leave { group: "g".into(), members }));
            }
            _ => return,
        }
        if let Some(token) = waits {
            self.send(Post::Cut(token));
        }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step += 1;
            while let Some(entry) = self.post.first_entry()
                && entry.key().0 <= self.step
            {
                let post = entry.remove();
                self.arrive(post);
            }
            if self.group.next_look().is_some_and(|at| at <= self.now().mono) {
                self.take(Input::Time);
            }
            for number in 0..CLIENTS {
                self.act(number);
            }
            if !self.calm && self.random.chance(0.05) {
                self.disturb();
            }
        }
    }

    /// Everybody who is alive reads something, everything is read, and the group knows no others.
    fn check_rest(&self) {
        let seed = self.seed;
        let alive: Vec<&Client> = self.clients.iter().filter(|client| client.alive).collect();
        let ids: BTreeSet<_> = alive.iter().map(|client| &client.id).collect();
        let members: BTreeSet<_> = self.group.members.keys().collect();
        assert_eq!(members, ids, "seed {seed}");
        assert!(alive.iter().all(|client| client.generation == self.group.generation), "seed {seed}");
        let mut read: Vec<u8> =
            alive.iter().flat_map(|client| client.part.clone().unwrap_or_default()).collect();
        read.sort_unstable();
        let all: Vec<u8> = (0..PARTITIONS).collect();
        assert_eq!(read, if alive.is_empty() { Vec::new() } else { all }, "seed {seed}");
        assert_eq!(self.group.state(), if alive.is_empty() { "Empty" } else { "Stable" }, "seed {seed}");
        assert!(self.group.expected.is_empty() && self.group.stores.is_empty(), "seed {seed}");
        let unanswered = self.open.values().filter(|client| self.clients[**client].waits.is_none()).count();
        assert_eq!(unanswered, 0, "seed {seed}: somebody was forgotten");
    }
}

impl Client {
    fn member(&self) -> Member {
        let (id, instance_id) = (Arc::clone(&self.id), self.instance.clone());
        Member { id, instance_id, generation: self.generation }
    }
}

/// The leader's work: partitions in turn.
fn assign(joined: &Joined) -> Vec<(Arc<str>, Arc<[u8]>)> {
    if joined.skip_assignment {
        return Vec::new();
    }
    let members = joined.members.len();
    let part = |place: usize| {
        (0..PARTITIONS).filter(|partition| usize::from(*partition) % members == place).collect()
    };
    joined.members.iter().enumerate().map(|(place, member)| (Arc::clone(&member.id), part(place))).collect()
}

#[test]
fn whatever_clients_do_nobody_reads_what_another_reads_and_all_comes_to_rest() {
    let one = std::env::var("MILLSTREAM_GROUP_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut rebalances = 0;
    for seed in one.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        let mut world = World::new(seed);
        world.run(STEPS);
        world.calm = true;
        world.run(REST);
        world.check_rest();
        rebalances += world.rebalances;
    }
    assert!(one.is_some() || rebalances > SEEDS * 20, "{rebalances} rebalances are too few to mean anything");
}
