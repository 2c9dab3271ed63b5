//! A consumer group beside what it has promised, with clients that say whatever they like. The bytes are the operations.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use millstream::coordinator::group::{Bounds, Group, Input, Now, Output};
use millstream::coordinator::question::{
    Answer, Asker, GroupError, Heartbeat, Join, Joined, Leave, Member, Outcome, Sync, Synced,
};
use millstream::coordinator::records::GroupState;
use millstream_engine::reactor::app::AppToken;
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

/// More operations than these show nothing new.
const OPERATIONS_MAX: usize = 400;
/// Ids that clients know of: the last ones that anybody was told.
const IDS_MAX: usize = 6;
const MEMBERS_MAX: usize = 5;
const MEMBER_BYTES_MAX: usize = 200;
const GROUP_BYTES_MAX: usize = 600;
/// The longest session, in ms.
const SESSION_MS_MAX: i32 = 30_000;
/// Looks at the time after which a group that nobody talks to has come to rest.
const LOOKS_MAX: usize = 2_000;

const WAYS: [&str; 3] = ["range", "sticky", "other"];
const KINDS: [&str; 3] = ["consumer", "connect", ""];
const TIMEOUTS_MS: [i32; 6] = [1_000, 6_000, SESSION_MS_MAX, i32::MAX, 0, -1];
const NAMES: [&str; 2] = ["a", "b"];

/// What may happen.
#[derive(Debug)]
enum Operation {
    Join(Join),
    Sync(Sync),
    Heartbeat(Member),
    Leave(Vec<(Arc<str>, Option<Arc<str>>)>),
    /// Nobody waits any more for one of the questions that are open.
    Cancel(usize),
    /// The disk has done what was to be stored first, or could not.
    Stored(bool),
    /// Time passes, in ms.
    Time(u64),
    /// The group is to be deleted, if it is empty, or is not deleted after all.
    Dead(bool),
    /// A crash, after so many things have become durable: the group is read back.
    Restart(usize),
}

/// Where operations come from.
struct Bytes<'a> {
    bytes: &'a [u8],
}

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(*first)
    }

    fn of<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.next() % among.len()]
    }
}

/// A question that waits for its answer.
#[derive(Debug)]
enum Open {
    Join(Join),
    Sync(Member),
    Heartbeat(Member),
    Leave(usize),
}

/// What a generation is, as somebody was told.
#[derive(Debug)]
struct Generation {
    way: Option<Arc<str>>,
    kind: Option<Arc<str>>,
}

struct World {
    group: Group,
    bounds: Bounds,
    now_ms: u64,
    ids: VecDeque<Arc<str>>,
    asked: u64,
    open: BTreeMap<u64, Open>,
    stores: VecDeque<(u64, GroupState)>,
    durable: Option<GroupState>,
    generations: BTreeMap<i32, Generation>,
    generation: i32,
}

/// Every question is answered once, by what fits it; a generation has one way to assign, and its number only rises; nobody is told
/// of a part that is not durable, and a group that is read back has the members and parts that were told; what there may be
/// of it is bounded; and a group that nobody talks to falls empty.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes { bytes };
    let mut world = World::new(bytes.of(&[0, 500]));
    for _ in 0..OPERATIONS_MAX {
        if bytes.bytes.is_empty() {
            break;
        }
        let operation = world.operation(&mut bytes);
        world.perform(operation);
        world.check();
    }
    world.come_to_rest();
}

impl World {
    fn new(delay_ms: u64) -> World {
        World {
            group: Group::new(Now { mono: Nanos::ZERO, wall_ms: 0 }),
            bounds: Bounds {
                initial_delay: Nanos::from_millis(delay_ms),
                session_ms: 1_000..=SESSION_MS_MAX,
                members_max: MEMBERS_MAX,
                member_bytes_max: MEMBER_BYTES_MAX,
                group_bytes_max: GROUP_BYTES_MAX,
            },
            now_ms: 0,
            ids: VecDeque::new(),
            asked: 0,
            open: BTreeMap::new(),
            stores: VecDeque::new(),
            durable: None,
            generations: BTreeMap::new(),
            generation: 0,
        }
    }

