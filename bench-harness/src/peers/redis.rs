//! Redis, from Debian's packages, with an append-only file as its documentation recommends for data that matters.

use std::process::Command;

use super::child::{Child, free_port, local};
use super::debian::root;
use super::{Peer, Setup, directory, text};
use crate::measure::Problem;
use crate::streams::{self, Dialect};

/// Where the server is, below the root of the packages.
const SERVER: &str = "usr/bin/redis-server";

/// Gets it, and starts it; with `flush`, everything is flushed before it is answered.
pub fn start(setup: &Setup, flush: bool) -> Result<Peer, Problem> {
    let root = root(setup, "redis-server", SERVER)?;
    let dir = directory(setup, if flush { "redis-flush" } else { "redis" })?;
    let port = free_port()?;
    let server = || {
        let mut command = Command::new(root.join(SERVER));
        command.env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
        command
    };
    let told = server().arg("--version").output()?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let version =
        told.split("v=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("unknown").to_owned();
    let fsync = if flush { "always" } else { "everysec" };
    let mut command = server();
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", text(&dir)?]);
    command.args(["--appendonly", "yes", "--appendfsync", fsync, "--save", ""]).current_dir(&dir);
    let mut child = Child::start(&mut command, &dir)?;
    let address = local(port);
    child.until(|_| streams::serves(Dialect::Redis, address).ok())?;
    let settings = format!("appendonly yes, appendfsync {fsync}, no snapshots");
    Ok(Peer { version, settings, address, amqp: None, dialect: Some(Dialect::Redis), child, _helper: None })
}
