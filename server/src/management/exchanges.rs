//! Exchanges: listed, declared, deleted.

use serde_json::{Value, json};

use super::api::{Answer, Asked, Plain};
use super::json::{raw_table, short, text};
use super::problem::Problem;
use crate::amqp::operations::{DeclareExchange, DeleteExchange, Operation};
use crate::amqp::topology::Vhost;
use crate::amqp::topology::entries::ExchangeValue;
use crate::amqp::topology::users::Access;

fn value(vhost: &Vhost, name: &[u8]) -> Option<Value> {
    if name.is_empty() {
        return Some(json!({
            "name": "", "vhost": text(&vhost.name), "type": "direct", "durable": true, "auto_delete": false,
            "internal": false, "arguments": {}, "user_who_performed_action": "rmq-internal",
        }));
    }
    let exchange = &vhost.exchange(name)?.value;
    let mut value = json!({
        "name": text(name), "vhost": text(&vhost.name), "type": text(&exchange.kind), "durable": exchange.durable,
        "auto_delete": exchange.auto_delete, "internal": exchange.internal, "arguments": raw_table(&exchange.arguments),
    });
    if let Some(policy) = vhost.exchange_policy(name)
        && let Some(object) = value.as_object_mut()
    {
        object.insert("policy".to_owned(), text(policy));
    }
    Some(value)
}

pub async fn list(asked: Asked<'_>, vhost: Option<&[u8]>) -> Result<Answer, Problem> {
    let vhosts = asked.vhosts(vhost)?;
    let names = asked.look(|topology| {
        let vhosts = vhosts.iter().filter_map(|name| topology.vhost(name));
        let names = vhosts.flat_map(|vhost| {
            let names = std::iter::once(Vec::new()).chain(vhost.exchanges().map(|(name, _)| name.clone()));
            names.map(|name| (vhost.name.clone(), name))
        });
        names.collect()
    });
    let counts = asked.api.exchanges().await?;
    let plain = Plain {
        api: asked.api,
        value: |topology: &crate::amqp::topology::Topology, key: &(Vec<u8>, Vec<u8>)| {
            let mut value = value(topology.vhost(&key.0)?, &key.1)?;
            asked.exchange_numbers(
                value.as_object_mut()?,
                (&key.0, &key.1),
                counts.get(key).copied().unwrap_or_default(),
            );
            Some(value)
        },
    };
    super::api::list(asked.query, plain, names).await
}

pub async fn get(asked: Asked<'_>, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    let mut value = asked.look(|topology| {
        let vhost = asked.session.view(topology, vhost)?;
        value(vhost, name).ok_or_else(Problem::no_object)
    })?;
    let counts = asked.api.exchanges().await?;
    if let Some(object) = value.as_object_mut() {
        let counts = counts.get(&(vhost.to_vec(), name.to_vec())).copied().unwrap_or_default();
        asked.exchange_numbers(object, (vhost, name), counts);
    }
    Ok(Answer::Value(value))
}

pub async fn put(asked: Asked<'_>, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    let fields = asked.fields();
    let name = short(name)?;
    let value = ExchangeValue {
        kind: short(fields.text("type")?.unwrap_or("direct").as_bytes())?.to_vec(),
        durable: fields.flag("durable", false)?,
        auto_delete: fields.flag("auto_delete", false)?,
        internal: fields.flag("internal", false)?,
        arguments: fields.table("arguments")?,
    };
    let is_new = asked.look(|topology| {
        let vhost = asked.session.enter(topology, vhost)?;
        not_the_default(name)?;
        asked.session.check(vhost, Access::Configure, "exchange", name)?;
        let made = ("exchange", name);
        asked.session.check_passing_on(vhost, made, &value.arguments, b"alternate-exchange")?;
        Ok(vhost.exchange(name).is_none())
    })?;
    let declare = DeclareExchange { name: name.to_vec(), passive: false, value, may_be_made: Ok(()) };
    asked.api.node.run(vhost, Operation::DeclareExchange(declare)).await?;
    Ok(if is_new { Answer::Created(None) } else { Answer::Done })
}

/// Refuses changes of the exchange that every vhost has.
pub fn not_the_default(name: &[u8]) -> Result<(), Problem> {
    if name.is_empty() {
        return Err(Problem::refused_user("operation not permitted on the default exchange"));
    }
    Ok(())
}

pub async fn delete(asked: Asked<'_>, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    asked.look(|topology| {
        let vhost = asked.session.enter(topology, vhost)?;
        not_the_default(name)?;
        vhost.exchange(name).ok_or_else(Problem::no_object)?;
        asked.session.check(vhost, Access::Configure, "exchange", name)
    })?;
    let delete = DeleteExchange { name: name.to_vec(), if_unused: asked.query.is_set("if-unused") };
    asked.api.node.run(vhost, Operation::DeleteExchange(delete)).await?;
    Ok(Answer::Done)
}
