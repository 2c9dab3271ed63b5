//! The node's management over HTTP: health, metrics, and what is under `/api`. It has a thread of its own. For health and metrics it asks
//! nothing of the shards: it reads what they have noted, so that it answers although one of them is stuck or poisoned, and holds none of
//! them up. What is under `/api` asks them for little: [`crate::management`].

mod health;
mod http;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::Notify;

use crate::management::Api;
use crate::metrics::{Metrics, ShardReaders};
pub use health::{Health, Seen, Stage, Verdict};

/// The management listener, and the thread that serves it.
pub struct Admin {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread that serves and the one that runs the node share.
#[derive(Default)]
pub struct State {
    health: Mutex<Health>,
    /// What serves `/api`, once the node can be reached.
    api: OnceLock<Arc<Api>>,
    /// What there is to read, once the shards serve. The lock is the readers' among themselves.
    metrics: OnceLock<Mutex<Metrics>>,
    end: Notify,
}

impl State {
    /// How the node is.
    pub fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told of the node, once it serves.
    pub fn metrics(&self) -> Option<MutexGuard<'_, Metrics>> {
        self.metrics.get().map(|metrics| metrics.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the shards, for [`Health`].
    fn look(&self) {
        let Some(metrics) = self.metrics() else { return };
        let seen = metrics.shards().map(|(_, readers)| Seen {
            turns: readers.engine.get(|shard| shard.turns.get()),
            poisoned: readers.engine.get(|shard| shard.poisoned.get()) > 0,
            disk_full: readers.engine.get(|shard| shard.disk_full.get()) > 0,
        });
        self.health().look(seen);
    }
}

impl Admin {
    /// Listens at `address`, where port 0 picks a free one, and answers from now on that the node is starting. An error
    /// says what could not be done.
    pub fn start(address: SocketAddr) -> Result<Admin, String> {
        let failed = |error| format!("listening for HTTP on {address}: {error}");
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name("management".to_owned())
            .spawn(move || runtime.block_on(http::serve(listener, serving)))
            .map_err(failed)?;
        Ok(Admin { address, state, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The node serves, and its shards tell this of themselves, in order of their numbers.
    pub fn serving(&self, shards: Vec<ShardReaders>, api: Option<Arc<Api>>) {
        if let Some(api) = api {
            let _ = self.state.api.set(api);
        }
        let _ = self.state.metrics.set(Mutex::new(Metrics::new(shards)));
        self.state.look();
        self.state.health().enter(Stage::Serving);
    }

    /// The node stops. Health and metrics are answered until this is dropped.
    pub fn stopping(&self) {
        self.state.health().enter(Stage::Stopping);
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.state.end.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use millstream_engine::metrics::{Meter, ShardMetrics};

    use super::*;
    use crate::metrics::BrokerMetrics;

    fn status(admin: &Admin, path: &str) -> String {
        let mut socket = TcpStream::connect(admin.address()).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_poisoned_shard_fails_the_health_and_is_still_measured() {
        let admin = Admin::start(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let starting = ["/health/live", "/health/ready", "/metrics"].map(|path| status(&admin, path));
        assert_eq!(starting, ["200", "503", "503"]);
        let engine = Meter::<ShardMetrics>::default();
        engine.poisoned.set(1);
        let readers =
            ShardReaders { engine: engine.reader(), broker: Meter::<BrokerMetrics>::default().reader() };
        admin.serving(vec![readers], None);
        let poisoned = ["/health/live", "/health/ready", "/metrics"].map(|path| status(&admin, path));
        assert_eq!(poisoned, ["503", "503", "200"]);
    }
}
