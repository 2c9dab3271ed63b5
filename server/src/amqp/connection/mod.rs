//! A connection: from its first bytes to its end. A plain struct without I/O: what it wants done goes to the desk.

mod handshake;
mod intake;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;

use millstream_engine::buffer::Slice;
use millstream_engine::error::Refusal;
use millstream_engine::io::ConnId;
use millstream_engine::shard::message::{CancelReason, Delivery};
use millstream_engine::time::{Nanos, WallMs};
use millstream_engine::types::QueueId;

use super::batches::Published;
use super::census::{Count, Holder};
use super::channel::Channel;
use super::codec::{ConnectionBlocked, ConnectionClose, ConnectionCloseOk, ConnectionUnblocked, Short};
use super::error::{Failure, ReplyCode};
use super::frames::Frames;
use super::keepers::Place;
use super::kept::Kept;
use super::link::Link;
use super::operations::{DeleteQueue, Done, Operation, Running, Who};
use super::report::ConnectionReport;
use super::state::Desk;
use super::topology::entries::Owner;
use crate::limits::{
    AMQP_CLOSE_WAIT_MS, AMQP_CONSUMERS_REPORTED_MAX, AMQP_FRAME_BYTES_BEFORE_TUNE, AMQP_FRAME_BYTES_MAX,
    AMQP_HANDSHAKE_MS, AMQP_PUBLISHING_BYTES_MAX, AMQP_SEND_BYTES_MAX, AMQP_STALLED_BYTES_MAX,
    AMQP_STOP_WAIT_MS, AMQP_TAKEN_WAIT, AMQP_UNCONFIRMED_MAX, AMQP_UNFINISHED_BYTES_MAX,
};
use crate::net::SendStep;

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The protocol's header is awaited.
    Header,
    /// `connection.start-ok`
    StartOk,
    /// `connection.tune-ok`
    TuneOk,
    /// `connection.open`
    Open,
    /// It serves.
    Running,
    /// The client has closed it; its own queues go first.
    Leaving,
    /// It was told to close, and its answer is awaited.
    Closing,
    /// What waits is sent, then it is closed.
    Draining,
    /// It was told to the engine to close it.
    Closed,
}

/// A connection's state. The inputs are the public methods that take a desk; after each of them comes [`Connection::finish`].
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and they do not exclude each other"
)]
pub struct Connection {
    peer: SocketAddr,
    local: SocketAddr,
    since: WallMs,
    received_bytes: u64,
    sent_bytes: u64,
    stage: Stage,
    /// When the handshake has to be over, or the answer to a close has to be there.
    deadline: Nanos,
    frames: Frames,
    /// Nothing that comes can be understood any more.
    is_deaf: bool,
    link: Link,
    channels: BTreeMap<u16, Channel>,
    /// Channels that were told to close, and whose answer is awaited.
    closing: BTreeSet<u16>,
    /// The channel that the connection waits for.
    waiting: Option<u16>,
    channel_max: u16,
    /// How many channels there have been.
    lives: u32,
    /// How many of these have been counted.
    lives_counted: u32,
    /// How long either side may be silent; zero: for ever.
    heartbeat: Nanos,
    received_at: Nanos,
    sent_at: Nanos,
    timer: Option<Nanos>,
    is_reading: bool,
    /// Deletions of its own queues that have not been answered.
    deletions: usize,
    /// Channels that something has happened to, or that wait for room on the way out.
    busy: BTreeSet<u16>,
    /// It has looked for the ways of messages for so long that others come first.
    is_tired: bool,
    /// It has published while memory or the disk was short, and is not read from until that is over.
    is_blocked: bool,
    /// What it counts for among everybody.
    counted: Kept,
    /// What it counts for among those of its user and its vhost.
    seats: Count,
}

