//! Bugs on purpose, planted between the engine and its world: each must be noticed by the checkers.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use millstream_engine::buffer::{Block, Slice};
use millstream_engine::error::IoError;
use millstream_engine::format::checkpoint::Checkpoint;
use millstream_engine::io::sim::SimIo;
use millstream_engine::io::{Bell, ConnId, DiskDone, Event, FileId, Io, Job, OpenMode, Socket, Token, Wait};
use millstream_engine::shard::tokens;
use millstream_engine::time::{Nanos, WallMs};
use millstream_engine::types::ShardId;

/// A bug to plant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canary {
    /// None: the world is as it is.
    None,
    /// Directories are never flushed, so that the journal is trimmed before a new segment's name is durable.
    NoDirectoryFlush,
    /// A group counts as durable when it has been written, so that readers see what power loss takes back.
    WrittenIsDurable,
    /// A commit that fails or is cancelled counts as durable.
    FailureIsSuccess,
    /// A group's memory is given to somebody else while it is being written: every eighth group has other bytes.
    SlabReused,
    /// A group reaches the disk after the one behind it, so that a crash leaves a hole where a torn tail may be.
    GroupsReordered,
    /// A deleted topic's directory is renamed again later, when another topic has taken its name.
    DeletionReplayed,
    /// Flushes report success and do nothing, now and then.
    LyingFlush,
    /// The checksums of stored segments are gone, so that nothing tells what rots there.
    SumsMissing,
    /// A checkpoint does not tell of what was settled since the one before, though the journal that does is recycled.
    SettlementsRecycled,
    /// A bit of a journal flips while the machine is off: taken for a torn tail, it would cost what was acknowledged.
    JournalRots,
}

/// What a shard does that others may wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// It has been told that a group is durable.
    Durable,
    /// It rings a peer that sleeps, which hears it once that is submitted.
    Rings(ShardId),
    /// It submits.
    Submits,
}

/// What the shards of a node share of the canary: which it is, and what it holds back.
#[derive(Clone)]
pub struct Cage {
    canary: Canary,
    /// Places in each mailbox, if it is not as many as usual.
    pub slots: Option<usize>,
    appends: Rc<Cell<u64>>,
    checkpoint: Rc<RefCell<Option<Checkpoint>>>,
    renamed: Rc<RefCell<Vec<(String, String)>>>,
    /// What is done, in order, if somebody wants to know.
    pub acts: Option<Rc<RefCell<Vec<Act>>>>,
}

impl Cage {
    /// A cage with this canary in it.
    pub fn new(canary: Canary) -> Cage {
        let (appends, checkpoint, renamed) = (Rc::default(), Rc::default(), Rc::default());
        Cage { canary, slots: None, appends, checkpoint, renamed, acts: None }
    }

    /// The same in a node with mailboxes of so many places.
    pub fn with_mailboxes(canary: Canary, slots: usize) -> Cage {
        Cage { slots: Some(slots), ..Cage::new(canary) }
    }
}

/// The token of what a canary does by itself.
const OWN: Token = Token(u64::MAX - 1);

/// A simulated shard's view of the world, with the canary between the two.
pub struct CanaryIo {
    io: SimIo,
    cage: Cage,
    /// Set whenever a shard has something to do in its turn.
    busy: Rc<Cell<bool>>,
    made_up: VecDeque<Event>,
    swallow: Vec<Token>,
    held_back: Option<(FileId, u64, Slice)>,
    /// Appends since one was held back.
    since: u64,
}

impl CanaryIo {
    /// Between `io` and its shard.
    pub fn new(io: SimIo, cage: Cage, busy: Rc<Cell<bool>>) -> CanaryIo {
        CanaryIo { io, cage, busy, made_up: VecDeque::new(), swallow: Vec::new(), held_back: None, since: 0 }
    }

    fn is(&self, canary: Canary) -> bool {
        self.cage.canary == canary
    }

    fn note(&self, act: Act) {
        if let Some(acts) = &self.cage.acts {
            acts.borrow_mut().push(act);
        }
    }

