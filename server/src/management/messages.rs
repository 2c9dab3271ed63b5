//! Publishing a message and getting some, one request at a time: to look around with, not to work with.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use millstream_engine::buffer::Slice;
use millstream_engine::error::Refusal;
use millstream_engine::shard::message::{ConsumerId, Delivery, Message, Publish, Settlement, Verdict};
use millstream_engine::shard::request::{Reply, Request};
use millstream_engine::time::WallMs;
use millstream_engine::types::{QueueId, ShardId};
use serde_json::{Map, Value, json};

use super::api::{Answer, Asked};
use super::json::{Fields, short, text};
use super::problem::Problem;
use super::queues;
use crate::amqp::codec::{Properties, Table};
use crate::amqp::error::Failure;
use crate::amqp::message::{self, Stored};
use crate::amqp::routing::bindings::ExchangeKind;
use crate::amqp::routing::router::{Route, walk};
use crate::amqp::topology::users::Access;
use crate::limits::{AMQP_MESSAGE_BYTES_MAX, MANAGEMENT_MESSAGES_BYTES_MAX, MANAGEMENT_MESSAGES_MAX};

/// Who gets messages for the management: no consumer has a name like that.
const KEEPER: ConsumerId = ConsumerId(u64::MAX);

/// A message's properties from an object, as they are kept. What AMQP does not know is left out, as RabbitMQ does.
fn read_properties(object: &Map<String, Value>) -> Result<Vec<u8>, Problem> {
    let fields = Fields(object);
    let headers = fields.get("headers").map(|_| fields.table("headers")).transpose()?;
    let text = |name: &str| fields.text(name)?.map(|text| short(text.as_bytes())).transpose();
    let small = |name: &str| match fields.integer(name)? {
        None => Ok(None),
        Some(number) => u8::try_from(number).map(Some).map_err(|_| Problem::bad(json!(["not_octet", name]))),
    };
    let properties = Properties {
        content_type: text("content_type")?,
        content_encoding: text("content_encoding")?,
        headers: headers.as_deref().map(|raw| Table::from_raw(raw).unwrap_or_default()),
        delivery_mode: small("delivery_mode")?,
        priority: small("priority")?,
        correlation_id: text("correlation_id")?,
        reply_to: text("reply_to")?,
        expiration: text("expiration")?,
        message_id: text("message_id")?,
        timestamp: fields.integer("timestamp")?.and_then(|seconds| u64::try_from(seconds).ok()),
        kind: text("type")?,
        user_id: text("user_id")?,
        app_id: text("app_id")?,
        cluster_id: text("cluster_id")?,
    };
    let mut raw = Vec::new();
    properties.write(&mut raw);
    Ok(raw)
}

/// A message's properties as an object.
fn properties_value(properties: &Properties<'_>) -> Value {
    let mut object = Map::new();
    let texts = [
        ("content_type", properties.content_type),
        ("content_encoding", properties.content_encoding),
        ("correlation_id", properties.correlation_id),
        ("reply_to", properties.reply_to),
        ("expiration", properties.expiration),
        ("message_id", properties.message_id),
        ("type", properties.kind),
        ("user_id", properties.user_id),
        ("app_id", properties.app_id),
        ("cluster_id", properties.cluster_id),
    ];
    for (name, bytes) in texts {
        if let Some(bytes) = bytes {
            object.insert(name.to_owned(), text(bytes));
        }
    }
    let numbers = [
        ("delivery_mode", properties.delivery_mode.map(u64::from)),
        ("priority", properties.priority.map(u64::from)),
        ("timestamp", properties.timestamp),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            object.insert(name.to_owned(), json!(number));
        }
    }
    if let Some(headers) = properties.headers {
        object.insert("headers".to_owned(), super::json::table(headers));
    }
    Value::Object(object)
}

fn read_payload(fields: Fields<'_>) -> Result<Vec<u8>, Problem> {
    let payload = fields.needed_text("payload")?;
    let body = match fields.needed_text("payload_encoding")? {
        "string" => payload.as_bytes().to_vec(),
        "base64" => STANDARD.decode(payload).map_err(|_| Problem::bad(json!(["not_base64", payload])))?,
        other => return Err(Problem::bad(json!(["unsupported_encoding", other]))),
    };
    if body.len() as u64 > AMQP_MESSAGE_BYTES_MAX {
        return Err(Problem::bad(format!("a message has {AMQP_MESSAGE_BYTES_MAX} bytes at most")));
    }
    Ok(body)
}

/// When a message ends by its own wish.
fn expiry(properties: &Properties<'_>, now: WallMs) -> Result<Option<WallMs>, Problem> {
    let Some(expiration) = properties.expiration else { return Ok(None) };
    let ms = std::str::from_utf8(expiration).ok().and_then(|text| text.parse::<u32>().ok());
    let ms = ms.ok_or_else(|| Problem::bad("invalid expiration"))?;
    Ok(Some(WallMs(now.0 + i64::from(ms))))
}

