//! Parameters: what plugins of RabbitMQ keep in the broker. They are kept and given back, so that definitions come
//! out as they went in; nothing but the limits of vhosts (`limits.rs`) means anything here. Policies show among the parameters of a definitions file, and nowhere else.

use millstream_engine::shard::change::{Edit, EntryKey, Guard, MetadataChange};
use millstream_engine::shard::metadata::Entry;
use serde_json::{Value, json};

use super::api::{Answer, Asked, list_values};
use super::json::{short, text};
use super::node::entries;
use super::problem::Problem;
use crate::amqp::topology::entries::{GLOBAL_PARAMETER, PARAMETER, key, names, vhost_exists};
use crate::limits::HTTP_BODY_BYTES_MAX;

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

/// Sets an entry, if what has to be there still is. Says whether it is new.
pub async fn set(
    asked: Asked<'_>,
    guard: Option<Guard>,
    key: EntryKey,
    value: Vec<u8>,
) -> Result<Answer, Problem> {
    let is_new = asked.api.node.look_deep(|_, metadata| metadata.entry(&key).is_none());
    let set = Edit::SetEntry { key, value, transient: false };
    let change = MetadataChange { guards: guard.into_iter().collect(), edits: vec![set] };
    if !asked.api.node.change(change).await? {
        return Err(Problem::no_object());
    }
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
    let key = parameter_key(short(component)?, vhost, short(name)?);
    set(asked, Some(vhost_exists(vhost)), key, value).await
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
    set(asked, None, key(GLOBAL_PARAMETER, &[short(name)?]), value).await
}

pub async fn delete_global(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    remove(asked, key(GLOBAL_PARAMETER, &[name])).await
}
