//! Vhosts: listed, made, deleted with all that is in them.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use millstream_engine::shard::change::{Edit, EntryKey, Guard, MetadataChange};
use millstream_engine::shard::message::QueueStats;
use millstream_engine::shard::metadata::Metadata;
use millstream_engine::types::{QueueId, ShardId};
use serde_json::{Value, json};

use super::api::{Answer, Asked, list_values};
use super::json::{short, text};
use super::node::Node;
use super::overview::NODE_NAME;
use super::problem::Problem;
use super::users::{read_tags, tags};
use crate::amqp::topology::Topology;
use crate::amqp::topology::entries::{
    BINDING, EXCHANGE, OPERATOR_POLICY, PARAMETER, PERMISSION, POLICY, QUEUE, TOPIC_PERMISSION, VHOST,
    VhostValue, key,
};
use crate::limits::{AMQP_OPERATION_TRIES_MAX, DEFINITIONS_EDITS_AT_ONCE};

/// What is in a vhost: what keys of these sorts begin with is its name.
const CONTENT: [u16; 8] =
    [BINDING, QUEUE, EXCHANGE, POLICY, OPERATOR_POLICY, PARAMETER, TOPIC_PERMISSION, PERMISSION];

/// What is kept of a vhost.
pub fn kept(metadata: &Metadata, name: &[u8]) -> Option<VhostValue> {
    VhostValue::read(&metadata.entry(&key(VHOST, &[name]))?.value).ok()
}

fn value(name: &[u8], vhost: &VhostValue, totals: Option<(u64, u64)>) -> Value {
    let queue_type =
        if vhost.default_queue_type.is_empty() { b"undefined" } else { &vhost.default_queue_type[..] };
    let mut value = json!({
        "name": text(name),
        "description": text(&vhost.description),
        "tags": tags(&vhost.tags),
        "default_queue_type": text(queue_type),
        "metadata": {"description": text(&vhost.description), "tags": tags(&vhost.tags)},
        "tracing": false,
        "cluster_state": {NODE_NAME: "running"},
    });
    if let (Some((ready, unacked)), Some(object)) = (totals, value.as_object_mut()) {
        object.insert("messages".to_owned(), json!(ready + unacked));
        object.insert("messages_ready".to_owned(), json!(ready));
        object.insert("messages_unacknowledged".to_owned(), json!(unacked));
    }
    value
}

/// Ready and unacked messages of vhosts.
pub async fn totals(asked: Asked<'_>, vhosts: &[Vec<u8>]) -> Result<BTreeMap<Vec<u8>, (u64, u64)>, Problem> {
    let mut totals = BTreeMap::new();
    for name in vhosts {
        let places: Vec<(ShardId, QueueId)> = asked.look(|topology| {
            topology
                .vhost(name)
                .map_or_else(Vec::new, |vhost| vhost.queues().map(|queue| (queue.shard, queue.id)).collect())
        });
        let stats: Vec<(QueueId, QueueStats)> = asked.api.node.stats(&places).await?;
        let sum = |number: fn(&QueueStats) -> u64| stats.iter().map(|(_, stats)| number(stats)).sum();
        totals.insert(name.clone(), (sum(|stats| stats.ready), sum(|stats| stats.unacked)));
    }
    Ok(totals)
}

pub async fn list(asked: Asked<'_>) -> Result<Answer, Problem> {
    let vhosts = asked.vhosts(None)?;
    let totals = totals(asked, &vhosts).await?;
    let values = asked.api.node.look_deep(|_, metadata| {
        let value = |name: &Vec<u8>| Some(value(name, &kept(metadata, name)?, totals.get(name).copied()));
        vhosts.iter().filter_map(value).collect()
    });
    list_values(asked.query, values).await
}

pub async fn get(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    asked.look(|topology| {
        let vhost = topology.vhost(name).ok_or_else(Problem::no_object)?;
        asked.session.view(topology, &vhost.name).map(|_| ())
    })?;
    let totals = totals(asked, &[name.to_vec()]).await?;
    let kept = asked.api.node.look_deep(|_, metadata| kept(metadata, name)).ok_or_else(Problem::no_object)?;
    Ok(Answer::Value(value(name, &kept, totals.get(name).copied())))
}

