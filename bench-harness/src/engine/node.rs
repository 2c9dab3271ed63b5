//! An embedded node: the one place where the harness starts the engine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use millstream_engine::config::Config;
use millstream_engine::reactor::app::App;
use millstream_engine::reactor::node::{self, NodeOptions};
use millstream_engine::types::ShardId;

use crate::measure::Problem;

/// What to start.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// The engine's settings.
    pub config: Config,
    /// Listen there and give the connections to the shards.
    pub listen: Option<SocketAddr>,
}

/// A free port of the loopback address.
pub const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Makes a shard's app, on that shard's thread.
pub type MakeApp = Box<dyn Fn(ShardId) -> Box<dyn App> + Send + Sync>;

/// A node that serves. Its threads end with [`Node::stop`].
pub struct Node(node::Node);

impl Node {
    /// Starts a node on `dir`, which may hold an earlier node's data. The harness's threads are not pinned when they
    /// call this, so that the shards see all processors.
    pub fn start(spec: Spec, dir: &Path, make_app: MakeApp) -> Result<Node, Problem> {
        let listen = spec.listen.into_iter().collect();
        let options = NodeOptions { config: spec.config, data: dir.to_owned(), listen };
        Ok(Node(node::start(options, make_app)?))
    }

    /// Where it listens; `None` if it was not asked to.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.addresses().first().copied()
    }

    /// Stops in good order.
    pub fn stop(self) -> Result<(), Problem> {
        Ok(self.0.stop()?)
    }
}
