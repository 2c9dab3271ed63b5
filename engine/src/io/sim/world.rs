//! The world, in the hands of whoever drives the shards.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use super::backend::SimIo;
use super::crash::{Crash, Unflushed};
use super::disk::Disk;
use super::peer::SimPeer;
use super::port::Port;
use super::state::State;
use crate::io::fault::{Faults, Injection};
use crate::io::random::Random;
use crate::time::{Nanos, WallMs};
use crate::types::ShardId;

/// A simulated machine with its disk, its network and its clocks. Clones share it.
///
/// Call order: [`World::io`] for each shard; let them work; [`World::crash`] (or [`World::halt_after`], then a crash);
/// [`World::io`] again, on what is left of the disk.
#[derive(Clone)]
pub struct World {
    state: Rc<RefCell<State>>,
}

impl World {
    /// A machine with an empty disk.
    pub fn new(seed: u64, faults: Faults) -> World {
        let disk = Disk::new(faults.disk_bytes);
        World::from_disk(seed, disk, faults)
    }

    /// A machine with this disk. A snapshot with operations in flight must have been through a crash.
    pub fn from_disk(seed: u64, disk: Disk, faults: Faults) -> World {
        assert!(disk.in_flight.is_empty(), "a crash decides first what became of operations in flight");
        World { state: Rc::new(RefCell::new(State::new(seed, disk, faults))) }
    }

    /// A shard's view of this life of the machine. Asked for twice, the later one gets the wake-ups.
    pub fn io(&self, shard: ShardId) -> SimIo {
        let mut state = self.state.borrow_mut();
        assert!(!state.halted, "the machine stands still: a crash decides first what the disk kept");
        let random = Random::stream(state.seed, &format!("shard {} life {}", shard.0, state.life));
        let port = Port::new(shard, random);
        state.ports.insert(shard, port.clone());
        SimIo::new(Rc::clone(&self.state), port)
    }

    /// Changes the odds from now on.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state.borrow_mut();
        state.disk.set_capacity(faults.disk_bytes);
        state.faults = faults;
    }

    /// Places one fault.
    pub fn inject(&self, injection: Injection) {
        assert!(injection.outcome.suits(injection.op), "no such thing happens: {injection:?}");
        self.state.borrow_mut().injections.push(injection);
    }

    /// Takes away the faults that were placed and have not come about.
    pub fn forget_injections(&self) {
        self.state.borrow_mut().injections.clear();
    }
}

/// Time.
impl World {
    /// The monotonic clock.
    pub fn now(&self) -> Nanos {
        self.state.borrow().clock.now()
    }

    /// Sets the wall clock, forwards or backwards.
    pub fn set_wall_ms(&self, wall: WallMs) {
        self.state.borrow_mut().clock.set_wall_ms(wall);
    }

    /// With `held`, a poll that would wait returns at once instead of letting time pass (except for a system call's
    /// worth), and its deadline counts in [`World::next_event_at`]. A driver of several shards needs it: without, one
    /// shard's wait takes the time past the others' deadlines.
    pub fn hold_time(&self, held: bool) {
        self.state.borrow_mut().time_is_held = held;
    }

    /// When something happens next: an operation proceeds, or a shard's wait ends. `None` if nothing ever will.
    pub fn next_event_at(&self) -> Option<Nanos> {
        self.state.borrow().next_event_at()
    }

    /// Lets time pass up to a point, and everything happen that is due by then.
    pub fn advance_to(&self, at: Nanos) {
        let mut state = self.state.borrow_mut();
        while let Some(next) = state.agenda.next_at().filter(|next| *next <= at) {
            state.clock.advance_to(next);
            state.run_due();
        }
        state.clock.advance_to(at);
    }

