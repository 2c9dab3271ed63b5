//! Files: each operation is a small state machine in a table, whose index the kernel carries.
//!
//! What the kernel may point to (slices, blocks, paths) is owned by the operation, which leaves the table only after
//! its last completion. Operations that need a worker of the kernel and are not a commit's share the slow lane.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};

use super::append::{Append, Half, Next};
use super::errors::{self, is_retry};
use super::ring::{Completion, Owner, Ring};
use super::slab::Slab;
use crate::buffer::{Block, Slice};
use crate::error::IoError;
use crate::io::{DiskDone, Event, FileId, OpenMode, Space, Token};
use crate::limits::{BLOCK_BYTES, SLOW_LANE_IN_FLIGHT};

/// The kernel transfers a little less than 2 GiB at a time; what is longer goes in several steps.
const TRANSFER_BYTES_MAX: usize = 1 << 30;

pub(super) struct OpenFile {
    pub file: File,
    /// Past the page cache.
    direct: bool,
}

/// A write that must become whole.
struct Write {
    token: Token,
    file: FileId,
    at: u64,
    bytes: Slice,
    written: usize,
}

struct Read {
    token: Token,
    file: FileId,
    at: u64,
    into: Block,
    /// Bytes still wanted.
    len: usize,
    /// The page cache was asked and does not have it, or there is none.
    cold: bool,
}

/// A change to names, or of what is open.
enum Naming {
    Open { path: CString, mode: OpenMode, direct: bool },
    Close { file: RawFd },
    Rename { from: CString, to: CString },
    Unlink { path: CString, is_dir: bool },
    MakeDir { path: CString },
}

enum Op {
    Append(Append),
    Write(Write),
    Read(Read),
    Flush { token: Token, file: FileId },
    SetLen { token: Token, file: FileId, len: u64 },
    SyncDir { token: Token, path: CString, dir: Option<OwnedFd> },
    Naming { token: Option<Token>, naming: Naming },
}

impl Op {
    /// Whether it keeps to the slow lane.
    fn is_slow(&self) -> bool {
        match self {
            Op::Read(read) => read.cold,
            Op::Naming { .. } => true,
            _ => false,
        }
    }
}

/// What a completion means for its operation.
enum Step {
    /// An answer is missing.
    Wait,
    /// Submit it as it now is.
    Again,
    /// Submit the flush of an append alone.
    FlushAgain,
    Over(Option<Token>, Result<DiskDone, IoError>),
}

/// The files and disk operations of one shard.
pub(super) struct Disk {
    /// The data directory; paths are relative to it.
    root: OwnedFd,
    /// Whether files are opened past the page cache when asked so.
    direct: bool,
    files: Slab<OpenFile>,
    ops: Slab<Op>,
    slow_in_flight: usize,
    slow_queue: VecDeque<u32>,
}

fn c_path(path: &str) -> CString {
    let path = if path.is_empty() { "." } else { path };
    CString::new(path).expect("paths are made of ids and hold no zero byte")
}

impl Disk {
    pub(super) fn new(root: OwnedFd, direct: bool) -> Disk {
        Disk {
            root,
            direct,
            files: Slab::new(),
            ops: Slab::new(),
            slow_in_flight: 0,
            slow_queue: VecDeque::new(),
        }
    }

    pub(super) fn file(&self, file: FileId) -> &OpenFile {
        self.files.get(file.0).expect("the file is open")
    }

    fn fd(&self, file: FileId) -> Fd {
        Fd(self.file(file).file.as_raw_fd())
    }

    pub(super) fn open(&mut self, ring: &mut Ring, token: Token, path: &str, mode: OpenMode) {
        let direct = mode.is_direct() && self.direct;
        self.begin_naming(ring, Some(token), Naming::Open { path: c_path(path), mode, direct });
    }

    pub(super) fn close(&mut self, ring: &mut Ring, file: FileId) {
        let open = self.files.remove(file.0).expect("the file is open");
        // Closing the last handle of a file that is unlinked frees its blocks, which takes time: so not here.
        self.begin_naming(ring, None, Naming::Close { file: open.file.into_raw_fd() });
    }

    pub(super) fn append_durable(
        &mut self,
        ring: &mut Ring,
        token: Token,
        file: FileId,
        at: u64,
        bytes: Slice,
    ) {
        self.begin(ring, Op::Append(Append::new(token, file, at, bytes)));
    }

    pub(super) fn write(&mut self, ring: &mut Ring, token: Token, file: FileId, at: u64, bytes: Slice) {
        self.begin(ring, Op::Write(Write { token, file, at, bytes, written: 0 }));
    }

