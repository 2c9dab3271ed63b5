//! As much of AMQP 0-9-1 as clients need to load something. A message goes to a consumer that is there, or nowhere.

use std::collections::BTreeMap;
use std::mem;

use millstream_engine::io::ConnId;
use millstream_engine::types::ShardId;

use super::store::Store;
use crate::measure::Problem;
use crate::queue::codec::{CHANNEL, FRAME_HEAD_BYTES, HEADER, Reader, Writer, frame_len};

/// What the largest frame may be, and so what a client may make us keep.
const FRAME_MAX: u32 = 131_072;
const CHANNEL_MAX: u16 = 2047;
/// Bytes that wait for a consumer; more are dropped, as everything else is.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// A consumer, wherever it is.
pub type Consumer = (ShardId, ConnId);

/// A connection.
#[derive(Default)]
pub struct Amqp {
    /// What has come and was not looked at.
    bytes: Vec<u8>,
    greeted: bool,
    confirms: bool,
    published: u64,
    /// The message that comes.
    publish: Option<Publish>,
    delivered: u64,
    /// What is to be sent.
    out: Writer,
}

struct Publish {
    queue: String,
    /// Bytes of the body that have not come; none before its header has.
    left: Option<u64>,
    /// The frames of its header and its body.
    content: Vec<u8>,
}

/// Messages for consumers, as the frames of their contents.
pub type Deliveries = BTreeMap<Consumer, Vec<Vec<u8>>>;

impl Amqp {
    /// Takes what has come on the connection of `own`. What it brings about for others goes into `deliveries`.
    pub fn take(
        &mut self,
        bytes: &[u8],
        store: &Store,
        own: Consumer,
        deliveries: &mut Deliveries,
    ) -> Result<(), Problem> {
        self.bytes.extend_from_slice(bytes);
        let all = mem::take(&mut self.bytes);
        let mut rest = &all[..];
        if !self.greeted {
            let Some((header, after)) = rest.split_first_chunk() else {
                self.bytes = all;
                return Ok(());
            };
            if header != HEADER {
                return Err("this is not AMQP 0-9-1".into());
            }
            self.greeted = true;
            rest = after;
            self.out.start();
        }
        let before = self.published;
        while let Some(len) = frame_len(rest)
            && let Some((frame, after)) = rest.split_at_checked(len)
        {
            if len > FRAME_MAX as usize {
                return Err("a frame is too large".into());
            }
            self.frame(frame, store, own, deliveries)?;
            rest = after;
        }
        self.bytes = rest.to_vec();
        if self.confirms && self.published > before {
            self.out.ack(self.published, true);
        }
        Ok(())
    }

    /// Adds messages for this connection's consumer.
    pub fn deliver(&mut self, contents: &[Vec<u8>]) {
        for content in contents {
            if self.out.0.len() + content.len() <= WAITING_BYTES_MAX {
                self.delivered += 1;
                self.out.deliver(self.delivered);
                self.out.0.extend_from_slice(content);
            }
        }
    }

    /// What is to be sent.
    pub fn out(&mut self) -> Vec<u8> {
        mem::take(&mut self.out.0)
    }

    fn frame(
        &mut self,
        frame: &[u8],
        store: &Store,
        own: Consumer,
        deliveries: &mut Deliveries,
    ) -> Result<(), Problem> {
        if frame.first() == Some(&1) {
            return self.method(frame, store, own);
        }
        let Some(publish) = &mut self.publish else { return Ok(()) };
        publish.content.extend_from_slice(frame);
        let payload = (frame.len() - FRAME_HEAD_BYTES - 1) as u64;
        let left = match publish.left {
            Some(left) => left.saturating_sub(payload),
            None => {
                let mut reader = Reader(frame);
                reader.take(FRAME_HEAD_BYTES + 4)?;
                reader.u64()?
            }
        };
        publish.left = Some(left);
        if left == 0
            && let Some(publish) = self.publish.take()
        {
            self.published += 1;
            if let Some(consumer) = store.consumer(&publish.queue) {
                deliveries.entry(consumer).or_default().push(publish.content);
            }
        }
        Ok(())
    }

    fn method(&mut self, frame: &[u8], store: &Store, own: Consumer) -> Result<(), Problem> {
        let mut reader = Reader(frame);
        reader.take(FRAME_HEAD_BYTES)?;
        match (reader.u16()?, reader.u16()?) {
            (10, 11) => self.out.tune(CHANNEL_MAX, FRAME_MAX),
            (10, 40) => self.out.done(0, 10, 41, &[0]),
            (10, 50) => self.out.done(0, 10, 51, &[]),
            (20, 10) => self.out.done(CHANNEL, 20, 11, &[0; 4]),
            (20, 40) => self.out.done(CHANNEL, 20, 41, &[]),
            (50, 10) => {
                reader.take(2)?;
                let queue = reader.short_string()?;
                let mut arguments = vec![queue.len() as u8];
                arguments.extend(queue.as_bytes());
                arguments.extend([0; 8]);
                self.out.done(CHANNEL, 50, 11, &arguments);
            }
            (50, 40) => {
                reader.take(2)?;
                store.forget_queue(reader.short_string()?);
                self.out.done(CHANNEL, 50, 41, &[0; 4]);
            }
            (60, 10) => self.out.done(CHANNEL, 60, 11, &[]),
            (60, 20) => {
                reader.take(2)?;
                store.consume(reader.short_string()?, own);
                self.out.done(CHANNEL, 60, 21, b"\x01c");
            }
            (60, 40) => {
                reader.take(2)?;
                reader.short_string()?;
                let queue = reader.short_string()?.to_owned();
                self.publish = Some(Publish { queue, left: None, content: Vec::new() });
            }
            (85, 10) => {
                self.confirms = true;
                self.out.done(CHANNEL, 85, 11, &[]);
            }
            _ => {}
        }
        Ok(())
    }
}