    /// Whether this shard is due a turn: it has not gone to sleep in its last poll (so it may have work left), or there
    /// is something to rouse it.
    pub fn has_ready(&self, shard: ShardId) -> bool {
        let mut state = self.state.borrow_mut();
        state.run_due();
        let now = state.clock.now();
        state.ports.get(&shard).is_some_and(|port| {
            let port = port.borrow();
            !port.asleep || port.is_roused(now)
        })
    }
}

/// Crashes.
impl World {
    /// Crash points passed so far: one at the submission and one at the completion of every operation that changes
    /// the disk or makes something durable, and one between the steps of an operation that has several.
    pub fn disk_ops(&self) -> u64 {
        self.state.borrow().points
    }

    /// Makes the machine stand still at its crash point of this number (as [`World::disk_ops`] counts them). A
    /// crash then decides what the disk keeps.
    pub fn halt_after(&self, disk_ops: u64) {
        let mut state = self.state.borrow_mut();
        assert!(disk_ops > state.points, "that crash point has been passed");
        state.halt_at = Some(disk_ops);
    }

    /// Whether the machine stands still.
    pub fn halted(&self) -> bool {
        self.state.borrow().halted
    }

    /// Makes the machine stand still now.
    pub fn halt(&self) {
        self.state.borrow_mut().halt();
    }

    /// Ends this life of the machine, now or where it stands still, and leaves of the disk what the crash leaves.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state.borrow_mut();
        state.halt();
        state.note(format_args!("{crash:?}"));
        let State { disk, crash_random, .. } = &mut *state;
        disk.crash(crash, crash_random);
        state.revive();
    }

    /// What a power loss now may keep or lose.
    pub fn unflushed(&self) -> Vec<Unflushed> {
        self.state.borrow().disk.unflushed()
    }

    /// Power loss, with a say on each item of [`World::unflushed`].
    pub fn crash_keeping(&self, keep: impl FnMut(&Unflushed) -> bool) {
        let mut state = self.state.borrow_mut();
        state.halt();
        state.disk.crash_keeping(keep);
        state.revive();
    }

    /// A copy of the disk as it is now, with what is in flight.
    pub fn snapshot_disk(&self) -> Disk {
        self.state.borrow().disk.clone()
    }

    /// Ends this life of the machine and exchanges its disk.
    pub fn restore_disk(&self, disk: Disk) {
        assert!(disk.in_flight.is_empty(), "a crash decides first what became of operations in flight");
        let mut state = self.state.borrow_mut();
        state.halt();
        state.disk = disk;
        let disk_bytes = state.faults.disk_bytes;
        state.disk.set_capacity(disk_bytes);
        state.revive();
    }
}

/// The disk's content, behind the shards' backs.
impl World {
    /// A file's bytes as a reader sees them now; `None` if there is no such file.
    pub fn read_file(&self, path: &str) -> Option<Vec<u8>> {
        self.state.borrow().disk.read_file(path)
    }

    /// Puts a file there, with its directories, all of it durable.
    pub fn write_file(&self, path: &str, bytes: &[u8]) {
        self.state.borrow_mut().disk.write_file(path, bytes);
    }

    /// The paths of all files, sorted.
    pub fn list_all(&self) -> Vec<String> {
        self.state.borrow().disk.list_all()
    }

    /// Flips one bit (0 to 7) of a file's byte at `position`.
    pub fn rot(&self, path: &str, position: u64, bit: u8) {
        self.state.borrow_mut().disk.rot(path, position, bit);
    }
}

/// The network's other side, and what happened.
impl World {
    /// Connects to an address that a shard listens on. If none does, the peer is closed from the start.
    pub fn connect(&self, address: SocketAddr) -> SimPeer {
        let connection = self.state.borrow_mut().connect(address);
        SimPeer::new(Rc::clone(&self.state), connection)
    }

    /// What happened lately, a line each.
    pub fn trace(&self) -> String {
        self.state.borrow().trace.text()
    }

    /// A digest of everything that ever happened: equal for equal histories.
    pub fn digest(&self) -> u32 {
        self.state.borrow().trace.digest()
    }
}
