//! The production broker and AMQP clients in a simulated world: what is confirmed is not lost, what is settled does not come back,
//! over a network that splits, merges, delays and resets, through crashes.
//!
//! `MILLSTREAM_SEED=7 cargo test -p millstream-tests --test amqp_simulation` replays one seed; `MILLSTREAM_SEEDS=1000` runs that many,
//! from `MILLSTREAM_SEED` on if both are set.

use std::collections::BTreeMap;

use millstream_tests::broker::story::Story;
use millstream_tests::seeds;

/// Seeds that every run of the tests goes through.
const SEEDS: u64 = 12;

#[test]
fn what_is_confirmed_is_kept_and_what_is_settled_is_gone() {
    let mut totals = BTreeMap::new();
    seeds::check("amqp_simulation", "what_is_confirmed", SEEDS, |seed| {
        Story::of_amqp(seed).verdict(&mut totals)
    });
    let shown =
        ["confirmed", "delivered", "settled", "rejected", "dead letters"].iter().all(|name| totals[name] > 0);
    assert!(shown || !seeds::are_usual(), "{totals:?}: nothing was shown");
}

#[test]
fn one_seed_gives_one_history() {
    let digest = || Story { steps: 300, ..Story::of_amqp(3) }.run().digest;
    assert_eq!(digest(), digest());
}
