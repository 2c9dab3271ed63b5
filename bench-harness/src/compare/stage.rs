//! The peers on the stage: started, loaded one at a time while the others stand still, and started anew when they die.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::journal::{Entry, Journal, Limits, PeerFacts};
use super::plan::{Line, Load};
use crate::libraries::Library;
use crate::limits::disk::Append;
use crate::limits::net::RoundTrip;
use crate::limits::probe;
use crate::load::Span;
use crate::load::turn::Turn;
use crate::log::{self, Target};
use crate::measure::{Case, Of, Problem};
use crate::peers::{Kind, Peer, Protocol, Setup};
use crate::queue::workload::Workload as Queues;
use crate::queue::{self, Broker};
use crate::raw;
use crate::streams::{self, Job};

/// How long a peer comes to rest before its memory without load is looked at, or after it stood still.
const REST: Duration = Duration::from_secs(2);
const RESUME: Duration = Duration::from_millis(200);
/// How long a peer gets to remove the files of a deleted topic.
const DELETED: Duration = Duration::from_millis(600);
/// How long a peer is loaded by a protocol before the first turn that counts: compilers get warm, journals as large as they
/// get, and memory is touched.
const SETTLE: Span = Span { warm_up: Duration::ZERO, measure: Some(Duration::from_secs(3)) };
/// What a turn takes beside what is measured, about; what a peer takes to start; and to settle for a protocol.
pub const TURN_SECONDS: f64 = 1.0;
pub const START_SECONDS: f64 = 7.0;
pub const SETTLE_SECONDS: f64 = 4.0;
/// How long each of the machine's own limits is measured, and how much of the disk that takes.
const LIMITS: Duration = Duration::from_secs(1);
const LIMITS_BYTES: u64 = 256 << 20;

/// What nothing on this machine can undercut.
pub fn limits(dir: &Path) -> Result<Limits, Problem> {
    let direct = probe(dir, LIMITS_BYTES, &mut Vec::new())?;
    let median = |case: &mut dyn Case| -> Result<f64, Problem> {
        let p50 = case.run(LIMITS)?.get(Of::Percentile(50.0));
        Ok(p50.ok_or("a limit without latencies")?)
    };
    Ok(Limits {
        round_trip_us: median(&mut RoundTrip)?,
        durable_write_us: median(&mut Append::of(4 << 10, dir, direct))?,
    })
}

/// The peers that serve, and how they are loaded.
pub struct Stage {
    /// How they are started.
    setup: Setup,
    peers: BTreeMap<Kind, Peer>,
    /// Who has been loaded by which protocol.
    settled: BTreeSet<(Kind, Protocol)>,
    cpus: Vec<usize>,
    span: Span,
}

impl Stage {
    /// An empty one.
    pub fn new(setup: Setup, cpus: Vec<usize>, span: Span) -> Stage {
        Stage { setup, peers: BTreeMap::new(), settled: BTreeSet::new(), cpus, span }
    }

    /// Whether a peer serves.
    pub fn has(&self, kind: Kind) -> bool {
        self.peers.contains_key(&kind)
    }

    /// Starts a peer and has it stand still; one that does not start is noted.
    pub fn start(&mut self, kind: Kind, journal: &mut Journal) -> Result<(), Problem> {
        let peer = match Peer::start(kind, &self.setup) {
            Ok(peer) => peer,
            Err(_) if raw::interrupted() => return Ok(()),
            Err(problem) => {
                eprintln!("{problem}");
                return journal.add(Entry::Failed { line: None, peer: kind, why: problem.to_string() });
            }
        };
        sleep(REST);
        journal.add(Entry::Peer(PeerFacts {
            peer: kind,
            version: peer.version.clone(),
            settings: peer.settings.clone(),
            idle_rss_mib: peer.processes().rss_kib().map(|kib| kib / 1024.0),
        }))?;
        peer.pause();
        self.peers.insert(kind, peer);
        Ok(())
    }

    /// Starts a peer anew, which may have died.
    pub fn start_again(&mut self, kind: Kind, journal: &mut Journal) -> Result<(), Problem> {
        self.peers.remove(&kind);
        self.settled.retain(|(settled, _)| *settled != kind);
        self.start(kind, journal)
    }

    /// Loads a peer once, while the others stand still.
    pub fn turn(&mut self, line: &Line, kind: Kind) -> Result<Turn, Problem> {
        let peer = self.peers.get_mut(&kind).ok_or("it does not run")?;
        let quorum_queue = kind == Kind::RabbitMqQuorum;
        if self.settled.insert((kind, line.load.protocol())) {
            give(peer, &line.load, quorum_queue, &self.cpus, SETTLE)?;
        }
        give(peer, &line.load, quorum_queue, &self.cpus, self.span)
    }
}

impl Drop for Stage {
    /// They take seconds to end, and do so at the same time.
    fn drop(&mut self) {
        self.peers.values_mut().for_each(Peer::ask_to_end);
    }
}

/// Gives a load to a peer that stands still, and has it stand still again.
pub fn give(
    peer: &mut Peer,
    load: &Load,
    quorum_queue: bool,
    cpus: &[usize],
    span: Span,
) -> Result<Turn, Problem> {
    raw::sync();
    peer.resume();
    sleep(RESUME);
    let (address, amqp, processes) = (peer.address, peer.amqp(), peer.processes());
    let turn = match (load, peer.dialect) {
        (Load::Log(workload), None) => {
            let library = Library::Own;
            let target =
                Target { address, processes: &processes, cpus, settings: &[], records: None, library };
            log::load(&target, &workload.clone().checked()?, span)
        }
        (Load::Queue(workload), None) => {
            let workload = Queues { quorum_queue, ..workload.clone().checked()? };
            queue::load(&Broker::at(amqp), &processes, cpus, &workload, span, Library::Own)
        }
        (load, Some(dialect)) => {
            let job = match load {
                Load::Log(workload) => Job::records(workload),
                Load::Queue(workload) => Job::tasks(workload),
            };
            streams::load(dialect, address, &processes, cpus, &job, span)
        }
    };
    let ended = peer.ended();
    if matches!(load, Load::Log(_)) && !load.is_paced() {
        // What was written is deleted now, and not while the peer is measured the next time.
        sleep(DELETED);
    }
    peer.pause();
    turn.map_err(|problem| match ended {
        Some(why) => format!("{problem}; {why}").into(),
        None => problem,
    })
}
