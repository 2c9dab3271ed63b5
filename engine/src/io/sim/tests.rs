//! The model's own tests: what each fault looks like, and what a crash leaves.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{Crash, SimIo, SimPeer, Survivors, UnflushedChange, World};
use crate::buffer::{Pool, Slice};
use crate::error::{Fatal, IoError};
use crate::io::fault::{Faults, Injection, OpKind, Outcome};
use crate::io::{Blocking, CloseReason, ConnId, DiskDone, Event, FileId, Io, OpenMode, Token, Wait};
use crate::limits::BLOCK_BYTES;
use crate::time::{Nanos, WallMs};
use crate::types::ShardId;

const EIO: IoError = IoError::Os(libc::EIO);

fn world() -> World {
    World::new(1, Faults::default())
}

fn io(world: &World) -> SimIo {
    world.io(ShardId(0))
}

fn pool() -> Pool {
    Pool::new(64 << 20)
}

/// Whole blocks, each filled with the byte given for it.
fn blocks(content: &[u8]) -> Slice {
    let mut block = pool().block(content.len() * BLOCK_BYTES).unwrap();
    for byte in content {
        block.push(&[*byte; BLOCK_BYTES]);
    }
    block.freeze()
}

/// The first byte of each block of a file.
fn fills(world: &World, path: &str) -> Option<Vec<u8>> {
    world.read_file(path).map(|bytes| bytes.chunks(BLOCK_BYTES).map(|block| block[0]).collect())
}

/// Polls until an operation on the disk is over.
fn outcome(io: &mut SimIo, token: Token) -> Result<DiskDone, IoError> {
    let mut events = Vec::new();
    loop {
        io.poll(Wait::Forever, &mut events);
        for event in events.drain(..) {
            match event {
                Event::Disk(of, outcome) if of == token => return outcome,
                _ => {}
            }
        }
    }
}

fn open(io: &mut SimIo, path: &str) -> FileId {
    io.open(Token(0), path, OpenMode::Direct);
    match outcome(io, Token(0)) {
        Ok(DiskDone::Opened(file, _)) => file,
        other => panic!("open answered {other:?}"),
    }
}

/// An open file `f` of as many durable blocks as are given here, durable in name, too.
fn durable_file(world: &World, content: &[u8]) -> (SimIo, FileId) {
    world.write_file("f", &blocks(content));
    let mut io = io(world);
    let file = open(&mut io, "f");
    (io, file)
}

fn write(io: &mut SimIo, file: FileId, block: u64, content: &[u8]) -> Result<DiskDone, IoError> {
    io.write(Token(1), file, block * BLOCK_BYTES as u64, blocks(content));
    outcome(io, Token(1))
}

fn flush(io: &mut SimIo, file: FileId) -> Result<DiskDone, IoError> {
    io.flush(Token(2), file);
    outcome(io, Token(2))
}

fn inject(world: &World, op: OpKind, outcome: Outcome) {
    world.inject(Injection { op, path: "f".to_owned(), skip: 0, outcome });
}

fn lose_power(world: &World) {
    world.crash(Crash::Power(Survivors::None));
}

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
    lose_power(&world);
    assert_eq!(fills(&world, "f").unwrap(), [2, 1]);
    assert_eq!(fills(&world, "g").unwrap(), [1]);
}

#[test]
fn an_append_is_announced_as_written_and_then_durable() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[]);
    io.append_durable(Token(7), file, 0, blocks(&[3, 4]));
    let mut events = Vec::new();
    while events.is_empty() {
        io.poll(Wait::Forever, &mut events);
    }
    assert!(matches!(events.as_slice(), [Event::Written(Token(7))]), "{events:?}");
    assert_eq!(world.unflushed().len(), 3, "two blocks and the length");
    outcome(&mut io, Token(7)).unwrap();
    assert_eq!(world.unflushed(), []);
    lose_power(&world);
    assert_eq!(fills(&world, "f").unwrap(), [3, 4]);
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
fn an_append_whose_flush_fails_has_been_announced_as_written_only() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[1]);
    inject(&world, OpKind::Append, Outcome::FlushFails);
    io.append_durable(Token(1), file, 0, blocks(&[2]));
    let mut events = Vec::new();
    while events.len() < 2 {
        io.poll(Wait::Forever, &mut events);
    }
    let expected = matches!(
        events.as_slice(),
        [Event::Written(Token(1)), Event::Disk(Token(1), Err(IoError::Os(libc::EIO)))]
    );
    assert!(expected, "{events:?}");
}

