//! Chance that can be replayed: a small generator, and independent streams of it from one seed.

/// A stream of pseudo-random numbers (the splitmix construction: a counter, scrambled). Not for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// A stream of its own for one purpose: drawing more or fewer numbers for one purpose changes no other.
    pub fn stream(seed: u64, purpose: &str) -> Random {
        let mut mixer = Random::new(seed);
        let mut state = mixer.next();
        for byte in purpose.bytes() {
            state = Random::new(state ^ u64::from(byte)).next();
        }
        Random { state }
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "a stream without an end needs no Option")]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number lies below zero");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        assert!(least <= most, "an empty range has no number to draw");
        match (most - least).checked_add(1) {
            Some(count) => least + self.below(count),
            None => self.next(),
        }
    }

    /// True with this probability (0 to 1). Draws nothing when the answer is certain.
    pub fn chance(&mut self, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        probability >= 1.0 || ((self.next() >> 11) as f64) / ((1_u64 << 53) as f64) < probability
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn one_seed_gives_one_stream_and_purposes_differ() {
        let draw = |mut random: Random| [random.next(), random.next()];
        assert_eq!(draw(Random::stream(7, "disk")), draw(Random::stream(7, "disk")));
        assert_ne!(draw(Random::stream(7, "disk")), draw(Random::stream(7, "clock")));
        assert_ne!(draw(Random::stream(7, "disk")), draw(Random::stream(8, "disk")));
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_both_ends() {
        let mut random = Random::new(1);
        let drawn: Vec<u64> = (0..200).map(|_| random.between(3, 6)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&6)));
    }

    #[test]
    fn chance_follows_its_probability() {
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| random.chance(0.25)).count();
        assert!((2_300..2_700).contains(&hits), "{hits} hits of 10,000 at 0.25");
        assert!(!random.chance(0.0) && random.chance(1.0));
    }
}
