//! What a load on a Kafka-protocol broker is made of. Names are those of Kafka's tools and client settings.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::wire::FetchSize;
use crate::load::keys::Distribution;
use crate::measure::Problem;

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Producers only.
    Produce,
    /// Consumers only, of a topic that is filled before.
    Consume,
    /// Both: consumers read what producers send, as it comes.
    EndToEnd,
}

/// When a record counts as produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Acks {
    /// When every replica in sync has it; Millstream has flushed it then.
    #[value(alias = "-1")]
    All,
    /// When the leader has written it.
    #[value(name = "1")]
    #[serde(rename = "1")]
    One,
    /// When it was sent.
    #[value(name = "0")]
    #[serde(rename = "0")]
    None,
}

impl Acks {
    /// As it is on the wire.
    pub fn code(self) -> i16 {
        match self {
            Acks::All => -1,
            Acks::One => 1,
            Acks::None => 0,
        }
    }
}

/// A load.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Workload {
    /// What is loaded
    #[arg(long, value_enum, default_value_t = Mode::Produce)]
    pub mode: Mode,
    /// What the name of the topic begins with; each turn makes one, and deletes it
    #[arg(long, default_value = "millbench")]
    pub topic: String,
    /// Partitions of the topic
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub partitions: u32,
    /// Producers, a connection each
    #[arg(long, default_value_t = 1)]
    pub producers: usize,
    /// Consumers, a connection each; the partitions are shared among them
    #[arg(long, default_value_t = 1)]
    pub consumers: usize,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 1024)]
    pub record_size: usize,
    /// How keys are spread
    #[arg(long, value_enum, default_value_t = Distribution::None)]
    pub key_distribution: Distribution,
    /// How many keys there are
    #[arg(long, default_value_t = 10_000)]
    pub keys: u64,
    /// Records per second over all producers, on a schedule that does not wait for the broker; -1 sends as fast as it answers
    #[arg(long, default_value_t = -1.0, allow_negative_numbers = true)]
    pub throughput: f64,
    /// When a record counts as produced
    #[arg(long, value_enum, default_value_t = Acks::All, allow_hyphen_values = true)]
    pub acks: Acks,
    /// Bytes that a partition's batch is filled up to
    #[arg(long, default_value_t = 16 << 10)]
    pub batch_size: usize,
    /// How long a record may wait for others at a fixed rate
    #[arg(long, default_value_t = 5.0)]
    pub linger_ms: f64,
    /// Requests that a producer has under way (max.in.flight.requests.per.connection)
    #[arg(long, default_value_t = 5)]
    pub max_in_flight: usize,
    /// Bytes of a produce request (max.request.size)
    #[arg(long, default_value_t = 1 << 20)]
    pub max_request_size: usize,
    /// Bytes that a fetch brings of one partition (max.partition.fetch.bytes)
    #[arg(long, default_value_t = 1 << 20)]
    pub fetch_size: i32,
    /// Bytes that a fetch brings (fetch.max.bytes)
    #[arg(long, default_value_t = 50 << 20)]
    pub fetch_max_bytes: i32,
    /// Bytes that a fetch waits for (fetch.min.bytes)
    #[arg(long, default_value_t = 1)]
    pub fetch_min_bytes: i32,
    /// How long it waits for them (fetch.max.wait.ms)
    #[arg(long, default_value_t = 500)]
    pub fetch_max_wait_ms: i32,
    /// MiB that the topic is filled with before it is consumed; consumers begin anew at its end
    #[arg(long, default_value_t = 512)]
    pub fill_mib: u64,
}

impl Default for Workload {
    /// What the command line gives when nothing is asked for.
    fn default() -> Workload {
        Workload {
            mode: Mode::Produce,
            topic: "millbench".to_owned(),
            partitions: 1,
            producers: 1,
            consumers: 1,
            record_size: 1024,
            key_distribution: Distribution::None,
            keys: 10_000,
            throughput: -1.0,
            acks: Acks::All,
            batch_size: 16 << 10,
            linger_ms: 5.0,
            max_in_flight: 5,
            max_request_size: 1 << 20,
            fetch_size: 1 << 20,
            fetch_max_bytes: 50 << 20,
            fetch_min_bytes: 1,
            fetch_max_wait_ms: 500,
            fill_mib: 512,
        }
    }
}

