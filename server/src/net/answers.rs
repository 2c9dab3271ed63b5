//! What the answers of a shard's connections keep in memory together, and who waits until that is less.
//!
//! Stored batches in them do not count: they lie in the engine's memory, which bounds them. What counts are bytes of the
//! broker's own, until the kernel has taken them. There are two rungs. From half of what there may be on, a connection begins
//! nothing while anything of its own is under way, and whoever takes nothing is hung up on. At all of it nobody begins anything.
//! So what there is grows past that only by the answers to what was begun before.

use std::collections::VecDeque;

use millstream_engine::io::ConnId;

/// Answers of all connections of a shard.
#[derive(Debug)]
pub struct Answers {
    bytes: usize,
    bytes_max: usize,
    /// Who has nothing under way, and begins nothing because of the others.
    kept_out: VecDeque<ConnId>,
    /// Who has something under way, and begins nothing beside it.
    held_back: VecDeque<ConnId>,
}

impl Answers {
    /// None yet, and at most `bytes_max`: `queued.max.response.bytes`.
    pub fn new(bytes_max: usize) -> Answers {
        Answers { bytes: 0, bytes_max, kept_out: VecDeque::new(), held_back: VecDeque::new() }
    }

    /// Bytes of the broker's own in them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A connection that had `before` bytes has `now`.
    pub fn count(&mut self, before: usize, now: usize) {
        self.bytes = self.bytes - before + now;
    }

    /// Whether there are so many that whoever takes none is in the way.
    pub fn are_many(&self) -> bool {
        self.bytes >= self.bytes_max / 2
    }

    /// Whether there are so many that nobody asks for more.
    pub fn are_too_many(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// Whether a connection may begin a request; `idle` says that nothing is under way for it.
    pub fn admit(&self, idle: bool) -> bool {
        if idle { !self.are_too_many() } else { !self.are_many() }
    }

    /// A connection that is not admitted waits until it is let in.
    pub fn keep_out(&mut self, conn: ConnId, idle: bool) {
        if idle { self.kept_out.push_back(conn) } else { self.held_back.push_back(conn) }
    }

    /// Whether anybody waits.
    pub fn keep_out_any(&self) -> bool {
        !(self.kept_out.is_empty() && self.held_back.is_empty())
    }

    /// Who has waited for longest, of those that there is room for. It may be gone.
    pub fn let_in(&mut self) -> Option<ConnId> {
        let kept_out = if self.admit(true) { self.kept_out.pop_front() } else { None };
        kept_out.or_else(|| if self.admit(false) { self.held_back.pop_front() } else { None })
    }
}
