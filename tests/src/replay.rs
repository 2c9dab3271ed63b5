//! What a failed simulation leaves for whoever looks into it.

use millstream_engine::io::sim::World;

/// While this lives, a panic prints the seed and what happened last in the world.
pub struct Replay {
    world: World,
    seed: u64,
}

impl Replay {
    /// Watches over a world that was made from this seed.
    pub fn new(world: &World, seed: u64) -> Replay {
        Replay { world: world.clone(), seed }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}the seed was {}", self.world.trace(), self.seed);
        }
    }
}

/// The seeds to run: the one that the environment variable `SEED` names, to replay a failure, or else these many.
pub fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..count).collect(),
    }
}
