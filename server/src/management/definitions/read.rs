//! Reading definitions, and seeing whether they make sense by themselves.

use serde_json::{Map, Value};

use super::{Definitions, In, Plain};
use crate::amqp::codec::{Table, Value as Field};
use crate::amqp::error::{Text, exchange_in, queue_in};
use crate::amqp::routing::bindings::ExchangeKind;
use crate::amqp::topology::arguments::Wishes;
use crate::amqp::topology::entries::{
    Binding, Destination, ExchangeValue, GLOBAL_PARAMETER, PERMISSION, QueueValue, TOPIC_PERMISSION, USER,
    UserValue, VHOST, VhostValue, key, patterns,
};
use crate::limits::AMQP_BINDING_ARGUMENTS_BYTES_MAX;
use crate::management::json::{Fields, short};
use crate::management::limits;
use crate::management::parameters::{kept, parameter_key};
use crate::management::problem::Problem;
use crate::management::{policies, users, vhosts};

/// The component under which policies that can only tighten stand among the parameters.
pub const OPERATOR_POLICIES: &str = "operator_policy";

/// The objects of a section.
fn section<'a>(all: &'a Map<String, Value>, name: &'static str) -> Result<Vec<Fields<'a>>, Problem> {
    let objects = match all.get(name) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(objects)) => objects,
        Some(_) => return Err(Problem::bad(format!("{name} is no list"))),
    };
    let object = |(place, object): (usize, &'a Value)| {
        let object = object.as_object().map(Fields);
        object.ok_or_else(|| Problem::bad(format!("number {} of {name} is no object", place + 1)))
    };
    objects.iter().enumerate().map(object).collect()
}

/// Says of which object something is wrong.
fn of<T>(about: impl Into<String>, result: Result<T, Problem>) -> Result<T, Problem> {
    result.map_err(|problem| problem.about(&about.into()))
}

/// What cannot be named without what may be wrong with it.
fn named<'a>(fields: Fields<'a>, section: &str) -> Result<&'a [u8], Problem> {
    of(format!("one of {section}"), fields.name("name"))
}

impl Definitions {
    /// Reads definitions; of one vhost, if one is given.
    pub fn read(all: &Map<String, Value>, only: Option<&[u8]>) -> Result<Definitions, Problem> {
        let mut definitions = Definitions::default();
        if only.is_none() {
            definitions.read_node(all)?;
        }
        let vhost_of = |fields: Fields<'_>| match only {
            Some(only) => Ok(only.to_vec()),
            None => fields.name("vhost").map(<[u8]>::to_vec),
        };
        for fields in section(all, "parameters")? {
            let name = named(fields, "parameters")?;
            let about = format!("parameter '{}'", Text(name));
            let vhost = of(&about, vhost_of(fields))?;
            of(&about, definitions.parameter(fields, &about, name, &vhost))?;
        }
        for fields in section(all, "policies")? {
            let name = named(fields, "policies")?;
            let about = format!("policy '{}'", Text(name));
            let vhost = of(&about, vhost_of(fields))?;
            let value = of(&about, policies::read(fields, false))?.write();
            definitions.in_vhost(about, policies::policy_key(false, &vhost, name), value, &vhost);
        }
        for fields in section(all, "exchanges")? {
            let name = named(fields, "exchanges")?;
            let vhost = of(format!("exchange '{}'", Text(name)), vhost_of(fields))?;
            let value = of(exchange_in(name, &vhost), exchange(fields, name))?;
            definitions.exchanges.push(In { vhost, name: name.to_vec(), value });
        }
        for fields in section(all, "queues")? {
            let name = named(fields, "queues")?;
            let vhost = of(format!("queue '{}'", Text(name)), vhost_of(fields))?;
            let value = of(queue_in(name, &vhost), queue(fields, name, &vhost))?;
            definitions.queues.push(In { vhost, name: name.to_vec(), value });
        }
        for fields in section(all, "bindings")? {
            let (source, to) =
                (fields.text("source")?.unwrap_or("?"), fields.text("destination")?.unwrap_or("?"));
            let about = format!("binding from '{source}' to '{to}'");
            let vhost = of(&about, vhost_of(fields))?;
            if let Some(binding) = of(&about, binding(fields))? {
                definitions.bindings.push((vhost, binding));
            }
        }
        Ok(definitions)
    }

    /// What belongs to the node and not to a vhost.
    fn read_node(&mut self, all: &Map<String, Value>) -> Result<(), Problem> {
        for fields in section(all, "users")? {
            let name = named(fields, "users")?;
            let about = format!("user '{}'", Text(name));
            let value = of(&about, user(fields))?.write();
            let limits = of(&about, limits::of_user(name, fields.get("limits")))?;
            if let Some((key, value)) = limits {
                let (about, user) = (about.clone(), Some(name.to_vec()));
                self.entries.push(Plain { about, key, value, vhost: None, user });
            }
            self.entries.push(Plain { about, key: key(USER, &[name]), value, vhost: None, user: None });
            self.users.push(name.to_vec());
        }
        for fields in section(all, "vhosts")? {
            let name = named(fields, "vhosts")?;
            let about = format!("vhost '{}'", Text(name));
            let value = of(&about, vhosts::read(fields, VhostValue::default()))?.write();
            self.entries.push(Plain { about, key: key(VHOST, &[name]), value, vhost: None, user: None });
            self.vhosts.push(name.to_vec());
        }
        for fields in section(all, "permissions")? {
            let user = of("one of permissions", fields.name("user"))?;
            let about = format!("permission of user '{}'", Text(user));
            of(&about, self.permission(fields, &about, user, &["configure", "write", "read"]))?;
        }
        for fields in section(all, "topic_permissions")? {
            let user = of("one of topic_permissions", fields.name("user"))?;
            let about = format!("topic permission of user '{}'", Text(user));
            of(&about, self.permission(fields, &about, user, &["write", "read"]))?;
        }
        for fields in section(all, "global_parameters")? {
            let name = named(fields, "global_parameters")?;
            let about = format!("global parameter '{}'", Text(name));
            let value = fields.0.get("value").ok_or_else(|| Problem::missing("value"));
            let value = of(&about, value.and_then(kept))?;
            let key = key(GLOBAL_PARAMETER, &[name]);
            self.entries.push(Plain { about, key, value, vhost: None, user: None });
        }
        Ok(())
    }

    fn permission(
        &mut self,
        fields: Fields<'_>,
        about: &str,
        user: &[u8],
        expressions: &[&str],
    ) -> Result<(), Problem> {
        let vhost = fields.name("vhost")?;
        let read: Result<Vec<&[u8]>, Problem> =
            expressions.iter().map(|name| users::expression(fields, name)).collect();
        let key = match expressions {
            [_, _, _] => key(PERMISSION, &[vhost, user]),
            _ => key(TOPIC_PERMISSION, &[vhost, user, fields.name("exchange")?]),
        };
        self.entries.push(Plain {
            about: format!("{about} in vhost '{}'", Text(vhost)),
            key,
            value: patterns(&read?),
            vhost: Some(vhost.to_vec()),
            user: Some(user.to_vec()),
        });
        Ok(())
    }

    fn parameter(
        &mut self,
        fields: Fields<'_>,
        about: &str,
        name: &[u8],
        vhost: &[u8],
    ) -> Result<(), Problem> {
        let component = fields.needed_text("component")?;
        let value = fields.0.get("value").ok_or_else(|| Problem::missing("value"))?;
        if component == OPERATOR_POLICIES {
            let policy = value.as_object().ok_or_else(|| Problem::bad("its value is no object"))?;
            let value = policies::read(Fields(policy), true)?.write();
            self.in_vhost(about.to_owned(), policies::policy_key(true, vhost, name), value, vhost);
            return Ok(());
        }
        let key = parameter_key(short(component.as_bytes())?, vhost, name);
        self.in_vhost(about.to_owned(), key, kept(value)?, vhost);
        Ok(())
    }

    fn in_vhost(
        &mut self,
        about: String,
        key: millstream_engine::shard::change::EntryKey,
        value: Vec<u8>,
        vhost: &[u8],
    ) {
        let about = format!("{about} in vhost '{}'", Text(vhost));
        self.entries.push(Plain { about, key, value, vhost: Some(vhost.to_vec()), user: None });
    }
}

