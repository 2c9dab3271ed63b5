//! Files and directories.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use millstream_engine::buffer::{Pool, Slice};
use millstream_engine::error::IoError;
use millstream_engine::io::uring::{Peers, Uring, UringOptions};
use millstream_engine::io::{DiskDone, Event, Io, OpenMode, Token, Wait, probe};
use millstream_engine::time::Nanos;
use millstream_engine::types::ShardId;

use crate::rig::{Dir, PATIENCE, Rig, TOKEN, pattern};

/// Aligned bytes that differ from piece to piece.
fn aligned(seed: u8, len: usize) -> Slice {
    let mut block = Pool::new(64 << 20).block(len).unwrap();
    for i in 0..len {
        block.push(&[seed.wrapping_add((i / 1000) as u8)]);
    }
    block.freeze()
}

#[test]
fn a_durable_append_is_announced_written_then_durable_and_reads_back() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let (file, len) = rig.open("journal", OpenMode::Direct);
    assert_eq!(len, 0);
    let (first, second) = (aligned(1, 8192), aligned(2, 1 << 20));
    for (at, bytes) in [(0, &first), (8192, &second)] {
        rig.io.append_durable(TOKEN, file, at, bytes.clone());
        let event = rig.next();
        assert!(matches!(event, Event::Written(TOKEN)), "{event:?}");
        rig.done();
    }
    assert_eq!(rig.read(file, 0, 8192), first[..]);
    assert_eq!(rig.read(file, 8192, 1 << 20), second[..]);
    assert_eq!(rig.read(file, 1 << 20, 65536), second[(1 << 20) - 8192..], "a read ends at the file's end");
    rig.io.close(file);
    let (_, len) = rig.open("journal", OpenMode::Read);
    assert_eq!(len, 8192 + (1 << 20));
}

/// Whether some descriptor of this process is open on `path` with O_DIRECT.
fn is_open_directly(path: &Path) -> bool {
    fs::read_dir("/proc/self/fd").unwrap().any(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        fs::read_link(entry.path()).is_ok_and(|target| target == path)
            && fs::read_to_string(format!("/proc/self/fdinfo/{name}")).is_ok_and(|info| {
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
                i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_DIRECT != 0
            })
    })
}

#[test]
fn a_direct_file_is_written_past_the_page_cache_where_that_can_be() {
    let dir = Dir::new();
    let path = dir.0.join("direct");
    let mut rig = Rig::new(&dir.0);
    let (file, _) = rig.open("direct", OpenMode::Direct);
    assert_eq!(is_open_directly(&path), probe::probe(&dir.0).unwrap().direct);
    rig.io.write(TOKEN, file, 4096, aligned(3, 4096));
    rig.done();
    assert_eq!(fs::metadata(&path).unwrap().len(), 8192);
    rig.open("direct", OpenMode::Buffered);
    rig.io.close(file);
    // A worker closes it.
    let deadline = rig.io.now() + PATIENCE;
    while is_open_directly(&path) {
        assert!(rig.io.now() < deadline, "the file is never closed");
        rig.poll(Wait::Until(rig.io.now() + Nanos::from_millis(1)));
    }
}

#[test]
fn without_direct_a_direct_file_goes_through_the_page_cache() {
    let dir = Dir::new();
    let (root, peers) = (dir.0.clone(), Arc::new(Peers::new(1)));
    let receive_pool = Pool::new(1 << 20);
    let options = UringOptions { shard: ShardId(0), root, peers, direct: false, receive_pool };
    let mut rig = Rig { io: Uring::new(options).unwrap(), events: VecDeque::new() };
    let (file, _) = rig.open("file", OpenMode::Direct);
    rig.io.write(TOKEN, file, 100, Slice::from(vec![1; 100]));
    rig.done();
    assert_eq!(rig.read(file, 150, 100), [1; 50]);
}

