//! Confirms: which messages of a channel are with all of their queues, told in the order in which they were published.

use std::collections::VecDeque;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiting {
    /// Shards that have not answered.
    shards: u16,
    refused: bool,
}

/// What can be told: all messages up to `tag` that were not told of before are with their queues, or the last of them is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Confirm {
    /// The last message.
    pub tag: u64,
    /// Whether it is more than that one.
    pub multiple: bool,
    /// Whether a queue has refused them.
    pub refused: bool,
}

/// Messages that were published, numbered from one.
#[derive(Debug)]
pub struct Confirms {
    /// The number of the first that waits.
    first: u64,
    waiting: VecDeque<Waiting>,
}

impl Default for Confirms {
    fn default() -> Confirms {
        Confirms { first: 1, waiting: VecDeque::new() }
    }
}

impl Confirms {
    /// The next message, which so many shards have to answer for. Gives its number.
    pub fn publish(&mut self, shards: u16) -> u64 {
        self.waiting.push_back(Waiting { shards, refused: false });
        self.first + self.waiting.len() as u64 - 1
    }

    /// A shard has answered for so many messages, from this one on.
    pub fn answered(&mut self, number: u64, count: usize, refused: bool) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let place =
            place.filter(|place| place + count <= self.waiting.len()).expect("an answer is to what waits");
        for waiting in self.waiting.range_mut(place..place + count) {
            waiting.shards -= 1;
            waiting.refused |= refused;
        }
    }

    /// Whether something could be told.
    pub fn is_ready(&self) -> bool {
        self.waiting.front().is_some_and(|waiting| waiting.shards == 0)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What can be told next, as many messages as possible at once.
    pub fn next_confirm(&mut self) -> Option<Confirm> {
        let Waiting { shards: 0, refused } = *self.waiting.front()? else { return None };
        let mut count = 0;
        while self.waiting.front() == Some(&Waiting { shards: 0, refused }) {
            self.waiting.pop_front();
            count += 1;
        }
        self.first += count;
        Some(Confirm { tag: self.first - 1, multiple: count > 1, refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_confirmed_in_order_and_together() {
        let mut confirms = Confirms::default();
        for shards in [1, 2, 1, 1, 0] {
            confirms.publish(shards);
        }
        confirms.answered(3, 1, false);
        assert_eq!(confirms.next_confirm(), None, "the first has to wait");
        confirms.answered(1, 1, false);
        confirms.answered(2, 1, false);
        assert_eq!(confirms.next_confirm(), Some(Confirm { tag: 1, multiple: false, refused: false }));
        assert_eq!(confirms.next_confirm(), None, "the second has another shard");
        confirms.answered(4, 1, true);
        confirms.answered(2, 1, false);
        assert_eq!(confirms.next_confirm(), Some(Confirm { tag: 3, multiple: true, refused: false }));
        assert_eq!(confirms.next_confirm(), Some(Confirm { tag: 4, multiple: false, refused: true }));
        assert_eq!(confirms.next_confirm(), Some(Confirm { tag: 5, multiple: false, refused: false }));
        assert!(confirms.is_empty());
        assert_eq!(confirms.publish(0), 6);
    }

    #[test]
    fn one_refusal_of_several_is_a_refusal() {
        let mut confirms = Confirms::default();
        confirms.publish(2);
        confirms.answered(1, 1, true);
        confirms.answered(1, 1, false);
        assert_eq!(confirms.next_confirm(), Some(Confirm { tag: 1, multiple: false, refused: true }));
    }
}