impl Connection {
    /// A connection that was accepted at `now` by this shard. Reading is on.
    pub fn new(
        id: ConnId,
        shard: u16,
        peer: SocketAddr,
        local: SocketAddr,
        (now, since): (Nanos, WallMs),
    ) -> Connection {
        Connection {
            peer,
            local,
            since,
            received_bytes: 0,
            sent_bytes: 0,
            stage: Stage::Header,
            deadline: now + Nanos::from_millis(AMQP_HANDSHAKE_MS),
            frames: Frames::new(AMQP_FRAME_BYTES_BEFORE_TUNE),
            is_deaf: false,
            link: Link::new(id, Owner { shard, conn: id.0 }, AMQP_FRAME_BYTES_MAX),
            channels: BTreeMap::new(),
            closing: BTreeSet::new(),
            waiting: None,
            channel_max: 0,
            lives: 0,
            lives_counted: 0,
            heartbeat: Nanos::ZERO,
            received_at: now,
            sent_at: now,
            timer: None,
            is_reading: true,
            deletions: 0,
            busy: BTreeSet::new(),
            is_tired: false,
            is_blocked: false,
            counted: Kept::default(),
            seats: Count::default(),
        }
    }

    /// What it counts for among everybody.
    pub fn counted(&self) -> Kept {
        self.counted
    }

    /// Bytes that it has published and that are on their way to queues.
    pub fn publishing_bytes(&self) -> usize {
        self.link.publishing_bytes
    }

    /// Bytes came in.
    pub fn received(&mut self, bytes: Slice, desk: &mut Desk<'_>) {
        self.received_at = desk.out.now();
        self.received_bytes += bytes.len() as u64;
        if matches!(self.stage, Stage::Draining | Stage::Closed) || self.is_deaf {
            return;
        }
        self.frames.push(bytes);
    }

    /// What was sent last has been taken.
    pub fn sent(&mut self) {
        self.link.queue.sent();
    }

    /// What was sent last takes long.
    pub fn slow(&mut self) {
        self.link.queue.slow();
    }

    /// A timer has run out.
    pub fn timer(&mut self, desk: &mut Desk<'_>) {
        let now = desk.out.now();
        self.timer = None;
        self.is_tired = false;
        match self.stage {
            Stage::Closed => {}
            Stage::Running | Stage::Leaving => self.beat(now, desk),
            _ if now >= self.deadline => self.hang_up(&"it took too long to open or close", desk),
            _ => {}
        }
    }

    /// Says that we are here, if nothing was said for half of the time; hangs up if the peer was silent for twice of it.
    ///
    /// A peer that we do not read from cannot be heard: it may be silent as long as it takes what it is sent.
    fn beat(&mut self, now: Nanos, desk: &mut Desk<'_>) {
        if self.heartbeat == Nanos::ZERO {
            return;
        }
        let unheard = now.since(self.received_at).0;
        if self.is_reading && unheard >= 2 * self.heartbeat.0 {
            return self.hang_up(&"missed heartbeats from client", desk);
        }
        let untaken = if self.link.queue.is_idle() { 0 } else { now.since(self.sent_at).0 };
        let patience = (2 * self.heartbeat.0).max(AMQP_TAKEN_WAIT.0);
        if !self.is_reading && unheard.min(untaken) >= patience {
            return self.hang_up(&"it neither takes what it is sent nor can be heard", desk);
        }
        if now.since(self.sent_at).0 >= self.heartbeat.0 / 2 && self.link.queue.is_idle() {
            self.link.heartbeat();
        }
    }

    /// An operation is over that one of its channels has waited for.
    pub fn ended(&mut self, who: Who, ended: Result<Done, Failure>, desk: &mut Desk<'_>) {
        if who.channel == 0 {
            self.deletions = self.deletions.saturating_sub(1);
            return;
        }
        self.busy.insert(who.channel);
        let Some(channel) = self.channels.get_mut(&who.channel).filter(|channel| channel.who == who) else {
            return self.unwanted(ended, desk);
        };
        let ended = if channel.may_fail() { Ok(ended.unwrap_or(Done::Ok)) } else { ended };
        if let Err((failure, method)) = channel.ended(ended, &mut self.link, desk) {
            self.fail(who.channel, &failure, method, desk);
        }
    }

    /// What came of an operation whose channel has gone.
    fn unwanted(&mut self, ended: Result<Done, Failure>, desk: &mut Desk<'_>) {
        unwanted(&self.link.vhost, ended, self.stage != Stage::Closed, &mut self.link.own_queues, desk);
    }