#[test]
fn files_and_directories_are_made_renamed_listed_and_removed() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    for _ in 0..2 {
        rig.io.make_dir(TOKEN, "topic-0");
        rig.done();
    }
    let (file, _) = rig.open("topic-0/b.new", OpenMode::Buffered);
    rig.io.write(TOKEN, file, 0, Slice::from(b"hello".to_vec()));
    rig.done();
    rig.io.flush(TOKEN, file);
    rig.done();
    rig.io.set_len(TOKEN, file, 4);
    rig.done();
    rig.io.close(file);
    rig.io.rename(TOKEN, "topic-0/b.new", "topic-0/b");
    rig.done();
    for path in ["topic-0", ""] {
        rig.io.sync_dir(TOKEN, path);
        rig.done();
    }
    rig.open("topic-0/a", OpenMode::Buffered);
    assert_eq!(rig.names("topic-0"), ["a", "b"]);
    assert_eq!(rig.names(""), ["topic-0/"]);
    assert_eq!(fs::read(dir.0.join("topic-0/b")).unwrap(), b"hell");
    rig.io.unlink(TOKEN, "topic-0");
    assert!(rig.disk().is_err(), "a directory with files in it stays");
    for path in ["topic-0/a", "topic-0/b", "topic-0"] {
        rig.io.unlink(TOKEN, path);
        rig.done();
    }
    assert_eq!(rig.names(""), [""; 0]);
}

#[test]
fn what_is_not_there_is_not_found() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    rig.io.open(TOKEN, "nothing", OpenMode::Read);
    assert!(matches!(rig.disk(), Err(IoError::NotFound)));
    rig.io.list(TOKEN, "nothing");
    assert!(matches!(rig.disk(), Err(IoError::NotFound)));
    rig.io.sync_dir(TOKEN, "nothing");
    assert!(matches!(rig.disk(), Err(IoError::NotFound)));
    rig.io.map(TOKEN, "nothing");
    assert!(matches!(rig.disk(), Err(IoError::NotFound)));
}

#[test]
fn what_was_written_past_the_page_cache_is_resident_once_it_is_mapped() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let len = 1 << 20;
    let (file, _) = rig.open("sealed", OpenMode::Direct);
    rig.io.append_durable(TOKEN, file, 0, aligned(1, len));
    assert!(matches!(rig.next(), Event::Written(TOKEN)));
    rig.done();
    rig.io.map(TOKEN, "sealed");
    let map = match rig.disk() {
        Ok(DiskDone::Mapped(map)) => map,
        other => panic!("map answered {other:?}"),
    };
    // Not from the start of a page to the end of one.
    let part = map.slice(1000..len - 1000);
    assert!(rig.io.is_resident(&part) && rig.io.is_resident(&map));
    let (file, _) = rig.open("sealed", OpenMode::Read);
    assert_eq!(rig.read(file, 0, len), map[..]);
    drop(part);
    rig.io.unmap(map);
    rig.io.space(TOKEN);
    assert!(matches!(rig.disk(), Ok(DiskDone::Space(_))), "the helper threads go on");
}

#[test]
fn blocks_are_read_past_the_page_cache_up_to_the_files_end() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let bytes = aligned(3, 1 << 20);
    let (file, _) = rig.open("sealed", OpenMode::Direct);
    rig.io.write(TOKEN, file, 0, bytes.clone());
    rig.done();
    // A sealed file ends where its last batch does.
    rig.io.set_len(TOKEN, file, (1 << 20) - 100);
    rig.done();
    rig.io.open(TOKEN, "nothing", OpenMode::ReadDirect);
    assert!(matches!(rig.disk(), Err(IoError::NotFound)));
    let (file, len) = rig.open("sealed", OpenMode::ReadDirect);
    assert_eq!(len, (1 << 20) - 100);
    assert_eq!(rig.read(file, 8192, 65_536), bytes[8192..73_728]);
    assert_eq!(rig.read(file, 1 << 19, 1 << 19), bytes[1 << 19..(1 << 20) - 100]);
}