    fn now(&self) -> Now {
        Now { mono: Nanos::from_millis(self.now_ms), wall_ms: self.now_ms as i64 }
    }

    fn operation(&self, bytes: &mut Bytes<'_>) -> Operation {
        match bytes.next() % 12 {
            0..=2 => Operation::Join(Join {
                group: "g".into(),
                member_id: self.id(bytes),
                instance_id: name(bytes),
                client_id: "c".into(),
                client_host: "".into(),
                session_timeout_ms: bytes.of(&TIMEOUTS_MS),
                rebalance_timeout_ms: bytes.of(&TIMEOUTS_MS),
                protocol_type: KINDS[(bytes.next() / 64).saturating_sub(1)].into(),
                protocols: ways(bytes),
                takes_id_first: bytes.next().is_multiple_of(2),
                skips_assignment: bytes.next().is_multiple_of(2),
            }),
            3 | 4 => Operation::Sync(Sync {
                group: "g".into(),
                member: self.member(bytes),
                protocol_type: (bytes.next() % 8 == 7).then(|| bytes.of(&KINDS).into()),
                protocol: (bytes.next() % 8 == 7).then(|| bytes.of(&WAYS).into()),
                assignments: (0..bytes.next() % 5).map(|_| (self.id(bytes), blob(bytes))).collect(),
            }),
            5 => Operation::Heartbeat(self.member(bytes)),
            6 => Operation::Leave((0..bytes.next() % 4).map(|_| (self.id(bytes), name(bytes))).collect()),
            7 => Operation::Cancel(bytes.next()),
            8 | 9 => Operation::Stored(!bytes.next().is_multiple_of(8)),
            10 => Operation::Time([1, 400, 1_000, 5_000, 31_000, 1 << 32][bytes.next() % 6]),
            _ => match bytes.next() % 4 {
                0 => Operation::Restart(bytes.next() % 4),
                1 => Operation::Dead(bytes.next().is_multiple_of(2)),
                _ => Operation::Stored(true),
            },
        }
    }

    /// An id that was told, none, or one that nobody has.
    fn id(&self, bytes: &mut Bytes<'_>) -> Arc<str> {
        let place = bytes.next() % (IDS_MAX + 3);
        self.ids.get(place).cloned().unwrap_or_else(|| if place == IDS_MAX { "nobody" } else { "" }.into())
    }

    fn member(&self, bytes: &mut Bytes<'_>) -> Member {
        let back = [0, 0, 0, 0, 1, -1][bytes.next() % 6];
        Member { id: self.id(bytes), instance_id: name(bytes), generation: self.group.generation() - back }
    }

    fn perform(&mut self, operation: Operation) {
        match operation {
            Operation::Join(join) => {
                let fresh = format!("m{}", self.asked).into();
                let asker = self.ask(Open::Join(join.clone()));
                self.input(Input::Join(asker, join, fresh));
            }
            Operation::Sync(sync) => {
                let asker = self.ask(Open::Sync(sync.member.clone()));
                self.input(Input::Sync(asker, sync));
            }
            Operation::Heartbeat(member) => {
                let asker = self.ask(Open::Heartbeat(member.clone()));
                self.input(Input::Heartbeat(asker, Heartbeat { group: "g".into(), member }));
            }
            Operation::Leave(members) => {
                let asker = self.ask(Open::Leave(members.len()));
                self.input(Input::Leave(asker, Leave { group: "g".into(), members }));
            }
            Operation::Cancel(place) => {
                if let Some(token) = self.open.keys().nth(place % self.open.len().max(1)) {
                    self.input(Input::Cancel(asker(*token)));
                }
            }
            Operation::Stored(ok) => self.stored(ok),
            Operation::Time(ms) => self.pass(ms),
            Operation::Dead(dead) => {
                if self.group.is_empty() || self.group.is_dead() {
                    self.group.set_dead(dead);
                }
            }
            Operation::Restart(durable) => {
                for _ in 0..durable.min(self.stores.len()) {
                    self.durable = self.stores.pop_front().map(|(_, state)| state);
                }
                self.restart();
            }
        }
    }

