//! Connections to an AMQP broker: a blocking one that makes and deletes queues, and those of the load.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use futures_lite::io::{AsyncWriteExt, WriteHalf, split};
use glommio::net::TcpStream as LoadStream;

use super::Broker;
use super::codec::{FRAME_HEAD_BYTES, Frame, HEADER, Writer, frame_len};
use crate::load::inbox::Inbox;
use crate::measure::Problem;

/// A broker that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// What this client takes.
const CHANNEL_MAX: u16 = 2047;
const FRAME_MAX: u32 = 131_072;

/// Why a broker closes what was opened.
fn closed(code: u16, text: &str) -> Problem {
    format!("the broker says {code}: {text}").into()
}

/// The smaller of two limits, of which 0 is none.
fn limit<T: Ord + Default>(theirs: T, own: T) -> T {
    if theirs == T::default() { own } else { theirs.min(own) }
}

/// A blocking connection.
pub struct Admin {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Admin {
    /// Connects and opens a channel.
    pub fn connect(broker: &Broker) -> Result<Admin, Problem> {
        let stream = TcpStream::connect(broker.address)
            .map_err(|error| format!("connecting to {}: {error}", broker.address))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut admin = Admin { stream, bytes: Vec::new() };
        admin.stream.write_all(HEADER)?;
        admin.expect(|frame| frame == Frame::Start)?;
        admin.say(|writer| writer.start_ok(&broker.user, &broker.password))?;
        let mut limits = (CHANNEL_MAX, FRAME_MAX);
        admin.expect(|frame| match frame {
            Frame::Tune { channel_max, frame_max } => {
                limits = (limit(channel_max, CHANNEL_MAX), limit(frame_max, FRAME_MAX));
                true
            }
            _ => false,
        })?;
        admin.ask(|writer| writer.tune_ok_and_open(limits.0, limits.1, &broker.virtual_host))?;
        admin.ask(Writer::channel_open)?;
        Ok(admin)
    }

    /// Makes a queue.
    pub fn declare(&mut self, queue: &str, arguments: &[(String, String)]) -> Result<(), Problem> {
        self.ask(|writer| writer.declare(queue, true, arguments))
            .map_err(|problem| format!("declaring {queue}: {problem}").into())
    }

    /// Deletes a queue.
    pub fn delete(&mut self, queue: &str) -> Result<(), Problem> {
        self.ask(|writer| writer.delete(queue))
            .map_err(|problem| format!("deleting {queue}: {problem}").into())
    }

    /// Ends in good order.
    pub fn close(mut self) -> Result<(), Problem> {
        self.ask(Writer::close)
    }

    fn say(&mut self, what: impl FnOnce(&mut Writer)) -> Result<(), Problem> {
        let mut writer = Writer::default();
        what(&mut writer);
        Ok(self.stream.write_all(&writer.0)?)
    }

    fn ask(&mut self, what: impl FnOnce(&mut Writer)) -> Result<(), Problem> {
        self.say(what)?;
        self.expect(|frame| frame == Frame::Done)
    }

    /// Reads until there is a frame that is waited for.
    fn expect(&mut self, mut is: impl FnMut(Frame<'_>) -> bool) -> Result<(), Problem> {
        loop {
            let mut head = [0; FRAME_HEAD_BYTES];
            self.stream.read_exact(&mut head)?;
            let len = frame_len(&head).ok_or("a frame has a head")?;
            self.bytes.clear();
            self.bytes.extend(head);
            self.bytes.resize(len, 0);
            self.stream.read_exact(&mut self.bytes[FRAME_HEAD_BYTES..])?;
            match Frame::parse(&self.bytes)? {
                Frame::Close { code, text } => return Err(closed(code, text)),
                frame if is(frame) => return Ok(()),
                _ => {}
            }
        }
    }
}

/// The half of a load's connection that is written to.
pub struct Outbox(WriteHalf<LoadStream>);

impl Outbox {
    /// Sends frames.
    pub async fn send(&mut self, frames: &[u8]) -> Result<(), Problem> {
        Ok(self.0.write_all(frames).await?)
    }
}

/// The half that frames come from.
pub struct Frames {
    inbox: Inbox,
    /// Bytes of the frame that was given last.
    taken: usize,
}

impl Frames {
    /// The next frame; a broker that closes is an error.
    pub async fn next(&mut self) -> Result<Frame<'_>, Problem> {
        self.inbox.take(std::mem::take(&mut self.taken));
        let len = frame_len(self.inbox.peek(FRAME_HEAD_BYTES).await?).ok_or("a frame has a head")?;
        let frame = Frame::parse(self.inbox.peek(len).await?)?;
        self.taken = len;
        match frame {
            Frame::Close { code, text } => Err(closed(code, text)),
            frame => Ok(frame),
        }
    }

    /// Whether the next frame is there, whole.
    pub fn has_next(&self) -> bool {
        let there = self.inbox.waiting().get(self.taken..).unwrap_or_default();
        frame_len(there).is_some_and(|len| len <= there.len())
    }
}

/// A connection of the load, with a channel.
pub struct Link {
    /// To the broker.
    pub outbox: Outbox,
    /// From it.
    pub frames: Frames,
    /// The largest frame.
    pub frame_max: u32,
}

impl Link {
    /// Connects and opens a channel.
    pub async fn connect(broker: &Broker) -> Result<Link, Problem> {
        let stream = LoadStream::connect(broker.address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        let (read, write) = split(stream);
        let mut link = Link {
            outbox: Outbox(write),
            frames: Frames { inbox: Inbox::new(read), taken: 0 },
            frame_max: FRAME_MAX,
        };
        link.outbox.send(HEADER).await?;
        while link.frames.next().await? != Frame::Start {}
        let mut writer = Writer::default();
        writer.start_ok(&broker.user, &broker.password);
        link.outbox.send(&writer.0).await?;
        let channel_max = loop {
            if let Frame::Tune { channel_max, frame_max } = link.frames.next().await? {
                link.frame_max = limit(frame_max, FRAME_MAX);
                break limit(channel_max, CHANNEL_MAX);
            }
        };
        let frame_max = link.frame_max;
        link.ask(|writer| writer.tune_ok_and_open(channel_max, frame_max, &broker.virtual_host)).await?;
        link.ask(Writer::channel_open).await?;
        Ok(link)
    }

    /// Asks for something, and waits until it is done.
    pub async fn ask(&mut self, what: impl FnOnce(&mut Writer)) -> Result<(), Problem> {
        let mut writer = Writer::default();
        what(&mut writer);
        self.outbox.send(&writer.0).await?;
        while self.frames.next().await? != Frame::Done {}
        Ok(())
    }
}