#[test]
fn a_write_that_fails_midway_leaves_its_first_bytes() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[1, 1]);
    inject(&world, OpKind::Append, Outcome::FailsAfter { bytes: BLOCK_BYTES, error: IoError::Cancelled });
    io.append_durable(Token(1), file, 0, blocks(&[2, 2]));
    assert_eq!(outcome(&mut io, Token(1)).err(), Some(IoError::Cancelled));
    assert_eq!(fills(&world, "f").unwrap(), [2, 1]);
    inject(&world, OpKind::Write, Outcome::Fails(EIO));
    assert_eq!(write(&mut io, file, 0, &[3, 3]).err(), Some(EIO));
    assert_eq!(fills(&world, "f").unwrap(), [2, 1]);
}

#[test]
fn a_short_write_is_completed_before_it_is_announced_and_can_be_caught_half_done() {
    let run = |halt_after: u64| {
        let world = world();
        let (mut io, file) = durable_file(&world, &[1, 1]);
        inject(&world, OpKind::Append, Outcome::FallsShort { bytes: BLOCK_BYTES });
        world.halt_after(world.disk_ops() + halt_after);
        io.append_durable(Token(1), file, 0, blocks(&[2, 2]));
        let mut events = Vec::new();
        io.poll(Wait::Forever, &mut events);
        (world, events)
    };
    // Points: submitted, first part written, rest written.
    let (world, events) = run(2);
    assert!(matches!(events.as_slice(), [Event::Disk(_, Err(IoError::Halted))]), "{events:?}");
    assert_eq!(fills(&world, "f").unwrap(), [2, 1]);
    let (world, events) = run(4);
    assert!(matches!(events.as_slice(), [Event::Written(_)]), "{events:?}");
    assert_eq!(fills(&world, "f").unwrap(), [2, 2]);
}

#[test]
fn a_misdirected_write_reports_success() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[1, 1, 1]);
    inject(&world, OpKind::Write, Outcome::Misdirected { to: 2 * BLOCK_BYTES as u64 });
    write(&mut io, file, 0, &[2]).unwrap();
    assert_eq!(fills(&world, "f").unwrap(), [1, 1, 2]);
}

#[test]
fn rot_flips_one_bit_for_good() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[1]);
    world.rot("f", 0, 3);
    assert_eq!(fills(&world, "f").unwrap(), [9]);
    inject(&world, OpKind::Read, Outcome::Rots);
    io.read(Token(1), file, 0, pool().block(BLOCK_BYTES).unwrap(), BLOCK_BYTES);
    let Ok(DiskDone::Read(block)) = outcome(&mut io, Token(1)) else { panic!("the read failed") };
    let flipped = |bytes: &[u8]| -> u32 {
        bytes.iter().enumerate().map(|(i, byte)| (byte ^ if i == 0 { 9 } else { 1 }).count_ones()).sum()
    };
    assert_eq!(flipped(block.filled()), 1);
    lose_power(&world);
    assert_eq!(flipped(&world.read_file("f").unwrap()), 1);
}

#[test]
fn a_read_can_fail_and_ends_at_the_end_of_the_file() {
    let world = world();
    world.write_file("f", b"hello");
    let mut io = io(&world);
    let mut blocking = Blocking::new(&mut io, pool());
    let (file, len) = blocking.open("f", OpenMode::Buffered).unwrap();
    assert_eq!(len, 5);
    assert_eq!(blocking.read(file, "f", 1, 100).unwrap().filled(), b"ello");
    inject(&world, OpKind::Read, Outcome::Fails(EIO));
    let failed = Fatal::Io { doing: "read", file: "f".to_owned(), error: EIO };
    assert_eq!(blocking.read(file, "f", 0, 5).err(), Some(failed));
}

