//! What little the null endpoint remembers, shared by its shards.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_engine::buffer::Slice;
use millstream_engine::format::batch::{BatchHeader, stamp};
use millstream_engine::types::{LeaderEpoch, Offset};

use super::amqp::Consumer;

/// Bytes that a partition keeps while somebody reads what is being produced.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Batches that it keeps otherwise.
const KEPT_MIN: usize = 4;

/// All topics.
pub struct Store {
    topics: Mutex<BTreeMap<String, Arc<Topic>>>,
    /// Fetches that wait, shard by shard.
    waiting: Vec<AtomicUsize>,
    queues: Mutex<BTreeMap<String, Queue>>,
}

/// A queue: those who consume it, in turns.
#[derive(Default)]
struct Queue {
    consumers: Vec<Consumer>,
    turn: usize,
}

/// A topic.
pub struct Topic {
    partitions: Vec<Mutex<Partition>>,
    /// Whether somebody has asked for what was not there yet.
    followed: AtomicBool,
}

#[derive(Default)]
struct Partition {
    next: u64,
    kept: VecDeque<Kept>,
    bytes: usize,
}

struct Kept {
    base: u64,
    records: u64,
    batch: Slice,
}

/// What is held is plain; a thread that panicked leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Of nothing yet.
    pub fn new(shards: u16) -> Store {
        let waiting = (0..shards).map(|_| AtomicUsize::new(0)).collect();
        Store { topics: Mutex::default(), waiting, queues: Mutex::default() }
    }

    /// Somebody consumes a queue.
    pub fn consume(&self, queue: &str, consumer: Consumer) {
        lock(&self.queues).entry(queue.to_owned()).or_default().consumers.push(consumer);
    }

    /// Who gets a queue's next message, if anybody does.
    pub fn consumer(&self, queue: &str) -> Option<Consumer> {
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(queue)?;
        queue.turn += 1;
        queue.consumers.get(queue.turn % queue.consumers.len().max(1)).copied()
    }

    /// Nobody consumes a queue any more.
    pub fn forget_queue(&self, queue: &str) {
        lock(&self.queues).remove(queue);
    }

    /// A consumer is gone.
    pub fn forget_consumer(&self, consumer: Consumer) {
        for queue in lock(&self.queues).values_mut() {
            queue.consumers.retain(|known| *known != consumer);
        }
    }

    /// Makes a topic; an older one of that name is gone.
    pub fn create(&self, name: &str, partitions: u32) {
        let topic = Topic {
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            followed: AtomicBool::new(false),
        };
        lock(&self.topics).insert(name.to_owned(), Arc::new(topic));
    }

    /// Forgets a topic; says whether there was one.
    pub fn delete(&self, name: &str) -> bool {
        lock(&self.topics).remove(name).is_some()
    }

    /// A topic.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        lock(&self.topics).get(name).cloned()
    }

    /// The names of all topics.
    pub fn names(&self) -> Vec<String> {
        lock(&self.topics).keys().cloned().collect()
    }

    /// How many fetches of each shard wait.
    pub fn waiting(&self) -> &[AtomicUsize] {
        &self.waiting
    }
}

impl Topic {
    /// How many partitions it has.
    pub fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    /// Takes a batch, and says which offset it got; none if there is no such partition, or the bytes are no batch.
    pub fn append(&self, partition: u32, bytes: &[u8]) -> Option<u64> {
        let header = BatchHeader::parse(bytes).ok()?;
        let mut partition = lock(self.partitions.get(partition as usize)?);
        let base = partition.next;
        let records = u64::from(header.last_offset_delta) + 1;
        partition.next += records;
        let followed = self.followed.load(Ordering::Relaxed);
        if followed || partition.kept.len() < KEPT_MIN {
            let mut bytes = bytes.to_vec();
            stamp(&mut bytes, Offset(base), LeaderEpoch(0));
            partition.bytes += bytes.len();
            partition.kept.push_back(Kept { base, records, batch: Slice::from(bytes) });
            while partition.bytes > KEPT_BYTES_MAX && partition.kept.len() > KEPT_MIN {
                let oldest = partition.kept.pop_front().expect("there are more than a few");
                partition.bytes -= oldest.batch.len();
            }
        }
        Some(base)
    }

