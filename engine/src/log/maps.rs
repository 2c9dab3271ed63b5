//! Stored segments that are read again and again are mapped, and sent from the map without a copy in user space.
//!
//! A segment is mapped when it is read once more after all of its blocks have been checked. What is served is resident,
//! so that no send waits for the disk with the whole shard; what is not is read, which fills the page cache again. Bits
//! that flip on the disk after a block was checked are found by the scrub only, as with blocks that are read again.

use super::table::LogIndex;
use crate::buffer::Slice;
use crate::cache::blocks::Lru;
use crate::io::Io;
use crate::limits::{MAPPED_BYTES_MAX, MAPS_IDLE_MAX};
use crate::types::Offset;

/// What is known of a segment's map.
#[derive(Clone)]
enum Map {
    Of(Slice),
    /// It cannot be mapped.
    Refused,
}

/// What became of an attempt to serve bytes from a map.
pub enum Look {
    /// Here they are.
    Served(Slice),
    /// They are to be read.
    Elsewhere,
    /// The segment is to be mapped first: [`Maps::insert`], or [`Maps::refuse`].
    Unmapped,
}

/// The maps of a shard. Those used longest ago go first.
pub struct Maps {
    known: Lru<(LogIndex, Offset), Map>,
    /// To be unmapped when nobody has a slice of them any more. That takes milliseconds for a large one, so it is done
    /// on a helper thread.
    idle: Vec<Slice>,
    chunks_served: u64,
}

impl Default for Maps {
    fn default() -> Maps {
        Maps { known: Lru::new(MAPPED_BYTES_MAX), idle: Vec::new(), chunks_served: 0 }
    }
}

impl Maps {
    /// Looks for `len` bytes at `position` of a stored segment all of whose blocks have been checked.
    pub fn look<I: Io>(&mut self, io: &mut I, segment: (LogIndex, Offset), position: u32, len: u32) -> Look {
        let map = match self.known.get(&segment) {
            // Too many wait to be unmapped: no new ones meanwhile.
            None if self.idle.len() >= MAPS_IDLE_MAX => return Look::Elsewhere,
            None => return Look::Unmapped,
            Some(Map::Refused) => return Look::Elsewhere,
            Some(Map::Of(map)) => map,
        };
        let (start, end) = (position as usize, position as usize + len as usize);
        if end > map.len() {
            return Look::Elsewhere;
        }
        let bytes = map.slice(start..end);
        if !io.is_resident(&bytes) {
            return Look::Elsewhere;
        }
        self.chunks_served += 1;
        Look::Served(bytes)
    }

    /// A segment has been mapped.
    pub fn insert(&mut self, segment: (LogIndex, Offset), map: Slice) {
        let cost = map.len();
        let gone = self.known.insert(segment, Map::Of(map), cost);
        self.retire(gone);
    }

    /// A segment cannot be mapped: it is not tried again while this is remembered.
    pub fn refuse(&mut self, segment: (LogIndex, Offset)) {
        let gone = self.known.insert(segment, Map::Refused, 1);
        self.retire(gone);
    }

    /// Forgets the maps of these segments.
    pub fn forget(&mut self, segments: std::ops::RangeInclusive<(LogIndex, Offset)>) {
        let gone = self.known.remove_range(segments);
        self.retire(gone);
    }

    fn retire(&mut self, maps: Vec<Map>) {
        self.idle.extend(maps.into_iter().filter_map(|map| match map {
            Map::Of(map) => Some(map),
            Map::Refused => None,
        }));
    }

    /// Unmaps what nobody uses any more.
    pub fn unmap_idle<I: Io>(&mut self, io: &mut I) {
        for map in self.idle.extract_if(.., |map| map.is_last()) {
            io.unmap(map);
        }
    }

    /// Bytes that are mapped, or wait to be unmapped.
    pub fn mapped_bytes(&self) -> usize {
        self.known.cost() + self.idle.iter().map(|map| map.len()).sum::<usize>()
    }

    /// Chunks that were served from maps.
    pub fn chunks_served(&self) -> u64 {
        self.chunks_served
    }
}
