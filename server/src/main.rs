//! `millstream`: the broker.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use millstream::cli::{Cli, Command};
use millstream::config::ServerConfig;
use tracing_subscriber::EnvFilter;

/// Comes before the configuration's `log.level`.
const LOG_VARIABLE: &str = "MILLSTREAM_LOG";

fn main() -> ExitCode {
    let done = match Cli::parse().command() {
        Command::Serve(serve) => serve.config().and_then(|config| {
            start_log(&config)?;
            millstream::run::serve(config).map_err(|fatal| fatal.to_string())
        }),
        Command::Log(log) => millstream::inspect::run(log),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millstream: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Logs to stderr, as the environment or the configuration says.
fn start_log(config: &ServerConfig) -> Result<(), String> {
    let (source, filter) = match std::env::var(LOG_VARIABLE) {
        Ok(filter) => (LOG_VARIABLE, filter),
        Err(_) => ("log.level", config.log_level.clone()),
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("`{source}`: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Telling of a line that cannot be written panics, on the very stderr that takes none: a full disk is no reason to end.
        .log_internal_errors(false)
        .init();
    Ok(())
}
