//! What a crash leaves.

use std::collections::BTreeSet;

use super::{
    EIO, blocks, durable_file, fills, flush, inject, io, lose_power, open, outcome, pool, world, write,
};
use crate::error::{Fatal, IoError};
use crate::io::fault::{Faults, Injection, OpKind, Outcome, Span};
use crate::io::sim::{Crash, Survivors, UnflushedChange, World};
use crate::io::{Blocking, Io, Token};
use crate::limits::BLOCK_BYTES;
use crate::time::Nanos;
use crate::types::ShardId;

#[test]
fn power_loss_takes_what_was_not_flushed_and_a_kill_does_not() {
    for (crash, left) in [(Crash::Power(Survivors::None), [1, 1]), (Crash::Kill, [2, 1])] {
        let world = world();
        let (mut io, file) = durable_file(&world, &[1, 1]);
        write(&mut io, file, 0, &[2]).unwrap();
        world.crash(crash);
        assert_eq!(fills(&world, "f").unwrap(), left);
    }
}

#[test]
fn a_flush_covers_its_file_only_and_only_what_had_completed() {
    let world = world();
    world.write_file("g", &blocks(&[1]));
    let (mut io, file) = durable_file(&world, &[1, 1]);
    let other = open(&mut io, "g");
    write(&mut io, other, 0, &[2]).unwrap();
    write(&mut io, file, 0, &[2]).unwrap();
    inject(&world, OpKind::Flush, Outcome::Slow(Nanos::from_millis(10)));
    io.flush(Token(2), file);
    write(&mut io, file, 1, &[2]).unwrap();
    outcome(&mut io, Token(2)).unwrap();
    assert_eq!(world.unflushed().len(), 2, "a block of each file");
    lose_power(&world);
    assert_eq!(fills(&world, "f").unwrap(), [2, 1]);
    assert_eq!(fills(&world, "g").unwrap(), [1]);
}

#[test]
fn every_subset_of_unflushed_blocks_can_be_kept() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[1, 1, 1]);
    write(&mut io, file, 0, &[2, 2]).unwrap();
    // The third block is still in flight.
    io.write(Token(1), file, 2 * BLOCK_BYTES as u64, blocks(&[2]));
    let disk = world.snapshot_disk();
    assert_eq!(disk.unflushed().len(), 3);
    let mut seen = BTreeSet::new();
    for mask in 0..8 {
        let mut disk = disk.clone();
        disk.crash_keeping(|unflushed| {
            let UnflushedChange::Block(index) = unflushed.change else { panic!("{unflushed:?}") };
            mask >> index & 1 == 1
        });
        let world = World::from_disk(2, disk, Faults::default());
        seen.insert(fills(&world, "f").unwrap());
    }
    assert_eq!(seen.len(), 8);
    assert!(seen.contains(&vec![2, 1, 2]));
}

#[test]
fn random_power_losses_keep_different_subsets() {
    let survivors: BTreeSet<_> = (0..40)
        .map(|seed| {
            let world = World::new(seed, Faults::default());
            let (mut io, file) = durable_file(&world, &[1, 1]);
            write(&mut io, file, 0, &[2, 2]).unwrap();
            world.crash(Crash::Power(Survivors::Some));
            fills(&world, "f").unwrap()
        })
        .collect();
    assert_eq!(survivors.len(), 4, "{survivors:?}");
}

#[test]
fn a_kill_tears_what_was_in_flight() {
    let torn: BTreeSet<_> = (0..40)
        .map(|seed| {
            let world = World::new(seed, Faults::default());
            let (mut io, file) = durable_file(&world, &[1, 1]);
            io.write(Token(1), file, 0, blocks(&[2, 2]));
            world.crash(Crash::Kill);
            fills(&world, "f").unwrap()
        })
        .collect();
    assert_eq!(torn.len(), 4, "{torn:?}");
}

