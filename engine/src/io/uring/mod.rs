//! The real [`Io`]: one ring per shard for disk, network and wake-ups.
//!
//! Everything that the kernel may point to is owned by a table (operations in `disk`, connections in `net`, lent blocks
//! in `lent`) and leaves it after the last completion only. No buffers are registered, so that 8 MiB of lockable memory
//! are enough.

#![allow(clippy::disallowed_methods, reason = "files are what the rest of the engine comes here for")]

mod affinity;
mod append;
mod clock;
mod disk;
mod errors;
mod helpers;
mod lent;
mod listeners;
mod net;
mod residence;
mod ring;
mod slab;
mod timeslice;
mod wake;

use std::fs::File;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

pub use affinity::pin_to_core;
use disk::Disk;
use helpers::Helpers;
use io_uring::{opcode, types};
use lent::Lent;
use listeners::Listeners;
use net::Net;
use ring::{Owner, Ring};
pub use timeslice::shorten_time_slice;
use wake::BellReader;
pub use wake::Peers;

use super::{Bell, ConnId, DirEntry, DiskDone, Event, FileId, Io, Job, OpenMode, Socket, Token, Wait, probe};
use crate::buffer::{Block, Pool, Slice};
use crate::error::Fatal;
use crate::limits::{COMPLETIONS_PER_TURN, HELPER_THREADS};
use crate::time::{Nanos, WallMs};
use crate::types::ShardId;

/// How often a shard looks for memory while connections wait for it: blocks go home on other threads, silently.
const STARVED_LOOK: Nanos = Nanos::from_millis(1);
/// How long a shard that ends waits for what the kernel still does.
const DRAIN: Nanos = Nanos::from_millis(5_000);

/// What a shard's backend is made from.
#[derive(Clone)]
pub struct UringOptions {
    /// Whose it is.
    pub shard: ShardId,
    /// The data directory; it must exist.
    pub root: PathBuf,
    /// The process's shards, shared by all of them.
    pub peers: Arc<Peers>,
    /// Whether files are opened past the page cache when asked so: what the probe found.
    pub direct: bool,
    /// Memory for incoming bytes. Up to half of it is lent to the kernel, the rest is on its way through the engine.
    pub receive_pool: Pool,
}

/// The real outside world of one shard.
///
/// It must be made on the thread that uses it, and is not `Send` for that reason: the kernel takes submissions of that
/// thread only, and runs completions on it only while it polls.
///
/// Dropping it cancels what is in flight and waits until the kernel has let go of our memory; what it will not let go
/// of within five seconds is leaked on purpose.
pub struct Uring {
    ring: Ring,
    /// Given up together, or leaked together.
    held: ManuallyDrop<Held>,
    root: PathBuf,
    shard: ShardId,
    peers: Arc<Peers>,
    chance: clock::Chance,
    /// For jobs of the host, which may take long.
    jobs: Helpers,
    /// For calls on files that the ring has no operation for.
    calls: Helpers,
    /// For maps, which may take a second each.
    maps: Helpers,
    /// Events that did not come out of the ring.
    ready: Vec<Event>,
    /// The next poll returns at once.
    woken: bool,
    /// The ring can cut files (Linux 6.9).
    truncates: bool,
}

/// What the kernel may point to.
struct Held {
    disk: Disk,
    net: Net,
    listeners: Listeners,
    bell: BellReader,
}

impl Uring {
    /// Sets up a shard's ring and makes it known to its peers. To be called on the shard's thread. Fails with
    /// [`Fatal::Refused`], saying what was refused and what to do.
    pub fn new(options: UringOptions) -> Result<Uring, Fatal> {
        let UringOptions { shard, root, peers, direct, receive_pool } = options;
        let open_root = |root: &PathBuf| Ok((root.canonicalize()?, File::open(root)?));
        let (root, handle) = open_root(&root).map_err(|error| Fatal::Io {
            doing: "open the data directory",
            file: root.display().to_string(),
            error: errors::of_std(&error),
        })?;
        let refused = |what| move |error| probe::refusal(what, &error);
        let mut ring = Ring::new().map_err(refused("setting up a ring (io_uring_setup)"))?;
        let lent =
            Lent::new(&ring, receive_pool).map_err(refused("a buffer ring (IORING_REGISTER_PBUF_RING)"))?;
        let mut bell = BellReader::new().map_err(refused("an eventfd (eventfd2)"))?;
        bell.arm(&mut ring);
        let truncates = probe::supports(ring.uring(), opcode::Ftruncate::CODE);
        let chance = clock::Chance::new().map_err(refused("a random seed (getrandom)"))?;
        let woken = peers.join(shard, ring.fd());
        let helpers = |what, most| Helpers::new(format!("{what}-{}", shard.0), most, bell.bell());
        Ok(Uring {
            jobs: helpers("job", HELPER_THREADS),
            calls: helpers("call", 1),
            maps: helpers("map", 1),
            ring,
            held: ManuallyDrop::new(Held {
                disk: Disk::new(OwnedFd::from(handle), direct),
                net: Net::new(shard, lent),
                listeners: Listeners::new(),
                bell,
            }),
            root,
            shard,
            peers,
            chance,
            ready: Vec::new(),
            woken,
            truncates,
        })
    }

