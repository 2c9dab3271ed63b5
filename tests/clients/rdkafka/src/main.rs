//! librdkafka, by the `rdkafka` crate. The contract is in ../README.md.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

const PARTITIONS: i32 = 8;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [command, address, topic, file, last] = &args[..] else {
        return Err(
            "usage: client produce|consume|group|stream ADDRESS TOPIC FILE CODEC|COUNT|GROUP|RATE".into()
        );
    };
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("reconnect.backoff.max.ms", "500");
    match command.as_str() {
        "produce" => produce(config, topic, &std::fs::read(file)?, last),
        "consume" => consume(config, topic, File::create(file)?, last.parse()?),
        "group" => group(config, topic, File::create(file)?, last),
        "stream" => stream(config, topic, File::create(file)?, last.parse()?),
        _ => Err(command.as_str().into()),
    }
}

/// Remembers whether a message was refused.
#[derive(Default)]
struct Deliveries {
    failed: AtomicBool,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            eprintln!("not delivered: {error}");
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}

fn produce(mut config: ClientConfig, topic: &str, mut data: &[u8], codec: &str) -> Outcome {
    config
        .set("acks", "all")
        .set("compression.type", codec)
        .set("linger.ms", "20")
        .set("enable.idempotence", "true");
    let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default())?;
    while !data.is_empty() {
        let line_end = data.iter().position(|byte| *byte == b'\n').ok_or("a line has no end")?;
        let fields: Vec<&str> = std::str::from_utf8(&data[..line_end])?.split(' ').collect();
        data = &data[line_end + 1..];
        let key = take(&mut data, fields[3].parse()?);
        let value = take(&mut data, fields[4].parse()?);
        data = &data[1..];
        let mut record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(fields[0].parse()?)
            .timestamp(fields[2].parse()?)
            .headers(decode(fields[5]));
        (record.key, record.payload) = (key, value);
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            producer.poll(Duration::from_millis(100));
            record = refused;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60))?;
    if producer.context().failed.load(Ordering::Relaxed) {
        Err("a message was refused".into())
    } else {
        Ok(())
    }
}

/// Notes what was acknowledged, a line each: partition, offset, number.
struct Acknowledgements {
    file: Mutex<File>,
    failed: AtomicBool,
}

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        let noted = match result {
            Ok(message) => {
                let line = format!("{} {} {number}\n", message.partition(), message.offset());
                self.file.lock().is_ok_and(|mut file| file.write_all(line.as_bytes()).is_ok())
            }
            Err((error, _)) => {
                eprintln!("{number} was not delivered: {error}");
                false
            }
        };
        self.failed.fetch_or(!noted, Ordering::Relaxed);
    }
}

