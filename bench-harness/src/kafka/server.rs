//! The broker in a process of its own: the very code of the binary `millstream`, to be driven and looked at from outside.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::Args;
use millstream::config::{GroupConfig, ServerConfig};
use millstream_engine::config::Config;

use crate::measure::Problem;
use crate::{machine, raw};

/// What the hidden `millbench broker` is told.
#[derive(Args)]
pub struct Broker {
    /// The data directory.
    #[arg(long)]
    dir: PathBuf,
}

impl Broker {
    /// Serves until its input ends, which it does when the parent does. One shard and the embedded engine's journal, so
    /// that the two compare; the first generation of a group waits for nobody, so that the wait is not what is measured.
    pub fn run(&self) -> Result<(), Problem> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = ServerConfig {
            data_dir: self.dir.to_str().ok_or("the data directory has no name in UTF-8")?.to_owned(),
            shards: Some(1),
            kafka_listen: any,
            amqp_listen: any,
            http_listen: any,
            groups: GroupConfig { initial_delay_ms: 0, ..GroupConfig::default() },
            engine: Config::default(),
            ..ServerConfig::default()
        };
        thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
        Ok(millstream::run::serve(config)?)
    }
}

/// The child. It is killed, and its data directory removed, when this is dropped.
pub struct Server {
    child: Child,
    dir: PathBuf,
    /// Where it serves Kafka's protocol.
    pub address: SocketAddr,
}

impl Server {
    /// Starts a child on `dir`, and waits until it serves.
    pub fn start(dir: &Path) -> Result<Server, Problem> {
        let child = Command::new(std::env::current_exe()?)
            .arg("broker")
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Owned from here on, so that it is killed whatever comes.
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut server = Server { child, dir: dir.to_owned(), address: nowhere };
        let mut line = String::new();
        if let Some(stdout) = server.child.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.strip_prefix("ready kafka=").and_then(|rest| rest.split(' ').next()?.parse().ok());
        let Some(address) = address else {
            let mut why = String::new();
            if let Some(stderr) = server.child.stderr.as_mut() {
                stderr.read_to_string(&mut why)?;
            }
            return Err(format!("the broker in a child did not start: {}", why.trim()).into());
        };
        server.address = address;
        Ok(server)
    }

    /// Processor time that it has used so far, kernel workers included.
    pub fn cpu(&self) -> Result<Duration, Problem> {
        Ok(raw::process_cpu(self.child.id())?)
    }

    /// Its resident memory.
    pub fn rss_kib(&self) -> Result<f64, Problem> {
        machine::rss_kib(self.child.id())
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> Result<f64, Problem> {
        machine::descriptors(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{} is left behind: {error}", self.dir.display());
        }
    }
}
