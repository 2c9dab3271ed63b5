//! Leaving, alone or several at once (KIP-345).

use std::sync::Arc;

use super::{Bounds, Group, Look, Now, Output};
use crate::coordinator::question::{Asker, GroupError, Leave, Outcome};

impl Group {
    pub(super) fn on_leave(
        &mut self,
        asker: Asker,
        leave: &Leave,
        bounds: &Bounds,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if self.is_dead() {
            return out.push(Output::Answer(asker, Err(GroupError::NotAvailable)));
        }
        let left: Vec<_> = leave
            .members
            .iter()
            .map(|(id, instance_id)| self.leave_one(id, instance_id.as_ref(), bounds, now, out))
            .collect();
        out.push(Output::Answer(asker, Ok(Outcome::Left(left))));
    }

    fn leave_one(
        &mut self,
        id: &Arc<str>,
        instance_id: Option<&Arc<str>>,
        bounds: &Bounds,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Result<(), GroupError> {
        if self.expected.remove(id).is_some() {
            self.looks.remove(&Look::Expected(Arc::clone(id)));
            self.try_complete(now, out);
            return Ok(());
        }
        let id = match instance_id {
            // An administrator names the instance only.
            Some(name) if id.is_empty() => {
                self.instances.get(name).cloned().ok_or(GroupError::UnknownMember)?
            }
            _ => {
                self.validate_id(id, instance_id)?;
                Arc::clone(id)
            }
        };
        self.lose(&id, bounds, now, out);
        Ok(())
    }
}
