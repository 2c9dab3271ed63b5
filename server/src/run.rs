//! A node's life: start the engine with a [`Broker`] per shard, say that it serves, wait for a signal, stop in good
//! order.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_engine::error::Fatal;
use millstream_engine::reactor::node::{Node, NodeOptions, start};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::broker::Broker;
use crate::config::ServerConfig;

/// How often the process looks whether it was told to end, or has to.
const LOOK: Duration = Duration::from_millis(20);

/// Serves until SIGTERM or Ctrl-C; a second signal ends the process at once. Fails if the node cannot start, or has to
/// give up.
pub fn serve(mut config: ServerConfig) -> Result<(), Fatal> {
    let stop = watch_signals()?;
    config.engine.shards = config.shards.unwrap_or(0);
    let options = NodeOptions {
        config: config.engine.clone(),
        data: config.data_dir.clone().into(),
        listen: Some(config.kafka_listen),
    };
    let config = Arc::new(config);
    let node = start(options, move |_| Broker::new(Arc::clone(&config)))?;
    announce(&node);
    while !stop.load(Ordering::Relaxed) && !node.has_failed() {
        std::thread::sleep(LOOK);
    }
    tracing::info!("stopping");
    node.stop()?;
    tracing::info!("stopped: everything acknowledged is on disk");
    Ok(())
}

fn watch_signals() -> Result<Arc<AtomicBool>, Fatal> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal finds the flag unset and only sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Fatal::Refused(format!("watching for signals: {error}")))?;
    }
    Ok(stop)
}

/// Tells the operator what was found, in the log, and whoever started the process that it serves, on stdout.
fn announce(node: &Node) {
    for note in node.notes() {
        tracing::info!("{note}");
    }
    for (shard, report) in node.reports() {
        let (logs, journal_bytes) = (report.logs, report.journal_bytes);
        tracing::info!(shard = shard.0, logs, journal_bytes, last_lsn = report.last_lsn.0, "recovered");
    }
    let address = node.address().expect("a node that was asked to listen does");
    let mut stdout = std::io::stdout().lock();
    // Nobody may be listening to stdout, which is no reason not to serve.
    let _ = writeln!(stdout, "ready kafka={address}").and_then(|()| stdout.flush());
}
