//! When to look at what. Lazy: a deadline that moves further away is not touched; whoever is looked at too early says
//! when to look again.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::time::Nanos;

/// Looks to come, at most one for each key.
#[derive(Debug)]
pub struct Deadlines<K> {
    by_time: BTreeSet<(Nanos, K)>,
    at: BTreeMap<K, Nanos>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Deadlines<K> {
        Deadlines { by_time: BTreeSet::new(), at: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Deadlines<K> {
    /// Has `key` looked at no later than `at`.
    pub fn look_by(&mut self, key: &K, at: Nanos) {
        match self.at.get(key) {
            Some(sooner) if *sooner <= at => {}
            later => {
                if let Some(later) = later {
                    self.by_time.remove(&(*later, key.clone()));
                }
                self.by_time.insert((at, key.clone()));
                self.at.insert(key.clone(), at);
            }
        }
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: &K) {
        if let Some(at) = self.at.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// When the next look is due.
    pub fn next(&self) -> Option<Nanos> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out a key that is to be looked at now.
    pub fn due(&mut self, now: Nanos) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_looked_at_once_and_by_the_earliest_time_asked_for() {
        let mut deadlines = Deadlines::default();
        deadlines.look_by(&"a", Nanos(20));
        deadlines.look_by(&"a", Nanos(30));
        deadlines.look_by(&"b", Nanos(15));
        deadlines.look_by(&"a", Nanos(10));
        deadlines.look_by(&"c", Nanos(5));
        deadlines.remove(&"c");
        assert_eq!(deadlines.due(Nanos(9)), None);
        let due: Vec<_> = std::iter::from_fn(|| deadlines.due(Nanos(50))).collect();
        assert_eq!(due, ["a", "b"]);
    }
}
