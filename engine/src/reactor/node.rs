//! A node on a real machine: the data directory's lock, the boot, one pinned thread per shard, and an orderly end.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::app::App;
use super::boot::{Boot, boot, finish};
use super::reshard::reshard;
use super::{Call, Reactor, Shared, Turn};
use crate::buffer::Pool;
use crate::config::Config;
use crate::error::Fatal;
use crate::io::probe::memory_bytes;
use crate::io::probe::probe;
use crate::io::uring::{Peers, Uring, UringOptions};
use crate::io::{Bell, Blocking, Io};
use crate::limits::{JOURNALS_BYTES_DEFAULT_MAX, SHARDS_MAX};
use crate::metrics::{Reader, ShardMetrics};
use crate::shard::Shard;
use crate::shard::controller::{CONTROLLER, Controller};
use crate::shard::mailbox::{Post, mesh, slots};
use crate::shard::recovery::Report;
use crate::time::Nanos;
use crate::types::ShardId;

/// Memory of a shard for bytes that come in from connections.
const RECEIVE_BYTES: usize = 64 << 20;
/// Memory of the boot's own reads.
pub(super) const BOOT_BYTES: usize = 256 << 20;
/// How long an orderly end may take before what is left is given up.
const STOP_BOUND: Nanos = Nanos::from_millis(10_000);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The engine's settings.
    pub config: Config,
    /// The data directory; made if it is not there.
    pub data: PathBuf,
    /// Where to listen for connections, if at all: every one tells by which of these it came.
    pub listen: Vec<SocketAddr>,
}

/// A running node. Dropping it without [`Node::stop`] is a crash of sorts: nothing acknowledged is lost.
pub struct Node {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    bells: Vec<Arc<dyn Bell>>,
    threads: Vec<JoinHandle<Result<(), Fatal>>>,
    reports: Vec<(ShardId, Report)>,
    metrics: Vec<(ShardId, Reader<ShardMetrics>)>,
    notes: Vec<String>,
    root: PathBuf,
    direct: bool,
    boot: Boot,
    _lock: File,
}

/// A way for other threads to say something to the hosts of a node's shards.
#[derive(Clone)]
pub struct Caller {
    shared: Arc<Shared>,
    /// In order of the shards' numbers.
    bells: Arc<[Arc<dyn Bell>]>,
}

impl Caller {
    /// Says something to the host of a shard: [`super::app::AppEvent::Called`]. Gives it back if there is no such shard, or
    /// so much waits there already that there is no room. A node that has stopped hears nothing, and drops what it was told.
    pub fn call(&self, shard: ShardId, call: Call) -> Result<(), Call> {
        self.shared.call(shard, call)?;
        if let Some(bell) = self.bells.get(usize::from(shard.0)) {
            bell.ring();
        }
        Ok(())
    }

    /// The shards that there are.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.bells.len() as u16).map(ShardId)
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Caller({} shards)", self.bells.len())
    }
}

/// What a shard's thread tells the thread that started it.
enum Told {
    Recovered(ShardId, Arc<dyn Bell>, Report, Reader<ShardMetrics>),
    Listening(Vec<SocketAddr>),
    Failed(Fatal),
}

/// Starts a node: recovers what the data directory holds, then serves. `make_app` is called once per shard, on the
/// shard's own thread. Returns when every shard serves and the listener, if one was asked for, is open.
pub fn start<A, F>(options: NodeOptions, make_app: F) -> Result<Node, Fatal>
where
    A: App,
    F: Fn(ShardId) -> A + Send + Sync + 'static,
{
    let NodeOptions { mut config, data, listen } = options;
    fit_to_machine(&mut config);
    let found = probe(&data)?;
    let lock = lock(&data)?;
    let boot = {
        let mut io = boot_io(&data, found.direct)?;
        let found = boot(&mut Blocking::new(&mut io, Pool::new(BOOT_BYTES)), &config)?;
        reshard(&mut io, found, &Arc::new(config.clone()), &Pool::new(BOOT_BYTES))?
    };
    let shards = config.shards;
    let shared = Arc::new(Shared::new(shards));
    let peers = Arc::new(Peers::new(shards));
    let config = Arc::new(config);
    let make_app = Arc::new(make_app);
    let posts: Vec<Mutex<Option<Post<_, _>>>> =
        mesh(shards, slots(shards)).into_iter().map(|post| Mutex::new(Some(post))).collect();
    let (tell, told) = mpsc::channel();
    let serve = Arc::new(std::sync::Barrier::new(usize::from(shards)));
    let mut threads = Vec::new();
    for (id, post) in posts.into_iter().enumerate() {
        let id = ShardId(id as u16);
        let setup = Setup {
            id,
            root: data.clone(),
            direct: found.direct,
            peers: Arc::clone(&peers),
            config: Arc::clone(&config),
            boot: boot.clone(),
            shared: Arc::clone(&shared),
            tell: tell.clone(),
            serve: Arc::clone(&serve),
            listen: if id == CONTROLLER { listen.clone() } else { Vec::new() },
        };
        let make_app = Arc::clone(&make_app);
        let thread = std::thread::Builder::new()
            .name(format!("shard-{}", id.0))
            .spawn(move || {
                let post = post.lock().unwrap_or_else(PoisonError::into_inner).take();
                setup.run(post.expect("each thread takes its own"), move || make_app(id))
            })
            .map_err(|error| Fatal::Refused(format!("starting a thread: {error}")))?;
        threads.push(thread);
    }
    drop(tell);
    let mut node = Node {
        addresses: Vec::new(),
        shared,
        bells: Vec::new(),
        threads,
        reports: Vec::new(),
        metrics: Vec::new(),
        notes: found.notes,
        root: data,
        direct: found.direct,
        boot,
        _lock: lock,
    };
    node.await_start(&told, listen.len())?;
    Ok(node)
}