    /// Runs a call on the helper thread for files.
    fn call(&mut self, token: Token, call: impl FnOnce() -> std::io::Result<DiskDone> + Send + 'static) {
        self.calls
            .run(Box::new(move || Some(Event::Disk(token, call().map_err(|error| errors::of_std(&error))))));
    }

    /// How long a poll may wait: less than was asked if something is to be tried again earlier.
    fn wait(&mut self, wait: Wait) -> Wait {
        let paused = self.held.listeners.resume(&mut self.ring, clock::now);
        let starved = self.held.net.resume(&mut self.ring).then(|| clock::now() + STARVED_LOOK);
        if std::mem::take(&mut self.woken) || !self.ready.is_empty() {
            return Wait::No;
        }
        let at = match wait {
            Wait::No => return Wait::No,
            Wait::Until(at) => Some(at),
            Wait::Forever => None,
        };
        at.into_iter().chain(paused).chain(starved).min().map_or(Wait::Forever, Wait::Until)
    }
}

impl Io for Uring {
    fn now(&self) -> Nanos {
        clock::now()
    }

    fn wall_ms(&self) -> WallMs {
        clock::wall_ms()
    }

    fn random(&mut self) -> u64 {
        self.chance.next()
    }

    fn open(&mut self, token: Token, path: &str, mode: OpenMode) {
        self.held.disk.open(&mut self.ring, token, path, mode);
    }

    fn close(&mut self, file: FileId) {
        self.held.disk.close(&mut self.ring, file);
    }

    fn append_durable(&mut self, token: Token, file: FileId, at: u64, bytes: Slice) {
        self.held.disk.append_durable(&mut self.ring, token, file, at, bytes);
        // The rest of the turn would be lost to the disk.
        self.ring.submit();
    }

    fn write(&mut self, token: Token, file: FileId, at: u64, bytes: Slice) {
        self.held.disk.write(&mut self.ring, token, file, at, bytes);
    }

    fn read(&mut self, token: Token, file: FileId, at: u64, into: Block, len: usize) {
        self.held.disk.read(&mut self.ring, token, file, at, into, len);
    }

    fn flush(&mut self, token: Token, file: FileId) {
        self.held.disk.flush(&mut self.ring, token, file);
    }

    fn set_len(&mut self, token: Token, file: FileId, len: u64) {
        if self.truncates {
            return self.held.disk.set_len(&mut self.ring, token, file, len);
        }
        match self.held.disk.file(file).file.try_clone() {
            Ok(file) => self.call(token, move || file.set_len(len).map(|()| DiskDone::Done)),
            Err(error) => self.ready.push(Event::Disk(token, Err(errors::of_std(&error)))),
        }
    }

    fn map(&mut self, token: Token, path: &str) {
        let path = self.root.join(path);
        self.maps.run(Box::new(move || {
            let mapped = residence::map_resident(&path).map_err(|error| errors::of_std(&error));
            Some(Event::Disk(token, mapped.map(|map| DiskDone::Mapped(Slice::from_map(map)))))
        }));
    }

    fn is_resident(&mut self, mapped: &Slice) -> bool {
        residence::is_resident(mapped)
    }

    fn unmap(&mut self, map: Slice) {
        self.calls.run(Box::new(move || {
            drop(map);
            None
        }));
    }

    fn rename(&mut self, token: Token, from: &str, to: &str) {
        self.held.disk.rename(&mut self.ring, token, from, to);
    }

    fn unlink(&mut self, token: Token, path: &str) {
        self.held.disk.unlink(&mut self.ring, token, path);
    }

    fn make_dir(&mut self, token: Token, path: &str) {
        self.held.disk.make_dir(&mut self.ring, token, path);
    }

    fn sync_dir(&mut self, token: Token, path: &str) {
        self.held.disk.sync_dir(&mut self.ring, token, path);
    }

