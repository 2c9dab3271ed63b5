//! The only loop: take completions, step, submit, wait. One pinned thread per core.

pub mod app;
pub mod boot;
mod calls;
pub mod import;
mod memory;
pub mod node;
pub mod reshard;
mod slow;
mod timers;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use app::{App, AppEvent, Outbox, Output};
pub use calls::Call;
use calls::Line;
use slow::{Sending, SlowSends};
use timers::Timers;

use crate::error::IoError;
use crate::io::random::Random;
use crate::io::{ConnId, Event, Io, Socket, Token, Wait};
use crate::limits::{MAIL_PER_ROUND, MAIL_ROUNDS_PER_TURN};
use crate::metrics::{Reader, ShardMetrics, Step};
use crate::shard::controller::{CONTROLLER, Change, Controller, Next};
use crate::shard::mailbox::{Mail, Post};
use crate::shard::message::{CancelReason, ConsumerId, Delivery, Flow};
use crate::shard::metadata::Metadata;
use crate::shard::request::{AppToken, Reply, Request, WatchId};
use crate::shard::{self, Arrived, Inbound, Requester, Shard, tokens};
use crate::time::Nanos;
use crate::types::{MetadataEpoch, QueueId, Seq, ShardId};

/// What one shard asks of another. Each is answered by one [`Answer`], which gives back the room it took.
#[derive(Debug)]
pub enum Ask {
    /// A host's request.
    Engine(AppToken, Request),
    /// A watch's condition holds.
    Woken(AppToken, WatchId),
    /// An answer that is to arrive in order with what else is told of consumers; or that of a change of metadata, whose request
    /// has given back its room before.
    Answered(AppToken, Reply),
    /// Messages for consumers.
    Delivered(Vec<Delivery>),
    /// A message comes in from a queue there.
    Inbound(Box<Inbound>),
    /// What came in has left its queue.
    Forget(QueueId, Seq),
    /// These names of messages from there are remembered here.
    Remembers(Vec<(QueueId, Seq)>),
    /// A consumer was ended by its queue.
    ConsumerCancelled(ConsumerId, QueueId, CancelReason),
    /// Whose publishers had better wait, or need not any more.
    Flow(Vec<Flow>),
    /// What one host has to say to another.
    Tell(Box<dyn Any + Send>),
    /// Take this connection, which the listener of this number has accepted.
    Adopt(Socket, u16),
    /// A read waits there for memory, which connections of this shard may keep.
    Starved {
        /// It has waited for so long that whoever takes nothing had better go.
        for_long: bool,
    },
    /// Apply this metadata.
    Apply(Arc<Metadata>),
    /// Nothing is left of topics that were deleted up to this epoch.
    Clear(MetadataEpoch),
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub enum Answer {
    /// To a host's request.
    Engine(AppToken, Reply),
    /// A message has arrived, or has not.
    Arrived(Arrived),
    /// The metadata is applied.
    Applied,
    /// Taken note of.
    Noted,
}

/// What the shards of a process share: flags and counters, nothing else.
#[derive(Debug)]
pub struct Shared {
    /// Set once: everybody is to end in good order.
    stop: AtomicBool,
    /// Shards that have nothing left to do for anybody.
    settled: AtomicUsize,
    /// Connections of each shard.
    connections: Vec<AtomicUsize>,
    /// What other threads say to each shard's host.
    lines: Vec<Line>,
}

impl Shared {
    /// What `shards` shards share.
    pub fn new(shards: u16) -> Shared {
        Shared {
            stop: AtomicBool::new(false),
            settled: AtomicUsize::new(0),
            connections: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            lines: (0..shards).map(|_| Line::default()).collect(),
        }
    }

    /// Says something to the host of a shard, which must be woken, too: [`AppEvent::Called`]. Gives it back if there is no
    /// such shard, or so much waits there already that there is no room.
    pub fn call(&self, shard: ShardId, call: Call) -> Result<(), Call> {
        match self.lines.get(usize::from(shard.0)) {
            Some(line) => line.put(call),
            None => Err(call),
        }
    }

    /// Asks everybody to end. The shards must be woken, too.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// The shard for one more connection, which counts there from now on: the next may come before that one is there.
    fn assign(&self) -> ShardId {
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let least = self.connections.iter().enumerate().min_by_key(|(_, connections)| count(connections));
        let shard = ShardId(least.map_or(0, |(shard, _)| shard as u16));
        self.connections[usize::from(shard.0)].fetch_add(1, Ordering::Relaxed);
        shard
    }
}

/// What a turn found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// There is more to come.
    Going,
    /// The node is stopping, and every shard has settled: this was the last turn.
    Stopped,
}

