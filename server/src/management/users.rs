//! Users, and what they may do in vhosts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use millstream_engine::shard::change::{Edit, EntryKey, Guard, MetadataChange};
use millstream_engine::shard::metadata::Metadata;
use serde_json::{Value, json};

use super::api::{Answer, Asked, list_values};
use super::json::{Fields, short, text};
use super::node::entries;
use super::problem::Problem;
use crate::amqp::topology::entries::{
    PERMISSION, TOPIC_PERMISSION, USER, USER_LIMITS, UserValue, key, names, patterns, read_patterns,
};
use crate::amqp::topology::limits::Limits;
use crate::auth::{Pattern, SHA256_HASH_BYTES, SHA512_HASH_BYTES, hash_password};

/// What RabbitMQ calls the ways to hash a password.
const SHA256: &str = "rabbit_password_hashing_sha256";
const SHA512: &str = "rabbit_password_hashing_sha512";

/// A user, with the hash of the password, as RabbitMQ shows it.
pub fn value(name: &[u8], user: &UserValue, limits: Option<&Limits>) -> Value {
    let algorithm = if user.password_hash.len() == SHA512_HASH_BYTES { SHA512 } else { SHA256 };
    json!({
        "name": text(name),
        "password_hash": STANDARD.encode(&user.password_hash),
        "hashing_algorithm": algorithm,
        "tags": tags(&user.tags),
        "limits": limits.map_or_else(|| json!({}), |limits| Value::Object(limits.0.clone())),
    })
}

/// Tags that are kept with commas between them, as a list.
pub fn tags(tags: &[u8]) -> Value {
    tags.split(|byte| *byte == b',').filter(|tag| !tag.is_empty()).map(text).collect()
}

