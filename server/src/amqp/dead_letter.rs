//! Dead letters: where a message goes that leaves its queue, and what it tells of that: the header `x-death`, newest first, one entry
//! for each queue and reason, in RabbitMQ's form.

use std::collections::BTreeSet;

use millstream_engine::buffer::Slice;
use millstream_engine::shard::message::{DeadLetter, LeaveReason, Message, Move};
use millstream_engine::time::WallMs;
use millstream_engine::types::{QueueId, ShardId};

use super::codec::{Properties, Table, TableWriter, Value};
use super::message::{self, Stored};
use super::routing::router::walk;
use super::topology::{Queue, Topology, Vhost};
use crate::limits::{AMQP_DEATHS_TOLD_MAX, AMQP_FRAME_BYTES_MAX};

fn reason_name(reason: LeaveReason) -> &'static str {
    match reason {
        LeaveReason::Rejected => "rejected",
        LeaveReason::Expired => "expired",
        LeaveReason::MaxLength => "maxlen",
        LeaveReason::DeliveryLimit => "delivery_limit",
    }
}

/// Where a message goes that leaves its queue: nowhere, if its queue has no dead letters any more, or nobody wants them.
pub fn route(dead: &DeadLetter, topology: &Topology, now: WallMs, random: u64) -> Move {
    let found = topology.queue(dead.queue).and_then(|(vhost, queue)| {
        let exchange = queue.wishes.dead_letter_exchange.as_deref()?;
        let stored = Stored::read(&dead.header).ok()?;
        letter(dead, vhost, queue, exchange, &stored, now, random)
    });
    let (targets, header) = found.unwrap_or((Vec::new(), dead.header.clone()));
    let body = if dead.body.is_empty() { Vec::new() } else { vec![dead.body.clone()] };
    let (persistent, priority) = (dead.persistent, dead.priority);
    let message = Message { header, body: body.into(), persistent, priority, expires_at: None };
    Move { queue: dead.queue, seq: dead.seq, targets, message }
}

/// The queues that a message goes to, and what is kept with it there.
fn letter(
    dead: &DeadLetter,
    vhost: &Vhost,
    queue: &Queue,
    exchange: &[u8],
    stored: &Stored<'_>,
    now: WallMs,
    random: u64,
) -> Option<(Vec<(ShardId, QueueId)>, Slice)> {
    if !exchange.is_empty() && vhost.exchange(exchange).is_none() {
        return None;
    }
    let properties = stored.properties().ok()?;
    let own_key = queue.wishes.dead_letter_key.as_deref();
    let copies = copies(&properties);
    let death = Death {
        reason: reason_name(dead.reason),
        queue: &queue.name,
        exchange: stored.exchange,
        keys: std::iter::once(stored.routing_key).chain(copies.iter().copied()).collect(),
        expiration: properties.expiration,
        seconds: u64::try_from(now.0 / 1000).unwrap_or(0),
    };
    let old = properties.headers.unwrap_or_default();
    // What is told has to fit into the frame that it is delivered in.
    let mut most = AMQP_DEATHS_TOLD_MAX;
    let headers = loop {
        let headers = death.headers(old, own_key.is_none(), most);
        if most == 0 || headers.table().raw().len() <= AMQP_FRAME_BYTES_MAX / 2 + old.raw().len() / 2 {
            break headers;
        }
        most /= 2;
    };
    let changed = Properties { headers: Some(headers.table()), expiration: None, ..properties };
    let key = own_key.unwrap_or(stored.routing_key);
    let keys: Vec<&[u8]> = match own_key {
        Some(key) => vec![key],
        None => death.keys.clone(),
    };
    let mut targets = BTreeSet::new();
    walk(vhost, exchange, &keys, &changed, random, &mut targets, &mut 0);
    let visited = visited(headers.table());
    targets
        .retain(|(_, id)| vhost.queue_by_id(*id).is_some_and(|target| !visited.contains(&target.name[..])));
    let mut raw = Vec::new();
    changed.write(&mut raw);
    let mut header = Vec::new();
    message::write(&mut header, exchange, key, &raw);
    Some((targets.into_iter().collect(), Slice::from(header)))
}