/// What the loop keeps of a connection.
#[derive(Default)]
struct Connection {
    /// The host wants reading to be off.
    host_off: bool,
    /// Requests on its behalf that wait for room in a mailbox; reading is off meanwhile, too.
    parked: usize,
    sending: Sending,
}

/// One shard's loop, around one shard, one host and one outside world.
pub struct Reactor<I: Io, A: App> {
    io: I,
    shard: Shard<I>,
    controller: Option<Controller>,
    app: A,
    outbox: Outbox,
    post: Post<Ask, Answer>,
    /// Messages that wait for credit with a peer, and the connection that they come from.
    parked: BTreeMap<ShardId, VecDeque<(Ask, Option<ConnId>)>>,
    connections: BTreeMap<ConnId, Connection>,
    slow_sends: SlowSends,
    /// When the host may next be asked to let go of memory.
    next_let_go: Nanos,
    /// When a stuck connection may next be closed: what the last one kept takes a moment to come back.
    next_stuck: Nanos,
    /// Since when reads wait for memory.
    starved_since: Option<Nanos>,
    timers: Timers,
    shared: Arc<Shared>,
    offloads: u64,
    offloaded: BTreeMap<u64, AppToken>,
    /// Directory renames that must be done before a change of metadata counts as applied here.
    renames: VecDeque<(String, String)>,
    applying: Option<ShardId>,
    /// Whether all of them were done.
    renamed: bool,
    /// The next rename waits for a removal.
    rename_waits: bool,
    listening: Vec<Option<Result<SocketAddr, IoError>>>,
    /// When there last was something to do.
    last_busy: Nanos,
    /// Since when it has been stopping.
    stopping: Option<Nanos>,
    counted_as_settled: bool,
    events: Vec<Event>,
    /// Connections whose host wants to know when it has seen all that has come in.
    catching_up: Vec<ConnId>,
    mail: Vec<Mail<Ask, Answer>>,
}

impl<I: Io, A: App> Reactor<I, A> {
    /// A loop that has not turned yet. The controller belongs to shard 0.
    pub fn new(
        mut io: I,
        shard: Shard<I>,
        controller: Option<Controller>,
        app: A,
        post: Post<Ask, Answer>,
        shared: Arc<Shared>,
    ) -> Reactor<I, A> {
        assert_eq!(controller.is_some(), shard.id() == CONTROLLER, "the controller lives on one shard");
        let mut outbox = Outbox::new(shard.id(), Arc::clone(shard.metadata()));
        outbox.random = Random::new(io.random());
        let mut reactor = Reactor {
            io,
            shard,
            controller,
            app,
            outbox,
            post,
            parked: BTreeMap::new(),
            connections: BTreeMap::new(),
            slow_sends: SlowSends::default(),
            next_let_go: Nanos::ZERO,
            next_stuck: Nanos::ZERO,
            starved_since: None,
            timers: Timers::default(),
            shared,
            offloads: 0,
            offloaded: BTreeMap::new(),
            renames: VecDeque::new(),
            applying: None,
            renamed: true,
            rename_waits: false,
            listening: Vec::new(),
            last_busy: Nanos::ZERO,
            stopping: None,
            counted_as_settled: false,
            events: Vec::new(),
            catching_up: Vec::new(),
            mail: Vec::new(),
        };
        reactor.step(AppEvent::Started);
        reactor
    }

    /// The shard, for checkers and metrics.
    pub fn shard(&self) -> &Shard<I> {
        &self.shard
    }

    /// The host.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// The host, for tests.
    pub fn app_mut(&mut self) -> &mut A {
        &mut self.app
    }

    /// What the shard tells of itself, for any thread.
    pub fn metrics(&mut self) -> Reader<ShardMetrics> {
        self.shard.observer().metrics.reader()
    }

    /// The outside world.
    pub fn io(&mut self) -> &mut I {
        &mut self.io
    }

    /// Whether it was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Listens for connections at one more address, and shares them out among the shards. Gives the address's number.
    pub fn listen(&mut self, address: SocketAddr) -> u16 {
        let listener = self.listening.len() as u16;
        self.listening.push(None);
        self.io.listen(Token::new(tokens::LISTEN, u64::from(listener)), address);
        listener
    }

