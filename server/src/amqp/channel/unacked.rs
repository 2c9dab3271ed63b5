//! What was delivered on a channel and not settled: a ring, found by delivery tag.

use std::collections::VecDeque;

use millstream_engine::types::Seq;

/// A delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Who keeps it, among those of its channel.
    pub keeper: u32,
    /// Which message of the keeper's queue.
    pub seq: Seq,
}

/// A delivery that is settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Which.
    pub entry: Entry,
    /// Whether everything that was delivered before it is settled, too.
    pub in_order: bool,
}

/// A tag that stands for nothing that could be settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownTag;

/// Deliveries by tag. Tags are counted from one and are without gaps, so a tag is a place.
#[derive(Debug)]
pub struct Unacked {
    /// The tag of the first entry.
    first: u64,
    /// `None`: settled, or never to be.
    entries: VecDeque<Option<Entry>>,
    len: usize,
}

impl Default for Unacked {
    fn default() -> Unacked {
        Unacked { first: 1, entries: VecDeque::new(), len: 0 }
    }
}

impl Unacked {
    /// How many are not settled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The tag of a delivery that needs no settling.
    pub fn skip(&mut self) -> u64 {
        let tag = self.first + self.entries.len() as u64;
        if self.entries.is_empty() {
            self.first += 1;
        } else {
            self.entries.push_back(None);
        }
        tag
    }

    /// The tag of a delivery that is to be settled.
    pub fn push(&mut self, entry: Entry) -> u64 {
        self.entries.push_back(Some(entry));
        self.len += 1;
        self.first + self.entries.len() as u64 - 1
    }

    /// Settles one delivery.
    pub fn take(&mut self, tag: u64) -> Result<Taken, UnknownTag> {
        let place = tag.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let slot = place.and_then(|place| self.entries.get_mut(place)).ok_or(UnknownTag)?;
        let entry = slot.take().ok_or(UnknownTag)?;
        self.len -= 1;
        let in_order = place == Some(0);
        self.trim();
        Ok(Taken { entry, in_order })
    }

    /// Settles every delivery up to this tag, which has to be one that is not settled, in order; zero means all of them.
    pub fn take_through(&mut self, tag: u64, mut each: impl FnMut(Taken)) -> Result<(), UnknownTag> {
        let count = if tag == 0 {
            self.entries.len()
        } else {
            let place = tag.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
            let place = place.filter(|place| self.entries.get(*place).is_some_and(Option::is_some));
            place.ok_or(UnknownTag)? + 1
        };
        for entry in self.entries.drain(..count) {
            self.first += 1;
            if let Some(entry) = entry {
                self.len -= 1;
                each(Taken { entry, in_order: true });
            }
        }
        self.trim();
        Ok(())
    }

    /// Puts deliveries back that were taken, by their tags.
    pub fn restore(&mut self, taken: impl DoubleEndedIterator<Item = (u64, Entry)>) {
        for (tag, entry) in taken.rev() {
            while tag < self.first {
                self.first -= 1;
                self.entries.push_front(None);
            }
            while tag >= self.first + self.entries.len() as u64 {
                self.entries.push_back(None);
            }
            if let Some(slot) = self.entries.get_mut((tag - self.first) as usize) {
                self.len += usize::from(slot.is_none());
                *slot = Some(entry);
            }
        }
    }

    /// The tags that `take_through` would take.
    pub fn tags_through(&self, tag: u64) -> impl Iterator<Item = u64> {
        let first = self.first;
        let tags = self.entries.iter().enumerate().filter(|(_, entry)| entry.is_some());
        tags.map(move |(place, _)| first + place as u64).take_while(move |other| tag == 0 || *other <= tag)
    }

    fn trim(&mut self) {
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> Entry {
        Entry { keeper: 0, seq: Seq(seq) }
    }

    fn through(unacked: &mut Unacked, tag: u64) -> Result<Vec<u64>, UnknownTag> {
        let mut seqs = Vec::new();
        unacked.take_through(tag, |taken| seqs.push(taken.entry.seq.0)).map(|()| seqs)
    }

    #[test]
    fn a_tag_is_good_once() {
        let mut unacked = Unacked::default();
        assert_eq!((unacked.push(entry(7)), unacked.push(entry(8)), unacked.push(entry(9))), (1, 2, 3));
        assert_eq!(unacked.take(2), Ok(Taken { entry: entry(8), in_order: false }));
        assert_eq!(unacked.take(2), Err(UnknownTag));
        assert_eq!(unacked.take(4), Err(UnknownTag));
        assert_eq!(unacked.take(0), Err(UnknownTag));
        assert_eq!(unacked.take(1), Ok(Taken { entry: entry(7), in_order: true }));
        assert_eq!(unacked.take(3), Ok(Taken { entry: entry(9), in_order: true }));
        assert_eq!(unacked.len(), 0);
        assert_eq!(unacked.push(entry(1)), 4);
    }

    #[test]
    fn several_at_once_end_with_one_that_is_there() {
        let mut unacked = Unacked::default();
        for seq in 1..=5 {
            unacked.push(entry(seq));
        }
        unacked.take(2).unwrap();
        assert_eq!(through(&mut unacked, 2), Err(UnknownTag));
        assert_eq!(through(&mut unacked, 3), Ok(vec![1, 3]));
        assert_eq!(through(&mut unacked, 3), Err(UnknownTag));
        assert_eq!(through(&mut unacked, 0), Ok(vec![4, 5]));
        assert_eq!(through(&mut unacked, 0), Ok(vec![]));
        assert_eq!(unacked.len(), 0);
    }

    #[test]
    fn what_needs_no_settling_has_a_tag_and_no_entry() {
        let mut unacked = Unacked::default();
        assert_eq!(unacked.skip(), 1);
        assert_eq!(unacked.push(entry(5)), 2);
        assert_eq!(unacked.skip(), 3);
        assert_eq!(unacked.take(3), Err(UnknownTag));
        assert_eq!(unacked.take(2), Ok(Taken { entry: entry(5), in_order: true }));
        assert_eq!(unacked.push(entry(6)), 4);
    }

    #[test]
    fn what_was_taken_can_be_put_back() {
        let mut unacked = Unacked::default();
        for seq in 1..=4 {
            unacked.push(entry(seq));
        }
        assert_eq!(unacked.tags_through(3).collect::<Vec<_>>(), [1, 2, 3]);
        unacked.take(4).unwrap();
        through(&mut unacked, 2).unwrap();
        unacked.restore([(1, entry(1)), (2, entry(2)), (4, entry(4))].into_iter());
        assert_eq!(unacked.len(), 4);
        assert_eq!(through(&mut unacked, 0), Ok(vec![1, 2, 3, 4]));
    }
}
