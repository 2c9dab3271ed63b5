//! Connections, channels and consumers: what each shard tells of them, a piece at a time; and closing connections.

use millstream_engine::types::ShardId;
use serde_json::{Value, json};

use super::api::{Answer, Asked, list_values};
use super::call::ConnectionsWanted;
use super::json::{raw_table, text};
use super::overview::NODE_NAME;
use super::problem::Problem;
use super::session::Role;
use crate::amqp::report::{ChannelReport, ConnectionReport, ConsumerReport};

/// A connection's name: who connected, and to where.
pub fn name(report: &ConnectionReport) -> String {
    format!("{} -> {}", report.peer, report.local)
}

fn value(asked: Asked<'_>, report: &ConnectionReport) -> Value {
    let channels = report.channels.len();
    let mut value = json!({
        "name": name(report),
        "node": NODE_NAME,
        "type": "network",
        "protocol": "AMQP 0-9-1",
        "state": report.state,
        "user": text(&report.user),
        "user_who_performed_action": text(&report.user),
        "vhost": text(&report.vhost),
        "host": report.local.ip().to_string(),
        "port": report.local.port(),
        "peer_host": report.peer.ip().to_string(),
        "peer_port": report.peer.port(),
        "ssl": false,
        "auth_mechanism": text(&report.mechanism),
        "client_properties": raw_table(&report.client_properties),
        "channels": channels,
        "channel_max": report.channels_max,
        "frame_max": report.frame_bytes_max,
        "timeout": report.heartbeat_s,
        "connected_at": report.since.0,
    });
    if let Some(object) = value.as_object_mut() {
        asked.connection_numbers(object, report);
    }
    value
}

fn connection_details(report: &ConnectionReport) -> Value {
    json!({"name": name(report), "peer_host": report.peer.ip().to_string(), "peer_port": report.peer.port()})
}

/// A channel's name: its connection's, and its number.
pub fn channel_name(report: &ConnectionReport, channel: &ChannelReport) -> String {
    format!("{} ({})", name(report), channel.number)
}

fn channel_value(asked: Asked<'_>, report: &ConnectionReport, channel: &ChannelReport) -> Value {
    let mut value = json!({
        "name": channel_name(report, channel),
        "number": channel.number,
        "node": NODE_NAME,
        "state": report.state,
        "user": text(&report.user),
        "user_who_performed_action": text(&report.user),
        "vhost": text(&report.vhost),
        "connection_details": connection_details(report),
        "confirm": channel.confirms,
        "transactional": channel.is_transactional,
        "consumer_count": channel.consumer_count,
        "prefetch_count": channel.prefetch,
        "global_prefetch_count": channel.prefetch_all,
        "messages_unacknowledged": channel.unacked,
        "messages_unconfirmed": channel.unconfirmed,
        "messages_uncommitted": channel.uncommitted,
        "acks_uncommitted": 0,
    });
    if let Some(object) = value.as_object_mut() {
        asked.channel_numbers(object, report, channel);
    }
    value
}

fn consumer_value(report: &ConnectionReport, channel: &ChannelReport, consumer: &ConsumerReport) -> Value {
    let mut details = connection_details(report);
    if let Some(object) = details.as_object_mut() {
        object.insert("connection_name".to_owned(), json!(name(report)));
        object.insert("name".to_owned(), json!(channel_name(report, channel)));
        object.insert("node".to_owned(), json!(NODE_NAME));
        object.insert("number".to_owned(), json!(channel.number));
        object.insert("user".to_owned(), text(&report.user));
    }
    json!({
        "consumer_tag": text(&consumer.tag),
        "queue": {"name": text(&consumer.queue), "vhost": text(&report.vhost)},
        "channel_details": details,
        "ack_required": !consumer.no_ack,
        "exclusive": consumer.is_exclusive,
        "prefetch_count": consumer.prefetch,
        "arguments": raw_table(&consumer.arguments),
        "active": true,
        "activity_status": "up",
    })
}

/// Whether the user may see a connection: their own, those of everybody for monitors, those of their vhosts for policy makers.
fn sees(asked: Asked<'_>, report: &ConnectionReport) -> bool {
    asked.session.is(Role::Monitoring) || report.user == asked.session.user
}

