//! The stored formats, byte for byte: `tests/golden/format/v1/<structure>/` holds each structure sound and damaged.
//!
//! Each file is decoded and compared with what is expected of it here, and the encoder must still produce its bytes: a
//! change to a format shows up as a failure, not as a directory that an upgrade cannot read. To write the files anew after
//! a deliberate change (and a new version directory, once a version has been released):
//!
//! `MILLSTREAM_GOLDEN=write cargo test -p millstream-tests --test golden_format`
#![allow(clippy::disallowed_methods, reason = "a test reads and writes the files of its own repository")]

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::{env, fs};

use millstream_engine::checksum::crc32c;
use millstream_engine::config::QueueSettings;
use millstream_engine::format::batch::{self, BatchBuilder, BatchHeader};
use millstream_engine::format::checkpoint::{
    Checkpoint, MovedState, PartitionState, QueueState, QueuesState, SegmentState, StoreState,
};
use millstream_engine::format::index::{OffsetIndexEntry, TimeIndexEntry};
use millstream_engine::format::journal::{self, GroupPlace, RecordHeader, RecordKind};
use millstream_engine::format::manifest::Manifest;
use millstream_engine::format::message::{self, MessageRecord, Pieces, Target};
use millstream_engine::format::metadata::{self, MetadataRecord};
use millstream_engine::format::partition;
use millstream_engine::format::producer::{self, ProducerBatch, ProducerState, SnapshotEntry};
use millstream_engine::format::sum::{Sum, SumBuilder, Summed};
use millstream_engine::time::WallMs;
use millstream_engine::types::{
    FileEpoch, LeaderEpoch, Lsn, MetadataEpoch, Offset, PartitionId, QueueId, Seq, ShardId, Slot, TopicId,
};

const ID: TopicId =
    TopicId([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x0f, 0xed, 0xcb, 0xa9, 0x87, 0x65, 0x43, 0x21]);
const PARTITION: PartitionId = PartitionId { topic: ID, index: 3 };

/// A golden file: its bytes are `made`, and `decode` says `expected` of it.
fn check(path: &str, made: &[u8], decode: impl Fn(&[u8]) -> String, expected: &str) {
    let file = golden_dir().join(path);
    if env::var_os("MILLSTREAM_GOLDEN").is_some_and(|mode| mode == "write") {
        fs::create_dir_all(file.parent().expect("a file lies in a directory")).expect("the tree is writable");
        fs::write(&file, made).expect("the tree is writable");
    }
    let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{path}: {error}; see the head of this test"));
    assert_eq!(decode(&bytes), expected, "{path}");
    assert_eq!(bytes, made, "{path}: these bytes are not made any more");
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/format/v1")
}

fn debug(value: impl Debug) -> String {
    format!("{value:?}")
}

/// The bytes with one bit flipped.
fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    damaged[at] ^= 1;
    damaged
}

#[test]
fn record_batch() {
    let made = BatchBuilder::new(1_700_000_000_000)
        .producer(7, 3, 40)
        .push(Some(b"key"), Some(b"value"))
        .push_at(1_700_000_000_250, None, Some(b"later"))
        .push_with_headers(1_699_999_999_000, Some(b"gone"), None, &[("h", Some(b"x")), ("none", None)])
        .build();
    let mut stored = made.clone();
    batch::stamp(&mut stored, Offset(1_000), LeaderEpoch(2));

    let summary = |header: BatchHeader| {
        let BatchHeader { base_offset, leader_epoch, size, crc, records, max_timestamp, .. } = header;
        format!(
            "{records} records from {base_offset}, epoch {}, {size} bytes, crc {crc:08x}, until {max_timestamp}",
            leader_epoch.0
        )
    };
    let produced = |bytes: &[u8]| batch::check_produced(bytes).map_or_else(debug, summary);
    let at_rest = |bytes: &[u8]| batch::check(bytes).map_or_else(debug, summary);
    check(
        "record_batch/produced",
        &made,
        produced,
        "3 records from 0, epoch 4294967295, 111 bytes, crc bf391536, until 1700000000250",
    );
    check(
        "record_batch/stored",
        &stored,
        at_rest,
        "3 records from 1000, epoch 2, 111 bytes, crc bf391536, until 1700000000250",
    );
    check("record_batch/cut", &made[..100], at_rest, "Truncated { needed: 111 }");
    check("record_batch/bit-rot", &flipped(&made, 90), at_rest, "BadCrc");
    let foreign = flipped(&made, 16);
    check("record_batch/other-magic", &foreign, at_rest, "CorruptStructure(\"the magic byte is not 2\")");
    let control = BatchBuilder::new(0).attributes(0b10_0000).push(None, None).build();
    let expected = "InvalidRecord(\"clients may not write control batches\")";
    check("record_batch/control", &control, produced, expected);
}

