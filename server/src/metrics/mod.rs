//! What the broker tells of itself: the tables of the protocol's side and of the process, and the form in which all
//! tables, the engine's too, are read.

mod exposition;
mod page;

use millstream_engine::io::process::{thread_times, usage};
use millstream_engine::metrics;
use millstream_engine::metrics::{Counter, Family, Gauge, Meter, Reader, ShardMetrics, Table, Waits};
use millstream_engine::types::ShardId;

use crate::kafka::APIS;

pub use exposition::{CONTENT_TYPE, Exposition};
pub use page::documentation;

/// How a shard's thread is called; its number follows.
const SHARD_THREAD: &str = "shard-";

metrics! {
    /// What one shard's part of the broker tells of itself.
    pub struct BrokerMetrics {
        connections: Gauge = Gauge::default(), Count, "millstream_connections",
            "Connections of clients.";
        accepted: Counter = Counter::default(), Count, "millstream_connections_accepted_total",
            "Connections that were accepted.";
        turned_away: Counter = Counter::default(), Count, "millstream_connections_turned_away_total",
            "Connections that were closed as they came, for there were as many as there may be.";
        stuck: Counter = Counter::default(), Count, "millstream_connections_stuck_total",
            "Connections that were closed because they did not take what they were sent, and others needed the memory.";
        answer_bytes: Gauge = Gauge::default(), Bytes, "millstream_kafka_answer_bytes",
            "Bytes of answers, without the batches in them, that Kafka's clients have not taken yet.";
        received: Counter = Counter::default(), Bytes, "millstream_received_bytes_total",
            "Bytes that clients have sent.";
        sent: Counter = Counter::default(), Bytes, "millstream_sent_bytes_total",
            "Bytes that were handed to the kernel for clients.";
        records_out: Counter = Counter::default(), Count, "millstream_fetch_records_total",
            "Records in the answers to fetches: what goes out.";
        amqp_connections: Gauge = Gauge::default(), Count, "rabbitmq_connections",
            "Connections of AMQP clients.";
        amqp_channels: Gauge = Gauge::default(), Count, "rabbitmq_channels",
            "Their channels.";
        amqp_consumers: Gauge = Gauge::default(), Count, "rabbitmq_consumers",
            "Consumers of these.";
        amqp_held: Counter = Counter::default(), Count, "millstream_amqp_flow_total",
            "Times that nothing was read from a connection for a moment because consumers were behind what it publishes.";
        amqp_connections_opened: Counter = Counter::default(), Count, "rabbitmq_connections_opened_total",
            "Connections that AMQP clients have opened.";
        amqp_connections_closed: Counter = Counter::default(), Count, "rabbitmq_connections_closed_total",
            "Of these, connections that are over.";
        amqp_channels_opened: Counter = Counter::default(), Count, "rabbitmq_channels_opened_total",
            "Channels that were opened.";
        amqp_channels_closed: Counter = Counter::default(), Count, "rabbitmq_channels_closed_total",
            "Of these, channels that are over.";
        amqp_published: Counter = Counter::default(), Count, "rabbitmq_global_messages_received_total",
            "Messages that AMQP clients have published to an exchange that is there.";
        amqp_published_to_confirm: Counter = Counter::default(), Count, "rabbitmq_global_messages_received_confirm_total",
            "Of these, messages on channels that confirm.";
        amqp_routed: Counter = Counter::default(), Count, "rabbitmq_global_messages_routed_total",
            "Of all these, messages for which there was a way to a queue.";
        amqp_returned: Counter = Counter::default(), Count, "rabbitmq_global_messages_unroutable_returned_total",
            "Messages that came back for there was no way.";
        amqp_dropped: Counter = Counter::default(), Count, "rabbitmq_global_messages_unroutable_dropped_total",
            "Messages that were dropped for there was no way, and nobody wanted to be told.";
        amqp_messages_confirmed: Counter = Counter::default(), Count, "rabbitmq_global_messages_confirmed_total",
            "Messages that were confirmed, or refused.";
        amqp_confirmed: Counter = Counter::default(), Count, "millstream_amqp_confirms_total",
            "Confirms that were sent, each for one message or several.";
        amqp_delivered: Counter = Counter::default(), Count, "rabbitmq_global_messages_delivered_total",
            "Messages that were given to AMQP clients, to consumers and one by one.";
        amqp_delivered_to_ack: Counter = Counter::default(), Count, "rabbitmq_global_messages_delivered_consume_manual_ack_total",
            "Messages that were given to consumers which settle them.";
        amqp_delivered_no_ack: Counter = Counter::default(), Count, "rabbitmq_global_messages_delivered_consume_auto_ack_total",
            "Messages that were given to consumers which do not.";
        amqp_got_to_ack: Counter = Counter::default(), Count, "rabbitmq_global_messages_delivered_get_manual_ack_total",
            "Messages that were got one by one and are to be settled.";
        amqp_got_no_ack: Counter = Counter::default(), Count, "rabbitmq_global_messages_delivered_get_auto_ack_total",
            "Messages that were got one by one and are not.";
        amqp_got_empty: Counter = Counter::default(), Count, "rabbitmq_global_messages_get_empty_total",
            "Requests for one message that found none.";
        amqp_redelivered: Counter = Counter::default(), Count, "rabbitmq_global_messages_redelivered_total",
            "Messages that may have been given to somebody before.";
        amqp_acked: Counter = Counter::default(), Count, "rabbitmq_global_messages_acknowledged_total",
            "Messages that were acknowledged.";
        requests: Family<Counter> = Family::new("api", apis()), Count, "millstream_kafka_requests_total",
            "Requests of Kafka's protocol that could be read.";
        errors: Family<Counter> = Family::new("api", apis()), Count, "millstream_kafka_errors_total",
            "Error codes in answers: one for each partition or topic that has one.";
        request: Family<Waits> = Family::new("api", apis()), Seconds, "millstream_kafka_request_seconds",
            "From a request's arrival until its answer was ready, as the shard's turns see it. A fetch's wait for news is in it.";
        groups: Gauge = Gauge::default(), Count, "millstream_groups",
            "Consumer groups that the shard coordinates.";
        group_members: Gauge = Gauge::default(), Count, "millstream_group_members",
            "Members of these groups.";
        group_generations: Counter = Counter::default(), Count, "millstream_group_generations_total",
            "Generations that groups have begun: one for each rebalance, and one when the last member has gone.";
        offsets: Gauge = Gauge::default(), Count, "millstream_group_offsets",
            "Committed offsets that are kept.";
        offsets_bytes: Gauge = Gauge::default(), Bytes, "millstream_group_offsets_bytes",
            "Bytes of memory that these are reckoned to take.";
        offset_commits: Counter = Counter::default(), Count, "millstream_group_offset_commits_total",
            "Offsets that were committed, and are durable.";
    }
}

