//! A connection to a broker, on a thread of the load.

use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::io::{AsyncWriteExt, WriteHalf, split};
use glommio::net::TcpStream;

use crate::kafka::wire::Answer;
use crate::load::inbox::Inbox;
use crate::measure::Problem;

/// A broker that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects; what is sent is not held back.
pub async fn connect(address: SocketAddr) -> Result<(Outbox, Answers), Problem> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    let (read, write) = split(stream);
    Ok((Outbox(write), Answers { inbox: Inbox::new(read), taken: 0 }))
}

/// The half that is written to.
pub struct Outbox(WriteHalf<TcpStream>);

impl Outbox {
    /// Sends a request.
    pub async fn send(&mut self, request: &[u8]) -> Result<(), Problem> {
        Ok(self.0.write_all(request).await?)
    }
}

/// The half that answers come from.
pub struct Answers {
    inbox: Inbox,
    /// Bytes of the answer that was given last.
    taken: usize,
}

impl Answers {
    /// The next answer, whole.
    pub async fn next(&mut self) -> Result<Answer<'_>, Problem> {
        self.inbox.take(std::mem::take(&mut self.taken));
        let len = self.inbox.peek(4).await?.first_chunk().map_or(0, |len| u32::from_be_bytes(*len) as usize);
        self.taken = 4 + len;
        Answer::of(&self.inbox.peek(4 + len).await?[4..])
    }
}
