//! The records of [`super::topic::NAME`], in Kafka's own form, so that Kafka's tools read what is stored here and a
//! directory which comes from Kafka is understood.
//!
//! All integers are big-endian; a string stands behind its length in 16 bits (-1 for none), bytes behind theirs in 32.
//!
//! | record | key | value |
//! |---|---|---|
//! | offset | version 1: 2 bytes; group: string; topic: string; partition: 4 bytes | version 4: 2 bytes; offset: 8; leader epoch: 4; metadata: string of a flexible message; commit time in ms: 8; tagged field 0: the topic's id, 16 bytes |
//! | group | version 2: 2 bytes; group: string | version 3: 2 bytes; protocol type: string; generation: 4; protocol: string or none; leader: string or none; time of this state in ms: 8; members: count of 4 bytes, each as below |
//!
//! A member: id: string; lasting name: string or none; client's id: string; its host: string; rebalance timeout in ms: 4;
//! session timeout in ms: 4; metadata: bytes; assignment: bytes.
//!
//! No value means that the key is gone. Offsets of versions 0 to 3 of the value are read, too; they do not say which
//! incarnation of the topic was read. Source: Kafka's schemas
//! `OffsetCommitKey`, `OffsetCommitValue`, `GroupMetadataKey`, `GroupMetadataValue`.

use std::sync::Arc;

use millstream_engine::types::TopicId;

use super::offsets::Committed;
use crate::kafka::codec::{Malformed, Reader};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const OFFSET_VALUE: i16 = 4;
const GROUP_VALUE: i16 = 3;
/// The first version of an offset's value that is a flexible message (KIP-482).
const FLEXIBLE_OFFSET_VALUE: i16 = 4;
/// The tagged field of an offset's value that holds the topic's id.
const TOPIC_TAG: u32 = 0;

/// A change to what is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// How far a group has read a partition; `None` if that is forgotten.
    Offset {
        /// The group.
        group: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// How far.
        committed: Option<Committed>,
    },
    /// A group's state; `None` if it is forgotten.
    Group {
        /// The group.
        group: Arc<str>,
        /// Its state: a [`GroupState`], encoded.
        state: Option<Arc<[u8]>>,
    },
}

/// What is stored of a group when its members have got their assignments, or all have left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupState {
    /// What sort of group it is.
    pub protocol_type: Arc<str>,
    /// Its generation.
    pub generation: i32,
    /// The way to assign; `None` without members.
    pub protocol: Option<Arc<str>>,
    /// Who assigns.
    pub leader: Option<Arc<str>>,
    /// Since when this holds, in ms since 1970.
    pub since_ms: i64,
    /// Who is in it.
    pub members: Vec<MemberState>,
}

/// What is stored of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberState {
    /// Its id.
    pub id: Arc<str>,
    /// Its lasting name.
    pub instance_id: Option<Arc<str>>,
    /// What its client calls itself.
    pub client_id: Box<str>,
    /// Where it connected from.
    pub client_host: Box<str>,
    /// How long it may take to join again.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// What the way to assign wants to know of it.
    pub metadata: Arc<[u8]>,
    /// Its part.
    pub assignment: Arc<[u8]>,
}

impl Record {
    /// The key's bytes, and the value's if there is one.
    pub fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut key = Vec::new();
        match self {
            Record::Offset { group, topic, partition, committed } => {
                put_i16(&mut key, OFFSET_KEY);
                put_string(&mut key, group);
                put_string(&mut key, topic);
                put_i32(&mut key, *partition);
                (key, committed.as_ref().map(encode_committed))
            }
            Record::Group { group, state } => {
                put_i16(&mut key, GROUP_KEY);
                put_string(&mut key, group);
                (key, state.as_ref().map(|state| state.to_vec()))
            }
        }
    }

    /// Bytes that it takes in a batch, no less than it does.
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 80;
        OVERHEAD
            + match self {
                Record::Offset { group, topic, committed, .. } => {
                    let metadata = committed.as_ref().map_or(0, |committed| committed.metadata.len());
                    group.len() + topic.len() + metadata
                }
                Record::Group { group, state } => group.len() + state.as_ref().map_or(0, |state| state.len()),
            }
    }

    /// Reads a record. `None` if it is of a kind that says nothing to us.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, Malformed> {
        let mut reader = Reader::new(key, false);
        match reader.i16()? {
            0 | OFFSET_KEY => {
                let group = reader.string()?.into();
                let topic = reader.string()?.into();
                let partition = reader.i32()?;
                let committed = match value {
                    None => None,
                    Some(value) => match decode_committed(value)? {
                        None => return Ok(None),
                        committed => committed,
                    },
                };
                Ok(Some(Record::Offset { group, topic, partition, committed }))
            }
            GROUP_KEY => {
                let group = reader.string()?.into();
                Ok(Some(Record::Group { group, state: value.map(Arc::from) }))
            }
            _ => Ok(None),
        }
    }
}

