//! Queues: listed, declared, deleted, purged.

use millstream_engine::shard::message::QueueStats;
use millstream_engine::shard::request::Request;
use millstream_engine::types::{QueueId, ShardId};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use super::api::{Answer, Asked, Source};
use super::json::{self, raw_table, short, text};
use super::overview::NODE_NAME;
use super::problem::Problem;
use crate::amqp::operations::{DeclareQueue, DeleteQueue, Operation};
use crate::amqp::topology::entries::QueueValue;
use crate::amqp::topology::users::Access;
use crate::amqp::topology::{Queue, Vhost};

/// What RabbitMQ tells of a queue, as far as it is so here.
fn value(asked: Asked<'_>, vhost: &Vhost, queue: &Queue, stats: Option<&QueueStats>) -> Value {
    let mut value = Map::new();
    let mut set = |name: &str, field: Value| drop(value.insert(name.to_owned(), field));
    let policies = vhost.queue_policies(queue);
    set("name", text(&queue.name));
    set("vhost", text(&vhost.name));
    set("durable", json!(queue.value.durable));
    set("auto_delete", json!(queue.value.auto_delete));
    set("exclusive", json!(queue.value.owner.is_some()));
    set("arguments", json::table(queue.arguments()));
    set("type", json!(if queue.wishes.quorum { "quorum" } else { "classic" }));
    set("node", json!(NODE_NAME));
    set("state", json!("running"));
    set("policy", policies.policy.map_or(Value::Null, text));
    set("operator_policy", policies.operator_policy.map_or(Value::Null, text));
    set("effective_policy_definition", raw_table(&policies.definition));
    set("exclusive_consumer_tag", Value::Null);
    if queue.wishes.quorum {
        for (name, field) in
            [("leader", json!(NODE_NAME)), ("members", json!([NODE_NAME])), ("online", json!([NODE_NAME]))]
        {
            set(name, field);
        }
    }
    if let Some(stats) = stats {
        let bytes = stats.ready_bytes + stats.unacked_bytes;
        for (name, number) in [
            ("messages_persistent", stats.persistent),
            ("messages_dead_lettering", stats.leaving),
            ("message_bytes", bytes),
            ("message_bytes_ready", stats.ready_bytes),
            ("message_bytes_unacknowledged", stats.unacked_bytes),
            ("consumers", u64::from(stats.consumers)),
        ] {
            set(name, json!(number));
        }
        asked.queue_numbers(&mut value, queue.id, stats);
    }
    Value::Object(value)
}

struct Queues<'a>(Asked<'a>);

impl Source for Queues<'_> {
    /// Vhost and name.
    type Key = (Vec<u8>, Vec<u8>);

    fn name<'k>(&self, key: &'k Self::Key) -> &'k [u8] {
        &key.1
    }

    async fn values(&self, keys: &[Self::Key]) -> Result<Vec<Value>, Problem> {
        let Queues(asked) = self;
        let places: Vec<(ShardId, QueueId)> = asked.look(|topology| {
            let queue = |(vhost, name): &Self::Key| topology.vhost(vhost)?.queue(name);
            keys.iter().filter_map(queue).map(|queue| (queue.shard, queue.id)).collect()
        });
        let stats: BTreeMap<QueueId, QueueStats> = asked.api.node.stats(&places).await?.into_iter().collect();
        Ok(asked.look(|topology| {
            let value = |(vhost, name): &Self::Key| {
                let vhost = topology.vhost(vhost)?;
                let queue = vhost.queue(name)?;
                Some(value(*asked, vhost, queue, stats.get(&queue.id)))
            };
            keys.iter().filter_map(value).collect()
        }))
    }
}

/// Vhosts and names of the queues of some vhosts.
pub fn names(asked: Asked<'_>, vhosts: &[Vec<u8>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    asked.look(|topology| {
        let vhosts = vhosts.iter().filter_map(|name| topology.vhost(name));
        let queues =
            vhosts.flat_map(|vhost| vhost.queues().map(|queue| (vhost.name.clone(), queue.name.clone())));
        queues.collect()
    })
}

pub async fn list(asked: Asked<'_>, vhost: Option<&[u8]>) -> Result<Answer, Problem> {
    let vhosts = asked.vhosts(vhost)?;
    super::api::list(asked.query, Queues(asked), names(asked, &vhosts)).await
}

pub async fn get(asked: Asked<'_>, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    asked.look(|topology| asked.session.view(topology, vhost).map(|_| ()))?;
    let key = (vhost.to_vec(), name.to_vec());
    let mut value =
        Queues(asked).values(std::slice::from_ref(&key)).await?.pop().ok_or_else(Problem::no_object)?;
    let consumers = super::connections::consumers_of_queue(asked, vhost, name).await?;
    if let Some(object) = value.as_object_mut() {
        object.insert("consumer_details".to_owned(), Value::Array(consumers));
    }
    Ok(Answer::Value(value))
}

pub async fn put(asked: Asked<'_>, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    let fields = asked.fields();
    let name = short(name)?;
    let arguments = fields.table("arguments")?;
    let value = QueueValue {
        durable: fields.flag("durable", false)?,
        auto_delete: fields.flag("auto_delete", false)?,
        owner: None,
        arguments,
    };
    let is_new = asked.look(|topology| {
        let vhost = asked.session.enter(topology, vhost)?;
        asked.session.check(vhost, Access::Configure, "queue", name)?;
        let made = ("queue", name);
        asked.session.check_passing_on(vhost, made, &value.arguments, b"x-dead-letter-exchange")?;
        Ok(vhost.queue(name).is_none())
    })?;
    let declare = DeclareQueue {
        name: name.to_vec(),
        generated: false,
        passive: false,
        exclusive: false,
        value,
        may_be_made: Ok(()),
    };
    asked.api.node.run(vhost, Operation::DeclareQueue(declare)).await?;
    Ok(if is_new { Answer::Created(None) } else { Answer::Done })
}

/// Refuses what the user may not do with a queue, and what is not there.
pub fn check(
    asked: Asked<'_>,
    vhost: &[u8],
    name: &[u8],
    access: Access,
) -> Result<(ShardId, QueueId), Problem> {
    asked.look(|topology| {
        let vhost = asked.session.enter(topology, vhost)?;
        let queue = vhost.queue(name).ok_or_else(Problem::no_object)?;
        asked.session.check(vhost, access, "queue", name)?;
        Ok((queue.shard, queue.id))
    })
}

pub async fn delete(asked: Asked<'_>, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    check(asked, vhost, name, Access::Configure)?;
    let (if_unused, if_empty) = (asked.query.is_set("if-unused"), asked.query.is_set("if-empty"));
    let delete = DeleteQueue::new(name.to_vec(), None, if_unused, if_empty);
    asked.api.node.run(vhost, Operation::DeleteQueue(delete)).await?;
    Ok(Answer::Done)
}

pub async fn purge(asked: Asked<'_>, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    let (shard, queue) = check(asked, vhost, name, Access::Read)?;
    let operation = Operation::Ask { queue: name.to_vec(), shard, request: Some(Request::Purge(queue)) };
    asked.api.node.run(vhost, operation).await?;
    Ok(Answer::Done)
}
