//! What rots in a stored segment is found by the scrub, named, and served to nobody; what is sound is left in peace; and nobody
//! waits for it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use millstream_engine::config::{Config, TopicConfig};
use millstream_engine::error::{IoError, Refusal};
use millstream_engine::format::partition::{SEGMENT_FILES, SegmentFile};
use millstream_engine::io::fault::{Faults, Injection, OpKind, Outcome};
use millstream_engine::io::sim::{Crash, Survivors, World};
use millstream_engine::limits::{READ_CHUNK_BYTES, SCRUB_BYTES_PER_SECOND};
use millstream_engine::log::paths;
use millstream_engine::shard::request::Reply;
use millstream_engine::time::Nanos;
use millstream_engine::types::{Offset, PartitionId};
use millstream_tests::solo::{self, Solo};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// A few blocks of checksums each.
const SEGMENT_BYTES: u32 = 200_000;
const VALUE_BYTES: usize = 9_000;
/// Three sealed segments and an open one.
const APPENDS: usize = 75;

/// With a pass at the start, and none that matters after it.
fn config() -> Config {
    Config { scrub_interval_ms: 3_600_000, ..solo::config() }
}

fn start(world: &World, config: Config) -> Solo {
    Solo::start(world, config).unwrap_or_else(|fatal| panic!("it does not start: {fatal}"))
}

fn fill(node: &mut Solo, name: &str, segment_bytes: u32, appends: usize) -> PartitionId {
    let topic = node.create(name, 1, TopicConfig { segment_bytes, ..TopicConfig::default() });
    let partition = PartitionId { topic, index: 0 };
    for number in 0..appends {
        node.append(partition, &[number as u8; VALUE_BYTES]);
    }
    // What is sealed goes to its files.
    node.pass(Nanos::from_millis(3_000));
    partition
}

/// A directory with stored segments, that nobody serves.
fn stored() -> World {
    let world = World::new(5, Faults::default());
    let mut node = start(&world, Config { scrub_interval_ms: 0, ..config() });
    for name in ["a", "b"] {
        fill(&mut node, name, SEGMENT_BYTES, APPENDS);
    }
    node.stop().expect("it ends in good order");
    world.crash(Crash::Power(Survivors::None));
    world
}

fn copy(world: &World) -> World {
    World::from_disk(6, world.snapshot_disk(), Faults::default())
}

/// The bases of the partition's stored segments.
fn bases(node: &Solo, partition: PartitionId) -> Vec<Offset> {
    let logs = node.shard().logs();
    let log = logs.find(partition).and_then(|index| logs.get(index)).expect("it is there");
    log.segments.iter().filter(|segment| segment.stored).map(|segment| segment.base).collect()
}

/// What is logged.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Said {
    type Writer = Said;

    fn make_writer(&'a self) -> Said {
        self.clone()
    }
}