    /// Where it listens under this number, once that is known.
    pub fn listening(&self, listener: u16) -> Option<&Result<SocketAddr, IoError>> {
        self.listening.get(usize::from(listener))?.as_ref()
    }

    /// One turn: takes what has happened, lets everybody step, submits what came of it. May block if nothing is to be
    /// done and `may_wait` is set.
    pub fn turn(&mut self, may_wait: bool) -> Turn {
        // Before its first turn the host may have asked or told something already.
        self.post.publish(|peer| self.io.wake(peer));
        let mut events = std::mem::take(&mut self.events);
        let waits = may_wait && !self.is_spinning() && self.post.announce_sleep();
        if waits {
            let stops = self.shared.stop.load(Ordering::SeqCst) && self.stopping.is_none();
            let wait = if stops { Wait::No } else { Wait::Until(self.next_due()) };
            self.io.poll(wait, &mut events);
            self.post.awake();
        } else {
            self.io.poll(Wait::No, &mut events);
        }
        self.outbox.now = self.io.now();
        self.outbox.wall_ms = self.io.wall_ms();
        self.shard.observer().turn_began(self.outbox.now, waits);
        if self.shared.stop.load(Ordering::SeqCst) && self.stopping.is_none() {
            self.stopping = Some(self.outbox.now);
            if self.shard.id() == CONTROLLER {
                for listener in 0..self.listening.len() {
                    self.io.unlisten(Token::new(tokens::LISTEN, listener as u64));
                }
            }
            self.step(AppEvent::Stopping);
        }
        if !events.is_empty() {
            self.last_busy = self.outbox.now;
        }
        for event in events.drain(..) {
            self.on_event(event);
        }
        self.events = events;
        self.catch_up();
        for call in self.calls() {
            self.step(AppEvent::Called(call));
        }
        while let Some(token) = self.timers.due(self.outbox.now) {
            self.step(AppEvent::Timer(token));
        }
        self.loosen_slow_sends();
        self.seek_memory();
        let now = self.io.now();
        self.shard.observer().step_ended(Step::Events, now);
        self.post.tell_time(now);
        // What has just become durable is told at once: the rest of the turn may take as long as a wake-up does.
        self.take_outputs();
        for _ in 0..MAIL_ROUNDS_PER_TURN {
            self.unpark();
            self.ring_out();
            if !self.take_mail() {
                break;
            }
            self.take_outputs();
        }
        self.catch_up();
        self.shard.observer().step_ended(Step::Mail, self.io.now());
        self.shard.end_turn(&mut self.io);
        if self.rename_waits {
            self.rename_next();
        }
        self.take_outputs();
        self.unpark();
        let now = self.io.now();
        self.post.tell_time(now);
        self.post.publish(|peer| self.io.wake(peer));
        let parked: usize = self.parked.values().map(VecDeque::len).sum();
        self.shard.observer().turn_ended(now, parked);
        self.settle()
    }

    /// No event is under way: whoever wanted to know has seen all that has come in.
    fn catch_up(&mut self) {
        for conn in std::mem::take(&mut self.catching_up) {
            self.step(AppEvent::CaughtUp(conn));
        }
    }

    /// Lets the peers see what was sent, and rings those that sleep without waiting for the end of the turn.
    fn ring_out(&mut self) {
        let mut any = false;
        self.post.publish(|peer| {
            any |= peer != self.shard.id();
            self.io.wake(peer);
        });
        if any {
            self.io.submit();
        }
    }

    /// What other threads have to say to the host.
    fn calls(&self) -> Vec<Call> {
        let line = self.shared.lines.get(usize::from(self.shard.id().0));
        line.expect("every shard has one").take()
    }

    /// When there is something to do again at the latest.
    fn next_due(&self) -> Nanos {
        let others = self.timers.next().into_iter().chain(self.slow_sends.next());
        others.fold(self.shard.next_turn_due(), Nanos::min)
    }

