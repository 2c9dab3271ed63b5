//! A seed's story of queues on several shards: publishers, workers, dead letters that go round in a circle, queues that are
//! deleted, made anew and purged, through lives that end in crashes; on some days a shard is poisoned, or a disk does not read.
//!
//! What is promised, and checked on what the hosts of the shards see:
//! - What all of a message's queues have taken is in each of them, or where its dead letters go, until it is settled.
//! - What was settled for good, and what was purged, does not come back; nothing is doubled on its way.
//! - Order holds, and what may have been delivered in an earlier life says so.
//! - Everything that is asked is answered, whatever has become of a shard, and nothing grows meanwhile.
//! - A message is missing only if it was counted as lost.

mod host;
mod model;

use std::cell::RefCell;
use std::rc::Rc;

use millstream_engine::config::Config;
use millstream_engine::error::Fatal;
use millstream_engine::io::fault::{Faults, Injection, OpKind, Outcome};
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::limits::LEAVING_TOLD_MAX;
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use crate::seeds;
use crate::sim::canary::{Cage, Canary};
use crate::sim::node::SimNode;
use host::Host;
use model::Model;

/// When nothing has been delivered for so long, nothing is left.
const QUIET: Nanos = Nanos::from_millis(4_000);
/// Everything is answered in that time, when nobody asks for more.
const ANSWERED_IN: Nanos = Nanos::from_millis(20_000);

/// What kind of day it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Theme {
    /// Nothing special happens.
    Plain,
    /// A shard's journal fails to flush.
    Poison,
    /// Reads fail now and then.
    BadReads,
    /// A bit rots of what is read back.
    Rot,
}

/// A bug of the hosts, on purpose: the checks must notice it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// None.
    None,
    /// A message counts as confirmed when the first of its queues' shards has said so.
    FirstOwnerConfirms,
    /// A message goes to the queue that bore the name before the last change.
    StaleRoute,
    /// A dead letter is published and taken out of its queue, both at once.
    MoveInTwo,
    /// A purge counts as done when it was asked for.
    PurgeBeforeAnswer,
}

/// A story to be run.
#[derive(Clone, Debug)]
pub struct Story {
    /// All chance comes from here.
    pub seed: u64,
    /// What day it is.
    pub theme: Theme,
    /// How many shards there are.
    pub shards: u16,
    /// Places in each mailbox.
    pub slots: usize,
    /// A bug of the hosts.
    pub bug: Bug,
    /// A bug between the engine and its world.
    pub canary: Canary,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Broken promises; none if all is well.
    pub violations: Vec<String>,
    /// Messages that were confirmed, delivered, moved, and lost to damage.
    pub confirmed: u64,
    /// See `confirmed`.
    pub delivered: u64,
    /// See `confirmed`.
    pub moved: u64,
    /// See `confirmed`.
    pub lost: u64,
    /// Whether a start was refused because of damage, which ends the story.
    pub refused: bool,
}

impl Story {
    /// The story of a seed.
    pub fn of(seed: u64) -> Story {
        let mut random = Random::stream(seed, "queue story");
        let theme = match random.below(8) {
            0 | 1 => Theme::Poison,
            2 => Theme::BadReads,
            3 => Theme::Rot,
            _ => Theme::Plain,
        };
        let shards = random.between(1, 3) as u16;
        let slots = [1, 2, 64, 1_024][random.below(4) as usize];
        Story { seed, theme, shards, slots, bug: Bug::None, canary: Canary::None }
    }

    fn config(&self) -> Config {
        Config {
            shards: self.shards,
            journal_bytes: u64::from(self.shards) * (4 << 20),
            journal_file_bytes: 1 << 20,
            disk_free_min_bytes: 0,
            pinned_bytes: 1 << 20,
            ..Config::default()
        }
    }

    fn faults(&self) -> Faults {
        let flush_lie = if self.canary == Canary::LyingFlush { 0.1 } else { 0.0 };
        Faults { flush_lie, ..Faults::default() }
    }

    /// Runs it.
    pub fn run(&self) -> Outcomes {
        let mut run = Run {
            story: self,
            world: World::new(self.seed, self.faults()),
            random: Random::stream(self.seed, "lives"),
            model: Rc::new(RefCell::new(Model::new(self.bug))),
            lost: 0,
            refused: false,
        };
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.lives())).err();
        let mut model = run.model.borrow_mut();
        model.violations.extend(panicked.map(|panic| format!("a panic: {}", seeds::message(&*panic))));
        Outcomes {
            violations: std::mem::take(&mut model.violations),
            confirmed: model.confirmed,
            delivered: model.deliveries,
            moved: model.letters,
            lost: run.lost,
            refused: run.refused,
        }
    }
}

struct Run<'a> {
    story: &'a Story,
    world: World,
    random: Random,
    model: Rc<RefCell<Model>>,
    lost: u64,
    refused: bool,
}

type Node = SimNode<Host>;

