//! Tables that are asked for each message, by names that nobody outside chooses: random ids, and numbers that count.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table that is not iterated over where order matters: it is the same in every run, and no other.
pub(super) type Table<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// Mixes words by a multiplication each. Not for names that somebody else chooses.
#[derive(Default)]
pub(super) struct Mixer(u64);

/// An odd number without a pattern: 2^64 divided by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(FACTOR);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        // The highest bits are the best mixed, and a table takes the lowest, too.
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    use super::*;
    use crate::queue::Token;
    use crate::types::QueueId;

    #[test]
    fn names_that_count_are_spread() {
        let hasher = BuildHasherDefault::<Mixer>::default();
        let numbers = (0..4096).map(|number| hasher.hash_one(Token(number)));
        let ids = (0..4096_u128).map(|number| hasher.hash_one(QueueId((number << 64).to_be_bytes())));
        for hashes in [numbers.collect::<Vec<_>>(), ids.collect()] {
            let low: BTreeSet<u64> = hashes.iter().map(|hash| hash % 4096).collect();
            let high: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert!(low.len() > 2000 && high.len() == 128, "{} {}", low.len(), high.len());
        }
    }
}
