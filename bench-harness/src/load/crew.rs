//! The threads of a load generator: one per processor, pinned, each with an executor of its own that runs its share of
//! the workers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread::sleep;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use super::count::Count;
use super::footprint::{Footprint, Processes, Watch};
use super::turn::Turn;
use super::window::{Span, Window, now_ns};
use crate::measure::Problem;
use crate::raw;

/// How often the server's memory is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// One producer or consumer.
pub trait Worker: Send + 'static {
    /// The same when it is connected and has prepared what it will send.
    type Ready: 'static;

    /// Connects and prepares; nothing of this counts.
    fn prepare(self) -> impl Future<Output = Result<Self::Ready, Problem>>;

    /// Loads the server until the window is over.
    fn run(ready: Self::Ready, window: Window) -> impl Future<Output = Result<Count, Problem>> + 'static;
}

/// Runs the workers on these processors for a span, and says what they came to and what the server used.
pub fn drive<W: Worker>(
    workers: Vec<W>,
    cpus: &[usize],
    span: Span,
    server: &Processes,
) -> Result<Turn, Problem> {
    let shares = share(workers, cpus.len());
    // All threads and this one: before the window is known, and when it is.
    let barrier = Arc::new(Barrier::new(shares.len() + 1));
    let window: Arc<OnceLock<Window>> = Arc::default();
    let running = Arc::new(AtomicUsize::new(shares.len()));
    let mut threads = Vec::new();
    for (number, share) in shares.into_iter().enumerate() {
        let (barrier, window, running) = (Arc::clone(&barrier), Arc::clone(&window), Arc::clone(&running));
        let thread = LocalExecutorBuilder::new(Placement::Fixed(cpus[number]))
            .name("load")
            .spawn(move || async move {
                let prepared = prepare(share).await;
                barrier.wait();
                barrier.wait();
                let window = *window.get().expect("it is set between the two waits");
                let count = match prepared {
                    Ok(ready) => run::<W>(ready, window).await,
                    Err(problem) => Err(problem),
                };
                running.fetch_sub(1, Ordering::Release);
                count
            })
            .map_err(|error| error.to_string());
        match thread {
            Ok(thread) => threads.push(thread),
            // The threads that wait for the others cannot be called back.
            Err(error) => panic!("a thread for the load cannot be started: {error}"),
        }
    }
    barrier.wait();
    let window = *window.get_or_init(|| Window::starting(span));
    barrier.wait();
    let used = watch(&running, server, &window);
    let mut count = Count::default();
    let mut failure = None;
    for thread in threads {
        match thread.join().map_err(|error| error.to_string())? {
            Ok(share) => count.add(&share),
            Err(problem) => failure = Some(problem),
        }
    }
    if raw::interrupted() {
        return Err("interrupted".into());
    }
    failure.map_or(Ok(()), Err)?;
    Ok(Turn::of(&window, &count, &used?))
}

/// The workers of each thread, in turns; no thread without any.
fn share<W>(workers: Vec<W>, threads: usize) -> Vec<Vec<W>> {
    let threads = threads.min(workers.len()).max(1);
    let mut shares: Vec<Vec<W>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, worker) in workers.into_iter().enumerate() {
        shares[number % threads].push(worker);
    }
    shares
}

async fn prepare<W: Worker>(share: Vec<W>) -> Result<Vec<W::Ready>, Problem> {
    let mut ready = Vec::new();
    for worker in share {
        ready.push(worker.prepare().await?);
    }
    Ok(ready)
}

async fn run<W: Worker>(ready: Vec<W::Ready>, window: Window) -> Result<Count, Problem> {
    let tasks: Vec<_> =
        ready.into_iter().map(|worker| glommio::spawn_local(W::run(worker, window))).collect();
    let mut count = Count::default();
    for task in tasks {
        count.add(&task.await?);
    }
    Ok(count)
}

/// Sleeps through the turn and looks at the server meanwhile.
pub fn watch(running: &AtomicUsize, server: &Processes, window: &Window) -> Result<Footprint, Problem> {
    let over = |ns: u64| now_ns() >= ns || raw::interrupted() || running.load(Ordering::Acquire) == 0;
    let step = |ns: u64| sleep(LOOK.min(Duration::from_nanos(ns.saturating_sub(now_ns()))));
    while !over(window.from_ns) {
        step(window.from_ns);
    }
    let mut watch = Watch::start(server)?;
    while !over(window.until_ns) {
        step(window.until_ns);
        watch.look();
    }
    watch.end()
}
