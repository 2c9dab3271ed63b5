//! What a checkpoint tells of a shard's queues; it stands behind the partitions, if there is any. Little-endian:
//!
//! number of queues (4), of files of survivors (4), of names without queues (4), of names (4); each file: number (8), bytes (8); each
//! name without queues: queue (16), sequence (8); each name: queue (16), sequence (8), number of queues (4), zero (4), and so many ids
//! (16 each); each queue:
//!
//! | bytes | field |
//! |---|---|
//! | 16 | id |
//! | 4 each | how many there are of the five below; then 4 bytes zero |
//! | 8 each | per rank, the sequence that comes next |
//! | 8 each | per rank, the sequence up to which messages may have been delivered |
//! | | runs of messages that are not settled: first chunk (8), number of chunks (4), kind (4): 0 all 64 messages of each chunk, 1 some, and then a mask (8) for each |
//! | 16 each | messages that have come back failed: sequence, how often |
//! | 16 each | messages that have to leave: sequence, why, see [`super::message`] |
//!
//! A name is that of a message which came from a queue of another shard and may come once more; its queues are those here that have it.
//! Versions before did not write these: for a name of theirs all queues here that the message was for have it.
//!
//! A chunk is 64 sequences, the first a multiple of 64. Only messages that are kept over a restart count.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::message::{decode_pairs, encode_pairs};
use super::take::take;
use crate::types::{QueueId, Seq};

/// How a shard's queues stood.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueuesState {
    /// The files that survivors of the journal are in.
    pub stores: Vec<StoreState>,
    /// Messages that came from queues of other shards and may come once more, and have come to all queues that they were for.
    pub arrived: Vec<(QueueId, Seq)>,
    /// The same, of which it is known where they have come to. The names rise.
    pub moved: Vec<MovedState>,
    /// Each durable queue of which there is something to tell.
    pub queues: Vec<QueueState>,
}

/// How far a file of survivors goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreState {
    /// Its number.
    pub number: u64,
    /// Bytes of it that are flushed.
    pub bytes: u64,
}

/// A message that came from a queue of another shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MovedState {
    /// The queue that it came from.
    pub queue: QueueId,
    /// Its number there.
    pub seq: Seq,
    /// The queues here that have it, at least one.
    pub targets: Vec<QueueId>,
}

