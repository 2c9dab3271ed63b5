//! Policies, and those that can only tighten: listed, set, removed. They hold at once, for what is there already, too.

use millstream_engine::shard::change::{Edit, MetadataChange};
use serde_json::{Map, Value, json};

use super::api::{Answer, Asked, list_values};
use super::json::{Fields, raw_table, short, text, to_table};
use super::problem::Problem;
use crate::amqp::codec::Table;
use crate::amqp::topology::arguments::Wishes;
use crate::amqp::topology::entries::{ApplyTo, OPERATOR_POLICY, POLICY, PolicyValue, key, vhost_exists};
use crate::auth::Pattern;

/// What a policy may say of queues that does something here.
const EFFECTIVE: &[&str] = &[
    "consumer-timeout",
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "delivery-limit",
    "expires",
    "max-length",
    "max-length-bytes",
    "message-ttl",
    "overflow",
];
/// What is taken without effect: it chooses among implementations that there are not here, or is for plugins.
const TAKEN: &[&str] = &[
    "alternate-exchange",
    "dead-letter-strategy",
    "federation-upstream",
    "federation-upstream-pattern",
    "federation-upstream-set",
    "ha-mode",
    "ha-params",
    "ha-promote-on-failure",
    "ha-promote-on-shutdown",
    "ha-sync-batch-size",
    "ha-sync-mode",
    "initial-cluster-size",
    "max-age",
    "max-in-memory-bytes",
    "max-in-memory-length",
    "queue-leader-locator",
    "queue-master-locator",
    "queue-mode",
    "queue-version",
    "stream-filter-size-bytes",
    "stream-max-segment-size-bytes",
    "target-group-size",
];
/// What those may say that can only tighten.
const OPERATORS: &[&str] = &[
    "consumer-timeout",
    "delivery-limit",
    "expires",
    "ha-mode",
    "ha-params",
    "ha-sync-mode",
    "max-in-memory-bytes",
    "max-in-memory-length",
    "max-length",
    "max-length-bytes",
    "message-ttl",
    "overflow",
    "queue-version",
    "target-group-size",
];

fn failed(what: &str) -> Problem {
    Problem::bad(format!("Validation failed\n\n{what}\n"))
}

/// The names of what a policy may be for.
fn apply_to_name(apply_to: ApplyTo) -> &'static str {
    match apply_to {
        ApplyTo::All => "all",
        ApplyTo::Queues => "queues",
        ApplyTo::ClassicQueues => "classic_queues",
        ApplyTo::QuorumQueues => "quorum_queues",
        ApplyTo::Exchanges => "exchanges",
    }
}

fn read_apply_to(name: &str, operator: bool) -> Result<ApplyTo, Problem> {
    Ok(match name {
        "all" if operator => ApplyTo::Queues,
        "all" => ApplyTo::All,
        "queues" => ApplyTo::Queues,
        "classic_queues" => ApplyTo::ClassicQueues,
        "quorum_queues" => ApplyTo::QuorumQueues,
        "exchanges" if !operator => ApplyTo::Exchanges,
        // It fits nothing here: there are no such queues.
        other => {
            return Err(failed(&format!(
                "apply-to '{other}' unrecognised; should be one of: 'queues', 'exchanges', 'classic_queues', 'quorum_queues' or 'all'"
            )));
        }
    })
}

/// Checks what a policy says, and gives it as it is kept.
fn read_definition(definition: &Map<String, Value>, operator: bool) -> Result<Vec<u8>, Problem> {
    if definition.is_empty() {
        return Err(failed("no policy provided"));
    }
    let known = |name: &str| {
        if operator { OPERATORS.contains(&name) } else { EFFECTIVE.contains(&name) || TAKEN.contains(&name) }
    };
    let unknown: Vec<String> = definition
        .iter()
        .filter(|(name, _)| !known(name))
        .map(|(name, value)| format!("{{<<\"{name}\">>,{value}}}"))
        .collect();
    if !unknown.is_empty() {
        return Err(failed(&format!("[{}] are not recognised policy settings", unknown.join(","))));
    }
    let raw = to_table(definition)?;
    let table = Table::from_raw(&raw).map_err(|_| failed("the definition is nested too deeply"))?;
    for (name, value) in table.iter() {
        if EFFECTIVE.iter().any(|effective| effective.as_bytes() == name)
            && let Err(wrong) = Wishes::check_policy_setting(name, value)
        {
            let name = String::from_utf8_lossy(name);
            return Err(failed(&format!("{} is not a valid value for {name}: {wrong}", definition[&*name])));
        }
    }
    Ok(raw)
}

