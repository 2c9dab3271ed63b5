//! Idempotent producers: which sequences a log has taken, so that a batch sent again is stored once.
//!
//! The rules are Kafka's (KIP-98, as its broker's `ProducerStateManager` is observed to apply them): the last five batches of each producer
//! are remembered; a repeated one is answered with the original's offset; the next sequence must follow, wrapping from
//! `i32::MAX` to 0; a new epoch starts at 0; a producer that is not known may start anywhere.

use std::collections::BTreeMap;

use crate::error::Refusal;
use crate::format::batch::BatchHeader;
use crate::format::producer::{ProducerBatch, ProducerState};
use crate::limits::PRODUCER_BATCHES;
use crate::types::{Lsn, Offset};

/// What a producer's batch is to a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It comes next.
    New,
    /// It was stored before, at this offset, by this journal record: answered when that is as durable as asked.
    Duplicate(Offset, Lsn),
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// Oldest first; never empty.
    batches: Vec<Remembered>,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    batch: ProducerBatch,
    lsn: Lsn,
}

/// The producers of one log.
#[derive(Default, Debug)]
pub struct Producers {
    by_id: BTreeMap<i64, Producer>,
}

impl Producers {
    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Judges a batch. Changes nothing: a batch that is refused for another reason leaves no trace.
    pub fn judge(&self, batch: &BatchHeader) -> Result<Verdict, Refusal> {
        if batch.producer_id < 0 {
            return Ok(Verdict::New);
        }
        let Some(producer) = self.by_id.get(&batch.producer_id) else { return Ok(Verdict::New) };
        if batch.producer_epoch < producer.epoch {
            return Err(Refusal::InvalidProducerEpoch);
        }
        if batch.producer_epoch > producer.epoch {
            return if batch.base_sequence == 0 {
                Ok(Verdict::New)
            } else {
                Err(Refusal::OutOfOrderSequence)
            };
        }
        let same = |known: &&Remembered| {
            known.batch.first_sequence == batch.base_sequence
                && known.batch.last_sequence() == batch.last_sequence()
        };
        if let Some(known) = producer.batches.iter().find(same) {
            return Ok(Verdict::Duplicate(known.batch.base_offset, known.lsn));
        }
        let last = producer.batches.last().expect("a known producer has stored a batch");
        let next = last.batch.last_sequence().checked_add(1).unwrap_or(0);
        if batch.base_sequence == next {
            return Ok(Verdict::New);
        }
        // What lies a little behind was stored, only longer ago than is remembered; anything else is a gap.
        let behind = next.wrapping_sub(batch.base_sequence) & i32::MAX;
        if behind < i32::MAX / 2 { Err(Refusal::DuplicateSequence) } else { Err(Refusal::OutOfOrderSequence) }
    }

    /// Takes note of a batch that was given `base_offset` by journal record `lsn`.
    pub fn store(&mut self, batch: &BatchHeader, base_offset: Offset, lsn: Lsn) {
        if batch.producer_id < 0 {
            return;
        }
        let remembered = Remembered {
            batch: ProducerBatch {
                first_sequence: batch.base_sequence,
                base_offset,
                last_offset_delta: batch.last_offset_delta,
                timestamp: batch.max_timestamp,
            },
            lsn,
        };
        let producer = self
            .by_id
            .entry(batch.producer_id)
            .or_insert_with(|| Producer { epoch: batch.producer_epoch, batches: Vec::new() });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == PRODUCER_BATCHES {
            producer.batches.remove(0);
        }
        producer.batches.push(remembered);
    }

    /// Every producer, with the record that holds its last batch.
    pub fn last_stored(&self) -> impl Iterator<Item = (Lsn, i64)> {
        self.by_id.iter().filter_map(|(id, producer)| Some((producer.batches.last()?.lsn, *id)))
    }

    /// Forgets a producer.
    pub fn forget(&mut self, id: i64) {
        self.by_id.remove(&id);
    }

    /// What the checkpoint keeps.
    pub fn states(&self) -> Vec<ProducerState> {
        let state = |(id, producer): (&i64, &Producer)| ProducerState {
            producer_id: *id,
            epoch: producer.epoch,
            batches: producer.batches.iter().map(|known| known.batch).collect(),
            last_timestamp: producer.batches.last().map_or(-1, |known| known.batch.timestamp),
        };
        self.by_id.iter().map(state).collect()
    }

