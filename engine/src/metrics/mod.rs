//! What a shard counts and measures while it works, in one table; and how such a table is written and read.

mod instrument;

use std::fmt;

pub use instrument::{Bytes, Counter, Counts, Family, Gauge, Histogram, Peak, Seconds, Waits};

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

/// What a metric's value is, and how it moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only rises, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often a value was how large.
    Histogram,
}

/// What a metric's numbers count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Time. The numbers are nanoseconds; they are shown in seconds.
    Seconds,
}

/// What is known of a metric without looking at its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metric {
    /// Its name, in the form that Prometheus recommends.
    pub name: &'static str,
    /// What its numbers count.
    pub unit: Unit,
    /// What it says, in a sentence.
    pub help: &'static str,
}

/// A metric and where its value is.
pub struct Row<'a> {
    /// The metric.
    pub metric: &'static Metric,
    /// Its value, or values.
    pub instrument: &'a dyn Instrument,
}

/// A metric's value, or one of its values.
pub enum Sample {
    /// A number.
    Value(u64),
    /// A histogram: upper bounds with how many values lie at or below each and above the one before, how many lie above
    /// all bounds, and the sum of all values.
    Histogram {
        /// In rising order.
        buckets: Vec<(u64, u64)>,
        /// Those above the last bound.
        above: u64,
        /// Of all values.
        sum: u64,
    },
}

/// What holds a metric's value.
pub trait Instrument {
    /// What it is.
    fn kind(&self) -> Kind;

    /// The name of the label that tells its values apart, if there are several.
    fn label(&self) -> Option<&'static str> {
        None
    }

    /// Shows its value; each of them with its label's value, if there are several.
    fn show(&self, show: &mut dyn FnMut(Option<&str>, Sample));
}

/// A table of metrics, made by [`metrics!`](crate::metrics!).
pub trait Table {
    /// Every metric, in the table's order, which is the same for all values of this type.
    fn rows(&self) -> Vec<Row<'_>>;
}

/// Makes a table of metrics: a struct with a field for each, which names it, its unit and its help once.
#[macro_export]
macro_rules! metrics {
    ($(#[$about:meta])* pub struct $table:ident {
        $($field:ident: $kind:ty = $make:expr, $unit:ident, $name:literal, $help:literal;)*
    }) => {
        $(#[$about])*
        #[derive(Debug)]
        pub struct $table {
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Default for $table {
            fn default() -> $table {
                $table { $($field: $make,)* }
            }
        }

        impl $crate::metrics::Table for $table {
            fn rows(&self) -> Vec<$crate::metrics::Row<'_>> {
                vec![$($crate::metrics::Row {
                    metric: &$crate::metrics::Metric {
                        name: $name,
                        unit: $crate::metrics::Unit::$unit,
                        help: $help,
                    },
                    instrument: &self.$field,
                },)*]
            }
        }
    };
}

/// The end of a table that is written to: there is one, and it stays with one thread. So a number is changed by a load
/// and a store, which cost what they would cost in a plain variable.
pub struct Meter<T> {
    shared: Arc<Aligned<T>>,
    one_thread: PhantomData<Cell<()>>,
}

/// The end of a table that is read from, on any thread, at any time: the writer neither waits nor notices. Two numbers
/// that are read one after the other may be from before and after a step.
pub struct Reader<T>(Arc<Aligned<T>>);

/// No two threads write to the same cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Aligned<T>(T);

impl<T: Table> Meter<T> {
    /// The writing end of a new table.
    pub fn new(table: T) -> Meter<T> {
        Meter { shared: Arc::new(Aligned(table)), one_thread: PhantomData }
    }

    /// A reading end.
    pub fn reader(&self) -> Reader<T> {
        Reader(Arc::clone(&self.shared))
    }
}

impl<T: Table + Default> Default for Meter<T> {
    fn default() -> Meter<T> {
        Meter::new(T::default())
    }
}

impl<T> Deref for Meter<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.shared.0
    }
}

impl<T> fmt::Debug for Meter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}

