//! A node's life: listen for HTTP, start the engine with a [`Broker`] per shard, say that it serves, wait for a signal, stop in good
//! order.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_engine::error::Fatal;
use millstream_engine::metrics::Reader;
use millstream_engine::reactor::node::{Node, NodeOptions, start};
use millstream_engine::types::ShardId;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::admin::Admin;
use crate::broker::Broker;
use crate::config::ServerConfig;
use crate::management::{About, Api, Definitions};
use crate::metrics::{BrokerMetrics, ShardReaders};

/// How often the process looks whether it was told to end, or has to.
const LOOK: Duration = Duration::from_millis(20);

/// Serves until SIGTERM or Ctrl-C; a second signal ends the process at once. Fails if the node cannot start, or has to
/// give up.
pub fn serve(mut config: ServerConfig) -> Result<(), Fatal> {
    let stop = watch_signals()?;
    config.engine.shards = config.shards.unwrap_or(0);
    let definitions = match &config.definitions {
        Some(text) => Some(Definitions::parse(text).map_err(wrong_definitions)?),
        None => None,
    };
    // Whoever brings users needs nobody to log in as at first.
    config.amqp.founds_user = !definitions.as_ref().is_some_and(Definitions::has_users);
    let options = NodeOptions {
        config: config.engine.clone(),
        data: config.data_dir.clone().into(),
        listen: vec![config.kafka_listen, config.amqp_listen],
    };
    let config = Arc::new(config);
    // First of all, so that whoever asks is told that the node starts.
    let admin = Admin::start(config.http_listen).map_err(Fatal::Refused)?;
    let readers = Arc::new(Mutex::new(BTreeMap::new()));
    let (collected, shards_config) = (Arc::clone(&readers), Arc::clone(&config));
    let node = start(options, move |shard| {
        let broker = Broker::new(Arc::clone(&shards_config));
        collected.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, broker.metrics());
        broker
    })?;
    let api = Arc::new(Api::new(node.caller(), about(&config, &node, admin.address())));
    let readers = join(&node, &mut readers.lock().unwrap_or_else(PoisonError::into_inner));
    prepare(&api, definitions.as_ref())?;
    admin.serving(readers, Some(api));
    announce(&node, admin.address());
    while !stop.load(Ordering::Relaxed) && !node.has_failed() {
        std::thread::sleep(LOOK);
    }
    tracing::info!("stopping");
    admin.stopping();
    node.stop()?;
    tracing::info!("stopped: everything acknowledged is on disk");
    Ok(())
}

/// What is told of the node over HTTP.
fn about(config: &ServerConfig, node: &Node, http: SocketAddr) -> About {
    let [kafka, amqp] = *node.addresses() else { panic!("a node listens where it was asked to") };
    About {
        product: config.amqp.product.clone(),
        version: config.amqp.version.clone(),
        guest_is_local: config.amqp.guest_is_local,
        listeners: vec![("kafka", kafka), ("amqp", amqp), ("http", http)],
    }
}

fn wrong_definitions(wrong: impl std::fmt::Display) -> Fatal {
    Fatal::Refused(format!("the definitions cannot be loaded: {wrong}"))
}

/// Sees to it that there is a vhost and somebody to log in, and makes what the definitions say, before anybody is told that the node
/// serves.
fn prepare(api: &Api, definitions: Option<&Definitions>) -> Result<(), Fatal> {
    let refused = |error: std::io::Error| Fatal::Refused(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(refused)?;
    runtime.block_on(api.founded()).map_err(Fatal::Refused)?;
    match definitions {
        Some(definitions) => runtime.block_on(api.load(definitions)).map_err(wrong_definitions),
        None => Ok(()),
    }
}

/// Both parts of what each shard tells, in order of the shards' numbers.
fn join(node: &Node, brokers: &mut BTreeMap<ShardId, Reader<BrokerMetrics>>) -> Vec<ShardReaders> {
    let engines: BTreeMap<_, _> = node.metrics().iter().cloned().collect();
    let join = |(shard, engine)| Some(ShardReaders { engine, broker: brokers.remove(&shard)? });
    let joined: Vec<_> = engines.into_iter().filter_map(join).collect();
    assert_eq!(joined.len(), node.metrics().len(), "every shard has made its broker");
    joined
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
fn announce(node: &Node, http: SocketAddr) {
    for note in node.notes() {
        tracing::info!("{note}");
    }
    for (shard, report) in node.reports() {
        let (logs, journal_bytes) = (report.logs, report.journal_bytes);
        tracing::info!(shard = shard.0, logs, journal_bytes, last_lsn = report.last_lsn.0, "recovered");
    }
    let [kafka, amqp] = *node.addresses() else { panic!("a node listens where it was asked to") };
    for (listener, address) in [("kafka.listen", kafka), ("amqp.listen", amqp), ("http.listen", http)] {
        if !address.ip().to_canonical().is_loopback() {
            tracing::warn!(
                %address,
                "`{listener}` is reachable from other machines, and there is neither encryption nor a password: \
                 anybody who can connect can use it. Only for networks that you trust"
            );
        }
    }
    let mut stdout = std::io::stdout().lock();
    // Nobody may be listening to stdout, which is no reason not to serve.
    let _ = writeln!(stdout, "ready kafka={kafka} amqp={amqp} http={http}").and_then(|()| stdout.flush());
}
