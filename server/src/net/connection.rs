//! One connection: its frames become requests, several of which may be under way, and the answers leave in the order in
//! which the requests came. A plain struct: it can move to another shard.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt::Display;
use std::net::SocketAddr;

use millstream_engine::buffer::{Pool, Slice};
use millstream_engine::io::ConnId;
use millstream_engine::reactor::app::Outbox;
use millstream_engine::shard::request::Reply;
use millstream_engine::time::Nanos;

use super::answers::Answers;
use super::frames::Frames;
use super::send_queue::{Held, Response, SendQueue, SendStep};
use crate::config::ServerConfig;
use crate::coordinator::Answer;
use crate::dispatch::{self, Dispatch, Origin, Pending};
use crate::kafka::{self, Context, Done, Input, Work};
use crate::limits::{
    REQUEST_BYTES_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX, RESPONSE_BYTES_WAITING_MAX, SEND_BYTES,
};
use crate::metrics::BrokerMetrics;

/// What the connections of a shard share during one step.
pub struct Shared<'a> {
    /// The node's settings.
    pub config: &'a ServerConfig,
    /// What is counted.
    pub metrics: &'a BrokerMetrics,
    /// Where requests go.
    pub out: &'a mut Outbox,
    /// Who waits for what.
    pub pending: &'a mut Pending,
    /// What all of them have to send.
    pub answers: &'a mut Answers,
}

/// A request that has not left as an answer.
#[derive(Debug)]
struct InFlight {
    header: kafka::RequestHeader,
    frame_bytes: usize,
    began: Nanos,
    state: State,
}

#[derive(Debug)]
enum State {
    Working(Work),
    Answered(Response),
}

impl InFlight {
    /// Plans the batches of its answer again, if it has one. Gives what that kept.
    fn let_go(&mut self) -> Held {
        match &mut self.state {
            State::Working(_) => Held::default(),
            State::Answered(response) => response.let_go(),
        }
    }
}

/// Whether the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Open,
    /// No more requests are taken; it is closed when those under way are answered.
    Draining,
    /// It was told to close: only that event is awaited.
    Closed,
}

/// A connection's state. The inputs are `received`, `sent`, `slow`, `let_go`, `answered`, `offloaded`, `loaded`, `timer`, `close_if_idle`,
/// `let_in`, `stop`, and last `closed`.
#[derive(Debug)]
pub struct Connection {
    id: ConnId,
    peer: SocketAddr,
    local: SocketAddr,
    life: Life,
    reading: bool,
    frames: Frames,
    /// It will be told when it has seen all that has come in.
    catches_up: bool,
    /// In the order of arrival; the first has the number `first`.
    requests: VecDeque<InFlight>,
    first: u64,
    request_bytes: usize,
    /// What the answers in `requests` keep.
    answered: Held,
    queue: SendQueue,
    /// Bytes of answers that were last counted in [`Answers`].
    counted: usize,
    /// It waits to be let in.
    kept_out: bool,
    /// Since when the send under way has been.
    sending_since: Option<Nanos>,
    /// When the earliest timer that is set runs out.
    timer: Option<Nanos>,
    /// When the peer last sent or took anything.
    active: Nanos,
}

impl Connection {
    /// A connection that was accepted at `now`; its large requests are received into rooms. Reading is on.
    pub fn new(
        id: ConnId,
        peer: SocketAddr,
        local: SocketAddr,
        config: &ServerConfig,
        rooms: Pool,
        now: Nanos,
    ) -> Connection {
        Connection {
            id,
            peer,
            local,
            life: Life::Open,
            reading: true,
            frames: Frames::new(config.request_bytes_max, rooms),
            catches_up: false,
            requests: VecDeque::new(),
            first: 0,
            request_bytes: 0,
            answered: Held::default(),
            queue: SendQueue::default(),
            counted: 0,
            kept_out: false,
            sending_since: None,
            timer: None,
            active: now,
        }
    }

    /// Bytes of memory that hold a request which has arrived in part.
    pub fn partial_bytes(&self) -> usize {
        self.frames.partial_bytes()
    }

    /// Bytes of memory that hold its requests and its answers.
    pub fn held_bytes(&self) -> usize {
        self.partial_bytes() + self.request_bytes + self.answered.bytes() + self.queue.held_bytes()
    }