    /// What a checkpoint kept; all of it is durable.
    pub fn restore(states: &[ProducerState]) -> Producers {
        let producer = |state: &ProducerState| {
            let remembered = |batch: &ProducerBatch| Remembered { batch: *batch, lsn: Lsn::ZERO };
            Producer { epoch: state.epoch, batches: state.batches.iter().map(remembered).collect() }
        };
        let known = states.iter().filter(|state| !state.batches.is_empty());
        Producers { by_id: known.map(|state| (state.producer_id, producer(state))).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::batch::{BatchBuilder, BatchHeader};

    fn batch(epoch: i16, sequence: i32, records: usize) -> BatchHeader {
        let mut builder = BatchBuilder::new(0);
        builder.producer(7, epoch, sequence);
        for _ in 0..records {
            builder.push(None, Some(b"x"));
        }
        BatchHeader::parse(&builder.build()).unwrap()
    }

    /// Judges and, if it is new, stores at `10 * n`.
    fn take(producers: &mut Producers, n: u64, batch: &BatchHeader) -> Result<Verdict, Refusal> {
        let verdict = producers.judge(batch)?;
        if verdict == Verdict::New {
            producers.store(batch, Offset(n * 10), Lsn(n));
        }
        Ok(verdict)
    }

    #[test]
    fn a_batch_sent_again_is_answered_with_the_first_ones_offset() {
        let mut producers = Producers::default();
        assert_eq!(take(&mut producers, 1, &batch(0, 0, 2)), Ok(Verdict::New));
        assert_eq!(take(&mut producers, 2, &batch(0, 2, 3)), Ok(Verdict::New));
        assert_eq!(take(&mut producers, 3, &batch(0, 0, 2)), Ok(Verdict::Duplicate(Offset(10), Lsn(1))));
    }

    #[test]
    fn a_gap_is_refused_and_so_is_a_duplicate_older_than_five_batches() {
        let mut producers = Producers::default();
        for n in 0..6 {
            take(&mut producers, n, &batch(0, n as i32, 1)).unwrap();
        }
        assert_eq!(take(&mut producers, 9, &batch(0, 7, 1)), Err(Refusal::OutOfOrderSequence));
        assert_eq!(take(&mut producers, 9, &batch(0, 0, 1)), Err(Refusal::DuplicateSequence));
        assert_eq!(take(&mut producers, 9, &batch(0, 6, 1)), Ok(Verdict::New));
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_an_old_one_is_fenced() {
        let mut producers = Producers::default();
        take(&mut producers, 1, &batch(3, 40, 1)).unwrap();
        assert_eq!(take(&mut producers, 2, &batch(4, 1, 1)), Err(Refusal::OutOfOrderSequence));
        assert_eq!(take(&mut producers, 2, &batch(4, 0, 1)), Ok(Verdict::New));
        assert_eq!(take(&mut producers, 3, &batch(3, 41, 1)), Err(Refusal::InvalidProducerEpoch));
    }

    #[test]
    fn sequences_wrap() {
        let mut producers = Producers::default();
        take(&mut producers, 1, &batch(0, i32::MAX - 1, 2)).unwrap();
        assert_eq!(take(&mut producers, 2, &batch(0, 0, 1)), Ok(Verdict::New));
        assert_eq!(
            take(&mut producers, 3, &batch(0, i32::MAX - 1, 2)),
            Ok(Verdict::Duplicate(Offset(10), Lsn(1)))
        );
    }

    #[test]
    fn a_checkpoint_keeps_what_is_known() {
        let mut producers = Producers::default();
        take(&mut producers, 1, &batch(0, 0, 2)).unwrap();
        let mut restored = Producers::restore(&producers.states());
        assert_eq!(take(&mut restored, 2, &batch(0, 0, 2)), Ok(Verdict::Duplicate(Offset(10), Lsn::ZERO)));
        assert_eq!(take(&mut restored, 2, &batch(0, 2, 1)), Ok(Verdict::New));
    }
}