/// Tags from a list, or from a text with commas.
pub fn read_tags(value: &Value) -> Result<Vec<u8>, Problem> {
    let tags: Option<Vec<&str>> = match value {
        Value::String(tags) => Some(tags.split(',').collect()),
        Value::Array(tags) => tags.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let tags = tags.ok_or_else(|| Problem::bad("tags are a list, or a text with commas"))?;
    let tags: Vec<&str> = tags.into_iter().map(str::trim).filter(|tag| !tag.is_empty()).collect();
    if tags.iter().any(|tag| tag.contains(',')) {
        return Err(Problem::bad("a tag has no comma"));
    }
    Ok(tags.join(",").into_bytes())
}

/// A hash, checked against the way it is said to have come about.
pub fn read_hash(hash: &str, algorithm: Option<&str>) -> Result<Vec<u8>, Problem> {
    let hash = STANDARD.decode(hash).map_err(|_| Problem::bad("the password's hash is no base64"))?;
    let fits = match algorithm {
        None => [0, SHA256_HASH_BYTES, SHA512_HASH_BYTES].contains(&hash.len()),
        Some(SHA256) => [0, SHA256_HASH_BYTES].contains(&hash.len()),
        Some(SHA512) => [0, SHA512_HASH_BYTES].contains(&hash.len()),
        Some(other) => {
            return Err(Problem::bad(format!(
                "passwords hashed by {other} cannot be taken over: only {SHA256} and {SHA512}"
            )));
        }
    };
    if fits {
        Ok(hash)
    } else {
        Err(Problem::bad("the password's hash has another length than its algorithm makes"))
    }
}

/// A user from the fields of an object. `salt` is for a password in plain.
pub fn read(fields: Fields<'_>, old: Option<&UserValue>, salt: [u8; 4]) -> Result<UserValue, Problem> {
    let hash = match (fields.text("password")?, fields.text("password_hash")?) {
        (Some(""), None) => Vec::new(),
        (Some(password), None) => hash_password(password.as_bytes(), salt),
        (_, Some(hash)) => read_hash(hash, fields.text("hashing_algorithm")?)?,
        (None, None) => old.map(|user| user.password_hash.clone()).unwrap_or_default(),
    };
    let tags = fields.get("tags").ok_or_else(|| Problem::bad("tags_not_present"))?;
    Ok(UserValue { password_hash: hash, tags: read_tags(tags)? })
}

pub fn whoami(asked: Asked<'_>) -> Answer {
    Answer::Value(json!({"name": text(&asked.session.user), "tags": asked.session.tags}))
}

fn salt(asked: Asked<'_>) -> [u8; 4] {
    let [a, b, c, d, ..] = asked.api.node.random().to_be_bytes();
    [a, b, c, d]
}

pub fn hash(asked: Asked<'_>, password: &[u8]) -> Answer {
    Answer::Value(json!({"ok": STANDARD.encode(hash_password(password, salt(asked)))}))
}

pub async fn list(asked: Asked<'_>, without_permissions: bool) -> Result<Answer, Problem> {
    let users = asked.look(|topology| {
        let users = topology.users().filter(|(name, _)| {
            !without_permissions || topology.vhosts().all(|vhost| vhost.permission(name).is_none())
        });
        users.map(|(name, user)| value(name, &user.value, topology.user_limits(name))).collect()
    });
    list_values(asked.query, users).await
}

pub fn get(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    asked.look(|topology| {
        let user = topology.user(name).ok_or_else(Problem::no_object)?;
        Ok(Answer::Value(value(name, &user.value, topology.user_limits(name))))
    })
}

pub async fn put(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    let name = short(name)?;
    let salt = salt(asked);
    let (value, is_new) = asked.look(|topology| {
        let old = topology.user(name).map(|user| &user.value);
        Ok((read(asked.fields(), old, salt)?, old.is_none()))
    })?;
    let set = Edit::SetEntry { key: key(USER, &[name]), value: value.write(), transient: false };
    asked.api.node.change(MetadataChange { guards: Vec::new(), edits: vec![set] }).await?;
    Ok(if is_new { Answer::Created(None) } else { Answer::Done })
}

/// The keys of what a user may do anywhere.
fn permission_keys(metadata: &Metadata, user: &[u8]) -> Vec<EntryKey> {
    let plain = entries(metadata, PERMISSION)
        .filter(|(key, _)| names::<2>(&key.key).is_ok_and(|names| names[1] == user));
    let topic = entries(metadata, TOPIC_PERMISSION)
        .filter(|(key, _)| names::<3>(&key.key).is_ok_and(|names| names[1] == user));
    plain.chain(topic).map(|(key, _)| key.clone()).collect()
}

async fn delete_users(asked: Asked<'_>, users: &[Vec<u8>]) -> Result<Answer, Problem> {
    let edits = asked.api.node.look_deep(|_, metadata| {
        let keys = users.iter().flat_map(|user| {
            permission_keys(metadata, user).into_iter().chain([key(USER, &[user]), key(USER_LIMITS, &[user])])
        });
        keys.map(Edit::RemoveEntry).collect()
    });
    asked.api.node.change(MetadataChange { guards: Vec::new(), edits }).await?;
    for user in users {
        super::connections::close_all(asked, |report| report.user == *user, "user was deleted").await?;
    }
    Ok(Answer::Done)
}

pub async fn delete(asked: Asked<'_>, name: &[u8]) -> Result<Answer, Problem> {
    asked.look(|topology| topology.user(name).map(|_| ()).ok_or_else(Problem::no_object))?;
    delete_users(asked, &[name.to_vec()]).await
}

pub async fn bulk_delete(asked: Asked<'_>) -> Result<Answer, Problem> {
    let users = match asked.fields().get("users") {
        Some(Value::Array(users)) => {
            users.iter().map(|user| Some(user.as_str()?.as_bytes().to_vec())).collect()
        }
        _ => None,
    };
    let users: Vec<Vec<u8>> = users.ok_or_else(|| Problem::missing("users"))?;
    asked.look(|topology| {
        let unknown = users.iter().find(|user| topology.user(user).is_none());
        unknown.map_or(Ok(()), |user| Err(Problem::bad(json!(["no_such_user", text(user)]))))
    })?;
    delete_users(asked, &users).await
}

/// What a user may do in a vhost, as kept.
pub fn permission_value(vhost: &[u8], user: &[u8], kept: &[u8]) -> Option<Value> {
    let [configure, write, read] = read_patterns(kept).ok()?;
    Some(json!({
        "user": text(user), "vhost": text(vhost), "configure": text(&configure), "write": text(&write), "read": text(&read),
    }))
}

/// By which keys a user may publish to an exchange and bind to it, as kept.
pub fn topic_permission_value(names: &[Vec<u8>; 3], kept: &[u8]) -> Option<Value> {
    let [vhost, user, exchange] = names;
    let [write, read] = read_patterns(kept).ok()?;
    Some(json!({
        "user": text(user), "vhost": text(vhost), "exchange": text(exchange), "write": text(&write), "read": text(&read),
    }))
}

/// Refuses to tell of a vhost or a user that is not there.
fn check_there(asked: Asked<'_>, vhost: Option<&[u8]>, user: Option<&[u8]>) -> Result<(), Problem> {
    asked.look(|topology| {
        let there = vhost.is_none_or(|vhost| topology.vhost(vhost).is_some())
            && user.is_none_or(|user| topology.user(user).is_some());
        if there { Ok(()) } else { Err(Problem::no_object()) }
    })
}

fn is_wanted(wanted: Option<&[u8]>, name: &[u8]) -> bool {
    wanted.is_none_or(|wanted| wanted == name)
}

pub async fn permissions(
    asked: Asked<'_>,
    vhost: Option<&[u8]>,
    user: Option<&[u8]>,
) -> Result<Answer, Problem> {
    check_there(asked, vhost, user)?;
    let values = asked.api.node.look_deep(|_, metadata| {
        let values = entries(metadata, PERMISSION).filter_map(|(key, entry)| {
            let [in_vhost, of] = names(&key.key).ok()?;
            let wanted = is_wanted(vhost, &in_vhost) && is_wanted(user, &of);
            wanted.then(|| permission_value(&in_vhost, &of, &entry.value))?
        });
        values.collect()
    });
    list_values(asked.query, values).await
}

pub fn permission(asked: Asked<'_>, vhost: &[u8], user: &[u8]) -> Result<Answer, Problem> {
    let found = asked.api.node.look_deep(|_, metadata| {
        permission_value(vhost, user, &metadata.entry(&key(PERMISSION, &[vhost, user]))?.value)
    });
    found.map(Answer::Value).ok_or_else(Problem::no_object)
}

/// A regular expression that makes sense.
pub fn expression<'a>(fields: Fields<'a>, name: &str) -> Result<&'a [u8], Problem> {
    let expression = fields.needed_text(name)?.as_bytes();
    match Pattern::checked(expression) {
        Some(_) => Ok(expression),
        None => Err(Problem::bad(json!(["invalid_regexp", text(expression)]))),
    }
}