impl Node {
    fn await_start(&mut self, told: &mpsc::Receiver<Told>, listeners: usize) -> Result<(), Fatal> {
        let shards = self.threads.len();
        let mut failed = None;
        while self.bells.len() < shards || self.addresses.len() < listeners {
            match told.recv() {
                Ok(Told::Recovered(shard, bell, report, metrics)) => {
                    self.bells.push(bell);
                    self.reports.push((shard, report));
                    self.metrics.push((shard, metrics));
                }
                Ok(Told::Listening(addresses)) => self.addresses = addresses,
                Ok(Told::Failed(fatal)) => failed = Some(fatal),
                Err(_) => break,
            }
            if failed.is_some() {
                break;
            }
        }
        match failed {
            Some(fatal) => Err(fatal),
            None if self.bells.len() < shards => {
                Err(Fatal::Refused("a shard ended while starting".to_owned()))
            }
            None => Ok(()),
        }
    }

    /// Where it listens, in the order in which that was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A way for other threads to reach the shards' hosts.
    pub fn caller(&self) -> Caller {
        // Shards have told of themselves in whatever order they came up.
        let mut bells: Vec<_> = self.reports.iter().map(|(shard, _)| *shard).zip(&self.bells).collect();
        bells.sort_unstable_by_key(|(shard, _)| *shard);
        let bells = bells.into_iter().map(|(_, bell)| Arc::clone(bell)).collect();
        Caller { shared: Arc::clone(&self.shared), bells }
    }

    /// What the start found out about the machine, for the operator.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What each shard's recovery had to do.
    pub fn reports(&self) -> &[(ShardId, Report)] {
        &self.reports
    }

    /// What each shard tells of itself, as long as anybody wants to know.
    pub fn metrics(&self) -> &[(ShardId, Reader<ShardMetrics>)] {
        &self.metrics
    }

    /// Whether a shard has ended by itself, which it does only when it cannot go on.
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends in good order: nothing new is taken, what was promised is made durable, and the directory is marked clean.
    /// Takes a bounded time.
    pub fn stop(mut self) -> Result<(), Fatal> {
        self.shared.stop();
        let mut outcome = Ok(());
        for bell in &self.bells {
            bell.ring();
        }
        for thread in self.threads.drain(..) {
            // A shard that sleeps past its bell would be a bug of ours; ring again rather than hang.
            while !thread.is_finished() {
                for bell in &self.bells {
                    bell.ring();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(fatal)) => outcome = Err(fatal),
                Err(_) => outcome = Err(Fatal::Refused("a shard panicked".to_owned())),
            }
        }
        outcome?;
        let mut io = boot_io(&self.root, self.direct)?;
        finish(&mut Blocking::new(&mut io, Pool::new(BOOT_BYTES)), &self.boot.manifest)
    }
}

/// What one shard's thread starts from.
struct Setup {
    id: ShardId,
    root: PathBuf,
    direct: bool,
    peers: Arc<Peers>,
    config: Arc<Config>,
    boot: Boot,
    shared: Arc<Shared>,
    tell: mpsc::Sender<Told>,
    serve: Arc<std::sync::Barrier>,
    listen: Vec<SocketAddr>,
}