/// The further keys of a message.
fn copies<'a>(properties: &Properties<'a>) -> Vec<&'a [u8]> {
    match properties.headers.and_then(|headers| headers.get(b"CC")) {
        Some(Value::Array(keys)) => keys.iter().filter_map(Value::string).collect(),
        _ => Vec::new(),
    }
}

/// The queues that a message was in since somebody rejected it: in one of those it would go round.
fn visited(headers: Table<'_>) -> BTreeSet<&[u8]> {
    let mut visited = BTreeSet::new();
    let Some(Value::Array(deaths)) = headers.get(b"x-death") else { return visited };
    for death in deaths.iter() {
        let Value::Table(death) = death else { continue };
        if death.get(b"reason") == Some(Value::String(b"rejected")) {
            break;
        }
        visited.extend(death.get(b"queue").and_then(Value::string));
    }
    visited
}

/// How a message left a queue.
struct Death<'a> {
    reason: &'static str,
    queue: &'a [u8],
    exchange: &'a [u8],
    keys: Vec<&'a [u8]>,
    expiration: Option<&'a [u8]>,
    seconds: u64,
}

impl Death<'_> {
    /// A message's headers after that, which tell of so many deaths at most.
    fn headers(&self, old: Table<'_>, keep_copies: bool, most: usize) -> TableWriter {
        let deaths: Vec<Table<'_>> = match old.get(b"x-death") {
            Some(Value::Array(deaths)) => deaths
                .iter()
                .filter_map(|death| match death {
                    Value::Table(death) => Some(death),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        let same = |death: &Table<'_>| {
            death.get(b"queue") == Some(Value::String(self.queue))
                && death.get(b"reason") == Some(Value::String(self.reason.as_bytes()))
        };
        let newest = match deaths.iter().find(|death| same(death)) {
            Some(death) => again(*death),
            None => self.first(),
        };
        let all = std::iter::once(newest.table()).chain(deaths.iter().copied().filter(|death| !same(death)));
        let all = TableWriter::array(all.take(most).map(Value::Table));
        let mut headers = TableWriter::default();
        headers.put(b"x-death", all.value());
        let said: [(&str, &[u8]); 3] =
            [("reason", self.reason.as_bytes()), ("queue", self.queue), ("exchange", self.exchange)];
        for (what, value) in said {
            let first = format!("x-first-death-{what}");
            if old.get(first.as_bytes()).is_none() {
                headers.put(first.as_bytes(), Value::String(value));
            }
            headers.put(format!("x-last-death-{what}").as_bytes(), Value::String(value));
        }
        for (name, value) in old.iter() {
            let ours = name == b"x-death" || name.starts_with(b"x-last-death-");
            if !ours && name != b"BCC" && (keep_copies || name != b"CC") {
                headers.put(name, value);
            }
        }
        headers
    }

    fn first(&self) -> TableWriter {
        let mut death = TableWriter::default();
        if let Some(expiration) = self.expiration {
            death.put(b"original-expiration", Value::String(expiration));
        }
        let keys = TableWriter::array(self.keys.iter().map(|key| Value::String(key)));
        death
            .with("count", Value::I64(1))
            .with("reason", Value::String(self.reason.as_bytes()))
            .with("queue", Value::String(self.queue))
            .with("time", Value::Timestamp(self.seconds))
            .with("exchange", Value::String(self.exchange))
            .with("routing-keys", keys.value())
    }
}

/// The same death once more.
fn again(death: Table<'_>) -> TableWriter {
    let mut next = TableWriter::default();
    for (name, value) in death.iter() {
        match (name, value.integer()) {
            (b"count", Some(count)) => next.put(name, Value::I64(count.saturating_add(1))),
            _ => next.put(name, value),
        }
    }
    next
}