    /// A message for one of its consumers. Gives it back if there is no such channel any more.
    pub fn delivered(&mut self, place: Place, delivery: Delivery, desk: &mut Desk<'_>) {
        if let Some(channel) = self.channel(place.who) {
            channel.0.delivered(place.keeper, delivery, channel.1, desk);
        }
    }

    /// The engine has ended one of its consumers.
    pub fn cancelled(&mut self, place: Place, reason: CancelReason, desk: &mut Desk<'_>) {
        if let Some(channel) = self.channel(place.who) {
            channel.0.cancelled(place.keeper, reason, channel.1, desk);
        }
    }

    /// An answer for whoever waits at `amq.rabbitmq.reply-to`.
    pub fn reply_came(&mut self, who: Who, secret: u64, header: &Slice, body: &[Slice], desk: &Desk<'_>) {
        if let Some(channel) = self.channel(who) {
            channel.0.reply_came(secret, header, body, channel.1, desk);
        }
    }

    /// Messages of one of its channels have reached a shard's queues, or have been refused.
    pub fn published(
        &mut self,
        who: Who,
        published: Published,
        refused: Option<&Refusal>,
        desk: &mut Desk<'_>,
    ) {
        self.link.publishing_bytes = self.link.publishing_bytes.saturating_sub(published.bytes);
        if let Some(channel) = self.channel(who) {
            channel.0.published(published.number, published.count, refused, channel.1, desk);
        }
    }

    /// A queue that it has published to has not too much waiting any more.
    pub fn flows(&mut self, queue: QueueId) {
        self.link.held_by.remove(&queue);
    }

    /// A shard has settled what a transaction has settled.
    pub fn commit_answered(&mut self, who: Who, refused: bool, desk: &mut Desk<'_>) {
        if let Some(channel) = self.channel(who) {
            channel.0.commit_answered(1, refused, channel.1, desk);
        }
    }

    fn channel(&mut self, who: Who) -> Option<(&mut Channel, &mut Link)> {
        let channel = self.channels.get_mut(&who.channel).filter(|channel| channel.who == who)?;
        self.busy.insert(who.channel);
        Some((channel, &mut self.link))
    }

    /// What is told of it.
    pub fn report(&self) -> ConnectionReport {
        let mut room = AMQP_CONSUMERS_REPORTED_MAX;
        let channels = self.channels.values().map(|channel| {
            let report = channel.report(room);
            room -= report.consumers.len();
            report
        });
        ConnectionReport {
            shard: self.link.owner.shard,
            conn: self.link.id,
            peer: self.peer,
            local: self.local,
            since: self.since,
            state: match self.stage {
                Stage::Header | Stage::StartOk => "starting",
                Stage::TuneOk => "tuning",
                Stage::Open => "opening",
                Stage::Running if self.is_overrun() => "flow",
                Stage::Running => "running",
                Stage::Leaving | Stage::Closing | Stage::Draining => "closing",
                Stage::Closed => "closed",
            },
            user: self.link.user.clone(),
            vhost: self.link.vhost.clone(),
            client_properties: self.link.client_properties.clone(),
            mechanism: self.link.mechanism.clone(),
            heartbeat_s: self.heartbeat.0 / 1_000_000_000,
            frame_bytes_max: self.link.frame_max,
            channels_max: self.channel_max,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            channels: channels.collect(),
        }
    }

    /// Whoever looks after the node wants it closed.
    pub fn force(&mut self, reason: &str, desk: &mut Desk<'_>) {
        match self.stage {
            Stage::Running | Stage::Open | Stage::TuneOk => {
                self.close_with(&Failure::new(ReplyCode::ConnectionForced, reason), (0, 0), desk);
            }
            Stage::Closed | Stage::Closing | Stage::Draining => {}
            Stage::Header | Stage::StartOk | Stage::Leaving => self.drain(desk),
        }
    }

    /// The node stops.
    pub fn stop(&mut self, desk: &mut Desk<'_>) {
        match self.stage {
            Stage::Running | Stage::Open => {
                let text = "broker forced connection closure with reason 'shutdown'";
                self.close_with(&Failure::new(ReplyCode::ConnectionForced, text), (0, 0), desk);
                self.deadline = desk.out.now() + Nanos::from_millis(AMQP_STOP_WAIT_MS);
            }
            Stage::Closed => {}
            _ => self.drain(desk),
        }
    }

