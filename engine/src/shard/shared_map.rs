//! A map that is cheap to copy: a copy shares every bucket that is not changed in it afterwards.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// So many that changing one entry copies little, and so few that a copy of the map itself costs little.
const BUCKETS: usize = 512;

/// A map in buckets. Its order means nothing, but is always the same.
#[derive(Clone, Debug)]
pub struct SharedMap<K, V> {
    buckets: Vec<Arc<BTreeMap<K, V>>>,
    len: usize,
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> SharedMap<K, V> {
        SharedMap { buckets: Vec::new(), len: 0 }
    }
}

fn bucket_of(key: &impl Hash) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as usize % BUCKETS
}

impl<K: Ord + Hash + Clone, V: Clone> SharedMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.buckets.get(bucket_of(key))?.get(key)
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }

    /// Puts a value in, and gives the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.buckets.is_empty() {
            self.buckets = vec![Arc::default(); BUCKETS];
        }
        let old = Arc::make_mut(&mut self.buckets[bucket_of(&key)]).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.get(key)?;
        let old = Arc::make_mut(self.buckets.get_mut(bucket_of(key))?).remove(key);
        self.len -= usize::from(old.is_some());
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_had_whatever_happens_to_the_other() {
        let mut map = SharedMap::default();
        for number in 0..2_000 {
            map.insert(number, number.to_string());
        }
        let copy = map.clone();
        assert_eq!(map.insert(7, "seven".to_owned()).as_deref(), Some("7"));
        assert_eq!(map.remove(&8).as_deref(), Some("8"));
        assert_eq!(map.remove(&8), None);
        map.insert(2_000, "new".to_owned());
        assert_eq!((map.len(), copy.len()), (2_000, 2_000));
        assert_eq!(
            (copy.get(&7).map(String::as_str), copy.get(&8).map(String::as_str)),
            (Some("7"), Some("8"))
        );
        assert_eq!(
            (map.get(&7).map(String::as_str), map.get(&8), copy.get(&2_000)),
            (Some("seven"), None, None)
        );
        assert_eq!(map.iter().count(), map.len());
    }
}