/// Where a message goes, if the user may publish it.
fn route(
    asked: Asked<'_>,
    vhost: &[u8],
    exchange: &[u8],
    key: &[u8],
    properties: &Properties<'_>,
) -> Result<Route, Problem> {
    let random = asked.api.node.random();
    asked.look(|topology| {
        let vhost = asked.session.enter(topology, vhost)?;
        // RabbitMQ tells it as AMQP does.
        let no_exchange = || {
            let failure = Failure::no_exchange(exchange, &vhost.name);
            Problem::bad(format!("404 {}", String::from_utf8_lossy(&failure.reply_text())))
        };
        asked.session.check(vhost, Access::Write, "exchange", exchange)?;
        if !exchange.is_empty() {
            let found = vhost.exchange(exchange).ok_or_else(no_exchange)?;
            if found.value.internal {
                return Err(Problem::refused_user("cannot publish to an internal exchange"));
            }
            if found.kind == ExchangeKind::Topic {
                asked.session.check_topic(vhost, Access::Write, exchange, key)?;
            }
        }
        if properties.user_id.is_some_and(|user| user != asked.session.user) {
            return Err(Problem::bad("the property user_id is not that of the user who is logged in"));
        }
        let mut queues = BTreeSet::new();
        walk(vhost, exchange, &[key], properties, random, &mut queues, &mut 0);
        Ok(Route::of(&queues))
    })
}

pub async fn publish(asked: Asked<'_>, vhost: &[u8], exchange: &[u8]) -> Result<Answer, Problem> {
    let fields = asked.fields();
    let key = fields.name("routing_key")?;
    let body = read_payload(fields)?;
    let empty = Map::new();
    let raw = match fields.get("properties") {
        Some(Value::Object(object)) => read_properties(object)?,
        // RabbitMQ makes an empty array of no properties now and then.
        Some(Value::Array(values)) if values.is_empty() => read_properties(&empty)?,
        Some(_) => return Err(Problem::bad(json!(["not_object", "properties"]))),
        None => return Err(Problem::missing("properties")),
    };
    let properties = Properties::read(&raw).map_err(|_| Problem::bad("the properties make no sense"))?;
    let expires_at = expiry(&properties, asked.api.node.now())?;
    let route = route(asked, vhost, exchange, key, &properties)?;
    let mut header = Vec::new();
    message::write(&mut header, exchange, key, &raw);
    let message = Message {
        header: Slice::from(header),
        body: if body.is_empty() { Vec::new() } else { vec![Slice::from(body)] }.into(),
        persistent: properties.is_persistent(),
        priority: properties.priority.unwrap_or(0),
        expires_at,
    };
    for (shard, queues) in &route.shards {
        let publish = Publish { queues: queues.clone(), message: message.clone() };
        match asked.api.node.ask(*shard, Request::Publish(vec![publish])).await? {
            Reply::Published(outcomes) => {
                let mut refused = outcomes.into_iter().flat_map(|outcome| outcome.refused);
                if let Some((_, refusal)) = refused.find(|(_, why)| !matches!(why, Refusal::UnknownQueue)) {
                    return Err(Problem::refused(&refusal));
                }
            }
            Reply::Refused(refusal) => return Err(Problem::refused(&refusal)),
            other => panic!("a message was answered {other:?}"),
        }
    }
    Ok(Answer::Value(json!({"routed": !route.is_empty()})))
}

/// What becomes of what is got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    /// It is settled as it is given.
    Nothing,
    Ack,
    Requeue,
    Reject,
}

fn read_after(fields: Fields<'_>) -> Result<After, Problem> {
    match fields.text("ackmode")? {
        Some("ack_requeue_true" | "reject_requeue_true") => Ok(After::Requeue),
        Some("ack_requeue_false") => Ok(After::Nothing),
        Some("reject_requeue_false") => Ok(After::Reject),
        Some(_) => Err(Problem::bad(
            "ackmode is one of ack_requeue_true, reject_requeue_true, ack_requeue_false, reject_requeue_false",
        )),
        // Older clients say only whether it goes back.
        None => match fields.get("requeue") {
            Some(_) if fields.flag("requeue", true)? => Ok(After::Requeue),
            Some(_) => Ok(After::Ack),
            None => Err(Problem::missing("ackmode")),
        },
    }
}

/// How a body is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Encoding {
    /// As text if it is some.
    Auto,
    Base64,
}

fn payload_value(body: &[u8], encoding: Encoding, most: usize) -> (Value, &'static str) {
    let (cut, _) = body.split_at(body.len().min(most));
    match (encoding, std::str::from_utf8(cut)) {
        (Encoding::Auto, Ok(text)) => (Value::String(text.to_owned()), "string"),
        // A text that was cut within a letter is a text all the same.
        (Encoding::Auto, Err(error)) if cut.len() < body.len() && error.error_len().is_none() => {
            let (whole, _) = cut.split_at(error.valid_up_to());
            (text(whole), "string")
        }
        _ => (Value::String(STANDARD.encode(cut)), "base64"),
    }
}