    fn ask(&mut self, open: Open) -> Asker {
        self.asked += 1;
        self.open.insert(self.asked, open);
        asker(self.asked)
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        if self.group.next_look().is_some_and(|at| at <= self.now().mono) {
            self.input(Input::Time);
        }
    }

    fn stored(&mut self, ok: bool) {
        let Some((number, state)) = self.stores.pop_front() else { return };
        if ok {
            self.durable = Some(state);
        }
        self.input(Input::Stored(number, ok));
    }

    fn input(&mut self, input: Input) {
        let given = match &input {
            Input::Sync(_, sync) => Some(sync.assignments.clone()),
            _ => None,
        };
        let late = matches!(input, Input::Stored(..));
        let mut out = Vec::new();
        self.group.on(input, &self.bounds, self.now(), &mut out);
        for output in out {
            match output {
                Output::Store(number, state) => {
                    assert!(self.stores.back().is_none_or(|(last, _)| *last < number), "stores are in order");
                    // What a leader gives is what everybody gets.
                    for member in state.members.iter().filter(|_| given.is_some()) {
                        let mut parts = given.iter().flatten().filter(|(id, _)| *id == member.id);
                        let part = parts.next_back().map(|(_, part)| Arc::clone(part));
                        assert_eq!(member.assignment, part.unwrap_or_default(), "another part");
                    }
                    self.stores.push_back((number, state));
                }
                Output::Answer(asker, answer) => {
                    let open = self.open.remove(&asker.token.0).expect("it was asked, and not answered");
                    self.answered(open, answer, late);
                }
            }
        }
    }

    /// An answer fits its question, and what was told before. What is told `late`, as it had to be durable first, may be over.
    fn answered(&mut self, open: Open, answer: Answer, late: bool) {
        match (open, answer) {
            (Open::Join(join), Ok(Outcome::Joined(joined))) => self.joined(&join, joined, late),
            (Open::Join(join), Err(GroupError::MemberIdRequired(id))) => {
                assert!(join.member_id.is_empty() && join.takes_id_first && join.instance_id.is_none());
                self.knows(id);
            }
            (Open::Sync(member), Ok(Outcome::Synced(synced))) => self.synced(&member, &synced),
            (Open::Heartbeat(member), Ok(Outcome::Done)) => {
                assert_eq!(member.generation, self.group.generation(), "a heartbeat of another generation");
                assert!(self.is_member(&member.id), "a heartbeat of nobody");
            }
            (Open::Leave(count), Ok(Outcome::Left(left))) => assert_eq!(left.len(), count),
            (open, Err(GroupError::Fenced)) => {
                let (name, id) = match open {
                    Open::Join(Join { instance_id, member_id: id, .. })
                    | Open::Sync(Member { instance_id, id, .. })
                    | Open::Heartbeat(Member { instance_id, id, .. }) => (instance_id, id),
                    Open::Leave(_) => panic!("who leaves is not fenced"),
                };
                // Or whose lasting name has been taken over, although it did not say it.
                assert!(name.is_some() || !self.is_member(&id), "only who has a lasting name is fenced");
            }
            (_, Err(_)) => {}
            (open, answer) => panic!("{open:?} was answered {answer:?}"),
        }
    }

    fn joined(&mut self, join: &Join, joined: Joined, late: bool) {
        assert!(late || joined.generation >= self.generation, "a generation goes back");
        self.generation = self.generation.max(joined.generation);
        assert!(join.member_id.is_empty() || join.member_id == joined.member_id, "another id");
        let way = joined.protocol.clone();
        assert!(
            way.as_ref().is_some_and(|way| join.protocols.iter().any(|(known, _)| known == way)),
            "a way to assign that it does not know"
        );
        assert_eq!(joined.protocol_type.as_ref(), Some(&join.protocol_type));
        let told = Generation { way, kind: joined.protocol_type.clone() };
        let before = self
            .generations
            .entry(joined.generation)
            .or_insert(Generation { way: told.way.clone(), kind: told.kind.clone() });
        assert_eq!((&before.way, &before.kind), (&told.way, &told.kind), "one generation, two ways");
        if !joined.members.is_empty() {
            assert_eq!(joined.leader, joined.member_id, "only the leader is told of all");
            assert!(joined.members.iter().any(|member| member.id == joined.member_id));
            assert!(joined.members.len() <= MEMBERS_MAX);
        }
        self.knows(joined.member_id);
    }

