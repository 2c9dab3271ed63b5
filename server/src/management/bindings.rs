//! Bindings: listed, made, taken back. What tells one from another of the same two ends is its `properties_key`: the routing key, and
//! if there are arguments, a hash of these.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::api::{Answer, Asked, Source};
use super::exchanges::not_the_default;
use super::json::{raw_table, short, text};
use super::problem::Problem;
use super::query::unquote;
use super::routes::Ends;
use crate::amqp::operations::{Bind, Operation, Unbind};
use crate::amqp::routing::bindings::ExchangeKind;
use crate::amqp::routing::hash::hash;
use crate::amqp::topology::entries::{Binding, Destination};
use crate::amqp::topology::users::Access;
use crate::amqp::topology::{Topology, Vhost};

/// A name within a `properties_key`.
fn quoted(name: &[u8]) -> String {
    let mut quoted = String::new();
    for byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => quoted.push(char::from(*byte)),
            b' ' => quoted.push('+'),
            other => write!(quoted, "%{other:02X}").expect("a string takes anything"),
        }
    }
    quoted
}

fn arguments_key(arguments: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode((hash(arguments) as u32).to_be_bytes())
}

/// What tells a binding from others of its ends.
fn properties_key(binding: &Binding) -> String {
    match (binding.routing_key.is_empty(), binding.arguments.is_empty()) {
        (true, true) => "~".to_owned(),
        (_, true) => quoted(&binding.routing_key),
        _ => format!("{}~{}", quoted(&binding.routing_key), arguments_key(&binding.arguments)),
    }
}

/// Whether that is how a path calls a binding; the path's own percent signs are undone already, the key's perhaps not.
fn is_called(binding: &Binding, name: &[u8]) -> bool {
    let key = properties_key(binding);
    name == key.as_bytes() || unquote(key.as_bytes(), true) == name
}

fn value(vhost: &Vhost, binding: &Binding) -> Value {
    json!({
        "source": text(&binding.source),
        "vhost": text(&vhost.name),
        "destination": text(binding.destination.name()),
        "destination_type": match binding.destination {
            Destination::Queue(_) => "queue",
            Destination::Exchange(_) => "exchange",
        },
        "routing_key": text(&binding.routing_key),
        "arguments": raw_table(&binding.arguments),
        "properties_key": properties_key(binding),
    })
}

/// The binding that every queue has to the default exchange.
fn implicit(queue: &[u8]) -> Binding {
    Binding {
        source: Vec::new(),
        destination: Destination::Queue(queue.to_vec()),
        routing_key: queue.to_vec(),
        arguments: Vec::new(),
    }
}

/// The bindings of a vhost that lead somewhere, those to the default exchange first.
fn all(vhost: &Vhost) -> impl Iterator<Item = Binding> {
    let implicit = vhost.queues().map(|queue| implicit(&queue.name));
    implicit.chain(vhost.bindings().filter(|binding| vhost.has_binding(binding)).cloned())
}

struct Bindings<'a>(Asked<'a>);

impl Source for Bindings<'_> {
    type Key = (Vec<u8>, Binding);

    fn name<'k>(&self, key: &'k Self::Key) -> &'k [u8] {
        &key.1.source
    }

    async fn values(&self, keys: &[Self::Key]) -> Result<Vec<Value>, Problem> {
        Ok(self.0.look(|topology| {
            let value = |(vhost, binding): &Self::Key| Some(value(topology.vhost(vhost)?, binding));
            keys.iter().filter_map(value).collect()
        }))
    }
}

/// A list of some bindings of a vhost.
async fn list_of(
    asked: Asked<'_>,
    vhost: &[u8],
    find: impl FnOnce(&Vhost) -> Result<Vec<Binding>, Problem>,
) -> Result<Answer, Problem> {
    let keys = asked.look(|topology| {
        let vhost = asked.session.view(topology, vhost)?;
        let found = find(vhost)?;
        Ok(found.into_iter().map(|binding| (vhost.name.clone(), binding)).collect())
    })?;
    super::api::list(asked.query, Bindings(asked), keys).await
}

pub async fn list(asked: Asked<'_>, vhost: Option<&[u8]>) -> Result<Answer, Problem> {
    let vhosts = asked.vhosts(vhost)?;
    let keys = asked.look(|topology: &Topology| {
        let vhosts = vhosts.iter().filter_map(|name| topology.vhost(name));
        vhosts.flat_map(|vhost| all(vhost).map(|binding| (vhost.name.clone(), binding))).collect()
    });
    super::api::list(asked.query, Bindings(asked), keys).await
}

pub async fn of_queue(asked: Asked<'_>, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    list_of(asked, vhost, |vhost| {
        let queue = vhost.queue(name).ok_or_else(Problem::no_object)?;
        let destination = Destination::Queue(queue.name.clone());
        let own = vhost.bindings_to(&destination).filter(|binding| vhost.has_binding(binding)).cloned();
        Ok(std::iter::once(implicit(&queue.name)).chain(own).collect())
    })
    .await
}