fn delivery_value(delivery: &Delivery, left: u64, encoding: Encoding, most: usize) -> Value {
    let stored = Stored::read(&delivery.header).ok();
    let properties = stored.and_then(|stored| stored.properties().ok()).unwrap_or_default();
    let (payload, payload_encoding) = payload_value(&delivery.body, encoding, most);
    json!({
        "payload_bytes": delivery.body.len(),
        "redelivered": delivery.redelivered,
        "exchange": text(stored.map_or(b"", |stored| stored.exchange)),
        "routing_key": text(stored.map_or(b"", |stored| stored.routing_key)),
        "message_count": left,
        "properties": properties_value(&properties),
        "payload": payload,
        "payload_encoding": payload_encoding,
    })
}

pub async fn get(asked: Asked<'_>, vhost: &[u8], name: &[u8]) -> Result<Answer, Problem> {
    let fields = asked.fields();
    let count = fields.integer("count")?.ok_or_else(|| Problem::missing("count"))?;
    let count = usize::try_from(count).map_err(|_| Problem::bad(json!(["not_int", "count"])))?;
    let after = read_after(fields)?;
    let encoding = match fields.text("encoding")? {
        Some("auto") => Encoding::Auto,
        Some("base64") => Encoding::Base64,
        Some(other) => return Err(Problem::bad(json!(["unsupported_encoding", other]))),
        None => return Err(Problem::missing("encoding")),
    };
    let most = fields.integer("truncate")?.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let (shard, queue) = queues::check(asked, vhost, name, Access::Read)?;
    let mut values = Vec::new();
    let mut bytes = 0;
    let mut kept = Vec::new();
    let mut failed = None;
    while values.len() < count.min(MANAGEMENT_MESSAGES_MAX) && bytes < MANAGEMENT_MESSAGES_BYTES_MAX {
        match get_one(asked, shard, queue, after == After::Nothing).await {
            Ok(Some((delivery, left))) => {
                bytes += delivery.body.len().min(most) + delivery.header.len();
                values.push(delivery_value(&delivery, left, encoding, most));
                kept.push(delivery.seq);
            }
            Ok(None) => break,
            Err(problem) => {
                failed = Some(problem);
                break;
            }
        }
    }
    let verdict = match after {
        After::Nothing => None,
        After::Ack => Some(Verdict::Ack),
        After::Requeue => Some(Verdict::Requeue { failed: false }),
        After::Reject => Some(Verdict::Reject),
    };
    if let Some(verdict) = verdict.filter(|_| !kept.is_empty()) {
        let settlement = |seq| Settlement { queue, consumer: KEEPER, first: seq, last: seq, verdict };
        let settlements = kept.into_iter().map(settlement).collect();
        asked.api.node.ask(shard, Request::Settle { settlements, durable: false }).await?;
    }
    match failed {
        Some(problem) if values.is_empty() => Err(problem),
        _ => Ok(Answer::Value(Value::Array(values))),
    }
}

async fn get_one(
    asked: Asked<'_>,
    shard: ShardId,
    queue: QueueId,
    no_ack: bool,
) -> Result<Option<(Delivery, u64)>, Problem> {
    match asked.api.node.ask(shard, Request::Get { queue, consumer: KEEPER, no_ack }).await? {
        Reply::Got(Some(delivery), left) => Ok(Some((delivery, left))),
        Reply::Got(None, _) => Ok(None),
        Reply::Refused(refusal) => Err(Problem::refused(&refusal)),
        other => panic!("a request for a message was answered {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_back_as_they_went() {
        let object = json!({
            "content_type": "text/plain", "delivery_mode": 2, "priority": 5, "headers": {"h": 1}, "timestamp": 7,
            "type": "t", "unknown": 1,
        });
        let raw = read_properties(object.as_object().unwrap()).unwrap();
        let mut expected = object;
        expected.as_object_mut().unwrap().remove("unknown");
        assert_eq!(properties_value(&Properties::read(&raw).unwrap()), expected);
        for wrong in
            [json!({"priority": "x"}), json!({"priority": 256}), json!({"headers": 1}), json!({"type": 1})]
        {
            assert!(read_properties(wrong.as_object().unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_body_is_text_if_it_is_some_also_when_it_is_cut() {
        let auto = |body: &[u8], most| payload_value(body, Encoding::Auto, most);
        assert_eq!(auto("aä".as_bytes(), 9), (json!("aä"), "string"));
        assert_eq!(auto("aä".as_bytes(), 2), (json!("a"), "string"));
        assert_eq!(auto(&[0xFF, 1], 9), (json!("/wE="), "base64"));
        assert_eq!(payload_value(b"hello", Encoding::Base64, 3), (json!("aGVs"), "base64"));
    }
}
