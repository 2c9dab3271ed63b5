//! Crashes, one after the other: at every point of a run, and with every small subset of what was not flushed.

use std::ops::Range;

use millstream_engine::io::fault::Faults;
use millstream_engine::io::random::Random;
use millstream_engine::io::sim::{Crash, Disk, Survivors, World};

/// Runs `run` once to count its crash points, and then once for each of them, on a world of the same seed that stands
/// still there. `check` decides with `World::crash*` what is left, and looks at it. `set_up` makes each world; its own
/// crash points are not among them.
pub fn at_every_crash_point(
    set_up: impl Fn() -> World,
    run: impl Fn(&World),
    check: impl Fn(&World, u64),
) -> Range<u64> {
    at_every_nth_crash_point(1, set_up, run, check)
}

/// The same for every `nth` of the points, for stories that take long.
pub fn at_every_nth_crash_point(
    nth: usize,
    set_up: impl Fn() -> World,
    run: impl Fn(&World),
    check: impl Fn(&World, u64),
) -> Range<u64> {
    let world = set_up();
    let first = world.disk_ops() + 1;
    run(&world);
    let points = first..world.disk_ops() + 1;
    for point in points.clone().step_by(nth) {
        let world = set_up();
        world.halt_after(point);
        run(&world);
        assert!(world.halted(), "the run did not repeat itself: it never reached crash point {point}");
        check(&world, point);
    }
    points
}

/// Checks a fresh world for every subset of what a power loss now could keep, if there are at most `subsets_max` of
/// them; else for nothing, everything, and random ones, `subsets_max` in all. Gives the number of subsets.
pub fn for_every_subset(disk: &Disk, subsets_max: u64, seed: u64, check: impl Fn(&World)) -> u64 {
    let items = disk.unflushed().len() as u32;
    let revive = |disk: Disk| check(&World::from_disk(seed, disk, Faults::default()));
    match 1_u64.checked_shl(items) {
        Some(subsets) if subsets <= subsets_max => {
            for mask in 0..subsets {
                let mut bits = mask;
                let mut disk = disk.clone();
                disk.crash_keeping(|_| {
                    let kept = bits & 1 == 1;
                    bits >>= 1;
                    kept
                });
                revive(disk);
            }
            subsets
        }
        _ => {
            let mut random = Random::stream(seed, "subsets");
            for i in 0..subsets_max {
                let survivors = match i {
                    0 => Survivors::None,
                    1 => Survivors::All,
                    _ => Survivors::Some,
                };
                let mut disk = disk.clone();
                disk.crash(Crash::Power(survivors), &mut random);
                revive(disk);
            }
            subsets_max
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use millstream_engine::buffer::{Pool, Slice};
    use millstream_engine::io::fault::Faults;
    use millstream_engine::io::sim::World;
    use millstream_engine::io::{Blocking, OpenMode};
    use millstream_engine::types::ShardId;

    use super::{at_every_crash_point, for_every_subset};

    /// Replaces a file, either the sound way or by writing over it; gives every content that a crash can leave.
    fn contents_after_crashes(sound: bool) -> BTreeSet<Vec<u8>> {
        let seen = RefCell::new(BTreeSet::new());
        let set_up = || {
            let world = World::new(3, Faults::default());
            world.write_file("f", &[1; 8192]);
            world
        };
        let run = |world: &World| {
            let mut io = world.io(ShardId(0));
            let mut blocking = Blocking::new(&mut io, Pool::new(1 << 20));
            let replaced = if sound {
                blocking.replace("f", &[2; 8192])
            } else {
                blocking.open("f", OpenMode::Buffered).and_then(|(file, _)| {
                    blocking.write(file, "f", 0, Slice::from(vec![2; 8192]))?;
                    blocking.flush(file, "f")
                })
            };
            assert_eq!(replaced.is_err(), world.halted());
        };
        let points = at_every_crash_point(set_up, run, |world, _| {
            for_every_subset(&world.snapshot_disk(), 64, 3, |world| {
                seen.borrow_mut().insert(world.read_file("f").unwrap());
            });
        });
        assert!(points.count() >= 6, "open, write and flush have two points each");
        seen.into_inner()
    }

    #[test]
    fn a_sound_replacement_shows_two_states_and_writing_over_shows_torn_ones() {
        assert_eq!(contents_after_crashes(true), BTreeSet::from([vec![1; 8192], vec![2; 8192]]));
        assert_eq!(contents_after_crashes(false).len(), 4);
    }
}