#[test]
fn a_length_that_was_not_flushed_may_go_and_lengths_go_in_order() {
    let grown = || {
        let world = world();
        let (mut io, file) = durable_file(&world, &[1]);
        write(&mut io, file, 1, &[2]).unwrap();
        write(&mut io, file, 2, &[3]).unwrap();
        world
    };
    let keep = |lengths: &[u64]| {
        let world = grown();
        world.crash_keeping(|unflushed| match unflushed.change {
            UnflushedChange::Length(len) => lengths.contains(&(len / BLOCK_BYTES as u64)),
            _ => true,
        });
        fills(&world, "f").unwrap()
    };
    assert_eq!(keep(&[]), [1]);
    assert_eq!(keep(&[2]), [1, 2]);
    assert_eq!(keep(&[3]), [1], "the second length was built on the first");
    assert_eq!(keep(&[2, 3]), [1, 2, 3]);
    let world = grown();
    world.crash_keeping(|unflushed| matches!(unflushed.change, UnflushedChange::Length(_)));
    assert_eq!(fills(&world, "f").unwrap(), [1, 0, 0], "a length without its blocks reads as zeros");
}

#[test]
fn a_block_past_the_surviving_length_does_not_come_back_when_the_file_grows() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[1]);
    write(&mut io, file, 1, &[2]).unwrap();
    world.crash_keeping(|unflushed| matches!(unflushed.change, UnflushedChange::Block(_)));
    let mut next_life = super::io(&world);
    let file = open(&mut next_life, "f");
    next_life.set_len(Token(1), file, 2 * BLOCK_BYTES as u64);
    outcome(&mut next_life, Token(1)).unwrap();
    assert_eq!(fills(&world, "f").unwrap(), [1, 0]);
}

#[test]
fn what_was_cut_off_reads_as_zeros_when_the_file_grows() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[1, 1]);
    for len in [100, 2 * BLOCK_BYTES as u64] {
        io.set_len(Token(1), file, len);
        outcome(&mut io, Token(1)).unwrap();
    }
    let bytes = world.read_file("f").unwrap();
    assert_eq!(bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>(), 100);
    flush(&mut io, file).unwrap();
    lose_power(&world);
    assert_eq!(world.read_file("f").unwrap(), bytes);
}

#[test]
fn a_cut_that_was_not_flushed_may_be_undone() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[1, 1]);
    io.set_len(Token(1), file, 100);
    outcome(&mut io, Token(1)).unwrap();
    assert_eq!(world.read_file("f").unwrap().len(), 100);
    lose_power(&world);
    assert_eq!(fills(&world, "f").unwrap(), [1, 1]);
}

#[test]
fn a_flushed_file_without_a_durable_name_is_lost() {
    for synced in [false, true] {
        let world = world();
        let mut io = io(&world);
        let file = open(&mut io, "f");
        write(&mut io, file, 0, &[1]).unwrap();
        flush(&mut io, file).unwrap();
        if synced {
            io.sync_dir(Token(3), "");
            outcome(&mut io, Token(3)).unwrap();
        }
        lose_power(&world);
        assert_eq!(fills(&world, "f"), synced.then(|| vec![1]));
    }
}

#[test]
fn a_directory_flush_covers_no_change_made_after_it_was_submitted() {
    let world = world();
    let mut io = io(&world);
    world.inject(Injection {
        op: OpKind::SyncDir,
        path: String::new(),
        skip: 0,
        outcome: Outcome::Slow(Nanos::from_millis(10)),
    });
    io.sync_dir(Token(3), "");
    open(&mut io, "f");
    outcome(&mut io, Token(3)).unwrap();
    lose_power(&world);
    assert_eq!(world.list_all(), Vec::<String>::new());
}

#[test]
fn a_rename_shows_either_name_until_its_directory_is_flushed() {
    let after = |seed: u64, sync: bool| {
        let world = World::new(seed, Faults::default());
        world.write_file("old", b"new content");
        world.write_file("name", b"old content");
        let mut io = io(&world);
        io.rename(Token(1), "old", "name");
        outcome(&mut io, Token(1)).unwrap();
        if sync {
            io.sync_dir(Token(2), "");
            outcome(&mut io, Token(2)).unwrap();
        }
        world.crash(Crash::Power(Survivors::Some));
        (world.list_all(), world.read_file("name").unwrap())
    };
    let renamed = (vec!["name".to_owned()], b"new content".to_vec());
    let not = (vec!["name".to_owned(), "old".to_owned()], b"old content".to_vec());
    let seen: BTreeSet<_> = (0..20).map(|seed| after(seed, false)).collect();
    assert_eq!(seen, BTreeSet::from([renamed.clone(), not]));
    assert!((0..20).all(|seed| after(seed, true) == renamed));
}

