//! librdkafka, by its bindings for Rust: a producer or a consumer per thread, beside the threads that it starts itself.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::Worker;
use crate::load::keys::Keys;
use crate::load::schedule::Schedule;
use crate::load::{Count, Window, now_ns, payload, stamp, stamped};
use crate::log::consumer::Part;
use crate::log::workload::{Mode, Workload};
use crate::measure::Problem;
use crate::raw;

/// How long what is under way may take at the end.
const GRACE: Duration = Duration::from_secs(10);
/// How long a consumer waits for something, and a producer for room.
const POLL: Duration = Duration::from_millis(100);
const ROOM: Duration = Duration::from_millis(1);
/// Records that are sent before answers are looked for.
const BURST: usize = 64;

/// The producers and consumers of a load.
pub fn workers(broker: SocketAddr, workload: &Workload, parts: &[Part]) -> Result<Vec<Worker>, Problem> {
    let mut workers: Vec<Worker> = Vec::new();
    if workload.mode != Mode::Consume {
        for number in 0..workload.producers {
            let producer = producer(broker, workload)?;
            let workload = workload.clone();
            workers.push(Box::new(move |window| produce(&producer, &workload, number, &window)));
        }
    }
    if workload.mode != Mode::Produce {
        for number in 0..workload.consumers {
            let parts: Vec<Part> = parts.iter().skip(number).step_by(workload.consumers).copied().collect();
            let consumer = consumer(broker, workload, &parts)?;
            let workload = workload.clone();
            workers.push(Box::new(move |window| consume(&consumer, &workload, &parts, &window)));
        }
    }
    Ok(workers)
}

fn config(broker: SocketAddr) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.to_string()).set("client.id", "millbench");
    config
}

/// Counts what is delivered. Only the thread that polls calls it.
#[derive(Default)]
struct Deliveries {
    window: Mutex<Option<Window>>,
    size: u64,
    count: Mutex<Count>,
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    /// When the record was due.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due: usize) {
        let (Ok(window), Ok(mut count)) = (self.window.lock(), self.count.lock()) else { return };
        match (result, *window) {
            (Ok(_), Some(window)) => count.acknowledged_due(&window, [due as u64], self.size),
            (Err((error, _)), _) => {
                if let Ok(mut failed) = self.failed.lock() {
                    failed.get_or_insert(error.clone());
                }
            }
            _ => {}
        }
    }
}

fn producer(broker: SocketAddr, workload: &Workload) -> Result<BaseProducer<Deliveries>, Problem> {
    let deliveries = Deliveries { size: workload.record_size as u64, ..Deliveries::default() };
    let producer: BaseProducer<Deliveries> = config(broker)
        .set("acks", workload.acks.code().to_string())
        .set("batch.size", workload.batch_size.to_string())
        .set("linger.ms", workload.linger_ms.to_string())
        .set("max.in.flight.requests.per.connection", workload.max_in_flight.to_string())
        .create_with_context(deliveries)?;
    // It knows the topic before the load begins.
    producer.client().fetch_metadata(Some(&workload.topic), GRACE)?;
    Ok(producer)
}

fn produce(
    producer: &BaseProducer<Deliveries>,
    workload: &Workload,
    number: usize,
    window: &Window,
) -> Result<Count, Problem> {
    let context = producer.context();
    *context.window.lock().map_err(|_| "a callback panicked")? = Some(*window);
    let mut schedule = workload
        .is_paced()
        .then(|| Schedule::new(window.start_ns, workload.throughput, number, workload.producers));
    let mut keys = Keys::new(workload.key_distribution, workload.keys, number as u64);
    let mut value = payload(workload.record_size, number as u64);
    while !window.over() {
        let now = now_ns();
        let mut sent = 0;
        while sent < BURST {
            let due = match &mut schedule {
                Some(schedule) => schedule.take(now),
                None => Some(now),
            };
            let Some(due) = due else { break };
            stamp(&mut value, due);
            send(producer, workload, keys.draw().as_ref().map(|key| &key[..]), &value, due)?;
            sent += 1;
        }
        // It gives its time away until the next record is due, and looks for answers meanwhile.
        let next = schedule.as_ref().map_or(0, |schedule| schedule.next_ns().saturating_sub(now_ns()));
        producer.poll(Duration::from_nanos(if sent == 0 { next } else { 0 }));
        if let Some(error) = context.failed.lock().map_err(|_| "a callback panicked")?.take() {
            return Err(error.into());
        }
    }
    producer.flush(GRACE)?;
    Ok(std::mem::take(&mut *context.count.lock().map_err(|_| "a callback panicked")?))
}

/// Sends a record; waits while there is no room for it.
fn send(
    producer: &BaseProducer<Deliveries>,
    workload: &Workload,
    key: Option<&[u8]>,
    value: &[u8],
    due: u64,
) -> Result<(), Problem> {
    let mut record =
        BaseRecord::<[u8], [u8], usize>::with_opaque_to(&workload.topic, due as usize).payload(value);
    record.key = key;
    while let Err((error, again)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || raw::interrupted() {
            return Err(error.into());
        }
        record = again;
        producer.poll(ROOM);
    }
    Ok(())
}

fn consumer(broker: SocketAddr, workload: &Workload, parts: &[Part]) -> Result<BaseConsumer, Problem> {
    let consumer: BaseConsumer = config(broker)
        .set("group.id", "millbench")
        .set("enable.auto.commit", "false")
        .set("fetch.min.bytes", workload.fetch_min_bytes.to_string())
        .set("fetch.wait.max.ms", workload.fetch_max_wait_ms.to_string())
        .set("fetch.max.bytes", workload.fetch_max_bytes.to_string())
        .set("max.partition.fetch.bytes", workload.fetch_size.to_string())
        .create()?;
    let mut list = TopicPartitionList::new();
    for part in parts {
        list.add_partition_offset(&workload.topic, part.partition as i32, Offset::Offset(part.start))?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Consumes until the window is over; what is being produced until nothing comes any more; what is there already from its
/// beginning again.
fn consume(
    consumer: &BaseConsumer,
    workload: &Workload,
    parts: &[Part],
    window: &Window,
) -> Result<Count, Problem> {
    let tail = workload.mode == Mode::EndToEnd;
    let mut count = Count::default();
    let give_up = window.until_ns.saturating_add(GRACE.as_nanos() as u64);
    while !raw::interrupted() && now_ns() < give_up {
        let Some(message) = consumer.poll(POLL) else {
            if window.over() {
                break;
            }
            continue;
        };
        let message = message?;
        let now = now_ns();
        let value = message.payload().unwrap_or_default();
        count.received(window, now, 1, value.len() as u64);
        if let Some(due) = stamped(value) {
            count.arrived(window, now, due);
        }
        let ended =
            |part: &&Part| part.partition as i32 == message.partition() && message.offset() + 1 >= part.end;
        if let Some(part) = parts.iter().find(ended) {
            consumer.seek(&workload.topic, message.partition(), Offset::Offset(part.start), GRACE)?;
        }
        if !tail && window.over() {
            break;
        }
    }
    Ok(count)
}
