//! The node as a whole.

use millstream_engine::io::process::usage;
use serde_json::{Value, json};

use super::api::{Answer, Asked};
use super::json::text;
use super::problem::Problem;
use super::session::Role;
use super::stats::sum;
use crate::admin::State;

/// What the node is called where RabbitMQ has the name of an Erlang node.
pub const NODE_NAME: &str = "millstream@localhost";
/// What the cluster is called that it alone is.
pub const CLUSTER_NAME: &str = "millstream";
/// The types of exchanges.
const EXCHANGE_TYPES: [(&str, &str); 5] = [
    ("direct", "AMQP direct exchange, as per the AMQP specification"),
    ("fanout", "AMQP fanout exchange, as per the AMQP specification"),
    ("headers", "AMQP headers exchange, as per the AMQP specification"),
    ("topic", "AMQP topic exchange, as per the AMQP specification"),
    ("x-consistent-hash", "Consistent Hashing Exchange"),
];

fn named(name: &str, description: &str) -> Value {
    json!({"name": name, "description": description, "enabled": true})
}

fn listeners(asked: Asked<'_>) -> Value {
    let listener = |(protocol, address): &(&str, std::net::SocketAddr)| {
        let ip = address.ip().to_string();
        json!({"node": NODE_NAME, "protocol": protocol, "ip_address": ip, "port": address.port(), "socket_opts": []})
    };
    asked.api.about.listeners.iter().map(listener).collect()
}

pub async fn overview(asked: Asked<'_>, state: &State) -> Result<Answer, Problem> {
    let vhosts = asked.vhosts(None)?;
    let totals = super::vhosts::totals(asked, &vhosts).await?;
    let (ready, unacked) =
        totals.values().fold((0, 0), |(ready, unacked), (more, others)| (ready + more, unacked + others));
    let (exchanges, queues) = asked.look(|topology| {
        let seen = || topology.vhosts().filter(|vhost| asked.session.sees(vhost));
        let exchanges: usize = seen().map(|vhost| vhost.exchanges().count() + 1).sum();
        (exchanges, seen().map(|vhost| vhost.queues().count()).sum::<usize>())
    });
    let about = &asked.api.about;
    let mut value = json!({
        "management_version": about.version,
        "rabbitmq_version": about.version,
        "product_name": about.product,
        "product_version": about.version,
        "erlang_version": "none",
        "erlang_full_version": "none: this is not Erlang",
        "cluster_name": CLUSTER_NAME,
        "node": NODE_NAME,
        "rates_mode": "basic",
        "sample_retention_policies": {"global": [600], "basic": [600], "detailed": [600]},
        "exchange_types": EXCHANGE_TYPES.map(|(name, description)| named(name, description)),
        "disable_stats": false,
        "enable_queue_totals": true,
        "statistics_db_event_queue": 0,
        "queue_totals": {
            "messages": ready + unacked, "messages_ready": ready, "messages_unacknowledged": unacked,
        },
        "object_totals": {
            "connections": sum(state, |broker| broker.amqp_connections.get()),
            "channels": sum(state, |broker| broker.amqp_channels.get()),
            "consumers": sum(state, |broker| broker.amqp_consumers.get()),
            "exchanges": exchanges,
            "queues": queues,
        },
    });
    if let Some(object) = value.as_object_mut()
        && asked.session.is(Role::Monitoring)
    {
        object.insert("listeners".to_owned(), listeners(asked));
        object.insert("contexts".to_owned(), contexts(asked));
        asked.node_numbers(object, state);
    }
    Ok(Answer::Value(value))
}

fn contexts(asked: Asked<'_>) -> Value {
    let http = asked.api.about.listeners.iter().filter(|(protocol, _)| *protocol == "http");
    let context = |(_, address): &(&str, std::net::SocketAddr)| {
        json!({
            "node": NODE_NAME, "description": "Millstream Management", "path": "/", "port": address.port().to_string(),
            "ip": address.ip().to_string(), "ssl": false, "protocol": "http",
        })
    };
    http.map(context).collect()
}

fn node_value(asked: Asked<'_>, state: &State) -> Value {
    let usage = usage();
    let disk_free = state.metrics().and_then(|metrics| {
        metrics.shards().next().map(|(_, of)| of.engine.get(|shard| shard.disk_free.get()))
    });
    let full = state.metrics().is_some_and(|metrics| {
        metrics.shards().any(|(_, of)| of.engine.get(|shard| shard.disk_full.get()) > 0)
    });
    json!({
        "name": NODE_NAME,
        "type": "disc",
        "running": true,
        "being_drained": false,
        "os_pid": std::process::id().to_string(),
        "uptime": usage.uptime.0 / 1_000_000,
        "processors": asked.api.node.shards().count(),
        "mem_used": usage.resident_bytes,
        "mem_alarm": false,
        "disk_free": disk_free.unwrap_or(0),
        "disk_free_alarm": full,
        "fd_used": usage.open_files,
        "fd_total": usage.open_files_max,
        "sockets_used": sum(state, |broker| broker.connections.get()),
        "proc_used": usage.threads,
        "run_queue": 0,
        "rates_mode": "basic",
        "partitions": [],
        "exchange_types": EXCHANGE_TYPES.map(|(name, description)| named(name, description)),
        "auth_mechanisms": [named("PLAIN", "SASL PLAIN authentication mechanism"), named("AMQPLAIN", "QPid AMQPLAIN mechanism")],
        "applications": [{"name": "millstream", "description": "Millstream", "version": env!("CARGO_PKG_VERSION")}],
        "contexts": contexts(asked),
        "log_files": [],
        "enabled_plugins": [],
    })
}

pub async fn nodes(asked: Asked<'_>, state: &State) -> Result<Answer, Problem> {
    super::api::list_values(asked.query, vec![node_value(asked, state)]).await
}

pub fn node(asked: Asked<'_>, name: &[u8], state: &State) -> Result<Answer, Problem> {
    if text(name) != NODE_NAME {
        return Err(Problem::no_object());
    }
    Ok(Answer::Value(node_value(asked, state)))
}
