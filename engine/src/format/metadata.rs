//! The metadata log and its snapshot: frames of records, chained by their checksums.
//!
//! A frame is a multiple of 4096 bytes. Little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic: `MSMD` |
//! | 4 | 4 | CRC32C of the whole frame from byte 8, padding included |
//! | 8 | 4 | bytes of payload |
//! | 12 | 4 | the previous frame's CRC; what the file's owner says for the first |
//! | 16 | 8 | metadata epoch that holds once the frame is applied |
//! | 24 | | payload, then zeros to a multiple of 4096 |
//!
//! The payload is records, one after the other, each [`MetadataRecord`] behind its kind (2 bytes) and length (4 bytes).
//! Strings stand behind a 16-bit length, byte strings behind a 32-bit one:
//!
//! | kind | record | body |
//! |---|---|---|
//! | 1 | topic created | id: 16 bytes; name: string; number of settings: 4 bytes, each two strings; slots: 4 bytes each, to the end |
//! | 2 | topic deleted | id: 16 bytes |
//! | 3 | deletion forgotten | id: 16 bytes |
//! | 4 | entity | kind: 2 bytes; 1 if it has a value, else 0; key: byte string; value: byte string, if it has one |
//! | 5 | topic configured | id: 16 bytes; number of settings: 4 bytes, each two strings |
//! | 6 | partitions added | id: 16 bytes; slots: 4 bytes each, to the end |
//! | 7 | producer ids given | the first id that was not given to anybody: 8 bytes |
//! | 8 | queue created | id: 16 bytes; name: byte string; slot: 4 bytes; settings, see [`super::queue`] |
//! | 9 | queue deleted | id: 16 bytes |
//! | 10 | queue configured | id: 16 bytes; settings |
//! | 11 | deletion of a queue forgotten | id: 16 bytes |
//!
//! A new kind of record comes with an incompatible feature in the manifest; an unknown one in a sound frame is a newer
//! version's, and is refused by its number.

use std::mem::size_of;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::queue::{decode_settings, encode_settings};
use super::take::{put_bytes, put_str, take, take_bytes, take_str};
use crate::checksum::{crc32c, crc32c_append};
use crate::config::QueueSettings;
use crate::limits::BLOCK_BYTES;
use crate::types::{MetadataEpoch, QueueId, Slot, TopicId};

const MAGIC: [u8; 4] = *b"MSMD";
const CRC_FROM: usize = 8;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFrame {
    magic: [u8; 4],
    crc: U32,
    length: U32,
    previous_crc: U32,
    epoch: U64,
}

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 24;
const _: () = assert!(size_of::<RawFrame>() == FRAME_HEADER_BYTES);

/// A change to the metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetadataRecord {
    /// There is a topic.
    TopicCreated {
        /// Its incarnation.
        id: TopicId,
        /// Its name.
        name: String,
        /// Its settings by name; names that this version does not know survive. See [`super::settings`].
        config: Vec<(String, String)>,
        /// Where each partition is placed.
        slots: Vec<Slot>,
    },
    /// The topic is no more; journals may still hold records of it.
    TopicDeleted {
        /// Its incarnation.
        id: TopicId,
    },
    /// No journal holds anything of a deleted topic any more.
    DeletionForgotten {
        /// Its incarnation.
        id: TopicId,
    },
    /// A topic has these settings from now on, and no others.
    TopicConfigured {
        /// Its incarnation.
        id: TopicId,
        /// Its settings by name, as in [`MetadataRecord::TopicCreated`].
        config: Vec<(String, String)>,
    },
    /// A topic has more partitions, numbered on from the last.
    PartitionsAdded {
        /// Its incarnation.
        id: TopicId,
        /// Where each new one is placed.
        slots: Vec<Slot>,
    },
    /// Ids for producers below this one may have been given to somebody.
    ProducerIdsGiven {
        /// The first that was not.
        below: u64,
    },
    /// There is a durable queue.
    QueueCreated {
        /// Its incarnation.
        id: QueueId,
        /// Its name.
        name: Vec<u8>,
        /// Where it is placed.
        slot: Slot,
        /// What holds for it.
        settings: QueueSettings,
    },
    /// The queue is no more; its shard's journal may still hold records of it.
    QueueDeleted {
        /// Its incarnation.
        id: QueueId,
    },
    /// A queue has these settings from now on.
    QueueConfigured {
        /// Its incarnation.
        id: QueueId,
        /// What holds for it.
        settings: QueueSettings,
    },
    /// No journal holds anything of a deleted queue any more.
    QueueDeletionForgotten {
        /// Its incarnation.
        id: QueueId,
    },
    /// Something that only the host understands: a user, a policy, an exchange.
    Entity {
        /// Which sort of thing.
        kind: u16,
        /// Which one.
        key: Vec<u8>,
        /// What it is now; `None` if it is gone.
        value: Option<Vec<u8>>,
    },
}

