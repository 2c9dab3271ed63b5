//! What each fault of the disk looks like.

use std::collections::BTreeSet;

use super::{EIO, blocks, durable_file, fills, flush, inject, io, lose_power, outcome, pool, world, write};
use crate::error::{Fatal, IoError};
use crate::io::fault::{Faults, Injection, OpKind, Outcome};
use crate::io::sim::World;
use crate::io::{Blocking, DiskDone, Event, Io, OpenMode, Space, Token, Wait};
use crate::limits::BLOCK_BYTES;

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
    assert_eq!(world.read_file("f").unwrap(), block.filled());
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
    io.space(Token(1));
    let space = |free_bytes| Space { free_bytes, total_bytes: 12_288 };
    assert!(matches!(outcome(&mut io, Token(1)), Ok(DiskDone::Space(found)) if found == space(0)));
    io.unlink(Token(1), "f");
    outcome(&mut io, Token(1)).unwrap();
    io.close(file);
    io.space(Token(1));
    assert!(matches!(outcome(&mut io, Token(1)), Ok(DiskDone::Space(found)) if found == space(12_288)));
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
fn files_come_from_and_go_to_a_real_directory() {
    let dir = std::env::temp_dir().join(format!("millstream-sim-{}", std::process::id()));
    let (from, to) = (world(), world());
    from.write_file("a/b/f", b"deep");
    from.write_file("g", b"shallow");
    from.save_dir(&dir).unwrap();
    to.load_dir(&dir).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    lose_power(&to);
    assert_eq!(to.list_all(), ["a/b/f", "g"]);
    assert_eq!(to.read_file("a/b/f").unwrap(), b"deep");
}
