//! AMQP on one shard: its connections, and what reaches them from the engine and from other shards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;

use millstream_engine::buffer::Slice;
use millstream_engine::error::Refusal;
use millstream_engine::io::ConnId;
use millstream_engine::shard::change::{Edit, Guard, MetadataChange};
use millstream_engine::shard::message::{CancelReason, ConsumerId, DeadLetter, Delivery, Flow, Outcome};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::QueueId;

use super::batches::Published;
use super::connection::{Connection, unwanted};
use super::dead_letter;
use super::kept::Kept;
use super::operations::{DeleteQueue, METADATA_SHARD, Operation, tidying_edits};
use super::state::{Desk, Ended, Origin, State, Told};
use super::topology::Touched;
use super::topology::entries::{FOUNDED, PERMISSION, USER, UserValue, VHOST, key, patterns};
use crate::auth::hash_password;
use crate::limits::{AMQP_POLICY_LOOKS_PER_TURN, AMQP_REPORTS_AT_ONCE, AMQP_TICK_MS, AMQP_TIDYING_EDITS_MAX};
use crate::management::call::{Connections, ConnectionsWanted, Exchanges};

/// The vhost and the user that there are at first, as in RabbitMQ.
const FIRST_VHOST: &[u8] = b"/";
const FIRST_USER: &[u8] = b"guest";

/// The connections of a shard, and what they share.
#[derive(Debug, Default)]
pub struct Amqp {
    connections: BTreeMap<ConnId, Connection>,
    state: State,
    /// What may have left something behind that is of no use, by vhost, where this shard is the one that tidies up.
    untidy: BTreeSet<(Vec<u8>, Touched)>,
    is_tidying: bool,
    /// What is being tidied up, and whether that is all of it.
    tidied: Option<((Vec<u8>, Touched), bool)>,
    is_ticking: bool,
    /// Whether it is being looked up which policies hold.
    is_renewing: bool,
}

impl Amqp {
    /// Connections that are not over.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// What is told of connections: of `only` one, or of some behind `after`; and behind which to go on, if there are more.
    pub fn reports(&self, wanted: ConnectionsWanted) -> Connections {
        if let Some(only) = wanted.only {
            return Connections {
                reports: self.connections.get(&only).map(Connection::report).into_iter().collect(),
                next: None,
            };
        }
        let start = wanted.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = Connections::default();
        let mut weight = 0;
        for (conn, connection) in self.connections.range((start, Bound::Unbounded)) {
            let report = connection.report();
            weight += report.weight();
            found.reports.push(report);
            if weight >= AMQP_REPORTS_AT_ONCE {
                found.next = Some(*conn);
                break;
            }
        }
        found
    }

    /// What was published to exchanges.
    pub fn exchanges(&self) -> Exchanges {
        let all = self.state.exchanges.iter().flat_map(|(vhost, exchanges)| {
            exchanges.iter().map(|(name, counts)| ((vhost.clone(), name.clone()), *counts))
        });
        all.collect()
    }

    /// Closes a connection and says why. Gives whether there is such a one.
    pub fn force(&mut self, conn: ConnId, reason: &str, seat: &mut Seat<'_>) -> bool {
        self.with(conn, seat, |connection, desk| connection.force(reason, desk));
        self.serves(conn)
    }

    /// Bytes of memory that hold what clients have begun and not ended.
    pub fn partial_bytes(&self) -> usize {
        self.state.everybody.kept.unfinished
    }

    /// What all connections keep.
    pub fn kept(&self) -> Kept {
        self.state.everybody.kept
    }

    /// Whether that is one of its connections.
    pub fn serves(&self, conn: ConnId) -> bool {
        self.connections.contains_key(&conn)
    }

