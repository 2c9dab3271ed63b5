//! Connections: a blocking one that makes and deletes streams, and those of the load.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use futures_lite::io::{AsyncWriteExt, WriteHalf, split};
use glommio::net::TcpStream as LoadStream;

use super::{Dialect, Event, nats, redis};
use crate::load::inbox::Inbox;
use crate::measure::Problem;

/// A server that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that are read at a time.
const READ_BYTES: usize = 16 << 10;

/// A blocking connection.
pub struct Admin {
    dialect: Dialect,
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Admin {
    /// Connects.
    pub fn connect(dialect: Dialect, address: SocketAddr) -> Result<Admin, Problem> {
        let stream =
            TcpStream::connect(address).map_err(|error| format!("connecting to {address}: {error}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut admin = Admin { dialect, stream, bytes: Vec::new() };
        if dialect == Dialect::Nats {
            admin.stream.write_all(&nats::hello(ADMIN))?;
        }
        Ok(admin)
    }

    /// Makes a stream, of records that stay or of tasks that go when they are acknowledged.
    pub fn create(&mut self, stream: &str, tasks: bool) -> Result<(), Problem> {
        let asked = match self.dialect {
            Dialect::Nats => nats::create(ADMIN, stream, tasks),
            Dialect::Redis => redis::create(stream),
        };
        self.ask(&asked).map_err(|problem| format!("creating {stream}: {problem}").into())
    }

    /// Deletes a stream.
    pub fn delete(&mut self, stream: &str) -> Result<(), Problem> {
        let asked = match self.dialect {
            Dialect::Nats => nats::delete(ADMIN, stream),
            Dialect::Redis => redis::delete(stream),
        };
        self.ask(&asked).map_err(|problem| format!("deleting {stream}: {problem}").into())
    }

    fn ask(&mut self, what: &[u8]) -> Result<(), Problem> {
        self.stream.write_all(what)?;
        loop {
            if let Some((event, len)) = self.dialect.parse(&self.bytes)? {
                let done = event == Event::Done;
                self.bytes.drain(..len);
                if done {
                    return Ok(());
                }
                continue;
            }
            let mut more = [0; READ_BYTES];
            match self.stream.read(&mut more)? {
                0 => return Err("the server closed the connection".into()),
                came => self.bytes.extend_from_slice(&more[..came]),
            }
        }
    }
}

/// What the administrator's answers are addressed to.
const ADMIN: &str = "millbench-admin";

/// The half of a load's connection that is written to.
pub struct Outbox(WriteHalf<LoadStream>);

impl Outbox {
    /// Sends.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        Ok(self.0.write_all(bytes).await?)
    }
}

/// The half that events come from.
pub struct Events {
    dialect: Dialect,
    inbox: Inbox,
    /// Bytes of the event that was given last.
    taken: usize,
}

impl Events {
    /// The next event.
    pub async fn next(&mut self) -> Result<Event<'_>, Problem> {
        self.inbox.take(std::mem::take(&mut self.taken));
        let mut wanted = 1;
        loop {
            let there = self.inbox.peek(wanted).await?.len().max(self.inbox.waiting().len());
            match self.dialect.parse(self.inbox.waiting())? {
                // Parsed again behind the loop: what borrows from the inbox cannot be kept while more is read.
                Some((_, len)) => {
                    self.taken = len;
                    break;
                }
                None => wanted = there + 1,
            }
        }
        let event = self.dialect.parse(self.inbox.waiting())?;
        Ok(event.ok_or("an event was there a moment ago")?.0)
    }

    /// Whether the next event is there, whole.
    pub fn has_next(&self) -> bool {
        let there = self.inbox.waiting().get(self.taken..).unwrap_or_default();
        !there.is_empty() && !matches!(self.dialect.parse(there), Ok(None))
    }
}

/// Connects; answers to this connection are addressed to `name`.
pub async fn connect(dialect: Dialect, address: SocketAddr, name: &str) -> Result<(Outbox, Events), Problem> {
    let stream = LoadStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    let (read, write) = split(stream);
    let mut outbox = Outbox(write);
    if dialect == Dialect::Nats {
        outbox.send(&nats::hello(name)).await?;
    }
    Ok((outbox, Events { dialect, inbox: Inbox::new(read), taken: 0 }))
}
