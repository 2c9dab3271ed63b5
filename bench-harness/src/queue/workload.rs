//! What a load on an AMQP 0-9-1 broker is made of. Names are those of RabbitMQ's `PerfTest`.

use clap::Args;
use serde::Serialize;

use crate::measure::Problem;

/// A load.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Workload {
    /// Producers, a connection each; producer n publishes to queue n, counted around, or with more queues than producers to its
    /// share of them in turn
    #[arg(long, short = 'x', default_value_t = 1)]
    pub producers: usize,
    /// Consumers, a connection each; consumer n reads queue n, counted around, or its share of them
    #[arg(long, short = 'y', default_value_t = 1)]
    pub consumers: usize,
    /// Queues; made for each turn, and deleted after it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub queues: u16,
    /// Bytes of a message's body
    #[arg(long, short = 's', default_value_t = 12)]
    pub size: usize,
    /// Messages per second that each producer publishes, on a schedule that does not wait for the broker; -1 publishes as fast as it is confirmed
    #[arg(long, short = 'r', default_value_t = -1.0, allow_negative_numbers = true)]
    pub rate: f64,
    /// Messages that a producer may have unconfirmed; -1 asks for no confirms
    #[arg(long, short = 'c', default_value_t = -1, allow_negative_numbers = true)]
    pub confirm: i64,
    /// Messages that a producer sends in one go at most, as libraries do that collect what is written; those that write each
    /// message by itself, as `PerfTest` does, have 1
    #[arg(long, default_value_t = BURST, value_parser = clap::value_parser!(u16).range(1..))]
    pub burst: u16,
    /// Messages that a consumer may have unacknowledged; 0 is without limit
    #[arg(long, short = 'q', default_value_t = 0)]
    pub qos: u16,
    /// A consumer acknowledges every so many messages at a time
    #[arg(long, short = 'A', default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub multi_ack_every: u64,
    /// Consumers acknowledge nothing
    #[arg(long, short = 'a')]
    pub autoack: bool,
    /// What messages are: `persistent`
    #[arg(long = "flag", short = 'f', value_delimiter = ',', value_parser = ["persistent"])]
    pub flags: Vec<String>,
    /// Arguments of the queues: NAME=VALUE
    #[arg(long, value_parser = super::argument, value_delimiter = ',')]
    pub queue_args: Vec<(String, String)>,
    /// Quorum queues: the same as --queue-args x-queue-type=quorum
    #[arg(long)]
    pub quorum_queue: bool,
}

/// Messages that are sent in one go at most, unless it is said otherwise.
const BURST: u16 = 64;

impl Default for Workload {
    /// What the command line gives when nothing is asked for.
    fn default() -> Workload {
        Workload {
            producers: 1,
            consumers: 1,
            queues: 1,
            size: 12,
            rate: -1.0,
            confirm: -1,
            burst: BURST,
            qos: 0,
            multi_ack_every: 1,
            autoack: false,
            flags: Vec::new(),
            queue_args: Vec::new(),
            quorum_queue: false,
        }
    }
}

impl Workload {
    /// Whether producers keep to a schedule.
    pub fn is_paced(&self) -> bool {
        self.rate > 0.0
    }

    /// Messages under way at most; none without confirms.
    pub fn window(&self) -> Option<usize> {
        usize::try_from(self.confirm).ok()
    }

    /// Whether messages are to survive a restart.
    pub fn is_persistent(&self) -> bool {
        self.flags.iter().any(|flag| flag == "persistent")
    }

    /// Arguments of the queues, all of them.
    pub fn arguments(&self) -> Vec<(String, String)> {
        let quorum = self.quorum_queue.then(|| ("x-queue-type".to_owned(), "quorum".to_owned()));
        quorum.into_iter().chain(self.queue_args.iter().cloned()).collect()
    }

    /// Explains what cannot be measured.
    pub fn checked(self) -> Result<Workload, Problem> {
        if self.producers == 0 {
            return Err("--producers: at least one, who fills the queues".into());
        }
        if self.rate == 0.0 || self.rate.is_nan() {
            return Err("--rate: give messages per second, or -1 for as fast as it goes".into());
        }
        if self.confirm == 0 || self.confirm < -1 {
            return Err("--confirm: give a number of messages, or -1 for no confirms".into());
        }
        if !self.autoack && self.qos > 0 && self.multi_ack_every > u64::from(self.qos) {
            return Err(format!(
                "--multi-ack-every: {} messages are more than a consumer gets at a time (--qos {})",
                self.multi_ack_every, self.qos
            )
            .into());
        }
        if self.is_paced() && self.consumers > 0 && self.size < crate::load::STAMP_BYTES {
            return Err("--size: 8 bytes at least, to say when a message was due".into());
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
    fn what_is_not_asked_for_is_as_in_perftest() {
        let (given, default) = (workload(&[]).unwrap(), Workload::default());
        assert_eq!(serde_json::to_value(given).unwrap(), serde_json::to_value(default).unwrap());
    }

    #[test]
    fn a_line_for_perftest_is_understood() {
        let line =
            ["-x", "2", "-y", "3", "-s", "1000", "-f", "persistent", "-c", "100", "-q", "200", "-A", "50"];
        let workload =
            workload(&[&line[..], &["--quorum-queue", "--queue-args", "a=b,c=1"]].concat()).unwrap();
        assert_eq!((workload.producers, workload.consumers, workload.size), (2, 3, 1000));
        assert_eq!((workload.window(), workload.qos, workload.multi_ack_every), (Some(100), 200, 50));
        assert!(workload.is_persistent() && workload.arguments().len() == 3);
    }

    #[test]
    fn what_cannot_be_measured_is_explained() {
        for (arguments, word) in [
            (&["--rate", "0"][..], "--rate"),
            (&["--confirm", "0"], "--confirm"),
            (&["--producers", "0"], "--producers"),
            (&["--qos", "10", "--multi-ack-every", "20"], "--multi-ack-every"),
            (&["--rate", "10", "--size", "4"], "--size"),
            (&["--flag", "mandatory"], "persistent"),
            (&["--queue-args", "nonsense"], "NAME=VALUE"),
        ] {
            let why = workload(arguments).expect_err("it cannot be measured");
            assert!(why.contains(word), "{why}");
        }
    }
}
