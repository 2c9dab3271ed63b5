//! A stand-in for the engine: real queues without storage, and metadata that changes at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use millstream_engine::buffer::{Pool, Slice};
use millstream_engine::error::Refusal;
use millstream_engine::io::Space;

use millstream_engine::queue::{self, Admission, Incoming, Locator, Output, Queue, Token};
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::shard::change::{Edit, MetadataChange};
use millstream_engine::shard::message::{
    CancelReason, ConsumerId, DeadLetter, Delivery, Message, Move, Outcome, QueueStats, Settlement,
};
use millstream_engine::shard::metadata::{self, Changed, Entry, Metadata};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::WallMs;
use millstream_engine::types::{MetadataEpoch, QueueId, Slot};

/// What a queue has, beside its state.
struct Held {
    queue: Queue,
    messages: BTreeMap<u64, Message>,
    next: u64,
    /// By the number of the consumer's name.
    keepers: BTreeMap<u64, (queue::Keeper, bool)>,
    closed: bool,
}

pub struct Engine {
    pub metadata: Arc<Metadata>,
    pub now: WallMs,
    queues: BTreeMap<QueueId, Held>,
    consumers: BTreeMap<ConsumerId, QueueId>,
    ids: u16,
    /// What the hosts are to be told.
    pub events: VecDeque<AppEvent>,
    /// Has the next changes of metadata refused as if somebody else had been faster.
    pub conflicts: usize,
    /// Has publishes refused as if the disk were full.
    pub is_full: bool,
    /// Has so many of the next changes of metadata refused as if the disk were full.
    pub refused_changes: usize,
    /// What the disk is said to have.
    pub space: Space,

    /// Where the bodies of deliveries lie, if in slabs of so many bytes: as the journal's are, or what is read back.
    pub slabs: Option<(Pool, usize)>,
    /// Everything that was asked, by name.
    pub log: Vec<String>,
}