const TOPIC_CREATED: u16 = 1;
const TOPIC_DELETED: u16 = 2;
const DELETION_FORGOTTEN: u16 = 3;
const ENTITY: u16 = 4;
const TOPIC_CONFIGURED: u16 = 5;
const PARTITIONS_ADDED: u16 = 6;
const PRODUCER_IDS_GIVEN: u16 = 7;
const QUEUE_CREATED: u16 = 8;
const QUEUE_DELETED: u16 = 9;
const QUEUE_CONFIGURED: u16 = 10;
const QUEUE_DELETION_FORGOTTEN: u16 = 11;

/// A frame's bytes, and its CRC, which the next frame is chained to.
pub fn encode_frame(epoch: MetadataEpoch, previous_crc: u32, records: &[MetadataRecord]) -> (Vec<u8>, u32) {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    for record in records {
        encode_record(&mut frame, record);
    }
    let length = u32::try_from(frame.len() - FRAME_HEADER_BYTES).expect("a change is far smaller than 4 GiB");
    frame.resize(frame.len().next_multiple_of(BLOCK_BYTES), 0);
    let mut header = RawFrame {
        magic: MAGIC,
        crc: U32::new(0),
        length: U32::new(length),
        previous_crc: U32::new(previous_crc),
        epoch: U64::new(epoch.0),
    };
    let (head, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let covered = header.as_bytes().get(CRC_FROM..).expect("the header is longer");
    let crc = crc32c_append(crc32c(covered), payload);
    header.crc.set(crc);
    head.copy_from_slice(header.as_bytes());
    (frame, crc)
}

fn encode_record(out: &mut Vec<u8>, record: &MetadataRecord) {
    let mut body = Vec::new();
    let kind = match record {
        MetadataRecord::TopicCreated { id, name, config, slots } => {
            body.extend_from_slice(&id.0);
            put_str(&mut body, name);
            put_config(&mut body, config);
            put_slots(&mut body, slots);
            TOPIC_CREATED
        }
        MetadataRecord::TopicDeleted { id } => {
            body.extend_from_slice(&id.0);
            TOPIC_DELETED
        }
        MetadataRecord::DeletionForgotten { id } => {
            body.extend_from_slice(&id.0);
            DELETION_FORGOTTEN
        }
        MetadataRecord::Entity { kind, key, value } => {
            body.extend_from_slice(&kind.to_le_bytes());
            body.push(u8::from(value.is_some()));
            put_bytes(&mut body, key);
            if let Some(value) = value {
                put_bytes(&mut body, value);
            }
            ENTITY
        }
        MetadataRecord::TopicConfigured { id, config } => {
            body.extend_from_slice(&id.0);
            put_config(&mut body, config);
            TOPIC_CONFIGURED
        }
        MetadataRecord::PartitionsAdded { id, slots } => {
            body.extend_from_slice(&id.0);
            put_slots(&mut body, slots);
            PARTITIONS_ADDED
        }
        MetadataRecord::ProducerIdsGiven { below } => {
            body.extend_from_slice(&below.to_le_bytes());
            PRODUCER_IDS_GIVEN
        }
        MetadataRecord::QueueCreated { id, name, slot, settings } => {
            body.extend_from_slice(&id.0);
            put_bytes(&mut body, name);
            put_slots(&mut body, &[*slot]);
            encode_settings(&mut body, settings);
            QUEUE_CREATED
        }
        MetadataRecord::QueueDeleted { id } => {
            body.extend_from_slice(&id.0);
            QUEUE_DELETED
        }
        MetadataRecord::QueueConfigured { id, settings } => {
            body.extend_from_slice(&id.0);
            encode_settings(&mut body, settings);
            QUEUE_CONFIGURED
        }
        MetadataRecord::QueueDeletionForgotten { id } => {
            body.extend_from_slice(&id.0);
            QUEUE_DELETION_FORGOTTEN
        }
    };
    out.extend_from_slice(&kind.to_le_bytes());
    put_bytes(out, &body);
}

fn put_config(body: &mut Vec<u8>, config: &[(String, String)]) {
    body.extend_from_slice(&(config.len() as u32).to_le_bytes());
    for (name, value) in config {
        put_str(body, name);
        put_str(body, value);
    }
}

fn put_slots(body: &mut Vec<u8>, slots: &[Slot]) {
    for slot in slots {
        body.extend_from_slice(&slot.0.to_le_bytes());
    }
}

fn take_config(body: &mut &[u8]) -> Option<Vec<(String, String)>> {
    let mut config = Vec::new();
    for _ in 0..take::<U32>(body)?.get() {
        config.push((take_str(body)?.to_owned(), take_str(body)?.to_owned()));
    }
    Some(config)
}

/// To the end of the body.
fn take_slots(body: &mut &[u8]) -> Option<Vec<Slot>> {
    let slots = <[U32]>::ref_from_bytes(std::mem::take(body)).ok()?;
    Some(slots.iter().map(|slot| Slot(slot.get())).collect())
}

/// `None` if the body is not of its kind, or longer than what it holds.
fn decode_record(kind: u16, mut body: &[u8]) -> Option<MetadataRecord> {
    let body = &mut body;
    let record = match kind {
        TOPIC_CREATED => {
            let id = TopicId(take(body)?);
            let name = take_str(body)?.to_owned();
            let config = take_config(body)?;
            MetadataRecord::TopicCreated { id, name, config, slots: take_slots(body)? }
        }
        TOPIC_DELETED => MetadataRecord::TopicDeleted { id: TopicId(take(body)?) },
        DELETION_FORGOTTEN => MetadataRecord::DeletionForgotten { id: TopicId(take(body)?) },
        ENTITY => {
            let kind = take::<U16>(body)?.get();
            let has_value: u8 = take(body)?;
            let key = take_bytes(body)?.to_vec();
            let value = match has_value {
                0 => None,
                1 => Some(take_bytes(body)?.to_vec()),
                _ => return None,
            };
            MetadataRecord::Entity { kind, key, value }
        }
        TOPIC_CONFIGURED => {
            let id = TopicId(take(body)?);
            MetadataRecord::TopicConfigured { id, config: take_config(body)? }
        }
        PARTITIONS_ADDED => {
            let id = TopicId(take(body)?);
            MetadataRecord::PartitionsAdded { id, slots: take_slots(body)? }
        }
        PRODUCER_IDS_GIVEN => MetadataRecord::ProducerIdsGiven { below: take::<U64>(body)?.get() },
        QUEUE_CREATED => {
            let id = QueueId(take(body)?);
            let name = take_bytes(body)?.to_vec();
            let slot = Slot(take::<U32>(body)?.get());
            MetadataRecord::QueueCreated { id, name, slot, settings: decode_settings(body)? }
        }
        QUEUE_DELETED => MetadataRecord::QueueDeleted { id: QueueId(take(body)?) },
        QUEUE_CONFIGURED => {
            let id = QueueId(take(body)?);
            MetadataRecord::QueueConfigured { id, settings: decode_settings(body)? }
        }
        QUEUE_DELETION_FORGOTTEN => MetadataRecord::QueueDeletionForgotten { id: QueueId(take(body)?) },
        _ => return None,
    };
    body.is_empty().then_some(record)
}

/// What a metadata log or a snapshot holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scan {
    /// The sound frames, up to where the scan ended.
    pub frames: Vec<(MetadataEpoch, Vec<MetadataRecord>)>,
    /// How it ended.
    pub end: End,
    /// One past the last sound frame: where the next one goes, once anything torn has been cut off.
    pub next_position: u64,
    /// What the next frame is chained to.
    pub last_crc: u32,
}

