//! The host's part of one shard: its connections, and who waits for what.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_engine::buffer::Pool;
use millstream_engine::io::ConnId;
use millstream_engine::metrics::{Meter, Reader};
use millstream_engine::reactor::app::{App, AppEvent, Outbox};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use crate::amqp::kept::Kept;
use crate::amqp::shard::Seat;
use crate::amqp::{self, Amqp, Told};
use crate::config::ServerConfig;
use crate::coordinator::Message;
use crate::coordinator::shard::{Coordinator, Desk};
use crate::dispatch::{self, Origin, Pending};
use crate::limits::{
    ANSWERS_LOOK_MS, ANSWERS_UNTAKEN_MS, CONNECTIONS_PER_SHARD_MAX, LET_IN_AT_ONCE, ROOMS_SHARE,
};
use crate::management::call::{Call, News, Waiting};
use crate::metrics::BrokerMetrics;
use crate::net::{Answers, Connection, Shared};

/// How often within the time that a connection may be idle it is looked at.
const IDLE_CHECKS: u64 = 4;

/// How often memory for large requests is given back that nobody needs.
const ROOMS_LOOK: Nanos = Nanos::from_millis(1_000);

/// The listener, among those of the node, that RabbitMQ's clients come by.
const AMQP_LISTENER: u16 = 1;

/// Serves Kafka's protocol and RabbitMQ's on one shard.
#[derive(Debug)]
pub struct Broker {
    config: Arc<ServerConfig>,
    connections: BTreeMap<ConnId, Connection>,
    amqp: Amqp,
    pending: Pending,
    /// Memory that large requests of Kafka's clients are received into.
    rooms: Pool,
    /// A timer is set to look at it.
    looks_at_rooms: bool,
    metrics: Meter<BrokerMetrics>,
    coordinator: Coordinator,
    /// Callers from outside.
    waiting: Waiting,
    /// Bytes of requests that have arrived in part, over all connections.
    partial_bytes: usize,
    answers: Answers,
    /// A timer is set to look at them.
    looks_at_answers: bool,
    stopping: bool,
}

impl Broker {
    /// A broker without connections.
    pub fn new(config: Arc<ServerConfig>) -> Broker {
        Broker {
            coordinator: Coordinator::new(&config.groups),
            rooms: Pool::new(config.partial_bytes_max / ROOMS_SHARE),
            answers: Answers::new(config.answer_bytes_max),
            looks_at_answers: false,
            looks_at_rooms: false,
            config,
            connections: BTreeMap::new(),
            amqp: Amqp::default(),
            pending: Pending::default(),
            metrics: Meter::default(),
            waiting: Waiting::default(),
            partial_bytes: 0,
            stopping: false,
        }
    }

    /// What this shard's part of the broker tells of itself, for any thread.
    pub fn metrics(&self) -> Reader<BrokerMetrics> {
        self.metrics.reader()
    }

    /// Requests to the engine, timers and jobs that have not been answered.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Bytes of memory that hold requests and answers of each connection.
    pub fn held_bytes(&self) -> impl Iterator<Item = usize> {
        self.connections.values().map(Connection::held_bytes)
    }

    /// Bytes of memory that hold requests which have arrived in part.
    pub fn partial_bytes(&self) -> usize {
        self.partial_bytes + self.amqp.partial_bytes()
    }

    /// Bytes of answers that Kafka's clients have not taken, but for the batches in them.
    pub fn answer_bytes(&self) -> usize {
        self.answers.bytes()
    }

    /// What is kept in memory for RabbitMQ's clients.
    pub fn amqp_kept(&self) -> Kept {
        self.amqp.kept()
    }

    /// Connections that are not over.
    pub fn connections(&self) -> usize {
        self.connections.len() + self.amqp.connections()
    }