#[test]
fn a_full_disk_takes_what_fits() {
    let world = World::new(1, Faults { disk_bytes: 3 * BLOCK_BYTES as u64, ..Faults::default() });
    let (mut io, file) = durable_file(&world, &[1, 1]);
    assert_eq!(write(&mut io, file, 1, &[2, 2, 2]).err(), Some(IoError::NoSpace));
    assert_eq!(fills(&world, "f").unwrap(), [1, 2, 2]);
    io.free_bytes(Token(1));
    assert!(matches!(outcome(&mut io, Token(1)), Ok(DiskDone::Free(0))));
    io.unlink(Token(1), "f");
    outcome(&mut io, Token(1)).unwrap();
    io.close(file);
    io.free_bytes(Token(1));
    assert!(matches!(outcome(&mut io, Token(1)), Ok(DiskDone::Free(12_288))));
}

#[test]
fn an_injection_lets_the_operations_before_it_pass_and_strikes_once() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[1]);
    world.inject(Injection {
        op: OpKind::Write,
        path: "f".to_owned(),
        skip: 1,
        outcome: Outcome::Fails(IoError::NoSpace),
    });
    let results: Vec<_> = (0..3).map(|_| write(&mut io, file, 0, &[2]).err()).collect();
    assert_eq!(results, [None, Some(IoError::NoSpace), None]);
}

#[test]
fn faults_by_chance_happen() {
    let faults = Faults {
        write_error: 0.1,
        no_space: 0.1,
        flush_failure: 0.1,
        read_error: 0.1,
        name_error: 0.1,
        ..Faults::rough()
    };
    let world = world();
    let (mut io, file) = durable_file(&world, &[1, 1, 1]);
    world.set_faults(faults);
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        seen.extend(write(&mut io, file, 0, &[1, 2, 3]).err().map(|error| format!("write {error:?}")));
        seen.extend(flush(&mut io, file).err().map(|error| format!("flush {error:?}")));
        io.read(Token(4), file, 0, pool().block(BLOCK_BYTES).unwrap(), BLOCK_BYTES);
        seen.extend(outcome(&mut io, Token(4)).err().map(|error| format!("read {error:?}")));
        io.make_dir(Token(5), "d");
        seen.extend(outcome(&mut io, Token(5)).err().map(|error| format!("name {error:?}")));
    }
    assert_eq!(
        Vec::from_iter(seen),
        ["flush Os(5)", "name Os(5)", "read Os(5)", "write NoSpace", "write Os(5)"]
    );
}