#[test]
fn index() {
    let mut offsets = Vec::new();
    for (relative_offset, position) in [(9, 4_200), (21, 8_500), (40, 70_000)] {
        OffsetIndexEntry { relative_offset, position }.encode(&mut offsets);
    }
    let decoded = |bytes: &[u8]| {
        let decoded = OffsetIndexEntry::decode(bytes);
        let entries: Vec<_> =
            decoded.entries.iter().map(|entry| (entry.relative_offset, entry.position)).collect();
        format!("{entries:?}, whole: {}", decoded.whole)
    };
    check("index/offsets", &offsets, decoded, "[(9, 4200), (21, 8500), (40, 70000)], whole: true");
    let padded = [&offsets[..], &[0; 16]].concat();
    check("index/offsets-padded", &padded, decoded, "[(9, 4200), (21, 8500), (40, 70000)], whole: false");
    let mut falling = offsets.clone();
    falling[11] = 1;
    check("index/offsets-falling", &falling, decoded, "[(9, 4200)], whole: false");

    let mut times = Vec::new();
    for (timestamp, relative_offset) in [(1_700_000_000_000, 9), (1_700_000_000_250, 21)] {
        TimeIndexEntry { timestamp, relative_offset }.encode(&mut times);
    }
    let decoded = |bytes: &[u8]| {
        let decoded = TimeIndexEntry::decode(bytes);
        let entries: Vec<_> =
            decoded.entries.iter().map(|entry| (entry.timestamp, entry.relative_offset)).collect();
        format!("{entries:?}, whole: {}", decoded.whole)
    };
    let expected = "[(1700000000000, 9), (1700000000250, 21)], whole: true";
    check("index/times", &times, decoded, expected);
    let mut falling = times.clone();
    falling[7] += 255;
    check("index/times-falling", &falling, decoded, "[(1700000000255, 9)], whole: false");
    check("index/times-cut", &times[..20], decoded, "[(1700000000000, 9)], whole: false");
}

#[test]
fn manifest() {
    let manifest = Manifest {
        format_version: 1,
        incompatible_features: 0,
        cluster_id: ID,
        node_id: 1,
        shards: 2,
        generation: 1,
        boot_epoch: 4,
        clean: true,
        journal_key: 77,
    };
    let made = manifest.encode();
    let decoded = |bytes: &[u8]| Manifest::decode(bytes).map_or_else(debug, debug);
    let expected = "Manifest { format_version: 1, incompatible_features: 0, \
        cluster_id: 12345678-9abc-def0-0fed-cba987654321, node_id: 1, shards: 2, generation: 1, boot_epoch: 4, clean: true, journal_key: 77 }";
    check("manifest/clean", &made, decoded, expected);
    let expected = "Corrupt { position: 12, what: \"the checksum does not match\" }";
    check("manifest/bit-rot", &flipped(&made, 60), decoded, expected);
    let newer = Manifest { format_version: 2, ..manifest.clone() }.encode();
    let expected = "Newer(\"the data directory has format version 2, this build knows versions up to 1\")";
    check("manifest/newer", &newer, decoded, expected);
    let feature = Manifest { incompatible_features: 1 << 5, ..manifest }.encode();
    let expected = "Newer(\"the data directory uses features that this build lacks: bits 5\")";
    check("manifest/unknown-feature", &feature, decoded, expected);
}