    /// What is written in the place of a checkpoint: what the last one had of a queue is still there.
    fn without_settlements(&self, bytes: Slice) -> Slice {
        let Ok(mut checkpoint) = Checkpoint::decode(&bytes) else { return bytes };
        let mut last = self.cage.checkpoint.borrow_mut();
        for queue in &mut checkpoint.queues.queues {
            let before =
                last.as_ref().and_then(|last| last.queues.queues.iter().find(|old| old.id == queue.id));
            let before = before.map(|before| before.live.clone()).unwrap_or_default();
            let mut live: BTreeMap<u64, u64> = queue.live.drain(..).collect();
            for (chunk, mask) in before {
                *live.entry(chunk).or_default() |= mask;
            }
            queue.live = live.into_iter().collect();
        }
        let forged = checkpoint.encode();
        *last = Some(checkpoint);
        forged.into()
    }

    fn pretend(&mut self, token: Token) {
        self.made_up.push_back(Event::Disk(token, Ok(DiskDone::Done)));
    }

    /// What the shard is told instead of `event`.
    fn falsify(&mut self, event: Event, events: &mut Vec<Event>) {
        match event {
            Event::Disk(OWN, _) | Event::Written(OWN) => {}
            Event::Disk(token, _) if self.swallow.contains(&token) => {
                let place = self.swallow.iter().position(|swallowed| *swallowed == token);
                place.map(|place| self.swallow.swap_remove(place));
            }
            Event::Written(token) if self.is(Canary::WrittenIsDurable) && token.owner() == tokens::COMMIT => {
                self.swallow.push(token);
                events.push(Event::Written(token));
                events.push(Event::Disk(token, Ok(DiskDone::Done)));
            }
            Event::Disk(token, Err(_))
                if self.is(Canary::FailureIsSuccess) && token.owner() == tokens::COMMIT =>
            {
                events.push(Event::Disk(token, Ok(DiskDone::Done)));
            }
            other => events.push(other),
        }
    }
}

impl Io for CanaryIo {
    fn append_durable(&mut self, token: Token, file: FileId, at: u64, bytes: Slice) {
        self.cage.appends.set(self.cage.appends.get() + 1);
        let eighth = self.cage.appends.get().is_multiple_of(8) && token.owner() == tokens::COMMIT;
        if eighth && self.is(Canary::SlabReused) {
            let other: Vec<u8> = bytes.iter().rev().copied().collect();
            let pool = millstream_engine::buffer::Pool::new(4 << 20);
            let mut block = pool.block(other.len()).expect("a group is smaller than that");
            block.push(&other);
            return self.io.append_durable(token, file, at, block.freeze());
        }
        if eighth && self.is(Canary::GroupsReordered) && self.held_back.is_none() {
            self.held_back = Some((file, at, bytes));
            self.since = 0;
            self.made_up.push_back(Event::Written(token));
            return self.pretend(token);
        }
        self.io.append_durable(token, file, at, bytes);
        self.since += 1;
        if self.since == 4
            && let Some((file, at, bytes)) = self.held_back.take()
        {
            self.io.append_durable(OWN, file, at, bytes);
        }
    }

    fn sync_dir(&mut self, token: Token, path: &str) {
        if self.is(Canary::NoDirectoryFlush) && path.starts_with("logs") {
            return self.pretend(token);
        }
        self.io.sync_dir(token, path);
    }

    fn rename(&mut self, token: Token, from: &str, to: &str) {
        if self.is(Canary::DeletionReplayed) && to.ends_with("-delete") {
            self.cage.renamed.borrow_mut().push((from.to_owned(), format!("{to}d")));
        }
        self.io.rename(token, from, to);
    }

    fn make_dir(&mut self, token: Token, path: &str) {
        let mut renamed = self.cage.renamed.borrow_mut();
        if let Some(place) = renamed.iter().position(|(from, _)| from == path) {
            // The directory has its old name again, and soon somebody will remember to rename it.
            let (from, to) = renamed.swap_remove(place);
            self.io.make_dir(token, path);
            renamed.push((format!("later {from}"), to));
            return;
        }
        self.io.make_dir(token, path);
        if let Some(place) = renamed.iter().position(|(from, _)| from.starts_with("later ")) {
            let (from, to) = renamed.swap_remove(place);
            self.io.rename(OWN, from.trim_start_matches("later "), &to);
        }
    }