/// A message's properties with a header that says how often it has come back.
pub fn with_delivery_count(stored: &Stored<'_>, count: u32) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"x-delivery-count";
    let properties = stored.properties().ok()?;
    let mut headers = TableWriter::default();
    for (name, value) in properties.headers.unwrap_or_default().iter() {
        if name != NAME {
            headers.put(name, value);
        }
    }
    headers.put(NAME, Value::I64(count.into()));
    let mut raw = Vec::new();
    Properties { headers: Some(headers.table()), ..properties }.write(&mut raw);
    Some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(reason: &'static str, queue: &'static [u8]) -> Death<'static> {
        Death { reason, queue, exchange: b"x", keys: vec![b"k", b"c"], expiration: Some(b"5"), seconds: 9 }
    }

    fn names(table: Table<'_>) -> Vec<String> {
        table.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn deaths(headers: Table<'_>) -> Vec<(String, i64)> {
        let Some(Value::Array(deaths)) = headers.get(b"x-death") else { return Vec::new() };
        let told = deaths.iter().map(|death| {
            let Value::Table(death) = death else { panic!("{death:?}") };
            let queue = death.get(b"queue").and_then(Value::string).unwrap();
            (
                String::from_utf8_lossy(queue).into_owned(),
                death.get(b"count").and_then(Value::integer).unwrap(),
            )
        });
        told.collect()
    }

    #[test]
    fn a_first_death_is_told_in_rabbitmqs_order() {
        let old = TableWriter::default().with("a", Value::I32(1)).with("CC", Value::Void);
        let headers = death("expired", b"q").headers(old.table(), true, 9);
        assert_eq!(names(headers.table())[..1], ["x-death"]);
        assert_eq!(headers.table().get(b"a"), Some(Value::I32(1)));
        assert_eq!(headers.table().get(b"x-first-death-queue"), Some(Value::String(b"q")));
        assert_eq!(headers.table().get(b"x-last-death-reason"), Some(Value::String(b"expired")));
        assert_eq!(headers.table().get(b"CC"), Some(Value::Void));
        let Some(Value::Array(all)) = headers.table().get(b"x-death") else { panic!() };
        let Some(Value::Table(first)) = all.iter().next() else { panic!() };
        let expected =
            ["original-expiration", "count", "reason", "queue", "time", "exchange", "routing-keys"];
        assert_eq!(names(first), expected);
        let without = death("expired", b"q").headers(old.table(), false, 9);
        assert_eq!(without.table().get(b"CC"), None);
    }

    #[test]
    fn the_same_death_counts_and_comes_first() {
        let first = death("expired", b"q").headers(Table::default(), true, 9);
        let second = death("rejected", b"r").headers(first.table(), true, 9);
        let third = death("expired", b"q").headers(second.table(), true, 9);
        assert_eq!(deaths(third.table()), [("q".to_owned(), 2), ("r".to_owned(), 1)]);
        assert_eq!(third.table().get(b"x-first-death-queue"), Some(Value::String(b"q")));
        assert_eq!(third.table().get(b"x-last-death-queue"), Some(Value::String(b"q")));
        assert_eq!(names(third.table()).iter().filter(|name| *name == "x-last-death-queue").count(), 1);
    }

    #[test]
    fn the_newest_deaths_are_told() {
        let names: Vec<Vec<u8>> = (0..20_u8).map(|name| vec![name]).collect();
        let headers = names.iter().fold(TableWriter::default(), |old, name| {
            let death = Death { queue: name, ..death("expired", b"") };
            death.headers(old.table(), true, 9)
        });
        let Some(Value::Array(deaths)) = headers.table().get(b"x-death") else { panic!() };
        assert_eq!(deaths.iter().count(), 9);
        assert_eq!(visited(headers.table()), names[11..].iter().map(|name| &name[..]).collect());
    }

    #[test]
    fn a_message_goes_round_only_if_somebody_has_rejected_it() {
        let expired = death("expired", b"q").headers(Table::default(), true, 9);
        assert!(visited(expired.table()).contains(&b"q"[..]));
        assert!(!visited(expired.table()).contains(&b"r"[..]));
        let rejected = death("rejected", b"r").headers(expired.table(), true, 9);
        assert!(visited(rejected.table()).is_empty());
        let later = death("maxlen", b"s").headers(expired.table(), true, 9);
        assert!(visited(later.table()).contains(&b"q"[..]));
    }
}
