//! A queue and its model agree, whatever is asked of them.

use millstream_engine::io::random::Random;
use millstream_tests::queue_model::run;

/// How many lists of operations, unless `MILLSTREAM_SEEDS` says otherwise.
const SEEDS: u64 = 40;

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().expect("the variable holds a number"))
}

#[test]
fn a_queue_and_its_model_agree() {
    let first = number_from("MILLSTREAM_SEED").unwrap_or(1);
    let seeds = number_from("MILLSTREAM_SEEDS").unwrap_or(SEEDS);
    for seed in first..first + seeds {
        println!("MILLSTREAM_SEED={seed}");
        let mut random = Random::new(seed);
        let bytes: Vec<u8> = (0..random.between(10, 4_000)).map(|_| random.next() as u8).collect();
        run(&bytes);
    }
}
