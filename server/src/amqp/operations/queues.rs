//! Declaring and deleting queues.

use millstream_engine::error::Refusal;
use millstream_engine::shard::change::{Edit, Guard, MetadataChange, NewQueue};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::{QueueId, ShardId};

use super::exchanges::RESERVED;
use super::{Done, METADATA_SHARD, Step, View, binding_edits};
use crate::amqp::codec::Table;
use crate::amqp::error::{Failure, Text, queue_in};
use crate::amqp::topology::Queue;
use crate::amqp::topology::arguments::{Wishes, check_property, check_queue_arguments};
use crate::amqp::topology::entries::{Destination, QUEUE, QueueValue, key, vhost_exists};

/// Makes a queue, or sees whether it is as expected.
#[derive(Debug)]
pub struct DeclareQueue {
    /// Its name.
    pub name: Vec<u8>,
    /// The name was made up by us, and may begin as the broker's names do.
    pub generated: bool,
    /// Only look whether it is there.
    pub passive: bool,
    /// Whether it is to be the connection's alone.
    pub exclusive: bool,
    /// What it is to be.
    pub value: QueueValue,
    /// Whether the user may make it, if it is not there.
    pub may_be_made: Result<(), Failure>,
}

impl DeclareQueue {
    pub(super) fn begin(&mut self, view: View<'_>) -> Step {
        match self.look(view) {
            Ok((shard, request)) => Step::Ask(shard, request),
            Err(failure) => Step::Failed(failure),
        }
    }

    fn look(&self, view: View<'_>) -> Result<(ShardId, Request), Failure> {
        let vhost = view.vhost;
        if let Some(queue) = vhost.queue(&self.name) {
            self.check(queue, view)?;
            let stats = Request::QueueStats { queues: vec![queue.id], touch: true };
            return Ok((queue.shard, stats));
        }
        if self.passive {
            return Err(Failure::no_queue(&self.name, &vhost.name));
        }
        let what = queue_in(&self.name, &vhost.name);
        if self.name.starts_with(RESERVED) && !self.generated {
            let name = Text(&self.name);
            return Err(Failure::refused(format!("queue name '{name}' contains reserved prefix 'amq.*'")));
        }
        self.may_be_made.clone()?;
        if let Some(limit) = vhost.limits.queues()
            && vhost.queues().len() as u64 >= limit
        {
            return Err(Failure::precondition(format!(
                "cannot declare queue '{}': queue limit in vhost '{}' ({limit}) is reached",
                Text(&self.name),
                Text(&vhost.name)
            )));
        }
        let arguments = Table::from_raw(&self.value.arguments).unwrap_or_default();
        let wishes = Wishes::read(arguments, &what)?;
        if wishes.quorum && self.exclusive {
            return Err(Failure::precondition(format!("invalid property 'exclusive-owner' for {what}")));
        }
        if wishes.quorum && !self.value.durable {
            return Err(Failure::precondition(format!("invalid property 'non-durable' for {what}")));
        }
        if wishes.quorum && self.value.auto_delete {
            return Err(Failure::precondition(format!("invalid property 'auto-delete' for {what}")));
        }
        if wishes.quorum && self.generated {
            let text = "Cannot declare a server-named queue for type rabbit_quorum_queue";
            return Err(Failure::precondition(text));
        }
        let wishes = vhost.with_policies(&self.name, wishes);
        let key = key(QUEUE, &[&vhost.name, &self.name]);
        let durable = self.value.durable;
        let edits = vec![
            Edit::CreateQueue(NewQueue { name: key.key.clone(), durable, settings: wishes.settings }),
            Edit::SetEntry { key: key.clone(), value: self.value.write(), transient: !durable },
        ];
        let guards = vec![Guard::Entry(key, None), vhost_exists(&vhost.name)];
        let change = MetadataChange { guards, edits };
        Ok((METADATA_SHARD, Request::ChangeMetadata(change)))
    }

    /// Whether a queue that is there is what was declared.
    fn check(&self, queue: &Queue, view: View<'_>) -> Result<(), Failure> {
        let vhost = &view.vhost.name;
        let locked = || Failure::locked(&self.name, vhost);
        if view.owner.is_some_and(|owner| !queue.is_open_to(owner)) {
            return Err(locked());
        }
        if self.passive {
            return Ok(());
        }
        if self.exclusive != queue.value.owner.is_some() {
            return Err(locked());
        }
        let what = queue_in(&self.name, vhost);
        check_property(&what, "durable", queue.value.durable, self.value.durable)?;
        check_property(&what, "auto_delete", queue.value.auto_delete, self.value.auto_delete)?;
        let arguments = Table::from_raw(&self.value.arguments).unwrap_or_default();
        Wishes::read(arguments, &what)?;
        check_queue_arguments(&what, queue.arguments(), arguments)
    }