    /// The connection is over: what is under way for it is given up, and its own queues go.
    pub fn closed(&mut self, desk: &mut Desk<'_>) {
        self.stage = Stage::Closed;
        self.frames.clear();
        self.close_channels(desk);
        for (name, id) in std::mem::take(&mut self.link.own_queues) {
            let delete = Operation::DeleteQueue(DeleteQueue::new(name, Some(id), false, false));
            desk.begin_by_itself(Some(self.link.owner), self.link.vhost.clone(), delete);
        }
    }

    fn close_channels(&mut self, desk: &mut Desk<'_>) {
        self.waiting = None;
        desk.state.held.forget(&mut self.link);
        for (_, mut channel) in std::mem::take(&mut self.channels) {
            channel.close(&mut self.link, desk);
        }
    }

    /// Closes the connection at once and says why in the log.
    pub fn hang_up(&mut self, reason: &dyn Display, desk: &mut Desk<'_>) {
        if self.stage != Stage::Closed {
            tracing::info!(peer = %self.peer, "connection closed: {reason}");
            self.closed(desk);
            desk.out.close(self.link.id);
        }
    }

    /// Sends what waits, then closes.
    fn drain(&mut self, desk: &Desk<'_>) {
        self.stage = Stage::Draining;
        self.deadline = desk.out.now() + Nanos::from_millis(AMQP_CLOSE_WAIT_MS);
        self.frames.clear();
    }

    /// Tells the client that something has failed which it did: its channel ends, or the connection as a whole.
    fn fail(&mut self, channel: u16, failure: &Failure, method: (u16, u16), desk: &mut Desk<'_>) {
        if channel == 0 || !failure.is_channels() {
            return self.close_with(failure, method, desk);
        }
        tracing::debug!(peer = %self.peer, channel, "channel closed: {}", failure.text);
        if let Some(mut channel) = self.channels.remove(&channel) {
            channel.close(&mut self.link, desk);
        }
        if self.waiting == Some(channel) {
            self.waiting = None;
        }
        self.closing.insert(channel);
        let text = failure.reply_text();
        let (class, id) = method;
        let close = super::codec::ChannelClose {
            reply_code: failure.code as u16,
            reply_text: Short(&text),
            class,
            method: id,
        };
        self.link.method(channel, close);
    }

    /// Tells the client that the connection ends, and waits for its answer.
    fn close_with(&mut self, failure: &Failure, method: (u16, u16), desk: &mut Desk<'_>) {
        if matches!(self.stage, Stage::Closing | Stage::Draining | Stage::Closed) {
            return;
        }
        tracing::info!(peer = %self.peer, "connection closed: {}", failure.text);
        self.close_channels(desk);
        self.stage = Stage::Closing;
        self.deadline = desk.out.now() + Nanos::from_millis(AMQP_CLOSE_WAIT_MS);
        let text = failure.reply_text();
        let (class, id) = method;
        let close =
            ConnectionClose { reply_code: failure.code as u16, reply_text: Short(&text), class, method: id };
        self.link.method(0, close);
    }

    /// The client closes the connection: its own queues go, then it is answered.
    fn leave(&mut self, desk: &mut Desk<'_>) {
        self.close_channels(desk);
        self.stage = Stage::Leaving;
        let who = self.link.who(0, 0);
        for (name, id) in std::mem::take(&mut self.link.own_queues) {
            let delete = Operation::DeleteQueue(DeleteQueue::new(name, Some(id), false, false));
            let running = Running::new(Some(who), Some(self.link.owner), self.link.vhost.clone(), delete);
            self.deletions += usize::from(desk.begin(running).is_none());
        }
    }

    /// Whether what has come is not looked at for now.
    fn is_stalled(&self) -> bool {
        self.waiting.is_some() || self.stage == Stage::Leaving || self.is_tired || self.is_overrun()
    }