    /// A part is told only if it is durable: a crash does not change it.
    fn synced(&self, member: &Member, synced: &Synced) {
        let stored = self.durable.as_ref().expect("nothing is told before anything is durable");
        assert_eq!(stored.generation, member.generation, "a part of another generation is durable");
        assert_eq!(stored.protocol, synced.protocol);
        let part =
            stored.members.iter().find(|stored| stored.id == member.id).map(|stored| &stored.assignment);
        assert_eq!(part, Some(&synced.assignment), "another part is durable");
    }

    fn knows(&mut self, id: Arc<str>) {
        self.ids.retain(|known| *known != id);
        self.ids.push_front(id);
        self.ids.truncate(IDS_MAX);
    }

    fn is_member(&self, id: &Arc<str>) -> bool {
        self.group.describe().members.iter().any(|member| member.id == *id)
    }

    /// What was durable is there again. Who waited is told elsewhere that it has to ask again.
    fn restart(&mut self) {
        for asker in self.group.abandon() {
            self.open.remove(&asker.token.0).expect("it was asked, and not answered");
        }
        assert!(self.open.is_empty(), "{:?} were forgotten", self.open);
        self.stores.clear();
        let now = self.now();
        self.group = match &self.durable {
            None => Group::new(now),
            Some(state) => Group::restored(state, now),
        };
        self.generation = self.group.generation();
        self.generations.retain(|generation, _| *generation <= self.generation);
        if let Some(state) = &self.durable {
            let found = self.group.describe();
            assert_eq!(self.group.generation(), state.generation);
            let found: Vec<_> = found.members.iter().map(|one| (&one.id, &one.assignment)).collect();
            let stored: Vec<_> = state.members.iter().map(|one| (&one.id, &one.assignment)).collect();
            assert_eq!(found, stored, "other members, or other parts");
        }
    }

    fn check(&self) {
        let group = &self.group;
        assert!(group.len() <= MEMBERS_MAX && group.bytes() <= GROUP_BYTES_MAX, "{group:?}");
        let is_empty = matches!(group.state(), "Empty" | "Dead");
        let nobody = group.describe().members.is_empty();
        assert_eq!(nobody && group.state() != "PreparingRebalance", is_empty, "{group:?}");
        assert!(self.group.generation() >= self.generation);
    }

    /// Everything becomes durable, and then nobody says anything more.
    fn come_to_rest(&mut self) {
        for _ in 0..LOOKS_MAX {
            if !self.stores.is_empty() {
                self.stored(true);
            } else if let Some(at) = self.group.next_look() {
                self.now_ms = self.now_ms.max(at.0.div_ceil(1_000_000));
                self.input(Input::Time);
            } else {
                break;
            }
            self.check();
            // Whoever waits has a connection, and that ends some day.
            if let Some(token) = self.open.keys().next() {
                self.input(Input::Cancel(asker(*token)));
            }
        }
        assert!(self.open.is_empty(), "{:?} are not answered", self.open);
        assert!(
            self.group.describe().members.is_empty() && (self.group.is_empty() || self.group.is_dead()),
            "{:?}",
            self.group
        );
        assert_eq!(self.group.bytes(), 0);
    }
}

fn asker(token: u64) -> Asker {
    Asker { shard: ShardId(0), token: AppToken(token) }
}

fn name(bytes: &mut Bytes<'_>) -> Option<Arc<str>> {
    let byte = bytes.next();
    byte.is_multiple_of(3).then(|| NAMES[byte / 3 % NAMES.len()].into())
}

fn blob(bytes: &mut Bytes<'_>) -> Arc<[u8]> {
    let byte = bytes.next();
    vec![byte as u8; [1, 10, 100, 300][byte % 4]].into()
}

/// Ways to assign, some of them perhaps twice.
fn ways(bytes: &mut Bytes<'_>) -> Vec<(Arc<str>, Arc<[u8]>)> {
    let count = [1, 1, 2, 3, 2, 0][bytes.next() % 6];
    (0..count).map(|_| (bytes.of(&WAYS).into(), blob(bytes))).collect()
}