    pub(super) fn replied(&mut self, reply: Reply, view: View<'_>) -> Step {
        let declared = |id, messages, consumers, own| {
            Step::Done(Done::QueueDeclared { name: self.name.clone(), id, messages, consumers, own })
        };
        match reply {
            Reply::Changed(ids) => match ids.first() {
                Some(id) => declared(*id, 0, 0, self.exclusive),
                None => panic!("a queue was made without an id"),
            },
            Reply::QueueStats(stats) => match stats.first() {
                Some((id, stats)) => declared(*id, stats.ready, stats.consumers, false),
                // It has just gone.
                None => self.begin_again(view),
            },
            Reply::Refused(refusal) => Step::Failed(Failure::of(&refusal, &self.name, &view.vhost.name)),
            other => panic!("a declaration was answered {other:?}"),
        }
    }

    /// The queue that the topology knows is not there any more, and the news are on their way.
    fn begin_again(&self, view: View<'_>) -> Step {
        Step::Failed(Failure::no_queue(&self.name, &view.vhost.name))
    }
}

/// Deletes a queue. One that is not there is as good as deleted.
#[derive(Debug)]
pub struct DeleteQueue {
    /// Its name.
    pub name: Vec<u8>,
    /// Only this incarnation, whoever's it is.
    pub id: Option<QueueId>,
    /// Only if it has no consumers.
    pub if_unused: bool,
    /// Only if no messages wait in it.
    pub if_empty: bool,
    /// The queue that is asked to close.
    asked: Option<QueueId>,
    /// The queue that was closed, and what was in it.
    closed: Option<(QueueId, ShardId, u64)>,
}

impl DeleteQueue {
    /// Deletes a queue on these conditions.
    pub fn new(name: Vec<u8>, id: Option<QueueId>, if_unused: bool, if_empty: bool) -> DeleteQueue {
        DeleteQueue { name, id, if_unused, if_empty, asked: None, closed: None }
    }

    /// The same, from the beginning.
    #[must_use]
    pub fn anew(&self) -> DeleteQueue {
        DeleteQueue::new(self.name.clone(), self.id, self.if_unused, self.if_empty)
    }

    /// The queue that was closed and is still there: it has to be opened when it is not deleted after all.
    pub fn closed(&self) -> Option<(QueueId, ShardId)> {
        self.closed.map(|(id, shard, _)| (id, shard))
    }

    pub(super) fn begin(&mut self, view: View<'_>) -> Step {
        let vhost = view.vhost;
        let Some(queue) = vhost.queue(&self.name).filter(|queue| self.id.is_none_or(|id| id == queue.id))
        else {
            let messages = self.closed.take().map_or(0, |(_, _, messages)| messages);
            return Step::Done(Done::Messages(messages));
        };
        if let Some((id, _, _)) = self.closed
            && id == queue.id
        {
            return self.delete(queue, view);
        }
        if self.id.is_none() && view.owner.is_some_and(|owner| !queue.is_open_to(owner)) {
            return Step::Failed(Failure::locked(&self.name, &vhost.name));
        }
        let close =
            Request::CloseQueue { queue: queue.id, if_unused: self.if_unused, if_empty: self.if_empty };
        self.closed = None;
        self.asked = Some(queue.id);
        Step::Ask(queue.shard, close)
    }

    fn delete(&self, queue: &Queue, view: View<'_>) -> Step {
        let vhost = view.vhost;
        let bindings = vhost.bindings_to(&Destination::Queue(self.name.clone()));
        let mut edits =
            vec![Edit::DeleteQueue(queue.id), Edit::RemoveEntry(key(QUEUE, &[&vhost.name, &self.name]))];
        edits.extend(binding_edits(vhost, bindings.cloned().collect::<Vec<_>>()));
        let change = MetadataChange { guards: vec![Guard::Queue(queue.id)], edits };
        Step::Ask(METADATA_SHARD, Request::ChangeMetadata(change))
    }

    pub(super) fn replied(&mut self, reply: Reply, view: View<'_>) -> Step {
        match reply {
            Reply::Closed(stats) => {
                // Another may have taken the name since that was asked.
                let queue = view.vhost.queue(&self.name).filter(|queue| Some(queue.id) == self.asked);
                let Some(queue) = queue else {
                    return Step::Done(Done::Messages(stats.ready));
                };
                self.closed = Some((queue.id, queue.shard, stats.ready));
                self.delete(queue, view)
            }
            Reply::Changed(_) => {
                let messages = self.closed.take().map_or(0, |(_, _, messages)| messages);
                Step::Done(Done::Messages(messages))
            }
            Reply::Refused(Refusal::UnknownQueue) => {
                self.closed = None;
                Step::Done(Done::Messages(0))
            }
            Reply::Refused(refusal) => Step::Failed(Failure::of(&refusal, &self.name, &view.vhost.name)),
            other => panic!("a deletion was answered {other:?}"),
        }
    }
}