/// How a queue stood.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueueState {
    /// Which queue.
    pub id: QueueId,
    /// Per rank, the sequence that comes next.
    pub next: Vec<Seq>,
    /// Per rank, the sequence up to which messages may have been delivered.
    pub marks: Vec<Seq>,
    /// Messages that are not settled: chunks and masks. The chunks rise, and no mask is empty.
    pub live: Vec<(u64, u64)>,
    /// Messages that have come back failed, and how often.
    pub failed: Vec<(u64, u64)>,
    /// Messages that have to leave, and why.
    pub leaving: Vec<(u64, u64)>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawQueue {
    id: [u8; 16],
    next: U32,
    marks: U32,
    runs: U32,
    failed: U32,
    leaving: U32,
    zero: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRun {
    first: U64,
    chunks: U32,
    kind: U32,
}

const _: () = assert!(size_of::<RawQueue>() == 40 && size_of::<RawRun>() == 16);

const FULL: u32 = 0;
const MASKS: u32 = 1;

impl QueuesState {
    /// Appends it, if there is anything.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        let names = self.arrived.len() + self.moved.len();
        if self.stores.is_empty() && self.queues.is_empty() && names == 0 {
            return;
        }
        for count in [self.queues.len(), self.stores.len(), self.arrived.len(), self.moved.len()] {
            bytes.extend_from_slice(&(count as u32).to_le_bytes());
        }
        for store in &self.stores {
            bytes.extend_from_slice(&store.number.to_le_bytes());
            bytes.extend_from_slice(&store.bytes.to_le_bytes());
        }
        for (queue, seq) in &self.arrived {
            bytes.extend_from_slice(&queue.0);
            bytes.extend_from_slice(&seq.0.to_le_bytes());
        }
        for MovedState { queue, seq, targets } in &self.moved {
            bytes.extend_from_slice(&queue.0);
            bytes.extend_from_slice(&seq.0.to_le_bytes());
            bytes.extend_from_slice(&(targets.len() as u64).to_le_bytes());
            for target in targets {
                bytes.extend_from_slice(&target.0);
            }
        }
        for queue in &self.queues {
            queue.encode(bytes);
        }
    }

    /// Reads it; `None` if it is malformed.
    pub fn decode(mut rest: &[u8]) -> Option<QueuesState> {
        let mut state = QueuesState::default();
        if rest.is_empty() {
            return Some(state);
        }
        let [queues, stores, arrived, moved] = take::<[U32; 4]>(&mut rest)?.map(U32::get);
        for _ in 0..stores {
            let (number, bytes) = (take::<U64>(&mut rest)?.get(), take::<U64>(&mut rest)?.get());
            state.stores.push(StoreState { number, bytes });
        }
        for _ in 0..arrived {
            state.arrived.push((QueueId(take(&mut rest)?), Seq(take::<U64>(&mut rest)?.get())));
        }
        for _ in 0..moved {
            state.moved.push(MovedState::decode(&mut rest)?);
        }
        for _ in 0..queues {
            state.queues.push(QueueState::decode(&mut rest)?);
        }
        let rising = state.queues.windows(2).all(|pair| pair[0].id < pair[1].id)
            && state.stores.windows(2).all(|pair| pair[0].number < pair[1].number)
            && state.moved.windows(2).all(|pair| (pair[0].queue, pair[0].seq) < (pair[1].queue, pair[1].seq));
        (rest.is_empty() && rising).then_some(state)
    }
}

impl MovedState {
    fn decode(rest: &mut &[u8]) -> Option<MovedState> {
        let (queue, seq) = (QueueId(take(rest)?), Seq(take::<U64>(rest)?.get()));
        let [count, zero] = take::<[U32; 2]>(rest)?.map(U32::get);
        let ids = rest.split_off(..(count as usize).checked_mul(size_of::<QueueId>())?)?;
        let targets = ids.as_chunks().0.iter().map(|id| QueueId(*id)).collect();
        (count > 0 && zero == 0).then_some(MovedState { queue, seq, targets })
    }
}

