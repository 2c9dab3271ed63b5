//! Golden data directories: each opens, or is refused, as it always was. `MILLSTREAM_GOLDEN=write` makes those anew that
//! are not there.
#![allow(clippy::disallowed_methods, reason = "a test reads and writes the files of its own repository")]

use std::path::PathBuf;
use std::sync::Mutex;

use millstream_engine::buffer::Pool;
use millstream_engine::error::Fatal;
use millstream_engine::inspect::{Detail, Line, Verdict, check, salvage};
use millstream_engine::io::Blocking;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::World;
use millstream_engine::types::{PartitionId, ShardId, TopicId};
use millstream_tests::golden_data::{
    JOURNAL, LARGE, LARGE_RECORDS, MESSAGES, NAMES, RECORDS, SEGMENT, WORK, body, is_settled, large_value,
    make, messages_file, open, value,
};
use millstream_tests::image;
use millstream_tests::queues::stats;
use millstream_tests::solo::{Solo, config, take_values};

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/data/v1")).join(name).with_extension("disk")
}

/// The stored directory.
fn golden(name: &str) -> World {
    // Tests run side by side, and one must not read what another has half written.
    static WRITING: Mutex<()> = Mutex::new(());
    let _guard = WRITING.lock();
    let path = path(name);
    if !path.exists() && std::env::var("MILLSTREAM_GOLDEN").is_ok_and(|how| how == "write") {
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("the folder can be made");
        std::fs::write(&path, image::save(&make(name))).expect("the file can be written");
    }
    open(&std::fs::read(&path).expect("the golden directory is there"))
}

fn refusal(name: &str) -> Fatal {
    match Solo::start(&golden(name), config()) {
        Ok(_) => panic!("{name} was opened"),
        Err(fatal) => fatal,
    }
}

/// Where a refused directory is damaged.
fn damage(name: &str) -> (String, u64) {
    match refusal(name) {
        Fatal::Corrupt { file, position, .. } => (file, position),
        other => panic!("{other}"),
    }
}

/// The verdicts of an inspection that are not good.
fn bad(world: &World) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut note = |line: Line<'_>| {
        if let Line::File(Verdict { file, damage: Some(spot), .. }) = line {
            found.push((file.clone(), spot.position));
        }
    };
    let mut io = world.io(ShardId(0));
    let mut disk = Blocking::new(&mut io, Pool::new(256 << 20));
    check(&mut disk, "", Detail::Records, &mut note).expect("it can be looked at");
    found
}

/// Saves what is sound, and gives the values of a partition of the result, the offsets left out, and what was said.
fn saved(world: &World, partition: &str) -> (Vec<Vec<u8>>, u64, String) {
    let mut said = String::new();
    let (mut from, mut to) = (world.io(ShardId(0)), world.io(ShardId(1)));
    let mut from = Blocking::new(&mut from, Pool::new(256 << 20));
    let mut to = Blocking::new(&mut to, Pool::new(256 << 20));
    let salvaged = salvage(&mut from, "", &mut to, "saved", &mut |line| said = format!("{said}{line}\n"))
        .expect("it works");
    let mut values = Vec::new();
    for path in world.list_all() {
        if path.starts_with(&format!("saved/{partition}/")) && path.ends_with(".log") {
            let bytes = world.read_file(&path).expect("it was listed");
            take_values(&bytes, millstream_engine::types::Offset(0), &mut values);
        }
    }
    let mut report = Vec::new();
    let mut note = |line: Line<'_>| {
        // It lies in the directory that it was saved from, which does not know the partitions that queues have become.
        if let Line::File(verdict @ Verdict { damage: Some(spot), .. }) = line
            && !(verdict.file.contains("/queue.") && spot.what.contains("knows no topic"))
        {
            report.push(verdict.to_string());
        }
    };
    check(&mut to, "saved", Detail::Files, &mut note).expect("it can be looked at");
    assert_eq!(report, Vec::<String>::new(), "what was saved is sound");
    (values, salvaged.lost, said)
}

fn expected(index: u32) -> Vec<Vec<u8>> {
    (0..RECORDS).map(|number| value(index, number)).collect()
}

/// Opens a directory, and holds what it gives back against what was stored.
fn opens_whole(name: &str) {
    let world = golden(name);
    assert_eq!(bad(&world), [], "{name}");
    let mut node = Solo::start(&world, config()).expect(name);
    for index in 0..2 {
        let partition = PartitionId { topic: node.topic("orders"), index };
        let values = node.read_all(partition).expect("it can be read");
        assert_eq!(values.len(), RECORDS, "{name}");
        assert_eq!(values, expected(index), "{name}");
    }
}

