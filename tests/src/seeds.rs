//! What every simulation's test does with seeds: which are run, and what is said of those that break a promise.

use std::env;

/// What came of one seed.
pub struct Verdict {
    /// What happened, in a line.
    pub told: String,
    /// Broken promises; none if all is well.
    pub violations: Vec<String>,
    /// What happened last, for whoever looks for the reason.
    pub trace: String,
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Runs seeds and fails if any breaks a promise, with a command for each that replays it: those that `MILLSTREAM_SEED` and
/// `MILLSTREAM_SEEDS` choose, else the first `usual`. `test` is the file, and `name` a word in the name of the test.
pub fn check(test: &str, name: &str, usual: u64, mut run: impl FnMut(u64) -> Verdict) {
    let (first, count) = (number("MILLSTREAM_SEED"), number("MILLSTREAM_SEEDS"));
    let count = count.unwrap_or(if first.is_some() { 1 } else { usual });
    let first = first.unwrap_or(0);
    check_these(test, name, first..first + count, &mut run);
}

/// The same with seeds that are chosen by hand.
pub fn check_these(
    test: &str,
    name: &str,
    seeds: impl IntoIterator<Item = u64>,
    mut run: impl FnMut(u64) -> Verdict,
) {
    let mut verdicts = Vec::new();
    for seed in seeds {
        let Verdict { told, violations, trace } = run(seed);
        println!("seed {seed}: {told}");
        if violations.is_empty() {
            continue;
        }
        if verdicts.is_empty() {
            println!("{trace}");
        }
        let broken: Vec<String> =
            violations.iter().take(5).map(|what| what.chars().take(1_000).collect()).collect();
        let verdict = format!(
            "seed {seed}: {}\n  replay: MILLSTREAM_SEED={seed} cargo test -p millstream-tests --test {test} -- {name}",
            broken.join("\n  ")
        );
        // At once: whoever runs a hundred thousand does not want to wait for the last.
        println!("{verdict}");
        verdicts.push(verdict);
    }
    assert!(verdicts.is_empty(), "\n\n{}\n", verdicts.join("\n\n"));
}

/// Whether the usual seeds are run, so that a test may ask for their sum.
pub fn are_usual() -> bool {
    number("MILLSTREAM_SEED").is_none() && number("MILLSTREAM_SEEDS").is_none()
}

/// What an assertion that failed had to say.
pub fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
