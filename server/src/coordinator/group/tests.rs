//! What a group does, one behaviour at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use millstream_engine::reactor::app::AppToken;
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use super::{Bounds, Group, Input, Now, Output};
use crate::coordinator::question::{
    Answer, Asker, GroupError, Heartbeat, Join, Joined, Leave, Member, Outcome, Sync,
};
use crate::coordinator::records::GroupState;

const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;

/// A group, and what has come of it.
struct Rig {
    group: Group,
    bounds: Bounds,
    now: Now,
    asked: u64,
    answers: BTreeMap<u64, Answer>,
    /// What waits to be stored; at once, unless it is held.
    stores: VecDeque<(u64, GroupState)>,
    hold_stores: bool,
    stored: Option<GroupState>,
}

fn bounds() -> Bounds {
    Bounds {
        initial_delay: Nanos::ZERO,
        session_ms: 6_000..=1_800_000,
        members_max: 5,
        member_bytes_max: 100,
        group_bytes_max: 300,
    }
}

/// A newcomer of this name, which is told its id without being sent back.
fn newcomer(name: &str) -> Join {
    Join {
        group: "g".into(),
        member_id: "".into(),
        instance_id: None,
        client_id: name.into(),
        client_host: "/10.0.0.1".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), name.as_bytes().into())],
        takes_id_first: false,
        skips_assignment: false,
    }
}

fn again(id: &str) -> Join {
    Join { member_id: id.into(), ..newcomer(id.split('-').next().unwrap_or_default()) }
}

fn instance(name: &str) -> Join {
    Join { instance_id: Some(name.into()), ..newcomer(name) }
}

fn member(id: &str, generation: i32) -> Member {
    Member { id: id.into(), instance_id: None, generation }
}

impl Rig {
    fn new() -> Rig {
        Rig::with(bounds())
    }

    fn with(bounds: Bounds) -> Rig {
        let now = Now { mono: Nanos::from_millis(1), wall_ms: 1_700_000_000_000 };
        Rig {
            group: Group::new(now),
            bounds,
            now,
            asked: 0,
            answers: BTreeMap::new(),
            stores: VecDeque::new(),
            hold_stores: false,
            stored: None,
        }
    }

    fn on(&mut self, input: Input) {
        let mut out = Vec::new();
        self.group.on(input, &self.bounds, self.now, &mut out);
        for output in out {
            match output {
                Output::Answer(asker, answer) => {
                    let before = self.answers.insert(asker.token.0, answer);
                    assert!(before.is_none(), "{asker:?} is answered twice");
                }
                Output::Store(number, state) => self.stores.push_back((number, state)),
            }
        }
        if !self.hold_stores {
            while !self.stores.is_empty() {
                self.finish_store(true);
            }
        }
    }

    fn finish_store(&mut self, ok: bool) {
        let (number, state) = self.stores.pop_front().unwrap();
        if ok {
            self.stored = Some(state);
        }
        self.on(Input::Stored(number, ok));
    }

    fn asker(&mut self) -> Asker {
        self.asked += 1;
        Asker { shard: ShardId(0), token: AppToken(self.asked) }
    }

    /// Joins; whoever has no id would be `NAME-n`.
    fn join(&mut self, join: &Join) -> u64 {
        let asker = self.asker();
        let fresh = format!("{}-{}", join.client_id, self.asked).into();
        self.on(Input::Join(asker, join.clone(), fresh));
        asker.token.0
    }

    fn sync(&mut self, id: &str, generation: i32, assignments: &[(&str, &str)]) -> u64 {
        let asker = self.asker();
        let assignments =
            assignments.iter().map(|(id, part)| (Arc::from(*id), Arc::from(part.as_bytes()))).collect();
        let member = member(id, generation);
        let sync = Sync { group: "g".into(), member, protocol_type: None, protocol: None, assignments };
        self.on(Input::Sync(asker, sync));
        asker.token.0
    }