    /// The offset that the next record gets.
    pub fn end(&self, partition: u32) -> Option<u64> {
        Some(lock(self.partitions.get(partition as usize)?).next)
    }

    /// Up to `max_bytes` of batches from an offset on, one at least if there is any; and the end of the log.
    pub fn read(
        &self,
        partition: u32,
        from: u64,
        max_bytes: usize,
        into: &mut Vec<Slice>,
    ) -> Option<(usize, u64)> {
        let partition = lock(self.partitions.get(partition as usize)?);
        let (mut at, mut bytes) = (from, 0);
        if at >= partition.next {
            self.followed.store(true, Ordering::Relaxed);
        }
        while at < partition.next {
            let place = partition.kept.partition_point(|kept| kept.base + kept.records <= at);
            // What is not kept looks like what is.
            let place = partition.kept.get(place).filter(|kept| kept.base <= at).map_or(0, |_| place);
            let Some(kept) = partition.kept.get(place) else { break };
            if bytes > 0 && bytes + kept.batch.len() > max_bytes {
                break;
            }
            bytes += kept.batch.len();
            if kept.base <= at && at < kept.base + kept.records {
                into.push(kept.batch.clone());
                at = kept.base + kept.records;
            } else {
                into.push(Slice::from(at.to_be_bytes().to_vec()));
                into.push(kept.batch.slice(8..kept.batch.len()));
                at += kept.records;
            }
        }
        Some((bytes, partition.next))
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::format::batch::BatchBuilder;

    use super::*;

    fn batch(records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(0);
        for _ in 0..records {
            builder.push(None, Some(&[7; 100]));
        }
        builder.build()
    }

    /// Reads from the start to the end as a consumer does, and counts the records.
    fn read_all(topic: &Topic) -> u64 {
        let (mut at, mut records) = (0, 0);
        loop {
            let mut slices = Vec::new();
            topic.read(0, at, 1000, &mut slices).unwrap();
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let mut rest = &bytes[..];
            if rest.is_empty() {
                return records;
            }
            while !rest.is_empty() {
                let header = BatchHeader::parse(rest).unwrap();
                assert_eq!(header.base_offset.0, at);
                at = header.next_offset().0;
                records += u64::from(header.records);
                rest = &rest[header.size..];
            }
        }
    }

    #[test]
    fn as_much_is_read_as_was_sent_though_little_is_kept() {
        let store = Store::new(1);
        store.create("t", 1);
        let topic = store.topic("t").unwrap();
        for _ in 0..100 {
            topic.append(0, &batch(3)).unwrap();
        }
        assert_eq!((read_all(&topic), topic.end(0)), (300, Some(300)));
    }

    #[test]
    fn whoever_follows_gets_the_very_batches() {
        let store = Store::new(1);
        store.create("t", 1);
        let topic = store.topic("t").unwrap();
        let mut slices = Vec::new();
        assert_eq!(topic.read(0, 0, 1000, &mut slices), Some((0, 0)));
        for records in 1..=20 {
            topic.append(0, &batch(records)).unwrap();
        }
        topic.read(0, 190, 1 << 20, &mut slices).unwrap();
        assert_eq!(BatchHeader::parse(&slices[0]).unwrap().records, 20);
        assert_eq!(read_all(&topic), 210);
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let store = Store::new(1);
        store.create("t", 1);
        assert_eq!(store.topic("t").unwrap().append(0, &[0; 70]), None);
        assert_eq!(store.topic("t").unwrap().append(1, &batch(1)), None);
    }
}
