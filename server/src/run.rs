//! A node's life: start the engine with a [`Broker`](crate::broker::Broker) per shard, say that it serves, wait for a
//! signal, stop in good order.

use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZero;

use millstream_engine::error::Fatal;
use millstream_engine::limits::SHARDS_MAX;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::ServerConfig;

/// Serves until SIGTERM or Ctrl-C. Fails if the node cannot start, or has to give up.
pub fn serve(mut config: ServerConfig) -> Result<(), Fatal> {
    config.engine.shards = config.shards.unwrap_or_else(shards_for_this_machine);
    Err(Fatal::Refused("this build has no reactor to serve with".to_owned()))
}

/// One shard per core that this process may use: its affinity, or less if its group's quota is.
fn shards_for_this_machine() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    u16::try_from(cores).unwrap_or(SHARDS_MAX).min(SHARDS_MAX)
}

/// Says on stdout that a started node serves at `kafka`, then runs `wait` until the node is over. The first SIGTERM or
/// Ctrl-C meanwhile calls `stop`, on another thread; a second one ends the process at once.
pub fn until_signal(
    kafka: SocketAddr,
    stop: impl FnOnce() + Send + 'static,
    wait: impl FnOnce() -> Result<(), Fatal>,
) -> Result<(), Fatal> {
    let refused = |error: std::io::Error| Fatal::Refused(format!("signals cannot be waited for: {error}"));
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(refused)?;
    let handle = signals.handle();
    let watcher = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut signals = signals.forever();
            let Some(signal) = signals.next() else { return };
            tracing::info!(signal, "stopping");
            stop();
            if let Some(signal) = signals.next() {
                tracing::warn!(signal, "stopped at once");
                // 128 + the number is what a shell makes of a signal.
                std::process::exit(128 + signal);
            }
        })
        .map_err(refused)?;
    // Nobody may be listening to stdout, which is no reason not to serve.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "ready kafka={kafka}").and_then(|()| stdout.flush());
    drop(stdout);
    let ended = wait();
    handle.close();
    watcher.join().expect("the thread that watches for signals does not panic");
    ended
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_signal_stops_the_node_and_its_end_is_the_result() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let (stop, stopped) = mpsc::channel();
        let ended = until_signal(
            address,
            move || stop.send(()).expect("the node waits"),
            move || {
                signal_hook::low_level::raise(SIGTERM).expect("a process may signal itself");
                stopped.recv().map_err(|_| Fatal::Refused("never asked to stop".to_owned()))
            },
        );
        assert_eq!(ended, Ok(()));
        let failed = Err(Fatal::Refused("gave up".to_owned()));
        assert_eq!(until_signal(address, || {}, || failed.clone()), failed, "without a signal, too");
    }
}
