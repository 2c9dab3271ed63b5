//! NATS with JetStream: built from its module by Go.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::child::{Child, free_port, local};
use super::{Peer, Setup, directory, text};
use crate::measure::Problem;
use crate::raw;
use crate::streams::{self, Dialect};

/// The module, and the pinned version of it.
const MODULE: &str = "github.com/nats-io/nats-server/v2";
const VERSION: &str = "2.15.2";

/// Gets it, and starts it; with `flush`, every message is flushed before it is acknowledged.
pub fn start(setup: &Setup, flush: bool) -> Result<Peer, Problem> {
    let binary = install(&setup.cache)?;
    let dir = directory(setup, if flush { "nats-flush" } else { "nats" })?;
    let address = local(free_port()?);
    let sync = if flush { "  sync_interval: always\n" } else { "" };
    let config = dir.join("nats.conf");
    let data = dir.join("data");
    std::fs::write(
        &config,
        format!(
            "listen: \"{address}\"\njetstream {{\n  store_dir: \"{}\"\n  max_file_store: 64GB\n{sync}}}\n",
            text(&data)?
        ),
    )?;
    let mut command = Command::new(binary);
    command.arg("--config").arg(&config).current_dir(&dir);
    let mut child = Child::start(&mut command, &dir)?;
    child.until(|_| streams::serves(Dialect::Nats, address).ok())?;
    let settings = if flush { "defaults, sync_interval: always" } else { "defaults, streams in files" };
    Ok(Peer {
        version: VERSION.to_owned(),
        settings: settings.to_owned(),
        address,
        amqp: None,
        dialect: Some(Dialect::Nats),
        child,
        _helper: None,
    })
}

/// The binary; built once for each version.
fn install(cache: &Path) -> Result<PathBuf, Problem> {
    let folder = cache.join(format!("nats-{VERSION}"));
    let binary = folder.join("nats-server");
    if binary.exists() {
        return Ok(binary.canonicalize()?);
    }
    eprintln!("building nats-server {VERSION}");
    std::fs::create_dir_all(&folder)?;
    let mut go = Command::new("go");
    go.args(["install", &format!("{MODULE}@v{VERSION}")]);
    go.env("GOBIN", folder.canonicalize()?).env("CGO_ENABLED", "0");
    let built =
        raw::die_with_parent(&mut go).output().map_err(|error| format!("Go is not installed: {error}"))?;
    if !built.status.success() {
        let told = String::from_utf8_lossy(&built.stderr);
        return Err(format!(
            "Go did not build it: {}",
            told.trim().lines().last().unwrap_or("no reason given")
        )
        .into());
    }
    Ok(binary.canonicalize()?)
}
