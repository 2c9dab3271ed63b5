//! As much of Redis' protocol (RESP2) and of its streams as a client needs to add, read and acknowledge.
//! Source: "Redis serialization protocol specification" and the commands' pages of Redis' documentation.

use super::{Event, Message};
use crate::measure::Problem;

/// The one group of consumers, and the one field of an entry.
const GROUP: &[u8] = b"g";
const FIELD: &[u8] = b"d";
/// How long a read waits for something to come, and what it brings at most.
const BLOCK_MS: &[u8] = b"100";
const COUNT: usize = 256;
/// Values are nested no deeper: streams, entries, fields.
const DEPTH_MAX: usize = 5;

fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Makes a stream, with the group that its tasks are shared in.
pub fn create(stream: &str) -> Vec<u8> {
    let mut out = Vec::new();
    command(&[b"XGROUP", b"CREATE", stream.as_bytes(), GROUP, b"0", b"MKSTREAM"], &mut out);
    out
}

/// Deletes a stream.
pub fn delete(stream: &str) -> Vec<u8> {
    let mut out = Vec::new();
    command(&[b"DEL", stream.as_bytes()], &mut out);
    out
}

/// Adds a message.
pub fn publish(stream: &str, body: &[u8], out: &mut Vec<u8>) {
    command(&[b"XADD", stream.as_bytes(), b"*", FIELD, body], out);
}

/// Asks for what comes behind these entries of these streams.
pub fn read(at: &[(String, Vec<u8>)], out: &mut Vec<u8>) {
    let count = COUNT.to_string();
    let mut words: Vec<&[u8]> = vec![b"XREAD", b"COUNT", count.as_bytes(), b"BLOCK", BLOCK_MS, b"STREAMS"];
    words.extend(at.iter().map(|(stream, _)| stream.as_bytes()));
    words.extend(at.iter().map(|(_, id)| &id[..]));
    command(&words, out);
}

/// Asks for tasks of a stream that nobody has got yet.
pub fn read_tasks(stream: &str, under_way: usize, out: &mut Vec<u8>) {
    let count = COUNT.min(under_way).to_string();
    let words: [&[u8]; 11] = [
        b"XREADGROUP",
        b"GROUP",
        GROUP,
        b"c",
        b"COUNT",
        count.as_bytes(),
        b"BLOCK",
        BLOCK_MS,
        b"STREAMS",
        stream.as_bytes(),
        b">",
    ];
    command(&words, out);
}

/// Acknowledges tasks and removes them.
pub fn ack(stream: &str, ids: &[Vec<u8>], out: &mut Vec<u8>) {
    let ids = || ids.iter().map(|id| &id[..]);
    let acks: Vec<&[u8]> = [b"XACK", stream.as_bytes(), GROUP].into_iter().chain(ids()).collect();
    command(&acks, out);
    let deletes: Vec<&[u8]> = [&b"XDEL"[..], stream.as_bytes()].into_iter().chain(ids()).collect();
    command(&deletes, out);
}

/// What the protocol is made of.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Text,
    Number,
    Bytes(&'a [u8]),
    Nothing,
    List(Vec<Value<'a>>),
}

/// The first value of these bytes, and its length; none if it has not come whole.
fn value(bytes: &[u8], depth: usize) -> Result<Option<(Value<'_>, usize)>, Problem> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let Some((&kind, line)) = bytes[..end].split_first() else { return Err("an empty line".into()) };
    let (line, head) = (std::str::from_utf8(line)?, end + 2);
    match kind {
        b'+' => Ok(Some((Value::Text, head))),
        b':' => Ok(Some((Value::Number, head))),
        b'-' => Err(format!("the server says {line}").into()),
        b'$' | b'*' if line.starts_with('-') => Ok(Some((Value::Nothing, head))),
        b'$' => {
            let len: usize = line.parse()?;
            let whole = bytes.len() >= head.saturating_add(len).saturating_add(2);
            Ok(whole.then(|| (Value::Bytes(&bytes[head..head + len]), head + len + 2)))
        }
        b'*' if depth < DEPTH_MAX => {
            let count: usize = line.parse()?;
            let (mut list, mut at) = (Vec::new(), head);
            for _ in 0..count {
                let Some((value, len)) = value(&bytes[at..], depth + 1)? else { return Ok(None) };
                list.push(value);
                at += len;
            }
            Ok(Some((Value::List(list), at)))
        }
        _ => Err("the server speaks something else".into()),
    }
}

/// The first thing that a server has said, and its length.
pub fn parse(bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>, Problem> {
    let Some((value, len)) = value(bytes, 0)? else { return Ok(None) };
    let event = match value {
        Value::Text | Value::Number => Event::Done,
        Value::Bytes(_) => Event::Stored(None),
        Value::Nothing => Event::Messages(Vec::new()),
        Value::List(streams) => {
            Event::Messages(messages(&streams).ok_or("a read was answered with something else")?)
        }
    };
    Ok(Some((event, len)))
}

/// The entries of all streams of a read.
fn messages<'a>(streams: &[Value<'a>]) -> Option<Vec<Message<'a>>> {
    let mut messages = Vec::new();
    for stream in streams {
        let Value::List(stream) = stream else { return None };
        let [Value::Bytes(stream), Value::List(entries)] = &stream[..] else { return None };
        for entry in entries {
            let Value::List(entry) = entry else { return None };
            let [Value::Bytes(id), Value::List(fields)] = &entry[..] else { return None };
            let [_, Value::Bytes(body)] = &fields[..] else { return None };
            messages.push(Message { stream, id, body });
        }
    }
    Some(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_understood_and_what_is_cut_off_is_waited_for() {
        let read = b"*1\r\n*2\r\n$1\r\ns\r\n*2\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nd\r\n$4\r\na\r\nb\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nd\r\n$0\r\n\r\n";
        let message = |id, body| Message { stream: b"s", id, body };
        for (said, event) in [
            (&b"+OK\r\n"[..], Event::Done),
            (b":2\r\n", Event::Done),
            (b"$3\r\n1-0\r\n", Event::Stored(None)),
            (b"*-1\r\n", Event::Messages(Vec::new())),
            (read, Event::Messages(vec![message(b"1-0", b"a\r\nb"), message(b"1-1", b"")])),
        ] {
            assert_eq!(parse(said).unwrap(), Some((event, said.len())));
            for len in 0..said.len() {
                assert_eq!(parse(&said[..len]).unwrap(), None, "{len} bytes");
            }
        }
    }

    #[test]
    fn a_refusal_or_nonsense_is_an_error() {
        assert!(parse(b"-ERR no such key\r\n").unwrap_err().to_string().contains("no such key"));
        for said in [&b"HTTP/1.1 400\r\n"[..], b"\r\n", b"$x\r\n", b"*1\r\n:1\r\n", &b"*1\r\n".repeat(10)] {
            assert!(parse(said).is_err(), "{said:?}");
        }
    }

    #[test]
    fn commands_are_lists_of_words() {
        let mut out = Vec::new();
        publish("s", b"x\r\n", &mut out);
        assert_eq!(out, b"*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\nd\r\n$3\r\nx\r\n\r\n");
    }
}
