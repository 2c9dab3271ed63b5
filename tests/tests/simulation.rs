//! The node in a simulated world: random work, crashes and faults from a seed, and checkers for every promise.
//!
//! `MILLSTREAM_SEED=7 cargo test -p millstream-tests --test simulation` replays one seed; `MILLSTREAM_SEEDS=1000` runs
//! that many, from `MILLSTREAM_SEED` on if both are set.

use millstream_tests::seeds::{self, Verdict};
use millstream_tests::sim::canary::Canary;
use millstream_tests::sim::scenario::{Outcomes, Scenario, Theme};

/// Seeds that every run of the tests goes through.
const SEEDS: u64 = 14;
/// Others that once found a bug: `docs/testing.md` says which.
const REGRESSIONS: [u64; 15] = [19, 22, 24, 28, 37, 39, 48, 67, 87, 93, 325, 348, 401, 1_000_069, 1_000_717];

fn verdict(seed: u64) -> Verdict {
    let scenario = Scenario::of(seed);
    let Outcomes { violations, trace, acked, refused, between, .. } = scenario.run();
    let theme = scenario.theme;
    let told = format!("{theme:?}: {acked} appends, moved, stopped, rotted {between:?}, refused {refused:?}");
    Verdict { told, violations, trace }
}

#[test]
fn every_promise_holds_through_random_work_and_crashes() {
    seeds::check("simulation", "every_promise", SEEDS, verdict);
}

#[test]
fn seeds_that_found_a_bug_find_none_any_more() {
    seeds::check_these("simulation", "every_promise", REGRESSIONS, verdict);
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
