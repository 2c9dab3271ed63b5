//! A node of one shard in a simulated world, asked one thing at a time: the production boot, recovery and reactor under
//! tests that care about what is on the disk, not about who interleaves with whom.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use millstream_engine::buffer::{Pool, Slice};
use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::error::Fatal;
use millstream_engine::format::batch::{BatchBuilder, BatchHeader, HEADER_BYTES, records_in};
use millstream_engine::format::settings::to_pairs;
use millstream_engine::io::sim::{SimIo, SimPeer, World};
use millstream_engine::io::{Blocking, ConnId};
use millstream_engine::metrics::{Reader, ShardMetrics};
use millstream_engine::reactor::app::{App, AppEvent, AppToken, Outbox};
use millstream_engine::reactor::boot::{Boot, boot, finish};
use millstream_engine::reactor::reshard::reshard;
use millstream_engine::reactor::{Reactor, Shared, Turn};
use millstream_engine::shard::Shard;
use millstream_engine::shard::controller::Controller;
use millstream_engine::shard::mailbox::{mesh, slots};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Durability, Offset, PartitionId, ShardId, TopicId};

const SHARD: ShardId = ShardId(0);
/// How often the host looks whether it was given something to ask.
const LOOK: Nanos = Nanos::from_millis(1);
/// Turns after which an answer is given up.
const PATIENCE: u32 = 100_000;
const BOOT_BYTES: usize = 256 << 20;

/// The settings of a small node.
pub fn config() -> Config {
    Config {
        journal_bytes: 4 << 20,
        journal_file_bytes: 1 << 20,
        metadata_log_bytes: 64 << 10,
        disk_free_min_bytes: 0,
        pinned_bytes: 1 << 20,
        ..Config::default()
    }
}

/// What the test and the host share.
#[derive(Default)]
struct Wire {
    requests: VecDeque<Request>,
    replies: VecDeque<Reply>,
    /// What else it was told.
    events: VecDeque<AppEvent>,
    /// Connections that were accepted.
    connections: Vec<ConnId>,
    /// What is to be sent on them.
    sends: VecDeque<(ConnId, Vec<Slice>)>,
}

/// Asks what it is given, and keeps what it is answered. Connections that take nothing are closed when that is asked.
struct Host {
    wire: Rc<RefCell<Wire>>,
}

impl App for Host {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        match event {
            AppEvent::Started | AppEvent::Timer(_) => {
                for request in self.wire.borrow_mut().requests.drain(..) {
                    out.engine(AppToken(0), SHARD, request, None);
                }
                for (conn, slices) in self.wire.borrow_mut().sends.drain(..) {
                    out.send(conn, slices);
                }
                let next = out.now() + LOOK;
                out.set_timer(AppToken(0), next);
            }
            AppEvent::Stuck(conn) => out.close(conn),
            AppEvent::Accepted { conn, .. } => self.wire.borrow_mut().connections.push(conn),
            AppEvent::Reply(_, reply) => self.wire.borrow_mut().replies.push_back(reply),
            AppEvent::Delivered(_)
            | AppEvent::ConsumerCancelled { .. }
            | AppEvent::Flow(_)
            | AppEvent::DeadLettered(_)
            | AppEvent::QueueExpired(_) => self.wire.borrow_mut().events.push_back(event),
            _ => {}
        }
    }
}

/// The node.
pub struct Solo {
    world: World,
    reactor: Reactor<SimIo, Host>,
    wire: Rc<RefCell<Wire>>,
    shared: Arc<Shared>,
    boot: Boot,
}

impl Solo {
    /// Starts it on the world's disk, as a node does.
    pub fn start(world: &World, config: Config) -> Result<Solo, Fatal> {
        let config = Arc::new(config);
        let mut io = world.io(SHARD);
        let found = boot(&mut Blocking::new(&mut io, Pool::new(BOOT_BYTES)), &config)?;
        let boot = reshard(&mut io, found, &config, &Pool::new(BOOT_BYTES))?;
        let metadata = Arc::clone(&boot.metadata);
        let (shard, _) =
            Shard::recover(&mut io, SHARD, &boot.manifest, Arc::clone(&config), Arc::clone(&metadata))?;
        let pool = Pool::new(BOOT_BYTES);
        let controller =
            Controller::start(&mut Blocking::new(&mut io, pool.clone()), metadata, &config, pool)?;
        let wire = Rc::new(RefCell::new(Wire::default()));
        let shared = Arc::new(Shared::new(1));
        let post = mesh(1, slots(1)).pop().expect("there is one shard");
        let host = Host { wire: Rc::clone(&wire) };
        let reactor = Reactor::new(io, shard, Some(controller), host, post, Arc::clone(&shared));
        Ok(Solo { world: world.clone(), reactor, wire, shared, boot })
    }

    /// Asks one thing, and waits for the answer.
    pub fn ask(&mut self, request: Request) -> Reply {
        self.try_ask(request).expect("the machine runs")
    }

    /// Asks one thing, and waits for the answer; `None` if the machine dies before it comes.
    pub fn try_ask(&mut self, request: Request) -> Option<Reply> {
        self.begin(request);
        self.answer()
    }

    /// Asks one thing, to be answered when it likes.
    pub fn begin(&mut self, request: Request) {
        self.wire.borrow_mut().requests.push_back(request);
    }