impl<T: Table> Reader<T> {
    /// Every metric and its value.
    pub fn rows(&self) -> Vec<Row<'_>> {
        self.0.0.rows()
    }

    /// One number.
    pub fn get(&self, number: impl FnOnce(&T) -> u64) -> u64 {
        number(&self.0.0)
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Reader<T> {
        Reader(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

/// A part of a turn, as the longest ones are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Submitting to the kernel and taking completions, when nothing is waited for.
    Poll,
    /// Working with completions, connections and timers.
    Events,
    /// Working with what shards ask and answer.
    Mail,
    /// Placing batches that have waited, and submitting the group.
    Store,
    /// Trimming the journal, retention, and whatever else is done in the background.
    Background,
    /// Sending answers to other shards.
    Answers,
}

/// The steps' names, in the order of [`Step`].
pub const STEPS: [&str; 6] = ["poll", "events", "mail", "store", "background", "answers"];
/// What a shard's memory is for, in the order of its pools.
pub const POOLS: [&str; 6] = ["tail", "staging", "read", "slow", "passing", "large"];
/// What a journal's file is at, `used` first.
pub const FILE_STATES: [&str; 2] = ["used", "free"];
/// What the scrub finds wrong with a file.
pub const SCRUB_FINDINGS: [&str; 2] = ["damaged", "unreadable"];
/// What a queue's messages are at.
pub const MESSAGE_STATES: [&str; 2] = ["ready", "unacked"];
/// How a round of trimming ends, the good way first.
pub const ROUND_ENDS: [&str; 2] = ["done", "failed"];

metrics! {
    /// What one shard tells of itself. Gauges are as of its last look around, about a second ago at most.
    pub struct ShardMetrics {
        turns: Counter = Counter::default(), Count, "millstream_turns_total",
            "Turns of the shard's loop. It turns about once a second when nothing happens.";
        queue_turns: Counter = Counter::default(), Count, "millstream_queue_turns_total",
            "Turns in which queues had something to do.";
        busy: Counter = Counter::default(), Seconds, "millstream_busy_seconds_total",
            "Time that the shard has worked, without its waits: its rate is the shard's load, from 0 to 1.";
        turn: Seconds = Seconds::default(), Seconds, "millstream_turn_seconds",
            "How long turns took, without their waits.";
        longest: Family<Peak> = Family::new("step", STEPS), Seconds, "millstream_turn_longest_seconds",
            "The longest time that a turn spent in a step, within the last one to two minutes. `poll` counts only where nothing was waited for.";
        group_bytes: Bytes = Bytes::default(), Bytes, "millstream_group_bytes",
            "Bytes of the journal's groups, headers and padding included. A group is one write and one flush.";
        group_batches: Counts = Counts::default(), Count, "millstream_group_batches",
            "Record batches of the journal's groups.";
        group_wait: Seconds = Seconds::default(), Seconds, "millstream_group_wait_seconds",
            "From the arrival of a group's first batch until the group was durable: the longest that one of its batches has waited.";
        flush: Seconds = Seconds::default(), Seconds, "millstream_flush_seconds",
            "From a group's submission until it was durable: its write and its flush.";
        append_batches: Counter = Counter::default(), Count, "millstream_append_batches_total",
            "Record batches that were made durable.";
        append_records: Counter = Counter::default(), Count, "millstream_append_records_total",
            "Records that were made durable: what came in.";
        append_bytes: Counter = Counter::default(), Bytes, "millstream_append_bytes_total",
            "Bytes of the record batches that were made durable.";
        refusals: Counter = Counter::default(), Count, "millstream_refusals_total",
            "Requests of any kind that the shard refused.";
        read_bytes: Counter = Counter::default(), Bytes, "millstream_read_bytes_total",
            "Bytes of record batches that were read, from memory and from files.";
        cold_reads: Counter = Counter::default(), Count, "millstream_cold_reads_total",
            "Reads that memory did not have, so that a segment's file was read.";
        cold_read_bytes: Counter = Counter::default(), Bytes, "millstream_cold_read_bytes_total",
            "Bytes of record batches that came from segment files.";
        mailbox_messages: Counts = Counts::default(), Count, "millstream_mailbox_messages",
            "Messages that lay in the shard's mailboxes whenever it found any.";
        mailbox_wait: Waits = Waits::default(), Seconds, "millstream_mailbox_wait_seconds",
            "How long messages lay in the shard's mailboxes: a sample, of messages from other shards.";
        parked: Gauge = Gauge::default(), Count, "millstream_mailbox_parked_messages",
            "Messages that wait for room in another shard's mailbox.";
        backlog: Gauge = Gauge::default(), Count, "millstream_backlog_batches",
            "Record batches that wait for room in the journal.";
        watches: Gauge = Gauge::default(), Count, "millstream_watches",
            "Readers that wait for news.";
        memory: Family<Gauge> = Family::new("pool", POOLS), Bytes, "millstream_memory_bytes",
            "Memory in slabs that something holds: newest bytes of the logs and what readers pin (`tail`), writes to segments (`staging`), reads from files (`read`), copies for slow readers (`slow`), messages that queues do not keep over a restart (`passing`), messages too large for one record (`large`).";
        memory_limit: Family<Gauge> = Family::new("pool", POOLS), Bytes, "millstream_memory_limit_bytes",
            "What each kind of memory may take.";
        tail: Gauge = Gauge::default(), Bytes, "millstream_tail_bytes",
            "Bytes of the logs' newest batches that are kept in memory.";
        tail_limit: Gauge = Gauge::default(), Bytes, "millstream_tail_limit_bytes",
            "What these may be now: it grows when readers come late by little, and shrinks while none do.";
        journal_files: Family<Gauge> = Family::new("state", FILE_STATES), Count, "millstream_journal_files",
            "Files of the journal: those that hold records, and those that are free.";
        trim_lag: Gauge = Gauge::default(), Bytes, "millstream_trim_lag_bytes",
            "Bytes of journal files that cannot be recycled yet, because segments do not have all of what they hold.";
        trim_rounds: Family<Counter> = Family::new("outcome", ROUND_ENDS), Count, "millstream_trim_rounds_total",
            "Rounds of moving the journal to segments.";
        scrub_bytes: Counter = Counter::default(), Bytes, "millstream_scrub_bytes_total",
            "Bytes of stored segments that the scrub has read and checked.";
        scrub_passes: Counter = Counter::default(), Count, "millstream_scrub_passes_total",
            "How often the scrub has been through all stored segments.";
        scrub_findings: Family<Counter> = Family::new("finding", SCRUB_FINDINGS), Count, "millstream_scrub_findings_total",
            "Files of stored segments in which the scrub has found something wrong, in each pass anew. The log names them.";
        queue_index: Gauge = Gauge::default(), Bytes, "millstream_queue_index_bytes",
            "Memory that the indexes of queues take, without what is paged out.";
        queue_pages: Gauge = Gauge::default(), Count, "millstream_queue_index_pages",
            "Pages of the indexes of queues that are in a file and not in memory.";
        partitions: Gauge = Gauge::default(), Count, "millstream_partitions",
            "Partitions of the shard.";
        producers: Gauge = Gauge::default(), Count, "millstream_producers",
            "Idempotent producers that the shard remembers.";
        queues: Gauge = Gauge::default(), Count, "millstream_queues",
            "Queues of the shard. These, and what is in them, are counted a thousand per second.";
        queue_messages: Family<Gauge> = Family::new("state", MESSAGE_STATES), Count, "millstream_queue_messages",
            "Messages of the queues: those that wait for a consumer, and those that were delivered and are not settled.";
        queue_bytes: Family<Gauge> = Family::new("state", MESSAGE_STATES), Bytes, "millstream_queue_messages_bytes",
            "Bytes of these.";
        queue_consumers: Gauge = Gauge::default(), Count, "millstream_queue_consumers",
            "Consumers of the queues.";
        queues_held: Gauge = Gauge::default(), Count, "millstream_queues_flow",
            "Queues whose publishers wait for consumers.";
        disk_free: Gauge = Gauge::default(), Bytes, "millstream_disk_free_bytes",
            "Bytes that the disk has free.";
        disk_full: Gauge = Gauge::default(), Count, "millstream_disk_full",
            "1 while appends are refused because the disk is full.";
        messages_lost: Counter = Counter::default(), Count, "millstream_messages_lost_total",
            "Messages of queues that could not be read any more and were set aside. The log names them.";
        poisoned: Gauge = Gauge::default(), Count, "millstream_shard_poisoned",
            "1 once a failed flush has ended the shard's service.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_the_meter_writes_from_another_thread() {
        let meter = Meter::<ShardMetrics>::default();
        let reader = meter.reader();
        meter.turns.add(2);
        meter.turns.add(3);
        let seen = std::thread::spawn(move || reader.get(|shard| shard.turns.get()));
        assert_eq!(seen.join().unwrap(), 5);
    }

    #[test]
    fn names_follow_the_conventions_and_are_unique() {
        let table = ShardMetrics::default();
        let mut names = std::collections::BTreeSet::new();
        for Row { metric, instrument } in table.rows() {
            let name = metric.name;
            assert!(names.insert(name), "{name} stands twice in the table");
            assert!(name.starts_with("millstream_"), "{name}");
            let base = name.strip_suffix("_total");
            assert_eq!(base.is_some(), instrument.kind() == Kind::Counter, "{name}");
            let base = base.unwrap_or(name);
            assert_eq!(base.ends_with("_bytes"), metric.unit == Unit::Bytes, "{name}");
            assert_eq!(base.ends_with("_seconds"), metric.unit == Unit::Seconds, "{name}");
            assert!(metric.help.ends_with('.'), "{name}");
        }
    }
}
