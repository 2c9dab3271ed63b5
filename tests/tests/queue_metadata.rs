//! Queues and the host's entries in the metadata: changed together or not at all, and kept as far as was asked.

use millstream_engine::config::QueueSettings;
use millstream_engine::error::Refusal;
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::shard::change::{Edit, EntryKey, Guard, MetadataChange, NewQueue};
use millstream_engine::shard::metadata::{Changed, Metadata};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::types::{MetadataEpoch, QueueId};
use millstream_tests::solo::{Solo, config};

fn start(world: &World) -> Solo {
    Solo::start(world, config()).expect("the directory is sound")
}

fn world() -> World {
    World::new(11, Faults::default())
}

fn crash(world: &World, node: Solo) -> Solo {
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    start(world)
}

fn change(node: &mut Solo, guards: &[Guard], edits: &[Edit]) -> Result<Vec<QueueId>, Refusal> {
    let change = MetadataChange { guards: guards.to_vec(), edits: edits.to_vec() };
    match node.ask(Request::ChangeMetadata(change)) {
        Reply::Changed(created) => Ok(created),
        Reply::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn queue(name: &str, durable: bool) -> Edit {
    let settings = QueueSettings { max_priority: Some(3), ..QueueSettings::default() };
    Edit::CreateQueue(NewQueue { name: name.into(), durable, settings })
}

fn key(key: &str) -> EntryKey {
    EntryKey { kind: 4, key: key.into() }
}

fn entry(name: &str, value: &str, transient: bool) -> Edit {
    Edit::SetEntry { key: key(name), value: value.into(), transient }
}

fn value(metadata: &Metadata, name: &str) -> Option<String> {
    metadata.entry(&key(name)).map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
}

fn version(node: &Solo, name: &str) -> Option<MetadataEpoch> {
    node.shard().metadata().entry(&key(name)).map(|entry| entry.version)
}

#[test]
fn queues_and_entries_are_kept_over_a_crash_and_transient_ones_are_not() {
    let world = world();
    let mut node = start(&world);
    let edits = [queue("kept", true), queue("passing", false), entry("a", "1", false), entry("b", "2", true)];
    let created = change(&mut node, &[], &edits).expect("it may be");
    let metadata = node.shard().metadata();
    let ids = ["kept", "passing"].map(|name| metadata.queue_named(name.as_bytes()).map(|queue| queue.id));
    assert_eq!(ids, [Some(created[0]), Some(created[1])]);
    assert_eq!((value(metadata, "a"), value(metadata, "b")), (Some("1".into()), Some("2".into())));
    for _ in 0..2 {
        node = crash(&world, node);
        let metadata = node.shard().metadata();
        let kept = metadata.queue(created[0]).expect("it is durable");
        assert_eq!((&kept.name[..], kept.settings.max_priority), (&b"kept"[..], Some(3)));
        assert!(metadata.queue(created[1]).is_none() && metadata.queue_named(b"passing").is_none());
        assert_eq!((value(metadata, "a"), value(metadata, "b")), (Some("1".into()), None));
    }
    let settings = QueueSettings { max_messages: Some(5), ..QueueSettings::default() };
    let configure = Edit::ConfigureQueue { queue: created[0], settings: settings.clone() };
    // An entry that becomes transient is not kept with its old value either.
    let edits = [configure, entry("a", "3", true), entry("c", "4", false)];
    assert_eq!(change(&mut node, &[], &edits), Ok(Vec::new()));
    node = crash(&world, node);
    let metadata = node.shard().metadata();
    assert_eq!(metadata.queue(created[0]).map(|queue| &queue.settings), Some(&settings));
    assert_eq!((value(metadata, "a"), value(metadata, "c")), (None, Some("4".into())));
    let gone = [Edit::DeleteQueue(created[0]), Edit::RemoveEntry(key("c")), Edit::RemoveEntry(key("never"))];
    assert_eq!(change(&mut node, &[], &gone), Ok(Vec::new()));
    for _ in 0..2 {
        let metadata = node.shard().metadata();
        assert!(metadata.queues.is_empty() && metadata.entries.is_empty() && metadata.queue_names.is_empty());
        assert!(metadata.deleted_queues.contains(&created[0]), "a journal may hold something of it");
        node = crash(&world, node);
    }
}

#[test]
fn a_change_is_made_as_a_whole_or_refused_as_a_whole() {
    let mut node = start(&world());
    let id = change(&mut node, &[], &[queue("q", true), entry("a", "1", false)]).expect("it may be")[0];
    let epoch = node.shard().metadata().epoch;
    let unknown = QueueId([7; 16]);
    let long = "n".repeat(1_025);
    let refused = [
        (vec![entry("a", "2", false), queue("q", true)], Refusal::QueueExists(id)),
        (vec![entry("a", "2", false), Edit::DeleteQueue(unknown)], Refusal::UnknownQueue),
        (vec![Edit::DeleteQueue(id), Edit::DeleteQueue(id)], Refusal::UnknownQueue),
        (
            vec![
                Edit::DeleteQueue(id),
                Edit::ConfigureQueue { queue: id, settings: QueueSettings::default() },
            ],
            Refusal::UnknownQueue,
        ),
        (
            vec![queue("new", true), queue("new", false)],
            Refusal::InvalidQueue("it is created twice in one change"),
        ),
        (vec![queue("new", true), queue(&long, false)], Refusal::InvalidQueue("its name is too long")),
    ];
    for (edits, refusal) in refused {
        assert_eq!(change(&mut node, &[], &edits), Err(refusal));
    }
    let metadata = node.shard().metadata();
    assert_eq!((metadata.epoch, metadata.queues.size()), (epoch, 1));
    assert_eq!(value(metadata, "a").as_deref(), Some("1"));
    // A name may go on to another incarnation within one change.
    let again = change(&mut node, &[], &[Edit::DeleteQueue(id), queue("q", false)]).expect("it may be")[0];
    assert_eq!(node.shard().metadata().queue_named(b"q").map(|queue| queue.id), Some(again));
}

#[test]
fn a_change_whose_guards_do_not_hold_is_a_conflict() {
    let mut node = start(&world());
    let id = change(&mut node, &[], &[queue("q", true), entry("a", "1", false)]).expect("it may be")[0];
    let seen = version(&node, "a");
    let absent = Guard::Entry(key("b"), None);
    let bind = [entry("b", "a -> q", false)];
    let holds = [Guard::Entry(key("a"), seen), Guard::Queue(id), absent.clone()];
    assert_eq!(change(&mut node, &holds, &bind), Ok(Vec::new()));
    assert_eq!(change(&mut node, &[absent], &bind), Err(Refusal::Conflict), "it is there");
    assert_eq!(change(&mut node, &[], &[entry("a", "1", false)]), Ok(Vec::new()));
    let changed = [Guard::Entry(key("a"), seen)];
    assert_eq!(change(&mut node, &changed, &bind), Err(Refusal::Conflict), "the same value, but set anew");
    assert_eq!(change(&mut node, &[], &[Edit::DeleteQueue(id)]), Ok(Vec::new()));
    assert_eq!(change(&mut node, &[Guard::Queue(id)], &bind), Err(Refusal::Conflict), "it is gone");
}

#[test]
fn a_change_may_rely_on_an_entry_that_is_there_and_on_others_that_are_not() {
    let mut node = start(&world());
    let exists = [Guard::Exists(key("a"))];
    let none = [Guard::NoneUnder(key("a/"))];
    let with = [entry("a/1", "1", false)];
    assert_eq!(change(&mut node, &exists, &with), Err(Refusal::Conflict), "there is no such entry");
    assert_eq!(change(&mut node, &[], &[entry("a", "1", false), entry("a.", "", false)]), Ok(Vec::new()));
    assert_eq!(change(&mut node, &none, &[entry("a0", "1", false)]), Ok(Vec::new()), "none begins like that");
    assert_eq!(change(&mut node, &exists, &with), Ok(Vec::new()));
    let remove = [Edit::RemoveEntry(key("a"))];
    assert_eq!(change(&mut node, &none, &remove), Err(Refusal::Conflict), "one begins like that");
    assert_eq!(change(&mut node, &[], &[Edit::RemoveEntry(key("a/1"))]), Ok(Vec::new()));
    assert_eq!(change(&mut node, &none, &remove), Ok(Vec::new()));
}

#[test]
fn a_host_is_told_what_is_new_since_it_last_looked() {
    let mut node = start(&world());
    let before = node.shard().metadata().epoch;
    let id = change(&mut node, &[], &[queue("q", false), entry("a", "1", true)]).expect("it may be")[0];
    change(&mut node, &[], &[Edit::RemoveEntry(key("a")), Edit::DeleteQueue(id)]).expect("it may be");
    let changed: Vec<_> =
        node.shard().metadata().changed_since(before).expect("not long ago").cloned().collect();
    let (queue, entry) = (Changed::Queue(id, b"q".to_vec()), Changed::Entry(key("a")));
    assert_eq!(changed, [queue.clone(), entry.clone(), entry, queue]);
}