    /// The shard is about to serve.
    pub fn started(&mut self, seat: &mut Seat<'_>) {
        self.metadata_changed(seat);
        let founded = key(FOUNDED, &[]);
        if seat.out.shard() == METADATA_SHARD && seat.out.metadata().entry(&founded).is_none() {
            let salt = seat.out.random().to_be_bytes();
            let user = UserValue {
                password_hash: hash_password(FIRST_USER, [salt[0], salt[1], salt[2], salt[3]]),
                tags: b"administrator".to_vec(),
            };
            let set = |key, value| Edit::SetEntry { key, value, transient: false };
            let mut edits =
                vec![set(founded.clone(), Vec::new()), set(key(VHOST, &[FIRST_VHOST]), Vec::new())];
            if seat.config.amqp.founds_user {
                edits.push(set(key(USER, &[FIRST_USER]), user.write()));
                let all = patterns(&[b".*", b".*", b".*"]);
                edits.push(set(key(PERMISSION, &[FIRST_VHOST, FIRST_USER]), all));
            }
            let change = MetadataChange { guards: vec![Guard::Entry(founded, None)], edits };
            self.with_desk(seat, None, |_, desk| {
                desk.ask(Origin::Nobody, METADATA_SHARD, Request::ChangeMetadata(change), None);
            });
        }
    }

    /// There is new metadata.
    pub fn metadata_changed(&mut self, seat: &mut Seat<'_>) {
        let metadata = Arc::clone(seat.out.metadata());
        let was_founded = self.state.topology.is_founded();
        let touched = self.state.topology.follow(&metadata);
        let State { exchanges, topology, .. } = &mut self.state;
        for (name, touched) in &touched {
            let vhost = topology.vhost(name);
            if let Touched::Exchange(exchange) = touched
                && vhost.is_none_or(|vhost| vhost.exchange(exchange).is_none())
                && let Some(counts) = exchanges.get_mut(name)
            {
                counts.remove(exchange);
            }
        }
        if exchanges.len() > topology.vhosts().len() {
            exchanges.retain(|name, _| topology.vhost(name).is_some());
        }
        if self.state.topology.take_new_limits() {
            let State { census, topology, .. } = &mut self.state;
            census.limits_changed(topology);
            self.with_desk(seat, None, |_, _| {});
        }
        if seat.out.shard() == METADATA_SHARD {
            self.untidy.extend(touched);
            self.tidy(seat);
        }
        if !self.is_renewing {
            self.renew(seat);
        }
        if !was_founded && self.state.topology.is_founded() {
            // Whoever came before there was a user has waited for that.
            self.with_desk(seat, None, |connections, desk| desk.state.touched.extend(connections.keys()));
        }
    }

    /// Looks up which policies hold, for some exchanges and queues in each turn.
    pub fn renew(&mut self, seat: &mut Seat<'_>) {
        let touched = self.state.topology.renew(AMQP_POLICY_LOOKS_PER_TURN);
        self.is_renewing = self.state.topology.is_stale();
        if self.is_renewing {
            self.with_desk(seat, None, |_, desk| desk.renew_later());
        }
        if seat.out.shard() == METADATA_SHARD {
            self.untidy.extend(touched);
            self.tidy(seat);
        }
    }

    /// Removes what two changes at the same time have left, one change at a time.
    fn tidy(&mut self, seat: &mut Seat<'_>) {
        while !self.is_tidying
            && let Some((name, touched)) = self.untidy.pop_first()
        {
            let Some(vhost) = self.state.topology.vhost(&name) else { continue };
            let edits = tidying_edits(vhost, &touched);
            if edits.is_empty() {
                continue;
            }
            let mut edits = edits;
            let is_all = edits.len() <= AMQP_TIDYING_EDITS_MAX;
            edits.truncate(AMQP_TIDYING_EDITS_MAX);
            self.is_tidying = true;
            self.tidied = Some(((name, touched), is_all));
            let change = Request::ChangeMetadata(MetadataChange { guards: Vec::new(), edits });
            self.with_desk(seat, None, |_, desk| desk.ask(Origin::Tidied, METADATA_SHARD, change, None));
        }
    }

    /// A connection is this shard's now.
    pub fn accept(&mut self, conn: ConnId, peer: SocketAddr, local: SocketAddr, seat: &mut Seat<'_>) {
        let times = (seat.out.now(), seat.out.wall_ms());
        let connection = Connection::new(conn, seat.out.shard().0, peer, local, times);
        self.connections.insert(conn, connection);
        seat.metrics.amqp_connections_opened.add(1);
        seat.metrics.amqp_connections.set(self.connections.len() as u64);
        self.with(conn, seat, |_, _| {});
    }

