//! Definitions as they are now, object by object: the whole is never held in a form larger than its text.

use std::fmt::Write;

use serde_json::{Value, json};

use super::read::OPERATOR_POLICIES;
use crate::amqp::topology::Vhost;
use crate::amqp::topology::entries::{
    Destination, GLOBAL_PARAMETER, PARAMETER, PERMISSION, TOPIC_PERMISSION, VhostValue, names,
};
use crate::amqp::topology::users::User;
use crate::limits::HTTP_ANSWER_BYTES_MAX;
use crate::management::api::Asked;
use crate::management::json::{raw_table, text as text_of};
use crate::management::node::entries;
use crate::management::problem::Problem;
use crate::management::{parameters, policies, users, vhosts};

/// A section that is written object by object.
struct Sections {
    text: String,
    begun: bool,
}

impl Sections {
    fn field(&mut self, name: &str, value: &Value) {
        self.comma();
        write!(self.text, "{}:{value}", json!(name)).expect("a string takes anything");
    }

    fn section(&mut self, name: &str, values: impl Iterator<Item = Value>) -> Result<(), Problem> {
        self.comma();
        write!(self.text, "{}:[", json!(name)).expect("a string takes anything");
        for (place, value) in values.enumerate() {
            if place > 0 {
                self.text.push(',');
            }
            self.text.push_str(&value.to_string());
            if self.text.len() > HTTP_ANSWER_BYTES_MAX {
                return Err(Problem::bad("the definitions are too long: ask for those of one vhost"));
            }
        }
        self.text.push(']');
        Ok(())
    }

    fn comma(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            self.text.push(',');
        }
    }
}

fn vhost_value(name: &[u8], kept: &VhostValue) -> Value {
    if *kept == VhostValue::default() {
        return json!({"name": text_of(name)});
    }
    let mut inner = json!({"description": text_of(&kept.description), "tags": users::tags(&kept.tags)});
    if !kept.default_queue_type.is_empty() {
        inner["default_queue_type"] = text_of(&kept.default_queue_type);
    }
    let mut value = inner.clone();
    value["name"] = text_of(name);
    value["metadata"] = inner;
    value
}

/// An object of a vhost; the vhost is named only if there are several.
fn in_vhost(mut value: Value, vhost: &[u8], only: Option<&[u8]>) -> Value {
    if only.is_none() {
        value["vhost"] = text_of(vhost);
    } else if let Some(object) = value.as_object_mut() {
        object.remove("vhost");
    }
    value
}

fn queues(vhost: &Vhost) -> impl Iterator<Item = Value> {
    let kept = vhost.queues().filter(|queue| queue.value.owner.is_none());
    kept.map(|queue| {
        json!({
            "name": text_of(&queue.name), "durable": queue.value.durable, "auto_delete": queue.value.auto_delete,
            "arguments": raw_table(&queue.value.arguments),
        })
    })
}

fn exchanges(vhost: &Vhost) -> impl Iterator<Item = Value> {
    let own = vhost.exchanges().filter(|(name, _)| !name.starts_with(b"amq."));
    own.map(|(name, exchange)| {
        let exchange = &exchange.value;
        json!({
            "name": text_of(name), "type": text_of(&exchange.kind), "durable": exchange.durable,
            "auto_delete": exchange.auto_delete, "internal": exchange.internal, "arguments": raw_table(&exchange.arguments),
        })
    })
}

fn bindings(vhost: &Vhost) -> impl Iterator<Item = Value> {
    let lasting = vhost.bindings().filter(|binding| {
        let own = match &binding.destination {
            Destination::Queue(name) => vhost.queue(name).is_some_and(|queue| queue.value.owner.is_some()),
            Destination::Exchange(_) => false,
        };
        !own && vhost.has_binding(binding)
    });
    lasting.map(|binding| {
        let sort = if matches!(binding.destination, Destination::Queue(_)) { "queue" } else { "exchange" };
        json!({
            "source": text_of(&binding.source), "destination": text_of(binding.destination.name()),
            "destination_type": sort, "routing_key": text_of(&binding.routing_key),
            "arguments": raw_table(&binding.arguments),
        })
    })
}

/// All definitions, or those of one vhost.
pub fn text(asked: Asked<'_>, only: Option<&[u8]>) -> Result<String, Problem> {
    let about = &asked.api.about;
    let mut writer = Sections { text: "{".to_owned(), begun: false };
    asked.api.node.look_deep(|topology, metadata| {
        for name in ["rabbit_version", "rabbitmq_version", "product_version"] {
            writer.field(name, &json!(about.version));
        }
        writer.field("product_name", &json!(about.product));
        if only.is_none() {
            let user =
                |(name, user): (&Vec<u8>, &User)| users::value(name, &user.value, topology.user_limits(name));
            writer.section("users", topology.users().map(user))?;
            let vhosts = topology.vhosts().map(|vhost| {
                vhost_value(&vhost.name, &vhosts::kept(metadata, &vhost.name).unwrap_or_default())
            });
            writer.section("vhosts", vhosts)?;
            let permissions = entries(metadata, PERMISSION).filter_map(|(key, entry)| {
                let [vhost, user] = names(&key.key).ok()?;
                users::permission_value(&vhost, &user, &entry.value)
            });
            writer.section("permissions", permissions)?;
            let topics = entries(metadata, TOPIC_PERMISSION).filter_map(|(key, entry)| {
                users::topic_permission_value(&names(&key.key).ok()?, &entry.value)
            });
            writer.section("topic_permissions", topics)?;
            let global = entries(metadata, GLOBAL_PARAMETER);
            writer.section(
                "global_parameters",
                global.filter_map(|(key, entry)| parameters::global_value(key, entry)),
            )?;
        }
        let wanted = || topology.vhosts().filter(|vhost| only.is_none_or(|only| only == vhost.name));
        let kept = entries(metadata, PARAMETER).filter_map(|(key, entry)| {
            let [vhost, _, _] = names(&key.key).ok()?;
            let is_wanted = topology.vhost(&vhost).is_some() && only.is_none_or(|only| only == vhost);
            is_wanted.then(|| parameters::value(key, entry).map(|value| in_vhost(value, &vhost, only)))?
        });
        let operators = wanted().flat_map(|vhost| {
            vhost.policies(true).map(|(name, policy)| {
                let mut value = policies::value(&vhost.name, name, policy);
                if let Some(object) = value.as_object_mut() {
                    object.remove("vhost");
                    object.remove("name");
                }
                let value = json!({"component": OPERATOR_POLICIES, "name": text_of(name), "value": value});
                in_vhost(value, &vhost.name, only)
            })
        });
        writer.section("parameters", kept.chain(operators))?;
        let own = wanted().flat_map(|vhost| {
            vhost
                .policies(false)
                .map(|(name, policy)| in_vhost(policies::value(&vhost.name, name, policy), &vhost.name, only))
        });
        writer.section("policies", own)?;
        let queues = wanted().flat_map(|vhost| queues(vhost).map(|value| in_vhost(value, &vhost.name, only)));
        writer.section("queues", queues)?;
        let exchanges =
            wanted().flat_map(|vhost| exchanges(vhost).map(|value| in_vhost(value, &vhost.name, only)));
        writer.section("exchanges", exchanges)?;
        let bindings =
            wanted().flat_map(|vhost| bindings(vhost).map(|value| in_vhost(value, &vhost.name, only)));
        writer.section("bindings", bindings)
    })?;
    writer.text.push('}');
    Ok(writer.text)
}
