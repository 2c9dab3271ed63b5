//! A client that sends messages and waits for the same bytes to come back.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_lite::io::{AsyncWriteExt, WriteHalf, split};
use glommio::net::TcpStream;

use crate::load::crew::Worker;
use crate::load::inbox::Inbox;
use crate::load::{Count, Window, now_ns};
use crate::measure::Problem;

/// Bytes of a message.
pub const MESSAGE_BYTES: usize = 128;

/// One connection.
pub struct Client {
    /// Who answers.
    pub server: SocketAddr,
    /// Messages under way.
    pub depth: usize,
}

/// The same, connected.
pub struct Ready {
    depth: usize,
    outbox: WriteHalf<TcpStream>,
    inbox: Inbox,
}

impl Worker for Client {
    type Ready = Ready;

    async fn prepare(self) -> Result<Ready, Problem> {
        let stream = TcpStream::connect(self.server).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (read, outbox) = split(stream);
        Ok(Ready { depth: self.depth, outbox, inbox: Inbox::new(read) })
    }

    async fn run(mut ready: Ready, window: Window) -> Result<Count, Problem> {
        let mut count = Count::default();
        let messages = vec![7; ready.depth * MESSAGE_BYTES];
        let mut sent: VecDeque<u64> = VecDeque::new();
        loop {
            let room = if window.over() { 0 } else { ready.depth - sent.len() };
            if room > 0 {
                let now = now_ns();
                sent.extend(std::iter::repeat_n(now, room));
                ready.outbox.write_all(&messages[..room * MESSAGE_BYTES]).await?;
            }
            if sent.is_empty() {
                return Ok(count);
            }
            ready.inbox.peek(MESSAGE_BYTES).await?;
            while ready.inbox.waiting().len() >= MESSAGE_BYTES
                && let Some(since) = sent.pop_front()
            {
                ready.inbox.take(MESSAGE_BYTES);
                count.acknowledged(&window, since, 1, MESSAGE_BYTES as u64);
            }
            glommio::yield_if_needed().await;
        }
    }
}