impl Engine {
    pub fn new(shards: u16) -> Engine {
        let metadata = Metadata { shards, epoch: MetadataEpoch(1), ..Metadata::default() };
        Engine {
            metadata: Arc::new(metadata),
            now: WallMs(1_700_000_000_000),
            queues: BTreeMap::new(),
            consumers: BTreeMap::new(),
            ids: 0,
            events: VecDeque::new(),
            conflicts: 0,
            is_full: false,
            refused_changes: 0,
            space: Space { free_bytes: 1 << 40, total_bytes: 1 << 41 },

            slabs: None,
            log: Vec::new(),
        }
    }

    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    pub fn entry_count(&self) -> usize {
        self.metadata.entries.size()
    }

    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    pub fn handle(&mut self, request: Request) -> Reply {
        self.log.push(format!("{request:?}"));
        let reply = match request {
            Request::ChangeMetadata(change) => self.change(change),
            Request::Publish(publishes) => {
                let outcomes = publishes
                    .into_iter()
                    .map(|publish| Outcome {
                        refused: publish
                            .queues
                            .iter()
                            .filter_map(|id| Some((*id, self.publish(*id, &publish.message)?)))
                            .collect(),
                    })
                    .collect();
                Reply::Published(outcomes)
            }
            Request::Consume(consume) => {
                let Some(held) = self.queues.get_mut(&consume.queue) else {
                    return Reply::Refused(Refusal::UnknownQueue);
                };
                let wanted = queue::Consume {
                    token: Token(consume.consumer.0),
                    no_ack: consume.no_ack,
                    exclusive: consume.exclusive,
                    priority: consume.priority,
                    timeout_ms: consume.timeout_ms,
                    credit: consume.credit,
                };
                match held.queue.consume(wanted, self.now, &mut Vec::new()) {
                    Err(_) => Reply::Refused(Refusal::QueueInUse),
                    Ok(keeper) => {
                        held.keepers.insert(consume.consumer.0, (keeper, true));
                        self.consumers.insert(consume.consumer, consume.queue);
                        let stats = held.queue.stats();
                        Reply::Consuming { ready: stats.ready, consumers: stats.consumers }
                    }
                }
            }
            Request::Grant(grants) => {
                for (consumer, credit) in grants {
                    if let Some(held) = self.consumers.get(&consumer).and_then(|id| self.queues.get_mut(id))
                        && let Some((keeper, _)) = held.keepers.get(&consumer.0)
                    {
                        held.queue.credit(*keeper, credit);
                    }
                }
                Reply::Done
            }
            Request::CancelConsumer { consumer, release } => self.cancel(consumer, release),
            Request::Settle { settlements, .. } => {
                for settlement in settlements {
                    self.settle(settlement);
                }
                Reply::Done
            }
            Request::Get { queue, consumer, no_ack } => self.get(queue, consumer, no_ack),
            Request::Purge(id) => match self.queues.get_mut(&id) {
                Some(held) => Reply::Purged(held.queue.purge()),
                None => Reply::Refused(Refusal::UnknownQueue),
            },
            Request::QueueStats { queues, touch } => {
                let mut found = Vec::new();
                for id in queues {
                    if let Some(held) = self.queues.get_mut(&id) {
                        if touch {
                            held.queue.touch(self.now);
                        }
                        found.push((id, stats(held)));
                    }
                }
                Reply::QueueStats(found)
            }
            Request::CloseQueue { queue, if_unused, if_empty } => match self.queues.get_mut(&queue) {
                None => Reply::Refused(Refusal::UnknownQueue),
                Some(held) if if_unused && held.queue.stats().consumers > 0 => {
                    Reply::Refused(Refusal::QueueInUse)
                }
                Some(held) if if_empty && held.queue.stats().ready > 0 => {
                    Reply::Refused(Refusal::QueueNotEmpty)
                }
                Some(held) => {
                    held.closed = true;
                    Reply::Closed(Box::new(stats(held)))
                }
            },
            Request::OpenQueue(id) => {
                if let Some(held) = self.queues.get_mut(&id) {
                    held.closed = false;
                }
                Reply::Done
            }
            Request::Move(moved) => self.moved(*moved),
            Request::DiskSpace => Reply::DiskSpace(Some(self.space)),
            other => panic!("{other:?} is not asked here"),
        };
        self.run();
        reply
    }

    fn change(&mut self, change: MetadataChange) -> Reply {
        if self.conflicts > 0 {
            self.conflicts -= 1;
            return Reply::Refused(Refusal::Conflict);
        }
        if self.refused_changes > 0 {
            self.refused_changes -= 1;
            return Reply::Refused(Refusal::DiskFull);
        }
        if !change.guards.iter().all(|guard| guard.holds(&self.metadata)) {
            return Reply::Refused(Refusal::Conflict);
        }
        let mut next = Metadata::clone(&self.metadata);
        let epoch = MetadataEpoch(next.epoch.0 + 1);
        let (mut changed, mut created) = (Vec::new(), Vec::new());
        for edit in change.edits {
            match edit {
                Edit::CreateQueue(new) => {
                    if let Some(queue) = next.queue_named(&new.name) {
                        return Reply::Refused(Refusal::QueueExists(queue.id));
                    }
                    self.ids += 1;
                    let [high, low] = self.ids.to_be_bytes();
                    let id = QueueId(std::array::from_fn(|place| if place % 2 == 0 { high } else { low }));
                    changed.push(Changed::Queue(id, new.name.clone()));
                    let held = Held {
                        queue: Queue::new(new.settings.clone(), self.now),
                        messages: BTreeMap::new(),
                        next: 0,
                        keepers: BTreeMap::new(),
                        closed: false,
                    };
                    self.queues.insert(id, held);
                    next.put_queue(metadata::Queue {
                        id,
                        name: new.name,
                        durable: new.durable,
                        slot: Slot(u32::from(self.ids)),
                        settings: new.settings,
                    });
                    created.push(id);
                }
                Edit::DeleteQueue(id) => {
                    let Some(queue) = next.remove_queue(id) else {
                        return Reply::Refused(Refusal::UnknownQueue);
                    };
                    changed.push(Changed::Queue(id, queue.name.clone()));
                    let held = self.queues.remove(&id).unwrap();
                    for (consumer, (_, consumes)) in held.keepers {
                        if consumes {
                            self.consumers.remove(&ConsumerId(consumer));
                            self.events.push_back(AppEvent::ConsumerCancelled {
                                consumer: ConsumerId(consumer),
                                queue: id,
                                reason: CancelReason::QueueDeleted,
                            });
                        }
                    }
                }
                Edit::ConfigureQueue { queue, settings } => {
                    let Some(old) = next.remove_queue(queue) else {
                        return Reply::Refused(Refusal::UnknownQueue);
                    };
                    changed.push(Changed::Queue(queue, old.name.clone()));
                    let held = self.queues.get_mut(&queue).unwrap();
                    held.queue.configure(settings.clone(), self.now, &mut Vec::new());
                    next.put_queue(metadata::Queue { settings, ..metadata::Queue::clone(&old) });
                }
                Edit::SetEntry { key, value, transient } => {
                    changed.push(Changed::Entry(key.clone()));
                    next.put_entry(key, Some(Entry { value: value.into(), version: epoch, transient }));
                }
                Edit::RemoveEntry(key) => {
                    changed.push(Changed::Entry(key.clone()));
                    next.put_entry(key, None);
                }
            }
        }
        next.advance(epoch, changed);
        self.metadata = Arc::new(next);
        Reply::Changed(created)
    }

