//! Groups of the journal. Recovery, which reads files of them, is tested in the simulator.

use millstream_engine::checksum::crc32c_append;
use millstream_engine::format::batch::{self, BatchBuilder};
use millstream_engine::format::journal::{
    GROUP_HEADER_BYTES, GroupHeader, GroupPlace, RecordHeader, RecordKind, check, encode_record, peek,
    records, seal,
};
use millstream_engine::limits::{BLOCK_BYTES, GROUP_BYTES_MAX};
use millstream_engine::types::{FileEpoch, Lsn, Offset, PartitionId, TopicId};

use crate::overwrite;

const PLACE: GroupPlace = GroupPlace {
    previous_crc: 7,
    file_epoch: FileEpoch(3),
    first_lsn: Lsn(11),
    durable_lsn: Lsn(10),
    key: 99,
};

/// A group that passes the check holds the records that it says; one that was built is read back; no flipped bit that
/// matters passes, nor a cut.
pub fn run(bytes: &[u8]) {
    inspect(bytes);
    inspect(&repaired(bytes));
    build(bytes);
}

fn inspect(bytes: &[u8]) {
    let Ok(header) = check(bytes) else { return };
    assert_eq!(peek(bytes), Ok(header));
    assert!(header.length.is_multiple_of(BLOCK_BYTES) && header.length <= bytes.len().min(GROUP_BYTES_MAX));
    let group = &bytes[..header.length];
    let mut end = GROUP_HEADER_BYTES;
    let mut count = 0;
    for (record, payload) in records(group) {
        assert!(payload.start > end && payload.end <= header.used && payload.len() == record.len);
        if record.kind == RecordKind::Batch {
            assert!(batch::check(&group[payload.clone()]).is_ok(), "a batch that is not sound was passed");
        }
        end = payload.end;
        count += 1;
    }
    assert_eq!(count, header.records, "records that were checked are not given");
    assert_eq!(header.last_lsn(), Lsn(header.first_lsn.0 + u64::from(count) - 1));
}

/// The bytes as the records of a group whose header is right, as far as that can be without looking at the records: the
/// checksum is that of records without a batch.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let Some((count, content)) = bytes.split_first() else { return Vec::new() };
    let mut group = vec![0; GROUP_HEADER_BYTES];
    group.extend_from_slice(content);
    let used = group.len();
    group.resize(used.next_multiple_of(BLOCK_BYTES), 0);
    let length = group.len() as u32;
    overwrite(&mut group, 0, b"MSJ1");
    overwrite(&mut group, 4, &length.to_le_bytes());
    overwrite(&mut group, 8, &(used as u32).to_le_bytes());
    overwrite(&mut group, 20, &u32::from(*count).to_le_bytes());
    overwrite(&mut group, 32, &1_u64.to_le_bytes());
    let crc = crc32c_append(crc32c_append(0, &group[..12]), &group[16..used]);
    overwrite(&mut group, 12, &crc.to_le_bytes());
    group
}

/// Takes a byte for each record, behind four that say which bit to flip.
fn build(bytes: &[u8]) {
    let Some((at, plan)) = bytes.split_first_chunk().filter(|(_, plan)| !plan.is_empty()) else { return };
    let at = u32::from_le_bytes(*at) as usize;
    let mut group = vec![0; GROUP_HEADER_BYTES];
    let mut pushed = Vec::new();
    let mut padding = Vec::new();
    for byte in plan.iter().take(16) {
        let (kind, payload) = payload(*byte);
        let header = RecordHeader {
            kind,
            partition: PartitionId { topic: TopicId([*byte; 16]), index: u32::from(*byte) },
            segment: Offset(u64::from(*byte) << 20),
            position: u32::from(*byte) << 12,
            aux: 5,
            len: payload.len(),
        };
        group.extend_from_slice(&encode_record(&header));
        group.extend_from_slice(&payload);
        let end = group.len();
        group.resize(end.next_multiple_of(8), 0);
        padding.extend(end..group.len());
        pushed.push((header, payload));
    }
    let used = group.len();
    group.resize(used.next_multiple_of(BLOCK_BYTES), 0xaa);
    let crc = seal(&mut group, used, pushed.len() as u32, &PLACE);
    let expected = GroupHeader {
        length: group.len(),
        used,
        crc,
        previous_crc: PLACE.previous_crc,
        records: pushed.len() as u32,
        file_epoch: PLACE.file_epoch,
        first_lsn: PLACE.first_lsn,
        durable_lsn: PLACE.durable_lsn,
        key: PLACE.key,
    };
    assert_eq!(check(&group), Ok(expected));
    let read: Vec<_> = records(&group).map(|(header, payload)| (header, group[payload].to_vec())).collect();
    assert_eq!(read, pushed);

    assert!(check(&group[..at % group.len()]).is_err(), "a group that was cut passes");
    let byte = at % used;
    if !padding.contains(&byte) {
        group[byte] ^= 1 << (at >> 29);
        assert!(check(&group).is_err(), "byte {byte} changed unseen");
    }
}

fn payload(byte: u8) -> (RecordKind, Vec<u8>) {
    let size = usize::from(byte) * 16;
    match byte % 4 {
        0 => (RecordKind::Batch, BatchBuilder::new(0).push(None, Some(&vec![byte; size])).build()),
        1 => (RecordKind::Part, vec![byte; size]),
        2 => (RecordKind::Carry, vec![byte; size / 3]),
        _ => (RecordKind::LogStart, Vec::new()),
    }
}
