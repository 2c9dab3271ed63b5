//! What producers send: batches as Kafka's producer forms them. Each partition fills a batch of its own; a request takes
//! one full batch of each partition, up to the size of a request. Records without a key fill one partition's batch, then
//! the next one's, as the sticky partitioner does.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use millstream_engine::format::batch::BatchBuilder;

use super::moment::Moment;
use super::wire;
use super::workload::Workload;
use crate::load::keys::{Distribution, Keys, partition_of};
use crate::load::{payload, stamp};

/// Bytes of prepared requests that one producer keeps, and how many at least.
const PREPARED_BYTES: usize = 16 << 20;
const PREPARED_MIN: usize = 8;
/// Payloads to choose from.
const PAYLOADS: u64 = 16;

/// A batch that is being filled.
struct Filling {
    builder: BatchBuilder,
    due: Vec<u64>,
}

/// Puts records into batches.
pub struct Batches {
    workload: Workload,
    keys: Keys,
    payloads: Vec<Vec<u8>>,
    next_payload: usize,
    filling: Vec<Option<Filling>>,
    /// Full batches, in the order in which they became full.
    full: VecDeque<Batch>,
    /// The partition whose batch records without a key go to.
    sticky: u32,
    records: u64,
}

/// A batch that is ready.
pub struct Batch {
    /// Where it goes.
    pub partition: u32,
    /// The batch.
    pub bytes: Vec<u8>,
    /// When each of its records was due.
    pub due: Vec<u64>,
}

/// A request that is ready.
pub struct Request {
    /// The whole frame.
    pub frame: Vec<u8>,
    /// Where in it the batches are.
    batches: Vec<Range<usize>>,
    /// How each of them is made anew; none of what is sent once.
    moments: Vec<Rc<Moment>>,
    /// When each of its records was due; empty for one that was prepared.
    pub due: Vec<u64>,
    /// How many records it has.
    pub records: u64,
    /// Bytes of payload.
    pub bytes: u64,
}

impl Request {
    /// Has its batches be made now. A broker does more for records whose timestamps go on than for those that it has seen:
    /// Kafka writes, and flushes, an index of them.
    pub fn stamp(&mut self) {
        let now_ms = super::wall_ms().cast_unsigned();
        for (batch, moment) in self.batches.iter().zip(&self.moments) {
            moment.set(&mut self.frame[batch.clone()], now_ms);
        }
    }
}

impl Batches {
    /// Of the producer with this number.
    pub fn new(workload: &Workload, number: usize) -> Batches {
        let seed = number as u64;
        Batches {
            workload: workload.clone(),
            keys: Keys::new(workload.key_distribution, workload.keys, seed),
            payloads: (0..PAYLOADS).map(|n| payload(workload.record_size, seed << 8 | n)).collect(),
            next_payload: 0,
            filling: (0..workload.partitions).map(|_| None).collect(),
            full: VecDeque::new(),
            sticky: number as u32 % workload.partitions,
            records: 0,
        }
    }

    /// Adds a record that was due at that moment; 0 if it is nobody's business.
    pub fn push(&mut self, due_ns: u64) {
        let key = self.keys.draw();
        let partition = key.map_or(self.sticky, |key| partition_of(&key, self.workload.partitions));
        let record_bytes = self.workload.record_size + RECORD_OVERHEAD_BYTES + key.map_or(0, |key| key.len());
        let batch_size = self.workload.batch_size;
        let fits = |filling: &Filling| filling.builder.size() + record_bytes <= batch_size;
        if self.filling[partition as usize].as_ref().is_some_and(|filling| !fits(filling)) {
            self.close(partition);
            if key.is_none() {
                self.sticky = (partition + 1) % self.workload.partitions;
            }
        }
        let partition = if key.is_none() { self.sticky } else { partition };
        let filling = self.filling[partition as usize]
            .get_or_insert_with(|| Filling { builder: BatchBuilder::new(super::wall_ms()), due: Vec::new() });
        let payload = &mut self.payloads[self.next_payload];
        self.next_payload = (self.next_payload + 1) % PAYLOADS as usize;
        stamp(payload, due_ns);
        filling.builder.push(key.as_ref().map(|key| &key[..]), Some(payload));
        filling.due.push(due_ns);
        self.records += 1;
    }

    fn close(&mut self, partition: u32) {
        if let Some(filling) = self.filling[partition as usize].take() {
            self.full.push_back(Batch { partition, bytes: filling.builder.build(), due: filling.due });
        }
    }