    fn publish(&mut self, id: QueueId, message: &Message) -> Option<Refusal> {
        if self.is_full {
            return Some(Refusal::DiskFull);
        }
        let Some(held) = self.queues.get_mut(&id) else { return Some(Refusal::UnknownQueue) };
        if held.closed {
            return Some(Refusal::Busy);
        }
        let mut out = Vec::new();
        let size = message.bytes() as u32;
        let admission = held.queue.admit(size, self.now, &mut out);
        if admission != Admission::Refuse {
            held.next += 1;
            held.messages.insert(held.next, message.clone());
            let incoming = Incoming {
                locator: Locator(held.next),
                size,
                persistent: message.persistent,
                priority: message.priority,
                expires_at: message.expires_at,
            };
            if admission == Admission::Take {
                held.queue.publish(incoming, self.now);
            } else {
                held.queue.publish_refused(incoming, self.now, &mut out);
            }
        }
        self.carry_out(id, out);
        (admission != Admission::Take).then_some(Refusal::QueueFull)
    }

    fn settle(&mut self, settlement: Settlement) {
        let Some(held) = self.queues.get_mut(&settlement.queue) else { return };
        let Some((keeper, _)) = held.keepers.get(&settlement.consumer.0) else { return };
        let mut out = Vec::new();
        held.queue.settle(*keeper, settlement.first, settlement.last, settlement.verdict, &mut out);
        self.carry_out(settlement.queue, out);
    }

    fn cancel(&mut self, consumer: ConsumerId, release: bool) -> Reply {
        let Some(id) = self.consumers.remove(&consumer) else {
            return Reply::Refused(Refusal::UnknownConsumer);
        };
        let Some(held) = self.queues.get_mut(&id) else {
            return Reply::Refused(Refusal::UnknownConsumer);
        };
        let mut out = Vec::new();
        let (keeper, _) = held.keepers[&consumer.0];
        held.queue.cancel(keeper, self.now, &mut out);
        if release {
            let all = (millstream_engine::types::Seq(0), millstream_engine::types::Seq(u64::MAX));
            let verdict = queue::Verdict::Requeue { failed: false };
            held.queue.settle(keeper, all.0, all.1, verdict, &mut out);
        }
        let consumers = held.queue.stats().consumers;
        self.carry_out(id, out);
        Reply::Cancelled { consumers }
    }

