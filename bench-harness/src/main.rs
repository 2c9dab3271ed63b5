//! `millbench`: measures Millstream beside the machine's limits and its peers.

mod compare;
mod doc;
mod engine;
mod kafka;
mod libraries;
mod limits;
mod load;
mod log;
mod machine;
mod measure;
mod null;
mod peers;
mod queue;
mod raw;
mod regress;
mod report;
mod results;
mod runtime;
mod scratch;
mod streams;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use measure::Problem;
use results::Run;

/// Measures Millstream beside the machine's limits and its peers.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The file that the run's line is appended to
    #[arg(long, global = true, default_value = "results/runs.jsonl")]
    results: PathBuf,
    /// Print the run as JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// What this machine can do: durable appends, sequential I/O, loopback, wake-ups, checksums
    Limits(limits::Limits),
    /// The embedded engine beside the machine's limits
    Engine(engine::Engine),
    /// The broker through its Kafka socket beside the embedded engine
    Kafka(kafka::Kafka),
    /// Loads any broker that speaks Kafka's protocol: throughput, latency, and what the broker uses
    Log(log::Log),
    /// Loads any broker that speaks AMQP 0-9-1: throughput, latency, and what the broker uses
    Queue(queue::Queue),
    /// Millstream, its peers and the client's limit under the same loads, in one report
    Compare(compare::Compare),
    /// Two commits of Millstream under the same loads, in turns: is one of them faster?
    Regress(regress::Regress),
    /// The engine's reactor, glommio and plain epoll under the same echo and append loads
    Runtime(runtime::Runtimes),
    /// An endpoint that parses, answers at once and stores nothing: the client's limit
    Null(null::Null),
    #[command(hide = true)]
    Echo(runtime::echo::Echo),
    #[command(hide = true)]
    Hold(engine::hold::Hold),
    #[command(hide = true)]
    Broker(kafka::server::Broker),
}

impl Cli {
    fn run(&self) -> Result<(), Problem> {
        match &self.command {
            Command::Limits(limits) => self.keep(&limits.run()?),
            Command::Engine(engine) => engine.run()?.map_or(Ok(()), |run| self.keep(&run)),
            Command::Kafka(kafka) => kafka.run()?.map_or(Ok(()), |run| self.keep(&run)),
            Command::Log(log) => self.keep(&log.run()?),
            Command::Queue(queue) => self.keep(&queue.run()?),
            Command::Compare(compare) => compare.run()?.map_or(Ok(()), |run| run.append_to(&self.results)),
            Command::Regress(regress) => self.keep(&regress.run()?),
            Command::Null(null) => null.run(),
            Command::Runtime(runtimes) => self.keep(&runtimes.run()?),
            Command::Echo(echo) => echo.run(),
            Command::Hold(hold) => hold.run(),
            Command::Broker(broker) => broker.run(),
        }
    }

    fn keep(&self, run: &Run) -> Result<(), Problem> {
        if raw::interrupted() {
            return Err("interrupted: nothing of it is kept".into());
        }
        if self.json {
            println!("{}", serde_json::to_string(run)?);
        } else {
            report::print(run);
        }
        run.append_to(&self.results)
    }
}

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("millbench: {problem}");
            ExitCode::FAILURE
        }
    }
}
