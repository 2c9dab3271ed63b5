//! The null endpoint's part of a shard: connections, and fetches that wait for something to come.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millstream::net::Frames;
use millstream_engine::buffer::{Pool, Slice};
use millstream_engine::io::ConnId;
use millstream_engine::reactor::app::{App, AppEvent, AppToken, Outbox};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use super::amqp::{Amqp, Deliveries};
use super::kafka::{self, Fetch, Outcome};
use super::stall::Stall;
use super::store::Store;
use crate::measure::Problem;

/// The largest request.
const REQUEST_BYTES_MAX: usize = 100 << 20;
/// What large requests are received into, all together.
const ROOMS_BYTES: usize = 256 << 20;

/// One per shard.
pub struct NullApp {
    store: Arc<Store>,
    conns: BTreeMap<ConnId, Conn>,
    stall: Option<Stall>,
    /// Memory that large requests are received into, as in the broker.
    rooms: Pool,
}

struct Conn {
    local: SocketAddr,
    /// Whether it speaks AMQP; not known before it has said anything.
    amqp: Option<Amqp>,
    heard: bool,
    /// It will be told when it has seen all that has come in.
    catches_up: bool,
    frames: Frames,
    /// What waits to be sent.
    queue: VecDeque<Vec<Slice>>,
    sending: bool,
    /// A fetch that waits, and until when. Nothing behind it is looked at.
    waiting: Option<(Fetch, Nanos)>,
}

impl Conn {
    fn pump(&mut self, id: ConnId, out: &mut Outbox) {
        if !self.sending && !self.queue.is_empty() {
            self.sending = true;
            out.send(id, self.queue.drain(..).flatten().collect());
        }
    }
}

/// Says that there may be something to fetch.
struct Appended;

/// Brings messages to a consumer.
struct Delivered(ConnId, Vec<Vec<u8>>);

/// What AMQP begins with; a Kafka request that did would be a gigabyte long.
const AMQP: &[u8] = b"AMQP";

impl NullApp {
    /// One that shares what is known with the others.
    pub fn new(store: Arc<Store>, stall: Option<Stall>) -> NullApp {
        NullApp { store, conns: BTreeMap::new(), stall, rooms: Pool::new(ROOMS_BYTES) }
    }

