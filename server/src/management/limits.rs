//! Limits of vhosts and of users: listed, set, taken back.

use millstream_engine::shard::change::{Edit, EntryKey, Guard, MetadataChange};
use serde_json::{Map, Value, json};

use super::api::{Answer, Asked, list_values};
use super::json::text;
use super::parameters::{kept, parameter_key, set};
use super::problem::Problem;
use super::session::Role;
use crate::amqp::topology::entries::{USER, USER_LIMITS, key, vhost_exists};
use crate::amqp::topology::limits::{LIMITS, Limits, VHOST_LIMITS};

/// What a vhost can be limited in, and what a user can.
const OF_VHOSTS: [&str; 2] = ["max-connections", "max-queues"];
const OF_USERS: [&str; 2] = ["max-connections", "max-channels"];

/// Whose limits.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// A vhost's.
    Vhost(&'a [u8]),
    /// A user's.
    User(&'a [u8]),
}

impl Whose<'_> {
    fn entry(self) -> EntryKey {
        match self {
            Whose::Vhost(name) => parameter_key(VHOST_LIMITS, name, LIMITS),
            Whose::User(name) => key(USER_LIMITS, &[name]),
        }
    }

    /// What has to be there to have limits.
    fn guard(self) -> Guard {
        match self {
            Whose::Vhost(name) => vhost_exists(name),
            Whose::User(name) => Guard::Exists(key(USER, &[name])),
        }
    }

    /// The limits that there are; none of a vhost or a user that is not there.
    fn now(self, asked: Asked<'_>) -> Result<Map<String, Value>, Problem> {
        asked.look(|topology| match self {
            Whose::Vhost(name) => match topology.vhost(name) {
                Some(vhost) => Ok(vhost.limits.0.clone()),
                None => Err(Problem::not_found("vhost_not_found")),
            },
            Whose::User(name) => match topology.user(name) {
                Some(_) => Ok(topology.user_limits(name).cloned().unwrap_or_default().0),
                None => Err(Problem::bad(json!(["no_such_user", text(name)]))),
            },
        })
    }

    fn unknown(self, name: &str, value: &Value) -> Problem {
        let unknown = format!("Unrecognised terms [{{<<\"{name}\">>,{value}}}] in");
        match self {
            Whose::Vhost(_) => Problem::bad(format!("Validation failed\n\n{unknown} limits\n")),
            Whose::User(_) => Problem::bad(format!("{unknown} user-limits")),
        }
    }

    fn no_number(self, name: &str, value: &Value) -> Problem {
        let value = value.as_str().map_or_else(|| value.to_string(), |text| format!("<<\"{text}\">>"));
        let text = format!("{name} should be a number, actually was {value}");
        match self {
            Whose::Vhost(_) => Problem::bad(format!("Validation failed\n\n{text}\n")),
            Whose::User(_) => Problem::bad(text),
        }
    }

    /// Checks limits that come from outside.
    pub fn check(self, limits: &Map<String, Value>) -> Result<(), Problem> {
        let known = match self {
            Whose::Vhost(_) => OF_VHOSTS,
            Whose::User(_) => OF_USERS,
        };
        for (name, value) in limits {
            if !known.contains(&&**name) {
                return Err(self.unknown(name, value));
            }
            if !value.is_i64() && !value.is_u64() {
                return Err(self.no_number(name, value));
            }
        }
        Ok(())
    }
}

/// What is to be kept of a user's limits that come with the user, and where; nothing if there are none.
pub fn of_user(user: &[u8], limits: Option<&Value>) -> Result<Option<(EntryKey, Vec<u8>)>, Problem> {
    let limits = match limits {
        Some(Value::Object(limits)) if !limits.is_empty() => limits,
        // Erlang's empty list stands for no object at all.
        Some(Value::Object(_) | Value::Null) | None => return Ok(None),
        Some(Value::Array(limits)) if limits.is_empty() => return Ok(None),
        Some(_) => return Err(Problem::bad("the limits are no object")),
    };
    Whose::User(user).check(limits)?;
    Ok(Some((Whose::User(user).entry(), kept(&Value::Object(limits.clone()))?)))
}

pub async fn list_of_vhosts(asked: Asked<'_>, vhost: Option<&[u8]>) -> Result<Answer, Problem> {
    let vhosts = asked.vhosts(vhost)?;
    let values = asked.look(|topology| {
        let vhosts = vhosts.iter().filter_map(|name| topology.vhost(name));
        let limited = vhosts.filter(|vhost| !vhost.limits.0.is_empty());
        limited.map(|vhost| json!({"vhost": text(&vhost.name), "value": vhost.limits.0})).collect()
    });
    list_values(asked.query, values).await
}

pub async fn list_of_users(asked: Asked<'_>, user: Option<&[u8]>) -> Result<Answer, Problem> {
    let sees = |name: &[u8]| asked.session.is(Role::Monitoring) || asked.session.user == name;
    let values = asked.look(|topology| {
        if user.is_some_and(|name| topology.user(name).is_none()) {
            return Err(Problem::no_object());
        }
        let wanted = |name: &[u8], limits: &Limits| {
            user.is_none_or(|user| user == name) && sees(name) && !limits.0.is_empty()
        };
        let limited = topology.limited_users().filter(|(name, limits)| wanted(name, limits));
        Ok(limited.map(|(name, limits)| json!({"user": text(name), "value": limits.0})).collect())
    })?;
    list_values(asked.query, values).await
}

pub async fn put(asked: Asked<'_>, whose: Whose<'_>, name: &[u8]) -> Result<Answer, Problem> {
    let mut limits = whose.now(asked)?;
    let value = asked.fields().get("value").ok_or_else(|| Problem::missing("value"))?;
    let name = String::from_utf8_lossy(name).into_owned();
    limits.insert(name, value.clone());
    whose.check(&limits)?;
    set(asked, Some(whose.guard()), whose.entry(), kept(&Value::Object(limits))?).await?;
    Ok(Answer::Done)
}

/// One that is not there is as good as taken back.
pub async fn delete(asked: Asked<'_>, whose: Whose<'_>, name: &[u8]) -> Result<Answer, Problem> {
    let mut limits = whose.now(asked)?;
    limits.remove(&*String::from_utf8_lossy(name));
    if limits.is_empty() {
        let edits = vec![Edit::RemoveEntry(whose.entry())];
        asked.api.node.change(MetadataChange { guards: Vec::new(), edits }).await?;
    } else {
        set(asked, Some(whose.guard()), whose.entry(), kept(&Value::Object(limits))?).await?;
    }
    Ok(Answer::Done)
}
