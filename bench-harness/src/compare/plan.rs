//! What is compared: the matrix of loads.

use serde::Serialize;

use crate::load::keys::Distribution;
use crate::log::workload::{Acks, Mode, Workload};
use crate::peers::{Kind, Protocol};
use crate::queue::workload::Workload as Queues;

/// What a row is about; rows of one group are shown together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Group {
    /// As much as goes.
    Throughput,
    /// At a fixed rate.
    Latency,
    /// At one fixed rate after the other.
    Load,
    /// At a fixed rate, to more and more partitions.
    Partitions,
    /// The same four, of queues.
    QueueThroughput,
    /// See above.
    QueueLatency,
    /// See above.
    QueueLoad,
    /// See above.
    Queues,
}

/// One load, which every peer gets.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its name on the command line and in the results.
    pub name: String,
    /// What it is, in the report.
    pub title: String,
    /// Which others it belongs to.
    pub group: Group,
    /// Whether it is part of the quick comparison.
    pub quick: bool,
    /// The load.
    pub load: Load,
}

/// A load, by protocol.
#[derive(Clone, Debug, Serialize)]
pub enum Load {
    /// Kafka's.
    Log(Workload),
    /// AMQP's.
    Queue(Queues),
}

impl Load {
    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        match self {
            Load::Log(_) => Protocol::Kafka,
            Load::Queue(_) => Protocol::Amqp,
        }
    }

    /// Whether it keeps to a schedule.
    pub fn is_paced(&self) -> bool {
        match self {
            Load::Log(workload) => workload.is_paced(),
            Load::Queue(workload) => workload.is_paced(),
        }
    }

    /// Whether records are produced and consumed.
    pub fn is_end_to_end(&self) -> bool {
        match self {
            Load::Log(workload) => workload.mode == Mode::EndToEnd,
            Load::Queue(workload) => workload.consumers > 0,
        }
    }

    /// Records per second.
    pub fn rate(&self) -> f64 {
        match self {
            Load::Log(workload) => workload.throughput,
            Load::Queue(workload) => workload.rate * workload.producers as f64,
        }
    }

    /// Partitions, or queues.
    pub fn places(&self) -> f64 {
        match self {
            Load::Log(workload) => f64::from(workload.partitions),
            Load::Queue(workload) => f64::from(workload.queues),
        }
    }

    /// Whom others are compared with.
    pub fn reference(&self) -> Kind {
        match self {
            Load::Log(_) => Kind::Kafka,
            Load::Queue(_) => Kind::RabbitMq,
        }
    }

    /// Whether a peer gets this load. One that flushes reads no slower than one that does not. Those who speak neither protocol
    /// get what they have words for: no keys, no batches, nothing that is acknowledged before it is stored.
    pub fn concerns(&self, peer: Kind) -> bool {
        let own_words = peer.dialect().is_some();
        match self {
            Load::Log(workload) if own_words => {
                let batches_only =
                    !workload.is_paced() && workload.batch_size == Workload::default().batch_size;
                workload.mode != Mode::Consume
                    && workload.acks == Acks::All
                    && workload.key_distribution == Distribution::None
                    && !batches_only
            }
            // Others take minutes to make so many.
            Load::Queue(workload) if workload.queues > OTHERS_QUEUES_MAX => {
                matches!(peer, Kind::Millstream | Kind::Null)
            }
            Load::Queue(workload) if own_words => workload.is_persistent() && workload.window().is_some(),
            Load::Log(workload) => {
                let fills_slowly = workload.mode == Mode::Consume && peer == Kind::KafkaFlush;
                peer.speaks(Protocol::Kafka) && !fills_slowly
            }
            Load::Queue(_) => peer.speaks(Protocol::Amqp),
        }
    }
}

/// Partitions where their number is not what is asked about.
const PARTITIONS: u32 = 4;
/// The rate of the latency rows, in records per second.
pub const RATE: f64 = 20_000.0;
/// Rates of the load rows.
const RATES: [u32; 6] = [1_000, 5_000, 10_000, 50_000, 100_000, 200_000];
/// Numbers of partitions.
const MANY: [u32; 4] = [1, 16, 128, 1_000];

/// Every row.
pub fn lines() -> Vec<Line> {
    let mut lines = vec![
        throughput("produce-1k", "produce, 1 KiB records, acks=all, batch.size=65536", 1024, Acks::All, true),
        throughput("produce-100", "produce, 100 B records, acks=all, batch.size=65536", 100, Acks::All, true),
        throughput("produce-1k-acks1", "produce, 1 KiB records, acks=1", 1024, Acks::One, false),
        keyed(),
        default_batches("produce-1k-default", "1 KiB", 1024),
        default_batches("produce-100-default", "100 B", 100),
        consume("consume-1k", "consume from the beginning, 1 KiB records", 1024, true),
        consume("consume-100", "consume from the beginning, 100 B records", 100, false),
        one_by_one(),
        paced("latency-1k", Group::Latency, RATE, 1024, true),
        paced("latency-100", Group::Latency, RATE, 100, false),
    ];
    for rate in RATES {
        lines.push(paced(&format!("load-{rate}"), Group::Load, f64::from(rate), 1024, false));
    }
    for partitions in MANY {
        lines.push(spread(partitions));
    }
    lines.extend(queue_lines());
    lines
}

