//! The one door to the kernel.
//!
//! [`Io`] says what the engine wants of the outside world; how it is done (links, multishot, buffer rings, message
//! rings) is the business of the backend: `uring` for a real machine, `sim` for a simulated one. Nothing above this
//! module names a descriptor, a clock or a source of chance.

mod blocking;
pub mod fault;
pub mod probe;
pub mod process;
pub mod random;
mod replace;
pub mod sim;
pub mod uring;

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;

pub use blocking::Blocking;
pub use replace::Replace;

use crate::buffer::{Block, Slice};
use crate::error::IoError;
use crate::time::{Nanos, WallMs};
use crate::types::ShardId;

/// Says what a completion belongs to. Chosen by whoever submits, returned untouched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(pub u64);

impl Token {
    /// A token of one of up to 255 owners, with the owner's own number in it (56 bits).
    pub fn new(owner: u8, id: u64) -> Token {
        assert!(id < 1 << 56, "a token's number has 56 bits");
        Token(u64::from(owner) << 56 | id)
    }

    /// Whose it is.
    pub fn owner(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The owner's own number.
    pub fn id(self) -> u64 {
        self.0 & ((1 << 56) - 1)
    }
}

/// An open file, as its backend knows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u32);

/// A connection, as its backend knows it. Never reused within a process's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// An accepted connection that no shard has adopted yet; moves between shards of one process.
#[derive(Debug)]
pub struct Socket {
    /// The backend's handle.
    pub handle: u64,
    /// Who connected.
    pub peer: SocketAddr,
    /// The address they connected to.
    pub local: SocketAddr,
}

/// How a file is opened. Paths are relative to the data directory; parent directories must exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Reading and writing past the page cache, in aligned blocks; created if absent. Where the file system refuses
    /// that, the backend writes through the page cache instead and has said so at the start.
    Direct,
    /// Reading and writing through the page cache; created if absent.
    Buffered,
    /// Reading through the page cache; fails with [`IoError::NotFound`] if absent.
    Read,
    /// Reading past the page cache, in aligned blocks, through it where the file system refuses that; fails with
    /// [`IoError::NotFound`] if absent.
    ReadDirect,
}

impl OpenMode {
    /// Whether what is read or written must be aligned blocks.
    pub fn is_direct(self) -> bool {
        matches!(self, OpenMode::Direct | OpenMode::ReadDirect)
    }

    /// Whether the file may be written, and is made if it is absent.
    pub fn writes(self) -> bool {
        matches!(self, OpenMode::Direct | OpenMode::Buffered)
    }
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DirEntry {
    /// The last component of the path.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// The space of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Bytes that it has free for us.
    pub free_bytes: u64,
    /// Bytes that it has, whoever uses them.
    pub total_bytes: u64,
}

/// What a disk operation came to.
#[derive(Debug)]
pub enum DiskDone {
    /// `open`: the file, and its length in bytes.
    Opened(FileId, u64),
    /// `append_durable`: written and flushed. `write`, `flush`, `set_len`, `rename`, `unlink`, `make_dir`, `sync_dir`: done.
    Done,
    /// `read`: the block, advanced by the bytes read; fewer than asked for only at the file's end.
    Read(Block),
    /// `list`: sorted by name.
    Names(Vec<DirEntry>),
    /// `space`: of the file system that we are on.
    Space(Space),
    /// `map`: the file's bytes.
    Mapped(Slice),
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} of {} bytes)", self.len(), self.capacity())
    }
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The write half of an `append_durable` has completed, whole. Its flush has not.
    Written(Token),
    /// A disk operation is over. For `append_durable`, `Ok` means written and flushed; any error means that nothing
    /// may be acknowledged, whether or not the bytes reached the disk.
    Disk(Token, Result<DiskDone, IoError>),
    /// A listener is ready at this address, or could not be set up.
    Listening(Token, Result<SocketAddr, IoError>),
    /// A listener took a connection. Some shard must [`Io::adopt`] it.
    Accepted(Token, Socket),
    /// Bytes came in, in order.
    Received(ConnId, Slice),
    /// Everything handed to the connection's last `send` has been taken by the kernel.
    Sent(ConnId),
    /// The connection is over, from either side; nothing about it follows.
    Closed(ConnId, CloseReason),
    /// An offloaded job is done.
    Offloaded(Token, Box<dyn Any + Send>),
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The peer closed it in good order.
    PeerClosed,
    /// It broke.
    Broken(IoError),
    /// We closed it.
    Ours,
}

/// How long a poll may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until something happens, or the clock reaches this point.
    Until(Nanos),
    /// Until something happens.
    Forever,
}

/// A job for a helper thread.
pub type Job = Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>;

/// Wakes a shard out of its poll, from any thread.
pub trait Bell: Send + Sync {
    /// Makes the shard's current or next poll return.
    fn ring(&self);
}

/// The outside world of one shard.
///
/// Every operation with a [`Token`] completes exactly once, by an [`Event`] that a later [`Io::poll`] returns (an
/// `append_durable` that gets that far is announced by [`Event::Written`] first). Operations submitted to different
/// files complete in any order; on one file, a `flush` covers the writes that *completed* before it was submitted and
/// no others. Buffers belong to the backend until the completion. Paths are relative to the data directory, with `/`.
pub trait Io {
    /// The monotonic clock. It moves within a turn, too.
    fn now(&self) -> Nanos;
    /// The wall clock.
    fn wall_ms(&self) -> WallMs;
    /// Chance.
    fn random(&mut self) -> u64;

