//! What stands for the engine: it stores nothing, and what is read from it is made from the position.

use std::collections::{BTreeMap, VecDeque};

use millstream_engine::buffer::Slice;
use millstream_engine::error::Refusal;
use millstream_engine::io::ConnId;
use millstream_engine::limits::READ_CHUNK_BYTES;
use millstream_engine::reactor::app::AppToken;
use millstream_engine::shard::request::{Appended, Chunk, Extent, Range, ReadReply, Reply, Request, WatchId};
use millstream_engine::types::Offset;

/// Bytes that a read may find.
const FOUND_BYTES: [u32; 6] = [0, 8, 1_000, 70_000, 300_000, 900_000];

/// Requests that have not been answered, and watches.
#[derive(Debug, Default)]
pub struct Engine {
    pub asked: VecDeque<(AppToken, Option<ConnId>, Request)>,
    watches: BTreeMap<WatchId, AppToken>,
    /// What reads have found, by where it starts.
    found: BTreeMap<u32, u32>,
    next: u32,
}

impl Engine {
    /// Watches that are registered.
    pub fn watches(&self) -> usize {
        self.watches.len()
    }

    /// Answers one request, as `how` says. Gives whose load was refused.
    pub fn answer(&mut self, place: usize, how: usize) -> (Vec<(AppToken, Reply)>, Option<ConnId>) {
        let Some((token, conn, request)) = self.asked.remove(place) else { return (Vec::new(), None) };
        let reply = match request {
            Request::Append { .. } => {
                let base_offset = Offset(7);
                Reply::Appended(Appended { base_offset, append_time: None, log_start: Offset(0) })
            }
            Request::Read { partition, offset, .. } => {
                let len = FOUND_BYTES[how % FOUND_BYTES.len()];
                let range = Range { partition, segment: Offset(0), position: self.next, len };
                let chunk = if len == 0 { Chunk::default() } else { load(range, how) };
                if len > 0 {
                    self.found.insert(self.next, len);
                    self.next += len.next_multiple_of(8);
                }
                let high_watermark = Offset(offset.0 + u64::from(len > 0));
                Reply::Read(ReadReply { chunk, high_watermark, log_start: Offset(0) })
            }
            Request::Load(_) if how == 255 => {
                return (vec![(token, Reply::Refused(Refusal::ReadFailed))], conn);
            }
            Request::Load(range) => Reply::Loaded(load(range, how)),
            Request::Watch { watch, .. } => {
                self.watches.insert(watch, token);
                return (Vec::new(), None);
            }
            Request::Unwatch(watch) => {
                // A shard is asked in order: the watch was there before.
                let is_asked =
                    |asked: &Request| matches!(asked, Request::Watch { watch: id, .. } if *id == watch);
                if let Some(place) = self.asked.iter().position(|(_, _, asked)| is_asked(asked))
                    && let Some((token, ..)) = self.asked.remove(place)
                {
                    self.watches.insert(watch, token);
                }
                let woken = self.watches.remove(&watch).map(|token| (token, Reply::Woken(watch)));
                return (woken.into_iter().chain([(token, Reply::Done)]).collect(), None);
            }
            Request::Extents(partitions) => {
                let extent = |partition| Extent {
                    partition,
                    bytes: 0,
                    log_start: Offset(0),
                    high_watermark: Offset(1),
                };
                Reply::Extents(partitions.into_iter().map(extent).collect())
            }
            other => panic!("nobody here asks {other:?}"),
        };
        (vec![(token, reply)], None)
    }

    /// Wakes whoever has watched for longest.
    pub fn wake(&mut self) -> Option<(AppToken, Reply)> {
        let (watch, token) = self.watches.pop_first()?;
        Some((token, Reply::Woken(watch)))
    }

    /// What a fetch gave is nothing, or all that a read has found.
    pub fn check(&mut self, bytes: &[u8]) {
        let Some(first) = bytes.first_chunk::<8>() else { return assert!(bytes.is_empty()) };
        let start = u64::from_le_bytes(*first) as u32;
        assert_eq!(self.found.remove(&start), Some(bytes.len() as u32), "not what a read has found");
        assert!(bytes == stretch(start, bytes.len() as u32), "other bytes than are stored");
    }
}

/// The first chunk of a range, in two slices, or three.
fn load(range: Range, how: usize) -> Chunk {
    let most = [READ_CHUNK_BYTES as u32, 20_000, 1][how / 8 % 3];
    let bytes =
        stretch(range.position, range.len.min(if range.len > 1_000 { most.max(20_000) } else { most }));
    let piece = bytes.len().div_ceil(2).max(1);
    let bytes = bytes.chunks(piece).map(|piece| Slice::from(piece.to_vec())).collect();
    Chunk { bytes, range: Some(range) }
}

/// Each eight bytes from a multiple of eight on are their position.
fn stretch(position: u32, len: u32) -> Vec<u8> {
    let first = position / 8 * 8;
    let words = (first..position + len).step_by(8).flat_map(|at| u64::from(at).to_le_bytes());
    words.skip((position - first) as usize).take(len as usize).collect()
}