    /// Takes what has come on a connection.
    fn received(&mut self, id: ConnId, bytes: Slice, out: &mut Outbox) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !conn.heard {
            conn.heard = true;
            conn.amqp = bytes.starts_with(AMQP).then(Amqp::default);
        }
        let Some(amqp) = &mut conn.amqp else {
            conn.frames.push(bytes);
            return self.serve_or_close(id, out);
        };
        let mut deliveries = Deliveries::new();
        let taken = amqp.take(&bytes, &self.store, (out.shard(), id), &mut deliveries);
        let answer = amqp.out();
        if !answer.is_empty() {
            conn.queue.push_back(vec![Slice::from(answer)]);
        }
        conn.pump(id, out);
        if let Err(problem) = taken {
            eprintln!("millbench null: {problem}");
            out.close(id);
        }
        for ((shard, consumer), contents) in deliveries {
            if shard == out.shard() {
                self.deliver(consumer, &contents, out);
            } else {
                out.tell(shard, Box::new(Delivered(consumer, contents)), Some(id));
            }
        }
    }

    /// Messages for a consumer of this shard.
    fn deliver(&mut self, id: ConnId, contents: &[Vec<u8>], out: &mut Outbox) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(amqp) = &mut conn.amqp else { return };
        amqp.deliver(contents);
        if !conn.sending {
            conn.queue.push_back(vec![Slice::from(amqp.out())]);
            conn.pump(id, out);
        }
    }

    /// Answers what a connection has asked, and says whether something was appended.
    fn serve(&mut self, id: ConnId, out: &mut Outbox) -> Result<bool, Problem> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(false) };
        let mut appended = false;
        while conn.waiting.is_none()
            && let Some(frame) = conn.frames.next_frame()?
        {
            let done = kafka::request(&frame, &self.store, conn.local)?;
            appended |= done.appended;
            match done.outcome {
                Outcome::Answer(slices) => conn.queue.push_back(slices),
                Outcome::Silence => {}
                Outcome::Wait(fetch) => {
                    let until = out.now() + Nanos::from_millis(fetch.max_wait_ms.max(0) as u64);
                    out.set_timer(AppToken(0), until);
                    conn.waiting = Some((fetch, until));
                    waits(&self.store, out.shard(), 1);
                }
            }
        }
        if conn.frames.has_room() && !std::mem::replace(&mut conn.catches_up, true) {
            out.catch_up(id);
        }
        conn.pump(id, out);
        Ok(appended)
    }

    fn serve_or_close(&mut self, id: ConnId, out: &mut Outbox) {
        match self.serve(id, out) {
            Ok(false) => {}
            Ok(true) => self.appended(out),
            Err(problem) => {
                eprintln!("millbench null: {problem}");
                out.close(id);
            }
        }
    }

    /// Has every fetch that waits, on any shard, look again.
    fn appended(&mut self, out: &mut Outbox) {
        for (shard, waiting) in self.store.waiting().iter().enumerate() {
            let shard = ShardId(shard as u16);
            if shard != out.shard() && waiting.load(Ordering::Relaxed) > 0 {
                out.tell(shard, Box::new(Appended), None);
            }
        }
        self.look(out);
    }

    /// Answers fetches that wait, if they have waited enough or there is something.
    fn look(&mut self, out: &mut Outbox) {
        let now = out.now();
        let mut answered = Vec::new();
        for (id, conn) in &mut self.conns {
            let Some((fetch, until)) = &conn.waiting else { continue };
            if let Some(slices) = fetch.answer(now >= *until) {
                conn.waiting = None;
                conn.queue.push_back(slices);
                conn.pump(*id, out);
                answered.push(*id);
            }
        }
        for id in answered {
            waits(&self.store, out.shard(), -1);
            self.serve_or_close(id, out);
        }
    }
}

/// Notes that a fetch of a shard waits, or does not any more.
fn waits(store: &Store, shard: ShardId, more: isize) {
    if let Some(waiting) = store.waiting().get(usize::from(shard.0)) {
        waiting.fetch_add(more.cast_unsigned(), Ordering::Relaxed);
    }
}

