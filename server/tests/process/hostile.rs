//! Guests that behave badly, a great many at once or for a long time: what becomes of them, and that nobody else is hurt.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;
use std::{fs, process, thread};

use millstream::limits::CONNECTIONS_PER_SHARD_MAX;
use millstream_engine::format::batch::BatchBuilder;

use crate::broker::{BINARY, Broker, TempDir, serve};
use crate::client::Client;

/// `CORRUPT_MESSAGE`
const CORRUPT_MESSAGE: i16 = 2;
/// What an idle connection may cost the broker. Far more than it does: it is printed.
const BYTES_PER_CONNECTION_MAX: u64 = 64 << 10;
/// Files that a process needs besides its connections.
const OTHER_FILES: usize = 500;

fn batch(value: &[u8]) -> Vec<u8> {
    BatchBuilder::new(1_700_000_000_000).push(None, Some(value)).build()
}

/// A connection that waits for long.
fn guest(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    socket
}

/// Whether the other side ends the connection without a word.
fn is_hung_up_on(socket: &mut TcpStream) -> bool {
    match socket.read(&mut [0; 1]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// A request's header without a client id.
fn header(key: u8, version: u8) -> Vec<u8> {
    vec![0, key, 0, version, 0, 0, 0, 5, 0xff, 0xff]
}

/// A field of a process's status, in bytes.
fn status_bytes(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Raises the number of files that this process and those it starts may have open.
fn allow_files(files: usize) -> bool {
    let limit = format!("--nofile={files}:{files}");
    let mut command = Command::new("prlimit");
    command.args(["--pid", &process::id().to_string(), &limit]).stderr(process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn what_is_no_request_is_hung_up_on_and_the_log_says_why() {
    let dir = TempDir::new();
    let log = dir.path().join("log");
    let broker = Broker::start_logged(&mut serve(&dir), &log);
    let mut other = Client::connect(broker.address);
    other.create("t");
    let huge = [0x7f, 0xff, 0xff, 0xff];
    let cases = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), "socket.request.max.bytes"),
        (vec![0xff; 64 << 10], "length is negative"),
        (framed(&header(99, 0)), "no API with key 99"),
        (framed(&header(0, 99)), "version 99 of Produce is not served"),
        (framed(&[&header(3, 1)[..], &huge].concat()), "more elements than the message has room for"),
        (framed(&header(3, 1)[..9]), "ends too early"),
    ];
    for (garbage, reason) in cases {
        let mut guest = guest(broker.address);
        // The broker may hang up before it has read it all.
        let _ = guest.write_all(&garbage);
        assert!(is_hung_up_on(&mut guest), "{reason}");
        other.create("t");
        let written = fs::read_to_string(&log).unwrap();
        let told = written.lines().filter(|line| line.contains("connection closed") && line.contains(reason));
        assert_eq!(told.count(), 1, "{reason:?} in {written}");
    }
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn a_damaged_batch_is_refused_and_its_connection_goes_on() {
    let dir = TempDir::new();
    let broker = Broker::start(&mut serve(&dir));
    let mut client = Client::connect(broker.address);
    client.create("t");
    let mut damaged = batch(b"value");
    *damaged.last_mut().unwrap() ^= 1;
    client.send_batch(-1, "t", 0, &damaged).unwrap();
    assert_eq!(client.produced().unwrap().0, CORRUPT_MESSAGE);
    client.send_batch(-1, "t", 0, &batch(b"value")).unwrap();
    assert_eq!(client.acknowledged().unwrap(), 0, "nothing of the damaged one is stored");
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn who_sends_a_byte_at_a_time_is_answered_in_the_end() {
    let dir = TempDir::new();
    let broker = Broker::start(&mut serve(&dir));
    let mut other = Client::connect(broker.address);
    other.create("t");
    let mut slow = guest(broker.address);
    slow.set_nodelay(true).unwrap();
    for byte in framed(&header(18, 0)) {
        slow.write_all(&[byte]).unwrap();
        thread::sleep(Duration::from_millis(20));
        other.send_batch(-1, "t", 0, &batch(b"meanwhile")).unwrap();
        other.acknowledged().unwrap();
    }
    let mut answer = [0; 8];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(answer[4..], [0, 0, 0, 5], "the correlation id");
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn large_requests_close_behind_each_other_are_stored_as_they_came() {
    let dir = TempDir::new();
    let broker = Broker::start(serve(&dir).args(["--shards", "1"]));
    let mut client = Client::connect(broker.address);
    client.create("t");
    // Some are received into one piece and some are not, and each is followed by each kind.
    let kib = [70, 200, 1, 900, 64, 300, 300, 128, 5];
    let batches: Vec<Vec<u8>> =
        (0..72).map(|n| batch(&vec![n as u8; kib[n * (1 + n / 9) % 9] << 10])).collect();
    for several in batches.chunks(6) {
        for batch in several {
            client.send_batch(-1, "t", 0, batch).unwrap();
        }
        for _ in several {
            client.acknowledged().unwrap();
        }
    }
    for (offset, sent) in batches.iter().enumerate() {
        client.send_fetch("t", 0, offset as i64, 0);
        let (_, stored) = client.fetched();
        // What is before it says where it is stored.
        assert!(stored[21..sent.len()] == sent[21..], "the batch at {offset}, of {} bytes", sent.len());
    }
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn who_begins_large_requests_and_does_not_end_them_costs_a_bounded_amount_of_memory() {
    let dir = TempDir::new();
    let config = dir.config("queued.max.request.bytes = 16777216\n");
    let broker = Broker::start(serve(&dir).arg("--config").arg(config).args(["--shards", "1"]));
    let mut other = Client::connect(broker.address);
    other.create("t");
    let before = status_bytes(broker.pid(), "VmRSS:");
    let mut guests: Vec<TcpStream> = (0..200).map(|_| guest(broker.address)).collect();
    for guest in &mut guests {
        // Most of a request of 1 MiB: all of them together are more than what is allowed below. The broker may have had enough.
        let _ = guest.write_all(&[&(1_u32 << 20).to_be_bytes()[..], &vec![0; 900_000]].concat());
    }
    for _ in 0..20 {
        other.send_batch(-1, "t", 0, &batch(b"meanwhile")).unwrap();
        other.acknowledged().unwrap();
    }
    let after = status_bytes(broker.pid(), "VmRSS:");
    let grown = after.saturating_sub(before);
    assert!(grown < 96 << 20, "{} MiB for 200 guests", grown >> 20);
    drop(guests);
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn who_asks_for_much_and_reads_nothing_costs_a_bounded_amount_of_memory() {
    let dir = TempDir::new();
    let broker = Broker::start(serve(&dir).args(["--shards", "1"]));
    let mut other = Client::connect(broker.address);
    other.create("t");
    let value = vec![7; 900 << 10];
    for _ in 0..40 {
        other.send_batch(-1, "t", 0, &batch(&value)).unwrap();
        other.acknowledged().unwrap();
    }
    let before = status_bytes(broker.pid(), "VmRSS:");
    let mut guests: Vec<Client> = (0..4).map(|_| Client::connect(broker.address)).collect();
    for guest in &mut guests {
        // 36 MiB of answers for each: none of them is read.
        for offset in 0..40 {
            guest.send_fetch("t", 0, offset, 0);
        }
    }
    for _ in 0..20 {
        other.send_batch(-1, "t", 0, &batch(&value)).unwrap();
        other.acknowledged().unwrap();
        other.send_fetch("t", 0, 0, 0);
        assert!(other.fetched().1.len() > value.len());
    }
    let after = status_bytes(broker.pid(), "VmRSS:");
    let grown = after.saturating_sub(before);
    println!("{} KiB for {} guests that read nothing", grown >> 10, guests.len());
    assert!(grown < 128 << 20, "{grown} bytes");
    drop(guests);
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn a_connection_per_request_leaves_nothing_behind() {
    let dir = TempDir::new();
    let broker = Broker::start(&mut serve(&dir));
    let mut other = Client::connect(broker.address);
    other.create("t");
    let before = open_files(broker.pid());
    for _ in 0..2000 {
        let mut guest = guest(broker.address);
        guest.write_all(&framed(&header(18, 0))).unwrap();
        guest.read_exact(&mut [0; 8]).unwrap();
    }
    for _ in 0..1000 {
        if open_files(broker.pid()) <= before {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(open_files(broker.pid()) <= before, "{before} files were open");
    other.create("t");
    assert_eq!(broker.terminate().code(), Some(0));
}

#[test]
fn ten_thousand_idle_connections_are_held_and_one_more_is_refused() {
    if !allow_files(CONNECTIONS_PER_SHARD_MAX + OTHER_FILES) {
        eprintln!("skipped: this needs prlimit, and a limit of open files that may be raised");
        return;
    }
    let dir = TempDir::new();
    let log = dir.path().join("log");
    let mut command = Command::new(BINARY);
    command.arg("--data").arg(dir.data()).args(["--kafka", "127.0.0.1:0", "--shards", "1"]);
    let broker = Broker::start_logged(&mut command, &log);
    let mut other = Client::connect(broker.address);
    other.create("t");
    let serve = |other: &mut Client| {
        other.send_batch(-1, "t", 0, &batch(b"value")).unwrap();
        other.acknowledged().unwrap();
    };
    serve(&mut other);
    let before = status_bytes(broker.pid(), "VmRSS:");
    let mut idle = Vec::new();
    while idle.len() < CONNECTIONS_PER_SHARD_MAX - 1 {
        idle.push(guest(broker.address));
        if idle.len().is_multiple_of(500) {
            serve(&mut other);
        }
    }
    // All have been accepted when the last one has been served.
    for socket in [0, idle.len() - 1] {
        idle[socket].write_all(&framed(&header(18, 0))).unwrap();
        idle[socket].read_exact(&mut [0; 8]).unwrap();
    }
    let grown = status_bytes(broker.pid(), "VmRSS:").saturating_sub(before);
    println!("{} bytes per idle connection", grown / idle.len() as u64);
    assert!(grown < BYTES_PER_CONNECTION_MAX * idle.len() as u64, "{grown} bytes");

    assert!(is_hung_up_on(&mut guest(broker.address)), "there is no room for another");
    assert!(fs::read_to_string(&log).unwrap().contains("a connection was closed: this shard serves"));
    serve(&mut other);
    idle.truncate(CONNECTIONS_PER_SHARD_MAX / 2);
    // There is room again, as soon as the broker has noticed.
    let is_served = || {
        let mut guest = guest(broker.address);
        guest.write_all(&framed(&header(18, 0))).is_ok() && guest.read_exact(&mut [0; 8]).is_ok()
    };
    assert!((0..500).any(|_| is_served() || {
        thread::sleep(Duration::from_millis(10));
        false
    }));
    serve(&mut other);
    drop(idle);
    assert_eq!(broker.terminate().code(), Some(0));
}
