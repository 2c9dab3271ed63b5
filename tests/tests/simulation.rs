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

/// What is wrong with a seed's story, with all that helps to find out why.
fn verdict(scenario: &Scenario, outcomes: &Outcomes) -> Option<String> {
    let Scenario { seed, theme, .. } = scenario;
    let broken = outcomes.violations.first()?;
    let more =
        outcomes.violations.iter().skip(1).take(5).map(|what| format!("\n  {what}")).collect::<String>();
    Some(format!(
        "seed {seed} ({theme:?}): {broken}{more}\n  replay: MILLSTREAM_SEED={seed} cargo test -p millstream-tests --test simulation -- every_promise"
    ))
}

#[test]
fn every_promise_holds_through_random_work_and_crashes() {
    let only = number("MILLSTREAM_SEED");
    let count = number("MILLSTREAM_SEEDS").unwrap_or(if only.is_some() { 1 } else { SEEDS });
    let first = only.unwrap_or(0);
    let mut verdicts = Vec::new();
    for seed in first..first + count {
        let scenario = Scenario::of(seed);
        let outcomes = scenario.run();
        println!(
            "seed {seed} {:?}: {} appends, refused {:?}",
            scenario.theme, outcomes.acked, outcomes.refused
        );
        if let Some(verdict) = verdict(&scenario, &outcomes) {
            if verdicts.is_empty() {
                println!("{}", outcomes.trace);
            }
            verdicts.push(verdict);
        }
    }
    assert!(verdicts.is_empty(), "\n\n{}\n", verdicts.join("\n\n"));
}