#[test]
fn metadata() {
    let created = MetadataRecord::TopicCreated {
        id: ID,
        name: "orders".to_owned(),
        config: vec![("retention.ms".to_owned(), "60000".to_owned())],
        slots: vec![Slot(0), Slot(1)],
    };
    let entity = MetadataRecord::Entity { kind: 1, key: b"guest".to_vec(), value: Some(b"{}".to_vec()) };
    let gone = MetadataRecord::Entity { kind: 1, key: b"guest".to_vec(), value: None };
    let deleted = vec![MetadataRecord::TopicDeleted { id: ID }, MetadataRecord::DeletionForgotten { id: ID }];
    let mut made = Vec::new();
    let mut crc = 0;
    for (epoch, records) in [(1, vec![created, entity]), (2, vec![gone]), (3, deleted)] {
        let frame;
        (frame, crc) = metadata::encode_frame(MetadataEpoch(epoch), crc, &records);
        made.extend_from_slice(&frame);
    }
    let decoded = |bytes: &[u8]| {
        let read = metadata::scan(bytes, 0);
        let frames: Vec<_> =
            read.frames.iter().map(|(epoch, records)| format!("{}: {records:?}", epoch.0)).collect();
        format!("{}; {:?}", frames.join("; "), read.end)
    };
    let first = "1: [TopicCreated { id: 12345678-9abc-def0-0fed-cba987654321, name: \"orders\", \
        config: [(\"retention.ms\", \"60000\")], slots: [Slot(0), Slot(1)] }, \
        Entity { kind: 1, key: [103, 117, 101, 115, 116], value: Some([123, 125]) }]";
    let second = "2: [Entity { kind: 1, key: [103, 117, 101, 115, 116], value: None }]";
    let third = "3: [TopicDeleted { id: 12345678-9abc-def0-0fed-cba987654321 }, \
        DeletionForgotten { id: 12345678-9abc-def0-0fed-cba987654321 }]";
    check("metadata/sound", &made, decoded, &format!("{first}; {second}; {third}; Clean"));
    let torn = &made[..made.len() - 1000];
    check("metadata/torn", torn, decoded, &format!("{first}; {second}; Torn {{ position: 8192 }}"));
    let what = "the frame is damaged, and a sound one follows it";
    let corrupt = format!("{first}; Corrupt {{ position: 4096, what: \"{what}\" }}");
    check("metadata/bit-rot", &flipped(&made, 4130), decoded, &corrupt);
    let missing = [&made[..4096], &made[8192..]].concat();
    let what = "the frame does not follow the one before it";
    let corrupt = format!("{first}; Corrupt {{ position: 4096, what: \"{what}\" }}");
    check("metadata/frame-missing", &missing, decoded, &corrupt);

    let changes = [
        MetadataRecord::TopicConfigured {
            id: ID,
            config: vec![("cleanup.policy".to_owned(), "compact".to_owned())],
        },
        MetadataRecord::PartitionsAdded { id: ID, slots: vec![Slot(2), Slot(70_000)] },
        MetadataRecord::ProducerIdsGiven { below: 1_000 },
    ];
    let (made, _) = metadata::encode_frame(MetadataEpoch(4), 0, &changes);
    let expected = "4: [TopicConfigured { id: 12345678-9abc-def0-0fed-cba987654321, \
        config: [(\"cleanup.policy\", \"compact\")] }, \
        PartitionsAdded { id: 12345678-9abc-def0-0fed-cba987654321, slots: [Slot(2), Slot(70000)] }, \
        ProducerIdsGiven { below: 1000 }]; Clean";
    check("metadata/changes", &made, decoded, expected);
    let queue = QueueId([0x51; 16]);
    let settings =
        QueueSettings { message_ttl_ms: Some(60_000), max_priority: Some(9), ..QueueSettings::default() };
    let queues = [
        MetadataRecord::QueueCreated { id: queue, name: b"work".to_vec(), slot: Slot(3), settings },
        MetadataRecord::QueueConfigured { id: queue, settings: QueueSettings::default() },
        MetadataRecord::QueueDeleted { id: queue },
        MetadataRecord::QueueDeletionForgotten { id: queue },
    ];
    let (made, _) = metadata::encode_frame(MetadataEpoch(5), 0, &queues);
    let unset = "max_bytes: None, overflow: DropHead";
    let rest =
        "single_active_consumer: false, delivery_limit: None, dead_letter: false, consumer_timeout_ms: None";
    let id = "51515151-5151-5151-5151-515151515151";
    let expected = format!(
        "5: [QueueCreated {{ id: {id}, name: [119, 111, 114, 107], slot: Slot(3), settings: QueueSettings {{ \
        max_messages: None, {unset}, message_ttl_ms: Some(60000), expires_ms: None, max_priority: Some(9), {rest} }} }}, \
        QueueConfigured {{ id: {id}, settings: QueueSettings {{ \
        max_messages: None, {unset}, message_ttl_ms: None, expires_ms: None, max_priority: None, {rest} }} }}, \
        QueueDeleted {{ id: {id} }}, QueueDeletionForgotten {{ id: {id} }}]; Clean"
    );
    check("metadata/queues", &made, decoded, &expected);
    // The kind of the only record, and the frame's checksum for it.
    let (mut newer, _) = metadata::encode_frame(MetadataEpoch(4), 0, &changes[2..]);
    newer[24] = 250;
    let crc = crc32c(&newer[8..]);
    newer[4..8].copy_from_slice(&crc.to_le_bytes());
    check("metadata/newer", &newer, decoded, "; Newer { position: 0, kind: 250 }");
}

