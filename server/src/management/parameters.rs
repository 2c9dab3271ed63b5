//! Parameters: what plugins of RabbitMQ keep in the broker. Nothing here reads them; they are kept and given back, so that definitions come
//! out as they went in. Policies show among the parameters of a definitions file, and nowhere else.

use millstream_engine::shard::change::{Edit, EntryKey, MetadataChange};
use millstream_engine::shard::metadata::Entry;
use serde_json::{Map, Value, json};

use super::api::{Answer, Asked, list_values};
use super::json::{short, text};
use super::node::entries;
use super::problem::Problem;
use crate::amqp::topology::entries::{GLOBAL_PARAMETER, PARAMETER, key, names};
use crate::limits::HTTP_BODY_BYTES_MAX;

/// The component whose parameters are the limits of vhosts, and what they are called there.
const LIMITS: &[u8] = b"vhost-limits";
const LIMITS_NAME: &[u8] = b"limits";

/// A parameter, from its entry.
pub fn value(key: &EntryKey, entry: &Entry) -> Option<Value> {
    let [vhost, component, name] = names(&key.key).ok()?;
    let kept: Value = serde_json::from_slice(&entry.value).ok()?;
    Some(json!({"vhost": text(&vhost), "component": text(&component), "name": text(&name), "value": kept}))
}

/// A parameter of the node as a whole, from its entry.
pub fn global_value(key: &EntryKey, entry: &Entry) -> Option<Value> {
    let [name] = names(&key.key).ok()?;
    let kept: Value = serde_json::from_slice(&entry.value).ok()?;
    Some(json!({"name": text(&name), "value": kept}))
}

/// The key of a parameter. Its vhost comes first, so that it goes with that.
pub fn parameter_key(component: &[u8], vhost: &[u8], name: &[u8]) -> EntryKey {
    key(PARAMETER, &[vhost, component, name])
}

/// A value as it is kept.
pub fn kept(value: &Value) -> Result<Vec<u8>, Problem> {
    let text = value.to_string().into_bytes();
    if text.len() > millstream_engine::limits::ENTRY_VALUE_BYTES_MAX {
        return Err(Problem::too_large(
            HTTP_BODY_BYTES_MAX.min(millstream_engine::limits::ENTRY_VALUE_BYTES_MAX),
        ));
    }
    Ok(text)
}

pub async fn list(
    asked: Asked<'_>,
    component: Option<&[u8]>,
    vhost: Option<&[u8]>,
) -> Result<Answer, Problem> {
    let vhosts = asked.vhosts(vhost)?;
    let values = asked.api.node.look_deep(|_, metadata| {
        let wanted = entries(metadata, PARAMETER).filter(|(key, _)| {
            names::<3>(&key.key).is_ok_and(|[vhost, of, _]| {
                vhosts.contains(&vhost) && component.is_none_or(|component| component == of)
            })
        });
        wanted.filter_map(|(key, entry)| value(key, entry)).collect()
    });
    list_values(asked.query, values).await
}

fn find(
    asked: Asked<'_>,
    key: &EntryKey,
    value: fn(&EntryKey, &Entry) -> Option<Value>,
) -> Result<Value, Problem> {
    let found = asked.api.node.look_deep(|_, metadata| value(key, metadata.entry(key)?));
    found.ok_or_else(Problem::no_object)
}

async fn set(asked: Asked<'_>, key: EntryKey, value: Vec<u8>) -> Result<Answer, Problem> {
    let is_new = asked.api.node.look_deep(|_, metadata| metadata.entry(&key).is_none());
    let set = Edit::SetEntry { key, value, transient: false };
    asked.api.node.change(MetadataChange { guards: Vec::new(), edits: vec![set] }).await?;
    Ok(if is_new { Answer::Created(None) } else { Answer::Done })
}

