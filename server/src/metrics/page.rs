//! The page that describes every metric.

use std::fmt::Write;

use millstream_engine::metrics::{ShardMetrics, Table};

use super::exposition::kind_name;
use super::{BrokerMetrics, ProcessMetrics, QueueMetrics};

/// The page.
pub fn documentation() -> String {
    let mut page = "# Metrics\n\n\
        `GET /metrics` on the HTTP listener (`http.listen`) answers in Prometheus' text format. Times are in seconds. \
        Counters rise until\nthe process ends. The bounds of a histogram's buckets double from one to the next.\n\n\
        This page is made from the tables in `engine/src/metrics/mod.rs` and `server/src/metrics/mod.rs`; `cargo test` \
        fails when it is out\nof date and says how to renew it.\n"
        .to_owned();
    section(&mut page, "Storage, for each shard", &["shard"], &ShardMetrics::default());
    section(
        &mut page,
        "Connections, Kafka's protocol and AMQP, for each shard",
        &["shard"],
        &BrokerMetrics::default(),
    );
    section(&mut page, "All queues, by RabbitMQ's names", &[], &QueueMetrics::default());
    section(&mut page, "The process", &[], &ProcessMetrics::default());
    page
}

fn section(page: &mut String, title: &str, labels: &[&str], table: &dyn Table) {
    let mut line = |line: std::fmt::Arguments<'_>| {
        page.write_fmt(line).and_then(|()| page.write_char('\n')).expect("a string takes anything");
    };
    line(format_args!("\n## {title}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|"));
    for row in table.rows() {
        let labels: Vec<String> =
            labels.iter().copied().chain(row.instrument.label()).map(|label| format!("`{label}`")).collect();
        let (name, help, kind) = (row.metric.name, row.metric.help, kind_name(row.instrument.kind()));
        line(format_args!("| `{name}` | {kind} | {} | {help} |", labels.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_help_needs_an_escape() {
        for table in [
            &ShardMetrics::default() as &dyn Table,
            &BrokerMetrics::default(),
            &ProcessMetrics::default(),
            &QueueMetrics::default(),
        ] {
            for row in table.rows() {
                assert!(!row.metric.help.contains(['\\', '\n', '|']), "{}", row.metric.name);
            }
        }
    }
}