    /// Lets something happen at a desk; `conn` is the connection that it happens for.
    fn with_desk<R>(
        &mut self,
        seat: &mut Seat<'_>,
        conn: Option<ConnId>,
        work: impl FnOnce(&mut BTreeMap<ConnId, Connection>, &mut Desk<'_>) -> R,
    ) -> R {
        let mut desk = Desk {
            config: seat.config,
            metrics: seat.metrics,
            out: seat.out,
            pending: seat.pending,
            state: &mut self.state,
        };
        desk.state.work = 0;
        desk.state.everybody.connections = self.connections.len();
        let result = work(&mut self.connections, &mut desk);
        loop {
            // Whoever something has happened to does what follows from it, which may be something for others.
            while let Some(touched) = desk.state.touched.pop_first() {
                if let Some(connection) = self.connections.get_mut(&touched) {
                    connection.finish(&mut desk);
                }
            }
            let State { alarms, everybody, blocked, touched, .. } = &mut *desk.state;
            alarms.look_at_memory(everybody);
            if alarms.any() || blocked.is_empty() {
                break;
            }
            touched.append(blocked);
        }
        desk.tell_census(conn);
        desk.flush(conn);
        let is_needed = !self.connections.is_empty() || !desk.state.again.is_empty();
        if is_needed && !std::mem::replace(&mut self.is_ticking, true) {
            let at = desk.out.now() + Nanos::from_millis(AMQP_TICK_MS);
            desk.set_tick(at);
        }
        result
    }

    /// Looks at the disk, and tries again what has failed.
    pub fn tick(&mut self, seat: &mut Seat<'_>) {
        self.is_ticking = false;
        let again = std::mem::take(&mut self.state.again);
        self.with_desk(seat, None, |connections, desk| {
            for (vhost, delete) in again {
                desk.begin_by_itself(None, vhost, Operation::DeleteQueue(delete));
            }
            if !connections.is_empty() {
                let shard = desk.out.shard();
                desk.ask(Origin::Disk, shard, Request::DiskSpace, None);
            }
        });
    }

    /// Lets something happen to a connection.
    pub fn with(
        &mut self,
        conn: ConnId,
        seat: &mut Seat<'_>,
        work: impl FnOnce(&mut Connection, &mut Desk<'_>),
    ) {
        self.with_desk(seat, Some(conn), |connections, desk| {
            if let Some(connection) = connections.get_mut(&conn) {
                work(connection, desk);
                desk.state.touched.insert(conn);
            }
        });
    }

    /// Bytes came in.
    pub fn received(&mut self, conn: ConnId, bytes: Slice, seat: &mut Seat<'_>) {
        self.with(conn, seat, |connection, desk| connection.received(bytes, desk));
    }

    /// A connection is over.
    pub fn closed(&mut self, conn: ConnId, seat: &mut Seat<'_>) {
        self.with(conn, seat, Connection::closed);
        self.state.blocked.remove(&conn);
        if let Some(connection) = self.connections.remove(&conn) {
            // What it has published is under way whether it is there or not.
            let published = Kept { publishing: connection.publishing_bytes(), ..Kept::default() };
            self.state.everybody.kept -= connection.counted();
            self.state.everybody.kept += published;
        }
        seat.metrics.amqp_connections_closed.add(1);
        seat.metrics.amqp_connections.set(self.connections.len() as u64);
    }

    /// The node stops.
    pub fn stop(&mut self, seat: &mut Seat<'_>) {
        let conns: Vec<ConnId> = self.connections.keys().copied().collect();
        for conn in conns {
            self.with(conn, seat, Connection::stop);
        }
    }

    /// Messages for consumers of this shard.
    pub fn delivered(&mut self, deliveries: Vec<Delivery>, seat: &mut Seat<'_>) {
        self.with_desk(seat, None, |connections, desk| {
            let mut touched = None;
            for delivery in deliveries {
                // The consumer's end has been asked for with the release of whatever it keeps.
                let Some(place) = desk.state.keepers.get(delivery.consumer) else { continue };
                if let Some(connection) = connections.get_mut(&place.who.conn) {
                    connection.delivered(place, delivery, desk);
                    if touched.replace(place.who.conn) != Some(place.who.conn) {
                        desk.state.touched.insert(place.who.conn);
                    }
                }
            }
        });
    }

    /// The engine has ended a consumer of this shard.
    pub fn cancelled(
        &mut self,
        consumer: ConsumerId,
        queue: QueueId,
        reason: CancelReason,
        seat: &mut Seat<'_>,
    ) {
        if let Some(place) = self.state.keepers.get(consumer) {
            return self
                .with(place.who.conn, seat, |connection, desk| connection.cancelled(place, reason, desk));
        }
        // Its channel has gone, and finds nothing to cancel any more.
        if let Some((vhost, queue)) = self.state.topology.queue(queue) {
            let (vhost, queue) = (vhost.name.clone(), queue.name.clone());
            self.with_desk(seat, None, |_, desk| desk.delete_if_abandoned(&vhost, &queue));
        }
    }

    /// The engine says whose publishers had better wait, or need not any more.
    pub fn flow(&mut self, flows: &[Flow], seat: &mut Seat<'_>) {
        self.with_desk(seat, None, |connections, desk| {
            for flow in flows {
                for conn in desk.state.held.heed(*flow) {
                    if let Some(connection) = connections.get_mut(&conn) {
                        connection.flows(flow.queue);
                        desk.state.touched.insert(conn);
                    }
                }
            }
        });
    }

    /// A message is to leave a queue of this shard.
    pub fn dead_lettered(&mut self, dead: &DeadLetter, seat: &mut Seat<'_>) {
        let random = seat.out.random();
        let moved = dead_letter::route(dead, &self.state.topology, seat.out.wall_ms(), random);
        let shard = seat.out.shard();
        self.with_desk(seat, None, |_, desk| {
            desk.ask(Origin::Nobody, shard, Request::Move(Box::new(moved)), None);
        });
    }

    /// A queue of this shard was not used for long.
    pub fn queue_expired(&mut self, id: QueueId, seat: &mut Seat<'_>) {
        let Some((vhost, queue)) = self.state.topology.queue(id) else { return };
        let (vhost, name) = (vhost.name.clone(), queue.name.clone());
        let delete = Operation::DeleteQueue(DeleteQueue::new(name, Some(id), true, false));
        self.with_desk(seat, None, |_, desk| desk.begin_by_itself(None, vhost, delete));
    }

    /// Another shard has something to say.
    pub fn told(&mut self, told: &Told, seat: &mut Seat<'_>) {
        match told {
            Told::Reply { who, secret, header, body } => self.with(who.conn, seat, |connection, desk| {
                connection.reply_came(*who, *secret, header, body, desk);
            }),
            Told::Census { shard, holder, count } => {
                if *shard != seat.out.shard() {
                    self.state.census.told(*shard, holder.clone(), *count);
                }
            }
        }
    }

    /// The engine has answered.
    pub fn replied(&mut self, origin: Origin, reply: Reply, seat: &mut Seat<'_>) {
        match origin {
            Origin::Operation(number) => self.with_desk(seat, None, |connections, desk| {
                let Some(Ended { who, vhost, ended }) = desk.replied(number, reply) else { return };
                match connections.get_mut(&who.conn) {
                    Some(connection) => {
                        connection.ended(who, ended, desk);
                        desk.state.touched.insert(who.conn);
                    }
                    None => unwanted(&vhost, ended, false, &mut BTreeMap::new(), desk),
                }
            }),
            Origin::Published(number) => self.published(number, reply, seat),
            Origin::Commit(who) => {
                let refused = match reply {
                    Reply::Done => false,
                    Reply::Refused(refusal) => !is_gone(&refusal),
                    other => panic!("a settlement was answered {other:?}"),
                };
                self.with(who.conn, seat, |connection, desk| connection.commit_answered(who, refused, desk));
            }
            Origin::Tidied => {
                self.is_tidying = false;
                // What was changed may have gone meanwhile; then all of it was refused.
                let refused = matches!(reply, Reply::Refused(Refusal::UnknownQueue | Refusal::Conflict));
                if let Some((again, is_all)) = self.tidied.take()
                    && (refused || !is_all)
                {
                    self.untidy.insert(again);
                }
                self.tidy(seat);
            }
            Origin::Nobody => {
                if let Reply::Refused(refusal) = reply {
                    tracing::debug!(%refusal, "what nobody waited for was refused");
                }
            }
            Origin::Disk => {
                if let Reply::DiskSpace(space) = reply {
                    self.state.alarms.look_at_disk(space, seat.config.engine.disk_free_min_bytes);
                }
                self.with_desk(seat, None, |_, _| {});
            }
            Origin::Timer(_) | Origin::Tick | Origin::Renewal => panic!("a timer was answered {reply:?}"),
        }
    }

    /// What became of messages that went to a shard together.
    fn published(&mut self, number: u64, reply: Reply, seat: &mut Seat<'_>) {
        let mut outcomes = match reply {
            Reply::Published(outcomes) => Ok(outcomes.into_iter()),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("messages were answered {other:?}"),
        };
        self.with_desk(seat, None, |connections, desk| {
            for all in desk.published(number) {
                let Ok(outcomes) = &mut outcomes else {
                    answer(connections, desk, all, outcomes.as_ref().err());
                    continue;
                };
                // As many as have the same to be told are told together.
                let mut told = 0;
                let own = outcomes.as_slice().get(..all.count).expect("there is an outcome for each message");
                let whys: Vec<(usize, &Refusal)> =
                    own.iter().enumerate().filter_map(|(at, one)| Some((at, refusal(one)?))).collect();
                let part = |from: usize, count: usize, bytes: usize| Published {
                    number: all.number.map(|number| number + from as u64),
                    count,
                    bytes,
                    ..all
                };
                for (at, why) in whys {
                    if at > told {
                        answer(connections, desk, part(told, at - told, 0), None);
                    }
                    answer(connections, desk, part(at, 1, 0), Some(why));
                    told = at + 1;
                }
                // The bytes go with the last of them.
                answer(connections, desk, part(told, all.count - told, all.bytes), None);
                outcomes.nth(all.count - 1);
            }
        });
    }

    /// A timer has run out.
    pub fn timer(&mut self, conn: ConnId, seat: &mut Seat<'_>) {
        self.with(conn, seat, Connection::timer);
    }
}

/// Why a message was refused. A queue that has gone has refused nothing.
fn refusal(outcome: &Outcome) -> Option<&Refusal> {
    outcome.refused.iter().map(|(_, why)| why).find(|why| !is_gone(why))
}

/// Tells a connection what became of messages that it has published.
fn answer(
    connections: &mut BTreeMap<ConnId, Connection>,
    desk: &mut Desk<'_>,
    published: Published,
    refused: Option<&Refusal>,
) {
    if refused == Some(&Refusal::DiskFull) {
        desk.state.alarms.disk_is_full();
    }
    let Some(who) = published.who else { return };
    match connections.get_mut(&who.conn) {
        Some(connection) => {
            connection.published(who, published, refused, desk);
            desk.state.touched.insert(who.conn);
        }
        None => {
            desk.state.everybody.kept -= Kept { publishing: published.bytes, ..Kept::default() };
        }
    }
}

fn is_gone(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::UnknownQueue | Refusal::UnknownConsumer)
}

/// What a desk is made of, but for the connections' own.
pub struct Seat<'a> {
    /// The node's settings.
    pub config: &'a crate::config::ServerConfig,
    /// What is counted.
    pub metrics: &'a crate::metrics::BrokerMetrics,
    /// Where requests go.
    pub out: &'a mut millstream_engine::reactor::app::Outbox,
    /// Who waits for what.
    pub pending: &'a mut crate::dispatch::Pending,
}