/// A vhost from the fields of an object; what is not said stays as it was.
pub fn read(fields: super::json::Fields<'_>, old: VhostValue) -> Result<VhostValue, Problem> {
    let metadata = fields.get("metadata").and_then(Value::as_object);
    let metadata = metadata.map(super::json::Fields);
    let text = |name: &str| -> Result<Option<Vec<u8>>, Problem> {
        let own = fields.text(name)?;
        let inner = metadata.map_or(Ok(None), |metadata| metadata.text(name))?;
        Ok(own.or(inner).map(|text| text.as_bytes().to_vec()))
    };
    let tags = fields.get("tags").or_else(|| metadata?.get("tags"));
    let queue_type = text("default_queue_type")?.filter(|name| name != b"undefined");
    Ok(VhostValue {
        description: text("description")?.unwrap_or(old.description),
        tags: tags.map_or(Ok(old.tags), read_tags)?,
        default_queue_type: queue_type.unwrap_or(old.default_queue_type),
    })
}

pub async fn put(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    let name = short(name)?;
    if name.is_empty() {
        return Err(Problem::bad("a vhost has a name"));
    }
    let node = &asked.api.node;
    let (old, left_over) = node.look_deep(|_, metadata| {
        let old = kept(metadata, name);
        let left_over =
            if old.is_none() { removals(metadata, name, &CONTENT, usize::MAX) } else { Vec::new() };
        (old, left_over)
    });
    let is_new = old.is_none();
    if is_new {
        asked.look(Topology::check_vhosts).map_err(|failure| Problem::failed(&failure))?;
    }
    let value = read(asked.fields(), old.unwrap_or_default())?;
    // Nothing of one that was deleted comes back with its name.
    let mut edits = left_over;
    edits.push(Edit::SetEntry { key: key(VHOST, &[name]), value: value.write(), transient: false });
    if is_new {
        let all: [&[u8]; 3] = [b".*"; 3];
        let permission = crate::amqp::topology::entries::patterns(&all);
        edits.push(Edit::SetEntry {
            key: key(PERMISSION, &[name, &asked.session.user]),
            value: permission,
            transient: false,
        });
    }
    node.change(MetadataChange { guards: Vec::new(), edits }).await?;
    Ok(if is_new { Answer::Created(None) } else { Answer::Done })
}

/// Edits that remove what is in a vhost of these sorts, so many of them at most, and one more.
fn removals(metadata: &Metadata, vhost: &[u8], kinds: &[u16], most: usize) -> Vec<Edit> {
    let mut edits = Vec::new();
    for &kind in kinds {
        let first = key(kind, &[vhost]);
        let entries = metadata.entries.range(first.clone()..);
        for (key, _) in entries.take_while(|(key, _)| key.kind == kind && key.key.starts_with(&first.key)) {
            if edits.len() >= most {
                return edits;
            }
            edits.extend(removal(metadata, key));
        }
    }
    edits
}

fn removal(metadata: &Metadata, key: &EntryKey) -> impl Iterator<Item = Edit> {
    let queue = metadata.queue_named(&key.key).filter(|_| key.kind == QUEUE);
    queue.map(|queue| Edit::DeleteQueue(queue.id)).into_iter().chain([Edit::RemoveEntry(key.clone())])
}

/// Removes what is in a vhost of some sorts, as often as others put something there meanwhile.
async fn remove_all(node: &Node, name: &[u8], kinds: &[u16]) -> Result<(), Problem> {
    loop {
        let edits = node.look_deep(|_, metadata| removals(metadata, name, kinds, DEFINITIONS_EDITS_AT_ONCE));
        if edits.is_empty() {
            return Ok(());
        }
        match node.change(MetadataChange { guards: Vec::new(), edits }).await {
            // What others delete at the same time is gone already: look again.
            Err(problem) if problem.status == StatusCode::NOT_FOUND => {
                node.refresh().await?;
                tokio::task::yield_now().await;
            }
            other => drop(other?),
        }
    }
}

pub async fn delete(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    asked.look(|topology| topology.vhost(name).map(|_| ()).ok_or_else(Problem::no_object))?;
    let node = &asked.api.node;
    // From here on nobody new comes in.
    remove_all(node, name, &[PERMISSION]).await?;
    super::connections::close_all(asked, |report| report.vhost == *name, "vhost was deleted").await?;
    // Whatever was on its way into the vhost is there before it goes, and then goes first, or finds it gone.
    for _ in 0..AMQP_OPERATION_TRIES_MAX {
        remove_all(node, name, &CONTENT).await?;
        let guards = CONTENT.iter().map(|kind| Guard::NoneUnder(key(*kind, &[name]))).collect();
        let edits = vec![Edit::RemoveEntry(key(VHOST, &[name]))];
        if node.change(MetadataChange { guards, edits }).await? {
            return Ok(Answer::Done);
        }
    }
    Err(Problem::unavailable("others keep putting things into this vhost"))
}
