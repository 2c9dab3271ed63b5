//! A hash that spreads messages over bindings by weight, so that a binding more moves as few of them as possible.

use std::hash::Hasher;

/// FNV-1a, with a last stir that spreads its low bits.
pub fn hash(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ hash >> 33
}

/// Jump consistent hash (Lamping and Veach, 2014): one of `buckets`, which is more than none.
pub fn jump(mut key: u64, buckets: u64) -> u64 {
    assert!(buckets > 0, "there is a bucket");
    let (mut bucket, mut next) = (0, 0);
    while next < buckets {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let step = (1_u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * step) as u64;
    }
    bucket
}

/// For tables whose keys are hashes already.
#[derive(Debug, Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_bucket_takes_its_share_and_nothing_else_moves() {
        let keys: Vec<u64> = (0..10_000_u64).map(|key| hash(&key.to_be_bytes())).collect();
        let moved = keys.iter().filter(|key| jump(**key, 9) != jump(**key, 10));
        let moved: Vec<_> = moved.collect();
        assert!(moved.iter().all(|key| jump(**key, 10) == 9));
        assert!((800..1_200).contains(&moved.len()), "{}", moved.len());
    }
}