/// A user: without a password in plain, which no export has.
fn user(fields: Fields<'_>) -> Result<UserValue, Problem> {
    let hash = fields.text("password_hash")?.unwrap_or_default();
    let algorithm = fields.text("hashing_algorithm")?;
    let tags = fields.get("tags").map_or(Ok(Vec::new()), users::read_tags)?;
    Ok(UserValue { password_hash: users::read_hash(hash, algorithm)?, tags })
}

fn exchange(fields: Fields<'_>, name: &[u8]) -> Result<ExchangeValue, Problem> {
    let kind = fields.name("type")?.to_vec();
    if name.is_empty() {
        return Err(Problem::bad("the default exchange is there already"));
    }
    if ExchangeKind::named(&kind).is_none() {
        return Err(Problem::bad(format!("unknown exchange type '{}'", Text(&kind))));
    }
    let arguments = fields.table("arguments")?;
    let alternate = Table::from_raw(&arguments).unwrap_or_default().get(b"alternate-exchange");
    if alternate.is_some_and(|value| !matches!(value, Field::String(_))) {
        return Err(Problem::bad("invalid arg 'alternate-exchange'"));
    }
    Ok(ExchangeValue {
        kind,
        durable: fields.flag("durable", true)?,
        auto_delete: fields.flag("auto_delete", false)?,
        internal: fields.flag("internal", false)?,
        arguments,
    })
}

fn queue(fields: Fields<'_>, name: &[u8], vhost: &[u8]) -> Result<QueueValue, Problem> {
    let arguments = fields.table("arguments")?;
    let table = Table::from_raw(&arguments).unwrap_or_default();
    let wishes = Wishes::read(table, &queue_in(name, vhost)).map_err(|failure| Problem::failed(&failure))?;
    let durable = fields.flag("durable", true)?;
    if name.is_empty() {
        return Err(Problem::bad("a queue has a name"));
    }
    if wishes.quorum && !durable {
        return Err(Problem::bad("a queue of type quorum is durable"));
    }
    Ok(QueueValue { durable, auto_delete: fields.flag("auto_delete", false)?, owner: None, arguments })
}

/// A binding; none for those that every queue has.
fn binding(fields: Fields<'_>) -> Result<Option<Binding>, Problem> {
    let destination = fields.name("destination")?.to_vec();
    let destination = match fields.text("destination_type")?.unwrap_or("queue") {
        "queue" => Destination::Queue(destination),
        "exchange" => Destination::Exchange(destination),
        other => return Err(Problem::bad(format!("'{other}' is no type of destination"))),
    };
    let arguments = fields.table("arguments")?;
    if arguments.len() > AMQP_BINDING_ARGUMENTS_BYTES_MAX {
        return Err(Problem::bad("its arguments are too large"));
    }
    let routing_key = short(fields.text("routing_key")?.unwrap_or_default().as_bytes())?.to_vec();
    let source = fields.name("source")?.to_vec();
    let own = !source.is_empty();
    Ok(own.then_some(Binding { source, destination, routing_key, arguments }))
}