    /// Whether there was work so short a time ago that looking for more is cheaper than to be woken for it.
    fn is_spinning(&self) -> bool {
        let spin = self.shard.spin();
        spin > Nanos::ZERO && self.io.now().since(self.last_busy) < spin
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Written(token) if token.owner() == tokens::COMMIT => self.shard.on_written(),
            Event::Written(_) => {}
            Event::Disk(token, done) if token.owner() == tokens::METADATA => {
                if token.id() == RENAME {
                    // A log that never reached its segments has no directory yet.
                    if let Err(error) = done
                        && error != IoError::NotFound
                    {
                        tracing::warn!(%error, "a deleted topic's directory could not be renamed; the next start removes it");
                        self.renamed = false;
                    }
                    return self.rename_next();
                }
                let mut next = Vec::new();
                if let Some(controller) = &mut self.controller {
                    controller.on_done(&mut self.io, token, done, &mut next);
                }
                self.on_controller(next);
            }
            Event::Disk(token, done) => self.shard.on_done(&mut self.io, token, done),
            Event::Listening(token, result) => {
                let listener = self.listening.get_mut(token.id() as usize);
                *listener.expect("it was asked to listen") = Some(result);
            }
            Event::Accepted(token, socket) => {
                let shard = self.shared.assign();
                self.send(shard, Ask::Adopt(socket, token.id() as u16), None);
            }
            Event::Received(conn, bytes) => self.step(AppEvent::Received(conn, bytes)),
            Event::Sent(conn) => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.sending.ended();
                }
                self.step(AppEvent::SendDone(conn));
            }
            Event::Closed(conn, reason) => {
                if self.connections.remove(&conn).is_some() {
                    self.shared.connections[usize::from(self.shard.id().0)].fetch_sub(1, Ordering::Relaxed);
                }
                self.step(AppEvent::Closed(conn, reason));
            }
            Event::Offloaded(token, _) if token.owner() == tokens::WARM => self.shard.warmed(),
            Event::Offloaded(token, result) => {
                if let Some(token) = self.offloaded.remove(&token.id()) {
                    self.step(AppEvent::Offloaded(token, result));
                }
            }
        }
    }

    /// Lets the host step, and does what it wants done.
    fn step(&mut self, event: AppEvent) {
        self.app.step(event, &mut self.outbox);
        let mut outputs = std::mem::take(&mut self.outbox.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Send(conn, slices) => {
                    if let Some(connection) = self.connections.get_mut(&conn) {
                        self.slow_sends.began(conn, &mut connection.sending, &slices, self.outbox.now);
                        self.io.send(conn, slices);
                    }
                }
                Output::Read(conn, on) => {
                    if let Some(connection) = self.connections.get_mut(&conn) {
                        connection.host_off = !on;
                        self.io.receive(conn, on && connection.parked == 0);
                    }
                }
                Output::CatchUp(conn) => self.catching_up.push(conn),
                Output::ReceiveInto(conn, room) => {
                    if self.connections.contains_key(&conn) {
                        self.io.receive_into(conn, room);
                    }
                }
                Output::Close(conn) => {
                    if self.connections.contains_key(&conn) {
                        self.io.shutdown(conn);
                    }
                }
                Output::SetTimer(token, at) => self.timers.set(token, at),
                Output::Engine { token, shard, request, source } => {
                    self.send(shard, Ask::Engine(token, request), source);
                }
                Output::Tell { shard, message, source } => self.send(shard, Ask::Tell(message), source),
                Output::Offload(token, job) => {
                    self.offloads += 1;
                    self.offloaded.insert(self.offloads, token);
                    self.io.offload(Token::new(tokens::OFFLOAD, self.offloads), job);
                }
            }
        }
        self.outbox.outputs = outputs;
    }

    /// Sends to a shard; without credit the message waits, in order, and its connection is not read meanwhile.
    fn send(&mut self, to: ShardId, ask: Ask, source: Option<ConnId>) {
        let waiting = self.parked.get(&to).is_some_and(|queue| !queue.is_empty());
        let ask = if waiting {
            ask
        } else {
            match self.post.send(to, ask) {
                Ok(()) => return,
                Err(ask) => ask,
            }
        };
        if let Some(conn) = source
            && let Some(connection) = self.connections.get_mut(&conn)
        {
            connection.parked += 1;
            self.io.receive(conn, false);
        }
        self.parked.entry(to).or_default().push_back((ask, source));
    }

    fn unpark(&mut self) {
        for (to, queue) in &mut self.parked {
            while self.post.credit(*to) > 0
                && let Some((ask, source)) = queue.pop_front()
            {
                let sent = self.post.send(*to, ask);
                assert!(sent.is_ok(), "there was credit");
                if let Some(conn) = source
                    && let Some(connection) = self.connections.get_mut(&conn)
                {
                    connection.parked -= 1;
                    if connection.parked == 0 && !connection.host_off {
                        self.io.receive(conn, true);
                    }
                }
            }
        }
    }

    /// Takes what the peers sent. Says whether there was anything.
    fn take_mail(&mut self) -> bool {
        let mut mail = std::mem::take(&mut self.mail);
        self.post.take(MAIL_PER_ROUND, &mut mail);
        let any = !mail.is_empty();
        if any {
            let lay = self.post.take_sample();
            self.shard.observer().mail_taken(mail.len(), lay);
            self.last_busy = self.outbox.now;
        }
        for message in mail.drain(..) {
            self.io.pump();
            match message {
                Mail::Request(from, ask) => self.on_ask(from, ask),
                Mail::Reply(_, Answer::Engine(token, reply)) => self.step(AppEvent::Reply(token, reply)),
                Mail::Reply(from, Answer::Arrived(arrived)) => self.shard.arrived(&self.io, from, arrived),
                Mail::Reply(_, Answer::Noted) => {}
                Mail::Reply(_, Answer::Applied) => {
                    let mut next = Vec::new();
                    if let Some(controller) = &mut self.controller {
                        controller.applied(&mut self.io, Token::new(tokens::METADATA, FRAME), &mut next);
                    }
                    self.on_controller(next);
                }
            }
        }
        self.mail = mail;
        any
    }

    fn on_ask(&mut self, from: ShardId, ask: Ask) {
        match ask {
            Ask::Engine(token, request) => {
                let who = Requester { shard: from, token };
                match Change::of(request) {
                    Ok(change) => self.change(who, change),
                    Err(request) => self.shard.handle(&mut self.io, who, request),
                }
            }
            Ask::Woken(token, watch) => {
                self.post.reply(from, Answer::Noted);
                self.step(AppEvent::Reply(token, Reply::Woken(watch)));
            }
            Ask::Answered(token, reply) => {
                self.post.reply(from, Answer::Noted);
                self.step(AppEvent::Reply(token, reply));
            }
            Ask::Delivered(deliveries) => {
                self.post.reply(from, Answer::Noted);
                self.step(AppEvent::Delivered(deliveries));
            }
            Ask::Inbound(inbound) => self.shard.inbound(&self.io, *inbound),
            Ask::Forget(queue, seq) => {
                self.post.reply(from, Answer::Noted);
                self.shard.forget(&self.io, queue, seq);
            }
            Ask::Remembers(names) => {
                self.post.reply(from, Answer::Noted);
                self.shard.remembered(&self.io, from, names);
            }
            Ask::ConsumerCancelled(consumer, queue, reason) => {
                self.post.reply(from, Answer::Noted);
                self.step(AppEvent::ConsumerCancelled { consumer, queue, reason });
            }
            Ask::Flow(flows) => {
                self.post.reply(from, Answer::Noted);
                self.step(AppEvent::Flow(flows));
            }
            Ask::Tell(message) => {
                self.post.reply(from, Answer::Noted);
                self.step(AppEvent::Told { from, message });
            }
            Ask::Starved { for_long } => {
                self.post.reply(from, Answer::Noted);
                self.let_go();
                if for_long && self.outbox.now >= self.next_stuck {
                    self.give_up_stuck();
                }
            }
            Ask::Adopt(socket, listener) => {
                self.post.reply(from, Answer::Noted);
                let (peer, local) = (socket.peer, socket.local);
                let conn = self.io.adopt(socket);
                self.connections.insert(conn, Connection::default());
                self.step(AppEvent::Accepted { conn, peer, local, listener });
            }
            Ask::Clear(upto) => {
                self.post.reply(from, Answer::Noted);
                let mut next = Vec::new();
                if let Some(controller) = &mut self.controller {
                    let token = Token::new(tokens::METADATA, FRAME);
                    controller.clear(&mut self.io, token, from, upto, &mut next);
                }
                self.on_controller(next);
            }
            Ask::Apply(metadata) => {
                self.renames = self.shard.apply(&self.io, metadata).into();
                self.outbox.metadata = Arc::clone(self.shard.metadata());
                self.applying = Some(from);
                self.take_outputs();
                self.step(AppEvent::MetadataChanged);
                self.rename_next();
            }
        }
    }

    fn change(&mut self, who: Requester, change: Change) {
        // It gives back its room at once: it is done when every shard has applied it, and those are told by the same way.
        self.post.reply(who.shard, Answer::Noted);
        let mut next = Vec::new();
        match &mut self.controller {
            Some(controller) => {
                controller.submit(&mut self.io, Token::new(tokens::METADATA, FRAME), who, change, &mut next);
            }
            None => panic!("a change of metadata was sent to {:?}", self.shard.id()),
        }
        self.on_controller(next);
    }

    fn on_controller(&mut self, next: Vec<Next>) {
        for next in next {
            match next {
                Next::Reply(who, reply) => self.send(who.shard, Ask::Answered(who.token, reply), None),
                Next::Publish(metadata) => {
                    for shard in 0..metadata.shards {
                        self.send(ShardId(shard), Ask::Apply(Arc::clone(&metadata)), None);
                    }
                }
            }
        }
    }

    /// Renames the next directory of a deleted topic; when none is left, the change is applied here. A removal under way
    /// comes first: once the name is free, another topic may take it.
    fn rename_next(&mut self) {
        self.rename_waits = self.applying.is_some() && self.shard.is_removing();
        if self.rename_waits {
            return;
        }
        if let Some((from, to)) = self.renames.pop_front() {
            self.io.rename(Token::new(tokens::METADATA, RENAME), &from, &to);
        } else if let Some(controller) = self.applying.take() {
            self.shard.departed(std::mem::replace(&mut self.renamed, true));
            self.post.reply(controller, Answer::Applied);
        }
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.shard.take_output() {
            match output {
                shard::Output::Watching(who) => self.post.reply(who.shard, Answer::Noted),
                shard::Output::Reply(who, reply) => {
                    self.post.reply(who.shard, Answer::Engine(who.token, reply));
                }
                shard::Output::Clear(upto) => self.send(CONTROLLER, Ask::Clear(upto), None),
                shard::Output::Ordered(who, reply) => {
                    self.post.reply(who.shard, Answer::Noted);
                    self.send(who.shard, Ask::Answered(who.token, reply), None);
                }
                shard::Output::Delivered(to, deliveries) => self.send(to, Ask::Delivered(deliveries), None),
                shard::Output::ConsumerCancelled(to, consumer, queue, reason) => {
                    self.send(to, Ask::ConsumerCancelled(consumer, queue, reason), None);
                }
                shard::Output::Flow(to, flows) => self.send(to, Ask::Flow(flows), None),
                shard::Output::Inbound(to, inbound) => self.send(to, Ask::Inbound(Box::new(inbound)), None),
                shard::Output::Arrived(to, arrived) => self.post.reply(to, Answer::Arrived(arrived)),
                shard::Output::Forget(to, queue, seq) => self.send(to, Ask::Forget(queue, seq), None),
                shard::Output::Remembers(to, names) => self.send(to, Ask::Remembers(names), None),
                shard::Output::DeadLettered(letter) => self.step(AppEvent::DeadLettered(letter)),
                shard::Output::QueueExpired(queue) => self.step(AppEvent::QueueExpired(queue)),
                shard::Output::Woken(who, watch) => self.send(who.shard, Ask::Woken(who.token, watch), None),
            }
        }
    }

    /// Whether the node stops, and everybody has done what was left to do.
    fn settle(&mut self) -> Turn {
        let Some(since) = self.stopping else { return Turn::Going };
        if self.outbox.now.since(since) > CONNECTIONS_STOP_BOUND {
            for conn in self.connections.keys() {
                self.io.shutdown(*conn);
            }
        }
        let busy = self.controller.as_ref().is_some_and(Controller::is_busy);
        if !self.counted_as_settled && self.shard.is_settled() && self.connections.is_empty() && !busy {
            self.counted_as_settled = true;
            self.shared.settled.fetch_add(1, Ordering::SeqCst);
            for shard in 0..self.shared.connections.len() {
                self.io.wake(ShardId(shard as u16));
            }
        }
        let everybody = self.shared.settled.load(Ordering::SeqCst) == self.shared.connections.len();
        if everybody { Turn::Stopped } else { Turn::Going }
    }
}

/// How long a host may take to end its connections by itself when the node stops.
const CONNECTIONS_STOP_BOUND: Nanos = Nanos::from_millis(3_000);

/// A frame of the metadata log.
const FRAME: u64 = 0;
/// The rename of a deleted topic's directory.
const RENAME: u64 = 1;