    /// Bytes of the broker's own in its answers, and since when its peer has taken none, although it is its turn.
    pub fn untaken(&self) -> Option<(usize, Nanos)> {
        Some((self.counted, self.sending_since?))
    }

    /// Closes the connection if its peer has neither sent nor taken anything since `since`, although it is its turn.
    pub fn close_if_idle(&mut self, since: Nanos, shared: &mut Shared<'_>) {
        let ours = self.requests.iter().any(|request| matches!(request.state, State::Working(_)));
        if self.active < since && !ours {
            self.hang_up(&"idle for longer than connections.max.idle.ms", shared);
        }
    }

    /// Bytes came in.
    pub fn received(&mut self, bytes: Slice, shared: &mut Shared<'_>) {
        self.active = shared.out.now();
        if self.life == Life::Open {
            self.frames.push(bytes);
            self.run(shared);
        }
    }

    /// All that has come in so far was seen here: what comes next may go where the rest of a large request belongs.
    pub fn caught_up(&mut self, shared: &mut Shared<'_>) {
        self.catches_up = false;
        if let Some(room) = self.frames.take_room() {
            shared.out.receive_into(self.id, room);
        }
    }

    /// What was sent last has been taken.
    pub fn sent(&mut self, shared: &mut Shared<'_>) {
        self.active = shared.out.now();
        self.sending_since = None;
        self.queue.sent();
        self.run(shared);
    }

    /// What was sent last takes long: of the answers behind it, batches are let go, to be loaded when it is their turn, and
    /// until then no request is begun.
    pub fn slow(&mut self) {
        self.queue.slow();
        for request in &mut self.requests {
            self.answered -= request.let_go();
        }
    }

    /// Others need memory: what has been read and is not being sent keeps none of it, and is loaded when its turn has come.
    pub fn let_go(&mut self) {
        self.queue.let_go();
        for request in &mut self.requests {
            if let State::Working(work) = &mut request.state {
                work.let_go();
            }
            self.answered -= request.let_go();
        }
    }

    /// A shard has answered a part of a request.
    pub fn answered(&mut self, number: u64, part: u32, reply: Reply, shared: &mut Shared<'_>) {
        self.input(number, Input::Reply(part, reply), shared);
        self.run(shared);
    }

    /// A coordinator has answered a part of a request.
    pub fn coordinated(&mut self, number: u64, part: u32, answer: Answer, shared: &mut Shared<'_>) {
        self.input(number, Input::Coordinated(part, answer), shared);
        self.run(shared);
    }

    /// A helper has finished a part of a request.
    pub fn offloaded(
        &mut self,
        number: u64,
        part: u32,
        result: Box<dyn Any + Send>,
        shared: &mut Shared<'_>,
    ) {
        self.input(number, Input::Offloaded(part, result), shared);
        self.run(shared);
    }

    /// The chunk that the send queue asked for, or why there is none.
    pub fn loaded(&mut self, reply: Reply, shared: &mut Shared<'_>) {
        if self.life == Life::Closed {
            return;
        }
        match reply {
            Reply::Loaded(chunk) => self.queue.loaded(chunk),
            // The answer's head has been sent, so there is no way left to say it.
            Reply::Refused(refusal) => {
                self.hang_up(&format_args!("a fetch could not be finished: {refusal}"), shared);
            }
            other => panic!("a load was answered {other:?}"),
        }
        self.run(shared);
    }

    /// A timer of this connection has run out.
    pub fn timer(&mut self, shared: &mut Shared<'_>) {
        let now = shared.out.now();
        if self.timer.is_some_and(|at| at <= now) {
            self.timer = None;
        }
        for number in self.numbers() {
            if self.deadline(number).is_some_and(|at| at <= now) {
                self.input(number, Input::Deadline, shared);
            } else {
                self.arm(number, shared);
            }
        }
        self.run(shared);
    }

    /// There is room for what this connection asks: see [`Answers`].
    pub fn let_in(&mut self, shared: &mut Shared<'_>) {
        self.kept_out = false;
        self.run(shared);
    }

    /// The node stops: what waits for news is answered without, nothing more is taken, and then it is over.
    pub fn stop(&mut self, shared: &mut Shared<'_>) {
        self.drain();
        for number in self.numbers() {
            self.input(number, Input::Stopping, shared);
        }
        self.run(shared);
    }

