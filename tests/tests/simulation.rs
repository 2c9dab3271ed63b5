//! The node in a simulated world: random work, crashes and faults from a seed, and checkers for every promise.
//!
//! `MILLSTREAM_SEED=7 cargo test -p millstream-tests --test simulation` replays one seed; `MILLSTREAM_SEEDS=1000` runs
//! that many, from `MILLSTREAM_SEED` on if both are set.

use std::env;

use millstream_tests::sim::canary::Canary;
use millstream_tests::sim::scenario::{Outcomes, Scenario, Theme};

/// Seeds that every run of the tests goes through.
const SEEDS: u64 = 14;
/// Others that once found a bug: `docs/testing.md` says which.
const REGRESSIONS: [u64; 13] = [19, 22, 24, 28, 37, 39, 48, 67, 87, 93, 325, 348, 401];

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// What is wrong with a seed's story, with all that helps to find out why.
fn verdict(scenario: &Scenario, outcomes: &Outcomes) -> Option<String> {
    let Scenario { seed, theme, .. } = scenario;
    let broken = outcomes.violations.first()?;
    let more = outcomes.violations.iter().skip(1).take(5);
    let more: String = more.flat_map(|what| ["\n  ", what.as_str()]).collect();
    Some(format!(
        "seed {seed} ({theme:?}): {broken}{more}\n  replay: MILLSTREAM_SEED={seed} cargo test -p millstream-tests --test simulation -- every_promise"
    ))
}

fn check(seeds: impl Iterator<Item = u64>) {
    let mut verdicts = Vec::new();
    for seed in seeds {
        let scenario = Scenario::of(seed);
        let outcomes = scenario.run();
        println!(
            "seed {seed} {:?}: {} appends, moved, stopped, rotted {:?}, refused {:?}",
            scenario.theme, outcomes.acked, outcomes.between, outcomes.refused
        );
        if let Some(verdict) = verdict(&scenario, &outcomes) {
            if verdicts.is_empty() {
                println!("{}", outcomes.trace);
            }
            println!("{verdict}");
            verdicts.push(verdict);
        }
    }
    assert!(verdicts.is_empty(), "\n\n{}\n", verdicts.join("\n\n"));
}

#[test]
fn every_promise_holds_through_random_work_and_crashes() {
    match (number("MILLSTREAM_SEED"), number("MILLSTREAM_SEEDS")) {
        (None, None) => check(0..SEEDS),
        (first, count) => check(first.unwrap_or(0)..first.unwrap_or(0) + count.unwrap_or(1)),
    }
}

#[test]
fn seeds_that_found_a_bug_find_none_any_more() {
    check(REGRESSIONS.into_iter());
}

/// Plants a bug: the checkers must notice it within so many seeds.
fn check_caught(canary: Canary, theme: Theme, seeds: u64) {
    let caught = (0..seeds).find_map(|seed| {
        let scenario =
            Scenario { theme, lives: 5, steps: 400, canary, power: Some(true), ..Scenario::of(seed) };
        let violations = scenario.run().violations;
        violations.first().map(|violation| format!("seed {seed}: {violation}"))
    });
    println!("{canary:?}: {caught:?}");
    assert!(caught.is_some(), "{seeds} seeds did not notice {canary:?}");
}

#[test]
fn a_trim_before_the_directory_is_flushed_is_noticed() {
    check_caught(Canary::NoDirectoryFlush, Theme::Large, 10);
}

#[test]
fn a_high_watermark_ahead_of_durability_is_noticed() {
    check_caught(Canary::WrittenIsDurable, Theme::Plain, 10);
}

#[test]
fn a_failed_commit_taken_for_success_is_noticed() {
    check_caught(Canary::FailureIsSuccess, Theme::Poison, 10);
}

#[test]
fn memory_reused_while_it_is_written_is_noticed() {
    check_caught(Canary::SlabReused, Theme::Plain, 10);
}

#[test]
fn a_torn_group_that_is_not_the_last_is_noticed() {
    check_caught(Canary::GroupsReordered, Theme::Plain, 10);
}

#[test]
fn a_deletion_that_happens_again_is_noticed() {
    check_caught(Canary::DeletionReplayed, Theme::Large, 20);
}

#[test]
fn a_flush_that_lies_is_noticed() {
    check_caught(Canary::LyingFlush, Theme::Plain, 10);
}

#[test]
fn rot_passed_off_as_data_is_noticed() {
    check_caught(Canary::SumsMissing, Theme::Plain, 20);
}

#[test]
fn rot_taken_for_a_torn_tail_is_noticed() {
    check_caught(Canary::JournalRots, Theme::Plain, 10);
}
