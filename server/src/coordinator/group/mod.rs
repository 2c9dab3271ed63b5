//! One consumer group, as a state machine without I/O (KIP-62, KIP-345, KIP-394, KIP-814).
//!
//! Members join, and wait until all that are known have. Then a generation begins: one member, the leader, gets
//! everybody's metadata and gives everybody a part, which the others wait for. It ends when somebody comes, goes or falls
//! silent; then all are told to join again.
//!
//! ```text
//!             join                    all have joined, or time is up
//!   Empty ----------> Preparing ------------------------------------> Completing
//!     ^                 |  ^  ^                                         |
//!     |   nobody is left|  |  |   somebody comes, goes, is silent       | the leader has assigned, and that is durable
//!     +-----------------+  |  +-----------------------------------------+
//!                          |      somebody comes, goes, is silent       v
//!                          +----------------------------------------- Stable
//! ```
//!
//! `Dead` is an empty group whose deletion is on its way to the disk.
//!
//! **What holds.** A generation's number only rises while the group is remembered. Every [`Asker`] is answered exactly
//! once. An assignment is told to nobody before it is durable, so that a group which is read back after a crash has the
//! members and parts that were last told.

mod join;
mod leave;
#[cfg(test)]
mod model;
mod rebalance;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use millstream_engine::time::Nanos;

use super::deadlines::Deadlines;
use super::member::{Member, Waiting};
use super::question::{
    self, Answer, Asker, DescribedMember, Description, GroupError, Heartbeat, Join, Leave, Outcome, Sync,
};
use super::records::{GroupState, MemberState};
use super::subscription;

/// What bounds a group.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// How long the first generation waits for more members.
    pub initial_delay: Nanos,
    /// The session timeouts that a member may ask for, in ms.
    pub session_ms: RangeInclusive<i32>,
    /// Members at most, those counted that have only been given an id.
    pub members_max: usize,
    /// Bytes that one member may bring.
    pub member_bytes_max: usize,
    /// Bytes of all members together.
    pub group_bytes_max: usize,
}

/// The clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The monotonic one.
    pub mono: Nanos,
    /// The wall's, in ms since 1970.
    pub wall_ms: i64,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A client wants to be a member; with an id for it, should it need one.
    Join(Asker, Join, Arc<str>),
    /// A member wants its part.
    Sync(Asker, Sync),
    /// A member is alive.
    Heartbeat(Asker, Heartbeat),
    /// Members go.
    Leave(Asker, Leave),
    /// Nobody waits for this answer any more.
    Cancel(Asker),
    /// What was to be stored under this number is durable, or could not be stored.
    Stored(u64, bool),
    /// Time has passed.
    Time,
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Answer.
    Answer(Asker, Answer),
    /// Make this state durable, in the order of the numbers, and tell by [`Input::Stored`].
    Store(u64, GroupState),
}

/// Where a group stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Nobody is in it.
    Empty,
    /// Waiting for everybody to join.
    Preparing {
        /// Until then.
        until: Nanos,
        /// If it is the first generation: how far that may be put off for those who come later.
        first: Option<Nanos>,
    },
    /// Waiting for the leader's assignment, and for that to be durable.
    Completing,
    /// Everybody has a part.
    Stable,
    /// It is being deleted.
    Dead,
}

/// What is looked at when its time has come.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Look {
    /// Whether a member is still alive.
    Member(Arc<str>),
    /// Whether somebody has come back who was given an id.
    Expected(Arc<str>),
    /// Whether the generation that is being formed begins without those who are missing.
    Rebalance,
    /// Whether everybody has asked for its part.
    Synced,
}

/// What waits for something to be durable.
#[derive(Debug)]
enum After {
    /// The leader's assignment for a generation.
    Assigned(i32),
    /// An answer.
    Answer(Asker, Answer),
    /// Nothing.
    Nothing,
}

/// A group. Inputs come by [`Group::on`]; [`Group::next_look`] says when the next [`Input::Time`] is due.
#[derive(Debug)]
pub struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: Option<Arc<str>>,
    protocol: Option<Arc<str>>,
    leader: Option<Arc<str>>,
    members: BTreeMap<Arc<str>, Member>,
    /// The ids of those that have lasting names.
    instances: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids that were given out, whose owners have not joined with them yet, and until when they may.
    expected: BTreeMap<Arc<str>, Nanos>,
    /// For each way to assign, the members that know it.
    known_by: BTreeMap<Arc<str>, usize>,
    /// Members that wait for the next generation.
    joined: usize,
    /// Until when everybody has to have asked for its part; `None` if that is so, or none is given.
    sync_until: Option<Nanos>,
    looks: Deadlines<Look>,
    stores: VecDeque<(u64, After)>,
    store_number: u64,
    since_ms: i64,
    /// Bytes that members brought or were given.
    bytes: usize,
}

