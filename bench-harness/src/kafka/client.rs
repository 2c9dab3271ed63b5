//! A connection that costs as little as it can: blocking, and what it sends was encoded before.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use super::wire::{self, Answer, error};
use crate::measure::Problem;

/// Room for answers at first; more as they need it.
const ROOM_BYTES: usize = 4 << 10;
/// A broker that says nothing for this long has failed.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often what cannot be done yet is tried again, and for how long.
const RETRY: Duration = Duration::from_millis(20);
const RETRIES_MAX: u32 = 500;

/// A connection to a broker.
pub struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
    /// What has come and has not been given: this part of `bytes`.
    start: usize,
    end: usize,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Result<Client, Problem> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client { stream, bytes: vec![0; ROOM_BYTES], start: 0, end: 0 })
    }

    /// Its socket, to wait for.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a request.
    pub fn send(&mut self, request: &[u8]) -> Result<(), Problem> {
        Ok(self.stream.write_all(request)?)
    }

    /// The next answer; waits until it is there whole.
    pub fn receive(&mut self) -> Result<Answer<'_>, Problem> {
        loop {
            let waiting = self.bytes.get(self.start..self.end).unwrap_or_default();
            let len = waiting.first_chunk().map_or(0, |len| u32::from_be_bytes(*len) as usize);
            let (first, after) = (self.start + 4, self.start + 4 + len);
            if len > 0 && after <= self.end {
                self.start = after;
                return Answer::of(&self.bytes[first..after]);
            }
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.bytes.len() < 4 + len {
                self.bytes.resize(4 + len, 0);
            }
            match self.stream.read(&mut self.bytes[self.end..])? {
                0 => return Err("the broker closed a connection".into()),
                came => self.end += came,
            }
        }
    }

    /// Asks, until it is answered without an error that passes by itself.
    pub fn ask(
        &mut self,
        request: &[u8],
        code: fn(&mut Answer) -> Result<i16, Problem>,
    ) -> Result<(), Problem> {
        for _ in 0..RETRIES_MAX {
            self.send(request)?;
            match code(&mut self.receive()?)? {
                error::COORDINATOR_LOAD_IN_PROGRESS | error::COORDINATOR_NOT_AVAILABLE => sleep(RETRY),
                error => return wire::check(error),
            }
        }
        Err("the coordinator did not get ready".into())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn answers_come_whole_and_in_order_however_they_arrive() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = Client::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_nodelay(true).unwrap();
        // A correlation id, an error code, and what makes one answer larger than the client's first room.
        let answer = |error: i16, rest: usize| {
            let mut frame = (6 + rest as u32).to_be_bytes().to_vec();
            frame.extend([0; 4]);
            frame.extend(error.to_be_bytes());
            frame.resize(frame.len() + rest, 7);
            frame
        };
        let stream = [answer(1, 0), answer(2, 3 * ROOM_BYTES), answer(3, 10), answer(4, 0)].concat();
        let sender = std::thread::spawn(move || {
            for piece in stream.chunks(4093) {
                peer.write_all(piece).unwrap();
            }
        });
        for expected in 1..=4 {
            assert_eq!(wire::first_error(&mut client.receive().unwrap()).unwrap(), expected);
        }
        sender.join().unwrap();
        assert!(client.receive().is_err(), "the other side is gone");
    }
}
