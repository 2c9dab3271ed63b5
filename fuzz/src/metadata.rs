//! The metadata log.

use millstream_engine::checksum::crc32c;
use millstream_engine::config::{Overflow, QueueSettings};
use millstream_engine::format::metadata::{End, MetadataRecord, Scan, encode_frame, scan};
use millstream_engine::types::{MetadataEpoch, QueueId, Slot, TopicId};

use crate::overwrite;

const FIRST_CRC: u32 = 7;

/// No bytes make a scan panic; what it takes encodes and scans to the same; a log cut anywhere is torn and never corrupt,
/// and one damaged before its last frame is corrupt and never torn.
pub fn run(bytes: &[u8]) {
    inspect(bytes);
    inspect(&framed(bytes));
    crash(bytes);
}

fn inspect(bytes: &[u8]) {
    let read = scan(bytes, FIRST_CRC);
    assert!(read.next_position <= bytes.len() as u64);
    let mut encoded = Vec::new();
    let mut crc = FIRST_CRC;
    for (epoch, records) in &read.frames {
        let frame;
        (frame, crc) = encode_frame(*epoch, crc, records);
        encoded.extend_from_slice(&frame);
    }
    let next_position = encoded.len() as u64;
    let again = scan(&encoded, FIRST_CRC);
    assert_eq!(again, Scan { frames: read.frames, end: End::Clean, next_position, last_crc: crc });
}

/// The bytes as the payload of a sound frame.
fn framed(payload: &[u8]) -> Vec<u8> {
    let (mut frame, _) = encode_frame(MetadataEpoch(1), FIRST_CRC, &[]);
    frame.resize((24 + payload.len()).next_multiple_of(4096), 0);
    overwrite(&mut frame, 8, &(payload.len() as u32).to_le_bytes());
    overwrite(&mut frame, 24, payload);
    let crc = crc32c(frame.get(8..).unwrap_or_default());
    overwrite(&mut frame, 4, &crc.to_le_bytes());
    frame
}

/// Builds a log from the bytes, then cuts and damages it where they say.
fn crash(bytes: &[u8]) {
    let Some((at, plan)) = bytes.split_first_chunk() else { return };
    let at = u32::from_le_bytes(*at) as usize;
    let mut log = Vec::new();
    let mut starts = Vec::new();
    let mut crc = FIRST_CRC;
    for (number, byte) in plan.iter().take(8).enumerate() {
        let frame;
        (frame, crc) = encode_frame(MetadataEpoch(number as u64), crc, &[record(*byte)]);
        starts.push(log.len());
        log.extend_from_slice(&frame);
    }
    let (Some(last_start), whole) = (starts.last().copied(), scan(&log, FIRST_CRC)) else { return };
    assert_eq!((whole.end, whole.frames.len()), (End::Clean, starts.len()));

    let len = at % log.len();
    let start = starts.iter().rfind(|start| **start <= len).copied().unwrap_or_default();
    let cut = scan(log.get(..len).unwrap_or_default(), FIRST_CRC);
    assert_eq!(cut.next_position, start as u64);
    assert!(whole.frames.starts_with(&cut.frames));
    let torn = End::Torn { position: start as u64 };
    assert_eq!(cut.end, if start == len { End::Clean } else { torn });

    if let Some(byte) = log.get_mut(len) {
        *byte ^= 1 << (at >> 29);
    }
    let damaged = scan(&log, FIRST_CRC);
    assert!(whole.frames.starts_with(&damaged.frames));
    match damaged.end {
        End::Clean => panic!("damage at byte {len} went unnoticed"),
        End::Torn { position } => assert_eq!((position, start), (start as u64, last_start)),
        End::Newer { .. } => panic!("a damaged frame is not a sound one"),
        End::Corrupt { position, .. } => {
            assert_eq!(position, start as u64);
            assert!(start < last_start, "a damaged last frame may be torn");
        }
    }
}

fn record(byte: u8) -> MetadataRecord {
    let id = TopicId([byte; 16]);
    let size = usize::from(byte) * 64;
    let queue = QueueId([byte; 16]);
    let settings = QueueSettings {
        max_bytes: (byte > 127).then_some(u64::from(byte)),
        overflow: Overflow::RejectPublish,
        max_priority: Some(byte),
        ..QueueSettings::default()
    };
    match byte % 12 {
        0 => MetadataRecord::TopicDeleted { id },
        1 => MetadataRecord::DeletionForgotten { id },
        2 => MetadataRecord::Entity { kind: u16::from(byte), key: vec![byte], value: None },
        3 => MetadataRecord::Entity { kind: 0, key: Vec::new(), value: Some(vec![byte; size]) },
        4 => MetadataRecord::TopicConfigured { id, config: vec![("name".to_owned(), "v".repeat(size))] },
        5 => MetadataRecord::PartitionsAdded { id, slots: (0..u32::from(byte)).map(Slot).collect() },
        7 => MetadataRecord::QueueCreated { id: queue, name: vec![byte; size], slot: Slot(7), settings },
        8 => MetadataRecord::QueueDeleted { id: queue },
        9 => MetadataRecord::QueueConfigured { id: queue, settings },
        10 => MetadataRecord::QueueDeletionForgotten { id: queue },
        6 => MetadataRecord::ProducerIdsGiven { below: u64::from(byte) << 32 },
        _ => MetadataRecord::TopicCreated {
            id,
            name: "t".repeat(usize::from(byte)),
            config: vec![("name".to_owned(), "v".repeat(size))],
            slots: (0..u32::from(byte)).map(Slot).collect(),
        },
    }
}