fn vhost_and_user(asked: Asked<'_>, vhost: &[u8], user: &[u8]) -> Result<Vec<Guard>, Problem> {
    let (vhost, user) = (short(vhost)?, short(user)?);
    check_there(asked, Some(vhost), Some(user)).map_err(|_| Problem::bad("vhost_or_user_not_found"))?;
    Ok(asked.api.node.look_deep(|_, metadata| {
        let keys = [key(crate::amqp::topology::entries::VHOST, &[vhost]), key(USER, &[user])];
        let guards = keys.into_iter().map(|key| {
            let version = metadata.entry(&key).map(|entry| entry.version);
            Guard::Entry(key, version)
        });
        guards.collect()
    }))
}

/// Sets an entry, if what it relies on has not changed. Says whether it is new.
async fn set(asked: Asked<'_>, guards: Vec<Guard>, key: EntryKey, value: Vec<u8>) -> Result<Answer, Problem> {
    let is_new = asked.api.node.look_deep(|_, metadata| metadata.entry(&key).is_none());
    let set = Edit::SetEntry { key, value, transient: false };
    if !asked.api.node.change(MetadataChange { guards, edits: vec![set] }).await? {
        return Err(Problem::unavailable("somebody else has changed what this relies on: try again"));
    }
    Ok(if is_new { Answer::Created(None) } else { Answer::Done })
}