#[test]
fn producer() {
    let batch = |first_sequence, base| ProducerBatch {
        first_sequence,
        base_offset: Offset(base),
        last_offset_delta: 4,
        timestamp: 1_700_000_000_000,
    };
    let state = ProducerState {
        producer_id: 77,
        epoch: 2,
        batches: vec![batch(10, 100), batch(15, 105)],
        last_timestamp: 1_700_000_000_000,
    };
    let mut made = Vec::new();
    producer::encode_producer(&mut made, &state);
    let summary = |state: &ProducerState| {
        let batches: Vec<_> = state
            .batches
            .iter()
            .map(|batch| {
                let last = (batch.last_sequence(), batch.last_offset().0);
                format!("{}..={} at {}..={}", batch.first_sequence, last.0, batch.base_offset, last.1)
            })
            .collect();
        format!("{}/{}: {}", state.producer_id, state.epoch, batches.join(", "))
    };
    let decoded = |mut bytes: &[u8]| {
        producer::decode_producer(&mut bytes).map_or("none".to_owned(), |state| summary(&state))
    };
    check("producer/ours", &made, decoded, "77/2: 10..=14 at 100..=104, 15..=19 at 105..=109");
    check("producer/ours-cut", &made[..60], decoded, "none");

    let idle =
        ProducerState { producer_id: 78, epoch: 0, batches: vec![], last_timestamp: 1_700_000_000_000 };
    let entries = [
        SnapshotEntry { producer: state, coordinator_epoch: -1, transaction_first_offset: Some(Offset(100)) },
        SnapshotEntry { producer: idle, coordinator_epoch: 5, transaction_first_offset: None },
    ];
    let made = producer::encode_snapshot(&entries);
    let decoded = |bytes: &[u8]| match producer::decode_snapshot(bytes) {
        Ok(entries) => {
            let lines: Vec<_> = entries
                .iter()
                .map(|entry| {
                    let transaction = entry.transaction_first_offset.map(|offset| offset.0);
                    format!("{} ({}, {transaction:?})", summary(&entry.producer), entry.coordinator_epoch)
                })
                .collect();
            lines.join("; ")
        }
        Err(damage) => damage.to_string(),
    };
    check("producer/kafka", &made, decoded, "77/2: 15..=19 at 105..=109 (-1, Some(100)); 78/0:  (5, None)");
    check("producer/kafka-bit-rot", &flipped(&made, 40), decoded, "the checksum does not match, at byte 2");
}

