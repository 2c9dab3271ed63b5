//! From one generation to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_engine::time::Nanos;

use super::{After, Bounds, Group, Look, Now, Output, Phase};
use crate::coordinator::member::millis;
use crate::coordinator::question::{GroupError, Outcome};

/// How often those that have lasting names are looked for at most, whatever timeout they have asked for.
const PAUSE: Nanos = Nanos::from_millis(1_000);

impl Group {
    /// Begins to form the next generation, unless that is under way; and it begins if everybody is there already.
    pub(super) fn rebalance(&mut self, bounds: &Bounds, now: Now, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Preparing { .. } => {}
            Phase::Dead => panic!("nobody joins or leaves a group that is being deleted"),
            Phase::Empty if bounds.initial_delay > Nanos::ZERO => {
                let last = now.mono + self.rebalance_timeout();
                let until = (now.mono + bounds.initial_delay).min(last);
                self.prepare(until, Some(last));
            }
            Phase::Empty | Phase::Stable => self.prepare(now.mono + self.rebalance_timeout(), None),
            Phase::Completing => {
                self.drop_assignments(out);
                self.prepare(now.mono + self.rebalance_timeout(), None);
            }
        }
        self.try_complete(now, out);
    }

    fn prepare(&mut self, until: Nanos, first: Option<Nanos>) {
        self.phase = Phase::Preparing { until, first };
        self.sync_until = None;
        self.looks.remove(&Look::Synced);
        self.looks.remove(&Look::Rebalance);
        self.looks.look_by(&Look::Rebalance, until);
    }

    /// One more has come for the first generation: it waits a little longer for the next one, up to its bound.
    pub(super) fn put_off_first(&mut self, bounds: &Bounds, now: Now) {
        if let Phase::Preparing { first: Some(last), .. } = self.phase {
            self.prepare((now.mono + bounds.initial_delay).min(last), Some(last));
        }
    }

    fn rebalance_timeout(&self) -> Nanos {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max();
        millis(longest.unwrap_or(0))
    }

    /// Whoever waits for its part gets none in this generation.
    fn drop_assignments(&mut self, out: &mut Vec<Output>) {
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            if self.members.get(&id).is_some_and(|member| !member.awaits_join()) {
                self.release(&id, Err(GroupError::RebalanceInProgress), out);
            }
            self.change(&id, |member| member.assignment = Arc::default());
        }
    }

    /// Begins the next generation if everybody is there.
    pub(super) fn try_complete(&mut self, now: Now, out: &mut Vec<Output>) {
        let Phase::Preparing { first, .. } = self.phase else { return };
        let nobody = self.members.is_empty();
        let everybody = self.joined == self.members.len() && self.expected.is_empty() && first.is_none();
        if nobody && self.expected.is_empty() || everybody {
            self.complete(now, out);
        }
    }

    /// Time is up for those who have not joined.
    pub(super) fn look_at_rebalance(&mut self, now: Now, out: &mut Vec<Output>) {
        let Phase::Preparing { until, .. } = self.phase else { return };
        if until > now.mono {
            return self.looks.look_by(&Look::Rebalance, until);
        }
        self.complete(now, out);
    }

    /// Begins the next generation with those who are there. Whoever has a lasting name may come later.
    fn complete(&mut self, now: Now, out: &mut Vec<Output>) {
        let late =
            |(_, member): &(&Arc<str>, &super::Member)| !member.awaits_join() && member.instance_id.is_none();
        let late: Vec<_> = self.members.iter().filter(late).map(|(id, _)| Arc::clone(id)).collect();
        for id in late {
            self.remove(&id, out);
        }
        self.looks.remove(&Look::Rebalance);
        if self.members.is_empty() {
            return self.fall_empty(now, out);
        }
        let leads = |id: &Arc<str>| self.members.get(id).is_some_and(super::Member::awaits_join);
        if !self.leader.as_ref().is_some_and(leads) {
            let other = self.members.iter().find(|(_, member)| member.awaits_join());
            let Some((id, _)) = other else {
                // Only lasting names are left, and none of them is here: their sessions decide.
                return self.prepare(now.mono + self.rebalance_timeout().max(PAUSE), None);
            };
            self.leader = Some(Arc::clone(id));
        }
        self.generation = self.generation.checked_add(1).expect("a group sees fewer generations than that");
        self.protocol = self.vote();
        self.phase = Phase::Completing;
        self.since_ms = now.wall_ms;
        let until = now.mono + self.rebalance_timeout();
        self.sync_until = Some(until);
        self.looks.look_by(&Look::Synced, until);
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            self.change(&id, |member| {
                member.synced = false;
                member.assignment = Arc::default();
                if member.awaits_join() {
                    member.knows_id = true;
                    member.heard(now.mono);
                }
            });
            let joined = self.joined(&id);
            self.release(&id, Ok(Outcome::Joined(joined)), out);
        }
    }

    /// Everybody has gone. That is stored, for the offsets' retention counts from now.
    fn fall_empty(&mut self, now: Now, out: &mut Vec<Output>) {
        self.generation = self.generation.checked_add(1).expect("a group sees fewer generations than that");
        self.phase = Phase::Empty;
        self.protocol = None;
        self.leader = None;
        self.since_ms = now.wall_ms;
        self.store(After::Nothing, out);
    }

    /// The way to assign that most members like best among those that all of them know.
    pub(super) fn vote(&self) -> Option<Arc<str>> {
        let all = self.members.len();
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            let mut known = member.protocols.iter().map(|(protocol, _)| protocol);
            let choice = known.find(|protocol| self.known_by.get(*protocol) == Some(&all));
            *votes.entry(choice.expect("whoever joins knows a way that all know")).or_default() += 1;
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(protocol, _)| Arc::clone(protocol))
    }

    /// A member is gone.
    pub(super) fn lose(&mut self, id: &Arc<str>, bounds: &Bounds, now: Now, out: &mut Vec<Output>) {
        if self.remove(id, out).is_none() {
            return;
        }
        match self.phase {
            Phase::Completing | Phase::Stable => self.rebalance(bounds, now, out),
            Phase::Preparing { .. } => self.try_complete(now, out),
            Phase::Empty | Phase::Dead => panic!("a group that had a member is in no state that has none"),
        }
    }
}
