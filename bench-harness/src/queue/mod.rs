//! `millbench queue`: loads any broker that speaks AMQP 0-9-1, and measures it.

pub mod codec;
pub mod confirms;
mod consumer;
mod link;
mod publisher;
#[cfg(test)]
mod tests;
pub mod workload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Args;

use crate::libraries::{self, Library};
use crate::load::crew::{self, Worker};
use crate::load::footprint::Processes;
use crate::load::turn::{self, Turn};
use crate::load::{Count, Span, Window};
use crate::log::{How, resolve};
use crate::machine::Others;
use crate::measure::Problem;
use crate::raw;
use crate::results::Run;
use consumer::Consumer;
use link::Admin;
use publisher::Publisher;
use workload::Workload;

/// What `millbench queue` is told.
#[derive(Args)]
pub struct Queue {
    /// The broker: `amqp://USER:PASSWORD@HOST:PORT/VIRTUAL_HOST`
    #[arg(long, default_value = "amqp://localhost:5672")]
    uri: String,
    #[command(flatten)]
    workload: Workload,
    #[command(flatten)]
    how: How,
    /// Where results of the machine's disk are noted from: the directory of the broker's data
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Who is loaded, and as whom.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Where it listens.
    pub address: SocketAddr,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// The virtual host.
    pub virtual_host: String,
}

impl Broker {
    /// At an address, with what every broker starts with.
    pub fn at(address: SocketAddr) -> Broker {
        let guest = || "guest".to_owned();
        Broker { address, user: guest(), password: guest(), virtual_host: "/".to_owned() }
    }

    /// Of an address as `PerfTest` takes it.
    fn of(uri: &str) -> Result<Broker, Problem> {
        let rest =
            uri.strip_prefix("amqp://").ok_or_else(|| format!("--uri: {uri} does not begin with amqp://"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:5672") };
        let mut broker = Broker::at(resolve(&host)?);
        if let Some((user, password)) = user.split_once(':') {
            (broker.user, broker.password) = (user.to_owned(), password.to_owned());
        }
        if !path.is_empty() {
            broker.virtual_host = path.replace("%2f", "/").replace("%2F", "/");
        }
        Ok(broker)
    }
}

/// `NAME=VALUE`.
fn argument(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Queue {
    /// Measures, and gives the run to print and to keep.
    pub fn run(&self) -> Result<Run, Problem> {
        raw::note_interrupts();
        let workload = self.workload.clone().checked()?;
        let broker = Broker::of(&self.uri)?;
        let (cpus, span) = (self.how.cpus()?, self.how.span()?);
        let library = self.how.client.checked(Library::Lapin)?;
        let mut notes = Vec::new();
        let processes = self.how.processes(broker.address);
        if processes.ids().is_empty() {
            notes.push("the server's processes are not known: no memory and disk of it".to_owned());
        }
        let others = Others::besides(&processes);
        let mut turns = Vec::new();
        for number in 1..=self.how.reps {
            eprintln!("  turn {number} of {}", self.how.reps);
            turns.push(load(&broker, &processes, &cpus, &workload, span, library)?);
        }
        notes.push(serde_json::to_string(&workload)?);
        let rows = turn::rows("queue", &turns);
        let level = match (workload.window(), workload.is_persistent()) {
            (Some(_), true) => "persistent, confirmed",
            (Some(_), false) => "transient, confirmed",
            (None, true) => "persistent, not confirmed",
            (None, false) => "transient, not confirmed",
        };
        Ok(Run::ended(&self.dir, &others, level, notes, rows))
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

/// Whether a broker serves.
pub fn serves(broker: &Broker) -> Result<(), Problem> {
    Admin::connect(broker)?.close()
}

/// The queues of the client of that number among so many: one, counted around, or as many as there are for each.
fn share(queues: &[String], number: usize, clients: usize) -> Vec<String> {
    queues.iter().skip(number % queues.len()).step_by(clients).cloned().collect()
}

/// Loads a broker once, with queues of its own.
pub fn load(
    broker: &Broker,
    processes: &Processes,
    cpus: &[usize],
    workload: &Workload,
    span: Span,
    library: Library,
) -> Result<Turn, Problem> {
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let turn = TURNS.fetch_add(1, Ordering::Relaxed);
    let queues: Vec<String> = (0..workload.queues)
        .map(|number| format!("millbench-{}-{turn}-{number}", std::process::id()))
        .collect();
    let mut admin = Admin::connect(broker)?;
    for queue in &queues {
        admin.declare(queue, &workload.arguments())?;
    }
    let publishers = (0..workload.producers).map(|number| {
        let (workload, broker) = (workload.clone(), broker.clone());
        let queues = share(&queues, number, workload.producers);
        Client::Publisher(Publisher { workload, broker, queues, number })
    });
    let consumers = (0..workload.consumers).map(|number| {
        let (workload, broker) = (workload.clone(), broker.clone());
        let queues = share(&queues, number, workload.consumers);
        Client::Consumer(Consumer { workload, broker, queues })
    });
    let turn = match library {
        Library::Lapin => libraries::queue(broker, workload, &queues)
            .and_then(|workers| libraries::drive(workers, span, processes)),
        _ => crew::drive(publishers.chain(consumers).collect(), cpus, span, processes),
    };
    let deleted = queues.iter().try_for_each(|queue| admin.delete(queue));
    let turn = turn?;
    deleted?;
    admin.close()?;
    Ok(turn)
}