fn apis() -> impl Iterator<Item = &'static str> {
    APIS.iter().map(|api| api.name)
}

metrics! {
    /// What is told of the process as a whole, under the names that Prometheus has for it where it has some.
    pub struct ProcessMetrics {
        build: Family<Gauge> = Family::new("version", [env!("CARGO_PKG_VERSION")]), Count, "millstream_build_info",
            "1, for the version that runs.";
        uptime: Gauge = Gauge::default(), Seconds, "millstream_uptime_seconds",
            "How long the process runs.";
        shard_cpu: Family<Counter> = Family::new("shard", [""; 0]), Seconds, "millstream_shard_cpu_seconds_total",
            "Time that a shard's thread was on a core.";
        cpu: Counter = Counter::default(), Seconds, "process_cpu_seconds_total",
            "Time on cores, over all threads.";
        started: Gauge = Gauge::default(), Seconds, "process_start_time_seconds",
            "When the process was started, in seconds since 1970.";
        resident: Gauge = Gauge::default(), Bytes, "process_resident_memory_bytes",
            "Memory that the process has.";
        virtual_memory: Gauge = Gauge::default(), Bytes, "process_virtual_memory_bytes",
            "Addresses that the process has.";
        open_files: Gauge = Gauge::default(), Count, "process_open_fds",
            "Files and sockets that are open.";
        open_files_max: Gauge = Gauge::default(), Count, "process_max_fds",
            "How many may be open.";
        threads: Gauge = Gauge::default(), Count, "process_threads",
            "Threads, the kernel's workers for the process included.";
    }
}