    fn list(&mut self, token: Token, path: &str) {
        let path = self.root.join(path);
        self.call(token, move || {
            let mut names = Vec::new();
            for entry in path.read_dir()? {
                let entry = entry?;
                // A name that is no UTF-8 is none of ours.
                if let Ok(name) = entry.file_name().into_string() {
                    names.push(DirEntry { name, is_dir: entry.file_type()?.is_dir() });
                }
            }
            names.sort();
            Ok(DiskDone::Names(names))
        });
    }

    fn space(&mut self, token: Token) {
        let root = self.root.clone();
        self.call(token, move || {
            let root = File::open(root)?;
            Ok(DiskDone::Space(disk::space(&root)?))
        });
    }

    fn listen(&mut self, token: Token, address: SocketAddr) {
        let event = self.held.listeners.listen(&mut self.ring, token, address);
        self.ready.push(event);
    }

    fn unlisten(&mut self, token: Token) {
        self.held.listeners.unlisten(&mut self.ring, token);
    }

    fn adopt(&mut self, socket: Socket) -> ConnId {
        self.held.net.adopt(&mut self.ring, &socket)
    }

    fn receive(&mut self, conn: ConnId, on: bool) {
        self.held.net.receive(&mut self.ring, conn, on);
    }

    fn receive_into(&mut self, conn: ConnId, room: Block) {
        self.held.net.receive_into(&mut self.ring, conn, room);
    }

    fn send(&mut self, conn: ConnId, slices: Vec<Slice>) {
        if self.held.net.send(&mut self.ring, conn, slices) {
            self.ready.push(Event::Sent(conn));
        }
    }

    fn loosen(&mut self, conn: ConnId, room: Block) {
        self.held.net.loosen(&mut self.ring, conn, room);
    }

    fn shutdown(&mut self, conn: ConnId) {
        self.held.net.shutdown(conn, &mut self.ready);
    }

    fn offload(&mut self, token: Token, job: Job) {
        self.jobs.run(Box::new(move || Some(Event::Offloaded(token, job()))));
    }

    fn wake(&mut self, peer: ShardId) {
        if peer == self.shard {
            self.woken = true;
        } else {
            self.peers.wake(peer, &mut self.ring);
        }
    }

    fn bell(&self) -> Arc<dyn Bell> {
        self.held.bell.bell()
    }

    fn submit(&mut self) {
        self.ring.submit();
    }

    fn pump(&mut self) {
        self.ring.pump();
    }

    fn poll(&mut self, wait: Wait, events: &mut Vec<Event>) {
        let wait = self.wait(wait);
        self.ring.turn(wait);
        events.append(&mut self.ready);
        let Held { disk, net, listeners, bell } = &mut *self.held;
        for _ in 0..COMPLETIONS_PER_TURN {
            let Some(completion) = self.ring.next() else { break };
            match completion.owner {
                // The poll returns, and that is all they are for.
                Owner::Wake | Owner::Nobody => {}
                Owner::Bell => {
                    bell.rung(&mut self.ring);
                    self.jobs.collect(events);
                    self.calls.collect(events);
                    self.maps.collect(events);
                }
                Owner::Disk(index) | Owner::Flush(index) => {
                    disk.completed(&mut self.ring, index, completion, events);
                }
                Owner::Accept(index) => {
                    listeners.accepted(&mut self.ring, index, completion, clock::now(), events);
                }
                Owner::Receive(index) => net.received(&mut self.ring, index, completion, events),
                Owner::Send(index) => net.sent(&mut self.ring, index, completion, events),
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.peers.leave(self.shard);
        self.held.disk.abandon_queued();
        self.held.net.shutdown_all();
        let cancel_all = opcode::AsyncCancel2::new(types::CancelBuilder::any().all());
        self.ring.push_quiet(cancel_all.build());
        let deadline = clock::now() + DRAIN;
        while self.ring.outstanding() > 0 && clock::now() < deadline {
            self.ring.turn(Wait::Until(deadline));
            // Answers concern nobody any more; what was accepted meanwhile must be closed.
            while let Some(completion) = self.ring.next() {
                listeners::close_accepted(completion);
            }
        }
        if self.ring.outstanding() > 0 {
            // The kernel may yet write into our buffers: a leak is the lesser evil.
            return;
        }
        // SAFETY: taken once, here, and not used again.
        let Held { net, .. } = unsafe { ManuallyDrop::take(&mut self.held) };
        net.take_back(&self.ring);
    }
}
