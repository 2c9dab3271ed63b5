//! A node in a process of its own, to be looked at from outside and to be killed.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use millstream_engine::config::TopicConfig;

use super::host::Host;
use super::node::Spec;
use super::rows::fill;
use crate::measure::Problem;

/// The line that the child prints when it serves.
const READY: &str = "ready";

/// What the hidden `millbench hold` is told.
#[derive(Args)]
pub struct Hold {
    /// The data directory.
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    content: Content,
}

/// What happens to the node's only topic before the child says that it is ready.
#[derive(Args, Clone, Copy, Default)]
pub struct Content {
    /// Create it.
    #[arg(long)]
    pub create: bool,
    /// Its partitions.
    #[arg(long)]
    pub partitions: u32,
    /// Bytes to append to it.
    #[arg(long)]
    pub bytes: u64,
}

impl Hold {
    /// Serves until its input ends, which it does when the parent does.
    pub fn run(&self) -> Result<(), Problem> {
        let host = Host::start(Spec::default(), &self.dir)?;
        let Content { create, partitions, bytes } = self.content;
        if create {
            host.create("t", partitions, TopicConfig::default())?;
        }
        if bytes > 0 {
            fill(&host, partitions as usize, bytes)?;
        }
        println!("{READY}");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

/// The child. It is killed when this is dropped.
pub struct Held {
    child: Child,
    /// From the process's start until it served.
    pub took: Duration,
}

impl Held {
    /// Starts a child on `dir`, and waits until it is ready.
    pub fn start(dir: &Path, content: Content) -> Result<Held, Problem> {
        let started = Instant::now();
        let child = Command::new(std::env::current_exe()?)
            .arg("hold")
            .arg("--dir")
            .arg(dir)
            .args(content.create.then_some("--create"))
            .args(["--partitions", &content.partitions.to_string()])
            .args(["--bytes", &content.bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut held = Held { child, took: Duration::ZERO };
        let mut line = String::new();
        if let Some(stdout) = held.child.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.trim() != READY {
            let mut why = String::new();
            if let Some(stderr) = held.child.stderr.as_mut() {
                stderr.read_to_string(&mut why)?;
            }
            return Err(format!("the node in a child did not start: {}", why.trim()).into());
        }
        held.took = started.elapsed();
        Ok(held)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