/// Lets the node go through a pass; gives what it has found, damaged and unreadable, and what it has said of it.
fn pass(node: &mut Solo) -> ([u64; 2], String) {
    let metrics = node.metrics();
    let passes = || metrics.get(|shard| shard.scrub_passes.get());
    let findings = || [0, 1].map(|kind| metrics.get(|shard| shard.scrub_findings.at(kind).get()));
    let said = Said::default();
    let (first, before) = (passes(), findings());
    {
        let subscriber = tracing_subscriber::fmt().with_writer(said.clone()).with_ansi(false).finish();
        let _guard = subscriber.set_default();
        for _ in 0..600 {
            node.pass(Nanos::from_millis(100));
            if passes() > first {
                break;
            }
        }
    }
    assert!(passes() > first, "no pass comes to its end");
    let said = said.0.lock().unwrap_or_else(PoisonError::into_inner);
    let now = findings();
    ([now[0] - before[0], now[1] - before[1]], String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn everything_that_is_stored_is_read_once_in_a_pass_and_sound_files_are_left_in_peace() {
    let world = stored();
    let mut node = start(&world, config());
    let mut bytes = 0;
    for name in ["a", "b"] {
        let partition = PartitionId { topic: node.topic(name), index: 0 };
        let stored = bases(&node, partition);
        assert_eq!(stored.len(), 3);
        for base in stored {
            let sizes = SEGMENT_FILES.map(|(file, _)| {
                let path = paths::segment(&format!("logs/{name}-0"), base, file);
                world.read_file(&path).map_or(0, |bytes| bytes.len() as u64)
            });
            bytes += sizes.iter().sum::<u64>();
        }
    }
    let (findings, said) = pass(&mut node);
    assert_eq!((findings, said.contains("scrub")), ([0, 0], false), "{said}");
    assert_eq!(node.metrics().get(|shard| shard.scrub_bytes.get()), bytes);
    node.pass(Nanos::from_millis(20_000));
    assert_eq!(node.metrics().get(|shard| shard.scrub_passes.get()), 1, "the next pass is an hour away");
}

#[test]
fn a_bit_that_flips_in_any_file_is_found_and_named_by_file_and_block() {
    let sound = stored();
    let files = [SegmentFile::Log, SegmentFile::Index, SegmentFile::TimeIndex, SegmentFile::Sum];
    for (turn, file) in files.into_iter().enumerate() {
        let path = paths::segment("logs/b-0", Offset([0, 22, 44][turn % 3]), file);
        let len = sound.read_file(&path).map_or(0, |bytes| bytes.len() as u64);
        assert!(len > 0, "{path} is not there");
        for position in [0, len / 2, len - 1] {
            let world = copy(&sound);
            world.rot(&path, position, 5);
            let mut node = start(&world, config());
            let (findings, said) = pass(&mut node);
            let block = if file == SegmentFile::Sum { position.min(4) / 4 * 4 } else { position >> 16 << 16 };
            let named = format!("path=\"{path}\" position={block} ");
            assert_eq!(findings, [1, 0], "{path} at {position}: {said}");
            assert!(said.contains(&named), "{named}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[test]
fn a_file_that_is_cut_or_empty_or_cannot_be_read_is_found() {
    let sound = stored();
    for (file, keep) in [(SegmentFile::Log, 70_000), (SegmentFile::Index, 8), (SegmentFile::Sum, 0)] {
        let path = paths::segment("logs/a-0", Offset(22), file);
        let world = copy(&sound);
        let bytes = world.read_file(&path).expect("it is there");
        world.write_file(&path, &bytes[..keep]);
        let (findings, said) = pass(&mut start(&world, config()));
        assert_eq!(findings, [1, 0], "{path}: {said}");
        assert!(said.contains(&format!("path=\"{path}\" position={keep} ")), "{said}");
    }
    let world = copy(&sound);
    let mut node = start(&world, config());
    let outcome = Outcome::Fails(IoError::Os(5));
    world.inject(Injection { op: OpKind::Read, path: ".timeindex".to_owned(), skip: 2, outcome });
    let (findings, said) = pass(&mut node);
    assert_eq!(findings, [0, 1], "{said}");
    assert!(said.contains("it cannot be read"), "{said}");
}

#[test]
fn what_was_sound_when_it_was_read_first_is_not_served_after_the_scrub_has_found_it_rotten() {
    let world = stored();
    let mut node = start(&world, Config { scrub_interval_ms: 5_000, ..config() });
    let partition = PartitionId { topic: node.topic("a"), index: 0 };
    pass(&mut node);
    assert_eq!(node.read_all(partition).expect("it is sound").len(), APPENDS);
    world.rot("logs/a-0/00000000000000000022.log", 5_000, 1);
    let (findings, said) = pass(&mut node);
    assert_eq!(findings, [1, 0], "{said}");
    let refused = node.read_all(partition).expect_err("it is rotten");
    assert!(matches!(refused, Reply::Refused(Refusal::CorruptData)), "{refused:?}");
    let (findings, _) = pass(&mut node);
    assert_eq!(findings, [1, 0], "each pass tells of it anew");
}

#[test]
fn it_reads_so_much_in_a_second_and_one_piece_beside_others() {
    let world = World::new(5, Faults::default());
    let large = Config { journal_bytes: 8 << 20, ..config() };
    let mut node = start(&world, Config { scrub_interval_ms: 0, ..large.clone() });
    let partition = fill(&mut node, "a", 4 << 20, 2_500);
    assert!(bases(&node, partition).len() >= 5, "there is enough for some seconds");
    node.stop().expect("it ends in good order");
    world.crash(Crash::Power(Survivors::None));

    let mut node = start(&copy(&world), large.clone());
    let metrics = node.metrics();
    let read = || metrics.get(|shard| shard.scrub_bytes.get()) as usize;
    // A start counts as a commit; behind it there is nothing else to be done.
    node.pass(Nanos::from_millis(500));
    let first = read();
    for second in 1..=3 {
        node.pass(Nanos::from_millis(1_000));
        let most = second * (SCRUB_BYTES_PER_SECOND + READ_CHUNK_BYTES);
        let read = read() - first;
        assert!(read <= most && read > most / 2, "{read} after {second} seconds");
    }

    let world = copy(&world);
    let mut node = start(&world, large);
    let metrics = node.metrics();
    let partition = PartitionId { topic: node.topic("a"), index: 0 };
    let began = world.now();
    while world.now().since(began) < Nanos::from_millis(3_000) {
        node.append(partition, b"a commit is always under way, or was until just now");
    }
    let read = metrics.get(|shard| shard.scrub_bytes.get()) as usize;
    assert!(read > 0 && read <= 5 * READ_CHUNK_BYTES, "{read}");
}

#[test]
fn a_topic_that_is_deleted_meanwhile_is_no_damage() {
    let sound = stored();
    for delay_ms in (0..40).step_by(4) {
        let world = copy(&sound);
        world.set_faults(Faults { slow_factor: 20, ..Faults::rough() });
        let mut node = start(&world, Config { delete_delay_ms: 0, ..config() });
        node.pass(Nanos::from_millis(1_000 + delay_ms));
        let topic = node.topic("a");
        node.ask(millstream_engine::shard::request::Request::DeleteTopic(topic));
        node.pass(Nanos::from_millis(10_000));
        let metrics = node.metrics();
        let seen = metrics.get(|shard| shard.scrub_findings.at(0).get() + shard.scrub_findings.at(1).get());
        assert_eq!((seen, metrics.get(|shard| shard.scrub_passes.get())), (0, 1), "after {delay_ms} ms");
    }
}

#[test]
fn an_index_whose_flush_failed_is_written_anew_before_its_segment_counts_as_stored() {
    let world = World::new(5, Faults::default());
    let mut node = start(&world, Config { scrub_interval_ms: 0, ..config() });
    let topic = node.create("a", 1, TopicConfig { segment_bytes: 1_500_000, ..TopicConfig::default() });
    let partition = PartitionId { topic, index: 0 };
    // While the segment is open some of it is drained, and its first entries are written without a flush.
    let other = fill(&mut node, "b", 1 << 30, 0);
    for number in 0..60 {
        node.append(if number % 3 == 0 { partition } else { other }, &vec![7; 60_000]);
    }
    let logs = node.shard().logs();
    let log = logs.find(partition).and_then(|index| logs.get(index)).expect("it is there");
    assert!(log.segments[0].index.stored > 0 && !log.segments[0].sealed, "{:?}", log.segments);
    for path in ["a-0/00000000000000000000.index", "a-0/00000000000000000000.timeindex"] {
        let outcome = Outcome::FlushFails;
        world.inject(Injection { op: OpKind::Flush, path: path.to_owned(), skip: 0, outcome });
    }
    for _ in 0..10 {
        node.append(partition, &vec![7; 60_000]);
    }
    node.pass(Nanos::from_millis(5_000));
    assert_eq!(bases(&node, partition).len(), 1, "it is sealed and stored");
    drop(node);
    world.crash(Crash::Power(Survivors::None));
    let (findings, said) = pass(&mut start(&world, config()));
    assert_eq!(findings, [0, 0], "{said}");
}
