//! `millstream log`: the engine looks, or takes over, and this prints.

use std::io::{BufWriter, Write};

use millstream_engine::config::Config;
use millstream_engine::inspect::foreign::Copied;
use millstream_engine::inspect::{Detail, Line, local};
use millstream_engine::reactor::import::{self, Imported};

use crate::cli::Log;
use crate::config::ServerConfig;

/// Runs the command. Fails if it cannot be carried out, and if `verify` or `dump` finds damage.
pub fn run(log: Log) -> Result<(), String> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    // Whoever reads may have seen enough, which is no failure of ours.
    let mut print = |line: &dyn std::fmt::Display| drop(writeln!(out, "{line}"));
    let (path, detail) = match log {
        Log::Verify { path } => (path, Detail::Files),
        Log::Dump { path, records: false } => (path, Detail::Entries),
        Log::Dump { path, records: true } => (path, Detail::Records),
        Log::Salvage { path, to } => {
            let saved =
                local::salvage(&path, &to, &mut |line| print(&line)).map_err(|fatal| fatal.to_string())?;
            let (partitions, batches, bytes, lost) =
                (saved.partitions, saved.batches, saved.bytes, saved.lost);
            let empty = match saved.empty {
                0 => String::new(),
                empty => format!(", {empty} were empty before"),
            };
            print(&format!(
                "saved {batches} batches, {bytes} bytes, of {partitions} partitions; {lost} offsets left out{empty}"
            ));
            if saved.queues > 0 || saved.messages_lost > 0 {
                let (queues, messages, lost) = (saved.queues, saved.messages, saved.messages_lost);
                print(&format!("saved {messages} messages of {queues} queues; {lost} messages left out"));
            }
            return Ok(());
        }
        Log::Import { sources, data, topic } => {
            let config = ServerConfig::default().engine;
            let imported = import::local(Config { shards: 0, ..config }, &data, topic.as_deref(), &sources)
                .map_err(|fatal| fatal.to_string())?;
            for (name, Imported { copied, .. }) in imported {
                let Copied { log_start, next_offset, batches, bytes, aborted, .. } = copied;
                print(&format!(
                    "{name}: {batches} batches, {bytes} bytes, offsets {log_start} up to {next_offset}"
                ));
                if aborted > 0 {
                    print(&format!("{name}: {aborted} batches of aborted transactions were left out"));
                }
            }
            print(&"If the topic was made just now, it keeps its records until its retention is set");
            return Ok(());
        }
    };
    let mut show = |line: Line<'_>| match line {
        Line::Entry(entry) => print(&entry),
        Line::File(verdict) => print(verdict),
    };
    let mut warn = |fatal: &_| {
        eprintln!("millstream: {fatal}: what is being written meanwhile may look damaged");
    };
    let summary = local::check(&path, detail, &mut show, &mut warn).map_err(|fatal| fatal.to_string())?;
    print(&format!("{} files, {} damaged or missing", summary.files, summary.damaged));
    drop(out);
    match summary.damaged {
        0 => Ok(()),
        damaged => Err(format!("{}: {damaged} files are damaged or missing", path.display())),
    }
}