    pub(super) fn read(
        &mut self,
        ring: &mut Ring,
        token: Token,
        file: FileId,
        at: u64,
        into: Block,
        len: usize,
    ) {
        assert!(len <= into.spare(), "a read is larger than its block");
        let cold = self.file(file).direct;
        self.begin(ring, Op::Read(Read { token, file, at, into, len, cold }));
    }

    pub(super) fn flush(&mut self, ring: &mut Ring, token: Token, file: FileId) {
        self.begin(ring, Op::Flush { token, file });
    }

    pub(super) fn set_len(&mut self, ring: &mut Ring, token: Token, file: FileId, len: u64) {
        self.begin(ring, Op::SetLen { token, file, len });
    }

    pub(super) fn rename(&mut self, ring: &mut Ring, token: Token, from: &str, to: &str) {
        self.begin_naming(ring, Some(token), Naming::Rename { from: c_path(from), to: c_path(to) });
    }

    pub(super) fn unlink(&mut self, ring: &mut Ring, token: Token, path: &str) {
        self.begin_naming(ring, Some(token), Naming::Unlink { path: c_path(path), is_dir: false });
    }

    pub(super) fn make_dir(&mut self, ring: &mut Ring, token: Token, path: &str) {
        self.begin_naming(ring, Some(token), Naming::MakeDir { path: c_path(path) });
    }

    pub(super) fn sync_dir(&mut self, ring: &mut Ring, token: Token, path: &str) {
        self.begin(ring, Op::SyncDir { token, path: c_path(path), dir: None });
    }

    fn begin_naming(&mut self, ring: &mut Ring, token: Option<Token>, naming: Naming) {
        self.begin(ring, Op::Naming { token, naming });
    }

    fn begin(&mut self, ring: &mut Ring, op: Op) {
        let index = self.ops.insert(|_, _| op);
        self.enter(ring, index);
    }

    /// Submits an operation, or queues it for the slow lane.
    fn enter(&mut self, ring: &mut Ring, index: u32) {
        if self.op(index).is_slow() {
            if self.slow_in_flight == SLOW_LANE_IN_FLIGHT {
                return self.slow_queue.push_back(index);
            }
            self.slow_in_flight += 1;
        }
        self.submit(ring, index);
    }

    fn op(&self, index: u32) -> &Op {
        self.ops.get(index).expect("an operation stays in the table until its last completion")
    }

    fn submit(&mut self, ring: &mut Ring, index: u32) {
        let root = Fd(self.root.as_raw_fd());
        let owner = Owner::Disk(index);
        let entry = match self.op(index) {
            Op::Append(append) => {
                let (at, rest) = append.rest();
                let write = write_entry(self.fd(append.file), at, rest);
                let flush = flush_entry(self.fd(append.file));
                // SAFETY: the slice is owned by the operation, which stays in the table until both have completed.
                return unsafe { ring.push_linked((owner, write), (Owner::Flush(index), flush)) };
            }
            Op::Write(write) => {
                let rest = write.bytes.get(write.written..).expect("no more is written than there was");
                write_entry(self.fd(write.file), write.at + write.written as u64, rest)
            }
            Op::Read(_) => return self.submit_read(ring, index),
            Op::Flush { file, .. } => {
                // SAFETY: a flush points to no memory.
                return unsafe { ring.push(Owner::Flush(index), flush_entry(self.fd(*file))) };
            }
            Op::SetLen { file, len, .. } => opcode::Ftruncate::new(self.fd(*file), *len).build(),
            Op::SyncDir { dir: Some(dir), .. } => {
                let flush = opcode::Fsync::new(Fd(dir.as_raw_fd())).build();
                // SAFETY: a flush points to no memory.
                return unsafe { ring.push(Owner::Flush(index), flush) };
            }
            Op::SyncDir { path, dir: None, .. } => opcode::OpenAt::new(root, path.as_ptr())
                .flags(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)
                .build(),
            Op::Naming { naming, .. } => naming_entry(root, naming),
        };
        // SAFETY: slices and paths are owned by the operation, which stays in the table until it has completed; their
        // bytes are on the heap and do not move with it.
        unsafe { ring.push(owner, entry) }
    }

