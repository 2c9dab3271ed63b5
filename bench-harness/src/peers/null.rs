//! The null endpoint, in a process of its own.

use std::process::Command;

use super::child::Child;
use super::millstream::ready;
use super::{Peer, Setup, directory, text};
use crate::measure::Problem;

/// Starts it.
pub fn start(setup: &Setup) -> Result<Peer, Problem> {
    let dir = directory(setup, "null")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["null", "--listen", "127.0.0.1:0", "--dir", text(&dir.join("reactor"))?]);
    let mut child = Child::start(&mut command, &dir)?;
    let address = child.until(|child| ready(&child.told(), "kafka"))?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Peer {
        version,
        settings: "stores nothing".to_owned(),
        address,
        amqp: None,
        dialect: None,
        child,
        _helper: None,
    })
}
