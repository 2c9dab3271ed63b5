//! A data directory that was served and lacks a part: whoever deleted it is told, and what is left stays as it is.

use std::cell::RefCell;
use std::collections::BTreeMap;

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::error::Fatal;
use millstream_engine::format::settings::to_pairs;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::ShardId;
use millstream_tests::crash::at_every_nth_crash_point;
use millstream_tests::sim::audit::ask;
use millstream_tests::sim::canary::{Cage, Canary};
use millstream_tests::sim::node::SimNode;
use millstream_tests::solo;

const SHARDS: u16 = 2;
/// Of the points of a start, every so many-th.
const STRIDE: usize = 3;

fn try_start(world: &World, shards: u16) -> Result<SimNode, Fatal> {
    let config = Config { shards, ..solo::config() };
    SimNode::start(world, &config, &Cage::new(Canary::None), 5)
}

fn start(world: &World, shards: u16) -> SimNode {
    try_start(world, shards).unwrap_or_else(|fatal| panic!("it does not start: {fatal}"))
}

/// A directory in which something was stored, and that was left in good order, or not.
fn served(in_order: bool) -> World {
    let world = World::new(5, Faults::default());
    let mut node = start(&world, SHARDS);
    let settings = to_pairs(&TopicConfig::default());
    let create = Request::CreateTopic { name: "t".to_owned(), partitions: Some(4), settings };
    let reply = ask(&mut node, ShardId(0), ShardId(0), create);
    assert!(matches!(reply, Ok(Reply::TopicCreated(_))), "it can be made");
    if in_order {
        node.stop().expect("nothing is in the way");
    }
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    world
}

/// Every file.
fn files(world: &World) -> BTreeMap<String, Vec<u8>> {
    let read = |path: String| (path.clone(), world.read_file(&path).expect("it was listed"));
    world.list_all().into_iter().map(read).collect()
}

/// A world with these files. Directories without any are gone with them.
fn with(files: &BTreeMap<String, Vec<u8>>) -> World {
    let world = World::new(6, Faults::default());
    for (path, bytes) in files {
        world.write_file(path, bytes);
    }
    world
}

/// Without what lies under a path, nothing starts, the missing part is named, and nothing is changed. With it, it goes on.
fn is_missed(whole: &BTreeMap<String, Vec<u8>>, path: &str, named: &[&str]) {
    let mut rest = whole.clone();
    rest.retain(|file, _| file != path && !file.starts_with(&format!("{path}/")));
    assert!(rest.len() < whole.len(), "there is {path}");
    let world = with(&rest);
    // Neither with as many shards as before nor with others.
    for shards in [SHARDS, 1] {
        match try_start(&world, shards) {
            Err(Fatal::Missing { what, .. }) => assert_eq!(what, named, "without {path}"),
            Err(other) => panic!("without {path}: {other}"),
            Ok(_) => panic!("it starts without {path}"),
        }
        assert!(files(&world) == rest, "without {path} something is changed");
    }
    for (file, bytes) in whole {
        world.write_file(file, bytes);
    }
    assert!(start(&world, SHARDS).metadata(ShardId(0)).topic("t").is_some());
}

#[test]
fn whatever_part_was_deleted_is_named_and_nothing_is_started_without_it() {
    for in_order in [true, false] {
        let whole = files(&served(in_order));
        is_missed(&whole, "shards", &["shards/1-0", "shards/1-1"]);
        is_missed(&whole, "shards/1-1", &["shards/1-1"]);
        is_missed(&whole, "metadata", &["metadata/snapshot"]);
        is_missed(&whole, "metadata/snapshot", &["metadata/snapshot"]);
        is_missed(&whole, "manifest", &["manifest"]);
    }
}

#[test]
fn the_journal_of_a_shard_that_has_more_is_missed() {
    let world = served(false);
    // A checkpoint is written when files of the journal are to be used again.
    start(&world, 1).stop().expect("nothing is in the way");
    let whole = files(&world);
    assert!(whole.contains_key("shards/2-0/checkpoint"));
    let mut rest = whole;
    rest.retain(|file, _| !file.starts_with("shards/2-0/journal/"));
    match try_start(&with(&rest), 1) {
        Err(Fatal::Missing { what, .. }) => assert_eq!(what, ["shards/2-0/journal"]),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it starts"),
    }
}

#[test]
fn a_first_start_that_is_cut_off_anywhere_is_no_loss() {
    for crash in [Crash::Kill, Crash::Power(Survivors::None), Crash::Power(Survivors::Some)] {
        let started = RefCell::new(0);
        let points = at_every_nth_crash_point(
            STRIDE,
            || World::new(7, Faults::default()),
            |world| *started.borrow_mut() += u32::from(try_start(world, SHARDS).is_ok()),
            |world, _| {
                world.crash(crash);
                start(world, SHARDS);
            },
        );
        assert!(points.count() > 20 && started.into_inner() > 0, "a start takes some steps");
    }
}

#[test]
fn so_is_one_with_another_number_of_shards() {
    for crash in [Crash::Kill, Crash::Power(Survivors::None), Crash::Power(Survivors::Some)] {
        let whole = files(&served(false));
        at_every_nth_crash_point(
            2 * STRIDE,
            || with(&whole),
            |world| drop(try_start(world, 3)),
            |world, _| {
                world.crash(crash);
                assert!(start(world, 3).metadata(ShardId(0)).topic("t").is_some());
            },
        );
    }
}
