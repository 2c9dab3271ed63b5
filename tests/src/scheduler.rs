//! Drives the shards of a simulated node, in one thread, in an order that chance decides.

use millstream_engine::io::random::Random;
use millstream_engine::io::sim::World;
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

/// What is driven: a reactor. It polls once per turn.
pub trait Turn {
    /// Polls, waiting if it may and has nothing else to do; then works with what came.
    fn turn(&mut self, may_wait: bool);
}

/// One turn in this many goes to a shard that has nothing to do, as kernels wake threads for no reason, too.
const IDLE_TURN_EVERY: u64 = 16;

/// The shards of one node, numbered from zero, and whose turn it is. It holds the world's time while it lives: time
/// passes inside turns, and jumps to the next event when no shard has anything to do.
pub struct Scheduler<T: Turn> {
    world: World,
    shards: Vec<T>,
    random: Random,
}

/// Why [`Scheduler::run_until`] came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The condition holds.
    Reached,
    /// The clock has passed the limit.
    TimeIsUp,
    /// Nothing will ever happen again by itself.
    Quiet,
    /// The machine has died: see [`World::halt_after`].
    Halted,
}

impl<T: Turn> Scheduler<T> {
    /// Drives these shards; shard `i` holds the world's `Io` of shard `i`.
    pub fn new(world: &World, shards: Vec<T>, seed: u64) -> Scheduler<T> {
        world.hold_time(true);
        Scheduler { world: world.clone(), shards, random: Random::stream(seed, "scheduler") }
    }

    /// The shards.
    pub fn shards(&mut self) -> &mut [T] {
        &mut self.shards
    }

    /// Gives one shard a turn, or lets time pass until one needs it. `false` if nothing will ever happen by itself.
    pub fn step(&mut self) -> bool {
        let mut due: Vec<usize> =
            (0..self.shards.len()).filter(|i| self.world.has_ready(ShardId(*i as u16))).collect();
        if self.random.below(IDLE_TURN_EVERY) == 0 {
            due = (0..self.shards.len()).collect();
        }
        if due.is_empty() {
            let Some(at) = self.world.next_event_at() else { return false };
            self.world.advance_to(at);
        } else {
            let chosen = self.random.below(due.len() as u64) as usize;
            self.shards[due[chosen]].turn(true);
        }
        true
    }

    /// Steps until `condition` holds, the clock passes `limit`, the node falls quiet, or the machine dies. The
    /// condition is asked between steps and may act on the world, as clients do.
    pub fn run_until(&mut self, limit: Nanos, mut condition: impl FnMut(&World) -> bool) -> Ended {
        loop {
            if self.world.halted() {
                return Ended::Halted;
            }
            if condition(&self.world) {
                return Ended::Reached;
            }
            if self.world.now() > limit {
                return Ended::TimeIsUp;
            }
            if !self.step() {
                return Ended::Quiet;
            }
        }
    }
}

impl<T: Turn> Drop for Scheduler<T> {
    fn drop(&mut self) {
        self.world.hold_time(false);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use millstream_engine::io::fault::Faults;
    use millstream_engine::io::sim::{SimIo, World};
    use millstream_engine::io::{Io, Wait};
    use millstream_engine::time::Nanos;
    use millstream_engine::types::ShardId;

    use super::{Ended, Scheduler, Turn};

    /// Passes on a ball when it has it, until it has been passed ten times.
    struct Player {
        io: SimIo,
        this: ShardId,
        other: ShardId,
        court: Rc<RefCell<Court>>,
        deadline: Nanos,
    }

    /// Who has the ball, and when it was passed.
    struct Court {
        ball: ShardId,
        passes: Vec<(ShardId, Nanos)>,
    }

    impl Turn for Player {
        fn turn(&mut self, _may_wait: bool) {
            self.io.poll(Wait::Until(self.deadline), &mut Vec::new());
            let mut court = self.court.borrow_mut();
            if court.ball == self.this && court.passes.len() < 10 {
                court.passes.push((self.this, self.io.now()));
                court.ball = self.other;
                self.io.wake(self.other);
            }
        }
    }

    fn players(world: &World, deadline: Nanos) -> (Vec<Player>, Rc<RefCell<Court>>) {
        let court = Rc::new(RefCell::new(Court { ball: ShardId(0), passes: Vec::new() }));
        let players = [(0, 1), (1, 0)].map(|(this, other)| Player {
            io: world.io(ShardId(this)),
            this: ShardId(this),
            other: ShardId(other),
            court: Rc::clone(&court),
            deadline,
        });
        (players.into(), court)
    }

    fn play(seed: u64) -> (Ended, Vec<(ShardId, Nanos)>) {
        let world = World::new(seed, Faults::default());
        let (players, court) = players(&world, Nanos::from_millis(50));
        let mut scheduler = Scheduler::new(&world, players, seed);
        let ended = scheduler.run_until(Nanos::from_millis(20), |_| court.borrow().passes.len() == 10);
        let passes = court.borrow().passes.clone();
        (ended, passes)
    }

    #[test]
    fn shards_that_wake_each_other_get_their_turns() {
        for seed in 0..20 {
            let (ended, passes) = play(seed);
            assert_eq!((ended, passes.len()), (Ended::Reached, 10), "seed {seed}");
        }
    }

    #[test]
    fn one_seed_gives_one_schedule() {
        assert_eq!(play(1), play(1));
        assert_ne!(play(1).1, play(2).1);
    }

    #[test]
    fn time_jumps_to_the_next_deadline_when_nobody_has_anything_to_do() {
        let world = World::new(1, Faults::default());
        let deadline = Nanos::from_millis(50);
        let (players, _) = players(&world, deadline);
        let mut scheduler = Scheduler::new(&world, players, 1);
        let mut steps = 0;
        let ended = scheduler.run_until(Nanos::from_millis(1_000), |world| {
            steps += 1;
            world.now() >= deadline
        });
        assert_eq!(ended, Ended::Reached);
        assert!(steps < 100, "{steps} steps");
    }
}
