//! The production broker, its connections and its clients in a simulated world: sound clients keep every promise while
//! hostile ones do their worst, over a network that splits, merges, delays and resets, through crashes.
//!
//! `MILLSTREAM_SEED=7 cargo test -p millstream-tests --test kafka_simulation` replays one seed; `MILLSTREAM_SEEDS=1000`
//! runs that many, from `MILLSTREAM_SEED` on if both are set.

use std::collections::BTreeMap;
use std::env;

use millstream_engine::time::Nanos;
use millstream_tests::broker::story::Story;
use millstream_tests::kafka::group::GroupStory;
use millstream_tests::seeds;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Seeds that every run of the tests goes through.
const SEEDS: u64 = 10;
/// Groups, likewise.
const GROUPS: u64 = 1;

#[test]
fn sound_clients_are_served_beside_hostile_ones() {
    let mut totals = BTreeMap::new();
    seeds::check("kafka_simulation", "sound_clients", SEEDS, |seed| {
        Story::of_kafka(seed).verdict(&mut totals)
    });
    let shown = ["acked", "fetched", "committed", "guests"].iter().all(|name| totals[name] > 0);
    assert!(shown || !seeds::are_usual(), "{totals:?}: nothing was shown");
}

#[test]
fn one_seed_gives_one_history() {
    let digest = || Story { steps: 300, ..Story::of_kafka(3) }.run().digest;
    assert_eq!(digest(), digest());
}

#[test]
fn a_group_whose_members_come_and_go_reads_everything_and_shares_nothing() {
    let first = number("MILLSTREAM_SEED").unwrap_or(0);
    for seed in first..first + number("MILLSTREAM_SEEDS").unwrap_or(GROUPS) {
        let unrest = Nanos::from_millis(120_000);
        let story = GroupStory { seed, members: 50, partitions: 200, batches: 24, unrest, crashes: 2 };
        let outcomes = story.run();
        println!("seed {seed}: {outcomes:?}");
        assert!(outcomes.violations.is_empty(), "seed {seed}: {:?}", outcomes.violations);
        let happened = outcomes.generations > 2 && outcomes.died > 0 && outcomes.fenced > 0;
        assert!(happened && outcomes.commits.1 > 0, "seed {seed}: too little happened");
    }
}
