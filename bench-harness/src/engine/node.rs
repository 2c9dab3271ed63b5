//! An embedded node: the one place where the harness starts the engine.

use std::net::SocketAddr;
use std::path::Path;

use millstream_engine::config::Config;
use millstream_engine::reactor::app::App;
use millstream_engine::types::ShardId;

use crate::measure::Problem;

/// What becomes of bytes when they leave the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Segments {
    /// As in production: segments are written in bulk beside the journal, and the journal is trimmed.
    #[default]
    Written,
    /// Writes and flushes of segments are answered at once and not carried out, so that the journal is recycled as ever
    /// and has the disk to itself. What such a node stored cannot be read back.
    Discarded,
}

/// What to start.
#[derive(Clone, Debug, Default)]
#[expect(dead_code, reason = "read when `Node::start` is connected to the reactor")]
pub struct Spec {
    /// The engine's settings.
    pub config: Config,
    /// For the rows that look at the journal alone.
    pub segments: Segments,
    /// Listen on a free port of the loopback address and give its connections to the shards.
    pub listen: bool,
}

/// Makes a shard's app, on whatever thread the engine wants.
pub type MakeApp = Box<dyn Fn(ShardId) -> Box<dyn App> + Send + Sync>;

/// A node that serves. Its threads end with [`Node::stop`].
pub struct Node {
    address: Option<SocketAddr>,
    stop: Box<dyn FnOnce() -> Result<(), Problem>>,
}

impl Node {
    /// Starts a node on `dir`, which may hold an earlier node's data. The harness's threads are not pinned when they
    /// call this, so that the shards see all processors.
    pub fn start(spec: Spec, dir: &Path, make_app: MakeApp) -> Result<Node, Problem> {
        // The engine's reactor comes with another branch. When it is here, this function calls it, and nothing else
        // changes; until then every row says why it has no figure.
        let (_, _, _) = (spec, dir, make_app);
        Err("this build of the engine has no reactor to start".into())
    }

    /// Where it listens; `None` if it was not asked to.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Stops in good order.
    pub fn stop(self) -> Result<(), Problem> {
        (self.stop)()
    }
}
