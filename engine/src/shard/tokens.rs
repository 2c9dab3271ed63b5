//! Whose completion is it: the owners of a shard's operations.

/// The group in flight.
pub const COMMIT: u8 = 1;
/// A journal file being made.
pub const GROW: u8 = 2;
/// The trimmer's jobs and checkpoint.
pub const TRIM: u8 = 3;
/// A cold read; its number is the read's slot.
pub const COLD: u8 = 4;
/// The removal of files.
pub const REMOVE: u8 = 5;
/// The question for free space.
pub const SPACE: u8 = 6;
/// The metadata log.
pub const METADATA: u8 = 7;
/// The listener.
pub const LISTEN: u8 = 8;
/// A job of the host.
pub const OFFLOAD: u8 = 9;
/// A segment being mapped.
pub const MAP: u8 = 10;
/// The scrub.
pub const SCRUB: u8 = 12;
/// The flush of directories that were renamed.
pub const DEPARTURES: u8 = 11;
/// A group with messages of queues being read back; its number is the read's.
pub const QUEUE_READ: u8 = 13;
/// A file for survivors of the journal.
pub const QUEUE_STORE: u8 = 14;
/// A page of a queue's index being read or written; its number is the operation's.
pub const QUEUE_PAGE: u8 = 15;
/// A file for messages that are not kept over a restart; its number is the operation's.
pub const QUEUE_PASSING: u8 = 16;
/// Memory being made ready.
pub const WARM: u8 = 17;
