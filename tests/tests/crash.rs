//! A small story, crashed at its points, with the small choices of what the disk keeps; and recovery, crashed at its own.
//!
//! By default a sample of the points; `MILLSTREAM_CRASH_POINTS=all cargo test -p millstream-tests --test crash` takes
//! every one, `MILLSTREAM_CRASH_POINTS=417` that one.

use std::env;

use millstream_tests::sim::canary::Canary;
use millstream_tests::sim::points::Story;

/// Points that every run of the tests goes through.
const POINTS: u64 = 24;
/// Of these, those whose recovery is crashed as well.
const RECOVERIES: u64 = 3;

fn story() -> Story {
    Story { seed: 5, steps: 420, canary: Canary::None }
}

fn points(all: u64, wanted: u64) -> Vec<u64> {
    match env::var("MILLSTREAM_CRASH_POINTS").as_deref() {
        Ok("all") => (1..=all).collect(),
        Ok(one) => vec![one.parse().expect("MILLSTREAM_CRASH_POINTS is `all` or a number")],
        Err(_) => (1..=wanted).map(|turn| turn * all / wanted).filter(|point| *point > 0).collect(),
    }
}

fn replay(what: String) -> String {
    let point = what.split_whitespace().nth(1).unwrap_or_default().trim_end_matches(',').to_owned();
    format!(
        "\n{what}\n\nreplay: MILLSTREAM_CRASH_POINTS={point} cargo test -p millstream-tests --test crash\n"
    )
}

#[test]
fn the_story_seals_segments_and_trims_the_journal() {
    let (stopped, _) = story().run_to(None).unwrap_or_else(|what| panic!("{what}"));
    let files = stopped.files();
    for kind in ["/checkpoint", ".sum", ".timeindex"] {
        assert!(files.iter().any(|path| path.ends_with(kind)), "there is no {kind} among {files:?}");
    }
}

#[test]
fn every_promise_survives_a_crash_at_any_point() {
    let story = story();
    let (_, all) = story.run_to(None).unwrap_or_else(|what| panic!("{what}"));
    let mut tried = 0;
    for point in points(all, POINTS) {
        tried += story.crash_at(point).unwrap_or_else(|what| panic!("{}", replay(what)));
    }
    println!("{tried} crashes at points up to {all}");
}

#[test]
fn every_promise_survives_a_crash_of_the_recovery() {
    let story = story();
    let (_, all) = story.run_to(None).unwrap_or_else(|what| panic!("{what}"));
    let mut tried = 0;
    for point in points(all, RECOVERIES) {
        tried += story.crash_while_recovering(point, 5).unwrap_or_else(|what| panic!("{}", replay(what)));
    }
    println!("{tried} crashes of recoveries");
}