metrics! {
    /// What is told of all queues together, under the names that RabbitMQ's plugin has for it.
    pub struct QueueMetrics {
        identity: Family<Gauge> = Family::new("rabbitmq_cluster", ["millstream"]), Count, "rabbitmq_identity_info",
            "1, for RabbitMQ's dashboards to name the node by.";
        queues: Gauge = Gauge::default(), Count, "rabbitmq_queues",
            "Queues.";
        ready: Gauge = Gauge::default(), Count, "rabbitmq_queue_messages_ready",
            "Messages that wait for a consumer.";
        unacked: Gauge = Gauge::default(), Count, "rabbitmq_queue_messages_unacked",
            "Messages that were delivered and are not settled.";
        messages: Gauge = Gauge::default(), Count, "rabbitmq_queue_messages",
            "Both.";
        ready_bytes: Gauge = Gauge::default(), Bytes, "rabbitmq_queue_messages_ready_bytes",
            "Bytes of the messages that wait.";
        unacked_bytes: Gauge = Gauge::default(), Bytes, "rabbitmq_queue_messages_unacked_bytes",
            "Bytes of the messages that are not settled.";
        consumers: Gauge = Gauge::default(), Count, "rabbitmq_queue_consumers",
            "Consumers of all queues.";
    }
}

impl QueueMetrics {
    /// Adds up what the shards tell.
    fn refresh(&self, shards: &[ShardReaders]) {
        let sum =
            |number: fn(&ShardMetrics) -> u64| shards.iter().map(|of| of.engine.get(number)).sum::<u64>();
        let (ready, unacked) =
            (sum(|of| of.queue_messages.at(0).get()), sum(|of| of.queue_messages.at(1).get()));
        self.identity.at(0).set(1);
        self.queues.set(sum(|of| of.queues.get()));
        self.ready.set(ready);
        self.unacked.set(unacked);
        self.messages.set(ready + unacked);
        self.ready_bytes.set(sum(|of| of.queue_bytes.at(0).get()));
        self.unacked_bytes.set(sum(|of| of.queue_bytes.at(1).get()));
        self.consumers.set(sum(|of| of.queue_consumers.get()));
    }
}

impl ProcessMetrics {
    /// For a node of so many shards.
    fn new(shards: usize) -> ProcessMetrics {
        let shard_cpu = Family::new("shard", (0..shards).map(|shard| shard.to_string()));
        ProcessMetrics { shard_cpu, ..ProcessMetrics::default() }
    }

    /// Asks the kernel.
    fn refresh(&self) {
        let usage = usage();
        self.build.at(0).set(1);
        self.uptime.set(usage.uptime.0);
        self.cpu.reach(usage.cpu.0);
        self.started.set(usage.started.0);
        self.resident.set(usage.resident_bytes);
        self.virtual_memory.set(usage.virtual_bytes);
        self.open_files.set(usage.open_files);
        self.open_files_max.set(usage.open_files_max);
        self.threads.set(usage.threads);
        for (shard, time) in thread_times(SHARD_THREAD) {
            if let Some(counter) = shard.parse().ok().and_then(|shard: usize| self.shard_cpu.get(shard)) {
                counter.reach(time.0);
            }
        }
    }
}

/// Everything that one shard tells.
#[derive(Clone, Debug)]
pub struct ShardReaders {
    /// The engine's part.
    pub engine: Reader<ShardMetrics>,
    /// The broker's part.
    pub broker: Reader<BrokerMetrics>,
}

/// Everything that is told, for whoever asks.
#[derive(Debug)]
pub struct Metrics {
    /// By shard.
    shards: Vec<ShardReaders>,
    process: Meter<ProcessMetrics>,
    queues: Meter<QueueMetrics>,
}

impl Metrics {
    /// Of a node with these shards, in order of their numbers.
    pub fn new(shards: Vec<ShardReaders>) -> Metrics {
        let process = Meter::new(ProcessMetrics::new(shards.len()));
        Metrics { shards, process, queues: Meter::default() }
    }

    /// The shards', in order of their numbers.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &ShardReaders)> {
        self.shards.iter().enumerate().map(|(shard, readers)| (ShardId(shard as u16), readers))
    }

    /// Everything, as Prometheus reads it.
    pub fn exposition(&self) -> String {
        self.process.refresh();
        let mut text = Exposition::default();
        text.table(&[(None, self.process.rows())]);
        self.queues.refresh(&self.shards);
        text.table(&[(None, self.queues.rows())]);
        let shard = |shard: ShardId| Some(shard.0.to_string());
        text.table(&self.shards().map(|(id, of)| (shard(id), of.engine.rows())).collect::<Vec<_>>());
        text.table(&self.shards().map(|(id, of)| (shard(id), of.broker.rows())).collect::<Vec<_>>());
        text.finish()
    }
}
