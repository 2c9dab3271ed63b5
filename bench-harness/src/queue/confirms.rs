//! Which messages are not confirmed yet.

use std::collections::VecDeque;

/// Messages under way on a channel, in the order in which they were published. Confirms may come in any order, and for
/// many at a time.
pub struct Confirms {
    /// When each message was due; none if it is confirmed.
    under_way: VecDeque<Option<u64>>,
    /// The number of the first of them. The channel counts from 1.
    first: u64,
    count: usize,
}

impl Default for Confirms {
    fn default() -> Confirms {
        Confirms { under_way: VecDeque::new(), first: 1, count: 0 }
    }
}

impl Confirms {
    /// A message was published that was due at that moment.
    pub fn published(&mut self, due_ns: u64) {
        self.under_way.push_back(Some(due_ns));
        self.count += 1;
    }

    /// Messages that are not confirmed.
    pub fn len(&self) -> usize {
        self.count
    }

    /// A confirm has come: hands on when each message was due that it is for.
    pub fn confirmed(&mut self, tag: u64, multiple: bool, mut each: impl FnMut(u64)) {
        let places =
            tag.checked_sub(self.first).map_or(0, |place| place + 1).min(self.under_way.len() as u64);
        if multiple {
            for due in self.under_way.drain(..places as usize).flatten() {
                self.count -= 1;
                each(due);
            }
            self.first += places;
            return;
        }
        let place = tag.checked_sub(self.first).and_then(|place| self.under_way.get_mut(place as usize));
        if let Some(due) = place.and_then(Option::take) {
            self.count -= 1;
            each(due);
        }
        while let Some(None) = self.under_way.front() {
            self.under_way.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirms_come_in_any_order_and_each_message_counts_once() {
        let mut confirms = Confirms::default();
        (1..=6).for_each(|due| confirms.published(due * 10));
        let confirmed = |confirms: &mut Confirms, tag, multiple| {
            let mut due = Vec::new();
            confirms.confirmed(tag, multiple, |at| due.push(at));
            due
        };
        assert_eq!(confirmed(&mut confirms, 3, false), [30]);
        assert_eq!(confirmed(&mut confirms, 3, false), [0; 0], "again");
        assert_eq!(confirmed(&mut confirms, 1, false), [10]);
        assert_eq!(confirmed(&mut confirms, 4, true), [20, 40]);
        assert_eq!(confirmed(&mut confirms, 2, true), [0; 0]);
        assert_eq!(confirms.len(), 2);
        confirms.published(70);
        assert_eq!(confirmed(&mut confirms, 100, true), [50, 60, 70], "more than there are");
        assert_eq!(confirms.len(), 0);
        confirms.published(80);
        assert_eq!(confirmed(&mut confirms, 8, false), [80]);
    }
}
