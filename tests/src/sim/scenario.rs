//! A seed's story: what node it is, what is asked of it, what goes wrong, and how each of its lives ends.

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::error::{Fatal, IoError};
use millstream_engine::io::fault::{Faults, Injection, OpKind, Outcome};
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::time::{Nanos, WallMs};
use millstream_engine::types::{LeaderEpoch, Offset, ShardId};

use super::audit::{Cut, audit};
use super::between::Between;
use super::canary::{Cage, Canary};
use super::node::SimNode;
use super::workload::{Demand, Workload};
use crate::seeds;

/// What a seed's story is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Theme {
    /// A sound machine on a bad day.
    Plain,
    /// Many batches that are larger than a group.
    Large,
    /// The disk is full, and has space again.
    FullDisk,
    /// A journal's flush fails.
    Poison,
    /// Writes and flushes of segments fail now and then.
    BadSegments,
    /// Reads fail now and then.
    BadReads,
}

/// Steps in which what goes on in the background comes to a pause.
const BACKGROUND_STEPS_MAX: u32 = 20_000;

/// Every theme.
pub const THEMES: [Theme; 6] =
    [Theme::Plain, Theme::Large, Theme::FullDisk, Theme::Poison, Theme::BadSegments, Theme::BadReads];

/// A story to be run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// All chance comes from here.
    pub seed: u64,
    /// What goes wrong.
    pub theme: Theme,
    /// How often the node starts.
    pub lives: u32,
    /// Turns of each life.
    pub steps: u64,
    /// The bug that is planted.
    pub canary: Canary,
    /// Whether power is lost at the end of each life; by chance if not said.
    pub power: Option<bool>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcomes {
    /// Broken promises; none if all is well.
    pub violations: Vec<String>,
    /// What happened last, for whoever looks for the reason.
    pub trace: String,
    /// Appends that were acknowledged.
    pub acked: u64,
    /// Refusals, by what they say.
    pub refused: Vec<(String, u64)>,
    /// How often it was moved to other shards, stopped in good order, and had a stored bit flipped.
    pub between: [u32; 3],
    /// A digest of all that happened.
    pub digest: u32,
}

impl Scenario {
    /// The story of a seed.
    pub fn of(seed: u64) -> Scenario {
        let mut random = Random::stream(seed, "scenario");
        let theme = THEMES[(seed % THEMES.len() as u64) as usize];
        let lives = random.between(2, 5) as u32;
        let steps = random.between(200, 1_500);
        Scenario { seed, theme, lives, steps, canary: Canary::None, power: None }
    }

    /// Runs it.
    pub fn run(&self) -> Outcomes {
        let mut run = Run::new(self);
        // An assertion of the engine that fails is a finding like any other, and must name its seed.
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.lives())).err();
        let Run { workload, world, between, .. } = run;
        let mut violations = workload.model.violations;
        violations.extend(panicked.map(|panic| format!("a panic: {}", seeds::message(&*panic))));
        Outcomes {
            violations,
            trace: world.trace(),
            acked: workload.acked,
            refused: workload.refused.into_iter().collect(),
            between: between.happened,
            digest: world.digest(),
        }
    }
}