    /// Records that were added and not given away.
    pub fn waiting(&self) -> u64 {
        self.records
    }

    /// Whether a batch is full.
    pub fn has_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// Requests that the full batches fill, about.
    pub fn full_requests(&self) -> usize {
        self.full.len() * self.workload.batch_size / self.workload.max_request_size.max(1)
    }

    /// Records that the fullest batch has room for, at least.
    pub fn records_to_full(&self) -> u64 {
        let fullest =
            self.filling.iter().flatten().map(|filling| filling.builder.size()).max().unwrap_or_default();
        let room = self.workload.batch_size.saturating_sub(fullest);
        (room / (self.workload.record_size + RECORD_OVERHEAD_BYTES)) as u64
    }

    /// The next request: full batches of different partitions, up to the size of a request. If `all`, batches that are
    /// not full go too, where no full one goes before them: a broker that is behind gets full batches.
    pub fn request(&mut self, all: bool) -> Option<Request> {
        if all {
            for partition in 0..self.workload.partitions {
                if self.full.iter().all(|full| full.partition != partition) {
                    self.close(partition);
                }
            }
            let sticky_closed = self.filling[self.sticky as usize].is_none();
            if sticky_closed && self.workload.key_distribution == Distribution::None {
                self.sticky = (self.sticky + 1) % self.workload.partitions;
            }
        }
        let mut taken: Vec<Batch> = Vec::new();
        let mut size = 0;
        while let Some(next) = self.full.front() {
            let again = taken.iter().any(|batch| batch.partition == next.partition);
            if !taken.is_empty() && (again || size + next.bytes.len() > self.workload.max_request_size) {
                break;
            }
            size += next.bytes.len();
            taken.extend(self.full.pop_front());
        }
        if taken.is_empty() {
            return None;
        }
        let batches = taken.iter().map(|batch| (batch.partition, &batch.bytes[..]));
        let frame = wire::produce(&self.workload.topic, self.workload.acks.code(), batches);
        let places = places(&frame, taken.iter().map(|batch| batch.bytes.len()));
        let due: Vec<u64> = taken.into_iter().flat_map(|batch| batch.due).collect();
        let records = due.len() as u64;
        self.records -= records;
        let bytes = records * self.workload.record_size as u64;
        Some(Request { frame, batches: places, moments: Vec::new(), due, records, bytes })
    }

    /// Requests of full batches, to be sent over and over: enough for every partition to get some.
    pub fn prepared(mut self) -> Vec<Request> {
        let per_request = (self.workload.max_request_size / self.workload.batch_size).max(1);
        let at_least = PREPARED_MIN.max(2 * self.workload.partitions as usize / per_request.max(1));
        let mut requests = Vec::new();
        let mut moments: BTreeMap<usize, Rc<Moment>> = BTreeMap::new();
        let mut bytes = 0;
        while requests.len() < at_least || bytes < PREPARED_BYTES && requests.len() < PREPARED_MIN * 8 {
            // As many full batches as a request can take are there before one is formed.
            while self.full.len() < per_request.min(self.workload.partitions as usize) {
                self.push(0);
            }
            let Some(mut request) = self.request(false) else { break };
            request.due = Vec::new();
            let of_size = |size| Rc::clone(moments.entry(size).or_insert_with(|| Rc::new(Moment::of(size))));
            request.moments = request.batches.iter().map(Range::len).map(of_size).collect();
            bytes += request.frame.len();
            requests.push(request);
        }
        requests
    }
}

/// Where batches of these sizes are in the frame that ends with them, each behind its partition and its length.
fn places(frame: &[u8], sizes: impl DoubleEndedIterator<Item = usize>) -> Vec<Range<usize>> {
    let mut end = frame.len();
    let mut places: Vec<_> = sizes
        .rev()
        .map(|size| {
            let place = end - size..end;
            end = place.start - BEFORE_BATCH_BYTES;
            place
        })
        .collect();
    places.reverse();
    places
}

/// A partition, and the length of its batch.
const BEFORE_BATCH_BYTES: usize = 4 + 4;
/// What a record takes beside key and value, at most.
const RECORD_OVERHEAD_BYTES: usize = 21;

#[cfg(test)]
mod tests {
    use millstream_engine::format::batch::{check_produced, records};

    use super::*;
    use crate::load::stamped;

