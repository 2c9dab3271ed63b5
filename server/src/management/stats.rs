//! Statistics in RabbitMQ's words: what is counted of the node, of queues, exchanges, connections and channels; and looking at it again and
//! again, as far as somebody asks about it.

use std::collections::BTreeMap;

use millstream_engine::shard::message::QueueStats;
use millstream_engine::types::{QueueId, ShardId};
use serde_json::{Map, Value};

use super::api::{Api, Asked};
use super::call::ConnectionsWanted;
use super::connections::{channel_name, name};
use super::problem::Problem;
use super::samples::{Numbers, Span, Subject};
use crate::admin::State;
use crate::amqp::report::{ChannelReport, ConnectionReport};
use crate::limits::MANAGEMENT_ASKED_MAX;
use crate::metrics::BrokerMetrics;

/// The numbers of a queue that are lengths, and may fall.
const LENGTHS: [&str; 3] = ["messages", "messages_ready", "messages_unacknowledged"];
/// The numbers of a node that tell of connections and channels.
const CHURN: [&str; 4] = ["connection_created", "connection_closed", "channel_created", "channel_closed"];

pub fn of_queue(stats: &QueueStats) -> Numbers {
    let counts = &stats.counts;
    vec![
        ("messages", stats.ready + stats.unacked),
        ("messages_ready", stats.ready),
        ("messages_unacknowledged", stats.unacked),
        ("publish", counts.published),
        ("deliver", counts.delivered),
        ("deliver_no_ack", counts.delivered_no_ack),
        ("deliver_get", counts.delivered + counts.delivered_no_ack + counts.got + counts.got_no_ack),
        ("get", counts.got),
        ("get_no_ack", counts.got_no_ack),
        ("get_empty", counts.got_empty),
        ("redeliver", counts.redelivered),
        ("ack", counts.acked),
    ]
}

pub fn of_channel(channel: &ChannelReport) -> Numbers {
    let counts = &channel.counts;
    vec![
        ("publish", counts.published),
        ("confirm", counts.confirmed),
        ("return_unroutable", counts.returned),
        ("drop_unroutable", counts.dropped),
        ("deliver", counts.delivered),
        ("deliver_no_ack", counts.delivered_no_ack),
        ("deliver_get", counts.delivered + counts.delivered_no_ack + counts.got + counts.got_no_ack),
        ("get", counts.got),
        ("get_no_ack", counts.got_no_ack),
        ("get_empty", counts.got_empty),
        ("redeliver", counts.redelivered),
        ("ack", counts.acked),
    ]
}

pub fn of_connection(report: &ConnectionReport) -> Numbers {
    vec![("recv_oct", report.received_bytes), ("send_oct", report.sent_bytes)]
}

/// How many messages were published to an exchange, and to how many queues those went.
pub fn of_exchange((came_in, went_out): (u64, u64)) -> Numbers {
    vec![("publish_in", came_in), ("publish_out", went_out)]
}

/// A number of the broker's metrics, over all shards.
pub fn sum(state: &State, number: impl Fn(&BrokerMetrics) -> u64) -> u64 {
    state.metrics().map_or(0, |metrics| metrics.shards().map(|(_, of)| of.broker.get(&number)).sum())
}

pub fn of_node(state: &State) -> Numbers {
    let held = |place| {
        state.metrics().map_or(0, |metrics| {
            metrics.shards().map(|(_, of)| of.engine.get(|shard| shard.queue_messages.at(place).get())).sum()
        })
    };
    let (ready, unacked): (u64, u64) = (held(0), held(1));
    vec![
        ("messages", ready + unacked),
        ("messages_ready", ready),
        ("messages_unacknowledged", unacked),
        ("publish", sum(state, |broker| broker.amqp_published.get())),
        ("confirm", sum(state, |broker| broker.amqp_messages_confirmed.get())),
        ("return_unroutable", sum(state, |broker| broker.amqp_returned.get())),
        ("drop_unroutable", sum(state, |broker| broker.amqp_dropped.get())),
        ("deliver", sum(state, |broker| broker.amqp_delivered_to_ack.get())),
        ("deliver_no_ack", sum(state, |broker| broker.amqp_delivered_no_ack.get())),
        ("get", sum(state, |broker| broker.amqp_got_to_ack.get())),
        ("get_no_ack", sum(state, |broker| broker.amqp_got_no_ack.get())),
        ("get_empty", sum(state, |broker| broker.amqp_got_empty.get())),
        ("deliver_get", sum(state, |broker| broker.amqp_delivered.get())),
        ("redeliver", sum(state, |broker| broker.amqp_redelivered.get())),
        ("ack", sum(state, |broker| broker.amqp_acked.get())),
        ("connection_created", sum(state, |broker| broker.amqp_connections_opened.get())),
        ("connection_closed", sum(state, |broker| broker.amqp_connections_closed.get())),
        ("channel_created", sum(state, |broker| broker.amqp_channels_opened.get())),
        ("channel_closed", sum(state, |broker| broker.amqp_channels_closed.get())),
    ]
}

fn is_length(name: &str) -> bool {
    LENGTHS.contains(&name)
}

fn is_churn(name: &str) -> bool {
    CHURN.contains(&name)
}

