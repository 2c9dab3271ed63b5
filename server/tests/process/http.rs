//! A client of the management: a request per connection, JSON both ways.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Somebody who asks.
#[derive(Clone)]
pub struct Http {
    pub address: SocketAddr,
    pub authorization: String,
}

impl Http {
    pub fn new(address: SocketAddr, user: &str, password: &str) -> Http {
        Http { address, authorization: format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))) }
    }

    pub fn guest(address: SocketAddr) -> Http {
        Http::new(address, "guest", "guest")
    }

    pub fn head(&self, method: &str, path: &str) -> String {
        format!("{method} /api/{path} HTTP/1.1\r\nHost: m\r\nAuthorization: {}\r\n", self.authorization)
    }

    /// Sends a request as it is, and reads the answer.
    pub fn raw(&self, request: &[u8]) -> Answer {
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be hung up on while it still sends.
        let _ = socket.write_all(request);
        read_answer(&mut socket)
    }

    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let mut request = self.head(method, path);
        write!(request, "Connection: close\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        self.raw(&[request.as_bytes(), body].concat())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, b"")
    }

    /// What is there.
    pub fn value(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// What is done with a body; gives the status.
    pub fn put(&self, path: &str, body: &Value) -> u16 {
        self.send("PUT", path, body.to_string().as_bytes()).status
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body.to_string().as_bytes())
    }

    pub fn delete(&self, path: &str) -> u16 {
        self.send("DELETE", path, b"").status
    }
}

/// Reads one answer; the connection may go on.
pub fn read_answer(socket: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut some = [0; 4096];
        let count = socket.read(&mut some).unwrap_or(0);
        assert!(count > 0, "no answer but {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&some[..count]);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut body = bytes[end + 4..].to_vec();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer { status, head, body: Value::Null };
    let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        let mut some = vec![0; 64 << 10];
        let count = socket.read(&mut some).unwrap();
        assert!(count > 0, "an answer that is not whole");
        body.extend_from_slice(&some[..count]);
    }
    if !body.is_empty() {
        answer.body = serde_json::from_slice(&body).expect("bodies are JSON");
    }
    answer
}
