//! The simulated [`Io`]: what a shard holds.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::clock::Due;
use super::disk::{Disk, Effect};
use super::operation::Step;
use super::port::PortRef;
use super::state::{State, draw};
use crate::buffer::{Block, Slice};
use crate::io::fault::OpKind;
use crate::io::{Bell, ConnId, Event, FileId, Io, Job, OpenMode, Socket, Token, Wait};
use crate::limits::{BLOCK_BYTES, COMPLETIONS_PER_TURN};
use crate::time::{Nanos, WallMs};
use crate::types::ShardId;

/// Polls in a row that may wait for ever while nothing is ever to come: a test may act in between, but not that often.
const HOPELESS_POLLS_MAX: u32 = 10_000;

/// How often a part of a map is not in memory.
const EVICTED: f64 = 0.2;

/// One shard's view of a [`super::World`], for one life of the simulated machine. After a crash every operation
/// answers [`crate::error::IoError::Halted`].
///
/// It is stricter than a kernel where that finds bugs: it panics on unaligned direct I/O, on a second send on a
/// connection, on closing a file in use, and on a buffer that changes while it is being written.
pub struct SimIo {
    state: Rc<RefCell<State>>,
    port: PortRef,
}

impl SimIo {
    pub(super) fn new(state: Rc<RefCell<State>>, port: PortRef) -> SimIo {
        SimIo { state, port }
    }

    fn start_on_path(&self, token: Token, kind: OpKind, path: &str, step: impl FnOnce(&mut Disk) -> Step) {
        self.state.borrow_mut().start_on_path(&self.port, token, kind, path, step);
    }

    /// An operation on names that the disk carries out as one effect.
    fn change(&self, token: Token, kind: OpKind, path: &str, effect: impl FnOnce(&Disk) -> Effect) {
        self.start_on_path(token, kind, path, |disk| {
            let effect = effect(disk);
            Step::Change { effect: disk.start(effect) }
        });
    }

    fn write_at(&self, token: Token, file: FileId, at: u64, bytes: Slice, then_flush: bool) {
        let kind = if then_flush { OpKind::Append } else { OpKind::Write };
        let len = bytes.len();
        self.state.borrow_mut().start_on_file(&self.port, token, kind, file, len, |disk, open| {
            assert!(open.mode.writes(), "{} is open for reading", open.path);
            if open.mode.is_direct() {
                check_alignment(&open.path, at, len, bytes.as_ptr());
            }
            Step::Write { effect: disk.start(Disk::write_effect(open.inode, at, bytes)), then_flush }
        });
    }
}

impl Io for SimIo {
    fn now(&self) -> Nanos {
        self.state.borrow_mut().clock.look()
    }

    fn wall_ms(&self) -> WallMs {
        self.state.borrow().clock.wall_ms()
    }

    fn random(&mut self) -> u64 {
        self.port.borrow_mut().random.next()
    }

    fn open(&mut self, token: Token, path: &str, mode: OpenMode) {
        self.start_on_path(token, OpKind::Open, path, |disk| {
            let effect = mode.writes().then(|| disk.start(Effect::Create { path: path.to_owned() }));
            Step::Open { mode, effect }
        });
    }

    fn close(&mut self, file: FileId) {
        if !self.port.borrow().dead {
            self.state.borrow_mut().close_file(file);
        }
    }

    fn append_durable(&mut self, token: Token, file: FileId, at: u64, bytes: Slice) {
        assert!(
            at.is_multiple_of(BLOCK_BYTES as u64) && bytes.len().is_multiple_of(BLOCK_BYTES),
            "an append covers whole blocks, not {} bytes at {at}",
            bytes.len()
        );
        self.write_at(token, file, at, bytes, true);
    }

    fn write(&mut self, token: Token, file: FileId, at: u64, bytes: Slice) {
        self.write_at(token, file, at, bytes, false);
    }

    fn read(&mut self, token: Token, file: FileId, at: u64, mut into: Block, len: usize) {
        assert!(len <= into.spare(), "a read of {len} bytes does not fit its block");
        self.state.borrow_mut().start_on_file(&self.port, token, OpKind::Read, file, len, |_, open| {
            if open.mode.is_direct() {
                check_alignment(&open.path, at, len, into.spare_mut().as_ptr());
            }
            Step::Read { inode: open.inode, at, into, len }
        });
    }

    fn flush(&mut self, token: Token, file: FileId) {
        self.state.borrow_mut().start_on_file(&self.port, token, OpKind::Flush, file, 0, |disk, open| {
            let effect = disk.flush_effect(open.inode);
            Step::Flush { effect: disk.start(effect) }
        });
    }

    fn set_len(&mut self, token: Token, file: FileId, len: u64) {
        self.state.borrow_mut().start_on_file(&self.port, token, OpKind::SetLen, file, 0, |disk, open| {
            Step::Change { effect: disk.start(Effect::SetLen { inode: open.inode, len }) }
        });
    }