/// How a scan ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// At the end of the bytes, or before nothing but zeros.
    Clean,
    /// Within the last frame: its write was cut off, so nobody was answered for it. The file is to be cut here before
    /// anything is appended.
    Torn {
        /// Where that frame starts.
        position: u64,
    },
    /// At damage that no crash leaves behind.
    Corrupt {
        /// Where the damaged frame starts.
        position: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// At a sound frame with a record of a kind that this version does not know.
    Newer {
        /// Where that frame starts.
        position: u64,
        /// The record's kind.
        kind: u16,
    },
}

/// Reads a log or snapshot from its start; the first frame must be chained to `previous_crc`.
///
/// Only the last frame can be torn, because the next one is written after its flush:
///
/// | the frame here | a sound frame somewhere behind it | is |
/// |---|---|---|
/// | sound, chained, its records are readable | - | taken |
/// | sound but not chained, or its epoch falls, or its records are unreadable | - | corrupt |
/// | sound and chained, with a record of an unknown kind | - | newer |
/// | bad | yes | corrupt |
/// | bad, and nothing but zeros from here | no | the clean end |
/// | bad | no | torn |
pub fn scan(bytes: &[u8], previous_crc: u32) -> Scan {
    let mut frames: Vec<(MetadataEpoch, Vec<MetadataRecord>)> = Vec::new();
    let mut last_crc = previous_crc;
    let mut rest = bytes;
    let end = loop {
        if rest.is_empty() {
            break End::Clean;
        }
        let position = (bytes.len() - rest.len()) as u64;
        let corrupt = |what| End::Corrupt { position, what };
        let Some(frame) = read_frame(rest) else {
            let mut behind = rest;
            while behind.split_off(..BLOCK_BYTES).is_some() {
                if read_frame(behind).is_some() {
                    break;
                }
            }
            break if read_frame(behind).is_some() {
                corrupt("the frame is damaged, and a sound one follows it")
            } else if rest.iter().all(|byte| *byte == 0) {
                End::Clean
            } else {
                End::Torn { position }
            };
        };
        if frame.previous_crc != last_crc {
            break corrupt("the frame does not follow the one before it");
        }
        if frames.last().is_some_and(|(epoch, _)| *epoch > frame.epoch) {
            break corrupt("the frame's epoch is lower than the one before it");
        }
        let records = match decode_records(frame.payload) {
            Ok(records) => records,
            Err(Unreadable::Kind(kind)) => break End::Newer { position, kind },
            Err(Unreadable::Damaged) => break corrupt("the frame is sound, but a record in it is not"),
        };
        frames.push((frame.epoch, records));
        last_crc = frame.crc;
        rest = frame.rest;
    };
    let next_position = (bytes.len() - rest.len()) as u64;
    Scan { frames, end, next_position, last_crc }
}