#[test]
fn sum() {
    let mut builder = SumBuilder::new(PARTITION, Offset(500));
    builder.feed(Summed::Log, &vec![5; 70_000]);
    builder.feed(Summed::Index, &[6; 16]);
    let sum = builder.finish();
    let made = sum.encode();
    let decoded = |bytes: &[u8]| match Sum::decode(bytes, PARTITION, Offset(500)) {
        Ok(sum) => {
            let last = vec![5; 70_000 - 65_536];
            let verified = sum.verify_block(Summed::Log, 1, &last);
            format!("{} bytes of log, the last block verifies: {verified}", sum.len(Summed::Log))
        }
        Err(damage) => damage.to_string(),
    };
    check("sum/sound", &made, decoded, "70000 bytes of log, the last block verifies: true");
    check("sum/bit-rot", &flipped(&made, 50), decoded, "the checksum does not match, at byte 4");
    let other = SumBuilder::new(PartitionId { index: 4, ..PARTITION }, Offset(500)).finish().encode();
    let expected = "the checksum file belongs to another segment, at byte 8";
    check("sum/of-another-segment", &other, decoded, expected);
}

#[test]
fn partition_texts() {
    let decoded = |bytes: &[u8]| partition::decode_metadata(bytes).map_or("none".to_owned(), debug);
    let made = partition::encode_metadata(ID);
    let expected = "12345678-9abc-def0-0fed-cba987654321";
    check("partition/metadata", made.as_bytes(), decoded, expected);
    check("partition/metadata-cut", &made.as_bytes()[..30], decoded, "none");

    let decoded = |bytes: &[u8]| partition::decode_leader_epochs(bytes).map_or("none".to_owned(), debug);
    let made = partition::encode_leader_epochs(&[(LeaderEpoch(1), Offset(0)), (LeaderEpoch(4), Offset(900))]);
    let expected = "[(LeaderEpoch(1), Offset(0)), (LeaderEpoch(4), Offset(900))]";
    check("partition/leader-epochs", made.as_bytes(), decoded, expected);
    check("partition/leader-epochs-cut", &made.as_bytes()[..8], decoded, "none");
}

#[test]
fn journal_group() {
    let mut group = vec![0; journal::GROUP_HEADER_BYTES];
    let batch = BatchBuilder::new(1_700_000_000_000).push(Some(b"key"), Some(b"value")).build();
    let payloads = [
        (RecordKind::Batch, &batch[..]),
        (RecordKind::Part, b"piece"),
        (RecordKind::Carry, b"the tail's last bytes"),
        (RecordKind::LogStart, b""),
    ];
    for (kind, payload) in payloads {
        let header = RecordHeader {
            kind,
            partition: PARTITION,
            segment: Offset(500),
            position: 4_096,
            aux: 600,
            len: payload.len(),
        };
        group.extend_from_slice(&journal::encode_record(&header));
        group.extend_from_slice(payload);
        group.resize(group.len().next_multiple_of(8), 0);
    }
    let used = group.len();
    group.resize(4_096, 0);
    let place = GroupPlace {
        previous_crc: 0x0102_0304,
        file_epoch: FileEpoch(2),
        first_lsn: Lsn(41),
        durable_lsn: Lsn(40),
        key: 99,
    };
    journal::seal(&mut group, used, 4, &place);
    let decoded = |bytes: &[u8]| match journal::check(bytes) {
        Ok(header) => {
            let records: Vec<_> = journal::records(bytes)
                .map(|(record, payload)| {
                    format!("{:?} {}@{} {payload:?}", record.kind, record.partition.index, record.position)
                })
                .collect();
            let (first, last) = (header.first_lsn.0, header.last_lsn().0);
            format!("{first}..={last} of file {}: {}", header.file_epoch.0, records.join(", "))
        }
        Err(error) => debug(error),
    };
    let expected = "41..=44 of file 2: Batch 3@4096 112..188, Part 3@4096 240..245, \
        Carry 3@4096 296..317, LogStart 3@4096 368..368";
    check("journal/sound", &group, decoded, expected);
    let expected = "Broken(0, \"the group's checksum does not match\")";
    check("journal/bit-rot", &flipped(&group, 241), decoded, expected);
    let expected = "Broken(112, \"a record batch's checksum does not match\")";
    check("journal/bit-rot-in-a-batch", &flipped(&group, 180), decoded, expected);
    check("journal/cut", &group[..4_000], decoded, "Broken(4000, \"the group is cut off\")");
    check("journal/nothing", &[0; 4_096], decoded, "Absent");
}