    fn map(&mut self, token: Token, path: &str) {
        self.start_on_path(token, OpKind::Map, path, |_| Step::Map);
    }

    fn is_resident(&mut self, _: &Slice) -> bool {
        !self.port.borrow_mut().random.chance(EVICTED)
    }

    fn unmap(&mut self, map: Slice) {
        assert!(map.is_last(), "what is unmapped is used by nobody");
    }

    fn rename(&mut self, token: Token, from: &str, to: &str) {
        let effect = Effect::Rename { from: from.to_owned(), to: to.to_owned() };
        self.change(token, OpKind::Rename, from, |_| effect);
    }

    fn unlink(&mut self, token: Token, path: &str) {
        self.change(token, OpKind::Unlink, path, |_| Effect::Unlink { path: path.to_owned() });
    }

    fn make_dir(&mut self, token: Token, path: &str) {
        self.change(token, OpKind::MakeDir, path, |_| Effect::MakeDir { path: path.to_owned() });
    }

    fn sync_dir(&mut self, token: Token, path: &str) {
        self.change(token, OpKind::SyncDir, path, |disk| disk.sync_dir_effect(path));
    }

    fn list(&mut self, token: Token, path: &str) {
        self.start_on_path(token, OpKind::List, path, |_| Step::List);
    }

    fn space(&mut self, token: Token) {
        self.start_on_path(token, OpKind::FreeBytes, "", |_| Step::FreeBytes);
    }

    fn listen(&mut self, token: Token, address: SocketAddr) {
        self.state.borrow_mut().listen(&self.port, token, address);
    }

    fn unlisten(&mut self, token: Token) {
        self.state.borrow_mut().unlisten(&self.port, token);
    }

    fn adopt(&mut self, socket: Socket) -> ConnId {
        self.state.borrow_mut().adopt(&self.port, &socket)
    }

    fn receive(&mut self, conn: ConnId, on: bool) {
        self.state.borrow_mut().receive(conn, on);
    }

    fn receive_into(&mut self, conn: ConnId, room: Block) {
        self.state.borrow_mut().receive_into(conn, room);
    }

    fn send(&mut self, conn: ConnId, slices: Vec<Slice>) {
        self.state.borrow_mut().send(conn, slices);
    }

    fn loosen(&mut self, conn: ConnId, room: Block) {
        self.state.borrow_mut().loosen(conn, room);
    }

    fn shutdown(&mut self, conn: ConnId) {
        self.state.borrow_mut().shut_down(conn);
    }

    fn offload(&mut self, token: Token, job: Job) {
        // Run outside of the world's borrow: a job may drop slices, wake shards, or panic.
        let result = job();
        let mut state = self.state.borrow_mut();
        let span = draw(state.faults.offload_time, &mut state.disk_random);
        state.later(span, Due::Offloaded(self.port.clone(), token, result));
    }

    fn wake(&mut self, peer: ShardId) {
        if let Some(port) = self.state.borrow().ports.get(&peer)
            && !self.port.borrow().dead
        {
            port.borrow().rung.ring();
        }
    }

    fn bell(&self) -> Arc<dyn Bell> {
        self.port.borrow().rung.clone()
    }

    fn pump(&mut self) {}

    fn submit(&mut self) {}

    fn poll(&mut self, wait: Wait, events: &mut Vec<Event>) {
        let mut state = self.state.borrow_mut();
        state.clock.spend_poll();
        state.run_due();
        let deadline = match wait {
            Wait::No => Some(state.clock.now()),
            Wait::Until(at) => Some(at),
            Wait::Forever => None,
        };
        self.port.borrow_mut().deadline = deadline;
        while !state.time_is_held && !self.port.borrow().is_roused(state.clock.now()) {
            let Some(next) = state.agenda.next_at().into_iter().chain(deadline).min() else {
                self.port.borrow_mut().hopeless_polls += 1;
                break;
            };
            state.clock.advance_to(next);
            state.run_due();
        }
        let mut port = self.port.borrow_mut();
        port.asleep = !port.is_roused(state.clock.now());
        if !port.asleep {
            port.deadline = None;
            port.hopeless_polls = 0;
        }
        assert!(
            port.hopeless_polls < HOPELESS_POLLS_MAX,
            "shard {} waits for what never comes",
            port.shard.0
        );
        let n = port.ready.len().min(COMPLETIONS_PER_TURN);
        port.rung.take();
        events.extend(port.ready.drain(..n));
    }
}

/// What the kernel asks of direct I/O.
fn check_alignment(path: &str, at: u64, len: usize, memory: *const u8) {
    let aligned = at.is_multiple_of(BLOCK_BYTES as u64)
        && len.is_multiple_of(BLOCK_BYTES)
        && memory.addr().is_multiple_of(BLOCK_BYTES);
    assert!(aligned, "direct I/O of {len} bytes at {at} of {path} is not aligned, in the file or in memory");
}