pub async fn of_exchange(
    asked: Asked<'_>,
    vhost: &[u8],
    name: &[u8],
    source: bool,
) -> Result<Answer, Problem> {
    list_of(asked, vhost, |vhost| {
        if name.is_empty() {
            let all = vhost.queues().map(|queue| implicit(&queue.name));
            return Ok(if source { all.collect() } else { Vec::new() });
        }
        vhost.exchange(name).ok_or_else(Problem::no_object)?;
        let destination = Destination::Exchange(name.to_vec());
        let all: Vec<Binding> = if source {
            vhost.bindings_from(name).cloned().collect()
        } else {
            vhost.bindings_to(&destination).cloned().collect()
        };
        Ok(all.into_iter().filter(|binding| vhost.has_binding(binding)).collect())
    })
    .await
}

fn destination(ends: &Ends) -> Destination {
    if ends.to_exchange {
        Destination::Exchange(ends.destination.clone())
    } else {
        Destination::Queue(ends.destination.clone())
    }
}

/// The bindings between two ends.
fn found(vhost: &Vhost, ends: &Ends) -> Result<Vec<Binding>, Problem> {
    let destination = destination(ends);
    let there = match &destination {
        Destination::Queue(name) => vhost.queue(name).is_some(),
        Destination::Exchange(name) => vhost.exchange(name).is_some(),
    };
    if !there || !ends.source.is_empty() && vhost.exchange(&ends.source).is_none() {
        return Err(Problem::no_object());
    }
    if ends.source.is_empty() {
        return Ok(if ends.to_exchange { Vec::new() } else { vec![implicit(&ends.destination)] });
    }
    let all = vhost.bindings_to(&destination);
    let between = all.filter(|binding| binding.source == ends.source && vhost.has_binding(binding));
    Ok(between.cloned().collect())
}

pub async fn between(asked: Asked<'_>, ends: &Ends) -> Result<Answer, Problem> {
    list_of(asked, &ends.vhost, |vhost| found(vhost, ends)).await
}

/// The binding of that name.
fn named(asked: Asked<'_>, ends: &Ends, name: &[u8]) -> Result<Binding, Problem> {
    asked.look(|topology| {
        let vhost = asked.session.view(topology, &ends.vhost)?;
        let all = found(vhost, ends)?;
        all.into_iter().find(|binding| is_called(binding, name)).ok_or_else(Problem::no_object)
    })
}

pub fn get(asked: Asked<'_>, ends: &Ends, name: &[u8]) -> Result<Answer, Problem> {
    let binding = named(asked, ends, name)?;
    asked.look(|topology| {
        let vhost = asked.session.view(topology, &ends.vhost)?;
        Ok(Answer::Value(value(vhost, &binding)))
    })
}

/// Refuses what the user may not bind.
fn check(asked: Asked<'_>, vhost: &[u8], binding: &Binding) -> Result<(), Problem> {
    let Asked { session, .. } = asked;
    asked.look(|topology| {
        let vhost = session.enter(topology, vhost)?;
        not_the_default(&binding.source)?;
        let what = match &binding.destination {
            Destination::Queue(_) => "queue",
            Destination::Exchange(name) => {
                not_the_default(name)?;
                "exchange"
            }
        };
        session.check(vhost, Access::Write, what, binding.destination.name())?;
        session.check(vhost, Access::Read, "exchange", &binding.source)?;
        if vhost.exchange(&binding.source).is_some_and(|exchange| exchange.kind == ExchangeKind::Topic) {
            session.check_topic(vhost, Access::Read, &binding.source, &binding.routing_key)?;
        }
        Ok(())
    })
}

pub async fn post(asked: Asked<'_>, ends: &Ends) -> Result<Answer, Problem> {
    let fields = asked.fields();
    let routing_key = short(fields.text("routing_key")?.unwrap_or_default().as_bytes())?.to_vec();
    let arguments = fields.table("arguments")?;
    short(&ends.source)?;
    short(&ends.destination)?;
    let binding =
        Binding { source: ends.source.clone(), destination: destination(ends), routing_key, arguments };
    check(asked, &ends.vhost, &binding)?;
    let location = format!("{}/{}", quoted(&ends.destination), quoted_again(&properties_key(&binding)));
    asked.api.node.run(&ends.vhost, Operation::Bind(Bind { binding })).await?;
    Ok(Answer::Created(Some(location)))
}

/// A `properties_key` as a part of a path.
fn quoted_again(key: &str) -> String {
    key.replace('%', "%25").replace('+', "%2B")
}

pub async fn delete(asked: Asked<'_>, ends: &Ends, name: &[u8]) -> Result<Answer, Problem> {
    let binding = named(asked, ends, name)?;
    check(asked, &ends.vhost, &binding)?;
    asked.api.node.run(&ends.vhost, Operation::Unbind(Unbind { binding })).await?;
    Ok(Answer::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_called_by_its_key_quoted_or_not() {
        let binding = |key: &str, arguments: &[u8]| Binding {
            source: b"x".to_vec(),
            destination: Destination::Queue(b"q".to_vec()),
            routing_key: key.as_bytes().to_vec(),
            arguments: arguments.to_vec(),
        };
        assert_eq!(properties_key(&binding("", b"")), "~");
        assert_eq!(properties_key(&binding("a.#", b"")), "a.%23");
        assert_eq!(properties_key(&binding("a~ b", b"")), "a%7E+b");
        assert!(properties_key(&binding("a", b"x")).starts_with("a~"));
        assert_ne!(properties_key(&binding("a", b"x")), properties_key(&binding("a", b"y")));
        let hash = binding("a.#", b"");
        assert!(is_called(&hash, b"a.%23") && is_called(&hash, b"a.#") && !is_called(&hash, b"a.*"));
    }
}