    /// Lets something happen on AMQP's side.
    fn with_amqp(&mut self, out: &mut Outbox, work: impl FnOnce(&mut Amqp, &mut Seat<'_>)) {
        let mut seat = Seat { config: &self.config, metrics: &self.metrics, out, pending: &mut self.pending };
        work(&mut self.amqp, &mut seat);
    }

    /// Works on a connection, if there still is such a one, and on those that there is room for after that.
    fn with(&mut self, conn: ConnId, out: &mut Outbox, work: impl FnOnce(&mut Connection, &mut Shared<'_>)) {
        self.work_on(conn, out, work);
        self.let_in(out);
    }

    fn work_on(
        &mut self,
        conn: ConnId,
        out: &mut Outbox,
        work: impl FnOnce(&mut Connection, &mut Shared<'_>),
    ) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let mut shared = Shared {
            config: &self.config,
            metrics: &self.metrics,
            out,
            pending: &mut self.pending,
            answers: &mut self.answers,
        };
        let before = connection.partial_bytes();
        work(connection, &mut shared);
        self.partial_bytes = self.partial_bytes - before + connection.partial_bytes();
        if self.partial_bytes > 0 && !std::mem::replace(&mut self.looks_at_rooms, true) {
            dispatch::set_timer(shared.out, shared.pending, Origin::Rooms, shared.out.now() + ROOMS_LOOK);
        }
        if self.partial_bytes > self.config.partial_bytes_max && connection.partial_bytes() > before {
            let partial_bytes = connection.partial_bytes();
            connection.hang_up(
                &"the requests that are arriving are larger in sum than queued.max.request.bytes",
                &mut shared,
            );
            self.partial_bytes -= partial_bytes - connection.partial_bytes();
        }
    }

    /// Lets connections begin what they were kept from, as far as there is room for answers; and looks after these while they
    /// are many.
    fn let_in(&mut self, out: &mut Outbox) {
        for _ in 0..LET_IN_AT_ONCE {
            let Some(conn) = self.answers.let_in() else { break };
            self.work_on(conn, out, Connection::let_in);
        }
        self.metrics.answer_bytes.set(self.answers.bytes() as u64);
        if (self.answers.are_many() || self.answers.keep_out_any())
            && !std::mem::replace(&mut self.looks_at_answers, true)
        {
            let next = out.now() + Nanos::from_millis(ANSWERS_LOOK_MS);
            dispatch::set_timer(out, &mut self.pending, Origin::Answers, next);
        }
    }

    /// Hangs up on whoever has taken nothing for longest, until answers are not many any more.
    fn look_at_answers(&mut self, out: &mut Outbox) {
        self.looks_at_answers = false;
        let since = Nanos(out.now().0.saturating_sub(Nanos::from_millis(ANSWERS_UNTAKEN_MS).0));
        // Somebody always has so much, and whoever has less is not what is in the way.
        let share = self.answers.bytes() / self.connections.len().max(1);
        let mut untaken: Vec<(Nanos, ConnId)> = self
            .connections
            .iter()
            .filter_map(|(conn, connection)| {
                let (bytes, taken) = connection.untaken()?;
                (bytes >= share && taken <= since).then_some((taken, *conn))
            })
            .collect();
        untaken.sort_unstable();
        for (_, conn) in untaken {
            if !self.answers.are_many() {
                break;
            }
            self.work_on(conn, out, |connection, shared| {
                shared.metrics.stuck.add(1);
                connection.hang_up(
                    &"it does not take its answers, and there are more than half of queued.max.response.bytes",
                    shared,
                );
            });
        }
        self.let_in(out);
    }

    /// Whether there is room for one more connection. If not, it is closed.
    fn admits(&mut self, conn: ConnId, out: &mut Outbox) -> bool {
        if self.stopping {
            out.close(conn);
            return false;
        }
        if self.connections() >= CONNECTIONS_PER_SHARD_MAX {
            self.metrics.turned_away.add(1);
            tracing::warn!("a connection was closed: this shard serves {CONNECTIONS_PER_SHARD_MAX} already");
            out.close(conn);
            return false;
        }
        self.metrics.accepted.add(1);
        true
    }

    /// Closes the connections that have been idle for too long, and comes back in a quarter of that time.
    fn check_idle(&mut self, out: &mut Outbox) {
        let limit = Nanos::from_millis(self.config.idle_ms_max);
        let since = Nanos(out.now().0.saturating_sub(limit.0));
        self.with_all(out, |connection, shared| connection.close_if_idle(since, shared));
        let next = out.now() + Nanos(limit.0 / IDLE_CHECKS);
        dispatch::set_timer(out, &mut self.pending, Origin::IdleCheck, next);
    }

    /// Gives back what nobody has needed, and comes back in a second if there is more.
    fn look_at_rooms(&mut self, out: &mut Outbox) {
        self.rooms.give_back_unused();
        let usage = self.rooms.usage();
        self.looks_at_rooms = usage.free + usage.in_use > 0;
        if self.looks_at_rooms {
            dispatch::set_timer(out, &mut self.pending, Origin::Rooms, out.now() + ROOMS_LOOK);
        }
    }

    fn with_all(&mut self, out: &mut Outbox, work: impl Fn(&mut Connection, &mut Shared<'_>)) {
        let conns: Vec<ConnId> = self.connections.keys().copied().collect();
        for conn in conns {
            self.with(conn, out, &work);
        }
    }

    fn with_origin(
        &mut self,
        origin: Option<Origin>,
        out: &mut Outbox,
        work: impl FnOnce(Origin, &mut Connection, &mut Shared<'_>),
    ) {
        match origin {
            Some(origin @ (Origin::Request { conn, .. } | Origin::SendQueue(conn) | Origin::Timer(conn))) => {
                self.with(conn, out, |connection, shared| work(origin, connection, shared));
            }
            Some(
                Origin::IdleCheck
                | Origin::Answers
                | Origin::Rooms
                | Origin::Offsets { .. }
                | Origin::GroupTimer
                | Origin::Amqp(_)
                | Origin::Call(_),
            )
            | None => {}
        }
    }
}

impl Broker {
    /// Lets the coordinator of this shard's groups do something.
    fn coordinate(&mut self, out: &mut Outbox, work: impl FnOnce(&mut Coordinator, &mut Desk<'_>)) {
        work(&mut self.coordinator, &mut Desk { out, pending: &mut self.pending });
        let (extent, tally) = (self.coordinator.extent(), self.coordinator.tally());
        self.metrics.groups.set(extent.groups as u64);
        self.metrics.group_members.set(extent.members as u64);
        self.metrics.group_generations.reach(tally.generations);
        self.metrics.offsets.set(extent.offsets as u64);
        self.metrics.offsets_bytes.set(extent.offsets_bytes as u64);
        self.metrics.offset_commits.reach(tally.commits);
    }

    /// A call from outside.
    fn called(&mut self, call: Call, out: &mut Outbox) {
        // That nobody waits for an answer any more is nobody's concern.
        match call {
            Call::News(answer) => {
                let (metadata, now) = (Arc::clone(out.metadata()), out.wall_ms());
                let _ = answer.send(News { metadata, now, random: [out.random(), out.random()] });
            }
            Call::Engine(request, answer) => {
                let origin = Origin::Call(self.waiting.insert(answer));
                let shard = out.shard();
                dispatch::ask(out, &mut self.pending, origin, shard, request, None);
            }
            Call::Connections(wanted, answer) => drop(answer.send(self.amqp.reports(wanted))),
            Call::Exchanges(answer) => drop(answer.send(self.amqp.exchanges())),
            Call::Close(conn, reason, answer) => {
                let mut there = false;
                self.with_amqp(out, |amqp, seat| there = amqp.force(conn, &reason, seat));
                let _ = answer.send(there);
            }
        }
    }

    fn told(&mut self, from: ShardId, message: Message, out: &mut Outbox) {
        let Message::Answer(token, answer) = message else {
            return self.coordinate(out, |coordinator, desk| coordinator.told(from, message, desk));
        };
        let origin = self.pending.take(token);
        self.with_origin(origin, out, |origin, connection, shared| match origin {
            Origin::Request { number, part, .. } => connection.coordinated(number, part, answer, shared),
            other => panic!("{other:?} was answered by a coordinator"),
        });
    }
}

impl App for Broker {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        match event {
            AppEvent::Started => {
                self.check_idle(out);
                self.coordinate(out, Coordinator::metadata_changed);
                self.with_amqp(out, Amqp::started);
            }
            AppEvent::MetadataChanged => {
                self.coordinate(out, Coordinator::metadata_changed);
                self.with_amqp(out, Amqp::metadata_changed);
            }
            AppEvent::Told { from, message } => {
                let message = match message.downcast::<Told>() {
                    Ok(told) => return self.with_amqp(out, |amqp, seat| amqp.told(&told, seat)),
                    Err(message) => message,
                };
                let message = message.downcast().expect("hosts tell each other of AMQP and of groups");
                self.told(from, *message, out);
            }
            AppEvent::Accepted { conn, peer, local, listener } => {
                if !self.admits(conn, out) {
                    return;
                }
                if listener == AMQP_LISTENER {
                    self.with_amqp(out, |amqp, seat| amqp.accept(conn, peer, local, seat));
                } else {
                    let connection =
                        Connection::new(conn, peer, local, &self.config, self.rooms.clone(), out.now());
                    self.connections.insert(conn, connection);
                }
                self.metrics.connections.set(self.connections() as u64);
            }
            AppEvent::Received(conn, bytes) => {
                self.metrics.received.add(bytes.len() as u64);
                if self.amqp.serves(conn) {
                    return self.with_amqp(out, |amqp, seat| amqp.received(conn, bytes, seat));
                }
                self.with(conn, out, |connection, shared| connection.received(bytes, shared));
            }
            AppEvent::CaughtUp(conn) => self.with(conn, out, Connection::caught_up),
            AppEvent::SendDone(conn) if self.amqp.serves(conn) => {
                self.with_amqp(out, |amqp, seat| amqp.with(conn, seat, |connection, _| connection.sent()));
            }
            AppEvent::SendDone(conn) => self.with(conn, out, Connection::sent),
            AppEvent::Slow(conn) if self.amqp.serves(conn) => {
                self.with_amqp(out, |amqp, seat| amqp.with(conn, seat, |connection, _| connection.slow()));
            }
            AppEvent::Slow(conn) => self.with(conn, out, |connection, _| connection.slow()),
            AppEvent::Stuck(conn) if self.amqp.serves(conn) => self.with_amqp(out, |amqp, seat| {
                seat.metrics.stuck.add(1);
                let reason = "it does not take what it is sent, and others need the memory that this is in";
                amqp.with(conn, seat, |connection, desk| connection.hang_up(&reason, desk));
            }),
            AppEvent::Stuck(conn) => self.with(conn, out, |connection, shared| {
                shared.metrics.stuck.add(1);
                let reason = "it does not take its answers, and others need the memory that they are in";
                connection.hang_up(&reason, shared);
            }),
            // What waits of AMQP's deliveries cannot be read again by name, and is loosened where it may wait for long.
            AppEvent::LetGo => self.connections.values_mut().for_each(Connection::let_go),
            AppEvent::Closed(conn, reason) => {
                tracing::debug!(?conn, ?reason, "connection over");
                if self.amqp.serves(conn) {
                    self.with_amqp(out, |amqp, seat| amqp.closed(conn, seat));
                } else {
                    self.with(conn, out, Connection::closed);
                    self.connections.remove(&conn);
                }
                self.metrics.connections.set(self.connections() as u64);
            }
            AppEvent::Timer(token) => {
                let origin = self.pending.take(token);
                match origin {
                    Some(Origin::IdleCheck) => self.check_idle(out),
                    Some(Origin::GroupTimer) => self.coordinate(out, Coordinator::timer),
                    Some(Origin::Rooms) => self.look_at_rooms(out),
                    Some(Origin::Answers) => self.look_at_answers(out),
                    Some(Origin::Amqp(amqp::Origin::Tick)) => self.with_amqp(out, Amqp::tick),
                    Some(Origin::Amqp(amqp::Origin::Renewal)) => self.with_amqp(out, Amqp::renew),
                    Some(Origin::Amqp(amqp::Origin::Timer(conn))) => {
                        self.with_amqp(out, |amqp, seat| amqp.timer(conn, seat));
                    }
                    _ => {}
                }
                self.with_origin(origin, out, |_, connection, shared| connection.timer(shared));
            }
            AppEvent::Reply(token, reply) => {
                let origin = self.pending.take(token);
                if let Some(Origin::Call(number)) = origin {
                    return self.waiting.answer(number, reply);
                }
                if let Some(Origin::Amqp(origin)) = origin {
                    return self.with_amqp(out, |amqp, seat| amqp.replied(origin, reply, seat));
                }
                if let Some(Origin::Offsets { life, index, errand }) = origin {
                    return self.coordinate(out, |coordinator, desk| {
                        coordinator.replied(life, index, errand, reply, desk);
                    });
                }
                self.with_origin(origin, out, |origin, connection, shared| match origin {
                    Origin::Request { number, part, .. } => connection.answered(number, part, reply, shared),
                    Origin::SendQueue(_) => connection.loaded(reply, shared),
                    _ => panic!("a timer was answered {reply:?}"),
                });
            }
            AppEvent::Offloaded(token, result) => {
                let origin = self.pending.take(token);
                self.with_origin(origin, out, |origin, connection, shared| match origin {
                    Origin::Request { number, part, .. } => {
                        connection.offloaded(number, part, result, shared);
                    }
                    _ => panic!("{origin:?} was answered by a helper"),
                });
            }
            AppEvent::Called(call) => {
                self.called(*call.downcast().expect("who calls from outside makes calls"), out);
            }
            AppEvent::Delivered(deliveries) => {
                self.with_amqp(out, |amqp, seat| amqp.delivered(deliveries, seat));
            }
            AppEvent::ConsumerCancelled { consumer, queue, reason } => {
                self.with_amqp(out, |amqp, seat| amqp.cancelled(consumer, queue, reason, seat));
            }
            AppEvent::Flow(flows) => self.with_amqp(out, |amqp, seat| amqp.flow(&flows, seat)),
            AppEvent::DeadLettered(dead) => {
                self.with_amqp(out, |amqp, seat| amqp.dead_lettered(&dead, seat));
            }
            AppEvent::QueueExpired(queue) => {
                self.with_amqp(out, |amqp, seat| amqp.queue_expired(queue, seat));
            }
            AppEvent::Stopping => {
                self.stopping = true;
                self.with_all(out, Connection::stop);
                self.with_amqp(out, Amqp::stop);
            }
        }
    }
}
