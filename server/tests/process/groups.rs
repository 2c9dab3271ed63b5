//! A killed process: an offset that was committed is there when it is started again, and has not gone back.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::broker::{Broker, TempDir, serve};
use crate::client::Client;

const TOPIC: &str = "t";
const GROUPS: usize = 6;
/// Commits that a client has under way.
const WINDOW: i64 = 16;
/// The text that goes with a commit: enough of it has what is stored written again on the way.
const TEXT_BYTES: usize = 2_000;

fn group(number: usize) -> String {
    format!("group-{number}")
}

/// Commits rising offsets from `from` on until the connection is gone: the last one that was acknowledged, and the last
/// that was sent.
fn commit(address: SocketAddr, number: usize, from: i64) -> (i64, i64) {
    let mut client = Client::connect(address);
    client.find_coordinator(&group(number));
    let text = "x".repeat(TEXT_BYTES);
    let (mut acknowledged, mut sent) = (from, from);
    loop {
        let first = sent + 1;
        for offset in first..first + WINDOW {
            if client.send_commit(&group(number), TOPIC, 0, offset, &text).is_err() {
                return (acknowledged, sent);
            }
            sent = offset;
        }
        for offset in first..first + WINDOW {
            match client.committed() {
                Ok(true) => acknowledged = offset,
                // What is stored is still being read: this one was not taken.
                Ok(false) => {}
                Err(_) => return (acknowledged, sent),
            }
        }
    }
}

#[test]
fn what_was_committed_survives_kills_and_other_numbers_of_shards_and_never_goes_back() {
    let dir = TempDir::new();
    let start = |shards: &str| Broker::start(serve(&dir).args(["--shards", shards]));
    let mut known = [(0, 0); GROUPS];
    let check = |address, known: &mut [(i64, i64); GROUPS]| {
        let mut client = Client::connect(address);
        for (number, (acknowledged, sent)) in known.iter_mut().enumerate() {
            let found = client.offset(&group(number), TOPIC, 0);
            assert!(
                (*acknowledged..=*sent).contains(&found),
                "{}: {found} after {acknowledged} of {sent}",
                group(number)
            );
            (*acknowledged, *sent) = (found, found);
        }
    };
    for (round, shards) in ["2", "2", "1", "3"].into_iter().enumerate() {
        let broker = start(shards);
        let address = broker.address;
        if round == 0 {
            Client::connect(address).create(TOPIC);
        } else {
            check(address, &mut known);
        }
        let clients: Vec<_> = known
            .into_iter()
            .enumerate()
            .map(|(number, (from, _))| thread::spawn(move || commit(address, number, from)))
            .collect();
        thread::sleep(Duration::from_millis(400));
        broker.kill();
        for (known, client) in known.iter_mut().zip(clients) {
            let now = client.join().unwrap();
            assert!(now.0 > known.0, "the kill came before anything was acknowledged");
            *known = now;
        }
    }
    let broker = start("2");
    check(broker.address, &mut known);
    assert!(broker.terminate().success());
    let broker = start("2");
    check(broker.address, &mut known);
}
