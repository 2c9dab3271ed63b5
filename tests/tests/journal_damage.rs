//! A journal file whose first group rots looks like one that was never started. What lies behind it tells.

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::error::Fatal;
use millstream_engine::format::journal::peek;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::types::{PartitionId, TopicId};
use millstream_tests::solo::{self, Solo};

/// Records of which a journal file holds nine.
const VALUE_BYTES: usize = 110_000;

/// A journal that is larger than what is written to it, so that nothing is trimmed.
fn config() -> Config {
    Config { journal_bytes: 32 << 20, ..solo::config() }
}

/// A node that was killed after so many records: each a group of its own.
fn killed_after(records: usize) -> (World, TopicId) {
    let world = World::new(11, Faults::default());
    let mut node = Solo::start(&world, config()).expect("an empty disk is a fresh node");
    let topic = node.create("t", 1, TopicConfig::default());
    for _ in 0..records {
        node.append(PartitionId { topic, index: 0 }, &vec![7; VALUE_BYTES]);
    }
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    (world, topic)
}

/// The journal's files that were started, in the order in which they were, with the length of their first group.
fn started(world: &World) -> Vec<(String, usize)> {
    let mut files: Vec<_> = world
        .list_all()
        .into_iter()
        .filter(|path| path.ends_with(".journal"))
        .filter_map(|path| {
            let header = peek(&world.read_file(&path)?).ok()?;
            Some((header.file_epoch, path, header.length))
        })
        .collect();
    files.sort();
    files.into_iter().map(|(_, path, length)| (path, length)).collect()
}

fn copy(world: &World) -> World {
    World::from_disk(11, world.snapshot_disk(), Faults::default())
}

/// Where a start says that the damage is.
fn damage(world: &World) -> (String, u64) {
    match Solo::start(world, config()) {
        Ok(_) => panic!("it starts"),
        Err(Fatal::Corrupt { file, position, .. }) => (file, position),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_file_whose_first_group_rots_is_named_and_not_taken_for_a_free_one() {
    // One file, with nothing else to tell of it; the last one; and one in the middle.
    for (records, rotten) in [(4, 0), (13, 1), (22, 1)] {
        let sound = killed_after(records).0;
        let files = started(&sound);
        assert_eq!(files.len(), records.div_ceil(9), "{files:?}");
        let (path, length) = &files[rotten];
        // In the header and in what it heads.
        for position in [0, 5, 40, 4_000, *length as u64 / 2] {
            let world = copy(&sound);
            world.rot(path, position, 3);
            let (file, at) = damage(&world);
            assert_eq!(&file, path, "{records} records, rot at {position}");
            assert!(at < *length as u64, "{records} records, rot at {position}: {at}");
        }
    }
}

#[test]
fn a_file_with_nothing_but_a_damaged_group_is_named_by_its_header() {
    let (sound, _) = killed_after(19);
    let files = started(&sound);
    let (middle, length) = &files[1];
    // Nothing is behind the first group but what the file held when it was made.
    let world = copy(&sound);
    let mut bytes = world.read_file(middle).expect("it was listed");
    bytes[*length..].fill(0);
    world.write_file(middle, &bytes);
    world.rot(middle, 4_000, 3);
    assert_eq!(&damage(&world).0, middle, "the last file was started behind it");
}

#[test]
fn a_torn_first_group_is_the_end_of_the_journal() {
    let (world, topic) = killed_after(10);
    let files = started(&world);
    assert_eq!(files.len(), 2);
    // The only group of the last file: nobody can tell that it was whole once.
    world.rot(&files[1].0, 50_000, 1);
    let mut node = Solo::start(&world, config()).expect("a torn tail is no damage");
    let partition = PartitionId { topic, index: 0 };
    assert_eq!(node.read_all(partition).expect("it can be read").len(), 9);
}
