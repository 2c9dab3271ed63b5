//! Giving everybody a part.

use std::sync::Arc;

use super::{After, Bounds, Group, Look, Now, Output, Phase};
use crate::coordinator::member::Waiting;
use crate::coordinator::question::{Asker, GroupError, Outcome, Sync, Synced};

impl Group {
    pub(super) fn on_sync(
        &mut self,
        asker: Asker,
        sync: &Sync,
        bounds: &Bounds,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if let Err(error) = self.admit_sync(sync) {
            return out.push(Output::Answer(asker, Err(error)));
        }
        let id = &sync.member.id;
        self.change(id, |member| {
            member.synced = true;
            member.heard(now.mono);
        });
        if self.phase == Phase::Stable {
            return out.push(Output::Answer(asker, Ok(Outcome::Synced(self.part(id)))));
        }
        self.wait(id, Some(Waiting::Sync(asker)), out);
        let is_stored = self
            .stores
            .iter()
            .any(|(_, after)| matches!(after, After::Assigned(generation) if *generation == self.generation));
        if self.leader.as_ref() != Some(id) || is_stored {
            return;
        }
        let bytes: usize = sync.assignments.iter().map(|(_, part)| part.len()).sum();
        if self.bytes + bytes > bounds.group_bytes_max {
            self.release(id, Err(GroupError::TooLarge), out);
            return self.on_assigned(self.generation, false, bounds, now, out);
        }
        for (member, part) in &sync.assignments {
            self.change(member, |member| member.assignment = Arc::clone(part));
        }
        self.since_ms = now.wall_ms;
        self.store(After::Assigned(self.generation), out);
    }

    fn admit_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        match self.phase {
            Phase::Dead => return Err(GroupError::NotAvailable),
            Phase::Empty => return Err(GroupError::UnknownMember),
            Phase::Preparing { .. } | Phase::Completing | Phase::Stable => {}
        }
        self.validate(&sync.member)?;
        let differs = |said: &Option<Arc<str>>, is: &Option<Arc<str>>| said.is_some() && said != is;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.phase {
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// What a member gets.
    fn part(&self, id: &Arc<str>) -> Synced {
        let assignment = self.members.get(id).map(|member| Arc::clone(&member.assignment));
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: assignment.unwrap_or_default(),
        }
    }

    /// The assignment of a generation is durable, or could not be stored. The generation may be over meanwhile.
    pub(super) fn on_assigned(
        &mut self,
        generation: i32,
        ok: bool,
        bounds: &Bounds,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if self.phase != Phase::Completing || self.generation != generation {
            return;
        }
        let ids: Vec<_> = self.members.keys().cloned().collect();
        if !ok {
            for id in &ids {
                self.release(id, Err(GroupError::NotAvailable), out);
            }
            return self.rebalance(bounds, now, out);
        }
        self.phase = Phase::Stable;
        for id in &ids {
            let part = self.part(id);
            self.heard(id, now.mono);
            self.release(id, Ok(Outcome::Synced(part)), out);
        }
    }

    /// Whoever has not asked for its part by now is gone.
    pub(super) fn look_at_synced(&mut self, bounds: &Bounds, now: Now, out: &mut Vec<Output>) {
        match self.sync_until {
            Some(until) if until > now.mono => return self.looks.look_by(&Look::Synced, until),
            None => return,
            Some(_) => self.sync_until = None,
        }
        let missing = self.members.iter().filter(|(_, member)| !member.synced);
        let missing: Vec<_> = missing.map(|(id, _)| Arc::clone(id)).collect();
        if missing.is_empty() {
            return;
        }
        for id in &missing {
            self.remove(id, out);
        }
        self.rebalance(bounds, now, out);
    }
}