impl QueueState {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let runs = runs(&self.live);
        let raw = RawQueue {
            id: self.id.0,
            next: U32::new(self.next.len() as u32),
            marks: U32::new(self.marks.len() as u32),
            runs: U32::new(runs.len() as u32),
            failed: U32::new(self.failed.len() as u32),
            leaving: U32::new(self.leaving.len() as u32),
            zero: U32::new(0),
        };
        bytes.extend_from_slice(raw.as_bytes());
        for seq in self.next.iter().chain(&self.marks) {
            bytes.extend_from_slice(&seq.0.to_le_bytes());
        }
        for run in runs {
            let kind = if run[0].1 == u64::MAX { FULL } else { MASKS };
            let raw = RawRun {
                first: U64::new(run[0].0),
                chunks: U32::new(run.len() as u32),
                kind: U32::new(kind),
            };
            bytes.extend_from_slice(raw.as_bytes());
            for (_, mask) in run.iter().filter(|_| kind == MASKS) {
                bytes.extend_from_slice(&mask.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&encode_pairs(&self.failed));
        bytes.extend_from_slice(&encode_pairs(&self.leaving));
    }

    fn decode(rest: &mut &[u8]) -> Option<QueueState> {
        let raw: RawQueue = take(rest)?;
        let mut state = QueueState { id: QueueId(raw.id), ..QueueState::default() };
        for _ in 0..raw.next.get() {
            state.next.push(Seq(take::<U64>(rest)?.get()));
        }
        for _ in 0..raw.marks.get() {
            state.marks.push(Seq(take::<U64>(rest)?.get()));
        }
        for _ in 0..raw.runs.get() {
            let run: RawRun = take(rest)?;
            let chunks = u64::from(run.chunks.get());
            let end = run.first.get().checked_add(chunks)?;
            // What a run of whole chunks says takes no room here: what it makes is bounded by what numbers can be given.
            if chunks == 0 || end > 1 << 58 || run.kind.get() == FULL && chunks > FULL_CHUNKS_MAX {
                return None;
            }
            for chunk in run.first.get()..end {
                let mask = match run.kind.get() {
                    FULL => u64::MAX,
                    MASKS => take::<U64>(rest)?.get(),
                    _ => return None,
                };
                state.live.push((chunk, mask));
            }
        }
        for (count, pairs) in [(raw.failed.get(), &mut state.failed), (raw.leaving.get(), &mut state.leaving)]
        {
            let bytes = rest.split_off(..(count as usize).checked_mul(16)?)?;
            pairs.extend(decode_pairs(bytes)?);
        }
        let sound = raw.zero.get() == 0
            && state.next.len() <= 256
            && state.live.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && state.live.iter().all(|(_, mask)| *mask != 0);
        sound.then_some(state)
    }

    /// Whether a message was not settled.
    pub fn is_live(&self, seq: Seq) -> bool {
        let found = self.live.binary_search_by_key(&(seq.0 / 64), |(chunk, _)| *chunk);
        found.is_ok_and(|at| self.live[at].1 & 1 << (seq.0 % 64) != 0)
    }
}

/// Whole chunks that one run may have, so that few bytes do not claim much memory.
const FULL_CHUNKS_MAX: u64 = 1 << 16;

/// Chunks that follow each other and are alike: all full, or none.
fn runs(live: &[(u64, u64)]) -> Vec<&[(u64, u64)]> {
    let alike = |a: &(u64, u64), b: &(u64, u64)| a.0 + 1 == b.0 && (a.1 == u64::MAX) == (b.1 == u64::MAX);
    let mut runs = Vec::new();
    for run in live.chunk_by(alike) {
        runs.extend(run.chunks(FULL_CHUNKS_MAX as usize));
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> QueuesState {
        let full = u64::MAX;
        QueuesState {
            stores: vec![StoreState { number: 1, bytes: 8192 }, StoreState { number: 4, bytes: 0 }],
            arrived: vec![(QueueId([7; 16]), Seq(3))],
            moved: vec![
                MovedState { queue: QueueId([7; 16]), seq: Seq(4), targets: vec![QueueId([1; 16])] },
                MovedState {
                    queue: QueueId([7; 16]),
                    seq: Seq(1 << 57),
                    targets: vec![QueueId([2; 16]), QueueId([1; 16])],
                },
            ],
            queues: vec![
                QueueState { id: QueueId([1; 16]), next: vec![Seq(9)], ..QueueState::default() },
                QueueState {
                    id: QueueId([2; 16]),
                    next: vec![Seq(900), Seq(1 << 56)],
                    marks: vec![Seq(4096)],
                    live: vec![(0, 5), (1, full), (2, full), (3, 1), (9, full), (1 << 50, 2)],
                    failed: vec![(0, 3)],
                    leaving: vec![(2, 1), (64, 4)],
                },
            ],
        }
    }

    #[test]
    fn it_gives_back_what_was_put_in() {
        for state in [QueuesState::default(), sample()] {
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            assert_eq!(QueuesState::decode(&bytes), Some(state));
        }
        let queue = &sample().queues[1];
        let live = [0, 1, 2, 64, 191, 192, 193, 576, 640].map(|seq| queue.is_live(Seq(seq)));
        assert_eq!(live, [true, false, true, true, true, true, false, true, false]);
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_malformed() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        for len in 1..bytes.len() {
            assert_eq!(QueuesState::decode(&bytes[..len]), None, "{len}");
        }
        bytes.push(0);
        assert_eq!(QueuesState::decode(&bytes), None);
        assert_eq!(QueuesState::decode(&[0xff; 64]), None, "counts are not believed");
    }
}