#[test]
fn a_move_between_directories_needs_both_flushed() {
    for (synced, moved) in [(&["a"][..], false), (&["b"], false), (&["a", "b"], true)] {
        let world = world();
        world.write_file("a/f", b"x");
        world.write_file("b/g", b"y");
        let mut io = io(&world);
        io.rename(Token(1), "a/f", "b/f");
        outcome(&mut io, Token(1)).unwrap();
        for dir in synced {
            io.sync_dir(Token(2), dir);
            outcome(&mut io, Token(2)).unwrap();
        }
        lose_power(&world);
        let expected = if moved { ["b/f", "b/g"] } else { ["a/f", "b/g"] };
        assert_eq!(world.list_all(), expected, "after flushing {synced:?}");
    }
}

#[test]
fn a_name_survives_only_with_what_it_was_built_on() {
    let world = world();
    let mut io = io(&world);
    open(&mut io, "a");
    io.rename(Token(1), "a", "b");
    outcome(&mut io, Token(1)).unwrap();
    let kept = |create: bool, rename: bool| {
        let mut disk = world.snapshot_disk();
        let mut verdicts = [create, rename].into_iter();
        disk.crash_keeping(|_| verdicts.next().unwrap());
        disk.list_all()
    };
    assert_eq!(kept(false, true), Vec::<String>::new());
    assert_eq!(kept(true, false), ["a"]);
    assert_eq!(kept(true, true), ["b"]);
}

#[test]
fn a_durable_name_makes_durable_what_it_was_built_on() {
    let world = world();
    world.write_file("a/f", b"x");
    world.write_file("b/g", b"y");
    let mut io = io(&world);
    for (from, to) in [("a/f", "b/f"), ("b/f", "b/h")] {
        io.rename(Token(1), from, to);
        outcome(&mut io, Token(1)).unwrap();
    }
    io.sync_dir(Token(2), "b");
    outcome(&mut io, Token(2)).unwrap();
    lose_power(&world);
    assert_eq!(world.list_all(), ["b/g", "b/h"]);
}

#[test]
fn an_unlinked_file_comes_back_until_its_directory_is_flushed() {
    for synced in [false, true] {
        let world = world();
        let (mut io, file) = durable_file(&world, &[1]);
        io.close(file);
        io.unlink(Token(1), "f");
        outcome(&mut io, Token(1)).unwrap();
        assert_eq!(world.list_all(), Vec::<String>::new());
        if synced {
            io.sync_dir(Token(2), "");
            outcome(&mut io, Token(2)).unwrap();
        }
        lose_power(&world);
        assert_eq!(fills(&world, "f"), (!synced).then(|| vec![1]));
    }
}

#[test]
fn nothing_survives_in_a_directory_whose_own_name_is_lost() {
    let world = world();
    let mut io = io(&world);
    io.make_dir(Token(1), "d");
    outcome(&mut io, Token(1)).unwrap();
    let file = open(&mut io, "d/f");
    write(&mut io, file, 0, &[1]).unwrap();
    flush(&mut io, file).unwrap();
    io.sync_dir(Token(2), "d");
    outcome(&mut io, Token(2)).unwrap();
    let disk = world.snapshot_disk();
    lose_power(&world);
    assert_eq!(world.list_all(), Vec::<String>::new());
    world.restore_disk(disk);
    world.crash(Crash::Power(Survivors::All));
    assert_eq!(world.list_all(), ["d/f"]);
}

