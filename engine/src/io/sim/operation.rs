//! Operations on the disk: how each one runs its course in time, and what may befall it.

use super::clock::Due;
use super::content::File;
use super::disk::{Disk, Effect, EffectId};
use super::port::PortRef;
use super::state::{State, draw};
use super::tree::Inode;
use crate::buffer::{Block, Slice};
use crate::error::IoError;
use crate::io::fault::{OpKind, Outcome, Span};
use crate::io::random::Random;
use crate::io::{DiskDone, Event, FileId, OpenMode, Token};
use crate::limits::BLOCK_BYTES;
use crate::time::Nanos;

/// An open file.
pub(super) struct OpenFile {
    pub(super) inode: Inode,
    pub(super) path: String,
    pub(super) mode: OpenMode,
    /// Operations under way on it.
    pub(super) in_flight: u32,
}

/// What an operation does when its time has come.
pub(super) enum Step {
    Open {
        mode: OpenMode,
        effect: Option<EffectId>,
    },
    Write {
        effect: EffectId,
        then_flush: bool,
    },
    Flush {
        effect: EffectId,
    },
    Read {
        inode: Inode,
        at: u64,
        into: Block,
        len: usize,
    },
    /// One of names or lengths, which the disk carries out.
    Change {
        effect: EffectId,
    },
    Map,
    List,
    FreeBytes,
}

/// An operation under way.
pub(super) struct Operation {
    port: PortRef,
    token: Token,
    kind: OpKind,
    path: String,
    file: Option<FileId>,
    fate: Option<Outcome>,
}

impl Operation {
    pub(super) fn answer(&self, outcome: Result<DiskDone, IoError>) {
        self.port.borrow_mut().ready.push_back(Event::Disk(self.token, outcome));
    }
}

impl State {
    /// Starts an operation on a path.
    pub(super) fn start_on_path(
        &mut self,
        port: &PortRef,
        token: Token,
        kind: OpKind,
        path: &str,
        step: impl FnOnce(&mut Disk) -> Step,
    ) {
        if port.borrow_mut().refuses(token) {
            return;
        }
        let step = step(&mut self.disk);
        let path = path.to_owned();
        self.start(Operation { port: port.clone(), token, kind, path, file: None, fate: None }, step, 0);
    }

    /// Starts an operation on an open file; `len` is what it writes or reads, in bytes.
    pub(super) fn start_on_file(
        &mut self,
        port: &PortRef,
        token: Token,
        kind: OpKind,
        file: FileId,
        len: usize,
        step: impl FnOnce(&mut Disk, &OpenFile) -> Step,
    ) {
        if port.borrow_mut().refuses(token) {
            return;
        }
        let open = self.files.get_mut(&file).expect("only open files are worked on");
        open.in_flight += 1;
        let step = step(&mut self.disk, open);
        let path = open.path.clone();
        self.start(
            Operation { port: port.clone(), token, kind, path, file: Some(file), fate: None },
            step,
            len,
        );
    }

    fn start(&mut self, mut operation: Operation, step: Step, len: usize) {
        operation.fate = self.fate(operation.kind, &operation.path, operation.file, len);
        let shard = operation.port.borrow().shard.0;
        let (kind, fate) = (operation.kind, operation.fate);
        self.note(format_args!("shard {shard} {kind:?} {} {len} bytes {fate:?}", operation.path));
        self.next_operation += 1;
        self.proceed(self.next_operation, operation, step);
        if kind.changes_disk() {
            self.pass_point();
        }
    }

    /// Gives an operation's next step its time.
    fn proceed(&mut self, id: u64, operation: Operation, step: Step) {
        let span = self.time_of(&step);
        let mut takes = draw(span, &mut self.disk_random);
        if self.disk_random.chance(self.faults.slow) {
            takes = Nanos(takes.0 * self.faults.slow_factor);
        }
        if let Some(Outcome::Slow(more)) = operation.fate {
            takes = takes + more;
        }
        self.operations.insert(id, (operation, step));
        self.later(takes, Due::Operation(id));
    }

    fn time_of(&self, step: &Step) -> Span {
        match step {
            Step::Write { .. } => self.faults.write_time,
            Step::Flush { .. } => self.faults.flush_time,
            Step::Read { .. } => self.faults.read_time,
            Step::Open { .. } | Step::Change { .. } | Step::Map | Step::List | Step::FreeBytes => {
                self.faults.name_time
            }
        }
    }

