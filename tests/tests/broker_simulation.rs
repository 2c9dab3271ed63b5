//! The whole broker in a simulated world: clients of both protocols on the same node, crashes, faults, other numbers of shards, a
//! clock that jumps, and features and faults that each seed switches off at random: see `tests/src/broker/`.
//!
//! `MILLSTREAM_SEED=7 cargo test -p millstream-tests --test broker_simulation -- every_promise` replays one seed;
//! `MILLSTREAM_SEEDS=1000` runs that many, from `MILLSTREAM_SEED` on if both are set.

use std::collections::BTreeMap;

use millstream_tests::broker::story::{Day, Story};
use millstream_tests::seeds;
use millstream_tests::sim::canary::Canary;

/// Seeds that every run of the tests goes through.
const SEEDS: u64 = 16;
/// A bug on purpose is noticed within so many seeds.
const CANARY_SEEDS: u64 = 10;

#[test]
fn every_promise_to_both_protocols_holds_whatever_the_seed() {
    let mut totals = BTreeMap::new();
    seeds::check("broker_simulation", "every_promise", SEEDS, |seed| Story::of(seed).verdict(&mut totals));
    let shown = totals.values().all(|count| *count > 0);
    assert!(shown || !seeds::are_usual(), "{totals:?}: nothing was shown");
}

#[test]
fn one_seed_gives_one_history() {
    let digest = || Story { steps: 300, ..Story::of(3) }.run().digest;
    assert_eq!(digest(), digest());
}

/// Plants a bug: the judges must notice it within so many seeds, none of which breaks a promise without it.
fn check_caught(canary: Canary, day: Day) {
    let caught = (0..CANARY_SEEDS).find_map(|seed| {
        let story = Story { day, lives: 3, stops: false, ..Story::of(seed) };
        let violations = Story { canary, ..story.clone() }.run().violations;
        let noticed = violations.first()?.clone();
        assert!(story.run().violations.is_empty(), "seed {seed}: it is not the bug that is noticed");
        Some(format!("seed {seed}: {noticed}"))
    });
    println!("{canary:?}: {caught:?}");
    assert!(caught.is_some(), "{CANARY_SEEDS} seeds did not notice {canary:?}: the judges are blind");
}

#[test]
fn readers_that_see_what_power_loss_takes_back_are_noticed() {
    check_caught(Canary::WrittenIsDurable, Day::Plain);
}

#[test]
fn a_failed_commit_taken_for_success_is_noticed() {
    check_caught(Canary::FailureIsSuccess, Day::Poison);
}

#[test]
fn memory_reused_while_it_is_written_is_noticed() {
    check_caught(Canary::SlabReused, Day::Plain);
}

#[test]
fn a_torn_group_that_is_not_the_last_is_noticed() {
    check_caught(Canary::GroupsReordered, Day::Plain);
}

#[test]
fn a_flush_that_lies_is_noticed() {
    check_caught(Canary::LyingFlush, Day::Plain);
}

#[test]
fn a_settlement_that_a_checkpoint_forgets_is_noticed() {
    check_caught(Canary::SettlementsRecycled, Day::Plain);
}
