//! Queues on several shards, whose dead letters go round in a circle, through lives that end in crashes, in a simulated world: see
//! `tests/src/queue_story/`.
//!
//! `MILLSTREAM_SEED=7 cargo test -p millstream-tests --test queue_simulation -- every_promise` replays one seed;
//! `MILLSTREAM_SEEDS=1000` runs that many, from `MILLSTREAM_SEED` on if both are set.

use std::env;

use millstream_tests::queue_story::{Bug, Story, Theme};
use millstream_tests::sim::canary::Canary;

/// Seeds that every run of the tests goes through.
const SEEDS: u64 = 12;
/// A bug on purpose is noticed within so many seeds.
const CANARY_SEEDS: u64 = 40;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn every_promise_holds_whatever_the_seed() {
    let (first, count) = (number("MILLSTREAM_SEED"), number("MILLSTREAM_SEEDS"));
    let count = count.unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let first = first.unwrap_or(0);
    let mut verdicts = Vec::new();
    let mut totals = [0; 4];
    for seed in first..first + count {
        let story = Story::of(seed);
        let outcomes = story.run();
        let Story { theme, shards, slots, .. } = story;
        let counts = [outcomes.confirmed, outcomes.delivered, outcomes.moved, outcomes.lost];
        println!(
            "seed {seed}: {theme:?}, {shards} shards, mailboxes of {slots}: {counts:?}, refused: {}",
            outcomes.refused
        );
        for (total, count) in totals.iter_mut().zip(counts) {
            *total += count;
        }
        if let Some(broken) = outcomes.violations.first() {
            let broken: String = broken.chars().take(1_000).collect();
            verdicts.push(format!(
                "seed {seed}: {broken}\n  replay: MILLSTREAM_SEED={seed} cargo test -p millstream-tests --test queue_simulation -- every_promise"
            ));
        }
    }
    assert!(verdicts.is_empty(), "\n\n{}\n", verdicts.join("\n\n"));
    assert!(count == 1 || totals[..3].iter().all(|total| *total > 100), "{totals:?}: nothing was shown");
}

fn is_noticed(change: impl Fn(&mut Story)) -> Option<u64> {
    (0..CANARY_SEEDS).find(|seed| {
        let story = Story { theme: Theme::Plain, shards: 2, ..Story::of(*seed) };
        let mut with_bug = story.clone();
        change(&mut with_bug);
        let noticed = !with_bug.run().violations.is_empty();
        assert!(
            !noticed || story.run().violations.is_empty(),
            "seed {seed}: it is not the bug that is noticed"
        );
        noticed
    })
}

#[test]
fn bugs_of_the_hosts_are_noticed() {
    for bug in [Bug::FirstOwnerConfirms, Bug::StaleRoute, Bug::MoveInTwo, Bug::PurgeBeforeAnswer] {
        let noticed = is_noticed(|story| story.bug = bug);
        println!("{bug:?}: seed {noticed:?}");
        assert!(noticed.is_some(), "{bug:?} goes unnoticed: the checks are blind");
    }
}

#[test]
fn bugs_of_the_world_are_noticed() {
    let canaries = [
        Canary::WrittenIsDurable,
        Canary::FailureIsSuccess,
        Canary::GroupsReordered,
        Canary::LyingFlush,
        Canary::SettlementsRecycled,
    ];
    for canary in canaries {
        let noticed = is_noticed(|story| {
            story.canary = canary;
            if canary == Canary::FailureIsSuccess {
                story.theme = Theme::Poison;
            }
        });
        println!("{canary:?}: seed {noticed:?}");
        assert!(noticed.is_some(), "{canary:?} goes unnoticed: the checks are blind");
    }
}