    /// Whether the client is faster than its queues.
    fn is_held_up(&self) -> bool {
        self.is_blocked
            || self.link.is_held()
            || self.link.publishing_bytes >= AMQP_PUBLISHING_BYTES_MAX
            || self.link.kept.unconfirmed >= AMQP_UNCONFIRMED_MAX
    }

    /// Whether it is, or is slower than what it has asked for.
    fn is_overrun(&self) -> bool {
        self.is_held_up() || self.link.waiting_bytes() >= AMQP_SEND_BYTES_MAX
    }

    /// Brings the account of all connections up to date.
    fn count(&mut self, desk: &mut Desk<'_>) {
        let mut kept = self.link.kept;
        kept.unfinished += self.frames.held_bytes();
        kept.publishing += self.link.publishing_bytes;
        kept.sending += self.link.waiting_bytes();
        if kept != self.counted {
            let everybody = &mut desk.state.everybody.kept;
            *everybody -= self.counted;
            *everybody += kept;
            desk.metrics.amqp_channels.set(everybody.channels as u64);
            desk.metrics.amqp_consumers.set(everybody.consumers as u64);
        }
        let opened = (self.lives - self.lives_counted) as usize;
        desk.metrics.amqp_channels_opened.add(opened as u64);
        desk.metrics.amqp_channels_closed.add((self.counted.channels + opened - kept.channels) as u64);
        (self.counted, self.lives_counted) = (kept, self.lives);
        self.count_seats(desk);
    }

    /// The same among those of its user and its vhost, which may have limits.
    fn count_seats(&mut self, desk: &mut Desk<'_>) {
        let serves = matches!(self.stage, Stage::Running | Stage::Leaving);
        let channels = if serves { self.channels.len() as u64 } else { 0 };
        let seats = Count { connections: u64::from(serves), channels };
        let before = std::mem::replace(&mut self.seats, seats);
        if before == seats {
            return;
        }
        let census = &mut desk.state.census;
        census.change(Holder::User(self.link.user.clone()), before, seats);
        let of_vhost = |count: Count| Count { channels: 0, ..count };
        census.change(Holder::Vhost(self.link.vhost.clone()), of_vhost(before), of_vhost(seats));
    }

    /// Ends the connection if it has begun more than it, or everybody together, may have begun.
    fn check_unfinished(&mut self, desk: &mut Desk<'_>) {
        let (own, everybody) = (self.counted.unfinished, &desk.state.everybody);
        let max = desk.config.partial_bytes_max;
        if own > AMQP_UNFINISHED_BYTES_MAX || everybody.is_over(everybody.kept.unfinished, max, own) {
            let text = "messages that have arrived in part, and transactions, are too large in sum";
            self.close_with(&Failure::new(ReplyCode::ResourceError, text), (0, 0), desk);
            self.count(desk);
        }
    }

    /// Blocks a client that publishes while memory or the disk is short, and tells it so; ends that when it is over.
    fn heed_alarms(&mut self, desk: &mut Desk<'_>) {
        let has_published = std::mem::take(&mut self.link.has_published);
        let alarms = desk.state.alarms;
        let is_blocked = alarms.any() && (self.is_blocked || has_published) && self.stage == Stage::Running;
        if is_blocked == self.is_blocked {
            return;
        }
        self.is_blocked = is_blocked;
        if is_blocked {
            desk.state.blocked.insert(self.link.id);
        }
        if !self.link.capabilities.connection_blocked || self.stage != Stage::Running {
            return;
        }
        if is_blocked {
            self.link.method(0, ConnectionBlocked { reason: Short(alarms.reason()) });
        } else {
            self.link.method(0, ConnectionUnblocked {});
        }
    }