#[test]
fn sound_directories_open_with_everything_that_was_acknowledged() {
    opens_whole("sound");
    opens_whole("stopped");
}

#[test]
fn a_directory_whose_journal_was_trimmed_opens_whole() {
    opens_whole("trimmed");
    let world = golden("trimmed");
    let mut node = Solo::start(&world, config()).expect("it is sound");
    let partition = PartitionId { topic: node.topic("large"), index: 0 };
    let stored: Vec<_> = (0..LARGE_RECORDS).map(large_value).collect();
    assert!(node.read_all(partition).expect("it can be read") == stored, "what was stored is read");
    let (values, lost, said) = saved(&golden("trimmed"), "large-0");
    assert!(values == stored && lost == 0, "{said}");
}

#[test]
fn a_rotten_start_of_a_carried_batch_is_refused_at_the_batch() {
    let found = damage("rotten-carry");
    assert_eq!(found.0, LARGE);
    assert!(bad(&golden("rotten-carry")).contains(&found), "{:?}", bad(&golden("rotten-carry")));
}

#[test]
fn a_torn_tail_opens_without_what_nobody_was_promised() {
    opens_whole("torn-tail");
}

#[test]
fn a_rotten_group_is_refused_at_its_byte() {
    let (file, position) = damage("rotten-group");
    assert_eq!((&file[..], position / 4096), (JOURNAL, 30));
    assert_eq!(bad(&golden("rotten-group"))[0], (file, position));
}

#[test]
fn a_rotten_batch_in_a_sealed_segment_is_found_by_an_inspection_and_never_served() {
    let world = golden("rotten-segment");
    let found = bad(&world);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, SEGMENT);
    assert!(found[0].1 <= 700 && found[0].1 > 0, "the batch that holds the byte: {found:?}");
    let mut node = Solo::start(&world, config()).expect("a start does not read sealed segments");
    let partition = PartitionId { topic: node.topic("orders"), index: 0 };
    match node.read_all(partition) {
        Err(_) => {}
        Ok(values) => panic!("{} values were served", values.len()),
    }
}

#[test]
fn a_missing_segment_is_refused_by_name() {
    assert_eq!(damage("missing-file"), (SEGMENT.to_owned(), 0));
    assert_eq!(bad(&golden("missing-file")), [(SEGMENT.to_owned(), 0)]);
}

#[test]
fn rotten_small_files_are_refused_by_name() {
    for (name, file) in [("rotten-checkpoint", "shards/1-0/checkpoint"), ("rotten-metadata", "metadata/log")]
    {
        let damage = damage(name);
        assert_eq!(damage.0, file);
        assert!(bad(&golden(name)).contains(&damage), "{name}: {:?}", bad(&golden(name)));
    }
}

#[test]
fn a_newer_directory_is_refused_as_newer() {
    assert!(matches!(refusal("newer"), Fatal::Newer(_)), "{}", refusal("newer"));
    assert_eq!(bad(&golden("newer")), []);
}

/// Damages one bit in many places of a directory, one at a time.
fn rot_here_and_there(name: &str) {
    let sound = golden(name).snapshot_disk();
    let files = sound.list_all();
    let mut refusals = 0;
    for (turn, path) in files.iter().enumerate() {
        let bytes = sound.read_file(path).expect("it was listed");
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
        for part in 0..if written > 0 { 3 } else { 0 } {
            let position = (written * part + turn as u64 * 37 % written) / 3;
            let mut disk = sound.clone();
            disk.rot(path, position, (position % 8) as u8);
            let world = World::from_disk(1, disk, Faults::default());
            let found = bad(&world);
            let names_it = found.iter().any(|(file, _)| file == path);
            let place = format!("{name}, {path} at {position}: {found:?}");
            if let Err(Fatal::Corrupt { file, position, what }) = Solo::start(&world, config()) {
                refusals += 1;
                // Where a start only sees what is missing, an inspection finds the file that rotted.
                let is_same = found.contains(&(file.clone(), position));
                assert!(is_same || names_it, "{place}, refused at {file} {position}: {what}");
            }
            // An open segment's last blocks and what lies between the journal's groups are vouched for by nobody.
            let is_open = path.ends_with(".log") && !files.contains(&path.replace(".log", ".sum"));
            let is_small = path.contains("metadata") || path == "manifest" || path.ends_with("checkpoint");
            assert!(names_it || is_open || !(is_small || path.starts_with("logs/")), "{place}");
        }
    }
    assert!(refusals > 10, "{name}: {refusals} refusals");
}

