//! The tail in memory is as large as its readers need: small while nobody comes late, larger when they do, and small again.

use millstream_engine::config::{Config, QueueSettings, TopicConfig};
use millstream_engine::io::fault::Faults;
use millstream_engine::io::sim::{Crash, World};
use millstream_engine::limits::TAIL_SHARE_AT_LEAST;
use millstream_engine::shard::message::Credit;
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Offset, PartitionId, QueueId};
use millstream_tests::queues;
use millstream_tests::solo::{Solo, config};

const VALUE_BYTES: usize = 60_000;
const JOURNAL_BYTES: u64 = 32 << 20;
const LEAST: u64 = JOURNAL_BYTES / TAIL_SHARE_AT_LEAST as u64;
/// Longer than a shard takes to look around.
const LOOK: Nanos = Nanos::from_millis(2_000);

struct Late {
    node: Solo,
    partition: PartitionId,
    appended: u64,
}

impl Late {
    fn start(world: &World) -> Late {
        let config = Config { journal_bytes: JOURNAL_BYTES, ..config() };
        let mut node = Solo::start(world, config).expect("the disk is empty");
        let topic = node.create("t", 1, TopicConfig::default());
        Late { node, partition: PartitionId { topic, index: 0 }, appended: 0 }
    }

    fn append(&mut self, count: u64) {
        for _ in 0..count {
            self.node.append(self.partition, &vec![self.appended as u8; VALUE_BYTES]);
            self.appended += 1;
        }
    }

    /// Appends, and reads each time what was appended so many records ago. Gives the cold reads that it took.
    fn follow(&mut self, count: u64, behind: u64) -> u64 {
        let metrics = self.node.metrics();
        let before = metrics.get(|shard| shard.cold_reads.get());
        for _ in 0..count {
            self.append(1);
            let offset = Offset(self.appended - behind);
            let read = self.node.ask(Request::Read { partition: self.partition, offset, max_bytes: 1 });
            assert!(matches!(&read, Reply::Read(_)), "{read:?}");
        }
        metrics.get(|shard| shard.cold_reads.get()) - before
    }

    /// What is in memory now, and what may be.
    fn tail(&mut self) -> (u64, u64) {
        self.node.pass(LOOK);
        let metrics = self.node.metrics();
        (metrics.get(|shard| shard.tail.get()), metrics.get(|shard| shard.tail_limit.get()))
    }
}

#[test]
fn the_tail_is_small_while_no_reader_comes_late() {
    let mut late = Late::start(&World::new(1, Faults::default()));
    for _ in 0..20 {
        // The journal grows meanwhile, so that it has room, and only the tail is crowded.
        late.append(10);
        late.node.pass(Nanos::from_millis(50));
    }
    assert_eq!(late.follow(200, 40), 0, "what lies less than the least behind is in memory");
    let (tail, limit) = late.tail();
    assert_eq!(limit, LEAST);
    assert!(tail <= LEAST + (2 << 20), "{tail}: what is behind it is in segments, and needs no memory");
}

#[test]
fn a_reader_who_comes_late_by_little_makes_it_larger_and_it_shrinks_when_he_has_gone() {
    let mut late = Late::start(&World::new(2, Faults::default()));
    late.append(250);
    let first = late.follow(150, 150);
    assert!(first > 0, "he was too late at first");
    assert_eq!(late.follow(200, 150), 0, "he is served from memory by now");
    let grown = late.tail().1;
    assert!(grown > 150 * VALUE_BYTES as u64 && grown < JOURNAL_BYTES, "{grown}");
    late.node.pass(Nanos::from_millis(600_000));
    late.append(1);
    assert_eq!(late.tail().1, LEAST);
}

#[test]
fn a_reader_of_history_does_not_make_it_larger() {
    let mut late = Late::start(&World::new(3, Faults::default()));
    late.append(1_000);
    assert!(late.follow(20, 900) > 0);
    assert_eq!(late.tail().1, LEAST);
}

#[test]
fn what_is_recovered_is_more_than_the_tail_may_have_and_goes_to_segments() {
    let world = World::new(4, Faults::default());
    let mut late = Late::start(&world);
    late.append(60);
    let partition = late.partition;
    drop(late);
    world.crash(Crash::Kill);
    let config = Config { journal_bytes: JOURNAL_BYTES / 2, ..config() };
    let node = Solo::start(&world, config).expect("nothing is damaged");
    let (tail, limit) = Late { node, partition, appended: 60 }.tail();
    assert!(tail <= limit, "{tail} of {limit}");
}

/// A queue with so many messages that are not settled.
fn with_backlog(node: &mut Solo, messages: usize) -> QueueId {
    let queue = queues::create(node, "q", true, QueueSettings::default());
    let body = vec![7; MESSAGE_BYTES];
    for _ in 0..messages / 20 {
        let some = (0..20).map(|_| queues::message(&body, true)).collect();
        queues::publish(node, &[queue], some);
    }
    queue
}

/// What may be in memory, after a consumer has taken so many messages and some turns have passed.
fn limit_after(node: &mut Solo, queue: QueueId, messages: u32) -> u64 {
    queues::consume(node, queue, 1, Credit { messages, bytes: u32::MAX / 2 });
    node.pass(LOOK);
    assert_eq!(queues::delivered(node).len(), messages as usize);
    let metrics = node.metrics();
    metrics.get(|shard| shard.tail_limit.get())
}

const MESSAGE_BYTES: usize = 8_000;

#[test]
fn messages_that_are_read_back_from_the_journal_make_it_larger() {
    let config = Config { journal_bytes: JOURNAL_BYTES, ..config() };
    let mut node = Solo::start(&World::new(5, Faults::default()), config).expect("the disk is empty");
    // Twice as much as the least that is in memory.
    let queue = with_backlog(&mut node, 2 * LEAST as usize / MESSAGE_BYTES);
    node.pass(LOOK);
    assert_eq!(node.metrics().get(|shard| shard.tail_limit.get()), LEAST);
    assert!(limit_after(&mut node, queue, 20) > LEAST);
}

#[test]
fn messages_that_are_read_back_from_elsewhere_do_not() {
    let world = World::new(6, Faults::default());
    let config = Config { journal_bytes: JOURNAL_BYTES, ..config() };
    let mut node = Solo::start(&world, config.clone()).expect("the disk is empty");
    // More than the journal may have, so that the first are in files of their own.
    let queue = with_backlog(&mut node, 3 * JOURNAL_BYTES as usize / 2 / MESSAGE_BYTES);
    node.pass(LOOK);
    node.stop().expect("nothing is in the way");
    let mut node = Solo::start(&world, config).expect("nothing is damaged");
    // Their numbers there say nothing of how far back they are.
    for _ in 0..10 {
        queues::publish(&mut node, &[queue], vec![queues::message(&[7; 1_000], true)]);
    }
    assert_eq!(limit_after(&mut node, queue, 20), LEAST);
}
