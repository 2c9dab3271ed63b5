//! Where new partitions and queues go: to the slot with the fewest, the lowest of those.

use std::collections::BTreeSet;

use super::metadata::Metadata;
use crate::limits::SLOTS;
use crate::types::Slot;

/// How much is placed on each slot.
pub struct Placement {
    counts: Vec<u32>,
    order: BTreeSet<(u32, u32)>,
}

impl Placement {
    /// What the metadata have placed.
    pub fn of(metadata: &Metadata) -> Placement {
        let mut counts = vec![0; SLOTS as usize];
        let partitions = metadata.by_id.values().flat_map(|topic| topic.slots.iter().copied());
        let queues = metadata.queues.iter().map(|(_, queue)| queue.slot);
        for slot in partitions.chain(queues) {
            if let Some(count) = counts.get_mut(slot.0 as usize) {
                *count += 1;
            }
        }
        let order = (0..).zip(&counts).map(|(slot, count)| (*count, slot)).collect();
        Placement { counts, order }
    }

    /// The slot for something new, which counts from now on.
    pub fn take(&mut self) -> Slot {
        let (count, slot) = self.order.pop_first().expect("there are slots");
        self.set(slot, count + 1);
        Slot(slot)
    }

    /// Something that was placed is gone.
    pub fn give_back(&mut self, slots: &[Slot]) {
        for slot in slots {
            if let Some(count) = self.counts.get(slot.0 as usize).copied()
                && self.order.remove(&(count, slot.0))
            {
                self.set(slot.0, count.saturating_sub(1));
            }
        }
    }

    fn set(&mut self, slot: u32, count: u32) {
        self.counts[slot as usize] = count;
        self.order.insert((count, slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_goes_where_the_least_is() {
        let mut placement = Placement::of(&Metadata::default());
        let first: Vec<u32> = (0..3).map(|_| placement.take().0).collect();
        placement.give_back(&[Slot(1), Slot(SLOTS)]);
        assert_eq!((first, placement.take()), (vec![0, 1, 2], Slot(1)));
        for _ in 3..SLOTS {
            placement.take();
        }
        assert_eq!(placement.take(), Slot(0));
    }
}