#[test]
fn an_inspection_finds_every_bit_that_a_start_refuses_and_those_that_it_does_not_look_at() {
    rot_here_and_there("sound");
    rot_here_and_there("trimmed");
    rot_here_and_there("queues");
}

/// The bodies of what is not settled.
fn unsettled() -> Vec<Vec<u8>> {
    (0..WORK).filter(|number| !is_settled(*number)).map(body).collect()
}

/// The directory that a salvage puts the queue's messages in.
fn saved_queue() -> String {
    let node = Solo::start(&golden("queues"), config()).expect("it is sound");
    let id = *node.shard().metadata().queues.keys().next().expect("there is a queue");
    format!("queue.{}-0", millstream_engine::format::partition::base64(TopicId(id.0)))
}

#[test]
fn messages_of_queues_are_sound_and_can_be_saved() {
    let world = golden("queues");
    assert_eq!(bad(&world), []);
    assert!(messages_file(&world).starts_with(MESSAGES));
    let mut node = Solo::start(&world, config()).expect("it is sound");
    let id = *node.shard().metadata().queues.keys().next().expect("there is a queue");
    assert_eq!(stats(&mut node, id).ready as usize, unsettled().len());
    drop(node);
    let world = golden("queues");
    let (values, lost, said) = saved(&world, &saved_queue());
    assert!(values == unsettled() && lost == 0, "{said}");
}

#[test]
fn a_rotten_group_of_messages_is_found_and_the_others_are_saved() {
    let (file, position) = damage("rotten-messages");
    let found = bad(&golden("rotten-messages"));
    assert!(file == messages_file(&golden("queues")) && found.contains(&(file, position)), "{found:?}");
    assert!(found.iter().any(|(file, _)| file == MESSAGES), "some are nowhere: {found:?}");
    let world = golden("rotten-messages");
    let (values, _, said) = saved(&world, &saved_queue());
    let all = unsettled();
    assert!(values.len() < all.len() && !values.is_empty(), "{said}");
    assert!(values.iter().all(|value| all.contains(value)), "what is saved is as it was");
    assert!(said.contains("is nowhere"), "{said}");
}

#[test]
fn a_missing_file_of_messages_is_told_by_name() {
    let file = messages_file(&golden("queues"));
    assert!(Solo::start(&golden("missing-messages"), config()).is_err());
    let found = bad(&golden("missing-messages"));
    assert!(found.contains(&(file, 0)) && found.contains(&(MESSAGES.to_owned(), 0)), "{found:?}");
}

#[test]
fn salvage_saves_everything_of_whatever_is_sound() {
    for name in ["sound", "stopped", "torn-tail", "rotten-checkpoint", "newer"] {
        for index in 0..2 {
            let (values, lost, said) = saved(&golden(name), &format!("orders-{index}"));
            assert_eq!((values, lost), (expected(index), 0), "{name}: {said}");
        }
    }
}

#[test]
fn salvage_leaves_out_what_is_damaged_and_says_so() {
    // The journal still holds what the segment has lost.
    for name in ["rotten-segment", "missing-file"] {
        let (values, lost, said) = saved(&golden(name), "orders-0");
        assert_eq!((values, lost), (expected(0), 0), "{name}: {said}");
    }
    // One group was damaged, and one record was in it.
    let (untouched, lost, _) = saved(&golden("rotten-group"), "orders-0");
    assert_eq!((untouched, lost), (expected(0), 1));
    let (values, _, said) = saved(&golden("rotten-group"), "orders-1");
    let mut others = expected(1);
    others.remove(14);
    assert_eq!(values, others);
    let reason = format!("orders-1: offsets 14..15 are left out: {JOURNAL} is damaged at byte ");
    assert!(said.contains(&reason), "{said}");
}

#[test]
fn every_golden_directory_is_there_and_small() {
    let sizes: u64 = NAMES
        .iter()
        .map(|name| {
            drop(golden(name));
            path(name).metadata().expect("the golden directory is there").len()
        })
        .sum();
    assert!(sizes < 5 << 18, "{sizes} bytes");
}
