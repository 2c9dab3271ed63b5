//! The fault model: what the world outside may do to us, and what it may not.
//!
//! **Time** passes everywhere: at every look at the clock, at every poll. Whatever was submitted completes after a
//! random while, in any order, across files and within one; only the flush of an `append_durable` comes after its
//! write. The wall clock may be set, forwards and backwards.
//!
//! **A write** takes its bytes from the buffer at any moment until it completes. It changes whole blocks of 4 KiB. It
//! may fail with EIO or for want of space, having written any part; it may fall short, in which case the backend
//! writes the rest before it announces anything (a crash in between finds the first part); it may report success and
//! have gone to another place of the same file (misdirected).
//!
//! **A flush** makes durable the writes and lengths of its own file that had completed when it was submitted, and
//! nothing else. It may fail: then each block that it covered is durable or will never be, nobody knows which, and a
//! later flush that succeeds proves nothing about them. It may lie: report success and have done nothing (no honest
//! disk does; canary tests use it to prove that the checkers would notice).
//!
//! **Names** are apart from content: creating, renaming and removing become durable when every directory concerned
//! has been flushed since. A rename is atomic. A flushed file whose name is not durable is lost in a power loss.
//!
//! **A killed process** loses what was in flight, block by block; what completed stays in the page cache. **A power
//! loss** keeps what is durable and any subset of the rest: each unflushed block on its own, of the unflushed lengths
//! of a file the first few, of the unflushed names any set in which nothing survives that something lost was built on.
//!
//! **A disk** may be slow, full, unreadable in places (EIO), or hold bits that flipped. Blocks are never torn inside.
//!
//! **The network** splits and merges what is received, takes what is sent in parts, delays, resets, falls silent
//! (half-open), or has a peer that does not read. It never reorders or corrupts a connection's bytes.
//!
//! Not modelled: a kernel or device that reorders a flush before the write it follows, or memory that decays.

use crate::error::IoError;
use crate::time::Nanos;

/// How long something takes: evenly drawn between the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// At least.
    pub least: Nanos,
    /// At most.
    pub most: Nanos,
}

impl Span {
    /// From and to, in microseconds.
    pub const fn from_micros(least: u64, most: u64) -> Span {
        Span { least: Nanos::from_micros(least), most: Nanos::from_micros(most) }
    }
}

/// The knobs of a simulated world. Those without a unit are probabilities per operation, from 0 to 1; by default
/// nothing goes wrong, and latencies are those of an ordinary SSD and a local network.
#[derive(Clone, Debug)]
pub struct Faults {
    /// A write fails with EIO, having written some of its first blocks.
    pub write_error: f64,
    /// A write fails for want of space, having written some of its first blocks.
    pub no_space: f64,
    /// A write falls short and is completed by the backend.
    pub short_write: f64,
    /// A write goes to another block of its file and reports success.
    pub misdirected_write: f64,
    /// A flush (also an append's) runs and fails with EIO.
    pub flush_failure: f64,
    /// A flush (also an append's) reports success without making anything durable.
    pub flush_lie: f64,
    /// A read or a mapping fails with EIO.
    pub read_error: f64,
    /// A bit of what is being read flips, on the disk.
    pub rot: f64,
    /// An operation on names (open, rename, unlink, ...) or a change of length fails with EIO and does nothing.
    pub name_error: f64,
    /// An operation takes [`Faults::slow_factor`] times as long.
    pub slow: f64,
    /// See [`Faults::slow`].
    pub slow_factor: u64,
    /// How large the disk is, in bytes. Files take their length, rounded up to blocks.
    pub disk_bytes: u64,
    /// How long a read takes.
    pub read_time: Span,
    /// How long a write takes.
    pub write_time: Span,
    /// How long a flush takes.
    pub flush_time: Span,
    /// How long an operation on names or lengths takes.
    pub name_time: Span,
    /// How long an offloaded job takes.
    pub offload_time: Span,

