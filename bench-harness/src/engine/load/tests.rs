//! The generators against a shard that answers by a script, in made-up time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use millstream_engine::buffer::Slice;
use millstream_engine::config::TopicConfig;
use millstream_engine::format::batch::check_produced;
use millstream_engine::reactor::app::{App, AppEvent, AppToken, Outbox, Output};
use millstream_engine::shard::metadata::{Metadata, Topic};
use millstream_engine::shard::request::{Appended, Chunk, Range, ReadReply, Reply, Request};
use millstream_engine::time::{Nanos, WallMs};
use millstream_engine::types::{Durability, Offset, PartitionId, ShardId, Slot, TopicId};

use super::app::{Answer, Command, LoadApp};
use super::*;

const BATCH_BYTES: u64 = 4096;
const STORED: Stored = Stored { batch_bytes: BATCH_BYTES, batch_records: 3 };

/// A shard that answers appends after `service(now)`, and reads from `batches` stored batches at once.
struct FakeShard<F> {
    app: LoadApp,
    answers: Receiver<(ShardId, Answer)>,
    out: Outbox,
    now: Nanos,
    service: F,
    batches: u64,
    held: Nanos,
    /// What comes when; the number keeps the order of what comes at the same time.
    coming: BinaryHeap<Reverse<(Nanos, u64)>>,
    events: BTreeMap<u64, AppEvent>,
    appends: BTreeMap<PartitionId, u64>,
    in_flight: usize,
    in_flight_max: usize,
    read_from: VecDeque<Offset>,
}

impl<F: FnMut(Nanos) -> Nanos> FakeShard<F> {
    fn new(commands: Vec<Command>, service: F) -> FakeShard<F> {
        let slots = vec![Slot(0); 4];
        let mut metadata = Metadata { shards: 1, ..Metadata::default() };
        let name = "t".to_owned();
        metadata.put(Topic::new(TopicId([1; 16]), name, Vec::new(), slots, &TopicConfig::default()));
        let ((tell, commanded), (answer, answers)) = (channel(), channel());
        for command in commands {
            tell.send(command).unwrap();
        }
        FakeShard {
            app: LoadApp::new(commanded, answer),
            answers,
            out: Outbox::new(ShardId(0), Arc::new(metadata)),
            now: Nanos::ZERO,
            service,
            batches: 100,
            held: Nanos::from_millis(2),
            coming: BinaryHeap::new(),
            events: BTreeMap::new(),
            appends: BTreeMap::new(),
            in_flight: 0,
            in_flight_max: 0,
            read_from: VecDeque::new(),
        }
    }

    fn later(&mut self, at: Nanos, event: AppEvent) {
        let number = self.events.last_key_value().map_or(0, |(last, _)| last + 1);
        self.events.insert(number, event);
        self.coming.push(Reverse((at, number)));
    }