struct Frame<'a> {
    epoch: MetadataEpoch,
    crc: u32,
    previous_crc: u32,
    payload: &'a [u8],
    rest: &'a [u8],
}

/// The frame that `bytes` starts with, if it is whole and its checksum matches.
fn read_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (header, _) = RawFrame::ref_from_prefix(bytes).ok()?;
    if header.magic != MAGIC {
        return None;
    }
    let payload_end = FRAME_HEADER_BYTES.checked_add(header.length.get() as usize)?;
    let (frame, rest) = bytes.split_at_checked(payload_end.checked_next_multiple_of(BLOCK_BYTES)?)?;
    if crc32c(frame.get(CRC_FROM..)?) != header.crc.get() {
        return None;
    }
    Some(Frame {
        epoch: MetadataEpoch(header.epoch.get()),
        crc: header.crc.get(),
        previous_crc: header.previous_crc.get(),
        payload: frame.get(FRAME_HEADER_BYTES..payload_end)?,
        rest,
    })
}

/// Why the records of a sound frame cannot be read.
enum Unreadable {
    /// One is of this kind, which nobody knew when this was written.
    Kind(u16),
    /// One is not what its kind says.
    Damaged,
}

fn decode_records(mut payload: &[u8]) -> Result<Vec<MetadataRecord>, Unreadable> {
    let mut records = Vec::new();
    while !payload.is_empty() {
        let kind = take::<U16>(&mut payload).ok_or(Unreadable::Damaged)?.get();
        let body = take_bytes(&mut payload).ok_or(Unreadable::Damaged)?;
        if kind > QUEUE_DELETION_FORGOTTEN {
            return Err(Unreadable::Kind(kind));
        }
        records.push(decode_record(kind, body).ok_or(Unreadable::Damaged)?);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> TopicId {
        TopicId([byte; 16])
    }

    fn created(name: &str, partitions: u32) -> MetadataRecord {
        MetadataRecord::TopicCreated {
            id: id(1),
            name: name.to_owned(),
            config: vec![("retention.ms".to_owned(), "5".to_owned()), ("of.later".to_owned(), String::new())],
            slots: (0..partitions).map(Slot).collect(),
        }
    }

    fn entity(value: Option<&[u8]>) -> MetadataRecord {
        MetadataRecord::Entity { kind: 9, key: b"user".to_vec(), value: value.map(<[u8]>::to_vec) }
    }

    /// Three frames of one, two and one blocks, chained to 7, and where each starts.
    fn sample() -> (Vec<u8>, Vec<(MetadataEpoch, Vec<MetadataRecord>)>) {
        let frames = vec![
            (MetadataEpoch(4), vec![created("orders", 3), MetadataRecord::TopicDeleted { id: id(2) }]),
            (
                MetadataEpoch(5),
                vec![entity(Some(&[3; 5000])), MetadataRecord::DeletionForgotten { id: id(2) }],
            ),
            (
                MetadataEpoch(6),
                vec![
                    entity(None),
                    created("", 0),
                    entity(Some(b"")),
                    MetadataRecord::TopicConfigured {
                        id: id(1),
                        config: vec![("segment.ms".to_owned(), "7".to_owned())],
                    },
                    MetadataRecord::PartitionsAdded { id: id(1), slots: vec![Slot(3), Slot(70_000)] },
                    MetadataRecord::ProducerIdsGiven { below: 1 << 40 },
                    MetadataRecord::QueueCreated {
                        id: QueueId([5; 16]),
                        name: b"/\0work".to_vec(),
                        slot: Slot(7),
                        settings: QueueSettings { max_messages: Some(10), ..QueueSettings::default() },
                    },
                    MetadataRecord::QueueConfigured {
                        id: QueueId([5; 16]),
                        settings: QueueSettings::default(),
                    },
                    MetadataRecord::QueueDeleted { id: QueueId([5; 16]) },
                    MetadataRecord::QueueDeletionForgotten { id: QueueId([5; 16]) },
                ],
            ),
        ];
        let mut bytes = Vec::new();
        let mut crc = 7;
        for (epoch, records) in &frames {
            let frame;
            (frame, crc) = encode_frame(*epoch, crc, records);
            bytes.extend_from_slice(&frame);
        }
        assert_eq!(bytes.len(), 4 * BLOCK_BYTES);
        (bytes, frames)
    }

    #[test]
    fn frames_round_trip_and_can_be_continued() {
        let (mut bytes, mut frames) = sample();
        let read = scan(&bytes, 7);
        assert_eq!((&read.frames, read.end, read.next_position), (&frames, End::Clean, 4 * 4096));

        let (frame, crc) = encode_frame(MetadataEpoch(7), read.last_crc, &[]);
        bytes.extend_from_slice(&frame);
        frames.push((MetadataEpoch(7), vec![]));
        let read = scan(&bytes, 7);
        assert_eq!((read.frames, read.end, read.last_crc), (frames, End::Clean, crc));
    }

    #[test]
    fn zeros_behind_the_last_frame_are_a_clean_end() {
        let (mut bytes, frames) = sample();
        bytes.resize(bytes.len() + 3 * BLOCK_BYTES + 5, 0);
        let read = scan(&bytes, 7);
        assert_eq!((read.frames, read.end, read.next_position), (frames, End::Clean, 4 * 4096));
        assert_eq!(scan(&[], 7).end, End::Clean);
    }

    #[test]
    fn a_last_frame_cut_anywhere_is_torn_and_the_others_are_kept() {
        let (bytes, frames) = sample();
        for len in [3 * 4096 + 1, 3 * 4096 + 24, 3 * 4096 + 100, 4 * 4096 - 1] {
            let read = scan(&bytes[..len], 7);
            assert_eq!(
                (&read.frames[..], read.end),
                (&frames[..2], End::Torn { position: 3 * 4096 }),
                "{len}"
            );
            assert_eq!(read.next_position, 3 * 4096);
        }
        // Either block of a two-block frame may be the one that a crash kept.
        for lost in [1, 2] {
            let mut torn = bytes[..3 * 4096].to_vec();
            torn[lost * 4096..(lost + 1) * 4096].fill(0);
            let read = scan(&torn, 7);
            assert_eq!((&read.frames[..], read.end), (&frames[..1], End::Torn { position: 4096 }), "{lost}");
        }
    }

    #[test]
    fn every_flipped_bit_before_the_last_frame_is_corruption() {
        let (bytes, _) = sample();
        for bit in (0..64 * 8).chain((4090 * 8..4130 * 8).step_by(3)).chain([3 * 4096 * 8 - 1]) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let frame = if bit / 8 < 4096 { 0 } else { 4096 };
            match scan(&damaged, 7).end {
                End::Corrupt { position, .. } => assert_eq!(position, frame, "bit {bit}"),
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_hole_of_zeros_before_a_sound_frame_is_corruption() {
        let (mut bytes, _) = sample();
        bytes[4096..3 * 4096].fill(0);
        let what = "the frame is damaged, and a sound one follows it";
        assert_eq!(scan(&bytes, 7).end, End::Corrupt { position: 4096, what });
    }

    #[test]
    fn frames_of_another_chain_and_falling_epochs_are_corruption() {
        let (bytes, _) = sample();
        let what = "the frame does not follow the one before it";
        assert_eq!(scan(&bytes, 8).end, End::Corrupt { position: 0, what });
        let swapped = [&bytes[4096..3 * 4096], &bytes[..4096]].concat();
        assert!(matches!(scan(&swapped, 7).end, End::Corrupt { position: 0, .. }));

        let (first, crc) = encode_frame(MetadataEpoch(5), 7, &[]);
        let (second, _) = encode_frame(MetadataEpoch(4), crc, &[]);
        let what = "the frame's epoch is lower than the one before it";
        assert_eq!(scan(&[first, second].concat(), 7).end, End::Corrupt { position: 4096, what });
    }

    /// A sound frame around a payload that no encoder makes.
    fn framed(payload: &[u8]) -> Vec<u8> {
        let (mut frame, _) = encode_frame(MetadataEpoch(1), 0, &[]);
        frame[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        frame[24..24 + payload.len()].copy_from_slice(payload);
        let crc = crc32c(&frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        frame
    }

    #[test]
    fn unreadable_records_in_a_sound_frame_are_corruption() {
        let what = "the frame is sound, but a record in it is not";
        for payload in [
            &[1][..],                                    // cut within the kind
            &[2, 0, 16, 0, 0, 0, 1],                     // cut within the body
            &[0, 0, 0, 0, 0, 0],                         // no kind at all
            &[7, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],    // cut within a number
            &[4, 0, 7, 0, 0, 0, 9, 0, 2, 0, 0, 0, 0],    // neither with nor without a value
            &[4, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1], // bytes behind the record
        ] {
            assert_eq!(scan(&framed(payload), 0).end, End::Corrupt { position: 0, what }, "{payload:?}");
        }
        // Of a newer version, which is another matter.
        let newer = End::Newer { position: 0, kind: 99 };
        assert_eq!(scan(&framed(&[99, 0, 0, 0, 0, 0]), 0).end, newer);
        // A count of settings that the body does not hold, and slots that are not whole.
        let mut body = vec![0; 18];
        body.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode_record(TOPIC_CREATED, &body), None);
        body[18..22].fill(0);
        assert!(decode_record(TOPIC_CREATED, &body).is_some());
        body.push(1);
        assert_eq!(decode_record(TOPIC_CREATED, &body), None);
    }
}
