//! `millbench log`: loads any broker that speaks Kafka's protocol, and measures it.

mod batches;
pub mod consumer;
mod link;
mod moment;
mod producer;
mod topic;
pub mod wire;
pub mod workload;

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::libraries::{self, Library};
use crate::load::crew::{self, Worker};
use crate::load::footprint::Processes;
use crate::load::turn::{self, Turn};
use crate::load::{Count, Span, Window};
use crate::machine::Others;
use crate::measure::Problem;
use crate::raw;
use crate::results::Run;
use consumer::{Consumer, Part};
use producer::Producer;
use topic::Topic;
use workload::{Mode, Workload};

/// What `millbench log` is told.
#[derive(Args)]
pub struct Log {
    /// The broker: HOST:PORT
    #[arg(long, default_value = "localhost:9092")]
    bootstrap_server: String,
    #[command(flatten)]
    workload: Workload,
    /// Settings of the topic: NAME=VALUE
    #[arg(long = "topic-config", value_parser = setting)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    how: How,
    /// Records to send in each turn instead of a time to measure
    #[arg(long)]
    num_records: Option<u64>,
    /// Where results of the machine's disk are noted from: the directory of the broker's data
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// How a load is measured.
#[derive(Args, Clone)]
pub struct How {
    /// Seconds that are measured, in each turn
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds of the same load before that, which are not counted
    #[arg(long, default_value_t = 2.0)]
    pub warm_up: f64,
    /// How often it is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub reps: u16,
    /// Processors that the load generator uses, a pinned thread each [default: all that this process may use]
    #[arg(long, value_delimiter = ',')]
    pub client_cpus: Vec<usize>,
    /// Who speaks to the server: this load generator, or a library that users have
    #[arg(long, value_enum, default_value_t = Library::Own)]
    pub client: Library,
    /// The server's process, to measure what it uses [default: whoever listens on the port, if that is on this machine]
    #[arg(long)]
    pub server_pid: Option<u32>,
}

impl How {
    /// The span of a turn.
    pub fn span(&self) -> Result<Span, Problem> {
        Ok(Span {
            warm_up: Duration::try_from_secs_f64(self.warm_up)?,
            measure: Some(Duration::try_from_secs_f64(self.seconds)?),
        })
    }

    /// The processors of the load.
    pub fn cpus(&self) -> Result<Vec<usize>, Problem> {
        let allowed = raw::cpus();
        match self.client_cpus.iter().find(|cpu| !allowed.contains(cpu)) {
            Some(cpu) => Err(format!("--client-cpus: {cpu} is none of those allowed: {allowed:?}").into()),
            None if self.client_cpus.is_empty() => Ok(allowed),
            None => Ok(self.client_cpus.clone()),
        }
    }

    /// The processes of a server that listens at an address.
    pub fn processes(&self, address: SocketAddr) -> Processes {
        match self.server_pid {
            Some(process) => Processes::of(process),
            None if address.ip().is_loopback() => Processes::listening(address.port()),
            None => Processes::default(),
        }
    }
}

/// `NAME=VALUE`.
fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// How long an address may take to be reached.
const REACH: Duration = Duration::from_secs(2);

/// The first address of a name at which somebody answers.
pub fn resolve(server: &str) -> Result<SocketAddr, Problem> {
    let addresses =
        server.to_socket_addrs().map_err(|error| format!("{server}: {error}; write HOST:PORT"))?;
    let mut why = format!("{server} has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, REACH) {
            Ok(_) => return Ok(address),
            Err(error) => why = format!("{server} ({address}): {error}"),
        }
    }
    Err(why.into())
}

/// Whom a turn loads, and from where.
pub struct Target<'a> {
    /// The broker.
    pub address: SocketAddr,
    /// What it consists of.
    pub processes: &'a Processes,
    /// The processors of the load.
    pub cpus: &'a [usize],
    /// Settings of the topic.
    pub settings: &'a [(String, String)],
    /// Records to send instead of a time to measure.
    pub records: Option<u64>,
    /// Who speaks to it.
    pub library: Library,
}