impl Asked<'_> {
    /// Puts some numbers of a subject into an object, with their rates.
    fn tell(
        self,
        object: &mut Map<String, Value>,
        subject: &Subject,
        numbers: &Numbers,
        span: &str,
        which: impl Fn(&str) -> bool,
    ) {
        let now_ms = self.now_ms;
        let mut samples = self.api.samples();
        samples.asked(subject, now_ms, numbers);
        samples.tell(object, subject, numbers, (now_ms, Span::read(self.query, span)), which);
    }

    /// The object `message_stats`; as with RabbitMQ there is none where nothing has happened.
    fn message_stats(
        self,
        object: &mut Map<String, Value>,
        subject: &Subject,
        numbers: &Numbers,
        which: impl Fn(&str) -> bool,
    ) {
        let mut stats = Map::new();
        self.tell(&mut stats, subject, numbers, "msg_rates", &which);
        if numbers.iter().any(|(name, number)| which(name) && *number > 0) {
            object.insert("message_stats".to_owned(), Value::Object(stats));
        }
    }

    pub(super) fn queue_numbers(self, object: &mut Map<String, Value>, queue: QueueId, stats: &QueueStats) {
        let (subject, numbers) = (Subject::Queue(queue), of_queue(stats));
        self.tell(object, &subject, &numbers, "lengths", is_length);
        self.message_stats(object, &subject, &numbers, |name| !is_length(name));
    }

    pub(super) fn connection_numbers(self, object: &mut Map<String, Value>, report: &ConnectionReport) {
        let subject = Subject::Connection(name(report));
        self.tell(object, &subject, &of_connection(report), "data_rates", |_| true);
    }

    pub(super) fn channel_numbers(
        self,
        object: &mut Map<String, Value>,
        report: &ConnectionReport,
        channel: &ChannelReport,
    ) {
        let subject = Subject::Channel(channel_name(report, channel));
        self.message_stats(object, &subject, &of_channel(channel), |_| true);
    }

    pub(super) fn exchange_numbers(
        self,
        object: &mut Map<String, Value>,
        (vhost, name): (&[u8], &[u8]),
        counts: (u64, u64),
    ) {
        let subject = Subject::Exchange(vhost.to_vec(), name.to_vec());
        self.message_stats(object, &subject, &of_exchange(counts), |_| true);
    }

    pub(super) fn node_numbers(self, object: &mut Map<String, Value>, state: &State) {
        let numbers = of_node(state);
        self.message_stats(object, &Subject::Node, &numbers, |name| !is_churn(name) && !is_length(name));
        let mut lengths = Map::new();
        self.tell(&mut lengths, &Subject::Node, &numbers, "lengths", is_length);
        if let Some(totals) = object.get_mut("queue_totals").and_then(Value::as_object_mut) {
            // The lengths themselves are there, of this moment and of what the user may see.
            totals.extend(lengths.into_iter().filter(|(name, _)| !is_length(name)));
        }
        let mut churn = Map::new();
        self.tell(&mut churn, &Subject::Node, &numbers, "data_rates", is_churn);
        object.insert("churn_rates".to_owned(), Value::Object(churn));
    }
}

impl Api {
    /// Looks again at what somebody has asked about.
    pub async fn sample(&self, state: &State) -> Result<(), Problem> {
        let (mut queues, mut connections, mut exchanges) = (Vec::new(), false, false);
        for subject in self.samples().subjects() {
            match subject {
                Subject::Node => {}
                Subject::Queue(queue) => queues.push(*queue),
                Subject::Exchange(..) => exchanges = true,
                Subject::Connection(_) | Subject::Channel(_) => connections = true,
            }
        }
        if self.samples().subjects().next().is_none() {
            return Ok(());
        }
        self.node.refresh().await?;
        let now_ms = self.node.now().0;
        self.samples().note(&Subject::Node, now_ms, &of_node(state));
        for some in queues.chunks(MANAGEMENT_ASKED_MAX) {
            let places: Vec<(ShardId, QueueId)> = self.look(|topology| {
                let place = |id: &QueueId| topology.queue(*id).map(|(_, queue)| (queue.shard, queue.id));
                some.iter().filter_map(place).collect()
            });
            for (queue, stats) in self.node.stats(&places).await? {
                self.samples().note(&Subject::Queue(queue), now_ms, &of_queue(&stats));
            }
        }
        if exchanges {
            for ((vhost, name), counts) in self.exchanges().await? {
                self.samples().note(&Subject::Exchange(vhost, name), now_ms, &of_exchange(counts));
            }
        }
        if connections {
            self.sample_connections(now_ms).await?;
        }
        self.samples().forget(now_ms);
        Ok(())
    }

    async fn sample_connections(&self, now_ms: i64) -> Result<(), Problem> {
        for shard in self.node.shards() {
            let mut wanted = ConnectionsWanted::default();
            loop {
                let found = self.node.connections(shard, wanted).await?;
                for report in &found.reports {
                    let mut samples = self.samples();
                    samples.note(&Subject::Connection(name(report)), now_ms, &of_connection(report));
                    for channel in &report.channels {
                        let subject = Subject::Channel(channel_name(report, channel));
                        samples.note(&subject, now_ms, &of_channel(channel));
                    }
                }
                match found.next {
                    Some(next) => wanted.after = Some(next),
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// What was published to exchanges, on all shards, since the node has started.
    pub async fn exchanges(&self) -> Result<BTreeMap<(Vec<u8>, Vec<u8>), (u64, u64)>, Problem> {
        let mut all: BTreeMap<(Vec<u8>, Vec<u8>), (u64, u64)> = BTreeMap::new();
        for shard in self.node.shards() {
            for (exchange, (came_in, went_out)) in self.node.exchanges(shard).await? {
                let sum = all.entry(exchange).or_default();
                *sum = (sum.0 + came_in, sum.1 + went_out);
            }
        }
        Ok(all)
    }
}
