//! Queues that are long, or many: how fast they take and give messages, and what they cost. No protocol, one shard.
//!
//!     cargo run --release -p millstream-bench --example backlog -- DIR STEP.. [NAME=NUMBER ..]
//!
//! Each step is a process of its own, which ends as if it were killed: `declare` makes the queues, `fill` publishes, `drain`
//! takes everything in order, `pass` publishes and takes at the same time. Names: `messages`, `size`, `queues`, `batch`
//! (messages in one request), `window` (requests under way), `transient` (1: messages are not persistent).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use millstream_engine::buffer::Slice;
use millstream_engine::config::{Config, QueueSettings};
use millstream_engine::reactor::app::{App, AppEvent, AppToken, Outbox};
use millstream_engine::reactor::node::{NodeOptions, start};
use millstream_engine::shard::change::{Edit, MetadataChange, NewQueue};
use millstream_engine::shard::message::{
    Consume, ConsumerId, Credit, Delivery, Message, Publish, Settlement, Verdict,
};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::{QueueId, ShardId};

/// The shard that everything is on: the only one.
const SHARD: ShardId = ShardId(0);
/// What is said so often of a step.
const SLICES: u64 = 10;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
struct Plan {
    messages: u64,
    size: usize,
    queues: u64,
    batch: u64,
    window: u64,
    transient: bool,
}

impl Plan {
    fn of(args: &[String]) -> Plan {
        let get = |name: &str, default: u64| {
            let found = args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
            found.map_or(default, |value| value.parse().expect("numbers are given"))
        };
        Plan {
            messages: get("messages", 1_000_000),
            size: get("size", 100) as usize,
            queues: get("queues", 1),
            batch: get("batch", 200),
            window: get("window", 16),
            transient: get("transient", 0) == 1,
        }
    }
}

/// Does one step, and tells whenever a slice of it is done.
struct Host {
    plan: Plan,
    fills: bool,
    drains: bool,
    declares: bool,
    queues: Vec<QueueId>,
    /// Messages that were asked to be published, were confirmed, and were taken.
    asked: u64,
    confirmed: u64,
    taken: u64,
    /// Of each queue, the number of the message that comes next.
    next: Vec<u64>,
    told: u64,
    tell: Sender<u64>,
}

impl Host {
    fn done(&self) -> u64 {
        match (self.declares, self.drains) {
            (true, _) => self.queues.len() as u64,
            (_, true) => self.taken,
            _ => self.confirmed,
        }
    }

    fn all(&self) -> u64 {
        if self.declares { self.plan.queues } else { self.plan.messages }
    }

    fn progress(&mut self) {
        while self.told < SLICES && self.done() * SLICES >= self.all() * (self.told + 1) {
            self.told += 1;
            let _ = self.tell.send(self.told);
        }
    }

    fn create(&mut self, out: &mut Outbox) {
        let name = format!("q{}", self.asked).into();
        self.asked += 1;
        let queue = NewQueue { name, durable: true, settings: QueueSettings::default() };
        let change = MetadataChange { guards: Vec::new(), edits: vec![Edit::CreateQueue(queue)] };
        out.engine(AppToken(0), SHARD, Request::ChangeMetadata(change), None);
    }

    fn publish(&mut self, out: &mut Outbox) {
        let most = self.plan.batch.min(self.plan.messages - self.asked);
        let message = |number: u64| {
            let mut body = vec![7; self.plan.size.max(8)];
            body[..8].copy_from_slice(&(number / self.plan.queues).to_le_bytes());
            let (header, body) = (Slice::from(b"head".to_vec()), vec![body.into()]);
            let queues = vec![self.queues[(number % self.plan.queues) as usize]];
            let persistent = !self.plan.transient;
            Publish {
                queues: queues.into(),
                message: Message { header, body: body.into(), persistent, priority: 0, expires_at: None },
            }
        };
        let messages = (self.asked..self.asked + most).map(message).collect();
        self.asked += most;
        out.engine(AppToken(0), SHARD, Request::Publish(messages), None);
    }

    fn begin(&mut self, out: &mut Outbox) {
        if self.declares {
            for _ in 0..self.plan.window.min(self.plan.queues) {
                self.create(out);
            }
            return;
        }
        let mut named: Vec<(u64, QueueId)> = out
            .metadata()
            .queues
            .iter()
            .filter_map(|(id, queue)| Some((std::str::from_utf8(&queue.name).ok()?[1..].parse().ok()?, *id)))
            .collect();
        named.sort_unstable();
        self.queues = named.into_iter().map(|(_, id)| id).collect();
        self.next = vec![0; self.queues.len()];
        if self.drains {
            for (number, queue) in (0..).zip(self.queues.clone()) {
                let consume = Consume {
                    queue,
                    consumer: ConsumerId(number),
                    no_ack: false,
                    exclusive: false,
                    priority: 0,
                    timeout_ms: None,
                    credit: Credit { messages: 20_000, bytes: 8 << 20 },
                };
                out.engine(AppToken(0), SHARD, Request::Consume(consume), None);
            }
        }
        if self.fills {
            for _ in 0..self.plan.window {
                self.publish(out);
            }
        }
    }

