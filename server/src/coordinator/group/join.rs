//! Joining: newcomers, members that come back, and instances that take over a lasting name.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{After, Bounds, Group, Look, Now, Output, Phase};
use crate::coordinator::member::{Member, Waiting, brought, millis};
use crate::coordinator::question::{Asker, GroupError, Join, Joined, JoinedMember, Outcome};
use crate::limits::GROUP_STORES_WAITING_MAX;

impl Group {
    pub(super) fn on_join(
        &mut self,
        asker: Asker,
        join: &Join,
        fresh: Arc<str>,
        bounds: &Bounds,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let refused = self.admit_join(join, bounds).err();
        if let Some(error) = refused {
            return out.push(Output::Answer(asker, Err(error)));
        }
        let instance = join.instance_id.as_ref().and_then(|name| self.instances.get(name)).cloned();
        match instance {
            _ if !join.member_id.is_empty() => self.come_back(asker, join, bounds, now, out),
            Some(old) => self.take_over(asker, join, &old, fresh, bounds, now, out),
            None if join.takes_id_first && join.instance_id.is_none() => {
                let until = now.mono + millis(join.session_timeout_ms);
                self.expected.insert(Arc::clone(&fresh), until);
                self.looks.look_by(&Look::Expected(Arc::clone(&fresh)), until);
                out.push(Output::Answer(asker, Err(GroupError::MemberIdRequired(fresh))));
            }
            None => self.add(asker, join, fresh, bounds, now, out),
        }
    }

    fn admit_join(&self, join: &Join, bounds: &Bounds) -> Result<(), GroupError> {
        if self.is_dead() {
            return Err(GroupError::NotAvailable);
        }
        if self.stores.len() >= GROUP_STORES_WAITING_MAX {
            return Err(GroupError::NotAvailable);
        }
        if !bounds.session_ms.contains(&join.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if join.protocols.is_empty() || join.protocol_type.is_empty() {
            return Err(GroupError::InconsistentProtocol);
        }
        // Each is counted once per member that knows it.
        let names: BTreeSet<_> = join.protocols.iter().map(|(protocol, _)| protocol).collect();
        if names.len() < join.protocols.len() {
            return Err(GroupError::InconsistentProtocol);
        }
        if !self.members.is_empty() {
            let all = self.members.len();
            let known_to_all = |protocol: &Arc<str>| self.known_by.get(protocol) == Some(&all);
            if self.protocol_type.as_ref() != Some(&join.protocol_type)
                || !join.protocols.iter().any(|(protocol, _)| known_to_all(protocol))
            {
                return Err(GroupError::InconsistentProtocol);
            }
        }
        let is_known = self.members.contains_key(&join.member_id)
            || self.expected.contains_key(&join.member_id)
            || join.instance_id.as_ref().is_some_and(|name| self.instances.contains_key(name));
        if !is_known && self.members.len() + self.expected.len() >= bounds.members_max {
            return Err(GroupError::Full);
        }
        let bytes = brought(&join.protocols);
        // What it was given stays until the next generation begins.
        let replaced = self.members.get(&join.member_id).map_or(0, |member| brought(&member.protocols));
        if bytes > bounds.member_bytes_max || self.bytes - replaced + bytes > bounds.group_bytes_max {
            return Err(GroupError::TooLarge);
        }
        Ok(())
    }

    /// Somebody joins who says who it is.
    fn come_back(&mut self, asker: Asker, join: &Join, bounds: &Bounds, now: Now, out: &mut Vec<Output>) {
        let id = &join.member_id;
        if self.expected.remove(id).is_some() {
            self.looks.remove(&Look::Expected(Arc::clone(id)));
            return self.add(asker, join, Arc::clone(id), bounds, now, out);
        }
        if let Err(error) = self.validate_id(id, join.instance_id.as_ref()) {
            return out.push(Output::Answer(asker, Err(error)));
        }
        let unchanged = self.members.get(id).is_some_and(|member| member.protocols == join.protocols);
        let is_leader = self.leader.as_ref() == Some(id);
        match self.phase {
            // The answer to its first attempt was lost: it gets another.
            Phase::Completing if unchanged => {
                self.change(id, |member| member.heard(now.mono));
                out.push(Output::Answer(asker, Ok(Outcome::Joined(self.joined(id)))));
            }
            // A follower has nothing new to say, and the generation goes on.
            Phase::Stable if unchanged && !is_leader => {
                self.change(id, |member| member.heard(now.mono));
                out.push(Output::Answer(asker, Ok(Outcome::Joined(self.joined(id)))));
            }
            Phase::Preparing { .. } | Phase::Completing | Phase::Stable => {
                self.change(id, |member| member.update(join, now.mono));
                self.wait(id, Some(Waiting::Join(asker)), out);
                self.rebalance(bounds, now, out);
            }
            Phase::Empty | Phase::Dead => panic!("a group with a member is in no state that has none"),
        }
    }

    fn add(
        &mut self,
        asker: Asker,
        join: &Join,
        id: Arc<str>,
        bounds: &Bounds,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if self.members.is_empty() {
            self.protocol_type = Some(Arc::clone(&join.protocol_type));
        }
        self.insert(Arc::clone(&id), Member::new(join, now.mono));
        self.leader.get_or_insert(Arc::clone(&id));
        self.wait(&id, Some(Waiting::Join(asker)), out);
        self.put_off_first(bounds, now);
        self.rebalance(bounds, now, out);
    }

    /// An instance takes over the lasting name of another, with its part (KIP-345). The other learns that it is fenced.
    #[expect(clippy::too_many_arguments, reason = "who joins, for whom, and the four that every input has")]
    fn take_over(
        &mut self,
        asker: Asker,
        join: &Join,
        old: &Arc<str>,
        new: Arc<str>,
        bounds: &Bounds,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let leader_before = self.leader.clone();
        self.release(old, Err(GroupError::Fenced), out);
        let Some(member) = self.remove(old, out) else { panic!("a lasting name belongs to a member") };
        self.insert(Arc::clone(&new), member);
        self.change(&new, |member| member.update(join, now.mono));
        if leader_before.as_ref() == Some(old) {
            self.leader = Some(Arc::clone(&new));
        }
        if self.phase != Phase::Stable || self.vote() != self.protocol {
            self.wait(&new, Some(Waiting::Join(asker)), out);
            return self.rebalance(bounds, now, out);
        }
        // The generation goes on, under another id.
        let is_leader = self.leader.as_ref() == Some(&new);
        let joined = if join.skips_assignment {
            Joined { skip_assignment: is_leader, ..self.joined(&new) }
        } else {
            // It would assign anew if it knew that it leads.
            let leader = leader_before.unwrap_or_default();
            Joined { leader, members: Vec::new(), ..self.joined(&new) }
        };
        self.store(After::Answer(asker, Ok(Outcome::Joined(joined))), out);
    }

    /// What a member is told of the generation that it has joined.
    pub(super) fn joined(&self, id: &Arc<str>) -> Joined {
        let protocol = self.protocol.as_ref();
        let is_leader = self.leader.as_ref() == Some(id);
        let everybody = self.members.iter().filter(|_| is_leader).map(|(id, member)| JoinedMember {
            id: Arc::clone(id),
            instance_id: member.instance_id.clone(),
            metadata: protocol.map(|protocol| member.metadata(protocol)).unwrap_or_default(),
        });
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: protocol.cloned(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: Arc::clone(id),
            skip_assignment: false,
            members: everybody.collect(),
        }
    }
}