fn encode_committed(committed: &Committed) -> Vec<u8> {
    let mut value = Vec::new();
    put_i16(&mut value, OFFSET_VALUE);
    put_i64(&mut value, committed.offset);
    put_i32(&mut value, committed.leader_epoch);
    put_varint(&mut value, committed.metadata.len() + 1);
    value.extend_from_slice(committed.metadata.as_bytes());
    put_i64(&mut value, committed.committed_ms);
    put_varint(&mut value, usize::from(committed.topic.is_some()));
    if let Some(TopicId(id)) = committed.topic {
        put_varint(&mut value, TOPIC_TAG as usize);
        put_varint(&mut value, id.len());
        value.extend_from_slice(&id);
    }
    value
}

/// `None` for a version that is not known.
fn decode_committed(value: &[u8]) -> Result<Option<Committed>, Malformed> {
    let mut reader = Reader::new(value, false);
    let version = reader.i16()?;
    if !(0..=OFFSET_VALUE).contains(&version) {
        return Ok(None);
    }
    let flexible = version >= FLEXIBLE_OFFSET_VALUE;
    reader.set_flexible(flexible);
    let offset = reader.i64()?;
    let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
    let metadata = reader.string()?.into();
    let committed_ms = reader.i64()?;
    let mut topic = None;
    for _ in 0..if flexible { reader.unsigned_varint()? } else { 0 } {
        let (tag, bytes) = reader.tagged()?;
        if tag == TOPIC_TAG {
            topic = Some(Reader::new(bytes, true).uuid()?);
        }
    }
    Ok(Some(Committed { offset, leader_epoch, metadata, committed_ms, topic }))
}

impl GroupState {
    /// The value's bytes.
    pub fn encode(&self) -> Arc<[u8]> {
        let mut value = Vec::new();
        put_i16(&mut value, GROUP_VALUE);
        put_string(&mut value, &self.protocol_type);
        put_i32(&mut value, self.generation);
        put_nullable(&mut value, self.protocol.as_deref());
        put_nullable(&mut value, self.leader.as_deref());
        put_i64(&mut value, self.since_ms);
        put_i32(&mut value, self.members.len() as i32);
        for member in &self.members {
            put_string(&mut value, &member.id);
            put_nullable(&mut value, member.instance_id.as_deref());
            put_string(&mut value, &member.client_id);
            put_string(&mut value, &member.client_host);
            put_i32(&mut value, member.rebalance_timeout_ms);
            put_i32(&mut value, member.session_timeout_ms);
            put_bytes(&mut value, &member.metadata);
            put_bytes(&mut value, &member.assignment);
        }
        value.into()
    }

    /// Reads the value's bytes.
    pub fn decode(value: &[u8]) -> Result<GroupState, Malformed> {
        let mut reader = Reader::new(value, false);
        let version = reader.i16()?;
        if !(0..=GROUP_VALUE).contains(&version) {
            return Err(Malformed("a group's state is of a version that is not known"));
        }
        let protocol_type = reader.string()?.into();
        let generation = reader.i32()?;
        let protocol = reader.nullable_string()?.map(Arc::from);
        let leader = reader.nullable_string()?.map(Arc::from);
        let since_ms = if version >= 2 { reader.i64()? } else { -1 };
        let mut members = Vec::new();
        for _ in 0..reader.count(8)? {
            let id = reader.string()?.into();
            let instance_id = if version >= 3 { reader.nullable_string()?.map(Arc::from) } else { None };
            let client_id = reader.string()?.into();
            let client_host = reader.string()?.into();
            let rebalance_timeout_ms = if version >= 1 { Some(reader.i32()?) } else { None };
            let session_timeout_ms = reader.i32()?;
            let mut bytes = || -> Result<Arc<[u8]>, Malformed> {
                let place = reader.nullable_bytes()?.unwrap_or_default();
                Ok(value.get(place).unwrap_or_default().into())
            };
            let (metadata, assignment) = (bytes()?, bytes()?);
            members.push(MemberState {
                id,
                instance_id,
                client_id,
                client_host,
                rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
                session_timeout_ms,
                metadata,
                assignment,
            });
        }
        Ok(GroupState { protocol_type, generation, protocol, leader, since_ms, members })
    }
}