    /// Opens a file: [`DiskDone::Opened`].
    fn open(&mut self, token: Token, path: &str, mode: OpenMode);
    /// Closes a file with nothing in flight.
    fn close(&mut self, file: FileId);
    /// Writes `bytes` at `at`, both multiples of a disk block, then flushes the file: [`Event::Written`], then
    /// [`DiskDone::Done`]. A short write is completed and flushed again before anything is announced.
    fn append_durable(&mut self, token: Token, file: FileId, at: u64, bytes: Slice);
    /// Writes `bytes` at `at`, whole: [`DiskDone::Done`]. Aligned if the file is [`OpenMode::Direct`]. Durable after a
    /// `flush` submitted after the completion.
    fn write(&mut self, token: Token, file: FileId, at: u64, bytes: Slice);
    /// Reads up to `len` bytes at `at` into the block's spare room: [`DiskDone::Read`].
    fn read(&mut self, token: Token, file: FileId, at: u64, into: Block, len: usize);
    /// Makes the file's completed writes and its length durable (fdatasync). Its directory entry is another matter.
    fn flush(&mut self, token: Token, file: FileId);
    /// Cuts or extends the file.
    fn set_len(&mut self, token: Token, file: FileId, len: u64);
    /// Maps a file that is written no more, and has it read into the page cache as far as memory goes:
    /// [`DiskDone::Mapped`].
    fn map(&mut self, token: Token, path: &str);
    /// Whether these bytes of a map are in memory, so that touching them does not wait for the disk.
    fn is_resident(&mut self, mapped: &Slice) -> bool;
    /// Drops the last slice of a map, and does not hold up the caller for as long as that takes.
    fn unmap(&mut self, map: Slice);
    /// Renames, replacing what is there. Durable after `sync_dir` of both directories.
    fn rename(&mut self, token: Token, from: &str, to: &str);
    /// Removes a file, or an empty directory. Durable after `sync_dir` of its directory.
    fn unlink(&mut self, token: Token, path: &str);
    /// Makes a directory; one that exists is fine. Durable after `sync_dir` of its parent.
    fn make_dir(&mut self, token: Token, path: &str);
    /// Makes the directory's entries durable. The empty path is the data directory itself.
    fn sync_dir(&mut self, token: Token, path: &str);
    /// Lists a directory: [`DiskDone::Names`].
    fn list(&mut self, token: Token, path: &str);
    /// Asks for the space that there is: [`DiskDone::Space`].
    fn space(&mut self, token: Token);

    /// Listens: [`Event::Listening`], then an [`Event::Accepted`] for every connection. Port 0 picks a free one.
    fn listen(&mut self, token: Token, address: SocketAddr);
    /// Stops accepting.
    fn unlisten(&mut self, token: Token);
    /// Makes an accepted connection this shard's. Reading is on.
    fn adopt(&mut self, socket: Socket) -> ConnId;
    /// Turns reading from a connection on or off. What was under way when it is turned off may still arrive.
    fn receive(&mut self, conn: ConnId, on: bool);
    /// Has what comes in next put into `room` until that is full: each [`Event::Received`] is then a slice of it, right behind
    /// the one before. For the rest of something large whose length is known. One room at a time per connection. A backend that
    /// has events for the connection which it has not handed over may do nothing.
    fn receive_into(&mut self, conn: ConnId, room: Block);
    /// Sends slices, in order, gathered: [`Event::Sent`] when all are taken. One send at a time per connection.
    fn send(&mut self, conn: ConnId, slices: Vec<Slice>);
    /// Copies what is left of the connection's send into `room`, as far as it keeps more memory from being used again
    /// than it is long, and as far as there is room ([`crate::buffer::loosen`]). The send goes on from there, and
    /// [`Event::Sent`] comes as it would have. Nothing happens if no send is under way.
    fn loosen(&mut self, conn: ConnId, room: Block);
    /// Ends a connection: [`Event::Closed`] follows, unless it was announced already.
    fn shutdown(&mut self, conn: ConnId);

    /// Runs a job on a helper thread: [`Event::Offloaded`].
    fn offload(&mut self, token: Token, job: Job);

    /// Wakes another shard's poll, or makes its next one return at once.
    fn wake(&mut self, peer: ShardId);
    /// A bell that wakes this shard from threads that are no shards.
    fn bell(&self) -> std::sync::Arc<dyn Bell>;
    /// Lets a durable append under way go on: its flush starts only when this thread is in the kernel after the write has
    /// ended. For the middle of a turn that may take long; costs next to nothing if there is nothing to go on with.
    fn pump(&mut self);
    /// Submits what is queued: somebody sleeps until it is. The next poll does so anyway.
    fn submit(&mut self);
    /// Submits what is queued, waits as told, and appends what happened to `events` (at most
    /// [`crate::limits::COMPLETIONS_PER_TURN`] entries or a few more). May return nothing.
    fn poll(&mut self, wait: Wait, events: &mut Vec<Event>);
}