impl Group {
    /// A group that nobody is in.
    pub fn new(now: Now) -> Group {
        Group {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            expected: BTreeMap::new(),
            known_by: BTreeMap::new(),
            joined: 0,
            sync_until: None,
            looks: Deadlines::default(),
            stores: VecDeque::new(),
            store_number: 0,
            since_ms: now.wall_ms,
            bytes: 0,
        }
    }

    /// A group as it was stored. Its members' sessions begin anew.
    pub fn restored(state: &GroupState, now: Now) -> Group {
        let mut group = Group::new(now);
        group.generation = state.generation;
        group.protocol_type = Some(Arc::clone(&state.protocol_type)).filter(|kind| !kind.is_empty());
        group.since_ms = state.since_ms;
        let protocol = state.protocol.clone().unwrap_or_default();
        for stored in &state.members {
            group.insert(Arc::clone(&stored.id), Member::restored(stored, &protocol, now.mono));
        }
        if !group.members.is_empty() {
            group.phase = Phase::Stable;
            group.protocol = Some(protocol);
            let leader = state.leader.clone().filter(|leader| group.members.contains_key(leader));
            group.leader = leader.or_else(|| group.members.keys().next().cloned());
        }
        group
    }

    /// Takes something that happened.
    pub fn on(&mut self, input: Input, bounds: &Bounds, now: Now, out: &mut Vec<Output>) {
        match input {
            Input::Join(asker, join, fresh) => self.on_join(asker, &join, fresh, bounds, now, out),
            Input::Sync(asker, sync) => self.on_sync(asker, &sync, bounds, now, out),
            Input::Heartbeat(asker, heartbeat) => {
                let answer = self.on_heartbeat(&heartbeat.member, now).map(|()| Outcome::Done);
                out.push(Output::Answer(asker, answer));
            }
            Input::Leave(asker, leave) => self.on_leave(asker, &leave, bounds, now, out),
            Input::Cancel(asker) => self.on_cancel(asker, bounds, now, out),
            Input::Stored(number, ok) => self.on_stored(number, ok, bounds, now, out),
            Input::Time => self.on_time(bounds, now, out),
        }
    }

    /// When it next wants to be told that time has passed.
    pub fn next_look(&self) -> Option<Nanos> {
        self.looks.next()
    }

    /// Whether nobody is in it, nor expected.
    pub fn is_empty(&self) -> bool {
        matches!(self.phase, Phase::Empty) && self.expected.is_empty()
    }

    /// Whether it has never had a generation.
    pub fn is_new(&self) -> bool {
        self.generation == 0
    }

    /// Since when it has been in its state, if it is empty, in ms since 1970.
    pub fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// The number of its generation; 0 if it has never had one.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Gives up: who waits for an answer.
    pub fn abandon(&mut self) -> Vec<Asker> {
        let members = self.members.values_mut().filter_map(|member| member.waiting.take());
        let waiting = members.map(|(Waiting::Join(asker) | Waiting::Sync(asker))| asker);
        let stores = self.stores.drain(..).filter_map(|(_, after)| match after {
            After::Answer(asker, _) => Some(asker),
            After::Assigned(_) | After::Nothing => None,
        });
        waiting.chain(stores).collect()
    }

