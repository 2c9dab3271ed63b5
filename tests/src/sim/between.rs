//! What may happen between two lives of a node besides a crash: it stops in good order, it starts with another number of
//! shards, and what it has stored rots. Each has chance of its own, so that a seed without them tells its old story.

use millstream_engine::format::batch::BatchHeader;
use millstream_engine::format::partition::SegmentFile;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::World;
use millstream_engine::log::paths;
use millstream_engine::types::ShardId;

use super::canary::Canary;
use super::model::Model;
use super::node::SimNode;
use super::partition::Rotten;

/// The most shards that a node is given.
const SHARDS_MAX: u64 = 4;
/// Bits that rot at a time, at most.
const ROTS_MAX: u64 = 3;
/// Bytes at the start of a batch that its own checksum does not cover.
const UNCOVERED_BYTES: u64 = 21;

/// Which of it happens in a story.
#[derive(Debug)]
pub struct Between {
    random: Random,
    /// Whether the number of shards changes.
    moves: bool,
    /// Whether lives end in good order.
    stops: bool,
    /// Whether stored segments rot.
    rots: bool,
    /// How often each of the three has happened.
    pub happened: [u32; 3],
}

impl Between {
    /// What a seed has. With a bug planted nothing else is to be noticed than that.
    pub fn of(seed: u64, canary: Canary) -> Between {
        let mut random = Random::stream(seed, "between lives");
        let mut plain = || random.chance(0.4) && canary == Canary::None;
        let (moves, stops, rots) = (plain(), plain(), plain());
        let rots = rots || canary == Canary::SumsMissing;
        Between { random, moves, stops, rots, happened: [0; 3] }
    }

    /// With how many shards the node starts next.
    pub fn shards(&mut self, before: u16) -> u16 {
        if !self.moves || self.random.chance(0.5) {
            return before;
        }
        let shards = self.random.between(1, SHARDS_MAX) as u16;
        self.happened[0] += u32::from(shards != before);
        shards
    }

    /// Whether this life ends in good order.
    pub fn stops_now(&mut self) -> bool {
        let stops = self.stops && self.random.chance(0.5);
        self.happened[1] += u32::from(stops);
        stops
    }

    /// Flips bits of stored segments' files, before anybody has read them in this life.
    pub fn rot(&mut self, world: &World, node: &SimNode, model: &mut Model) {
        if !self.rots || self.random.chance(0.5) {
            return;
        }
        let mut stored = Vec::new();
        for shard in 0..node.shards() {
            for (_, log) in node.shard(ShardId(shard)).logs().iter() {
                let ends = log.segments.iter().skip(1).map(|next| next.base).chain([log.next_offset]);
                for (segment, end) in log.segments.iter().zip(ends) {
                    let known = model
                        .partitions
                        .get(&log.id)
                        .is_none_or(|known| known.rotten.iter().any(|rotten| rotten.from == segment.base.0));
                    if segment.stored && segment.size > 0 && segment.base >= log.log_start && !known {
                        stored.push((log.id, log.directory.clone(), segment.base, end));
                    }
                }
            }
        }
        for _ in 0..self.random.between(1, ROTS_MAX) {
            if stored.is_empty() {
                return;
            }
            let chosen = self.random.below(stored.len() as u64) as usize;
            let (of, directory, base, end) = stored.swap_remove(chosen);
            let file = match self.random.below(10) {
                0 => SegmentFile::Sum,
                1 | 2 => SegmentFile::Index,
                3 => SegmentFile::TimeIndex,
                _ => SegmentFile::Log,
            };
            let path = paths::segment(&directory, base, file);
            let Some(bytes) = world.read_file(&path).filter(|bytes| !bytes.is_empty()) else { continue };
            let position = if file == SegmentFile::Log && self.random.chance(0.5) {
                self.in_a_header(&bytes)
            } else {
                self.random.below(bytes.len() as u64)
            };
            world.rot(&path, position, self.random.below(8) as u8);
            self.happened[2] += 1;
            model.rotted(of, Rotten { from: base.0, to: end.0, file });
        }
    }

    /// A byte of some batch that its checksum does not cover.
    fn in_a_header(&mut self, mut bytes: &[u8]) -> u64 {
        let whole = bytes.len();
        let mut starts = Vec::new();
        while let Ok(header) = BatchHeader::parse(bytes) {
            starts.push((whole - bytes.len()) as u64);
            bytes = bytes.get(header.size..).unwrap_or_default();
        }
        let start = starts.get(self.random.below(starts.len().max(1) as u64) as usize);
        start.map_or(0, |start| start + self.random.below(UNCOVERED_BYTES))
    }
}
