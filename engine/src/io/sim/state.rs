//! What a world consists of, and how one thing after the other happens in it.

use std::collections::BTreeMap;
use std::fmt;

use super::clock::{Agenda, Clock, Due};
use super::disk::Disk;
use super::network::Network;
use super::operation::{OpenFile, Operation, Step};
use super::port::PortRef;
use super::trace::Trace;
use crate::error::IoError;
use crate::io::fault::{Faults, Injection, Span};
use crate::io::random::Random;
use crate::io::{Event, FileId};
use crate::time::Nanos;
use crate::types::ShardId;

/// A world's inside.
pub(super) struct State {
    pub(super) seed: u64,
    /// Counts the lives of the machine.
    pub(super) life: u64,
    pub(super) faults: Faults,
    pub(super) clock: Clock,
    /// Whether only whoever drives the world lets time pass, not a waiting poll.
    pub(super) time_is_held: bool,
    pub(super) agenda: Agenda,
    pub(super) ports: BTreeMap<ShardId, PortRef>,
    pub(super) trace: Trace,

    pub(super) disk: Disk,
    pub(super) files: BTreeMap<FileId, OpenFile>,
    pub(super) operations: BTreeMap<u64, (Operation, Step)>,
    pub(super) next_file: u32,
    pub(super) next_operation: u64,
    pub(super) injections: Vec<Injection>,
    pub(super) disk_random: Random,

    /// Crash points passed.
    pub(super) points: u64,
    pub(super) halt_at: Option<u64>,
    /// The machine stands still: the crash is yet to be settled.
    pub(super) halted: bool,
    pub(super) crash_random: Random,

    pub(super) network: Network,
}

impl State {
    pub(super) fn new(seed: u64, mut disk: Disk, faults: Faults) -> State {
        disk.set_capacity(faults.disk_bytes);
        State {
            seed,
            life: 0,
            faults,
            clock: Clock::new(seed),
            time_is_held: false,
            agenda: Agenda::default(),
            ports: BTreeMap::new(),
            trace: Trace::default(),
            disk,
            files: BTreeMap::new(),
            operations: BTreeMap::new(),
            next_file: 0,
            next_operation: 0,
            injections: Vec::new(),
            disk_random: Random::stream(seed, "disk"),
            points: 0,
            halt_at: None,
            halted: false,
            crash_random: Random::stream(seed, "crash"),
            network: Network::new(seed),
        }
    }

    pub(super) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.note(self.clock.now(), what);
    }

    /// Puts something on the agenda, `span` after now.
    pub(super) fn later(&mut self, span: Nanos, due: Due) {
        self.agenda.add(self.clock.now() + span, due);
    }

    /// Lets everything happen that is due by now.
    pub(super) fn run_due(&mut self) {
        while let Some(due) = self.agenda.take(self.clock.now()) {
            match due {
                Due::Operation(id) => self.operate(id),
                Due::Accept(conn) => self.accept(conn),
                Due::Deliver(conn) => self.deliver(conn),
                Due::Take(conn) => self.take_from_send(conn),
                Due::Arrive(conn) => self.arrive(conn),
                Due::Close(conn, reason) => self.close_connection(conn, reason),
                Due::Offloaded(port, token, result) => {
                    port.borrow_mut().ready.push_back(Event::Offloaded(token, result));
                }
            }
        }
    }

    /// When something happens next by itself: an entry of the agenda, or the end of a shard's wait.
    pub(super) fn next_event_at(&self) -> Option<Nanos> {
        let waits = self.ports.values().filter_map(|port| port.borrow().deadline);
        waits.chain(self.agenda.next_at()).min()
    }

    /// Counts a crash point, and crashes if it is the one.
    pub(super) fn pass_point(&mut self) {
        self.points += 1;
        if self.halt_at == Some(self.points) {
            self.halt();
        }
    }

    /// This life of the machine is over: nothing that it does has an effect any more. What of the disk survives is
    /// decided later.
    pub(super) fn halt(&mut self) {
        if self.halted {
            return;
        }
        let points = self.points;
        self.note(format_args!("halt after {points} crash points"));
        self.halted = true;
        self.halt_at = None;
        for (operation, _) in std::mem::take(&mut self.operations).into_values() {
            operation.answer(Err(IoError::Halted));
        }
        self.files.clear();
        self.end_network();
        for port in std::mem::take(&mut self.ports).into_values() {
            port.borrow_mut().dead = true;
        }
    }

    /// The machine is to start again, on what is left of the disk.
    pub(super) fn revive(&mut self) {
        self.halted = false;
        self.life += 1;
    }
}

/// Draws a time.
pub(super) fn draw(span: Span, random: &mut Random) -> Nanos {
    Nanos(random.between(span.least.0, span.most.0))
}