/// Batches are at most as large as brokers take by default.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// What a batch takes beside one record's value.
const BATCH_OVERHEAD_BYTES: usize = 100;

impl Workload {
    /// Whether producers keep to a schedule.
    pub fn is_paced(&self) -> bool {
        self.throughput > 0.0
    }

    /// What a fetch brings.
    pub fn fetch(&self) -> FetchSize {
        FetchSize {
            max_wait_ms: self.fetch_max_wait_ms,
            min_bytes: self.fetch_min_bytes,
            max_bytes: self.fetch_max_bytes,
            partition_max_bytes: self.fetch_size,
        }
    }

    /// Explains what cannot be measured; a record that is larger than a batch gets a batch of its own.
    pub fn checked(mut self) -> Result<Workload, Problem> {
        self.batch_size = self.batch_size.max(self.record_size + BATCH_OVERHEAD_BYTES);
        if self.batch_size > BATCH_BYTES_MAX {
            return Err(format!(
                "--record-size and --batch-size: a batch of {} bytes is more than brokers take ({BATCH_BYTES_MAX})",
                self.batch_size
            )
            .into());
        }
        if self.throughput == 0.0 || self.throughput.is_nan() {
            return Err("--throughput: give records per second, or -1 for as fast as it goes".into());
        }
        let (producers, consumers) = match self.mode {
            Mode::Produce => (self.producers, 1),
            Mode::Consume => (1, self.consumers),
            Mode::EndToEnd => (self.producers, self.consumers),
        };
        if producers == 0 || consumers == 0 {
            return Err("--producers and --consumers: at least one of those that the mode needs".into());
        }
        if self.max_in_flight == 0 {
            return Err("--max-in-flight: at least 1".into());
        }
        if self.mode != Mode::Produce && self.consumers > self.partitions as usize {
            return Err(format!(
                "--consumers: {} of them cannot share {} partitions",
                self.consumers, self.partitions
            )
            .into());
        }
        if self.mode == Mode::EndToEnd && self.is_paced() && self.record_size < crate::load::STAMP_BYTES {
            return Err("--record-size: 8 bytes at least, to say when a record was due".into());
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        workload: Workload,
    }

    fn workload(arguments: &[&str]) -> Result<Workload, String> {
        let arguments = ["millbench"].iter().chain(arguments);
        let cli = Cli::try_parse_from(arguments).map_err(|error| error.to_string())?;
        cli.workload.checked().map_err(|problem| problem.to_string())
    }

    #[test]
    fn what_is_not_asked_for_is_as_in_kafka_s_clients() {
        let (given, default) = (workload(&[]).unwrap(), Workload::default());
        assert_eq!(serde_json::to_value(given).unwrap(), serde_json::to_value(default).unwrap());
    }

    #[test]
    fn acks_are_written_as_kafka_s_clients_write_them() {
        for (text, code) in [("all", -1), ("-1", -1), ("1", 1), ("0", 0)] {
            assert_eq!(workload(&["--acks", text]).unwrap().acks.code(), code);
        }
    }

    #[test]
    fn what_cannot_be_measured_is_explained() {
        for (arguments, word) in [
            (&["--throughput", "0"][..], "--throughput"),
            (&["--batch-size", "2000000"], "--batch-size"),
            (&["--producers", "0"], "--producers"),
            (&["--mode", "consume", "--consumers", "2"], "--consumers"),
            (&["--mode", "end-to-end", "--throughput", "10", "--record-size", "7"], "--record-size"),
            (&["--mode", "sideways"], "--mode"),
        ] {
            let why = workload(arguments).expect_err("it cannot be measured");
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn a_record_that_is_larger_than_a_batch_gets_one_of_its_own() {
        let workload = workload(&["--record-size", "100000"]).unwrap();
        assert!(workload.batch_size > 100_000);
    }
}
