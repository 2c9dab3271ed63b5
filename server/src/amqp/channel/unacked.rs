//! What was delivered on a channel and not settled: in the order of delivery tags, found by tag.

use std::collections::VecDeque;

use millstream_engine::types::Seq;

use crate::limits::AMQP_SETTLED_PLACES_MIN;

/// A delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Who keeps it, among those of its channel.
    pub keeper: u32,
    /// Which message of the keeper's queue.
    pub seq: Seq,
    /// It was got by itself, and no prefetch counts it.
    pub got: bool,
}

/// A tag that stands for nothing that could be settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownTag;

/// The keeper of a place whose delivery is settled.
const SETTLED: u32 = u32::MAX;

/// Room for places that is kept when there are none.
const SPARE_PLACES_MAX: usize = 1 << 14;

#[derive(Clone, Copy, Debug)]
struct Place {
    tag: u64,
    seq: Seq,
    keeper: u32,
    got: bool,
}

impl Place {
    fn entry(self) -> Option<Entry> {
        let Place { seq, keeper, got, .. } = self;
        (keeper != SETTLED).then_some(Entry { keeper, seq, got })
    }

    fn new(tag: u64, Entry { keeper, seq, got }: Entry) -> Place {
        Place { tag, seq, keeper, got }
    }
}

/// Deliveries by tag. Tags are counted from one. A place that is settled stays as long as there are not too many of them, so that
/// a tag is found at once where it is expected; one stuck delivery does not keep the places of all that came after it.
#[derive(Debug)]
pub struct Unacked {
    /// The next tag.
    next: u64,
    /// By tag. The first is not settled.
    places: VecDeque<Place>,
    len: usize,
    /// How many of them were got.
    got: usize,
}

impl Default for Unacked {
    fn default() -> Unacked {
        Unacked { next: 1, places: VecDeque::new(), len: 0, got: 0 }
    }
}

impl Unacked {
    /// How many are not settled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many of them came to consumers.
    pub fn consumed(&self) -> usize {
        self.len - self.got
    }

    /// The tag of a delivery that needs no settling.
    pub fn skip(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// The tag of a delivery that is to be settled.
    pub fn push(&mut self, entry: Entry) -> u64 {
        let tag = self.skip();
        self.places.push_back(Place::new(tag, entry));
        self.len += 1;
        self.got += usize::from(entry.got);
        tag
    }

    /// Where a tag is, or would be.
    fn search(&self, tag: u64) -> Result<usize, usize> {
        let Some(first) = self.places.front() else { return Err(0) };
        let Some(guess) = tag.checked_sub(first.tag) else { return Err(0) };
        let guess = usize::try_from(guess).unwrap_or(usize::MAX);
        if self.places.get(guess).is_some_and(|place| place.tag == tag) {
            return Ok(guess);
        }
        self.places.binary_search_by_key(&tag, |place| place.tag)
    }

    /// Settles one delivery.
    pub fn take(&mut self, tag: u64) -> Result<Entry, UnknownTag> {
        let index = self.search(tag).map_err(|_| UnknownTag)?;
        let place = self.places.get_mut(index).ok_or(UnknownTag)?;
        let entry = place.entry().ok_or(UnknownTag)?;
        place.keeper = SETTLED;
        self.len -= 1;
        self.got -= usize::from(entry.got);
        self.trim();
        Ok(entry)
    }

    /// Settles every delivery up to this tag, which has to be one that is not settled, in order; zero means all of them.
    pub fn take_through(&mut self, tag: u64, mut each: impl FnMut(Entry)) -> Result<(), UnknownTag> {
        let count = if tag == 0 {
            self.places.len()
        } else {
            let index = self.search(tag).map_err(|_| UnknownTag)?;
            self.places.get(index).and_then(|place| place.entry()).ok_or(UnknownTag)?;
            index + 1
        };
        for place in self.places.drain(..count) {
            if let Some(entry) = place.entry() {
                self.len -= 1;
                self.got -= usize::from(entry.got);
                each(entry);
            }
        }
        self.trim();
        Ok(())
    }

    /// Puts deliveries back that were taken, by their tags.
    pub fn restore(&mut self, taken: impl Iterator<Item = (u64, Entry)>) {
        let mut places: Vec<Place> = self.places.drain(..).filter(|place| place.entry().is_some()).collect();
        places.extend(taken.map(|(tag, entry)| Place::new(tag, entry)));
        places.sort_unstable_by_key(|place| place.tag);
        self.len = places.len();
        self.got = places.iter().filter(|place| place.got).count();
        self.places = places.into();
    }

    /// The tags that `take_through` would take.
    pub fn tags_through(&self, tag: u64) -> impl Iterator<Item = u64> {
        let tags = self.places.iter().filter(|place| place.entry().is_some()).map(|place| place.tag);
        tags.take_while(move |other| tag == 0 || *other <= tag)
    }

    fn trim(&mut self) {
        while self.places.front().is_some_and(|place| place.entry().is_none()) {
            self.places.pop_front();
        }
        let settled = self.places.len() - self.len;
        if settled > self.len + AMQP_SETTLED_PLACES_MIN {
            self.places.retain(|place| place.entry().is_some());
        }
        if self.places.is_empty() && self.places.capacity() > SPARE_PLACES_MAX {
            self.places = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> Entry {
        Entry { keeper: 0, seq: Seq(seq), got: false }
    }

    fn through(unacked: &mut Unacked, tag: u64) -> Result<Vec<u64>, UnknownTag> {
        let mut seqs = Vec::new();
        unacked.take_through(tag, |entry| seqs.push(entry.seq.0)).map(|()| seqs)
    }

    #[test]
    fn a_tag_is_good_once() {
        let mut unacked = Unacked::default();
        assert_eq!((unacked.push(entry(7)), unacked.push(entry(8)), unacked.push(entry(9))), (1, 2, 3));
        assert_eq!(unacked.take(2), Ok(entry(8)));
        assert_eq!(unacked.take(2), Err(UnknownTag));
        assert_eq!(unacked.take(4), Err(UnknownTag));
        assert_eq!(unacked.take(0), Err(UnknownTag));
        assert_eq!(unacked.take(1), Ok(entry(7)));
        assert_eq!(unacked.take(3), Ok(entry(9)));
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
        assert_eq!(unacked.take(2), Ok(entry(5)));
        assert_eq!(unacked.push(entry(6)), 4);
    }

    #[test]
    fn one_stuck_delivery_does_not_keep_the_places_of_all_others() {
        let mut unacked = Unacked::default();
        assert_eq!(unacked.push(entry(1)), 1);
        for seq in 2..100_000 {
            let tag = unacked.push(entry(seq));
            assert_eq!(unacked.take(tag), Ok(entry(seq)));
            unacked.skip();
        }
        assert_eq!(unacked.len(), 1);
        assert!(unacked.places.len() <= 2 * AMQP_SETTLED_PLACES_MIN, "{}", unacked.places.len());
        let tags: Vec<u64> = (0..5).map(|seq| unacked.push(entry(seq))).collect();
        assert_eq!(unacked.take(tags[0] - 1), Err(UnknownTag));
        assert_eq!(unacked.take(tags[2]), Ok(entry(2)));
        assert_eq!(unacked.take(tags[2]), Err(UnknownTag));
        assert_eq!(through(&mut unacked, tags[3]), Ok(vec![1, 0, 1, 3]));
        assert_eq!(through(&mut unacked, 0), Ok(vec![4]));
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