    /// Steps until the first run has been reported. New metadata takes the shard a turn of `held`.
    fn reports(&mut self) -> Vec<Report> {
        self.later(Nanos::ZERO, AppEvent::Started);
        loop {
            let Reverse((at, number)) = self.coming.pop().expect("something is always coming");
            self.now = self.now.max(at);
            let event = self.events.remove(&number).unwrap();
            match event {
                AppEvent::Reply(..) => self.in_flight -= 1,
                AppEvent::MetadataChanged => self.now = self.now + self.held,
                _ => {}
            }
            self.out.set_clocks(self.now, WallMs(0));
            self.app.step(event, &mut self.out);
            for output in self.out.take() {
                self.carry_out(output);
            }
            while let Ok((_, answer)) = self.answers.try_recv() {
                if let Answer::Ran(reports) = answer {
                    return reports;
                }
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::SetTimer(token, at) => self.later(at, AppEvent::Timer(token)),
            Output::Engine { token, request, .. } => self.serve(token, request),
            _ => panic!("a load neither sends nor closes"),
        }
    }

    fn serve(&mut self, token: AppToken, request: Request) {
        self.in_flight += 1;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
        let (took, reply) = match request {
            Request::Append { partition, batch, .. } => {
                assert_eq!(batch.len() as u64, BATCH_BYTES);
                *self.appends.entry(partition).or_default() += 1;
                let (base_offset, log_start) = (Offset(0), Offset(0));
                let appended = Appended { base_offset, append_time: None, log_start };
                ((self.service)(self.now), Reply::Appended(appended))
            }
            Request::Read { partition, offset, .. } => {
                self.read_from.push_back(offset);
                let end = Offset(self.batches * STORED.batch_records);
                let left = (end.0 - offset.0) / STORED.batch_records;
                // Two batches per plan, in chunks that end within a batch.
                let bytes = (left.min(2) * BATCH_BYTES) as usize;
                let first = bytes.min(5000);
                let range = Range { partition, segment: Offset(0), position: 0, len: bytes as u32 };
                let reply = ReadReply {
                    chunk: Chunk { bytes: vec![Slice::from(vec![0; first])], range: Some(range) },
                    high_watermark: end,
                    log_start: Offset(0),
                };
                (Nanos::from_micros(10), Reply::Read(reply))
            }
            Request::Load(range) => {
                let slice = Slice::from(vec![0; range.len as usize]);
                (Nanos::from_micros(10), Reply::Loaded(Chunk { bytes: vec![slice], range: Some(range) }))
            }
            other => panic!("a load does not ask {other:?}"),
        };
        self.later(self.now + took, AppEvent::Reply(token, reply));
    }
}

fn append(partitions: usize, pace: Pace, until: Until) -> Load {
    Load::Append(Append {
        topic: "t".to_owned(),
        partitions,
        batch: Slice::from(vec![0; BATCH_BYTES as usize]),
        durability: Durability::Durable,
        pace,
        until,
    })
}

fn micros(micros: u64) -> impl FnMut(Nanos) -> Nanos {
    move |_| Nanos::from_micros(micros)
}

#[test]
fn a_closed_loop_keeps_as_many_in_flight_as_it_was_told_over_all_its_partitions() {
    let load = append(4, Pace::Closed(8), Until::Bytes(400 * BATCH_BYTES));
    let mut shard = FakeShard::new(vec![Command::Run(vec![load])], micros(100));
    let report = shard.reports().remove(0);
    assert_eq!((report.operations, report.bytes), (400, 400 * BATCH_BYTES));
    assert_eq!(report.took, Nanos::from_micros(50 * 100));
    assert_eq!(shard.in_flight_max, 8);
    assert_eq!(shard.appends.values().copied().collect::<Vec<_>>(), [100; 4]);
}

#[test]
fn a_round_is_one_operation_and_lasts_as_long_as_its_slowest_append() {
    let mut count = 0;
    let service = move |_| {
        count += 1;
        Nanos::from_micros(if count % 4 == 0 { 300 } else { 100 })
    };
    let load = append(4, Pace::Rounds(4), Until::Span(Nanos::from_millis(3)));
    let mut shard = FakeShard::new(vec![Command::Run(vec![load])], service);
    let report = shard.reports().remove(0);
    assert_eq!((report.operations, report.latency.len()), (40, 10));
    assert!(report.latency.min() >= 299_000, "{}", report.latency.min());
}

#[test]
fn a_pause_shows_at_its_full_length_in_an_open_loop() {
    // 1,000 appends per second for a second; from 500 ms to 550 ms the shard answers nothing.
    let (from, to) = (Nanos::from_millis(500), Nanos::from_millis(550));
    let service = move |now: Nanos| {
        let pause = if now >= from && now < to { to - now } else { Nanos::ZERO };
        pause + Nanos::from_micros(100)
    };
    let load = append(1, Pace::Open(1000.0), Until::Span(Nanos::from_millis(1000)));
    let mut shard = FakeShard::new(vec![Command::Run(vec![load])], service);
    let report = shard.reports().remove(0);
    assert_eq!(report.operations, 1000);
    let late = |ms: u64| report.latency.count_between(ms * 1_000_000, u64::MAX);
    assert!((48..=51).contains(&late(1)), "{} appends felt the pause", late(1));
    assert!((23..=26).contains(&late(25)), "{} felt half of it", late(25));
    assert!(report.latency.max() > 49_000_000);
}

#[test]
fn a_turn_that_holds_the_generator_itself_shows_at_its_full_length_too() {
    let load = append(1, Pace::Open(1000.0), Until::Span(Nanos::from_millis(1000)));
    let mut shard = FakeShard::new(vec![Command::Run(vec![load])], micros(100));
    shard.held = Nanos::from_millis(50);
    shard.later(Nanos::from_millis(500), AppEvent::MetadataChanged);
    let report = shard.reports().remove(0);
    assert_eq!(report.operations, 1000);
    let late = |ms: u64| report.latency.count_between(ms * 1_000_000, u64::MAX);
    assert!((48..=51).contains(&late(1)), "{} appends felt the turn", late(1));
    assert!((23..=26).contains(&late(25)), "{} felt half of it", late(25));
}

#[test]
fn an_open_loop_that_has_too_many_in_flight_goes_on_when_they_end_and_loses_none() {
    // The load starts at 2 ms. Nothing is answered before 22 ms, when twice as many are due as may be in flight.
    let service = |now: Nanos| Nanos::from_millis(22).since(now) + Nanos::from_micros(100);
    let load = append(1, Pace::Open(400_000.0), Until::Span(Nanos::from_millis(20)));
    let mut shard = FakeShard::new(vec![Command::Run(vec![load])], service);
    let report = shard.reports().remove(0);
    assert_eq!((report.operations, shard.in_flight_max), (8000, 4096));
    // Those in flight were due in the first 10.24 ms, and answered 20.1 ms after the start.
    let late = report.latency.count_between(10_000_000, u64::MAX);
    assert!((4000..=4096).contains(&late), "{late}");
}

#[test]
fn a_slow_shard_is_charged_for_every_append_that_was_due() {
    // One append after another takes 5 ms, and one is due every millisecond: the last waits about 400 ms.
    let mut free_at = Nanos::ZERO;
    let service = move |now: Nanos| {
        free_at = free_at.max(now) + Nanos::from_millis(5);
        free_at - now
    };
    let load = append(1, Pace::Open(1000.0), Until::Span(Nanos::from_millis(100)));
    let mut shard = FakeShard::new(vec![Command::Run(vec![load])], service);
    let report = shard.reports().remove(0);
    assert_eq!(report.latency.len(), 100);
    assert!((390_000_000..=410_000_000).contains(&report.latency.max()), "{}", report.latency.max());
}

#[test]
fn readers_start_spread_over_the_log_and_read_whole_plans() {
    let read = Read {
        topic: "t".to_owned(),
        readers: 4,
        max_bytes: 1 << 20,
        stored: STORED,
        span: Nanos::from_millis(1),
        once: false,
    };
    let mut shard = FakeShard::new(vec![Command::Run(vec![Load::Read(read)])], micros(1));
    let report = shard.reports().remove(0);
    assert_eq!(report.failure, None);
    // Each asks once to learn the log's length; the first goes on from there, the others seek.
    let asked: Vec<u64> = shard.read_from.iter().map(|offset| offset.0).collect();
    assert_eq!(asked[..7], [0, 0, 0, 0, 75, 150, 225]);
    assert!(asked[7..].contains(&6) && asked[7..].contains(&81), "{asked:?}");
}

#[test]
fn a_reader_that_reads_once_reads_every_byte_once() {
    let read = Read {
        topic: "t".to_owned(),
        readers: 1,
        max_bytes: 1 << 20,
        stored: STORED,
        span: Nanos::from_millis(10_000),
        once: true,
    };
    let mut shard = FakeShard::new(vec![Command::Run(vec![Load::Read(read)])], micros(1));
    assert_eq!(shard.reports().remove(0).bytes, 100 * BATCH_BYTES);
}

#[test]
fn a_heartbeat_records_how_late_it_comes() {
    let beat = Load::Heartbeat { every: Nanos::from_millis(1), span: Nanos::from_millis(20) };
    let mut shard = FakeShard::new(vec![Command::Run(vec![beat])], micros(1));
    shard.later(Nanos::from_micros(7_500), AppEvent::MetadataChanged);
    let report = shard.reports().remove(0);
    let late = report.latency.max();
    assert!((1_499_000..=1_501_000).contains(&late), "due at 8 ms, it came at 9.5 ms: {late} ns");
}

#[test]
fn a_load_without_its_partitions_says_so_instead_of_measuring_fewer() {
    let load = append(5, Pace::Closed(1), Until::Bytes(BATCH_BYTES));
    let mut shard = FakeShard::new(vec![Command::Run(vec![load])], micros(1));
    let report = shard.reports().remove(0);
    assert_eq!(report.failure.as_deref(), Some("the shard has 4 partitions of t instead of 5"));
}

#[test]
fn a_batch_has_the_size_and_the_records_asked_for_and_a_broker_takes_it() {
    for (records, bytes) in [(1, 4096), (64, 64 << 10), (1, 70), (1, 1 << 20), (60, 64 << 10)] {
        let batch = batch(records, bytes);
        let header = check_produced(&batch).unwrap();
        assert_eq!(header.records as usize, records);
        assert!(batch.len() <= bytes && bytes - batch.len() <= 2 * records, "{} of {bytes}", batch.len());
    }
}
