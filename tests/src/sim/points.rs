//! One small story, crashed at every point, with every small choice of what the disk keeps.

use std::panic::{AssertUnwindSafe, catch_unwind};

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::io::fault::Faults;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{Crash, Disk, Survivors, World};
use millstream_engine::time::WallMs;

use super::audit::{Cut, audit};
use super::canary::{Cage, Canary};
use super::node::SimNode;
use super::workload::{Demand, Workload};

/// With this many unflushed items or fewer, every subset is tried.
const ALL_SUBSETS_OF: usize = 4;
/// Of more items, so many are kept alone, and so many are lost alone.
const SINGLES: usize = 6;
/// And so many subsets are random.
const RANDOM_SUBSETS: usize = 3;

/// The story.
#[derive(Clone, Debug)]
pub struct Story {
    /// All chance comes from here.
    pub seed: u64,
    /// Turns of the node before it is left alone.
    pub steps: u64,
    /// The bug that is planted.
    pub canary: Canary,
}

/// The machine as a crash found it: what is on its disk and in flight, and what was promised until then.
pub struct Stopped {
    disk: Disk,
    workload: Workload,
}

impl Stopped {
    /// The paths of all files.
    pub fn files(&self) -> Vec<String> {
        self.disk.list_all()
    }
}

impl Story {
    fn config() -> Config {
        Config {
            shards: 1,
            journal_bytes: 3 << 20,
            journal_file_bytes: 1 << 20,
            disk_free_min_bytes: 0,
            pinned_bytes: 1 << 20,
            retention_check_ms: 500,
            delete_delay_ms: 100,
            ..Config::default()
        }
    }

    fn workload(&self) -> Workload {
        let topic = TopicConfig {
            segment_bytes: 400_000,
            segment_ms: 1 << 40,
            retention_ms: -1,
            retention_bytes: -1,
            max_message_bytes: 4 << 20,
            index_interval_bytes: 4096,
            log_append_time: false,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
            deletes: true,
            compacts: false,
            durability_min: millstream_engine::types::Durability::Memory,
        };
        let demand = Demand {
            under_way: 8,
            topics: vec![topic],
            topics_max: 2,
            medium_percent: 35,
            large_percent: 1,
            full_disk: false,
            poison: false,
            bad_reads: false,
            deletes: true,
            trims: true,
            changes: false,
        };
        Workload::new(self.seed, demand)
    }

    /// Runs until the machine stands still at this crash point, or to the story's end. Gives what was found, and how many
    /// points were passed.
    pub fn run_to(&self, point: Option<u64>) -> Result<(Stopped, u64), String> {
        let world = World::new(self.seed, Faults::default());
        if let Some(point) = point {
            world.halt_after(point);
        }
        let mut workload = self.workload();
        let cage = Cage::new(self.canary);
        match SimNode::start(&world, &Story::config(), &cage, self.seed) {
            Ok(mut node) => {
                workload.restarted(&node);
                for _ in 0..self.steps {
                    let wall = WallMs(1_700_000_000_000 + (world.now().0 / 1_000_000) as i64);
                    workload.ask(&node, wall);
                    let goes_on = node.step();
                    workload.absorb(&node);
                    if !goes_on {
                        break;
                    }
                }
            }
            Err(_) if world.halted() => {}
            Err(fatal) => return Err(format!("the node does not start: {fatal}")),
        }
        match workload.model.violations.first() {
            Some(violation) => Err(violation.clone()),
            None => Ok((Stopped { disk: world.snapshot_disk(), workload }, world.disk_ops())),
        }
    }

    /// Crashes at a point in every way that is tried there. Gives how many ways there were.
    pub fn crash_at(&self, point: u64) -> Result<usize, String> {
        let (stopped, _) = self.run_to(Some(point))?;
        let mut random = Random::stream(self.seed ^ point, "subsets");
        let count = stopped.disk.unflushed().len();
        let mut tried = 0;
        for kept in subsets(count, &mut random) {
            let mut disk = stopped.disk.clone();
            let mut verdicts = kept.iter().copied();
            disk.crash_keeping(|_| verdicts.next().unwrap_or(false));
            let say = |what: String| {
                format!("point {point}, power lost, kept {kept:?} of {:?}: {what}", stopped.disk.unflushed())
            };
            self.check(&stopped.workload, Crash::Power(Survivors::Some), disk).map_err(say)?;
            tried += 1;
        }
        let mut disk = stopped.disk.clone();
        disk.crash(Crash::Kill, &mut random);
        self.check(&stopped.workload, Crash::Kill, disk)
            .map_err(|what| format!("point {point}, killed: {what}"))?;
        Ok(tried + 1)
    }