#[test]
fn operations_complete_out_of_order() {
    let world = world();
    let (mut io, file) = durable_file(&world, &[0; 16]);
    for i in 0..16 {
        io.write(Token(i), file, i * BLOCK_BYTES as u64, blocks(&[1]));
    }
    let mut events = Vec::new();
    while events.len() < 16 {
        io.poll(Wait::Forever, &mut events);
    }
    let order: Vec<u64> = events
        .iter()
        .map(|event| match event {
            Event::Disk(token, Ok(DiskDone::Done)) => token.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(!order.is_sorted(), "{order:?}");
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
fn one_seed_gives_one_history() {
    let run = |seed| {
        let world = World::new(seed, Faults::rough());
        let mut io = io(&world);
        let listening = listen(&mut io);
        let peer = world.connect(listening);
        peer.send(&[7; 1000]);
        let conn = accept(&mut io);
        let file = open(&mut io, "f");
        for i in 0..20 {
            io.append_durable(Token(i), file, i * BLOCK_BYTES as u64, blocks(&[i as u8]));
            outcome(&mut io, Token(i)).unwrap();
        }
        io.send(conn, vec![Slice::from(vec![1; 5000])]);
        world.advance_to(world.now() + Nanos::from_millis(500));
        (world.digest(), world.trace(), world.now(), io.random())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).0, run(6).0);
}

#[test]
fn a_waiting_poll_lets_time_pass_up_to_its_deadline() {
    let world = world();
    let mut io = io(&world);
    let start = io.now();
    let deadline = start + Nanos::from_millis(5);
    io.poll(Wait::Until(deadline), &mut Vec::new());
    assert_eq!(world.now(), deadline);
    assert_eq!(io.wall_ms(), WallMs(1_700_000_000_006));
    world.set_wall_ms(WallMs(5));
    assert_eq!(io.wall_ms(), WallMs(5));
}

#[test]
fn held_time_is_let_pass_by_the_driver_only() {
    let world = world();
    let mut io = io(&world);
    world.hold_time(true);
    let deadline = world.now() + Nanos::from_millis(5);
    let mut events = Vec::new();
    io.poll(Wait::Until(deadline), &mut events);
    assert!(world.now() < deadline && !world.has_ready(ShardId(0)));
    assert_eq!(world.next_event_at(), Some(deadline));
    io.free_bytes(Token(1));
    let due = world.next_event_at().unwrap();
    assert!(due < deadline);
    world.advance_to(due);
    assert!(world.has_ready(ShardId(0)));
    io.poll(Wait::Until(deadline), &mut events);
    assert_eq!(events.len(), 1);
    world.advance_to(world.now() + Nanos::from_millis(6));
    assert!(!world.has_ready(ShardId(0)), "a poll that found something waits no more");
}

#[test]
fn waking_makes_a_peer_ready_once() {
    let world = world();
    let (mut first, mut second) = (world.io(ShardId(0)), world.io(ShardId(1)));
    world.hold_time(true);
    second.poll(Wait::Forever, &mut Vec::new());
    assert!(!world.has_ready(ShardId(1)));
    first.wake(ShardId(1));
    assert!(world.has_ready(ShardId(1)));
    second.poll(Wait::Forever, &mut Vec::new());
    assert!(!world.has_ready(ShardId(1)));
    second.bell().ring();
    assert!(world.has_ready(ShardId(1)));
}

#[test]
fn an_offloaded_job_is_delivered_later() {
    let world = world();
    let mut io = io(&world);
    io.offload(Token(3), Box::new(|| Box::new(42_u32)));
    let mut events = Vec::new();
    io.poll(Wait::Forever, &mut events);
    let Some(Event::Offloaded(Token(3), result)) = events.pop() else { panic!("no result") };
    assert_eq!(result.downcast_ref(), Some(&42_u32));
}

fn listen(io: &mut SimIo) -> SocketAddr {
    io.listen(Token(0), "127.0.0.1:0".parse().unwrap());
    let mut events = Vec::new();
    io.poll(Wait::Forever, &mut events);
    match events.as_slice() {
        [Event::Listening(Token(0), Ok(address))] => *address,
        other => panic!("{other:?}"),
    }
}

fn accept(io: &mut SimIo) -> ConnId {
    let mut events = Vec::new();
    io.poll(Wait::Forever, &mut events);
    match events.pop() {
        Some(Event::Accepted(Token(0), socket)) => io.adopt(socket),
        other => panic!("{other:?}"),
    }
}

fn connected(world: &World) -> (SimIo, ConnId, SimPeer) {
    let mut io = world.io(ShardId(0));
    let address = listen(&mut io);
    let peer = world.connect(address);
    let conn = accept(&mut io);
    (io, conn, peer)
}

/// Everything that happens in the next second.
fn events(world: &World, io: &mut SimIo) -> Vec<Event> {
    let until = world.now() + Nanos::from_millis(1_000);
    let mut events = Vec::new();
    while world.now() < until {
        io.poll(Wait::Until(until), &mut events);
    }
    events
}

fn received(events: &[Event]) -> Vec<usize> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Received(_, bytes) => Some(bytes.len()),
            _ => None,
        })
        .collect()
}

#[test]
fn what_a_peer_sends_arrives_in_order_merged_and_split() {
    for (faults, pieces) in [(Faults::default(), 1..2), (Faults::rough(), 2..100)] {
        let world = World::new(3, faults);
        let (mut io, _, peer) = connected(&world);
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        peer.send(&bytes[..4_000]);
        peer.send(&bytes[4_000..]);
        let events = events(&world, &mut io);
        let mut all = Vec::new();
        for event in &events {
            let Event::Received(_, slice) = event else { panic!("{event:?}") };
            all.extend_from_slice(slice);
        }
        assert!(all == bytes && pieces.contains(&events.len()), "{} pieces", events.len());
    }
}