#[test]
fn checkpoint() {
    let segment = |base, size, flushed, stored| SegmentState {
        base: Offset(base),
        size,
        flushed,
        index_entries: 3,
        time_entries: 2,
        max_timestamp: 1_700_000_000_000,
        created_ms: 1_600_000_000_000,
        stored,
    };
    let batch =
        ProducerBatch { first_sequence: 10, base_offset: Offset(55), last_offset_delta: 4, timestamp: 1_000 };
    let made = Checkpoint {
        lsn: Lsn(900),
        replay_lsn: Lsn(800),
        generation: 2,
        shard: ShardId(1),
        partitions: vec![PartitionState {
            id: PARTITION,
            log_start: Offset(5),
            next_offset: Offset(60),
            segments: vec![segment(0, 12_345, 12_345, true), segment(40, 9_000, 8_192, false)],
            producers: vec![ProducerState {
                producer_id: 77,
                epoch: 2,
                batches: vec![batch],
                last_timestamp: 1_000,
            }],
            epochs: vec![(LeaderEpoch(1), Offset(5)), (LeaderEpoch(4), Offset(50))],
        }],
        queues: QueuesState::default(),
    }
    .encode();
    let decoded = |bytes: &[u8]| match Checkpoint::decode(bytes) {
        Ok(checkpoint) => {
            let log = &checkpoint.partitions[0];
            let segments: Vec<_> = log
                .segments
                .iter()
                .map(|segment| (segment.base.0, segment.flushed, segment.stored))
                .collect();
            let (lsn, shard, producers) = (checkpoint.lsn.0, checkpoint.shard.0, log.producers.len());
            let epochs: Vec<_> = log.epochs.iter().map(|(epoch, start)| (epoch.0, start.0)).collect();
            format!(
                "shard {shard} at {lsn}: {} to {}, {segments:?}, {producers} producer, epochs {epochs:?}",
                log.log_start, log.next_offset
            )
        }
        Err(damage) => debug(damage),
    };
    let expected = "shard 1 at 900: 5 to 60, [(0, 12345, true), (40, 8192, false)], 1 producer, \
        epochs [(1, 5), (4, 50)]";
    check("checkpoint/sound", &made, decoded, expected);
    let expected = "(4, \"the checkpoint's checksum does not match\")";
    check("checkpoint/bit-rot", &flipped(&made, 100), decoded, expected);
    let expected = "(8, \"the checkpoint's length is not the file's\")";
    check("checkpoint/cut", &made[..200], decoded, expected);
}

