//! The arguments of queues: what they mean, which of them make no sense, and whether a second declaration says the same.

use millstream_engine::config::{Overflow, QueueSettings};

use crate::amqp::codec::{Table, Value};
use crate::amqp::error::{Failure, Text};

/// What a queue's arguments say, or a policy's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wishes {
    /// What the engine heeds.
    pub settings: QueueSettings,
    /// Where its dead letters go.
    pub dead_letter_exchange: Option<Vec<u8>>,
    /// By which key instead of their own.
    pub dead_letter_key: Option<Vec<u8>>,
    /// Whether it is a queue of type quorum.
    pub quorum: bool,
}

/// Expiry and the like: RabbitMQ's timers end there, and so do ours.
const MILLISECONDS_MAX: i64 = u32::MAX as i64;
/// How often a message of a quorum queue may come back failed if nobody says how often.
const QUORUM_DELIVERY_LIMIT: u32 = 20;

fn unacceptable(value: Value<'_>) -> String {
    format!("{{unacceptable_type,{}}}", value.type_name())
}

fn number(value: Value<'_>, min: i64, max: i64) -> Result<i64, String> {
    let number = value.integer().ok_or_else(|| format!("\"expected integer, got {}\"", value.type_name()))?;
    if number < min {
        return Err(match number {
            0 => "{value_zero,0}".to_owned(),
            _ => format!("{{value_negative,{number}}}"),
        });
    }
    if number > max {
        return Err(format!("{{value_too_big,{number}}}"));
    }
    Ok(number)
}

fn string(value: Value<'_>) -> Result<&[u8], String> {
    value.string().ok_or_else(|| unacceptable(value))
}

fn flag(value: Value<'_>) -> Result<bool, String> {
    match value {
        Value::Bool(flag) => Ok(flag),
        _ => Err(unacceptable(value)),
    }
}