    /// The connection is over: what is under way for it is given up.
    pub fn closed(&mut self, shared: &mut Shared<'_>) {
        self.life = Life::Closed;
        for number in self.numbers() {
            self.input(number, Input::Gone, shared);
        }
        self.requests.clear();
        self.answered = Held::default();
        self.queue = SendQueue::default();
        self.frames.clear();
        self.count(shared);
    }

    /// Closes the connection at once and says why in the log.
    pub fn hang_up(&mut self, reason: &dyn Display, shared: &mut Shared<'_>) {
        if self.life != Life::Closed {
            tracing::info!(peer = %self.peer, "connection closed: {reason}");
            self.closed(shared);
            shared.out.close(self.id);
        }
    }

    /// The numbers of the requests in flight.
    fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.requests.len() as u64
    }

    fn request(&mut self, number: u64) -> Option<&mut InFlight> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.requests.get_mut(index)
    }

    /// Until when a request waits for news, if it does.
    fn deadline(&mut self, number: u64) -> Option<Nanos> {
        match &self.request(number)?.state {
            State::Working(work) => work.deadline(),
            State::Answered(_) => None,
        }
    }

    /// Hands something that happened to the request it happened to, which may have been answered long ago.
    fn input(&mut self, number: u64, input: Input, shared: &mut Shared<'_>) {
        let (id, peer, local) = (self.id, self.peer, self.local);
        let Some(request) = self.request(number) else { return };
        let State::Working(work) = &mut request.state else { return };
        let engine = Dispatch::new(shared.out, shared.pending, id, number);
        let header = request.header;
        let mut context =
            Context { config: shared.config, metrics: shared.metrics, peer, local, header, engine };
        let done = work.on(input, &mut context);
        self.progress(number, done, shared);
    }

    /// Notes how far a request has come.
    fn progress(&mut self, number: u64, done: Option<Done>, shared: &mut Shared<'_>) {
        match done {
            None => self.arm(number, shared),
            Some(Done::Answer(mut response, errors)) => {
                if self.queue.is_slow() {
                    let _ = response.let_go();
                }
                self.answered += response.held();
                let request = self.request(number).expect("it has just been worked on");
                request.state = State::Answered(response);
                let (header, took) = (request.header, shared.out.now().since(request.began));
                kafka::note_answer(shared.metrics, header, errors, took);
            }
            Some(Done::HangUp(reason)) => {
                let request = self.request(number).expect("it has just been worked on");
                kafka::note_hang_up(shared.metrics, request.header);
                self.hang_up(&reason, shared);
            }
        }
    }

    /// Sets a timer for a request that waits, unless one that is set runs out before.
    fn arm(&mut self, number: u64, shared: &mut Shared<'_>) {
        let Some(deadline) = self.deadline(number).filter(|_| self.life != Life::Closed) else { return };
        if self.timer.is_none_or(|at| deadline < at) {
            self.timer = Some(deadline);
            dispatch::set_timer(shared.out, shared.pending, Origin::Timer(self.id), deadline);
        }
    }

    /// Takes no more requests.
    fn drain(&mut self) {
        if self.life == Life::Open {
            self.life = Life::Draining;
            self.frames.clear();
        }
    }

    /// Moves everything as far as it goes.
    fn run(&mut self, shared: &mut Shared<'_>) {
        // What the kernel has taken makes room, and perhaps for this very connection.
        self.count(shared);
        loop {
            self.take_requests(shared);
            if !self.settle() {
                break;
            }
        }
        self.send(shared);
        self.count(shared);
        self.regulate(shared);
        if self.frames.has_room() && !std::mem::replace(&mut self.catches_up, true) {
            shared.out.catch_up(self.id);
        }
    }

    /// Counts its answers among those of the shard.
    fn count(&mut self, shared: &mut Shared<'_>) {
        let bytes = self.answered.own + self.queue.own_bytes();
        shared.answers.count(self.counted, bytes);
        self.counted = bytes;
    }

    /// Whether nothing is under way for it.
    fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.queue.is_idle()
    }

    fn has_room(&self, answers: &Answers) -> bool {
        !self.queue.is_slow()
            && self.requests.len() < REQUESTS_IN_FLIGHT_MAX
            && self.request_bytes < REQUEST_BYTES_IN_FLIGHT_MAX
            && self.answered.bytes() + self.queue.held_bytes() < RESPONSE_BYTES_WAITING_MAX
            // One that waits for long, and alone, leaves reading on: else nobody would see that its client has gone.
            && self.promised_bytes() <= RESPONSE_BYTES_WAITING_MAX
            && answers.admit(self.is_idle())
    }

    /// Bytes of answers to come.
    fn promised_bytes(&self) -> usize {
        let promised = |request: &InFlight| match &request.state {
            State::Working(work) => work.answer_bytes_max(),
            State::Answered(_) => 0,
        };
        self.requests.iter().map(promised).sum()
    }

    /// Starts as many requests as have arrived and have room.
    fn take_requests(&mut self, shared: &mut Shared<'_>) {
        while self.life == Life::Open && self.has_room(shared.answers) {
            match self.frames.next_frame() {
                Ok(Some(frame)) => self.begin(&frame, shared),
                Ok(None) => break,
                Err(error) => self.refuse(&error),
            }
        }
    }

    fn begin(&mut self, frame: &Slice, shared: &mut Shared<'_>) {
        let (header, mut work) = match kafka::read_request(frame) {
            Ok(request) => request,
            Err(reason) => return self.refuse(&reason),
        };
        let number = self.first + self.requests.len() as u64;
        let engine = Dispatch::new(shared.out, shared.pending, self.id, number);
        let mut context = Context {
            config: shared.config,
            metrics: shared.metrics,
            peer: self.peer,
            local: self.local,
            header,
            engine,
        };
        context.began();
        let done = work.start(&mut context);
        self.request_bytes += frame.len();
        self.requests.push_back(InFlight {
            header,
            frame_bytes: frame.len(),
            began: shared.out.now(),
            state: State::Working(work),
        });
        self.progress(number, done, shared);
        self.count(shared);
    }

    /// What came is not Kafka's protocol: earlier requests are still answered, then the connection is closed.
    fn refuse(&mut self, reason: &dyn Display) {
        tracing::info!(peer = %self.peer, "connection closed: {reason}");
        self.drain();
    }

    /// Moves answers whose turn it is to the send queue, as long as that is short. Says whether any was.
    fn settle(&mut self) -> bool {
        let mut moved = false;
        while self.queue.held_bytes() < SEND_BYTES
            && let Some(InFlight { state: State::Answered(response), frame_bytes, .. }) =
                self.requests.front_mut()
        {
            let response = std::mem::take(response);
            self.request_bytes -= *frame_bytes;
            self.answered -= response.held();
            self.queue.push(response);
            self.requests.pop_front();
            self.first += 1;
            moved = true;
        }
        moved
    }

    fn send(&mut self, shared: &mut Shared<'_>) {
        if self.life == Life::Closed {
            return;
        }
        match self.queue.next_step() {
            None => {}
            Some(SendStep::Send(slices, records)) => {
                shared.metrics.records_out.add(records);
                shared.metrics.sent.add(slices.iter().map(|slice| slice.len() as u64).sum());
                self.sending_since = Some(shared.out.now());
                shared.out.send(self.id, slices);
            }
            Some(SendStep::Load(range)) => {
                if let Err(refusal) = dispatch::load(shared.out, shared.pending, self.id, range) {
                    self.hang_up(&format_args!("a fetch could not be finished: {refusal}"), shared);
                }
            }
        }
    }

    /// Turns reading on or off, and closes what has been drained.
    fn regulate(&mut self, shared: &mut Shared<'_>) {
        if self.life == Life::Closed {
            return;
        }
        let reading = self.life == Life::Open && self.has_room(shared.answers);
        if reading != self.reading {
            self.reading = reading;
            shared.out.read(self.id, reading);
        }
        let idle = self.is_idle();
        let kept_out = self.life == Life::Open && !shared.answers.admit(idle);
        if kept_out && !std::mem::replace(&mut self.kept_out, true) {
            shared.answers.keep_out(self.id, idle);
        }
        if self.life == Life::Draining && self.requests.is_empty() && self.queue.is_idle() {
            self.closed(shared);
            shared.out.close(self.id);
        }
    }
}