/// A policy from the fields of an object.
pub fn read(fields: Fields<'_>, operator: bool) -> Result<PolicyValue, Problem> {
    let pattern = fields.needed_text("pattern")?;
    let definition = match fields.get("definition") {
        Some(Value::Object(definition)) => read_definition(definition, operator)?,
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(Value::Object(definition)) => read_definition(&definition, operator)?,
            _ => return Err(failed("the definition is no object")),
        },
        Some(_) => return Err(failed("the definition is no object")),
        None => return Err(Problem::missing("definition")),
    };
    if Pattern::checked(pattern.as_bytes()).is_none() {
        return Err(failed(&format!("pattern should be regular expression but is invalid: {pattern}")));
    }
    let priority = fields.integer("priority").map_err(|_| {
        failed(&format!("priority should be a number, actually was {}", fields.0["priority"]))
    })?;
    let priority = i32::try_from(priority.unwrap_or(0)).map_err(|_| failed("priority is too large"))?;
    let apply_to = fields.text("apply-to")?.unwrap_or(if operator { "queues" } else { "all" });
    let apply_to = read_apply_to(apply_to, operator)?;
    Ok(PolicyValue { pattern: pattern.as_bytes().to_vec(), apply_to, priority, definition })
}

/// What is told of a policy.
pub fn value(vhost: &[u8], name: &[u8], policy: &PolicyValue) -> Value {
    json!({
        "vhost": text(vhost),
        "name": text(name),
        "pattern": text(&policy.pattern),
        "apply-to": apply_to_name(policy.apply_to),
        "definition": raw_table(&policy.definition),
        "priority": policy.priority,
    })
}

pub async fn list(asked: Asked<'_>, operator: bool, vhost: Option<&[u8]>) -> Result<Answer, Problem> {
    let vhosts = asked.vhosts(vhost)?;
    let values = asked.look(|topology| {
        let vhosts = vhosts.iter().filter_map(|name| topology.vhost(name));
        let values = vhosts.flat_map(|vhost| {
            vhost
                .policies(operator)
                .map(|(name, policy)| value(&vhost.name, name, policy))
                .collect::<Vec<_>>()
        });
        values.collect()
    });
    list_values(asked.query, values).await
}

pub fn get(asked: Asked<'_>, operator: bool, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    asked.look(|topology| {
        let vhost = asked.session.view(topology, vhost)?;
        let policy = vhost.policy_named(operator, name).ok_or_else(Problem::no_object)?;
        Ok(Answer::Value(value(&vhost.name, name, policy)))
    })
}

/// The key of a policy.
pub fn policy_key(operator: bool, vhost: &[u8], name: &[u8]) -> millstream_engine::shard::change::EntryKey {
    key(if operator { OPERATOR_POLICY } else { POLICY }, &[vhost, name])
}

pub async fn put(asked: Asked<'_>, operator: bool, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    let name = short(name)?;
    let is_new = asked.look(|topology| {
        let vhost = asked.session.enter(topology, vhost)?;
        Ok(vhost.policy_named(operator, name).is_none())
    })?;
    let value = read(asked.fields(), operator)?.write();
    let set = Edit::SetEntry { key: policy_key(operator, vhost, name), value, transient: false };
    let guards = vec![vhost_exists(vhost)];
    if !asked.api.node.change(MetadataChange { guards, edits: vec![set] }).await? {
        return Err(Problem::no_object());
    }
    Ok(if is_new { Answer::Created(None) } else { Answer::Done })
}

pub async fn delete(asked: Asked<'_>, operator: bool, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    asked.look(|topology| {
        let vhost = asked.session.enter(topology, vhost)?;
        vhost.policy_named(operator, name).map(|_| ()).ok_or_else(Problem::no_object)
    })?;
    let remove = Edit::RemoveEntry(policy_key(operator, vhost, name));
    asked.api.node.change(MetadataChange { guards: Vec::new(), edits: vec![remove] }).await?;
    Ok(Answer::Done)
}
