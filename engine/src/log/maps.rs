//! Stored segments that are read again and again are mapped, and sent from the map without a copy in user space.
//!
//! A segment is mapped when it is read once more after all of its blocks have been checked. Cold reads go past the page
//! cache, so a helper thread reads the segment into it first; meanwhile, and when memory is so short that its pages have
//! gone again, readers read it as before. What is served is resident, so that no send waits for the disk with the whole
//! shard. Bits that flip on the disk after a block was checked are found by the scrub only, as with blocks that are read
//! again.

use super::table::LogIndex;
use crate::buffer::Slice;
use crate::cache::blocks::Lru;
use crate::error::IoError;
use crate::io::{DiskDone, Io, Token};
use crate::limits::{MAPPED_BYTES_MAX, MAPS_IDLE_MAX};
use crate::time::Nanos;
use crate::types::Offset;

/// How long a segment is not mapped anew that could not be, or some of whose pages did not stay.
const PAUSE: Nanos = Nanos::from_millis(60_000);

/// What is known of a segment's map.
#[derive(Clone)]
enum Map {
    /// Made at that time.
    Of(Slice, Nanos),
    /// It is not to be mapped before that time.
    Not(Nanos),
}

/// What became of an attempt to serve bytes from a map.
pub enum Look {
    /// Here they are.
    Served(Slice),
    /// They are to be read.
    Elsewhere,
    /// The same, and the segment is worth a map: [`Maps::start`].
    Unmapped,
}

/// A map being made.
struct Making {
    segment: (LogIndex, Offset),
    /// The segment has been forgotten meanwhile.
    forgotten: bool,
}

/// The maps of a shard. Those used longest ago go first.
pub struct Maps {
    token: Token,
    known: Lru<(LogIndex, Offset), Map>,
    making: Option<Making>,
    /// To be unmapped when nobody has a slice of them any more. That takes milliseconds for a large one, so it is done
    /// on a helper thread.
    idle: Vec<Slice>,
    chunks_served: u64,
}

impl Maps {
    /// None yet. They are made under `token`, whose completions go to [`Maps::made`].
    pub fn new(token: Token) -> Maps {
        Maps { token, known: Lru::new(MAPPED_BYTES_MAX), making: None, idle: Vec::new(), chunks_served: 0 }
    }

    /// Looks for `len` bytes at `position` of a stored segment all of whose blocks have been checked.
    pub fn look<I: Io>(&mut self, io: &mut I, segment: (LogIndex, Offset), position: u32, len: u32) -> Look {
        let (map, since) = match self.known.get(&segment) {
            Some(Map::Of(map, since)) => (map, since),
            Some(Map::Not(until)) if io.now() < until => return Look::Elsewhere,
            // One is made at a time; and none while too many wait to be unmapped.
            _ if self.making.is_some() || self.idle.len() >= MAPS_IDLE_MAX => return Look::Elsewhere,
            _ => return Look::Unmapped,
        };
        let (start, end) = (position as usize, position as usize + len as usize);
        if end > map.len() {
            return Look::Elsewhere;
        }
        let bytes = map.slice(start..end);
        if !io.is_resident(&bytes) {
            if io.now().since(since) > PAUSE {
                let gone = self.known.insert(segment, Map::Not(Nanos::ZERO), 1);
                self.retire(gone);
            }
            return Look::Elsewhere;
        }
        self.chunks_served += 1;
        Look::Served(bytes)
    }

    /// Starts to map a segment, whose file is `path`.
    pub fn start<I: Io>(&mut self, io: &mut I, segment: (LogIndex, Offset), path: &str) {
        assert!(self.making.is_none(), "one map is made at a time");
        self.making = Some(Making { segment, forgotten: false });
        io.map(self.token, path);
    }

    /// A segment has been mapped, or cannot be.
    pub fn made<I: Io>(&mut self, io: &I, done: Result<DiskDone, IoError>) {
        let Making { segment, forgotten } = self.making.take().expect("a map was being made");
        let gone = match done {
            Ok(DiskDone::Mapped(map)) if forgotten => vec![Map::Of(map, Nanos::ZERO)],
            Ok(DiskDone::Mapped(map)) => {
                let cost = map.len();
                self.known.insert(segment, Map::Of(map, io.now()), cost)
            }
            Err(_) if forgotten => Vec::new(),
            Err(error) => {
                tracing::warn!(segment = segment.1.0, %error, "a segment cannot be mapped");
                self.known.insert(segment, Map::Not(io.now() + PAUSE), 1)
            }
            Ok(other) => panic!("a map was answered {other:?}"),
        };
        self.retire(gone);
    }

    /// Forgets the maps of these segments.
    pub fn forget(&mut self, segments: std::ops::RangeInclusive<(LogIndex, Offset)>) {
        if let Some(making) = &mut self.making {
            making.forgotten |= segments.contains(&making.segment);
        }
        let gone = self.known.remove_range(segments);
        self.retire(gone);
    }

    fn retire(&mut self, maps: Vec<Map>) {
        self.idle.extend(maps.into_iter().filter_map(|map| match map {
            Map::Of(map, _) => Some(map),
            Map::Not(_) => None,
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