    fn heartbeat(&mut self, id: &str, generation: i32) -> Result<(), GroupError> {
        let asker = self.asker();
        let heartbeat = Heartbeat { group: "g".into(), member: member(id, generation) };
        self.on(Input::Heartbeat(asker, heartbeat));
        self.answer(asker.token.0).unwrap().map(|_| ())
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Result<(), GroupError>> {
        let asker = self.asker();
        let members = members.iter().map(|(id, name)| ((*id).into(), name.map(Arc::from))).collect();
        self.on(Input::Leave(asker, Leave { group: "g".into(), members }));
        match self.answer(asker.token.0) {
            Some(Ok(Outcome::Left(left))) => left,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, token: u64) -> Option<Answer> {
        self.answers.remove(&token)
    }

    fn joined(&mut self, token: u64) -> Joined {
        match self.answer(token) {
            Some(Ok(Outcome::Joined(joined))) => joined,
            other => panic!("not joined: {other:?}"),
        }
    }

    fn part(&mut self, token: u64) -> Vec<u8> {
        match self.answer(token) {
            Some(Ok(Outcome::Synced(synced))) => synced.assignment.to_vec(),
            other => panic!("not synced: {other:?}"),
        }
    }

    fn error(&mut self, token: u64) -> GroupError {
        match self.answer(token) {
            Some(Err(error)) => error,
            other => panic!("no error: {other:?}"),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono + Nanos::from_millis(ms);
        self.now.wall_ms += ms as i64;
        self.on(Input::Time);
    }

    /// Lets time pass, in which these members are heard of again and again.
    fn pass_alive(&mut self, ms: u64, members: &[&str]) {
        for _ in 0..ms / 1_000 {
            for id in members {
                let _ = self.heartbeat(id, self.group.generation);
            }
            self.pass(1_000);
        }
    }

    /// A stable group of `a-1` and `b-3`, in its second generation, `a-1` leading.
    fn stable() -> Rig {
        let mut rig = Rig::new();
        let first = rig.join(&newcomer("a"));
        assert_eq!(&*rig.joined(first).member_id, "a-1");
        rig.sync("a-1", 1, &[("a-1", "all")]);
        let b = rig.join(&newcomer("b"));
        let a = rig.join(&again("a-1"));
        assert_eq!((&*rig.joined(a).member_id, &*rig.joined(b).member_id), ("a-1", "b-3"));
        let b = rig.sync("b-3", 2, &[]);
        let a = rig.sync("a-1", 2, &[("a-1", "left"), ("b-3", "right")]);
        assert_eq!((rig.part(a), rig.part(b)), (b"left".to_vec(), b"right".to_vec()));
        assert_eq!(rig.group.state(), "Stable");
        rig.answers.clear();
        rig
    }
}

#[test]
fn the_first_member_leads_and_has_its_part_once_that_is_durable() {
    let mut rig = Rig::new();
    let join = rig.join(&newcomer("a"));
    let joined = rig.joined(join);
    assert_eq!((joined.generation, &*joined.leader, &*joined.member_id), (1, "a-1", "a-1"));
    assert_eq!(joined.protocol.as_deref(), Some("range"));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(*joined.members[0].metadata, *b"a");
    rig.hold_stores = true;
    let sync = rig.sync("a-1", 1, &[("a-1", "all"), ("nobody", "none")]);
    assert!(rig.answer(sync).is_none(), "it is not durable yet");
    assert_eq!(rig.group.state(), "CompletingRebalance");
    rig.finish_store(true);
    assert_eq!(rig.part(sync), b"all");
    assert_eq!(rig.group.state(), "Stable");
    let stored = rig.stored.unwrap();
    assert_eq!((stored.generation, &*stored.members[0].assignment), (1, &b"all"[..]));
}

#[test]
fn when_somebody_comes_all_join_again_and_the_leader_sees_all() {
    let mut rig = Rig::stable();
    let c = rig.join(&newcomer("c"));
    assert_eq!(rig.heartbeat("a-1", 2), Err(GroupError::RebalanceInProgress));
    let b = rig.join(&again("b-3"));
    assert!(rig.answers.is_empty(), "a is missing");
    let a = rig.join(&again("a-1"));
    let (a, b, c) = (rig.joined(a), rig.joined(b), rig.joined(c));
    assert_eq!([a.generation, b.generation, c.generation], [3, 3, 3]);
    assert_eq!([&*a.leader, &*b.leader, &*c.leader], ["a-1", "a-1", "a-1"]);
    assert_eq!([a.members.len(), b.members.len(), c.members.len()], [3, 0, 0]);
}

#[test]
fn a_newcomer_is_sent_back_with_an_id_and_waited_for_until_its_session_ends() {
    let mut rig = Rig::stable();
    let first = Join { takes_id_first: true, ..newcomer("c") };
    let token = rig.join(&first);
    let GroupError::MemberIdRequired(id) = rig.error(token) else { panic!("no id is required") };
    assert_eq!(rig.group.state(), "Stable", "it is no member yet");
    let c = rig.join(&Join { member_id: Arc::clone(&id), ..first.clone() });
    let second = rig.join(&Join { client_id: "d".into(), ..first });
    assert!(matches!(rig.error(second), GroupError::MemberIdRequired(_)));
    let a = rig.join(&again("a-1"));
    let b = rig.join(&again("b-3"));
    assert!(rig.answers.is_empty(), "d is expected");
    rig.pass(SESSION_MS as u64);
    assert_eq!(rig.joined(c).member_id, id);
    assert_eq!(rig.joined(a).members.len(), 3);
    assert_eq!(rig.joined(b).generation, 3);
}

#[test]
fn the_first_generation_waits_a_little_and_a_little_longer_for_each_who_comes() {
    let mut rig = Rig::with(Bounds { initial_delay: Nanos::from_millis(3_000), ..bounds() });
    let a = rig.join(&newcomer("a"));
    rig.pass(2_000);
    let b = rig.join(&newcomer("b"));
    rig.pass(2_000);
    assert!(rig.answers.is_empty());
    rig.pass(1_000);
    assert_eq!((rig.joined(a).members.len(), rig.joined(b).generation), (2, 1));

    let mut rig = Rig::with(Bounds { initial_delay: Nanos::from_millis(3_000), ..bounds() });
    let hasty = |name| Join { rebalance_timeout_ms: 4_000, ..newcomer(name) };
    rig.join(&hasty("a"));
    rig.pass(2_500);
    rig.join(&hasty("b"));
    rig.pass(1_499);
    assert!(rig.answers.is_empty());
    rig.pass(1);
    assert_eq!(rig.answers.len(), 2, "no longer than the rebalance timeout");
}

#[test]
fn who_does_not_join_again_in_time_is_left_out() {
    let mut rig = Rig::stable();
    let c = rig.join(&newcomer("c"));
    let b = rig.join(&again("b-3"));
    rig.pass_alive(59_000, &["a-1"]);
    assert!(rig.answers.is_empty(), "a is alive and does not join");
    rig.pass_alive(2_000, &["a-1"]);
    let (b, c) = (rig.joined(b), rig.joined(c));
    assert_eq!((b.members.len() + c.members.len(), b.leader, b.generation), (2, c.leader, 3));
    assert_eq!(rig.heartbeat("a-1", 2), Err(GroupError::UnknownMember));
}

#[test]
fn who_falls_silent_is_gone_but_who_waits_is_not() {
    let mut rig = Rig::stable();
    rig.pass_alive(SESSION_MS as u64 + 1_000, &["a-1"]);
    assert_eq!(rig.heartbeat("b-3", 2), Err(GroupError::UnknownMember));
    assert_eq!(rig.heartbeat("a-1", 2), Err(GroupError::RebalanceInProgress));
    let c = rig.join(&newcomer("c"));
    rig.pass_alive(30_000, &["a-1"]);
    assert!(rig.answer(c).is_none(), "c has waited for longer than its session, and is not gone");
    let a = rig.join(&again("a-1"));
    assert_eq!(rig.joined(a).members.len(), 2);
    rig.pass(SESSION_MS as u64);
    assert_eq!(rig.heartbeat("a-1", 3), Err(GroupError::UnknownMember));
    assert_eq!(rig.group.state(), "Empty");
    assert_eq!(rig.stored.as_ref().unwrap().members, [], "that everybody is gone is stored");
}

#[test]
fn a_generation_that_is_over_or_yet_to_come_is_not_accepted() {
    let mut rig = Rig::stable();
    assert_eq!(rig.heartbeat("a-1", 2), Ok(()));
    assert_eq!(rig.heartbeat("a-1", 1), Err(GroupError::IllegalGeneration));
    assert_eq!(rig.heartbeat("a-1", 3), Err(GroupError::IllegalGeneration));
    let old = rig.sync("a-1", 1, &[("a-1", "all")]);
    assert_eq!(rig.error(old), GroupError::IllegalGeneration);
}

#[test]
fn a_way_to_assign_is_voted_for_among_those_that_all_know() {
    let mut rig = Rig::new();
    let know = |name, protocols: &[&str]| Join {
        protocols: protocols.iter().map(|protocol| (Arc::from(*protocol), Arc::default())).collect(),
        ..newcomer(name)
    };
    rig.join(&know("a", &["only-a", "range", "sticky"]));
    let b = rig.join(&know("b", &["sticky", "range"]));
    let c = rig.join(&know("c", &["sticky", "range"]));
    let a = rig.join(&Join { member_id: "a-1".into(), ..know("a", &["only-a", "range", "sticky"]) });
    for token in [a, b, c] {
        assert_eq!(rig.joined(token).protocol.as_deref(), Some("sticky"));
    }
    for other in [
        know("d", &["only-a"]),
        know("d", &[]),
        Join { protocol_type: "connect".into(), ..know("d", &["range"]) },
        Join { protocol_type: "".into(), ..know("d", &["range"]) },
    ] {
        let token = rig.join(&other);
        assert_eq!(rig.error(token), GroupError::InconsistentProtocol);
    }
}

#[test]
fn whoever_names_a_way_to_assign_twice_is_refused() {
    let mut rig = Rig::new();
    let range = (Arc::from("range"), Arc::from(*b"x"));
    let twice = Join { protocols: vec![range.clone(), range], ..newcomer("a") };
    let token = rig.join(&twice);
    assert_eq!(rig.error(token), GroupError::InconsistentProtocol);
    let token = rig.join(&newcomer("b"));
    assert_eq!(rig.joined(token).protocol.as_deref(), Some("range"));
}

#[test]
fn an_instance_takes_its_name_over_with_its_part_and_nobody_joins_again() {
    let mut rig = Rig::new();
    rig.join(&instance("a"));
    let b = rig.join(&instance("b"));
    let a = rig.join(&Join { member_id: "a-1".into(), ..instance("a") });
    assert_eq!((rig.joined(a).generation, rig.joined(b).generation), (2, 2));
    rig.sync("b-2", 2, &[]);
    rig.sync("a-1", 2, &[("a-1", "left"), ("b-2", "right")]);
    rig.answers.clear();

    let b = rig.join(&instance("b"));
    let joined = rig.joined(b);
    assert_eq!((joined.generation, &*joined.member_id, &*joined.leader), (2, "b-6", "a-1"));
    assert_eq!(rig.group.state(), "Stable");
    assert_eq!(rig.heartbeat("a-1", 2), Ok(()));
    let b = rig.sync("b-6", 2, &[]);
    assert_eq!(rig.part(b), b"right");
    assert!(rig.stored.as_ref().unwrap().members.iter().any(|member| &*member.id == "b-6"));
    let old = rig.join(&Join { member_id: "b-2".into(), ..instance("b") });
    assert_eq!(rig.error(old), GroupError::Fenced);

    // The leader's successor is told to let things be, if it understands that; else it is not told that it leads.
    let a = rig.join(&Join { skips_assignment: true, ..instance("a") });
    let joined = rig.joined(a);
    assert_eq!((joined.skip_assignment, joined.members.len()), (true, 2));
    assert_eq!(joined.leader, joined.member_id);
    let leader = joined.leader;
    let a = rig.join(&instance("a"));
    let joined = rig.joined(a);
    assert_eq!((joined.skip_assignment, joined.members.len(), joined.leader), (false, 0, leader));
    assert_eq!(rig.group.state(), "Stable");
}

#[test]
fn an_instance_that_waits_is_fenced_by_the_one_that_takes_its_name_over() {
    let mut rig = Rig::stable();
    let first = rig.join(&instance("c"));
    let second = rig.join(&instance("c"));
    assert_eq!(rig.error(first), GroupError::Fenced);
    rig.join(&again("a-1"));
    rig.join(&again("b-3"));
    assert_eq!(rig.joined(second).generation, 3);
}

#[test]
fn an_instance_may_miss_a_generation_as_long_as_its_session_lasts() {
    let mut rig = Rig::new();
    let long = |name| Join { session_timeout_ms: 200_000, ..instance(name) };
    rig.join(&long("a"));
    rig.sync("a-1", 1, &[]);
    let b = rig.join(&newcomer("b"));
    rig.pass(REBALANCE_MS as u64);
    let joined = rig.joined(b);
    assert_eq!(joined.members.len(), 2, "a is still counted on");
    assert_eq!(joined.leader, joined.member_id, "but one who is here leads");
    assert_eq!(rig.heartbeat("a-1", 1), Err(GroupError::IllegalGeneration));
}

#[test]
fn a_follower_that_has_nothing_new_joins_without_a_rebalance_and_a_leader_does_not() {
    let mut rig = Rig::stable();
    let b = rig.join(&again("b-3"));
    assert_eq!(rig.joined(b).generation, 2);
    assert_eq!(rig.group.state(), "Stable");
    let changed = Join { protocols: vec![("range".into(), b"other"[..].into())], ..again("b-3") };
    rig.join(&changed);
    assert_eq!(rig.group.state(), "PreparingRebalance");
    rig.join(&again("a-1"));
    assert_eq!(rig.group.state(), "CompletingRebalance");
    rig.answers.clear();
    let a = rig.join(&again("a-1"));
    let joined = rig.joined(a);
    assert_eq!((joined.generation, joined.members.len()), (3, 2), "its first answer may have been lost");

    let mut rig = Rig::stable();
    rig.join(&again("a-1"));
    assert_eq!(rig.group.state(), "PreparingRebalance");
}

#[test]
fn a_join_during_the_assignment_sends_everybody_back() {
    let mut rig = Rig::stable();
    let c = rig.join(&newcomer("c"));
    rig.join(&again("a-1"));
    rig.join(&again("b-3"));
    assert_eq!(rig.joined(c).generation, 3);
    let b = rig.sync("b-3", 3, &[]);
    rig.join(&newcomer("d"));
    assert_eq!(rig.error(b), GroupError::RebalanceInProgress);
    let a = rig.sync("a-1", 3, &[("a-1", "all")]);
    assert_eq!(rig.error(a), GroupError::RebalanceInProgress);
}

#[test]
fn an_assignment_that_cannot_be_stored_is_told_to_nobody() {
    let mut rig = Rig::stable();
    let c = rig.join(&newcomer("c"));
    rig.join(&again("a-1"));
    rig.join(&again("b-3"));
    assert_eq!(rig.joined(c).generation, 3);
    rig.hold_stores = true;
    let a = rig.sync("a-1", 3, &[("a-1", "all")]);
    let b = rig.sync("b-3", 3, &[]);
    rig.finish_store(false);
    assert_eq!(rig.error(a), GroupError::NotAvailable);
    assert_eq!(rig.error(b), GroupError::NotAvailable);
    assert_eq!(rig.group.state(), "PreparingRebalance");
}

#[test]
fn an_assignment_that_is_stored_too_late_is_not_the_next_generations() {
    let mut rig = Rig::stable();
    rig.join(&again("a-1"));
    rig.join(&again("b-3"));
    rig.hold_stores = true;
    let a = rig.sync("a-1", 3, &[("a-1", "old"), ("b-3", "old")]);
    assert_eq!(rig.leave(&[("b-3", None)]), [Ok(())]);
    assert_eq!(rig.error(a), GroupError::RebalanceInProgress);
    let a = rig.join(&again("a-1"));
    assert_eq!(rig.joined(a).generation, 4);
    rig.finish_store(true);
    assert_eq!(rig.group.state(), "CompletingRebalance");
    let a = rig.sync("a-1", 4, &[("a-1", "new")]);
    rig.finish_store(true);
    assert_eq!(rig.part(a), b"new");
}

#[test]
fn who_does_not_ask_for_its_part_in_time_is_gone() {
    let mut rig = Rig::stable();
    rig.join(&again("a-1"));
    rig.join(&again("b-3"));
    rig.answers.clear();
    let b = rig.sync("b-3", 3, &[]);
    rig.pass_alive(REBALANCE_MS as u64 - 1_000, &["a-1"]);
    assert!(rig.answer(b).is_none());
    rig.pass_alive(1_000, &["a-1"]);
    assert_eq!(rig.error(b), GroupError::RebalanceInProgress);
    assert_eq!(rig.heartbeat("a-1", 3), Err(GroupError::UnknownMember), "the leader never assigned");
    let b = rig.join(&again("b-3"));
    assert_eq!(rig.joined(b).members.len(), 1);
}

#[test]
fn members_leave_one_by_one_and_together() {
    let mut rig = Rig::stable();
    let c = rig.join(&instance("c"));
    rig.join(&again("a-1"));
    rig.join(&again("b-3"));
    let c_id = rig.joined(c).member_id;
    let left = rig.leave(&[("b-3", None), ("", Some("c")), ("nobody", None), ("a-1", Some("other"))]);
    assert_eq!(left, [Ok(()), Ok(()), Err(GroupError::UnknownMember), Err(GroupError::UnknownMember)]);
    assert_eq!(rig.heartbeat(&c_id, 3), Err(GroupError::UnknownMember));
    let a = rig.join(&again("a-1"));
    assert_eq!(rig.joined(a).members.len(), 1);
    assert_eq!(rig.leave(&[("a-1", None)]), [Ok(())]);
    assert_eq!(rig.group.state(), "Empty");
    let a = rig.join(&newcomer("a"));
    assert_eq!(rig.joined(a).generation, 6, "the number of a generation only rises");
}

#[test]
fn who_leaves_while_it_waits_is_told_so() {
    let mut rig = Rig::stable();
    let b = rig.join(&Join { protocols: vec![("range".into(), b"x"[..].into())], ..again("b-3") });
    assert_eq!(rig.leave(&[("b-3", None)]), [Ok(())]);
    assert_eq!(rig.error(b), GroupError::UnknownMember);
}

#[test]
fn a_closed_connection_ends_a_wait() {
    let mut rig = Rig::stable();
    let b = rig.join(&Join { protocols: vec![("range".into(), b"x"[..].into())], ..again("b-3") });
    let c = rig.join(&newcomer("c"));
    let cancel = |token| Input::Cancel(Asker { shard: ShardId(0), token: AppToken(token) });
    rig.on(cancel(b));
    rig.on(cancel(c));
    assert!(rig.answer(b).is_some() && rig.answer(c).is_some(), "nobody reads the answer, but it is given");
    let a = rig.join(&again("a-1"));
    assert!(rig.answer(a).is_none(), "b may come back; c does not know its id and is not waited for");
    rig.pass(SESSION_MS as u64);
    assert_eq!(rig.joined(a).members.len(), 1);
    rig.on(cancel(a));
}

#[test]
fn commits_are_for_members_of_this_generation_or_of_no_group_at_all() {
    let mut rig = Rig::new();
    let now = rig.now;
    let outsider = member("", -1);
    assert_eq!(rig.group.admit_commit(&outsider, now), Ok(()));
    assert_eq!(rig.group.admit_commit(&member("", 0), now), Err(GroupError::UnknownMember));
    let mut rig = Rig::stable();
    assert_eq!(rig.group.admit_commit(&outsider, now), Err(GroupError::UnknownMember));
    assert_eq!(rig.group.admit_commit(&member("a-1", 2), now), Ok(()));
    assert_eq!(rig.group.admit_commit(&member("a-1", 1), now), Err(GroupError::IllegalGeneration));
    assert_eq!(rig.group.admit_commit(&member("a-1", -1), now), Err(GroupError::IllegalGeneration));
    assert_eq!(rig.group.admit_commit(&member("x", 2), now), Err(GroupError::UnknownMember));
    // What has been read is still committed while the others join.
    rig.join(&newcomer("c"));
    assert_eq!(rig.group.admit_commit(&member("b-3", 2), now), Ok(()));
    rig.join(&again("a-1"));
    rig.join(&again("b-3"));
    assert_eq!(rig.group.admit_commit(&member("b-3", 3), now), Err(GroupError::RebalanceInProgress));
    assert_eq!(rig.group.admit_commit(&member("b-3", 2), now), Err(GroupError::IllegalGeneration));
}

#[test]
fn what_a_member_asks_for_and_brings_has_bounds() {
    let mut rig = Rig::stable();
    for (wrong, error) in [
        (Join { session_timeout_ms: 5_999, ..newcomer("c") }, GroupError::InvalidSessionTimeout),
        (Join { session_timeout_ms: 1_800_001, ..newcomer("c") }, GroupError::InvalidSessionTimeout),
        (Join { protocols: vec![("range".into(), [0; 100].into())], ..newcomer("c") }, GroupError::TooLarge),
        (again("nobody"), GroupError::UnknownMember),
        (Join { member_id: "a-1".into(), ..instance("a") }, GroupError::UnknownMember),
    ] {
        let token = rig.join(&wrong);
        assert_eq!(rig.error(token), error);
    }
    for name in ["c", "d", "e"] {
        rig.join(&newcomer(name));
    }
    let full = rig.join(&newcomer("f"));
    assert_eq!(rig.error(full), GroupError::Full);
    rig.join(&again("a-1"));
    rig.join(&again("b-3"));
    assert_eq!(rig.answers.len(), 5);
    let leader = rig.sync("a-1", 3, &[("a-1", &"x".repeat(300))]);
    assert_eq!(rig.error(leader), GroupError::TooLarge);
    assert_eq!(rig.group.state(), "PreparingRebalance", "they try again");
}

#[test]
fn what_a_member_was_given_counts_when_it_brings_more() {
    let mut rig = Rig::stable();
    rig.join(&newcomer("c"));
    rig.join(&again("a-1"));
    rig.join(&again("b-3"));
    rig.answers.clear();
    let part = "x".repeat(250);
    rig.sync("a-1", 3, &[("b-3", &part)]);
    assert!(rig.group.bytes() > 250, "it is durable");
    let more = Join { protocols: vec![("range".into(), [0; 90].into())], ..again("b-3") };
    let token = rig.join(&more);
    assert_eq!(rig.error(token), GroupError::TooLarge);
    rig.join(&again("b-3"));
    assert!(rig.group.bytes() <= 300, "{}", rig.group.bytes());
}

#[test]
fn a_group_comes_back_as_it_was_stored() {
    let mut rig = Rig::stable();
    let state = rig.stored.clone().unwrap();
    let decoded = GroupState::decode(&state.encode()).unwrap();
    rig.group = Group::restored(&decoded, rig.now);
    assert_eq!(rig.group.state(), "Stable");
    assert_eq!((rig.heartbeat("a-1", 2), rig.heartbeat("b-3", 2)), (Ok(()), Ok(())));
    let b = rig.sync("b-3", 2, &[]);
    assert_eq!(rig.part(b), b"right");
    rig.pass(SESSION_MS as u64);
    assert_eq!(rig.group.state(), "Empty", "sessions begin anew, and end");
    let a = rig.join(&newcomer("a"));
    assert!(rig.joined(a).generation > 2);
}

#[test]
fn it_is_described_in_full_only_while_it_is_stable() {
    let mut rig = Rig::stable();
    let described = rig.group.describe();
    assert_eq!((described.state, &*described.protocol), ("Stable", "range"));
    assert_eq!(
        (&*described.members[0].metadata, &*described.members[0].assignment),
        (&b"a"[..], &b"left"[..])
    );
    rig.join(&newcomer("c"));
    let described = rig.group.describe();
    assert_eq!(
        (described.state, &*described.protocol, described.members.len()),
        ("PreparingRebalance", "", 3)
    );
    assert!(
        described.members.iter().all(|member| member.assignment.is_empty() && member.metadata.is_empty())
    );
}
