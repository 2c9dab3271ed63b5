//! What a message costs in a queue's state machine, without any I/O: published, delivered, acknowledged. Run with
//! `cargo bench -p millstream-bench --bench queue`; the workload is a turn of 64 messages of 1 KiB from a queue that keeps up, or
//! that has a million more.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use millstream_engine::config::QueueSettings;
use millstream_engine::queue::{
    Admission, Consume, Credit, Incoming, Keeper, Locator, Output, Queue, Token, Verdict,
};
use millstream_engine::time::WallMs;
use millstream_engine::types::Seq;

const NOW: WallMs = WallMs(1_700_000_000_000);
/// Messages in a turn.
const TURN: u32 = 64;
const BYTES: u32 = 1024;
const BACKLOG: u64 = 1_000_000;

/// A queue, a consumer of it, and what a turn needs.
struct Rig {
    queue: Queue,
    keeper: Keeper,
    out: Vec<Output>,
    given: Vec<Seq>,
    ttl_ms: Option<i64>,
}

impl Rig {
    fn new(settings: QueueSettings, ttl_ms: Option<i64>, backlog: u64) -> Rig {
        let mut queue = Queue::new(settings, NOW);
        let consume = Consume {
            token: Token(0),
            no_ack: false,
            exclusive: false,
            priority: 0,
            timeout_ms: Some(1_800_000),
            credit: Credit::default(),
        };
        let keeper = queue.consume(consume, NOW, &mut Vec::new()).expect("nobody is exclusive");
        let mut rig = Rig { queue, keeper, out: Vec::new(), given: Vec::new(), ttl_ms };
        for number in 0..backlog {
            rig.publish(number);
        }
        rig
    }

    fn publish(&mut self, number: u64) {
        let message = Incoming {
            locator: Locator(number),
            size: BYTES,
            persistent: true,
            priority: (number % 10) as u8,
            expires_at: self.ttl_ms.map(|ttl| WallMs(NOW.0 + ttl)),
        };
        assert_eq!(self.queue.admit(message.size, NOW, &mut self.out), Admission::Take);
        self.queue.publish(message, NOW);
    }

    /// As a shard does it: publish, deliver what is there, acknowledge one by one or all at once.
    fn turn(&mut self, multiple: bool) {
        for number in 0..u64::from(TURN) {
            self.publish(number);
        }
        self.queue.credit(self.keeper, Credit { messages: TURN, bytes: TURN * BYTES });
        self.queue.run(NOW, usize::MAX, &mut self.out);
        self.given.extend(self.out.drain(..).filter_map(|output| match output {
            Output::Deliver(_, delivery) => Some(delivery.seq),
            _ => None,
        }));
        let (first, last) = (self.given[0], self.given[self.given.len() - 1]);
        if multiple {
            self.queue.settle(self.keeper, first, last, Verdict::Ack, &mut self.out);
            self.given.clear();
        }
        for seq in self.given.drain(..) {
            self.queue.settle(self.keeper, seq, seq, Verdict::Ack, &mut self.out);
        }
        assert_eq!(self.out.len(), TURN as usize, "everything was settled");
        self.out.clear();
    }
}

fn queue(c: &mut Criterion) {
    let plain = QueueSettings::default();
    let priorities = QueueSettings { max_priority: Some(9), ..QueueSettings::default() };
    let mut group = c.benchmark_group("queue");
    group.throughput(Throughput::Elements(u64::from(TURN)));
    for (name, settings, ttl_ms, backlog, multiple) in [
        ("acknowledged one by one", &plain, None, 0, false),
        ("acknowledged together", &plain, None, 0, true),
        ("each with an expiry", &plain, Some(60_000), 0, false),
        ("ten priorities", &priorities, None, 0, false),
        ("behind a million others", &plain, None, BACKLOG, false),
    ] {
        let mut rig = Rig::new(settings.clone(), ttl_ms, backlog);
        group.bench_function(name, |b| b.iter(|| black_box(&mut rig).turn(multiple)));
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    queue(&mut criterion);
    criterion.final_summary();
}