/// The rate of the latency row of queues, in messages per second.
pub const QUEUE_RATE: f64 = 5_000.0;
/// Rates of the load rows of queues.
const QUEUE_RATES: [u32; 4] = [1_000, 10_000, 20_000, 40_000];
/// Numbers of queues.
const MANY_QUEUES: [u16; 3] = [1, 10, 100];
/// One queue, and so many that what one message needs is nowhere near what the one before needed: at the same rate, from and to
/// as many connections.
pub const FEW_OR_MANY: [u16; 2] = [1, 10_000];
/// The rate of those, in messages per second,
const FEW_OR_MANY_RATE: f64 = 50_000.0;
/// and their publishers, as many as there are consumers.
const FEW_OR_MANY_CLIENTS: usize = 16;
/// Queues that are made for other brokers at most.
const OTHERS_QUEUES_MAX: u16 = 1_000;
/// Messages that a publisher may have unconfirmed.
const WINDOWS: [i64; 2] = [192, 3000];
/// Numbers of queues whose throughput is measured, each with a publisher and a consumer of its own.
const THROUGHPUT_QUEUES: [u16; 2] = [1, 32];
/// Sizes of messages.
const SIZES: [usize; 2] = [1024, 12];

/// The rows of queues.
fn queue_lines() -> Vec<Line> {
    let line = |name: String, title: String, group, quick, load| Line {
        name,
        title,
        group,
        quick,
        load: Load::Queue(load),
    };
    let mut lines = Vec::new();
    let through = |queues: u16| match queues {
        1 => "one queue".to_owned(),
        queues => format!("{} queues", thousands(queues.into())),
    };
    for queues in THROUGHPUT_QUEUES {
        for size in SIZES {
            for window in WINDOWS {
                let title = format!(
                    "{}, {} persistent messages, {} unconfirmed",
                    through(queues),
                    bytes(size),
                    thousands(window as f64)
                );
                let load = Queues { confirm: window, ..task(size, queues) };
                let quick = queues == 1 && window == 3000;
                lines.push(line(queue_row(queues, size, window), title, Group::QueueThroughput, quick, load));
            }
        }
    }
    for queues in THROUGHPUT_QUEUES {
        for size in SIZES {
            let name = format!("transient-{queues}-{size}");
            let title = format!("{}, {} transient messages, auto-ack", through(queues), bytes(size));
            let load = Queues { autoack: true, confirm: -1, flags: Vec::new(), ..task(size, queues) };
            lines.push(line(name, title, Group::QueueThroughput, false, load));
        }
    }
    lines.push(line(
        ONE_BY_ONE.to_owned(),
        "one queue, one 1 KiB persistent message at a time, each confirmed before the next".to_owned(),
        Group::QueueThroughput,
        false,
        Queues { confirm: 1, multi_ack_every: 1, ..task(1024, 1) },
    ));
    let paced = |rate: f64, queues: u16| Queues {
        rate: rate / f64::from(queues),
        multi_ack_every: 1,
        ..task(1024, queues)
    };
    let title = |rate: f64, queues: u16| {
        format!("{} persistent messages/s of 1 KiB through {}", thousands(rate), through(queues))
    };
    let latency = title(QUEUE_RATE, 1);
    lines.push(line("queue-latency".to_owned(), latency, Group::QueueLatency, true, paced(QUEUE_RATE, 1)));
    for rate in QUEUE_RATES {
        let (name, rate) = (format!("queue-load-{rate}"), f64::from(rate));
        lines.push(line(name, title(rate, 1), Group::QueueLoad, false, paced(rate, 1)));
    }
    for queues in MANY_QUEUES {
        let name = format!("queues-{queues}");
        lines.push(line(name, title(QUEUE_RATE, queues), Group::Queues, false, paced(QUEUE_RATE, queues)));
    }
    for queues in FEW_OR_MANY {
        let title = format!(
            "{} persistent messages/s of 100 B from {FEW_OR_MANY_CLIENTS} connections to {FEW_OR_MANY_CLIENTS}, through {}",
            thousands(FEW_OR_MANY_RATE),
            through(queues)
        );
        let load = Queues {
            producers: FEW_OR_MANY_CLIENTS,
            consumers: FEW_OR_MANY_CLIENTS,
            rate: FEW_OR_MANY_RATE / FEW_OR_MANY_CLIENTS as f64,
            ..task(100, queues)
        };
        lines.push(line(few_or_many_row(queues), title, Group::Queues, false, load));
    }
    lines
}

/// The row in which each message waits for the confirm of the one before.
pub const ONE_BY_ONE: &str = "queue-one-by-one";