/// Kafka's `UNSIGNED_VARINT`.
fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    let len =
        i16::try_from(text.len()).expect("texts from the wire have lengths of 16 bits, and ids are cut");
    put_i16(out, len);
    out.extend_from_slice(text.as_bytes());
}

fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => put_i16(out, -1),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_i32(out, i32::try_from(bytes.len()).expect("what a member brings is bounded by limits.rs"));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> Committed {
        Committed {
            offset: 42,
            leader_epoch: 3,
            metadata: "note".into(),
            committed_ms: 1_700_000_000_000,
            topic: Some(TopicId([7; 16])),
        }
    }

    #[test]
    fn records_round_trip() {
        let state = GroupState {
            protocol_type: "consumer".into(),
            generation: 7,
            protocol: Some("range".into()),
            leader: Some("a-1".into()),
            since_ms: 5,
            members: vec![MemberState {
                id: "a-1".into(),
                instance_id: Some("a".into()),
                client_id: "a".into(),
                client_host: "/10.0.0.1".into(),
                rebalance_timeout_ms: 300_000,
                session_timeout_ms: 45_000,
                metadata: [1, 2].into(),
                assignment: [3].into(),
            }],
        };
        assert_eq!(GroupState::decode(&state.encode()), Ok(state.clone()));
        let group: Arc<str> = "g".into();
        for record in [
            Record::Offset {
                group: Arc::clone(&group),
                topic: "t".into(),
                partition: 9,
                committed: Some(committed()),
            },
            Record::Offset { group: Arc::clone(&group), topic: "t".into(), partition: 9, committed: None },
            Record::Group { group: Arc::clone(&group), state: Some(state.encode()) },
            Record::Group { group, state: None },
        ] {
            let (key, value) = record.encode();
            assert_eq!(Record::decode(&key, value.as_deref()), Ok(Some(record)));
        }
    }

    #[test]
    fn an_offset_has_kafkas_bytes() {
        let topic = Some(TopicId(*b"0123456789abcdef"));
        let committed =
            Committed { offset: 2, leader_epoch: -1, metadata: "m".into(), committed_ms: 3, topic };
        let record = Record::Offset {
            group: "g".into(),
            topic: "t".into(),
            partition: 1,
            committed: Some(committed.clone()),
        };
        let (key, value) = record.encode();
        assert_eq!(key, *b"\0\x01\0\x01g\0\x01t\0\0\0\x01");
        let expected =
            b"\0\x04\0\0\0\0\0\0\0\x02\xff\xff\xff\xff\x02m\0\0\0\0\0\0\0\x03\x01\0\x100123456789abcdef";
        assert_eq!(value.unwrap(), *expected);
        // As Kafka stored it before it knew of topics' ids.
        let older = b"\0\x03\0\0\0\0\0\0\0\x02\xff\xff\xff\xff\0\x01m\0\0\0\0\0\0\0\x03";
        assert_eq!(decode_committed(older), Ok(Some(Committed { topic: None, ..committed })));
    }

    #[test]
    fn what_is_not_known_is_passed_over_and_what_is_cut_off_is_an_error() {
        assert_eq!(Record::decode(&[0, 9, 1], None), Ok(None));
        let (key, value) = Record::Offset {
            group: "g".into(),
            topic: "t".into(),
            partition: 1,
            committed: Some(committed()),
        }
        .encode();
        let value = value.unwrap();
        assert_eq!(Record::decode(&key, Some(&[&[0, 5], &value[2..]].concat())), Ok(None));
        for len in 0..key.len() {
            assert!(Record::decode(&key[..len], Some(&value)).is_err());
        }
        for len in 0..value.len() {
            assert!(Record::decode(&key, Some(&value[..len])).is_err());
        }
        assert!(GroupState::decode(&[0, 9]).is_err());
    }
}