#[test]
fn a_send_is_taken_in_parts_and_waits_for_a_peer_that_does_not_read() {
    let world = World::new(3, Faults { window_bytes: 1_000, ..Faults::rough() });
    let (mut io, conn, peer) = connected(&world);
    peer.pause_reading(true);
    let bytes: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let whole = Slice::from(bytes.clone());
    io.send(conn, vec![whole.slice(0..10), whole.slice(10..5_000)]);
    assert!(events(&world, &mut io).is_empty());
    assert_eq!(peer.received(), []);
    peer.pause_reading(false);
    let events = events(&world, &mut io);
    assert!(matches!(events.as_slice(), [Event::Sent(of)] if *of == conn), "{events:?}");
    assert_eq!(peer.received(), bytes);
}

#[test]
fn reading_turned_off_leaves_bytes_with_the_sender() {
    let world = world();
    let (mut io, conn, peer) = connected(&world);
    io.receive(conn, false);
    peer.send(b"hello");
    peer.close();
    assert!(events(&world, &mut io).is_empty());
    assert_eq!(peer.unread(), 5);
    io.receive(conn, true);
    let events = events(&world, &mut io);
    assert!(matches!(events.last(), Some(Event::Closed(_, CloseReason::PeerClosed))), "{events:?}");
    assert_eq!(received(&events), [5]);
}

#[test]
fn a_reset_loses_what_was_not_received_and_nothing_follows_it() {
    let world = world();
    let (mut io, conn, peer) = connected(&world);
    peer.send(b"hello");
    peer.reset();
    let broken = CloseReason::Broken(IoError::Os(libc::ECONNRESET));
    let first = events(&world, &mut io);
    assert!(matches!(first.as_slice(), [Event::Closed(_, reason)] if *reason == broken), "{first:?}");
    io.send(conn, vec![Slice::from(b"late".to_vec())]);
    io.shutdown(conn);
    peer.send(b"more");
    assert!(events(&world, &mut io).is_empty());
}

#[test]
fn a_vanished_peer_says_nothing_and_takes_a_window_full() {
    let world = World::new(1, Faults { window_bytes: 10, ..Faults::default() });
    let (mut io, conn, peer) = connected(&world);
    peer.send(b"hello");
    peer.vanish();
    peer.close();
    io.send(conn, vec![Slice::from(vec![1; 20])]);
    assert!(events(&world, &mut io).is_empty());
    io.shutdown(conn);
    let events = events(&world, &mut io);
    assert!(matches!(events.as_slice(), [Event::Closed(_, CloseReason::Ours)]), "{events:?}");
    assert_eq!(peer.received(), []);
}

#[test]
fn shutting_down_closes_both_sides() {
    let world = world();
    let (mut io, conn, peer) = connected(&world);
    io.send(conn, vec![Slice::from(b"bye".to_vec())]);
    events(&world, &mut io);
    assert!(!peer.is_closed());
    io.shutdown(conn);
    let events = events(&world, &mut io);
    assert!(matches!(events.as_slice(), [Event::Closed(_, CloseReason::Ours)]), "{events:?}");
    assert_eq!((peer.is_closed(), peer.received()), (true, b"bye".to_vec()));
}

#[test]
fn nobody_listening_refuses_and_one_address_has_one_listener() {
    let world = world();
    let (mut first, mut second) = (world.io(ShardId(0)), world.io(ShardId(1)));
    let address = listen(&mut first);
    second.listen(Token(1), address);
    let mut events = Vec::new();
    second.poll(Wait::Forever, &mut events);
    assert!(matches!(events.as_slice(), [Event::Listening(_, Err(IoError::Os(libc::EADDRINUSE)))]));
    assert!(!world.connect(address).is_closed());
    first.unlisten(Token(0));
    assert!(world.connect(address).is_closed());
}

#[test]
fn a_crash_closes_every_connection() {
    let world = world();
    let (mut io, conn, peer) = connected(&world);
    world.crash(Crash::Kill);
    let mut events = Vec::new();
    io.poll(Wait::Forever, &mut events);
    let closed = CloseReason::Broken(IoError::Halted);
    assert!(matches!(events.as_slice(), [Event::Closed(of, reason)] if *of == conn && *reason == closed));
    assert!(peer.is_closed() && world.connect("127.0.0.1:40000".parse().unwrap()).is_closed());
}