#[test]
fn queues() {
    let queue = |byte| QueueId([byte; 16]);
    let state = QueuesState {
        stores: vec![StoreState { number: 3, bytes: 8_192 }],
        arrived: vec![(queue(7), Seq(5))],
        moved: Vec::new(),
        queues: vec![QueueState {
            id: queue(1),
            next: vec![Seq(200), Seq(1 << 56)],
            marks: vec![Seq(4_096)],
            live: vec![(0, u64::MAX), (1, u64::MAX), (2, 5)],
            failed: vec![(3, 2)],
            leaving: vec![(4, 1)],
        }],
    };
    let mut made = Vec::new();
    state.encode(&mut made);
    let decoded = |bytes: &[u8]| debug(QueuesState::decode(bytes));
    check("checkpoint/queues", &made, decoded, &debug(Some(&state)));
    check("checkpoint/queues-cut", &made[..made.len() - 1], decoded, "None");
    let state = QueuesState {
        moved: vec![
            MovedState { queue: queue(7), seq: Seq(6), targets: vec![queue(1)] },
            MovedState { queue: queue(8), seq: Seq(1), targets: vec![queue(1), queue(2)] },
        ],
        ..state
    };
    let mut made = Vec::new();
    state.encode(&mut made);
    check("checkpoint/moved", &made, decoded, &debug(Some(&state)));
    check("checkpoint/moved-cut", &made[..made.len() - 1], decoded, "None");

    let target = |byte, seq| Target { queue: queue(byte), seq: Seq(seq), expires_at: Some(WallMs(9)) };
    let message = MessageRecord {
        targets: vec![target(1, 7), target(2, 8)],
        source: Some(target(3, 9)),
        persistent: true,
        priority: 4,
        header_bytes: 4,
        pieces: None,
    };
    let pieces = Some(Pieces { name: 41, bytes: 700_000 });
    let in_pieces = MessageRecord { pieces, targets: vec![target(1, 8)], source: None, ..message.clone() };
    let pairs = message::encode_pairs(&[(5, 6)]);
    let note = |kind, aux, len| message::note(kind, queue(1), aux, len);
    let records = [
        (message.header(4), [message.prefix(), b"headbody".to_vec()].concat()),
        (message::piece(41, 1, 5), b"piece".to_vec()),
        (in_pieces.header(0), [in_pieces.prefix(), in_pieces.pieces_bytes()].concat()),
        (note(RecordKind::Settled, 0, 16), pairs.clone()),
        (note(RecordKind::Failed, 0, 16), pairs.clone()),
        (note(RecordKind::Leaving, 0, 16), pairs.clone()),
        (note(RecordKind::Mark, 4_096, 0), Vec::new()),
        (note(RecordKind::Forgotten, 0, 16), pairs),
    ];
    let mut group = vec![0; journal::GROUP_HEADER_BYTES];
    for (header, payload) in &records {
        group.extend_from_slice(&journal::encode_record(header));
        group.extend_from_slice(payload);
        group.resize(group.len().next_multiple_of(8), 0);
    }
    let used = group.len();
    group.resize(4_096, 0);
    let place = GroupPlace {
        previous_crc: 1,
        file_epoch: FileEpoch(2),
        first_lsn: Lsn(41),
        durable_lsn: Lsn(40),
        key: 99,
    };
    journal::seal(&mut group, used, records.len() as u32, &place);
    let decoded = |bytes: &[u8]| {
        if let Err(error) = journal::check(bytes) {
            return debug(error);
        }
        let read = journal::records(bytes).map(|(record, payload)| {
            let (kind, payload) = (record.kind, &bytes[payload]);
            match kind {
                RecordKind::Message => debug(MessageRecord::decode(&record, payload)),
                RecordKind::Piece | RecordKind::Mark => format!("{kind:?} {} {}", record.segment, record.aux),
                _ => {
                    format!("{kind:?} {:?}", message::decode_pairs(payload).map(Iterator::collect::<Vec<_>>))
                }
            }
        });
        read.collect::<Vec<_>>().join("; ")
    };
    let pairs = "Some([(5, 6)])";
    let expected = format!(
        "{:?}; Piece 1 41; {:?}; Settled {pairs}; Failed {pairs}; Leaving {pairs}; Mark 0 4096; Forgotten {pairs}",
        Some(&message),
        Some(&in_pieces)
    );
    check("journal/queues", &group, decoded, &expected);
    let expected = "Broken(0, \"the group's checksum does not match\")";
    check("journal/queues-bit-rot", &flipped(&group, 200), decoded, expected);
}