    fn submit_read(&mut self, ring: &mut Ring, index: u32) {
        let Some(Op::Read(read)) = self.ops.get_mut(index) else { panic!("a read was looked up") };
        let file = self.files.get(read.file.0).expect("the file is open while it is read");
        let fd = Fd(file.file.as_raw_fd());
        let len = read.len.min(TRANSFER_BYTES_MAX) as u32;
        // What is cached is copied at once and needs no place in the slow lane. What is not the kernel reads, waiting for
        // the pages without a worker where the file system can (ext4, XFS, Btrfs).
        let flags = if read.cold { 0 } else { libc::RWF_NOWAIT };
        let entry = opcode::Read::new(fd, read.into.spare_mut().as_mut_ptr(), len)
            .offset(read.at)
            .rw_flags(flags)
            .build();
        // SAFETY: the block is owned by the operation, which stays in the table, untouched, until it has completed.
        unsafe { ring.push(Owner::Disk(index), entry) }
    }

    pub(super) fn completed(
        &mut self,
        ring: &mut Ring,
        index: u32,
        completion: Completion,
        events: &mut Vec<Event>,
    ) {
        if self.op(index).is_slow() {
            self.slow_in_flight -= 1;
        }
        match self.step(index, completion, events) {
            Step::Wait => {}
            Step::Again => self.enter(ring, index),
            Step::FlushAgain => {
                let Op::Append(append) = self.op(index) else { panic!("only an append flushes again alone") };
                let flush = flush_entry(self.fd(append.file));
                // SAFETY: a flush points to no memory.
                unsafe { ring.push(Owner::Flush(index), flush) }
            }
            Step::Over(token, outcome) => {
                // A read's block went out with the outcome.
                self.ops.remove(index);
                events.extend(token.map(|token| Event::Disk(token, outcome)));
            }
        }
        while self.slow_in_flight < SLOW_LANE_IN_FLIGHT
            && let Some(next) = self.slow_queue.pop_front()
        {
            self.enter(ring, next);
        }
    }

    /// Gives up what was never submitted; called when nothing more will be.
    pub(super) fn abandon_queued(&mut self) {
        for index in std::mem::take(&mut self.slow_queue) {
            if let Some(Op::Naming { naming: Naming::Close { file }, .. }) = self.ops.remove(index) {
                // SAFETY: the descriptor was given up to this operation, which never reached the kernel.
                drop(unsafe { OwnedFd::from_raw_fd(file) });
            }
        }
    }

    fn step(&mut self, index: u32, completion: Completion, events: &mut Vec<Event>) -> Step {
        let result = completion.result;
        match self.ops.get_mut(index).expect("an operation stays in the table until its last completion") {
            Op::Append(append) => {
                let half = if completion.owner == Owner::Flush(index) { Half::Flush } else { Half::Write };
                let (whole, next) = append.answered(half, result);
                if whole {
                    events.push(Event::Written(append.token));
                }
                match next {
                    Next::Wait => Step::Wait,
                    Next::WriteAndFlush => Step::Again,
                    Next::Flush => Step::FlushAgain,
                    Next::Over(outcome) => Step::Over(Some(append.token), outcome.map(|()| DiskDone::Done)),
                }
            }
            Op::Write(write) => {
                let direct = self.files.get(write.file.0).is_some_and(|file| file.direct);
                write.answered(result, direct)
            }
            Op::Read(read) => {
                let direct = self.files.get(read.file.0).is_some_and(|file| file.direct);
                let Some(outcome) = read.answered(result, direct) else { return Step::Again };
                let token = read.token;
                let Some(Op::Read(read)) = self.ops.remove(index) else { panic!("a read was looked up") };
                Step::Over(Some(token), outcome.map(|()| DiskDone::Read(read.into)))
            }
            // Whatever the answer, the descriptor is gone; a second attempt would close somebody else's.
            Op::Naming { naming: Naming::Close { .. }, .. } => Step::Over(None, done(result)),
            _ if is_retry(result) => Step::Again,
            Op::Flush { token, .. } | Op::SetLen { token, .. } => Step::Over(Some(*token), done(result)),
            Op::SyncDir { token, dir, .. } => {
                if dir.is_some() || result < 0 {
                    return Step::Over(Some(*token), done(result));
                }
                // SAFETY: the kernel has just opened this descriptor for us.
                *dir = Some(unsafe { OwnedFd::from_raw_fd(result) });
                Step::Again
            }
            Op::Naming { token, naming } => {
                let token = *token;
                match naming {
                    Naming::Open { direct, .. } if result == -libc::EINVAL && *direct => {
                        *direct = false;
                        Step::Again
                    }
                    Naming::Open { direct, .. } if result >= 0 => {
                        // SAFETY: the kernel has just opened this descriptor for us.
                        let file = unsafe { File::from_raw_fd(result) };
                        let open = OpenFile { file, direct: *direct };
                        Step::Over(token, opened(&mut self.files, open))
                    }
                    Naming::Unlink { is_dir, .. } if result == -libc::EISDIR && !*is_dir => {
                        *is_dir = true;
                        Step::Again
                    }
                    Naming::MakeDir { .. } if result == -libc::EEXIST => {
                        Step::Over(token, Ok(DiskDone::Done))
                    }
                    _ => Step::Over(token, done(result)),
                }
            }
        }
    }
}

