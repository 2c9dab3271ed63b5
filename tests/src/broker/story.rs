//! A seed's story of the broker: clients of both protocols, or of one, at work on the same node; crashes, ends in good order,
//! other numbers of shards, a full disk, a journal that fails to flush, a clock that jumps; and a reading back of all that was
//! promised. Which of this happens is drawn anew for every seed: what is there on most days hides what only
//! shows when it is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream::amqp::kept::Kept;
use millstream::broker::Broker;
use millstream::config::{AmqpConfig, GroupConfig, ServerConfig};
use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::io::fault::{Faults, Injection, OpKind, Outcome};
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::time::{Nanos, WallMs};
use millstream_engine::types::ShardId;

use super::{ANSWERED_IN, End, Node, Side, Stage};
use crate::sim::canary::{Cage, Canary};
use crate::{amqp, kafka, seeds};

/// Partitions of a topic that is made because somebody has named it.
pub const PARTITIONS: u32 = 2;
const IDLE_MS: u64 = 20_000;
const REQUEST_BYTES: usize = 4 << 20;
/// Clients that have vanished are found out by their silence in that time.
const SILENCE_NOTICED_IN: Nanos = Nanos::from_millis(3 * IDLE_MS + 60_000);
/// Answers that clients have not taken, of a shard.
const ANSWER_BYTES: usize = 6 << 10;
/// Turns between two looks at what is held.
const LOOK_EVERY: u64 = 16;

/// What goes wrong in the course of the story.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Day {
    /// Nothing, but for crashes.
    Plain,
    /// A shard's journal fails to flush.
    Poison,
    /// The disk is full for a while.
    FullDisk,
}

/// A story to be run.
#[derive(Clone, Debug)]
pub struct Story {
    /// All chance comes from here.
    pub seed: u64,
    /// How often the broker starts.
    pub lives: u32,
    /// Turns of each life.
    pub steps: u64,
    /// What goes wrong.
    pub day: Day,
    /// Shards, at first.
    pub shards: u16,
    /// Whether it starts with other numbers of shards.
    pub reshards: bool,
    /// Whether lives may end in good order.
    pub stops: bool,
    /// Whether the clock is set forward and back.
    pub jumps: bool,
    /// What the machine does on this day.
    pub faults: Faults,
    /// Bytes of a segment.
    pub segment_bytes: u32,
    /// Bytes of what is arriving, over all connections of a shard.
    pub partial_bytes: usize,
    /// Kafka's clients.
    pub kafka: Option<kafka::side::Cast>,
    /// RabbitMQ's clients.
    pub amqp: Option<amqp::side::Cast>,
    /// A bug on purpose.
    pub canary: Canary,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcomes {
    /// Broken promises; none if all is well.
    pub violations: Vec<String>,
    /// What happened last, for whoever looks for the reason.
    pub trace: String,
    /// How much was done, by name.
    pub done: BTreeMap<&'static str, u64>,
    /// A digest of all that happened.
    pub digest: u32,
}

impl Story {
    /// A sound machine on a bad day, without clients.
    fn plain(seed: u64) -> Story {
        let mut random = Random::stream(seed, "broker story");
        let window_bytes = [4 << 10, 64 << 10, 256 << 10][random.below(3) as usize];
        Story {
            seed,
            lives: random.between(1, 3) as u32,
            steps: random.between(300, 1_500),
            day: Day::Plain,
            shards: random.between(1, 3) as u16,
            reshards: false,
            stops: false,
            jumps: false,
            faults: Faults { window_bytes, reset: 0.002, ..Faults::rough() },
            segment_bytes: [14_000, 200_000, 1 << 20][random.below(3) as usize],
            partial_bytes: 6 << 20,
            kafka: None,
            amqp: None,
            canary: Canary::None,
        }
    }

