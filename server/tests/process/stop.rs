//! The good end, and guests that behave badly.

use std::io::{Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::broker::{Broker, TempDir, serve};
use crate::client::Client;

#[test]
fn sigterm_ends_it_well_though_a_fetch_waits_and_a_connection_idles() {
    let dir = TempDir::new();
    let broker = Broker::start(&mut serve(&dir));
    let _idle = Client::connect(broker.address);
    let mut waiting = Client::connect(broker.address);
    waiting.create("t");
    waiting.send_fetch("t", 0, 0, 600_000);
    // Time for the fetch to arrive. If it did not, the test is weaker, not wrong.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn a_log_that_takes_nothing_any_more_does_not_end_it() {
    let dir = TempDir::new();
    // Where a log lies that has filled its disk: every write fails.
    let broker = Broker::start_logged(&mut serve(&dir), Path::new("/dev/full"));
    Client::connect(broker.address).create("t");
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn garbage_closes_its_connection_and_hurts_nobody_else() {
    let dir = TempDir::new();
    let broker = Broker::start(&mut serve(&dir));
    let mut other = Client::connect(broker.address);
    other.create("t");
    let short = 40_u32.to_be_bytes().into_iter().chain([0xff; 40]).collect();
    for garbage in [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), vec![0xff; 64 << 10], short] {
        let mut guest = Client::connect(broker.address);
        // The broker may hang up before it has read it all.
        let _ = guest.socket().write_all(&garbage);
        match guest.socket().read(&mut [0; 1]) {
            Ok(0) => {}
            Ok(_) => panic!("garbage was answered"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        other.create("t");
    }
    assert_eq!(broker.terminate().code(), Some(0));
}
