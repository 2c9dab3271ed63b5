//! What was read back from files and may be wanted again: open files and index files, least recently used first out.

use std::collections::BTreeMap;

/// A small cache that forgets what was used longest ago. `K` names an entry; its cost counts against the limit.
pub struct Lru<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    clock: u64,
    cost: usize,
    limit: usize,
}

struct Entry<V> {
    value: V,
    cost: usize,
    used: u64,
}

impl<K: Ord + Clone, V: Clone> Lru<K, V> {
    /// An empty cache of at most `limit` cost.
    pub fn new(limit: usize) -> Lru<K, V> {
        Lru { entries: BTreeMap::new(), clock: 0, cost: 0, limit }
    }

    /// The entry of that name, used just now.
    pub fn get(&mut self, key: &K) -> Option<V> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(entry.value.clone())
    }

    /// Adds an entry; gives those that had to go for it (one that it replaces among them).
    pub fn insert(&mut self, key: K, value: V, cost: usize) -> Vec<V> {
        self.clock += 1;
        let mut gone: Vec<V> = self.remove(&key).into_iter().collect();
        while self.cost + cost > self.limit && !self.entries.is_empty() {
            // The cache is small; a scan is cheaper than an order kept at every use.
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            gone.extend(oldest.and_then(|key| self.remove(&key)));
        }
        self.cost += cost;
        self.entries.insert(key, Entry { value, cost, used: self.clock });
        gone
    }

    /// What all entries cost together.
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.cost -= entry.cost;
        Some(entry.value)
    }

    /// Takes every entry out whose name is in `range`.
    pub fn remove_range(&mut self, range: std::ops::RangeInclusive<K>) -> Vec<V> {
        let keys: Vec<K> = self.entries.range(range).map(|(key, _)| key.clone()).collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Lru::new(2);
        cache.insert(1, "one", 1);
        cache.insert(2, "two", 1);
        cache.get(&1);
        assert_eq!(cache.insert(3, "three", 1), ["two"]);
        assert_eq!((cache.get(&1), cache.get(&2)), (Some("one"), None));
    }

    #[test]
    fn a_range_of_names_can_be_dropped() {
        let mut cache = Lru::new(10);
        for key in 0..5 {
            cache.insert(key, key, 1);
        }
        assert_eq!(cache.remove_range(1..=3), [1, 2, 3]);
        assert_eq!(cache.get(&4), Some(4));
    }
}
