//! A node's life: start the engine with a [`Broker`](crate::broker::Broker) per shard, say that it serves, wait for a
//! signal, stop in good order.

use std::num::NonZero;

use millstream_engine::error::Fatal;
use millstream_engine::limits::SHARDS_MAX;

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
