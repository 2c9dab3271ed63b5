//! Answers every connection with a partition's bytes, over and over: what a fetch response is made of, without a
//! protocol around it.

use millstream_engine::buffer::Slice;
use millstream_engine::io::ConnId;
use millstream_engine::reactor::app::{AppToken, Outbox};
use millstream_engine::shard::request::Reply;

use super::read::Cursor;
use super::{Stored, partitions};

/// Bytes that a read plan covers.
const PLAN_BYTES: u32 = 1 << 20;

/// What a connection gets.
#[derive(Clone, Debug)]
pub struct Serve {
    /// The topic; its first partition on this shard.
    pub topic: String,
    /// The batch that it holds.
    pub stored: Stored,
}

/// One connection: a chunk is read while the one before it is sent.
pub(super) struct Serving {
    conn: ConnId,
    token: AppToken,
    cursor: Cursor,
    ready: Option<Vec<Slice>>,
    asking: bool,
    sending: bool,
}

impl Serving {
    /// Starts to answer `conn`; `None` if there is no such partition here. Replies come under `token`.
    pub(super) fn start(serve: &Serve, conn: ConnId, token: AppToken, out: &mut Outbox) -> Option<Serving> {
        let partition = *partitions(out, &serve.topic, out.shard()).first()?;
        let cursor = Cursor::new(partition, serve.stored);
        let mut serving = Serving { conn, token, cursor, ready: None, asking: false, sending: false };
        serving.pump(out);
        Some(serving)
    }

    fn pump(&mut self, out: &mut Outbox) {
        if !self.sending
            && let Some(slices) = self.ready.take()
        {
            self.sending = true;
            out.send(self.conn, slices);
        }
        if self.ready.is_none() && !self.asking {
            self.asking = true;
            let (shard, request) = (out.shard(), self.cursor.request(PLAN_BYTES));
            out.engine(self.token, shard, request, Some(self.conn));
        }
    }

    pub(super) fn sent(&mut self, out: &mut Outbox) {
        self.sending = false;
        self.pump(out);
    }

    /// Takes an answer. A read that fails closes the connection: the client counts what it got.
    pub(super) fn reply(&mut self, reply: Reply, out: &mut Outbox) {
        self.asking = false;
        let (chunk, end) = match reply {
            Reply::Read(read) => (read.chunk, Some(read.high_watermark)),
            Reply::Loaded(chunk) => (chunk, None),
            _ => return out.close(self.conn),
        };
        let rest = chunk.rest();
        let bytes: u64 = chunk.bytes.iter().map(|slice| slice.len() as u64).sum();
        match (bytes, end) {
            (0, Some(end)) if end.0 > 0 => self.cursor.seek(0.0, end),
            (0, _) => return out.close(self.conn),
            _ => {
                if self.cursor.advance(bytes, rest).is_err() {
                    return out.close(self.conn);
                }
                self.ready = Some(chunk.bytes);
            }
        }
        self.pump(out);
    }
}