/// Sends numbered records at a rate, until SIGTERM, and gives none of them up: for `../kills`.
fn stream(mut config: ClientConfig, topic: &str, file: File, per_second: u64) -> Outcome {
    let stopped = stopped()?;
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "0")
        .set("linger.ms", "5");
    let context = Acknowledgements { file: Mutex::new(file), failed: AtomicBool::new(false) };
    let producer: BaseProducer<Acknowledgements> = config.create_with_context(context)?;
    let start = Instant::now();
    let mut number: u64 = 0;
    while !stopped.load(Ordering::Relaxed) && !producer.context().failed.load(Ordering::Relaxed) {
        producer.poll(Duration::from_millis(1));
        while number < start.elapsed().as_millis() as u64 * per_second / 1000 {
            let (key, value) = (number.to_string(), numbered(number));
            let record = BaseRecord::with_opaque_to(topic, Box::new(number))
                .partition((number % PARTITIONS as u64) as i32)
                .key(&key)
                .payload(&value);
            match producer.send(record) {
                Ok(()) => number += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(Duration::from_secs(60))?;
    if producer.context().failed.load(Ordering::Relaxed) {
        Err("a message was given up".into())
    } else {
        Ok(())
    }
}

/// The value of a numbered record; `../kills` knows it, too. Now and then one that is larger than a batch usually is.
fn numbered(number: u64) -> Vec<u8> {
    let length = if number % 500 == 0 { 100_000 } else { number * 7919 % 1000 };
    format!("{number} ").into_bytes().into_iter().cycle().take(length as usize).collect()
}

fn consume(mut config: ClientConfig, topic: &str, file: File, count: usize) -> Outcome {
    let consumer: BaseConsumer =
        config.set("group.id", "none").set("enable.auto.commit", "false").create()?;
    let mut assigned = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assigned.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assigned)?;
    let mut out = BufWriter::new(file);
    for _ in 0..count {
        let message = consumer.poll(None).ok_or("nothing came")??;
        write(&mut out, &message)?;
    }
    Ok(out.flush()?)
}

fn group(mut config: ClientConfig, topic: &str, file: File, name: &str) -> Outcome {
    let stopped = stopped()?;
    let consumer: BaseConsumer = config
        .set("group.id", name)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1000")
        .create()?;
    consumer.subscribe(&[topic])?;
    let mut out = BufWriter::new(file);
    let mut uncommitted = 0;
    while !stopped.load(Ordering::Relaxed) {
        let polled = consumer.poll(Duration::from_millis(100));
        let idle = polled.is_none();
        match polled {
            Some(Ok(message)) => {
                write(&mut out, &message)?;
                consumer.store_offset_from_message(&message)?;
                uncommitted += 1;
            }
            Some(Err(error)) => eprintln!("{error}"),
            None => {}
        }
        if uncommitted >= 500 || (uncommitted > 0 && idle) {
            out.flush()?;
            // One at a time: a commit that is sent again after a lost connection would come behind newer ones.
            if let Err(error) = consumer.commit_consumer_state(CommitMode::Sync) {
                eprintln!("not committed: {error}");
            }
            uncommitted = 0;
        }
    }
    out.flush()?;
    match consumer.commit_consumer_state(CommitMode::Sync) {
        Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => Ok(()),
        committed => Ok(committed?),
    }
}

/// Is set by SIGTERM.
fn stopped() -> Outcome<Arc<AtomicBool>> {
    let stopped = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stopped))?;
    Ok(stopped)
}

fn write(out: &mut impl Write, message: &BorrowedMessage<'_>) -> Outcome {
    let (key, value) = (message.key(), message.payload());
    let length = |field: Option<&[u8]>| field.map_or(-1, |field| field.len() as i64);
    writeln!(
        out,
        "{} {} {} {} {} {}",
        message.partition(),
        message.offset(),
        message.timestamp().to_millis().unwrap_or(-1),
        length(key),
        length(value),
        encode(message)
    )?;
    out.write_all(key.unwrap_or_default())?;
    out.write_all(value.unwrap_or_default())?;
    Ok(out.write_all(b"\n")?)
}

fn encode(message: &BorrowedMessage<'_>) -> String {
    let headers: Vec<String> = message.headers().map_or(Vec::new(), |headers| {
        headers
            .iter()
            .map(|header| format!("{}={}", header.key, hex(header.value.unwrap_or_default())))
            .collect()
    });
    if headers.is_empty() { "-".to_owned() } else { headers.join(",") }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn decode(text: &str) -> OwnedHeaders {
    let named = text.split(',').filter_map(|header| header.split_once('='));
    named.fold(OwnedHeaders::new(), |headers, (key, value)| {
        let value: Vec<u8> =
            value.as_bytes().chunks(2).map(|pair| 16 * nibble(pair[0]) + nibble(pair[1])).collect();
        headers.insert(Header { key, value: Some(&value) })
    })
}

fn nibble(digit: u8) -> u8 {
    if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 }
}

/// Cuts a field off; a negative length is a null.
fn take<'a>(data: &mut &'a [u8], length: i64) -> Option<&'a [u8]> {
    let (field, rest) = data.split_at(usize::try_from(length).ok()?);
    *data = rest;
    Some(field)
}
