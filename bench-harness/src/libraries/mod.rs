//! `--client`: the same loads through the libraries that users have, librdkafka and lapin. What they cost their users is part
//! of what is measured then. A build has them only if it is asked for.

#[cfg(feature = "lapin")]
pub mod lapin;
#[cfg(feature = "librdkafka")]
pub mod librdkafka;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;

use clap::ValueEnum;
use serde::Serialize;

use crate::load::crew::watch;
use crate::load::footprint::Processes;
use crate::load::turn::Turn;
use crate::load::{Count, Span, Window};
use crate::log::consumer::Part;
use crate::log::workload::Workload as Records;
use crate::measure::Problem;
use crate::queue::Broker;
use crate::queue::workload::Workload as Tasks;
use crate::raw;

/// Who speaks to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Library {
    /// The load generator's own code, which costs little.
    #[default]
    Own,
    /// librdkafka, for Kafka's protocol.
    Librdkafka,
    /// lapin, for AMQP 0-9-1.
    Lapin,
}

impl Library {
    /// Explains what this build or this protocol does not have.
    pub fn checked(self, wanted: Library) -> Result<Library, Problem> {
        let (name, built) = match self {
            Library::Own => return Ok(self),
            Library::Librdkafka => ("librdkafka", cfg!(feature = "librdkafka")),
            Library::Lapin => ("lapin", cfg!(feature = "lapin")),
        };
        if self != wanted {
            return Err(format!("--client: {name} does not speak this protocol").into());
        }
        if !built {
            return Err(format!(
                "--client: this build has no {name}: build it with --features millstream-bench/{name}"
            )
            .into());
        }
        Ok(self)
    }
}

/// The producers and consumers of a load on logs, by librdkafka.
pub fn log(broker: SocketAddr, workload: &Records, parts: &[Part]) -> Result<Vec<Worker>, Problem> {
    #[cfg(feature = "librdkafka")]
    return librdkafka::workers(broker, workload, parts);
    #[cfg(not(feature = "librdkafka"))]
    Err(format!("no librdkafka for {} partitions of {} at {broker}", parts.len(), workload.topic).into())
}

/// The publishers and consumers of a load on queues, by lapin.
pub fn queue(broker: &Broker, workload: &Tasks, queues: &[String]) -> Result<Vec<Worker>, Problem> {
    #[cfg(feature = "lapin")]
    return lapin::workers(broker, workload, queues);
    #[cfg(not(feature = "lapin"))]
    Err(format!(
        "no lapin for {} producers of {} queues at {}",
        workload.producers,
        queues.len(),
        broker.address
    )
    .into())
}

/// A producer or a consumer that is connected, on a thread of its own.
pub type Worker = Box<dyn FnOnce(Window) -> Result<Count, Problem> + Send>;

/// Runs the workers for a span, and says what they came to and what the server used.
pub fn drive(workers: Vec<Worker>, span: Span, server: &Processes) -> Result<Turn, Problem> {
    let barrier = Arc::new(Barrier::new(workers.len() + 1));
    let window: Arc<OnceLock<Window>> = Arc::default();
    let running = Arc::new(AtomicUsize::new(workers.len()));
    let threads: Vec<_> = workers
        .into_iter()
        .map(|worker| {
            let (barrier, window, running) =
                (Arc::clone(&barrier), Arc::clone(&window), Arc::clone(&running));
            thread::spawn(move || {
                barrier.wait();
                let count = worker(*window.get().expect("it is set before the wait"));
                running.fetch_sub(1, Ordering::Release);
                count
            })
        })
        .collect();
    let window = *window.get_or_init(|| Window::starting(span));
    barrier.wait();
    let used = watch(&running, server, &window);
    let mut count = Count::default();
    for thread in threads {
        count.add(&thread.join().map_err(|_| "a thread of the load panicked")??);
    }
    if raw::interrupted() {
        return Err("interrupted".into());
    }
    Ok(Turn::of(&window, &count, &used?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_or_speaks_something_else_is_explained() {
        assert!(Library::Own.checked(Library::Lapin).is_ok());
        let why = Library::Lapin.checked(Library::Librdkafka).unwrap_err().to_string();
        assert!(why.contains("lapin does not speak"), "{why}");
        let built = Library::Librdkafka.checked(Library::Librdkafka);
        assert_eq!(built.is_ok(), cfg!(feature = "librdkafka"));
        if let Err(why) = built {
            assert!(why.to_string().contains("--features millstream-bench/librdkafka"), "{why}");
        }
    }

    #[test]
    fn what_all_threads_count_is_added_up() {
        let worker = |sent: u64| -> Worker {
            Box::new(move |window| {
                let mut count = Count::default();
                count.acknowledged(&window, window.from_ns, sent, 1);
                Ok(count)
            })
        };
        let span = Span { warm_up: std::time::Duration::ZERO, measure: None };
        let turn = drive(vec![worker(3), worker(4)], span, &Processes::default()).unwrap();
        assert!(turn.get(crate::load::turn::SENT).is_some());
        assert_eq!(turn.latency_of(crate::load::turn::PRODUCE).unwrap().len(), 2);
        let broken: Worker = Box::new(|_| Err("it broke".into()));
        let why = drive(vec![worker(1), broken], span, &Processes::default()).err().unwrap().to_string();
        assert_eq!(why, "it broke");
    }
}