#[test]
fn a_file_can_be_mapped_and_space_counted() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    fs::write(dir.0.join("sealed"), pattern(100_000)).unwrap();
    rig.io.map(TOKEN, "sealed");
    match rig.disk() {
        Ok(DiskDone::Mapped(slice)) => assert_eq!(slice[..], pattern(100_000)),
        other => panic!("map answered {other:?}"),
    }
    rig.io.space(TOKEN);
    match rig.disk() {
        Ok(DiskDone::Space(space)) => assert!(0 < space.free_bytes && space.free_bytes <= space.total_bytes),
        other => panic!("space was answered {other:?}"),
    }
}

#[test]
fn more_cold_reads_than_the_slow_lane_has_places_all_complete() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let (file, _) = rig.open("cold", OpenMode::Direct);
    let bytes = aligned(0, 1 << 20);
    rig.io.write(TOKEN, file, 0, bytes.clone());
    rig.done();
    let (pool, chunk) = (Pool::new(64 << 20), 16384);
    for i in 0..64u64 {
        rig.io.read(Token(i), file, i * chunk as u64, pool.block(chunk).unwrap(), chunk);
    }
    let mut seen = [false; 64];
    for _ in 0..64 {
        match rig.next() {
            Event::Disk(Token(i), Ok(DiskDone::Read(block))) => {
                let i = i as usize;
                assert_eq!(block.filled(), &bytes[i * chunk..(i + 1) * chunk]);
                assert!(!std::mem::replace(&mut seen[i], true), "read {i} was answered twice");
            }
            other => panic!("a read was answered by {other:?}"),
        }
    }
}

#[test]
fn a_file_outside_the_page_cache_is_read_through_it() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let bytes = aligned(5, 1 << 20);
    let (file, _) = rig.open("sealed", OpenMode::Direct);
    rig.io.write(TOKEN, file, 0, bytes.clone());
    rig.done();
    let (file, len) = rig.open("sealed", OpenMode::Read);
    assert_eq!(len, 1 << 20);
    // Cold, then partly cached, then cached.
    assert_eq!(rig.read(file, 500_001, 9999), bytes[500_001..510_000]);
    assert_eq!(rig.read(file, 0, 1 << 20), bytes[..]);
    assert_eq!(rig.read(file, 0, 1 << 20), bytes[..]);
}

#[test]
fn many_operations_at_once_overflow_no_queue() {
    let dir = Dir::new();
    let mut rig = Rig::new(&dir.0);
    let (file, _) = rig.open("file", OpenMode::Buffered);
    for i in 0..6000u64 {
        rig.io.write(Token(i), file, i, Slice::from(vec![i as u8]));
    }
    let mut seen = vec![false; 6000];
    for _ in 0..6000 {
        match rig.next() {
            Event::Disk(Token(i), Ok(DiskDone::Done)) => seen[i as usize] = true,
            other => panic!("a write was answered by {other:?}"),
        }
    }
    assert!(seen.iter().all(|seen| *seen));
    let written = rig.read(file, 0, 6000);
    assert!(written.iter().enumerate().all(|(i, byte)| *byte == i as u8));
}

#[test]
fn dropping_a_shard_with_work_under_way_gives_all_memory_back() {
    let dir = Dir::new();
    let pool = Pool::new(64 << 20);
    let mut rig = Rig::of(&dir.0, 0, &Arc::new(Peers::new(1)), pool.clone());
    let address = rig.listen();
    let (conn, peer) = rig.connect(address);
    let (file, _) = rig.open("file", OpenMode::Direct);
    let mut block = pool.block(8 << 20).unwrap();
    block.push_zeros(8 << 20);
    let bytes = block.freeze();
    rig.io.append_durable(TOKEN, file, 0, bytes.slice(0..1 << 20));
    for i in 0..20 {
        rig.io.read(Token(i), file, 0, pool.block(65536).unwrap(), 65536);
    }
    rig.io.send(conn, vec![bytes]);
    rig.poll(Wait::No);
    drop(rig);
    assert_eq!(pool.usage().in_use, 0);
    drop(peer);
}