impl App for NullApp {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        if let Some(pause) = self.stall.as_mut().and_then(|stall| stall.due(out.now())) {
            std::thread::sleep(pause);
        }
        match event {
            AppEvent::Accepted { conn, local, .. } => {
                let frames = Frames::new(REQUEST_BYTES_MAX, self.rooms.clone());
                let state = Conn {
                    local,
                    amqp: None,
                    heard: false,
                    catches_up: false,
                    frames,
                    queue: VecDeque::new(),
                    sending: false,
                    waiting: None,
                };
                self.conns.insert(conn, state);
            }
            AppEvent::Received(conn, bytes) => {
                self.received(conn, bytes, out);
            }
            AppEvent::CaughtUp(conn) => {
                let Some(state) = self.conns.get_mut(&conn) else { return };
                state.catches_up = false;
                if let Some(room) = state.frames.take_room() {
                    out.receive_into(conn, room);
                }
            }
            AppEvent::SendDone(conn) => {
                if let Some(state) = self.conns.get_mut(&conn) {
                    state.sending = false;
                    let more = state.amqp.as_mut().map(Amqp::out).filter(|more| !more.is_empty());
                    state.queue.extend(more.map(|more| vec![Slice::from(more)]));
                    state.pump(conn, out);
                }
            }
            AppEvent::Closed(conn, _) => {
                let Some(state) = self.conns.remove(&conn) else { return };
                if state.waiting.is_some() {
                    waits(&self.store, out.shard(), -1);
                }
                if state.amqp.is_some() {
                    self.store.forget_consumer((out.shard(), conn));
                }
            }
            AppEvent::Timer(_) => self.look(out),
            AppEvent::Told { message, .. } => match message.downcast::<Delivered>() {
                Ok(delivered) => self.deliver(delivered.0, &delivered.1, out),
                Err(_) => self.look(out),
            },
            // It asks the engine for nothing, and has nothing to end.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use millstream_engine::format::batch::BatchBuilder;
    use millstream_engine::reactor::app::Output;
    use millstream_engine::shard::metadata::Metadata;

    use super::*;
    use crate::kafka::wire::{Answer, check};
    use crate::log::wire;
    use crate::queue::codec::{Frame, HEADER, Writer, frame_len};

    struct Shard {
        app: NullApp,
        out: Outbox,
    }

    impl Shard {
        fn new(store: &Arc<Store>, number: u16) -> Shard {
            let out = Outbox::new(ShardId(number), Arc::new(Metadata::default()));
            Shard { app: NullApp::new(Arc::clone(store), None), out }
        }

        fn accept(&mut self, conn: u64) -> ConnId {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            let conn = ConnId(conn);
            self.app.step(AppEvent::Accepted { conn, peer: any, local: any, listener: 0 }, &mut self.out);
            conn
        }

        /// What is sent on a connection, if anything, after a request.
        fn ask(&mut self, conn: ConnId, request: &[u8]) -> Vec<u8> {
            self.app.step(AppEvent::Received(conn, Slice::from(request.to_vec())), &mut self.out);
            self.sent(conn)
        }

        /// What is sent on a connection, as one frame of Kafka's without its length.
        fn sent(&mut self, conn: ConnId) -> Vec<u8> {
            let mut bytes = self.raw(conn);
            if !bytes.is_empty() {
                let len = u32::from_be_bytes(*bytes.first_chunk().unwrap());
                assert_eq!(len as usize + 4, bytes.len());
                bytes.drain(..4);
            }
            bytes
        }

        fn raw(&mut self, conn: ConnId) -> Vec<u8> {
            let mut bytes = Vec::new();
            for output in self.out.take() {
                if let Output::Send(to, slices) = output
                    && to == conn
                {
                    bytes.extend(slices.iter().flat_map(|slice| slice.iter().copied()));
                    self.app.step(AppEvent::SendDone(conn), &mut self.out);
                }
            }
            bytes
        }
    }

    fn batch() -> Vec<u8> {
        BatchBuilder::new(0).push(None, Some(b"value")).build()
    }

    const SIZE: wire::FetchSize =
        wire::FetchSize { max_wait_ms: 500, min_bytes: 1, max_bytes: 1000, partition_max_bytes: 1000 };

    #[test]
    fn a_fetch_that_waits_is_answered_by_a_batch_that_comes_on_another_shard() {
        let store = Arc::new(Store::new(2));
        let (mut here, mut there) = (Shard::new(&store, 0), Shard::new(&store, 1));
        let (producer, consumer) = (here.accept(1), there.accept(2));
        here.ask(producer, &wire::create("t", 2, &[]));
        assert!(there.ask(consumer, &wire::fetch("t", SIZE, &[(0, 0), (1, 0)])).is_empty());
        there.out.take();
        let bytes = batch();
        here.app.step(
            AppEvent::Received(producer, Slice::from(wire::produce("t", -1, [(1, &bytes[..])].into_iter()))),
            &mut here.out,
        );
        let told = here
            .out
            .take()
            .into_iter()
            .any(|output| matches!(output, Output::Tell { shard: ShardId(1), .. }));
        assert!(told);
        there.app.step(AppEvent::Told { from: ShardId(0), message: Box::new(Appended) }, &mut there.out);
        let answer = there.sent(consumer);
        let mut lens = Vec::new();
        wire::fetched(&mut Answer::of(&answer).unwrap(), |fetched| {
            lens.push((fetched.partition, fetched.bytes.len()));
            check(fetched.error)
        })
        .unwrap();
        assert_eq!(lens, [(0, 0), (1, bytes.len())]);
    }

    #[test]
    fn a_fetch_waits_no_longer_than_it_may() {
        let store = Arc::new(Store::new(1));
        let mut shard = Shard::new(&store, 0);
        let conn = shard.accept(1);
        shard.ask(conn, &wire::create("t", 1, &[]));
        assert!(shard.ask(conn, &wire::fetch("t", SIZE, &[(0, 0)])).is_empty());
        shard.out.set_clocks(Nanos::from_millis(501), millstream_engine::time::WallMs(0));
        shard.app.step(AppEvent::Timer(AppToken(0)), &mut shard.out);
        assert!(!shard.sent(conn).is_empty());
    }

    #[test]
    fn the_topic_of_a_load_can_be_asked_for() {
        let store = Arc::new(Store::new(1));
        let mut shard = Shard::new(&store, 0);
        let conn = shard.accept(1);
        shard.ask(conn, &wire::create("t", 3, &[]));
        let answer = shard.ask(conn, &wire::metadata("t"));
        let topic = wire::described(&mut Answer::of(&answer).unwrap()).unwrap();
        assert_eq!((topic.error, topic.leaders), (0, vec![0, 0, 0]));
        let bytes = batch();
        let answer = shard.ask(conn, &wire::produce("t", -1, [(2, &bytes[..])].into_iter()));
        wire::produced(&mut Answer::of(&answer).unwrap()).unwrap();
        assert!(shard.ask(conn, &wire::produce("t", 0, [(2, &bytes[..])].into_iter())).is_empty(), "acks=0");
        let answer = shard.ask(conn, &wire::list_offsets("t", 3, wire::LATEST));
        assert_eq!(wire::listed(&mut Answer::of(&answer).unwrap()).unwrap(), [(0, 0), (0, 0), (0, 2)]);
        let answer = shard.ask(conn, &wire::delete("t"));
        assert_eq!(wire::deleted(&mut Answer::of(&answer).unwrap()).unwrap(), 0);
        assert!(store.topic("t").is_none());
    }

    /// Asks over AMQP, as one that says hello first.
    fn amqp(shard: &mut Shard, conn: ConnId, what: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        what(&mut writer);
        shard.app.step(AppEvent::Received(conn, Slice::from(writer.0)), &mut shard.out);
        shard.raw(conn)
    }

    #[test]
    fn a_message_goes_to_a_consumer_on_another_shard_and_is_confirmed() {
        let store = Arc::new(Store::new(2));
        let (mut here, mut there) = (Shard::new(&store, 0), Shard::new(&store, 1));
        let (publisher, consumer) = (here.accept(1), there.accept(2));
        for (shard, conn) in [(&mut here, publisher), (&mut there, consumer)] {
            let hello = amqp(shard, conn, |writer| writer.0.extend(HEADER));
            assert_eq!(Frame::parse(&hello).unwrap(), Frame::Start);
        }
        assert_eq!(Frame::parse(&amqp(&mut here, publisher, Writer::confirm_select)).unwrap(), Frame::Done);
        let consumed = amqp(&mut there, consumer, |writer| writer.consume("q", false));
        assert_eq!(Frame::parse(&consumed).unwrap(), Frame::Done);
        let mut messages = Writer::default();
        messages.publish("q", true, b"one", 4096);
        messages.publish("q", true, b"two", 4096);
        // They arrive in two pieces that are no frames.
        let (first, second) = messages.0.split_at(50);
        here.app.step(AppEvent::Received(publisher, Slice::from(first.to_vec())), &mut here.out);
        assert!(here.raw(publisher).is_empty());
        here.app.step(AppEvent::Received(publisher, Slice::from(second.to_vec())), &mut here.out);
        let outputs = here.out.take();
        let mut confirmed = Vec::new();
        for output in outputs {
            match output {
                Output::Send(_, slices) => confirmed.extend(slices.iter().flat_map(|slice| slice.to_vec())),
                Output::Tell { shard: ShardId(1), message, .. } => {
                    there.app.step(AppEvent::Told { from: ShardId(0), message }, &mut there.out);
                }
                _ => {}
            }
        }
        assert_eq!(Frame::parse(&confirmed).unwrap(), Frame::Ack { tag: 2, multiple: true });
        let delivered = there.raw(consumer);
        let mut rest = &delivered[..];
        let mut bodies = Vec::new();
        while let Some(len) = frame_len(rest) {
            if let Frame::Body(body) = Frame::parse(&rest[..len]).unwrap() {
                bodies.push(body);
            }
            rest = &rest[len..];
        }
        assert_eq!(bodies, [b"one", b"two"]);
    }
}
