//! `millbench null`: an endpoint on the engine's own reactor that parses, answers at once, and stores nothing. What a client
//! cannot do with it, it can do with no broker: the client's limit, and the floor of every latency.
//!
//! It speaks Kafka's protocol and AMQP 0-9-1 on the same port: what a client says first tells which.
//!
//! It keeps the newest batches of each partition in memory, so that consumers get what producers send, and whoever reads
//! from the beginning gets as much as was ever sent, if not the same bytes.

mod amqp;
mod app;
mod kafka;
mod stall;
mod store;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use clap::Args;
use millstream_engine::config::Config;

use crate::engine::node::{Node, Spec};
use crate::measure::Problem;
use crate::raw;
use app::NullApp;
use stall::Stall;
use store::Store;

/// What `millbench null` is told.
#[derive(Args)]
pub struct Null {
    /// Where to listen; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:9092")]
    listen: SocketAddr,
    /// Shards, a thread each [default: one per processor]
    #[arg(long)]
    shards: Option<u16>,
    /// Milliseconds that every shard stands still now and then: a slowed server, to see whether a load notices
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Milliseconds from one such pause to the next
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pause_every_ms: u64,
    /// A directory for what the reactor needs; removed at the end
    #[arg(long, default_value = "results/scratch/null")]
    dir: PathBuf,
}

impl Null {
    /// Serves until it is told to stop.
    pub fn run(&self) -> Result<(), Problem> {
        raw::note_interrupts();
        let shards = self.shards.unwrap_or(raw::cpus().len() as u16);
        let stall = (self.pause_ms > 0).then(|| Stall::new(self.pause_ms, self.pause_every_ms));
        std::fs::create_dir_all(&self.dir)?;
        let served = start(self.listen, shards, stall, &self.dir).and_then(serve);
        std::fs::remove_dir_all(&self.dir)?;
        served
    }
}

/// Starts the endpoint; `dir` is for what the reactor needs.
fn start(listen: SocketAddr, shards: u16, stall: Option<Stall>, dir: &Path) -> Result<Node, Problem> {
    let store = Arc::new(Store::new(shards));
    let spec = Spec { config: Config { shards, ..Config::default() }, listen: Some(listen) };
    let app = move |_| Box::new(NullApp::new(Arc::clone(&store), stall.clone())) as Box<_>;
    Node::start(spec, dir, Box::new(app))
}

fn serve(node: Node) -> Result<(), Problem> {
    println!("ready kafka={0} amqp={0}", node.address().ok_or("the node does not listen")?);
    while !raw::interrupted() {
        thread::sleep(raw::LOOK);
    }
    node.stop()
}
