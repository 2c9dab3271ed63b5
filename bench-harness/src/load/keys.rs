//! Which key a record gets, and which partition that is.

use clap::ValueEnum;
use serde::Serialize;

/// How keys are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Records have no key: a batch goes to one partition, the next batch to the next one.
    None,
    /// One key after the other.
    Sequential,
    /// Every key equally often.
    Uniform,
    /// Few keys often, many seldom: the n-th key 1/n times as often as the first.
    Zipf,
}

/// Draws keys.
pub struct Keys {
    distribution: Distribution,
    count: u64,
    state: u64,
    next: u64,
    /// For Zipf: how often a key up to each number is drawn.
    sums: Vec<f64>,
}

/// Keys that a Zipf distribution tells apart at most.
const ZIPF_KEYS_MAX: u64 = 1 << 20;

impl Keys {
    /// Draws among `count` keys. The same for the same `seed`.
    pub fn new(distribution: Distribution, count: u64, seed: u64) -> Keys {
        let count = count.max(1);
        let mut sums = Vec::new();
        if distribution == Distribution::Zipf {
            let mut sum = 0.0;
            sums = (1..=count.min(ZIPF_KEYS_MAX))
                .map(|n| {
                    sum += 1.0 / n as f64;
                    sum
                })
                .collect();
        }
        Keys { distribution, count, state: seed, next: seed, sums }
    }

    /// The next record's key; none if records have none.
    pub fn draw(&mut self) -> Option<[u8; 8]> {
        let number = match self.distribution {
            Distribution::None => return None,
            Distribution::Sequential => {
                self.next = self.next.wrapping_add(1);
                self.next % self.count
            }
            Distribution::Uniform => mix(&mut self.state) % self.count,
            Distribution::Zipf => {
                let all = self.sums.last().copied().unwrap_or_default();
                let at = mix(&mut self.state) as f64 / u64::MAX as f64 * all;
                self.sums.partition_point(|sum| *sum < at) as u64
            }
        };
        Some(number.to_be_bytes())
    }
}

/// The next number of a sequence that looks random (splitmix64).
pub fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The partition that Kafka's clients choose for a key: murmur2, its sign bit cleared, modulo the partitions.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7FFF_FFFF) % partitions.max(1)
}

/// Austin Appleby's `MurmurHash2` with the seed that Kafka's clients use.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5BD1_E995;
    let mut hash = 0x9747_B28C ^ key.len() as u32;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own test of its hash, `UtilsTest.testMurmur2`.
    #[test]
    fn keys_hash_as_they_do_in_kafka_s_clients() {
        let cases: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn a_zipf_distribution_favours_the_first_keys() {
        let mut keys = Keys::new(Distribution::Zipf, 1000, 7);
        let mut counts = vec![0_u32; 1000];
        for _ in 0..100_000 {
            let key = keys.draw().unwrap();
            counts[u64::from_be_bytes(key) as usize] += 1;
        }
        let half = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((1.8..2.2).contains(&half), "the first is drawn {half} times as often as the second");
        assert!(counts[999] < counts[9] / 10);
    }

    #[test]
    fn without_a_distribution_there_are_no_keys() {
        assert_eq!(Keys::new(Distribution::None, 10, 1).draw(), None);
    }
}