struct Run<'a> {
    scenario: &'a Scenario,
    random: Random,
    world: World,
    config: Config,
    faults: Faults,
    workload: Workload,
    cage: Cage,
    between: Between,
    /// The boot epoch of the last life, and whether that ended in good order; nobody knows if it died in its last step.
    last: Option<(LeaderEpoch, Option<bool>)>,
    /// Starts that a fault left over from the life before may cost.
    excused: u32,
    /// How far the wall clock was set forward, in ms.
    jumped_ms: i64,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario) -> Run<'a> {
        let mut random = Random::stream(scenario.seed, "run");
        let theme = scenario.theme;
        let mut faults = if random.chance(0.5) { Faults::rough() } else { Faults::default() };
        faults.slow_factor = 20;
        if scenario.canary == Canary::LyingFlush {
            faults.flush_lie = 0.2;
        }
        let mut config = config(&mut random);
        config.metadata_log_bytes = match theme {
            // Room for all deletions while the disk is full.
            Theme::FullDisk => 256 << 10,
            _ => (16 << 10) << (scenario.seed % 3),
        };
        config.scrub_interval_ms = [5_000, 20_000, 0][(scenario.seed / THEMES.len() as u64 % 3) as usize];
        let demand = Demand {
            under_way: random.between(2, 24) as usize,
            topics: topics(&mut random),
            topics_max: random.between(1, 4) as usize,
            medium_percent: 10,
            large_percent: if theme == Theme::Large { 10 } else { random.below(2) },
            full_disk: theme == Theme::FullDisk,
            poison: matches!(theme, Theme::Poison | Theme::BadSegments) || scenario.canary != Canary::None,
            bad_reads: theme == Theme::BadReads,
            deletes: random.chance(0.5) || scenario.canary == Canary::DeletionReplayed,
            trims: random.chance(0.5),
            changes: true,
        };
        Run {
            scenario,
            world: World::new(scenario.seed, faults.clone()),
            config,
            faults,
            workload: Workload::new(scenario.seed, demand),
            cage: Cage::new(scenario.canary),
            between: Between::of(scenario.seed, scenario.canary),
            last: None,
            excused: if matches!(theme, Theme::Poison | Theme::BadSegments) { 10 } else { 0 },
            random,
            jumped_ms: 0,
        }
    }

    fn is_broken(&self) -> bool {
        !self.workload.model.violations.is_empty()
    }

    fn lives(&mut self) {
        for life in 0..=self.scenario.lives {
            let last = life == self.scenario.lives;
            let Some(mut node) = self.start(life > 0 && !last) else { return };
            self.between.rot(&self.world, &node, &mut self.workload.model);
            self.workload.restarted(&node);
            match audit(&mut node, &mut self.workload.model) {
                Err(Cut::Violated) => return,
                Err(Cut::Halted) => unreachable!("nobody stops the machine during an audit"),
                Ok(()) => {}
            }
            if self.is_broken() || last {
                return self.end(node);
            }
            self.live(&mut node);
            if self.is_broken() {
                return;
            }
            self.stop_or_die(&mut node);
            if self.is_broken() {
                return;
            }
            drop(node);
        }
    }

    /// Starts the node; now and then it dies while it recovers, and starts again.
    fn start(&mut self, may_die: bool) -> Option<SimNode> {
        self.world.set_faults(self.faults.clone());
        let mut deaths = if may_die { self.random.below(4) } else { 0 };
        let dies = deaths > 0;
        loop {
            self.config.shards = self.between.shards(self.config.shards);
            if deaths > 0 {
                self.world.halt_after(self.world.disk_ops() + 1 + self.random.below(30));
            }
            let seed = self.random.next();
            match SimNode::start(&self.world, &self.config, &self.cage, seed) {
                _ if self.world.halted() => {}
                Ok(node) => {
                    if deaths > 0 {
                        // It got through; it dies a little later, then.
                        self.world.halt();
                        deaths = 1;
                    } else {
                        self.check_epoch(&node, dies);
                        return Some(node);
                    }
                }
                // Moving to other shards drains, and meets what the last life was spared.
                Err(Fatal::Io { .. } | Fatal::Refused(_)) if self.excused > 0 => {
                    self.excused -= 1;
                    deaths += 1;
                }
                Err(fatal) => {
                    self.workload.model.violated(format!("the node does not start: {fatal}"));
                    return None;
                }
            }
            deaths -= 1;
            self.die();
            self.last = None;
        }
    }

    /// The leader epoch rises with every start after an end that was not in good order, and only then.
    fn check_epoch(&mut self, node: &SimNode, died: bool) {
        let epoch = node.metadata(ShardId(0)).leader_epoch;
        if let Some((before, clean)) = self.last.take() {
            let right = match clean {
                Some(true) if !died => epoch == before,
                Some(false) => epoch > before,
                _ => epoch >= before,
            };
            if !right {
                self.workload
                    .model
                    .violated(format!("epoch {epoch:?} comes after {before:?}, clean: {clean:?}"));
            }
        }
    }

    /// The life ends: in good order if it is to, and can.
    fn stop_or_die(&mut self, node: &mut SimNode) {
        let epoch = node.metadata(ShardId(0)).leader_epoch;
        if self.world.halted() || !self.between.stops_now() {
            self.last = Some((epoch, Some(false)));
            return self.die();
        }
        self.world.set_faults(self.faults.clone());
        let stopped = node.stop();
        self.workload.absorb(node);
        let failing = self.scenario.theme == Theme::Poison || self.scenario.theme == Theme::BadSegments;
        match stopped {
            Ok(()) => {
                self.last = Some((epoch, Some(true)));
                self.workload.stopped();
                let crash = self.random_crash();
                self.world.crash(crash);
            }
            Err(_) if self.world.halted() => {
                self.last = Some((epoch, None));
                self.die();
            }
            Err(_) if failing => {
                self.last = Some((epoch, None));
                self.die();
            }
            Err(fatal) => self.workload.model.violated(format!("the node does not stop: {fatal}")),
        }
    }

    fn die(&mut self) {
        let crash = self.random_crash();
        self.world.crash(crash);
        self.workload.crashed(crash);
        if self.scenario.canary == Canary::JournalRots {
            self.rot();
        }
    }

    fn random_crash(&mut self) -> Crash {
        let power = self.scenario.power.unwrap_or_else(|| self.random.chance(0.6));
        match self.random.below(4) {
            _ if !power => Crash::Kill,
            0 => Crash::Power(Survivors::None),
            1 => Crash::Power(Survivors::All),
            _ => Crash::Power(Survivors::Some),
        }
    }

    /// Flips a bit of what a journal holds.
    fn rot(&mut self) {
        let files = self.world.list_all();
        for path in files.iter().filter(|path| path.ends_with(".journal")) {
            let Some(bytes) = self.world.read_file(path) else { continue };
            let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { continue };
            let position = self.random.below(last as u64 + 1);
            self.world.rot(path, position, self.random.below(8) as u8);
        }
    }

    fn wall(&self) -> WallMs {
        WallMs(1_700_000_000_000 + (self.world.now().0 / 1_000_000) as i64 + self.jumped_ms)
    }

    /// A life: things are asked and go wrong, until it is cut off, or ends in peace.
    fn live(&mut self, node: &mut SimNode) {
        let cut_off = self.random.chance(0.6);
        if cut_off && self.random.chance(0.5) {
            self.world.halt_after(self.world.disk_ops() + 1 + self.random.below(self.scenario.steps));
        }
        self.go_wrong();
        for step in 0..self.scenario.steps {
            self.workload.ask(node, self.wall());
            let goes_on = node.step();
            self.workload.absorb(node);
            if !goes_on || self.is_broken() {
                return;
            }
            if self.random.chance(0.003) {
                self.jump();
            }
            if step == self.scenario.steps / 2 && self.scenario.theme == Theme::FullDisk {
                self.world.set_faults(self.faults.clone());
            }
        }
        if !cut_off {
            self.rest(node);
        }
    }

    /// Time passes, or the wall clock is set.
    fn jump(&mut self) {
        if self.random.chance(0.5) {
            self.world.advance_to(self.world.now() + Nanos::from_millis(self.random.below(5_000)));
        } else {
            self.jumped_ms += self.random.below(40_000) as i64;
            self.world.set_wall_ms(self.wall());
        }
    }

    fn go_wrong(&mut self) {
        let skip = self.random.below(60);
        let inject = |op, path: &str, outcome| {
            self.world.inject(Injection { op, path: path.to_owned(), skip, outcome });
        };
        match self.scenario.theme {
            Theme::Plain | Theme::Large => {}
            Theme::FullDisk => {
                let used: u64 = self
                    .world
                    .list_all()
                    .iter()
                    .filter_map(|path| self.world.read_file(path))
                    .map(|bytes| (bytes.len() as u64).next_multiple_of(4096))
                    .sum();
                let disk_bytes = used + self.random.below(600_000);
                self.world.set_faults(Faults { disk_bytes, ..self.faults.clone() });
            }
            Theme::Poison => {
                let outcome = if self.random.chance(0.5) {
                    Outcome::FlushFails
                } else {
                    Outcome::FailsAfter { bytes: 4096, error: IoError::Os(5) }
                };
                inject(OpKind::Append, "journal", outcome);
            }
            Theme::BadSegments => {
                inject(OpKind::Flush, "logs/", Outcome::FlushFails);
                inject(OpKind::Write, "logs/", Outcome::FailsAfter { bytes: 4096, error: IoError::Os(5) });
                inject(OpKind::SyncDir, "logs/", Outcome::Fails(IoError::Os(5)));
                inject(OpKind::Flush, "checkpoint", Outcome::FlushFails);
                inject(OpKind::Rename, "checkpoint", Outcome::Fails(IoError::Os(5)));
            }
            Theme::BadReads => self.world.set_faults(Faults { read_error: 0.02, ..self.faults.clone() }),
        }
    }

    /// Nothing more is asked: everything is answered in a bounded time, nobody is forgotten, and memory goes home.
    fn rest(&mut self, node: &mut SimNode) {
        self.world.set_faults(self.faults.clone());
        for wire in &node.wires {
            wire.borrow_mut().idle = true;
        }
        let end = self.world.now() + Nanos::from_millis(30_000);
        while self.world.now() < end {
            let goes_on = node.step();
            self.workload.absorb(node);
            if !goes_on {
                return;
            }
        }
        if self.workload.under_way() > 0 {
            let waiting = self.workload.waiting();
            self.workload.model.violated(format!("not answered after half a minute: {waiting}"));
            for shard in 0..node.shards() {
                let shard = node.shard(ShardId(shard));
                let (files, journal) = (shard.journal().files(), shard.journal());
                let state = format!(
                    "shard {:?}: {} of {} files free, {:?} durable of {:?}, in flight {}, {:?}",
                    shard.id(),
                    files.free(),
                    files.total(),
                    journal.durable_lsn(),
                    journal.last_lsn(),
                    journal.is_in_flight(),
                    shard.memory()
                );
                self.workload.model.violated(state);
            }
            return;
        }
        if matches!(audit(node, &mut self.workload.model), Err(Cut::Halted)) {
            return;
        }
        for _ in 0..50 {
            node.step();
        }
        // The scrub pauses when it has read enough for the second, and a round of trimming comes to its end.
        let works = |node: &SimNode, shard| {
            let memory = node.shard(ShardId(shard)).memory();
            memory["read"] + memory["staging"] > 0
        };
        for _ in 0..BACKGROUND_STEPS_MAX {
            if (0..node.shards()).any(|shard| works(node, shard)) {
                node.step();
            }
        }
        self.workload.absorb(node);
        self.workload.miss_wakeups();
        for shard in 0..node.shards() {
            let memory = node.shard(ShardId(shard)).memory();
            for kind in ["read", "staging", "backlog"] {
                if memory.get(kind).is_some_and(|bytes| *bytes > 0) && !self.workload.any_poisoned() {
                    self.workload.model.violated(format!("shard {shard} is idle and holds {memory:?}"));
                }
            }
        }
        self.check_scrub(node);
        // A shard begins a round for the sake of deletions after so many checks of retention.
        let forgets_in_time =
            self.config.retention_check_ms < 2_000 && self.scenario.theme != Theme::BadSegments;
        let remembered = node.metadata(ShardId(0)).deleted.len();
        let poisoned = (0..node.shards()).any(|shard| node.shard(ShardId(shard)).is_poisoned());
        if remembered > 0 && forgets_in_time && !poisoned {
            self.workload.model.violated(format!("{remembered} deletions are remembered for good"));
        }
        for wire in &node.wires {
            wire.borrow_mut().idle = false;
        }
    }

    /// While nothing was asked, the scrub has been through everything: it has found what has rotted, and nothing else.
    fn check_scrub(&mut self, node: &mut SimNode) {
        if self.config.scrub_interval_ms == 0 || self.scenario.canary != Canary::None {
            return;
        }
        for shard in (0..node.shards()).map(ShardId) {
            let metrics = node.metrics(shard);
            let [damaged, unreadable] =
                [0, 1].map(|kind| metrics.get(|shard| shard.scrub_findings.at(kind).get()));
            if metrics.get(|shard| shard.scrub_passes.get()) == 0 {
                self.workload.model.violated(format!("the scrub of {shard:?} does not come to its end"));
            }
            if damaged > 0 && self.between.happened[2] == 0
                || unreadable > 0 && self.scenario.theme != Theme::BadReads
            {
                self.workload.model.violated(format!(
                    "the scrub of {shard:?} finds {damaged} files damaged and {unreadable} unreadable"
                ));
            }
            let rotten = node.shard(shard).logs().iter().find_map(|(_, log)| {
                let known = self.workload.model.partitions.get(&log.id)?;
                known.rotten.iter().find(|rotten| log.segment(Offset(rotten.from)).is_some())
            });
            if let Some(rotten) = rotten
                && damaged == 0
            {
                self.workload.model.violated(format!("the scrub of {shard:?} does not find {rotten:?}"));
            }
        }
    }

    /// The last life: the node works on.
    fn end(&mut self, mut node: SimNode) {
        if self.is_broken() {
            return;
        }
        for _ in 0..200 {
            self.workload.ask(&node, self.wall());
            node.step();
            self.workload.absorb(&node);
        }
        self.rest(&mut node);
    }
}