    /// Kafka's clients alone, who do all that they can.
    pub fn of_kafka(seed: u64) -> Story {
        let cast = kafka::side::Cast::whole(&mut Random::stream(seed, "kafka cast"));
        Story { kafka: Some(cast), ..Story::plain(seed) }
    }

    /// RabbitMQ's clients alone, who do all that they can.
    pub fn of_amqp(seed: u64) -> Story {
        let cast = amqp::side::Cast::whole(&mut Random::stream(seed, "amqp cast"));
        let plain = Story::plain(seed);
        let faults = Faults { reset: 0.0005, ..plain.faults.clone() };
        Story { amqp: Some(cast), faults, partial_bytes: 1 << 20, ..plain }
    }

    /// Both at once, with features and faults that are switched off at random.
    pub fn of(seed: u64) -> Story {
        let plain = Story::plain(seed);
        let mut random = Random::stream(seed, "swarm");
        let day = match random.below(8) {
            0 | 1 => Day::Poison,
            2 => Day::FullDisk,
            _ => Day::Plain,
        };
        let faults = Faults {
            reset: [0.0, 0.0005, 0.002][random.below(3) as usize],
            short_write: if random.chance(0.5) { 0.1 } else { 0.0 },
            slow: if random.chance(0.5) { 0.02 } else { 0.0 },
            split_receive: if random.chance(0.5) { 0.5 } else { 0.0 },
            partial_send: if random.chance(0.5) { 0.5 } else { 0.0 },
            ..plain.faults.clone()
        };
        Story {
            day,
            lives: random.between(1, 4) as u32,
            shards: random.between(1, 4) as u16,
            reshards: random.chance(0.4),
            stops: random.chance(0.5),
            jumps: random.chance(0.3),
            faults,
            kafka: Some(kafka::side::Cast::swarm(&mut Random::stream(seed, "kafka cast"))),
            amqp: Some(amqp::side::Cast::swarm(&mut Random::stream(seed, "amqp cast"))),
            ..plain
        }
    }

    fn config(&self, shards: u16) -> ServerConfig {
        ServerConfig {
            engine: Config {
                shards,
                journal_bytes: u64::from(shards) * (4 << 20),
                journal_file_bytes: 1 << 20,
                disk_free_min_bytes: 0,
                pinned_bytes: 2 << 20,
                partitions_default: PARTITIONS,
                topic: TopicConfig {
                    segment_bytes: self.segment_bytes,
                    retention_ms: -1,
                    ..TopicConfig::default()
                },
                ..Config::default()
            },
            groups: GroupConfig { offsets_partitions: 4, ..GroupConfig::default() },
            // Simulated clients come from all over the world.
            amqp: AmqpConfig { guest_is_local: false, ..AmqpConfig::default() },
            request_bytes_max: REQUEST_BYTES,
            partial_bytes_max: self.partial_bytes,
            // So few that answers are too many now and then.
            answer_bytes_max: ANSWER_BYTES,
            idle_ms_max: IDLE_MS,
            ..ServerConfig::default()
        }
    }

    /// Runs it.
    pub fn run(&self) -> Outcomes {
        let mut run = Run::new(self);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.lives())).err();
        run.violations.extend(panicked.map(|panic| format!("a panic: {}", seeds::message(&*panic))));
        let mut outcomes = Outcomes {
            violations: run.violations,
            trace: run.world.trace(),
            done: BTreeMap::new(),
            digest: run.world.digest(),
        };
        for side in &run.sides {
            outcomes.violations.extend_from_slice(side.violations());
            outcomes.done.extend(side.done());
        }
        outcomes
    }

    /// Runs it, for a test over many seeds; what was done is added to `totals`.
    pub fn verdict(&self, totals: &mut BTreeMap<&'static str, u64>) -> seeds::Verdict {
        let Outcomes { violations, trace, done, .. } = self.run();
        for (name, count) in &done {
            *totals.entry(name).or_default() += count;
        }
        let Story { day, shards, reshards, lives, .. } = self;
        let told = format!("{day:?}, {lives} lives, {shards} shards, other numbers: {reshards}; {done:?}");
        seeds::Verdict { told, violations, trace }
    }
}