async fn remove(asked: Asked<'_>, key: EntryKey) -> Result<Answer, Problem> {
    asked
        .api
        .node
        .look_deep(|_, metadata| metadata.entry(&key).map(|_| ()).ok_or_else(Problem::no_object))?;
    let remove = Edit::RemoveEntry(key);
    asked.api.node.change(MetadataChange { guards: Vec::new(), edits: vec![remove] }).await?;
    Ok(Answer::Done)
}

fn sent(asked: Asked<'_>) -> Result<Vec<u8>, Problem> {
    kept(asked.fields().get("value").ok_or_else(|| Problem::missing("value"))?)
}

pub fn get(asked: Asked<'_>, component: &[u8], vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    asked.look(|topology| asked.session.view(topology, vhost).map(|_| ()))?;
    find(asked, &parameter_key(component, vhost, name), value).map(Answer::Value)
}

pub async fn put(asked: Asked<'_>, component: &[u8], vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    asked.look(|topology| asked.session.enter(topology, vhost).map(|_| ()))?;
    let value = sent(asked)?;
    set(asked, parameter_key(short(component)?, vhost, short(name)?), value).await
}

pub async fn delete(
    asked: Asked<'_>,
    component: &[u8],
    vhost: &[u8],
    name: &[u8],
) -> Result<Answer, Problem> {
    asked.look(|topology| asked.session.enter(topology, vhost).map(|_| ()))?;
    remove(asked, parameter_key(component, vhost, name)).await
}

pub async fn list_global(asked: Asked<'_>) -> Result<Answer, Problem> {
    let values = asked.api.node.look_deep(|_, metadata| {
        entries(metadata, GLOBAL_PARAMETER).filter_map(|(key, entry)| global_value(key, entry)).collect()
    });
    list_values(asked.query, values).await
}

pub fn get_global(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    find(asked, &key(GLOBAL_PARAMETER, &[name]), global_value).map(Answer::Value)
}

pub async fn put_global(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    let value = sent(asked)?;
    set(asked, key(GLOBAL_PARAMETER, &[short(name)?]), value).await
}

pub async fn delete_global(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    remove(asked, key(GLOBAL_PARAMETER, &[name])).await
}

/// The limits of a vhost. They are kept, and do not limit anything yet.
fn limits(asked: Asked<'_>, vhost: &[u8]) -> Map<String, Value> {
    let kept = find(asked, &parameter_key(LIMITS, vhost, LIMITS_NAME), value).ok();
    kept.and_then(|kept| kept.get("value")?.as_object().cloned()).unwrap_or_default()
}

pub async fn list_limits(asked: Asked<'_>, vhost: Option<&[u8]>) -> Result<Answer, Problem> {
    let vhosts = asked.vhosts(vhost)?;
    let all =
        vhosts.iter().map(|vhost| (vhost, limits(asked, vhost))).filter(|(_, limits)| !limits.is_empty());
    let values = all.map(|(vhost, limits)| json!({"vhost": text(vhost), "value": limits})).collect();
    list_values(asked.query, values).await
}

pub async fn set_limit(asked: Asked<'_>, vhost: &[u8], name: &[u8], puts: bool) -> Result<Answer, Problem> {
    asked.look(|topology| {
        topology.vhost(vhost).map(|_| ()).ok_or_else(|| Problem::not_found("vhost_not_found"))
    })?;
    let mut limits = limits(asked, vhost);
    let name = String::from_utf8_lossy(name).into_owned();
    if puts {
        let known = ["max-connections", "max-queues"].contains(&&*name);
        let value = asked.fields().integer("value")?.ok_or_else(|| Problem::missing("value"))?;
        if !known {
            return Err(Problem::bad(format!("Unrecognised parameter {name}")));
        }
        limits.insert(name, json!(value));
    } else if limits.remove(&name).is_none() {
        return Err(Problem::no_object());
    }
    set(asked, parameter_key(LIMITS, vhost, LIMITS_NAME), kept(&Value::Object(limits))?).await?;
    Ok(Answer::Done)
}