    fn pump(&mut self) {
        self.io.pump();
    }

    fn submit(&mut self) {
        self.note(Act::Submits);
        self.io.submit();
    }

    fn poll(&mut self, wait: Wait, events: &mut Vec<Event>) {
        let wait = if self.made_up.is_empty() { wait } else { Wait::No };
        let mut real = Vec::new();
        self.io.poll(wait, &mut real);
        if wait == Wait::No || !real.is_empty() {
            self.busy.set(true);
        }
        events.extend(self.made_up.drain(..));
        for event in real {
            if matches!(&event, Event::Disk(token, _) if token.owner() == tokens::COMMIT) {
                self.note(Act::Durable);
            }
            self.falsify(event, events);
        }
    }

    fn now(&self) -> Nanos {
        self.io.now()
    }
    fn wall_ms(&self) -> WallMs {
        self.io.wall_ms()
    }
    fn random(&mut self) -> u64 {
        self.io.random()
    }
    fn open(&mut self, token: Token, path: &str, mode: OpenMode) {
        if self.is(Canary::SumsMissing) && path.ends_with(".sum") && mode == OpenMode::Read {
            return self.made_up.push_back(Event::Disk(token, Err(IoError::NotFound)));
        }
        self.io.open(token, path, mode);
    }
    fn close(&mut self, file: FileId) {
        self.io.close(file);
    }
    fn write(&mut self, token: Token, file: FileId, at: u64, bytes: Slice) {
        let forges = at == 0 && self.is(Canary::SettlementsRecycled);
        let bytes = if forges { self.without_settlements(bytes) } else { bytes };
        self.io.write(token, file, at, bytes);
    }
    fn read(&mut self, token: Token, file: FileId, at: u64, into: Block, len: usize) {
        self.io.read(token, file, at, into, len);
    }
    fn flush(&mut self, token: Token, file: FileId) {
        self.io.flush(token, file);
    }
    fn set_len(&mut self, token: Token, file: FileId, len: u64) {
        self.io.set_len(token, file, len);
    }
    fn map(&mut self, token: Token, path: &str) {
        self.io.map(token, path);
    }
    fn is_resident(&mut self, mapped: &Slice) -> bool {
        self.io.is_resident(mapped)
    }
    fn unmap(&mut self, map: Slice) {
        self.io.unmap(map);
    }
    fn unlink(&mut self, token: Token, path: &str) {
        self.io.unlink(token, path);
    }
    fn list(&mut self, token: Token, path: &str) {
        self.io.list(token, path);
    }
    fn space(&mut self, token: Token) {
        self.io.space(token);
    }
    fn listen(&mut self, token: Token, address: SocketAddr) {
        self.io.listen(token, address);
    }
    fn unlisten(&mut self, token: Token) {
        self.io.unlisten(token);
    }
    fn adopt(&mut self, socket: Socket) -> ConnId {
        self.io.adopt(socket)
    }
    fn receive(&mut self, conn: ConnId, on: bool) {
        self.io.receive(conn, on);
    }
    fn receive_into(&mut self, conn: ConnId, room: Block) {
        self.io.receive_into(conn, room);
    }

    fn send(&mut self, conn: ConnId, slices: Vec<Slice>) {
        self.io.send(conn, slices);
    }
    fn loosen(&mut self, conn: ConnId, room: Block) {
        self.io.loosen(conn, room);
    }
    fn shutdown(&mut self, conn: ConnId) {
        self.io.shutdown(conn);
    }
    fn offload(&mut self, token: Token, job: Job) {
        self.io.offload(token, job);
    }
    fn wake(&mut self, peer: ShardId) {
        self.note(Act::Rings(peer));
        self.io.wake(peer);
    }
    fn bell(&self) -> Arc<dyn Bell> {
        self.io.bell()
    }
}
