//! As much of the protocols of NATS and JetStream as a client needs to publish, consume and acknowledge.
//! Source: "Client Protocol" and "JetStream wire API Reference" of NATS' documentation.
//!
//! Whatever is answered to a connection comes to subjects below a name of its own: `NAME.a` for what it asks, `NAME.p.N` for
//! its Nth message. Messages that it consumes are sent to `NAME.d`, but say where they were published to.

use std::io::Write;

use super::{Event, Message};
use crate::measure::Problem;

/// Where acknowledgements of consumers go.
const ACKS: &str = "$JS.ACK.";

/// What a connection begins with: it says what it takes, and listens to what is addressed to it.
pub fn hello(name: &str) -> Vec<u8> {
    let connect = r#"{"verbose":false,"pedantic":false,"tls_required":false,"headers":true,"no_responders":true,"lang":"rust","version":"0"}"#;
    // A consumer is active if somebody listens to its very subject: one subscription to all of them does not do.
    format!("CONNECT {connect}\r\nSUB {name}.a 1\r\nSUB {name}.p.* 2\r\nSUB {name}.d 3\r\n").into_bytes()
}

/// Asks JetStream for something.
fn ask(name: &str, what: &str, body: &str) -> Vec<u8> {
    format!("PUB $JS.API.{what} {name}.a {}\r\n{body}\r\n", body.len()).into_bytes()
}

/// Makes a stream in files, with one subject that has its name.
pub fn create(name: &str, stream: &str, tasks: bool) -> Vec<u8> {
    let retention = if tasks { "workqueue" } else { "limits" };
    let config = format!(
        r#"{{"name":"{stream}","subjects":["{stream}"],"retention":"{retention}","storage":"file","num_replicas":1,"discard":"old","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"max_msg_size":-1}}"#
    );
    ask(name, &format!("STREAM.CREATE.{stream}"), &config)
}

/// Deletes a stream.
pub fn delete(name: &str, stream: &str) -> Vec<u8> {
    ask(name, &format!("STREAM.DELETE.{stream}"), "")
}

/// Has everything of a stream sent to `NAME.d`; with `tasks`, to be acknowledged, so many under way at most.
pub fn consume(name: &str, stream: &str, tasks: Option<usize>) -> Vec<u8> {
    let acks = tasks.map_or(r#""ack_policy":"none""#.to_owned(), |under_way| {
        format!(r#""ack_policy":"explicit","max_ack_pending":{under_way}"#)
    });
    let config = format!(
        r#"{{"stream_name":"{stream}","config":{{"name":"c","deliver_policy":"all",{acks},"replay_policy":"instant","deliver_subject":"{name}.d","inactive_threshold":60000000000}},"action":"create"}}"#
    );
    ask(name, &format!("CONSUMER.CREATE.{stream}.c"), &config)
}

/// Publishes a message; that it is stored is answered with its number. Writing to memory does not fail.
pub fn publish(name: &str, stream: &str, number: u64, body: &[u8], out: &mut Vec<u8>) {
    let _ = write!(out, "PUB {stream} {name}.p.{number} {}\r\n", body.len());
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
}

/// Acknowledges a message.
pub fn ack(id: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(id);
    out.extend_from_slice(b" 4\r\n+ACK\r\n");
}

/// The first thing that a server has said, and its length.
pub fn parse(bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>, Problem> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let (line, head) = (std::str::from_utf8(&bytes[..end])?, end + 2);
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (subject, reply, headers, len) = match words[..] {
        ["MSG", subject, _, len] => (subject, "", "0", len),
        ["MSG", subject, _, reply, len] => (subject, reply, "0", len),
        ["HMSG", subject, _, headers, len] => (subject, "", headers, len),
        ["HMSG", subject, _, reply, headers, len] => (subject, reply, headers, len),
        ["-ERR", ..] => return Err(format!("the server says {line}").into()),
        _ => return Ok(Some((Event::Other, head))),
    };
    let (headers, len): (usize, usize) = (headers.parse()?, len.parse()?);
    let Some(payload) = bytes.get(head..head + len) else { return Ok(None) };
    if bytes.len() < head + len + 2 {
        return Ok(None);
    }
    let body = payload.get(headers..).ok_or("headers are longer than their message")?;
    let event = match subject.split('.').nth(1) {
        // It keeps the subject that it was published to; what it is acknowledged by tells it from an answer.
        _ if reply.starts_with(ACKS) => {
            Event::Messages(vec![Message { stream: b"", id: reply.as_bytes(), body }])
        }
        kind => {
            let said = std::str::from_utf8(payload)?;
            if said.contains("\"error\"") || headers > 0 {
                return Err(format!("the server says {}", said.trim()).into());
            }
            match (kind, subject.rsplit('.').next()) {
                (Some("p"), Some(number)) => Event::Stored(Some(number.parse()?)),
                _ => Event::Done,
            }
        }
    };
    Ok(Some((event, head + len + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_understood_and_what_is_cut_off_is_waited_for() {
        let stored = b"MSG n.p.17 1 25\r\n{\"stream\":\"s\", \"seq\":9999}\r\n";
        let message = b"MSG s 1 $JS.ACK.s.c.1.1 3\r\nabc\r\n";
        let message_event =
            Event::Messages(vec![Message { stream: b"", id: b"$JS.ACK.s.c.1.1", body: b"abc" }]);
        for (said, event) in [
            (&b"INFO {\"server_id\":\"x\"}\r\n"[..], Event::Other),
            (b"MSG n.a 1 2\r\n{}\r\n", Event::Done),
            (message, message_event),
        ] {
            assert_eq!(parse(said).unwrap(), Some((event, said.len())));
            for len in 0..said.len() {
                assert_eq!(parse(&said[..len]).unwrap(), None, "{len} bytes");
            }
        }
        let (event, len) = parse(stored).unwrap().unwrap();
        assert_eq!((event, len < stored.len()), (Event::Stored(Some(17)), true), "only as much as it says");
    }

    #[test]
    fn a_refusal_is_an_error_that_says_why() {
        for (said, word) in [
            (&b"-ERR 'Authorization Violation'\r\n"[..], "Authorization"),
            (b"MSG n.p.1 1 30\r\n{\"error\":{\"description\":\"no\"}}\r\n", "no"),
            (b"HMSG n.p.1 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", "503"),
        ] {
            let why = parse(said).unwrap_err().to_string();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn what_is_published_is_framed_by_its_length() {
        let mut out = Vec::new();
        publish("n", "s", 5, b"a\r\nb", &mut out);
        ack(b"reply", &mut out);
        assert_eq!(out, b"PUB s n.p.5 4\r\na\r\nb\r\nPUB reply 4\r\n+ACK\r\n");
    }
}
