//! Many members join one group at the same time, as clients do: one connection each; the first join gets an id, the second
//! waits for the generation, and whoever leads it says what everybody is to do. A member that is told of the next
//! generation, by the answer to its sync or to a heartbeat, joins that.

use std::time::{Duration, Instant};

use super::client::Client;
use super::server::Server;
use super::wire::{self, error};
use crate::limits::pinned;
use crate::measure::{Case, Outcome, Problem, histogram};
use crate::raw::{Clock, CpuTimer, Readable};

/// How often a member that has its part says that it lives: the default of Kafka's consumer.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long one look for answers waits at most.
const LOOK_MS: i32 = 50;
/// When it counts as stuck.
const PATIENCE: Duration = Duration::from_mins(1);

/// The unit of the time until every member has its part.
pub const UNTIL_ALL: &str = "ms";

/// A group that is joined.
pub struct JoinCase<'a> {
    /// The broker.
    pub server: &'a Server,
    /// How many join.
    pub members: usize,
    /// Groups joined so far: every turn has a new one.
    pub groups: u32,
}

/// What a member waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaits {
    Join,
    Sync,
    Heartbeat,
    /// Nothing: it has its part since that moment.
    Nothing(Instant),
}

struct Member {
    client: Client,
    id: String,
    generation: i32,
    /// When it got its part in that generation.
    synced: Instant,
    awaits: Awaits,
}

impl Member {
    fn ask(&mut self, awaits: Awaits, request: &[u8]) -> Result<(), Problem> {
        self.awaits = awaits;
        self.client.send(request)
    }

    fn join(&mut self, group: &str) -> Result<(), Problem> {
        let request = wire::join(group, &self.id);
        self.ask(Awaits::Join, &request)
    }

    /// Takes the answer that has come, and does what follows.
    fn step(&mut self, group: &str) -> Result<(), Problem> {
        let mut answer = self.client.receive()?;
        match self.awaits {
            Awaits::Join => {
                let joined = wire::joined(&mut answer)?;
                match joined.error {
                    error::MEMBER_ID_REQUIRED => {
                        self.id = joined.member;
                        return self.join(group);
                    }
                    error::REBALANCE_IN_PROGRESS => return self.join(group),
                    error => wire::check(error)?,
                }
                (self.id, self.generation) = (joined.member, joined.generation);
                let parts = if joined.leader == self.id { &joined.members[..] } else { &[] };
                let request = wire::sync(group, self.generation, &self.id, parts);
                self.ask(Awaits::Sync, &request)
            }
            Awaits::Sync | Awaits::Heartbeat => {
                match wire::throttled_error(&mut answer)? {
                    error::REBALANCE_IN_PROGRESS => return self.join(group),
                    error => wire::check(error)?,
                }
                let now = Instant::now();
                if self.awaits == Awaits::Sync {
                    self.synced = now;
                }
                self.awaits = Awaits::Nothing(now);
                Ok(())
            }
            Awaits::Nothing(_) => Err("an answer came that nobody asked for".into()),
        }
    }

    fn beat_if_due(&mut self, group: &str, now: Instant) -> Result<(), Problem> {
        match self.awaits {
            Awaits::Nothing(since) if now.saturating_duration_since(since) >= HEARTBEAT => {
                let request = wire::heartbeat(group, self.generation, &self.id);
                self.ask(Awaits::Heartbeat, &request)
            }
            _ => Ok(()),
        }
    }
}

/// Whether everybody has its part in one generation, which is then the last.
fn complete(members: &[Member]) -> bool {
    let first = members.first().map(|member| member.generation);
    let settled =
        |member: &Member| Some(member.generation) == first && matches!(member.awaits, Awaits::Nothing(_));
    members.iter().all(settled)
}

/// Joins until everybody has its part.
fn join_all(members: &mut [Member], readable: &mut Readable, group: &str) -> Result<(), Problem> {
    for member in &mut *members {
        member.join(group)?;
    }
    let started = Instant::now();
    let mut looked = started;
    while !complete(members) {
        for number in readable.wait(LOOK_MS)? {
            members.get_mut(number).ok_or("no such member")?.step(group)?;
        }
        let now = Instant::now();
        if now - looked >= Duration::from_millis(LOOK_MS as u64) {
            looked = now;
            for member in &mut *members {
                member.beat_if_due(group, now)?;
            }
        }
        if now - started > PATIENCE {
            return Err("the members did not come together".into());
        }
    }
    Ok(())
}

impl Case for JoinCase<'_> {
    fn name(&self) -> String {
        format!("broker, {} members join a group, durable, until each has its part", self.members)
    }

    fn run(&mut self, _: Duration) -> Result<Outcome, Problem> {
        self.groups += 1;
        let (server, wanted, group) = (self.server, self.members, format!("joined-{}", self.groups));
        let client = move || -> Result<Outcome, Problem> {
            pinned(1)?;
            let mut readable = Readable::new()?;
            let mut members = Vec::new();
            for number in 0..wanted {
                let mut client = Client::connect(server.address)?;
                client.ask(&wire::find_coordinator(&group), wire::throttled_error)?;
                readable.add(client.stream(), number)?;
                let (id, now) = (String::new(), Instant::now());
                members.push(Member { client, id, generation: -1, synced: now, awaits: Awaits::Join });
            }
            let (cpu, own, started) = (server.cpu()?, CpuTimer::start(Clock::Thread), Instant::now());
            join_all(&mut members, &mut readable, &group)?;
            let (cpu, own) = (server.cpu()?.saturating_sub(cpu), own.elapsed());
            let mut latency = histogram();
            for member in &members {
                latency.saturating_record((member.synced - started).as_nanos() as u64);
            }
            let all = latency.max() as f64 / 1e6;
            let generations = members.first().map_or(0, |member| member.generation);
            Ok(Outcome::default()
                .with_latency(latency)
                .with(UNTIL_ALL, all)
                .with("generations", f64::from(generations))
                .with("CPU ms", cpu.as_secs_f64() * 1e3)
                .with("CPU ms, client", own.as_secs_f64() * 1e3))
        };
        std::thread::scope(|scope| scope.spawn(client).join()).map_err(|_| "the client panicked")?
    }
}
