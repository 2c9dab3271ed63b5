//! What is known of one partition: what was sent to it, what its readers were given, and where it was said to stand.

use std::collections::BTreeMap;

use millstream_engine::checksum::crc32c;
use millstream_engine::config::TopicConfig;
use millstream_engine::format::batch::{self, BatchHeader};
use millstream_engine::format::partition::SegmentFile;

/// A batch as a reader was given it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Its first offset.
    pub base: u64,
    /// One past its last.
    pub next: u64,
    /// Which batch it is: the number that its sender put into its first key.
    pub id: u64,
    /// The leader epoch that it was stored under.
    pub epoch: u32,
    /// The checksum of all its bytes.
    pub crc: u32,
    /// Its largest timestamp.
    pub max_timestamp: i64,
}

/// A stored segment of which a bit has flipped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rotten {
    /// The segment's first offset.
    pub from: u64,
    /// One past its last.
    pub to: u64,
    /// In which of its files.
    pub file: SegmentFile,
}

/// What is known of a partition.
#[derive(Clone, Default, Debug)]
pub struct Partition {
    /// What readers were given, by offset. Never taken back.
    pub seen: BTreeMap<u64, Stored>,
    /// The only offset that each batch was ever seen or acknowledged at.
    pub places: BTreeMap<u64, u64>,
    /// The largest high watermark that a reader was told.
    pub high_watermark: u64,
    /// The largest log start that was said to be durable.
    pub start: u64,
    /// The largest log start that was asked for.
    pub start_asked: u64,
    /// Whether retention may move the start.
    pub retention: bool,
    /// Whether the broker stamps the batches.
    pub stamped: bool,
    /// Segments that are damaged.
    pub rotten: Vec<Rotten>,
}

impl Partition {
    /// A partition of a topic with these settings.
    pub fn of(config: &TopicConfig) -> Partition {
        let retention = config.retention_ms >= 0 || config.retention_bytes >= 0;
        Partition { retention, stamped: config.log_append_time, ..Partition::default() }
    }
}

/// Cuts what a reader was given into batches, each checked. The last may be cut off if `partial`.
pub fn parse(mut bytes: &[u8], partial: bool) -> Result<Vec<(Stored, &[u8])>, String> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let size = BatchHeader::parse(bytes).map(|header| header.size);
        let Some((whole, rest)) = size.ok().and_then(|size| bytes.split_at_checked(size)) else {
            if partial {
                break;
            }
            return Err(format!("{} bytes behind the last whole batch are no batch", bytes.len()));
        };
        let header = batch::check(whole).map_err(|error| format!("a reader was given: {error}"))?;
        let id = id_of(whole).ok_or("a reader was given a batch without a number")?;
        let stored = Stored {
            base: header.base_offset.0,
            next: header.next_offset().0,
            id,
            epoch: header.leader_epoch.0,
            crc: crc32c(whole),
            max_timestamp: header.max_timestamp,
        };
        batches.push((stored, whole));
        bytes = rest;
    }
    Ok(batches)
}

/// The number in a batch's first key.
fn id_of(batch: &[u8]) -> Option<u64> {
    let first = batch::records(batch).ok()?.next()?.ok()?;
    Some(u64::from_be_bytes(first.key?.try_into().ok()?))
}

/// What two copies of a batch have in common, whatever the broker stamped on one of them.
pub fn unstamped(batch: &[u8], stamped: bool) -> Vec<u8> {
    // Base offset and leader epoch are the broker's; with the append time, so are the checksum, the attributes and the
    // largest timestamp.
    let own: &[std::ops::Range<usize>] =
        if stamped { &[0..8, 12..16, 17..23, 35..43] } else { &[0..8, 12..16] };
    let mut bytes = batch.to_vec();
    for range in own {
        if let Some(field) = bytes.get_mut(range.clone()) {
            field.fill(0);
        }
    }
    bytes
}

impl Partition {
    /// The damaged segment that holds an offset, if its records may be refused for that.
    pub fn rotten_at(&self, offset: u64) -> Option<Rotten> {
        self.unreadable().find(|rotten| rotten.from <= offset && offset < rotten.to)
    }

    /// Segments of which something cannot be read. An index that rots costs time, and no record.
    pub fn unreadable(&self) -> impl Iterator<Item = Rotten> {
        self.rotten
            .iter()
            .copied()
            .filter(|rotten| matches!(rotten.file, SegmentFile::Log | SegmentFile::Sum))
    }

    /// Takes note that batch `id` lies at `base`; says if it was elsewhere before.
    pub fn place(&mut self, id: u64, base: u64) -> Result<(), String> {
        match self.places.insert(id, base) {
            Some(before) if before != base => {
                Err(format!("batch {id} is stored twice: at {before} and at {base}"))
            }
            _ => Ok(()),
        }
    }

    /// Takes note of batches that a reader was given, in order, from the one that holds `offset` on.
    pub fn given(&mut self, offset: u64, batches: &[Stored], high_watermark: u64) -> Result<(), String> {
        self.high_watermark = self.high_watermark.max(high_watermark);
        let mut expected = None;
        for stored in batches {
            let holds = stored.base <= offset && offset < stored.next;
            if expected.map_or(!holds, |next| stored.base != next) {
                return Err(format!(
                    "a read at {offset} gave batch {} at {}..{} where {expected:?} comes next",
                    stored.id, stored.base, stored.next
                ));
            }
            expected = Some(stored.next);
            if stored.next > high_watermark {
                return Err(format!(
                    "a reader was given offsets up to {}, past the high watermark {high_watermark}",
                    stored.next
                ));
            }
            self.place(stored.id, stored.base)?;
            if let Some(before) = self.seen.insert(stored.base, stored.clone())
                && before != *stored
            {
                return Err(format!("what a reader was given has changed: {before:?} is now {stored:?}"));
            }
        }
        Ok(())
    }
}