    /// What will befall an operation: what was injected, or else what chance brings.
    fn fate(&mut self, kind: OpKind, path: &str, file: Option<FileId>, len: usize) -> Option<Outcome> {
        let mut chosen = None;
        for (i, injection) in self.injections.iter_mut().enumerate() {
            if injection.op == kind && path.contains(&injection.path) {
                if injection.skip == 0 && chosen.is_none() {
                    chosen = Some(i);
                }
                injection.skip = injection.skip.saturating_sub(1);
            }
        }
        if let Some(i) = chosen {
            return Some(self.injections.remove(i).outcome);
        }
        let (faults, random) = (&self.faults, &mut self.disk_random);
        let error = IoError::Os(libc::EIO);
        match kind {
            OpKind::Write | OpKind::Append => {
                let bytes = random.below((len / BLOCK_BYTES) as u64 + 1) as usize * BLOCK_BYTES;
                if random.chance(faults.write_error) {
                    return Some(Outcome::FailsAfter { bytes, error });
                }
                if random.chance(faults.no_space) {
                    return Some(Outcome::FailsAfter { bytes, error: IoError::NoSpace });
                }
                if random.chance(faults.short_write) {
                    return Some(Outcome::FallsShort { bytes });
                }
                if random.chance(faults.misdirected_write) {
                    let held = file
                        .map_or(0, |file| self.disk.tree.file(self.files[&file].inode).map_or(0, File::len));
                    let to = random.below(held / BLOCK_BYTES as u64 + 1) * BLOCK_BYTES as u64;
                    return Some(Outcome::Misdirected { to });
                }
                if kind == OpKind::Append {
                    return flush_fate(faults.flush_failure, faults.flush_lie, random);
                }
                None
            }
            OpKind::Flush => flush_fate(faults.flush_failure, faults.flush_lie, random),
            OpKind::Read | OpKind::Map if random.chance(faults.read_error) => Some(Outcome::Fails(error)),
            OpKind::Read => random.chance(faults.rot).then_some(Outcome::Rots),
            OpKind::Map | OpKind::FreeBytes => None,
            _ => random.chance(faults.name_error).then_some(Outcome::Fails(error)),
        }
    }

    /// An operation's time has come.
    pub(super) fn operate(&mut self, id: u64) {
        // What a crash has ended is still on the agenda.
        let Some((mut operation, step)) = self.operations.remove(&id) else { return };
        let fate = operation.fate;
        let outcome = match step {
            Step::Write { effect, then_flush } => match self.finish_write(effect, fate) {
                Ok(Some(rest)) => {
                    operation.fate = None;
                    self.go_on(id, operation, Step::Write { effect: rest, then_flush });
                    return;
                }
                Ok(None) if then_flush => {
                    let inode = operation.file.and_then(|file| self.files.get(&file)).map(|open| open.inode);
                    let flush = self.disk.flush_effect(inode.expect("a file being written is open"));
                    let flush = Step::Flush { effect: self.disk.start(flush) };
                    self.note(format_args!("written {}", operation.path));
                    let (port, token) = (operation.port.clone(), operation.token);
                    if self.go_on(id, operation, flush) {
                        port.borrow_mut().ready.push_back(Event::Written(token));
                    }
                    return;
                }
                Ok(None) => Ok(DiskDone::Done),
                Err(error) => Err(error),
            },
            Step::Flush { effect } => self.finish_flush(effect, fate).map(|()| DiskDone::Done),
            Step::Change { effect } => match fate {
                Some(Outcome::Fails(error)) => {
                    self.disk.abandon(effect);
                    Err(error)
                }
                _ => self.disk.finish(effect).map(|()| DiskDone::Done),
            },
            Step::Open { mode, effect } => self.finish_open(&operation.path, mode, effect, fate),
            Step::Read { inode, at, into, len } => {
                self.finish_read(inode, at, into, len, fate).map(DiskDone::Read)
            }
            Step::Map => match fate {
                Some(Outcome::Fails(error)) => Err(error),
                _ => match self.disk.read_file(&operation.path) {
                    Some(bytes) => Ok(DiskDone::Mapped(Slice::from(bytes))),
                    None => Err(IoError::NotFound),
                },
            },
            Step::List => match fate {
                Some(Outcome::Fails(error)) => Err(error),
                _ => self.disk.list(&operation.path).map(DiskDone::Names),
            },
            Step::FreeBytes => match fate {
                Some(Outcome::Fails(error)) => Err(error),
                _ => Ok(DiskDone::Space(self.disk.space())),
            },
        };
        self.complete(&operation, outcome);
    }

    /// Passes a crash point between two steps of an operation; `false` if the machine died there.
    fn go_on(&mut self, id: u64, operation: Operation, step: Step) -> bool {
        self.proceed(id, operation, step);
        self.pass_point();
        !self.halted
    }