    /// Bytes that its members brought or were given.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its state, as Kafka calls it.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::Preparing { .. } => "PreparingRebalance",
            Phase::Completing => "CompletingRebalance",
            Phase::Stable => "Stable",
            Phase::Dead => "Dead",
        }
    }

    /// What sort of group it is, if it has had members.
    pub fn protocol_type(&self) -> Option<&Arc<str>> {
        self.protocol_type.as_ref()
    }

    /// Marks it as being deleted, or as not deleted after all.
    pub fn set_dead(&mut self, dead: bool) {
        assert!(matches!(self.phase, Phase::Empty | Phase::Dead), "only an empty group is deleted");
        self.phase = if dead { Phase::Dead } else { Phase::Empty };
    }

    /// Whether it is being deleted.
    pub fn is_dead(&self) -> bool {
        matches!(self.phase, Phase::Dead)
    }

    /// Whether somebody may commit offsets for it. A member that does is alive.
    pub fn admit_commit(&mut self, member: &question::Member, now: Now) -> Result<(), GroupError> {
        if self.is_dead() {
            return Err(GroupError::NotAvailable);
        }
        let outsider = member.generation < 0 && member.id.is_empty() && member.instance_id.is_none();
        if member.generation < 0 && self.members.is_empty() {
            // It only keeps its offsets here.
            return Ok(());
        }
        if outsider {
            return Err(GroupError::UnknownMember);
        }
        self.validate(member)?;
        match self.phase {
            // Its part in this generation is yet to come: what it has read in the last one it commits after that.
            Phase::Completing => Err(GroupError::RebalanceInProgress),
            _ => {
                self.heard(&member.id, now.mono);
                Ok(())
            }
        }
    }

    /// Everything about it.
    pub fn describe(&self) -> Description {
        let stable = self.protocol.as_ref().filter(|_| matches!(self.phase, Phase::Stable));
        let members = self.members.iter().map(|(id, member)| DescribedMember {
            id: Arc::clone(id),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: stable.map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            assignment: stable.map(|_| Arc::clone(&member.assignment)).unwrap_or_default(),
        });
        Description {
            state: self.state(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: stable.cloned().unwrap_or_default(),
            members: members.collect(),
        }
    }

    /// Whether members may read a topic: an error says that it cannot be known.
    pub fn reads(&self, topic: &str) -> Result<bool, GroupError> {
        if self.members.is_empty() {
            return Ok(false);
        }
        if self.protocol_type.as_deref() != Some(subscription::CONSUMER) {
            return Err(GroupError::NotEmpty);
        }
        Ok(self.members.values().any(|member| {
            member.protocols.iter().any(|(_, metadata)| {
                subscription::topics(metadata).is_ok_and(|topics| topics.contains(&topic))
            })
        }))
    }

    fn on_heartbeat(&mut self, member: &question::Member, now: Now) -> Result<(), GroupError> {
        match self.phase {
            Phase::Dead => return Err(GroupError::NotAvailable),
            Phase::Empty => return Err(GroupError::UnknownMember),
            Phase::Preparing { .. } | Phase::Completing | Phase::Stable => {}
        }
        self.validate(member)?;
        self.heard(&member.id, now.mono);
        match self.phase {
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Whether somebody is the member that it says it is, in this generation.
    fn validate(&self, member: &question::Member) -> Result<(), GroupError> {
        self.validate_id(&member.id, member.instance_id.as_ref())?;
        if member.generation == self.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    fn validate_id(&self, id: &Arc<str>, instance_id: Option<&Arc<str>>) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.instances.get(instance_id) {
                None => return Err(GroupError::UnknownMember),
                Some(current) if current != id => return Err(GroupError::Fenced),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    fn heard(&mut self, id: &Arc<str>, now: Nanos) {
        if let Some(member) = self.members.get_mut(id) {
            member.heard(now);
        }
    }

    /// Has a member wait for something, or for nothing. Whoever waited in its place before is told to join.
    fn wait(&mut self, id: &Arc<str>, waiting: Option<Waiting>, out: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(id) else { return };
        let before = std::mem::replace(&mut member.waiting, waiting);
        self.joined -= usize::from(matches!(before, Some(Waiting::Join(_))));
        self.joined += usize::from(matches!(waiting, Some(Waiting::Join(_))));
        if let Some(Waiting::Join(asker) | Waiting::Sync(asker)) = before {
            out.push(Output::Answer(asker, Err(GroupError::RebalanceInProgress)));
        }
    }

    /// Answers what a member waits for.
    fn release(&mut self, id: &Arc<str>, answer: Answer, out: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(id) else { return };
        let waiting = member.waiting.take();
        self.joined -= usize::from(matches!(waiting, Some(Waiting::Join(_))));
        if let Some(Waiting::Join(asker) | Waiting::Sync(asker)) = waiting {
            out.push(Output::Answer(asker, answer));
        }
    }

    fn insert(&mut self, id: Arc<str>, member: Member) {
        self.looks.look_by(&Look::Member(Arc::clone(&id)), member.expires);
        self.bytes += member.bytes();
        self.count_protocols(&member.protocols, true);
        if let Some(instance_id) = &member.instance_id {
            self.instances.insert(Arc::clone(instance_id), Arc::clone(&id));
        }
        self.members.insert(id, member);
    }

    /// Takes a member out, without a thought for the others.
    fn remove(&mut self, id: &Arc<str>, out: &mut Vec<Output>) -> Option<Member> {
        self.release(id, Err(GroupError::UnknownMember), out);
        let member = self.members.remove(id)?;
        self.looks.remove(&Look::Member(Arc::clone(id)));
        self.bytes -= member.bytes();
        self.count_protocols(&member.protocols, false);
        if let Some(instance_id) = &member.instance_id
            && self.instances.get(instance_id) == Some(id)
        {
            self.instances.remove(instance_id);
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = None;
        }
        Some(member)
    }

    /// Changes a member, and what is counted of it.
    fn change(&mut self, id: &Arc<str>, change: impl FnOnce(&mut Member)) {
        let Some(mut member) = self.members.remove(id) else { return };
        self.bytes -= member.bytes();
        self.count_protocols(&member.protocols, false);
        change(&mut member);
        self.bytes += member.bytes();
        self.count_protocols(&member.protocols, true);
        self.looks.look_by(&Look::Member(Arc::clone(id)), member.expires);
        self.members.insert(Arc::clone(id), member);
    }

    fn count_protocols(&mut self, protocols: &[(Arc<str>, Arc<[u8]>)], add: bool) {
        for (protocol, _) in protocols {
            let count = self.known_by.entry(Arc::clone(protocol)).or_default();
            if add {
                *count += 1;
            } else {
                *count -= 1;
                if *count == 0 {
                    self.known_by.remove(protocol);
                }
            }
        }
    }

    /// Has the group's state made durable.
    fn store(&mut self, after: After, out: &mut Vec<Output>) {
        self.store_number += 1;
        self.stores.push_back((self.store_number, after));
        out.push(Output::Store(self.store_number, self.stored()));
    }

    fn stored(&self) -> GroupState {
        let protocol = self.protocol.clone();
        let members = self.members.iter().map(|(id, member)| MemberState {
            id: Arc::clone(id),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            metadata: protocol.as_ref().map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            assignment: Arc::clone(&member.assignment),
        });
        GroupState {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: protocol.clone(),
            leader: self.leader.clone(),
            since_ms: self.since_ms,
            members: members.collect(),
        }
    }

    fn on_stored(&mut self, number: u64, ok: bool, bounds: &Bounds, now: Now, out: &mut Vec<Output>) {
        let Some((_, after)) = self.stores.pop_front_if(|(front, _)| *front == number) else {
            panic!("stores are reported in order, each once: {number} is not the next");
        };
        match after {
            After::Nothing => {}
            After::Answer(asker, answer) => {
                let answer = if ok { answer } else { Err(GroupError::NotAvailable) };
                out.push(Output::Answer(asker, answer));
            }
            After::Assigned(generation) => self.on_assigned(generation, ok, bounds, now, out),
        }
    }

    fn on_time(&mut self, bounds: &Bounds, now: Now, out: &mut Vec<Output>) {
        while let Some(look) = self.looks.due(now.mono) {
            match &look {
                Look::Member(id) => self.look_at_member(id, look.clone(), bounds, now, out),
                Look::Expected(id) => {
                    self.expected.remove(id);
                    self.try_complete(now, out);
                }
                Look::Rebalance => self.look_at_rebalance(now, out),
                Look::Synced => self.look_at_synced(bounds, now, out),
            }
        }
    }

    fn look_at_member(
        &mut self,
        id: &Arc<str>,
        look: Look,
        bounds: &Bounds,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let Some(member) = self.members.get_mut(id) else { return };
        if member.waiting.is_some() {
            // Its connection would have told us if it were gone.
            member.heard(now.mono);
        }
        if member.expires > now.mono {
            self.looks.look_by(&look, member.expires);
        } else {
            tracing::debug!(member = &**id, "a member of a group has fallen silent");
            self.lose(id, bounds, now, out);
        }
    }

    /// Nobody waits for an answer any more: its connection is gone. The member may come back within its session, if it
    /// knows who it is.
    fn on_cancel(&mut self, asker: Asker, bounds: &Bounds, now: Now, out: &mut Vec<Output>) {
        let waits = |waiting: Option<Waiting>| matches!(waiting, Some(Waiting::Join(other) | Waiting::Sync(other)) if other == asker);
        let Some(id) =
            self.members.iter().find(|(_, member)| waits(member.waiting)).map(|(id, _)| Arc::clone(id))
        else {
            return;
        };
        if self.members.get(&id).is_some_and(|member| member.knows_id) {
            self.release(&id, Err(GroupError::UnknownMember), out);
            self.change(&id, |member| member.heard(now.mono));
        } else {
            self.lose(&id, bounds, now, out);
        }
    }
}
