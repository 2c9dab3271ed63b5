//! The production broker, its connections and its clients in a simulated world: sound clients keep every promise while
//! hostile ones do their worst, over a network that splits, merges, delays and resets, through crashes.
//!
//! `MILLSTREAM_SEED=7 cargo test -p millstream-tests --test kafka_simulation` replays one seed; `MILLSTREAM_SEEDS=1000`
//! runs that many, from `MILLSTREAM_SEED` on if both are set.

use std::env;

use millstream_engine::time::Nanos;
use millstream_tests::kafka::group::GroupStory;
use millstream_tests::kafka::story::Story;

/// Seeds that every run of the tests goes through.
const SEEDS: u64 = 10;
/// Groups, likewise.
const GROUPS: u64 = 1;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn sound_clients_are_served_beside_hostile_ones() {
    let (first, count) = (number("MILLSTREAM_SEED"), number("MILLSTREAM_SEEDS"));
    let count = count.unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let first = first.unwrap_or(0);
    let mut verdicts = Vec::new();
    let mut totals = (0, 0, 0);
    for seed in first..first + count {
        let outcomes = Story::of(seed).run();
        totals = (totals.0 + outcomes.acked, totals.1 + outcomes.fetched, totals.2 + outcomes.guests);
        println!(
            "seed {seed}: {} batches acknowledged, {} fetches, {} hostile clients, at most {:?} bytes held",
            outcomes.acked, outcomes.fetched, outcomes.guests, outcomes.held
        );
        if let Some(broken) = outcomes.violations.first() {
            if verdicts.is_empty() {
                println!("{}", outcomes.trace);
            }
            let broken: String = broken.chars().take(1000).collect();
            verdicts.push(format!(
                "seed {seed}: {broken}\n  replay: MILLSTREAM_SEED={seed} cargo test -p millstream-tests --test kafka_simulation"
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
