//! The production broker and AMQP clients in a simulated world: what is confirmed is not lost, what is settled does not come back,
//! over a network that splits, merges, delays and resets, through crashes.
//!
//! `MILLSTREAM_SEED=7 cargo test -p millstream-tests --test amqp_simulation` replays one seed; `MILLSTREAM_SEEDS=1000` runs that many,
//! from `MILLSTREAM_SEED` on if both are set.

use std::env;

use millstream_tests::amqp::story::Story;

/// Seeds that every run of the tests goes through.
const SEEDS: u64 = 12;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn what_is_confirmed_is_kept_and_what_is_settled_is_gone() {
    let (first, count) = (number("MILLSTREAM_SEED"), number("MILLSTREAM_SEEDS"));
    let count = count.unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let first = first.unwrap_or(0);
    let mut verdicts = Vec::new();
    let mut totals = (0, 0, 0);
    for seed in first..first + count {
        let outcomes = Story::of(seed).run();
        totals = (totals.0 + outcomes.confirmed, totals.1 + outcomes.delivered, totals.2 + outcomes.settled);
        println!(
            "seed {seed}: {} confirmed, {} delivered, {} settled",
            outcomes.confirmed, outcomes.delivered, outcomes.settled
        );
        if let Some(broken) = outcomes.violations.first() {
            if verdicts.is_empty() {
                println!("{}", outcomes.trace);
            }
            let broken: String = broken.chars().take(1000).collect();
            verdicts.push(format!(
                "seed {seed}: {broken}\n  replay: MILLSTREAM_SEED={seed} cargo test -p millstream-tests --test amqp_simulation"
            ));
        }
    }
    assert!(verdicts.is_empty(), "\n\n{}\n", verdicts.join("\n\n"));
    assert!(totals.0 > 0 && totals.1 > 0 && totals.2 > 0, "{totals:?}: nothing was shown");
}

#[test]
fn one_seed_gives_one_history() {
    let digest = || Story { steps: 300, ..Story::of(3) }.run().digest;
    assert_eq!(digest(), digest());
}
