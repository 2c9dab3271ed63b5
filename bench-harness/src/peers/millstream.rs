//! Millstream itself: the release binary, with its defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::child::Child;
use super::{Peer, Setup, directory, text};
use crate::measure::Problem;

/// What differs from the defaults: where it is, and that deleted topics free their space soon, as in every peer.
const SETTINGS: &str = "log.segment.delete.delay.ms = 200";

/// Any port of the loopback address.
const ANY: &str = "127.0.0.1:0";

/// Starts it.
pub fn start(setup: &Setup) -> Result<Peer, Problem> {
    start_binary(setup, "millstream", &binary(setup)?)
}

/// Starts a build of it; the name is that of its directory.
pub fn start_binary(setup: &Setup, name: &str, binary: &Path) -> Result<Peer, Problem> {
    let dir = directory(setup, name)?;
    let config = dir.join("millstream.toml");
    std::fs::write(&config, format!("{SETTINGS}\n"))?;
    let version = version(binary)?;
    let mut command = Command::new(binary);
    command.arg("serve").arg("--config").arg(&config);
    command.args(["--data", text(&dir.join("data"))?, "--kafka", ANY, "--http", ANY]);
    // Builds from before AMQP do not take this.
    if told(binary, &["serve", "--help"])?.contains("--amqp") {
        command.args(["--amqp", ANY]);
    }
    let mut child = Child::start(&mut command, &dir)?;
    let address = child.until(|child| ready(&child.told(), "kafka"))?;
    let amqp = ready(&child.told(), "amqp");
    Ok(Peer { version, settings: SETTINGS.to_owned(), address, amqp, dialect: None, child, _helper: None })
}

/// The address of a protocol in the line that says that a server is ready.
pub fn ready(told: &str, protocol: &str) -> Option<SocketAddr> {
    let line = told.lines().find_map(|line| line.strip_prefix("ready "))?;
    line.split(' ').find_map(|word| word.strip_prefix(protocol)?.strip_prefix('=')?.parse().ok())
}

fn version(binary: &Path) -> Result<String, Problem> {
    Ok(told(binary, &["--version"])?.split_whitespace().last().unwrap_or("unknown").to_owned())
}

/// What a binary prints.
fn told(binary: &Path, arguments: &[&str]) -> Result<String, Problem> {
    let output = Command::new(binary)
        .args(arguments)
        .output()
        .map_err(|error| format!("{}: {error}", binary.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The binary that was named; else the one that was built with this one; else it is built.
fn binary(setup: &Setup) -> Result<PathBuf, Problem> {
    if let Some(binary) = &setup.millstream {
        return Ok(binary.canonicalize().map_err(|error| format!("{}: {error}", binary.display()))?);
    }
    let here = std::env::current_exe()?;
    // Nobody compares with a debug build.
    let beside =
        here.with_file_name(if cfg!(debug_assertions) { "../release/millstream" } else { "millstream" });
    if beside.exists() {
        return Ok(beside);
    }
    eprintln!("building millstream");
    let built =
        Command::new("cargo").args(["build", "--release", "--package", "millstream"]).status().map_err(
            |error| format!("{} is not there, and cargo cannot be started: {error}", beside.display()),
        )?;
    let built = if built.success() { here.with_file_name("../release/millstream") } else { PathBuf::new() };
    built.canonicalize().map_err(|_| {
        format!("{} is not there and was not built: name the binary with --millstream", beside.display())
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_among_other_lines() {
        let told =
            "2026 INFO something\nready kafka=127.0.0.1:4711 amqp=127.0.0.1:4712 http=127.0.0.1:4713\n";
        assert_eq!(ready(told, "kafka").unwrap().port(), 4711);
        assert_eq!(ready(told, "amqp").unwrap().port(), 4712);
        assert_eq!(ready(told, "mqtt"), None);
        assert_eq!(ready("not yet", "kafka"), None);
    }
}
