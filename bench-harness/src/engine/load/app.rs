//! The app that a shard runs: takes commands from the harness, runs loads, reports.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use millstream_engine::config::TopicConfig;
use millstream_engine::format::settings::to_pairs;
use millstream_engine::io::ConnId;
use millstream_engine::reactor::app::{App, AppEvent, AppToken, Outbox};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use super::append::AppendWork;
use super::heartbeat::Heartbeat;
use super::read::ReadWork;
use super::serve::{Serve, Serving};
use super::{Desk, Load, Report, Work};

/// How often an app without work looks for a command. While loads run it does not look at all.
const LOOK_EVERY: Nanos = Nanos::from_millis(2);

/// What the harness tells a shard. One at a time: the next is looked at when the last is answered.
#[derive(Debug)]
pub enum Command {
    /// Create a topic; to shard 0 only. Answered [`Answer::Changed`].
    Create(String, u32, TopicConfig),
    /// Delete a topic; to shard 0 only. Answered [`Answer::Changed`].
    Delete(String),
    /// Run loads at the same time. Answered [`Answer::Ran`] when all are over.
    Run(Vec<Load>),
    /// Send this to every connection from now on. Answered [`Answer::Serving`].
    Serve(Serve),
}

/// What a shard tells the harness.
#[derive(Debug)]
pub enum Answer {
    /// It serves: the first answer, unasked.
    Started,
    /// The topic is there, or gone as asked; or why not.
    Changed(Result<(), String>),
    /// What the loads came to, in the order given.
    Ran(Vec<Report>),
    /// Connections are served.
    Serving,
}

/// What a token is about, in its two highest bits.
const KIND_SHIFT: u32 = 62;
const CONTROL: u64 = 0;
const LOAD: u64 = 1;
const CONNECTION: u64 = 2;
/// Below the kind: the run that a load belongs to, so that its late timers are not taken for the next one's.
const RUN_SHIFT: u32 = 40;
const RUN_MASK: u64 = (1 << (KIND_SHIFT - RUN_SHIFT)) - 1;
/// Below the run: the load's number in it; below that, the load's own slot.
const LOAD_SHIFT: u32 = 32;
const LOAD_MASK: u64 = 0xff;

/// Runs loads inside a shard.
pub struct LoadApp {
    commands: Receiver<Command>,
    answers: Sender<(ShardId, Answer)>,
    run: u64,
    works: Vec<Box<dyn Work>>,
    serve: Option<Serve>,
    connections: BTreeMap<ConnId, Serving>,
}

impl LoadApp {
    /// An app that takes `commands` and gives `answers`.
    pub fn new(commands: Receiver<Command>, answers: Sender<(ShardId, Answer)>) -> LoadApp {
        LoadApp { commands, answers, run: 0, works: Vec::new(), serve: None, connections: BTreeMap::new() }
    }

    fn answer(&self, answer: Answer, out: &mut Outbox) {
        // A harness that has gone away needs no answer.
        let _ = self.answers.send((out.shard(), answer));
        let soon = out.now() + LOOK_EVERY;
        out.set_timer(AppToken(CONTROL << KIND_SHIFT), soon);
    }

    fn look(&mut self, out: &mut Outbox) {
        match self.commands.try_recv() {
            Ok(Command::Create(name, partitions, config)) => {
                let settings = to_pairs(&config);
                let request = Request::CreateTopic { name, partitions: Some(partitions), settings };
                out.engine(AppToken(CONTROL << KIND_SHIFT), ShardId(0), request, None);
            }
            Ok(Command::Delete(name)) => match out.metadata().topic(&name).map(|topic| topic.id) {
                Some(id) => {
                    out.engine(AppToken(CONTROL << KIND_SHIFT), ShardId(0), Request::DeleteTopic(id), None);
                }
                None => self.answer(Answer::Changed(Err("there is no such topic".to_owned())), out),
            },
            Ok(Command::Run(loads)) => self.start(loads, out),
            Ok(Command::Serve(serve)) => {
                self.serve = Some(serve);
                self.answer(Answer::Serving, out);
            }
            Err(TryRecvError::Empty) => {
                let soon = out.now() + LOOK_EVERY;
                out.set_timer(AppToken(CONTROL << KIND_SHIFT), soon);
            }
            Err(TryRecvError::Disconnected) => {}
        }
    }