struct Run<'a> {
    story: &'a Story,
    random: Random,
    world: World,
    config: Arc<ServerConfig>,
    sides: Vec<Box<dyn Side>>,
    violations: Vec<String>,
    /// What the machine does now.
    faults: Faults,
    /// When what goes wrong on this day has begun.
    trouble_at: Option<Nanos>,
}

impl<'a> Run<'a> {
    fn new(story: &'a Story) -> Run<'a> {
        let mut sides: Vec<Box<dyn Side>> = Vec::new();
        if let Some(cast) = &story.kafka {
            sides.push(Box::new(kafka::side::Kafka::new(story.seed, cast.clone())));
        }
        if let Some(cast) = &story.amqp {
            sides.push(Box::new(amqp::side::Amqp::new(story.seed, cast.clone())));
        }
        Run {
            story,
            random: Random::stream(story.seed, "broker run"),
            world: World::new(story.seed, story.faults.clone()),
            config: Arc::new(story.config(story.shards)),
            sides,
            violations: Vec::new(),
            faults: story.faults.clone(),
            trouble_at: None,
        }
    }

    fn set_faults(&mut self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults);
        self.world.set_faults(self.faults.clone());
    }

    fn is_broken(&self) -> bool {
        !self.violations.is_empty() || self.sides.iter().any(|side| !side.violations().is_empty())
    }

    /// The machine as it is when nothing special goes on: no connection is lost, and the disk is large.
    fn calm(&mut self) {
        self.trouble_at = None;
        let flush_lie = if self.story.canary == Canary::LyingFlush { 0.2 } else { 0.0 };
        let faults = Faults { reset: 0.0, flush_lie, ..self.story.faults.clone() };
        self.set_faults(|now| *now = faults);
        self.world.forget_injections();
    }

    fn lives(&mut self) {
        for life in 0..=self.story.lives {
            let last = life == self.story.lives;
            self.calm();
            if life > 0 && self.story.reshards {
                self.config = Arc::new(self.story.config(self.random.between(1, 4) as u16));
            }
            let seed = self.random.next();
            let cage = Cage::new(self.story.canary);
            let config = Arc::clone(&self.config);
            let app = |_| Broker::new(Arc::clone(&config));
            let mut node = match Node::start_with(&self.world, &config.engine, &cage, seed, app) {
                Ok(node) => node,
                Err(fatal) => return self.violations.push(format!("the broker does not start: {fatal}")),
            };
            let mut stage = Stage {
                addresses: node.listen_twice(),
                world: &self.world.clone(),
                node: &mut node,
                config: &config,
                trouble: false,
            };
            for side in &mut self.sides {
                side.begin(&mut stage, last);
            }
            if self.is_broken() || last {
                return;
            }
            self.live(&mut stage);
            if self.is_broken() {
                return;
            }
            self.end(node);
        }
    }

    fn live(&mut self, stage: &mut Stage<'_>) {
        let cut_off = self.random.chance(0.5);
        let trouble_at = self.random.below(2 * self.story.steps);
        let reset = self.story.faults.reset;
        self.set_faults(|now| now.reset = reset);
        for step in 0..self.story.steps {
            if step == trouble_at {
                self.go_wrong();
            }
            if self.story.jumps && self.random.chance(0.01) {
                self.jump();
            }
            stage.trouble = self.trouble_at.is_some();
            for side in &mut self.sides {
                side.turn(stage, true);
            }
            stage.node.step();
            if step % LOOK_EVERY == 0 {
                for side in &mut self.sides {
                    side.check_bounds(stage);
                }
            }
            if self.is_broken() {
                return;
            }
        }
        if !cut_off {
            self.rest(stage);
        }
    }