    /// Moves everything as far as it goes.
    pub fn finish(&mut self, desk: &mut Desk<'_>) {
        loop {
            let channels = &mut self.channels;
            let failed = self.busy.iter().find_map(|number| {
                let (failure, method) = channels.get_mut(number)?.take_failure()?;
                Some((*number, failure, method))
            });
            if let Some((number, failure, method)) = failed {
                self.fail(number, &failure, method, desk);
                continue;
            }
            self.heed_alarms(desk);
            self.waiting =
                self.waiting.filter(|number| self.channels.get(number).is_some_and(Channel::is_waiting));
            if !self.take_frames(desk) {
                break;
            }
        }
        if self.stage == Stage::Leaving && self.deletions == 0 {
            self.link.method(0, ConnectionCloseOk {});
            self.drain(desk);
        }
        let (channels, link) = (&mut self.channels, &mut self.link);
        self.busy.retain(|number| {
            let Some(channel) = channels.get_mut(number) else { return false };
            channel.finish(link, desk);
            channel.is_hungry()
        });
        self.frames.loosen();
        self.count(desk);
        self.check_unfinished(desk);
        if self.link.is_hopeless {
            self.hang_up(&"it does not take what it is sent", desk);
        }
        self.send(desk);
        self.regulate(desk);
    }

    fn send(&mut self, desk: &mut Desk<'_>) {
        if self.stage == Stage::Closed {
            return;
        }
        self.link.seal();
        match self.link.queue.next_step() {
            None => {}
            Some(SendStep::Send(slices, _)) => {
                let bytes = slices.iter().map(|slice| slice.len() as u64).sum();
                desk.metrics.sent.add(bytes);
                self.sent_bytes += bytes;
                self.sent_at = desk.out.now();
                desk.out.send(self.link.id, slices);
            }
            Some(SendStep::Load(_)) => panic!("nothing of a log is sent here"),
        }
    }

    /// Turns reading on or off, closes what has been drained, sets the timer.
    fn regulate(&mut self, desk: &mut Desk<'_>) {
        if self.stage == Stage::Closed {
            return;
        }
        if self.stage == Stage::Draining && self.link.queue.is_idle() {
            self.closed(desk);
            desk.out.close(self.link.id);
            return;
        }
        // An operation does not take long: what comes meanwhile waits, unless it is much. And of who is slow to take what it has
        // asked for, we want to hear that it is there.
        let is_full = self.is_stalled() && self.frames.held_bytes() >= AMQP_STALLED_BYTES_MAX;
        let is_reading = !(self.is_held_up() || is_full);
        if is_reading != self.is_reading {
            self.is_reading = is_reading;
            // Its silence counts from when it can be heard again.
            self.received_at = desk.out.now();
            desk.metrics.amqp_held.add(u64::from(self.link.is_held()));
            desk.out.read(self.link.id, is_reading);
        }
        let next = match self.stage {
            Stage::Running | Stage::Leaving if self.heartbeat == Nanos::ZERO => None,
            Stage::Running | Stage::Leaving => Some(desk.out.now() + Nanos(self.heartbeat.0 / 2)),
            _ => Some(self.deadline),
        };
        let next = if self.is_tired { Some(desk.out.now()) } else { next };
        if let Some(next) = next
            && self.timer.is_none_or(|timer| next < timer)
        {
            self.timer = Some(next);
            desk.set_timer(self.link.id, next);
        }
    }
}

/// Undoes what came of an operation that nobody waits for any more.
pub fn unwanted(
    vhost: &[u8],
    ended: Result<Done, Failure>,
    connection_is_there: bool,
    own_queues: &mut BTreeMap<Vec<u8>, QueueId>,
    desk: &mut Desk<'_>,
) {
    match ended {
        Ok(Done::QueueDeclared { name, own: true, id, .. }) => {
            if connection_is_there {
                own_queues.insert(name, id);
            } else {
                let delete = Operation::DeleteQueue(DeleteQueue::new(name, Some(id), false, false));
                desk.begin_by_itself(None, vhost.to_vec(), delete);
            }
        }
        // Nobody was there to see its queue go.
        Ok(Done::Cancelled { queue, left: Some(0) }) => desk.delete_if_abandoned(vhost, &queue),
        Ok(Done::Got(Some(delivery), _)) => {
            let shard = desk.out.metadata().shard_of_queue(delivery.queue);
            if let Some(shard) = shard {
                let verdict = millstream_engine::shard::message::Verdict::Requeue { failed: false };
                let (queue, consumer, seq) = (delivery.queue, delivery.consumer, delivery.seq);
                desk.state.batches.settle(shard, queue, consumer, seq, verdict);
            }
        }
        _ => {}
    }
}
