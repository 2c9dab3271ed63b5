//! Readers that go through a topic's partitions, each at its own place.

use millstream_engine::shard::request::{Range, Reply, Request};
use millstream_engine::time::Nanos;
use millstream_engine::types::{Offset, PartitionId};

use super::{Desk, Read, Report, Stored, Tally, Work, partitions};

pub(super) struct ReadWork {
    load: Read,
    readers: Vec<Reader>,
    tally: Tally,
    in_flight: usize,
}

/// One reader; its number is its slot.
struct Reader {
    cursor: Cursor,
    /// When it asked last.
    asked: Nanos,
    /// It has not been told yet how long the log is, and starts at this share of it.
    start_share: Option<f64>,
}

/// A place in a partition that holds one batch over and over.
pub(super) struct Cursor {
    partition: PartitionId,
    offset: Offset,
    rest: Option<Range>,
    /// Bytes that came since `offset`.
    came: u64,
    stored: Stored,
}

impl Cursor {
    pub(super) fn new(partition: PartitionId, stored: Stored) -> Cursor {
        Cursor { partition, offset: Offset(0), rest: None, came: 0, stored }
    }

    /// What to ask for next: the rest of the last plan, or a new one.
    pub(super) fn request(&mut self, max_bytes: u32) -> Request {
        match self.rest.take() {
            Some(range) => Request::Load(range),
            None => Request::Read { partition: self.partition, offset: self.offset, max_bytes },
        }
    }

    /// Goes on by `bytes`, which may end within a batch as long as there is a rest.
    pub(super) fn advance(&mut self, bytes: u64, rest: Option<Range>) -> Result<(), String> {
        self.came += bytes;
        self.rest = rest;
        if self.rest.is_none() {
            if !self.came.is_multiple_of(self.stored.batch_bytes) {
                return Err(format!("a read plan of {} bytes is not whole batches", self.came));
            }
            self.offset = self.offset.plus(self.came / self.stored.batch_bytes * self.stored.batch_records);
            self.came = 0;
        }
        Ok(())
    }

    /// Goes to the first batch, or to the one that lies at `share` of the log's length.
    pub(super) fn seek(&mut self, share: f64, end: Offset) {
        let batches = (end.0 / self.stored.batch_records) as f64 * share;
        *self = Cursor {
            offset: Offset(batches as u64 * self.stored.batch_records),
            ..Cursor::new(self.partition, self.stored)
        };
    }
}

impl ReadWork {
    pub(super) fn new(load: Read) -> ReadWork {
        ReadWork { load, readers: Vec::new(), tally: Tally::new(), in_flight: 0 }
    }

    fn ask(&mut self, slot: u32, desk: &mut Desk) {
        let reader = &mut self.readers[slot as usize];
        reader.asked = desk.now();
        let request = reader.cursor.request(self.load.max_bytes);
        self.in_flight += 1;
        desk.ask(slot, request);
    }

    /// Takes an answer; gives whether the reader goes on.
    fn take(&mut self, slot: u32, reply: Reply) -> Result<bool, String> {
        let reader = &mut self.readers[slot as usize];
        let (bytes, rest, end) = match reply {
            Reply::Read(read) => {
                let bytes: usize = read.chunk.bytes.iter().map(|slice| slice.len()).sum();
                (bytes as u64, read.chunk.rest(), Some(read.high_watermark))
            }
            Reply::Loaded(chunk) => {
                (chunk.bytes.iter().map(|slice| slice.len() as u64).sum(), chunk.rest(), None)
            }
            Reply::Refused(refusal) => return Err(refusal.to_string()),
            other => return Err(format!("a read was answered by {other:?}")),
        };
        if let (Some(share), Some(end)) = (reader.start_share.take(), end)
            && share > 0.0
        {
            reader.cursor.seek(share, end);
            return Ok(true);
        }
        reader.cursor.advance(bytes, rest)?;
        self.tally.bytes += bytes;
        if bytes > 0 {
            return Ok(true);
        }
        let end = end.unwrap_or_default();
        if end == Offset(0) {
            return Err("there is nothing to read".to_owned());
        }
        reader.cursor.seek(0.0, end);
        Ok(!self.load.once)
    }
}

impl Work for ReadWork {
    fn start(&mut self, desk: &mut Desk) {
        self.tally.started = desk.now();
        let partitions = partitions(desk.out, &self.load.topic, desk.out.shard());
        if partitions.is_empty() {
            self.tally.fail(format!("the shard has no partition of {}", self.load.topic));
            return;
        }
        let readers = self.load.readers;
        self.readers = (0..readers)
            .zip(partitions.iter().cycle())
            .map(|(number, &partition)| Reader {
                cursor: Cursor::new(partition, self.load.stored),
                asked: Nanos::ZERO,
                start_share: Some(number as f64 / readers as f64),
            })
            .collect();
        for slot in 0..readers as u32 {
            self.ask(slot, desk);
        }
    }

    fn reply(&mut self, slot: u32, reply: Reply, desk: &mut Desk) {
        let now = desk.now();
        self.in_flight -= 1;
        self.tally.ended = now;
        self.tally.operations += 1;
        self.tally.latency.saturating_record(now.since(self.readers[slot as usize].asked).0);
        match self.take(slot, reply) {
            Ok(true) if self.tally.failure.is_none() && now < self.tally.started + self.load.span => {
                self.ask(slot, desk);
            }
            Ok(_) => {}
            Err(why) => self.tally.fail(why),
        }
    }

    fn timer(&mut self, _: &mut Desk) {}

    fn over(&self) -> bool {
        self.in_flight == 0
    }

    fn report(&mut self) -> Report {
        self.tally.take()
    }
}