impl Wishes {
    /// Takes one argument in. What nobody knows is ignored.
    fn take(&mut self, name: &[u8], value: Value<'_>) -> Result<(), String> {
        let settings = &mut self.settings;
        match name {
            b"x-expires" => settings.expires_ms = Some(number(value, 1, MILLISECONDS_MAX)? as u64),
            b"x-message-ttl" => settings.message_ttl_ms = Some(number(value, 0, MILLISECONDS_MAX)? as u64),
            b"x-max-length" => settings.max_messages = Some(number(value, 0, i64::MAX)? as u64),
            b"x-max-length-bytes" => settings.max_bytes = Some(number(value, 0, i64::MAX)? as u64),
            b"x-max-priority" => {
                let max = number(value, 0, i64::MAX)?;
                let max = u8::try_from(max).map_err(|_| format!("{{max_value_exceeded,{max}}}"))?;
                settings.max_priority = Some(max).filter(|max| *max > 0);
            }
            b"x-overflow" => {
                settings.overflow = match string(value)? {
                    b"drop-head" => Overflow::DropHead,
                    b"reject-publish" => Overflow::RejectPublish,
                    b"reject-publish-dlx" => Overflow::RejectPublishDeadLetter,
                    _ => return Err("invalid_overflow".to_owned()),
                }
            }
            b"x-single-active-consumer" => settings.single_active_consumer = flag(value)?,
            b"x-delivery-limit" => {
                settings.delivery_limit =
                    u32::try_from(number(value, i64::from(i32::MIN), i64::from(u32::MAX))?).ok();
            }
            b"x-consumer-timeout" => {
                let ms = number(value, 0, MILLISECONDS_MAX)? as u64;
                settings.consumer_timeout_ms = Some(ms).filter(|ms| *ms > 0);
            }
            b"x-dead-letter-exchange" => self.dead_letter_exchange = Some(string(value)?.to_vec()),
            b"x-dead-letter-routing-key" => self.dead_letter_key = Some(string(value)?.to_vec()),
            b"x-queue-type" => {
                self.quorum = match string(value)? {
                    b"classic" => false,
                    b"quorum" => true,
                    other => return Err(format!("\"unsupported queue type '{}'\"", Text(other))),
                }
            }
            b"x-queue-mode" => match string(value)? {
                b"default" | b"lazy" => {}
                _ => return Err("invalid_queue_mode".to_owned()),
            },
            b"x-queue-version" => drop(number(value, 1, 2)?),
            b"x-queue-master-locator" | b"x-queue-leader-locator" | b"x-dead-letter-strategy" => {
                string(value)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads a queue's arguments. `queue` names it in what is wrong.
    pub fn read(arguments: Table<'_>, queue: &str) -> Result<Wishes, Failure> {
        let invalid = |name: &[u8], wrong: &str| {
            Failure::precondition(format!("invalid arg '{}' for {queue}: {wrong}", Text(name)))
        };
        let mut wishes = Wishes::default();
        if arguments.get(b"x-queue-type") == Some(Value::String(b"quorum")) {
            wishes.settings.delivery_limit = Some(QUORUM_DELIVERY_LIMIT);
        }
        for (name, value) in arguments.iter() {
            if name == b"x-dead-letter-exchange" && value.string().is_none() {
                let (kind, name) = (value.type_name(), Text(name));
                return Err(Failure::precondition(format!(
                    "invalid type '{kind}' for arg '{name}' in {queue}"
                )));
            }
            wishes.take(name, value).map_err(|wrong| invalid(name, &wrong))?;
        }
        if wishes.dead_letter_key.is_some() && wishes.dead_letter_exchange.is_none() {
            return Err(invalid(b"x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"));
        }
        wishes.settings.dead_letter = wishes.dead_letter_exchange.is_some();
        Ok(wishes)
    }

    /// What is wrong with one setting of a policy, if anything is.
    pub fn check_policy_setting(name: &[u8], value: Value<'_>) -> Result<(), String> {
        Wishes::default().take(&[b"x-", name].concat(), value)
    }

    /// Reads a policy, whose names lack the `x-`. What makes no sense is ignored.
    pub fn of_policy(definition: Table<'_>) -> Wishes {
        let mut wishes = Wishes::default();
        for (name, value) in definition.iter() {
            if name != b"queue-type" {
                let _ = wishes.take(&[b"x-", name].concat(), value);
            }
        }
        wishes
    }

    /// Puts a policy under a queue's own wishes: of two limits the lower one holds, else the queue's own.
    #[must_use]
    pub fn over(mut self, policy: &Wishes) -> Wishes {
        fn lower<T: Ord>(own: Option<T>, policy: Option<T>) -> Option<T> {
            match (own, policy) {
                (Some(own), Some(policy)) => Some(own.min(policy)),
                (own, policy) => own.or(policy),
            }
        }
        let (own, under) = (&mut self.settings, &policy.settings);
        own.max_messages = lower(own.max_messages, under.max_messages);
        own.max_bytes = lower(own.max_bytes, under.max_bytes);
        own.message_ttl_ms = lower(own.message_ttl_ms, under.message_ttl_ms);
        own.expires_ms = lower(own.expires_ms, under.expires_ms);
        own.delivery_limit = lower(own.delivery_limit, under.delivery_limit);
        own.consumer_timeout_ms = lower(own.consumer_timeout_ms, under.consumer_timeout_ms);
        if own.overflow == Overflow::DropHead {
            own.overflow = under.overflow;
        }
        self.dead_letter_exchange = self.dead_letter_exchange.or_else(|| policy.dead_letter_exchange.clone());
        self.dead_letter_key = self.dead_letter_key.or_else(|| policy.dead_letter_key.clone());
        self.settings.dead_letter = self.dead_letter_exchange.is_some();
        self
    }
}

/// The arguments that two declarations of a queue have to agree on. Others may differ, as in RabbitMQ.
const QUEUE_ARGUMENTS: &[&[u8]] = &[
    b"x-expires",
    b"x-message-ttl",
    b"x-dead-letter-exchange",
    b"x-dead-letter-routing-key",
    b"x-max-length",
    b"x-max-length-bytes",
    b"x-max-priority",
    b"x-overflow",
    b"x-queue-type",
    b"x-single-active-consumer",
    b"x-delivery-limit",
    b"x-dead-letter-strategy",
];

/// The arguments that two declarations of an exchange have to agree on.
const EXCHANGE_ARGUMENTS: &[&[u8]] = &[b"alternate-exchange", b"hash-header", b"hash-property"];

/// Whether two values are of the same sort.
fn alike(one: Value<'_>, other: Value<'_>) -> bool {
    one.type_name() == other.type_name() || one.integer().is_some() && other.integer().is_some()
}

fn plain(value: Value<'_>) -> String {
    match value {
        Value::String(text) | Value::Bytes(text) => Text(text).to_string(),
        Value::Bool(flag) => flag.to_string(),
        other => other.integer().map_or_else(|| format!("{other:?}"), |number| number.to_string()),
    }
}

fn shown(value: Option<Value<'_>>) -> String {
    let Some(value) = value else { return "none".to_owned() };
    format!("the value '{}' of type '{}'", plain(value), value.type_name())
}

fn check_same(names: &[&[u8]], what: &str, current: Table<'_>, received: Table<'_>) -> Result<(), Failure> {
    for name in names {
        let (current, received) = (current.get(name), received.get(name));
        let same = match (current, received) {
            (None, None) => true,
            (Some(current), Some(received)) => current.means(received),
            // A queue is of type classic if nobody says what it is.
            (Some(one), None) | (None, Some(one)) => {
                *name == b"x-queue-type" && one == Value::String(b"classic")
            }
        };
        if !same {
            let (received, current) = match (received, current) {
                (Some(received), Some(current)) if alike(received, current) => {
                    (format!("'{}'", plain(received)), format!("'{}'", plain(current)))
                }
                (received, current) => (shown(received), shown(current)),
            };
            return Err(Failure::precondition(format!(
                "inequivalent arg '{}' for {what}: received {received} but current is {current}",
                Text(name)
            )));
        }
    }
    Ok(())
}

/// Whether the second declaration of a queue fits the first.
pub fn check_queue_arguments(what: &str, current: Table<'_>, received: Table<'_>) -> Result<(), Failure> {
    check_same(QUEUE_ARGUMENTS, what, current, received)
}

/// Whether the second declaration of an exchange fits the first.
pub fn check_exchange_arguments(what: &str, current: Table<'_>, received: Table<'_>) -> Result<(), Failure> {
    check_same(EXCHANGE_ARGUMENTS, what, current, received)
}

/// Whether a property of the second declaration is that of the first.
pub fn check_property(
    what: &str,
    name: &str,
    current: impl ToString,
    received: impl ToString,
) -> Result<(), Failure> {
    let (current, received) = (current.to_string(), received.to_string());
    if current == received {
        return Ok(());
    }
    Err(Failure::precondition(format!(
        "inequivalent arg '{name}' for {what}: received '{received}' but current is '{current}'"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::codec::TableWriter;

    fn read(name: &str, value: Value<'_>) -> Result<Wishes, String> {
        Wishes::read(TableWriter::default().with(name, value).table(), "q").map_err(|failure| failure.text)
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (name, value, wrong) in [
            ("x-message-ttl", Value::String(b"1"), "\"expected integer, got longstr\""),
            ("x-message-ttl", Value::I32(-1), "{value_negative,-1}"),
            ("x-expires", Value::I32(0), "{value_zero,0}"),
            ("x-max-priority", Value::I32(256), "{max_value_exceeded,256}"),
            ("x-overflow", Value::String(b"x"), "invalid_overflow"),
            ("x-dead-letter-routing-key", Value::String(b"x"), "routing_key_but_no_dlx_defined"),
            ("x-queue-type", Value::String(b"x"), "\"unsupported queue type 'x'\""),
        ] {
            assert_eq!(read(name, value), Err(format!("invalid arg '{name}' for q: {wrong}")));
        }
        assert_eq!(read("x-whatever", Value::Void), Ok(Wishes::default()));
        assert_eq!(read("x-max-length", Value::I64(0)).unwrap().settings.max_messages, Some(0));
        let quorum = read("x-queue-type", Value::String(b"quorum")).unwrap();
        assert_eq!((quorum.quorum, quorum.settings.delivery_limit), (true, Some(20)));
        assert_eq!(read("x-delivery-limit", Value::I32(-1)).unwrap().settings.delivery_limit, None);
    }

    #[test]
    fn a_policy_tightens_and_fills_in() {
        let own =
            Wishes::read(TableWriter::default().with("x-max-length", Value::I32(5)).table(), "q").unwrap();
        let policy = TableWriter::default()
            .with("max-length", Value::I32(3))
            .with("message-ttl", Value::I32(7))
            .with("dead-letter-exchange", Value::String(b"d"));
        let both = own.over(&Wishes::of_policy(policy.table()));
        assert_eq!(both.settings.max_messages, Some(3));
        assert_eq!(both.settings.message_ttl_ms, Some(7));
        assert_eq!(
            (both.dead_letter_exchange.as_deref(), both.settings.dead_letter),
            (Some(&b"d"[..]), true)
        );
    }

    #[test]
    fn only_what_is_known_has_to_be_the_same() {
        let one = TableWriter::default().with("x-message-ttl", Value::I32(5)).with("a", Value::I32(1));
        let other = TableWriter::default().with("x-message-ttl", Value::I64(5)).with("a", Value::I32(2));
        assert_eq!(check_queue_arguments("q", one.table(), other.table()), Ok(()));
        let none = Table::default();
        let failure = check_queue_arguments("q", one.table(), none).unwrap_err();
        assert_eq!(
            failure.text,
            "inequivalent arg 'x-message-ttl' for q: received none but current is the value '5' of type 'signedint'"
        );
    }
}