    fn take(&mut self, deliveries: &[Delivery], out: &mut Outbox) {
        let mut settlements: Vec<Settlement> = Vec::new();
        let mut grants: Vec<(ConsumerId, Credit)> = Vec::new();
        for delivery in deliveries {
            let Delivery { consumer, queue, seq, ref body, .. } = *delivery;
            let number = u64::from_le_bytes(body[..8].try_into().expect("it begins with its number"));
            let next = &mut self.next[consumer.0 as usize];
            assert!(number == *next || *next == 0, "message {number} came in the place of {next}");
            *next = number + 1;
            let bytes = (delivery.header.len() + body.len()) as u32;
            match settlements.last_mut() {
                Some(last) if last.queue == queue && last.last.next() == seq => {
                    last.last = seq;
                    let credit = &mut grants.last_mut().expect("there is one for each").1;
                    *credit = Credit { messages: credit.messages + 1, bytes: credit.bytes + bytes };
                }
                _ => {
                    settlements.push(Settlement {
                        queue,
                        consumer,
                        first: seq,
                        last: seq,
                        verdict: Verdict::Ack,
                    });
                    grants.push((consumer, Credit { messages: 1, bytes }));
                }
            }
        }
        self.taken += deliveries.len() as u64;
        out.engine(AppToken(0), SHARD, Request::Settle { settlements, durable: false }, None);
        out.engine(AppToken(0), SHARD, Request::Grant(grants), None);
    }
}

impl App for Host {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        match event {
            AppEvent::Started => self.begin(out),
            AppEvent::Delivered(deliveries) => self.take(&deliveries, out),
            AppEvent::Reply(_, Reply::Published(outcomes)) => {
                assert!(outcomes.iter().all(|outcome| outcome.refused.is_empty()), "every queue takes it");
                self.confirmed += outcomes.len() as u64;
                if self.asked < self.plan.messages {
                    self.publish(out);
                }
            }
            AppEvent::Reply(_, Reply::Changed(ids)) => {
                self.queues.extend(ids);
                if self.asked < self.plan.queues {
                    self.create(out);
                }
            }
            AppEvent::Reply(_, Reply::Refused(refusal)) => panic!("refused: {refusal:?}"),
            _ => {}
        }
        self.progress();
    }
}

/// A line of a file of /proc/self, as a number.
fn own(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_default()
}

fn rss_mib() -> u64 {
    own("status", "VmRSS:") >> 10
}

/// One step, in a process that is then killed.
fn run(data: &Path, step: &str, plan: Plan) -> Result<(), Box<dyn std::error::Error>> {
    let (tell, told) = channel();
    let host = move |_| Host {
        plan,
        fills: matches!(step_of(), Some("fill" | "pass")),
        drains: matches!(step_of(), Some("drain" | "pass")),
        declares: step_of() == Some("declare"),
        queues: Vec::new(),
        asked: 0,
        confirmed: 0,
        taken: 0,
        next: Vec::new(),
        told: 0,
        tell: tell.clone(),
    };
    let began = Instant::now();
    let config = Config { shards: 1, ..Config::default() };
    let _node = start(NodeOptions { config, data: data.to_owned(), listen: Vec::new() }, host)?;
    println!("{step}: started in {:.2} s with {} MiB", began.elapsed().as_secs_f64(), rss_mib());
    let all = if step == "declare" { plan.queues } else { plan.messages };
    let (mut last, began) = (Instant::now(), Instant::now());
    let written = own("io", "write_bytes:");
    for slice in 1..=SLICES {
        told.recv_timeout(Duration::from_mins(10))?;
        let rate = (all / SLICES) as f64 / last.elapsed().as_secs_f64();
        last = Instant::now();
        println!("  {slice:2}: {rate:9.0}/s, {} MiB", rss_mib());
    }
    let seconds = began.elapsed().as_secs_f64();
    // What is written of it a little later belongs to it, too.
    std::thread::sleep(Duration::from_millis(500));
    let written = own("io", "write_bytes:") - written;
    let published = plan.messages * plan.size as u64;
    println!(
        "  all: {:.0}/s; {} MB written for {} MB: {:.2}",
        all as f64 / seconds,
        written / 1_000_000,
        published / 1_000_000,
        written as f64 / published as f64
    );
    std::process::abort()
}

/// The step that this process is for.
fn step_of() -> Option<&'static str> {
    static STEP: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    STEP.get_or_init(|| std::env::var("BACKLOG_STEP").ok()).as_deref()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let data: PathBuf = args.first().ok_or("say where")?.into();
    let plan = Plan::of(&args);
    if let Some(step) = step_of() {
        return run(&data, step, plan);
    }
    for step in args[1..].iter().filter(|arg| !arg.contains('=')) {
        let ended = Command::new(std::env::current_exe()?).args(&args).env("BACKLOG_STEP", step).status()?;
        if ended.code().is_some() {
            return Err(format!("{step} ended early: {ended}").into());
        }
    }
    Ok(())
}
