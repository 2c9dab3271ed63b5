//! Where each leader epoch starts in a log, as far as it has batches: what Kafka keeps in a partition's
//! `leader-epoch-checkpoint` (KIP-101). Here it is a part of the shard's checkpoint; what came later is told by the
//! batches in the journal, each of which carries the epoch that it was stored under.
//!
//! The text is written all the same, for whoever takes a directory over: a drain replaces it, if it is out of date, before
//! it writes to a segment. So whenever bytes are flushed in a segment, the text tells of the epochs that they were stored
//! under, durably. It never tells of an epoch whose first batch is not durable, and no start of ours believes it.

use std::collections::VecDeque;

use crate::limits::LEADER_EPOCHS_PER_LOG_MAX;
use crate::types::{LeaderEpoch, Offset};

/// The epochs of one log. Both columns rise.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Epochs {
    starts: VecDeque<(LeaderEpoch, Offset)>,
}

impl Epochs {
    /// What a checkpoint holds.
    pub fn restore(starts: &[(LeaderEpoch, Offset)]) -> Epochs {
        Epochs { starts: starts.iter().copied().collect() }
    }

    /// What a checkpoint is to hold.
    pub fn starts(&self) -> Vec<(LeaderEpoch, Offset)> {
        self.starts.iter().copied().collect()
    }

    /// What is to be told of them in a log whose durable end is `end`.
    pub fn durable(&self, end: Offset) -> Vec<(LeaderEpoch, Offset)> {
        self.starts.iter().copied().take_while(|(_, start)| *start < end).collect()
    }

    /// A batch was stored at `base` under `epoch`. The oldest epoch is forgotten when there are too many: what it held
    /// is then taken for a part of the one before the oldest, which ends later, so that nobody drops what is sound.
    pub fn note(&mut self, epoch: LeaderEpoch, base: Offset) {
        if self.starts.back().is_some_and(|(last, _)| *last >= epoch) {
            return;
        }
        // What the log's start has gone past left nothing.
        self.starts.pop_back_if(|(_, start)| *start >= base);
        if self.starts.len() >= LEADER_EPOCHS_PER_LOG_MAX {
            self.starts.pop_front();
        }
        self.starts.push_back((epoch, base));
    }

    /// The log starts at `start` now.
    pub fn trim(&mut self, start: Offset) {
        while self.starts.get(1).is_some_and(|(_, second)| *second <= start) {
            self.starts.pop_front();
        }
        if let Some((_, first)) = self.starts.front_mut() {
            *first = start.max(*first);
        }
    }

    /// The epoch that `offset` was stored under.
    pub fn of(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.starts.iter().rev().find(|(_, start)| *start <= offset).map(|(epoch, _)| *epoch)
    }

    /// The last epoch up to `epoch` and where it ends: where the next one starts, or at the log's `end`. `None` for an
    /// epoch that is above the `current` one. An epoch from before all that is known ends where those start, as with
    /// Kafka: no client is made to give up what is there.
    pub fn end_of(
        &self,
        epoch: LeaderEpoch,
        current: LeaderEpoch,
        end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        if epoch > current {
            return None;
        }
        let next = self.starts.partition_point(|(known, _)| *known <= epoch);
        let Some((_, next_start)) = self.starts.get(next) else {
            // Nothing was stored since: it goes on.
            let last = if epoch == current { None } else { self.starts.back() };
            return Some((last.map_or(epoch, |(last, _)| *last), end));
        };
        let last = next.checked_sub(1).and_then(|last| self.starts.get(last));
        Some((last.map_or(epoch, |(last, _)| *last), *next_start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(starts: &[(u32, u64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, base) in starts {
            epochs.note(LeaderEpoch(*epoch), Offset(*base));
        }
        epochs
    }

    fn end_of(epochs: &Epochs, epoch: u32) -> Option<(u32, u64)> {
        let end = epochs.end_of(LeaderEpoch(epoch), LeaderEpoch(9), Offset(100));
        end.map(|(epoch, end)| (epoch.0, end.0))
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts() {
        let epochs = epochs(&[(2, 10), (2, 15), (5, 40), (8, 70)]);
        assert_eq!(end_of(&epochs, 2), Some((2, 40)));
        assert_eq!(end_of(&epochs, 3), Some((2, 40)), "one without batches ends with the one before");
        assert_eq!(end_of(&epochs, 5), Some((5, 70)));
        assert_eq!(end_of(&epochs, 8), Some((8, 100)));
        assert_eq!(end_of(&epochs, 9), Some((9, 100)), "the current one, in which nothing was stored yet");
        assert_eq!(end_of(&epochs, 10), None, "one that this node has never had");
        assert_eq!(end_of(&epochs, 1), Some((1, 10)), "before everything that is known");
    }

    #[test]
    fn nothing_known_is_no_reason_to_give_anything_up() {
        assert_eq!(end_of(&Epochs::default(), 3), Some((3, 100)));
    }

    #[test]
    fn an_offset_has_the_epoch_that_it_was_stored_under() {
        let epochs = epochs(&[(2, 10), (5, 40)]);
        let of = |offset| epochs.of(Offset(offset)).map(|epoch| epoch.0);
        assert_eq!([of(9), of(10), of(39), of(40)], [None, Some(2), Some(2), Some(5)]);
    }

    #[test]
    fn what_lies_before_the_logs_start_is_forgotten() {
        let mut kept = epochs(&[(2, 10), (5, 40), (8, 70)]);
        kept.trim(Offset(50));
        assert_eq!(kept, epochs(&[(5, 50), (8, 70)]));
        kept.trim(Offset(70));
        assert_eq!(kept, epochs(&[(8, 70)]));
        kept.trim(Offset(100));
        kept.note(LeaderEpoch(9), Offset(100));
        assert_eq!(kept, epochs(&[(9, 100)]), "of an epoch that is gone whole nothing is left");
    }

    #[test]
    fn an_epoch_is_told_of_once_its_first_batch_is_durable() {
        let epochs = epochs(&[(2, 10), (5, 40)]);
        let told = |end| epochs.durable(Offset(end)).len();
        assert_eq!([told(10), told(11), told(40), told(41)], [0, 1, 1, 2]);
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut epochs = Epochs::default();
        for number in 0..=LEADER_EPOCHS_PER_LOG_MAX {
            epochs.note(LeaderEpoch(number as u32), Offset(10 * number as u64));
        }
        assert_eq!(epochs.starts().len(), LEADER_EPOCHS_PER_LOG_MAX);
        assert_eq!(epochs.of(Offset(9)), None);
    }
}