impl Setup {
    fn run<A: App>(
        self,
        post: Post<super::Ask, super::Answer>,
        make_app: impl FnOnce() -> A,
    ) -> Result<(), Fatal> {
        pin(self.id);
        let (mut reactor, report) = match self.recover(post, make_app) {
            Ok(recovered) => recovered,
            Err(fatal) => {
                let _ = self.tell.send(Told::Failed(fatal.clone()));
                return Err(fatal);
            }
        };
        let bell = reactor.io().bell();
        let metrics = reactor.metrics();
        let _ = self.tell.send(Told::Recovered(self.id, bell, report, metrics));
        // Nobody serves before everybody can: a request may go to any shard.
        self.serve.wait();
        let listeners: Vec<u16> = self.listen.iter().map(|address| reactor.listen(*address)).collect();
        let mut announced = listeners.is_empty();
        let mut stopping_since = None;
        loop {
            if reactor.turn(true) == Turn::Stopped {
                break;
            }
            if !announced && let Some(told) = self.listening(&reactor, &listeners) {
                announced = true;
                let _ = self.tell.send(told);
            }
            if reactor.is_stopping() {
                let now = reactor.io().now();
                let since = *stopping_since.get_or_insert(now);
                if now.since(since) > STOP_BOUND {
                    return Err(Fatal::Refused(format!("shard {} could not end in good order", self.id.0)));
                }
            }
        }
        if reactor.shard().is_poisoned() {
            return Err(Fatal::Refused(format!("shard {} had failed to flush its journal", self.id.0)));
        }
        Ok(())
    }

    /// What to tell of the listeners, once all are known.
    fn listening<A: App>(&self, reactor: &Reactor<Uring, A>, listeners: &[u16]) -> Option<Told> {
        let mut addresses = Vec::new();
        for (listener, asked) in listeners.iter().zip(&self.listen) {
            match reactor.listening(*listener)? {
                Ok(address) => addresses.push(*address),
                Err(error) => {
                    return Some(Told::Failed(Fatal::Refused(format!("listening on {asked}: {error}"))));
                }
            }
        }
        Some(Told::Listening(addresses))
    }

    fn recover<A: App>(
        &self,
        post: Post<super::Ask, super::Answer>,
        make_app: impl FnOnce() -> A,
    ) -> Result<(Reactor<Uring, A>, Report), Fatal> {
        let mut io = Uring::new(UringOptions {
            shard: self.id,
            root: self.root.clone(),
            peers: Arc::clone(&self.peers),
            direct: self.direct,
            receive_pool: Pool::new(RECEIVE_BYTES),
        })?;
        let metadata = Arc::clone(&self.boot.metadata);
        let (shard, report) = Shard::recover(
            &mut io,
            self.id,
            &self.boot.manifest,
            Arc::clone(&self.config),
            Arc::clone(&metadata),
        )?;
        shard.warm_up();
        let controller = if self.id == CONTROLLER {
            let pool = Pool::new(BOOT_BYTES);
            let mut disk = Blocking::new(&mut io, pool.clone());
            Some(Controller::start(&mut disk, metadata, &self.config, pool)?)
        } else {
            None
        };
        let reactor = Reactor::new(io, shard, controller, make_app(), post, Arc::clone(&self.shared));
        Ok((reactor, report))
    }
}

/// Fills in what the configuration leaves to the machine.
pub(super) fn fit_to_machine(config: &mut Config) {
    if config.shards == 0 {
        // This counts the process's affinity and its control group's quota.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        config.shards = u16::try_from(cores).unwrap_or(SHARDS_MAX).min(SHARDS_MAX);
    }
    if config.journal_bytes == 0 {
        config.journal_bytes = (memory_bytes() / 16).min(JOURNALS_BYTES_DEFAULT_MAX);
    }
}

pub(super) fn boot_io(root: &Path, direct: bool) -> Result<Uring, Fatal> {
    Uring::new(UringOptions {
        shard: CONTROLLER,
        root: root.to_owned(),
        peers: Arc::new(Peers::new(1)),
        direct,
        receive_pool: Pool::new(1 << 20),
    })
}

/// Takes the data directory for this process, for as long as the file stays open.
#[expect(clippy::disallowed_methods, reason = "the lock is the process's, and taken before there is any Io")]
pub(super) fn lock(root: &Path) -> Result<File, Fatal> {
    let path = root.join("LOCK");
    let refused =
        |error: &dyn std::fmt::Display| Fatal::Refused(format!("locking {}: {error}", path.display()));
    let file = File::create(&path).map_err(|error| refused(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Fatal::Locked(root.display().to_string())),
        Err(TryLockError::Error(error)) => Err(refused(&error)),
    }
}

/// Pins the thread to the shard's core, counted among those that this process may use, and has it share that core well.
fn pin(id: ShardId) {
    if let Some(error) = crate::io::uring::pin_to_core(usize::from(id.0)) {
        tracing::warn!(shard = id.0, %error, "the shard's thread could not be pinned to a core");
    }
    if let Some(error) = crate::io::uring::shorten_time_slice() {
        tracing::debug!(shard = id.0, %error, "the shard's thread keeps the scheduler's own time slice");
    }
}