pub async fn put_permission(asked: Asked<'_>, vhost: &[u8], user: &[u8]) -> Result<Answer, Problem> {
    let fields = asked.fields();
    let expressions =
        [expression(fields, "configure")?, expression(fields, "write")?, expression(fields, "read")?];
    let guards = vhost_and_user(asked, vhost, user)?;
    set(asked, guards, key(PERMISSION, &[vhost, user]), patterns(&expressions)).await
}

pub async fn delete_permission(asked: Asked<'_>, vhost: &[u8], user: &[u8]) -> Result<Answer, Problem> {
    permission(asked, vhost, user)?;
    let remove = Edit::RemoveEntry(key(PERMISSION, &[vhost, user]));
    asked.api.node.change(MetadataChange { guards: Vec::new(), edits: vec![remove] }).await?;
    Ok(Answer::Done)
}

pub async fn topic_permissions(
    asked: Asked<'_>,
    vhost: Option<&[u8]>,
    user: Option<&[u8]>,
) -> Result<Answer, Problem> {
    check_there(asked, vhost, user)?;
    let values = asked.api.node.look_deep(|_, metadata| {
        let values = entries(metadata, TOPIC_PERMISSION).filter_map(|(key, entry)| {
            let names: [Vec<u8>; 3] = names(&key.key).ok()?;
            let wanted = is_wanted(vhost, &names[0]) && is_wanted(user, &names[1]);
            wanted.then(|| topic_permission_value(&names, &entry.value))?
        });
        values.collect()
    });
    list_values(asked.query, values).await
}

pub fn topic_permission(
    asked: Asked<'_>,
    vhost: &[u8],
    user: &[u8],
    exchange: &[u8],
) -> Result<Answer, Problem> {
    let found = asked.api.node.look_deep(|_, metadata| {
        let entry = metadata.entry(&key(TOPIC_PERMISSION, &[vhost, user, exchange]))?;
        topic_permission_value(&[vhost.to_vec(), user.to_vec(), exchange.to_vec()], &entry.value)
    });
    found.map(Answer::Value).ok_or_else(Problem::no_object)
}

pub async fn put_topic_permission(asked: Asked<'_>, vhost: &[u8], user: &[u8]) -> Result<Answer, Problem> {
    let fields = asked.fields();
    let exchange = fields.name("exchange")?;
    let expressions = [expression(fields, "write")?, expression(fields, "read")?];
    let guards = vhost_and_user(asked, vhost, user)?;
    set(asked, guards, key(TOPIC_PERMISSION, &[vhost, user, exchange]), patterns(&expressions)).await
}

pub async fn delete_topic_permissions(
    asked: Asked<'_>,
    vhost: &[u8],
    user: &[u8],
    exchange: Option<&[u8]>,
) -> Result<Answer, Problem> {
    let edits: Vec<Edit> = asked.api.node.look_deep(|_, metadata| {
        let keys = entries(metadata, TOPIC_PERMISSION).map(|(key, _)| key).filter(|key| {
            names::<3>(&key.key)
                .is_ok_and(|[in_vhost, of, at]| in_vhost == vhost && of == user && is_wanted(exchange, &at))
        });
        keys.cloned().map(Edit::RemoveEntry).collect()
    });
    if edits.is_empty() {
        return Err(Problem::no_object());
    }
    asked.api.node.change(MetadataChange { guards: Vec::new(), edits }).await?;
    Ok(Answer::Done)
}