    /// Waits for the answer to what was asked; `None` if the machine dies before it comes.
    pub fn answer(&mut self) -> Option<Reply> {
        for _ in 0..PATIENCE {
            if self.world.halted() {
                return None;
            }
            if let Some(reply) = self.wire.borrow_mut().replies.pop_front() {
                return Some(reply);
            }
            self.reactor.turn(true);
        }
        panic!("no answer came");
    }

    /// Shows what the host was told of queues; what `take` gives back stays.
    pub fn events(&mut self, take: impl FnMut(AppEvent) -> Option<AppEvent>) {
        let events = std::mem::take(&mut self.wire.borrow_mut().events);
        self.wire.borrow_mut().events = events.into_iter().filter_map(take).collect();
    }

    /// Lets time pass.
    pub fn pass(&mut self, span: Nanos) {
        let until = self.world.now() + span;
        while self.world.now() < until && !self.world.halted() {
            self.reactor.turn(true);
        }
    }

    /// Lets it do one turn.
    pub fn turn(&mut self) {
        self.reactor.turn(true);
    }

    /// Ends it in good order.
    pub fn stop(mut self) -> Result<(), Fatal> {
        self.shared.stop();
        for _ in 0..PATIENCE {
            if self.reactor.turn(true) == Turn::Stopped {
                drop(self.reactor);
                let mut io = self.world.io(SHARD);
                return finish(&mut Blocking::new(&mut io, Pool::new(BOOT_BYTES)), &self.boot.manifest);
            }
        }
        panic!("it does not stop");
    }

    /// A client that has connected, and what the host knows it by.
    pub fn connect(&mut self) -> (ConnId, SimPeer) {
        if self.reactor.listening(0).is_none() {
            self.reactor.listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        }
        let address = loop {
            match self.reactor.listening(0) {
                Some(outcome) => break *outcome.as_ref().expect("every port is free"),
                None => drop(self.reactor.turn(true)),
            }
        };
        let peer = self.world.connect(address);
        let before = self.wire.borrow().connections.len();
        while self.wire.borrow().connections.len() == before {
            self.reactor.turn(true);
        }
        let conn = *self.wire.borrow().connections.last().expect("one was accepted");
        (conn, peer)
    }

    /// Sends on a connection.
    pub fn send(&mut self, conn: ConnId, slices: Vec<Slice>) {
        self.wire.borrow_mut().sends.push_back((conn, slices));
    }

    /// The shard.
    pub fn shard(&self) -> &Shard<SimIo> {
        self.reactor.shard()
    }

    /// What the shard tells of itself.
    pub fn metrics(&mut self) -> Reader<ShardMetrics> {
        self.reactor.metrics()
    }

    /// The topics that there are, by name.
    pub fn topic(&self, name: &str) -> TopicId {
        self.reactor.shard().metadata().topic(name).expect("the topic is there").id
    }

    /// Makes a topic.
    pub fn create(&mut self, name: &str, partitions: u32, config: TopicConfig) -> TopicId {
        let settings = to_pairs(&config);
        let request = Request::CreateTopic { name: name.to_owned(), partitions: Some(partitions), settings };
        match self.ask(request) {
            Reply::TopicCreated(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Stores one record, durably.
    pub fn append(&mut self, partition: PartitionId, value: &[u8]) -> Offset {
        self.try_append(partition, value).expect("the machine runs")
    }

    /// The same; `None` if the machine dies before it is answered.
    pub fn try_append(&mut self, partition: PartitionId, value: &[u8]) -> Option<Offset> {
        let timestamp = 1_700_000_000_000 + (self.world.now().0 / 1_000_000) as i64;
        let batch = BatchBuilder::new(timestamp).push(None, Some(value)).build();
        let batch = Slice::from(batch);
        match self.try_ask(Request::Append { partition, batch, durability: Durability::Durable })? {
            Reply::Appended(appended) => Some(appended.base_offset),
            other => panic!("{other:?}"),
        }
    }

    /// Every value of a partition from its start on, or the refusal that a read came to.
    pub fn read_all(&mut self, partition: PartitionId) -> Result<Vec<Vec<u8>>, Reply> {
        let mut values = Vec::new();
        let mut offset = Offset(0);
        loop {
            let chunk = match self.ask(Request::Read { partition, offset, max_bytes: 1 << 20 }) {
                Reply::Read(read) => read.chunk,
                other => return Err(other),
            };
            let mut bytes: Vec<u8> = chunk.bytes.iter().flat_map(|slice| slice.to_vec()).collect();
            let mut rest = chunk.rest();
            while let Some(range) = rest {
                match self.ask(Request::Load(range)) {
                    Reply::Loaded(more) => {
                        for slice in &more.bytes {
                            bytes.extend_from_slice(slice);
                        }
                        rest = more.rest();
                    }
                    other => return Err(other),
                }
            }
            let before = values.len();
            offset = take_values(&bytes, offset, &mut values);
            if values.len() == before {
                return Ok(values);
            }
        }
    }
}

/// Takes the values out of whole batches; gives the offset behind them.
pub fn take_values(mut bytes: &[u8], mut offset: Offset, values: &mut Vec<Vec<u8>>) -> Offset {
    while let Ok(header) = BatchHeader::parse(bytes) {
        let batch = bytes.split_off(..header.size).expect("whole batches are read");
        for record in records_in(&batch[HEADER_BYTES..], header.records) {
            values.push(record.expect("stored records are sound").value.unwrap_or_default().to_vec());
        }
        offset = header.next_offset();
    }
    offset
}