    /// Crashes at a point, and then once more at every `stride`th point of the recovery.
    pub fn crash_while_recovering(&self, point: u64, stride: usize) -> Result<usize, String> {
        let (stopped, _) = self.run_to(Some(point))?;
        let mut random = Random::stream(self.seed ^ point, "recovery");
        let mut disk = stopped.disk.clone();
        let crash = if random.chance(0.5) { Crash::Kill } else { Crash::Power(Survivors::Some) };
        disk.crash(crash, &mut random);
        let mut workload = stopped.workload;
        workload.crashed(crash);

        let world = World::from_disk(self.seed, disk.clone(), Faults::default());
        let cage = Cage::new(self.canary);
        SimNode::start(&world, &Story::config(), &cage, self.seed)
            .map_err(|fatal| format!("point {point}: {fatal}"))?;
        let all = world.disk_ops();
        let mut tried = 0;
        for inner in (1..=all).step_by(stride.max(1)) {
            let world = World::from_disk(self.seed, disk.clone(), Faults::default());
            world.halt_after(inner);
            drop(SimNode::start(&world, &Story::config(), &cage, self.seed));
            if !world.halted() {
                world.halt();
            }
            let crash = match random.below(4) {
                0 => Crash::Kill,
                1 => Crash::Power(Survivors::None),
                2 => Crash::Power(Survivors::All),
                _ => Crash::Power(Survivors::Some),
            };
            let mut left = world.snapshot_disk();
            left.crash(crash, &mut random);
            let say = |what: String| {
                format!("point {point}, then point {inner} of the recovery, {crash:?}: {what}")
            };
            self.check(&workload, crash, left).map_err(say)?;
            tried += 1;
        }
        Ok(tried)
    }

    /// Recovers what a crash left: every promise is kept, and recovering it once more finds the same.
    fn check(&self, workload: &Workload, crash: Crash, disk: Disk) -> Result<(), String> {
        let checked = catch_unwind(AssertUnwindSafe(|| self.recovers(workload, crash, disk)));
        checked.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(format!("a panic: {}", text.unwrap_or_default()))
        })
    }

    fn recovers(&self, workload: &Workload, crash: Crash, disk: Disk) -> Result<(), String> {
        let mut workload = workload.clone();
        workload.crashed(crash);
        let world = World::from_disk(self.seed, disk, Faults::default());
        let cage = Cage::new(self.canary);
        let start = || SimNode::start(&world, &Story::config(), &cage, self.seed);
        let node = start().map_err(|fatal| format!("the node does not start: {fatal}"))?;
        let first = node.state();
        world.crash(Crash::Power(Survivors::None));
        drop(node);
        let mut node = start().map_err(|fatal| format!("the node does not start again: {fatal}"))?;
        if node.state() != first {
            return Err(format!("a second recovery finds\n{}\ninstead of\n{first}", node.state()));
        }
        workload.restarted(&node);
        if let Err(Cut::Halted) = audit(&mut node, &mut workload.model) {
            return Err("the machine stands still".to_owned());
        }
        // It works on.
        for _ in 0..60 {
            workload.ask(&node, WallMs(1_700_000_100_000));
            node.step();
            workload.absorb(&node);
        }
        match workload.model.violations.first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }
}

/// Which of `count` items survive: one list of verdicts for each way that is tried.
fn subsets(count: usize, random: &mut Random) -> Vec<Vec<bool>> {
    if count <= ALL_SUBSETS_OF {
        return (0..1_usize << count)
            .map(|bits| (0..count).map(|item| bits >> item & 1 == 1).collect())
            .collect();
    }
    let mut tried = vec![vec![false; count], vec![true; count]];
    for kept in [true, false] {
        for turn in 0..SINGLES.min(count) {
            // The first and the last are the most telling.
            let item = match turn {
                0 => 0,
                1 => count - 1,
                _ => random.below(count as u64) as usize,
            };
            let mut verdicts = vec![!kept; count];
            verdicts[item] = kept;
            tried.push(verdicts);
        }
    }
    for _ in 0..RANDOM_SUBSETS {
        let share = [0.1, 0.5, 0.9][random.below(3) as usize];
        tried.push((0..count).map(|_| random.chance(share)).collect());
    }
    tried
}