#[test]
fn replacing_a_file_leaves_the_old_one_or_the_new_one_at_every_crash_point() {
    let replace = |halt_after: Option<u64>, seed: u64| {
        let world = World::new(seed, Faults::rough());
        world.write_file("d/f", b"old");
        if let Some(point) = halt_after {
            world.halt_after(point);
        }
        let mut io = io(&world);
        let done = Blocking::new(&mut io, pool()).replace("d/f", b"new");
        (world, done)
    };
    for seed in 0..20 {
        let (world, done) = replace(None, seed);
        assert_eq!(done, Ok(()));
        let points = world.disk_ops();
        for point in 1..=points {
            let (world, done) = replace(Some(point), seed);
            assert!(
                world.halted() && matches!(done, Err(Fatal::Io { error: IoError::Halted, .. })),
                "{done:?}"
            );
            world.crash(if seed % 2 == 0 { Crash::Kill } else { Crash::Power(Survivors::Some) });
            let found = world.read_file("d/f").unwrap();
            assert!(found == b"old" || found == b"new", "{found:?} at {point}\n{}", world.trace());
        }
    }
}

#[test]
fn after_a_failed_flush_no_later_flush_helps_what_it_lost() {
    let mut survived = BTreeSet::new();
    for seed in 0..20 {
        let world = World::new(seed, Faults::default());
        let (mut io, file) = durable_file(&world, &[1, 1, 1]);
        write(&mut io, file, 0, &[2, 2]).unwrap();
        inject(&world, OpKind::Flush, Outcome::FlushFails);
        assert_eq!(flush(&mut io, file).err(), Some(EIO));
        write(&mut io, file, 2, &[2]).unwrap();
        flush(&mut io, file).unwrap();
        assert_eq!(fills(&world, "f").unwrap(), [2, 2, 2], "the page cache hides the loss");
        world.crash(Crash::Power(Survivors::All));
        survived.insert(fills(&world, "f").unwrap());
    }
    assert_eq!(survived.len(), 4, "{survived:?}");
    assert!(survived.iter().all(|fills| fills[2] == 2), "what was written afterwards is sound");
}

#[test]
fn a_block_lost_by_a_failed_flush_is_saved_by_writing_it_again() {
    for seed in 0..10 {
        let world = World::new(seed, Faults::default());
        let (mut io, file) = durable_file(&world, &[1]);
        write(&mut io, file, 0, &[2]).unwrap();
        inject(&world, OpKind::Flush, Outcome::FlushFails);
        assert_eq!(flush(&mut io, file).err(), Some(EIO));
        write(&mut io, file, 0, &[3]).unwrap();
        flush(&mut io, file).unwrap();
        lose_power(&world);
        assert_eq!(fills(&world, "f").unwrap(), [3]);
    }
}

#[test]
fn a_lying_flush_saves_nothing() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[1]);
    inject(&world, OpKind::Append, Outcome::FlushLies);
    io.append_durable(Token(1), file, 0, blocks(&[2]));
    outcome(&mut io, Token(1)).unwrap();
    lose_power(&world);
    assert_eq!(fills(&world, "f").unwrap(), [1]);
}

#[test]
fn a_dead_machine_answers_halted_and_does_nothing_more() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[1]);
    io.write(Token(1), file, 0, blocks(&[2]));
    lose_power(&world);
    assert_eq!(outcome(&mut io, Token(1)).err(), Some(IoError::Halted));
    io.write(Token(1), file, 0, blocks(&[3]));
    assert_eq!(outcome(&mut io, Token(1)).err(), Some(IoError::Halted));
    io.close(file);
    io.unlink(Token(1), "f");
    assert_eq!(outcome(&mut io, Token(1)).err(), Some(IoError::Halted));
    let mut next_life = world.io(ShardId(0));
    let file = open(&mut next_life, "f");
    write(&mut next_life, file, 0, &[4]).unwrap();
    assert_eq!(fills(&world, "f").unwrap(), [4]);
}

#[test]
fn a_failed_flush_takes_nothing_that_it_did_not_cover() {
    for seed in 0..10 {
        let world = World::new(seed, Faults::default());
        let (mut io, file) = durable_file(&world, &[1]);
        world.set_faults(Faults { flush_time: Span::from_micros(5_000, 5_000), ..Faults::default() });
        inject(&world, OpKind::Flush, Outcome::FlushFails);
        io.flush(Token(2), file);
        write(&mut io, file, 0, &[2]).unwrap();
        outcome(&mut io, Token(2)).unwrap_err();
        flush(&mut io, file).unwrap();
        lose_power(&world);
        assert_eq!(fills(&world, "f").unwrap(), [2]);
    }
}