    fn start(&mut self, loads: Vec<Load>, out: &mut Outbox) {
        assert!(loads.len() as u64 <= LOAD_MASK, "a run has a handful of loads");
        self.run = (self.run + 1) & RUN_MASK;
        self.works = loads.into_iter().map(work).collect();
        for number in 0..self.works.len() {
            self.step_load(number as u64, out, |work, desk| work.start(desk));
        }
        self.end_if_over(out);
    }

    fn step_load(&mut self, number: u64, out: &mut Outbox, step: impl FnOnce(&mut dyn Work, &mut Desk)) {
        let base = (LOAD << KIND_SHIFT) | (self.run << RUN_SHIFT) | (number << LOAD_SHIFT);
        if let Some(work) = self.works.get_mut(number as usize) {
            step(work.as_mut(), &mut Desk { out, base });
        }
    }

    fn end_if_over(&mut self, out: &mut Outbox) {
        if self.works.iter().all(|work| work.over()) {
            let reports = self.works.drain(..).map(|mut work| work.report()).collect();
            self.answer(Answer::Ran(reports), out);
        }
    }

    /// An event for a load of this run; one of an earlier run is forgotten.
    fn load_event(&mut self, token: u64, out: &mut Outbox, step: impl FnOnce(&mut dyn Work, u32, &mut Desk)) {
        if (token >> RUN_SHIFT) & RUN_MASK == self.run && !self.works.is_empty() {
            self.step_load((token >> LOAD_SHIFT) & LOAD_MASK, out, |work, desk| {
                step(work, token as u32, desk);
            });
            self.end_if_over(out);
        }
    }
}

fn work(load: Load) -> Box<dyn Work> {
    match load {
        Load::Append(load) => Box::new(AppendWork::new(load)),
        Load::Read(load) => Box::new(ReadWork::new(load)),
        Load::Heartbeat { every, span } => Box::new(Heartbeat::new(every, span)),
    }
}

impl App for LoadApp {
    fn step(&mut self, event: AppEvent, out: &mut Outbox) {
        match event {
            AppEvent::Started => self.answer(Answer::Started, out),
            AppEvent::Timer(AppToken(token)) if token >> KIND_SHIFT == CONTROL => self.look(out),
            AppEvent::Timer(AppToken(token)) => self.load_event(token, out, |work, _, desk| work.timer(desk)),
            AppEvent::Reply(AppToken(token), reply) => match token >> KIND_SHIFT {
                CONTROL => {
                    let changed = match reply {
                        Reply::TopicCreated(_) | Reply::Done => Ok(()),
                        Reply::Refused(refusal) => Err(refusal.to_string()),
                        other => Err(format!("a change of topics was answered by {other:?}")),
                    };
                    self.answer(Answer::Changed(changed), out);
                }
                CONNECTION => {
                    let conn = ConnId(token & !(CONNECTION << KIND_SHIFT));
                    if let Some(serving) = self.connections.get_mut(&conn) {
                        serving.reply(reply, out);
                    }
                }
                _ => self.load_event(token, out, |work, slot, desk| work.reply(slot, reply, desk)),
            },
            AppEvent::Accepted { conn, .. } => {
                let token = AppToken((CONNECTION << KIND_SHIFT) | conn.0);
                match self.serve.as_ref().and_then(|serve| Serving::start(serve, conn, token, out)) {
                    Some(serving) => drop(self.connections.insert(conn, serving)),
                    None => out.close(conn),
                }
            }
            AppEvent::SendDone(conn) => {
                if let Some(serving) = self.connections.get_mut(&conn) {
                    serving.sent(out);
                }
            }
            AppEvent::Closed(conn, _) => drop(self.connections.remove(&conn)),
            AppEvent::Received(..)
            | AppEvent::CaughtUp(_)
            | AppEvent::Slow(_)
            | AppEvent::Stuck(_)
            | AppEvent::LetGo
            | AppEvent::Offloaded(..)
            | AppEvent::Told { .. }
            | AppEvent::Called(_)
            | AppEvent::Delivered(_)
            | AppEvent::ConsumerCancelled { .. }
            | AppEvent::Flow(_)
            | AppEvent::DeadLettered(_)
            | AppEvent::QueueExpired(_)
            | AppEvent::MetadataChanged
            | AppEvent::Stopping => {}
        }
    }
}
