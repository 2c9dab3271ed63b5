//! The engine as a library, without any protocol: open, append at each durability level, read, crash, reopen.
//!
//!     cargo run --release -p millstream-engine --example embedded
//!
//! The program runs itself a second time as a child that appends and then dies by `abort`, with appends still under way,
//! as a killed process does. Then it opens the same directory and reads what survived.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use millstream_engine::buffer::Slice;
use millstream_engine::config::Config;
use millstream_engine::error::{Fatal, Refusal};
use millstream_engine::format::batch::{BatchBuilder, BatchHeader, HEADER_BYTES, records_in};
use millstream_engine::reactor::app::{App, AppEvent, AppToken, Outbox};
use millstream_engine::reactor::node::{Node, NodeOptions, start};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Durability, Offset, PartitionId, ShardId, TopicId};

/// The shard that this example talks to: the only one.
const SHARD: ShardId = ShardId(0);
/// The first argument of the child.
const CHILD: &str = "append-and-die";

/// A host is an [`App`]: it lives on the shard's own thread and must not block, so it looks into a channel at every
/// tick of a timer. (A server has no channel: its requests come in as bytes from connections, as events.)
struct Host {
    requests: Receiver<Request>,
    replies: Sender<Reply>,
}

impl App for Host {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        match event {
            AppEvent::Started | AppEvent::Timer(_) => {
                // Every request is answered by exactly one reply with the same token. This host waits for one
                // answer after the other, and needs no tokens to tell them apart.
                for request in self.requests.try_iter() {
                    out.engine(AppToken(0), SHARD, request, None);
                }
                let next = out.now() + Nanos::from_micros(200);
                out.set_timer(AppToken(0), next);
            }
            // If nobody wants the answer any more, the node is stopping.
            AppEvent::Reply(_, reply) => drop(self.replies.send(reply)),
            _ => {}
        }
    }
}

/// A running node, and both ends that its host left us.
struct Engine {
    node: Node,
    requests: Sender<Request>,
    replies: Receiver<Reply>,
}

impl Engine {
    /// Opens a data directory, which is made if it is not there. Returns when what it holds has been recovered.
    fn open(data: &Path) -> Result<Engine, Fatal> {
        let (requests, from_us) = channel();
        let (to_us, replies) = channel();
        // `start` calls this once per shard, on the shard's own thread.
        let ends = std::sync::Mutex::new(Some((from_us, to_us)));
        let make_app = move |_| {
            let (requests, replies) = ends.lock().expect("nobody panics").take().expect("there is one shard");
            Host { requests, replies }
        };
        let config = Config { shards: 1, journal_bytes: 32 << 20, ..Config::default() };
        let node = start(NodeOptions { config, data: data.to_owned(), listen: Vec::new() }, make_app)?;
        Ok(Engine { node, requests, replies })
    }

    fn ask(&self, request: Request) -> Reply {
        self.requests.send(request).expect("the node runs");
        match self.replies.recv_timeout(Duration::from_secs(30)) {
            Ok(reply) => reply,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("the node has failed"),
        }
    }

    /// A topic of one partition, made if it is not there.
    fn topic(&self, name: &str) -> TopicId {
        let settings = Vec::new();
        match self.ask(Request::CreateTopic { name: name.to_owned(), partitions: Some(1), settings }) {
            Reply::TopicCreated(id) | Reply::Refused(Refusal::TopicExists(id)) => id,
            other => panic!("the topic was not made: {other:?}"),
        }
    }

    /// Everything that a partition holds: each record's offset and value.
    fn read_all(&self, partition: PartitionId) -> Vec<(u64, String)> {
        let mut records = Vec::new();
        let mut offset = Offset(0);
        loop {
            // A reply holds whole batches, in the form in which they were appended. What is too large for one
            // chunk comes as a plan, to be loaded piece by piece; this example's batches are small.
            let Reply::Read(read) = self.ask(Request::Read { partition, offset, max_bytes: 64 << 10 }) else {
                panic!("the partition cannot be read");
            };
            let bytes: Vec<u8> = read.chunk.bytes.iter().flat_map(|slice| slice.to_vec()).collect();
            let mut rest = &bytes[..];
            while let Ok(header) = BatchHeader::parse(rest) {
                let Some(batch) = rest.split_off(..header.size) else { break };
                for record in records_in(&batch[HEADER_BYTES..], header.records).flatten() {
                    let number = header.base_offset.0 + u64::from(record.offset_delta.cast_unsigned());
                    records.push((
                        number,
                        String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned(),
                    ));
                }
                offset = header.next_offset();
            }
            if offset >= read.high_watermark {
                return records;
            }
        }
    }
}

/// One record, as a batch of its own.
fn batch(value: &str) -> Slice {
    Slice::from(BatchBuilder::new(0).push(None, Some(value.as_bytes())).build())
}

/// The first life: appends, and dies without a word.
fn append_and_die(data: &Path) -> Result<(), Fatal> {
    let engine = Engine::open(data)?;
    let partition = PartitionId { topic: engine.topic("events"), index: 0 };
    let levels = [
        (Durability::Memory, "the shard has taken it: survives nothing"),
        (Durability::Written, "its group is written: survives a killed process"),
        (Durability::Durable, "and flushed: survives power loss"),
    ];
    for (durability, promise) in levels {
        let value = format!("acknowledged as {durability:?}");
        match engine.ask(Request::Append { partition, batch: batch(&value), durability }) {
            Reply::Appended(appended) => {
                println!("  offset {}: \"{value}\" ({promise})", appended.base_offset);
            }
            other => panic!("the append was refused: {other:?}"),
        }
    }
    for record in engine.read_all(partition) {
        println!("  read back: {record:?}");
    }
    for number in 0..100 {
        let batch = batch(&format!("never acknowledged, number {number}"));
        engine
            .requests
            .send(Request::Append { partition, batch, durability: Durability::Durable })
            .expect("the node runs");
    }
    println!("  100 appends are under way; dying now");
    // Long enough for the host to have asked for them, not for all to be answered.
    std::thread::sleep(Duration::from_micros(500));
    std::process::abort();
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(CHILD) {
        let data = args.next().ok_or("the child is told where to work")?;
        return Ok(append_and_die(Path::new(&data))?);
    }
    let data: PathBuf = std::env::temp_dir().join(format!("millstream-embedded-{}", std::process::id()));

    println!("a first process opens {} and appends:", data.display());
    let ended = Command::new(std::env::current_exe()?).arg(CHILD).arg(&data).status()?;
    println!("it ended: {ended}");

    println!("a second process opens the same directory:");
    let engine = Engine::open(&data)?;
    for (_, report) in engine.node.reports() {
        println!("  recovered {} log from {} bytes of journal", report.logs, report.journal_bytes);
    }
    let partition = PartitionId { topic: engine.topic("events"), index: 0 };
    let records = engine.read_all(partition);
    let (acknowledged, others): (Vec<_>, Vec<_>) =
        records.iter().partition(|(_, value)| value.starts_with("acknowledged"));
    for (offset, value) in &acknowledged {
        println!("  offset {offset}: \"{value}\"");
    }
    println!("  and {} of the 100 that nobody was promised", others.len());
    assert!(acknowledged.len() >= 2, "what was acknowledged as written or durable is there");

    // An orderly end: what was promised is made durable, and the next start is told so.
    engine.node.stop()?;
    std::fs::remove_dir_all(&data)?;
    Ok(())
}
