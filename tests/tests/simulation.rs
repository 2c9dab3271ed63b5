//! The node in a simulated world: random work, crashes and faults from a seed, and checkers for every promise.
//!
//! `MILLSTREAM_SEED=7 cargo test -p millstream-tests --test simulation` replays one seed; `MILLSTREAM_SEEDS=1000` runs
//! that many, from `MILLSTREAM_SEED` on if both are set.

use std::env;

use millstream_tests::sim::scenario::{Outcomes, Scenario};

/// Seeds that every run of the tests goes through.
const SEEDS: u64 = 36;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn check(scenario: &Scenario) -> Outcomes {
    let outcomes = scenario.run();
    let Scenario { seed, theme, .. } = scenario;
    assert!(
        outcomes.violations.is_empty(),
        "\n{}\nseed {seed} ({theme:?}), broken promises:\n  {}\n\nreplay: MILLSTREAM_SEED={seed} cargo test -p millstream-tests --test simulation -- random\n",
        outcomes.trace,
        outcomes.violations.join("\n  "),
    );
    outcomes
}

#[test]
fn every_promise_holds_through_random_work_and_crashes() {
    let first = number("MILLSTREAM_SEED");
    let count = number("MILLSTREAM_SEEDS").unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let first = first.unwrap_or(0);
    for seed in first..first + count {
        let scenario = Scenario::of(seed);
        let outcomes = check(&scenario);
        println!(
            "seed {seed} {:?}: {} appends, refused {:?}",
            scenario.theme, outcomes.acked, outcomes.refused
        );
    }
}
