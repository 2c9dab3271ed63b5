//! A killed process: what it acknowledged, with `acks=1` or `acks=all`, is there when it is started again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::{env, fs};

use millstream_engine::format::batch::{BatchBuilder, BatchHeader, records};

use crate::broker::{BINARY, Broker, TempDir, run, serve};
use crate::client::Client;

const TOPIC: &str = "t";
const PARTITIONS: i32 = 4;
const WRITERS: u32 = 4;
/// Batches that a writer has under way.
const WINDOW: u32 = 8;
/// Where a batch's part begins that the broker leaves as it came.
const UNTOUCHED_FROM: usize = 17;

/// A batch that was acknowledged.
struct Acknowledged {
    partition: i32,
    offset: i64,
    batch: Vec<u8>,
}

/// Small segments, so that some are sealed on the way, and none that is deleted: the batches' timestamps are old.
pub const CONFIG: &str = "num.partitions = 4\nlog.segment.bytes = 1048576\nlog.retention.ms = -1\n";

/// One to three records, the first of which names the batch.
fn batch(name: &str, number: u32) -> Vec<u8> {
    let filler = vec![b'a' + (number % 26) as u8; (number * 379 % 5000) as usize];
    let mut builder = BatchBuilder::new(1_700_000_000_000 + i64::from(number));
    builder.push(Some(name.as_bytes()), Some(&filler));
    for _ in 0..number % 3 {
        builder.push(None, Some(b"more"));
    }
    builder.build()
}

/// Writes until the connection is gone.
fn write(address: SocketAddr, round: usize, writer: u32) -> Vec<Acknowledged> {
    let mut client = Client::connect(address);
    let acks = if writer.is_multiple_of(2) { -1 } else { 1 };
    let mut acknowledged = Vec::new();
    for window in 0.. {
        let batches: Vec<_> = (window * WINDOW..(window + 1) * WINDOW)
            .map(|number| {
                let name = format!("{round}-{writer}-{number:08}");
                ((number % PARTITIONS as u32) as i32, batch(&name, number))
            })
            .collect();
        for (partition, batch) in &batches {
            if client.send_batch(acks, TOPIC, *partition, batch).is_err() {
                break;
            }
        }
        for (partition, batch) in batches {
            let Ok(offset) = client.acknowledged() else { return acknowledged };
            acknowledged.push(Acknowledged { partition, offset, batch });
        }
    }
    unreachable!("a writer writes until the broker is killed");
}

/// Every batch of a partition, by its offset.
fn read(client: &mut Client, partition: i32) -> BTreeMap<i64, Vec<u8>> {
    let mut batches = BTreeMap::new();
    let mut next = 0;
    loop {
        client.send_fetch(TOPIC, partition, next, 0);
        let (high_watermark, bytes) = client.fetched();
        if next == high_watermark {
            return batches;
        }
        let mut rest = &bytes[..];
        assert!(!rest.is_empty(), "nothing at {next}, below the high watermark {high_watermark}");
        while !rest.is_empty() {
            // The last batch of an answer may be cut off, which the next fetch brings whole.
            let Some(length) = rest.get(8..12) else { break };
            let length = 12 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let Some((batch, behind)) = rest.split_at_checked(length) else { break };
            let header = millstream_engine::format::batch::check(batch).unwrap();
            assert_eq!(header.base_offset.0 as i64, next, "offsets have no gaps");
            next = header.next_offset().0 as i64;
            batches.insert(header.base_offset.0 as i64, batch.to_vec());
            rest = behind;
        }
    }
}

fn name_of(batch: &[u8]) -> String {
    BatchHeader::parse(batch).unwrap();
    let first = records(batch).unwrap().next().unwrap().unwrap();
    String::from_utf8(first.key.unwrap().to_vec()).unwrap()
}

/// Everything acknowledged is there, in order, once, with the same bytes.
fn check(address: SocketAddr, acknowledged: &[Acknowledged]) {
    let mut client = Client::connect(address);
    let partitions: Vec<_> = (0..PARTITIONS).map(|partition| read(&mut client, partition)).collect();
    for Acknowledged { partition, offset, batch } in acknowledged {
        let stored = partitions[*partition as usize].get(offset);
        let stored = stored.unwrap_or_else(|| panic!("{} at {partition}/{offset} is lost", name_of(batch)));
        assert_eq!(stored[UNTOUCHED_FROM..], batch[UNTOUCHED_FROM..], "{partition}/{offset}");
    }
    let mut names = BTreeSet::new();
    for batches in &partitions {
        let mut last = BTreeMap::new();
        for batch in batches.values() {
            let name = name_of(batch);
            assert!(names.insert(name.clone()), "{name} is stored twice");
            let (writer, _) = name.rsplit_once('-').unwrap();
            if let Some(before) = last.insert(writer.to_owned(), name.clone()) {
                assert!(before < name, "{name} comes behind {before}");
            }
        }
    }
}

/// Has a broker written to for a while, kills it in the middle, and adds what it acknowledged.
pub fn write_and_kill(broker: Broker, round: usize) -> usize {
    let mut acknowledged = Vec::new();
    write_until_killed(broker, round, &mut acknowledged);
    acknowledged.len()
}

fn write_until_killed(broker: Broker, round: usize, acknowledged: &mut Vec<Acknowledged>) {
    let address = broker.address;
    let partitions = Client::connect(address).create(TOPIC);
    assert_eq!(partitions, PARTITIONS as usize);
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| thread::spawn(move || write(address, round, writer))).collect();
    thread::sleep(Duration::from_millis(300));
    broker.kill();
    for writer in writers {
        let written = writer.join().unwrap();
        assert!(!written.is_empty(), "the kill came before anything was acknowledged");
        acknowledged.extend(written);
    }
}

#[test]
fn what_was_acknowledged_survives_kills_and_other_numbers_of_shards() {
    let dir = TempDir::new();
    let config = dir.config(CONFIG);
    let start =
        |shards: &str| Broker::start(serve(&dir).arg("--config").arg(&config).args(["--shards", shards]));
    let mut acknowledged = Vec::new();
    for (round, shards) in ["2", "2", "1", "3", "3"].into_iter().enumerate() {
        let broker = start(shards);
        if round > 0 {
            check(broker.address, &acknowledged);
        }
        write_until_killed(broker, round, &mut acknowledged);
    }
    let broker = start("2");
    check(broker.address, &acknowledged);
    assert!(broker.terminate().success());
    let broker = start("2");
    check(broker.address, &acknowledged);
}

/// Whether a tool can be run.
fn there_is(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_normal_user_with_8_mib_of_locked_memory_can_run_it() {
    let id = run(Command::new("id").arg("-u")).1;
    if id.trim() != "0" || !there_is("setpriv") || !there_is("prlimit") {
        eprintln!("skipped: this needs root, setpriv and prlimit");
        return;
    }
    let dir = TempDir::new();
    // Where the binary stands, a normal user may not look.
    let binary = dir.path().join("millstream");
    fs::copy(BINARY, &binary).unwrap();
    let config = dir.config(CONFIG);
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let start = || {
        let mut command = Command::new("prlimit");
        command.args(["--memlock=8388608", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(&binary).arg("--data").arg(dir.data()).args(["--shards", "2"]);
        command.args(["--kafka", "127.0.0.1:0", "--amqp", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        Broker::start(command.arg("--config").arg(&config).current_dir(env::temp_dir()))
    };
    let mut acknowledged = Vec::new();
    write_until_killed(start(), 0, &mut acknowledged);
    check(start().address, &acknowledged);
}