    fn get(&mut self, id: QueueId, consumer: ConsumerId, no_ack: bool) -> Reply {
        let Some(held) = self.queues.get_mut(&id) else { return Reply::Refused(Refusal::UnknownQueue) };
        let keeper = (!no_ack).then(|| {
            let known = held.keepers.get(&consumer.0).map(|(keeper, _)| *keeper);
            known.unwrap_or_else(|| held.queue.add_keeper(Token(consumer.0)))
        });
        if let Some(keeper) = keeper {
            held.keepers.insert(consumer.0, (keeper, false));
        }
        let mut out = Vec::new();
        let got = held.queue.get(keeper, self.now, &mut out);
        let delivery = got.map(|delivery| told(id, consumer, held, delivery, None));
        let left = held.queue.stats().ready;
        self.carry_out(id, out);
        Reply::Got(delivery, left)
    }

    fn moved(&mut self, moved: Move) -> Reply {
        for (_, target) in &moved.targets {
            self.publish(*target, &moved.message);
        }
        let Some(held) = self.queues.get_mut(&moved.queue) else {
            return Reply::Refused(Refusal::UnknownQueue);
        };
        let mut out = Vec::new();
        held.queue.left(moved.seq, &mut out);
        self.carry_out(moved.queue, out);
        Reply::Done
    }

    /// Lets every queue do what it can.
    pub fn run(&mut self) {
        let ids: Vec<QueueId> = self.queues.keys().copied().collect();
        for id in ids {
            let Some(held) = self.queues.get_mut(&id).filter(|held| !held.closed) else { continue };
            let mut out = Vec::new();
            while held.queue.run(self.now, 100, &mut out) {}
            held.queue.tell_leaving(100, &mut out);
            self.carry_out(id, out);
        }
    }

    fn carry_out(&mut self, id: QueueId, out: Vec<Output>) {
        let Some(held) = self.queues.get_mut(&id) else { return };
        let mut deliveries = Vec::new();
        for output in out {
            match output {
                Output::Deliver(token, delivery) => {
                    deliveries.push(told(id, ConsumerId(token.0), held, delivery, self.slabs.as_ref()));
                }
                Output::Settled { locator, .. } => drop(held.messages.remove(&locator.0)),
                Output::Leave { seq, locator, reason, persistent, .. } => {
                    let message = &held.messages[&locator.0];
                    self.events.push_back(AppEvent::DeadLettered(DeadLetter {
                        queue: id,
                        seq,
                        reason,
                        persistent,
                        priority: message.priority,
                        header: message.header.clone(),
                        body: whole(&message.body),
                    }));
                }
                Output::Released(token) => drop(held.keepers.remove(&token.0)),
                Output::TimedOut(token) => {
                    self.consumers.remove(&ConsumerId(token.0));
                    self.events.push_back(AppEvent::ConsumerCancelled {
                        consumer: ConsumerId(token.0),
                        queue: id,
                        reason: CancelReason::Timeout,
                    });
                }
                Output::PageIn(_) => panic!("nothing was paged out"),
                Output::Expired => self.events.push_back(AppEvent::QueueExpired(id)),
                Output::Failed { .. } | Output::Leaving { .. } | Output::Activated(_) | Output::Unused => {}
            }
        }
        if !deliveries.is_empty() {
            self.events.push_back(AppEvent::Delivered(deliveries));
        }
    }
}

fn whole(body: &[Slice]) -> Slice {
    Slice::from(body.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<u8>>())
}

fn stats(held: &Held) -> QueueStats {
    held.queue.stats()
}

fn told(
    queue: QueueId,
    consumer: ConsumerId,
    held: &Held,
    delivery: queue::Delivery,
    slabs: Option<&(Pool, usize)>,
) -> Delivery {
    let message = &held.messages[&delivery.locator.0];
    let mut body = whole(&message.body);
    if let Some(mut slab) = slabs.and_then(|(slabs, bytes)| slabs.block(*bytes)) {
        slab.push(&body);
        body = slab.freeze().slice(0..body.len());
    }
    Delivery {
        consumer,
        queue,
        seq: delivery.seq,
        redelivered: delivery.redelivered,
        delivery_count: u32::from(delivery.failures),
        header: message.header.clone(),
        body,
    }
}