    /// What this day is about begins.
    fn go_wrong(&mut self) {
        self.trouble_at = (self.story.day != Day::Plain).then(|| self.world.now());
        match self.story.day {
            Day::Plain => {}
            Day::Poison => {
                let shard = self.random.below(self.config.engine.shards.into());
                let path = format!("-{shard}/journal");
                let skip = self.random.below(20);
                self.world.inject(Injection { op: OpKind::Append, path, skip, outcome: Outcome::FlushFails });
            }
            Day::FullDisk => {
                let used: u64 = (self.world.list_all().iter())
                    .filter_map(|path| self.world.read_file(path))
                    .map(|bytes| (bytes.len() as u64).next_multiple_of(4096))
                    .sum();
                let disk_bytes = used + self.random.below(600_000);
                self.set_faults(|now| now.disk_bytes = disk_bytes);
            }
        }
    }

    /// Somebody sets the clock.
    fn jump(&mut self) {
        let by_ms = self.random.below(7_200_000) as i64 - 3_600_000;
        let now_ms = 1_700_000_000_000 + (self.world.now().0 / 1_000_000) as i64;
        self.world.set_wall_ms(WallMs(now_ms + by_ms));
    }

    /// Nothing more is asked: everybody is answered, and what those held who have gone is given back.
    fn rest(&mut self, stage: &mut Stage<'_>) {
        // The disk has room again: publishers that were held back go on.
        let disk_bytes = self.story.faults.disk_bytes;
        self.set_faults(|now| (now.reset, now.disk_bytes) = (0.0, disk_bytes));
        self.pass(stage, ANSWERED_IN, true);
        let waits = self.sides.iter().filter_map(|side| side.waits());
        self.violations.extend(waits.map(|what| format!("not answered after half a minute: {what:?}")));
        if self.is_broken() {
            return;
        }
        for side in &mut self.sides {
            side.leave();
        }
        self.pass(stage, SILENCE_NOTICED_IN, false);
        for shard in 0..stage.node.shards() {
            let broker = stage.node.app(ShardId(shard));
            let (connections, pending, kept) = (broker.connections(), broker.pending(), broker.amqp_kept());
            let partial = broker.partial_bytes() + broker.answer_bytes();
            // The look for idle connections goes on, and that for idle groups; and dead letters wait for room on the disk.
            let pending = if stage.trouble { 0 } else { pending };
            if connections > 0 || pending > 2 || partial > 0 || kept != Kept::default() {
                self.violations.push(format!(
                    "nobody is there, and shard {shard} has {connections} connections, {pending} requests, {partial} bytes of \
                     others, and keeps {kept:?}"
                ));
            }
        }
        for side in &mut self.sides {
            side.gone(stage);
        }
    }

    /// Lets time pass without anything being asked, until nobody waits any more if that is `enough`.
    fn pass(&mut self, stage: &mut Stage<'_>, span: Nanos, enough: bool) {
        let end = self.world.now() + span;
        while self.world.now() < end && !self.is_broken() {
            if enough && self.sides.iter().all(|side| side.waits().is_none()) {
                return;
            }
            for side in &mut self.sides {
                side.turn(stage, false);
            }
            stage.node.step();
        }
    }

    fn end(&mut self, mut node: Node) {
        let end = if self.story.stops && self.random.chance(0.5) && self.trouble_at.is_none() {
            if let Err(fatal) = node.stop() {
                return self.violations.push(format!("the broker does not end in good order: {fatal}"));
            }
            End::Stopped
        } else {
            End::Crashed(match self.random.below(3) {
                0 => Crash::Kill,
                1 => Crash::Power(Survivors::None),
                _ => Crash::Power(Survivors::Some),
            })
        };
        drop(node);
        // After an end in good order the power may go as well: nothing is left to be lost.
        let crash = if let End::Crashed(crash) = end { crash } else { Crash::Power(Survivors::None) };
        self.world.crash(crash);
        let now = self.world.now();
        for side in &mut self.sides {
            side.ended(end, self.trouble_at, now);
        }
    }
}