    /// An operation is over: the disk has it, and the shard hears of it unless the machine dies before.
    fn complete(&mut self, operation: &Operation, outcome: Result<DiskDone, IoError>) {
        let shard = operation.port.borrow().shard.0;
        self.note(format_args!("shard {shard} {:?} {} -> {outcome:?}", operation.kind, operation.path));
        if let Some(open) = operation.file.and_then(|file| self.files.get_mut(&file)) {
            open.in_flight -= 1;
        }
        if operation.kind.changes_disk() {
            self.pass_point();
        }
        operation.answer(if self.halted { Err(IoError::Halted) } else { outcome });
    }

    /// A write reaches the disk; what is left of it, if it fell short.
    fn finish_write(&mut self, id: EffectId, fate: Option<Outcome>) -> Result<Option<EffectId>, IoError> {
        let effect = self.disk.abandon(id);
        let Effect::Write { inode, at, bytes, .. } = &effect else { panic!("a write's effect is a write") };
        let (inode, at) = (*inode, *at);
        let mut write = |at, from: usize, to: usize| {
            let part = Disk::write_effect(inode, at, bytes.slice(from..to.min(bytes.len())));
            self.disk.apply(&part)
        };
        match fate {
            Some(Outcome::Fails(error)) => Err(error),
            Some(Outcome::FailsAfter { bytes: first, error }) => write(at, 0, first).and(Err(error)),
            Some(Outcome::Misdirected { to }) => write(to, 0, bytes.len()).map(|()| None),
            Some(Outcome::FallsShort { bytes: first }) => {
                let first = first.min(bytes.len());
                write(at, 0, first)?;
                let rest = Disk::write_effect(inode, at + first as u64, bytes.slice(first..bytes.len()));
                Ok(Some(self.disk.start(rest)))
            }
            _ => self.disk.apply(&effect).map(|()| None),
        }
    }

    fn finish_flush(&mut self, id: EffectId, fate: Option<Outcome>) -> Result<(), IoError> {
        match fate {
            Some(Outcome::FlushFails) => {
                self.disk.fail_flush(id, &mut self.disk_random);
                Err(IoError::Os(libc::EIO))
            }
            Some(Outcome::FlushLies) => {
                self.disk.abandon(id);
                Ok(())
            }
            Some(Outcome::Fails(error)) => {
                self.disk.abandon(id);
                Err(error)
            }
            _ => self.disk.finish(id),
        }
    }

    fn finish_open(
        &mut self,
        path: &str,
        mode: OpenMode,
        effect: Option<EffectId>,
        fate: Option<Outcome>,
    ) -> Result<DiskDone, IoError> {
        if let Some(Outcome::Fails(error)) = fate {
            effect.map(|effect| self.disk.abandon(effect));
            return Err(error);
        }
        if let Some(effect) = effect {
            self.disk.finish(effect)?;
        }
        let inode = self.disk.tree.find(path)?;
        let len = self.disk.tree.file(inode)?.len();
        self.disk.tree.opened(inode);
        let file = FileId(self.next_file);
        self.next_file += 1;
        self.files.insert(file, OpenFile { inode, path: path.to_owned(), mode, in_flight: 0 });
        Ok(DiskDone::Opened(file, len))
    }

    fn finish_read(
        &mut self,
        inode: Inode,
        at: u64,
        mut into: Block,
        len: usize,
        fate: Option<Outcome>,
    ) -> Result<Block, IoError> {
        if let Some(Outcome::Fails(error)) = fate {
            return Err(error);
        }
        let file = self.disk.tree.file_mut(inode)?;
        let available = file.len().saturating_sub(at).min(len as u64);
        if fate == Some(Outcome::Rots) && available > 0 {
            let random = &mut self.disk_random;
            file.rot(at + random.below(available), random.below(8) as u8);
        }
        let read = file.read(at, &mut into.spare_mut()[..len]);
        into.advance(read);
        Ok(into)
    }

    /// Closes a file.
    pub(super) fn close_file(&mut self, file: FileId) {
        let open = self.files.remove(&file).expect("only open files are closed");
        assert_eq!(open.in_flight, 0, "{} is closed with operations in flight", open.path);
        self.disk.tree.closed(open.inode);
    }
}

fn flush_fate(failure: f64, lie: f64, random: &mut Random) -> Option<Outcome> {
    if random.chance(failure) {
        return Some(Outcome::FlushFails);
    }
    random.chance(lie).then_some(Outcome::FlushLies)
}
