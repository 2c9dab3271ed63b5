//! What has come in on a connection, whole pieces at a time.

use futures_lite::io::{AsyncReadExt, ReadHalf};
use glommio::net::TcpStream;

use crate::measure::Problem;

/// Room for what comes in at first; more as it is needed.
const ROOM_BYTES: usize = 64 << 10;

/// The reading half of a connection.
pub struct Inbox {
    half: ReadHalf<TcpStream>,
    bytes: Vec<u8>,
    /// What has come and was not taken: this part of `bytes`.
    start: usize,
    end: usize,
}

impl Inbox {
    /// Of this connection.
    pub fn new(half: ReadHalf<TcpStream>) -> Inbox {
        Inbox { half, bytes: vec![0; ROOM_BYTES], start: 0, end: 0 }
    }

    /// The next `len` bytes, once they are there. They stay until they are taken.
    pub async fn peek(&mut self, len: usize) -> Result<&[u8], Problem> {
        while self.end - self.start < len {
            if self.start > 0 && (self.start == self.end || self.bytes.len() - self.start < len) {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.bytes.len() < len {
                self.bytes.resize(len.next_power_of_two(), 0);
            }
            match self.half.read(&mut self.bytes[self.end..]).await? {
                0 => return Err("the server closed a connection".into()),
                came => self.end += came,
            }
        }
        Ok(&self.bytes[self.start..self.start + len])
    }

    /// What is there already.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Takes `len` bytes that were peeked at.
    pub fn take(&mut self, len: usize) {
        assert!(len <= self.waiting().len(), "what is taken was peeked at before");
        self.start += len;
    }
}