impl Write {
    fn answered(&mut self, result: i32, direct: bool) -> Step {
        if is_retry(result) {
            return Step::Again;
        }
        if result < 0 {
            return Step::Over(Some(self.token), Err(errors::of(result)));
        }
        let rest = self.bytes.len() - self.written;
        if result as usize == rest {
            return Step::Over(Some(self.token), Ok(DiskDone::Done));
        }
        // O_DIRECT goes on at a block's start.
        let unit = if direct { BLOCK_BYTES } else { 1 };
        let progress = result as usize / unit * unit;
        if progress == 0 {
            return Step::Over(Some(self.token), Err(IoError::Os(libc::EIO)));
        }
        self.written += progress;
        Step::Again
    }
}

impl Read {
    /// The outcome, or nothing if there is more to read.
    fn answered(&mut self, result: i32, direct: bool) -> Option<Result<(), IoError>> {
        if !self.cold && (result == -libc::EAGAIN || result == -libc::EOPNOTSUPP) {
            self.cold = true;
            return None;
        }
        if is_retry(result) {
            return None;
        }
        if result < 0 {
            return Some(Err(errors::of(result)));
        }
        let n = result as usize;
        self.into.advance(n);
        self.at += n as u64;
        self.len -= n;
        // Past the page cache, a read that ends within a block has met the file's end, and cannot go on from there.
        let ended = n == 0 || self.len == 0 || (direct && !n.is_multiple_of(BLOCK_BYTES));
        ended.then_some(Ok(()))
    }
}

fn opened(files: &mut Slab<OpenFile>, open: OpenFile) -> Result<DiskDone, IoError> {
    let len = open.file.metadata().map_err(|error| errors::of_std(&error))?.len();
    Ok(DiskDone::Opened(FileId(files.insert(|_, _| open)), len))
}

fn done(result: i32) -> Result<DiskDone, IoError> {
    if result < 0 { Err(errors::of(result)) } else { Ok(DiskDone::Done) }
}

fn write_entry(fd: Fd, at: u64, bytes: &[u8]) -> squeue::Entry {
    let len = bytes.len().min(TRANSFER_BYTES_MAX) as u32;
    opcode::Write::new(fd, bytes.as_ptr(), len).offset(at).build()
}

fn flush_entry(fd: Fd) -> squeue::Entry {
    opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build()
}

fn naming_entry(root: Fd, naming: &Naming) -> squeue::Entry {
    match naming {
        Naming::Open { path, mode, direct } => {
            let access = match mode {
                OpenMode::Direct | OpenMode::Buffered => libc::O_RDWR | libc::O_CREAT,
                OpenMode::Read | OpenMode::ReadDirect => libc::O_RDONLY,
            };
            let past_cache = if *direct { libc::O_DIRECT } else { 0 };
            opcode::OpenAt::new(root, path.as_ptr())
                .flags(access | past_cache | libc::O_CLOEXEC)
                .mode(0o640)
                .build()
        }
        // A worker closes it (IOSQE_ASYNC): see `Disk::close`.
        Naming::Close { file } => opcode::Close::new(Fd(*file)).build().flags(squeue::Flags::ASYNC),
        Naming::Rename { from, to } => opcode::RenameAt::new(root, from.as_ptr(), root, to.as_ptr()).build(),
        Naming::Unlink { path, is_dir } => {
            let flags = if *is_dir { libc::AT_REMOVEDIR } else { 0 };
            opcode::UnlinkAt::new(root, path.as_ptr()).flags(flags).build()
        }
        Naming::MakeDir { path } => opcode::MkDirAt::new(root, path.as_ptr()).mode(0o750).build(),
    }
}

/// The space of the file system of `file`, of which that is free which unprivileged users may take.
pub(super) fn space(file: &File) -> io::Result<Space> {
    // SAFETY: a statvfs is made of integers, for which zero is a value.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and `found` is ours to be written.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Space { free_bytes: found.f_bavail * found.f_frsize, total_bytes: found.f_blocks * found.f_frsize })
}