impl Run<'_> {
    fn start(&mut self, life: u64) -> Option<Node> {
        self.model.borrow_mut().begin(life);
        let story = self.story;
        let cage = Cage::with_mailboxes(story.canary, story.slots);
        let model = Rc::clone(&self.model);
        let seed = story.seed ^ life << 32;
        let host = |shard: ShardId| Host::new(shard, Rc::clone(&model), seed, story.slots);
        match Node::start_with(&self.world, &story.config(), &cage, seed, host) {
            Ok(node) => Some(node),
            Err(Fatal::Corrupt { .. }) if story.theme == Theme::Rot => {
                self.refused = true;
                None
            }
            Err(fatal) => {
                self.violated(format!("life {life}: the node does not start: {fatal}"));
                None
            }
        }
    }

    fn violated(&self, what: String) {
        self.model.borrow_mut().violations.push(what);
    }

    fn is_broken(&self) -> bool {
        !self.model.borrow().violations.is_empty()
    }

    fn lives(&mut self) {
        for life in 0..self.random.between(2, 4) {
            let Some(mut node) = self.start(life) else { return };
            self.live(&mut node);
            self.count_lost(&mut node);
            if self.is_broken() {
                return;
            }
            drop(node);
            self.crash();
        }
        self.model.borrow_mut().draining = true;
        let Some(mut node) = self.start(99) else { return };
        self.drain(&mut node);
        self.count_lost(&mut node);
        if !self.is_broken() {
            let missing = self.model.borrow().missing();
            if missing.len() as u64 > self.lost {
                self.violated(format!("{} lost, and missing: {:?}", self.lost, missing.first()));
            }
        }
    }

    fn live(&mut self, node: &mut Node) {
        let steps = self.random.between(400, 2_500);
        let trouble = match self.story.theme {
            Theme::Plain | Theme::Poison => self.random.below(steps),
            // Most is read when a life begins: then nothing is in memory.
            Theme::BadReads | Theme::Rot => 0,
        };
        for step in 0..steps {
            if step == trouble {
                self.trouble();
            }
            self.step(node);
            if self.is_broken() {
                return;
            }
        }
        match self.random.below(4) {
            0 | 1 => self.rest(node),
            // The crash comes while something is being purged.
            2 => {
                let is_purging = || self.model.borrow().purging.iter().any(|purges| *purges > 0);
                for _ in 0..1_000 {
                    if is_purging() || self.is_broken() {
                        break;
                    }
                    self.step(node);
                }
            }
            _ => {}
        }
        for shard in 0..node.shards() {
            let held = node.shard(ShardId(shard)).queues_held();
            if held["told"] > LEAVING_TOLD_MAX
                || held["names"] > 2 * LEAVING_TOLD_MAX * usize::from(node.shards())
            {
                self.violated(format!("too much is remembered: {held:?}"));
            }
        }
    }

    fn step(&self, node: &mut Node) {
        node.step();
        let mut model = self.model.borrow_mut();
        let is_poisoned = |shard| node.shard(ShardId(shard)).is_poisoned();
        if self.story.theme == Theme::Poison
            && model.poisoned_at.is_none()
            && (0..node.shards()).any(is_poisoned)
        {
            model.poisoned_at = Some(self.world.now());
        }
    }

    fn trouble(&mut self) {
        let shard = self.random.below(self.story.shards.into());
        let inject =
            |op, path: String, skip, outcome| self.world.inject(Injection { op, path, skip, outcome });
        match self.story.theme {
            Theme::Plain => {}
            Theme::Poison => inject(OpKind::Append, format!("-{shard}/journal"), 0, Outcome::FlushFails),
            Theme::BadReads => self.world.set_faults(Faults { read_error: 0.2, ..Faults::default() }),
            Theme::Rot => {
                for path in ["/journal", ".messages"] {
                    let skip = self.random.below(6);
                    inject(OpKind::Read, path.to_owned(), skip, Outcome::Rots);
                }
            }
        }
    }

    /// Nothing more is published: everything is answered.
    fn rest(&mut self, node: &mut Node) {
        self.model.borrow_mut().resting = true;
        let end = self.world.now() + ANSWERED_IN;
        loop {
            let waiting: Vec<String> =
                (0..node.shards()).flat_map(|shard| node.app(ShardId(shard)).waiting()).collect();
            if waiting.is_empty() || self.is_broken() {
                break;
            }
            if self.world.now() > end {
                let held = |shard| {
                    let shard = node.shard(ShardId(shard));
                    let files = shard.journal().files();
                    let (used, free) = (files.used().len(), files.free());
                    format!("{:?}, journal of {used} files and {free} free", shard.queues_held())
                };
                let held: Vec<String> = (0..node.shards()).map(held).collect();
                return self.violated(format!("not answered: {waiting:?}; {held:?}"));
            }
            self.step(node);
        }
        self.model.borrow_mut().resting = false;
    }

    fn count_lost(&mut self, node: &mut Node) {
        for shard in 0..node.shards() {
            self.lost += node.metrics(ShardId(shard)).get(|shard| shard.messages_lost.get());
        }
    }

    fn crash(&mut self) {
        self.world.set_faults(self.story.faults());
        // What rots of a journal's last group while the machine is off is taken for a torn tail.
        self.world.forget_injections();
        self.model.borrow_mut().crashed(self.world.now());
        self.world.crash(match self.random.below(4) {
            0 => Crash::Kill,
            1 => Crash::Power(Survivors::None),
            2 => Crash::Power(Survivors::All),
            _ => Crash::Power(Survivors::Some),
        });
    }

    /// What is left is taken out, all of it.
    fn drain(&mut self, node: &mut Node) {
        let mut last = (0, self.world.now());
        while last.1 + QUIET > self.world.now() && !self.is_broken() {
            self.step(node);
            let deliveries = self.model.borrow().deliveries;
            if deliveries != last.0 {
                last = (deliveries, self.world.now());
            }
        }
    }
}
