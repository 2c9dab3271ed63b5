//! Loads for servers that speak neither Kafka's protocol nor AMQP: NATS JetStream and Redis Streams. They get the same loads by
//! the means that their own clients have: every message is published by itself, so many of them under way, and a consumer
//! follows the stream or, where a load is one of task queues, acknowledges what it was given, which is removed then.

mod consumer;
mod link;
mod nats;
mod publisher;
mod redis;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::load::crew::{self, Worker};
use crate::load::footprint::Processes;
use crate::load::turn::Turn;
use crate::load::{Count, Span, Window};
use crate::log::workload::{Mode, Workload as Records};
use crate::measure::Problem;
use crate::queue::workload::Workload as Tasks;
use consumer::Consumer;
use link::Admin;
use publisher::Publisher;

/// Messages under way of one publisher, where a load does not say how many: what NATS' own client allows by default.
const WINDOW: usize = 4000;

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// That of NATS, with JetStream behind it.
    Nats,
    /// That of Redis.
    Redis,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message is stored: the one with this number, or the oldest that is under way.
    Stored(Option<u64>),
    /// Messages for a consumer; Redis gives many at a time, or none in time.
    Messages(Vec<Message<'a>>),
    /// What was asked for is done.
    Done,
    /// Nothing of interest.
    Other,
}

/// A message for a consumer.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The stream, if the server says so.
    pub stream: &'a [u8],
    /// What it is acknowledged by.
    pub id: &'a [u8],
    /// What was published.
    pub body: &'a [u8],
}

impl Dialect {
    /// The first thing that a server has said, and its length; none if it has not come whole.
    fn parse(self, bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>, Problem> {
        match self {
            Dialect::Nats => nats::parse(bytes),
            Dialect::Redis => redis::parse(bytes),
        }
    }
}

/// A load, in words that both have.
#[derive(Clone, Debug)]
pub struct Job {
    /// Streams.
    streams: usize,
    producers: usize,
    consumers: usize,
    /// Bytes of a message.
    size: usize,
    /// Messages per second over all producers; as fast as it goes if there is none.
    rate: Option<f64>,
    /// Messages that a producer has under way at most.
    window: usize,
    /// Whether each producer has a stream of its own, whose messages are acknowledged one by one and are gone then; so many may
    /// be under way to a consumer.
    tasks: Option<usize>,
}

impl Job {
    /// Of a load on logs.
    pub fn records(workload: &Records) -> Job {
        Job {
            streams: workload.partitions as usize,
            producers: workload.producers,
            consumers: if workload.mode == Mode::EndToEnd { workload.consumers } else { 0 },
            size: workload.record_size,
            rate: workload.is_paced().then_some(workload.throughput),
            window: if workload.max_in_flight == 1 { 1 } else { WINDOW },
            tasks: None,
        }
    }

    /// Of a load on queues.
    pub fn tasks(workload: &Tasks) -> Job {
        Job {
            streams: workload.queues.into(),
            producers: workload.producers,
            consumers: workload.consumers,
            size: workload.size,
            rate: workload.is_paced().then_some(workload.rate * workload.producers as f64),
            window: workload.window().unwrap_or(WINDOW),
            tasks: Some(usize::from(workload.qos).max(1)),
        }
    }

    /// The streams of one of `of` who share them.
    fn share<'a>(&self, streams: &'a [String], number: usize, of: usize) -> Vec<&'a String> {
        match self.tasks {
            Some(_) => vec![&streams[number % streams.len()]],
            None => streams.iter().skip(number).step_by(of).collect(),
        }
    }
}

/// A producer or a consumer.
enum Client {
    Publisher(Publisher),
    Consumer(Consumer),
}

/// The same, connected.
enum Ready {
    Publisher(publisher::Ready),
    Consumer(consumer::Ready),
}

impl Worker for Client {
    type Ready = Ready;

    async fn prepare(self) -> Result<Ready, Problem> {
        Ok(match self {
            Client::Publisher(publisher) => Ready::Publisher(publisher.prepare().await?),
            Client::Consumer(consumer) => Ready::Consumer(consumer.prepare().await?),
        })
    }

    async fn run(ready: Ready, window: Window) -> Result<Count, Problem> {
        match ready {
            Ready::Publisher(publisher) => publisher.run(window).await,
            Ready::Consumer(consumer) => consumer.run(window).await,
        }
    }
}

/// Whether a server serves.
pub fn serves(dialect: Dialect, address: SocketAddr) -> Result<(), Problem> {
    Admin::connect(dialect, address)?.delete("millbench-none").or(Ok(()))
}

/// Loads a server once, with streams of its own.
pub fn load(
    dialect: Dialect,
    address: SocketAddr,
    processes: &Processes,
    cpus: &[usize],
    job: &Job,
    span: Span,
) -> Result<Turn, Problem> {
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let turn = TURNS.fetch_add(1, Ordering::Relaxed);
    let unique = format!("millbench-{}-{turn}", std::process::id());
    let streams: Vec<String> = (0..job.streams).map(|number| format!("{unique}-{number}")).collect();
    let mut admin = Admin::connect(dialect, address)?;
    for stream in &streams {
        admin.create(stream, job.tasks.is_some())?;
    }
    let publishers = (0..job.producers).map(|number| {
        let streams = match job.tasks {
            Some(_) => job.share(&streams, number, job.producers).into_iter().cloned().collect(),
            // Records without a key go to all partitions in turns.
            None => streams.clone(),
        };
        let job = job.clone();
        Client::Publisher(Publisher {
            dialect,
            address,
            job,
            streams,
            number,
            name: format!("{unique}-p{number}"),
        })
    });
    let consumers = (0..job.consumers).map(|number| {
        let streams = job.share(&streams, number, job.consumers).into_iter().cloned().collect();
        let (job, name) = (job.clone(), format!("{unique}-c{number}"));
        Client::Consumer(Consumer { dialect, address, job, streams, name })
    });
    let turn = crew::drive(publishers.chain(consumers).collect(), cpus, span, processes);
    let deleted = streams.iter().try_for_each(|stream| admin.delete(stream));
    let turn = turn?;
    deleted?;
    Ok(turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_a_share_of_the_streams_and_none_is_left_out() {
        let streams: Vec<String> = (0..5).map(|number| number.to_string()).collect();
        let log = Job::records(&Records {
            mode: Mode::EndToEnd,
            partitions: 5,
            consumers: 2,
            ..Records::default()
        });
        assert_eq!(log.share(&streams, 0, 2), ["0", "2", "4"]);
        assert_eq!(log.share(&streams, 1, 2), ["1", "3"]);
        let queues = Job::tasks(&Tasks { queues: 5, producers: 6, confirm: 10, ..Tasks::default() });
        assert_eq!(queues.share(&streams, 5, 6), ["0"]);
        assert_eq!((queues.window, log.window, queues.tasks, log.tasks), (10, WINDOW, Some(1), None));
        assert_eq!(Job::records(&Records::default()).consumers, 0, "nobody reads what is only produced");
    }
}