    /// What was received is handed over in part only; the rest follows. Merging happens by itself.
    pub split_receive: f64,
    /// The kernel takes only a part of what it could of a send; the rest follows.
    pub partial_send: f64,
    /// A connection is reset when bytes arrive on it.
    pub reset: f64,
    /// How long bytes, connections and closings are under way.
    pub network_time: Span,
    /// How many bytes the kernel and the peer's socket hold before a send must wait for the peer to read.
    pub window_bytes: usize,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            write_error: 0.0,
            no_space: 0.0,
            short_write: 0.0,
            misdirected_write: 0.0,
            flush_failure: 0.0,
            flush_lie: 0.0,
            read_error: 0.0,
            rot: 0.0,
            name_error: 0.0,
            slow: 0.0,
            slow_factor: 100,
            disk_bytes: 1 << 40,
            read_time: Span::from_micros(10, 150),
            write_time: Span::from_micros(15, 200),
            flush_time: Span::from_micros(50, 1_000),
            name_time: Span::from_micros(5, 100),
            offload_time: Span::from_micros(1, 500),
            split_receive: 0.0,
            partial_send: 0.0,
            reset: 0.0,
            network_time: Span::from_micros(5, 200),
            window_bytes: 256 << 10,
        }
    }
}

impl Faults {
    /// Everything that a sound disk and a sound network do on a bad day. No data is damaged, nothing reports an error.
    pub fn rough() -> Faults {
        Faults { short_write: 0.1, slow: 0.02, split_receive: 0.5, partial_send: 0.5, ..Faults::default() }
    }
}

/// The operations on the disk that faults are told apart by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OpKind {
    /// `open`
    Open,
    /// `append_durable`
    Append,
    /// `write`
    Write,
    /// `read`
    Read,
    /// `flush`
    Flush,
    /// `set_len`
    SetLen,
    /// `map`
    Map,
    /// `rename`
    Rename,
    /// `unlink`
    Unlink,
    /// `make_dir`
    MakeDir,
    /// `sync_dir`
    SyncDir,
    /// `list`
    List,
    /// `space`
    FreeBytes,
}

impl OpKind {
    /// Whether it changes the disk or makes a change durable: whether a crash next to it can matter.
    pub fn changes_disk(self) -> bool {
        !matches!(self, OpKind::Read | OpKind::Map | OpKind::List | OpKind::FreeBytes)
    }
}

/// What becomes of an operation that an [`Injection`] chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It fails and does nothing; a flush that fails so has not run.
    Fails(IoError),
    /// A write or an append: its first bytes are written, then it fails.
    FailsAfter {
        /// How many.
        bytes: usize,
        /// With this.
        error: IoError,
    },
    /// A write or an append: its first bytes are written, and the rest a while later; only then is it announced.
    FallsShort {
        /// How many.
        bytes: usize,
    },
    /// A write or an append: it is written at this position of its file instead, and reports success.
    Misdirected {
        /// The byte position.
        to: u64,
    },
    /// A flush or an append's flush: it runs and fails.
    FlushFails,
    /// A flush or an append's flush: it reports success and does nothing.
    FlushLies,
    /// A read: one bit of what is read flips on the disk first.
    Rots,
    /// It takes this much longer.
    Slow(Nanos),
}

impl Outcome {
    /// Whether it can befall this kind of operation.
    pub fn suits(self, op: OpKind) -> bool {
        match self {
            Outcome::Fails(_) | Outcome::Slow(_) => true,
            Outcome::FailsAfter { .. } | Outcome::FallsShort { .. } | Outcome::Misdirected { .. } => {
                matches!(op, OpKind::Append | OpKind::Write)
            }
            Outcome::FlushFails | Outcome::FlushLies => matches!(op, OpKind::Append | OpKind::Flush),
            Outcome::Rots => op == OpKind::Read,
        }
    }
}

/// One fault, placed exactly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Injection {
    /// The kind of operation.
    pub op: OpKind,
    /// Only operations on paths that contain this; the empty text is in every path.
    pub path: String,
    /// How many operations of that kind and path are let pass before.
    pub skip: u64,
    /// What happens to the chosen one.
    pub outcome: Outcome,
}