fn config(random: &mut Random) -> Config {
    let shards = random.between(1, 4);
    let file = 1 << 20;
    Config {
        shards: shards as u16,
        journal_bytes: shards * file * random.between(3, 8),
        journal_file_bytes: file,
        disk_free_min_bytes: if random.chance(0.5) { 0 } else { 100_000 },
        pinned_bytes: 1 << 20,
        retention_check_ms: random.between(500, 3_000),
        delete_delay_ms: random.between(0, 3_000),
        ..Config::default()
    }
}

/// Settings that make everything happen often.
fn topics(random: &mut Random) -> Vec<TopicConfig> {
    let count = random.between(1, 3);
    (0..count)
        .map(|_| TopicConfig {
            segment_bytes: [14_000, 64 << 10, 1 << 20, 1 << 30][random.below(4) as usize],
            segment_ms: [3_000, 600_000, 1 << 40][random.below(3) as usize],
            retention_ms: [-1, -1, 20_000][random.below(3) as usize],
            retention_bytes: [-1, -1, 200_000][random.below(3) as usize],
            max_message_bytes: 8 << 20,
            index_interval_bytes: [0, 4096][random.below(2) as usize],
            log_append_time: random.chance(0.2),
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
            deletes: true,
            compacts: false,
            durability_min: millstream_engine::types::Durability::Memory,
        })
        .collect()
}
