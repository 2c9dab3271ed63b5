//! Whole turns against an endpoint that stands still now and then: what an open loop has to show of it.

use std::time::Duration;

use super::*;
use crate::engine::node::ANY_PORT;
use crate::libraries::Library;
use crate::load::Span;
use crate::load::footprint::Processes;
use crate::load::turn::{END_TO_END, PRODUCE, Turn};
use crate::log::workload::{Mode, Workload as Records};
use crate::log::{self, Target};
use crate::queue::workload::Workload as Tasks;
use crate::queue::{self, Broker};

/// The pause, and the time from one to the next: a twentieth of all records falls into one.
const PAUSE_MS: u64 = 50;
const EVERY_MS: u64 = 1000;
/// Long enough for two pauses at least.
const SPAN: Span = Span { warm_up: Duration::from_millis(500), measure: Some(Duration::from_secs(3)) };
/// Records per second.
const RATE: f64 = 2000.0;

/// What a load on a slowed endpoint came to.
fn slowed(name: &str, load: impl FnOnce(SocketAddr) -> Result<Turn, Problem>) -> Turn {
    let dir = std::env::temp_dir().join(format!("millbench-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let node = start(ANY_PORT, 1, Some(Stall::new(PAUSE_MS, EVERY_MS)), &dir).unwrap();
    let turn = load(node.address().unwrap());
    node.stop().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    turn.unwrap()
}

/// Whoever was due at the start of a pause waited for all of it, whoever was due at its end for nothing: of the twentieth that
/// fell into one, a fifth waited for four fifths of it. A machine with other things to do makes them wait longer.
fn check(turn: &Turn, latency: &str) {
    let waited = turn.latency_of(latency).unwrap();
    let ms = |percent| waited.value_at_percentile(percent) as f64 / 1e6;
    assert!(ms(100.0) >= 48.0, "{latency}: max {} ms", ms(100.0));
    assert!(ms(99.9) >= 45.0, "{latency}: p99.9 {} ms", ms(99.9));
    assert!(ms(99.0) >= 25.0, "{latency}: p99 {} ms", ms(99.0));
}

#[test]
fn a_log_that_pauses_shows_it_at_its_full_length_to_whoever_keeps_to_a_schedule() {
    let workload = Records { mode: Mode::EndToEnd, throughput: RATE, linger_ms: 0.0, ..Records::default() };
    let turn = slowed("slow-log", |address| {
        let (processes, cpus) = (Processes::default(), raw::cpus());
        let target = Target {
            address,
            processes: &processes,
            cpus: &cpus,
            settings: &[],
            records: None,
            library: Library::Own,
        };
        log::load(&target, &workload, SPAN)
    });
    check(&turn, PRODUCE);
    check(&turn, END_TO_END);
}

#[test]
fn a_queue_that_pauses_shows_it_at_its_full_length_to_whoever_keeps_to_a_schedule() {
    // Few may be under way, so that the pause holds up who sends: most of what is due waits to be sent.
    let workload = Tasks { rate: RATE, confirm: 10, qos: 1000, ..Tasks::default() };
    let turn = slowed("slow-queue", |address| {
        let broker = Broker::at(address);
        queue::load(&broker, &Processes::default(), &raw::cpus(), &workload, SPAN, Library::Own)
    });
    check(&turn, PRODUCE);
    check(&turn, END_TO_END);
}