impl Log {
    /// Measures, and gives the run to print and to keep.
    pub fn run(&self) -> Result<Run, Problem> {
        raw::note_interrupts();
        let workload = self.workload.clone().checked()?;
        let address = resolve(&self.bootstrap_server)?;
        let (cpus, mut span) = (self.how.cpus()?, self.how.span()?);
        let library = self.how.client.checked(Library::Librdkafka)?;
        if library != Library::Own && self.num_records.is_some() {
            return Err("--num-records: a library is measured for --seconds".into());
        }
        if self.num_records.is_some() {
            span.measure = None;
            span.warm_up = Duration::ZERO;
        }
        let mut notes = Vec::new();
        let processes = self.how.processes(address);
        if processes.ids().is_empty() {
            notes.push("the server's processes are not known: no memory and disk of it".to_owned());
        }
        let others = Others::besides(&processes);
        let mut turns = Vec::new();
        for number in 1..=self.how.reps {
            eprintln!("  turn {number} of {}", self.how.reps);
            let target = Target {
                address,
                processes: &processes,
                cpus: &cpus,
                settings: &self.settings,
                records: self.num_records,
                library,
            };
            turns.push(load(&target, &workload, span)?);
        }
        notes.push(serde_json::to_string(&workload)?);
        let rows = turn::rows(&format!("{:?}", workload.mode).to_lowercase(), &turns);
        let acks = format!("acks={}", workload.acks.code()).replace("-1", "all");
        Ok(Run::ended(&self.dir, &others, &acks, notes, rows))
    }
}

/// A producer or a consumer.
enum Client {
    Producer(Producer),
    Consumer(Consumer),
}

/// The same, connected.
enum Ready {
    Producer(Box<producer::Ready>),
    Consumer(Box<consumer::Ready>),
}

impl Worker for Client {
    type Ready = Ready;

    async fn prepare(self) -> Result<Ready, Problem> {
        Ok(match self {
            Client::Producer(producer) => Ready::Producer(Box::new(producer.prepare().await?)),
            Client::Consumer(consumer) => Ready::Consumer(Box::new(consumer.prepare().await?)),
        })
    }

    async fn run(ready: Ready, window: Window) -> Result<Count, Problem> {
        match ready {
            Ready::Producer(producer) => producer.run(window).await,
            Ready::Consumer(consumer) => consumer.run(window).await,
        }
    }
}

/// Loads a broker once, with a topic of its own.
pub fn load(target: &Target<'_>, workload: &Workload, span: Span) -> Result<Turn, Problem> {
    let workload = Workload { topic: fresh(&workload.topic), ..workload.clone() };
    let mut topic = Topic::create(target.address, &workload.topic, workload.partitions, target.settings)?;
    let turn = load_topic(target, &workload, span, &mut topic);
    let deleted = topic.delete();
    let turn = turn?;
    deleted?;
    Ok(turn)
}

/// A name that no topic has had, so that nothing of an earlier one is in the way.
fn fresh(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    format!("{name}-{}-{now_ms}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn load_topic(
    target: &Target<'_>,
    workload: &Workload,
    span: Span,
    topic: &mut Topic,
) -> Result<Turn, Problem> {
    if workload.mode == Mode::Consume {
        fill(target, workload)?;
    }
    let endless = workload.mode == Mode::EndToEnd;
    let parts: Vec<Part> = topic
        .ends()?
        .into_iter()
        .zip(0..)
        .map(|(end, partition)| Part { partition, start: 0, end: if endless { i64::MAX } else { end } })
        .collect();
    if target.library == Library::Librdkafka {
        let workers = libraries::log(target.address, workload, &parts)?;
        return libraries::drive(workers, span, target.processes);
    }
    let mut clients = Vec::new();
    if workload.mode != Mode::Consume {
        clients.extend(producers(target, workload, target.records));
    }
    if workload.mode != Mode::Produce {
        clients.extend((0..workload.consumers).map(|number| {
            let parts = parts.iter().skip(number).step_by(workload.consumers).copied().collect();
            Client::Consumer(Consumer { workload: workload.clone(), broker: target.address, parts })
        }));
    }
    crew::drive(clients, target.cpus, span, target.processes)
}

/// The producers, each with its share of the records.
fn producers(target: &Target<'_>, workload: &Workload, records: Option<u64>) -> Vec<Client> {
    let share = records.map_or(u64::MAX, |records| records.div_ceil(workload.producers as u64));
    (0..workload.producers)
        .map(|number| {
            Client::Producer(Producer {
                workload: workload.clone(),
                broker: target.address,
                number,
                records_max: share,
            })
        })
        .collect()
}

/// Fills the topic with what consumers are to read, as fast as it goes.
fn fill(target: &Target<'_>, workload: &Workload) -> Result<(), Problem> {
    let records = (workload.fill_mib << 20) / workload.record_size.max(1) as u64;
    let filling = Workload {
        producers: 1,
        throughput: -1.0,
        batch_size: workload.batch_size.max(64 << 10),
        ..workload.clone()
    };
    let span = Span { warm_up: Duration::ZERO, measure: None };
    crew::drive(producers(target, &filling, Some(records)), target.cpus, span, target.processes).map(drop)
}

/// The wall clock, in milliseconds since 1970, as records are stamped with it.
fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests;