/// The name of a row in which one queue is compared with many.
pub fn few_or_many_row(queues: u16) -> String {
    format!("few-or-many-{queues}")
}

/// The name of a row of persistent messages.
pub fn queue_row(queues: u16, size: usize, window: i64) -> String {
    format!("queue-{queues}-{size}-{window}")
}

/// A task queue under load: a publisher and a consumer for each queue; consumers acknowledge a hundred at a time.
fn task(size: usize, queues: u16) -> Queues {
    Queues {
        queues,
        producers: queues.into(),
        consumers: queues.into(),
        size,
        confirm: 1000,
        qos: 1000,
        multi_ack_every: 100,
        flags: vec!["persistent".to_owned()],
        ..Queues::default()
    }
}

/// A size of records.
fn bytes(size: usize) -> String {
    if size == 1024 { "1 KiB".to_owned() } else { format!("{size} B") }
}

/// What Kafka's documentation recommends for throughput: larger batches, and some time to fill them.
fn busy(record_size: usize) -> Workload {
    Workload {
        partitions: PARTITIONS,
        producers: 2,
        consumers: 2,
        record_size,
        batch_size: 64 << 10,
        linger_ms: 10.0,
        ..Workload::default()
    }
}

fn throughput(name: &str, title: &str, record_size: usize, acks: Acks, quick: bool) -> Line {
    let load = Load::Log(Workload { acks, ..busy(record_size) });
    Line { name: name.to_owned(), title: title.to_owned(), group: Group::Throughput, quick, load }
}

/// The same with what Kafka's producer does unless it is told otherwise.
fn default_batches(name: &str, size: &str, record_size: usize) -> Line {
    let batch_size = Workload::default().batch_size;
    let title = format!("produce, {size} records, acks=all, batch.size=16384 (the default)");
    let load = Load::Log(Workload { batch_size, ..busy(record_size) });
    Line { name: name.to_owned(), title, group: Group::Throughput, quick: false, load }
}

fn keyed() -> Line {
    let workload = Workload { key_distribution: Distribution::Zipf, partitions: 16, ..busy(1024) };
    Line {
        name: "produce-1k-keys".to_owned(),
        title: "produce, 1 KiB records, 10,000 keys (Zipf), 16 partitions, acks=all".to_owned(),
        group: Group::Throughput,
        quick: false,
        load: Load::Log(workload),
    }
}

fn consume(name: &str, title: &str, record_size: usize, quick: bool) -> Line {
    let load = Load::Log(Workload { mode: Mode::Consume, ..busy(record_size) });
    Line { name: name.to_owned(), title: title.to_owned(), group: Group::Throughput, quick, load }
}

/// A record after the other, each waiting for its acknowledgement: what a flush costs whoever waits for it.
fn one_by_one() -> Line {
    let workload = Workload { max_in_flight: 1, batch_size: 0, max_request_size: 1, ..Workload::default() };
    Line {
        name: "one-by-one".to_owned(),
        title: "produce, one 1 KiB record at a time, acks=all".to_owned(),
        group: Group::Throughput,
        quick: false,
        load: Load::Log(workload),
    }
}

/// A fixed rate, with consumers that follow, and without lingering: what the broker adds.
fn paced(name: &str, group: Group, rate: f64, record_size: usize, quick: bool) -> Line {
    let workload = Workload {
        mode: Mode::EndToEnd,
        partitions: PARTITIONS,
        record_size,
        throughput: rate,
        linger_ms: 0.0,
        ..Workload::default()
    };
    Line {
        name: name.to_owned(),
        title: format!(
            "{} records/s of {}, produced and consumed, acks=all, linger.ms=0",
            thousands(rate),
            bytes(record_size)
        ),
        group,
        quick,
        load: Load::Log(workload),
    }
}

fn spread(partitions: u32) -> Line {
    let workload = Workload {
        partitions,
        record_size: 100,
        throughput: RATE,
        linger_ms: 5.0,
        key_distribution: Distribution::Uniform,
        keys: 100_000,
        ..Workload::default()
    };
    Line {
        name: format!("partitions-{partitions}"),
        title: format!("20,000 records/s of 100 B, {partitions} partitions, keys, acks=all, linger.ms=5"),
        group: Group::Partitions,
        quick: false,
        load: Load::Log(workload),
    }
}

/// A whole number with its thousands apart.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_can_be_measured() {
        let lines = lines();
        let mut names: Vec<_> = lines.iter().map(|line| line.name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), lines.len());
        for line in lines {
            match line.load {
                Load::Log(workload) => drop(workload.checked().unwrap()),
                Load::Queue(workload) => drop(workload.checked().unwrap()),
            }
        }
    }

    #[test]
    fn thousands_stand_apart() {
        for (value, text) in [(5.0, "5"), (999.4, "999"), (1000.0, "1,000"), (1_234_567.0, "1,234,567")] {
            assert_eq!(thousands(value), text);
        }
    }
}