/// Goes through all connections that the user may see.
async fn each(asked: Asked<'_>, mut take: impl FnMut(ShardId, ConnectionReport)) -> Result<(), Problem> {
    for shard in asked.api.node.shards() {
        let mut wanted = ConnectionsWanted::default();
        loop {
            let found = asked.api.node.connections(shard, wanted).await?;
            for report in found.reports {
                if sees(asked, &report) {
                    take(shard, report);
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

/// What is told of each connection that is wanted.
async fn collect(
    asked: Asked<'_>,
    vhost: Option<&[u8]>,
    user: Option<&[u8]>,
    mut tell: impl FnMut(&ConnectionReport, &mut Vec<Value>) + Send,
) -> Result<Vec<Value>, Problem> {
    if let Some(vhost) = vhost {
        asked.look(|topology| asked.session.view(topology, vhost).map(|_| ()))?;
    }
    let mut values = Vec::new();
    each(asked, |_, report| {
        let wanted =
            vhost.is_none_or(|vhost| report.vhost == vhost) && user.is_none_or(|user| report.user == user);
        if wanted {
            tell(&report, &mut values);
        }
    })
    .await?;
    Ok(values)
}

pub async fn list(asked: Asked<'_>, vhost: Option<&[u8]>, user: Option<&[u8]>) -> Result<Answer, Problem> {
    let values = collect(asked, vhost, user, |report, values| values.push(value(asked, report))).await?;
    list_values(asked.query, values).await
}

pub async fn channels(asked: Asked<'_>, vhost: Option<&[u8]>) -> Result<Answer, Problem> {
    let values = collect(asked, vhost, None, |report, values| {
        values.extend(report.channels.iter().map(|channel| channel_value(asked, report, channel)));
    })
    .await?;
    list_values(asked.query, values).await
}

fn consumer_values(report: &ConnectionReport, values: &mut Vec<Value>) {
    for channel in &report.channels {
        values.extend(channel.consumers.iter().map(|consumer| consumer_value(report, channel, consumer)));
    }
}

pub async fn consumers(asked: Asked<'_>, vhost: Option<&[u8]>) -> Result<Answer, Problem> {
    let values = collect(asked, vhost, None, consumer_values).await?;
    list_values(asked.query, values).await
}

/// The consumers of one queue.
pub async fn consumers_of_queue(asked: Asked<'_>, vhost: &[u8], queue: &[u8]) -> Result<Vec<Value>, Problem> {
    collect(asked, Some(vhost), None, |report, values| {
        for channel in &report.channels {
            let own = channel.consumers.iter().filter(|consumer| consumer.queue == queue);
            values.extend(own.map(|consumer| consumer_value(report, channel, consumer)));
        }
    })
    .await
}

/// The connection of that name.
async fn find(asked: Asked<'_>, wanted: &[u8]) -> Result<(ShardId, ConnectionReport), Problem> {
    let mut found = None;
    each(asked, |shard, report| {
        if name(&report).as_bytes() == wanted {
            found = Some((shard, report));
        }
    })
    .await?;
    found.ok_or_else(Problem::no_object)
}

pub async fn get(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    let (_, report) = find(asked, name).await?;
    Ok(Answer::Value(value(asked, &report)))
}

pub async fn channels_of(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    let (_, report) = find(asked, name).await?;
    let values = report.channels.iter().map(|channel| channel_value(asked, &report, channel)).collect();
    list_values(asked.query, values).await
}

pub async fn channel(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    let mut found = None;
    each(asked, |_, report| {
        let wanted = report.channels.iter().find(|channel| channel_name(&report, channel).as_bytes() == name);
        if let Some(channel) = wanted {
            let mut value = channel_value(asked, &report, channel);
            let own = channel.consumers.iter().map(|consumer| consumer_value(&report, channel, consumer));
            if let Some(object) = value.as_object_mut() {
                object.insert("consumer_details".to_owned(), own.collect());
            }
            found = Some(value);
        }
    })
    .await?;
    found.map(Answer::Value).ok_or_else(Problem::no_object)
}

pub async fn delete(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    let (shard, report) = find(asked, name).await?;
    let reason = "Closed via management plugin".to_owned();
    asked.api.node.close(shard, report.conn, reason).await?;
    Ok(Answer::Done)
}

pub async fn delete_of(asked: Asked<'_>, user: &[u8]) -> Result<Answer, Problem> {
    close_all(asked, |report| report.user == user, "Closed via management plugin").await?;
    Ok(Answer::Done)
}

/// Closes some connections, and says why.
pub async fn close_all(
    asked: Asked<'_>,
    which: impl Fn(&ConnectionReport) -> bool + Send,
    reason: &str,
) -> Result<(), Problem> {
    let mut found = Vec::new();
    each(asked, |shard, report| {
        if which(&report) {
            found.push((shard, report.conn));
        }
    })
    .await?;
    for (shard, conn) in found {
        asked.api.node.close(shard, conn, reason.to_owned()).await?;
    }
    Ok(())
}