    fn workload() -> Workload {
        Workload {
            partitions: 4,
            record_size: 100,
            batch_size: 1000,
            max_request_size: 4000,
            ..Workload::default()
        }
    }

    /// The batches of a produce request in version 7, with their partitions.
    fn parsed(frame: &[u8]) -> Vec<(u32, Vec<u8>)> {
        use crate::kafka::wire::Answer;
        // Behind length, key, version, correlation id; a client id, a transactional id, acks, timeout.
        let mut request = Answer::of(&frame[8..]).unwrap();
        request.string().unwrap();
        request.take(2 + 2 + 4 + 4).unwrap();
        request.string().unwrap();
        (0..request.i32().unwrap())
            .map(|_| {
                let partition = request.i32().unwrap() as u32;
                let len = request.len().unwrap();
                (partition, request.take(len).unwrap().to_vec())
            })
            .collect()
    }

    #[test]
    fn full_batches_are_as_large_as_they_may_be_and_no_larger() {
        for request in Batches::new(&workload(), 0).prepared() {
            for (_, batch) in parsed(&request.frame) {
                check_produced(&batch).unwrap();
                assert!(batch.len() <= 1000 && batch.len() > 1000 - 121, "{} bytes", batch.len());
            }
        }
    }

    #[test]
    fn a_request_has_one_batch_of_each_partition_at_most() {
        let keyed = Workload { key_distribution: Distribution::Zipf, keys: 100, ..workload() };
        for workload in [workload(), keyed] {
            let mut partitions_seen = [false; 4];
            for request in Batches::new(&workload, 0).prepared() {
                let mut partitions: Vec<u32> = parsed(&request.frame).into_iter().map(|(p, _)| p).collect();
                for &partition in &partitions {
                    partitions_seen[partition as usize] = true;
                }
                let count = partitions.len();
                partitions.sort_unstable();
                partitions.dedup();
                assert_eq!(partitions.len(), count);
            }
            assert_eq!(partitions_seen, [true; 4]);
        }
    }

    #[test]
    fn keyless_requests_fill_up_to_the_size_of_a_request() {
        let requests = Batches::new(&workload(), 0).prepared();
        assert!(requests.iter().all(|request| parsed(&request.frame).len() == 4));
    }

    #[test]
    fn a_broker_that_is_behind_gets_full_batches() {
        let mut batches = Batches::new(&Workload { partitions: 1, ..workload() }, 0);
        (1..=20).for_each(|due| batches.push(due));
        let mut sizes = Vec::new();
        // Whoever asks has lingered each time.
        while let Some(request) = batches.request(true) {
            sizes.push(request.records);
            if sizes.len() == 1 {
                (21..=25).for_each(|due| batches.push(due));
            }
        }
        assert_eq!(sizes, [8, 8, 8, 1]);
    }

    #[test]
    fn what_was_prepared_is_made_anew_when_it_is_sent_and_is_sound() {
        for mut request in Batches::new(&workload(), 0).prepared() {
            let before = parsed(&request.frame);
            // As if they had been prepared long ago.
            for (place, moment) in request.batches.iter().zip(&request.moments) {
                moment.set(&mut request.frame[place.clone()], 5);
            }
            request.stamp();
            let after = parsed(&request.frame);
            assert_eq!(after.len(), before.len());
            for ((partition, batch), (partition_before, batch_before)) in after.iter().zip(&before) {
                let (header, header_before) =
                    (check_produced(batch).unwrap(), check_produced(batch_before).unwrap());
                assert!(header.base_timestamp >= header_before.base_timestamp);
                assert_eq!(header.max_timestamp, header.base_timestamp);
                assert_eq!((partition, header.records), (partition_before, header_before.records));
            }
        }
    }

    #[test]
    fn records_say_when_they_were_due_and_none_is_lost() {
        let mut batches = Batches::new(&workload(), 0);
        (1..=20).for_each(|due| batches.push(due));
        let mut due_sent = Vec::new();
        let mut due_stored = Vec::new();
        while let Some(request) = batches.request(true) {
            due_sent.extend(request.due);
            for (_, batch) in parsed(&request.frame) {
                due_stored
                    .extend(records(&batch).unwrap().map(|r| stamped(r.unwrap().value.unwrap()).unwrap()));
            }
        }
        due_sent.sort_unstable();
        due_stored.sort_unstable();
        assert_eq!(due_sent, (1..=20).collect::<Vec<_>>());
        assert_eq!(due_stored, due_sent);
        assert_eq!(batches.waiting(), 0);
    }
}
