//! Queues on several shards, whose dead letters go round in a circle, through lives that end in crashes, in a simulated world: see
//! `tests/src/queue_story/`.
//!
//! `MILLSTREAM_SEED=7 cargo test -p millstream-tests --test queue_simulation -- every_promise` replays one seed;
//! `MILLSTREAM_SEEDS=1000` runs that many, from `MILLSTREAM_SEED` on if both are set.

use millstream_tests::queue_story::{Bug, Story, Theme};
use millstream_tests::seeds::{self, Verdict};
use millstream_tests::sim::canary::Canary;

/// Seeds that every run of the tests goes through.
const SEEDS: u64 = 12;
/// A bug on purpose is noticed within so many seeds.
const CANARY_SEEDS: u64 = 40;

#[test]
fn every_promise_holds_whatever_the_seed() {
    let mut totals = [0; 4];
    seeds::check("queue_simulation", "every_promise", SEEDS, |seed| {
        let story = Story::of(seed);
        let outcomes = story.run();
        let counts = [outcomes.confirmed, outcomes.delivered, outcomes.moved, outcomes.lost];
        for (total, count) in totals.iter_mut().zip(counts) {
            *total += count;
        }
        let (Story { theme, shards, slots, .. }, refused) = (story, outcomes.refused);
        let told =
            format!("{theme:?}, {shards} shards, mailboxes of {slots}: {counts:?}, refused: {refused}");
        Verdict { told, violations: outcomes.violations, trace: String::new() }
    });
    let shown = totals[..3].iter().all(|total| *total > 100);
    assert!(shown || !seeds::are_usual(), "{totals:?}: nothing was shown");
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
